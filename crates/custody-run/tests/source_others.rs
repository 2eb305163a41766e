//! The source, out of Mercurial and out of archives that nobody vouches for.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "what goes wrong in a test fails it, and what it skips it says"
)]

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_core::digest::Sha256;
use custody_core::statement::{Revision, Source};
use custody_core::{Code, Refusal};
use custody_run::repository::{read_file, resolve};
use custody_run::source::{Rules, checkout};
use tempfile::TempDir;

struct World {
    files: TempDir,
    checkouts: std::cell::Cell<u32>,
}

impl World {
    fn new() -> Self {
        Self { files: tempfile::tempdir().unwrap(), checkouts: 0.into() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn checkout(&self, from: &str, revision: &Revision) -> Result<PathBuf, Refusal> {
        self.checkouts.set(self.checkouts.get() + 1);
        let run = self.path(&format!("run{}", self.checkouts.get()));
        let into = run.join("source");
        fs::create_dir_all(&into).unwrap();
        let source = Source { uri: from.into(), revision: revision.clone() };
        let checked = checkout(from, &source, &Rules::default(), &into);
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [into.as_path()], "nothing else is left beside it");
        checked.map(|_| into)
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o777
}

/// A Mercurial repository, if there is Mercurial.
struct Mercurial(World);

impl Mercurial {
    fn new() -> Option<Self> {
        if Command::new("hg").arg("--version").env("HGRCPATH", "").output().is_err() {
            eprintln!("skipped: there is no hg");
            return None;
        }
        let world = Self(World::new());
        fs::create_dir(world.root()).unwrap();
        world.hg(&["init", "."]);
        world.0.write("repository/main.c", "int main;\n");
        Some(world)
    }

    fn root(&self) -> PathBuf {
        self.0.path("repository")
    }

    fn hg(&self, arguments: &[&str]) -> String {
        let output = Command::new("hg")
            .args(arguments)
            .current_dir(self.root())
            .env("HGRCPATH", "")
            .env("HGPLAIN", "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "hg {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn commit(&self) -> Revision {
        self.hg(&["commit", "--addremove", "--quiet", "--user", "t", "--message", "m"]);
        Revision::Mercurial(self.hg(&["log", "--rev", ".", "--template", "{node}"]))
    }

    fn checkout(&self, revision: &Revision) -> Result<PathBuf, Refusal> {
        self.0.checkout(self.root().to_str().unwrap(), revision)
    }
}

#[test]
fn the_files_of_a_changeset_are_written_and_nothing_else() {
    let Some(world) = Mercurial::new() else { return };
    world.0.write("repository/scripts/build.sh", "#!/bin/sh\n");
    let script = world.root().join("scripts/build.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../main.c", world.root().join("scripts/link")).unwrap();
    world.0.write("repository/-m", "dash\n");
    world.0.write("repository/odd", "\u{1}\nnot metadata\n");
    world.commit();
    // a copy, a change and a merge: parents and notes beside the content
    world.hg(&["copy", "main.c", "copy.c"]);
    world.0.write("repository/main.c", "int main = 1;\n");
    let one = world.commit();
    world.hg(&["update", "--quiet", "0"]);
    world.0.write("repository/main.c", "int main;\n// end\n");
    let other = world.commit();
    world.hg(&["merge", "--quiet", "--tool", ":other", "--rev", one.id()]);
    let merged = world.commit();
    world.0.write("repository/later", "");
    world.commit();
    assert_ne!(other, merged);

    let path = world.root().display().to_string();
    for from in [path.clone(), format!("file://{path}"), format!("hg+file://{path}")] {
        let source = world.0.checkout(&from, &merged).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["-m", "copy.c", "main.c", "odd", "scripts"]);
        assert_eq!(read(&source.join("copy.c")), "int main;\n");
        assert_eq!(read(&source.join("main.c")), "int main = 1;\n");
        assert_eq!(read(&source.join("odd")), "\u{1}\nnot metadata\n");
        assert_eq!(mode(&source.join("main.c")), 0o644);
        assert_eq!(mode(&source.join("scripts/build.sh")), 0o755);
        assert_eq!(fs::read_link(source.join("scripts/link")).unwrap(), Path::new("../main.c"));
    }
    assert_eq!(resolve(&world.root(), merged.id()).unwrap(), merged);
    assert_ne!(resolve(&world.root(), "HEAD").unwrap(), merged);
    let name = "main.c".parse().unwrap();
    assert_eq!(read_file(&world.root(), &merged, &name).unwrap(), b"int main = 1;\n");
    assert_eq!(resolve(&world.root(), "all()").unwrap_err().code, Code::ChainSourceMismatch);
}

/// `chain-source-revision`
#[test]
fn only_a_whole_id_of_a_changeset_that_is_there_will_do() {
    let Some(world) = Mercurial::new() else { return };
    let commit = world.commit();
    world.checkout(&commit).unwrap();
    world.hg(&["bookmark", "v1"]);
    let id = commit.id();
    for bad in ["", "tip", "v1", "0", &id[..12], &id.to_uppercase(), &"1".repeat(40), "--config=x"]
    {
        let refusal = world.checkout(&Revision::Mercurial(bad.to_owned())).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{bad}: {refusal}");
    }
    let refusal = world.0.checkout("/absent", &commit).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal}");
}

#[test]
fn no_hook_or_configuration_of_a_repository_has_a_say() {
    let Some(world) = Mercurial::new() else { return };
    let commit = world.commit();
    let marker = world.0.path("marker");
    let mark = format!("touch {}", marker.display());
    let configuration = format!(
        "[hooks]\npreoutgoing = {mark}\noutgoing = {mark}\nlistkeys = {mark}\n\
         [extensions]\nevil = {}\n[alias]\npull = !{mark}\n[decode]\n** = sed s/main/evil/\n",
        world.0.path("evil.py").display()
    );
    world.0.write("evil.py", &format!("open({:?}, 'w')\n", marker.display().to_string()));
    world.0.write("repository/.hg/hgrc", &configuration);
    let source = world.checkout(&commit).unwrap();
    assert_eq!(read(&source.join("main.c")), "int main;\n");
    assert!(!marker.exists(), "something was run");
    // plain hg does run it
    let plain = Command::new("hg")
        .args(["log"])
        .current_dir(world.root())
        .env("HGRCPATH", "")
        .output()
        .unwrap();
    assert!(plain.status.success());
    assert!(marker.exists());
}

/// `chain-source-object-swapped`
#[test]
fn a_changed_revision_of_a_file_is_not_believed() {
    let Some(world) = Mercurial::new() else { return };
    let commit = world.commit();
    world.checkout(&commit).unwrap();
    // an index of one revision with its data in it: stored as it is, because it is short
    let stored = world.root().join(".hg/store/data/main.c.i");
    let mut bytes = fs::read(&stored).unwrap();
    let at = bytes.windows(4).position(|four| four == b"main").unwrap();
    bytes[at..at + 4].copy_from_slice(b"evil");
    fs::set_permissions(&stored, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&stored, bytes).unwrap();
    let refusal = world.checkout(&commit).unwrap_err();
    assert!(matches!(refusal.code, Code::ChainSourceMismatch | Code::GateUnavailable), "{refusal}");
}

/// `chain-source-submodule`, `art-symlink-directory`
#[test]
fn subrepositories_and_links_that_lead_out_are_refused() {
    let Some(world) = Mercurial::new() else { return };
    world.checkout(&world.commit()).unwrap();
    let link = world.root().join("out");
    for target in ["/etc/passwd", "..", "a/../.."] {
        symlink(target, &link).unwrap();
        let refusal = world.checkout(&world.commit()).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
        fs::remove_file(&link).unwrap();
    }
    world.checkout(&world.commit()).unwrap();
    world.hg(&["init", "inner"]);
    world.0.write("repository/.hgsub", "inner = https://example.org/inner\n");
    world.hg(&["add", ".hgsub"]);
    let refusal = world.checkout(&world.commit()).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceForbidden, "{refusal}");
}

/// An archive of these entries: name, kind, mode, and content or target.
fn archive(entries: &[(&str, tar::EntryType, u32, &str)], packed: bool) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, mode, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        let linked = kind.is_symlink() || kind.is_hard_link();
        let content = if linked {
            header.as_gnu_mut().unwrap().linkname[..content.len()]
                .copy_from_slice(content.as_bytes());
            ""
        } else {
            content
        };
        header.set_size(content.len().try_into().unwrap());
        // as it is, also where the library would not
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        builder.append(&header, content.as_bytes()).unwrap();
    }
    let bytes = builder.into_inner().unwrap();
    if !packed {
        return bytes;
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&bytes).unwrap();
    gzip.finish().unwrap()
}

impl World {
    fn unpack(&self, bytes: &[u8]) -> Result<PathBuf, Refusal> {
        let path = self.path("source.tar.gz");
        fs::write(&path, bytes).unwrap();
        self.checkout(path.to_str().unwrap(), &Revision::Archive(Sha256::of(bytes).to_string()))
    }
}

const HONEST: [(&str, tar::EntryType, u32, &str); 6] = [
    ("./", tar::EntryType::Directory, 0o700, ""),
    ("./main.c", tar::EntryType::Regular, 0o600, "int main;\n"),
    ("pipeline.toml", tar::EntryType::Regular, 0o644, "pipeline\n"),
    ("scripts/", tar::EntryType::Directory, 0o777, ""),
    ("scripts/build.sh", tar::EntryType::Regular, 0o4775, "#!/bin/sh\n"),
    ("scripts/link", tar::EntryType::Symlink, 0o777, "../main.c"),
];

#[test]
fn an_archive_is_unpacked_as_it_is() {
    let world = World::new();
    for packed in [false, true] {
        let bytes = archive(&HONEST, packed);
        let source = world.unpack(&bytes).unwrap();
        assert_eq!(read(&source.join("main.c")), "int main;\n");
        assert_eq!(mode(&source.join("main.c")), 0o644);
        assert_eq!(mode(&source.join("scripts")), 0o755);
        assert_eq!(mode(&source.join("scripts/build.sh")), 0o755);
        assert_eq!(fs::read_link(source.join("scripts/link")).unwrap(), Path::new("../main.c"));
        let path = world.path("source.tar.gz");
        let revision = resolve(&path, "HEAD").unwrap();
        assert_eq!(revision, Revision::Archive(Sha256::of(&bytes).to_string()));
        let name = "pipeline.toml".parse().unwrap();
        assert_eq!(read_file(&path, &revision, &name).unwrap(), b"pipeline\n");
        assert!(read_file(&path, &revision, &"absent".parse().unwrap()).is_err());
        assert!(resolve(&path, "v1").is_err());
        let from = format!("file://{}", path.display());
        world.checkout(&from, &revision).unwrap();
    }
    // what tar and git write is read
    let made = world.path("made");
    fs::create_dir(&made).unwrap();
    fs::write(made.join(format!("{}.c", "long".repeat(40))), "x").unwrap();
    let packed = world.path("made.tar.gz");
    for format in ["gnu", "pax", "ustar"] {
        let done = Command::new("tar")
            .arg(format!("--format={format}"))
            .arg("-czf")
            .args([&packed, Path::new("-C"), &made, Path::new(".")])
            .status()
            .unwrap();
        // the old format has no room for the name
        if done.success() {
            world.unpack(&fs::read(&packed).unwrap()).unwrap();
        } else {
            assert_eq!(format, "ustar");
        }
    }
}

/// `chain-source-archive`
#[test]
fn an_archive_with_another_byte_is_refused() {
    let world = World::new();
    let bytes = archive(&HONEST, true);
    world.unpack(&bytes).unwrap();
    let revision = Revision::Archive(Sha256::of(&bytes).to_string());
    let path = world.path("source.tar.gz");
    for at in [0, 4, bytes.len() / 2, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        fs::write(&path, changed).unwrap();
        let refusal = world.checkout(path.to_str().unwrap(), &revision).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
        let name = "pipeline.toml".parse().unwrap();
        assert_eq!(read_file(&path, &revision, &name).unwrap_err().code, refusal.code);
    }
    let refusal = world.checkout("/absent", &revision).unwrap_err();
    assert_eq!(refusal.code, Code::ArtMissing, "{refusal}");
    for broken in [&bytes[..bytes.len() / 2], b"", b"no archive", &bytes[..1]] {
        let refusal = world.unpack(broken).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
    }
}

/// `chain-source-archive-traversal`
#[test]
fn an_archive_writes_nothing_outside() {
    use tar::EntryType::{Char, Fifo, Link, Regular, Symlink};
    let world = World::new();
    world.unpack(&archive(&HONEST, true)).unwrap();
    for attack in [
        &[("../evil", Regular, 0o644, "x")][..],
        &[("a/../../evil", Regular, 0o644, "x")],
        &[("/tmp/custody-evil", Regular, 0o644, "x")],
        &[("a", Symlink, 0o777, "/tmp"), ("a/custody-evil", Regular, 0o644, "x")],
        &[("a", Symlink, 0o777, ".."), ("a/evil", Regular, 0o644, "x")],
        &[("a", Symlink, 0o777, "b"), ("a/evil", Regular, 0o644, "x")],
        &[("a/evil", Regular, 0o644, "x"), ("a", Symlink, 0o777, "b")],
        &[("a", Link, 0o644, "/etc/passwd")],
        &[("main.c", Regular, 0o644, "x"), ("b", Link, 0o644, "main.c")],
        &[("a", Fifo, 0o644, "")],
        &[("a", Char, 0o644, "")],
        &[("a", Regular, 0o644, "x"), ("a", Regular, 0o644, "y")],
        &[("a", Regular, 0o644, "x"), ("a/b", Regular, 0o644, "y")],
        &[(".git/config", Regular, 0o644, "x")],
        &[("", Regular, 0o644, "x")],
    ] {
        let refusal = world.unpack(&archive(attack, true)).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{attack:?}: {refusal}");
    }
    assert!(!Path::new("/tmp/custody-evil").exists());
    let found: Vec<_> =
        fs::read_dir(world.files.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!found.contains(&"evil".into()), "{found:?}");
}
