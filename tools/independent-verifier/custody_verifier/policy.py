"""Policies: docs/formats/policy.md."""

import re
import tomllib
from dataclasses import dataclass
from typing import Any, Callable, Iterable, TypeVar

from . import keys, names, sshsig
from .envelope import Signed
from .refusal import Refusal
from .strict import check_text

MAX_POLICY = 4 << 20
KIND = "https://custody.dev/policy/v1"
T = TypeVar("T")
_DURATION = re.compile(r"([0-9]+)([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_ORIGIN = re.compile(r"(https://([a-z0-9.-]+|\[[0-9a-f:.]+\])|http://localhost)(:[0-9]+)?\Z")
_URI = re.compile(r"[^:/]+://[^/].*|file:///.*", re.DOTALL)
_NOT_PLAIN = re.compile(r"[\s%*?@\\]|\.\.")


@dataclass(frozen=True)
class Enrolled:
    """One key of one principal, and when it counts."""

    key: keys.Key
    owner: str
    person: bool
    begins: int | None
    ends: int | None
    revoked: bool
    user_verification: bool

    def check(self, signed: Signed, origins: Iterable[str]) -> None:
        """Whether the signature has the form of its principal (envelope.md rule 7, sign-off.md)."""
        if self.revoked:
            raise Refusal("POLICY_KEY_REVOKED", self.owner)
        word = signed.word
        if self.person != (word is not None):
            raise Refusal("ENV_ALG_FORBIDDEN", f"{self.owner} signed in the form of the other kind of principal")
        if word is None or word.flags is None:
            return
        if not word.flags & sshsig.TOUCHED:
            raise Refusal("SIGNOFF_UP_REQUIRED", self.owner)
        if self.user_verification and not word.flags & sshsig.CHECKED:
            raise Refusal("SIGNOFF_UV_REQUIRED", self.owner)
        if word.origin is not None and word.origin not in origins:
            raise Refusal("SIGNOFF_ORIGIN", word.origin[:80])


@dataclass(frozen=True)
class Phase:
    approve: dict[str, int]
    proposer_counts: bool
    signoff_max_age: int
    after: list[str]


@dataclass(frozen=True)
class From:
    step: str
    same: bool
    required: bool


@dataclass(frozen=True)
class Step:
    phase: str
    perform: list[str]
    schedule: list[str]
    scheduled_by: str | None
    source: bool
    inputs: list[From]
    externals: list[str]
    outputs: list[str]
    network: bool
    full: bool
    irrevocable: bool
    destinations: list[str]
    max_age: int
    summaries: list[str]


@dataclass(frozen=True)
class Product:
    source: str
    channels: list[str]
    desk: list[str]
    propose: list[str]
    resolve: list[str]
    phases: dict[str, Phase]
    steps: dict[str, Step]


@dataclass(frozen=True)
class Policy:
    version: int
    previous: str | None
    expires: int
    instance: str
    skew: int
    origins: list[str]
    root: list[str]
    threshold: int
    keys: dict[str, Enrolled]
    roles: dict[str, list[str]]
    products: dict[str, Product]

    def members(self, listed: Iterable[str]) -> set[str]:
        """The principals behind a list of roles and machines."""
        found: set[str] = set()
        for name in listed:
            found.update(self.roles.get(name, [name]))
        return found


def _wrong(what: str) -> Refusal:
    return Refusal("POLICY_INVALID", what)


class _Table:
    """A table of which every member must be asked for."""

    def __init__(self, value: Any, place: str) -> None:
        if type(value) is not dict:
            raise _wrong(f"{place} is no table")
        self.left = dict(value)
        self.place = place

    def take(self, name: str, kind: type[T]) -> T:
        if name not in self.left:
            raise _wrong(f"{self.place} has no {name}")
        value = self.left.pop(name)
        if type(value) is not kind:
            raise _wrong(f"{self.place}.{name} is of another type")
        return value

    def option(self, name: str, kind: type, otherwise: Any) -> Any:
        return self.take(name, kind) if name in self.left else otherwise

    def entries(self, name: str, empty: bool = False) -> list[Any]:
        found = self.take(name, list)
        if not found and not empty:
            raise _wrong(f"{self.place}.{name} is empty")
        if any(found.count(entry) > 1 for entry in found):
            raise _wrong(f"{self.place}.{name} names something twice")
        return found

    def texts(self, name: str, empty: bool = False) -> list[str]:
        found = self.entries(name, empty)
        if any(type(entry) is not str for entry in found):
            raise _wrong(f"{self.place}.{name} has what is not text")
        return found

    def optional(self, name: str) -> list[str]:
        return self.texts(name, empty=True) if name in self.left else []

    def tables(self, name: str) -> Iterable[tuple[str, "_Table"]]:
        for inner, value in self.take(name, dict).items():
            yield _checked(names.label, inner, self.place), _Table(value, f"{self.place}.{name}.{inner}")

    def time(self, name: str) -> int | None:
        text = self.option(name, str, None)
        return None if text is None else _checked(names.time, text, name)

    def duration(self, name: str) -> int:
        match = _DURATION.match(self.take(name, str))
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds < 1 << 64:
            raise _wrong(f"{self.place}.{name} is no duration")
        return seconds

    def count(self, name: str, people: Iterable[str], able: set[str]) -> int:
        found: int = self.take(name, int)
        if not 1 <= found <= len(able.intersection(people)):
            raise _wrong(f"{self.place}.{name} is not from 1 to the number of people who can sign")
        return found

    def close(self) -> None:
        if self.left:
            raise _wrong(f"{self.place} has {sorted(self.left)}")


def _checked(check: Callable[..., Any], *arguments: Any) -> Any:
    """What is wrong in form has one code in a policy."""
    try:
        return check(*arguments)
    except Refusal as refusal:
        raise _wrong(str(refusal)) from None


def _known(listed: list[str], defined: Iterable[str], what: str) -> list[str]:
    for name in listed:
        if name not in defined:
            raise _wrong(f"there is no {what} {name}")
    return listed


def enrolled(value: Any, owner: str, person: bool) -> Enrolled:
    """One entry of `keys`."""
    table = _Table(value, f"a key of {owner}")
    key = keys.parse(table.take("key", str))
    begins, ends = table.time("from"), table.time("until")
    revoked = table.option("revoked", bool, False)
    verification = table.option("user-verification", bool, False)
    table.close()
    if begins is not None and ends is not None and begins >= ends:
        raise _wrong(f"a key of {owner} is never valid")
    if key.application is not None and not person:
        raise _wrong(f"machine {owner} has a security key")
    if key.application is None and verification:
        raise _wrong(f"a plain key of {owner} cannot check its user")
    return Enrolled(key, owner, person, begins, ends, revoked, verification)


def _principals(head: _Table) -> tuple[dict[str, Enrolled], set[str], set[str]]:
    """All keys by id, people, and machines."""
    found: dict[str, Enrolled] = {}
    groups: dict[str, set[str]] = {"people": set(), "machines": set()}
    for group, owners in groups.items():
        for owner, table in head.tables(group):
            owners.add(owner)
            for value in table.entries("keys"):
                one = enrolled(value, owner, group == "people")
                if one.key.id in found:
                    raise Refusal("POLICY_KEY_DUPLICATE", f"{owner} and {found[one.key.id].owner}")
                found[one.key.id] = one
            table.close()
    if groups["people"] & groups["machines"]:
        raise _wrong("somebody is a person and a machine")
    return found, groups["people"], groups["machines"]


def _phase(table: _Table, roles: dict[str, list[str]], able: set[str]) -> Phase:
    approve: dict[str, int] = {}
    for value in table.entries("approve"):
        entry = _Table(value, f"{table.place}.approve")
        role = entry.take("role", str)
        _known([role], roles, "role")
        if role in approve:
            raise _wrong(f"{role} stands twice")
        approve[role] = entry.count("count", roles[role], able)
        entry.close()
    counts, age = table.take("proposer-counts", bool), table.duration("sign-off-max-age")
    after = table.texts("after", empty=True)
    table.close()
    return Phase(approve, counts, age, after)


def _from(value: Any, place: str) -> From:
    entry = _Table(value, place)
    step, release = entry.take("step", str), entry.take("release", str)
    if release not in ("same", "other"):
        raise _wrong(f"{place}: release {release}")
    required = entry.option("required", bool, False)
    entry.close()
    return From(step, release == "same", required)


def plain_uri(uri: str) -> bool:
    """Rule 9: nothing in it stands for something else."""
    return bool(_URI.fullmatch(uri)) and not _NOT_PLAIN.search(uri)


def _uris(listed: list[str], schemes: tuple[str, ...]) -> list[str]:
    for uri in listed:
        if not plain_uri(uri) or not uri.startswith(schemes):
            raise _wrong(f"no plain URI: {uri[:80]}")
    return listed


def _step(table: _Table, machines: set[str]) -> Step:
    schedule = _known(table.optional("schedule"), machines, "machine")
    scheduled_by = table.option("scheduled-by", str, None)
    if bool(schedule) == (scheduled_by is not None):
        raise _wrong(f"{table.place}: either schedule or scheduled-by")
    verification, receipts = table.take("verification", str), table.take("receipts", str)
    if verification not in ("full", "direct") or receipts != "none":
        raise _wrong(f"{table.place}: verification or receipts")
    step = Step(
        phase=table.take("phase", str),
        perform=_known(table.texts("perform"), machines, "machine"),
        schedule=schedule,
        scheduled_by=scheduled_by,
        source=table.take("source", bool),
        inputs=[_from(value, f"{table.place}.inputs") for value in table.entries("inputs", empty=True)],
        externals=_uris(table.optional("externals"), ("",)),
        outputs=[_checked(names.pattern, text) for text in table.texts("outputs")],
        network=table.take("network", bool),
        full=verification == "full",
        irrevocable=table.take("irrevocable", bool),
        destinations=_uris(table.optional("destinations"), ("file:///", "s3://")),
        max_age=table.duration("max-age"),
        summaries=_known(table.optional("summaries"), machines, "machine"),
    )
    table.close()
    if step.irrevocable and (not step.full or step.summaries):
        raise _wrong(f"{table.place} is irrevocable and verifies less than everything")
    if step.destinations and not step.irrevocable:
        raise _wrong(f"{table.place} publishes and is not irrevocable")
    return step


def _product(table: _Table, roles: dict[str, list[str]], machines: set[str], able: set[str]) -> Product:
    channels = [_checked(names.label, text, "channel") for text in table.texts("channels")]
    phases = {name: _phase(inner, roles, able) for name, inner in table.tables("phases")}
    steps = {name: _step(inner, machines) for name, inner in table.tables("steps")}
    product = Product(
        source=table.take("source", str),
        channels=channels,
        desk=_known(table.texts("desk"), machines, "machine"),
        propose=_known(table.texts("propose"), set(roles) | machines, "role"),
        resolve=_known(table.texts("resolve"), roles, "role"),
        phases=phases,
        steps=steps,
    )
    table.close()
    for name, phase in phases.items():
        _known(phase.after, set(phases) - {name}, "earlier phase")
        if all(step.phase != name for step in steps.values()):
            raise _wrong(f"phase {name} has no step")
    for step in steps.values():
        _known([step.phase], phases, "phase")
        _known([one.step for one in step.inputs], steps, "step")
        _known([step.scheduled_by] if step.scheduled_by else [], steps, "step")
    return product


def _check_use(policy: Policy, machines: set[str]) -> None:
    """Rule 2: a role or a machine that nothing names is an error."""
    used: set[str] = set()
    for product in policy.products.values():
        used.update(product.desk, product.propose, product.resolve)
        for phase in product.phases.values():
            used.update(phase.approve)
        for step in product.steps.values():
            used.update(step.perform, step.schedule, step.summaries)
    living = {one.owner for one in policy.keys.values() if not one.revoked}
    idle = (set(policy.roles) - used) | ((machines & living) - used)
    if idle:
        raise _wrong(f"never used: {sorted(idle)}")


def text(data: bytes) -> str:
    if len(data) > MAX_POLICY:
        raise Refusal("PARSE_SIZE_EXCEEDED", f"{len(data)} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("PARSE_UNICODE_INVALID", str(error)) from None


def _clean(text: str) -> str:
    """Rule 8; CR is refused by itself, and ends a line with LF."""
    try:
        check_text(text.replace("\r\n", "\n"), "policy")
    except Refusal as refusal:
        raise _wrong(str(refusal)) from None
    return text


def read(data: bytes) -> Policy:
    try:
        head = _Table(tomllib.loads(_clean(text(data))), "policy")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise _wrong(str(error)) from None
    if head.take("policy", str) != KIND:
        raise _wrong("an unknown kind of policy")
    version, previous = head.take("version", int), head.option("previous", str, None)
    if version < 1 or (version == 1) != (previous is None):
        raise _wrong("version and previous do not fit")
    if previous is not None:
        _checked(names.digest, previous, 64, "previous")
    expires = _checked(names.time, head.take("expires", str), "expires")
    instance = _checked(names.label, head.take("instance", str), "instance")
    skew, origins = head.duration("clock-skew"), head.optional("origins")
    if not all(_ORIGIN.match(origin) for origin in origins):
        raise _wrong("no web origin")
    found, people, machines = _principals(head)
    able = {one.owner for one in found.values() if one.person and not one.revoked}
    root = _Table(head.take("root", dict), "root")
    root_people = _known(root.texts("people"), people, "person")
    threshold = root.count("threshold", root_people, able)
    root.close()
    roles: dict[str, list[str]] = {}
    for name, table in head.tables("roles"):
        roles[name] = _known(table.texts("members"), people, "person")
        table.close()
    products = {name: _product(table, roles, machines, able) for name, table in head.tables("products")}
    head.close()
    policy = Policy(version, previous, expires, instance, skew, origins, root_people, threshold, found, roles, products)
    _check_use(policy, machines)
    return policy
