//! Copying a file that others could have prepared, and hashing the very bytes of the copy.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

use custody_core::digest::{Digests, Hasher};
use custody_core::{Code, Refusal};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// How much is read at once.
pub(crate) const CHUNK: usize = 128 * 1024;

/// Opens a regular file for reading, follows no link at its end and does not wait for a pipe.
pub(crate) fn open_regular(directory: impl AsFd, path: &Path) -> Result<File, Refusal> {
    let refuse = |code, found: &str| {
        Err(Refusal::new(code, path.display().to_string(), "a plain file", found))
    };
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(directory, path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return refuse(Code::ArtMissing, "nothing"),
        Err(Errno::LOOP) => return refuse(Code::ArtNotRegular, "a link"),
        Err(Errno::NXIO) => return refuse(Code::ArtNotRegular, "a socket or device"),
        Err(error) => return Err(unavailable(path, &error.into())),
    };
    match file.metadata() {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => refuse(Code::ArtNotRegular, "something of another kind"),
        Err(error) => Err(unavailable(path, &error)),
    }
}

/// Copies a file to its end, or to one byte after `size` so that a longer one is noticed and an
/// endless one ends.
pub(crate) fn copy(
    from: &File,
    mut to: &File,
    sha512: bool,
    size: u64,
    buffer: &mut [u8],
) -> io::Result<(Digests, u64)> {
    let mut from = from.take(size.saturating_add(1));
    let mut hasher = Hasher::new(sha512);
    loop {
        match from.read(buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(length) => {
                let bytes = &buffer[..length];
                hasher.update(bytes);
                to.write_all(bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The refusal for a fault of this machine, which says nothing about what was to be judged.
pub(crate) fn unavailable(at: &Path, error: &io::Error) -> Refusal {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::StoreFull,
        _ => Code::GateUnavailable,
    };
    Refusal::new(code, at.display().to_string(), "to read and write", error.to_string())
}
