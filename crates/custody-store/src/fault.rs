//! What can go wrong below, as the four codes that the store answers with.

use std::fmt::Display;
use std::io;
use std::path::Path;

use custody_core::{Code, Refusal};
use rusqlite::{ErrorCode, ffi};

/// Why a piece of work in the database ended.
pub(crate) enum Fault {
    Database(rusqlite::Error),
    Refused(Refusal),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Refused(refusal) => refusal,
            Fault::Database(error) => {
                let (code, expected) = judge(&error);
                Self::new(code, "custody.sqlite", expected, error.to_string())
            }
        }
    }
}

/// Whatever is neither contention nor a failed write means that the file is not what we wrote.
fn judge(error: &rusqlite::Error) -> (Code, &'static str) {
    let full = (Code::StoreFull, "room, and leave to write");
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (Code::StoreLocked, "no other writer")
        }
        Some(
            ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::OutOfMemory,
        ) => full,
        Some(ErrorCode::SystemIoFailure) if !failed_reading(error) => full,
        _ => (Code::StoreCorrupt, "an undamaged database"),
    }
}

fn failed_reading(error: &rusqlite::Error) -> bool {
    let reading = [
        ffi::SQLITE_IOERR_READ,
        ffi::SQLITE_IOERR_SHORT_READ,
        ffi::SQLITE_IOERR_CORRUPTFS,
        ffi::SQLITE_IOERR_DATA,
    ];
    error.sqlite_extended_error_code().is_some_and(|code| reading.contains(&code))
}

/// Damage found by our own checks.
pub(crate) fn corrupt(
    at: impl Display,
    expected: impl Into<String>,
    found: impl Into<String>,
) -> Refusal {
    Refusal::new(Code::StoreCorrupt, at.to_string(), expected, found)
}

/// A failure of the file system. A reader may hand its own [`Refusal`] through an [`io::Error`].
pub(crate) fn failed(at: &Path, error: io::Error) -> Refusal {
    error.downcast().unwrap_or_else(|error| {
        let expected = "a disk that works, room on it, and leave to use it";
        Refusal::new(Code::StoreFull, at.display().to_string(), expected, error.to_string())
    })
}
