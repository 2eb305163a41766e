//! Keys in an ssh-agent (draft-ietf-sshm-ssh-agent), over its Unix socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use custody_core::Refusal;
use custody_core::crypto::sha256;
use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_core::sshsig::{Wire, from_agent, put_string, signed_data};

use crate::keypair::ecdsa_der;
use crate::{Signer, checked_plain, checked_ssh, no_plain_signature, unavailable};

const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const RSA_SHA2_512: u32 = 4;
/// The largest message that OpenSSH's agent takes or gives.
const LIMIT: usize = 256 << 10;

/// A key that the agent holds.
#[derive(Debug)]
pub(crate) struct AgentKey {
    socket: PathBuf,
    key: PublicKey,
}

/// The keys that the agent behind the socket holds, with their comments. Kinds that no policy can
/// list are left out.
pub fn list(socket: &Path) -> Result<Vec<(PublicKey, String)>, Refusal> {
    let answer = ask(socket, IDENTITIES_ANSWER, &[REQUEST_IDENTITIES])?;
    let mut wire = Wire(&answer);
    let mut keys = Vec::new();
    for _ in 0..wire.u32()? {
        let (blob, comment) = (wire.string()?, wire.string()?);
        if let Ok((key, _)) = PublicKey::from_ssh_blob(blob) {
            keys.push((key, String::from_utf8_lossy(comment).into_owned()));
        }
    }
    wire.end()?;
    Ok(keys)
}

/// One question, one answer of the wanted kind. There is no time limit: the agent may be asking a
/// person.
fn ask(socket: &Path, wanted: u8, request: &[u8]) -> Result<Vec<u8>, Refusal> {
    let at = format!("ssh-agent at {}", socket.display());
    let answer = exchange(socket, request).map_err(|error| unavailable(&at, "an answer", error))?;
    match answer.split_first() {
        Some((kind, rest)) if *kind == wanted => Ok(rest.to_vec()),
        _ => Err(unavailable(at, "the agent to do it", "a refusal")),
    }
}

fn exchange(socket: &Path, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    let mut message = Vec::new();
    put_string(&mut message, request);
    stream.write_all(&message)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > LIMIT {
        return Err(io::Error::other("an answer that is too long"));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}

impl AgentKey {
    /// The one key with this fingerprint, key id or comment.
    pub(crate) fn find(socket: &Path, which: &str) -> Result<Self, Refusal> {
        let is_wanted = |key: &PublicKey, comment: &str| {
            fingerprint(key) == which || key.id().to_string() == which || comment == which
        };
        let mut keys = list(socket)?;
        keys.retain(|(key, comment)| is_wanted(key, comment));
        match <[_; 1]>::try_from(keys) {
            Ok([(key, _)]) => Ok(Self { socket: socket.to_owned(), key }),
            Err(keys) => {
                let expected = format!("one key that is called {which}");
                Err(unavailable("ssh-agent", expected, format!("{} such keys", keys.len())))
            }
        }
    }

    /// The signature in SSH's own form.
    fn sign(&self, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        let flags = if let PublicKey::Rsa { .. } = self.key { RSA_SHA2_512 } else { 0 };
        let mut request = vec![SIGN_REQUEST];
        put_string(&mut request, &self.key.to_ssh_blob());
        put_string(&mut request, data);
        request.extend_from_slice(&flags.to_be_bytes());
        let answer = ask(&self.socket, SIGN_RESPONSE, &request)?;
        let mut wire = Wire(&answer);
        let signature = wire.string()?.to_vec();
        wire.end()?;
        Ok(signature)
    }
}

/// As `ssh-keygen -l` shows it.
fn fingerprint(key: &PublicKey) -> String {
    format!("SHA256:{}", base64(&sha256(&key.to_ssh_blob())).trim_end_matches('='))
}

impl Signer for AgentKey {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign_plain(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let raw: fn(&[u8]) -> Result<Vec<u8>, Refusal> = match self.key {
            PublicKey::Ed25519(_) => |blob| Ok(blob.to_vec()),
            PublicKey::EcdsaP256(_) | PublicKey::EcdsaP384(_) => |blob| {
                let mut pair = Wire(blob);
                ecdsa_der(pair.mpint()?, pair.mpint()?)
            },
            // Agents know RSA with PKCS#1 v1.5 only.
            PublicKey::Rsa { .. } | PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsaP256 { .. } => {
                return Err(no_plain_signature(&self.key));
            }
        };
        let signature = self.sign(message)?;
        let mut wire = Wire(&signature);
        wire.text()?;
        checked_plain(&self.key, message, raw(wire.string()?)?)
    }

    fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let signature = self.sign(&signed_data(message))?;
        checked_ssh(&self.key, message, from_agent(&self.key, &signature))
    }
}
