//! More evidence than the judge takes: it ends, says so, and does not accept.

use custody_world as world;

use custody_core::Code;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{InputOrigin, Manifest, Statement, UsedInput};
use custody_verify::judge::{MAX_MANIFESTS, MAX_STATEMENTS};
use custody_verify::{Docket, Evidence, InTurn, Judge, Question, Subject, verify};
use world::{artifact, assert_accepted, assert_refused, content, honest, label, signed};

/// `res-million-nodes`.
#[test]
fn more_statements_than_allowed_are_refused() {
    let world = honest();
    let mut evidence: Evidence = world.evidence();
    let mut number = 0;
    while evidence.len() < MAX_STATEMENTS {
        number += 1;
        evidence.insert(Envelope::unsigned::<Statement>(format!("{number}").into_bytes()));
    }
    assert_accepted(&world.file_from(&evidence));
    evidence.insert(Envelope::unsigned::<Statement>(b"one more"));
    assert_refused(&world.file_from(&evidence), Code::ChainNodeLimit);
}

/// `res-deep-chain`, `res-error-flood`: a line of manifests, each of which has something wrong. Depth is
/// no limit of its own, because the walk is a queue; the number of manifests is.
#[test]
fn a_longer_chain_than_allowed_is_refused_with_each_code_once() {
    let world = honest();
    let mut evidence = world.evidence();
    let mut manifest: Manifest = world.get_manifest("new/build/manifest");
    manifest.task = StatementId(custody_core::digest::Sha256::of(b"no task"));
    let mut before: Option<(StatementId, u64)> = None;
    for n in 0..=u64::try_from(MAX_MANIFESTS).unwrap() {
        manifest.artifacts = vec![artifact("dist/x", &n.to_string())];
        if let Some((id, n)) = before {
            manifest.upstream = vec![id];
            let (artifact, origin) =
                (artifact("dist/x", &n.to_string()), InputOrigin::Manifest(id));
            manifest.inputs = vec![UsedInput { artifact, origin }];
        }
        let json = Statement::from(manifest.clone()).to_json();
        let envelope = signed(Envelope::unsigned::<Statement>(json.into_bytes()), &["builder"]);
        before = Some((envelope.id(), n));
        evidence.insert(envelope);
    }
    let mut question = world.ask("x", &MAX_MANIFESTS.to_string());
    question.expect.step = Some(label("build"));
    let report = verify(&question, &evidence, &world.chain(), world.now);
    assert!(report.accepted().is_none());
    assert!(report.codes().contains(&Code::ChainNodeLimit), "{:?}", report.codes());
    assert!(report.findings().count() >= MAX_MANIFESTS);
    let codes = report.codes();
    assert!(codes.len() < 5, "{codes:?}");
    assert!(codes.windows(2).all(|pair| pair[0] < pair[1]), "{codes:?}");
}

/// `res-error-flood`: very many results of one task. Each is looked at once, and a refusal names a few.
#[test]
fn many_results_of_one_task_are_not_all_named() {
    let world = honest();
    let mut evidence = world.evidence();
    let mut other = world.get_manifest("new/build/manifest");
    for n in 0..200 {
        other.invocation = format!("run {n}");
        evidence.insert(signed(Statement::from(other.clone()).to_envelope(), &["builder"]));
    }
    let chain = world.chain();
    let docket = Docket::open(&evidence, &chain, world.now, &InTurn);
    let mut judge = Judge::of_all(&docket, &InTurn);
    let question = world.ask("hello.partial", &content("new", "partial, signed"));
    let report = judge.verify(&question);
    assert_refused(&report, Code::ChainForked);
    assert_eq!(report, verify(&question, &evidence, &chain, world.now));
    let all = Subject::Documents(evidence.iter().map(Envelope::id).collect());
    let report = judge.verify(&Question { subject: all, ..question });
    let forked = report.findings().filter(|(_, _, refusal)| refusal.code == Code::ChainForked);
    let texts: Vec<_> = forked.map(|(_, _, refusal)| refusal.found.clone()).collect();
    assert_eq!(texts.len(), 201);
    assert!(texts.iter().all(|text| text.ends_with("and 197 more")), "{}", texts[0]);
}
