//! The demo whose build runs in a container, as root with Podman.

use std::fs;

use crate::world::{World, is_root, skipped};

fn able(test: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |name: &&str| std::env::split_paths(&path).any(|place| place.join(name).is_file());
    let missing = ["podman", "runc", "cc"].into_iter().find(|name| !is_there(name));
    match missing {
        _ if !is_root() => skipped(test, "containers need root"),
        Some(name) => skipped(test, &format!("no {name}")),
        None => return true,
    }
    false
}

/// `wrk-image-digest`, `wrk-client-id`: who asked, the image and the machine stand in the manifest, and
/// another image is refused by name. Nothing of the engine is left.
#[test]
fn the_demo_builds_in_a_container() {
    if !able("the_demo_builds_in_a_container") {
        return;
    }
    let world = World::empty();
    let told = world.typed("demo --container --dir demo").ended(0);
    let shown = format!("{}{}", told.out, told.err);
    assert!(shown.contains("11 attacks refused"), "{shown}");
    let policy = world.read("demo/policy.toml");
    let image = policy.split("images = [\"").nth(1).unwrap().split('"').next().unwrap();
    for (name, value) in [
        ("creator", "demo/releng"),
        ("image", "registry.example.org/hello-build for linux/"),
        ("container.image-id", image),
        ("container.engine", "podman "),
        ("isolation", "container"),
        ("network", "none"),
        ("filesystem", "private"),
        ("interactive", "no"),
        ("user", "65534"),
    ] {
        let start = format!("claimed   {name:<28} {value}");
        assert!(shown.lines().any(|line| line.starts_with(&start)), "{start}: {shown}");
    }
    assert!(shown.contains("WORKER_IMAGE_MISMATCH"), "{shown}");
    let place = world.path("demo").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&place)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn without_an_engine_the_demo_says_what_to_install() {
    if !is_root() {
        return skipped("without_an_engine_the_demo_says_what_to_install", "needs root");
    }
    let world = World::empty();
    let mut command = world.command("demo --container");
    command.env("PATH", world.path("."));
    let told = world.say(command).ended(3);
    assert!(told.err.contains("GATE_UNAVAILABLE"), "{told:#?}");
    assert!(told.err.contains("apt-get install podman runc"), "{told:#?}");
}
