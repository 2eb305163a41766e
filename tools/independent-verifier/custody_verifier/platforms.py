"""The tables `[platforms.NAME]` of a policy: docs/formats/policy.md."""

import base64
import re
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from . import certificates, keys
from .attestations import CLAIMS, Platform
from .refusal import Refusal
from .strict import parse
from .tables import Table, wrong

MAX_JWKS = 256 << 10
_ISSUERS = {
    "google": "https://accounts.google.com",
    "github": "https://token.actions.githubusercontent.com",
    "gitlab": "https://gitlab.com",
    "buildkite": "https://agent.buildkite.com",
}
_DNS = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\Z")
_CLAIM = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*\Z")


def _ec2(table: Table) -> Platform:
    small = table.option("allow-rsa-1024", bool, False)
    found = []
    for value in table.entries("certificates"):
        entry = Table(value, f"{table.place}.certificates")
        regions = entry.texts("regions")
        found.append((regions, certificates.from_pem(entry.take("certificate", str), 1024 if small else 2048)))
        entry.close()
    if any(not isinstance(one.key.public, rsa.RSAPublicKey) for _, one in found):
        raise wrong(f"{table.place}: a certificate without RSA")
    weak = any(isinstance(one.key.public, rsa.RSAPublicKey) and one.key.public.key_size < 2048 for _, one in found)
    if small and not weak:
        raise wrong(f"{table.place}: no certificate needs allow-rsa-1024")
    return Platform("ec2", certificates=found)


def _authorities(table: Table, needed: bool) -> list[certificates.Certificate]:
    if not needed and "authorities" not in table.left:
        return []
    found = [certificates.from_pem(text) for text in table.texts("authorities")]
    if not all(one.authority for one in found):
        raise wrong(f"{table.place}: no authority")
    return found


def _azure(table: Table) -> Platform:
    listed = table.texts("names")
    if not all(_DNS.match(name) for name in listed):
        raise wrong(f"{table.place}: no DNS name")
    return Platform("azure", authorities=_authorities(table, needed=True), names=listed)


def _keys(table: Table) -> list[tuple[str | None, keys.Key]]:
    found: list[tuple[str | None, keys.Key]] = []
    for text in table.texts("keys") if "keys" in table.left else []:
        key = keys.parse(text)
        if key.application is not None:
            raise wrong(f"{table.place}: a security key")
        found.append((None, key))
    if len({key.id for _, key in found}) != len(found):
        raise Refusal("POLICY_KEY_DUPLICATE", table.place)
    return found


def _tpm(table: Table) -> Platform:
    found = _keys(table)
    for _, key in found:
        if key.ssh_type not in ("ssh-rsa", "ecdsa-sha2-nistp256"):
            raise wrong(f"{table.place}: a key that no TPM attests with")
    return Platform("tpm", keys=found, authorities=_authorities(table, needed=not found))


def _bytes(key: dict[str, Any], name: str) -> bytes:
    text = key.get(name)
    if not isinstance(text, str) or not re.fullmatch("[A-Za-z0-9_-]+", text):
        raise wrong(f"a key without {name}")
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _jwk(key: Any) -> tuple[str | None, keys.Key]:
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        raise wrong("a key that is not for signatures")
    id, kind, curve = key.get("kid"), key.get("kty"), key.get("crv")
    if id is not None and not isinstance(id, str):
        raise wrong("an id that is no text")
    try:
        public: keys.Public
        if kind == "RSA":
            n, e = (int.from_bytes(_bytes(key, name), "big") for name in ("n", "e"))
            public = rsa.RSAPublicNumbers(e, n).public_key()
        elif kind == "EC" and curve in ("P-256", "P-384"):
            point = b"\x04" + _bytes(key, "x") + _bytes(key, "y")
            public = ec.EllipticCurvePublicKey.from_encoded_point(keys.CURVES["nistp" + curve[2:]][0], point)
        elif kind == "OKP" and curve == "Ed25519":
            public = ed25519.Ed25519PublicKey.from_public_bytes(_bytes(key, "x"))
        else:
            raise wrong(f"a key of kind {kind} {curve}")
    except ValueError as error:
        raise Refusal("POLICY_KEY_WEAK", str(error)) from None
    return id, keys.of(public)


def _jwks(text: str) -> list[tuple[str | None, keys.Key]]:
    try:
        found = parse(text.encode())
    except Refusal as refusal:
        raise wrong(f"jwks: {refusal}") from None
    listed = found.get("keys") if isinstance(found, dict) else None
    if len(text.encode()) > MAX_JWKS or not isinstance(listed, list) or not 1 <= len(listed) <= 64:
        raise wrong("jwks is no set of 1 to 64 keys")
    return [_jwk(key) for key in listed]


def _tokens(kind: str, table: Table) -> Platform:
    issuer = _ISSUERS.get(kind)
    if kind != "google" and ("issuer" in table.left or issuer is None):
        issuer = table.take("issuer", str)
    audience = table.option("audience", str, None) if kind != "google" else None
    found = _jwks(table.take("jwks", str)) if "jwks" in table.left else []
    found += _keys(table)
    if not found:
        raise wrong(f"{table.place} has neither jwks nor keys")
    claims = table.texts("claims") if "claims" in table.left else []
    taken = {"issuer", "subject", *CLAIMS[kind]}
    facts = [claim.replace("_", "-") for claim in claims]
    if not all(_CLAIM.match(claim) for claim in claims) or taken.intersection(facts) or len(set(facts)) < len(facts):
        raise wrong(f"{table.place}: claims that are none, or facts already")
    return Platform(kind, issuer=issuer or "", audience=audience, keys=found, claims=claims)


def read(head: Table) -> dict[str, Platform]:
    """All platforms by name."""
    found: dict[str, Platform] = {}
    if "platforms" not in head.left:
        return found
    for name, table in head.tables("platforms"):
        kind = table.take("kind", str)
        if "." in name:
            raise wrong(f"{table.place}: a name with a dot")
        if kind in CLAIMS:
            found[name] = _tokens(kind, table)
        elif kind in ("ec2", "azure", "tpm"):
            found[name] = {"ec2": _ec2, "azure": _azure, "tpm": _tpm}[kind](table)
        else:
            raise wrong(f"{table.place}: kind {kind}")
        table.close()
    return found
