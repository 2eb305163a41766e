//! What a command in a sandbox cannot see, reach and use up. Each attempt is made without a sandbox too,
//! where it succeeds.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::statement::{Limits, Task};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::execute::{
    Confinement, Confiner, End, Enforced, LOG_BYTES, Outcome, Run, User, execute,
};
use custody_run::stage::RunDirectory;
use tempfile::TempDir;

const NOBODY: User = User { uid: 65_534, gid: 65_534 };

/// Where a test that goes on as another user finds the program.
const CONFINER: &str = "CUSTODY_TEST_CONFINER";

/// Set where a test goes on as root without its rights.
const LESSER: &str = "CUSTODY_TEST_LESSER";

fn confiner() -> Confiner {
    let program = std::env::var_os(CONFINER);
    let program = program.unwrap_or_else(|| env!("CARGO_BIN_EXE_custody-confiner").into());
    Confiner { program: program.into(), ..Confiner::default() }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// All that this machine can do, for the users that commands have.
fn machines() -> Vec<Confinement> {
    let users: &[Option<User>] = if is_root() { &[Some(NOBODY), None] } else { &[None] };
    users.iter().map(|user| Confinement::probe(&confiner(), *user).unwrap()).collect()
}

fn bare() -> Confinement {
    Confinement { confiner: confiner(), tried: true, ..Confinement::default() }
}

/// A sandbox, or none where this machine has none, which then is said.
fn sandboxes(test: &str) -> Vec<Confinement> {
    let machines = machines();
    if machines.iter().all(Confinement::is_sandbox) {
        return machines;
    }
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}");
    io::stderr().write_all(format!("skipped: {test}: no sandbox here\n").as_bytes()).unwrap();
    Vec::new()
}

fn script(text: &str) -> Task {
    Task {
        authorization: StatementId(Sha256::of(b"authorization")),
        step: "build".parse().unwrap(),
        creator: "test".to_owned(),
        command: ["sh", "-c", text].map(str::to_owned).to_vec(),
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
        sha512: false,
        created: Time::from_unix(0).unwrap(),
        deadline: Time::from_unix(0).unwrap(),
        nonce: String::new(),
    }
}

struct Place {
    files: TempDir,
    run: RunDirectory,
}

impl Place {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        // reachable, so that nothing but the sandbox stands in the way
        fs::set_permissions(files.path(), Permissions::from_mode(0o755)).unwrap();
        let run = RunDirectory::create(&files.path().join("run")).unwrap();
        Self { files, run }
    }

    fn try_run(&self, machine: &Confinement, task: &Task) -> Result<(Outcome, String), Refusal> {
        let log = self.files.path().join("log");
        fs::remove_file(&log).unwrap_or_default();
        let run = Run {
            task,
            directory: &self.run,
            log: &log,
            log_limit: LOG_BYTES,
            timeout: None,
            source_date_epoch: None,
            admit: None,
        };
        let outcome = execute(&run, machine, &mut |_| (), &AtomicBool::new(false))?;
        Ok((outcome, fs::read_to_string(&log).unwrap()))
    }

    fn run(&self, machine: &Confinement, task: &Task) -> (Outcome, String) {
        self.try_run(machine, task).unwrap()
    }

    /// Whether the command goes well, and what it prints.
    fn goes_well(&self, machine: &Confinement, text: &str) -> (bool, String) {
        let (outcome, log) = self.run(machine, &script(text));
        (outcome.end.is_success(), log)
    }
}

fn readable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
}

/// `wrk-key-readable`.
#[test]
fn keys_and_store_are_not_there() {
    for mut machine in sandboxes("keys_and_store_are_not_there") {
        let place = Place::new();
        let key = place.files.path().join("worker-key");
        readable(&key, "PRIVATE KEY");
        // one among the directories of the system
        let system = tempfile::tempdir_in("/opt").or_else(|_| tempfile::tempdir()).unwrap();
        fs::set_permissions(system.path(), Permissions::from_mode(0o755)).unwrap();
        let (other, store) = (system.path().join("other-key"), system.path().join("store"));
        readable(&other, "PRIVATE KEY");
        fs::create_dir(&store).unwrap();
        readable(&store.join("custody.sqlite"), "PRIVATE KEY");
        machine.confiner.hidden = vec![other.clone(), store.clone(), "/absent".into()];
        let text = format!(
            "cat {key} /proc/1/root{key} {} {}; grep -rs 'PRIVATE KEY' {}; echo",
            other.display(),
            store.join("custody.sqlite").display(),
            system.path().display(),
            key = key.display(),
        );
        let (_, log) = place.goes_well(&machine, &text);
        assert!(!log.contains("PRIVATE"), "{log}");
        assert!(log.contains("No such file"), "{log}");
        let (_, log) = place.goes_well(&bare(), &text);
        assert!(log.matches("PRIVATE").count() >= 5, "{log}");
    }
}

/// `wrk-key-readable`.
#[test]
fn sockets_of_the_machine_are_not_there() {
    let place = Place::new();
    let path = place.files.path().join("engine.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o777)).unwrap();
    let name = format!("custody-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _nameless = UnixListener::bind_addr(&address).unwrap();
    let connect = |to: &str| Task {
        // with the network of the machine, to which sockets without a path belong
        network: true,
        ..script(&format!(
            "perl -MSocket -e 'socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die; \
             connect($s, pack_sockaddr_un({to})) or die \"refused: $!\\n\"; print \"connected\\n\"'"
        ))
    };
    let (path, nameless) = (format!("\"{}\"", path.display()), format!("\"\\0{name}\""));
    for machine in sandboxes("sockets_of_the_machine_are_not_there") {
        let place = Place::new();
        let (outcome, log) = place.run(&machine, &connect(&path));
        assert!(!outcome.end.is_success() && log.contains("refused"), "{log}");
        // the scope of such sockets came with this version
        if machine.landlock.is_some_and(|version| version >= 6) {
            let (outcome, log) = place.run(&machine, &connect(&nameless));
            assert!(!outcome.end.is_success() && log.contains("refused"), "{log}");
        }
    }
    for to in [path, nameless] {
        let (outcome, log) = place.run(&bare(), &connect(&to));
        assert!(outcome.end.is_success() && log.contains("connected"), "{log}");
    }
}

#[test]
fn the_system_and_inputs_are_only_read() {
    for machine in sandboxes("the_system_and_inputs_are_only_read") {
        let place = Place::new();
        readable(&place.run.inputs().join("input"), "input");
        fs::set_permissions(place.run.inputs(), Permissions::from_mode(0o777)).unwrap();
        let all = "cat inputs/input && ls / /usr /etc /dev >/dev/null && cat /etc/passwd >/dev/null \
                   && for d in . home tmp source /tmp /var/tmp /dev/shm; do : > $d/mine || exit 1; done \
                   && mv tmp/mine home/ && ln -s x y";
        let (well, log) = place.goes_well(&machine, all);
        assert!(well, "{log}");
        // a file in the machine's directory for temporary files would be there now
        assert!(!Path::new("/tmp/mine").exists() && !Path::new("/dev/shm/mine").exists());
        for forbidden in [
            "echo x >> inputs/input",
            ": > inputs/x",
            "rm inputs/input",
            ": > /etc/x",
            ": > /usr/x",
            ": > /x",
            ": > /dev/x",
            ": > /opt/x",
            "echo 1 > /proc/sys/kernel/panic",
            "mount -t tmpfs x /tmp",
            "chroot / true",
            "test -e /dev/tty",
            "find /home /root /run -mindepth 1 | grep .",
        ] {
            let (well, log) = place.goes_well(&machine, forbidden);
            assert!(!well, "{forbidden}: {log}");
        }
        let own = "rm inputs/input && : > inputs/x";
        assert!(place.goes_well(&bare(), own).0, "the owner may, where nothing is mounted");
    }
}

#[test]
fn no_capability_is_left() {
    let none = "grep -E '^Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status";
    for machine in machines() {
        let (_, log) = Place::new().goes_well(&machine, none);
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.len(), 5);
        // who has no rights cannot drop what nobody has
        let bounded = is_root() || machine.processes;
        for line in lines.iter().filter(|line| bounded || !line.starts_with("CapBnd")) {
            assert!(line.ends_with("\t0000000000000000"), "{log}");
        }
        if is_root() {
            assert!(!Place::new().goes_well(&bare(), none).1.contains("CapEff:\t0000000000000000"));
        }
    }
}

#[test]
fn nobody_talks_to_it() {
    let text = "readlink /proc/self/fd/0; cat; ulimit -c; ulimit -n; (: < /dev/tty) && echo terminal; \
                cat /proc/1/environ && echo looked; cat /proc/1/fd/3 && echo looked";
    for machine in sandboxes("nobody_talks_to_it") {
        let (_, log) = Place::new().goes_well(&machine, text);
        assert!(log.starts_with("/dev/null\n0\n1024\n"), "{log}");
        assert!(!log.contains("terminal") && !log.contains("looked"), "{log}");
    }
}

#[test]
fn a_shared_directory_is_written_and_told() {
    for mut machine in sandboxes("a_shared_directory_is_written_and_told") {
        let place = Place::new();
        let cache = place.files.path().join("cache");
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, Permissions::from_mode(0o777)).unwrap();
        let text = format!(": > {}/x", cache.display());
        assert!(!place.goes_well(&machine, &text).0);
        machine.confiner.shared = vec![cache.clone()];
        let (outcome, log) = place.run(&machine, &script(&text));
        assert!(outcome.end.is_success(), "{log}");
        assert!(cache.join("x").exists());
        assert!(!outcome.confinement.is_sandbox());
    }
}

#[test]
fn what_is_lent_is_read_and_told() {
    for mut machine in sandboxes("what_is_lent_is_read_and_told") {
        let place = Place::new();
        let lent = Confiner { lent: vec![place.files.path().into()], ..confiner() };
        assert!(Confinement::probe(&lent, machine.user).unwrap().is_sandbox());
        let (key, tools) = (place.files.path().join("key"), place.files.path().join("tools"));
        readable(&key, "LENT");
        fs::create_dir(&tools).unwrap();
        readable(&tools.join("tool"), "LENT");
        for path in [&key, &tools.join("tool")] {
            fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
        }
        let (key, tool) = (key.display(), tools.join("tool"));
        let text = format!("cat {key} {0}; echo x > {key}; echo x > {0}", tool.display());
        assert!(!place.goes_well(&machine, &text).1.contains("LENT"));
        machine.confiner.lent = vec![key.to_string().into(), tools];
        let (outcome, log) = place.run(&machine, &script(&text));
        assert_eq!(log.matches("LENT").count(), 2, "{log}");
        assert_eq!(log.matches("ead-only file system").count(), 2, "{log}");
        assert!(outcome.confinement.is_sandbox());
    }
}

/// `wrk-key-readable`: what is lent or shared around a key does not bring the key along.
#[test]
fn what_is_lent_around_a_key_is_not_the_key() {
    for mut machine in sandboxes("what_is_lent_around_a_key_is_not_the_key") {
        let place = Place::new();
        let around = place.files.path().join("around");
        let (key, store) = (around.join("key"), around.join("store"));
        fs::create_dir_all(&store).unwrap();
        readable(&key, "PRIVATE KEY");
        readable(&store.join("custody.sqlite"), "PRIVATE KEY");
        readable(&around.join("other"), "LENT");
        machine.confiner.hidden = vec![key, store];
        let text = format!("grep -rsa . {}", around.display());
        for shared in [false, true] {
            let given = vec![around.clone()];
            (machine.confiner.lent, machine.confiner.shared) =
                if shared { (Vec::new(), given) } else { (given, Vec::new()) };
            let (_, log) = place.goes_well(&machine, &text);
            assert!(log.contains("LENT") && !log.contains("PRIVATE"), "{log}");
        }
    }
}

/// A program of the machine that is given cores gets none, whatever the limit of files says.
#[test]
fn a_core_is_for_nobody() {
    for machine in machines() {
        let (_, log) = Place::new().goes_well(&machine, "grep 'core file' /proc/self/limits");
        let words: Vec<&str> = log.split_whitespace().collect();
        assert_eq!(words, ["Max", "core", "file", "size", "1", "1", "bytes"], "{log}");
    }
}

#[test]
fn memory_is_limited() {
    // tail keeps all of it
    let text = "head -c 400000000 /dev/zero | tail -c 390000000 | wc -c";
    let within = |memory| Task {
        limits: Limits { memory: Some(memory), ..Limits::default() },
        ..script(&format!("set -e; [ \"$({text})\" = 390000000 ]"))
    };
    for machine in machines() {
        for limits in [machine.limits, Enforced::Single] {
            let machine = Confinement { limits, ..machine.clone() };
            let place = Place::new();
            let (outcome, log) = place.run(&machine, &within(100 << 20));
            assert!(!outcome.end.is_success(), "{limits:?}: {log}");
            let enforced = outcome.confinement.limits;
            assert!(
                enforced != Enforced::No && (enforced == limits || limits == Enforced::Together)
            );
            if enforced == Enforced::Together {
                assert_eq!(outcome.end, End::OutOfMemory);
            }
            let (outcome, log) = place.run(&machine, &within(2 << 30));
            assert!(outcome.end.is_success(), "{limits:?}: {log}");
        }
    }
}

#[test]
fn processes_are_limited() {
    let within = |processes| Task {
        limits: Limits { processes: Some(processes), ..Limits::default() },
        ..script("for i in $(seq 30); do sleep 0.5 & done; wait")
    };
    for machine in machines() {
        for limits in [machine.limits, Enforced::Single] {
            if limits == Enforced::Single && is_root() && machine.user.is_none() {
                // the system counts no processes of root's
                continue;
            }
            let machine = Confinement { limits, ..machine.clone() };
            let place = Place::new();
            let (outcome, log) = place.run(&machine, &within(12));
            assert!(!outcome.end.is_success(), "{limits:?}: {log}");
            let (outcome, log) = place.run(&machine, &within(500));
            assert!(outcome.end.is_success(), "{limits:?}: {log}");
        }
    }
}

#[test]
fn what_cannot_be_done_is_a_fault_and_no_run() {
    let place = Place::new();
    let mut machine = bare();
    // a view takes a namespace of processes
    machine.filesystem = true;
    let refusal = place.try_run(&machine, &script("touch ran")).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
    assert!(!place.run.path().join("ran").exists());
    machine.confiner.program = "/absent".into();
    machine.filesystem = false;
    let refusal = place.try_run(&machine, &script("touch ran")).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable);
    assert!(Confinement::probe(&machine.confiner, None).is_err());
    assert!(place.goes_well(&bare(), "touch ran").0);
}

#[test]
fn what_was_not_tried_is_found_out() {
    let users: &[Option<User>] = if is_root() { &[Some(NOBODY), None] } else { &[None] };
    for user in users {
        let place = Place::new();
        let full = Confinement::full(&confiner(), *user);
        let (outcome, log) = place.run(&full, &script("echo once"));
        assert!(outcome.end.is_success());
        assert_eq!(log, "once\n");
        let found = Confinement::probe(&confiner(), *user).unwrap();
        assert_eq!(outcome.confinement, Confinement { limits: Enforced::No, ..found.clone() });
        // of a view without what it must show nothing is left but another confinement
        fs::remove_dir(place.run.inputs()).unwrap();
        let refusal = place.try_run(&found, &script("touch ran")).unwrap_err();
        assert!(refusal.found.starts_with("inputs: "), "{refusal}");
        assert!(!place.run.path().join("ran").exists());
    }
}

/// Where the system gives no namespaces, Landlock alone is left, and a run goes on and says so.
#[test]
fn what_the_machine_cannot_do_is_recorded() {
    if !is_root() {
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-sys_admin", "--"]).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "on_a_lesser_machine"]).env(LESSER, "1").stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Not a test of its own: the one above runs it in a process that may make no namespaces.
#[test]
fn on_a_lesser_machine() {
    if std::env::var_os(LESSER).is_none() {
        return;
    }
    let place = Place::new();
    let key = place.files.path().join("worker-key");
    readable(&key, "PRIVATE KEY");
    let text =
        format!("cat {}; echo made > out; cat /etc/passwd > /dev/null && echo on", key.display());
    let full = Confinement::full(&confiner(), Some(NOBODY));
    let (outcome, log) = place.run(&full, &script(&text));
    let done = outcome.confinement;
    assert!(outcome.end.is_success() && place.run.path().join("out").exists(), "{log}");
    assert!(!done.is_sandbox() && !done.processes && !done.filesystem && !done.network);
    assert!(done.session && done.privileges && done.user == Some(NOBODY));
    assert_eq!(log.contains("PRIVATE"), done.landlock.is_none(), "{log}");
}

/// All of the above for a worker that is not root, in a namespace of users.
#[test]
fn without_root_it_is_the_same() {
    if !is_root() {
        return;
    }
    let files = tempfile::tempdir().unwrap();
    fs::set_permissions(files.path(), Permissions::from_mode(0o755)).unwrap();
    let copy = |from: &Path, name: &str| -> PathBuf {
        let to = files.path().join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, Permissions::from_mode(0o755)).unwrap();
        to
    };
    let tests = copy(&std::env::current_exe().unwrap(), "tests");
    let program = copy(&confiner().program, "confiner");
    let mut command = Command::new(tests);
    command.args(["--skip", "without_root_it_is_the_same", "--test-threads", "2"]);
    command.env(CONFINER, program).env("TMPDIR", "/tmp").current_dir("/");
    command.uid(NOBODY.uid).gid(NOBODY.gid).stdin(Stdio::null());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    // where it is skipped is said
    io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("15 passed"), "{said}");
}
