//! A clock that jumps by ten years, before a command and while it runs.

use std::fs;
use std::process::Command;

use crate::world::{CUSTODY, Said, World, skipped};

const FORWARD: &str = "+3650d";
const BACK: &str = "-3650d";

/// Whether the clock can be faked here.
fn faked(test: &str) -> bool {
    let said = Command::new("faketime").args(["-f", FORWARD, "true"]).output();
    let works = said.as_ref().is_ok_and(|output| output.status.success());
    if !works {
        skipped(test, &format!("no faketime: {said:?}"));
    }
    works
}

/// The command with this machine's clock put forward or back.
fn custody_at(world: &World, offset: &str, line: &str) -> Said {
    let plain = world.command("");
    let mut command = Command::new("faketime");
    command.args(["-f", offset, CUSTODY, "--json"]).args(line.split_whitespace());
    command.current_dir(world.path(".")).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    world.say(command)
}

/// How many statements there are.
fn count(world: &World) -> usize {
    world.done("evidence list --store store").json().as_array().unwrap().len()
}

/// Row `sto-clock-jump`.
#[test]
fn a_clock_that_went_back_signs_and_decides_nothing() {
    let world = World::promoted();
    if !faked("a_clock_that_went_back_signs_and_decides_nothing") {
        return;
    }
    let authorization = world.authorized("ship");
    let request = world.list("request").pop().unwrap();
    let before = count(&world);
    world.write("all.bin", "hello, world\nsecond\n");
    let verify = "verify all.bin --store store --step pack --name dist/all.bin";
    let plan = format!(
        "plan {authorization} --store store --repository source --creator tests --key keys/scheduler"
    );
    let sign_off = format!(
        "release sign-off {request} --store store --as alice --role releng --key keys/alice"
    );
    let propose = format!(
        "release propose --store store --product hello --version 1.0 --channel release --phase ship \
         --repository source --key keys/alice --param destination={}",
        world.destination()
    );
    let authorize = format!("release authorize {request} --store store --key keys/desk");
    for line in [&plan, &sign_off, &propose, &authorize, verify] {
        custody_at(&world, BACK, line).refused("TIME_UNTRUSTED");
    }
    let task = world.plan(&authorization)["publish"].clone();
    custody_at(&world, BACK, &world.publish_line(&task)).refused("TIME_UNTRUSTED");
    assert_eq!(count(&world), before + 1);
    assert_eq!(world.files("www").len(), 0);
    world.publish(&task).done();
    world.done(&format!("verify www --pin {}", world.pin()));
    // whoever has seen the release does not go back either
    custody_at(&world, BACK, &format!("verify www --pin {}", world.pin())).ended(1);
    world.done(verify);
}

/// Once the clock is right again, everything goes on: what was refused is not remembered.
/// Row `sto-clock-jump`.
#[test]
fn a_clock_that_went_forward_stops_nothing_for_good() {
    let world = World::promoted();
    if !faked("a_clock_that_went_forward_stops_nothing_for_good") {
        return;
    }
    let task = world.shipping();
    let publish = world.publish_line(&task);
    custody_at(&world, FORWARD, &publish).refused("CHAIN_STALE");
    custody_at(&world, FORWARD, &format!("show {task} --store store")).ended(0);
    assert_eq!(world.files("www").len(), 0);
    assert_eq!(world.list("intent").len(), 0);
    world.publish(&task).done();
    world.done(&format!("verify www --pin {}", world.pin()));
}

/// The step's command itself sets the clock of the machine, as somebody else might meanwhile.
/// Row `sto-clock-jump`.
#[test]
fn a_clock_that_is_set_while_a_task_runs_dates_nothing_from_the_future() {
    let world = World::fresh();
    if !faked("a_clock_that_is_set_while_a_task_runs_dates_nothing_from_the_future") {
        return;
    }
    let library = String::from_utf8(
        Command::new("faketime")
            .args(["-f", "+0", "printenv", "LD_PRELOAD"])
            .output()
            .unwrap()
            .stdout,
    )
    .unwrap();
    let set = "mkdir dist; echo x > dist/x; cat {param.room}/offset > {param.room}/clock";
    let task = world.build_task(set, "");
    let run = |offset: &str| {
        world.write("room/offset", offset);
        world.write("room/clock", "+0\n");
        // the command runs as another user
        let anybody = std::os::unix::fs::PermissionsExt::from_mode(0o666);
        fs::set_permissions(world.path("room/clock"), anybody).unwrap();
        let mut command = world.command(&format!("--json {}", world.run_line(&task)));
        command.env("LD_PRELOAD", library.trim()).env("FAKETIME_NO_CACHE", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", world.path("room/clock"));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        world.say(command)
    };
    run(&format!("{FORWARD}\n")).refused("TIME_UNTRUSTED");
    assert_eq!(world.list("manifest").len(), 0);
    // backwards is no harm: a run does not end before it began
    run(&format!("{BACK}\n")).done();
    let manifest = world.content(&world.list("manifest")[0]);
    let manifest = manifest.as_manifest().unwrap();
    assert_eq!(manifest.started, manifest.finished);
}
