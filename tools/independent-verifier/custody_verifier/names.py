"""Names, patterns, labels, times and digests: docs/formats/statements.md, "Rules for all"."""

import re
from datetime import datetime, timezone
from functools import lru_cache

from .refusal import Refusal

MAX_NAME = 1024

_SEGMENT = re.compile(r"[A-Za-z0-9 ._\-+~@=,()\[\]#]+\Z")
_PATTERN_SEGMENT = re.compile(r"[A-Za-z0-9 ._\-+~@=,()\[\]#*]+\Z")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?\Z", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-+@]{0,99}\Z")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
_HEX = re.compile(r"[0-9a-f]*\Z")


def _path(text: str, segment: re.Pattern[str]) -> str:
    if len(text.encode()) > MAX_NAME:
        raise Refusal("ART_NAME_INVALID", f"{len(text)} characters")
    for part in text.split("/"):
        if not segment.match(part) or part in (".", "..") or part[0] in "- " or part[-1] in ". " or _DEVICE.match(part):
            raise Refusal("ART_NAME_INVALID", text)
    return text


def name(text: str) -> str:
    return _path(text, _SEGMENT)


def pattern(text: str) -> str:
    return _path(text, _PATTERN_SEGMENT)


def check_names(names: list[str]) -> None:
    """Rule 8: once, differing by more than case, and none a directory of another."""
    if len(set(names)) != len(names):
        raise Refusal("STMT_SUBJECT_DUPLICATE")
    folded = {one.lower() for one in names}
    if len(folded) != len(names):
        raise Refusal("ART_NAME_COLLISION")
    for one in folded:
        parts = one.split("/")
        for end in range(1, len(parts)):
            if "/".join(parts[:end]) in folded:
                raise Refusal("ART_NAME_COLLISION", one)


def last(text: str) -> str:
    return text.rsplit("/", 1)[-1]


@lru_cache(maxsize=4096)
def _compiled(text: str) -> re.Pattern[str]:
    whole = ""
    for part in text.split("/"):
        if part == "**":
            whole += "(?:[^/]+/)*"
        else:
            whole += "[^/]*".join(re.escape(piece) for piece in re.split(r"\*+", part)) + "/"
    return re.compile(whole + r"\Z")


def fits(text: str, patterns: list[str]) -> bool:
    return any(_compiled(one).match(text + "/") for one in patterns)


def label(text: str, place: str) -> str:
    if not _LABEL.match(text):
        raise Refusal("PARSE_FIELD_TYPE", f"{place}: {text[:40]}")
    return text


def time(text: str, place: str) -> int:
    """Seconds since 1970."""
    if not _TIME.match(text) or text < "1970":
        raise Refusal("PARSE_TIME_INVALID", f"{place}: {text[:40]}")
    try:
        return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        raise Refusal("PARSE_TIME_INVALID", f"{place}: {text}") from None


def digest(text: str, digits: int, place: str) -> str:
    if len(text) != digits or not _HEX.match(text):
        raise Refusal("STMT_DIGEST_FORMAT", f"{place}: {text[:40]}")
    return text
