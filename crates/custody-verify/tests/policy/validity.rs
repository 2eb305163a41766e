//! When a key and a policy count.

use custody_world as world;

use custody_core::Code;
use custody_core::time::Time;
use world::{
    Key, World, assert_accepted, assert_refused, at, change, honest, next_version, policy_envelope,
    policy_text,
};

fn with_key(name: &str, more: &'static str) -> impl Fn(String) -> String {
    let key = format!("key = \"{}\"", Key::of(name).public.to_openssh());
    move |text| text.replace(&key, &format!("{key}, {more}"))
}

fn window(name: &str, from: Option<u64>, until: Option<u64>) -> World {
    let text = |word: &str, time: Option<u64>| {
        time.map(|time| format!(", {word} = \"{}\"", at(time))).unwrap_or_default()
    };
    let more = text("from", from) + &text("until", until);
    let key = format!("key = \"{}\"", Key::of(name).public.to_openssh());
    change().policy(|policy| policy.replace(&key, &format!("{key}{more}"))).build()
}

/// `pol-key-expired`, `pol-key-not-yet-valid`, to the second.
#[test]
fn a_key_outside_its_window_is_refused() {
    let finished = 100_300 + 200 + 50;
    assert_accepted(&window("signer", Some(0), Some(finished + 1)).file());
    assert_refused(&window("signer", None, Some(finished)).file(), Code::PolicyKeyExpired);
    // the older release's signer was in time; this one's was not
    assert_accepted(&window("signer", Some(finished), None).file());
    assert_refused(&window("signer", Some(finished + 1), None).file(), Code::PolicyKeyNotYetValid);
    assert_refused(&window("desk", None, Some(100_200)).file(), Code::PolicyKeyExpired);
    assert_refused(&window("scheduler", None, Some(100_300)).file(), Code::PolicyKeyExpired);
    assert_refused(&window("publisher", Some(101_451), None).file(), Code::PolicyKeyNotYetValid);
}

/// `pol-key-revoked`, and that it stays so.
#[test]
fn a_revoked_key_never_counts_again() {
    for name in ["builder", "signer", "publisher", "packer", "desk", "scheduler", "carol"] {
        let mut world = honest();
        assert_accepted(&world.file());
        world.rotate(with_key(name, "revoked = true"));
        assert_refused(&world.file(), Code::PolicyKeyRevoked);
        // a later version that has forgotten it
        let forgotten = next_version(world.policies.last().unwrap(), |text| {
            text.replace(", revoked = true", "")
        });
        world.policies.push(policy_envelope(&forgotten, &["alice", "bob"]));
        assert_eq!(world.chain().newest().1.version, 3);
        assert_refused(&world.file(), Code::PolicyKeyRevoked);
    }
    // what the key never signed is not concerned
    let mut world = honest();
    world.rotate(with_key("gate", "revoked = true"));
    assert_accepted(&world.file());
}

/// A worker that is gone altogether can stay in the policy as revoked.
#[test]
fn a_retired_machine_stays_revoked_without_a_rule_that_names_it() {
    let mut world = honest();
    let docs = Key::of("docs").public.to_openssh();
    world.rotate(|text| {
        text.replace("perform = [\"docs\"]", "perform = [\"decider\"]")
            .replace(&format!("key = \"{docs}\""), &format!("key = \"{docs}\", revoked = true"))
    });
    assert_eq!(world.chain().newest().1.version, 2);
    assert_accepted(&world.file());
    assert_refused(&world.extra_file(), Code::PolicyKeyRevoked);
}

/// `pol-expired`: from the very second, and also for what was released long before.
#[test]
fn an_expired_policy_judges_nothing() {
    let mut world = honest();
    let end: Time = "2030-01-01T00:00:00Z".parse().unwrap();
    for (moment, good) in [(end.unix() - 1, true), (end.unix(), false), (end.unix() + 1, false)] {
        world.now = Time::from_unix(moment).unwrap();
        if good {
            assert_accepted(&world.file());
        } else {
            assert_refused(&world.file(), Code::PolicyExpired);
        }
    }
    // a renewed policy makes the old release verifiable again
    world.rotate(|text| text.replace("2030-01-01", "2040-01-01"));
    assert_accepted(&world.file());
}

/// `pol-chain-pins-old`, `POLICY_MISMATCH`, `POLICY_VERSION_GAP`.
#[test]
fn a_release_under_a_policy_that_was_never_valid_is_refused() {
    let other = policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]).id();
    let named =
        change().request("new/ship/request", move |request| request.policy.id = other).build();
    assert_refused(&named.file(), Code::PolicyMismatch);
    let future = change()
        .request("new/ship/request", move |request| {
            (request.policy.id, request.policy.version) = (other, 2);
        })
        .build();
    assert_refused(&future.file(), Code::PolicyVersionGap);
    let lying = change().request("new/ship/request", |request| request.policy.version = 2).build();
    assert_refused(&lying.file(), Code::PolicyMismatch);
    // an old release stays verifiable under a much stricter new policy
    let mut world = honest();
    world
        .rotate(|text| text.replace("channels = [\"release\", \"beta\"]", "channels = [\"beta\"]"));
    assert_accepted(&world.file());
    // but nothing new starts under the old one
    assert_refused(
        &world.clone().unpublished().gate("new/publish/task"),
        Code::ChainReleaseMismatch,
    );
}
