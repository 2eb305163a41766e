//! The task: the message without which no step starts.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::image::Image;
use super::parts::{Artifact, Descriptor, Label, Source, only_statement};
use super::request::read_nonce;
use crate::digest::Digests;
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
    /// The container image to run it in; without one it runs in a sandbox on the machine itself.
    pub image: Option<Image>,
    /// What it may use up.
    pub limits: Limits,
    /// Where a publishing step puts its inputs: `file:///…` or `s3://bucket/prefix`.
    pub destination: Option<String>,
    /// The environment variables that the command sees, and no others.
    pub variables: Vec<(String, String)>,
    /// Whether the command may use the network.
    pub network: bool,
    /// What it may fetch, through the worker's proxy and not otherwise.
    pub downloads: Option<Downloads>,
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

/// What a command may use up. What is absent is limited by the machine alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Limits {
    /// Memory of all its processes, in bytes.
    pub memory: Option<u64>,
    /// How many processes and threads it may have at a time.
    pub processes: Option<u64>,
    /// The sum of the sizes of its outputs, in bytes.
    pub output: Option<u64>,
}

/// What a command may fetch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Downloads {
    /// Beginnings of URIs that end with `/`, or whole ones.
    pub from: Vec<String>,
    /// What is fetched there, byte for byte. Without it, whatever is found there is recorded: a first
    /// run that shows what to pin.
    pub pinned: Option<Vec<Pinned>>,
}

/// A response that is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pinned {
    /// Where it is fetched.
    pub uri: String,
    /// Its digests.
    pub digests: Digests,
    /// Its size in bytes.
    pub size: u64,
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
    /// Whether a file at this place under `inputs/` can come from here.
    pub fn gives(&self, place: &ArtifactName) -> bool {
        let inner = place.as_str().strip_prefix(self.directory.as_str());
        let name = inner.and_then(|inner| inner.strip_prefix('/')?.parse::<ArtifactName>().ok());
        name.is_some_and(|name| self.patterns.iter().any(|pattern| pattern.matches(&name)))
    }

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

impl Limits {
    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let mut limit = |name: &str| {
            let place = object.place(name);
            object.optional(name).map(|value| value.into_integer(&place)).transpose()
        };
        let limits = Self {
            memory: limit("memory")?,
            processes: limit("processes")?,
            output: limit("output")?,
        };
        object.finish()?;
        Ok(limits)
    }

    fn write(&self) -> Option<Value<'static>> {
        (*self != Self::default()).then(|| {
            Value::object([])
                .with("memory", self.memory.map(Value::Integer))
                .with("processes", self.processes.map(Value::Integer))
                .with("output", self.output.map(Value::Integer))
        })
    }
}

impl Pinned {
    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let descriptor = Descriptor::read_closed(value, at, &["size"])?;
        let missing = |name: &str| {
            let place = format!("{at}.{name}");
            Refusal::new(Code::ParseFieldMissing, place, "this member", "nothing")
        };
        if descriptor.name.is_some() {
            let expected = "a uri, its digest and its size";
            return Err(Refusal::new(Code::ParseUnknownField, at, expected, "a name"));
        }
        let size = descriptor.annotation("size").cloned();
        let size = size.ok_or_else(|| missing("annotations.size"))?;
        Ok(Self {
            digests: descriptor.digests(at)?,
            size: size.into_integer("annotations.size").map_err(|refusal| refusal.inside(at))?,
            uri: descriptor.uri.ok_or_else(|| missing("uri"))?.into_owned(),
        })
    }

    fn write(&self) -> Value<'static> {
        Descriptor {
            name: None,
            uri: Some(self.uri.as_str().into()),
            ..Descriptor::bytes(&self.digests, self.size)
        }
        .write()
    }
}

impl Downloads {
    /// Whether something may be fetched there: a whole URI of [`from`](Self::from), or one below an entry
    /// that ends with `/`, without anything that could mean another place than it seems to.
    pub fn covers(&self, uri: &str) -> bool {
        let below =
            |from: &String| from == uri || (from.ends_with('/') && uri.starts_with(&**from));
        self.from.iter().any(below) && is_plain(uri)
    }

    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let pinned = object
            .optional("pinned")
            .map(|value| {
                let place = format!("{at}.pinned");
                let list = value.into_list(&place)?.into_iter().enumerate();
                list.map(|(i, value)| Pinned::read(value, &format!("{place}[{i}]"))).collect()
            })
            .transpose()?;
        let downloads = Self { from: object.each("from", Value::into_text)?, pinned };
        object.finish()?;
        Ok(downloads)
    }

    fn write(&self) -> Value<'static> {
        Value::object([("from", text_list(&self.from))]).with(
            "pinned",
            self.pinned.as_ref().map(|pinned| Value::list(pinned.iter().map(Pinned::write))),
        )
    }
}

/// Printable ASCII in which nothing climbs: no `..`, no `\`, no `#`, and what `%` stands for is no dot,
/// no backslash, no control character and no other `%`.
fn is_plain(uri: &str) -> bool {
    let printable = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#');
    let escaped = |rest: &str| {
        let byte = rest
            .get(..2)
            .and_then(|digits| crate::encoding::hex_decode(&digits.to_ascii_lowercase()));
        byte.is_some_and(|byte| !matches!(*byte, [0..=31 | 127 | b'%' | b'.' | b'\\']))
    };
    uri.bytes().all(printable) && !uri.contains("..") && uri.split('%').skip(1).all(escaped)
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
            image: object
                .optional("image")
                .map(|value| Image::read(value, "predicate.image"))
                .transpose()?,
            limits: object
                .optional("limits")
                .map(|value| Limits::read(value, "predicate.limits"))
                .transpose()?
                .unwrap_or_default(),
            destination: object.optional_text("destination")?,
            variables: object.map("variables")?,
            network: object.boolean("network")?,
            downloads: object
                .optional("downloads")
                .map(|value| Downloads::read(value, "predicate.downloads"))
                .transpose()?,
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
        .with("image", self.image.as_ref().map(Image::write))
        .with("limits", self.limits.write())
        .with("destination", self.destination.as_ref().map(Value::text))
        .with("variables", Some(text_map(self.variables.iter().map(|(name, value)| (name, value)))))
        .with("network", Some(Value::Bool(self.network)))
        .with("downloads", self.downloads.as_ref().map(Downloads::write))
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
