//! Keys of the kinds that the world has not: ECDSA, RSA, security keys and passkeys.
//!
//! ECDSA and RSA-PSS put randomness into each signature. Such a signature is made once and then taken
//! from a table, by key and message.

use std::collections::BTreeMap;
use std::fs;

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
};
use custody_core::crypto::{Scheme, sha512, signature_fits};
use custody_core::digest::Sha256;
use custody_core::encoding::{base64_decode, hex, hex_decode};
use custody_core::key::PublicKey;
use custody_core::sshsig::{self, put_string};
use custody_world::Key;

/// The table, as it was found and as it was used.
pub(crate) struct Random {
    known: BTreeMap<(String, Sha256), Vec<u8>>,
    used: BTreeMap<(String, Sha256), Vec<u8>>,
}

impl Random {
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(crate::RANDOM).unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let key = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Some((key, hex_decode(words.next()?)?))
        };
        Self { known: text.lines().filter_map(entry).collect(), used: BTreeMap::new() }
    }

    pub(crate) fn finish(self) -> String {
        let line = |((key, message), sig): (&(String, Sha256), &Vec<u8>)| {
            format!("{key} {message} {}\n", hex(sig))
        };
        self.used.iter().map(line).collect()
    }

    fn once(
        &mut self,
        name: &str,
        message: &[u8],
        fits: impl Fn(&[u8]) -> bool,
        make: impl Fn() -> Vec<u8>,
    ) -> Vec<u8> {
        let place = (name.to_owned(), Sha256::of(message));
        let known = self.used.get(&place).or_else(|| self.known.get(&place));
        let known = known.filter(|sig| fits(sig)).cloned();
        let sig = known.unwrap_or_else(make);
        self.used.insert(place, sig.clone());
        sig
    }
}

/// An ECDSA key by name.
pub(crate) struct Ecdsa {
    name: String,
    pair: EcdsaKeyPair,
    pub(crate) public: PublicKey,
    scheme: Scheme,
}

impl Ecdsa {
    pub(crate) fn p256(name: &str) -> Self {
        let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let scalar = Sha256::of(name.as_bytes());
        let pair = ecdsa_pair(&ECDSA_P256_SHA256_ASN1_SIGNING, &oid, scalar.as_bytes());
        let point = pair.public_key().as_ref().try_into().unwrap();
        let public = PublicKey::EcdsaP256(point);
        Self { name: format!("p256-{name}"), pair, public, scheme: Scheme::EcdsaP256Der }
    }

    pub(crate) fn p384(name: &str) -> Self {
        let oid = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
        let scalar = [&[0; 16], &Sha256::of(name.as_bytes()).as_bytes()[..]].concat();
        let pair = ecdsa_pair(&ECDSA_P384_SHA384_ASN1_SIGNING, &oid, &scalar);
        let point = pair.public_key().as_ref().try_into().unwrap();
        let public = PublicKey::EcdsaP384(point);
        Self { name: format!("p384-{name}"), pair, public, scheme: Scheme::EcdsaP384Der }
    }

    /// The signature in DER.
    pub(crate) fn sign(&self, random: &mut Random, message: &[u8]) -> Vec<u8> {
        let make = || self.pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec();
        let fits = |sig: &[u8]| signature_fits(&self.public, self.scheme, message, sig);
        random.once(&self.name, message, fits, make)
    }

    /// The signature as SSH has it: a string of two numbers.
    pub(crate) fn sign_ssh(&self, random: &mut Random, message: &[u8]) -> Vec<u8> {
        let der = self.sign(random, message);
        // SEQUENCE { INTEGER r, INTEGER s }, all short enough for lengths of one byte
        let (r, rest) = der[4..].split_at(der[3].into());
        let mut numbers = Vec::new();
        put_string(&mut numbers, r);
        put_string(&mut numbers, &rest[2..]);
        numbers
    }
}

/// From RFC 5915's `ECPrivateKey`.
fn ecdsa_pair(
    algorithm: &'static EcdsaSigningAlgorithm,
    oid: &[u8],
    scalar: &[u8],
) -> EcdsaKeyPair {
    let length = |bytes: &[u8]| u8::try_from(bytes.len()).unwrap();
    let mut body = vec![0x02, 0x01, 0x01, 0x04, length(scalar)];
    body.extend(scalar);
    body.extend([0xa0, length(oid)]);
    body.extend(oid);
    let der = [&[0x30, length(&body)], &body[..]].concat();
    EcdsaKeyPair::from_private_key_der(algorithm, &der).unwrap()
}

/// The one RSA key, of 2048 bits.
pub(crate) struct Rsa {
    pair: RsaKeyPair,
    pub(crate) public: PublicKey,
}

impl Rsa {
    pub(crate) fn new() -> Self {
        let der = base64_decode(include_str!("../rsa.txt").trim_end()).unwrap();
        let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        Self { public: PublicKey::from_spki_der(der.as_ref()).unwrap(), pair }
    }

    fn raw(
        &self,
        encoding: &'static aws_lc_rs::signature::RsaSignatureEncoding,
        message: &[u8],
    ) -> Vec<u8> {
        let mut sig = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), message, &mut sig).unwrap();
        sig
    }

    pub(crate) fn pss(&self, random: &mut Random, message: &[u8]) -> Vec<u8> {
        let fits = |sig: &[u8]| signature_fits(&self.public, Scheme::RsaPssSha256, message, sig);
        random.once("rsa", message, fits, || self.raw(&RSA_PSS_SHA256, message))
    }

    /// PKCS#1 v1.5 has no randomness.
    pub(crate) fn pkcs1(&self, sha512: bool, message: &[u8]) -> Vec<u8> {
        self.raw(if sha512 { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 }, message)
    }
}

/// An SSHSIG, taken apart so that each part can be wrong.
#[derive(Clone, Copy)]
pub(crate) struct Ssh<'s> {
    pub(crate) namespace: &'s str,
    pub(crate) hash: &'s str,
}

pub(crate) const OURS: Ssh<'static> = Ssh { namespace: sshsig::NAMESPACE, hash: "sha512" };

impl Ssh<'_> {
    /// What the key signs.
    pub(crate) fn data(&self, message: &[u8]) -> Vec<u8> {
        let mut data = b"SSHSIG".to_vec();
        put_string(&mut data, self.namespace.as_bytes());
        put_string(&mut data, b"");
        put_string(&mut data, self.hash.as_bytes());
        if self.hash == "sha256" {
            put_string(&mut data, Sha256::of(message).as_bytes());
        } else {
            put_string(&mut data, &sha512(message));
        }
        data
    }

    /// The blob around a signature in SSH's own form.
    pub(crate) fn blob(&self, key: &PublicKey, inner: &[u8]) -> Vec<u8> {
        let mut blob = b"SSHSIG\0\0\0\x01".to_vec();
        put_string(&mut blob, &key.to_ssh_blob());
        put_string(&mut blob, self.namespace.as_bytes());
        put_string(&mut blob, b"");
        put_string(&mut blob, self.hash.as_bytes());
        put_string(&mut blob, inner);
        blob
    }
}

/// A signature in SSH's own form, and what comes after it.
pub(crate) fn inner(format: &str, sig: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut inner = Vec::new();
    put_string(&mut inner, format.as_bytes());
    put_string(&mut inner, sig);
    inner.extend(tail);
    inner
}

/// What a security key or passkey does.
pub(crate) struct Touch<'t> {
    pub(crate) application: &'t str,
    pub(crate) flags: u8,
}

impl Touch<'_> {
    fn counted(&self) -> [u8; 5] {
        [self.flags, 0, 0, 0, 7]
    }

    fn message(&self, extensions: &[u8], data: &[u8]) -> Vec<u8> {
        let application = Sha256::of(self.application.as_bytes());
        let data = Sha256::of(data);
        [&application.as_bytes()[..], &self.counted(), extensions, data.as_bytes()].concat()
    }
}

/// A security key with Ed25519, its material that of the world's key of this name.
pub(crate) fn sk_ed25519(name: &str, application: &str) -> PublicKey {
    let PublicKey::Ed25519(point) = Key::of(name).public else { panic!("an Ed25519 key") };
    PublicKey::SkEd25519 { point, application: application.into() }
}

/// Its SSHSIG blob over a message.
pub(crate) fn touch_ed25519(name: &str, touch: &Touch<'_>, message: &[u8]) -> Vec<u8> {
    let sig = Key::of(name).raw(&touch.message(&[], &OURS.data(message)));
    let inner = inner("sk-ssh-ed25519@openssh.com", &sig, &touch.counted());
    OURS.blob(&sk_ed25519(name, touch.application), &inner)
}

/// A page on which a passkey is asked.
pub(crate) struct Page<'p> {
    pub(crate) origin: &'p str,
    pub(crate) client_data: String,
    pub(crate) extensions: &'p [u8],
}

/// A security key or passkey with ECDSA.
pub(crate) struct Sk {
    ecdsa: Ecdsa,
}

impl Sk {
    pub(crate) fn of(name: &str) -> Self {
        Self { ecdsa: Ecdsa::p256(name) }
    }

    pub(crate) fn public(&self, application: &str) -> PublicKey {
        let PublicKey::EcdsaP256(point) = self.ecdsa.public else { panic!("a P-256 key") };
        PublicKey::SkEcdsaP256 { point, application: application.into() }
    }

    /// The SSHSIG blob of a security key over a message.
    pub(crate) fn touch(&self, random: &mut Random, touch: &Touch<'_>, message: &[u8]) -> Vec<u8> {
        let sig = self.ecdsa.sign_ssh(random, &touch.message(&[], &OURS.data(message)));
        let inner = inner("sk-ecdsa-sha2-nistp256@openssh.com", &sig, &touch.counted());
        OURS.blob(&self.public(touch.application), &inner)
    }

    /// The SSHSIG blob of a passkey that was asked on a page.
    pub(crate) fn assert(
        &self,
        random: &mut Random,
        touch: &Touch<'_>,
        page: &Page<'_>,
    ) -> Vec<u8> {
        let message = touch.message(page.extensions, page.client_data.as_bytes());
        let sig = self.ecdsa.sign_ssh(random, &message);
        let mut tail = touch.counted().to_vec();
        put_string(&mut tail, page.origin.as_bytes());
        put_string(&mut tail, page.client_data.as_bytes());
        put_string(&mut tail, page.extensions);
        let inner = inner("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", &sig, &tail);
        OURS.blob(&self.public(touch.application), &inner)
    }
}
