use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};

use custody_core::digest::{Digests, Sha256, Sha512};
use custody_core::{Code, Refusal};
use custody_store::Store;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn an_artifact_is_kept_under_its_digest() {
    let (dir, store) = store();
    let bytes = vec![7; 300_000];
    let (digests, size) = store.put_artifact(&bytes[..], true, None).unwrap();
    assert_eq!((digests.sha256, size), (Sha256::of(&bytes), 300_000));
    assert!(digests.sha512.is_some());
    let digits = digests.sha256.to_string();
    let path = dir.path().join("artifacts/sha256").join(&digits[..2]).join(&digits[2..]);
    assert_eq!(store.artifact_path(&digests.sha256), path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o444);
    let mut read = Vec::new();
    store.open_artifact(&digests.sha256).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, bytes);
    let mut copied = Vec::new();
    assert_eq!(store.copy_artifact(&digests.sha256, &mut copied).unwrap(), 300_000);
    assert_eq!(copied, bytes);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn other_bytes_than_expected_are_refused_and_leave_nothing() {
    let (dir, store) = store();
    let honest = Digests::from(Sha256::of(b"honest"));
    assert_eq!(
        store.put_artifact(&b"forged"[..], false, Some(&honest)).unwrap_err().code,
        Code::ArtDigestMismatch
    );
    let disagreeing = Digests { sha512: Some(Sha512::from_bytes([0; 64])), ..honest };
    let refusal = store.put_artifact(&b"honest"[..], false, Some(&disagreeing)).unwrap_err();
    assert_eq!(refusal.code, Code::ArtDigestMismatch);
    assert!(!store.has_artifact(&honest.sha256) && !store.has_artifact(&Sha256::of(b"forged")));
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    assert_eq!(store.open_artifact(&honest.sha256).unwrap_err().code, Code::ArtMissing);
    store.put_artifact(&b"honest"[..], false, Some(&honest)).unwrap();
    assert!(store.has_artifact(&honest.sha256));
}

#[test]
fn many_are_staged_by_threads_and_seen_once_kept() {
    let (dir, store) = store();
    let contents: Vec<Vec<u8>> = (0..300_u32).map(|i| i.to_le_bytes().repeat(1000)).collect();
    let staged = std::thread::scope(|scope| {
        let stage = |half: &'_ [Vec<u8>]| {
            half.iter().map(|bytes| store.stage(&bytes[..], false, None).unwrap()).collect()
        };
        let (left, right) = contents.split_at(150);
        let left = scope.spawn(move || -> Vec<_> { stage(left) });
        let mut staged: Vec<_> = stage(right);
        staged.extend(left.join().unwrap());
        staged
    });
    assert!(contents.iter().all(|bytes| !store.has_artifact(&Sha256::of(bytes))));
    store.keep(staged).unwrap();
    for bytes in &contents {
        assert_eq!(store.copy_artifact(&Sha256::of(bytes), io::sink()).unwrap(), 4000);
    }
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
}

#[test]
fn equals_are_one_file_and_what_is_known_is_not_written_again() {
    let (dir, store) = store();
    let stage = || store.stage(&b"the artifact"[..], false, None).unwrap();
    store.keep((0..100).map(|_| stage()).collect()).unwrap();
    let path = store.artifact_path(&Sha256::of(b"the artifact"));
    let first = path.metadata().unwrap().ino();
    let known = stage();
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    store.keep(vec![known]).unwrap();
    assert_eq!(path.metadata().unwrap().ino(), first);
    assert_eq!(fs::read(&path).unwrap(), b"the artifact");
}

/// Row `sto-bit-flip`.
#[test]
fn a_changed_bit_is_found_while_reading_and_healed_by_putting_again() {
    let (dir, store) = store();
    let bytes = b"the artifact".repeat(100);
    let sha256 = store.put_artifact(&bytes[..], false, None).unwrap().0.sha256;
    let path = store.artifact_path(&sha256);
    for bit in [0, 1, 4000, bytes.len() * 8 - 1] {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::remove_file(&path).unwrap();
        fs::write(&path, damaged).unwrap();
        assert_eq!(store.copy_artifact(&sha256, io::sink()).unwrap_err().code, Code::StoreCorrupt);
    }
    // whatever else stands in its place, it is not read for ever, nor taken for the artifact
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, &bytes).unwrap();
    let heal = |make: &dyn Fn()| {
        fs::remove_file(&path).unwrap();
        make();
        store.put_artifact(&bytes[..], false, None).unwrap();
        assert!(path.symlink_metadata().unwrap().is_file());
        assert_eq!(store.copy_artifact(&sha256, io::sink()).unwrap(), 1200);
    };
    heal(&|| symlink(&elsewhere, &path).unwrap());
    heal(&|| symlink("/dev/zero", &path).unwrap());
    heal(&|| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
    });
    heal(&|| File::create(&path).unwrap().set_len(1 << 40).unwrap());
    fs::remove_file(&path).unwrap();
    fs::write(&path, &bytes[1..]).unwrap();
    assert_eq!(store.copy_artifact(&sha256, io::sink()).unwrap_err().code, Code::StoreCorrupt);
    store.put_artifact(&bytes[..], false, None).unwrap();
    assert_eq!(store.copy_artifact(&sha256, io::sink()).unwrap(), 1200);
}

/// An upload that is cut off is seen by nobody, and other bytes under its digest are refused.
/// Row `sto-upload-half`.
#[test]
fn half_an_artifact_is_none() {
    let (dir, store) = store();
    let bytes = vec![7; 300_000];
    let half = (&bytes[..150_000]).chain(Cut);
    store.put_artifact(half, false, Some(&Sha256::of(&bytes).into())).unwrap_err();
    let shorter = store.put_artifact(&bytes[..150_000], false, Some(&Sha256::of(&bytes).into()));
    assert_eq!(shorter.unwrap_err().code, Code::ArtDigestMismatch);
    assert_eq!(fs::read_dir(dir.path().join("artifacts/sha256")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("tmp")).unwrap().count(), 0);
    store.put_artifact(&bytes[..], false, Some(&Sha256::of(&bytes).into())).unwrap();
}

/// A connection that ends before its time.
struct Cut;

impl Read for Cut {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

#[test]
fn the_readers_own_refusal_comes_through() {
    struct Refusing;
    impl Read for Refusing {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other(Refusal::new(Code::ArtChangedDuringRead, "x", "y", "z")))
        }
    }
    let (_dir, store) = store();
    assert_eq!(
        store.put_artifact(Refusing, false, None).unwrap_err().code,
        Code::ArtChangedDuringRead
    );
}
