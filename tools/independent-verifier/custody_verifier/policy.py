"""Policies: docs/formats/policy.md."""

import re
import tomllib
from dataclasses import dataclass, field
from typing import Any, Iterable

from . import keys, machines as of_machines, names, sshsig
from .attestations import Platform
from .envelope import Signed
from .machines import Demand, Enrolling
from .platforms import read as read_platforms
from .refusal import Refusal
from .strict import check_text
from .tables import Table, checked, wrong

MAX_POLICY = 4 << 20
KIND = "https://custody.dev/policy/v1"
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
    machine: dict[str, str] = field(default_factory=dict)

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
    images: tuple[list[str], list[str]]
    demands: list[Demand]
    builders: int
    builders_differ: list[str]
    downloads: list[str]
    record_downloads: bool


@dataclass(frozen=True)
class Product:
    source: str
    channels: list[str]
    desk: list[str]
    propose: list[str]
    resolve: list[str]
    phases: dict[str, Phase]
    steps: dict[str, Step]
    submodules: list[str]
    # roles of which somebody must have signed the source, and whether the commit or a tag
    signatures: tuple[list[str], str] | None


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
    platforms: dict[str, Platform]
    enrolling: dict[str, Enrolling]
    revoked_enrolments: set[str]

    def members(self, listed: Iterable[str]) -> set[str]:
        """The principals behind a list of roles and machines."""
        found: set[str] = set()
        for name in listed:
            found.update(self.roles.get(name, [name]))
        return found


def _known(listed: list[str], defined: Iterable[str], what: str) -> list[str]:
    for name in listed:
        if name not in defined:
            raise wrong(f"there is no {what} {name}")
    return listed


def enrolled(value: Any, owner: str, person: bool, platforms: Iterable[str] = ()) -> Enrolled:
    """One entry of `keys`."""
    table = Table(value, f"a key of {owner}")
    key = keys.parse(table.take("key", str))
    begins, ends = table.time("from"), table.time("until")
    revoked = table.option("revoked", bool, False)
    verification = table.option("user-verification", bool, False)
    tied = {} if person else of_machines.tied(table, platforms)
    table.close()
    if begins is not None and ends is not None and begins >= ends:
        raise wrong(f"a key of {owner} is never valid")
    if key.application is not None and not person:
        raise wrong(f"machine {owner} has a security key")
    if key.application is None and verification:
        raise wrong(f"a plain key of {owner} cannot check its user")
    return Enrolled(key, owner, person, begins, ends, revoked, verification, tied)


def _principals(
    head: Table, platforms: Iterable[str]
) -> tuple[dict[str, Enrolled], set[str], set[str], dict[str, Enrolling]]:
    """All keys by id, people, machines, and how machines are enrolled."""
    found: dict[str, Enrolled] = {}
    enrolling: dict[str, Enrolling] = {}
    groups: dict[str, set[str]] = {"people": set(), "machines": set()}
    for group, owners in groups.items():
        for owner, table in head.tables(group):
            owners.add(owner)
            how = of_machines.enrolling(table, platforms) if group == "machines" else None
            if how is not None:
                enrolling[owner] = how
            for value in table.entries("keys") if how is None or "keys" in table.left else []:
                one = enrolled(value, owner, group == "people", platforms)
                if one.key.id in found:
                    raise Refusal("POLICY_KEY_DUPLICATE", f"{owner} and {found[one.key.id].owner}")
                found[one.key.id] = one
            table.close()
    if groups["people"] & groups["machines"]:
        raise wrong("somebody is a person and a machine")
    listed = {one.owner for one in found.values() if not one.person}
    for how in enrolling.values():
        _known(how.by, listed, "machine with a key")
    return found, groups["people"], groups["machines"], enrolling


def _phase(table: Table, roles: dict[str, list[str]], able: set[str]) -> Phase:
    approve: dict[str, int] = {}
    for value in table.entries("approve"):
        entry = Table(value, f"{table.place}.approve")
        role = entry.take("role", str)
        _known([role], roles, "role")
        if role in approve:
            raise wrong(f"{role} stands twice")
        approve[role] = entry.count("count", roles[role], able)
        entry.close()
    counts, age = table.take("proposer-counts", bool), table.duration("sign-off-max-age")
    after = table.texts("after", empty=True)
    table.close()
    return Phase(approve, counts, age, after)


def _from(value: Any, place: str) -> From:
    entry = Table(value, place)
    step, release = entry.take("step", str), entry.take("release", str)
    if release not in ("same", "other"):
        raise wrong(f"{place}: release {release}")
    required = entry.option("required", bool, False)
    entry.close()
    return From(step, release == "same", required)


def plain_uri(uri: str) -> bool:
    """Rule 9: nothing in it stands for something else."""
    return bool(_URI.fullmatch(uri)) and not _NOT_PLAIN.search(uri)


def _uris(listed: list[str], schemes: tuple[str, ...]) -> list[str]:
    for uri in listed:
        if not plain_uri(uri) or not uri.startswith(schemes):
            raise wrong(f"no plain URI: {uri[:80]}")
    return listed


def _step(table: Table, machines: set[str], platforms: Iterable[str]) -> Step:
    schedule = _known(table.optional("schedule"), machines, "machine")
    scheduled_by = table.option("scheduled-by", str, None)
    if bool(schedule) == (scheduled_by is not None):
        raise wrong(f"{table.place}: either schedule or scheduled-by")
    verification, receipts = table.take("verification", str), table.take("receipts", str)
    if verification not in ("full", "direct") or receipts != "none":
        raise wrong(f"{table.place}: verification or receipts")
    irrevocable = table.take("irrevocable", bool)
    perform = _known(table.texts("perform"), machines, "machine")
    count, differ = of_machines.builders(table, len(perform), irrevocable)
    step = Step(
        phase=table.take("phase", str),
        perform=perform,
        schedule=schedule,
        scheduled_by=scheduled_by,
        source=table.take("source", bool),
        inputs=[_from(value, f"{table.place}.inputs") for value in table.entries("inputs", empty=True)],
        externals=_uris(table.optional("externals"), ("",)),
        outputs=[checked(names.pattern, text) for text in table.texts("outputs")],
        network=table.take("network", bool),
        full=verification == "full",
        irrevocable=irrevocable,
        destinations=_uris(table.optional("destinations"), ("file:///", "s3://")),
        max_age=table.duration("max-age"),
        summaries=_known(table.optional("summaries"), machines, "machine"),
        images=of_machines.images(table),
        demands=of_machines.demands(table, platforms),
        builders=count,
        builders_differ=differ,
        downloads=_uris(table.optional("downloads"), ("https://", "http://")),
        record_downloads=table.option("record-downloads", bool, False),
    )
    table.close()
    if step.irrevocable and (not step.full or step.summaries):
        raise wrong(f"{table.place} is irrevocable and verifies less than everything")
    if not all(re.match("https?://[^/]+/", uri) for uri in step.downloads):
        raise wrong(f"{table.place}: a download without host")
    if (step.downloads and step.destinations) or (step.record_downloads and not step.downloads):
        raise wrong(f"{table.place}: downloads of a publication, or none to record")
    if step.destinations and not step.irrevocable:
        raise wrong(f"{table.place} publishes and is not irrevocable")
    return step


def _signatures(table: Table, roles: dict[str, list[str]]) -> tuple[list[str], str] | None:
    if "source-signatures" not in table.left:
        return None
    entry = Table(table.take("source-signatures", dict), f"{table.place}.source-signatures")
    people, what = _known(entry.texts("people"), roles, "role"), entry.take("what", str)
    entry.close()
    if what not in ("commit", "tag"):
        raise wrong(f"{entry.place}: what {what}")
    return people, what


def _product(
    table: Table, roles: dict[str, list[str]], machines: set[str], able: set[str], platforms: Iterable[str]
) -> Product:
    channels = [checked(names.label, text, "channel") for text in table.texts("channels")]
    phases = {name: _phase(inner, roles, able) for name, inner in table.tables("phases")}
    steps = {name: _step(inner, machines, platforms) for name, inner in table.tables("steps")}
    product = Product(
        source=table.take("source", str),
        channels=channels,
        desk=_known(table.texts("desk"), machines, "machine"),
        propose=_known(table.texts("propose"), set(roles) | machines, "role"),
        resolve=_known(table.texts("resolve"), roles, "role"),
        phases=phases,
        steps=steps,
        submodules=_uris(table.optional("submodules"), ("",)),
        signatures=_signatures(table, roles),
    )
    table.option("lfs", bool, False)
    table.close()
    for name, phase in phases.items():
        _known(phase.after, set(phases) - {name}, "earlier phase")
        if all(step.phase != name for step in steps.values()):
            raise wrong(f"phase {name} has no step")
    for step in steps.values():
        _known([step.phase], phases, "phase")
        _known([one.step for one in step.inputs], steps, "step")
        _known(step.images[1], steps, "step")
        _known([step.scheduled_by] if step.scheduled_by else [], steps, "step")
    return product


def _check_use(policy: Policy, machines: set[str]) -> None:
    """Rule 2: a role or a machine that nothing names is an error."""
    used: set[str] = set()
    for product in policy.products.values():
        used.update(product.desk, product.propose, product.resolve, product.signatures[0] if product.signatures else ())
        for phase in product.phases.values():
            used.update(phase.approve)
        for step in product.steps.values():
            used.update(step.perform, step.schedule, step.summaries)
    for how in policy.enrolling.values():
        used.update(how.by)
    living = set(policy.enrolling) | {one.owner for one in policy.keys.values() if not one.revoked}
    idle = (set(policy.roles) - used) | ((machines & living) - used)
    if idle:
        raise wrong(f"never used: {sorted(idle)}")


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
        raise wrong(str(refusal)) from None
    return text


def read(data: bytes) -> Policy:
    try:
        head = Table(tomllib.loads(_clean(text(data))), "policy")
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise wrong(str(error)) from None
    if head.take("policy", str) != KIND:
        raise wrong("an unknown kind of policy")
    version, previous = head.take("version", int), head.option("previous", str, None)
    if version < 1 or (version == 1) != (previous is None):
        raise wrong("version and previous do not fit")
    if previous is not None:
        checked(names.digest, previous, 64, "previous")
    expires = checked(names.time, head.take("expires", str), "expires")
    instance = checked(names.label, head.take("instance", str), "instance")
    skew, origins = head.duration("clock-skew"), head.optional("origins")
    if not all(_ORIGIN.match(origin) for origin in origins):
        raise wrong("no web origin")
    platforms = read_platforms(head)
    found, people, machines, enrolling = _principals(head, platforms)
    if any(key.id in found for one in platforms.values() for _, key in one.keys):
        raise Refusal("POLICY_KEY_DUPLICATE", "a platform's key and somebody's")
    able = {one.owner for one in found.values() if one.person and not one.revoked}
    root = Table(head.take("root", dict), "root")
    root_people = _known(root.texts("people"), people, "person")
    threshold = root.count("threshold", root_people, able)
    root.close()
    roles: dict[str, list[str]] = {}
    for name, table in head.tables("roles"):
        roles[name] = _known(table.texts("members"), people, "person")
        table.close()
    products = {name: _product(table, roles, machines, able, platforms) for name, table in head.tables("products")}
    withdrawn = of_machines.revoked(head)
    head.close()
    head_of = (version, previous, expires, instance, skew, origins, root_people, threshold)
    policy = Policy(*head_of, found, roles, products, platforms, enrolling, withdrawn)
    _check_use(policy, machines)
    return policy
