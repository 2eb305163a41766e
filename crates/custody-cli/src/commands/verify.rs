//! `custody verify`

use std::collections::{BTreeMap, BTreeSet};
use std::fs::FileType;
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{Artifact, Manifest, Statement, gate_uri};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::gate::{self, AllCores};
use custody_run::hash::hash_file;
use custody_store::Store;
use custody_verify::{
    Docket, Evidence, Expectation, Floor, Judge, PolicyChain, Question, Report, Subject,
};
use rayon::prelude::*;

use crate::chart;
use crate::context::{
    ExpectArgs, PassphraseArgs, StoreArgs, now, open_key, read, read_bundle, write_new,
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
    let mut failed = |error: Error| {
        if files.len() == 1 {
            return Err(error);
        }
        worst = worst.max(error.exit());
        ui.failed(&error);
        Ok(())
    };
    for group in groups(&args.evidence, &files) {
        let hashed: Vec<_> =
            group.files.par_iter().map(|file| Held::new(args.name.as_deref(), file)).collect();
        let mut held = Vec::new();
        for file in hashed {
            match file {
                Ok(file) => held.push(file),
                Err(error) => failed(error)?,
            }
        }
        match verify_group(args, &group, &held, ui) {
            Ok(accepted) if accepted.len() == held.len() => good.extend(accepted),
            Ok(accepted) => {
                good.extend(accepted);
                failed(Error::Several(REJECTED))?;
            }
            Err(error) => failed(error)?,
        }
    }
    for file in &sums {
        check_sums(file, &good).or_else(&mut failed)?;
    }
    if worst == 0 { Ok(()) } else { Err(Error::Several(worst)) }
}

/// Files that are judged by the same evidence.
pub(super) struct Group<'f> {
    files: Vec<&'f Path>,
    /// Where the evidence is, if it lies beside the files.
    directory: Option<&'f Path>,
}

pub(super) fn groups<'f>(from: &EvidenceArgs, files: &'f [PathBuf]) -> Vec<Group<'f>> {
    let beside = from.store.is_none() && from.bundles.is_empty();
    let directory = |file: &'f Path| {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        beside.then_some(parent.unwrap_or(Path::new(".")))
    };
    let mut groups: BTreeMap<Option<&Path>, Vec<&Path>> = BTreeMap::new();
    for file in files {
        groups.entry(directory(file)).or_default().push(file);
    }
    groups.into_iter().map(|(directory, files)| Group { files, directory }).collect()
}

/// A file that somebody holds, with what it is.
pub(super) struct Held<'f> {
    path: &'f Path,
    name: String,
    digests: Digests,
    size: u64,
}

impl<'f> Held<'f> {
    pub(super) fn new(name: Option<&str>, path: &'f Path) -> Result<Self, Error> {
        let name = match (name, path.file_name()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(name)) => name.to_string_lossy().into_owned(),
            (None, None) => return Err(Error::Usage(format!("{} is no file", path.display()))),
        };
        let (digests, size) = hash_file(path, false).map_err(Error::io(path))?;
        Ok(Self { path, name, digests, size })
    }

    fn subject(&self, digests: Digests, size: u64) -> Subject {
        Subject::Artifact { name: self.name.clone(), digests, size }
    }
}

impl Group<'_> {
    /// Judges files of the group; `hear` is told how each fares.
    pub(super) fn judge(
        &self,
        held: &[Held<'_>],
        from: &EvidenceArgs,
        expect: &ExpectArgs,
        mut hear: impl FnMut(&Held<'_>, &Report, &Evidence) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let basis = match (&from.store, self.directory) {
            (Some(dir), _) => Basis::from_store(from, dir, held)?,
            (None, Some(directory)) => Basis::from_bundles(from, &beside(directory)?)?,
            (None, None) => Basis::from_bundles(from, &from.bundles)?,
        };
        let docket = basis.docket();
        let mut judge = Judge::new(&docket);
        let asked = expect.expectation();
        let named = from.store.is_some() || !expect.names_no_release();
        let expect =
            if named { asked } else { Expectation { step: asked.step, ..speaks_for(&docket) } };
        let mut remembered = false;
        for file in held {
            let mut ask = |digests, size| {
                let subject = file.subject(digests, size);
                judge.verify(&Question { subject, expect: expect.clone() })
            };
            let mut report = ask(file.digests, file.size);
            // SHA-512 costs more than twice as much: it is computed where somebody recorded it
            let recorded = |artifact: &Artifact| artifact.digests.sha512.is_some();
            if report.accepted().is_some_and(|accepted| accepted.artifacts().iter().any(recorded)) {
                let (digests, size) = hash_file(file.path, true).map_err(Error::io(file.path))?;
                report = ask(digests, size);
            }
            // before anybody hears of it: who is told yes is not told otherwise by the exit status
            if report.accepted().is_some() && !remembered {
                basis.remember()?;
                remembered = true;
            }
            hear(file, &report, &basis.evidence)?;
        }
        Ok(())
    }
}

/// Judges the files, says how each fares, and writes what was asked for. Gives those that were
/// accepted.
fn verify_group(
    args: &VerifyArgs,
    group: &Group<'_>,
    held: &[Held<'_>],
    ui: &Ui,
) -> Result<Vec<(PathBuf, Sha256)>, Error> {
    let mut accepted = Vec::new();
    group.judge(held, &args.evidence, &args.expect, |file, report, evidence| {
        ui.report(report);
        if let Some(path) = &args.html {
            let page = chart::page(&chart::Story::of(report, evidence));
            write_new(path, page.as_bytes())?;
        }
        if let Some(verdict) = report.accepted() {
            accepted.push((file.path.to_owned(), file.digests.sha256));
            args.summary.as_deref().map(|path| summarize(args, &verdict, path)).transpose()?;
        }
        Ok(())
    })?;
    Ok(accepted)
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
    policies: PolicyChain,
    now: Time,
    memory: Memory,
}

/// Where it is remembered what was accepted.
enum Memory {
    /// Nowhere: it is looking back.
    None,
    Seen(Seen),
    Store(Store),
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
            envelopes.extend(read_bundle(path)?);
        }
        let seen = Seen::of(pin)?;
        // judging for another time than now is looking back, which what was seen since must not prevent
        let floor = if args.at.is_some() { None } else { seen.floor()? };
        let policies = PolicyChain::establish(pin, &envelopes, floor)?;
        let memory = if args.at.is_some() { Memory::None } else { Memory::Seen(seen) };
        Ok(Self { evidence: envelopes.into_iter().collect(), policies, now, memory })
    }

    /// From a store: all that can matter for these files, or everything.
    pub(super) fn from_store(
        args: &EvidenceArgs,
        dir: &Path,
        held: &[Held<'_>],
    ) -> Result<Self, Error> {
        let store = StoreArgs { store: dir.into() }.open()?;
        let (now, policies) = if let Some(time) = args.at {
            (time, gate::policies_looking_back(&store)?)
        } else {
            let now = now()?;
            (now, gate::policies(&store, now)?)
        };
        let mut roots = BTreeSet::new();
        let mut all_known = !held.is_empty();
        for file in held {
            let makers = store.manifests_of(&file.digests.sha256)?;
            all_known &= !makers.is_empty();
            roots.extend(makers);
        }
        let roots: Vec<StatementId> = roots.into_iter().collect();
        let evidence = if all_known { gate::gather(&store, &roots)? } else { everything(&store)? };
        let memory = if args.at.is_some() { Memory::None } else { Memory::Store(store) };
        Ok(Self { evidence, policies, now, memory })
    }

    /// All of it, opened.
    pub(super) fn docket(&self) -> Docket<'_> {
        Docket::open(&self.evidence, &self.policies, self.now, &AllCores)
    }

    /// Evidence that nobody needs afterwards, opened.
    pub(super) fn docket_of(&self, evidence: Evidence) -> Docket<'_> {
        Docket::open_and_drop(evidence, &self.policies, self.now, &AllCores)
    }

    /// Something was accepted: nothing older than what it was accepted by will do from here on.
    pub(super) fn remember(&self) -> Result<(), Error> {
        match &self.memory {
            Memory::None => Ok(()),
            Memory::Seen(seen) => {
                let (policy, newest) = self.policies.newest();
                seen.raise(Floor { version: newest.version, policy, time: self.now })
            }
            Memory::Store(store) => Ok(gate::remember(store, &self.policies, self.now)?),
        }
    }
}

/// The release that evidence speaks for: that of the manifests which no other manifest in it builds
/// on. A file of an older release in the same bundle is not what its holder asks about.
pub(super) fn speaks_for(docket: &Docket<'_>) -> Expectation {
    let known: BTreeMap<StatementId, &Statement> =
        docket.statements().map(|signed| (signed.id(), signed.unverified())).collect();
    let release = |manifest: &Manifest| {
        let task = known.get(&manifest.task)?.as_task()?;
        let authorization = known.get(&task.authorization)?.as_authorization()?;
        Some(&known.get(&authorization.request)?.as_request()?.release)
    };
    let mut releases = last_manifests(docket).filter_map(|(_, manifest)| release(manifest));
    let first = releases.next();
    let one = releases.all(|other| Some(other) == first);
    first.filter(|_| one).map_or_else(Expectation::default, Expectation::of)
}

/// The manifests which no other manifest builds on.
pub(super) fn last_manifests<'d>(
    docket: &'d Docket<'_>,
) -> impl Iterator<Item = (StatementId, &'d Manifest)> {
    let manifests = || {
        docket
            .statements()
            .filter_map(|signed| Some((signed.id(), signed.unverified().as_manifest()?)))
    };
    let used: BTreeSet<StatementId> =
        manifests().flat_map(|(_, manifest)| manifest.named()).collect();
    manifests().filter(move |(id, _)| !used.contains(id))
}

/// A file whose digest nobody knows is looked for by name, to say what it should have been.
fn everything(store: &Store) -> Result<Evidence, Error> {
    Ok(store.list(custody_store::Filter::default())?.into_iter().collect())
}

/// The bundles that lie in a directory, beside files. They are evidence like any other: nothing in
/// them is believed.
fn beside(directory: &Path) -> Result<Vec<PathBuf>, Error> {
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
        .advising("get the bundle from where the file is published and put it beside the file, or name it: --bundle FILE")
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
    let verifier = gate_uri(&signer.public_key().id());
    let mut envelope = Statement::from(accepted.summary(&verifier)).to_envelope();
    custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
    write_new(path, (envelope.to_json() + "\n").as_bytes())
}
