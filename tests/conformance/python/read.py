"""What securesystemslib, in-toto and in-toto-attestation make of Custody's envelopes.

    read.py DIRECTORY

DIRECTORY has envelopes (*.json) and public keys (*.pem, named by Custody's key id). What the peers find goes
to standard output as JSON; nothing is judged here.
"""

import copy
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto.models.metadata import Metadata
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.vsa.v1 import vsa_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

PREDICATES = {
    "https://slsa.dev/provenance/v1": provenance_pb2.Provenance,
    "https://slsa.dev/verification_summary/v1": vsa_pb2.VerificationSummary,
}


def verifies(envelope, key):
    try:
        return list(envelope.verify([key], 1)) == [key.keyid]
    except VerificationError:
        return False


def in_toto_verifies(path, key):
    """The same with in-toto's own class, which is a subclass."""
    metadata = Metadata.load(path)
    try:
        metadata.verify_signature({"keyid": key.keyid, **key.to_dict()})
    except Exception as refused:
        return type(refused).__name__
    return "verified"


def changed(envelope, keyid):
    """The envelope with one bit flipped: at every seventh byte of the payload, every one of type and signature."""
    for place in range(0, len(envelope.payload), 7):
        other = copy.copy(envelope)
        other.payload = bytearray(envelope.payload)
        other.payload[place] ^= 1
        other.payload = bytes(other.payload)
        yield other
    for place in range(len(envelope.payload_type)):
        other = copy.copy(envelope)
        letters = bytearray(envelope.payload_type.encode())
        letters[place] ^= 1
        other.payload_type = letters.decode()
        yield other
    signature = envelope.signatures[keyid]
    for place in range(len(signature.signature) // 2):
        other = copy.copy(envelope)
        other.signatures = {keyid: copy.copy(signature)}
        bent = bytearray.fromhex(signature.signature)
        bent[place] ^= 1
        other.signatures[keyid].signature = bent.hex()
        yield other


def without_empty(value):
    """Protobuf knows no empty list beside an absent one, nor does SLSA."""
    if isinstance(value, dict):
        pruned = {name: without_empty(inner) for name, inner in value.items()}
        return {name: inner for name, inner in pruned.items() if inner not in ([], {}, "")}
    if isinstance(value, list):
        return [without_empty(inner) for inner in value]
    return value


def statement(payload):
    found = {}
    said = json.loads(payload)
    # unknown members are refused by this reader
    message = json_format.Parse(payload, statement_pb2.Statement())
    whole = Statement.copy_from_pb(message)
    whole.validate()
    found["lossless"] = json_format.MessageToDict(message) == said
    found["subjects"] = len(message.subject)
    found["predicateType"] = message.predicate_type
    kind = PREDICATES.get(message.predicate_type)
    if kind:
        inner = said["predicate"]
        try:
            json_format.ParseDict(inner, kind())
            found["fault"] = None
        except json_format.ParseError as fault:
            found["fault"] = str(fault)
            # this library's VSA has one text where SLSA has a list
            inner = {**inner, "verifiedLevels": inner["verifiedLevels"][0]}
        predicate = json_format.ParseDict(inner, kind())
        found["predicate"] = without_empty(json_format.MessageToDict(predicate)) == without_empty(inner)
        if kind is provenance_pb2.Provenance:
            for dependency in predicate.build_definition.resolved_dependencies:
                ResourceDescriptor.copy_from_pb(dependency).validate()
    return found


def report(path, keys):
    envelope = Envelope.from_dict(json.loads(path.read_text()))
    found = {
        "payloadType": envelope.payload_type,
        "pae": hashlib.sha256(envelope.pae()).hexdigest(),
        "in-toto": type(Metadata.load(path)).__name__ if "in-toto" in envelope.payload_type else None,
        "verifiedBy": [],
        "refusedFrom": [],
        "changes": 0,
        "changesAccepted": 0,
    }
    for keyid in envelope.signatures:
        key = keys[keyid]
        if not verifies(envelope, key):
            found["refusedFrom"].append(keyid)
            continue
        found["verifiedBy"].append(keyid)
        found["scheme"] = key.scheme
        found["in-toto verified"] = in_toto_verifies(path, key)
        for other in changed(envelope, keyid):
            found["changes"] += 1
            found["changesAccepted"] += verifies(other, key)
        others = [other for other in keys.values() if other.keyid != keyid]
        found["othersAccepted"] = sum(verifies(envelope, other) for other in others)
    if envelope.payload_type == "application/vnd.in-toto+json":
        found["statement"] = statement(envelope.payload)
    return found


def main(directory):
    keys = {}
    for path in directory.glob("*.pem"):
        public = load_pem_public_key(path.read_bytes())
        # the scheme is what the library takes for such a key
        keys[path.stem] = SSlibKey.from_crypto(public, keyid=path.stem)
    reports = {path.stem: report(path, keys) for path in sorted(directory.glob("*.json"))}
    json.dump(reports, sys.stdout)


main(Path(sys.argv[1]))
