//! Archives: a tar file, packed by gzip or not, that is the one with the digest.
//!
//! It is hashed while it is copied to where nobody else writes, and only then read.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use custody_core::digest::{Hasher, Sha256};
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};
use flate2::read::MultiGzDecoder;
use rustix::fs::CWD;
use tar::{Archive, EntryType};
use url::Url;

use super::tree::{Tree, refuse};
use crate::destination::agent;
use crate::stage::copy::{CHUNK, open_regular, unavailable};

/// Largest archive.
const ARCHIVE_BYTES: u64 = 16 << 30;
/// How much is unpacked of an archive whose files are small, until it is taken for a bomb.
const UNPACKED_BYTES: u64 = 96 << 30;
/// Largest pipeline file that is read out of an archive.
const FILE_BYTES: u64 = 16 << 20;

fn mismatch(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::ChainSourceMismatch, "archive", expected, found)
}

/// Writes the files of the archive with this digest.
pub(super) fn checkout(
    from: &str,
    digest: &str,
    beside: &Path,
    tree: &mut Tree<'_>,
) -> Result<(), Refusal> {
    let digest: Sha256 = digest.parse()?;
    let mut file = tempfile::tempfile_in(beside).map_err(|error| unavailable(beside, &error))?;
    let found = hash(&mut *open(from)?, &mut file)?;
    if found != digest {
        return Err(mismatch(&format!("sha256 {digest}"), format!("sha256 {found}")));
    }
    let mut archive = unpacked(file)?;
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let mut entry = entry.map_err(|error| damaged(&error))?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let path = path_of(&entry.path_bytes())?;
        match kind {
            EntryType::Directory if path.as_os_str().is_empty() => {}
            EntryType::Directory => tree.directory(&path)?,
            EntryType::Regular | EntryType::Continuous => {
                let mode = entry.header().mode().map_err(|error| damaged(&error))?;
                tree.file(&path, mode & 0o100 != 0, |sink| copy(&mut entry, sink, &damaged))?;
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default();
                tree.link(&path, std::ffi::OsStr::from_bytes(&target))?;
            }
            other => {
                let found = format!("an entry of type {:?}", char::from(other.as_byte()));
                return Err(refuse(&path, "files, directories and symbolic links", found));
            }
        }
    }
    Ok(())
}

/// The digest of an archive at hand.
pub(crate) fn digest(path: &Path) -> Result<Sha256, Refusal> {
    hash(&mut open_regular(CWD, path)?, &mut io::sink())
}

/// A file of an archive at hand, which has this digest.
pub(crate) fn read_file(
    path: &Path,
    wanted: &str,
    name: &ArtifactName,
) -> Result<Vec<u8>, Refusal> {
    let mut file = open_regular(CWD, path)?;
    let found = hash(&mut file, &mut io::sink())?;
    if found.to_string() != wanted {
        return Err(mismatch(&format!("sha256 {wanted}"), format!("sha256 {found}")));
    }
    let mut archive = unpacked(file)?;
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        let entry = entry.map_err(|error| damaged(&error))?;
        let regular = entry.header().entry_type() == EntryType::Regular;
        if regular
            && path_of(&entry.path_bytes()).is_ok_and(|path| path == Path::new(name.as_str()))
        {
            let mut content = Vec::new();
            let read = entry.take(FILE_BYTES).read_to_end(&mut content);
            return read.map(|_| content).map_err(|error| damaged(&error));
        }
    }
    Err(mismatch(&format!("a file {name} in it"), "none"))
}

fn open(from: &str) -> Result<Box<dyn Read>, Refusal> {
    super::check_place(from)?;
    let gone = |found: String| Refusal::new(Code::GateUnavailable, "archive", "to read it", found);
    if from.starts_with("https://") {
        let url = Url::parse(from).map_err(|error| gone(error.to_string()))?;
        let response = agent(&url).get(from).call().map_err(|error| gone(error.to_string()))?;
        if response.status() != 200 {
            return Err(gone(format!("HTTP {}", response.status())));
        }
        return Ok(Box::new(response.into_body().into_reader()));
    }
    if from.starts_with("ssh://") {
        return Err(gone("a place that is reached by SSH".into()));
    }
    Ok(Box::new(open_regular(CWD, Path::new(from.strip_prefix("file://").unwrap_or(from)))?))
}

fn hash(from: &mut dyn Read, to: &mut dyn io::Write) -> Result<Sha256, Refusal> {
    let mut hasher = Hasher::new(false);
    let mut hashing = Hashing { to, hasher: &mut hasher };
    copy(&mut from.take(ARCHIVE_BYTES), &mut hashing, &|error| {
        unavailable(Path::new("archive"), error)
    })?;
    Ok(hasher.finish().0.sha256)
}

struct Hashing<'h> {
    to: &'h mut dyn io::Write,
    hasher: &'h mut Hasher,
}

impl io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write_all(bytes)?;
        self.hasher.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Copies to the end. Faults of reading are the caller's to name, those of writing are this machine's.
fn copy(
    from: &mut dyn Read,
    to: &mut dyn io::Write,
    fault: &dyn Fn(&io::Error) -> Refusal,
) -> Result<(), Refusal> {
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                to.write_all(bytes).map_err(|error| unavailable(Path::new("source"), &error))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(fault(&error)),
        }
    }
}

/// The tar file, whether it is packed or not: gzip has its own first bytes.
fn unpacked(mut file: File) -> Result<Archive<Box<dyn Read>>, Refusal> {
    let mut magic = [0; 2];
    let begun =
        file.rewind().and_then(|()| file.read_exact(&mut magic)).and_then(|()| file.rewind());
    begun.map_err(|error| damaged(&error))?;
    let file = BufReader::with_capacity(CHUNK, file);
    let reader: Box<dyn Read> = if magic == [0x1f, 0x8b] {
        Box::new(MultiGzDecoder::new(file).take(UNPACKED_BYTES))
    } else {
        Box::new(file)
    };
    Ok(Archive::new(reader))
}

fn damaged(error: &io::Error) -> Refusal {
    mismatch("a sound tar file, plain or packed by gzip", error.to_string())
}

/// A path of an entry: relative, and without a step up.
fn path_of(bytes: &[u8]) -> Result<PathBuf, Refusal> {
    let path = Path::new(std::ffi::OsStr::from_bytes(bytes));
    let mut found = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => found.push(name),
            Component::CurDir => {}
            _ => return Err(refuse(path, "names that stay in the source", "one that leads out")),
        }
    }
    Ok(found)
}
