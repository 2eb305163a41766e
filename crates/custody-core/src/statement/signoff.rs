//! The sign-off: one person's word on one request.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::parts::{Descriptor, Label, ReleaseId, Source, only_statement};
use super::{Predicate, Request};
use crate::envelope::StatementId;
use crate::json::{Object, Value, text_map};
use crate::time::Time;
use crate::{Code, Refusal};

/// What the person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The phase may start.
    Approve,
    /// The phase must not start. A refusal blocks.
    Refuse,
    /// The person's earlier approval, which `withdraws` names, no longer holds.
    Withdraw,
}

impl Decision {
    /// The word in the statement.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Refuse => "refuse",
            Self::Withdraw => "withdraw",
        }
    }

    /// The decision of this word.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Approve, Self::Refuse, Self::Withdraw]
            .into_iter()
            .find(|decision| decision.word() == word)
    }
}

/// One person's word on one request. It repeats what the request says, so that a person sees what
/// they sign; the judge holds both against each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signoff {
    /// The request.
    pub request: StatementId,
    /// What the person decided.
    pub decision: Decision,
    /// Who the person says they are; the key must be theirs.
    pub person: Label,
    /// The role in which they speak.
    pub role: Label,
    /// Which release.
    pub release: ReleaseId,
    /// Which phase.
    pub phase: Label,
    /// The source.
    pub source: Source,
    /// The parameters for the pipeline, the destination among them.
    pub parameters: Vec<(String, String)>,
    /// How many artifacts of earlier phases the request names.
    pub artifacts: u64,
    /// Their bytes in all.
    pub bytes: u64,
    /// The approval that a withdrawal ends.
    pub withdraws: Option<StatementId>,
    /// When it was made, as the person says.
    pub created: Time,
    /// When it ends.
    pub expires: Time,
    /// What the person wants to say.
    pub comment: String,
}

/// Eight characters that people compare between page, terminal and telephone: 40 bits of the
/// request's id in an alphabet without look-alikes. Nothing is ever found or accepted by it.
pub fn short_code(id: StatementId) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let bits =
        id.0.as_bytes().iter().take(5).fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let letter = |shift: u32| {
        let index = usize::try_from(bits >> shift & 31).unwrap_or_default();
        ALPHABET.get(index).copied().map_or('-', char::from)
    };
    let half = |shifts: [u32; 4]| shifts.into_iter().map(letter).collect::<String>();
    format!("{}-{}", half([35, 30, 25, 20]), half([15, 10, 5, 0]))
}

fn shown(parameters: &[(String, String)]) -> String {
    text_map(parameters.iter().map(|(name, value)| (name, value))).to_line()
}

impl Signoff {
    /// A sign-off of this request with all that it repeats of it.
    pub fn of(
        request: &Request,
        id: StatementId,
        decision: Decision,
        person: Label,
        role: Label,
        created: Time,
    ) -> Self {
        let (artifacts, bytes) = request.content();
        Self {
            request: id,
            decision,
            person,
            role,
            release: request.release.clone(),
            phase: request.phase.clone(),
            source: request.source.clone(),
            parameters: request.parameters.clone(),
            artifacts,
            bytes,
            withdraws: None,
            created,
            expires: request.expires,
            comment: String::new(),
        }
    }

    /// The first thing in which the sign-off differs from what the request says.
    pub fn difference(
        &self,
        request: &Request,
        id: StatementId,
    ) -> Option<(&'static str, String, String)> {
        let (artifacts, bytes) = request.content();
        let pairs = [
            ("request", id.to_string(), self.request.to_string()),
            ("release", request.release.to_string(), self.release.to_string()),
            ("phase", request.phase.to_string(), self.phase.to_string()),
            ("source", request.source.to_string(), self.source.to_string()),
            ("parameters", shown(&request.parameters), shown(&self.parameters)),
            (
                "content",
                format!("{artifacts} artifacts, {bytes} bytes"),
                format!("{} artifacts, {} bytes", self.artifacts, self.bytes),
            ),
        ];
        pairs.into_iter().find(|(_, expected, found)| expected != found)
    }
}

impl Predicate for Signoff {
    const TYPE: &'static str = "https://custody.dev/signoff/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let request = only_statement(&subjects, "request")?;
        let word = object.text("decision")?;
        let decision = Decision::from_word(&word).ok_or_else(|| {
            Refusal::new(
                Code::ParseFieldType,
                object.place("decision"),
                "approve, refuse or withdraw",
                word.escape_default().to_string(),
            )
        })?;
        let mut release = object.object("release")?;
        let signoff = Self {
            request,
            decision,
            person: object.parsed("person")?,
            role: object.parsed("role")?,
            release: ReleaseId::read(&mut release)?,
            phase: object.parsed("phase")?,
            source: Source::read(object.required("source")?, "predicate.source")?,
            parameters: object.map("parameters")?,
            artifacts: object.integer("artifacts")?,
            bytes: object.integer("bytes")?,
            withdraws: object.optional_parsed("withdraws")?,
            created: object.parsed("created")?,
            expires: object.parsed("expires")?,
            comment: object.text("comment")?,
        };
        let code = object.text("shortCode")?;
        if code != short_code(request) {
            return Err(Refusal::new(
                Code::SignoffContentMismatch,
                object.place("shortCode"),
                short_code(request),
                code.escape_default().to_string(),
            ));
        }
        release.finish()?;
        object.finish()?;
        if (decision == Decision::Withdraw) != signoff.withdraws.is_some() {
            return Err(Refusal::new(
                Code::ParseFieldType,
                "predicate.withdraws",
                "this member in withdrawals and nowhere else",
                "otherwise",
            ));
        }
        Ok(signoff)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let predicate = Value::object([
            ("decision", Value::text(self.decision.word())),
            ("release", self.release.write()),
            ("phase", Value::text(&self.phase)),
            ("source", self.source.write()),
            ("parameters", text_map(self.parameters.iter().map(|(name, value)| (name, value)))),
            ("artifacts", Value::Integer(self.artifacts)),
            ("bytes", Value::Integer(self.bytes)),
            ("shortCode", Value::text(short_code(self.request))),
            ("person", Value::text(&self.person)),
            ("role", Value::text(&self.role)),
        ])
        .with("withdraws", self.withdraws.map(Value::text))
        .with("created", Some(Value::text(self.created)))
        .with("expires", Some(Value::text(self.expires)))
        .with("comment", Some(Value::text(self.comment.clone())));
        (Vec::from([Descriptor::statement("request", self.request)]), predicate)
    }
}
