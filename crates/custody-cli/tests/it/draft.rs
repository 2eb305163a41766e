//! Help for people who write policies: drafts from recorded releases, blanks, faults, warnings; codes.

use std::fs;

use serde_json::Value;

use crate::world::World;

/// The draft with what people decided; the world stands somewhere else than the one that was recorded.
fn filled(world: &World, draft: &str) -> String {
    let place = draft.split("destinations = [\"").nth(1).unwrap().split('"').next().unwrap();
    draft
        .replace(place, &world.destination())
        .replace("\"FILL-IN-end\"", "\"2099-01-01T00:00:00Z\"")
        .replace("\"FILL-IN-person-of-the-root\"", "\"alice\", \"bob\", \"carol\"")
        .replace("\"FILL-IN-role-that-resolves\"", "\"releng\"")
}

#[test]
fn the_same_kind_of_release_passes_under_a_draft_of_it() {
    let world = World::published();
    let bundle = world.bundle().display().to_string();
    world.done(&format!("policy init --bundle {bundle} --out draft.toml"));
    let draft = world.read("draft.toml");
    assert!(
        draft.starts_with("# A DRAFT of a policy")
            && draft.contains("nothing that it was made from was verified")
    );
    // the same from the store, and nothing is replaced
    let from_store = world.typed("policy init --store store").done().out;
    let body = |text: &str| text.split_once("\npolicy = ").unwrap().1.to_owned();
    assert_eq!(body(&from_store), body(&draft));
    world.custody(&format!("policy init --bundle {bundle} --out draft.toml")).ended(3);
    // a draft is no policy
    let said = world.custody("policy check draft.toml").ended(1).json();
    assert_eq!(said["faults"].as_array().unwrap().len(), 3, "{said}");
    world.custody("policy sign draft.toml --key keys/alice --out draft.dsse.json").ended(1);
    assert!(!world.path("draft.dsse.json").exists());
    // filled in and signed, in a new store, with nothing of the old one
    fs::rename(world.path("store"), world.path("old-store")).unwrap();
    fs::remove_file(world.path("policy.dsse.json")).unwrap();
    for name in world.files("www").into_keys() {
        fs::remove_file(world.path("www").join(name)).unwrap();
    }
    let old = world.pin();
    assert_ne!(world.found(&filled(&world, &draft)), old);
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    world.run_all(&authorization).done();
    world.publish(&world.shipping()).done();
    world.done(&format!("verify www/all.bin --pin {}", world.pin()));
    // what was not seen is not allowed: the packer never built
    let task = world.plan(&world.authorized("promote"))["build"].clone();
    let line = format!("run {task} --repository source {}", world.machines(&["packer"]));
    world.refused(&line, "WORKER_POOL_FORBIDDEN");
}

#[test]
fn keys_without_a_name_are_blanks() {
    let world = World::published();
    let bundle = fs::read_to_string(world.bundle()).unwrap();
    let nameless: String = bundle
        .lines()
        .filter(|line| !line.contains("policy+toml"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_ne!(nameless, bundle);
    world.write("nameless.jsonl", nameless);
    world.done("policy init --bundle nameless.jsonl --out draft.toml");
    let draft = world.read("draft.toml");
    // people signed with their keys and said who they are; machines left the ids of their keys
    assert!(
        draft.contains("[people.bob]") && draft.contains("[machines.FILL-IN-machine-"),
        "{draft}"
    );
    let key = world.done("key show keys/builder.pub").text("id");
    assert!(draft.contains(&format!("FILL-IN-key-with-the-id-{key}")), "{draft}");
    let faults = world.custody("policy check draft.toml").ended(1).json()["faults"].clone();
    let about = |word: &str| {
        let faults = faults.as_array().unwrap().iter();
        faults.filter(|fault| fault["message"].as_str().unwrap().contains(word)).count()
    };
    assert_eq!(about(&format!("FILL-IN-key-with-the-id-{key}")), 1, "{faults}");
    assert!(about("FILL-IN-machine-") >= 5, "{faults}");
    // nothing to see is no draft
    let fresh = World::fresh();
    fresh.refused("policy init --store store", "CHAIN_STEP_MISSING");
    fresh.custody("policy init").ended(2);
}

#[test]
fn all_faults_are_shown_with_what_to_write() {
    let world = World::with_keys();
    let sound = world.policy_text();
    let check = |text: String| {
        world.write("bad.toml", text);
        let said = world.custody("policy check bad.toml").ended(1).json();
        let faults = said["faults"].as_array().unwrap().clone();
        assert_eq!((&said["line"], &said["remedy"]), (&faults[0]["line"], &faults[0]["remedy"]));
        faults
    };
    let remedy = |fault: &Value| fault["remedy"].as_str().unwrap().to_owned();
    let faults = check(
        sound
            .replace("members = [\"carol\"]", "members = [\"dave\", \"erin\"]")
            .replace("\"alice\", \"bob\", \"carol\"]\n[roles.lead]", "\"frank\"]\n[roles.lead]"),
    );
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0]["line"].as_u64() < faults[1]["line"].as_u64());
    for (from, to, wanted) in [
        ("threshold = 2", "treshold = 2", "did you mean threshold?"),
        ("verification = \"full\"", "verification = \"ful\"", "did you mean full?"),
        ("clock-skew = \"5m\"\n", "", "write clock-skew = \"5m\""),
        ("threshold = 2", "threshold = \"2\"", "write threshold = 2"),
        ("proposer-counts = false", "proposer-counts = \"no\"", "write proposer-counts = false"),
        ("version = 1", "version = 1\nversion = 1", "write each member and each table once"),
        ("version = 1", "version 1", "mend the TOML"),
    ] {
        let faults = check(sound.replacen(from, to, 1));
        assert!(remedy(&faults[0]).starts_with(wanted), "{to}: {faults:?}");
    }
    // blanks of the example, all at once
    let example = include_str!("../../../../examples/hello/policy.toml");
    let faults = check(example.into());
    assert_eq!(faults.len(), 11, "{faults:?}");
    assert!(
        faults.iter().all(|fault| fault["message"].as_str().unwrap().contains("is not filled in"))
    );
    // in a comment a blank is no fault
    world.write("policy.toml", format!("# FILL-IN and KEY-OF-alice, \"PUBLISH-TO\"\n{sound}"));
    world.done("policy check policy.toml");
}

#[test]
fn what_is_unwise_is_said_and_let_through() {
    let world = World::with_keys();
    let soon = custody_core::time::Time::from_unix(
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
            + 86_400 * 10,
    )
    .unwrap();
    let next_year = soon.plus(86_400 * 300).to_string();
    let calm = world.policy_until(&next_year);
    let warned = |text: &str| -> Vec<String> {
        world.write("policy.toml", text);
        let said = world.done("policy check policy.toml").json();
        let warnings = said["warnings"].as_array().unwrap().iter();
        warnings
            .map(|warning| {
                assert!(
                    warning["line"].as_u64() >= Some(1)
                        && !warning["remedy"].as_str().unwrap().is_empty()
                );
                warning["message"].as_str().unwrap().to_owned()
            })
            .collect()
    };
    let usual = warned(&calm);
    assert!(
        usual.len() == 1 && usual[0].starts_with("keys of machines without an end"),
        "{usual:?}"
    );
    let cases = [
        (next_year.as_str(), soon.to_string(), "the policy ends in "),
        (next_year.as_str(), "2020-01-01T00:00:00Z".into(), "the policy has ended already"),
        ("threshold = 2", "threshold = 1".into(), "one person alone can make the next policy"),
        ("threshold = 2", "threshold = 3".into(), "all 3 root people must sign"),
        ("network = false", "network = false\nmachine = [{ fact = \"isolatoin\", is = [\"container\"], standing = \"claimed\" }]".into(), "no worker says \"isolatoin\""),
        ("proposer-counts = false", "proposer-counts = true".into(), "whoever proposes may approve the same"),
        ("count = 2 }]\nproposer-counts = false\nsign-off-max-age = \"24h\"\nafter = [\"promote\"]", "count = 1 }]\nproposer-counts = false\nsign-off-max-age = \"24h\"\nafter = [\"promote\"]".into(), "one approval starts what cannot be taken back: publish"),
        ("count = 2", "count = 3".into(), "all 3 members of releng must approve"),
        ("perform = [\"packer\"]", "perform = [\"packer\", \"scheduler\"]".into(), "scheduler makes the tasks of pack and performs them"),
        ("perform = [\"packer\"]", "perform = [\"packer\", \"desk\"]".into(), "desk issues authorizations and performs pack"),
    ];
    for (from, to, wanted) in cases {
        assert!(calm.contains(from), "{from}");
        let found = warned(&calm.replacen(from, &to, 1));
        assert!(found.iter().any(|warning| warning.starts_with(wanted)), "{wanted}: {found:?}");
        assert_eq!(found.len(), 2, "{found:?}");
    }
}

#[test]
fn codes_are_explained() {
    let world = World::empty();
    let typed = world.typed("explain ART_DIGEST_MISMATCH").done().out;
    for part in [
        "meaning    the bytes are not those that were recorded",
        "do         get the file again",
        "example    ",
        "exit       1",
    ] {
        assert!(typed.contains(part), "{typed}");
    }
    assert_eq!(world.done("explain store-full").json()["exit"], 3);
    let said = world.typed("explain art-digest-mismach").ended(2);
    assert!(said.err.contains("ART_DIGEST_MISMATCH") && said.out.is_empty(), "{said:#?}");
    let listed = world.typed("explain").done().out;
    let all = world.done("explain").json();
    for code in all.as_array().unwrap() {
        assert!(listed.contains(&format!("  {} ", code["code"].as_str().unwrap())), "{code}");
    }
    assert_eq!(all.as_array().unwrap().len(), custody_core::Code::ALL.len());
}
