use super::*;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::sync::LazyLock;

/// The software key, built once.
pub(crate) static PROVIDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("security-key");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/security-key/Cargo.toml");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path", manifest]);
    run(cargo.arg("--target-dir").arg(&target));
    target.join("debug").join(format!("{DLL_PREFIX}security_key{DLL_SUFFIX}"))
});

pub(crate) const KINDS: [(&str, &str); 2] = [
    ("ed25519-sk", "sk-ssh-ed25519@openssh.com"),
    ("ecdsa-sk", "sk-ecdsa-sha2-nistp256@openssh.com"),
];

/// Enrols a key all of whose signatures carry the flags.
pub(crate) fn enrol(kind: &str, flags: u8, path: &Path) -> PublicKey {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", kind, "-N", "", "-C", "a comment", "-w"]).arg(&*PROVIDER);
    run(command.arg("-f").arg(path).env("SECURITY_KEY_FLAGS", flags.to_string()));
    public_of(path)
}

fn open_security_key(path: &Path) -> Box<dyn Signer> {
    let mut access = Access {
        agent: None,
        security_key_provider: Some(&PROVIDER),
        passphrase: &mut |_| panic!("ssh-keygen asks itself"),
    };
    KeySource::File(path.to_owned()).open(&mut access).unwrap()
}

#[test]
fn security_keys_sign_and_state_what_the_person_did() {
    let (_folder, path) = folder();
    for (kind, name) in KINDS {
        for flags in [0x05, 0x01, 0x04, 0x00] {
            let file = path(&format!("{kind}{flags}"));
            let key = enrol(kind, flags, &file);
            let signer = open_security_key(&file);
            assert_eq!(*signer.public_key(), key);
            assert_eq!(key.ssh_type(), name);
            let facts = signs_as_person(&*signer).unwrap();
            assert_eq!(facts.user_present, flags & 0x01 != 0);
            assert_eq!(facts.user_verified, flags & 0x04 != 0);
            assert_eq!(facts.origin, None);
            accepts_ssh_keygen(&file, Some(&PROVIDER));
        }
    }
}

#[test]
fn a_security_key_makes_no_signature_of_a_machine() {
    let (_folder, path) = folder();
    enrol("ed25519-sk", 0x01, &path("key"));
    let signer = open_security_key(&path("key"));
    let mut envelope = unsigned();
    let refusal = sign_envelope_as_machine(&mut envelope, &*signer).unwrap_err();
    assert_eq!(refusal.code, Code::EnvAlgForbidden);
    assert!(envelope.signatures().is_empty());
    sign_envelope_as_person(&mut envelope, &*signer).unwrap();
}

#[test]
fn an_absent_security_key_is_refused() {
    let (_folder, path) = folder();
    enrol("ecdsa-sk", 0x01, &path("key"));
    assert!(open_security_key(&path("key")).sign_ssh(MESSAGE).is_ok());
    let mut access = Access {
        agent: None,
        security_key_provider: Some(Path::new("/nonexistent/provider.so")),
        passphrase: &mut |_| panic!("ssh-keygen asks itself"),
    };
    let signer = KeySource::File(path("key")).open(&mut access).unwrap();
    assert_eq!(signer.sign_ssh(MESSAGE).unwrap_err().code, Code::KeyUnavailable);
}
