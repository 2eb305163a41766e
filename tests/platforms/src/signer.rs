//! Keys with certificates.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair};
use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_core::time::Time;

use crate::Unsigned;
use crate::certificate::name;
use crate::der::{RSA, algorithm, bits, sequence};

/// Somebody with an RSA key of 2048 bits and a certificate for it.
pub struct Signer {
    key: RsaKeyPair,
    name: String,
    certificate: Vec<u8>,
}

/// What a certificate says.
#[derive(Clone)]
pub struct Certified {
    /// The common name of its subject.
    pub name: String,
    /// DNS names.
    pub names: Vec<String>,
    /// Whether it is an authority.
    pub authority: bool,
    pub not_before: Time,
    pub not_after: Time,
    /// The content octets of the purposes' object identifiers.
    pub purposes: Vec<Vec<u8>>,
    /// The first byte of its key usage.
    pub usage: u8,
    /// How many authorities may be below.
    pub path_length: Option<u8>,
    /// One more extension: the last number of 2.5.29.N, and whether it is critical.
    pub more: Option<(u8, bool)>,
}

impl Certified {
    /// An authority, or somebody who only signs, from 2020 until 2049.
    pub fn new(name: &str, authority: bool) -> Self {
        Self {
            name: name.to_owned(),
            names: vec![],
            authority,
            not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2049-12-31T23:59:59Z".parse().unwrap(),
            purposes: vec![],
            // keyCertSign, or digitalSignature
            usage: if authority { 0x04 } else { 0x80 },
            path_length: None,
            more: None,
        }
    }
}

impl Signer {
    /// Somebody whose certificate is signed by nobody else.
    pub fn own(certified: &Certified) -> Self {
        Self::own_with(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), certified)
    }

    /// The same with a key that is always the same, in PKCS #8.
    pub fn fixed(pkcs8: &[u8], certified: &Certified) -> Self {
        Self::own_with(RsaKeyPair::from_pkcs8(pkcs8).unwrap(), certified)
    }

    fn own_with(key: RsaKeyPair, certified: &Certified) -> Self {
        let unsigned = Unsigned::new(certified, &spki(&key), &certified.name);
        let certificate = unsigned.signed(|message| sign(&key, &RSA_PKCS1_SHA256, message));
        Self { key, name: certified.name.clone(), certificate }
    }

    /// An authority of this name.
    pub fn authority(name: &str) -> Self {
        Self::own(&Certified::new(name, true))
    }

    /// Somebody with a new key and a certificate by this one.
    pub fn issue(&self, certified: &Certified) -> Self {
        self.issue_with(RsaKeyPair::generate(KeySize::Rsa2048).unwrap(), certified)
    }

    /// The same with a key that is always the same, in PKCS #8.
    pub fn issue_fixed(&self, pkcs8: &[u8], certified: &Certified) -> Self {
        self.issue_with(RsaKeyPair::from_pkcs8(pkcs8).unwrap(), certified)
    }

    fn issue_with(&self, key: RsaKeyPair, certified: &Certified) -> Self {
        let certificate = Unsigned::new(certified, &spki(&key), &self.name);
        let certificate = certificate.signed(|message| self.sign(message));
        Self { key, name: certified.name.clone(), certificate }
    }

    /// A certificate by this one for a key that somebody else has.
    pub fn certify(&self, certified: &Certified, key: &PublicKey) -> Vec<u8> {
        self.unsigned(certified, key).signed(|message| self.sign(message))
    }

    /// The same before it is signed.
    pub fn unsigned(&self, certified: &Certified, key: &PublicKey) -> Unsigned {
        Unsigned::new(certified, &key.to_spki_der(), &self.name)
    }

    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_spki_der(&spki(&self.key)).unwrap()
    }

    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    pub fn certificate_pem(&self) -> String {
        pem(&self.certificate)
    }

    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.key, &RSA_PKCS1_SHA256, message)
    }

    /// RSASSA-PSS with a salt of 32 bytes.
    pub fn sign_pss(&self, message: &[u8]) -> Vec<u8> {
        sign(&self.key, &RSA_PSS_SHA256, message)
    }

    pub(crate) fn name(&self) -> Vec<u8> {
        name(&self.name)
    }
}

/// A certificate in PEM.
pub fn pem(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", base64(der))
}

fn sign(key: &RsaKeyPair, encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn spki(key: &RsaKeyPair) -> Vec<u8> {
    sequence(&[&algorithm(RSA), &bits(key.public_key().as_ref())])
}
