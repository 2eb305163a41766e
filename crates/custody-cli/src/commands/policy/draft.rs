//! `custody policy init`: a draft from what was recorded. Nothing recorded is believed: it is what
//! people start from when they decide.

mod seen;
mod toml;

use std::path::PathBuf;

use clap::Args;
use custody_core::envelope::Envelope;
use custody_core::json::Value;
use custody_core::{Code, Refusal};
use custody_store::{Filter, Store};

use self::seen::Seen;
use crate::context::{StoreArgs, read_bundle, write_new};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct DraftArgs {
    /// A release's evidence in this store
    #[arg(long, value_name = "DIR", required_unless_present = "bundles")]
    store: Option<PathBuf>,
    /// A release's evidence in this bundle
    #[arg(long = "bundle", value_name = "FILE", conflicts_with = "store")]
    bundles: Vec<PathBuf>,
    /// A new file for the draft, instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &DraftArgs, ui: &Ui) -> Result<(), Error> {
    let envelopes = evidence(args)?;
    let seen = Seen::of(&envelopes);
    if seen.products.is_empty() {
        let found = format!("{} statements without any", envelopes.len());
        return Err(Refusal::new(
            Code::ChainStepMissing,
            "the evidence",
            "tasks of a release",
            found,
        )
        .into());
    }
    let draft = toml::draft(&seen, envelopes.len());
    let blanks = draft.matches("\"FILL-IN").count() + draft.matches(".FILL-IN").count();
    let Some(path) = &args.out else {
        ui.result(&draft, || {
            Value::object([("ok", Value::Bool(true)), ("draft", Value::text(&draft))])
        });
        return Ok(());
    };
    write_new(path, draft.as_bytes())?;
    let text = format!(
        "{} is a draft with {blanks} blanks to fill in: custody policy check {0} names them",
        path.display()
    );
    ui.result(&text, || {
        Value::object([("ok", Value::Bool(true)), ("file", Value::text(path.display()))])
            .with("blanks", u64::try_from(blanks).ok().map(Value::Integer))
    });
    Ok(())
}

fn evidence(args: &DraftArgs) -> Result<Vec<Envelope>, Error> {
    if let Some(dir) = &args.store {
        let store: Store = StoreArgs { store: dir.clone() }.open()?;
        return Ok(store.list(Filter::default())?);
    }
    let mut envelopes = Vec::new();
    for path in &args.bundles {
        envelopes.extend(read_bundle(path)?);
    }
    Ok(envelopes)
}
