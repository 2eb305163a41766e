//! Runs a task's command: exactly its words, no shell between, nothing of the worker's own
//! environment, and nobody left who writes after the end.
//!
//! What goes through is the log and the exit status. What keeps the command apart is told by
//! [`Confinement`] and done by the [`confiner`](crate::confiner).

mod confine;
mod group;
mod lines;
mod processes;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use custody_core::digest::{Digests, Hasher};
use custody_core::statement::{Task, UsedImage};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use self::confine::Said;
pub use self::confine::{Confinement, Confiner, Enforced, User};
use self::group::Group;
use self::lines::Lines;
use crate::stage::RunDirectory;
use crate::stage::copy::{CHUNK, unavailable};

/// The longest log that is kept unless a run says otherwise.
pub const LOG_BYTES: u64 = 64 << 20;

/// How long it takes at most to notice that the run is to be stopped.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// One run of one task.
pub struct Run<'a> {
    /// What is to be run.
    pub task: &'a Task,
    /// Where it starts, with inputs and source in place.
    pub directory: &'a RunDirectory,
    /// The file that takes what the command prints. It is made new, and lies where the command
    /// cannot reach it.
    pub log: &'a Path,
    /// How many bytes of that are kept; [`LOG_BYTES`] as a rule.
    pub log_limit: u64,
    /// How long the command may run.
    pub timeout: Option<Duration>,
    /// The time that the command should put into what it makes
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub source_date_epoch: Option<u64>,
    /// Who has a say, if anybody, on where the command is about to run.
    pub admit: Option<&'a Admit<'a>>,
}

/// Is told what will keep the command apart, and in which image and engine it will run. A refusal ends
/// the run before the command begins.
pub type Admit<'a> =
    dyn Fn(&Confinement, Option<(&UsedImage, &str)>) -> Result<(), Refusal> + Sync + 'a;

impl fmt::Debug for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The command ended by itself, with this status.
    Exited(ExitStatus),
    /// It took too long and was killed.
    TimedOut,
    /// One of its processes was killed because all together needed more memory than the task allows.
    OutOfMemory,
    /// The caller did not want it any more, and it was killed.
    Cancelled,
}

/// What came of a run. No process of it is left.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended. Only after success may there be a manifest.
    pub end: End,
    /// When it started, by this machine's clock.
    pub started: Time,
    /// When it ended, by this machine's clock.
    pub finished: Time,
    /// The digests of the log.
    pub log: Digests,
    /// The size of the log.
    pub log_size: u64,
    /// What kept the command apart.
    pub confinement: Confinement,
}

impl End {
    /// Whether the command ended by itself and says that all went well.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Exited(status) if status.success())
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => status.fmt(f),
            Self::OutOfMemory => {
                f.write_str("killed when it needed more memory than the task allows")
            }
            Self::TimedOut => f.write_str("killed when its time was over"),
            Self::Cancelled => f.write_str("killed on request"),
        }
    }
}

/// Runs the command to its end and kills what it leaves behind. `machine` says what this machine
/// can do to keep it apart; where that was not tried and does not work, it is tried now. `live` is given what the command prints, line by line as it comes and as far as
/// it is logged. `cancelled` may be set at any time by anybody.
///
/// A command that fails is no refusal: see [`Outcome::end`]. [`Code::GateStepMismatch`] is the
/// answer to a task without a command, [`Code::ParseFieldType`] to words that no program can get,
/// and [`Code::GateUnavailable`] to a fault of this machine, after which nothing runs either.
pub fn execute(
    run: &Run<'_>,
    machine: &Confinement,
    live: &mut dyn FnMut(&[u8]),
    cancelled: &AtomicBool,
) -> Result<Outcome, Refusal> {
    check_words(run.task)?;
    if let Some(user) = machine.user {
        run.directory.give_to(user.uid, user.gid)?;
    }
    let mut log = Log::create(run, live).map_err(|error| unavailable(run.log, &error))?;
    let deadline = run.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let stop = || {
        let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
        let cancelled = cancelled.load(Ordering::Relaxed).then_some(End::Cancelled);
        cancelled.or(late.then_some(End::TimedOut))
    };
    let probed = || {
        let found = Confinement::probe(&machine.confiner, machine.user)?;
        // who was to stay in the network that the worker is in stays there
        Ok::<_, Refusal>(Confinement { network: found.network && machine.network, ..found })
    };
    // who has a say is told what is, and not what may be
    let hoped = machine.tried || run.admit.is_none();
    let first = hoped.then(|| perform(run, machine, &mut log, &stop)).transpose()?;
    let performed = match first {
        Some(performed) if performed.is_ok() || machine.tried => performed,
        _ => perform(run, &probed()?, &mut log, &stop)?,
    };
    let performed = performed.map_err(|text| {
        Refusal::new(Code::GateUnavailable, "worker", "to keep the command apart", text).advising(
            "nothing has run: run the task again; if it stays so, run it on another machine",
        )
    });
    let Performed { end, started, finished, confinement } = performed?;
    let (log, log_size) = log.hasher.finish();
    Ok(Outcome { end, started, finished, log, log_size, confinement })
}

/// A command that was begun and has ended.
struct Performed {
    end: End,
    started: Time,
    finished: Time,
    confinement: Confinement,
}

/// Runs the command once, or says why it could not be kept apart; then it did not begin.
fn perform(
    run: &Run<'_>,
    machine: &Confinement,
    log: &mut Log<'_>,
    stop: &dyn Fn() -> Option<End>,
) -> Result<Result<Performed, String>, Refusal> {
    let limits = &run.task.limits;
    let mut confinement =
        Confinement { network: machine.network && !run.task.network, ..machine.clone() };
    if let Some(user) = confinement.user.filter(|_| !confinement.filesystem) {
        check_reachable(run.directory.path(), user)?;
    }
    let fault = |error: io::Error| unavailable(run.directory.path(), &error);
    let (output, writer) = io::pipe().map_err(fault)?;
    rustix::io::ioctl_fionbio(&output, true).map_err(|error| fault(error.into()))?;
    let name = run.directory.path().file_name().unwrap_or_default().to_string_lossy();
    let group = (machine.limits == Enforced::Together)
        .then(|| Group::create(limits, &name, confinement.helpers()))
        .flatten();
    confinement.limits = match &group {
        Some(_) => Enforced::Together,
        None if limits.memory.or(limits.processes).is_some() => Enforced::Single,
        None => Enforced::No,
    };
    run.admit.map_or(Ok(()), |admit| admit(&confinement, None))?;

    let started = now()?;
    // the command has both ends of ours, or the log would never end
    let streams = (writer.try_clone().map_err(fault)?.into(), writer.into());
    let confine::Started { child, report } =
        confinement.start(run, group.as_ref(), streams).map_err(fault)?;
    let running = Running {
        child,
        status: None,
        home: run.directory.home(),
        contained: confinement.processes,
    };
    let mut end = running.watch(&output, log, stop).map_err(fault)?;
    let finished = now()?;
    match report.read().map_err(fault)? {
        Said::Fault(text) => return Ok(Err(text)),
        // what was not tried was found out now
        Said::Landlock(version) if confinement.landlock.is_some() => {
            confinement.landlock = Some(version);
        }
        Said::Landlock(_) | Said::Nothing => {}
    }
    confinement.tried = true;
    if matches!(end, End::Exited(_)) && group.is_some_and(|group| group.ran_out_of_memory()) {
        end = End::OutOfMemory;
    }
    Ok(Ok(Performed { end, started, finished, confinement }))
}

pub(crate) fn now() -> Result<Time, Refusal> {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Time::from_unix(elapsed.as_secs()).ok_or_else(|| {
        Refusal::new(Code::TimeUntrusted, "clock", "a year before 10000", "a later one")
    })
}

/// Refuses words that a program could not be given as they are.
pub(crate) fn check_words(task: &Task) -> Result<(), Refusal> {
    let Some(program) = task.command.first() else {
        return Err(Refusal::new(Code::GateStepMismatch, "task", "a command", "none"));
    };
    let refuse = |at: &str, expected, found: &str| {
        let found: String = found.escape_default().take(60).collect();
        Err(Refusal::new(Code::ParseFieldType, format!("task: {at}"), expected, found))
    };
    if program.contains('=') {
        return refuse("command", "a program without = in its name", program);
    }
    for (name, _) in &task.variables {
        if !may_be_set(name) {
            return refuse(
                "variables",
                "a name of letters, digits and _ other than HOME and TMPDIR",
                name,
            );
        }
    }
    let words = task.variables.iter().map(|(_, value)| value).chain(&task.command);
    match words.into_iter().find(|word| word.contains('\0')) {
        Some(word) => refuse("command and variables", "text without NUL", word),
        None => Ok(()),
    }
}

/// Whether a task may set this variable. The directories are the worker's affair: it knows its
/// processes by them.
pub(crate) fn may_be_set(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !matches!(name, "HOME" | "TMPDIR")
}

/// Refuses a working directory whose absolute path leads the other user nowhere.
fn check_reachable(path: &Path, user: User) -> Result<(), Refusal> {
    for directory in path.ancestors().skip(1) {
        let found = fs::metadata(directory).map_err(|error| unavailable(directory, &error))?;
        if found.mode() & 0o001 == 0 && found.uid() != user.uid {
            let expected = format!("a directory that user {} may pass (chmod o+x)", user.uid);
            let found = format!("mode {:o}", found.mode() & 0o7777);
            let at = directory.display().to_string();
            let refusal = Refusal::new(Code::GateUnavailable, at, expected, found);
            let advice = format!(
                "chmod o+x {}, or name another directory with --work DIR; then run the task again",
                directory.display()
            );
            return Err(refusal.advising(advice));
        }
    }
    Ok(())
}

pub(crate) fn environment<'a>(run: &'a Run<'_>) -> BTreeMap<&'a str, Cow<'a, str>> {
    let mut variables: BTreeMap<&str, Cow<'_, str>> = BTreeMap::from([
        ("PATH", "/usr/local/bin:/usr/bin:/bin".into()),
        ("HOME", run.directory.home().to_string_lossy().into_owned().into()),
        ("TMPDIR", run.directory.tmp().to_string_lossy().into_owned().into()),
        ("LANG", "C.UTF-8".into()),
        ("LC_ALL", "C.UTF-8".into()),
        ("TZ", "UTC".into()),
    ]);
    variables
        .extend(run.source_date_epoch.map(|epoch| ("SOURCE_DATE_EPOCH", epoch.to_string().into())));
    variables.extend(run.task.variables.iter().map(|(name, value)| (name.as_str(), value.into())));
    variables
}

/// What the command prints, on its way into the file.
pub(crate) struct Log<'a> {
    file: File,
    hasher: Hasher,
    buffer: Vec<u8>,
    limit: u64,
    /// How much of the limit is left; none when the file says that it ends early.
    left: Option<u64>,
    live: Lines<'a>,
}

impl<'a> Log<'a> {
    pub(crate) fn create(run: &Run<'_>, live: &'a mut dyn FnMut(&[u8])) -> io::Result<Self> {
        Ok(Self {
            file: OpenOptions::new().write(true).create_new(true).mode(0o600).open(run.log)?,
            hasher: Hasher::new(run.task.sha512),
            buffer: vec![0; CHUNK],
            limit: run.log_limit,
            left: Some(run.log_limit),
            live: Lines::new(live),
        })
    }

    /// Takes what is there, at most one buffer full: how much that was, 0 at the end, or none if
    /// there is nothing now. What is over the limit is read all the same, so that the command does
    /// not wait for ever.
    pub(crate) fn take(&mut self, mut output: &PipeReader) -> io::Result<Option<usize>> {
        let length = match output.read(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if is_transient(&error) => {
                self.idle();
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let buffer = std::mem::take(&mut self.buffer);
        let kept = self.keep(&buffer[..length]);
        self.buffer = buffer;
        kept.map(|()| Some(length))
    }

    /// There is nothing to take now.
    pub(crate) fn idle(&mut self) {
        self.live.idle();
    }

    /// Takes these bytes.
    pub(crate) fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(left) = self.left {
            let length = bytes.len();
            let fits = usize::try_from(left).map_or(length, |left| length.min(left));
            let kept = &bytes[..fits];
            self.live.take(kept);
            self.hasher.update(kept);
            self.file.write_all(kept)?;
            self.left = if fits < length { None } else { Some(left - fits as u64) };
            if self.left.is_none() {
                let mark =
                    format!("\n[custody: more than {} bytes, the rest is not kept]\n", self.limit);
                self.hasher.update(mark.as_bytes());
                self.file.write_all(mark.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Its digests and its size.
    pub(crate) fn finish(self) -> (Digests, u64) {
        self.hasher.finish()
    }
}

pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The processes of a run. None of them outlives this value.
struct Running {
    /// The first process, the leader of the group.
    child: Child,
    /// Its status, when it has ended and no other is left.
    status: Option<ExitStatus>,
    home: PathBuf,
    /// Whether the others end with the first one inside.
    contained: bool,
}

impl Running {
    fn watch(
        mut self,
        output: &PipeReader,
        log: &mut Log<'_>,
        stop: &dyn Fn() -> Option<End>,
    ) -> io::Result<End> {
        let (mut stopped, mut open) = (None, true);
        while !processes::has_ended(&self.child)? {
            if open {
                wait_for(output)?;
                open = log.take(output)? != Some(0);
            } else {
                thread::sleep(TICK / 10);
            }
            stopped = stopped.or_else(stop);
            if stopped.is_some() {
                self.kill();
            }
        }
        let status = self.clear()?;
        while log.take(output)?.is_some_and(|length| length > 0) {}
        Ok(stopped.unwrap_or(End::Exited(status)))
    }

    /// Kills what is known of the run. The first process is left alone as long as there is one in
    /// it: it waits until all that are contained have ended.
    fn kill(&mut self) {
        let inner = if self.contained { processes::children(&self.child) } else { Vec::new() };
        if inner.is_empty() {
            processes::kill_group(&self.child);
        }
        inner.into_iter().for_each(processes::kill);
    }

    /// Makes sure that nobody is left after the first process has ended.
    fn clear(&mut self) -> io::Result<ExitStatus> {
        processes::kill_group(&self.child);
        let status = self.child.wait()?;
        // a first process that was killed from outside did not wait for those in it
        if !self.contained || status.signal().is_some() {
            processes::kill_strays(&self.home)?;
        }
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        while self.status.is_none() && !processes::has_ended(&self.child).unwrap_or(true) {
            self.kill();
            thread::sleep(TICK / 10);
        }
        if self.status.is_none() {
            // there is nobody to tell, and the run has failed already
            drop(self.clear());
        }
    }
}

fn wait_for(output: &PipeReader) -> io::Result<()> {
    let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
