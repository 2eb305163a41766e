//! The way from the pin to the newest policy: stolen root keys, and storage that hands out old policies.

use custody_world as world;

use custody_core::Code;
use custody_core::envelope::{Envelope, PolicyText, StatementId};
use custody_verify::{Floor, PolicyChain};
use world::{Key, at, next_version, policy_envelope, policy_text};

/// Version 1 and two more, each rightly signed.
struct Three {
    first: Envelope,
    second: Envelope,
    third: Envelope,
}

fn three() -> Three {
    let first = policy_envelope(&policy_text(), &["alice", "bob"]);
    let second = policy_envelope(&next_version(&first, |text| text), &["alice", "bob"]);
    let third = policy_envelope(&next_version(&second, |text| text), &["bob", "carol"]);
    Three { first, second, third }
}

fn establish(
    pin: StatementId,
    envelopes: &[&Envelope],
    floor: Option<Floor>,
) -> Result<PolicyChain, Code> {
    PolicyChain::establish(pin, envelopes.iter().copied(), floor).map_err(|refusal| refusal.code)
}

fn version(chain: &Result<PolicyChain, Code>) -> u64 {
    chain.as_ref().unwrap().newest().1.version
}

fn rotate(chain: &PolicyChain, envelope: &Envelope) -> Code {
    chain.clone().rotate(envelope).unwrap_err().code
}

/// The control, `pol-version-gap`, and evidence that anybody adds.
#[test]
fn policies_rotate_one_by_one_in_whatever_order_they_come() {
    let Three { first, second, third } = three();
    let pin = first.id();
    assert_eq!(version(&establish(pin, &[&first], None)), 1);
    assert_eq!(version(&establish(pin, &[&third, &second, &first], None)), 3);
    assert_eq!(version(&establish(pin, &[&first, &third, &second, &third], None)), 3);
    assert_eq!(version(&establish(second.id(), &[&first, &third, &second], None)), 3);
    // signatures that came in two files are those of one document
    let text = std::str::from_utf8(second.unverified_payload()).unwrap();
    let (one, other) = (policy_envelope(text, &["alice"]), policy_envelope(text, &["carol"]));
    assert_eq!(version(&establish(pin, &[&first, &one], None)), 1);
    assert_eq!(version(&establish(pin, &[&first, &one, &other], None)), 2);
    // a gap: version 3 is left aside, and a floor tells
    assert_eq!(version(&establish(pin, &[&first, &third], None)), 1);
    let chain = establish(pin, &[&first], None).unwrap();
    assert_eq!(rotate(&chain, &third), Code::PolicyVersionGap);
    let mut chain = chain;
    chain.rotate(&second).unwrap();
    chain.rotate(&second).unwrap();
    chain.rotate(&first).unwrap();
    chain.rotate(&third).unwrap();
    assert_eq!(chain.newest().1.version, 3);
    assert_eq!(
        chain.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        [first.id(), second.id(), third.id()]
    );
    assert!(chain.get(second.id()).is_some());
    let junk = policy_envelope("not TOML at all [", &["mallory"]);
    let unsigned = Envelope::unsigned::<PolicyText>(next_version(&third, |text| text).into_bytes());
    assert_eq!(version(&establish(pin, &[&junk, &unsigned, &first, &second, &third], None)), 3);
}

/// `pol-from-the-chain`: there is no trust on first use.
#[test]
fn a_policy_that_is_not_pinned_is_refused() {
    let Three { first, second, .. } = three();
    assert_eq!(
        establish(
            StatementId(custody_core::digest::Sha256::of(b"other")),
            &[&first, &second],
            None
        )
        .unwrap_err(),
        Code::PolicyUntrusted
    );
    assert_eq!(establish(first.id(), &[&second], None).unwrap_err(), Code::PolicyUntrusted);
    assert_eq!(establish(first.id(), &[], None).unwrap_err(), Code::PolicyUntrusted);
    assert_eq!(PolicyChain::pinned(first.id(), &second).unwrap_err().code, Code::PolicyUntrusted);
}

/// `pol-below-threshold`, `env-dup-signature`, `env-one-key-two-keyids`, `pol-tampered`, `pol-key-purpose`.
#[test]
fn a_policy_without_enough_root_people_is_refused() {
    let text = policy_text();
    let pinned = |envelope: &Envelope| {
        PolicyChain::pinned(envelope.id(), envelope).map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(pinned(&policy_envelope(&text, &["alice", "bob"])), Ok(()));
    assert_eq!(
        pinned(&policy_envelope(&text, &["mallory", "builder", "alice-2", "carol"])),
        Ok(())
    );
    assert_eq!(pinned(&policy_envelope(&text, &["alice"])), Err(Code::PolicySignatureThreshold));
    assert_eq!(
        pinned(&policy_envelope(&text, &["alice", "alice-2"])),
        Err(Code::PolicySignatureThreshold)
    );
    assert_eq!(
        pinned(&policy_envelope(&text, &["alice", "builder"])),
        Err(Code::PolicySignatureThreshold)
    );
    assert_eq!(pinned(&policy_envelope(&text, &["builder", "desk"])), Err(Code::PolicyKeyPurpose));
    assert_eq!(pinned(&policy_envelope(&text, &["mallory"])), Err(Code::PolicySignatureThreshold));
    assert_eq!(pinned(&policy_envelope(&text, &[])), Err(Code::EnvNoSignature));
    // one signature again under other key ids
    let mut twice = policy_envelope(&text, &["alice"]);
    for hint in ["bob", "carol"] {
        let mut copy = twice.signatures()[0].clone();
        copy.keyid = Some(Key::of(hint).public.id().to_string());
        twice.add_signature(copy);
    }
    assert_eq!(pinned(&twice), Err(Code::PolicySignatureThreshold));
    let signed = policy_envelope(&text, &["alice", "bob"]);
    let mut edited =
        Envelope::unsigned::<PolicyText>(text.replace("count = 2", "count = 1").into_bytes());
    signed.signatures().iter().for_each(|signature| edited.add_signature(signature.clone()));
    assert_eq!(pinned(&edited), Err(Code::EnvSignatureInvalid));
    let mut plain = Envelope::unsigned::<PolicyText>(text.into_bytes());
    for person in ["alice", "bob"] {
        plain.add_signature(Key::of(person).plain(&plain));
    }
    assert_eq!(pinned(&plain), Err(Code::EnvAlgForbidden));
}

/// `pol-rotation-new-only`: the new root by itself, and the old one by itself.
/// Row `pol-rejected-then-cached`.
#[test]
fn a_rotation_needs_the_old_root_and_the_new_one() {
    let first = policy_envelope(&policy_text(), &["alice", "bob"]);
    let chain = PolicyChain::pinned(first.id(), &first).unwrap();
    let dave = Key::of("dave").public.to_openssh();
    let mallory = Key::of("mallory").public.to_openssh();
    let text = next_version(&first, |text| {
        text.replace("[root]\npeople = [\"alice\", \"bob\", \"carol\"]", "[root]\npeople = [\"dave\", \"mallory\"]")
            .replace("[people.bob]", &format!("[people.dave]\nkeys = [{{ key = \"{dave}\" }}]\n[people.mallory]\nkeys = [{{ key = \"{mallory}\" }}]\n[people.bob]"))
    });
    let by = |people: &[&str]| policy_envelope(&text, people);
    assert_eq!(rotate(&chain, &by(&["dave", "mallory"])), Code::PolicySignatureThreshold);
    assert_eq!(rotate(&chain, &by(&["dave", "mallory", "alice"])), Code::PolicySignatureThreshold);
    assert!(matches!(
        rotate(&chain, &by(&["alice", "bob"])),
        Code::PolicySignatureThreshold | Code::PolicyKeyPurpose
    ));
    assert_eq!(rotate(&chain, &by(&["alice", "bob", "dave"])), Code::PolicySignatureThreshold);
    let good = by(&["alice", "bob", "dave", "mallory"]);
    assert!(chain.clone().rotate(&good).is_ok());
    // a refusal leaves the chain as it was (`pol-rejected-then-cached`)
    let mut kept = chain;
    let _refused = kept.rotate(&by(&["dave", "mallory"]));
    assert_eq!(kept.newest().0, first.id());
    assert!(kept.rotate(&good).is_ok());
}

/// `pol-hash-link-broken`, another instance.
#[test]
fn a_version_that_follows_another_one_is_refused() {
    let Three { first, second, .. } = three();
    let chain = PolicyChain::pinned(first.id(), &first).unwrap();
    let edited = |from: String, to: String| {
        policy_envelope(&next_version(&first, |text| text.replace(&from, &to)), &["alice", "bob"])
    };
    let other =
        edited(format!("previous = \"{}\"", first.id()), format!("previous = \"{}\"", second.id()));
    assert_eq!(rotate(&chain, &other), Code::PolicyVersionGap);
    assert_eq!(
        rotate(&chain, &edited("version = 2".into(), "version = 3".into())),
        Code::PolicyVersionGap
    );
    assert_eq!(
        rotate(&chain, &edited("version = 2".into(), "version = 9223372036854775807".into())),
        Code::PolicyVersionGap
    );
    assert_eq!(
        rotate(&chain, &edited("\"production\"".into(), "\"staging\"".into())),
        Code::ChainInstanceMismatch
    );
    assert!(chain.clone().rotate(&second).is_ok());
}

/// `pol-rollback`, `pol-floor-erased`, and issue 2: an older policy.
#[test]
fn an_older_policy_than_one_seen_before_is_refused() {
    let Three { first, second, third } = three();
    let pin = first.id();
    let floor =
        |version, policy: &Envelope| Some(Floor { version, policy: policy.id(), time: at(0) });
    assert_eq!(version(&establish(pin, &[&first, &second, &third], floor(3, &third))), 3);
    assert_eq!(version(&establish(pin, &[&first, &second, &third], floor(2, &second))), 3);
    assert_eq!(
        establish(pin, &[&first, &second], floor(3, &third)).unwrap_err(),
        Code::PolicyRollback
    );
    assert_eq!(establish(pin, &[&first], floor(2, &second)).unwrap_err(), Code::PolicyRollback);
    assert_eq!(
        establish(pin, &[&first, &third], floor(2, &second)).unwrap_err(),
        Code::PolicyRollback
    );
    let mut chain = establish(pin, &[&first, &second], None).unwrap();
    assert_eq!(
        chain
            .clone()
            .rotate(&policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]))
            .unwrap_err()
            .code,
        Code::PolicyRollback
    );
    assert!(chain.rotate(&third).is_ok());
}

/// Two truths under one version.
#[test]
fn two_policies_of_one_version_are_refused() {
    let Three { first, second, third } = three();
    let pin = first.id();
    let twin = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "carol"],
    );
    assert_eq!(
        establish(pin, &[&first, &second, &twin], None).unwrap_err(),
        Code::PolicyEquivocation
    );
    let chain = establish(pin, &[&first, &second], None).unwrap();
    assert_eq!(rotate(&chain, &twin), Code::PolicyEquivocation);
    // seen before: the other of the two
    let floor = Some(Floor { version: 2, policy: twin.id(), time: at(0) });
    assert_eq!(establish(pin, &[&first, &second], floor).unwrap_err(), Code::PolicyEquivocation);
    assert_eq!(
        establish(pin, &[&first, &second, &third], floor).unwrap_err(),
        Code::PolicyEquivocation
    );
    // one that the root did not sign is nothing
    let forged = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "mallory"],
    );
    assert_eq!(version(&establish(pin, &[&first, &second, &forged], None)), 2);
}
