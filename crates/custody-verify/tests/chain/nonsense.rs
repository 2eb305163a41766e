//! Documents that say what no honest machine says, signed by the right one.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_world::{assert_accepted, assert_refused, change, content, findings, honest};

/// `chain-type-confusion`, `chain-build-type`, `cmp-over-credit`.
#[test]
fn a_document_of_another_kind_is_refused() {
    let world = honest();
    let signoff = world.id("new/promote/signoff/bob");
    let report = change()
        .manifest("new/build/manifest", move |manifest| manifest.task = signoff)
        .build()
        .file();
    assert_refused(&report, Code::StmtPredicateType);
    let request = world.id("new/promote/request");
    let report =
        change().task("new/build/task", move |task| task.authorization = request).build().file();
    assert_refused(&report, Code::StmtPredicateType);
    let swap = |from: &'static str, to: &'static str| {
        change().json("new/build/manifest", move |json| json.replace(from, to))
    };
    assert_refused(
        &swap("in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1").build().file(),
        Code::StmtType,
    );
    assert_refused(
        &swap("https://custody.dev/step/v1", "https://actions.github.io/buildtypes/workflow/v1")
            .build()
            .file(),
        Code::StmtBuildType,
    );
    assert_refused(
        &swap("slsa.dev/provenance/v1", "example.org/other/v1").build().file(),
        Code::StmtPredicateType,
    );
}

/// Rows `art-name-traversal`, `art-dup-name`, `art-name-collision`, `art-empty-digest-set`,
/// `art-weak-digest-only`, `art-unknown-digest-only`, `art-empty-manifest`, `json-*`, signed by the
/// right worker.
#[test]
fn a_worker_that_signs_nonsense_is_refused() {
    let sha256 = format!("\"sha256\": \"{}\"", Sha256::of(content("new", "hello").as_bytes()));
    let half = sha256[..50].to_string() + "\"";
    let upper = format!("\"sha256\": \"{}\"", Sha256::of(b"x").to_string().to_uppercase());
    let cases: Vec<(&str, String, Code)> = vec![
        ("\"name\": \"dist/hello\"", "\"name\": \"../hello\"".into(), Code::ArtNameInvalid),
        (
            "\"name\": \"dist/hello\"",
            "\"name\": \"dist/hello\\u0000\"".into(),
            Code::ParseUnicodeInvalid,
        ),
        (
            "\"name\": \"dist/hello\"",
            "\"name\": \"dist/hello.mar\"".into(),
            Code::StmtSubjectDuplicate,
        ),
        ("\"name\": \"dist/hello\"", "\"name\": \"dist/HELLO.mar\"".into(), Code::ArtNameCollision),
        (
            "\"name\": \"dist/hello\"",
            "\"name\": \"dist/hello.mar/x\"".into(),
            Code::ArtNameCollision,
        ),
        (&sha256, String::new(), Code::StmtDigestMissing),
        (
            &sha256,
            "\"sha1\": \"da39a3ee5e6b4b0d3255bfef95601890afd80709\"".into(),
            Code::StmtDigestAlg,
        ),
        (&sha256, "\"crc32\": \"00000000\"".into(), Code::StmtDigestMissing),
        (&sha256, half, Code::StmtDigestFormat),
        (&sha256, upper, Code::StmtDigestFormat),
        (
            "\"predicateType\"",
            "\"predicateType\": \"x\", \"predicateType\"".into(),
            Code::ParseDuplicateKey,
        ),
        (
            "\"predicateType\"",
            "\"predic\\u0061teType\": \"x\", \"predicateType\"".into(),
            Code::ParseDuplicateKey,
        ),
        ("\"buildType\"", "\"evil\": 1, \"buildType\"".into(), Code::ParseUnknownField),
        ("\"buildType\"", "\"buildtype\": 1, \"buildType\"".into(), Code::ParseUnknownField),
        ("\"size\": ", "\"size\": 1.0, \"s\": ".into(), Code::ParseNumberUnsafe),
        ("\"size\": ", "\"size\": \"1\", \"s\": ".into(), Code::ParseFieldType),
        ("\"command\": [", "\"command\": null, \"c\": [".into(), Code::ParseFieldType),
        ("\"invocationId\": \"", "\"invocationId\": \"\\u202e".into(), Code::ParseUnicodeInvalid),
        ("\"startedOn\": \"", "\"startedOn\": \" ".into(), Code::ParseTimeInvalid),
    ];
    let control = change().json("new/build/manifest", |json| {
        json.replace("\"_type\"", "\"future\": [1], \"_type\"").replace("  ", "\t")
    });
    assert_accepted(&control.build().file());
    for (from, to, code) in cases {
        let from = from.to_string();
        let report = change()
            .json("new/build/manifest", move |json| {
                assert!(json.contains(&from), "{from} in {json}");
                json.replacen(&from, &to, 1)
            })
            .build()
            .file();
        assert_refused(&report, code);
    }
    for (whole, code) in [
        ("", Code::ParseJsonInvalid),
        ("null", Code::ParseFieldType),
        ("[]", Code::ParseFieldType),
        ("{}{}", Code::ParseTrailingData),
    ] {
        let report = change().json("new/build/manifest", |_| whole.into()).build().file();
        assert_refused(&report, code);
    }
    let empty = change().json("new/build/manifest", |json| {
        let from = json.find("\"subject\": [").unwrap() + 12;
        let to = json.find("],\n  \"predicateType\"").unwrap();
        format!("{}{}", &json[..from], &json[to..])
    });
    assert_refused(&empty.build().file(), Code::StmtSubjectEmpty);
}

/// `json-unknown-member-own`: every object inside our own predicates is closed.
#[test]
fn an_unknown_member_anywhere_in_our_own_predicates_is_refused() {
    for name in [
        "new/promote/request",
        "new/promote/signoff/bob",
        "new/promote/authorization",
        "new/partial/task",
    ] {
        let json = honest().statements[name].to_json();
        let predicate = json.find("\"predicate\": {").unwrap();
        let places: Vec<usize> =
            json.match_indices('{').map(|(i, _)| i).filter(|i| *i > predicate).collect();
        assert!(!places.is_empty());
        for place in places {
            let opens_map = json[..place].trim_end().ends_with("\"variables\":")
                || json[..place].trim_end().ends_with("\"parameters\":")
                || json[..place].trim_end().ends_with("\"digest\":");
            if opens_map {
                continue;
            }
            let report = change()
                .json(name, move |json| {
                    format!("{}{{\"evil\": \"1\", {}", &json[..place], &json[place + 1..])
                })
                .build()
                .file();
            assert!(
                report.codes().contains(&Code::ParseUnknownField),
                "{name} at {place}:{}",
                findings(&report)
            );
        }
    }
}
