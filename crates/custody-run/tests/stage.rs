//! Inputs on their way into the working directory of a run.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use custody_core::digest::Hasher;
use custody_core::statement::Artifact;
use custody_core::{Code, Refusal};
use custody_run::stage::{RunDirectory, StagedInput, stage_inputs};
use tempfile::TempDir;

fn artifact(name: &str, content: &[u8], sha512: bool) -> Artifact {
    let mut hasher = Hasher::new(sha512);
    hasher.update(content);
    let (digests, size) = hasher.finish();
    Artifact { name: name.parse().unwrap(), digests, size }
}

fn input(from: &Path, content: &[u8], place: &str) -> StagedInput {
    let artifact = artifact("dist/x", content, true);
    StagedInput { from: from.to_path_buf(), artifact, place: place.parse().unwrap() }
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

struct World {
    files: TempDir,
    run: RunDirectory,
}

impl World {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        fs::write(files.path().join("good"), "good").unwrap();
        let run = RunDirectory::create(&files.path().join("run")).unwrap();
        Self { files, run }
    }

    /// Stages a good input, and the file `name` that should be "other".
    fn stage(&self, name: &str) -> Result<(), Refusal> {
        let files = self.files.path();
        let items = [
            input(&files.join("good"), b"good", "build/dist/good"),
            input(&files.join(name), b"other", "build/dist/other"),
        ];
        stage_inputs(&self.run, &items)
    }

    fn assert_nothing_left(&self) {
        assert_eq!(fs::read_dir(self.run.inputs()).unwrap().count(), 0);
    }
}

/// `wrk-left-over-output`.
#[test]
fn a_run_directory_is_new_private_and_empty() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("run");
    let run = RunDirectory::create(&path).unwrap();
    assert_eq!(mode(&path), 0o700);
    let mut names: Vec<_> =
        fs::read_dir(run.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["home", "inputs", "source", "tmp"]);

    let again = RunDirectory::create(&path).unwrap_err();
    assert_eq!(again.code, Code::ArtUnlisted);
    let empty = parent.path().join("empty");
    fs::create_dir(&empty).unwrap();
    assert_eq!(RunDirectory::create(&empty).unwrap_err().code, Code::ArtUnlisted);
    let link = parent.path().join("link");
    symlink(parent.path().join("elsewhere"), &link).unwrap();
    assert_eq!(RunDirectory::create(&link).unwrap_err().code, Code::ArtUnlisted);
    let nowhere = RunDirectory::create(&parent.path().join("no/run")).unwrap_err();
    assert_eq!(nowhere.code, Code::GateUnavailable);
}

#[test]
fn good_inputs_are_copied_and_cannot_be_written() {
    let world = World::new();
    fs::write(world.files.path().join("other"), "other").unwrap();
    world.stage("other").unwrap();
    let place = world.run.inputs().join("build/dist/other");
    assert_eq!(fs::read(&place).unwrap(), b"other");
    assert_eq!(mode(&place), 0o555);
    for directory in ["", "build", "build/dist"] {
        assert_eq!(mode(&world.run.inputs().join(directory)), 0o555, "{directory}");
    }
    // the origin no longer matters
    fs::write(world.files.path().join("other"), "OTHER").unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"other");
    assert_eq!(place.metadata().unwrap().nlink(), 1);

    let World { files, run } = world;
    run.remove().unwrap();
    assert!(!files.path().join("run").exists());
}

/// `art-optional-wrong-hash`.
#[test]
fn what_is_not_the_recorded_file_is_refused_and_nothing_is_left() {
    let world = World::new();
    let at = |name: &str| world.files.path().join(name);
    fs::write(at("swapped"), "OTHER").unwrap();
    fs::write(at("longer"), "other, and more").unwrap();
    fs::write(at("shorter"), "oth").unwrap();
    fs::write(at("real"), "other").unwrap();
    symlink(at("real"), at("link")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        at("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    for (name, code) in [
        ("absent", Code::ArtMissing),
        ("swapped", Code::ArtDigestMismatch),
        ("longer", Code::ArtSizeMismatch),
        ("shorter", Code::ArtSizeMismatch),
        ("link", Code::ArtNotRegular),
        ("directory", Code::ArtNotRegular),
        ("socket", Code::ArtNotRegular),
        ("pipe", Code::ArtNotRegular),
    ] {
        let refusal = world.stage(name).unwrap_err();
        assert_eq!(refusal.code, code, "{name}: {refusal}");
        assert!(refusal.at.starts_with("input build/dist/other"), "{refusal}");
        world.assert_nothing_left();
    }
    world.stage("real").unwrap();
}

/// `gate-swap-after-verify`.
#[test]
fn an_input_that_is_swapped_after_it_was_looked_at_is_refused() {
    let world = World::new();
    let path = world.files.path().join("other");
    fs::write(&path, "other").unwrap();
    let item = input(&path, b"other", "x");
    // looked at: it is the right one, and then another takes its name
    assert_eq!(item.artifact.digests, artifact("x", &fs::read(&path).unwrap(), true).digests);
    let replacement = world.files.path().join("replacement");
    fs::write(&replacement, "OTHER").unwrap();
    fs::rename(&replacement, &path).unwrap();
    let refusal = stage_inputs(&world.run, &[item]).unwrap_err();
    assert_eq!(refusal.code, Code::ArtDigestMismatch);
    world.assert_nothing_left();
}

#[test]
fn a_wrong_second_digest_is_refused() {
    let world = World::new();
    let path = world.files.path().join("good");
    let mut item = input(&path, b"good", "x");
    item.artifact.digests.sha512 = artifact("x", b"bad!", true).digests.sha512;
    let refusal = stage_inputs(&world.run, &[item.clone()]).unwrap_err();
    assert_eq!(refusal.code, Code::ArtDigestMismatch);
    item.artifact.digests.sha512 = None;
    stage_inputs(&world.run, &[item]).unwrap();
}

/// `art-name-collision`.
#[test]
fn two_places_may_not_be_one() {
    let world = World::new();
    let good = world.files.path().join("good");
    let stage = |places: &[&str]| {
        let items: Vec<_> = places.iter().map(|place| input(&good, b"good", place)).collect();
        stage_inputs(&world.run, &items)
    };
    for places in [["a/x", "a/x"], ["a/Setup.exe", "a/setup.exe"], ["a", "a/x"], ["A/x", "a"]] {
        let refusal = stage(&places).unwrap_err();
        assert_eq!(refusal.code, Code::ArtNameCollision, "{places:?}");
        world.assert_nothing_left();
    }
    stage(&["a/x", "a/y", "b/x", "ab"]).unwrap();
}

#[test]
fn whatever_a_command_left_is_removed() {
    let world = World::new();
    let deep = world.run.path().join("dist/a/b");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "").unwrap();
    symlink("/etc", deep.join("link")).unwrap();
    fs::set_permissions(&deep, Permissions::from_mode(0o000)).unwrap();
    let World { files, run } = world;
    run.remove().unwrap();
    assert!(!files.path().join("run").exists());
    assert!(Path::new("/etc/passwd").exists());
}

/// As deep as it is, it costs neither descriptors nor the stack of the thread that removes it.
#[test]
fn what_a_command_left_may_be_of_any_depth() {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags};
    const DEPTH: usize = 20_000;
    // in memory, where there is such a place: on a disk that is busy it takes long
    let files = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let run = RunDirectory::create(&files.path().join("run")).unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut inner = rustix::fs::openat(CWD, run.path(), flags, Mode::empty()).unwrap();
    // such names are in the way of nothing
    fs::write(run.path().join("removed-1"), "").unwrap();
    fs::create_dir_all(run.path().join("removed-2/x")).unwrap();
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&inner, "a", Mode::RWXU).unwrap();
        inner = rustix::fs::openat(&inner, "a", flags, Mode::empty()).unwrap();
    }
    rustix::fs::chmodat(&inner, ".", Mode::empty(), AtFlags::empty()).unwrap();
    run.remove().unwrap();
    assert!(!files.path().join("run").exists());
}
