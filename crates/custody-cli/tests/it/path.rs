//! The whole way, as everybody goes it.

use std::fs;

use crate::world::World;

#[test]
fn from_the_policy_to_the_file_in_hand() {
    let world = World::fresh();
    // one phase after the other, with every verb that a person uses on the way
    let request = world.propose("promote", "");
    let shown = world.done(&format!("release show {request} --store store"));
    assert_eq!(shown.id(), request);
    assert!(!shown.text("shortCode").is_empty());
    let typed = world.typed(&format!("release show {request} --store store")).done().out;
    for part in [
        "hello 1.0",
        "phase promote",
        &request,
        "https://git.example.org/hello",
        &world.git("rev-parse HEAD"),
    ] {
        assert!(typed.contains(part), "{part}: {typed}");
    }
    let status = || world.done(&format!("release status {request} --store store")).json();
    assert_eq!(status()["ready"], false);
    world.refused(
        &format!("release authorize {request} --store store --key keys/desk"),
        "SIGNOFF_MISSING",
    );
    world.sign_off(&request, "bob");
    assert_eq!(status()["approvers"][0]["person"], "bob");
    world.refused(
        &format!("release authorize {request} --store store --key keys/desk"),
        "SIGNOFF_THRESHOLD_NOT_MET",
    );
    world.sign_off(&request, "carol");
    assert_eq!(status()["ready"], true);
    let authorization =
        world.done(&format!("release authorize {request} --store store --key keys/desk")).id();

    let tasks = world.plan(&authorization);
    assert_eq!(tasks.keys().collect::<Vec<_>>(), ["build", "pack"]);
    let ran = world.run_all(&authorization).done().json();
    assert_eq!(ran.as_array().unwrap().len(), 2);
    assert!(world.files("work").is_empty(), "what a run leaves is removed");

    let task = world.shipping();
    let published = world.publish(&task).done();
    assert_eq!(published.text("destination"), world.destination());
    let names: Vec<String> =
        world.files("www").keys().map(|name| name.display().to_string()).collect();
    let short = &task[..12];
    let beside = [format!("publish-{short}.custody.jsonl"), format!("publish-{short}.sha256")];
    assert_eq!(names, ["all.bin", "empty", "hello.txt", &beside[0], &beside[1], "second.txt"]);
    assert_eq!(world.read("www/all.bin"), "hello, world\nsecond\n");

    // another directory, another person: the file, the bundle, the pin, and nothing else
    let elsewhere = World::empty();
    fs::copy(world.path("www/all.bin"), elsewhere.path("all.bin")).unwrap();
    fs::copy(world.bundle(), elsewhere.path("some.custody.jsonl")).unwrap();
    let pin = world.pin();
    let verified = elsewhere.done(&format!("verify all.bin --pin {pin}")).json();
    assert_eq!(verified["ok"], true);
    assert_eq!(verified["release"], "hello 1.0 (release, production)");
    assert_eq!(verified["codes"].as_array().unwrap().len(), 0);
    let tree = elsewhere.typed(&format!("verify all.bin --pin {pin}")).done().out;
    for part in [
        "all.bin is of hello 1.0",
        "step publish by machine publisher",
        "step pack by machine packer",
        "step build by machine builder",
        "approved by ",
        "bob (releng)",
        "carol (releng)",
        "proposed by alice",
        "task created by tests/it",
        &format!("source https://git.example.org/hello @ {}", world.git("rev-parse HEAD")),
    ] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
}

/// The checksums are those of the files, for `sha256sum --check`.
#[test]
fn sums_beside_the_files_are_plain_ones() {
    let world = World::published();
    let mut names = world.files("www").into_keys();
    let sums = names.find(|name| name.extension().is_some_and(|end| end == "sha256")).unwrap();
    let check = std::process::Command::new("sha256sum")
        .arg("--check")
        .arg(&sums)
        .current_dir(world.path("www"))
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    assert_eq!(String::from_utf8(check.stdout).unwrap().lines().count(), 4);
}

/// One command for a newcomer: a release, and ten attacks refused.
#[test]
fn demo() {
    let world = World::empty();
    let demo = world.done("demo");
    assert_eq!(demo.json()["ok"], true);
    assert_eq!(demo.text("attacksRefused"), "10");
    assert!(world.files(".").is_empty(), "a demo in a temporary directory leaves nothing here");
    // a directory that is there is never used
    world.write("kept/file", "mine");
    world.custody("demo --dir kept").ended(3);
    assert_eq!(world.files("kept").len(), 1);
}
