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
use custody_core::crypto::{Scheme, signature_fits};
use custody_core::encoding::base64;
use custody_core::key::PublicKey;

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
