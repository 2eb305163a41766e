//! The only room with private keys: key files, ssh-agent, security keys through `ssh-keygen`, and tokens
//! through PKCS#11.
//!
//! A [`KeySource`] says where a key is; opening it gives a [`Signer`], behind which the secret stays.
//! Every signer checks its own signature before it hands it out: a faulty machine or a broken agent
//! must not leave half a secret, or nonsense, in the evidence.

mod agent;
mod file;
mod generate;
mod keypair;
mod openssh;
mod pem;
mod pkcs11;
mod security_key;
mod source;

pub use agent::list as list_agent;
pub use generate::{Format, Kind, NewKey, generate};
pub use pkcs11::KeyUri;
pub use source::{Access, KeySource};

use std::fmt::Debug;

use custody_core::crypto::signature_fits;
use custody_core::envelope::{Envelope, Signature};
use custody_core::key::PublicKey;
use custody_core::sshsig::SshSignature;
use custody_core::{Code, Refusal};

/// A private key that can be used and not seen.
pub trait Signer: Debug + Send + Sync {
    /// The public half.
    fn public_key(&self) -> &PublicKey;

    /// A plain signature as [`PublicKey::dsse_scheme`] says: how machines sign. Security keys, and
    /// RSA keys in an agent, cannot make one.
    fn sign_plain(&self, message: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// An SSHSIG blob in [Custody's namespace](custody_core::sshsig::NAMESPACE): how people sign.
    fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>, Refusal>;
}

/// Adds the signer's plain signature to the envelope.
pub fn sign_envelope_as_machine(
    envelope: &mut Envelope,
    signer: &dyn Signer,
) -> Result<(), Refusal> {
    let sig = signer.sign_plain(envelope.pae())?;
    add(envelope, signer, sig);
    Ok(())
}

/// Adds the signer's SSHSIG to the envelope.
pub fn sign_envelope_as_person(
    envelope: &mut Envelope,
    signer: &dyn Signer,
) -> Result<(), Refusal> {
    let sig = signer.sign_ssh(envelope.pae())?;
    add(envelope, signer, sig);
    Ok(())
}

fn add(envelope: &mut Envelope, signer: &dyn Signer, sig: Vec<u8>) {
    envelope.add_signature(Signature { keyid: Some(signer.public_key().id().to_string()), sig });
}

/// The plain signature, if it fits.
fn checked_plain(key: &PublicKey, message: &[u8], sig: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    let fits = key.dsse_scheme().is_some_and(|scheme| signature_fits(key, scheme, message, &sig));
    if fits {
        return Ok(sig);
    }
    let at = key.to_openssh();
    Err(Refusal::new(Code::EnvSignatureInvalid, at, "a signature that fits", "a faulty one"))
}

/// The SSHSIG blob, if it fits.
fn checked_ssh(key: &PublicKey, message: &[u8], blob: Vec<u8>) -> Result<Vec<u8>, Refusal> {
    SshSignature::parse(&blob)?.check(key, message)?;
    Ok(blob)
}

/// Why a security key, or RSA in an agent, makes no plain signature.
fn no_plain_signature(key: &PublicKey) -> Refusal {
    let expected = "a key in a file or token, or an Ed25519 or ECDSA key in the agent, for a machine's signature";
    Refusal::new(Code::EnvAlgForbidden, key.to_openssh(), expected, key.ssh_type())
}

#[expect(clippy::needless_pass_by_value, reason = "errors and literals alike")]
fn unavailable(
    at: impl Into<String>,
    expected: impl Into<String>,
    found: impl ToString,
) -> Refusal {
    Refusal::new(Code::KeyUnavailable, at, expected, found.to_string())
}
