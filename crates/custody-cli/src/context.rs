//! What the verbs share: the clock, the store, keys, trust.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;
use custody_core::envelope::{Envelope, Keyring, StatementId};
use custody_core::statement::{EarlierManifest, Label, Manifest, Request, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::gate;
use custody_sign::{Access, KeySource, Signer};
use custody_store::{Store, bundle, not_kept};
use custody_verify::{Expectation, PolicyChain};

use crate::error::Error;

/// This machine's clock.
pub(crate) fn now() -> Result<Time, Error> {
    let seconds =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map(|since| since.as_secs());
    let time = seconds.ok().and_then(Time::from_unix);
    time.ok_or_else(|| {
        Refusal::new(Code::TimeUntrusted, "the clock", "a time from 1970 to 9999", "another").into()
    })
}

/// The system's randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let path = Path::new("/dev/urandom");
    fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(Error::io(path))?;
    Ok(bytes)
}

/// 32 hexadecimal digits of it.
pub(crate) fn nonce() -> Result<String, Error> {
    Ok(custody_core::encoding::hex(&random::<16>()?))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(Error::io(path))
}

/// Reads a bundle or says in which file it is at fault.
pub(crate) fn read_bundle(path: &Path) -> Result<Vec<Envelope>, Error> {
    let file = fs::File::open(path).map_err(Error::io(path))?;
    let envelopes = bundle::read_from(file).map_err(Error::io(path))?;
    envelopes.map_err(|refusal| refusal.within(&path.display().to_string()).into())
}

/// Reads an envelope or says in which file it is at fault.
pub(crate) fn read_envelope(path: &Path) -> Result<Envelope, Error> {
    let envelope = Envelope::parse(&read(path)?);
    envelope.map_err(|refusal| refusal.within(&path.display().to_string()).into())
}

/// Writes a new file durably; one that exists is never replaced.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    custody_store::durable::create_file(path, bytes, 0o644).map_err(Error::io(path))
}

/// Where evidence is kept.
#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// The store's directory
    #[arg(long, value_name = "DIR", default_value = "/var/lib/custody")]
    pub(crate) store: PathBuf,
}

impl StoreArgs {
    pub(crate) fn open(&self) -> Result<Store, Error> {
        if !self.store.join("custody.sqlite").exists() {
            let hint =
                "there is no store here: name one with --store DIR, or make one with custody init";
            let source = std::io::Error::new(std::io::ErrorKind::NotFound, hint);
            return Err(Error::Io { path: self.store.clone(), source });
        }
        Ok(Store::open(&self.store)?)
    }
}

/// A private key.
#[derive(Args, Clone, Debug)]
pub(crate) struct KeyArgs {
    /// The signing key: a PKCS#8 PEM or OpenSSH file, agent:FINGERPRINT, or a pkcs11: URI
    #[arg(long, value_name = "KEY")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) passphrase: PassphraseArgs,
}

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct PassphraseArgs {
    /// File whose first line is the key's passphrase or the token's PIN; asked for on the terminal
    /// otherwise
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

impl KeyArgs {
    pub(crate) fn open(&self) -> Result<Box<dyn Signer>, Error> {
        open_key(&self.key, &self.passphrase)
    }
}

/// Opens a private key. The agent and the provider of security keys are the user's own choice, as
/// they are for `ssh-keygen`; neither can change what a signature means.
pub(crate) fn open_key(
    source: &str,
    passphrase: &PassphraseArgs,
) -> Result<Box<dyn Signer>, Error> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from);
    let (agent, provider) = (variable("SSH_AUTH_SOCK"), variable("SSH_SK_PROVIDER"));
    let mut ask = |what: &str| ask_passphrase(what, passphrase.passphrase_file.as_deref());
    let mut access = Access {
        agent: agent.as_deref(),
        security_key_provider: provider.as_deref(),
        passphrase: &mut ask,
    };
    Ok(KeySource::parse(source)?.open(&mut access)?)
}

fn ask_passphrase(what: &str, file: Option<&Path>) -> Result<zeroize::Zeroizing<String>, Refusal> {
    let fault = |error: std::io::Error| {
        let expected = "it in --passphrase-file or from the terminal";
        Refusal::new(Code::KeyUnavailable, what, expected, error.to_string())
    };
    match file {
        Some(file) => {
            let text = zeroize::Zeroizing::new(fs::read_to_string(file).map_err(fault)?);
            Ok(zeroize::Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
        }
        None => rpassword::prompt_password(format!("{what}: "))
            .map(zeroize::Zeroizing::new)
            .map_err(fault),
    }
}

/// Which release is meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ExpectArgs {
    /// The product that the file must belong to
    #[arg(long)]
    product: Option<Label>,
    /// The version that the file must belong to
    #[arg(long)]
    version: Option<Label>,
    /// The channel that the file must belong to
    #[arg(long)]
    channel: Option<Label>,
    /// The instance that the file must belong to
    #[arg(long)]
    instance: Option<Label>,
    /// The step that must have made the file; by default one that publishes
    #[arg(long)]
    step: Option<Label>,
}

impl ExpectArgs {
    pub(crate) fn expectation(&self) -> Expectation {
        Expectation {
            product: self.product.clone(),
            version: self.version.clone(),
            channel: self.channel.clone(),
            instance: self.instance.clone(),
            step: self.step.clone(),
            machine: None,
        }
    }

    /// Whether nothing is said of the release; the step is another matter.
    pub(crate) const fn names_no_release(&self) -> bool {
        self.product.is_none()
            && self.version.is_none()
            && self.channel.is_none()
            && self.instance.is_none()
    }
}

/// The policies of a store, from its pin to the newest, not older than the store has seen.
pub(crate) fn trusted(store: &Store, now: Time) -> Result<PolicyChain, Error> {
    Ok(gate::policies(store, now)?)
}

/// Reads a statement of a store, signed by a known key; the caller says which kind it wants.
pub(crate) fn statement<T: Clone>(
    store: &Store,
    keyring: &Keyring,
    id: StatementId,
    kind: &'static str,
    part: impl FnOnce(&Statement) -> Option<&T>,
) -> Result<T, Refusal> {
    let at = format!("{kind} {id}");
    let envelope = store.get(id)?.ok_or_else(|| not_kept(at.clone(), "it in the store"))?;
    let signed = envelope.open::<Statement>(keyring).map_err(|refusal| refusal.within(&at))?;
    let found = signed.unverified().kind();
    let narrowed = signed.narrow(part);
    let narrowed = narrowed.ok_or_else(|| {
        Refusal::new(Code::StmtPredicateType, at, format!("a {kind}"), format!("a {found}"))
    })?;
    Ok((*narrowed.unverified()).clone())
}

/// The manifests that a request builds on, in its order: what an approval is of, and what a plan takes
/// inputs from.
pub(crate) fn earlier(
    store: &Store,
    policies: &PolicyChain,
    request: &Request,
) -> Result<Vec<(StatementId, Manifest)>, Error> {
    let keyring = gate::keyring(store, policies)?;
    let read = |entry: &EarlierManifest| Ok((entry.manifest, taken_up(store, &keyring, entry)?));
    request.builds_on.iter().map(read).collect()
}

/// A manifest that a request builds on, if it is what the request says of it.
pub(crate) fn taken_up(
    store: &Store,
    keyring: &Keyring,
    entry: &EarlierManifest,
) -> Result<Manifest, Refusal> {
    let id = entry.manifest;
    let manifest = statement(store, keyring, id, "manifest", Statement::as_manifest)?;
    let found = EarlierManifest::of(id, &manifest);
    if found == *entry {
        return Ok(manifest);
    }
    let shown = |entry: &EarlierManifest| {
        format!("step {}, {} artifacts of {} bytes", entry.step, entry.artifacts, entry.bytes)
    };
    let at = format!("manifest {id}");
    Err(Refusal::new(Code::SignoffContentMismatch, at, shown(entry), shown(&found)))
}
