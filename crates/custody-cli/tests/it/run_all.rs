//! A whole phase on one machine: in order, in parallel, and taken up again where it stopped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;

use crate::world::{World, is_root, until};

/// Three steps: `pack` takes inputs from `build` and `check`, and `check` from `build`. Each is given a
/// command, after which it writes its name into a diary outside.
fn steps(build: &str, check: &str, pack: &str) -> [String; 3] {
    let step = |name: &str, command: &str, more: &str| {
        format!(
            "\n[steps.{name}]\nphase = \"promote\"\ncommand = [\"sh\", \"-c\", '''{command}; mkdir dist && echo {name} > dist/{name} && echo {name} >> {{param.room}}/diary''']\noutputs = [\"dist/{name}\"]\n{more}"
        )
    };
    let input = |name: &str, from: &str| {
        format!("[[steps.{name}.inputs]]\nstep = \"{from}\"\nartifacts = [\"dist/*\"]\n")
    };
    [
        step("pack", pack, &(input("pack", "build") + &input("pack", "check"))),
        step("check", check, &input("check", "build")),
        step("build", build, "source = true\n"),
    ]
}

fn planned(world: &World, build: &str, check: &str, pack: &str) -> String {
    let steps = steps(build, check, pack);
    world.pipeline(&steps.each_ref().map(String::as_str));
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    authorization
}

fn diary(world: &World) -> Vec<String> {
    let text = fs::read_to_string(world.path("room/diary")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn in_the_order_of_what_depends_on_what() {
    let world = World::fresh();
    let authorization = planned(
        &world,
        "true",
        "test -e inputs/build/dist/build",
        "test -e inputs/check/dist/check",
    );
    let first = world.run_all(&authorization).done().json();
    assert_eq!(first.as_array().unwrap().len(), 3);
    assert_eq!(diary(&world), ["build", "check", "pack"]);
    // again: everything is known, nothing runs
    assert_eq!(world.run_all(&authorization).done().json(), first);
    assert_eq!(diary(&world).len(), 3);
    // what has no tasks is not done
    let other = world.authorized("promote");
    world.refused(&world.run_line(&format!("--all {other}")), "CHAIN_TASK_MISSING");
}

/// Two steps that wait for each other can only end if they run at once.
#[test]
fn what_does_not_depend_runs_at_once() {
    let world = World::fresh();
    let meet = |own: &str, other: &str| {
        format!(
            "touch {{param.room}}/{own}; for i in $(seq 500); do test -e {{param.room}}/{other} && break; sleep 0.02; done; test -e {{param.room}}/{other}"
        )
    };
    let [pack, check, build] = steps(&meet("one", "two"), &meet("two", "one"), "true");
    let check = check.split("[[").next().unwrap();
    world.pipeline(&[&pack, check, &build]);
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    // as root two users, for one serves one run at a time; both write the diary
    world.write("room/diary", "");
    fs::set_permissions(world.path("room/diary"), fs::Permissions::from_mode(0o666)).unwrap();
    let second = if is_root() { "--user 64111:64111" } else { "" };
    let line = world.run_line(&format!("--all {authorization}"));
    world.custody(&format!("{line} {second} --jobs 2")).done();
    assert_eq!(diary(&world).last().unwrap(), "pack");
}

#[test]
fn one_failure_stops_what_depends_on_it() {
    let world = World::fresh();
    let authorization = planned(&world, "true", "test -e {param.room}/good || exit 9", "true");
    let said = world.run_all(&authorization).ended(1);
    assert!(said.text("message").contains("check"), "{said:#?}");
    assert_eq!(diary(&world), ["build"]);
    assert_eq!(world.list("manifest").len(), 1);
    world.write("room/good", "");
    world.run_all(&authorization).done();
    assert_eq!(diary(&world), ["build", "check", "pack"]);
}

/// kill -9 in the middle: what is done stays done, what was under way is done again, nothing twice.
#[test]
fn killed_in_the_middle_and_taken_up_again() {
    let world = World::fresh();
    let wait =
        "echo begun >> {param.room}/begun; while ! test -e {param.room}/go; do sleep 0.01; done";
    let authorization = planned(&world, "true", wait, "true");
    let mut worker = world.spawn(&world.run_line(&format!("--all {authorization}")));
    until("the second step is under way", || world.path("room/begun").exists());
    worker.kill().unwrap();
    assert_eq!(worker.wait().unwrap().signal(), Some(9));
    // the store is whole, and the command died with its worker
    assert_eq!(world.list("manifest").len(), 1);
    world.write("room/go", "");
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert_eq!(diary(&world), ["build"], "a command outlived its worker");

    let done = world.run_all(&authorization).done().json();
    assert_eq!(done.as_array().unwrap().len(), 3);
    assert_eq!(diary(&world), ["build", "check", "pack"]);
    assert_eq!(world.read("room/begun").lines().count(), 2);
    assert_eq!(world.list("manifest").len(), 3);
    for place in ["store/tmp", "work"] {
        let left = fs::read_dir(world.path(place)).unwrap().count();
        assert_eq!(left, 0, "what the killed worker left in {place} is cleared away");
    }
}

/// The first interrupt ends a run in good order, and leaves no trace but the log.
#[test]
fn interrupted_and_taken_up_again() {
    let world = World::fresh();
    let wait =
        "echo begun >> {param.room}/begun; while ! test -e {param.room}/go; do sleep 0.01; done";
    let authorization = planned(&world, "true", wait, "true");
    let worker =
        world.spawn(&format!("--json {}", world.run_line(&format!("--all {authorization}"))));
    until("the second step is under way", || world.path("room/begun").exists());
    let pid = rustix::process::Pid::from_child(&worker);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let output = worker.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(1 | 3)), "{output:?}");
    let left: Vec<_> = world
        .files("work")
        .into_keys()
        .filter(|name| name.extension().is_none_or(|end| end != "log"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(diary(&world), ["build"]);
    world.write("room/go", "");
    world.run_all(&authorization).done();
    assert_eq!(diary(&world), ["build", "check", "pack"]);
}
