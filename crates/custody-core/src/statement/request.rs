//! The request: what a phase of a release is to do.

use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::parts::{Descriptor, Label, ReleaseId, Source};
use super::{Manifest, Predicate};
use crate::digest::Sha256;
use crate::envelope::StatementId;
use crate::json::{Object, Value, text_map};
use crate::name::ArtifactName;
use crate::time::Time;
use crate::{Code, Refusal};

/// What a phase is to do. People sign off exactly this; changing anything makes another request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which release.
    pub release: ReleaseId,
    /// Which phase of it.
    pub phase: Label,
    /// The source, at one revision.
    pub source: Source,
    /// The pipeline file in the source.
    pub pipeline: Pipeline,
    /// The policy that it was proposed under.
    pub policy: PolicyRef,
    /// The manifests of earlier phases and other releases that it takes inputs from.
    pub builds_on: Vec<EarlierManifest>,
    /// Parameters for the pipeline.
    pub parameters: Vec<(String, String)>,
    /// When it was made, as the proposer says.
    pub created: Time,
    /// When it ends; sign-offs, authorization and tasks must fall before.
    pub expires: Time,
    /// 32 hexadecimal digits that make it unlike any other.
    pub nonce: String,
}

/// The pipeline file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pipeline {
    /// Its path in the source.
    pub path: ArtifactName,
    /// Its bytes.
    pub sha256: Sha256,
}

/// A policy, by version and statement id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyRef {
    /// The version.
    pub version: u64,
    /// The statement id of its envelope.
    pub id: StatementId,
}

/// A manifest that exists already, all of whose artifacts may be used. Its statement id says what they are;
/// how many and how large, so that people see from the request alone what they sign for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierManifest {
    /// The step that made it.
    pub step: Label,
    /// Its statement id.
    pub manifest: StatementId,
    /// How many artifacts it lists.
    pub artifacts: u64,
    /// Their bytes in all.
    pub bytes: u64,
}

impl EarlierManifest {
    /// The entry of a manifest of this id.
    pub fn of(id: StatementId, manifest: &Manifest) -> Self {
        let bytes = manifest.artifacts.iter().map(|artifact| artifact.size);
        Self {
            step: manifest.step.clone(),
            manifest: id,
            artifacts: u64::try_from(manifest.artifacts.len()).unwrap_or(u64::MAX),
            bytes: bytes.fold(0, u64::saturating_add),
        }
    }

    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let entry = Self {
            step: object.parsed("step")?,
            manifest: object.parsed("manifest")?,
            artifacts: object.integer("artifacts")?,
            bytes: object.integer("bytes")?,
        };
        object.finish()?;
        Ok(entry)
    }

    fn write(&self) -> Value<'static> {
        Value::object([
            ("step", Value::text(&self.step)),
            ("manifest", Value::text(self.manifest)),
            ("artifacts", Value::Integer(self.artifacts)),
            ("bytes", Value::Integer(self.bytes)),
        ])
    }
}

fn read_builds_on(object: &mut Object<'_>) -> Result<Vec<EarlierManifest>, Refusal> {
    let entries = object.each("buildsOn", EarlierManifest::read)?;
    let mut known = BTreeSet::new();
    match entries.iter().find(|entry| !known.insert(entry.manifest)) {
        None => Ok(entries),
        Some(entry) => Err(Refusal::new(
            Code::StmtSubjectDuplicate,
            object.place("buildsOn"),
            "each manifest once",
            entry.manifest.to_string(),
        )),
    }
}

pub(super) fn read_nonce(object: &mut Object<'_>) -> Result<String, Refusal> {
    let nonce = object.text("nonce")?;
    if nonce.len() == 32 && nonce.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(nonce);
    }
    Err(Refusal::new(
        Code::ParseFieldType,
        object.place("nonce"),
        "32 lower-case hexadecimal digits",
        "other text",
    ))
}

impl Request {
    /// How many artifacts of earlier phases it takes up, and their bytes in all.
    pub fn content(&self) -> (u64, u64) {
        self.builds_on.iter().fold((0, 0), |(count, bytes), entry| {
            (count.saturating_add(entry.artifacts), bytes.saturating_add(entry.bytes))
        })
    }
}

impl Predicate for Request {
    const TYPE: &'static str = "https://custody.dev/release-request/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let mut release = object.object("release")?;
        let mut pipeline = object.object("pipeline")?;
        let mut policy = object.object("policy")?;
        let request = Self {
            release: ReleaseId::read(&mut release)?,
            phase: object.parsed("phase")?,
            source: Source::read(object.required("source")?, "predicate.source")?,
            pipeline: Pipeline {
                path: pipeline.parsed("path")?,
                sha256: pipeline.parsed("sha256")?,
            },
            policy: PolicyRef { version: policy.integer("version")?, id: policy.parsed("id")? },
            builds_on: read_builds_on(&mut object)?,
            parameters: object.map("parameters")?,
            created: object.parsed("created")?,
            expires: object.parsed("expires")?,
            nonce: read_nonce(&mut object)?,
        };
        [release, pipeline, policy, object].into_iter().try_for_each(Object::finish)?;
        match subjects.as_slice() {
            [one] if Source::from_descriptor(one.clone(), "subject[0]")? == request.source => {
                Ok(request)
            }
            _ => Err(Refusal::new(
                Code::ParseFieldType,
                "subject",
                "the source of the predicate, alone",
                "another subject",
            )),
        }
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let predicate = Value::object([
            ("release", self.release.write()),
            ("phase", Value::text(&self.phase)),
            ("source", self.source.write()),
            (
                "pipeline",
                Value::object([
                    ("path", Value::text(&self.pipeline.path)),
                    ("sha256", Value::text(self.pipeline.sha256)),
                ]),
            ),
            (
                "policy",
                Value::object([
                    ("version", Value::Integer(self.policy.version)),
                    ("id", Value::text(self.policy.id)),
                ]),
            ),
            ("buildsOn", Value::list(self.builds_on.iter().map(EarlierManifest::write))),
            ("parameters", text_map(self.parameters.iter().map(|(name, value)| (name, value)))),
            ("created", Value::text(self.created)),
            ("expires", Value::text(self.expires)),
            ("nonce", Value::text(&self.nonce)),
        ]);
        (Vec::from([self.source.to_descriptor()]), predicate)
    }
}
