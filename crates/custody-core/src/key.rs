//! Public keys, read from PEM, SPKI DER and OpenSSH forms and identified by their material.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::ops::RangeInclusive;
use core::str::FromStr;

use der::asn1::{BitStringRef, ObjectIdentifier, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierOwned, AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::digest::Sha256;
use crate::encoding::{base64, base64_decode};
use crate::sshsig::{Wire, put_string};
use crate::{Code, Refusal, crypto};

/// SHA-256 of the key's `SubjectPublicKeyInfo` in DER: two keys are one key exactly if their ids are
/// equal, whatever form, comment or security-key application they were written with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(Sha256);

impl KeyId {
    /// The first 12 digits, for showing only.
    pub fn short(&self) -> String {
        self.0.short()
    }

    /// The digest that it is.
    pub const fn digest(&self) -> Sha256 {
        self.0
    }
}

impl FromStr for KeyId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        text.parse().map(Self)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({})", self.short())
    }
}

/// A public key that is strong enough to be listed in a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Ed25519: the encoded point.
    Ed25519([u8; 32]),
    /// ECDSA on P-256: the uncompressed point.
    EcdsaP256([u8; 65]),
    /// ECDSA on P-384: the uncompressed point.
    EcdsaP384([u8; 97]),
    /// RSA with 2048 to 8192 bits: modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        n: Vec<u8>,
        /// The public exponent.
        e: Vec<u8>,
    },
    /// A security key with Ed25519.
    SkEd25519 {
        /// The encoded point.
        point: [u8; 32],
        /// The application (for passkeys: the relying party id) that the key was made for.
        application: String,
    },
    /// A security key or passkey with ECDSA on P-256.
    SkEcdsaP256 {
        /// The uncompressed point.
        point: [u8; 65],
        /// The application (for passkeys: the relying party id) that the key was made for.
        application: String,
    },
}

const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

#[derive(Sequence)]
struct RsaPublicKey<'a> {
    n: UintRef<'a>,
    e: UintRef<'a>,
}

/// An RSA key from 1024 to 2047 bits. It is no [`PublicKey`]: no policy lists it as anybody's, and nothing
/// but [`crypto::legacy_signature_fits`] takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyRsaKey {
    pub(crate) n: Vec<u8>,
    pub(crate) e: Vec<u8>,
}

impl LegacyRsaKey {
    /// A key from its SPKI DER (RFC 5280). Stronger keys are refused too.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Refusal> {
        let fault = |error: der::Error| weak("SPKI in DER", error.to_string());
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(fault)?;
        if spki.algorithm.oid != RSA {
            return Err(weak("RSA", format!("algorithm {}", spki.algorithm.oid)));
        }
        let bytes = spki.subject_public_key.as_bytes().unwrap_or_default();
        let rsa = RsaPublicKey::from_der(bytes).map_err(fault)?;
        let (n, e) = (rsa.n.as_bytes().to_vec(), rsa.e.as_bytes().to_vec());
        check_rsa(&n, &e, 1024..=2047)?;
        Ok(Self { n, e })
    }
}

/// Refuses an RSA key of another size, or with an exponent that is even or small.
fn check_rsa(n: &[u8], e: &[u8], sizes: RangeInclusive<usize>) -> Result<(), Refusal> {
    let leading = n.first().map_or(0, |byte| byte.leading_zeros());
    let bits = n.len().saturating_mul(8).saturating_sub(usize::try_from(leading).unwrap_or(8));
    let exponent = e
        .iter()
        .try_fold(0_u64, |value, byte| value.checked_mul(256)?.checked_add(u64::from(*byte)));
    if !sizes.contains(&bits) {
        let expected = format!("RSA from {} to {} bits", sizes.start(), sizes.end());
        return Err(weak(&expected, format!("{bits} bits")));
    }
    match exponent {
        Some(e) if e >= 65_537 && e % 2 == 1 && e < 1 << 33 => Ok(()),
        _ => Err(weak("an odd RSA exponent from 65537", "another exponent")),
    }
}

fn weak(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::PolicyKeyWeak, "public key", expected, found)
}

impl PublicKey {
    /// A key from any of its accepted texts: PEM `PUBLIC KEY`, an OpenSSH line, or base64 of SPKI DER.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        if let Some(body) = text.strip_prefix("-----BEGIN PUBLIC KEY-----") {
            let body = body
                .trim_end()
                .strip_suffix("-----END PUBLIC KEY-----")
                .ok_or_else(|| weak("a whole PEM PUBLIC KEY block", "no end line"))?;
            let base64: String = body.split_ascii_whitespace().collect();
            return Self::from_spki_der(&base64_decode(&base64)?);
        }
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(blob)) => {
                let (key, found) = Self::from_ssh_blob(&base64_decode(blob)?)?;
                if found == kind {
                    Ok(key)
                } else {
                    Err(weak(kind, format!("a key of type {found}")))
                }
            }
            (Some(spki), None) => Self::from_spki_der(&base64_decode(spki)?),
            _ => Err(weak("a key as PEM, OpenSSH line or base64 SPKI", "no text")),
        }
    }

    /// A key from its SPKI DER (RFC 5280).
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Refusal> {
        let fault = |error: der::Error| weak("SPKI in DER", error.to_string());
        let spki = SubjectPublicKeyInfoRef::from_der(der).map_err(fault)?;
        let bytes = spki.subject_public_key.as_bytes().unwrap_or_default();
        let AlgorithmIdentifierRef { oid, parameters } = spki.algorithm;
        let curve = || parameters.and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
        let point = || weak("an uncompressed point", format!("{} bytes", bytes.len()));
        let key = match oid {
            ED25519 => Self::Ed25519(bytes.try_into().map_err(|_| point())?),
            EC if curve() == Some(P256) => Self::EcdsaP256(bytes.try_into().map_err(|_| point())?),
            EC if curve() == Some(P384) => Self::EcdsaP384(bytes.try_into().map_err(|_| point())?),
            RSA => {
                let rsa = RsaPublicKey::from_der(bytes).map_err(fault)?;
                Self::Rsa { n: rsa.n.as_bytes().to_vec(), e: rsa.e.as_bytes().to_vec() }
            }
            _ => return Err(weak("Ed25519, P-256, P-384 or RSA", format!("algorithm {oid}"))),
        };
        key.checked()
    }

    /// A key from OpenSSH's binary form, and the name of its type. Certificates are refused.
    pub fn from_ssh_blob(blob: &[u8]) -> Result<(Self, &'static str), Refusal> {
        let mut wire = Wire(blob);
        let kind = wire.text()?;
        let point = |bytes: &[u8]| weak("an uncompressed point", format!("{} bytes", bytes.len()));
        let (key, name) = match kind {
            "ssh-ed25519" => {
                let bytes = wire.string()?;
                (Self::Ed25519(bytes.try_into().map_err(|_| point(bytes))?), "ssh-ed25519")
            }
            "ecdsa-sha2-nistp256" => {
                let bytes = wire.curve_point("nistp256")?;
                (
                    Self::EcdsaP256(bytes.try_into().map_err(|_| point(bytes))?),
                    "ecdsa-sha2-nistp256",
                )
            }
            "ecdsa-sha2-nistp384" => {
                let bytes = wire.curve_point("nistp384")?;
                (
                    Self::EcdsaP384(bytes.try_into().map_err(|_| point(bytes))?),
                    "ecdsa-sha2-nistp384",
                )
            }
            "ssh-rsa" => {
                let (e, n) = (wire.mpint()?.to_vec(), wire.mpint()?.to_vec());
                (Self::Rsa { n, e }, "ssh-rsa")
            }
            "sk-ssh-ed25519@openssh.com" => {
                let bytes = wire.string()?;
                let point = bytes.try_into().map_err(|_| point(bytes))?;
                (
                    Self::SkEd25519 { point, application: wire.text()?.into() },
                    "sk-ssh-ed25519@openssh.com",
                )
            }
            "sk-ecdsa-sha2-nistp256@openssh.com" => {
                let bytes = wire.curve_point("nistp256")?;
                let point = bytes.try_into().map_err(|_| point(bytes))?;
                (
                    Self::SkEcdsaP256 { point, application: wire.text()?.into() },
                    "sk-ecdsa-sha2-nistp256@openssh.com",
                )
            }
            other => {
                let shown: String = other.escape_default().take(60).collect();
                return Err(weak("a plain or security key of ssh-keygen", format!("type {shown}")));
            }
        };
        wire.end()?;
        Ok((key.checked()?, name))
    }

    fn checked(self) -> Result<Self, Refusal> {
        match &self {
            Self::Ed25519(point) | Self::SkEd25519 { point, .. }
                if crypto::ed25519_point_is_weak(point) =>
            {
                Err(weak("an Ed25519 point of full order", "a weak or non-canonical point"))
            }
            Self::Rsa { n, e } => check_rsa(n, e, 2048..=8192).map(|()| self),
            key if !crypto::ec_point_is_valid(key) => {
                Err(weak("a point on the curve", "another point"))
            }
            _ => Ok(self),
        }
    }

    /// The `SubjectPublicKeyInfo` in DER.
    pub fn to_spki_der(&self) -> Vec<u8> {
        // DER of well-formed parts cannot fail to encode; an empty id would match no key.
        self.spki().unwrap_or_default()
    }

    fn spki(&self) -> der::Result<Vec<u8>> {
        let encode = |oid, curve: Option<ObjectIdentifier>, null: bool, bytes: &[u8]| {
            let parameters = match curve {
                Some(curve) => Some(der::Any::encode_from(&curve)?),
                None if null => Some(der::Any::null()),
                None => None,
            };
            let algorithm = AlgorithmIdentifierOwned { oid, parameters };
            spki::SubjectPublicKeyInfo {
                algorithm,
                subject_public_key: BitStringRef::from_bytes(bytes)?,
            }
            .to_der()
        };
        match self {
            Self::Ed25519(point) | Self::SkEd25519 { point, .. } => {
                encode(ED25519, None, false, point)
            }
            Self::EcdsaP256(point) | Self::SkEcdsaP256 { point, .. } => {
                encode(EC, Some(P256), false, point)
            }
            Self::EcdsaP384(point) => encode(EC, Some(P384), false, point),
            Self::Rsa { n, e } => {
                let key = RsaPublicKey { n: UintRef::new(n)?, e: UintRef::new(e)? };
                encode(RSA, None, true, &key.to_der()?)
            }
        }
    }

    /// The id by which envelopes refer to the key and by which it is compared.
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::of(&self.to_spki_der()))
    }

    /// The key as PEM (RFC 7468). A security key loses its application in this form.
    pub fn to_pem(&self) -> String {
        let text = base64(&self.to_spki_der());
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (i, c) in text.chars().enumerate() {
            if i > 0 && i.is_multiple_of(64) {
                pem.push('\n');
            }
            pem.push(c);
        }
        pem.push_str("\n-----END PUBLIC KEY-----\n");
        pem
    }

    /// The name of the key's type in OpenSSH.
    pub fn ssh_type(&self) -> &'static str {
        match self {
            Self::Ed25519(_) => "ssh-ed25519",
            Self::EcdsaP256(_) => "ecdsa-sha2-nistp256",
            Self::EcdsaP384(_) => "ecdsa-sha2-nistp384",
            Self::Rsa { .. } => "ssh-rsa",
            Self::SkEd25519 { .. } => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 { .. } => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The key in OpenSSH's binary form.
    pub fn to_ssh_blob(&self) -> Vec<u8> {
        let mut blob = Vec::new();
        put_string(&mut blob, self.ssh_type().as_bytes());
        let mut put = |bytes: &[u8]| put_string(&mut blob, bytes);
        match self {
            Self::Ed25519(point) => put(point),
            Self::EcdsaP256(point) => {
                put(b"nistp256");
                put(point);
            }
            Self::EcdsaP384(point) => {
                put(b"nistp384");
                put(point);
            }
            Self::Rsa { n, e } => {
                put(&crate::sshsig::mpint(e));
                put(&crate::sshsig::mpint(n));
            }
            Self::SkEd25519 { point, application } => {
                put(point);
                put(application.as_bytes());
            }
            Self::SkEcdsaP256 { point, application } => {
                put(b"nistp256");
                put(point);
                put(application.as_bytes());
            }
        }
        blob
    }

    /// The key as one line of OpenSSH, without a comment.
    pub fn to_openssh(&self) -> String {
        format!("{} {}", self.ssh_type(), base64(&self.to_ssh_blob()))
    }

    /// The scheme of a plain DSSE signature by this key. Security keys make none.
    pub const fn dsse_scheme(&self) -> Option<crypto::Scheme> {
        match self {
            Self::Ed25519(_) => Some(crypto::Scheme::Ed25519),
            Self::EcdsaP256(_) => Some(crypto::Scheme::EcdsaP256Der),
            Self::EcdsaP384(_) => Some(crypto::Scheme::EcdsaP384Der),
            Self::Rsa { .. } => Some(crypto::Scheme::RsaPssSha256),
            Self::SkEd25519 { .. } | Self::SkEcdsaP256 { .. } => None,
        }
    }
}

impl FromStr for PublicKey {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const LINE: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBV5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXkV";

    #[test]
    fn all_forms_lead_to_one_key() {
        let key = PublicKey::Ed25519([0x15; 32]);
        for text in
            [key.to_pem(), format!("{} some comment", key.to_openssh()), base64(&key.to_spki_der())]
        {
            let again = PublicKey::parse(&text).unwrap();
            assert_eq!(again, key);
            assert_eq!(again.id(), key.id());
        }
        assert!(PublicKey::parse(LINE).is_ok());
    }

    #[test]
    fn a_security_key_is_the_same_material() {
        let plain = PublicKey::Ed25519([0x15; 32]);
        let sk = PublicKey::SkEd25519 { point: [0x15; 32], application: "ssh:".into() };
        assert_eq!(sk.id(), plain.id());
        assert_eq!(PublicKey::parse(&sk.to_openssh()).unwrap(), sk);
    }

    /// `env-small-order-key`, `env-weak-rsa`, `env-ec-point-invalid`.
    #[test]
    fn weak_keys_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let mut beyond = [0xff; 32];
        beyond[31] = 0x7f;
        let rsa = |bits: usize, e: &[u8]| PublicKey::Rsa { n: vec![0xc3; bits / 8], e: e.to_vec() };
        let weak = [
            PublicKey::Ed25519(identity),
            PublicKey::Ed25519([0; 32]),
            PublicKey::Ed25519(beyond),
            PublicKey::EcdsaP256([4; 65]),
            PublicKey::EcdsaP384([4; 97]),
            rsa(1024, &[1, 0, 1]),
            rsa(2048, &[1]),
            rsa(2048, &[3]),
        ];
        for key in weak {
            assert_eq!(
                PublicKey::parse(&key.to_openssh()).unwrap_err().code,
                Code::PolicyKeyWeak,
                "{key:?}"
            );
        }
        assert!(PublicKey::parse(&rsa(2048, &[1, 0, 1]).to_openssh()).is_ok());
        assert!(
            PublicKey::parse(
                "ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIBV5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXl5eXkV"
            )
            .is_err()
        );
    }

    /// A short key is a type of its own, and a good one is not of that type.
    #[test]
    fn short_keys_stay_apart() {
        let spki = |bits: usize, e: &[u8]| {
            PublicKey::Rsa { n: vec![0xc3; bits / 8], e: e.to_vec() }.to_spki_der()
        };
        for bits in [1024, 2040] {
            assert!(LegacyRsaKey::from_spki_der(&spki(bits, &[1, 0, 1])).is_ok());
            assert!(PublicKey::from_spki_der(&spki(bits, &[1, 0, 1])).is_err());
        }
        let ed25519 = PublicKey::Ed25519([0x15; 32]).to_spki_der();
        for der in
            [spki(1016, &[1, 0, 1]), spki(2048, &[1, 0, 1]), spki(1024, &[3]), ed25519, vec![]]
        {
            assert_eq!(LegacyRsaKey::from_spki_der(&der).unwrap_err().code, Code::PolicyKeyWeak);
        }
    }
}
