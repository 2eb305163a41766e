//! Evidence that comes in: all of it or none, and what was there stays.

use std::collections::BTreeSet;
use std::fs;

use crate::inject::{Outcome, Workload};
use crate::world::World;

fn statements(world: &World) -> BTreeSet<String> {
    let rows = world.done("evidence list --store store").json();
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn evidence_comes_in_whole_whatever_fails() {
    let world = World::promoted();
    world.done(&format!(
        "bundle export --store store --out all.jsonl {}",
        world.list("manifest").join(" ")
    ));
    let whole = statements(&world);
    // something that is acknowledged before
    let request = world.list("request").remove(0);
    world.done(&format!("evidence get {request} --store store --out request.json"));
    fs::remove_dir_all(world.path("store")).unwrap();
    world.done(&format!("init --store store --policy policy.dsse.json --pin {}", world.pin()));
    world.done("evidence add request.json --store store");
    let before = statements(&world);
    assert!(before.len() == 2 && before.is_subset(&whole));

    let line = "bundle import all.jsonl --store store".to_owned();
    let name = "evidence_comes_in_whole_whatever_fails";
    let Some(work) = Workload::new(name, world, line, &["store"]) else { return };
    work.each(|fault, ended| {
        let found = statements(&work.world);
        assert!(found == before || found == whole, "neither nothing nor all came in");
        assert!(ended.status != 0 || found == whole, "{fault}: acknowledged, and not there");
        assert_ne!(ended.status, 1, "a failing system is no verdict");
        let again = work.again().done().json();
        assert_eq!(statements(&work.world), whole, "{again}");
        assert_eq!(fs::read_dir(work.world.path("store/tmp")).unwrap().count(), 0);
        if ended.status == 0 { Outcome::Done } else { Outcome::Recovered }
    });
}
