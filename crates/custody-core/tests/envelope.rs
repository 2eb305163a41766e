//! Envelopes and what signatures prove: whoever holds storage or the network changes envelopes, and
//! a worker signs strange ones. Each refusal stands beside its control.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custody_core::crypto::{Scheme, signature_fits};
use custody_core::encoding::base64;
use custody_core::envelope::{Envelope, Form, Keyring, PolicyText, Signature, Signed, Signer, pae};
use custody_core::key::PublicKey;
use custody_core::{Code, Refusal};

const TYPE: &str = "application/vnd.custody.policy+toml";
const TEXT: &str = "version = 1 # é\n";

/// The public key of the example in DSSE's protocol.md, as an uncompressed point.
const DSSE_EXAMPLE_KEY: [u8; 65] = [
    0x04, 0x67, 0xcd, 0x39, 0x0f, 0x77, 0xaa, 0x35, 0x9c, 0xb0, 0x8c, 0x22, 0x35, 0xf6, 0x52, 0x27,
    0x04, 0x93, 0xa9, 0xed, 0x83, 0x2b, 0x0a, 0xbc, 0xc0, 0x1f, 0x70, 0x95, 0x4c, 0x03, 0x90, 0xd2,
    0x38, 0x0c, 0x78, 0x2b, 0xd5, 0x4e, 0x26, 0x91, 0x25, 0xa4, 0x4f, 0x44, 0x33, 0xaf, 0xf1, 0x43,
    0x2c, 0xe9, 0x4e, 0x12, 0xbc, 0xa7, 0x3a, 0xa6, 0x7a, 0xc8, 0x0c, 0xea, 0x12, 0x60, 0x8d, 0xdf,
    0x74,
];

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> PublicKey {
    PublicKey::Ed25519(pair(seed).public_key().as_ref().try_into().unwrap())
}

fn ring(seeds: &[u8]) -> Keyring {
    seeds.iter().map(|seed| public(*seed)).collect()
}

fn sign(seed: u8, message: &[u8]) -> Vec<u8> {
    pair(seed).sign(message).as_ref().to_vec()
}

fn signature(seed: u8, envelope: &Envelope) -> Signature {
    Signature { keyid: Some(public(seed).id().to_string()), sig: sign(seed, envelope.pae()) }
}

fn envelope(seeds: &[u8]) -> Envelope {
    let mut envelope = Envelope::unsigned::<PolicyText>(TEXT.as_bytes());
    for seed in seeds {
        let signature = signature(*seed, &envelope);
        envelope.add_signature(signature);
    }
    envelope
}

fn open(envelope: &Envelope, seeds: &[u8]) -> Result<Signed<PolicyText>, Code> {
    envelope.open(&ring(seeds)).map_err(|refusal| refusal.code)
}

fn parse(text: &str) -> Result<Envelope, Code> {
    Envelope::parse(text.as_bytes()).map_err(|refusal| refusal.code)
}

/// How many of `seeds` are needed; every key is a principal of its own.
fn threshold(envelope: &Envelope, seeds: &[u8], count: u32) -> Result<Vec<String>, Code> {
    let signed = open(envelope, seeds)?;
    let entitled = |signer: &Signer| Ok(signer.key.to_string());
    let verified = signed.by_ref().verify(NonZeroU32::new(count).unwrap(), entitled);
    verified.map(|verified| verified.principals().to_vec()).map_err(|refusal| refusal.code)
}

#[test]
fn a_key_that_is_added_is_known_and_counted_once() {
    let mut twice = envelope(&[1]);
    assert_eq!(twice.payload_type(), TYPE);
    assert_eq!(twice.id().to_string().get(..12).unwrap(), twice.id().short());
    // the same key again, without a hint
    twice.add_signature(Signature { keyid: None, sig: sign(1, twice.pae()) });
    assert_eq!(twice.signatures().len(), 2);
    let mut keyring = Keyring::default();
    assert_eq!(twice.open::<PolicyText>(&keyring).unwrap_err().code, Code::EnvKeyUnknown);
    keyring.insert(public(1));
    let signed = twice.open::<PolicyText>(&keyring).unwrap();
    assert_eq!(signed.signers(), [Signer { key: public(1).id(), form: Form::Plain }]);
}

/// Why a signer does not count is told if nobody counts; else, that too few do.
#[test]
fn a_signer_who_may_not_says_why() {
    let judged = |seeds: &[u8], count: u32| {
        let entitled = |signer: &Signer| {
            if signer.key == public(1).id() {
                return Err(Refusal::new(Code::PolicyKeyRevoked, "", "", ""));
            }
            Ok(signer.key.to_string())
        };
        let signed = open(&envelope(seeds), &[1, 2]).unwrap();
        let verified = signed.by_ref().verify(NonZeroU32::new(count).unwrap(), entitled);
        verified.map(|verified| verified.principals().len()).map_err(|refusal| refusal.code)
    };
    assert_eq!(judged(&[2], 1), Ok(1));
    assert_eq!(judged(&[1, 2], 1), Ok(1));
    assert_eq!(judged(&[1], 1), Err(Code::PolicyKeyRevoked));
    assert_eq!(judged(&[1, 2], 2), Err(Code::EnvThresholdNotMet));
}

#[test]
fn a_part_of_the_content_is_signed_as_the_whole() {
    let signed = open(&envelope(&[1]), &[1]).unwrap();
    assert!(signed.narrow(|_| None::<&String>).is_none());
    let part = signed.narrow(|text| Some(&text.0)).unwrap();
    assert_eq!((part.unverified().as_str(), part.id()), (TEXT, signed.id()));
    assert_eq!(part.signers(), signed.signers());
}

/// A broken signature of a known key says more than one of a stranger, wherever it stands.
#[test]
fn the_worst_fault_is_told() {
    for stranger in 2..8 {
        let mut spoilt = envelope(&[stranger]);
        let keyid = Some(public(1).id().to_string());
        spoilt.add_signature(Signature { keyid, sig: sign(1, b"something else") });
        assert_eq!(open(&spoilt, &[1]).unwrap_err(), Code::EnvSignatureInvalid, "{stranger}");
    }
}

/// The control: what is written is read, and opens to what was signed. The PAE is that of the DSSE
/// specification.
#[test]
fn a_signed_envelope_opens() {
    let good = envelope(&[1]);
    assert_eq!(parse(&good.to_json()).unwrap(), good);
    let signed = open(&good, &[1]).unwrap();
    assert_eq!(signed.unverified().0, TEXT);
    assert_eq!(signed.signers(), [Signer { key: public(1).id(), form: Form::Plain }]);
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
    // `env-pae-length-in-chars`: lengths are bytes
    assert_eq!(pae("é", "é".as_bytes()), "DSSEv1 2 é 2 é".as_bytes());
}

/// The example of the DSSE specification: its signature is r and s side by side, which fits our PAE.
/// In an envelope ECDSA is DER, so there it proves nothing, and DSSE leaves that to us.
#[test]
fn the_example_of_dsse_is_understood() {
    let json = r#"{"payload": "aGVsbG8gd29ybGQ=", "payloadType": "http://example.com/HelloWorld", "signatures": [{"sig":
        "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA=="}]}"#;
    let example = parse(json).unwrap();
    assert_eq!(example.unverified_payload(), b"hello world");
    let key = PublicKey::EcdsaP256(DSSE_EXAMPLE_KEY);
    let [signature] = example.signatures() else { panic!("one signature") };
    let fits =
        |message: &[u8]| signature_fits(&key, Scheme::EcdsaP256Fixed, message, &signature.sig);
    assert!(fits(example.pae()));
    assert!(!fits(&pae("http://example.com/HelloWorld", b"hello World")));
    let keyring: Keyring = [key].into_iter().collect();
    assert_eq!(example.open::<PolicyText>(&keyring).unwrap_err().code, Code::EnvPayloadType);
    // the alphabet that URLs need, with the same meaning and so the same id
    let url_safe = json.replace("+FnZ+O88", "-FnZ-O88");
    assert_ne!(url_safe, json);
    assert_eq!(parse(&url_safe).unwrap(), example);
    assert_eq!(parse(&json.replace("+FnZ+O88", "+FnZ-O88")), Err(Code::ParseBase64Invalid));
}

/// `env-sig-bitflip`, `env-payload-bitflip`, over every bit.
#[test]
fn any_flipped_bit_is_refused() {
    let good = envelope(&[1]);
    for place in 0..64 {
        for bit in 0..8 {
            let mut signature = good.signatures()[0].clone();
            signature.sig[place] ^= 1 << bit;
            let mut bad = envelope(&[]);
            bad.add_signature(signature);
            assert_eq!(open(&bad, &[1]).unwrap_err(), Code::EnvSignatureInvalid);
        }
    }
    for place in 0..TEXT.len() {
        let mut payload = TEXT.as_bytes().to_vec();
        payload[place] ^= 1;
        let mut bad = Envelope::unsigned::<PolicyText>(payload);
        bad.add_signature(good.signatures()[0].clone());
        assert_eq!(open(&bad, &[1]).unwrap_err(), Code::EnvSignatureInvalid);
    }
}

/// `env-no-signatures`.
#[test]
fn no_signature_is_not_all_signatures() {
    assert_eq!(open(&envelope(&[]), &[1]).unwrap_err(), Code::EnvNoSignature);
    let json =
        |signatures: &str| format!("{{\"payloadType\":\"{TYPE}\",\"payload\":\"\"{signatures}}}");
    assert_eq!(parse(&json(",\"signatures\":[]")).unwrap_err(), Code::EnvNoSignature);
    assert_eq!(parse(&json("")).unwrap_err(), Code::EnvNoSignature);
    for signatures in [
        "null",
        "{}",
        "\"x\"",
        "[null]",
        "[[]]",
        "[{\"sig\":null}]",
        "[{\"sig\":\"\",\"keyid\":null}]",
    ] {
        assert_eq!(
            parse(&json(&format!(",\"signatures\":{signatures}"))).unwrap_err(),
            Code::ParseFieldType,
            "{signatures}"
        );
    }
    assert_eq!(parse(&json(",\"signatures\":[{}]")).unwrap_err(), Code::ParseFieldMissing);
}

/// `env-payload-type-swapped`, `env-payload-type-foreign`, `env-signed-without-pae`.
#[test]
fn another_payload_type_or_another_message_is_refused() {
    let swapped = parse(&envelope(&[1]).to_json().replace(TYPE, "text/plain")).unwrap();
    assert_eq!(open(&swapped, &[1]).unwrap_err(), Code::EnvPayloadType);
    let foreign = format!(
        "{{\"payloadType\":\"text/plain\",\"payload\":\"{}\",\"signatures\":[{{\"sig\":\"{}\"}}]}}",
        base64(TEXT.as_bytes()),
        base64(&sign(1, &pae("text/plain", TEXT.as_bytes()))),
    );
    assert_eq!(open(&parse(&foreign).unwrap(), &[1]).unwrap_err(), Code::EnvPayloadType);
    let mut raw = envelope(&[]);
    raw.add_signature(Signature {
        keyid: Some(public(1).id().to_string()),
        sig: sign(1, TEXT.as_bytes()),
    });
    assert_eq!(open(&raw, &[1]).unwrap_err(), Code::EnvSignatureInvalid);
}

/// `env-dup-signature`, `env-dup-signature-other-keyid`, `env-keyid-wrong-signer`.
#[test]
fn a_threshold_counts_signers_and_not_signatures() {
    assert_eq!(threshold(&envelope(&[1, 2]), &[1, 2], 2).unwrap().len(), 2);
    let one = envelope(&[1]);
    assert_eq!(threshold(&one, &[1, 2], 2).unwrap_err(), Code::EnvThresholdNotMet);
    let mut hints: Vec<Option<String>> = vec![None, Some(String::new()), Some("x".into())];
    hints.push(Some(public(2).id().to_string()));
    let mut copies = one.clone();
    for keyid in hints {
        copies.add_signature(Signature { keyid, sig: one.signatures()[0].sig.clone() });
    }
    assert!(copies.signatures().len() > 4);
    assert_eq!(threshold(&copies, &[1, 2], 2).unwrap_err(), Code::EnvThresholdNotMet);
    assert_eq!(threshold(&copies, &[1, 2], 1).unwrap(), [public(1).id().to_string()]);
    let twice = one.to_json().replace(
        "\"signatures\":[",
        &format!("\"signatures\":[{{\"sig\":\"{}\"}},", base64(&one.signatures()[0].sig)),
    );
    assert_eq!(
        threshold(&parse(&twice).unwrap(), &[1, 2], 2).unwrap_err(),
        Code::EnvThresholdNotMet
    );
    // two keys of one principal are one principal
    let pair = envelope(&[1, 2]);
    let signed = open(&pair, &[1, 2]).unwrap();
    let same = |_: &Signer| Ok::<_, Refusal>("alice".to_string());
    assert_eq!(
        signed.by_ref().verify(NonZeroU32::new(2).unwrap(), same).unwrap_err().code,
        Code::EnvThresholdNotMet
    );
}

/// `env-keyid-absent`, `env-unknown-key-extra`, `env-bad-then-good`.
#[test]
fn hints_and_strangers_and_broken_signatures_decide_nothing() {
    let good = envelope(&[1]);
    for keyid in [None, Some("../../x\n\0".to_string()), Some("ff".repeat(32))] {
        let mut hinted = envelope(&[]);
        hinted.add_signature(Signature { keyid, sig: good.signatures()[0].sig.clone() });
        assert_eq!(open(&hinted, &[2, 1]).unwrap().signers()[0].key, public(1).id());
    }
    assert_eq!(open(&envelope(&[1, 9]), &[1]).unwrap().signers().len(), 1);
    assert_eq!(envelope(&[1, 9]).id(), good.id());
    assert_eq!(open(&envelope(&[9]), &[1]).unwrap_err(), Code::EnvKeyUnknown);
    let mut broken = signature(2, &good);
    broken.sig[5] ^= 1;
    for order in
        [[broken.clone(), good.signatures()[0].clone()], [good.signatures()[0].clone(), broken]]
    {
        let mut both = envelope(&[]);
        for signature in order {
            both.add_signature(signature);
        }
        assert_eq!(open(&both, &[1, 2]).unwrap().signers().len(), 1);
    }
}

/// `env-alg-from-message`, `env-embedded-cert-or-jwk`: what a message says of itself is not read.
#[test]
fn a_key_or_algorithm_inside_the_message_is_ignored() {
    let stranger = envelope(&[9]).to_json().replace(
        "\"sig\"",
        &format!(
            "\"alg\":\"none\",\"cert\":\"{}\",\"jwk\":{{}},\"sig\"",
            public(9).to_pem().replace('\n', "\\n")
        ),
    );
    assert_eq!(open(&parse(&stranger).unwrap(), &[1]).unwrap_err(), Code::EnvKeyUnknown);
    let friend = envelope(&[1]).to_json().replace("\"sig\"", "\"alg\":\"HS256\",\"sig\"");
    assert!(open(&parse(&friend).unwrap(), &[1]).is_ok());
}

/// `env-keyid-hostile`, `env-signature-flood`, `json-huge-scalar`, `json-deep-nesting`, `json-key-flood`.
#[test]
fn floods_are_refused_quickly() {
    let begun = Instant::now();
    let good = envelope(&[1]).to_json();
    let sig = base64(&envelope(&[1]).signatures()[0].sig);
    let flood = good.replace(
        "\"signatures\":[",
        &format!("\"signatures\":[{}", format!("{{\"sig\":\"{sig}\"}},").repeat(99_998)),
    );
    assert_eq!(parse(&flood).unwrap_err(), Code::ParseCountExceeded);
    let within = good.replace(
        "\"signatures\":[",
        &format!("\"signatures\":[{}", "{\"sig\":\"AAAA\"},".repeat(63)),
    );
    assert!(open(&parse(&within).unwrap(), &[1]).is_ok());
    assert_eq!(
        parse(&good.replace(
            "\"signatures\":[",
            &format!("\"signatures\":[{}", "{\"sig\":\"AAAA\"},".repeat(64))
        ))
        .unwrap_err(),
        Code::ParseCountExceeded
    );
    let long = good.replace("\"keyid\":\"", &format!("\"keyid\":\"{}", "x".repeat(1 << 20)));
    assert_eq!(parse(&long).unwrap_err(), Code::ParseSizeExceeded);
    let deep = good.replace(
        "{\"payloadType\"",
        &format!("{{\"x\":{}{},\"payloadType\"", "[".repeat(100_000), "]".repeat(100_000)),
    );
    assert_eq!(parse(&deep).unwrap_err(), Code::ParseDepthExceeded);
    let keys: String = (0..200_000).map(|n| format!("\"{n}\":0,")).collect();
    assert_eq!(
        parse(&good.replacen('{', &format!("{{{keys}"), 1)).unwrap_err(),
        Code::ParseCountExceeded
    );
    let digits = good.replacen('{', &format!("{{\"x\":{},", "9".repeat(1 << 20)), 1);
    assert_eq!(parse(&digits).unwrap_err(), Code::ParseNumberUnsafe);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

/// `env-base64-noncanonical`.
#[test]
fn base64_has_one_meaning() {
    let payload = |text: &str| {
        let json = format!(
            "{{\"payloadType\":\"{TYPE}\",\"payload\":\"{text}\",\"signatures\":[{{\"sig\":\"AAAA\"}}]}}"
        );
        parse(&json).map(|envelope| envelope.unverified_payload().to_vec())
    };
    assert_eq!(payload("Pz8/Pj4+").unwrap(), payload("Pz8_Pj4-").unwrap());
    for text in ["QQ", "QR==", "QQ=\\n=", " QQ==", "QQ== ", "QQ===", "Q", "+_+_"] {
        assert_eq!(payload(text).unwrap_err(), Code::ParseBase64Invalid, "{text}");
    }
}

/// `env-envelope-malleability`, `env-two-envelopes-one-file`, `json-dup-key-envelope`, `json-encoding`.
#[test]
fn the_spelling_of_an_envelope_changes_nothing_or_is_refused() {
    let good = envelope(&[1]);
    let json = good.to_json();
    for other in [
        json.replace(':', " :\n\t"),
        json.replacen('{', "{\"junk\":[{\"a\":null}],", 1),
        json.replacen('{', "{\"Payload\":\"AAAA\",", 1),
        json.replace("\"payloadType\"", "\"payload\\u0054ype\""),
        format!("\n{json}\n"),
    ] {
        let parsed = parse(&other).unwrap();
        assert_eq!(parsed.id(), good.id());
        assert!(open(&parsed, &[1]).is_ok());
    }
    assert_eq!(parse(&format!("{json}{json}")).unwrap_err(), Code::ParseTrailingData);
    assert_eq!(parse(&format!("{json}\n{json}")).unwrap_err(), Code::ParseTrailingData);
    assert_eq!(parse(&format!("{json}\0")).unwrap_err(), Code::ParseTrailingData);
    assert_eq!(
        parse(&json.replacen('{', "{\"payload\":\"AAAA\",", 1)).unwrap_err(),
        Code::ParseDuplicateKey
    );
    assert_eq!(
        parse(&json.replacen('{', "{\"p\\u0061yload\":\"AAAA\",", 1)).unwrap_err(),
        Code::ParseDuplicateKey
    );
    assert_eq!(
        parse(&json.replacen('{', "{\"signatures\":[],", 1)).unwrap_err(),
        Code::ParseDuplicateKey
    );
    assert_eq!(parse(&format!("\u{feff}{json}")).unwrap_err(), Code::ParseUnicodeInvalid);
    assert_eq!(parse(&format!("[{json}]")).unwrap_err(), Code::ParseFieldType);
    assert_eq!(parse("").unwrap_err(), Code::ParseJsonInvalid);
}

/// `env-ed25519-high-s`, `env-small-order-key`.
#[test]
fn another_encoding_of_a_signature_and_weak_keys_are_refused() {
    let good = envelope(&[1]);
    // the order of the group, little-endian
    let order: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde,
        0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut high = good.signatures()[0].clone();
    let mut carry = 0_u16;
    for (byte, add) in high.sig[32..].iter_mut().zip(order) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry.to_le_bytes()[0];
        carry >>= 8;
    }
    let mut bad = envelope(&[]);
    bad.add_signature(high);
    assert_eq!(open(&bad, &[1]).unwrap_err(), Code::EnvSignatureInvalid);
    // with the identity as key, (identity, 0) would fit every message
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = PublicKey::Ed25519(identity);
    let mut forged = envelope(&[]);
    let mut sig = identity.to_vec();
    sig.extend([0; 32]);
    forged.add_signature(Signature { keyid: Some(weak.id().to_string()), sig });
    let keyring: Keyring = [weak.clone()].into_iter().collect();
    assert_eq!(forged.open::<PolicyText>(&keyring).unwrap_err().code, Code::EnvSignatureInvalid);
    for text in [weak.to_openssh(), weak.to_pem()] {
        assert_eq!(PublicKey::parse(&text).unwrap_err().code, Code::PolicyKeyWeak);
    }
}

/// `env-malformed-payload-valid-sig`: the payload is read only after its signature fits.
#[test]
fn a_payload_is_read_after_its_signature_and_must_still_be_good() {
    let mut bad = Envelope::unsigned::<PolicyText>(vec![0xff, 0xfe]);
    assert_eq!(bad.open::<PolicyText>(&ring(&[1])).unwrap_err().code, Code::EnvNoSignature);
    let stranger = signature(9, &bad);
    bad.add_signature(stranger);
    assert_eq!(bad.open::<PolicyText>(&ring(&[1])).unwrap_err().code, Code::EnvKeyUnknown);
    let known = signature(1, &bad);
    bad.add_signature(known);
    assert_eq!(bad.open::<PolicyText>(&ring(&[1])).unwrap_err().code, Code::ParseUnicodeInvalid);
}
