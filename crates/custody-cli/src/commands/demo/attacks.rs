//! Ten attacks on the demo's own release. Several need a stolen key, and get it.

use std::fs;
use std::path::PathBuf;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload, PolicyText, StatementId};
use custody_core::statement::{Artifact, Image, InputOrigin, Manifest, Statement, Task, UsedInput};
use custody_run::gate;
use custody_sign::{Signer, sign_envelope_as_machine, sign_envelope_as_person};
use custody_store::{Store, bundle};

use super::Released;
use super::stage::Stage;
use crate::context::{PassphraseArgs, open_key};
use crate::error::Error;

const FILE: &str = "www/hello-1.1.0.complete.tar";

/// Runs them all and says how many were refused.
pub(super) fn run(stage: &Stage<'_>, released: &Released) -> Result<usize, Error> {
    let scene = Scene::set(stage, released)?;
    let attacks: [Attack; 10] = [
        byte_in_file,
        byte_in_envelope,
        file_of_another_release,
        key_of_another_step,
        task_of_another_authorization,
        signoff_removed,
        second_key_of_one_person,
        unexplained_input,
        two_results,
        older_policy,
    ];
    let more: &[Attack] = if released.image.is_some() { &[another_image] } else { &[] };
    attacks.iter().chain(more).try_for_each(|attack| attack(&scene))?;
    Ok(attacks.len() + more.len())
}

type Attack = fn(&Scene<'_>) -> Result<(), Error>;

/// The evidence of the release as the attacker holds it.
struct Scene<'s> {
    stage: &'s Stage<'s>,
    pin: String,
    envelopes: Vec<Envelope>,
    publication: (StatementId, Manifest),
    older: StatementId,
}

impl<'s> Scene<'s> {
    fn set(stage: &'s Stage<'s>, released: &Released) -> Result<Self, Error> {
        let store = Store::open(&stage.path("store"))?;
        let envelopes: Vec<Envelope> =
            gate::gather(&store, &[released.publication])?.iter().cloned().collect();
        fs::create_dir(stage.path("attack")).map_err(Error::io(&stage.path("attack")))?;
        let publication = (released.publication, manifest(&envelopes, released.publication)?);
        Ok(Self {
            stage,
            pin: released.pin.to_string(),
            envelopes,
            publication,
            older: released.older,
        })
    }

    fn content(&self, id: StatementId) -> Result<Statement, Error> {
        content(&self.envelopes, id)
    }

    fn manifest(&self, id: StatementId) -> Result<Manifest, Error> {
        manifest(&self.envelopes, id)
    }

    fn task(&self) -> Result<Task, Error> {
        let id = self.publication.1.task;
        self.content(id)?.as_task().cloned().ok_or_else(|| Error::Usage(format!("{id} is no task")))
    }

    fn key(&self, name: &str) -> Result<Box<dyn Signer>, Error> {
        let path = self.stage.path(&format!("keys/{name}"));
        open_key(&path.display().to_string(), &PassphraseArgs::default())
    }

    fn forged(&self, statement: impl Into<Statement>, key: &str) -> Result<Envelope, Error> {
        let mut envelope = statement.into().to_envelope();
        sign_envelope_as_machine(&mut envelope, &*self.key(key)?)?;
        Ok(envelope)
    }

    /// All evidence but the publication, and these.
    fn instead(&self, forged: Vec<Envelope>) -> Vec<Envelope> {
        let rest = self.envelopes.iter().filter(|envelope| envelope.id() != self.publication.0);
        rest.cloned().chain(forged).collect()
    }

    fn bundle(&self, envelopes: &[Envelope]) -> Result<String, Error> {
        self.bytes("evidence.jsonl", bundle::write(envelopes).as_bytes())
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> Result<String, Error> {
        let path: PathBuf = self.stage.path("attack").join(name);
        fs::write(&path, bytes).map_err(Error::io(&path))?;
        Ok(format!("attack/{name}"))
    }

    /// Verifies a file with this evidence and must be refused.
    fn refused(&self, what: &str, file: &str, bundle: &str, code: Code) -> Result<(), Error> {
        let words = [
            "verify",
            file,
            "--bundle",
            bundle,
            "--pin",
            &self.pin,
            "--product",
            "hello",
            "--version",
            "1.1.0",
        ];
        self.stage.refused(what, &words, Vec::new(), code)
    }
}

/// What a statement says. An attacker needs no proof.
fn content(envelopes: &[Envelope], id: StatementId) -> Result<Statement, Error> {
    let envelope = envelopes.iter().find(|envelope| envelope.id() == id);
    let payload = envelope.map(Envelope::unverified_payload).unwrap_or_default();
    Ok(Payload::parse(payload)?)
}

fn manifest(envelopes: &[Envelope], id: StatementId) -> Result<Manifest, Error> {
    content(envelopes, id)?
        .as_manifest()
        .cloned()
        .ok_or_else(|| Error::Usage(format!("{id} is no manifest")))
}

fn byte_in_file(scene: &Scene<'_>) -> Result<(), Error> {
    let path = scene.stage.path(FILE);
    let mut bytes = fs::read(&path).map_err(Error::io(&path))?;
    bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
    let file = scene.bytes("hello-1.1.0.complete.tar", &bytes)?;
    scene.refused(
        "one byte changed in the file",
        &file,
        &scene.bundle(&scene.envelopes)?,
        Code::ArtDigestMismatch,
    )
}

fn byte_in_envelope(scene: &Scene<'_>) -> Result<(), Error> {
    let build = scene.manifest_of_step("build")?;
    let text = bundle::write(&scene.envelopes);
    let old = scene
        .envelopes
        .iter()
        .find(|envelope| envelope.id() == build)
        .map(Envelope::unverified_payload)
        .unwrap_or_default();
    let mut changed = old.to_vec();
    // a digit in the text, so that it stays a manifest
    if let Some(digit) = changed.iter_mut().rev().find(|byte| **byte == b'1') {
        *digit = b'2';
    }
    let encode = custody_core::encoding::base64;
    let file =
        scene.bytes("evidence.jsonl", text.replace(&encode(old), &encode(&changed)).as_bytes())?;
    scene.refused(
        "one byte changed in the build's manifest",
        FILE,
        &file,
        Code::EnvSignatureInvalid,
    )
}

impl Scene<'_> {
    /// The manifest of a step of 1.1.0, on which the publication rests.
    fn manifest_of_step(&self, step: &str) -> Result<StatementId, Error> {
        let found =
            self.publication.1.upstream.iter().find(|id| {
                self.manifest(**id).is_ok_and(|manifest| manifest.step.as_str() == step)
            });
        found.copied().ok_or_else(|| Error::Usage(format!("the publication rests on no {step}")))
    }
}

fn file_of_another_release(scene: &Scene<'_>) -> Result<(), Error> {
    let store = Store::open(&scene.stage.path("store"))?;
    let older = scene
        .envelopes
        .iter()
        .filter_map(|envelope| scene.manifest(envelope.id()).ok())
        .flat_map(|manifest| manifest.artifacts);
    let older: Option<Artifact> =
        older.into_iter().find(|artifact| artifact.name.file_name() == "hello-1.0.0.complete.tar");
    let artifact = older.ok_or_else(|| Error::Usage("no hello 1.0.0".into()))?;
    let mut bytes = Vec::new();
    store.copy_artifact(&artifact.digests.sha256, &mut bytes)?;
    let file = scene.bytes("hello-1.0.0.complete.tar", &bytes)?;
    scene.refused(
        "the genuine file of another release",
        &file,
        &scene.bundle(&scene.envelopes)?,
        Code::ChainReleaseMismatch,
    )
}

fn key_of_another_step(scene: &Scene<'_>) -> Result<(), Error> {
    let forged = scene.forged(scene.publication.1.clone(), "builder")?;
    let file = scene.bundle(&scene.instead(vec![forged]))?;
    scene.refused(
        "the publication signed with the builder's key",
        FILE,
        &file,
        Code::PolicyKeyPurpose,
    )
}

fn task_of_another_authorization(scene: &Scene<'_>) -> Result<(), Error> {
    let task = scene.forged(Task { authorization: scene.older, ..scene.task()? }, "scheduler")?;
    let manifest =
        scene.forged(Manifest { task: task.id(), ..scene.publication.1.clone() }, "publisher")?;
    let file = scene.bundle(&scene.instead(vec![task, manifest]))?;
    scene.refused(
        "a task under the authorization of 1.0.0",
        FILE,
        &file,
        Code::ChainReleaseMismatch,
    )
}

fn signoff_removed(scene: &Scene<'_>) -> Result<(), Error> {
    let authorization = scene.content(scene.task()?.authorization)?;
    let approver = authorization
        .as_authorization()
        .and_then(|authorization| authorization.approvers.first().cloned());
    let rest = scene.envelopes.iter().filter(|envelope| {
        Some(envelope.id()) != approver.as_ref().map(|approver| approver.signoff)
    });
    let rest: Vec<Envelope> = rest.cloned().collect();
    scene.refused("one sign-off removed", FILE, &scene.bundle(&rest)?, Code::SignoffMissing)
}

/// Bob approves with both of his keys. The desk counts people.
fn second_key_of_one_person(scene: &Scene<'_>) -> Result<(), Error> {
    let stage = scene.stage;
    let propose = [
        "release",
        "propose",
        "--product",
        "hello",
        "--version",
        "1.2.0",
        "--channel",
        "release",
        "--phase",
        "promote",
        "--repository",
        "source",
        // that of 1.0.0 builds on nothing
        "--commit",
        "HEAD~1",
        "--param",
        "signing-key=none",
    ];
    let arguments: Vec<String> =
        propose.iter().map(ToString::to_string).chain(stage.key("alice")).collect();
    let request = stage
        .quietly(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?
        .id("id")?
        .to_string();
    for key in ["bob", "bob-home"] {
        let signoff =
            ["release", "sign-off", &request, "--as", "bob", "--role", "releng", "--comment", key];
        let arguments: Vec<String> =
            signoff.iter().map(ToString::to_string).chain(stage.key(key)).collect();
        stage.quietly(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    let words = ["release", "authorize", &request];
    stage.refused(
        "one person's two keys in place of two people",
        &words,
        stage.key("desk"),
        Code::SignoffThresholdNotMet,
    )
}

fn unexplained_input(scene: &Scene<'_>) -> Result<(), Error> {
    let mut manifest = scene.publication.1.clone();
    let artifact = manifest
        .artifacts
        .first()
        .cloned()
        .ok_or_else(|| Error::Usage("nothing was published".into()))?;
    let origin = InputOrigin::External("https://cache.example.org/".into());
    manifest.inputs.push(UsedInput {
        artifact: Artifact { name: "dist/from-a-cache".parse()?, ..artifact },
        origin,
    });
    let forged = scene.forged(manifest, "publisher")?;
    let file = scene.bundle(&scene.instead(vec![forged]))?;
    scene.refused("an input that nothing explains", FILE, &file, Code::ChainInputUnaccounted)
}

fn two_results(scene: &Scene<'_>) -> Result<(), Error> {
    let manifest = Manifest { invocation: "another run".into(), ..scene.publication.1.clone() };
    let twin = scene.forged(manifest, "publisher")?;
    let envelopes: Vec<Envelope> = scene.envelopes.iter().cloned().chain([twin]).collect();
    scene.refused("two manifests for one task", FILE, &scene.bundle(&envelopes)?, Code::ChainForked)
}

/// The scheduler's key sends a build into an image that somebody else made.
fn another_image(scene: &Scene<'_>) -> Result<(), Error> {
    let stage = scene.stage;
    let id = scene.manifest(scene.manifest_of_step("build")?)?.task;
    let task = scene.content(id)?.as_task().cloned();
    let task = task.ok_or_else(|| Error::Usage(format!("{id} is no task")))?;
    let (name, digest) = ("registry.example.org/hello-build".into(), Sha256::of(b"another"));
    let image = Some(Image::Named { name, digest });
    let forged = scene.forged(Task { image, nonce: "0".repeat(32), ..task }, "scheduler")?;
    Store::open(&stage.path("store"))?.add(std::slice::from_ref(&forged))?;
    let words = ["run", &forged.id().to_string(), "--repository", "source"];
    let builder = stage.machines(&["builder"]);
    let what = "a build in an image that the policy does not have";
    stage.refused(what, &words, builder, Code::WorkerImageMismatch)
}

/// Whoever has seen version 2 does not go back to version 1.
fn older_policy(scene: &Scene<'_>) -> Result<(), Error> {
    let path = scene.stage.path("policy.toml");
    let text = fs::read_to_string(&path).map_err(Error::io(&path))?;
    let text =
        text.replace("\nversion = 1\n", &format!("\nversion = 2\nprevious = \"{}\"\n", scene.pin));
    let mut next = Envelope::unsigned::<PolicyText>(text);
    for person in ["alice", "carol"] {
        sign_envelope_as_person(&mut next, &*scene.key(person)?)?;
    }
    let newer: Vec<Envelope> = scene.envelopes.iter().cloned().chain([next]).collect();
    scene.stage.quietly(&[
        "verify",
        FILE,
        "--bundle",
        &scene.bundle(&newer)?,
        "--pin",
        &scene.pin,
    ])?;
    scene.refused(
        "an older policy, after a newer one was seen",
        FILE,
        &scene.bundle(&scene.envelopes)?,
        Code::PolicyRollback,
    )
}
