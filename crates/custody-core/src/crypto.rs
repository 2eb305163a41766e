//! The one place that names a cryptographic library.
//!
//! aws-lc-rs does the arithmetic. What it leaves open is closed here, so that another library behind
//! the same functions gives the same verdicts: weak and non-canonical Ed25519 points are refused.

use crate::key::{LegacyRsaKey, PublicKey};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};

/// How a signature is made from a message: the algorithm belongs to the key and the format, never
/// to the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Ed25519 (RFC 8032), 64 bytes.
    Ed25519,
    /// ECDSA with SHA-256 on P-256, `SEQUENCE { r, s }`.
    EcdsaP256Der,
    /// ECDSA with SHA-256 on P-256, r and s of 32 bytes each.
    EcdsaP256Fixed,
    /// ECDSA with SHA-384 on P-384, `SEQUENCE { r, s }`.
    EcdsaP384Der,
    /// ECDSA with SHA-384 on P-384, r and s of 48 bytes each.
    EcdsaP384Fixed,
    /// RSASSA-PSS with SHA-256 and a salt of 32 bytes.
    RsaPssSha256,
    /// RSASSA-PKCS1-v1.5 with SHA-256 (SSH `rsa-sha2-256`).
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1.5 with SHA-384, as certificates of clouds have it.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1.5 with SHA-512 (SSH `rsa-sha2-512`).
    RsaPkcs1Sha512,
}

/// Whether the signature over the message was made by the key under the scheme.
pub fn signature_fits(key: &PublicKey, scheme: Scheme, message: &[u8], sig: &[u8]) -> bool {
    let unparsed = |algorithm: &'static dyn signature::VerificationAlgorithm, bytes: &[u8]| {
        UnparsedPublicKey::new(algorithm, bytes).verify(message, sig).is_ok()
    };
    match (key, scheme) {
        (PublicKey::Ed25519(point) | PublicKey::SkEd25519 { point, .. }, Scheme::Ed25519) => {
            let nonce_point_is_weak = sig.first_chunk().is_none_or(ed25519_point_is_weak);
            !nonce_point_is_weak && !ed25519_point_is_weak(point) && unparsed(&ED25519, point)
        }
        (PublicKey::EcdsaP256(point), Scheme::EcdsaP256Der) => {
            unparsed(&ECDSA_P256_SHA256_ASN1, point)
        }
        (
            PublicKey::EcdsaP256(point) | PublicKey::SkEcdsaP256 { point, .. },
            Scheme::EcdsaP256Fixed,
        ) => unparsed(&ECDSA_P256_SHA256_FIXED, point),
        (PublicKey::EcdsaP384(point), Scheme::EcdsaP384Der) => {
            unparsed(&ECDSA_P384_SHA384_ASN1, point)
        }
        (PublicKey::EcdsaP384(point), Scheme::EcdsaP384Fixed) => {
            unparsed(&ECDSA_P384_SHA384_FIXED, point)
        }
        (PublicKey::Rsa { n, e }, _) => {
            let algorithm = match scheme {
                Scheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
                Scheme::RsaPkcs1Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                Scheme::RsaPkcs1Sha384 => &RSA_PKCS1_2048_8192_SHA384,
                Scheme::RsaPkcs1Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                _ => return false,
            };
            RsaPublicKeyComponents { n, e }.verify(algorithm, message, sig).is_ok()
        }
        _ => false,
    }
}

/// Whether a key that is too short for everything else made the RSASSA-PKCS1-v1.5 signature with SHA-256.
pub fn legacy_signature_fits(key: &LegacyRsaKey, message: &[u8], sig: &[u8]) -> bool {
    let LegacyRsaKey { n, e } = key;
    let algorithm = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
    RsaPublicKeyComponents { n, e }.verify(algorithm, message, sig).is_ok()
}

/// Whether the bytes are a point of the curve in uncompressed form.
pub fn ec_point_is_valid(key: &PublicKey) -> bool {
    match key {
        PublicKey::EcdsaP256(point) | PublicKey::SkEcdsaP256 { point, .. } => {
            signature::ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).is_ok()
        }
        PublicKey::EcdsaP384(point) => {
            signature::ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).is_ok()
        }
        PublicKey::Ed25519(_) | PublicKey::SkEd25519 { .. } | PublicKey::Rsa { .. } => true,
    }
}

/// y coordinates (little-endian, sign bit clear) of the eight points of small order: 0, 1, -1 and
/// the two of order 8.
const SMALL_ORDER_Y: [[u8; 32]; 5] = {
    let mut one = [0; 32];
    one[0] = 1;
    let mut minus_one = FIELD_PRIME;
    minus_one[0] -= 1;
    [
        [0; 32],
        one,
        minus_one,
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
    ]
};

/// 2^255 - 19, little-endian.
const FIELD_PRIME: [u8; 32] = {
    let mut p = [0xff; 32];
    p[0] = 0xed;
    p[31] = 0x7f;
    p
};

/// Whether an encoded Ed25519 point is of small order (one signature would fit every message) or
/// not in its one canonical encoding.
pub fn ed25519_point_is_weak(point: &[u8; 32]) -> bool {
    let mut y = *point;
    y[31] &= 0x7f;
    let canonical = y.iter().rev().lt(FIELD_PRIME.iter().rev());
    !canonical || SMALL_ORDER_Y.contains(&y)
}

/// SHA-256 of bytes at hand.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut context = Context::sha256();
    context.update(bytes);
    context.finish()
}

/// SHA-512 of bytes at hand.
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut context = Context::sha512();
    context.update(bytes);
    context.finish()
}

/// A hash under way.
#[derive(Clone)]
pub struct Context(digest::Context);

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Context")
    }
}

impl Context {
    /// SHA-1, for ids of repositories that have no other. Nothing of ours is named by it.
    pub(crate) fn sha1_of_a_repository() -> Self {
        Self(digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY))
    }

    pub(crate) fn sha256() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn sha512() -> Self {
        Self(digest::Context::new(&digest::SHA512))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish<const N: usize>(self) -> [u8; N] {
        let mut bytes = [0; N];
        let digest = self.0.finish();
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_and_second_encodings_are_weak() {
        for y in SMALL_ORDER_Y {
            let mut mirrored = y;
            mirrored[31] |= 0x80;
            assert!(ed25519_point_is_weak(&y) && ed25519_point_is_weak(&mirrored));
        }
        // -1, from 2^255 - 19 by hand
        let mut minus_one = [0xff; 32];
        (minus_one[0], minus_one[31]) = (0xec, 0x7f);
        assert!(SMALL_ORDER_Y.contains(&minus_one));
        // p + 1 encodes 1 again, and p + 3 encodes 3
        let mut second = FIELD_PRIME;
        second[0] += 3;
        assert!(ed25519_point_is_weak(&FIELD_PRIME) && ed25519_point_is_weak(&second));
        let mut three = [0; 32];
        three[0] = 3;
        assert!(!ed25519_point_is_weak(&three));
    }
}
