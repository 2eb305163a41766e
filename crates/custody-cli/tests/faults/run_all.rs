//! A phase of two steps: each done once or not at all, and its files with it.

use std::collections::BTreeSet;
use std::fs;

use crate::inject::{Outcome, Workload};
use crate::world::World;

/// What the second step makes.
const MADE: &str = "hello, world\nsecond\n";

/// Rows `sto-kill-append`, `sto-io-error` and `sto-disk-full`.
#[test]
fn a_phase_is_taken_up_again_whatever_fails() {
    let world = World::fresh();
    let authorization = world.authorized("promote");
    let tasks = world.plan(&authorization);
    assert_eq!(tasks.len(), 2);
    world.write("all.bin", MADE);
    world.write("bad.bin", "hello, world\nSecond\n");
    let line = format!("{} --jobs 1", world.run_line(&format!("--all {authorization}")));
    let name = "a_phase_is_taken_up_again_whatever_fails";
    let Some(work) = Workload::new(name, world, line, &["store", "work"]) else { return };
    let before: BTreeSet<String> = work.world.list("task").into_iter().collect();
    let verify = |file: &str| {
        let world = &work.world;
        world.custody(&format!("verify {file} --store store --step pack --name dist/all.bin"))
    };
    work.each(|fault, ended| {
        let world = &work.world;
        let made = world.list("manifest");
        assert!(made.len() <= 2, "{made:?}");
        assert!(ended.status != 0 || made.len() == 2, "{fault}: done, and without manifests");
        // the phase is allowed, so whatever ended it is no verdict; a failing `git` is unavailable
        assert_ne!(ended.status, 1, "a failing system is no verdict");
        if made.len() < 2 {
            verify("all.bin").refused("CHAIN_STEP_MISSING");
        }
        let done = work.again().done().json();
        assert_eq!(done.as_array().unwrap().len(), 2);
        let manifests = world.list("manifest");
        assert_eq!(manifests.len(), 2, "every task has one result");
        assert!(made.iter().all(|id| manifests.contains(id)), "a result is lost");
        assert_eq!(world.list("task").into_iter().collect::<BTreeSet<_>>(), before);
        verify("all.bin").done();
        verify("bad.bin").refused("ART_DIGEST_MISMATCH");
        // the artifact is there, with the bytes that its name promises
        assert!(world.files("store/artifacts").values().any(|bytes| bytes == MADE.as_bytes()));
        for place in ["store/tmp", "work"] {
            let left: Vec<_> = fs::read_dir(world.path(place)).unwrap().collect();
            assert!(left.is_empty(), "left in {place}: {left:?}");
        }
        if ended.status == 0 { Outcome::Done } else { Outcome::Recovered }
    });
}
