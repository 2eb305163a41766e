//! `custody plan`

use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::envelope::{Envelope, Payload as _, StatementId};
use custody_core::json::Value;
use custody_core::statement::{Label, Request, Statement};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::repository::pipeline;
use custody_sign::Signer;
use custody_store::{Relation, Store};
use custody_verify::PolicyChain;

use super::release::owned_by;
use crate::context::{KeyArgs, StoreArgs, earlier, nonce, now, statement, trusted};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The authorization's statement id
    #[arg(required_unless_present = "decided")]
    authorization: Option<StatementId>,
    /// A local clone of the product's repository: git or Mercurial, or the archive itself
    #[arg(long, value_name = "DIR", required_unless_present = "decided")]
    repository: Option<PathBuf>,
    /// The client id that goes into the tasks as their creator
    #[arg(long, value_name = "CLIENT", required_unless_present = "decided")]
    creator: Option<String>,
    /// Take the tasks that a decision step made, from its manifest, instead of planning any
    #[arg(long, value_name = "MANIFEST", conflicts_with_all = ["authorization", "repository", "creator"])]
    decided: Option<StatementId>,
    /// Plan although this authorization was planned before: everything will be done twice
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(args: &PlanArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let now = now()?;
    let policies = trusted(&store, now)?;
    let signer = args.key.open()?;
    let tasks = match (args.decided, args.authorization, &args.repository, &args.creator) {
        (Some(manifest), ..) => decided(&store, &policies, manifest)?,
        (None, Some(authorization), Some(repository), Some(creator)) => {
            let before = planned(&store, authorization)?;
            if before > 0 && !args.again {
                return Err(planned_before(authorization, before));
            }
            let plan = Plan { authorization, repository, creator };
            plan.tasks(&store, &policies, &*signer, now)?
        }
        _ => {
            return Err(Error::Usage(
                "give an authorization, --repository and --creator, or --decided".into(),
            ));
        }
    };
    let mut envelopes = Vec::new();
    for (_, mut envelope) in tasks.iter().cloned() {
        custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
        envelopes.push(envelope);
    }
    match args.authorization.filter(|_| !args.again) {
        Some(authorization) => {
            // somebody may have planned it meanwhile
            let first =
                store.add_first(&envelopes, &authorization.0, Relation::TaskAuthorization)?;
            if first.is_none() {
                return Err(planned_before(authorization, planned(&store, authorization)?));
            }
        }
        None => {
            store.add(&envelopes)?;
        }
    }
    let text: String =
        tasks.iter().map(|(step, envelope)| format!("{}  {step}\n", envelope.id())).collect();
    ui.result(&text, || {
        Value::list(tasks.iter().map(|(step, envelope)| {
            Value::object([("id", Value::text(envelope.id())), ("step", Value::text(step))])
        }))
    });
    Ok(())
}

/// How many tasks an authorization has already.
fn planned(store: &Store, authorization: StatementId) -> Result<usize, Error> {
    Ok(store.links_to(&authorization.0, Some(Relation::TaskAuthorization))?.len())
}

/// One plan is enough: a second one lets every step of the phase happen once more.
fn planned_before(authorization: StatementId, tasks: usize) -> Error {
    let at = format!("authorization {authorization}");
    let refusal = Refusal::new(Code::ChainReplayed, at, "no tasks yet", format!("{tasks} tasks"));
    let advice = format!(
        "go on with them: custody run --all {authorization}; with --again everything is planned anew and done twice"
    );
    refusal.advising(advice).into()
}

struct Plan<'a> {
    authorization: StatementId,
    repository: &'a Path,
    creator: &'a str,
}

impl Plan<'_> {
    /// The tasks of the phase, unsigned, if the signer may schedule all of them.
    fn tasks(
        &self,
        store: &Store,
        policies: &PolicyChain,
        signer: &dyn Signer,
        now: Time,
    ) -> Result<Vec<(Label, Envelope)>, Error> {
        let keyring = policies.keyring();
        let authorization = statement(
            store,
            keyring,
            self.authorization,
            "authorization",
            Statement::as_authorization,
        )?;
        let request =
            statement(store, keyring, authorization.request, "request", Statement::as_request)?;
        let pipeline = pipeline(self.repository, &request)?;
        let mut nonces = Nonces { fault: None };
        // no task may outlive its authorization
        let limited =
            Request { expires: request.expires.min(authorization.expires), ..request.clone() };
        let earlier = earlier(store, policies, &request)?;
        let tasks =
            pipeline.plan(&limited, &earlier, self.authorization, self.creator, now, || {
                nonces.next()
            })?;
        nonces.fault.map_or(Ok(()), Err)?;
        let (_, policy) = policies.newest();
        let product = policy.product(&request.release.product)?;
        for task in &tasks {
            let step = product.step(&task.step)?;
            owned_by(
                policy.owner(&signer.public_key().id()),
                &step.schedule,
                &format!("schedule step {}", task.step),
            )?;
        }
        Ok(tasks
            .into_iter()
            .map(|task| (task.step.clone(), Statement::from(task).to_envelope()))
            .collect())
    }
}

/// The tasks among the products of a decision step: artifacts whose bytes are task statements. The
/// signature that they get here only says who handed them in; what lets them run is that manifest.
fn decided(
    store: &Store,
    policies: &PolicyChain,
    id: StatementId,
) -> Result<Vec<(Label, Envelope)>, Error> {
    let keyring = custody_run::gate::keyring(store, policies)?;
    let manifest = statement(store, &keyring, id, "manifest", Statement::as_manifest)?;
    let mut tasks = Vec::new();
    for artifact in &manifest.artifacts {
        let mut bytes = Vec::new();
        store.copy_artifact(&artifact.digests.sha256, &mut bytes)?;
        if let Ok(Statement::Task(task)) = Statement::parse(&bytes) {
            tasks.push((task.step, Envelope::unsigned::<Statement>(bytes)));
        }
    }
    if tasks.is_empty() {
        let at = format!("manifest of step {} ({})", manifest.step, id.short());
        return Err(Refusal::new(
            Code::ChainTaskMissing,
            at,
            "task statements among its artifacts",
            "none",
        )
        .into());
    }
    Ok(tasks)
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
