//! Two at once, and what people say while a gate is at work.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::world::{World, until};

/// An artifact of the store, replaced by a pipe: whoever reads it waits for the writer.
fn slow_artifact(world: &World, content: &[u8]) -> PathBuf {
    let artifacts = world.files("store/artifacts");
    let name = artifacts.into_iter().find(|(_, bytes)| bytes == content).unwrap().0;
    let path = world.path("store/artifacts").join(name);
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// The release is hashed for a long time, and meanwhile somebody withdraws.
/// Row `gate-slow-verify-window`.
#[test]
fn a_withdrawal_during_the_verification_counts() {
    for withdrawn in [true, false] {
        let world = World::promoted();
        let task = world.shipping();
        let path = slow_artifact(&world, b"second\n");
        let publisher = world.spawn(&format!("--json {}", world.publish_line(&task)));
        // opens once the publisher, whose first verdict is a yes by then, wants to read
        let mut pipe = fs::OpenOptions::new().write(true).open(&path).unwrap();
        if withdrawn {
            // the latest request, and bob's word on it
            let request = world.list("request").pop().unwrap();
            let bobs = world
                .list("signoff")
                .into_iter()
                .rev()
                .find(|id| world.content(id).as_signoff().unwrap().person.as_str() == "bob");
            let signoff = bobs.unwrap();
            world.done(&format!(
                "release sign-off {request} --store store --role releng --decision withdraw \
                 --withdraws {signoff} --as bob --key keys/bob"
            ));
        }
        std::io::Write::write_all(&mut pipe, b"second\n").unwrap();
        drop(pipe);
        // what comes after reads a file again
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"second\n").unwrap();
        let output = publisher.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let files = world.files("www").len();
        if withdrawn {
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains("SIGNOFF_WITHDRAWN"), "{said}");
            assert_eq!((files, world.list("intent").len()), (0, 0));
        } else {
            assert_eq!((output.status.code(), files), (Some(0), 6), "{said}");
        }
    }
}

/// Of several publishers one publishes; to the others it is being done, or done.
/// Row `gate-concurrent`.
#[test]
fn publishers_at_once_publish_once() {
    let world = World::promoted();
    let task = world.shipping();
    let line = format!("--json {}", world.publish_line(&task));
    let publishers: Vec<_> = (0..6).map(|_| world.spawn(&line)).collect();
    let mut published = 0;
    for publisher in publishers {
        let output = publisher.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        match output.status.code() {
            Some(0) => published += 1,
            Some(3) => assert!(said.contains("STORE_LOCKED"), "{said}"),
            Some(1) => assert!(said.contains("GATE_ALREADY_EXECUTED"), "{said}"),
            other => panic!("{other:?}: {said}"),
        }
    }
    assert!(published > 0);
    // announced once, done once
    assert_eq!(world.list("intent").len(), 2);
    assert_eq!(world.list("manifest").len(), 3);
    world.done(&format!("verify www --pin {}", world.pin()));
}

/// One that is at work keeps others away; once it is killed they find a doubt, and not an act to repeat.
/// Row `gate-crash-between`.
#[test]
fn the_task_of_a_killed_publisher_is_in_doubt() {
    let world = World::promoted();
    let task = world.shipping();
    let line = world.publish_line(&task);
    let path = slow_artifact(&world, b"second\n");
    let mut publisher = world.spawn(&line);
    // read once before the act is announced, and then while it is done
    fs::write(&path, b"second\n").unwrap();
    until("the act is announced", || !world.list("intent").is_empty());
    world.custody(&line).refused("GATE_ALREADY_EXECUTED");
    publisher.kill().unwrap();
    publisher.wait().unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"second\n").unwrap();
    let said = world.custody(&line).refused("GATE_ALREADY_EXECUTED");
    assert!(said.out.contains("doubt"), "{said:#?}");
    let resolve = format!("release resolve {task} --store store --resume");
    world.done(&format!("{resolve} --as carol --reason looked --key keys/carol"));
    world.custody(&line).done();
    assert_eq!(world.files("www").len(), 6);
}
