//! Commands in images, with the engines that this machine has.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

mod ends;
mod images;

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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
use custody_run::execute::{LOG_BYTES, Run, User};
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

fn podman_done(world: &World, words: &[&str]) {
    let output = asked_podman(world, words);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn asked_podman(world: &World, words: &[&str]) -> Output {
    let storage = world.files.path().join("images");
    let options = podman::options(&storage).unwrap();
    Command::new("podman").args(options).args(words).output().unwrap()
}
