//! How a run ends, and what is left of it.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_run::container::Engine;
use custody_run::execute::End;

use super::{
    Place, World, able, add, asked_podman, engines, image, layer, podman_done, program, task,
};

#[test]
fn how_a_command_ends_is_told() {
    if !able("container end") {
        return;
    }
    for mut world in World::each("container end") {
        let (done, place) = world.run(&task("echo out; echo err >&2; exit 7")).unwrap();
        assert!(matches!(done.outcome.end, End::Exited(status) if status.code() == Some(7)));
        assert!(place.log.contains("out\n") && place.log.contains("err\n"), "{}", place.log);
        let digest = Sha256::of(place.log.as_bytes());
        assert_eq!(done.outcome.log.sha256, digest);
        // a lot, to the last byte
        let log = world.output(&task("yes 0123456 | head -c 3000000; echo end"));
        assert_eq!((log.len(), log.ends_with("end\n")), (3_000_004, true), "{}", world.engine);
    }
}

#[test]
fn time_and_people_end_a_run() {
    if !able("container time") {
        return;
    }
    for mut world in World::each("container time") {
        let begun = Instant::now();
        // the first process of a namespace does not have to heed a request to end
        let script = task("trap '' TERM INT; echo begun; sleep 6174 & sleep 6174");
        let second = Some(Duration::from_secs(1));
        let (done, place) = world.run_until(&script, second, &AtomicBool::new(false)).unwrap();
        assert_eq!(done.outcome.end, End::TimedOut);
        assert!(place.log.contains("begun"), "{}", place.log);
        let cancelled = AtomicBool::new(false);
        let done = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_secs(1));
                cancelled.store(true, Ordering::Relaxed);
            });
            world.run_until(&script, None, &cancelled).unwrap().0
        });
        assert_eq!(done.outcome.end, End::Cancelled);
        assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
        assert_eq!(left(&world), Vec::<String>::new());
    }
}

/// Processes that belong to containers of this world.
fn left(world: &World) -> Vec<String> {
    let place = world.files.path().to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let words = fs::read(entry.unwrap().path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ");
        // Docker itself is the test's, and not a container's
        let ours = words.starts_with("dockerd ") || words.starts_with("containerd ");
        if !ours && (words.contains(place) || words.contains("sleep 6174")) {
            found.push(words);
        }
    }
    found
}

/// `wrk-late-writer`: also in a container.
#[test]
fn what_a_command_leaves_running_ends_with_it() {
    if !able("container background") {
        return;
    }
    for mut world in World::each("container background") {
        let (done, place) = world
            .run(&task(
                "mkdir dist; echo 1 >dist/a
                 (trap '' HUP TERM; while :; do echo 2 >>dist/a; sleep 0.01; done) >/dev/null 2>&1 &
                 sleep 0.1",
            ))
            .unwrap();
        assert!(done.outcome.end.is_success(), "{}", place.log);
        let before = fs::read(place.directory.join("dist/a")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(fs::read(place.directory.join("dist/a")).unwrap(), before);
    }
}

#[test]
fn a_command_that_is_not_there_is_told() {
    if !able("container nothing") {
        return;
    }
    let mut nothing = task("");
    nothing.command = vec!["/bin/nothing".into()];
    for mut world in World::each("container nothing") {
        if let Engine::Runtime(_) = world.engine {
            let (done, Place { log, .. }) = world.run(&nothing).unwrap();
            assert!(!done.outcome.end.is_success() && log.contains("/bin/nothing"), "{log}");
        } else {
            let refusal = world.run(&nothing).unwrap_err();
            assert_eq!(refusal.code, Code::GateUnavailable);
            assert!(refusal.found.contains("/bin/nothing"), "{refusal:?}");
        }
    }
}

#[test]
fn whoever_watches_sees_whole_lines() {
    if !able("container lines") {
        return;
    }
    for mut world in World::each("container lines") {
        world.assert_lines();
    }
}

/// An engine that cannot start a container is no command that failed.
#[test]
fn a_fault_of_the_engine_is_not_the_commands() {
    if !able("container faults") {
        return;
    }
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "proc", 0o644, b"a file, where a file system belongs");
    let bad = image(&[tar.into_inner().unwrap()], None);
    for engine in engines("container faults") {
        let mut world = World::new(engine, &bad);
        let refusal = world.run(&task("exit 3")).unwrap_err();
        assert_eq!(refusal.code, Code::GateUnavailable, "{engine}: {refusal:?}");
        assert!(refusal.found.contains("proc"), "{engine}: {refusal:?}");
        let mut good = World::new(engine, &image(&[layer(|_| ())], None));
        let (done, _) = good.run(&task("exit 3")).unwrap();
        assert!(done.outcome.end.to_string().contains('3'), "{engine}: {}", done.outcome.end);
    }
    // and one that does not even begin says why
    let mut world = World::new("podman", &image(&[layer(|_| ())], None));
    let storage = world.files.path().join("images/storage");
    fs::create_dir_all(&storage).unwrap();
    fs::write(storage.join("libpod"), "").unwrap();
    let refusal = world.run(&task("true")).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
    assert!(refusal.found.contains("libpod"), "{refusal:?}");
}

/// A worker that was killed leaves a container, and the next run takes it away.
#[test]
fn left_overs_are_found_and_removed() {
    if !able("container left-overs") {
        return;
    }
    let [mut world, mut plain] = World::both();
    world.run(&task("true")).unwrap();
    let id = world.id.to_string();
    let gone = world.files.path().join("gone").display().to_string();
    let kept = world.files.path().display().to_string();
    for (name, place) in [("left", &gone), ("held", &kept)] {
        let label = format!("dev.custody.run={place}");
        let words = ["create", "--name", name, "--label", &label, &id, "true"];
        podman_done(&world, &words);
    }
    podman_done(&world, &["container", "exists", "left"]);
    world.run(&task("true")).unwrap();
    podman_done(&world, &["container", "exists", "held"]);
    assert!(!asked_podman(&world, &["container", "exists", "left"]).status.success(), "it is gone");
    // the runtime's: somebody else has a container whose bundle is gone
    let bundle = plain.files.path().join("bundle");
    fs::create_dir_all(bundle.join("rootfs")).unwrap();
    let config = Command::new("runc").args(["spec", "--bundle"]).arg(&bundle).output().unwrap();
    assert!(config.status.success());
    let text = fs::read_to_string(bundle.join("config.json")).unwrap();
    let text = text.replace("\"terminal\": true", "\"terminal\": false");
    fs::write(bundle.join("config.json"), text).unwrap();
    fs::create_dir_all(bundle.join("rootfs/bin")).unwrap();
    fs::copy(program("busybox").unwrap(), bundle.join("rootfs/bin/sh")).unwrap();
    fs::create_dir_all("/run/custody/containers").unwrap();
    let name = format!("custody-left-{}", std::process::id());
    let runc = |words: &[&str]| {
        let log = File::create(plain.files.path().join("runc.log")).unwrap();
        let mut command = Command::new("runc");
        command.args(["--root", "/run/custody/containers"]).args(words).arg(&name);
        command.stdout(log.try_clone().unwrap()).stderr(log).status().unwrap().success()
    };
    assert!(runc(&["create", "--bundle", bundle.to_str().unwrap()]));
    fs::remove_dir_all(&bundle).unwrap();
    assert!(Path::new("/run/custody/containers").join(&name).exists());
    plain.output(&task("true"));
    assert!(!Path::new("/run/custody/containers").join(&name).exists());
}

/// Nothing stays in Docker of a run, nor of one whose worker was killed.
#[test]
fn docker_keeps_nothing_of_a_run() {
    let test = "docker left-overs";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let mut world = World::new("docker", &image(&[layer(|_| ())], None));
    world.output(&task("true"));
    let (gone, kept) = (world.files.path().join("gone"), world.files.path().to_owned());
    for (name, place) in [("left", gone), ("held", kept)] {
        let body = format!(
            r#"{{"Image":"sha256:{}","Volumes":{{"/vol":{{}}}},"Labels":{{"dev.custody.run":"{}"}}}}"#,
            world.id,
            place.display()
        );
        let docker = world.docker.as_ref().unwrap();
        let (status, rest) = docker.ask("POST", &format!("/containers/create?name={name}"), &body);
        assert_eq!(status, "201", "{rest}");
    }
    let is_there = |world: &World, place: &str| {
        let docker = world.docker.as_ref().unwrap();
        docker.ask("GET", &format!("/containers/{place}/json"), "").0 == "200"
    };
    assert!(is_there(&world, "left"));
    let volumes = |world: &World| world.docker.as_ref().unwrap().ask("GET", "/volumes", "").1;
    let before = volumes(&world).matches("Mountpoint").count();
    world.output(&task("true"));
    assert!(!is_there(&world, "left") && is_there(&world, "held"));
    let after = volumes(&world).matches("Mountpoint").count();
    assert_eq!((before, after), (2, 1), "the volume of the one that is held");
}
