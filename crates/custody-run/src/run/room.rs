//! Where a run keeps what its command must not reach.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use custody_core::envelope::StatementId;
use custody_core::{Code, Refusal};
use tempfile::TempDir;

use crate::stage::copy::unavailable;
use crate::stage::{RunDirectory, remove_all};

/// A directory for the log and for images, which commands do not reach. Who is killed
/// leaves it behind, and whoever runs the task next clears it away.
pub(super) struct Room {
    directory: TempDir,
    _lock: File,
}

impl Room {
    pub(super) fn open(work: &Path, task: StatementId) -> Result<Self, Refusal> {
        let fault = |error: std::io::Error| {
            let at = work.display().to_string();
            Refusal::new(Code::GateUnavailable, at, "a directory to work in", error.to_string())
                .advising("make it, or name another one with --work DIR; then run the task again")
        };
        let prefix = format!("custody-{}-", task.short());
        clear_away(work, &prefix).map_err(fault)?;
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir_in(work).map_err(fault)?;
        let lock = File::open(directory.path()).map_err(fault)?;
        lock.lock().map_err(fault)?;
        Ok(Self { directory, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the command works.
    pub(super) fn beside(&self) -> PathBuf {
        self.path().with_added_extension("run")
    }

    /// Removes both. Where the command worked may resist; then the room stays too, for the next run to
    /// find it by.
    pub(super) fn remove(self, directory: RunDirectory) -> Result<(), Refusal> {
        let path = self.path().to_owned();
        match directory.remove() {
            Ok(()) => self.directory.close().map_err(|error| unavailable(&path, &error)),
            Err(refusal) => {
                drop(self.directory.keep());
                Err(refusal)
            }
        }
    }
}

/// Removes the rooms of this task that belong to us and that nobody holds any more, and where a command
/// worked that had no room left.
fn clear_away(work: &Path, prefix: &str) -> std::io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let ours = |found: &std::fs::Metadata| found.is_dir() && found.uid() == own;
    for entry in work.read_dir()? {
        let (name, path) = entry.map(|entry| (entry.file_name(), entry.path()))?;
        let is_ours = path.symlink_metadata().is_ok_and(|found| ours(&found));
        if !is_ours || !name.to_str().is_some_and(|name| name.starts_with(prefix)) {
            continue;
        }
        let room = if path.extension().is_some_and(|end| end == "run") {
            path.with_extension("")
        } else {
            path
        };
        let left = match room.symlink_metadata() {
            Ok(found) => {
                ours(&found) && File::open(&room).is_ok_and(|room| room.try_lock().is_ok())
            }
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        if !left {
            continue;
        }
        // what cannot be removed is in nobody's way: the next room has another name. The room stays
        // with it, for the next to find it by
        let worked = room.with_added_extension("run");
        if !worked.exists() || remove_all(&worked).is_ok() {
            std::fs::remove_dir_all(room).unwrap_or_default();
        }
    }
    Ok(())
}
