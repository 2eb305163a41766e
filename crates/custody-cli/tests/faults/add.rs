//! Evidence that comes in: all of it or none, and what was there stays.

use std::collections::BTreeSet;
use std::fs;

use crate::inject::{Outcome, Workload};
use crate::world::World;

fn statements(world: &World) -> BTreeSet<String> {
    let rows = world.done("evidence list --store store").json();
    rows.as_array().unwrap().iter().map(|row| row["id"].as_str().unwrap().to_owned()).collect()
}

/// Rows `sto-kill-signoff`, `sto-io-error` and `sto-disk-full`.
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

/// Delivered twice, in any order, one message at a time: the same statements and the same verdict.
/// Row `sto-duplicate-delivery`.
#[test]
fn the_order_of_delivery_does_not_matter() {
    let world = World::published();
    let lines: Vec<String> =
        fs::read_to_string(world.bundle()).unwrap().lines().map(str::to_owned).collect();
    assert!(lines.len() > 10);
    fs::remove_dir_all(world.path("store")).unwrap();
    let at = "2090-01-01T00:00:00Z";
    let verify = format!("verify www/all.bin --store store --at {at}");
    let mut verdicts = BTreeSet::new();
    for order in 0..4 {
        world.done(&format!("init --store store --policy policy.dsse.json --pin {}", world.pin()));
        let mut delivered = lines.clone();
        match order {
            0 => {}
            1 => delivered.reverse(),
            2 => delivered.rotate_left(lines.len() / 2),
            _ => delivered.sort_by_key(|line| line.len() % 7),
        }
        for (number, line) in delivered.iter().chain(&delivered).enumerate() {
            let name = format!("message-{}", number % lines.len());
            world.write(&name, line);
            world.done(&format!("evidence add {name} --store store"));
        }
        assert_eq!(statements(&world).len(), lines.len(), "each once");
        let said = world.custody(&verify);
        assert!(matches!(said.status, Some(0 | 1)), "{said:#?}");
        verdicts.insert(said.out);
        fs::remove_dir_all(world.path("store")).unwrap();
    }
    assert_eq!(verdicts.len(), 1, "{verdicts:#?}");
}
