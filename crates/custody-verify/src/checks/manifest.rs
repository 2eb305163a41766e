//! The manifest: what a step made, and whether that follows from its task.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Signed, StatementId};
use custody_core::statement::{InputOrigin, Label, Manifest, Origin, Resolve, Statement, Task, VerificationResult};
use custody_core::{Code, Refusal};

use super::Authority;
use crate::judge::{Case, Walk, shown, task_missing};
use crate::policy::Step;
use crate::report::{LEVEL, Node, NodeKind, Rule, resource_uri};

const NO_ENVIRONMENT: &str = "this policy demands nothing of the machine; what the manifest says of it is the worker's claim";
const NO_RECEIPT: &str = "this policy asks for no receipts; times are the signers' own";

/// Checks a manifest, its task and its authorization. Gives the manifests that it rests on.
pub(crate) fn check(walk: &mut Walk<'_, '_>, id: StatementId) -> Vec<StatementId> {
    let case = walk.case;
    let mut node = Node::new(NodeKind::Manifest, Some(id), format!("manifest {}", id.short()));
    let signed = match case.statement(id, "manifest", Statement::as_manifest) {
        Ok(signed) => signed,
        Err(refusal) => {
            node.check(Rule::ManifestSignature, Err(refusal));
            walk.nodes.push(node);
            return Vec::new();
        }
    };
    let manifest = *signed.unverified();
    node.title = format!("manifest of step {}", manifest.step);
    node.rests_on.push(manifest.task);
    node.rests_on.extend(&manifest.upstream);
    describe(&mut node, manifest);
    let position = walk.nodes.len();
    walk.nodes.push(node);
    let checks = match context(walk, manifest) {
        Err(refusal) => {
            let mut node = Node::new(NodeKind::Manifest, None, String::new());
            node.check(Rule::ManifestTask, Err(refusal));
            node
        }
        Ok((task, step, authority)) => checks(case, id, &signed, &Context { manifest, task: &task, step, authority: &authority }),
    };
    walk.task(manifest.task);
    if let Some(node) = walk.nodes.get_mut(position) {
        node.facts.extend(checks.facts);
        node.checks.extend(checks.checks);
    }
    manifest.upstream.clone()
}

struct Context<'x> {
    manifest: &'x Manifest,
    task: &'x Task,
    step: &'x Step,
    authority: &'x Authority<'x>,
}

fn context<'c>(walk: &mut Walk<'c, '_>, manifest: &Manifest) -> Result<(&'c Task, &'c Step, Authority<'c>), Refusal> {
    let task = walk.case.statement(manifest.task, "task", Statement::as_task);
    let task = *task.map_err(|refusal| task_missing(refusal, manifest))?.unverified();
    let authority = walk.authority(task.authorization)?;
    Ok((task, authority.product.step(&task.step)?, authority))
}

fn describe(node: &mut Node, manifest: &Manifest) {
    let bytes = manifest.artifacts.iter().fold(0_u64, |sum, artifact| sum.saturating_add(artifact.size));
    node.fact("made", format!("{} artifacts, {bytes} bytes", manifest.artifacts.len()));
    node.fact("ran", format!("{} to {}", manifest.started, manifest.finished));
    if let Some(destination) = &manifest.destination {
        node.fact("published to", shown(destination));
    }
}

fn checks(case: &Case<'_>, id: StatementId, signed: &Signed<&Manifest>, context: &Context<'_>) -> Node {
    let mut node = Node::new(NodeKind::Manifest, None, String::new());
    let (policy, step) = (context.authority.policy, context.step);
    let perform = |signer: &_| policy.entitled(signer, &step.perform, context.manifest.finished, "the manifest");
    let verified = case.unrevoked(signed).and_then(|()| signed.clone().verify(NonZeroU32::MIN, perform));
    if let Ok(verified) = &verified {
        node.fact("performed by", verified.principals().join(", "));
    }
    node.check(Rule::ManifestSignature, verified.map(|_| ()));
    node.check(Rule::ManifestTask, as_asked(context));
    node.check(Rule::ManifestOutputs, outputs(context));
    node.check(Rule::ManifestInputs, inputs(case, context));
    node.check(Rule::ManifestSource, source(context));
    node.not_required(Rule::ManifestEnvironment, NO_ENVIRONMENT);
    node.check(Rule::ManifestTime, time(case, context));
    node.check(Rule::ManifestSingle, single(case, id, context));
    node.not_required(Rule::ManifestReceipt, NO_RECEIPT);
    node
}

fn as_asked(context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task) = (context.manifest, context.task);
    let joined = |words: &[String]| shown(&words.join(" "));
    let destination = |place: &Option<String>| place.as_deref().map_or_else(|| "none".into(), shown);
    let pairs = [
        (manifest.step == task.step, Code::ChainStepMismatch, "step", task.step.to_string(), manifest.step.to_string()),
        (manifest.command == task.command, Code::GateCommandMismatch, "command", joined(&task.command), joined(&manifest.command)),
        (manifest.creator == task.creator, Code::ChainTaskMismatch, "task creator", shown(&task.creator), shown(&manifest.creator)),
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
            return Err(Refusal::new(code, format!("manifest of step {}, {what}", manifest.step), expected, found));
        }
    }
    Ok(())
}

fn outputs(context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task, step) = (context.manifest, context.task, context.step);
    let at = format!("manifest of step {}", manifest.step);
    let named: [(&[_], &str); 2] = [(&task.outputs, "the task"), (&step.outputs, "the policy")];
    for artifact in &manifest.artifacts {
        for (patterns, who) in named {
            if !patterns.iter().any(|pattern| pattern.matches(&artifact.name)) {
                let listed: Vec<&str> = patterns.iter().map(|pattern| pattern.as_str()).collect();
                return Err(Refusal::new(Code::ArtUnlisted, at, format!("a name that {who} allows: {}", listed.join(", ")), artifact.name.as_str()));
            }
        }
    }
    let unmet = task.outputs.iter().find(|pattern| !manifest.artifacts.iter().any(|artifact| pattern.matches(&artifact.name)));
    if let Some(pattern) = unmet {
        return Err(Refusal::new(Code::ArtMissing, at, format!("an artifact that fits {pattern}"), "none"));
    }
    if task.destination.is_some() {
        return published(context, at);
    }
    Ok(())
}

/// What is published is what went in, byte for byte, under its own file name.
fn published(context: &Context<'_>, at: String) -> Result<(), Refusal> {
    let inputs = &context.manifest.inputs;
    for artifact in &context.manifest.artifacts {
        let same = |input: &custody_core::statement::UsedInput| {
            input.artifact.same_bytes(artifact) && input.artifact.name.file_name() == artifact.name.as_str()
        };
        if !inputs.iter().any(same) {
            return Err(Refusal::new(Code::ChainInputUnaccounted, at, "only what went in", artifact.name.as_str()));
        }
    }
    if inputs.len() == context.manifest.artifacts.len() {
        return Ok(());
    }
    let (expected, found) = (format!("{} files", inputs.len()), format!("{} files", context.manifest.artifacts.len()));
    Err(Refusal::new(Code::ArtMissing, at, expected, found))
}

fn inputs(case: &Case<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task) = (context.manifest, context.task);
    let at = format!("manifest of step {}", manifest.step);
    let mut used: BTreeMap<(&InputOrigin, &custody_core::name::ArtifactName), &custody_core::statement::UsedInput> = BTreeMap::new();
    for input in &manifest.inputs {
        if used.insert((&input.origin, &input.artifact.name), input).is_some() {
            return Err(Refusal::new(Code::StmtSubjectDuplicate, at, "each input once", input.artifact.name.as_str()));
        }
    }
    let origins: BTreeSet<StatementId> = manifest.inputs.iter().filter_map(|input| match input.origin {
        InputOrigin::Manifest(id) => Some(id),
        InputOrigin::External(_) => None,
    }).collect();
    let upstream: BTreeSet<StatementId> = manifest.upstream.iter().copied().collect();
    if origins != upstream || upstream.len() != manifest.upstream.len() {
        let found = format!("{} named, {} used", upstream.len(), origins.len());
        return Err(Refusal::new(Code::ChainInputUnaccounted, at, "each manifest named that was used, and no other", found));
    }
    let mut explained: usize = 0;
    for id in &upstream {
        explained = explained.saturating_add(from_upstream(case, context, *id, &used)?);
    }
    for external in &task.externals {
        let origin = InputOrigin::External(external.uri.clone());
        let input = used.get(&(&origin, &external.artifact.name));
        match input {
            Some(input) if input.artifact.same_bytes(&external.artifact) => explained = explained.saturating_add(1),
            Some(input) => return Err(differs(&at, &external.artifact, &input.artifact)),
            None => return Err(Refusal::new(Code::ArtMissing, at, format!("the external {}", external.artifact.name), "not used")),
        }
    }
    if explained == manifest.inputs.len() {
        return unused_inputs(case, context, &upstream);
    }
    let stray = manifest.inputs.iter().find(|input| matches!(&input.origin, InputOrigin::External(uri) if !task.externals.iter().any(|external| external.uri == *uri)));
    let name = stray.map_or_else(|| "an input twice".to_string(), |input| input.artifact.name.to_string());
    Err(Refusal::new(Code::ChainInputUnaccounted, at, "inputs that the task names", name))
}

fn differs(at: &str, expected: &custody_core::statement::Artifact, found: &custody_core::statement::Artifact) -> Refusal {
    let shown = |artifact: &custody_core::statement::Artifact| format!("sha256 {}, {} bytes", artifact.digests.sha256, artifact.size);
    Refusal::new(Code::ArtDigestMismatch, format!("{at}, input {}", expected.name), shown(expected), shown(found))
}

/// Holds what was used of one upstream manifest against what that manifest lists and the task asks
/// for: neither more nor less.
fn from_upstream(
    case: &Case<'_>,
    context: &Context<'_>,
    id: StatementId,
    used: &BTreeMap<(&InputOrigin, &custody_core::name::ArtifactName), &custody_core::statement::UsedInput>,
) -> Result<usize, Refusal> {
    let at = format!("manifest of step {}", context.manifest.step);
    let signed = case.statement(id, "manifest", Statement::as_manifest).map_err(|refusal| refusal.within(&at))?;
    let upstream = *signed.unverified();
    let by_task = Origin::Task(upstream.task);
    let by_manifest = Origin::Manifest(id);
    let named = context.task.inputs.iter().any(|input| input.origin == by_task || input.origin == by_manifest);
    if !named {
        return Err(Refusal::new(Code::ChainInputUnaccounted, at, "inputs that the task names", format!("a product of step {} ({})", upstream.step, id.short())));
    }
    let origin = InputOrigin::Manifest(id);
    let mut count: usize = 0;
    for artifact in &upstream.artifacts {
        let wanted = context.task.wants(by_task, &artifact.name) || context.task.wants(by_manifest, &artifact.name);
        match used.get(&(&origin, &artifact.name)) {
            Some(input) if !input.artifact.same_bytes(artifact) => return Err(differs(&at, artifact, &input.artifact)),
            Some(_) if wanted => count = count.saturating_add(1),
            Some(_) => return Err(Refusal::new(Code::ChainInputUnaccounted, at, "inputs that the task asks for", artifact.name.as_str())),
            None if wanted => return Err(Refusal::new(Code::ArtMissing, at, format!("{}, which the task asks for", artifact.name), "not used")),
            None => {}
        }
        named_in_request(context, by_manifest, artifact, &at)?;
    }
    let from_here = used.keys().filter(|(from, _)| **from == origin).count();
    if from_here == count {
        return Ok(count);
    }
    let stray = used.keys().find(|(from, name)| **from == origin && upstream.artifact(name).is_none());
    let name = stray.map_or_else(String::new, |(_, name)| name.to_string());
    Err(Refusal::new(Code::ChainInputUnaccounted, at, format!("products of step {} ({})", upstream.step, id.short()), name))
}

/// What comes from an earlier phase or another release must be among the files that people signed off.
fn named_in_request(context: &Context<'_>, origin: Origin, artifact: &custody_core::statement::Artifact, at: &str) -> Result<(), Refusal> {
    let Origin::Manifest(id) = origin else { return Ok(()) };
    if !context.task.wants(origin, &artifact.name) {
        return Ok(());
    }
    let entry = context.authority.request.builds_on.iter().find(|entry| entry.manifest == id);
    let listed = entry.and_then(|entry| entry.artifacts.iter().find(|listed| listed.name == artifact.name));
    match listed {
        Some(listed) if listed.same_bytes(artifact) => Ok(()),
        Some(listed) => Err(differs(at, listed, artifact)),
        None => Err(Refusal::new(Code::SignoffContentMismatch, at, "files that the request names", artifact.name.as_str())),
    }
}

/// Every input that the task names was used.
fn unused_inputs(case: &Case<'_>, context: &Context<'_>, upstream: &BTreeSet<StatementId>) -> Result<(), Refusal> {
    let tasks: BTreeSet<StatementId> = upstream
        .iter()
        .filter_map(|id| case.statement(*id, "manifest", Statement::as_manifest).ok().map(|signed| signed.unverified().task))
        .collect();
    let missing = context.task.inputs.iter().find(|input| match input.origin {
        Origin::Task(id) => !tasks.contains(&id),
        Origin::Manifest(id) => !upstream.contains(&id),
    });
    missing.map_or(Ok(()), |input| {
        let at = format!("manifest of step {}", context.manifest.step);
        Err(Refusal::new(Code::ChainInputUnaccounted, at, format!("the inputs {} that the task names", input.directory), "not used"))
    })
}

fn source(context: &Context<'_>) -> Result<(), Refusal> {
    if context.manifest.source == context.task.source {
        return Ok(());
    }
    let show = |source: &Option<custody_core::statement::Source>| source.as_ref().map_or_else(|| "none".to_string(), |source| shown(&source.to_string()));
    let at = format!("manifest of step {}, source", context.manifest.step);
    Err(Refusal::new(Code::ChainSourceMismatch, at, show(&context.task.source), show(&context.manifest.source)))
}

fn time(case: &Case<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task, skew) = (context.manifest, context.task, context.authority.policy.clock_skew);
    let at = format!("manifest of step {}", manifest.step);
    let refuse = |code, expected: String, found: custody_core::time::Time| Err(Refusal::new(code, at.clone(), expected, found.to_string()));
    if manifest.started > task.deadline.plus(skew) {
        return refuse(Code::ChainStale, format!("a start by {}", task.deadline), manifest.started);
    }
    if manifest.started.plus(skew) < task.created || manifest.finished < manifest.started || manifest.finished > case.now.plus(skew) {
        let expected = format!("a run between {} and {}", task.created, case.now);
        return refuse(Code::ChainTimeOrder, expected, manifest.finished);
    }
    for id in &manifest.upstream {
        let Ok(upstream) = case.statement(*id, "manifest", Statement::as_manifest) else { continue };
        if manifest.started.plus(skew) < upstream.unverified().finished {
            let expected = format!("a start after its input of {}", upstream.unverified().finished);
            return refuse(Code::ChainTimeOrder, expected, manifest.started);
        }
    }
    Ok(())
}

/// One task authorizes one result. Of several only the one holds that a person's signed word names.
fn single(case: &Case<'_>, id: StatementId, context: &Context<'_>) -> Result<(), Refusal> {
    let results = entitled_results(case, context.manifest.task, context.step, context.authority);
    if results.len() < 2 {
        return Ok(());
    }
    if superseded(case, context) == Some(id) {
        return Ok(());
    }
    let both: Vec<String> = results.iter().map(ToString::to_string).collect();
    let at = format!("task of step {} ({})", context.task.step, context.manifest.task.short());
    Err(Refusal::new(Code::ChainForked, at, "one manifest", both.join(" and ")))
}

/// The manifests of a task that somebody who may perform the step signed.
fn entitled_results(case: &Case<'_>, task: StatementId, step: &Step, authority: &Authority<'_>) -> Vec<StatementId> {
    let entitled = |id: &&StatementId| {
        case.statement(**id, "manifest", Statement::as_manifest).is_ok_and(|signed| {
            let finished = signed.unverified().finished;
            let perform = |signer: &_| authority.policy.entitled(signer, &step.perform, finished, "the manifest");
            signed.verify(NonZeroU32::MIN, perform).is_ok()
        })
    };
    case.manifests_of(task).iter().filter(entitled).copied().collect()
}

fn superseded(case: &Case<'_>, context: &Context<'_>) -> Option<StatementId> {
    let chosen: BTreeSet<StatementId> = case
        .about(context.manifest.task)
        .filter_map(|said| {
            let signed = said.narrow(Statement::as_resolution)?;
            let resolution = *signed.unverified();
            let Resolve::Supersede(manifest) = resolution.resolve else { return None };
            entitled_to_resolve(case, context.authority, &signed).ok().map(|()| manifest)
        })
        .collect();
    if chosen.len() == 1 { chosen.first().copied() } else { None }
}

/// Whether a resolution is signed by the person whom it names, who may resolve.
fn entitled_to_resolve(case: &Case<'_>, authority: &Authority<'_>, signed: &Signed<&custody_core::statement::Resolution>) -> Result<(), Refusal> {
    let resolution = *signed.unverified();
    case.unrevoked(signed)?;
    let named: BTreeSet<Label> = authority.product.resolve.iter().filter(|person| **person == resolution.person).cloned().collect();
    let person = |signer: &_| authority.policy.entitled(signer, &named, resolution.created, "the resolution");
    signed.clone().verify(NonZeroU32::MIN, person).map(|_| ())
}

/// A task that has a result is done. One whose act was announced and not finished is in doubt, until
/// for each announcement a person who may resolve has said that it be taken up again.
pub(crate) fn once(case: &Case<'_>, id: StatementId, step: &Step, authority: &Authority<'_>) -> Result<(), Refusal> {
    let at = format!("task {}", id.short());
    let refuse = |found| Err(Refusal::new(Code::GateAlreadyExecuted, at, "a task that was not begun", found));
    if let Some(done) = case.manifests_of(id).first() {
        return refuse(format!("its manifest {done}"));
    }
    let announced = case.about(id).filter_map(|said| said.narrow(Statement::as_intent)).filter(|signed| {
        let created = signed.unverified().created;
        let perform = |signer: &_| authority.policy.entitled(signer, &step.perform, created, "the intent");
        signed.clone().verify(NonZeroU32::MIN, perform).is_ok()
    });
    let resumed = case.about(id).filter_map(|said| said.narrow(Statement::as_resolution)).filter(|signed| {
        signed.unverified().resolve == Resolve::Resume && entitled_to_resolve(case, authority, signed).is_ok()
    });
    let (announced, resumed) = (announced.count(), resumed.count());
    if announced > resumed {
        return refuse(format!("announced {announced} times, taken up again by {resumed} signed resolutions: it is in doubt"));
    }
    Ok(())
}

/// The one manifest of a task that a gate may build on. Which of several holds is judged when the
/// walk gets there; here the one that a resolution names is taken.
pub(crate) fn only_result(case: &Case<'_>, task: StatementId) -> Result<StatementId, Refusal> {
    let at = format!("task {}", task.short());
    match case.manifests_of(task) {
        [] => Err(Refusal::new(Code::ChainLinkMissing, at, "its manifest", "none: the step has not run, or its manifest is not among the evidence")),
        [one] => Ok(*one),
        several => {
            let named = case.about(task).filter_map(|said| match said.unverified().as_resolution()?.resolve {
                Resolve::Supersede(id) => Some(id),
                Resolve::Resume => None,
            });
            let chosen: BTreeSet<StatementId> = named.filter(|id| several.contains(id)).collect();
            match (chosen.len(), chosen.first()) {
                (1, Some(one)) => Ok(*one),
                _ => {
                    let all: Vec<String> = several.iter().map(ToString::to_string).collect();
                    Err(Refusal::new(Code::ChainForked, at, "one manifest", all.join(" and ")))
                }
            }
        }
    }
}

/// Whether a gate that the step's policy trusts vouches for everything that the task takes from a
/// manifest: passed, for this release, under a policy of the chain.
pub(crate) fn vouched(case: &Case<'_>, id: StatementId, step: &Step, authority: &Authority<'_>) -> bool {
    let Ok(signed) = case.statement(id, "manifest", Statement::as_manifest) else { return false };
    let manifest = *signed.unverified();
    !step.irrevocable
        && case.summaries().iter().any(|summary| {
            let Ok(summary) = case.statement(*summary, "verification summary", Statement::as_summary) else { return false };
            let content = *summary.unverified();
            let gate = |signer: &_| authority.policy.entitled(signer, &step.summaries, content.verified, "the verification summary");
            content.result == VerificationResult::Passed
                && content.levels.iter().any(|level| level == LEVEL)
                && content.resource_uri == resource_uri(&authority.request.release)
                && case.policies.get(content.policy).is_some()
                && content.inputs.contains(&id)
                && manifest.artifacts.iter().all(|artifact| content.artifacts.iter().any(|known| known == artifact))
                && case.unrevoked(&summary).is_ok()
                && summary.clone().verify(NonZeroU32::MIN, gate).is_ok()
        })
}

