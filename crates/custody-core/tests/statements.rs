//! Every statement that can be written is read back as it was, and what cannot be meant is refused.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use custody_core::Code;
use custody_core::digest::{Digests, Sha256, Sha512};
use custody_core::envelope::{Payload as _, StatementId};
use custody_core::key::PublicKey;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{
    Approver, Artifact, Attestation, Authorization, Decision, Downloads, EarlierManifest,
    Enrolment, External, Image, Input, InputOrigin, Intent, Label, Limits, Manifest, Origin,
    Pinned, Pipeline, PolicyRef, ReleaseId, Request, Resolution, Resolve, Revision, Signoff,
    Source, Stage, Statement, Submodule, Summary, Task, UsedImage, UsedInput, VerificationResult,
};
use custody_core::time::Time;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = String> {
    let plain = any::<String>().prop_map(|text| {
        let kept = |c: &char| !c.is_control() && !custody_hides(*c);
        text.chars().filter(kept).collect::<String>()
    });
    prop_oneof![plain, "[ -~]{0,20}", Just("line\nline\ttab \"quoted\" \\ / é 漢".to_string())]
}

/// Characters that statements may not hold.
fn custody_hides(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn label() -> impl Strategy<Value = Label> {
    "[a-zA-Z0-9][a-zA-Z0-9._+@-]{0,30}".prop_map(|text| text.parse().unwrap())
}

fn name() -> impl Strategy<Value = ArtifactName> {
    "x[a-z0-9_+~@=,#]{0,9}(/x[a-z0-9 ._-]{0,6}y){0,3}".prop_map(|text| text.parse().unwrap())
}

fn pattern() -> impl Strategy<Value = Pattern> {
    "x[a-z*]{0,6}(/\\*\\*){0,2}(/[*]x){0,2}".prop_map(|text| text.parse().unwrap())
}

fn id() -> impl Strategy<Value = StatementId> {
    any::<[u8; 32]>().prop_map(|bytes| StatementId(Sha256::from_bytes(bytes)))
}

fn time() -> impl Strategy<Value = Time> {
    (0..253_402_300_800_u64).prop_map(|unix| Time::from_unix(unix).unwrap())
}

fn digests() -> impl Strategy<Value = Digests> {
    let sha512 = prop::option::of((any::<[u8; 32]>(), any::<[u8; 32]>()).prop_map(|(a, b)| {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&a);
        bytes[32..].copy_from_slice(&b);
        Sha512::from_bytes(bytes)
    }));
    (any::<[u8; 32]>(), sha512)
        .prop_map(|(bytes, sha512)| Digests { sha256: Sha256::from_bytes(bytes), sha512 })
}

fn artifact() -> impl Strategy<Value = Artifact> {
    (name(), digests(), any::<u64>()).prop_map(|(name, digests, size)| Artifact {
        name,
        digests,
        size,
    })
}

/// Artifacts of which no two collide: the names are numbered.
fn artifacts(least: usize) -> impl Strategy<Value = Vec<Artifact>> {
    prop::collection::vec(artifact(), least..5).prop_map(|mut all| {
        for (i, artifact) in all.iter_mut().enumerate() {
            artifact.name = format!("n{i}/{}", artifact.name).parse().unwrap();
        }
        all
    })
}

fn source() -> impl Strategy<Value = Source> {
    let revision = prop_oneof![
        "[0-9a-f]{40}".prop_map(Revision::Git),
        "[0-9a-f]{64}".prop_map(Revision::Git),
        "[0-9a-f]{40}".prop_map(Revision::Mercurial),
        "[0-9a-f]{64}".prop_map(Revision::Archive),
    ];
    (text(), revision).prop_map(|(uri, revision)| Source { uri, revision })
}

/// Submodules of which no two collide, and the raw object that carries a signature.
fn brought_along() -> impl Strategy<Value = (Option<Vec<u8>>, Vec<Submodule>)> {
    let submodule = (name(), text(), "[0-9a-f]{40}").prop_map(|(path, uri, commit)| Submodule {
        path,
        uri,
        commit,
    });
    let submodules = prop::collection::vec(submodule, 0..3).prop_map(|mut all| {
        for (i, submodule) in all.iter_mut().enumerate() {
            submodule.path = format!("s{i}/{}", submodule.path).parse().unwrap();
        }
        all
    });
    (prop::option::of(prop::collection::vec(any::<u8>(), 0..50)), submodules)
}

fn pairs() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map(text(), text(), 0..4).prop_map(|map| map.into_iter().collect())
}

fn release() -> impl Strategy<Value = ReleaseId> {
    (label(), label(), label(), label()).prop_map(|(product, version, channel, instance)| {
        ReleaseId { product, version, channel, instance }
    })
}

fn request() -> impl Strategy<Value = Statement> {
    let earlier = (label(), id(), any::<u64>(), any::<u64>()).prop_map(
        |(step, manifest, artifacts, bytes)| EarlierManifest { step, manifest, artifacts, bytes },
    );
    let head = (release(), label(), source(), (name(), any::<[u8; 32]>()), (any::<u64>(), id()));
    let tail = (prop::collection::vec(earlier, 0..3), pairs(), time(), time(), "[0-9a-f]{32}");
    (head, tail).prop_map(
        |(
            (release, phase, source, pipeline, policy),
            (builds_on, parameters, created, expires, nonce),
        )| {
            Statement::Request(Request {
                release,
                phase,
                source,
                pipeline: Pipeline { path: pipeline.0, sha256: Sha256::from_bytes(pipeline.1) },
                policy: PolicyRef { version: policy.0, id: policy.1 },
                builds_on,
                parameters,
                created,
                expires,
                nonce,
            })
        },
    )
}

fn signoff() -> impl Strategy<Value = Statement> {
    let head = (id(), 0..3_u8, label(), label(), release(), label());
    let parameters = prop::collection::btree_map(text(), text(), 0..4);
    let parameters = parameters.prop_map(|map| map.into_iter().collect::<Vec<_>>());
    let tail = ((source(), parameters), any::<u64>(), any::<u64>(), id(), time(), time(), text());
    (head, tail).prop_map(
        |(
            (request, decision, person, role, release, phase),
            ((source, parameters), artifacts, bytes, other, created, expires, comment),
        )| {
            let decision =
                [Decision::Approve, Decision::Refuse, Decision::Withdraw][usize::from(decision)];
            let withdraws = (decision == Decision::Withdraw).then_some(other);
            Statement::Signoff(Signoff {
                request,
                decision,
                person,
                role,
                release,
                phase,
                source,
                parameters,
                artifacts,
                bytes,
                withdraws,
                created,
                expires,
                comment,
            })
        },
    )
}

fn authorization() -> impl Strategy<Value = Statement> {
    let approver = (label(), label(), id()).prop_map(|(person, role, signoff)| Approver {
        person,
        role,
        signoff,
    });
    (id(), prop::collection::vec(approver, 0..4), time(), time()).prop_map(
        |(request, approvers, not_before, expires)| {
            Statement::Authorization(Authorization { request, approvers, not_before, expires })
        },
    )
}

fn task() -> impl Strategy<Value = Statement> {
    let origin = prop_oneof![id().prop_map(Origin::Task), id().prop_map(Origin::Manifest)];
    let input = (origin, name(), prop::collection::vec(pattern(), 1..3))
        .prop_map(|(origin, directory, patterns)| Input { origin, directory, patterns });
    let external = (artifact(), text()).prop_map(|(artifact, uri)| External { artifact, uri });
    let acts = prop_oneof![
        prop::collection::vec(text(), 1..4).prop_map(|command| (command, None)),
        text().prop_map(|destination| (Vec::new(), Some(destination))),
    ];
    let head = (id(), label(), text(), acts, pairs(), any::<bool>());
    let middle = (
        prop::collection::vec(input, 0..3),
        prop::option::of(source()),
        prop::collection::vec(external, 0..3),
    );
    let place = (prop::option::of(image()), limits(), prop::option::of(downloads()));
    let tail =
        (prop::collection::vec(pattern(), 0..3), any::<bool>(), time(), time(), "[0-9a-f]{32}");
    (head, middle, place, tail).prop_map(
        |(
            head,
            (inputs, source, externals),
            place,
            (outputs, sha512, created, deadline, nonce),
        )| {
            let (authorization, step, creator, (command, destination), variables, network) = head;
            let (image, limits, downloads) = place;
            Statement::Task(Task {
                authorization,
                step,
                creator,
                command,
                image,
                limits,
                destination,
                variables,
                network,
                downloads,
                inputs,
                source,
                externals,
                outputs,
                sha512,
                created,
                deadline,
                nonce,
            })
        },
    )
}

fn sha256() -> impl Strategy<Value = Sha256> {
    any::<[u8; 8]>().prop_map(|bytes| Sha256::of(&bytes))
}

fn image() -> impl Strategy<Value = Image> {
    prop_oneof![
        ("[a-z]{1,9}(/[a-z0-9]{1,9}){0,2}", sha256())
            .prop_map(|(name, digest)| Image::Named { name, digest }),
        artifact().prop_map(|artifact| Image::Input(artifact.name)),
    ]
}

fn used_image() -> impl Strategy<Value = UsedImage> {
    (text(), sha256(), prop::option::of(sha256()), text())
        .prop_map(|(name, id, manifest, platform)| UsedImage { name, id, manifest, platform })
}

fn limits() -> impl Strategy<Value = Limits> {
    let limit = || prop::option::of(0..1_u64 << 53);
    (limit(), limit(), limit()).prop_map(|(memory, processes, output)| Limits {
        memory,
        processes,
        output,
    })
}

fn downloads() -> impl Strategy<Value = Downloads> {
    let pinned = (text(), artifact()).prop_map(|(uri, artifact)| Pinned {
        uri,
        digests: artifact.digests,
        size: artifact.size,
    });
    let pinned = prop::option::of(prop::collection::vec(pinned, 0..3));
    (prop::collection::vec(text(), 0..3), pinned)
        .prop_map(|(from, pinned)| Downloads { from, pinned })
}

fn attestations() -> impl Strategy<Value = Vec<Attestation>> {
    let part = (label(), prop::collection::vec(any::<u8>(), 0..40));
    let parts = prop::collection::vec(part, 0..3).prop_map(|mut parts| {
        parts.sort();
        parts.dedup_by(|a, b| a.0 == b.0);
        parts
    });
    let one = (label(), parts).prop_map(|(platform, parts)| Attestation { platform, parts });
    prop::collection::vec(one, 0..3).prop_map(|mut all| {
        all.sort();
        all.dedup_by(|a, b| a.platform == b.platform);
        all
    })
}

fn manifest() -> impl Strategy<Value = Statement> {
    let origin = prop_oneof![
        id().prop_map(InputOrigin::Manifest),
        text().prop_map(InputOrigin::External),
        text().prop_map(InputOrigin::Download),
    ];
    let input = (artifact(), origin).prop_map(|(artifact, origin)| UsedInput { artifact, origin });
    let head = (
        artifacts(1),
        id(),
        label(),
        prop::collection::vec(text(), 0..3),
        prop::option::of(text()),
        text(),
        pairs(),
    );
    let tail = (
        prop::option::of(source()),
        (prop::collection::vec(id(), 0..3), prop::collection::vec(id(), 0..3)),
        prop::collection::vec(input, 0..3),
        (text(), text(), time(), time()),
        prop::option::of(artifact()),
    );
    let machine = (attestations(), prop::option::of(id()), prop::option::of(used_image()));
    (head, machine, brought_along(), tail).prop_map(
        |(
            (artifacts, task, step, command, destination, creator, environment),
            (attestations, enrolment, image),
            (signed_source, submodules),
            (source, (upstream, agreeing), inputs, run, log),
        )| {
            let (builder, invocation, started, finished) = run;
            Statement::Manifest(Manifest {
                artifacts,
                task,
                step,
                command,
                destination,
                creator,
                environment,
                attestations,
                enrolment,
                image,
                source,
                signed_source,
                submodules,
                upstream,
                agreeing,
                inputs,
                builder,
                invocation,
                started,
                finished,
                log,
            })
        },
    )
}

fn summary() -> impl Strategy<Value = Statement> {
    let tail =
        (prop::collection::vec(id(), 0..4), any::<bool>(), prop::collection::vec(text(), 0..3));
    (artifacts(1), text(), time(), text(), text(), id(), tail).prop_map(
        |(artifacts, verifier, verified, resource_uri, policy_uri, policy, tail)| {
            let (inputs, passed, levels) = tail;
            let result =
                if passed { VerificationResult::Passed } else { VerificationResult::Failed };
            Statement::Summary(Summary {
                artifacts,
                verifier,
                verified,
                resource_uri,
                policy_uri,
                policy,
                inputs,
                result,
                levels,
            })
        },
    )
}

fn intent() -> impl Strategy<Value = Statement> {
    (id(), any::<bool>(), text(), artifacts(0), time()).prop_map(
        |(task, done, destination, artifacts, created)| {
            let stage = if done { Stage::Done } else { Stage::Announced };
            Statement::Intent(Intent { task, stage, destination, artifacts, created })
        },
    )
}

fn resolution() -> impl Strategy<Value = Statement> {
    let resolve = prop_oneof![id().prop_map(Resolve::Resume), id().prop_map(Resolve::Supersede)];
    (id(), resolve, label(), text(), time()).prop_map(|(task, resolve, person, reason, created)| {
        Statement::Resolution(Resolution { task, resolve, person, reason, created })
    })
}

fn enrolment() -> impl Strategy<Value = Statement> {
    let facts = proptest::collection::btree_map("[a-z]{1,8}", text(), 0..3);
    let attestations = proptest::collection::vec(any::<u8>(), 0..40);
    (id(), label(), attestations, facts, 0..4_000_000_000_u64, 1..100_000_u64).prop_map(
        |(challenge, machine, bytes, facts, from, window)| {
            let platform = machine.clone();
            let from = Time::from_unix(from).unwrap();
            Statement::Enrolment(Enrolment {
                key: PublicKey::Ed25519([0x15; 32]),
                challenge: challenge.0,
                possession: bytes.clone(),
                attestations: vec![Attestation { platform, parts: vec![(machine.clone(), bytes)] }],
                machine,
                facts: facts.into_iter().collect(),
                from,
                until: from.plus(window),
            })
        },
    )
}

fn any_statement() -> impl Strategy<Value = Statement> {
    prop_oneof![
        request(),
        signoff(),
        authorization(),
        task(),
        manifest(),
        summary(),
        intent(),
        resolution(),
        enrolment()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(statement in any_statement()) {
        let json = statement.to_json();
        let again = Statement::parse(json.as_bytes());
        prop_assert_eq!(again.as_ref(), Ok(&statement), "{}", json);
        prop_assert_eq!(again.unwrap().to_json(), json);
    }

    /// Bytes that are nearly a statement end in a value that is written and read as itself, or in a refusal.
    #[test]
    fn mutated_statements_are_read_or_refused(statement in any_statement(), place: prop::sample::Index, byte: u8) {
        let mut json = statement.to_json().into_bytes();
        let place = place.index(json.len());
        json[place] = byte;
        if let Ok(read) = Statement::parse(&json) {
            prop_assert_eq!(Statement::parse(read.to_json().as_bytes()), Ok(read));
        }
    }

    /// `json-unknown-member-own`, `json-dup-key-statement`, `json-null-for-list`.
    #[test]
    fn a_member_more_twice_or_less_is_refused(statement in any_statement(), which: prop::sample::Index) {
        let json = statement.to_json();
        let predicate = json.find("\"predicate\": {").unwrap() + 13;
        let with = |member: &str| format!("{}{member},{}", &json[..=predicate], &json[predicate + 1..]);
        prop_assert_eq!(Statement::parse(with("\"evil\": 1").as_bytes()).unwrap_err().code, Code::ParseUnknownField);
        let members: Vec<&str> = json.match_indices("\n    \"").map(|(i, _)| json[i + 6..].split('"').next().unwrap()).collect();
        let name = *which.get(&members[..]);
        let twice = Statement::parse(with(&format!("\"{name}\": null")).as_bytes()).unwrap_err().code;
        prop_assert!(matches!(twice, Code::ParseDuplicateKey | Code::ParseUnknownField | Code::ParseFieldType), "{} {}", name, twice);
    }
}

/// What a document says has one form: nothing that is read gets lost when it is written again.
#[test]
fn members_that_mean_nothing_here_are_refused() {
    let digest = "0".repeat(64);
    let parse = |source: &str, listed: &str| {
        let json = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"authorization","digest":{{"sha256":"{digest}"}}}}],
            "predicateType":"https://custody.dev/task/v1","predicate":{{"step":"build","creator":"c","command":["x"],"variables":{{}},
            "network":false,"inputs":[],{source}"externals":[],"outputs":["*"],"sha512":false,"created":"2026-01-01T00:00:00Z",
            "deadline":"2026-01-01T01:00:00Z","nonce":"{}"{listed}}}}}"#,
            "0".repeat(32)
        );
        Statement::parse(json.as_bytes()).map_err(|refusal| refusal.code)
    };
    let source = |name: &str| {
        let commit = "0".repeat(40);
        format!(r#""source":{{{name}"uri":"https://x","digest":{{"gitCommit":"{commit}"}}}},"#)
    };
    assert!(parse("", "").is_ok());
    assert!(parse(&source(r#""name":"source","#), "").is_ok());
    assert_eq!(parse(&source(r#""name":"tag","#), "").unwrap_err(), Code::ParseFieldType);
    assert_eq!(parse(&source(""), "").unwrap_err(), Code::ParseFieldType);

    let artifact = |more: &str| {
        let json = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"name":"task","digest":{{"sha256":"{digest}"}}}}],
            "predicateType":"https://custody.dev/intent/v1","predicate":{{"stage":"announced","destination":"file:///x",
            "artifacts":[{{"name":"a",{more}"digest":{{"sha256":"{digest}"}},"annotations":{{"size":1}}}}],"created":"2026-01-01T00:00:00Z"}}}}"#
        );
        Statement::parse(json.as_bytes()).map_err(|refusal| refusal.code)
    };
    assert!(artifact("").is_ok());
    assert_eq!(artifact(r#""uri":"https://x","#).unwrap_err(), Code::ParseUnknownField);
}
