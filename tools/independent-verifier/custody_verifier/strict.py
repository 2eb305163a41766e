"""JSON as docs/formats/statements.md, "Rules for all" and "Limits", allows it. Nothing looser is read."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Iterable, TypeVar

from .refusal import Refusal

MAX_DOCUMENT = 64 << 20
MAX_DEPTH = 32
MAX_VALUES = 4_000_000
MAX_STRING = 1 << 20
MAX_ENTRIES = 100_000
MAX_NUMBER = (1 << 64) - 1

T = TypeVar("T")
_BLANKS = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*)"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"(?:0|[1-9][0-9]*)\Z")
_WORDS = (("true", True), ("false", False), ("null", None))
# rule 2: controls except line feed and tab, what is invisible, what changes the direction of writing
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


def check_text(text: str, place: str) -> str:
    """Rule 2."""
    if _HIDDEN.search(text):
        raise Refusal("PARSE_UNICODE_INVALID", place)
    return text


def decode(data: bytes, limit: int) -> str:
    if len(data) > limit:
        raise Refusal("PARSE_SIZE_EXCEEDED", f"{len(data)} bytes")
    if data.startswith(b"\xef\xbb\xbf"):
        raise Refusal("PARSE_UNICODE_INVALID", "byte order mark")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refusal("PARSE_UNICODE_INVALID", str(error)) from None


class _Parser:
    def __init__(self, text: str, longest: int) -> None:
        self.text = text
        self.longest = longest
        self.at = 0
        self.values = 0

    def blanks(self) -> None:
        match = _BLANKS.match(self.text, self.at)
        assert match
        self.at = match.end()

    def take(self, token: str) -> bool:
        self.blanks()
        if self.text.startswith(token, self.at):
            self.at += len(token)
            return True
        return False

    def need(self, token: str) -> None:
        if not self.take(token):
            raise Refusal("PARSE_JSON_INVALID", f"no {token} at {self.at}")

    def string(self) -> str:
        self.blanks()
        match = _STRING.match(self.text, self.at)
        if not match:
            raise Refusal("PARSE_JSON_INVALID", f"no text at {self.at}")
        self.at = match.end()
        text: str = json.loads(match.group())
        if re.search("[\ud800-\udfff]", text):
            raise Refusal("PARSE_UNICODE_INVALID", f"half of a pair before {self.at}")
        if len(text.encode()) > self.longest:
            raise Refusal("PARSE_SIZE_EXCEEDED", "one string")
        return text

    def value(self, depth: int) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            raise Refusal("PARSE_COUNT_EXCEEDED", "values")
        self.blanks()
        first = self.text[self.at : self.at + 1]
        if first in ("{", "["):
            if depth == MAX_DEPTH:
                raise Refusal("PARSE_DEPTH_EXCEEDED")
            self.at += 1
            return self.object(depth + 1) if first == "{" else self.array(depth + 1)
        if first == '"':
            return self.string()
        for word, meaning in _WORDS:
            if self.take(word):
                return meaning
        match = _NUMBER.match(self.text, self.at)
        if not match:
            raise Refusal("PARSE_JSON_INVALID", f"at {self.at}")
        self.at = match.end()
        if not _WHOLE.match(match.group()) or len(match.group()) > 20 or int(match.group()) > MAX_NUMBER:
            raise Refusal("PARSE_NUMBER_UNSAFE", match.group()[:40])
        return int(match.group())

    def array(self, depth: int) -> list[Any]:
        found: list[Any] = []
        if self.take("]"):
            return found
        while True:
            if len(found) == MAX_ENTRIES:
                raise Refusal("PARSE_COUNT_EXCEEDED", "entries of a list")
            found.append(self.value(depth))
            if self.take("]"):
                return found
            self.need(",")

    def object(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if self.take("}"):
            return found
        while True:
            name = self.string()
            if name in found:
                raise Refusal("PARSE_DUPLICATE_KEY", name)
            if len(found) == MAX_ENTRIES:
                raise Refusal("PARSE_COUNT_EXCEEDED", "members of an object")
            self.need(":")
            found[name] = self.value(depth)
            if self.take("}"):
                return found
            self.need(",")


def parse(data: bytes, longest: int = MAX_STRING) -> Any:
    """One document and nothing after it, with text of at most so many bytes."""
    parser = _Parser(decode(data, MAX_DOCUMENT), longest)
    value = parser.value(0)
    parser.blanks()
    if parser.at != len(parser.text):
        raise Refusal("PARSE_TRAILING_DATA")
    return value


@dataclass
class Object:
    """A JSON object that is taken apart member by member.

    It remembers what was taken, in order: what is left over is unknown, and what was taken, written
    in that order, is what a writer would have written (rule 11). Text that is taken is looked at (rule 2),
    but in envelopes, where `any_text` may stand.
    """

    members: dict[str, Any]
    place: str
    any_text: bool = False
    taken: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, place: str, any_text: bool = False) -> "Object":
        if not isinstance(value, dict):
            raise Refusal("PARSE_FIELD_TYPE", place)
        return cls(value, place, any_text)

    def has(self, name: str) -> bool:
        return name in self.members

    def _take(self, name: str, kind: type[T]) -> T:
        if name not in self.members:
            raise Refusal("PARSE_FIELD_MISSING", f"{self.place}.{name}")
        value = self.members[name]
        if type(value) is not kind:
            raise Refusal("PARSE_FIELD_TYPE", f"{self.place}.{name}")
        self.taken[name] = value
        if isinstance(value, str) and not self.any_text:
            check_text(value, f"{self.place}.{name}")
        return value

    def _texts(self, name: str, found: Iterable[Any]) -> None:
        for entry in found:
            if not isinstance(entry, str):
                raise Refusal("PARSE_FIELD_TYPE", f"{self.place}.{name}")
            check_text(entry, f"{self.place}.{name}")

    def text(self, name: str) -> str:
        return self._take(name, str)

    def number(self, name: str) -> int:
        return self._take(name, int)

    def flag(self, name: str) -> bool:
        return self._take(name, bool)

    def object(self, name: str) -> "Object":
        inner = Object(self._take(name, dict), f"{self.place}.{name}", self.any_text)
        self.taken[name] = inner
        return inner

    def texts(self, name: str) -> list[str]:
        found = self._take(name, list)
        self._texts(name, found)
        return found

    def objects(self, name: str) -> list["Object"]:
        entries = enumerate(self._take(name, list))
        found = [Object.of(entry, f"{self.place}.{name}[{i}]", self.any_text) for i, entry in entries]
        self.taken[name] = found
        return found

    def table(self, name: str) -> dict[str, str]:
        """Text by name; written sorted by name."""
        found = self._take(name, dict)
        self._texts(name, (*found, *found.values()))
        self.taken[name] = dict(sorted(found.items()))
        return found

    def close(self, ignored: Iterable[str] = ()) -> None:
        """Nothing may be left that nobody asked for."""
        for name in self.members:
            if name not in self.taken and name not in ignored:
                raise Refusal("PARSE_UNKNOWN_FIELD", f"{self.place}.{name}")

    # what SLSA's objects allow beyond that (rule 3)

    def without_nulls(self) -> "Object":
        self.members = {name: value for name, value in self.members.items() if value is not None}
        return self

    def objects_if_there(self, name: str) -> list["Object"]:
        """A list that is not there is empty, and written so."""
        return self.objects(name) if self.has(name) else self.taken.setdefault(name, [])

    def close_slsa(self, *ignored: str) -> None:
        """The same, but for extension fields and members of SLSA that nobody here reads."""
        extensions = (name for name in self.members if "_" in name or ":" in name)
        self.close({*ignored, *extensions})


def _plain(value: Any) -> Any:
    if isinstance(value, Object):
        return {name: _plain(inner) for name, inner in value.taken.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def written(value: Object) -> bytes:
    """What Custody writes for what was taken."""
    return (json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n").encode()
