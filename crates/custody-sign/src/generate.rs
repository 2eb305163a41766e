//! New keys.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsBigEndian as _;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use custody_core::Refusal;
use custody_core::key::PublicKey;
use custody_core::sshsig::{mpint, put_string};
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Parameters, ScryptParams};
use pkcs8::pkcs5::scrypt;
use pkcs8::{PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use crate::keypair::KeyPair;
use crate::{Signer, openssh, pem, unavailable};

/// A kind of key that we make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Ed25519: small, fast, the same everywhere.
    #[default]
    Ed25519,
    /// ECDSA on P-256, where the other side wants it.
    EcdsaP256,
}

/// A form of key file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// PKCS#8 PEM, which OpenSSL reads.
    #[default]
    Pkcs8,
    /// OpenSSH's, which `ssh-keygen` and `ssh-add` read.
    OpenSsh,
}

/// A key that is in no file yet.
pub struct NewKey {
    public: PublicKey,
    pkcs8: Document,
    /// Type and numbers as a file of OpenSSH has them.
    ssh: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for NewKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Makes a key from the system's randomness.
pub fn generate(kind: Kind) -> Result<NewKey, Refusal> {
    let (pkcs8, number) = make(kind).map_err(|error| unavailable("", "a new key", error))?;
    let public = KeyPair::from_pkcs8(pkcs8.as_ref())?.public_key().clone();
    // In both kinds the private numbers are the public ones and one more.
    let mut ssh = Zeroizing::new(Vec::with_capacity(512));
    ssh.extend_from_slice(&public.to_ssh_blob());
    put_string(&mut ssh, &number);
    Ok(NewKey { public, pkcs8, ssh })
}

/// The key as PKCS#8, and the number that only its owner knows as OpenSSH writes it.
fn make(kind: Kind) -> Result<(Document, Zeroizing<Vec<u8>>), Unspecified> {
    match kind {
        Kind::Ed25519 => {
            let pair = Ed25519KeyPair::generate()?;
            let mut number = Zeroizing::new(Vec::with_capacity(64));
            number.extend_from_slice(pair.seed()?.as_be_bytes()?.as_ref());
            number.extend_from_slice(pair.public_key().as_ref());
            // Version 1: OpenSSL 3.0 does not read version 2.
            Ok((pair.to_pkcs8v1()?, number))
        }
        Kind::EcdsaP256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
            let number = mpint(pair.private_key().as_be_bytes()?.as_ref());
            Ok((pair.to_pkcs8v1()?, Zeroizing::new(number)))
        }
    }
}

impl NewKey {
    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// Writes the key to a new file that only its owner can read, and its public half as a line of
    /// OpenSSH to `FILE.pub`. Both are whole and on the disk when this returns; an existing file is
    /// never touched.
    pub fn write(
        &self,
        path: &Path,
        format: Format,
        passphrase: Option<&str>,
        comment: &str,
    ) -> Result<(), Refusal> {
        let at = path.display().to_string();
        if comment.contains(char::is_control) {
            return Err(unavailable(at, "a comment of one line", comment.escape_default()));
        }
        let text = match format {
            Format::Pkcs8 => self.pkcs8_pem(passphrase),
            Format::OpenSsh => openssh::encode(&self.public, &self.ssh, comment, passphrase)
                .map(|bytes| pem::encode("OPENSSH PRIVATE KEY", &bytes, 70)),
        };
        let text = text.map_err(|refusal| refusal.within(&at))?;
        let line = format!("{} {comment}\n", self.public.to_openssh());
        let mut beside = path.as_os_str().to_owned();
        beside.push(".pub");
        let beside = PathBuf::from(beside);
        create(&beside, 0o644, line.as_bytes())?;
        create(path, 0o600, text.as_bytes()).or_else(|refusal| {
            // A public key without its private one would stand in the way of the next attempt.
            fs::remove_file(&beside).map_err(|error| fault(&beside, &error))?;
            Err(refusal)
        })
    }

    fn pkcs8_pem(&self, passphrase: Option<&str>) -> Result<Zeroizing<String>, Refusal> {
        let Some(passphrase) = passphrase else {
            return Ok(pem::encode("PRIVATE KEY", self.pkcs8.as_ref(), 64));
        };
        let mut random = [0; 32];
        rand::fill(&mut random).map_err(|error| unavailable("", "randomness", error))?;
        let sealed = seal(self.pkcs8.as_ref(), passphrase, random);
        let sealed = sealed.map_err(|error| unavailable("", "an encrypted key", error))?;
        Ok(pem::encode("ENCRYPTED PRIVATE KEY", sealed.as_bytes(), 64))
    }
}

/// PBES2 with scrypt and AES-256-CBC. OpenSSL allows scrypt 32 MiB, so the work comes from p.
fn seal(der: &[u8], passphrase: &str, random: [u8; 32]) -> pkcs8::Result<SecretDocument> {
    let (salt, iv) = random.split_at(16);
    let iv = iv.try_into().map_err(|_| pkcs8::Error::ParametersMalformed)?;
    let cost = scrypt::Params::new(14, 8, 5).map_err(|_| pkcs8::Error::ParametersMalformed)?;
    let kdf = ScryptParams::from_params_and_salt(cost, salt)?.into();
    let parameters = Parameters { kdf, encryption: EncryptionScheme::Aes256Cbc { iv } };
    PrivateKeyInfoRef::try_from(der)?.encrypt_with_params(parameters, passphrase)
}

/// Makes a new file: not there, or whole and durable.
fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), Refusal> {
    let fault = |error: io::Error| fault(path, &error);
    let folder = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(folder)
        .map_err(fault)?;
    file.write_all(bytes).map_err(fault)?;
    file.as_file().sync_all().map_err(fault)?;
    file.persist_noclobber(path).map_err(|error| fault(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)
}

fn fault(path: &Path, error: &io::Error) -> Refusal {
    let at = path.display().to_string();
    if error.kind() == ErrorKind::AlreadyExists {
        return unavailable(at, "no file of this name: a key is never replaced", "a file");
    }
    unavailable(at, "a new file", error)
}
