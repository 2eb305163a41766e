//! Bundles: the one file with which anyone verifies offline. JSON Lines of DSSE envelopes, policies
//! among them, one envelope on each line.

use std::collections::BTreeMap;

use custody_core::envelope::{Envelope, Payload, PolicyText, Signature, StatementId};
use custody_core::json::Value;
use custody_core::{Code, Refusal, encoding};
use rayon::prelude::*;

/// Largest bundle, in bytes.
pub const BUNDLE_BYTES: usize = 4 << 30;
/// Most envelopes in a bundle.
pub const BUNDLE_LINES: usize = 1_000_000;

/// Reads a bundle: each line one envelope, nothing else, the last line break optional. A refusal
/// names the first line at fault.
pub fn read(bytes: &[u8]) -> Result<Vec<Envelope>, Refusal> {
    let exceeded = |code, limit: usize, what, found: usize| {
        Refusal::new(code, "bundle", format!("at most {limit} {what}"), found.to_string())
    };
    if bytes.len() > BUNDLE_BYTES {
        return Err(exceeded(Code::ParseSizeExceeded, BUNDLE_BYTES, "bytes", bytes.len()));
    }
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut lines = Vec::new();
    let mut start = 0;
    for end in memchr::memchr_iter(b'\n', bytes) {
        lines.push(&bytes[start..end]);
        start = end.saturating_add(1);
    }
    lines.push(&bytes[start..]);
    if lines.len() > BUNDLE_LINES {
        return Err(exceeded(Code::ParseCountExceeded, BUNDLE_LINES, "lines", lines.len()));
    }
    let place = |refusal: Refusal, i: usize| {
        refusal.within(&format!("bundle line {}", i.saturating_add(1)))
    };
    let parse =
        |(i, line): (usize, &&[u8])| Envelope::parse(line).map_err(|refusal| place(refusal, i));
    let envelopes: Vec<_> = lines.par_iter().enumerate().map(parse).collect();
    envelopes.into_iter().collect()
}

/// Writes a bundle. The same statements and signatures give the same bytes, in whatever order they
/// come: policies by version, then all else, by id; a statement once, its signatures sorted.
pub fn write(envelopes: &[Envelope]) -> String {
    let mut sorted: BTreeMap<(bool, u64, StatementId), Envelope> = BTreeMap::new();
    for envelope in envelopes {
        let version = claimed_version(envelope);
        let known = sorted
            .entry((version.is_none(), version.unwrap_or(0), envelope.id()))
            .or_insert_with(|| envelope.clone());
        envelope.signatures().iter().for_each(|signature| known.add_signature(signature.clone()));
    }
    sorted.values().map(|envelope| line(envelope) + "\n").collect()
}

/// The version that a policy's text gives itself before its first table. It orders and proves nothing.
fn claimed_version(envelope: &Envelope) -> Option<u64> {
    let text =
        (envelope.payload_type() == PolicyText::TYPE).then(|| envelope.unverified_payload())?;
    let text = String::from_utf8_lossy(text);
    let top = text.lines().take_while(|line| !line.trim_start().starts_with('['));
    let members = top.filter_map(|line| line.split_once('='));
    let version = members
        .filter(|(name, _)| name.trim() == "version")
        .find_map(|(_, value)| value.trim().parse().ok());
    Some(version.unwrap_or(0))
}

fn line(envelope: &Envelope) -> String {
    let mut signatures: Vec<&Signature> = envelope.signatures().iter().collect();
    signatures.sort_by_key(|signature| (&signature.keyid, &signature.sig));
    let value = |signature: &&Signature| {
        let keyid = signature.keyid.as_ref().map(Value::text);
        Value::object([])
            .with("keyid", keyid)
            .with("sig", Some(Value::text(encoding::base64(&signature.sig))))
    };
    Value::object([
        ("payloadType", Value::text(envelope.payload_type())),
        ("payload", Value::text(encoding::base64(envelope.unverified_payload()))),
        ("signatures", Value::list(signatures.iter().map(value))),
    ])
    .to_line()
}
