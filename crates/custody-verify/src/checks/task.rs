//! The task: the message without which nothing starts.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Signed, StatementId};
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{EarlierManifest, Image, Label, Origin, Request, Statement, Task};
use custody_core::{Code, Refusal};

use super::manifest;
use super::{Authority, Checked, downloads};
use crate::docket::{Asked, Case};
use crate::judge::shown;
use crate::policy::demand::either;
use crate::policy::{AllowedImage, Step, StepInput, listed};
use crate::report::{AcceptedInput, Node, NodeKind, Rule};
use crate::walk::Memo;

/// Checks a task. What it rests on is the decision manifest that it is a product of, if it is one.
pub(crate) fn check<'c>(case: &'c Case<'_>, memo: &mut Memo<'c>, id: StatementId) -> Checked {
    let mut node = Node::new(NodeKind::Task, Some(id), format!("task {}", id.short()));
    let signed = match case.statement(id, "task", Statement::as_task) {
        Ok(signed) => signed,
        Err(refusal) => {
            let code = if refusal.code == Code::ChainLinkMissing {
                Code::ChainTaskMissing
            } else {
                refusal.code
            };
            node.check(Rule::TaskSignature, Err(Refusal { code, ..refusal }));
            return Checked::dead_end(node);
        }
    };
    let task = *signed.unverified();
    node.title = format!("task of step {}", task.step);
    node.fact("created by", shown(&task.creator));
    node.rests_on.push(task.authorization);
    let authority = memo.authority(case, task.authorization);
    let allowed =
        authority.and_then(|authority| Ok((authority.product.step(&task.step)?, authority)));
    let (step, authority) = match allowed {
        Ok(allowed) => allowed,
        Err(refusal) => {
            node.check(Rule::TaskContent, Err(refusal));
            return Checked { authorization: Some(task.authorization), ..Checked::dead_end(node) };
        }
    };
    let mut made_by = None;
    let signature = match &step.scheduled_by {
        None => by_scheduler(case, &authority, step, &signed),
        Some(decision) => by_decision(case, &authority, decision, &signed)
            .map(|manifest| made_by = Some(manifest)),
    };
    node.fact(
        "scheduled by",
        listed(signed.signers().iter().filter_map(|signer| authority.policy.owner(&signer.key))),
    );
    node.rests_on.extend(made_by);
    node.check(Rule::TaskSignature, signature);
    node.check(Rule::TaskContent, content(case, task, step, &authority));
    node.check(Rule::TaskInputs, inputs(case, task, step, &authority));
    node.check(Rule::TaskTime, time(case, id, task, step, &authority));
    Checked {
        authorization: Some(task.authorization),
        upstream: made_by.into_iter().collect(),
        ..Checked::dead_end(node)
    }
}

fn by_scheduler(
    case: &Case<'_>,
    authority: &Authority<'_>,
    step: &Step,
    signed: &Signed<&Task>,
) -> Result<(), Refusal> {
    let created = signed.unverified().created;
    let scheduler =
        |signer: &_| case.entitled(authority.policy, signer, &step.schedule, created, "the task");
    signed.clone().verify(NonZeroU32::MIN, scheduler).map(|_| ())
}

/// The task's exact bytes are a product of a decision step of the same authorization. That manifest
/// is then checked like any other.
fn by_decision(
    case: &Case<'_>,
    authority: &Authority<'_>,
    decision: &Label,
    signed: &Signed<&Task>,
) -> Result<StatementId, Refusal> {
    let same_authority = |task: StatementId| {
        let task = case.statement(task, "task", Statement::as_task);
        task.is_ok_and(|task| task.unverified().authorization == signed.unverified().authorization)
    };
    // one that may say so before one that may not: nobody's word can crowd out the decision
    let made: Vec<StatementId> = case
        .text_of(signed.id())
        .into_iter()
        .flat_map(|text| case.makers(text))
        .filter(|(_, manifest, _)| manifest.step == *decision && same_authority(manifest.task))
        .map(|(signed, ..)| signed.id())
        .collect();
    let step = authority.product.step(decision)?;
    let entitled = made.iter().find(|id| manifest::is_entitled(case, **id, step, authority));
    entitled.or(made.first()).copied().ok_or_else(|| {
        let expected = format!("a product of step {decision} in phase {}", authority.request.phase);
        Refusal::new(
            Code::ChainTaskMissing,
            format!("task {}", signed.id().short()),
            expected,
            "no manifest that lists it",
        )
    })
}

/// The image is one that the policy allows: by digest, or a product of the step that must have made it.
fn image(task: &Task, step: &Step, case: &Case<'_>) -> Result<(), Refusal> {
    let allowed = step.images.as_deref().unwrap_or_default();
    let fits = match &task.image {
        None => step.images.is_none(),
        Some(Image::Named { digest, .. }) => allowed.contains(&AllowedImage::Digest(*digest)),
        Some(Image::Input(place)) => {
            let mut makers = task.inputs.iter().filter(|input| input.gives(place)).peekable();
            let outside = place.as_str().strip_prefix("external/");
            let is_external =
                |name| task.externals.iter().any(|it| it.artifact.name.as_str() == name);
            makers.peek().is_some()
                && !outside.is_some_and(is_external)
                && makers.all(|input| {
                    let made_by = step_of(case, input.origin);
                    made_by.is_some_and(|step| allowed.contains(&AllowedImage::Step(step.clone())))
                })
        }
    };
    if fits {
        return Ok(());
    }
    let expected = match &step.images {
        Some(images) => either(images.iter()),
        None => "no image: the policy gives this step none".into(),
    };
    let found = match &task.image {
        Some(Image::Input(place)) => {
            let makers = task.inputs.iter().filter(|input| input.gives(place));
            let steps = makers.filter_map(|input| step_of(case, input.origin));
            format!("inputs/{place}, from {}", listed(steps))
        }
        Some(image) => image.to_string(),
        None => "no image".into(),
    };
    Err(Refusal::new(Code::WorkerImageMismatch, "image", expected, shown(&found)))
}

/// The step that an input comes from.
fn step_of<'c>(case: &'c Case<'_>, origin: Origin) -> Option<&'c Label> {
    match origin {
        Origin::Task(id) => {
            let signed = case.statement(id, "task", Statement::as_task).ok()?;
            Some(&signed.unverified().step)
        }
        Origin::Manifest(id) => {
            let signed = case.statement(id, "manifest", Statement::as_manifest).ok()?;
            Some(&signed.unverified().step)
        }
    }
}

fn content(
    case: &Case<'_>,
    task: &Task,
    step: &Step,
    authority: &Authority<'_>,
) -> Result<(), Refusal> {
    let at = format!("task of step {}", task.step);
    let refuse = |code, expected: String, found: String| {
        Err(Refusal::new(code, at.clone(), expected, found))
    };
    if step.phase != authority.request.phase {
        return refuse(
            Code::ChainStepMismatch,
            format!("a step of phase {}", authority.request.phase),
            format!("one of phase {}", step.phase),
        );
    }
    if task.network && !step.network {
        return refuse(Code::StmtParameterUnexpected, "no network".into(), "network".into());
    }
    if step.source && task.source.is_none() {
        return refuse(
            Code::ChainSourceMismatch,
            authority.request.source.to_string(),
            "none".into(),
        );
    }
    if let Some(source) = &task.source {
        if !step.source {
            return refuse(Code::StmtParameterUnexpected, "no source".into(), shown(&source.uri));
        }
        if *source != authority.request.source {
            return refuse(
                Code::ChainSourceMismatch,
                authority.request.source.to_string(),
                shown(&source.to_string()),
            );
        }
    }
    if let Some(destination) =
        task.destination.as_ref().filter(|destination| !step.allows_destination(destination))
    {
        return refuse(
            Code::GateDestinationForbidden,
            step.destinations.join(", "),
            shown(destination),
        );
    }
    // a step that publishes does nothing else: its files are those that people signed off
    if task.destination.is_none() && !step.destinations.is_empty() {
        let expected = format!("a destination: {}", step.destinations.join(", "));
        return refuse(Code::GateDestinationForbidden, expected, "a command".into());
    }
    image(task, step, case).map_err(|refusal| refusal.within(&at))?;
    if let Some(external) =
        task.externals.iter().find(|external| !step.allows_external(&external.uri))
    {
        return refuse(
            Code::ChainInputUnaccounted,
            step.externals.join(", "),
            shown(&external.uri),
        );
    }
    downloads::allowed(task, step)
}

fn inputs(
    case: &Case<'_>,
    task: &Task,
    step: &Step,
    authority: &Authority<'_>,
) -> Result<(), Refusal> {
    let mut taken: Vec<&StepInput> = Vec::new();
    for input in &task.inputs {
        let at = format!("input {} of task of step {}", input.directory, task.step);
        taken.push(match input.origin {
            Origin::Task(id) => from_task(case, task, step, id, &at)?,
            Origin::Manifest(id) => from_manifest(case, step, authority, id, &at)?,
        });
    }
    match step.inputs.iter().find(|input| input.required && !taken.contains(input)) {
        None => Ok(()),
        Some(missing) => {
            let at = format!("task of step {}", task.step);
            let expected =
                format!("an input from step {}, which the policy requires", missing.step);
            Err(Refusal::new(Code::ChainStepMissing, at, expected, "none"))
        }
    }
}

fn from_task<'s>(
    case: &Case<'_>,
    task: &Task,
    step: &'s Step,
    id: StatementId,
    at: &str,
) -> Result<&'s StepInput, Refusal> {
    let upstream =
        case.statement(id, "task", Statement::as_task).map_err(|refusal| refusal.within(at))?;
    let upstream = *upstream.unverified();
    if upstream.authorization != task.authorization {
        let (expected, found) =
            (task.authorization.to_string(), upstream.authorization.to_string());
        return Err(Refusal::new(
            Code::ChainReleaseMismatch,
            format!("{at}, authorization"),
            expected,
            found,
        ));
    }
    allowed_step(step, &upstream.step, false, at)
}

/// An input from before must stand in what people signed off.
fn from_manifest<'s>(
    case: &Case<'_>,
    step: &'s Step,
    authority: &Authority<'_>,
    id: StatementId,
    at: &str,
) -> Result<&'s StepInput, Refusal> {
    let named = authority.earlier.get(&id).ok_or_else(|| {
        Refusal::new(
            Code::ChainInputUnaccounted,
            at,
            "a manifest that the request names",
            format!("manifest {id}"),
        )
    })?;
    let signed = case
        .statement(id, "manifest", Statement::as_manifest)
        .map_err(|refusal| refusal.within(at))?;
    let manifest = *signed.unverified();
    if named.step != manifest.step {
        return Err(Refusal::new(
            Code::ChainStepMismatch,
            at,
            format!("a manifest of step {}", named.step),
            manifest.step.to_string(),
        ));
    }
    // what people were shown of it
    let found = EarlierManifest::of(id, manifest);
    if **named != found {
        let shown = |entry: &EarlierManifest| {
            format!("{} artifacts of {} bytes in all", entry.artifacts, entry.bytes)
        };
        return Err(Refusal::new(Code::SignoffContentMismatch, at, shown(named), shown(&found)));
    }
    let earlier = origin_request(case, manifest.task, at)?;
    let (ours, theirs) = (&authority.request.release, &earlier.release);
    let refuse =
        |code, expected: String, found: String| Err(Refusal::new(code, at, expected, found));
    if theirs.product != ours.product {
        return refuse(
            Code::ChainProductMismatch,
            ours.product.to_string(),
            theirs.product.to_string(),
        );
    }
    if theirs.instance != ours.instance {
        return refuse(
            Code::ChainInstanceMismatch,
            ours.instance.to_string(),
            theirs.instance.to_string(),
        );
    }
    if theirs == ours && !authority.phase.after.contains(&earlier.phase) {
        return refuse(
            Code::ChainReleaseMismatch,
            format!("a manifest of phase {}", listed(&authority.phase.after)),
            format!("phase {}", earlier.phase),
        );
    }
    if theirs == ours && earlier.source != authority.request.source {
        let (expected, found) = (&authority.request.source, &earlier.source);
        return refuse(Code::ChainSourceMismatch, expected.to_string(), shown(&found.to_string()));
    }
    allowed_step(step, &manifest.step, theirs != ours, at)
}

/// The request that a task was authorized by. It is checked in its own node when the walk gets there.
fn origin_request<'c>(
    case: &'c Case<'_>,
    task: StatementId,
    at: &str,
) -> Result<&'c Request, Refusal> {
    let task =
        case.statement(task, "task", Statement::as_task).map_err(|refusal| refusal.within(at))?;
    let id = task.unverified().authorization;
    let authorization = case
        .statement(id, "authorization", Statement::as_authorization)
        .map_err(|refusal| refusal.within(at))?;
    let id = authorization.unverified().request;
    let request = case
        .statement(id, "request", Statement::as_request)
        .map_err(|refusal| refusal.within(at))?;
    Ok(*request.unverified())
}

fn allowed_step<'s>(
    step: &'s Step,
    from: &Label,
    other_release: bool,
    at: &str,
) -> Result<&'s StepInput, Refusal> {
    let fits = |input: &&StepInput| input.step == *from && input.other_release == other_release;
    if let Some(input) = step.inputs.iter().find(fits) {
        return Ok(input);
    }
    let across = step.inputs.iter().any(|input| input.step == *from);
    if across {
        let word = |other| if other { "another release" } else { "the same release" };
        return Err(Refusal::new(
            Code::ChainReleaseMismatch,
            at,
            format!("inputs from {}", word(!other_release)),
            word(other_release),
        ));
    }
    let steps = listed(step.inputs.iter().map(|input| &input.step));
    Err(Refusal::new(
        Code::ChainStepMissing,
        at,
        format!("inputs from {steps}"),
        format!("inputs from step {from}"),
    ))
}

fn time(
    case: &Case<'_>,
    id: StatementId,
    task: &Task,
    step: &Step,
    authority: &Authority<'_>,
) -> Result<(), Refusal> {
    let (authorization, skew) = (authority.authorization, authority.policy.clock_skew);
    let at = format!("task of step {}", task.step);
    let refuse = |code, expected: String, found: custody_core::time::Time| {
        Err(Refusal::new(code, at.clone(), expected, found.to_string()))
    };
    if task.created.plus(skew) < authorization.not_before || task.created > case.now.plus(skew) {
        return refuse(
            Code::ChainTimeOrder,
            format!("a time from {} to {}", authorization.not_before, case.now),
            task.created,
        );
    }
    if task.deadline > authorization.expires {
        return refuse(
            Code::ChainStale,
            format!("a deadline by {}", authorization.expires),
            task.deadline,
        );
    }
    if task.deadline.since(task.created) > step.max_age {
        return refuse(
            Code::ChainStale,
            format!("a deadline by {}", task.created.plus(step.max_age)),
            task.deadline,
        );
    }
    let starts_now = case.asked == Asked::Gate(id);
    if starts_now && case.now > task.deadline {
        return refuse(Code::ChainStale, format!("a start by {}", task.deadline), case.now);
    }
    Ok(())
}

/// What would be published has names that task and policy allow, known before anything goes out.
pub(crate) fn gate_outputs(
    task: &Task,
    step: &Step,
    files: &[AcceptedInput],
) -> Result<(), Refusal> {
    if task.destination.is_none() {
        return Ok(());
    }
    let at = format!("what step {} would publish", task.step);
    let mut names: Vec<ArtifactName> = Vec::new();
    for file in files {
        names.push(file.artifact.name.file_name().parse()?);
    }
    let fits = |patterns: &[Pattern], name: &ArtifactName| {
        patterns.iter().any(|pattern| pattern.matches(name))
    };
    let stray = names.iter().find(|name| !fits(&task.outputs, name) || !fits(&step.outputs, name));
    if let Some(name) = stray {
        return Err(Refusal::new(
            Code::ArtUnlisted,
            at,
            "names that the task and the policy allow",
            name.as_str(),
        ));
    }
    match task.outputs.iter().find(|pattern| !names.iter().any(|name| pattern.matches(name))) {
        None => Ok(()),
        Some(pattern) => {
            Err(Refusal::new(Code::ArtMissing, at, format!("a file that fits {pattern}"), "none"))
        }
    }
}

/// What a task will be given, the manifests that made it, and those that agree with them.
type GateInputs = (Vec<AcceptedInput>, BTreeSet<StatementId>, BTreeSet<StatementId>);

/// The files that a task will be given, from manifests that exist: one for each task it names.
pub(crate) fn gate_inputs<'c>(
    case: &'c Case<'_>,
    memo: &mut Memo<'c>,
    task: &Task,
    authority: &Authority<'c>,
) -> Result<GateInputs, Refusal> {
    let (mut files, mut origins) = (Vec::new(), BTreeSet::new());
    let mut agreeing = BTreeSet::new();
    let mut places: BTreeMap<(String, String), (StatementId, &ArtifactName)> = BTreeMap::new();
    for input in &task.inputs {
        let at = format!("input {} of step {}", input.directory, task.step);
        let made = match input.origin {
            Origin::Manifest(id) => memo.agreed(case, id).map(|others| (id, others)),
            Origin::Task(upstream) => manifest::only_result(case, memo, upstream, authority),
        };
        let (id, others) = made.map_err(|refusal| refusal.within(&at))?;
        agreeing.extend(others);
        let signed = case
            .statement(id, "manifest", Statement::as_manifest)
            .map_err(|refusal| refusal.within(&at))?;
        let manifest = *signed.unverified();
        origins.insert(id);
        for pattern in &input.patterns {
            let mut matching = manifest
                .artifacts
                .iter()
                .filter(|artifact| pattern.matches(&artifact.name))
                .peekable();
            if matching.peek().is_none() {
                let found = format!("none in the manifest of step {}", manifest.step);
                return Err(Refusal::new(
                    Code::ArtMissing,
                    at,
                    format!("an artifact that fits {pattern}"),
                    found,
                ));
            }
            for artifact in matching {
                let place = (input.directory.folded(), artifact.name.folded());
                let known = places.insert(place, (id, &artifact.name));
                if known.is_some_and(|known| known != (id, &artifact.name)) {
                    let expected = "each file in a place of its own";
                    return Err(Refusal::new(
                        Code::ArtNameCollision,
                        at,
                        expected,
                        artifact.name.as_str(),
                    ));
                }
                if known.is_none() {
                    let directory = input.directory.to_string();
                    files.push(AcceptedInput {
                        artifact: artifact.clone(),
                        manifest: id,
                        directory,
                    });
                }
            }
        }
    }
    agreeing.retain(|id| !origins.contains(id));
    Ok((files, origins, agreeing))
}
