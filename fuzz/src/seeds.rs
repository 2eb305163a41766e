//! What the fuzzer starts from: the vectors, and what the honest world has.

use std::fs;
use std::path::Path;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload as _, PolicyText};
use custody_core::json::{self, Value};
use custody_core::sshsig::armor;
use custody_core::statement::{Resolve, Stage};
use custody_sign::{Format, Kind, generate};
use custody_store::bundle;
use custody_verify::Floor;
use custody_world::{Key, World, honest, policy_text};

use crate::TARGETS;
use crate::keys::{KNOWN, LABELS, PASSPHRASE};

/// Larger seeds slow the fuzzer down more than they teach it.
const LARGEST: usize = 1 << 18;

/// Writes the seeds of every target to a folder of its name.
pub(crate) fn write(folder: &Path) {
    for (target, _) in TARGETS {
        fs::create_dir_all(folder.join(target)).expect("a folder for seeds");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let put = |target: &str, bytes: &[u8]| {
        assert!(TARGETS.iter().any(|(known, _)| *known == target), "{target}");
        if bytes.len() <= LARGEST {
            let path = folder.join(target).join(Sha256::of(bytes).short());
            fs::write(path, bytes).expect("a seed is written");
        }
    };
    of_vectors(&root.join("vectors"), &put);
    of_world(&put);
    of_keys(folder, &put);
    crate::machines::seeds(&put);
    for (target, file) in [("pipeline", "source/pipeline.toml"), ("policy", "policy.toml")] {
        let text = fs::read(root.join("examples/hello").join(file)).expect("the example");
        put(target, &text);
    }
    for text in ["a/**/b*c\na/x/y/bbc", "dist/*\ndist/hello 1.0.tar", "**\nx", "a*a*b\naab"] {
        put("artifact-name", text.as_bytes());
    }
    for text in ["s3://releases/hello/1.1.0", "s3://releases", "file:///srv/releases"] {
        put("destination", text.as_bytes());
    }
    let token = "pkcs11:token=T%20x;object=key;id=%01%ff;type=private";
    put("key-source", format!("{token}?module-path=/l.so&pin-source=file:/p").as_bytes());
    put("digest", Sha256::of(b"").to_string().as_bytes());
    put("digest", Sha256::of(b"").to_string().repeat(2).as_bytes());
    put("time", b"2024-02-29T23:59:59Z");
    // of the kinds of changes each once
    for kind in 0..10 {
        put("verify", &[0, kind, kind, kind, 1, kind, 2, kind, 3, kind, 4, kind]);
        put("verify", &[1, 7 * kind, kind, 0, kind, 1, 3 * kind, kind, 9, 60, 1, 3, kind]);
    }
}

/// The vectors' documents: what a case is given, and all evidence of a chain as one bundle.
fn of_vectors(vectors: &Path, put: &dyn Fn(&str, &[u8])) {
    let Ok(folders) = fs::read_dir(vectors.join("cases")) else { return };
    let file = |id: &Value<'_>| {
        let id = id.as_str().expect("the name of a file");
        fs::read(vectors.join("files").join(id)).expect("a file of the vectors")
    };
    let cases = folders.map(|folder| folder.expect("a folder").path());
    for path in cases.flat_map(|folder| fs::read_dir(folder).expect("a folder")) {
        let bytes = fs::read(path.expect("a case").path()).expect("a case");
        let case = json::parse(&bytes, 8 << 20, 1 << 20).expect("JSON");
        let kind = case.get("kind").and_then(Value::as_str).expect("a kind");
        if let Some(input) = case.get("input").map(&file) {
            put(kind, &input);
            if kind == "statement" {
                put("json", &input);
            }
        }
        let list = |name| match case.get(name) {
            Some(Value::Array(ids)) => ids.iter().map(&file).collect(),
            _ => Vec::new(),
        };
        let lines: Vec<Vec<u8>> = [list("policies"), list("evidence")].concat();
        if kind == "chain" {
            put("chain", &lines.join(&b'\n'));
        }
    }
}

/// What the honest world says.
fn of_world(put: &dyn Fn(&str, &[u8])) {
    let mut world: World = honest();
    let intent = world.intent("new/publish/task", Stage::Done, 101_450);
    world.add("intent", intent, &["publisher"]);
    let manifest = world.id("new/build/manifest");
    let word = world.resolution("new/build/task", Resolve::Supersede(manifest), "carol");
    world.add("resolution", word, &["carol"]);
    let summary = world.summary(&world.gate("new/notes/task"));
    world.add("summary", summary, &["gate"]);
    let mut all = world.policies.clone();
    all.extend(world.envelopes.values().cloned());
    for envelope in &all {
        put("envelope", envelope.to_json().as_bytes());
        if envelope.payload_type() != PolicyText::TYPE {
            put("statement", envelope.unverified_payload());
            put("json", envelope.unverified_payload());
        }
    }
    let bundled = bundle::write(&all);
    put("chain", bundled.as_bytes());
    let some: Vec<Envelope> = all.into_iter().take(3).collect();
    put("bundle", bundle::write(&some).as_bytes());
    put("policy", policy_text().as_bytes());
    let floor = Floor { version: 1, policy: world.pin, time: world.now };
    put("floor", floor.to_json().as_bytes());
    let message = Envelope::unsigned::<PolicyText>(b"policy");
    let sig = Key::of("alice").ssh(&message).sig;
    put("sshsig", armor(&sig).as_bytes());
    put("sshsig", &sig);
}

/// New keys in all their forms.
fn of_keys(folder: &Path, put: &dyn Fn(&str, &[u8])) {
    for kind in [Kind::Ed25519, Kind::EcdsaP256] {
        let key = generate(kind).expect("a new key");
        let public = key.public_key();
        put("public-key", public.to_openssh().as_bytes());
        put("public-key", public.to_pem().as_bytes());
        put("public-key", &public.to_spki_der());
        put("public-key", &public.to_ssh_blob());
        for format in [Format::Pkcs8, Format::OpenSsh] {
            for passphrase in [None, Some(PASSPHRASE)] {
                let path = folder.join("key");
                key.write(&path, format, passphrase, "seed").expect("a key file");
                let text = fs::read_to_string(&path).expect("a key file");
                fs::remove_file(&path).expect("a key file");
                fs::remove_file(path.with_extension("pub")).expect("a key file");
                let label =
                    LABELS.iter().position(|it| text.contains(&format!("-----BEGIN {it}-")));
                let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
                let body = custody_core::encoding::base64_decode(&body).expect("base64");
                let first = u8::try_from(label.expect("a label")).expect("a byte");
                put("private-key", &[&[first], body.as_slice()].concat());
                put("private-key", &[&[KNOWN - 1], text.as_bytes()].concat());
                if passphrase.is_some() && kind == Kind::Ed25519 {
                    put("private-key", &[&[KNOWN | first], body.as_slice()].concat());
                }
            }
        }
    }
}
