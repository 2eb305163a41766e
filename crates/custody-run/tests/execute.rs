//! Commands, what they see, and what is left of them.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use custody_core::Code;
use custody_core::digest::{Hasher, Sha256};
use custody_core::envelope::StatementId;
use custody_core::statement::{Limits, Task};
use custody_core::time::Time;
use custody_run::execute::{
    Confinement, Confiner, End, Enforced, LOG_BYTES, Outcome, Run, User, execute,
};
use custody_run::stage::RunDirectory;
use tempfile::TempDir;

const NOBODY: User = User { uid: 65534, gid: 65534 };

fn confiner() -> Confiner {
    Confiner { program: env!("CARGO_BIN_EXE_custody-confiner").into(), ..Confiner::default() }
}

/// All that this machine can do.
fn full(user: Option<User>) -> Confinement {
    Confinement::probe(&confiner(), user).unwrap()
}

/// Nothing at all.
fn bare() -> Confinement {
    Confinement { confiner: confiner(), tried: true, ..Confinement::default() }
}

fn task(command: &[&str]) -> Task {
    Task {
        authorization: StatementId(Sha256::of(b"authorization")),
        step: "build".parse().unwrap(),
        creator: "test".to_owned(),
        command: command.iter().map(|&word| word.to_owned()).collect(),
        image: None,
        limits: Limits::default(),
        destination: None,
        variables: Vec::new(),
        network: false,
        downloads: None,
        inputs: Vec::new(),
        source: None,
        externals: Vec::new(),
        outputs: Vec::new(),
        sha512: true,
        created: Time::from_unix(0).unwrap(),
        deadline: Time::from_unix(0).unwrap(),
        nonce: String::new(),
    }
}

/// Says past the test runner that this test was left out, which it may not be where all are required.
fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

fn script(text: &str) -> Task {
    task(&["sh", "-c", text])
}

struct World {
    files: TempDir,
    run: RunDirectory,
    machine: Confinement,
    timeout: Option<Duration>,
    log_limit: u64,
}

impl World {
    fn new(machine: Confinement) -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), Permissions::from_mode(0o711)).unwrap();
        let run = RunDirectory::create(&files.path().join("run")).unwrap();
        Self { files, run, machine, timeout: None, log_limit: LOG_BYTES }
    }

    /// With all that this machine can do, and with nothing at all.
    fn both() -> [Self; 2] {
        [Self::new(full(None)), Self::new(bare())]
    }

    fn log(&self) -> PathBuf {
        self.files.path().join("log")
    }

    fn try_execute(&self, task: &Task) -> Result<Outcome, custody_core::Refusal> {
        self.execute_until(task, &AtomicBool::new(false), &mut |_| ())
    }

    fn execute_until(
        &self,
        task: &Task,
        cancelled: &AtomicBool,
        live: &mut dyn FnMut(&[u8]),
    ) -> Result<Outcome, custody_core::Refusal> {
        let run = Run {
            task,
            directory: &self.run,
            log: &self.log(),
            log_limit: self.log_limit,
            timeout: self.timeout,
            source_date_epoch: Some(1_700_000_000),
            admit: None,
        };
        if self.log().exists() {
            fs::remove_file(self.log()).unwrap();
        }
        execute(&run, &self.machine, live, cancelled)
    }

    /// What a command prints that ends well.
    fn output(&self, task: &Task) -> String {
        let outcome = self.try_execute(task).unwrap();
        let log = fs::read_to_string(self.log()).unwrap();
        assert!(outcome.end.is_success(), "{}: {log}", outcome.end);
        log
    }
}

fn exit_code(outcome: &Outcome) -> Option<i32> {
    match outcome.end {
        End::Exited(status) => status.code(),
        End::TimedOut | End::OutOfMemory | End::Cancelled => None,
    }
}

/// `gate-env-injection`.
#[test]
fn the_command_sees_its_variables_and_no_others() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some(), "there is something to hide");
    for world in World::both() {
        let mut task = task(&["env"]);
        task.variables = vec![
            ("VERSION".to_owned(), "1.0 $(id) \"'\n=x".to_owned()),
            ("EMPTY".to_owned(), String::new()),
            ("TZ".to_owned(), "Europe/Berlin".to_owned()),
        ];
        let home = world.run.home().display().to_string();
        let tmp = world.run.tmp().display().to_string();
        let expected = [
            ("EMPTY", ""),
            ("HOME", &home),
            ("LANG", "C.UTF-8"),
            ("LC_ALL", "C.UTF-8"),
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("SOURCE_DATE_EPOCH", "1700000000"),
            ("TMPDIR", &tmp),
            ("TZ", "Europe/Berlin"),
            ("VERSION", "1.0 $(id) \"'\n=x"),
        ];
        let expected = expected.map(|(name, value)| format!("{name}={value}\n")).concat();
        assert_eq!(world.output(&task), expected);
    }
}

/// `gate-stdin-args-expansion`, `art-name-option-or-shell`.
#[test]
fn the_command_gets_exactly_its_words() {
    for world in World::both() {
        let words = ["$(touch p)", ";id", "a b", "", "--", "-x", "*", "two\nlines", "\u{fc}"];
        let all: Vec<&str> = ["printf", "%s|"].into_iter().chain(words).collect();
        assert_eq!(world.output(&task(&all)), words.map(|word| format!("{word}|")).concat());
        assert!(!world.run.path().join("p").exists());
    }
}

#[test]
fn words_that_no_program_can_get_are_refused() {
    let world = World::new(bare());
    let with = |name: &str, value: &str| Task {
        variables: vec![(name.to_owned(), value.to_owned())],
        ..task(&["true"])
    };
    assert!(world.try_execute(&with("A", "=")).unwrap().end.is_success());
    for bad in [
        task(&["A=b", "true"]),
        task(&["true", "a\0b"]),
        with("A", "a\0b"),
        with("", "x"),
        with("A=B", "x"),
        with("A B", "x"),
        with("HOME", "/root"),
        with("TMPDIR", "/tmp"),
    ] {
        assert_eq!(world.try_execute(&bad).unwrap_err().code, Code::ParseFieldType);
    }
    let publish = Task { destination: Some("file:///x".to_owned()), ..task(&[]) };
    assert_eq!(world.try_execute(&publish).unwrap_err().code, Code::GateStepMismatch);
}

#[test]
fn what_a_task_preloads_is_not_loaded_with_more_rights() {
    for world in World::both() {
        let mut task = script("true");
        task.variables = vec![("LD_PRELOAD".to_owned(), "/absent.so".to_owned())];
        // the loader complains once for each program: only the command itself
        assert_eq!(world.output(&task).matches("/absent.so").count(), 1);
    }
}

#[test]
fn the_command_starts_in_place_with_nothing_to_read() {
    // the mask is the same whatever the worker's own is
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    for world in World::both() {
        let text = "cat; readlink /proc/self/fd/0; pwd; umask; : > file; mkdir dist";
        let expected = format!("/dev/null\n{}\n0022\n", world.run.path().display());
        assert_eq!(world.output(&script(text)), expected);
        assert_eq!(world.run.path().join("file").metadata().unwrap().mode() & 0o777, 0o644);
        assert_eq!(world.run.path().join("dist").metadata().unwrap().mode() & 0o777, 0o755);
    }
}

#[test]
fn both_outputs_are_logged_in_order_and_live() {
    for world in World::both() {
        let task = script("for i in 1 2 3; do echo out $i; echo err $i >&2; done");
        let mut live = Vec::new();
        let outcome = world.execute_until(&task, &AtomicBool::new(false), &mut |bytes| {
            live.extend_from_slice(bytes);
        });
        let outcome = outcome.unwrap();
        let log = fs::read(world.log()).unwrap();
        assert_eq!(log, b"out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n");
        assert_eq!(live, log);
        let mut hasher = Hasher::new(true);
        hasher.update(&log);
        assert_eq!((outcome.log, outcome.log_size), hasher.finish());
        assert_eq!(world.log().metadata().unwrap().mode() & 0o777, 0o600);
        assert!(outcome.started <= outcome.finished);
        assert!(outcome.started.unix() > 1_700_000_000);
    }
}

#[test]
fn a_long_log_is_cut_and_says_so_and_the_command_ends() {
    for mut world in World::both() {
        world.log_limit = 1000;
        let mark = "\n[custody: more than 1000 bytes, the rest is not kept]\n";
        let print =
            |bytes| script(&format!("head -c {bytes} /dev/zero | tr '\\0' x; echo end >&2"));
        assert_eq!(world.output(&print(3_000_000)), "x".repeat(1000) + mark);
        let outcome = world.try_execute(&print(3_000_000)).unwrap();
        let mut hasher = Hasher::new(true);
        hasher.update(&fs::read(world.log()).unwrap());
        assert_eq!((outcome.log, outcome.log_size), hasher.finish());
        assert_eq!(world.output(&print(996)), "x".repeat(996) + "end\n");
    }
}

#[test]
fn a_log_that_exists_is_not_written_over() {
    let world = World::new(bare());
    let log = world.files.path().join("evidence");
    fs::write(&log, "evidence").unwrap();
    let (task, directory) = (script("echo"), &world.run);
    let run = Run {
        task: &task,
        directory,
        log: &log,
        log_limit: 1,
        timeout: None,
        source_date_epoch: None,
        admit: None,
    };
    let refusal = execute(&run, &world.machine, &mut |_| (), &AtomicBool::new(false)).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable);
    assert_eq!(fs::read(&log).unwrap(), b"evidence");
}

#[test]
fn a_failed_command_is_told_by_its_status() {
    for world in World::both() {
        let outcome = world.try_execute(&script("exit 3")).unwrap();
        assert_eq!(exit_code(&outcome), Some(3));
        assert!(!outcome.end.is_success());
        let absent = world.try_execute(&task(&["./absent"])).unwrap();
        assert_eq!(exit_code(&absent), Some(127));
        assert!(fs::read_to_string(world.log()).unwrap().contains("./absent"));
    }
    let world = World::new(bare());
    let killed = world.try_execute(&script("kill -9 $$")).unwrap();
    assert!(matches!(killed.end, End::Exited(status) if status.signal() == Some(9)));
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_its_children() {
    for mut world in World::both() {
        world.timeout = Some(Duration::from_millis(300));
        let before = Instant::now();
        let text = "trap '' TERM INT; (while :; do date +%N > beat; sleep 0.02; done) & sleep 60";
        let outcome = world.try_execute(&script(text)).unwrap();
        assert_eq!(outcome.end, End::TimedOut);
        assert!(!outcome.end.is_success());
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_at_rest(&world, "beat");
    }
}

/// Nobody writes the file, which has been written, any more.
fn assert_at_rest(world: &World, name: &str) {
    let path = world.run.path().join(name);
    let state = || path.metadata().map(|found| (found.mtime(), found.mtime_nsec())).unwrap();
    let before = state();
    sleep(Duration::from_millis(200));
    assert_eq!(state(), before);
}

#[test]
fn a_command_is_killed_on_request() {
    for world in World::both() {
        let cancelled = AtomicBool::new(false);
        let outcome = thread::scope(|scope| {
            scope.spawn(|| {
                while !world.run.path().join("started").exists() {
                    sleep(Duration::from_millis(1));
                }
                cancelled.store(true, Ordering::Relaxed);
            });
            let task = script("setsid sleep 60 & : > started; sleep 60");
            world.execute_until(&task, &cancelled, &mut |_| ()).unwrap()
        });
        assert_eq!(outcome.end, End::Cancelled);
        // before it has started too
        let outcome = world.execute_until(&script("sleep 60"), &cancelled, &mut |_| ()).unwrap();
        assert_eq!(outcome.end, End::Cancelled);
    }
}

/// `wrk-late-writer`.
#[test]
fn who_stays_behind_is_killed_and_writes_nothing() {
    let text = "setsid sh -c 'while :; do date +%N > beat; sleep 0.02; done' & \
                (sleep 0.5; echo > late) & \
                while ! [ -s beat ]; do sleep 0.01; done; echo done";
    // without us they stay
    let world = World::new(bare());
    let mut plain = Command::new("sh");
    plain.args(["-c", text]).current_dir(world.run.path()).process_group(0);
    plain.stdout(Stdio::null()).stderr(Stdio::null());
    plain.env("HOME", world.run.home());
    assert!(plain.status().unwrap().success());
    sleep(Duration::from_millis(700));
    assert!(world.run.path().join("late").exists());
    fs::remove_file(world.run.path().join("late")).unwrap();
    // the run in the same directory ends those of before too, since they know no better
    assert_eq!(world.output(&script("true")), "");
    assert_at_rest(&world, "beat");

    for world in World::both() {
        let before = Instant::now();
        assert_eq!(world.output(&script(text)), "done\n");
        assert!(before.elapsed() < Duration::from_millis(450), "{:?}", before.elapsed());
        assert_at_rest(&world, "beat");
        sleep(Duration::from_millis(400));
        assert!(!world.run.path().join("late").exists());
    }
}

/// `wrk-late-writer`.
#[test]
fn in_a_namespace_even_who_hides_is_killed() {
    let world = World::new(full(None));
    if !world.machine.processes {
        // what this machine cannot do, it does not claim
        return assert!(!world.try_execute(&script("true")).unwrap().confinement.processes);
    }
    let text = "env -i PATH=/usr/bin:/bin setsid sh -c \
                'while :; do date +%N > beat; sleep 0.02; done' & \
                while ! [ -s beat ]; do sleep 0.01; done; ls -d /proc/[0-9]* | wc -l";
    let seen: u32 = world.output(&script(text)).trim().parse().unwrap();
    assert!(seen < 10, "{seen} processes are seen");
    assert_at_rest(&world, "beat");
}

#[test]
fn a_fault_of_the_worker_ends_the_command_too() {
    for world in World::both() {
        let text = "(while :; do date +%N > beat; sleep 0.02; done) & \
                    while ! [ -s beat ]; do sleep 0.01; done; echo; sleep 60";
        let before = Instant::now();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let broken = &mut |_: &[u8]| std::panic::resume_unwind(Box::new(()));
            world.execute_until(&script(text), &AtomicBool::new(false), broken)
        }));
        assert!(caught.is_err());
        assert!(before.elapsed() < Duration::from_secs(5));
        assert_at_rest(&world, "beat");
    }
}

#[test]
fn the_command_dies_with_the_worker() {
    let world = World::new(full(None));
    if !world.machine.privileges {
        return skipped("the_command_dies_with_the_worker", "nothing ends it here");
    }
    let mut worker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "worker_that_is_killed"])
        .env("CUSTODY_TEST_DIRECTORY", world.files.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let beat = world.files.path().join("killed/beat");
    while !beat.exists() {
        sleep(Duration::from_millis(5));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    sleep(Duration::from_millis(100));
    let before = beat.metadata().unwrap().modified().unwrap();
    sleep(Duration::from_millis(200));
    assert_eq!(beat.metadata().unwrap().modified().unwrap(), before);
}

/// Not a test of its own: `the_command_dies_with_the_worker` runs it in a process that it kills.
#[test]
fn worker_that_is_killed() {
    let Some(directory) = std::env::var_os("CUSTODY_TEST_DIRECTORY").map(PathBuf::from) else {
        return;
    };
    let run = RunDirectory::create(&directory.join("killed")).unwrap();
    let run = Run {
        task: &script("setsid sh -c 'while :; do date +%N > beat; sleep 0.02; done' & sleep 60"),
        directory: &run,
        log: &directory.join("killed.log"),
        log_limit: LOG_BYTES,
        timeout: None,
        source_date_epoch: None,
        admit: None,
    };
    let machine = full(None);
    execute(&run, &machine, &mut |_| (), &AtomicBool::new(false)).unwrap();
}

#[test]
fn the_command_is_kept_apart_as_the_outcome_says() {
    for world in World::both() {
        let outcome = world.try_execute(&script("grep '^NoNewPrivs' /proc/self/status")).unwrap();
        let log = fs::read_to_string(world.log()).unwrap();
        assert_eq!(log.contains("\t1"), outcome.confinement.privileges);
        assert_eq!(outcome.confinement, Confinement { limits: Enforced::No, ..world.machine });
    }
    // Asked without a process namespace: inside one, every session from outside reads as 0.
    let own = fs::read_to_string("/proc/self/stat").unwrap();
    let own = own.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
    for session in [true, false] {
        let world = World::new(Confinement { session, ..bare() });
        let log = world.output(&script("cut -d' ' -f6 /proc/self/stat"));
        assert_eq!(log.trim() != own, session);
    }
}

#[test]
fn without_permission_there_is_no_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let text = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && cat /proc/net/route");
    let mut task = task(&["bash", "-c", &text]);
    for world in World::both() {
        task.network = true;
        let open = world.try_execute(&task).unwrap();
        assert!(open.end.is_success());
        assert!(!open.confinement.network);

        task.network = false;
        let cut = world.try_execute(&task).unwrap();
        assert_eq!(cut.confinement.network, world.machine.network);
        assert_eq!(cut.end.is_success(), !world.machine.network, "as reported");
    }
}

#[test]
fn as_root_the_command_runs_as_another_user() {
    if !rustix::process::geteuid().is_root() {
        assert_eq!(
            Confinement::probe(&confiner(), Some(NOBODY)).unwrap_err().code,
            Code::GateUnavailable
        );
        return;
    }
    let full = full(Some(NOBODY));
    assert!(full.privileges);
    let least = Confinement { privileges: true, user: Some(NOBODY), ..bare() };
    for machine in [full, least] {
        let denied = if machine.filesystem { 1 } else { 3 };
        let world = World::new(machine);
        let secret = world.files.path().join("key");
        fs::write(&secret, "key").unwrap();
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
        fs::write(world.run.source().join("main.c"), "").unwrap();
        fs::set_permissions(world.run.inputs(), Permissions::from_mode(0o555)).unwrap();
        let text = format!(
            "id -u; id -g; id -G; echo > file; echo > $HOME/x; echo > $TMPDIR/x; echo x > source/main.c; \
             ls inputs; cat {secret} && exit 9; echo > inputs/x && exit 9; \
             grep ^CapEff: /proc/self/status; touch {log} && exit 9; exit 0",
            secret = secret.display(),
            log = world.log().display(),
        );
        let log = world.output(&script(&text));
        assert!(log.starts_with("65534\n65534\n65534\n"), "{log}");
        assert!(log.contains("CapEff:\t0000000000000000"), "{log}");
        // in a view of its own there is nothing to deny
        assert_eq!(log.matches("ermission denied").count(), denied, "{log}");
        assert_eq!(world.run.path().join("file").metadata().unwrap().uid(), NOBODY.uid);
    }
}

#[test]
fn a_directory_that_the_other_user_cannot_reach_is_refused() {
    if !rustix::process::geteuid().is_root() {
        let test = "a_directory_that_the_other_user_cannot_reach_is_refused";
        return skipped(test, "only root runs commands as others");
    }
    let user = Some(NOBODY);
    let world = World::new(Confinement { filesystem: false, landlock: None, ..full(user) });
    let parent = world.files.path();
    fs::set_permissions(parent, Permissions::from_mode(0o700)).unwrap();
    let refusal = world.try_execute(&script("true")).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable);
    assert_eq!(refusal.at, parent.canonicalize().unwrap().display().to_string());
    chown(parent, Some(NOBODY.uid), None).unwrap();
    assert_eq!(world.output(&script("true")), "");
    // in a view of its own there are other directories around it
    let world = World::new(full(user));
    if world.machine.filesystem {
        fs::set_permissions(world.files.path(), Permissions::from_mode(0o700)).unwrap();
        assert_eq!(world.output(&script("true")), "");
    }
}

#[test]
fn runs_at_the_same_time_do_not_end_each_other() {
    let worlds = [World::both(), World::both()];
    let outputs: BTreeMap<usize, String> = thread::scope(|scope| {
        let handles: Vec<_> = worlds
            .iter()
            .flatten()
            .enumerate()
            .map(|(i, world)| {
                let text = format!("setsid sleep 60 & sleep 0.{}; echo {i}", i + 1);
                (i, scope.spawn(move || world.output(&script(&text))))
            })
            .collect();
        handles.into_iter().map(|(i, handle)| (i, handle.join().unwrap())).collect()
    });
    assert!(outputs.iter().all(|(i, output)| *output == format!("{i}\n")), "{outputs:?}");
}

/// Whoever watches is told by whole lines, and of a beginning that waits for its end.
#[test]
fn whoever_watches_sees_whole_lines() {
    for world in World::both() {
        let mut seen = Vec::new();
        let mut live = |bytes: &[u8]| seen.push(String::from_utf8(bytes.to_vec()).unwrap());
        let script = "printf 'one '; sleep 0.1; echo line; printf two >&2; sleep 3; echo ' later'; printf end";
        world
            .execute_until(&task(&["sh", "-c", script]), &AtomicBool::new(false), &mut live)
            .unwrap();
        assert_eq!(seen, ["one line\n", "two", " later\n", "end"]);
    }
}
