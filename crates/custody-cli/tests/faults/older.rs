//! An older copy of the store does not know what was said and done since.

use std::fs;
use std::process::Command;

use crate::world::World;

/// The database as it is now, put aside.
fn keep(world: &World, name: &str) {
    fs::copy(world.path("store/custody.sqlite"), world.path(name)).unwrap();
}

fn put_back(world: &World, name: &str) {
    fs::copy(world.path(name), world.path("store/custody.sqlite")).unwrap();
    for more in ["wal", "shm"] {
        fs::remove_file(world.path(&format!("store/custody.sqlite-{more}"))).ok();
    }
}

/// A withdrawal that the copy lacks: before it the task may run.
/// Row `sto-partial-restore`.
#[test]
fn an_older_database_decides_nothing() {
    let world = World::fresh();
    let task = world.build_task("mkdir dist; echo x > dist/x; echo x >> {param.room}/ran", "");
    keep(&world, "older");
    let bobs = world.list("signoff").remove(0);
    let request = world.list("request").remove(0);
    world.done(&format!(
        "release sign-off {request} --store store --role releng --decision withdraw \
         --withdraws {bobs} --as bob --key keys/bob"
    ));
    keep(&world, "newest");
    world.refused(&world.run_line(&task), "SIGNOFF_WITHDRAWN");
    put_back(&world, "older");
    world.write("x", "x\n");
    for line in [
        world.run_line(&task),
        "verify x --store store".to_owned(),
        "evidence list --store store".to_owned(),
        format!("release status {request} --store store"),
        format!("init --store store --policy policy.dsse.json --pin {}", world.pin()),
    ] {
        world.custody(&line).refused("STORE_ROLLBACK");
    }
    // nor does anything else make it newer
    world.write("bob.json", "{}");
    world.custody("evidence add bob.json --store store").ended(1);
    world.custody("evidence list --store store").refused("STORE_ROLLBACK");
    assert!(!world.path("room/ran").exists());
    put_back(&world, "newest");
    world.refused(&world.run_line(&task), "SIGNOFF_WITHDRAWN");
}

/// The file beside the database erased, set back, or damaged.
/// Rows `sto-partial-restore` and `sto-missing-tile`.
#[test]
fn what_tells_of_an_older_copy_is_missed() {
    let world = World::fresh();
    let generation = world.read("store/generation");
    fs::remove_file(world.path("store/generation")).unwrap();
    world.custody("evidence list --store store").refused("STORE_ROLLBACK");
    let init = format!("init --store store --policy policy.dsse.json --pin {}", world.pin());
    world.custody(&init).refused("STORE_ROLLBACK");
    for damaged in ["", "12", "-1\n", "1\n2\n", "0x1\n", "99999999999999999999999\n"] {
        world.write("store/generation", damaged);
        world.custody("evidence list --store store").refused("STORE_CORRUPT");
    }
    world.write("store/generation", generation);
    world.done("evidence list --store store");
}

/// Whoever restores a copy because there is no newer one says so, and evidence from elsewhere fills it.
#[test]
fn an_older_database_is_taken_knowingly() {
    let world = World::fresh();
    keep(&world, "older");
    let before: u64 = world.read("store/generation").trim().parse().unwrap();
    let request = world.propose("promote", "");
    world.done(&format!("evidence get {request} --store store --out request.json"));
    put_back(&world, "older");
    let said = world.custody("evidence list --store store").refused("STORE_ROLLBACK");
    assert_eq!(said.text("found"), before.to_string());
    world.write("store/generation", format!("{before}\n"));
    assert_eq!(world.list("request").len(), 0);
    world.done("evidence add request.json --store store");
    assert_eq!(world.list("request"), [request]);
    assert_eq!(world.read("store/generation"), format!("{:020}\n", before + 1));
}

/// The whole directory set back: the store cannot know, but what is published stays as it is, and who
/// published it before is found out.
#[test]
fn an_older_directory_publishes_nothing_twice() {
    let world = World::promoted();
    let task = world.shipping();
    let copy = |from: &str, to: &str| {
        let status =
            Command::new("cp").arg("-a").args([from, to]).current_dir(world.path(".")).status();
        assert!(status.unwrap().success());
    };
    copy("store", "older");
    world.publish(&task).done();
    let published = world.files("www");
    fs::rename(world.path("store"), world.path("newest")).unwrap();
    copy("older", "store");
    // intents carry the second, and so does the manifest in the bundle
    std::thread::sleep(std::time::Duration::from_millis(1100));
    world.publish(&task).refused("GATE_DESTINATION_CONFLICT");
    assert_eq!(world.files("www"), published);
    world.done(&format!("verify www --pin {}", world.pin()));
    // both results together are a fork, whichever came first
    world.done(&format!("bundle import {} --store store", world.bundle().display()));
    world.custody("verify www/all.bin --store store").refused("CHAIN_FORKED");
}
