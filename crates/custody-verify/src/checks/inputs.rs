//! The inputs of a manifest: each is explained, and what the task asks for was used.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{Artifact, InputOrigin, Origin, Statement};
use custody_core::{Code, Refusal};

use super::downloads;
use super::manifest::Context;
use crate::docket::Case;

/// What was used, by where it comes from and by name.
type Used<'m> = BTreeMap<&'m InputOrigin, BTreeMap<&'m ArtifactName, &'m Artifact>>;

/// What the task asks for, by where it comes from.
type Wanted<'t> = BTreeMap<Origin, Vec<&'t Pattern>>;

/// Every input is explained, and everything asked for was used.
pub(super) fn inputs(case: &Case<'_>, context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, task) = (context.manifest, context.task);
    let at = format!("manifest of step {}", manifest.step);
    let mut used = Used::new();
    for input in &manifest.inputs {
        let from = used.entry(&input.origin).or_default();
        if from.insert(&input.artifact.name, &input.artifact).is_some() {
            return Err(Refusal::new(
                Code::StmtSubjectDuplicate,
                at,
                "each input once",
                input.artifact.name.as_str(),
            ));
        }
    }
    let origins: BTreeSet<StatementId> = manifest
        .inputs
        .iter()
        .filter_map(|input| match input.origin {
            InputOrigin::Manifest(id) => Some(id),
            InputOrigin::External(_) | InputOrigin::Download(_) => None,
        })
        .collect();
    let upstream: BTreeSet<StatementId> = manifest.upstream.iter().copied().collect();
    if origins != upstream || upstream.len() != manifest.upstream.len() {
        let found = format!("{} named, {} used", upstream.len(), origins.len());
        return Err(Refusal::new(
            Code::ChainInputUnaccounted,
            at,
            "each manifest named that was used, and no other",
            found,
        ));
    }
    agreeing(case, context, &at)?;
    let mut wanted = Wanted::new();
    for input in &task.inputs {
        wanted.entry(input.origin).or_default().extend(&input.patterns);
    }
    let mut explained = downloads::used(manifest, task)?;
    for id in &upstream {
        explained = explained.saturating_add(from_upstream(case, context, *id, &used, &wanted)?);
    }
    for external in &task.externals {
        let origin = InputOrigin::External(external.uri.clone());
        let input = used.get(&origin).and_then(|from| from.get(&external.artifact.name));
        match input {
            Some(input) if input.same_bytes(&external.artifact) => {
                explained = explained.saturating_add(1);
            }
            Some(input) => return Err(differs(&at, &external.artifact, input)),
            None => {
                return Err(Refusal::new(
                    Code::ArtMissing,
                    at,
                    format!("the external {}", external.artifact.name),
                    "not used",
                ));
            }
        }
    }
    if explained == manifest.inputs.len() {
        return unused_inputs(case, context, &upstream);
    }
    let stray = manifest.inputs.iter().find(|input| match &input.origin {
        InputOrigin::Manifest(_) | InputOrigin::Download(_) => false,
        InputOrigin::External(uri) => !task.externals.iter().any(|external| external.uri == *uri),
    });
    let name =
        stray.map_or_else(|| "an input twice".to_string(), |input| input.artifact.name.to_string());
    Err(Refusal::new(Code::ChainInputUnaccounted, at, "inputs that the task names", name))
}

/// What was used of a step that several machines do stands beside the manifests that agree with it.
fn agreeing(case: &Case<'_>, context: &Context<'_>, at: &str) -> Result<(), Refusal> {
    let manifest = context.manifest;
    let refuse = |code, expected: &str, found: String| Err(Refusal::new(code, at, expected, found));
    let unique: BTreeSet<StatementId> = manifest.named().collect();
    if unique.len() != manifest.named().count() {
        return refuse(Code::ChainInputUnaccounted, "each manifest once", "one twice".into());
    }
    let mut left: BTreeSet<StatementId> = manifest.agreeing.iter().copied().collect();
    for (used, (task, builders)) in &context.shared {
        let read = |id| {
            let signed = case.statement(id, "manifest", Statement::as_manifest);
            signed.map(|signed| *signed.unverified()).map_err(|refusal| refusal.within(at))
        };
        let first = read(*used)?;
        let mut machines = BTreeSet::from([&first.builder]);
        for id in &manifest.agreeing {
            let other = read(*id)?;
            if other.task != *task {
                continue;
            }
            left.remove(id);
            if !other.agrees(first) {
                let found = format!("manifest {id}, which made other files");
                return refuse(Code::ChainThresholdDisagree, "manifests that agree", found);
            }
            machines.insert(&other.builder);
        }
        if machines.len() < *builders {
            let expected =
                format!("{builders} machines that made the inputs from step {}", first.step);
            let found = format!("{} named", machines.len());
            return refuse(Code::ChainThresholdDisagree, &expected, found);
        }
    }
    match left.first() {
        None => Ok(()),
        Some(id) => {
            let expected = "agreeing manifests of what was used";
            refuse(Code::ChainInputUnaccounted, expected, format!("manifest {id}"))
        }
    }
}

fn differs(at: &str, expected: &Artifact, found: &Artifact) -> Refusal {
    let shown = |artifact: &Artifact| {
        format!("sha256 {}, {} bytes", artifact.digests.sha256, artifact.size)
    };
    Refusal::new(
        Code::ArtDigestMismatch,
        format!("{at}, input {}", expected.name),
        shown(expected),
        shown(found),
    )
}

/// Holds what was used of one upstream manifest against what that manifest lists and the task asks
/// for: neither more nor less.
fn from_upstream(
    case: &Case<'_>,
    context: &Context<'_>,
    id: StatementId,
    used: &Used<'_>,
    wanted: &Wanted<'_>,
) -> Result<usize, Refusal> {
    let at = format!("manifest of step {}", context.manifest.step);
    let signed = case
        .statement(id, "manifest", Statement::as_manifest)
        .map_err(|refusal| refusal.within(&at))?;
    let upstream = *signed.unverified();
    let by_task = wanted.get(&Origin::Task(upstream.task)).map(Vec::as_slice).unwrap_or_default();
    let by_manifest = wanted.get(&Origin::Manifest(id)).map(Vec::as_slice).unwrap_or_default();
    if by_task.is_empty() && by_manifest.is_empty() {
        let found = format!("a product of step {} ({})", upstream.step, id.short());
        return Err(Refusal::new(
            Code::ChainInputUnaccounted,
            at,
            "inputs that the task names",
            found,
        ));
    }
    let empty = BTreeMap::new();
    let from_here = used.get(&InputOrigin::Manifest(id)).unwrap_or(&empty);
    let fits = |patterns: &[&Pattern], name: &ArtifactName| {
        patterns.iter().any(|pattern| pattern.matches(name))
    };
    let mut count: usize = 0;
    for artifact in &upstream.artifacts {
        let is_wanted = fits(by_manifest, &artifact.name) || fits(by_task, &artifact.name);
        let refuse = |code, expected: String, found: &str| {
            Err(Refusal::new(code, at.clone(), expected, found))
        };
        match from_here.get(&artifact.name) {
            Some(input) if !input.same_bytes(artifact) => {
                return Err(differs(&at, artifact, input));
            }
            Some(_) if is_wanted => count = count.saturating_add(1),
            Some(_) => {
                let expected = "inputs that the task asks for".into();
                return refuse(Code::ChainInputUnaccounted, expected, artifact.name.as_str());
            }
            None if is_wanted => {
                return refuse(
                    Code::ArtMissing,
                    format!("{}, which the task asks for", artifact.name),
                    "not used",
                );
            }
            None => {}
        }
    }
    if from_here.len() == count {
        return Ok(count);
    }
    let stray = from_here.keys().find(|name| upstream.artifact(name).is_none());
    let name = stray.map_or_else(String::new, ToString::to_string);
    let expected = format!("products of step {} ({})", upstream.step, id.short());
    Err(Refusal::new(Code::ChainInputUnaccounted, at, expected, name))
}

/// Every input that the task names was used.
fn unused_inputs(
    case: &Case<'_>,
    context: &Context<'_>,
    upstream: &BTreeSet<StatementId>,
) -> Result<(), Refusal> {
    let tasks: BTreeSet<StatementId> = upstream
        .iter()
        .filter_map(|id| {
            case.statement(*id, "manifest", Statement::as_manifest)
                .ok()
                .map(|signed| signed.unverified().task)
        })
        .collect();
    let missing = context.task.inputs.iter().find(|input| match input.origin {
        Origin::Task(id) => !tasks.contains(&id),
        Origin::Manifest(id) => !upstream.contains(&id),
    });
    missing.map_or(Ok(()), |input| {
        let at = format!("manifest of step {}", context.manifest.step);
        Err(Refusal::new(
            Code::ChainInputUnaccounted,
            at,
            format!("the inputs {} that the task names", input.directory),
            "not used",
        ))
    })
}
