//! Azure's attested data.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use custody_core::digest::Sha256;
use custody_core::encoding::base64_decode;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::{Azure, Context, Platform, Proof, nonce, verify};
use custody_platforms::azure::{attested, content, signer};
use custody_platforms::ec2::LEGACY;
use custody_platforms::{Certified, Cms, Signer, attestation};

const VM: &str = "02aab8a4-74ef-476e-8182-f6d2ba4166a6";

fn at() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context { binding: Sha256::of(b"a run"), at: at(), skew: 300 }
}

fn platform(authority: &Signer) -> Platform {
    Platform::Azure(Azure {
        authorities: vec![authority.certificate_pem().parse().unwrap()],
        names: vec!["metadata.azure.com".to_owned()],
    })
}

fn honest() -> String {
    content(VM, &nonce(&context().binding), at())
}

fn proof(platform: &Platform, message: &[u8], context: &Context) -> Result<Proof, Refusal> {
    verify(&attestation("azure", &[("attested", &message)]), platform, context)
}

#[test]
fn attested_data_has_facts_and_is_bound() {
    let authority = Signer::authority("an authority");
    let signer = signer(&authority);
    let message = attested(&honest(), &signer, &[]);
    let proof = proof(&platform(&authority), message.as_bytes(), &context()).unwrap();
    assert!(proof.bound);
    let facts: Vec<String> =
        proof.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    assert_eq!(
        facts,
        [
            "azure.sku = 22_04-lts-gen2",
            "azure.subscription-id = 8d10da13-8125-4ba9-a717-bf7490507b3d",
            "azure.vm-id = 02aab8a4-74ef-476e-8182-f6d2ba4166a6",
        ]
    );
}

#[test]
fn attested_data_of_another_run_or_time_is_refused() {
    let authority = Signer::authority("an authority");
    let (signer, platform) = (signer(&authority), platform(&authority));
    let code = |content: &str, context: &Context| {
        let refusal =
            proof(&platform, attested(content, &signer, &[]).as_bytes(), context).unwrap_err();
        (refusal.code, refusal.at)
    };
    let other = content(VM, &nonce(&Sha256::of(b"another run")), at());
    let mismatch = (Code::WorkerIdentityMismatch, "azure.attested.nonce".to_owned());
    assert_eq!(code(&other, &context()), mismatch);
    assert_eq!(code(&honest(), &Context { binding: Sha256::of(b"x"), ..context() }), mismatch);

    let over = (Code::WorkerIdentityUnverified, "azure.attested.timeStamp".to_owned());
    let later = |seconds| Context { at: at().plus(seconds), ..context() };
    assert_eq!(code(&honest(), &later(6 * 3600 + 301)), over);
    let early = content(VM, &nonce(&context().binding), at().plus(301));
    assert_eq!(code(&early, &context()), over);
    for (content, context) in [
        (honest(), later(6 * 3600 + 300)),
        (content(VM, &nonce(&context().binding), at().plus(300)), context()),
    ] {
        assert!(proof(&platform, attested(&content, &signer, &[]).as_bytes(), &context).is_ok());
    }
    for bad in [
        honest().replace("vmId", "vmid"),
        honest().replace("\"nonce\"", "\"nonse\""),
        honest().replace("createdOn", "created"),
        honest().replace(" -0000", " +0100"),
        honest().replace("03/01/26", "13/01/26"),
        format!("{} ", honest()).replace('}', "]"),
    ] {
        assert_eq!(code(&bad, &context()).0, Code::WorkerIdentityUnverified, "{bad}");
    }
}

#[test]
fn the_signer_must_be_one_that_an_authority_of_the_policy_vouches_for() {
    let authority = Signer::authority("an authority");
    let platform = platform(&authority);
    let refused = |message: &str, at: &str| {
        let refusal = proof(&platform, message.as_bytes(), &context()).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
        assert!(refusal.expected.contains(at), "{refusal}");
    };
    // an authority of the same name, and a chain that it brings along
    let forger = Signer::authority("an authority");
    refused(&attested(&honest(), &signer(&forger), &[]), "by an authority that the policy pins");
    refused(&attested(&honest(), &signer(&forger), &[&forger, &authority]), "by an authority");
    // a certificate for another name, for other use, over, and one that is no leaf
    let certified =
        |name: &str| Certified { names: vec![name.to_owned()], ..Certified::new("x", false) };
    for name in ["evilmetadata.azure.com", "metadata.azure.com.example.org", "azure.com"] {
        let signer = authority.issue(&certified(name));
        refused(&attested(&honest(), &signer, &[]), "a certificate for metadata.azure.com");
    }
    let good = certified("metadata.azure.com");
    let code_signing = vec![vec![0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x03]];
    let other_use = authority.issue(&Certified { purposes: code_signing, ..good.clone() });
    refused(&attested(&honest(), &other_use, &[]), "the certificate of a server");
    let is_authority = authority.issue(&Certified { authority: true, ..good.clone() });
    refused(&attested(&honest(), &is_authority, &[]), "the certificate of a server");
    let over = Certified { not_after: "2026-03-01T00:59:59Z".parse().unwrap(), ..good.clone() };
    refused(&attested(&honest(), &authority.issue(&over), &[]), "good on 2026-03-01T01:00:00Z");
    // a signer that signs another's certificate
    let leaf = authority.issue(&good);
    refused(&attested(&honest(), &leaf.issue(&good), &[&leaf]), "by an authority");
    // somebody else's signature beside the certificate
    let message =
        Cms { certificates: vec![leaf.certificate()], ..Cms::new(honest().as_bytes(), &forger) }
            .bytes();
    refused(&custody_core::encoding::base64(&message), "a signature by a certificate in it");

    assert!(proof(&platform, attested(&honest(), &leaf, &[]).as_bytes(), &context()).is_ok());
}

/// Short keys are for EC2's plain signatures alone: here not even one that signed nothing may come along.
#[test]
fn all_certificates_that_come_along_can_be_read() {
    let authority = Signer::authority("an authority");
    let (signer, content) = (signer(&authority), honest());
    let verdict = |more: &[u8]| {
        let certificates = vec![signer.certificate(), more];
        let message = Cms { certificates, ..Cms::new(content.as_bytes(), &signer) }.bytes();
        proof(&platform(&authority), &message, &context()).map_err(|refusal| refusal.found)
    };
    let base64 = LEGACY.0.lines().filter(|line| !line.starts_with('-')).collect::<String>();
    assert!(verdict(authority.certificate()).is_ok());
    assert!(verdict(&[]).is_ok());
    for (more, found) in [
        (base64_decode(&base64).unwrap(), "a shorter key"),
        (vec![0x30, 0], "another shape"),
        (authority.certificate().repeat(8), "no SignedData"),
    ] {
        assert_eq!(verdict(&more), Err(found.to_owned()));
    }
}

#[test]
fn the_common_name_counts_where_the_certificate_lists_no_names() {
    let authority = Signer::authority("an authority");
    let verdict = |common: &str, names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let signer = authority.issue(&Certified { names, ..Certified::new(common, false) });
        let message = attested(&honest(), &signer, &[]);
        proof(&platform(&authority), message.as_bytes(), &context())
    };
    let (ours, other) = ("metadata.azure.com", "www.example.org");
    for (common, names) in [
        (ours, &[][..]),
        ("Westeurope.Metadata.Azure.com", &[]),
        (other, &[other, "METADATA.azure.com"]),
        (ours, &[ours]),
    ] {
        assert!(verdict(common, names).is_ok(), "{common} {names:?}");
    }
    for (common, names, found) in [
        (other, &[][..], other),
        (ours, &[other], other),
        (ours, &[other, "azure.com"], "www.example.org, azure.com"),
    ] {
        let refusal = verdict(common, names).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
        assert_eq!(refusal.expected, "a certificate for metadata.azure.com");
        assert_eq!(refusal.found, found, "{common} {names:?}");
    }
}

#[test]
fn authorities_may_be_between() {
    let root = Signer::authority("the root");
    let platform = platform(&root);
    let mut chain = vec![root.issue(&Certified::new("authority 1", true))];
    for name in ["authority 2", "authority 3"] {
        let next = chain.last().unwrap().issue(&Certified::new(name, true));
        chain.push(next);
    }
    let ends = |depth: usize, between: &[&Signer]| {
        let signer = signer(&chain[depth - 1]);
        proof(&platform, attested(&honest(), &signer, between).as_bytes(), &context()).is_ok()
    };
    assert!(ends(1, &[&chain[0]]));
    assert!(ends(2, &[&chain[0], &chain[1]]));
    assert!(ends(2, &[&chain[1], &root, &chain[0]]));
    assert!(!ends(2, &[&chain[1]]), "a link is missing");
    assert!(!ends(3, &[&chain[0], &chain[1], &chain[2]]), "more than two between");
    // an authority that may have none below, that may sign no certificates, that is over, or of another name
    let between = |change: &dyn Fn(&mut Certified), above: &Signer, all: &[&Signer]| {
        let mut certified = Certified::new("authority", true);
        change(&mut certified);
        let authority = above.issue(&certified);
        let signer = signer(&authority);
        let all: Vec<&Signer> = all.iter().copied().chain([&authority]).collect();
        proof(&platform, attested(&honest(), &signer, &all).as_bytes(), &context()).is_ok()
    };
    assert!(between(&|_| {}, &root, &[]));
    assert!(between(&|a| a.path_length = Some(0), &root, &[]));
    assert!(between(&|a| a.more = Some((0x20, false)), &root, &[]));
    let none_below =
        root.issue(&Certified { path_length: Some(0), ..Certified::new("none below", true) });
    assert!(!between(&|_| {}, &none_below, &[&none_below]));
    let one_below =
        root.issue(&Certified { path_length: Some(1), ..Certified::new("one below", true) });
    assert!(between(&|_| {}, &one_below, &[&one_below]));
    let changes: [&dyn Fn(&mut Certified); 6] = [
        &|a| a.usage = 0x80,
        &|a| a.authority = false,
        &|a| a.not_after = "2026-03-01T00:59:59Z".parse().unwrap(),
        &|a| a.not_before = "2026-03-01T01:00:01Z".parse().unwrap(),
        // policy constraints, critical; name constraints
        &|a| a.more = Some((0x24, true)),
        &|a| a.more = Some((0x1e, false)),
    ];
    for (i, change) in changes.iter().enumerate() {
        assert!(!between(*change, &root, &[]), "{i}");
    }
    let unsigning = Certified {
        usage: 0x20,
        names: vec!["metadata.azure.com".to_owned()],
        ..Certified::new("x", false)
    };
    let message = attested(&honest(), &root.issue(&unsigning), &[]);
    assert!(proof(&platform, message.as_bytes(), &context()).is_err());
    // seven authorities that all vouch for each other end in a verdict soon
    let circle: Vec<&Signer> = vec![&chain[0]; 7];
    assert!(!ends(2, &circle));
}
