//! One task, one run: who holds a task now, and which were ended here.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::{Code, Refusal};
use rusqlite::{OptionalExtension, Row, Transaction, params};

use crate::evidence::{Added, Entry, add_one};
use crate::fault::{Fault, corrupt, failed};
use crate::index::Relation;
use crate::lock::Lock;
use crate::store::{Store, seal};

/// A task that was begun here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The task.
    pub task: StatementId,
    /// Who began it last.
    pub who: String,
    /// The manifest that ended it.
    pub manifest: Option<StatementId>,
}

/// How a task is claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// One machine does it, once.
    Whole,
    /// Several machines do it, each for itself. Whether one has done its part, the evidence says: a person
    /// may have set its result aside.
    Part,
}

/// The exclusive right to run one task, or one machine's part of it. It ends with this value or with the process, whichever is
/// first: the operating system holds it, as a lock on a file (`flock(2)`), which unlike a recorded
/// process id also tells the living from the dead across containers.
#[derive(Debug)]
#[must_use = "the right to run the task ends with this value"]
pub struct Claim {
    task: StatementId,
    who: String,
    share: Share,
    interrupted: Option<String>,
    path: PathBuf,
    _lock: Lock,
}

impl Claim {
    /// The task.
    pub const fn task(&self) -> StatementId {
        self.task
    }

    /// Who began the task before and did not end it. Whether an irrevocable act was under way then,
    /// the intents in the evidence say.
    pub fn interrupted(&self) -> Option<&str> {
        self.interrupted.as_deref()
    }
}

impl Store {
    /// Claims a task. [`Code::StoreLocked`] while somebody runs it, [`Code::GateAlreadyExecuted`]
    /// once it was ended here as a whole. That it was begun is durable when this returns.
    pub fn begin_run(&self, task: StatementId, who: &str, share: Share) -> Result<Claim, Refusal> {
        let name = match share {
            Share::Whole => task.to_string(),
            // a name is no file name
            Share::Part => format!("{task}-{}", Sha256::of(who.as_bytes())),
        };
        let path = self.directory().join("runs").join(name);
        let Some(lock) = lock(&path).map_err(|error| failed(&path, error))? else {
            let whole = (share == Share::Whole).then(|| self.run(task)).transpose()?.flatten();
            let holder = match (share, whole) {
                (Share::Part, _) => who.to_owned(),
                (Share::Whole, Some(run)) => run.who,
                (Share::Whole, None) => "another process".to_owned(),
            };
            return Err(Refusal::new(
                Code::StoreLocked,
                format!("task {task}"),
                "nobody running it",
                holder,
            ));
        };
        let interrupted = self.write(|db| {
            let before = match share {
                Share::Whole => undone(db, task)?,
                Share::Part => part(db, task, who)?.filter(|run| run.manifest.is_none()),
            };
            if let Some(run) = &before {
                db.prepare_cached("DELETE FROM run WHERE task = ? AND who = ?")?
                    .execute(params![task.0.as_bytes(), run.who])?;
            }
            save(db, &Run { task, who: who.to_owned(), manifest: None })?;
            Ok(before.map(|run| run.who))
        })?;
        Ok(Claim { task, who: who.to_owned(), share, interrupted, path, _lock: lock })
    }

    /// Ends a run: its manifest is added to the evidence and the task counts as done, both or
    /// neither. Durable when it returns. After a refusal the claim still holds.
    pub fn finish_run(&self, claim: &Claim, manifest: &Envelope) -> Result<(), Refusal> {
        let entry = Entry::of(manifest)?;
        if !entry.names(Relation::ManifestTask, claim.task) {
            let at = format!("manifest {}", manifest.id());
            let expected = format!("a manifest of task {}", claim.task);
            return Err(Refusal::new(Code::ChainTaskMismatch, at, expected, "none"));
        }
        self.write(|db| {
            let run = match claim.share {
                Share::Whole => undone(db, claim.task)?,
                Share::Part => part(db, claim.task, &claim.who)?,
            };
            let run = run.ok_or_else(|| {
                corrupt(format_args!("run of task {}", claim.task), "the run", "nothing")
            })?;
            add_one(db, &entry, &mut Added::default())?;
            save(db, &Run { manifest: Some(manifest.id()), ..run })
        })?;
        fs::remove_file(&claim.path).map_err(|error| failed(&claim.path, error))
    }

    /// The run of this task, if it was begun here; where several machines do it, that of one of them.
    pub fn run(&self, task: StatementId) -> Result<Option<Run>, Refusal> {
        self.read(|db| load(db, task))
    }

    /// This machine's run of the task, if it was begun here.
    pub fn run_of(&self, task: StatementId, who: &str) -> Result<Option<Run>, Refusal> {
        self.read(|db| part(db, task, who))
    }

    /// All tasks that were begun here, by task id.
    pub fn runs(&self) -> Result<Vec<Run>, Refusal> {
        self.read(|db| {
            let mut query =
                db.prepare_cached("SELECT task, who, manifest, seal FROM run ORDER BY task, who")?;
            let runs = query.query_map([], read)?;
            runs.map(|run| checked(run?)).collect()
        })
    }
}

/// The run of a task that is not done.
fn undone(db: &Transaction<'_>, task: StatementId) -> Result<Option<Run>, Fault> {
    let run = load(db, task)?;
    match run.as_ref().and_then(|run| run.manifest) {
        None => Ok(run),
        Some(manifest) => {
            let (at, found) = (format!("task {task}"), format!("manifest {manifest}"));
            let refusal = Refusal::new(Code::GateAlreadyExecuted, at, "a task not yet done", found);
            Err(refusal.advising(format!("look at what it made: custody show {manifest}")).into())
        }
    }
}

/// The lock at this path, unless another process has it.
fn lock(path: &Path) -> io::Result<Option<Lock>> {
    loop {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match Lock::alone(file)? {
            None => return Ok(None),
            // who finished before us removed the file under the lock: it excludes nobody any more
            Some(lock) if lock.metadata()?.nlink() == 0 => {}
            Some(lock) => return Ok(Some(lock)),
        }
    }
}

fn sealed(run: &Run) -> [u8; 32] {
    let manifest = run.manifest.map(|id| id.to_string()).unwrap_or_default();
    seal(&[run.task.0.as_bytes(), run.who.as_bytes(), manifest.as_bytes()])
}

fn save(db: &Transaction<'_>, run: &Run) -> Result<(), Fault> {
    let manifest = run.manifest.map(|id| *id.0.as_bytes());
    db.prepare_cached(
        "INSERT OR REPLACE INTO run (task, who, manifest, seal) VALUES (?, ?, ?, ?)",
    )?
    .execute(params![run.task.0.as_bytes(), run.who, manifest, sealed(run)])?;
    Ok(())
}

fn load(db: &Transaction<'_>, task: StatementId) -> Result<Option<Run>, Fault> {
    let mut query =
        db.prepare_cached("SELECT task, who, manifest, seal FROM run WHERE task = ? ORDER BY who")?;
    query.query_row([task.0.as_bytes()], read).optional()?.map(checked).transpose()
}

fn part(db: &Transaction<'_>, task: StatementId, who: &str) -> Result<Option<Run>, Fault> {
    let mut query =
        db.prepare_cached("SELECT task, who, manifest, seal FROM run WHERE task = ? AND who = ?")?;
    let found = query.query_row(params![task.0.as_bytes(), who], read).optional()?;
    found.map(checked).transpose()
}

fn read(row: &Row<'_>) -> rusqlite::Result<(Run, [u8; 32])> {
    let id = |bytes| StatementId(Sha256::from_bytes(bytes));
    let run = Run {
        task: id(row.get(0)?),
        who: row.get(1)?,
        manifest: row.get::<_, Option<[u8; 32]>>(2)?.map(id),
    };
    Ok((run, row.get(3)?))
}

fn checked((run, seal): (Run, [u8; 32])) -> Result<Run, Fault> {
    if sealed(&run) == seal {
        return Ok(run);
    }
    Err(corrupt(format_args!("run of task {}", run.task), "the sealed row", "another one").into())
}
