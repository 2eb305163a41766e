//! Runs a task's command in the image that the task names: with Podman or Docker, or with a plain OCI
//! runtime where there is neither.
//!
//! Only digests count. An image is found by its digest, the container is made from the id of what was
//! found, and what the container then has is compared again: what a name means meanwhile does not
//! matter. The command has the working directory, its inputs read-only, an empty `/tmp`, and the
//! image read-only. It has no rights, no terminal, no network unless the task has it, and nothing of
//! the worker's: neither a key nor the engine's socket.

mod api;
mod archive;
mod http;
pub mod podman;
mod runtime;

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use custody_core::name::ArtifactName;
use custody_core::statement::{Image, Limits, UsedImage};
use custody_core::{Code, Refusal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

use self::api::Api;
use self::archive::Archive;
use self::podman::Service;
use self::runtime::Runtime;
use crate::execute::{
    Confinement, Confiner, End, Enforced, Log, Outcome, Run, TICK, User, check_words, environment,
    now,
};
use crate::stage::RunDirectory;
use crate::stage::copy::{open_regular, unavailable};

/// Where the command finds its working directory.
pub const WORK: &str = "/build";

/// What containers call the machine.
const HOSTNAME: &str = "custody";

/// By which containers of workers are known; the value is the working directory outside.
const LABEL: &str = "dev.custody.run";

/// How many processes there may be if the task does not say.
const PROCESSES: u64 = 4096;

/// How long an engine may take to end a container that was killed.
const PATIENCE: Duration = Duration::from_mins(1);

/// What runs containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Podman, as a service of the worker's own, with images where Podman has them or here.
    Podman(Option<PathBuf>),
    /// Podman or Docker, behind this socket.
    Socket(PathBuf),
    /// A plain OCI runtime: a program. It keeps no images, so tasks must bring archives.
    Runtime(String),
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "podman" => Ok(Self::Podman(None)),
            "runc" | "crun" => Ok(Self::Runtime(text.into())),
            _ => match (text.strip_prefix("podman:"), text.strip_prefix("unix://")) {
                (Some(storage), _) if !storage.is_empty() => Ok(Self::Podman(Some(storage.into()))),
                (_, Some(socket)) if socket.starts_with('/') => Ok(Self::Socket(socket.into())),
                _ => Err("write podman, podman:DIR, unix:///PATH, runc or crun".into()),
            },
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Podman(None) => f.write_str("podman"),
            Self::Podman(Some(storage)) => write!(f, "podman:{}", storage.display()),
            Self::Socket(socket) => write!(f, "unix://{}", socket.display()),
            Self::Runtime(program) => f.write_str(program),
        }
    }
}

impl Engine {
    /// The first that this machine has: Podman, Docker, `runc`, `crun`.
    pub fn found() -> Option<Self> {
        let docker = Path::new("/var/run/docker.sock");
        let runtime = || ["runc", "crun"].into_iter().find(|program| is_there(program));
        if is_there("podman") {
            Some(Self::Podman(None))
        } else if docker.exists() {
            Some(Self::Socket(docker.into()))
        } else {
            runtime().map(|program| Self::Runtime(program.into()))
        }
    }
}

/// Whether a program is on the worker's path.
fn is_there(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// What came of a run in a container.
#[derive(Debug)]
pub struct Contained {
    /// How the command ended, and its log.
    pub outcome: Outcome,
    /// The image, as the engine reports it.
    pub image: UsedImage,
    /// The engine's name and version, as it reports them.
    pub engine: String,
}

/// What is measured of the machine, and what is so because of the container.
pub fn contained(
    mut measured: Vec<(String, String)>,
    image: &UsedImage,
    engine: &str,
) -> Vec<(String, String)> {
    let own = [
        ("container.engine", engine.replace(char::is_control, "?")),
        ("container.image-id", format!("sha256:{}", image.id)),
        ("container.platform", image.platform.clone()),
        ("isolation", "container".to_owned()),
    ];
    measured.retain(|(name, _)| own.iter().all(|(other, _)| name != other));
    measured.extend(own.map(|(name, value)| (name.to_owned(), value)));
    measured.sort();
    measured
}

/// Runs the command in the image. `private` is a directory that it does not reach. `user` is whom it
/// runs as, whatever the image says.
///
/// As with [`execute`](crate::execute::execute), a command that fails is no refusal.
/// [`Code::WorkerImageMismatch`] is the answer to an image that is not the task's, and
/// [`Code::GateUnavailable`] to a machine that cannot run it.
pub fn execute(
    run: &Run<'_>,
    image: &Image,
    (engine, private, user): (Option<&Engine>, &Path, User),
    live: &mut dyn FnMut(&[u8]),
    cancelled: &AtomicBool,
) -> Result<Contained, Refusal> {
    check_words(run.task)?;
    let found = if engine.is_none() { Engine::found() } else { None };
    let engine = engine.or(found.as_ref()).ok_or_else(|| {
        let expected = "podman, docker, runc or crun, to run commands in images";
        Refusal::new(Code::GateUnavailable, "worker", expected, "none of them").advising(
            "install podman, or say with --engine where an engine is; then run the task again",
        )
    })?;
    run.directory.give_to(user.uid, user.gid)?;
    let directory = run.directory.path().to_str().ok_or_else(|| {
        let at = run.directory.path().display().to_string();
        Refusal::new(Code::GateUnavailable, at, "a path in UTF-8", "another")
    })?;
    let container = Container {
        words: &run.task.command,
        variables: variables(run),
        directory,
        user,
        network: run.task.network,
        limits: run.task.limits,
    };
    let mut ending = Ending { run, live, cancelled };
    match engine {
        Engine::Runtime(program) => {
            let Image::Input(place) = image else {
                let expected = "an image archive among the inputs: a plain runtime keeps no images";
                let at = format!("image {image}");
                return Err(Refusal::new(Code::GateUnavailable, at, expected, program.as_str()));
            };
            let runtime = Runtime::open(program)?;
            runtime.clear_away()?;
            let archive = archive(run.directory, place)?;
            let reported = Runtime::archived(place.as_str(), &archive);
            container.admitted(run, &reported, &runtime.engine)?;
            let running = runtime.start(&container, &archive, private)?;
            ending.of(running, &container, reported, runtime.engine.clone())
        }
        Engine::Podman(storage) => {
            let storage = storage.as_deref();
            let mut service = Service::start(private, storage)?;
            let api = Api::open(&service.socket, storage);
            let done = api.and_then(|api| ending.in_engine(&api, image, &container));
            done.map_err(|refusal| service.explain(refusal))
        }
        Engine::Socket(socket) => ending.in_engine(&Api::open(socket, None)?, image, &container),
    }
}

fn archive(directory: &RunDirectory, place: &ArtifactName) -> Result<Archive, Refusal> {
    let path = directory.inputs().join(place.as_str());
    let at = format!("image inputs/{place}");
    let file = open_regular(rustix::fs::CWD, &path).map_err(|refusal| refusal.within(&at))?;
    Archive::read(file).map_err(|refusal| refusal.within(&at))
}

/// The variables of every command, with the directories as they are inside.
fn variables(run: &Run<'_>) -> Vec<(String, String)> {
    let mut variables = environment(run);
    variables.insert("HOME", format!("{WORK}/home").into());
    variables.insert("TMPDIR", format!("{WORK}/tmp").into());
    // engines set it, whether one wants it or not
    variables.entry("HOSTNAME").or_insert(HOSTNAME.into());
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect()
}

/// What an engine is to make.
struct Container<'a> {
    words: &'a [String],
    variables: Vec<(String, String)>,
    /// The working directory outside.
    directory: &'a str,
    user: User,
    network: bool,
    limits: Limits,
}

impl Container<'_> {
    /// Where things are outside and inside, and whether they can be written to.
    fn mounts(&self) -> [(String, String, bool); 3] {
        [
            (self.directory.to_owned(), WORK.to_owned(), true),
            (format!("{}/inputs", self.directory), format!("{WORK}/inputs"), false),
            // not a file system of the engine's own, which would have what the image has there
            (format!("{}/tmp", self.directory), "/tmp".to_owned(), true),
        ]
    }

    fn user(&self) -> String {
        format!("{}:{}", self.user.uid, self.user.gid)
    }

    fn processes(&self) -> u64 {
        self.limits.processes.unwrap_or(PROCESSES)
    }

    fn confinement(&self) -> Confinement {
        Confinement {
            session: true,
            privileges: true,
            processes: true,
            network: !self.network,
            filesystem: true,
            landlock: None,
            limits: if self.limits.memory.or(self.limits.processes).is_some() {
                Enforced::Together
            } else {
                Enforced::No
            },
            user: Some(self.user),
            confiner: Confiner::default(),
            tried: true,
        }
    }

    fn admitted(&self, run: &Run<'_>, image: &UsedImage, engine: &str) -> Result<(), Refusal> {
        run.admit.map_or(Ok(()), |admit| admit(&self.confinement(), Some((image, engine))))
    }
}

/// Limits that a container is started with: no more than the worker has, for nobody can give more
/// (and Podman lowers its own number of processes to that of the kernel).
fn started_with() -> [(&'static str, u64); 3] {
    let own =
        |resource, enough: u64| getrlimit(resource).maximum.map_or(enough, |own| own.min(enough));
    [
        ("core", 0),
        ("nofile", own(Resource::Nofile, 1024)),
        ("nproc", own(Resource::Nproc, PROCESSES)),
    ]
}

/// A container that runs. It is gone with its value, whatever happens.
trait Running {
    /// What has something to read when the command printed something.
    fn output(&self) -> Option<BorrowedFd<'_>>;
    /// Takes what was printed: how much was read, 0 at the end, none if there is nothing now.
    fn read(&mut self, keep: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>>;
    /// The command's status, once it has ended with all that it started.
    fn ended(&mut self) -> io::Result<Option<ExitStatus>>;
    /// Ends it.
    fn kill(&mut self);
    /// Takes it away.
    fn remove(&mut self) -> Result<(), Refusal>;
}

/// What ends a run: the command, the clock, or somebody.
struct Ending<'a> {
    run: &'a Run<'a>,
    live: &'a mut dyn FnMut(&[u8]),
    cancelled: &'a AtomicBool,
}

impl Ending<'_> {
    fn in_engine(
        &mut self,
        api: &Api,
        image: &Image,
        container: &Container<'_>,
    ) -> Result<Contained, Refusal> {
        api.clear_away()?;
        let used = match image {
            Image::Named { name, digest } => {
                let used = api.named(name, digest)?;
                if !used.is(digest) {
                    let found = format!("image sha256:{}", used.id);
                    let at = format!("image {image}");
                    let expected = format!("an image or manifest with sha256:{digest}");
                    return Err(Refusal::new(Code::WorkerImageMismatch, at, expected, found));
                }
                used
            }
            Image::Input(place) => {
                let archive = archive(self.run.directory, place)?;
                let used = api.archived(place.as_str(), &archive)?;
                if used.id != archive.id {
                    let found = format!("image sha256:{}", used.id);
                    let at = format!("image inputs/{place}");
                    let expected = format!("image sha256:{}", archive.id);
                    return Err(Refusal::new(Code::WorkerImageMismatch, at, expected, found));
                }
                used
            }
        };
        container.admitted(self.run, &used, &api.engine)?;
        let running = api.start(container, &used)?;
        self.of(running, container, used, api.engine.clone())
    }

    fn of(
        &mut self,
        mut running: impl Running,
        container: &Container<'_>,
        image: UsedImage,
        engine: String,
    ) -> Result<Contained, Refusal> {
        let run = self.run;
        let mut log = Log::create(run, self.live).map_err(|error| unavailable(run.log, &error))?;
        let started = now()?;
        let end = watch(&mut running, &mut log, run.timeout, self.cancelled).map_err(|error| {
            Refusal::new(Code::GateUnavailable, &engine, "a run to its end", error.to_string())
        })?;
        running.remove()?;
        let finished = now()?;
        let (log, log_size) = log.finish();
        let confinement = container.confinement();
        let outcome = Outcome { end, started, finished, log, log_size, confinement };
        Ok(Contained { outcome, image, engine })
    }
}

fn watch(
    running: &mut impl Running,
    log: &mut Log<'_>,
    timeout: Option<Duration>,
    cancelled: &AtomicBool,
) -> io::Result<End> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (mut stopped, mut patience, mut open) = (None, None, true);
    let status = loop {
        if open {
            wait_for(running.output())?;
            open = read(running, log)?;
        } else {
            thread::sleep(TICK);
        }
        if let Some(status) = running.ended()? {
            break status;
        }
        let now = Instant::now();
        if stopped.is_none() {
            let late = deadline.is_some_and(|deadline| now >= deadline);
            let cancelled = cancelled.load(Ordering::Relaxed).then_some(End::Cancelled);
            stopped = cancelled.or(late.then_some(End::TimedOut));
        }
        if stopped.is_some() {
            running.kill();
            if now >= *patience.get_or_insert(now + PATIENCE) {
                return Err(io::Error::other("it does not end"));
            }
        }
    };
    // what was printed last may still be on its way
    let last = Instant::now() + Duration::from_secs(5);
    while open && Instant::now() < last {
        wait_for(running.output())?;
        open = read(running, log)?;
    }
    Ok(stopped.unwrap_or(End::Exited(status)))
}

/// Takes what was printed, and says whether there may be more.
fn read(running: &mut impl Running, log: &mut Log<'_>) -> io::Result<bool> {
    let length = running.read(&mut |bytes| log.keep(bytes))?;
    if length.is_none() {
        log.idle();
    }
    Ok(length != Some(0))
}

fn wait_for(output: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    let Some(output) = output else { return Ok(()) };
    match poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
