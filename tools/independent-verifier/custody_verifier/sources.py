"""Rule `manifest.source`, and signatures of git: docs/formats/verification.md and build-type.md, "runDetails"."""

from __future__ import annotations

import base64
import re
from hashlib import sha1, sha256
from typing import TYPE_CHECKING, Iterator

from . import sshsig
from .envelope import Signed
from .policy import Policy
from .refusal import Refusal
from .statements import Source, Task

if TYPE_CHECKING:
    from .judge import Walk

NAMESPACE = b"git"
_ARMOUR = re.compile(
    rb"-----BEGIN SSH SIGNATURE-----\n([A-Za-z0-9+/=\n]+)\n?-----END SSH SIGNATURE-----\n?\Z"
)


def _unsigned(what: str) -> Refusal:
    return Refusal("CHAIN_SOURCE_UNSIGNED", what)


def _commit(raw: bytes, revision: str) -> tuple[bytes, bytes]:
    """The signature of a commit, and what it is over."""
    hash = sha256 if len(revision) == 64 else sha1
    if hash(b"commit %d\0" % len(raw) + raw).hexdigest() != revision:
        raise Refusal("CHAIN_SOURCE_MISMATCH", "another commit")
    head, blank, message = raw.partition(b"\n\n")
    name = b"gpgsig-sha256 " if len(revision) == 64 else b"gpgsig "
    kept: list[bytes] = []
    found: list[list[bytes]] = []
    inside = False
    for line in head.split(b"\n"):
        if inside and line.startswith(b" "):
            found[-1].append(line[1:])
            continue
        inside = line.startswith(b"gpgsig")
        if not inside:
            kept.append(line)
        elif line.startswith(name):
            found.append([line[len(name) :]])
        else:
            raise _unsigned("a signature of another kind")
    if len(found) != 1:
        raise _unsigned(f"{len(found)} signatures")
    return b"\n".join(found[0]) + b"\n", b"\n".join(kept) + blank + message


def _tag(raw: bytes, revision: str) -> tuple[bytes, bytes]:
    head = raw.split(b"\n", 3)
    right = len(head) == 4 and head[1] == b"type commit" and head[2].startswith(b"tag ")
    if not right or head[0] != b"object " + revision.encode():
        raise Refusal("CHAIN_SOURCE_MISMATCH", "no tag of this commit")
    begins = [match.start() for match in re.finditer(rb"^-----BEGIN ", raw, re.MULTILINE)]
    if len(begins) != 1:
        raise _unsigned(f"{len(begins)} signatures")
    return raw[begins[0] :], raw[: begins[0]]


def _signed(walk: Walk, raw: bytes, source: Source, policy: Policy, demand: tuple[list[str], str], task: Task) -> None:
    roles, what = demand
    signature, message = (_commit if what == "commit" else _tag)(raw, source.revision)
    match = _ARMOUR.match(signature)
    if not match:
        raise _unsigned("a signature of another kind")
    try:
        blob = base64.b64decode(match[1].replace(b"\n", b""), validate=True)
    except ValueError:
        raise _unsigned("no base64") from None
    try:
        key, word = sshsig.check(blob, message, walk.chain.known, NAMESPACE)
    except Refusal as refusal:
        raise _unsigned("another namespace") if refusal.code == "SIGNOFF_NAMESPACE" else refusal from None
    walk.counting(Signed(key, word), policy, policy.members(roles), task.created)


def check(walk: Walk, id: str) -> Iterator[Refusal]:
    manifest, context = walk.both(id)
    source, product = manifest.given.source, context.product
    if source != context.task.source:
        yield Refusal("CHAIN_SOURCE_MISMATCH", f"{source}")
    git = source is not None and source.kind == "gitCommit"
    for submodule in manifest.given.submodules:
        if not git:
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", submodule.uri)
        elif not _from(submodule.uri, product.submodules):
            yield Refusal("CHAIN_SOURCE_FORBIDDEN", submodule.uri)
    if product.signatures is None or source is None:
        return
    if not git or manifest.signed_source is None:
        yield _unsigned("no signed object, or not in git")
    else:
        _signed(walk, manifest.signed_source, source, context.policy, product.signatures, context.task)


def _from(uri: str, listed: list[str]) -> bool:
    odd = ".." in uri or any(letter in uri for letter in "%@\\")
    return any(uri == one or (one.endswith("/") and uri.startswith(one) and not odd) for one in listed)
