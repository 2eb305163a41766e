//! What we make of others' envelopes.

use std::collections::BTreeMap;
use std::path::Path;
use std::{env, fs};

use custody_core::Code;
use custody_core::envelope::{Envelope, Keyring, pae};
use custody_core::key::PublicKey;
use custody_core::statement::Statement;
use serde_json::{Value, json};

use super::{Python, SCHEMES, evidence, judge};
use crate::world::{World, skipped};

const IN_TOTO: &str = "application/vnd.in-toto+json";

/// A world in which `pack` is to be done, by somebody who has no Custody. Its machine owns a key of
/// each scheme.
struct Scene {
    world: World,
    python: Python,
    envelopes: Vec<Envelope>,
}

impl Scene {
    fn new(python: Python) -> Self {
        let world = python.world();
        let theirs =
            ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "rsassa-pss-sha256"].map(|scheme| {
                // the machines that have these keys get others
                let name = format!("theirs/{scheme}-2");
                fs::create_dir_all(world.path(&name)).unwrap();
                python.run("write.py", &["keys", world.path(&name).to_str().unwrap()], b"");
                let path = format!("{name}/{scheme}");
                fs::copy(
                    world.path(&format!("{path}.key")),
                    world.path(&format!("theirs/packer-{scheme}")),
                )
                .unwrap();
                format!(
                    "{{ key = \"{}\" }}",
                    world.done(&format!("key show {path}.pem")).text("openssh")
                )
            });
        fs::copy(world.path("keys/packer"), world.path("theirs/packer-ed25519")).unwrap();
        let own = format!("{{ key = \"{}\" }}", world.public("packer"));
        let text = world.policy_text();
        let more = text.replace(&own, &format!("{own}, {}", theirs.join(", ")));
        assert_ne!(more, text);
        world.found(&more);
        let tasks = world.plan(&world.authorized("promote"));
        world.run(&tasks["build"]).done();
        let envelopes = evidence(&world);
        // what the step does
        world.write("hand/all.bin", "hello, world\nsecond\n");
        Self { world, python, envelopes }
    }

    fn path(&self, name: &str) -> String {
        self.world.path(name).display().to_string()
    }

    fn find(&self, what: impl Fn(&Value) -> bool) -> String {
        let envelope = self.envelopes.iter().find(|envelope| {
            serde_json::from_slice(envelope.unverified_payload()).is_ok_and(|said| what(&said))
        });
        let name = format!("found/{}.json", envelope.unwrap().id());
        self.world.write(&name, envelope.unwrap().to_json());
        self.path(&name)
    }

    /// What the machine says of its run, with these changes to what is asked of the script.
    fn asked(&self, changes: &Value) -> Value {
        let mut asked = json!({
            "task": self.find(|said| said["predicate"]["command"].is_array() && said["predicate"]["step"] == "pack"),
            "upstream": [self.find(|said| said["predicateType"] == "https://slsa.dev/provenance/v1")],
            "machine": "packer",
            "key": self.path("keys/packer"),
            "made": { "dist/all.bin": self.path("hand/all.bin") },
            "payloadType": IN_TOTO,
            "asProtobufPrints": false,
            "more": {},
        });
        for (name, value) in changes.as_object().unwrap() {
            asked[name] = value.clone();
        }
        asked
    }

    fn manifest(&self, changes: &Value) -> Envelope {
        let said = self.python.ask("write.py", &["manifest"], &self.asked(changes));
        Envelope::parse(said.to_string().as_bytes()).unwrap()
    }

    /// Judges the file by the evidence and this envelope.
    fn judge(&self, envelope: &Envelope) -> crate::world::Said {
        let mut all = self.envelopes.clone();
        all.push(envelope.clone());
        judge(&self.world, "all.bin", &all, "--step pack")
    }
}

#[test]
fn a_manifest_made_wholly_in_python_counts_in_a_chain() {
    let Some(python) = Python::find("a manifest of securesystemslib in a chain") else { return };
    let scene = Scene::new(python);
    judge(&scene.world, "all.bin", &scene.envelopes, "--step pack").refused("CHAIN_STEP_MISSING");
    for (scheme, _) in SCHEMES {
        let key = scene.path(&format!("theirs/packer-{scheme}"));
        let envelope = scene.manifest(&json!({ "key": key }));
        scene.judge(&envelope).done();
        // DSSE has verifiers take both alphabets
        let json = envelope.to_json();
        let url_safe = Envelope::parse(
            json.replace('+', "-")
                .replace('/', "_")
                .replace("application_vnd.in-toto-json", IN_TOTO)
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(url_safe, envelope);
        // and as a file that is handed in
        scene.world.write("theirs.json", &json);
        let store = "--store store";
        if scheme == "ed25519" {
            let added = scene.world.done(&format!("evidence add theirs.json {store}")).json();
            assert_eq!(added[0]["kind"], "manifest");
            let shown = scene.world.done(&format!("show {} {store}", envelope.id()));
            assert_eq!(shown.text("payloadType"), IN_TOTO);
            scene.world.done("verify hand/all.bin --store store --step pack");
        }
    }
}

/// What SLSA and in-toto let a producer write and Custody's worker does not.
#[test]
fn optional_members_of_others_change_nothing() {
    let Some(python) = Python::find("optional members of SLSA in a chain") else { return };
    let scene = Scene::new(python);
    let more = json!({
        "acme_seen": true,
        "predicate": {
            "acme_seen": [1],
            "buildDefinition": { "acme_seen": "x", "internalParameters": { "acme_seen": {} } },
            "runDetails": {
                "acme_seen": null,
                "byproducts": null,
                "builder": {
                    "version": { "securesystemslib": "1.6.0" },
                    "builderDependencies": [{ "uri": "https://pypi.example.org/securesystemslib" }],
                },
                "metadata": { "https://acme.example.org/seen": "x" },
            },
        },
    });
    scene.judge(&scene.manifest(&json!({ "more": more }))).done();
}

#[test]
fn what_a_peer_signs_and_may_not_say_is_refused() {
    let Some(python) = Python::find("manifests of securesystemslib that are refused") else {
        return;
    };
    let scene = Scene::new(python);
    let own = |place: &Value| json!({ "more": { "predicate": place } });
    let cases = [
        (json!({ "key": scene.path("keys/mallory-machine") }), "ENV_KEY_UNKNOWN"),
        (json!({ "key": scene.path("keys/builder") }), "POLICY_KEY_PURPOSE"),
        (json!({ "machine": "builder" }), "POLICY_KEY_PURPOSE"),
        (json!({ "upstream": [] }), "CHAIN_INPUT_UNACCOUNTED"),
        (json!({ "payloadType": "application/vnd.in-toto.provenance+json" }), "ENV_PAYLOAD_TYPE"),
        // a double, as protobuf's Value is one
        (json!({ "asProtobufPrints": true }), "PARSE_NUMBER_UNSAFE"),
        (
            own(&json!({ "buildDefinition": { "externalParameters": { "acme_seen": 1 } } })),
            "STMT_PARAMETER_UNEXPECTED",
        ),
        (
            own(&json!({ "buildDefinition": { "buildType": "https://example.org/build/v1" } })),
            "STMT_BUILD_TYPE",
        ),
        (own(&json!({ "evil": 1 })), "PARSE_UNKNOWN_FIELD"),
        (
            own(
                &json!({ "runDetails": { "metadata": { "startedOn": "2026-11-22T20:00:00.5Z" } } }),
            ),
            "PARSE_TIME_INVALID",
        ),
        (json!({ "more": { "_type": "https://in-toto.io/Statement/v0.1" } }), "STMT_TYPE"),
        (
            json!({ "more": { "predicateType": "https://slsa.dev/provenance/v0.2" } }),
            "STMT_PREDICATE_TYPE",
        ),
    ];
    scene.world.done("key generate keys/mallory-machine");
    let keyring: Keyring = SCHEMES
        .iter()
        .map(|(_, machine)| scene.world.public(machine).parse::<PublicKey>().unwrap())
        .collect();
    for (changes, code) in cases {
        let envelope = scene.manifest(&changes);
        match envelope.open::<Statement>(&keyring) {
            // readable: the judge refuses it
            Ok(_) => drop(scene.judge(&envelope).refused(code)),
            // unreadable: it explains nothing, and the file stays without explanation
            Err(refusal) => {
                assert_eq!(refusal.code.name(), code, "{refusal}");
                let mut said = scene.judge(&envelope).ended(1).codes();
                said.retain(|found| found == "CHAIN_STEP_MISSING" || found == code);
                assert!(!said.is_empty(), "{changes}");
            }
        }
    }
    scene.judge(&scene.manifest(&json!({}))).done();
}

/// A file of the vectors of in-toto: what `evidence add` says of it.
fn wanted(file: &str, bytes: &[u8]) -> Result<(), &'static str> {
    match serde_json::from_slice::<Value>(bytes) {
        Err(_) => Err("PARSE_"),
        // Metablock, or a key
        Ok(said) if said.get("signed").or(said.get("keyval")).is_some() => {
            Err("PARSE_FIELD_MISSING")
        }
        Ok(said) => match said["signatures"].as_array() {
            Some(signatures) if said["payload"].is_string() && !signatures.is_empty() => Ok(()),
            Some(_) => Err("ENV_NO_SIGNATURE"),
            None => panic!("a vector without a verdict: {file}"),
        },
    }
}

fn files(folder: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
}

#[test]
fn the_vectors_of_in_toto_are_refused_and_prove_nothing() {
    let Some(root) = env::var_os("CUSTODY_VECTORS") else {
        return skipped("the vectors of in-toto", "CUSTODY_VECTORS is not set");
    };
    let mut found = BTreeMap::new();
    files(&Path::new(&root).join("in-toto"), &mut found);
    let world = World::fresh();
    let mut counts = BTreeMap::new();
    for (file, bytes) in &found {
        let said = world.custody(&format!("evidence add {file} --store store"));
        let shown = world.custody(&format!("show {file}"));
        let kind = match wanted(file, bytes) {
            Ok(()) => {
                // kept, and nothing that Custody could read
                assert_eq!(said.done().json()[0]["kind"], "other", "{file}");
                shown.done();
                let refusal = custody_core::envelope::Payload::parse(
                    Envelope::parse(bytes).unwrap().unverified_payload(),
                );
                assert_eq!(
                    refusal.map_err(|refusal: custody_core::Refusal| refusal.code),
                    Err::<Statement, _>(Code::StmtType),
                    "{file}"
                );
                "envelope"
            }
            Err(code) => {
                for said in [said, shown] {
                    let said = said.ended(1);
                    assert!(said.codes()[0].starts_with(code), "{file}: {said:#?}");
                }
                if code == "PARSE_FIELD_MISSING" { "metablock" } else { "other" }
            }
        };
        *counts.entry(kind).or_default() += 1;
    }
    let expected: BTreeMap<&str, i32> = [("envelope", 7), ("metablock", 16), ("other", 22)].into();
    assert_eq!(counts, expected);
}

#[test]
fn links_that_in_toto_signs_with_the_key_of_the_step_prove_nothing() {
    let Some(python) = Python::find("links of in-toto") else { return };
    let scene = Scene::new(python);
    let link = scene.python.ask("write.py", &["link"], &scene.asked(&json!({})));
    let envelope = Envelope::parse(link["dsse"].to_string().as_bytes()).unwrap();
    let packer = [scene.world.public("packer").parse::<PublicKey>().unwrap()];
    let refusal = envelope.open::<Statement>(&packer.into_iter().collect()).unwrap_err();
    // the signature fits; what it covers is no statement
    assert_eq!(refusal.code, Code::StmtType);
    scene.judge(&envelope).refused("CHAIN_STEP_MISSING");
    scene.world.write("link.json", link["metablock"].to_string());
    scene.world.refused("evidence add link.json --store store", "PARSE_FIELD_MISSING");
    scene.judge(&scene.manifest(&json!({}))).done();
}

#[test]
fn the_pae_of_securesystemslib_is_ours() {
    let Some(python) = Python::find("the PAE of securesystemslib") else { return };
    for (kind, text) in [
        ("http://example.com/HelloWorld", "hello world"),
        (IN_TOTO, "{}"),
        ("é", "ü漢\n"),
        ("", ""),
        (" 1 x 2 ", " 0  "),
    ] {
        assert_eq!(
            pae(kind, text.as_bytes()),
            python.run("write.py", &["pae", kind, text], b""),
            "{kind}"
        );
    }
}
