//! What the machine of a run can prove of itself: documents that its platform signed, kept as they are,
//! so that everybody checks them again.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::parts::Label;
use crate::digest::Sha256;
use crate::encoding::{base64, base64_decode};
use crate::json::{self, Value};
use crate::key::KeyId;
use crate::limits::{ATTESTATION_BYTES, ATTESTATIONS, REQUEST_BYTES, STRING_BYTES};
use crate::{BASE_URI, Code, Refusal};

/// Documents of one platform about one machine. They are bytes here: `custody-machine` reads them, and
/// nothing in them is believed before it is verified.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attestation {
    /// The platform, as the policy names it.
    pub platform: Label,
    /// The documents by name, in order: which there are is the platform's kind's to say.
    pub parts: Vec<(Label, Vec<u8>)>,
}

impl Attestation {
    /// The part of this name.
    pub fn part(&self, name: &str) -> Option<&[u8]> {
        self.parts.iter().find(|(known, _)| known.as_str() == name).map(|(_, bytes)| &**bytes)
    }

    /// Reads one that stands in a file of its own.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        Self::read(json::parse(bytes, REQUEST_BYTES, STRING_BYTES)?, "attestation")
    }

    /// The attestation for a file of its own.
    pub fn to_json(&self) -> String {
        let mut json = self.write().to_pretty();
        json.push('\n');
        json
    }

    fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let mut parts: Vec<(Label, Vec<u8>)> = Vec::new();
        for (name, text) in object.map("parts")? {
            let place = format!("{at}.parts.{}", name.escape_default());
            let name: Label = name.parse().map_err(|refusal: Refusal| refusal.within(&place))?;
            let bytes = base64_decode(&text).map_err(|refusal| refusal.within(&place))?;
            if bytes.len() > ATTESTATION_BYTES {
                let expected = format!("at most {ATTESTATION_BYTES} bytes");
                let found = format!("{}", bytes.len());
                return Err(Refusal::new(Code::ParseSizeExceeded, place, expected, found));
            }
            parts.push((name, bytes));
        }
        let attestation = Self { platform: object.parsed("platform")?, parts };
        object.finish()?;
        Ok(attestation)
    }

    fn write(&self) -> Value<'static> {
        let parts = self
            .parts
            .iter()
            .map(|(name, bytes)| (Cow::Owned(name.as_str().into()), Value::text(base64(bytes))));
        Value::object([
            ("platform", Value::text(&self.platform)),
            ("parts", Value::Object(parts.collect())),
        ])
    }
}

/// The attestations of one statement: one of a platform, and not too many.
pub(super) fn read_all(value: Option<Value<'_>>, at: &str) -> Result<Vec<Attestation>, Refusal> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let list = value.into_list(at)?;
    if list.len() > ATTESTATIONS {
        let expected = format!("at most {ATTESTATIONS} attestations");
        let found = format!("{}", list.len());
        return Err(Refusal::new(Code::ParseCountExceeded, at, expected, found));
    }
    let mut all: Vec<Attestation> = Vec::new();
    for (i, value) in list.into_iter().enumerate() {
        let place = format!("{at}[{i}]");
        let attestation = Attestation::read(value, &place)?;
        if all.iter().any(|known| known.platform == attestation.platform) {
            let found = format!("two of {}", attestation.platform);
            return Err(Refusal::new(
                Code::StmtSubjectDuplicate,
                place,
                "one of a platform",
                found,
            ));
        }
        all.push(attestation);
    }
    Ok(all)
}

pub(super) fn write_all(all: &[Attestation]) -> Value<'static> {
    Value::list(all.iter().map(Attestation::write))
}

/// What a platform is asked to put into its word, where it signs something of the asker's choice (a
/// nonce, an audience): so the word is of this run, by this key, and of no other. `purpose` is the id of
/// the task, or the challenge of an enrolment.
pub fn binding(purpose: &Sha256, worker: &KeyId) -> Sha256 {
    let text: String = format!("{BASE_URI}attestation/v1\n{purpose}\n{worker}\n");
    Sha256::of(text.as_bytes())
}
