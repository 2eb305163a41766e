//! JSON that two readers could understand differently, in statements that are otherwise whole.

use custody_core::Code;
use custody_world::honest;

use crate::case::{About, Group, Set, What};

/// The manifest of a build, as a writer writes it.
pub(super) fn manifest() -> String {
    honest().statements["new/build/manifest"].to_json()
}

pub(super) fn statement(text: impl Into<Vec<u8>>) -> What {
    What::Statement(text.into(), false)
}

/// One place of the manifest is changed.
pub(super) struct Swap<'s> {
    pub(super) name: &'s str,
    pub(super) row: &'s str,
    pub(super) about: &'s str,
    pub(super) from: &'s str,
    pub(super) to: &'s str,
    pub(super) code: Code,
}

pub(super) fn swap(group: &mut Group<'_>, control: &str, json: &str, swap: &Swap<'_>) {
    assert!(json.contains(swap.from), "{} in {json}", swap.from);
    let text = json.replacen(swap.from, swap.to, 1);
    let rows: &[&str] = if swap.row.is_empty() { &[] } else { &[swap.row] };
    group.reject(swap.name, control, swap.code, About(swap.about, rows), &statement(text));
}

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("json");
    let json = manifest();
    group.accept(
        "honest",
        About("a manifest as a writer writes it", &[]),
        &What::Statement(json.clone().into(), true),
    );
    spelled_otherwise(&mut group, &json);
    members(&mut group, &json);
    types(&mut group, &json);
    numbers(&mut group, &json);
    times(&mut group, &json);
    texts(&mut group, &json);
    documents(&mut group, &json);
}

fn spelled_otherwise(group: &mut Group<'_>, json: &str) {
    let about = About("tabs, and no line feed at the end", &["json-reserialise"]);
    group.accept("tabs", about, &statement(json.trim_end().replace("  ", "\t")));
    let about = About("a member that in-toto does not define", &["json-unknown-member-own"]);
    group.accept(
        "future-member",
        about,
        &statement(json.replacen("\"_type\"", "\"future\": [1], \"_type\"", 1)),
    );
    let about = About(
        "a member of in-toto in other letters beside the right one",
        &["json-case-variant-member"],
    );
    let other = "\"PredicateType\": \"x\", \"predicateType\"";
    group.accept(
        "case-variant-outside",
        about,
        &statement(json.replacen("\"predicateType\"", other, 1)),
    );
    let about = About("a member's name spelled with an escape", &["json-reserialise"]);
    group.accept(
        "escaped-name",
        about,
        &statement(json.replacen("\"subject\"", "\"sub\\u006aect\"", 1)),
    );
}

fn members(group: &mut Group<'_>, json: &str) {
    let dup = |name, from, to| Swap {
        name,
        row: if name == "escaped-twice" {
            "json-dup-key-escaped"
        } else {
            "json-dup-key-statement"
        },
        about: "one member stands twice",
        from,
        to,
        code: Code::ParseDuplicateKey,
    };
    let cases = [
        dup("type-twice", "\"predicateType\"", "\"predicateType\": \"x\", \"predicateType\""),
        dup("subject-twice", "\"predicateType\"", "\"subject\": [], \"predicateType\""),
        dup("escaped-twice", "\"predicateType\"", "\"sub\\u006aect\": [], \"predicateType\""),
        dup("twice-in-a-map", "\"os\"", "\"os\": \"linux\", \"os\""),
        dup("twice-in-a-digest", "\"digest\": {", "\"digest\": { \"x\": \"1\", \"x\": \"1\","),
        Swap {
            name: "unknown-member",
            row: "json-unknown-member-own",
            about: "a member that the build type does not define",
            from: "\"buildType\"",
            to: "\"evil\": 1, \"buildType\"",
            code: Code::ParseUnknownField,
        },
        Swap {
            name: "case-variant",
            row: "json-case-variant-member",
            about: "a member of the predicate in other letters beside the right one",
            from: "\"buildType\"",
            to: "\"buildtype\": 1, \"buildType\"",
            code: Code::ParseUnknownField,
        },
        Swap {
            name: "parameter-more",
            row: "chain-parameters-added",
            about: "an external parameter that the build type does not define",
            from: "\"step\": \"build\"",
            to: "\"step\": \"build\", \"evil\": \"1\"",
            code: Code::StmtParameterUnexpected,
        },
    ];
    for case in &cases {
        swap(group, "honest", json, case);
    }
}

fn types(group: &mut Group<'_>, json: &str) {
    let (start, end) =
        (json.find("\"subject\": [").unwrap(), json.find("],\n  \"predicateType\"").unwrap());
    let subject = &json[start..=end];
    let cases = [
        ("subject-null", "json-null-for-list", subject, "\"subject\": null"),
        ("subject-object", "json-null-for-list", subject, "\"subject\": {}"),
        ("command-null", "json-null-for-list", "\"command\": [", "\"command\": null, \"c\": ["),
        (
            "inputs-object",
            "json-null-for-list",
            "\"resolvedDependencies\": [",
            "\"resolvedDependencies\": {}, \"c\": [",
        ),
        (
            "parameters-list",
            "json-object-from-array",
            "\"internalParameters\": {",
            "\"internalParameters\": [], \"i\": {",
        ),
        ("size-text", "json-type-juggling", "\"size\": 12", "\"size\": \"12\""),
        ("size-true", "json-type-juggling", "\"size\": 12", "\"size\": true"),
        ("step-number", "json-type-juggling", "\"step\": \"build\"", "\"step\": 1"),
    ];
    for (name, row, from, to) in cases {
        let about = "a member of another JSON type";
        swap(
            group,
            "honest",
            json,
            &Swap { name, row, about, from, to, code: Code::ParseFieldType },
        );
    }
}

fn numbers(group: &mut Group<'_>, json: &str) {
    for (name, size) in
        [("size-2-53", "9007199254740993"), ("size-2-64-less-one", "18446744073709551615")]
    {
        let about = About("a size beyond what a float can hold exactly", &["json-number-forms"]);
        group.accept(
            name,
            about,
            &What::Statement(
                json.replacen("\"size\": 12", &format!("\"size\": {size}"), 1).into(),
                true,
            ),
        );
    }
    for (name, size) in [
        ("size-float", "12.0"),
        ("size-exponent", "1e3"),
        ("size-negative", "-1"),
        ("size-negative-zero", "-0"),
        ("size-2-64", "18446744073709551616"),
        ("size-huge-exponent", "1E400"),
    ] {
        let to = &format!("\"size\": {size}");
        let about = "a number that is not exact and whole";
        swap(
            group,
            "honest",
            json,
            &Swap {
                name,
                row: "json-number-forms",
                about,
                from: "\"size\": 12",
                to,
                code: Code::ParseNumberUnsafe,
            },
        );
    }
    let about = "a number with a zero before it";
    swap(
        group,
        "honest",
        json,
        &Swap {
            name: "size-leading-zero",
            row: "json-number-forms",
            about,
            from: "\"size\": 12",
            to: "\"size\": 012",
            code: Code::ParseJsonInvalid,
        },
    );
}

fn times(group: &mut Group<'_>, json: &str) {
    let started = json.split("\"startedOn\": \"").nth(1).unwrap().split('"').next().unwrap();
    for (name, time) in [
        ("time-blank", "2026-03-02 03:51:50Z"),
        ("time-lower-case", "2026-03-02t03:51:50z"),
        ("time-no-zone", "2026-03-02T03:51:50"),
        ("time-zone", "2026-03-02T03:51:50+00:00"),
        ("time-fraction", "2026-03-02T03:51:50.0Z"),
        ("time-leap-second", "2026-03-02T03:51:60Z"),
        ("time-february-30", "2026-02-30T03:51:50Z"),
        ("time-no-leap-year", "2027-02-29T03:51:50Z"),
        ("time-month-13", "2026-13-02T03:51:50Z"),
        ("time-hour-24", "2026-03-02T24:00:00Z"),
        ("time-year-10000", "10000-03-02T03:51:50Z"),
        ("time-before-1970", "1969-12-31T23:59:59Z"),
        ("time-number", " 1772423510"),
    ] {
        let about = "a time in another form than the one, or no such moment";
        swap(
            group,
            "honest",
            json,
            &Swap {
                name,
                row: "json-time-forms",
                about,
                from: started,
                to: time,
                code: Code::ParseTimeInvalid,
            },
        );
    }
    let leap = json.replacen(started, "2024-02-29T23:59:59Z", 1);
    let about = About("the 29th of February of a leap year", &["json-time-forms"]);
    group.accept("time-leap-year", about, &What::Statement(leap.into(), true));
}

fn texts(group: &mut Group<'_>, json: &str) {
    for (name, row, to) in [
        ("nul", "json-nul-and-controls", "\"invocationId\": \"\\u0000"),
        ("escape", "json-terminal-escape", "\"invocationId\": \"\\u001b[2J"),
        ("carriage-return", "json-nul-and-controls", "\"invocationId\": \"\\r"),
        ("line-separator", "json-nul-and-controls", "\"invocationId\": \"\\u2028"),
        ("right-to-left", "json-bidi-homoglyph", "\"invocationId\": \"\\u202e"),
        ("zero-width", "json-bidi-homoglyph", "\"invocationId\": \"\\u200b"),
        ("c1-control", "json-nul-and-controls", "\"invocationId\": \"\\u0085"),
        ("lone-surrogate", "json-encoding", "\"invocationId\": \"\\ud800"),
        ("swapped-surrogates", "json-encoding", "\"invocationId\": \"\\udc00\\ud800"),
    ] {
        let about = "text with what nobody can see, or with half a character";
        let from = "\"invocationId\": \"";
        swap(
            group,
            "honest",
            json,
            &Swap { name, row, about, from, to, code: Code::ParseUnicodeInvalid },
        );
    }
    let emoji =
        json.replacen("\"invocationId\": \"", "\"invocationId\": \"\\ud83d\\ude00\\n\\t", 1);
    let about = About("a whole pair of surrogates, a line feed and a tab", &["json-encoding"]);
    group.accept("surrogate-pair", about, &statement(emoji));
    let raw = json.replacen("\"invocationId\": \"", "\"invocationId\": \"\n", 1);
    let about = About("a line feed that is not escaped", &["json-nul-and-controls"]);
    group.reject("raw-line-feed", "honest", Code::ParseJsonInvalid, about, &statement(raw));
}

fn documents(group: &mut Group<'_>, json: &str) {
    let bytes = |bad: &[u8]| {
        let at = json.find("run of").unwrap();
        statement([&json.as_bytes()[..at], bad, &json.as_bytes()[at..]].concat())
    };
    for (name, bad) in [
        ("utf8-invalid", &b"\xff"[..]),
        ("utf8-overlong", b"\xc0\xaf"),
        ("utf8-surrogate", b"\xed\xa0\x80"),
        ("utf8-cut", b"\xe2\x82"),
    ] {
        let about = About("bytes that are not UTF-8", &["json-encoding"]);
        group.reject(name, "honest", Code::ParseUnicodeInvalid, about, &bytes(bad));
    }
    for (name, row, text, code) in [
        ("byte-order-mark", "json-encoding", format!("\u{feff}{json}"), Code::ParseUnicodeInvalid),
        ("two-documents", "json-trailing-data", format!("{json}{json}"), Code::ParseTrailingData),
        ("comment", "json-trailing-data", format!("{json} // x"), Code::ParseTrailingData),
        ("trailing-nul", "json-trailing-data", format!("{json}\0"), Code::ParseTrailingData),
        ("empty", "env-malformed-payload-valid-sig", String::new(), Code::ParseJsonInvalid),
        (
            "cut",
            "env-malformed-payload-valid-sig",
            json[..json.len() / 2].into(),
            Code::ParseJsonInvalid,
        ),
        (
            "trailing-comma",
            "json-trailing-data",
            json.trim_end().trim_end_matches('}').to_owned() + ",}",
            Code::ParseJsonInvalid,
        ),
        ("single-quotes", "json-trailing-data", json.replace('"', "'"), Code::ParseJsonInvalid),
        (
            "nan",
            "json-number-forms",
            json.replacen("\"size\": 12", "\"size\": NaN", 1),
            Code::ParseJsonInvalid,
        ),
    ] {
        let about = About("what is not one JSON document", &[row]);
        group.reject(name, "honest", code, about, &statement(text));
    }
    let nested = |levels: usize| {
        let junk = format!("\"x\": {}{}, \"_type\"", "[".repeat(levels), "]".repeat(levels));
        statement(json.replacen("\"_type\"", &junk, 1))
    };
    let about = About("32 levels, in a member that nobody reads", &["json-deep-nesting"]);
    group.accept("levels-32", about, &nested(31));
    let about = About("33 levels, in a member that nobody reads", &["json-deep-nesting"]);
    group.reject("levels-33", "levels-32", Code::ParseDepthExceeded, about, &nested(32));
}
