//! EC2's identity documents: what Amazon's certificates prove, and what nobody's does.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use custody_core::digest::Sha256;
use custody_core::statement::Attestation;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::{
    Certificate, CertifiedKey, Context, Ec2, Platform, Proof, RegionalCertificate, verify,
};
use custody_platforms::ec2::{LEGACY, document, rsa2048, signature};
use custody_platforms::{Certified, Cms, Signer, attestation};

fn at() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context { binding: Sha256::of(b"a run"), at: at(), skew: 300 }
}

fn pinned(certificates: &[(&str, &Signer)]) -> Platform {
    let certificate = |(region, signer): &(&str, &Signer)| RegionalCertificate {
        regions: [(*region).to_owned()].into(),
        certificate: signer.certificate_pem().parse().unwrap(),
    };
    Platform::Ec2(Ec2 { certificates: certificates.iter().map(certificate).collect() })
}

struct World {
    frankfurt: Signer,
    ireland: Signer,
    platform: Platform,
    document: String,
}

fn world() -> World {
    let (frankfurt, ireland) = (Signer::authority("Amazon"), Signer::authority("Amazon"));
    let platform = pinned(&[("eu-central-1", &frankfurt), ("eu-west-1", &ireland)]);
    let document = document("i-0123456789abcdef0", "ami-0fedcba9876543210", "eu-central-1");
    World { frankfurt, ireland, platform, document }
}

impl World {
    fn with(&self, part: &str, bytes: &[u8]) -> Attestation {
        attestation("ec2", &[("document", &self.document), (part, &bytes)])
    }

    fn proof(&self, part: &str, bytes: &[u8]) -> Result<Proof, Refusal> {
        verify(&self.with(part, bytes), &self.platform, &context())
    }

    fn refused(&self, part: &str, bytes: &[u8]) -> Refusal {
        let refusal = self.proof(part, bytes).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified, "{refusal}");
        refusal
    }

    fn cms(&self) -> Cms<'_> {
        Cms::new(self.document.as_bytes(), &self.frankfurt)
    }
}

#[test]
fn a_signed_document_has_facts() {
    let world = world();
    let proof = world.proof("rsa2048", rsa2048(&world.document, &world.frankfurt).as_bytes());
    let proof = proof.unwrap();
    assert!(!proof.bound && !world.platform.binds());
    let facts: Vec<String> =
        proof.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    assert_eq!(
        facts,
        [
            "ec2.account-id = 123456789012",
            "ec2.architecture = x86_64",
            "ec2.availability-zone = eu-central-1a",
            "ec2.image-id = ami-0fedcba9876543210",
            "ec2.instance-id = i-0123456789abcdef0",
            "ec2.instance-type = c7i.4xlarge",
            "ec2.pending-time = 2026-03-01T00:00:00Z",
            "ec2.region = eu-central-1",
        ]
    );
    // in whatever form the message is written
    for cms in [
        world.cms(),
        Cms { attributes: false, ..world.cms() },
        Cms { ber: true, attributes: false, ..world.cms() },
        Cms { inside: false, ..world.cms() },
        Cms { certificates: vec![], ..world.cms() },
    ] {
        assert_eq!(world.proof("rsa2048", &cms.bytes()).as_ref(), Ok(&proof));
    }
    let plain = signature(&world.document, &world.frankfurt);
    assert_eq!(world.proof("signature", plain.as_bytes()), Ok(proof));
}

/// `wrk-iid-unsigned`: absent, empty and other signatures.
#[test]
fn a_document_that_nobody_signed_is_refused() {
    let world = world();
    let alone = attestation("ec2", &[("document", &world.document)]);
    let refusal = verify(&alone, &world.platform, &context()).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
    assert_eq!(refusal.at, "ec2.document");

    for part in ["rsa2048", "signature"] {
        world.refused(part, b"");
        world.refused(part, b"AAAA");
        world.refused(part, b"not base64");
    }
    for (cms, found) in [
        (Cms { signers: 0, ..world.cms() }, "no or several signers"),
        (Cms { signers: 2, ..world.cms() }, "no or several signers"),
        (Cms { signature: Some(vec![]), ..world.cms() }, "an empty signature"),
        (Cms { signature: Some(vec![0; 256]), ..world.cms() }, "another signature"),
        (Cms { digest: Some([7; 32]), ..world.cms() }, "the digest of another content"),
    ] {
        let refusal = world.refused("rsa2048", &cms.bytes());
        assert_eq!((refusal.at.as_str(), refusal.found.as_str()), ("ec2.rsa2048", found));
    }
    // other algorithms, which would have to be understood another way
    let plain = Cms { attributes: false, ..world.cms() }.bytes();
    let sha256 = [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
    let rsa = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0, 0x04];
    for (oid, last, other, found) in [
        (&sha256[..], 8, 3, "another hash than SHA-256"),
        (&rsa[..], 8, 10, "another signature than RSA"),
    ] {
        let at = plain.windows(oid.len()).rposition(|window| window == oid).unwrap();
        let mut changed = plain.clone();
        changed[at + last] = other;
        assert_eq!(world.refused("rsa2048", &changed).found, found);
    }
    // attributes that do not say what the content is, or say it twice
    let with_attributes = world.cms().bytes();
    for (name, other, found) in [
        (3, 5, "attributes without type and digest of the content"),
        (4, 5, "attributes without type and digest of the content"),
        (4, 3, "an attribute that is there twice"),
    ] {
        let attribute = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, name];
        let at = with_attributes.windows(9).position(|window| window == attribute).unwrap();
        let mut changed = with_attributes.clone();
        changed[at + 8] = other;
        assert_eq!(world.refused("rsa2048", &changed).found, found);
    }
    // the attributes of one message around the content of another
    let other = document_of_another();
    let honest = Cms::new(other.as_bytes(), &world.frankfurt);
    let moved = Cms { digest: Some(custody_core::crypto::sha256(other.as_bytes())), ..world.cms() };
    assert!(
        verify(
            &attestation("ec2", &[("document", &other), ("rsa2048", &honest.bytes())]),
            &world.platform,
            &context()
        )
        .is_ok()
    );
    world.refused("rsa2048", &moved.bytes());
    // a genuine message beside another document
    let refusal = world.refused("rsa2048", &honest.bytes());
    assert!(refusal.found.ends_with("other bytes"), "{refusal}");
    // the same with a changed byte
    let changed = world.document.replace("ami-0fe", "ami-0ff");
    let changed = attestation("ec2", &[("document", &changed), ("rsa2048", &world.cms().bytes())]);
    assert!(verify(&changed, &world.platform, &context()).is_err());
    assert!(world.proof("rsa2048", &world.cms().bytes()).is_ok());
}

fn document_of_another() -> String {
    document("i-0eeeeeeeeeeeeeee0", "ami-0fedcba9876543210", "eu-central-1")
}

/// `wrk-iid-wrong-cert`: a forged certificate first in the bag, and a region that another certificate
/// speaks for.
#[test]
fn only_the_certificate_of_the_region_counts() {
    let world = world();
    let forger = Signer::authority("Amazon");
    for certificates in [
        vec![forger.certificate(), world.frankfurt.certificate()],
        vec![world.frankfurt.certificate(), forger.certificate()],
        vec![world.frankfurt.certificate()],
    ] {
        let message = Cms { certificates, ..Cms::new(world.document.as_bytes(), &forger) };
        let refusal = world.refused("rsa2048", &message.bytes());
        assert_eq!(refusal.expected, "a signature by a certificate that the policy pins");
    }
    let plain = signature(&world.document, &forger);
    world.refused("signature", plain.as_bytes());

    // Ireland's certificate is genuine, and not Frankfurt's
    let elsewhere = rsa2048(&world.document, &world.ireland);
    let refusal = world.refused("rsa2048", elsewhere.as_bytes());
    assert_eq!(refusal.expected, "the certificate of eu-central-1");
    assert_eq!(refusal.found, "the certificate of eu-west-1");
    // Amazon has a certificate for each of both: one that the policy pins is enough, and one that it does
    // not pin adds nothing
    let with_both = |message: &Signer, plain: &Signer| {
        let parts = attestation(
            "ec2",
            &[
                ("document", &world.document),
                ("rsa2048", &rsa2048(&world.document, message)),
                ("signature", &signature(&world.document, plain)),
            ],
        );
        verify(&parts, &world.platform, &context()).map_err(|refusal| refusal.code)
    };
    assert!(with_both(&world.frankfurt, &forger).is_ok());
    assert!(with_both(&forger, &world.frankfurt).is_ok());
    for (message, plain) in
        [(&forger, &forger), (&world.ireland, &forger), (&world.ireland, &world.ireland)]
    {
        assert_eq!(with_both(message, plain), Err(Code::WorkerIdentityUnverified));
    }

    let genuine = rsa2048(&world.document, &world.frankfurt);
    assert!(world.proof("rsa2048", genuine.as_bytes()).is_ok());
    // with nothing pinned nothing is proved
    let refusal = verify(&world.with("rsa2048", genuine.as_bytes()), &pinned(&[]), &context());
    assert_eq!(refusal.unwrap_err().code, Code::WorkerIdentityUnverified);
}

/// `wrk-iid-replayed`: a genuine document proves a machine and not a run. One of a machine that was started
/// after the run is not of its machine.
#[test]
fn a_replayed_document_is_not_bound() {
    let world = world();
    let message = rsa2048(&world.document, &world.frankfurt);
    let here = verify(&world.with("rsa2048", message.as_bytes()), &world.platform, &context());
    let elsewhere = Context { binding: Sha256::of(b"another run"), ..context() };
    let there = verify(&world.with("rsa2048", message.as_bytes()), &world.platform, &elsewhere);
    assert_eq!(here, there);
    assert!(!here.unwrap().bound);

    let before = Context { at: "2026-02-28T23:54:59Z".parse().unwrap(), ..context() };
    let early = verify(&world.with("rsa2048", message.as_bytes()), &world.platform, &before);
    assert_eq!(early.unwrap_err().code, Code::WorkerIdentityMismatch);
    let within_skew = Context { at: "2026-02-28T23:55:00Z".parse().unwrap(), ..context() };
    let early = verify(&world.with("rsa2048", message.as_bytes()), &world.platform, &within_skew);
    assert!(early.is_ok());
}

#[test]
fn certificates_hold_for_a_time() {
    let short = Certified { not_after: at(), ..Certified::new("Amazon", true) };
    let signer = Signer::own(&short);
    let platform = pinned(&[("eu-central-1", &signer)]);
    let document = document("i-0123456789abcdef0", "ami-0fedcba9876543210", "eu-central-1");
    let message = rsa2048(&document, &signer);
    let attestation = attestation("ec2", &[("document", &document), ("rsa2048", &message)]);
    assert!(verify(&attestation, &platform, &context()).is_ok());
    let late = Context { at: at().plus(1), ..context() };
    let refusal = verify(&attestation, &platform, &late).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
    assert_eq!(refusal.found, "2020-01-01T00:00:00Z to 2026-03-01T01:00:00Z");
}

#[test]
fn documents_that_say_nothing_or_too_much_are_refused() {
    let signer = Signer::authority("Amazon");
    let platform = pinned(&[("eu-central-1", &signer)]);
    let verdict = |text: &str| {
        let message = rsa2048(text, &signer);
        let attestation = attestation("ec2", &[("document", &text), ("rsa2048", &message)]);
        verify(&attestation, &platform, &context())
    };
    assert!(verdict(r#"{"instanceId":"i-1","region":"eu-central-1","imageId":null}"#).is_ok());
    for text in [
        "",
        "{}",
        "[]",
        r#"{"region":"eu-central-1"}"#,
        r#"{"instanceId":"i-1"}"#,
        r#"{"instanceId":"i-1","region":null}"#,
        r#"{"instanceId":7,"region":"eu-central-1"}"#,
        r#"{"instanceId":"i-1","instanceId":"i-2","region":"eu-central-1"}"#,
        r#"{"instanceId":"i-1","region":"eu-central-1","pendingTime":"yesterday"}"#,
        r#"{"instanceId":"i-1\u202e","region":"eu-central-1"}"#,
        r#"{"instanceId":"i-1","region":"eu-central-1"} x"#,
    ] {
        let refusal = verdict(text).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified, "{text}: {refusal}");
        assert!(refusal.at.starts_with("ec2.document"), "{refusal}");
    }
    let more = attestation("ec2", &[("document", b"{}"), ("pkcs7", b"")]);
    let refusal = verify(&more, &platform, &context()).unwrap_err();
    assert_eq!((refusal.code, refusal.at.as_str()), (Code::WorkerIdentityUnverified, "ec2.pkcs7"));
}

/// RSA with 1024 bits, which Amazon's `signature` has in most regions, counts for nothing else.
#[test]
fn a_short_key_signs_only_plainly() {
    let world = world();
    let (certificate, signature) = LEGACY;
    let certificate: Certificate = certificate.parse().unwrap();
    assert!(matches!(certificate.key(), CertifiedKey::Legacy(_)));
    let regions = ["eu-central-1".to_owned()].into();
    let platform =
        Platform::Ec2(Ec2 { certificates: vec![RegionalCertificate { regions, certificate }] });
    let verified = |part, bytes: &[u8]| verify(&world.with(part, bytes), &platform, &context());
    assert!(verified("signature", signature.as_bytes()).is_ok());
    let last = signature.replace("kE=", "kA=");
    for (part, bytes) in [("signature", &last), ("rsa2048", &signature.to_owned())] {
        let refusal = verified(part, bytes.as_bytes()).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
    }
}
