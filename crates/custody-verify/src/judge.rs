//! Questions and their answers.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;

use custody_core::digest::Digests;
use custody_core::envelope::StatementId;
use custody_core::statement::{Label, Manifest, ReleaseId};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::checks::authorization::{self, Tally};
use crate::docket::{Asked, Docket, InTurn, Spread};
use crate::evidence::Evidence;
use crate::policy::{Product, listed};
use crate::report::Report;
use crate::trust::PolicyChain;
use crate::walk::{File, Memo, Trail, Walk};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// About what.
    pub subject: Subject,
    /// Which release it must belong to.
    pub expect: Expectation,
}

/// What is asked about.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A file: where does it come from?
    Artifact {
        /// Its name, as far as it is known: the last segment of an artifact's name, or all of it.
        name: String,
        /// Its digests.
        digests: Digests,
        /// Its size in bytes.
        size: u64,
    },
    /// A task: may it start now? This is the gate, and the newest policy decides.
    Task(StatementId),
    /// Manifests and tasks, to be looked at with all that they rest on: a whole release, done or under
    /// way. Their report has every check and accepts nothing, because no file was asked about.
    Documents(BTreeSet<StatementId>),
}

/// The release that the asker has in mind. What is absent is not asked.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// The product.
    pub product: Option<Label>,
    /// The version.
    pub version: Option<Label>,
    /// The channel.
    pub channel: Option<Label>,
    /// The instance.
    pub instance: Option<Label>,
    /// The step that must have made a file. Without one, a file of a product that is published must
    /// come from a publication: what was built and not shipped is not what users should have.
    pub step: Option<Label>,
    /// The machine that asks at the gate of a task, where several machines do it.
    pub machine: Option<Label>,
}

impl Expectation {
    /// The expectation of exactly this release.
    pub fn of(release: &ReleaseId) -> Self {
        Self {
            product: Some(release.product.clone()),
            version: Some(release.version.clone()),
            channel: Some(release.channel.clone()),
            instance: Some(release.instance.clone()),
            step: None,
            machine: None,
        }
    }

    pub(crate) fn check_release(&self, release: &ReleaseId) -> Result<(), Refusal> {
        let pairs = [
            (&self.product, &release.product, Code::ChainProductMismatch),
            (&self.version, &release.version, Code::ChainReleaseMismatch),
            (&self.channel, &release.channel, Code::ChainReleaseMismatch),
            (&self.instance, &release.instance, Code::ChainInstanceMismatch),
        ];
        for (wanted, found, code) in pairs {
            if let Some(wanted) = wanted.as_ref().filter(|wanted| *wanted != found) {
                return Err(Refusal::new(
                    code,
                    "the release",
                    wanted.to_string(),
                    format!("{found}, in {release}"),
                ));
            }
        }
        Ok(())
    }

    /// Whether a file may come from this manifest: from the step that was asked for, or else from one
    /// that publishes, where the policy that the release was made under has any.
    pub(crate) fn check_step(&self, product: &Product, manifest: &Manifest) -> Result<(), Refusal> {
        let at = format!("manifest of step {}", manifest.step);
        if let Some(step) = &self.step {
            let same = *step == manifest.step;
            let refuse = || {
                Refusal::new(
                    Code::ChainStepMismatch,
                    at,
                    step.to_string(),
                    manifest.step.to_string(),
                )
            };
            return if same { Ok(()) } else { Err(refuse()) };
        }
        let publishing = || {
            product
                .steps
                .iter()
                .filter(|(_, step)| !step.destinations.is_empty())
                .map(|(name, _)| name)
        };
        if publishing().next().is_none() || publishing().any(|step| *step == manifest.step) {
            return Ok(());
        }
        let expected = format!("a publication, by step {}", listed(publishing()));
        Err(Refusal::new(
            Code::ChainStepMissing,
            at,
            expected,
            format!("step {}, which publishes nothing", manifest.step),
        ))
    }
}

/// Most statements that one question may be asked of.
pub const MAX_STATEMENTS: usize = 1_000_000;
/// Most manifests that one walk visits.
pub const MAX_MANIFESTS: usize = 100_000;
/// Most manifests that are tried as the origin of one file.
const MAX_CANDIDATES: usize = 32;

/// Judges the subject by the evidence and the policies, for the moment `now`.
///
/// The same arguments give the same report, in whatever order evidence was added. The work is linear
/// in statements and links and bounded by [`MAX_STATEMENTS`] and [`MAX_MANIFESTS`]. For several
/// questions about the same evidence there is [`Judge`].
pub fn verify(
    question: &Question,
    evidence: &Evidence,
    policies: &PolicyChain,
    now: Time,
) -> Report {
    Judge::new(&Docket::open(evidence, policies, now, &InTurn)).verify(question)
}

/// Counts the sign-offs of a request, for the desk that is to authorize it at `now`. An error says
/// that the request itself is not to be believed.
pub fn tally(
    request: StatementId,
    evidence: &Evidence,
    policies: &PolicyChain,
    now: Time,
) -> Result<Tally, Refusal> {
    let docket = Docket::open(evidence, policies, now, &InTurn);
    authorization::tally(&docket.case.asked(Asked::Desk), request)
}

/// Answers questions about one docket. What was checked for one file is not checked again for the
/// next: the answers are those that [`verify`] gives.
#[derive(Clone, Debug)]
pub struct Judge<'d> {
    docket: &'d Docket<'d>,
    memo: Memo<'d>,
    trails: BTreeMap<Option<StatementId>, Arc<Trail>>,
}

impl<'d> Judge<'d> {
    /// A judge who has not heard anything yet.
    pub fn new(docket: &'d Docket<'d>) -> Self {
        Self { docket, memo: Memo::default(), trails: BTreeMap::new() }
    }

    /// One who has looked at every document, side by side where the spread does, for many questions. Clones
    /// share what it has seen.
    pub fn of_all(docket: &'d Docket<'d>, spread: &impl Spread) -> Self {
        Self { docket, memo: Memo::of_all(&docket.case, spread), trails: BTreeMap::new() }
    }

    /// The report on one question.
    pub fn verify(&mut self, question: &Question) -> Report {
        let expect = &question.expect;
        match &question.subject {
            Subject::Task(id) => {
                let case = self.docket.case.asked(Asked::Gate(*id));
                Walk::new(&case, &mut Memo::default()).gate(*id, expect)
            }
            Subject::Documents(roots) => Walk::new(&self.docket.case, &mut self.memo).survey(roots),
            Subject::Artifact { name, digests, size } => {
                self.explain(&File { name, digests, size: *size }, expect)
            }
        }
    }

    /// Tries the manifests that list the file, publications first. The first that is accepted
    /// explains it; if none is, the faults are reported of the first that is what was asked for at
    /// all.
    fn explain(&mut self, file: &File<'_>, expect: &Expectation) -> Report {
        let mut best: Option<Report> = None;
        let candidates = self.docket.case.candidates(file.digests, expect.step.as_ref());
        for id in candidates.into_iter().take(MAX_CANDIDATES) {
            let report = self.from(Some(id), file, expect);
            if report.accepted().is_some() {
                return report;
            }
            let fits = |report: &Report| report.subject().findings().next().is_none();
            if best.as_ref().is_none_or(|best| !fits(best) && fits(&report)) {
                best = Some(report);
            }
        }
        best.unwrap_or_else(|| self.from(None, file, expect))
    }

    fn from(
        &mut self,
        start: Option<StatementId>,
        file: &File<'_>,
        expect: &Expectation,
    ) -> Report {
        let case = &self.docket.case;
        let trail = self.trails.entry(start).or_insert_with(|| {
            let mut walk = Walk::new(case, &mut self.memo);
            walk.follow(start);
            Arc::new(walk.end())
        });
        file.report(case, &mut self.memo, start, trail, expect)
    }
}

/// Text of strangers, fit to be shown on one line.
pub(crate) fn shown(text: &str) -> String {
    let plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\'' | b'\\');
    if text.len() <= 200 && text.bytes().all(plain) {
        return text.into();
    }
    text.escape_debug().take(200).collect()
}
