//! Security keys, through `ssh-keygen`: it speaks to the hardware and asks for touch and PIN.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_core::Refusal;
use custody_core::key::PublicKey;
use custody_core::sshsig::{NAMESPACE, dearmor};

use crate::{Signer, checked_ssh, no_plain_signature, unavailable};

/// A key file of a security key: it holds no secret, only the handle.
#[derive(Debug)]
pub(crate) struct SecurityKeyFile {
    path: PathBuf,
    key: PublicKey,
    provider: Option<PathBuf>,
}

impl SecurityKeyFile {
    pub(crate) fn new(path: &Path, key: PublicKey, provider: Option<PathBuf>) -> Self {
        Self { path: path.to_owned(), key, provider }
    }
}

impl Signer for SecurityKeyFile {
    fn public_key(&self) -> &PublicKey {
        &self.key
    }

    fn sign_plain(&self, _message: &[u8]) -> Result<Vec<u8>, Refusal> {
        Err(no_plain_signature(&self.key))
    }

    fn sign_ssh(&self, message: &[u8]) -> Result<Vec<u8>, Refusal> {
        let fault = |error| unavailable("ssh-keygen", "to run and sign", error);
        let folder = tempfile::Builder::new().prefix("custody-").tempdir().map_err(fault)?;
        let file = folder.path().join("message");
        fs::write(&file, message).map_err(fault)?;
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(&self.path).arg(&file);
        if let Some(provider) = &self.provider {
            command.env("SSH_SK_PROVIDER", provider);
        }
        // Prompts go to the terminal; standard output is ours.
        let status = command.stdout(Stdio::null()).status().map_err(fault)?;
        if !status.success() {
            return Err(unavailable("ssh-keygen", "a signature by the security key", status));
        }
        let text = fs::read_to_string(file.with_extension("sig")).map_err(fault)?;
        checked_ssh(&self.key, message, dearmor(&text)?)
    }
}
