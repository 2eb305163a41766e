//! The enrolment: a short-lived certificate of a key that a worker made for itself, by a service to
//! which it proved its machine.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::Predicate;
use super::attestation::{self, Attestation};
use super::parts::{Descriptor, Label};
use crate::crypto::signature_fits;
use crate::digest::Sha256;
use crate::encoding::{base64, base64_decode};
use crate::envelope::pae;
use crate::json::{self, Object, Value, text_map};
use crate::key::{KeyId, PublicKey};
use crate::limits::{REQUEST_BYTES, STRING_BYTES};
use crate::time::Time;
use crate::{BASE_URI, Code, Refusal};

/// A key is of this machine for this time, and this is what was proved of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolment {
    /// The worker's key. It signs plainly.
    pub key: PublicKey,
    /// The machine, as the policy names it.
    pub machine: Label,
    /// What the service gave out for this one enrolment.
    pub challenge: Sha256,
    /// The key's signature over [`possession`]: whoever asked has the key.
    pub possession: Vec<u8>,
    /// What the platforms of the machine signed.
    pub attestations: Vec<Attestation>,
    /// What the attestations prove, as the service found it. Whoever relies on it verifies them again.
    pub facts: Vec<(String, String)>,
    /// Before this moment the key signs nothing. It is when the service signed.
    pub from: Time,
    /// From this moment on the key signs nothing more.
    pub until: Time,
}

/// What a worker asks a service to certify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrolmentRequest {
    /// The worker's key.
    pub key: PublicKey,
    /// The machine that it says it is.
    pub machine: Label,
    /// What the service gave out.
    pub challenge: Sha256,
    /// The key's signature over [`possession`].
    pub possession: Vec<u8>,
    /// What the platforms of the machine signed.
    pub attestations: Vec<Attestation>,
}

const KEY: &str = "key";

/// What a worker signs with its new key, so that nobody enrols a key that they do not have. It is of a
/// payload type of its own: no envelope has it.
pub fn possession(challenge: &Sha256, machine: &Label, key: &KeyId) -> Vec<u8> {
    let text = format!("{BASE_URI}enrolment/v1\n{challenge}\n{machine}\n{key}\n");
    pae("application/vnd.custody.possession", text.as_bytes())
}

/// The members that a certificate repeats of the request for it.
fn members(
    machine: &Label,
    key: &PublicKey,
    challenge: &Sha256,
    possession: &[u8],
    attestations: &[Attestation],
) -> Value<'static> {
    Value::object([
        ("machine", Value::text(machine)),
        ("key", Value::text(key.to_openssh())),
        ("challenge", Value::text(challenge)),
        ("possession", Value::text(base64(possession))),
        ("attestations", attestation::write_all(attestations)),
    ])
}

impl EnrolmentRequest {
    fn take(object: &mut Object<'_>) -> Result<Self, Refusal> {
        let at = |name| object.place(name);
        let (key_at, possession_at, attestations_at) =
            (at("key"), at("possession"), at("attestations"));
        let request = Self {
            machine: object.parsed("machine")?,
            key: object.parsed("key")?,
            challenge: object.parsed("challenge")?,
            possession: base64_decode(&object.text("possession")?)
                .map_err(|refusal| refusal.within(&possession_at))?,
            attestations: attestation::read_all(
                Some(object.required("attestations")?),
                &attestations_at,
            )?,
        };
        if request.key.dsse_scheme().is_none() {
            let found = request.key.ssh_type();
            return Err(Refusal::new(Code::PolicyKeyWeak, key_at, "a plain key", found));
        }
        Ok(request)
    }

    /// Reads a request. It is closed, like a predicate of our own.
    pub fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let mut object = json::parse(bytes, REQUEST_BYTES, STRING_BYTES)?.into_object("request")?;
        let request = Self::take(&mut object)?;
        object.finish()?;
        Ok(request)
    }

    /// The request as it is sent.
    pub fn to_json(&self) -> String {
        let Self { machine, key, challenge, possession, attestations } = self;
        members(machine, key, challenge, possession, attestations).to_line()
    }

    /// The certificate that grants it.
    pub fn certified(self, facts: Vec<(String, String)>, from: Time, until: Time) -> Enrolment {
        let Self { machine, key, challenge, possession, attestations } = self;
        Enrolment { key, machine, challenge, possession, attestations, facts, from, until }
    }
}

impl Enrolment {
    /// Whether the key itself signed for this machine and this challenge.
    pub fn possesses(&self) -> bool {
        let message = possession(&self.challenge, &self.machine, &self.key.id());
        let fits = |scheme| signature_fits(&self.key, scheme, &message, &self.possession);
        self.key.dsse_scheme().is_some_and(fits)
    }
}

impl Predicate for Enrolment {
    const TYPE: &'static str = "https://custody.dev/enrolment/v1";

    fn read(subjects: Vec<Descriptor<'_>>, mut object: Object<'_>) -> Result<Self, Refusal> {
        let until_at = object.place("until");
        let request = EnrolmentRequest::take(&mut object)?;
        let facts = object.map("facts")?;
        let (from, until) = (object.parsed("from")?, object.parsed("until")?);
        object.finish()?;
        let enrolment = request.certified(facts, from, until);
        if enrolment.until <= enrolment.from {
            let expected = format!("a time after {}", enrolment.from);
            let found = format!("{}", enrolment.until);
            return Err(Refusal::new(Code::ChainTimeOrder, until_at, expected, found));
        }
        let named = match subjects.as_slice() {
            [one] if one.name.as_deref() == Some(KEY) => one.statement_id("subject[0]")?.0,
            _ => {
                let expected = "one subject named \"key\"";
                return Err(Refusal::new(
                    Code::ParseFieldType,
                    "subject",
                    expected,
                    "other subjects",
                ));
            }
        };
        let key = enrolment.key.id();
        if named != key.digest() {
            let (expected, found) = (format!("the key's id {key}"), format!("{named}"));
            return Err(Refusal::new(Code::ChainDigestMismatch, "subject[0]", expected, found));
        }
        Ok(enrolment)
    }

    fn write(&self) -> (Vec<Descriptor<'_>>, Value<'static>) {
        let subject = Descriptor {
            digest: Vec::from([(Sha256::ALGORITHM.into(), format!("{}", self.key.id()).into())]),
            ..Descriptor::named(KEY)
        };
        let facts = text_map(self.facts.iter().map(|(name, value)| (name, value)));
        let predicate = members(
            &self.machine,
            &self.key,
            &self.challenge,
            &self.possession,
            &self.attestations,
        )
        .with("facts", Some(facts))
        .with("from", Some(Value::text(self.from)))
        .with("until", Some(Value::text(self.until)));
        (Vec::from([subject]), predicate)
    }
}
