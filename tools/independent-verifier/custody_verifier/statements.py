"""The eight statements of docs/formats/statements.md and build-type.md: from bytes to what they say."""

import re
from dataclasses import dataclass
from typing import Callable

from . import names
from .refusal import Refusal
from .strict import MAX_ENTRIES, Object, parse, written

STATEMENT = "https://in-toto.io/Statement/v1"
BUILD_TYPE = "https://custody.dev/step/v1"
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
LEVEL = "CUSTODY_CHAIN_VERIFIED"
WEAK = ("sha1", "md5")


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


@dataclass(frozen=True)
class Release:
    product: str
    version: str
    channel: str
    instance: str


@dataclass(frozen=True)
class BuildsOn:
    step: str
    manifest: str
    artifacts: list[Artifact]


@dataclass(frozen=True)
class Statement:
    """One of the eight below."""


@dataclass(frozen=True)
class Request(Statement):
    release: Release
    phase: str
    source: Source
    policy_version: int
    policy: str
    builds_on: list[BuildsOn]
    parameters: dict[str, str]
    created: int
    expires: int


@dataclass(frozen=True)
class Signoff(Statement):
    request: str
    decision: str
    withdraws: str | None
    release: Release
    phase: str
    source: Source
    parameters: dict[str, str]
    artifacts: int
    bytes: int
    short_code: str
    person: str
    role: str
    created: int
    expires: int


@dataclass(frozen=True)
class Approver:
    person: str
    role: str
    signoff: str


@dataclass(frozen=True)
class Authorization(Statement):
    request: str
    approvers: list[Approver]
    not_before: int
    expires: int


@dataclass(frozen=True)
class TaskInput:
    task: str | None
    manifest: str | None
    directory: str
    patterns: list[str]


@dataclass(frozen=True)
class Task(Statement):
    authorization: str
    step: str
    creator: str
    command: list[str]
    destination: str | None
    variables: dict[str, str]
    network: bool
    inputs: list[TaskInput]
    source: Source | None
    externals: list[Artifact]
    outputs: list[str]
    sha512: bool
    created: int
    deadline: int


@dataclass(frozen=True)
class Used:
    """One file that a manifest says was used."""

    artifact: Artifact
    manifest: str | None


@dataclass(frozen=True)
class Manifest(Statement):
    subjects: list[Artifact]
    task: str
    step: str
    command: list[str]
    destination: str | None
    creator: str
    source: Source | None
    manifests: list[str]
    used: list[Used]
    started: int
    finished: int


@dataclass(frozen=True)
class Summary(Statement):
    subjects: list[Artifact]
    verified: int
    resource: str
    policy: str
    rests_on: set[str]
    passed: bool


@dataclass(frozen=True)
class Intent(Statement):
    task: str
    stage: str
    created: int


@dataclass(frozen=True)
class Resolution(Statement):
    task: str
    intent: str | None
    manifest: str | None
    person: str
    created: int


def _digest_set(holder: Object) -> Object:
    """Digests by name. Those that we do not know are text too, and ignored (rule 6)."""
    digest = holder.object("digest")
    if not all(isinstance(value, str) for value in digest.members.values()):
        raise Refusal("PARSE_FIELD_TYPE", digest.place)
    return digest


def _digests(holder: Object) -> Digests:
    digest = _digest_set(holder)
    if not digest.has("sha256"):
        weak = any(name in digest.members for name in WEAK)
        raise Refusal("STMT_DIGEST_ALG" if weak else "STMT_DIGEST_MISSING", digest.place)
    return Digests(
        names.digest(digest.text("sha256"), 64, digest.place),
        names.digest(digest.text("sha512"), 128, digest.place) if digest.has("sha512") else None,
    )


def _id(holder: Object) -> str:
    """A reference to a statement: sha256 and no other digest that we know (rule 7)."""
    digests = _digests(holder)
    if digests.sha512 is not None:
        raise Refusal("STMT_DIGEST_ALG", holder.place)
    return digests.sha256


def _id_text(holder: Object, name: str) -> str:
    return names.digest(holder.text(name), 64, f"{holder.place}.{name}")


def _label(holder: Object, name: str) -> str:
    return names.label(holder.text(name), f"{holder.place}.{name}")


def _time(holder: Object, name: str) -> int:
    return names.time(holder.text(name), f"{holder.place}.{name}")


def _nonce(holder: Object) -> None:
    if not re.fullmatch("[0-9a-f]{32}", holder.text("nonce")):
        raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.nonce")


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


def _artifacts(holders: list[Object], uri: bool = False, closed: bool = True) -> list[Artifact]:
    found = [_artifact(holder, uri, closed) for holder in holders]
    names.check_names([artifact.name for artifact in found])
    return found


def _source(holder: Object, closed: bool = True) -> Source:
    if holder.text("name") != "source":
        raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.name")
    uri = holder.text("uri")
    digest = _digest_set(holder)
    kinds = [kind for kind in ("gitCommit", "hgChangeset") if digest.has(kind)]
    if len(kinds) != 1:
        raise Refusal("STMT_DIGEST_MISSING", digest.place)
    revision = digest.text(kinds[0])
    digits = 64 if kinds[0] == "gitCommit" and len(revision) == 64 else 40
    names.digest(revision, digits, digest.place)
    if closed:
        holder.close()
    return Source(uri, kinds[0], revision)


def _release(holder: Object) -> Release:
    inner = holder.object("release")
    release = Release(*(_label(inner, name) for name in ("product", "version", "channel", "instance")))
    inner.close()
    return release


def _reference(subjects: list[Object], name: str) -> str:
    """The one subject of a statement about another statement."""
    if len(subjects) != 1 or subjects[0].members.get("name") != name:
        raise Refusal("PARSE_FIELD_TYPE", "subject")
    subjects[0].text("name")
    return _id(subjects[0])


def _builds_on(holder: Object) -> BuildsOn:
    found = BuildsOn(_label(holder, "step"), _id_text(holder, "manifest"), _artifacts(holder.objects("artifacts")))
    holder.close()
    return found


def _request(subjects: list[Object], predicate: Object) -> Request:
    release, phase = _release(predicate), _label(predicate, "phase")
    source = _source(predicate.object("source"))
    pipeline = predicate.object("pipeline")
    names.name(pipeline.text("path"))
    _id_text(pipeline, "sha256")
    pipeline.close()
    policy = predicate.object("policy")
    version, policy_id = policy.number("version"), _id_text(policy, "id")
    policy.close()
    builds_on = [_builds_on(entry) for entry in predicate.objects("buildsOn")]
    parameters = predicate.table("parameters")
    created, expires = _time(predicate, "created"), _time(predicate, "expires")
    _nonce(predicate)
    if len(subjects) != 1 or _source(subjects[0], closed=False) != source:
        raise Refusal("PARSE_FIELD_TYPE", "subject")
    return Request(release, phase, source, version, policy_id, builds_on, parameters, created, expires)


def _short_code(holder: Object, request: str) -> str:
    """It must be the request's (sign-off.md, "The short code")."""
    bits = int(request[:10], 16)
    code = "".join(ALPHABET[bits >> shift & 31] for shift in range(35, -5, -5))
    if holder.text("shortCode") != f"{code[:4]}-{code[4:]}":
        raise Refusal("SIGNOFF_CONTENT_MISMATCH", f"{holder.place}.shortCode")
    return code


def _signoff(subjects: list[Object], predicate: Object) -> Signoff:
    request = _reference(subjects, "request")
    decision = predicate.text("decision")
    if decision not in ("approve", "refuse", "withdraw"):
        raise Refusal("PARSE_FIELD_TYPE", f"decision {decision[:40]}")
    withdraws = _id_text(predicate, "withdraws") if predicate.has("withdraws") else None
    if (decision == "withdraw") != (withdraws is not None):
        raise Refusal("PARSE_FIELD_TYPE", "withdraws")
    found = Signoff(
        request,
        decision,
        withdraws,
        _release(predicate),
        _label(predicate, "phase"),
        _source(predicate.object("source")),
        predicate.table("parameters"),
        predicate.number("artifacts"),
        predicate.number("bytes"),
        _short_code(predicate, request),
        _label(predicate, "person"),
        _label(predicate, "role"),
        _time(predicate, "created"),
        _time(predicate, "expires"),
    )
    predicate.text("comment")
    return found


def _authorization(subjects: list[Object], predicate: Object) -> Authorization:
    request = _reference(subjects, "request")
    approvers = []
    for entry in predicate.objects("approvers"):
        approvers.append(Approver(_label(entry, "person"), _label(entry, "role"), _id_text(entry, "signoff")))
        entry.close()
    return Authorization(request, approvers, _time(predicate, "notBefore"), _time(predicate, "expires"))


def _task_input(holder: Object) -> TaskInput:
    if holder.has("task") == holder.has("manifest"):
        raise Refusal("PARSE_FIELD_MISSING", holder.place)
    task = _id_text(holder, "task") if holder.has("task") else None
    manifest = _id_text(holder, "manifest") if holder.has("manifest") else None
    directory = names.name(holder.text("directory"))
    patterns = [names.pattern(text) for text in holder.texts("patterns")]
    if not patterns:
        raise Refusal("PARSE_FIELD_MISSING", f"{holder.place}.patterns")
    holder.close()
    return TaskInput(task, manifest, directory, patterns)


def _task(subjects: list[Object], predicate: Object) -> Task:
    authorization = _reference(subjects, "authorization")
    step, creator, command = _label(predicate, "step"), predicate.text("creator"), predicate.texts("command")
    destination = predicate.text("destination") if predicate.has("destination") else None
    if bool(command) == (destination is not None):
        raise Refusal("PARSE_FIELD_TYPE", "neither or both of command and destination")
    variables = predicate.table("variables")
    network = predicate.flag("network")
    inputs = [_task_input(entry) for entry in predicate.objects("inputs")]
    source = _source(predicate.object("source")) if predicate.has("source") else None
    externals = _artifacts(predicate.objects("externals"), uri=True)
    outputs = [names.pattern(text) for text in predicate.texts("outputs")]
    sha512 = predicate.flag("sha512")
    created, deadline = _time(predicate, "created"), _time(predicate, "deadline")
    _nonce(predicate)
    return Task(
        authorization,
        step,
        creator,
        command,
        destination,
        variables,
        network,
        inputs,
        source,
        externals,
        outputs,
        sha512,
        created,
        deadline,
    )


def _parameters(holder: Object) -> tuple[str, str, list[str], str | None]:
    """`externalParameters`: closed, and what is too much in it has a code of its own."""
    if not holder.has("task"):
        raise Refusal("CHAIN_TASK_MISSING", holder.place)
    task = holder.object("task")
    if not task.has("digest"):
        raise Refusal("CHAIN_TASK_MISSING", task.place)
    if set(task.members) != {"digest"} or len(task.object("digest").members) > 1:
        raise Refusal("STMT_PARAMETER_UNEXPECTED", task.place)
    found = _id(task)
    step, command = _label(holder, "step"), holder.texts("command")
    destination = holder.text("destination") if holder.has("destination") else None
    for name in holder.members:
        if name not in holder.taken:
            raise Refusal("STMT_PARAMETER_UNEXPECTED", name)
    return found, step, command, destination


def _dependencies(holders: list[Object]) -> tuple[Source | None, list[str], list[Used]]:
    source: Source | None = None
    manifests: list[str] = []
    used: list[Used] = []
    for holder in holders:
        annotations = holder.members.get("annotations", {})
        if not isinstance(annotations, dict):
            raise Refusal("PARSE_FIELD_TYPE", f"{holder.place}.annotations")
        role = annotations.get("role")
        if role == "source":
            if source:
                raise Refusal("CHAIN_SOURCE_MISMATCH", "two sources")
            source = _source(holder, closed=False)
        elif role == "manifest":
            holder.members.get("name") is None or holder.text("name")
            manifests.append(_id(holder))
        elif role == "input":
            artifact = _artifact(holder, uri=holder.has("uri"), closed=False)
            inner = holder.taken["annotations"]
            if inner.has("manifest") == holder.has("uri"):
                raise Refusal("CHAIN_INPUT_UNACCOUNTED", holder.place)
            used.append(Used(artifact, _id_text(inner, "manifest") if inner.has("manifest") else None))
        else:
            raise Refusal("CHAIN_INPUT_UNACCOUNTED", f"{holder.place}: role {role}")
        if "annotations" not in holder.taken:
            holder.object("annotations")
        holder.taken["annotations"].text("role")
    return source, manifests, used


def _manifest(subjects: list[Object], predicate: Object) -> Manifest:
    made = _artifacts(subjects, closed=False)
    definition = predicate.object("buildDefinition")
    if definition.text("buildType") != BUILD_TYPE:
        raise Refusal("STMT_BUILD_TYPE", definition.text("buildType")[:80])
    task, step, command, destination = _parameters(definition.object("externalParameters"))
    internal = definition.object("internalParameters")
    creator = internal.text("taskCreator")
    internal.table("environment")
    internal.close()
    source, manifests, used = _dependencies(definition.objects("resolvedDependencies"))
    definition.close()
    details = predicate.object("runDetails")
    builder = details.object("builder")
    builder.text("id")
    builder.close()
    metadata = details.object("metadata")
    metadata.text("invocationId")
    started, finished = _time(metadata, "startedOn"), _time(metadata, "finishedOn")
    metadata.close()
    log = details.objects("byproducts")
    if len(log) > 1:
        raise Refusal("PARSE_COUNT_EXCEEDED", "byproducts")
    _artifacts(log)
    details.close()
    return Manifest(made, task, step, command, destination, creator, source, manifests, used, started, finished)


def _summary(subjects: list[Object], predicate: Object) -> Summary:
    made = _artifacts(subjects, closed=False)
    verifier = predicate.object("verifier")
    verifier.text("id")
    verifier.close()
    verified, resource = _time(predicate, "timeVerified"), predicate.text("resourceUri")
    policy = predicate.object("policy")
    policy.text("uri")
    policy_id = _id(policy)
    policy.close()
    rests_on = set()
    for entry in predicate.objects("inputAttestations"):
        rests_on.add(_id(entry))
        entry.close()
    passed = predicate.text("verificationResult") == "PASSED"
    passed = LEVEL in predicate.texts("verifiedLevels") and passed
    predicate.text("slsaVersion")
    return Summary(made, verified, resource, policy_id, rests_on, passed)


def _intent(subjects: list[Object], predicate: Object) -> Intent:
    task, stage = _reference(subjects, "task"), predicate.text("stage")
    if stage not in ("announced", "done"):
        raise Refusal("PARSE_FIELD_TYPE", f"stage {stage[:40]}")
    predicate.text("destination")
    _artifacts(predicate.objects("artifacts"))
    return Intent(task, stage, _time(predicate, "created"))


def _resolution(subjects: list[Object], predicate: Object) -> Resolution:
    task, word = _reference(subjects, "task"), predicate.text("resolve")
    if word not in ("resume", "supersede"):
        raise Refusal("PARSE_FIELD_TYPE", f"resolve {word[:40]}")
    intent = _id_text(predicate, "intent") if word == "resume" else None
    manifest = _id_text(predicate, "manifest") if word == "supersede" else None
    person = _label(predicate, "person")
    predicate.text("reason")
    return Resolution(task, intent, manifest, person, _time(predicate, "created"))


_READERS: dict[str, Callable[[list[Object], Object], Statement]] = {
    "https://custody.dev/release-request/v1": _request,
    "https://custody.dev/signoff/v1": _signoff,
    "https://custody.dev/authorization/v1": _authorization,
    "https://custody.dev/task/v1": _task,
    "https://slsa.dev/provenance/v1": _manifest,
    "https://slsa.dev/verification_summary/v1": _summary,
    "https://custody.dev/intent/v1": _intent,
    "https://custody.dev/resolution/v1": _resolution,
}


def read(data: bytes) -> tuple[Statement, bool]:
    """One statement, and whether the bytes are the very ones that a writer makes."""
    whole = Object.of(parse(data), "statement")
    if whole.text("_type") != STATEMENT:
        raise Refusal("STMT_TYPE", whole.text("_type")[:80])
    subjects = whole.objects("subject")
    if not subjects:
        raise Refusal("STMT_SUBJECT_EMPTY")
    if len(subjects) > MAX_ENTRIES:
        raise Refusal("PARSE_COUNT_EXCEEDED", "subjects")
    reader = _READERS.get(whole.text("predicateType"))
    if reader is None:
        raise Refusal("STMT_PREDICATE_TYPE", whole.text("predicateType")[:80])
    predicate = whole.object("predicate")
    found = reader(subjects, predicate)
    predicate.close()
    return found, written(whole) == data
