//! Verification by strangers, and evidence on its way to them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::World;

fn pinned(world: &World, what: &str) -> String {
    format!("verify {what} --pin {}", world.pin())
}

/// Copies the published files, so that nothing else of the world is at hand.
fn in_hand() -> (World, World) {
    let world = World::published();
    let hand = World::empty();
    for (name, bytes) in world.files("www") {
        fs::write(hand.path(".").join(name), bytes).unwrap();
    }
    hand.write("pin", world.pin());
    (world, hand)
}

/// `pol-from-the-chain`.
#[test]
fn the_pin_is_the_askers_own() {
    let (_, hand) = in_hand();
    hand.custody("verify all.bin").refused("POLICY_UNTRUSTED");
    hand.custody(&format!("verify all.bin --pin {}", "0".repeat(64))).refused("POLICY_UNTRUSTED");
    hand.custody("verify all.bin --pin 12").ended(2);
    hand.done(&pinned(&hand, "all.bin"));
}

/// `art-extra-unlisted`.
#[test]
fn the_name_counts() {
    let (_, hand) = in_hand();
    fs::copy(hand.path("all.bin"), hand.path("setup.exe")).unwrap();
    hand.custody(&pinned(&hand, "setup.exe")).refused("ART_UNLISTED");
    hand.done(&pinned(&hand, "setup.exe --name all.bin"));
    hand.custody(&pinned(&hand, "setup.exe --name hello.txt")).refused("ART_UNLISTED");
    // two files of one release in each other's place
    fs::copy(hand.path("second.txt"), hand.path("all.bin")).unwrap();
    hand.custody(&pinned(&hand, "all.bin")).ended(1);
    hand.custody(&pinned(&hand, "all.bin second.txt --name x")).ended(2);
}

#[test]
fn an_empty_file_is_a_file() {
    let (_, hand) = in_hand();
    hand.done(&pinned(&hand, "empty"));
    hand.write("all.bin", "");
    hand.custody(&pinned(&hand, "all.bin")).ended(1);
    hand.custody(&pinned(&hand, "no-such-file")).ended(3);
    hand.write("empty", "x");
    hand.custody(&pinned(&hand, "empty")).refused("ART_DIGEST_MISMATCH");
}

#[test]
fn what_was_built_and_not_shipped() {
    let world = World::promoted();
    let built = world.list("manifest").remove(0);
    world.done(&format!("bundle export --store store --out x.custody.jsonl {built}"));
    world.write("second.txt", "second\n");
    world.custody(&pinned(&world, "second.txt")).refused("CHAIN_STEP_MISSING");
    world.done(&pinned(&world, "second.txt --step build"));
    world.custody(&pinned(&world, "second.txt --step pack")).ended(1);
    world.custody(&pinned(&world, "second.txt --step nonsense")).ended(1);
    // in a store it is the same
    world.refused("verify second.txt --store store", "CHAIN_STEP_MISSING");
    world.done("verify second.txt --store store --step build");
    world.custody(&format!("verify second.txt --store store --pin {}", world.pin())).ended(2);
}

#[test]
fn another_time() {
    let (_, hand) = in_hand();
    hand.done(&pinned(&hand, "all.bin"));
    let state = || fs::read(hand.path(&format!("state/custody/{}.json", hand.pin()))).unwrap();
    let before = state();
    hand.done(&pinned(&hand, "all.bin --at 2098-12-31T23:59:59Z"));
    hand.custody(&pinned(&hand, "all.bin --at 2099-01-01T00:00:00Z")).refused("POLICY_EXPIRED");
    // before it was made
    hand.custody(&pinned(&hand, "all.bin --at 2020-01-01T00:00:00Z")).refused("CHAIN_TIME_ORDER");
    for wrong in ["yesterday", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00+01:00"] {
        hand.custody(&pinned(&hand, &format!("all.bin --at {wrong}"))).ended(2);
    }
    assert_eq!(before, state(), "looking at other times is not remembered");
    hand.done(&pinned(&hand, "all.bin"));
}

/// `art-extra-unlisted`, `art-special-file`.
#[test]
fn a_directory_is_all_that_is_in_it() {
    let (_, hand) = in_hand();
    let all = || hand.custody(&pinned(&hand, "release"));
    fs::create_dir(hand.path("release")).unwrap();
    for entry in fs::read_dir(hand.path(".")).unwrap().flatten() {
        if entry.path().is_file() && entry.file_name() != "pin" {
            fs::rename(entry.path(), hand.path("release").join(entry.file_name())).unwrap();
        }
    }
    assert_eq!(all().ended(0).out.matches("\"ok\": true").count(), 4);
    let refused = |name: &str| {
        let said = all();
        assert!(matches!(said.status, Some(1 | 3)), "{name}: {said:#?}");
        let path = hand.path("release").join(name);
        if path.is_dir() && !path.is_symlink() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        all().ended(0);
    };
    for name in ["extra.dll", "evil.sha256", ".hidden"] {
        hand.write(&format!("release/{name}"), "MZ");
        refused(name);
    }
    hand.write("release/below/extra.dll", "MZ");
    refused("below");
    symlink("all.bin", hand.path("release/link.bin")).unwrap();
    refused("link.bin");
    symlink("/nowhere", hand.path("release/dangling")).unwrap();
    refused("dangling");
    // nobody waits for a pipe
    assert!(Command::new("mkfifo").arg(hand.path("release/pipe")).status().unwrap().success());
    let mut waiting = hand.spawn(&pinned(&hand, "release"));
    let end = Instant::now() + Duration::from_secs(10);
    let ended = loop {
        match waiting.try_wait().unwrap() {
            None if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            ended => break ended,
        }
    };
    if ended.is_none() {
        waiting.kill().unwrap();
        waiting.wait().unwrap();
    }
    assert!(ended.is_some_and(|status| !status.success()), "it waits for what never comes");
    fs::remove_file(hand.path("release/pipe")).unwrap();
    // one bad file of several
    hand.write("release/second.txt", "Second\n");
    assert_eq!(all().ended(1).out.matches("\"ok\": true").count(), 3);
    hand.write("release/second.txt", "second\n");
    // sums that say something else
    let sums = fs::read_dir(hand.path("release"))
        .unwrap()
        .flatten()
        .find(|entry| entry.path().extension().is_some_and(|end| end == "sha256"));
    let sums = sums.unwrap().path();
    let text = fs::read_to_string(&sums).unwrap();
    fs::write(&sums, text.replace(&text[..8], "00000000")).unwrap();
    all().ended(1);
    fs::write(&sums, text).unwrap();
    all().ended(0);
    fs::create_dir(hand.path("nothing")).unwrap();
    hand.custody(&pinned(&hand, "nothing")).refused("CHAIN_STEP_MISSING");
}

#[test]
fn bundles_are_read_strictly_and_joined() {
    let (_, hand) = in_hand();
    let path = fs::read_dir(hand.path("."))
        .unwrap()
        .flatten()
        .find(|entry| entry.path().to_string_lossy().ends_with(".jsonl"));
    let path = path.unwrap().path();
    let text = fs::read_to_string(&path).unwrap();
    let verify = || hand.custody(&pinned(&hand, "all.bin"));
    for (junk, code) in [
        ("not json\n", "PARSE_JSON_INVALID"),
        ("{}\n", "PARSE_FIELD_MISSING"),
        ("\n", "PARSE_JSON_INVALID"),
        ("\u{feff}\n", "PARSE_"),
    ] {
        fs::write(&path, format!("{text}{junk}")).unwrap();
        let said = verify().ended(1);
        assert!(said.codes().iter().any(|found| found.starts_with(code)), "{junk:?}: {said:#?}");
        assert!(said.text("at").contains("line"), "{said:#?}");
    }
    fs::write(&path, "").unwrap();
    verify().refused("POLICY_UNTRUSTED");
    // the same twice, in another order, and without the last line break
    let mut lines: Vec<&str> = text.lines().chain(text.lines()).collect();
    lines.reverse();
    fs::write(&path, lines.join("\n")).unwrap();
    verify().done();
    // one half here, one half there
    let lines: Vec<&str> = text.lines().collect();
    let (one, other) = lines.split_at(lines.len() / 2);
    fs::remove_file(&path).unwrap();
    hand.write("a.custody.jsonl", one.join("\n"));
    verify().ended(1);
    hand.write("b.custody.jsonl", other.join("\n"));
    verify().done();
    fs::rename(hand.path("b.custody.jsonl"), hand.path("elsewhere")).unwrap();
    verify().ended(1);
    hand.done(&pinned(&hand, "all.bin --bundle a.custody.jsonl --bundle elsewhere"));
    fs::remove_file(hand.path("a.custody.jsonl")).unwrap();
    verify().refused("CHAIN_LINK_MISSING");
}

#[test]
fn a_summary_that_others_can_read() {
    let (world, hand) = in_hand();
    let key = world.path("keys/desk").display().to_string();
    hand.custody(&pinned(&hand, "all.bin --summary vsa.json")).ended(2);
    hand.done(&pinned(&hand, &format!("all.bin --summary vsa.json --key {key}")));
    let envelope: Value = serde_json::from_str(&hand.read("vsa.json")).unwrap();
    assert_eq!(envelope["payloadType"], "application/vnd.in-toto+json");
    let mut decode = Command::new("base64");
    let mut decode = decode.arg("-d").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(
        &mut decode.stdin.take().unwrap(),
        envelope["payload"].as_str().unwrap().as_bytes(),
    )
    .unwrap();
    let payload: Value =
        serde_json::from_slice(&decode.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(payload["predicateType"], "https://slsa.dev/verification_summary/v1");
    assert_eq!(payload["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(payload["subject"][0]["name"], "all.bin");
    let predicate = &payload["predicate"];
    assert_eq!(predicate["verificationResult"], "PASSED");
    for member in
        ["verifier", "timeVerified", "resourceUri", "policy", "inputAttestations", "verifiedLevels"]
    {
        assert!(!predicate[member].is_null(), "{member}: {predicate:#}");
    }
    let shown = world.done(&format!("show {}", hand.path("vsa.json").display()));
    assert!(shown.text("payload").contains("PASSED"));
    // not over another file, and not for what was refused
    hand.custody(&pinned(&hand, &format!("all.bin --summary vsa.json --key {key}"))).ended(3);
    hand.write("all.bin", "x");
    hand.custody(&pinned(&hand, &format!("all.bin --summary no.json --key {key}"))).ended(1);
    assert!(!hand.path("no.json").exists());
}

#[test]
fn evidence_goes_out_and_in() {
    let world = World::published();
    let publication = world.list("manifest").pop().unwrap();
    let export = |out: &str| {
        world.custody(&format!("bundle export --store store --out {out} {publication}"))
    };
    let count = export("a.jsonl").done().json()["statements"].clone();
    export("a.jsonl").ended(3);
    export("b.jsonl").done();
    assert_eq!(
        world.read("a.jsonl"),
        world.read("b.jsonl"),
        "the same evidence gives the same bundle"
    );
    assert_eq!(Value::from(world.read("a.jsonl").lines().count()), count);
    world
        .custody(&format!("bundle export --store store --out c.jsonl {}", "0".repeat(64)))
        .refused("CHAIN_LINK_MISSING");
    assert!(!world.path("c.jsonl").exists());

    world.done(&format!("bundle verify a.jsonl --pin {}", world.pin()));
    world.custody("bundle verify a.jsonl").refused("POLICY_UNTRUSTED");
    let less: Vec<String> = world.read("a.jsonl").lines().map(str::to_owned).collect();
    for i in 0..less.len() {
        let mut lines = less.clone();
        lines.remove(i);
        world.write("less.jsonl", lines.join("\n"));
        let said =
            world.custody(&format!("bundle verify less.jsonl --pin {}", world.pin())).ended(1);
        assert_eq!(said.json()["ok"], false, "line {i}");
    }

    world.done(&format!("init --store other --policy policy.dsse.json --pin {}", world.pin()));
    let import = || world.done("bundle import a.jsonl --store other").json()["statements"].clone();
    assert_ne!(import(), 0);
    assert_eq!(import(), 0, "nothing is new the second time");
    world.done("verify www/all.bin --store other");
    // a bundle with a bad line brings nothing in
    world.done(&format!("init --store third --policy policy.dsse.json --pin {}", world.pin()));
    world.write("bad.jsonl", world.read("a.jsonl") + "junk\n");
    world.custody("bundle import bad.jsonl --store third").refused("PARSE_JSON_INVALID");
    assert_eq!(world.done("evidence list --store third").json().as_array().unwrap().len(), 1);

    // one by one
    let ids = world.done("evidence list --store store").json();
    for row in ids.as_array().unwrap() {
        let (id, kind) = (row["id"].as_str().unwrap(), row["kind"].as_str().unwrap());
        fs::remove_file(world.path("one.json")).ok();
        world.done(&format!("evidence get {id} --store store --out one.json"));
        assert_eq!(
            world.read("one.json"),
            world.done(&format!("evidence get {id} --store store")).out
        );
        let added = world.done("evidence add one.json --store third").json();
        assert_eq!((added[0]["id"].as_str(), added[0]["kind"].as_str()), (Some(id), Some(kind)));
        assert_eq!(world.done(&format!("show {id} --store third")).id(), id);
        let typed = world.typed(&format!("show {id} --store store")).done().out;
        assert!(typed.contains(id) && typed.contains("nothing of this is verified"), "{typed}");
    }
    assert_eq!(
        world.done("evidence list --store third").json().as_array().unwrap().len(),
        ids.as_array().unwrap().len()
    );
    world
        .custody(&format!("evidence get {} --store store", "0".repeat(64)))
        .refused("CHAIN_LINK_MISSING");
    world.write("junk.json", "{\"payload\":\"\"}");
    world.refused("evidence add one.json junk.json --store store", "PARSE_FIELD_MISSING");
}
