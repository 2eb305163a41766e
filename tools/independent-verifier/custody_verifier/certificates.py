"""Certificates and chains of them: docs/formats/attestations.md, "Certificates"."""

import base64
import re
from dataclasses import dataclass
from datetime import datetime, timezone

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from . import der, keys
from .der import wrong
from .refusal import Refusal

SIGNATURES, CERTIFICATES = 0, 5
_BLANK = "[ \t\r\n]"
_PEM = re.compile(
    f"{_BLANK}*-----BEGIN CERTIFICATE-----((?:[A-Za-z0-9+/=]|{_BLANK})+)-----END CERTIFICATE-----{_BLANK}*"
)
_HOST = re.compile(b"[A-Za-z0-9._*-]*")
MAX_LISTED = 64
VERSION_3 = b"\x02\x01\x02"
_RSA: dict[str, hashes.HashAlgorithm] = {
    "2a864886f70d01010b": hashes.SHA256(),
    "2a864886f70d01010c": hashes.SHA384(),
    "2a864886f70d01010d": hashes.SHA512(),
}
_ECDSA = {"2a8648ce3d040302": ("secp256r1", hashes.SHA256()), "2a8648ce3d040303": ("secp384r1", hashes.SHA384())}
_ED25519 = "2b6570"
_BASIC, _USAGE, _PURPOSES, _NAMES, _CONSTRAINTS = "551d13", "551d0f", "551d25", "551d11", "551d1e"


@dataclass(frozen=True)
class Certificate:
    signed: bytes
    algorithm: bytes
    signature: bytes
    issuer: bytes
    subject: bytes
    begins: int
    ends: int
    key: keys.Key
    authority: bool
    path_length: int | None
    usage: bytes | None
    purposes: list[str] | None
    names: list[str]

    def holds(self, at: int) -> bool:
        return self.begins <= at <= self.ends

    def may(self, bit: int) -> bool:
        """Whether its key usage, if it says one, has this bit."""
        return self.usage is None or (bit // 8 < len(self.usage) and bool(self.usage[bit // 8] & 0x80 >> bit % 8))

    def leaf(self, purpose: str, at: int) -> bool:
        """Whether it may sign what is not a certificate, for this purpose."""
        purposes = self.purposes is None or purpose in self.purposes
        return not self.authority and self.may(SIGNATURES) and purposes and self.holds(at)

    def signed_by(self, other: "Certificate", below: int) -> bool:
        """Whether the next one of a chain, with so many authorities below it, made this one (rule 3)."""
        short = other.path_length is not None and other.path_length < below
        if self.issuer != other.subject or not other.authority or short or not other.may(CERTIFICATES):
            return False
        return _fits(other.key.public, self.algorithm, self.signature, self.signed)


def _fits(public: keys.Public, algorithm: bytes, signature: bytes, message: bytes) -> bool:
    reader = der.Reader(algorithm)
    oid, parameters = reader.take(der.OID).hex(), reader.data[reader.at :]
    if parameters not in (b"", b"\x05\x00"):
        return False
    try:
        if isinstance(public, rsa.RSAPublicKey) and oid in _RSA:
            public.verify(signature, message, padding.PKCS1v15(), _RSA[oid])
        elif isinstance(public, ec.EllipticCurvePublicKey) and _ECDSA.get(oid, ("",))[0] == public.curve.name:
            public.verify(signature, message, ec.ECDSA(_ECDSA[oid][1]))
        elif isinstance(public, ed25519.Ed25519PublicKey) and oid == _ED25519 and not parameters:
            return keys.fits_ed25519(public, signature, message)
        else:
            return False
        return True
    except InvalidSignature:
        return False


def _time(reader: der.Reader) -> int:
    tag, content, _ = reader.element()
    text = content.decode("latin-1")
    if tag == 0x17 and re.fullmatch("[0-9]{12}Z", text):
        text = ("19" if text >= "5" else "20") + text
    elif tag != 0x18 or not re.fullmatch("[0-9]{14}Z", text):
        raise wrong("a time that is none")
    try:
        found = int(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        raise wrong("a time that is none") from None
    if found < 0:
        raise wrong("a time before 1970")
    return found


def _usage(content: bytes) -> bytes:
    """Rule 8."""
    unused, bits = content[:1], content[1:]
    if unused > b"\x07" or not any(bits) or bits[-1] % (1 << unused[0]):
        raise wrong("a key usage that is none")
    return bits


def _number(content: bytes) -> int:
    """Rule 7."""
    if not content or content[0] > 0x7F or (content[0] == 0 and content[1:2] < b"\x80" and len(content) > 1):
        raise wrong("a path length that is none")
    return int.from_bytes(content, "big")


def _key(spki: bytes, least: int) -> keys.Key:
    try:
        key = keys.of(serialization.load_der_public_key(spki), least=least)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise wrong(f"no key: {error}") from None
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    if key.public.public_bytes(serialization.Encoding.DER, form) != spki:
        raise wrong("not the one form of this key")
    return key


def _extensions(data: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    listed = der.one(data, der.SEQUENCE)
    while not listed.empty:
        entry = listed.inner(der.SEQUENCE)
        oid = entry.take(der.OID).hex()
        critical = entry.flag()
        value = entry.take(der.OCTETS)
        entry.end()
        if oid in found or oid == _CONSTRAINTS or (critical and oid not in (_BASIC, _USAGE, _PURPOSES, _NAMES)):
            raise wrong(f"extension {oid}")
        found[oid] = value
    if len(found) > MAX_LISTED:
        raise wrong("too many extensions")
    return found


def _hosts(found: list[bytes]) -> list[str]:
    return [name.decode() for name in found if _HOST.fullmatch(name)]


def _common_names(subject: bytes) -> list[bytes]:
    found = []
    listed = der.Reader(subject)
    while not listed.empty:
        several = listed.inner(der.SET)
        while not several.empty:
            pair = several.inner(der.SEQUENCE)
            oid, value = pair.take(der.OID).hex(), pair.element()[1]
            pair.end()
            if oid == "550403":
                found.append(value)
    return found


def _dns_names(data: bytes) -> list[bytes]:
    found = []
    listed = der.one(data, der.SEQUENCE)
    while not listed.empty:
        tag, content, _ = listed.element()
        found.append((tag, content))
    if len(found) > MAX_LISTED:
        raise wrong("too many names")
    return [content for tag, content in found if tag == 0x82]


def read(data: bytes, least: int = 2048) -> Certificate:
    """Rules 1 and 5 to 11."""
    outer = der.one(data, der.SEQUENCE)
    signed = outer.whole(der.SEQUENCE)
    algorithm = outer.take(der.SEQUENCE)
    signature = outer.take(der.BITS)
    outer.end()
    if signature[:1] != b"\0":
        raise wrong("a signature that is none")
    body = der.one(signed, der.SEQUENCE)
    version = body.option(0xA0)
    body.take(der.INTEGER)
    if body.take(der.SEQUENCE) != algorithm:
        raise wrong("two algorithms")
    issuer = body.take(der.SEQUENCE)
    validity = body.inner(der.SEQUENCE)
    begins, ends = _time(validity), _time(validity)
    validity.end()
    subject = body.take(der.SEQUENCE)
    key = _key(body.whole(der.SEQUENCE), least)
    listed = body.option(0xA3)
    body.end()
    if listed is not None and version != VERSION_3:
        raise wrong("extensions in an old version")
    extensions = _extensions(listed) if listed is not None else {}
    authority, path_length = False, None
    if _BASIC in extensions:
        basic = der.one(extensions[_BASIC], der.SEQUENCE)
        authority = basic.flag()
        most = basic.option(der.INTEGER)
        path_length = None if most is None else _number(most)
        basic.end()
    usage = None
    if _USAGE in extensions:
        reader = der.Reader(extensions[_USAGE])
        usage = _usage(reader.take(der.BITS))
        reader.end()
    purposes = None
    if _PURPOSES in extensions:
        several, purposes = der.one(extensions[_PURPOSES], der.SEQUENCE), []
        while not several.empty:
            purposes.append(several.take(der.OID).hex())
        if len(purposes) > MAX_LISTED:
            raise wrong("too many purposes")
    common = _common_names(subject)
    listed_names = _dns_names(extensions[_NAMES]) if _NAMES in extensions else common if len(common) == 1 else []
    made = (signed, algorithm, signature[1:], issuer, subject, begins, ends)
    return Certificate(*made, key, authority, path_length, usage, purposes, _hosts(listed_names))


def from_pem(text: str, least: int = 2048) -> Certificate:
    """One certificate as a policy has it."""
    match = _PEM.fullmatch(text)
    try:
        if not match:
            raise ValueError("not one certificate")
        text = "".join(match[1].split())
        found = base64.b64decode(text, validate=True)
        if base64.b64encode(found).decode() != text:
            raise ValueError("loose base64")
        return read(found, least)
    except ValueError as error:
        raise Refusal("POLICY_INVALID", str(error)) from None
    except Refusal as refusal:
        code = "POLICY_KEY_WEAK" if refusal.code == "POLICY_KEY_WEAK" else "POLICY_INVALID"
        raise Refusal(code, refusal.detail) from None


def leads(leaf: Certificate, between: list[Certificate], pinned: list[Certificate], at: int, most: int) -> bool:
    """Whether a chain of certificates that hold goes from this one to a pinned authority, through so many at most."""

    def step(one: Certificate, below: int, left: list[Certificate]) -> bool:
        if any(one.signed_by(end, below) and end.holds(at) for end in pinned):
            return True
        if below == most:
            return False
        onward = [other for other in left if other.holds(at) and one.signed_by(other, below)]
        return any(step(other, below + 1, [rest for rest in left if rest is not other]) for other in onward)

    return step(leaf, 0, between)
