"""Enrolled keys, and rule `manifest.environment`: docs/formats/verification.md, "To the letter"."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Iterable, Iterator

from . import attestations, keys
from .attestations import Context, Facts
from .machines import Demand
from .policy import Policy
from .refusal import Refusal
from .statements import TELLING, WORKER, Enrolment, Manifest

if TYPE_CHECKING:
    from .judge import Walk


def name_of(fact: str) -> str:
    return fact.partition(".")[2]


def telling(facts: Facts) -> Facts:
    """The facts that tell one machine from all others."""
    return {fact: value for fact, value in facts.items() if name_of(fact) in TELLING}


# enrolled keys


def certificate(walk: Walk, id: str, policy: Policy) -> Iterator[Refusal]:
    """Rules 1 to 8 of "Enrolled keys": whether a certificate holds."""
    one = walk.evidence.get(id, Enrolment)
    if any(id in known.revoked_enrolments for known in walk.chain.policies) or one.key.id in walk.revoked:
        yield Refusal("POLICY_KEY_REVOKED", id)
    how = policy.enrolling.get(one.machine)
    if how is None:
        yield Refusal("POLICY_KEY_PURPOSE", f"nobody enrols {one.machine}")
        return
    yield from walk.signed(id, policy, how.by, one.begins)
    if one.ends - one.begins > how.longest:
        yield Refusal("POLICY_KEY_PURPOSE", "longer than a certificate may hold")
    if not keys.fits(one.key, one.possession, one.message):
        yield Refusal("WORKER_IDENTITY_UNVERIFIED", "possession")
    if any(one.key.id in known.keys for known in walk.chain.policies):
        yield Refusal("WORKER_IDENTITY_MISMATCH", "the policy lists the key")
    for other_id, other in walk.evidence.all(Enrolment).items():
        same = (other.machine, other.telling) == (one.machine, one.telling)
        if other.key.id == one.key.id and not same and enrolled_once(walk, other_id, other):
            yield Refusal("WORKER_IDENTITY_MISMATCH", f"one key in {id[:12]} and {other_id[:12]}")
    proved = proved_at(one, policy)
    for fact, value in one.facts.items():
        if proved.get(fact) != value:
            yield Refusal("WORKER_IDENTITY_MISMATCH", fact)
    for demand in how.demands:
        if demand.fact not in proved:
            yield Refusal("WORKER_IDENTITY_UNVERIFIED", demand.fact)
        elif proved[demand.fact] not in demand.values:
            image = name_of(demand.fact) == "image-id"
            yield Refusal("WORKER_IMAGE_MISMATCH" if image else "WORKER_IDENTITY_MISMATCH", demand.fact)


def proved_at(one: Enrolment, policy: Policy) -> Facts:
    """Rule 7: what the attestations of a certificate prove."""
    binding = attestations.binding(one.challenge, one.key.id)
    proved: Facts = {}
    for attestation in one.attestations:
        if attestation.platform not in policy.platforms:
            raise Refusal("WORKER_IDENTITY_UNVERIFIED", f"no platform {attestation.platform}")
        context = Context(binding, one.begins, policy.skew)
        platform = policy.platforms[attestation.platform]
        facts = attestations.verify(attestation, platform, context)
        if not platform.binds and not telling(facts):
            raise Refusal("WORKER_IDENTITY_UNVERIFIED", f"{attestation.platform} names no machine")
        proved |= facts
    return proved


def enrolled_once(walk: Walk, id: str, one: Enrolment) -> bool:
    """Whether a machine signed a certificate that may enrol this one under some version."""
    return any(
        one.machine in policy.enrolling and walk.signers(id, policy, policy.enrolling[one.machine].by, one.begins)[0]
        for policy in walk.chain.policies
    )


def enrolled(walk: Walk, id: str, manifest: Manifest, policy: Policy, perform: Iterable[str]) -> Iterator[Refusal]:
    """Why a manifest that names a certificate is not signed by the key of it."""
    named = manifest.enrolment or ""
    yield from certificate(walk, named, policy)
    one = walk.evidence.get(named, Enrolment)
    signed = [signed for signed in walk.evidence.documents[id].signed[0] if signed.key.id == one.key.id]
    if not signed:
        yield Refusal("WORKER_IDENTITY_MISMATCH", "another key signed")
    elif all(signed.word is not None for signed in signed):
        yield Refusal("ENV_ALG_FORBIDDEN", "not plainly")
    if one.machine not in perform:
        yield Refusal("POLICY_KEY_PURPOSE", f"enrolled as {one.machine}")
    if manifest.started < one.begins - policy.skew:
        yield Refusal("POLICY_KEY_NOT_YET_VALID", named)
    if manifest.finished >= one.ends:
        yield Refusal("POLICY_KEY_EXPIRED", named)


# what is known of the machine


@dataclass
class Known:
    """What is verified and claimed of a machine, and what came of each document."""

    tied: Facts
    verified: Facts
    claimed: Facts
    # of the platforms whose documents do not fit, why
    refused: dict[str, Refusal] = field(default_factory=dict)
    # genuine documents that may have been sent again
    unbound: dict[str, Facts] = field(default_factory=dict)

    @property
    def all(self) -> Facts:
        return {**self.claimed, **self.verified}


def speaking(walk: Walk, id: str, policy: Policy, perform: Iterable[str]) -> str | None:
    """The key that speaks for the machine."""
    manifest = walk.evidence.get(id, Manifest)
    all_known = sorted(signed.key.id for signed in walk.evidence.documents[id].signed[0])
    if manifest.enrolment is not None and manifest.enrolment in walk.evidence.documents:
        return walk.evidence.get(manifest.enrolment, Enrolment).key.id
    listed = [key for key in all_known if key in policy.keys and policy.keys[key].owner in perform]
    may = [key for key in listed if manifest.builder == WORKER + policy.keys[key].owner]
    return next(iter(may or all_known), None)


def known(walk: Walk, id: str, policy: Policy, key: str | None) -> Known:
    manifest = walk.evidence.get(id, Manifest)
    tied = dict(policy.keys[key].machine) if key in policy.keys else {}
    enrolment: Facts = {}
    if manifest.enrolment is not None:
        try:
            enrolment = proved_at(walk.evidence.get(manifest.enrolment, Enrolment), policy)
        except Refusal:
            enrolment = {}
    tied |= telling(enrolment)
    found = Known(tied, {}, {})
    for attestation in manifest.attestations:
        platform = policy.platforms.get(attestation.platform)
        if platform is None:
            continue
        context = Context(attestations.binding(manifest.task, key or ""), manifest.started, policy.skew)
        try:
            facts = attestations.verify(attestation, platform, context)
        except Refusal as refusal:
            found.refused[attestation.platform] = refusal
            continue
        if platform.binds or any(found.tied.get(fact) == value for fact, value in telling(facts).items()):
            found.verified |= facts
        else:
            found.unbound[attestation.platform] = facts
    found.verified = {**enrolment, **found.verified}
    found.claimed = {fact: value for fact, value in manifest.environment.items() if fact not in found.verified}
    return found


def _missed(demand: Demand) -> str:
    """The code for another value than the demanded one."""
    if demand.fact.endswith((".image-id", ".image")):
        return "WORKER_IMAGE_MISMATCH"
    if demand.fact == "interactive":
        return "WORKER_INTERACTIVE"
    machine = ("architecture", "hostname", "machine", "os", "worker")
    return "WORKER_IDENTITY_MISMATCH" if "." in demand.fact or demand.fact in machine else "WORKER_ISOLATION_MISSING"


def environment(walk: Walk, id: str) -> Iterator[Refusal]:
    """Rule 24."""
    manifest, context = walk.both(id)
    policy = context.policy
    key = speaking(walk, id, policy, context.step.perform)
    facts = known(walk, id, policy, key)
    if manifest.environment.get("interactive", "no") != "no":
        yield Refusal("WORKER_INTERACTIVE", manifest.environment["interactive"])
    for fact, value in facts.verified.items():
        if manifest.environment.get(fact, value) != value:
            yield Refusal("WORKER_IDENTITY_MISMATCH", f"{fact}: {value} is proved")
    for fact, value in facts.tied.items():
        proved = facts.verified.get(fact, facts.unbound.get(fact.partition(".")[0], {}).get(fact))
        if proved is None:
            yield Refusal("WORKER_IDENTITY_UNVERIFIED", f"{fact}, to which the key is tied")
        elif proved != value:
            yield Refusal("WORKER_IDENTITY_MISMATCH", f"{fact}: {proved}")
    yield from elsewhere(walk, id, key, facts)
    for demand in context.step.demands:
        if demand.platform in facts.refused:
            yield facts.refused[demand.platform]
        elif demand.verified and demand.fact not in facts.verified:
            yield Refusal("WORKER_IDENTITY_UNVERIFIED", demand.fact)
        elif facts.all.get(demand.fact) not in demand.values:
            yield Refusal(_missed(demand), f"{demand.fact}: {facts.all.get(demand.fact)}")


def elsewhere(walk: Walk, id: str, key: str | None, facts: Known) -> Iterator[Refusal]:
    """Whether the key was seen on another machine."""
    names = ("instance-id", "vm-id", "key")
    lasting = {fact: value for fact, value in facts.verified.items() if name_of(fact) in names}
    for other in walk.evidence.all(Manifest) if lasting else ():
        if other == id or all(signed.key.id != key for signed in walk.evidence.documents[other].signed[0]):
            continue
        there = known(walk, other, walk.chain.newest, key).verified
        for fact, value in lasting.items():
            if there.get(fact, value) != value:
                yield Refusal("WORKER_IDENTITY_MISMATCH", f"{fact}: {value} here, {there[fact]} in {other[:12]}")
