"""The nine statements of docs/formats/statements.md and build-type.md: from bytes to what they say.

Each class has the members of one predicate in the order in which they are written, and how each is read.
"""

import re
from dataclasses import dataclass, field, fields
from typing import Any, Callable, ClassVar, TypeVar

from . import keys, names
from .attestations import MAX_PART, Attestation, Facts
from .envelope import base64_text
from .refusal import Refusal
from .strict import Object, parse, written

STATEMENT = "https://in-toto.io/Statement/v1"
BUILD_TYPE = "https://custody.dev/step/v1"
LEVEL = "CUSTODY_CHAIN_VERIFIED"
WORKER = "https://custody.dev/worker/"
GATE = "https://custody.dev/gate/"
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
WEAK = ("sha1", "md5")
MAX_ATTESTATIONS = 8
MAX_SIGNED_SOURCE = 64 << 10
# the names of facts that tell one machine from all others
TELLING = ("instance-id", "vm-id", "pod-uid", "key")
_WORD = "[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?"
_REPOSITORY = re.compile(rf"{_WORD}(:[0-9]{{1,5}}(?=/))?(/{_WORD})*\Z")
_ESCAPE = "%(?!25|2[eE]|5[cC]|[01][0-9a-fA-F]|7[fF])[0-9a-fA-F]{2}"
_PLAIN = re.compile(rf"([!\"$&-\[\]-~]|{_ESCAPE})*\Z")
T = TypeVar("T")


def member(read: Callable[[Object, str], Any], name: str = "", optional: bool = False) -> Any:
    """A member that `read` takes from its object; `name` where it is not the field's."""
    return field(metadata={"read": read, "name": name, "optional": optional})


def _members(kind: type[T], holder: Object, **given: Any) -> T:
    for one in fields(kind):  # type: ignore[arg-type]
        if one.name not in given:
            name = one.metadata["name"] or one.name
            absent = one.metadata["optional"] and not holder.has(name)
            given[one.name] = None if absent else one.metadata["read"](holder, name)
    return kind(**given)


def _closed(kind: type[T]) -> Callable[[Object, str], T]:
    """A reader of an object with the members of a class and no other."""

    def read(holder: Object, name: str) -> T:
        inner = holder.object(name)
        found = _members(kind, inner)
        inner.close()
        return found

    return read


def _list_of(kind: type[T]) -> Callable[[Object, str], list[T]]:
    def read(holder: Object, name: str) -> list[T]:
        found = []
        for inner in holder.objects(name):
            found.append(_members(kind, inner))
            inner.close()
        return found

    return read


# small members


def _text(holder: Object, name: str) -> str:
    return holder.text(name)


def _texts(holder: Object, name: str) -> list[str]:
    return holder.texts(name)


def _table(holder: Object, name: str) -> dict[str, str]:
    return holder.table(name)


def _number(holder: Object, name: str) -> int:
    return holder.number(name)


def _flag(holder: Object, name: str) -> bool:
    return holder.flag(name)


def _name(holder: Object, name: str) -> str:
    return names.name(holder.text(name))


def _patterns(holder: Object, name: str) -> list[str]:
    return [names.pattern(text) for text in holder.texts(name)]


def _label(holder: Object, name: str) -> str:
    return names.label(holder.text(name), f"{holder.place}.{name}")


def _time(holder: Object, name: str) -> int:
    return names.time(holder.text(name), f"{holder.place}.{name}")


def _id_text(holder: Object, name: str) -> str:
    return names.digest(holder.text(name), 64, f"{holder.place}.{name}")


def _nonce(holder: Object, name: str) -> str:
    if not re.fullmatch("[0-9a-f]{32}", holder.text(name)):
        raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.{name}")
    return holder.text(name)


def _one_of(*words: str) -> Callable[[Object, str], str]:
    def read(holder: Object, name: str) -> str:
        if holder.text(name) not in words:
            raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.{name}: {holder.text(name)[:40]}")
        return holder.text(name)

    return read


# digests, artifacts, sources


@dataclass(frozen=True)
class Digests:
    sha256: str
    sha512: str | None

    def agrees(self, other: "Digests") -> bool:
        """Every digest that both sides have is equal, and both have sha256."""
        return self.sha256 == other.sha256 and (None in (self.sha512, other.sha512) or self.sha512 == other.sha512)


@dataclass(frozen=True)
class Artifact:
    name: str
    digests: Digests
    size: int
    uri: str | None = None

    def same(self, other: "Artifact") -> bool:
        return self.digests.agrees(other.digests) and self.size == other.size


@dataclass(frozen=True)
class Source:
    uri: str
    kind: str
    revision: str


def _digest_set(holder: Object) -> Object:
    """Digests by name. Those that we do not know are text too, and ignored (rule 6)."""
    holder.table("digest")
    return holder.object("digest")


def _open(holder: Object) -> Object:
    """A descriptor of in-toto or SLSA: what is not defined is ignored, and these are of their type (rule 3)."""
    _digest_set(holder)
    for name in ("name", "uri"):
        if holder.has(name):
            holder.text(name)
    if holder.has("annotations"):
        holder.object("annotations")
    holder.taken.clear()
    return holder


def _of_slsa(holders: list[Object]) -> list[Object]:
    return [_open(holder.without_nulls()) for holder in holders]


def _digests(holder: Object) -> Digests:
    digest = _digest_set(holder)
    if not digest.has("sha256"):
        weak = any(digest.has(name) for name in WEAK)
        raise Refusal("STMT_DIGEST_ALG" if weak else "STMT_DIGEST_MISSING", digest.place)
    sha256 = names.digest(digest.text("sha256"), 64, digest.place)
    return Digests(sha256, names.digest(digest.text("sha512"), 128, digest.place) if digest.has("sha512") else None)


def _id(holder: Object) -> str:
    """A reference to a statement: sha256 and no other digest that we know (rule 7)."""
    digests = _digests(holder)
    if digests.sha512 is not None:
        raise Refusal("STMT_DIGEST_ALG", holder.place)
    return digests.sha256


def _artifact(holder: Object, uri: bool = False, closed: bool = True) -> Artifact:
    if not holder.has("name"):
        raise Refusal("ART_NAME_INVALID", holder.place)
    name = names.name(holder.text("name"))
    address = holder.text("uri") if uri else None
    digests = _digests(holder)
    annotations = holder.object("annotations")
    size = annotations.number("size")
    if closed:
        annotations.close()
        holder.close()
    return Artifact(name, digests, size, address)


def _unique(found: list[Artifact]) -> list[Artifact]:
    names.check_names([artifact.name for artifact in found])
    return found


def _artifacts(holder: Object, name: str) -> list[Artifact]:
    return _unique([_artifact(one) for one in holder.objects(name)])


def _externals(holder: Object, name: str) -> list[Artifact]:
    return _unique([_artifact(one, uri=True) for one in holder.objects(name)])


def _a_source(holder: Object, closed: bool) -> Source:
    if holder.text("name") != "source":
        raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.name")
    uri = holder.text("uri")
    digest = _digest_set(holder)
    kinds = [kind for kind in ("gitCommit", "hgChangeset", "sha256") if digest.has(kind)]
    if len(kinds) != 1:
        raise Refusal("STMT_DIGEST_MISSING", digest.place)
    revision = digest.text(kinds[0])
    long = kinds[0] == "sha256" or (kinds[0] == "gitCommit" and len(revision) == 64)
    names.digest(revision, 64 if long else 40, digest.place)
    if closed:
        holder.close()
    return Source(uri, kinds[0], revision)


def _source(holder: Object, name: str) -> Source:
    return _a_source(holder.object(name), closed=True)


# attestations, and what a task asks for


def _attestation(holder: Object) -> Attestation:
    platform = names.label(holder.text("platform"), holder.place)
    parts = {}
    for name, text in holder.table("parts").items():
        parts[names.label(name, holder.place)] = base64_text(text, holder.place)
        if len(parts[name]) > MAX_PART:
            raise Refusal("PARSE_SIZE_EXCEEDED", f"{holder.place}: {name}")
    holder.close()
    return Attestation(platform, parts)


def _attestations(holder: Object, name: str) -> list[Attestation]:
    listed = holder.objects(name)
    if len(listed) > MAX_ATTESTATIONS:
        raise Refusal("PARSE_COUNT_EXCEEDED", f"{holder.place}.{name}")
    found = [_attestation(one) for one in listed]
    if len({one.platform for one in found}) < len(found):
        raise Refusal("STMT_SUBJECT_DUPLICATE", f"{holder.place}.{name}")
    return found


@dataclass(frozen=True)
class Image:
    """The image that a task wants: a digest, or the place of an archive."""

    digest: str | None
    place: str | None


@dataclass(frozen=True)
class UsedImage:
    name: str
    id: str
    manifest: str | None

    def is_it(self, digest: str) -> bool:
        return digest in (self.id, self.manifest)


def _repository(text: str, place: str) -> None:
    if len(text) > 255 or not _REPOSITORY.match(text):
        raise Refusal("PARSE_FIELD_TYPE", f"{place}: {text[:80]}")


def _image(holder: Object, name: str) -> Image:
    inner = holder.object(name)
    if inner.has("input"):
        found = Image(None, _name(inner, "input"))
    else:
        _repository(inner.text("name") if inner.has("name") else "", inner.place)
        found = Image(_id(inner), None)
        if len(inner.members["digest"]) != 1:
            raise Refusal("PARSE_UNKNOWN_FIELD", f"{inner.place}.digest")
    inner.close()
    return found


@dataclass(frozen=True)
class Downloads:
    starts: list[str]
    pinned: list[Artifact] | None

    def covers(self, uri: str) -> bool:
        """build-type.md, "Covered"."""
        below = any(uri == one or (one.endswith("/") and uri.startswith(one)) for one in self.starts)
        return below and bool(_PLAIN.match(uri)) and ".." not in uri


def _downloads(holder: Object, name: str) -> Downloads:
    inner = holder.object(name)
    starts, pinned = inner.texts("from"), None
    if inner.has("pinned"):
        pinned = []
        for one in inner.objects("pinned"):
            uri, digests, annotations = one.text("uri"), _digests(one), one.object("annotations")
            pinned.append(Artifact("", digests, annotations.number("size"), uri))
            annotations.close()
            one.close()
    inner.close()
    return Downloads(starts, pinned)


def _limits(holder: Object, name: str) -> dict[str, int]:
    inner = holder.object(name)
    found = {one: inner.number(one) for one in ("memory", "processes", "output") if inner.has(one)}
    inner.close()
    return found


# the statements


@dataclass(frozen=True)
class Statement:
    """One of the eight below, and the name of what it is about, if that is a statement."""

    ABOUT: ClassVar[str] = ""


@dataclass(frozen=True)
class Release:
    product: str = member(_label)
    version: str = member(_label)
    channel: str = member(_label)
    instance: str = member(_label)


@dataclass(frozen=True)
class Pipeline:
    path: str = member(_name)
    sha256: str = member(_id_text)


@dataclass(frozen=True)
class NamedPolicy:
    version: int = member(_number)
    id: str = member(_id_text)


@dataclass(frozen=True)
class BuildsOn:
    step: str = member(_label)
    manifest: str = member(_id_text)
    artifacts: int = member(_number)
    bytes: int = member(_number)


def _builds_on(holder: Object, name: str) -> list[BuildsOn]:
    found = _list_of(BuildsOn)(holder, name)
    if len({one.manifest for one in found}) < len(found):
        raise Refusal("STMT_SUBJECT_DUPLICATE", f"{holder.place}.{name}")
    return found


@dataclass(frozen=True)
class Request(Statement):
    release: Release = member(_closed(Release))
    phase: str = member(_label)
    source: Source = member(_source)
    pipeline: Pipeline = member(_closed(Pipeline))
    policy: NamedPolicy = member(_closed(NamedPolicy))
    builds_on: list[BuildsOn] = member(_builds_on, "buildsOn")
    parameters: dict[str, str] = member(_table)
    created: int = member(_time)
    expires: int = member(_time)
    nonce: str = member(_nonce)


@dataclass(frozen=True)
class Signoff(Statement):
    ABOUT = "request"
    about: str
    decision: str = member(_one_of("approve", "refuse", "withdraw"))
    withdraws: str | None = member(_id_text, optional=True)
    release: Release = member(_closed(Release))
    phase: str = member(_label)
    source: Source = member(_source)
    parameters: dict[str, str] = member(_table)
    artifacts: int = member(_number)
    bytes: int = member(_number)
    short_code: str = member(_text, "shortCode")
    person: str = member(_label)
    role: str = member(_label)
    created: int = member(_time)
    expires: int = member(_time)
    comment: str = member(_text)

    def __post_init__(self) -> None:
        if (self.decision == "withdraw") != (self.withdraws is not None):
            raise Refusal("PARSE_FIELD_TYPE", "withdraws")
        if self.short_code != short_code(self.about):
            raise Refusal("SIGNOFF_CONTENT_MISMATCH", f"short code {self.short_code[:40]}")


@dataclass(frozen=True)
class Approver:
    person: str = member(_label)
    role: str = member(_label)
    signoff: str = member(_id_text)


@dataclass(frozen=True)
class Authorization(Statement):
    ABOUT = "request"
    about: str
    approvers: list[Approver] = member(_list_of(Approver))
    not_before: int = member(_time, "notBefore")
    expires: int = member(_time)


@dataclass(frozen=True)
class TaskInput:
    task: str | None = member(_id_text, optional=True)
    manifest: str | None = member(_id_text, optional=True)
    directory: str = member(_name)
    patterns: list[str] = member(_patterns)

    def __post_init__(self) -> None:
        if (self.task is None) == (self.manifest is None) or not self.patterns:
            raise Refusal("PARSE_FIELD_MISSING", "an input without patterns, or without one of task and manifest")


@dataclass(frozen=True)
class Task(Statement):
    ABOUT = "authorization"
    about: str
    step: str = member(_label)
    creator: str = member(_text)
    command: list[str] = member(_texts)
    image: Image | None = member(_image, optional=True)
    limits: dict[str, int] | None = member(_limits, optional=True)
    destination: str | None = member(_text, optional=True)
    variables: dict[str, str] = member(_table)
    network: bool = member(_flag)
    downloads: Downloads | None = member(_downloads, optional=True)
    inputs: list[TaskInput] = member(_list_of(TaskInput))
    source: Source | None = member(_source, optional=True)
    externals: list[Artifact] = member(_externals)
    outputs: list[str] = member(_patterns)
    sha512: bool = member(_flag)
    created: int = member(_time)
    deadline: int = member(_time)
    nonce: str = member(_nonce)

    def __post_init__(self) -> None:
        if bool(self.command) == (self.destination is not None):
            raise Refusal("PARSE_FIELD_TYPE", "neither or both of command and destination")


@dataclass(frozen=True)
class Intent(Statement):
    ABOUT = "task"
    about: str
    stage: str = member(_one_of("announced", "done"))
    destination: str = member(_text)
    artifacts: list[Artifact] = member(_artifacts)
    created: int = member(_time)


@dataclass(frozen=True)
class Resolution(Statement):
    ABOUT = "task"
    about: str
    resolve: str = member(_one_of("resume", "supersede"))
    intent: str | None = member(_id_text, optional=True)
    manifest: str | None = member(_id_text, optional=True)
    person: str = member(_label)
    reason: str = member(_text)
    created: int = member(_time)

    def __post_init__(self) -> None:
        wanted, other = (self.intent, self.manifest) if self.resolve == "resume" else (self.manifest, self.intent)
        if other is not None:
            raise Refusal("PARSE_UNKNOWN_FIELD", "the member of the other word")
        if wanted is None:
            raise Refusal("PARSE_FIELD_MISSING", "the member of the word")


@dataclass(frozen=True)
class Used:
    """One file that a manifest says was used."""

    artifact: Artifact
    manifest: str | None
    download: bool = False


@dataclass(frozen=True)
class Given:
    """Everything that a manifest says was given, by role."""

    source: Source | None = None
    submodules: list[Source] = field(default_factory=list)
    manifests: list[str] = field(default_factory=list)
    agreeing: list[str] = field(default_factory=list)
    image: UsedImage | None = None
    used: list[Used] = field(default_factory=list)


@dataclass(frozen=True)
class Manifest(Statement):
    subjects: list[Artifact]
    task: str
    step: str
    command: list[str]
    destination: str | None
    creator: str
    environment: dict[str, str]
    attestations: list[Attestation]
    enrolment: str | None
    signed_source: bytes | None
    given: Given
    started: int
    finished: int
    builder: str


@dataclass(frozen=True)
class Summary(Statement):
    subjects: list[Artifact]
    verified: int
    resource: str
    policy: str
    rests_on: set[str]
    passed: bool
    verifier: str


@dataclass(frozen=True)
class Enrolment(Statement):
    ABOUT = "key"
    about: str
    machine: str = member(_label)
    key: keys.Key = member(lambda holder, name: _plain_key(holder.text(name)))
    challenge: str = member(_id_text)
    possession: bytes = member(lambda holder, name: base64_text(holder.text(name), name))
    attestations: list[Attestation] = member(_attestations)
    facts: dict[str, str] = member(_table)
    begins: int = member(_time, "from")
    ends: int = member(_time, "until")

    def __post_init__(self) -> None:
        if self.about != self.key.id:
            raise Refusal("CHAIN_DIGEST_MISMATCH", self.about)
        if self.ends <= self.begins:
            raise Refusal("CHAIN_TIME_ORDER", "until")

    @property
    def message(self) -> bytes:
        """What `possession` signs."""
        kind = b"application/vnd.custody.possession"
        lines = ("https://custody.dev/enrolment/v1", self.challenge, self.machine, self.key.id)
        text = "".join(f"{line}\n" for line in lines).encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(text), text)

    @property
    def telling(self) -> Facts:
        """The facts that tell one machine from all others."""
        return {name: value for name, value in self.facts.items() if name.partition(".")[2] in TELLING}


def _plain_key(text: str) -> keys.Key:
    key = keys.parse(text)
    if key.application is not None:
        raise Refusal("POLICY_KEY_WEAK", "a security key")
    return key


def short_code(request: str) -> str:
    """sign-off.md, "The short code"."""
    bits = int(request[:10], 16)
    code = "".join(ALPHABET[bits >> shift & 31] for shift in range(35, -5, -5))
    return f"{code[:4]}-{code[4:]}"


def _parameters(holder: Object) -> tuple[str, str, list[str], str | None]:
    """`externalParameters`: closed, and what is too much in it has a code of its own."""
    task = holder.object("task") if holder.has("task") else None
    if task is None or not task.has("digest"):
        raise Refusal("CHAIN_TASK_MISSING", holder.place)
    if set(task.members) != {"digest"} or len(task.object("digest").members) > 1:
        raise Refusal("STMT_PARAMETER_UNEXPECTED", task.place)
    found = _id(task)
    step, command = _label(holder, "step"), holder.texts("command")
    destination = holder.text("destination") if holder.has("destination") else None
    for name in holder.members:
        if name not in holder.taken:
            raise Refusal("STMT_PARAMETER_UNEXPECTED", name)
    return found, step, command, destination


def _dependencies(holders: list[Object]) -> Given:
    found: dict[str, Any] = {"source": None, "image": None}
    found |= {"submodules": [], "manifests": [], "agreeing": [], "used": []}
    paths: list[str] = []
    for holder in holders:
        role = holder.members.get("annotations", {}).get("role")
        if role == "source":
            if found["source"]:
                raise Refusal("CHAIN_SOURCE_MISMATCH", "two sources")
            found["source"] = _a_source(holder, closed=False)
        elif role == "submodule":
            paths.append(_name(holder, "name"))
            found["submodules"].append(_submodule(holder))
        elif role in ("manifest", "agreeing"):
            if holder.has("name"):
                holder.text("name")
            found["manifests" if role == "manifest" else "agreeing"].append(_id(holder))
        elif role == "image":
            if found["image"]:
                raise Refusal("WORKER_IMAGE_MISMATCH", "two images")
            found["image"] = _used_image(holder)
        elif role == "input":
            artifact = _artifact(holder, uri=holder.has("uri"), closed=False)
            inner = holder.taken["annotations"]
            if inner.has("manifest") == holder.has("uri"):
                raise Refusal("CHAIN_INPUT_UNACCOUNTED", holder.place)
            found["used"].append(Used(artifact, _id_text(inner, "manifest") if inner.has("manifest") else None))
        elif role == "download":
            if not holder.has("uri"):
                raise Refusal("CHAIN_INPUT_UNACCOUNTED", holder.place)
            found["used"].append(Used(_artifact(holder, uri=True, closed=False), None, download=True))
        else:
            raise Refusal("CHAIN_INPUT_UNACCOUNTED", f"{holder.place}: role {role}")
        if "annotations" not in holder.taken:
            holder.object("annotations")
        holder.taken["annotations"].text("role")
    if len({path.lower() for path in paths}) < len(paths):
        raise Refusal("ART_NAME_COLLISION", "two submodules at one path")
    return Given(**found)


def _submodule(holder: Object) -> Source:
    uri, digest = holder.text("uri"), _digest_set(holder)
    if not digest.has("gitCommit"):
        raise Refusal("STMT_DIGEST_MISSING", digest.place)
    revision = digest.text("gitCommit")
    names.digest(revision, 64 if len(revision) == 64 else 40, digest.place)
    return Source(uri, "gitCommit", revision)


def _used_image(holder: Object) -> UsedImage:
    name, id, annotations = holder.text("name"), _digests(holder).sha256, holder.object("annotations")
    manifest = _id_text(annotations, "manifestDigest") if annotations.has("manifestDigest") else None
    annotations.text("platform")
    return UsedImage(name, id, manifest)


def _manifest(subjects: list[Object], predicate: Object) -> Manifest:
    made = _unique([_artifact(subject, closed=False) for subject in subjects])
    definition = predicate.without_nulls().object("buildDefinition").without_nulls()
    if definition.text("buildType") != BUILD_TYPE:
        raise Refusal("STMT_BUILD_TYPE", definition.text("buildType")[:80])
    parameters = _parameters(definition.object("externalParameters"))
    internal = definition.object("internalParameters").without_nulls()
    creator = internal.text("taskCreator")
    environment = internal.table("environment")
    attested = _attestations(internal, "attestations") if internal.has("attestations") else []
    enrolment = _id_text(internal, "enrolment") if internal.has("enrolment") else None
    signed_source = base64_text(internal.text("signedSource"), "signedSource") if internal.has("signedSource") else None
    if signed_source is not None and len(signed_source) > MAX_SIGNED_SOURCE:
        raise Refusal("PARSE_SIZE_EXCEEDED", "signedSource")
    given = _dependencies(_of_slsa(definition.objects_if_there("resolvedDependencies")))
    details = predicate.object("runDetails").without_nulls()
    builder = details.object("builder").without_nulls()
    named = builder.text("id")
    metadata = details.object("metadata").without_nulls()
    metadata.text("invocationId")
    times = _time(metadata, "startedOn"), _time(metadata, "finishedOn")
    logs = _of_slsa(details.objects_if_there("byproducts"))
    if len([_artifact(log, closed=False) for log in logs]) > 1:
        raise Refusal("PARSE_COUNT_EXCEEDED", "byproducts")
    builder.close_slsa("version", "builderDependencies")
    for holder in (internal, definition, metadata, details, predicate):
        holder.close_slsa()
    return Manifest(made, *parameters, creator, environment, attested, enrolment, signed_source, given, *times, named)


def _summary(subjects: list[Object], predicate: Object) -> Summary:
    made = _unique([_artifact(subject, closed=False) for subject in subjects])
    verifier = predicate.without_nulls().object("verifier").without_nulls()
    named = verifier.text("id")
    verified, resource = _time(predicate, "timeVerified"), predicate.text("resourceUri")
    policy = _open(predicate.object("policy").without_nulls())
    policy.text("uri")
    policy_id = _id(policy)
    rests_on = {_id(entry) for entry in _of_slsa(predicate.objects_if_there("inputAttestations"))}
    result = _one_of("PASSED", "FAILED")(predicate, "verificationResult")
    passed = LEVEL in predicate.texts("verifiedLevels") and result == "PASSED"
    verifier.close_slsa("version")
    predicate.close_slsa("dependencyLevels", "slsaVersion")
    predicate.taken["slsaVersion"] = "1.1"
    return Summary(made, verified, resource, policy_id, rests_on, passed, named)


def _own(kind: type[Statement]) -> Callable[[list[Object], Object], Statement]:
    """A reader of a predicate of our own."""

    def read(subjects: list[Object], predicate: Object) -> Statement:
        if len(subjects) != 1 or subjects[0].members.get("name") != kind.ABOUT:
            raise Refusal("PARSE_FIELD_TYPE", "subject")
        subjects[0].text("name")
        found = _members(kind, predicate, about=_id(subjects[0]))
        predicate.close()
        return found

    return read


def _request(subjects: list[Object], predicate: Object) -> Request:
    request = _members(Request, predicate)
    predicate.close()
    if len(subjects) != 1 or _a_source(subjects[0], closed=False) != request.source:
        raise Refusal("PARSE_FIELD_TYPE", "subject")
    return request


_READERS: dict[str, Callable[[list[Object], Object], Statement]] = {
    "https://custody.dev/release-request/v1": _request,
    "https://custody.dev/signoff/v1": _own(Signoff),
    "https://custody.dev/authorization/v1": _own(Authorization),
    "https://custody.dev/task/v1": _own(Task),
    "https://slsa.dev/provenance/v1": _manifest,
    "https://slsa.dev/verification_summary/v1": _summary,
    "https://custody.dev/intent/v1": _own(Intent),
    "https://custody.dev/resolution/v1": _own(Resolution),
    "https://custody.dev/enrolment/v1": _own(Enrolment),
}


def read(data: bytes) -> tuple[Statement, bool]:
    """One statement, and whether the bytes are the very ones that a writer makes."""
    whole = Object.of(parse(data), "statement")
    if whole.text("_type") != STATEMENT:
        raise Refusal("STMT_TYPE", whole.text("_type")[:80])
    subjects = [_open(subject) for subject in whole.objects("subject")]
    if not subjects:
        raise Refusal("STMT_SUBJECT_EMPTY")
    reader = _READERS.get(whole.text("predicateType"))
    if reader is None:
        raise Refusal("STMT_PREDICATE_TYPE", whole.text("predicateType")[:80])
    predicate = whole.object("predicate")
    found = reader(subjects, predicate)
    return found, written(whole) == data
