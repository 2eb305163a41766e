//! The machine that performed a step: what its platform proves, what the worker claims, and what the
//! policy demands of both.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};

use custody_core::envelope::StatementId;
use custody_core::key::KeyId;
use custody_core::statement::{Attestation, Label, Manifest, Statement, binding};
use custody_core::{Code, Refusal};
use custody_machine::{Context, Facts, Proof};

use crate::docket::Case;
use crate::judge::shown;
use crate::policy::demand::{
    Demand, INTERACTIVE, Standing, code_of, either, names_a_machine, platform_of,
};
use crate::policy::{Policy, Step};
use crate::report::{MachineFact, Node};

/// Why a platform's documents prove nothing of this run.
#[derive(Debug)]
enum Unproved {
    /// They do not fit what the policy pins: a forgery, or pins that are too old.
    False(Refusal),
    /// They are genuine, and anybody who has them could have sent them.
    Unbound(Refusal),
    /// The policy does not know the platform.
    Unknown,
}

/// What is known of the machine of one manifest. What is proved and what is claimed are never mixed.
#[derive(Debug)]
pub(crate) struct Machine {
    verified: Facts,
    claimed: BTreeMap<String, String>,
    unproved: BTreeMap<Label, Unproved>,
    /// What holds whenever the key signs: so the policy says, or so it was proved when it was enrolled.
    tie: BTreeMap<String, String>,
}

impl Machine {
    /// Opens what the manifest brings along, as signed by this key.
    pub(crate) fn of(case: &Case<'_>, manifest: &Manifest, key: &KeyId, policy: &Policy) -> Self {
        let enrolled = case.enrolled_facts(policy, manifest);
        let enrolled = enrolled.filter(|(enrolment, _)| enrolment.key.id() == *key);
        let verified = enrolled.map(|(_, facts)| facts.clone()).unwrap_or_default();
        let named = verified.iter().filter(|(fact, _)| names_a_machine(fact));
        let named = named.map(|(fact, value)| (fact.clone(), value.clone()));
        let tie = policy.tied(key).cloned().unwrap_or_default().into_iter().chain(named).collect();
        let mut machine = Self {
            claimed: manifest.environment.iter().cloned().collect(),
            unproved: BTreeMap::new(),
            verified,
            tie,
        };
        for attestation in &manifest.attestations {
            match proof(manifest, key, policy, &machine.tie, attestation) {
                Ok(facts) => machine.verified.extend(facts),
                Err(why) => {
                    machine.unproved.insert(attestation.platform.clone(), why);
                }
            }
        }
        machine
    }

    /// How well a fact is known, and what it is.
    pub(crate) fn know(&self, fact: &str) -> (Standing, Option<&str>) {
        match (self.verified.get(fact), self.claimed.get(fact)) {
            (Some(value), _) => (Standing::Verified, Some(value)),
            (None, Some(value)) => (Standing::Claimed, Some(value)),
            (None, None) => (Standing::Absent, None),
        }
    }

    /// The proved facts that name this machine and no other.
    pub(crate) fn identity(&self) -> impl Iterator<Item = (&str, &str)> {
        let facts = self.verified.iter().filter(|(fact, _)| names_a_machine(fact));
        facts.map(|(fact, value)| (fact.as_str(), value.as_str()))
    }

    /// Writes into the report what is known, and what was demanded and is not.
    pub(crate) fn describe(&self, node: &mut Node, step: &Step) {
        let demanded = step.machine.iter().map(|demand| &demand.fact);
        let all = self.verified.keys().chain(self.claimed.keys()).chain(demanded);
        let names: alloc::collections::BTreeSet<&String> = all.collect();
        for name in names {
            let (standing, value) = self.know(name);
            let value = value.map(shown);
            node.machine.push(MachineFact { name: shown(name), standing, value });
        }
        for (platform, why) in &self.unproved {
            let why = match why {
                Unproved::False(refusal) | Unproved::Unbound(refusal) => {
                    format!("expected {}, found {}", refusal.expected, refusal.found)
                }
                Unproved::Unknown => "the policy does not know the platform".into(),
            };
            node.fact("not proved", format!("{platform}: {why}"));
        }
    }
}

/// What the platform's documents prove of the machine of this run.
fn proof(
    manifest: &Manifest,
    key: &KeyId,
    policy: &Policy,
    tie: &BTreeMap<String, String>,
    attestation: &Attestation,
) -> Result<Facts, Unproved> {
    let platform = policy.platforms.get(&attestation.platform).ok_or(Unproved::Unknown)?;
    let context = Context {
        binding: binding(&manifest.task.0, key),
        at: manifest.started,
        skew: policy.clock_skew,
    };
    let Proof { facts, bound } =
        custody_machine::verify(attestation, platform, &context).map_err(Unproved::False)?;
    if bound {
        return Ok(facts);
    }
    // the same for the whole life of the machine: it is of this run only if the key lives there
    let own = |fact: &str| platform_of(fact).as_ref() == Some(&attestation.platform);
    let mut tie = tie.iter().filter(|(fact, _)| own(fact) && names_a_machine(fact));
    match tie.next() {
        Some((fact, value)) if facts.get(fact) == Some(value) => Ok(facts),
        Some((fact, value)) => {
            let found = facts.get(fact).map_or("none", String::as_str);
            let (at, found) = (format!("machine, {fact}"), shown(found));
            Err(Unproved::False(Refusal::new(
                Code::WorkerIdentityMismatch,
                at,
                value.clone(),
                found,
            )))
        }
        None => {
            let named = facts.iter().find(|(fact, _)| names_a_machine(fact));
            let found = named.map_or_else(String::new, |(fact, value)| format!("{fact} {value}, "));
            Err(Unproved::Unbound(Refusal::new(
                Code::WorkerIdentityUnverified,
                format!("machine, {}", attestation.platform),
                "documents of this run, or a key that is enrolled, or that the policy ties to the machine (machine = { … } beside the key)",
                format!("{}documents that anybody who saw them can send", shown(&found)),
            )))
        }
    }
}

/// Which key was seen on which machines.
#[derive(Debug, Default)]
pub(crate) struct Instances(BTreeMap<(KeyId, String), BTreeMap<String, StatementId>>);

impl Instances {
    /// Looks at every manifest among the evidence, by the newest policy. Pods come and go with one key.
    pub(crate) fn among(case: &Case<'_>) -> Self {
        let (_, policy) = case.policies.newest();
        let mut seen = Self::default();
        for (id, manifest) in
            case.manifests().filter(|(_, it)| !it.attestations.is_empty() || it.enrolment.is_some())
        {
            let Ok(signed) = case.statement(id, "manifest", Statement::as_manifest) else {
                continue;
            };
            for signer in signed.signers() {
                let machine = Machine::of(case, manifest, &signer.key, policy);
                for (fact, value) in machine.identity().filter(|(fact, _)| is_lasting(fact)) {
                    let seen = seen.0.entry((signer.key, fact.into())).or_default();
                    seen.entry(value.into()).or_insert(id);
                }
            }
        }
        seen
    }

    /// A key lives on one machine. A copy of it is a key that somebody took along.
    fn check(&self, key: &KeyId, machine: &Machine, at: &str) -> Result<(), Refusal> {
        for (fact, value) in machine.identity().filter(|(fact, _)| is_lasting(fact)) {
            let seen = self.0.get(&(*key, fact.into()));
            if let Some((other, id)) =
                seen.and_then(|seen| seen.iter().find(|(other, _)| *other != value))
            {
                let at = format!("{at}, {fact}");
                let expected = format!(
                    "one machine for the key {}: make each machine a key of its own",
                    key.short()
                );
                let found = format!("{} here, and {} in manifest {id}", shown(value), shown(other));
                return Err(Refusal::new(Code::WorkerIdentityMismatch, at, expected, found));
            }
        }
        Ok(())
    }
}

fn is_lasting(fact: &str) -> bool {
    !fact.ends_with(".pod-uid")
}

/// Holds the machine against the policy. Says whether the policy demands anything at all.
pub(crate) fn check(
    step: &Step,
    (manifest, key): (&Manifest, &KeyId),
    machine: &Machine,
    instances: &Instances,
) -> Result<bool, Refusal> {
    let at = format!("machine of step {} ({})", manifest.step, shown(&manifest.builder));
    if let Some(value) = machine.claimed.get(INTERACTIVE).filter(|value| *value != "no") {
        return Err(Refusal::new(
            Code::WorkerInteractive,
            format!("{at}, {INTERACTIVE}"),
            "no",
            shown(value),
        ));
    }
    for (fact, proved) in &machine.verified {
        if let Some(claim) = machine.claimed.get(fact).filter(|claim| *claim != proved) {
            let (at, expected) = (format!("{at}, {fact}"), format!("{}, as proved", shown(proved)));
            let found = format!("{}, as the worker says", shown(claim));
            return Err(Refusal::new(Code::WorkerIdentityMismatch, at, expected, found));
        }
    }
    for (fact, value) in &machine.tie {
        let tied = Demand {
            fact: fact.clone(),
            is: core::iter::once(value.clone()).collect(),
            standing: Standing::Verified,
        };
        demanded(&tied, machine, &at)?;
    }
    instances.check(key, machine, &at)?;
    for demand in &step.machine {
        demanded(demand, machine, &at)?;
    }
    Ok(!step.machine.is_empty() || !machine.tie.is_empty())
}

fn demanded(demand: &Demand, machine: &Machine, at: &str) -> Result<(), Refusal> {
    let fact = &demand.fact;
    let proves = demand.standing == Standing::Verified;
    let why = platform_of(fact).and_then(|platform| machine.unproved.get(&platform));
    match why {
        Some(Unproved::False(refusal)) => return Err(refusal.clone().within(at)),
        Some(Unproved::Unbound(refusal)) if proves => return Err(refusal.clone().within(at)),
        _ => {}
    }
    let (standing, value) = machine.know(fact);
    let fits = value.is_some_and(|value| demand.is.contains(value));
    let is_proved = standing == Standing::Verified;
    if fits && (is_proved || !proves) {
        return Ok(());
    }
    let values = either(demand.is.iter());
    let (code, expected) = if proves && !is_proved {
        (Code::WorkerIdentityUnverified, format!("{values}, verified"))
    } else {
        (code_of(fact), values)
    };
    let found = match value {
        Some(value) => format!("{}, {}", shown(value), standing.name()),
        None => standing.name().to_string(),
    };
    Err(Refusal::new(code, format!("{at}, {fact}"), expected, found))
}
