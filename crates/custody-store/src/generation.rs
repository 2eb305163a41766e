//! How far the store has come, told twice: in the database and in a file beside it. A database that is
//! behind the file is an older copy, which does not know of withdrawals, intents and results since.
//!
//! Every transaction that changes something counts. The database is durable before the file follows, so
//! after a crash the file may lag, and it is never ahead of an honest database. It is not flushed: what
//! a power cut takes from it is seconds, and copies are older.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use custody_core::{Code, Refusal};
use rusqlite::{Connection, params};

use crate::durable::create_file;
use crate::fault::{Fault, corrupt, failed};
use crate::store::seal;

/// The file: a number of as many digits as fit it, and a line break.
fn path(store: &Path) -> PathBuf {
    store.join("generation")
}

fn text(generation: u64) -> String {
    format!("{generation:020}\n")
}

/// The number, and nothing else; somebody who restores a store knowingly may have written it.
fn read(file: &mut File) -> io::Result<Result<u64, String>> {
    let mut bytes = Vec::new();
    file.take(64).read_to_end(&mut bytes)?;
    let found = String::from_utf8_lossy(&bytes);
    let number = found.strip_suffix('\n').and_then(|digits| digits.parse().ok());
    Ok(number.ok_or_else(|| found.escape_default().to_string()))
}

/// What the file says; none if there is no file. To be read before the database: that one may be ahead.
pub(crate) fn witnessed(store: &Path) -> Result<Option<u64>, Refusal> {
    let path = path(store);
    let found = File::open(&path).and_then(|mut file| {
        // who raises it holds the lock, so that a number is read whole
        file.lock_shared()?;
        read(&mut file)
    });
    match found {
        Ok(Ok(generation)) => Ok(Some(generation)),
        Ok(Err(found)) => Err(corrupt(path.display(), "a number and a line break", found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path, error)),
    }
}

/// Refuses a database that is behind what the file said, and one whose file is gone.
pub(crate) fn check(store: &Path, db: &Connection, witnessed: Option<u64>) -> Result<(), Fault> {
    let found = load(db)?;
    if witnessed.is_some_and(|witnessed| witnessed <= found) {
        return Ok(());
    }
    let (expected, found) = witnessed.map_or_else(
        || (format!("generation {found}, as the database says"), "no such file".to_owned()),
        |witnessed| (format!("a database of generation {witnessed} or later"), found.to_string()),
    );
    let at = path(store).display().to_string();
    Err(Refusal::new(Code::StoreRollback, at, expected, found).into())
}

/// Makes the file of a new store, in which nothing has changed yet.
pub(crate) fn begin(store: &Path, db: &Connection) -> Result<(), Fault> {
    let path = path(store);
    if load(db)? > 0 {
        return Ok(());
    }
    match create_file(&path, text(0).as_bytes(), 0o644) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed(&path, error).into()),
        _ => Ok(()),
    }
}

/// Counts one more change, within its transaction.
pub(crate) fn count(db: &Connection) -> Result<u64, Fault> {
    let next = load(db)?.saturating_add(1);
    let mut update = db.prepare_cached("UPDATE generation SET count = ?, seal = ?")?;
    update.execute(params![next.cast_signed(), sealed(next)])?;
    Ok(next)
}

/// Has the file follow the database, unless another process was faster.
pub(crate) fn raise(store: &Path, generation: u64) -> Result<(), Refusal> {
    let path = path(store);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        file.lock()?;
        // the same length in the same place: it needs no room, and is there wholly or not at all
        match read(&mut file)? {
            Ok(before) if before < generation => file.write_all_at(text(generation).as_bytes(), 0),
            // what is damaged there, the next who opens the store is told
            _ => Ok(()),
        }
    };
    write().map_err(|error| failed(&path, error))
}

/// Inserts the one row into a new database.
pub(crate) fn insert_row(db: &Connection) -> Result<(), Fault> {
    db.execute("INSERT INTO generation (one, count, seal) VALUES (1, 0, ?)", [sealed(0)])?;
    Ok(())
}

fn sealed(generation: u64) -> [u8; 32] {
    seal(&[b"generation", &generation.to_le_bytes()])
}

fn load(db: &Connection) -> Result<u64, Fault> {
    let mut query = db.prepare_cached("SELECT count, seal FROM generation")?;
    let (count, found): (i64, [u8; 32]) =
        query.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let count = count.cast_unsigned();
    if sealed(count) == found {
        Ok(count)
    } else {
        Err(corrupt("generation", "the sealed row", "another one").into())
    }
}
