//! What a policy demands of the machine of a step, and which facts are of which kind.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use core::fmt;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::statement::Label;

/// A container image that a step may run in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedImage {
    /// The one of this digest: the image's id, or that of its manifest.
    Digest(Sha256),
    /// A product of this step, which the task takes as an input.
    Step(Label),
}

impl fmt::Display for AllowedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(digest) => write!(f, "sha256:{digest}"),
            Self::Step(step) => write!(f, "a product of step {step}"),
        }
    }
}

/// How well a fact about a machine is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// What the machine's platform signed says so, and was verified.
    Verified,
    /// The worker says so, and nothing proves it.
    Claimed,
    /// Nothing says anything.
    Absent,
}

impl Standing {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Claimed => "claimed",
            Self::Absent => "absent",
        }
    }
}

/// A fact about the machine, and the values that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The fact, like `ec2.image-id`.
    pub fact: String,
    /// One of these.
    pub is: BTreeSet<String>,
    /// Whether it must be proved, or the worker's word is enough.
    pub standing: Standing,
}

/// The platform that proves a fact: what stands before the first dot.
pub(crate) fn platform_of(fact: &str) -> Option<Label> {
    fact.split_once('.').and_then(|(platform, _)| platform.parse().ok())
}

/// Facts that name one machine and no other, whatever the platform is called.
pub(crate) fn names_a_machine(fact: &str) -> bool {
    let tail = fact.split_once('.').map(|(_, tail)| tail);
    tail.is_some_and(|tail| matches!(tail, "instance-id" | "vm-id" | "pod-uid" | "key"))
}

/// The code of a fact that is not as it should be.
pub(crate) fn code_of(fact: &str) -> Code {
    match fact.split_once('.') {
        Some((_, "image-id" | "image")) => Code::WorkerImageMismatch,
        None if fact == INTERACTIVE => Code::WorkerInteractive,
        None if !matches!(fact, "architecture" | "hostname" | "machine" | "os" | "worker") => {
            Code::WorkerIsolationMissing
        }
        _ => Code::WorkerIdentityMismatch,
    }
}

/// The fact that says whether somebody could sit at the command.
pub(crate) const INTERACTIVE: &str = "interactive";

/// Values in a sentence.
pub(crate) fn either<T: ToString>(values: impl IntoIterator<Item = T>) -> String {
    let mut words: alloc::vec::Vec<String> =
        values.into_iter().map(|value| value.to_string()).collect();
    if words.len() > 8 {
        words.truncate(8);
        words.push("…".into());
    }
    words.join(" or ")
}
