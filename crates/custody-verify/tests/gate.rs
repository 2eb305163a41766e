//! The gate before a step, as far as it is pure: whoever holds the host, the queue or a worker's key
//! wants a task to run that may not run, or to run twice.

use custody_world as world;

use custody_core::Code;
use custody_core::statement::{Decision, Origin, Resolve, Signoff, Stage, Task};
use custody_core::time::Time;
use custody_verify::report::{NodeKind, Outcome, Rule};
use custody_verify::{Expectation, Floor, Question, Report, Subject, verify};
use world::{
    World, artifact, assert_accepted, assert_refused, at, change, content, findings, honest, label,
    release_id,
};

const PUBLISH: &str = "new/publish/task";

fn ready() -> World {
    honest().unpublished()
}

/// The control of this file; and `gate-signing-oracle`: a step gets what manifests name, no more.
#[test]
fn a_gate_lets_a_good_task_start_and_hands_out_exactly_its_inputs() {
    let world = ready();
    let report = world.gate(PUBLISH);
    assert_accepted(&report);
    let accepted = report.accepted().unwrap();
    assert_eq!(accepted.task().unwrap().0, world.id(PUBLISH));
    assert_eq!(*accepted.release(), release_id("1.1.0"));
    let mut names: Vec<_> =
        accepted.inputs().iter().map(|input| input.artifact.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["signed/hello", "signed/hello.mar", "signed/hello.partial"]);
    assert!(accepted.inputs().iter().all(|input| input.manifest == world.id("new/sign/manifest")));
    assert!(accepted.inputs().iter().all(|input| input.directory == "signed"));
}

/// `gate-impact-downgraded`, `chain-summary-instead`: depth comes from the policy alone.
#[test]
fn a_direct_gate_looks_at_its_inputs_and_a_full_one_at_everything() {
    let mut world = ready();
    let count =
        |report: &Report| report.nodes().filter(|node| node.kind == NodeKind::Manifest).count();
    assert_eq!(count(&world.gate("new/smoke/task")), 1);
    assert_eq!(count(&world.gate(PUBLISH)), 4);
    // the older build's task is gone: three steps behind, which only a full gate looks at
    world.drop("old/build/task");
    assert_accepted(&world.gate("new/smoke/task"));
    assert_refused(&world.gate(PUBLISH), Code::ChainTaskMissing);
    assert_refused(&world.gate("new/notes/task"), Code::ChainTaskMissing);
    // direct inputs are verified whatever the depth
    let wrong = change().signed_by("new/sign/manifest", &["docs"]).build();
    assert_refused(&wrong.gate("new/smoke/task"), Code::PolicyKeyPurpose);
    let mut lost = ready();
    lost.drop("new/promote/signoff/carol");
    assert_refused(&lost.gate("new/smoke/task"), Code::SignoffMissing);
}

/// `chain-summary-instead`, `gate-cached-verdict`: a gate's word helps a lesser step whose policy
/// trusts that gate, and nobody else.
#[test]
fn a_summary_counts_for_a_lesser_step_and_not_for_an_irrevocable_one() {
    let mut world = ready();
    let report = world.gate("new/smoke/task");
    let whole = world.gate(PUBLISH);
    let summary = world.summary(&whole);
    assert!(report.accepted().is_some());
    world.drop("old/build/task");
    let rule = |report: &Report| {
        let checks =
            report.subject().checks.iter().find(|check| check.rule == Rule::SummaryAccepted);
        checks.map(|check| check.outcome.clone()).unwrap()
    };
    let with = |summary: custody_core::statement::Summary, by: &str| {
        let mut world = world.clone();
        world.add("summary", summary, &[by]);
        world
    };
    let helped = with(summary.clone(), "gate");
    assert_accepted(&helped.gate("new/notes/task"));
    assert_eq!(rule(&helped.gate("new/notes/task")), Outcome::Passed);
    assert_refused(&helped.gate(PUBLISH), Code::ChainTaskMissing);
    assert!(matches!(rule(&helped.gate(PUBLISH)), Outcome::NotRequired(_)));
    assert_refused(&with(summary.clone(), "docs").gate("new/notes/task"), Code::ChainTaskMissing);
    let edits: [fn(&mut custody_core::statement::Summary); 7] = [
        |summary| summary.verifier = "https://custody.dev/gate/another".into(),
        |summary| summary.result = custody_core::statement::VerificationResult::Failed,
        |summary| summary.levels.clear(),
        |summary| summary.resource_uri = "custody:hello/1.0.0/release/production".into(),
        |summary| summary.inputs.clear(),
        |summary| summary.artifacts.truncate(1),
        |summary| summary.artifacts[0].size += 1,
    ];
    for edit in edits {
        let mut other = summary.clone();
        edit(&mut other);
        assert_refused(&with(other, "gate").gate("new/notes/task"), Code::ChainTaskMissing);
    }
    // made under a policy that no longer is the newest
    let mut rotated = helped;
    rotated.rotate(|text| text);
    assert_refused(&rotated.gate("new/notes/task"), Code::ChainTaskMissing);
}

/// `gate-run-twice`.
#[test]
fn a_task_that_has_a_manifest_does_not_start_again() {
    let mut world = honest();
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
    // also after the policy has dropped the worker that did it
    world.rotate(|text| {
        text.replace("perform = [\"publisher\"]", "perform = [\"docs\"]").replace(
            &format!("key = \"{}\"", world::Key::of("publisher").public.to_openssh()),
            &format!(
                "key = \"{}\", revoked = true",
                world::Key::of("publisher").public.to_openssh()
            ),
        )
    });
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
}

/// `gate-crash-between`.
#[test]
fn an_act_in_doubt_stays_refused_until_a_person_says_to_resume() {
    let mut world = ready();
    assert_accepted(&world.gate(PUBLISH));
    let announced = world.intent(PUBLISH, Stage::Announced, 101_450);
    world.add("intent", announced, &["publisher"]);
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
    let resume = world.resolution(PUBLISH, Resolve::Resume(world.id("intent")), "carol");
    let mut by_another = world.clone();
    by_another.add("resume", resume.clone(), &["bob"]);
    assert_refused(&by_another.gate(PUBLISH), Code::GateAlreadyExecuted);
    let mut by_machine = world.clone();
    by_machine.add("resume", resume.clone(), &["publisher"]);
    assert_refused(&by_machine.gate(PUBLISH), Code::GateAlreadyExecuted);
    let mut other_task = world.clone();
    let mut elsewhere = resume.clone();
    elsewhere.task = world.id("new/notes/task");
    other_task.add("resume", elsewhere, &["carol"]);
    assert_refused(&other_task.gate(PUBLISH), Code::GateAlreadyExecuted);
    world.add("resume", resume, &["carol"]);
    assert_accepted(&world.gate(PUBLISH));
    // done and read back, but the manifest was not written: nobody has to say more
    let done = world.intent(PUBLISH, Stage::Done, 101_460);
    world.add("done", done, &["publisher"]);
    assert_accepted(&world.gate(PUBLISH));
    let again = world.intent(PUBLISH, Stage::Announced, 101_600);
    world.add("again", again, &["publisher"]);
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
    // a word holds for the announcement that it names, however many there are
    let more = world.resolution(PUBLISH, Resolve::Resume(world.id("done")), "carol");
    world.add("for another", more, &["carol"]);
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
    let more = world.resolution(PUBLISH, Resolve::Resume(world.id("again")), "carol");
    world.add("for the second", more, &["carol"]);
    assert_accepted(&world.gate(PUBLISH));
}

/// `gate-crash-between` after a rotation: the policy has dropped the worker that announced the act.
#[test]
fn an_act_stays_in_doubt_when_the_worker_is_no_longer_in_the_policy() {
    let mut world = ready();
    let announced = world.intent(PUBLISH, Stage::Announced, 101_450);
    world.add("intent", announced, &["publisher"]);
    let publisher = world::Key::of("publisher").public.to_openssh();
    world.rotate(move |text| {
        text.replace("perform = [\"publisher\"]", "perform = [\"docs\"]")
            .replace(&format!("[machines.publisher]\nkeys = [{{ key = \"{publisher}\" }}]\n"), "")
    });
    assert_refused(&world.gate(PUBLISH), Code::GateAlreadyExecuted);
}

/// `gate-wrong-step` and whatever else is no task at all.
#[test]
fn what_is_no_task_or_of_another_release_does_not_start() {
    let world = ready();
    let ask = |name: &str| {
        let question = world.gate_question(name);
        verify(&question, &world.evidence(), &world.chain(), at(101_700))
    };
    for name in
        ["new/sign/manifest", "new/ship/request", "new/ship/authorization", "new/ship/signoff/bob"]
    {
        assert_refused(&ask(name), Code::StmtPredicateType);
    }
    let mut question = world.gate_question(PUBLISH);
    let now = at(101_700);
    question.expect = Expectation::of(&release_id("1.0.0"));
    assert_refused(
        &verify(&question, &world.evidence(), &world.chain(), now),
        Code::ChainReleaseMismatch,
    );
    question.expect = Expectation::of(&release_id("1.1.0"));
    assert_accepted(&verify(&question, &world.evidence(), &world.chain(), now));
    question.subject =
        Subject::Task(custody_core::envelope::StatementId(custody_core::digest::Sha256::of(b"x")));
    assert_refused(
        &verify(&question, &world.evidence(), &world.chain(), now),
        Code::ChainTaskMissing,
    );
}

/// `gate-destination`.
#[test]
fn a_destination_that_the_policy_does_not_name_is_refused() {
    let to = |destination: &'static str| {
        change()
            .task(PUBLISH, move |task| task.destination = Some(destination.into()))
            .build()
            .unpublished()
            .gate(PUBLISH)
    };
    assert_accepted(&to("s3://releases/hello/1.1.0"));
    for destination in [
        "s3://releases/hello",
        "s3://releases/other/1.1.0",
        "s3://releases/hello/../other",
        "s3://evil/hello/",
        "s3://releases/hello/%2e%2e/x",
        "s3://releases/hello@evil/",
        "file:///srv/",
        "s3://releases/hello/a\\..\\b",
    ] {
        assert_refused(&to(destination), Code::GateDestinationForbidden);
    }
}

/// `chain-stale-task`: deadline, authorization and policy end exactly when they say.
#[test]
fn a_gate_after_the_deadline_the_authorization_or_the_policy_is_refused() {
    let world = ready();
    let task = world.get_task(PUBLISH);
    let ask = |world: &World, now: Time| {
        verify(&world.gate_question(PUBLISH), &world.evidence(), &world.chain(), now)
    };
    let after = |time: Time| Time::from_unix(time.unix() + 1).unwrap();
    assert_accepted(&ask(&world, task.deadline));
    assert_refused(&ask(&world, after(task.deadline)), Code::ChainStale);
    let short = change()
        .authorization("new/ship/authorization", |authorization| {
            authorization.expires = at(102_000);
        })
        .task(PUBLISH, |task| task.deadline = at(102_000))
        .task("new/smoke/task", |task| task.deadline = at(102_000))
        .build()
        .unpublished();
    assert_accepted(&ask(&short, at(101_999)));
    assert_refused(&ask(&short, at(102_000)), Code::ChainStale);
    let soon = change()
        .policy(|text| {
            text.replace(
                "expires = \"2030-01-01T00:00:00Z\"",
                &format!("expires = \"{}\"", at(102_000)),
            )
        })
        .build();
    let soon = soon.unpublished();
    assert_accepted(&ask(&soon, at(101_999)));
    assert_refused(&ask(&soon, at(102_000)), Code::PolicyExpired);
    assert_refused(&ask(&soon, at(102_001)), Code::PolicyExpired);
}

/// The clock is behind what was verified before.
#[test]
fn a_clock_that_goes_back_is_refused() {
    let mut world = ready();
    let floor = |time| Some(Floor { version: 1, policy: world.pin, time });
    let floors = [floor(at(101_800)), floor(at(102_101))];
    world.floor = floors[0];
    assert_accepted(&world.gate(PUBLISH));
    world.floor = floors[1];
    assert_refused(&world.gate(PUBLISH), Code::TimeUntrusted);
    // within the tolerated skew the later of both counts
    let mut late = change().task(PUBLISH, |task| task.deadline = at(101_900)).build().unpublished();
    assert_accepted(&late.gate(PUBLISH));
    late.floor = floor(at(102_000));
    assert_refused(&late.gate(PUBLISH), Code::ChainStale);
}

/// `gate-slow-verify-window`, `hum-withdrawn`: refusals and withdrawals stop a task of their phase and
/// of those that build on it.
#[test]
fn a_refusal_or_withdrawal_stops_the_gate_in_every_later_phase() {
    for phase in ["promote", "ship"] {
        let mut world = ready();
        let request = format!("new/{phase}/request");
        let mut said = Signoff::of(
            &world.get_request(&request),
            world.id(&request),
            Decision::Refuse,
            label("alice"),
            label("releng"),
            at(101_600),
        );
        said.comment = "found a bug".into();
        world.add("refusal", said, &["alice"]);
        let report = world.gate(PUBLISH);
        assert_refused(&report, Code::SignoffRefused);
        assert!(findings(&report).contains("found a bug"));
    }
}

/// `gate-partial`, and inputs that are not there yet or are two.
#[test]
fn a_gate_without_its_inputs_is_refused() {
    let waits = |edit: fn(&mut World)| {
        let mut world = ready();
        edit(&mut world);
        world
    };
    let sign_gate = |world: &World| world.gate("new/sign/task");
    let mut before =
        waits(|world| world.envelopes.retain(|name, _| !name.starts_with("new/sign/manifest")));
    assert_accepted(&sign_gate(&before));
    before.drop("new/partial/manifest");
    assert_refused(&sign_gate(&before), Code::ChainLinkMissing);
    let nothing = change()
        .task(PUBLISH, |task| task.inputs[0].patterns = vec!["signed/*.exe".parse().unwrap()])
        .build();
    assert_refused(&nothing.unpublished().gate(PUBLISH), Code::ArtMissing);
    let mut forked =
        waits(|world| world.envelopes.retain(|name, _| !name.starts_with("new/sign/manifest")));
    let mut other = forked.get_manifest("new/partial/manifest");
    other.invocation = "a second run".into();
    let id = forked.add("fork", other, &["packer"]);
    assert_refused(&sign_gate(&forked), Code::ChainForked);
    let word = forked.resolution("new/partial/task", Resolve::Supersede(id), "bob");
    forked.add("resolution", word, &["bob"]);
    let report = sign_gate(&forked);
    assert_accepted(&report);
    assert!(report.accepted().unwrap().inputs().iter().any(|input| input.manifest == id));
}

/// `art-name-collision` at the gate: two files for one place.
#[test]
fn two_inputs_for_one_place_are_refused() {
    let old = honest().id("old/build/manifest");
    let partial = |directory: &'static str| {
        change().task("new/partial/task", move |task: &mut Task| {
            task.inputs[1].origin = Origin::Manifest(old);
            task.inputs[1].directory = directory.parse().unwrap();
        })
    };
    let gate = |directory| {
        let mut world = partial(directory).build();
        world.envelopes.retain(|name, _| !name.starts_with("new/partial/manifest"));
        world.gate("new/partial/task")
    };
    let report = gate("old");
    assert_accepted(&report);
    assert_eq!(report.accepted().unwrap().inputs().len(), 2);
    assert_refused(&gate("new"), Code::ArtNameCollision);
    assert_refused(&gate("NEW"), Code::ArtNameCollision);
    // one file that two patterns select is one input
    let twice = change()
        .task(PUBLISH, |task| task.inputs[0].patterns.push("signed/hello".parse().unwrap()))
        .build();
    let report = twice.unpublished().gate(PUBLISH);
    assert_accepted(&report);
    assert_eq!(report.accepted().unwrap().inputs().len(), 3);
}

/// A summary says what was accepted, and of what.
#[test]
fn a_summary_names_the_artifacts_the_policy_and_every_statement() {
    let world = ready();
    let summary = world.summary(&world.gate(PUBLISH));
    assert_eq!(summary.artifacts.len(), 3);
    assert!(
        summary.artifacts.contains(&artifact("signed/hello", &content("new", "hello, signed")))
    );
    assert_eq!(summary.policy, world.pin);
    assert!(summary.inputs.contains(&world.id("old/build/manifest")));
    assert_eq!(summary.resource_uri, "custody:hello/1.1.0/release/production");
}

/// `gate-signing-oracle`, `gate-partial`: a scheduler may pick patterns, not manifests that nobody signed off, nor
/// one that people were shown otherwise.
#[test]
fn nothing_is_published_that_the_request_does_not_name() {
    let less = |request: &mut custody_core::statement::Request| {
        request.builds_on.iter_mut().for_each(|entry| entry.artifacts -= 1);
    };
    let world = change().request("new/ship/request", less).build().unpublished();
    assert_refused(&world.gate(PUBLISH), Code::SignoffContentMismatch);
    let none = |request: &mut custody_core::statement::Request| request.builds_on.clear();
    let world = change().request("new/ship/request", none).build().unpublished();
    assert_refused(&world.gate(PUBLISH), Code::ChainInputUnaccounted);
    let other_name = |task: &mut Task| task.outputs = vec!["nothing-like-it".parse().unwrap()];
    let world = change().task(PUBLISH, other_name).build().unpublished();
    assert_refused(&world.gate(PUBLISH), Code::ArtUnlisted);
}

/// A machine that may not perform a step cannot mark its task as done, begun or forked.
#[test]
fn only_who_may_perform_a_step_blocks_its_task() {
    let done = honest().get_manifest("new/publish/manifest");
    let mut blocked = ready();
    blocked.add("done", done.clone(), &["publisher"]);
    assert_refused(&blocked.gate(PUBLISH), Code::GateAlreadyExecuted);
    let mut free = ready();
    free.add("claimed", done, &["docs"]);
    let intent = free.intent(PUBLISH, Stage::Announced, 101_450);
    free.add("announced", intent, &["docs"]);
    assert_accepted(&free.gate(PUBLISH));
}

/// Documents are looked at with the same rules as files and tasks, and never accepted by that.
#[test]
fn looking_at_documents_finds_faults_and_accepts_nothing() {
    let look = |world: &World, names: &[&str]| {
        let roots = names.iter().map(|name| world.id(name)).collect();
        let question =
            Question { subject: Subject::Documents(roots), expect: Expectation::default() };
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    let honest = honest();
    let report = look(&honest, &["new/publish/manifest", "new/publish/task"]);
    assert_eq!(report.findings().count(), 0, "{}", findings(&report));
    assert!(report.accepted().is_none());
    let has = |report: &Report, id| report.nodes().any(|node| node.id == Some(id));
    assert!(
        has(&report, honest.id("new/build/manifest")) && has(&report, honest.id("old/build/task"))
    );
    // a task alone: nothing of what it will take
    let report = look(&honest, &["new/sign/task"]);
    assert!(
        has(&report, honest.id("new/sign/task")) && !has(&report, honest.id("new/sign/manifest"))
    );
    let bad = change().signed_by("new/build/manifest", &["packer"]).build();
    let codes = look(&bad, &["new/publish/manifest"]).codes();
    assert!(codes.contains(&Code::PolicyKeyPurpose), "{codes:?}");
    let elsewhere = look(&bad, &["new/build/task"]).codes();
    assert!(elsewhere.is_empty(), "the control: {elsewhere:?}");
}
