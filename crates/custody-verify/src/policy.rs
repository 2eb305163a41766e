//! The policy: who may do what. People write it in TOML; the signed bytes are that very text.
//!
//! A [`Policy`] is whole and free of contradictions. Whether anybody signed it is the business of
//! [`trust`](crate::trust).

pub(crate) mod demand;
mod source;
mod text;

pub(crate) use source::SIGNED_SOURCE;
pub use source::SourceSignatures;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::num::NonZeroU32;

use custody_core::envelope::{Form, Keyring, Signer, StatementId};
use custody_core::key::{KeyId, PublicKey};
use custody_core::name::Pattern;
use custody_core::statement::Label;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::Platform;

pub use self::demand::{AllowedImage, Demand, Standing};

/// A fault in the text of a policy, with its place. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFault {
    /// What is wrong.
    pub code: Code,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// The line's text.
    pub excerpt: String,
    /// What is wrong there.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl core::fmt::Display for PolicyFault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}: line {}, column {}: {}", self.code, self.line, self.column, self.message)
    }
}

impl core::error::Error for PolicyFault {}

impl From<PolicyFault> for Refusal {
    fn from(fault: PolicyFault) -> Self {
        let at = format!("policy, line {}, column {}", fault.line, fault.column);
        Self::new(fault.code, at, fault.remedy, fault.message)
    }
}

/// Advice about the text of a policy that is sound. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// What is unwise there.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// What there is to say about the text of a policy, in the order of the text.
#[derive(Clone, Debug, Default)]
pub struct Review {
    /// The policy, if it has no fault.
    pub policy: Option<Policy>,
    /// What is wrong: all that is independent of other faults. A blank that a template left is a fault
    /// here, also where it could be a name.
    pub faults: Vec<PolicyFault>,
    /// What is allowed and unwise, if nothing is wrong.
    pub warnings: Vec<Hint>,
}

/// Who may do what.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Versions count up from 1 without gaps.
    pub version: u64,
    /// The statement id of the version before; version 1 has none.
    pub previous: Option<StatementId>,
    /// At this moment it ends.
    pub expires: Time,
    /// The instance that it speaks for.
    pub instance: Label,
    /// How far the clocks of machines may differ, in seconds.
    pub clock_skew: u64,
    /// The people whose signatures make the next version.
    pub root: Quorum,
    /// Web origins on which passkeys may sign off.
    pub origins: Vec<String>,
    /// Everybody who can sign anything.
    pub principals: BTreeMap<Label, Principal>,
    /// What is known of the platforms of machines, by the name under which their word is cited.
    pub platforms: BTreeMap<Label, Platform>,
    /// Certificates that never count again.
    pub revoked_enrolments: BTreeSet<StatementId>,
    /// Groups of people.
    pub roles: BTreeMap<Label, BTreeSet<Label>>,
    /// What is released.
    pub products: BTreeMap<Label, Product>,
    owners: BTreeMap<KeyId, Label>,
}

/// Some principals, of whom so many must sign.
#[derive(Clone, Debug)]
pub struct Quorum {
    /// Who.
    pub members: BTreeSet<Label>,
    /// How many of them.
    pub threshold: NonZeroU32,
}

/// A person or a machine.
#[derive(Clone, Debug)]
pub struct Principal {
    /// People sign with SSHSIG, machines plainly.
    pub is_person: bool,
    /// The keys.
    pub keys: Vec<Key>,
    /// How a machine's own keys are enrolled, if they are.
    pub enrol: Option<Enrol>,
}

/// Who enrols a machine's own keys, and what must be proved for it.
#[derive(Clone, Debug)]
pub struct Enrol {
    /// The machines whose certificates count.
    pub by: BTreeSet<Label>,
    /// What the platforms must have proved.
    pub demands: Vec<Demand>,
    /// How long a certificate may hold, in seconds.
    pub max_certificate: u64,
}

/// A key of a principal.
#[derive(Clone, Debug)]
pub struct Key {
    /// The key.
    pub key: PublicKey,
    /// Before this moment it signs nothing.
    pub from: Option<Time>,
    /// From this moment on it signs nothing more.
    pub until: Option<Time>,
    /// It never counts again, whatever time its signatures claim.
    pub revoked: bool,
    /// A security key must have checked who touched it.
    pub user_verification: bool,
    /// What holds of the machine whenever the key signs.
    pub machine: BTreeMap<String, String>,
}

/// Something that is released.
#[derive(Clone, Debug)]
pub struct Product {
    /// The one repository that it is built from, compared byte for byte.
    pub source: String,
    /// Where submodules of it may come from: beginnings of URIs.
    pub submodules: Vec<String>,
    /// Whether pointers of git LFS in it stand for the files that they name.
    pub lfs: bool,
    /// Whose signature it must carry, if anybody's.
    pub source_signatures: Option<SourceSignatures>,
    /// The channels that it has.
    pub channels: BTreeSet<Label>,
    /// The machines that may issue authorizations.
    pub desk: BTreeSet<Label>,
    /// The people and machines that may propose.
    pub propose: BTreeSet<Label>,
    /// The people who may resolve what is in doubt.
    pub resolve: BTreeSet<Label>,
    /// Its phases.
    pub phases: BTreeMap<Label, Phase>,
    /// Its steps.
    pub steps: BTreeMap<Label, Step>,
}

/// A part of a release that people start together.
#[derive(Clone, Debug)]
pub struct Phase {
    /// Which roles must approve, and how many people of each.
    pub approve: Vec<(Label, NonZeroU32)>,
    /// Whether the proposer's own approval counts.
    pub proposer_counts: bool,
    /// How old a sign-off may be when the authorization begins, in seconds.
    pub signoff_max_age: u64,
    /// The phases of the same release that it may build on.
    pub after: BTreeSet<Label>,
}

/// One process of the pipeline.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the policy's own yes and no")]
pub struct Step {
    /// The phase that it belongs to.
    pub phase: Label,
    /// The machines that may perform it.
    pub perform: BTreeSet<Label>,
    /// The machines that may sign its tasks.
    pub schedule: BTreeSet<Label>,
    /// The step whose products may be its tasks.
    pub scheduled_by: Option<Label>,
    /// Whether it is given the source.
    pub source: bool,
    /// Where its inputs may come from.
    pub inputs: Vec<StepInput>,
    /// Where its pinned external files may come from: beginnings of URIs.
    pub externals: Vec<String>,
    /// Where its command may fetch, through the worker: beginnings of URIs that end with `/`, or whole
    /// ones.
    pub downloads: Vec<String>,
    /// Whether its tasks need not pin what is fetched.
    pub record_downloads: bool,
    /// The names that its outputs may have.
    pub outputs: Vec<Pattern>,
    /// Whether its command may use the network.
    pub network: bool,
    /// Whether its gate verifies everything back to the source, or the direct inputs only.
    pub full: bool,
    /// Whether it does what cannot be taken back.
    pub irrevocable: bool,
    /// Where it may publish: beginnings of URIs that end with `/`, or whole ones.
    pub destinations: Vec<String>,
    /// How long after a task was made its run may start, in seconds.
    pub max_age: u64,
    /// The gates whose verification summaries replace walking further back.
    pub summaries: BTreeSet<Label>,
    /// The container images that it may run in. Without any it runs in none.
    pub images: Option<Vec<AllowedImage>>,
    /// What must hold of its machine.
    pub machine: Vec<Demand>,
    /// How many machines must have made the same.
    pub builders: NonZeroU32,
    /// The facts in which those machines must differ.
    pub builders_differ: BTreeSet<String>,
}

/// A step that inputs may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInput {
    /// The step.
    pub step: Label,
    /// Whether they may, and must, come from another release of the same product.
    pub other_release: bool,
    /// Whether the step must take something from there: a scan that nobody may skip.
    pub required: bool,
}

impl Policy {
    /// Reads and checks the text of a policy.
    pub fn parse(text: &str) -> Result<Self, PolicyFault> {
        text::read(text)
    }

    /// Reads the text of a policy for whoever writes it, at the time `now`.
    pub fn review(text: &str, now: Time) -> Review {
        text::review(text, now)
    }

    /// All keys that it lists.
    pub fn keyring(&self) -> Keyring {
        let keys = self.principals.values().flat_map(|principal| &principal.keys);
        keys.map(|entry| entry.key.clone()).collect()
    }

    /// The product, or why not.
    pub fn product(&self, product: &Label) -> Result<&Product, Refusal> {
        self.products.get(product).ok_or_else(|| {
            Refusal::new(
                Code::PolicyProductUnknown,
                "request",
                listed(self.products.keys()),
                product.to_string(),
            )
        })
    }

    fn entry(&self, key: &KeyId) -> Option<(&Label, &Principal, &Key)> {
        let owner = self.owners.get(key)?;
        let principal = self.principals.get(owner)?;
        principal
            .keys
            .iter()
            .find(|entry| entry.key.id() == *key)
            .map(|entry| (owner, principal, entry))
    }

    /// What the policy says of the machine of a key.
    pub(crate) fn tied(&self, key: &KeyId) -> Option<&BTreeMap<String, String>> {
        self.entry(key).map(|(_, _, entry)| &entry.machine)
    }

    /// Whether it demands anything of the machine of a step for which this key signs.
    pub fn demands(&self, step: &Step, key: &KeyId) -> bool {
        let is_tied = self.tied(key).is_some_and(|tie| !tie.is_empty());
        is_tied || !step.machine.is_empty() || step.images.is_some()
    }

    /// A moment at which the key is valid, as far as its window goes.
    pub(crate) fn moment_within(&self, key: &KeyId) -> Time {
        self.entry(key).and_then(|(_, _, entry)| entry.from).unwrap_or(Time::EPOCH)
    }

    /// The principal who owns the key.
    pub fn owner(&self, key: &KeyId) -> Option<&Label> {
        self.owners.get(key)
    }

    /// The principal behind a signer, if it is one of `allowed`, its key was valid at `when`, and it
    /// signed in the form that fits its kind. `purpose` says in messages what was signed.
    pub fn entitled(
        &self,
        signer: &Signer,
        allowed: &BTreeSet<Label>,
        when: Time,
        purpose: &str,
    ) -> Result<String, Refusal> {
        let refuse = |code, expected: String, found: String| {
            Err(Refusal::new(code, purpose, expected, found))
        };
        let Some((owner, principal, entry)) = self.entry(&signer.key) else {
            let found = format!(
                "a key of no principal of policy {} ({})",
                self.version,
                signer.key.short()
            );
            return refuse(Code::EnvKeyUnknown, listed(allowed), found);
        };
        if entry.revoked {
            return refuse(
                Code::PolicyKeyRevoked,
                "a key that holds".into(),
                format!("{owner}'s revoked key {}", signer.key.short()),
            );
        }
        if !allowed.contains(owner) {
            return refuse(
                Code::PolicyKeyPurpose,
                format!("a signature by {}", listed(allowed)),
                format!("one by {owner}"),
            );
        }
        if let Some(from) = entry.from.filter(|from| when < *from) {
            return refuse(
                Code::PolicyKeyNotYetValid,
                format!("a time from {from}"),
                when.to_string(),
            );
        }
        if let Some(until) = entry.until.filter(|until| when >= *until) {
            return refuse(
                Code::PolicyKeyExpired,
                format!("a time before {until}"),
                when.to_string(),
            );
        }
        self.check_form(signer, principal, entry, owner, purpose)?;
        Ok(owner.to_string())
    }

    fn check_form(
        &self,
        signer: &Signer,
        principal: &Principal,
        entry: &Key,
        owner: &Label,
        purpose: &str,
    ) -> Result<(), Refusal> {
        let refuse =
            |code, expected: &str, found: String| Err(Refusal::new(code, purpose, expected, found));
        if entry.user_verification && signer.form == Form::Ssh(None) {
            let found = format!("{owner}'s plain key");
            return refuse(Code::SignoffUvRequired, "a security key that checks its user", found);
        }
        let facts = match (&signer.form, principal.is_person) {
            (Form::Plain, false) | (Form::Ssh(None), true) => return Ok(()),
            (Form::Plain, true) => {
                return refuse(
                    Code::EnvAlgForbidden,
                    "an SSH signature, as people sign",
                    format!("{owner}'s plain signature"),
                );
            }
            (Form::Ssh(_), false) => {
                return refuse(
                    Code::EnvAlgForbidden,
                    "a plain signature, as machines sign",
                    format!("{owner}'s SSH signature"),
                );
            }
            (Form::Ssh(Some(facts)), true) => facts,
        };
        if !facts.user_present {
            return refuse(
                Code::SignoffUpRequired,
                "a touch of the security key",
                format!("{owner}'s key, untouched"),
            );
        }
        if entry.user_verification && !facts.user_verified {
            return refuse(
                Code::SignoffUvRequired,
                "PIN or fingerprint",
                format!("{owner}'s touch alone"),
            );
        }
        match &facts.origin {
            Some(origin) if !self.origins.contains(origin) => refuse(
                Code::SignoffOrigin,
                &self.origins.join(", "),
                origin.escape_default().take(120).collect(),
            ),
            _ => Ok(()),
        }
    }
}

impl Product {
    /// The step, or why not.
    pub fn step(&self, step: &Label) -> Result<&Step, Refusal> {
        self.steps.get(step).ok_or_else(|| {
            Refusal::new(
                Code::PolicyStepUnknown,
                format!("step {step}"),
                listed(self.steps.keys()),
                step.to_string(),
            )
        })
    }
}

impl Step {
    /// Whether it may publish there: an exact destination, or one below an entry that ends with `/`.
    pub fn allows_destination(&self, destination: &str) -> bool {
        self.destinations
            .iter()
            .any(|allowed| allowed == destination || below(allowed, destination))
    }

    /// Whether several machines must agree on what it makes.
    pub fn is_shared(&self) -> bool {
        self.builders > NonZeroU32::MIN
    }

    /// Whether an external file may come from there.
    pub fn allows_external(&self, uri: &str) -> bool {
        self.externals.iter().any(|allowed| allowed == uri || below(allowed, uri))
    }

    /// Whether a task may let its command fetch there: a beginning of URIs, or a whole one.
    pub fn allows_download(&self, from: &str) -> bool {
        self.downloads.iter().any(|allowed| allowed == from || below(allowed, from))
    }
}

fn below(allowed: &str, uri: &str) -> bool {
    let climbs = uri.contains("..") || uri.contains('%') || uri.contains('@') || uri.contains('\\');
    allowed.ends_with('/') && uri.starts_with(allowed) && !climbs
}

/// Names in a sentence.
pub(crate) fn listed<'l>(labels: impl IntoIterator<Item = &'l Label>) -> String {
    let mut names: Vec<&str> = labels.into_iter().map(Label::as_str).collect();
    if names.len() > 8 {
        names.truncate(8);
        names.push("…");
    }
    if names.is_empty() { "nobody".into() } else { names.join(", ") }
}
