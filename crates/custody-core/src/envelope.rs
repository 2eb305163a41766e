//! DSSE envelopes (in-toto's Dead Simple Signing Envelope, version 1) and what signatures prove.
//!
//! Three types, one direction: an [`Envelope`] is well formed and proves nothing. [`Envelope::open`]
//! makes a [`Signed`] payload: at least one key of a key ring signed these bytes, and only then were
//! they parsed. [`Signed::verify`] makes a [`Verified`] one: enough distinct principals who may say
//! this have said it. There is no other way to make either. What they hold anybody reads:
//!
//! ```
//! use custody_core::envelope::{StatementId, Verified};
//! fn read<'v, T>(verified: &'v Verified<'_, T>) -> (&'v T, &'v [String], StatementId) {
//!     (verified.get(), verified.principals(), verified.id())
//! }
//! ```
//!
//! and nobody makes one up:
//!
//! ```compile_fail,E0451
//! use custody_core::envelope::Verified;
//! fn forge<T>(content: &T, id: custody_core::envelope::StatementId) -> Verified<'_, T> {
//!     Verified { content, principals: Vec::new(), id }
//! }
//! ```

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::str::FromStr;

use crate::crypto::signature_fits;
use crate::digest::Sha256;
use crate::encoding::{base64, base64_decode, base64_decode_after, base64_length};
use crate::json::{self, Value};
use crate::key::{KeyId, PublicKey};
use crate::limits::{ENVELOPE_BYTES, KEYID_BYTES, SIGNATURES};
use crate::sshsig::{Facts, SshSignature};
use crate::{Code, Refusal};

/// SHA-256 of the pre-authentication encoding: what all links between statements use. Signatures and
/// the envelope's own spelling can change without a key; the id cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatementId(pub Sha256);

impl StatementId {
    /// The first 12 digits, for showing only.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl fmt::Display for StatementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for StatementId {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        text.parse().map(Self)
    }
}

/// The bytes that a DSSE signature covers (DSSE protocol, "PAE"). Lengths are in bytes.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = prefix(payload_type, payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

fn prefix(payload_type: &str, payload_bytes: usize) -> String {
    format!("DSSEv1 {} {payload_type} {payload_bytes} ", payload_type.len())
}

/// One signature of an envelope. The key id is a hint that nobody vouches for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signature {
    /// Which key the signature says it was made with.
    pub keyid: Option<String>,
    /// A plain signature, or for people an SSHSIG blob.
    pub sig: Vec<u8>,
}

/// A well-formed envelope within the limits. Nothing in it is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    /// What signatures cover; the payload is its end.
    signed: Vec<u8>,
    payload_bytes: usize,
    signatures: Vec<Signature>,
    id: StatementId,
}

/// The public keys that are known at all, by id. Who may do what is decided later.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    listed: BTreeMap<KeyId, PublicKey>,
    named: BTreeMap<KeyId, PublicKey>,
}

impl Keyring {
    /// Adds a key.
    pub fn insert(&mut self, key: PublicKey) {
        self.listed.insert(key.id(), key);
    }

    /// Adds a key that only a signature with its id is held against. There may be any number of them:
    /// they are not tried for signatures that do not say whose they are.
    pub fn insert_named(&mut self, key: PublicKey) {
        self.named.insert(key.id(), key);
    }

    /// The key of this id.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.listed.get(id).or_else(|| self.named.get(id))
    }
}

impl FromIterator<PublicKey> for Keyring {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        let listed = keys.into_iter().map(|key| (key.id(), key)).collect();
        Self { listed, named: BTreeMap::new() }
    }
}

/// A known key whose signature over the envelope fits, and how it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// The key.
    pub key: KeyId,
    /// The form of the signature.
    pub form: Form,
}

/// The form of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain, as machines sign.
    Plain,
    /// SSHSIG, as people sign, with what a security key stated.
    Ssh(Option<Facts>),
}

/// A payload type that an envelope may carry. Only this crate says which there are.
pub trait Payload: Sized + sealed::Sealed {
    /// The DSSE payload type.
    const TYPE: &'static str;

    /// Reads the payload.
    fn parse(bytes: &[u8]) -> Result<Self, Refusal>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// The text of a policy: TOML, signed as it was written. What it means, the judge decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText(pub String);

impl sealed::Sealed for PolicyText {}

impl Payload for PolicyText {
    const TYPE: &'static str = "application/vnd.custody.policy+toml";

    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        match core::str::from_utf8(bytes) {
            Ok(text) => Ok(Self(text.to_owned())),
            Err(error) => {
                Err(Refusal::new(Code::ParseUnicodeInvalid, "policy", "UTF-8", error.to_string()))
            }
        }
    }
}

fn missing<T>(value: Option<T>, at: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| Refusal::new(Code::ParseFieldMissing, at, "this member", "nothing"))
}

fn parse_signature(value: Value<'_>, at: &str) -> Result<Signature, Refusal> {
    let mut object = value.into_object(at)?;
    let keyid = object.optional("keyid").map(|value| match value {
        Value::String(text) if text.len() <= KEYID_BYTES => Ok(text.into_owned()),
        Value::String(text) => {
            let (limit, found) =
                (format!("at most {KEYID_BYTES} bytes"), format!("{} bytes", text.len()));
            Err(Refusal::new(Code::ParseSizeExceeded, format!("{at}.keyid"), limit, found))
        }
        other => other.into_text(at),
    });
    let sig = match object.required("sig")? {
        Value::String(text) => base64_decode(&text).map_err(|refusal| refusal.within(at))?,
        other => {
            return other
                .into_text(&format!("{at}.sig"))
                .map(|_| Signature { keyid: None, sig: Vec::new() });
        }
    };
    Ok(Signature { keyid: keyid.transpose()?.filter(|id| !id.is_empty()), sig })
}

impl Envelope {
    /// An envelope without signatures around a payload of our own.
    pub fn unsigned<P: Payload>(payload: impl AsRef<[u8]>) -> Self {
        let payload = payload.as_ref();
        Self::assemble(P::TYPE.to_owned(), pae(P::TYPE, payload), payload.len(), Vec::new())
    }

    fn assemble(
        payload_type: String,
        signed: Vec<u8>,
        payload_bytes: usize,
        signatures: Vec<Signature>,
    ) -> Self {
        let id = StatementId(Sha256::of(&signed));
        Self { payload_type, signed, payload_bytes, signatures, id }
    }

    /// Reads the JSON form. Members that DSSE does not define are ignored, as it demands.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let value = json::parse(bytes, ENVELOPE_BYTES, ENVELOPE_BYTES)
            .map_err(|refusal| refusal.within("envelope"))?;
        let mut object = value.into_object("envelope")?;
        let payload_type = object.text("payloadType")?;
        let (signed, payload_bytes) = match missing(object.optional("payload"), "envelope.payload")?
        {
            Value::String(text) => {
                let length = base64_length(&text);
                let start = prefix(&payload_type, length).into_bytes();
                let whole = start.len().saturating_add(length);
                let signed = base64_decode_after(start, &text);
                let signed = signed.map_err(|refusal| refusal.within("envelope.payload"))?;
                if signed.len() != whole {
                    let found = format!("{} of {whole} bytes", signed.len());
                    let at = "envelope.payload";
                    return Err(Refusal::new(Code::ParseBase64Invalid, at, "base64", found));
                }
                (signed, length)
            }
            other => {
                let text = other.into_text("envelope.payload")?;
                (pae(&payload_type, text.as_bytes()), text.len())
            }
        };
        let list = match object.optional("signatures") {
            None => Vec::new(),
            Some(value) => value.into_list("envelope.signatures")?,
        };
        if list.is_empty() {
            return Err(Refusal::new(
                Code::EnvNoSignature,
                "envelope.signatures",
                "a signature",
                "none",
            ));
        }
        if list.len() > SIGNATURES {
            let (limit, found) =
                (format!("at most {SIGNATURES} signatures"), list.len().to_string());
            return Err(Refusal::new(
                Code::ParseCountExceeded,
                "envelope.signatures",
                limit,
                found,
            ));
        }
        let place = |i: usize| format!("envelope.signatures[{i}]");
        let signatures: Result<_, _> = list
            .into_iter()
            .enumerate()
            .map(|(i, value)| parse_signature(value, &place(i)))
            .collect();
        Ok(Self::assemble(payload_type, signed, payload_bytes, signatures?))
    }

    /// The JSON form, on one line.
    pub fn to_json(&self) -> String {
        let signature = |signature: &Signature| {
            let keyid = signature.keyid.as_ref().map(Value::text);
            Value::object([])
                .with("keyid", keyid)
                .with("sig", Some(Value::text(base64(&signature.sig))))
        };
        Value::object([
            ("payloadType", Value::text(&self.payload_type)),
            ("payload", Value::text(base64(self.unverified_payload()))),
            ("signatures", Value::list(self.signatures.iter().map(signature))),
        ])
        .to_line()
    }

    /// The statement id.
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The DSSE payload type.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The bytes that signatures cover.
    pub fn pae(&self) -> &[u8] {
        &self.signed
    }

    /// The signatures, unchecked.
    pub fn signatures(&self) -> &[Signature] {
        &self.signatures
    }

    /// Adds a signature that is not there yet.
    pub fn add_signature(&mut self, signature: Signature) {
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
    }

    /// The payload without any proof: for showing it, and for finding it again in an index.
    pub fn unverified_payload(&self) -> &[u8] {
        let start = self.signed.len().saturating_sub(self.payload_bytes);
        self.signed.get(start..).unwrap_or_default()
    }

    /// Checks all signatures against the known keys, then reads the payload. At least one must fit;
    /// the others are neither counted nor fatal, whatever their order.
    pub fn open<P: Payload>(&self, keyring: &Keyring) -> Result<Signed<P>, Refusal> {
        if self.payload_type != P::TYPE {
            let found: String = self.payload_type.escape_default().take(80).collect();
            return Err(Refusal::new(Code::EnvPayloadType, "envelope.payloadType", P::TYPE, found));
        }
        let signers = self.signers(keyring)?;
        Ok(Signed {
            content: P::parse(self.unverified_payload())?,
            signers: signers.into(),
            id: self.id,
        })
    }

    fn signers(&self, keyring: &Keyring) -> Result<Vec<Signer>, Refusal> {
        let mut signers: Vec<Signer> = Vec::new();
        let mut fault: Option<Refusal> = None;
        // in an order of their own, so that the order in the envelope decides nothing
        let mut signatures: Vec<&Signature> = self.signatures.iter().collect();
        signatures.sort_unstable();
        for signature in signatures {
            match signer(signature, &self.signed, keyring) {
                // one key may sign in two forms, of which only one is what the policy asks for
                Ok(found) if !signers.contains(&found) => signers.push(found),
                Ok(_) => {}
                Err(refusal) => {
                    if fault.as_ref().is_none_or(|known| known.code == Code::EnvKeyUnknown) {
                        fault = Some(refusal);
                    }
                }
            }
        }
        match fault {
            Some(refusal) if signers.is_empty() => Err(refusal),
            None if signers.is_empty() => Err(Refusal::new(
                Code::EnvNoSignature,
                "envelope.signatures",
                "a signature",
                "none",
            )),
            _ => Ok(signers),
        }
    }
}

fn signer(signature: &Signature, message: &[u8], keyring: &Keyring) -> Result<Signer, Refusal> {
    let unknown = |found: String| {
        Refusal::new(Code::EnvKeyUnknown, "signature", "a key that the policy lists", found)
    };
    if signature.sig.starts_with(b"SSHSIG") {
        let ssh = SshSignature::parse(&signature.sig)?;
        let claimed = ssh.claimed_key();
        let key = keyring.get(&claimed.id()).ok_or_else(|| unknown(claimed.to_openssh()))?;
        return Ok(Signer { key: key.id(), form: Form::Ssh(ssh.check(key, message)?) });
    }
    let fits = |key: &PublicKey| {
        key.dsse_scheme().is_some_and(|scheme| signature_fits(key, scheme, message, &signature.sig))
    };
    let hint = signature.keyid.as_deref().unwrap_or_default();
    let hinted = hint.parse::<KeyId>().ok().and_then(|id| Some((id, keyring.get(&id)?)));
    let shown: String = hint.escape_default().take(64).collect();
    if let Some((id, key)) = hinted {
        return if fits(key) {
            Ok(Signer { key: id, form: Form::Plain })
        } else {
            Err(Refusal::new(
                Code::EnvSignatureInvalid,
                "signature",
                format!("a signature by key {}", id.short()),
                "one that does not fit these bytes",
            ))
        };
    }
    let found = keyring.listed.iter().take(MAX_TRIALS).find(|(_, key)| fits(key));
    found
        .map(|(id, _)| Signer { key: *id, form: Form::Plain })
        .ok_or_else(|| unknown(format!("key id {shown:?}")))
}

/// How many keys are tried for a signature whose key id says nothing.
const MAX_TRIALS: usize = 1024;

/// A payload that at least one known key signed. Whether that key may say this is still open.
#[derive(Clone, Debug)]
pub struct Signed<T> {
    content: T,
    signers: Arc<[Signer]>,
    id: StatementId,
}

impl<T> Signed<T> {
    /// The statement id.
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// The known keys that signed, each with its form; a key that signed in two forms stands twice.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// The content, said by somebody known who may not be entitled to say it.
    pub const fn unverified(&self) -> &T {
        &self.content
    }

    /// The same, borrowed.
    pub fn by_ref(&self) -> Signed<&T> {
        Signed { content: &self.content, signers: self.signers.clone(), id: self.id }
    }

    /// The same for one part of the content, if `part` finds it.
    pub fn narrow<U>(&self, part: impl FnOnce(&T) -> Option<&U>) -> Option<Signed<&U>> {
        Some(Signed { content: part(&self.content)?, signers: self.signers.clone(), id: self.id })
    }
}

impl<'a, T> Signed<&'a T> {
    /// The content as verified, if at least `threshold` distinct principals signed who `entitled`
    /// names. For a signer that does not count, `entitled` says why not.
    pub fn verify(
        self,
        threshold: NonZeroU32,
        mut entitled: impl FnMut(&Signer) -> Result<String, Refusal>,
    ) -> Result<Verified<'a, T>, Refusal> {
        let mut principals: Vec<String> = Vec::new();
        let mut fault: Option<Refusal> = None;
        for signer in &*self.signers {
            match entitled(signer) {
                Ok(principal) if !principals.contains(&principal) => principals.push(principal),
                Ok(_) => {}
                Err(refusal) => {
                    fault.get_or_insert(refusal);
                }
            }
        }
        let enough = u32::try_from(principals.len()).is_ok_and(|count| count >= threshold.get());
        match fault {
            _ if enough => Ok(Verified { content: self.content, principals, id: self.id }),
            Some(refusal) if principals.is_empty() => Err(refusal),
            _ => Err(Refusal::new(
                Code::EnvThresholdNotMet,
                format!("statement {}", self.id.short()),
                format!("signatures of {threshold} distinct principals"),
                format!("{}: {}", principals.len(), principals.join(", ")),
            )),
        }
    }
}

/// Content that enough distinct, entitled principals signed.
#[derive(Debug)]
pub struct Verified<'a, T> {
    content: &'a T,
    principals: Vec<String>,
    id: StatementId,
}

impl<'a, T> Verified<'a, T> {
    /// The statement id.
    pub const fn id(&self) -> StatementId {
        self.id
    }

    /// Who signed.
    pub fn principals(&self) -> &[String] {
        &self.principals
    }

    /// The content.
    pub const fn get(&self) -> &'a T {
        self.content
    }
}

impl<T> Deref for Verified<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.content
    }
}
