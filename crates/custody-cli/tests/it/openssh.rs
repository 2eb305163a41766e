//! People without Custody: what they sign with stock OpenSSH counts, and what Custody signs for others
//! they can check.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::world::{World, until};

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
