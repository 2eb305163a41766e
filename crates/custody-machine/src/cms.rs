//! CMS (RFC 5652), as far as platforms sign with it: `SignedData` of plain data by one signer with
//! RSASSA-PKCS1-v1.5 and SHA-256.

use alloc::vec::Vec;

use custody_core::crypto::{Scheme, sha256, signature_fits};
use custody_core::key::PublicKey;

use crate::asn1::{
    self, Element, Elements, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE, SET, context,
};

/// 1.2.840.113549.1.7.2
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.9.3
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
/// 1.2.840.113549.1.9.4
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.113549.1.1.11, which Azure also writes where the hash is named.
const RSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];

const CERTIFICATES: usize = 8;
const ATTRIBUTES: usize = 16;

/// Data with a signature that nobody has checked yet.
pub(crate) struct Cms {
    /// What was signed.
    pub(crate) content: Vec<u8>,
    /// The certificates that came along. They are only candidates for a chain.
    pub(crate) certificates: Vec<Vec<u8>>,
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Cms {
    /// Reads BER or DER. `beside` is the content, where it is not inside.
    pub(crate) fn read(ber: &[u8], beside: Option<&[u8]>) -> Result<Self, &'static str> {
        let der = asn1::to_der(ber).ok_or("no BER")?;
        let mut info = asn1::only(&der, SEQUENCE).ok_or("another shape")?;
        let SignedData { inside, certificates, signers } =
            Self::signed_data(&mut info).ok_or("no SignedData")?;
        let content = inside.or(beside).ok_or("no content")?;
        let [one] = &*signers else { return Err("no or several signers") };
        let Signer { digest, attributes, algorithm, signature } =
            Signer::read(*one).ok_or("a signer of another shape")?;
        if ![SHA256, RSA_WITH_SHA256].contains(&digest) {
            return Err("another hash than SHA-256");
        }
        if ![RSA, RSA_WITH_SHA256].contains(&algorithm) {
            return Err("another signature than RSA");
        }
        if signature.is_empty() {
            return Err("an empty signature");
        }
        let message = match attributes {
            None => content.to_vec(),
            Some(attributes) => signed_attributes(attributes, content)?,
        };
        Ok(Self {
            content: content.to_vec(),
            certificates: certificates.iter().map(|element| element.whole.to_vec()).collect(),
            message,
            signature: signature.to_vec(),
        })
    }

    fn signed_data<'a>(info: &mut Elements<'a>) -> Option<SignedData<'a>> {
        info.take(OBJECT_IDENTIFIER).filter(|oid| oid.content == SIGNED_DATA)?;
        let mut signed = asn1::only(info.take(context(0))?.content, SEQUENCE)?;
        info.end()?;
        signed.take(INTEGER)?;
        signed.take(SET)?;
        let mut encapsulated = signed.enter(SEQUENCE)?;
        encapsulated.take(OBJECT_IDENTIFIER).filter(|oid| oid.content == DATA)?;
        let inside = match encapsulated.optional(context(0)) {
            None => None,
            Some(explicit) => {
                let mut inside = Elements(explicit.content);
                let content = inside.take(OCTET_STRING)?.content;
                inside.end()?;
                Some(content)
            }
        };
        encapsulated.end()?;
        let certificates = signed.optional(context(0)).map_or(&[][..], |set| set.content);
        signed.optional(context(1));
        let signers = signed.enter(SET)?.all(CERTIFICATES)?;
        signed.end()?;
        Some(SignedData {
            inside,
            certificates: Elements(certificates).all(CERTIFICATES)?,
            signers,
        })
    }

    /// Whether the key made the signature.
    pub(crate) fn is_signed_by(&self, key: &PublicKey) -> bool {
        signature_fits(key, Scheme::RsaPkcs1Sha256, &self.message, &self.signature)
    }
}

struct SignedData<'a> {
    inside: Option<&'a [u8]>,
    certificates: Vec<Element<'a>>,
    signers: Vec<Element<'a>>,
}

struct Signer<'a> {
    digest: &'a [u8],
    attributes: Option<&'a [u8]>,
    algorithm: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Signer<'a> {
    fn read(element: Element<'a>) -> Option<Self> {
        let mut signer = Elements(Some(element).filter(|e| e.tag == SEQUENCE)?.content);
        signer.take(INTEGER)?;
        // who it says that it is, which is nothing to go by
        signer.next()?;
        let digest = algorithm(&mut signer)?;
        let attributes = signer.optional(context(0)).map(|set| set.content);
        let algorithm = algorithm(&mut signer)?;
        let signature = signer.take(OCTET_STRING)?.content;
        signer.optional(context(1));
        signer.end()?;
        Some(Self { digest, attributes, algorithm, signature })
    }
}

/// The name of an algorithm. None of those that count has parameters: they are NULL or not there.
fn algorithm<'a>(signer: &mut Elements<'a>) -> Option<&'a [u8]> {
    let mut algorithm = signer.enter(SEQUENCE)?;
    let name = algorithm.take(OBJECT_IDENTIFIER)?.content;
    matches!(algorithm.0, [] | [5, 0]).then_some(name)
}

/// What is signed where the signature covers attributes: the set of them, which must say of the content
/// what it is and which digest it has.
fn signed_attributes(attributes: &[u8], content: &[u8]) -> Result<Vec<u8>, &'static str> {
    let all = Elements(attributes).all(ATTRIBUTES).ok_or("no attributes")?;
    let mut found: [Option<&[u8]>; 2] = [None; 2];
    for element in all {
        let attribute = || {
            let mut attribute = Elements(Some(element).filter(|e| e.tag == SEQUENCE)?.content);
            let name = attribute.take(OBJECT_IDENTIFIER)?.content;
            let values = attribute.enter(SET)?.all(usize::MAX)?;
            attribute.end()?;
            Some((name, values))
        };
        let (name, values) = attribute().ok_or("an attribute of another shape")?;
        let tags = [(CONTENT_TYPE, OBJECT_IDENTIFIER), (MESSAGE_DIGEST, OCTET_STRING)];
        for (place, (known, tag)) in found.iter_mut().zip(tags) {
            if name == known {
                if place.is_some() {
                    return Err("an attribute that is there twice");
                }
                let [one] = &*values else { return Err("an attribute without its one value") };
                if one.tag != tag {
                    return Err("an attribute with a value of another type");
                }
                *place = Some(one.content);
            }
        }
    }
    match found {
        [Some(DATA), Some(digest)] if digest == sha256(content) => {
            Ok(asn1::element(SET, attributes))
        }
        [Some(DATA), Some(_)] => Err("the digest of another content"),
        _ => Err("attributes without type and digest of the content"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asn1::element;
    use crate::asn1::tests::Changed;

    const CONTENT: &[u8] = b"what was signed";

    fn oid(content: &[u8]) -> Vec<u8> {
        element(OBJECT_IDENTIFIER, content)
    }

    fn attribute(name: &[u8], values: &[(u8, &[u8])]) -> Vec<u8> {
        let values = values.iter().flat_map(|(tag, value)| element(*tag, value));
        let values = element(SET, &values.collect::<Vec<u8>>());
        element(SEQUENCE, &[oid(name), values].concat())
    }

    /// A message with one change. Its signature is none.
    fn changed(place: &str, change: &dyn Fn(&mut Vec<u8>)) -> Result<Cms, &'static str> {
        let changed = Changed(place, change);
        let part = |name: &str, tag: u8, parts: &[&[u8]]| changed.element(name, tag, parts);
        let attributes = [
            attribute(CONTENT_TYPE, &[(OBJECT_IDENTIFIER, DATA)]),
            attribute(MESSAGE_DIGEST, &[(OCTET_STRING, &sha256(CONTENT))]),
        ]
        .concat();
        let signer = part(
            "signer",
            SEQUENCE,
            &[
                &element(INTEGER, &[1]),
                &element(SEQUENCE, &[]),
                &part("hash", SEQUENCE, &[&oid(SHA256)]),
                &part("attributes", context(0), &[&attributes]),
                &part("algorithm", SEQUENCE, &[&oid(RSA)]),
                &part("signature", OCTET_STRING, &[&[7; 256]]),
            ],
        );
        let inside = part("inside", context(0), &[&element(OCTET_STRING, CONTENT)]);
        let data = part(
            "data",
            SEQUENCE,
            &[
                &element(INTEGER, &[1]),
                &element(SET, &[]),
                &part("encapsulated", SEQUENCE, &[&oid(DATA), &inside]),
                &part("certificates", context(0), &[]),
                &part("signers", SET, &[&signer]),
            ],
        );
        let explicit = part("explicit", context(0), &[&data]);
        Cms::read(&part("whole", SEQUENCE, &[&oid(SIGNED_DATA), &explicit]), None)
    }

    #[test]
    fn nothing_follows_where_all_is_said() {
        assert!(changed("nothing", &|_| {}).is_ok_and(|cms| cms.content == CONTENT));
        for (place, found) in [
            ("whole", "no SignedData"),
            ("explicit", "no SignedData"),
            ("data", "no SignedData"),
            ("encapsulated", "no SignedData"),
            ("inside", "no SignedData"),
            ("signers", "no or several signers"),
            ("signer", "a signer of another shape"),
            ("attributes", "an attribute of another shape"),
        ] {
            let read = changed(place, &|content| content.extend([5, 0]));
            assert_eq!(read.err(), Some(found), "{place}");
        }
    }

    #[test]
    fn algorithms_have_no_parameters() {
        for place in ["hash", "algorithm"] {
            let with = |more: &[u8]| changed(place, &|content| content.extend(more)).err();
            assert_eq!(with(&[5, 0]), None, "{place}");
            for more in [&[5, 1, 0][..], &[5, 0, 5, 0], &[4, 0], &[0x30, 0]] {
                assert_eq!(with(more), Some("a signer of another shape"), "{place}: {more:?}");
            }
        }
    }

    #[test]
    fn at_most_eight_certificates_come_along() {
        let with = |count| {
            let read = changed("certificates", &|content| *content = [0x30, 0].repeat(count));
            read.map(|cms| cms.certificates.len())
        };
        assert_eq!(with(8), Ok(8));
        assert_eq!(with(9), Err("no SignedData"));
    }

    #[test]
    fn attributes_say_once_what_the_content_is() {
        let digest = sha256(CONTENT);
        let of_type = attribute(CONTENT_TYPE, &[(OBJECT_IDENTIFIER, DATA)]);
        let of_digest = attribute(MESSAGE_DIGEST, &[(OCTET_STRING, &digest)]);
        // the time of signing
        let other = attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05], &[]);
        let signed = |parts: &[&[u8]]| signed_attributes(&parts.concat(), CONTENT);
        for good in [
            &[&of_type[..], &of_digest][..],
            &[&of_digest, &of_type],
            &[&other, &of_type, &other, &of_digest],
            &[&of_type, &of_digest, &other.repeat(14)],
            &[&attribute(&[0x2a], &[(INTEGER, &[1][..]); 17]), &of_type, &of_digest],
        ] {
            assert_eq!(signed(good), Ok(element(SET, &good.concat())));
        }
        let (absent, twice) = (
            "attributes without type and digest of the content",
            "an attribute that is there twice",
        );
        let (not_one, of_another) =
            ("an attribute without its one value", "an attribute with a value of another type");
        for (bad, found) in [
            (&[&of_type[..]][..], absent),
            (&[&of_digest], absent),
            (&[], absent),
            (&[&attribute(CONTENT_TYPE, &[(OBJECT_IDENTIFIER, SIGNED_DATA)]), &of_digest], absent),
            (&[&of_type, &of_type, &of_digest], twice),
            (&[&of_type, &of_digest, &of_digest], twice),
            (&[&of_type, &attribute(CONTENT_TYPE, &[(OCTET_STRING, DATA)]), &of_digest], twice),
            // no value, two, and one of another type
            (&[&attribute(CONTENT_TYPE, &[]), &of_digest], not_one),
            (&[&attribute(CONTENT_TYPE, &[(OBJECT_IDENTIFIER, DATA); 2]), &of_digest], not_one),
            (&[&attribute(CONTENT_TYPE, &[(OCTET_STRING, DATA)]), &of_digest], of_another),
            (&[&of_type, &attribute(MESSAGE_DIGEST, &[])], not_one),
            (&[&of_type, &attribute(MESSAGE_DIGEST, &[(OCTET_STRING, &digest[..]); 2])], not_one),
            (&[&of_type, &attribute(MESSAGE_DIGEST, &[(INTEGER, &digest)])], of_another),
            (
                &[&of_type, &attribute(MESSAGE_DIGEST, &[(OCTET_STRING, &digest[1..])])],
                "the digest of another content",
            ),
            (&[&of_type, &of_digest, &other.repeat(15)], "no attributes"),
            (&[&of_type, &of_digest, &[0x30]], "no attributes"),
            (&[&of_type, &of_digest, &[5, 0]], "an attribute of another shape"),
        ] {
            assert_eq!(signed(bad), Err(found), "{bad:?}");
        }
        // more behind the values of one
        let longer = element(SEQUENCE, &[&of_type[2..], &[5, 0]].concat());
        assert_eq!(signed(&[&longer, &of_digest]), Err("an attribute of another shape"));
    }
}
