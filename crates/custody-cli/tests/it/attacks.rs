//! Rows of the attack catalogue (docs/attacks.md) that need the command and have no other home.

use std::fs;
use std::process::Stdio;

use crate::world::{Said, World};

/// `pol-bypass-switch`: there is no switch, variable or file that makes a gate let something through.
#[test]
fn no_switch_passes_a_gate() {
    let world = World::promoted();
    let ship = world.shipping();
    let build = world.plan(&world.authorized("promote"))["build"].clone();
    let before = world.snapshot();
    let lines = [world.run_line(&build), world.publish_line(&ship), "verify policy.toml".into()];
    for switch in [
        "--insecure",
        "--force",
        "--no-verify",
        "--skip-verification",
        "--allow-unsigned",
        "--trust",
        "--yes",
        "--dry-run",
        "--emergency",
        "--policy",
    ] {
        for line in &lines {
            world.custody(&format!("{line} {switch}")).ended(2);
        }
    }
    assert_eq!(before, world.snapshot());
    // a step that may not start does not, whatever the environment and the directory say
    let request = world.list("request").pop().unwrap();
    world.done(&format!(
        "release sign-off {request} --decision refuse --as alice --role releng --key keys/alice --store store"
    ));
    for name in ["EMERGENCY", "emergency", ".custody-emergency", "custody.toml"] {
        world.write(name, "true\n");
    }
    let mut command = world.command(&format!("--json {}", world.run_line(&build)));
    for name in ["CUSTODY_INSECURE", "CUSTODY_FORCE", "CUSTODY_SKIP_VERIFY", "EMERGENCY"] {
        command.env(name, "1");
    }
    world.say(command).refused("SIGNOFF_REFUSED");
    world.publish(&ship).done();
}

/// `gate-other-object`: a gate takes a task and no words; the command gets what was verified.
#[test]
fn a_gate_takes_no_command_from_its_caller() {
    let world = World::fresh();
    let task =
        world.build_task("cp source/hello.txt . && mkdir dist && ls inputs > dist/inputs", "");
    world.write("evil.txt", "evil\n");
    let before = world.snapshot();
    for more in ["-- sh -c id", "sh", "--command id", "--input evil.txt", "evil.txt"] {
        world.custody(&format!("{} {more}", world.run_line(&task))).ended(2);
    }
    assert_eq!(before, world.snapshot());
    let manifest = world.run(&task).done().text("manifest");
    let content = world.content(&manifest).as_manifest().unwrap().clone();
    assert_eq!(content.command, world.content(&task).as_task().unwrap().command);
    assert_eq!(content.artifacts[0].size, 0, "the step takes no inputs and finds none");
}

/// `wrk-tenant-writes-claims`, `wrk-secrets-in-manifest`: what a command leaves or is told never gets
/// into the worker's own words.
#[test]
fn a_command_says_nothing_in_the_manifest() {
    let world = World::fresh();
    let claims = r#"{"environment":{"imageArtifactHash":"sha256:evil"},"artifacts":{"dist/evil":{}},"taskId":"evil"}"#;
    let names = [
        "chain-of-trust-additional-data.json",
        "manifest.json",
        "provenance.json",
        "task.json",
        "custody.json",
        "home/manifest.json",
        "tmp/environment.json",
        "source/manifest.json",
    ];
    let write = |name: &str| format!("echo '{claims}' > {name}");
    let all: Vec<String> = names.iter().map(|name| write(name)).collect();
    let command = format!("mkdir dist; echo x > dist/x; {}; hostname evil; true", all.join("; "))
        .replace('\'', "\"");
    let script = format!("{command}\n");
    world.write("source/claims.sh", script);
    let task =
        world.build_task("sh source/claims.sh; exit 0", "variables = { TOKEN = \"hunter2\" }");
    let mut command = world.command(&format!("--json {}", world.run_line(&task)));
    command.env("AWS_SECRET_ACCESS_KEY", "hunter2").env("GITHUB_TOKEN", "hunter2");
    let manifest = world.say(command).done().text("manifest");
    let content = world.content(&manifest).as_manifest().unwrap().clone();
    let artifacts: Vec<&str> =
        content.artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    assert_eq!(artifacts, ["dist/x"]);
    assert_eq!(content.task.to_string(), task);
    let measured = [
        "architecture",
        "capabilities",
        "filesystem",
        "hostname",
        "interactive",
        "isolation",
        "kernel",
        "landlock",
        "limits",
        "machine",
        "network",
        "os",
        "privileges",
        "processes",
        "user",
        "worker",
    ];
    for (name, value) in &content.environment {
        assert!(measured.contains(&name.as_str()), "{name}");
        assert!(!value.contains("evil"), "{name}: {value}");
    }
    let envelope = world.done(&format!("evidence get {manifest} --store store")).out;
    let payload = custody_core::envelope::Envelope::parse(envelope.as_bytes()).unwrap();
    let payload = String::from_utf8(payload.unverified_payload().to_vec()).unwrap();
    assert!(!payload.contains("hunter2") && !payload.contains("evil"), "{payload}");
}

/// `hum-race-last-two`: requests at the same moment are people all the same, each once, and one phase is
/// planned once.
#[test]
fn at_the_same_moment_each_person_counts_once() {
    let world = World::fresh();
    let request = world.propose("promote", "");
    let at_once = |lines: &[String]| -> Vec<Option<i32>> {
        let mut children: Vec<_> =
            lines.iter().map(|line| world.spawn(&format!("--json {line}"))).collect();
        children.iter_mut().map(|child| child.wait().unwrap().code()).collect()
    };
    let says = |person: &str, key: &str| {
        format!(
            "release sign-off {request} --store store --as {person} --role releng --key keys/{key}"
        )
    };
    let ends = at_once(&[says("bob", "bob"), says("bob", "bob-home"), says("bob", "bob")]);
    assert!(ends.iter().all(|end| matches!(end, Some(0 | 1 | 3))), "{ends:?}");
    let authorize = format!("release authorize {request} --store store --key keys/desk");
    world.refused(&authorize, "SIGNOFF_THRESHOLD_NOT_MET");
    let ends = at_once(&[says("carol", "carol"), says("bob", "bob-home"), says("carol", "carol")]);
    assert!(ends.contains(&Some(0)), "{ends:?}");
    let authorization = world.done(&authorize).id();
    let content = world.content(&authorization).as_authorization().unwrap().clone();
    let people: Vec<&str> =
        content.approvers.iter().map(|approver| approver.person.as_str()).collect();
    assert_eq!(people.len(), 2, "{people:?}");
    assert!(people.contains(&"bob") && people.contains(&"carol"), "{people:?}");
    let plan = format!(
        "plan {authorization} --store store --repository source --creator tests/it --key keys/scheduler"
    );
    let ends = at_once(&[plan.clone(), plan.clone(), plan]);
    assert_eq!(ends.iter().filter(|end| **end == Some(0)).count(), 1, "{ends:?}");
    let mut steps: Vec<String> = world
        .list("task")
        .iter()
        .map(|task| world.content(task).as_task().unwrap().step.to_string())
        .collect();
    let planned = steps.len();
    steps.sort_unstable();
    steps.dedup();
    assert_eq!(steps.len(), planned, "{steps:?}");
}

/// Runs the command after a shell has taken something away from it.
fn starved(world: &World, limit: &str, line: &str) -> Said {
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh", crate::world::CUSTODY, "--json"])
        .args(line.split_whitespace())
        .current_dir(world.path("."))
        .stdin(Stdio::null())
        .env("HOME", world.path("home"))
        .env("XDG_STATE_HOME", world.path("state"));
    world.say(command)
}

/// `res-descriptors`: with few descriptors the verdicts are the same.
#[test]
fn few_descriptors_are_enough() {
    let world = World::published();
    fs::create_dir(world.path("many")).unwrap();
    for (name, bytes) in world.files("www") {
        fs::write(world.path("many").join(&name), bytes).unwrap();
    }
    let line = format!("verify many --pin {}", world.pin());
    assert_eq!(
        starved(&world, "ulimit -n 24", &line).ended(0).out.matches("\"ok\": true").count(),
        4
    );
    for n in 0..300 {
        world.write(&format!("many/extra-{n}.dll"), "MZ");
    }
    let plenty = world.custody(&line).ended(1);
    let few = starved(&world, "ulimit -n 24", &line).ended(1);
    let verdicts = |said: &Said| {
        (said.out.matches("\"ok\": true").count(), said.out.matches("\"ok\": false").count())
    };
    assert_eq!(verdicts(&plenty), (4, 300));
    assert_eq!(verdicts(&few), verdicts(&plenty));
}

/// `res-huge-artifact`: a file is hashed while it is read, with the memory of a small one.
#[test]
fn a_large_file_takes_no_more_memory_than_a_small_one() {
    let world = World::published();
    let line = |file: &str| {
        format!("verify {file} --bundle {} --pin {}", world.bundle().display(), world.pin())
    };
    let file = fs::File::create(world.path("all.bin")).unwrap();
    file.set_len(1 << 30).unwrap();
    // kilobytes of address space: half of the file
    let limit = "ulimit -v 524288";
    starved(&world, limit, &line("all.bin")).refused("ART_DIGEST_MISMATCH");
    starved(&world, limit, &line("www/all.bin")).done();
}
