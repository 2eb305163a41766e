//! Documents that are larger than any honest one. Each limit stands beside what just passes; that it is
//! refused early shows in that the test ends.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custody_core::Code;
use custody_core::envelope::{Envelope, Keyring, Payload as _, PolicyText, Signature};
use custody_core::key::PublicKey;
use custody_core::limits;
use custody_core::name::ArtifactName;
use custody_core::statement::Statement;

const SHA256: &str = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae";

/// A manifest of so many artifacts that used so many others.
fn manifest(subjects: usize, dependencies: usize) -> String {
    let descriptor = |name: &str| {
        format!(
            r#"{{"name":"{name}","digest":{{"sha256":"{SHA256}"}},"annotations":{{"size":1}}}}"#
        )
    };
    let list = |count: usize, entry: &dyn Fn(usize) -> String| {
        (0..count).map(entry).collect::<Vec<_>>().join(",")
    };
    let subjects = list(subjects, &|n| descriptor(&format!("f{n}")));
    let dependency = format!(
        r#"{{"name":"manifest","digest":{{"sha256":"{SHA256}"}},"annotations":{{"role":"manifest"}}}}"#
    );
    let dependencies = list(dependencies, &|_| dependency.clone());
    format!(
        r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{subjects}],
        "predicateType":"https://slsa.dev/provenance/v1","predicate":{{
        "buildDefinition":{{"buildType":"https://custody.dev/step/v1",
        "externalParameters":{{"task":{{"digest":{{"sha256":"{SHA256}"}}}},"step":"s","command":["c"]}},
        "internalParameters":{{"taskCreator":"c","environment":{{}}}},
        "resolvedDependencies":[{dependencies}]}},
        "runDetails":{{"builder":{{"id":"b"}},"metadata":{{"invocationId":"i",
        "startedOn":"2026-03-01T00:00:00Z","finishedOn":"2026-03-01T00:00:00Z"}},"byproducts":[]}}}}}}"#
    )
}

fn read(text: &str) -> Result<usize, Code> {
    match Statement::parse(text.as_bytes()) {
        Ok(Statement::Manifest(manifest)) => Ok(manifest.artifacts.len() + manifest.upstream.len()),
        Ok(other) => panic!("a {}", other.kind()),
        Err(refusal) => Err(refusal.code),
    }
}

/// `res-subject-flood`, `res-wide-fan-in`.
#[test]
fn more_subjects_or_dependencies_than_allowed_are_refused() {
    assert_eq!(read(&manifest(1, 0)), Ok(1));
    assert_eq!(read(&manifest(limits::SUBJECTS, 0)), Ok(limits::SUBJECTS));
    assert_eq!(read(&manifest(limits::SUBJECTS + 1, 0)), Err(Code::ParseCountExceeded));
    assert_eq!(read(&manifest(1, limits::SUBJECTS)), Ok(1 + limits::SUBJECTS));
    assert_eq!(read(&manifest(1, limits::SUBJECTS + 1)), Err(Code::ParseCountExceeded));
}

/// `res-subject-flood`, `json-huge-scalar`: before anything of it is parsed.
#[test]
fn a_document_or_text_of_more_bytes_than_allowed_is_refused() {
    let good = manifest(1, 0);
    let blanks = |bytes: usize| good.clone() + &" ".repeat(bytes - good.len());
    assert_eq!(read(&blanks(limits::ENVELOPE_BYTES)), Ok(1));
    assert_eq!(read(&blanks(limits::ENVELOPE_BYTES + 1)), Err(Code::ParseSizeExceeded));
    let text = |bytes: usize| {
        good.replace(r#""invocationId":"i""#, &format!(r#""invocationId":"{}""#, "x".repeat(bytes)))
    };
    assert_eq!(read(&text(limits::STRING_BYTES)), Ok(1));
    assert_eq!(read(&text(limits::STRING_BYTES + 1)), Err(Code::ParseSizeExceeded));
    let digits = good.replace(r#""size":1"#, &format!(r#""size":{}"#, "1".repeat(1 << 20)));
    assert_eq!(read(&digits), Err(Code::ParseNumberUnsafe));
}

/// `json-key-flood`, `json-deep-nesting`.
#[test]
fn more_members_or_levels_than_allowed_are_refused() {
    let good = manifest(1, 0);
    let members = |count: usize| {
        let members: Vec<String> = (0..count).map(|n| format!(r#""m{n}":0"#)).collect();
        good.replacen('{', &format!("{{\"x\":{{{}}},", members.join(",")), 1)
    };
    assert_eq!(read(&members(limits::MEMBERS)), Ok(1));
    assert_eq!(read(&members(limits::MEMBERS + 1)), Err(Code::ParseCountExceeded));
    let levels = |count: usize| {
        good.replacen('{', &format!("{{\"x\":{}{},", "[".repeat(count), "]".repeat(count)), 1)
    };
    assert_eq!(read(&levels(limits::DEPTH - 1)), Ok(1));
    for count in [limits::DEPTH, 100_000] {
        assert_eq!(read(&levels(count)), Err(Code::ParseDepthExceeded));
    }
}

/// `res-path-length`.
#[test]
fn a_very_long_name_is_refused() {
    let name = |text: String| text.parse::<ArtifactName>().map_err(|refusal| refusal.code);
    assert!(name("a/".repeat(limits::NAME_BYTES / 2 - 1) + "aa").is_ok());
    assert_eq!(name("a/".repeat(limits::NAME_BYTES / 2) + "a"), Err(Code::ArtNameInvalid));
    assert_eq!(name("a/../".repeat(1 << 18) + "x"), Err(Code::ArtNameInvalid));
}

fn pair(n: u32) -> (Ed25519KeyPair, PublicKey) {
    let mut seed = [7; 32];
    seed[..4].copy_from_slice(&n.to_be_bytes());
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap());
    (pair, public)
}

/// `res-sigs-times-keys`: at most 64 signatures, and at most 1,024 keys for one that does not name its
/// key.
#[test]
fn not_every_key_is_tried_for_every_signature() {
    let mut keys: Vec<_> = (0..1_100).map(pair).collect();
    keys.sort_by_key(|(_, public)| public.id());
    let keyring: Keyring = keys.iter().map(|(_, public)| public.clone()).collect();
    let opened = |place: usize, hint: bool| {
        let (pair, public) = &keys[place];
        let mut envelope = Envelope::unsigned::<PolicyText>(b"text");
        let sig = pair.sign(envelope.pae()).as_ref().to_vec();
        let keyid = hint.then(|| public.id().to_string());
        envelope.add_signature(Signature { keyid, sig });
        envelope.open::<PolicyText>(&keyring).map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(opened(0, false), Ok(()));
    assert_eq!(opened(1_023, false), Ok(()));
    assert_eq!(opened(1_024, false), Err(Code::EnvKeyUnknown));
    assert_eq!(opened(1_099, true), Ok(()));
}
