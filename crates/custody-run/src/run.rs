//! One task from gate to manifest, in the order of the design: verify, stage, run, collect, measure,
//! sign, store.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use custody_core::envelope::{Envelope, StatementId};
use custody_core::name::ArtifactName;
use custody_core::statement::{
    Artifact, InputOrigin, Intent, Label, Manifest, Stage, Statement, Task, UsedInput,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_sign::{Signer, sign_envelope_as_machine};
use custody_store::{Claim, Store, bundle};
use custody_verify::{Accepted, Report};
use rayon::prelude::*;
use tempfile::TempDir;

use crate::collect::collect;
use crate::destination::{Destination, Place, S3Config};
use crate::execute::{Confinement, LOG_BYTES, Outcome, Run, execute};
use crate::external;
use crate::gate;
use crate::measure::measure;
use crate::source::checkout;
use crate::stage::{RunDirectory, StagedInput, stage_inputs};

/// A machine that performs tasks.
#[derive(Clone, Copy)]
pub struct Worker<'w> {
    /// Where evidence and artifacts come from and go to.
    pub store: &'w Store,
    /// The machine's key.
    pub signer: &'w dyn Signer,
    /// The machine's name, as the policy has it.
    pub name: &'w Label,
    /// Under which working directories are made.
    pub work: &'w Path,
    /// The repository to take sources from, where it is not the one that the task names.
    pub repository: Option<&'w str>,
    /// What this machine can do to keep commands apart.
    pub confinement: &'w Confinement,
    /// This machine's clock.
    pub clock: fn() -> Time,
    /// Ends runs early when somebody sets it.
    pub cancelled: &'w AtomicBool,
}

impl std::fmt::Debug for Worker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a task has no manifest.
#[derive(Debug)]
pub enum Stop {
    /// The gate said no.
    Rejected(Box<Report>),
    /// Something else did not hold.
    Refused(Refusal),
    /// The command failed. That leaves no manifest.
    Failed {
        /// The step.
        step: Label,
        /// How it ended.
        end: crate::execute::End,
        /// What it printed; the file is kept.
        log: PathBuf,
    },
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn accepted(report: &Report) -> Result<Accepted<'_>, Stop> {
    report.accepted().ok_or_else(|| Stop::Rejected(Box::new(report.clone())))
}

fn task_of<'r>(accepted: &Accepted<'r>) -> Result<(StatementId, &'r Task), Refusal> {
    accepted
        .task()
        .ok_or_else(|| Refusal::new(Code::GateStepMismatch, "the gate", "a task", "something else"))
}

impl Worker<'_> {
    /// Runs a task's command behind its gate and gives the id of its manifest. `live` is given what
    /// the command prints.
    pub fn run(&self, id: StatementId, live: &mut dyn FnMut(&[u8])) -> Result<StatementId, Stop> {
        let view = self.view(id)?;
        let report = gate::judge(self.store, id, (self.clock)())?;
        let accepted = accepted(&report)?;
        let (_, task) = task_of(&accepted)?;
        if task.destination.is_some() {
            let found = format!("step {}, which publishes", task.step);
            return Err(Refusal::new(
                Code::GateStepMismatch,
                format!("task {}", id.short()),
                "a step with a command",
                found,
            )
            .into());
        }
        let claim = self.claim(id, view)?;
        let private = self.private()?;
        let directory = RunDirectory::create(&self.work.join(format!(
            "custody-{}-{}",
            id.short(),
            std::process::id()
        )))?;
        let done = self.perform(&accepted, id, task, &directory, &private, live);
        // What is left of a run is removed whether it ended well or not; the first fault is told.
        let removed = directory.remove();
        let manifest = done?;
        removed?;
        self.conclude(&claim, manifest)
    }

    /// How many statements speak of a task.
    fn view(&self, id: StatementId) -> Result<usize, Refusal> {
        Ok(self.store.links_to(&id.0, None)?.len())
    }

    /// Claims a task that the gate let through. What the gate saw must still be all there is: a task
    /// that somebody began and left between is for the gate to judge again.
    fn claim(&self, id: StatementId, seen: usize) -> Result<Claim, Refusal> {
        let claim = self.store.begin_run(id, self.name.as_str())?;
        if self.view(id)? == seen {
            return Ok(claim);
        }
        let expected = "the evidence that the gate saw";
        Err(Refusal::new(
            Code::GateCacheStale,
            format!("task {}", id.short()),
            expected,
            "more: another process worked on it",
        ))
    }

    fn private(&self) -> Result<TempDir, Refusal> {
        let tmp = self.store.directory().join("tmp");
        TempDir::new_in(&tmp).map_err(|error| {
            Refusal::new(
                Code::StoreFull,
                tmp.display().to_string(),
                "a new directory",
                error.to_string(),
            )
        })
    }

    fn perform(
        &self,
        accepted: &Accepted<'_>,
        id: StatementId,
        task: &Task,
        directory: &RunDirectory,
        private: &TempDir,
        live: &mut dyn FnMut(&[u8]),
    ) -> Result<Manifest, Stop> {
        stage_inputs(directory, &self.inputs(accepted, task)?)?;
        if let Some(source) = &task.source {
            let from = self.repository.unwrap_or(&source.uri);
            checkout(from, &source.revision, &directory.source())?;
        }
        let log = private.path().join("log");
        let run = Run {
            task,
            directory,
            log: &log,
            log_limit: LOG_BYTES,
            timeout: Some(Duration::from_secs(task.deadline.since((self.clock)()).max(1))),
            source_date_epoch: Some(task.created.unix()),
        };
        let outcome = execute(&run, self.confinement, live, self.cancelled)?;
        if !outcome.end.is_success() {
            return Err(self.failed(task, &outcome, &log));
        }
        let copies = private.path().join("outputs");
        std::fs::create_dir(&copies).map_err(|error| {
            Refusal::new(
                Code::StoreFull,
                copies.display().to_string(),
                "a new directory",
                error.to_string(),
            )
        })?;
        let outputs = collect(directory.path(), &task.outputs, task.sha512, &copies)?;
        let log_name: ArtifactName = format!("{}.log", task.step).parse()?;
        let log_artifact =
            Artifact { name: log_name, digests: outcome.log, size: outcome.log_size };
        self.keep(&outputs, (&log_artifact, &log))?;
        let artifacts = outputs.into_iter().map(|(artifact, _)| artifact).collect();
        Ok(self.manifest(accepted, id, task, artifacts, &outcome, log_artifact))
    }

    /// The files that the gate let through, and the externals that the task pins.
    fn inputs(&self, accepted: &Accepted<'_>, task: &Task) -> Result<Vec<StagedInput>, Refusal> {
        let mut items = Vec::new();
        for input in accepted.inputs() {
            let place = format!("{}/{}", input.directory, input.artifact.name).parse()?;
            let from = self.store.artifact_path(&input.artifact.digests.sha256);
            items.push(StagedInput { from, artifact: input.artifact.clone(), place });
        }
        for pinned in &task.externals {
            external::fetch(self.store, pinned)?;
            let place = format!("external/{}", pinned.artifact.name).parse()?;
            let from = self.store.artifact_path(&pinned.artifact.digests.sha256);
            items.push(StagedInput { from, artifact: pinned.artifact.clone(), place });
        }
        Ok(items)
    }

    fn failed(&self, task: &Task, outcome: &Outcome, log: &Path) -> Stop {
        // a new file of a name that nobody can have prepared, for anybody may write where runs are made
        let prefix = format!("custody-{}-", task.step);
        let kept = tempfile::Builder::new().prefix(&prefix).suffix(".log").tempfile_in(self.work);
        let copied = kept.and_then(|mut to| {
            std::io::copy(&mut File::open(log)?, &mut to)?;
            Ok(to.keep()?.1)
        });
        Stop::Failed {
            step: task.step.clone(),
            end: outcome.end,
            log: copied.unwrap_or_else(|_| log.into()),
        }
    }

    fn keep(
        &self,
        outputs: &[(Artifact, PathBuf)],
        log: (&Artifact, &Path),
    ) -> Result<(), Refusal> {
        let outputs = outputs.par_iter().map(|(artifact, path)| (artifact, path.as_path()));
        let staged: Result<Vec<_>, Refusal> = outputs
            .chain(rayon::iter::once(log))
            .map(|(artifact, path)| {
                let file = File::open(path);
                let file = file.map_err(|error| {
                    Refusal::new(
                        Code::ArtMissing,
                        path.display().to_string(),
                        "the copy",
                        error.to_string(),
                    )
                })?;
                self.store.stage(file, false, Some(&artifact.digests))
            })
            .collect();
        self.store.keep(staged?)
    }

    fn manifest(
        &self,
        accepted: &Accepted<'_>,
        id: StatementId,
        task: &Task,
        artifacts: Vec<Artifact>,
        outcome: &Outcome,
        log: Artifact,
    ) -> Manifest {
        let environment = measure(&outcome.confinement);
        Manifest {
            log: Some(log),
            ..self.skeleton(
                accepted,
                id,
                task,
                artifacts,
                environment,
                (outcome.started, outcome.finished),
            )
        }
    }

    fn skeleton(
        &self,
        accepted: &Accepted<'_>,
        id: StatementId,
        task: &Task,
        artifacts: Vec<Artifact>,
        environment: Vec<(String, String)>,
        (started, finished): (Time, Time),
    ) -> Manifest {
        let mut upstream: Vec<StatementId> =
            accepted.inputs().iter().map(|input| input.manifest).collect();
        upstream.sort_unstable();
        upstream.dedup();
        let from_steps = accepted.inputs().iter().map(|input| UsedInput {
            artifact: input.artifact.clone(),
            origin: InputOrigin::Manifest(input.manifest),
        });
        let pinned = task.externals.iter().map(|pinned| UsedInput {
            artifact: pinned.artifact.clone(),
            origin: InputOrigin::External(pinned.uri.clone()),
        });
        let mut inputs: Vec<UsedInput> = from_steps.chain(pinned).collect();
        inputs.sort_by(|a, b| (&a.origin, &a.artifact.name).cmp(&(&b.origin, &b.artifact.name)));
        inputs.dedup_by(|a, b| a.origin == b.origin && a.artifact.name == b.artifact.name);
        Manifest {
            artifacts,
            task: id,
            step: task.step.clone(),
            command: task.command.clone(),
            destination: task.destination.clone(),
            creator: task.creator.clone(),
            environment,
            source: task.source.clone(),
            upstream,
            inputs,
            builder: format!("{}worker/{}", custody_core::BASE_URI, self.name),
            invocation: format!("{id}/1"),
            started,
            finished,
            log: None,
        }
    }

    fn sign(&self, statement: impl Into<Statement>) -> Result<Envelope, Refusal> {
        let mut envelope = statement.into().to_envelope();
        sign_envelope_as_machine(&mut envelope, self.signer)?;
        Ok(envelope)
    }

    fn conclude(&self, claim: &Claim, manifest: Manifest) -> Result<StatementId, Stop> {
        let envelope = self.sign(manifest)?;
        self.store.finish_run(claim, &envelope)?;
        Ok(envelope.id())
    }

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
        let view = self.view(id)?;
        let report = gate::judge(self.store, id, (self.clock)())?;
        let accepted = accepted(&report)?;
        let (_, task) = task_of(&accepted)?;
        let destination = task.destination.as_deref().ok_or_else(|| {
            let found = format!("step {}, which runs a command", task.step);
            Refusal::new(
                Code::GateStepMismatch,
                format!("task {}", id.short()),
                "a step that publishes",
                found,
            )
        })?;
        let artifacts = published(&accepted)?;
        let place = open(destination)?;
        self.readable(&artifacts)?;
        let claim = self.claim(id, view)?;
        let started = (self.clock)();
        let intent = |stage, created| Intent {
            task: id,
            stage,
            destination: destination.into(),
            artifacts: artifacts.clone(),
            created,
        };
        self.store.add(&[self.sign(intent(Stage::Announced, started))?])?;
        artifacts.par_iter().try_for_each(|artifact| {
            let mut file = self.store.open_artifact(&artifact.digests.sha256)?;
            place.put(&artifact.name, &mut file, &artifact.digests, artifact.size)?;
            done(&artifact.name);
            Ok::<(), Refusal>(())
        })?;
        let finished = (self.clock)();
        self.store.add(&[self.sign(intent(Stage::Done, finished))?])?;
        let environment = measure(&Confinement::default());
        let manifest =
            self.skeleton(&accepted, id, task, artifacts, environment, (started, finished));
        let manifest = self.conclude(&claim, manifest)?;
        self.beside(id, manifest)?;
        Ok(manifest)
    }

    /// All of them are hashed before the first is sent: one that is bad lets none out.
    fn readable(&self, artifacts: &[Artifact]) -> Result<(), Refusal> {
        artifacts.par_iter().try_for_each(|artifact| {
            let size = self.store.copy_artifact(&artifact.digests.sha256, std::io::sink());
            let size = size.map_err(|refusal| {
                Refusal { code: Code::GateInputChanged, ..refusal }.within(artifact.name.as_str())
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
        let content = opened.and_then(|envelope| {
            let (policies, _) = gate::policies(self.store, (self.clock)()).ok()?;
            let signed = envelope.open::<Statement>(policies.keyring()).ok()?;
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
        let place = open(content.destination.as_deref().unwrap_or_default())?;
        let stem = format!("{}-{}", content.step, task.short());
        let line =
            |artifact: &Artifact| format!("{}  {}\n", artifact.digests.sha256, artifact.name);
        let sums: String = content.artifacts.iter().map(line).collect();
        put(&place, &format!("{stem}.custody.jsonl"), bundle::write(&envelopes).as_bytes())?;
        put(&place, &format!("{stem}.sha256"), sums.as_bytes())
    }
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
    let digests = custody_core::digest::Sha256::of(bytes).into();
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

/// Reads a file while hashing it, for verification: what was read is what is judged.
pub fn hash_file(
    path: &Path,
    sha512: bool,
) -> std::io::Result<(custody_core::digest::Digests, u64)> {
    let mut hasher = custody_core::digest::Hasher::new(sha512);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}
