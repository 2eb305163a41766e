"""The walk and its rules: docs/formats/verification.md. Rules are named as there."""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from functools import cached_property
from typing import Callable, Generator, Iterable, Iterator

from . import names, sources, workers
from .evidence import Evidence
from .envelope import Signed
from .policy import Enrolled, Phase, Policy, Product, Step, plain_uri
from .refusal import Refusal
from .statements import (
    GATE,
    WORKER,
    Artifact,
    Authorization,
    Digests,
    Enrolment,
    Intent,
    Manifest,
    Release,
    Request,
    Resolution,
    Signoff,
    Summary,
    Task,
    TaskInput,
)
from .trust import Chain

MAX_STATEMENTS = 1_000_000
MAX_MANIFESTS = 100_000
MAX_CANDIDATES = 32
MAX_TWINS = 16


# files by the manifest that made them, or none, and name
Files = dict[tuple[str | None, str], Artifact]
# whether a statement names this principal, or the key of this id, as its signer
Named = Callable[[str, str], bool]


@dataclass(frozen=True)
class Expected:
    product: str | None = None
    version: str | None = None
    channel: str | None = None
    instance: str | None = None
    step: str | None = None


@dataclass(frozen=True)
class Finding:
    rule: str
    place: str
    code: str
    detail: str


@dataclass(frozen=True)
class Context:
    """What a task belongs to, as far as it can be read."""

    task: Task
    authorization: Authorization
    request: Request
    policy: Policy
    product: Product
    phase: Phase
    step: Step


@dataclass
class Walk:
    """One question, walked from one task or manifest back to people and source."""

    evidence: Evidence
    chain: Chain
    now: int
    at_gate: Release | None = None
    findings: list[Finding] = field(default_factory=list)
    # manifests by whether they hold by themselves
    sound: dict[str, bool] = field(default_factory=dict)

    # what is there, found once

    @cached_property
    def revoked(self) -> set[str]:
        return self.chain.revoked

    @cached_property
    def enrolled(self) -> set[str]:
        """Keys that only enrolments name."""
        return {one.key.id for one in self.evidence.all(Enrolment).values()} - self.chain.known.keys()

    def performers(
        self, id: str, policy: Policy, perform: Iterable[str], named: bool = False
    ) -> tuple[set[str], list[Refusal]]:
        """The machines of `perform` that signed a manifest; only in their own names, if it is asked."""
        manifest = self.evidence.get(id, Manifest)
        if manifest.enrolment is None:
            right: Named = lambda owner, _: not named or manifest.builder == WORKER + owner
            return self.signers(id, policy, perform, manifest.finished, right)
        try:
            problems = list(workers.enrolled(self, id, manifest, policy, perform))
            machine = self.evidence.get(manifest.enrolment, Enrolment).machine
        except Refusal as refusal:
            return set(), [refusal]
        if named and manifest.builder != WORKER + machine:
            problems.append(Refusal("POLICY_KEY_PURPOSE", f"signed by {machine} in another name"))
        return (set(), problems) if problems else ({machine}, [])

    @cached_property
    def manifests(self) -> dict[str, list[str]]:
        """Manifests by their task."""
        found: dict[str, list[str]] = {}
        for id, manifest in self.evidence.all(Manifest).items():
            found.setdefault(manifest.task, []).append(id)
        return found

    def check(self, rule: str, place: str, findings: Iterable[Refusal]) -> bool:
        """Notes what a rule finds. A document that cannot be read fails the rule that needs it."""
        before = len(self.findings)
        try:
            for found in findings:
                self.findings.append(Finding(rule, place, found.code, found.detail))
        except Refusal as refusal:
            self.findings.append(Finding(rule, place, refusal.code, refusal.detail))
        return len(self.findings) == before

    # who signed

    def signers(
        self, id: str, policy: Policy, allowed: Iterable[str], when: int, named: Named = lambda owner, key: True
    ) -> tuple[set[str], list[Refusal]]:
        """Principals of `allowed` whose signature counts (rule "The verdict" 4), and why others do not."""
        document = self.evidence.documents[id]
        fitting, problems = document.signed
        owners: set[str] = set()
        problems = list(problems)
        for signed in fitting:
            try:
                one = self.counting(signed, policy, allowed, when)
                if not named(one.owner, signed.key.id):
                    raise Refusal("POLICY_KEY_PURPOSE", f"signed by {one.owner} in another name")
                owners.add(one.owner)
            except Refusal as refusal:
                problems.append(refusal)
        return owners, problems

    def counting(self, signed: Signed, policy: Policy, allowed: Iterable[str], when: int) -> Enrolled:
        """The entry of the key, if what it signed counts."""
        if signed.key.id in self.revoked:
            raise Refusal("POLICY_KEY_REVOKED", signed.key.id)
        if signed.key.id in self.enrolled:
            raise Refusal("POLICY_KEY_PURPOSE", "an enrolled key signs what names its certificate")
        if signed.key.id not in policy.keys:
            raise Refusal("ENV_KEY_UNKNOWN", signed.key.id)
        one = policy.keys[signed.key.id]
        if one.owner not in allowed:
            raise Refusal("POLICY_KEY_PURPOSE", f"signed by {one.owner}")
        one.check(signed, policy.origins)
        if one.begins is not None and when < one.begins:
            raise Refusal("POLICY_KEY_NOT_YET_VALID", one.owner)
        if one.ends is not None and when >= one.ends:
            raise Refusal("POLICY_KEY_EXPIRED", one.owner)
        return one

    def signed(self, id: str, policy: Policy, allowed: Iterable[str], when: int) -> Iterator[Refusal]:
        yield from _unless_signed(self.signers(id, policy, allowed, when))

    # where a statement belongs

    def policy_of(self, request: Request) -> Policy:
        """The newest policy for the release that a gate is asked about, else the one that the request names."""
        named = self.chain.named(request.policy.id)
        if named is None:
            raise Refusal("POLICY_MISMATCH", request.policy.id)
        return self.chain.newest if request.release == self.at_gate else named

    def authority(self, task: Task) -> tuple[Authorization, Request, Policy]:
        authorization = self.evidence.get(task.about, Authorization)
        request = self.evidence.get(authorization.about, Request)
        return authorization, request, self.policy_of(request)

    def context(self, task: Task) -> Context:
        authorization, request, policy = self.authority(task)
        product = policy.products.get(request.release.product)
        if product is None:
            raise Refusal("POLICY_PRODUCT_UNKNOWN", request.release.product)
        phase, step = product.phases.get(request.phase), product.steps.get(task.step)
        if phase is None or step is None:
            raise Refusal("POLICY_STEP_UNKNOWN", f"{request.phase}, {task.step}")
        return Context(task, authorization, request, policy, product, phase, step)

    def performed(self, id: str) -> bool:
        """Whether a machine signed this manifest that may perform the step of its task."""
        manifest = self.evidence.get(id, Manifest)
        try:
            context = self.context(self.evidence.get(manifest.task, Task))
        except Refusal:
            return False
        return bool(self.performers(id, context.policy, context.step.perform)[0])

    def once_performed(self, id: str, step: str, when: int) -> bool:
        """Whether a machine signed that some policy of the chain lets perform the step."""
        document = self.evidence.documents[id]
        machines = {
            one.machine
            for enrolment, one in self.evidence.all(Enrolment).items()
            if any(signed.key.id == one.key.id for signed in document.signed[0])
            and workers.enrolled_once(self, enrolment, one)
        }
        for policy in self.chain.policies:
            for product in policy.products.values():
                if step in product.steps and machines.intersection(product.steps[step].perform):
                    return True
                if step in product.steps and self.signers(id, policy, product.steps[step].perform, when)[0]:
                    return True
        return False

    def results(self, task: str) -> list[str]:
        """The manifests of a task that count; of several, the one that a resolution names."""
        found = [id for id in self.manifests.get(task, []) if self.performed(id)]
        if len(found) > 1:
            named = {one.manifest for one in self.resolutions(task) if one.manifest}
            found = [id for id in found if {id} == named] or found
        return found

    def resolutions(self, task: str) -> list[Resolution]:
        found = []
        for id, one in self.evidence.all(Resolution).items():
            if one.about == task:
                context = self.context(self.evidence.get(task, Task))
                allowed = context.policy.members(context.product.resolve) & {one.person}
                if self.signers(id, context.policy, allowed, one.created)[0]:
                    found.append(one)
        return found

    # rules of an authorization

    def walk_authorization(self, id: str) -> None:
        place = f"authorization {id[:12]}"
        try:
            authorization = self.evidence.get(id, Authorization)
            request = self.evidence.get(authorization.about, Request)
        except Refusal:
            return  # the task's rules say so
        self.check("request.policy", place, self.request_policy(request))
        try:
            policy = self.policy_of(request)
        except Refusal:
            return
        product = policy.products.get(request.release.product)
        phase = product.phases.get(request.phase) if product else None
        if product is None or phase is None:
            return  # shows at the task
        proposers = policy.members(product.propose)
        self.check("request.signature", place, self.signed(authorization.about, policy, proposers, request.created))
        self.check("request.content", place, self.request_content(request, policy, product))
        self.check("authorization.signature", place, self.signed(id, policy, product.desk, authorization.not_before))
        self.check("authorization.time", place, self.authorization_time(authorization, request, policy))
        self.check("signoff.people", place, self.people(authorization, request, policy, phase, proposers))
        self.check("signoff.objections", place, self.objections(authorization, policy, phase))

    def request_policy(self, request: Request) -> Iterator[Refusal]:
        named = self.chain.named(request.policy.id)
        if named is None or named.version != request.policy.version:
            code = "POLICY_VERSION_GAP" if request.policy.version > self.chain.newest.version else "POLICY_MISMATCH"
            yield Refusal(code, f"version {request.policy.version} ({request.policy.id[:12]})")
            if code != "POLICY_MISMATCH":
                yield Refusal("POLICY_MISMATCH")

    def request_content(self, request: Request, policy: Policy, product: Product) -> Iterator[Refusal]:
        if request.release.instance != policy.instance:
            yield Refusal("CHAIN_INSTANCE_MISMATCH", request.release.instance)
        if request.release.channel not in product.channels:
            yield Refusal("CHAIN_RELEASE_MISMATCH", f"channel {request.release.channel}")
        if request.source.uri != product.source:
            yield Refusal("CHAIN_SOURCE_MISMATCH", request.source.uri)

    def authorization_time(self, word: Authorization, request: Request, policy: Policy) -> Iterator[Refusal]:
        if word.not_before < request.created - policy.skew:
            yield Refusal("CHAIN_TIME_ORDER", "before its request")
        if word.not_before > self.now + policy.skew:
            yield Refusal("CHAIN_TIME_ORDER", "not yet")
        if word.expires > request.expires:
            yield Refusal("CHAIN_STALE", "longer than its request")
        if request.release == self.at_gate and self.now >= word.expires:
            yield Refusal("CHAIN_STALE", "over")

    def people(
        self, word: Authorization, request: Request, policy: Policy, phase: Phase, proposers: set[str]
    ) -> Iterator[Refusal]:
        if not word.approvers:
            yield Refusal("SIGNOFF_MISSING", "nobody")
        proposing = self.signers(word.about, policy, proposers, request.created)[0]
        counted: dict[str, set[str]] = {role: set() for role in phase.approve}
        people = [one.person for one in word.approvers]
        for person in sorted({one for one in people if people.count(one) > 1}):
            yield Refusal("SIGNOFF_PERSON_DUPLICATE", person)
        for approver in word.approvers:
            if approver.signoff not in self.evidence.documents:
                yield Refusal("SIGNOFF_MISSING", approver.signoff)
                continue
            opened = self.evidence.documents[approver.signoff].opened
            if isinstance(opened, Refusal) and opened.code == "ENV_KEY_UNKNOWN":
                yield Refusal("SIGNOFF_CREDENTIAL_UNKNOWN", approver.person)
                continue
            signoff = self.evidence.get(approver.signoff, Signoff)
            problems = list(self.approval(approver.signoff, signoff, word, request, policy, phase))
            if (signoff.person, signoff.role) != (approver.person, approver.role):
                problems.append(Refusal("SIGNOFF_CONTENT_MISMATCH", f"{signoff.person} as {signoff.role}"))
            if not phase.proposer_counts and approver.person in proposing:
                problems.append(Refusal("SIGNOFF_SELF_APPROVAL", approver.person))
            yield from problems
            if not problems:
                counted[approver.role].add(approver.person)
        for role, count in phase.approve.items():
            if len(counted[role]) < count:
                yield Refusal("SIGNOFF_THRESHOLD_NOT_MET", f"{len(counted[role])} of {count} as {role}")

    def approval(
        self, id: str, signoff: Signoff, word: Authorization, request: Request, policy: Policy, phase: Phase
    ) -> Iterator[Refusal]:
        """Why one sign-off does not count."""
        owners, problems = self.signers(id, policy, {signoff.person}, signoff.created)
        if not owners:
            wrong = {one.code for one in problems} & {"POLICY_KEY_PURPOSE", "ENV_KEY_UNKNOWN"}
            if wrong:
                yield Refusal("SIGNOFF_CREDENTIAL_UNKNOWN", signoff.person)
            yield from problems
        if signoff.decision != "approve":
            yield Refusal("SIGNOFF_THRESHOLD_NOT_MET", f"{signoff.person}: {signoff.decision}")
        if signoff.role not in phase.approve or signoff.person not in policy.roles[signoff.role]:
            yield Refusal("SIGNOFF_ROLE", f"{signoff.person} as {signoff.role}")
        files = sum(one.artifacts for one in request.builds_on)
        size = sum(one.bytes for one in request.builds_on)
        same = (
            signoff.about == word.about
            and (signoff.release, signoff.phase, signoff.source) == (request.release, request.phase, request.source)
            and signoff.parameters == request.parameters
            and (signoff.artifacts, signoff.bytes) == (min(files, 2**64 - 1), min(size, 2**64 - 1))
        )
        if not same:
            yield Refusal("SIGNOFF_CONTENT_MISMATCH", f"sign-off {id[:12]}")
        if signoff.created < request.created - policy.skew or signoff.created > word.not_before + policy.skew:
            yield Refusal("CHAIN_TIME_ORDER", f"sign-off {id[:12]}")
        if word.not_before - signoff.created > phase.signoff_max_age or signoff.expires <= word.not_before:
            yield Refusal("SIGNOFF_STALE", f"sign-off {id[:12]}")

    def objections(self, word: Authorization, policy: Policy, phase: Phase) -> Iterator[Refusal]:
        named = {one.signoff: one.person for one in word.approvers}
        voters = {person for role in phase.approve for person in policy.roles[role]}
        for id, signoff in self.evidence.all(Signoff).items():
            if signoff.about != word.about or signoff.decision == "approve":
                continue
            if not self.signers(id, policy, voters & {signoff.person}, signoff.created)[0]:
                continue
            if signoff.decision == "refuse":
                yield Refusal("SIGNOFF_REFUSED", signoff.person)
            elif named.get(signoff.withdraws or "") == signoff.person:
                yield Refusal("SIGNOFF_WITHDRAWN", signoff.person)

    # rules of a task

    def walk_task(self, id: str) -> None:
        place = f"task {id[:12]}"
        self.check("task.signature", place, self.task_signature(id))
        self.check("task.content", place, self.task_content(id))
        self.check("task.inputs", place, self.task_inputs(id))
        self.check("task.time", place, self.task_time(id))

    def task_signature(self, id: str) -> Iterator[Refusal]:
        context = self.context(self.evidence.get(id, Task))
        if context.step.scheduled_by is None:
            yield from self.signed(id, context.policy, context.step.schedule, context.task.created)
            return
        decision = self.decided(id, context)
        if decision is None:
            yield Refusal("CHAIN_TASK_MISSING", f"no manifest of {context.step.scheduled_by} lists it")
        elif self.rests_on_task(decision, id):
            yield Refusal("CHAIN_CYCLE", f"manifest {decision[:12]} rests on what it decided")

    def rests_on_task(self, manifest: str, task: str) -> bool:
        """Whether something behind a manifest is a result of the task."""
        left, seen = [manifest], {manifest}
        while left:
            try:
                one = self.evidence.get(left.pop(), Manifest)
            except Refusal:
                continue
            if one.task == task:
                return True
            decision = self.decision(one.task)
            behind = [*one.given.manifests, decision] if decision else one.given.manifests
            left.extend(id for id in behind if id not in seen)
            seen.update(behind)
        return False

    def decided(self, id: str, context: Context) -> str | None:
        """The manifest of the decision step, under the same authorization, that lists this task's bytes.

        One by a machine that may decide is taken before any other.
        """
        digest = Digests(sha256(self.evidence.documents[id].envelope.payload).hexdigest(), None)
        found = []
        for manifest_id, manifest in self.evidence.all(Manifest).items():
            if manifest.step == context.step.scheduled_by and manifest.task in self.evidence.documents:
                task = self.evidence.documents[manifest.task].opened
                same = isinstance(task, Task) and task.about == context.task.about
                if same and any(made.digests.agrees(digest) for made in manifest.subjects):
                    found.append((not self.performed(manifest_id), manifest_id))
        return min(found)[1] if found else None

    def task_content(self, id: str) -> Iterator[Refusal]:
        context = self.context(self.evidence.get(id, Task))
        task, step = context.task, context.step
        if step.phase != context.request.phase:
            yield Refusal("CHAIN_STEP_MISMATCH", f"step {task.step} in phase {context.request.phase}")
        if task.network and not step.network:
            yield Refusal("STMT_PARAMETER_UNEXPECTED", "network")
        if task.source and not step.source:
            yield Refusal("STMT_PARAMETER_UNEXPECTED", "source")
        elif step.source and task.source != context.request.source:
            yield Refusal("CHAIN_SOURCE_MISMATCH", f"{task.source}")
        if task.destination is None and step.destinations:
            yield Refusal("GATE_DESTINATION_FORBIDDEN", "no destination")
        if task.destination is not None and not _allowed(task.destination, step.destinations):
            yield Refusal("GATE_DESTINATION_FORBIDDEN", task.destination)
        for external in task.externals:
            if not _allowed(external.uri or "", step.externals):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", external.uri or "")
        yield from self.task_downloads(context)
        yield from self.task_image(context)

    def step_of(self, one: TaskInput) -> str:
        if one.task is not None:
            return self.evidence.get(one.task, Task).step
        return self.evidence.get(one.manifest or "", Manifest).step

    def task_downloads(self, context: Context) -> Iterator[Refusal]:
        task, step = context.task, context.step
        if task.downloads is None:
            return
        if task.network:
            yield Refusal("STMT_PARAMETER_UNEXPECTED", "network beside downloads")
        for uri in task.downloads.starts:
            if not _allowed(uri, step.downloads):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", uri)
        if task.downloads.pinned is None and not step.record_downloads:
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", "downloads without pins")
        pinned = [pin.uri or "" for pin in task.downloads.pinned or []]
        for uri in pinned:
            if not task.downloads.covers(uri):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", uri)
        if len(set(pinned)) < len(pinned):
            yield Refusal("STMT_SUBJECT_DUPLICATE", "a URI pinned twice")

    def task_image(self, context: Context) -> Iterator[Refusal]:
        image, (digests, steps) = context.task.image, context.step.images
        if image is None:
            if digests or steps:
                yield Refusal("WORKER_IMAGE_MISMATCH", "no image")
        elif image.digest is not None:
            if image.digest not in digests:
                yield Refusal("WORKER_IMAGE_MISMATCH", image.digest)
        else:
            place = image.place or ""
            giving = [one for one in context.task.inputs if _gives(one, place)]
            made = {self.step_of(one) for one in giving}
            outside = any(f"external/{one.name}" == place for one in context.task.externals)
            if not made or not made <= set(steps) or outside:
                yield Refusal("WORKER_IMAGE_MISMATCH", f"{place}, by {made}")

    def task_inputs(self, id: str) -> Iterator[Refusal]:
        context = self.context(self.evidence.get(id, Task))
        taken: set[tuple[str, bool]] = set()
        for one in context.task.inputs:
            step, same = yield from self.input_from(one, context)
            taken.add((step, same))
            listed = [entry.same for entry in context.step.inputs if entry.step == step]
            if same not in listed:
                yield Refusal("CHAIN_RELEASE_MISMATCH" if listed else "CHAIN_STEP_MISSING", f"an input from {step}")
        for entry in context.step.inputs:
            if entry.required and (entry.step, entry.same) not in taken:
                yield Refusal("CHAIN_STEP_MISSING", f"no input from step {entry.step}")

    def input_from(self, one: TaskInput, context: Context) -> Generator[Refusal, None, tuple[str, bool]]:
        """The step that an input comes from, and whether it is of the same release."""
        if one.task is not None:
            task = self.evidence.get(one.task, Task)
            if task.about != context.task.about:
                yield Refusal("CHAIN_RELEASE_MISMATCH", "a task of another authorization")
            return task.step, True
        named = [entry for entry in context.request.builds_on if entry.manifest == one.manifest]
        if not named:
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", f"{one.manifest} is not in the request")
        manifest = self.evidence.get(one.manifest or "", Manifest)
        if any(entry.step != manifest.step for entry in named):
            yield Refusal("CHAIN_STEP_MISMATCH", f"a manifest of {manifest.step}")
        content = len(manifest.subjects), min(sum(file.size for file in manifest.subjects), 2**64 - 1)
        if any((entry.artifacts, entry.bytes) != content for entry in named):
            yield Refusal("SIGNOFF_CONTENT_MISMATCH", f"{content} in manifest {one.manifest}")
        request = self.authority(self.evidence.get(manifest.task, Task))[1]
        mine, other = context.request.release, request.release
        if other.product != mine.product:
            yield Refusal("CHAIN_PRODUCT_MISMATCH", other.product)
        if other.instance != mine.instance:
            yield Refusal("CHAIN_INSTANCE_MISMATCH", other.instance)
        if other == mine:
            if request.phase not in context.phase.after:
                yield Refusal("CHAIN_RELEASE_MISMATCH", f"from phase {request.phase}")
            if request.source != context.request.source:
                yield Refusal("CHAIN_SOURCE_MISMATCH", f"{request.source}")
        return manifest.step, other == mine

    def task_time(self, id: str) -> Iterator[Refusal]:
        context = self.context(self.evidence.get(id, Task))
        task, word, skew = context.task, context.authorization, context.policy.skew
        if task.created < word.not_before - skew or task.created > self.now + skew:
            yield Refusal("CHAIN_TIME_ORDER", "made before its authorization, or later than now")
        if task.deadline > min(word.expires, task.created + context.step.max_age):
            yield Refusal("CHAIN_STALE", "longer than its authorization or the policy allows")

    # rules of a manifest

    def walk_manifest(self, id: str, single: bool = True) -> None:
        place = f"manifest {id[:12]}"
        self.check("manifest.signature", place, self.manifest_signature(id))
        self.check("manifest.task", place, self.manifest_task(id))
        self.check("manifest.outputs", place, self.manifest_outputs(id))
        self.check("manifest.inputs", place, self.manifest_inputs(id))
        self.check("manifest.source", place, self.manifest_source(id))
        self.check("manifest.environment", place, workers.environment(self, id))
        self.check("manifest.time", place, self.manifest_time(id))
        if single:
            self.check("manifest.single", place, self.manifest_single(id))

    def both(self, id: str) -> tuple[Manifest, Context]:
        manifest = self.evidence.get(id, Manifest)
        return manifest, self.context(self.evidence.get(manifest.task, Task))

    def manifest_signature(self, id: str) -> Iterator[Refusal]:
        _, context = self.both(id)
        yield from _unless_signed(self.performers(id, context.policy, context.step.perform, named=True))

    def manifest_task(self, id: str) -> Iterator[Refusal]:
        manifest = self.evidence.get(id, Manifest)
        if manifest.task not in self.evidence.documents:
            yield Refusal("CHAIN_TASK_MISSING", manifest.task)
        task = self.evidence.get(manifest.task, Task)
        self.authority(task)
        if manifest.step != task.step:
            yield Refusal("CHAIN_STEP_MISMATCH", manifest.step)
        if manifest.command != task.command:
            yield Refusal("GATE_COMMAND_MISMATCH", " ".join(manifest.command)[:80])
        if manifest.destination != task.destination:
            yield Refusal("CHAIN_TASK_MISMATCH", f"destination {manifest.destination}")
        if manifest.creator != task.creator:
            yield Refusal("CHAIN_TASK_MISMATCH", f"creator {manifest.creator}")
        yield from self.used_image(manifest, task)

    def used_image(self, manifest: Manifest, task: Task) -> Iterator[Refusal]:
        used, wanted = manifest.given.image, task.image
        if used is None or wanted is None:
            if used is not None or wanted is not None:
                yield Refusal("WORKER_IMAGE_MISMATCH", "an image that was not asked for, or none")
            return
        if wanted.digest is None:
            if used.name != wanted.place or not self.archive(manifest, task, used.name):
                yield Refusal("WORKER_IMAGE_MISMATCH", used.name)
            return
        allowed = self.context(task).step.images[0]
        if not used.is_it(wanted.digest) or not any(used.is_it(digest) for digest in allowed):
            yield Refusal("WORKER_IMAGE_MISMATCH", used.id)

    def archive(self, manifest: Manifest, task: Task, place: str) -> bool:
        """Whether an archive at this place is among the files that were used."""
        files = {(one.manifest, one.artifact.name) for one in manifest.given.used}
        giving = [one for one in task.inputs if _gives(one, place)]
        return any(
            (upstream, place[len(one.directory) + 1 :]) in files
            for one in giving
            for upstream in self.upstream(one, manifest)
        )

    def manifest_outputs(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        task = context.task
        for made in manifest.subjects:
            if not names.fits(made.name, task.outputs) or not names.fits(made.name, context.step.outputs):
                yield Refusal("ART_UNLISTED", made.name)
            if task.sha512 and made.digests.sha512 is None:
                yield Refusal("STMT_DIGEST_MISSING", made.name)
        for pattern in task.outputs:
            if not any(names.fits(made.name, [pattern]) for made in manifest.subjects):
                yield Refusal("ART_MISSING", pattern)
        if task.destination is None:
            return
        put = {made.name: made for made in manifest.subjects}
        given = {names.last(used.artifact.name): used.artifact for used in manifest.given.used}
        for name in given.keys() - put.keys():
            yield Refusal("ART_MISSING", name)
        for name, made in put.items():
            if name not in given or not made.same(given[name]):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", name)

    def manifest_inputs(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        used: Files = {}
        for one in manifest.given.used:
            if one.download:
                continue
            if (one.manifest, one.artifact.name) in used:
                yield Refusal("STMT_SUBJECT_DUPLICATE", one.artifact.name)
            used[one.manifest, one.artifact.name] = one.artifact
        if sorted(manifest.given.manifests) != sorted({one.manifest for one in manifest.given.used if one.manifest}):
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", "manifests that are named and used differ")
        asked: Files = {}
        for entry in context.task.inputs:
            sources = self.upstream(entry, manifest)
            if len(sources) != 1:
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", f"{len(sources)} manifests for {entry.directory}")
            for upstream in sources:
                asked.update((yield from self.selected(entry, upstream, context)))
        for external in context.task.externals:
            asked[None, external.name] = external
        for key in asked.keys() - used.keys():
            yield Refusal("ART_MISSING", f"{key[1]}, which the task asks for")
        for key, artifact in used.items():
            if key not in asked:
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", key[1])
            elif not artifact.same(asked[key]):
                yield Refusal("ART_DIGEST_MISMATCH", key[1])
            elif artifact.uri != asked[key].uri:
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", artifact.uri or "")
        yield from self.downloaded(manifest, context.task)
        yield from self.agreeing(manifest)

    def downloaded(self, manifest: Manifest, task: Task) -> Iterator[Refusal]:
        files = [one.artifact for one in manifest.given.used if one.download]
        uris = [file.uri or "" for file in files]
        if len(set(uris)) < len(uris):
            yield Refusal("STMT_SUBJECT_DUPLICATE", "one URI twice")
        pins = {pin.uri: pin for pin in (task.downloads.pinned if task.downloads else None) or []}
        for file in files:
            pinned = task.downloads is not None and task.downloads.pinned is not None
            if task.downloads is None or not task.downloads.covers(file.uri or "") or (pinned and file.uri not in pins):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", file.uri or "")
            elif pinned and not file.same(pins[file.uri]):
                yield Refusal("ART_DIGEST_MISMATCH", file.uri or "")

    # several builders

    def builders(self, task: str) -> int:
        """How many machines must agree on the result of a task."""
        try:
            return self.context(self.evidence.get(task, Task)).step.builders
        except Refusal:
            return 1

    def agreeing(self, manifest: Manifest) -> Iterator[Refusal]:
        """That beside each manifest of a step with several builders stand enough that agree with it."""
        left = list(manifest.given.agreeing)
        named = manifest.given.manifests + left
        if len(set(named)) < len(named):
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", "a manifest is named twice")
        for id in manifest.given.manifests:
            one = self.evidence.get(id, Manifest)
            needed = self.builders(one.task)
            if needed == 1:
                continue
            beside = []
            for other_id in manifest.given.agreeing:
                other = self.evidence.get(other_id, Manifest)
                if other.task == one.task:
                    if other_id in left:
                        left.remove(other_id)
                    if _files(other) == _files(one):
                        beside.append(other.builder)
                    else:
                        yield Refusal("CHAIN_THRESHOLD_DISAGREE", f"{other_id[:12]} made something else")
            if len({one.builder, *beside}) < needed:
                yield Refusal("CHAIN_THRESHOLD_DISAGREE", f"{len(beside)} beside {id[:12]}")
        for id in left:
            yield Refusal("CHAIN_INPUT_UNACCOUNTED", f"{id[:12]} agrees with nothing that was used")

    def standing(self, task: str) -> list[str]:
        """The manifests of a task by machines that may perform it, without those that were set aside."""
        found = [id for id in self.manifests.get(task, []) if self.performed(id)]
        words = {one.manifest for one in self.resolutions(task) if one.manifest}
        named = [id for id in found if {id} == words]
        if named:
            files = _files(self.evidence.get(named[0], Manifest))
            found = [id for id in found if _files(self.evidence.get(id, Manifest)) == files]
        return found

    def by_itself(self, id: str) -> bool:
        """Whether the rules 19 to 25 hold for a manifest."""
        if id not in self.sound:
            scratch = Walk(self.evidence, self.chain, self.now, self.at_gate)
            scratch.walk_manifest(id, single=False)
            self.sound[id] = not scratch.findings
        return self.sound[id]

    def together(self, id: str, others: list[str], needed: int) -> list[str] | None:
        """So many manifests with this one, of machines that all differ; none if there are not."""

        def more(chosen: list[str], left: list[str]) -> list[str] | None:
            if len(chosen) == needed:
                return chosen
            for at, one in enumerate(left):
                if all(self.differ(one, other) for other in chosen):
                    found = more([*chosen, one], left[at + 1 :])
                    if found is not None:
                        return found
            return None

        return more([id], [other for other in others if other != id and self.by_itself(other)][:MAX_TWINS])

    def differ(self, one: str, other: str) -> bool:
        """Whether two manifests are of two machines."""
        (first, context), (second, _) = self.both(one), self.both(other)
        sides = []
        for id in (one, other):
            key = workers.speaking(self, id, context.policy, context.step.perform)
            sides.append(workers.known(self, id, context.policy, key))
        told = [
            {(workers.name_of(fact), value) for fact, value in workers.telling(side.verified).items()} for side in sides
        ]
        known, there = sides[0].all, sides[1].all
        apart = all(
            fact in known and fact in there and known[fact] != there[fact] for fact in context.step.builders_differ
        )
        return first.builder != second.builder and not told[0] & told[1] and apart

    def of_several(self, id: str, needed: int) -> tuple[list[str], list[Refusal]]:
        """Those that agree with a manifest, and why there are not enough."""
        standing = self.standing(self.evidence.get(id, Manifest).task)
        made = {id: _files(self.evidence.get(id, Manifest)) for id in {*standing, id}}
        if len({repr(files) for files in made.values()}) > 1:
            return [], [Refusal("CHAIN_THRESHOLD_DISAGREE", "they made different files")]
        chosen = self.together(id, standing, needed)
        if chosen is None:
            return [], [Refusal("CHAIN_THRESHOLD_DISAGREE", f"less than {needed} machines")]
        return chosen, []

    def upstream(self, one: TaskInput, manifest: Manifest) -> list[str]:
        """The manifests that an input was taken from: the one named, or the used one of the task named."""
        if one.manifest is not None:
            return [one.manifest]
        return [id for id in manifest.given.manifests if self.evidence.get(id, Manifest).task == one.task]

    def selected(self, one: TaskInput, upstream: str, context: Context) -> Generator[Refusal, None, Files]:
        """The files of a manifest that an input selects, as they must have been used."""
        found: Files = {}
        for artifact in self.evidence.get(upstream, Manifest).subjects:
            if names.fits(artifact.name, one.patterns):
                found[upstream, artifact.name] = Artifact(artifact.name, artifact.digests, artifact.size)
        for pattern in one.patterns:
            if not any(names.fits(name, [pattern]) for _, name in found):
                yield Refusal("ART_MISSING", f"nothing fits {pattern}")
        return found

    def manifest_source(self, id: str) -> Iterator[Refusal]:
        yield from sources.check(self, id)

    def manifest_time(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        task, skew = context.task, context.policy.skew
        named = manifest.given.manifests + manifest.given.agreeing
        begun = [self.evidence.get(one, Manifest).finished for one in named]
        if (
            manifest.started < max([task.created, *begun]) - skew
            or manifest.finished < manifest.started
            or manifest.finished > self.now + skew
        ):
            yield Refusal("CHAIN_TIME_ORDER", "before its task or inputs, or after now")
        if manifest.started > task.deadline + skew:
            yield Refusal("CHAIN_STALE", "started too late")

    def manifest_single(self, id: str) -> Iterator[Refusal]:
        task = self.evidence.get(id, Manifest).task
        if self.builders(task) > 1:
            yield from self.of_several(id, self.builders(task))[1]
            return
        results = self.results(task)
        if any(one != id for one in results):
            yield Refusal("CHAIN_FORKED", " ".join(one[:12] for one in results))

    # the walk itself

    def walk(self, roots: Iterable[str], deep: bool = True, vouched: Iterable[str] = ()) -> None:
        """From manifests back to people and source, each document once; not behind those that are vouched for."""
        left, seen = list(roots), set(roots)
        tasks: set[str] = set()
        authorizations: set[str] = set()
        while left:
            id = left.pop()
            self.walk_manifest(id)
            try:
                manifest = self.evidence.get(id, Manifest)
            except Refusal:
                continue
            if manifest.task not in tasks:
                tasks.add(manifest.task)
                self.walk_chain(manifest.task, authorizations)
                decision = self.decision(manifest.task)
                if decision and decision not in seen:
                    seen.add(decision)
                    left.append(decision)
            needed = self.builders(manifest.task)
            twins = [one for one in self.of_several(id, needed)[0] if one not in seen] if needed > 1 else []
            seen.update(twins)
            left.extend(twins)
            if deep and id not in vouched:
                left.extend(one for one in manifest.given.manifests if one not in seen)
                seen.update(manifest.given.manifests)

        self.check("manifest.single", "chain", self.planned_twice(seen))

    def planned_twice(self, walked: set[str]) -> Iterator[Refusal]:
        """Different results of two tasks that are the same but for creator, times and nonce."""
        jobs: dict[str, list[Artifact]] = {}
        for id in sorted(walked & self.evidence.documents.keys()):
            try:
                manifest = self.evidence.get(id, Manifest)
                task = self.evidence.get(manifest.task, Task)
            except Refusal:
                continue
            job = repr(replace(task, creator="", created=0, deadline=0, nonce=""))
            made = sorted(manifest.subjects, key=lambda one: one.name)
            if jobs.setdefault(job, made) != made:
                yield Refusal("CHAIN_FORKED", f"step {task.step} was planned twice")

    def walk_chain(self, task: str, authorizations: set[str]) -> None:
        """A task and, once, its authorization."""
        if task not in self.evidence.documents:
            return  # the manifest's rules say so
        self.walk_task(task)
        try:
            word = self.evidence.get(task, Task).about
        except Refusal:
            return
        if word not in authorizations:
            authorizations.add(word)
            self.walk_authorization(word)

    def decision(self, task: str) -> str | None:
        try:
            context = self.context(self.evidence.get(task, Task))
        except Refusal:
            return None
        return self.decided(task, context) if context.step.scheduled_by else None

    def vouched(self, id: str, task: Task, gates: Iterable[str]) -> bool:
        """Whether gates verified what the task takes from this manifest (statements.md, Verification summary)."""
        if self.at_gate is None or id not in self.evidence.documents:
            return False
        try:
            manifest = self.evidence.get(id, Manifest)
        except Refusal:
            return False
        release = self.at_gate
        resource = f"custody:{release.product}/{release.version}/{release.channel}/{release.instance}"
        listed: list[Artifact] = []
        for summary_id, summary in self.evidence.all(Summary).items():
            right = summary.passed and summary.resource == resource and summary.policy == self.chain.ids[-1]
            if right and id in summary.rests_on and self.vouching(summary_id, summary, gates):
                listed += summary.subjects
        asked = [one.patterns for one in task.inputs if one.manifest == id or one.task == manifest.task]
        taken = [made for made in manifest.subjects if any(names.fits(made.name, patterns) for patterns in asked)]
        return bool(taken) and all(made in listed for made in taken)

    def vouching(self, id: str, summary: Summary, gates: Iterable[str]) -> bool:
        """Whether one of these gates signed the summary with the key that it names."""
        owners, _ = self.signers(
            id, self.chain.newest, gates, summary.verified, lambda _, key: summary.verifier == GATE + key
        )
        return bool(owners)


def _unless_signed(found: tuple[set[str], list[Refusal]]) -> Iterator[Refusal]:
    owners, problems = found
    if not owners:
        yield from problems


def _files(manifest: Manifest) -> list[Artifact]:
    return sorted(manifest.subjects, key=lambda one: one.name)


def _gives(one: TaskInput, place: str) -> bool:
    """Whether an input may put something at this place."""
    start = one.directory + "/"
    return place.startswith(start) and names.fits(place[len(start) :], one.patterns)


def _allowed(uri: str, listed: list[str]) -> bool:
    """Whole, or the beginning with `/` at its end; and plain, so that it leads nowhere else."""
    return plain_uri(uri) and any(uri == one or (one.endswith("/") and uri.startswith(one)) for one in listed)
