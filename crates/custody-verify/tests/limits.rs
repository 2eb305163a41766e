//! More evidence than the judge takes: it ends, says so, and does not accept.

use custody_world as world;

use custody_core::Code;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{InputOrigin, Manifest, Statement, UsedInput};
use custody_verify::judge::{MAX_MANIFESTS, MAX_STATEMENTS};
use custody_verify::{Evidence, verify};
use world::{artifact, assert_accepted, assert_refused, honest, label, signed};

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
    evidence.insert(Envelope::unsigned::<Statement>(b"one more".to_vec()));
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
