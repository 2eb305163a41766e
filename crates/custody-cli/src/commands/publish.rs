//! `custody publish`

use clap::Args;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::statement::Statement;
use custody_core::time::Time;
use custody_run::execute::Confinement;
use custody_run::run::Worker;

use super::run::{MachineArgs, Machines, cancelled, clock, product_of};
use crate::context::{StoreArgs, now, statement, trusted};
use crate::error::Error;
use crate::ui::{GOOD, Ui};

#[derive(Args, Debug)]
pub(crate) struct PublishArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The task's statement id
    task: StatementId,
    #[command(flatten)]
    machine: MachineArgs,
    /// Refused: a gate judges by the clock of its machine
    #[arg(long, hide = true)]
    at: Option<Time>,
}

pub(crate) fn run(args: &PublishArgs, ui: &Ui) -> Result<(), Error> {
    if args.at.is_some() {
        return Err(Error::Usage(
            "a gate judges by the clock of its machine; --at is for custody verify".into(),
        ));
    }
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let machines = Machines::open(&args.machine, &store, &policies)?;
    let task = statement(&store, policies.keyring(), args.task, "task", Statement::as_task)?;
    let product = product_of(&store, &policies, &task)?;
    let (_, policy) = policies.newest();
    let machine = machines.for_step(policy, product, &task.step)?;
    let cancelled = cancelled()?;
    let worker = Worker {
        store: &store,
        signer: &*machine.signer,
        name: &machine.name,
        certificate: machine.certificate,
        work: &args.machine.work,
        repository: None,
        platforms: &machines.platforms,
        download_authorities: None,
        confinement: &Confinement::default(),
        engine: None,
        clock,
        cancelled: &cancelled,
    };
    let bar = ui.bar(0, "publishing");
    let manifest = worker.publish(args.task, &|name| {
        bar.inc_length(1);
        bar.inc(1);
        ui.note(&format!("  {name}"));
    });
    bar.finish_and_clear();
    let manifest = manifest?;
    let destination = task.destination.unwrap_or_default();
    let text = format!("{GOOD}✓{GOOD:#} published to {destination}\nmanifest {manifest}");
    ui.result(&text, || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("manifest", Value::text(manifest)),
            ("destination", Value::text(&destination)),
        ])
    });
    Ok(())
}
