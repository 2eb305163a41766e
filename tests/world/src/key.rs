//! Keys by name.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Signature};
use custody_core::key::PublicKey;
use custody_core::sshsig;

/// A key pair by name. `alice`, `bob`, `carol` and `mallory` are people, all others machines.
pub struct Key {
    pair: Ed25519KeyPair,
    pub public: PublicKey,
    pub is_person: bool,
}

impl Key {
    pub fn of(name: &str) -> Self {
        let pair =
            Ed25519KeyPair::from_seed_unchecked(Sha256::of(name.as_bytes()).as_bytes()).unwrap();
        let public = PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap());
        let people = ["alice", "bob", "carol", "dave", "mallory"];
        let is_person =
            people.iter().any(|person| name == *person || name.starts_with(&format!("{person}-")));
        Self { pair, public, is_person }
    }

    /// The key's bare signature.
    pub fn raw(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }

    pub fn plain(&self, envelope: &Envelope) -> Signature {
        Signature { keyid: Some(self.public.id().to_string()), sig: self.raw(envelope.pae()) }
    }

    pub fn ssh(&self, envelope: &Envelope) -> Signature {
        let sig = sshsig::from_raw(&self.public, &self.raw(&sshsig::signed_data(envelope.pae())));
        Signature { keyid: None, sig }
    }

    /// The form that fits the owner: SSHSIG for people, plain for machines.
    pub fn signature(&self, envelope: &Envelope) -> Signature {
        if self.is_person { self.ssh(envelope) } else { self.plain(envelope) }
    }
}

pub fn signed(mut envelope: Envelope, by: &[&str]) -> Envelope {
    for name in by {
        let signature = Key::of(name).signature(&envelope);
        envelope.add_signature(signature);
    }
    envelope
}
