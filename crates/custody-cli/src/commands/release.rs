//! `custody release propose | show | sign-off | status | authorize | resolve`

mod propose;
mod signoff;

use std::collections::BTreeSet;

use clap::{Args, Subcommand};
use custody_core::envelope::{Envelope, Keyring, StatementId};
use custody_core::json::Value;
use custody_core::statement::{
    Artifact, Authorization, EarlierManifest, Label, Request, Resolution, Resolve, Stage,
    Statement, short_code,
};
use custody_core::{Code, Refusal};
use custody_run::gate;
use custody_store::{Relation, Store};
use custody_verify::{PolicyChain, Tally};

use crate::context::{KeyArgs, StoreArgs, now, statement, taken_up, trusted};
use crate::error::Error;
use crate::tree::shown;
use crate::ui::{BAD, BOLD, GOOD, Ui};

#[derive(Subcommand, Debug)]
pub(crate) enum ReleaseCommand {
    /// Propose one phase of a release
    Propose(propose::ProposeArgs),
    /// Show a request, and write what a person signs
    Show(signoff::ShowArgs),
    /// Approve or refuse a request, or withdraw an approval
    SignOff(signoff::SignoffArgs),
    /// Show who has signed off and who is missing
    Status(StatusArgs),
    /// Issue the authorization of a request that has its sign-offs
    Authorize(AuthorizeArgs),
    /// Say what is to hold of a task in doubt, or of a task with several results
    Resolve(ResolveArgs),
}

#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The request's statement id
    request: StatementId,
}

#[derive(Args, Debug)]
pub(crate) struct AuthorizeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The request's statement id
    request: StatementId,
    #[command(flatten)]
    key: KeyArgs,
}

#[derive(Args, Debug)]
pub(crate) struct ResolveArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The task's statement id
    task: StatementId,
    /// Take an act in doubt up again where it stopped
    #[arg(long, conflicts_with = "supersede", required_unless_present = "supersede")]
    resume: bool,
    /// With --resume, and several acts in doubt: the intent that announced the one that is meant
    #[arg(long, requires = "resume")]
    intent: Option<StatementId>,
    /// Of several manifests of the task, the one that holds
    #[arg(long, value_name = "MANIFEST")]
    supersede: Option<StatementId>,
    /// Who says so
    #[arg(long = "as", value_name = "PERSON")]
    person: Label,
    /// Why
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    key: KeyArgs,
}

pub(crate) fn run(command: &ReleaseCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        ReleaseCommand::Propose(args) => propose::run(args, ui),
        ReleaseCommand::Show(args) => signoff::show(args, ui),
        ReleaseCommand::SignOff(args) => signoff::sign_off(args, ui),
        ReleaseCommand::Status(args) => status(args, ui),
        ReleaseCommand::Authorize(args) => authorize(args, ui),
        ReleaseCommand::Resolve(args) => resolve(args, ui),
    }
}

/// A request as people read it before they decide, with every artifact of the manifests that it builds on.
/// What is not here, or not as the request says, is told in its place: whoever wants to stop a release
/// needs no more than the request.
fn describe(
    store: &Store,
    policies: &PolicyChain,
    request: &Request,
    id: StatementId,
) -> Result<String, Error> {
    let keyring = gate::keyring(store, policies)?;
    let mut text = format!(
        "{BOLD}{}: phase {}{BOLD:#}\n\n  short code   {BOLD}{}{BOLD:#}   (compare it with the others)\n  request      {id}\n  source       {}\n  pipeline     {} (sha256 {})\n  policy       {} ({})\n  from, to     {} to {}\n",
        request.release,
        request.phase,
        short_code(id),
        shown(&request.source.to_string()),
        request.pipeline.path,
        request.pipeline.sha256.short(),
        request.policy.version,
        request.policy.id.short(),
        request.created,
        request.expires,
    );
    for (name, value) in &request.parameters {
        text += &format!("  parameter    {} = {}\n", shown(name), shown(value));
    }
    for entry in &request.builds_on {
        let EarlierManifest { step, manifest, artifacts, bytes } = entry;
        text += &format!(
            "  builds on    step {step} (manifest {}), {artifacts} artifacts of {bytes} bytes\n",
            manifest.short()
        );
        match taken_up(store, &keyring, entry) {
            Ok(manifest) => text.extend(manifest.artifacts.iter().map(|artifact| {
                let Artifact { name, size, digests } = artifact;
                format!("               {name}  {size} bytes  sha256 {}\n", digests.sha256)
            })),
            Err(refusal) => text += &format!("               {BAD}not shown{BAD:#}: {refusal}\n"),
        }
    }
    Ok(text)
}

fn request(store: &Store, policies: &PolicyChain, id: StatementId) -> Result<Request, Refusal> {
    statement(store, policies.keyring(), id, "request", Statement::as_request)
}

fn tally(store: &Store, policies: &PolicyChain, request: StatementId) -> Result<Tally, Error> {
    let evidence = gate::gather(store, &[request])?;
    Ok(custody_verify::tally(request, &evidence, policies, now()?)?)
}

fn status(args: &StatusArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let content = request(&store, &policies, args.request)?;
    let tally = tally(&store, &policies, args.request)?;
    let mut text = describe(&store, &policies, &content, args.request)? + "\n";
    for approver in &tally.approvers {
        text += &format!(
            "  {GOOD}✓{GOOD:#} {} as {} ({})\n",
            approver.person,
            approver.role,
            approver.signoff.short()
        );
    }
    for (id, refusal) in &tally.ignored {
        text += &format!(
            "  – {} does not count: {} ({}, found {})\n",
            id.short(),
            refusal.code,
            shown(&refusal.at),
            shown(&refusal.found)
        );
    }
    text += &match &tally.lacking {
        None => format!("{GOOD}ready to be authorized{GOOD:#}\n"),
        Some(refusal) => format!(
            "not ready: {} {}: expected {}, found {}\n",
            refusal.code,
            shown(&refusal.at),
            shown(&refusal.expected),
            shown(&refusal.found)
        ),
    };
    ui.result(&text, || tally_json(&tally, args.request));
    Ok(())
}

fn tally_json(tally: &Tally, request: StatementId) -> Value<'static> {
    let approver = |approver: &custody_core::statement::Approver| {
        Value::object([
            ("person", Value::text(&approver.person)),
            ("role", Value::text(&approver.role)),
            ("signoff", Value::text(approver.signoff)),
        ])
    };
    let ignored = |(id, refusal): &(StatementId, Refusal)| {
        Value::object([
            ("signoff", Value::text(id)),
            ("code", Value::text(refusal.code)),
            ("found", Value::text(&refusal.found)),
        ])
    };
    Value::object([
        ("request", Value::text(request)),
        ("ready", Value::Bool(tally.lacking.is_none())),
        ("approvers", Value::list(tally.approvers.iter().map(approver))),
        ("ignored", Value::list(tally.ignored.iter().map(ignored))),
    ])
    .with("code", tally.lacking.as_ref().map(|refusal| Value::text(refusal.code)))
}

fn authorize(args: &AuthorizeArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let now = now()?;
    let policies = trusted(&store, now)?;
    let content = request(&store, &policies, args.request)?;
    let tally = tally(&store, &policies, args.request)?;
    if let Some(refusal) = tally.lacking {
        return Err(refusal.into());
    }
    let people: Vec<String> =
        tally.approvers.iter().map(|approver| approver.person.to_string()).collect();
    let authorization = Authorization {
        request: args.request,
        approvers: tally.approvers,
        not_before: now,
        expires: content.expires,
    };
    let signer = args.key.open()?;
    let (_, policy) = policies.newest();
    let product = policy.product(&content.release.product)?;
    owned_by(policy.owner(&signer.public_key().id()), &product.desk, "issue authorizations")?;
    let mut envelope = Statement::from(authorization).to_envelope();
    custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
    add(&store, &envelope)?;
    let id = envelope.id();
    let text = format!(
        "phase {} of {} is authorized by {}\nauthorization {id}",
        content.phase,
        content.release,
        people.join(" and ")
    );
    ui.result(&text, || Value::object([("ok", Value::Bool(true)), ("id", Value::text(id))]));
    Ok(())
}

/// Refuses to sign with a key that will not count.
pub(super) fn owned_by(
    owner: Option<&Label>,
    allowed: &BTreeSet<Label>,
    what: &str,
) -> Result<Label, Error> {
    let names: Vec<&str> = allowed.iter().map(Label::as_str).collect();
    match owner {
        Some(owner) if allowed.contains(owner) => Ok(owner.clone()),
        Some(owner) => {
            let expected = format!("a key of {}, who may {what}", names.join(", "));
            Err(Refusal::new(
                Code::PolicyKeyPurpose,
                "--key",
                expected,
                format!("a key of {owner}"),
            )
            .advising(format!("give --key the key of one of {}", names.join(", ")))
            .into())
        }
        None => {
            let expected = format!("a key of {}, who may {what}", names.join(", "));
            Err(Refusal::new(
                Code::EnvKeyUnknown,
                "--key",
                expected,
                "a key that the policy does not list",
            )
            .advising(format!(
                "give --key the key of one of {}; custody policy show has the keys that count",
                names.join(", ")
            ))
            .into())
        }
    }
}

pub(super) fn add(store: &Store, envelope: &Envelope) -> Result<(), Error> {
    store.add(std::slice::from_ref(envelope))?;
    Ok(())
}

/// The announcement of the task that is meant: the only one, or the only one that no resolution
/// names yet. Who signed what is for the gate to
/// judge: a resolution of the wrong one opens nothing.
fn in_doubt(store: &Store, keyring: &Keyring, task: StatementId) -> Result<StatementId, Error> {
    let mut announced = Vec::new();
    for link in store.links_to(&task.0, Some(Relation::IntentTask))? {
        let intent = statement(store, keyring, link.source, "intent", Statement::as_intent)?;
        if intent.stage == Stage::Announced {
            announced.push(link.source);
        }
    }
    if announced.len() > 1 {
        let mut named = BTreeSet::new();
        for intent in &announced {
            if !store.links_to(&intent.0, Some(Relation::ResolutionIntent))?.is_empty() {
                named.insert(*intent);
            }
        }
        announced.retain(|intent| !named.contains(intent));
    }
    match announced.as_slice() {
        [one] => Ok(*one),
        several => {
            let all: Vec<String> = several.iter().map(ToString::to_string).collect();
            let found = if all.is_empty() { "none".to_owned() } else { all.join(" and ") };
            Err(Error::Usage(format!(
                "one announcement of task {task} that no resolution names was expected, but there is \
                 {found}: say which with --intent INTENT"
            )))
        }
    }
}

fn resolve(args: &ResolveArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    statement(&store, policies.keyring(), args.task, "task", Statement::as_task)?;
    let signer = args.key.open()?;
    let (_, policy) = policies.newest();
    let own = BTreeSet::from([args.person.clone()]);
    owned_by(policy.owner(&signer.public_key().id()), &own, "speak as that person")?;
    let resolve = match (args.supersede, args.intent) {
        (Some(manifest), _) => Resolve::Supersede(manifest),
        (None, Some(intent)) => Resolve::Resume(intent),
        (None, None) => {
            let keyring = gate::keyring(&store, &policies)?;
            Resolve::Resume(in_doubt(&store, &keyring, args.task)?)
        }
    };
    let resolution = Resolution {
        task: args.task,
        resolve,
        person: args.person.clone(),
        reason: args.reason.clone(),
        created: now()?,
    };
    let mut envelope = Statement::from(resolution).to_envelope();
    custody_sign::sign_envelope_as_person(&mut envelope, &*signer)?;
    add(&store, &envelope)?;
    let id = envelope.id();
    ui.result(&format!("resolution {id}"), || {
        Value::object([("ok", Value::Bool(true)), ("id", Value::text(id))])
    });
    Ok(())
}
