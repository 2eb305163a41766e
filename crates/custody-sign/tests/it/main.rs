//! Signers against the real tools: openssl, ssh-keygen, ssh-agent, SoftHSM.
#![cfg(test)]

mod agent;
mod files;
mod generated;
mod security_key;
mod token;

use std::fs;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_core::envelope::{Envelope, Form, Keyring, PolicyText};
use custody_core::key::PublicKey;
use custody_core::sshsig::{Facts, NAMESPACE, SshSignature, armor, dearmor};
use custody_core::{Code, Refusal};
use custody_sign::{Access, KeySource, Signer, sign_envelope_as_machine, sign_envelope_as_person};
use tempfile::TempDir;
use zeroize::Zeroizing;

const PASSPHRASE: &str = "correct horse";
const MESSAGE: &[u8] = "what was signed: ü".as_bytes();

/// Whether the tool is there. Where everything is required its absence fails the test.
fn have(tool: &str) -> bool {
    let present = Command::new("which").arg(tool).stdout(Stdio::null()).status().unwrap().success();
    let required = std::env::var_os("CUSTODY_TEST_REQUIRE_ALL").is_some_and(|value| value == "1");
    assert!(present || !required, "{tool} is required and not there");
    if !present {
        writeln!(std::io::stderr(), "skipped: {tool} is not there").unwrap();
    }
    present
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ssh_keygen(arguments: &[&str], path: &Path) -> PublicKey {
    run(Command::new("ssh-keygen")
        .args(["-q", "-C", "a comment"])
        .args(arguments)
        .arg("-f")
        .arg(path));
    public_of(path)
}

fn public_of(path: &Path) -> PublicKey {
    fs::read_to_string(path.with_extension("pub")).unwrap().parse().unwrap()
}

fn open_with(path: &Path, passphrase: &str) -> Result<Box<dyn Signer>, Refusal> {
    let mut access = Access {
        agent: None,
        security_key_provider: None,
        passphrase: &mut |_| Ok(Zeroizing::new(passphrase.to_owned())),
    };
    KeySource::parse(path.to_str().unwrap())?.open(&mut access)
}

/// Opens a file that needs no passphrase.
fn open(path: &Path) -> Result<Box<dyn Signer>, Refusal> {
    let ask = |what: &str| panic!("{what} was asked for");
    let mut access = Access { agent: None, security_key_provider: None, passphrase: &mut { ask } };
    KeySource::File(path.to_owned()).open(&mut access)
}

fn unsigned() -> Envelope {
    Envelope::unsigned::<PolicyText>(MESSAGE)
}

/// What the envelope proves to somebody who knows the key, and nothing to somebody who does not.
fn proves(envelope: &Envelope, key: &PublicKey) -> Form {
    let envelope = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
    assert_eq!(envelope.signatures()[0].keyid, Some(key.id().to_string()));
    let signed = envelope.open::<PolicyText>(&Keyring::from_iter([key.clone()])).unwrap();
    let form = signed.signers()[0].form.clone();
    let policy = signed.narrow(|policy| Some(policy)).unwrap();
    let entitled = |signer: &custody_core::envelope::Signer| {
        assert_eq!(signer.key, key.id());
        Ok("alice".to_owned())
    };
    let verified = policy.clone().verify(NonZeroU32::MIN, entitled).unwrap();
    assert_eq!(verified.principals(), ["alice"]);
    let two = policy.verify(NonZeroU32::new(2).unwrap(), entitled).unwrap_err();
    assert_eq!(two.code, Code::EnvThresholdNotMet);

    let stranger = Keyring::from_iter([PublicKey::Ed25519([0x15; 32])]);
    let refusal = envelope.open::<PolicyText>(&stranger).unwrap_err();
    assert_eq!(refusal.code, Code::EnvKeyUnknown);
    form
}

fn signs_as_machine(signer: &dyn Signer) {
    let mut envelope = unsigned();
    sign_envelope_as_machine(&mut envelope, signer).unwrap();
    assert_eq!(proves(&envelope, signer.public_key()), Form::Plain);
}

fn signs_as_person(signer: &dyn Signer) -> Option<Facts> {
    let mut envelope = unsigned();
    sign_envelope_as_person(&mut envelope, signer).unwrap();
    ssh_keygen_accepts(signer);
    match proves(&envelope, signer.public_key()) {
        Form::Ssh(facts) => facts,
        Form::Plain => panic!("a plain signature"),
    }
}

/// `ssh-keygen -Y verify` takes what `sign_ssh` makes, and not for another message or purpose.
fn ssh_keygen_accepts(signer: &dyn Signer) {
    let folder = TempDir::new().unwrap();
    let signature = folder.path().join("sig");
    fs::write(&signature, armor(&signer.sign_ssh(MESSAGE).unwrap())).unwrap();
    let allowed = folder.path().join("allowed");
    fs::write(&allowed, format!("alice {}\n", signer.public_key().to_openssh())).unwrap();
    let verify = |namespace: &str, message: &[u8]| {
        let mut child = Command::new("ssh-keygen")
            .args(["-Y", "verify", "-I", "alice", "-n", namespace, "-f"])
            .arg(&allowed)
            .arg("-s")
            .arg(&signature)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(message).unwrap();
        child.wait().unwrap().success()
    };
    assert!(verify(NAMESPACE, MESSAGE));
    assert!(!verify(NAMESPACE, b"something else"));
    assert!(!verify("git", MESSAGE));
}

/// We take what `ssh-keygen -Y sign` makes with the file, and not for another message.
fn accepts_ssh_keygen(path: &Path, provider: Option<&Path>) {
    let message = path.with_extension("message");
    fs::write(&message, MESSAGE).unwrap();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-Y", "sign", "-n", NAMESPACE, "-f"]).arg(path).arg(&message);
    command.envs(provider.map(|provider| ("SSH_SK_PROVIDER", provider)));
    run(&mut command);
    let mut text = path.with_extension("message").into_os_string();
    text.push(".sig");
    let blob = dearmor(&fs::read_to_string(text).unwrap()).unwrap();
    let signature = SshSignature::parse(&blob).unwrap();
    let key = public_of(path);
    signature.check(&key, MESSAGE).unwrap();
    let refusal = signature.check(&key, b"something else").unwrap_err();
    assert_eq!(refusal.code, Code::EnvSignatureInvalid);
}

fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name| path.join(name))
}
