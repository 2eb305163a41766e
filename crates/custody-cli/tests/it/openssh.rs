//! People without Custody: what they sign with stock OpenSSH counts, and what Custody signs for others
//! they can check.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;

use crate::world::{Said, World, skipped, until};

const NAMESPACE: &str = "evidence@custody.dev";

fn ssh_keygen(world: &World, line: &str, stdin: Stdio) -> Output {
    let mut command = Command::new("ssh-keygen");
    command.args(line.split_whitespace()).current_dir(world.path(".")).stdin(stdin);
    command.env("HOME", world.path("home")).output().unwrap()
}

fn sign(world: &World, namespace: &str, key: &str, file: &str) {
    fs::remove_file(world.path(&format!("{file}.sig"))).ok();
    let output =
        ssh_keygen(world, &format!("-Y sign -n {namespace} -f keys/{key} {file}"), Stdio::null());
    assert!(output.status.success(), "{output:?}");
}

fn handed_in(request: &str, file: &str) -> String {
    format!("release sign-off {request} --store store --statement {file} --signature {file}.sig")
}

#[test]
fn stock_signatures_count_and_no_others() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let show = |person: &str| {
        world.done(&format!(
            "release show {request} --store store --as {person} --role releng --out {person}.word"
        ))
    };
    let shown = show("bob").text("signoff");
    assert!(world.read("bob.word").ends_with(&shown), "what a person is shown is what they sign");
    for word in ["\"bob\"", "\"approve\"", "hello", "1.0", "production", "promote"] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    // nothing is overwritten
    world
        .custody(&format!(
            "release show {request} --store store --as bob --role releng --out bob.word"
        ))
        .ended(3);

    sign(&world, "git", "bob", "bob.word");
    world.refused(&handed_in(&request, "bob.word"), "SIGNOFF_NAMESPACE");
    sign(&world, NAMESPACE, "mallory", "bob.word");
    world.refused(&handed_in(&request, "bob.word"), "ENV_KEY_UNKNOWN");
    sign(&world, NAMESPACE, "alice", "bob.word");
    world.refused(&handed_in(&request, "bob.word"), "POLICY_KEY_PURPOSE");
    sign(&world, NAMESPACE, "bob", "bob.word");
    let signed = world.read("bob.word");
    world.write("bob.word", signed.replace("approve", "Approve"));
    world.custody(&handed_in(&request, "bob.word")).ended(1);
    world.write("bob.word", signed.replace("releng", "relemg"));
    world.refused(&handed_in(&request, "bob.word"), "ENV_SIGNATURE_INVALID");
    world.write("bob.word", format!("{signed} "));
    world.refused(&handed_in(&request, "bob.word"), "ENV_PAYLOAD_TYPE");
    world.write("bob.word", &signed);
    let other = world.propose("promote", "");
    world.refused(&handed_in(&other, "bob.word"), "SIGNOFF_CONTENT_MISMATCH");

    world.done(&handed_in(&request, "bob.word"));
    // ECDSA
    show("carol");
    sign(&world, NAMESPACE, "carol", "carol.word");
    world.done(&handed_in(&request, "carol.word"));
    let authorization =
        world.done(&format!("release authorize {request} --store store --key keys/desk")).id();
    let tasks = world.plan(&authorization);
    world.run(&tasks["build"]).done();
}

/// What Custody signed for a person, as files for `ssh-keygen -Y verify`.
fn taken_apart(world: &World, signoff: &str) {
    let envelope = world.done(&format!("evidence get {signoff} --store store")).json();
    world.write("payload.b64", envelope["payload"].as_str().unwrap());
    let payload = Command::new("base64")
        .args(["-d", "payload.b64"])
        .current_dir(world.path("."))
        .output()
        .unwrap()
        .stdout;
    let kind = envelope["payloadType"].as_str().unwrap();
    let mut pae = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    pae.extend(payload);
    world.write("pae", pae);
    let signatures = envelope["signatures"].as_array().unwrap();
    assert_eq!(signatures.len(), 1);
    let blob = signatures[0]["sig"].as_str().unwrap();
    let lines: Vec<&str> =
        blob.as_bytes().chunks(70).map(|line| str::from_utf8(line).unwrap()).collect();
    world.write(
        "pae.sig",
        format!(
            "-----BEGIN SSH SIGNATURE-----\n{}\n-----END SSH SIGNATURE-----\n",
            lines.join("\n")
        ),
    );
}

#[test]
fn stock_openssh_verifies_what_custody_signed() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let line =
        |person: &str| format!("{person} namespaces=\"{NAMESPACE}\" {}\n", world.public(person));
    world.write("allowed_signers", line("bob") + &line("carol"));
    let verify = |person: &str, namespace: &str| {
        let pae = File::open(world.path("pae")).unwrap();
        let line = format!("-Y verify -f allowed_signers -I {person} -n {namespace} -s pae.sig");
        ssh_keygen(&world, &line, pae.into()).status.success()
    };
    for person in ["bob", "carol"] {
        let signoff = world.sign_off(&request, person);
        taken_apart(&world, &signoff);
        assert!(verify(person, NAMESPACE), "{person}");
        assert!(!verify("alice", NAMESPACE));
        assert!(!verify(person, "git"));
        world.write("pae", world.read("pae").replace("approve", "refuse"));
        assert!(!verify(person, NAMESPACE));
    }
    // and so with what people sign as root of the policy
    let policy: serde_json::Value = serde_json::from_str(&world.read("policy.dsse.json")).unwrap();
    assert_eq!(policy["signatures"].as_array().unwrap().len(), 2);
}

/// The security key in software of `custody-sign`'s tests, built once.
static PROVIDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../custody-sign/tests/security-key");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("security-key");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--manifest-path"]);
    cargo.arg(Path::new(folder).join("Cargo.toml")).arg("--target-dir").arg(&target);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    target.join("debug").join(format!("{DLL_PREFIX}security_key{DLL_SUFFIX}"))
});

/// The kinds of key that a person may have, and what `ssh-keygen` calls them.
const KINDS: [(&str, &str); 6] = [
    ("ed25519", "-t ed25519"),
    ("ecdsa-256", "-t ecdsa -b 256"),
    ("ecdsa-384", "-t ecdsa -b 384"),
    ("rsa", "-t rsa -b 2048"),
    ("ed25519-sk", "-t ed25519-sk"),
    ("ecdsa-sk", "-t ecdsa-sk"),
];

/// Security keys that nobody touches.
const UNTOUCHED: [(&str, &str); 2] =
    [("ed25519-untouched", "-t ed25519-sk"), ("ecdsa-untouched", "-t ecdsa-sk")];

/// A world in which bob has these keys beside his own, each made by `ssh-keygen`.
fn with_bobs(kinds: &[(&str, &str)]) -> World {
    let world = World::with_keys();
    let made = kinds.iter().map(|(name, arguments)| {
        let line = format!("-q {arguments} -N  -C x -f keys/{name}");
        let mut command = Command::new("ssh-keygen");
        command.args(line.split(' ')).current_dir(world.path(".")).stdin(Stdio::null());
        if arguments.ends_with("-sk") {
            let flags = if name.ends_with("untouched") { "0" } else { "1" };
            command.arg("-w").arg(&*PROVIDER).env("SECURITY_KEY_FLAGS", flags);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        format!(", {{ key = \"{}\" }}", shown_key(&world, name))
    });
    let keys: String = made.collect();
    let own = format!("{{ key = \"{}\" }}", world.public("bob"));
    let text = world.policy_text();
    let all = text.replace(&own, &format!("{own}{keys}"));
    assert_ne!(all, text);
    world.found(&all);
    world
}

/// A public key as `custody key show` has it for OpenSSH.
fn shown_key(world: &World, name: &str) -> String {
    world.done(&format!("key show keys/{name}.pub")).text("openssh")
}

fn approve(world: &World, request: &str, key: &str) -> Said {
    let line = format!(
        "--json release sign-off {request} --store store --as bob --role releng --key keys/{key}"
    );
    let mut command = world.command(&line);
    command.env("SSH_SK_PROVIDER", &*PROVIDER);
    world.say(command)
}

#[test]
fn stock_openssh_verifies_every_kind_of_key() {
    let world = with_bobs(&KINDS);
    for (name, _) in KINDS {
        let request = world.propose("promote", "");
        let signoff = approve(&world, &request, name).done().id();
        taken_apart(&world, &signoff);
        // the line as it is shown, after the name of the person
        let line = format!("bob namespaces=\"{NAMESPACE}\" {}\n", shown_key(&world, name));
        world.write("allowed_signers", line);
        let says = |line: &str| {
            let pae = File::open(world.path("pae")).unwrap();
            ssh_keygen(&world, &format!("-Y {line} -s pae.sig"), pae.into()).status.success()
        };
        let verify =
            |namespace: &str| says(&format!("verify -f allowed_signers -I bob -n {namespace}"));
        assert!(verify(NAMESPACE), "{name}");
        assert!(!verify("git"), "{name}");
        assert!(says(&format!("check-novalidate -n {NAMESPACE}")), "{name}");
        assert!(!says("check-novalidate -n git"), "{name}");
        let line = format!("bob namespaces=\"git\" {}\n", shown_key(&world, name));
        world.write("allowed_signers", line);
        assert!(!verify(NAMESPACE), "{name}");
        let changed = world.read("pae").replace("approve", "refuse");
        world.write("pae", changed);
        assert!(!says(&format!("check-novalidate -n {NAMESPACE}")), "{name}");

        world.sign_off(&request, "carol");
        world.done(&format!("release authorize {request} --store store --key keys/desk"));
    }
}

#[test]
fn a_key_that_nobody_touched_is_good_to_stock_openssh_and_not_to_us() {
    let world = with_bobs(&UNTOUCHED);
    for (name, _) in UNTOUCHED {
        let request = world.propose("promote", "");
        world.done(&format!(
            "release show {request} --store store --as bob --role releng --out {name}.word"
        ));
        let line = format!("-Y sign -n {NAMESPACE} -f keys/{name} {name}.word");
        let mut command = Command::new("ssh-keygen");
        command.args(line.split(' ')).current_dir(world.path(".")).stdin(Stdio::null());
        assert!(command.env("SSH_SK_PROVIDER", &*PROVIDER).output().unwrap().status.success());
        let message = File::open(world.path(&format!("{name}.word"))).unwrap();
        let line = format!("-Y check-novalidate -n {NAMESPACE} -s {name}.word.sig");
        assert!(ssh_keygen(&world, &line, message.into()).status.success());

        world.refused(&handed_in(&request, &format!("{name}.word")), "SIGNOFF_UP_REQUIRED");
        let before = world.list("signoff");
        approve(&world, &request, name).refused("SIGNOFF_UP_REQUIRED");
        assert_eq!(world.list("signoff"), before);
    }
}

/// The vectors of OpenSSH and of flags, judged by the stock program: all are good to it whose kind it
/// knows, the one that nobody touched among them.
#[test]
fn stock_openssh_judges_the_vectors_as_we_do_but_for_the_touch() {
    let Some(root) = std::env::var_os("CUSTODY_VECTORS") else {
        return skipped("the vectors of OpenSSH", "CUSTODY_VECTORS is not set");
    };
    let world = World::with_keys();
    let mut judged = Vec::new();
    for (folder, message) in [("sshsig", "signed-data"), ("sshsig-flags", "msg")] {
        let folder = Path::new(&root).join(folder);
        let namespace = fs::read_to_string(folder.join("namespace"));
        let namespace = namespace.unwrap_or_else(|_| "signoff@example.org".into());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "sig") {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let says = |namespace: &str| {
                let message = File::open(folder.join(message)).unwrap();
                let line = format!("-Y check-novalidate -n {namespace} -s {}", path.display());
                ssh_keygen(&world, &line, message.into()).status.success()
            };
            // a kind that we refuse, and that only newer versions of OpenSSH know
            assert!(says(&namespace) || name == "mldsa44-ed25519", "{name}");
            assert!(!says("git"), "{name}");
            judged.push(name);
        }
    }
    judged.sort_unstable();
    assert_eq!(judged.len(), 13);
    assert!(judged.contains(&"edsk0".to_owned()));
}

/// An agent of our own, ended with this value.
struct Agent(Child);

impl Agent {
    fn start(socket: &Path) -> Self {
        let mut command = Command::new("ssh-agent");
        let child = command
            .arg("-D")
            .arg("-a")
            .arg(socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the agent listens", || socket.exists());
        Self(child)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_key_that_only_the_agent_has() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let socket = world.path("agent");
    let agent = Agent::start(&socket);
    let fingerprint = |person: &str| {
        let output = ssh_keygen(&world, &format!("-l -f keys/{person}.pub"), Stdio::null());
        String::from_utf8(output.stdout).unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    let with_agent = |person: &str| {
        let key = format!("agent:{}", fingerprint(person));
        let line = format!(
            "--json release sign-off {request} --store store --as {person} --role releng --key {key}"
        );
        let mut command = world.command(&line);
        command.env("SSH_AUTH_SOCK", &socket);
        world.say(command)
    };
    with_agent("bob").refused("KEY_UNAVAILABLE");
    for person in ["bob", "carol"] {
        let mut add = Command::new("ssh-add");
        add.arg(world.path(&format!("keys/{person}"))).env("SSH_AUTH_SOCK", &socket);
        assert!(add.output().unwrap().status.success());
        fs::remove_file(world.path(&format!("keys/{person}"))).unwrap();
        with_agent(person).done();
    }
    world.done(&format!("release authorize {request} --store store --key keys/desk"));
    drop(agent);
    with_agent("bob").refused("KEY_UNAVAILABLE");
}
