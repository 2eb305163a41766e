//! `custody init`

use std::path::PathBuf;

use clap::Args;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_store::Store;
use custody_verify::PolicyChain;

use crate::context::{StoreArgs, read_envelope};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The signed policy that the store begins with
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Its statement id, from somebody you trust
    #[arg(long, value_name = "ID")]
    pin: StatementId,
}

pub(crate) fn run(args: &InitArgs, ui: &Ui) -> Result<(), Error> {
    let envelope = read_envelope(&args.policy)?;
    let chain = PolicyChain::pinned(args.pin, &envelope)?;
    let store = Store::create(&args.store.store)?;
    store.add(&[envelope])?;
    store.pin(args.pin)?;
    let version = chain.newest().1.version;
    let text = format!("{} trusts policy {version} ({})", args.store.store.display(), args.pin);
    ui.result(&text, || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("pin", Value::text(args.pin)),
            ("version", Value::Integer(version)),
        ])
    });
    Ok(())
}
