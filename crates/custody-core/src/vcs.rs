//! Ids by which systems for version control name content, and what people sign with git.
//!
//! Most repositories name everything by SHA-1. Whoever can make two objects with one id can have one of
//! them approved and the other built. Git refuses what the known attacks make while it fetches; this
//! module computes ids and does not look for attacks. Repositories with SHA-256 do not have the weakness.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::crypto::Context;
use crate::encoding::hex;
use crate::envelope::{Form, Keyring, Signer};
use crate::sshsig::{self, SshSignature};
use crate::{Code, Refusal};

/// How a git repository names its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitHash {
    /// By SHA-1: ids of 40 digits.
    Sha1,
    /// By SHA-256: ids of 64 digits.
    Sha256,
}

impl GitHash {
    /// The one that makes ids as long as this one.
    pub const fn of_id(id: &str) -> Self {
        if id.len() == 64 { Self::Sha256 } else { Self::Sha1 }
    }

    /// How many bytes an id has.
    pub const fn id_bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }

    /// The header that holds the signature of a commit.
    const fn signature_header(self) -> &'static [u8] {
        match self {
            Self::Sha1 => b"gpgsig ",
            Self::Sha256 => b"gpgsig-sha256 ",
        }
    }
}

/// Computes the id of a git object as its content passes by.
#[derive(Clone, Debug)]
pub struct ObjectHasher {
    hash: GitHash,
    context: Context,
}

impl ObjectHasher {
    /// For an object of this kind (`blob`, `tree`, `commit` or `tag`) and size.
    pub fn new(hash: GitHash, kind: &str, size: u64) -> Self {
        let mut context = match hash {
            GitHash::Sha1 => Context::sha1_of_a_repository(),
            GitHash::Sha256 => Context::sha256(),
        };
        context.update(format!("{kind} {size}\0").as_bytes());
        Self { hash, context }
    }

    /// Takes in the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// The id in hexadecimal.
    pub fn finish(self) -> String {
        match self.hash {
            GitHash::Sha1 => hex(&self.context.finish::<20>()),
            GitHash::Sha256 => hex(&self.context.finish::<32>()),
        }
    }
}

/// The id of a git object.
pub fn git_id(hash: GitHash, kind: &str, content: &[u8]) -> String {
    let size = u64::try_from(content.len()).unwrap_or(u64::MAX);
    let mut hasher = ObjectHasher::new(hash, kind, size);
    hasher.update(content);
    hasher.finish()
}

/// The id of a revision of a changelog, manifest or file in Mercurial.
pub fn hg_node(parents: &[[u8; 20]; 2], text: &[u8]) -> [u8; 20] {
    let [one, other] = parents;
    let mut context = Context::sha1_of_a_repository();
    context.update(one.min(other));
    context.update(one.max(other));
    context.update(text);
    context.finish()
}

/// What carries the signature of a person for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedKind {
    /// The commit itself.
    Commit,
    /// An annotated tag that names the commit.
    Tag,
}

impl SignedKind {
    /// The word for it, which is git's own.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tag => "tag",
        }
    }
}

/// A git object with an SSH signature that nobody has checked yet.
#[derive(Clone, Debug)]
pub struct SignedObject {
    payload: Vec<u8>,
    signature: Vec<u8>,
}

fn unsigned(kind: SignedKind, found: impl Into<String>) -> Refusal {
    let at = format!("{} object", kind.word());
    Refusal::new(Code::ChainSourceUnsigned, at, "one SSH signature", found)
}

impl SignedObject {
    /// Reads the raw object that carries the signature for the commit `id`: the commit itself, whose
    /// bytes must have that id, or a tag that names it.
    pub fn read(kind: SignedKind, raw: &[u8], id: &str) -> Result<Self, Refusal> {
        let (payload, armored) = match kind {
            SignedKind::Commit => {
                let found = git_id(GitHash::of_id(id), "commit", raw);
                if found != id {
                    let at = "commit object";
                    return Err(Refusal::new(Code::ChainSourceMismatch, at, id, found));
                }
                commit_parts(raw, GitHash::of_id(id))?
            }
            SignedKind::Tag => tag_parts(raw, id)?,
        };
        let text = core::str::from_utf8(&armored).unwrap_or_default();
        let blob = sshsig::dearmor(text).map_err(|_| unsigned(kind, other_signature(text)))?;
        Ok(Self { payload, signature: blob })
    }

    /// The known key that made the signature, over these bytes and for git.
    pub fn signer(&self, keyring: &Keyring) -> Result<Signer, Refusal> {
        let signature = SshSignature::parse(&self.signature)?;
        let claimed = signature.claimed_key();
        let key = keyring.get(&claimed.id()).ok_or_else(|| {
            let expected = "a key that the policy lists";
            Refusal::new(Code::EnvKeyUnknown, "", expected, claimed.to_openssh())
        })?;
        match signature.check_in("git", key, &self.payload) {
            Ok(facts) => Ok(Signer { key: key.id(), form: Form::Ssh(facts) }),
            Err(refusal) if refusal.code == Code::SignoffNamespace => {
                let found = format!("one for {}", refusal.found);
                Err(Refusal::new(Code::ChainSourceUnsigned, "", "a signature for git", found))
            }
            Err(refusal) => Err(refusal),
        }
    }
}

fn other_signature(text: &str) -> &'static str {
    if text.starts_with("-----BEGIN PGP") {
        "a PGP signature, which is not read: sign with gpg.format=ssh"
    } else if text.starts_with("-----BEGIN SIGNED MESSAGE") {
        "an X.509 signature, which is not read: sign with gpg.format=ssh"
    } else {
        "something else in its place"
    }
}

/// A line with its end, and what follows.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.map_or(bytes.len(), |at| at.saturating_add(1));
    bytes.split_at_checked(end).unwrap_or((bytes, &[]))
}

/// What is signed of a commit, and the text of its signature: a header whose further lines begin with
/// a blank. Two signatures would be two truths.
fn commit_parts(raw: &[u8], hash: GitHash) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let mut payload = Vec::new();
    let mut armored: Option<Vec<u8>> = None;
    let (mut rest, mut inside) = (raw, false);
    while !rest.is_empty() && !rest.starts_with(b"\n") {
        let (line, after) = split_line(rest);
        rest = after;
        match (line.strip_prefix(b" "), &mut armored) {
            (Some(more), Some(text)) if inside => {
                text.extend_from_slice(more);
                continue;
            }
            _ => inside = false,
        }
        if let Some(first) = line.strip_prefix(hash.signature_header()) {
            if armored.is_some() {
                return Err(unsigned(SignedKind::Commit, "two"));
            }
            armored = Some(first.to_vec());
            inside = true;
        } else if line.starts_with(b"gpgsig") {
            return Err(unsigned(SignedKind::Commit, "one for another kind of repository"));
        } else {
            payload.extend_from_slice(line);
        }
    }
    payload.extend_from_slice(rest);
    armored.map(|text| (payload, text)).ok_or_else(|| unsigned(SignedKind::Commit, "none"))
}

/// What is signed of a tag, and the text of its signature, which stands at its end.
fn tag_parts(raw: &[u8], id: &str) -> Result<(Vec<u8>, Vec<u8>), Refusal> {
    let head = format!("object {id}\ntype commit\ntag ");
    if !raw.starts_with(head.as_bytes()) {
        let (first, _) = split_line(raw);
        let found: String = String::from_utf8_lossy(first).escape_debug().take(120).collect();
        let expected = format!("a tag of commit {id}");
        return Err(Refusal::new(Code::ChainSourceMismatch, "tag object", expected, found));
    }
    let (mut rest, mut start) = (raw, None);
    while !rest.is_empty() {
        let (line, after) = split_line(rest);
        if line.starts_with(b"-----BEGIN ") {
            if start.is_some() {
                return Err(unsigned(SignedKind::Tag, "two"));
            }
            start = Some(raw.len().saturating_sub(rest.len()));
        }
        rest = after;
    }
    let start = start.ok_or_else(|| unsigned(SignedKind::Tag, "none"))?;
    let (payload, armored) = raw.split_at_checked(start).unwrap_or((raw, &[]));
    Ok((payload.to_vec(), armored.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_git_and_mercurial() {
        let empty = |hash| git_id(hash, "tree", b"");
        assert_eq!(empty(GitHash::Sha1), "4b825dc642cb6eb9a060e54bf8d69288fbee4904");
        let long = "6ef19b41225c5369f1c104d45d8d85efa9b057b53b14b4b9b939dd74decc5321";
        assert_eq!(empty(GitHash::Sha256), long);
        let node = hg_node(&[[0; 20], [0; 20]], b"");
        assert_eq!(hex(&node), "b80de5d138758541c5f05265ad144ab9fa86d1db");
        let (a, b) = ([1; 20], [2; 20]);
        assert_eq!(hg_node(&[a, b], b"x"), hg_node(&[b, a], b"x"));
    }

    #[test]
    fn what_is_signed_of_a_commit_is_all_but_the_signature() {
        let raw = b"tree t\nmergetag x\n gpgsig y\ngpgsig first\n second\n\n third\nauthor a\n\ngpgsig z\n";
        // an empty line ends the headers, also where somebody meant a signature to go on
        let (payload, armored) = commit_parts(raw, GitHash::Sha1).unwrap();
        assert_eq!(armored, b"first\nsecond\n");
        assert!(payload.starts_with(b"tree t\nmergetag x\n gpgsig y\n\n third\n"));
        for (bad, found) in [
            (&b"tree t\n\ngpgsig x\n"[..], "none"),
            (b"gpgsig x\n y\ngpgsig x\n\n", "two"),
            (b"gpgsig-sha256 x\n\n", "one for another kind of repository"),
        ] {
            let refusal = commit_parts(bad, GitHash::Sha1).unwrap_err();
            assert_eq!((refusal.code, &*refusal.found), (Code::ChainSourceUnsigned, found));
        }
    }
}
