//! Times, policies and keys, and tasks that a decision step made.

use custody_core::Code;
use custody_core::statement::{Manifest, Origin, Task};
use custody_verify::Floor;
use custody_world::{Key, World, at, change, content, honest, label, policy_envelope, policy_text};

use super::{ask, built, refuse, refuse_signed};
use crate::case::{About, Chain, Group, What};

pub(super) fn times(group: &mut Group<'_>) {
    let manifests: [(&str, Code, &str, fn(&mut Manifest)); 4] = [
        ("started-before-task", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.started = at(99_999);
        }),
        ("finished-before-start", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.finished = at(100_305);
        }),
        ("finished-in-future", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.finished = at(900_000);
        }),
        ("started-after-deadline", Code::ChainStale, "chain-stale-task", |m| {
            (m.started, m.finished) = (at(108_000), at(108_001));
        }),
    ];
    for (name, code, row, edit) in manifests {
        refuse(
            group,
            name,
            code,
            row,
            "the run does not fit its task",
            change().manifest("new/build/manifest", edit),
        );
    }
    let tasks: [(&str, Code, &str, fn(&mut Task)); 3] = [
        ("task-before-authorization", Code::ChainTimeOrder, "chain-time-order", |t| {
            t.created = at(99_000);
        }),
        ("deadline-after-authorization", Code::ChainStale, "chain-stale-task", |t| {
            t.deadline = at(180_001);
        }),
        ("deadline-too-far", Code::ChainStale, "chain-stale-task", |t| {
            t.deadline = at(100_300 + 86_401);
        }),
    ];
    for (name, code, row, edit) in tasks {
        refuse(
            group,
            name,
            code,
            row,
            "the task does not fit its authorization or the policy",
            change().task("new/build/task", edit),
        );
    }
    let authorizations: [(&str, Code, fn(&mut custody_core::statement::Authorization)); 3] = [
        ("authorization-outlives-request", Code::ChainStale, |a| a.expires = at(180_001)),
        ("authorization-before-request", Code::ChainTimeOrder, |a| a.not_before = at(99_000)),
        ("authorization-in-future", Code::ChainTimeOrder, |a| a.not_before = at(400_000)),
    ];
    for (name, code, edit) in authorizations {
        let builder = change().authorization("new/promote/authorization", edit);
        refuse(
            group,
            name,
            code,
            "chain-time-order",
            "the authorization does not fit its request",
            builder,
        );
    }
    let world = change().manifest("new/sign/manifest", |m| m.started = at(100_000)).build();
    refuse_signed(
        group,
        "started-before-inputs",
        Code::ChainTimeOrder,
        "chain-time-order",
        "the step began before its inputs were made",
        &world,
    );
}

fn now(what: What, edit: impl Fn(&mut Chain)) -> What {
    let What::Chain(mut chain) = what else { panic!("a chain") };
    edit(&mut chain);
    What::Chain(chain)
}

pub(super) fn policies(group: &mut Group<'_>) {
    let world = honest();
    let end = |text: &str| text.parse().unwrap();
    let about = About("the policy holds for one more second", &["pol-expired"]);
    group.accept(
        "policy-last-second",
        about,
        &now(built(&world), |chain| chain.now = end("2029-12-31T23:59:59Z")),
    );
    for (name, time) in [
        ("policy-expired", "2030-01-01T00:00:00Z"),
        ("policy-long-expired", "2030-01-01T00:00:01Z"),
    ] {
        let about = About("the policy has expired", &["pol-expired"]);
        group.reject(
            name,
            "policy-last-second",
            Code::PolicyExpired,
            about,
            &now(built(&world), |chain| chain.now = end(time)),
        );
    }
    let mut renewed = honest();
    renewed.rotate(|text| text.replace("2030-01-01", "2040-01-01"));
    let about = About("the policy had expired and was renewed", &["pol-expired"]);
    group.accept(
        "policy-renewed",
        about,
        &now(built(&renewed), |chain| chain.now = end("2030-01-01T00:00:01Z")),
    );
    let floor = |version, policy, seconds| Floor { version, policy, time: at(seconds) };
    let about = About(
        "the clock is a little behind what was seen before, within the skew",
        &["sto-clock-jump"],
    );
    group.accept(
        "clock-a-little-behind",
        about,
        &now(built(&world), |chain| chain.floor = Some(floor(1, world.pin, 300_300))),
    );
    let about = About("the clock is behind what was seen before", &["sto-clock-jump"]);
    group.reject(
        "clock-behind",
        "clock-a-little-behind",
        Code::TimeUntrusted,
        about,
        &now(built(&world), |chain| chain.floor = Some(floor(1, world.pin, 300_301))),
    );
    let second = renewed.policies[1].id();
    let about = About("version 2 was seen before, and is there", &["pol-rollback"]);
    group.accept(
        "policy-seen",
        about,
        &now(built(&renewed), |chain| chain.floor = Some(floor(2, second, 0))),
    );
    let about = About("version 2 was seen before, and only version 1 is there", &["pol-rollback"]);
    group.reject(
        "policy-rollback",
        "policy-seen",
        Code::PolicyRollback,
        about,
        &now(built(&world), |chain| chain.floor = Some(floor(2, second, 0))),
    );
    let other = policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]);
    let about = About(
        "the bundle brings a policy of its own, and another is pinned",
        &["pol-from-the-chain"],
    );
    group.reject(
        "policy-of-the-bundle",
        "built",
        Code::PolicyUntrusted,
        about,
        &now(built(&world), |chain| chain.pin = other.id()),
    );
    let id = other.id();
    let builder = change().request("new/promote/request", move |request| request.policy.id = id);
    refuse(
        group,
        "policy-never-valid",
        Code::PolicyMismatch,
        "pol-chain-pins-old",
        "the request names a policy that was never valid",
        builder,
    );
    let builder = change().request("new/promote/request", move |request| {
        (request.policy.id, request.policy.version) = (id, 2);
    });
    refuse(
        group,
        "policy-not-there",
        Code::PolicyVersionGap,
        "pol-chain-pins-old",
        "the request names a version of the policy that is not there",
        builder,
    );
    let builder = change().request("new/promote/request", |request| request.policy.version = 2);
    refuse(
        group,
        "policy-version-lie",
        Code::PolicyMismatch,
        "pol-chain-pins-old",
        "the request names the policy with another version than it has",
        builder,
    );
    let mut stricter = honest();
    stricter
        .rotate(|text| text.replace("channels = [\"release\", \"beta\"]", "channels = [\"beta\"]"));
    let about =
        About("a release stays good under a later, stricter policy", &["pol-chain-pins-old"]);
    group.accept("policy-stricter-later", about, &built(&stricter));
}

pub(super) fn keys(group: &mut Group<'_>) {
    let key = |name: &str| format!("key = \"{}\"", Key::of(name).public.to_openssh());
    let window = |name: &str, from: Option<u64>, until: Option<u64>| {
        let text = |word, time: Option<u64>| {
            time.map(|time| format!(", {word} = \"{}\"", at(time))).unwrap_or_default()
        };
        let more = text("from", from) + &text("until", until);
        let key = key(name);
        change().policy(move |policy| policy.replace(&key, &format!("{key}{more}")))
    };
    // the build finished at 100_360
    let about = About(
        "the builder's key is in its window to the second",
        &["pol-key-expired", "pol-key-not-yet-valid"],
    );
    group.accept(
        "key-in-window",
        about,
        &built(&window("builder", Some(100_360), Some(100_361)).build()),
    );
    for (name, code, row, builder) in [
        (
            "key-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("builder", None, Some(100_360)),
        ),
        (
            "key-not-yet-valid",
            Code::PolicyKeyNotYetValid,
            "pol-key-not-yet-valid",
            window("builder", Some(100_361), None),
        ),
        (
            "desk-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("desk", None, Some(100_200)),
        ),
        (
            "scheduler-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("scheduler", None, Some(100_300)),
        ),
        (
            "person-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("carol", None, Some(100_100)),
        ),
    ] {
        let about = About("a key is a second out of its window", &[row]);
        group.reject(name, "key-in-window", code, about, &built(&builder.build()));
    }
    for name in ["builder", "desk", "scheduler", "carol"] {
        let mut world = honest();
        let key = key(name);
        world.rotate(|text| text.replace(&key, &format!("{key}, revoked = true")));
        let row = if name == "carol" { "hum-departed" } else { "pol-key-revoked" };
        let about = About("a later policy revoked a key that signed", &[row]);
        group.reject(
            &format!("revoked-{name}"),
            "built",
            Code::PolicyKeyRevoked,
            about,
            &built(&world),
        );
        if name == "builder" {
            world.rotate(|text| text.replace(", revoked = true", ""));
            let about =
                About("a still later policy has forgotten the revocation", &["pol-key-revoked"]);
            group.reject(
                "revoked-and-forgotten",
                "built",
                Code::PolicyKeyRevoked,
                about,
                &built(&world),
            );
        }
    }
    let mut world = honest();
    let gate = key("gate");
    world.rotate(|text| text.replace(&gate, &format!("{gate}, revoked = true")));
    let about =
        About("a later policy revoked a key that signed nothing here", &["pol-key-revoked"]);
    group.accept("revoked-another", about, &built(&world));
}

/// A task that is the product of a decision step.
fn decided(world: &World) -> What {
    let bytes = content("new", "extra");
    let mut question = world.ask("extra.txt", &bytes);
    question.expect.step = Some(label("extra"));
    What::Chain(ask(
        world,
        question,
        &bytes,
        &["new/promote/", "new/decide/", "new/extra/", "old/decide/task", "old/promote/"],
    ))
}

pub(super) fn decisions(group: &mut Group<'_>) {
    group.accept("decided", About("a task that a decision step made", &[]), &decided(&honest()));
    let world = change().task("new/extra/task", |task| task.command.push("--evil".into())).build();
    let about =
        About("the task is not the one that the decision step made", &["chain-self-authorised"]);
    group.reject("decided-otherwise", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let mut world = honest();
    world.drop("new/decide/manifest");
    let about = About("the decision is not there", &["chain-no-task"]);
    group.reject("undecided", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let world = change().signed_by("new/decide/manifest", &["builder"]).build();
    let about = About(
        "the decision is signed by a machine that may not decide",
        &["chain-key-of-other-step"],
    );
    group.reject("decided-by-another", "decided", Code::PolicyKeyPurpose, about, &decided(&world));
    let mut world = honest();
    let (task, mut manifest) =
        (world.id("old/decide/task"), world.get_manifest("new/decide/manifest"));
    manifest.task = task;
    world.drop("new/decide/manifest");
    world.add("moved", manifest, &["decider"]);
    let about = About("the decision was made for another release", &["chain-cross-release"]);
    group.reject("decided-elsewhere", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let takes = |text: String| {
        let (head, steps) = text.split_once("[products.hello.steps.decide]").unwrap();
        let inputs = "inputs = [{ step = \"extra\", release = \"same\" }]";
        format!("{head}[products.hello.steps.decide]{}", steps.replacen("inputs = []", inputs, 1))
    };
    let mut world = change().policy(takes).build();
    let about = About("a decision step that may take what it decided", &["chain-cycle"]);
    group.accept("decided-under-another-policy", about, &decided(&world));
    let mut task = world.get_task("new/decide/task");
    task.inputs.push(World::input(Origin::Task(world.id("new/extra/task")), "extra", "*"));
    world.add("new/decide/task", task, &["scheduler"]);
    let made = world.get_manifest("new/decide/manifest").artifacts;
    let manifest = world.run("new/decide/task", "decider", 100_460, made);
    world.add("new/decide/manifest", manifest, &["decider"]);
    let about = About("a decision that rests on what it decided", &["chain-cycle"]);
    group.reject(
        "decided-in-a-circle",
        "decided-under-another-policy",
        Code::ChainCycle,
        about,
        &decided(&world),
    );
}
