//! Signatures of people: SSHSIG (OpenSSH `PROTOCOL.sshsig`) with plain keys, security keys
//! (`PROTOCOL.u2f`) and passkeys in the `webauthn-sk` form.
//!
//! OpenSSH leaves the flags of a security key and the web origin of a passkey to the caller, so they
//! come out of here as [`Facts`] and the judge holds them against the policy.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::crypto::{self, Scheme, signature_fits};
use crate::encoding::{base64, base64_decode, base64url};
use crate::json;
use crate::key::PublicKey;
use crate::{Code, Refusal};

/// The namespace of every signature that a person makes for Custody.
pub const NAMESPACE: &str = "evidence@custody.dev";

const MAGIC: &[u8] = b"SSHSIG";
const WEBAUTHN: &str = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com";
const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const ATTESTED_DATA: u8 = 0x40;
const EXTENSION_DATA: u8 = 0x80;

/// What a security key said about the person while it signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Somebody touched the key.
    pub user_present: bool,
    /// The key checked who touched it (PIN or fingerprint).
    pub user_verified: bool,
    /// The web origin, if the signature was made by a passkey on a web page.
    pub origin: Option<String>,
}

/// A well-formed SSHSIG whose signature nobody has checked yet.
#[derive(Clone, Debug)]
pub struct SshSignature<'a> {
    key: PublicKey,
    namespace: &'a str,
    hash: Hash,
    format: &'a str,
    blob: &'a [u8],
    tail: &'a [u8],
}

#[derive(Clone, Copy, Debug)]
enum Hash {
    Sha256,
    Sha512,
}

fn malformed(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::ParseFieldType, "SSH signature", expected, found)
}

/// Reads SSH's binary strings (RFC 4251 section 5).
#[derive(Clone, Copy, Debug)]
pub struct Wire<'a>(pub &'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (head, rest) =
            self.0.split_at_checked(count).ok_or_else(|| malformed("more bytes", "the end"))?;
        self.0 = rest;
        Ok(head)
    }

    /// A number of four bytes.
    pub fn u32(&mut self) -> Result<u32, Refusal> {
        let bytes: [u8; 4] = self.take(4)?.try_into().unwrap_or_default();
        Ok(u32::from_be_bytes(bytes))
    }

    /// A byte string.
    pub fn string(&mut self) -> Result<&'a [u8], Refusal> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        self.take(length)
    }

    /// A byte string that is UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Refusal> {
        core::str::from_utf8(self.string()?).map_err(|_| malformed("UTF-8", "other bytes"))
    }

    /// A positive number, without its leading zero. Other leading zeros and negatives are refused.
    pub fn mpint(&mut self) -> Result<&'a [u8], Refusal> {
        let bytes = self.string()?;
        match bytes {
            [0, rest @ ..] if rest.first().is_some_and(|byte| *byte >= 0x80) => Ok(rest),
            [first, ..] if (1..0x80).contains(first) => Ok(bytes),
            _ => Err(malformed("a positive number in its shortest form", "another")),
        }
    }

    /// A point of the named curve, as it is encoded.
    pub fn curve_point(&mut self, curve: &str) -> Result<&'a [u8], Refusal> {
        let found = self.text()?;
        if found != curve {
            return Err(malformed(curve, "another curve"));
        }
        self.string()
    }

    /// That nothing is left.
    pub fn end(self) -> Result<(), Refusal> {
        if self.0.is_empty() { Ok(()) } else { Err(malformed("the end", "more bytes")) }
    }
}

/// Adds a byte string in SSH's form.
pub fn put_string(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    to.extend_from_slice(bytes);
}

/// Bytes of a positive number in SSH's form, from big-endian bytes.
pub fn mpint(bytes: &[u8]) -> Vec<u8> {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let trimmed = bytes.get(start..).unwrap_or_default();
    let mut out = Vec::with_capacity(trimmed.len().saturating_add(1));
    if trimmed.first().is_some_and(|byte| *byte >= 0x80) {
        out.push(0);
    }
    out.extend_from_slice(trimmed);
    out
}

/// The bytes that a key signs for a message: `"SSHSIG" ‖ namespace ‖ "" ‖ hash name ‖ H(message)`.
pub fn signed_data(message: &[u8]) -> Vec<u8> {
    preimage(NAMESPACE, Hash::Sha512, message)
}

fn preimage(namespace: &str, hash: Hash, message: &[u8]) -> Vec<u8> {
    let mut data = MAGIC.to_vec();
    put_string(&mut data, namespace.as_bytes());
    put_string(&mut data, b"");
    match hash {
        Hash::Sha256 => {
            put_string(&mut data, b"sha256");
            put_string(&mut data, &crypto::sha256(message));
        }
        Hash::Sha512 => {
            put_string(&mut data, b"sha512");
            put_string(&mut data, &crypto::sha512(message));
        }
    }
    data
}

/// The SSHSIG blob around a plain key's signature over [`signed_data`]. For Ed25519 `signature` is its
/// 64 bytes, for ECDSA r and s of equal length, for RSA `rsa-sha2-512`'s bytes.
pub fn from_raw(key: &PublicKey, signature: &[u8]) -> Vec<u8> {
    let format = if matches!(key, PublicKey::Rsa { .. }) { "rsa-sha2-512" } else { key.ssh_type() };
    let mut inner = Vec::new();
    put_string(&mut inner, format.as_bytes());
    match key {
        PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) => {
            let (r, s) = signature.split_at(signature.len() / 2);
            let mut pair = Vec::new();
            put_string(&mut pair, &mpint(r));
            put_string(&mut pair, &mpint(s));
            put_string(&mut inner, &pair);
        }
        _ => put_string(&mut inner, signature),
    }
    from_agent(key, &inner)
}

/// The SSHSIG blob around a signature in SSH's own form, as ssh-agent gives it for [`signed_data`].
pub fn from_agent(key: &PublicKey, signature: &[u8]) -> Vec<u8> {
    let mut blob = MAGIC.to_vec();
    blob.extend_from_slice(&1_u32.to_be_bytes());
    put_string(&mut blob, &key.to_ssh_blob());
    put_string(&mut blob, NAMESPACE.as_bytes());
    put_string(&mut blob, b"");
    put_string(&mut blob, b"sha512");
    put_string(&mut blob, signature);
    blob
}

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----";
const END: &str = "-----END SSH SIGNATURE-----";

/// The armoured text that `ssh-keygen -Y verify` reads.
pub fn armor(blob: &[u8]) -> String {
    let mut text = String::from(BEGIN);
    for (i, c) in base64(blob).chars().enumerate() {
        if i.is_multiple_of(70) {
            text.push('\n');
        }
        text.push(c);
    }
    format!("{text}\n{END}\n")
}

/// The blob inside the armoured text that `ssh-keygen -Y sign` writes.
pub fn dearmor(text: &str) -> Result<Vec<u8>, Refusal> {
    let body = text.trim().strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(END));
    let body =
        body.ok_or_else(|| malformed("one BEGIN and one END SSH SIGNATURE line", "other text"))?;
    base64_decode(&body.split_ascii_whitespace().collect::<String>())
}

impl<'a> SshSignature<'a> {
    /// Reads the blob of a signature.
    pub fn parse(blob: &'a [u8]) -> Result<Self, Refusal> {
        let rest = blob.strip_prefix(MAGIC).ok_or_else(|| malformed("SSHSIG", "other bytes"))?;
        let mut wire = Wire(rest);
        let version = wire.u32()?;
        if version != 1 {
            return Err(malformed("version 1", format!("version {version}")));
        }
        let (key, _) = PublicKey::from_ssh_blob(wire.string()?)?;
        let namespace = wire.text()?;
        if !wire.string()?.is_empty() {
            return Err(malformed("an empty reserved field", "bytes in it"));
        }
        let hash = match wire.text()? {
            "sha256" => Hash::Sha256,
            "sha512" => Hash::Sha512,
            _ => return Err(malformed("sha256 or sha512", "another hash")),
        };
        let mut inner = Wire(wire.string()?);
        wire.end()?;
        Ok(Self {
            key,
            namespace,
            hash,
            format: inner.text()?,
            blob: inner.string()?,
            tail: inner.0,
        })
    }

    /// The key that the signature says it was made with. It proves nothing before
    /// [`check`](Self::check) has passed, and who owns it only the policy says.
    pub const fn claimed_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether the key made this signature over the message, for Custody's namespace. For security
    /// keys the facts that they state come back.
    pub fn check(&self, key: &PublicKey, message: &[u8]) -> Result<Option<Facts>, Refusal> {
        self.check_in(NAMESPACE, key, message)
    }

    /// The same for a signature that was made for another program's namespace. Nothing of Custody's is
    /// ever accepted from one.
    pub fn check_in(
        &self,
        namespace: &str,
        key: &PublicKey,
        message: &[u8],
    ) -> Result<Option<Facts>, Refusal> {
        if *key != self.key {
            let code = if key.id() == self.key.id() {
                Code::SignoffRpid
            } else {
                Code::SignoffCredentialUnknown
            };
            return Err(Refusal::new(
                code,
                "SSH signature",
                key.to_openssh(),
                self.key.to_openssh(),
            ));
        }
        if self.namespace != namespace {
            let found: String = self.namespace.escape_default().take(80).collect();
            return Err(Refusal::new(Code::SignoffNamespace, "SSH signature", namespace, found));
        }
        let data = preimage(self.namespace, self.hash, message);
        match (key, self.format) {
            (PublicKey::Ed25519(_), "ssh-ed25519") => self.plain(Scheme::Ed25519, &data, self.blob),
            (PublicKey::EcdsaP256(_), "ecdsa-sha2-nistp256") => {
                self.plain(Scheme::EcdsaP256Fixed, &data, &fixed_pair(self.blob, 32)?)
            }
            (PublicKey::EcdsaP384(_), "ecdsa-sha2-nistp384") => {
                self.plain(Scheme::EcdsaP384Fixed, &data, &fixed_pair(self.blob, 48)?)
            }
            (PublicKey::Rsa { .. }, "rsa-sha2-512") => {
                self.plain(Scheme::RsaPkcs1Sha512, &data, self.blob)
            }
            (PublicKey::Rsa { .. }, "rsa-sha2-256") => {
                self.plain(Scheme::RsaPkcs1Sha256, &data, self.blob)
            }
            (PublicKey::SkEd25519 { application, .. }, "sk-ssh-ed25519@openssh.com") => {
                self.security_key(Scheme::Ed25519, application, &data, self.blob)
            }
            (PublicKey::SkEcdsaP256 { application, .. }, "sk-ecdsa-sha2-nistp256@openssh.com") => {
                self.security_key(
                    Scheme::EcdsaP256Fixed,
                    application,
                    &data,
                    &fixed_pair(self.blob, 32)?,
                )
            }
            (PublicKey::SkEcdsaP256 { application, .. }, WEBAUTHN) => {
                self.passkey(application, &data)
            }
            _ => {
                let found: String = self.format.escape_default().take(60).collect();
                Err(Refusal::new(
                    Code::EnvAlgForbidden,
                    "SSH signature",
                    self.key.ssh_type(),
                    found,
                ))
            }
        }
    }

    fn fits(&self, scheme: Scheme, message: &[u8], sig: &[u8]) -> Result<(), Refusal> {
        if signature_fits(&self.key, scheme, message, sig) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::EnvSignatureInvalid,
            "SSH signature",
            "a signature over these bytes",
            "another",
        ))
    }

    fn plain(&self, scheme: Scheme, data: &[u8], sig: &[u8]) -> Result<Option<Facts>, Refusal> {
        Wire(self.tail).end()?;
        self.fits(scheme, data, sig)?;
        Ok(None)
    }

    fn security_key(
        &self,
        scheme: Scheme,
        application: &str,
        data: &[u8],
        sig: &[u8],
    ) -> Result<Option<Facts>, Refusal> {
        let [flags, counter @ ..] = self.tail else {
            return Err(malformed("flags and counter", "the end"));
        };
        if counter.len() != 4 {
            return Err(malformed("a counter of four bytes at the end", "other bytes"));
        }
        let mut message = crypto::sha256(application.as_bytes()).to_vec();
        message.extend_from_slice(self.tail);
        message.extend_from_slice(&crypto::sha256(data));
        self.fits(scheme, &message, sig)?;
        Ok(Some(facts(*flags, None)))
    }

    /// WebAuthn level 2, section 7.2, with the challenge being the SSHSIG signed data.
    fn passkey(&self, application: &str, data: &[u8]) -> Result<Option<Facts>, Refusal> {
        let mut wire = Wire(self.tail);
        let flags = wire.take(1)?.first().copied().unwrap_or_default();
        let counter = wire.take(4)?;
        let origin = wire.text()?;
        let client_data = wire.string()?;
        let extensions = wire.string()?;
        wire.end()?;
        if flags & ATTESTED_DATA != 0 || (flags & EXTENSION_DATA != 0) == extensions.is_empty() {
            return Err(malformed(
                "an assertion whose flags tell its parts",
                format!("flags {flags:#04x}"),
            ));
        }
        check_client_data(client_data, origin, &base64url(data))?;
        let mut message = crypto::sha256(application.as_bytes()).to_vec();
        message.push(flags);
        message.extend_from_slice(counter);
        message.extend_from_slice(extensions);
        message.extend_from_slice(&crypto::sha256(client_data));
        self.fits(Scheme::EcdsaP256Fixed, &message, &fixed_pair(self.blob, 32)?)?;
        Ok(Some(facts(flags, Some(origin.to_owned()))))
    }
}

fn facts(flags: u8, origin: Option<String>) -> Facts {
    Facts {
        user_present: flags & USER_PRESENT != 0,
        user_verified: flags & USER_VERIFIED != 0,
        origin,
    }
}

fn check_client_data(bytes: &[u8], origin: &str, challenge: &str) -> Result<(), Refusal> {
    let mut object = json::parse(bytes, 1 << 16, 1 << 15)?.into_object("clientDataJSON")?;
    let mut equal = |member: &str, expected: &str, code| {
        let found = object.text(member)?;
        let same = found == expected;
        same.then_some(())
            .ok_or_else(|| Refusal::new(code, format!("clientDataJSON.{member}"), expected, found))
    };
    equal("type", "webauthn.get", Code::SignoffType)?;
    equal("challenge", challenge, Code::SignoffChallengeMismatch)?;
    equal("origin", origin, Code::SignoffOrigin)?;
    let crossed =
        object.optional("crossOrigin").is_some_and(|value| value != json::Value::Bool(false));
    if crossed || object.optional("topOrigin").is_some() {
        return Err(Refusal::new(
            Code::SignoffOrigin,
            "clientDataJSON",
            "a page of its own",
            "a page inside another",
        ));
    }
    Ok(())
}

/// r and s as two numbers of `width` bytes each.
fn fixed_pair(blob: &[u8], width: usize) -> Result<Vec<u8>, Refusal> {
    let mut wire = Wire(blob);
    let (r, s) = (wire.mpint()?, wire.mpint()?);
    wire.end()?;
    let mut out = Vec::with_capacity(width.saturating_mul(2));
    for number in [r, s] {
        let zeros = width
            .checked_sub(number.len())
            .ok_or_else(|| malformed("numbers of the curve's size", "longer ones"))?;
        out.extend(core::iter::repeat_n(0, zeros));
        out.extend_from_slice(number);
    }
    Ok(out)
}
