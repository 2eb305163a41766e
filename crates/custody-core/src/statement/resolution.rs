//! The resolution: a person's word on an act in doubt, or on which of two results holds.

use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::parts::{Descriptor, Label, only_statement};
use crate::envelope::StatementId;
use crate::json::{Object, Value};
use crate::time::Time;
use crate::{Code, Refusal};

/// A person's word on one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The task.
    pub task: StatementId,
    /// What is to hold.
    pub resolve: Resolve,
    /// Who says so; the key must be theirs.
    pub person: Label,
    /// Why.
    pub reason: String,
    /// When, as the person says.
    pub created: Time,
}

/// What is to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolve {
    /// The act that this intent announced is to be taken up again where it stopped.
    Resume(StatementId),
    /// Of several manifests of the task this one holds.
    Supersede(StatementId),
}

impl Predicate for Resolution {
    const TYPE: &'static str = "https://custody.dev/resolution/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let word = object.text("resolve")?;
        let resolve = match word.as_str() {
            "resume" => Resolve::Resume(object.parsed("intent")?),
            "supersede" => Resolve::Supersede(object.parsed("manifest")?),
            _ => {
                return Err(Refusal::new(
                    Code::ParseFieldType,
                    object.place("resolve"),
                    "resume or supersede",
                    "other text",
                ));
            }
        };
        let resolution = Self {
            task: only_statement(&subjects, "task")?,
            resolve,
            person: object.parsed("person")?,
            reason: object.text("reason")?,
            created: object.parsed("created")?,
        };
        object.finish()?;
        Ok(resolution)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let (word, what, id) = match self.resolve {
            Resolve::Resume(id) => ("resume", "intent", id),
            Resolve::Supersede(id) => ("supersede", "manifest", id),
        };
        let predicate = Value::object([
            ("resolve", Value::text(word)),
            (what, Value::text(id)),
            ("person", Value::text(&self.person)),
            ("reason", Value::text(&self.reason)),
            ("created", Value::text(self.created)),
        ]);
        (Vec::from([Descriptor::statement("task", self.task)]), predicate)
    }
}
