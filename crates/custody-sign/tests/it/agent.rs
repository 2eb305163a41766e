use super::*;
use crate::security_key::{KINDS, PROVIDER, enrol};
use custody_core::encoding::base64;
use custody_core::sshsig::{put_string, signed_data};
use custody_sign::list_agent;
use std::io::Read as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Child;
use std::thread;
use std::time::Duration;

struct Agent {
    process: Child,
    socket: PathBuf,
    folder: TempDir,
}

impl Agent {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let socket = folder.path().join("socket");
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-P", "*", "-a"]).arg(&socket);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let agent = Self { process, socket, folder };
        let mut tries = 0..200;
        while UnixStream::connect(&agent.socket).is_err() {
            assert!(tries.next().is_some(), "ssh-agent does not start");
            thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    fn add(&self, path: &Path) {
        let mut command = Command::new("ssh-add");
        run(command
            .arg("-q")
            .arg("-S")
            .arg(&*PROVIDER)
            .arg(path)
            .env("SSH_AUTH_SOCK", &self.socket));
    }

    /// A key that only the agent holds.
    fn holds(&self, name: &str, options: &[&str]) -> PublicKey {
        let path = self.folder.path().join(name);
        let key = ssh_keygen(&[options, &["-N", "", "-C", name]].concat(), &path);
        self.add(&path);
        fs::remove_file(path).unwrap();
        key
    }

    fn open(&self, which: &str) -> Result<Box<dyn Signer>, Refusal> {
        open_in(&self.socket, which)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn open_in(socket: &Path, which: &str) -> Result<Box<dyn Signer>, Refusal> {
    let mut access = Access {
        agent: Some(socket),
        security_key_provider: None,
        passphrase: &mut |_| panic!("an agent needs no passphrase"),
    };
    KeySource::parse(&format!("agent:{which}"))?.open(&mut access)
}

#[test]
fn keys_in_an_agent_sign() {
    let agent = Agent::start();
    let kinds: [(&str, &[&str]); 4] = [
        ("ed", &["-t", "ed25519"]),
        ("p256", &["-t", "ecdsa", "-b", "256"]),
        ("p384", &["-t", "ecdsa", "-b", "384"]),
        ("rsa", &["-t", "rsa", "-b", "2048"]),
    ];
    for (name, options) in kinds {
        let key = agent.holds(name, options);
        let signer = agent.open(name).unwrap();
        assert_eq!(*signer.public_key(), key);
        signs_as_person(&*signer);
        if name == "rsa" {
            let refusal = signer.sign_plain(MESSAGE).unwrap_err();
            assert_eq!(refusal.code, Code::EnvAlgForbidden);
        } else {
            signs_as_machine(&*signer);
        }
    }
    assert_eq!(list_agent(&agent.socket).unwrap().len(), 4);
}

#[test]
fn security_keys_in_an_agent_sign() {
    let agent = Agent::start();
    for (kind, _) in KINDS {
        for flags in [0x00, 0x01, 0x05] {
            let path = agent.folder.path().join(format!("{kind}{flags}"));
            let key = enrol(kind, flags, &path);
            agent.add(&path);
            let signer = agent.open(&key.id().to_string()).unwrap();
            let facts = signs_as_person(&*signer).unwrap();
            assert_eq!(facts.user_present, flags & 0x01 != 0);
            assert_eq!(facts.user_verified, flags & 0x04 != 0);
            assert_eq!(signer.sign_plain(MESSAGE).unwrap_err().code, Code::EnvAlgForbidden);
        }
    }
}

#[test]
fn a_key_is_found_by_fingerprint_id_and_comment_if_there_is_one_such() {
    let agent = Agent::start();
    let key = agent.holds("mine", &["-t", "ed25519"]);
    let others = [agent.holds("twin", &["-t", "ed25519"]), agent.holds("twin", &["-t", "ecdsa"])];
    assert_ne!(others[0], key);
    let digest = custody_core::crypto::sha256(&key.to_ssh_blob());
    let fingerprint = format!("SHA256:{}", base64(&digest).trim_end_matches('='));
    for which in ["mine", &fingerprint, &key.id().to_string()] {
        assert_eq!(*agent.open(which).unwrap().public_key(), key, "{which}");
    }
    for which in ["twin", "min", "SHA256:", "absent"] {
        let refusal = agent.open(which).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
    }
    assert_eq!(KeySource::parse("agent:").unwrap_err().code, Code::KeyUnavailable);
}

#[test]
fn without_an_agent_there_is_a_refusal() {
    let (_folder, path) = folder();
    assert_eq!(open_in(&path("absent"), "mine").unwrap_err().code, Code::KeyUnavailable);
    let mut access = Access {
        agent: None,
        security_key_provider: None,
        passphrase: &mut |_| panic!("an agent needs no passphrase"),
    };
    let refusal = KeySource::parse("agent:mine").unwrap().open(&mut access).unwrap_err();
    assert!(refusal.expected.contains("SSH_AUTH_SOCK"), "{refusal}");
}

/// An agent that gives these answers, one for each connection.
fn pretend(path: &Path, answers: Vec<Vec<u8>>) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut request = vec![0; u32::from_be_bytes(length).try_into().unwrap()];
            stream.read_exact(&mut request).unwrap();
            stream.write_all(&answer).unwrap();
        }
    });
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_string(&mut message, &[&[kind], body].concat());
    message
}

#[test]
fn a_wrong_signature_of_an_agent_is_not_handed_out() {
    let (_folder, path) = folder();
    ssh_keygen(&["-t", "ed25519", "-N", ""], &path("key"));
    let key = open(&path("key")).unwrap();
    let mut list = 1_u32.to_be_bytes().to_vec();
    put_string(&mut list, &key.public_key().to_ssh_blob());
    put_string(&mut list, b"mine");
    let signature = |message: &[u8]| {
        let mut inner = Vec::new();
        put_string(&mut inner, b"ssh-ed25519");
        put_string(&mut inner, &key.sign_plain(message).unwrap());
        let mut body = Vec::new();
        put_string(&mut body, &inner);
        framed(14, &body)
    };
    let answers = [
        signature(MESSAGE),
        signature(b"something else"),
        framed(5, b""),
        signature(&signed_data(MESSAGE)),
        signature(MESSAGE),
    ]
    .to_vec();
    pretend(&path("socket"), [vec![framed(12, &list)], answers].concat());
    let signer = open_in(&path("socket"), "mine").unwrap();
    assert!(signer.sign_plain(MESSAGE).is_ok());
    assert_eq!(signer.sign_plain(MESSAGE).unwrap_err().code, Code::EnvSignatureInvalid);
    assert_eq!(signer.sign_plain(MESSAGE).unwrap_err().code, Code::KeyUnavailable);
    assert!(signer.sign_ssh(MESSAGE).is_ok());
    assert_eq!(signer.sign_ssh(MESSAGE).unwrap_err().code, Code::EnvSignatureInvalid);
}

#[test]
fn nonsense_of_an_agent_is_refused() {
    let (_folder, path) = folder();
    let nonsense = [
        vec![],
        vec![0, 0, 0, 9, 12, 0, 0, 0, 0],
        framed(5, b""),
        framed(12, b""),
        framed(12, &[0, 0, 0, 1]),
        framed(12, &[0xff; 4]),
        framed(12, &[0, 0, 0, 0, 0]),
    ];
    let count = nonsense.len();
    let others = vec![vec![0xff; 8], framed(12, &[0; 4])];
    pretend(&path("socket"), [nonsense.to_vec(), others].concat());
    for _ in 0..count {
        list_agent(&path("socket")).unwrap_err();
    }
    let refusal = list_agent(&path("socket")).unwrap_err();
    assert_eq!(refusal.found, "an answer that is too long");
    assert!(list_agent(&path("socket")).unwrap().is_empty());
}
