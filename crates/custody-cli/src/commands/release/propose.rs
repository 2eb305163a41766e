//! `custody release propose`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::Refusal;
use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::name::ArtifactName;
use custody_core::statement::{
    EarlierManifest, Label, Manifest, Pipeline, PolicyRef, ReleaseId, Request, Source, Statement,
    short_code,
};
use custody_core::time::Time;
use custody_run::gate;
use custody_run::repository::{pipeline, read_file, resolve, signed_objects};
use custody_store::{Filter, Kind, Store};
use custody_verify::PolicyChain;
use custody_verify::policy::{Policy, Product, Step};

use super::{add, describe, owned_by};
use crate::context::{KeyArgs, StoreArgs, earlier, nonce, now, statement, trusted};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct ProposeArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The product
    #[arg(long)]
    product: Label,
    /// Its version
    #[arg(long)]
    version: Label,
    /// The channel
    #[arg(long)]
    channel: Label,
    /// The phase
    #[arg(long)]
    phase: Label,
    /// A local clone of the product's repository: git or Mercurial, or the archive itself
    #[arg(long, value_name = "DIR")]
    repository: PathBuf,
    /// What to release: a commit id, branch or tag, of which the commit is recorded; HEAD is what is
    /// checked out
    #[arg(long, default_value = "HEAD")]
    commit: String,
    /// The pipeline file in the repository
    #[arg(long, value_name = "PATH", default_value = "pipeline.toml")]
    pipeline: ArtifactName,
    /// A parameter for the pipeline
    #[arg(long = "param", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// Build on this manifest too, besides those of earlier phases of the same release
    #[arg(long, value_name = "MANIFEST")]
    builds_on: Vec<StatementId>,
    /// How many hours the request is good for
    #[arg(long, value_name = "HOURS", default_value_t = 48)]
    hours: u64,
    #[command(flatten)]
    key: KeyArgs,
}

pub(super) fn run(args: &ProposeArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let created = now()?;
    let policies = trusted(&store, created)?;
    let request = request(args, &store, &policies, created)?;
    let (_, policy) = policies.newest();
    let earlier = earlier(&store, &policies, &request)?;
    can_be_planned(&args.repository, &request, &earlier, policy.product(&args.product)?)?;
    let signer = args.key.open()?;
    let proposers = &policy.product(&args.product)?.propose;
    let owner = owned_by(policy.owner(&signer.public_key().id()), proposers, "propose")?;
    let is_person = policy.principals.get(&owner).is_some_and(|principal| principal.is_person);
    let mut envelope = Statement::from(request.clone()).to_envelope();
    if is_person {
        custody_sign::sign_envelope_as_person(&mut envelope, &*signer)?;
    } else {
        custody_sign::sign_envelope_as_machine(&mut envelope, &*signer)?;
    }
    let id = envelope.id();
    add(&store, &envelope)?;
    let description = describe(&store, &policies, &request, id)?;
    ui.result(&format!("{description}\nrequest {id}"), || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("id", Value::text(id)),
            ("shortCode", Value::text(short_code(id))),
        ])
    });
    Ok(())
}

fn request(
    args: &ProposeArgs,
    store: &Store,
    policies: &PolicyChain,
    created: Time,
) -> Result<Request, Error> {
    let (id, policy) = policies.newest();
    let product = policy.product(&args.product)?;
    known("channel", &args.channel, product.channels.iter())?;
    known("phase", &args.phase, product.phases.keys())?;
    let revision = resolve(&args.repository, &args.commit)?;
    let bytes = read_file(&args.repository, &revision, &args.pipeline)?;
    let source = Source { uri: product.source.clone(), revision };
    signed(&args.repository, &source, policy, product, created)?;
    let release = ReleaseId {
        product: args.product.clone(),
        version: args.version.clone(),
        channel: args.channel.clone(),
        instance: policy.instance.clone(),
    };
    Ok(Request {
        builds_on: builds_on(args, store, policies, &release, product)?,
        release,
        phase: args.phase.clone(),
        source,
        pipeline: Pipeline { path: args.pipeline.clone(), sha256: Sha256::of(&bytes) },
        policy: PolicyRef { version: policy.version, id },
        parameters: parameters(&args.parameters)?,
        created,
        expires: created.plus(args.hours.saturating_mul(3_600)),
        nonce: nonce()?,
    })
}

/// Refuses a source that lacks the signature that workers and verifiers will ask for, while nobody has
/// signed anything yet.
fn signed(
    clone: &Path,
    source: &Source,
    policy: &Policy,
    product: &Product,
    now: Time,
) -> Result<(), Error> {
    let Some(demanded) = &product.source_signatures else { return Ok(()) };
    let mut fault = None;
    for raw in signed_objects(clone, &source.revision, demanded.what)? {
        match policy.source_signer(product, source, Some(&raw), now) {
            Ok(_) => return Ok(()),
            Err(refusal) => fault = Some(refusal),
        }
    }
    let refusal = fault.map_or_else(|| policy.source_signer(product, source, None, now), Err);
    Ok(refusal.map(|_| ())?)
}

/// Refuses a pipeline of which no tasks can be made, or of a step that the policy does not know, while
/// nobody has signed anything yet.
fn can_be_planned(
    clone: &Path,
    request: &Request,
    earlier: &[(StatementId, Manifest)],
    product: &Product,
) -> Result<(), Error> {
    // nothing but the id of the authorization will be another
    let authorization = StatementId(request.pipeline.sha256);
    let tasks = pipeline(clone, request).and_then(|pipeline| {
        pipeline.plan(request, earlier, authorization, "", request.created, String::new)
    });
    let advice = format!(
        "mend {} or give what it asks for (--param, --builds-on), commit, and propose again",
        request.pipeline.path
    );
    for task in tasks.map_err(|refusal| refusal.advising(advice))? {
        product.step(&task.step)?;
    }
    Ok(())
}

/// Refuses a word that the policy does not know before anybody signs it.
fn known<'l>(
    what: &str,
    word: &Label,
    known: impl Iterator<Item = &'l Label> + Clone,
) -> Result<(), Error> {
    if known.clone().any(|label| label == word) {
        return Ok(());
    }
    let names: Vec<&str> = known.map(Label::as_str).collect();
    Err(Error::Usage(format!("the policy knows no {what} {word}; it knows {}", names.join(", "))))
}

fn parameters(texts: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| Error::Usage(format!("--param {text}: write NAME=VALUE")))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

/// All manifests of the phases that this one comes after, and those that were asked for by id.
fn builds_on(
    args: &ProposeArgs,
    store: &Store,
    policies: &PolicyChain,
    release: &ReleaseId,
    product: &Product,
) -> Result<Vec<EarlierManifest>, Error> {
    let after = product.phases.get(&args.phase).map(|phase| &phase.after);
    let keyring = gate::keyring(store, policies)?;
    let mut found = Vec::new();
    let mut shared: BTreeMap<StatementId, Vec<StatementId>> = BTreeMap::new();
    for envelope in store.list(Filter { kind: Some(Kind::Manifest), ..Filter::default() })? {
        let Ok(signed) = envelope.open::<Statement>(&keyring) else { continue };
        let Some(manifest) = signed.unverified().as_manifest() else { continue };
        let named = args.builds_on.contains(&envelope.id());
        let earlier = || {
            let request = request_of(store, policies, manifest).ok()?;
            let before = after.is_some_and(|after| after.contains(&request.phase));
            Some(request.release == *release && before)
        };
        if named || earlier() == Some(true) {
            let step = product.steps.get(&manifest.step);
            if !named && step.is_some_and(Step::is_shared) {
                shared.entry(manifest.task).or_default().push(envelope.id());
            }
            found.push(EarlierManifest::of(envelope.id(), manifest));
        }
    }
    // one of several that agree stands for all
    for alike in shared.values() {
        let time = now()?;
        let good = alike.iter().find(|id| gate::agreement(store, **id, time).is_ok());
        let chosen = good.or(alike.first());
        found.retain(|entry| Some(&entry.manifest) == chosen || !alike.contains(&entry.manifest));
    }
    if let Some(absent) =
        args.builds_on.iter().find(|id| found.iter().all(|entry| entry.manifest != **id))
    {
        return Err(Error::Usage(format!("--builds-on {absent}: no such manifest in the store")));
    }
    found.sort_by(|a, b| (&a.step, a.manifest).cmp(&(&b.step, b.manifest)));
    Ok(found)
}

fn request_of(
    store: &Store,
    policies: &PolicyChain,
    manifest: &Manifest,
) -> Result<Request, Refusal> {
    let keyring = policies.keyring();
    let task = statement(store, keyring, manifest.task, "task", Statement::as_task)?;
    let authorization = statement(
        store,
        keyring,
        task.authorization,
        "authorization",
        Statement::as_authorization,
    )?;
    statement(store, keyring, authorization.request, "request", Statement::as_request)
}
