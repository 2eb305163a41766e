//! What holds for all evidence: order, removal and mutation.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::similar_names,
    reason = "tests fail loudly, count, and tell a word from a world"
)]

use std::collections::BTreeSet;

use custody_world as world;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{Decision, Resolve, Signoff, Stage, Statement};
use custody_verify::{Docket, Evidence, Floor, Judge, Report, Spread, Subject, verify};
use proptest::prelude::*;
use world::{
    Builder, World, artifact, assert_accepted, at, change, findings, honest, label, signed,
};

/// Who honestly signs a statement.
fn signer_of(name: &str) -> &'static str {
    let all = [
        ("request", "alice"),
        ("signoff/bob", "bob"),
        ("signoff/carol", "carol"),
        ("authorization", "desk"),
        ("extra/task", "decider"),
        ("task", "scheduler"),
        ("build/manifest", "builder"),
        ("partial/manifest", "packer"),
        ("sign/manifest", "signer"),
        ("decide/manifest", "decider"),
        ("publish/manifest", "publisher"),
        ("manifest", "docs"),
    ];
    all.iter().find(|(end, _)| name.ends_with(end)).unwrap().1
}

/// The questions that this file asks, with the evidence as it is.
fn reports(world: &World, evidence: &Evidence) -> Vec<Report> {
    (0..3).map(|question| report(world, evidence, question)).collect()
}

fn report(world: &World, evidence: &Evidence, question: usize) -> Report {
    let gate = |task| verify(&world.gate_question(task), evidence, &world.chain(), at(101_800));
    match question {
        0 => world.file_from(evidence),
        1 => gate("new/publish/task"),
        _ => gate("new/notes/task"),
    }
}

fn without(world: &World, id: StatementId) -> Evidence {
    world.envelopes.values().filter(|envelope| envelope.id() != id).cloned().collect()
}

/// Scenarios that are refused, by what is wrong with them.
fn refused() -> Vec<(&'static str, World)> {
    let build = |builder: Builder| builder.build();
    let mut all = vec![
        ("wrong worker", build(change().signed_by("new/build/manifest", &["docs"]))),
        (
            "wrong worker too",
            build(change().signed_by("new/publish/manifest", &["docs", "signer"])),
        ),
        ("wrong decider", build(change().signed_by("new/decide/manifest", &["docs"]))),
        ("wrong scheduler", build(change().signed_by("new/sign/task", &["builder"]))),
        ("wrong person", build(change().signed_by("new/ship/signoff/bob", &["alice"]))),
        (
            "one person twice",
            build(change().authorization("new/ship/authorization", |a| {
                a.approvers[1] = a.approvers[0].clone();
            })),
        ),
        (
            "one approver",
            build(change().authorization("new/ship/authorization", |a| a.approvers.truncate(1))),
        ),
        ("no request", build(change().request("new/promote/request", |r| r.builds_on.clear()))),
        ("another source", build(change().manifest("new/build/manifest", |m| m.source = None))),
        (
            "one input more",
            build(change().manifest("new/sign/manifest", |m| m.inputs.push(m.inputs[0].clone()))),
        ),
        (
            "another file",
            build(change().manifest("new/publish/manifest", |m| {
                m.artifacts[0] = artifact("hello", "evil");
            })),
        ),
        ("late", build(change().task("new/publish/task", |t| t.deadline = at(900_000)))),
        (
            "nonsense",
            build(change().json("new/sign/manifest", |json| json.replace("sha256", "sha1"))),
        ),
    ];
    for name in
        ["new/ship/signoff/bob", "new/build/task", "new/partial/manifest", "old/promote/request"]
    {
        let mut world = honest();
        world.drop(name);
        all.push(("missing", world));
    }
    let mut summary = honest().unpublished();
    let whole = summary.gate("new/publish/task");
    let word = summary.summary(&whole);
    summary.add("summary", word, &["gate"]);
    summary.drop("old/build/task");
    all.push(("summary", summary));
    all
}

/// Scenarios that are refused for what should not be there; this may be taken away.
fn negative() -> Vec<(&'static str, World)> {
    let mut fork = honest();
    let mut other = fork.get_manifest("new/build/manifest");
    other.invocation = "again".into();
    fork.add("negative", other, &["builder"]);
    let mut refusal = honest();
    let request = refusal.get_request("new/ship/request");
    let said = Signoff::of(
        &request,
        refusal.id("new/ship/request"),
        Decision::Refuse,
        label("alice"),
        label("releng"),
        at(101_150),
    );
    refusal.add("negative", said.clone(), &["alice"]);
    let mut withdrawal = honest();
    let taken_back = Signoff {
        decision: Decision::Withdraw,
        person: label("bob"),
        withdraws: Some(withdrawal.id("new/ship/signoff/bob")),
        ..said
    };
    withdrawal.add("negative", taken_back, &["bob"]);
    let mut doubt = honest().unpublished();
    let intent = doubt.intent("new/publish/task", Stage::Announced, 101_450);
    doubt.add("negative", intent, &["publisher"]);
    vec![("fork", fork), ("refusal", refusal), ("withdrawal", withdrawal), ("doubt", doubt)]
}

/// Removing evidence never panics, and makes no acceptance out of a refusal but where negative
/// evidence goes away.
#[test]
fn removing_any_one_envelope_makes_no_refusal_an_acceptance() {
    let mut tried = 0;
    for (what, world) in refused()
        .into_iter()
        .chain(negative())
        .chain([("honest", honest()), ("waiting", honest().unpublished())])
    {
        let before = reports(&world, &world.evidence());
        if before.iter().all(|report| report.accepted().is_some()) {
            continue;
        }
        for (name, envelope) in &world.envelopes {
            let evidence = without(&world, envelope.id());
            let refused =
                before.iter().enumerate().filter(|(_, report)| report.accepted().is_none());
            for (question, before) in refused {
                let after = report(&world, &evidence, question);
                tried += 1;
                let gained = after.accepted().is_some();
                // a gate may ask for a task again once its manifest is lost
                let negative = name == "negative"
                    || (name.ends_with("manifest")
                        && before.codes() == [custody_core::Code::GateAlreadyExecuted]);
                assert!(
                    !gained || negative,
                    "{what}: {} is accepted without {name}; before:{}",
                    after.subject().title,
                    findings(before)
                );
            }
        }
    }
    println!("{tried} reports after one removal each");
}

/// The last item first, as no core would have it.
struct Backwards;

impl Spread for Backwards {
    fn map<T: Sync, R: Send>(&self, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
        let mut results: Vec<R> = items.iter().rev().map(work).collect();
        results.reverse();
        results
    }
}

/// What a judge knows from other questions, in whatever order they were asked, changes no answer, nor
/// does who opened the evidence.
#[test]
fn a_judge_who_was_asked_before_answers_alike() {
    let mut worlds: Vec<World> = refused().into_iter().map(|(_, world)| world).collect();
    worlds.push(honest());
    worlds.push(honest().unpublished());
    let mut verdicts = BTreeSet::new();
    for world in &worlds {
        let mut questions = vec![
            world.gate_question("new/publish/task"),
            world.gate_question("new/notes/task"),
            world.ask("hello.partial", "nobody made this"),
            world.ask("never heard of", "nobody made this"),
        ];
        let manifests = world.statements.values().filter_map(Statement::as_manifest);
        for artifact in manifests.flat_map(|manifest| &manifest.artifacts) {
            for step in [None, Some(label("sign"))] {
                let mut question = world.ask(artifact.name.as_str(), "");
                question.subject = Subject::Artifact {
                    name: artifact.name.to_string(),
                    digests: artifact.digests,
                    size: artifact.size,
                };
                question.expect.step = step;
                questions.push(question);
            }
        }
        let (evidence, chain) = (world.evidence(), world.chain());
        let alone: Vec<Report> = questions
            .iter()
            .map(|question| verify(question, &evidence, &chain, at(101_800)))
            .collect();
        let docket = Docket::open(&evidence, &chain, at(101_800), &Backwards);
        let dropped = Docket::open_and_drop(world.evidence(), &chain, at(101_800), &Backwards);
        for mut judge in
            [Judge::new(&docket), Judge::of_all(&docket, &Backwards), Judge::new(&dropped)]
        {
            for (question, alone) in questions.iter().zip(&alone).rev() {
                assert_eq!(judge.verify(question), *alone, "{question:?}");
                verdicts.insert(alone.accepted().is_some());
            }
            for (question, alone) in questions.iter().zip(&alone) {
                assert_eq!(judge.verify(question), *alone, "{question:?}, asked again");
            }
        }
    }
    assert_eq!(verdicts.len(), 2, "of both verdicts there must be some");
}

/// Every document that an accepted report names is needed.
#[test]
fn removing_a_document_that_the_report_names_refuses() {
    let world = honest();
    let report = world.file();
    assert_accepted(&report);
    let named: Vec<StatementId> = report
        .nodes()
        .flat_map(|node| node.id.into_iter().chain(node.rests_on.iter().copied()))
        .collect();
    assert!(named.len() > 20);
    for id in named {
        assert!(
            world.file_from(&without(&world, id)).accepted().is_none(),
            "{}",
            world.name_of(id)
        );
    }
    // and a document that it does not name is not
    let idle = |name: &str| world.id(name);
    for name in ["new/extra/manifest", "new/notes/task", "old/ship/request", "old/publish/manifest"]
    {
        assert_accepted(&world.file_from(&without(&world, idle(name))));
    }
}

/// The signatures of one statement come in any order, from any number of envelopes.
fn shuffled(world: &World, order: &[usize], split: bool) -> Evidence {
    let mut envelopes: Vec<Envelope> = Vec::new();
    for envelope in world.envelopes.values() {
        if split {
            for signature in envelope.signatures() {
                let mut one = Envelope::unsigned::<Statement>(envelope.unverified_payload());
                one.add_signature(signature.clone());
                envelopes.push(one);
            }
        } else {
            envelopes.push(envelope.clone());
        }
    }
    let mut keyed: Vec<(usize, Envelope)> = envelopes
        .into_iter()
        .enumerate()
        .map(|(i, envelope)| (order[i % order.len()], envelope))
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    keyed.into_iter().map(|(_, envelope)| envelope).collect()
}

fn many_signatures(mut world: World) -> World {
    for (name, envelope) in world.envelopes.clone() {
        if !name.ends_with("summary") && !name.starts_with("negative") {
            world.envelopes.insert(
                name,
                signed(envelope, &["alice", "docs", "mallory", "alice-2", "builder"]),
            );
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2, failure_persistence: None, ..ProptestConfig::default() })]

    /// The report is the same, to the byte, in whatever order evidence comes.
    #[test]
    fn the_order_of_evidence_decides_nothing(order in prop::collection::vec(any::<usize>(), 60), split: bool) {
        let mut worlds: Vec<_> = refused().into_iter().step_by(5).collect();
        worlds.extend(negative());
        worlds.push(("honest", honest()));
        for (what, world) in worlds {
            for world in [world.clone(), many_signatures(world)] {
                let expected: Vec<String> = reports(&world, &shuffled(&world, &[0], false)).iter().map(|report| report.to_json().to_line()).collect();
                let found: Vec<String> = reports(&world, &shuffled(&world, &order, split)).iter().map(|report| report.to_json().to_line()).collect();
                prop_assert_eq!(expected, found, "{}", what);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any bytes that a known key signs end in a report.
    #[test]
    fn mutated_statements_by_known_keys_end_in_a_report(which: prop::sample::Index, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let world = honest();
        let names: Vec<&String> = world.envelopes.keys().collect();
        let name = which.get(&names).as_str();
        let mut payload = world.envelopes[name].unverified_payload().to_vec();
        for (place, byte) in flips {
            let place = place.index(payload.len());
            payload[place] = byte;
        }
        let changed = signed(Envelope::unsigned::<Statement>(payload), &[signer_of(name)]);
        let mut evidence = without(&world, world.id(name));
        evidence.insert(changed);
        for report in reports(&world, &evidence) {
            prop_assert_eq!(report.accepted().is_some(), report.codes().is_empty());
        }
    }

    /// The same, where the mutated statement is followed by everything that links to it.
    #[test]
    fn mutated_statements_with_an_honest_rest_end_in_a_report(which: prop::sample::Index, from: prop::sample::Index, to: prop::sample::Index) {
        let names = [
            "new/promote/request", "new/promote/signoff/bob", "new/promote/authorization", "new/build/task", "new/build/manifest", "new/partial/task",
            "new/partial/manifest", "new/sign/task", "new/sign/manifest", "new/ship/request", "new/ship/authorization", "new/publish/task",
        ];
        // one value takes the place of another: ids, digests, names and times change hands
        let swap = move |json: String| {
            let strings: Vec<(usize, usize)> = json.match_indices('"').map(|(i, _)| i).collect::<Vec<_>>().chunks(2).map(|pair| (pair[0], pair[1])).collect();
            let (a, b) = (strings[from.index(strings.len())], strings[to.index(strings.len())]);
            format!("{}{}{}", &json[..a.0], &json[b.0..b.1], &json[a.1..])
        };
        let name = *which.get(&names[..]);
        let world = change().json(name, swap).build();
        for report in reports(&world, &world.evidence()) {
            prop_assert_eq!(report.accepted().is_some(), report.codes().is_empty());
        }
    }

    /// What was seen is kept as it was.
    #[test]
    fn a_floor_is_read_back(version: u64, id: [u8; 32], seconds in 0_u64..1_000_000) {
        let policy = StatementId(Sha256::from_bytes(id));
        let floor = Floor { version, policy, time: at(seconds) };
        let text = floor.to_json();
        prop_assert_eq!(Floor::parse(text.as_bytes()), Ok(floor));
        prop_assert!(Floor::parse(text.replace("version", "versions").as_bytes()).is_err());
    }

    /// Envelopes that nobody signed, or that hold anything at all, neither harm nor help.
    #[test]
    fn junk_changes_nothing(junk in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5)) {
        let world = honest();
        let mut evidence = world.evidence();
        for bytes in junk {
            let id = Sha256::of(&bytes);
            evidence.insert(signed(Envelope::unsigned::<Statement>(bytes), if id.as_bytes()[0].is_multiple_of(2) { &["docs"] } else { &["mallory"] }));
        }
        prop_assert!(world.file_from(&evidence).accepted().is_some());
    }
}

/// A resolution by somebody entitled is no more than that: it cannot stand in for a manifest.
#[test]
fn a_resolution_alone_explains_nothing() {
    let mut world = honest();
    let id = world.id("new/build/manifest");
    let word = world.resolution("new/build/task", Resolve::Supersede(id), "carol");
    world.add("resolution", word, &["carol"]);
    assert_accepted(&world.file());
    world.drop("new/build/manifest");
    assert!(world.file().accepted().is_none());
}
