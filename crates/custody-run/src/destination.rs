//! Where a publishing step puts files: a directory, or an S3-compatible bucket.
//!
//! A destination is hostile, and what is published cannot be taken back. So the bytes are hashed
//! while they leave, the last of them are held back until the digests agree, nothing that is
//! there is ever replaced, and what was written is read back and hashed again.

mod directory;
mod s3;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};

use custody_core::digest::{Digests, Hasher};
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};

pub use self::s3::S3Config;
pub(crate) use self::s3::{agent, endpoint, is_private};

/// The name of a destination, in its one canonical form: `file:///absolute/path`,
/// `s3://bucket` or `s3://bucket/prefix`. Equal destinations are equal texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// The path, seen from the root of the file system.
    Directory(ArtifactName),
    Bucket {
        name: String,
        prefix: Option<ArtifactName>,
    },
}

impl Destination {
    /// Reads a destination. Paths and prefixes follow the rules of [`ArtifactName`]: nothing is
    /// decoded or resolved, so `..`, `%`, a query, user information and a `/` at the end are
    /// refused. Buckets are named as Amazon demands (S3 User Guide, "General purpose bucket naming
    /// rules").
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let kind = match text.split_once("://") {
            Some(("file", path)) => parse_directory(path),
            Some(("s3", path)) => parse_bucket(path),
            _ => Err("another scheme, or none".to_owned()),
        };
        kind.map(Self).map_err(|fault| {
            let shown: String = text.escape_default().take(120).collect();
            Refusal::new(
                Code::GateDestinationForbidden,
                format!("destination {shown}"),
                "file:///absolute/path, s3://bucket or s3://bucket/prefix",
                fault,
            )
        })
    }

    /// Makes the destination ready for use. A directory must exist, so that a disk that is not
    /// mounted is not mistaken for an empty one; a bucket is not asked for until the first file.
    /// `s3` is called for a bucket only: [`S3Config::from_env`], as a rule.
    pub fn open(&self, s3: impl FnOnce() -> Result<S3Config, Refusal>) -> Result<Place, Refusal> {
        let backend: Box<dyn Backend> = match &self.0 {
            Kind::Directory(path) => Box::new(
                directory::Directory::open(&format!("/{path}"))
                    .map_err(|error| refusal_of(error).within(&self.to_string()))?,
            ),
            Kind::Bucket { name, prefix } => {
                Box::new(s3::Bucket::open(s3()?, name, prefix.as_ref())?)
            }
        };
        Ok(Place { destination: self.clone(), backend })
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Directory(path) => write!(f, "file:///{path}"),
            Kind::Bucket { name, prefix: None } => write!(f, "s3://{name}"),
            Kind::Bucket { name, prefix: Some(prefix) } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

fn parse_directory(path: &str) -> Result<Kind, String> {
    let path = path.strip_prefix('/').ok_or("a host, or a path that is not absolute")?;
    path.parse().map(Kind::Directory).map_err(|refusal: Refusal| refusal.found)
}

fn parse_bucket(path: &str) -> Result<Kind, String> {
    let (name, prefix) = match path.split_once('/') {
        Some((name, prefix)) => {
            (name, Some(prefix.parse().map_err(|refusal: Refusal| refusal.found)?))
        }
        None => (path, None),
    };
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let sound = (3..=63).contains(&name.len())
        && name.starts_with(alphanumeric)
        && name.ends_with(alphanumeric)
        && name.chars().all(|c| alphanumeric(c) || c == '-' || c == '.')
        && !name.contains("..");
    if sound {
        Ok(Kind::Bucket { name: name.to_owned(), prefix })
    } else {
        Err("a bucket name that Amazon does not allow".to_owned())
    }
}

/// What came of putting a file at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The file was not there and now is.
    Written,
    /// The same content was there; nothing was sent, or what was sent was not used.
    AlreadyThere,
}

/// A destination that is ready for use, from several threads if need be.
#[derive(Debug)]
pub struct Place {
    destination: Destination,
    backend: Box<dyn Backend>,
}

impl Place {
    /// The name of the destination.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Puts a file of `size` bytes at `name`, and reads it back. Memory use does not depend on the
    /// size. Nothing else is ever replaced, and after [`Code::GateInputChanged`] nothing is
    /// visible. It may be called again after any failure: what is there by then is not sent again.
    ///
    /// * [`Code::GateInputChanged`]: the source's bytes are not the expected ones;
    /// * [`Code::GateDestinationConflict`]: other content is there;
    /// * [`Code::ArtDigestMismatch`]: it was written, and other content came back;
    /// * [`Code::GateUnavailable`]: what is there is not known.
    pub fn put(
        &self,
        name: &ArtifactName,
        source: &mut File,
        expected: &Digests,
        size: u64,
    ) -> Result<Put, Refusal> {
        self.put_unnamed(name, &mut Original { source, expected, size })
            .map_err(|refusal| refusal.within(&self.at(name)))
    }

    fn put_unnamed(
        &self,
        name: &ArtifactName,
        original: &mut Original<'_>,
    ) -> Result<Put, Refusal> {
        let (expected, size) = (original.expected, original.size);
        let same = |found: Option<(Digests, u64)>, otherwise| match found {
            Some((digests, length)) if length == size && expected.agree(&digests) => Ok(()),
            found => {
                let found = found.map_or_else(
                    || "nothing".to_owned(),
                    |(digests, length)| shown(&digests, length, size),
                );
                Err(Refusal::new(otherwise, "", shown(expected, size, size), found))
            }
        };
        let read_back = || self.backend.read_back(name, expected.sha512.is_some(), size);

        let before = read_back()?;
        if before.is_some() {
            return same(before, Code::GateDestinationConflict).map(|()| Put::AlreadyThere);
        }
        let (put, otherwise) = if self.backend.create(name, original)? {
            (Put::Written, Code::ArtDigestMismatch)
        } else {
            (Put::AlreadyThere, Code::GateDestinationConflict)
        };
        same(read_back()?, otherwise).map(|()| put)
    }

    /// Reads and hashes what is at `name`: its digests (SHA-512 only if asked for) and size in
    /// bytes, or none if nothing is there. It reads `limit` + 1 bytes at most, enough to see
    /// that the content is longer.
    pub fn read_back(
        &self,
        name: &ArtifactName,
        sha512: bool,
        limit: u64,
    ) -> Result<Option<(Digests, u64)>, Refusal> {
        self.backend
            .read_back(name, sha512, limit)
            .map_err(|refusal| refusal.within(&self.at(name)))
    }

    fn at(&self, name: &ArtifactName) -> String {
        format!("artifact {name} at {}", self.destination)
    }
}

/// What the two kinds of destination do each in their way. The place in a refusal is left empty.
trait Backend: fmt::Debug + Send + Sync {
    /// Makes the file from the original in one step, or not at all. False: something is there.
    fn create(&self, name: &ArtifactName, original: &mut Original<'_>) -> Result<bool, Refusal>;

    /// As [`Place::read_back`].
    fn read_back(
        &self,
        name: &ArtifactName,
        sha512: bool,
        limit: u64,
    ) -> Result<Option<(Digests, u64)>, Refusal>;
}

/// The file that is to be sent, and what is known about it.
struct Original<'a> {
    source: &'a mut File,
    expected: &'a Digests,
    size: u64,
}

impl Original<'_> {
    /// Begins to send from the start.
    fn start(&mut self) -> io::Result<Outgoing<'_>> {
        self.source.rewind()?;
        let mut outgoing = Outgoing {
            source: self.source,
            expected: self.expected,
            size: self.size,
            hasher: Hasher::new(self.expected.sha512.is_some()),
            left: self.size,
        };
        if self.size == 0 {
            outgoing.check()?;
        }
        Ok(outgoing)
    }
}

/// The bytes on their way out. Reading fails before the last of them are handed on if they are
/// not the expected ones, so a receiver that waits for all `size` bytes never has them.
struct Outgoing<'a> {
    source: &'a mut File,
    expected: &'a Digests,
    size: u64,
    hasher: Hasher,
    left: u64,
}

impl Outgoing<'_> {
    fn check(&mut self) -> io::Result<()> {
        let longer = self.source.read(&mut [0])? > 0;
        let (digests, read) = self.hasher.clone().finish();
        if longer {
            Err(self.changed(format!("more than {read} bytes")))
        } else if self.expected.agree(&digests) {
            Ok(())
        } else {
            Err(self.changed(shown(&digests, read, self.size)))
        }
    }

    fn changed(&self, found: String) -> io::Error {
        let expected = shown(self.expected, self.size, self.size);
        io::Error::other(Refusal::new(Code::GateInputChanged, "", expected, found))
    }
}

impl Read for Outgoing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..room])?;
        if count == 0 {
            return Err(self.changed(format!("only {} bytes", self.size - self.left)));
        }
        self.hasher.update(&buffer[..count]);
        self.left -= count as u64;
        if self.left == 0 {
            self.check()?;
        }
        Ok(count)
    }
}

/// Bytes read or written at once: large enough that system calls do not count beside the hashing.
const CHUNK: usize = 128 * 1024;

/// Hashes all that a reader gives, up to one byte more than the limit.
fn hash(reader: impl Read, sha512: bool, limit: u64) -> io::Result<(Digests, u64)> {
    let mut reader = reader.take(limit.saturating_add(1));
    let mut hasher = Hasher::new(sha512);
    let mut buffer = vec![0; CHUNK];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn shown(digests: &Digests, length: u64, limit: u64) -> String {
    if length > limit {
        format!("more than {limit} bytes")
    } else {
        format!("{:?} of {length} bytes", digests.sha256)
    }
}

/// The refusal that an input or output error carries, or is.
fn refusal_of(error: io::Error) -> Refusal {
    error.downcast().unwrap_or_else(|error| {
        Refusal::new(Code::GateUnavailable, "", "to read and write", error.to_string())
    })
}
