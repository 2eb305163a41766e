//! `custody evidence add | get | list`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use custody_core::envelope::{Envelope, StatementId};
use custody_core::json::Value;
use custody_store::{Filter, Kind, not_kept};

use crate::context::{StoreArgs, read, write_new};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Subcommand, Debug)]
pub(crate) enum EvidenceCommand {
    /// Put statements into the store, as DSSE JSON files
    Add(AddArgs),
    /// Take one statement out, as DSSE JSON
    Get(GetArgs),
    /// List the statements of the store, oldest first
    List(ListArgs),
}

#[derive(Args, Debug)]
pub(crate) struct AddArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The files
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The statement id
    id: StatementId,
    /// A new file to write it to instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Only statements of this kind
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Policy,
    Request,
    Signoff,
    Authorization,
    Task,
    Manifest,
    Summary,
    Intent,
    Resolution,
    Enrolment,
    Other,
}

impl From<KindArg> for Kind {
    fn from(kind: KindArg) -> Self {
        match kind {
            KindArg::Policy => Self::Policy,
            KindArg::Request => Self::Request,
            KindArg::Signoff => Self::Signoff,
            KindArg::Authorization => Self::Authorization,
            KindArg::Task => Self::Task,
            KindArg::Manifest => Self::Manifest,
            KindArg::Summary => Self::Summary,
            KindArg::Intent => Self::Intent,
            KindArg::Resolution => Self::Resolution,
            KindArg::Enrolment => Self::Enrolment,
            KindArg::Other => Self::Other,
        }
    }
}

fn kind_name(envelope: &Envelope) -> &'static str {
    match Kind::of(envelope) {
        Kind::Policy => "policy",
        Kind::Request => "request",
        Kind::Signoff => "signoff",
        Kind::Authorization => "authorization",
        Kind::Task => "task",
        Kind::Manifest => "manifest",
        Kind::Summary => "summary",
        Kind::Intent => "intent",
        Kind::Resolution => "resolution",
        Kind::Enrolment => "enrolment",
        Kind::Other => "other",
    }
}

pub(crate) fn run(command: &EvidenceCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        EvidenceCommand::Add(args) => add(args, ui),
        EvidenceCommand::Get(args) => get(args, ui),
        EvidenceCommand::List(args) => list(args, ui),
    }
}

fn add(args: &AddArgs, ui: &Ui) -> Result<(), Error> {
    let envelope = |path: &PathBuf| -> Result<Envelope, Error> {
        Envelope::parse(&read(path)?)
            .map_err(|refusal| refusal.within(&path.display().to_string()).into())
    };
    let envelopes = args.files.iter().map(envelope).collect::<Result<Vec<_>, _>>()?;
    args.store.open()?.add(&envelopes)?;
    let text: String = envelopes
        .iter()
        .map(|envelope| format!("{}  {}\n", envelope.id(), kind_name(envelope)))
        .collect();
    ui.result(&text, || Value::list(envelopes.iter().map(row)));
    Ok(())
}

fn row(envelope: &Envelope) -> Value<'static> {
    Value::object([("id", Value::text(envelope.id())), ("kind", Value::text(kind_name(envelope)))])
}

fn get(args: &GetArgs, ui: &Ui) -> Result<(), Error> {
    let missing = || not_kept(format!("statement {}", args.id), "it in the store");
    let envelope = args.store.open()?.get(args.id)?.ok_or_else(missing)?;
    let json = envelope.to_json() + "\n";
    match &args.out {
        Some(path) => write_new(path, json.as_bytes()),
        None => ui.raw(json.as_bytes()),
    }
}

fn list(args: &ListArgs, ui: &Ui) -> Result<(), Error> {
    let filter = Filter { kind: args.kind.map(Kind::from), ..Filter::default() };
    let envelopes = args.store.open()?.list(filter)?;
    let text: String = envelopes
        .iter()
        .map(|envelope| format!("{}  {}\n", envelope.id(), kind_name(envelope)))
        .collect();
    ui.result(&text, || Value::list(envelopes.iter().map(row)));
    Ok(())
}
