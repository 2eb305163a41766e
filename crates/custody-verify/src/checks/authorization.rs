//! The authorization, its request, and the people behind both.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Signed, Signer, StatementId};
use custody_core::statement::{
    Approver, Authorization, Decision, Label, ReleaseId, Request, Signoff, Statement,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use super::{Authority, earlier};
use crate::docket::{Asked, Case};
use crate::policy::{Phase, Policy, Product, listed};
use crate::report::{Node, NodeKind, Rule};

/// Checks an authorization and gives what it stands on, if that can be found at all.
pub(crate) fn check<'c>(
    case: &'c Case<'_>,
    id: StatementId,
) -> Result<(Authority<'c>, Node), Refusal> {
    let signed = case.statement(id, "authorization", Statement::as_authorization)?;
    let authorization = *signed.unverified();
    let request_signed = case.statement(authorization.request, "request", Statement::as_request)?;
    let request = *request_signed.unverified();
    let policy = applicable(case, request)?;
    let product = policy.product(&request.release.product)?;
    let at = format!("request {}", authorization.request.short());
    let phase = known_phase(product, request, &at)?;
    let authority =
        Authority { authorization, request, policy, product, phase, earlier: earlier(request) };

    let mut node = Node::new(
        NodeKind::Authorization,
        Some(id),
        format!("authorization of phase {}", request.phase),
    );
    describe(&mut node, &authority);
    let desk = |signer: &_| {
        case.entitled(policy, signer, &product.desk, authorization.not_before, "the authorization")
    };
    let by_desk = signed.clone().verify(NonZeroU32::MIN, desk);
    let propose = |signer: &_| {
        case.entitled(policy, signer, &product.propose, request.created, "the request")
    };
    let by_proposer = request_signed.clone().verify(NonZeroU32::MIN, propose);
    let proposers =
        by_proposer.as_ref().map(|verified| verified.principals().to_vec()).unwrap_or_default();
    node.fact("proposed by", proposers.join(", "));
    node.check(Rule::RequestSignature, by_proposer.map(|_| ()));
    node.check(Rule::RequestPolicy, named_policy(case, request, &at));
    node.check(Rule::RequestContent, content(policy, product, request, &at));
    node.check(Rule::AuthorizationSignature, by_desk.map(|_| ()));
    node.check(Rule::AuthorizationTime, time(case, &authority));
    let people = people(case, &authority, &proposers);
    node.check(Rule::SignoffPeople, people);
    node.check(Rule::SignoffObjections, objections(case, &authority));
    Ok((authority, node))
}

fn known_phase<'p>(
    product: &'p Product,
    request: &Request,
    at: &str,
) -> Result<&'p Phase, Refusal> {
    product.phases.get(&request.phase).ok_or_else(|| {
        Refusal::new(
            Code::PolicyStepUnknown,
            at,
            listed(product.phases.keys()),
            format!("phase {}", request.phase),
        )
    })
}

fn describe(node: &mut Node, authority: &Authority<'_>) {
    let request = authority.request;
    node.fact("release", &request.release);
    node.fact("source", &request.source);
    let approvers = authority.authorization.approvers.iter();
    let mut people: Vec<String> =
        approvers.map(|approver| format!("{} ({})", approver.person, approver.role)).collect();
    people.sort();
    node.fact("approved by", people.join(", "));
    node.fact("request", authority.authorization.request);
    node.rests_on.push(authority.authorization.request);
    node.rests_on.extend(authority.authorization.approvers.iter().map(|approver| approver.signoff));
}

/// The policy that judges a release: the newest where it is being made, at the desk and at a gate;
/// afterwards, and for an older release behind one, the policy that it was proposed under, with all
/// revocations since.
fn applicable<'c>(case: &'c Case<'_>, request: &Request) -> Result<&'c Policy, Refusal> {
    let (_, newest) = case.policies.newest();
    let named = case.policies.get(request.policy.id);
    if case.is_being_made(&request.release) && named.is_some() {
        return Ok(newest);
    }
    named.ok_or_else(|| unknown_policy(case, request))
}

fn unknown_policy(case: &Case<'_>, request: &Request) -> Refusal {
    let (_, newest) = case.policies.newest();
    let code = if request.policy.version > newest.version {
        Code::PolicyVersionGap
    } else {
        Code::PolicyMismatch
    };
    let expected = format!("a policy of the rotation chain up to version {}", newest.version);
    Refusal::new(
        code,
        "request.policy",
        expected,
        format!("version {} ({})", request.policy.version, request.policy.id),
    )
}

fn named_policy(case: &Case<'_>, request: &Request, at: &str) -> Result<(), Refusal> {
    let policy =
        case.policies.get(request.policy.id).ok_or_else(|| unknown_policy(case, request))?;
    if policy.version == request.policy.version {
        return Ok(());
    }
    Err(Refusal::new(
        Code::PolicyMismatch,
        at,
        format!("version {}", policy.version),
        format!("version {}", request.policy.version),
    ))
}

fn content(policy: &Policy, product: &Product, request: &Request, at: &str) -> Result<(), Refusal> {
    let release = &request.release;
    let refuse =
        |code, expected: String, found: String| Err(Refusal::new(code, at, expected, found));
    if release.instance != policy.instance {
        return refuse(
            Code::ChainInstanceMismatch,
            policy.instance.to_string(),
            release.instance.to_string(),
        );
    }
    if !product.channels.contains(&release.channel) {
        return refuse(
            Code::ChainReleaseMismatch,
            format!("channel {}", listed(&product.channels)),
            release.channel.to_string(),
        );
    }
    if request.source.uri != product.source {
        return refuse(
            Code::ChainSourceMismatch,
            product.source.clone(),
            crate::judge::shown(&request.source.uri),
        );
    }
    Ok(())
}

fn time(case: &Case<'_>, authority: &Authority<'_>) -> Result<(), Refusal> {
    let (authorization, request, skew) =
        (authority.authorization, authority.request, authority.policy.clock_skew);
    let refuse = |code, expected: String, found: String| {
        Err(Refusal::new(code, "authorization", expected, found))
    };
    if authorization.not_before.plus(skew) < request.created {
        return refuse(
            Code::ChainTimeOrder,
            format!("a time from {}", request.created),
            authorization.not_before.to_string(),
        );
    }
    if authorization.expires > request.expires {
        return refuse(
            Code::ChainStale,
            format!("an end by {}", request.expires),
            authorization.expires.to_string(),
        );
    }
    if authorization.not_before > case.now.plus(skew) {
        return refuse(
            Code::ChainTimeOrder,
            format!("a time by {}", case.now),
            authorization.not_before.to_string(),
        );
    }
    if case.is_current(authority) && case.now >= authorization.expires {
        return refuse(
            Code::ChainStale,
            format!("a time before {}", authorization.expires),
            case.now.to_string(),
        );
    }
    Ok(())
}

impl Case<'_> {
    /// Whether the gate is asked about a task under this very authorization, rather than about one
    /// that builds on it.
    fn is_current(&self, authority: &Authority<'_>) -> bool {
        self.gated().is_some_and(|authorization| authorization == authority.authorization)
    }

    /// The authorization of the task that the gate is asked about.
    fn gated(&self) -> Option<&Authorization> {
        let Asked::Gate(id) = self.asked else { return None };
        let task = self.statement(id, "task", Statement::as_task).ok()?;
        let id = task.unverified().authorization;
        let signed = self.statement(id, "authorization", Statement::as_authorization).ok()?;
        Some(*signed.unverified())
    }

    /// Whether the desk or the gate that asks is about to let something happen in this release.
    fn is_being_made(&self, release: &ReleaseId) -> bool {
        let Some(authorization) = self.gated() else { return self.asked == Asked::Desk };
        let request = self.statement(authorization.request, "request", Statement::as_request);
        request.is_ok_and(|signed| signed.unverified().release == *release)
    }

    /// The principal behind a signer as [`Policy::entitled`] says, unless its key was ever revoked.
    /// Without witnessed time a thief can date signatures back, so revocation reaches back to the
    /// beginning. What else signed the same statement is judged by itself: a stolen key cannot spoil
    /// what others sign.
    pub(crate) fn entitled(
        &self,
        policy: &Policy,
        signer: &Signer,
        allowed: &BTreeSet<Label>,
        when: Time,
        purpose: &str,
    ) -> Result<String, Refusal> {
        if let Some((version, owner)) = self.policies.revocation(&signer.key) {
            let found =
                format!("{owner}'s key {}, revoked in policy {version}", signer.key.short());
            return Err(Refusal::new(Code::PolicyKeyRevoked, purpose, "a key that holds", found));
        }
        let mut machines = self.enrolled().machines(policy, &signer.key);
        if let Some(machine) = machines.next().filter(|_| policy.owner(&signer.key).is_none()) {
            let found = format!("{machine}'s enrolled key {}", signer.key.short());
            let expected = "a key that the policy lists; an enrolled one signs intents, and manifests that name its certificate";
            return Err(Refusal::new(Code::PolicyKeyPurpose, purpose, expected, found));
        }
        policy.entitled(signer, allowed, when, purpose)
    }
}

/// Enough different people, each in a role that is asked for, each once.
fn people(case: &Case<'_>, authority: &Authority<'_>, proposers: &[String]) -> Result<(), Refusal> {
    let approvers = &authority.authorization.approvers;
    if approvers.is_empty() {
        let wanted = wanted(authority.phase);
        return Err(Refusal::new(Code::SignoffMissing, "authorization", wanted, "no sign-off"));
    }
    let mut counted: BTreeMap<&Label, u32> = BTreeMap::new();
    let mut seen: BTreeSet<&Label> = BTreeSet::new();
    let mut fault = None;
    for approver in approvers {
        if !seen.insert(&approver.person) {
            let found = format!("{} twice", approver.person);
            return Err(Refusal::new(
                Code::SignoffPersonDuplicate,
                "authorization",
                "each person once",
                found,
            ));
        }
        match approval(case, authority, approver, proposers) {
            Ok(()) => {
                let count = counted.entry(&approver.role).or_default();
                *count = count.saturating_add(1);
            }
            Err(refusal) => {
                fault.get_or_insert(refusal);
            }
        }
    }
    if let Some(refusal) = fault {
        return Err(refusal);
    }
    for (role, needed) in &authority.phase.approve {
        let found = counted.get(role).copied().unwrap_or_default();
        if found < needed.get() {
            let people = approvers
                .iter()
                .filter(|approver| approver.role == *role)
                .map(|approver| &approver.person);
            let found = format!("{found}: {}", listed(people));
            return Err(Refusal::new(
                Code::SignoffThresholdNotMet,
                "authorization",
                format!("{needed} people as {role}"),
                found,
            ));
        }
    }
    Ok(())
}

fn wanted(phase: &Phase) -> String {
    let each: Vec<String> =
        phase.approve.iter().map(|(role, count)| format!("{count} × {role}")).collect();
    each.join(", ")
}

/// One person's approval: really there, really theirs, really of this request.
fn approval(
    case: &Case<'_>,
    authority: &Authority<'_>,
    approver: &Approver,
    proposers: &[String],
) -> Result<(), Refusal> {
    let at = format!("sign-off of {}", approver.person);
    let signed =
        case.statement(approver.signoff, "sign-off", Statement::as_signoff).map_err(|refusal| {
            let code = match refusal.code {
                Code::ChainLinkMissing => Code::SignoffMissing,
                Code::EnvKeyUnknown => Code::SignoffCredentialUnknown,
                code => code,
            };
            Refusal { code, ..refusal }.within(&at)
        })?;
    let signoff = *signed.unverified();
    if let Some((what, expected, found)) =
        signoff.difference(authority.request, authority.authorization.request)
    {
        return Err(Refusal::new(
            Code::SignoffContentMismatch,
            format!("{at}, {what}"),
            expected,
            found,
        ));
    }
    if signoff.decision != Decision::Approve {
        return Err(Refusal::new(
            Code::SignoffThresholdNotMet,
            at,
            "an approval",
            format!("decision {}", signoff.decision.word()),
        ));
    }
    let named = signoff.person == approver.person && signoff.role == approver.role;
    if !named {
        let found = format!("{} as {}", signoff.person, signoff.role);
        return Err(Refusal::new(
            Code::SignoffContentMismatch,
            at,
            format!("{} as {}", approver.person, approver.role),
            found,
        ));
    }
    signature(case, authority.policy, &signed)?;
    entitled_role(authority, approver, proposers, &at)?;
    signoff_time(authority, signoff, &at)
}

/// The sign-off is signed with a key of the person whom it names.
fn signature(case: &Case<'_>, policy: &Policy, signed: &Signed<&Signoff>) -> Result<(), Refusal> {
    let signoff = *signed.unverified();
    let own = BTreeSet::from([signoff.person.clone()]);
    let person = |signer: &_| case.entitled(policy, signer, &own, signoff.created, "the sign-off");
    signed.clone().verify(NonZeroU32::MIN, person).map(|_| ()).map_err(|refusal| {
        match refusal.code {
            Code::PolicyKeyPurpose | Code::EnvKeyUnknown => {
                Refusal { code: Code::SignoffCredentialUnknown, ..refusal }
            }
            _ => refusal,
        }
    })
}

fn entitled_role(
    authority: &Authority<'_>,
    approver: &Approver,
    proposers: &[String],
    at: &str,
) -> Result<(), Refusal> {
    let asked = authority.phase.approve.iter().any(|(role, _)| *role == approver.role);
    let held = authority
        .policy
        .roles
        .get(&approver.role)
        .is_some_and(|members| members.contains(&approver.person));
    if !asked || !held {
        return Err(Refusal::new(
            Code::SignoffRole,
            at,
            wanted(authority.phase),
            format!("role {}", approver.role),
        ));
    }
    let own = proposers.iter().any(|proposer| proposer == approver.person.as_str());
    if own && !authority.phase.proposer_counts {
        return Err(Refusal::new(
            Code::SignoffSelfApproval,
            at,
            "somebody other than the proposer",
            approver.person.to_string(),
        ));
    }
    Ok(())
}

fn signoff_time(authority: &Authority<'_>, signoff: &Signoff, at: &str) -> Result<(), Refusal> {
    let (request, begins, skew) =
        (authority.request, authority.authorization.not_before, authority.policy.clock_skew);
    if signoff.created.plus(skew) < request.created || signoff.created > begins.plus(skew) {
        let expected = format!("a time from {} to {begins}", request.created);
        return Err(Refusal::new(Code::ChainTimeOrder, at, expected, signoff.created.to_string()));
    }
    if begins.since(signoff.created) > authority.phase.signoff_max_age {
        let expected =
            format!("at most {} seconds before {begins}", authority.phase.signoff_max_age);
        return Err(Refusal::new(Code::SignoffStale, at, expected, signoff.created.to_string()));
    }
    if signoff.expires <= begins {
        return Err(Refusal::new(
            Code::SignoffStale,
            at,
            format!("an end after {begins}"),
            signoff.expires.to_string(),
        ));
    }
    Ok(())
}

/// Refusals by people who could have approved, and withdrawals of the approvals that count.
fn objections(case: &Case<'_>, authority: &Authority<'_>) -> Result<(), Refusal> {
    let id = authority.authorization.request;
    for said in case.about(id) {
        let Some(signed) = said.narrow(Statement::as_signoff) else { continue };
        let signoff = *signed.unverified();
        let code = match signoff.decision {
            Decision::Refuse if may_approve(authority, &signoff.person) => Code::SignoffRefused,
            Decision::Withdraw if withdraws_a_counted_approval(authority, signoff) => {
                Code::SignoffWithdrawn
            }
            Decision::Approve | Decision::Refuse | Decision::Withdraw => continue,
        };
        if signature(case, authority.policy, &signed).is_err() {
            continue;
        }
        let at = format!("request {} ({})", id.short(), authority.request.release);
        let found = format!(
            "{}'s word of {}: {}, {:?}",
            signoff.person,
            signoff.created,
            signoff.decision.word(),
            signoff.comment
        );
        return Err(Refusal::new(code, at, "no objection", found));
    }
    Ok(())
}

fn may_approve(authority: &Authority<'_>, person: &Label) -> bool {
    let mut roles =
        authority.phase.approve.iter().filter_map(|(role, _)| authority.policy.roles.get(role));
    roles.any(|members| members.contains(person))
}

/// A withdrawal ends the one approval of its own author that it names, and no later one.
fn withdraws_a_counted_approval(authority: &Authority<'_>, withdrawal: &Signoff) -> bool {
    let mut counted = authority.authorization.approvers.iter();
    counted.any(|approver| {
        withdrawal.withdraws == Some(approver.signoff) && withdrawal.person == approver.person
    })
}

/// The approvals that their authors took back, each with the author.
fn withdrawn<'c>(
    case: &'c Case<'_>,
    policy: &Policy,
    request: StatementId,
) -> BTreeSet<(StatementId, &'c Label)> {
    let taken_back = case.about(request).filter_map(|said| {
        let signed = said.narrow(Statement::as_signoff)?;
        let signoff = said.unverified().as_signoff()?;
        let approval = signoff.withdraws.filter(|_| signoff.decision == Decision::Withdraw)?;
        signature(case, policy, &signed).ok().map(|()| (approval, &signoff.person))
    });
    taken_back.collect()
}

/// What the sign-offs of a request amount to so far.
#[derive(Clone, Debug)]
pub struct Tally {
    /// The approvals that count, ready to be named in an authorization.
    pub approvers: Vec<Approver>,
    /// The sign-offs that do not count, and why.
    pub ignored: Vec<(StatementId, Refusal)>,
    /// Why the request cannot be authorized now, if it cannot.
    pub lacking: Option<Refusal>,
}

/// Counts the sign-offs of a request as the judge will count them in an authorization that begins at
/// `case.now`.
pub(crate) fn tally(case: &Case<'_>, id: StatementId) -> Result<Tally, Refusal> {
    let signed = case.statement(id, "request", Statement::as_request)?;
    let request = *signed.unverified();
    let policy = applicable(case, request)?;
    let product = policy.product(&request.release.product)?;
    let at = format!("request {}", id.short());
    let phase = known_phase(product, request, &at)?;
    let propose = |signer: &_| {
        case.entitled(policy, signer, &product.propose, request.created, "the request")
    };
    let proposers = signed.clone().verify(NonZeroU32::MIN, propose)?.principals().to_vec();
    named_policy(case, request, &at)?;
    content(policy, product, request, &at)?;
    let nobody = Authorization {
        request: id,
        approvers: Vec::new(),
        not_before: case.now,
        expires: request.expires,
    };
    let authority = |authorization| Authority {
        authorization,
        request,
        policy,
        product,
        phase,
        earlier: Arc::default(),
    };
    let (approvers, ignored) = count(case, &authority(&nobody), &proposers);
    let authorization = Authorization { approvers, ..nobody.clone() };
    let authority = authority(&authorization);
    let expired = || {
        let expected = format!("a time before {}", request.expires);
        Refusal::new(Code::ChainStale, at.clone(), expected, case.now.to_string())
    };
    let in_time = if case.now < request.expires { case.fresh() } else { Err(expired()) };
    let enough = in_time.and_then(|()| people(case, &authority, &proposers));
    let lacking = enough.and_then(|()| objections(case, &authority)).err();
    Ok(Tally { approvers: authorization.approvers, ignored, lacking })
}

/// The approvals that count, each person once, and those that do not.
fn count(
    case: &Case<'_>,
    authority: &Authority<'_>,
    proposers: &[String],
) -> (Vec<Approver>, Vec<(StatementId, Refusal)>) {
    let request = authority.authorization.request;
    let withdrawn = withdrawn(case, authority.policy, request);
    let (mut counted, mut ignored) = (Vec::<Approver>::new(), Vec::new());
    for said in case.about(request) {
        let word = said.unverified().as_signoff();
        let Some(signoff) = word.filter(|word| word.decision == Decision::Approve) else {
            continue;
        };
        let (person, role) = (signoff.person.clone(), signoff.role.clone());
        let approver = Approver { person, role, signoff: said.id() };
        let refuse = |code, expected: &str, found: String| {
            Err(Refusal::new(code, "sign-offs", expected, found))
        };
        let verdict = if withdrawn.contains(&(approver.signoff, &approver.person)) {
            let found = format!("{}'s withdrawal", approver.person);
            refuse(Code::SignoffWithdrawn, "an approval that stands", found)
        } else if counted.iter().any(|known| known.person == approver.person) {
            let found = approver.person.to_string();
            refuse(Code::SignoffPersonDuplicate, "each person once", found)
        } else {
            approval(case, authority, &approver, proposers)
        };
        match verdict {
            Ok(()) => counted.push(approver),
            Err(refusal) => ignored.push((said.id(), refusal)),
        }
    }
    (counted, ignored)
}
