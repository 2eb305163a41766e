//! Bundles: one envelope on each line and nothing else.

use custody_core::Code;
use custody_core::envelope::Envelope;
use custody_store::bundle;
use custody_world::{honest, signed};

use super::envelope::unsigned;
use crate::case::{About, Set, What};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("bundle");
    let world = honest();
    let names = ["new/ship/authorization", "new/ship/signoff/bob", "new/ship/signoff/carol"];
    let envelopes: Vec<Envelope> = names.map(|name| world.envelopes[name].clone()).into();
    let ids: Vec<_> = envelopes.iter().map(Envelope::id).collect();
    let text = bundle::write(&envelopes);
    let accept = |text: String| What::Bundle(text.into_bytes(), ids.clone());
    group.accept("honest", About("three statements", &[]), &accept(text.clone()));
    let policy = world.policies[0].clone();
    let with_policy = format!("{}\n{text}", policy.to_json());
    let all = ids.iter().copied().chain([policy.id()]).collect();
    let what = What::Bundle(with_policy.into_bytes(), all);
    group.accept("with-policy", About("a policy and three statements", &[]), &what);
    group.accept(
        "no-line-feed",
        About("no line feed at the end", &[]),
        &accept(text.trim_end().into()),
    );
    let about = About("nothing in it", &["chain-vacuous-empty"]);
    group.accept("empty", about, &What::Bundle(Vec::new(), Vec::new()));
    let reversed: String = text.lines().rev().map(|line| format!("{line}\n")).collect();
    let about = About("the lines in another order", &["sto-duplicate-delivery"]);
    group.accept("reversed", about, &accept(reversed));
    let about = About("every line twice", &["sto-duplicate-delivery"]);
    group.accept("twice", about, &accept(format!("{text}{text}")));
    let about = About("blanks around each line's envelope", &["env-envelope-malleability"]);
    let spaced: String = text.lines().map(|line| format!(" {line}\t\r\n")).collect();
    group.accept("spaced", about, &accept(spaced));
    let (one, other) = (signed(unsigned(), &["desk"]), signed(unsigned(), &["gate"]));
    let about = About("the signatures of one statement on two lines", &["env-unknown-key-extra"]);
    let what =
        What::Bundle(format!("{}\n{}\n", one.to_json(), other.to_json()).into(), vec![one.id()]);
    group.accept("one-statement-twice", about, &what);
    let first = text.lines().next().unwrap();
    let unsigned = first.split_once("\"signatures\":").unwrap().0.to_owned() + "\"signatures\":[]}";
    let cut = &text[..text.len() - 30];
    for (name, row, text, code, about) in [
        (
            "empty-line",
            "json-trailing-data",
            text.replacen('\n', "\n\n", 1),
            Code::ParseJsonInvalid,
            "an empty line in the middle",
        ),
        (
            "empty-line-at-end",
            "json-trailing-data",
            format!("{text}\n"),
            Code::ParseJsonInvalid,
            "an empty line at the end",
        ),
        (
            "two-on-a-line",
            "env-two-envelopes-one-file",
            text.replacen('\n', " ", 1),
            Code::ParseTrailingData,
            "two envelopes on one line",
        ),
        (
            "indented",
            "env-envelope-malleability",
            text.replacen(",\"payload\"", ",\n\"payload\"", 1),
            Code::ParseJsonInvalid,
            "an envelope over two lines",
        ),
        (
            "list",
            "json-object-from-array",
            format!("[{}]\n", text.trim_end().replace('\n', ",")),
            Code::ParseFieldType,
            "a JSON list of envelopes",
        ),
        (
            "cut",
            "json-trailing-data",
            cut.to_owned(),
            Code::ParseJsonInvalid,
            "the last line is cut",
        ),
        (
            "bom",
            "json-encoding",
            format!("\u{feff}{text}"),
            Code::ParseUnicodeInvalid,
            "a byte order mark",
        ),
        (
            "no-signature",
            "env-no-signatures",
            format!("{text}{unsigned}\n"),
            Code::EnvNoSignature,
            "a line without signatures",
        ),
        (
            "comment",
            "json-trailing-data",
            format!("# evidence\n{text}"),
            Code::ParseJsonInvalid,
            "a line of comment",
        ),
    ] {
        group.reject(
            name,
            "honest",
            code,
            About(about, &[row]),
            &What::Bundle(text.into_bytes(), Vec::new()),
        );
    }
}
