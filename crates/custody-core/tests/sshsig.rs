//! SSHSIG: the vectors of others, and security keys and passkeys in memory whose every signature
//! fits and whose statements are wrong in one way each.
#![cfg(test)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custody_core::Code;
use custody_core::crypto::sha256;
use custody_core::encoding::base64url;
use custody_core::key::PublicKey;
use custody_core::sshsig::{
    Facts, NAMESPACE, SshSignature, armor, dearmor, from_agent, mpint, put_string, signed_data,
};

/// The folder of vectors, or nothing, said aloud.
fn vectors(folder: &str) -> Option<PathBuf> {
    let path = env::var_os("CUSTODY_VECTORS").map(|root| Path::new(&root).join(folder));
    if path.is_none() {
        let required = env::var_os("CUSTODY_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!required, "CUSTODY_VECTORS is not set");
        // Not eprintln: the test harness would hide that.
        writeln!(std::io::stderr(), "skipped: CUSTODY_VECTORS is not set").unwrap();
    }
    path
}

struct Vector {
    key: PublicKey,
    blob: Vec<u8>,
    message: Vec<u8>,
    namespace: String,
}

impl Vector {
    fn check(&self, blob: &[u8], message: &[u8]) -> Result<Option<Facts>, Code> {
        let signature = SshSignature::parse(blob).map_err(|refusal| refusal.code)?;
        let checked = signature.check_in(&self.namespace, &self.key, message);
        checked.map_err(|refusal| refusal.code)
    }

    /// What the signature states. It is accepted as it is and in no other way.
    fn accepted(&self) -> Option<Facts> {
        let facts = self.check(&self.blob, &self.message).unwrap();
        let signature = SshSignature::parse(&self.blob).unwrap();
        assert_eq!(*signature.claimed_key(), self.key);
        assert_eq!(dearmor(&armor(&self.blob)).unwrap(), self.blob);

        let ours = signature.check(&self.key, &self.message).unwrap_err();
        assert_eq!(ours.code, Code::SignoffNamespace);
        let other = [&self.message[..], b"\n"].concat();
        let code = self.check(&self.blob, &other).unwrap_err();
        assert!(
            matches!(code, Code::EnvSignatureInvalid | Code::SignoffChallengeMismatch),
            "{code}"
        );
        let stranger = PublicKey::Ed25519([0x15; 32]);
        let refusal = signature.check_in(&self.namespace, &stranger, &self.message).unwrap_err();
        assert_eq!(refusal.code, Code::SignoffCredentialUnknown);

        for i in 0..self.blob.len() {
            for bit in [0x01, 0x80] {
                let mut tampered = self.blob.clone();
                tampered[i] ^= bit;
                assert!(self.check(&tampered, &self.message).is_err(), "byte {i}, bit {bit:#x}");
            }
            assert!(self.check(&self.blob[..i], &self.message).is_err(), "the first {i} bytes");
        }
        let longer = [&self.blob[..], &[0]].concat();
        assert!(self.check(&longer, &self.message).is_err());
        facts
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form in which checks give facts")]
fn facts(user_present: bool, user_verified: bool, origin: Option<&str>) -> Option<Facts> {
    Some(Facts { user_present, user_verified, origin: origin.map(Into::into) })
}

/// What is judged of a vector: what its signature states, or the code with which key and signature are
/// refused.
type Verdict = Result<Option<Facts>, Code>;

/// Judges every signature of a folder, and fails over a file that has no part in any verdict.
fn judge_all(
    folder: &Path,
    message: &str,
    namespace: &str,
    verdict: impl Fn(&str) -> Option<(&'static str, Verdict)>,
) -> usize {
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let (mut judged, mut others, mut keys) = (0, Vec::new(), Vec::new());
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".sig") else {
            others.push(file);
            continue;
        };
        let (key, expected) =
            verdict(name).unwrap_or_else(|| panic!("a vector without a verdict: {file}"));
        keys.push(key);
        judged += 1;
        let public = read(&format!("{key}.pub")).parse::<PublicKey>();
        let blob = dearmor(&read(&file)).unwrap();
        match expected {
            Ok(facts) => {
                let message = fs::read(folder.join(message)).unwrap();
                let (key, namespace) = (public.unwrap(), namespace.to_owned());
                assert_eq!(Vector { key, blob, message, namespace }.accepted(), facts, "{file}");
            }
            Err(code) => {
                assert_eq!(public.unwrap_err().code, code, "{file}");
                assert_eq!(SshSignature::parse(&blob).unwrap_err().code, code, "{file}");
            }
        }
    }
    // the rest is what was signed, and the public keys, alone and as lines of allowed signers
    others.retain(|file| file != message && file != "namespace");
    for file in others {
        let key = file.strip_suffix(".pub").or_else(|| file.strip_prefix("as."));
        assert!(key.is_some_and(|key| keys.contains(&key)), "a file without a verdict: {file}");
        if file.starts_with("as.") {
            let line = read(&file);
            let (_, line) = line.split_once("\" ").unwrap();
            let public = read(&format!("{}.pub", key.unwrap())).parse::<PublicKey>().unwrap();
            assert_eq!(line.parse::<PublicKey>().unwrap(), public);
        }
    }
    judged
}

#[test]
fn vectors_of_openssh() {
    let Some(folder) = vectors("sshsig") else { return };
    let namespace = fs::read_to_string(folder.join("namespace")).unwrap();
    let judged = judge_all(&folder, "signed-data", &namespace, |name| {
        Some(match name {
            "ecdsa" => ("ecdsa", Ok(None)),
            "ed25519" => ("ed25519", Ok(None)),
            "rsa" => ("rsa", Ok(None)),
            "ecdsa_sk" => ("ecdsa_sk", Ok(facts(true, false, None))),
            "ed25519_sk" => ("ed25519_sk", Ok(facts(true, false, None))),
            "ecdsa_sk_webauthn" => {
                ("ecdsa_sk_webauthn", Ok(facts(true, false, Some("https://www.mindrot.org"))))
            }
            "mldsa44-ed25519" => ("mldsa44-ed25519", Err(Code::PolicyKeyWeak)),
            _ => return None,
        })
    });
    assert_eq!(judged, 7);
}

#[test]
fn vectors_of_flags() {
    let Some(folder) = vectors("sshsig-flags") else { return };
    let judged = judge_all(&folder, "msg", "signoff@example.org", |name| {
        Some(match name {
            "ed" => ("ed", Ok(None)),
            "edsk" => ("edsk", Ok(facts(true, false, None))),
            "edsk0" => ("edsk", Ok(facts(false, false, None))),
            "ecsk" => ("ecsk", Ok(facts(true, true, None))),
            "ecsk1" => ("ecsk", Ok(facts(true, false, None))),
            "wa" => ("wa", Ok(facts(true, true, Some("http://localhost:38961")))),
            _ => return None,
        })
    });
    assert_eq!(judged, 6);
}

const MESSAGE: &[u8] = b"the request";
const ORIGIN: &str = "https://desk.example.org";
const PRESENT: u8 = 0x01;
const VERIFIED: u8 = 0x04;
const ATTESTED_DATA: u8 = 0x40;
const EXTENSION_DATA: u8 = 0x80;

/// A security key or passkey with ECDSA, in memory.
struct Hardware {
    pair: EcdsaKeyPair,
    application: &'static str,
}

impl Hardware {
    fn new(application: &'static str) -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self { pair, application }
    }

    fn key(&self) -> PublicKey {
        self.key_for(self.application)
    }

    fn key_for(&self, application: &str) -> PublicKey {
        let point = self.pair.public_key().as_ref().try_into().unwrap();
        PublicKey::SkEcdsaP256 { point, application: application.into() }
    }

    fn sign(&self, format: &str, message: &[u8]) -> Vec<u8> {
        let signature = self.pair.sign(&SystemRandom::new(), message).unwrap();
        let (r, s) = signature.as_ref().split_at(32);
        let mut numbers = Vec::new();
        put_string(&mut numbers, &mpint(r));
        put_string(&mut numbers, &mpint(s));
        let mut inner = Vec::new();
        put_string(&mut inner, format.as_bytes());
        put_string(&mut inner, &numbers);
        inner
    }

    /// The signature of a security key.
    fn touch(&self, flags: u8) -> Vec<u8> {
        let tail = [flags, 0, 0, 0, 7];
        let data = sha256(&signed_data(MESSAGE));
        let message = [&sha256(self.application.as_bytes())[..], &tail, &data].concat();
        let mut inner = self.sign("sk-ecdsa-sha2-nistp256@openssh.com", &message);
        inner.extend(tail);
        from_agent(&self.key(), &inner)
    }

    /// The signature of a passkey.
    fn assert(&self, flags: u8, client_data: &str, extensions: &[u8]) -> Vec<u8> {
        let head = [flags, 0, 0, 0, 7];
        let rp = sha256(self.application.as_bytes());
        let message = [&rp[..], &head, extensions, &sha256(client_data.as_bytes())].concat();
        let mut inner = self.sign("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", &message);
        inner.extend(head);
        put_string(&mut inner, ORIGIN.as_bytes());
        put_string(&mut inner, client_data.as_bytes());
        put_string(&mut inner, extensions);
        from_agent(&self.key(), &inner)
    }
}

fn check(blob: &[u8], key: &PublicKey) -> Result<Option<Facts>, Code> {
    let signature = SshSignature::parse(blob).map_err(|refusal| refusal.code)?;
    signature.check(key, MESSAGE).map_err(|refusal| refusal.code)
}

#[test]
fn a_security_key_states_what_the_person_did() {
    let hardware = Hardware::new("ssh:");
    for flags in [0, PRESENT, VERIFIED, PRESENT | VERIFIED] {
        let expected = facts(flags & PRESENT != 0, flags & VERIFIED != 0, None);
        assert_eq!(check(&hardware.touch(flags), &hardware.key()).unwrap(), expected);
    }
    let mut raised = hardware.touch(0);
    let at = raised.len() - 5;
    raised[at] = PRESENT;
    assert_eq!(check(&raised, &hardware.key()).unwrap_err(), Code::EnvSignatureInvalid);
}

/// `hum-sk-application`.
#[test]
fn a_security_key_counts_for_the_application_it_was_enrolled_for() {
    let hardware = Hardware::new("ssh:other");
    let blob = hardware.touch(PRESENT);
    assert!(check(&blob, &hardware.key()).is_ok());
    assert_eq!(check(&blob, &hardware.key_for("ssh:")).unwrap_err(), Code::SignoffRpid);
}

fn client_data(kind: &str, challenge: &str, origin: &str, more: &str) -> String {
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{more}}}"#)
}

/// `hum-webauthn-challenge`, `hum-webauthn-origin`, `hum-webauthn-type`, `hum-webauthn-clientdata-tricks`.
#[test]
fn a_passkey_signs_what_it_was_asked_on_a_page_of_its_own() {
    let passkey = Hardware::new("desk.example.org");
    let check_data = |data: &str| check(&passkey.assert(PRESENT, data, b""), &passkey.key());
    let ours = base64url(&signed_data(MESSAGE));
    let other = base64url(&signed_data(b"another request"));
    let get = "webauthn.get";

    let fine =
        ["", r#","crossOrigin":false"#, r#","other_keys_can_be_added_here":"do not compare""#];
    for more in fine {
        let found = check_data(&client_data(get, &ours, ORIGIN, more)).unwrap();
        assert_eq!(found, facts(true, false, Some(ORIGIN)), "{more}");
    }
    let twice = format!(r#","challenge":"{ours}""#);
    let origin = |origin: &str| client_data(get, &ours, origin, "");
    let framed = |more: &str| client_data(get, &ours, ORIGIN, more);
    let cases = [
        (client_data("webauthn.create", &ours, ORIGIN, ""), Code::SignoffType),
        (client_data(get, &other, ORIGIN, ""), Code::SignoffChallengeMismatch),
        (client_data(get, &format!("{ours}="), ORIGIN, ""), Code::SignoffChallengeMismatch),
        (client_data(get, "", ORIGIN, ""), Code::SignoffChallengeMismatch),
        (origin("https://evil.example.org"), Code::SignoffOrigin),
        (origin("https://desk.example.org:8443"), Code::SignoffOrigin),
        (origin("http://desk.example.org"), Code::SignoffOrigin),
        (framed(r#","crossOrigin":true"#), Code::SignoffOrigin),
        (framed(r#","crossOrigin":"false""#), Code::SignoffOrigin),
        (framed(r#","topOrigin":"https://a.example""#), Code::SignoffOrigin),
        (client_data(get, &other, ORIGIN, &twice), Code::ParseDuplicateKey),
        (framed("") + "x", Code::ParseTrailingData),
        (r#"{"type":"webauthn.get"}"#.into(), Code::ParseFieldMissing),
    ];
    for (data, code) in cases {
        assert_eq!(check_data(&data).unwrap_err(), code, "{data}");
    }
}

/// `hum-webauthn-rpid`.
#[test]
fn a_passkey_counts_for_the_site_it_was_enrolled_for() {
    let passkey = Hardware::new("evil.example.org");
    let data = client_data("webauthn.get", &base64url(&signed_data(MESSAGE)), ORIGIN, "");
    let blob = passkey.assert(PRESENT, &data, b"");
    assert!(check(&blob, &passkey.key()).is_ok());
    let enrolled = passkey.key_for("desk.example.org");
    assert_eq!(check(&blob, &enrolled).unwrap_err(), Code::SignoffRpid);
}

/// `hum-webauthn-flags`.
#[test]
fn the_flags_of_a_passkey_tell_its_parts() {
    let passkey = Hardware::new("desk.example.org");
    let data = client_data("webauthn.get", &base64url(&signed_data(MESSAGE)), ORIGIN, "");
    let check_flags =
        |flags, extensions: &[u8]| check(&passkey.assert(flags, &data, extensions), &passkey.key());
    let cases = [(0, false, false), (0x05, true, true), (0x1d, true, true), (0x04, false, true)];
    for (flags, present, verified) in cases {
        let found = check_flags(flags, b"").unwrap();
        assert_eq!(found, facts(present, verified, Some(ORIGIN)));
    }
    let extensions = b"\xa1\x63abc\xf5";
    assert!(check_flags(PRESENT | EXTENSION_DATA, extensions).is_ok());
    for (flags, extensions) in [
        (PRESENT | ATTESTED_DATA, &b""[..]),
        (PRESENT | EXTENSION_DATA, b""),
        (PRESENT, extensions),
    ] {
        assert_eq!(check_flags(flags, extensions).unwrap_err(), Code::ParseFieldType);
    }
}

/// `hum-ssh-namespace`.
#[test]
fn a_namespace_is_compared_whole() {
    let hardware = Hardware::new("ssh:");
    let blob = hardware.touch(PRESENT);
    let signature = SshSignature::parse(&blob).unwrap();
    assert!(signature.check_in(NAMESPACE, &hardware.key(), MESSAGE).is_ok());
    for namespace in ["", "git", "evidence", "evidence@custody.de", "evidence@custody.dev "] {
        let refusal = signature.check_in(namespace, &hardware.key(), MESSAGE).unwrap_err();
        assert_eq!(refusal.code, Code::SignoffNamespace);
    }
}
