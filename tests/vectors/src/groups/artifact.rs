//! What a manifest says of artifacts: names, sizes and digests.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_world::{artifact, change, content, honest};

use super::json::{Swap, manifest, statement, swap};
use super::{built, shipped};
use crate::case::{About, Chain, Group, Set, What};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("artifact");
    let json = manifest();
    let about = About("a manifest of two artifacts", &[]);
    group.accept("honest", about, &What::Statement(json.clone().into(), true));
    names(&mut group, &json);
    digests(&mut group, &json);
    asked(&mut group);
    recorded(&mut group);
}

const HELLO: &str = "\"name\": \"dist/hello\",";

fn names(group: &mut Group<'_>, json: &str) {
    let long = "x".repeat(1025);
    let (traversal, windows, shell) =
        ("art-name-traversal", "art-name-windows", "art-name-option-or-shell");
    for (name, row, artifact) in [
        ("name-climbs", traversal, "../hello"),
        ("name-climbs-inside", traversal, "a/../../hello"),
        ("name-climbs-at-end", traversal, "a/.."),
        ("name-absolute", traversal, "/etc/hello"),
        ("name-backslash", traversal, "..\\\\hello"),
        ("name-drive", traversal, "C:hello"),
        ("name-share", traversal, "\\\\\\\\host\\\\hello"),
        ("name-empty", traversal, ""),
        ("name-dot", traversal, "."),
        ("name-dot-segment", traversal, "./hello"),
        ("name-two-slashes", traversal, "dist//hello"),
        ("name-slash-at-end", traversal, "dist/hello/"),
        ("name-device", windows, "CON"),
        ("name-device-with-ending", windows, "dist/nul.txt"),
        ("name-stream", windows, "hello:b"),
        ("name-dot-at-end", windows, "hello."),
        ("name-blank-at-end", windows, "hello "),
        ("name-option", shell, "--delete"),
        ("name-option-inside", shell, "dist/-oProxyCommand=x"),
        ("name-substitution", shell, "$(touch p)"),
        ("name-semicolon", shell, ";x"),
        ("name-percent", shell, "%2e%2e"),
        ("name-tilde-star", "art-wildcard-widens", "dist/*"),
        ("name-right-to-left", "json-bidi-homoglyph", "hello\u{430}"),
        ("name-1025-bytes", "res-path-length", &long),
    ] {
        let to = &format!("\"name\": \"{artifact}\",");
        let about = "a name that is not safe on every system";
        swap(
            group,
            "honest",
            json,
            &Swap { name, row, about, from: HELLO, to, code: Code::ArtNameInvalid },
        );
    }
    for (name, artifact) in
        [("name-signs", "dist/a b._-+~@=,()[]#c"), ("name-1024-bytes", &long[1..])]
    {
        let to = format!("\"name\": \"{artifact}\",");
        let about = About("a name with all that names may have", &["art-name-traversal"]);
        group.accept(name, about, &What::Statement(json.replacen(HELLO, &to, 1).into(), true));
    }
    for (name, row, to, code) in [
        ("name-twice", "art-dup-name", "dist/hello.mar", Code::StmtSubjectDuplicate),
        ("names-by-case", "art-name-collision", "dist/HELLO.mar", Code::ArtNameCollision),
        ("name-below-name", "art-name-collision", "dist/hello.mar/x", Code::ArtNameCollision),
        ("names-by-case-of-folder", "art-name-collision", "DIST/Hello.mar", Code::ArtNameCollision),
    ] {
        let to = &format!("\"name\": \"{to}\",");
        let about = "two names that are one file on some system";
        swap(group, "honest", json, &Swap { name, row, about, from: HELLO, to, code });
    }
}

fn digests(group: &mut Group<'_>, json: &str) {
    let whole = Sha256::of(content("new", "hello").as_bytes()).to_string();
    let sha256 = &format!("\"sha256\": \"{whole}\"");
    for (name, row, to, code) in [
        ("digest-none", "art-empty-digest-set", String::new(), Code::StmtDigestMissing),
        (
            "digest-sha1",
            "art-weak-digest-only",
            format!("\"sha1\": \"{}\"", &whole[..40]),
            Code::StmtDigestAlg,
        ),
        (
            "digest-md5",
            "art-weak-digest-only",
            format!("\"md5\": \"{}\"", &whole[..32]),
            Code::StmtDigestAlg,
        ),
        (
            "digest-unknown",
            "art-unknown-digest-only",
            "\"dirHash\": \"h1:x\"".into(),
            Code::StmtDigestMissing,
        ),
        (
            "digest-prefix",
            "env-digest-prefix",
            format!("\"sha256\": \"{}\"", &whole[..8]),
            Code::StmtDigestFormat,
        ),
        (
            "digest-63",
            "json-hex-forms",
            format!("\"sha256\": \"{}\"", &whole[..63]),
            Code::StmtDigestFormat,
        ),
        (
            "digest-65",
            "json-hex-forms",
            format!("\"sha256\": \"{whole}0\""),
            Code::StmtDigestFormat,
        ),
        (
            "digest-upper",
            "json-hex-forms",
            format!("\"sha256\": \"{}\"", whole.to_uppercase()),
            Code::StmtDigestFormat,
        ),
        (
            "digest-0x",
            "json-hex-forms",
            format!("\"sha256\": \"0x{whole}\""),
            Code::StmtDigestFormat,
        ),
        (
            "digest-named",
            "json-hex-forms",
            format!("\"sha256\": \"sha256:{whole}\""),
            Code::StmtDigestFormat,
        ),
        (
            "digest-blank",
            "json-hex-forms",
            format!("\"sha256\": \" {whole}\""),
            Code::StmtDigestFormat,
        ),
        (
            "digest-sha512-short",
            "json-hex-forms",
            format!("{sha256}, \"sha512\": \"{whole}\""),
            Code::StmtDigestFormat,
        ),
    ] {
        let about = "a digest that is not whole, or not strong enough, or not there";
        swap(group, "honest", json, &Swap { name, row, about, from: sha256, to: &to, code });
    }
    let beside = json.replacen(sha256, &format!("\"sha1\": \"{}\", {sha256}", &whole[..40]), 1);
    let about = About("a weak digest beside sha256, which is ignored", &["art-weak-digest-only"]);
    group.accept("digest-weak-beside", about, &statement(beside));
    let (from, to) =
        (json.find("\"subject\": [").unwrap() + 12, json.find("],\n  \"predicateType\"").unwrap());
    let about = About("a manifest about nothing", &["art-empty-manifest"]);
    let none = format!("{}{}", &json[..from], &json[to..]);
    group.reject("no-artifact", "honest", Code::StmtSubjectEmpty, about, &statement(none));
    let sizeless = json.replacen(
        "\"annotations\": {\n        \"size\": 12\n      }",
        "\"annotations\": {}",
        1,
    );
    assert_ne!(sizeless, json);
    let about = About("an artifact without its size", &["art-size-mismatch"]);
    group.reject("no-size", "honest", Code::ParseFieldMissing, about, &statement(sizeless));
}

/// The question is changed, not the evidence.
fn asked(group: &mut Group<'_>) {
    let world = honest();
    let with = |name: &str, bytes: &str| {
        let What::Chain(chain) = shipped(&world) else { panic!("a chain") };
        let question = world.ask(name, bytes);
        What::Chain(Chain { question, content: Some(bytes.into()), ..chain })
    };
    let good = content("new", "partial, signed");
    let changed = good.replace("signed", "sigmed");
    for (name, code, row, about, file, bytes) in [
        (
            "byte-changed",
            Code::ArtDigestMismatch,
            "art-byte-changed",
            "one byte of the file is changed",
            "hello.partial",
            changed.as_str(),
        ),
        (
            "longer",
            Code::ArtDigestMismatch,
            "art-byte-changed",
            "the file has one byte more",
            "hello.partial",
            &format!("{good}\n"),
        ),
        (
            "empty",
            Code::ArtDigestMismatch,
            "art-byte-changed",
            "the file is empty",
            "hello.partial",
            "",
        ),
        (
            "another-name",
            Code::ArtUnlisted,
            "art-extra-unlisted",
            "a good file under another name",
            "firefox.exe",
            &good,
        ),
        (
            "unknown",
            Code::ChainStepMissing,
            "art-extra-unlisted",
            "a file that no manifest lists",
            "evil.dll",
            "evil",
        ),
        (
            "anothers-bytes",
            Code::ArtUnlisted,
            "art-byte-changed",
            "another file of the release under this name",
            "hello.partial",
            &content("new", "hello, signed"),
        ),
    ] {
        group.reject(name, "chain/honest", code, About(about, &[row]), &with(file, bytes));
    }
}

/// The manifest is changed, and rightly signed.
fn recorded(group: &mut Group<'_>) {
    let build = |edit: fn(&mut custody_core::statement::Manifest)| {
        built(&change().manifest("new/build/manifest", edit).build())
    };
    let what = build(|manifest| manifest.artifacts[0].size += 1);
    let about = About("the manifest has the right digest and a wrong size", &["art-size-mismatch"]);
    group.reject("size", "chain/built", Code::ArtSizeMismatch, about, &what);
    let what = build(|manifest| manifest.artifacts.push(artifact("evil.sh", "evil")));
    let rows = &["art-extra-unlisted", "chain-delegation-widened"];
    let about = About("an output that the policy does not allow", rows);
    group.reject("undeclared", "chain/built", Code::ArtUnlisted, about, &what);
    let what = built(
        &change()
            .task("new/build/task", |task| task.outputs.push("dist/hello.exe".parse().unwrap()))
            .build(),
    );
    let about = About("an output that the task demands is not there", &["art-missing"]);
    group.reject("missing", "chain/built", Code::ArtMissing, about, &what);
    let what = built(&change().task("new/build/task", |task| task.sha512 = true).build());
    let about =
        About("the task demands sha512 and the manifest has none", &["art-empty-digest-set"]);
    group.reject("sha512-missing", "chain/built", Code::StmtDigestMissing, about, &what);
    let publish = |edit: fn(&mut custody_core::statement::Manifest)| {
        shipped(&change().manifest("new/publish/manifest", edit).build())
    };
    let what = publish(|manifest| manifest.artifacts.push(artifact("evil.dll", "evil")));
    let about = About(
        "a file more was published than went in",
        &["art-extra-unlisted", "gate-output-unlinked"],
    );
    group.reject("published-more", "chain/honest", Code::ChainInputUnaccounted, about, &what);
    let what =
        publish(|manifest| manifest.artifacts.retain(|artifact| artifact.name.as_str() != "hello"));
    let about = About("a file less was published than went in", &["art-missing"]);
    group.reject("published-less", "chain/honest", Code::ArtMissing, about, &what);
    let what = publish(|manifest| manifest.artifacts[0] = artifact("hello", "evil"));
    let about = About("other bytes were published than went in", &["gate-output-unlinked"]);
    group.reject("published-other", "chain/honest", Code::ChainInputUnaccounted, about, &what);
}
