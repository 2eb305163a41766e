//! X.509 certificates (RFC 5280), as far as platforms use them.

mod extensions;

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::str::FromStr;

use custody_core::crypto::{Scheme, signature_fits};
use custody_core::encoding::base64_decode;
use custody_core::key::{LegacyRsaKey, PublicKey};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use crate::BLANKS;
use crate::asn1::{
    self, BIT_STRING, Element, Elements, INTEGER, OBJECT_IDENTIFIER, SEQUENCE, SET, context,
};
use extensions::Extensions;

/// The key of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertifiedKey {
    /// One that may sign anything.
    Strong(PublicKey),
    /// RSA below 2048 bits, which only [`Ec2`](crate::Ec2) can use, and only if the policy allows it.
    Legacy(LegacyRsaKey),
}

/// A certificate. What it says is worth as much as whoever pinned or signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    signed: Vec<u8>,
    /// How it was signed, if that is a way that counts.
    scheme: Option<Scheme>,
    signature: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    not_before: Time,
    not_after: Time,
    key: CertifiedKey,
    extensions: Extensions,
}

const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

const DIGITAL_SIGNATURE: u8 = 0x80;
const CERTIFICATE_SIGN: u8 = 0x04;

/// 1.2.840.113549.1.1.1
const RSA_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.3.101.112, of keys and of signatures
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// Algorithms of signatures by their object identifiers.
const ALGORITHMS: [(&[u8], Scheme); 6] = [
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b], Scheme::RsaPkcs1Sha256),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0c], Scheme::RsaPkcs1Sha384),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0d], Scheme::RsaPkcs1Sha512),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02], Scheme::EcdsaP256Der),
    (&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03], Scheme::EcdsaP384Der),
    (ED25519, Scheme::Ed25519),
];

/// Most certificates between that of a signer and one that the policy pins.
const INTERMEDIATES: usize = 2;

impl Certificate {
    /// A certificate from its DER.
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        let fault = |found: &str| {
            Refusal::new(Code::PolicyInvalid, "", "an X.509 certificate in DER", found.to_owned())
        };
        let outer = || {
            let mut outer = asn1::only(der, SEQUENCE)?;
            let signed = outer.take(SEQUENCE)?;
            let algorithm = outer.take(SEQUENCE)?;
            let signature = bits(outer.take(BIT_STRING)?)?;
            outer.end()?;
            Some((signed, algorithm, signature))
        };
        let (signed, algorithm, signature) = outer().ok_or_else(|| fault("another shape"))?;
        let body = Body::read(signed).ok_or_else(|| fault("another shape"))?;
        if body.algorithm.whole != algorithm.whole {
            return Err(fault("two algorithms for its one signature"));
        }
        let key = match PublicKey::from_spki_der(body.key.whole) {
            Ok(key) => CertifiedKey::Strong(key),
            Err(refusal) => match LegacyRsaKey::from_spki_der(body.key.whole) {
                Ok(key) => CertifiedKey::Legacy(key),
                Err(_) => return Err(refusal),
            },
        };
        if !is_key_in_form(body.key) {
            return Err(fault("a key in another form"));
        }
        let extensions = Extensions::read(body.extensions, &body.common_names);
        Ok(Self {
            signed: signed.whole.to_vec(),
            scheme: scheme(algorithm.content),
            signature: signature.to_vec(),
            issuer: body.issuer.whole.to_vec(),
            subject: body.subject.whole.to_vec(),
            not_before: body.not_before,
            not_after: body.not_after,
            key,
            extensions: extensions.ok_or_else(|| fault("an extension that nobody here knows"))?,
        })
    }

    /// The key that it certifies.
    pub const fn key(&self) -> &CertifiedKey {
        &self.key
    }

    /// Whether it is an authority, which may sign other certificates.
    pub const fn is_authority(&self) -> bool {
        self.extensions.authority.is_some()
    }

    pub(crate) fn strong_key(&self) -> Option<&PublicKey> {
        match &self.key {
            CertifiedKey::Strong(key) => Some(key),
            CertifiedKey::Legacy(_) => None,
        }
    }

    /// Whether it holds at this moment. Both ends belong to it.
    pub(crate) fn holds_at(&self, at: Time) -> bool {
        (self.not_before..=self.not_after).contains(&at)
    }

    /// From when until when it holds.
    pub(crate) fn period(&self) -> String {
        format!("{} to {}", self.not_before, self.not_after)
    }

    /// The DNS names that it is for or, without a list of names, the only common name of its subject.
    pub(crate) fn names(&self) -> &[String] {
        &self.extensions.names
    }

    /// Whether it may sign what is no certificate and, where it says what for, for this purpose too.
    pub(crate) fn signs_for(&self, purpose: &[u8]) -> bool {
        let Extensions { authority, usage, purposes, names: _ } = &self.extensions;
        authority.is_none()
            && usage.is_none_or(|usage| usage & DIGITAL_SIGNATURE != 0)
            && purposes.as_ref().is_none_or(|known| known.iter().any(|known| known == purpose))
    }

    /// Whether a chain of certificates that hold at this moment leads from here to one of `anchors`, through
    /// `between` where needed.
    pub(crate) fn leads_to(&self, anchors: &[Self], between: &[Self], at: Time) -> bool {
        self.leads_up(anchors, between, at, 0)
    }

    fn leads_up(&self, anchors: &[Self], between: &[Self], at: Time, below: usize) -> bool {
        let made_this = |above: &&Self| above.issued(self, below) && above.holds_at(at);
        self.holds_at(at)
            && (anchors.iter().any(|anchor| made_this(&anchor))
                || (below < INTERMEDIATES
                    && between.iter().filter(made_this).any(|above| {
                        above.leads_up(anchors, between, at, below.saturating_add(1))
                    })))
    }

    fn issued(&self, other: &Self, below: usize) -> bool {
        let signed = |(key, scheme): (&PublicKey, Scheme)| {
            signature_fits(key, scheme, &other.signed, &other.signature)
        };
        self.subject == other.issuer
            && self.extensions.authority.is_some_and(|most| below <= most)
            && self.extensions.usage.is_none_or(|usage| usage & CERTIFICATE_SIGN != 0)
            && self.strong_key().zip(other.scheme).is_some_and(signed)
    }
}

impl FromStr for Certificate {
    type Err = Refusal;

    /// One certificate in PEM.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let body = text.trim_matches(BLANKS).strip_prefix("-----BEGIN CERTIFICATE-----");
        let body = body.and_then(|body| body.strip_suffix("-----END CERTIFICATE-----"));
        // PEM has one alphabet (RFC 7468, 3), and a hyphen is where another certificate begins
        let body = body.filter(|body| !body.contains(['-', '_'])).ok_or_else(|| {
            Refusal::new(Code::PolicyInvalid, "", "one certificate in PEM", "other text")
        })?;
        let base64: String = body.split(BLANKS).collect();
        Self::from_der(&base64_decode(&base64)?)
    }
}

/// How a certificate was signed. The parameters are NULL or not there, as RFC 4055, 5 has it for RSA. For ECDSA
/// they should not be there (RFC 5758, 3.2), but some who sign with a TPM write NULL. Ed25519 has none
/// (RFC 8410, 3).
fn scheme(algorithm: &[u8]) -> Option<Scheme> {
    let mut algorithm = Elements(algorithm);
    let name = algorithm.take(OBJECT_IDENTIFIER)?.content;
    let (_, scheme) = ALGORITHMS.iter().find(|(oid, _)| *oid == name)?;
    let null_fits = *scheme != Scheme::Ed25519;
    (algorithm.0.is_empty() || null_fits && algorithm.0 == [5, 0]).then_some(*scheme)
}

/// Whether a key has the parameters that its kind has: NULL for RSA (RFC 3279, 2.3.1), none for Ed25519
/// (RFC 8410, 3). That of others is their curve, without which nobody reads them.
fn is_key_in_form(key: Element<'_>) -> bool {
    let read = || {
        let mut algorithm = Elements(key.content).enter(SEQUENCE)?;
        Some((algorithm.take(OBJECT_IDENTIFIER)?.content, algorithm.0))
    };
    match read() {
        Some((RSA_KEY, parameters)) => parameters == [5, 0],
        Some((ED25519, parameters)) => parameters.is_empty(),
        other => other.is_some(),
    }
}

/// A bit string of whole bytes.
fn bits(element: Element<'_>) -> Option<&[u8]> {
    element.content.strip_prefix(&[0])
}

struct Body<'a> {
    algorithm: Element<'a>,
    issuer: Element<'a>,
    not_before: Time,
    not_after: Time,
    subject: Element<'a>,
    common_names: Vec<&'a [u8]>,
    key: Element<'a>,
    extensions: Option<Elements<'a>>,
}

impl<'a> Body<'a> {
    fn read(signed: Element<'a>) -> Option<Self> {
        let mut body = Elements(signed.content);
        let version = body.optional(context(0));
        body.take(INTEGER)?;
        let algorithm = body.take(SEQUENCE)?;
        let issuer = body.take(SEQUENCE)?;
        let mut validity = body.enter(SEQUENCE)?;
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        validity.end()?;
        let subject = body.take(SEQUENCE)?;
        let common_names = common_names(Elements(subject.content))?;
        // no unique identifiers (RFC 5280, 4.1.2.8)
        let key = body.take(SEQUENCE)?;
        let extensions = match body.optional(context(3)) {
            None => None,
            // version 3
            Some(_) if version.map(|v| v.content) != Some(&[INTEGER, 1, 2]) => return None,
            Some(explicit) => Some(asn1::only(explicit.content, SEQUENCE)?),
        };
        body.end()?;
        Some(Self {
            algorithm,
            issuer,
            not_before,
            not_after,
            subject,
            common_names,
            key,
            extensions,
        })
    }
}

fn common_names(mut subject: Elements<'_>) -> Option<Vec<&[u8]>> {
    let mut found = Vec::new();
    while !subject.0.is_empty() {
        let mut set = subject.enter(SET)?;
        while !set.0.is_empty() {
            let mut pair = set.enter(SEQUENCE)?;
            let (kind, value) = (pair.take(OBJECT_IDENTIFIER)?, pair.next()?);
            pair.end()?;
            if kind.content == COMMON_NAME {
                found.push(value.content);
            }
        }
    }
    Some(found)
}

/// `UTCTime` or `GeneralizedTime`, in the one form that certificates have, from 1970.
fn time(element: Element<'_>) -> Option<Time> {
    let text = core::str::from_utf8(element.content).ok()?;
    let (year, rest) = match (element.tag, text.get(..2)?) {
        (0x17, short) => {
            let century = if short < "50" { "20" } else { "19" };
            (format!("{century}{short}"), text.get(2..)?)
        }
        (0x18, _) => (text.get(..4)?.to_owned(), text.get(4..)?),
        _ => return None,
    };
    let digits = rest.strip_suffix('Z').filter(|digits| digits.len() == 10)?;
    let part = |from: usize, to: usize| digits.get(from..to);
    let (month, day) = (part(0, 2)?, part(2, 4)?);
    let (hour, minute, second) = (part(4, 6)?, part(6, 8)?, part(8, 10)?);
    format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asn1::tests::Changed;
    use crate::asn1::{BOOLEAN, OCTET_STRING, element};
    use alloc::string::ToString;

    /// The certificate of an authority, with one change. Nobody signed it.
    fn changed(place: &str, change: &dyn Fn(&mut Vec<u8>)) -> Option<Certificate> {
        let changed = Changed(place, change);
        let part = |name: &str, tag: u8, parts: &[&[u8]]| changed.element(name, tag, parts);
        let oid = |content: &[u8]| element(OBJECT_IDENTIFIER, content);
        let extension = |name: &str, last: u8, value: &[u8]| {
            let critical = part(&format!("{name}: critical"), BOOLEAN, &[&[0xff]]);
            let value = part(&format!("{name}: value"), OCTET_STRING, &[value]);
            let name_of = part(&format!("{name}: name"), OBJECT_IDENTIFIER, &[&[0x55, 0x1d, last]]);
            part(name, SEQUENCE, &[&name_of, &critical, &value])
        };
        let name = |kind: &[u8], value: &[u8]| {
            let pair = [oid(kind), element(0x0c, value)].concat();
            element(SET, &element(SEQUENCE, &pair))
        };
        // an organisation, and after it the common name
        let subject = [
            name(&[0x55, 0x04, 0x0a], b"other.example.org"),
            name(COMMON_NAME, b"Common.example.org"),
        ];
        let limits = part(
            "limits",
            SEQUENCE,
            &[&part("is authority", BOOLEAN, &[&[0xff]]), &part("most below", INTEGER, &[&[3]])],
        );
        let purposes = part("purposes", SEQUENCE, &[&oid(&[0x2a]), &oid(&[0x2b])]);
        let names = part("names", SEQUENCE, &[&element(0x82, b"Listed.example.org")]);
        let extensions = part(
            "extensions",
            SEQUENCE,
            &[
                &extension("constraints", 0x13, &limits),
                &extension("usage", 0x0f, &part("bits", BIT_STRING, &[&[1, 0x06]])),
                &extension("purpose", 0x25, &purposes),
                &extension("alternative", 0x11, &names),
            ],
        );
        let algorithm = element(SEQUENCE, &oid(ALGORITHMS[5].0));
        // the base point of the curve
        let mut point = [0x66; 32];
        point[0] = 0x58;
        let body = part(
            "body",
            SEQUENCE,
            &[
                &part("version", context(0), &[&[INTEGER, 1, 2]]),
                &element(INTEGER, &[1]),
                &algorithm,
                &element(SEQUENCE, b""),
                &part(
                    "validity",
                    SEQUENCE,
                    &[&element(0x17, b"200101000000Z"), &element(0x18, b"20500101000000Z")],
                ),
                &element(SEQUENCE, &subject.concat()),
                &PublicKey::Ed25519(point).to_spki_der(),
                &part("all extensions", context(3), &[&extensions]),
            ],
        );
        let outer = part("algorithm", SEQUENCE, &[&oid(ALGORITHMS[5].0)]);
        let signature = part("signature", BIT_STRING, &[&[0, 7]]);
        Certificate::from_der(&part("whole", SEQUENCE, &[&body, &outer, &signature])).ok()
    }

    fn with(place: &str, content: &[u8]) -> Option<Certificate> {
        changed(place, &|old| *old = content.to_vec())
    }

    #[test]
    fn a_certificate_says_for_whom_and_how_long_it_is() {
        let certificate = with("nothing", &[]).unwrap();
        assert_eq!(certificate.period(), "2020-01-01T00:00:00Z to 2050-01-01T00:00:00Z");
        assert_eq!(certificate.names(), ["listed.example.org"]);
        assert!(certificate.is_authority());
        let Extensions { authority, usage, purposes, names: _ } = certificate.extensions;
        assert_eq!((authority, usage), (Some(3), Some(0x06)));
        assert_eq!(purposes, Some([[0x2a], [0x2b]].map(Vec::from).into()));
    }

    #[test]
    fn nothing_follows_where_all_is_said() {
        for place in [
            "whole",
            "body",
            "version",
            "validity",
            "all extensions",
            "extensions",
            "constraints",
            "constraints: value",
            "limits",
            "usage: value",
            "purpose: value",
            "alternative: value",
        ] {
            assert_eq!(changed(place, &|content| content.extend([5, 0])), None, "{place}");
        }
    }

    #[test]
    fn flags_numbers_bits_and_purposes_have_one_form() {
        let flag: [(&[u8], bool); 5] =
            [(&[0xff], true), (&[0], true), (&[1], false), (&[], false), (&[0xff, 0xff], false)];
        for place in ["constraints: critical", "alternative: critical", "is authority"] {
            for (content, good) in flag {
                assert_eq!(with(place, content).is_some(), good, "{place}: {content:?}");
            }
        }
        for (content, most) in [
            (&[0][..], Some(0)),
            (&[0x7f], Some(0x7f)),
            (&[0, 0x80], Some(0x80)),
            (&[1, 0], Some(0x100)),
            (&[1, 0, 0, 0, 0, 0, 0, 0, 0], Some(usize::MAX)),
            (&[0x80], None),
            (&[0xff], None),
            (&[0xff, 0x7f], None),
            (&[0, 3], None),
            (&[0, 0x7f], None),
            (&[], None),
        ] {
            let read = with("most below", content).map(|read| read.extensions.authority);
            assert_eq!(read, most.map(Some), "{content:?}");
        }
        for (content, good) in [(&[0, 7][..], true), (&[1, 6], false), (&[], false)] {
            assert_eq!(with("signature", content).is_some(), good, "{content:?}");
        }
        for (content, first) in [
            (&[7, 0x80][..], Some(0x80)),
            (&[0, 0x04, 0x80], Some(0x04)),
            (&[0, 0, 0x80], Some(0)),
            (&[1, 0x06], Some(0x06)),
            // one of the bits that are not used, no bit at all, and more unused ones than there are
            (&[2, 0x06], None),
            (&[7, 0x80, 0x40], None),
            (&[7, 0], None),
            (&[0, 0, 0], None),
            (&[8, 0x80], None),
            (&[0], None),
            (&[], None),
        ] {
            let usage = with("bits", content).map(|read| read.extensions.usage);
            assert_eq!(usage, first.map(Some), "{content:?}");
        }
        for (content, count) in [
            (element(OBJECT_IDENTIFIER, &[0x2a]), Some(1)),
            (Vec::new(), Some(0)),
            (element(OCTET_STRING, &[0x2a]), None),
            ([element(OBJECT_IDENTIFIER, &[0x2a]), element(0x82, &[0x2a])].concat(), None),
        ] {
            let purposes = with("purposes", &content).and_then(|read| read.extensions.purposes);
            assert_eq!(purposes.map(|purposes| purposes.len()), count, "{content:?}");
        }
        assert_eq!(with("algorithm", &element(OBJECT_IDENTIFIER, ALGORITHMS[0].0)), None);
    }

    #[test]
    fn only_version_3_has_extensions() {
        let without = |tags: &'static [u8]| {
            changed("body", &|content| {
                let all = Elements(content).all(8).unwrap();
                let left = all.iter().filter(|element| !tags.contains(&element.tag));
                *content = left.flat_map(|element| element.whole).copied().collect();
            })
        };
        assert!(without(&[]).unwrap().is_authority());
        assert_eq!(without(&[0xa0]), None);
        for bad in [&[INTEGER, 1, 0][..], &[INTEGER, 1, 1], &[INTEGER, 2, 0, 2], &[4, 1, 2], &[]] {
            assert_eq!(with("version", bad), None, "{bad:?}");
        }
        // one of version 1 is no authority and has the one name of its subject
        let first = without(&[0xa0, 0xa3]).unwrap();
        assert!(!first.is_authority());
        assert_eq!(first.names(), ["common.example.org"]);
        assert_eq!(first.extensions.usage, None);
    }

    #[test]
    fn an_extension_is_there_once_and_known_where_it_must_be() {
        let last =
            |extension: &str, last: u8| with(&format!("{extension}: name"), &[0x55, 0x1d, last]);
        // twice, unknown and critical, and constraints on names
        for number in [0x13, 0x0f, 0x25, 0x63, 0x1e] {
            assert_eq!(last("alternative", number), None, "{number}");
        }
        let uncritical = |number: u8| {
            changed("alternative", &|content| {
                let value = [3, 0x55, 0x1d, number, 4, 0];
                *content = [&[OBJECT_IDENTIFIER][..], &value].concat();
            })
        };
        assert!(uncritical(0x63).is_some());
        assert_eq!(uncritical(0x1e), None);
        // who does not say that it is one is no authority, however many may be below
        for (place, content) in [
            ("limits", &[][..]),
            ("limits", &[INTEGER, 1, 3]),
            ("constraints", &[OBJECT_IDENTIFIER, 3, 0x55, 0x1d, 0x63, OCTET_STRING, 0]),
        ] {
            assert!(!with(place, content).unwrap().is_authority(), "{place}: {content:?}");
        }
        assert!(!with("is authority", &[0]).unwrap().is_authority());
        assert!(
            changed("alternative", &|content| {
                let value = [6, 3, 0x55, 0x1d, 0x63, BOOLEAN, 1, 0, OCTET_STRING, 0];
                *content = value.to_vec();
            })
            .is_some()
        );
        let unlimited = with("limits", &[BOOLEAN, 1, 0xff]).unwrap();
        assert_eq!(unlimited.extensions.authority, Some(usize::MAX));
    }

    #[test]
    fn the_common_name_counts_where_no_names_are_listed() {
        let listed =
            |tag: u8| with("names", &element(tag, b"A.example.org")).unwrap().names().len();
        // the name of a host, and one of a mailbox, which is a list too
        assert_eq!((listed(0x82), listed(0x81)), (1, 0));
        assert!(with("names", &[]).unwrap().names().is_empty());
        let common = |sets: &[&[(&[u8], &[u8])]]| {
            let pair = |(kind, value): &(&[u8], &[u8])| {
                let pair = [element(OBJECT_IDENTIFIER, kind), element(0x0c, value)];
                element(SEQUENCE, &pair.concat())
            };
            let set =
                |pairs: &&[_]| element(SET, &pairs.iter().flat_map(pair).collect::<Vec<u8>>());
            let subject: Vec<u8> = sets.iter().flat_map(set).collect();
            changed("body", &|content| {
                let all = Elements(content).all(8).unwrap();
                let named = all.iter().enumerate().filter(|(i, _)| *i != 7);
                let whole = |(i, old): (usize, &Element<'_>)| match i {
                    5 => element(SEQUENCE, &subject),
                    0 => Vec::new(),
                    _ => old.whole.to_vec(),
                };
                *content = named.flat_map(whole).collect();
            })
            .map(|read| read.names().join(" "))
        };
        let (other, name) = (&[0x55, 0x04, 0x0a][..], COMMON_NAME);
        for (sets, expected) in [
            (&[&[(name, &b"A.example.org"[..])][..]][..], "a.example.org"),
            (&[&[(other, b"b")], &[(name, b"a")]], "a"),
            (&[&[(other, b"b"), (name, b"a")]], "a"),
            // of several nobody chooses
            (&[&[(name, b"a")], &[(name, b"b")]], ""),
            (&[&[(name, b"a"), (name, b"a")]], ""),
            (&[&[(other, b"b")], &[(other, b"a")]], ""),
            // what is no name of a host
            (&[&[(name, b"\xff.a")]], ""),
            (&[&[(name, b"b\0.a")]], ""),
            (&[&[(name, "\u{e9}.a".as_bytes())]], ""),
            (&[&[(name, b"a b")]], ""),
            (&[&[(name, b"*.a_b-c.1")]], "*.a_b-c.1"),
            (&[], ""),
        ] {
            assert_eq!(common(sets).as_deref(), Some(expected), "{sets:?}");
        }
        // sets of pairs, and nothing else
        let pair =
            |more: &[u8]| element(SEQUENCE, &[&element(OBJECT_IDENTIFIER, name), more].concat());
        let good = element(SET, &pair(&[0x0c, 1, b'a']));
        assert_eq!(common_names(Elements(&good)), Some([&b"a"[..]].into()));
        for bad in [
            element(SEQUENCE, &pair(&[0x0c, 1, b'a'])),
            element(SET, &[5, 0]),
            element(SET, &pair(&[])),
            element(SET, &pair(&[0x0c, 1, b'a', 5, 0])),
        ] {
            assert_eq!(common_names(Elements(&bad)), None, "{bad:?}");
        }
    }

    #[test]
    fn keys_and_signatures_have_the_parameters_of_their_kind() {
        for (name, kind) in ALGORITHMS {
            let null_fits = kind != Scheme::Ed25519;
            for (parameters, good) in
                [(&[][..], true), (&[5, 0], null_fits), (&[4, 0], false), (&[5, 0, 5, 0], false)]
            {
                let found = scheme(&[&element(OBJECT_IDENTIFIER, name), parameters].concat());
                assert_eq!(found, good.then_some(kind), "{kind:?}: {parameters:?}");
            }
        }
        assert_eq!(scheme(&element(OBJECT_IDENTIFIER, RSA_KEY)), None);
        assert_eq!(scheme(&[]), None);
        let good = |name: &[u8], parameters: &[u8]| {
            let algorithm = [&element(OBJECT_IDENTIFIER, name), parameters].concat();
            let key = element(SEQUENCE, &element(SEQUENCE, &algorithm));
            is_key_in_form(Elements(&key).next().unwrap())
        };
        assert!(good(RSA_KEY, &[5, 0]) && good(ED25519, &[]) && good(&[0x2a], &[6, 1, 0x2a]));
        for (name, parameters) in
            [(RSA_KEY, &[][..]), (RSA_KEY, &[4, 0]), (RSA_KEY, &[5, 0, 5, 0]), (ED25519, &[5, 0])]
        {
            assert!(!good(name, parameters), "{parameters:?}");
        }
    }

    #[test]
    fn times_have_one_form() {
        let read = |tag: u8, text: &[u8]| {
            time(Element { tag, content: text, whole: &[] }).map(|time| time.to_string())
        };
        for (tag, text, expected) in [
            (0x17, "200101000000Z", "2020-01-01T00:00:00Z"),
            (0x17, "491231235959Z", "2049-12-31T23:59:59Z"),
            (0x17, "700101000000Z", "1970-01-01T00:00:00Z"),
            (0x17, "991231235959Z", "1999-12-31T23:59:59Z"),
            (0x18, "20500101000000Z", "2050-01-01T00:00:00Z"),
            (0x18, "99991231235959Z", "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(read(tag, text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        for (tag, text) in [
            // 1950, which is no moment here, and not 2050
            (0x17, "500101000000Z"),
            (0x18, "19691231235959Z"),
            // without seconds, with a part of one, elsewhere, nowhere
            (0x17, "2001010000Z"),
            (0x18, "20200101000000.5Z"),
            (0x17, "200101000000+0000"),
            (0x17, "200101000000"),
            // the one in the form of the other, and in a third
            (0x17, "20200101000000Z"),
            (0x18, "200101000000Z"),
            (0x16, "200101000000Z"),
            (0x17, "200230000000Z"),
            (0x17, "2"),
            (0x18, ""),
            (0x17, "2\u{e9}0101000000Z"),
        ] {
            assert_eq!(read(tag, text.as_bytes()), None, "{text}");
        }
        assert_eq!(read(0x17, &[0xff; 13]), None);
    }
}
