use std::io::{self, Read};

use custody_core::Code;
use custody_core::envelope::{Envelope, PolicyText, Signature};
use custody_store::{Filter, Store, bundle};
use proptest::prelude::*;

use crate::world::{Release, foreign, policy, signature};

#[test]
fn the_same_evidence_gives_the_same_bytes() {
    let all = Release::new("a").all();
    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    let export = |envelopes: &[Envelope]| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        for envelope in envelopes {
            store.add(std::slice::from_ref(envelope)).unwrap();
        }
        bundle::write(&store.list(Filter::default()).unwrap())
    };
    let text = export(&all);
    assert_eq!(text, export(&backwards));
    assert_eq!(text, export(&bundle::read(text.as_bytes()).unwrap()));
    assert_eq!(text.lines().count(), all.len());
}

#[test]
fn policies_come_first_in_the_order_of_their_versions() {
    let mut policies: Vec<_> = (1..=12).map(policy).collect();
    policies.reverse();
    policies.insert(3, foreign("x"));
    let read = bundle::read(bundle::write(&policies).as_bytes()).unwrap();
    let expected: Vec<_> = (1..=12).map(policy).chain([foreign("x")]).collect();
    assert_eq!(read, expected);
}

#[test]
fn a_statement_stands_once_with_all_its_signatures() {
    let one = policy(1);
    let mut other = foreign("x");
    other.add_signature(signature(3, &other));
    let mut twice = one.clone();
    twice.add_signature(signature(2, &one));
    let text = bundle::write(&[one.clone(), other.clone(), twice.clone()]);
    assert_eq!(text, bundle::write(&[twice, one, other, foreign("x")]));
    assert_eq!(text.lines().count(), 2);
}

#[test]
fn a_line_at_fault_is_named() {
    let line = policy(1).to_json();
    let good = format!("{line}\n{line}\n");
    assert_eq!(bundle::read(good.as_bytes()).unwrap().len(), 2);
    assert_eq!(bundle::read(good.trim_end().as_bytes()).unwrap().len(), 2);
    assert_eq!(bundle::read(b"").unwrap(), []);
    let cut = &line[..line.len() - 1];
    let cases = [
        (format!("{line}\n\n{line}\n"), 2, Code::ParseJsonInvalid),
        (format!("{line}\n{line}\n\n"), 3, Code::ParseJsonInvalid),
        (format!("\n{line}\n"), 1, Code::ParseJsonInvalid),
        (format!("{line}\n{cut}"), 2, Code::ParseJsonInvalid),
        (format!("{line}\n{line}{line}\n{cut}\n"), 2, Code::ParseTrailingData),
        (format!("{line}\n{{\"payload\":\"\"}}\n"), 2, Code::ParseFieldMissing),
    ];
    for (text, number, code) in cases {
        let refusal = bundle::read(text.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.at.starts_with(&format!("bundle line {number}:")), "{refusal}");
    }
    let many = "\n".repeat(bundle::BUNDLE_LINES + 1);
    assert_eq!(bundle::read(many.as_bytes()).unwrap_err().code, Code::ParseCountExceeded);
}

/// Gives its bytes in small pieces, and then ends or breaks off.
struct Piecemeal<'b>(&'b [u8], Option<io::ErrorKind>);

impl Read for Piecemeal<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.0.len().min(buffer.len()).min(100_000);
        if let (0, Some(fault)) = (piece, self.1) {
            return Err(fault.into());
        }
        let (now, later) = self.0.split_at(piece);
        buffer[..piece].copy_from_slice(now);
        self.0 = later;
        Ok(piece)
    }
}

#[test]
fn a_bundle_of_many_megabytes_is_read_whole() {
    let small = policy(1).to_json();
    // longer than what is read at once
    let long = Envelope::unsigned::<PolicyText>("x".repeat(5 << 20));
    let long = signature(1, &long);
    let mut large = Envelope::unsigned::<PolicyText>("x".repeat(5 << 20));
    large.add_signature(long);
    let lines = |number: usize| format!("{small}\n").repeat(number);
    let text = format!("{}{}\n{}", lines(9_000), large.to_json(), lines(12_000));
    assert!(text.len() > 12 << 20, "{}", text.len());
    let from = |text: &str| bundle::read_from(Piecemeal(text.as_bytes(), None)).unwrap();
    let read = from(&text).unwrap();
    assert_eq!(
        (read.len(), read[9_000].id(), read[21_000].id()),
        (21_001, large.id(), policy(1).id())
    );
    assert_eq!(bundle::read(text.as_bytes()).unwrap(), read);
    let refusal = from(&format!("{text}{{}}\n{text}[]")).unwrap_err();
    assert!(refusal.at.starts_with("bundle line 21002:"), "{refusal}");
    let broken = Piecemeal(text.as_bytes(), Some(io::ErrorKind::ConnectionReset));
    assert_eq!(bundle::read_from(broken).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// What never ends a line is not kept until it does.
#[test]
fn a_line_longer_than_any_envelope_is_refused() {
    let text = |bytes: u64| io::repeat(b'x').take(bytes);
    let refusal = bundle::read_from(text(200 << 20)).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::ParseSizeExceeded);
    assert!(refusal.at.starts_with("bundle line 1:"), "{refusal}");
    // an envelope's 64 MiB, and what was read beyond them at once
    assert_eq!(refusal.found, format!("{} bytes", 68 << 20));
    let refusal = bundle::read_from(text(1 << 20)).unwrap().unwrap_err();
    assert_eq!(refusal.code, Code::ParseJsonInvalid);
}

fn envelopes() -> impl Strategy<Value = Vec<Envelope>> {
    let payload =
        prop_oneof!["[ -~]{0,40}", (0..5_u64).prop_map(|version| format!("version = {version}\n"))];
    let kind = prop_oneof![
        Just("application/vnd.in-toto+json".to_owned()),
        Just("application/vnd.custody.policy+toml".to_owned()),
        "[ -~]{1,20}",
    ];
    let keyid = proptest::option::of("\\PC{1,20}");
    let signatures =
        proptest::collection::vec((keyid, proptest::collection::vec(any::<u8>(), 0..20)), 1..4);
    let envelope = (kind, payload, signatures).prop_map(|(kind, payload, signatures)| {
        let payload = custody_core::encoding::base64(payload.as_bytes());
        let kind = custody_core::json::Value::text(kind).to_line();
        let json = format!(
            r#"{{"payloadType":{kind},"payload":"{payload}","signatures":[{{"sig":"AAAA"}}]}}"#
        );
        let mut envelope = Envelope::parse(json.as_bytes()).unwrap();
        for (keyid, sig) in signatures {
            envelope.add_signature(Signature { keyid, sig });
        }
        envelope
    });
    proptest::collection::vec(envelope, 0..12)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(envelopes in envelopes()) {
        let text = bundle::write(&envelopes);
        let read = bundle::read(text.as_bytes()).unwrap();
        prop_assert_eq!(bundle::write(&read), text);
        for envelope in &envelopes {
            let same: Vec<_> = read.iter().filter(|found| found.id() == envelope.id()).collect();
            prop_assert_eq!(same.len(), 1);
            prop_assert_eq!(same[0].pae(), envelope.pae());
            prop_assert!(envelope.signatures().iter().all(|signature| same[0].signatures().contains(signature)));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        bundle::read(&bytes).ok();
    }
}
