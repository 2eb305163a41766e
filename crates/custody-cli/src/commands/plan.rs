//! `custody plan`

use std::path::PathBuf;

use clap::Args;
use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::statement::{Request, Statement};
use custody_core::{Code, Refusal};
use custody_run::pipeline::Pipeline;
use custody_run::repository::read_file;

use super::release::owned_by;
use crate::context::{KeyArgs, StoreArgs, nonce, now, statement, trusted};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The authorization's statement id
    authorization: StatementId,
    /// A local clone of the product's repository
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// The client id that goes into the tasks as their creator
    #[arg(long, value_name = "CLIENT")]
    creator: String,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(args: &PlanArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let now = now()?;
    let (policies, _) = trusted(&store, now)?;
    let keyring = policies.keyring();
    let authorization = statement(&store, keyring, args.authorization, "authorization", Statement::as_authorization)?;
    let request = statement(&store, keyring, authorization.request, "request", Statement::as_request)?;
    let pipeline = pipeline(args, &request)?;
    let mut nonces = Nonces { fault: None };
    // no task may outlive its authorization
    let limited = Request { expires: request.expires.min(authorization.expires), ..request.clone() };
    let tasks = pipeline.plan(&limited, args.authorization, &args.creator, now, || nonces.next())?;
    nonces.fault.map_or(Ok(()), Err)?;
    let signer = args.key.open()?;
    let (_, policy) = policies.newest();
    let product = policy.product(&request.release.product)?;
    let mut envelopes = Vec::new();
    for task in &tasks {
        let step = product.step(&task.step)?;
        owned_by(policy.owner(&signer.public_key().id()), &step.schedule, &format!("schedule step {}", task.step))?;
        let mut envelope = Statement::from(task.clone()).to_envelope();
        custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
        envelopes.push(envelope);
    }
    store.add(&envelopes)?;
    let rows = || tasks.iter().zip(&envelopes);
    let text: String = rows().map(|(task, envelope)| format!("{}  {}\n", envelope.id(), task.step)).collect();
    ui.result(&text, || {
        Value::list(rows().map(|(task, envelope)| Value::object([("id", Value::text(envelope.id())), ("step", Value::text(&task.step))])))
    });
    Ok(())
}

/// Numbers used once. The planner cannot fail on them, so a fault is kept until it is done.
struct Nonces {
    fault: Option<Error>,
}

impl Nonces {
    fn next(&mut self) -> String {
        nonce().unwrap_or_else(|error| {
            self.fault.get_or_insert(error);
            String::new()
        })
    }
}

/// The pipeline that people signed off, and no other.
fn pipeline(args: &PlanArgs, request: &Request) -> Result<Pipeline, Error> {
    let bytes = read_file(&args.repository, &request.source.revision, &request.pipeline.path)?;
    let found = Sha256::of(&bytes);
    if found != request.pipeline.sha256 {
        let at = format!("{} at {}", request.pipeline.path, request.source);
        return Err(Refusal::new(Code::ChainSourceMismatch, at, format!("sha256 {}", request.pipeline.sha256), format!("sha256 {found}")).into());
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        Refusal::new(Code::ParseUnicodeInvalid, request.pipeline.path.as_str(), "UTF-8", "other bytes")
    })?;
    Ok(Pipeline::parse(&text)?)
}
