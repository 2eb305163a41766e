"""From the pin to the newest policy: docs/formats/verification.md, "Before the walk"."""

from dataclasses import dataclass

from . import keys, policy as policies
from .envelope import POLICY_TYPE, Envelope
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


def _signed_by_root(envelope: Envelope, root: Policy) -> bool:
    """Whether enough root people signed. Their keys' `from` and `until` do not matter here."""
    people: set[str] = set()
    for signed in envelope.signed({one.key.id: one.key for one in root.keys.values()})[0]:
        one = root.keys[signed.key.id]
        try:
            one.check(signed, root.origins)
        except Refusal:
            continue
        if one.owner in root.root:
            people.add(one.owner)
    return len(people) >= root.threshold


def establish(pin: str, envelopes: dict[str, Envelope], floor: Floor | None) -> Chain:
    """The chain from the pin, or why there is none."""
    texts = {id: one for id, one in envelopes.items() if one.payload_type == POLICY_TYPE}
    if pin not in texts:
        raise Refusal("POLICY_UNTRUSTED", pin)
    first = policies.read(texts[pin].payload)
    if not _signed_by_root(texts[pin], first):
        raise Refusal("POLICY_SIGNATURE_THRESHOLD", pin)
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
        following = [
            (id, one)
            for id, one in parsed.get(chain.ids[-1], [])
            if one.version == last.version + 1
            and one.instance == last.instance
            and _signed_by_root(texts[id], last)
            and _signed_by_root(texts[id], one)
        ]
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
