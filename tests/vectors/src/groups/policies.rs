//! From a pinned policy to the newest one.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, PolicyText, StatementId};
use custody_verify::Floor;
use custody_world::{Key, at, next_version, policy_envelope, policy_text};

use crate::case::{About, Group, Rotation, Set, What};

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

fn case(pin: StatementId, policies: &[&Envelope], newest: u64) -> What {
    let policies = policies.iter().map(|envelope| (*envelope).clone()).collect();
    What::Policies(Rotation { pin, policies, floor: None, newest })
}

fn above(floor: (u64, &Envelope), what: What) -> What {
    let What::Policies(rotation) = what else { panic!("policies") };
    let floor = Floor { version: floor.0, policy: floor.1.id(), time: at(0) };
    What::Policies(Rotation { floor: Some(floor), ..rotation })
}

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("policies");
    chains(&mut group);
    signatures(&mut group);
    rotations(&mut group);
    floors(&mut group);
}

fn chains(group: &mut Group<'_>) {
    let Three { first, second, third } = three();
    let pin = first.id();
    group.accept("one", About("the pinned policy", &[]), &case(pin, &[&first], 1));
    group.accept("three", About("three versions", &[]), &case(pin, &[&third, &second, &first], 3));
    let about = About("the pin is the second version", &[]);
    group.accept("pinned-later", about, &case(second.id(), &[&first, &second, &third], 3));
    let about = About("version 2 is not there, so version 3 is left aside", &["pol-version-gap"]);
    group.accept("gap", about, &case(pin, &[&first, &third], 1));
    let text = String::from_utf8(second.unverified_payload().to_vec()).unwrap();
    let (one, other) = (policy_envelope(&text, &["alice"]), policy_envelope(&text, &["carol"]));
    let about = About("the signatures of version 2 come in two files", &[]);
    group.accept("in-two-files", about, &case(pin, &[&first, &one, &other], 2));
    let junk = policy_envelope("not TOML at all [", &["mallory"]);
    let about = About("somebody added what is no policy", &["chain-extra-nodes"]);
    group.accept("junk", about, &case(pin, &[&junk, &first, &second], 2));
    let about = About("the pinned policy is not there", &["pol-from-the-chain"]);
    group.reject(
        "pin-absent",
        "three",
        Code::PolicyUntrusted,
        about,
        &case(pin, &[&second, &third], 0),
    );
    let about = About("another policy is pinned", &["pol-from-the-chain"]);
    let other = StatementId(Sha256::of(b"other"));
    group.reject(
        "pin-of-another",
        "three",
        Code::PolicyUntrusted,
        about,
        &case(other, &[&first, &second, &third], 0),
    );
    let about = About("there is no policy", &["pol-from-the-chain"]);
    group.reject("none", "three", Code::PolicyUntrusted, about, &case(pin, &[], 0));
}

fn signatures(group: &mut Group<'_>) {
    let text = policy_text();
    let mut pinned = |name: &str, code: Code, row: &str, about: &str, envelope: &Envelope| {
        let what = case(envelope.id(), &[envelope], 0);
        group.reject(name, "one", code, About(about, &[row]), &what);
    };
    let by = |people: &[&str]| policy_envelope(&text, people);
    let threshold = Code::PolicySignatureThreshold;
    pinned(
        "one-root-person",
        threshold,
        "pol-below-threshold",
        "one of two root people signed",
        &by(&["alice"]),
    );
    pinned(
        "two-keys-of-one",
        threshold,
        "env-one-key-two-keyids",
        "two keys of one root person signed",
        &by(&["alice", "alice-2"]),
    );
    pinned(
        "person-and-machine",
        threshold,
        "pol-key-purpose",
        "a root person and a machine signed",
        &by(&["alice", "builder"]),
    );
    pinned(
        "machines",
        Code::PolicyKeyPurpose,
        "pol-key-purpose",
        "two machines signed",
        &by(&["builder", "desk"]),
    );
    pinned("stranger", threshold, "pol-below-threshold", "a stranger signed", &by(&["mallory"]));
    let mut twice = by(&["alice"]);
    let mut copy = twice.signatures()[0].clone();
    copy.keyid = Some(Key::of("bob").public.id().to_string());
    twice.add_signature(copy);
    pinned(
        "one-signature-twice",
        threshold,
        "env-dup-signature-other-keyid",
        "one signature stands twice, under another's key id",
        &twice,
    );
    let mut edited =
        Envelope::unsigned::<PolicyText>(text.replace("count = 2", "count = 1").into_bytes());
    by(&["alice", "bob"])
        .signatures()
        .iter()
        .for_each(|signature| edited.add_signature(signature.clone()));
    pinned(
        "tampered",
        Code::EnvSignatureInvalid,
        "pol-tampered",
        "one figure was changed and not signed again",
        &edited,
    );
    let mut plain = Envelope::unsigned::<PolicyText>(text.clone().into_bytes());
    for person in ["alice", "bob"] {
        plain.add_signature(Key::of(person).plain(&plain));
    }
    pinned(
        "plain",
        Code::EnvAlgForbidden,
        "env-alg-from-message",
        "root people signed as machines do",
        &plain,
    );
}

fn rotations(group: &mut Group<'_>) {
    let Three { first, second, .. } = three();
    let pin = first.id();
    let (dave, mallory) =
        (Key::of("dave").public.to_openssh(), Key::of("mallory").public.to_openssh());
    let people = format!(
        "[people.dave]\nkeys = [{{ key = \"{dave}\" }}]\n[people.mallory]\nkeys = [{{ key = \"{mallory}\" }}]\n[people.bob]"
    );
    let text = next_version(&first, |text| {
        text.replace(
            "[root]\npeople = [\"alice\", \"bob\", \"carol\"]",
            "[root]\npeople = [\"dave\", \"mallory\"]",
        )
        .replace("[people.bob]", &people)
    });
    let by = |people: &[&str]| policy_envelope(&text, people);
    let about =
        About("a new root, signed by the old one and by itself", &["pol-rotation-new-only"]);
    let good = by(&["alice", "bob", "dave", "mallory"]);
    group.accept("new-root", about, &case(pin, &[&first, &good], 2));
    for (name, people) in [
        ("new-root-alone", &["dave", "mallory"][..]),
        ("old-root-alone", &["alice", "bob"]),
        ("new-root-and-one", &["dave", "mallory", "alice"]),
    ] {
        let about = About(
            "a new root without the one or the other: it is left aside",
            &["pol-rotation-new-only"],
        );
        group.accept(name, about, &case(pin, &[&first, &by(people)], 1));
    }
    let edited = |from: &str, to: &str| {
        policy_envelope(&next_version(&first, |text| text.replace(from, to)), &["alice", "bob"])
    };
    for (name, row, other, about) in [
        (
            "previous-of-another",
            "pol-hash-link-broken",
            edited(&first.id().to_string(), &second.id().to_string()),
            "version 2 names another version 1: it is left aside",
        ),
        (
            "version-skipped",
            "pol-version-gap",
            edited("version = 2", "version = 3"),
            "version 3 names version 1: it is left aside",
        ),
        (
            "version-huge",
            "pol-fast-forward",
            edited("version = 2", "version = 9223372036854775807"),
            "the highest version of all names version 1: it is left aside",
        ),
        (
            "another-instance",
            "chain-cross-instance",
            edited("\"production\"", "\"staging\""),
            "version 2 is for another instance: it is left aside",
        ),
    ] {
        group.accept(name, About(about, &[row]), &case(pin, &[&first, &other], 1));
    }
    let twin = edited("5m", "6m");
    let about = About("two versions 2, both rightly signed", &["pol-hash-link-broken"]);
    group.reject(
        "equivocation",
        "three",
        Code::PolicyEquivocation,
        about,
        &case(pin, &[&first, &second, &twin], 0),
    );
    let forged = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "mallory"],
    );
    let about = About("a second version 2 that the root did not sign", &["pol-below-threshold"]);
    group.accept("equivocation-forged", about, &case(pin, &[&first, &second, &forged], 2));
}

fn floors(group: &mut Group<'_>) {
    let Three { first, second, third } = three();
    let pin = first.id();
    let about = About("version 3 was seen before, and is there", &["pol-rollback"]);
    group.accept(
        "floor-3-of-3",
        about,
        &above((3, &third), case(pin, &[&first, &second, &third], 3)),
    );
    let about = About("version 2 was seen before, and version 3 is there", &["pol-rollback"]);
    group.accept(
        "floor-2-of-3",
        about,
        &above((2, &second), case(pin, &[&first, &second, &third], 3)),
    );
    let rollback = Code::PolicyRollback;
    let about = About("version 3 was seen before, and is not there", &["pol-rollback"]);
    group.reject(
        "floor-3-of-2",
        "floor-3-of-3",
        rollback,
        about,
        &above((3, &third), case(pin, &[&first, &second], 0)),
    );
    let about =
        About("version 2 was seen before, and only its neighbours are there", &["pol-rollback"]);
    group.reject(
        "floor-2-gap",
        "floor-2-of-3",
        rollback,
        about,
        &above((2, &second), case(pin, &[&first, &third], 0)),
    );
    let twin = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "carol"],
    );
    let about = About("another version 2 was seen before", &["pol-rollback"]);
    group.reject(
        "floor-of-a-twin",
        "floor-2-of-3",
        Code::PolicyEquivocation,
        about,
        &above((2, &twin), case(pin, &[&first, &second, &third], 0)),
    );
}
