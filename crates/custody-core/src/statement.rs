//! The statements of Custody: in-toto Statement v1 around one predicate each.
//!
//! Unknown members are ignored in the Statement layer, as in-toto demands, and refused inside our own
//! predicates and inside SLSA's external parameters. Inside SLSA's predicates, extension fields are
//! ignored.

mod attestation;
mod authorization;
mod enrolment;
mod image;
mod intent;
mod manifest;
mod parts;
mod request;
mod resolution;
mod signoff;
mod slsa;
mod summary;
mod task;

pub use attestation::{Attestation, binding};
pub use authorization::{Approver, Authorization};
pub use enrolment::{Enrolment, EnrolmentRequest, possession};
pub use image::{Image, UsedImage};
pub use intent::{Intent, Stage};
pub use manifest::{BUILD_TYPE, InputOrigin, Manifest, UsedInput, worker_uri};
pub use parts::{Artifact, Label, ReleaseId, Revision, Source, Submodule};
pub use request::{EarlierManifest, Pipeline, PolicyRef, Request};
pub use resolution::{Resolution, Resolve};
pub use signoff::{Decision, Signoff, short_code};
pub use summary::{Summary, VerificationResult, gate_uri};
pub use task::{Downloads, External, Input, Limits, Origin, Pinned, Task};

use alloc::string::String;
use alloc::vec::Vec;

use crate::envelope::{Envelope, Payload, sealed};
use crate::json::{self, Object, Value};
use crate::limits::{ENVELOPE_BYTES, STRING_BYTES, SUBJECTS};
use crate::{Code, Refusal};
use parts::Descriptor;

/// The type of the in-toto Statement layer.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";

/// Any statement that Custody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "most statements are manifests")]
pub enum Statement {
    /// What a phase of a release is to do.
    Request(Request),
    /// One person's word on one request.
    Signoff(Signoff),
    /// The desk's word that a request has its sign-offs.
    Authorization(Authorization),
    /// What one step needs to start.
    Task(Task),
    /// What one step made, from what, and where.
    Manifest(Manifest),
    /// A gate's word on what it verified.
    Summary(Summary),
    /// An irrevocable act announced or done.
    Intent(Intent),
    /// A person's word on an act in doubt or a fork.
    Resolution(Resolution),
    /// A service's word on a worker's key.
    Enrolment(Enrolment),
}

/// One predicate: how its type is called, read and written.
pub(crate) trait Predicate: Sized {
    const TYPE: &'static str;

    fn read(subjects: Vec<Descriptor<'_>>, predicate: Object<'_>) -> Result<Self, Refusal>;

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>);
}

macro_rules! statements {
    ($($kind:ident $as_kind:ident $name:literal;)+) => {
        impl Statement {
            fn read(predicate_type: &str, subjects: Vec<Descriptor<'_>>, predicate: Object<'_>) -> Result<Self, Refusal> {
                match predicate_type {
                    $(<$kind as Predicate>::TYPE => $kind::read(subjects, predicate).map(Self::$kind),)+
                    other => {
                        let shown: String = other.escape_default().take(120).collect();
                        Err(Refusal::new(Code::StmtPredicateType, "predicateType", "a type that Custody knows", shown))
                    }
                }
            }

            /// What the statement is called in sentences.
            pub const fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => $name,)+ }
            }

            /// The predicate type.
            pub const fn predicate_type(&self) -> &'static str {
                match self { $(Self::$kind(_) => <$kind as Predicate>::TYPE,)+ }
            }

            fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
                match self { $(Self::$kind(inner) => inner.write(),)+ }
            }

            $(
                #[doc = concat!("The ", $name, ", if it is one.")]
                pub const fn $as_kind(&self) -> Option<&$kind> {
                    match self { Self::$kind(inner) => Some(inner), _ => None }
                }
            )+
        }

        $(
            impl From<$kind> for Statement {
                fn from(inner: $kind) -> Self {
                    Self::$kind(inner)
                }
            }
        )+
    };
}

statements! {
    Request as_request "request";
    Signoff as_signoff "sign-off";
    Authorization as_authorization "authorization";
    Task as_task "task";
    Manifest as_manifest "manifest";
    Summary as_summary "verification summary";
    Intent as_intent "intent";
    Resolution as_resolution "resolution";
    Enrolment as_enrolment "enrolment";
}

impl sealed::Sealed for Statement {}

impl Payload for Statement {
    const TYPE: &'static str = "application/vnd.in-toto+json";

    fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let value = json::parse(bytes, ENVELOPE_BYTES, STRING_BYTES)
            .map_err(|refusal| refusal.within("statement"))?;
        let mut object = value.into_object("")?;
        let kind = object.text("_type")?;
        if kind != STATEMENT_TYPE {
            let shown: String = kind.escape_default().take(120).collect();
            return Err(Refusal::new(Code::StmtType, "_type", STATEMENT_TYPE, shown));
        }
        let subjects = object.each("subject", Descriptor::read)?;
        if subjects.is_empty() {
            return Err(Refusal::new(Code::StmtSubjectEmpty, "subject", "a subject", "none"));
        }
        if subjects.len() > SUBJECTS {
            let found = alloc::format!("{}", subjects.len());
            return Err(Refusal::new(
                Code::ParseCountExceeded,
                "subject",
                "at most 100000 subjects",
                found,
            ));
        }
        let predicate_type = object.text("predicateType")?;
        let predicate = object.object("predicate")?;
        Self::read(&predicate_type, subjects, predicate)
    }
}

impl Statement {
    /// The statement as people read it and as it is signed: indented, members in their fixed order.
    pub fn to_json(&self) -> String {
        let (subjects, predicate) = self.write();
        let mut json = Value::object([
            ("_type", Value::text(STATEMENT_TYPE)),
            ("subject", Value::list(subjects.iter().map(Descriptor::write))),
            ("predicateType", Value::text(self.predicate_type())),
            ("predicate", predicate),
        ])
        .to_pretty();
        json.push('\n');
        json
    }

    /// An envelope around this statement, to be signed.
    pub fn to_envelope(&self) -> Envelope {
        Envelope::unsigned::<Self>(self.to_json())
    }
}
