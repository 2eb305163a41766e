//! The command agrees with the vectors (docs/formats/vectors.md), as far as one can be asked.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use custody_core::time::Time;
use serde_json::Value;

use crate::world::{Said, World};

/// Cases of a kind, by name.
fn cases(kind: &str) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for folder in fs::read_dir(root().join("cases")).unwrap().flatten() {
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            let case: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
            if case["kind"] == kind {
                let name = file.path().strip_prefix(root()).unwrap().display().to_string();
                found.insert(name, case);
            }
        }
    }
    assert!(found.len() > 10, "{} cases of kind {kind}", found.len());
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors")
}

fn file(name: &Value) -> Vec<u8> {
    fs::read(root().join("files").join(name.as_str().unwrap())).unwrap()
}

/// One envelope on each line.
fn lines(names: &Value) -> Vec<u8> {
    names
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|name| [file(name), b"\n".to_vec()].concat())
        .collect()
}

fn text<'v>(case: &'v Value, member: &str) -> &'v str {
    case[member].as_str().unwrap()
}

/// Runs the command. What it refuses it refuses with the case's code and leaves everything as it was.
fn agrees(world: &World, name: &str, case: &Value, line: &str, accepted: impl Fn(Said)) {
    let before = world.files(".");
    let said = world.custody(line);
    if text(case, "verdict") == "accepted" {
        accepted(said);
    } else {
        assert_eq!(said.status, Some(1), "{name}: {said:#?}");
        said.refused(text(case, "code"));
        assert_eq!(before, world.files("."), "{name} changed something");
    }
}

/// What was seen before for the pin, put where the command keeps it.
fn remember(world: &World, case: &Value) {
    let folder = world.path("state/custody");
    fs::remove_dir_all(&folder).ok();
    if case["floor"].is_object() {
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("{}.json", text(case, "pin")));
        fs::write(path, case["floor"].to_string()).unwrap();
    }
}

#[test]
fn policies() {
    let world = World::empty();
    for (name, case) in cases("policy") {
        fs::write(world.path("policy.toml"), file(&case["input"])).unwrap();
        agrees(&world, &name, &case, "policy check policy.toml", |said| {
            said.done();
        });
    }
}

/// A rotation chain is judged before anything else: where it holds, all that is left to say is that no
/// manifest lists the file, and which policy said so.
#[test]
fn rotations() {
    let world = World::empty();
    world.write("nothing", "nothing\n");
    for (name, case) in cases("policies") {
        fs::write(world.path("bundle"), lines(&case["policies"])).unwrap();
        remember(&world, &case);
        let line = format!("verify nothing --bundle bundle --pin {}", text(&case, "pin"));
        agrees(&world, &name, &case, &line, |said| {
            let said = said.refused("CHAIN_STEP_MISSING");
            assert_eq!(said.json()["policy"]["version"], case["newest"], "{name}");
        });
    }
}

/// A bundle that can be read is refused for its pin only.
#[test]
fn bundles() {
    let world = World::empty();
    world.write("nothing", "nothing\n");
    let line = format!("verify nothing --bundle bundle --pin {}", "0".repeat(64));
    for (name, case) in cases("bundle") {
        fs::write(world.path("bundle"), file(&case["input"])).unwrap();
        agrees(&world, &name, &case, &line, |said| {
            said.refused("POLICY_UNTRUSTED");
        });
    }
}

/// No command is asked what a statement means, or who signed an envelope, by itself. An envelope that
/// can be read is shown, as what nobody has checked.
#[test]
fn envelopes() {
    let world = World::empty();
    for (name, case) in cases("envelope") {
        fs::write(world.path("envelope.json"), file(&case["input"])).unwrap();
        let said = world.custody("show envelope.json");
        let readable = text(&case, "verdict") == "accepted";
        assert!(said.status == Some(0) || !readable && said.status == Some(1), "{name}: {said:#?}");
        assert!(said.status != Some(0) || said.json()["verified"] == false, "{name}: {said:#?}");
        assert!(!said.err.contains("panicked"), "{name}: {said:#?}");
    }
}

#[test]
fn files() {
    let world = World::empty();
    let (mut asked, mut gates, mut clocks) = (0, 0, 0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    for (name, case) in cases("chain") {
        let question = &case["question"];
        let Some(wanted) = question.get("file") else {
            gates += 1;
            continue;
        };
        let time: Time = text(&case, "now").parse().unwrap();
        // what was seen before counts only for now, which a test does not choose
        let looks_back = case["floor"].is_null();
        if !looks_back && (now < time.unix() || text(&case["floor"], "time") > text(&case, "now")) {
            clocks += 1;
            continue;
        }
        fs::write(world.path("file"), file(&wanted["digest"]["sha256"])).unwrap();
        fs::write(
            world.path("bundle"),
            [lines(&case["policies"]), lines(&case["evidence"])].concat(),
        )
        .unwrap();
        remember(&world, &case);
        let mut line = format!(
            "verify file --name {} --bundle bundle --pin {}",
            text(wanted, "name"),
            text(&case, "pin")
        );
        for (option, value) in question["expect"].as_object().unwrap() {
            line += &format!(" --{option} {}", value.as_str().unwrap());
        }
        if looks_back {
            line += &format!(" --at {time}");
        }
        agrees(&world, &name, &case, &line, |said| {
            assert_eq!(said.done().json()["ok"], true, "{name}");
        });
        asked += 1;
    }
    assert!(asked > 150, "{asked} files asked about");
    let mut err = std::io::stderr();
    writeln!(err, "{asked} files; {gates} gates, of which only a worker asks, and acts; {clocks} for another now").unwrap();
}
