//! What keeps a command apart from the worker and from the rest of the machine.
//!
//! It is done by a program of our own, see [`confiner`](crate::confiner). Where the system lacks what is
//! needed the command runs without, and the worker's manifest says so.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use custody_core::{Code, Refusal};
use rustix::fs::MemfdFlags;

use super::Run;
use super::group::Group;
use crate::confiner::{Flags, Plan, TRIAL, VERB};

/// A user without name, known by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The id of the only group.
    pub gid: u32,
}

impl User {
    /// The worker's own.
    pub fn own() -> Self {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        Self { uid: uid.as_raw(), gid: gid.as_raw() }
    }
}

/// How commands of this worker are kept apart, whatever the machine can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confiner {
    /// The program that is [`confiner::main`](crate::confiner::main) when its first argument is
    /// [`VERB`].
    pub program: PathBuf,
    /// Files and directories that no command may see, like the worker's keys and store: absolute, and
    /// without links. They need not be named where no command sees them anyway.
    pub hidden: Vec<PathBuf>,
    /// Files and directories that commands may read beside the system, like a product's signing key:
    /// absolute, and without links.
    pub lent: Vec<PathBuf>,
    /// Directories that commands may read and write beside their own: absolute, and without links.
    pub shared: Vec<PathBuf>,
}

/// What keeps a command apart: as this machine can, or as was done in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each of them may be had without most others")]
pub struct Confinement {
    /// In a session of its own, it reaches no terminal.
    pub session: bool,
    /// It has no capabilities, can gain no rights through programs (`no_new_privs`), and dies with the
    /// worker.
    pub privileges: bool,
    /// It sees only its own processes, and none of them outlives it (a PID namespace, with one for
    /// System V IPC and host names).
    pub processes: bool,
    /// It has no network.
    pub network: bool,
    /// It sees the system, its working directory, and nothing else (a mount namespace). Only together
    /// with [`Self::processes`].
    pub filesystem: bool,
    /// It reaches no other files, and no sockets without a name, says Landlock of this version. Only
    /// together with [`Self::privileges`].
    pub landlock: Option<u32>,
    /// By what the limits of a task hold: at best, or in this run.
    pub limits: Enforced,
    /// It runs as this user. Tasks that run at the same time should have different ones.
    pub user: Option<User>,
    /// What does all this.
    pub confiner: Confiner,
    /// Whether this is known to work here.
    pub tried: bool,
}

/// By what limits on memory and processes hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Enforced {
    /// The task has none.
    #[default]
    No,
    /// Memory for each process, and the processes of the user.
    Single,
    /// All processes of the command together (control groups).
    Together,
}

impl Confinement {
    /// All that there is. The first run finds out whether this machine can do it.
    pub fn full(confiner: &Confiner, user: Option<User>) -> Self {
        Self {
            session: true,
            privileges: true,
            processes: true,
            network: true,
            filesystem: true,
            landlock: Some(0),
            limits: Enforced::Together,
            user,
            confiner: confiner.clone(),
            tried: false,
        }
    }

    /// Finds out what this machine can do, by trying. Another user is not left to chance: where
    /// that does not work (it takes root), the answer is [`Code::GateUnavailable`].
    pub fn probe(confiner: &Confiner, user: Option<User>) -> Result<Self, Refusal> {
        let full = Self { tried: true, ..Self::full(confiner, user) };
        let only = Self { confiner: confiner.clone(), tried: true, ..Self::default() };
        let identity = Self { privileges: true, user, ..only.clone() };
        let works = |confinement: &Self| confinement.attempt().is_some();
        let landlock = |confinement: &Self| confinement.attempt().filter(|&version| version > 0);
        if let Some(version) = landlock(&full) {
            return Ok(Self { landlock: Some(version), ..full });
        }
        let Some(_) = identity.attempt() else {
            let expected = match user {
                Some(User { uid, .. }) => format!("to run commands as user {uid} (needs root)"),
                None => format!("to start {}", confiner.program.display()),
            };
            let found = "that it does not work";
            let refusal = Refusal::new(Code::GateUnavailable, "worker", expected, found);
            let advice = "start the worker as root, or leave out --user; then run the task again";
            return Err(refusal.advising(advice));
        };
        let processes = Self { processes: true, ..only.clone() };
        let filesystem = Self { filesystem: true, ..processes.clone() };
        Ok(Self {
            session: works(&Self { session: true, ..only.clone() }),
            processes: works(&processes),
            network: works(&Self { network: true, ..only.clone() }),
            filesystem: works(&filesystem),
            landlock: landlock(&Self { landlock: Some(0), ..identity.clone() }),
            limits: full.limits,
            ..identity
        })
    }

    /// Whether the command is in a sandbox: it changes nothing but what is its own, and reaches nothing
    /// else but what it was lent.
    pub const fn is_sandbox(&self) -> bool {
        self.filesystem && self.processes && self.privileges && self.confiner.shared.is_empty()
    }

    /// Starts the command of a run, with this as its output.
    pub(super) fn start(
        &self,
        run: &Run<'_>,
        group: Option<&Group>,
        output: (Stdio, Stdio),
    ) -> io::Result<Started> {
        let mut plan = self.plan(run.directory.path().to_owned());
        let owned = |(name, value): (&str, std::borrow::Cow<'_, str>)| {
            (name.into(), value.into_owned().into())
        };
        plan.variables = super::environment(run).into_iter().map(owned).collect();
        let Confiner { hidden, lent, shared, .. } = self.confiner.clone();
        (plan.hidden, plan.lent, plan.shared) = (hidden, lent, shared);
        plan.words = run.task.command.iter().map(OsString::from).collect();
        if let Some(group) = group {
            plan.groups = group.doors();
        } else {
            let limits = run.task.limits;
            plan.memory = limits.memory;
            plan.count = limits.processes.map(|count| count.saturating_add(self.helpers()));
        }
        self.launch(&plan, output)
    }

    /// How many processes of ours count as the command's.
    pub(super) const fn helpers(&self) -> u64 {
        if self.processes { 2 } else { 0 }
    }

    fn plan(&self, directory: PathBuf) -> Plan {
        Plan {
            flags: Flags {
                session: self.session,
                privileges: self.privileges,
                processes: self.processes,
                network: self.network,
                filesystem: self.filesystem,
                landlock: self.landlock.is_some(),
            },
            worker: rustix::process::getpid().as_raw_pid(),
            user: self.user,
            directory,
            ..Plan::default()
        }
    }

    fn launch(&self, plan: &Plan, (stdout, stderr): (Stdio, Stdio)) -> io::Result<Started> {
        let bytes = plan.write();
        let mut file = File::from(rustix::fs::memfd_create("custody", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        let mut command = Command::new(&self.confiner.program);
        command.arg0("custody").arg(VERB).env_clear();
        command.stdin(file.try_clone()?).stdout(stdout).stderr(stderr);
        if !self.session {
            command.process_group(0);
        }
        Ok(Started { child: command.spawn()?, report: Report { file, place: bytes.len() } })
    }

    /// Does all this for no command: gives the version of Landlock, or 0 without, or none if not all of
    /// it could be done.
    fn attempt(&self) -> Option<u32> {
        let plan = self.plan(if self.filesystem { TRIAL } else { "/" }.into());
        let mut started = self.launch(&plan, (Stdio::null(), Stdio::null())).ok()?;
        started.child.wait().ok()?;
        match started.report.read().ok()? {
            Said::Landlock(version) => Some(version),
            Said::Fault(_) | Said::Nothing => None,
        }
    }
}

/// A command that the confiner was asked to run.
pub(super) struct Started {
    /// The process that is the command, or waits for it.
    pub(super) child: Child,
    pub(super) report: Report,
}

/// Where the confiner speaks.
pub(super) struct Report {
    file: File,
    place: usize,
}

/// What the confiner says.
pub(super) enum Said {
    /// It was ended before it was done.
    Nothing,
    /// All was done, with this version of Landlock, or 0 without.
    Landlock(u32),
    /// Why there was no command.
    Fault(String),
}

impl Report {
    pub(super) fn read(&self) -> io::Result<Said> {
        let length = usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?;
        let mut bytes = vec![0; length.saturating_sub(self.place)];
        self.file.read_exact_at(&mut bytes, self.place.try_into().map_err(io::Error::other)?)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok(match text.parse() {
            Ok(version) => Said::Landlock(version),
            Err(_) if text.is_empty() => Said::Nothing,
            Err(_) => Said::Fault(text),
        })
    }
}
