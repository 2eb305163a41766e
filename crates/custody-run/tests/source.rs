//! The source, out of repositories that nobody vouches for.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_core::statement::{Revision, Source, Submodule};
use custody_core::vcs::SignedKind;
use custody_core::{Code, Refusal};
use custody_run::source::{Checked, Demanded, Rules, checkout};
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
        self.checkout_by(from, id, &Rules::default()).map(|(into, _)| into)
    }

    fn checkout_by(
        &self,
        from: &str,
        id: &str,
        rules: &Rules<'_>,
    ) -> Result<(PathBuf, Checked), Refusal> {
        self.checkouts.set(self.checkouts.get() + 1);
        let run = self.files.path().join(format!("run{}", self.checkouts.get()));
        let into = run.join("source");
        fs::create_dir_all(&into).unwrap();
        let source = Source { uri: from.into(), revision: Revision::Git(id.to_owned()) };
        let checked = checkout(from, &source, rules, &into);
        let left: Vec<_> = fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(left, [into.as_path()], "nothing else is left beside it");
        checked.map(|checked| (into, checked))
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
        "file://localhost/x",
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

/// `chain-source-submodule`
#[test]
fn submodules_come_from_where_the_policy_says() {
    let (world, inner, innermost) = (World::new(), World::new(), World::new());
    innermost.write("deep.c", "int deep;\n");
    let deep = innermost.commit();
    let uri = |world: &World| format!("file://{}", world.repository.display());
    inner.git(&["submodule", "--quiet", "add", &uri(&innermost), "third party/deep"]);
    let middle = inner.commit();
    world.commit();
    world.git(&["submodule", "--quiet", "add", &uri(&inner), "lib"]);
    let commit = world.commit();
    let from = uri(&world);

    let refusal = world.checkout_from(&from, &commit).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceForbidden, "{refusal}");
    assert!(refusal.at.ends_with("submodule lib"), "{refusal}");
    // the inner one is not allowed by the outer one
    let only_inner = |found: &str| found == uri(&inner);
    let rules = Rules { submodule: &only_inner, ..Rules::default() };
    let refusal = world.checkout_by(&from, &commit, &rules).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceForbidden, "{refusal}");
    assert!(refusal.at.contains("lib/third party/deep"), "{refusal}");

    let rules = Rules { submodule: &|_| true, ..Rules::default() };
    let (source, checked) = world.checkout_by(&from, &commit, &rules).unwrap();
    assert_eq!(
        fs::read_to_string(source.join("lib/third party/deep/deep.c")).unwrap(),
        "int deep;\n"
    );
    let submodule = |path: &str, world: &World, commit: &str| Submodule {
        path: path.parse().unwrap(),
        uri: uri(world),
        commit: commit.into(),
    };
    let expected =
        [submodule("lib", &inner, &middle), submodule("lib/third party/deep", &innermost, &deep)];
    assert_eq!(checked.submodules, expected);

    // a commit that the repository of the submodule does not have
    let lost = format!("160000,{},lib", "1".repeat(40));
    world.git(&["update-index", "--cacheinfo", &lost]);
    world.git(&["commit", "--quiet", "--message", "m"]);
    let commit = world.git(&["rev-parse", "HEAD"]);
    let refusal = world.checkout_by(&from, &commit, &rules).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
    // one of which nobody says where it is
    world.git(&["rm", "--quiet", "--cached", ".gitmodules"]);
    world.git(&["commit", "--quiet", "--message", "m"]);
    let commit = world.git(&["rev-parse", "HEAD"]);
    let refusal = world.checkout_by(&from, &commit, &rules).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
    assert!(refusal.expected.contains(".gitmodules"), "{refusal}");
}

#[test]
fn a_relative_submodule_is_beside_its_repository() {
    let (world, inner) = (World::new(), World::new());
    let pinned = inner.commit();
    world.commit();
    world.write(".gitmodules", "[submodule \"x\"]\n\tpath = lib\n\turl = ../repository\n");
    world.git(&["add", ".gitmodules"]);
    world.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{pinned},lib")]);
    world.git(&["commit", "--quiet", "--message", "m"]);
    let commit = world.git(&["rev-parse", "HEAD"]);
    let asked = std::cell::RefCell::new(Vec::new());
    let allow = |uri: &str| {
        asked.borrow_mut().push(uri.to_owned());
        false
    };
    let rules = Rules { submodule: &allow, ..Rules::default() };
    let into = world.files.path().join("relative/source");
    fs::create_dir_all(&into).unwrap();
    let from = world.repository.to_str().unwrap();
    let git = |uri: &str| Source { uri: uri.into(), revision: Revision::Git(commit.clone()) };
    // by the name that the policy has for the source, wherever it is fetched from
    let named = git("https://git.example.org/group/hello");
    assert_eq!(checkout(from, &named, &rules, &into).unwrap_err().code, Code::ChainSourceForbidden);
    assert_eq!(*asked.borrow(), ["https://git.example.org/group/repository"]);
    let short = git("https://git.example.org");
    fs::remove_dir_all(&into).unwrap();
    fs::create_dir_all(&into).unwrap();
    assert_eq!(checkout(from, &short, &rules, &into).unwrap_err().code, Code::ChainSourceMismatch);
}

/// `chain-source-lfs`
#[test]
fn a_pointer_stands_for_the_file_that_it_names() {
    let world = World::new();
    let content = "large\n".repeat(1000);
    let oid = custody_core::digest::Sha256::of(content.as_bytes()).to_string();
    let pointer = |size: usize| {
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n")
    };
    world.write("large.bin", &pointer(content.len()));
    let commit = world.commit();
    let at = format!(".git/lfs/objects/{}/{}/{oid}", &oid[..2], &oid[2..4]);
    let read = |source: &Path| fs::read_to_string(source.join("large.bin")).unwrap();
    let rules = Rules { lfs: true, ..Rules::default() };
    let from = world.repository.to_str().unwrap();

    // without the policy's word a pointer is a file like others
    assert_eq!(read(&world.checkout(&commit).unwrap()), pointer(content.len()));
    let refusal = world.checkout_by(from, &commit, &rules).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal}");
    world.write(&at, &content);
    assert_eq!(read(&world.checkout_by(from, &commit, &rules).unwrap().0), content);
    for other in [content.replace("large\n", "Large\n"), format!("{content}x"), String::new()] {
        world.write(&at, &other);
        let refusal = world.checkout_by(from, &commit, &rules).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
        assert!(refusal.at.contains(&oid), "{refusal}");
    }
    world.write(&at, &content);
    world.write("large.bin", &pointer(content.len() + 1));
    let refusal = world.checkout_by(from, &world.commit(), &rules).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
}

#[test]
fn the_signed_object_is_shown_before_a_file_is_written() {
    let world = World::new();
    let commit = world.commit();
    let from = world.repository.to_str().unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    let look = |raw: Option<&[u8]>| {
        seen.borrow_mut().push(raw.map(<[u8]>::to_vec));
        raw.map(|_| ()).ok_or_else(|| Refusal::new(Code::ChainSourceUnsigned, "", "one", "none"))
    };
    let demanded =
        |what| Rules { signature: Some(Demanded { what, check: &look }), ..Rules::default() };
    let (_, checked) = world.checkout_by(from, &commit, &demanded(SignedKind::Commit)).unwrap();
    let raw = world.git(&["cat-file", "commit", &commit]).into_bytes();
    assert!(checked.signed.unwrap().starts_with(&raw));

    // a light tag is no object, and a tag of another commit is not one of this
    world.git(&["tag", "light"]);
    world.write("other", "");
    let other = world.commit();
    world.git(&["tag", "--annotate", "--message", "m", "v2"]);
    let refusal = world.checkout_by(from, &commit, &demanded(SignedKind::Tag)).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceUnsigned, "{refusal}");
    let (_, checked) = world.checkout_by(from, &other, &demanded(SignedKind::Tag)).unwrap();
    let tag = String::from_utf8(checked.signed.unwrap()).unwrap();
    assert!(tag.starts_with(&format!("object {other}\ntype commit\ntag v2\n")), "{tag}");
    assert_eq!(seen.borrow().len(), 3);

    let refuse = |_: Option<&[u8]>| Err(Refusal::new(Code::ChainSourceUnsigned, "", "one", "none"));
    let rules = Rules {
        signature: Some(Demanded { what: SignedKind::Commit, check: &refuse }),
        ..Rules::default()
    };
    let into = world.files.path().join("unsigned/source");
    fs::create_dir_all(&into).unwrap();
    let source = Source { uri: from.into(), revision: Revision::Git(commit) };
    assert_eq!(checkout(from, &source, &rules, &into).unwrap_err().code, Code::ChainSourceUnsigned);
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
}

/// `chain-source-tree-names`
#[test]
fn a_tree_with_names_that_are_not_safe_is_refused() {
    let world = World::new();
    let commit = world.commit();
    world.checkout(&commit).unwrap();
    let blob = world.git(&["rev-parse", "HEAD:main.c"]);
    for name in [".git", ".GIT", "git~1", ".git ", "..", "."] {
        let mut tree = format!("100644 {name}\0").into_bytes();
        tree.extend(custody_core::encoding::hex_decode(&blob).unwrap());
        fs::write(world.files.path().join("tree"), tree).unwrap();
        let path = world.files.path().join("tree").display().to_string();
        let tree = world.git(&["hash-object", "--literally", "-t", "tree", "-w", &path]);
        let commit = world.git(&["commit-tree", "-m", "m", &tree]);
        assert_eq!(world.code(&commit), Code::ChainSourceMismatch, "{name:?}");
    }
}

#[test]
fn a_directory_that_is_not_empty_is_not_overwritten() {
    let world = World::new();
    let commit = world.commit();
    let into = world.files.path().join("used/source");
    fs::create_dir_all(&into).unwrap();
    fs::write(into.join("main.c"), "left").unwrap();
    let from = world.repository.to_str().unwrap();
    let source = Source { uri: from.into(), revision: Revision::Git(commit) };
    let refusal = checkout(from, &source, &Rules::default(), &into).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
    assert_eq!(fs::read_to_string(into.join("main.c")).unwrap(), "left");
}
