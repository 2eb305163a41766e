"""JSON as docs/formats/statements.md, "Rules for all" and "Limits", allows it. Nothing looser is read."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

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
    def __init__(self, text: str, clean: bool) -> None:
        self.text = text
        self.clean = clean
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
        if self.clean:
            if len(text.encode()) > MAX_STRING:
                raise Refusal("PARSE_SIZE_EXCEEDED", "one string")
            check_text(text, f"text before {self.at}")
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


def parse(data: bytes, clean: bool = True) -> Any:
    """One document and nothing after it. Rule 2 and the limit of one string hold where it is to be `clean`."""
    parser = _Parser(decode(data, MAX_DOCUMENT), clean)
    value = parser.value(0)
    parser.blanks()
    if parser.at != len(parser.text):
        raise Refusal("PARSE_TRAILING_DATA")
    return value


@dataclass
class Object:
    """A JSON object that is taken apart member by member.

    It remembers what was taken, in order: what is left over is unknown, and what was taken, written
    in that order, is what a writer would have written (rule 11).
    """

    members: dict[str, Any]
    place: str
    taken: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, place: str) -> "Object":
        if not isinstance(value, dict):
            raise Refusal("PARSE_FIELD_TYPE", place)
        return cls(value, place)

    def has(self, name: str) -> bool:
        return name in self.members

    def _take(self, name: str, kind: type[T]) -> T:
        if name not in self.members:
            raise Refusal("PARSE_FIELD_MISSING", f"{self.place}.{name}")
        value = self.members[name]
        if type(value) is not kind:
            raise Refusal("PARSE_FIELD_TYPE", f"{self.place}.{name}")
        self.taken[name] = value
        return value

    def text(self, name: str) -> str:
        return self._take(name, str)

    def number(self, name: str) -> int:
        return self._take(name, int)

    def flag(self, name: str) -> bool:
        return self._take(name, bool)

    def object(self, name: str) -> "Object":
        inner = Object(self._take(name, dict), f"{self.place}.{name}")
        self.taken[name] = inner
        return inner

    def texts(self, name: str) -> list[str]:
        found = self._take(name, list)
        if not all(isinstance(entry, str) for entry in found):
            raise Refusal("PARSE_FIELD_TYPE", f"{self.place}.{name}")
        return found

    def objects(self, name: str) -> list["Object"]:
        found = [Object.of(entry, f"{self.place}.{name}[{i}]") for i, entry in enumerate(self._take(name, list))]
        self.taken[name] = found
        return found

    def table(self, name: str) -> dict[str, str]:
        """Text by name; written sorted by name."""
        found = self._take(name, dict)
        if not all(isinstance(entry, str) for entry in found.values()):
            raise Refusal("PARSE_FIELD_TYPE", f"{self.place}.{name}")
        self.taken[name] = dict(sorted(found.items()))
        return found

    def close(self) -> None:
        """Nothing may be left that nobody asked for."""
        for name in self.members:
            if name not in self.taken:
                raise Refusal("PARSE_UNKNOWN_FIELD", f"{self.place}.{name}")


def _plain(value: Any) -> Any:
    if isinstance(value, Object):
        return {name: _plain(inner) for name, inner in value.taken.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value


def written(value: Object) -> bytes:
    """What Custody writes for what was taken."""
    return (json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n").encode()
