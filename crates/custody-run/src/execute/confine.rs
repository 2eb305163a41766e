//! What keeps a command apart from the worker and from the rest of the machine.
//!
//! Namespaces, sessions and rights are changed by programs of util-linux that then become the
//! command: between fork and exec, the language lets us do nothing safely. Where a program or a
//! right is missing the command runs without, and the worker's manifest says so.

use std::io;
use std::process::{Child, Command, Stdio};

use custody_core::{Code, Refusal};

/// Where the programs of the system are; the task has no say in it.
pub(super) const PATH: &str = "/usr/bin:/bin";

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

/// What keeps a command apart: as this machine can, or as was done in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each of them may be had without the others")]
pub struct Confinement {
    /// In a session of its own, it reaches no terminal.
    pub session: bool,
    /// It can gain no rights through programs (`no_new_privs`), and it dies with the worker.
    pub privileges: bool,
    /// It sees only its own processes, and none of them outlives the first (a PID namespace). That
    /// first one is the command, as process 1: signals that it sends itself and does not handle are
    /// lost.
    pub processes: bool,
    /// It has no network.
    pub network: bool,
    /// It runs as this user. Tasks that run at the same time should have different ones.
    pub user: Option<User>,
}

impl Confinement {
    /// Finds out what this machine can do, by trying. Another user is not left to chance: where
    /// that does not work (it takes root), the answer is [`Code::GateUnavailable`].
    pub fn probe(user: Option<User>) -> Result<Self, Refusal> {
        let only = Self::default();
        let identity = Self { privileges: true, user, ..only };
        // all at once: each takes a few milliseconds
        let session = Self { session: true, ..only }.attempt();
        let privileges = identity.attempt();
        let processes = Self { processes: true, ..only }.attempt();
        let network = Self { network: true, ..only }.attempt();
        let able = Self {
            session: has_worked(session),
            privileges: has_worked(privileges),
            processes: has_worked(processes),
            network: has_worked(network),
            user,
        };
        match user {
            Some(User { uid, .. }) if !able.privileges => Err(Refusal::new(
                Code::GateUnavailable,
                "worker",
                format!("to run commands as user {uid} (needs root, and setpriv of util-linux)"),
                "that it does not work",
            )),
            _ => Ok(able),
        }
    }

    /// The words that stand before a command and put it into this confinement.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut add = |more: &[&str]| words.extend(more.iter().map(|&word| word.to_owned()));
        if self.session {
            add(&["setsid", "--"]);
        }
        if self.processes || self.network {
            if self.privileges {
                // unshare dies with the worker, and what is in the namespace with unshare
                add(&["setpriv", "--pdeathsig", "KILL", "--"]);
            }
            add(&["unshare"]);
            if !rustix::process::geteuid().is_root() {
                add(&["--user", "--map-current-user"]);
            }
            if self.network {
                add(&["--net"]);
            }
            if self.processes {
                add(&["--pid", "--fork", "--mount-proc", "--kill-child=KILL"]);
            }
            add(&["--"]);
        }
        if self.privileges {
            add(&["setpriv", "--no-new-privs", "--pdeathsig", "KILL"]);
            if let Some(User { uid, gid }) = self.user {
                let (uid, gid) = (uid.to_string(), gid.to_string());
                add(&["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
            }
            add(&["--"]);
        }
        words
    }

    fn attempt(&self) -> io::Result<Child> {
        let mut words = self.words().into_iter();
        Command::new(words.next().unwrap_or_default())
            .args(words)
            .arg("true")
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }
}

fn has_worked(attempt: io::Result<Child>) -> bool {
    attempt.and_then(|mut child| child.wait()).is_ok_and(|status| status.success())
}
