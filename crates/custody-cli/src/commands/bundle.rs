//! `custody bundle export | import | verify`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::statement::Manifest;
use custody_core::{Code, Refusal};
use custody_run::gate::{self, AllCores};
use custody_store::bundle;
use custody_verify::{Judge, Question, Spread as _, Subject};

use super::verify::{Basis, EvidenceArgs, last_manifests, speaks_for};
use crate::context::{StoreArgs, read_bundle, write_new};
use crate::error::{Error, REJECTED};
use crate::ui::{GOOD, Ui};

#[derive(Subcommand, Debug)]
pub(crate) enum BundleCommand {
    /// Write everything that is needed to verify some statements into one file
    Export(ExportArgs),
    /// Put the statements of a bundle into the store
    Import(ImportArgs),
    /// Verify every file that the bundle's last manifests list
    Verify(VerifyArgs),
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Statement ids: manifests, as a rule
    #[arg(required = true)]
    statements: Vec<StatementId>,
    /// The new file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The bundle
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The bundle
    file: PathBuf,
    #[command(flatten)]
    evidence: EvidenceArgs,
}

pub(crate) fn run(command: &BundleCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        BundleCommand::Export(args) => export(args, ui),
        BundleCommand::Import(args) => import(args, ui),
        BundleCommand::Verify(args) => verify(args, ui),
    }
}

fn export(args: &ExportArgs, ui: &Ui) -> Result<(), Error> {
    let envelopes = gate::portable(&args.store.open()?, &args.statements)?;
    write_new(&args.out, bundle::write(&envelopes).as_bytes())?;
    counted(
        ui,
        &format!("{} statements in {}", envelopes.len(), args.out.display()),
        envelopes.len(),
    );
    Ok(())
}

fn import(args: &ImportArgs, ui: &Ui) -> Result<(), Error> {
    let envelopes = read_bundle(&args.file)?;
    let added = args.store.open()?.add(&envelopes)?;
    counted(
        ui,
        &format!(
            "{} new statements, {} known, {} with more signatures",
            added.new, added.known, added.merged
        ),
        added.new,
    );
    Ok(())
}

fn counted(ui: &Ui, text: &str, count: usize) {
    ui.result(text, || {
        Value::object([("ok", Value::Bool(true))])
            .with("statements", u64::try_from(count).ok().map(Value::Integer))
    });
}

fn verify(args: &VerifyArgs, ui: &Ui) -> Result<(), Error> {
    let mut basis = Basis::from_bundles(&args.evidence, std::slice::from_ref(&args.file))?;
    let evidence = std::mem::take(&mut basis.evidence);
    let docket = basis.docket_of(evidence);
    let judge = Judge::of_all(&docket, &AllCores);
    let expect = speaks_for(&docket);
    let manifests: Vec<&Manifest> = last_manifests(&docket).map(|(_, manifest)| manifest).collect();
    let rejected = AllCores.map(&manifests, |manifest| {
        let mut judge = judge.clone();
        let mut reports = manifest.artifacts.iter().map(|artifact| {
            let subject = Subject::Artifact {
                name: artifact.name.to_string(),
                digests: artifact.digests,
                size: artifact.size,
            };
            judge.verify(&Question { subject, expect: expect.clone() })
        });
        reports.find(|report| report.accepted().is_none())
    });
    if let Some(report) = rejected.into_iter().flatten().next() {
        ui.report(&report);
        return Err(Error::Several(REJECTED));
    }
    let files = manifests.iter().map(|manifest| manifest.artifacts.len()).sum::<usize>();
    if files == 0 {
        return Err(Refusal::new(
            Code::ChainStepMissing,
            args.file.display().to_string(),
            "a manifest with files",
            "none",
        )
        .into());
    }
    basis.remember()?;
    ui.result(
        &format!("{GOOD}✓{GOOD:#} {files} files are explained, back to people and source"),
        || {
            Value::object([
                ("ok", Value::Bool(true)),
                ("files", Value::Integer(files.try_into().unwrap_or(u64::MAX))),
            ])
        },
    );
    Ok(())
}
