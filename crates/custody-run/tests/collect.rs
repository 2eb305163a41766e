//! Outputs on their way out of the working directory of a run.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use custody_core::digest::Hasher;
use custody_core::name::Pattern;
use custody_core::statement::Artifact;
use custody_core::{Code, Refusal};
use custody_run::collect::collect;
use custody_run::stage::RunDirectory;
use custody_store::Store;
use tempfile::TempDir;

struct World {
    files: TempDir,
    run: PathBuf,
    store: Store,
}

impl World {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let run = RunDirectory::create(&files.path().join("run")).unwrap().path().to_path_buf();
        let store = Store::create(&files.path().join("store")).unwrap();
        Self { files, run, store }
    }

    fn with(contents: &[(&str, &str)]) -> Self {
        let world = Self::new();
        for (name, content) in contents {
            world.write(name, content);
        }
        world
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.run.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn collect(&self, patterns: &[&str]) -> Result<Vec<(Artifact, PathBuf)>, Refusal> {
        self.collect_within(None, patterns)
    }

    fn collect_within(
        &self,
        limit: Option<u64>,
        patterns: &[&str],
    ) -> Result<Vec<(Artifact, PathBuf)>, Refusal> {
        let patterns: Vec<Pattern> = patterns.iter().map(|text| text.parse().unwrap()).collect();
        let staged = collect(&self.run, &patterns, true, limit, &self.store)?;
        let (artifacts, staged): (Vec<_>, Vec<_>) = staged
            .into_iter()
            .map(|(name, staged)| {
                let artifact = Artifact { name, digests: *staged.digests(), size: staged.size() };
                let kept = self.store.artifact_path(&artifact.digests.sha256);
                ((artifact, kept), staged)
            })
            .unzip();
        self.store.keep(staged)?;
        Ok(artifacts)
    }

    fn names(&self, patterns: &[&str]) -> Vec<String> {
        let collected = self.collect(patterns).unwrap();
        collected.into_iter().map(|(artifact, _)| artifact.name.to_string()).collect()
    }

    fn code(&self, patterns: &[&str]) -> Code {
        self.collect(patterns).unwrap_err().code
    }
}

/// Larger than any disk: it is refused before the store is filled up with the beginning of it.
#[test]
fn what_the_store_has_no_room_for_is_refused_at_once() {
    let world = World::with(&[("dist/a", "1")]);
    let sparse = File::create(world.run.join("dist/sparse")).unwrap();
    sparse.set_len(8 << 40).unwrap();
    let refusal = world.collect(&["dist/*"]).unwrap_err();
    assert_eq!((refusal.code, refusal.at.as_str()), (Code::StoreFull, "outputs to dist/sparse"));
    sparse.set_len(1).unwrap();
    assert_eq!(world.collect(&["dist/*"]).unwrap().len(), 2);
}

fn make_pipe(path: &Path) {
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, rustix::fs::Mode::RUSR, 0).unwrap();
}

#[test]
fn declared_outputs_are_copied_and_hashed_in_order_of_names() {
    let world =
        World::with(&[("dist/b", "bb"), ("dist/a", "a"), ("dist/sub/c", ""), ("other", "")]);
    let collected = world.collect(&["dist/**"]).unwrap();
    let names: Vec<_> = collected.iter().map(|(artifact, _)| artifact.name.as_str()).collect();
    assert_eq!(names, ["dist/a", "dist/b", "dist/sub/c"]);
    for (artifact, copy) in &collected {
        let content = fs::read(copy).unwrap();
        let mut hasher = Hasher::new(true);
        hasher.update(&content);
        assert_eq!((artifact.digests, artifact.size), hasher.finish());
        assert_eq!(content, fs::read(world.run.join(artifact.name.as_str())).unwrap());
        assert_eq!(copy.metadata().unwrap().nlink(), 1);
    }
    // the command's file no longer matters
    fs::write(world.run.join("dist/a"), "later").unwrap();
    assert_eq!(fs::read(&collected[0].1).unwrap(), b"a");
}

/// `res-many-small-files`.
#[test]
fn thousands_of_files_are_collected() {
    let world = World::new();
    (0..3000).for_each(|i| world.write(&format!("dist/{i:04}"), &i.to_string()));
    let names = world.names(&["dist/*"]);
    assert_eq!(names.len(), 3000);
    assert!(names.is_sorted());
}

/// `art-missing`.
#[test]
fn every_pattern_must_match() {
    let world = World::with(&[("dist/a.tar", "")]);
    assert_eq!(world.names(&["dist/*.tar"]), ["dist/a.tar"]);
    assert_eq!(world.code(&["dist/*.tar", "dist/*.zip"]), Code::ArtMissing);
    assert_eq!(world.code(&["dist/*.tar", "absent/*"]), Code::ArtMissing);
    assert_eq!(world.code(&["dist/*.tar", "a.zip"]), Code::ArtMissing);
}

/// `art-extra-unlisted`.
#[test]
fn nothing_undeclared_may_lie_among_outputs() {
    let world = World::with(&[("dist/a.tar", ""), ("built/b", ""), ("log", "")]);
    assert_eq!(world.names(&["dist/*.tar"]), ["dist/a.tar"]);
    world.write("dist/evil.dll", "");
    assert_eq!(world.code(&["dist/*.tar"]), Code::ArtUnlisted);
    assert_eq!(world.code(&["dist/a.tar"]), Code::ArtUnlisted);
    assert_eq!(world.names(&["dist/*.tar", "dist/*.dll"]).len(), 2);
    fs::rename(world.run.join("dist/evil.dll"), world.run.join("evil.dll")).unwrap();
    world.write("dist/sub/evil.tar", "");
    assert_eq!(world.code(&["dist/*.tar"]), Code::ArtUnlisted);
    fs::remove_dir_all(world.run.join("dist/sub")).unwrap();
    symlink("a.tar", world.run.join("dist/link")).unwrap();
    assert_eq!(world.code(&["dist/*.tar"]), Code::ArtUnlisted);
}

#[test]
fn the_working_directory_and_what_custody_made_are_not_covered() {
    let world = World::with(&[
        ("app", "1"),
        ("source/x.c", ""),
        ("source/app", "2"),
        ("inputs/i/app", "3"),
    ]);
    assert_eq!(world.names(&["app"]), ["app"]);
    assert_eq!(world.names(&["source/app"]), ["source/app"]);
    assert_eq!(world.names(&["**/app"]), ["app"]);
    assert_eq!(world.names(&["app", "source/*"]), ["app", "source/app", "source/x.c"]);
    // names that nobody asked for harm nobody there
    fs::write(world.run.join("-rf"), "").unwrap();
    assert_eq!(world.names(&["ap*"]), ["app"]);
}

/// `art-symlink-recorded`, `art-hardlink`.
#[test]
fn links_are_refused() {
    let world = World::with(&[("dist/a", "a"), ("outside/secret", "s")]);
    assert_eq!(world.names(&["dist/*"]), ["dist/a"]);
    let link = world.run.join("dist/link");
    for target in ["/etc/shadow", "../outside/secret", "a", "absent", "link"] {
        symlink(target, &link).unwrap();
        assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular, "{target}");
        fs::remove_file(&link).unwrap();
    }
    fs::hard_link(world.run.join("outside/secret"), &link).unwrap();
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
    fs::remove_file(&link).unwrap();
    assert_eq!(world.names(&["dist/*"]), ["dist/a"]);
}

/// `art-symlink-directory`.
#[test]
fn directories_that_are_links_are_refused() {
    let world = World::with(&[("real/a", "a")]);
    symlink("real", world.run.join("dist")).unwrap();
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
    assert_eq!(world.code(&["dist/a"]), Code::ArtNotRegular);
    let world = World::with(&[("dist/a", "a")]);
    symlink("..", world.run.join("dist/loop")).unwrap();
    assert_eq!(world.code(&["dist/**"]), Code::ArtNotRegular);
    let world = World::with(&[("dist", "a file")]);
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
}

/// `art-special-file`.
#[test]
fn what_is_not_a_file_is_refused_without_waiting() {
    let world = World::with(&[("dist/a", "a")]);
    let special = world.run.join("dist/special");
    make_pipe(&special);
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
    fs::remove_file(&special).unwrap();
    let _socket = UnixListener::bind(&special).unwrap();
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
    fs::remove_file(&special).unwrap();
    fs::create_dir(&special).unwrap();
    assert_eq!(world.code(&["dist/*"]), Code::ArtNotRegular);
    // a directory is one thing, files in it are another
    assert_eq!(world.names(&["dist/**"]), ["dist/a"]);
    world.write("dist/special/b", "b");
    assert_eq!(world.names(&["dist/*", "dist/special/*"]), ["dist/a", "dist/special/b"]);
}

/// `art-name-traversal`, `art-name-windows`.
#[test]
fn unsafe_names_are_refused() {
    for name in ["--delete", "a\nb", "CON", "a:b", "e\u{301}", "$(touch p)", "trailing."] {
        let world = World::with(&[("dist/a", "a")]);
        assert_eq!(world.names(&["dist/*"]), ["dist/a"]);
        fs::write(world.run.join("dist").join(name), "").unwrap();
        assert_eq!(world.code(&["dist/*"]), Code::ArtNameInvalid, "{name:?}");
    }
    let world = World::with(&[("dist/a", "a")]);
    let name = std::ffi::OsStr::from_bytes(b"\xff");
    fs::write(world.run.join("dist").join(name), "").unwrap();
    assert_eq!(world.code(&["dist/*"]), Code::ArtNameInvalid);
    let world = World::with(&[("dist/a", "a"), ("dist/Setup.exe", ""), ("dist/setup.exe", "")]);
    assert_eq!(world.code(&["dist/*"]), Code::ArtNameCollision);
}

/// Calls `write` over and over while outputs are collected.
fn collect_while(world: &World, write: impl Fn(&File) + Sync) -> Code {
    let path = world.run.join("dist/big");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let (started, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                write(&file);
                started.store(true, Ordering::Relaxed);
            }
        });
        while !started.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        let collected = world.collect(&["dist/*"]);
        done.store(true, Ordering::Relaxed);
        collected.unwrap_err().code
    })
}

/// `art-grows-while-hashed`, `wrk-late-writer`.
#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let world = World::with(&[("dist/big", "")]);
    let path = world.run.join("dist/big");
    File::create(&path).unwrap().set_len(32 << 20).unwrap();
    assert_eq!(world.names(&["dist/*"]), ["dist/big"]);
    let overwritten = collect_while(&world, |file| file.write_all_at(b"x", 7).unwrap());
    assert_eq!(overwritten, Code::ArtChangedDuringRead);
    let grown = collect_while(&world, |mut file| {
        use std::io::Seek as _;
        file.seek(std::io::SeekFrom::End(0)).unwrap();
        file.write_all(b"x").unwrap();
    });
    assert_eq!(grown, Code::ArtChangedDuringRead);
    assert_eq!(world.names(&["dist/*"]), ["dist/big"]);
}

#[test]
fn outputs_have_a_size_all_together() {
    let world = World::with(&[("dist/a", "12345"), ("dist/b", "6789"), ("other", "0123456789")]);
    let within = |limit| world.collect_within(Some(limit), &["dist/*"]);
    assert_eq!(within(9).unwrap().len(), 2);
    let refusal = within(8).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerLimitExceeded);
    assert_eq!(
        (refusal.at.as_str(), refusal.expected.as_str()),
        ("outputs to dist/b", "at most 8 bytes")
    );
    assert!(fs::read_dir(world.files.path().join("store/tmp")).unwrap().next().is_none());
}
