//! What a command made: only what the task declares, copied into the store, which the command cannot
//! reach.
//!
//! Everything here is hostile: links, pipes, names, and files that go on changing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use custody_core::limits::SUBJECTS;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::{Code, Refusal};
use custody_store::{Staged, Store};
use rayon::prelude::*;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::stage::MADE;
use crate::stage::copy::{open_regular, unavailable};

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Takes the outputs out of the working directory `from`: stages them in `store`, in parallel, and
/// hashes the copies. The result is sorted by name.
///
/// A pattern covers the directory that stands before its first `*` (of `dist/*`: `dist`) with all
/// below it, and nothing undeclared may lie there. The working directory itself, `home`, `inputs`,
/// `source` and `tmp` are not covered, and only a pattern that begins with the name of one of the
/// latter finds anything in it.
///
/// * [`Code::ArtMissing`]: a pattern matches nothing;
/// * [`Code::ArtUnlisted`]: something that is covered matches no pattern;
/// * [`Code::ArtNotRegular`]: an output is no file, or a link, or has a second hard link;
/// * [`Code::ArtNameInvalid`], [`Code::ArtNameCollision`]: a name is not safe;
/// * [`Code::ArtChangedDuringRead`]: somebody still writes;
/// * [`Code::ParseCountExceeded`]: there is more than a manifest may name;
/// * [`Code::WorkerLimitExceeded`], [`Code::StoreFull`]: they are larger, all together, than `limit`, or
///   than the room in the store.
pub fn collect(
    from: &Path,
    outputs: &[Pattern],
    sha512: bool,
    limit: Option<u64>,
    store: &Store,
) -> Result<Vec<(ArtifactName, Staged)>, Refusal> {
    let root = rustix::fs::open(from, DIRECTORY, Mode::empty())
        .map_err(|error| unavailable(from, &error.into()))?;
    let declared = Declared { patterns: outputs, places: outputs.iter().map(place).collect() };
    let names = declared.select(&declared.find(&root)?)?;
    let sizes = sizes(&root, &names, limit, store.free_bytes()?)?;
    let found: Vec<_> = names.into_iter().zip(sizes).collect();
    let staged = found.into_par_iter().map(|(name, size)| {
        let taken = take(&root, &name, size, sha512, store);
        let staged = taken.map_err(|refusal| refusal.within(&format!("output {name}")))?;
        Ok((name, staged))
    });
    staged.collect()
}

/// What lies where outputs can be.
type Found = BTreeMap<ArtifactName, FileType>;

struct Declared<'a> {
    patterns: &'a [Pattern],
    /// The directories before the first `*`.
    places: BTreeSet<&'a str>,
}

fn place(pattern: &Pattern) -> &str {
    let literal = pattern.as_str().split('*').next().unwrap_or_default();
    literal.rsplit_once('/').map_or("", |(place, _)| place)
}

/// The directories around a name, the outermost first.
fn around(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').filter_map(|(end, _)| name.get(..end))
}

impl Declared<'_> {
    fn covers(&self, name: &str) -> bool {
        around(name).any(|directory| self.places.contains(directory) && !MADE.contains(&directory))
    }

    fn find(&self, root: &OwnedFd) -> Result<Found, Refusal> {
        let mut found = Found::new();
        let outermost = |place: &&&str| !around(place).any(|outer| self.places.contains(outer));
        let mut ahead: Vec<String> =
            self.places.iter().filter(outermost).map(|&place| place.to_owned()).collect();
        while let Some(directory) = ahead.pop() {
            for (last, kind) in list(root, &directory)? {
                let path = if directory.is_empty() { last } else { format!("{directory}/{last}") };
                if MADE.contains(&path.as_str()) {
                    continue;
                }
                let name: ArtifactName = match path.parse() {
                    Ok(name) => name,
                    Err(refusal) if self.covers(&path) => return Err(refusal),
                    // no pattern selects it, and it harms nobody
                    Err(_) => continue,
                };
                found.insert(name, kind);
                check_count(found.len())?;
                if kind == FileType::Directory {
                    ahead.push(path);
                }
            }
        }
        Ok(found)
    }

    fn select(&self, found: &Found) -> Result<BTreeSet<ArtifactName>, Refusal> {
        let mut names = BTreeSet::new();
        let mut folded = BTreeMap::new();
        for (name, &kind) in found.iter().filter(|(_, kind)| **kind != FileType::Directory) {
            let at = || format!("output {name}");
            if !self.patterns.iter().any(|pattern| pattern.matches(name)) {
                if self.covers(name.as_str()) {
                    let patterns = self.patterns.iter().map(Pattern::as_str).collect::<Vec<_>>();
                    let expected = format!("a name like {}", patterns.join(" or "));
                    return Err(Refusal::new(Code::ArtUnlisted, at(), expected, "another"));
                }
            } else if kind != FileType::RegularFile {
                return Err(not_plain(&format!("{kind:?}")).within(&at()));
            } else if let Some(other) = folded.insert(name.folded(), name) {
                let found = format!("{other} beside it");
                return Err(Refusal::new(Code::ArtNameCollision, at(), "a name of its own", found));
            } else {
                names.insert(name.clone());
            }
        }
        self.patterns.iter().try_for_each(|pattern| check_pattern(pattern, &names, found))?;
        Ok(names)
    }
}

/// A pattern must select a file, and a directory that it selects must be there for files in it.
fn check_pattern(
    pattern: &Pattern,
    names: &BTreeSet<ArtifactName>,
    found: &Found,
) -> Result<(), Refusal> {
    let holds = |directory: &ArtifactName| {
        names.iter().any(|name| around(name.as_str()).any(|outer| outer == directory.as_str()))
    };
    let hollow = found.iter().find(|(name, kind)| {
        **kind == FileType::Directory
            && !pattern.as_str().ends_with("**")
            && pattern.matches(name)
            && !holds(name)
    });
    if let Some((name, _)) = hollow {
        return Err(not_plain("a directory").within(&format!("output {name}")));
    }
    if names.iter().any(|name| pattern.matches(name)) {
        return Ok(());
    }
    Err(Refusal::new(Code::ArtMissing, format!("output {pattern}"), "at least one file", "none"))
}

fn not_plain(found: &str) -> Refusal {
    Refusal::new(Code::ArtNotRegular, "", "a plain file with one name", found)
}

fn check_count(files: usize) -> Result<(), Refusal> {
    if files <= SUBJECTS {
        return Ok(());
    }
    let limit = format!("at most {SUBJECTS} files");
    Err(Refusal::new(Code::ParseCountExceeded, "outputs", limit, "more"))
}

/// How large they are, before the first is copied: one that grows from here on is refused, and the
/// store is not filled up with what does not fit into it.
fn sizes(
    root: &OwnedFd,
    names: &BTreeSet<ArtifactName>,
    limit: Option<u64>,
    free: u64,
) -> Result<Vec<u64>, Refusal> {
    let mut sizes = Vec::new();
    let mut sum = 0_u64;
    for name in names {
        let found = rustix::fs::statat(root, name.as_str(), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| unavailable(Path::new(name.as_str()), &error.into()))?;
        let size = found.st_size.unsigned_abs();
        sizes.push(size);
        sum = sum.saturating_add(size);
        let exceeded = [
            (limit, Code::WorkerLimitExceeded, "at most"),
            (Some(free), Code::StoreFull, "room in the store, which has"),
        ];
        for (limit, code, what) in exceeded {
            if let Some(limit) = limit.filter(|limit| sum > *limit) {
                let (at, expected) =
                    (format!("outputs to {name}"), format!("{what} {limit} bytes"));
                let found = format!("{sum} bytes, and perhaps more");
                return Err(Refusal::new(code, at, expected, found));
            }
        }
    }
    Ok(sizes)
}

/// An output as it is read: what goes wrong is told of it, and not of the store.
struct Output<'f>(&'f File, &'f Path);

impl Read for Output<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => error,
            _ => io::Error::other(unavailable(self.1, &error)),
        })
    }
}

/// Opens a directory of the tree, and follows no link on the way. None if there is nothing.
fn open_directory(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, Refusal> {
    let fault = |error: io::Error| unavailable(Path::new(path), &error);
    let mut directory = root.try_clone().map_err(fault)?;
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        directory = match rustix::fs::openat(&directory, segment, DIRECTORY, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(not_plain("a link or file in place of a directory").within(path));
            }
            Err(error) => return Err(fault(error.into())),
        };
    }
    Ok(Some(directory))
}

/// What is in a directory of the tree: nothing if there is no such directory. A name that is not
/// UTF-8 becomes one that is not safe either.
fn list(root: &OwnedFd, path: &str) -> Result<Vec<(String, FileType)>, Refusal> {
    let Some(directory) = open_directory(root, path)? else { return Ok(Vec::new()) };
    let fault = |error: Errno| unavailable(Path::new(path), &error.into());
    let mut entries = Vec::new();
    for entry in Dir::read_from(&directory).map_err(fault)? {
        let entry = entry.map_err(fault)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
                FileType::from_raw_mode(found.map_err(fault)?.st_mode)
            }
            known => known,
        };
        entries.push((name.to_string_lossy().into_owned(), kind));
        check_count(entries.len())?;
    }
    Ok(entries)
}

/// Stages one output and makes sure that nobody wrote to it meanwhile.
fn take(
    root: &OwnedFd,
    name: &ArtifactName,
    size: u64,
    sha512: bool,
    store: &Store,
) -> Result<Staged, Refusal> {
    let (path, last) = name.as_str().rsplit_once('/').unwrap_or(("", name.as_str()));
    let missing = || Refusal::new(Code::ArtChangedDuringRead, "", "the file found before", "none");
    let directory = open_directory(root, path)?.ok_or_else(missing)?;
    let file = open_regular(&directory, Path::new(last))?;
    let fault = |error: io::Error| unavailable(Path::new(last), &error);
    let before = file.metadata().map_err(fault)?;
    if before.nlink() != 1 {
        return Err(not_plain(&format!("{} hard links", before.nlink())));
    }
    // one byte more: a longer one is noticed, and an endless one ends
    let output = Output(&file, Path::new(last)).take(size.saturating_add(1));
    let staged = store.stage(output, sha512, None)?;
    let state = |of: &Metadata| {
        (of.len(), of.nlink(), (of.mtime(), of.mtime_nsec()), (of.ctime(), of.ctime_nsec()))
    };
    let after = file.metadata().map_err(fault)?;
    if staged.size() != size || before.len() != size || state(&before) != state(&after) {
        let found = format!("{size} bytes, then {}", after.len());
        return Err(Refusal::new(Code::ArtChangedDuringRead, "", "a file at rest", found));
    }
    Ok(staged)
}
