//! Whoever holds storage, a worker or the scheduler tries to pass something off as this release.
//! Each refusal stands beside its untouched control.
#![expect(
    clippy::print_stdout,
    clippy::similar_names,
    clippy::type_complexity,
    reason = "tests measure, and tell a word from a world"
)]

mod inputs;
mod nonsense;
mod results;
mod size;

use custody_world as world;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{InputOrigin, Intent, Revision, Stage, Statement, worker_uri};
use custody_verify::report::{NodeKind, Outcome, Rule};
use custody_verify::{Evidence, Expectation, Report, Subject, verify};
use world::{
    artifact, assert_accepted, assert_refused, at, change, content, findings, honest, label, source,
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
        // what a stranger signed was not changed either, nor is a policy
        let policy = world::policy_envelope(&world::policy_text(), &["alice", "bob"]);
        world.envelopes.insert("policy".into(), policy);
        let stranger = world.get_signoff("new/ship/signoff/bob");
        world.add("stranger", stranger, &["mallory"]);
        assert!(!world.file().codes().contains(&Code::EnvSignatureInvalid), "nothing was changed");
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
    // a whole release of another instance or channel, where nobody asks for one
    let whole = |edit: fn(&mut custody_core::statement::Request)| {
        let requests = ["new/promote/request", "new/ship/request"];
        let builder = requests.iter().fold(change(), |builder, name| builder.request(name, edit));
        let world = builder.build();
        let mut question = world.ask("hello.partial", &content("new", "partial, signed"));
        question.expect = Expectation::default();
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    assert_accepted(&whole(|_| ()));
    assert_accepted(&whole(|r| r.release.channel = label("beta")));
    let staging = whole(|r| r.release.instance = label("staging"));
    assert_refused(&staging, Code::ChainInstanceMismatch);
    let nightly = whole(|r| r.release.channel = label("nightly"));
    assert_refused(&nightly, Code::ChainReleaseMismatch);
    let staged =
        change().request("old/promote/request", |r| r.release.instance = label("staging")).build();
    assert_refused(&staged.file(), Code::ChainInstanceMismatch);
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
