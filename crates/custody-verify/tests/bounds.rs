//! Every moment that a rule names, at its last second and one beyond: two verifiers that differ by one
//! second give two verdicts. The clocks of the policy may differ by five minutes.

use custody_core::Code;
use custody_core::statement::{Authorization, Manifest, Request, Signoff, Task};
use custody_verify::{Floor, Report, verify};
use custody_world as world;
use world::{Builder, assert_accepted, assert_refused, at, change, honest};

const REQUEST: &str = "new/ship/request";
const DESK: &str = "new/ship/authorization";
const TASK: &str = "new/publish/task";
const MANIFEST: &str = "new/publish/manifest";
const SIGNOFFS: [&str; 2] = ["new/ship/signoff/bob", "new/ship/signoff/carol"];

/// The honest release, in seconds: proposed at 101,000, signed off at 101,100, authorized at 101,200
/// until 181,000, its publication planned at 101,300 until 108,500 and done from 101,400 to 101,450.
const CREATED: u64 = 101_000;
const BEGINS: u64 = 101_200;
const ENDS: u64 = 181_000;
const PLANNED: u64 = 101_300;
const STARTED: u64 = 101_400;
const FINISHED: u64 = 101_450;
const SKEW: u64 = 300;
const DAY: u64 = 86_400;

fn signoffs(builder: Builder, edit: impl Fn(&mut Signoff) + Copy + 'static) -> Builder {
    SIGNOFFS.iter().fold(builder, |builder, name| builder.signoff(name, edit))
}

fn authorization(edit: impl Fn(&mut Authorization) + 'static) -> Builder {
    change().authorization(DESK, edit)
}

fn task(edit: impl Fn(&mut Task) + 'static) -> Builder {
    change().task(TASK, edit)
}

fn manifest(edit: impl Fn(&mut Manifest) + 'static) -> Builder {
    change().manifest(MANIFEST, edit)
}

/// Accepted with `last`, and refused with the next one, which is one second later or earlier.
#[track_caller]
fn bound(last: u64, next: u64, code: Code, report: impl Fn(u64) -> Report) {
    assert_accepted(&report(last));
    assert_refused(&report(next), code);
}

fn file(builder: Builder) -> Report {
    builder.build().file()
}

/// The gate of the publication, asked at this second.
fn gate(builder: Builder, now: u64) -> Report {
    let world = builder.build().unpublished();
    verify(&world.gate_question(TASK), &world.evidence(), &world.chain(), at(now))
}

#[test]
fn of_an_authorization() {
    let begins_after = |created: u64| {
        let made = move |request: &mut Request| request.created = at(created);
        let said = move |signoff: &mut Signoff| signoff.created = at(BEGINS + SKEW);
        file(signoffs(change().request(REQUEST, made), said))
    };
    bound(BEGINS + SKEW, BEGINS + SKEW + 1, Code::ChainTimeOrder, begins_after);
    bound(ENDS, ENDS + 1, Code::ChainStale, |ends| {
        file(authorization(move |authorization| authorization.expires = at(ends)))
    });
    let begins_before =
        |now: u64| gate(authorization(move |desk| desk.not_before = at(PLANNED + SKEW)), now);
    bound(PLANNED, PLANNED - 1, Code::ChainTimeOrder, begins_before);
    let ends_after_now = |ends: u64| {
        let short = task(|task| task.deadline = at(PLANNED + 10));
        gate(short.authorization(DESK, move |desk| desk.expires = at(ends)), PLANNED + 10)
    };
    bound(PLANNED + 11, PLANNED + 10, Code::ChainStale, ends_after_now);
}

#[test]
fn of_a_sign_off() {
    let said =
        |created: u64| file(signoffs(change(), move |signoff| signoff.created = at(created)));
    bound(CREATED - SKEW, CREATED - SKEW - 1, Code::ChainTimeOrder, said);
    bound(BEGINS + SKEW, BEGINS + SKEW + 1, Code::ChainTimeOrder, said);
    let long_ago = |created: u64| {
        let made = |request: &mut Request| request.created = at(BEGINS - DAY);
        file(signoffs(change().request(REQUEST, made), move |it| it.created = at(created)))
    };
    bound(BEGINS - DAY, BEGINS - DAY - 1, Code::SignoffStale, long_ago);
    bound(BEGINS + 1, BEGINS, Code::SignoffStale, |ends| {
        file(signoffs(change(), move |signoff| signoff.expires = at(ends)))
    });
}

#[test]
fn of_a_task() {
    bound(BEGINS - SKEW, BEGINS - SKEW - 1, Code::ChainTimeOrder, |created| {
        file(task(move |task| task.created = at(created)))
    });
    bound(PLANNED - SKEW, PLANNED - SKEW - 1, Code::ChainTimeOrder, |now| gate(change(), now));
    bound(ENDS, ENDS + 1, Code::ChainStale, |deadline| {
        file(task(move |task| task.deadline = at(deadline)))
    });
    let age = |deadline: u64| {
        let later = authorization(|authorization| authorization.expires = at(ENDS + DAY));
        let later = later.request(REQUEST, |request| request.expires = at(ENDS + DAY));
        file(later.task(TASK, move |task| task.deadline = at(deadline)))
    };
    bound(PLANNED + DAY, PLANNED + DAY + 1, Code::ChainStale, age);
    bound(PLANNED + 100, PLANNED + 99, Code::ChainStale, |deadline| {
        gate(task(move |task| task.deadline = at(deadline)), PLANNED + 100)
    });
}

#[test]
fn of_a_manifest() {
    let late = |started: u64| {
        let run = manifest(move |manifest| {
            (manifest.started, manifest.finished) = (at(started), at(started));
        });
        file(run.task(TASK, |task| task.deadline = at(STARTED)))
    };
    bound(STARTED + SKEW, STARTED + SKEW + 1, Code::ChainStale, late);
    let early = |started: u64| file(manifest(move |it| it.started = at(started)));
    bound(PLANNED - SKEW, PLANNED - SKEW - 1, Code::ChainTimeOrder, early);
    bound(STARTED, STARTED - 1, Code::ChainTimeOrder, |finished| {
        file(manifest(move |manifest| manifest.finished = at(finished)))
    });
    bound(FINISHED - SKEW, FINISHED - SKEW - 1, Code::ChainTimeOrder, |now| {
        let mut world = honest();
        world.now = at(now);
        world.file()
    });
    bound(STARTED + SKEW, STARTED + SKEW + 1, Code::ChainTimeOrder, |finished| {
        file(change().manifest("new/sign/manifest", move |it| it.finished = at(finished)))
    });
}

#[test]
fn of_the_clock_and_the_policy() {
    let now = honest().now;
    bound(SKEW, SKEW + 1, Code::TimeUntrusted, |behind| {
        let mut world = honest();
        world.floor = Some(Floor { version: 1, policy: world.pin, time: now.plus(behind) });
        world.file()
    });
    bound(1, 0, Code::PolicyExpired, |left| {
        let end = now.plus(left).to_string();
        file(change().policy(move |text| text.replace("2030-01-01T00:00:00Z", &end)))
    });
}

#[test]
fn of_the_versions_of_a_policy() {
    let names = |version: u64| {
        file(change().request(REQUEST, move |request| {
            (request.policy.version, request.policy.id.0) = (version, request.pipeline.sha256);
        }))
    };
    assert_refused(&names(2), Code::PolicyVersionGap);
    let unknown = names(1);
    assert_refused(&unknown, Code::PolicyMismatch);
    assert!(!unknown.codes().contains(&Code::PolicyVersionGap));
    let otherwise = file(change().request(REQUEST, |request| request.policy.version = 0));
    assert_refused(&otherwise, Code::PolicyMismatch);
}
