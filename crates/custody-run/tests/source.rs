//! The source, out of repositories that nobody vouches for.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_core::statement::Revision;
use custody_core::{Code, Refusal};
use custody_run::source::checkout;
use tempfile::TempDir;

struct World {
    files: TempDir,
    repository: PathBuf,
    checkouts: std::cell::Cell<u32>,
}

impl World {
    fn new() -> Self {
        Self::with_format("sha1")
    }

    fn with_format(format: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let repository = files.path().join("repository");
        fs::create_dir(&repository).unwrap();
        let world = Self { files, repository, checkouts: 0.into() };
        world.git(&["init", "--quiet", &format!("--object-format={format}")]);
        world.write("main.c", "int main;\n");
        world
    }

    fn git_in(&self, directory: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
            .args(["-c", "core.autocrlf=false"])
            .args(arguments)
            .current_dir(directory)
            .env("HOME", self.files.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.git_in(&self.repository, arguments)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.repository.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", "m"]);
        self.git(&["rev-parse", "HEAD"])
    }

    fn checkout_from(&self, from: &str, id: &str) -> Result<PathBuf, Refusal> {
        self.checkouts.set(self.checkouts.get() + 1);
        let run = self.files.path().join(format!("run{}", self.checkouts.get()));
        let into = run.join("source");
        fs::create_dir_all(&into).unwrap();
        let checked = checkout(from, &Revision::Git(id.to_owned()), &into);
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [into.as_path()], "nothing else is left beside it");
        checked.map(|()| into)
    }

    fn checkout(&self, id: &str) -> Result<PathBuf, Refusal> {
        self.checkout_from(self.repository.to_str().unwrap(), id)
    }

    fn code(&self, id: &str) -> Code {
        self.checkout(id).unwrap_err().code
    }
}

#[test]
fn the_tree_of_the_commit_is_written_and_nothing_else() {
    // the modes are the same whatever the worker's own are
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let world = World::new();
    world.write("scripts/build.sh", "#!/bin/sh\n");
    let script = world.repository.join("scripts/build.sh");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../main.c", world.repository.join("scripts/link")).unwrap();
    let first = world.commit();
    world.write("later", "");
    world.commit();
    world.write("uncommitted", "");

    let path = world.repository.display().to_string();
    for from in [path.clone(), format!("file://{path}"), format!("git+file://{path}")] {
        let source = world.checkout_from(&from, &first).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["main.c", "scripts"]);
        let mode = |name: &str| source.join(name).symlink_metadata().unwrap().mode() & 0o777;
        assert_eq!(
            (mode("main.c"), mode("scripts"), mode("scripts/build.sh")),
            (0o644, 0o755, 0o755)
        );
        assert_eq!(fs::read_link(source.join("scripts/link")).unwrap(), Path::new("../main.c"));
    }
}

#[test]
fn a_repository_with_sha256_is_read_too() {
    let world = World::with_format("sha256");
    let commit = world.commit();
    assert_eq!(commit.len(), 64);
    assert!(world.checkout(&commit).unwrap().join("main.c").exists());
}

/// `chain-source-revision`.
#[test]
fn only_a_whole_id_of_a_commit_that_is_there_will_do() {
    let world = World::new();
    let commit = world.commit();
    world.git(&["tag", "--annotate", "--message", "m", "v1"]);
    let tag = world.git(&["rev-parse", "v1"]);
    let tree = world.git(&["rev-parse", "HEAD^{tree}"]);
    let blob = world.git(&["rev-parse", "HEAD:main.c"]);
    assert_ne!(tag, commit);
    world.checkout(&commit).unwrap();
    for id in [
        "",
        "HEAD",
        "v1",
        &commit[..12],
        &commit.to_uppercase(),
        &format!("{commit}\n"),
        &format!("{commit}^{{}}"),
        "--upload-pack=touch /tmp/p;",
        &"0".repeat(40),
        &"1".repeat(40),
        &tag,
        &tree,
        &blob,
    ] {
        assert_eq!(world.code(id), Code::ChainSourceMismatch, "{id:?}");
    }
    let into = world.files.path().join("hg/source");
    fs::create_dir_all(&into).unwrap();
    let refusal = checkout("/", &Revision::Mercurial(commit), &into).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceMismatch);
}

#[test]
fn a_repository_out_of_reach_decides_nothing() {
    let world = World::new();
    let commit = world.commit();
    let marker = world.files.path().join("marker");
    let run = format!("ext::sh -c touch% {}", marker.display());
    let upload = format!("--upload-pack=touch {}", marker.display());
    for from in [
        "/absent",
        "../../repository",
        "http://127.0.0.1:1/x",
        "https://127.0.0.1:1/x",
        "",
        &run,
        &upload,
    ] {
        let refusal = world.checkout_from(from, &commit).unwrap_err();
        assert_eq!(refusal.code, Code::GateUnavailable, "{from}: {refusal}");
    }
    assert!(!marker.exists());
}

#[test]
fn no_hook_filter_or_attribute_has_a_say() {
    let world = World::new();
    let marker = world.files.path().join("marker");
    let mark = format!("touch {} && cat", marker.display());
    world.write(
        ".gitattributes",
        "*.c ident\n*.bat text eol=crlf\n*.in filter=evil\n*.u working-tree-encoding=UTF-16\n\
         hidden export-ignore\nstamp export-subst\n",
    );
    let contents = [
        ("x.c", "/* $Id$ */\n"),
        ("run.bat", "echo\necho\n"),
        ("x.in", "in\n"),
        ("hidden", "hidden\n"),
        ("stamp", "$Format:%H$\n"),
        ("large.bin", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    ];
    for (name, content) in contents {
        world.write(name, content);
    }
    let commit = world.commit();
    world.git(&["config", "filter.evil.smudge", &mark]);
    world.git(&["config", "uploadpack.packObjectsHook", &format!("sh -c '{mark}'")]);
    world.git(&["config", "core.fsmonitor", &mark]);
    world.git(&["config", "core.sshCommand", &mark]);
    for hook in ["post-checkout", "post-index-change", "reference-transaction", "pre-auto-gc"] {
        let path = world.repository.join(".git/hooks").join(hook);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\ntouch {}\n", marker.display())).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    let source = world.checkout(&commit).unwrap();
    assert!(!marker.exists(), "something was run");
    for (name, content) in contents {
        assert_eq!(fs::read_to_string(source.join(name)).unwrap(), content, "{name}");
    }
    // plain git does run it, and does change files
    fs::remove_file(world.repository.join("x.in")).unwrap();
    fs::remove_file(world.repository.join("run.bat")).unwrap();
    world.git(&["checkout", "--force", "HEAD"]);
    assert!(marker.exists());
    assert_ne!(fs::read_to_string(world.repository.join("run.bat")).unwrap(), contents[1].1);
}

#[test]
fn replaced_objects_are_not_believed() {
    let world = World::new();
    let good = world.commit();
    world.write("main.c", "int evil;\n");
    let evil = world.commit();
    world.git(&["replace", &good, &evil]);
    assert_eq!(world.git(&["show", &format!("{good}:main.c")]), "int evil;");
    let source = world.checkout(&good).unwrap();
    assert_eq!(fs::read_to_string(source.join("main.c")).unwrap(), "int main;\n");
}

#[test]
fn a_changed_object_is_not_believed() {
    let world = World::new();
    let commit = world.commit();
    world.checkout(&commit).unwrap();
    let of = |id: &str| world.repository.join(".git/objects").join(&id[..2]).join(&id[2..]);
    let blob = world.git(&["rev-parse", "HEAD:main.c"]);
    world.write("evil.c", "int evil;\n");
    let evil = world.git(&["hash-object", "-w", "evil.c"]);
    fs::remove_file(of(&blob)).unwrap();
    fs::copy(of(&evil), of(&blob)).unwrap();
    let refusal = world.checkout(&commit).unwrap_err();
    assert!(matches!(refusal.code, Code::ChainSourceMismatch | Code::GateUnavailable), "{refusal}");
}

/// `art-symlink-directory`.
#[test]
fn links_that_lead_out_are_refused() {
    let world = World::new();
    world.write("a/b/file", "");
    for (link, target) in [("in", "a/b"), ("a/b/up", "../../main.c"), ("dangling", "absent")] {
        symlink(target, world.repository.join(link)).unwrap();
    }
    world.checkout(&world.commit()).unwrap();
    for (link, target) in
        [("out", "/etc/passwd"), ("out", ".."), ("a/out", "../../x"), ("out", "in/../../..")]
    {
        let path = world.repository.join(link);
        symlink(target, &path).unwrap();
        let refusal = world.checkout(&world.commit()).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{target}");
        assert!(refusal.at.ends_with(link), "{refusal}");
        fs::remove_file(&path).unwrap();
    }
    world.checkout(&world.commit()).unwrap();
}

#[test]
fn a_repository_of_another_user_is_read() {
    let world = World::new();
    let commit = world.commit();
    if rustix::process::geteuid().is_root() {
        let give = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
        give(&world.repository);
        give(&world.repository.join(".git"));
    }
    world.checkout(&commit).unwrap();
}

#[test]
fn submodules_are_not_followed() {
    let world = World::new();
    world.commit();
    let other = World::new();
    other.commit();
    let from = other.repository.display().to_string();
    world.git(&["submodule", "--quiet", "add", &from, "module"]);
    let commit = world.commit();
    assert!(world.repository.join("module/main.c").exists());
    let source = world.checkout(&commit).unwrap();
    assert_eq!(fs::read_dir(source.join("module")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_is_not_empty_is_not_overwritten() {
    let world = World::new();
    let commit = world.commit();
    let into = world.files.path().join("used/source");
    fs::create_dir_all(&into).unwrap();
    fs::write(into.join("main.c"), "left").unwrap();
    let from = world.repository.to_str().unwrap();
    assert!(checkout(from, &Revision::Git(commit), &into).is_err());
    assert_eq!(fs::read_to_string(into.join("main.c")).unwrap(), "left");
}
