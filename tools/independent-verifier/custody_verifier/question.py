"""What is asked, and the verdict: docs/formats/verification.md, "What is asked" and "The verdict"."""

from dataclasses import dataclass
from typing import Iterator

from . import names, workers
from .envelope import Envelope
from .evidence import Document, Evidence, joined
from .judge import MAX_CANDIDATES, MAX_MANIFESTS, MAX_STATEMENTS, Expected, Finding, Walk
from .refusal import Refusal
from .statements import Artifact, Authorization, Enrolment, Intent, Manifest, Request, Task
from .trust import Chain, Floor, establish


@dataclass(frozen=True)
class Report:
    """The verdict: accepted if nothing was found."""

    findings: list[Finding]

    @property
    def accepted(self) -> bool:
        return not self.findings

    @property
    def codes(self) -> set[str]:
        return {one.code for one in self.findings}


@dataclass
class Court:
    """Evidence and policies, ready for a question."""

    evidence: Evidence
    chain: Chain
    now: int
    late: bool

    def common(self, walk: Walk) -> Report:
        """The rules of the subject that no document belongs to."""
        documents = self.evidence.documents
        manifests = self.evidence.all(Manifest)
        if len(documents) > MAX_STATEMENTS or len(manifests) > MAX_MANIFESTS:
            walk.check("evidence.budget", "evidence", [Refusal("CHAIN_NODE_LIMIT")])
        if self.now >= self.chain.newest.expires:
            walk.check("policy.fresh", "policy", [Refusal("POLICY_EXPIRED")])
        if self.late:
            walk.check("policy.fresh", "policy", [Refusal("TIME_UNTRUSTED", "behind what was seen before")])
        missing = {"CHAIN_LINK_MISSING", "CHAIN_TASK_MISSING", "SIGNOFF_MISSING", "CHAIN_STEP_MISSING"}
        if missing & {one.code for one in walk.findings} and self.evidence.changed():
            walk.check("evidence.intact", "evidence", [Refusal("ENV_SIGNATURE_INVALID")])
        return Report(walk.findings)

    # a file

    def file(self, file: Artifact, expected: Expected) -> Report:
        tried: list[tuple[bool, Report]] = []
        for id in self.candidates(file)[:MAX_CANDIDATES]:
            walk = Walk(self.evidence, self.chain, self.now)
            walk.check("subject.explained", file.name, self.explained(file, id))
            right = walk.check("subject.expected", file.name, self.expected(walk, id, expected))
            walk.walk([id])
            report = self.common(walk)
            if report.accepted:
                return report
            tried.append((right, report))
        if tried:
            return next((report for right, report in tried if right), tried[0][1])
        walk = Walk(self.evidence, self.chain, self.now)
        walk.check("subject.explained", file.name, self.unexplained(file))
        return self.common(walk)

    def candidates(self, file: Artifact) -> list[str]:
        """Manifests that list the file's SHA-256; those of the right machines first."""
        found = []
        for id, manifest in self.evidence.all(Manifest).items():
            if any(made.digests.sha256 == file.digests.sha256 for made in manifest.subjects):
                found.append((*self.rank(id, manifest), id))
        return [id for *_, id in sorted(found)]

    def rank(self, id: str, manifest: Manifest) -> tuple[bool, bool]:
        """False sorts first: signed by a machine that some policy lets perform the step, and irrevocable."""
        walk = Walk(self.evidence, self.chain, self.now)
        enrolled = {
            one.machine
            for enrolment, one in self.evidence.all(Enrolment).items()
            if manifest.enrolment == enrolment and workers.enrolled_once(walk, enrolment, one)
        }
        owners = {signed.key.id for signed in self.evidence.documents[id].signed[0]}
        steps = [
            step
            for policy in self.chain.policies
            for product in policy.products.values()
            for name, step in product.steps.items()
            if name == manifest.step
            and enrolled.intersection(step.perform)
            or name == manifest.step
            and any(owner in policy.keys and policy.keys[owner].owner in step.perform for owner in owners)
        ]
        return not steps, not any(step.irrevocable for step in steps)

    def explained(self, file: Artifact, id: str) -> Iterator[Refusal]:
        listed = [
            made for made in self.evidence.get(id, Manifest).subjects if made.digests.sha256 == file.digests.sha256
        ]
        named = [made for made in listed if file.name in (made.name, names.last(made.name))]
        if not named:
            yield Refusal("ART_UNLISTED", f"{file.name} is listed as {listed[0].name}")
        best = (named or listed)[0]
        if not best.digests.agrees(file.digests):
            yield Refusal("ART_DIGEST_MISMATCH", file.name)
        if best.size != file.size:
            yield Refusal("ART_SIZE_MISMATCH", f"{file.size} bytes")

    def unexplained(self, file: Artifact) -> Iterator[Refusal]:
        for manifest in self.evidence.all(Manifest).values():
            if any(file.name in (made.name, names.last(made.name)) for made in manifest.subjects):
                yield Refusal("ART_DIGEST_MISMATCH", file.name)
                return
        yield Refusal("CHAIN_STEP_MISSING", file.name)

    def expected(self, walk: Walk, id: str, expected: Expected) -> Iterator[Refusal]:
        manifest = self.evidence.get(id, Manifest)
        if manifest.task not in self.evidence.documents:
            yield Refusal("CHAIN_TASK_MISSING", manifest.task)
            return
        _, request, policy = walk.authority(self.evidence.get(manifest.task, Task))
        release = request.release
        if expected.product not in (None, release.product):
            yield Refusal("CHAIN_PRODUCT_MISMATCH", release.product)
        if expected.version not in (None, release.version) or expected.channel not in (None, release.channel):
            yield Refusal("CHAIN_RELEASE_MISMATCH", f"{release.version} ({release.channel})")
        if expected.instance not in (None, release.instance):
            yield Refusal("CHAIN_INSTANCE_MISMATCH", release.instance)
        if expected.step is not None:
            if manifest.step != expected.step:
                yield Refusal("CHAIN_STEP_MISMATCH", manifest.step)
        elif release.product in policy.products:
            publishing = {name for name, step in policy.products[release.product].steps.items() if step.destinations}
            if publishing and manifest.step not in publishing:
                yield Refusal("CHAIN_STEP_MISSING", f"step {manifest.step} publishes nothing")

    # a task: the gate

    def task(self, id: str, expected: Expected) -> Report:
        walk = Walk(self.evidence, self.chain, self.now)
        try:
            task = self.evidence.get(id, Task)
            word = self.evidence.get(task.about, Authorization)
            walk.at_gate = self.evidence.get(word.about, Request).release
        except Refusal as refusal:
            absent = id not in self.evidence.documents
            walk.check("subject.expected", id[:12], [Refusal("CHAIN_TASK_MISSING", id) if absent else refusal])
            walk.walk_chain(id, set())
            return self.common(walk)
        walk.check("subject.expected", id[:12], self.task_expected(walk, task, expected))
        walk.walk_chain(id, set())
        walk.check("task.time", id[:12], self.startable(walk, task))
        walk.check("gate.inputs", id[:12], self.inputs(walk, task))
        walk.check("gate.once", id[:12], self.once(walk, id, task))
        step = self.chain.newest.products[walk.at_gate.product].steps.get(task.step) if self.known(walk) else None
        roots = {one for entry in task.inputs for one in self.given(walk, entry.task, entry.manifest)}
        decision = walk.decision(id)
        vouched = {root for root in roots if step and walk.vouched(root, task, step.summaries)}
        roots |= {decision} if decision else set()
        walk.walk(sorted(roots), deep=step is None or step.full, vouched=vouched)
        return self.common(walk)

    def known(self, walk: Walk) -> bool:
        return walk.at_gate is not None and walk.at_gate.product in self.chain.newest.products

    def task_expected(self, walk: Walk, task: Task, expected: Expected) -> Iterator[Refusal]:
        release = walk.at_gate
        assert release
        if expected.product not in (None, release.product):
            yield Refusal("CHAIN_PRODUCT_MISMATCH", release.product)
        if expected.version not in (None, release.version) or expected.channel not in (None, release.channel):
            yield Refusal("CHAIN_RELEASE_MISMATCH", f"{release.version} ({release.channel})")
        if expected.instance not in (None, release.instance):
            yield Refusal("CHAIN_INSTANCE_MISMATCH", release.instance)
        if expected.step not in (None, task.step):
            yield Refusal("CHAIN_STEP_MISMATCH", task.step)

    def startable(self, walk: Walk, task: Task) -> Iterator[Refusal]:
        if self.now > task.deadline:
            yield Refusal("CHAIN_STALE", "too late to start")

    def given(self, walk: Walk, task: str | None, manifest: str | None) -> list[str]:
        return [manifest] if manifest is not None else walk.results(task or "")

    def inputs(self, walk: Walk, task: Task) -> Iterator[Refusal]:
        places: list[str] = []
        context = walk.context(task)
        for one in task.inputs:
            results = self.given(walk, one.task, one.manifest)
            needed = walk.builders(one.task) if one.task is not None else 1
            if needed > 1:
                results = walk.standing(one.task or "")
                agreed = [id for id in results if not walk.of_several(id, needed)[1]]
                if results and not agreed:
                    yield Refusal("CHAIN_THRESHOLD_DISAGREE", one.directory)
                    continue
                results = agreed[:1]
            if len(results) != 1:
                yield Refusal("CHAIN_FORKED" if results else "CHAIN_LINK_MISSING", one.directory)
                continue
            files = yield from walk.selected(one, results[0], context)
            chosen = [name for _, name in files]
            places += [names.last(name) if task.destination else f"{one.directory}/{name}" for name in chosen]
        places += [f"external/{one.name}" for one in task.externals]
        try:
            names.check_names(places)
        except Refusal as refusal:
            yield Refusal("ART_NAME_COLLISION", refusal.detail)
        for place in places if task.destination else []:
            if not names.fits(place, task.outputs) or not names.fits(place, context.step.outputs):
                yield Refusal("ART_UNLISTED", place)

    def once(self, walk: Walk, id: str, task: Task) -> Iterator[Refusal]:
        needed = walk.builders(id)
        if needed > 1:
            if any(not walk.of_several(one, needed)[1] for one in walk.standing(id)):
                yield Refusal("GATE_ALREADY_EXECUTED", "enough machines agree")
            return
        for manifest_id in walk.manifests.get(id, []):
            finished = self.evidence.get(manifest_id, Manifest).finished
            if walk.once_performed(manifest_id, task.step, finished):
                yield Refusal("GATE_ALREADY_EXECUTED", "it has a manifest")
        resumed = {one.intent for one in walk.resolutions(id) if one.intent}
        for intent_id, intent in self.evidence.all(Intent).items():
            open_ = intent.about == id and intent.stage == "announced" and intent_id not in resumed
            if open_ and walk.once_performed(intent_id, task.step, intent.created):
                yield Refusal("GATE_ALREADY_EXECUTED", "in doubt")


def court(pin: str, envelopes: list[Envelope], now: int, floor: Floor | None = None) -> Court:
    """Everything before the walk. Without policies there is only a refusal."""
    by_id = joined(envelopes)
    chain = establish(pin, by_id, floor)
    known = chain.known
    evidence = Evidence({id: Document(one, known) for id, one in by_id.items() if id not in chain.ids})
    enrolled = {one.key.id: one.key for one in evidence.all(Enrolment).values()}
    present = set(evidence.documents)
    documents = evidence.documents.items()
    evidence = Evidence({id: Document(one.envelope, known, enrolled, present) for id, one in documents})
    late = max(0, floor.time - now) if floor else 0
    return Court(evidence, chain, now + late, late > chain.newest.skew)
