//! What a policy demands of the facts about a machine.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use custody_core::{Code, Refusal};
use custody_machine::Facts;

/// A fact, and the values that it may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// The fact, like `ec2.image-id`.
    pub fact: String,
    /// One of these.
    pub is: BTreeSet<String>,
}

impl Demand {
    /// Whether facts that were proved are as demanded.
    pub fn met_by(&self, facts: &Facts) -> Result<(), Refusal> {
        let listed: Vec<&str> = self.is.iter().map(String::as_str).collect();
        let refuse = |code, found: &str| {
            Err(Refusal::new(
                code,
                self.fact.as_str(),
                listed.join(", "),
                crate::judge::shown(found),
            ))
        };
        match facts.get(&self.fact) {
            Some(value) if self.is.contains(value) => Ok(()),
            Some(value) if self.fact.ends_with(".image-id") => {
                refuse(Code::WorkerImageMismatch, value)
            }
            Some(value) => refuse(Code::WorkerIdentityMismatch, value),
            None => refuse(Code::WorkerIdentityUnverified, "nothing that proves it"),
        }
    }
}
