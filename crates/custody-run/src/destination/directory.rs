//! A directory as destination.
//!
//! A file is made under a passing name beside its place, flushed to the disk and then linked to its
//! name, which fails if anything is there. No symbolic link is followed below the root.

use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;

use custody_core::digest::Digests;
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::{Backend, CHUNK, Original, hash, refusal_of};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE_MODE: Mode = Mode::from_raw_mode(0o644);
const DIRECTORY_MODE: Mode = Mode::from_raw_mode(0o755);

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
        // no secret: O_EXCL refuses a name that somebody else took
        let passing = format!(".custody-{:016x}.part", RandomState::new().hash_one(last));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&directory, &passing, flags, FILE_MODE)?;
        let linked = fill(&file.into(), original).and_then(|()| {
            match rustix::fs::linkat(&directory, &passing, &directory, last, AtFlags::empty()) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(error) => Err(error.into()),
            }
        });
        let unlinked = rustix::fs::unlinkat(&directory, &passing, AtFlags::empty());
        let created = linked?;
        unlinked?;
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
