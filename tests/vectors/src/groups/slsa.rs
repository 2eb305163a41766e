//! SLSA's two predicates: what others may add or leave unset in them, and whom they name.

use custody_core::Code;
use custody_core::statement::{Statement, worker_uri};
use custody_world::{World, change, honest};

use super::json::{Swap, statement, swap};
use super::{built, signed_update};
use crate::case::{About, Group, Set, What};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("slsa");
    let world = honest();
    let manifest = world.statements["new/partial/manifest"].to_json();
    let summary = world.summary(&world.clone().unpublished().gate("new/publish/task"));
    let summary = Statement::from(summary).to_json();
    extensions(&mut group, &manifest, &summary);
    known(&mut group, &manifest, &summary);
    unset(&mut group, &manifest, &summary);
    unset_where_it_is_not_absence(&mut group, &manifest);
    types(&mut group, &manifest, &summary);
    others(&mut group, &manifest, &summary);
    results(&mut group, &summary);
    our_own(&mut group, &world);
    builders(&mut group);
    inputs(&mut group);
}

/// Where each object of SLSA begins.
const OBJECTS: [(&str, &str); 6] = [
    ("predicate", "\"predicate\": {"),
    ("definition", "\"buildDefinition\": {"),
    ("internal", "\"internalParameters\": {"),
    ("details", "\"runDetails\": {"),
    ("builder", "\"builder\": {"),
    ("metadata", "\"metadata\": {"),
];

/// The same with each text put after the one that stands beside it.
fn with<'s>(json: &str, changes: impl IntoIterator<Item = (&'s str, &'s str)>) -> String {
    changes.into_iter().fold(json.to_owned(), |json, (after, more)| {
        assert!(json.contains(after), "{after} in {json}");
        json.replacen(after, &format!("{after}{more}"), 1)
    })
}

/// The same without this list.
fn without(json: &str, name: &str, instead: &str) -> String {
    let start = json.find(&format!("\"{name}\": [")).unwrap();
    let indent = json[..start].rsplit('\n').next().unwrap();
    let close = format!("\n{indent}]");
    let end = start + json[start..].find(&close).unwrap() + close.len();
    format!("{}{instead}{}", &json[..start], &json[end..])
}

fn extensions(group: &mut Group<'_>, manifest: &str, summary: &str) {
    let both = "\"example_more\": {\"a\": [null, true]}, \"https://example.org/v1\": 1,";
    let everywhere = with(manifest, OBJECTS.map(|(_, start)| (start, both)));
    let about = About("extension fields in each object of the provenance", &[]);
    group.accept("manifest-extensions", about, &statement(everywhere));
    let everywhere = with(summary, [("\"predicate\": {", both), ("\"verifier\": {", both)]);
    let about = About("extension fields in each object of the summary", &[]);
    group.accept("summary-extensions", about, &statement(everywhere));
    let hidden = with(manifest, [("\"predicate\": {", "\"example_more\": \"\\u202e\",")]);
    let about = About("an extension field with text that nobody reads and nobody shows", &[]);
    group.accept("extension-hidden-text", about, &statement(hidden));
    for (name, row, more, code) in [
        (
            "extension-twice",
            "json-dup-key-statement",
            "\"a_b\": 1, \"a_b\": 1,",
            Code::ParseDuplicateKey,
        ),
        ("extension-float", "json-number-forms", "\"a_b\": 1.0,", Code::ParseNumberUnsafe),
        (
            "extension-half-a-character",
            "json-encoding",
            "\"a_b\": \"\\ud800\",",
            Code::ParseUnicodeInvalid,
        ),
    ] {
        let about = "an extension field that is not JSON as two readers understand it alike";
        let to = &format!("\"predicate\": {{{more}");
        let from = "\"predicate\": {";
        swap(group, "manifest-extensions", manifest, &Swap { name, row, about, from, to, code });
    }
}

fn known(group: &mut Group<'_>, manifest: &str, summary: &str) {
    let builder = "\"version\": {\"worker\": 1}, \"builderDependencies\": \"none\",";
    let about = About("what SLSA says of a builder and nobody reads", &[]);
    let json = with(manifest, [("\"builder\": {", builder)]);
    group.accept("manifest-members", about, &statement(json));
    let about = About("what SLSA says of a verification and nobody reads", &[]);
    let json = with(
        summary,
        [
            ("\"verifier\": {", "\"version\": {\"custody\": \"1\"},"),
            ("\"predicate\": {", "\"dependencyLevels\": {\"SLSA_BUILD_LEVEL_3\": 1},"),
        ],
    );
    group.accept("summary-members", about, &statement(json));
    let about = About("a summary that names no version of SLSA", &[]);
    let last = ",\n    \"slsaVersion\": \"1.1\"";
    assert!(summary.contains(last));
    group.accept("summary-no-version", about, &statement(summary.replacen(last, "", 1)));
    let more = "\"mediaType\": 1, \"more\": 1,";
    let about = About("members of descriptors that nobody reads", &[]);
    let json = with(
        manifest,
        [
            ("\"resolvedDependencies\": [\n        {", more),
            ("\"byproducts\": [\n        {", more),
            ("\"byproducts\": [\n        {", "\"uri\": \"https://example.org/log\","),
        ],
    );
    let json = json.replacen("\"size\": 3", "\"size\": 3, \"kind\": {}", 1);
    group.accept("manifest-descriptors", about, &statement(json));
    let about = About("members of descriptors that nobody reads", &[]);
    let json = with(
        summary,
        [
            ("\"policy\": {", "\"name\": \"policy\", \"annotations\": {\"a\": null}, \"more\": 1,"),
            (
                "\"inputAttestations\": [\n      {",
                "\"uri\": \"https://example.org/\", \"more\": 1,",
            ),
        ],
    );
    group.accept("summary-descriptors", about, &statement(json));
}

fn unset(group: &mut Group<'_>, manifest: &str, summary: &str) {
    let about = About("members that are null, in each object of the provenance", &[]);
    let nulls = with(manifest, OBJECTS.map(|(_, start)| (start, "\"more\": null,")));
    let nulls = with(
        &nulls,
        [
            ("\"builder\": {", "\"version\": null,"),
            ("\"resolvedDependencies\": [\n        {", "\"uri\": null,"),
            ("\"byproducts\": [\n        {", "\"uri\": null,"),
        ],
    );
    group.accept("manifest-nulls", about, &statement(nulls));
    for (kind, json, lists) in [
        ("manifest", manifest, &["resolvedDependencies", "byproducts"][..]),
        ("summary", summary, &["inputAttestations"]),
    ] {
        let about = About("lists that are null", &[]);
        let nulls = lists
            .iter()
            .fold(json.to_owned(), |json, list| without(&json, list, &format!("\"{list}\": null")));
        group.accept(&format!("{kind}-lists-null"), about, &statement(nulls));
        let about = About("lists that are empty, as a writer writes them", &[]);
        let empty = lists
            .iter()
            .fold(json.to_owned(), |json, list| without(&json, list, &format!("\"{list}\": []")));
        group.accept(&format!("{kind}-lists-empty"), about, &What::Statement(empty.into(), true));
        let about = About("lists that are not there", &[]);
        // a name of an extension field takes the place, so that the commas are right
        let absent = lists
            .iter()
            .fold(json.to_owned(), |json, list| without(&json, list, &format!("\"_{list}\": 1")));
        group.accept(&format!("{kind}-lists-absent"), about, &statement(absent));
    }
    for (name, control, json, from, to) in [
        (
            "started-null",
            "manifest-nulls",
            manifest,
            "\"startedOn\":",
            "\"startedOn\": null, \"_\":",
        ),
        (
            "creator-null",
            "manifest-nulls",
            manifest,
            "\"taskCreator\":",
            "\"taskCreator\": null, \"_\":",
        ),
        (
            "environment-null",
            "manifest-nulls",
            manifest,
            "\"environment\":",
            "\"environment\": null, \"_\":",
        ),
        ("builder-null", "manifest-nulls", manifest, "\"builder\":", "\"builder\": null, \"_\":"),
        (
            "levels-null",
            "summary-lists-null",
            summary,
            "\"verifiedLevels\":",
            "\"verifiedLevels\": null, \"_\":",
        ),
    ] {
        let about = "a member that must be there is null";
        let code = Code::ParseFieldMissing;
        swap(group, control, json, &Swap { name, row: "", about, from, to, code });
    }
}

/// `null` where it is a value like any other.
fn unset_where_it_is_not_absence(group: &mut Group<'_>, manifest: &str) {
    for (name, from, to) in [
        ("entry-null", "\"resolvedDependencies\": [", "\"resolvedDependencies\": [null,"),
        ("size-null", "\"size\": 16", "\"size\": null"),
        ("digest-null", "\"digest\": {\n", "\"digest\": { \"sha1\": null,\n"),
        ("variable-null", "\"os\": \"linux\"", "\"os\": null"),
        ("subject-uri-null", "\"subject\": [\n    {", "\"subject\": [\n    { \"uri\": null,"),
        (
            "destination-null",
            "\"externalParameters\": {",
            "\"externalParameters\": { \"destination\": null,",
        ),
    ] {
        let about = "null where it does not stand for absence";
        let code = Code::ParseFieldType;
        swap(group, "manifest-nulls", manifest, &Swap { name, row: "", about, from, to, code });
    }
    let parameter = Code::StmtParameterUnexpected;
    for (name, from, to, code) in [
        (
            "parameter-extension",
            "\"externalParameters\": {",
            "\"externalParameters\": { \"example_more\": 1,",
            parameter,
        ),
        (
            "parameter-null",
            "\"externalParameters\": {",
            "\"externalParameters\": { \"more\": null,",
            parameter,
        ),
        ("parameter-task-extension", "\"task\": {", "\"task\": { \"example_more\": 1,", parameter),
    ] {
        let about = "the parameters are closed, for extension fields and null too";
        let row = "chain-parameters-added";
        swap(group, "manifest-extensions", manifest, &Swap { name, row, about, from, to, code });
    }
}

/// Members of descriptors that have a type, whoever reads them.
fn types(group: &mut Group<'_>, manifest: &str, summary: &str) {
    let manifests = [
        ("subject-uri-number", "\"subject\": [\n    {", "\"uri\": 1,"),
        ("log-uri-number", "\"byproducts\": [\n        {", "\"uri\": 1,"),
        ("upstream-uri-number", "\"resolvedDependencies\": [\n        {", "\"uri\": 1,"),
    ]
    .map(|(name, from, more)| ("manifest-descriptors", manifest, name, from, more));
    let summaries = [
        ("policy-name-number", "\"policy\": {", "\"name\": 1,"),
        (
            "attestation-annotations-list",
            "\"inputAttestations\": [\n      {",
            "\"annotations\": [],",
        ),
    ]
    .map(|(name, from, more)| ("summary-descriptors", summary, name, from, more));
    for (control, json, name, from, more) in manifests.into_iter().chain(summaries) {
        let about = "a member of a descriptor of another JSON type";
        let (to, code) = (&format!("{from}{more}"), Code::ParseFieldType);
        swap(group, control, json, &Swap { name, row: "", about, from, to, code });
    }
}

fn others(group: &mut Group<'_>, manifest: &str, summary: &str) {
    let of_manifest = OBJECTS.map(|(place, start)| ("manifest", manifest, place, start));
    let of_summary = [("predicate", "\"predicate\": {"), ("verifier", "\"verifier\": {")]
        .map(|(place, start)| ("summary", summary, place, start));
    for (kind, json, place, from) in of_manifest.into_iter().chain(of_summary) {
        let name = &format!("{kind}-{place}-member");
        let to = &format!("{from}\"buildtype\": 1,");
        let about = "a member that is neither SLSA's nor an extension field";
        let (row, code) = ("json-unknown-member-own", Code::ParseUnknownField);
        let control = &format!("{kind}-extensions");
        swap(group, control, json, &Swap { name, row, about, from, to, code });
    }
}

/// A summary says one of two words.
fn results(group: &mut Group<'_>, summary: &str) {
    let result = "\"verificationResult\": \"PASSED\"";
    let failed = summary.replacen(result, "\"verificationResult\": \"FAILED\"", 1);
    let about = About("a summary that says that the verification failed", &[]);
    group.accept("summary-failed", about, &What::Statement(failed.into(), true));
    for (name, to) in [
        ("summary-lower-case", "\"verificationResult\": \"passed\""),
        ("summary-true", "\"verificationResult\": true"),
    ] {
        let about = "a summary with another word than the two";
        let (from, code) = (result, Code::ParseFieldType);
        swap(group, "summary-failed", summary, &Swap { name, row: "", about, from, to, code });
    }
}

fn our_own(group: &mut Group<'_>, world: &World) {
    let task = world.statements["new/partial/task"].to_json();
    for (name, row, to, code) in [
        (
            "task-extension",
            "json-unknown-member-own",
            "\"predicate\": {\"example_more\": 1,",
            Code::ParseUnknownField,
        ),
        ("task-null", "", "\"predicate\": {\"destination\": null,", Code::ParseFieldType),
    ] {
        let about = "what SLSA allows in its predicates, in one of our own";
        let from = "\"predicate\": {";
        swap(group, "statement/task", &task, &Swap { name, row, about, from, to, code });
    }
}

fn builders(group: &mut Group<'_>) {
    for (name, builder) in [
        ("builder-another", worker_uri("docs")),
        ("builder-bare", "builder".into()),
        ("builder-longer", worker_uri("builder/2")),
        ("builder-upper-case", worker_uri("Builder")),
    ] {
        let world = change()
            .manifest("new/build/manifest", move |manifest| manifest.builder.clone_from(&builder))
            .build();
        let about = About(
            "the manifest names another builder than the machine that signed it",
            &["chain-key-of-other-step"],
        );
        group.reject(name, "chain/built", Code::PolicyKeyPurpose, about, &built(&world));
    }
    let world = change()
        .manifest("new/build/manifest", |manifest| manifest.builder = worker_uri("docs"))
        .signed_by("new/build/manifest", &["builder", "docs"])
        .build();
    let about = About(
        "the builder that is named signed too, and may not perform the step",
        &["chain-key-of-other-step"],
    );
    group.reject(
        "builder-of-both",
        "chain/two-machines-signed",
        Code::PolicyKeyPurpose,
        about,
        &built(&world),
    );
}

/// What the task of a manifest wants is wanted whatever the manifest leaves unset.
fn inputs(group: &mut Group<'_>) {
    let more = |json: String| {
        with(&json, [("\"builder\": {", "\"version\": {\"x\": \"1\"}, \"example_more\": 1,")])
    };
    let world = change().json("new/sign/manifest", more).build();
    let about = About("a chain with extension fields in a manifest", &[]);
    group.accept("chain-extensions", about, &signed_update(&world));
    for (name, instead) in
        [("inputs-null", "\"resolvedDependencies\": null"), ("inputs-absent", "\"_\": 1")]
    {
        let unused = move |json: String| without(&json, "resolvedDependencies", instead);
        let world = change().json("new/sign/manifest", unused).build();
        let about = About("a manifest that says nothing of what it used", &["chain-input-dropped"]);
        let code = Code::ChainInputUnaccounted;
        group.reject(name, "chain-extensions", code, about, &signed_update(&world));
    }
}
