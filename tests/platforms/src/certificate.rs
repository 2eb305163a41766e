//! A certificate member by member, so that each of them can be wrong.

use custody_core::time::Time;

use crate::Certified;
use crate::der::{RSA_WITH_SHA256, algorithm, bits, octets, oid, sequence, set, small, tlv};

/// What is signed in a certificate, in whole elements.
#[derive(Clone)]
pub struct Unsigned {
    pub version: Vec<u8>,
    /// How it is signed.
    pub algorithm: Vec<u8>,
    pub issuer: Vec<u8>,
    pub validity: Vec<u8>,
    pub subject: Vec<u8>,
    pub key: Vec<u8>,
    /// Between the key and the extensions is nothing.
    pub between: Vec<u8>,
    /// Basic constraints, key usage, names and purposes if there are any, and perhaps one more. An empty
    /// list is not there.
    pub extensions: Vec<Vec<u8>>,
}

impl Unsigned {
    pub fn new(certified: &Certified, spki: &[u8], issuer: &str) -> Self {
        let Certified { name: subject, names, authority, not_before, not_after, purposes, .. } =
            certified;
        let is_authority: &[u8] = if *authority { TRUE } else { &[] };
        let most_below = certified.path_length.map(small).unwrap_or_default();
        let mut extensions = vec![
            extension(0x13, TRUE, &sequence(&[is_authority, &most_below])),
            extension(0x0f, TRUE, &tlv(3, &[&[0, certified.usage]])),
        ];
        if !names.is_empty() {
            let names = names.iter().map(|name| tlv(0x82, &[name.as_bytes()]));
            let names = names.collect::<Vec<_>>().concat();
            extensions.push(extension(0x11, &[], &sequence(&[&names])));
        }
        if !purposes.is_empty() {
            let purposes: Vec<Vec<u8>> = purposes.iter().map(|purpose| oid(purpose)).collect();
            extensions.push(extension(0x25, &[], &sequence(&[&purposes.concat()])));
        }
        let critical = |critical: bool| if critical { TRUE } else { &[] };
        let more = certified.more;
        extensions.extend(more.map(|(last, is)| extension(last, critical(is), &[5, 0])));
        Self {
            version: tlv(0xa0, &[&small(2)]),
            algorithm: algorithm(RSA_WITH_SHA256),
            issuer: name(issuer),
            validity: sequence(&[&time(*not_before), &time(*not_after)]),
            subject: name(subject),
            key: spki.to_vec(),
            between: vec![],
            extensions,
        }
    }

    /// The certificate.
    pub fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let extensions = match &*self.extensions {
            [] => vec![],
            some => tlv(0xa3, &[&sequence(&[&some.concat()])]),
        };
        let signed = sequence(&[
            &self.version,
            &small(1),
            &self.algorithm,
            &self.issuer,
            &self.validity,
            &self.subject,
            &self.key,
            &self.between,
            &extensions,
        ]);
        sequence(&[&signed, &self.algorithm, &bits(&sign(&signed))])
    }
}

/// A flag that is true.
pub const TRUE: &[u8] = &[1, 1, 0xff];

/// The extension 2.5.29.N, with the element that says whether it is critical.
pub fn extension(last: u8, critical: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&oid(&[0x55, 0x1d, last]), critical, &octets(value)])
}

/// An attribute of a subject that is a common name.
pub fn common_name(name: &[u8]) -> Vec<u8> {
    sequence(&[&oid(&[0x55, 4, 3]), &tlv(0x0c, &[name])])
}

pub(crate) fn name(common: &str) -> Vec<u8> {
    sequence(&[&set(&[&common_name(common.as_bytes())])])
}

fn time(time: Time) -> Vec<u8> {
    let digits: String = time.to_string().chars().filter(char::is_ascii_digit).collect();
    match &digits[..2] {
        "20" if &digits[2..3] < "5" => tlv(0x17, &[&digits.as_bytes()[2..], b"Z"]),
        _ => tlv(0x18, &[digits.as_bytes(), b"Z"]),
    }
}
