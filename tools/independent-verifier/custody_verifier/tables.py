"""Tables of a policy, taken apart member by member: docs/formats/policy.md, "Rules"."""

import re
from typing import Any, Callable, Iterable, TypeVar

from . import names
from .refusal import Refusal

T = TypeVar("T")
_DURATION = re.compile(r"([0-9]+)([smhd])\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def wrong(what: str) -> Refusal:
    return Refusal("POLICY_INVALID", what)


class Table:
    """A table of which every member must be asked for."""

    def __init__(self, value: Any, place: str) -> None:
        if type(value) is not dict:
            raise wrong(f"{place} is no table")
        self.left = dict(value)
        self.place = place

    def take(self, name: str, kind: type[T]) -> T:
        if name not in self.left:
            raise wrong(f"{self.place} has no {name}")
        value = self.left.pop(name)
        if type(value) is not kind:
            raise wrong(f"{self.place}.{name} is of another type")
        return value

    def option(self, name: str, kind: type, otherwise: Any) -> Any:
        return self.take(name, kind) if name in self.left else otherwise

    def entries(self, name: str, empty: bool = False) -> list[Any]:
        found = self.take(name, list)
        if not found and not empty:
            raise wrong(f"{self.place}.{name} is empty")
        if any(found.count(entry) > 1 for entry in found):
            raise wrong(f"{self.place}.{name} names something twice")
        return found

    def texts(self, name: str, empty: bool = False) -> list[str]:
        found = self.entries(name, empty)
        if any(type(entry) is not str for entry in found):
            raise wrong(f"{self.place}.{name} has what is not text")
        return found

    def optional(self, name: str) -> list[str]:
        return self.texts(name, empty=True) if name in self.left else []

    def tables(self, name: str) -> Iterable[tuple[str, "Table"]]:
        for inner, value in self.take(name, dict).items():
            yield checked(names.label, inner, self.place), Table(value, f"{self.place}.{name}.{inner}")

    def time(self, name: str) -> int | None:
        text = self.option(name, str, None)
        return None if text is None else checked(names.time, text, name)

    def duration(self, name: str) -> int:
        match = _DURATION.match(self.take(name, str))
        seconds = int(match[1]) * _SECONDS[match[2]] if match else 0
        if not 0 < seconds < 1 << 64:
            raise wrong(f"{self.place}.{name} is no duration")
        return seconds

    def count(self, name: str, people: Iterable[str], able: set[str]) -> int:
        found: int = self.take(name, int)
        if not 1 <= found <= len(able.intersection(people)):
            raise wrong(f"{self.place}.{name} is not from 1 to the number of people who can sign")
        return found

    def close(self) -> None:
        if self.left:
            raise wrong(f"{self.place} has {sorted(self.left)}")


def checked(check: Callable[..., Any], *arguments: Any) -> Any:
    """What is wrong in form has one code in a policy."""
    try:
        return check(*arguments)
    except Refusal as refusal:
        raise wrong(str(refusal)) from None
