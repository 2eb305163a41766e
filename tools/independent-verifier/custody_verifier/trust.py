"""From the pin to the newest policy: docs/formats/verification.md, "Before the walk"."""

from dataclasses import dataclass

from . import keys, policy as policies
from .envelope import OF_POLICY, Envelope
from .policy import Policy
from .refusal import Refusal


@dataclass(frozen=True)
class Floor:
    """What a verifier saw before."""

    version: int
    policy: str
    time: int


@dataclass(frozen=True)
class Chain:
    """The policies from the pin to the newest, in order."""

    ids: list[str]
    policies: list[Policy]

    @property
    def newest(self) -> Policy:
        return self.policies[-1]

    def named(self, id: str) -> Policy | None:
        return self.policies[self.ids.index(id)] if id in self.ids else None

    @property
    def revoked(self) -> set[str]:
        """Keys that any version revokes."""
        return {one.key.id for policy in self.policies for one in policy.keys.values() if one.revoked}

    @property
    def known(self) -> dict[str, keys.Key]:
        return {one.key.id: one.key for policy in self.policies for one in policy.keys.values()}


def _check_root(envelope: Envelope, root: Policy) -> None:
    """That enough root people signed. Their keys' `from` and `until` do not matter here."""
    people: set[str] = set()
    fitting, problems = envelope.signed({one.key.id: one.key for one in root.keys.values()})
    for signed in fitting:
        one = root.keys[signed.key.id]
        try:
            one.check(signed, root.origins)
            if one.owner not in root.root:
                raise Refusal("POLICY_KEY_PURPOSE", one.owner)
            people.add(one.owner)
        except Refusal as refusal:
            problems.append(refusal)
    telling = [one for one in problems if one.code != "ENV_KEY_UNKNOWN"]
    if not people and telling:
        raise telling[0]
    if len(people) < root.threshold:
        raise Refusal("POLICY_SIGNATURE_THRESHOLD", f"{len(people)} of {root.threshold}")


def _follows(envelope: Envelope, policy: Policy, last: Policy) -> bool:
    if policy.version != last.version + 1 or policy.instance != last.instance:
        return False
    try:
        _check_root(envelope, last)
        _check_root(envelope, policy)
    except Refusal:
        return False
    return True


def establish(pin: str, envelopes: dict[str, Envelope], floor: Floor | None) -> Chain:
    """The chain from the pin, or why there is none."""
    texts = {id: one for id, one in envelopes.items() if one.payload_type == OF_POLICY}
    if pin not in texts:
        raise Refusal("POLICY_UNTRUSTED", pin)
    first = policies.read(texts[pin].payload)
    _check_root(texts[pin], first)
    chain = Chain([pin], [first])
    parsed: dict[str, list[tuple[str, Policy]]] = {}
    for id, one in texts.items():
        try:
            found = policies.read(one.payload)
        except Refusal:
            continue
        if found.previous:
            parsed.setdefault(found.previous, []).append((id, found))
    while True:
        last = chain.newest
        following = [found for found in parsed.get(chain.ids[-1], []) if _follows(texts[found[0]], found[1], last)]
        if not following:
            break
        if len(following) > 1:
            raise Refusal("POLICY_EQUIVOCATION", f"version {last.version + 1}")
        chain.ids.append(following[0][0])
        chain.policies.append(following[0][1])
    if floor:
        if chain.newest.version < floor.version:
            raise Refusal("POLICY_ROLLBACK", f"version {chain.newest.version} after {floor.version}")
        if floor.policy not in chain.ids:
            raise Refusal("POLICY_EQUIVOCATION", f"version {floor.version}")
    return chain
