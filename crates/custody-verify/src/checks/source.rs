//! The source of a manifest: whether it is the approved one, what it brought along, and who signed it.

use alloc::format;
use alloc::string::{String, ToString};

use custody_core::statement::{Manifest, Revision, Source, Task};
use custody_core::{Code, Refusal};

use super::Authority;
use crate::docket::Case;
use crate::judge::shown;
use crate::policy::SIGNED_SOURCE;

struct Context<'x> {
    authority: &'x Authority<'x>,
    task: &'x Task,
    manifest: &'x Manifest,
}

/// The source is the task's, brought along only what it may, and carries the signature that the policy
/// demands. Who signed it comes back.
pub(crate) fn check(
    case: &Case<'_>,
    authority: &Authority<'_>,
    task: &Task,
    manifest: &Manifest,
) -> Result<Option<String>, Refusal> {
    let context = &Context { authority, task, manifest };
    if context.manifest.source == context.task.source {
        submodules(context)?;
        let source = context.manifest.source.as_ref();
        return source.map_or(Ok(None), |source| signed_source(case, context, source));
    }
    let show = |source: &Option<Source>| {
        source.as_ref().map_or_else(|| "none".to_string(), |source| shown(&source.to_string()))
    };
    let at = format!("manifest of step {}, source", context.manifest.step);
    Err(Refusal::new(
        Code::ChainSourceMismatch,
        at,
        show(&context.task.source),
        show(&context.manifest.source),
    ))
}

/// That the submodules are those that the commit names is the worker's claim: no evidence has its tree.
fn submodules(context: &Context<'_>) -> Result<(), Refusal> {
    let (manifest, product) = (context.manifest, context.authority.product);
    let in_git = |source: &Source| matches!(source.revision, Revision::Git(_));
    for submodule in &manifest.submodules {
        let at = || format!("manifest of step {}, submodule {}", manifest.step, submodule.path);
        if !manifest.source.as_ref().is_some_and(in_git) {
            let found = "one without such a source";
            let expected = "submodules of a source in git";
            return Err(Refusal::new(Code::ChainInputUnaccounted, at(), expected, found));
        }
        if !product.allows_submodule(&submodule.uri) {
            let expected = match product.submodules.as_slice() {
                [] => "no submodule".into(),
                allowed => format!("one from {}", allowed.join(", ")),
            };
            let found = shown(&submodule.uri);
            return Err(Refusal::new(Code::ChainSourceForbidden, at(), expected, found));
        }
    }
    Ok(())
}

fn signed_source(
    case: &Case<'_>,
    context: &Context<'_>,
    source: &Source,
) -> Result<Option<String>, Refusal> {
    let Authority { policy, product, .. } = &context.authority;
    let Some(signatures) = &product.source_signatures else { return Ok(None) };
    let raw = context.manifest.signed_source.as_deref();
    let signer = signatures.signer(source, raw, case.policies.keyring());
    let at = format!("manifest of step {}", context.manifest.step);
    signer
        .and_then(|signer| {
            let people = &signatures.people;
            case.entitled(policy, &signer, people, context.task.created, SIGNED_SOURCE)
        })
        .map(Some)
        .map_err(|refusal| refusal.within(&at))
}
