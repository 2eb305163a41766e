"""The walk and its rules: docs/formats/verification.md. Rules are named as there."""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from functools import cached_property
from typing import Callable, Generator, Iterable, Iterator

from . import names
from .evidence import Evidence
from .policy import Phase, Policy, Product, Step, plain_uri
from .refusal import Refusal
from .statements import (
    GATE,
    WORKER,
    Artifact,
    Authorization,
    Digests,
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

    # what is there, found once

    @cached_property
    def revoked(self) -> set[str]:
        return self.chain.revoked

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
                if signed.key.id in self.revoked:
                    raise Refusal("POLICY_KEY_REVOKED", signed.key.id)
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
                if not named(one.owner, signed.key.id):
                    raise Refusal("POLICY_KEY_PURPOSE", f"signed by {one.owner} in another name")
                owners.add(one.owner)
            except Refusal as refusal:
                problems.append(refusal)
        return owners, problems

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
        return bool(self.signers(id, context.policy, context.step.perform, manifest.finished)[0])

    def once_performed(self, id: str, step: str, when: int) -> bool:
        """Whether a machine signed that some policy of the chain lets perform the step."""
        for policy in self.chain.policies:
            for product in policy.products.values():
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
        files = [artifact for one in request.builds_on for artifact in one.artifacts]
        same = (
            signoff.about == word.about
            and (signoff.release, signoff.phase, signoff.source) == (request.release, request.phase, request.source)
            and signoff.parameters == request.parameters
            and (signoff.artifacts, signoff.bytes) == (len(files), sum(file.size for file in files))
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
            behind = [*one.manifests, decision] if decision else one.manifests
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

    def walk_manifest(self, id: str) -> None:
        place = f"manifest {id[:12]}"
        self.check("manifest.signature", place, self.manifest_signature(id))
        self.check("manifest.task", place, self.manifest_task(id))
        self.check("manifest.outputs", place, self.manifest_outputs(id))
        self.check("manifest.inputs", place, self.manifest_inputs(id))
        self.check("manifest.source", place, self.manifest_source(id))
        self.check("manifest.time", place, self.manifest_time(id))
        self.check("manifest.single", place, self.manifest_single(id))

    def both(self, id: str) -> tuple[Manifest, Context]:
        manifest = self.evidence.get(id, Manifest)
        return manifest, self.context(self.evidence.get(manifest.task, Task))

    def manifest_signature(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        perform, when = context.step.perform, manifest.finished
        found = self.signers(id, context.policy, perform, when, lambda owner, _: manifest.builder == WORKER + owner)
        yield from _unless_signed(found)

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
        given = {names.last(used.artifact.name): used.artifact for used in manifest.used}
        for name in given.keys() - put.keys():
            yield Refusal("ART_MISSING", name)
        for name, made in put.items():
            if name not in given or not made.same(given[name]):
                yield Refusal("CHAIN_INPUT_UNACCOUNTED", name)

    def manifest_inputs(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        used: Files = {}
        for one in manifest.used:
            if (one.manifest, one.artifact.name) in used:
                yield Refusal("STMT_SUBJECT_DUPLICATE", one.artifact.name)
            used[one.manifest, one.artifact.name] = one.artifact
        if sorted(manifest.manifests) != sorted({one.manifest for one in manifest.used if one.manifest}):
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

    def upstream(self, one: TaskInput, manifest: Manifest) -> list[str]:
        """The manifests that an input was taken from: the one named, or the used one of the task named."""
        if one.manifest is not None:
            return [one.manifest]
        return [id for id in manifest.manifests if self.evidence.get(id, Manifest).task == one.task]

    def selected(self, one: TaskInput, upstream: str, context: Context) -> Generator[Refusal, None, Files]:
        """The files of a manifest that an input selects, as they must have been used."""
        found: Files = {}
        approved = [
            artifact
            for entry in context.request.builds_on
            if entry.manifest == upstream
            for artifact in entry.artifacts
        ]
        for artifact in self.evidence.get(upstream, Manifest).subjects:
            if names.fits(artifact.name, one.patterns):
                plain = Artifact(artifact.name, artifact.digests, artifact.size)
                found[upstream, artifact.name] = plain
                if one.manifest:
                    yield from _approved(plain, approved)
        for pattern in one.patterns:
            if not any(names.fits(name, [pattern]) for _, name in found):
                yield Refusal("ART_MISSING", f"nothing fits {pattern}")
        return found

    def manifest_source(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        if manifest.source != context.task.source:
            yield Refusal("CHAIN_SOURCE_MISMATCH", f"{manifest.source}")

    def manifest_time(self, id: str) -> Iterator[Refusal]:
        manifest, context = self.both(id)
        task, skew = context.task, context.policy.skew
        begun = [self.evidence.get(one, Manifest).finished for one in manifest.manifests]
        if (
            manifest.started < max([task.created, *begun]) - skew
            or manifest.finished < manifest.started
            or manifest.finished > self.now + skew
        ):
            yield Refusal("CHAIN_TIME_ORDER", "before its task or inputs, or after now")
        if manifest.started > task.deadline + skew:
            yield Refusal("CHAIN_STALE", "started too late")

    def manifest_single(self, id: str) -> Iterator[Refusal]:
        results = self.results(self.evidence.get(id, Manifest).task)
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
            if deep and id not in vouched:
                left.extend(one for one in manifest.manifests if one not in seen)
                seen.update(manifest.manifests)

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


def _approved(file: Artifact, approved: list[Artifact]) -> Iterator[Refusal]:
    same = [one for one in approved if one.name == file.name]
    if not same:
        yield Refusal("SIGNOFF_CONTENT_MISMATCH", f"nobody signed off {file.name}")
    elif not any(one.same(file) for one in same):
        yield Refusal("ART_DIGEST_MISMATCH", f"another {file.name} was signed off")


def _allowed(uri: str, listed: list[str]) -> bool:
    """Whole, or the beginning with `/` at its end; and plain, so that it leads nowhere else."""
    return plain_uri(uri) and any(uri == one or (one.endswith("/") and uri.startswith(one)) for one in listed)
