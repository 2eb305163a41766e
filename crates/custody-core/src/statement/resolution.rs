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
    /// An act in doubt is to be taken up again where it stopped.
    Resume,
    /// Of several manifests of the task this one holds.
    Supersede(StatementId),
}

impl Predicate for Resolution {
    const TYPE: &'static str = "https://custody.dev/resolution/v1";

    fn read(subjects: Vec<Descriptor>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let word = object.text("resolve")?;
        let manifest = object.optional_parsed("manifest")?;
        let resolve = match (word.as_str(), manifest) {
            ("resume", None) => Resolve::Resume,
            ("supersede", Some(id)) => Resolve::Supersede(id),
            _ => {
                return Err(Refusal::new(
                    Code::ParseFieldType,
                    object.place("resolve"),
                    "resume, or supersede with a manifest",
                    "otherwise",
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

    fn write(&self) -> (Vec<Descriptor>, Value<'static>) {
        let (word, manifest) = match self.resolve {
            Resolve::Resume => ("resume", None),
            Resolve::Supersede(id) => ("supersede", Some(Value::text(id))),
        };
        let predicate = Value::object([("resolve", Value::text(word))])
            .with("manifest", manifest)
            .with("person", Some(Value::text(&self.person)))
            .with("reason", Some(Value::text(&self.reason)))
            .with("created", Some(Value::text(self.created)));
        (Vec::from([Descriptor::statement("task", self.task)]), predicate)
    }
}
