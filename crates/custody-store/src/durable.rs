//! Files that are there wholly or not at all, whenever the machine stops.
//!
//! Bytes go into a temporary file in the same directory, then to the disk, then under their name,
//! and the directory follows: the order without which a crash can leave an empty or a missing file
//! (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014). A process that is killed
//! on the way leaves at most a file whose name begins with `.tmp`.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::NamedTempFile;

/// Writes a file, in place of the one that may be there. Durable when it returns.
pub fn replace_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    written_beside(path, bytes, mode)?.persist(path)?;
    sync_directory(directory_of(path))
}

/// Writes a file that is not there yet; one that is stays as it is, and the error is
/// [`io::ErrorKind::AlreadyExists`]. Durable when it returns.
pub fn create_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    written_beside(path, bytes, mode)?.persist_noclobber(path)?;
    sync_directory(directory_of(path))
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn written_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<NamedTempFile> {
    let mut file = NamedTempFile::new_in(directory_of(path))?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_file_is_replaced_or_kept_as_asked_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pin");
        create_file(&path, b"one", 0o600).unwrap();
        let error = create_file(&path, b"two", 0o644).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace_file(&path, b"three", 0o444).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_missing_directory_is_an_error_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/pin");
        assert_eq!(replace_file(&path, b"", 0o600).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!path.parent().unwrap().exists());
    }
}
