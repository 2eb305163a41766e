//! `custody run`

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use clap::Args;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::key::KeyId;
use custody_core::statement::{Label, Origin, Statement, Task};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::container::Engine;
use custody_run::execute::{Confiner, User};
use custody_run::gate::{self, AllCores};
use custody_run::measure::platform::Platform;
use custody_run::run::Worker;
use custody_run::users::Users;
use custody_sign::{KeySource, Signer};
use custody_store::{Relation, Store};
use custody_verify::policy::Product;
use custody_verify::{Certificate, Docket, Evidence, Policy, PolicyChain};

use super::platforms::PlatformArgs;
use crate::context::{PassphraseArgs, StoreArgs, now, open_key, read_bundle, statement, trusted};
use crate::error::Error;
use crate::ui::{GOOD, Ui};

#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// The task's statement id
    #[arg(required_unless_present = "all")]
    task: Option<StatementId>,
    /// Run every task of this authorization that has a command, in dependency order and in parallel
    #[arg(long, value_name = "AUTHORIZATION", conflicts_with = "task")]
    all: Option<StatementId>,
    #[command(flatten)]
    pub(super) machine: MachineArgs,
    /// How many tasks run at once
    #[arg(long, value_name = "N", default_value_t = 2)]
    jobs: usize,
    /// Refused: a gate judges by the clock of its machine
    #[arg(long, hide = true)]
    at: Option<Time>,
}

/// The machine that performs.
#[derive(Args, Debug)]
pub(crate) struct MachineArgs {
    /// A machine's key; several where this computer stands for several machines
    #[arg(long = "key", value_name = "KEY", required = true)]
    keys: Vec<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// Take sources from this repository instead of the one that the policy names
    #[arg(long, value_name = "DIR")]
    pub(super) repository: Option<PathBuf>,
    /// Servers that commands download from show certificates of these authorities (PEM), and not of
    /// the system's
    #[arg(long, value_name = "FILE")]
    pub(super) download_ca: Option<PathBuf>,
    /// Where working directories are made
    #[arg(long, value_name = "DIR", default_value = "/var/tmp")]
    pub(super) work: PathBuf,
    /// Run commands as this user (UID:GID) when started as root, by default nobody; several for as
    /// many runs at once
    #[arg(long = "user", value_name = "UID:GID", value_parser = parse_user)]
    users: Vec<User>,
    /// What runs commands in images: podman, podman:DIR with images in a directory of their own,
    /// `unix:///PATH` of Podman's or Docker's socket, runc or crun; by default the first that is there
    #[arg(long, value_name = "ENGINE")]
    pub(super) engine: Option<Engine>,
    /// Let commands read this file or directory of the machine too, say a signing key of the product;
    /// manifests say that something was lent
    #[arg(long = "lend", value_name = "PATH")]
    lent: Vec<PathBuf>,
    /// Let commands read and write this directory of the machine too, say for caches; they are not in
    /// a sandbox then, and manifests say so
    #[arg(long = "share", value_name = "DIR")]
    shared: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) platforms: PlatformArgs,
}

impl MachineArgs {
    fn users(&self, store: &Path) -> Result<Users, Error> {
        let users =
            if self.users.is_empty() { nobody().into_iter().collect() } else { self.users.clone() };
        Ok(Users::new(&self.confiner(store)?, &users)?)
    }

    /// How commands are kept apart: by this program, and without a view of keys and store.
    fn confiner(&self, store: &Path) -> Result<Confiner, Error> {
        let whole = |path: &PathBuf| path.canonicalize().map_err(Error::io(path));
        let keys = self.keys.iter().map(PathBuf::from);
        // what is no file is the place of a key elsewhere
        let hidden = keys.filter(|key| key.exists()).chain([store.to_owned()]);
        Ok(Confiner {
            program: "/proc/self/exe".into(),
            hidden: hidden.map(|path| whole(&path)).collect::<Result<_, _>>()?,
            lent: self.lent.iter().map(whole).collect::<Result<_, _>>()?,
            shared: self.shared.iter().map(whole).collect::<Result<_, _>>()?,
        })
    }
}

/// Whoever could read our keys runs no commands with them at hand: root steps down to nobody.
fn nobody() -> Option<User> {
    const NOBODY: u32 = 65_534;
    rustix::process::geteuid().is_root().then_some(User { uid: NOBODY, gid: NOBODY })
}

fn parse_user(text: &str) -> Result<User, String> {
    let ids: Option<(u32, u32)> =
        text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    // the highest number stands for none
    ids.filter(|&(uid, gid)| uid.max(gid) < u32::MAX)
        .map(|(uid, gid)| User { uid, gid })
        .ok_or_else(|| "write two numbers, like 65534:65534".into())
}

/// The machines whose keys are at hand.
pub(super) struct Machines {
    machines: Vec<Machine>,
    pub(super) platforms: Vec<Platform>,
}

/// A machine whose key is at hand.
pub(super) struct Machine {
    pub(super) name: Label,
    pub(super) signer: Box<dyn Signer>,
    /// The certificate of the key and when it ends, where the policy does not list the key.
    pub(super) certificate: Option<(StatementId, Time)>,
}

impl Machine {
    fn open(
        key: &str,
        passphrase: &PassphraseArgs,
        store: &Store,
        policies: &PolicyChain,
    ) -> Result<Self, Error> {
        let signer = open_key(key, passphrase)?;
        let (_, policy) = policies.newest();
        if let Some(owner) = policy.owner(&signer.public_key().id()) {
            return Ok(Self { name: owner.clone(), signer, certificate: None });
        }
        let path = match KeySource::parse(key)? {
            KeySource::File(path) => Some(certificate_beside(&path)).filter(|path| path.exists()),
            _ => None,
        };
        let path = path.ok_or_else(|| {
            Refusal::new(
                Code::EnvKeyUnknown,
                format!("--key {key}"),
                "a key that the policy lists, or with a certificate in KEY.cert.jsonl",
                signer.public_key().to_openssh(),
            )
        })?;
        let within = |refusal: Refusal| refusal.within(&path.display().to_string());
        let (id, certificate) = certificate(&path, signer.public_key().id(), store, policies)
            .map_err(|error| match error {
                Error::Refused(refusal) => within(refusal).into(),
                other => other,
            })?;
        let certificate_ends = Some((id, certificate.until));
        Ok(Self { name: certificate.machine, signer, certificate: certificate_ends })
    }
}

/// Where the certificate of a key in a file is.
pub(super) fn certificate_beside(key: &Path) -> PathBuf {
    key.with_added_extension("cert.jsonl")
}

/// Reads the certificate of a key and puts it into the store, if it holds now.
fn certificate(
    path: &Path,
    key: KeyId,
    store: &Store,
    policies: &PolicyChain,
) -> Result<(StatementId, Certificate), Error> {
    let envelopes = read_bundle(path)?;
    let [envelope] = envelopes.as_slice() else {
        let (expected, found) = ("one certificate", envelopes.len().to_string());
        return Err(Refusal::new(Code::ParseCountExceeded, "", expected, found).into());
    };
    let others = store.get_many(&gate::certificates_of(store, [key])?)?.into_iter().flatten();
    let evidence: Evidence = others.chain([envelope.clone()]).collect();
    let docket = Docket::open(&evidence, policies, now()?, &AllCores);
    let certificate = docket.certificate(envelope.id())?;
    if certificate.key != key {
        let (expected, found) = (key.to_string(), certificate.key.to_string());
        return Err(Refusal::new(Code::WorkerIdentityMismatch, "key", expected, found).into());
    }
    store.add(std::slice::from_ref(envelope))?;
    Ok((envelope.id(), certificate))
}

impl Machines {
    pub(super) fn open(
        args: &MachineArgs,
        store: &Store,
        policies: &PolicyChain,
    ) -> Result<Self, Error> {
        let machine = |key: &String| Machine::open(key, &args.passphrase, store, policies);
        let machines = args.keys.iter().map(machine).collect::<Result<_, _>>()?;
        let platforms = args.platforms.platforms()?;
        Ok(Self { machines, platforms })
    }

    /// The machine at hand that the policy lets perform the step.
    pub(super) fn for_step<'m>(
        &'m self,
        policy: &Policy,
        product: &'m Product,
        step: &Label,
    ) -> Result<&'m Machine, Error> {
        let allowed = &product.step(step)?.perform;
        self.allowed(allowed).first().copied().ok_or_else(|| {
            let names: Vec<&str> = allowed.iter().map(Label::as_str).collect();
            let held: Vec<&str> =
                self.machines.iter().map(|machine| machine.name.as_str()).collect();
            let at = format!("step {step} under policy {}", policy.version);
            Refusal::new(
                Code::WorkerPoolForbidden,
                at,
                format!("a key of {}", names.join(", ")),
                format!("keys of {}", held.join(", ")),
            )
            .into()
        })
    }

    fn allowed(&self, perform: &BTreeSet<Label>) -> Vec<&Machine> {
        self.machines.iter().filter(|machine| perform.contains(&machine.name)).collect()
    }
}

/// This machine's clock for the worker: a time before 1970 reads as its beginning and every document
/// is then from the future, which refuses.
pub(super) fn clock() -> Time {
    now().unwrap_or_else(|_| Time::from_unix(0).unwrap_or_else(|| unreachable!("1970 is a moment")))
}

/// Ends runs early at the first interrupt, so that working directories and claims are cleared away;
/// a second one ends the program at once.
pub(super) fn cancelled() -> Result<Arc<AtomicBool>, Error> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        let status = 128 + signal;
        let twice =
            signal_hook::flag::register_conditional_shutdown(signal, status, Arc::clone(&flag));
        let registered = twice.and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)));
        registered.map_err(Error::io("signals".as_ref()))?;
    }
    Ok(flag)
}

pub(crate) fn run(args: &RunArgs, ui: &Ui) -> Result<(), Error> {
    if args.at.is_some() {
        return Err(Error::Usage(
            "a gate judges by the clock of its machine; --at is for custody verify".into(),
        ));
    }
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let machines = Machines::open(&args.machine, &store, &policies)?;
    let performance = Performance {
        args: &args.machine,
        store: &store,
        policies: &policies,
        machines: &machines,
        users: args.machine.users(&args.store.store)?,
        cancelled: cancelled()?,
        ui,
    };
    match (args.task, args.all) {
        (Some(task), _) => {
            let manifest = performance.one(task, true)?;
            ui.result(&format!("manifest {manifest}"), || {
                Value::object([("ok", Value::Bool(true)), ("manifest", Value::text(manifest))])
            });
            Ok(())
        }
        (None, Some(authorization)) => performance.all(authorization, args.jobs.max(1)),
        (None, None) => Err(Error::Usage("name a task, or --all AUTHORIZATION".into())),
    }
}

struct Performance<'p> {
    args: &'p MachineArgs,
    store: &'p Store,
    policies: &'p PolicyChain,
    machines: &'p Machines,
    users: Users,
    cancelled: Arc<AtomicBool>,
    ui: &'p Ui,
}

impl Performance<'_> {
    fn task(&self, id: StatementId) -> Result<Task, Refusal> {
        statement(self.store, self.policies.keyring(), id, "task", Statement::as_task)
    }

    fn is_shared(&self, task: &Task) -> Result<bool, Error> {
        let product = product_of(self.store, self.policies, task)?;
        Ok(product.step(&task.step)?.is_shared())
    }

    /// Where several machines do the task: the one at hand that has not done its part.
    fn free(&self, id: StatementId, task: &Task) -> Result<Option<&Machine>, Error> {
        let product = product_of(self.store, self.policies, task)?;
        let step = product.step(&task.step)?;
        if !step.is_shared() {
            return Ok(None);
        }
        for machine in self.machines.allowed(&step.perform) {
            let run = self.store.run_of(id, machine.name.as_str())?;
            if run.is_none_or(|run| run.manifest.is_none()) {
                return Ok(Some(machine));
            }
        }
        Ok(None)
    }

    /// Runs the task as every machine at hand that is to do it.
    fn each(&self, id: StatementId) -> Result<StatementId, Error> {
        let task = self.task(id)?;
        let mut manifest = self.one(id, false)?;
        // what one machine made may be enough, as another command did the rest meanwhile
        while self.free(id, &task)?.is_some()
            && gate::agreement(self.store, manifest, now()?).is_err()
        {
            manifest = self.one(id, false)?;
        }
        Ok(manifest)
    }

    fn one(&self, id: StatementId, live: bool) -> Result<StatementId, Error> {
        let task = self.task(id)?;
        let product = product_of(self.store, self.policies, &task)?;
        let (_, policy) = self.policies.newest();
        let machine = match self.free(id, &task)? {
            Some(machine) => machine,
            None => self.machines.for_step(policy, product, &task.step)?,
        };
        let repository = self
            .args
            .repository
            .as_ref()
            .map(|path| path.canonicalize().map_err(Error::io(path)))
            .transpose()?;
        let repository = repository.map(|path| path.display().to_string());
        let turn = self.users.take(&self.cancelled)?;
        let worker = Worker {
            store: self.store,
            signer: &*machine.signer,
            name: &machine.name,
            certificate: machine.certificate,
            work: &self.args.work,
            repository: repository.as_deref(),
            platforms: &self.machines.platforms,
            download_authorities: self.args.download_ca.as_deref(),
            confinement: turn.confinement(),
            engine: self.args.engine.as_ref(),
            clock,
            cancelled: &self.cancelled,
        };
        let mut show = |bytes: &[u8]| {
            if live {
                self.ui.note(&crate::tree::shown_lines(bytes));
            }
        };
        Ok(worker.run(id, &mut show)?)
    }

    /// Runs what is not done yet, each task as soon as its inputs are there. The first failure stops
    /// what has not begun.
    fn all(&self, authorization: StatementId, jobs: usize) -> Result<(), Error> {
        let links = self.store.links_to(&authorization.0, Some(Relation::TaskAuthorization))?;
        let mut waiting: BTreeMap<StatementId, Task> = BTreeMap::new();
        for link in links {
            let task = self.task(link.source)?;
            if task.destination.is_none() {
                waiting.insert(link.source, task);
            }
        }
        if waiting.is_empty() {
            let at = format!("authorization {authorization}");
            return Err(Refusal::new(
                Code::ChainTaskMissing,
                at,
                "tasks that run a command",
                "none: custody plan makes them",
            )
            .into());
        }
        let bar = self.ui.bar(u64::try_from(waiting.len()).unwrap_or_default(), "running tasks");
        let mut done: BTreeMap<StatementId, StatementId> = BTreeMap::new();
        let mut shared = BTreeSet::new();
        for (id, task) in &waiting {
            if self.is_shared(task)? {
                shared.insert(*id);
            }
            let Some(manifest) = self.store.run(*id)?.and_then(|run| run.manifest) else {
                continue;
            };
            if !shared.contains(id)
                || self.free(*id, task)?.is_none()
                || gate::agreement(self.store, manifest, now()?).is_ok()
            {
                done.insert(*id, manifest);
            }
        }
        let before = done.len();
        waiting.retain(|id, _| !done.contains_key(id));
        bar.inc(u64::try_from(before).unwrap_or_default());
        let board = Board::new(waiting, done);
        // where this thread is the only one that hashes, others would wait for it while it waits for them
        let jobs = if rayon::current_thread_index().is_some() { 1 } else { jobs };
        std::thread::scope(|scope| {
            for _ in 1..jobs {
                let helper = std::thread::Builder::new();
                // without it the same is done, and takes longer
                if helper.spawn_scoped(scope, || self.work_off(&board, &bar)).is_err() {
                    break;
                }
            }
            self.work_off(&board, &bar);
        });
        bar.finish_and_clear();
        let done = board.result()?;
        for (_, manifest) in done.iter().filter(|(id, _)| shared.contains(id)) {
            gate::agreement(self.store, *manifest, now()?)?;
        }
        let text = format!("{GOOD}✓{GOOD:#} {} tasks done, {before} of them before", done.len());
        self.ui.result(&text, || {
            Value::list(done.iter().map(|(task, manifest)| {
                Value::object([("task", Value::text(task)), ("manifest", Value::text(manifest))])
            }))
        });
        Ok(())
    }

    fn work_off(&self, board: &Board, bar: &indicatif::ProgressBar) {
        while let Some((id, step)) = board.next(&self.cancelled) {
            self.ui.note(&format!("step {step} …"));
            let result = self.each(id);
            bar.inc(1);
            board.end(id, result);
        }
    }
}

/// What is left to do, shared by the threads that do it.
struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    waiting: BTreeMap<StatementId, Task>,
    running: BTreeSet<StatementId>,
    done: BTreeMap<StatementId, StatementId>,
    fault: Option<Error>,
}

impl Board {
    const fn new(
        waiting: BTreeMap<StatementId, Task>,
        done: BTreeMap<StatementId, StatementId>,
    ) -> Self {
        let state = State { waiting, running: BTreeSet::new(), done, fault: None };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// A task whose inputs are there; waits for one if there will be one. None when there is nothing
    /// more to begin.
    fn next(&self, cancelled: &AtomicBool) -> Option<(StatementId, Label)> {
        let mut state = lock(&self.state);
        loop {
            if state.fault.is_some()
                || cancelled.load(Ordering::Relaxed)
                || state.waiting.is_empty()
            {
                return None;
            }
            if let Some(id) = state.ready() {
                state.running.insert(id);
                return state.waiting.remove(&id).map(|task| (id, task.step));
            }
            if state.running.is_empty() {
                state.fault = Some(
                    Refusal::new(Code::ChainCycle, "the tasks", "one that can start", "none")
                        .into(),
                );
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn end(&self, id: StatementId, result: Result<StatementId, Error>) {
        let mut state = lock(&self.state);
        state.running.remove(&id);
        match result {
            Ok(manifest) => {
                state.done.insert(id, manifest);
            }
            Err(error) => {
                state.fault.get_or_insert(error);
            }
        }
        drop(state);
        self.changed.notify_all();
    }

    fn result(self) -> Result<BTreeMap<StatementId, StatementId>, Error> {
        let state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        match state.fault {
            Some(error) => Err(error),
            None if state.waiting.is_empty() => Ok(state.done),
            // only an interrupt leaves tasks behind
            None => {
                let found = format!("interrupted with {} tasks to go", state.waiting.len());
                let refusal =
                    Refusal::new(Code::GateUnavailable, "run --all", "all tasks done", found);
                Err(refusal.advising("give the same command again: it goes on from here").into())
            }
        }
    }
}

impl State {
    fn ready(&self) -> Option<StatementId> {
        let open = |id: &StatementId| self.waiting.contains_key(id) || self.running.contains(id);
        let blocked = |task: &Task| {
            task.inputs.iter().any(|input| matches!(&input.origin, Origin::Task(id) if open(id)))
        };
        self.waiting.iter().find(|(_, task)| !blocked(task)).map(|(id, _)| *id)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The product that a task belongs to, under the newest policy.
pub(super) fn product_of<'p>(
    store: &Store,
    policies: &'p PolicyChain,
    task: &Task,
) -> Result<&'p Product, Error> {
    let keyring = policies.keyring();
    let authorization = statement(
        store,
        keyring,
        task.authorization,
        "authorization",
        Statement::as_authorization,
    )?;
    let request =
        statement(store, keyring, authorization.request, "request", Statement::as_request)?;
    let (_, policy) = policies.newest();
    Ok(policy.product(&request.release.product)?)
}
