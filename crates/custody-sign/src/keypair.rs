//! A private key in this process's memory. aws-lc-rs holds it, signs with it and wipes it.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use custody_core::Refusal;
use custody_core::key::PublicKey;
use custody_core::sshsig::{from_raw, signed_data};
use der::asn1::UintRef;
use der::{Encode as _, Sequence};

use crate::{Signer, checked_plain, checked_ssh, unavailable};

#[derive(Debug)]
pub(crate) enum Secret {
    Ed25519(Ed25519KeyPair),
    /// Makes signatures of fixed length: both forms that are needed follow from it.
    Ecdsa(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Debug)]
pub(crate) struct KeyPair {
    secret: Secret,
    public: PublicKey,
}

impl KeyPair {
    /// The key, if its public half is strong enough for a policy.
    pub(crate) fn new(secret: Secret) -> Result<Self, Refusal> {
        let spki: Result<PublicKeyX509Der<'_>, Unspecified> = match &secret {
            Secret::Ed25519(pair) => pair.public_key().as_der(),
            Secret::Ecdsa(pair) => pair.public_key().as_der(),
            Secret::Rsa(pair) => pair.public_key().as_der(),
        };
        let spki = spki.map_err(|error| unavailable("", "a public half", error))?;
        Ok(Self { public: PublicKey::from_spki_der(spki.as_ref())?, secret })
    }

    /// The key in an unencrypted `PrivateKeyInfo` (RFC 5208) or `OneAsymmetricKey` (RFC 5958).
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, Refusal> {
        let ecdsa = |algorithm| EcdsaKeyPair::from_pkcs8(algorithm, der).map(Secret::Ecdsa);
        let secret = Ed25519KeyPair::from_pkcs8(der)
            .map(Secret::Ed25519)
            .or_else(|_| ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING))
            .or_else(|_| ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING))
            .or_else(|_| RsaKeyPair::from_pkcs8(der).map(Secret::Rsa));
        Self::new(secret.map_err(rejected)?)
    }

    /// Ed25519: 64 bytes. ECDSA: r and s of equal length. RSA: as `rsa` says.
    fn sign(&self, message: &[u8], rsa: &'static dyn RsaEncoding) -> Result<Vec<u8>, Refusal> {
        let random = SystemRandom::new();
        let signature = match &self.secret {
            Secret::Ed25519(pair) => pair.try_sign(message).map(|sig| sig.as_ref().to_vec()),
            Secret::Ecdsa(pair) => pair.sign(&random, message).map(|sig| sig.as_ref().to_vec()),
            Secret::Rsa(pair) => {
                let mut sig = vec![0; pair.public_modulus_len()];
                pair.sign(rsa, &random, message, &mut sig).map(|()| sig)
            }
        };
        signature.map_err(|error| unavailable(self.public.to_openssh(), "a signature", error))
    }
}

/// What a private key is that aws-lc-rs does not take.
pub(crate) fn rejected(error: KeyRejected) -> Refusal {
    unavailable("", "Ed25519, ECDSA P-256 or P-384, or RSA from 2048 bits", error)
}

impl Signer for KeyPair {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign_plain(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut sig = self.sign(message, &RSA_PSS_SHA256)?;
        if let Secret::Ecdsa(_) = self.secret {
            let (r, s) = sig.split_at(sig.len() / 2);
            sig = ecdsa_der(r, s)?;
        }
        checked_plain(&self.public, message, sig)
    }

    fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let sig = self.sign(&signed_data(message), &RSA_PKCS1_SHA512)?;
        checked_ssh(&self.public, message, from_raw(&self.public, &sig))
    }
}

#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// `Ecdsa-Sig-Value` (RFC 5480) from two big-endian numbers.
pub(crate) fn ecdsa_der(r: &[u8], s: &[u8]) -> Result<Vec<u8>, Refusal> {
    let encode = || EcdsaSignature { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der();
    encode().map_err(|error| unavailable("", "an ECDSA signature", error))
}
