//! The task: the message without which no step starts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::parts::{Artifact, Descriptor, Label, Source, only_statement};
use super::request::read_nonce;
use crate::envelope::StatementId;
use crate::json::{Object, Value, text_list, text_map};
use crate::name::{ArtifactName, Pattern};
use crate::time::Time;
use crate::{Code, Refusal};

/// What one step is to do, signed by the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Task {
    /// The authorization that it acts under.
    pub authorization: StatementId,
    /// The step, as the policy names it.
    pub step: Label,
    /// Client id of whoever created the task.
    pub creator: String,
    /// Program and arguments. Empty for a step that only publishes.
    pub command: Vec<String>,
    /// Where a publishing step puts its inputs: `file:///…` or `s3://bucket/prefix`.
    pub destination: Option<String>,
    /// The environment variables that the command sees, and no others.
    pub variables: Vec<(String, String)>,
    /// Whether the command may use the network.
    pub network: bool,
    /// What it takes from other steps.
    pub inputs: Vec<Input>,
    /// The source, for a step that wants it.
    pub source: Option<Source>,
    /// Files from elsewhere, pinned.
    pub externals: Vec<External>,
    /// The names that its outputs may have. Every pattern must match something.
    pub outputs: Vec<Pattern>,
    /// Whether outputs are recorded with SHA-512 beside SHA-256.
    pub sha512: bool,
    /// When it was made, as the scheduler says.
    pub created: Time,
    /// After this moment the run must not start.
    pub deadline: Time,
    /// 32 hexadecimal digits that make it unlike any other.
    pub nonce: String,
}

/// What a task takes from one other step.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Input {
    /// Where they come from.
    pub origin: Origin,
    /// The directory under `inputs/` in which the files are placed.
    pub directory: ArtifactName,
    /// Which artifacts. Every pattern must match something.
    pub patterns: Vec<Pattern>,
}

/// Where an input comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// The manifest that the task of this id will have.
    Task(StatementId),
    /// A manifest that exists, which the request names too.
    Manifest(StatementId),
}

/// A file from elsewhere, pinned by digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct External {
    /// Name, digests and size; it is placed at `inputs/external/NAME`.
    pub artifact: Artifact,
    /// Where it can be fetched.
    pub uri: String,
}

impl Input {
    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let origin = match (object.optional_parsed("task")?, object.optional_parsed("manifest")?) {
            (Some(id), None) => Origin::Task(id),
            (None, Some(id)) => Origin::Manifest(id),
            _ => {
                return Err(Refusal::new(
                    Code::ParseFieldMissing,
                    at,
                    "one of task and manifest",
                    "neither or both",
                ));
            }
        };
        let input = Self {
            origin,
            directory: object.parsed("directory")?,
            patterns: read_patterns(&mut object, "patterns")?,
        };
        object.finish()?;
        if input.patterns.is_empty() {
            return Err(Refusal::new(
                Code::ParseFieldMissing,
                format!("{at}.patterns"),
                "at least one pattern",
                "none",
            ));
        }
        Ok(input)
    }

    fn write(&self) -> Value<'static> {
        let (task, manifest) = match self.origin {
            Origin::Task(id) => (Some(Value::text(id)), None),
            Origin::Manifest(id) => (None, Some(Value::text(id))),
        };
        Value::object([])
            .with("task", task)
            .with("manifest", manifest)
            .with("directory", Some(Value::text(&self.directory)))
            .with("patterns", Some(text_list(&self.patterns)))
    }
}

fn read_patterns(object: &mut Object<'_>, name: &str) -> Result<Vec<Pattern>, Refusal> {
    object.each(name, |value, at| {
        value.into_text(at)?.parse().map_err(|refusal: Refusal| refusal.within(at))
    })
}

impl External {
    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let descriptor = Descriptor::read_closed(value, at, &["size"])?;
        let artifact = Artifact::from_descriptor(&descriptor, at)?;
        let uri = descriptor.uri.ok_or_else(|| {
            Refusal::new(Code::ParseFieldMissing, format!("{at}.uri"), "this member", "nothing")
        })?;
        Ok(Self { artifact, uri: uri.into_owned() })
    }

    pub(super) fn to_descriptor(&self) -> Descriptor<'_> {
        Descriptor { uri: Some(self.uri.as_str().into()), ..self.artifact.to_descriptor() }
    }
}

impl Task {
    /// The names that inputs from this origin may have.
    pub fn wants(&self, origin: Origin, name: &ArtifactName) -> bool {
        let from_there = self.inputs.iter().filter(|input| input.origin == origin);
        from_there.flat_map(|input| &input.patterns).any(|pattern| pattern.matches(name))
    }
}

impl Predicate for Task {
    const TYPE: &'static str = "https://custody.dev/task/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let task = Self {
            authorization: only_statement(&subjects, "authorization")?,
            step: object.parsed("step")?,
            creator: object.text("creator")?,
            command: object.each("command", Value::into_text)?,
            destination: object.optional_text("destination")?,
            variables: object.map("variables")?,
            network: object.boolean("network")?,
            inputs: object.each("inputs", Input::read)?,
            source: object
                .optional("source")
                .map(|value| Source::read(value, "predicate.source"))
                .transpose()?,
            externals: object.each("externals", External::read)?,
            outputs: read_patterns(&mut object, "outputs")?,
            sha512: object.boolean("sha512")?,
            created: object.parsed("created")?,
            deadline: object.parsed("deadline")?,
            nonce: read_nonce(&mut object)?,
        };
        object.finish()?;
        if task.command.is_empty() == task.destination.is_none() {
            return Err(Refusal::new(
                Code::ParseFieldType,
                "predicate.command",
                "a command or a destination",
                "neither or both",
            ));
        }
        Ok(task)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let predicate = Value::object([
            ("step", Value::text(&self.step)),
            ("creator", Value::text(&self.creator)),
            ("command", text_list(&self.command)),
        ])
        .with("destination", self.destination.as_ref().map(Value::text))
        .with("variables", Some(text_map(self.variables.iter().map(|(name, value)| (name, value)))))
        .with("network", Some(Value::Bool(self.network)))
        .with("inputs", Some(Value::list(self.inputs.iter().map(Input::write))))
        .with("source", self.source.as_ref().map(Source::write))
        .with(
            "externals",
            Some(Value::list(
                self.externals.iter().map(|external| external.to_descriptor().write()),
            )),
        )
        .with("outputs", Some(text_list(&self.outputs)))
        .with("sha512", Some(Value::Bool(self.sha512)))
        .with("created", Some(Value::text(self.created)))
        .with("deadline", Some(Value::text(self.deadline)))
        .with("nonce", Some(Value::text(&self.nonce)));
        (Vec::from([Descriptor::statement("authorization", self.authorization)]), predicate)
    }
}
