//! Microsoft Azure: attested data.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use custody_core::Refusal;
use custody_core::json::{self, Object};
use custody_core::limits::STRING_BYTES;
use custody_core::statement::Attestation;
use custody_core::time::Time;

use crate::certificate::Certificate;
use crate::cms::Cms;
use crate::{Context, Proven, binary, mismatch, nonce, only, required, unreadable, unverified};

/// Who signs attested data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Azure {
    /// The authorities to which the signer's certificate must lead.
    pub authorities: Vec<Certificate>,
    /// The signer's names in lower case: these, or a name below one of them.
    pub names: Vec<String>,
}

/// id-kp-serverAuth: the signer's certificate is one of a web server.
const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// Members of the document, and the facts that they are.
const FACTS: [(&str, &str); 4] = [
    ("vmId", "vm-id"),
    ("subscriptionId", "subscription-id"),
    ("sku", "sku"),
    ("licenseType", "license-type"),
];
const PLAN: [(&str, &str); 3] =
    [("name", "plan-name"), ("product", "plan-product"), ("publisher", "plan-publisher")];

impl Azure {
    pub(crate) fn verify(
        &self,
        attestation: &Attestation,
        context: &Context,
    ) -> Result<Proven, Refusal> {
        const PART: &str = "attested";
        only(attestation, &[PART])?;
        let der = binary(required(attestation, PART)?, PART)?;
        let cms =
            Cms::read(&der, None).map_err(|found| unverified(PART, "signed data (CMS)", found))?;
        let certificates = cms.certificates.iter().map(|der| Certificate::from_der(der));
        let certificates: Vec<Certificate> =
            certificates.collect::<Result<_, _>>().map_err(unreadable(PART))?;
        if certificates.iter().any(|one| one.strong_key().is_none()) {
            let expected = "certificates with keys of 2048 bits or more";
            return Err(unverified(PART, expected, "a shorter key"));
        }
        self.signer(&cms, &certificates, context.at)?;
        facts(&cms.content, context).map_err(|refusal| refusal.inside(PART))
    }

    /// The certificate of the signer is the one whose key made the signature, and it must be good.
    fn signer(&self, cms: &Cms, certificates: &[Certificate], at: Time) -> Result<(), Refusal> {
        let signer = certificates
            .iter()
            .find(|one| one.strong_key().is_some_and(|key| cms.is_signed_by(key)))
            .ok_or_else(|| {
                unverified("attested", "a signature by a certificate in it", "another signature")
            })?;
        let named = |name: &String| {
            self.names.iter().any(|known| {
                name.strip_suffix(known.as_str())
                    .is_some_and(|below| below.is_empty() || below.ends_with('.'))
            })
        };
        if !signer.names().iter().any(named) {
            let expected = format!("a certificate for {}", self.names.join(" or "));
            return Err(unverified("attested", expected, signer.names().join(", ")));
        }
        if !signer.signs_for(SERVER) {
            let expected = "the certificate of a server";
            return Err(unverified("attested", expected, "one for other use"));
        }
        if !signer.leads_to(&self.authorities, certificates, at) {
            let expected = format!(
                "a certificate by an authority that the policy pins, all of them good on {at}"
            );
            let found = format!("one good from {}", signer.period());
            return Err(unverified("attested", expected, found));
        }
        Ok(())
    }
}

fn facts(text: &[u8], context: &Context) -> Result<Proven, Refusal> {
    let fault = unreadable("");
    let value = json::parse(text, text.len(), STRING_BYTES).map_err(&fault)?;
    let mut members = value.into_object("").map_err(&fault)?.without_nulls();
    let expected = nonce(&context.binding);
    let found = members.text("nonce").map_err(&fault)?;
    if found != expected {
        return Err(mismatch("nonce", expected, found));
    }
    let mut stamps = members.object("timeStamp").map_err(&fault)?;
    let mut stamp = |name: &str| {
        let text = stamps.text(name).map_err(&fault)?;
        let read = time(&text);
        read.ok_or_else(|| unverified("timeStamp", "a time like 11/28/26 07:35:00 -0000", text))
    };
    let (from, until) = (stamp("createdOn")?, stamp("expiresOn")?);
    if context.at.plus(context.skew) < from || context.at > until.plus(context.skew) {
        let expected = format!("attested data that holds on {}", context.at);
        return Err(unverified("timeStamp", expected, format!("{from} to {until}")));
    }
    let mut proven = Proven::new();
    let mut put = |object: &mut Object<'_>, known: &[(&str, &str)]| {
        for (member, fact) in known {
            // what a machine does not have is an empty text
            if let Some(text) = object.optional_text(member)?.filter(|text| !text.is_empty()) {
                proven.push(((*fact).into(), text));
            }
        }
        Ok(())
    };
    put(&mut members, &FACTS).map_err(&fault)?;
    if let Some(plan) = members.optional("plan") {
        let mut plan = plan.into_object("plan").map_err(&fault)?.without_nulls();
        put(&mut plan, &PLAN).map_err(&fault)?;
    }
    if proven.first().is_none_or(|(fact, _)| fact != "vm-id") {
        return Err(unverified("", "vmId", "nothing"));
    }
    Ok(proven)
}

/// `MM/DD/YY HH:MM:SS -0000`
fn time(text: &str) -> Option<Time> {
    let mut words = text.split(' ');
    let (date, clock) = (words.next()?, words.next()?);
    let mut date = date.split('/');
    let (month, day, year) = (date.next()?, date.next()?, date.next()?);
    let whole = words.next() == Some("-0000") && words.next().is_none() && date.next().is_none();
    format!("20{year}-{month}-{day}T{clock}Z").parse().ok().filter(|_| whole)
}
