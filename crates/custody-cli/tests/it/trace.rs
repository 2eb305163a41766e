//! What came from something: nothing that claims descent may be left out.

use custody_core::statement::{Intent, Manifest, Stage};
use serde_json::Value;

use crate::world::World;

fn trace(world: &World, words: &str) -> Value {
    world.done(&format!("trace --store store {words}")).json()
}

/// All statement ids of an answer, at whatever place.
fn ids(found: &Value) -> Vec<String> {
    let mut ids = Vec::new();
    match found {
        Value::Array(items) => items.iter().for_each(|item| ids.extend(self::ids(item))),
        Value::Object(members) => {
            ids.extend(members.get("id").and_then(Value::as_str).map(ToOwned::to_owned));
            members.values().for_each(|member| ids.extend(self::ids(member)));
        }
        _ => {}
    }
    ids
}

fn steps(found: &Value) -> Vec<&str> {
    found["made"].as_array().unwrap().iter().map(|made| made["step"].as_str().unwrap()).collect()
}

fn manifest(world: &World, number: usize) -> (String, Manifest) {
    let id = world.list("manifest").remove(number);
    let manifest = world.content(&id).as_manifest().unwrap().clone();
    (id, manifest)
}

#[test]
fn what_reached_users_comes_first() {
    let world = World::published();
    let typed = world.typed("trace --store store --by builder").done().out;
    assert!(typed.starts_with("reached users: 1 publication\n"), "{typed}");
    let found = trace(&world, "--by builder");
    assert_eq!(steps(&found), ["build", "pack"]);
    let published = &found["published"][0];
    assert_eq!(published["verified"], true);
    assert!(published["destination"].as_str().unwrap().ends_with("/www"), "{published}");
    assert_eq!(published["signed"], "signed by publisher");
    let files = published["files"].as_array().unwrap();
    assert!(files.len() == 4 && files.iter().all(|file| file["affected"] == true), "{files:?}");
    // from the packer comes only its own file; the rest was published beside it
    let found = trace(&world, "--by packer");
    assert_eq!(steps(&found), ["pack"]);
    let files = found["published"][0]["files"].as_array().unwrap();
    let affected: Vec<_> =
        files.iter().filter(|file| file["affected"] == true).map(|file| &file["name"]).collect();
    assert_eq!(affected, ["all.bin"]);
    // from the publisher come the same bytes that the packer used: rather too much than too little
    let found = trace(&world, "--by publisher");
    assert_eq!((steps(&found), found["published"].as_array().unwrap().len()), (vec!["pack"], 1));
    assert!(found["made"].to_string().contains("it used the file "), "{found}");
    // a person, through the sign-off that counted
    assert_eq!(steps(&trace(&world, "--by carol")), ["build", "pack"]);
}

#[test]
fn every_way_to_ask_finds_it() {
    let world = World::published();
    let (build, made) = manifest(&world, 0);
    let digest =
        made.artifact(&"dist/hello.txt".parse().unwrap()).unwrap().digests.sha256.to_string();
    let shown = world.done("key show keys/builder.pub").json();
    let id = shown["id"].as_str().unwrap();
    let host = &made.environment.iter().find(|(name, _)| name == "user").unwrap().1;
    let asked = [
        format!("{build} "),
        digest.clone(),
        "www/hello.txt".to_owned(),
        "--key keys/builder.pub".to_owned(),
        format!("--key {id}"),
        format!("--environment user={host}"),
        format!("--by packer {digest}"),
    ];
    for words in asked {
        let found = trace(&world, &words);
        assert!(
            steps(&found).contains(&"pack") && found["published"].as_array().unwrap().len() == 1,
            "{words}: {found}"
        );
    }
    for words in ["--environment user=nobody-at-all", &"0".repeat(64), "keys/mallory.pub"] {
        let found = trace(&world, words);
        assert!(ids(&found).is_empty(), "{words}: {found}");
        assert!(
            world
                .typed(&format!("trace --store store {words}"))
                .done()
                .out
                .starts_with("nothing came from there")
        );
    }
    world.custody("trace --store store").ended(2);
    world.custody("trace --store store --by nobody-known").ended(2);
    world.custody("trace --store store --key SHA256:AAAA").ended(2);
    world.custody("trace --store store --environment user").ended(2);
    world.custody("trace --store store no-such-file").ended(3);
}

#[test]
fn a_claim_is_found_and_told_apart() {
    let world = World::promoted();
    let (build, _) = manifest(&world, 0);
    let (_, mut claim) = manifest(&world, 1);
    claim.invocation = "claimed".into();
    claim.destination = Some("s3://elsewhere/".into());
    assert!(claim.upstream.iter().any(|id| id.to_string() == build));
    let id = world.add(&world.forged(claim, "mallory"));
    let found = trace(&world, "--by builder");
    let row = &found["published"][0];
    assert_eq!((row["id"].as_str(), &row["verified"]), (Some(id.as_str()), &Value::Bool(false)));
    assert!(world.typed("trace --store store --by builder").done().out.contains("only a claim"));
    // signed by a known machine that may not do it
    let (_, mut other) = manifest(&world, 0);
    other.invocation = "other".into();
    let id = world.add(&world.forged(other, "packer"));
    let found = trace(&world, "--by packer");
    assert!(ids(&found).contains(&id), "{found}");
    assert!(found.to_string().contains("signed by packer, who may not do this"), "{found}");
}

#[test]
fn a_signature_that_names_no_key_hides_nothing() {
    let world = World::promoted();
    let (_, mut hidden) = manifest(&world, 0);
    hidden.invocation = "hidden".into();
    let envelope = world.forged(hidden, "builder");
    let mut json: Value = serde_json::from_str(&envelope.to_json()).unwrap();
    json["signatures"][0].as_object_mut().unwrap().remove("keyid").unwrap();
    world.write("hidden.json", json.to_string());
    world.done("evidence add hidden.json --store store");
    let id = envelope.id().to_string();
    assert!(ids(&trace(&world, "--key keys/builder.pub")).contains(&id));
    assert!(ids(&trace(&world, "--by builder")).contains(&id));
    assert!(!ids(&trace(&world, "--key keys/packer.pub")).contains(&id), "the control");
}

#[test]
fn dating_back_does_not_help() {
    let world = World::promoted();
    let (build, mut made) = manifest(&world, 0);
    let mut forged = |invocation: &str, time: &str| {
        made.invocation = invocation.into();
        (made.started, made.finished) = (time.parse().unwrap(), time.parse().unwrap());
        world.add(&world.forged(made.clone(), "builder"))
    };
    let before = forged("before", "2001-01-01T00:00:00Z");
    let late = forged("late", "2090-01-01T00:00:00Z");
    let back = forged("back", "2001-01-01T00:00:00Z");
    let found = ids(&trace(&world, "--by builder --since 2080-01-01T00:00:00Z"));
    assert!(found.contains(&late) && found.contains(&back), "{found:?}");
    assert!(!found.contains(&before) && !found.contains(&build), "{found:?}");
    let all = ids(&trace(&world, "--by builder"));
    assert!([&before, &late, &back, &build].into_iter().all(|id| all.contains(id)));
    assert!(ids(&trace(&world, "--by builder --since 2095-01-01T00:00:00Z")).is_empty());
}

#[test]
fn what_is_planned_and_what_is_in_doubt_is_shown() {
    let world = World::promoted();
    let task = world.shipping();
    let found = trace(&world, "--by builder");
    assert_eq!(found["open"][0]["id"].as_str(), Some(task.as_str()));
    assert!(found["published"].as_array().unwrap().is_empty());
    // announced, and perhaps done: users may have it
    let (_, made) = manifest(&world, 0);
    let intent = Intent {
        task: task.parse().unwrap(),
        stage: Stage::Announced,
        destination: world.destination(),
        artifacts: made.artifacts.clone(),
        created: made.finished,
    };
    let id = world.add(&world.forged(intent, "publisher"));
    assert_eq!(trace(&world, "--by builder")["published"][0]["id"].as_str(), Some(id.as_str()));
    // a manifest that anybody can claim closes no task
    let mut claim = made;
    claim.task = task.parse().unwrap();
    world.add(&world.forged(claim, "mallory"));
    let found = trace(&world, "--by builder");
    assert_eq!(found["open"][0]["id"].as_str(), Some(task.as_str()));
    assert_eq!(found["published"][0]["id"].as_str(), Some(id.as_str()));
}
