//! Policies from outside: checked, signed, followed one after the other, never backwards.

use std::fs;
use std::thread;
use std::time::{Duration, SystemTime};

use custody_core::envelope::Envelope;

use crate::world::World;

/// The next version of the world's policy.
fn next(world: &World, version: u64, previous: &str) -> String {
    world
        .policy_text()
        .replace("version = 1", &format!("version = {version}\nprevious = \"{previous}\""))
}

fn rotate(name: &str) -> String {
    format!("policy rotate {name}.dsse.json --store store")
}

/// `pol-field-missing`.
#[test]
fn faults_are_shown_where_they_are() {
    let world = World::with_keys();
    let sound = world.policy_text();
    world.write("policy.toml", &sound);
    assert_eq!(world.done("policy check policy.toml").json()["version"], 1);
    assert!(world.typed("policy check policy.toml").done().out.contains("is sound"));
    let cases = [
        ("threshold = 2", "threshold = 4", "POLICY_INVALID"),
        ("threshold = 2", "threshold = 0", "POLICY_INVALID"),
        ("threshold = 2", "treshold = 2", "POLICY_INVALID"),
        ("members = [\"carol\"]", "members = [\"dave\"]", "POLICY_INVALID"),
        ("members = [\"carol\"]", "members = []", "POLICY_INVALID"),
        ("perform = [\"packer\"]", "perform = [\"builder\"]", "POLICY_INVALID"),
        ("receipts = \"none\"", "receipts = \"witnessed\"", "POLICY_INVALID"),
        ("clock-skew = \"5m\"", "clock-skew = \"5 minutes\"", "POLICY_INVALID"),
        ("version = 1", "version = 1.0", "POLICY_INVALID"),
        ("version = 1", "version = 1\nversion = 1", "POLICY_INVALID"),
    ];
    for (from, to, code) in cases {
        world.write("bad.toml", sound.replacen(from, to, 1));
        let said = world.custody("policy check bad.toml").ended(1);
        let json = said.json();
        assert_eq!(json["ok"], false);
        assert!(
            said.codes().iter().any(|found| found == code || found.starts_with("PARSE_")),
            "{to}: {said:#?}"
        );
        assert!(
            json["line"].as_u64().unwrap() >= 1 && json["column"].as_u64().unwrap() >= 1,
            "{said:#?}"
        );
        assert!(
            !json["remedy"].as_str().unwrap().is_empty() && json["file"] == "bad.toml",
            "{said:#?}"
        );
        let typed = world.typed("policy check bad.toml").ended(1).err;
        let place = format!("bad.toml:{}:{}", json["line"], json["column"]);
        for part in [&place, "^", "  do  ", json["code"].as_str().unwrap()] {
            assert!(typed.contains(part), "{part}: {typed}");
        }
        // nor is it ever signed
        world.custody("policy sign bad.toml --key keys/alice --out bad.dsse.json").ended(1);
        assert!(!world.path("bad.dsse.json").exists());
    }
    // the same key twice, also in another form
    let carol = world.public("carol");
    let twice =
        sound.replace(&world.public("mallory"), &carol).replace(&world.public("bob-home"), &carol);
    world.write("bad.toml", twice);
    world.custody("policy check bad.toml").refused("POLICY_KEY_DUPLICATE");
}

/// `pol-below-threshold`, `pol-from-the-chain`.
#[test]
fn a_store_begins_with_what_enough_people_signed() {
    let world = World::with_keys();
    let text = world.policy_text();
    let sign = |people: &[&str]| {
        fs::remove_file(world.path("policy.dsse.json")).ok();
        world.sign_policy("policy", &text, people)
    };
    let pin = sign(&["alice"]);
    let init = |pin: &str| {
        world.custody(&format!("init --store store --policy policy.dsse.json --pin {pin}"))
    };
    init(&pin).refused("POLICY_SIGNATURE_THRESHOLD");
    assert!(!world.path("store").exists());
    // the same person again, with both of her or his keys
    assert_eq!(sign(&["bob", "bob-home", "bob"]), pin);
    init(&pin).refused("POLICY_SIGNATURE_THRESHOLD");
    sign(&["alice", "mallory"]);
    init(&pin).refused("POLICY_SIGNATURE_THRESHOLD");
    sign(&["alice", "bob"]);
    init(&"0".repeat(64)).refused("POLICY_UNTRUSTED");
    assert!(!world.path("store").exists());
    // another text in the same file is not signed by the way
    world.write("policy.toml", text.replace("production", "staging"));
    world.custody("policy sign policy.toml --key keys/carol --out policy.dsse.json").ended(2);
    init(&pin).done();
    // once more changes nothing, another pin is refused
    init(&pin).done();
    world.write("pin", &pin);
    let other =
        world.sign_policy("other", &text.replace("production", "staging"), &["alice", "bob"]);
    world
        .custody(&format!("init --store store --policy other.dsse.json --pin {other}"))
        .refused("POLICY_UNTRUSTED");
    let shown = world.done("policy show --store store").json();
    assert_eq!(
        (shown.as_array().unwrap().len(), &shown[0]["id"]),
        (1, &serde_json::Value::from(pin))
    );
    // a store that is not there is not made by the way
    let said = world.custody("policy show --store nowhere").ended(3);
    assert!(said.text("message").contains("--store DIR"));
    assert!(!world.path("nowhere").exists());
}

/// `pol-version-gap`, `pol-rejected-then-cached`.
#[test]
fn one_version_after_the_other() {
    let world = World::fresh();
    let one = world.pin();
    let two = world.sign_policy("two", &next(&world, 2, &one), &["alice", "carol"]);
    let three = world.sign_policy("three", &next(&world, 3, &two), &["bob", "carol"]);
    world.refused(&rotate("three"), "POLICY_VERSION_GAP");
    world.sign_policy("few", &(next(&world, 2, &one) + "# few\n"), &["alice"]);
    world.refused(&rotate("few"), "POLICY_SIGNATURE_THRESHOLD");
    world.sign_policy("wrong", &(next(&world, 2, &one) + "# wrong\n"), &["alice", "mallory"]);
    world.refused(&rotate("wrong"), "POLICY_SIGNATURE_THRESHOLD");
    world.sign_policy("loose", &next(&world, 2, &three), &["alice", "bob"]);
    world.refused(&rotate("loose"), "POLICY_VERSION_GAP");
    let staging = next(&world, 2, &one).replace("production", "staging");
    world.sign_policy("staging", &staging, &["alice", "bob"]);
    world.refused(&rotate("staging"), "CHAIN_INSTANCE_MISMATCH");
    // a new root that only itself signed
    let coup = next(&world, 2, &one).replace(&world.public("alice"), &world.public("mallory"));
    let coup = coup.replace(&world.public("carol"), &world.public("mallory-2"));
    world.sign_policy("coup", &coup, &["mallory", "mallory-2"]);
    world.refused(&rotate("coup"), "POLICY_SIGNATURE_THRESHOLD");

    world.done(&rotate("two"));
    world.done(&rotate("two"));
    world.sign_policy("twin", &(next(&world, 2, &one) + "# twin\n"), &["alice", "bob"]);
    world.refused(&rotate("twin"), "POLICY_EQUIVOCATION");
    world.done(&rotate("three"));
    let shown = world.done("policy show --store store").json();
    assert_eq!(shown.as_array().unwrap().len(), 3);
    assert_eq!(shown[2]["id"].as_str(), Some(three.as_str()));
}

/// What was signed before a rotation stays good; what a revoked key signed does not.
/// Row `pol-key-revoked`.
#[test]
fn a_revoked_key_counts_no_more() {
    for (who, revoked, code) in [
        ("desk", true, "POLICY_KEY_REVOKED"),
        ("bob", true, "POLICY_KEY_REVOKED"),
        ("mallory", false, ""),
    ] {
        let world = World::published();
        let ship = world.shipping();
        let mut text = next(&world, 2, &world.pin());
        if revoked {
            let key = format!("\"{}\" }}", world.public(who));
            assert!(text.contains(&key));
            text = text.replace(&key, &format!("\"{}\", revoked = true }}", world.public(who)));
        }
        if who == "desk" {
            // a desk needs a key that holds
            text = text.replace(
                "revoked = true }]",
                &format!("revoked = true }}, {{ key = \"{}\" }}]", world.public("mallory")),
            );
        }
        world.sign_policy("two", &text, &["alice", "carol"]);
        world.done(&rotate("two"));
        let verify = "verify www/all.bin --store store";
        if revoked {
            world.refused(verify, code);
            world.refused(&world.publish_line(&ship), code);
        } else {
            world.done(verify);
        }
    }
}

/// `pol-expired`.
#[test]
fn an_expired_policy_lets_nothing_happen() {
    let world = World::with_keys();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let end = now() + 8;
    let expires = custody_core::time::Time::from_unix(end).unwrap().to_string();
    world.found(&world.policy_until(&expires));
    let task = world.build_task("mkdir dist; echo x > dist/x; touch {param.room}/ran", "");
    let request = world.list("request").remove(0);
    let first = world.plan(&world.authorized("promote"))["build"].clone();
    world.run(&first).done();
    fs::remove_file(world.path("room/ran")).unwrap();
    let digest = world.content(&world.list("manifest")[0]).as_manifest().unwrap().artifacts[0]
        .digests
        .sha256
        .to_string();
    fs::copy(
        world.path(&format!("store/artifacts/sha256/{}/{}", &digest[..2], &digest[2..])),
        world.path("x"),
    )
    .unwrap();
    let bundle =
        format!("bundle export --store store --out x.custody.jsonl {}", world.list("manifest")[0]);
    world.done(&bundle);
    let verify = format!("verify x --pin {} --step build", world.pin());
    world.done(&verify);
    assert!(now() < end, "this machine is too slow for this test");
    while now() < end {
        thread::sleep(Duration::from_millis(50));
    }
    world.refused(&world.run_line(&task), "POLICY_EXPIRED");
    assert!(!world.path("room/ran").exists());
    world.refused(&verify, "POLICY_EXPIRED");
    world.refused(
        &format!("release authorize {request} --store store --key keys/desk"),
        "POLICY_EXPIRED",
    );
    // looking back is another matter
    let before = custody_core::time::Time::from_unix(end - 1).unwrap();
    world.done(&format!("{verify} --at {before}"));
    world.custody(&format!("{verify} --at {expires}")).refused("POLICY_EXPIRED");
}

/// What a person's verifications have seen is remembered, and a damaged memory is not an empty one.
/// Rows `pol-floor-erased`, `pol-rollback`.
#[test]
fn what_was_seen_is_not_forgotten() {
    let world = World::published();
    let verify = format!("verify www/all.bin --pin {}", world.pin());
    world.done(&verify);
    let record = format!("state/custody/{}.json", world.pin());
    let good = world.read(&record);
    for bad in [
        "",
        "{}",
        "null",
        &good.replace("\"version\": 1", "\"version\": 0.5"),
        &good[..good.len() / 2],
        &format!("{good}{good}"),
    ] {
        world.write(&record, bad);
        world.custody(&verify).refused("STORE_CORRUPT");
        assert_eq!(world.read(&record), bad);
    }
    // a time that has not come yet: somebody verified with a clock that went ahead, or ours goes after
    let year = &good[good.find("\"time\": \"").unwrap() + 9..][..4];
    world.write(&record, good.replace(&format!("\"{year}-"), "\"2098-"));
    world.custody(&verify).refused("TIME_UNTRUSTED");
    world.write(&record, &good);
    world.done(&verify);
    // nothing was verified, nothing is remembered
    fs::remove_file(world.path(&record)).unwrap();
    world.write("www/all.bin", "other");
    world.custody(&verify).refused("ART_DIGEST_MISMATCH");
    assert!(!world.path(&record).exists());
}

/// The text that people review is the text that they sign.
#[test]
fn what_is_signed_is_the_text() {
    let world = World::fresh();
    let envelope = Envelope::parse(world.read("policy.dsse.json").as_bytes()).unwrap();
    assert_eq!(envelope.unverified_payload(), world.read("policy.toml").as_bytes());
    let shown = world.done(&format!("show {} --store store", world.pin()));
    assert_eq!(shown.text("payload"), world.read("policy.toml"));
    assert_eq!(shown.json()["verified"], false);
}
