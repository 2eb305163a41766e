//! A release as large as real ones: a few builds, a repack, a signing and a copy per locale, and two
//! phases that people started.

use std::num::NonZeroUsize;

use custody_core::digest::Digests;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::key::PublicKey;
use custody_core::statement::{
    Approver, Artifact, Authorization, Decision, EarlierManifest, Input, InputOrigin, Label,
    Limits, Manifest, Origin, Pipeline, PolicyRef, Request, Signoff, Statement, Task, UsedInput,
    worker_uri,
};

use crate::key::Key;
use crate::{at, label, nonce, policy_envelope, release_id, source};

/// Builds per release; every repack takes one of them.
const BUILDS: usize = 6;
/// Tasks per locale: repack, sign, copy.
const PER_LOCALE: usize = 3;

/// A release in signed statements.
#[derive(Clone, Debug)]
pub struct Large {
    /// The policy.
    pub policy: Envelope,
    /// All statements.
    pub envelopes: Vec<Envelope>,
    /// The manifests of the publishing steps.
    pub published: Vec<StatementId>,
    /// The published files.
    pub files: Vec<Artifact>,
    /// How many artifacts all manifests list.
    pub artifacts: usize,
    keys: Keys,
}

/// Keys are made once: deriving one costs as much as a signature.
#[derive(Clone)]
struct Keys(std::rc::Rc<std::collections::BTreeMap<&'static str, Key>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

const NAMES: [&str; 9] =
    ["alice", "bob", "carol", "desk", "scheduler", "builder", "repacker", "signer", "publisher"];

struct Step {
    name: &'static str,
    phase: &'static str,
    machine: &'static str,
    from: &'static [&'static str],
}

const fn step(
    name: &'static str,
    phase: &'static str,
    machine: &'static str,
    from: &'static [&'static str],
) -> Step {
    Step { name, phase, machine, from }
}

const RELEASE: [Step; 4] = [
    step("build", "promote", "builder", &[]),
    step("repack", "promote", "repacker", &["build"]),
    step("sign", "promote", "signer", &["repack"]),
    step("publish", "ship", "publisher", &["sign"]),
];

const LINE: [Step; 2] = [
    step("build", "promote", "builder", &[]),
    step("repack", "promote", "repacker", &["build", "repack"]),
];

fn policy_text(keys: &Keys, names: &[&str], phases: &[(&str, &str)], steps: &[Step]) -> String {
    let key = |name: &str| keys.0[name].public.to_openssh();
    let mut text = String::from(
        "policy = \"https://custody.dev/policy/v1\"\nversion = 1\nexpires = \"2030-01-01T00:00:00Z\"\n\
         instance = \"production\"\nclock-skew = \"5m\"\n\n[root]\npeople = [\"alice\", \"bob\", \"carol\"]\nthreshold = 2\n\n",
    );
    for name in names {
        let kind = if keys.0[*name].is_person { "people" } else { "machines" };
        text += &format!("[{kind}.{name}]\nkeys = [{{ key = \"{}\" }}]\n", key(name));
    }
    text += r#"
[roles.releng]
members = ["alice", "bob", "carol"]

[products.hello]
source = "https://git.example.org/hello"
channels = ["release"]
desk = ["desk"]
propose = ["releng"]
resolve = ["releng"]
"#;
    for (phase, after) in phases {
        text += &format!(
            "\n[products.hello.phases.{phase}]\napprove = [{{ role = \"releng\", count = 2 }}]\n\
             proposer-counts = false\nsign-off-max-age = \"1d\"\nafter = {after}\n"
        );
    }
    for Step { name: step, phase, machine, from } in steps {
        let (source, last) = (from.is_empty(), *step == "publish");
        let inputs: Vec<String> = from
            .iter()
            .map(|from| format!("{{ step = \"{from}\", release = \"same\" }}"))
            .collect();
        let inputs = format!("[{}]", inputs.join(", "));
        let destinations = if last { "destinations = [\"s3://releases/hello/\"]\n" } else { "" };
        text += &format!(
            "\n[products.hello.steps.{step}]\nphase = \"{phase}\"\nperform = [\"{machine}\"]\nschedule = [\"scheduler\"]\n\
             source = {source}\ninputs = {inputs}\noutputs = [\"*\"]\nnetwork = {last}\nverification = \"full\"\n\
             irrevocable = {last}\n{destinations}max-age = \"1d\"\nreceipts = \"none\"\n"
        );
    }
    text
}

struct Made {
    task: StatementId,
    manifest: StatementId,
    files: Vec<Artifact>,
}

impl Large {
    /// A release of about so many tasks, each with so many artifacts.
    pub fn of(tasks: usize, files: NonZeroUsize) -> Self {
        let phases = [("promote", "[]"), ("ship", "[\"promote\"]")];
        let mut large = Self::under(|keys| policy_text(keys, &NAMES, &phases, &RELEASE));
        let locales = tasks.saturating_sub(BUILDS).div_ceil(PER_LOCALE).max(1);
        let promote = large.authorize("promote", 0, Vec::new());
        let builds: Vec<Made> =
            (0..BUILDS).map(|n| large.step("build", n, promote, 300, None, files.get())).collect();
        let mut signed = Vec::new();
        for locale in 0..locales {
            let build = &builds[locale % BUILDS];
            let repack = large.step("repack", locale, promote, 400, Some(build), files.get());
            signed.push(large.step("sign", locale, promote, 500, Some(&repack), files.get()));
        }
        let builds_on = signed
            .iter()
            .map(|made| EarlierManifest {
                step: label("sign"),
                manifest: made.manifest,
                artifacts: made.files.len().try_into().unwrap(),
                bytes: made.files.iter().map(|file| file.size).sum(),
            })
            .collect();
        let ship = large.authorize("ship", 1_000, builds_on);
        for (locale, made) in signed.iter().enumerate() {
            let published = large.step("publish", locale, ship, 1_300, Some(made), files.get());
            large.published.push(published.manifest);
            large.files.extend(published.files);
        }
        large
    }

    /// A line of so many tasks, each of which takes all of so many artifacts of the one before.
    pub fn line(tasks: usize, files: NonZeroUsize) -> Self {
        let names: Vec<&str> =
            NAMES.into_iter().filter(|name| !matches!(*name, "signer" | "publisher")).collect();
        let mut large = Self::under(|keys| policy_text(keys, &names, &[("promote", "[]")], &LINE));
        let promote = large.authorize("promote", 0, Vec::new());
        let mut made = large.step("build", 0, promote, 300, None, files.get());
        for number in 1..tasks {
            made = large.step("repack", number, promote, 300, Some(&made), files.get());
        }
        large.files = made.files;
        large
    }

    fn under(policy: impl FnOnce(&Keys) -> String) -> Self {
        let keys = Keys(std::rc::Rc::new(NAMES.map(|name| (name, Key::of(name))).into()));
        Self {
            policy: policy_envelope(&policy(&keys), &["alice", "bob"]),
            envelopes: Vec::new(),
            published: Vec::new(),
            files: Vec::new(),
            artifacts: 0,
            keys,
        }
    }

    /// All public keys.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.keys.0.values().map(|key| key.public.clone()).collect()
    }

    fn add(&mut self, statement: impl Into<Statement>, by: &str) -> StatementId {
        let mut envelope = Envelope::unsigned::<Statement>(statement.into().to_json().into_bytes());
        let signature = self.keys.0[by].signature(&envelope);
        envelope.add_signature(signature);
        let id = envelope.id();
        self.envelopes.push(envelope);
        id
    }

    fn content(step: &str, number: usize, file: usize) -> String {
        format!("file {file} that {step} {number} made")
    }

    /// What the first published file holds.
    pub fn first_content() -> String {
        Self::content("sign", 0, 0)
    }

    fn authorize(
        &mut self,
        phase: &str,
        start: u64,
        builds_on: Vec<EarlierManifest>,
    ) -> StatementId {
        let request = Request {
            release: release_id("1.1.0"),
            phase: label(phase),
            source: source("new"),
            pipeline: Pipeline {
                path: "pipeline.toml".parse().unwrap(),
                sha256: Sha256::of(b"pipeline"),
            },
            policy: PolicyRef { version: 1, id: self.policy.id() },
            builds_on,
            parameters: Vec::new(),
            created: at(start),
            expires: at(start + 80_000),
            nonce: nonce(phase),
        };
        let id = self.add(request.clone(), "alice");
        let mut approvers = Vec::new();
        for person in ["bob", "carol"] {
            let (decision, role, when) = (Decision::Approve, label("releng"), at(start + 100));
            let signoff = Signoff::of(&request, id, decision, label(person), role, when);
            let signoff = self.add(signoff, person);
            approvers.push(Approver { person: label(person), role: label("releng"), signoff });
        }
        let (not_before, expires) = (at(start + 200), at(start + 80_000));
        self.add(Authorization { request: id, approvers, not_before, expires }, "desk")
    }

    fn step(
        &mut self,
        step: &str,
        number: usize,
        authorization: StatementId,
        start: u64,
        from: Option<&Made>,
        files: usize,
    ) -> Made {
        let last = step == "publish";
        let step_label: Label = label(step);
        let origin = |made: &Made| {
            if last { Origin::Manifest(made.manifest) } else { Origin::Task(made.task) }
        };
        let task = Task {
            authorization,
            step: step_label.clone(),
            creator: "scheduler@hello".into(),
            command: if last { Vec::new() } else { vec![format!("scripts/{step}.sh")] },
            image: None,
            limits: Limits::default(),
            destination: last.then(|| format!("s3://releases/hello/1.1.0/{number}")),
            variables: vec![("LOCALE".into(), format!("l{number}"))],
            network: last,
            downloads: None,
            inputs: from
                .map(|made| Input {
                    origin: origin(made),
                    directory: "from".parse().unwrap(),
                    patterns: vec!["*".parse().unwrap()],
                })
                .into_iter()
                .collect(),
            source: (step == "build").then(|| source("new")),
            externals: Vec::new(),
            outputs: vec!["*".parse().unwrap()],
            sha512: false,
            created: at(start),
            deadline: at(start + 7_200),
            nonce: nonce(&format!("{step}/{number}")),
        };
        let task_id = self.add(task.clone(), "scheduler");
        let made = |file: usize| {
            let content = Self::content(step, number, file);
            Artifact {
                name: format!("target-{number}-{file}.tar.xz").parse().unwrap(),
                digests: Digests::from(Sha256::of(content.as_bytes())),
                size: u64::try_from(content.len()).unwrap(),
            }
        };
        let artifacts: Vec<Artifact> = match from {
            Some(from) if last => from.files.clone(),
            _ => (0..files).map(made).collect(),
        };
        let inputs = from.into_iter().flat_map(|from| {
            let origin = InputOrigin::Manifest(from.manifest);
            from.files
                .iter()
                .map(move |file| UsedInput { artifact: file.clone(), origin: origin.clone() })
        });
        self.artifacts += artifacts.len();
        let machine = machine(step);
        let manifest = Manifest {
            artifacts: artifacts.clone(),
            task: task_id,
            step: step_label,
            command: task.command,
            destination: task.destination,
            creator: task.creator,
            environment: vec![("os".into(), "linux".into())],
            attestations: Vec::new(),
            enrolment: None,
            agreeing: Vec::new(),
            signed_source: None,
            submodules: Vec::new(),
            image: None,
            source: task.source,
            upstream: from.iter().map(|from| from.manifest).collect(),
            inputs: inputs.collect(),
            builder: worker_uri(machine),
            invocation: format!("run of {step} {number}"),
            started: at(start + 10),
            finished: at(start + 60),
            log: None,
        };
        let manifest = self.add(manifest, machine);
        Made { task: task_id, manifest, files: artifacts }
    }
}

fn machine(step: &str) -> &'static str {
    match step {
        "build" => "builder",
        "repack" => "repacker",
        "sign" => "signer",
        _ => "publisher",
    }
}
