//! Gates: whoever holds the host, the queue or a worker's key wants a task to run that may not.

use custody_core::Code;
use custody_core::statement::{
    Decision, Manifest, Origin, Resolve, Signoff, Stage, Summary, Task, gate_uri,
};
use custody_core::time::Time;
use custody_verify::Question;
use custody_world::{Key, World, at, change, honest, label};

use super::{SHIPPED, evidence};
use crate::case::{About, Chain, Group, Set, What};

const PUBLISH: &str = "new/publish/task";

fn ask(world: &World, task: &str, prefixes: &[&str], now: Time) -> What {
    let question: Question = world.gate_question(task);
    What::Chain(Chain {
        pin: world.pin,
        policies: world.policies.clone(),
        evidence: evidence(world, prefixes),
        now,
        question,
        floor: None,
        content: None,
    })
}

/// Asks whether the publication may start.
fn gate(world: &World) -> What {
    ask(world, PUBLISH, &SHIPPED, at(101_800))
}

/// Asks whether a lesser step of the same phase may start, which may rely on a summary.
fn notes(world: &World) -> What {
    ask(world, "new/notes/task", &[&SHIPPED[..], &["new/notes/"]].concat(), at(101_800))
}

fn ready() -> World {
    honest().unpublished()
}

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("gate");
    group.accept("publish", About("the publication may start", &[]), &gate(&ready()));
    group.accept("notes", About("a lesser step may start", &[]), &notes(&ready()));
    kinds(&mut group);
    destinations(&mut group);
    times(&mut group);
    once(&mut group);
    objections(&mut group);
    inputs(&mut group);
    depth(&mut group);
    summaries(&mut group);
    newest(&mut group);
}

fn refuse(group: &mut Group<'_>, name: &str, code: Code, row: &str, about: &str, what: &What) {
    group.reject(name, "publish", code, About(about, &[row]), what);
}

fn kinds(group: &mut Group<'_>) {
    let world = ready();
    for (name, document) in [
        ("manifest", "new/sign/manifest"),
        ("request", "new/ship/request"),
        ("sign-off", "new/ship/signoff/bob"),
    ] {
        let what = ask(&world, document, &SHIPPED, at(101_800));
        refuse(
            group,
            name,
            Code::StmtPredicateType,
            "gate-wrong-step",
            "what is asked about is no task",
            &what,
        );
    }
    let mut gone = ready();
    let what = gate(&gone);
    gone.drop(PUBLISH);
    let (What::Chain(asked), evidence) = (what, evidence(&gone, &SHIPPED)) else {
        panic!("a chain")
    };
    let what = What::Chain(Chain { evidence, ..asked });
    refuse(
        group,
        "unknown",
        Code::ChainTaskMissing,
        "chain-no-task",
        "the task is not there",
        &what,
    );
    let What::Chain(mut asked) = gate(&world) else { panic!("a chain") };
    asked.question.expect.version = Some(label("1.0.0"));
    refuse(
        group,
        "another-release",
        Code::ChainReleaseMismatch,
        "gate-wrong-step",
        "the task is of another release than was asked for",
        &What::Chain(asked),
    );
    let world = change().task(PUBLISH, |task| task.step = label("smoke")).build().unpublished();
    refuse(
        group,
        "another-step",
        Code::StmtParameterUnexpected,
        "gate-wrong-step",
        "the task publishes under the name of a step that does not",
        &gate(&world),
    );
    let world = change().signed_by(PUBLISH, &["publisher"]).build().unpublished();
    refuse(
        group,
        "task-by-worker",
        Code::PolicyKeyPurpose,
        "chain-self-authorised",
        "the worker signed its own task",
        &gate(&world),
    );
    let world = change()
        .task(PUBLISH, |task| task.outputs = vec!["nothing-like-it".parse().unwrap()])
        .build();
    refuse(
        group,
        "outputs-other",
        Code::ArtUnlisted,
        "gate-signing-oracle",
        "what would be published is not what the task declares",
        &gate(&world.unpublished()),
    );
}

fn destinations(group: &mut Group<'_>) {
    for (name, destination) in [
        ("destination-without-slash", "s3://releases/hello"),
        ("destination-of-another-product", "s3://releases/other/1.1.0"),
        ("destination-climbs", "s3://releases/hello/../other"),
        ("destination-other-bucket", "s3://evil/hello/"),
        ("destination-escaped", "s3://releases/hello/%2e%2e/x"),
        ("destination-at-sign", "s3://releases/hello/x@evil"),
        ("destination-backslash", "s3://releases/hello/a\\..\\b"),
        ("destination-file", "file:///srv/"),
    ] {
        let world = change().task(PUBLISH, move |task| task.destination = Some(destination.into()));
        let about = "a destination that the policy does not allow";
        refuse(
            group,
            name,
            Code::GateDestinationForbidden,
            "gate-destination",
            about,
            &gate(&world.build().unpublished()),
        );
    }
}

fn times(group: &mut Group<'_>) {
    let world = ready();
    let deadline = world.get_task(PUBLISH).deadline;
    let at_time = |time| ask(&world, PUBLISH, &SHIPPED, time);
    let about = About("the task's last second", &["chain-stale-task"]);
    group.accept("last-second", about, &at_time(deadline));
    let late = Time::from_unix(deadline.unix() + 1).unwrap();
    let about = About("a second after the task's deadline", &["chain-stale-task"]);
    group.reject("too-late", "last-second", Code::ChainStale, about, &at_time(late));
    let short = change()
        .authorization("new/ship/authorization", |authorization| {
            authorization.expires = at(102_000);
        })
        .task(PUBLISH, |task| task.deadline = at(102_000))
        .build()
        .unpublished();
    let about = About("the authorization's last second", &["chain-stale-task"]);
    group.accept("authorized-last-second", about, &ask(&short, PUBLISH, &SHIPPED, at(101_999)));
    let about = About("the authorization has ended", &["chain-stale-task"]);
    group.reject(
        "authorization-ended",
        "authorized-last-second",
        Code::ChainStale,
        about,
        &ask(&short, PUBLISH, &SHIPPED, at(102_000)),
    );
    refuse(
        group,
        "too-early",
        Code::ChainTimeOrder,
        "chain-time-order",
        "the task is from the future",
        &at_time(at(100_900)),
    );
}

fn once(group: &mut Group<'_>) {
    let executed = Code::GateAlreadyExecuted;
    refuse(group, "done", executed, "gate-run-twice", "the task has a manifest", &gate(&honest()));
    let mut world = ready();
    let announced = world.intent(PUBLISH, Stage::Announced, 101_450);
    let intent = world.add("intent", announced.clone(), &["publisher"]);
    refuse(
        group,
        "in-doubt",
        executed,
        "gate-crash-between",
        "the act was announced and nobody knows whether it was done",
        &gate(&world),
    );
    let resume = world.resolution(PUBLISH, Resolve::Resume(intent), "carol");
    let resumed = |by: &str| {
        let mut world = world.clone();
        world.add("resume", resume.clone(), &[by]);
        world
    };
    let about = About("a person had the act taken up again", &["gate-crash-between"]);
    group.accept("resumed", about, &gate(&resumed("carol")));
    for (name, by) in [("resumed-by-another", "bob"), ("resumed-by-machine", "publisher")] {
        let about = About(
            "the word to take the act up again is signed by another",
            &["gate-crash-between"],
        );
        group.reject(name, "resumed", executed, about, &gate(&resumed(by)));
    }
    let mut again = resumed("carol");
    let second = again.intent(PUBLISH, Stage::Announced, 101_600);
    again.add("again", second, &["publisher"]);
    let about = About(
        "the act was announced again, and nobody has spoken to that",
        &["gate-crash-between"],
    );
    group.reject("in-doubt-again", "resumed", executed, about, &gate(&again));
    let mut by_others = ready();
    by_others.add("announced", announced, &["docs"]);
    let about = About(
        "the act was announced by a machine that may not perform the step",
        &["gate-crash-between"],
    );
    group.accept("announced-by-another", about, &gate(&by_others));
    let mut dropped = world.clone();
    let publisher = Key::of("publisher").public.to_openssh();
    dropped.rotate(move |text| {
        text.replace("perform = [\"publisher\"]", "perform = [\"docs\"]")
            .replace(&format!("[machines.publisher]\nkeys = [{{ key = \"{publisher}\" }}]\n"), "")
    });
    refuse(
        group,
        "in-doubt-worker-gone",
        executed,
        "gate-crash-between",
        "the worker that announced the act is no longer in the policy",
        &gate(&dropped),
    );
}

fn word(world: &World, phase: &str, decision: Decision, person: &str) -> Signoff {
    let request = format!("new/{phase}/request");
    let (content, id) = (world.get_request(&request), world.id(&request));
    Signoff::of(&content, id, decision, label(person), label("releng"), at(101_600))
}

fn objections(group: &mut Group<'_>) {
    for phase in ["promote", "ship"] {
        let mut world = ready();
        let refusal = word(&world, phase, Decision::Refuse, "alice");
        world.add("refusal", refusal, &["alice"]);
        refuse(
            group,
            &format!("refused-{phase}"),
            Code::SignoffRefused,
            "hum-decision-reject",
            "somebody who may approve refused",
            &gate(&world),
        );
        let mut world = ready();
        let mut withdrawal = word(&world, phase, Decision::Withdraw, "carol");
        withdrawal.withdraws = Some(world.id(&format!("new/{phase}/signoff/carol")));
        world.add("withdrawal", withdrawal, &["carol"]);
        refuse(
            group,
            &format!("withdrawn-{phase}"),
            Code::SignoffWithdrawn,
            "gate-slow-verify-window",
            "an approval was taken back before the act",
            &gate(&world),
        );
    }
    let mut world = ready();
    world.drop("new/ship/signoff/bob");
    refuse(
        group,
        "sign-off-missing",
        Code::SignoffMissing,
        "hum-below-threshold",
        "a sign-off is not there",
        &gate(&world),
    );
}

fn inputs(group: &mut Group<'_>) {
    let mut before = honest();
    before.envelopes.retain(|name, _| !name.starts_with("new/sign/manifest"));
    let with_task = |world: &World| {
        ask(world, "new/sign/task", &[&SHIPPED[..5], &["new/sign/"]].concat(), at(100_800))
    };
    group.accept("sign", About("the signing step may start", &[]), &with_task(&before));
    let mut waiting = before.clone();
    waiting.drop("new/partial/manifest");
    let about = About("an input has not been made yet", &["chain-link-missing"]);
    group.reject("input-not-made", "sign", Code::ChainLinkMissing, about, &with_task(&waiting));
    let mut forked = before.clone();
    let mut other: Manifest = forked.get_manifest("new/partial/manifest");
    other.invocation = "a second run".into();
    let id = forked.add("fork", other, &["packer"]);
    let about = About("an input has been made twice", &["chain-fork-one-task"]);
    group.reject("input-made-twice", "sign", Code::ChainForked, about, &with_task(&forked));
    let word = forked.resolution("new/partial/task", Resolve::Supersede(id), "bob");
    forked.add("resolution", word, &["bob"]);
    let about = About("an input has been made twice, and a person chose", &["chain-fork-one-task"]);
    group.accept("input-chosen", about, &with_task(&forked));
    let nothing = change()
        .task(PUBLISH, |task| task.inputs[0].patterns = vec!["signed/*.exe".parse().unwrap()])
        .build();
    refuse(
        group,
        "pattern-of-nothing",
        Code::ArtMissing,
        "art-missing",
        "a pattern selects nothing",
        &gate(&nothing.unpublished()),
    );
    let old = honest().id("old/build/manifest");
    let partial = |directory: &'static str| {
        let edit = move |task: &mut Task| {
            task.inputs[1].origin = Origin::Manifest(old);
            task.inputs[1].directory = directory.parse().unwrap();
        };
        let mut world = change().task("new/partial/task", edit).build();
        world.envelopes.retain(|name, _| !name.starts_with("new/partial/manifest"));
        ask(&world, "new/partial/task", &SHIPPED[..5], at(100_800))
    };
    group.accept(
        "places",
        About("two files of one name in two directories", &["art-name-collision"]),
        &partial("old"),
    );
    for (name, directory) in [("one-place", "new"), ("one-place-by-case", "NEW")] {
        let about = About("two files for one place", &["art-name-collision"]);
        group.reject(name, "places", Code::ArtNameCollision, about, &partial(directory));
    }
    let less = |request: &mut custody_core::statement::Request| {
        request.builds_on[0].artifacts -= 1;
    };
    let world = change().request("new/ship/request", less).build().unpublished();
    refuse(
        group,
        "file-not-approved",
        Code::SignoffContentMismatch,
        "gate-signing-oracle",
        "more would be published than people were shown",
        &gate(&world),
    );
}

fn depth(group: &mut Group<'_>) {
    let mut world = ready();
    let smoke = |world: &World| {
        ask(world, "new/smoke/task", &[&SHIPPED[..], &["new/smoke/"]].concat(), at(101_800))
    };
    group.accept(
        "direct",
        About("a step that looks at its direct inputs may start", &[]),
        &smoke(&world),
    );
    world.drop("old/build/task");
    let about = About(
        "what lies further behind is not looked at by such a step",
        &["gate-impact-downgraded"],
    );
    group.accept("direct-without-rest", about, &smoke(&world));
    refuse(
        group,
        "full-without-rest",
        Code::ChainTaskMissing,
        "gate-impact-downgraded",
        "an irrevocable step looks at everything behind",
        &gate(&world),
    );
    let wrong = change().signed_by("new/sign/manifest", &["docs"]).build().unpublished();
    let about = About("the direct input is signed by another machine", &["gate-impact-downgraded"]);
    group.reject("direct-wrong", "direct", Code::PolicyKeyPurpose, about, &smoke(&wrong));
}

fn summaries(group: &mut Group<'_>) {
    let world = ready();
    let summary: Summary = world.summary(&world.gate(PUBLISH));
    let with = |summary: Summary, by: &str| {
        let mut world = world.clone();
        world.add("summary", summary, &[by]);
        world.drop("old/build/task");
        world
    };
    let good = with(summary.clone(), "gate");
    let about = About(
        "a lesser step relies on the word of a gate that the policy trusts",
        &["chain-summary-instead"],
    );
    group.accept("summary", about, &notes(&good));
    let rows = &["chain-summary-instead"];
    let missing = Code::ChainTaskMissing;
    let about = About("an irrevocable step relies on nobody's word", rows);
    group.reject("summary-and-irrevocable", "publish", missing, about, &gate(&good));
    let about = About("the word of a machine that is no gate", rows);
    group.reject(
        "summary-by-another",
        "summary",
        missing,
        about,
        &notes(&with(summary.clone(), "docs")),
    );
    let edits: [(&str, fn(&mut Summary)); 8] = [
        ("summary-failed", |summary| {
            summary.result = custody_core::statement::VerificationResult::Failed;
        }),
        ("summary-of-no-level", |summary| summary.levels.clear()),
        ("summary-of-another-release", |summary| {
            summary.resource_uri = "custody:hello/1.0.0/release/production".into();
        }),
        ("summary-of-nothing", |summary| summary.inputs.clear()),
        ("summary-of-less", |summary| summary.artifacts.truncate(1)),
        ("summary-of-other-bytes", |summary| summary.artifacts[0].size += 1),
        ("summary-in-another-name", |summary| {
            summary.verifier = gate_uri(&Key::of("builder").public.id());
        }),
        ("summary-in-no-name-of-a-key", |summary| {
            summary.verifier = "https://custody.dev/gate/gate".into();
        }),
    ];
    for (name, edit) in edits {
        let mut other = summary.clone();
        edit(&mut other);
        let about = About("a gate's word that does not say what is needed", rows);
        group.reject(name, "summary", missing, about, &notes(&with(other, "gate")));
    }
    shares(group, &summary);
    let mut rotated = good;
    rotated.rotate(|text| text);
    let about = About("a gate's word of before the newest policy", &["gate-cached-verdict"]);
    group.reject("summary-of-before", "summary", missing, about, &notes(&rotated));
}

/// What a gate's word must cover, and what is checked all the same.
fn shares(group: &mut Group<'_>, summary: &Summary) {
    let rows = &["chain-summary-instead"];
    let about = About("a gate's word on no more than the step takes", rows);
    let mut less = summary.clone();
    less.artifacts.truncate(1);
    let mut world = change()
        .task("new/notes/task", |task| {
            task.inputs[0].patterns = vec!["signed/hello".parse().unwrap()];
        })
        .build()
        .unpublished();
    world.add("summary", less.clone(), &["gate"]);
    world.drop("old/build/task");
    group.accept("summary-of-what-is-taken", about, &notes(&world));

    let mut others = summary.clone();
    others.artifacts.remove(0);
    let mut world = ready();
    world.add("summary", less, &["gate"]);
    world.add("summary of the others", others.clone(), &["gate"]);
    world.drop("old/build/task");
    let about = About("two words of a gate that share the files among them", rows);
    group.accept("summaries-that-share", about, &notes(&world));

    others.artifacts = world.get_manifest("new/partial/manifest").artifacts;
    let mut world = ready();
    world.add("summary", others, &["gate"]);
    world.drop("old/build/task");
    let about = About("a gate's word on what lies behind what the step takes", rows);
    group.reject("summary-too-far", "summary", Code::ChainTaskMissing, about, &notes(&world));

    let mut world = change().signed_by("new/sign/manifest", &["docs"]).build().unpublished();
    world.add("summary", summary.clone(), &["gate"]);
    world.drop("old/build/task");
    let about = About(
        "a manifest of another step's machine, and a gate's word on it",
        &["chain-key-of-other-step"],
    );
    let purpose = Code::PolicyKeyPurpose;
    group.reject("summary-of-a-wrong-manifest", "summary", purpose, about, &notes(&world));
}

/// At a gate the newest policy decides.
fn newest(group: &mut Group<'_>) {
    let key = |name: &str| format!("key = \"{}\"", Key::of(name).public.to_openssh());
    let mut world = ready();
    world.rotate(|text| text.replace(&key("carol"), &format!("{}, revoked = true", key("carol"))));
    refuse(
        group,
        "approver-gone",
        Code::PolicyKeyRevoked,
        "hum-departed",
        "an approver's key was revoked since",
        &gate(&world),
    );
    let dave = format!("[people.dave]\nkeys = [{{ {} }}]\n[people.bob]", key("dave"));
    let mut world = ready();
    world.rotate(|text| {
        text.replace("[people.bob]", &dave)
            .replace(
                "[roles.releng]\nmembers = [\"alice\",",
                "[roles.releng]\nmembers = [\"alice\", \"dave\",",
            )
            .replace("count = 2", "count = 3")
    });
    refuse(
        group,
        "threshold-raised",
        Code::SignoffThresholdNotMet,
        "hum-threshold-raised",
        "the policy asks for three people since",
        &gate(&world),
    );
    let mut world = ready();
    world
        .rotate(|text| text.replace("channels = [\"release\", \"beta\"]", "channels = [\"beta\"]"));
    refuse(
        group,
        "channel-gone",
        Code::ChainReleaseMismatch,
        "pol-chain-pins-old",
        "the policy has dropped the channel since",
        &gate(&world),
    );
}
