//! The manifest: what a step made, and whether that follows from its task.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Signed, StatementId};
use custody_core::key::KeyId;
use custody_core::name::Pattern;
use custody_core::statement::{
    Artifact, Label, Manifest, Resolution, Resolve, Stage, Statement, Task, worker_uri,
};
use custody_core::{Code, Refusal};

use super::builders::Shared;
use super::environment::{self, Instances, Machine};
use super::inputs::inputs;
use super::{Authority, Checked, authorization, image, source};
use crate::docket::Case;
use crate::judge::shown;
use crate::policy::{Step, listed};
use crate::report::{Node, NodeKind, Rule};
use crate::walk::{Memo, task_missing};

const NO_ENVIRONMENT: &str = "of some steps' machines the policy demands nothing; what their manifests say is the workers' claim";
const NO_RECEIPT: &str = "this policy asks for no receipts; times are the signers' own";

/// Checks a manifest.
pub(crate) fn check<'c>(case: &'c Case<'_>, memo: &mut Memo<'c>, id: StatementId) -> Checked {
    let mut node = Node::new(NodeKind::Manifest, Some(id), format!("manifest {}", id.short()));
    let signed = match case.statement(id, "manifest", Statement::as_manifest) {
        Ok(signed) => signed,
        Err(refusal) => {
            node.check(Rule::ManifestSignature, Err(refusal));
            return Checked::dead_end(node);
        }
    };
    let manifest = *signed.unverified();
    node.title = format!("manifest of step {}", manifest.step);
    node.rests_on.push(manifest.task);
    node.rests_on.extend(manifest.named());
    node.rests_on.extend(manifest.enrolment);
    describe(&mut node, manifest);
    let task = case.statement(manifest.task, "task", Statement::as_task);
    let authorization = task.as_ref().ok().map(|task| task.unverified().authorization);
    let context = task
        .map_err(|refusal| task_missing(refusal, manifest))
        .and_then(|task| Context::of(&signed, task.unverified(), case, memo));
    let mut upstream: Vec<StatementId> = manifest.named().collect();
    match context {
        Err(refusal) => node.check(Rule::ManifestTask, Err(refusal)),
        Ok(context) => upstream.extend(checks(&mut node, case, memo, id, &signed, &context)),
    }
    Checked { node: Arc::new(node), authorization, task: Some(manifest.task), upstream }
}

/// A manifest with what it is held against.
pub(super) struct Context<'x> {
    pub(super) manifest: &'x Manifest,
    pub(super) task: &'x Task,
    pub(super) step: &'x Step,
    pub(super) authority: Authority<'x>,
    /// The key that speaks for the machine, and what is known of the machine.
    key: KeyId,
    machine: Machine,
    instances: Arc<Instances>,
    /// What was used of steps that several machines do: the task, and how many.
    pub(super) shared: BTreeMap<StatementId, (StatementId, usize)>,
}

impl<'x> Context<'x> {
    fn of(
        signed: &Signed<&'x Manifest>,
        task: &'x Task,
        case: &'x Case<'_>,
        memo: &mut Memo<'x>,
    ) -> Result<Self, Refusal> {
        let manifest = *signed.unverified();
        let authority = memo.authority(case, task.authorization)?;
        let step = authority.product.step(&task.step)?;
        let key = speaker(case, signed, step, &authority)?;
        let machine = Machine::of(case, manifest, &key, authority.policy);
        let used = manifest.upstream.iter();
        let shared = used.filter_map(|id| Some((*id, memo.shared(case, *id)?))).collect();
        let instances = memo.instances(case);
        Ok(Self { manifest, task, step, authority, key, machine, instances, shared })
    }
}

/// The key that speaks for the machine: of those that may sign and are of the machine that the manifest
/// names, or else of all that did, the first.
fn speaker(
    case: &Case<'_>,
    signed: &Signed<&Manifest>,
    step: &Step,
    authority: &Authority<'_>,
) -> Result<KeyId, Refusal> {
    let manifest = *signed.unverified();
    let may = |signer: &_| {
        let machine = case.performer(authority.policy, signer, &step.perform, manifest);
        machine.is_ok_and(|machine| worker_uri(&machine) == manifest.builder)
    };
    let key = signed.signers().iter().map(|signer| (!may(signer), signer.key)).min();
    key.map(|(_, key)| key).ok_or_else(|| {
        Refusal::new(Code::EnvKeyUnknown, "the manifest", "a signature", "none that is known")
    })
}

fn describe(node: &mut Node, manifest: &Manifest) {
    let bytes =
        manifest.artifacts.iter().fold(0_u64, |sum, artifact| sum.saturating_add(artifact.size));
    let count = manifest.artifacts.len();
    let noun = if count == 1 { "artifact" } else { "artifacts" };
    node.fact("made", format!("{count} {noun}, {bytes} bytes"));
    node.fact("ran", format!("{} to {}", manifest.started, manifest.finished));
    if let Some(destination) = &manifest.destination {
        node.fact("published to", shown(destination));
    }
    if let Some(image) = &manifest.image {
        node.fact("ran in", image::used_image(image));
    }
}

/// Applies the rules. Gives the manifests of other machines that must agree with this one.
fn checks<'c>(
    node: &mut Node,
    case: &'c Case<'_>,
    memo: &mut Memo<'c>,
    id: StatementId,
    signed: &Signed<&Manifest>,
    context: &Context<'c>,
) -> Vec<StatementId> {
    let verified = performed(case, signed, context);
    if let Ok(machines) = &verified {
        node.fact("performed by", machines);
    }
    enrolment(node, case, context);
    context.machine.describe(node, context.step);
    node.check(Rule::ManifestSignature, verified.map(|_| ()));
    node.check(Rule::ManifestTask, as_asked(case, context));
    node.check(Rule::ManifestOutputs, outputs(context));
    node.check(Rule::ManifestInputs, inputs(case, context));
    let source = source::check(case, &context.authority, context.task, context.manifest);
    if let Ok(Some(person)) = &source {
        node.fact("source signed by", person);
    }
    node.check(Rule::ManifestSource, source.map(|_| ()));
    match environment(context) {
        Ok(false) => node.not_required(Rule::ManifestEnvironment, NO_ENVIRONMENT),
        demanded => node.check(Rule::ManifestEnvironment, demanded.map(|_| ())),
    }
    node.check(Rule::ManifestTime, time(case, context));
    let (single, others) = if context.step.is_shared() {
        let shared = context.shared_task();
        match shared.agreed(case, memo, id) {
            Ok(others) => (Ok(()), others),
            Err(refusal) => (Err(refusal), Vec::new()),
        }
    } else {
        (single(case, memo, id, context), Vec::new())
    };
    node.check(Rule::ManifestSingle, single);
    node.not_required(Rule::ManifestReceipt, NO_RECEIPT);
    others
}

/// Who certified the worker's key, and for how long.
fn enrolment(node: &mut Node, case: &Case<'_>, context: &Context<'_>) {
    let policy = context.authority.policy;
    let Some((enrolment, _)) = case.enrolled_facts(policy, context.manifest) else { return };
    let signed = context
        .manifest
        .enrolment
        .map(|id| case.statement(id, "enrolment", Statement::as_enrolment));
    let signers = signed.and_then(Result::ok).map(|signed| signed.signers().to_vec());
    let signers = signers.unwrap_or_default();
    let by = listed(signers.iter().filter_map(|signer| policy.owner(&signer.key)));
    node.fact("enrolled by", format!("{by}, {} to {}", enrolment.from, enrolment.until));
}

impl<'x> Context<'x> {
    fn shared_task(&self) -> Shared<'_, 'x> {
        let (id, task) = (self.manifest.task, self.task);
        Shared { id, task, step: self.step, authority: &self.authority }
    }
}

/// The machines that performed the step.
fn performed(
    case: &Case<'_>,
    signed: &Signed<&Manifest>,
    context: &Context<'_>,
) -> Result<String, Refusal> {
    let (policy, step) = (context.authority.policy, context.step);
    let perform = |signer: &_| {
        let machine = case.performer(policy, signer, &step.perform, context.manifest)?;
        named("builder.id", worker_uri(&machine), &context.manifest.builder).map(|()| machine)
    };
    Ok(signed.clone().verify(NonZeroU32::MIN, perform)?.principals().join(", "))
}

fn environment(context: &Context<'_>) -> Result<bool, Refusal> {
    let (step, made) = (context.step, (context.manifest, &context.key));
    environment::check(step, made, &context.machine, &context.instances)
}

/// What will be found of the machine of a manifest that this key is to sign, as far as it is known.
pub(crate) fn machine(case: &Case<'_>, draft: &Manifest, key: &KeyId) -> Result<(), Refusal> {
    let task = case.statement(draft.task, "task", Statement::as_task)?;
    let task = *task.unverified();
    let (authority, _) = authorization::check(case, task.authorization)?;
    let step = authority.product.step(&task.step)?;
    image::check(case, draft, task, step)?;
    let machine = Machine::of(case, draft, key, authority.policy);
    environment::check(step, (draft, key), &machine, &Instances::among(case)).map(|_| ())
}

/// Whether a manifest of a task holds by itself, whatever others made; and what is known of its machine.
pub(crate) fn sound<'c>(
    case: &'c Case<'_>,
    memo: &mut Memo<'c>,
    id: StatementId,
    shared: &Shared<'_, 'c>,
) -> Result<(bool, Machine), Refusal> {
    let signed = case.statement(id, "manifest", Statement::as_manifest)?;
    let context = Context::of(&signed, shared.task, case, memo)?;
    let holds = performed(case, &signed, &context).is_ok()
        && as_asked(case, &context).is_ok()
        && outputs(&context).is_ok()
        && inputs(case, &context).is_ok()
        && source::check(case, &context.authority, context.task, context.manifest).is_ok()
        && environment(&context).is_ok()
        && time(case, &context).is_ok();
    Ok((holds, context.machine))
}

/// SLSA has a consumer accept certain pairs of signer and name only. Here there is one name for each
/// signer.
pub(crate) fn named(member: &str, expected: String, found: &str) -> Result<(), Refusal> {
    if found == expected {
        return Ok(());
    }
    Err(Refusal::new(Code::PolicyKeyPurpose, member, expected, shown(found)))
}

fn as_asked(case: &Case<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task) = (context.manifest, context.task);
    let joined = |words: &[String]| shown(&words.join(" "));
    let destination =
        |place: &Option<String>| place.as_deref().map_or_else(|| "none".into(), shown);
    let pairs = [
        (
            manifest.step == task.step,
            Code::ChainStepMismatch,
            "step",
            task.step.to_string(),
            manifest.step.to_string(),
        ),
        (
            manifest.command == task.command,
            Code::GateCommandMismatch,
            "command",
            joined(&task.command),
            joined(&manifest.command),
        ),
        (
            manifest.creator == task.creator,
            Code::ChainTaskMismatch,
            "task creator",
            shown(&task.creator),
            shown(&manifest.creator),
        ),
        (
            manifest.destination == task.destination,
            Code::ChainTaskMismatch,
            "destination",
            destination(&task.destination),
            destination(&manifest.destination),
        ),
    ];
    for (same, code, what, expected, found) in pairs {
        if !same {
            return Err(Refusal::new(
                code,
                format!("manifest of step {}, {what}", manifest.step),
                expected,
                found,
            ));
        }
    }
    image::check(case, manifest, task, context.step)
}

fn outputs(context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task, step) = (context.manifest, context.task, context.step);
    let at = format!("manifest of step {}", manifest.step);
    let named: [(&[_], &str); 2] = [(&task.outputs, "the task"), (&step.outputs, "the policy")];
    for artifact in &manifest.artifacts {
        for (patterns, who) in named {
            if !patterns.iter().any(|pattern| pattern.matches(&artifact.name)) {
                let listed: Vec<&str> = patterns.iter().map(Pattern::as_str).collect();
                return Err(Refusal::new(
                    Code::ArtUnlisted,
                    at,
                    format!("a name that {who} allows: {}", listed.join(", ")),
                    artifact.name.as_str(),
                ));
            }
        }
    }
    let unmet = task
        .outputs
        .iter()
        .find(|pattern| !manifest.artifacts.iter().any(|artifact| pattern.matches(&artifact.name)));
    if let Some(pattern) = unmet {
        return Err(Refusal::new(
            Code::ArtMissing,
            at,
            format!("an artifact that fits {pattern}"),
            "none",
        ));
    }
    if let Some(artifact) =
        manifest.artifacts.iter().find(|artifact| task.sha512 && artifact.digests.sha512.is_none())
    {
        return Err(Refusal::new(
            Code::StmtDigestMissing,
            at,
            "sha512, as the task asks",
            artifact.name.as_str(),
        ));
    }
    if task.destination.is_some() {
        return published(context, at);
    }
    Ok(())
}

/// What is published is what went in, byte for byte, under its own file name.
fn published(context: &Context<'_>, at: String) -> Result<(), Refusal> {
    let inputs = &context.manifest.inputs;
    let mut by_name: BTreeMap<&str, Vec<&Artifact>> = BTreeMap::new();
    for input in inputs {
        by_name.entry(input.artifact.name.file_name()).or_default().push(&input.artifact);
    }
    for artifact in &context.manifest.artifacts {
        let went_in = by_name.get(artifact.name.as_str()).map(Vec::as_slice).unwrap_or_default();
        if !went_in.iter().any(|input| input.same_bytes(artifact)) {
            return Err(Refusal::new(
                Code::ChainInputUnaccounted,
                at,
                "only what went in",
                artifact.name.as_str(),
            ));
        }
    }
    if inputs.len() == context.manifest.artifacts.len() {
        return Ok(());
    }
    let (expected, found) =
        (format!("{} files", inputs.len()), format!("{} files", context.manifest.artifacts.len()));
    Err(Refusal::new(Code::ArtMissing, at, expected, found))
}

fn time(case: &Case<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task, skew) =
        (context.manifest, context.task, context.authority.policy.clock_skew);
    let at = format!("manifest of step {}", manifest.step);
    let refuse = |code, expected: String, found: custody_core::time::Time| {
        Err(Refusal::new(code, at.clone(), expected, found.to_string()))
    };
    if manifest.started > task.deadline.plus(skew) {
        return refuse(Code::ChainStale, format!("a start by {}", task.deadline), manifest.started);
    }
    if manifest.started.plus(skew) < task.created
        || manifest.finished < manifest.started
        || manifest.finished > case.now.plus(skew)
    {
        let expected = format!("a run between {} and {}", task.created, case.now);
        return refuse(Code::ChainTimeOrder, expected, manifest.finished);
    }
    for id in manifest.named() {
        let Ok(upstream) = case.statement(id, "manifest", Statement::as_manifest) else {
            continue;
        };
        if manifest.started.plus(skew) < upstream.unverified().finished {
            let expected = format!("a start after its input of {}", upstream.unverified().finished);
            return refuse(Code::ChainTimeOrder, expected, manifest.started);
        }
    }
    Ok(())
}

/// One task authorizes one result. Of several only the one holds that a person's signed word names.
fn single<'c>(
    case: &'c Case<'_>,
    memo: &mut Memo<'c>,
    id: StatementId,
    context: &Context<'c>,
) -> Result<(), Refusal> {
    let Context { step, authority, .. } = context;
    let results = memo.results(case, context.manifest.task, step, authority);
    if results.len() < 2 {
        return Ok(());
    }
    if superseded(case, context.manifest.task, &context.authority) == Some(id) {
        return Ok(());
    }
    let at = format!("task of step {} ({})", context.task.step, context.manifest.task.short());
    Err(Refusal::new(Code::ChainForked, at, "one manifest", several(&results)))
}

/// Several manifests of one task, in words: the first of them, for there may be any number.
fn several(results: &[StatementId]) -> String {
    const SHOWN: usize = 4;
    let first: Vec<String> = results.iter().take(SHOWN).map(ToString::to_string).collect();
    match results.len().saturating_sub(SHOWN) {
        0 => first.join(" and "),
        more => format!("{}, and {more} more", first.join(", ")),
    }
}

/// Whether somebody who may perform the step signed the manifest.
pub(crate) fn is_entitled(
    case: &Case<'_>,
    id: StatementId,
    step: &Step,
    authority: &Authority<'_>,
) -> bool {
    case.statement(id, "manifest", Statement::as_manifest).is_ok_and(|signed| {
        let manifest = *signed.unverified();
        let perform =
            |signer: &_| case.performer(authority.policy, signer, &step.perform, manifest);
        signed.verify(NonZeroU32::MIN, perform).is_ok()
    })
}

/// What to do where people must say which of several manifests holds.
pub(crate) fn to_choose(task: StatementId, authority: &Authority<'_>) -> String {
    let who = listed(&authority.product.resolve);
    format!(
        "find out which of them is right; then one of {who} says so: custody release resolve {task} --supersede MANIFEST --as PERSON --reason WHY --key KEY"
    )
}

/// The manifests of a task that somebody who may perform the step signed.
pub(crate) fn entitled_results(
    case: &Case<'_>,
    task: StatementId,
    step: &Step,
    authority: &Authority<'_>,
) -> Vec<StatementId> {
    let entitled = |id: &&StatementId| is_entitled(case, **id, step, authority);
    case.manifests_of(task).iter().filter(entitled).copied().collect()
}

/// The manifest that a person chose among several results. Two words that contradict each other choose none.
pub(crate) fn superseded(
    case: &Case<'_>,
    task: StatementId,
    authority: &Authority<'_>,
) -> Option<StatementId> {
    let chosen = chosen(case, task, authority);
    if chosen.len() == 1 { chosen.first().copied() } else { None }
}

/// The manifests that people who may resolve chose among several results.
pub(crate) fn chosen(
    case: &Case<'_>,
    task: StatementId,
    authority: &Authority<'_>,
) -> BTreeSet<StatementId> {
    case.about(task)
        .filter_map(|said| {
            let signed = said.narrow(Statement::as_resolution)?;
            let resolution = *signed.unverified();
            let Resolve::Supersede(manifest) = resolution.resolve else { return None };
            entitled_to_resolve(case, authority, &signed).ok().map(|()| manifest)
        })
        .collect()
}

/// Whether a resolution is signed by the person whom it names, who may resolve.
fn entitled_to_resolve(
    case: &Case<'_>,
    authority: &Authority<'_>,
    signed: &Signed<&Resolution>,
) -> Result<(), Refusal> {
    let resolution = *signed.unverified();
    let named: BTreeSet<Label> = authority
        .product
        .resolve
        .iter()
        .filter(|person| **person == resolution.person)
        .cloned()
        .collect();
    let person = |signer: &_| {
        case.entitled(authority.policy, signer, &named, resolution.created, "the resolution")
    };
    signed.clone().verify(NonZeroU32::MIN, person).map(|_| ())
}

/// A task that has a result is done. One whose act was announced and not finished is in doubt, until
/// for each announcement a person who may resolve has said that it be taken up again.
///
/// Whoever some policy of the chain lets or let perform the step counts here, revoked or not: such a
/// worker may have done the act before. Nobody else can block a task.
pub(crate) fn once(
    case: &Case<'_>,
    id: StatementId,
    authority: &Authority<'_>,
) -> Result<(), Refusal> {
    let refuse = |found: String, advice: String| {
        let (at, expected) = (format!("task {}", id.short()), "a task that was not begun");
        Err(Refusal::new(Code::GateAlreadyExecuted, at, expected, found).advising(advice))
    };
    let task = case.statement(id, "task", Statement::as_task)?;
    let step = &task.unverified().step;
    let mut results =
        case.manifests_of(id).iter().filter(|id| case.could_perform_by_id(**id, step));
    if let Some(done) = results.next() {
        return refuse(
            format!("its manifest {done}"),
            format!("look at what it made: custody show {done}"),
        );
    }
    let resumed: BTreeSet<StatementId> = case
        .about(id)
        .filter_map(|said| {
            let signed = said.narrow(Statement::as_resolution)?;
            let Resolve::Resume(intent) = signed.unverified().resolve else { return None };
            entitled_to_resolve(case, authority, &signed).ok().map(|()| intent)
        })
        .collect();
    let mut in_doubt = case
        .about(id)
        .filter(|said| case.could_perform(said, step))
        .filter(|said| {
            let intent = said.unverified().as_intent();
            intent.is_some_and(|intent| intent.stage == Stage::Announced)
        })
        .map(Signed::id)
        .filter(|intent| !resumed.contains(intent));
    if let Some(intent) = in_doubt.next() {
        let found = format!(
            "announced by intent {intent}, which no signed resolution takes up again: it is in doubt"
        );
        let who = listed(&authority.product.resolve);
        return refuse(
            found,
            format!(
                "look at what reached the destination; then one of {who} says: custody release resolve {id} --resume --intent {intent} --as PERSON --reason WHY --key KEY"
            ),
        );
    }
    Ok(())
}

/// The one manifest of a task that a gate may build on: of those that somebody who may perform the
/// step signed, the only one, or the one that a resolution names; where several machines do the task, one
/// of those that agree, and the others. The walk checks them when it gets there.
pub(crate) fn only_result<'c>(
    case: &'c Case<'_>,
    memo: &mut Memo<'c>,
    task: StatementId,
    authority: &Authority<'c>,
) -> Result<(StatementId, Vec<StatementId>), Refusal> {
    let at = format!("task {}", task.short());
    let signed = case.statement(task, "task", Statement::as_task)?;
    let content = *signed.unverified();
    let step = authority.product.step(&content.step)?;
    if step.is_shared() {
        return Shared { id: task, task: content, step, authority }.any_agreed(case, memo);
    }
    let entitled = memo.results(case, task, step, authority);
    match (&*entitled, case.manifests_of(task)) {
        ([one], _) | ([], [one, ..]) => Ok((*one, Vec::new())),
        ([], []) => {
            let found = "none: the step has not run, or its manifest is not among the evidence";
            let at = format!("task of step {} ({})", content.step, task.short());
            let refusal = Refusal::new(Code::ChainLinkMissing, at, "its manifest", found);
            Err(refusal.advising(super::to_run(task)))
        }
        (all, _) => {
            let chosen = superseded(case, task, authority).filter(|id| all.contains(id));
            chosen.map(|id| (id, Vec::new())).ok_or_else(|| {
                Refusal::new(Code::ChainForked, at, "one manifest", several(all))
                    .advising(to_choose(task, authority))
            })
        }
    }
}
