//! Amazon EC2: the instance identity document.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use custody_core::Refusal;
use custody_core::crypto::{Scheme, legacy_signature_fits, signature_fits};
use custody_core::json;
use custody_core::limits::STRING_BYTES;
use custody_core::statement::Attestation;
use custody_core::time::Time;

use crate::certificate::{Certificate, CertifiedKey};
use crate::cms::Cms;
use crate::{
    Context, Proven, base64_text, binary, mismatch, only, required, unreadable, unverified,
};

/// The certificates with which Amazon signs, each for its regions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ec2 {
    /// One or more.
    pub certificates: Vec<RegionalCertificate>,
}

/// A certificate, and for which regions it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionalCertificate {
    /// The regions, like `eu-west-1`.
    pub regions: BTreeSet<String>,
    /// The certificate. Whether a weak key is allowed was settled when the policy was read.
    pub certificate: Certificate,
}

/// Members of the document, and the facts that they are.
const FACTS: [(&str, &str); 8] = [
    ("instanceId", "instance-id"),
    ("imageId", "image-id"),
    ("instanceType", "instance-type"),
    ("region", "region"),
    ("accountId", "account-id"),
    ("architecture", "architecture"),
    ("availabilityZone", "availability-zone"),
    ("pendingTime", "pending-time"),
];

impl Ec2 {
    pub(crate) fn verify(
        &self,
        attestation: &Attestation,
        context: &Context,
    ) -> Result<Proven, Refusal> {
        only(attestation, &["document", "rsa2048", "signature"])?;
        let document = required(attestation, "document")?;
        let message = attestation.part("rsa2048");
        let plain = attestation.part("signature");
        let tried = [
            message.map(|part| self.of_message(part, document, context.at)),
            plain.map(|part| self.of_signature(part, document, context.at)),
        ];
        let (mut regions, mut refusal) = (BTreeSet::new(), None);
        for signers in tried.into_iter().flatten() {
            match signers {
                Ok(found) => regions.extend(found),
                Err(found) => refusal = refusal.or(Some(found)),
            }
        }
        if regions.is_empty() {
            return Err(refusal.unwrap_or_else(|| {
                unverified("document", "the part rsa2048 or signature", "neither")
            }));
        }
        facts(document, &regions, context)
    }

    /// The regions whose certificate made the message, which must be of the document.
    fn of_message(
        &self,
        part: &[u8],
        document: &[u8],
        at: Time,
    ) -> Result<BTreeSet<&str>, Refusal> {
        let cms = Cms::read(&binary(part, "rsa2048")?, Some(document));
        let cms = cms.map_err(|found| unverified("rsa2048", "signed data (CMS)", found))?;
        if cms.content != document {
            let found = format!("{} other bytes", cms.content.len());
            return Err(unverified("rsa2048", "a signature of the document", found));
        }
        let fits =
            |key: &CertifiedKey| matches!(key, CertifiedKey::Strong(key) if cms.is_signed_by(key));
        self.regions("rsa2048", at, fits)
    }

    /// The regions whose certificate made the plain signature.
    fn of_signature(
        &self,
        part: &[u8],
        document: &[u8],
        at: Time,
    ) -> Result<BTreeSet<&str>, Refusal> {
        let signature = base64_text(part, "signature")?;
        let fits = |key: &CertifiedKey| match key {
            CertifiedKey::Strong(key) => {
                signature_fits(key, Scheme::RsaPkcs1Sha256, document, &signature)
            }
            CertifiedKey::Legacy(key) => legacy_signature_fits(key, document, &signature),
        };
        self.regions("signature", at, fits)
    }

    /// The regions whose certificate made the signature and holds.
    fn regions(
        &self,
        part: &str,
        at: Time,
        fits: impl Fn(&CertifiedKey) -> bool,
    ) -> Result<BTreeSet<&str>, Refusal> {
        let mut found = BTreeSet::new();
        let mut over = None;
        for RegionalCertificate { regions, certificate } in &self.certificates {
            if fits(certificate.key()) {
                if certificate.holds_at(at) {
                    found.extend(regions.iter().map(String::as_str));
                } else {
                    over = Some(certificate.period());
                }
            }
        }
        match over {
            _ if !found.is_empty() => Ok(found),
            Some(period) => {
                Err(unverified(part, format!("a certificate that holds on {at}"), period))
            }
            None => {
                let expected = "a signature by a certificate that the policy pins";
                Err(unverified(part, expected, "another signature"))
            }
        }
    }
}

fn facts(document: &[u8], regions: &BTreeSet<&str>, context: &Context) -> Result<Proven, Refusal> {
    let fault = unreadable("document");
    let value = json::parse(document, document.len(), STRING_BYTES).map_err(&fault)?;
    let mut members = value.into_object("").map_err(&fault)?.without_nulls();
    let mut proven = Proven::new();
    for (member, fact) in FACTS {
        if let Some(text) = members.optional_text(member).map_err(&fault)? {
            proven.push((fact.into(), text));
        }
    }
    let known =
        |name: &str| proven.iter().find(|(fact, _)| fact == name).map(|(_, value)| value.as_str());
    // without them it says nothing of any machine
    let (Some(region), Some(_)) = (known("region"), known("instance-id")) else {
        return Err(unverified("document", "instanceId and region", "not both"));
    };
    if !regions.contains(region) {
        let signers: Vec<&str> = regions.iter().copied().collect();
        let found = format!("the certificate of {}", signers.join(", "));
        return Err(unverified("document", format!("the certificate of {region}"), found));
    }
    if let Some(text) = known("pending-time") {
        let launched: Time = text.parse().map_err(unreadable("document.pendingTime"))?;
        if launched > context.at.plus(context.skew) {
            let expected = format!("a launch before {}", context.at);
            return Err(mismatch("document.pendingTime", expected, text));
        }
    }
    Ok(proven)
}
