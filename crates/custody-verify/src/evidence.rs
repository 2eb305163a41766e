//! Evidence: envelopes handed to the verifier by anybody.

use alloc::collections::BTreeMap;

use custody_core::envelope::{Envelope, StatementId};

/// Envelopes by statement id. Two envelopes around the same statement are one with the signatures of
/// both. Order does not matter, and nothing in here is believed.
#[derive(Clone, Debug, Default)]
pub struct Evidence(BTreeMap<StatementId, Envelope>);

impl Evidence {
    /// Adds an envelope.
    pub fn insert(&mut self, envelope: Envelope) {
        if let Some(known) = self.0.get_mut(&envelope.id()) {
            envelope
                .signatures()
                .iter()
                .for_each(|signature| known.add_signature(signature.clone()));
        } else {
            self.0.insert(envelope.id(), envelope);
        }
    }

    /// The envelope of this id.
    pub fn get(&self, id: StatementId) -> Option<&Envelope> {
        self.0.get(&id)
    }

    /// Takes an envelope out.
    pub fn remove(&mut self, id: StatementId) -> Option<Envelope> {
        self.0.remove(&id)
    }

    /// All envelopes, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Envelope> {
        self.0.values()
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl IntoIterator for Evidence {
    type Item = Envelope;
    type IntoIter = alloc::collections::btree_map::IntoValues<StatementId, Envelope>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values()
    }
}

impl Extend<Envelope> for Evidence {
    fn extend<I: IntoIterator<Item = Envelope>>(&mut self, envelopes: I) {
        envelopes.into_iter().for_each(|envelope| self.insert(envelope));
    }
}

impl FromIterator<Envelope> for Evidence {
    fn from_iter<I: IntoIterator<Item = Envelope>>(envelopes: I) -> Self {
        let mut evidence = Self::default();
        evidence.extend(envelopes);
        evidence
    }
}
