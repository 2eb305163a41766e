//! Keys and signatures of people and machines.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_core::sshsig::{SshSignature, armor, dearmor};
use custody_core::{Code, Refusal};
use custody_sign::{Access, KeySource};
use zeroize::Zeroizing;

/// A public key in any form is the same key in all forms.
pub(crate) fn public_key(data: &[u8]) {
    let text = str::from_utf8(data).ok();
    let read = [
        text.and_then(|text| PublicKey::parse(text).ok()),
        PublicKey::from_spki_der(data).ok(),
        PublicKey::from_ssh_blob(data).ok().map(|(key, kind)| {
            assert_eq!(kind, key.ssh_type());
            key
        }),
    ];
    for key in read.into_iter().flatten() {
        assert_eq!(PublicKey::parse(&key.to_openssh()).as_ref(), Ok(&key));
        let spki = PublicKey::from_spki_der(&key.to_spki_der()).expect("what was written is read");
        assert_eq!(PublicKey::parse(&key.to_pem()).as_ref(), Ok(&spki));
        assert_eq!(spki.id(), key.id());
        // only OpenSSH's form names the application of a security key
        assert!(spki == key || key.dsse_scheme().is_none());
    }
}

/// A signature of a person names its key, and fits or not. The armoured text holds the same bytes.
pub(crate) fn sshsig(data: &[u8]) {
    if let Some(blob) = str::from_utf8(data).ok().and_then(|text| dearmor(text).ok()) {
        assert_eq!(dearmor(&armor(&blob)), Ok(blob));
    }
    let Ok(signature) = SshSignature::parse(data) else { return };
    let key = signature.claimed_key();
    assert_eq!(PublicKey::from_ssh_blob(&key.to_ssh_blob()).map(|(key, _)| key).as_ref(), Ok(key));
    if signature.check(key, b"message").is_ok() {
        signature.check(key, b"another").expect_err("a signature fits one message");
        signature.check_in("file", key, b"message").expect_err("a signature fits one namespace");
    }
}

static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("custody-fuzz-key-{}", std::process::id())));

pub(crate) const PASSPHRASE: &str = "correct horse";
pub(crate) const LABELS: [&str; 3] =
    ["PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "OPENSSH PRIVATE KEY"];

/// Without this bit in the first byte nobody knows the passphrase: most of the time is better spent than
/// on deriving keys.
pub(crate) const KNOWN: u8 = 4;

/// A private key file is opened or refused. The first byte chooses the PEM label of the rest; beyond
/// [`LABELS`] the file is left as it is.
pub(crate) fn private_key(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = match LABELS.get(usize::from(kind % KNOWN)) {
        Some(label) => {
            let body = base64(rest);
            format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n").into_bytes()
        }
        None => rest.to_vec(),
    };
    let mut file = std::fs::OpenOptions::new();
    file.write(true).create(true).truncate(true).mode(0o600);
    file.open(&*FILE).and_then(|mut file| file.write_all(&text)).expect("a file is written");
    let mut passphrase = |at: &str| match kind & KNOWN {
        KNOWN => Ok(Zeroizing::new(PASSPHRASE.to_owned())),
        _ => Err(Refusal::new(Code::KeyUnavailable, at, "a passphrase", "none")),
    };
    let mut access =
        Access { agent: None, security_key_provider: None, passphrase: &mut passphrase };
    if let Ok(signer) = KeySource::File(FILE.clone()).open(&mut access) {
        let key = signer.public_key().clone();
        // the halves of a hostile file need not fit: such a signature is not given out
        if key.dsse_scheme().is_some()
            && let Ok(sig) = signer.sign_ssh(b"message")
        {
            let signature = SshSignature::parse(&sig).expect("what was signed is read");
            signature.check(&key, b"message").expect("what was signed fits");
        }
    }
    std::fs::remove_file(&*FILE).expect("the file is removed");
}

/// What stands behind `--key`. A token's key is shown by a name that leads to the same key.
pub(crate) fn key_source(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(source) = KeySource::parse(text) else { return };
    if let KeySource::Token(uri) = source {
        let module = "?module-path=/lib/module.so";
        let shown = uri.to_string();
        let again = KeySource::parse(&format!("{shown}{module}"));
        let Ok(KeySource::Token(again)) = again else { panic!("{shown}: {again:?}") };
        assert_eq!(again.to_string(), shown);
    } else if let KeySource::File(path) = source {
        assert_eq!(path, Path::new(text));
    }
}
