//! `custody policy check | init | sign | rotate | show`

mod draft;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use custody_core::envelope::{Envelope, PolicyText};
use custody_core::json::Value;
use custody_verify::Policy;
use custody_verify::policy::{Hint, Review};

use crate::context::{KeyArgs, StoreArgs, now, read, read_envelope, trusted};
use crate::error::Error;
use crate::ui::{BOLD, Ui};

#[derive(Subcommand, Debug)]
pub(crate) enum PolicyCommand {
    /// Check the text of a policy
    Check(CheckArgs),
    /// Write the draft of a policy from what a release left
    Init(draft::DraftArgs),
    /// Sign the text of a policy as one of its root people
    Sign(SignArgs),
    /// Let the store go on to the next version
    Rotate(RotateArgs),
    /// Show the policies that the store trusts
    Show(StoreArgs),
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// The policy's TOML
    file: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct SignArgs {
    /// The policy's TOML
    file: PathBuf,
    #[command(flatten)]
    key: KeyArgs,
    /// The signed policy: made if it is not there, else given one more signature
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The signed policy of the next version
    file: PathBuf,
}

/// The text, the policy, and what is unwise in it.
fn parse(path: &Path) -> Result<(String, Policy, Vec<Hint>), Error> {
    let text = String::from_utf8(read(path)?)
        .map_err(|_| Error::Usage(format!("{} is not UTF-8", path.display())))?;
    let Review { policy, faults, warnings } = Policy::review(&text, now()?);
    let policy = policy.ok_or_else(|| Error::Policy { path: path.into(), faults })?;
    Ok((text, policy, warnings))
}

pub(crate) fn run(command: &PolicyCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        PolicyCommand::Check(args) => check(args, ui),
        PolicyCommand::Init(args) => draft::run(args, ui),
        PolicyCommand::Sign(args) => sign(args, ui),
        PolicyCommand::Rotate(args) => rotate(args, ui),
        PolicyCommand::Show(args) => show(args, ui),
    }
}

fn check(args: &CheckArgs, ui: &Ui) -> Result<(), Error> {
    let (_, policy, warnings) = parse(&args.file)?;
    let mut text = format!(
        "policy {} for {} is sound: {}, {}, {}\n",
        policy.version,
        policy.instance,
        counted(policy.principals.len(), "principal"),
        counted(policy.roles.len(), "role"),
        counted(policy.products.len(), "product")
    );
    for Hint { line, column, message, remedy } in &warnings {
        let place = format!("{}:{line}:{column}", args.file.display());
        text +=
            &format!("{BOLD}warning:{BOLD:#} {message}\n  --> {place}\n  do         {remedy}\n");
    }
    ui.result(&text, || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("version", Value::Integer(policy.version)),
            ("warnings", Value::list(warnings.iter().map(hint_json))),
        ])
    });
    Ok(())
}

fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

fn hint_json(hint: &Hint) -> Value<'static> {
    Value::object([])
        .with("line", u64::try_from(hint.line).ok().map(Value::Integer))
        .with("column", u64::try_from(hint.column).ok().map(Value::Integer))
        .with("message", Some(Value::text(&hint.message)))
        .with("remedy", Some(Value::text(&hint.remedy)))
}

fn sign(args: &SignArgs, ui: &Ui) -> Result<(), Error> {
    let (text, _, _) = parse(&args.file)?;
    let mut envelope = Envelope::unsigned::<PolicyText>(text);
    if args.out.exists() {
        let before = read_envelope(&args.out)?;
        if before.id() != envelope.id() {
            let text = format!(
                "{} holds another policy ({}); write to a new file",
                args.out.display(),
                before.id()
            );
            return Err(Error::Usage(text));
        }
        envelope = before;
    }
    custody_sign::sign_envelope_as_person(&mut envelope, &*args.key.open()?)?;
    let json = envelope.to_json() + "\n";
    custody_store::durable::replace_file(&args.out, json.as_bytes(), 0o644)
        .map_err(Error::io(&args.out))?;
    let count = envelope.signatures().len();
    let text = format!("{} has {count} signatures\npin {}", args.out.display(), envelope.id());
    ui.result(&text, || {
        Value::object([("ok", Value::Bool(true)), ("pin", Value::text(envelope.id()))])
            .with("signatures", u64::try_from(count).ok().map(Value::Integer))
    });
    Ok(())
}

fn rotate(args: &RotateArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let now = now()?;
    let mut chain = trusted(&store, now)?;
    let envelope = read_envelope(&args.file)?;
    chain.rotate(&envelope)?;
    let (id, newest) = chain.newest();
    let version = newest.version;
    store.add(&[envelope])?;
    store.raise_floor(custody_store::Floor { version, policy: id }, None)?;
    ui.result(&format!("the store trusts policy {version} ({id})"), || {
        Value::object([
            ("ok", Value::Bool(true)),
            ("version", Value::Integer(version)),
            ("id", Value::text(id)),
        ])
    });
    Ok(())
}

fn show(args: &StoreArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.open()?;
    let chain = trusted(&store, now()?)?;
    let line = |(id, policy): (_, &Policy)| {
        format!("policy {}  {id}  {}, ends {}\n", policy.version, policy.instance, policy.expires)
    };
    let text: String = chain.iter().map(line).collect();
    ui.result(&text, || {
        Value::list(chain.iter().map(|(id, policy)| {
            Value::object([
                ("version", Value::Integer(policy.version)),
                ("id", Value::text(id)),
                ("expires", Value::text(policy.expires)),
            ])
        }))
    });
    Ok(())
}
