//! Bundles: the one file with which anyone verifies offline. JSON Lines of DSSE envelopes, policies
//! among them, one envelope on each line.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

use custody_core::envelope::{Envelope, Payload, PolicyText, Signature, StatementId};
use custody_core::json::Value;
use custody_core::limits::ENVELOPE_BYTES;
use custody_core::{Code, Refusal, encoding};
use rayon::prelude::*;

use crate::fault::failed;

/// Largest bundle, in bytes.
pub const BUNDLE_BYTES: usize = 4 << 30;
/// Most envelopes in a bundle.
pub const BUNDLE_LINES: usize = 1_000_000;

/// How much is read at once, so that the text of a large bundle is never in memory as a whole.
const BLOCK: usize = 4 << 20;

/// Reads a bundle: each line one envelope, nothing else, the last line break optional. A refusal
/// names the first line at fault.
pub fn read(bytes: &[u8]) -> Result<Vec<Envelope>, Refusal> {
    read_from(bytes).unwrap_or_else(|error| Err(failed(Path::new("bundle"), error)))
}

/// Reads a bundle from a file. The envelopes of one block of it are read on all cores while the next
/// block comes.
pub fn read_from(file: impl Read + Send) -> io::Result<Result<Vec<Envelope>, Refusal>> {
    let mut blocks = Blocks { file, cut: Vec::new(), bytes: 0 };
    let mut block = blocks.next()?;
    let mut lines: usize = 0;
    let mut all: Result<Vec<Envelope>, Refusal> = Ok(Vec::new());
    while let Some(whole) = block {
        if blocks.bytes > BUNDLE_BYTES {
            return Ok(Err(exceeded(Code::ParseSizeExceeded, BUNDLE_BYTES, "bytes")));
        }
        let first = lines;
        lines = lines.saturating_add(memchr::memchr_iter(b'\n', &whole).count());
        if lines > BUNDLE_LINES {
            return Ok(Err(exceeded(Code::ParseCountExceeded, BUNDLE_LINES, "lines")));
        }
        if let Ok(good) = &mut all {
            let (envelopes, next) = rayon::join(|| parse(&whole, first), || blocks.next());
            match envelopes {
                Ok(envelopes) => good.extend(envelopes),
                Err(refusal) => all = Err(refusal),
            }
            block = next?;
        } else {
            // only counted: what is too long is told before what is at fault
            block = blocks.next()?;
        }
    }
    Ok(all)
}

fn exceeded(code: Code, limit: usize, what: &str) -> Refusal {
    Refusal::new(code, "bundle", format!("at most {limit} {what}"), "more")
}

/// Whole lines, the first of which has `before` others before it.
fn parse(lines: &[u8], before: usize) -> Result<Vec<Envelope>, Refusal> {
    let mut start = 0;
    let lines: Vec<&[u8]> = memchr::memchr_iter(b'\n', lines)
        .map(|end| {
            let line = &lines[start..end];
            start = end.saturating_add(1);
            line
        })
        .collect();
    let parse = |(i, line): (usize, &&[u8])| {
        let number = before.saturating_add(i).saturating_add(1);
        Envelope::parse(line).map_err(|refusal| refusal.within(&format!("bundle line {number}")))
    };
    let envelopes: Vec<_> = lines.par_iter().enumerate().map(parse).collect();
    envelopes.into_iter().collect()
}

/// A file in blocks of whole lines, each of which ends with a line break.
struct Blocks<R> {
    file: R,
    /// The beginning of a line that goes on in the next block.
    cut: Vec<u8>,
    bytes: usize,
}

impl<R: Read> Blocks<R> {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut block = std::mem::take(&mut self.cut);
        loop {
            block.reserve(BLOCK);
            let limit = u64::try_from(BLOCK).unwrap_or(u64::MAX);
            let before = block.len();
            let count = self.file.by_ref().take(limit).read_to_end(&mut block)?;
            self.bytes = self.bytes.saturating_add(count);
            let end = memchr::memrchr(b'\n', block.get(before..).unwrap_or_default());
            if let Some(end) = end {
                self.cut = block.split_off(before.saturating_add(end).saturating_add(1));
                return Ok(Some(block));
            }
            if count == 0 && block.is_empty() {
                return Ok(None);
            }
            // the last line; or no line at all, and too long for an envelope
            if count == 0 || block.len() > ENVELOPE_BYTES {
                block.push(b'\n');
                return Ok(Some(block));
            }
        }
    }
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
