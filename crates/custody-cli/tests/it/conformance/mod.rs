//! Conformance with others: their libraries read what Custody writes, Custody reads what they write,
//! and the members of SLSA are those of SLSA. What is held against what stands in
//! `docs/conformance.md`; the peers are those of `tests/conformance/requirements.txt`.

mod ours;
mod slsa;
mod theirs;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_core::envelope::Envelope;
use custody_store::bundle;
use serde_json::Value;

use crate::world::{KEYS, Said, World, skipped};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/conformance");

/// What signs in securesystemslib, and the machine that signs so here.
const SCHEMES: [(&str, &str); 4] = [
    ("ecdsa-sha2-nistp256", "desk"),
    ("ecdsa-sha2-nistp384", "scheduler"),
    ("rsassa-pss-sha256", "builder"),
    ("ed25519", "packer"),
];

/// The interpreter that has the peers.
struct Python(PathBuf);

impl Python {
    fn find(test: &str) -> Option<Self> {
        let python = std::env::var_os("CUSTODY_TEST_PYTHON").map(|path| Self(path.into()));
        if python.is_none() {
            skipped(test, "CUSTODY_TEST_PYTHON names no interpreter with the peers");
        }
        python
    }

    fn run(&self, script: &str, arguments: &[&str], stdin: &[u8]) -> Vec<u8> {
        let mut command = Command::new(&self.0);
        // nothing of the user's own packages, and nothing written beside the scripts
        command.args(["-I", "-B"]).arg(Path::new(FOLDER).join("python").join(script));
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// What a script says of this, as JSON.
    fn ask(&self, script: &str, arguments: &[&str], question: &Value) -> Value {
        serde_json::from_slice(&self.run(script, arguments, question.to_string().as_bytes()))
            .unwrap()
    }

    /// A world before its first policy, in which each machine has a key of another scheme, all of
    /// them made by securesystemslib.
    fn world(&self) -> World {
        let world = World::with_keys();
        let folder = world.path("theirs");
        fs::create_dir(&folder).unwrap();
        self.run("write.py", &["keys", folder.to_str().unwrap()], b"");
        for (scheme, machine) in SCHEMES {
            fs::copy(folder.join(format!("{scheme}.key")), world.path(&format!("keys/{machine}")))
                .unwrap();
            let public = world.done(&format!("key show theirs/{scheme}.pem")).text("openssh");
            world.write(&format!("keys/{machine}.pub"), public);
        }
        world
    }
}

/// All statements of the store and its policy, as somebody takes them along.
fn evidence(world: &World) -> Vec<Envelope> {
    let policy = Envelope::parse(world.read("policy.dsse.json").as_bytes()).unwrap();
    let rows = world.done("evidence list --store store").json();
    let ids = rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned());
    let stored = ids.map(|id| {
        let json = world.done(&format!("evidence get {id} --store store")).out;
        Envelope::parse(json.as_bytes()).unwrap()
    });
    let mut all: Vec<Envelope> = stored.collect();
    if !all.contains(&policy) {
        all.push(policy);
    }
    all
}

/// Judges the file in `hand` by this evidence alone.
fn judge(world: &World, file: &str, envelopes: &[Envelope], more: &str) -> Said {
    world.write("hand/evidence.custody.jsonl", bundle::write(envelopes));
    world.custody(&format!(
        "verify hand/{file} --pin {} --product hello --version 1.0 {more}",
        world.pin()
    ))
}

/// Everybody's public keys as files, named by key id, for the peers.
fn public_keys(world: &World, folder: &str) {
    for name in KEYS {
        let key = world.done(&format!("key show keys/{name}.pub"));
        world.write(&format!("{folder}/{}.pem", key.id()), key.text("pem"));
    }
}
