//! The intent: an irrevocable act is announced before it happens and recorded when it is done. With
//! the first and without the second it is in doubt.

use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::parts::{Artifact, Descriptor, only_statement};
use crate::envelope::StatementId;
use crate::json::{Object, Value};
use crate::time::Time;
use crate::{Code, Refusal};

/// An irrevocable act, announced or done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The task.
    pub task: StatementId,
    /// Before or after the act.
    pub stage: Stage,
    /// Where to.
    pub destination: String,
    /// What.
    pub artifacts: Vec<Artifact>,
    /// When, as the worker says.
    pub created: Time,
}

/// Before or after the act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is about to happen.
    Announced,
    /// It has happened and was read back.
    Done,
}

impl Predicate for Intent {
    const TYPE: &'static str = "https://custody.dev/intent/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let stage = match object.text("stage")?.as_str() {
            "announced" => Stage::Announced,
            "done" => Stage::Done,
            _ => {
                return Err(Refusal::new(
                    Code::ParseFieldType,
                    object.place("stage"),
                    "announced or done",
                    "other text",
                ));
            }
        };
        let intent = Self {
            task: only_statement(&subjects, "task")?,
            stage,
            destination: object.text("destination")?,
            artifacts: object.each("artifacts", Artifact::read)?,
            created: object.parsed("created")?,
        };
        object.finish()?;
        Ok(intent)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let stage = match self.stage {
            Stage::Announced => "announced",
            Stage::Done => "done",
        };
        let predicate = Value::object([
            ("stage", Value::text(stage)),
            ("destination", Value::text(&self.destination)),
            ("artifacts", Value::list(self.artifacts.iter().map(Artifact::write))),
            ("created", Value::text(self.created)),
        ]);
        (Vec::from([Descriptor::statement("task", self.task)]), predicate)
    }
}
