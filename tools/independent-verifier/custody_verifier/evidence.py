"""What somebody handed in. Nothing in it is believed."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Iterable, TypeVar

from . import keys
from .envelope import OF_STATEMENT, Envelope, Signed, read as read_envelope
from .refusal import Refusal
from .statements import Manifest, Statement, read as read_statement

MAX_BUNDLE = 4 << 30
MAX_LINES = 1_000_000
S = TypeVar("S", bound=Statement)


def bundle(data: bytes) -> list[Envelope]:
    """docs/formats/bundle.md, rule 1."""
    if len(data) > MAX_BUNDLE:
        raise Refusal("PARSE_SIZE_EXCEEDED", f"{len(data)} bytes")
    lines = data.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    if len(lines) > MAX_LINES:
        raise Refusal("PARSE_COUNT_EXCEEDED", f"{len(lines)} lines")
    return [read_envelope(line) for line in lines]


def joined(envelopes: Iterable[Envelope]) -> dict[str, Envelope]:
    """By statement id; the signatures of one that stands twice are joined."""
    found: dict[str, Envelope] = {}
    for one in envelopes:
        id = one.id
        if id in found:
            both = dict.fromkeys(found[id].signatures + one.signatures)
            one = Envelope(one.payload_type, one.payload, tuple(both))
        found[id] = one
    return found


@dataclass
class Document:
    """One envelope of the evidence, opened when it is needed."""

    envelope: Envelope
    known: dict[str, keys.Key]
    # keys that only enrolments name
    enrolled: dict[str, keys.Key] = field(default_factory=dict)
    # ids of everything that is there
    present: set[str] = field(default_factory=set)

    @cached_property
    def signed(self) -> tuple[list[Signed], list[Refusal]]:
        return self.envelope.signed(self.known, self.enrolled)

    @cached_property
    def opened(self) -> Statement | Refusal:
        """The payload is parsed only after a known key's signature fits (envelope.md, rule 6)."""
        if self.envelope.payload_type != OF_STATEMENT:
            return Refusal("ENV_PAYLOAD_TYPE", self.envelope.payload_type[:80])
        fitting, problems = self.signed
        if not fitting:
            return self.without_certificate() or problems[0]
        try:
            return read_statement(self.envelope.payload)[0]
        except Refusal as refusal:
            return refusal


    def without_certificate(self) -> Refusal | None:
        """A manifest by an unknown key may name a certificate that is not there."""
        try:
            found = read_statement(self.envelope.payload)[0]
        except Refusal:
            return None
        if isinstance(found, Manifest) and found.enrolment is not None and found.enrolment not in self.present:
            if all(one.code == "ENV_KEY_UNKNOWN" for one in self.signed[1]):
                return Refusal("CHAIN_LINK_MISSING", f"certificate {found.enrolment}")
        return None


@dataclass
class Evidence:
    documents: dict[str, Document] = field(default_factory=dict)

    def get(self, id: str, kind: type[S]) -> S:
        """The statement that is named; a check that needs it fails with what this raises."""
        if id not in self.documents:
            raise Refusal("CHAIN_LINK_MISSING", id)
        opened = self.documents[id].opened
        if isinstance(opened, Refusal):
            raise Refusal(opened.code, f"{id[:12]} {opened.detail}")
        if not isinstance(opened, kind):
            raise Refusal("STMT_PREDICATE_TYPE", f"{id[:12]} is no {kind.__name__}")
        return opened

    def all(self, kind: type[S]) -> dict[str, S]:
        """Every readable statement of one kind, by id."""
        return {id: one for id, one in self._by_kind.get(kind, {}).items() if isinstance(one, kind)}

    @cached_property
    def _by_kind(self) -> dict[type, dict[str, Statement]]:
        found: dict[type, dict[str, Statement]] = {}
        for id, one in sorted(self.documents.items()):
            if isinstance(one.opened, Statement):
                found.setdefault(type(one.opened), {})[id] = one.opened
        return found

    def changed(self) -> bool:
        """Whether something is there of which a known key's signature does not fit."""
        refused = (one.opened for one in self.documents.values())
        return any(isinstance(one, Refusal) and one.code == "ENV_SIGNATURE_INVALID" for one in refused)
