//! `custody enrol request`

use std::path::{Path, PathBuf};

use clap::Args;
use custody_core::Refusal;
use custody_core::envelope::{Envelope, Payload as _};
use custody_core::json::{Value, text_map};
use custody_core::statement::{Attestation, Enrolment, Label, Statement};
use custody_run::enrol::Service;
use custody_run::measure::platform::{Collected, Platform};
use custody_sign::{Format, Kind, Signer, generate};
use custody_store::bundle;

use crate::commands::platforms::PlatformArgs;
use crate::commands::run::certificate_beside;
use crate::context::{PassphraseArgs, open_key, read};
use crate::error::Error;
use crate::tree::shown;
use crate::ui::{GOOD, Ui};

#[derive(Args, Debug)]
pub(crate) struct RequestArgs {
    /// The service: https://…, or http:// on this machine
    #[arg(long, value_name = "URL")]
    url: String,
    /// The machine that this is, as the policy names it
    #[arg(long, value_name = "NAME")]
    machine: Label,
    /// A file with what a platform signed of this machine, as JSON, beside what --platform asks for
    #[arg(long = "attestation", value_name = "FILE")]
    attestations: Vec<PathBuf>,
    #[command(flatten)]
    platforms: PlatformArgs,
    #[command(flatten)]
    key: WhichKey,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct WhichKey {
    /// Make a key here, with its public half in FILE.pub and its certificate in FILE.cert.jsonl
    #[arg(long, value_name = "FILE")]
    key_out: Option<PathBuf>,
    /// Get a new certificate for this key
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

pub(crate) fn run(args: &RequestArgs, ui: &Ui) -> Result<(), Error> {
    let service = Service::at(&args.url)?;
    let (attestations, platforms) = (attestations(args)?, args.platforms.platforms()?);
    let (path, made) = match (&args.key.key_out, &args.key.key) {
        (Some(path), _) => {
            generate(Kind::Ed25519)?.write(path, Format::Pkcs8, None, args.machine.as_str())?;
            (path, true)
        }
        (None, Some(path)) => (path, false),
        (None, None) => return Err(Error::Usage("name a key: --key-out or --key".into())),
    };
    let enrolled = open_key(&path.display().to_string(), &args.passphrase)
        .and_then(|signer| enrol(args, &service, path, &*signer, attestations, &platforms));
    let (envelope, enrolment) = enrolled.inspect_err(|_| {
        if made {
            // nobody knows this key: the next attempt makes another
            for file in [path, &path.with_added_extension("pub")] {
                std::fs::remove_file(file).unwrap_or_default();
            }
        }
    })?;
    let facts: String = enrolment
        .facts
        .iter()
        .map(|(name, value)| format!("\n  {name} {}", shown(value)))
        .collect();
    let text = format!(
        "{GOOD}✓{GOOD:#} enrolled as {} until {}\ncertificate {}{facts}",
        enrolment.machine,
        enrolment.until,
        envelope.id()
    );
    ui.result(&text, || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("id", Value::text(envelope.id())),
            ("machine", Value::text(&enrolment.machine)),
            ("key", Value::text(enrolment.key.id())),
            ("from", Value::text(enrolment.from)),
            ("until", Value::text(enrolment.until)),
            ("facts", text_map(enrolment.facts.iter().map(|(name, value)| (name, value)))),
        ])
    });
    Ok(())
}

fn attestations(args: &RequestArgs) -> Result<Vec<Attestation>, Error> {
    let one = |path: &PathBuf| -> Result<Attestation, Error> {
        let attestation = Attestation::parse(&read(path)?);
        Ok(attestation.map_err(|refusal: Refusal| refusal.within(&path.display().to_string()))?)
    };
    args.attestations.iter().map(one).collect()
}

fn enrol(
    args: &RequestArgs,
    service: &Service,
    path: &Path,
    signer: &dyn Signer,
    mut attestations: Vec<Attestation>,
    platforms: &[Platform],
) -> Result<(Envelope, Enrolment), Error> {
    let envelope = service.enrol(&args.machine, signer, |binding| {
        attestations.extend(Collected::from(platforms, binding)?.into_attestations());
        Ok(attestations)
    })?;
    let beside = certificate_beside(path);
    let bytes = bundle::write(std::slice::from_ref(&envelope));
    custody_store::durable::replace_file(&beside, bytes.as_bytes(), 0o644)
        .map_err(Error::io(&beside))?;
    match Statement::parse(envelope.unverified_payload())? {
        Statement::Enrolment(enrolment) => Ok((envelope, enrolment)),
        other => Err(Error::Usage(format!("the service sent a {}", other.kind()))),
    }
}
