//! The gate: gathers a complete view of what concerns a task and asks the judge.

use std::collections::BTreeSet;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Keyring, Signed, StatementId};
use custody_core::key::KeyId;
use custody_core::statement::{Label, Manifest, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_store::{Filter, Kind, Relation, Store};
use custody_verify::{
    Docket, Evidence, Expectation, Floor, Judge, PolicyChain, Question, Report, Spread, Subject,
};
use rayon::prelude::*;

/// Spreads work over all cores.
#[derive(Clone, Copy, Debug)]
pub struct AllCores;

impl Spread for AllCores {
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        // a few are done before another thread has begun, and where others are busy long before
        items.par_iter().with_min_len(16).map(&work).collect()
    }
}

/// The policies of the store, from its pin to the newest, not older than the store has seen. What is
/// newest now is remembered: nothing older will do from here on. A clock behind what was verified is
/// [`Code::TimeUntrusted`]: nobody judges, signs or publishes by it.
pub fn policies(store: &Store, now: Time) -> Result<PolicyChain, Refusal> {
    let trust = store.trust()?;
    let floor = trust.floor.map(|floor| Floor {
        version: floor.version,
        policy: floor.policy,
        time: trust.time.unwrap_or(Time::EPOCH),
    });
    let chain = chain(store, floor)?;
    let (policy, newest) = chain.newest();
    if let Some(time) = trust.time.filter(|time| now.plus(newest.clock_skew) < *time) {
        let (expected, found) = (format!("a time from {time}"), now.to_string());
        return Err(Refusal::new(Code::TimeUntrusted, "the clock", expected, found));
    }
    store.raise_floor(custody_store::Floor { version: newest.version, policy }, None)?;
    Ok(chain)
}

/// Remembers the time of a verdict that accepted: now is never earlier from here on. That of another is
/// not, or a clock that once was wrong would stop every gate for good.
pub fn remember(store: &Store, policies: &PolicyChain, now: Time) -> Result<(), Refusal> {
    let (policy, newest) = policies.newest();
    let floor = custody_store::Floor { version: newest.version, policy };
    store.raise_floor(floor, Some(now)).map(|_| ())
}

/// The policies of the store, to judge as of some other time than now. That is looking back: nothing is remembered, and
/// what was seen since does not stand in the way.
pub fn policies_looking_back(store: &Store) -> Result<PolicyChain, Refusal> {
    chain(store, None)
}

fn chain(store: &Store, floor: Option<Floor>) -> Result<PolicyChain, Refusal> {
    let pin = store.trust()?.pin.ok_or_else(|| {
        let found = "none: custody init pins one";
        Refusal::new(Code::PolicyUntrusted, "the store", "a pinned policy", found)
    })?;
    let all = store.closure(&[])?.into_iter();
    let policies = all.filter(|(kind, _)| *kind == Kind::Policy).map(|(_, envelope)| envelope);
    PolicyChain::establish(pin, &policies.collect::<Vec<_>>(), floor)
}

/// Everything in the store that a verdict on these statements can depend on: what they rest on, what
/// people said about it, and what gates and decision steps vouch for.
pub fn gather(store: &Store, roots: &[StatementId]) -> Result<Evidence, Refusal> {
    Ok(gathered(store, roots)?.into_iter().map(|(_, envelope)| envelope).collect())
}

fn gathered(store: &Store, roots: &[StatementId]) -> Result<Vec<(Kind, Envelope)>, Refusal> {
    let mut wanted: BTreeSet<StatementId> = roots.iter().copied().collect();
    loop {
        let roots: Vec<StatementId> = wanted.iter().copied().collect();
        let found = store.closure(&roots)?;
        let before = wanted.len();
        for (kind, envelope) in &found {
            wanted.extend(vouching(store, *kind, envelope)?);
        }
        if wanted.len() == before {
            return Ok(found);
        }
    }
}

/// The same for whoever verifies elsewhere: without intents, which tell a gate what was begun and
/// nobody what a file is.
pub fn portable(store: &Store, roots: &[StatementId]) -> Result<Vec<Envelope>, Refusal> {
    let found = gathered(store, roots)?.into_iter();
    Ok(found.filter(|(kind, _)| *kind != Kind::Intent).map(|(_, envelope)| envelope).collect())
}

/// The keys that make a signature in this store worth looking at: those of the policies, and those that
/// a key of theirs certified.
pub fn keyring(store: &Store, policies: &PolicyChain) -> Result<Keyring, Refusal> {
    let envelopes = store.list(Filter { kind: Some(Kind::Enrolment), ..Filter::default() })?;
    let certificates: Vec<Signed<Statement>> =
        envelopes.iter().filter_map(|envelope| envelope.open(policies.keyring()).ok()).collect();
    Ok(custody_verify::enrolled::keyring(policies, &certificates))
}

/// All certificates of these keys: what makes a signature known, and what speaks against a key.
pub fn certificates_of(
    store: &Store,
    keys: impl IntoIterator<Item = KeyId>,
) -> Result<Vec<StatementId>, Refusal> {
    let mut found = Vec::new();
    for key in keys {
        let links = store.links_to(&key.digest(), Some(Relation::EnrolmentKey))?;
        found.extend(links.into_iter().map(|link| link.source));
    }
    Ok(found)
}

/// The keys that plain signatures claim.
fn claimed(envelope: &Envelope) -> impl Iterator<Item = KeyId> {
    let hints = envelope.signatures().iter().filter_map(|signature| signature.keyid.as_deref());
    hints.filter_map(|hint| hint.parse().ok())
}

/// Statements that point at this one and may be needed to accept it: the decision step's manifest
/// behind a task, the results of the tasks that a task takes inputs from, a gate's summary, the
/// certificates of the keys that signed what a worker did.
fn vouching(store: &Store, kind: Kind, envelope: &Envelope) -> Result<Vec<StatementId>, Refusal> {
    match kind {
        Kind::Task => store.manifests_of(&Sha256::of(envelope.unverified_payload())),
        Kind::Manifest => {
            let links = store.links_to(&envelope.id().0, Some(Relation::SummaryInput))?;
            let summaries = links.into_iter().map(|link| link.source);
            Ok(summaries.chain(certificates_of(store, claimed(envelope))?).collect())
        }
        Kind::Intent => certificates_of(store, claimed(envelope)),
        _ => Ok(Vec::new()),
    }
}

/// Asks whether the task may start now, in a fresh and complete view of the store.
/// `machine` asks for itself, where several machines do the task.
pub fn judge(
    store: &Store,
    task: StatementId,
    machine: &Label,
    now: Time,
) -> Result<Report, Refusal> {
    let policies = policies(store, now)?;
    let evidence = gather(store, &[task])?;
    let docket = Docket::open(&evidence, &policies, now, &AllCores);
    let expect = Expectation { machine: Some(machine.clone()), ..Expectation::default() };
    let question = Question { subject: Subject::Task(task), expect };
    let report = Judge::new(&docket).verify(&question);
    if report.accepted().is_some() {
        remember(store, &policies, now)?;
    }
    Ok(report)
}

/// Whether the policy takes the machine of a manifest that this key is about to sign.
pub fn machine(store: &Store, draft: &Manifest, key: &KeyId, now: Time) -> Result<(), Refusal> {
    let policies = policies(store, now)?;
    let roots: Vec<StatementId> = [draft.task].into_iter().chain(draft.enrolment).collect();
    let evidence = gather(store, &roots)?;
    Docket::open(&evidence, &policies, now, &AllCores).machine(draft, key)
}

/// Whether as many machines as the policy asks for made what this manifest lists; or who is missing, or
/// which files differ.
pub fn agreement(store: &Store, manifest: StatementId, now: Time) -> Result<(), Refusal> {
    let policies = policies(store, now)?;
    let evidence = gather(store, &[manifest])?;
    let docket = Docket::open(&evidence, &policies, now, &AllCores);
    let subject = Subject::Documents(BTreeSet::from([manifest]));
    let report = Judge::new(&docket).verify(&Question { subject, expect: Expectation::default() });
    let own = report.findings().find(|(node, _, refusal)| {
        node.id == Some(manifest) && refusal.code == Code::ChainThresholdDisagree
    });
    own.map_or(Ok(()), |(_, _, refusal)| Err(refusal.clone()))
}
