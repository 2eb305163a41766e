//! Key files.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use custody_core::{Code, Refusal};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustix::fs::OFlags;
use zeroize::Zeroizing;

use crate::keypair::KeyPair;
use crate::openssh::Container;
use crate::security_key::SecurityKeyFile;
use crate::source::Access;
use crate::{Signer, pem, unavailable};

/// An RSA key of 8192 bits in OpenSSH's form has 9 KiB.
const LIMIT: usize = 64 << 10;

pub(crate) fn open(path: &Path, access: &mut Access<'_>) -> Result<Box<dyn Signer>, Refusal> {
    let at = path.display().to_string();
    parse(path, access).map_err(|refusal| refusal.within(&at))
}

fn parse(path: &Path, access: &mut Access<'_>) -> Result<Box<dyn Signer>, Refusal> {
    let bytes = read(path)?;
    let text = str::from_utf8(&bytes).map_err(|error| unavailable("", "a PEM file", error))?;
    if let Some((label @ ("EC PRIVATE KEY" | "EC PARAMETERS" | "RSA PRIVATE KEY"), _)) =
        pem::label(text)
    {
        let remedy = "PKCS#8: convert the file with openssl pkcs8 -topk8 -in FILE -out NEW";
        return Err(unavailable("", remedy, label));
    }
    let (label, secret) = pem::decode(text)?;
    let mut passphrase = || (access.passphrase)(&format!("passphrase of {}", path.display()));
    match label {
        "PRIVATE KEY" => Ok(Box::new(KeyPair::from_pkcs8(&secret)?)),
        "ENCRYPTED PRIVATE KEY" => {
            let fault =
                |error| unavailable("", "PKCS#8 encrypted with PBES2 under this passphrase", error);
            let sealed = EncryptedPrivateKeyInfoRef::try_from(secret.as_slice());
            let sealed = sealed.map_err(fault)?;
            let der = sealed.decrypt(passphrase()?.as_bytes()).map_err(fault)?;
            Ok(Box::new(KeyPair::from_pkcs8(der.as_bytes())?))
        }
        "OPENSSH PRIVATE KEY" => {
            let container = Container::parse(&secret)?;
            if container.public.dsse_scheme().is_none() {
                let provider = access.security_key_provider.map(Path::to_owned);
                return Ok(Box::new(SecurityKeyFile::new(path, container.public, provider)));
            }
            Ok(Box::new(container.open(&mut passphrase)?))
        }
        other => Err(unavailable("", "a private key as PKCS#8 PEM or from ssh-keygen", other)),
    }
}

/// The bytes of a file that nobody else can read or change. Name, links and permissions may change
/// at any time, so the open file is asked, not the path.
pub(crate) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let fault = |error: io::Error| unavailable("", "a readable file", error);
    // A pipe of that name must not hold us up.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fault)?;
    check_private(&file.metadata().map_err(fault)?)?;
    read_whole(&file).map_err(fault)
}

fn check_private(metadata: &Metadata) -> Result<(), Refusal> {
    let exposed = |expected, found| Err(Refusal::new(Code::WorkerKeyExposed, "", expected, found));
    let us = rustix::process::geteuid().as_raw();
    if !metadata.is_file() {
        return Err(unavailable("", "a plain file", "something else"));
    }
    if metadata.uid() != us && metadata.uid() != 0 {
        let found = format!("owner {}", metadata.uid());
        return exposed(format!("a file of user {us} or root"), found);
    }
    if metadata.mode() & 0o077 != 0 {
        let found = format!("permissions {:03o}", metadata.mode() & 0o777);
        return exposed("a file for its owner only: chmod 600".to_owned(), found);
    }
    Ok(())
}

fn read_whole(file: &File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    file.take(LIMIT as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}
