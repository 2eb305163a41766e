"""Public keys, in the forms of docs/formats/policy.md, and plain signatures of docs/formats/envelope.md."""

import base64
import hashlib
import re
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from .refusal import Refusal

Public = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
CURVES: dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm]] = {
    "nistp256": (ec.SECP256R1(), hashes.SHA256()),
    "nistp384": (ec.SECP384R1(), hashes.SHA384()),
}
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
SK_ECDSA = "sk-ecdsa-sha2-nistp256@openssh.com"
_PEM = re.compile(r"-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----")
_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P


@dataclass(frozen=True)
class Key:
    """One public key. `id` is the SHA-256 of its SubjectPublicKeyInfo, also for a security key."""

    public: Public
    ssh_type: str
    id: str
    application: bytes | None


def sound_point(encoded: bytes) -> bool:
    """A point of Ed25519 in canonical form that is not of small order (envelope.md, rule 9)."""
    y = int.from_bytes(encoded, "little") & ((1 << 255) - 1)
    if y >= _P:
        return False
    x2 = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    if x2 != 0 and pow(x2, (_P - 1) // 2, _P) != 1:
        return False  # not on the curve
    for _ in range(3):
        # doubling, in y and the square of x alone
        y = (y * y + x2) * pow(2 + x2 - y * y, -1, _P) % _P
        x2 = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    return y != 1  # eight times it is not nothing


def of(public: object, application: bytes | None = None, least: int = 2048) -> Key:
    """A key that is allowed; RSA has so many bits at least."""
    if isinstance(public, ed25519.Ed25519PublicKey):
        ssh_type = "ssh-ed25519" if application is None else SK_ED25519
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        if not sound_point(raw):
            raise Refusal("POLICY_KEY_WEAK", "a point of small order or not in canonical form")
    elif isinstance(public, ec.EllipticCurvePublicKey) and public.curve.name in ("secp256r1", "secp384r1"):
        ssh_type = f"ecdsa-sha2-nistp{public.curve.key_size}" if application is None else SK_ECDSA
    elif isinstance(public, rsa.RSAPublicKey) and least <= public.key_size <= 8192:
        ssh_type = "ssh-rsa"
    else:
        raise Refusal("POLICY_KEY_WEAK", "a kind or size of key that is not allowed")
    spki = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(public, ssh_type, hashlib.sha256(spki).hexdigest(), application)


class Reader:
    """Fields of SSH's wire format. What does not fit is `PARSE_FIELD_TYPE`."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, count: int) -> bytes:
        if count > len(self.data):
            raise Refusal("PARSE_FIELD_TYPE", "a field is longer than what is there")
        head, self.data = self.data[:count], self.data[count:]
        return head

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.number())

    def mpint(self) -> int:
        raw = self.string()
        if raw[:1] >= b"\x80" or (raw[:1] == b"\0" and raw[1:2] < b"\x80"):
            raise Refusal("PARSE_FIELD_TYPE", "a number that is negative or padded")
        return int.from_bytes(raw, "big")

    def end(self) -> None:
        if self.data:
            raise Refusal("PARSE_FIELD_TYPE", f"{len(self.data)} bytes too many")


def from_blob(blob: bytes) -> Key:
    """The key of an OpenSSH line, or of an SSHSIG."""
    reader = Reader(blob)
    kind = reader.string().decode("latin-1")
    fields: tuple[bytes, ...] = ()
    if kind in ("ssh-ed25519", SK_ED25519):
        fields = (reader.string(),)
    elif kind in ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", SK_ECDSA):
        fields = (reader.string(), reader.string())
    elif kind == "ssh-rsa":
        exponent, modulus = reader.mpint(), reader.mpint()
    else:
        raise Refusal("POLICY_KEY_WEAK", f"a key of type {kind[:40]}")
    application = reader.string() if kind in (SK_ED25519, SK_ECDSA) else None
    reader.end()
    try:
        public: Public
        if kind == "ssh-rsa":
            public = rsa.RSAPublicNumbers(exponent, modulus).public_key()
        elif len(fields) == 1:
            public = ed25519.Ed25519PublicKey.from_public_bytes(fields[0])
        else:
            curve, point = fields[0].decode("latin-1"), fields[1]
            if curve not in CURVES or curve not in kind or point[:1] != b"\x04":
                raise ValueError("another curve, or a point in another form")
            public = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[curve][0], point)
    except ValueError as error:
        raise Refusal("POLICY_KEY_WEAK", str(error)) from None
    return of(public, application)


def parse(text: str) -> Key:
    """A key as policies have it: an OpenSSH line, PEM, or base64 of DER. Blanks around it do not matter."""
    words = text.split()
    try:
        if _PEM.fullmatch(text.strip()):
            return of(serialization.load_pem_public_key(text.strip().encode()))
        if len(words) == 1:
            der = base64.b64decode(words[0], validate=True)
            key = of(serialization.load_der_public_key(der))
            if key.id != hashlib.sha256(der).hexdigest():
                raise ValueError("not the one form of this key")
            return key
        blob = base64.b64decode(words[1], validate=True)
        if Reader(blob).string().decode("latin-1") != words[0]:
            raise Refusal("POLICY_KEY_WEAK", "the line names another type than the key")
        return from_blob(blob)
    except (ValueError, IndexError, UnsupportedAlgorithm) as error:
        raise Refusal("POLICY_INVALID", f"no key: {error}") from None
    except Refusal as refusal:
        raise Refusal(
            "POLICY_INVALID" if refusal.code == "PARSE_FIELD_TYPE" else refusal.code, refusal.detail
        ) from None


def fits(key: Key, signature: bytes, message: bytes) -> bool:
    """A plain signature, by the algorithm that belongs to the key (envelope.md, rule 8)."""
    public = key.public
    try:
        if key.application is not None:
            return False
        if isinstance(public, ed25519.Ed25519PublicKey):
            return fits_ed25519(public, signature, message)
        if isinstance(public, rsa.RSAPublicKey):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            public.verify(signature, message, pss, hashes.SHA256())
        else:
            public.verify(signature, message, ec.ECDSA(CURVES[f"nistp{public.curve.key_size}"][1]))
        return True
    except InvalidSignature:
        return False


def fits_ed25519(public: ed25519.Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return sound_point(signature[:32])
