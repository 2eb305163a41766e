//! Where a key is: what the command line takes as `--key`.

use std::path::{Path, PathBuf};

use custody_core::Refusal;
use zeroize::Zeroizing;

use crate::{KeyUri, Signer, agent, file, pkcs11, unavailable};

/// A place that holds a private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A key file: PKCS#8 PEM or OpenSSH, also of a security key.
    File(PathBuf),
    /// A key in the agent, by its `SHA256:` fingerprint, key id or comment.
    Agent(String),
    /// A key in a token: a smart card or another machine for keys, by its `pkcs11:` URI.
    Token(KeyUri),
}

/// What opening a key may use. This room reads no environment and asks nobody by itself.
pub struct Access<'a> {
    /// The agent's socket: `$SSH_AUTH_SOCK`.
    pub agent: Option<&'a Path>,
    /// The library by which `ssh-keygen` speaks to security keys, if not its own:
    /// `$SSH_SK_PROVIDER`.
    pub security_key_provider: Option<&'a Path>,
    /// Gets the passphrase of a key file or the PIN of a token; which one, the text says. Called only
    /// where one is needed, and never again for one that was wrong.
    pub passphrase: &'a mut dyn FnMut(&str) -> Result<Zeroizing<String>, Refusal>,
}

impl std::fmt::Debug for Access<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("agent", &self.agent).finish_non_exhaustive()
    }
}

impl KeySource {
    /// `agent:WHICH`, a `pkcs11:` URI, or the path of a file. A file of such a name is `./agent:WHICH`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if let Some(uri) = text.strip_prefix("pkcs11:") {
            return KeyUri::parse(uri).map(Self::Token);
        }
        match text.strip_prefix("agent:") {
            Some("") => {
                Err(unavailable(text, "agent: and a fingerprint, key id or comment", "no more"))
            }
            Some(which) => Ok(Self::Agent(which.to_owned())),
            None => Ok(Self::File(text.into())),
        }
    }

    /// Opens the key.
    pub fn open(&self, access: &mut Access<'_>) -> Result<Box<dyn Signer>, Refusal> {
        match self {
            Self::File(path) => file::open(path, access),
            Self::Token(uri) => pkcs11::open(uri, access),
            Self::Agent(which) => {
                let socket = access.agent.ok_or_else(|| {
                    unavailable("ssh-agent", "SSH_AUTH_SOCK to be set", "nothing")
                })?;
                Ok(Box::new(agent::AgentKey::find(socket, which)?))
            }
        }
    }
}
