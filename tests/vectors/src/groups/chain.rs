//! Chains: whoever holds storage, a worker or the scheduler passes something off as this release.

use custody_core::Code;

use super::{built, shipped};
use crate::case::{About, Set};
use custody_world::{change, honest};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("chain");
    group.accept(
        "honest",
        About("a published file, back to people and sources of two releases", &[]),
        &shipped(&honest()),
    );
    group.accept(
        "built",
        About("what one step made, back to people and source", &[]),
        &built(&honest()),
    );
    let what = built(&change().signed_by("new/build/manifest", &["docs"]).build());
    let about =
        About("the manifest is signed by a machine of another step", &["chain-key-of-other-step"]);
    group.reject("key-of-another-step", "built", Code::PolicyKeyPurpose, about, &what);
}
