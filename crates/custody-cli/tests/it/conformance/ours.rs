//! What others make of our envelopes.

use std::collections::BTreeSet;

use custody_core::envelope::{Envelope, Payload as _};
use custody_core::statement::Statement;
use serde_json::Value;

use super::{Python, SCHEMES, evidence, public_keys};
use crate::world::World;

fn kind(envelope: &Envelope) -> &'static str {
    Statement::parse(envelope.unverified_payload()).map_or("policy", |statement| statement.kind())
}

/// A release with a statement of every kind, signed by machines with keys of every scheme.
fn released(python: &Python) -> (World, Vec<Envelope>) {
    let world = python.world();
    world.found(&world.policy_text());
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    world.run_all(&authorization).done();
    let task = world.shipping();
    world.publish(&task).done();
    world.done(&format!(
        "release resolve {task} --store store --resume --as carol --reason looked --key keys/carol"
    ));
    let pin = world.pin();
    world.done(&format!("verify www/all.bin --pin {pin} --summary summary.json --key keys/desk"));
    world.done("evidence add summary.json --store store");
    let envelopes = evidence(&world);
    (world, envelopes)
}

#[test]
fn securesystemslib_and_in_toto_read_and_verify_every_kind_of_statement() {
    let Some(python) = Python::find("what peers make of our statements") else { return };
    let (world, envelopes) = released(&python);
    public_keys(&world, "peers");
    for envelope in &envelopes {
        world.write(&format!("peers/{}.json", envelope.id()), envelope.to_json());
    }
    let said = python.ask("read.py", &[world.path("peers").to_str().unwrap()], &Value::Null);

    let (mut kinds, mut schemes) = (BTreeSet::new(), BTreeSet::new());
    for envelope in &envelopes {
        let found = &said[envelope.id().to_string()];
        let kind = kind(envelope);
        kinds.insert(kind);
        // their PAE is ours
        assert_eq!(found["pae"], envelope.id().to_string(), "{kind}");
        let people = envelope.signatures()[0].sig.starts_with(b"SSHSIG");
        let signers: Vec<&str> = envelope
            .signatures()
            .iter()
            .map(|signature| signature.keyid.as_deref().unwrap())
            .collect();
        let (verified, refused) =
            if people { ("refusedFrom", "verifiedBy") } else { ("verifiedBy", "refusedFrom") };
        assert_eq!(found[verified], serde_json::json!(signers), "{kind}: {found:#}");
        assert_eq!(found[refused], serde_json::json!([]), "{kind}: {found:#}");
        if !people {
            schemes.insert(found["scheme"].as_str().unwrap());
            assert_eq!(found["in-toto verified"], "verified", "{kind}");
            let bytes =
                envelope.unverified_payload().len().div_ceil(7) + envelope.payload_type().len();
            let all = bytes + envelope.signatures()[0].sig.len();
            assert_eq!(
                (&found["changes"], &found["changesAccepted"]),
                (&all.into(), &0.into()),
                "{kind}"
            );
            assert_eq!(found["othersAccepted"], 0, "{kind}");
        }
        if kind == "policy" {
            continue;
        }
        assert_eq!(found["in-toto"], "Envelope");
        let statement = &found["statement"];
        assert_eq!(statement["lossless"], true, "{kind}");
        let ours: Value = serde_json::from_slice(envelope.unverified_payload()).unwrap();
        assert_eq!(statement["predicateType"], ours["predicateType"]);
        assert_eq!(statement["subjects"], ours["subject"].as_array().unwrap().len());
        match kind {
            "manifest" => {
                assert_eq!(
                    (&statement["predicate"], &statement["fault"]),
                    (&true.into(), &Value::Null)
                );
            }
            "verification summary" => {
                // the list of levels is what SLSA says; everything else they read as we meant it
                assert!(ours["predicate"]["verifiedLevels"].is_array());
                assert_eq!(statement["predicate"], true);
                let fault = statement["fault"].as_str().unwrap();
                assert!(fault.contains("verifiedLevels field"), "{fault}");
            }
            _ => assert_eq!(statement["predicate"], Value::Null),
        }
    }
    let all = [
        "authorization",
        "intent",
        "manifest",
        "policy",
        "request",
        "resolution",
        "sign-off",
        "task",
        "verification summary",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
    let of_machines: BTreeSet<&str> = SCHEMES.iter().map(|(scheme, _)| *scheme).collect();
    assert_eq!(schemes, of_machines);
}
