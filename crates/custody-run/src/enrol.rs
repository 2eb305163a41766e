//! Enrolment, as the worker sees it: a challenge is fetched, the machine's platforms are asked, and what
//! they say is sent with the new public key. A certificate comes back.

use std::io::Read as _;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload as _};
use custody_core::json;
use custody_core::key::PublicKey;
use custody_core::limits::REQUEST_BYTES;
use custody_core::statement::{
    Attestation, Enrolment, EnrolmentRequest, Label, Statement, binding, possession,
};
use custody_core::{Code, Refusal};
use custody_sign::Signer;
use ureq::Agent;
use url::Url;

use crate::destination::{agent, endpoint};

/// Largest answer of a service that is read: a certificate repeats the request.
const ANSWER_BYTES: u64 = 16 << 20;

/// The media type of certificates.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// A service that enrols workers.
#[derive(Debug)]
pub struct Service {
    agent: Agent,
    url: Url,
}

impl Service {
    /// The service at this address: `https://…`, or `http://` to this very machine, where a tunnel or a
    /// test may be. Who could answer in its place could send what the worker proves as their own.
    pub fn at(text: &str) -> Result<Self, Refusal> {
        let url = endpoint(text).map_err(|(expected, found)| {
            Refusal::new(Code::GateUnavailable, format!("--url {text}"), expected, found)
        })?;
        Ok(Self { agent: agent(&url), url })
    }

    /// Enrols the signer's key for a machine. `attest` asks the platforms, each for a word with this
    /// binding in it where it takes one.
    pub fn enrol(
        &self,
        machine: &Label,
        signer: &dyn Signer,
        attest: impl FnOnce(&Sha256) -> Result<Vec<Attestation>, Refusal>,
    ) -> Result<Envelope, Refusal> {
        let challenge = self.challenge()?;
        let key = signer.public_key();
        let request = EnrolmentRequest {
            machine: machine.clone(),
            key: key.clone(),
            challenge,
            possession: signer.sign_plain(&possession(&challenge, machine, &key.id()))?,
            attestations: attest(&binding(&challenge, &key.id()))?,
        };
        let body = request.to_json();
        if body.len() > REQUEST_BYTES {
            let expected = format!("at most {REQUEST_BYTES} bytes");
            let found = format!("{} bytes", body.len());
            return Err(Refusal::new(Code::ParseSizeExceeded, "the request", expected, found));
        }
        let certificate = Envelope::parse(&self.post("v1/enrol", body.as_bytes())?)?;
        granted(&certificate, &challenge, machine, key)?;
        Ok(certificate)
    }

    fn challenge(&self) -> Result<Sha256, Refusal> {
        let answer = self.post("v1/challenge", b"{}")?;
        let mut object = json::parse(&answer, 4096, 1024)?.into_object("challenge")?;
        object.parsed("challenge")
    }

    fn post(&self, path: &str, body: &[u8]) -> Result<Vec<u8>, Refusal> {
        let unavailable = |found: String| {
            let at = format!("enrolment service {}", self.url);
            Refusal::new(Code::GateUnavailable, at, "an answer", found).advising(
                "see that custody enrol serve runs there and --url leads to it, then ask again",
            )
        };
        let url = self.url.join(path).map_err(|error| unavailable(error.to_string()))?;
        let request = self.agent.post(url.as_str()).header("content-type", "application/json");
        let mut response = request.send(body).map_err(|error| unavailable(error.to_string()))?;
        let mut answer = Vec::new();
        let mut content = response.body_mut().as_reader().take(ANSWER_BYTES);
        content.read_to_end(&mut answer).map_err(|error| unavailable(error.to_string()))?;
        if response.status() == 200 {
            return Ok(answer);
        }
        let refused = refusal(&answer).map(|refusal| refusal.within("enrolment service"));
        Err(refused.unwrap_or_else(|| unavailable(format!("HTTP {}", response.status()))))
    }
}

/// What a service says that does not enrol.
fn refusal(answer: &[u8]) -> Option<Refusal> {
    let mut object = json::parse(answer, 1 << 20, 1 << 16).ok()?.into_object("").ok()?;
    let code = Code::from_name(&object.text("code").ok()?)?;
    let mut text = |name| object.text(name).ok();
    // what to do is for Custody to say here, not for whoever answers
    let refusal = Refusal::new(code, text("at")?, text("expected")?, text("found")?);
    Some(match code {
        Code::PolicyKeyPurpose => refusal.advising(
            "write --machine as the policy does; a new machine needs a new policy version",
        ),
        _ => refusal,
    })
}

/// The certificate is of what was asked for. Whether it holds is the judge's to say.
fn granted(
    certificate: &Envelope,
    challenge: &Sha256,
    machine: &Label,
    key: &PublicKey,
) -> Result<(), Refusal> {
    let enrolment: Enrolment = match Statement::parse(certificate.unverified_payload())? {
        Statement::Enrolment(enrolment) => enrolment,
        other => {
            let expected = "an enrolment";
            return Err(Refusal::new(
                Code::StmtPredicateType,
                "the answer",
                expected,
                other.kind(),
            ));
        }
    };
    let fits = enrolment.challenge == *challenge
        && enrolment.machine == *machine
        && enrolment.key.id() == key.id();
    if fits {
        return Ok(());
    }
    let expected = format!("a certificate of key {} for {machine}", key.id().short());
    let found = format!("one of key {} for {}", enrolment.key.id().short(), enrolment.machine);
    Err(Refusal::new(Code::WorkerIdentityMismatch, "the answer", expected, found))
}
