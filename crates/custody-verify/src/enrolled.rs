//! Keys that no policy lists: certificates say whose they are, for a short time, and everything that
//! they say is verified again.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Envelope, Form, Keyring, Signed, Signer, StatementId};
use custody_core::key::KeyId;
use custody_core::statement::{Enrolment, Label, Manifest, Statement, binding};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::{Context, Facts};

use crate::docket::{Case, Spread};
use crate::judge::shown;
use crate::policy::demand::{Demand, code_of, either, names_a_machine};
use crate::policy::{Enrol, Policy, listed};
use crate::trust::PolicyChain;

/// The certificates among the evidence that a known key signed.
#[derive(Debug, Default)]
pub(crate) struct Enrolled {
    by_key: BTreeMap<KeyId, Certified>,
    /// Those that the key itself asked for.
    possessed: BTreeSet<StatementId>,
    /// What their attestations prove, by certificate and by the first policy with these platforms.
    proofs: BTreeMap<(StatementId, usize), Result<Facts, Refusal>>,
}

/// What all certificates of a key say together, each thing once, however many there are.
#[derive(Debug, Default)]
struct Certified {
    /// The machines, each with the key of somebody whom some version of the policy lets enrol it.
    machines: BTreeSet<(Label, KeyId)>,
    /// The machines with what tells one from all others, each by one certificate whose signer's key
    /// no version revokes.
    identities: BTreeMap<(Label, BTreeSet<(String, String)>), StatementId>,
}

impl Certified {
    fn add(&mut self, signed: &Signed<Statement>, enrolment: &Enrolment, policies: &PolicyChain) {
        let machine = &enrolment.machine;
        for signer in signed.signers() {
            if policies.iter().any(|(_, policy)| enrols(policy, &signer.key, machine)) {
                self.machines.insert((machine.clone(), signer.key));
                if policies.revocation(&signer.key).is_none() {
                    let identity = (machine.clone(), identity(enrolment));
                    self.identities.entry(identity).or_insert(signed.id());
                }
            }
        }
    }
}

/// A certificate that holds.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The machine.
    pub machine: Label,
    /// The key.
    pub key: KeyId,
    /// From this moment on the key signs nothing more.
    pub until: Time,
    /// What was proved of the machine.
    pub facts: Facts,
}

type Opened<'o> = &'o BTreeMap<StatementId, Result<Signed<Statement>, Refusal>>;

impl Enrolled {
    /// Finds the certificates among what was opened with the keys of the policies, and verifies what
    /// they rest on.
    pub(crate) fn of(opened: Opened<'_>, policies: &PolicyChain, spread: &impl Spread) -> Self {
        let mut by_key: BTreeMap<KeyId, Certified> = BTreeMap::new();
        let mut certificates: Vec<(StatementId, &Enrolment)> = Vec::new();
        for signed in opened.values().filter_map(|opened| opened.as_ref().ok()) {
            if let Some(enrolment) = signed.unverified().as_enrolment() {
                let all = by_key.entry(enrolment.key.id()).or_default();
                all.add(signed, enrolment, policies);
                certificates.push((signed.id(), enrolment));
            }
        }
        let fitting = spread.map(&certificates, |(_, enrolment)| enrolment.possesses());
        let known = certificates.iter().zip(fitting).filter(|(_, fits)| *fits);
        let possessed = known.map(|((id, _), _)| *id).collect();
        let mut wanted = Vec::new();
        for (place, (_, policy)) in policies.iter().enumerate() {
            if with_platforms_of(policies, policy) == Some(place) {
                wanted.extend(certificates.iter().map(|found| (place, policy, *found)));
            }
        }
        let proofs = spread.map(&wanted, |(_, policy, (_, enrolment))| proved(enrolment, policy));
        let keys = wanted.iter().map(|(place, _, (id, _))| (*id, *place));
        Self { by_key, possessed, proofs: keys.zip(proofs).collect() }
    }

    /// Whether a signature says that a certified key made it.
    pub(crate) fn signed(&self, envelope: &Envelope) -> bool {
        let names = |hint: &String| hint.parse().is_ok_and(|id| self.by_key.contains_key(&id));
        envelope.signatures().iter().any(|signature| signature.keyid.as_ref().is_some_and(names))
    }

    /// The machines for which a key was certified by somebody who may or might, revoked or not.
    pub(crate) fn machines<'p>(
        &'p self,
        policy: &'p Policy,
        key: &KeyId,
    ) -> impl Iterator<Item = &'p Label> {
        let all = self.by_key.get(key).into_iter().flat_map(|certified| &certified.machines);
        all.filter(|(machine, by)| enrols(policy, by, machine)).map(|(machine, _)| machine)
    }
}

/// The keys of the policies, and those that a key of theirs certified. A known key makes a signature
/// worth looking at, and no more.
pub fn keyring<'s>(
    policies: &PolicyChain,
    certificates: impl IntoIterator<Item = &'s Signed<Statement>>,
) -> Keyring {
    let mut keyring = policies.keyring().clone();
    for enrolment in
        certificates.into_iter().filter_map(|signed| signed.unverified().as_enrolment())
    {
        keyring.insert_named(enrolment.key.clone());
    }
    keyring
}

/// The place of the first policy of the chain by which the same is proved.
fn with_platforms_of(policies: &PolicyChain, policy: &Policy) -> Option<usize> {
    policies.iter().position(|(_, other)| {
        other.platforms == policy.platforms && other.clock_skew == policy.clock_skew
    })
}

/// What the attestations of a certificate prove under a policy, bound to challenge and key where the
/// platform does that.
pub fn proved(enrolment: &Enrolment, policy: &Policy) -> Result<Facts, Refusal> {
    let binding = binding(&enrolment.challenge, &enrolment.key.id());
    let context = Context { binding, at: enrolment.from, skew: policy.clock_skew };
    let mut facts = Facts::new();
    for attestation in &enrolment.attestations {
        let at = format!("attestation of platform {}", attestation.platform);
        let platform = policy.platforms.get(&attestation.platform).ok_or_else(|| {
            let expected =
                format!("a platform that the policy knows: {}", listed(policy.platforms.keys()));
            let found = attestation.platform.to_string();
            Refusal::new(Code::WorkerIdentityUnverified, at.clone(), expected, found)
        })?;
        let proof = custody_machine::verify(attestation, platform, &context);
        let proof = proof.map_err(|refusal| refusal.within(&at))?;
        // whoever saw such a word could have any number of keys enrolled with it
        if !proof.bound && !proof.facts.keys().any(|fact| names_a_machine(fact)) {
            let expected = "a word with the challenge in it, or one that names the machine";
            let found = "one that anybody who saw it can send";
            return Err(Refusal::new(Code::WorkerIdentityUnverified, at, expected, found));
        }
        facts.extend(proof.facts);
    }
    Ok(facts)
}

/// Facts that tell one machine from all others, as a platform signed them that takes no challenge into
/// its word. Whoever got hold of that word can send it again with a key of their own, so whoever
/// enrols lets only one key have it at a time.
pub fn replayable(enrolment: &Enrolment, policy: &Policy) -> BTreeSet<(String, String)> {
    let binds = |name: &str| {
        policy.platforms.iter().any(|(label, platform)| {
            platform.binds()
                && name.strip_prefix(label.as_str()).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    identity(enrolment).into_iter().filter(|(name, _)| !binds(name)).collect()
}

/// A key is of one machine, so all its certificates agree on these facts.
fn identity(enrolment: &Enrolment) -> BTreeSet<(String, String)> {
    enrolment.facts.iter().filter(|(name, _)| names_a_machine(name)).cloned().collect()
}

fn shown_identity((machine, facts): &(Label, BTreeSet<(String, String)>)) -> String {
    let facts: Vec<String> =
        facts.iter().map(|(name, value)| format!(", {name} {value}")).collect();
    format!("machine {machine}{}", facts.concat())
}

impl Case<'_> {
    /// The machine behind a signer of a manifest: one whose key the policy lists, or one whose
    /// certificate the manifest names.
    pub(crate) fn performer(
        &self,
        policy: &Policy,
        signer: &Signer,
        allowed: &BTreeSet<Label>,
        manifest: &Manifest,
    ) -> Result<String, Refusal> {
        let purpose = "the manifest";
        let Some(id) = manifest.enrolment else {
            return self.entitled(policy, signer, allowed, manifest.finished, purpose);
        };
        let refuse = |code, expected: String, found: String| {
            Err(Refusal::new(code, purpose, expected, found))
        };
        let (enrolment, _) = self.certificate(policy, id)?;
        if signer.key != enrolment.key.id() {
            let expected = format!(
                "a signature by {}, which its certificate names",
                enrolment.key.id().short()
            );
            return refuse(Code::WorkerIdentityMismatch, expected, signer.key.short());
        }
        if !allowed.contains(&enrolment.machine) {
            let expected = format!("a signature by {}", listed(allowed));
            return refuse(
                Code::PolicyKeyPurpose,
                expected,
                format!("one by {}", enrolment.machine),
            );
        }
        if signer.form != Form::Plain {
            let expected = "a plain signature, as machines sign".into();
            let found = format!("{}'s SSH signature", enrolment.machine);
            return refuse(Code::EnvAlgForbidden, expected, found);
        }
        if manifest.started.plus(policy.clock_skew) < enrolment.from {
            let expected = format!("a time from {}, when its certificate begins", enrolment.from);
            return refuse(Code::PolicyKeyNotYetValid, expected, manifest.started.to_string());
        }
        if manifest.finished >= enrolment.until {
            let expected = format!("a time before {}, when its certificate ends", enrolment.until);
            return refuse(Code::PolicyKeyExpired, expected, manifest.finished.to_string());
        }
        Ok(enrolment.machine.to_string())
    }

    /// The certificate that a manifest names, and what was proved of the machine, if it holds under
    /// this policy. That it is the certificate of whoever signed is for [`Case::performer`] to say.
    pub(crate) fn enrolled_facts(
        &self,
        policy: &Policy,
        manifest: &Manifest,
    ) -> Option<(&Enrolment, &Facts)> {
        self.certificate(policy, manifest.enrolment?).ok()
    }

    /// Everything that must hold of a certificate but for the time.
    pub(crate) fn certificate(
        &self,
        policy: &Policy,
        id: StatementId,
    ) -> Result<(&Enrolment, &Facts), Refusal> {
        let signed = self.statement(id, "enrolment", Statement::as_enrolment)?;
        let enrolment = *signed.unverified();
        let facts = self.checked(policy, id, &signed);
        let within = |refusal: Refusal| refusal.within(&format!("enrolment {}", id.short()));
        Ok((enrolment, facts.map_err(within)?))
    }

    /// The certificate, if the newest policy lets it hold now.
    pub(crate) fn current_certificate(&self, id: StatementId) -> Result<Certificate, Refusal> {
        let (_, newest) = self.policies.newest();
        let (enrolment, facts) = self.certificate(newest, id)?;
        let refuse = |code, expected: String| {
            let at = format!("enrolment {}", id.short());
            Err(Refusal::new(code, at, expected, self.now.to_string()))
        };
        if self.now.plus(newest.clock_skew) < enrolment.from {
            return refuse(Code::PolicyKeyNotYetValid, format!("a time from {}", enrolment.from));
        }
        if self.now >= enrolment.until {
            return refuse(Code::PolicyKeyExpired, format!("a time before {}", enrolment.until));
        }
        Ok(Certificate {
            machine: enrolment.machine.clone(),
            key: enrolment.key.id(),
            until: enrolment.until,
            facts: facts.clone(),
        })
    }

    fn checked(
        &self,
        policy: &Policy,
        id: StatementId,
        signed: &Signed<&Enrolment>,
    ) -> Result<&Facts, Refusal> {
        let enrolment = *signed.unverified();
        let key = enrolment.key.id();
        self.not_revoked(id, &key)?;
        let refuse = |code, at: &str, expected: String, found: String| {
            Err(Refusal::new(code, at, expected, found))
        };
        let Some(rules) = rules_of(policy, &enrolment.machine) else {
            let expected =
                format!("a machine whose keys policy {} lets be enrolled", policy.version);
            let found = enrolment.machine.to_string();
            return refuse(Code::PolicyKeyPurpose, "machine", expected, found);
        };
        let enroller = |signer: &_| {
            self.entitled(policy, signer, &rules.by, enrolment.from, "the certificate")
        };
        signed.clone().verify(NonZeroU32::MIN, enroller)?;
        let lasts = enrolment.until.since(enrolment.from);
        if lasts > rules.max_certificate {
            let expected = format!("a certificate of at most {} seconds", rules.max_certificate);
            return refuse(Code::PolicyKeyPurpose, "window", expected, format!("{lasts} seconds"));
        }
        if !self.enrolled().possessed.contains(&id) {
            let expected = "the enrolled key's own signature over the challenge".into();
            let found = "one that does not fit".into();
            return refuse(Code::WorkerIdentityUnverified, "possession", expected, found);
        }
        self.of_one_machine(enrolment)?;
        let place = with_platforms_of(self.policies, policy).unwrap_or_default();
        let proof = self.enrolled().proofs.get(&(id, place)).ok_or_else(|| {
            let expected = "a policy of the rotation chain";
            let found = format!("version {}", policy.version);
            Refusal::new(Code::PolicyMismatch, "the policy", expected, found)
        })?;
        let facts = proof.as_ref().map_err(Clone::clone)?;
        if let Some((name, said)) =
            enrolment.facts.iter().find(|(name, said)| facts.get(name) != Some(said))
        {
            let expected = facts.get(name).map_or("nothing, for nothing proves it", String::as_str);
            let found = shown(said);
            let at = format!("fact {}", shown(name));
            return refuse(Code::WorkerIdentityMismatch, &at, expected.into(), found);
        }
        rules.demands.iter().try_for_each(|demand| met(demand, facts))?;
        Ok(facts)
    }

    fn not_revoked(&self, id: StatementId, key: &KeyId) -> Result<(), Refusal> {
        let refuse =
            |expected: &str, found| Err(Refusal::new(Code::PolicyKeyRevoked, "", expected, found));
        if let Some(version) = self.policies.revoked_enrolment(id) {
            return refuse(
                "a certificate that holds",
                format!("one that policy {version} revokes"),
            );
        }
        if let Some((version, owner)) = self.policies.revocation(key) {
            let found = format!("{owner}'s key {}, revoked in policy {version}", key.short());
            return refuse("a key that holds", found);
        }
        Ok(())
    }

    /// A key that a policy lists, or that was enrolled for another machine too, is in two places.
    fn of_one_machine(&self, enrolment: &Enrolment) -> Result<(), Refusal> {
        let key = enrolment.key.id();
        let refuse = |expected: String, found: String| {
            let at = format!("key {}", key.short());
            Err(Refusal::new(Code::WorkerIdentityMismatch, at, expected, found))
        };
        if let Some((version, owner)) = self.policies.owner(&key) {
            let found = format!("{owner}'s key, which policy {version} lists");
            return refuse("a key that no policy lists".into(), found);
        }
        // whoever may enrol nobody, or may no more, spoils nothing that others certified
        let this = (enrolment.machine.clone(), identity(enrolment));
        let all = self.enrolled().by_key.get(&key).map(|certified| &certified.identities);
        let other = all.and_then(|all| all.iter().find(|(other, _)| **other != this));
        other.map_or(Ok(()), |(other, id)| {
            let found = format!("{} too ({})", shown_identity(other), id.short());
            refuse(shown_identity(&this), found)
        })
    }
}

/// Whether what was proved is what the policy demands.
fn met(demand: &Demand, facts: &Facts) -> Result<(), Refusal> {
    let (code, found) = match facts.get(&demand.fact) {
        Some(value) if demand.is.contains(value) => return Ok(()),
        Some(value) => (code_of(&demand.fact), shown(value)),
        None => (Code::WorkerIdentityUnverified, "nothing that proves it".into()),
    };
    Err(Refusal::new(code, demand.fact.as_str(), either(&demand.is), found))
}

fn rules_of<'p>(policy: &'p Policy, machine: &Label) -> Option<&'p Enrol> {
    policy.principals.get(machine)?.enrol.as_ref()
}

/// Whether the policy lets the owner of this key enrol that machine.
fn enrols(policy: &Policy, key: &KeyId, machine: &Label) -> bool {
    let rules = rules_of(policy, machine);
    rules.zip(policy.owner(key)).is_some_and(|(rules, owner)| rules.by.contains(owner))
}
