//! A whole honest world in memory: people and machines with keys, a signed policy, and two releases
//! of one product of which the newer makes a partial update from the older.
//!
//! Every statement has a name, like `new/sign/task` or `old/ship/signoff/bob`. A test changes any one
//! of them before it is signed, lets somebody else sign it, or adds and drops envelopes afterwards;
//! everything downstream follows.

#![allow(
    clippy::unused_self,
    clippy::similar_names,
    missing_docs,
    missing_debug_implementations,
    clippy::missing_panics_doc,
    clippy::return_self_not_must_use,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "only tests use it, and a test may fail loudly"
)]

use std::collections::BTreeMap;
use std::rc::Rc;

use custody_core::Code;
use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{
    Approver, Artifact, Authorization, Decision, EarlierManifest, External, Input, InputOrigin,
    Intent, Label, Limits, Manifest, Origin, Pipeline, PolicyRef, ReleaseId, Request, Resolution,
    Resolve, Revision, Signoff, Source, Stage, Statement, Summary, Task, UsedInput, gate_uri,
    worker_uri,
};
use custody_core::time::Time;
use custody_verify::{
    Evidence, Expectation, Floor, PolicyChain, Question, Report, Subject, verify,
};

pub mod git;
mod key;
mod large;
mod policy;

pub use key::{Key, signed};
pub use large::Large;
pub use policy::{next_version, policy_envelope, policy_text};

/// The moment of `seconds` after the world began.
pub fn at(seconds: u64) -> Time {
    Time::from_unix(1_772_323_200 + seconds).unwrap()
}

pub fn label(text: &str) -> Label {
    text.parse().unwrap()
}

type Edit = Rc<dyn Fn(&mut Statement)>;
type Rewrite = Rc<dyn Fn(String) -> String>;

/// What is to differ from the honest world.
#[derive(Clone, Default)]
pub struct Builder {
    edits: Vec<(String, Edit)>,
    rewrites: Vec<(String, Rewrite)>,
    signers: BTreeMap<String, Vec<String>>,
    policy: Option<String>,
    also: Vec<(String, String)>,
}

macro_rules! typed_edits {
    ($($method:ident $kind:ident;)+) => {
        $(
            pub fn $method(self, name: &str, edit: impl Fn(&mut $kind) + 'static) -> Self {
                self.edit(name, move |statement| match statement {
                    Statement::$kind(inner) => edit(inner),
                    other => panic!("a {}", other.kind()),
                })
            }
        )+
    };
}

impl Builder {
    /// Changes a statement before it is signed.
    pub fn edit(mut self, name: &str, edit: impl Fn(&mut Statement) + 'static) -> Self {
        self.edits.push((name.into(), Rc::new(edit)));
        self
    }

    typed_edits! {
        request Request;
        signoff Signoff;
        authorization Authorization;
        task Task;
        manifest Manifest;
    }

    /// Changes a statement's JSON before it is signed.
    pub fn json(mut self, name: &str, rewrite: impl Fn(String) -> String + 'static) -> Self {
        self.rewrites.push((name.into(), Rc::new(rewrite)));
        self
    }

    /// Lets others sign a statement.
    pub fn signed_by(mut self, name: &str, by: &[&str]) -> Self {
        self.signers.insert(name.into(), by.iter().map(ToString::to_string).collect());
        self
    }

    /// Lets another machine do every task of a step too, and make the same. Its manifests are called like
    /// `new/build/manifest/builder-2`.
    pub fn also(mut self, step: &str, machine: &str) -> Self {
        self.also.push((step.into(), machine.into()));
        self
    }

    /// Lets another policy hold from the beginning.
    pub fn policy(mut self, edit: impl Fn(String) -> String) -> Self {
        self.policy = Some(edit(self.policy.unwrap_or_else(policy_text)));
        self
    }

    pub fn build(self) -> World {
        let text = self.policy.clone().unwrap_or_else(policy_text);
        let policy = policy_envelope(&text, &["alice", "bob"]);
        let mut world = World {
            pin: policy.id(),
            policies: vec![policy],
            envelopes: BTreeMap::new(),
            statements: BTreeMap::new(),
            names: BTreeMap::new(),
            floor: None,
            now: at(300_000),
            builder: self,
        };
        world.release("old", "1.0.0", 0, false);
        world.release("new", "1.1.0", 100_000, true);
        world
    }
}

/// What the builder made.
#[derive(Clone)]
pub struct World {
    pub pin: StatementId,
    pub policies: Vec<Envelope>,
    pub envelopes: BTreeMap<String, Envelope>,
    pub statements: BTreeMap<String, Statement>,
    names: BTreeMap<StatementId, String>,
    pub floor: Option<Floor>,
    /// When a file is asked about.
    pub now: Time,
    builder: Builder,
}

pub fn honest() -> World {
    Builder::default().build()
}

pub fn change() -> Builder {
    Builder::default()
}

pub fn artifact(name: &str, content: &str) -> Artifact {
    Artifact {
        name: name.parse().unwrap(),
        digests: Digests::from(Sha256::of(content.as_bytes())),
        size: content.len() as u64,
    }
}

pub fn source(prefix: &str) -> Source {
    let digit = if prefix == "old" { "1" } else { "2" };
    Source {
        uri: "https://git.example.org/hello".into(),
        revision: Revision::Git(digit.repeat(40)),
    }
}

pub fn release_id(version: &str) -> ReleaseId {
    ReleaseId {
        product: label("hello"),
        version: label(version),
        channel: label("release"),
        instance: label("production"),
    }
}

pub fn nonce(text: &str) -> String {
    Sha256::of(text.as_bytes()).to_string()[..32].to_string()
}

/// What a published file of this release holds.
pub fn content(prefix: &str, file: &str) -> String {
    format!("{file} of {prefix}")
}

impl World {
    pub fn id(&self, name: &str) -> StatementId {
        self.envelopes.get(name).unwrap_or_else(|| panic!("no {name}")).id()
    }

    pub fn get_task(&self, name: &str) -> Task {
        self.statements[name].as_task().unwrap().clone()
    }

    pub fn get_manifest(&self, name: &str) -> Manifest {
        self.statements[name].as_manifest().unwrap().clone()
    }

    pub fn get_request(&self, name: &str) -> Request {
        self.statements[name].as_request().unwrap().clone()
    }

    pub fn get_signoff(&self, name: &str) -> Signoff {
        self.statements[name].as_signoff().unwrap().clone()
    }

    /// Adds a statement under a name, changed and signed as the builder was told.
    pub fn add(&mut self, name: &str, statement: impl Into<Statement>, by: &[&str]) -> StatementId {
        let mut statement = statement.into();
        for (_, edit) in self.builder.edits.iter().filter(|(known, _)| known == name) {
            edit(&mut statement);
        }
        let mut json = statement.to_json();
        for (_, rewrite) in self.builder.rewrites.iter().filter(|(known, _)| known == name) {
            json = rewrite(json);
        }
        let others: Option<Vec<&str>> =
            self.builder.signers.get(name).map(|by| by.iter().map(String::as_str).collect());
        let envelope = signed(
            Envelope::unsigned::<Statement>(json.into_bytes()),
            others.as_deref().unwrap_or(by),
        );
        let id = envelope.id();
        self.names.insert(id, name.into());
        self.envelopes.insert(name.into(), envelope);
        self.statements.insert(name.into(), statement);
        id
    }

    pub fn drop(&mut self, name: &str) {
        self.envelopes.remove(name).unwrap_or_else(|| panic!("no {name}"));
    }

    fn phase(
        &mut self,
        prefix: &str,
        version: &str,
        phase: &str,
        start: u64,
        builds_on: Vec<EarlierManifest>,
    ) -> StatementId {
        let name = |what: &str| format!("{prefix}/{phase}/{what}");
        let request = Request {
            release: release_id(version),
            phase: label(phase),
            source: source(prefix),
            pipeline: Pipeline {
                path: "pipeline.toml".parse().unwrap(),
                sha256: Sha256::of(b"pipeline"),
            },
            policy: PolicyRef { version: 1, id: self.pin },
            builds_on,
            parameters: vec![("locale".into(), "en".into())],
            created: at(start),
            expires: at(start + 80_000),
            nonce: nonce(&name("request")),
        };
        let id = self.add(&name("request"), request, &["alice"]);
        let request = self.get_request(&name("request"));
        let mut approvers = Vec::new();
        for person in ["bob", "carol"] {
            let signoff = Signoff::of(
                &request,
                id,
                Decision::Approve,
                label(person),
                label("releng"),
                at(start + 100),
            );
            let signoff_name = name(&format!("signoff/{person}"));
            let signoff_id = self.add(&signoff_name, signoff, &[person]);
            let said = self.get_signoff(&signoff_name);
            approvers.push(Approver { person: said.person, role: said.role, signoff: signoff_id });
        }
        let authorization = Authorization {
            request: id,
            approvers,
            not_before: at(start + 200),
            expires: at(start + 80_000),
        };
        self.add(&name("authorization"), authorization, &["desk"])
    }

    /// A task of the step as the scheduler makes it.
    pub fn task_of(
        &self,
        prefix: &str,
        step: &str,
        authorization: StatementId,
        created: u64,
    ) -> Task {
        Task {
            authorization,
            step: label(step),
            creator: "scheduler@hello".into(),
            command: vec![format!("scripts/{step}.sh")],
            image: None,
            limits: Limits::default(),
            destination: None,
            variables: vec![("LANG".into(), "C".into())],
            network: false,
            downloads: None,
            inputs: Vec::new(),
            source: None,
            externals: Vec::new(),
            outputs: vec!["**".parse().unwrap()],
            sha512: false,
            created: at(created),
            deadline: at(created + 7_200),
            nonce: nonce(&format!("{prefix}/{step}")),
        }
    }

    pub fn input(origin: Origin, directory: &str, pattern: &str) -> Input {
        Input {
            origin,
            directory: directory.parse().unwrap(),
            patterns: vec![pattern.parse().unwrap()],
        }
    }

    /// Runs a task as an honest worker does: takes what it asks for and makes these files.
    pub fn run(
        &self,
        task_name: &str,
        machine: &str,
        started: u64,
        made: Vec<Artifact>,
    ) -> Manifest {
        let task = self.get_task(task_name);
        let (mut upstream, mut inputs) = (Vec::new(), Vec::new());
        for input in &task.inputs {
            let id = match input.origin {
                Origin::Manifest(id) => id,
                Origin::Task(task) => match self.result_of(task) {
                    Some(id) => id,
                    None => continue,
                },
            };
            let Some(manifest) =
                self.names.get(&id).and_then(|name| self.statements.get(name)?.as_manifest())
            else {
                continue;
            };
            if !upstream.contains(&id) {
                upstream.push(id);
            }
            for artifact in &manifest.artifacts {
                if input.patterns.iter().any(|pattern| pattern.matches(&artifact.name)) {
                    inputs.push(UsedInput {
                        artifact: artifact.clone(),
                        origin: InputOrigin::Manifest(id),
                    });
                }
            }
        }
        for External { artifact, uri } in &task.externals {
            inputs.push(UsedInput {
                artifact: artifact.clone(),
                origin: InputOrigin::External(uri.clone()),
            });
        }
        let agreeing = upstream.iter().filter_map(|id| self.names.get(id)).flat_map(|used| {
            let beside = format!("{used}/");
            let others = self.envelopes.iter().filter(move |(name, _)| name.starts_with(&beside));
            others.map(|(_, envelope)| envelope.id())
        });
        let agreeing = agreeing.collect();
        Manifest {
            artifacts: made,
            task: self.id(task_name),
            step: task.step.clone(),
            command: task.command.clone(),
            destination: task.destination.clone(),
            creator: task.creator.clone(),
            environment: vec![("os".into(), "linux".into())],
            attestations: Vec::new(),
            enrolment: None,
            agreeing,
            signed_source: None,
            submodules: Vec::new(),
            image: None,
            source: task.source.clone(),
            upstream,
            inputs,
            builder: worker_uri(machine),
            invocation: format!("run of {task_name}"),
            started: at(started),
            finished: at(started + 50),
            log: Some(artifact("log.txt", "log")),
        }
    }

    fn result_of(&self, task: StatementId) -> Option<StatementId> {
        let name = self.names.get(&task)?.strip_suffix("task")?;
        self.envelopes.get(&format!("{name}manifest")).map(Envelope::id)
    }

    fn step(
        &mut self,
        prefix: &str,
        task: Task,
        machine: &str,
        started: u64,
        made: &[(&str, &str)],
    ) -> StatementId {
        let name = format!("{prefix}/{}", task.step);
        self.add(&format!("{name}/task"), task, &["scheduler"]);
        let made: Vec<Artifact> =
            made.iter().map(|(path, file)| artifact(path, &content(prefix, file))).collect();
        let others = self.builder.also.clone();
        for (_, other) in others.iter().filter(|(step, _)| name.ends_with(&format!("/{step}"))) {
            let manifest = self.run(&format!("{name}/task"), other, started, made.clone());
            self.add(&format!("{name}/manifest/{other}"), manifest, &[other]);
        }
        let manifest = self.run(&format!("{name}/task"), machine, started, made);
        self.add(&format!("{name}/manifest"), manifest, &[machine])
    }

    fn release(&mut self, prefix: &str, version: &str, start: u64, with_partial: bool) {
        let mut builds_on = Vec::new();
        if with_partial {
            builds_on.push(self.earlier("old/build/manifest"));
        }
        let promote = self.phase(prefix, version, "promote", start, builds_on);
        let t = start + 300;
        let mut build = self.task_of(prefix, "build", promote, t);
        build.source = Some(source(prefix));
        self.step(
            prefix,
            build,
            "builder",
            t + 10,
            &[("dist/hello", "hello"), ("dist/hello.mar", "hello.mar")],
        );
        let build_task = Origin::Task(self.id(&format!("{prefix}/build/task")));
        let mut sign = self.task_of(prefix, "sign", promote, t);
        sign.inputs.push(Self::input(build_task, "build", "dist/*"));
        let mut files =
            vec![("signed/hello", "hello, signed"), ("signed/hello.mar", "hello.mar, signed")];
        if with_partial {
            let mut partial = self.task_of(prefix, "partial", promote, t);
            let old = Origin::Manifest(self.id("old/build/manifest"));
            partial.inputs.push(Self::input(build_task, "new", "dist/hello.mar"));
            partial.inputs.push(Self::input(old, "old", "dist/hello.mar"));
            partial.externals.push(External {
                artifact: artifact("bsdiff", "a tool"),
                uri: "https://tools.example.org/bsdiff".into(),
            });
            self.step(prefix, partial, "packer", t + 100, &[("hello.partial", "partial")]);
            let partial = Origin::Task(self.id(&format!("{prefix}/partial/task")));
            sign.inputs.push(Self::input(partial, "partial", "*.partial"));
            files.push(("signed/hello.partial", "partial, signed"));
        }
        self.step(prefix, sign, "signer", t + 200, &files);

        let extra = self.task_of(prefix, "extra", promote, t);
        let task = Statement::from(extra.clone()).to_json();
        let mut decide = self.task_of(prefix, "decide", promote, t);
        decide.source = Some(source(prefix));
        self.add(&format!("{prefix}/decide/task"), decide, &["scheduler"]);
        let manifest = self.run(
            &format!("{prefix}/decide/task"),
            "decider",
            t + 10,
            vec![artifact("tasks/extra.json", &task)],
        );
        self.add(&format!("{prefix}/decide/manifest"), manifest, &["decider"]);
        self.add(&format!("{prefix}/extra/task"), extra, &["decider"]);
        let manifest = self.run(
            &format!("{prefix}/extra/task"),
            "docs",
            t + 100,
            vec![artifact("extra.txt", &content(prefix, "extra"))],
        );
        self.add(&format!("{prefix}/extra/manifest"), manifest, &["docs"]);

        let signed = self.earlier(&format!("{prefix}/sign/manifest"));
        let ship = self.phase(prefix, version, "ship", start + 1_000, vec![signed]);
        let t = start + 1_300;
        let sign = Origin::Manifest(self.id(&format!("{prefix}/sign/manifest")));
        for (step, machine) in [("smoke", "docs"), ("notes", "docs")] {
            let mut task = self.task_of(prefix, step, ship, t);
            task.inputs.push(Self::input(sign, "signed", "signed/*"));
            let _ = machine;
            self.add(&format!("{prefix}/{step}/task"), task, &["scheduler"]);
        }
        let mut publish = self.task_of(prefix, "publish", ship, t);
        publish.command.clear();
        publish.destination = Some(format!("s3://releases/hello/{version}"));
        publish.network = true;
        publish.inputs.push(Self::input(sign, "signed", "signed/*"));
        let made: Vec<(&str, &str)> =
            files.iter().map(|(path, file)| (path.trim_start_matches("signed/"), *file)).collect();
        self.step(prefix, publish, "publisher", t + 100, &made);
    }

    pub fn earlier(&self, manifest: &str) -> EarlierManifest {
        EarlierManifest::of(self.id(manifest), &self.get_manifest(manifest))
    }

    pub fn evidence(&self) -> Evidence {
        self.envelopes.values().cloned().collect()
    }

    pub fn chain(&self) -> PolicyChain {
        PolicyChain::establish(self.pin, &self.policies, self.floor).unwrap()
    }

    /// Whose envelope this is, for messages.
    pub fn name_of(&self, id: StatementId) -> String {
        self.names.get(&id).cloned().unwrap_or_else(|| id.short())
    }

    pub fn ask(&self, name: &str, bytes: &str) -> Question {
        Question {
            subject: Subject::Artifact {
                name: name.into(),
                digests: Digests::from(Sha256::of(bytes.as_bytes())),
                size: bytes.len() as u64,
            },
            expect: Expectation::of(&release_id("1.1.0")),
        }
    }

    /// Asks where the published file comes from that holds the signed partial update, whose chain
    /// reaches every step and the older release.
    pub fn file(&self) -> Report {
        self.file_from(&self.evidence())
    }

    pub fn file_from(&self, evidence: &Evidence) -> Report {
        verify(
            &self.ask("hello.partial", &content("new", "partial, signed")),
            evidence,
            &self.chain(),
            self.now,
        )
    }

    /// Asks for the file that the decided task makes and nobody publishes.
    pub fn extra_file(&self) -> Report {
        let mut question = self.ask("extra.txt", &content("new", "extra"));
        question.expect.step = Some(label("extra"));
        verify(&question, &self.evidence(), &self.chain(), self.now)
    }

    pub fn gate_question(&self, task: &str) -> Question {
        Question {
            subject: Subject::Task(self.id(task)),
            expect: Expectation::of(&release_id("1.1.0")),
        }
    }

    /// Asks the gate of a task, a minute after the task was made.
    pub fn gate(&self, task: &str) -> Report {
        let now = Time::from_unix(self.get_task(task).created.unix() + 500).unwrap();
        verify(&self.gate_question(task), &self.evidence(), &self.chain(), now)
    }

    /// The world just before the newer release is published.
    pub fn unpublished(mut self) -> Self {
        self.drop("new/publish/manifest");
        self
    }

    pub fn intent(&self, task: &str, stage: Stage, created: u64) -> Intent {
        Intent {
            task: self.id(task),
            stage,
            destination: "s3://releases/hello/1.1.0".into(),
            artifacts: vec![artifact("hello", &content("new", "hello, signed"))],
            created: at(created),
        }
    }

    pub fn resolution(&self, task: &str, resolve: Resolve, person: &str) -> Resolution {
        Resolution {
            task: self.id(task),
            resolve,
            person: label(person),
            reason: "looked at it".into(),
            created: at(101_500),
        }
    }

    pub fn summary(&self, report: &Report) -> Summary {
        report
            .accepted()
            .expect("an accepted gate")
            .summary(&gate_uri(&Key::of("gate").public.id()))
    }

    /// Adds a policy version that the root signs.
    pub fn rotate(&mut self, edit: impl Fn(String) -> String) {
        let next = next_version(self.policies.last().unwrap(), edit);
        self.policies.push(policy_envelope(&next, &["alice", "bob"]));
    }
}

pub fn findings(report: &Report) -> String {
    let lines = report
        .findings()
        .map(|(node, rule, refusal)| format!("\n  {} [{}] {refusal}", node.title, rule.name()));
    lines.collect()
}

#[track_caller]
pub fn assert_accepted(report: &Report) {
    assert!(report.accepted().is_some(), "refused:{}", findings(report));
    assert!(report.codes().is_empty());
}

#[track_caller]
pub fn assert_refused(report: &Report, code: Code) {
    assert!(report.accepted().is_none(), "accepted, where {code} was expected");
    assert!(report.codes().contains(&code), "{code} was expected, but found:{}", findings(report));
}
