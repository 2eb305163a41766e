//! Whoever holds storage, a worker or the scheduler tries to pass something off as this release.
//! Each refusal stands beside its untouched control.
#![expect(
    clippy::print_stdout,
    clippy::similar_names,
    clippy::type_complexity,
    reason = "tests measure, and tell a word from a world"
)]

use custody_world as world;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{
    Downloads, InputOrigin, Intent, Origin, Pinned, Resolve, Revision, Stage, Statement, UsedInput,
    worker_uri,
};
use custody_verify::report::{NodeKind, Outcome, Rule};
use custody_verify::{Evidence, Report, Subject, verify};
use world::{
    artifact, assert_accepted, assert_refused, at, change, content, findings, honest, label,
    signed, source,
};

/// Every node of the chain is there, in the older release too.
#[test]
fn an_honest_chain_is_accepted_back_to_people_and_source_of_both_releases() {
    let world = honest();
    let report = world.file();
    assert_accepted(&report);
    let ids: Vec<_> =
        report.nodes().filter_map(|node| node.id).map(|id| world.name_of(id)).collect();
    for name in [
        "new/publish/manifest",
        "new/publish/task",
        "new/ship/authorization",
        "new/sign/manifest",
        "new/partial/manifest",
        "new/build/manifest",
        "new/promote/authorization",
        "old/build/manifest",
        "old/build/task",
        "old/promote/authorization",
    ] {
        assert!(ids.iter().any(|id| id == name), "{name} is not in {ids:?}");
    }
    assert_eq!(report.subject().kind, NodeKind::Subject);
    assert_eq!(report.accepted().unwrap().release().version, label("1.1.0"));
    for task in ["new/publish/task", "new/smoke/task", "new/notes/task"] {
        assert_accepted(&world.clone().unpublished().gate(task));
    }
    assert_accepted(&world.extra_file());
}

/// `art-byte-changed`, and issue 2: one byte changed in the file.
#[test]
fn a_changed_byte_in_the_file_is_refused_with_both_digests() {
    let world = honest();
    let bytes = content("new", "partial, signed").replace("signed", "sigmed");
    let report =
        verify(&world.ask("hello.partial", &bytes), &world.evidence(), &world.chain(), world.now);
    assert_refused(&report, Code::ArtDigestMismatch);
    let text = findings(&report);
    assert!(text.contains(&Sha256::of(bytes.as_bytes()).to_string()), "{text}");
    assert!(
        text.contains(&Sha256::of(content("new", "partial, signed").as_bytes()).to_string()),
        "{text}"
    );
}

/// `art-size-mismatch`, `art-extra-unlisted`: the name counts, and so does the size.
#[test]
fn a_file_of_another_name_or_size_or_of_no_manifest_is_refused() {
    let world = honest();
    let ask = |name: &str, longer: u64| {
        let mut question = world.ask(name, &content("new", "partial, signed"));
        if let Subject::Artifact { size, .. } = &mut question.subject {
            *size += longer;
        }
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    assert_accepted(&ask("hello.partial", 0));
    assert_refused(&ask("hello.partial", 1), Code::ArtSizeMismatch);
    assert_refused(&ask("firefox.exe", 0), Code::ArtUnlisted);
    let unknown =
        verify(&world.ask("evil.dll", "evil"), &world.evidence(), &world.chain(), world.now);
    assert_refused(&unknown, Code::ChainStepMissing);
}

/// `env-payload-bitflip`, `env-sig-bitflip`, and issue 2: one byte changed in any envelope.
#[test]
fn a_changed_byte_in_any_envelope_of_the_chain_is_refused_as_tampering() {
    let world = honest();
    let report = world.file();
    assert_accepted(&report);
    let needed = needed(&report);
    for (name, envelope) in
        world.envelopes.iter().filter(|(_, envelope)| needed.contains(&envelope.id()))
    {
        let without =
            || world.envelopes.values().filter(|other| other.id() != envelope.id()).cloned();
        let mut payload = envelope.unverified_payload().to_vec();
        for place in [payload.len() / 3, payload.len() / 2, payload.len() - 3] {
            payload[place] ^= 1;
            let mut changed = Envelope::unsigned::<Statement>(payload.clone());
            envelope
                .signatures()
                .iter()
                .for_each(|signature| changed.add_signature(signature.clone()));
            let evidence: Evidence = without().chain([changed]).collect();
            let report = world.file_from(&evidence);
            assert!(report.accepted().is_none(), "{name}, byte {place}");
            assert_eq!(
                report.codes()[0],
                Code::EnvSignatureInvalid,
                "{name}:{}",
                findings(&report)
            );
            payload[place] ^= 1;
        }
        let mut changed = Envelope::unsigned::<Statement>(payload);
        for signature in envelope.signatures() {
            let mut signature = signature.clone();
            *signature.sig.last_mut().unwrap() ^= 1;
            changed.add_signature(signature);
        }
        let evidence: Evidence = without().chain([changed]).collect();
        assert_refused(&world.file_from(&evidence), Code::EnvSignatureInvalid);
    }
}

fn needed(report: &Report) -> Vec<StatementId> {
    report
        .nodes()
        .flat_map(|node| node.id.into_iter().chain(node.rests_on.iter().copied()))
        .collect()
}

/// `env-payload-type-swapped`.
#[test]
fn a_statement_under_another_payload_type_is_refused() {
    let mut world = honest();
    let text = world.envelopes["new/sign/manifest"].to_json().replace("vnd.in-toto+json", "json");
    world.envelopes.insert("new/sign/manifest".into(), Envelope::parse(text.as_bytes()).unwrap());
    assert_refused(&world.file(), Code::EnvSignatureInvalid);
}

/// `chain-link-missing`, `chain-no-task`, `hum-below-threshold`: each document is needed.
#[test]
fn a_missing_document_is_refused_and_named() {
    let cases = [
        ("new/build/manifest", Code::ChainLinkMissing),
        ("old/build/manifest", Code::ChainLinkMissing),
        ("new/build/task", Code::ChainTaskMissing),
        ("new/sign/task", Code::ChainTaskMissing),
        ("new/ship/authorization", Code::ChainLinkMissing),
        ("new/promote/request", Code::ChainLinkMissing),
        ("new/promote/signoff/bob", Code::SignoffMissing),
        ("old/promote/signoff/carol", Code::SignoffMissing),
    ];
    for (name, code) in cases {
        let mut world = honest();
        let id = world.id(name);
        world.drop(name);
        let report = world.file();
        assert_refused(&report, code);
        assert!(findings(&report).contains(&id.to_string()), "{name}: {}", findings(&report));
        assert!(!report.codes().contains(&Code::EnvSignatureInvalid), "nothing was changed");
    }
}

/// `chain-vacuous-empty`, `chain-any-attestation`.
#[test]
fn nothing_verified_is_not_success() {
    let world = honest();
    assert_refused(&world.file_from(&Evidence::default()), Code::ChainStepMissing);
    let mut only_people = world.clone();
    only_people.envelopes.retain(|name, _| name.contains("signoff"));
    assert_refused(&only_people.file(), Code::ChainStepMissing);
}

/// `chain-cross-release`, and issue 2: the file of another release.
#[test]
fn the_file_of_another_release_is_refused_where_this_one_was_asked_for() {
    let world = honest();
    let mut question = world.ask("hello", &content("old", "hello, signed"));
    let ask = |question: &_| verify(question, &world.evidence(), &world.chain(), world.now);
    assert_refused(&ask(&question), Code::ChainReleaseMismatch);
    question.expect.version = Some(label("1.0.0"));
    assert_accepted(&ask(&question));
    question.expect.channel = Some(label("beta"));
    assert_refused(&ask(&question), Code::ChainReleaseMismatch);
    question.expect.channel = None;
    question.expect.product = Some(label("other"));
    assert_refused(&ask(&question), Code::ChainProductMismatch);
    question.expect.product = None;
    question.expect.instance = Some(label("staging"));
    assert_refused(&ask(&question), Code::ChainInstanceMismatch);
}

/// `chain-key-of-other-step`, and issue 2: a manifest signed by another step's key.
#[test]
fn a_manifest_signed_by_another_steps_key_is_refused() {
    for step in ["build", "partial", "sign", "publish"] {
        assert_refused(
            &change().signed_by(&format!("new/{step}/manifest"), &["docs"]).build().file(),
            Code::PolicyKeyPurpose,
        );
    }
    assert_accepted(&change().signed_by("new/build/manifest", &["docs", "builder"]).build().file());
    assert_refused(
        &change().signed_by("new/build/manifest", &["nobody"]).build().file(),
        Code::EnvKeyUnknown,
    );
}

/// `pol-key-purpose`: each kind of key signs what another kind may sign.
#[test]
fn a_good_key_that_signs_what_it_may_not_sign_is_refused() {
    let cases = [
        ("new/build/manifest", "bob", Code::PolicyKeyPurpose),
        ("new/build/manifest", "scheduler", Code::PolicyKeyPurpose),
        ("new/build/manifest", "desk", Code::PolicyKeyPurpose),
        ("new/build/task", "builder", Code::PolicyKeyPurpose),
        ("new/build/task", "bob", Code::PolicyKeyPurpose),
        ("new/build/task", "desk", Code::PolicyKeyPurpose),
        ("new/promote/authorization", "builder", Code::PolicyKeyPurpose),
        ("new/promote/authorization", "alice", Code::PolicyKeyPurpose),
        ("new/promote/authorization", "scheduler", Code::PolicyKeyPurpose),
        ("new/promote/request", "builder", Code::PolicyKeyPurpose),
        ("new/promote/signoff/bob", "builder", Code::SignoffCredentialUnknown),
        ("new/promote/signoff/bob", "desk", Code::SignoffCredentialUnknown),
    ];
    assert_accepted(&honest().file());
    for (name, key, code) in cases {
        let report = change().signed_by(name, &[key]).build().file();
        assert!(report.codes().contains(&code), "{name} by {key}:{}", findings(&report));
        assert!(report.accepted().is_none());
    }
}

/// `chain-self-authorised`, `chain-mix-and-match`, and issue 2: a task of another authorization.
#[test]
fn a_task_of_another_authorization_is_refused() {
    let other = honest();
    let old = other.id("old/promote/authorization");
    let world = change().task("new/build/task", move |task| task.authorization = old).build();
    assert_refused(&world.file(), Code::ChainReleaseMismatch);
    let world = change().task("new/publish/task", move |task| task.authorization = old).build();
    assert_refused(&world.file(), Code::ChainStepMismatch);
    // the manifest of one task with the id of another
    let foreign = honest().id("old/build/task");
    let world =
        change().manifest("new/build/manifest", move |manifest| manifest.task = foreign).build();
    assert!(world.file().accepted().is_none());
}

/// `chain-link-substituted`: another manifest of the same step and the same key.
#[test]
fn another_releases_manifest_in_place_of_this_ones_is_refused() {
    let old = honest().id("old/build/manifest");
    let world = change()
        .manifest("new/sign/manifest", move |manifest| {
            let new = manifest.upstream[0];
            manifest.upstream[0] = old;
            for input in &mut manifest.inputs {
                if input.origin == InputOrigin::Manifest(new) {
                    input.origin = InputOrigin::Manifest(old);
                    let old = if input.artifact.name.as_str().ends_with("mar") {
                        "hello.mar"
                    } else {
                        "hello"
                    };
                    input.artifact = artifact(input.artifact.name.as_str(), &content("old", old));
                }
            }
        })
        .build();
    assert_refused(&world.file(), Code::ChainInputUnaccounted);
}

/// `chain-step-renamed`, `chain-predicate-contradiction`, `chain-parameters-added`.
#[test]
fn a_manifest_that_contradicts_its_task_is_refused() {
    let cases: [(Code, fn(&mut custody_core::statement::Manifest)); 8] = [
        // who signed, and who is said to have worked
        (Code::PolicyKeyPurpose, |manifest| manifest.builder = worker_uri("sign")),
        (Code::PolicyKeyPurpose, |manifest| manifest.builder += "/x"),
        (Code::ChainStepMismatch, |manifest| manifest.step = label("sign")),
        (Code::GateCommandMismatch, |manifest| manifest.command.push("--evil".into())),
        (Code::ChainTaskMismatch, |manifest| manifest.creator = "somebody".into()),
        (Code::ChainTaskMismatch, |manifest| {
            manifest.destination = Some("s3://releases/hello/".into());
        }),
        (Code::ChainSourceMismatch, |manifest| manifest.source = None),
        (Code::ArtUnlisted, |manifest| manifest.artifacts.push(artifact("evil.sh", "evil"))),
    ];
    for (code, edit) in cases {
        assert_refused(&change().manifest("new/build/manifest", edit).build().file(), code);
    }
    let added = change().json("new/build/manifest", |json| {
        json.replace("\"step\": \"build\"", "\"step\": \"build\",\n\"evil\": \"1\"")
    });
    assert_refused(&added.build().file(), Code::StmtParameterUnexpected);
}

/// `chain-no-task`, `chain-link-weak-digest`: a task is named by its whole sha256 and by nothing else.
#[test]
fn a_manifest_that_names_no_task_or_names_it_loosely_is_refused() {
    let task = honest().id("new/build/task").to_string();
    let digest = format!("\"sha256\": \"{task}\"");
    let named = |from: String, to: &str| {
        let to = to.to_string();
        change().json("new/build/manifest", move |json| {
            assert!(json.contains(&from), "{from} in {json}");
            json.replace(&from, &to)
        })
    };
    let sha1 = format!("\"sha1\": \"{}\"", &task[..40]);
    assert_refused(&named(digest.clone(), &sha1).build().file(), Code::StmtDigestAlg);
    assert_refused(
        &named(digest.clone(), &format!("\"sha256\": \"{}\"", &task[..8])).build().file(),
        Code::StmtDigestFormat,
    );
    assert_refused(
        &named(digest.clone(), &format!("{digest}, \"sha512\": \"{task}{task}\"")).build().file(),
        Code::StmtParameterUnexpected,
    );
    assert_refused(
        &named("\"task\": {".into(), "\"taskId\": {").build().file(),
        Code::ChainTaskMissing,
    );
    let by_id = named("\"task\": {".into(), "\"task\": { \"name\": \"42\" }, \"tasks\": {");
    assert_refused(&by_id.build().file(), Code::ChainTaskMissing);
}

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

/// `chain-input-dropped`, `chain-upstream-unused`, and issue 2: an input that nothing explains.
#[test]
fn an_input_that_nothing_explains_is_refused() {
    let evil = || artifact("evil.c", "evil");
    let world = change().manifest("new/sign/manifest", move |manifest| {
        let origin = manifest.inputs[0].origin.clone();
        manifest.inputs.push(UsedInput { artifact: evil(), origin });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", move |manifest| {
        manifest.inputs.push(UsedInput {
            artifact: evil(),
            origin: InputOrigin::External("https://evil.example.org/".into()),
        });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    // what the build did make, and the task does not ask for
    let world = change().manifest("new/partial/manifest", |manifest| {
        let origin = manifest.inputs[0].origin.clone();
        let artifact = artifact("dist/hello", &content("new", "hello"));
        manifest.inputs.push(UsedInput { artifact, origin });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().json("new/sign/manifest", |json| {
        json.replace("\"role\": \"input\"", "\"role\": \"cache\"")
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        let dropped = manifest.upstream.remove(0);
        manifest.inputs.retain(|input| input.origin != InputOrigin::Manifest(dropped));
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        manifest.upstream.remove(0);
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let unused = honest().id("old/build/manifest");
    let world =
        change().manifest("new/sign/manifest", move |manifest| manifest.upstream.push(unused));
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        manifest.inputs.remove(0);
    });
    assert_refused(&world.build().file(), Code::ArtMissing);
    let world = change()
        .manifest("new/sign/manifest", |manifest| manifest.inputs.push(manifest.inputs[0].clone()));
    assert_refused(&world.build().file(), Code::StmtSubjectDuplicate);
}

/// `art-byte-changed` inside the chain, `art-optional-wrong-hash`.
#[test]
fn an_input_that_is_not_what_was_made_or_pinned_is_refused() {
    for index in [0, 2] {
        let world = change().manifest("new/partial/manifest", move |manifest| {
            manifest.inputs[index].artifact.size += 1;
        });
        assert_refused(&world.build().file(), Code::ArtDigestMismatch);
    }
    let world = change().manifest("new/partial/manifest", |manifest| {
        manifest.inputs.retain(|input| matches!(input.origin, InputOrigin::Manifest(_)));
    });
    assert_refused(&world.build().file(), Code::ArtMissing);
    let elsewhere = change().task("new/partial/task", |task| {
        task.externals[0].uri = "https://evil.example.org/bsdiff".into();
    });
    assert_refused(&elsewhere.build().file(), Code::ChainInputUnaccounted);
    let below = |path: &'static str| {
        change().task("new/partial/task", move |task| {
            task.externals[0].uri = format!("https://tools.example.org/{path}");
        })
    };
    assert_accepted(&below("v2/bsdiff").build().file());
    for climbing in ["../evil", "v2/%2e%2e/evil", "@evil.example.org/", "..\\evil", "v2\\evil"] {
        assert_refused(&below(climbing).build().file(), Code::ChainInputUnaccounted);
    }
}

const REGISTRY: &str = "https://registry.example.org/";

/// A world in which the build of the release may download: under this policy, with these pins, and
/// having used these.
fn downloading(
    record: bool,
    pinned: Option<&[(&str, &str)]>,
    used: &'static [(&'static str, &'static str)],
) -> world::World {
    let pin = |(path, text): &(&str, &str)| Pinned {
        uri: format!("{REGISTRY}{path}"),
        digests: Sha256::of(text.as_bytes()).into(),
        size: text.len() as u64,
    };
    let pinned = pinned.map(|pins| pins.iter().map(pin).collect());
    let downloads = Downloads { from: vec![REGISTRY.into()], pinned };
    let record = if record { "record-downloads = true\n" } else { "" };
    let step = "[products.hello.steps.build]\n";
    change()
        .policy(|text| {
            text.replacen(step, &format!("{step}downloads = [\"{REGISTRY}\"]\n{record}"), 1)
        })
        .task("new/build/task", move |task| task.downloads = Some(downloads.clone()))
        .manifest("new/build/manifest", move |manifest| {
            manifest.inputs.extend(used.iter().enumerate().map(|(i, (path, text))| UsedInput {
                artifact: artifact(&format!("{i}.bin"), text),
                origin: InputOrigin::Download(format!("{REGISTRY}{path}")),
            }));
        })
        .build()
}

/// `dl-not-listed`, `dl-second-name`, `dl-pinned-changed`: what a worker says that it fetched.
#[test]
fn a_download_that_the_task_does_not_explain_is_refused() {
    let pins: &[(&str, &str)] = &[("a", "one"), ("b", "two")];
    let (pinned, recorded) = (Some(pins), None);
    // the controls: all pins, some, none, and whatever was found where that is allowed
    assert_accepted(&downloading(false, pinned, &[("a", "one"), ("b", "two")]).file());
    assert_accepted(&downloading(false, pinned, &[("b", "two")]).file());
    assert_accepted(&downloading(false, pinned, &[]).file());
    assert_accepted(&downloading(true, recorded, &[("x%2fy?z=@1", "any")]).file());

    assert_refused(&downloading(false, recorded, &[]).file(), Code::ChainInputUnaccounted);
    let report = downloading(false, pinned, &[("a", "two")]).file();
    assert_refused(&report, Code::ArtDigestMismatch);
    assert!(findings(&report).contains("https://registry.example.org/a"));
    assert_refused(
        &downloading(false, pinned, &[("c", "one")]).file(),
        Code::ChainInputUnaccounted,
    );
    for twice in [&[("a", "one"), ("a", "one")], &[("a", "one"), ("a", "two")]] {
        let report = downloading(true, recorded, twice).file();
        assert_refused(&report, Code::StmtSubjectDuplicate);
    }
    for outside in [
        &[("../evil", "any")],
        &[("%2e%2E/evil", "any")],
        &[("%252e%252e/evil", "any")],
        &[("..%2fevil", "any")],
        &[("a\\b", "any")],
        &[("a b", "any")],
        &[("a%0a", "any")],
        &[("a%", "any")],
        &[("a#b", "any")],
    ] {
        let report = downloading(true, recorded, outside).file();
        assert_refused(&report, Code::ChainInputUnaccounted);
    }
    let nobody = change().manifest("new/build/manifest", |manifest| {
        manifest.inputs.push(UsedInput {
            artifact: artifact("a.bin", "one"),
            origin: InputOrigin::Download(format!("{REGISTRY}a")),
        });
    });
    assert_refused(&nobody.build().file(), Code::ChainInputUnaccounted);
}

/// `dl-not-declared`, `dl-unpinned`: what a scheduler lets a command fetch.
#[test]
fn a_task_may_let_fetch_what_the_policy_allows_and_no_more() {
    let with = |edit: fn(&mut custody_core::statement::Task)| {
        let step = "[products.hello.steps.build]\n";
        change()
            .policy(|text| {
                let more = format!("{step}downloads = [\"{REGISTRY}\"]\nrecord-downloads = true\n");
                text.replacen(step, &more, 1)
            })
            .task("new/build/task", move |task| {
                task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned: None });
                edit(task);
            })
            .build()
            .file()
    };
    assert_accepted(&with(|_| ()));
    let report = with(|task| {
        task.downloads = Some(Downloads { from: vec![format!("{REGISTRY}below/")], pinned: None });
    });
    assert_accepted(&report);
    for edit in [
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://evil.example.org/"),
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://"),
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://registry.example.org"),
        |task: &mut custody_core::statement::Task| {
            elsewhere(task, "https://registry.example.org/../");
        },
    ] {
        assert_refused(&with(edit), Code::ChainInputUnaccounted);
    }
    let report = with(|task| {
        let pin = Pinned {
            uri: "https://evil.example.org/a".into(),
            digests: Sha256::of(b"a").into(),
            size: 1,
        };
        task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned: Some(vec![pin]) });
    });
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report = with(|task| {
        let pin = Pinned { uri: format!("{REGISTRY}a"), digests: Sha256::of(b"a").into(), size: 1 };
        let pinned = Some(vec![pin.clone(), pin]);
        task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned });
    });
    assert_refused(&report, Code::StmtSubjectDuplicate);
    assert_refused(&with(|task| task.network = true), Code::StmtParameterUnexpected);
    // without a word of the policy
    let report = change().task("new/build/task", |task| elsewhere(task, REGISTRY)).build().file();
    assert_refused(&report, Code::ChainInputUnaccounted);
}

fn elsewhere(task: &mut custody_core::statement::Task, uri: &str) {
    task.downloads = Some(Downloads { from: vec![uri.into()], pinned: None });
}

/// `art-missing`, `art-extra-unlisted`, `gate-output-unlinked`: what is published is what went in.
#[test]
fn a_publication_of_more_or_less_or_other_bytes_than_went_in_is_refused() {
    let publish = |edit: fn(&mut custody_core::statement::Manifest)| {
        change().manifest("new/publish/manifest", edit).build()
    };
    let report = publish(|manifest| manifest.artifacts.push(artifact("evil.dll", "evil"))).file();
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report =
        publish(|manifest| manifest.artifacts.retain(|artifact| artifact.name.as_str() != "hello"))
            .file();
    assert_refused(&report, Code::ArtMissing);
    let report = publish(|manifest| manifest.artifacts[0] = artifact("hello", "evil")).file();
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report = change()
        .task("new/build/task", |task| task.outputs.push("dist/hello.exe".parse().unwrap()))
        .build()
        .file();
    assert_refused(&report, Code::ArtMissing);
    let report = change().task("new/build/task", |task| task.sha512 = true).build().file();
    assert_refused(&report, Code::StmtDigestMissing);
}

/// `chain-fork-one-task`, `chain-task-reused`, and issue 2: two manifests for one task.
#[test]
fn two_manifests_for_one_task_are_refused_until_a_person_decides() {
    for step in ["build", "sign", "publish"] {
        let mut world = honest();
        assert_accepted(&world.file());
        let machine = if step == "build" {
            "builder"
        } else if step == "sign" {
            "signer"
        } else {
            "publisher"
        };
        let mut other = world.get_manifest(&format!("new/{step}/manifest"));
        other.invocation = "a second run".into();
        let id = world.add("fork", other, &[machine]);
        let first = world.id(&format!("new/{step}/manifest"));
        let report = world.file();
        assert_refused(&report, Code::ChainForked);
        assert!(
            findings(&report).contains(&id.to_string())
                && findings(&report).contains(&first.to_string())
        );

        let task = format!("new/{step}/task");
        let mut resolved = world.clone();
        let word = resolved.resolution(&task, Resolve::Supersede(first), "carol");
        resolved.add("resolution", word.clone(), &["carol"]);
        assert_accepted(&resolved.file());
        resolved.drop("resolution");
        let mut forged = resolved.clone();
        forged.add("resolution", word, &["bob"]);
        assert_refused(&forged.file(), Code::ChainForked);
        let for_the_other = resolved.resolution(&task, Resolve::Supersede(id), "carol");
        resolved.add("other", for_the_other, &["carol"]);
        if step == "publish" {
            // then the file comes from the other publication
            assert_accepted(&resolved.file());
        } else {
            assert_refused(&resolved.file(), Code::ChainForked);
        }
    }
}

/// `chain-two-nodes-one-role`: the arms of a diamond reach two results of one job, which was planned
/// twice.
#[test]
fn two_results_of_one_job_in_one_chain_are_refused() {
    let with_second_build = |edit: fn(&mut custody_core::statement::Task), file: &'static str| {
        // the scheduler plans the build again, and signing takes the second result, packing the first
        let mut world = honest();
        let mut task = world.get_task("new/build/task");
        task.nonce = world::nonce("again");
        edit(&mut task);
        world.add("again/build/task", task, &["scheduler"]);
        let made = vec![
            artifact("dist/hello", &content("new", file)),
            artifact("dist/hello.mar", &content("new", "hello.mar")),
        ];
        let manifest = world.run("again/build/task", "builder", 100_310, made);
        let second = world.add("again/build/manifest", manifest, &["builder"]);
        let (task, first) = (world.id("again/build/task"), world.id("new/build/task"));
        let mut sign = world.get_task("new/sign/task");
        sign.inputs
            .iter_mut()
            .filter(|input| input.origin == Origin::Task(first))
            .for_each(|input| input.origin = Origin::Task(task));
        world.add("new/sign/task", sign, &["scheduler"]);
        let manifest = world.get_manifest("new/sign/manifest");
        let manifest = world.run("new/sign/task", "signer", 100_500, manifest.artifacts);
        assert!(manifest.upstream.contains(&second));
        world.add("new/sign/manifest", manifest, &["signer"]);
        let mut question = world.ask("hello.partial", &content("new", "partial, signed"));
        question.expect.step = Some(label("sign"));
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    let same = |_: &mut custody_core::statement::Task| ();
    let other = |task: &mut custody_core::statement::Task| {
        task.variables.push(("TARGET".into(), "b".into()));
    };
    assert_refused(&with_second_build(same, "another hello"), Code::ChainForked);
    // the same result twice is one; another job may have another
    assert_accepted(&with_second_build(same, "hello"));
    assert_accepted(&with_second_build(other, "another hello"));
}

/// `chain-cycle`: through a decision, what was decided could be what led to it.
#[test]
fn a_decision_that_rests_on_what_it_decided_is_refused() {
    let takes = |text: String| {
        let (head, steps) = text.split_once("[products.hello.steps.decide]").unwrap();
        let inputs = "inputs = [{ step = \"extra\", release = \"same\" }]";
        format!("{head}[products.hello.steps.decide]{}", steps.replacen("inputs = []", inputs, 1))
    };
    let mut world = change().policy(takes).build();
    assert_accepted(&world.extra_file());
    let extra = world.id("new/extra/task");
    let mut task = world.get_task("new/decide/task");
    task.inputs.push(world::World::input(Origin::Task(extra), "extra", "*"));
    world.add("new/decide/task", task, &["scheduler"]);
    let decided = world.get_manifest("new/decide/manifest").artifacts;
    let manifest = world.run("new/decide/task", "decider", 100_460, decided);
    assert_eq!(manifest.upstream, [world.id("new/extra/manifest")]);
    world.add("new/decide/manifest", manifest, &["decider"]);
    assert_refused(&world.extra_file(), Code::ChainCycle);
}

/// `chain-extra-nodes`: a second manifest by somebody who may not perform the step is no result.
#[test]
fn what_others_add_takes_nothing_away() {
    let mut world = honest();
    for n in 0..50 {
        let mut other = world.get_manifest("new/publish/manifest");
        other.invocation = format!("run {n}");
        world.add(&format!("extra {n}"), other, &["docs"]);
        let mut decision = world.get_manifest("new/decide/manifest");
        decision.invocation = format!("run {n}");
        world.add(&format!("decision {n}"), decision, &["docs"]);
        let mut old = world.get_manifest("new/sign/manifest");
        old.invocation = format!("run {n}");
        world.add(&format!("sign {n}"), old, &["docs"]);
        let doubtful = world.resolution(
            "new/sign/task",
            Resolve::Supersede(world.id(&format!("sign {n}"))),
            "carol",
        );
        world.add(&format!("resolution {n}"), doubtful, &["docs"]);
    }
    let unsigned = Envelope::unsigned::<Statement>(b"not even JSON".to_vec());
    world.envelopes.insert("unsigned".into(), unsigned.clone());
    world.envelopes.insert("damaged".into(), {
        let mut damaged = unsigned;
        damaged.add_signature(world.envelopes["new/sign/manifest"].signatures()[0].clone());
        damaged
    });
    assert_accepted(&world.file());
    assert_accepted(&world.extra_file());
    world.drop("new/publish/manifest");
    world.envelopes.retain(|name, _| !name.starts_with("extra "));
    assert_accepted(&world.gate("new/publish/task"));
}

/// `chain-fork-one-task` by a thief: what a revoked key signed is no result either.
#[test]
fn a_revoked_key_neither_forks_nor_spoils_what_others_sign() {
    let two_builders =
        |text: String| text.replace("perform = [\"builder\"]", "perform = [\"builder\", \"docs\"]");
    let mut world = change().policy(two_builders).build();
    let mut other = world.get_manifest("new/build/manifest");
    other.invocation = "the thief's run".into();
    world.add("fork", other, &["docs"]);
    let stolen = world.envelopes["new/sign/manifest"].clone();
    world.envelopes.insert("new/sign/manifest".into(), signed(stolen, &["docs"]));
    assert_refused(&world.file(), Code::ChainForked);
    let docs = world::Key::of("docs").public.to_openssh();
    world.rotate(move |text| {
        text.replace(&format!("key = \"{docs}\""), &format!("key = \"{docs}\", revoked = true"))
    });
    assert_accepted(&world.file());
}

/// `chain-source-revision`, `chain-source-uri-tricks`.
#[test]
fn another_source_than_people_approved_is_refused() {
    let other = |prefix: &'static str| {
        move |task: &mut custody_core::statement::Task| task.source = Some(source(prefix))
    };
    assert_refused(
        &change().task("new/build/task", other("old")).build().file(),
        Code::ChainSourceMismatch,
    );
    assert_refused(
        &change().task("new/build/task", |task| task.source = None).build().file(),
        Code::ChainSourceMismatch,
    );
    let world =
        change().manifest("new/build/manifest", |manifest| manifest.source = Some(source("old")));
    assert_refused(&world.build().file(), Code::ChainSourceMismatch);
    for uri in [
        "https://git.example.org/hello@evil",
        "https://git.example.org/hello/",
        "https://git.example.org/hello.git",
        "https://git.example.org/hello-evil",
        "https://GIT.example.org/hello",
        "https://x@git.example.org/hello",
        "https://git.example.org:443/hello",
        "https://git.example.org/%68ello",
        "http://git.example.org/hello",
    ] {
        let world = change()
            .request("new/promote/request", move |request| request.source.uri = uri.into())
            .build();
        assert_refused(&world.file(), Code::ChainSourceMismatch);
    }
    let partial =
        change().task("new/partial/task", |task| task.source = Some(source("new"))).build();
    assert_refused(&partial.file(), Code::StmtParameterUnexpected);
}

/// `hum-signs-label-only` across phases: what ships was built from the source that is shown.
#[test]
fn a_later_phase_for_another_source_than_its_files_were_built_from_is_refused() {
    let world = change().request("new/ship/request", |request| {
        request.source.revision = Revision::Git("3".repeat(40));
    });
    assert_refused(&world.build().file(), Code::ChainSourceMismatch);
}

/// `chain-cross-product`, `chain-cross-instance`, `pol-product-unknown`, `pol-unknown-step`.
#[test]
fn another_product_instance_channel_phase_or_step_is_refused() {
    let request = |edit: fn(&mut custody_core::statement::Request)| {
        change().request("new/promote/request", edit).build()
    };
    assert_refused(
        &request(|r| r.release.product = label("other")).file(),
        Code::PolicyProductUnknown,
    );
    assert_refused(
        &request(|r| r.release.instance = label("staging")).file(),
        Code::ChainInstanceMismatch,
    );
    assert_refused(
        &request(|r| r.release.channel = label("nightly")).file(),
        Code::ChainReleaseMismatch,
    );
    assert_refused(&request(|r| r.phase = label("other")).file(), Code::PolicyStepUnknown);
    assert_refused(
        &change().task("new/build/task", |task| task.step = label("other")).build().file(),
        Code::PolicyStepUnknown,
    );
    let staged =
        change().request("old/promote/request", |r| r.release.instance = label("staging")).build();
    assert_refused(&staged.file(), Code::ChainInstanceMismatch);
}

/// `chain-cross-release`: only what the request names crosses, and only where the policy says so.
#[test]
fn an_input_of_another_release_needs_request_and_policy() {
    let same = |text: String| {
        text.replace(
            "{ step = \"build\", release = \"other\" }",
            "{ step = \"sign\", release = \"other\" }",
        )
    };
    assert_refused(&change().policy(same).build().file(), Code::ChainReleaseMismatch);
    let unnamed =
        change().request("new/promote/request", |request| request.builds_on.clear()).build();
    assert_refused(&unnamed.file(), Code::ChainInputUnaccounted);
    let less =
        change().request("new/promote/request", |request| request.builds_on[0].artifacts -= 1);
    assert_refused(&less.build().file(), Code::SignoffContentMismatch);
    let larger = change().request("new/promote/request", |request| request.builds_on[0].bytes += 1);
    assert_refused(&larger.build().file(), Code::SignoffContentMismatch);
    let step = change()
        .request("new/promote/request", |request| request.builds_on[0].step = label("sign"))
        .build();
    assert_refused(&step.file(), Code::ChainStepMismatch);
}

/// `chain-step-skipped`: inputs come from the steps that the policy names.
#[test]
fn an_input_from_a_step_that_is_not_allowed_is_refused() {
    let only_partial = |text: String| {
        text.replace(
            "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\", release = \"same\" }]",
            "inputs = [{ step = \"partial\", release = \"same\" }]",
        )
    };
    assert_refused(&change().policy(only_partial).build().file(), Code::ChainStepMissing);
    let no_after = |text: String| text.replace("after = [\"promote\"]", "after = []");
    assert_refused(&change().policy(no_after).build().file(), Code::ChainReleaseMismatch);
}

/// `chain-step-skipped`: a step that the policy requires cannot be left out.
#[test]
fn a_required_step_is_not_skipped() {
    let required = |text: String| {
        let inputs = "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\", release = \"same\"";
        assert!(text.contains(inputs));
        text.replace(inputs, &format!("{inputs}, required = true"))
    };
    assert_accepted(&change().policy(required).build().file());
    let skip = |task: &mut custody_core::statement::Task| {
        task.inputs.retain(|input| input.directory.as_str() != "partial");
    };
    let refused = change().policy(required).task("new/sign/task", skip).build().file();
    assert_refused(&refused, Code::ChainStepMissing);
}

/// `chain-stale-task`, `chain-time-order`.
#[test]
fn contradicting_times_are_refused() {
    let manifest = |edit: fn(&mut custody_core::statement::Manifest)| {
        change().manifest("new/build/manifest", edit).build().file()
    };
    let task = |edit: fn(&mut custody_core::statement::Task)| {
        change().task("new/build/task", edit).build().file()
    };
    assert_refused(&manifest(|m| m.started = at(99_999)), Code::ChainTimeOrder);
    assert_refused(&manifest(|m| m.finished = at(100_305)), Code::ChainTimeOrder);
    assert_refused(&manifest(|m| m.finished = at(900_000)), Code::ChainTimeOrder);
    assert_refused(
        &manifest(|m| (m.started, m.finished) = (at(108_000), at(108_001))),
        Code::ChainStale,
    );
    assert_refused(&task(|t| t.created = at(99_000)), Code::ChainTimeOrder);
    assert_refused(&task(|t| t.deadline = at(180_001)), Code::ChainStale);
    assert_refused(&task(|t| t.deadline = at(100_300 + 86_401)), Code::ChainStale);
    let sign = change().manifest("new/sign/manifest", |m| m.started = at(100_000)).build().file();
    assert_refused(&sign, Code::ChainTimeOrder);
    let authorization = |edit: fn(&mut custody_core::statement::Authorization)| {
        change().authorization("new/promote/authorization", edit).build().file()
    };
    assert_refused(&authorization(|a| a.expires = at(180_001)), Code::ChainStale);
    assert_refused(&authorization(|a| a.not_before = at(99_000)), Code::ChainTimeOrder);
    assert_refused(&authorization(|a| a.not_before = at(400_000)), Code::ChainTimeOrder);
}

/// A task that is a product of a decision step.
/// Row `chain-self-authorised`.
#[test]
fn a_task_that_a_decision_step_made_is_accepted_and_others_are_not() {
    assert_accepted(&honest().extra_file());
    let other = change().task("new/extra/task", |task| task.command.push("--evil".into())).build();
    assert_refused(&other.extra_file(), Code::ChainTaskMissing);
    let mut undecided = honest();
    undecided.drop("new/decide/manifest");
    assert_refused(&undecided.extra_file(), Code::ChainTaskMissing);
    let wrong = change().signed_by("new/decide/manifest", &["builder"]).build();
    assert_refused(&wrong.extra_file(), Code::PolicyKeyPurpose);
    let scheduled =
        |text: String| text.replace("scheduled-by = \"decide\"", "schedule = [\"scheduler\"]");
    let plain = change().policy(scheduled).build();
    assert_refused(&plain.extra_file(), Code::PolicyKeyPurpose);
    // the decision of another release, though it made the very same bytes
    let mut moved = honest();
    let old = moved.id("old/decide/task");
    moved.envelopes.retain(|name, _| name != "new/decide/manifest");
    let mut manifest = moved.get_manifest("new/decide/manifest");
    manifest.task = old;
    moved.add("moved", manifest, &["decider"]);
    assert_refused(&moved.extra_file(), Code::ChainTaskMissing);
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

/// `res-deep-chain`, in a size that is allowed: time grows with the chain and no stack is used up.
#[test]
fn a_chain_of_twenty_thousand_manifests_in_a_line_ends() {
    let time = |count: u64| {
        let looping = |text: String| {
            text.replace(
                "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\"",
                "inputs = [{ step = \"sign\", release = \"same\" }, { step = \"partial\"",
            )
        };
        let mut before: Option<(StatementId, custody_core::statement::Artifact)> = None;
        let mut world = change().policy(looping).build();
        let authorization = world.id("new/promote/authorization");
        let chain = world.chain();
        let mut evidence = world.evidence();
        for n in 0..count {
            let mut task = world.task_of("new", "sign", authorization, 100_300);
            task.nonce = world::nonce(&n.to_string());
            if let Some((id, _)) = &before {
                task.inputs.push(world::World::input(Origin::Task(*id), "signed", "signed/*"));
            }
            world.add("line/task", task, &["scheduler"]);
            let mut manifest = world.run(
                "line/task",
                "signer",
                100_400,
                vec![artifact("signed/x", &n.to_string())],
            );
            if let Some((_, last)) = &before {
                let id = world.id("line/manifest");
                manifest.upstream = vec![id];
                manifest.inputs =
                    vec![UsedInput { artifact: last.clone(), origin: InputOrigin::Manifest(id) }];
            }
            before = Some((world.id("line/task"), manifest.artifacts[0].clone()));
            world.add("line/manifest", manifest, &["signer"]);
            evidence.insert(world.envelopes["line/task"].clone());
            evidence.insert(world.envelopes["line/manifest"].clone());
        }
        let mut question = world.ask("x", &(count - 1).to_string());
        question.expect.step = Some(label("sign"));
        let begun = std::time::Instant::now();
        let report = verify(&question, &evidence, &chain, world.now);
        let took = begun.elapsed();
        assert_accepted(&report);
        assert!(report.nodes().count() as u64 > 2 * count);
        took
    };
    let (short, long) = (time(2_500), time(20_000));
    println!("2,500 manifests in a line: {short:?}; 20,000: {long:?}");
}

/// A release of many files is verified; it prints how long that takes.
#[test]
fn a_publication_of_many_files_is_verified() {
    let time = |count: usize| {
        let many = move |prefix: &'static str, file: &'static str| {
            move |manifest: &mut custody_core::statement::Manifest| {
                manifest.artifacts.extend(
                    (0..count).map(|n| artifact(&format!("{prefix}f{n}"), &format!("{file} {n}"))),
                );
            }
        };
        let world = change()
            .manifest("new/sign/manifest", many("signed/", "f"))
            .manifest("new/publish/manifest", many("", "f"))
            .build();
        let evidence = world.evidence();
        let begun = std::time::Instant::now();
        assert_accepted(&world.file_from(&evidence));
        let file = begun.elapsed();
        let unpublished = world.unpublished();
        let begun = std::time::Instant::now();
        assert_accepted(&unpublished.gate("new/publish/task"));
        (file, begun.elapsed())
    };
    let (few, many) = (time(1_500), time(12_000));
    println!("1,500 files: {few:?}; 12,000: {many:?}");
}

/// Every rule stands in the report of some accepted question, as passed or as not required.
#[test]
fn every_rule_is_in_the_report_of_some_accepted_question() {
    let world = honest();
    let unpublished = world.clone().unpublished();
    let mut reports = vec![world.file(), world.extra_file(), unpublished.gate("new/publish/task")];
    reports.push(unpublished.gate("new/notes/task"));
    for rule in Rule::ALL {
        let outcomes = reports.iter().flat_map(Report::nodes).flat_map(|node| &node.checks);
        let mut outcomes = outcomes.filter(|check| check.rule == *rule).map(|check| &check.outcome);
        assert!(outcomes.any(|outcome| !matches!(outcome, Outcome::Failed(_))), "{}", rule.name());
    }
    for report in &reports {
        assert_accepted(report);
        for node in report.nodes() {
            assert!(
                node.checks.windows(2).all(|pair| pair[0].rule < pair[1].rule),
                "{}",
                node.title
            );
        }
    }
}

/// An act in doubt has nothing to do with files that others explain; an intent alone explains none.
#[test]
fn an_intent_is_no_manifest() {
    let mut world = honest().unpublished();
    let intent: Intent = world.intent("new/publish/task", Stage::Done, 101_450);
    world.add("intent", intent, &["publisher"]);
    assert_refused(
        &verify(&world.ask("other", "bytes"), &world.evidence(), &world.chain(), world.now),
        Code::ChainStepMissing,
    );
    // the signing step explains the bytes, but nobody let them out
    assert_refused(&world.file(), Code::ChainStepMissing);
    let mut question = world.ask("hello.partial", &content("new", "partial, signed"));
    question.expect.step = Some(label("sign"));
    assert_accepted(&verify(&question, &world.evidence(), &world.chain(), world.now));
    question.expect.step = Some(label("build"));
    assert_refused(
        &verify(&question, &world.evidence(), &world.chain(), world.now),
        Code::ChainStepMismatch,
    );
}

/// A publishing step publishes: with a command of its own it could make what users get out of nothing
/// that anybody signed off.
#[test]
fn a_publishing_step_runs_no_command() {
    let command = || vec!["scripts/publish.sh".to_owned()];
    let world = change()
        .task("new/publish/task", move |task| {
            task.destination = None;
            task.command = command();
        })
        .manifest("new/publish/manifest", move |manifest| {
            manifest.destination = None;
            manifest.command = command();
        })
        .build();
    assert_refused(&world.file(), Code::GateDestinationForbidden);
    assert_accepted(&honest().file());
}
