//! A publication: the gate, an intent, the copies, each read back, the word that it is done.

use std::time::Duration;

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::name::ArtifactName;
use custody_core::statement::{Artifact, Intent, Label, Stage, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_store::{Share, bundle};
use custody_verify::Accepted;
use rayon::prelude::*;

use super::machine::Stopwatch;
use super::{Stop, Worker, accepted, task_of};
use crate::destination::{Destination, Place, S3Config};
use crate::execute::Confinement;
use crate::gate;
use crate::measure::measure;

impl Worker<'_> {
    /// Publishes: the gate, an intent, the copies, each read back, the word that it is done, the
    /// manifest, and beside the files a bundle and check sums. `done` is told of each file.
    ///
    /// Called again for a task that is done, it brings what is missing beside the files.
    pub fn publish(
        &self,
        id: StatementId,
        done: &(dyn Fn(&ArtifactName) + Sync),
    ) -> Result<StatementId, Stop> {
        if let Some(manifest) = self.store.run(id)?.and_then(|run| run.manifest) {
            self.beside(id, manifest)?;
            return Ok(manifest);
        }
        let report = self.judge(id)?;
        let first = accepted(&report)?;
        let (_, task) = task_of(&first)?;
        let destination =
            task.destination.as_deref().ok_or_else(|| runs_a_command(id, &task.step))?;
        let artifacts = published(&first)?;
        let place = open(destination)?;
        self.readable(&artifacts)?;
        vacant(&place, &artifacts)?;
        let claim = self.store.begin_run(id, self.name.as_str(), Share::Whole)?;
        // hashing took its time: what was said in the meantime counts, up to the act itself
        let report = self.judge(id)?;
        let accepted = accepted(&report)?;
        if accepted.inputs() != first.inputs() {
            let at = format!("task {}", id.short());
            return Err(Refusal::new(
                Code::GateCacheStale,
                at,
                "the inputs of the first verdict",
                "others",
            )
            .into());
        }
        let intent = |stage, created| Intent {
            task: id,
            stage,
            destination: destination.into(),
            artifacts: artifacts.clone(),
            created,
        };
        self.still_certified((self.clock)())?;
        let collected = self.collect_from_platforms(id)?;
        let environment = measure(&Confinement::default());
        if self.is_judged(&accepted, task)? {
            let (now, facts) = ((self.clock)(), environment.clone());
            let draft = self.skeleton(&accepted, id, task, Vec::new(), facts, (now, now));
            self.suits(draft, &collected)?;
        }
        let stopwatch = Stopwatch::start(self.clock);
        let started = self.announce(&|created| intent(Stage::Announced, created))?;
        artifacts.par_iter().try_for_each(|artifact| {
            let mut file = self.store.open_artifact(&artifact.digests.sha256)?;
            place.put(&artifact.name, &mut file, &artifact.digests, artifact.size)?;
            done(&artifact.name);
            Ok::<(), Refusal>(())
        })?;
        let finished = (self.clock)();
        stopwatch.agrees_with(finished)?;
        self.still_certified(finished)?;
        self.store.add(&[self.sign(intent(Stage::Done, finished))?])?;
        let mut manifest =
            self.skeleton(&accepted, id, task, artifacts, environment, (started, finished));
        collected.enter(&mut manifest);
        let manifest = self.conclude(&claim, manifest)?;
        self.beside(id, manifest)?;
        Ok(manifest)
    }

    /// Records that the act begins. Each attempt is a statement of its own, or the person's word on one
    /// would let all others of the same second go on.
    fn announce(&self, intent: &dyn Fn(Time) -> Intent) -> Result<Time, Refusal> {
        for _ in 0..30 {
            let now = (self.clock)();
            if self.store.add(&[self.sign(intent(now))?])?.new == 1 {
                return Ok(now);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let expected = "a later time than that of the attempt before";
        Err(Refusal::new(Code::GateUnavailable, "the clock", expected, "the same"))
    }

    /// All of them are hashed before the first is sent: one that is bad lets none out.
    fn readable(&self, artifacts: &[Artifact]) -> Result<(), Refusal> {
        artifacts.par_iter().try_for_each(|artifact| {
            let size = self.store.copy_artifact(&artifact.digests.sha256, std::io::sink());
            let size = size.map_err(|refusal| {
                // a disk that fails says nothing of the artifact
                let changed = matches!(refusal.code, Code::StoreCorrupt | Code::ArtMissing);
                let code = if changed { Code::GateInputChanged } else { refusal.code };
                Refusal { code, ..refusal }.within(artifact.name.as_str())
            })?;
            if size == artifact.size {
                return Ok(());
            }
            let (expected, found) = (format!("{} bytes", artifact.size), format!("{size} bytes"));
            Err(Refusal::new(Code::ArtSizeMismatch, artifact.name.as_str(), expected, found))
        })
    }

    /// Puts a bundle with which anyone verifies the files, and check sums, beside them.
    fn beside(&self, task: StatementId, manifest: StatementId) -> Result<(), Refusal> {
        let envelopes = gate::portable(self.store, &[manifest])?;
        let opened = envelopes.iter().find(|envelope| envelope.id() == manifest);
        let policies = gate::policies(self.store, (self.clock)())?;
        let keyring = gate::keyring(self.store, &policies)?;
        let content = opened.and_then(|envelope| {
            let signed = envelope.open::<Statement>(&keyring).ok()?;
            signed.unverified().as_manifest().cloned()
        });
        let content = content.ok_or_else(|| {
            Refusal::new(
                Code::StoreCorrupt,
                format!("manifest {manifest}"),
                "it in the store",
                "nothing",
            )
        })?;
        let destination =
            content.destination.as_deref().ok_or_else(|| runs_a_command(task, &content.step))?;
        let place = open(destination)?;
        let stem = format!("{}-{}", content.step, task.short());
        let line =
            |artifact: &Artifact| format!("{}  {}\n", artifact.digests.sha256, artifact.name);
        let sums: String = content.artifacts.iter().map(line).collect();
        put(&place, &format!("{stem}.custody.jsonl"), bundle::write(&envelopes).as_bytes())?;
        put(&place, &format!("{stem}.sha256"), sums.as_bytes())
    }
}

fn runs_a_command(task: StatementId, step: &Label) -> Refusal {
    let (at, found) =
        (format!("task {}", task.short()), format!("step {step}, which runs a command"));
    Refusal::new(Code::GateStepMismatch, at, "a step that publishes", found)
}

/// Other content in the way is found before the act is announced: then nothing of it has happened.
fn vacant(place: &Place, artifacts: &[Artifact]) -> Result<(), Refusal> {
    artifacts.par_iter().try_for_each(|artifact| {
        let (expected, size) = (&artifact.digests, artifact.size);
        match place.read_back(&artifact.name, expected.sha512.is_some(), size)? {
            Some((digests, length)) if length != size || !expected.agree(&digests) => {
                let at = format!("artifact {} at {}", artifact.name, place.destination());
                let expected = format!("nothing, or sha256 {}", expected.sha256);
                let found = format!("sha256 {}", digests.sha256);
                Err(Refusal::new(Code::GateDestinationConflict, at, expected, found))
            }
            _ => Ok(()),
        }
    })
}

fn open(destination: &str) -> Result<Place, Refusal> {
    Destination::parse(destination)?.open(S3Config::from_env)
}

fn put(place: &Place, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
    use std::io::{Seek as _, Write as _};
    let fault = |error: std::io::Error| {
        Refusal::new(Code::StoreFull, name, "a temporary file", error.to_string())
    };
    let mut file = tempfile::tempfile().map_err(fault)?;
    file.write_all(bytes).and_then(|()| file.rewind()).map_err(fault)?;
    let digests = Sha256::of(bytes).into();
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    place.put(&name.parse()?, &mut file, &digests, size).map(|_| ())
}

/// What goes out: the inputs under their file names, each once.
fn published(accepted: &Accepted<'_>) -> Result<Vec<Artifact>, Refusal> {
    let mut artifacts: Vec<Artifact> = Vec::new();
    for input in accepted.inputs() {
        let name: ArtifactName = input.artifact.name.file_name().parse()?;
        if let Some(twin) =
            artifacts.iter().find(|artifact| artifact.name.folded() == name.folded())
        {
            let found = format!("{} and {}", twin.name, input.artifact.name);
            return Err(Refusal::new(
                Code::ArtNameCollision,
                "what is published",
                "each file name once",
                found,
            ));
        }
        artifacts.push(Artifact { name, ..input.artifact.clone() });
    }
    artifacts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(artifacts)
}
