//! The counter at which workers are enrolled: challenges go out once, certificates only after the judge
//! has said that it would take them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{Enrolment, EnrolmentRequest, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::gate;
use custody_sign::{Signer, sign_envelope_as_machine};
use custody_store::{Filter, Kind, Store};
use custody_verify::policy::Enrol;
use custody_verify::{Docket, Evidence, InTurn, PolicyChain, enrolled};

use crate::context::random;
use crate::error::Error;

/// How long a challenge may be answered.
pub(super) const CHALLENGE_LIFE: Duration = Duration::from_mins(2);
/// Most challenges that wait for an answer.
const CHALLENGES: usize = 4096;
/// Requests that may come at once, and how many of them each second makes room for.
const BURST: u32 = 100;
const EACH_SECOND: u32 = 20;

pub(super) struct Counter<'c> {
    store: &'c Store,
    signer: &'c dyn Signer,
    challenges: Mutex<BTreeMap<Sha256, Instant>>,
    allowance: Mutex<(u32, Instant)>,
    issued: Mutex<Issued>,
}

/// The certificates of the store that have not ended, in the order of their arrival.
#[derive(Default)]
struct Issued {
    last: Option<StatementId>,
    certificates: Vec<(StatementId, Enrolment)>,
}

/// A certificate that was given out.
pub(super) struct Granted {
    pub(super) envelope: Envelope,
    pub(super) enrolment: Enrolment,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn busy(found: &str) -> Refusal {
    let at = "the enrolment service";
    Refusal::new(Code::GateUnavailable, at, "room for one more", found)
        .advising("ask again in a minute")
}

impl<'c> Counter<'c> {
    pub(super) fn new(store: &'c Store, signer: &'c dyn Signer) -> Self {
        Self {
            store,
            signer,
            challenges: Mutex::default(),
            allowance: Mutex::new((BURST, Instant::now())),
            issued: Mutex::default(),
        }
    }

    /// Whether there is room for one more request now.
    pub(super) fn admit(&self) -> Result<(), Refusal> {
        let mut allowance = lock(&self.allowance);
        let (left, since) = *allowance;
        let more = u32::try_from(since.elapsed().as_secs()).unwrap_or(BURST);
        let left = left.saturating_add(more.saturating_mul(EACH_SECOND)).min(BURST);
        let since = if more > 0 { Instant::now() } else { since };
        *allowance = (left.saturating_sub(1), since);
        if left == 0 { Err(busy("too many requests at once")) } else { Ok(()) }
    }

    /// Something that nobody could know before, to be answered once and soon.
    pub(super) fn challenge(&self) -> Result<Sha256, Error> {
        let challenge = Sha256::from_bytes(random()?);
        let mut open = lock(&self.challenges);
        open.retain(|_, given| given.elapsed() < CHALLENGE_LIFE);
        if open.len() >= CHALLENGES {
            return Err(busy("too many challenges that nobody answered").into());
        }
        open.insert(challenge, Instant::now());
        Ok(challenge)
    }

    /// A challenge is used up by whoever names it, whatever becomes of the rest.
    fn take(&self, challenge: &Sha256) -> Result<(), Refusal> {
        let given = lock(&self.challenges).remove(challenge);
        if given.is_some_and(|given| given.elapsed() < CHALLENGE_LIFE) {
            return Ok(());
        }
        let expected = "a challenge that this service gave out and nobody answered yet";
        let refusal =
            Refusal::new(Code::ChainReplayed, "challenge", expected, challenge.to_string());
        Err(refusal.advising("ask anew: custody enrol request takes a new challenge each time"))
    }

    /// Certifies the key, if the judge would take the certificate. It is in the store when this returns.
    pub(super) fn enrol(&self, request: EnrolmentRequest, now: Time) -> Result<Granted, Refusal> {
        self.take(&request.challenge)?;
        // one after the other: of two keys with one machine's word only the first is certified
        let mut issued = lock(&self.issued);
        let policies = gate::policies(self.store, now)?;
        let enrolment = certificate(request, &policies, now)?;
        let mut envelope = Statement::from(enrolment.clone()).to_envelope();
        sign_envelope_as_machine(&mut envelope, self.signer)?;
        self.judge(&envelope, &enrolment, &policies, now)?;
        issued.catch_up(self.store, &policies, now)?;
        issued.only_key(&enrolment, &policies)?;
        self.store.add(std::slice::from_ref(&envelope))?;
        Ok(Granted { envelope, enrolment })
    }

    fn judge(
        &self,
        envelope: &Envelope,
        enrolment: &Enrolment,
        policies: &PolicyChain,
        now: Time,
    ) -> Result<(), Refusal> {
        let others = gate::certificates_of(self.store, [enrolment.key.id()])?;
        let others = self.store.get_many(&others)?.into_iter().flatten();
        let evidence: Evidence = others.chain([envelope.clone()]).collect();
        let docket = Docket::open(&evidence, policies, now, &InTurn);
        docket.certificate(envelope.id()).map(|_| ())
    }
}

/// What the request asks for, with what its attestations prove.
fn certificate(
    request: EnrolmentRequest,
    policies: &PolicyChain,
    now: Time,
) -> Result<Enrolment, Refusal> {
    let (_, newest) = policies.newest();
    let machine = newest.principals.get(&request.machine);
    let rules = machine.and_then(|machine| machine.enrol.as_ref());
    let Some(Enrol { max_certificate, .. }) = rules else {
        let enrolled = newest.principals.iter().filter(|(_, machine)| machine.enrol.is_some());
        let names: Vec<&str> = enrolled.map(|(name, _)| name.as_str()).collect();
        let expected = format!(
            "a machine whose keys policy {} lets be enrolled: {}",
            newest.version,
            names.join(", ")
        );
        let found = request.machine.to_string();
        return Err(Refusal::new(Code::PolicyKeyPurpose, "machine", expected, found));
    };
    let enrolment = request.certified(Vec::new(), now, now.plus(*max_certificate));
    let facts = enrolled::proved(&enrolment, newest)?.into_iter().collect();
    Ok(Enrolment { facts, ..enrolment })
}

impl Issued {
    /// Reads what came into the store since, from whoever enrols there too.
    fn catch_up(
        &mut self,
        store: &Store,
        policies: &PolicyChain,
        now: Time,
    ) -> Result<(), Refusal> {
        let filter = Filter { kind: Some(Kind::Enrolment), after: self.last, ..Filter::default() };
        for envelope in store.list(filter)? {
            self.last = Some(envelope.id());
            let signed = envelope.open::<Statement>(policies.keyring());
            let enrolment =
                signed.ok().and_then(|signed| signed.unverified().as_enrolment().cloned());
            self.certificates.extend(enrolment.map(|enrolment| (envelope.id(), enrolment)));
        }
        self.certificates.retain(|(_, enrolment)| now < enrolment.until);
        Ok(())
    }

    /// What a platform signs without the challenge in it can be sent again by whoever sees it. The first
    /// key has it until its certificate ends or is revoked.
    fn only_key(&self, enrolment: &Enrolment, policies: &PolicyChain) -> Result<(), Refusal> {
        let (_, newest) = policies.newest();
        let key = enrolment.key.id();
        let wanted = enrolled::replayable(enrolment, newest);
        let holds = |id: &StatementId, other: &Enrolment| {
            policies.revoked_enrolment(*id).is_none()
                && policies.revocation(&other.key.id()).is_none()
        };
        let mut others = self.certificates.iter().filter(|(id, other)| {
            other.key.id() != key
                && holds(id, other)
                && !enrolled::replayable(other, newest).is_disjoint(&wanted)
        });
        let Some((id, other)) = others.next() else { return Ok(()) };
        let facts: Vec<String> =
            wanted.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let expected = format!(
            "a machine that no other key is enrolled for, or its key {}",
            other.key.id().short()
        );
        let found = format!(
            "{}, which certificate {id} gives to that key until {}",
            facts.join(", "),
            other.until
        );
        Err(Refusal::new(Code::WorkerIdentityMismatch, "attestations", expected, found))
    }
}
