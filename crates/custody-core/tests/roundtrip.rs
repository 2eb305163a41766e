//! What is printed is read back as it was: envelopes, keys, signatures of people, and the small texts
//! that statements and policies are made of. Statements themselves are in `statements.rs`.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _,
};
use custody_core::digest::{Sha256, Sha512};
use custody_core::encoding::{base64, base64_decode, hex, hex_decode};
use custody_core::envelope::{Envelope, PolicyText, Signature, StatementId};
use custody_core::key::{KeyId, PublicKey};
use custody_core::name::{ArtifactName, Pattern};
use custody_core::sshsig::{SshSignature, armor, dearmor, from_raw, signed_data};
use custody_core::statement::{Label, Statement};
use custody_core::time::Time;
use proptest::prelude::*;

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

/// An empty key id is read as none.
fn signature() -> impl Strategy<Value = Signature> {
    let keyid = proptest::option::of("[ -~é漢\n]{1,60}");
    (keyid, bytes(100)).prop_map(|(keyid, sig)| Signature { keyid, sig })
}

fn envelope() -> impl Strategy<Value = Envelope> {
    let signatures = prop::collection::vec(signature(), 1..5);
    (bytes(200), signatures, any::<bool>()).prop_map(|(payload, signatures, is_policy)| {
        let mut envelope = if is_policy {
            Envelope::unsigned::<PolicyText>(payload)
        } else {
            Envelope::unsigned::<Statement>(payload)
        };
        for signature in signatures {
            envelope.add_signature(signature);
        }
        envelope
    })
}

fn ed25519(seed: [u8; 32]) -> (Ed25519KeyPair, [u8; 32]) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let point = pair.public_key().as_ref().try_into().unwrap();
    (pair, point)
}

fn curve_point(algorithm: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
    EcdsaKeyPair::generate(algorithm).unwrap().public_key().as_ref().to_vec()
}

fn key() -> impl Strategy<Value = PublicKey> {
    let application = "[ -~é]{0,40}";
    let p256 = || curve_point(&ECDSA_P256_SHA256_FIXED_SIGNING).try_into().unwrap();
    let p384 = || curve_point(&ECDSA_P384_SHA384_FIXED_SIGNING).try_into().unwrap();
    prop_oneof![
        any::<[u8; 32]>().prop_map(|seed| PublicKey::Ed25519(ed25519(seed).1)),
        Just(()).prop_map(move |()| PublicKey::EcdsaP256(p256())),
        Just(()).prop_map(move |()| PublicKey::EcdsaP384(p384())),
        (1..=u8::MAX, prop::collection::vec(any::<u8>(), 256..1023)).prop_map(|(first, rest)| {
            PublicKey::Rsa { n: [vec![first], rest].concat(), e: vec![1, 0, 1] }
        }),
        (any::<[u8; 32]>(), application).prop_map(|(seed, application)| PublicKey::SkEd25519 {
            point: ed25519(seed).1,
            application
        }),
        application
            .prop_map(move |application| PublicKey::SkEcdsaP256 { point: p256(), application }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn envelopes(envelope in envelope()) {
        let again = Envelope::parse(envelope.to_json().as_bytes()).unwrap();
        prop_assert_eq!(again.id(), envelope.id());
        prop_assert_eq!(again, envelope);
    }

    /// The application of a security key stands in OpenSSH's form only.
    #[test]
    fn public_keys(key in key()) {
        let (blob, kind) = PublicKey::from_ssh_blob(&key.to_ssh_blob()).unwrap();
        prop_assert_eq!((&blob, kind), (&key, key.ssh_type()));
        prop_assert_eq!(PublicKey::parse(&key.to_openssh()), Ok(key.clone()));
        let spki = PublicKey::from_spki_der(&key.to_spki_der()).unwrap();
        prop_assert_eq!(&PublicKey::parse(&key.to_pem()).unwrap(), &spki);
        prop_assert_eq!(spki.id(), key.id());
        prop_assert_eq!(spki == key, key.dsse_scheme().is_some());
    }

    #[test]
    fn signatures_of_people(seed: [u8; 32], message in bytes(100)) {
        let (pair, point) = ed25519(seed);
        let key = PublicKey::Ed25519(point);
        let sig = from_raw(&key, pair.sign(&signed_data(&message)).as_ref());
        let signature = SshSignature::parse(&sig).unwrap();
        prop_assert_eq!(signature.claimed_key(), &key);
        prop_assert_eq!(signature.check(&key, &message), Ok(None));
        prop_assert_eq!(dearmor(&armor(&sig)), Ok(sig));
    }

    #[test]
    fn armour_around_any_bytes(blob in bytes(300)) {
        prop_assert_eq!(dearmor(&armor(&blob)), Ok(blob));
    }

    #[test]
    fn names_and_patterns(name in "[a-z0-9][a-zA-Z0-9 ._+~@=,()#-]{0,8}[a-z0-9](/[b][a-z0-9]{4,9}){0,4}", star in "[*a-z]{1,9}(/[*a-z]{5,9}){0,3}") {
        let parsed: ArtifactName = name.parse().unwrap();
        prop_assert_eq!(parsed.to_string(), name);
        let pattern: Pattern = star.parse().unwrap();
        prop_assert_eq!(pattern.to_string().parse(), Ok(pattern));
    }

    #[test]
    fn moments_and_digests(seconds in 0_u64..253_402_300_800, data in bytes(50)) {
        let time = Time::from_unix(seconds).unwrap();
        prop_assert_eq!(time.to_string().parse(), Ok(time));
        let digest = Sha256::of(&data);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
        prop_assert_eq!(StatementId(digest).to_string().parse(), Ok(StatementId(digest)));
        let long = Sha512::from_bytes([*digest.as_bytes(), *digest.as_bytes()].concat().try_into().unwrap());
        prop_assert_eq!(long.to_string().parse(), Ok(long));
        let id: KeyId = digest.to_string().parse().unwrap();
        prop_assert_eq!(id.to_string(), digest.to_string());
        prop_assert_eq!(hex_decode(&hex(&data)), Some(data.clone()));
        prop_assert_eq!(base64_decode(&base64(&data)), Ok(data));
    }

    #[test]
    fn labels(text in "[a-z0-9][a-zA-Z0-9._+@-]{0,30}") {
        let label: Label = text.parse().unwrap();
        prop_assert_eq!(label.to_string(), text);
    }
}
