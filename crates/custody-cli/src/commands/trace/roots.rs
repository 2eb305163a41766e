//! Where a trace begins: which statements and files are meant.

use std::collections::BTreeSet;
use std::path::Path;

use custody_core::digest::Sha256;
use custody_core::encoding::base64;
use custody_core::envelope::{Envelope, Keyring, Payload as _, PolicyText, Signature, StatementId};
use custody_core::key::{KeyId, PublicKey};
use custody_core::sshsig::SshSignature;
use custody_core::statement::{Enrolment, Label, Statement};
use custody_core::time::Time;
use custody_run::hash::hash_file;
use custody_store::{Filter, Relation, Store};
use custody_verify::PolicyChain;

use super::TraceArgs;
use crate::context::read;
use crate::error::Error;

/// What a trace begins with.
#[derive(Debug, Default)]
pub(super) struct Roots {
    pub(super) statements: BTreeSet<StatementId>,
    /// Whose use and making are to be found.
    pub(super) files: BTreeSet<Sha256>,
    /// All digests that were asked about.
    pub(super) digests: BTreeSet<Sha256>,
    /// How many statements were looked through.
    pub(super) searched: usize,
}

/// Finds what is asked about. Where a claim is enough to be meant, it is.
pub(super) fn roots(
    args: &TraceArgs,
    store: &Store,
    policies: &PolicyChain,
) -> Result<Roots, Error> {
    let all = store.list(Filter::default())?;
    let mut roots = Roots { searched: all.len(), ..Roots::default() };
    for what in &args.what {
        let digest = match what.parse::<Sha256>() {
            Ok(digest) => digest,
            Err(_) => hash_file(Path::new(what), false).map_err(Error::io(what.as_ref()))?.0.sha256,
        };
        // a digest may be a file's, a statement's, or a task's as a file: it is looked for as each
        roots.statements.insert(StatementId(digest));
        roots.files.insert(digest);
        roots.digests.insert(digest);
    }
    let keys = keys(args, policies, &all)?;
    let keyring: Keyring = keys.iter().filter_map(|key| key.public.clone()).collect();
    let wanted: BTreeSet<KeyId> = keys.iter().map(|key| key.id).collect();
    let signed = |envelope: &Envelope| {
        envelope.signatures().iter().any(|signature| claims(signature, &wanted))
            || (!keys.is_empty() && is_signed(envelope, &keyring))
    };
    let means = |envelope: &Envelope| {
        let statement = Statement::parse(envelope.unverified_payload()).ok();
        statement.is_some_and(|statement| {
            args.by.iter().any(|name| names(&statement, name))
                || args.environment.iter().any(|pair| ran_in(&statement, pair))
        })
    };
    roots.statements.extend(
        all.iter().filter(|envelope| signed(envelope) || means(envelope)).map(Envelope::id),
    );
    if let Some(since) = args.since {
        keep_since(&mut roots, store, &all, since)?;
    }
    Ok(roots)
}

/// Whether one of these keys signed, whatever the signature says of itself.
fn is_signed(envelope: &Envelope, keyring: &Keyring) -> bool {
    envelope.open::<Statement>(keyring).is_ok() || envelope.open::<PolicyText>(keyring).is_ok()
}

/// A key that is meant; where only its id is known, signatures that claim it are.
struct Meant {
    id: KeyId,
    public: Option<PublicKey>,
}

fn keys(args: &TraceArgs, policies: &PolicyChain, all: &[Envelope]) -> Result<Vec<Meant>, Error> {
    let principals = || policies.iter().flat_map(|(_, policy)| &policy.principals);
    let mut meant = Vec::new();
    for name in &args.by {
        let of_name = principals().filter(|(known, _)| *known == name);
        let keys: Vec<&PublicKey> =
            of_name.flat_map(|(_, principal)| &principal.keys).map(|entry| &entry.key).collect();
        let enrolled = enrolled(all).filter(|enrolment| enrolment.machine == *name);
        let keys: Vec<PublicKey> =
            keys.into_iter().cloned().chain(enrolled.map(|enrolment| enrolment.key)).collect();
        if !principals().any(|(known, _)| known == name) {
            return Err(Error::Usage(format!("no policy of the store knows a principal {name}")));
        }
        meant.extend(keys.into_iter().map(|key| Meant { id: key.id(), public: Some(key) }));
    }
    let listed =
        || principals().flat_map(|(_, principal)| &principal.keys).map(|entry| entry.key.clone());
    let certified = enrolled(all).map(|enrolment| enrolment.key);
    let certified: Vec<PublicKey> = certified.collect();
    let used = || {
        let ssh = all.iter().flat_map(Envelope::signatures).filter_map(ssh_key);
        ssh.chain(certified.iter().cloned())
    };
    for text in &args.key {
        if let Ok(id) = text.parse::<KeyId>() {
            let public = listed().chain(used()).find(|key| key.id() == id);
            meant.push(Meant { id, public });
            continue;
        }
        let public = if text.starts_with("SHA256:") {
            listed().chain(used()).find(|key| fingerprint(key) == *text)
        } else {
            let file = String::from_utf8_lossy(&read(Path::new(text))?).into_owned();
            Some(PublicKey::parse(&file)?)
        };
        let public = public.ok_or_else(|| {
            Error::Usage(format!("no key with the fingerprint {text} is in the policies or the evidence; name its file"))
        })?;
        meant.push(Meant { id: public.id(), public: Some(public) });
    }
    Ok(meant)
}

/// What certificates say, whoever made them.
fn enrolled(all: &[Envelope]) -> impl Iterator<Item = Enrolment> {
    all.iter().filter_map(|envelope| match Statement::parse(envelope.unverified_payload()) {
        Ok(Statement::Enrolment(enrolment)) => Some(enrolment),
        _ => None,
    })
}

/// As OpenSSH shows keys: `ssh-keygen -l`.
fn fingerprint(key: &PublicKey) -> String {
    let digest = Sha256::of(&key.to_ssh_blob());
    format!("SHA256:{}", base64(digest.as_bytes()).trim_end_matches('='))
}

fn ssh_key(signature: &Signature) -> Option<PublicKey> {
    Some(SshSignature::parse(&signature.sig).ok()?.claimed_key().clone())
}

/// Whether a signature says of itself that one of these keys made it.
fn claims(signature: &Signature, keys: &BTreeSet<KeyId>) -> bool {
    let hint = signature.keyid.as_deref().and_then(|id| id.parse().ok());
    let claimed = ssh_key(signature).map(|key| key.id()).or(hint);
    claimed.is_some_and(|id| keys.contains(&id))
}

/// Whether a statement says that this person or machine had a part in it.
fn names(statement: &Statement, name: &Label) -> bool {
    match statement {
        Statement::Signoff(signoff) => signoff.person == *name,
        Statement::Authorization(authorization) => {
            authorization.approvers.iter().any(|approver| approver.person == *name)
        }
        Statement::Resolution(resolution) => resolution.person == *name,
        Statement::Manifest(manifest) => manifest.builder.rsplit('/').next() == Some(name.as_str()),
        Statement::Enrolment(enrolment) => enrolment.machine == *name,
        Statement::Request(_)
        | Statement::Task(_)
        | Statement::Summary(_)
        | Statement::Intent(_) => false,
    }
}

fn ran_in(statement: &Statement, (name, value): &(String, String)) -> bool {
    statement.as_manifest().is_some_and(|manifest| {
        manifest.environment.iter().any(|(known, said)| known == name && said == value)
    })
}

/// Drops what was certainly there before. Times in statements are their signers' own, and a thief dates
/// back: so what arrived after anything that claims a time from `since` on stays too, whatever time it
/// claims itself.
fn keep_since(
    roots: &mut Roots,
    store: &Store,
    all: &[Envelope],
    since: Time,
) -> Result<(), Error> {
    // files have no time: the statements that list them do
    for file in std::mem::take(&mut roots.files) {
        for relation in [Relation::Input, Relation::Product, Relation::Verified] {
            let links = store.links_to(&file, Some(relation))?;
            roots.statements.extend(links.into_iter().map(|link| link.source));
        }
        let is_task = |envelope: &&Envelope| Sha256::of(envelope.unverified_payload()) == file;
        roots.statements.extend(all.iter().filter(is_task).map(Envelope::id));
    }
    let time =
        |envelope: &Envelope| Some(claimed(&Statement::parse(envelope.unverified_payload()).ok()?));
    let is_late = |envelope: &Envelope| time(envelope).is_some_and(|time| time >= since);
    let cut = all.iter().position(is_late).unwrap_or(all.len());
    let early: BTreeSet<StatementId> = all
        .iter()
        .take(cut)
        .filter(|envelope| time(envelope).is_some())
        .map(Envelope::id)
        .collect();
    roots.statements.retain(|id| !early.contains(id));
    Ok(())
}

/// The latest time that a statement claims to have been made.
pub(super) fn claimed(statement: &Statement) -> Time {
    match statement {
        Statement::Request(request) => request.created,
        Statement::Signoff(signoff) => signoff.created,
        Statement::Authorization(authorization) => authorization.not_before,
        Statement::Task(task) => task.created,
        Statement::Manifest(manifest) => manifest.started.max(manifest.finished),
        Statement::Summary(summary) => summary.verified,
        Statement::Intent(intent) => intent.created,
        Statement::Resolution(resolution) => resolution.created,
        Statement::Enrolment(enrolment) => enrolment.from,
    }
}
