"""What platforms sign of a machine: docs/formats/attestations.md."""

import base64
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any, Callable

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import certificates, der, keys, names
from .certificates import Certificate
from .keys import Key
from .der import wrong
from .refusal import Refusal
from .strict import check_text, parse

MAX_PART = 256 << 10
MAX_TOKEN = 64 << 10
MAX_REGISTERS = 4 << 10
BLANKS = b" \t\r\n"
# the end of the year 9999
LAST = 253402300799
SIGNED_DATA, DATA = "2a864886f70d010702", "2a864886f70d010701"
CONTENT_TYPE, MESSAGE_DIGEST = "2a864886f70d010903", "2a864886f70d010904"
SHA256, RSA, RSA_WITH_SHA256 = "608648016503040201", "2a864886f70d010101", "2a864886f70d01010b"
SERVER, ATTESTS = "2b06010505070301", "6781050803"
# facts that are the claim of the same name with underscores
_GITHUB = "repository repository-id ref sha workflow-ref job-workflow-ref run-id run-attempt runner-environment"
_GITLAB = "project-path project-id ref sha pipeline-id job-id runner-id runner-environment"
Facts = dict[str, str]


def _same(names: str) -> dict[str, tuple[str, ...]]:
    return {name: (name.replace("-", "_"),) for name in names.split()}


# for each kind of token its facts, and the path to the claim that each is
CLAIMS: dict[str, dict[str, tuple[str, ...]]] = {
    "google": {
        **{
            name: ("google", "compute_engine", name.replace("-", "_"))
            for name in ("instance-id", "instance-name", "project-id", "project-number", "zone")
        },
        "service-account": ("email",),
    },
    "github": _same(_GITHUB),
    "gitlab": _same(_GITLAB),
    "buildkite": {
        "organization": ("organization_slug",),
        "pipeline": ("pipeline_slug",),
        **_same("build-number job-id agent-id"),
        "commit": ("build_commit",),
    },
    "kubernetes": {
        "namespace": ("kubernetes.io", "namespace"),
        "pod": ("kubernetes.io", "pod", "name"),
        "pod-uid": ("kubernetes.io", "pod", "uid"),
        "service-account": ("kubernetes.io", "serviceaccount", "name"),
        "node": ("kubernetes.io", "node", "name"),
    },
    "token": {},
}


@dataclass(frozen=True)
class Attestation:
    platform: str
    parts: dict[str, bytes]


@dataclass(frozen=True)
class Platform:
    """What a policy pins for one platform."""

    kind: str
    # of EC2, each with its regions
    certificates: list[tuple[list[str], Certificate]] = field(default_factory=list)
    authorities: list[Certificate] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    issuer: str = ""
    audience: str | None = None
    # each with its id in the issuer's set, if it has one
    keys: list[tuple[str | None, Key]] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)

    @property
    def binds(self) -> bool:
        """Rule 5."""
        return self.kind != "ec2" and self.audience is None


@dataclass(frozen=True)
class Context:
    binding: str
    at: int
    skew: int


def binding(purpose: str, key: str) -> str:
    """Rule 2."""
    return sha256(f"https://custody.dev/attestation/v1\n{purpose}\n{key}\n".encode()).hexdigest()


def verify(attestation: Attestation, platform: Platform, context: Context) -> Facts:
    """The facts, with the platform's name before each."""
    verifiers: dict[str, Callable[[dict[str, bytes], Platform, Context], Facts]] = {
        "ec2": _ec2,
        "azure": _azure,
        "tpm": _tpm,
    }
    if any(len(part) > MAX_PART for part in attestation.parts.values()):
        raise wrong("a part that is too large")
    facts = verifiers.get(platform.kind, _token)(attestation.parts, platform, context)
    return {f"{attestation.platform}.{name}": value for name, value in facts.items()}


# reading


def _parts(parts: dict[str, bytes], needed: set[str], optional: set[str] = set()) -> None:
    """Rule 1."""
    if not needed <= parts.keys() <= needed | optional:
        raise wrong(f"parts {sorted(parts)}")


def _base64(data: bytes) -> bytes:
    """Rules 9 and 10."""
    text = data.translate(None, BLANKS)
    url_safe = b"-" in text or b"_" in text
    try:
        found = base64.b64decode(text, b"-_" if url_safe else None, validate=True)
    except ValueError:
        raise wrong("no base64") from None
    if (base64.urlsafe_b64encode(found) if url_safe else base64.b64encode(found)) != text:
        raise wrong("loose base64, or two alphabets")
    return found


def _binary(data: bytes) -> bytes:
    return data if data[:1] == b"\x30" else _base64(data)


def _json(data: bytes) -> dict[str, Any]:
    """Rule 6."""
    try:
        found = parse(data)
    except Refusal as refusal:
        raise wrong(str(refusal)) from None
    if not isinstance(found, dict):
        raise wrong("no object")
    return found


def _text(found: dict[str, Any], name: str) -> str | None:
    """Text that somebody reads; none where it is absent or null."""
    value = found.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise wrong(f"{name} is no text")
    try:
        return check_text(value, name)
    except Refusal as refusal:
        raise wrong(str(refusal)) from None


def _there(found: dict[str, Any], name: str) -> str:
    value = _text(found, name)
    if value is None:
        raise wrong(f"no {name}")
    return value


def _inside(found: dict[str, Any], name: str) -> dict[str, Any]:
    value = found.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(f"{name} is no object")
    return value


def _pkcs1(public: keys.Public, signature: bytes, message: bytes) -> bool:
    if not isinstance(public, rsa.RSAPublicKey):
        return False
    try:
        public.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        return True
    except InvalidSignature:
        return False


# CMS


@dataclass(frozen=True)
class Message:
    content: bytes | None
    certificates: list[bytes]
    attributes: bytes | None
    signature: bytes

    def fits(self, public: keys.Public, document: bytes) -> bool:
        """CMS, 5: whether the key made the signature, of this content."""
        if self.attributes is None:
            return _pkcs1(public, self.signature, document)
        digest = der.tlv(der.OCTETS, sha256(document).digest())
        listed = der.Reader(self.attributes)
        found: list[tuple[str, bytes]] = []
        while not listed.empty:
            entry = listed.inner(der.SEQUENCE)
            found.append((entry.take(der.OID).hex(), entry.take(der.SET)))
            entry.end()
        kinds = [value for oid, value in found if oid == CONTENT_TYPE]
        digests = [value for oid, value in found if oid == MESSAGE_DIGEST]
        if len(found) > 16 or kinds != [der.tlv(der.OID, bytes.fromhex(DATA))] or digests != [digest]:
            raise wrong("attributes that are not of this content")
        return _pkcs1(public, self.signature, der.tlv(der.SET, self.attributes))


def _algorithm(reader: der.Reader) -> str:
    inner = reader.inner(der.SEQUENCE)
    oid = inner.take(der.OID).hex()
    if inner.option(der.NULL):
        raise wrong("NULL with content")
    inner.end()
    return oid


def _several(data: bytes | None) -> list[bytes]:
    reader, found = der.Reader(data or b""), []
    while not reader.empty:
        found.append(reader.element()[2])
    return found


def message(data: bytes) -> Message:
    """CMS, 1 to 4."""
    info = der.one(der.from_ber(data), der.SEQUENCE)
    if info.take(der.OID).hex() != SIGNED_DATA:
        raise wrong("no signed data")
    explicit = info.inner(0xA0)
    info.end()
    body = explicit.inner(der.SEQUENCE)
    explicit.end()
    body.take(der.INTEGER)
    body.take(der.SET)
    encapsulated = body.inner(der.SEQUENCE)
    if encapsulated.take(der.OID).hex() != DATA:
        raise wrong("content of another type")
    content = encapsulated.option(0xA0)
    encapsulated.end()
    if content is not None:
        holder = der.Reader(content)
        content = holder.take(der.OCTETS)
        holder.end()
    listed = _several(body.option(0xA0))
    body.option(0xA1)
    signers = body.inner(der.SET)
    body.end()
    signer = signers.inner(der.SEQUENCE)
    signers.end()
    if len(listed) > 8:
        raise wrong("too many certificates")
    signer.take(der.INTEGER)
    signer.element()
    hash = _algorithm(signer)
    attributes = signer.option(0xA0)
    algorithm = _algorithm(signer)
    signature = signer.take(der.OCTETS)
    signer.option(0xA1)
    signer.end()
    if hash not in (SHA256, RSA_WITH_SHA256) or algorithm not in (RSA, RSA_WITH_SHA256) or not signature:
        raise wrong("another algorithm")
    return Message(content, listed, attributes, signature)


# the kinds


def _ec2(parts: dict[str, bytes], platform: Platform, context: Context) -> Facts:
    _parts(parts, {"document"}, {"rsa2048", "signature"})
    document = parts["document"]
    counting: list[list[str]] = []
    alive = [(regions, one.key.public) for regions, one in platform.certificates if one.holds(context.at)]
    if "rsa2048" in parts:
        try:
            found = message(_binary(parts["rsa2048"]))
            if found.content in (None, document):
                strong = [one for one in alive if isinstance(one[1], rsa.RSAPublicKey) and one[1].key_size >= 2048]
                counting += [regions for regions, public in strong if found.fits(public, document)]
        except Refusal:
            pass  # the other part may count
    if "signature" in parts:
        try:
            signature = _base64(parts["signature"])
            counting += [regions for regions, public in alive if _pkcs1(public, signature, document)]
        except Refusal:
            pass
    if not counting:
        raise wrong("nobody whom the policy pins signed it")
    members = _json(document)
    facts = {
        fact: _text(members, member)
        for fact, member in (
            ("instance-id", "instanceId"),
            ("image-id", "imageId"),
            ("instance-type", "instanceType"),
            ("region", "region"),
            ("account-id", "accountId"),
            ("architecture", "architecture"),
            ("availability-zone", "availabilityZone"),
            ("pending-time", "pendingTime"),
        )
    }
    _there(members, "instanceId")
    if _there(members, "region") not in [region for regions in counting for region in regions]:
        raise wrong("signed for another region")
    if facts["pending-time"] is not None:
        try:
            pending = names.time(facts["pending-time"], "pendingTime")
        except Refusal as refusal:
            raise wrong(str(refusal)) from None
        if pending > context.at + context.skew:
            raise Refusal("WORKER_IDENTITY_MISMATCH", "started later")
    return {name: value for name, value in facts.items() if value is not None}


def nonce(binding: str) -> str:
    return f"{int(binding[:16], 16) % 10**10:010}"


def _stamp(members: dict[str, Any], name: str) -> int:
    text = _there(members, name)
    try:
        if not re.fullmatch(r"[0-9]{2}/[0-9]{2}/[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} -0000", text):
            raise ValueError
        when = datetime.strptime(f"20{text[6:8]}/{text[:5]}{text[8:17]}", "%Y/%m/%d %H:%M:%S")
    except ValueError:
        raise wrong(f"{name}: {text[:40]}") from None
    return int(when.replace(tzinfo=timezone.utc).timestamp())


def _azure(parts: dict[str, bytes], platform: Platform, context: Context) -> Facts:
    _parts(parts, {"attested"})
    found = message(_binary(parts["attested"]))
    if found.content is None:
        raise wrong("no content")
    try:
        listed = [certificates.read(one) for one in found.certificates]
    except Refusal as refusal:
        raise wrong(str(refusal)) from None
    signer = next((one for one in listed if found.fits(one.key.public, found.content)), None)
    if signer is None:
        raise wrong("no certificate of the signer")
    lower = [name.lower() for name in signer.names]
    if not any(name == known or name.endswith("." + known) for name in lower for known in platform.names):
        raise wrong(f"signed by {lower}")
    if not signer.leaf(SERVER, context.at):
        raise wrong("a certificate for something else, or out of its time")
    others = [one for one in listed if one is not signer]
    if not certificates.leads(signer, others, platform.authorities, context.at, most=2):
        raise wrong("leads to no authority that is pinned")
    members = _json(found.content)
    if _there(members, "nonce") != nonce(context.binding):
        raise Refusal("WORKER_IDENTITY_MISMATCH", "another nonce")
    stamp = _inside(members, "timeStamp")
    if _stamp(stamp, "createdOn") > context.at + context.skew or _stamp(stamp, "expiresOn") + context.skew < context.at:
        raise wrong("another time")
    plan = _inside(members, "plan")
    facts = {
        "vm-id": _there(members, "vmId"),
        "subscription-id": _text(members, "subscriptionId"),
        "sku": _text(members, "sku"),
        "license-type": _text(members, "licenseType"),
        **{f"plan-{name}": _text(plan, name) for name in ("name", "product", "publisher")},
    }
    return {name: value for name, value in facts.items() if value}


def _base64url(text: str) -> bytes:
    if not re.fullmatch("[A-Za-z0-9_-]*", text) or len(text) % 4 == 1:
        raise wrong("no base64url")
    found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(found).decode().rstrip("=") != text:
        raise wrong("loose base64url")
    return found


def _token_fits(key: keys.Key, algorithm: str, signature: bytes, text: bytes) -> bool:
    public = key.public
    if isinstance(public, rsa.RSAPublicKey):
        return algorithm == "RS256" and _pkcs1(public, signature, text)
    if isinstance(public, ec.EllipticCurvePublicKey):
        bits = public.key_size
        half = bits // 8
        if algorithm != {256: "ES256", 384: "ES384"}[bits] or len(signature) != 2 * half:
            return False
        r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
        try:
            public.verify(encode_dss_signature(r, s), text, ec.ECDSA(keys.CURVES[f"nistp{bits}"][1]))
            return True
        except InvalidSignature:
            return False
    return algorithm in ("EdDSA", "Ed25519") and keys.fits_ed25519(public, signature, text)


def _number(claims: dict[str, Any], name: str) -> int:
    if type(claims.get(name)) is not int:
        raise wrong(f"no {name}")
    number: int = claims[name]
    if number > LAST:
        raise wrong(f"{name} is no time")
    return number


def _claim(claims: dict[str, Any], path: tuple[str, ...]) -> str | None:
    for name in path[:-1]:
        inner = claims.get(name)
        claims = inner if isinstance(inner, dict) else {}
    value = claims.get(path[-1])
    if type(value) is bool:
        return "true" if value else "false"
    return str(value) if type(value) is int else _text(claims, path[-1])


def _token(parts: dict[str, bytes], platform: Platform, context: Context) -> Facts:
    _parts(parts, {"token"})
    token = parts["token"].strip(BLANKS)
    if len(token) > MAX_TOKEN:
        raise wrong("a token that is too large")
    pieces = token.decode("latin-1").split(".")
    if len(pieces) != 3:
        raise wrong("no compact token")
    header, claims, signature = _json(_base64url(pieces[0])), _json(_base64url(pieces[1])), _base64url(pieces[2])
    algorithm, id = _there(header, "alg"), _there(header, "kid") if "kid" in header else None
    if algorithm not in ("RS256", "ES256", "ES384", "EdDSA", "Ed25519") or "crit" in header:
        raise wrong(f"algorithm {algorithm[:40]}, or something critical")
    text = f"{pieces[0]}.{pieces[1]}".encode()
    tried = [key for known, key in platform.keys if id is None or known is None or known == id]
    if not any(_token_fits(key, algorithm, signature, text) for key in tried):
        raise wrong("no key of the issuer signed it")
    if _there(claims, "iss") != platform.issuer:
        raise wrong("another issuer")
    latest = context.at + context.skew
    begun = _number(claims, "nbf") if "nbf" in claims else 0
    if _number(claims, "iat") > latest or begun > latest or context.at >= _number(claims, "exp") + context.skew:
        raise wrong("another time")
    audience = f"custody:{context.binding}" if platform.audience is None else platform.audience
    if "aud" not in claims:
        raise wrong("no audience")
    if claims["aud"] not in (audience, [audience]):
        raise Refusal("WORKER_IDENTITY_MISMATCH", "another audience")
    paths = {"issuer": ("iss",), "subject": ("sub",), **CLAIMS[platform.kind]}
    paths.update({name.replace("_", "-"): (name,) for name in platform.claims})
    _there(claims, "sub")
    facts = {name: _claim(claims, path) for name, path in paths.items()}
    return {name: value for name, value in facts.items() if value is not None}


class _Structure:
    """Fields of a TPM's structures."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise wrong("a structure that is cut off")
        head, self.data = self.data[:count], self.data[count:]
        return head

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        return self.take(self.number(2))

    def end(self) -> None:
        if self.data:
            raise wrong("something follows")


def _tpm_signature(data: bytes) -> Callable[[keys.Key, bytes], bool]:
    """What tells whether a key made the signature over some bytes."""
    structure = _Structure(data)
    kind, hash = structure.number(2), structure.number(2)
    if kind not in (0x14, 0x16, 0x18) or hash != 0x0B:
        raise wrong("another algorithm")
    values = [structure.sized() for _ in range(2 if kind == 0x18 else 1)]
    structure.end()
    if kind == 0x18 and any(len(value) > 32 for value in values):
        raise wrong("a number that is too long")

    def fits(key: keys.Key, quote: bytes) -> bool:
        public = key.public
        try:
            if isinstance(public, rsa.RSAPublicKey) and kind != 0x18:
                scheme = padding.PKCS1v15() if kind == 0x14 else padding.PSS(padding.MGF1(hashes.SHA256()), 32)
                public.verify(values[0], quote, scheme, hashes.SHA256())
                return True
            if isinstance(public, ec.EllipticCurvePublicKey) and public.key_size == 256 and kind == 0x18:
                r, s = (int.from_bytes(value, "big") for value in values)
                public.verify(encode_dss_signature(r, s), quote, ec.ECDSA(hashes.SHA256()))
                return True
        except InvalidSignature:
            pass
        return False

    return fits


def _registers(data: bytes) -> dict[int, bytes]:
    if len(data) > MAX_REGISTERS:
        raise wrong("too many registers")
    found: dict[int, bytes] = {}
    whole = _json(data)
    if set(whole) != {"sha256"} or not isinstance(whole["sha256"], dict):
        raise wrong("another bank")
    for name, value in _inside(whole, "sha256").items():
        good = re.fullmatch("0|[1-9][0-9]?", name) and isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value)
        if not good or int(name) > 23 or int(name) <= max(found, default=-1):
            raise wrong(f"register {name[:40]}")
        found[int(name)] = bytes.fromhex(value)
    return found


def _tpm(parts: dict[str, bytes], platform: Platform, context: Context) -> Facts:
    _parts(parts, {"quote", "signature", "pcrs"}, {"certificate"})
    quote = parts["quote"]
    fits = _tpm_signature(parts["signature"])
    key = next((key for _, key in platform.keys if fits(key, quote)), None)
    if key is None and "certificate" in parts:
        try:
            certificate = certificates.read(parts["certificate"])
        except Refusal as refusal:
            raise wrong(str(refusal)) from None
        chained = certificates.leads(certificate, [], platform.authorities, context.at, most=0)
        if chained and certificate.leaf(ATTESTS, context.at) and fits(certificate.key, quote):
            key = certificate.key
    if key is None:
        raise wrong("no key that is pinned signed it")
    structure = _Structure(quote)
    if structure.take(6) != b"\xffTCG\x80\x18":
        raise wrong("no quote")
    structure.sized()
    extra = structure.sized()
    structure.take(8)
    resets, restarts = structure.number(4), structure.number(4)
    structure.take(1)
    firmware = structure.number(8)
    if structure.number(4) != 1 or structure.number(2) != 0x0B:
        raise wrong("another bank")
    bitmap = structure.take(structure.number(1))
    digest = structure.sized()
    structure.end()
    selected = [index for index in range(8 * len(bitmap)) if bitmap[index // 8] >> index % 8 & 1]
    if extra.hex() != context.binding:
        raise Refusal("WORKER_IDENTITY_MISMATCH", "of another run")
    values = _registers(parts["pcrs"])
    if list(values) != selected or sha256(b"".join(values.values())).digest() != digest:
        raise wrong("other registers")
    return {
        "key": key.id,
        **{f"pcr-{index}": value.hex() for index, value in values.items()},
        "firmware": f"{firmware:016x}",
        "reset-count": str(resets),
        "restart-count": str(restarts),
    }
