//! One task from gate to manifest, in the order of the design: verify, stage, run, collect, measure,
//! sign, store.

mod room;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use custody_core::envelope::{Envelope, StatementId};
use custody_core::name::ArtifactName;
use custody_core::statement::{
    Artifact, InputOrigin, Intent, Label, Manifest, Stage, Statement, Task, UsedImage, UsedInput,
    binding, worker_uri,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_sign::{Signer, sign_envelope_as_machine};
use custody_store::{Claim, Share, Store, bundle};
use custody_verify::{Accepted, Report};
use rayon::prelude::*;

use self::room::Room;
use crate::collect::collect;
use crate::container::{self, Contained, Engine};
use crate::destination::{Destination, Place, S3Config};
use crate::downloads::execute_with_downloads;
use crate::downloads::upstream::Upstream;
use crate::execute::{Confinement, LOG_BYTES, Outcome, Run, User, execute};
use crate::external;
use crate::gate;
use crate::measure::measure;
use crate::measure::platform::{Collected, Platform};
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
        // nobody comes back to one that is. The first fault is told.
        let removed = room.remove(directory);
        let manifest = done?;
        removed?;
        stopwatch.agrees_with(manifest.finished)?;
        self.still_certified(manifest.finished)?;
        self.conclude(&claim, manifest)
    }

    /// Nothing is signed with a key whose time is over: the task would be done, and its manifest of no
    /// use to anybody.
    fn still_certified(&self, now: Time) -> Result<(), Refusal> {
        match self.certificate {
            Some((id, until)) if now >= until => {
                let at = format!("certificate {}", id.short());
                let expected = format!("a time before {until}");
                Err(Refusal::new(Code::PolicyKeyExpired, at, expected, now.to_string()))
            }
            _ => Ok(()),
        }
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
    ) -> Result<Manifest, Stop> {
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
        let copies = private.join("outputs");
        std::fs::create_dir(&copies).map_err(|error| {
            Refusal::new(
                Code::StoreFull,
                copies.display().to_string(),
                "a new directory",
                error.to_string(),
            )
        })?;
        let outputs =
            collect(directory.path(), &task.outputs, task.sha512, task.limits.output, &copies)?;
        let log_name: ArtifactName = format!("{}.log", task.step).parse()?;
        let log_artifact =
            Artifact { name: log_name, digests: outcome.log, size: outcome.log_size };
        self.keep(&outputs, (&log_artifact, &log))?;
        let artifacts = outputs.into_iter().map(|(artifact, _)| artifact).collect();
        let image = contained.as_ref().map(|done| (&done.image, done.engine.as_str()));
        let mut manifest = Manifest {
            submodules: checked.submodules,
            signed_source: checked.signed,
            log: Some(log_artifact),
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
        Ok(manifest)
    }

    /// Whether there is anything that the machine of this task must be.
    fn is_judged(&self, accepted: &Accepted<'_>, task: &Task) -> Result<bool, Refusal> {
        let policies = gate::policies(self.store, (self.clock)())?;
        let key = self.signer.public_key().id();
        // the newest judges at gates, and for those who hold a file the one that was approved under
        let demanded = policies.iter().any(|(_, policy)| {
            let product = policy.product(&accepted.release().product);
            product
                .and_then(|product| product.step(&task.step))
                .is_ok_and(|step| policy.demands(step, &key))
        });
        Ok(demanded || self.certificate.is_some() || !self.platforms.is_empty())
    }

    /// Whether the policy takes the machine that this manifest is about to tell of.
    fn suits(&self, mut draft: Manifest, collected: &Collected) -> Result<(), Refusal> {
        collected.clone().enter(&mut draft);
        gate::machine(self.store, &draft, &self.signer.public_key().id(), (self.clock)())
    }

    /// The platforms' words on this machine, bound to the task and to the key where they let us.
    fn collect_from_platforms(&self, task: StatementId) -> Result<Collected, Refusal> {
        let binding = binding(&task.0, &self.signer.public_key().id());
        Collected::from(self.platforms, &binding)
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

    fn keep(
        &self,
        outputs: &[(Artifact, PathBuf)],
        log: (&Artifact, &Path),
    ) -> Result<(), Refusal> {
        let outputs = outputs.par_iter().map(|(artifact, path)| (artifact, path.as_path()));
        let staged: Result<Vec<_>, Refusal> = outputs
            .chain(rayon::iter::once(log))
            .map(|(artifact, path)| {
                let file = File::open(path).map_err(|error| unavailable(path, &error))?;
                self.store.stage(file, false, Some(&artifact.digests))
            })
            .collect();
        self.store.keep(staged?)
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

/// What is measured of the machine that a task runs on, and of the image that it runs in.
fn environment(
    task: &Task,
    confinement: &Confinement,
    image: Option<(&UsedImage, &str)>,
) -> Vec<(String, String)> {
    let mut environment = measure(confinement);
    if task.downloads.is_some() {
        environment.retain(|(name, _)| name != "network");
        environment.push(("network".into(), "downloads".into()));
        environment.sort();
    }
    match image {
        Some((image, engine)) => container::contained(environment, image, engine),
        None => environment,
    }
}

/// How much a clock may be put forward while a task is performed.
const ADJUSTED: u64 = 300;

/// The time that passes by a clock that nobody sets, and that goes on while the machine sleeps.
struct Stopwatch {
    started: Time,
    at: i64,
}

impl Stopwatch {
    fn start(clock: fn() -> Time) -> Self {
        Self { started: clock(), at: uptime() }
    }

    /// Nothing is signed with a time that has not come yet.
    fn agrees_with(&self, now: Time) -> Result<(), Refusal> {
        let passed = u64::try_from(uptime().saturating_sub(self.at)).unwrap_or_default();
        let latest = self.started.plus(passed.saturating_add(ADJUSTED));
        if now <= latest {
            return Ok(());
        }
        let (expected, found) = (format!("a time by {latest}"), now.to_string());
        Err(Refusal::new(Code::TimeUntrusted, "the clock, which was put forward", expected, found))
    }
}

fn uptime() -> i64 {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    rustix::time::clock_gettime(clock).tv_sec
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
    // what fits the processor's cache is read and hashed there, and small files take no more than they are
    const SMALLEST: usize = 4 << 10;
    const LARGEST: usize = 128 << 10;
    let mut hasher = custody_core::digest::Hasher::new(sha512);
    let mut file = File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(LARGEST);
    let mut buffer = vec![0; size.clamp(SMALLEST, LARGEST)];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok(hasher.finish());
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}
