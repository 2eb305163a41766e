//! One directory: how it is made, opened and shared.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use custody_core::digest::Hasher;
use custody_core::{Code, Refusal};
use rusqlite::{
    Connection, MAIN_DB, OpenFlags, Transaction, TransactionBehavior, config::DbConfig,
};

use crate::durable::sync_directory;
use crate::fault::{Fault, corrupt, failed};
use crate::lock::Lock;
use crate::{generation, trust};

const DATABASE: &str = "custody.sqlite";
/// "CUST", where SQLite keeps the kind of a file.
const APPLICATION_ID: i32 = 0x4355_5354;
/// Version of the schema. Another one is refused until there is a migration.
const SCHEMA_VERSION: i32 = 3;
/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Evidence and artifacts in one directory. Threads may share a `Store`, and processes a directory.
///
/// ```text
/// STORE/custody.sqlite            envelopes, indexes, trust, runs
/// STORE/generation                how often the database changed
/// STORE/artifacts/sha256/ab/cd…   artifacts by content, mode 0444
/// STORE/runs/                     one lock per running task
/// STORE/tmp/                      files that are being written
/// ```
pub struct Store {
    dir: PathBuf,
    connection: Mutex<Connection>,
    /// `tmp/`, as long as the store is in use.
    _presence: Lock,
    /// The same. None after its file system failed to write.
    pub(crate) file_system: Mutex<Option<File>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Store {
    /// Makes a store and opens it. One whose making was interrupted is completed, and one that is
    /// there already is opened as it is. Durable when it returns.
    pub fn create(dir: &Path) -> Result<Self, Refusal> {
        let made = ["artifacts/sha256", "runs", "tmp"].map(|name| dir.join(name));
        for path in &made {
            fs::create_dir_all(path).map_err(|error| failed(path, error))?;
        }
        make_database(dir).map_err(|fault| Refusal::from(fault).within(&shown(dir)))?;
        let parent = dir.canonicalize().ok().and_then(|dir| dir.parent().map(Path::to_owned));
        for path in [Some(dir.join("artifacts")), Some(dir.to_owned()), parent].iter().flatten() {
            sync_directory(path).map_err(|error| failed(path, error))?;
        }
        Self::open(dir)
    }

    /// Opens a store that is there. Nothing is made in place of what is missing.
    pub fn open(dir: &Path) -> Result<Self, Refusal> {
        let path = dir.join(DATABASE);
        if !path.is_file() {
            return Err(corrupt(path.display(), "a store that custody made", "no such file"));
        }
        // read first: another process may change both in between
        let witnessed = generation::witnessed(dir)?;
        let connection = open_database(&path)
            .and_then(|database| generation::check(dir, &database, witnessed).map(|()| database))
            .map_err(|fault| Refusal::from(fault).within(&shown(dir)))?;
        let tmp = dir.join("tmp");
        let (presence, file_system) = enter(&tmp)
            .and_then(|presence| presence.try_clone().map(|same| (presence, same)))
            .map_err(|error| failed(&tmp, error))?;
        Ok(Self {
            dir: dir.to_owned(),
            connection: Mutex::new(connection),
            _presence: presence,
            file_system: Mutex::new(Some(file_system)),
        })
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.dir
    }

    /// Reads in one snapshot.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        self.transact(TransactionBehavior::Deferred, work)
    }

    /// Writes all or nothing; durable when it returns. Waits for another writer, then gives up with
    /// [`Code::StoreLocked`].
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        let (value, generation) = self.transact(TransactionBehavior::Immediate, |db| {
            let before = db.total_changes();
            let value = work(db)?;
            let changed = db.total_changes() != before;
            Ok((value, changed.then(|| generation::count(db)).transpose()?))
        })?;
        generation.map(|generation| generation::raise(&self.dir, generation)).transpose()?;
        Ok(value)
    }

    fn transact<T>(
        &self,
        behavior: TransactionBehavior,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
    ) -> Result<T, Refusal> {
        // a thread that panicked rolled its transaction back: the connection is sound
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let done = connection.transaction_with_behavior(behavior).map_err(Fault::from).and_then(
            |transaction| {
                let value = work(&transaction)?;
                transaction.commit()?;
                Ok(value)
            },
        );
        done.map_err(|fault| Refusal::from(fault).within(&shown(&self.dir)))
    }
}

fn shown(dir: &Path) -> String {
    format!("store {}", dir.display())
}

fn make_database(dir: &Path) -> Result<(), Fault> {
    let mut connection = Connection::open(dir.join(DATABASE))?;
    set_up(&connection)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let objects: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if objects == 0 {
        transaction.execute_batch(include_str!("schema.sql"))?;
        trust::insert_row(&transaction)?;
        generation::insert_row(&transaction)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    transaction.commit()?;
    generation::begin(dir, &connection)
}

fn set_up(connection: &Connection) -> Result<(), Fault> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // most of a large release's indexes, in KiB; it is taken up only as pages are read
    connection.pragma_update(None, "cache_size", -32_768)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(())
}

fn open_database(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    set_up(&connection)?;
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let found = (number("application_id")?, number("user_version")?);
    if found != (APPLICATION_ID, SCHEMA_VERSION) {
        let expected = format!("a custody store of schema {SCHEMA_VERSION}");
        let (application, version) = found;
        return Err(corrupt(
            DATABASE,
            expected,
            format!("application {application:#x}, schema {version}"),
        )
        .into());
    }
    let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    if mode != "wal" {
        return Err(corrupt(DATABASE, "journal mode wal", mode).into());
    }
    if connection.is_readonly(MAIN_DB)? {
        return Err(Refusal::new(
            Code::StoreFull,
            DATABASE,
            "leave to write",
            "a file that is read-only here",
        )
        .into());
    }
    Ok(connection)
}

/// Takes a share in `tmp/`. Whoever comes while nobody has one clears away what killed processes left.
fn enter(tmp: &Path) -> std::io::Result<Lock> {
    let Some(alone) = Lock::alone(File::open(tmp)?)? else {
        return Lock::shared(File::open(tmp)?);
    };
    for entry in fs::read_dir(tmp)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    alone.share()
}

/// A checksum over parts, each with its length. It finds damage; it does not stop a forger.
pub(crate) fn seal(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Hasher::new(false);
    for part in parts {
        hasher.update(&part.len().to_le_bytes());
        hasher.update(part);
    }
    *hasher.finish().0.sha256.as_bytes()
}
