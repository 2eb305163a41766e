"""What people sign: docs/formats/sign-off.md."""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from . import keys, strict
from .refusal import Refusal

MAGIC = b"SSHSIG"
NAMESPACE = b"evidence@custody.dev"
WEBAUTHN = "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"
TOUCHED, CHECKED, ATTESTED, EXTENDED = 0x01, 0x04, 0x40, 0x80


@dataclass(frozen=True)
class Word:
    """What an SSHSIG that fits says besides: flags of the hardware, and the page."""

    flags: int | None = None
    origin: str | None = None


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _ecdsa(public: ec.EllipticCurvePublicKey, numbers: keys.Reader, message: bytes) -> None:
    signature = encode_dss_signature(numbers.mpint(), numbers.mpint())
    numbers.end()
    public.verify(signature, message, ec.ECDSA(keys.CURVES[f"nistp{public.curve.key_size}"][1]))


def _passkey(blob: keys.Reader, flags: int, challenged: bytes) -> tuple[bytes, str]:
    """Rules 10 to 13: what the hardware signs after the counter, and the origin."""
    origin, client_data, extensions = (blob.string() for _ in range(3))
    if flags & ATTESTED or bool(flags & EXTENDED) != bool(extensions):
        raise Refusal("PARSE_FIELD_TYPE", f"flags {flags:#x}")
    client = strict.Object.of(strict.parse(client_data), "clientDataJSON")
    if client.text("type") != "webauthn.get":
        raise Refusal("SIGNOFF_TYPE", client.text("type")[:40])
    challenge = base64.urlsafe_b64encode(challenged).rstrip(b"=").decode()
    if client.text("challenge") != challenge:
        raise Refusal("SIGNOFF_CHALLENGE_MISMATCH")
    if client.text("origin").encode() != origin or client.has("topOrigin"):
        raise Refusal("SIGNOFF_ORIGIN", client.text("origin")[:80])
    if client.has("crossOrigin") and client.flag("crossOrigin"):
        raise Refusal("SIGNOFF_ORIGIN", "cross-origin")
    return extensions + hashlib.sha256(client_data).digest(), client.text("origin")


def _key_of(blob: bytes, known: dict[str, keys.Key]) -> keys.Key:
    named = keys.from_blob(blob)
    if named.id not in known:
        raise Refusal("ENV_KEY_UNKNOWN", named.id)
    key = known[named.id]
    if (key.application is None) != (named.application is None):
        raise Refusal("ENV_ALG_FORBIDDEN", "a security key and a plain key are not the same")
    if key.application != named.application:
        raise Refusal("SIGNOFF_RPID", "another application")
    return key


def check(
    blob: bytes, message: bytes, known: dict[str, keys.Key], wanted: bytes = NAMESPACE
) -> tuple[keys.Key, Word]:
    """The known key that made this SSHSIG over `message`. Raises why it does not count."""
    reader = keys.Reader(blob)
    if reader.take(6) != MAGIC or reader.number() != 1:
        raise Refusal("PARSE_FIELD_TYPE", "not an SSHSIG of version 1")
    public_blob, namespace, reserved, hashed, signature = (reader.string() for _ in range(5))
    reader.end()
    if reserved or hashed not in (b"sha256", b"sha512"):
        raise Refusal("PARSE_FIELD_TYPE", "something reserved, or another hash")
    if namespace != wanted:
        raise Refusal("SIGNOFF_NAMESPACE", namespace[:40].decode("latin-1"))
    key = _key_of(public_blob, known)
    digest = hashlib.new(hashed.decode(), message).digest()
    signed = MAGIC + _string(namespace) + _string(b"") + _string(hashed) + _string(digest)

    inner = keys.Reader(signature)
    form = inner.string().decode("latin-1")
    allowed = {"ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"), keys.SK_ECDSA: (keys.SK_ECDSA, WEBAUTHN)}
    if form not in allowed.get(key.ssh_type, (key.ssh_type,)):
        raise Refusal("ENV_ALG_FORBIDDEN", form[:60])
    raw = keys.Reader(inner.string())
    if key.application is None:
        inner.end()
        _verify(key, form, raw, signed)
        return key, Word()
    flags = inner.take(1)
    counter = inner.take(4)
    tail, origin = hashlib.sha256(signed).digest(), None
    if form == WEBAUTHN:
        tail, origin = _passkey(inner, flags[0], signed)
    inner.end()
    _verify(key, form, raw, hashlib.sha256(key.application).digest() + flags + counter + tail)
    return key, Word(flags[0], origin)


def _verify(key: keys.Key, form: str, raw: keys.Reader, message: bytes) -> None:
    public = key.public
    try:
        if isinstance(public, ed25519.Ed25519PublicKey):
            if not keys.fits_ed25519(public, raw.data, message):
                raise InvalidSignature
        elif isinstance(public, rsa.RSAPublicKey):
            algorithm = hashes.SHA512() if form == "rsa-sha2-512" else hashes.SHA256()
            public.verify(raw.data, message, padding.PKCS1v15(), algorithm)
        else:
            _ecdsa(public, raw, message)
    except InvalidSignature:
        raise Refusal("ENV_SIGNATURE_INVALID", key.id) from None
