"""python3 -m custody_verifier verify FILE --bundle BUNDLE --pin PIN | vectors DIR"""

import argparse
import sys
import time
from hashlib import sha256, sha512
from pathlib import Path

from . import evidence, names, question, vectors
from .judge import Expected
from .refusal import UNDECIDED, Refusal
from .statements import Artifact, Digests

EXPECTED = ("product", "version", "channel", "instance", "step")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="custody_verifier", description="A second verifier of Custody's evidence")
    commands = parser.add_subparsers(dest="command", required=True)
    verify = commands.add_parser("verify", help="where does a file come from?")
    verify.add_argument("file", type=Path)
    verify.add_argument("--bundle", type=Path, action="append", required=True)
    verify.add_argument("--pin", required=True, help="statement id of the policy that you trust")
    verify.add_argument("--time", help="judge as of this time instead of now")
    for name in EXPECTED:
        verify.add_argument(f"--{name}")
    run = commands.add_parser("vectors", help="run the cases of docs/formats/vectors.md")
    run.add_argument("directory", type=Path)
    return parser.parse_args()


def verify(options: argparse.Namespace) -> int:
    data = options.file.read_bytes()
    file = Artifact(options.file.name, Digests(sha256(data).hexdigest(), sha512(data).hexdigest()), len(data))
    try:
        now = names.time(options.time, "--time") if options.time else int(time.time())
        names.digest(options.pin, 64, "--pin")
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return 2
    expected = Expected(**{name: getattr(options, name) for name in EXPECTED})
    try:
        given = [one for path in options.bundle for one in evidence.bundle(path.read_bytes())]
        report = question.court(options.pin, given, now).file(file, expected)
    except Refusal as refusal:
        print(f"rejected {refusal}")
        return 3 if refusal.code in UNDECIDED else 1
    for one in report.findings:
        print(f"{one.code} {one.rule} {one.place}: {one.detail}")
    print("accepted" if report.accepted else "rejected " + " ".join(sorted(report.codes)))
    return 0 if report.accepted else 1


def main() -> int:
    options = arguments()
    try:
        if options.command == "vectors":
            return 0 if vectors.run(options.directory) else 1
        return verify(options)
    except OSError as error:
        print(error, file=sys.stderr)
        return 3


if __name__ == "__main__":
    sys.exit(main())
