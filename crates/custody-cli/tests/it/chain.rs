//! What makes a release a chain: take one link away, bend it or put in another, and the file in the
//! hand of a stranger is refused, each time with the code that says what is wrong.

use std::fs;

use custody_core::envelope::{Envelope, Payload as _, StatementId};
use custody_core::statement::{Artifact, InputOrigin, Manifest, Statement, Task, UsedInput};
use custody_store::bundle;

use crate::world::{Said, World};

/// A published file and all evidence of it, as a stranger holds them.
struct Scene {
    world: World,
    envelopes: Vec<Envelope>,
    publication: StatementId,
}

impl Scene {
    fn new() -> Self {
        let world = World::published();
        let envelopes = bundle::read(&fs::read(world.bundle()).unwrap()).unwrap();
        let publication = envelopes.iter().find(|envelope| {
            content(envelope).is_some_and(|said| {
                said.as_manifest().is_some_and(|manifest| manifest.destination.is_some())
            })
        });
        let publication = publication.unwrap().id();
        fs::create_dir(world.path("hand")).unwrap();
        fs::copy(world.path("www/all.bin"), world.path("hand/all.bin")).unwrap();
        Self { world, envelopes, publication }
    }

    fn said(&self, id: StatementId) -> Statement {
        content(self.envelopes.iter().find(|envelope| envelope.id() == id).unwrap()).unwrap()
    }

    fn manifest(&self) -> Manifest {
        self.said(self.publication).as_manifest().unwrap().clone()
    }

    fn task(&self) -> Task {
        self.said(self.manifest().task).as_task().unwrap().clone()
    }

    fn without(&self, id: StatementId) -> Vec<Envelope> {
        self.envelopes.iter().filter(|envelope| envelope.id() != id).cloned().collect()
    }

    /// The evidence with these in place of the publication.
    fn instead(&self, forged: Vec<Envelope>) -> Vec<Envelope> {
        let mut envelopes = self.without(self.publication);
        envelopes.extend(forged);
        envelopes
    }

    fn verify(&self, envelopes: &[Envelope]) -> Said {
        self.world.write("hand/all.custody.jsonl", bundle::write(envelopes));
        self.world.custody(&format!(
            "verify hand/all.bin --pin {} --product hello --version 1.0",
            self.world.pin()
        ))
    }

    fn refused(&self, envelopes: &[Envelope], code: &str) {
        let said = self.verify(envelopes).refused(code);
        let typed = self
            .world
            .typed(&format!("verify hand/all.bin --pin {} --product hello", self.world.pin()))
            .ended(1);
        assert!(typed.out.is_empty(), "{typed:#?}");
        for part in ["refused: file all.bin", "expected", "found", "rule", "document", "  do  "] {
            assert!(typed.err.contains(part), "{part}: {}", typed.err);
        }
        assert!(typed.err.contains(said.codes()[0].as_str()), "{typed:#?}");
        // the untouched evidence is still good
        self.verify(&self.envelopes).done();
    }
}

fn content(envelope: &Envelope) -> Option<Statement> {
    Statement::parse(envelope.unverified_payload()).ok()
}

/// `art-byte-changed`.
#[test]
fn a_byte_in_the_file() {
    let scene = Scene::new();
    scene.world.write("hand/all.bin", "hello, World\nsecond\n");
    scene.verify(&scene.envelopes).refused("ART_DIGEST_MISMATCH");
    scene.world.write("hand/all.bin", "hello, world\nsecond\n");
    scene.verify(&scene.envelopes).done();
}

/// In any envelope: payloads and signatures of all of them.
/// Rows `env-payload-bitflip`, `env-sig-bitflip`.
#[test]
fn a_byte_in_any_envelope() {
    let scene = Scene::new();
    for (i, envelope) in scene.envelopes.iter().enumerate() {
        let json = envelope.to_json();
        let payload = custody_core::encoding::base64(envelope.unverified_payload());
        let mut changed = envelope.unverified_payload().to_vec();
        // a letter in the middle, so that the document keeps its form
        let middle = changed.len() / 2;
        let letter = changed[middle..].iter_mut().find(|byte| byte.is_ascii_lowercase()).unwrap();
        *letter = if *letter == b'a' { b'b' } else { b'a' };
        let bent = json.replace(&payload, &custody_core::encoding::base64(&changed));
        let signature = &envelope.signatures()[0].sig;
        let mut other = signature.clone();
        let last = other.len() - 1;
        other[last] ^= 1;
        let signatures = json.replace(
            &custody_core::encoding::base64(signature),
            &custody_core::encoding::base64(&other),
        );
        for bent in [bent, signatures] {
            assert_ne!(bent, json);
            let lines: String = scene
                .envelopes
                .iter()
                .enumerate()
                .map(|(j, other)| {
                    let text = if i == j { bent.clone() } else { other.to_json() };
                    text.split_whitespace().collect::<String>() + "\n"
                })
                .collect();
            scene.world.write("hand/all.custody.jsonl", lines);
            let said = scene
                .world
                .custody(&format!("verify hand/all.bin --pin {}", scene.world.pin()))
                .ended(1);
            assert_eq!(said.json()["ok"], false, "envelope {i}: {said:#?}");
            let codes = said.codes();
            let known = [
                "ENV_SIGNATURE_INVALID",
                "ENV_KEY_UNKNOWN",
                "POLICY_UNTRUSTED",
                "POLICY_SIGNATURE_THRESHOLD",
                "PARSE_",
                "SIGNOFF_",
            ];
            assert!(
                codes.iter().any(|code| known.iter().any(|start| code.starts_with(start))),
                "envelope {i}: {codes:?}"
            );
        }
    }
    scene.verify(&scene.envelopes).done();
}

/// `chain-cross-release`.
#[test]
fn the_file_of_another_release() {
    let scene = Scene::new();
    let line = |what: &str| format!("verify hand/all.bin --pin {} {what}", scene.world.pin());
    scene.verify(&scene.envelopes).done();
    scene.world.custody(&line("--product hello --version 1.1")).refused("CHAIN_RELEASE_MISMATCH");
    scene.world.custody(&line("--channel beta")).refused("CHAIN_RELEASE_MISMATCH");
    scene.world.custody(&line("--product other")).refused("CHAIN_PRODUCT_MISMATCH");
    scene.world.custody(&line("--instance staging")).refused("CHAIN_INSTANCE_MISMATCH");
    scene
        .world
        .done(&line("--product hello --version 1.0 --channel release --instance production"));
}

/// `chain-key-of-other-step`.
#[test]
fn a_manifest_by_another_steps_machine() {
    let scene = Scene::new();
    scene.refused(
        &scene.instead(vec![scene.world.forged(scene.manifest(), "builder")]),
        "POLICY_KEY_PURPOSE",
    );
    scene.refused(
        &scene.instead(vec![scene.world.forged(scene.manifest(), "mallory")]),
        "CHAIN_STEP_MISSING",
    );
    scene.refused(&scene.without(scene.publication), "CHAIN_STEP_MISSING");
}

/// `chain-mix-and-match`.
#[test]
fn a_task_of_another_authorization() {
    let scene = Scene::new();
    // the phase promote of the same release
    let promote = scene.envelopes.iter().find_map(|envelope| {
        let said = content(envelope)?;
        let authorization = said.as_task()?.authorization;
        (authorization != scene.task().authorization).then_some(authorization)
    });
    let task =
        scene.world.forged(Task { authorization: promote.unwrap(), ..scene.task() }, "scheduler");
    let manifest =
        scene.world.forged(Manifest { task: task.id(), ..scene.manifest() }, "publisher");
    scene.refused(&scene.instead(vec![task, manifest]), "CHAIN_STEP_MISMATCH");
    let manifest =
        scene.world.forged(Manifest { task: promote.unwrap(), ..scene.manifest() }, "publisher");
    scene.refused(&scene.instead(vec![manifest]), "STMT_PREDICATE_TYPE");
    scene.refused(&scene.without(scene.manifest().task), "CHAIN_TASK_MISSING");
    scene.refused(&scene.without(scene.task().authorization), "CHAIN_LINK_MISSING");
}

/// `hum-below-threshold`.
#[test]
fn a_signoff_removed() {
    let scene = Scene::new();
    let authorization = scene.said(scene.task().authorization).as_authorization().unwrap().clone();
    for approver in &authorization.approvers {
        scene.refused(&scene.without(approver.signoff), "SIGNOFF_MISSING");
    }
    scene.refused(&scene.without(authorization.request), "CHAIN_LINK_MISSING");
}

/// `hum-same-person-two-keys`.
#[test]
fn one_person_with_two_keys_is_one() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let approve = |key: &str, comment: &str| {
        world.done(&format!("release sign-off {request} --store store --as bob --role releng --key keys/{key} --comment {comment}"))
    };
    approve("bob", "work");
    approve("bob-home", "home");
    approve("bob", "again");
    let authorize = format!("release authorize {request} --store store --key keys/desk");
    world.refused(&authorize, "SIGNOFF_THRESHOLD_NOT_MET");
    // nor the proposer, nor somebody else's name
    let own = format!(
        "release sign-off {request} --store store --as alice --role releng --key keys/alice"
    );
    world.refused(&own, "SIGNOFF_SELF_APPROVAL");
    world.refused(&own.replace("releng", "nobody"), "SIGNOFF_ROLE");
    world.refused(&authorize, "SIGNOFF_THRESHOLD_NOT_MET");
    let line = format!(
        "release sign-off {request} --store store --as carol --role releng --key keys/bob-home"
    );
    world.refused(&line, "POLICY_KEY_PURPOSE");
    world.refused(&line.replace("bob-home", "mallory"), "ENV_KEY_UNKNOWN");
    world.refused(&authorize.replace("desk", "scheduler"), "SIGNOFF_THRESHOLD_NOT_MET");
    world.sign_off(&request, "carol");
    world.refused(&authorize.replace("desk", "scheduler"), "POLICY_KEY_PURPOSE");
    world.done(&authorize);
}

/// `chain-input-dropped`.
#[test]
fn an_input_that_nothing_explains() {
    let scene = Scene::new();
    let manifest = scene.manifest();
    let with = |input: UsedInput| {
        let mut inputs = manifest.inputs.clone();
        inputs.push(input);
        scene
            .instead(vec![scene.world.forged(Manifest { inputs, ..manifest.clone() }, "publisher")])
    };
    let artifact = Artifact { name: "cache".parse().unwrap(), ..manifest.artifacts[0].clone() };
    let cache = UsedInput {
        artifact: artifact.clone(),
        origin: InputOrigin::External("https://cache.example.org/".into()),
    };
    scene.refused(&with(cache), "CHAIN_INPUT_UNACCOUNTED");
    let upstream = UsedInput { artifact, origin: InputOrigin::Manifest(manifest.upstream[0]) };
    scene.refused(&with(upstream), "CHAIN_INPUT_UNACCOUNTED");
    // or one that the task asked for and that was not used
    let less = Manifest { inputs: manifest.inputs[1..].to_vec(), ..manifest.clone() };
    scene.refused(
        &scene.instead(vec![scene.world.forged(less, "publisher")]),
        "CHAIN_INPUT_UNACCOUNTED",
    );
}

/// `chain-fork-one-task`.
#[test]
fn two_manifests_for_one_task() {
    let scene = Scene::new();
    let twin = scene
        .world
        .forged(Manifest { invocation: "another".into(), ..scene.manifest() }, "publisher");
    let mut envelopes = scene.envelopes.clone();
    envelopes.push(twin.clone());
    scene.refused(&envelopes, "CHAIN_FORKED");
    // until a person says which one holds; not just anybody
    let world = &scene.world;
    world.add(&twin);
    let task = scene.manifest().task;
    let supersede = |person: &str| {
        let holds = scene.publication;
        world.done(&format!("release resolve {task} --store store --supersede {holds} --as {person} --reason x --key keys/{person}"))
    };
    let verify = || world.custody("verify hand/all.bin --store store");
    verify().refused("CHAIN_FORKED");
    supersede("bob");
    verify().refused("CHAIN_FORKED");
    supersede("carol");
    verify().done();
}

/// `pol-rollback`.
#[test]
fn an_older_policy() {
    let scene = Scene::new();
    let world = &scene.world;
    let next = format!("version = 2\nprevious = \"{}\"", world.pin());
    world.sign_policy(
        "next",
        &world.policy_text().replace("version = 1", &next),
        &["alice", "carol"],
    );
    let mut newer = scene.envelopes.clone();
    newer.push(Envelope::parse(world.read("next.dsse.json").as_bytes()).unwrap());
    // nobody has seen version 2 yet
    scene.verify(&scene.envelopes).done();
    scene.verify(&newer).done();
    scene.verify(&scene.envelopes).refused("POLICY_ROLLBACK");
    // somebody else has not, and this person has for all times to come
    let mut other = world.command(&format!("--json verify hand/all.bin --pin {}", world.pin()));
    other.env("XDG_STATE_HOME", world.path("home"));
    world.say(other).done();
    scene.verify(&scene.envelopes).refused("POLICY_ROLLBACK");
    scene.verify(&newer).done();
}
