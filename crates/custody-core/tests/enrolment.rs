//! Attestations and requests for enrolment, at their limits.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::encoding::base64;
use custody_core::envelope::Payload as _;
use custody_core::key::PublicKey;
use custody_core::limits::{ATTESTATION_BYTES, ATTESTATIONS};
use custody_core::statement::{Attestation, Enrolment, EnrolmentRequest, Statement, possession};
use custody_core::time::Time;

fn time(seconds: u64) -> Time {
    Time::from_unix(seconds).unwrap()
}

fn attestation(platform: &str, parts: &[(&str, Vec<u8>)]) -> Attestation {
    Attestation {
        platform: platform.parse().unwrap(),
        parts: parts.iter().map(|(name, bytes)| (name.parse().unwrap(), bytes.clone())).collect(),
    }
}

/// A request as an honest worker makes it.
fn request(attestations: Vec<Attestation>) -> EnrolmentRequest {
    let pair = Ed25519KeyPair::generate().unwrap();
    let key = PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap());
    let (machine, challenge) = ("builder-7".parse().unwrap(), Sha256::of(b"challenge"));
    let possession = pair.sign(&possession(&challenge, &machine, &key.id())).as_ref().to_vec();
    EnrolmentRequest { machine, key, challenge, possession, attestations }
}

fn parse(request: &EnrolmentRequest) -> Result<EnrolmentRequest, Code> {
    EnrolmentRequest::parse(request.to_json().as_bytes()).map_err(|refusal| refusal.code)
}

#[test]
fn a_request_is_read_as_it_was_written() {
    let sent = request(vec![attestation("ec2", &[("document", b"{}".to_vec()), ("x", vec![7])])]);
    let read = parse(&sent).unwrap();
    assert_eq!(read, sent);
    assert_eq!(read.attestations[0].part("x"), Some(&[7][..]));
    assert_eq!(read.attestations[0].part("document"), Some(&b"{}"[..]));
    assert_eq!(read.attestations[0].part("y"), None);
    let more = sent.to_json().replacen('{', "{\"more\":1,", 1);
    assert_eq!(EnrolmentRequest::parse(more.as_bytes()).unwrap_err().code, Code::ParseUnknownField);
    let key = PublicKey::SkEd25519 { point: [0x15; 32], application: "ssh:".into() };
    assert_eq!(parse(&EnrolmentRequest { key, ..sent }).unwrap_err(), Code::PolicyKeyWeak);
}

#[test]
fn attestations_have_limits() {
    let so_many =
        |count: usize| request((0..count).map(|n| attestation(&format!("p{n}"), &[])).collect());
    assert!(parse(&so_many(ATTESTATIONS)).is_ok());
    assert_eq!(parse(&so_many(ATTESTATIONS + 1)).unwrap_err(), Code::ParseCountExceeded);
    let twice = request(vec![attestation("p", &[]), attestation("p", &[])]);
    assert_eq!(parse(&twice).unwrap_err(), Code::StmtSubjectDuplicate);
    let so_large = |bytes: usize| attestation("p", &[("log", vec![1; bytes])]);
    assert!(parse(&request(vec![so_large(ATTESTATION_BYTES)])).is_ok());
    let refused = parse(&request(vec![so_large(ATTESTATION_BYTES + 1)])).unwrap_err();
    assert_eq!(refused, Code::ParseSizeExceeded);
}

#[test]
fn an_attestation_in_a_file_is_read_as_it_was_written() {
    let one = attestation("tpm", &[("quote", vec![1, 2, 3])]);
    assert_eq!(Attestation::parse(one.to_json().as_bytes()).unwrap(), one);
    assert!(one.to_json().ends_with("}\n"));
}

#[test]
fn possession_is_of_this_machine_and_this_challenge() {
    let (from, until) = (time(1_000), time(2_000));
    let granted = || request(Vec::new()).certified(Vec::new(), from, until);
    assert!(granted().possesses());
    let other_machine = Enrolment { machine: "builder-8".parse().unwrap(), ..granted() };
    assert!(!other_machine.possesses());
    let other_challenge = Enrolment { challenge: Sha256::of(b"another"), ..granted() };
    assert!(!other_challenge.possesses());
    let other_key = Enrolment { key: request(Vec::new()).key, ..granted() };
    assert!(!other_key.possesses());
}

#[test]
fn a_certificate_is_about_its_key_and_ends_after_it_begins() {
    let of = |from: u64, until: u64| {
        let granted = request(Vec::new()).certified(Vec::new(), time(from), time(until));
        Statement::from(granted).to_json()
    };
    let code = |json: &str| Statement::parse(json.as_bytes()).map_err(|refusal| refusal.code);
    assert!(code(&of(1_000, 1_001)).is_ok());
    assert_eq!(code(&of(1_000, 1_000)).unwrap_err(), Code::ChainTimeOrder);
    assert_eq!(code(&of(1_000, 999)).unwrap_err(), Code::ChainTimeOrder);
    let json = of(1_000, 2_000);
    let renamed = json.replacen("\"name\": \"key\"", "\"name\": \"yek\"", 1);
    assert_ne!(renamed, json);
    assert_eq!(code(&renamed).unwrap_err(), Code::ParseFieldType);
    let Ok(Statement::Enrolment(granted)) = Statement::parse(json.as_bytes()) else { panic!() };
    let other = Sha256::of(b"another key").to_string();
    let about_another = json.replacen(&granted.key.id().to_string(), &other, 1);
    assert_eq!(code(&about_another).unwrap_err(), Code::ChainDigestMismatch);
    assert!(json.contains(&base64(&granted.possession)));
}
