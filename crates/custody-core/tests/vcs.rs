//! What people sign with git, by objects made here.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custody_core::Code;
use custody_core::crypto::sha512;
use custody_core::envelope::{Form, Keyring};
use custody_core::key::PublicKey;
use custody_core::sshsig::{NAMESPACE, armor, put_string};
use custody_core::vcs::{GitHash, ObjectHasher, SignedKind, SignedObject, git_id};

const HEADERS: &str = "tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nauthor A <a@b> 1 +0000\n";
const BODY: &str = "\nSubject\n\ngpgsig in the text\n more text\n";

struct Person(Ed25519KeyPair);

impl Person {
    fn new() -> Self {
        Self(Ed25519KeyPair::generate().unwrap())
    }

    fn keyring(&self) -> Keyring {
        let mut keyring = Keyring::default();
        keyring.insert(self.key());
        keyring
    }

    fn key(&self) -> PublicKey {
        PublicKey::Ed25519(self.0.public_key().as_ref().try_into().unwrap())
    }

    /// As `ssh-keygen -Y sign -n NAMESPACE` does.
    fn armored(&self, namespace: &str, message: &str) -> String {
        let mut data = b"SSHSIG".to_vec();
        let digest = sha512(message.as_bytes());
        for part in [namespace.as_bytes(), b"", b"sha512", &digest] {
            put_string(&mut data, part);
        }
        let mut inner = Vec::new();
        put_string(&mut inner, b"ssh-ed25519");
        put_string(&mut inner, self.0.sign(&data).as_ref());
        let mut blob = b"SSHSIG\x00\x00\x00\x01".to_vec();
        for part in [&self.key().to_ssh_blob(), namespace.as_bytes(), b"", b"sha512", &inner] {
            put_string(&mut blob, part);
        }
        armor(&blob)
    }

    /// A commit as git writes it: the signature in a header, `more` behind that.
    fn commit(&self, hash: GitHash, namespace: &str, more: &str) -> String {
        let signature = self.armored(namespace, &format!("{HEADERS}{more}{BODY}"));
        let name = if hash == GitHash::Sha1 { "gpgsig" } else { "gpgsig-sha256" };
        let header = signature.trim_end().replace('\n', "\n ");
        format!("{HEADERS}{name} {header}\n{more}{BODY}")
    }

    fn tag(&self, commit: &str) -> String {
        let text = format!("object {commit}\ntype commit\ntag v1\ntagger A <a@b> 1 +0000\n\nOne\n");
        text.clone() + &self.armored("git", &text)
    }
}

fn read(kind: SignedKind, raw: &str, id: &str) -> Result<SignedObject, Code> {
    SignedObject::read(kind, raw.as_bytes(), id).map_err(|refusal| refusal.code)
}

#[test]
fn a_commit_is_signed_by_whose_key_fits() {
    let (alice, bob) = (Person::new(), Person::new());
    let more = "mergetag object 00\n type commit\n tag v0\n";
    for (hash, more) in [(GitHash::Sha1, ""), (GitHash::Sha256, ""), (GitHash::Sha1, more)] {
        let raw = alice.commit(hash, "git", more);
        let id = git_id(hash, "commit", raw.as_bytes());
        assert_eq!(id.len(), hash.id_bytes() * 2);
        assert_eq!(GitHash::of_id(&id), hash);
        let object = read(SignedKind::Commit, &raw, &id).unwrap();
        let signer = object.signer(&alice.keyring()).unwrap();
        assert_eq!((signer.key, signer.form), (alice.key().id(), Form::Ssh(None)));
        let stranger = object.signer(&bob.keyring()).unwrap_err();
        assert_eq!(stranger.code, Code::EnvKeyUnknown);

        let changed = raw.replace("Subject", "Another");
        assert_eq!(read(SignedKind::Commit, &changed, &id).unwrap_err(), Code::ChainSourceMismatch);
        let its_id = git_id(hash, "commit", changed.as_bytes());
        let object = read(SignedKind::Commit, &changed, &its_id).unwrap();
        let refusal = object.signer(&alice.keyring()).unwrap_err();
        assert_eq!(refusal.code, Code::EnvSignatureInvalid);
    }
}

#[test]
fn a_tag_is_signed_by_whose_key_fits() {
    let alice = Person::new();
    let commit = "ab".repeat(20);
    let raw = alice.tag(&commit);
    let object = read(SignedKind::Tag, &raw, &commit).unwrap();
    assert_eq!(object.signer(&alice.keyring()).unwrap().key, alice.key().id());
    let other = "cd".repeat(20);
    assert_eq!(read(SignedKind::Tag, &raw, &other).unwrap_err(), Code::ChainSourceMismatch);
    let twice = raw.clone() + &alice.armored("git", &raw);
    assert_eq!(read(SignedKind::Tag, &twice, &commit).unwrap_err(), Code::ChainSourceUnsigned);
    let (text, _) = raw.split_once("-----BEGIN").unwrap();
    assert_eq!(read(SignedKind::Tag, text, &commit).unwrap_err(), Code::ChainSourceUnsigned);
    let changed = raw.replace("One", "Two");
    let object = read(SignedKind::Tag, &changed, &commit).unwrap();
    let refusal = object.signer(&alice.keyring()).unwrap_err();
    assert_eq!(refusal.code, Code::EnvSignatureInvalid);
}

#[test]
fn what_was_signed_for_something_else_is_no_signature_for_git() {
    let alice = Person::new();
    let raw = alice.commit(GitHash::Sha1, NAMESPACE, "");
    let object =
        read(SignedKind::Commit, &raw, &git_id(GitHash::Sha1, "commit", raw.as_bytes())).unwrap();
    let refusal = object.signer(&alice.keyring()).unwrap_err();
    assert_eq!(refusal.code, Code::ChainSourceUnsigned);
    assert_eq!(refusal.found, format!("one for {NAMESPACE}"));
}

#[test]
fn other_signatures_are_told_by_name() {
    for (begin, word) in [
        ("-----BEGIN PGP SIGNATURE-----", "PGP"),
        ("-----BEGIN SIGNED MESSAGE-----", "X.509"),
        ("-----BEGIN SOMETHING-----", "something else"),
    ] {
        let raw = format!("{HEADERS}gpgsig {begin}\n x\n{BODY}");
        let id = git_id(GitHash::Sha1, "commit", raw.as_bytes());
        let refusal = SignedObject::read(SignedKind::Commit, raw.as_bytes(), &id).unwrap_err();
        assert_eq!((refusal.code, &*refusal.at), (Code::ChainSourceUnsigned, "commit object"));
        assert!(refusal.found.contains(word), "{}", refusal.found);
        let raw = format!("object {id}\ntype commit\ntag v1\n\n{begin}\n");
        let refusal = SignedObject::read(SignedKind::Tag, raw.as_bytes(), &id).unwrap_err();
        assert_eq!((refusal.code, &*refusal.at), (Code::ChainSourceUnsigned, "tag object"));
        assert!(refusal.found.contains(word), "{}", refusal.found);
    }
}

#[test]
fn an_object_in_pieces_is_the_object() {
    let mut pieces = ObjectHasher::new(GitHash::Sha1, "blob", 6);
    pieces.update(b"hel");
    pieces.update(b"lo\n");
    assert_eq!(pieces.finish(), "ce013625030ba8dba906f756967f9e9ca394464a");
}
