//! `custody show`

use std::path::Path;

use clap::Args;
use custody_core::envelope::{Envelope, Payload as _, StatementId};
use custody_core::json::Value;
use custody_core::sshsig::SshSignature;
use custody_core::statement::{InputOrigin, Pinned, Statement};
use custody_core::{Code, Refusal};
use custody_run::pipeline::write_lock;
use custody_store::{Relation, Store, not_kept};

use crate::context::{StoreArgs, read_envelope};
use crate::error::Error;
use crate::machine::described;
use crate::tree::shown;
use crate::ui::{BOLD, DIM, Ui};

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// A statement id of the store, or a DSSE JSON file
    what: String,
    /// Print what the run of this manifest fetched, as a file of pins for the pipeline
    #[arg(long)]
    pins: bool,
}

pub(crate) fn run(args: &ShowArgs, ui: &Ui) -> Result<(), Error> {
    let path = Path::new(&args.what);
    let (envelope, store) = match args.what.parse::<StatementId>() {
        Ok(id) => {
            let store = args.store.open()?;
            let missing = || not_kept(format!("statement {id}"), "it in the store");
            (store.get(id)?.ok_or_else(missing)?, Some(store))
        }
        Err(_) => (read_envelope(path)?, None),
    };
    if args.pins {
        let text = pins(&envelope)?;
        ui.result(&text, || Value::object([("pins", Value::text(&text))]));
        return Ok(());
    }
    let text = describe(&envelope, store.as_ref())?;
    ui.result(&text, || {
        Value::object([
            ("id", Value::text(envelope.id())),
            ("payloadType", Value::text(envelope.payload_type())),
            ("verified", Value::Bool(false)),
            (
                "signatures",
                Value::list(envelope.signatures().iter().map(|signature| {
                    Value::text(claimed_signer(&signature.sig, signature.keyid.as_deref()))
                })),
            ),
            ("payload", Value::text(String::from_utf8_lossy(envelope.unverified_payload()))),
        ])
    });
    Ok(())
}

fn describe(envelope: &Envelope, store: Option<&Store>) -> Result<String, Error> {
    let payload = String::from_utf8_lossy(envelope.unverified_payload()).into_owned();
    let lines: String = payload.lines().map(|line| shown(line) + "\n").collect();
    let mut text = format!("{BOLD}{}{BOLD:#}  {}\n", envelope.id(), shown(envelope.payload_type()));
    for signature in envelope.signatures() {
        text += &format!(
            "claims to be signed by {}\n",
            shown(&claimed_signer(&signature.sig, signature.keyid.as_deref()))
        );
    }
    text +=
        &format!("{DIM}nothing of this is verified: custody verify does that{DIM:#}\n\n{lines}");
    if let Ok(Statement::Manifest(manifest)) = Statement::parse(envelope.unverified_payload()) {
        text += &format!("\n{BOLD}the machine, as it says{BOLD:#}\n{}", described(&manifest));
    }
    let incoming =
        store.map(|store| store.links_to(&envelope.id().0, None)).transpose()?.unwrap_or_default();
    if !incoming.is_empty() {
        text += &format!("\n{BOLD}named by{BOLD:#}\n");
    }
    for link in incoming {
        text += &format!("{}  as {}\n", link.source, relation(link.relation));
    }
    Ok(text)
}

/// The downloads of a manifest, which nobody verified here: whoever takes them as pins reads them.
fn pins(envelope: &Envelope) -> Result<String, Error> {
    let statement = Statement::parse(envelope.unverified_payload())?;
    let inputs = match &statement {
        Statement::Manifest(manifest) => manifest.inputs.as_slice(),
        _ => &[],
    };
    let pins: Vec<Pinned> = inputs
        .iter()
        .filter_map(|input| match &input.origin {
            InputOrigin::Download(uri) => Some(Pinned {
                uri: uri.clone(),
                digests: input.artifact.digests,
                size: input.artifact.size,
            }),
            InputOrigin::Manifest(_) | InputOrigin::External(_) => None,
        })
        .collect();
    if pins.is_empty() {
        let at = format!("statement {}", envelope.id().short());
        return Err(Refusal::new(Code::ArtMissing, at, "a manifest with downloads", "none").into());
    }
    Ok(write_lock(&pins))
}

fn claimed_signer(sig: &[u8], keyid: Option<&str>) -> String {
    match SshSignature::parse(sig) {
        Ok(ssh) => ssh.claimed_key().to_openssh(),
        Err(_) => format!("key {}", keyid.unwrap_or("without id")),
    }
}

const fn relation(relation: Relation) -> &'static str {
    match relation {
        Relation::SignoffRequest => "the request of a sign-off",
        Relation::ManifestEnrolment => "the certificate of a manifest's key",
        Relation::EnrolmentKey => "the key of a certificate",
        Relation::ManifestTask => "the task of a manifest",
        Relation::IntentTask => "the task of an intent",
        Relation::ResolutionTask => "the task of a resolution",
        Relation::SignoffWithdraws => "the sign-off that is withdrawn",
        Relation::Policy | Relation::RequestPolicy | Relation::SummaryPolicy => "the policy",
        Relation::RequestManifest => "what a request builds on",
        Relation::AuthorizationRequest => "the request of an authorization",
        Relation::AuthorizationSignoff => "a sign-off of an authorization",
        Relation::TaskAuthorization => "the authorization of a task",
        Relation::TaskTask | Relation::TaskManifest => "what a task takes inputs from",
        Relation::ManifestManifest => "what a manifest used products of",
        Relation::ResolutionManifest => "the manifest that holds",
        Relation::ResolutionIntent => "what is taken up again",
        Relation::SummaryInput => "what a verification summary rests on",
        Relation::Product | Relation::Input | Relation::Verified | Relation::Signer => "a digest",
    }
}
