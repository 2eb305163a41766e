//! Every scheme takes the signatures that are made under it, and no others.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RsaEncoding,
};
use custody_core::Code;
use custody_core::crypto::{Scheme, sha256, sha512, signature_fits};
use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_core::sshsig::{
    NAMESPACE, SshSignature, Wire, from_raw, mpint, put_string, signed_data,
};

const MESSAGE: &[u8] = b"what was signed";

/// A key, the scheme and a signature of [`MESSAGE`].
type Signed = (PublicKey, Scheme, Vec<u8>);

fn ed25519() -> Signed {
    let pair = Ed25519KeyPair::generate().unwrap();
    let point = pair.public_key().as_ref().try_into().unwrap();
    (PublicKey::Ed25519(point), Scheme::Ed25519, pair.sign(MESSAGE).as_ref().to_vec())
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, scheme: Scheme) -> Signed {
    let pair = EcdsaKeyPair::generate(algorithm).unwrap();
    let point = pair.public_key().as_ref();
    let key = match point.len() {
        65 => PublicKey::EcdsaP256(point.try_into().unwrap()),
        _ => PublicKey::EcdsaP384(point.try_into().unwrap()),
    };
    (key, scheme, pair.sign(&SystemRandom::new(), MESSAGE).unwrap().as_ref().to_vec())
}

fn rsa(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, scheme: Scheme) -> Signed {
    let mut sig = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), MESSAGE, &mut sig).unwrap();
    let spki: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    (PublicKey::parse(&base64(spki.as_ref())).unwrap(), scheme, sig)
}

#[test]
fn every_scheme_takes_its_own_signatures_alone() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let all = [
        ed25519(),
        ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING, Scheme::EcdsaP256Der),
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, Scheme::EcdsaP256Fixed),
        ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING, Scheme::EcdsaP384Der),
        ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, Scheme::EcdsaP384Fixed),
        rsa(&pair, &RSA_PSS_SHA256, Scheme::RsaPssSha256),
        rsa(&pair, &RSA_PKCS1_SHA256, Scheme::RsaPkcs1Sha256),
        rsa(&pair, &RSA_PKCS1_SHA512, Scheme::RsaPkcs1Sha512),
    ];
    for (key, scheme, sig) in &all {
        assert!(signature_fits(key, *scheme, MESSAGE, sig), "{scheme:?}");
        assert!(!signature_fits(key, *scheme, b"something else", sig), "{scheme:?}");
        for (_, other, _) in all.iter().filter(|(_, other, _)| other != scheme) {
            assert!(!signature_fits(key, *other, MESSAGE, sig), "{scheme:?} as {other:?}");
        }
        for (stranger, _, _) in all.iter().filter(|(other, _, _)| other != key) {
            assert!(!signature_fits(stranger, *scheme, MESSAGE, sig), "{scheme:?}");
        }
    }
}

/// The blob of an SSHSIG that `ssh-keygen -Y sign` may make and Custody does not.
fn blob(key: &PublicKey, hash: &str, format: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let digest = match hash {
        "sha256" => sha256(MESSAGE).to_vec(),
        _ => sha512(MESSAGE).to_vec(),
    };
    let mut data = b"SSHSIG".to_vec();
    for part in [NAMESPACE.as_bytes(), b"", hash.as_bytes(), &digest] {
        put_string(&mut data, part);
    }
    let mut inner = Vec::new();
    put_string(&mut inner, format.as_bytes());
    put_string(&mut inner, &sign(&data));
    let mut blob = b"SSHSIG\x00\x00\x00\x01".to_vec();
    for part in [&key.to_ssh_blob(), NAMESPACE.as_bytes(), b"", hash.as_bytes(), &inner] {
        put_string(&mut blob, part);
    }
    blob
}

fn accepts(key: &PublicKey, blob: &[u8]) {
    let signature = SshSignature::parse(blob).unwrap();
    assert_eq!(signature.check(key, MESSAGE).unwrap(), None, "{key:?}");
    let refusal = signature.check(key, b"something else").unwrap_err();
    assert_eq!(refusal.code, Code::EnvSignatureInvalid, "{key:?}");
}

#[test]
fn every_plain_key_of_a_person_signs() {
    let data = signed_data(MESSAGE);
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let key = PublicKey::Ed25519(ed25519.public_key().as_ref().try_into().unwrap());
    accepts(&key, &from_raw(&key, ed25519.sign(&data).as_ref()));
    let sign = |data: &[u8]| ed25519.sign(data).as_ref().to_vec();
    accepts(&key, &blob(&key, "sha256", "ssh-ed25519", sign));
    accepts(&key, &blob(&key, "sha512", "ssh-ed25519", sign));

    for algorithm in [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING] {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let point = pair.public_key().as_ref();
        let key = match point.len() {
            65 => PublicKey::EcdsaP256(point.try_into().unwrap()),
            _ => PublicKey::EcdsaP384(point.try_into().unwrap()),
        };
        // r and s begin with every kind of byte sooner or later
        for _ in 0..16 {
            let signature = pair.sign(&SystemRandom::new(), &data).unwrap();
            accepts(&key, &from_raw(&key, signature.as_ref()));
        }
    }

    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let (key, _, _) = rsa(&pair, &RSA_PKCS1_SHA512, Scheme::RsaPkcs1Sha512);
    let sign = |encoding: &'static dyn RsaEncoding, data: &[u8]| {
        let mut sig = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), data, &mut sig).unwrap();
        sig
    };
    accepts(&key, &from_raw(&key, &sign(&RSA_PKCS1_SHA512, &data)));
    let short = |data: &[u8]| sign(&RSA_PKCS1_SHA256, data);
    accepts(&key, &blob(&key, "sha512", "rsa-sha2-256", short));
    let old = SshSignature::parse(&blob(&key, "sha512", "ssh-rsa", short))
        .map(|signature| signature.check(&key, MESSAGE).unwrap_err().code);
    assert_eq!(old.unwrap(), Code::EnvAlgForbidden);
}

#[test]
fn numbers_have_one_form() {
    let read = |bytes: &[u8]| {
        let mut wire = Vec::new();
        put_string(&mut wire, bytes);
        Wire(&wire).mpint().map(<[u8]>::to_vec).ok()
    };
    assert_eq!(read(&[0x7f, 1]), Some(vec![0x7f, 1]));
    assert_eq!(read(&[0, 0x80]), Some(vec![0x80]));
    for other in [&[][..], &[0], &[0, 0x7f], &[0, 0, 0x80], &[0x80], &[0xff, 1]] {
        assert_eq!(read(other), None, "{other:?}");
    }
    assert_eq!(mpint(&[0, 0, 0x80, 2]), [0, 0x80, 2]);
    assert_eq!(mpint(&[0, 0x7f]), [0x7f]);
    assert_eq!(mpint(&[0, 0]), b"");
}

#[test]
fn a_key_is_written_as_others_write_it() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let ed25519 = Ed25519KeyPair::generate().unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let theirs: [PublicKeyX509Der<'_>; 3] = [
        rsa.public_key().as_der().unwrap(),
        ed25519.public_key().as_der().unwrap(),
        p384.public_key().as_der().unwrap(),
    ];
    for der in theirs {
        let key = PublicKey::from_spki_der(der.as_ref()).unwrap();
        assert_eq!(key.to_spki_der(), der.as_ref());
        let text = base64(der.as_ref());
        let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
        let pem =
            format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        assert_eq!(key.to_pem(), pem);
        assert!(key.id().to_string().starts_with(&key.id().short()));
        assert_eq!(key.id().short().len(), 12);
    }
    // a point of P-384 that calls itself one of another curve (the last byte of secp521r1's id is 35)
    let der: PublicKeyX509Der<'_> = p384.public_key().as_der().unwrap();
    let id = [0x2b, 0x81, 0x04, 0x00, 0x22];
    let place = der.as_ref().windows(5).position(|window| window == id).unwrap();
    let mut other = der.as_ref().to_vec();
    other[place + 4] = 35;
    assert_eq!(PublicKey::from_spki_der(&other).unwrap_err().code, Code::PolicyKeyWeak);
}
