//! The verification summary: another gate's word on what lies behind a manifest.

use alloc::collections::BTreeMap;
use core::num::NonZeroU32;

use custody_core::envelope::{Signed, Signer, StatementId};
use custody_core::name::ArtifactName;
use custody_core::statement::{
    Artifact, Origin, Statement, Summary, Task, VerificationResult, gate_uri,
};

use super::Authority;
use super::manifest::named;
use crate::docket::Case;
use crate::policy::Step;
use crate::report::{LEVEL, resource_uri};

/// Whether gates that the step's policy trusts vouch for everything that the task takes from a
/// manifest: passed, for this release, under the newest policy.
pub(crate) fn vouched(
    case: &Case<'_>,
    id: StatementId,
    task: &Task,
    step: &Step,
    authority: &Authority<'_>,
) -> bool {
    let Ok(signed) = case.statement(id, "manifest", Statement::as_manifest) else { return false };
    let manifest = *signed.unverified();
    let (by_task, by_manifest) = (Origin::Task(manifest.task), Origin::Manifest(id));
    let summaries = case.summaries().iter().filter_map(|summary| {
        let summary =
            case.statement(*summary, "verification summary", Statement::as_summary).ok()?;
        let content = *summary.unverified();
        trusted_summary(case, summary, step, authority).then_some(content)
    });
    let listed: BTreeMap<&ArtifactName, &Artifact> = summaries
        .filter(|summary| summary.inputs.contains(&id))
        .flat_map(|summary| &summary.artifacts)
        .map(|artifact| (&artifact.name, artifact))
        .collect();
    let taken = |name: &ArtifactName| task.wants(by_task, name) || task.wants(by_manifest, name);
    let mut wanted = manifest.artifacts.iter().filter(|artifact| taken(&artifact.name)).peekable();
    // nothing taken is nothing that anybody vouched for
    let is_any = wanted.peek().is_some();
    let all = wanted.all(|artifact| listed.get(&artifact.name) == Some(&artifact));
    !step.irrevocable && is_any && all
}

fn trusted_summary(
    case: &Case<'_>,
    summary: Signed<&Summary>,
    step: &Step,
    authority: &Authority<'_>,
) -> bool {
    let content = *summary.unverified();
    let gate = |signer: &Signer| {
        named("verifier.id", gate_uri(&signer.key), &content.verifier)?;
        let purpose = "the verification summary";
        case.entitled(authority.policy, signer, &step.summaries, content.verified, purpose)
    };
    content.result == VerificationResult::Passed
        && content.levels.iter().any(|level| level == LEVEL)
        && content.resource_uri == resource_uri(&authority.request.release)
        && content.policy == case.policies.newest().0
        && summary.verify(NonZeroU32::MIN, gate).is_ok()
}
