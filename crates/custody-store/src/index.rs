//! What a statement is and what it names, as its unverified payload says. For finding only.

use std::collections::BTreeSet;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload, PolicyText, Signature, StatementId};
use custody_core::key::KeyId;
use custody_core::sshsig::SshSignature;
use custody_core::statement::{InputOrigin, Origin, Resolve, Statement};

/// What every policy is said to name, so that all of them are found and counted like what names a
/// statement. No bytes are known to have this digest.
pub const POLICIES: Sha256 = Sha256::from_bytes([0; 32]);

/// What an envelope carries, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Something that Custody cannot read. It is kept all the same.
    Other,
    /// A policy.
    Policy,
    /// A request.
    Request,
    /// A sign-off.
    Signoff,
    /// An authorization.
    Authorization,
    /// A task.
    Task,
    /// A manifest.
    Manifest,
    /// A verification summary.
    Summary,
    /// An intent.
    Intent,
    /// A resolution.
    Resolution,
    /// An enrolment.
    Enrolment,
}

/// How one statement names another statement, an artifact or a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// A sign-off of any decision: the request.
    SignoffRequest = 1,
    /// A manifest: its task.
    ManifestTask = 2,
    /// An intent: its task.
    IntentTask = 3,
    /// A resolution: its task.
    ResolutionTask = 4,
    /// A policy: [`POLICIES`].
    Policy = 5,
    /// A withdrawal: the approval that it ends.
    SignoffWithdraws = 10,
    /// A request: its policy.
    RequestPolicy = 11,
    /// A request: a manifest that it builds on.
    RequestManifest = 12,
    /// An authorization: its request.
    AuthorizationRequest = 13,
    /// An authorization: a sign-off.
    AuthorizationSignoff = 14,
    /// A task: its authorization.
    TaskAuthorization = 15,
    /// A task: one whose products it takes.
    TaskTask = 16,
    /// A task: a manifest whose products it takes.
    TaskManifest = 17,
    /// A manifest: one whose products were used.
    ManifestManifest = 18,
    /// A resolution: the manifest that holds.
    ResolutionManifest = 19,
    /// A summary: its policy.
    SummaryPolicy = 20,
    /// A summary: a statement that its verdict rests on.
    SummaryInput = 21,
    /// A resolution: the intent whose act is taken up again.
    ResolutionIntent = 22,
    /// A manifest: the certificate of the key that signed it.
    ManifestEnrolment = 23,
    /// A manifest: an artifact that was made, by SHA-256.
    Product = 100,
    /// A manifest: an artifact that was used, by SHA-256.
    Input = 101,
    /// A summary: an artifact that was verified, by SHA-256.
    Verified = 102,
    /// Any statement: a key that its signatures claim, by key id.
    Signer = 103,
    /// An enrolment: the key that it is about, by key id.
    EnrolmentKey = 104,
}

/// One statement that names what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    /// How it names it.
    pub relation: Relation,
    /// The statement that does.
    pub source: StatementId,
}

impl Kind {
    /// What the unverified payload says that it is.
    pub fn of(envelope: &Envelope) -> Self {
        describe(envelope).0
    }

    const ALL: [Self; 11] = [
        Self::Other,
        Self::Policy,
        Self::Request,
        Self::Signoff,
        Self::Authorization,
        Self::Task,
        Self::Manifest,
        Self::Summary,
        Self::Intent,
        Self::Resolution,
        Self::Enrolment,
    ];

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    pub(crate) const fn number(self) -> i64 {
        self as i64
    }
}

impl Relation {
    const ALL: [Self; 24] = [
        Self::SignoffRequest,
        Self::ManifestTask,
        Self::IntentTask,
        Self::ResolutionTask,
        Self::Policy,
        Self::SignoffWithdraws,
        Self::RequestPolicy,
        Self::RequestManifest,
        Self::AuthorizationRequest,
        Self::AuthorizationSignoff,
        Self::TaskAuthorization,
        Self::TaskTask,
        Self::TaskManifest,
        Self::ManifestManifest,
        Self::ResolutionManifest,
        Self::ResolutionIntent,
        Self::ManifestEnrolment,
        Self::SummaryPolicy,
        Self::SummaryInput,
        Self::Product,
        Self::Input,
        Self::Verified,
        Self::Signer,
        Self::EnrolmentKey,
    ];

    pub(crate) fn from_number(number: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|relation| relation.number() == number)
    }

    pub(crate) const fn number(self) -> i64 {
        self as i64
    }

    /// Whether it leads to another statement (the partial index in `schema.sql`).
    pub(crate) const fn is_walked(self) -> bool {
        self.number() < 100
    }

    /// Whether a verdict on who names rests on what is named. A request names every manifest that its
    /// phase may build on, thousands of them; a file rests on those that were used, which its manifests
    /// name themselves.
    pub(crate) const fn is_rested_on(self) -> bool {
        !matches!(self, Self::RequestManifest)
    }

    /// Whether everything that names a statement in this way belongs to what is needed to judge it:
    /// refusals, withdrawals, second results and acts in doubt among it.
    pub(crate) const fn is_gathered(self) -> bool {
        self.number() < 10
    }
}

/// What is written into the indexes for one envelope.
pub(crate) fn describe(envelope: &Envelope) -> (Kind, BTreeSet<(Relation, Sha256)>) {
    let (kind, mut named) = match envelope.payload_type() {
        PolicyText::TYPE => (Kind::Policy, BTreeSet::from([(Relation::Policy, POLICIES)])),
        Statement::TYPE => Statement::parse(envelope.unverified_payload())
            .map_or((Kind::Other, BTreeSet::new()), |statement| {
                (kind(&statement), links(&statement))
            }),
        _ => (Kind::Other, BTreeSet::new()),
    };
    named.extend(envelope.signatures().iter().filter_map(signer));
    (kind, named)
}

/// The key that a signature claims. A key id of another form than ours leads nowhere.
pub(crate) fn signer(signature: &Signature) -> Option<(Relation, Sha256)> {
    let claimed = if signature.sig.starts_with(b"SSHSIG") {
        SshSignature::parse(&signature.sig).ok()?.claimed_key().id()
    } else {
        signature.keyid.as_deref()?.parse::<KeyId>().ok()?
    };
    Some((Relation::Signer, claimed.digest()))
}

const fn kind(statement: &Statement) -> Kind {
    match statement {
        Statement::Request(_) => Kind::Request,
        Statement::Signoff(_) => Kind::Signoff,
        Statement::Authorization(_) => Kind::Authorization,
        Statement::Task(_) => Kind::Task,
        Statement::Manifest(_) => Kind::Manifest,
        Statement::Summary(_) => Kind::Summary,
        Statement::Intent(_) => Kind::Intent,
        Statement::Resolution(_) => Kind::Resolution,
        Statement::Enrolment(_) => Kind::Enrolment,
    }
}

fn links(statement: &Statement) -> BTreeSet<(Relation, Sha256)> {
    let one = |relation, id: StatementId| BTreeSet::from([(relation, id.0)]);
    let mut links = match statement {
        Statement::Request(request) => one(Relation::RequestPolicy, request.policy.id),
        Statement::Signoff(signoff) => one(Relation::SignoffRequest, signoff.request),
        Statement::Authorization(authorization) => {
            one(Relation::AuthorizationRequest, authorization.request)
        }
        Statement::Task(task) => one(Relation::TaskAuthorization, task.authorization),
        Statement::Manifest(manifest) => one(Relation::ManifestTask, manifest.task),
        Statement::Summary(summary) => one(Relation::SummaryPolicy, summary.policy),
        Statement::Intent(intent) => one(Relation::IntentTask, intent.task),
        Statement::Resolution(resolution) => one(Relation::ResolutionTask, resolution.task),
        Statement::Enrolment(enrolment) => {
            BTreeSet::from([(Relation::EnrolmentKey, enrolment.key.id().digest())])
        }
    };
    match statement {
        Statement::Request(request) => {
            links.extend(
                request.builds_on.iter().map(|entry| (Relation::RequestManifest, entry.manifest.0)),
            );
        }
        Statement::Signoff(signoff) => {
            links.extend(signoff.withdraws.map(|id| (Relation::SignoffWithdraws, id.0)));
        }
        Statement::Authorization(authorization) => {
            let approvers = authorization.approvers.iter();
            links.extend(
                approvers.map(|approver| (Relation::AuthorizationSignoff, approver.signoff.0)),
            );
        }
        Statement::Task(task) => links.extend(task.inputs.iter().map(|input| match input.origin {
            Origin::Task(id) => (Relation::TaskTask, id.0),
            Origin::Manifest(id) => (Relation::TaskManifest, id.0),
        })),
        Statement::Manifest(manifest) => {
            let named = manifest.inputs.iter().filter_map(|input| match input.origin {
                InputOrigin::Manifest(id) => Some(id),
                InputOrigin::External(_) | InputOrigin::Download(_) => None,
            });
            links.extend(manifest.enrolment.map(|id| (Relation::ManifestEnrolment, id.0)));
            let upstream = manifest.named().chain(named);
            links.extend(upstream.map(|id| (Relation::ManifestManifest, id.0)));
            links.extend(
                manifest.artifacts.iter().map(|made| (Relation::Product, made.digests.sha256)),
            );
            let used = manifest.inputs.iter().map(|input| &input.artifact);
            links.extend(used.map(|used| (Relation::Input, used.digests.sha256)));
        }
        Statement::Summary(summary) => {
            links.extend(summary.inputs.iter().map(|id| (Relation::SummaryInput, id.0)));
            links.extend(
                summary.artifacts.iter().map(|seen| (Relation::Verified, seen.digests.sha256)),
            );
        }
        Statement::Resolution(resolution) => {
            links.insert(match resolution.resolve {
                Resolve::Resume(intent) => (Relation::ResolutionIntent, intent.0),
                Resolve::Supersede(manifest) => (Relation::ResolutionManifest, manifest.0),
            });
        }
        Statement::Intent(_) | Statement::Enrolment(_) => {}
    }
    links
}
