//! The working directory of one run, and the inputs in it.
//!
//! What a command uses is copied to where nobody else writes, and the very bytes of the copy are
//! hashed: what lies at the origin later, or lay there before, does not matter.

pub(crate) mod copy;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown};
use std::path::{Path, PathBuf};

use custody_core::name::ArtifactName;
use custody_core::statement::Artifact;
use custody_core::{Code, Refusal};
use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, renameat, unlinkat};
use rustix::io::Errno;

use self::copy::{CHUNK, open_regular, unavailable};

/// The directories that Custody makes in the working directory, none of which is an output.
pub(crate) const MADE: [&str; 4] = ["home", "inputs", "source", "tmp"];

/// The working directory of one run: new, private, and with `inputs/`, `source/`, `home/` and
/// `tmp/` in it, all empty.
#[derive(Debug)]
pub struct RunDirectory {
    path: PathBuf,
}

/// A file that the command is given.
#[derive(Clone, Debug)]
pub struct StagedInput {
    /// Where it is now.
    pub from: PathBuf,
    /// What it must be.
    pub artifact: Artifact,
    /// Where it goes under `inputs/`.
    pub place: ArtifactName,
}

impl RunDirectory {
    /// Makes the directory, and refuses one that exists: what another task left there would pass
    /// for an output of this one (`wrk-left-over-output`).
    pub fn create(path: &Path) -> Result<Self, Refusal> {
        private_directory(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Refusal::new(
                Code::ArtUnlisted,
                format!("working directory {}", path.display()),
                "a new one",
                "one that exists",
            ),
            _ => unavailable(path, &error),
        })?;
        let path = path.canonicalize().map_err(|error| unavailable(path, &error))?;
        for name in MADE {
            private_directory(&path.join(name)).map_err(|error| unavailable(&path, &error))?;
        }
        Ok(Self { path })
    }

    /// The directory itself, in which the command starts: absolute and without links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the inputs are.
    pub fn inputs(&self) -> PathBuf {
        self.path.join("inputs")
    }

    /// Where the source is.
    pub fn source(&self) -> PathBuf {
        self.path.join("source")
    }

    /// The command's home directory.
    pub fn home(&self) -> PathBuf {
        self.path.join("home")
    }

    /// The command's directory for temporary files.
    pub fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }

    /// Gives everything but the inputs to another user.
    pub fn give_to(&self, uid: u32, gid: u32) -> Result<(), Refusal> {
        let give = |path: &Path| lchown(path, Some(uid), Some(gid));
        [self.home(), self.source(), self.tmp()]
            .iter()
            .try_for_each(|directory| {
                give(directory)?;
                each(directory, &mut |path, _| give(path))
            })
            .and_then(|()| give(&self.path))
            .map_err(|error| unavailable(&self.path, &error))
    }

    /// Removes the directory and all that the command left in it.
    pub fn remove(self) -> Result<(), Refusal> {
        remove_all(&self.path).map_err(|error| unavailable(&self.path, &error))
    }
}

/// Copies inputs to their places, in parallel, and checks the copies. Files and directories can
/// then be read and run but not written. After any refusal nothing is left. To be called once.
///
/// * [`Code::ArtMissing`], [`Code::ArtNotRegular`]: there is no plain file at the origin;
/// * [`Code::ArtSizeMismatch`], [`Code::ArtDigestMismatch`]: it is another file;
/// * [`Code::ArtNameCollision`]: two places are one, or one would be a directory of the other.
pub fn stage_inputs(directory: &RunDirectory, items: &[StagedInput]) -> Result<(), Refusal> {
    let parents = parents(items)?;
    let root = directory.inputs();
    let staged = stage_at(&root, &parents, items);
    if staged.is_err() {
        fs::remove_dir_all(&root)
            .and_then(|()| private_directory(&root))
            .map_err(|error| unavailable(&root, &error))?;
    }
    staged
}

fn stage_at(root: &Path, parents: &BTreeSet<&str>, items: &[StagedInput]) -> Result<(), Refusal> {
    // a directory sorts before what is in it
    for parent in parents {
        private_directory(&root.join(parent)).map_err(|error| unavailable(root, &error))?;
    }
    items.par_iter().try_for_each_init(
        || vec![0; CHUNK],
        |buffer, item| {
            stage_one(root, item, buffer)
                .map_err(|refusal| refusal.within(&format!("input {}", item.place)))
        },
    )?;
    [""].iter().chain(parents).try_for_each(|parent| {
        let path = root.join(parent);
        fs::set_permissions(&path, Permissions::from_mode(0o555))
            .map_err(|error| unavailable(&path, &error))
    })
}

fn stage_one(root: &Path, item: &StagedInput, buffer: &mut [u8]) -> Result<(), Refusal> {
    let from = open_regular(CWD, &item.from)?;
    let place = root.join(item.place.as_str());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let (digests, size) = rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR)
        .map_err(io::Error::from)
        .and_then(|to| {
            let sha512 = item.artifact.digests.sha512.is_some();
            let copied =
                copy::copy(&from, &to.try_clone()?.into(), sha512, item.artifact.size, buffer)?;
            // which inputs are programs is not known
            rustix::fs::fchmod(&to, Mode::from_raw_mode(0o555))?;
            Ok(copied)
        })
        .map_err(|error| unavailable(&place, &error))?;
    let refuse = |code, expected, found| Err(Refusal::new(code, "", expected, found));
    if size != item.artifact.size {
        let found = if size > item.artifact.size { "more".to_owned() } else { size.to_string() };
        refuse(Code::ArtSizeMismatch, format!("{} bytes", item.artifact.size), found)
    } else if !item.artifact.digests.agree(&digests) {
        let (expected, found) = (item.artifact.digests.sha256, digests.sha256);
        refuse(Code::ArtDigestMismatch, format!("sha256 {expected}"), found.to_string())
    } else {
        Ok(())
    }
}

/// The directories that the places need, unless two places are one on some system.
fn parents(items: &[StagedInput]) -> Result<BTreeSet<&str>, Refusal> {
    let mut files = BTreeMap::new();
    for item in items {
        if let Some(other) = files.insert(item.place.folded(), &item.place) {
            return Err(collision(&item.place, other));
        }
    }
    let mut parents = BTreeSet::new();
    for item in items {
        let place = item.place.as_str();
        for (end, _) in place.match_indices('/') {
            let parent = &place[..end];
            if let Some(other) = files.get(&parent.to_ascii_lowercase()) {
                return Err(collision(&item.place, other));
            }
            parents.insert(parent);
        }
    }
    Ok(parents)
}

fn collision(one: &ArtifactName, other: &ArtifactName) -> Refusal {
    let at = format!("input {one}");
    Refusal::new(Code::ArtNameCollision, at, "a place of its own", format!("{other} beside it"))
}

fn private_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes a directory in which a command worked. How deep it is, how long its paths are and what may be
/// read in it was the command's to choose: so this does not descend. What is two deep is moved up.
pub(crate) fn remove_all(directory: &Path) -> io::Result<()> {
    let root = opened(CWD, directory)?;
    let mut moved = 0_u64;
    // while something is removed, a listing may leave something out
    while !each_name(root.as_fd(), &mut |name, is_directory| {
        if !is_directory {
            return Ok(unlinkat(&root, name, AtFlags::empty())?);
        }
        let inner = opened(&root, name)?;
        while !each_name(inner.as_fd(), &mut |name, is_directory| {
            if !is_directory {
                return Ok(unlinkat(&inner, name, AtFlags::empty())?);
            }
            loop {
                moved = moved.saturating_add(1);
                let up = format!("removed-{moved}");
                match renameat(&inner, name, &root, &up) {
                    // the command may have such names too
                    Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                    // where it leads up is written in the directory itself
                    Err(Errno::ACCESS) => {
                        opened(&inner, name)?;
                        return Ok(renameat(&inner, name, &root, &up)?);
                    }
                    done => return Ok(done?),
                }
            }
        })? {}
        Ok(unlinkat(&root, name, AtFlags::REMOVEDIR)?)
    })? {}
    fs::remove_dir(directory)
}

/// Opens a directory so that what is in it can be removed.
fn opened(around: impl AsFd, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = || rustix::fs::openat(&around, name, flags, Mode::empty());
    let found = match open() {
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(&around, name, Mode::RWXU, AtFlags::empty())?;
            open()?
        }
        found => found?,
    };
    if rustix::fs::fstat(&found)?.st_mode & 0o700 != 0o700 {
        rustix::fs::fchmod(&found, Mode::RWXU)?;
    }
    Ok(found)
}

/// Goes through what is in a directory; whether that was nothing.
fn each_name(
    directory: BorrowedFd<'_>,
    visit: &mut dyn FnMut(&CStr, bool) -> io::Result<()>,
) -> io::Result<bool> {
    let mut nothing = true;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        nothing = false;
        let is_directory = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode).is_dir()
            }
            known => known.is_dir(),
        };
        visit(name, is_directory)?;
    }
    Ok(nothing)
}

/// Visits all that is in a directory, a directory before what is in it, and follows no link.
pub(crate) fn each(
    directory: &Path,
    visit: &mut dyn FnMut(&Path, &Metadata) -> io::Result<()>,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let found = path.symlink_metadata()?;
        visit(&path, &found)?;
        if found.is_dir() {
            each(&path, visit)?;
        }
    }
    Ok(())
}
