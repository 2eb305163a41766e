//! Commands in images, with the engines that this machine has.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::statement::{Artifact, Image, Limits, Task};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::collect::collect;
use custody_run::container::{Contained, Engine, contained, execute, podman};
use custody_run::execute::{End, LOG_BYTES, Run, User};
use custody_run::stage::{RunDirectory, StagedInput, stage_inputs};
use custody_store::Store;
use rustix::mount::{UnmountFlags, unmount};
use tempfile::TempDir;

const NOBODY: User = User { uid: 65534, gid: 65534 };
/// Where the image lies among the inputs.
const PLACE: &str = "image/image.tar";

/// Says past the test runner that this test was left out, which it may not be where all are required.
fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file())
}

/// What a test needs, or that it is skipped.
fn able(test: &str) -> bool {
    let missing = ["podman", "runc", "busybox"].into_iter().find(|name| program(name).is_none());
    if !rustix::process::geteuid().is_root() {
        skipped(test, "containers need root");
    } else if let Some(name) = missing {
        skipped(test, &format!("no {name}"));
    } else {
        return true;
    }
    false
}

/// The engines of a test that `able` lets run. Docker may be missing where podman is not.
fn engines(test: &str) -> Vec<&'static str> {
    let mut engines = vec!["podman", "runc"];
    if program("dockerd").is_some() {
        engines.push("docker");
    } else {
        skipped(&format!("{test} with docker"), "no dockerd");
    }
    engines
}

/// A Docker of a test's own, that does nothing to the machine's network.
struct Docker {
    child: Child,
    root: PathBuf,
}

impl Docker {
    fn start(root: PathBuf) -> Self {
        fs::create_dir(&root).unwrap();
        let log = File::create(root.join("log")).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "--", "dockerd", "--storage-driver=vfs"]);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        for (option, name) in [
            ("data-root", "data"),
            ("exec-root", "exec"),
            ("pidfile", "pid"),
            ("config-file", "none"),
        ] {
            command.arg(format!("--{option}={}", root.join(name).display()));
        }
        command.arg(format!("--host=unix://{}", root.join("sock").display()));
        fs::write(root.join("none"), "{}").unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut docker = Self { child, root };
        let begun = Instant::now();
        while UnixStream::connect(docker.socket()).is_err() {
            assert!(begun.elapsed() < Duration::from_mins(1), "{}", docker.log());
            assert!(docker.child.try_wait().unwrap().is_none(), "{}", docker.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        docker
    }

    fn socket(&self) -> PathBuf {
        self.root.join("sock")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.join("log")).unwrap()
    }

    /// The status and the rest of an answer.
    fn ask(&self, method: &str, path: &str, body: &str) -> (String, String) {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let length = body.len();
        let heads = format!("Content-Type: application/json\r\nContent-Length: {length}");
        write!(stream, "{method} {path} HTTP/1.0\r\n{heads}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (status, rest) = answer.split_once("\r\n").unwrap();
        (status.split(' ').nth(1).unwrap().to_owned(), rest.to_owned())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // asked and not killed: it ends its containerd, and unmounts what it mounted
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).ok();
        self.child.wait().ok();
        // these it leaves
        for mounted in ["exec/netns/default", "data"] {
            unmount(self.root.join(mounted), UnmountFlags::NOFOLLOW).ok();
        }
    }
}

fn add(tar: &mut tar::Builder<impl io::Write>, name: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, bytes).unwrap();
}

fn link(tar: &mut tar::Builder<impl io::Write>, name: &str, to: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    tar.append_link(&mut header, name, to).unwrap();
}

fn directory(tar: &mut tar::Builder<impl io::Write>, name: &str) {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(if ["tmp/", "vol/"].contains(&name) { 0o1777 } else { 0o755 });
    tar.append_data(&mut header, name, io::empty()).unwrap();
}

/// A layer with a shell and a few programs.
fn layer(more: impl FnOnce(&mut tar::Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["bin/", "etc/", "tmp/", "build/", "proc/", "sys/", "dev/", "run/", "vol/"] {
        directory(&mut tar, name);
    }
    add(&mut tar, "bin/busybox", 0o755, &fs::read(program("busybox").unwrap()).unwrap());
    for name in [
        "sh", "cat", "dd", "env", "find", "grep", "head", "id", "ln", "ls", "mkdir", "mount",
        "printf", "ps", "readlink", "sleep", "touch", "true", "wc", "yes",
    ] {
        link(&mut tar, &format!("bin/{name}"), "busybox");
    }
    more(&mut tar);
    tar.into_inner().unwrap()
}

/// A docker-archive, and the id of its image.
fn image(layers: &[Vec<u8>], digests: Option<Vec<Sha256>>) -> (Vec<u8>, Sha256) {
    image_with(layers, digests, "")
}

fn image_with(
    layers: &[Vec<u8>],
    digests: Option<Vec<Sha256>>,
    volumes: &str,
) -> (Vec<u8>, Sha256) {
    let digests = digests.unwrap_or_else(|| layers.iter().map(|layer| Sha256::of(layer)).collect());
    let listed: Vec<String> = digests.iter().map(|digest| format!("\"sha256:{digest}\"")).collect();
    // what the image wants to run, and as whom, is nobody's wish
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"User":"0","Env":["PATH=/evil","EVIL=1"],
        "Entrypoint":["/bin/false"],"Cmd":["x"],"WorkingDir":"/nowhere","Volumes":{{{volumes}}}}},
        "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        listed.join(",")
    );
    let id = Sha256::of(config.as_bytes());
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, &format!("{id}.json"), 0o644, config.as_bytes());
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        add(&mut tar, &format!("{number}/layer.tar"), 0o644, layer);
        names.push(format!("\"{number}/layer.tar\""));
    }
    let manifest =
        format!(r#"[{{"Config":"{id}.json","RepoTags":null,"Layers":[{}]}}]"#, names.join(","));
    add(&mut tar, "manifest.json", 0o644, manifest.as_bytes());
    (tar.into_inner().unwrap(), id)
}

fn task(script: &str) -> Task {
    Task {
        authorization: StatementId(Sha256::of(b"authorization")),
        step: "build".parse().unwrap(),
        creator: "test".to_owned(),
        command: ["/bin/sh", "-c", script].map(ToOwned::to_owned).to_vec(),
        image: Some(Image::Input(PLACE.parse().unwrap())),
        limits: Limits::default(),
        destination: None,
        variables: Vec::new(),
        network: false,
        downloads: None,
        inputs: Vec::new(),
        source: None,
        externals: Vec::new(),
        outputs: vec!["dist/*".parse().unwrap()],
        sha512: false,
        created: Time::from_unix(0).unwrap(),
        deadline: Time::from_unix(0).unwrap(),
        nonce: String::new(),
    }
}

/// One engine with images of its own, for one test.
struct World {
    docker: Option<Docker>,
    files: TempDir,
    engine: Engine,
    archive: PathBuf,
    id: Sha256,
}

impl World {
    fn new(engine: &str, (bytes, id): &(Vec<u8>, Sha256)) -> Self {
        let files = tempfile::tempdir().unwrap();
        let archive = files.path().join("image.tar");
        fs::write(&archive, bytes).unwrap();
        let docker = (engine == "docker").then(|| Docker::start(files.path().join("docker")));
        let engine = match (engine, &docker) {
            ("podman", _) => Engine::Podman(Some(files.path().join("images"))),
            (_, Some(docker)) => Engine::Socket(docker.socket()),
            (other, None) => other.parse().unwrap(),
        };
        Self { docker, files, engine, archive, id: *id }
    }

    /// With every engine that there is, one after another.
    fn each(test: &str) -> impl Iterator<Item = Self> {
        let image = image(&[layer(|_| ())], None);
        engines(test).into_iter().map(move |engine| Self::new(engine, &image))
    }

    /// With Podman, and with a plain runtime.
    fn both() -> [Self; 2] {
        let image = image(&[layer(|_| ())], None);
        ["podman", "runc"].map(|engine| Self::new(engine, &image))
    }

    fn run(&mut self, task: &Task) -> Result<(Contained, Place), Refusal> {
        self.run_until(task, None, &AtomicBool::new(false))
    }

    /// Whoever watches is told by whole lines, and of a beginning that waits for its end.
    fn assert_lines(&mut self) {
        let mut seen = Vec::new();
        let mut live = |bytes: &[u8]| seen.push(String::from_utf8(bytes.to_vec()).unwrap());
        let script = "printf 'one '; sleep 0.1; echo line; sleep 0.5; printf two >&2; sleep 3; echo ' later'; printf end";
        self.run_watched(&task(script), None, &AtomicBool::new(false), &mut live).unwrap();
        assert_eq!(seen, ["one line\n", "two", " later\n", "end"], "{}", self.engine);
    }

    fn run_until(
        &mut self,
        task: &Task,
        timeout: Option<Duration>,
        cancelled: &AtomicBool,
    ) -> Result<(Contained, Place), Refusal> {
        self.run_watched(task, timeout, cancelled, &mut |_| ())
    }

    fn run_watched(
        &mut self,
        task: &Task,
        timeout: Option<Duration>,
        cancelled: &AtomicBool,
        live: &mut dyn FnMut(&[u8]),
    ) -> Result<(Contained, Place), Refusal> {
        // a name that no other run has, in whatever test
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let room = self.files.path().join(format!("custody-test-{}-{number}", std::process::id()));
        fs::create_dir(&room).unwrap();
        fs::set_permissions(&room, Permissions::from_mode(0o700)).unwrap();
        let directory = RunDirectory::create(&room.with_added_extension("run")).unwrap();
        let bytes = fs::read(&self.archive).unwrap();
        let size = bytes.len() as u64;
        let digests = Sha256::of(&bytes).into();
        let artifact = Artifact { name: "image.tar".parse().unwrap(), digests, size };
        let input =
            StagedInput { from: self.archive.clone(), artifact, place: PLACE.parse().unwrap() };
        stage_inputs(&directory, &[input]).unwrap();
        let log = room.join("log");
        let run = Run {
            task,
            directory: &directory,
            log: &log,
            log_limit: LOG_BYTES,
            timeout,
            source_date_epoch: Some(1_700_000_000),
            admit: None,
        };
        let (image, engine) = (task.image.as_ref().unwrap(), Some(&self.engine));
        let done = execute(&run, image, (engine, &room, NOBODY), live, cancelled)?;
        let text = fs::read_to_string(&log).unwrap();
        Ok((done, Place { directory: directory.path().to_owned(), room, log: text }))
    }

    /// What a script prints that ends well.
    fn output(&mut self, task: &Task) -> String {
        let (done, place) = self.run(task).unwrap();
        assert!(
            done.outcome.end.is_success(),
            "{}: {}: {}",
            self.engine,
            done.outcome.end,
            place.log
        );
        place.log
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // with another engine there is nothing
        podman::forget(&self.files.path().join("images")).ok();
    }
}

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    room: PathBuf,
    log: String,
}

#[test]
fn exactly_the_words_run_with_the_declared_variables_in_the_image() {
    if !able("container words") {
        return;
    }
    for mut world in World::each("container words") {
        let mut task = task("");
        task.command = ["/bin/env"].map(ToOwned::to_owned).to_vec();
        task.variables = vec![("VERSION".to_owned(), "1.0 $(id) \"'\n=x".to_owned())];
        let (done, place) = world.run(&task).unwrap();
        let mut lines: Vec<&str> = place.log.lines().collect();
        lines.sort_unstable();
        let expected = [
            "=x",
            "HOME=/build/home",
            "HOSTNAME=custody",
            "LANG=C.UTF-8",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            "SOURCE_DATE_EPOCH=1700000000",
            "TMPDIR=/build/tmp",
            "TZ=UTC",
            "VERSION=1.0 $(id) \"'",
        ];
        assert_eq!(lines, expected, "{}", world.engine);
        assert_eq!(done.image.id, world.id);
        assert_eq!(done.image.platform, "linux/amd64");
        assert_eq!(done.image.name, PLACE);
        let facts =
            contained(vec![("isolation".into(), "process".into())], &done.image, &done.engine);
        let fact = |name: &str| &facts.iter().find(|(fact, _)| fact == name).unwrap().1;
        assert_eq!(fact("isolation"), "container");
        assert_eq!(fact("container.image-id"), &format!("sha256:{}", world.id));
        let engine = fact("container.engine");
        let known = ["podman ", "runc ", "docker "];
        assert!(known.iter().any(|known| engine.starts_with(known)), "{engine}");
    }
}

#[test]
fn a_command_has_no_rights_and_no_way_out() {
    if !able("container rights") {
        return;
    }
    for mut world in World::each("container rights") {
        let log = world.output(&task(
            "id; pwd; cat /build/inputs/image/image.tar | head -c 1 >/dev/null && echo has input
             grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
             ls /proc/self/fd/ | wc -l
             cat /proc/net/dev | grep -v -E 'Inter|face|lo:'
             for try in 'touch /x' 'touch /vol/x' 'touch /build/inputs/x' 'touch /build/inputs/image/image.tar' \
                 'mount -t tmpfs none /tmp' 'cat /proc/1/mem' 'ls /var/run/docker.sock' \
                 'ls /run/podman' 'head -c 1 /dev/vda' 'head -c 1 /dev/mem'; do
                 $try >/dev/null 2>&1 && echo DID $try
             done
             touch /tmp/x /build/x && echo may write; test -t 0 || test -t 1 || echo no terminal
             cat | wc -c",
        ));
        let has = |text: &str| assert!(log.contains(text), "{}: {text}: {log}", world.engine);
        assert!(log.starts_with("uid=65534"), "{log}");
        has("/build\n");
        has("has input");
        for name in ["Inh", "Prm", "Eff", "Bnd", "Amb"] {
            has(&format!("Cap{name}:\t0000000000000000"));
        }
        has("NoNewPrivs:\t1");
        has("Seccomp:\t2");
        has("may write");
        has("no terminal\n0\n");
        assert!(!log.contains("DID"), "{}: {log}", world.engine);
        assert!(!log.contains("eth"), "{}: {log}", world.engine);
    }
}

/// What an image has at `/tmp`, or forbids there, is not what the command gets.
#[test]
fn tmp_is_the_runs_own() {
    if !able("container tmp") {
        return;
    }
    let hostile = layer(|tar| add(tar, "tmp/planted", 0o644, b"1"));
    let image = image(&[hostile], None);
    for engine in engines("container tmp") {
        let mut world = World::new(engine, &image);
        let script = task("ls -A /tmp; echo 1 >/tmp/mine; ls /build/tmp; cat /tmp/mine");
        let (done, place) = world.run(&script).unwrap();
        assert!(done.outcome.end.is_success(), "{engine}: {}", place.log);
        assert_eq!(place.log, "mine\n1\n", "{engine}");
        // no run sees what another left
        assert_eq!(world.output(&script), "mine\n1\n", "{engine}");
    }
}

/// Whatever an image says of volumes, it is read-only and hides nothing of what the command is to have.
#[test]
fn volumes_of_an_image_do_not_count() {
    if !able("container volumes") {
        return;
    }
    let planted = layer(|tar| add(tar, "build/inputs/image/planted", 0o644, b"1"));
    for volume in ["/vol", "/build/inputs/image"] {
        let volumes = format!(r#""{volume}":{{}}"#);
        let image = image_with(std::slice::from_ref(&planted), None, &volumes);
        for engine in engines("container volumes") {
            let mut world = World::new(engine, &image);
            let script = task("ls inputs/image; touch /vol/x 2>/dev/null && echo written; true");
            if engine == "docker" {
                let refusal = world.run(&script).unwrap_err();
                assert_eq!(refusal.code, Code::GateUnavailable, "{volume}: {refusal:?}");
                assert_eq!(refusal.found, format!("a volume at {volume}"));
            } else {
                assert_eq!(world.output(&script), "image.tar\n", "{engine}: {volume}");
            }
        }
    }
}

/// With the task's leave a command has the machine's network, and else it has none.
#[test]
fn the_network_is_there_if_the_task_has_it() {
    if !able("container network") {
        return;
    }
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    for mut world in World::each("container network") {
        let mut script = task("readlink /proc/self/ns/net");
        let alone = world.output(&script);
        assert_ne!(alone.trim(), ours.to_str().unwrap(), "{}", world.engine);
        script.network = true;
        let (done, place) = world.run(&script).unwrap();
        assert_eq!(place.log.trim(), ours.to_str().unwrap(), "{}", world.engine);
        assert!(!done.outcome.confinement.network);
    }
}

/// The control of it is that the worker itself reads the key.
#[test]
fn the_workers_key_cannot_be_read_from_inside() {
    if !able("container key") {
        return;
    }
    for mut world in World::each("container key") {
        let key = world.files.path().join("worker.key");
        fs::write(&key, "SECRET-OF-THE-WORKER").unwrap();
        assert!(fs::read_to_string(&key).unwrap().contains("SECRET"));
        // by its name, by what others have open, and by looking everywhere
        let log = world.output(&task(&format!(
            "cat {} /proc/*/root{} /proc/[0-9]*/environ 2>/dev/null </dev/null
             grep -r -l SECRET-OF-THE-WORKER /build /tmp /etc /run /dev/shm /bin 2>/dev/null
             echo looked",
            key.display(),
            key.display()
        )));
        assert!(log.contains("looked") && !log.contains("SECRET"), "{}: {log}", world.engine);
    }
}

#[test]
fn how_a_command_ends_is_told() {
    if !able("container end") {
        return;
    }
    for mut world in World::each("container end") {
        let (done, place) = world.run(&task("echo out; echo err >&2; exit 7")).unwrap();
        assert!(matches!(done.outcome.end, End::Exited(status) if status.code() == Some(7)));
        assert!(place.log.contains("out\n") && place.log.contains("err\n"), "{}", place.log);
        let digest = Sha256::of(place.log.as_bytes());
        assert_eq!(done.outcome.log.sha256, digest);
        // a lot, to the last byte
        let log = world.output(&task("yes 0123456 | head -c 3000000; echo end"));
        assert_eq!((log.len(), log.ends_with("end\n")), (3_000_004, true), "{}", world.engine);
    }
}

#[test]
fn time_and_people_end_a_run() {
    if !able("container time") {
        return;
    }
    for mut world in World::each("container time") {
        let begun = Instant::now();
        // the first process of a namespace does not have to heed a request to end
        let script = task("trap '' TERM INT; echo begun; sleep 6174 & sleep 6174");
        let second = Some(Duration::from_secs(1));
        let (done, place) = world.run_until(&script, second, &AtomicBool::new(false)).unwrap();
        assert_eq!(done.outcome.end, End::TimedOut);
        assert!(place.log.contains("begun"), "{}", place.log);
        let cancelled = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(1));
                cancelled.store(true, Ordering::Relaxed);
            });
            world.run_until(&script, None, &cancelled).unwrap().0
        });
        assert_eq!(done.outcome.end, End::Cancelled);
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
        assert_eq!(left(&world), Vec::<String>::new());
    }
}

/// Processes that belong to containers of this world.
fn left(world: &World) -> Vec<String> {
    let place = world.files.path().to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let words = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // Docker itself is the test's, and not a container's
        let ours = words.starts_with("dockerd ") || words.starts_with("containerd ");
        if !ours && (words.contains(place) || words.contains("sleep 6174")) {
            found.push(words);
        }
    }
    found
}

/// `wrk-late-writer`: also in a container.
#[test]
fn what_a_command_leaves_running_ends_with_it() {
    if !able("container background") {
        return;
    }
    for mut world in World::each("container background") {
        let (done, place) = world
            .run(&task(
                "mkdir dist; echo 1 >dist/a
                 (trap '' HUP TERM; while :; do echo 2 >>dist/a; sleep 0.01; done) >/dev/null 2>&1 &
                 sleep 0.1",
            ))
            .unwrap();
        assert!(done.outcome.end.is_success(), "{}", place.log);
        let before = fs::read(place.directory.join("dist/a")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(fs::read(place.directory.join("dist/a")).unwrap(), before);
    }
}

#[test]
fn outputs_are_files_of_the_working_directory_and_nothing_else() {
    if !able("container outputs") {
        return;
    }
    for mut world in World::each("container outputs") {
        let patterns = ["dist/*".parse().unwrap()];
        let mut collected = |script: &str| {
            let (done, place) = world.run(&task(script)).unwrap();
            assert!(done.outcome.end.is_success(), "{}", place.log);
            let store = Store::create(&place.room.join("store")).unwrap();
            let taken = collect(&place.directory, &patterns, false, None, &store);
            let owner = place.directory.join("dist").symlink_metadata().unwrap().uid();
            (taken, owner)
        };
        let (taken, owner) = collected("mkdir dist; echo 1 >dist/a");
        assert_eq!(taken.unwrap()[0].1.digests().sha256, Sha256::of(b"1\n"));
        assert_eq!(owner, NOBODY.uid);
        for script in [
            "mkdir dist; ln -s /etc/shadow dist/a",
            "mkdir dist; ln -s /proc/1/environ dist/a",
            "mkdir dist; echo 1 >x; ln x dist/a",
            "ln -s /etc dist",
            // an input is on another mount: it cannot be linked, and the command makes nothing
            "mkdir dist; ln inputs/image/image.tar dist/a || ln -s ../inputs/image/image.tar dist/a",
        ] {
            let refusal = collected(script).0.unwrap_err();
            assert_eq!(refusal.code, Code::ArtNotRegular, "{script}: {refusal:?}");
        }
    }
}

#[test]
fn memory_and_processes_are_limited() {
    if !able("container limits") {
        return;
    }
    for mut world in World::each("container limits") {
        let mut greedy = task("dd if=/dev/zero of=/dev/null bs=100M count=1 2>&1; echo survived");
        assert!(world.output(&greedy).contains("1+0 records out"));
        greedy.limits.memory = Some(32 << 20);
        let (_, place) = world.run(&greedy).unwrap();
        assert!(!place.log.contains("1+0 records out"), "{}: {}", world.engine, place.log);
        let mut many = task(
            "i=0; while [ $i -lt 50 ]; do sleep 2 & i=$((i+1)); done 2>/dev/null; ps | grep -c 'sleep 2'",
        );
        let all: usize = world.output(&many).trim().parse().unwrap();
        assert!(all >= 50, "{all}");
        many.limits.processes = Some(20);
        let (_, place) = world.run(&many).unwrap();
        let some = place.log.lines().last().and_then(|line| line.trim().parse::<usize>().ok());
        assert!(some.is_none_or(|some| some < 20), "{}: {}", world.engine, place.log);
    }
}

/// `wrk-image-digest`: by its digest an image is found, and no other is taken in its place.
#[test]
fn a_named_image_is_found_by_its_digest_alone() {
    if !able("container digest") {
        return;
    }
    let [mut world, _] = World::both();
    let loaded = world.run(&task("true")).unwrap().0;
    let mut named = task("echo in the image");
    let name = |name: &str, digest: Sha256| Some(Image::Named { name: name.into(), digest });
    // the id, under whatever name
    named.image = name("registry.example.org/any", world.id);
    let (done, place) = world.run(&named).unwrap();
    assert_eq!(place.log, "in the image\n");
    assert_eq!((done.image.id, done.image.name.as_str()), (world.id, "registry.example.org/any"));
    assert_eq!(done.image.manifest, loaded.image.manifest);
    assert!(done.image.manifest.is_some(), "podman reports one");
    // one that is not there, and cannot be fetched: nobody listens on the port
    named.image = name("localhost:1/any", Sha256::of(b"another"));
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
    // in words: which one, why, and how to bring it
    let reference = format!("localhost:1/any@sha256:{}", Sha256::of(b"another"));
    assert_eq!(refusal.expected, format!("image {reference}"));
    assert!(refusal.found.contains("refused") && !refusal.found.contains('{'), "{refusal:?}");
    let storage = world.files.path().join("images/storage");
    let pull = format!("podman --root {} pull {reference}", storage.display());
    assert!(refusal.remedy().contains(&pull), "{}", refusal.remedy());
    // somebody gives the image's name to another: the digest holds
    let (evil, evil_id) = image(&[layer(|tar| add(tar, "etc/evil", 0o644, b"1"))], None);
    let archive = world.files.path().join("evil.tar");
    fs::write(&archive, evil).unwrap();
    podman_done(&world, &["load", "--input", archive.to_str().unwrap()]);
    podman(&world, &["tag", &world.id.to_string(), "registry.example.org/any:latest"]);
    podman_done(&world, &["tag", &evil_id.to_string(), "registry.example.org/any:latest"]);
    named.image = name("registry.example.org/any", world.id);
    named.command[2] = "ls /etc/evil".into();
    let (done, place) = world.run(&named).unwrap();
    assert!(!done.outcome.end.is_success(), "{}", place.log);
    assert_eq!(done.image.id, world.id);
}

fn podman_done(world: &World, words: &[&str]) {
    let output = podman(world, words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn podman(world: &World, words: &[&str]) -> Output {
    let storage = world.files.path().join("images");
    let options = podman::options(&storage).unwrap();
    Command::new("podman").args(options).args(words).output().unwrap()
}

/// By its digest an image is found with Docker too.
#[test]
fn docker_finds_a_named_image_by_its_digest_alone() {
    let test = "docker digest";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let mut world = World::new("docker", &image(&[layer(|_| ())], None));
    let mut named = task("echo in the image");
    let name = |name: &str, digest: Sha256| Some(Image::Named { name: name.into(), digest });
    named.image = name("localhost:1/any", world.id);
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "not loaded yet: {refusal:?}");
    world.output(&task("true"));
    let (done, place) = world.run(&named).unwrap();
    assert_eq!(place.log, "in the image\n");
    assert_eq!((done.image.id, done.image.manifest), (world.id, None));
    named.image = name("localhost:1/any", Sha256::of(b"another"));
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
}

/// A registry of these documents and nothing else, on this machine. It ends with the test runner.
fn registry(blobs: Vec<(&'static str, Vec<u8>)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut heads = Vec::new();
            for byte in io::BufReader::new(&mut stream).bytes().map_while(Result::ok) {
                heads.push(byte);
                // TLS is tried first, and begins so
                if heads.ends_with(b"\r\n\r\n") || heads == [0x16] {
                    break;
                }
            }
            let heads = String::from_utf8_lossy(&heads);
            let is_it = |bytes: &[u8]| heads.contains(&format!("/sha256:{} ", Sha256::of(bytes)));
            let blob = blobs.iter().find(|(_, bytes)| is_it(bytes));
            let (kind, bytes) =
                blob.map_or(("text/plain", &b""[..]), |(kind, bytes)| (*kind, bytes));
            let status = if blob.is_some() || heads.contains(" /v2/ ") { 200 } else { 404 };
            let (length, digest) = (bytes.len(), Sha256::of(bytes));
            let answer = format!(
                "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\nDocker-Content-Digest: sha256:{digest}\r\n\r\n"
            );
            // whoever hangs up has what it wants
            stream.write_all(answer.as_bytes()).ok();
            if !heads.starts_with("HEAD") {
                stream.write_all(bytes).ok();
            }
        }
    });
    port
}

/// Docker fetches by the digest of a manifest, and one of an index is refused.
#[test]
fn docker_fetches_manifests_and_no_indexes() {
    let test = "docker registry";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let layer = layer(|_| ());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        Sha256::of(&layer)
    );
    let described = |kind: &str, bytes: &[u8], more: &str| {
        let (digest, size) = (Sha256::of(bytes), bytes.len());
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}{more}}}"#)
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
        described("application/vnd.oci.image.config.v1+json", config.as_bytes(), ""),
        described("application/vnd.oci.image.layer.v1.tar", &layer, "")
    );
    let platform = r#","platform":{"os":"linux","architecture":"amd64"}"#;
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{index_kind}","manifests":[{}]}}"#,
        described(kind, manifest.as_bytes(), platform)
    );
    let [id, of_manifest, of_index] =
        [&config, &manifest, &index].map(|text| Sha256::of(text.as_bytes()));
    let bytes = "application/octet-stream";
    let port = registry(vec![
        (bytes, layer),
        (bytes, config.into_bytes()),
        (kind, manifest.into_bytes()),
        (index_kind, index.into_bytes()),
    ]);
    let mut world = World::new("docker", &image(&[], None));
    let mut named = task("echo in the image");
    let name = format!("localhost:{port}/any");
    for _ in ["fetched", "there already"] {
        named.image = Some(Image::Named { name: name.clone(), digest: of_manifest });
        let (done, place) = world.run(&named).unwrap();
        assert_eq!(place.log, "in the image\n");
        assert_eq!((done.image.id, done.image.manifest), (id, Some(of_manifest)));
        named.image = Some(Image::Named { name: name.clone(), digest: of_index });
        let refusal = world.run(&named).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerImageMismatch, "{refusal:?}");
    }
}

/// A plain runtime keeps no images.
#[test]
fn a_runtime_takes_archives_only() {
    if !able("container runtime") {
        return;
    }
    let [_, mut world] = World::both();
    let mut named = task("true");
    named.image = Some(Image::Named { name: "debian".into(), digest: world.id });
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable);
    assert!(refusal.expected.contains("archive"), "{refusal:?}");
}

#[test]
fn a_command_that_is_not_there_is_told() {
    if !able("container nothing") {
        return;
    }
    let mut nothing = task("");
    nothing.command = vec!["/bin/nothing".into()];
    for mut world in World::each("container nothing") {
        if let Engine::Runtime(_) = world.engine {
            let (done, Place { log, .. }) = world.run(&nothing).unwrap();
            assert!(!done.outcome.end.is_success() && log.contains("/bin/nothing"), "{log}");
        } else {
            let refusal = world.run(&nothing).unwrap_err();
            assert_eq!(refusal.code, Code::GateUnavailable);
            assert!(refusal.found.contains("/bin/nothing"), "{refusal:?}");
        }
    }
}

#[test]
fn whoever_watches_sees_whole_lines() {
    if !able("container lines") {
        return;
    }
    for mut world in World::each("container lines") {
        world.assert_lines();
    }
}

/// An engine that cannot start a container is no command that failed.
#[test]
fn a_fault_of_the_engine_is_not_the_commands() {
    if !able("container faults") {
        return;
    }
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "proc", 0o644, b"a file, where a file system belongs");
    let bad = image(&[tar.into_inner().unwrap()], None);
    for engine in engines("container faults") {
        let mut world = World::new(engine, &bad);
        let refusal = world.run(&task("exit 3")).unwrap_err();
        assert_eq!(refusal.code, Code::GateUnavailable, "{engine}: {refusal:?}");
        assert!(refusal.found.contains("proc"), "{engine}: {refusal:?}");
        let mut good = World::new(engine, &image(&[layer(|_| ())], None));
        let (done, _) = good.run(&task("exit 3")).unwrap();
        assert!(done.outcome.end.to_string().contains('3'), "{engine}: {}", done.outcome.end);
    }
    // and one that does not even begin says why
    let mut world = World::new("podman", &image(&[layer(|_| ())], None));
    let storage = world.files.path().join("images/storage");
    fs::create_dir_all(&storage).unwrap();
    fs::write(storage.join("libpod"), "").unwrap();
    let refusal = world.run(&task("true")).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
    assert!(refusal.found.contains("libpod"), "{refusal:?}");
}

/// A worker that was killed leaves a container, and the next run takes it away.
#[test]
fn left_overs_are_found_and_removed() {
    if !able("container left-overs") {
        return;
    }
    let [mut world, mut plain] = World::both();
    world.run(&task("true")).unwrap();
    let id = world.id.to_string();
    let gone = world.files.path().join("gone").display().to_string();
    let kept = world.files.path().display().to_string();
    for (name, place) in [("left", &gone), ("held", &kept)] {
        let label = format!("dev.custody.run={place}");
        let words = ["create", "--name", name, "--label", &label, &id, "true"];
        podman_done(&world, &words);
    }
    podman_done(&world, &["container", "exists", "left"]);
    world.run(&task("true")).unwrap();
    podman_done(&world, &["container", "exists", "held"]);
    assert!(!podman(&world, &["container", "exists", "left"]).status.success(), "it is gone");
    // the runtime's: somebody else has a container whose bundle is gone
    let bundle = plain.files.path().join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let config = Command::new("runc").args(["spec", "--bundle"]).arg(&bundle).output().unwrap();
    assert!(config.status.success());
    let text = fs::read_to_string(bundle.join("config.json")).unwrap();
    let text = text.replace("\"terminal\": true", "\"terminal\": false");
    fs::write(bundle.join("config.json"), text).unwrap();
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    fs::copy(program("busybox").unwrap(), bundle.join("rootfs/bin/sh")).unwrap();
    fs::create_dir_all("/run/custody/containers").unwrap();
    let name = format!("custody-left-{}", std::process::id());
    let runc = |words: &[&str]| {
        let log = File::create(plain.files.path().join("runc.log")).unwrap();
        let mut command = Command::new("runc");
        command.args(["--root", "/run/custody/containers"]).args(words).arg(&name);
        command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap().success()
    };
    assert!(runc(&["create", "--bundle", bundle.to_str().unwrap()]));
    fs::remove_dir_all(&bundle).unwrap();
    assert!(Path::new("/run/custody/containers").join(&name).exists());
    plain.output(&task("true"));
    assert!(!Path::new("/run/custody/containers").join(&name).exists());
}

/// Nothing stays in Docker of a run, nor of one whose worker was killed.
#[test]
fn docker_keeps_nothing_of_a_run() {
    let test = "docker left-overs";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let mut world = World::new("docker", &image(&[layer(|_| ())], None));
    world.output(&task("true"));
    let (gone, kept) = (world.files.path().join("gone"), world.files.path().to_owned());
    for (name, place) in [("left", gone), ("held", kept)] {
        let body = format!(
            r#"{{"Image":"sha256:{}","Volumes":{{"/vol":{{}}}},"Labels":{{"dev.custody.run":"{}"}}}}"#,
            world.id,
            place.display()
        );
        let docker = world.docker.as_ref().unwrap();
        let (status, rest) = docker.ask("POST", &format!("/containers/create?name={name}"), &body);
        assert_eq!(status, "201", "{rest}");
    }
    let is_there = |world: &World, place: &str| {
        let docker = world.docker.as_ref().unwrap();
        docker.ask("GET", &format!("/containers/{place}/json"), "").0 == "200"
    };
    assert!(is_there(&world, "left"));
    let volumes = |world: &World| world.docker.as_ref().unwrap().ask("GET", "/volumes", "").1;
    let before = volumes(&world).matches("Mountpoint").count();
    world.output(&task("true"));
    assert!(!is_there(&world, "left") && is_there(&world, "held"));
    let after = volumes(&world).matches("Mountpoint").count();
    assert_eq!((before, after), (2, 1), "the volume of the one that is held");
}

/// Archives that lead outside, contradict themselves or hold several images.
#[test]
fn hostile_archives_are_refused() {
    if !able("container archives") {
        return;
    }
    let refused = |image: &(Vec<u8>, Sha256), why: &str| {
        let mut world = World::new("runc", image);
        let outside = world.files.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let refusal = world.run(&task("true")).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerImageMismatch, "{why}: {refusal:?}");
        assert!(refusal.found.contains(why), "{why}: {refusal:?}");
    };
    let good = layer(|_| ());
    World::new("runc", &image(std::slice::from_ref(&good), None)).output(&task("true"));
    // a link out of the root, and a file behind it
    let through = layer(|tar| link(tar, "out", "/tmp"));
    let behind = layer(|tar| add(tar, "out/custody-was-here", 0o644, b"1"));
    refused(&image(&[through, behind], None), "outside");
    assert!(!Path::new("/tmp/custody-was-here").exists());
    let through = layer(|tar| link(tar, "out", "/tmp"));
    let whiteout = layer(|tar| add(tar, "out/.wh.anything", 0o644, b""));
    refused(&image(&[through, whiteout], None), "outside");
    // another layer than the configuration says
    refused(&image(std::slice::from_ref(&good), Some(vec![Sha256::of(b"another")])), "sha256");
    refused(&image(std::slice::from_ref(&good), Some(vec![])), "0 digests");
    // two images, one name twice, and nothing at all
    let (bytes, id) = image(&[good], None);
    let (one, other) = ("manifest.json", "manifesX.json");
    assert!(one.len() == other.len());
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, one, 0o644, b"[{},{}]");
    refused(&(tar.into_inner().unwrap(), id), "2");
    let mut tar = tar::Builder::new(bytes[..bytes.len() - 1024].to_vec());
    tar.get_mut().clear();
    for _ in 0..2 {
        add(&mut tar, one, 0o644, b"[]");
    }
    refused(&(tar.into_inner().unwrap(), id), "twice");
    refused(&(b"no tar".repeat(200), id), "");
}

/// An OCI layout with a layer that is packed, as `podman save --format oci-archive` writes it; and an
/// index of several images, of which nobody says which is meant.
#[test]
fn oci_layouts_are_read() {
    if !able("container layouts") {
        return;
    }
    let plain = layer(|tar| add(tar, "etc/a", 0o644, b"packed"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        Sha256::of(&plain)
    );
    let described = |kind: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{}","size":{}}}"#,
            Sha256::of(bytes),
            bytes.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        described("config.v1+json", config.as_bytes()),
        described("layer.v1.tar+gzip", &packed)
    );
    let one = described("manifest.v1+json", manifest.as_bytes());
    let index = |list: &str| format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#);
    let inner = index(&format!("{one},{one}"));
    let layout = |index: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        add(&mut tar, "index.json", 0o644, index.as_bytes());
        for blob in [config.as_bytes(), manifest.as_bytes(), &packed, inner.as_bytes()] {
            add(&mut tar, &format!("blobs/sha256/{}", Sha256::of(blob)), 0o644, blob);
        }
        (tar.into_inner().unwrap(), Sha256::of(config.as_bytes()))
    };
    for engine in ["podman", "runc"] {
        let mut world = World::new(engine, &layout(&index(&one)));
        let (done, place) = world.run(&task("cat /etc/a")).unwrap();
        assert_eq!(place.log, "packed", "{engine}");
        assert_eq!(done.image.id, world.id);
        assert_eq!(done.image.manifest, Some(Sha256::of(manifest.as_bytes())), "{engine}");
        let nested = described("index.v1+json", inner.as_bytes());
        for (bad, why) in
            [(index(&format!("{one},{one}")), "2"), (index(&nested), "an index of several")]
        {
            let refusal = World::new(engine, &layout(&bad)).run(&task("true")).unwrap_err();
            assert_eq!(refusal.code, Code::WorkerImageMismatch, "{engine}: {refusal:?}");
            assert!(refusal.found.contains(why), "{engine}: {refusal:?}");
        }
    }
}

#[test]
fn layers_hide_what_lower_ones_have() {
    if !able("container layers") {
        return;
    }
    let lower = layer(|tar| {
        add(tar, "etc/a", 0o4755, b"lower");
        add(tar, "etc/b", 0o644, b"lower");
        directory(tar, "etc/c/");
        add(tar, "etc/c/d", 0o644, b"lower");
    });
    let mut upper = tar::Builder::new(Vec::new());
    add(&mut upper, "etc/a", 0o4755, b"upper");
    add(&mut upper, "etc/.wh.b", 0o644, b"");
    directory(&mut upper, "etc/c/");
    add(&mut upper, "etc/c/.wh..wh..opq", 0o644, b"");
    add(&mut upper, "etc/c/e", 0o644, b"upper");
    let upper = upper.into_inner().unwrap();
    let both = image(&[lower, upper], None);
    for engine in engines("container layers") {
        let mut world = World::new(engine, &both);
        let log = world.output(&task("cat /etc/a; echo; ls /etc/b 2>/dev/null; ls /etc/c"));
        assert_eq!(log, "upper\ne\n", "{engine}");
    }
}
