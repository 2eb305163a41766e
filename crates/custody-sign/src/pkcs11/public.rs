//! Public halves of keys in tokens.

use cryptoki::error::Error;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use custody_core::key::PublicKey;
use custody_core::{Code, Refusal};
use der::Decode as _;
use der::asn1::OctetStringRef;

use super::told;
use crate::unavailable;

/// `CKA_EC_PARAMS` of the curves that policies list: the OID in DER, and for Ed25519 also the name that
/// tokens of before PKCS#11 3.0 use.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: [&[u8]; 2] = [b"\x06\x03\x2b\x65\x70", b"\x13\x0cedwards25519"];

/// The public half of a private key that may sign, if it is strong enough for a policy. That both belong
/// together, only the signatures will show.
pub(super) fn read(session: &Session, private: ObjectHandle) -> Result<PublicKey, Refusal> {
    let fault = |error: Error| unavailable("", "the key's attributes", told(&error));
    let wanted = [
        AttributeType::KeyType,
        AttributeType::Id,
        AttributeType::Label,
        AttributeType::Sign,
        AttributeType::AlwaysAuthenticate,
    ];
    let mut kind = None;
    let mut name = Vec::new();
    for attribute in session.get_attributes(private, &wanted).map_err(fault)? {
        match attribute {
            Attribute::KeyType(found) => kind = Some(found),
            Attribute::Id(id) if !id.is_empty() => name = vec![Attribute::Id(id)],
            Attribute::Label(label) if name.is_empty() => name = vec![Attribute::Label(label)],
            Attribute::Sign(false) => {
                return Err(unavailable("", "a key that may sign", "one that may not (CKA_SIGN)"));
            }
            Attribute::AlwaysAuthenticate(true) => {
                let found = "one that wants the PIN each time (CKA_ALWAYS_AUTHENTICATE)";
                return Err(unavailable("", "a key that signs after one login", found));
            }
            _ => {}
        }
    }
    let mut public = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
    public.extend(kind.map(Attribute::KeyType));
    public.extend(name);
    let holder = match session.find_objects(&public).map_err(fault)?.as_slice() {
        [one] => *one,
        // a private RSA key has the public numbers too
        [] if kind == Some(KeyType::RSA) => private,
        several => {
            let expected = "one public key beside the private one, with the same id";
            return Err(unavailable("", expected, several.len()));
        }
    };
    let numbers = [
        AttributeType::EcParams,
        AttributeType::EcPoint,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
    ];
    let numbers = session.get_attributes(holder, &numbers).map_err(fault)?;
    let (key, _) = PublicKey::from_ssh_blob(&unchecked(&numbers)?.to_ssh_blob())?;
    Ok(key)
}

fn unchecked(numbers: &[Attribute]) -> Result<PublicKey, Refusal> {
    let (mut curve, mut point, mut modulus, mut exponent) = (&[][..], &[][..], None, None);
    for attribute in numbers {
        match attribute {
            Attribute::EcParams(found) => curve = found,
            Attribute::EcPoint(found) => point = found,
            Attribute::Modulus(found) => modulus = Some(found.clone()),
            Attribute::PublicExponent(found) => exponent = Some(found.clone()),
            _ => {}
        }
    }
    if let (Some(n), Some(e)) = (modulus, exponent) {
        return Ok(PublicKey::Rsa { n, e });
    }
    match curve {
        P256 => point_of(point).map(PublicKey::EcdsaP256),
        P384 => point_of(point).map(PublicKey::EcdsaP384),
        curve if ED25519.contains(&curve) => point_of(point).map(PublicKey::Ed25519),
        other => {
            let found = format!("a key with EC parameters {}", custody_core::encoding::hex(other));
            Err(weak("Ed25519, P-256, P-384 or RSA", found))
        }
    }
}

/// The point as it is, or in an OCTET STRING, as PKCS#11 wants it. The length tells which: a point may
/// look like the string's head.
fn point_of<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    let inner = if bytes.len() == N {
        bytes
    } else {
        <&OctetStringRef>::from_der(bytes).map_or(bytes, OctetStringRef::as_bytes)
    };
    let wrong = |_| weak(format!("a point of {N} bytes"), format!("{} bytes", inner.len()));
    inner.try_into().map_err(wrong)
}

fn weak(expected: impl Into<String>, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::PolicyKeyWeak, "public key", expected, found)
}
