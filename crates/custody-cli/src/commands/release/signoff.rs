//! `custody release show | sign-off`

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use custody_core::envelope::{Envelope, Keyring, Payload as _, Signature, StatementId};
use custody_core::json::Value;
use custody_core::sshsig::{NAMESPACE, SshSignature, dearmor};
use custody_core::statement::{Decision, Label, Signoff, Statement, short_code};
use custody_core::{Code, Refusal};
use custody_run::gate;
use custody_store::Store;
use custody_verify::PolicyChain;

use super::{add, describe, owned_by, request};
use crate::context::{PassphraseArgs, StoreArgs, earlier, now, open_key, read, trusted, write_new};
use crate::error::Error;
use crate::ui::{DIM, Ui};

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The request's statement id
    request: StatementId,
    #[command(flatten)]
    word: Option<WordArgs>,
    /// A new file for the exact bytes that the person signs with ssh-keygen
    #[arg(long, value_name = "FILE", requires = "person")]
    out: Option<PathBuf>,
}

/// Who says what.
#[derive(Args, Clone, Debug)]
pub(crate) struct WordArgs {
    // clap would ask for the words of an optional group all the same: each asks for the others
    /// Who signs off
    #[arg(long = "as", value_name = "PERSON", required = false, requires = "role")]
    person: Label,
    /// In which role
    #[arg(long, required = false, requires = "person")]
    role: Label,
    /// What they decide
    #[arg(long, value_enum, default_value_t = DecisionArg::Approve, requires = "person")]
    decision: DecisionArg,
    /// The earlier approval that a withdrawal ends
    #[arg(
        long,
        value_name = "SIGNOFF",
        required_if_eq("decision", "withdraw"),
        requires = "person"
    )]
    withdraws: Option<StatementId>,
    /// What they want to say
    #[arg(long, default_value = "", requires = "person")]
    comment: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DecisionArg {
    Approve,
    Refuse,
    Withdraw,
}

impl From<DecisionArg> for Decision {
    fn from(decision: DecisionArg) -> Self {
        match decision {
            DecisionArg::Approve => Self::Approve,
            DecisionArg::Refuse => Self::Refuse,
            DecisionArg::Withdraw => Self::Withdraw,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct SignoffArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The request's statement id
    request: StatementId,
    #[command(flatten)]
    word: Option<WordArgs>,
    /// The person's key: a PKCS#8 PEM or OpenSSH file, a security key's file, agent:FINGERPRINT, or a
    /// pkcs11: URI
    #[arg(long, value_name = "KEY", requires = "person", required_unless_present = "statement")]
    key: Option<String>,
    #[command(flatten)]
    passphrase: PassphraseArgs,
    /// What `custody release show --out` wrote
    #[arg(long, value_name = "FILE", requires = "signature", conflicts_with_all = ["person", "key"])]
    statement: Option<PathBuf>,
    /// What `ssh-keygen -Y sign` made of it
    #[arg(long, value_name = "FILE", requires = "statement")]
    signature: Option<PathBuf>,
}

fn compose(
    word: &WordArgs,
    content: &custody_core::statement::Request,
    id: StatementId,
) -> Result<Signoff, Error> {
    let signoff = Signoff::of(
        content,
        id,
        word.decision.into(),
        word.person.clone(),
        word.role.clone(),
        now()?,
    );
    if word.withdraws.is_some() && signoff.decision != Decision::Withdraw {
        return Err(Error::Usage("--withdraws goes with --decision withdraw".into()));
    }
    Ok(Signoff { withdraws: word.withdraws, comment: word.comment.clone(), ..signoff })
}

pub(super) fn show(args: &ShowArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let content = request(&store, &policies, args.request)?;
    let mut text = describe(&store, &policies, &content, args.request)?;
    let signoff =
        args.word.as_ref().map(|word| compose(word, &content, args.request)).transpose()?;
    if signoff.as_ref().is_some_and(|signoff| signoff.decision == Decision::Approve) {
        earlier(&store, &policies, &content)?;
    }
    let envelope = signoff.map(|signoff| Statement::from(signoff).to_envelope());
    if let Some(envelope) = &envelope {
        text += &format!("\n{}", String::from_utf8_lossy(envelope.unverified_payload()));
    }
    if let (Some(path), Some(envelope)) = (&args.out, &envelope) {
        write_new(path, envelope.pae())?;
        let file = path.display();
        text += &format!(
            "\n{DIM}sign it with: ssh-keygen -Y sign -n {NAMESPACE} -f KEY {file}\nthen: custody release sign-off {} --statement {file} --signature {file}.sig{DIM:#}\n",
            args.request
        );
    }
    ui.result(&text, || {
        Value::object([
            ("id", Value::text(args.request)),
            ("shortCode", Value::text(short_code(args.request))),
        ])
        .with(
            "signoff",
            envelope.as_ref().map(|envelope| {
                Value::text(String::from_utf8_lossy(envelope.unverified_payload()))
            }),
        )
    });
    Ok(())
}

pub(super) fn sign_off(args: &SignoffArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    let policies = trusted(&store, now()?)?;
    let content = request(&store, &policies, args.request)?;
    let envelope = match (&args.word, &args.key, &args.statement, &args.signature) {
        (Some(word), Some(key), None, None) => {
            ui.note(&describe(&store, &policies, &content, args.request)?);
            let word = compose(word, &content, args.request)?;
            // nobody approves what was not shown; to refuse, the request is enough
            if word.decision == Decision::Approve {
                earlier(&store, &policies, &content)?;
            }
            let mut envelope = Statement::from(word).to_envelope();
            let signer = open_key(key, &args.passphrase)?;
            custody_sign::sign_envelope_as_person(&mut envelope, &*signer)?;
            envelope
        }
        (None, None, Some(statement), Some(signature)) => {
            let armored = String::from_utf8_lossy(&read(signature)?).into_owned();
            signed_elsewhere(&read(statement)?, &dearmor(&armored)?)?
        }
        _ => {
            return Err(Error::Usage(
                "give --as, --role and --key, or --statement and --signature".into(),
            ));
        }
    };
    let signoff = checked(&envelope, &policies)?;
    if let Some((what, expected, found)) = signoff.difference(&content, args.request) {
        return Err(Refusal::new(Code::SignoffContentMismatch, what, expected, found).into());
    }
    counts(&store, &policies, args.request, &envelope)?;
    add(&store, &envelope)?;
    let id = envelope.id();
    let text = format!(
        "{}: {} by {} as {}\nsign-off {id}",
        content.release,
        signoff.decision.word(),
        signoff.person,
        signoff.role
    );
    ui.result(&text, || Value::object([("ok", Value::Bool(true)), ("id", Value::text(id))]));
    Ok(())
}

/// Refuses an approval that cannot count, while the person is still there to hear it.
fn counts(
    store: &Store,
    policies: &PolicyChain,
    request: StatementId,
    envelope: &Envelope,
) -> Result<(), Error> {
    let mut evidence = gate::gather(store, &[request])?;
    evidence.insert(envelope.clone());
    let tally = custody_verify::tally(request, &evidence, policies, now()?)?;
    let own = tally.ignored.into_iter().find(|(id, _)| *id == envelope.id());
    match own {
        Some((_, refusal))
            if matches!(refusal.code, Code::SignoffRole | Code::SignoffSelfApproval) =>
        {
            Err(refusal.into())
        }
        _ => Ok(()),
    }
}

/// The envelope around what somebody signed without Custody: the bytes are a DSSE PAE of one of our
/// statements, and nothing else.
fn signed_elsewhere(pae: &[u8], blob: &[u8]) -> Result<Envelope, Error> {
    let start = format!("DSSEv1 {} {} ", Statement::TYPE.len(), Statement::TYPE);
    let rest = pae.strip_prefix(start.as_bytes());
    let blank = rest.and_then(|rest| rest.iter().position(|byte| *byte == b' '));
    let payload = rest.zip(blank).and_then(|(rest, blank)| rest.get(blank.saturating_add(1)..));
    let mut envelope = Envelope::unsigned::<Statement>(payload.unwrap_or_default());
    if envelope.pae() != pae {
        return Err(Refusal::new(
            Code::EnvPayloadType,
            "--statement",
            "a file that custody release show wrote",
            "another",
        )
        .into());
    }
    let keyid = SshSignature::parse(blob)?.claimed_key().id().to_string();
    envelope.add_signature(Signature { keyid: Some(keyid), sig: blob.to_vec() });
    Ok(envelope)
}

/// Refuses at once what would not count later: a key that is not this person's.
fn checked(envelope: &Envelope, policies: &PolicyChain) -> Result<Signoff, Error> {
    let (_, policy) = policies.newest();
    let keyring: &Keyring = policies.keyring();
    let signed = envelope.open::<Statement>(keyring)?;
    let signoff = signed.narrow(Statement::as_signoff);
    let signoff = signoff.ok_or_else(|| {
        Refusal::new(
            Code::StmtPredicateType,
            "--statement",
            "a sign-off",
            signed.unverified().kind(),
        )
    })?;
    let content = (*signoff.unverified()).clone();
    let own = BTreeSet::from([content.person.clone()]);
    for signer in signed.signers() {
        owned_by(policy.owner(&signer.key), &own, "speak as that person")?;
        policy.entitled(signer, &own, content.created, "the sign-off")?;
    }
    Ok(content)
}
