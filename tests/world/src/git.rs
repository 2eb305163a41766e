//! Commits and tags that people signed, as git makes them with SSH.

use custody_core::crypto::sha512;
use custody_core::sshsig::{armor, put_string};
use custody_core::vcs::{GitHash, git_id};

use crate::Key;

const TREE: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n";
const REST: &str = "author t <t@t> 1 +0000\ncommitter t <t@t> 1 +0000\n\nhello\n";

/// A signature as `ssh-keygen -Y sign -n NAMESPACE` makes it.
pub fn signature(name: &str, namespace: &str, payload: &str) -> String {
    let key = Key::of(name);
    let mut data = b"SSHSIG".to_vec();
    for part in [namespace.as_bytes(), b"", b"sha512", &sha512(payload.as_bytes())] {
        put_string(&mut data, part);
    }
    let mut inner = Vec::new();
    put_string(&mut inner, key.public.ssh_type().as_bytes());
    put_string(&mut inner, &key.raw(&data));
    let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
    put_string(&mut blob, &key.public.to_ssh_blob());
    for part in [namespace.as_bytes(), b"", b"sha512", &inner] {
        put_string(&mut blob, part);
    }
    armor(&blob)
}

pub fn unsigned_commit() -> String {
    format!("{TREE}{REST}")
}

/// The commit with this text as its signature.
pub fn commit_with(signature: &str) -> String {
    let lines = signature.trim_end().replace('\n', "\n ");
    format!("{TREE}{}", REST.replacen("\n\n", &format!("\ngpgsig {lines}\n\n"), 1))
}

pub fn signed_commit(name: &str) -> String {
    commit_with(&signature(name, "git", &unsigned_commit()))
}

pub fn signed_tag(name: &str, commit: &str) -> String {
    let payload = format!("object {commit}\ntype commit\ntag v1\ntagger t <t@t> 1 +0000\n\nv1\n");
    format!("{payload}{}", signature(name, "git", &payload))
}

pub fn id_of(commit: &str) -> String {
    git_id(GitHash::Sha1, "commit", commit.as_bytes())
}
