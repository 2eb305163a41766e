//! The walk: from the subject backwards through manifests, tasks and authorizations.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Payload as _, PolicyText, Signed, StatementId};
use custody_core::key::KeyId;
use custody_core::statement::{Label, Manifest, ReleaseId, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::checks::authorization::Tally;
use crate::checks::{Authority, authorization, manifest, subject, task, whole};
use crate::evidence::Evidence;
use crate::policy::{Product, listed};
use crate::report::{Node, NodeKind, Outcomes, Report, Rule};
use crate::trust::{Floor, PolicyChain};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// About what.
    pub subject: Subject,
    /// Which release it must belong to.
    pub expect: Expectation,
    /// What was seen before; now is never earlier.
    pub floor: Option<Floor>,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A file: where does it come from?
    Artifact {
        /// Its name, as far as it is known: the last segment of an artifact's name, or all of it.
        name: String,
        /// Its digests.
        digests: Digests,
        /// Its size in bytes.
        size: u64,
    },
    /// A task: may it start now? This is the gate, and the newest policy decides.
    Task(StatementId),
}

/// The release that the asker has in mind. What is absent is not asked.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// The product.
    pub product: Option<Label>,
    /// The version.
    pub version: Option<Label>,
    /// The channel.
    pub channel: Option<Label>,
    /// The instance.
    pub instance: Option<Label>,
    /// The step that must have made a file. Without one, a file of a product that is published must
    /// come from a publication: what was built and not shipped is not what users should have.
    pub step: Option<Label>,
}

impl Expectation {
    /// The expectation of exactly this release.
    pub fn of(release: &ReleaseId) -> Self {
        Self {
            product: Some(release.product.clone()),
            version: Some(release.version.clone()),
            channel: Some(release.channel.clone()),
            instance: Some(release.instance.clone()),
            step: None,
        }
    }

    pub(crate) fn check(&self, release: &ReleaseId) -> Result<(), Refusal> {
        let pairs = [
            (&self.product, &release.product, Code::ChainProductMismatch),
            (&self.version, &release.version, Code::ChainReleaseMismatch),
            (&self.channel, &release.channel, Code::ChainReleaseMismatch),
            (&self.instance, &release.instance, Code::ChainInstanceMismatch),
        ];
        for (wanted, found, code) in pairs {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                return Err(Refusal::new(
                    code,
                    "the release",
                    wanted.to_string(),
                    format!("{found}, in {release}"),
                ));
            }
        }
        Ok(())
    }
}

/// Most statements that one question may be asked of.
pub const MAX_STATEMENTS: usize = 1_000_000;
/// Most manifests that one walk visits.
pub const MAX_MANIFESTS: usize = 100_000;
/// Most manifests that are tried as the origin of one file.
const MAX_CANDIDATES: usize = 32;

/// Judges the subject by the evidence and the policies, for the moment `now`.
///
/// The same arguments give the same report, in whatever order evidence was added. The work is linear
/// in statements and links and bounded by [`MAX_STATEMENTS`] and [`MAX_MANIFESTS`].
pub fn verify(
    question: &Question,
    evidence: &Evidence,
    policies: &PolicyChain,
    now: Time,
) -> Report {
    let case = Case::new(Some(question), evidence, policies, now);
    match &question.subject {
        Subject::Task(id) => Walk::new(&case).gate(*id),
        Subject::Artifact { name, digests, size } => trace(&case, name, digests, *size),
    }
}

/// Counts the sign-offs of a request, for the desk that is to authorize it at `now`. An error says
/// that the request itself is not to be believed.
pub fn tally(
    request: StatementId,
    evidence: &Evidence,
    policies: &PolicyChain,
    now: Time,
) -> Result<Tally, Refusal> {
    authorization::tally(&Case::new(None, evidence, policies, now), request)
}

/// Tries the manifests that list the file, publications first. The first that is accepted explains
/// it; if none is, the faults are reported of the first that is what was asked for at all.
fn trace(case: &Case<'_>, name: &str, digests: &Digests, size: u64) -> Report {
    let mut best: Option<Report> = None;
    for id in case.candidates(digests).into_iter().take(MAX_CANDIDATES) {
        let report = Walk::new(case).artifact(Some(id), name, digests, size);
        if report.accepted().is_some() {
            return report;
        }
        let fits = |report: &Report| {
            report.nodes.first().is_some_and(|subject| subject.findings().next().is_none())
        };
        if best.as_ref().is_none_or(|best| !fits(best) && fits(&report)) {
            best = Some(report);
        }
    }
    best.unwrap_or_else(|| Walk::new(case).artifact(None, name, digests, size))
}

/// Everything that stays the same during one judgement.
pub(crate) struct Case<'e> {
    /// Absent at the desk, which counts sign-offs and asks about nothing else.
    pub(crate) question: Option<&'e Question>,
    pub(crate) policies: &'e PolicyChain,
    pub(crate) evidence: &'e Evidence,
    /// What is judged for: never earlier than a time that was verified before.
    pub(crate) now: Time,
    clock: Time,
    opened: BTreeMap<StatementId, Result<Signed<Statement>, Refusal>>,
    manifests_of_task: BTreeMap<StatementId, Vec<StatementId>>,
    about: BTreeMap<StatementId, Vec<StatementId>>,
    summaries: Vec<StatementId>,
    decisions: BTreeMap<Sha256, Vec<StatementId>>,
    too_many: bool,
}

impl<'e> Case<'e> {
    fn new(
        question: Option<&'e Question>,
        evidence: &'e Evidence,
        policies: &'e PolicyChain,
        now: Time,
    ) -> Self {
        let mut case = Self {
            question,
            policies,
            evidence,
            now: question
                .and_then(|question| question.floor)
                .map_or(now, |floor| now.max(floor.time)),
            clock: now,
            opened: BTreeMap::new(),
            manifests_of_task: BTreeMap::new(),
            about: BTreeMap::new(),
            summaries: Vec::new(),
            decisions: BTreeMap::new(),
            too_many: evidence.len() > MAX_STATEMENTS,
        };
        if case.too_many {
            return case;
        }
        let products = policies.iter().flat_map(|(_, policy)| policy.products.values());
        let deciding: BTreeSet<&Label> = products
            .flat_map(|product| product.steps.values())
            .filter_map(|step| step.scheduled_by.as_ref())
            .collect();
        for envelope in evidence.iter() {
            let opened = envelope.open::<Statement>(policies.keyring());
            match opened.as_ref().map(Signed::unverified) {
                Ok(Statement::Manifest(manifest)) => {
                    case.manifests_of_task.entry(manifest.task).or_default().push(envelope.id());
                    let decided = deciding.contains(&manifest.step).then_some(&manifest.artifacts);
                    for artifact in decided.into_iter().flatten() {
                        case.decisions
                            .entry(artifact.digests.sha256)
                            .or_default()
                            .push(envelope.id());
                    }
                }
                Ok(Statement::Signoff(signoff)) => {
                    case.about.entry(signoff.request).or_default().push(envelope.id());
                }
                Ok(Statement::Resolution(resolution)) => {
                    case.about.entry(resolution.task).or_default().push(envelope.id());
                }
                Ok(Statement::Intent(intent)) => {
                    case.about.entry(intent.task).or_default().push(envelope.id());
                }
                Ok(Statement::Summary(_)) => case.summaries.push(envelope.id()),
                _ => {}
            }
            case.opened.insert(envelope.id(), opened);
        }
        case
    }

    /// The statement of this id, signed by a known key and of the wanted kind. Who may have signed it
    /// is for the caller to verify.
    pub(crate) fn statement<T>(
        &self,
        id: StatementId,
        kind: &'static str,
        part: impl FnOnce(&Statement) -> Option<&T>,
    ) -> Result<Signed<&T>, Refusal> {
        let at = format!("{kind} {}", id.short());
        match self.opened.get(&id) {
            None => {
                let expected = format!("the {kind} {id}");
                Err(Refusal::new(
                    Code::ChainLinkMissing,
                    at,
                    expected,
                    "it is not among the evidence",
                ))
            }
            Some(Err(refusal)) => Err(refusal.clone().within(&at)),
            Some(Ok(signed)) => signed.narrow(part).ok_or_else(|| {
                Refusal::new(
                    Code::StmtPredicateType,
                    at,
                    format!("a {kind}"),
                    format!("a {}", signed.unverified().kind()),
                )
            }),
        }
    }

    fn expected(&self, release: &ReleaseId) -> Result<(), Refusal> {
        self.question.map_or(Ok(()), |question| question.expect.check(release))
    }

    /// Whether a file may come from this manifest: from the step that was asked for, or else from one
    /// that publishes, where the policy that the release was made under has any.
    fn expected_step(&self, product: &Product, manifest: &Manifest) -> Result<(), Refusal> {
        let at = format!("manifest of step {}", manifest.step);
        if let Some(step) = self.expected_maker() {
            let same = *step == manifest.step;
            let refuse = || {
                Refusal::new(
                    Code::ChainStepMismatch,
                    at,
                    step.to_string(),
                    manifest.step.to_string(),
                )
            };
            return if same { Ok(()) } else { Err(refuse()) };
        }
        let publishing = || {
            product
                .steps
                .iter()
                .filter(|(_, step)| !step.destinations.is_empty())
                .map(|(name, _)| name)
        };
        if publishing().next().is_none() || publishing().any(|step| *step == manifest.step) {
            return Ok(());
        }
        let expected = format!("a publication, by step {}", listed(publishing()));
        Err(Refusal::new(
            Code::ChainStepMissing,
            at,
            expected,
            format!("step {}, which publishes nothing", manifest.step),
        ))
    }

    fn expected_maker(&self) -> Option<&Label> {
        self.question.and_then(|question| question.expect.step.as_ref())
    }

    /// All manifests of a task that a known key signed.
    pub(crate) fn manifests_of(&self, task: StatementId) -> &[StatementId] {
        self.manifests_of_task.get(&task).map(Vec::as_slice).unwrap_or_default()
    }

    /// Statements by people about a request or a task.
    pub(crate) fn about(&self, id: StatementId) -> impl Iterator<Item = &Signed<Statement>> {
        let ids = self.about.get(&id).map(Vec::as_slice).unwrap_or_default();
        ids.iter().filter_map(|id| self.opened.get(id)?.as_ref().ok())
    }

    pub(crate) fn summaries(&self) -> &[StatementId] {
        &self.summaries
    }

    /// All manifests that a known key signed.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (StatementId, &Manifest)> {
        self.opened.iter().filter_map(|(id, opened)| {
            Some((*id, opened.as_ref().ok()?.unverified().as_manifest()?))
        })
    }

    /// Manifests of decision steps that list a file of these bytes.
    pub(crate) fn decisions(&self, sha256: Sha256) -> &[StatementId] {
        self.decisions.get(&sha256).map(Vec::as_slice).unwrap_or_default()
    }

    /// The manifests that list a file of these bytes: first those that a machine signed which may, or
    /// once might, perform the step; of those first the publications.
    fn candidates(&self, digests: &Digests) -> Vec<StatementId> {
        let lists = |manifest: &Manifest| {
            manifest.artifacts.iter().any(|artifact| artifact.digests.sha256 == digests.sha256)
        };
        let (_, newest) = self.policies.newest();
        let irrevocable = |manifest: &Manifest| {
            newest
                .products
                .values()
                .filter_map(|product| product.steps.get(&manifest.step))
                .any(|step| step.irrevocable)
        };
        let rank = |signed: &Signed<Statement>| {
            let manifest = signed.unverified().as_manifest().filter(|manifest| lists(manifest))?;
            let other = self.expected_maker().is_some_and(|step| *step != manifest.step);
            let stranger = !self.may_perform(signed, &manifest.step);
            Some((other, stranger, !irrevocable(manifest), signed.id()))
        };
        let opened = self.opened.values().filter_map(|opened| opened.as_ref().ok());
        let mut found: Vec<_> = opened.filter_map(rank).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, _, _, id)| id).collect()
    }

    /// The same for the statement of this id.
    pub(crate) fn could_perform_by_id(&self, id: StatementId, step: &Label) -> bool {
        let opened = self.opened.get(&id).and_then(|opened| opened.as_ref().ok());
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
            let mut steps = policy.products.values().filter_map(|product| product.steps.get(step));
            policy.owner(key).is_some_and(|owner| steps.any(|step| step.perform.contains(owner)))
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
    fn damaged(&self) -> Vec<StatementId> {
        let changed = |(id, opened): (&StatementId, &Result<Signed<Statement>, Refusal>)| {
            let code = opened.as_ref().err()?.code;
            let foreign = || {
                self.evidence
                    .get(*id)
                    .is_some_and(|envelope| envelope.payload_type() != PolicyText::TYPE)
            };
            let damaged =
                code == Code::EnvSignatureInvalid || (code == Code::EnvPayloadType && foreign());
            damaged.then_some(*id)
        };
        self.opened.iter().filter_map(changed).collect()
    }
}

/// What is found out on the way.
pub(crate) struct Walk<'c, 'e> {
    pub(crate) case: &'c Case<'e>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) authorities: BTreeMap<StatementId, Result<Authority<'c>, Refusal>>,
    tasks: BTreeSet<StatementId>,
    manifests: BTreeSet<StatementId>,
    queue: VecDeque<StatementId>,
    stop_at: BTreeSet<StatementId>,
}

impl<'c, 'e> Walk<'c, 'e> {
    fn new(case: &'c Case<'e>) -> Self {
        Self {
            case,
            nodes: Vec::new(),
            authorities: BTreeMap::new(),
            tasks: BTreeSet::new(),
            manifests: BTreeSet::new(),
            queue: VecDeque::new(),
            stop_at: BTreeSet::new(),
        }
    }

    fn artifact(
        mut self,
        start: Option<StatementId>,
        name: &str,
        digests: &Digests,
        size: u64,
    ) -> Report {
        let title = format!("file {}", shown(name));
        let mut subject = Node::new(NodeKind::Subject, None, title.clone());
        subject.fact("sha256", digests.sha256);
        subject.fact("size", format!("{size} bytes"));
        self.basics(&mut subject);
        let manifest = start.and_then(|id| {
            let signed = self.case.statement(id, "manifest", Statement::as_manifest).ok()?;
            Some(*signed.unverified())
        });
        let listed = subject::explained(self.case, manifest, name, digests, size);
        subject.rests_on.extend(start);
        let authority = manifest.map(|manifest| self.authority_of(manifest));
        let outcomes = match (&listed, &authority) {
            (Ok(artifact), Some(Ok(authority))) => Some(Outcomes {
                release: authority.request.release.clone(),
                task: None,
                inputs: Vec::new(),
                artifacts: Vec::from([(*artifact).clone()]),
            }),
            _ => None,
        };
        subject.check(Rule::SubjectExplained, listed.map(|_| ()));
        if let (Some(authority), Some(manifest)) = (authority, manifest) {
            let expected = authority.and_then(|authority| {
                self.case.expected(&authority.request.release)?;
                self.case.expected_step(authority.product, manifest)
            });
            subject.check(Rule::SubjectExpected, expected);
        }
        subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        self.nodes.insert(0, subject);
        self.queue.extend(start);
        self.run();
        self.finish(title, outcomes)
    }

    fn gate(mut self, id: StatementId) -> Report {
        let title = format!("task {}", id.short());
        let mut subject = Node::new(NodeKind::Subject, None, title.clone());
        self.basics(&mut subject);
        subject.rests_on.push(id);
        let signed = self.case.statement(id, "task", Statement::as_task);
        let mut vouched = false;
        let outcomes = signed.and_then(|signed| {
            let content = *signed.unverified();
            subject.fact("step", &content.step);
            let authority = self.authority(content.authorization)?;
            let release = authority.request.release.clone();
            subject.check(Rule::SubjectExpected, self.case.expected(&release));
            let (inputs, origins) = task::gate_inputs(self.case, content, &authority)?;
            task::gate_outputs(content, authority.product.step(&content.step)?, &inputs)?;
            vouched = self.plan_depth(content, &authority, &origins);
            let artifacts = inputs.iter().map(|input| input.artifact.clone()).collect();
            Ok(Outcomes { release, task: Some((id, content.clone())), inputs, artifacts })
        });
        subject.check(Rule::GateInputs, outcomes.as_ref().map(|_| ()).map_err(Clone::clone));
        subject.check(Rule::GateOnce, self.once(id));
        if vouched {
            subject.check(Rule::SummaryAccepted, Ok(()));
        } else {
            subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        }
        self.nodes.insert(0, subject);
        self.task(id);
        self.run();
        self.finish(title, outcomes.ok())
    }

    fn once(&mut self, id: StatementId) -> Result<(), Refusal> {
        let signed = self.case.statement(id, "task", Statement::as_task)?;
        let authority = self.authority(signed.unverified().authorization)?;
        manifest::once(self.case, id, &authority)
    }

    /// A gate walks on from its inputs as far as the policy says: not at all, or to the source, or to
    /// what another gate's summary vouches for. Says whether it relies on any summary.
    fn plan_depth(
        &mut self,
        content: &custody_core::statement::Task,
        authority: &Authority<'c>,
        origins: &BTreeSet<StatementId>,
    ) -> bool {
        let step = authority.product.steps.get(&content.step);
        let mut relies = false;
        for id in origins {
            let full = step.is_none_or(|step| step.full);
            let vouched = full
                && step.is_some_and(|step| {
                    manifest::vouched(self.case, *id, content, step, authority)
                });
            if vouched || !full {
                self.stop_at.insert(*id);
            }
            relies |= vouched;
            self.queue.push_back(*id);
        }
        relies
    }

    fn basics(&self, subject: &mut Node) {
        let found = self.case.evidence.len();
        let budget = if self.case.too_many {
            Err(Refusal::new(
                Code::ChainNodeLimit,
                "evidence",
                format!("at most {MAX_STATEMENTS} statements"),
                found.to_string(),
            ))
        } else {
            Ok(())
        };
        subject.check(Rule::EvidenceBudget, budget);
        subject.check(Rule::PolicyFresh, self.fresh());
    }

    fn fresh(&self) -> Result<(), Refusal> {
        let (_, newest) = self.case.policies.newest();
        let clock = self.case.clock;
        let floor = self.case.question.and_then(|question| question.floor);
        if let Some(floor) = floor.filter(|floor| clock.plus(newest.clock_skew) < floor.time) {
            let expected = format!("a time from {}", floor.time);
            return Err(Refusal::new(
                Code::TimeUntrusted,
                "the clock",
                expected,
                clock.to_string(),
            ));
        }
        self.case.fresh()
    }

    fn authority_of(&mut self, manifest: &Manifest) -> Result<Authority<'c>, Refusal> {
        let task = self.case.statement(manifest.task, "task", Statement::as_task);
        let task = task.map_err(|refusal| task_missing(refusal, manifest))?;
        self.authority(task.unverified().authorization)
    }

    fn run(&mut self) {
        while let Some(id) = self.queue.pop_front() {
            if !self.manifests.insert(id) {
                continue;
            }
            if self.manifests.len() > MAX_MANIFESTS {
                let found = format!("more than {MAX_MANIFESTS}");
                if let Some(subject) = self.nodes.first_mut() {
                    subject.check(
                        Rule::EvidenceBudget,
                        Err(Refusal::new(
                            Code::ChainNodeLimit,
                            "chain",
                            "a chain within limits",
                            found,
                        )),
                    );
                }
                return;
            }
            let upstream = manifest::check(self, id);
            if !self.stop_at.contains(&id) {
                self.queue.extend(upstream);
            }
        }
    }

    /// Checks a task once.
    pub(crate) fn task(&mut self, id: StatementId) {
        if self.tasks.insert(id) {
            let made_by = task::check(self, id);
            self.queue.extend(made_by);
        }
    }

    /// What an authorization allows, checked once.
    pub(crate) fn authority(&mut self, id: StatementId) -> Result<Authority<'c>, Refusal> {
        if let Some(known) = self.authorities.get(&id) {
            return known.clone();
        }
        let authority = authorization::check(self, id);
        self.authorities.insert(id, authority.clone());
        authority
    }

    fn finish(mut self, question: String, outcomes: Option<Outcomes>) -> Report {
        whole::check(self.case, &mut self.nodes);
        let intact = self.intact();
        if let Some(subject) = self.nodes.first_mut() {
            subject.check(Rule::EvidenceIntact, intact);
            subject.checks.sort_by_key(|check| check.rule);
        }
        let (id, newest) = self.case.policies.newest();
        let policy = (newest.version, id);
        Report::new(question, self.case.now, policy, self.case.evidence.len(), self.nodes, outcomes)
    }

    /// What the chain misses may be here, changed. A changed document that nothing needs is no fault:
    /// anybody can add one.
    fn intact(&self) -> Result<(), Refusal> {
        let missing = [
            Code::ChainLinkMissing,
            Code::ChainTaskMissing,
            Code::ChainStepMissing,
            Code::SignoffMissing,
        ];
        let misses = self
            .nodes
            .iter()
            .flat_map(Node::findings)
            .any(|(_, refusal)| missing.contains(&refusal.code));
        let damaged = if misses { self.case.damaged() } else { Vec::new() };
        if damaged.is_empty() {
            return Ok(());
        }
        let some: Vec<String> = damaged.iter().take(4).map(ToString::to_string).collect();
        let found = format!(
            "{} that were changed, and may be what is missing: {}",
            damaged.len(),
            some.join(", ")
        );
        Err(Refusal::new(
            Code::EnvSignatureInvalid,
            "evidence",
            "documents as they were signed",
            found,
        ))
    }
}

const NO_SUMMARY: &str = "everything was verified here; no other gate's word was relied upon";

/// A task that nothing has is the sign of a result that nobody asked for.
pub(crate) fn task_missing(refusal: Refusal, manifest: &Manifest) -> Refusal {
    let code =
        if refusal.code == Code::ChainLinkMissing { Code::ChainTaskMissing } else { refusal.code };
    Refusal { code, ..refusal }.within(&format!("manifest of step {}", manifest.step))
}

/// Text of strangers, fit to be shown on one line.
pub(crate) fn shown(text: &str) -> String {
    text.escape_debug().take(200).collect()
}
