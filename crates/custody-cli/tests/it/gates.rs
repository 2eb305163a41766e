//! Nothing starts that its gate does not let through, and what starts reaches nothing else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::Duration;

use custody_core::statement::{Approver, Authorization, Task};

use crate::world::{BUILD, PUBLISH, World, is_root, skipped};

/// Traces that steps left outside.
fn traces(world: &World, name: &str) -> usize {
    fs::read_to_string(world.path("room").join(name))
        .map(|text| text.lines().count())
        .unwrap_or_default()
}

const LEAVES_A_TRACE: &str = "echo x >> {param.room}/ran; mkdir dist; echo x > dist/x";

/// `gate-run-twice`.
#[test]
fn a_task_runs_once() {
    let world = World::fresh();
    let task = world.build_task(LEAVES_A_TRACE, "");
    world.run(&task).done();
    assert_eq!(traces(&world, "ran"), 1);
    world.refused(&world.run_line(&task), "GATE_ALREADY_EXECUTED");
    assert_eq!(traces(&world, "ran"), 1);
    // nor where only the evidence of the run arrived, and not the record of it
    let evidence = world.done(&format!(
        "bundle export --store store --out all.jsonl {}",
        world.list("manifest").join(" ")
    ));
    assert_eq!(evidence.json()["ok"], true);
    world.done(&format!("init --store other --policy policy.dsse.json --pin {}", world.pin()));
    world.done("bundle import all.jsonl --store other");
    world
        .custody(&world.run_line(&task).replace("--store store", "--store other"))
        .refused("GATE_ALREADY_EXECUTED");
    assert_eq!(traces(&world, "ran"), 1);
}

/// `wrk-ami-not-allowed`: a machine whose work nobody would take does not begin it, and says the same
/// as everybody would afterwards. Landlock's version is known by trying only.
#[test]
fn a_machine_that_the_policy_does_not_want_begins_nothing() {
    for (fact, standing, code) in [
        ("filesystem", "claimed", "WORKER_ISOLATION_MISSING"),
        ("ec2.image-id", "verified", "WORKER_IDENTITY_UNVERIFIED"),
    ] {
        let world = World::with_keys();
        let demand = format!(
            "[products.hello.steps.build]\nmachine = [{{ fact = \"{fact}\", is = [\"private\"], standing = \"{standing}\" }}, {{ fact = \"landlock\", is = [\"1\", \"2\", \"3\", \"4\", \"5\", \"6\", \"7\", \"8\", \"none\"], standing = \"claimed\" }}]\n"
        );
        let ec2 = format!(
            "[platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\"], certificate = \"\"\"{}\"\"\" }}]\n[roles.releng]",
            crate::enrol::amazon().certificate_pem()
        );
        let text = world.policy_text().replace("[roles.releng]", &ec2);
        world.found(&text.replace("[products.hello.steps.build]\n", &demand));
        let task = world.build_task(LEAVES_A_TRACE, "");
        let said = world.refused(&world.run_line(&task), code).json();
        assert!(said["at"].as_str().unwrap().ends_with(fact), "{said}");
        assert_eq!(traces(&world, "ran"), 0);
        assert!(world.files("work").is_empty());
        if fact == "filesystem" {
            // a policy that asks for less lets gates open; who holds a file asks the one of the request
            let next = format!("version = 2\nprevious = \"{}\"", world.pin());
            let next = world.policy_text().replacen("version = 1", &next, 1);
            world.sign_policy("next", &next, &["alice", "bob"]);
            world.done("policy rotate next.dsse.json --store store");
            world.refused(&world.run_line(&task), code);
            assert_eq!(traces(&world, "ran"), 0);
            let line = world.run_line(&task).replace("--share room", "");
            world.done(&line);
        }
    }
}

/// What would be found while planning is found before anybody signs.
#[test]
fn a_pipeline_that_cannot_be_planned_is_not_proposed() {
    let world = World::fresh();
    let ship = PUBLISH.replace("earlier = \"pack\"", "earlier = \"check\"");
    let parameter = BUILD.replace("source/hello.txt", "{param.word}");
    let digits = BUILD.replace("source = true", "source = true\nimage = \"debian:12\"");
    let unknown = BUILD.replace("steps.build", "steps.compile");
    for (steps, code, at) in [
        ("[steps.build".to_owned(), "PARSE_FIELD_TYPE", "pipeline.toml:2:13"),
        (digits, "PARSE_FIELD_TYPE", "pipeline.toml:7:9"),
        (ship, "PARSE_FIELD_MISSING", "pipeline.toml"),
        (parameter, "PARSE_FIELD_MISSING", "pipeline.toml:5:24"),
        (unknown, "POLICY_STEP_UNKNOWN", "compile"),
    ] {
        world.pipeline(&[&steps]);
        let line = "release propose --store store --product hello --version 1.0 --channel release \
                    --phase promote --repository source --key keys/alice";
        let said = world.refused(line, code).json();
        assert!(said["at"].as_str().unwrap().contains(at), "{said}");
    }
    world.pipeline(&[BUILD]);
    world.propose("promote", "");
    // and what an earlier phase should have made, and has not
    world.pipeline(&[BUILD, PUBLISH]);
    let propose = format!(
        "release propose --store store --product hello --version 1.0 --channel release --phase ship \
         --repository source --key keys/alice --param destination={}",
        world.destination()
    );
    world.refused(&propose, "CHAIN_STEP_MISSING");
}

/// Nobody approves what was not shown to them; to stop a release, the request is enough.
#[test]
fn a_release_is_stopped_without_what_it_builds_on() {
    let world = World::promoted();
    let honest = world.propose("ship", "");
    let approval = world.sign_off(&honest, "bob");
    let mut lie = world.content(&honest).as_request().unwrap().clone();
    lie.builds_on[0].artifacts += 1;
    let lie = world.add(&world.forged(lie, "alice"));
    world.done(&format!("init --store other --policy policy.dsse.json --pin {}", world.pin()));
    for id in [&honest, &approval] {
        world.write("one.json", world.done(&format!("evidence get {id} --store store")).out);
        world.done("evidence add one.json --store other");
    }
    let says = |request: &str, store: &str, person: &str, more: &str| {
        let key = world.key(person);
        format!(
            "release sign-off {request} --store {store} --as {person} --role releng --key {key} {more}"
        )
    };
    for (request, store, code) in
        [(&honest, "other", "CHAIN_LINK_MISSING"), (&lie, "store", "SIGNOFF_CONTENT_MISMATCH")]
    {
        world.refused(&says(request, store, "carol", ""), code);
        let show = format!("release show {request} --store {store}");
        world.refused(&format!("{show} --as carol --role releng --out word"), code);
        let shown = world.custody(&show).done();
        assert!(shown.out.contains("not shown") || shown.json()["id"] == **request);
        world.done(&says(request, store, "carol", "--decision refuse"));
    }
    world.done(&format!("release status {honest} --store other"));
    let back = format!("--decision withdraw --withdraws {approval}");
    world.done(&says(&honest, "other", "bob", &back));
    world.done(&says(&honest, "store", "carol", ""));
}

/// `gate-concurrent`.
#[test]
fn two_workers_at_once_run_it_once() {
    let world = World::fresh();
    let task = world.build_task(&format!("sleep 0.4; {LEAVES_A_TRACE}"), "");
    let mut both: Vec<_> =
        (0..2).map(|_| world.spawn(&format!("--json {}", world.run_line(&task)))).collect();
    let ended: Vec<_> =
        both.iter_mut().map(|child| child.wait().unwrap().code().unwrap()).collect();
    assert_eq!(ended.iter().filter(|status| **status == 0).count(), 1, "{ended:?}");
    assert_eq!(traces(&world, "ran"), 1);
    assert_eq!(world.list("manifest").len(), 1);
}

/// `hum-below-threshold`, `gate-exit-status`.
#[test]
fn without_signoffs_nothing_runs() {
    let world = World::fresh();
    let task = world.build_task(LEAVES_A_TRACE, "");
    let content = world.content(&task).as_task().unwrap().clone();
    let authorization =
        world.content(&content.authorization.to_string()).as_authorization().unwrap().clone();
    // a desk that authorizes what nobody approved: of two approvals, one is missing, made up, or not enough
    let bob = authorization.approvers[0].clone();
    let made_up = Approver { person: "alice".parse().unwrap(), ..bob.clone() };
    for (approvers, code) in [
        (vec![bob.clone()], "SIGNOFF_THRESHOLD_NOT_MET"),
        (vec![bob.clone(), made_up], "SIGNOFF_CONTENT_MISMATCH"),
        (
            vec![
                bob.clone(),
                Approver {
                    signoff: "0".repeat(64).parse().unwrap(),
                    ..authorization.approvers[1].clone()
                },
            ],
            "SIGNOFF_MISSING",
        ),
    ] {
        let forged = world.forged(Authorization { approvers, ..authorization.clone() }, "desk");
        world.add(&forged);
        let forged = world.add(
            &world.forged(Task { authorization: forged.id(), ..content.clone() }, "scheduler"),
        );
        world.refused(&world.run_line(&forged), code);
    }
    // a desk's key in place of the scheduler's, and the other way round
    let forged =
        world.add(&world.forged(Task { nonce: "0".repeat(32), ..content.clone() }, "desk"));
    world.refused(&world.run_line(&forged), "POLICY_KEY_PURPOSE");
    // what is not there
    world.refused(&world.run_line(&"0".repeat(64)), "CHAIN_LINK_MISSING");
    world.refused(&world.run_line(&content.authorization.to_string()), "STMT_PREDICATE_TYPE");
    assert_eq!(traces(&world, "ran"), 0);
    world.run(&task).done();
    assert_eq!(traces(&world, "ran"), 1);
}

/// `hum-withdrawn`, `hum-decision-reject`.
#[test]
fn a_person_can_stop_what_is_authorized() {
    for (says, code) in [
        ("--decision refuse --as alice --key keys/alice", "SIGNOFF_REFUSED"),
        ("", "SIGNOFF_WITHDRAWN"),
    ] {
        let world = World::fresh();
        let task = world.build_task(LEAVES_A_TRACE, "");
        let request = world.list("request").remove(0);
        let says = if says.is_empty() {
            let bobs = world.list("signoff").remove(0);
            format!("--decision withdraw --withdraws {bobs} --as bob --key keys/bob")
        } else {
            says.to_owned()
        };
        world.done(&format!("release sign-off {request} --store store --role releng {says}"));
        world.refused(&world.run_line(&task), code);
        assert_eq!(traces(&world, "ran"), 0);
    }
}

/// `chain-stale-task`.
#[test]
fn a_task_has_a_deadline() {
    let world = World::fresh();
    let task = world.build_task(LEAVES_A_TRACE, "deadline = \"1s\"");
    thread::sleep(Duration::from_millis(2_100));
    world.refused(&world.run_line(&task), "CHAIN_STALE");
    assert_eq!(traces(&world, "ran"), 0);
}

/// `gate-wrong-step`.
#[test]
fn run_runs_and_publish_publishes() {
    let world = World::promoted();
    let ship = world.shipping();
    let done = world.list("task").remove(0);
    let keys = world.machines(&["builder", "packer", "publisher"]);
    world.refused(&format!("run {ship} --repository source {keys}"), "GATE_STEP_MISMATCH");
    world.refused(&format!("publish {done} {keys}"), "GATE_STEP_MISMATCH");
    let fresh = world.plan(&world.authorized("promote"))["build"].clone();
    world.refused(&format!("publish {fresh} {keys}"), "GATE_STEP_MISMATCH");
    assert_eq!(world.files("www").len(), 0);
    world.run(&fresh).done();
    world.publish(&ship).done();
}

/// `wrk-pool-mismatch`, `wrk-key-readable`.
#[test]
fn only_the_machine_that_the_policy_names() {
    let world = World::promoted();
    let ship = world.shipping();
    let build = world.plan(&world.authorized("promote"))["build"].clone();
    for (line, keys) in [("publish", ["builder", "desk"]), ("run", ["publisher", "packer"])] {
        let task = if line == "run" { &build } else { &ship };
        world.refused(&format!("{line} {task} {}", world.machines(&keys)), "WORKER_POOL_FORBIDDEN");
        world.refused(
            &format!("{line} {task} {}", world.machines(&["alice"])),
            "WORKER_POOL_FORBIDDEN",
        );
        world
            .refused(&format!("{line} {task} {}", world.machines(&["mallory"])), "ENV_KEY_UNKNOWN");
    }
    for (line, task, key) in
        [("run --repository source", &build, "builder"), ("publish", &ship, "publisher")]
    {
        let path = world.path(&format!("keys/{key}"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        world.refused(&format!("{line} {task} {}", world.machines(&[key])), "WORKER_KEY_EXPOSED");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        world.done(&format!("{line} {task} {}", world.machines(&[key])));
    }
}

/// A gate judges by its clock; whoever could choose the time could choose the policy.
#[test]
fn a_gate_takes_no_time_from_anybody() {
    let world = World::promoted();
    let ship = world.shipping();
    let build = world.plan(&world.authorized("promote"))["build"].clone();
    let before = world.snapshot();
    for line in [
        world.run_line(&build),
        world.run_line(&format!("--all {}", "0".repeat(64))),
        world.publish_line(&ship),
    ] {
        let said = world.custody(&format!("{line} --at 2026-01-01T00:00:00Z")).ended(2);
        assert!(said.out.contains("clock") || said.err.contains("clock"), "{said:#?}");
    }
    assert_eq!(before, world.snapshot());
    world.run(&build).done();
    world.publish(&ship).done();
}

#[test]
fn a_command_that_fails_leaves_no_manifest_and_can_be_run_again() {
    let world = World::fresh();
    let task = world.build_task(
        &format!(
            "echo something went wrong; test -e {{param.room}}/good || exit 7; {LEAVES_A_TRACE}"
        ),
        "",
    );
    let before = world.snapshot();
    let said = world.run(&task).ended(1);
    assert_eq!(said.json()["ok"], false);
    assert!(said.text("message").contains("build"), "{said:#?}");
    assert!(said.text("message").contains('7'), "{said:#?}");
    assert_eq!(fs::read_to_string(said.text("log")).unwrap(), "something went wrong\n");
    assert_eq!(before, world.snapshot());
    let typed = world.typed(&world.run_line(&task)).ended(1);
    assert!(typed.err.contains("leaves no manifest"), "{typed:#?}");
    world.write("room/good", "");
    world.run(&task).done();
    assert_eq!(world.list("manifest").len(), 1);
}

/// `art-symlink-recorded`, `art-hardlink`, `art-special-file`, `art-extra-unlisted`.
#[test]
fn outputs_are_what_the_task_declares() {
    let world = World::fresh();
    let cases = [
        ("echo x > dist/y", "ART_UNLISTED"),
        ("rm dist/x", "ART_MISSING"),
        ("ln -sf /etc/hostname dist/x", "ART_NOT_REGULAR"),
        ("rm dist/x; mkfifo dist/x", "ART_NOT_REGULAR"),
        ("ln dist/x tmp/x", "ART_NOT_REGULAR"),
        ("mv dist real; ln -s real dist", "ART_NOT_REGULAR"),
        ("rm dist/x; mkdir dist/x", "ART_NOT_REGULAR"),
    ];
    let tasks = cases.map(|(command, code)| {
        let steps = format!(
            "\n[steps.build]\nphase = \"promote\"\ncommand = [\"sh\", \"-c\", '''mkdir dist && echo x > dist/x && {command}''']\nsource = true\noutputs = [\"dist/x\"]\n"
        );
        world.pipeline(&[&steps]);
        (world.plan(&world.authorized("promote"))["build"].clone(), command, code)
    });
    let before = world.snapshot();
    for (task, command, code) in &tasks {
        let said = world.run(task).refused(code);
        assert!(world.files("work").is_empty(), "{command}: {said:#?}");
    }
    assert_eq!(before, world.snapshot());
    let control = world.build_task("mkdir dist && echo x > dist/x && echo y > unrelated", "");
    world.run(&control).done();
}

/// What the caller of a gate has in its environment and directory decides nothing and is not seen.
/// Rows `gate-env-injection`, `pol-config-from-cwd`.
#[test]
#[expect(clippy::too_many_lines, reason = "most of it is a list of what a caller can try")]
fn the_caller_has_no_say() {
    let world = World::fresh();
    let task = world.build_task("mkdir dist; env > dist/env; cat /proc/net/dev > dist/net; cat source/hello.txt > dist/hello; sleep 0.1", "");
    // programs of the caller's that leave a trace and do nothing
    for name in ["git", "sh", "env", "setpriv", "setsid", "unshare", "ssh-keygen", "cat"] {
        world.write(
            &format!("evil/{name}"),
            format!("#!/bin/sh\necho {name} >> {}\n", world.path("room/evil").display()),
        );
        fs::set_permissions(world.path(&format!("evil/{name}")), fs::Permissions::from_mode(0o755))
            .unwrap();
    }
    // files that a program might look for where it is started
    for name in [
        "custody.toml",
        ".custody.toml",
        "policy.toml",
        ".config/custody/config.toml",
        ".gitconfig",
        ".env",
    ] {
        world.write(&format!("elsewhere/{name}"), "version = 9\n[core]\nhooksPath = /tmp\n");
    }
    let (source, store, work) = (world.path("source"), world.path("store"), world.path("work"));
    let line =
        world.run_line(&task).replace("keys/", &format!("{}/", world.path("keys").display()));
    let line = line.replace("--store store", &format!("--store {}", store.display()));
    let line = line.replace("--work work", &format!("--work {}", work.display()));
    let line = line.replace("--repository source", &format!("--repository {}", source.display()));
    let line = line.replace("--share room", &format!("--share {}", world.path("room").display()));
    let mut command = world.command(&format!("--json {line}"));
    let path = format!("{}:/usr/bin:/bin", world.path("evil").display());
    command
        .current_dir(world.path("elsewhere"))
        .env("PATH", path)
        .env("HOME", world.path("elsewhere"));
    for (name, value) in [
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("CUSTODY_STORE", "/nowhere"),
        ("CUSTODY_PIN", "0000"),
        ("CUSTODY_AT", "2020-01-01T00:00:00Z"),
        ("LD_PRELOAD", "/nowhere/hunter2.so"),
        ("GIT_DIR", "/nowhere"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_KEY_0", "core.hooksPath"),
        ("GIT_CONFIG_VALUE_0", "/tmp"),
        ("LANG", "tr_TR.UTF-8"),
        ("TZ", "Antarctica/Troll"),
        ("BASH_ENV", "/nowhere"),
        ("ENV", "/nowhere"),
        ("SSL_CERT_FILE", "/nowhere"),
    ] {
        command.env(name, value);
    }
    let manifest = world.say(command).done().text("manifest");
    assert_eq!(traces(&world, "evil"), 0, "{:?}", fs::read_to_string(world.path("room/evil")));

    // read the products back through the store
    let content = world.content(&manifest).as_manifest().unwrap().clone();
    let read = |name: &str| {
        let artifact =
            content.artifacts.iter().find(|artifact| artifact.name.as_str() == name).unwrap();
        let digest = artifact.digests.sha256.to_string();
        world.read(&format!("store/artifacts/sha256/{}/{}", &digest[..2], &digest[2..]))
    };
    assert_eq!(read("dist/hello"), "hello, world\n");
    let environment = read("dist/env");
    let mut names: Vec<&str> =
        environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["HOME", "LANG", "LC_ALL", "PATH", "PWD", "SOURCE_DATE_EPOCH", "TMPDIR", "TZ"],
        "{environment}"
    );
    assert!(environment.contains("PATH=/usr/local/bin:/usr/bin:/bin\n"));
    let measured = |fact: &str| {
        content.environment.iter().find(|(name, _)| name == fact).map(|(_, value)| value.as_str())
    };
    if measured("network") == Some("none") {
        let net = read("dist/net");
        let interfaces: Vec<&str> =
            net.lines().filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
        assert_eq!(interfaces, ["lo"], "{net}");
    } else {
        skipped("the_caller_has_no_say", "this machine cannot take the network away");
    }
}

/// A step cannot sign, nor write where Custody keeps things.
/// Row `wrk-key-readable`.
#[test]
fn steps_reach_neither_keys_nor_the_store() {
    if !is_root() {
        return skipped(
            "steps_reach_neither_keys_nor_the_store",
            "takes root, to run commands as another user",
        );
    }
    let world = World::fresh();
    let [key, store] = ["keys/builder", "store"].map(|name| world.path(name).display().to_string());
    let task = world.build_task(
        &format!(
            "mkdir dist; id -u > dist/who; for file in {key} {store}/custody.sqlite; do \
             cat $file > /dev/null && echo read $file >> dist/who; (echo x >> $file) 2> /dev/null && echo wrote $file >> dist/who; done; \
             touch {store}/tmp/x {store}/artifacts/x && echo touched >> dist/who; \
             cat /proc/[0-9]*/environ > /dev/null 2>&1; ls /proc | grep -c '^[0-9]' >> dist/who"
        ),
        "",
    );
    let manifest = world.run(&task).done().text("manifest");
    let content = world.content(&manifest).as_manifest().unwrap().clone();
    let digest = content.artifacts[0].digests.sha256.to_string();
    let who = world.read(&format!("store/artifacts/sha256/{}/{}", &digest[..2], &digest[2..]));
    assert!(who.starts_with("65534\n"), "{who}");
    assert!(!who.contains(&key) && !who.contains("wrote") && !who.contains("touched"), "{who}");
}

/// Who uses up more than the task allows has made nothing.
#[test]
fn a_step_keeps_within_its_limits() {
    let world = World::fresh();
    for (limits, within, beyond, code) in [
        (
            "memory = \"100M\"",
            "head -c 10000000 /dev/zero | tail -c 9000000 | wc -c > dist/x",
            "head -c 400000000 /dev/zero | tail -c 390000000 | wc -c > dist/x; test $(cat dist/x) = 390000000",
            "command",
        ),
        (
            "processes = 12",
            "for i in $(seq 3); do sleep 0.1 & done; wait; : > dist/x",
            "for i in $(seq 40); do sleep 0.5 & done; wait; : > dist/x",
            "command",
        ),
        (
            "output = \"1K\"",
            "head -c 1024 /dev/zero > dist/x",
            "head -c 1000 /dev/zero > dist/x; head -c 25 /dev/zero > dist/y",
            "WORKER_LIMIT_EXCEEDED",
        ),
    ] {
        let task = |command: &str| {
            world.build_task(&format!("mkdir dist; {command}"), &format!("limits = {{ {limits} }}"))
        };
        world.run(&task(within)).done();
        let before = world.list("manifest").len();
        let said = world.run(&task(beyond));
        assert_ne!(said.status, Some(0), "{said:#?}");
        let json = said.json();
        assert_eq!(json["code"].as_str().or(json["error"].as_str()), Some(code), "{said:#?}");
        assert_eq!(world.list("manifest").len(), before, "{limits}");
    }
}

/// `chain-source-revision`.
#[test]
fn sources_are_those_that_people_approved() {
    let world = World::fresh();
    world.pipeline(&[BUILD, PUBLISH]);
    let request = world.propose("promote", "");
    let authorization = world.authorize(&request);
    // what is committed later, or lies in the working tree, is not what people approved
    world.write("source/hello.txt", "something else\n");
    world.git("commit --quiet --all --message later");
    world.write("source/hello.txt", "dirty\n");
    let task = world.plan(&authorization)["build"].clone();
    let manifest = world.run(&task).done().text("manifest");
    let content = world.content(&manifest).as_manifest().unwrap().clone();
    let hello =
        content.artifacts.iter().find(|artifact| artifact.name.file_name() == "hello.txt").unwrap();
    assert_eq!(hello.size, 13);
    // a repository without the commit
    let other = World::with_keys();
    other.write("source/more", "x");
    other.git("add .");
    other.git("commit --quiet --message more");
    let again = world.plan(&world.authorize(&world.propose("promote", "")))["build"].clone();
    let line = world.run_line(&again).replace(
        "--repository source",
        &format!("--repository {}", other.path("source").display()),
    );
    world.custody(&line).refused("CHAIN_SOURCE_MISMATCH");
    world.run(&again).done();
}
