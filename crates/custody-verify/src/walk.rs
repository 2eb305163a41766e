//! The walk: from the subject backwards through manifests, tasks and authorizations.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use custody_core::digest::Digests;
use custody_core::envelope::{Signed, StatementId};
use custody_core::statement::{Manifest, Statement, Task};
use custody_core::{Code, Refusal};

use crate::checks::builders::Shared;
use crate::checks::environment::Instances;
use crate::checks::{Authority, Checked, authorization, manifest, subject, summary, task, whole};
use crate::docket::{Case, Spread};
use crate::judge::{Expectation, MAX_MANIFESTS, MAX_STATEMENTS, shown};
use crate::policy::Step;
use crate::report::{Node, NodeKind, Outcomes, Report, Rule};

const NO_SUMMARY: &str = "everything was verified here; no other gate's word was relied upon";

/// What was checked already. It holds for one case: the same evidence, time and kind of question. Clones
/// share what was known when they were made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memo<'c> {
    before: Arc<Known<'c>>,
    since: Known<'c>,
}

#[derive(Clone, Debug, Default)]
struct Known<'c> {
    authorities: BTreeMap<StatementId, Believed<'c>>,
    tasks: BTreeMap<StatementId, Arc<Checked>>,
    manifests: BTreeMap<StatementId, Arc<Checked>>,
    /// The manifests of a task that somebody who may perform its step signed.
    results: BTreeMap<StatementId, Arc<[StatementId]>>,
    instances: Option<Arc<Instances>>,
}

type Believed<'c> = Result<(Authority<'c>, Arc<Node>), Refusal>;

impl<'c> Memo<'c> {
    /// Checks every document of the case, side by side where the spread does.
    pub(crate) fn of_all(case: &'c Case<'_>, spread: &impl Spread) -> Self {
        let ids = |wanted: fn(&Statement) -> bool| -> Vec<StatementId> {
            let statements = case.statements();
            statements.filter(|it| wanted(it.unverified())).map(Signed::id).collect()
        };
        let mut known =
            Known { instances: Some(Arc::new(Instances::among(case))), ..Known::default() };
        let authorizations = ids(|it| it.as_authorization().is_some());
        let believed = spread.map(&authorizations, |id| believe(case, *id));
        known.authorities = authorizations.into_iter().zip(believed).collect();
        let start = Self { before: Arc::new(known.clone()), since: Known::default() };
        let tasks = ids(|it| it.as_task().is_some());
        let results = spread.map(&tasks, |id| start.clone().results_of(case, *id));
        let results = tasks.iter().copied().zip(results);
        known.results = results.filter_map(|(id, found)| Some((id, found?))).collect();
        let start = Self { before: Arc::new(known.clone()), since: Known::default() };
        let checked = spread.map(&tasks, |id| start.clone().task(case, *id));
        known.tasks = tasks.into_iter().zip(checked).collect();
        let manifests = ids(|it| it.as_manifest().is_some());
        let checked = spread.map(&manifests, |id| start.clone().manifest(case, *id));
        known.manifests = manifests.into_iter().zip(checked).collect();
        Self { before: Arc::new(known), since: Known::default() }
    }

    /// Which keys were seen on which machines.
    pub(crate) fn instances(&mut self, case: &'c Case<'_>) -> Arc<Instances> {
        let look = || Arc::new(Instances::among(case));
        self.before
            .instances
            .as_ref()
            .unwrap_or_else(|| self.since.instances.get_or_insert_with(look))
            .clone()
    }

    /// The manifests of a task that somebody who may perform the step signed.
    pub(crate) fn results(
        &mut self,
        case: &'c Case<'_>,
        task: StatementId,
        step: &Step,
        authority: &Authority<'_>,
    ) -> Arc<[StatementId]> {
        let find = || manifest::entitled_results(case, task, step, authority).into();
        let known = self.before.results.get(&task);
        known.unwrap_or_else(|| self.since.results.entry(task).or_insert_with(find)).clone()
    }

    fn results_of(&mut self, case: &'c Case<'_>, id: StatementId) -> Option<Arc<[StatementId]>> {
        let task = *case.statement(id, "task", Statement::as_task).ok()?.unverified();
        let authority = self.authority(case, task.authorization).ok()?;
        let step = authority.product.step(&task.step).ok()?;
        Some(self.results(case, id, step, &authority))
    }

    /// The task of a manifest that several machines do, and how many.
    pub(crate) fn shared(
        &mut self,
        case: &'c Case<'_>,
        id: StatementId,
    ) -> Option<(StatementId, usize)> {
        let signed = case.statement(id, "manifest", Statement::as_manifest).ok()?;
        let manifest = *signed.unverified();
        let task = case.statement(manifest.task, "task", Statement::as_task).ok()?;
        let authority = self.authority_of(case, manifest).ok()?;
        let step = authority.product.step(&task.unverified().step).ok()?;
        if !step.is_shared() {
            return None;
        }
        Some((manifest.task, usize::try_from(step.builders.get()).unwrap_or(usize::MAX)))
    }

    /// The other machines' manifests that agree with this one, where its step is for several.
    pub(crate) fn agreed(
        &mut self,
        case: &'c Case<'_>,
        id: StatementId,
    ) -> Result<Vec<StatementId>, Refusal> {
        if self.shared(case, id).is_none() {
            return Ok(Vec::new());
        }
        let signed = case.statement(id, "manifest", Statement::as_manifest)?;
        let task_id = signed.unverified().task;
        let task = case.statement(task_id, "task", Statement::as_task)?;
        let task = *task.unverified();
        let authority = self.authority(case, task.authorization)?;
        let step = authority.product.step(&task.step)?;
        Shared { id: task_id, task, step, authority: &authority }.agreed(case, self, id)
    }

    /// What an authorization allows.
    pub(crate) fn authority(
        &mut self,
        case: &'c Case<'_>,
        id: StatementId,
    ) -> Result<Authority<'c>, Refusal> {
        self.authorization(case, id).map(|(authority, _)| authority)
    }

    fn authorization(&mut self, case: &'c Case<'_>, id: StatementId) -> Believed<'c> {
        let known = self.before.authorities.get(&id);
        known
            .unwrap_or_else(|| {
                self.since.authorities.entry(id).or_insert_with(|| believe(case, id))
            })
            .clone()
    }

    fn task(&mut self, case: &'c Case<'_>, id: StatementId) -> Arc<Checked> {
        let Known { tasks, .. } = &self.since;
        if let Some(known) = self.before.tasks.get(&id).or_else(|| tasks.get(&id)) {
            return known.clone();
        }
        let checked = Arc::new(task::check(case, self, id));
        self.since.tasks.insert(id, checked.clone());
        checked
    }

    fn manifest(&mut self, case: &'c Case<'_>, id: StatementId) -> Arc<Checked> {
        let Known { manifests, .. } = &self.since;
        if let Some(known) = self.before.manifests.get(&id).or_else(|| manifests.get(&id)) {
            return known.clone();
        }
        let checked = Arc::new(manifest::check(case, self, id));
        self.since.manifests.insert(id, checked.clone());
        checked
    }

    fn authority_of(
        &mut self,
        case: &'c Case<'_>,
        manifest: &Manifest,
    ) -> Result<Authority<'c>, Refusal> {
        self.authority(case, authorization_of(case, manifest)?)
    }
}

fn believe<'c>(case: &'c Case<'_>, id: StatementId) -> Believed<'c> {
    authorization::check(case, id).map(|(found, node)| (found, Arc::new(node)))
}

fn authorization_of(case: &Case<'_>, manifest: &Manifest) -> Result<StatementId, Refusal> {
    let task = case.statement(manifest.task, "task", Statement::as_task);
    let task = task.map_err(|refusal| task_missing(refusal, manifest))?;
    Ok(task.unverified().authorization)
}

/// A task that nothing has is the sign of a result that nobody asked for.
pub(crate) fn task_missing(refusal: Refusal, manifest: &Manifest) -> Refusal {
    let code =
        if refusal.code == Code::ChainLinkMissing { Code::ChainTaskMissing } else { refusal.code };
    Refusal { code, ..refusal }.within(&format!("manifest of step {}", manifest.step))
}

/// The documents behind a subject, in the order in which a walk met them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Trail {
    pub(crate) nodes: Vec<Arc<Node>>,
    /// There is something, and every check of it passed or is not required.
    pub(crate) holds: bool,
    /// A document was not found.
    misses: bool,
    /// It goes on beyond what one walk visits.
    too_long: bool,
}

/// One walk.
pub(crate) struct Walk<'c, 'e, 'm> {
    case: &'c Case<'e>,
    memo: &'m mut Memo<'c>,
    nodes: Vec<Arc<Node>>,
    authorizations: BTreeSet<StatementId>,
    tasks: BTreeSet<StatementId>,
    manifests: BTreeSet<StatementId>,
    queue: VecDeque<StatementId>,
    stop_at: BTreeSet<StatementId>,
    too_long: bool,
}

impl<'c, 'e, 'm> Walk<'c, 'e, 'm> {
    pub(crate) fn new(case: &'c Case<'e>, memo: &'m mut Memo<'c>) -> Self {
        Self {
            case,
            memo,
            nodes: Vec::new(),
            authorizations: BTreeSet::new(),
            tasks: BTreeSet::new(),
            manifests: BTreeSet::new(),
            queue: VecDeque::new(),
            stop_at: BTreeSet::new(),
            too_long: false,
        }
    }

    /// From a manifest to the source and the people.
    pub(crate) fn follow(&mut self, start: Option<StatementId>) {
        let manifest = start.and_then(|id| {
            Some(*self.case.statement(id, "manifest", Statement::as_manifest).ok()?.unverified())
        });
        let authorization =
            manifest.and_then(|manifest| authorization_of(self.case, manifest).ok());
        if let Some(id) = authorization {
            self.authorization(id);
        }
        self.queue.extend(start);
        self.run();
    }

    /// The verdict of a task's gate.
    pub(crate) fn gate(mut self, id: StatementId, expect: &Expectation) -> Report {
        let case = self.case;
        let title = format!("task {}", id.short());
        let mut subject = Node::new(NodeKind::Subject, None, title);
        subject.rests_on.push(id);
        let signed = case.statement(id, "task", Statement::as_task);
        let mut vouched = false;
        let outcomes = signed.and_then(|signed| {
            let content = *signed.unverified();
            subject.fact("step", &content.step);
            let authority = self.memo.authority(case, content.authorization)?;
            let release = authority.request.release.clone();
            subject.check(Rule::SubjectExpected, expect.check_release(&release));
            let (inputs, origins, agreeing) =
                task::gate_inputs(case, self.memo, content, &authority)?;
            let step = authority.product.step(&content.step)?;
            task::gate_outputs(content, step, &inputs)?;
            vouched = self.plan_depth(content, &authority, &origins);
            vouched |= self.plan_depth(content, &authority, &agreeing);
            let artifacts = inputs.iter().map(|input| input.artifact.clone()).collect();
            let (task, shared) = (Some((id, content.clone())), step.is_shared());
            Ok(Outcomes { release, task, shared, inputs, agreeing, artifacts })
        });
        subject.check(Rule::GateInputs, outcomes.as_ref().map(|_| ()).map_err(Clone::clone));
        subject.check(Rule::GateOnce, self.once(id, expect));
        if vouched {
            subject.check(Rule::SummaryAccepted, Ok(()));
        } else {
            subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        }
        if let Ok(task) = case.statement(id, "task", Statement::as_task) {
            self.authorization(task.unverified().authorization);
        }
        self.task(id);
        self.run();
        let trail = Arc::new(self.end());
        report(case, subject, trail, outcomes.ok())
    }

    /// Applies every rule to these manifests and tasks and to all that they rest on. Nothing is
    /// accepted: no file was asked about.
    pub(crate) fn survey(mut self, roots: &BTreeSet<StatementId>) -> Report {
        let case = self.case;
        let title = format!("{} documents", roots.len());
        let mut subject = Node::new(NodeKind::Subject, None, title);
        subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        subject.rests_on.extend(roots);
        for id in roots {
            if case.statement(*id, "task", Statement::as_task).is_ok() {
                self.task(*id);
            } else {
                self.queue.push_back(*id);
            }
        }
        self.run();
        let trail = Arc::new(self.end());
        report(case, subject, trail, None)
    }

    fn once(&mut self, id: StatementId, expect: &Expectation) -> Result<(), Refusal> {
        let signed = self.case.statement(id, "task", Statement::as_task)?;
        let task = *signed.unverified();
        let authority = self.memo.authority(self.case, task.authorization)?;
        match authority.product.step(&task.step) {
            Ok(step) if step.is_shared() => {
                let shared = Shared { id, task, step, authority: &authority };
                shared.once(self.case, self.memo, expect.machine.as_ref())
            }
            _ => manifest::once(self.case, id, &authority),
        }
    }

    /// A gate walks on from its inputs as far as the policy says: not at all, or to the source, or to
    /// what another gate's summary vouches for. Says whether it relies on any summary.
    fn plan_depth(
        &mut self,
        content: &Task,
        authority: &Authority<'c>,
        origins: &BTreeSet<StatementId>,
    ) -> bool {
        let step = authority.product.steps.get(&content.step);
        let mut relies = false;
        for id in origins {
            let full = step.is_none_or(|step| step.full);
            let vouched = full
                && step
                    .is_some_and(|step| summary::vouched(self.case, *id, content, step, authority));
            if vouched || !full {
                self.stop_at.insert(*id);
            }
            relies |= vouched;
            self.queue.push_back(*id);
        }
        relies
    }

    fn run(&mut self) {
        while let Some(id) = self.queue.pop_front() {
            if !self.manifests.insert(id) {
                continue;
            }
            if self.manifests.len() > MAX_MANIFESTS {
                self.too_long = true;
                return;
            }
            let checked = self.memo.manifest(self.case, id);
            self.nodes.push(checked.node.clone());
            checked.authorization.into_iter().for_each(|id| self.authorization(id));
            checked.task.into_iter().for_each(|id| self.task(id));
            if !self.stop_at.contains(&id) {
                self.queue.extend(&checked.upstream);
            }
        }
    }

    fn authorization(&mut self, id: StatementId) {
        if self.authorizations.insert(id) {
            let checked = self.memo.authorization(self.case, id);
            self.nodes.extend(checked.map(|(_, node)| node));
        }
    }

    fn task(&mut self, id: StatementId) {
        if self.tasks.insert(id) {
            let checked = self.memo.task(self.case, id);
            checked.authorization.into_iter().for_each(|id| self.authorization(id));
            self.nodes.push(checked.node.clone());
            self.queue.extend(&checked.upstream);
        }
    }

    /// What was met.
    pub(crate) fn end(mut self) -> Trail {
        whole::check(self.case, &mut self.nodes);
        let fails = self.nodes.iter().any(|node| node.findings().next().is_some());
        let holds = !self.nodes.is_empty() && !fails;
        let misses = self.nodes.iter().any(|node| misses(node));
        Trail { holds, misses, too_long: self.too_long, nodes: self.nodes }
    }
}

/// A file that somebody holds.
pub(crate) struct File<'q> {
    pub(crate) name: &'q str,
    pub(crate) digests: &'q Digests,
    pub(crate) size: u64,
}

impl File<'_> {
    /// The verdict on the file, as one that the manifest at the start of the trail lists.
    pub(crate) fn report<'c>(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
        start: Option<StatementId>,
        trail: &Arc<Trail>,
        expect: &Expectation,
    ) -> Report {
        let mut subject = Node::new(NodeKind::Subject, None, format!("file {}", shown(self.name)));
        subject.fact("sha256", self.digests.sha256);
        subject.fact("size", format!("{} bytes", self.size));
        subject.rests_on.extend(start);
        let manifest = start.and_then(|id| {
            Some(*case.statement(id, "manifest", Statement::as_manifest).ok()?.unverified())
        });
        let listed = subject::explained(case, start, self);
        let authority = manifest.map(|manifest| memo.authority_of(case, manifest));
        let outcomes = match (&listed, &authority) {
            (Ok(artifact), Some(Ok(authority))) => Some(Outcomes {
                release: authority.request.release.clone(),
                task: None,
                shared: false,
                inputs: Vec::new(),
                agreeing: BTreeSet::new(),
                artifacts: Vec::from([(*artifact).clone()]),
            }),
            _ => None,
        };
        subject.check(Rule::SubjectExplained, listed.map(|_| ()));
        if let (Some(authority), Some(manifest)) = (authority, manifest) {
            let expected = authority.and_then(|authority| {
                expect.check_release(&authority.request.release)?;
                expect.check_step(authority.product, manifest)
            });
            subject.check(Rule::SubjectExpected, expected);
        }
        subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        report(case, subject, trail.clone(), outcomes)
    }
}

/// What holds whatever is asked about, and the verdict.
fn report(
    case: &Case<'_>,
    mut subject: Node,
    trail: Arc<Trail>,
    outcomes: Option<Outcomes>,
) -> Report {
    subject.check(Rule::EvidenceBudget, budget(case, &trail));
    subject.check(Rule::PolicyFresh, fresh(case));
    let intact = intact(case, &subject, &trail);
    subject.check(Rule::EvidenceIntact, intact);
    subject.checks.sort_by_key(|check| check.rule);
    let (id, newest) = case.policies.newest();
    Report::new(case.now, (newest.version, id), case.count, subject, trail, outcomes)
}

fn budget(case: &Case<'_>, trail: &Trail) -> Result<(), Refusal> {
    let refuse = |at, expected, found| Err(Refusal::new(Code::ChainNodeLimit, at, expected, found));
    if case.too_many {
        let expected = format!("at most {MAX_STATEMENTS} statements");
        return refuse("evidence", expected, case.count.to_string());
    }
    if trail.too_long {
        let expected = format!("at most {MAX_MANIFESTS} manifests");
        return refuse("chain", expected, "more".to_string());
    }
    Ok(())
}

fn fresh(case: &Case<'_>) -> Result<(), Refusal> {
    let (_, newest) = case.policies.newest();
    let seen = case.policies.seen();
    if let Some(seen) = seen.filter(|seen| case.clock.plus(newest.clock_skew) < *seen) {
        let (expected, found) = (format!("a time from {seen}"), case.clock.to_string());
        return Err(Refusal::new(Code::TimeUntrusted, "the clock", expected, found));
    }
    case.fresh()
}

fn misses(node: &Node) -> bool {
    let absent = [
        Code::ChainLinkMissing,
        Code::ChainTaskMissing,
        Code::ChainStepMissing,
        Code::SignoffMissing,
    ];
    node.findings().any(|(_, refusal)| absent.contains(&refusal.code))
}

/// What the chain misses may be here, changed. A changed document that nothing needs is no fault:
/// anybody can add one.
fn intact(case: &Case<'_>, subject: &Node, trail: &Trail) -> Result<(), Refusal> {
    let damaged = if trail.misses || misses(subject) { case.damaged() } else { Vec::new() };
    if damaged.is_empty() {
        return Ok(());
    }
    let some: Vec<String> = damaged.iter().take(4).map(ToString::to_string).collect();
    let found = format!(
        "{} that were changed, and may be what is missing: {}",
        damaged.len(),
        some.join(", ")
    );
    Err(Refusal::new(Code::EnvSignatureInvalid, "evidence", "documents as they were signed", found))
}
