//! A publication: all of it once, nothing half-written, and known to be in doubt when it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::inject::{Outcome, Workload};
use crate::world::{CUSTODY, World, is_root, skipped};

/// What is to be published, and beside it the two files of Custody.
fn published(world: &World) -> (BTreeMap<PathBuf, Vec<u8>>, Vec<String>) {
    let (beside, files) = world
        .files("www")
        .into_iter()
        .partition::<BTreeMap<_, _>, _>(|(name, _)| name.to_string_lossy().starts_with("publish-"));
    (files, beside.into_keys().map(|name| name.display().to_string()).collect())
}

/// Rows `sto-kill-append`, `sto-io-error` and `sto-disk-full`.
#[test]
fn a_publication_is_whole_or_in_doubt_whatever_fails() {
    let expected: BTreeMap<PathBuf, Vec<u8>> = [
        ("all.bin", "hello, world\nsecond\n"),
        ("empty", ""),
        ("hello.txt", "hello, world\n"),
        ("second.txt", "second\n"),
    ]
    .map(|(name, text)| (name.into(), text.into()))
    .into();
    let world = World::promoted();
    let task = world.shipping();
    let line = world.publish_line(&task);
    let name = "a_publication_is_whole_or_in_doubt_whatever_fails";
    let Some(work) = Workload::new(name, world, line, &["store", "www", "state"]) else { return };
    let verify = || work.world.custody(&format!("verify www --pin {}", work.world.pin()));
    work.each(|fault, ended| {
        let world = &work.world;
        let (files, beside) = published(world);
        for (name, bytes) in &files {
            assert_eq!(
                expected.get(name),
                Some(bytes),
                "{} is not what it should be",
                name.display()
            );
        }
        let done = world.list("manifest").len() == 3;
        assert!(files.is_empty() || !world.list("intent").is_empty(), "unannounced");
        assert!(!done || files == expected, "recorded, and not there");
        assert!(ended.status != 0 || done && beside.len() == 2, "{fault}: acknowledged");
        assert_ne!(ended.status, 1, "a failing system is no verdict");
        if files != expected || !done {
            assert_ne!(verify().status, Some(0), "half a publication is accepted");
        }
        let again = work.again();
        let outcome = if again.status == Some(0) {
            if ended.status == 0 { Outcome::Done } else { Outcome::Recovered }
        } else {
            assert!(!done, "a publication that is recorded is in no doubt: {again:#?}");
            assert!(again.refused("GATE_ALREADY_EXECUTED").out.contains("doubt"));
            let resolve = format!("release resolve {task} --store store --resume");
            world.done(&format!("{resolve} --as carol --reason looked --key keys/carol"));
            work.again().done();
            Outcome::InDoubt
        };
        let (files, beside) = published(world);
        assert_eq!(files, expected);
        assert_eq!(beside.len(), 2, "{beside:?}");
        assert_eq!(world.list("manifest").len(), 3, "published once");
        verify().done();
        outcome
    });
}

/// Without `/proc` a file cannot be made without a name. What killed publishers left under passing names
/// is cleared away, and what somebody still writes is not.
#[test]
fn passing_names_pass_away() {
    let world = World::promoted();
    let task = world.shipping();
    let name = "passing_names_pass_away";
    let left = ["www/.custody-0123456789abcdef.part", "www/.custody-.part"];
    let kept = ["www/.custody-held.part", "www/.custody-other.jsonl", "www/x.part"];
    for file in left.iter().chain(&kept) {
        world.write(file, "half");
    }
    let held = fs::File::open(world.path(kept[0])).unwrap();
    held.lock_shared().unwrap();
    fs::create_dir(world.path("www/.custody-directory.part")).unwrap();
    if !is_root() {
        return skipped(name, "only root covers /proc");
    }
    let mount = "mount -t tmpfs none /proc || exit 77";
    let script = format!("{mount}; exec {CUSTODY} --json {}", world.publish_line(&task));
    let plain = world.command("");
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).current_dir(world.path(".")).env_clear();
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    if matches!(output.status.code(), Some(1 | 77)) && output.stdout.is_empty() {
        return skipped(name, &format!("nobody may mount here: {output:?}"));
    }
    assert!(output.status.success(), "{output:?}");
    let there = |file: &str| world.path(file).exists();
    assert!(left.iter().all(|file| !there(file)), "{:?}", world.files("www").keys());
    assert!(kept.iter().all(|file| there(file)), "{:?}", world.files("www").keys());
    assert_eq!(world.files("www").len(), 6 + kept.len(), "nothing new under a passing name");
    assert_eq!(world.read("www/all.bin"), "hello, world\nsecond\n");
}
