//! The verification summary: a gate's word on what it verified. It is SLSA VSA v1
//! (<https://slsa.dev/spec/v1.1/verification_summary>).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::parts::{Artifact, Descriptor};
use super::slsa;
use crate::BASE_URI;
use crate::envelope::StatementId;
use crate::json::{Object, Value, text_list};
use crate::key::KeyId;
use crate::time::Time;
use crate::{Code, Refusal};

/// How summaries name the gate that signs with this key.
pub fn gate_uri(key: &KeyId) -> String {
    format!("{BASE_URI}gate/{key}")
}

/// What a gate verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The artifacts that were verified.
    pub artifacts: Vec<Artifact>,
    /// The gate, as a URI.
    pub verifier: String,
    /// When, as the gate says.
    pub verified: Time,
    /// What the artifacts are: `custody:PRODUCT/VERSION/CHANNEL/INSTANCE`.
    pub resource_uri: String,
    /// Where the policy is described.
    pub policy_uri: String,
    /// The policy's statement id.
    pub policy: StatementId,
    /// Every statement that the verdict rests on.
    pub inputs: Vec<StatementId>,
    /// The verdict.
    pub result: VerificationResult,
    /// What the artifacts were found to fulfil.
    pub levels: Vec<String>,
}

/// The verdict of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerificationResult {
    /// Everything that the policy asks for held.
    Passed,
    /// Something did not.
    Failed,
}

impl Predicate for Summary {
    const TYPE: &'static str = "https://slsa.dev/verification_summary/v1";

    fn read(subjects: Vec<Descriptor<'_>>, object: Object<'_>) -> Result<Self, Refusal> {
        let mut object = object.without_nulls();
        let mut verifier = slsa::object(&mut object, "verifier")?;
        slsa::ignore(&mut verifier, ["version"]);
        let policy = slsa::descriptor(object.required("policy")?, "predicate.policy")?;
        let result = match object.text("verificationResult")?.as_str() {
            "PASSED" => VerificationResult::Passed,
            "FAILED" => VerificationResult::Failed,
            _ => {
                return Err(Refusal::new(
                    Code::ParseFieldType,
                    object.place("verificationResult"),
                    "PASSED or FAILED",
                    "other text",
                ));
            }
        };
        let named = |(i, subject): (usize, &Descriptor<'_>)| {
            let artifact = Artifact::from_descriptor(subject, "");
            artifact.map_err(|refusal| refusal.inside(&format!("subject[{i}]")))
        };
        let missing =
            |at: &str| Refusal::new(Code::ParseFieldMissing, at, "this member", "nothing");
        let summary = Self {
            artifacts: subjects.iter().enumerate().map(named).collect::<Result<_, _>>()?,
            verifier: verifier.text("id")?,
            verified: object.parsed("timeVerified")?,
            resource_uri: object.text("resourceUri")?,
            policy: policy.statement_id("predicate.policy")?,
            policy_uri: policy.uri.ok_or_else(|| missing("predicate.policy.uri"))?.into_owned(),
            inputs: object.optional_each("inputAttestations", |value, at| {
                slsa::descriptor(value, at)?.statement_id(at)
            })?,
            result,
            levels: object.each("verifiedLevels", Value::into_text)?,
        };
        slsa::ignore(&mut object, ["dependencyLevels", "slsaVersion"]);
        slsa::finish(verifier)?;
        slsa::finish(object)?;
        Ok(summary)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let result = match self.result {
            VerificationResult::Passed => "PASSED",
            VerificationResult::Failed => "FAILED",
        };
        let bare = |id: &StatementId| Descriptor { name: None, ..Descriptor::statement("", *id) };
        let policy =
            Descriptor { uri: Some(self.policy_uri.as_str().into()), ..bare(&self.policy) };
        let predicate = Value::object([
            ("verifier", Value::object([("id", Value::text(&self.verifier))])),
            ("timeVerified", Value::text(self.verified)),
            ("resourceUri", Value::text(&self.resource_uri)),
            ("policy", policy.write()),
            ("inputAttestations", Value::list(self.inputs.iter().map(|id| bare(id).write()))),
            ("verificationResult", Value::text(result)),
            ("verifiedLevels", text_list(&self.levels)),
            ("slsaVersion", Value::text("1.1")),
        ]);
        (self.artifacts.iter().map(Artifact::to_descriptor).collect(), predicate)
    }
}
