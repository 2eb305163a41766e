//! Statements of each kind, and what is wrong in one place of them.

use custody_core::Code;
use custody_core::statement::{Resolve, Stage, Statement};
use custody_world::{World, honest};

use super::json::{Swap, statement, swap};
use crate::case::{About, Group, Set, What};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("statement");
    let world = honest();
    let unpublished = world.clone().unpublished();
    let summary = world.summary(&unpublished.gate("new/publish/task"));
    let intent = world.intent("new/publish/task", Stage::Announced, 101_450);
    let resume =
        world.resolution("new/publish/task", Resolve::Resume(world.id("new/build/task")), "carol");
    let manifest = world.id("new/build/manifest");
    let supersede = world.resolution("new/build/task", Resolve::Supersede(manifest), "carol");
    let documents: [(&str, Statement); 10] = [
        ("request", world.statements["new/ship/request"].clone()),
        ("sign-off", world.statements["new/ship/signoff/carol"].clone()),
        ("authorization", world.statements["new/ship/authorization"].clone()),
        ("task", world.statements["new/partial/task"].clone()),
        ("publication", world.statements["new/publish/task"].clone()),
        ("manifest", world.statements["new/partial/manifest"].clone()),
        ("summary", summary.into()),
        ("intent", intent.into()),
        ("resume", resume.into()),
        ("supersede", supersede.into()),
    ];
    for (name, document) in documents {
        let about = format!("a {} as a writer writes it", document.kind());
        let what = What::Statement(document.to_json().into(), true);
        group.accept(name, About(&about, &[]), &what);
    }
    types(&mut group, &world);
    unknown_members(&mut group, &world);
    requests_and_people(&mut group, &world);
    tasks(&mut group, &world);
    manifests(&mut group, &world);
}

fn types(group: &mut Group<'_>, world: &World) {
    let json = world.statements["new/partial/manifest"].to_json();
    let provenance = "\"predicateType\": \"https://slsa.dev/provenance/v1\"";
    let kind = |kind: &str| format!("\"predicateType\": \"{kind}\"");
    for (name, row, from, to, code) in [
        (
            "statement-v01",
            "chain-type-confusion",
            "in-toto.io/Statement/v1",
            "in-toto.io/Statement/v0.1".into(),
            Code::StmtType,
        ),
        (
            "no-type",
            "chain-type-confusion",
            "\"_type\": \"https://in-toto.io/Statement/v1\",",
            String::new(),
            Code::ParseFieldMissing,
        ),
        (
            "unknown-type",
            "chain-any-attestation",
            provenance,
            kind("https://example.org/other/v1"),
            Code::StmtPredicateType,
        ),
        (
            "provenance-v02",
            "chain-type-confusion",
            provenance,
            kind("https://slsa.dev/provenance/v0.2"),
            Code::StmtPredicateType,
        ),
        (
            "cot",
            "cmp-over-credit",
            provenance,
            kind("https://taskcluster.net/chain-of-trust/v1"),
            Code::StmtPredicateType,
        ),
        (
            "build-type",
            "chain-build-type",
            "https://custody.dev/step/v1",
            "https://actions.github.io/buildtypes/workflow/v1".into(),
            Code::StmtBuildType,
        ),
    ] {
        let about = "a statement that says it is of another type";
        let to = to.as_str();
        swap(group, "manifest", &json, &Swap { name, row, about, from, to, code });
    }
}

fn unknown_members(group: &mut Group<'_>, world: &World) {
    for (name, control, document) in [
        ("request-member", "request", "new/ship/request"),
        ("sign-off-member", "sign-off", "new/ship/signoff/carol"),
        ("authorization-member", "authorization", "new/ship/authorization"),
        ("task-member", "task", "new/partial/task"),
    ] {
        let json = world.statements[document].to_json();
        let about = "a member that this predicate does not define";
        swap(
            group,
            control,
            &json,
            &Swap {
                name,
                row: "json-unknown-member-own",
                about,
                from: "\"predicate\": {",
                to: "\"predicate\": {\"evil\": 1,",
                code: Code::ParseUnknownField,
            },
        );
    }
}

fn requests_and_people(group: &mut Group<'_>, world: &World) {
    let request = world.statements["new/ship/request"].to_json();
    let commit = "2".repeat(40);
    for (name, row, from, to, code) in [
        ("source-branch", "chain-source-revision", commit.as_str(), "main", Code::StmtDigestFormat),
        ("source-prefix", "chain-source-revision", &commit, "2222222", Code::StmtDigestFormat),
        (
            "source-tag",
            "chain-source-revision",
            "\"gitCommit\"",
            "\"gitTag\"",
            Code::StmtDigestMissing,
        ),
        (
            "sources-differ",
            "chain-predicate-contradiction",
            &commit,
            &"3".repeat(40),
            Code::ParseFieldType,
        ),
        (
            "nonce-short",
            "chain-task-reused",
            "\"nonce\": \"0f",
            "\"nonce\": \"0",
            Code::ParseFieldType,
        ),
        (
            "version-with-blank",
            "json-bidi-homoglyph",
            "\"version\": \"1.1.0\"",
            "\"version\": \"1.1 0\"",
            Code::ParseFieldType,
        ),
        (
            "product-empty",
            "chain-cross-product",
            "\"product\": \"hello\"",
            "\"product\": \"\"",
            Code::ParseFieldType,
        ),
        (
            "parameter-number",
            "json-type-juggling",
            "\"locale\": \"en\"",
            "\"locale\": 1",
            Code::ParseFieldType,
        ),
        ("no-policy", "pol-field-missing", "\"phase\": \"ship\",", "", Code::ParseFieldMissing),
    ] {
        let about = "one value of the request is none that can be meant";
        swap(group, "request", &request, &Swap { name, row, about, from, to, code });
    }
    let signoff = world.statements["new/ship/signoff/carol"].to_json();
    for (name, row, from, to, code) in [
        (
            "decision-unknown",
            "hum-decision-reject",
            "\"approve\"",
            "\"reject\"",
            Code::ParseFieldType,
        ),
        (
            "withdraws-nothing",
            "hum-withdrawal-replayed",
            "\"approve\"",
            "\"withdraw\"",
            Code::ParseFieldType,
        ),
        (
            "person-two",
            "hum-same-person-two-keys",
            "\"person\": \"carol\"",
            "\"person\": [\"carol\", \"bob\"]",
            Code::ParseFieldType,
        ),
    ] {
        let about = "one value of the sign-off is none that can be meant";
        swap(group, "sign-off", &signoff, &Swap { name, row, about, from, to, code });
    }
}

fn tasks(group: &mut Group<'_>, world: &World) {
    let json = world.statements["new/partial/task"].to_json();
    let command = "\"command\": [\n      \"scripts/partial.sh\"\n    ]";
    let task = world.id("new/build/task").to_string();
    let half = &task[..32];
    let weak = "\"sha256\": \"38af692dd9d8ad23452d6fa0eea8c069bcffb7baa53c479b9172d559e0b2f8b0\"";
    let both = format!("{command}, \"destination\": \"s3://x/\"");
    for (name, row, from, to, code) in [
        ("no-command", "chain-parameters-added", command, "\"command\": []", Code::ParseFieldType),
        (
            "command-and-destination",
            "gate-destination",
            command,
            both.as_str(),
            Code::ParseFieldType,
        ),
        ("input-by-prefix", "env-digest-prefix", &task, half, Code::StmtDigestFormat),
        (
            "input-of-nothing",
            "chain-link-weak-digest",
            "\"task\": \"",
            "\"url\": \"",
            Code::ParseFieldMissing,
        ),
        (
            "input-directory-climbs",
            "art-name-traversal",
            "\"directory\": \"new\"",
            "\"directory\": \"../new\"",
            Code::ArtNameInvalid,
        ),
        ("pattern-climbs", "art-name-traversal", "\"**\"", "\"../**\"", Code::ArtNameInvalid),
        (
            "network-text",
            "json-type-juggling",
            "\"network\": false",
            "\"network\": \"false\"",
            Code::ParseFieldType,
        ),
        (
            "external-sha1",
            "chain-link-weak-digest",
            weak,
            "\"sha1\": \"0000000000000000000000000000000000000000\"",
            Code::StmtDigestAlg,
        ),
        (
            "external-without-uri",
            "chain-link-weak-digest",
            "\"uri\": \"https://tools.example.org/bsdiff\",",
            "",
            Code::ParseFieldMissing,
        ),
    ] {
        let about = "one value of the task is none that can be meant";
        swap(group, "task", &json, &Swap { name, row, about, from, to, code });
    }
}

fn manifests(group: &mut Group<'_>, world: &World) {
    let json = world.statements["new/partial/manifest"].to_json();
    let task = world.id("new/partial/task").to_string();
    let digest = format!("\"sha256\": \"{task}\"");
    let sha1 = format!("\"sha1\": \"{}\"", &task[..40]);
    let twice = format!("{digest}, \"sha512\": \"{task}{task}\"");
    let prefix = format!("\"sha256\": \"{}\"", &task[..8]);
    for (name, row, from, to, code) in [
        (
            "task-by-sha1",
            "chain-link-weak-digest",
            digest.as_str(),
            sha1.as_str(),
            Code::StmtDigestAlg,
        ),
        ("task-by-two", "chain-link-weak-digest", &digest, &twice, Code::StmtParameterUnexpected),
        ("task-by-prefix", "env-digest-prefix", &digest, &prefix, Code::StmtDigestFormat),
        ("task-by-name", "chain-no-task", "\"task\": {", "\"taskId\": {", Code::ChainTaskMissing),
        (
            "input-in-cache",
            "chain-cache-unrecorded",
            "\"role\": \"input\"",
            "\"role\": \"cache\"",
            Code::ChainInputUnaccounted,
        ),
        (
            "input-from-nowhere",
            "chain-input-dropped",
            "\"uri\": \"https://tools.example.org/bsdiff\",",
            "",
            Code::ChainInputUnaccounted,
        ),
    ] {
        let about = "one reference of the manifest is none";
        swap(group, "manifest", &json, &Swap { name, row, about, from, to, code });
    }
    let about =
        About("members of SLSA's descriptors that nobody reads", &["json-unknown-member-own"]);
    let more =
        json.replacen("\"name\": \"bsdiff\",", "\"name\": \"bsdiff\", \"mediaType\": \"x\",", 1);
    group.accept("descriptor-member", about, &statement(more));
}
