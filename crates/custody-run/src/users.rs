//! The users as whom commands run, each for one run at a time.
//!
//! Two commands of one user could rewrite each other's inputs and outputs. So every user of the pool
//! is locked, for all workers of the machine, as long as a run has it; the operating system lets go
//! of the lock with the process.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use custody_core::{Code, Refusal};

use crate::execute::{Confinement, Confiner, User};

/// Where the locks lie: a directory of root's that is empty after a start of the machine.
const LOCKS: &str = "/run/custody";

/// How often a run that waits for a user looks again.
const PAUSE: Duration = Duration::from_millis(20);

/// The users of a worker.
#[derive(Clone, Debug)]
pub struct Users(Vec<Confinement>);

/// The right to run commands as one user, for as long as this value lives.
#[derive(Debug)]
#[must_use = "the right to use the user ends with this value"]
pub struct Turn {
    confinement: Confinement,
    _lock: Option<File>,
}

impl Turn {
    /// What keeps the command apart, this user included.
    pub const fn confinement(&self) -> &Confinement {
        &self.confinement
    }
}

impl Users {
    /// The users whom this worker may choose from. Without any, commands run as the worker's own; with
    /// some, it must be root.
    pub fn new(confiner: &Confiner, users: &[User]) -> Result<Self, Refusal> {
        let Some(first) = users.first() else {
            return Ok(Self(vec![Confinement::full(confiner, None)]));
        };
        if !rustix::process::geteuid().is_root() {
            let expected = format!("to run commands as user {} (needs root)", first.uid);
            let found = "another user than root";
            let refusal = Refusal::new(Code::GateUnavailable, "worker", expected, found);
            return Err(refusal.advising("start the worker as root, or leave out --user"));
        }
        Ok(Self(users.iter().map(|user| Confinement::full(confiner, Some(*user))).collect()))
    }

    /// Takes the first user that nobody runs commands as; waits for one unless `cancelled`.
    pub fn take(&self, cancelled: &AtomicBool) -> Result<Turn, Refusal> {
        let fault = |error: io::Error| {
            Refusal::new(Code::GateUnavailable, LOCKS, "a lock on a user", error.to_string())
        };
        while !cancelled.load(Ordering::Relaxed) {
            for confinement in &self.0 {
                let Some(user) = confinement.user else {
                    return Ok(Turn { confinement: confinement.clone(), _lock: None });
                };
                if let Some(lock) = lock(user).map_err(fault)? {
                    return Ok(Turn { confinement: confinement.clone(), _lock: Some(lock) });
                }
            }
            std::thread::sleep(PAUSE);
        }
        let refusal = Refusal::new(Code::GateUnavailable, "the run", "a free user", "interrupted");
        Err(refusal.advising("wait for the other runs, or give more users: --user UID:GID"))
    }
}

fn lock(user: User) -> io::Result<Option<File>> {
    let directory = Path::new(LOCKS);
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let path = directory.join(format!("user-{}", user.uid));
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
