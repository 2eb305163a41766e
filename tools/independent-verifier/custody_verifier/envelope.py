"""Envelopes: docs/formats/envelope.md."""

import base64
import hashlib
import re
from dataclasses import dataclass

from . import keys, sshsig
from .refusal import Refusal
from .strict import MAX_DOCUMENT, Object, parse

OF_STATEMENT = "application/vnd.in-toto+json"
OF_POLICY = "application/vnd.custody.policy+toml"
MAX_SIGNATURES = 64
MAX_KEYID = 256
MAX_TRIED = 1024
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}\Z")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}\Z")


@dataclass(frozen=True)
class Signature:
    keyid: str
    blob: bytes


@dataclass(frozen=True)
class Signed:
    """A signature that fits: by which known key, and what it says besides."""

    key: keys.Key
    word: sshsig.Word | None


@dataclass(frozen=True)
class Envelope:
    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    @property
    def pae(self) -> bytes:
        kind = self.payload_type.encode()
        return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(self.payload), self.payload)

    @property
    def id(self) -> str:
        return hashlib.sha256(self.pae).hexdigest()

    def signed(
        self, known: dict[str, keys.Key], enrolled: dict[str, keys.Key] = {}
    ) -> tuple[list[Signed], list[Refusal]]:
        """Which known keys signed, and why the other signatures do not count.

        Keys that only enrolments name are looked at where a signature names them.
        """
        fitting: list[Signed] = []
        problems: list[Refusal] = []
        message = self.pae
        for signature in self.signatures:
            try:
                named = {id: key for id, key in enrolled.items() if id == signature.keyid and id not in known}
                fitting.append(_fitting(signature, message, known | named))
            except Refusal as refusal:
                problems.append(refusal)
        return fitting, problems


def _fitting(signature: Signature, message: bytes, known: dict[str, keys.Key]) -> Signed:
    named = known.get(signature.keyid)
    if signature.blob.startswith(sshsig.MAGIC):
        # the key inside says which is meant, whatever the key id says
        return Signed(*sshsig.check(signature.blob, message, known))
    if named is not None:
        if named.application is not None:
            raise Refusal("ENV_ALG_FORBIDDEN", "security keys make no plain signature")
        tried = [named]
    else:
        tried = list(known.values())[:MAX_TRIED]
    for key in tried:
        if keys.fits(key, signature.blob, message):
            return Signed(key, None)
    raise Refusal("ENV_SIGNATURE_INVALID" if named else "ENV_KEY_UNKNOWN", signature.keyid[:80])


def base64_text(text: str, place: str) -> bytes:
    """Rule 4: one alphabet or the other, padded, and no loose bits."""
    if len(text) % 4 == 0 and (_BASE64.match(text) or _BASE64URL.match(text)):
        standard = text.replace("-", "+").replace("_", "/")
        data = base64.b64decode(standard)
        if base64.b64encode(data).decode() == standard:
            return data
    raise Refusal("PARSE_BASE64_INVALID", place)


def read(data: bytes) -> Envelope:
    whole = Object.of(parse(data, longest=MAX_DOCUMENT), "envelope", any_text=True)
    payload_type = whole.text("payloadType")
    payload = base64_text(whole.text("payload"), "payload")
    if not whole.has("signatures"):
        raise Refusal("ENV_NO_SIGNATURE")
    entries = whole.objects("signatures")
    if not entries:
        raise Refusal("ENV_NO_SIGNATURE")
    if len(entries) > MAX_SIGNATURES:
        raise Refusal("PARSE_COUNT_EXCEEDED", "signatures")
    signatures = []
    for entry in entries:
        keyid = entry.text("keyid") if entry.has("keyid") else ""
        if len(keyid.encode()) > MAX_KEYID:
            raise Refusal("PARSE_SIZE_EXCEEDED", "keyid")
        signatures.append(Signature(keyid, base64_text(entry.text("sig"), "sig")))
    return Envelope(payload_type, payload, tuple(signatures))
