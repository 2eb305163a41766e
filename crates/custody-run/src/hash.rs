//! Hashing a file for verification: what was read is what is judged.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;

use custody_core::digest::{Digests, Hasher};

/// What fits the processor's cache is read and hashed there, and small files take no more than they
/// are.
const PIECE: usize = 128 << 10;

/// From this size on a thread reads ahead: copying from the page cache takes a sixth of the time of
/// hashing.
const LONG: u64 = 4 << 20;

/// How many pieces are read ahead.
const AHEAD: usize = 4;

/// Reads a file once and hashes what was read, with SHA-512 too if `sha512`. Gives the digests and
/// the number of bytes.
pub fn hash_file(path: &Path, sha512: bool) -> io::Result<(Digests, u64)> {
    let file = &File::open(path)?;
    let size = file.metadata()?.len();
    let mut hasher = Hasher::new(sha512);
    if size < LONG {
        let room = usize::try_from(size).unwrap_or(PIECE).min(PIECE);
        return hash_alone(file, hasher, room);
    }
    thread::scope(|scope| {
        let (ahead, pieces) = sync_channel::<Vec<u8>>(AHEAD);
        let reader = thread::Builder::new().spawn_scoped(scope, move || {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                if !read(file, &mut piece)? || ahead.send(piece).is_err() {
                    return Ok(());
                }
            }
        });
        // no more threads to be had
        let Ok(reader) = reader else { return hash_alone(file, hasher, PIECE) };
        for piece in pieces {
            hasher.update(&piece);
        }
        // no more pieces came: at the end of the file, or because of a fault
        reader.join().unwrap_or_else(|_| Err(io::Error::other("reading broke off")))?;
        Ok(hasher.finish())
    })
}

fn hash_alone(file: &File, mut hasher: Hasher, room: usize) -> io::Result<(Digests, u64)> {
    let mut piece = Vec::with_capacity(room);
    while read(file, &mut piece)? {
        hasher.update(&piece);
        piece.clear();
    }
    Ok(hasher.finish())
}

/// Fills an empty piece as far as the file goes; whether anything came.
fn read(mut file: &File, piece: &mut Vec<u8>) -> io::Result<bool> {
    let limit = PIECE as u64;
    Ok(file.by_ref().take(limit).read_to_end(piece)? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_any_length_is_hashed_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let piece = PIECE as u64;
        for length in [0, 1, piece - 1, piece, piece + 1, LONG - 1, LONG, LONG + piece + 1] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(file.path(), &content).unwrap();
            let mut hasher = Hasher::new(true);
            hasher.update(&content);
            assert_eq!(hash_file(file.path(), true).unwrap(), hasher.finish(), "{length} bytes");
        }
    }

    #[test]
    fn what_cannot_be_read_has_no_digest() {
        let directory = tempfile::tempdir().unwrap();
        assert!(hash_file(directory.path(), false).is_err());
        assert!(hash_file(&directory.path().join("absent"), false).is_err());
    }
}
