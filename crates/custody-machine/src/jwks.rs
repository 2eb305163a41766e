//! Keys of issuers of tokens, as a JSON Web Key Set (RFC 7517).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use custody_core::encoding::base64url_decode;
use custody_core::json::{self, Object, Value};
use custody_core::key::PublicKey;
use custody_core::{Code, Refusal};

/// A key that signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenKey {
    /// The id by which tokens name it. A key without one is tried on every token.
    pub id: Option<String>,
    /// The key.
    pub key: PublicKey,
}

/// Largest key set, in bytes.
const SET_BYTES: usize = 256 << 10;
/// Most keys of one set.
const KEYS: usize = 64;

/// The keys of a set. A key of a kind that is not supported is refused, so that nobody believes in it
/// wrongly.
pub fn read_jwks(text: &str) -> Result<Vec<TokenKey>, Refusal> {
    let set = json::parse(text.as_bytes(), SET_BYTES, SET_BYTES)?;
    let keys = set.into_object("")?.each("keys", |value, at| key(value, at))?;
    if keys.len() > KEYS {
        let found = format!("{}", keys.len());
        return Err(Refusal::new(
            Code::PolicyInvalid,
            "keys",
            format!("at most {KEYS} keys"),
            found,
        ));
    }
    Ok(keys)
}

fn key(value: Value<'_>, at: &str) -> Result<TokenKey, Refusal> {
    let mut members = value.into_object(at)?;
    let id = members.optional_text("kid")?;
    let usage = members.optional_text("use")?;
    let kind = members.text("kty")?;
    let curve = members.optional_text("crv")?;
    let key = match (kind.as_str(), curve.as_deref()) {
        ("RSA", None) => {
            PublicKey::Rsa { n: number(&mut members, "n")?, e: number(&mut members, "e")? }
        }
        ("EC", Some("P-256")) => PublicKey::EcdsaP256(point::<32, 65>(&mut members)?),
        ("EC", Some("P-384")) => PublicKey::EcdsaP384(point::<48, 97>(&mut members)?),
        ("OKP", Some("Ed25519")) => PublicKey::Ed25519(exact(&mut members, "x")?),
        _ => {
            let found = format!("{kind} {}", curve.unwrap_or_default());
            return Err(fault(at, "RSA, P-256, P-384 or Ed25519", &found));
        }
    };
    if usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(fault(at, "keys for signatures", &usage.unwrap_or_default()));
    }
    // the same demands as on every other key
    let key = PublicKey::from_spki_der(&key.to_spki_der()).map_err(|refusal| refusal.within(at))?;
    Ok(TokenKey { id, key })
}

fn fault(at: &str, expected: &str, found: &str) -> Refusal {
    Refusal::new(Code::PolicyInvalid, at, expected, found)
}

fn bytes(members: &mut Object<'_>, name: &str) -> Result<Vec<u8>, Refusal> {
    let text = members.text(name)?;
    base64url_decode(&text).map_err(|refusal| refusal.within(&members.place(name)))
}

fn number(members: &mut Object<'_>, name: &str) -> Result<Vec<u8>, Refusal> {
    let bytes = bytes(members, name)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes.get(zeros..).unwrap_or_default().to_vec())
}

fn exact<const N: usize>(members: &mut Object<'_>, name: &str) -> Result<[u8; N], Refusal> {
    let found = bytes(members, name)?;
    let length = found.len();
    found
        .try_into()
        .map_err(|_| fault(&members.place(name), &format!("{N} bytes"), &format!("{length}")))
}

/// The uncompressed point of `N` bytes for each coordinate.
fn point<const N: usize, const WHOLE: usize>(
    members: &mut Object<'_>,
) -> Result<[u8; WHOLE], Refusal> {
    let (x, y): ([u8; N], [u8; N]) = (exact(members, "x")?, exact(members, "y")?);
    let mut point = [0; WHOLE];
    let bytes = [4].into_iter().chain(x).chain(y);
    point.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    Ok(point)
}
