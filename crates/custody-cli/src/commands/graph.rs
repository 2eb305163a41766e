//! `custody graph`

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use clap::Args;
use custody_core::envelope::{Payload as _, StatementId};
use custody_core::json::Value;
use custody_core::statement::{ReleaseId, Statement};
use custody_core::{Code, Refusal};
use custody_verify::{Evidence, Expectation, Judge, Question, Report, Subject};

use super::verify::{Basis, EvidenceArgs, Held, groups, speaks_for};
use crate::chart::{self, Chart, Story};
use crate::context::{ExpectArgs, write_new};
use crate::error::{Error, REJECTED};
use crate::ui::{GOOD, Ui};

#[derive(Args, Debug)]
pub(crate) struct GraphArgs {
    /// A file, whose chain is drawn; without one a whole release is, done or under way
    file: Option<PathBuf>,
    #[command(flatten)]
    evidence: EvidenceArgs,
    #[command(flatten)]
    expect: ExpectArgs,
    /// The artifact's name, where the file has another
    #[arg(long, requires = "file")]
    name: Option<String>,
    /// A new file for the SVG, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &GraphArgs, ui: &Ui) -> Result<(), Error> {
    let Some(file) = &args.file else { return whole_release(args, ui) };
    let held = [Held::new(args.name.as_deref(), file)?];
    let mut clean = true;
    for group in groups(&args.evidence, std::slice::from_ref(file)) {
        group.judge(&held, &args.evidence, &args.expect, |_, report, evidence| {
            clean &= report.findings().next().is_none();
            draw(args, &report.subject().title, report, evidence, ui)
        })?;
    }
    if clean { Ok(()) } else { Err(Error::Several(REJECTED)) }
}

fn draw(
    args: &GraphArgs,
    title: &str,
    report: &Report,
    evidence: &Evidence,
    ui: &Ui,
) -> Result<(), Error> {
    let chart = Chart::of(&Story::of(report, evidence));
    let svg = chart::svg(&chart, title);
    match &args.out {
        Some(path) => write_new(path, svg.as_bytes())?,
        None if ui.is_json() => {}
        None => ui.raw(svg.as_bytes())?,
    }
    let refused = report.findings().count();
    if ui.is_json() || args.out.is_some() {
        let said = format!(
            "{GOOD}{}{GOOD:#}: {} documents in {} boxes, {refused} findings",
            title,
            report.nodes().filter(|node| node.id.is_some()).count(),
            chart.boxes()
        );
        ui.result(&said, || summary(title, report, &chart));
    }
    Ok(())
}

fn summary(title: &str, report: &Report, chart: &Chart) -> Value<'static> {
    Value::object([
        ("ok", Value::Bool(report.findings().next().is_none())),
        ("question", Value::text(title)),
        ("codes", Value::list(report.codes().iter().map(Value::text))),
        ("chart", chart.to_json()),
    ])
}

/// Judges all tasks and manifests of one release.
fn whole_release(args: &GraphArgs, ui: &Ui) -> Result<(), Error> {
    let asked = args.expect.expectation();
    let from = &args.evidence;
    let basis = match &from.store {
        Some(dir) => Basis::from_store(from, dir, &[])?,
        None if from.bundles.is_empty() => {
            let text = "name a file to draw its chain, or --store or --bundle for a whole release";
            return Err(Error::Usage(text.into()));
        }
        None => Basis::from_bundles(from, &from.bundles)?,
    };
    let docket = basis.docket();
    let named = from.store.is_some() || !args.expect.names_no_release();
    let expect = if named { asked } else { speaks_for(&docket) };
    let (release, roots) = documents(&basis, &expect)?;
    let question = Question { subject: Subject::Documents(roots), expect: Expectation::default() };
    let report = Judge::new(&docket).verify(&question);
    draw(args, &release.to_string(), &report, &basis.evidence, ui)?;
    let clean = report.findings().next().is_none();
    if clean { Ok(()) } else { Err(Error::Several(REJECTED)) }
}

/// The tasks and manifests that claim to be of the one release that is expected.
fn documents(
    basis: &Basis,
    expect: &Expectation,
) -> Result<(ReleaseId, BTreeSet<StatementId>), Error> {
    let statements: BTreeMap<StatementId, Statement> = basis
        .evidence
        .iter()
        .filter_map(|envelope| {
            Some((envelope.id(), Statement::parse(envelope.unverified_payload()).ok()?))
        })
        .collect();
    let release_of = |statement: &Statement| -> Option<&ReleaseId> {
        let task = match statement {
            Statement::Task(task) => Some(task),
            Statement::Manifest(manifest) => statements.get(&manifest.task)?.as_task(),
            _ => None,
        }?;
        let authorization = statements.get(&task.authorization)?.as_authorization()?;
        Some(&statements.get(&authorization.request)?.as_request()?.release)
    };
    let mut found: BTreeMap<&ReleaseId, BTreeSet<StatementId>> = BTreeMap::new();
    for (id, statement) in &statements {
        if let Some(release) = release_of(statement).filter(|release| fits(expect, release)) {
            found.entry(release).or_default().insert(*id);
        }
    }
    if found.len() > 1 {
        let listed: Vec<String> = found.keys().map(ToString::to_string).collect();
        let text = format!(
            "several releases are there: {}; name one with --version and the like",
            listed.join("; ")
        );
        return Err(Error::Usage(text));
    }
    let (release, roots) = found.pop_first().ok_or_else(|| {
        Refusal::new(Code::ChainStepMissing, "the evidence", "tasks of this release", "none")
    })?;
    Ok((release.clone(), roots))
}

fn fits(expect: &Expectation, release: &ReleaseId) -> bool {
    let pairs = [
        (&expect.product, &release.product),
        (&expect.version, &release.version),
        (&expect.channel, &release.channel),
        (&expect.instance, &release.instance),
    ];
    pairs.into_iter().all(|(wanted, found)| wanted.as_ref().is_none_or(|wanted| wanted == found))
}
