//! A directory as destination.
//!
//! A file is made without a name, flushed to the disk and then linked to its name, which fails if
//! anything is there. Whoever is killed leaves nothing behind. A file system that has no files without
//! names gets a passing one, `.custody-….part`, which the next publication there clears away. No symbolic
//! link is followed below the root.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use custody_core::digest::Digests;
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};
use rustix::fs::{AtFlags, CWD, Dir, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{Backend, CHUNK, Original, hash, refusal_of};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);
/// How a passing name begins and ends.
const PREFIX: &str = ".custody-";
const SUFFIX: &str = ".part";

#[derive(Debug)]
pub(super) struct Directory {
    root: OwnedFd,
}

impl Directory {
    /// Opens the root. Links on the way to it are the operator's own and are followed.
    pub(super) fn open(path: &str) -> io::Result<Self> {
        let root = rustix::fs::open(path, DIRECTORY.difference(OFlags::NOFOLLOW), Mode::empty())?;
        Ok(Self { root })
    }

    /// The directory that holds the file `name`, and the last segment of the name.
    fn parent<'a>(&self, name: &'a ArtifactName, create: bool) -> io::Result<(OwnedFd, &'a str)> {
        let mut segments: Vec<_> = name.as_str().split('/').collect();
        let last = segments.pop().unwrap_or_default();
        let mut directory = self.root.try_clone()?;
        for segment in segments {
            let made = create && make_directory(&directory, segment)?;
            directory = rustix::fs::openat(&directory, segment, DIRECTORY, Mode::empty())
                .map_err(not_plain)?;
            if made {
                // whatever the umask, users of the place can read it
                rustix::fs::fchmod(&directory, DIRECTORY_MODE)?;
            }
        }
        Ok((directory, last))
    }

    fn create_file(&self, name: &ArtifactName, original: &mut Original<'_>) -> io::Result<bool> {
        let (directory, last) = self.parent(name, true)?;
        let passing = Passing::create(&directory)?;
        fill(&passing.file, original)?;
        let created = passing.link(last)?;
        drop(passing);
        rustix::fs::fsync(&directory)?;
        Ok(created)
    }

    fn open_file(&self, name: &ArtifactName) -> io::Result<File> {
        let (directory, last) = self.parent(name, false)?;
        // a pipe must not keep us waiting
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file: File =
            rustix::fs::openat(&directory, last, flags, Mode::empty()).map_err(not_plain)?.into();
        if file.metadata()?.is_file() { Ok(file) } else { Err(not_plain(Errno::LOOP)) }
    }
}

impl Backend for Directory {
    fn create(&self, name: &ArtifactName, original: &mut Original<'_>) -> Result<bool, Refusal> {
        self.create_file(name, original).map_err(refusal_of)
    }

    fn read_back(
        &self,
        name: &ArtifactName,
        sha512: bool,
        limit: u64,
    ) -> Result<Option<(Digests, u64)>, Refusal> {
        match self.open_file(name) {
            Ok(file) => hash(file, sha512, limit).map(Some).map_err(refusal_of),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(refusal_of(error)),
        }
    }
}

/// Makes a directory that outlives a crash, unless there is one: then false.
fn make_directory(parent: &OwnedFd, name: &str) -> io::Result<bool> {
    match rustix::fs::mkdirat(parent, name, DIRECTORY_MODE) {
        Ok(()) => {
            rustix::fs::fsync(parent)?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A file on its way to its name. Dropped, it is gone.
struct Passing<'d> {
    directory: &'d OwnedFd,
    file: File,
    /// The name that it has, and must lose.
    name: Option<String>,
}

impl<'d> Passing<'d> {
    fn create(directory: &'d OwnedFd) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        {
            let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
            match rustix::fs::openat(directory, ".", flags, FILE_MODE) {
                Ok(file) => {
                    let passing = Self { directory, file: file.into(), name: None };
                    if passing.unnamed().exists() {
                        return Ok(passing);
                    }
                }
                // open(2): not there in the file system, or in the kernel
                Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
                Err(error) => return Err(error.into()),
            }
        }
        clear_away(directory)?;
        loop {
            // no secret: O_EXCL refuses a name that somebody else took
            let name = format!("{PREFIX}{:016x}{SUFFIX}", RandomState::new().hash_one(()));
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let file = rustix::fs::openat(directory, &name, flags, FILE_MODE)?;
            let passing = Self { directory, file: file.into(), name: Some(name) };
            // as long as it is held, nobody clears it away; where there are no locks, nobody does at all
            match rustix::fs::flock(&passing.file, FlockOperation::LockShared) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOLCK) => {}
                Err(error) => return Err(error.into()),
            }
            // who cleared away before we had the lock took it for left over
            if passing.file.metadata()?.nlink() > 0 {
                return Ok(passing);
            }
        }
    }

    /// Where a file without name can be linked from by those who have no special rights (open(2),
    /// `O_TMPFILE`). Not there where `/proc` is not.
    fn unnamed(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// Gives the file its name. False: something is there.
    fn link(&self, name: &str) -> io::Result<bool> {
        let linked = if let Some(passing) = &self.name {
            rustix::fs::linkat(self.directory, passing, self.directory, name, AtFlags::empty())
        } else {
            let follow = AtFlags::SYMLINK_FOLLOW;
            rustix::fs::linkat(CWD, self.unnamed(), self.directory, name, follow)
        };
        match linked {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Passing<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // who cannot remove it leaves it to the next publication
            rustix::fs::unlinkat(self.directory, name, AtFlags::empty()).unwrap_or_default();
        }
    }
}

/// Removes files of passing names that are ours and that nobody holds any more.
fn clear_away(directory: &OwnedFd) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_bytes().starts_with(PREFIX.as_bytes())
            || !name.to_bytes().ends_with(SUFFIX.as_bytes())
        {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = rustix::fs::openat(directory, name, flags, Mode::empty()) else { continue };
        let file = File::from(file);
        let found = file.metadata()?;
        let ours = found.is_file() && found.uid() == rustix::process::geteuid().as_raw();
        if ours && file.try_lock().is_ok() {
            rustix::fs::unlinkat(directory, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn fill(file: &File, original: &mut Original<'_>) -> io::Result<()> {
    let mut writer = BufWriter::with_capacity(CHUNK, file);
    io::copy(&mut original.start()?, &mut writer)?;
    writer.flush()?;
    drop(writer);
    // whatever the umask, users of the place can read it
    rustix::fs::fchmod(file, FILE_MODE)?;
    file.sync_all()
}

/// A link, or a file where a directory should be, is other content and not a fault of the disk.
fn not_plain(error: Errno) -> io::Error {
    match error {
        Errno::LOOP | Errno::NOTDIR => io::Error::other(Refusal::new(
            Code::GateDestinationConflict,
            "",
            "plain directories and a plain file, or nothing",
            "a link, or something of another kind",
        )),
        error => error.into(),
    }
}
