"""Documents that securesystemslib, in-toto and in-toto-attestation make, for Custody to judge.

    write.py keys DIRECTORY          a key of each scheme: SCHEME.key and SCHEME.pem
    write.py manifest <JSON          a manifest of Custody's build type, from its documents alone
    write.py link <JSON              the same run as in-toto link metadata: DSSE and Metablock
    write.py pae TYPE TEXT           the pre-authentication encoding

The manifest follows docs/formats/{envelope,statements,build-type}.md and takes everything else from the signed
task and the manifest of the step before. Standard input says where those are, who works and what was made.
"""

import fnmatch
import hashlib
import json
import sys
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from google.protobuf import json_format
from in_toto.models.link import Link
from in_toto.models.metadata import Envelope as InTotoEnvelope
from in_toto.models.metadata import Metablock
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey

IN_TOTO = "application/vnd.in-toto+json"


def keys(directory):
    made = {
        "ed25519": CryptoSigner.generate_ed25519(),
        "ecdsa-sha2-nistp256": CryptoSigner.generate_ecdsa(),
        "ecdsa-sha2-nistp384": CryptoSigner.generate_ecdsa(scheme="ecdsa-sha2-nistp384"),
        "rsassa-pss-sha256": CryptoSigner.generate_rsa(size=2048),
    }
    for scheme, signer in made.items():
        assert signer.public_key.scheme == scheme
        private = serialization.load_pem_private_key(signer.private_bytes, None)
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        file = Path(directory, f"{scheme}.key")
        file.touch(mode=0o600)
        file.write_bytes(signer.private_bytes)
        Path(directory, f"{scheme}.pem").write_bytes(public)


def signer_of(path):
    """The key with the id that Custody's documents give it."""
    private = serialization.load_pem_private_key(Path(path).read_bytes(), None)
    public = private.public_key()
    der = public.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    keyid = hashlib.sha256(der).hexdigest()
    return CryptoSigner(private, SSlibKey.from_crypto(public, keyid=keyid))


def opened(path):
    """A statement and its id."""
    envelope = Envelope.from_dict(json.loads(Path(path).read_text()))
    return json.loads(envelope.payload), hashlib.sha256(envelope.pae()).hexdigest()


def artifact(name, path):
    data = Path(path).read_bytes()
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    return ResourceDescriptor(name=name, digest=digest, annotations={"size": len(data)})


def whole_numbers(value):
    """Protobuf's Value is a double, which prints 20 as 20.0; Custody's rule 1 wants 20."""
    if isinstance(value, dict):
        return {name: whole_numbers(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [whole_numbers(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def merged(base, more):
    if isinstance(base, dict) and isinstance(more, dict):
        return {**base, **{name: merged(base.get(name), inner) for name, inner in more.items()}}
    return more


def manifest(asked):
    task, task_id = opened(asked["task"])
    task = task["predicate"]
    dependencies = []
    for path in asked["upstream"]:
        upstream, upstream_id = opened(path)
        patterns = [
            pattern
            for entry in task["inputs"]
            if entry["task"] == upstream["predicate"]["buildDefinition"]["externalParameters"]["task"]["digest"]["sha256"]
            for pattern in entry["patterns"]
        ]
        dependencies.append(
            ResourceDescriptor(
                name="manifest", digest={"sha256": upstream_id}, annotations={"role": "manifest"}
            )
        )
        for made in upstream["subject"]:
            if any(fnmatch.fnmatchcase(made["name"], pattern) for pattern in patterns):
                annotations = {**made["annotations"], "role": "input", "manifest": upstream_id}
                dependencies.append(
                    ResourceDescriptor(
                        name=made["name"], digest=made["digest"], annotations=annotations
                    )
                )
    provenance = provenance_pb2.Provenance()
    definition, details = provenance.build_definition, provenance.run_details
    definition.build_type = "https://custody.dev/step/v1"
    definition.external_parameters.update(
        {"task": {"digest": {"sha256": task_id}}, "step": task["step"], "command": task["command"]}
    )
    definition.internal_parameters.update(
        {"taskCreator": task["creator"], "environment": {"worker": "securesystemslib"}}
    )
    definition.resolved_dependencies.extend(dependency.pb for dependency in dependencies)
    details.builder.id = f"https://custody.dev/worker/{asked['machine']}"
    details.metadata.invocation_id = f"{task_id}/1"
    details.metadata.started_on.GetCurrentTime()
    details.metadata.started_on.nanos = 0
    details.metadata.finished_on.CopyFrom(details.metadata.started_on)
    subjects = [artifact(name, path).pb for name, path in asked["made"].items()]
    statement = Statement(
        subjects, "https://slsa.dev/provenance/v1", json_format.MessageToDict(provenance)
    )
    statement.validate()
    said = json_format.MessageToDict(statement.pb)
    if not asked["asProtobufPrints"]:
        said = whole_numbers(said)
    said = merged(said, asked["more"])
    envelope = Envelope(json.dumps(said).encode(), asked["payloadType"], {})
    envelope.sign(signer_of(asked["key"]))
    return envelope.to_dict()


def link(asked):
    signer = signer_of(asked["key"])
    products = {
        name: {"sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest()}
        for name, path in asked["made"].items()
    }
    said = Link(name="pack", command=["sh"], products=products)
    envelope = InTotoEnvelope.from_signable(said)
    envelope.create_signature(signer)
    metablock = Metablock(signed=said)
    metablock.create_signature(signer)
    return {"dsse": envelope.to_dict(), "metablock": metablock.to_dict()}


def main(verb, *arguments):
    if verb == "keys":
        keys(*arguments)
    elif verb == "pae":
        kind, text = arguments
        sys.stdout.buffer.write(Envelope(text.encode(), kind, {}).pae())
    else:
        made = {"manifest": manifest, "link": link}[verb](json.load(sys.stdin))
        json.dump(made, sys.stdout)


main(*sys.argv[1:])
