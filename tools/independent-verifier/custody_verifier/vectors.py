"""The cases of docs/formats/vectors.md."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, Callable

from . import attestations, envelope as envelopes, evidence, names, policy, question, statements
from .envelope import OF_POLICY, OF_STATEMENT, Envelope
from .judge import Expected
from .refusal import Refusal
from .trust import Floor, establish


class Cases:
    """A directory of cases and of the files that they name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def bytes(self, digest: str) -> bytes:
        data = (self.directory / "files" / digest).read_bytes()
        if sha256(data).hexdigest() != digest:
            raise ValueError(f"files/{digest} is not what its name says")
        return data

    def envelopes(self, digests: list[str]) -> list[Envelope]:
        """What cannot be read is as if it were not there."""
        found = []
        for digest in digests:
            try:
                found.append(envelopes.read(self.bytes(digest)))
            except Refusal:
                continue
        return found

    def codes(self, case: dict[str, Any]) -> set[str]:
        """Why the case is rejected; nothing if it is accepted."""
        try:
            return _KINDS[case["kind"]](self, case)
        except Refusal as refusal:
            return {refusal.code}


def _envelope(cases: Cases, case: dict[str, Any]) -> set[str]:
    listed = [policy.enrolled(key, one["name"], one["kind"] == "person") for one in case["keys"] for key in one["keys"]]
    enrolled = {one.key.id: one for one in listed}
    found = envelopes.read(cases.bytes(case["input"]))
    if found.payload_type != case["payloadType"]:
        raise Refusal("ENV_PAYLOAD_TYPE", found.payload_type[:80])
    fitting, problems = found.signed({id: one.key for id, one in enrolled.items()})
    owners = set()
    for signed in fitting:
        try:
            enrolled[signed.key.id].check(signed, case.get("origins", []))
            owners.add(enrolled[signed.key.id].owner)
        except Refusal as refusal:
            problems.append(refusal)
    codes = {one.code for one in problems} if not owners else set()
    if len(owners) < case["threshold"]:
        return codes | {"ENV_THRESHOLD_NOT_MET"}
    if found.payload_type == OF_STATEMENT:
        statements.read(found.payload)
    elif found.payload_type == OF_POLICY:
        policy.text(found.payload)
    return set()


def _statement(cases: Cases, case: dict[str, Any]) -> set[str]:
    canonical = statements.read(cases.bytes(case["input"]))[1]
    return _differs("canonical", case, canonical)


def _policy(cases: Cases, case: dict[str, Any]) -> set[str]:
    policy.read(cases.bytes(case["input"]))
    return set()


def _policies(cases: Cases, case: dict[str, Any]) -> set[str]:
    found = evidence.joined(cases.envelopes(case["policies"]))
    return _differs("newest", case, establish(case["pin"], found, _floor(case)).newest.version)


def _bundle(cases: Cases, case: dict[str, Any]) -> set[str]:
    found = evidence.joined(evidence.bundle(cases.bytes(case["input"])))
    return _differs("statements", case, sorted(found))


def _chain(cases: Cases, case: dict[str, Any]) -> set[str]:
    now = names.time(case["now"], "now")
    given = cases.envelopes(case["policies"] + case["evidence"])
    asked = case["question"]
    expected = Expected(**asked.get("expect", {}))
    court = question.court(case["pin"], given, now, _floor(case))
    if "task" in asked:
        return court.task(asked["task"], expected).codes
    file = asked["file"]
    digests = statements.Digests(file["digest"]["sha256"], file["digest"].get("sha512"))
    return court.file(statements.Artifact(file["name"], digests, file["size"]), expected).codes


def _attestation(cases: Cases, case: dict[str, Any]) -> set[str]:
    judging = policy.read(cases.bytes(case["policy"]))
    platform = judging.platforms.get(case["platform"])
    if platform is None:
        raise Refusal("WORKER_IDENTITY_UNVERIFIED", f"no platform {case['platform']}")
    parts = {name: cases.bytes(digest) for name, digest in case["parts"].items()}
    binding = attestations.binding(case["purpose"], case["key"])
    context = attestations.Context(binding, names.time(case["now"], "now"), judging.skew)
    facts = attestations.verify(attestations.Attestation(case["platform"], parts), platform, context)
    return _differs("facts", case, facts) | _differs("bound", case, platform.binds)


def _floor(case: dict[str, Any]) -> Floor | None:
    floor = case.get("floor")
    return Floor(floor["version"], floor["policy"], names.time(floor["time"], "floor")) if floor else None


def _differs(member: str, case: dict[str, Any], found: object) -> set[str]:
    """What a case says besides its verdict."""
    return set() if member not in case or case[member] == found else {f"another {member}: {found}"}


_KINDS: dict[str, Callable[[Cases, dict[str, Any]], set[str]]] = {
    "envelope": _envelope,
    "statement": _statement,
    "policy": _policy,
    "policies": _policies,
    "bundle": _bundle,
    "chain": _chain,
    "attestation": _attestation,
}


def run(directory: Path) -> bool:
    """Prints each disagreement and the count; whether all agree."""
    cases = Cases(directory)
    paths = sorted(directory.glob("cases/*/*.json"))
    if not paths:
        raise FileNotFoundError(f"no cases in {directory}")
    disagreeing = 0
    for path in paths:
        case = json.loads(path.read_bytes())
        codes = cases.codes(case)
        agrees = not codes if case["verdict"] == "accepted" else case["code"] in codes
        if not agrees:
            disagreeing += 1
            found = " ".join(sorted(codes)) or "accepted"
            wanted = case.get("code", "accepted")
            print(f"{path.parent.name}/{path.stem}: {wanted} expected, {found} found ({case['about']})")
    print(f"{len(paths)} cases, {len(paths) - disagreeing} agree, {disagreeing} disagree")
    return not disagreeing
