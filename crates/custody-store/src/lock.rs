//! Locks that end with whoever holds them.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::Deref;

/// A lock on an open file (`flock(2)`): it ends with this value or with the process, whichever is
/// first.
///
/// It is taken off, not left to the closing of the file. A process that another thread is starting
/// has every open file too until it runs its program, and a lock lives as long as any of them.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Alone, unless somebody else has it.
    pub(crate) fn alone(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Together with others; waits for somebody who has it alone.
    pub(crate) fn shared(file: File) -> io::Result<Self> {
        file.lock_shared()?;
        Ok(Self(file))
    }

    /// Lets others in.
    pub(crate) fn share(self) -> io::Result<Self> {
        self.0.lock_shared()?;
        Ok(self)
    }
}

impl Deref for Lock {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // where it cannot be taken off, closing the file does it
        self.0.unlock().unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_open_file_does_not_keep_the_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let lock = Lock::alone(file.reopen().unwrap()).unwrap().unwrap();
        let inherited = lock.try_clone().unwrap();
        assert!(Lock::alone(file.reopen().unwrap()).unwrap().is_none());
        drop(lock);
        assert!(Lock::alone(file.reopen().unwrap()).unwrap().is_some());
        drop(inherited);
    }
}
