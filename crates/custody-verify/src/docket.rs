//! The docket: evidence whose signatures were held against the keys of the policies, once, for any
//! number of questions.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::borrow::Borrow;

use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Envelope, Keyring, Payload as _, PolicyText, Signed, StatementId};
use custody_core::key::KeyId;
use custody_core::statement::{Artifact, Label, Manifest, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::checks;
use crate::enrolled::{Certificate, Enrolled, keyring};
use crate::evidence::Evidence;
use crate::judge::MAX_STATEMENTS;
use crate::trust::PolicyChain;

/// Does the same work on many items: one after the other, or side by side where the caller has the
/// cores for it. The results are in the order of the items.
pub trait Spread {
    /// The result of `work` for each item.
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R>;
}

/// One after the other.
#[derive(Clone, Copy, Debug)]
pub struct InTurn;

impl Spread for InTurn {
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        items.iter().map(work).collect()
    }
}

/// Evidence whose signatures were held against the keys of the policies and whose payloads were read,
/// each once. Nothing in it is believed yet: that a known key signed says nothing of what it may say.
#[derive(Debug)]
pub struct Docket<'e> {
    pub(crate) case: Case<'e>,
}

impl<'e> Docket<'e> {
    /// Opens all evidence, to be judged by these policies for the moment `now`.
    pub fn open(
        evidence: &Evidence,
        policies: &'e PolicyChain,
        now: Time,
        spread: &impl Spread,
    ) -> Self {
        Self::of((evidence.iter(), evidence.len()), policies, now, spread)
    }

    /// The same of evidence that nobody needs afterwards: each envelope goes when it was opened, or a large
    /// release would be in memory twice.
    pub fn open_and_drop(
        evidence: Evidence,
        policies: &'e PolicyChain,
        now: Time,
        spread: &impl Spread,
    ) -> Self {
        let count = evidence.len();
        Self::of((evidence.into_iter(), count), policies, now, spread)
    }

    fn of<E: Borrow<Envelope> + Sync>(
        (evidence, count): (impl Iterator<Item = E>, usize),
        policies: &'e PolicyChain,
        now: Time,
        spread: &impl Spread,
    ) -> Self {
        let too_many = count > MAX_STATEMENTS;
        let opened =
            if too_many { Opened::default() } else { Opened::of(evidence, policies, spread) };
        let opened = Arc::new(opened);
        let latest = policies.seen().map_or(now, |seen| now.max(seen));
        let asked = Asked::File;
        Self { case: Case { asked, policies, count, now: latest, clock: now, opened, too_many } }
    }

    /// The certificate of this id, if all that must hold of it does under the newest policy at the
    /// moment that the docket is for.
    pub fn certificate(&self, id: StatementId) -> Result<Certificate, Refusal> {
        self.case.fresh()?;
        self.case.current_certificate(id)
    }

    /// Whether the policy takes the machine and the image of a manifest that is not made yet, which
    /// this key is to sign: what the gates after it will say of them, by the newest policy, and those who
    /// hold a file, by the one that the request names, before any work is lost.
    pub fn machine(&self, draft: &Manifest, key: &KeyId) -> Result<(), Refusal> {
        let asked = [Asked::Gate(draft.task), Asked::File];
        asked
            .into_iter()
            .try_for_each(|asked| checks::manifest::machine(&self.case.asked(asked), draft, key))
    }

    /// What could be read and was signed by a known key, by statement id.
    pub fn statements(&self) -> impl Iterator<Item = &Signed<Statement>> {
        self.case.statements()
    }
}

/// What is asked, as far as it changes what holds for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The desk counts sign-offs.
    Desk,
    /// Somebody holds a file.
    File,
    /// The gate of this task.
    Gate(StatementId),
}

type Statements = BTreeMap<StatementId, Result<Signed<Statement>, Refusal>>;

/// Evidence by what it is about.
#[derive(Debug, Default)]
struct Opened {
    statements: Statements,
    manifests_of_task: BTreeMap<StatementId, Vec<StatementId>>,
    about: BTreeMap<StatementId, Vec<StatementId>>,
    summaries: Vec<StatementId>,
    /// Which manifest lists which bytes, and at which place; sorted.
    products: Vec<(Sha256, StatementId, usize)>,
    enrolled: Enrolled,
    /// Digests of the texts of tasks: a task may be somebody's product.
    texts: BTreeMap<StatementId, Sha256>,
    /// What is neither a statement nor a policy, as it says.
    foreign: BTreeSet<StatementId>,
}

/// How many bytes of envelopes are opened before the first of them goes: more, if few of them are as
/// many bytes, so that every core has some.
const AT_ONCE: usize = 16 << 20;
const FEW: usize = 64;
const MOST: usize = 256 << 20;

/// An envelope that was held against keys.
struct Found {
    statement: Result<Signed<Statement>, Refusal>,
    text: Option<Sha256>,
}

impl Found {
    fn of(envelope: &Envelope, keys: &Keyring) -> Self {
        let statement = envelope.open::<Statement>(keys);
        let is_task = |signed: &Signed<Statement>| signed.unverified().as_task().is_some();
        let text = statement.as_ref().is_ok_and(is_task);
        let text = text.then(|| Sha256::of(envelope.unverified_payload()));
        Self { statement, text }
    }
}

impl Opened {
    fn of<E: Borrow<Envelope> + Sync>(
        mut envelopes: impl Iterator<Item = E>,
        policies: &PolicyChain,
        spread: &impl Spread,
    ) -> Self {
        let mut opened = Self::default();
        let keys = policies.keyring();
        let mut again = Vec::new();
        loop {
            let mut some: Vec<E> = Vec::new();
            let mut bytes: usize = 0;
            while (bytes < AT_ONCE || some.len() < FEW && bytes < MOST)
                && let Some(envelope) = envelopes.next()
            {
                bytes = bytes.saturating_add(envelope.borrow().pae().len());
                some.push(envelope);
            }
            if some.is_empty() {
                break;
            }
            let found = spread.map(&some, |envelope| Found::of(envelope.borrow(), keys));
            for (envelope, found) in some.into_iter().zip(found) {
                let unknown = found.statement.is_err() || names_another(envelope.borrow(), keys);
                opened.enter(envelope.borrow(), found);
                if unknown {
                    again.push(envelope);
                }
            }
        }
        opened.enrolled = Enrolled::of(&opened.statements, policies, spread);
        opened.open_enrolled(&again, policies, spread);
        for (id, result) in &opened.statements {
            match result.as_ref().map(Signed::unverified) {
                Ok(Statement::Manifest(manifest)) => {
                    opened.manifests_of_task.entry(manifest.task).or_default().push(*id);
                    let digests = manifest.artifacts.iter().map(|made| made.digests.sha256);
                    opened
                        .products
                        .extend(digests.enumerate().map(|(place, sha256)| (sha256, *id, place)));
                }
                Ok(Statement::Signoff(signoff)) => {
                    opened.about.entry(signoff.request).or_default().push(*id);
                }
                Ok(Statement::Resolution(resolution)) => {
                    opened.about.entry(resolution.task).or_default().push(*id);
                }
                Ok(Statement::Intent(intent)) => {
                    opened.about.entry(intent.task).or_default().push(*id);
                }
                Ok(Statement::Summary(_)) => opened.summaries.push(*id),
                _ => {}
            }
        }
        opened.products.sort_unstable();
        opened
    }

    fn enter(&mut self, envelope: &Envelope, found: Found) {
        let id = envelope.id();
        if envelope.payload_type() != Statement::TYPE && envelope.payload_type() != PolicyText::TYPE
        {
            self.foreign.insert(id);
        }
        self.texts.extend(found.text.map(|text| (id, text)));
        self.statements.insert(id, found.statement);
    }

    /// Opens again what says that a key signed it which only a certificate makes known.
    fn open_enrolled<E: Borrow<Envelope> + Sync>(
        &mut self,
        envelopes: &[E],
        policies: &PolicyChain,
        spread: &impl Spread,
    ) {
        let envelopes: Vec<&Envelope> = envelopes.iter().map(Borrow::borrow).collect();
        let signed: Vec<&Envelope> =
            envelopes.iter().copied().filter(|envelope| self.enrolled.signed(envelope)).collect();
        let opened = self.statements.values().filter_map(|opened| opened.as_ref().ok());
        let known = keyring(policies, opened);
        let again = spread.map(&signed, |envelope| Found::of(envelope, &known));
        for (envelope, found) in signed.into_iter().zip(again) {
            self.enter(envelope, found);
        }
        for envelope in envelopes {
            if let Some(refusal) = self.without_certificate(envelope) {
                self.statements.insert(envelope.id(), Err(refusal));
            }
        }
    }

    /// A manifest by an unknown key may name a certificate that is not here. That is no more believed than
    /// the rest of it, and says what to bring.
    fn without_certificate(&self, envelope: &Envelope) -> Option<Refusal> {
        let unknown = self.statements.get(&envelope.id())?.as_ref().err()?;
        if unknown.code != Code::EnvKeyUnknown {
            return None;
        }
        let Ok(Statement::Manifest(manifest)) = Statement::parse(envelope.unverified_payload())
        else {
            return None;
        };
        let id = manifest.enrolment.filter(|id| !self.statements.contains_key(id))?;
        let expected = format!("the certificate {id} of the key that signed it");
        let found = "it is not among the evidence";
        Some(Refusal::new(Code::ChainLinkMissing, "signature", expected, found))
    }
}

/// Whether a signature says that a key made it which is not among these.
fn names_another(envelope: &Envelope, keys: &Keyring) -> bool {
    let another = |hint: &String| hint.parse().is_ok_and(|id| keys.get(&id).is_none());
    envelope.signatures().iter().any(|signature| signature.keyid.as_ref().is_some_and(another))
}

/// Everything that stays the same during one judgement.
#[derive(Clone, Debug)]
pub(crate) struct Case<'e> {
    pub(crate) asked: Asked,
    pub(crate) policies: &'e PolicyChain,
    /// How many statements the evidence has.
    pub(crate) count: usize,
    /// What is judged for: never earlier than a time that was verified before.
    pub(crate) now: Time,
    pub(crate) clock: Time,
    opened: Arc<Opened>,
    pub(crate) too_many: bool,
}

impl Case<'_> {
    /// The same with another thing asked.
    pub(crate) fn asked(&self, asked: Asked) -> Self {
        Self { asked, ..self.clone() }
    }

    /// What could be read and was signed by a known key, by statement id.
    pub(crate) fn statements(&self) -> impl Iterator<Item = &Signed<Statement>> {
        self.opened.statements.values().filter_map(|opened| opened.as_ref().ok())
    }

    /// The certificates among the evidence.
    pub(crate) fn enrolled(&self) -> &Enrolled {
        &self.opened.enrolled
    }

    /// The statement of this id, signed by a known key and of the wanted kind. Who may have signed it
    /// is for the caller to verify.
    pub(crate) fn statement<T>(
        &self,
        id: StatementId,
        kind: &'static str,
        part: impl FnOnce(&Statement) -> Option<&T>,
    ) -> Result<Signed<&T>, Refusal> {
        let at = || format!("{kind} {}", id.short());
        match self.opened.statements.get(&id) {
            None => {
                let expected = format!("the {kind} {id}");
                Err(Refusal::new(
                    Code::ChainLinkMissing,
                    at(),
                    expected,
                    "it is not among the evidence",
                ))
            }
            Some(Err(refusal)) => Err(refusal.clone().within(&at())),
            Some(Ok(signed)) => signed.narrow(part).ok_or_else(|| {
                Refusal::new(
                    Code::StmtPredicateType,
                    at(),
                    format!("a {kind}"),
                    format!("a {}", signed.unverified().kind()),
                )
            }),
        }
    }

    /// The digest of a task's text.
    pub(crate) fn text_of(&self, task: StatementId) -> Option<Sha256> {
        self.opened.texts.get(&task).copied()
    }

    /// All manifests of a task that a known key signed.
    pub(crate) fn manifests_of(&self, task: StatementId) -> &[StatementId] {
        self.opened.manifests_of_task.get(&task).map(Vec::as_slice).unwrap_or_default()
    }

    /// Statements by people about a request or a task.
    pub(crate) fn about(&self, id: StatementId) -> impl Iterator<Item = &Signed<Statement>> {
        let ids = self.opened.about.get(&id).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.opened.statements.get(id)?.as_ref().ok())
    }

    pub(crate) fn summaries(&self) -> &[StatementId] {
        &self.opened.summaries
    }

    /// All manifests that a known key signed.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (StatementId, &Manifest)> {
        self.opened.statements.iter().filter_map(|(id, opened)| {
            Some((*id, opened.as_ref().ok()?.unverified().as_manifest()?))
        })
    }

    /// The manifests that list a file of these bytes, each with the artifact.
    pub(crate) fn makers(
        &self,
        sha256: Sha256,
    ) -> impl Iterator<Item = (&Signed<Statement>, &Manifest, &Artifact)> {
        let products = &self.opened.products;
        let first = products.partition_point(|(known, _, _)| *known < sha256);
        let listed = products.get(first..).unwrap_or_default().iter();
        listed.take_while(move |(known, _, _)| *known == sha256).filter_map(|(_, id, place)| {
            let signed = self.opened.statements.get(id)?.as_ref().ok()?;
            let manifest = signed.unverified().as_manifest()?;
            Some((signed, manifest, manifest.artifacts.get(*place)?))
        })
    }

    /// The manifests that list a file of these bytes: first those of the step that was asked for; of
    /// these first those that a machine signed which may, or once might, perform the step; of those
    /// first the publications.
    pub(crate) fn candidates(&self, digests: &Digests, maker: Option<&Label>) -> Vec<StatementId> {
        let (_, newest) = self.policies.newest();
        let irrevocable = |manifest: &Manifest| {
            newest
                .products
                .values()
                .filter_map(|product| product.steps.get(&manifest.step))
                .any(|step| step.irrevocable)
        };
        let makers: Vec<_> = self.makers(digests.sha256).collect();
        if let [(signed, _, _)] = makers.as_slice() {
            return Vec::from([signed.id()]);
        }
        let mut found: Vec<_> = makers
            .into_iter()
            .map(|(signed, manifest, _)| {
                let other = maker.is_some_and(|step| *step != manifest.step);
                let stranger = !self.may_perform(signed, &manifest.step);
                (other, stranger, !irrevocable(manifest), signed.id())
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|(_, _, _, id)| id).collect()
    }

    /// Whether somebody who could perform the step signed the statement of this id.
    pub(crate) fn could_perform_by_id(&self, id: StatementId, step: &Label) -> bool {
        let opened = self.opened.statements.get(&id).and_then(|opened| opened.as_ref().ok());
        opened.is_some_and(|signed| self.could_perform(signed, step))
    }

    /// Whether some policy of the chain let a signer perform the step, revoked or not.
    pub(crate) fn could_perform(&self, signed: &Signed<Statement>, step: &Label) -> bool {
        signed.signers().iter().any(|signer| self.lets_perform(&signer.key, step))
    }

    fn may_perform(&self, signed: &Signed<Statement>, step: &Label) -> bool {
        let mut signers = signed.signers().iter();
        signers.any(|signer| {
            self.policies.revocation(&signer.key).is_none() && self.lets_perform(&signer.key, step)
        })
    }

    fn lets_perform(&self, key: &KeyId, step: &Label) -> bool {
        self.policies.iter().any(|(_, policy)| {
            let steps = || policy.products.values().filter_map(|product| product.steps.get(step));
            let mut machines =
                policy.owner(key).into_iter().chain(self.enrolled().machines(policy, key));
            machines.any(|machine| steps().any(|step| step.perform.contains(machine)))
        })
    }

    /// Whether the newest policy holds at all now.
    pub(crate) fn fresh(&self) -> Result<(), Refusal> {
        let (id, newest) = self.policies.newest();
        if self.now < newest.expires {
            return Ok(());
        }
        let at = format!("policy {} ({})", newest.version, id.short());
        Err(Refusal::new(
            Code::PolicyExpired,
            at,
            format!("a time before {}", newest.expires),
            self.now.to_string(),
        ))
    }

    /// Envelopes whose signatures do not fit their bytes any more: what was changed on the way.
    pub(crate) fn damaged(&self) -> Vec<StatementId> {
        let changed = |(id, opened): (&StatementId, &Result<Signed<Statement>, Refusal>)| {
            let code = opened.as_ref().err()?.code;
            let damaged = code == Code::EnvSignatureInvalid
                || (code == Code::EnvPayloadType && self.opened.foreign.contains(id));
            damaged.then_some(*id)
        };
        self.opened.statements.iter().filter_map(changed).collect()
    }
}
