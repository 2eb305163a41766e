//! Verification while the system fails it: what is bad is never accepted, and what was seen is not lost.

use std::fs;

use crate::inject::{Outcome, Workload};
use crate::world::World;

fn seen(world: &World) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let files = world.files("state").into_iter();
    // who is killed may leave a file that nobody reads
    files.filter(|(path, _)| path.extension().is_some_and(|end| end == "json")).collect()
}

/// Row `sto-io-error`.
#[test]
fn nothing_bad_is_accepted_whatever_fails() {
    let world = World::published();
    fs::write(world.path("www/second.txt"), "Second\n").unwrap();
    let line = format!("verify www --pin {}", world.pin());
    let name = "nothing_bad_is_accepted_whatever_fails";
    let Some(work) = Workload::rejected(name, world, line, &["state"]) else { return };
    work.each(|fault, ended| {
        assert_ne!(ended.status, 0, "{fault}: accepted");
        work.again().ended(1);
        Outcome::Recovered
    });
}

#[test]
fn what_is_good_is_accepted_or_undecided_whatever_fails() {
    let world = World::published();
    let pin = world.pin();
    // the second time: there is a record of what was seen
    let line = format!("verify www --pin {pin}");
    world.done(&line);
    let name = "what_is_good_is_accepted_or_undecided_whatever_fails";
    let Some(work) = Workload::new(name, world, line, &["state"]) else { return };
    let before = seen(&work.world);
    work.each(|fault, ended| {
        assert_ne!(ended.status, 1, "{fault}: a failing system is no verdict");
        let after = seen(&work.world);
        assert_eq!(after.len(), before.len(), "the record is there");
        // and it is whole: it is read, and a damaged one is refused
        work.again().done();
        if ended.status == 0 { Outcome::Done } else { Outcome::Recovered }
    });
}
