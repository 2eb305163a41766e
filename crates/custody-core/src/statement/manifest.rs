//! The manifest: what one step made, from what, and where. It is SLSA Provenance v1
//! (<https://slsa.dev/spec/v1.1/provenance>) with a build type of our own.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::attestation::{self, Attestation};
use super::image::UsedImage;
use super::parts::{Artifact, Descriptor, Label, Source, Submodule, check_names};
use super::slsa;
use crate::digest::Sha256;
use crate::encoding::{base64, base64_decode};
use crate::envelope::StatementId;
use crate::json::{Object, Value, text_list, text_map};
use crate::limits::{SIGNED_SOURCE_BYTES, SUBJECTS};
use crate::name::ArtifactName;
use crate::time::Time;
use crate::{BASE_URI, Code, Refusal};

/// The build type of every step that Custody ran.
pub const BUILD_TYPE: &str = "https://custody.dev/step/v1";

/// How manifests name the machine that the policy calls `name`.
pub fn worker_uri(name: &str) -> String {
    format!("{BASE_URI}worker/{name}")
}

/// What one step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The artifacts, each with its own name, size and digests.
    pub artifacts: Vec<Artifact>,
    /// The task.
    pub task: StatementId,
    /// The step, as the task says.
    pub step: Label,
    /// The command, as the task says.
    pub command: Vec<String>,
    /// The destination, as the task says.
    pub destination: Option<String>,
    /// Client id of the task's creator.
    pub creator: String,
    /// What the worker measured of its environment, from outside the command. Claims of the worker
    /// unless an attestation proves them.
    pub environment: Vec<(String, String)>,
    /// What the platforms of the machine signed.
    pub attestations: Vec<Attestation>,
    /// The certificate of the worker's key, where the policy does not list the key itself.
    pub enrolment: Option<StatementId>,
    /// The container image that the command ran in.
    pub image: Option<UsedImage>,
    /// The source that was checked out.
    pub source: Option<Source>,
    /// The commit or tag object that carries the signature of a person, byte for byte, where the policy
    /// demands one.
    pub signed_source: Option<Vec<u8>>,
    /// The submodules of the source that were checked out into it.
    pub submodules: Vec<Submodule>,
    /// The manifests whose products were used.
    pub upstream: Vec<StatementId>,
    /// The manifests of other builders that agree with those whose products were used, where a policy
    /// asks for several builders.
    pub agreeing: Vec<StatementId>,
    /// Every file that the step was given besides the source.
    pub inputs: Vec<UsedInput>,
    /// The worker, as a URI.
    pub builder: String,
    /// A name for this run.
    pub invocation: String,
    /// When the command started, as the worker says.
    pub started: Time,
    /// When the command ended, as the worker says.
    pub finished: Time,
    /// What the command printed.
    pub log: Option<Artifact>,
}

/// One file that the step was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedInput {
    /// The file, under the name that it has where it comes from.
    pub artifact: Artifact,
    /// Where it comes from.
    pub origin: InputOrigin,
}

/// Where a used file comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InputOrigin {
    /// A product of this manifest.
    Manifest(StatementId),
    /// An external file that the task pins; fetched from here.
    External(String),
    /// Something that the command fetched from here through the worker's proxy.
    Download(String),
}

const UPSTREAM: &str = "manifest";
const AGREEING: &str = "agreeing";
const SOURCE: &str = "source";
const SUBMODULE: &str = "submodule";
const IMAGE: &str = "image";
const INPUT: &str = "input";
const DOWNLOAD: &str = "download";

enum Dependency {
    Source(Source),
    Submodule(Submodule),
    Upstream(StatementId),
    Agreeing(StatementId),
    Image(UsedImage),
    Input(UsedInput),
}

fn read_dependency(value: Value<'_>, at: &str) -> Result<Dependency, Refusal> {
    let descriptor = slsa::descriptor(value, at)?;
    let role = descriptor.annotation("role").and_then(Value::as_str).map(ToOwned::to_owned);
    match role.as_deref() {
        Some(SOURCE) => Source::from_descriptor(descriptor, at).map(Dependency::Source),
        Some(SUBMODULE) => Submodule::from_descriptor(&descriptor, at).map(Dependency::Submodule),
        Some(UPSTREAM) => descriptor.statement_id(at).map(Dependency::Upstream),
        Some(AGREEING) => descriptor.statement_id(at).map(Dependency::Agreeing),
        Some(IMAGE) => UsedImage::from_descriptor(&descriptor, at).map(Dependency::Image),
        Some(DOWNLOAD) => {
            let uri = descriptor.uri.clone().ok_or_else(|| {
                let place = format!("{at}.uri");
                Refusal::new(Code::ParseFieldMissing, place, "this member", "nothing")
            })?;
            let artifact = Artifact::from_descriptor(&descriptor, at)?;
            let origin = InputOrigin::Download(uri.into_owned());
            Ok(Dependency::Input(UsedInput { artifact, origin }))
        }
        Some(INPUT) => {
            let from = descriptor.annotation("manifest").and_then(Value::as_str);
            let origin = match (from, &descriptor.uri) {
                (Some(id), None) => InputOrigin::Manifest(
                    id.parse().map_err(|refusal: Refusal| refusal.within(at))?,
                ),
                (None, Some(uri)) => InputOrigin::External(uri.clone().into_owned()),
                _ => {
                    return Err(Refusal::new(
                        Code::ChainInputUnaccounted,
                        at,
                        "one of manifest and uri",
                        "neither or both",
                    ));
                }
            };
            Ok(Dependency::Input(UsedInput {
                artifact: Artifact::from_descriptor(&descriptor, at)?,
                origin,
            }))
        }
        _ => Err(Refusal::new(
            Code::ChainInputUnaccounted,
            at,
            "annotations.role source, submodule, manifest, agreeing, image, input or download",
            format!("{role:?}"),
        )),
    }
}

fn with_role(mut descriptor: Descriptor<'_>, role: &str) -> Value<'static> {
    descriptor.annotations.push(("role".into(), Value::text(role)));
    descriptor.write()
}

impl UsedInput {
    fn write(&self) -> Value<'static> {
        let mut descriptor = self.artifact.to_descriptor();
        match &self.origin {
            InputOrigin::Manifest(id) => {
                descriptor.annotations.push(("manifest".into(), Value::text(id)));
            }
            InputOrigin::External(uri) => descriptor.uri = Some(uri.as_str().into()),
            InputOrigin::Download(uri) => {
                descriptor.uri = Some(uri.as_str().into());
                return with_role(descriptor, DOWNLOAD);
            }
        }
        with_role(descriptor, INPUT)
    }
}

impl Manifest {
    fn build_definition(&self) -> Value<'static> {
        let external = Value::object([
            (
                "task",
                Value::object([(
                    "digest",
                    Value::object([(Sha256::ALGORITHM, Value::text(self.task))]),
                )]),
            ),
            ("step", Value::text(&self.step)),
            ("command", text_list(&self.command)),
        ])
        .with("destination", self.destination.as_ref().map(Value::text));
        let internal = Value::object([
            ("taskCreator", Value::text(&self.creator)),
            ("environment", text_map(self.environment.iter().map(|(name, value)| (name, value)))),
        ])
        .with(
            "attestations",
            (!self.attestations.is_empty()).then(|| attestation::write_all(&self.attestations)),
        )
        .with("enrolment", self.enrolment.map(Value::text))
        .with("signedSource", self.signed_source.as_ref().map(|raw| Value::text(base64(raw))));
        let source = self.source.iter().map(|source| with_role(source.to_descriptor(), SOURCE));
        let submodules =
            self.submodules.iter().map(|submodule| with_role(submodule.to_descriptor(), SUBMODULE));
        let manifests = |role, ids: &[StatementId]| -> Vec<_> {
            ids.iter().map(|id| with_role(Descriptor::statement(UPSTREAM, *id), role)).collect()
        };
        let upstream = manifests(UPSTREAM, &self.upstream).into_iter();
        let agreeing = manifests(AGREEING, &self.agreeing).into_iter();
        let image = self.image.iter().map(|image| with_role(image.to_descriptor(), IMAGE));
        let inputs = self.inputs.iter().map(UsedInput::write);
        Value::object([
            ("buildType", Value::text(BUILD_TYPE)),
            ("externalParameters", external),
            ("internalParameters", internal),
            (
                "resolvedDependencies",
                Value::list(
                    source
                        .chain(submodules)
                        .chain(upstream)
                        .chain(agreeing)
                        .chain(image)
                        .chain(inputs),
                ),
            ),
        ])
    }

    fn run_details(&self) -> Value<'static> {
        Value::object([
            ("builder", Value::object([("id", Value::text(&self.builder))])),
            (
                "metadata",
                Value::object([
                    ("invocationId", Value::text(&self.invocation)),
                    ("startedOn", Value::text(self.started)),
                    ("finishedOn", Value::text(self.finished)),
                ]),
            ),
            ("byproducts", Value::list(self.log.iter().map(Artifact::write))),
        ])
    }

    /// The manifests that it names: whose products were used, and what agrees with them.
    pub fn named(&self) -> impl Iterator<Item = StatementId> + '_ {
        self.upstream.iter().chain(&self.agreeing).copied()
    }

    /// Whether it lists the same files as another one: names, sizes and digests.
    pub fn agrees(&self, other: &Self) -> bool {
        let twins: BTreeMap<_, _> = other.artifacts.iter().map(|twin| (&twin.name, twin)).collect();
        let same = |artifact: &Artifact| {
            twins.get(&artifact.name).is_some_and(|twin| twin.same_bytes(artifact))
        };
        self.artifacts.len() == other.artifacts.len() && self.artifacts.iter().all(same)
    }

    /// Adds something that the step was given.
    fn add(&mut self, dependency: Dependency) -> Result<(), Refusal> {
        match dependency {
            Dependency::Source(source) if self.source.is_none() => self.source = Some(source),
            Dependency::Source(_) => {
                return Err(Refusal::new(
                    Code::ChainSourceMismatch,
                    "resolvedDependencies",
                    "one source",
                    "two",
                ));
            }
            Dependency::Submodule(submodule) => self.submodules.push(submodule),
            Dependency::Image(image) if self.image.is_none() => self.image = Some(image),
            Dependency::Image(_) => {
                return Err(Refusal::new(
                    Code::WorkerImageMismatch,
                    "resolvedDependencies",
                    "one image",
                    "two",
                ));
            }
            Dependency::Upstream(id) => self.upstream.push(id),
            Dependency::Agreeing(id) => self.agreeing.push(id),
            Dependency::Input(input) => self.inputs.push(input),
        }
        Ok(())
    }

    /// The product of this name.
    pub fn artifact(&self, name: &ArtifactName) -> Option<&Artifact> {
        self.artifacts.iter().find(|artifact| artifact.name == *name)
    }
}

impl Predicate for Manifest {
    const TYPE: &'static str = "https://slsa.dev/provenance/v1";

    fn read(subjects: Vec<Descriptor<'_>>, object: Object<'_>) -> Result<Self, Refusal> {
        let mut object = object.without_nulls();
        let mut definition = slsa::object(&mut object, "buildDefinition")?;
        let build_type = definition.text("buildType")?;
        if build_type != BUILD_TYPE {
            let shown: String = build_type.escape_default().take(120).collect();
            return Err(Refusal::new(
                Code::StmtBuildType,
                definition.place("buildType"),
                BUILD_TYPE,
                shown,
            ));
        }
        let mut external = definition.object("externalParameters")?;
        let task = named_task(&mut external)?;
        let mut internal = slsa::object(&mut definition, "internalParameters")?;
        let dependencies = definition.optional_each("resolvedDependencies", read_dependency)?;
        let mut details = slsa::object(&mut object, "runDetails")?;
        let mut builder = slsa::object(&mut details, "builder")?;
        slsa::ignore(&mut builder, ["version", "builderDependencies"]);
        let mut metadata = slsa::object(&mut details, "metadata")?;
        let mut logs = details.optional_each("byproducts", |value, at| {
            Artifact::from_descriptor(&slsa::descriptor(value, at)?, at)
        })?;
        let named = |(i, subject): (usize, &Descriptor<'_>)| {
            let artifact = Artifact::from_descriptor(subject, "");
            artifact.map_err(|refusal| refusal.inside(&format!("subject[{i}]")))
        };
        let mut manifest = Self {
            artifacts: subjects.iter().enumerate().map(named).collect::<Result<_, _>>()?,
            task,
            step: external.parsed("step")?,
            command: external.each("command", Value::into_text)?,
            destination: external.optional_text("destination")?,
            creator: internal.text("taskCreator")?,
            environment: internal.map("environment")?,
            attestations: attestation::read_all(
                internal.optional("attestations"),
                &internal.place("attestations"),
            )?,
            enrolment: internal.optional_parsed("enrolment")?,
            image: None,
            source: None,
            signed_source: signed_source(&mut internal)?,
            submodules: Vec::new(),
            upstream: Vec::new(),
            agreeing: Vec::new(),
            inputs: Vec::new(),
            builder: builder.text("id")?,
            invocation: metadata.text("invocationId")?,
            started: metadata.parsed("startedOn")?,
            finished: metadata.parsed("finishedOn")?,
            log: logs.pop(),
        };
        unexpected_parameter(external)?;
        [internal, builder, metadata, definition, details, object]
            .into_iter()
            .try_for_each(slsa::finish)?;
        if !logs.is_empty() || dependencies.len() > SUBJECTS {
            return Err(Refusal::new(
                Code::ParseCountExceeded,
                "predicate",
                "one log and at most 100000 dependencies",
                "more",
            ));
        }
        dependencies.into_iter().try_for_each(|dependency| manifest.add(dependency))?;
        check_names(manifest.artifacts.iter().map(|artifact| &artifact.name), "subject")?;
        let paths = manifest.submodules.iter().map(|submodule| &submodule.path);
        each_path_once(paths)?;
        Ok(manifest)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let predicate = Value::object([
            ("buildDefinition", self.build_definition()),
            ("runDetails", self.run_details()),
        ]);
        (self.artifacts.iter().map(Artifact::to_descriptor).collect(), predicate)
    }
}

/// One submodule may lie in another, so paths are less than names of artifacts.
fn each_path_once<'p>(paths: impl Iterator<Item = &'p ArtifactName>) -> Result<(), Refusal> {
    let mut seen = BTreeSet::new();
    for path in paths {
        if !seen.insert(path.folded()) {
            return Err(Refusal::new(
                Code::ArtNameCollision,
                "resolvedDependencies",
                "each submodule once",
                path.as_str(),
            ));
        }
    }
    Ok(())
}

fn signed_source(internal: &mut Object<'_>) -> Result<Option<Vec<u8>>, Refusal> {
    let at = internal.place("signedSource");
    let Some(text) = internal.optional_text("signedSource")? else { return Ok(None) };
    let raw = base64_decode(&text).map_err(|refusal| refusal.within(&at))?;
    if raw.len() > SIGNED_SOURCE_BYTES {
        let (limit, found) =
            (format!("at most {SIGNED_SOURCE_BYTES} bytes"), format!("{} bytes", raw.len()));
        return Err(Refusal::new(Code::ParseSizeExceeded, at, limit, found));
    }
    Ok(Some(raw))
}

/// The task that allowed the run: by digest, and by nothing else.
fn named_task(external: &mut Object<'_>) -> Result<StatementId, Refusal> {
    let at = external.place("task");
    let value = external.optional("task").ok_or_else(|| {
        Refusal::new(Code::ChainTaskMissing, at.clone(), "the task's digest", "nothing")
    })?;
    let closed =
        Descriptor::read_closed(value, &at, &[]).map_err(|refusal| match refusal.code {
            Code::ParseUnknownField => Refusal { code: Code::StmtParameterUnexpected, ..refusal },
            Code::ParseFieldMissing => Refusal { code: Code::ChainTaskMissing, ..refusal },
            _ => refusal,
        })?;
    if closed.name.is_some() || closed.uri.is_some() || closed.digest.len() > 1 {
        return Err(Refusal::new(
            Code::StmtParameterUnexpected,
            at,
            "one digest and nothing else",
            "more",
        ));
    }
    closed.statement_id(&at)
}

fn unexpected_parameter(external: Object<'_>) -> Result<(), Refusal> {
    external.finish().map_err(|refusal| Refusal {
        code: Code::StmtParameterUnexpected,
        found: refusal.found.clone(),
        ..refusal
    })
}
