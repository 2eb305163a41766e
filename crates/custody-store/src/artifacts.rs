//! Artifacts: files by their SHA-256, written once, made durable one by one or many at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;

use custody_core::digest::{Digests, Hasher, Sha256};
use custody_core::{Code, Refusal};
use rustix::fs::{Mode, OFlags};
use tempfile::{NamedTempFile, TempPath};

use crate::fault::{corrupt, failed};
use crate::store::Store;

/// From so many files on, one `syncfs(2)` is cheaper than an `fsync(2)` for each: on ext4, 0.15 s for
/// 20,000 files of 8 KiB where 1,000 single ones took 0.42 s. It also writes what other programs left
/// unwritten, so it is not for a few.
const MANY: usize = 64;

/// A small file takes no more memory than it is, to a page.
const SMALLEST: usize = 4 << 10;
const LARGEST: usize = 128 << 10;

/// An artifact that is written and hashed, but neither durable nor visible before [`Store::keep`].
/// Dropped instead, it is gone.
#[derive(Debug)]
pub struct Staged {
    /// None where the store has the artifact.
    file: Option<TempPath>,
    digests: Digests,
    size: u64,
}

impl Staged {
    /// The digests of the bytes that were written.
    pub const fn digests(&self) -> &Digests {
        &self.digests
    }

    /// How many bytes were written.
    pub const fn size(&self) -> u64 {
        self.size
    }
}

impl Store {
    /// Takes in one artifact. Durable when it returns; [`stage`](Self::stage) and
    /// [`keep`](Self::keep) do the same for many.
    pub fn put_artifact(
        &self,
        from: impl Read,
        sha512: bool,
        expected: Option<&Digests>,
    ) -> Result<(Digests, u64), Refusal> {
        let staged = self.stage(from, sha512, expected)?;
        let facts = (staged.digests, staged.size);
        self.keep(vec![staged])?;
        Ok(facts)
    }

    /// Copies and hashes an artifact, with SHA-512 if `sha512` or the expected digests say so. Other
    /// bytes than expected are [`Code::ArtDigestMismatch`]. A refusal that the reader wraps in an
    /// [`io::Error`] is handed through. Threads may stage at once.
    pub fn stage(
        &self,
        mut from: impl Read,
        sha512: bool,
        expected: Option<&Digests>,
    ) -> Result<Staged, Refusal> {
        let tmp = self.directory().join("tmp");
        let io_failed = |error| failed(&tmp, error);
        let mut file = NamedTempFile::new_in(&tmp).map_err(io_failed)?;
        let mut hasher =
            Hasher::new(sha512 || expected.is_some_and(|expected| expected.sha512.is_some()));
        copy(&mut from, &mut hasher, file.as_file_mut()).map_err(io_failed)?;
        file.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(io_failed)?;
        let (digests, size) = hasher.finish();
        match expected.filter(|expected| !expected.agree(&digests)) {
            None => {
                // to replace one file by its equal costs most file systems more than to read it
                let known = self.is_intact(&digests.sha256, size);
                let file = (!known).then(|| file.into_temp_path());
                Ok(Staged { file, digests, size })
            }
            Some(expected) => Err(Refusal::new(
                Code::ArtDigestMismatch,
                "artifact",
                format!("{expected:?}"),
                format!("{digests:?}"),
            )),
        }
    }

    /// Whether the artifact is there as this store would have written it. Whatever else is at its path
    /// (a link, a pipe, something longer) is not read to its end.
    fn is_intact(&self, sha256: &Sha256, size: u64) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let path = self.artifact_path(sha256);
        let Ok(file) = rustix::fs::open(&path, flags, Mode::empty()).map(File::from) else {
            return false;
        };
        let fits = |found: &fs::Metadata| found.is_file() && found.len() == size;
        let mut hasher = Hasher::new(false);
        file.metadata().is_ok_and(|found| fits(&found))
            && copy(&mut file.take(size), &mut hasher, &mut io::sink()).is_ok()
            && hasher.finish().0.sha256 == *sha256
    }

    /// How many bytes the file system of the store still takes.
    pub fn free_bytes(&self) -> Result<u64, Refusal> {
        let found = rustix::fs::statvfs(self.directory());
        let found = found.map_err(|error| failed(self.directory(), error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Makes staged artifacts durable, then visible, and their names durable. One that was damaged is
    /// replaced.
    pub fn keep(&self, staged: Vec<Staged>) -> Result<(), Refusal> {
        // what is known may be from somebody who has not made it durable yet
        let mut directories = BTreeSet::from([self.directory().join("artifacts/sha256")]);
        let mut known = Vec::new();
        let mut fresh = BTreeMap::new();
        for staged in staged {
            let path = self.artifact_path(&staged.digests.sha256);
            directories.extend(path.parent().map(Path::to_owned));
            match staged.file {
                // of equals one, and the others are gone before the disk has written them
                Some(file) => drop(fresh.entry(path).or_insert(file)),
                None => known.push(path),
            }
        }
        let files = fresh.values().map(|file| &**file).chain(known.iter().map(PathBuf::as_path));
        self.sync(&files.collect::<Vec<_>>())?;
        for directory in &directories {
            match fs::create_dir(directory) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                    return Err(failed(directory, error));
                }
                _ => {}
            }
        }
        for (path, file) in fresh {
            file.persist(&path).map_err(|error| failed(&path, error.error))?;
        }
        self.sync(&directories.iter().map(PathBuf::as_path).collect::<Vec<_>>())
    }

    /// Where an artifact is, or would be.
    pub fn artifact_path(&self, sha256: &Sha256) -> PathBuf {
        let digits = sha256.to_string();
        let (directory, name) = digits.split_at(2);
        self.directory().join("artifacts/sha256").join(directory).join(name)
    }

    /// Whether an artifact is there; its bytes are not looked at.
    pub fn has_artifact(&self, sha256: &Sha256) -> bool {
        self.artifact_path(sha256).is_file()
    }

    /// An artifact for reading, unchecked: whoever reads must hash what is read.
    pub fn open_artifact(&self, sha256: &Sha256) -> Result<File, Refusal> {
        let path = self.artifact_path(sha256);
        File::open(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Refusal::new(
                Code::ArtMissing,
                format!("artifact {sha256}"),
                "a file of the store",
                "nothing",
            ),
            _ => failed(&path, error),
        })
    }

    /// Copies an artifact while hashing it, and gives its size. After a refusal, what was written is
    /// to be thrown away: [`Code::StoreCorrupt`] says that it is not the artifact.
    pub fn copy_artifact(&self, sha256: &Sha256, mut to: impl Write) -> Result<u64, Refusal> {
        let mut hasher = Hasher::new(false);
        let at = self.artifact_path(sha256);
        copy(&mut self.open_artifact(sha256)?, &mut hasher, &mut to)
            .map_err(|error| failed(&at, error))?;
        match hasher.finish() {
            (digests, size) if digests.sha256 == *sha256 => Ok(size),
            (digests, _) => {
                Err(corrupt(at.display(), sha256.to_string(), digests.sha256.to_string()))
            }
        }
    }

    /// Makes files or directories durable.
    ///
    /// An error of `syncfs` is told once per open file and then forgotten by the kernel, so the one
    /// that is open since before the first write is used by one thread at a time and, after an
    /// error, never again: a failed sync is not retried as a success.
    fn sync(&self, paths: &[&Path]) -> Result<(), Refusal> {
        let mut file_system = self.file_system.lock().unwrap_or_else(PoisonError::into_inner);
        let each = || {
            let sync = |path: &&Path| {
                File::open(path).and_then(|file| file.sync_all()).map_err(|e| failed(path, e))
            };
            paths.iter().try_for_each(sync)
        };
        let synced = match &*file_system {
            None => {
                let error = io::Error::other("an earlier write failed; open the store anew");
                Err(failed(self.directory(), error))
            }
            Some(_) if paths.len() < MANY || cfg!(not(target_os = "linux")) => each(),
            Some(directory) => {
                sync_file_system(directory).map_err(|error| failed(self.directory(), error))
            }
        };
        if synced.is_err() {
            *file_system = None;
        }
        synced
    }
}

#[cfg(target_os = "linux")]
fn sync_file_system(directory: &File) -> io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(not(target_os = "linux"))]
fn sync_file_system(directory: &File) -> io::Result<()> {
    directory.sync_all()
}

fn copy(from: &mut impl Read, hasher: &mut Hasher, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; SMALLEST];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return to.flush(),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        hasher.update(bytes);
        to.write_all(bytes)?;
        if count == buffer.len() && count < LARGEST {
            buffer.resize(LARGEST, 0);
        }
    }
}
