//! Verification without files, memory or threads to spare: what is bad is never accepted, and what is
//! good is accepted or refused.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;

use crate::world::{CUSTODY, World, is_root};

/// A user of whom no process runs.
const STRANGER: &str = "64131";

/// A published release in `www`, and `bad` with one byte of it changed.
fn releases() -> World {
    let world = World::published();
    fs::create_dir(world.path("bad")).unwrap();
    for (name, bytes) in world.files("www") {
        fs::write(world.path("bad").join(name), bytes).unwrap();
    }
    world.write("bad/second.txt", "Second\n");
    // where whoever verifies remembers
    world.open_directory("seen");
    world
}

/// The status of a verification under a limit, as a shell has it.
fn verified(world: &World, before: &[&str], what: &str) -> (i32, String) {
    let mut command = Command::new("timeout");
    command.arg("100").args(before).args([CUSTODY, "--json"]).args(what.split_whitespace());
    command.current_dir(world.path(".")).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.env("HOME", world.path("home")).env("XDG_STATE_HOME", world.path("seen"));
    let output = command.output().unwrap();
    let status = output.status;
    let said = format!("{before:?} {what}: {output:?}");
    (status.code().or(status.signal().map(|signal| 128 + signal)).unwrap(), said)
}

/// Verifies what is good and what is bad under the limit; whether the good one was accepted.
fn never_wrong(world: &World, limit: &[&str], ends: &[i32]) -> bool {
    let pin = world.pin();
    let mut accepted = true;
    for place in [format!("--pin {pin}"), "--store store".to_owned()] {
        // a store is its owner's, and limits on threads are not the owner's who is root
        if place.starts_with("--store") && limit.contains(&"setpriv") {
            continue;
        }
        let (status, said) = verified(world, limit, &format!("verify www {place}"));
        assert!(status == 0 || status == 3 || ends.contains(&status), "{said}");
        // all of it was looked at, or none of it counts
        assert!(status != 0 || said.matches("\\\"ok\\\": true").count() >= 4, "{said}");
        accepted &= status == 0;
        let (status, said) = verified(world, limit, &format!("verify bad {place}"));
        assert!(status == 1 || status == 3 || ends.contains(&status), "{said}");
        let (status, said) = verified(world, limit, &format!("verify bad/second.txt {place}"));
        assert!(status == 1 || status == 3 || ends.contains(&status), "{said}");
    }
    accepted
}

/// Checks all limits, from the tightest on; whether each let the good release be accepted.
fn starve(world: &World, limits: &[Vec<String>], ends: &[i32]) -> Vec<bool> {
    limits
        .iter()
        .map(|limit| {
            never_wrong(world, &limit.iter().map(String::as_str).collect::<Vec<_>>(), ends)
        })
        .collect()
}

/// Row `res-descriptors`.
#[test]
fn without_file_descriptors() {
    let world = releases();
    let limits: Vec<_> =
        (3..=16).chain([64]).map(|n| vec!["prlimit".to_owned(), format!("--nofile={n}")]).collect();
    // 127: not even its libraries can be opened
    let accepted = starve(&world, &limits, &[127]);
    assert!(!accepted[0] && accepted[accepted.len() - 1], "{accepted:?}");
    // descriptors are given back: many files need no more than one
    for n in 0..100 {
        world.write(&format!("bad/unlisted-{n}"), "x\n");
    }
    let limit = ["prlimit", "--nofile=64"];
    let (status, said) = verified(&world, &limit, &format!("verify bad --pin {}", world.pin()));
    assert!(status == 1 && !said.contains("os error"), "{said}");
}

#[test]
fn without_memory() {
    let world = releases();
    let mebibytes = (2..=26).step_by(4).chain((34..=200).step_by(20)).chain([4096]);
    let limits: Vec<_> =
        mebibytes.map(|n: u64| vec!["prlimit".to_owned(), format!("--as={}", n << 20)]).collect();
    // 126 and 127: it cannot be loaded; 134 and 139: its allocator or its loader ends it
    let accepted = starve(&world, &limits, &[126, 127, 134, 137, 139]);
    assert!(!accepted[0] && accepted[accepted.len() - 1], "{accepted:?}");
}

#[test]
fn without_threads() {
    let world = releases();
    let user = ["setpriv", "--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"];
    let mut limits: Vec<Vec<String>> = Vec::new();
    for n in [1, 2, 3, 4, 4096] {
        let mut limit: Vec<_> =
            user.iter().filter(|_| is_root()).map(ToString::to_string).collect();
        limit.extend(["prlimit".to_owned(), format!("--nproc={n}")]);
        limits.push(limit);
    }
    let accepted = starve(&world, &limits, &[]);
    assert!(accepted[0], "what starts no thread works alone: {accepted:?}");
    assert!(accepted[accepted.len() - 1], "{accepted:?}");
}
