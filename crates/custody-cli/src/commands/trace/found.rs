//! What a trace found, sorted by what matters first.

use std::collections::{BTreeMap, BTreeSet};

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Keyring, Payload as _, PolicyText, Signer, StatementId};
use custody_core::json::Value;
use custody_core::key::KeyId;
use custody_core::statement::{Artifact, Label, Manifest, Stage, Statement, Task};
use custody_core::time::Time;
use custody_run::gate;
use custody_store::{Because, Descendant, Filter, Kind, Relation, Store};
use custody_verify::PolicyChain;

use super::roots::{Roots, claimed};
use crate::error::Error;
use crate::machine;

/// One statement.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: StatementId,
    pub(super) kind: &'static str,
    pub(super) title: String,
    pub(super) release: String,
    /// Where it put files for users.
    pub(super) place: Option<String>,
    /// When it was made, as it says itself.
    pub(super) time: Time,
    pub(super) because: String,
    /// What it says of its machine.
    pub(super) machine: Option<String>,
    /// Whether a key signed it that the pinned policies list, or that was enrolled. Otherwise anybody may have made it.
    pub(super) verified: bool,
    /// By whom.
    pub(super) signed: String,
    pub(super) files: Vec<File>,
}

/// A file that a statement lists as made.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) name: String,
    pub(super) sha256: Sha256,
    size: u64,
    /// Whether its bytes are among what was traced, or were made from it. What was published beside
    /// such a file and came from elsewhere is not.
    pub(super) affected: bool,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// What users got, or may have got.
    pub(super) published: Vec<Row>,
    /// Manifests, by release and step.
    pub(super) made: BTreeMap<(String, String), Vec<Row>>,
    /// Tasks without a result.
    pub(super) open: Vec<Row>,
    /// All else, by kind.
    pub(super) others: BTreeMap<&'static str, Vec<Row>>,
}

impl Found {
    pub(super) fn of(
        store: &Store,
        policies: &PolicyChain,
        descent: &[Descendant],
        roots: &Roots,
    ) -> Result<Self, Error> {
        let mut desk = Desk::of(store, policies, descent, roots)?;
        let mut found = Self::default();
        for descendant in descent {
            let row = desk.row(descendant)?;
            let statement = parsed(&descendant.envelope);
            match &statement {
                Some(Statement::Manifest(manifest)) if manifest.destination.is_some() => {
                    found.published.push(row);
                }
                Some(Statement::Manifest(manifest)) => {
                    let key = (row.release.clone(), manifest.step.to_string());
                    found.made.entry(key).or_default().push(row);
                }
                // an act that was announced may have reached users, also where nothing else says so
                Some(Statement::Intent(intent)) if !desk.published.contains(&intent.task) => {
                    found.published.push(row);
                }
                Some(Statement::Task(_)) if !desk.done.contains(&descendant.envelope.id()) => {
                    found.open.push(row);
                }
                _ => found.others.entry(row.kind).or_default().push(row),
            }
        }
        Ok(found)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        let made = self.made.values().chain(self.others.values()).flatten();
        self.published.iter().chain(made).chain(&self.open)
    }
}

impl Row {
    pub(super) fn to_json(&self) -> Value<'static> {
        let file = |file: &File| {
            Value::object([
                ("name", Value::text(&file.name)),
                ("sha256", Value::text(file.sha256)),
                ("size", Value::Integer(file.size)),
                ("affected", Value::Bool(file.affected)),
            ])
        };
        Value::object([
            ("id", Value::text(self.id)),
            ("kind", Value::text(self.kind)),
            ("title", Value::text(&self.title)),
            ("release", Value::text(&self.release)),
            ("claimedTime", Value::text(self.time)),
            ("because", Value::text(&self.because)),
            ("verified", Value::Bool(self.verified)),
            ("signed", Value::text(&self.signed)),
        ])
        .with("machine", self.machine.as_ref().map(Value::text))
        .with("destination", self.place.as_ref().map(Value::text))
        .with("files", Some(Value::list(self.files.iter().map(file))))
    }
}

fn parsed(envelope: &Envelope) -> Option<Statement> {
    Statement::parse(envelope.unverified_payload()).ok()
}

/// What is needed to describe a row.
struct Desk<'s> {
    store: &'s Store,
    policies: &'s PolicyChain,
    keyring: Keyring,
    /// The machines of keys that were enrolled.
    enrolled: BTreeMap<KeyId, Label>,
    roots: &'s Roots,
    /// The tasks that have a result which a known key signed: a claim must not hide that a task is
    /// still to be stopped.
    done: BTreeSet<StatementId>,
    /// The tasks of the publications that are shown anyway.
    published: BTreeSet<StatementId>,
    /// The bytes that were traced, or made by a step that did not only publish.
    affected: BTreeSet<Sha256>,
    releases: BTreeMap<StatementId, String>,
}

impl<'s> Desk<'s> {
    fn of(
        store: &'s Store,
        policies: &'s PolicyChain,
        descent: &[Descendant],
        roots: &'s Roots,
    ) -> Result<Self, Error> {
        let keyring = gate::keyring(store, policies)?;
        let certificates =
            store.list(Filter { kind: Some(Kind::Enrolment), ..Filter::default() })?;
        let enrolled = certificates.iter().filter_map(|envelope| {
            let signed = envelope.open::<Statement>(policies.keyring()).ok()?;
            let enrolment = signed.unverified().as_enrolment()?;
            Some((enrolment.key.id(), enrolment.machine.clone()))
        });
        let (mut done, mut published) = (BTreeSet::new(), BTreeSet::new());
        let mut affected = roots.digests.clone();
        for descendant in descent {
            let Some(Statement::Manifest(manifest)) = parsed(&descendant.envelope) else {
                continue;
            };
            let is_root = roots.statements.contains(&descendant.envelope.id());
            if manifest.destination.is_none() || is_root {
                affected.extend(manifest.artifacts.iter().map(|made| made.digests.sha256));
            }
            if manifest.destination.is_some() {
                published.insert(manifest.task);
            }
            if descendant.envelope.open::<Statement>(&keyring).is_ok() {
                done.insert(manifest.task);
            }
        }
        let enrolled = enrolled.collect();
        let releases = BTreeMap::new();
        Ok(Self { store, policies, keyring, enrolled, roots, done, published, affected, releases })
    }

    fn row(&mut self, descendant: &Descendant) -> Result<Row, Error> {
        let envelope = &descendant.envelope;
        let (verified, signed) = self.signed(envelope);
        let statement = parsed(envelope);
        let mut row = Row {
            id: envelope.id(),
            kind: match &statement {
                Some(statement) => statement.kind(),
                None if envelope.payload_type() == PolicyText::TYPE => "policy",
                None => "document of another kind",
            },
            title: String::new(),
            release: String::new(),
            place: None,
            time: statement.as_ref().map_or(Time::EPOCH, claimed),
            because: because(descendant.because),
            machine: statement.as_ref().and_then(Statement::as_manifest).and_then(machine::claimed),
            verified,
            signed,
            files: Vec::new(),
        };
        row.title = row.kind.into();
        if self.roots.statements.contains(&row.id) {
            row.because = "it is what was asked about".into();
        }
        match statement {
            Some(Statement::Manifest(manifest)) => self.manifest(&mut row, &manifest)?,
            Some(Statement::Task(task)) => {
                row.title = format!("task of step {}", task.step);
                row.release = self.release(task.authorization)?;
            }
            Some(Statement::Intent(intent)) => {
                let what = match intent.stage {
                    Stage::Announced => "publishing was announced",
                    Stage::Done => "publishing was done",
                };
                row.title = what.into();
                row.place = Some(intent.destination);
                row.files = self.files(&intent.artifacts);
            }
            Some(Statement::Request(request)) => {
                row.title = format!("request of phase {}", request.phase);
                row.release = request.release.to_string();
            }
            Some(Statement::Enrolment(enrolment)) => {
                row.title = format!("enrolment of machine {}", enrolment.machine);
            }
            Some(Statement::Signoff(signoff)) => {
                row.title = format!("{} by {}", signoff.decision.word(), signoff.person);
                row.release = signoff.release.to_string();
            }
            _ => {}
        }
        if !row.release.is_empty() && row.kind != "manifest" {
            row.title = format!("{}, {}", row.title, row.release);
        }
        Ok(row)
    }

    fn manifest(&mut self, row: &mut Row, manifest: &Manifest) -> Result<(), Error> {
        let task = self.store.get(manifest.task)?.and_then(|envelope| parsed(&envelope));
        let authorization =
            task.as_ref().and_then(Statement::as_task).map(|task: &Task| task.authorization);
        row.release = authorization.map(|id| self.release(id)).transpose()?.unwrap_or_default();
        row.title = format!("step {}", manifest.step);
        if manifest.destination.is_some() {
            row.title = format!("{}, step {}", row.release, manifest.step);
        }
        row.place.clone_from(&manifest.destination);
        row.files = self.files(&manifest.artifacts);
        Ok(())
    }

    fn files(&self, artifacts: &[Artifact]) -> Vec<File> {
        let file = |artifact: &Artifact| File {
            name: artifact.name.to_string(),
            sha256: artifact.digests.sha256,
            size: artifact.size,
            affected: self.affected.contains(&artifact.digests.sha256),
        };
        artifacts.iter().map(file).collect()
    }

    /// The release of an authorization, as it says.
    fn release(&mut self, authorization: StatementId) -> Result<String, Error> {
        if let Some(known) = self.releases.get(&authorization) {
            return Ok(known.clone());
        }
        let get = |id| Ok::<_, Error>(self.store.get(id)?.and_then(|envelope| parsed(&envelope)));
        let request = match get(authorization)? {
            Some(Statement::Authorization(found)) => get(found.request)?,
            _ => None,
        };
        let release = match request {
            Some(Statement::Request(request)) => request.release.to_string(),
            _ => "an unknown release".into(),
        };
        self.releases.insert(authorization, release.clone());
        Ok(release)
    }

    /// Whether a key of the pinned policies signed it, and whose.
    fn signed(&self, envelope: &Envelope) -> (bool, String) {
        if envelope.payload_type() == PolicyText::TYPE {
            return match envelope.open::<PolicyText>(self.policies.keyring()) {
                Ok(signed) => (true, self.whose(signed.signers(), None)),
                Err(refusal) => (false, refusal.code.meaning().into()),
            };
        }
        match envelope.open::<Statement>(&self.keyring) {
            Ok(signed) => (true, self.whose(signed.signers(), Some(signed.unverified()))),
            Err(refusal) => (false, refusal.code.meaning().into()),
        }
    }

    fn whose(&self, signers: &[Signer], statement: Option<&Statement>) -> String {
        let whose = |signer: &Signer| {
            let policies: Vec<_> = self.policies.iter().map(|(_, policy)| policy).collect();
            let owner = policies.iter().rev().find_map(|policy| policy.owner(&signer.key));
            let owner = owner.or_else(|| self.enrolled.get(&signer.key));
            let name = owner.map_or_else(|| signer.key.short(), Label::to_string);
            let revoked = self.policies.revocation(&signer.key).is_some();
            let strange = owner.zip(statement).is_some_and(|(owner, said)| !self.may(said, owner));
            let remark = match (revoked, strange) {
                (true, _) => ", whose key is revoked",
                (false, true) => ", who may not do this",
                (false, false) => "",
            };
            format!("signed by {name}{remark}")
        };
        signers.iter().map(whose).collect::<Vec<_>>().join("; ")
    }

    /// Whether some policy lets the principal do such a thing at all.
    fn may(&self, statement: &Statement, owner: &Label) -> bool {
        let mut products = self.policies.iter().flat_map(|(_, policy)| policy.products.values());
        match statement {
            Statement::Manifest(manifest) => products.any(|product| {
                product.steps.get(&manifest.step).is_some_and(|step| step.perform.contains(owner))
            }),
            Statement::Task(task) => products.any(|product| {
                product.steps.get(&task.step).is_some_and(|step| step.schedule.contains(owner))
            }),
            Statement::Authorization(_) => products.any(|product| product.desk.contains(owner)),
            Statement::Request(_) => products.any(|product| product.propose.contains(owner)),
            _ => true,
        }
    }
}

fn because(because: Because) -> String {
    match because {
        Because::Asked => "it is what was asked about".into(),
        Because::Names(relation, id) => format!("{} {}", named(relation), id.short()),
        Because::Lists(Relation::Product, digest) => format!("it made the file {}", digest.short()),
        Because::Lists(Relation::Verified, digest) => {
            format!("it verified the file {}", digest.short())
        }
        Because::Lists(_, digest) => format!("it used the file {}", digest.short()),
        Because::IsFile(digest) => {
            format!("a decision step made it as the file {}", digest.short())
        }
    }
}

const fn named(relation: Relation) -> &'static str {
    match relation {
        Relation::ManifestManifest => "it used files of manifest",
        Relation::ManifestTask | Relation::IntentTask | Relation::ResolutionTask => {
            "it was done for task"
        }
        Relation::ManifestEnrolment => "its key has certificate",
        Relation::TaskTask => "it takes files of task",
        Relation::TaskManifest => "it takes files of manifest",
        Relation::RequestManifest => "it builds on manifest",
        Relation::TaskAuthorization => "it acts under authorization",
        Relation::AuthorizationRequest => "it allows request",
        Relation::AuthorizationSignoff => "it counts sign-off",
        _ => "it names",
    }
}
