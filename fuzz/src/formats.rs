//! What is written as JSON.

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Keyring, Payload as _, PolicyText};
use custody_core::json;
use custody_core::statement::{Statement, short_code};
use custody_store::bundle;
use custody_verify::Floor;
use custody_world::Key;

/// Any document is the same after it was written, in both forms.
pub(crate) fn json(data: &[u8]) {
    let Ok(value) = json::parse(data, 1 << 20, 1 << 16) else { return };
    for text in [value.to_line(), value.to_pretty()] {
        let again =
            json::parse(text.as_bytes(), 8 << 20, 1 << 16).expect("what was written is read");
        assert_eq!(again, value, "{text}");
    }
}

/// What was read is the same after it was written, under the same id, and opening it ends.
pub(crate) fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::parse(data) else { return };
    let again = Envelope::parse(envelope.to_json().as_bytes()).expect("what was written is read");
    assert_eq!(again, envelope);
    assert_eq!(again.id(), envelope.id());
    assert_eq!(envelope.id().0, Sha256::of(envelope.pae()));
    let known: Keyring =
        ["alice", "builder"].map(|name| Key::of(name).public).into_iter().collect();
    let statement = envelope.open::<Statement>(&known).map(|signed| signed.signers().len());
    let policy = envelope.open::<PolicyText>(&known).map(|signed| signed.signers().len());
    assert!(statement.is_err() || policy.is_err(), "one payload type is not another");
}

/// A statement is the same after it was written, and is written in one way only.
pub(crate) fn statement(data: &[u8]) {
    let Ok(statement) = Statement::parse(data) else { return };
    let text = statement.to_json();
    let again = Statement::parse(text.as_bytes());
    assert_eq!(again.as_ref(), Ok(&statement), "{text}");
    let envelope = statement.to_envelope();
    assert_eq!(envelope.unverified_payload(), text.as_bytes());
    assert!(!short_code(envelope.id()).is_empty());
}

/// A bundle is the same after it was written, and is written in one way only.
pub(crate) fn bundle(data: &[u8]) {
    let Ok(envelopes) = bundle::read(data) else { return };
    let text = bundle::write(&envelopes);
    let again = bundle::read(text.as_bytes()).expect("what was written is read");
    assert_eq!(bundle::write(&again), text);
    let reversed: Vec<Envelope> = envelopes.iter().rev().cloned().collect();
    assert_eq!(bundle::write(&reversed), text, "the order of envelopes decides nothing");
    assert!(envelopes.iter().all(|known| again.iter().any(|other| other.id() == known.id())));
}

/// The record of what was seen is the same after it was written.
pub(crate) fn floor(data: &[u8]) {
    let Ok(floor) = Floor::parse(data) else { return };
    assert_eq!(Floor::parse(floor.to_json().as_bytes()), Ok(floor));
}
