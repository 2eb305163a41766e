//! A whole release: every published file back to people and source.

use std::num::NonZeroUsize;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use custody_core::digest::Sha256;
use custody_core::envelope::Envelope;
use custody_core::key::PublicKey;
use custody_core::sshsig;
use custody_store::bundle;
use custody_world::Large;
use rayon::prelude::*;

use crate::clock::{in_turn, note, row};
use crate::command::{custody, peak_memory, succeed};

/// What nobody can leave out: each signature checked and each payload hashed, on all cores, with keys
/// and messages at hand.
pub(crate) struct Floor(Vec<Signed>);

struct Signed {
    key: UnparsedPublicKey<Vec<u8>>,
    message: Vec<u8>,
    sig: Vec<u8>,
}

impl Floor {
    pub(crate) fn of(envelopes: &[Envelope], keys: &[PublicKey]) -> Self {
        let raw = |key: &PublicKey| match key {
            PublicKey::Ed25519(bytes) => UnparsedPublicKey::new(&ED25519, bytes.to_vec()),
            other => panic!("{other:?}"),
        };
        let signed = envelopes.iter().flat_map(|envelope| {
            envelope.signatures().iter().map(|signature| {
                let person = sshsig::SshSignature::parse(&signature.sig).ok();
                let key = keys.iter().find(|key| match &person {
                    Some(person) => person.claimed_key().id() == key.id(),
                    None => signature.keyid == Some(key.id().to_string()),
                });
                let (message, sig) = if person.is_some() {
                    // the last 64 bytes of the blob are the signature
                    let raw = signature.sig[signature.sig.len() - 64..].to_vec();
                    (sshsig::signed_data(envelope.pae()), raw)
                } else {
                    (envelope.pae().to_vec(), signature.sig.clone())
                };
                Signed { key: raw(key.unwrap()), message, sig }
            })
        });
        Self(signed.collect())
    }

    pub(crate) fn run(&self) {
        let good = self.0.par_iter().all(|Signed { key, message, sig }| {
            std::hint::black_box(Sha256::of(message));
            key.verify(message, sig).is_ok()
        });
        assert!(good);
    }
}

/// A large release in a directory, as its bundle.
pub(crate) struct OnDisk {
    pub(crate) large: Large,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) bytes: usize,
}

impl OnDisk {
    pub(crate) fn new(large: Large) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut all = vec![large.policy.clone()];
        all.extend(large.envelopes.iter().cloned());
        let text = bundle::write(&all);
        std::fs::write(directory.path().join("release.jsonl"), &text).unwrap();
        Self { large, directory, bytes: text.len() }
    }

    pub(crate) fn verify(&self) -> std::process::Command {
        let line = format!("bundle verify release.jsonl --pin {}", self.large.policy.id());
        custody(self.directory.path(), &line)
    }

    pub(crate) fn floor(&self) -> Floor {
        Floor::of(&self.large.envelopes, &self.large.keys())
    }
}

pub(crate) fn measure() {
    for (tasks, rounds) in [(60, 21), (600, 11), (6_000, 7)] {
        let release = OnDisk::new(Large::of(tasks, NonZeroUsize::new(8).unwrap()));
        let floor = release.floor();
        let what = format!(
            "verify a release of {tasks} tasks, {} artifacts, {} files published",
            release.large.artifacts,
            release.large.files.len()
        );
        let times = in_turn(rounds, || succeed(&mut release.verify()), || floor.run());
        row(&what, times, "its signatures and hashes, 2 cores");
        let peak = peak_memory(&release.verify());
        let mib = |bytes: f64| format!("{:.0} MiB", bytes / f64::from(1 << 20));
        let (peak, bytes) = (peak as f64, release.bytes as f64);
        note(
            &format!("{what}: memory"),
            &mib(peak),
            &format!("evidence {}", mib(bytes)),
            peak / bytes,
        );
    }
}
