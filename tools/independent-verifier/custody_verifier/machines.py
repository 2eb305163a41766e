"""What a policy demands of machines, and who enrols them: docs/formats/policy.md."""

import re
from dataclasses import dataclass
from typing import Any, Iterable

from . import names
from .statements import TELLING
from .tables import Table, checked, wrong

MAX_BUILDERS = 8
_FACT = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(\.[a-z0-9]+(-[a-z0-9]+)*)*\Z")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})\Z")


@dataclass(frozen=True)
class Demand:
    fact: str
    values: list[str]
    verified: bool

    @property
    def platform(self) -> str:
        return self.fact.partition(".")[0]


@dataclass(frozen=True)
class Enrolling:
    """Who enrols keys of a machine, what must be proved, and for how long."""

    by: list[str]
    demands: list[Demand]
    longest: int


def _fact(text: str, platforms: Iterable[str] | None) -> str:
    """A fact's name; of one of these platforms, if it is to be verified."""
    if not _FACT.match(text):
        raise wrong(f"no fact: {text[:80]}")
    platform, dot, name = text.partition(".")
    if platforms is not None and (not dot or not name or platform not in platforms):
        raise wrong(f"{text}: of no platform")
    return text


def _demands(table: Table, name: str, platforms: Iterable[str], standing: bool) -> list[Demand]:
    found: list[Demand] = []
    for value in table.entries(name):
        entry = Table(value, f"{table.place}.{name}")
        word = entry.take("standing", str) if standing else "verified"
        if word not in ("verified", "claimed"):
            raise wrong(f"{entry.place}: standing {word}")
        fact = _fact(entry.take("fact", str), platforms if word == "verified" else None)
        found.append(Demand(fact, entry.texts("is"), word == "verified"))
        entry.close()
    if len({demand.fact for demand in found}) < len(found):
        raise wrong(f"{table.place}.{name} demands something twice")
    return found


def demands(table: Table, platforms: Iterable[str]) -> list[Demand]:
    return _demands(table, "machine", platforms, standing=True) if "machine" in table.left else []


def tied(entry: Table, platforms: Iterable[str]) -> dict[str, str]:
    """What is verified whenever a key signs."""
    if "machine" not in entry.left:
        return {}
    found: dict[str, Any] = entry.take("machine", dict)
    for fact, value in found.items():
        _fact(fact, platforms)
        if type(value) is not str:
            raise wrong(f"{entry.place}: {fact}")
    if not any(fact.partition(".")[2] in TELLING for fact in found):
        raise wrong(f"{entry.place}: nothing tells this machine from others")
    return found


def enrolling(table: Table, platforms: Iterable[str]) -> Enrolling | None:
    members = {"enrolled-by", "enrol", "max-certificate"}
    if not members & table.left.keys():
        return None
    by = table.texts("enrolled-by")
    return Enrolling(by, _demands(table, "enrol", platforms, standing=False), table.duration("max-certificate"))


def images(table: Table) -> tuple[list[str], list[str]]:
    """Digests, and steps whose images are allowed."""
    digests, steps = [], []
    for value in table.entries("images") if "images" in table.left else []:
        if type(value) is str:
            match = _DIGEST.match(value)
            if not match:
                raise wrong(f"{table.place}: no image: {value[:80]}")
            digests.append(match[1])
        else:
            entry = Table(value, f"{table.place}.images")
            steps.append(entry.take("step", str))
            entry.close()
    return digests, steps


def builders(table: Table, able: int, irrevocable: bool) -> tuple[int, list[str]]:
    """How many must agree, and in which facts they must differ."""
    count = table.option("builders", int, 1)
    differ = [_fact(text, None) for text in table.texts("builders-differ")] if "builders-differ" in table.left else []
    if not 1 <= count <= min(MAX_BUILDERS, max(able, 1)) or (irrevocable and count > 1) or (differ and count == 1):
        raise wrong(f"{table.place}: builders")
    return count, differ


def revoked(head: Table) -> set[str]:
    listed = head.texts("revoked-enrolments") if "revoked-enrolments" in head.left else []
    return {checked(names.digest, id, 64, "revoked-enrolments") for id in listed}
