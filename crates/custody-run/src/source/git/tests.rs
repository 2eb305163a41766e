//! What a repository says after it was fetched is not believed either.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A repository of ours with one commit of one file, made by git's plumbing.
fn repository(beside: &Path) -> (Git, String, String) {
    let git = Git::new(beside, GitHash::Sha1).unwrap();
    let path = beside.join("content");
    fs::write(&path, "int main;\n").unwrap();
    let written = |arguments: &[&str]| {
        let mut command = git.command();
        command.args(["-c", "user.name=t", "-c", "user.email=t@t"]).args(arguments);
        let printed = run(&mut command, git.directory.path(), &[], "git").unwrap();
        String::from_utf8(printed).unwrap().trim().to_owned()
    };
    let blob = written(&["hash-object", "-w", path.to_str().unwrap()]);
    written(&["update-index", "--add", "--cacheinfo", &format!("100644,{blob},main.c")]);
    let commit = written(&["commit-tree", "-m", "m", &written(&["write-tree"])]);
    (git, commit, blob)
}

fn write_to(git: &Git, commit: &str, root: &Path) -> Result<(), Refusal> {
    fs::create_dir(root).unwrap();
    let mut tree = Tree::new(root)?;
    let mut objects = Objects::open(git)?;
    let raw = objects.small(commit, "commit", OBJECT_BYTES)?;
    let place = Place { from: "/", uri: "/", prefix: PathBuf::new(), nested: 0 };
    write(git, &mut objects, &raw, &place, &Rules::default(), &mut tree, &mut Vec::new())?;
    tree.finish()
}

/// `chain-source-object-swapped`
#[test]
fn an_object_that_lies_under_the_id_of_another_is_refused() {
    let files = tempfile::tempdir().unwrap();
    let (git, commit, blob) = repository(files.path());
    write_to(&git, &commit, &files.path().join("good")).unwrap();
    let objects = git.directory.path().join("repository/objects");
    let place = |id: &str| objects.join(&id[..2]).join(&id[2..]);
    let evil = files.path().join("evil");
    for (i, (id, kind, content)) in [
        (blob.as_str(), "blob", "int evil;\n"),
        (commit.as_str(), "commit", "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n\n"),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&evil, content).unwrap();
        let path = evil.to_str().unwrap();
        let other = git.run(&["hash-object", "--literally", "-w", "-t", kind, path]).unwrap();
        let other = String::from_utf8(other).unwrap().trim().to_owned();
        let honest = fs::read(place(id)).unwrap();
        fs::set_permissions(place(id), fs::Permissions::from_mode(0o644)).unwrap();
        fs::copy(place(&other), place(id)).unwrap();
        // git itself gives it out under the wrong id
        let given = git.run(&["cat-file", kind, id]).unwrap();
        assert_eq!(given, content.as_bytes());
        let refusal = write_to(&git, &commit, &files.path().join(format!("bad{i}"))).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch, "{refusal}");
        assert!(refusal.at.contains(id), "{refusal}");
        assert!(refusal.found.contains(&other), "{refusal}");
        fs::set_permissions(place(id), fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(place(id), honest).unwrap();
    }
    write_to(&git, &commit, &files.path().join("again")).unwrap();
}

#[test]
fn urls_of_submodules_are_found_beside_their_repository() {
    for (around, url, expected) in [
        ("https://x.example/a/b", "../c", Some("https://x.example/a/c")),
        ("https://x.example/a/b/", "../../c.git", Some("https://x.example/c.git")),
        ("https://x.example/a", "./c", Some("https://x.example/a/c")),
        ("/srv/git/a", "../b", Some("/srv/git/b")),
        ("https://x.example/a", "https://y.example/b", Some("https://y.example/b")),
        ("https://x.example/a", "../../b", None),
        ("https://x.example", "../b", None),
        ("/a", "../../b", None),
    ] {
        assert_eq!(resolved(around, url).ok().as_deref(), expected, "{around} {url}");
    }
}
