//! One task from gate to manifest, in the order of the design: verify, stage, run, collect, measure,
//! sign, store.

mod machine;
mod publication;
mod room;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use custody_core::envelope::{Envelope, StatementId};
use custody_core::name::ArtifactName;
use custody_core::statement::{
    Artifact, InputOrigin, Label, Manifest, Statement, Task, UsedImage, UsedInput, worker_uri,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_sign::{Signer, sign_envelope_as_machine};
use custody_store::{Claim, Share, Staged, Store};
use custody_verify::{Accepted, Report};

use self::machine::{Stopwatch, environment};
use self::room::Room;
use crate::collect::collect;
use crate::container::{self, Contained, Engine};
use crate::downloads::execute_with_downloads;
use crate::downloads::upstream::Upstream;
use crate::execute::{Confinement, LOG_BYTES, Outcome, Run, User, execute};
use crate::external;
use crate::gate;
use crate::measure::platform::Platform;
use crate::source::{Checked, Demanded, Rules, checkout};
use crate::stage::copy::unavailable;
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
    /// The certificate of the key, where the policy does not list the key itself.
    pub certificate: Option<(StatementId, Time)>,
    /// Under which working directories are made.
    pub work: &'w Path,
    /// The repository to take sources from, where it is not the one that the task names.
    pub repository: Option<&'w str>,
    /// The platforms that are asked what machine this is.
    pub platforms: &'w [Platform],
    /// The certificates (PEM) that vouch for servers that commands download from, where it is not the
    /// system's that do.
    pub download_authorities: Option<&'w Path>,
    /// What this machine can do to keep commands apart.
    pub confinement: &'w Confinement,
    /// What runs commands in images; without it whatever this machine has.
    pub engine: Option<&'w Engine>,
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

/// Who is given what a command prints, line by line as it comes.
pub type Live<'l> = dyn FnMut(&[u8]) + Send + 'l;

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
    pub fn run(&self, id: StatementId, live: &mut Live<'_>) -> Result<StatementId, Stop> {
        let report = self.judge(id)?;
        let first = accepted(&report)?;
        let share = if first.is_shared() { Share::Part } else { Share::Whole };
        let (_, task) = task_of(&first)?;
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
        let claim = self.store.begin_run(id, self.name.as_str(), share)?;
        let stopwatch = Stopwatch::start(self.clock);
        // what was said in the meantime counts: from here on nobody else works on the task
        let report = self.judge(id)?;
        let accepted = accepted(&report)?;
        let (_, task) = task_of(&accepted)?;
        let room = Room::open(self.work, id)?;
        let directory = RunDirectory::create(&room.beside())?;
        let done = self.perform(&accepted, id, task, &directory, room.path(), live);
        // What is left of a run is removed whether it ended well or not, and before the task is done:
        // nobody comes back to one that is. The first fault is told. It is also before the outputs are
        // made durable, or the disk would write, and then free, what the command wrote too.
        let removed = room.remove(directory);
        let (manifest, outputs) = done?;
        removed?;
        self.store.keep(outputs)?;
        stopwatch.agrees_with(manifest.finished)?;
        self.still_certified(manifest.finished)?;
        self.conclude(&claim, manifest)
    }

    fn judge(&self, id: StatementId) -> Result<Report, Refusal> {
        gate::judge(self.store, id, self.name, (self.clock)())
    }

    fn perform(
        &self,
        accepted: &Accepted<'_>,
        id: StatementId,
        task: &Task,
        directory: &RunDirectory,
        private: &Path,
        live: &mut Live<'_>,
    ) -> Result<(Manifest, Vec<Staged>), Stop> {
        // before anything of the task's own is here, and while no command runs
        let collected = self.collect_from_platforms(id)?;
        // the hours that a command takes are not spent on a machine whose work nobody will take
        let admit = |confinement: &Confinement, image: Option<(&UsedImage, &str)>| {
            let environment = environment(task, confinement, image);
            let now = (self.clock)();
            let mut draft = self.skeleton(accepted, id, task, Vec::new(), environment, (now, now));
            draft.image = image.map(|(image, _)| image.clone());
            self.suits(draft, &collected)
        };
        stage_inputs(directory, &self.inputs(accepted, task)?)?;
        let checked = self.source(accepted, task, directory)?;
        let log = private.join("log");
        let run = Run {
            task,
            directory,
            log: &log,
            log_limit: LOG_BYTES,
            timeout: Some(Duration::from_secs(task.deadline.since((self.clock)()).max(1))),
            source_date_epoch: Some(task.created.unix()),
            admit: if self.is_judged(accepted, task)? { Some(&admit) } else { None },
        };
        let (outcome, downloads, contained) = self.execute(&run, private, live)?;
        if !outcome.end.is_success() {
            return Err(self.failed(task, &outcome, &log));
        }
        let (task_outputs, limit) = (&task.outputs, task.limits.output);
        let outputs = collect(directory.path(), task_outputs, task.sha512, limit, self.store)?;
        let log_name: ArtifactName = format!("{}.log", task.step).parse()?;
        let log_file = File::open(&log).map_err(|error| unavailable(&log, &error))?;
        let log = Artifact { name: log_name, digests: outcome.log, size: outcome.log_size };
        let kept_log = self.store.stage(log_file, false, Some(&log.digests))?;
        let (artifacts, mut staged): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .map(|(name, staged)| {
                (Artifact { name, digests: *staged.digests(), size: staged.size() }, staged)
            })
            .unzip();
        staged.push(kept_log);
        let image = contained.as_ref().map(|done| (&done.image, done.engine.as_str()));
        let mut manifest = Manifest {
            submodules: checked.submodules,
            signed_source: checked.signed,
            log: Some(log),
            ..self.skeleton(
                accepted,
                id,
                task,
                artifacts,
                environment(task, &outcome.confinement, image),
                (outcome.started, outcome.finished),
            )
        };
        manifest.inputs.extend(downloads);
        collected.enter(&mut manifest);
        manifest.image = contained.map(|contained| contained.image);
        Ok((manifest, staged))
    }

    /// The source that people approved, by the rules of the newest policy.
    fn source(
        &self,
        accepted: &Accepted<'_>,
        task: &Task,
        directory: &RunDirectory,
    ) -> Result<Checked, Refusal> {
        let Some(source) = &task.source else { return Ok(Checked::default()) };
        let policies = gate::policies(self.store, (self.clock)())?;
        let (_, policy) = policies.newest();
        let product = policy.product(&accepted.release().product)?;
        let check = |raw: Option<&[u8]>| {
            policy.source_signer(product, source, raw, task.created).map(|_| ())
        };
        let signatures = product.source_signatures.as_ref();
        let rules = Rules {
            submodule: &|uri| product.allows_submodule(uri),
            lfs: product.lfs,
            signature: signatures.map(|demanded| Demanded { what: demanded.what, check: &check }),
        };
        checkout(self.repository.unwrap_or(&source.uri), source, &rules, &directory.source())
    }

    /// Runs the command in the task's image or on the machine itself, and gives what it fetched.
    fn execute(
        &self,
        run: &Run<'_>,
        private: &Path,
        live: &mut Live<'_>,
    ) -> Result<(Outcome, Vec<UsedInput>, Option<Contained>), Refusal> {
        let nothing = Vec::new();
        match (&run.task.image, &run.task.downloads) {
            (None, None) => {
                Ok((execute(run, self.confinement, live, self.cancelled)?, nothing, None))
            }
            (None, Some(downloads)) => {
                let upstream = Upstream::new(self.download_authorities)?;
                let (from, machine) = ((self.store, &upstream), self.confinement);
                let done =
                    execute_with_downloads(run, downloads, machine, from, live, self.cancelled)?;
                Ok((done.0, done.1, None))
            }
            (Some(image), None) => {
                let user = self.confinement.user.unwrap_or_else(User::own);
                let how = (self.engine, private, user);
                let done = container::execute(run, image, how, live, self.cancelled)?;
                Ok((done.outcome.clone(), nothing, Some(done)))
            }
            (Some(image), Some(_)) => {
                let at = format!("image {image}");
                let expected = "a task without downloads: no image is run with the proxy yet";
                let refusal = Refusal::new(Code::GateUnavailable, at, expected, "downloads");
                Err(refusal
                    .advising("take the image or the downloads out of the step, and propose anew"))
            }
        }
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
            attestations: Vec::new(),
            enrolment: self.certificate.map(|(id, _)| id),
            signed_source: None,
            submodules: Vec::new(),
            image: None,
            source: task.source.clone(),
            upstream,
            agreeing: accepted.agreeing().collect(),
            inputs,
            builder: worker_uri(self.name.as_str()),
            invocation: format!("{id}/1"),
            started,
            // a clock that was set back must not make the manifest contradict itself
            finished: finished.max(started),
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
}
