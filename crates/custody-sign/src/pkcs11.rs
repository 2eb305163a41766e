//! Keys in tokens, through PKCS#11 (OASIS, version 2.40 and later): smart cards and other machines for
//! keys, which sign and never give the key away.

mod module;
mod public;
mod uri;

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, SHA384, digest};
use cryptoki::context::Pkcs11;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsPssParams};
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::RawAuthPin;
use custody_core::Refusal;
use custody_core::key::PublicKey;
use custody_core::sshsig::{from_raw, signed_data};

pub use self::uri::KeyUri;
use crate::keypair::ecdsa_der;
use crate::source::Access;
use crate::{Signer, checked_plain, checked_ssh, file, no_plain_signature, unavailable};

/// A private key in a token.
pub(crate) struct TokenKey {
    at: String,
    public: PublicKey,
    private: ObjectHandle,
    /// Does one thing at a time, and keeps us logged in.
    session: Mutex<Session>,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenKey").field("at", &self.at).finish_non_exhaustive()
    }
}

pub(crate) fn open(uri: &KeyUri, access: &mut Access<'_>) -> Result<Box<dyn Signer>, Refusal> {
    let at = uri.to_string();
    let module = module::load(&uri.module)?;
    let (slot, token) = find_token(&module, uri).map_err(|refusal| refusal.within(&at))?;
    let session = module.open_ro_session(slot);
    let session = session.map_err(|error| unavailable(&at, "a session", told(&error)))?;
    log_in(&session, &token, uri, access).map_err(|refusal| refusal.within(&at))?;
    let private = find_key(&session, uri).map_err(|refusal| refusal.within(&at))?;
    let public = public::read(&session, private).map_err(|refusal| refusal.within(&at))?;
    Ok(Box::new(TokenKey { at, public, private, session: Mutex::new(session) }))
}

/// What went wrong, in the words of the specification rather than in its paragraphs.
fn told(error: &Error) -> String {
    match error {
        Error::Pkcs11(value, function) => format!("{value:?} from C_{function:?}"),
        Error::LibraryLoading(error) => error.to_string(),
        other => other.to_string(),
    }
}

fn find_token(module: &Pkcs11, uri: &KeyUri) -> Result<(Slot, TokenInfo), Refusal> {
    let slots = module.get_slots_with_token();
    let slots = slots.map_err(|error| unavailable("", "the tokens", told(&error)))?;
    // a token that does not even say what it is stands in nobody's way
    let known =
        slots.into_iter().filter_map(|slot| Some((slot, module.get_token_info(slot).ok()?)));
    let all: Vec<(Slot, TokenInfo)> = known.filter(|(_, it)| it.token_initialized()).collect();
    let is = |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|it| it == found);
    let fits = |token: &TokenInfo| {
        is(&uri.token, token.label())
            && is(&uri.manufacturer, token.manufacturer_id())
            && is(&uri.serial, token.serial_number())
            && is(&uri.model, token.model())
    };
    let fitting: Vec<_> = all.iter().filter(|(_, token)| fits(token)).collect();
    if let [(slot, token)] = fitting.as_slice() {
        return Ok((*slot, token.clone()));
    }
    let name = |(_, token): &(Slot, TokenInfo)| {
        let label = uri::attribute("token", token.label().as_bytes());
        format!("{label};{}", uri::attribute("serial", token.serial_number().as_bytes()))
    };
    let found = listed(fitting.into_iter().map(name), all.iter().map(name));
    Err(unavailable("", "one token that fits", found))
}

/// Logs in as the token's user, unless this process is already. A wrong PIN is never tried again:
/// tokens count them, and lock.
fn log_in(
    session: &Session,
    token: &TokenInfo,
    uri: &KeyUri,
    access: &mut Access<'_>,
) -> Result<(), Refusal> {
    let info = session.get_session_info();
    let info = info.map_err(|error| unavailable("", "a session", told(&error)))?;
    if !token.login_required() || info.session_state() == SessionState::RoUser {
        return Ok(());
    }
    let locked = || unavailable("", "a PIN to log in with", "a locked one: unlock it with its PUK");
    if token.user_pin_locked() {
        return Err(locked());
    }
    let done = if token.protected_authentication_path() {
        session.login(UserType::User, None)
    } else {
        session.login_with_raw(UserType::User, &pin(token, uri, access)?)
    };
    done.or_else(|error| match error {
        // by another thread, in between
        Error::Pkcs11(RvError::UserAlreadyLoggedIn, _) => Ok(()),
        Error::Pkcs11(RvError::PinLocked, _) => Err(locked()),
        Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => {
            let found = "another, which was tried once: tokens lock after a few";
            Err(unavailable("", "the PIN of the token", found))
        }
        error => Err(unavailable("", "to log in", told(&error))),
    })
}

fn pin(token: &TokenInfo, uri: &KeyUri, access: &mut Access<'_>) -> Result<RawAuthPin, Refusal> {
    // room for all of it at once, wiped with the box around it
    let boxed = |pin: &[u8]| RawAuthPin::new(Box::new(pin.to_vec()));
    if let Some(path) = &uri.pin_file {
        let text = file::read(path);
        let text = text.map_err(|refusal| refusal.within(&path.display().to_string()))?;
        let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        return Ok(boxed(line.strip_suffix(b"\r").unwrap_or(line)));
    }
    let last = if token.user_pin_final_try() { ", the last try before it locks" } else { "" };
    // the terminal obeys no token
    let label = token.label().escape_debug();
    let asked = (access.passphrase)(&format!("PIN of token {label}{last}"))?;
    Ok(boxed(asked.as_bytes()))
}

fn find_key(session: &Session, uri: &KeyUri) -> Result<ObjectHandle, Refusal> {
    let fault = |error: Error| unavailable("", "the token's private keys", told(&error));
    let all = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
    let mut wanted = all.to_vec();
    wanted.extend(uri.object.as_ref().map(|label| Attribute::Label(label.clone().into_bytes())));
    wanted.extend(uri.id.as_ref().map(|id| Attribute::Id(id.clone())));
    let found = session.find_objects(&wanted).map_err(fault)?;
    if let [one] = found.as_slice() {
        return Ok(*one);
    }
    let names = |keys: Vec<ObjectHandle>| -> Result<Vec<String>, Error> {
        keys.into_iter().map(|key| describe(session, key)).collect()
    };
    let all = session.find_objects(&all).and_then(names).map_err(fault)?;
    let found = listed(names(found).map_err(fault)?, all);
    Err(unavailable("", "one private key that fits", found))
}

/// The key's own attributes, as a URI has them.
fn describe(session: &Session, key: ObjectHandle) -> Result<String, Error> {
    let found = session.get_attributes(key, &[AttributeType::Label, AttributeType::Id])?;
    let parts = found.iter().filter_map(|found| match found {
        Attribute::Label(label) => Some(uri::attribute("object", label)),
        Attribute::Id(id) => Some(uri::attribute("id", id)),
        _ => None,
    });
    Ok(parts.collect::<Vec<_>>().join(";"))
}

/// What was found instead of the one thing that was wanted: several that fit, or none, and what there
/// is then.
fn listed(
    fitting: impl IntoIterator<Item = String>,
    all: impl IntoIterator<Item = String>,
) -> String {
    const SHOWN: usize = 10;
    let text = |mut names: Vec<String>| {
        names.sort();
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        names.extend((more > 0).then(|| format!("{more} more")));
        names.join(", ")
    };
    let fitting: Vec<String> = fitting.into_iter().collect();
    let all: Vec<String> = all.into_iter().collect();
    match (fitting.len(), all.is_empty()) {
        (0, true) => "none".to_owned(),
        (0, false) => format!("none; there are {}", text(all)),
        (number, _) => format!("{number}: {}", text(fitting)),
    }
}

impl TokenKey {
    /// Ed25519: 64 bytes. ECDSA: r and s of equal length. RSA: as `rsa` says. Tokens are given digests
    /// where the scheme allows it, since many take only little at once.
    fn sign(&self, message: &[u8], rsa: RsaPadding) -> Result<Vec<u8>, Refusal> {
        let pss = PkcsPssParams {
            hash_alg: MechanismType::SHA256,
            mgf: PkcsMgfType::MGF1_SHA256,
            s_len: 32.into(),
        };
        let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
        let hashed;
        let (mechanism, data) = match (&self.public, rsa) {
            (PublicKey::Ed25519(_), _) => (Mechanism::Eddsa(pure), message),
            (PublicKey::EcdsaP384(_), _) => {
                hashed = digest(&SHA384, message);
                (Mechanism::Ecdsa, hashed.as_ref())
            }
            (PublicKey::EcdsaP256(_), _) => {
                hashed = digest(&SHA256, message);
                (Mechanism::Ecdsa, hashed.as_ref())
            }
            (PublicKey::Rsa { .. }, RsaPadding::PssSha256) => {
                hashed = digest(&SHA256, message);
                (Mechanism::RsaPkcsPss(pss), hashed.as_ref())
            }
            (PublicKey::Rsa { .. }, RsaPadding::Pkcs1Sha512) => (Mechanism::Sha512RsaPkcs, message),
            (PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsaP256 { .. }, _) => {
                return Err(no_plain_signature(&self.public));
            }
        };
        let session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = session.sign(&mechanism, self.private, data);
        signature.map_err(|error| unavailable(&self.at, "a signature by the token", told(&error)))
    }
}

#[derive(Clone, Copy)]
enum RsaPadding {
    /// Of machines: [`custody_core::crypto::Scheme::RsaPssSha256`].
    PssSha256,
    /// Of SSHSIG: `rsa-sha2-512` (RFC 8332).
    Pkcs1Sha512,
}

impl Signer for TokenKey {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign_plain(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut sig = self.sign(message, RsaPadding::PssSha256)?;
        if let PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) = self.public {
            let (r, s) = sig.split_at(sig.len() / 2);
            sig = ecdsa_der(r, s)?;
        }
        checked_plain(&self.public, message, sig)
    }

    fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let sig = self.sign(&signed_data(message), RsaPadding::Pkcs1Sha512)?;
        checked_ssh(&self.public, message, from_raw(&self.public, &sig))
    }
}
