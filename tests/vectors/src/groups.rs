//! The cases, by group, and the questions that several of them ask.

mod artifact;
mod attestation;
mod bundle;
mod chain;
mod envelope;
mod gate;
mod given;
mod json;
mod machine;
mod people;
mod policies;
mod policy;
mod slsa;
mod statement;

use custody_core::envelope::Envelope;
use custody_verify::Question;
use custody_world::{World, content, label};

use crate::case::{Chain, Set, What};

pub(crate) fn add(set: &mut Set) {
    envelope::add(set);
    json::add(set);
    statement::add(set);
    slsa::add(set);
    artifact::add(set);
    people::add(set);
    chain::add(set);
    gate::add(set);
    policy::add(set);
    policies::add(set);
    bundle::add(set);
    attestation::add(set);
    machine::add(set);
    given::add(set);
}

/// What the published partial update's chain consists of: nothing that it does not need.
const SHIPPED: [&str; 8] = [
    "old/promote/",
    "old/build/",
    "new/promote/",
    "new/build/",
    "new/partial/",
    "new/sign/",
    "new/ship/",
    "new/publish/",
];
/// What the build of the newer release consists of.
const BUILT: [&str; 2] = ["new/promote/", "new/build/"];

/// The envelopes of these documents, and those that a test added under names without a slash.
fn evidence(world: &World, prefixes: &[&str]) -> Vec<Envelope> {
    let wanted =
        |name: &str| !name.contains('/') || prefixes.iter().any(|prefix| name.starts_with(prefix));
    world
        .envelopes
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(_, envelope)| envelope.clone())
        .collect()
}

/// Asks where a file comes from.
fn ask(world: &World, question: Question, bytes: &str, prefixes: &[&str]) -> Chain {
    Chain {
        pin: world.pin,
        policies: world.policies.clone(),
        evidence: evidence(world, prefixes),
        now: world.now,
        question,
        floor: None,
        content: Some(bytes.into()),
    }
}

/// Asks where the published partial update comes from.
fn shipped(world: &World) -> What {
    let bytes = content("new", "partial, signed");
    What::Chain(ask(world, world.ask("hello.partial", &bytes), &bytes, &SHIPPED))
}

/// Asks where the signed partial update comes from, which is not published yet.
fn signed_update(world: &World) -> What {
    let bytes = content("new", "partial, signed");
    let mut question = world.ask("hello.partial", &bytes);
    question.expect.step = Some(label("sign"));
    What::Chain(ask(world, question, &bytes, &SHIPPED[..6]))
}

/// Asks where a file comes from that the build made.
fn built(world: &World) -> What {
    let bytes = content("new", "hello");
    let mut question = world.ask("hello", &bytes);
    question.expect.step = Some(label("build"));
    What::Chain(ask(world, question, &bytes, &BUILT))
}
