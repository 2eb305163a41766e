//! `custody verify`

use std::collections::BTreeMap;
use std::fs::FileType;
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{Artifact, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::gate;
use custody_run::run::hash_file;
use custody_store::{Store, bundle};
use custody_verify::{Evidence, Expectation, Floor, PolicyChain, Question, Report, Subject};

use crate::chart;
use crate::context::{
    ExpectArgs, PassphraseArgs, StoreArgs, now, open_key, read, trusted, write_new,
};
use crate::error::{Error, REJECTED};
use crate::seen::Seen;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Files, or directories with all files in them
    #[arg(required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    expect: ExpectArgs,
    /// The artifact's name, where the file has another
    #[arg(long)]
    name: Option<String>,
    /// Write a page about the one file that explains itself, for people and printers
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write a SLSA verification summary of the one file, signed with --key
    #[arg(long, value_name = "FILE", requires = "key")]
    summary: Option<PathBuf>,
    /// The gate's key for --summary
    #[arg(long, value_name = "KEY", requires = "summary")]
    key: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

/// Where evidence comes from, and which policy is believed.
#[derive(Args, Clone, Debug)]
pub(super) struct EvidenceArgs {
    /// Evidence from this store, and its pin
    #[arg(long, value_name = "DIR", conflicts_with_all = ["bundles", "pin"])]
    pub(super) store: Option<PathBuf>,
    /// Evidence from this bundle; by default from every *.custody.jsonl beside the file
    #[arg(long = "bundle", value_name = "FILE")]
    pub(super) bundles: Vec<PathBuf>,
    /// Statement id of the policy that you trust
    #[arg(long, value_name = "ID")]
    pub(super) pin: Option<StatementId>,
    /// Judge as of this time instead of now
    #[arg(long, value_name = "TIME")]
    at: Option<Time>,
}

pub(crate) fn run(args: &VerifyArgs, ui: &Ui) -> Result<(), Error> {
    let Wanted { files, sums } = files(&args.files)?;
    let alone = args.summary.is_some() || args.name.is_some() || args.html.is_some();
    if files.len() != 1 && alone {
        return Err(Error::Usage("--summary, --html and --name go with one file".into()));
    }
    let mut worst = 0;
    let mut good = BTreeMap::new();
    for file in &files {
        match judge_file(file, args.name.as_deref(), &args.evidence, &args.expect) {
            Ok(Judged { report, sha256, basis }) => {
                ui.report(&report);
                if let Some(path) = &args.html {
                    let page = chart::page(&chart::Story::of(&report, &basis.evidence));
                    write_new(path, page.as_bytes())?;
                }
                if let Some(accepted) = report.accepted() {
                    good.insert(file.clone(), sha256);
                    args.summary
                        .as_deref()
                        .map(|path| summarize(args, &accepted, path))
                        .transpose()?;
                } else {
                    worst = worst.max(REJECTED);
                }
            }
            Err(error) if files.len() > 1 => {
                ui.failed(&error);
                worst = worst.max(error.exit());
            }
            Err(error) => return Err(error),
        }
    }
    for file in &sums {
        if let Err(error) = check_sums(file, &good) {
            ui.failed(&error);
            worst = worst.max(error.exit());
        }
    }
    if worst == 0 { Ok(()) } else { Err(Error::Several(worst)) }
}

/// Check sums that lie in a directory with the files: each line is about one that was accepted.
fn check_sums(path: &Path, good: &BTreeMap<PathBuf, Sha256>) -> Result<(), Error> {
    let text = String::from_utf8_lossy(&read(path)?).into_owned();
    let wrong = text.lines().find(|line| {
        let (digest, name) = line.split_once("  ").unwrap_or_default();
        good.get(&path.with_file_name(name)).is_none_or(|sha256| sha256.to_string() != digest)
    });
    match wrong.or(text.is_empty().then_some("nothing")) {
        None => Ok(()),
        Some(line) => {
            let found: String = line.chars().take(200).collect();
            let expected = "check sums of accepted files beside it, and nothing else";
            let at = format!("file {}", path.display());
            Err(Refusal::new(Code::ArtUnlisted, at, expected, found).into())
        }
    }
}

/// What is to be verified.
struct Wanted {
    files: Vec<PathBuf>,
    /// Check sums beside the files of a directory.
    sums: Vec<PathBuf>,
}

fn files(paths: &[PathBuf]) -> Result<Wanted, Error> {
    let (mut found, mut sums) = (Vec::new(), Vec::new());
    for path in paths {
        let kind = path.metadata().map_err(Error::io(path))?.file_type();
        if !kind.is_dir() {
            regular(path, kind)?;
            found.push(path.clone());
            continue;
        }
        for entry in path.read_dir().map_err(Error::io(path))? {
            let entry = entry.map_err(Error::io(path))?;
            let inner = entry.path();
            regular(&inner, entry.file_type().map_err(Error::io(path))?)?;
            let ends = |end| inner.to_string_lossy().ends_with(end);
            if ends(".sha256") {
                sums.push(inner);
            } else if !ends(".custody.jsonl") {
                found.push(inner);
            }
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(Refusal::new(
            Code::ChainStepMissing,
            "the directory",
            "files to verify",
            "none",
        )
        .into());
    }
    Ok(Wanted { files: found, sums })
}

/// Refuses what is no plain file before anything opens it: a pipe would never end.
fn regular(path: &Path, kind: FileType) -> Result<(), Error> {
    if kind.is_file() {
        return Ok(());
    }
    let at = path.display().to_string();
    Err(Refusal::new(
        Code::ArtNotRegular,
        at,
        "a plain file",
        if kind.is_dir() { "a directory" } else { "a link, pipe, socket or device" },
    )
    .into())
}

/// What a verdict rests on.
pub(super) struct Basis {
    pub(super) evidence: Evidence,
    pub(super) policies: PolicyChain,
    pub(super) floor: Option<Floor>,
    pub(super) now: Time,
    seen: Option<Seen>,
}

impl Basis {
    /// From bundles: the pin is the asker's own word, and what was seen before is remembered for it.
    pub(super) fn from_bundles(args: &EvidenceArgs, bundles: &[PathBuf]) -> Result<Self, Error> {
        let now = args.at.map_or_else(now, Ok)?;
        let pin = args.pin.ok_or_else(|| {
            let expected = "the statement id of the policy that you trust: --pin ID";
            Refusal::new(
                Code::PolicyUntrusted,
                "the command line",
                expected,
                "no --pin; what a bundle says of itself proves nothing",
            )
        })?;
        let mut envelopes: Vec<Envelope> = Vec::new();
        for path in bundles {
            envelopes.extend(
                bundle::read(&read(path)?)
                    .map_err(|refusal| refusal.within(&path.display().to_string()))?,
            );
        }
        let seen = Seen::of(pin)?;
        // judging for another time than now is looking back, which what was seen since must not prevent
        let floor = if args.at.is_some() { None } else { seen.floor()? };
        let policies = PolicyChain::establish(pin, &envelopes, floor)?;
        let seen = args.at.is_none().then_some(seen);
        Ok(Self { evidence: envelopes.into_iter().collect(), policies, floor, now, seen })
    }

    /// From a store: all that can matter for a file of these digests, or everything.
    pub(super) fn from_store(
        args: &EvidenceArgs,
        dir: &Path,
        digests: Option<&Digests>,
    ) -> Result<Self, Error> {
        let store = StoreArgs { store: dir.into() }.open()?;
        let (now, policies, floor) = if let Some(time) = args.at {
            (time, gate::policies_looking_back(&store)?, None)
        } else {
            let now = now()?;
            let (policies, floor) = trusted(&store, now)?;
            (now, policies, floor)
        };
        let roots = digests.map(|digests| store.manifests_of(&digests.sha256)).transpose()?;
        let roots = roots.unwrap_or_default();
        let evidence =
            if roots.is_empty() { everything(&store)? } else { gate::gather(&store, &roots)? };
        Ok(Self { evidence, policies, floor, now, seen: None })
    }

    pub(super) fn judge(&self, subject: Subject, expect: Expectation) -> Result<Report, Error> {
        let question = Question { subject, expect, floor: self.floor };
        let report = custody_verify::verify(&question, &self.evidence, &self.policies, self.now);
        if let (Some(seen), Some(_)) = (&self.seen, report.accepted()) {
            let (policy, newest) = self.policies.newest();
            seen.raise(Floor { version: newest.version, policy, time: self.now })?;
        }
        Ok(report)
    }

    /// The release that a bundle speaks for: that of the manifests which no other manifest in it
    /// builds on. A file of an older release in the same bundle is not what its holder asks about.
    pub(super) fn speaks_for(&self) -> Expectation {
        let opened: Vec<_> = self
            .evidence
            .iter()
            .filter_map(|envelope| envelope.open::<Statement>(self.policies.keyring()).ok())
            .collect();
        let used = |id| {
            opened
                .iter()
                .filter_map(|signed| signed.unverified().as_manifest())
                .any(|manifest| manifest.upstream.contains(&id))
        };
        let find = |id| {
            opened
                .iter()
                .find(|signed| signed.id() == id)
                .map(custody_core::envelope::Signed::unverified)
        };
        let release = |task| {
            let task = find(task)?.as_task()?;
            let authorization = find(task.authorization)?.as_authorization()?;
            Some(&find(authorization.request)?.as_request()?.release)
        };
        let last = opened
            .iter()
            .filter(|signed| signed.unverified().as_manifest().is_some() && !used(signed.id()));
        let mut releases =
            last.filter_map(|signed| release(signed.unverified().as_manifest()?.task));
        let first = releases.next();
        let one = releases.all(|other| Some(other) == first);
        first.filter(|_| one).map_or_else(Expectation::default, Expectation::of)
    }
}

/// A file whose digest nobody knows is looked for by name, to say what it should have been.
fn everything(store: &Store) -> Result<Evidence, Error> {
    Ok(store.list(custody_store::Filter::default())?.into_iter().collect())
}

/// A file that was judged.
pub(super) struct Judged {
    pub(super) report: Report,
    pub(super) basis: Basis,
    sha256: Sha256,
}

/// Judges one file, by the bundles beside it unless the arguments name other evidence.
pub(super) fn judge_file(
    file: &Path,
    name: Option<&str>,
    from: &EvidenceArgs,
    expect: &ExpectArgs,
) -> Result<Judged, Error> {
    let name = match (name, file.file_name()) {
        (Some(name), _) => name.to_owned(),
        (None, Some(name)) => name.to_string_lossy().into_owned(),
        (None, None) => return Err(Error::Usage(format!("{} is no file", file.display()))),
    };
    let hash = |sha512| hash_file(file, sha512).map_err(Error::io(file));
    let (digests, size) = hash(false)?;
    let basis = match &from.store {
        Some(dir) => Basis::from_store(from, dir, Some(&digests))?,
        None if from.bundles.is_empty() => Basis::from_bundles(from, &beside(file)?)?,
        None => Basis::from_bundles(from, &from.bundles)?,
    };
    let asked = expect.expectation();
    let named = from.store.is_some() || !expect.names_no_release();
    let expect = if named { asked } else { Expectation { step: asked.step, ..basis.speaks_for() } };
    let judge = |digests, size| {
        basis.judge(Subject::Artifact { name: name.clone(), digests, size }, expect.clone())
    };
    let mut report = judge(digests, size)?;
    // SHA-512 costs more than twice as much: it is computed where somebody recorded it
    let recorded = |artifact: &Artifact| artifact.digests.sha512.is_some();
    if report.accepted().is_some_and(|accepted| accepted.artifacts().iter().any(recorded)) {
        let (digests, size) = hash(true)?;
        report = judge(digests, size)?;
    }
    Ok(Judged { report, sha256: digests.sha256, basis })
}

/// The bundles that lie beside a file. They are evidence like any other: nothing in them is believed.
fn beside(file: &Path) -> Result<Vec<PathBuf>, Error> {
    let directory =
        file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in directory.read_dir().map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        if path.to_string_lossy().ends_with(".custody.jsonl") {
            found.push(path);
        }
    }
    found.sort();
    if found.is_empty() {
        let at = directory.display().to_string();
        return Err(Refusal::new(
            Code::ChainLinkMissing,
            at,
            "a bundle (*.custody.jsonl) beside the file, or --bundle, or --store",
            "none",
        )
        .into());
    }
    Ok(found)
}

fn summarize(
    args: &VerifyArgs,
    accepted: &custody_verify::Accepted<'_>,
    path: &Path,
) -> Result<(), Error> {
    let key = args.key.as_deref().ok_or_else(|| Error::Usage("--summary needs --key".into()))?;
    let signer = open_key(key, &args.passphrase)?;
    let verifier = format!("{}gate/{}", custody_core::BASE_URI, signer.public_key().id());
    let mut envelope = Statement::from(accepted.summary(&verifier)).to_envelope();
    custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
    write_new(path, (envelope.to_json() + "\n").as_bytes())
}
