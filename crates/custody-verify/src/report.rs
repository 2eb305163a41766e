//! The report: every check with its outcome, and the verdict that follows from them.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::statement::{Artifact, ReleaseId, Summary, Task, VerificationResult};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::policy::Standing;
use crate::walk::Trail;

macro_rules! rules {
    ($($variant:ident $name:literal $sentence:literal;)+) => {
        /// One rule of the judge. The numbers of docs/formats/verification.md follow this order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule { $(#[doc = $sentence] $variant,)+ }

        impl Rule {
            /// All rules, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The rule in words.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence,)+ }
            }
        }
    };
}

rules! {
    EvidenceBudget "evidence.budget" "the evidence is within the limits";
    EvidenceIntact "evidence.intact" "no document that the chain misses is there in a changed form";
    PolicyFresh "policy.fresh" "the newest policy has not expired, and the clock is not behind";
    SubjectExplained "subject.explained" "a manifest lists the file by name, size and every digest";
    SubjectExpected "subject.expected" "it belongs to the release that was asked for";
    GateInputs "gate.inputs" "the inputs of the task exist, once each";
    GateOnce "gate.once" "the task has not been done, and is not in doubt";
    RequestSignature "request.signature" "the request is signed by somebody who may propose";
    RequestPolicy "request.policy" "the request names a policy of the rotation chain";
    RequestContent "request.content" "product, channel, instance, phase and source are the policy's";
    AuthorizationSignature "authorization.signature" "the authorization is signed by the release desk";
    AuthorizationTime "authorization.time" "the authorization falls into the request's time and holds";
    SignoffPeople "signoff.people" "enough different people in the required roles approved exactly this";
    SignoffObjections "signoff.objections" "nobody who may approve has refused or withdrawn";
    TaskSignature "task.signature" "the task is signed by a scheduler, or made by an accepted decision step";
    TaskContent "task.content" "the step, and all that the task asks for, is what the policy allows";
    TaskInputs "task.inputs" "the task takes inputs from allowed steps of its own release or from what people approved";
    TaskTime "task.time" "the task was made under its authorization and is not too old";
    ManifestSignature "manifest.signature" "the manifest is signed by a machine that may perform the step";
    ManifestTask "manifest.task" "step, command, destination and creator are the task's";
    ManifestOutputs "manifest.outputs" "the outputs have names that task and policy allow, and none is missing";
    ManifestInputs "manifest.inputs" "every input is explained, and everything asked for was used";
    ManifestSource "manifest.source" "the source is the one that people approved, brings along what the policy allows, and carries the signature that it demands";
    ManifestEnvironment "manifest.environment" "the machine is as the policy demands";
    ManifestTime "manifest.time" "the run fits between its task, its inputs and now";
    ManifestSingle "manifest.single" "the task has one result, on which as many machines agree as the policy asks for";
    ManifestReceipt "manifest.receipt" "the transparency log has it";
    SummaryAccepted "summary.accepted" "a gate that the policy trusts has verified what lies behind";
}

/// How a check ended. There is no fourth way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The rule holds.
    Passed,
    /// The rule does not hold.
    Failed(Refusal),
    /// This policy does not ask for it; the text says what that means.
    NotRequired(&'static str),
}

/// One rule applied to one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The rule.
    pub rule: Rule,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a node of the chain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NodeKind {
    /// What was asked about.
    Subject,
    /// A manifest.
    Manifest,
    /// A task.
    Task,
    /// An authorization with its request and its sign-offs.
    Authorization,
}

/// A fact about the machine of a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineFact {
    /// Its name, like `ec2.image-id`.
    pub name: String,
    /// How well it is known.
    pub standing: Standing,
    /// What it is, unless it is absent.
    pub value: Option<String>,
}

/// One document of the chain, with what was checked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Its statement id; the subject has none.
    pub id: Option<StatementId>,
    /// What it is called in sentences.
    pub title: String,
    /// Facts for people, in order: a word and what it is.
    pub facts: Vec<(&'static str, String)>,
    /// What is known of the machine, by name, and how well.
    pub machine: Vec<MachineFact>,
    /// The documents that it rests on.
    pub rests_on: Vec<StatementId>,
    /// The checks, in the order of the rules.
    pub checks: Vec<Check>,
}

impl Node {
    pub(crate) fn new(kind: NodeKind, id: Option<StatementId>, title: String) -> Self {
        Self {
            kind,
            id,
            title,
            facts: Vec::new(),
            machine: Vec::new(),
            rests_on: Vec::new(),
            checks: Vec::new(),
        }
    }

    pub(crate) fn check(&mut self, rule: Rule, result: Result<(), Refusal>) {
        let outcome = match result {
            Ok(()) => Outcome::Passed,
            Err(refusal) => Outcome::Failed(refusal),
        };
        self.checks.push(Check { rule, outcome });
    }

    pub(crate) fn not_required(&mut self, rule: Rule, why: &'static str) {
        self.checks.push(Check { rule, outcome: Outcome::NotRequired(why) });
    }

    #[expect(clippy::needless_pass_by_value, reason = "values and references alike")]
    pub(crate) fn fact(&mut self, word: &'static str, value: impl ToString) {
        self.facts.push((word, value.to_string()));
    }

    /// The rules that did not hold.
    pub fn findings(&self) -> impl Iterator<Item = (Rule, &Refusal)> {
        self.checks.iter().filter_map(|check| match &check.outcome {
            Outcome::Failed(refusal) => Some((check.rule, refusal)),
            Outcome::Passed | Outcome::NotRequired(_) => None,
        })
    }
}

/// A file that a gate lets a task have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedInput {
    /// The file.
    pub artifact: Artifact,
    /// The manifest that made it.
    pub manifest: StatementId,
    /// The directory under `inputs/`.
    pub directory: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) release: ReleaseId,
    pub(crate) task: Option<(StatementId, Task)>,
    /// Whether other machines must do the task too.
    pub(crate) shared: bool,
    pub(crate) inputs: Vec<AcceptedInput>,
    /// Manifests that agree with those of the inputs.
    pub(crate) agreeing: BTreeSet<StatementId>,
    pub(crate) artifacts: Vec<Artifact>,
}

/// The outcome of every check, in fixed order: the same question on the same evidence gives the same
/// report, byte for byte. Nobody makes acceptance out of a refusal by tidying it:
///
/// ```compile_fail,E0616
/// fn tidy(report: &mut custody_verify::Report, good: &custody_verify::Report) {
///     report.trail = good.trail.clone();
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The time for which it was judged.
    pub time: Time,
    /// The newest policy: version and statement id.
    pub policy: (u64, StatementId),
    /// How many statements were searched for refusals, withdrawals and forks.
    pub view: usize,
    subject: Node,
    trail: Arc<Trail>,
    outcomes: Option<Outcomes>,
}

/// The proof that a report accepts: publishing and running ask for it. Only
/// [`Report::accepted`] makes one.
///
/// ```
/// fn read(accepted: custody_verify::Accepted<'_>) -> &custody_verify::Report {
///     accepted.report()
/// }
/// ```
///
/// ```compile_fail,E0451
/// fn forge(report: &custody_verify::Report) -> custody_verify::Accepted<'_> {
///     custody_verify::Accepted { report, outcomes: todo!() }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Accepted<'r> {
    report: &'r Report,
    outcomes: &'r Outcomes,
}

impl<'r> Accepted<'r> {
    /// The task that the gate lets start, if a task was asked about.
    pub fn task(&self) -> Option<(StatementId, &'r Task)> {
        self.outcomes.task.as_ref().map(|(id, task)| (*id, task))
    }

    /// The files that the task is given.
    pub fn inputs(&self) -> &'r [AcceptedInput] {
        &self.outcomes.inputs
    }

    /// The manifests of other machines that agree with those that made the files.
    pub fn agreeing(&self) -> impl Iterator<Item = StatementId> + 'r {
        self.outcomes.agreeing.iter().copied()
    }

    /// Whether several machines must do the task, each for itself.
    pub const fn is_shared(&self) -> bool {
        self.outcomes.shared
    }

    /// The files that the verdict is about, as their manifest lists them.
    pub fn artifacts(&self) -> &'r [Artifact] {
        &self.outcomes.artifacts
    }

    /// The release.
    pub fn release(&self) -> &'r ReleaseId {
        &self.outcomes.release
    }

    /// The report.
    pub const fn report(&self) -> &'r Report {
        self.report
    }

    /// The verdict as a SLSA verification summary in the name of `verifier`.
    pub fn summary(&self, verifier: &str) -> Summary {
        let release = self.release();
        let statements: BTreeSet<StatementId> =
            self.report.nodes().filter_map(|node| node.id).collect();
        Summary {
            artifacts: self.outcomes.artifacts.clone(),
            verifier: verifier.to_string(),
            verified: self.report.time,
            resource_uri: resource_uri(release),
            policy_uri: format!("{}policy/v1", custody_core::BASE_URI),
            policy: self.report.policy.1,
            inputs: statements.into_iter().collect(),
            result: VerificationResult::Passed,
            levels: Vec::from([LEVEL.to_string()]),
        }
    }
}

/// What a summary says of artifacts whose whole chain was accepted.
pub(crate) const LEVEL: &str = "CUSTODY_CHAIN_VERIFIED";

/// How summaries name a release.
pub(crate) fn resource_uri(release: &ReleaseId) -> String {
    format!(
        "custody:{}/{}/{}/{}",
        release.product, release.version, release.channel, release.instance
    )
}

impl Report {
    pub(crate) fn new(
        time: Time,
        policy: (u64, StatementId),
        view: usize,
        subject: Node,
        trail: Arc<Trail>,
        outcomes: Option<Outcomes>,
    ) -> Self {
        Self { time, policy, view, subject, trail, outcomes }
    }

    /// What was asked about.
    pub const fn subject(&self) -> &Node {
        &self.subject
    }

    /// The chain, subject first.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        core::iter::once(&self.subject).chain(self.trail.nodes.iter().map(|node| &**node))
    }

    /// The rules that did not hold, in the order of the chain.
    pub fn findings(&self) -> impl Iterator<Item = (&Node, Rule, &Refusal)> {
        self.nodes()
            .flat_map(|node| node.findings().map(move |(rule, refusal)| (node, rule, refusal)))
    }

    /// The codes of all findings, without repetition, the primary one first.
    pub fn codes(&self) -> Vec<Code> {
        let codes: BTreeSet<Code> = self.findings().map(|(_, _, refusal)| refusal.code).collect();
        codes.into_iter().collect()
    }

    /// The token of acceptance, if there is a chain and every check of it passed or is not required.
    pub fn accepted(&self) -> Option<Accepted<'_>> {
        let whole = self.trail.holds && self.subject.findings().next().is_none();
        self.outcomes.as_ref().filter(|_| whole).map(|outcomes| Accepted { report: self, outcomes })
    }

    /// The report for machines.
    pub fn to_json(&self) -> Value<'static> {
        let ok = self.accepted().is_some();
        let codes = self.codes();
        Value::object([
            ("ok", Value::Bool(ok)),
            ("question", Value::text(&self.subject.title)),
            ("time", Value::text(self.time)),
            (
                "policy",
                Value::object([
                    ("version", Value::Integer(self.policy.0)),
                    ("id", Value::text(self.policy.1)),
                ]),
            ),
        ])
        .with("code", codes.first().map(Value::text))
        .with("codes", Some(Value::list(codes.iter().map(Value::text))))
        .with("release", self.outcomes.as_ref().map(|outcomes| Value::text(&outcomes.release)))
        .with("statementsSearched", u64::try_from(self.view).ok().map(Value::Integer))
        .with("nodes", Some(Value::list(self.nodes().map(node_json))))
    }
}

fn node_json(node: &Node) -> Value<'static> {
    let check = |check: &Check| {
        let (outcome, refusal, why) = match &check.outcome {
            Outcome::Passed => ("passed", None, None),
            Outcome::Failed(refusal) => ("failed", Some(refusal), None),
            Outcome::NotRequired(why) => ("not-required", None, Some(*why)),
        };
        Value::object([("rule", Value::text(check.rule.name())), ("outcome", Value::text(outcome))])
            .with("why", why.map(Value::text))
            .with("code", refusal.map(|refusal| Value::text(refusal.code)))
            .with("at", refusal.map(|refusal| Value::text(&refusal.at)))
            .with("expected", refusal.map(|refusal| Value::text(&refusal.expected)))
            .with("found", refusal.map(|refusal| Value::text(&refusal.found)))
            .with("remedy", refusal.map(|refusal| Value::text(refusal.remedy())))
    };
    let facts = node.facts.iter().map(|(word, value)| {
        Value::object([("is", Value::text(word)), ("value", Value::text(value))])
    });
    let machine = node.machine.iter().map(|fact| {
        Value::object([
            ("fact", Value::text(&fact.name)),
            ("standing", Value::text(fact.standing.name())),
        ])
        .with("value", fact.value.as_ref().map(Value::text))
    });
    let machine = (node.kind == NodeKind::Manifest).then(|| Value::list(machine));
    Value::object([("document", Value::text(&node.title))])
        .with("id", node.id.map(Value::text))
        .with("facts", Some(Value::list(facts)))
        .with("machine", machine)
        .with("restsOn", Some(Value::list(node.rests_on.iter().map(Value::text))))
        .with("checks", Some(Value::list(node.checks.iter().map(check))))
}
