//! What the platforms of this machine say of it: documents that they signed, kept as they are for the
//! judge, and what they merely set, as claims.
//!
//! Which platforms are asked is the worker's word: nothing is guessed. They are asked before the command
//! runs, and from outside it, so nothing that a command does or leaves gets in. Where a platform signs
//! something of the asker's choice, that is the binding to the task and to the worker's key
//! ([`custody_core::statement::binding`]). Nothing is verified here: that is the judge's.

mod azure;
mod ci;
mod ec2;
mod google;
mod http;
mod kubernetes;
mod program;
mod said;
mod tpm;

use std::path::PathBuf;

use custody_core::digest::Sha256;
use custody_core::limits::ATTESTATIONS;
use custody_core::statement::{Attestation, Label, Manifest};
use custody_core::{Code, Refusal};

use self::said::Said;
pub use self::tpm::Tpm;

/// A platform that the worker asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// What the policy calls it.
    pub label: Label,
    /// How it is asked.
    pub kind: Kind,
}

/// The kinds of platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Amazon EC2: the instance identity document.
    Ec2,
    /// Google Compute Engine: an identity token of the instance.
    Google,
    /// Azure: the attested document of the virtual machine.
    Azure,
    /// GitHub Actions: an identity token of the job.
    Github,
    /// GitLab CI: the identity token that the job is given.
    Gitlab,
    /// Buildkite: an identity token of the job.
    Buildkite,
    /// Kubernetes: a token of the pod's service account; from this file, or made for this run.
    Kubernetes(Option<PathBuf>),
    /// Taskcluster: what it sets in the environment of a task. It signs nothing.
    Taskcluster,
    /// Jenkins: what it sets in the environment of a build. It signs nothing.
    Jenkins,
    /// A TPM 2.0: a quote of what was measured at boot.
    Tpm(Tpm),
}

impl Kind {
    /// The kinds by the names that people and policies use.
    pub const NAMES: [&str; 10] = [
        "ec2",
        "google",
        "azure",
        "github",
        "gitlab",
        "buildkite",
        "kubernetes",
        "taskcluster",
        "jenkins",
        "tpm",
    ];

    fn ask(&self, binding: &Sha256) -> Result<Said, Unanswered> {
        // only what a kind asks for by name is looked at
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        match self {
            Self::Ec2 => ec2::ask(),
            Self::Google => google::ask(binding),
            Self::Azure => azure::ask(binding),
            Self::Github => ci::github(&variable, binding),
            Self::Gitlab => ci::gitlab(&variable),
            Self::Buildkite => ci::buildkite(&variable, binding),
            Self::Kubernetes(token) => kubernetes::ask(&variable, token.as_deref(), binding),
            Self::Taskcluster => ci::taskcluster(&variable),
            Self::Jenkins => ci::jenkins(&variable),
            Self::Tpm(tpm) => tpm.ask(binding),
        }
    }
}

/// Reads variables of the worker's own environment.
type Variables<'v> = &'v dyn Fn(&str) -> Option<String>;

/// What was expected of a platform, and what came instead.
#[derive(Debug, PartialEq, Eq)]
struct Unanswered {
    expected: String,
    found: String,
}

impl Unanswered {
    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self { expected: expected.into(), found: found.into() }
    }
}

/// What the platforms said, until it is in the manifest.
#[derive(Clone, Debug, Default)]
pub struct Collected {
    attestations: Vec<Attestation>,
    claims: Vec<(String, String)>,
}

impl Collected {
    /// Asks all of them. One that does not answer is [`Code::GateUnavailable`]: a worker that was to
    /// prove its machine does not go on without.
    pub fn from(platforms: &[Platform], binding: &Sha256) -> Result<Self, Refusal> {
        let mut collected = Self::default();
        for platform in platforms {
            let label = &platform.label;
            let said = platform.kind.ask(binding).map_err(|unanswered| {
                let at = format!("platform {label}");
                Refusal::new(Code::GateUnavailable, at, unanswered.expected, unanswered.found)
                    .advising(format!(
                        "see that {label} answers on this machine, then run the task again; \
                         --platform {label} is for machines of it only"
                    ))
            })?;
            let named = |(name, value): (String, String)| (format!("{label}.{name}"), value);
            collected.claims.extend(said.facts.into_iter().map(named));
            if !said.parts.is_empty() {
                let parts = said.parts.into_iter().map(|(name, bytes)| Ok((name.parse()?, bytes)));
                collected.attestations.push(Attestation {
                    platform: label.clone(),
                    parts: parts.collect::<Result<_, Refusal>>()?,
                });
            }
        }
        Ok(collected)
    }

    /// The documents alone, for an enrolment.
    pub fn into_attestations(self) -> Vec<Attestation> {
        self.attestations
    }

    /// Writes it into a manifest: the documents, and beside what the worker measured what they say, for
    /// readers who cannot verify them.
    pub fn enter(self, manifest: &mut Manifest) {
        manifest.attestations = self.attestations;
        manifest.environment.extend(self.claims);
        manifest.environment.sort();
    }
}

/// Refuses platforms that a manifest has no room for: two of a name, or too many.
pub fn check(platforms: &[Platform]) -> Result<(), Refusal> {
    let mut labels: Vec<&Label> = platforms.iter().map(|platform| &platform.label).collect();
    labels.sort();
    if let Some([twice, _]) = labels.array_windows().find(|[one, other]| one == other) {
        let found = format!("two called {twice}");
        let expected = "each platform once; NAME=KIND gives one another name";
        return Err(Refusal::new(Code::StmtSubjectDuplicate, "--platform", expected, found));
    }
    if labels.len() > ATTESTATIONS {
        let (expected, found) = (format!("at most {ATTESTATIONS}"), labels.len().to_string());
        return Err(Refusal::new(Code::ParseCountExceeded, "--platform", expected, found));
    }
    Ok(())
}
