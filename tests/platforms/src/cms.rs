//! CMS `SignedData`, as Amazon and Microsoft make it, and as neither does.

use custody_core::crypto::sha256;

use crate::Signer;
use crate::der::{RSA, RSA_WITH_SHA256, algorithm, octets, oid, open, sequence, set, small, tlv};

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x03];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x04];
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];

/// A message and how it is written.
#[derive(Clone)]
pub struct Cms<'a> {
    pub content: &'a [u8],
    pub signer: &'a Signer,
    /// The certificates that come along, in this order.
    pub certificates: Vec<&'a [u8]>,
    /// Whether attributes are signed instead of the content itself.
    pub attributes: bool,
    /// One more attribute that is signed.
    pub attribute: Option<Vec<u8>>,
    /// The digest of the content, where it is another than the true one.
    pub digest: Option<[u8; 32]>,
    /// Lengths open and content in pieces, as Amazon has it.
    pub ber: bool,
    /// The hash named by the algorithm of the signature, as Microsoft has it.
    pub hash_is_signature: bool,
    /// Whether the content is inside.
    pub inside: bool,
    /// How often the signer is in it.
    pub signers: usize,
    /// The signature, where it is another than the true one.
    pub signature: Option<Vec<u8>>,
}

impl<'a> Cms<'a> {
    /// With attributes, in DER, with the signer's certificate.
    pub fn new(content: &'a [u8], signer: &'a Signer) -> Self {
        Self {
            content,
            signer,
            certificates: vec![signer.certificate()],
            attributes: true,
            attribute: None,
            digest: None,
            ber: false,
            hash_is_signature: false,
            inside: true,
            signers: 1,
            signature: None,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let hash = algorithm(if self.hash_is_signature { RSA_WITH_SHA256 } else { SHA256 });
        let digest = self.digest.unwrap_or_else(|| sha256(self.content));
        let attributes = [
            sequence(&[&oid(CONTENT_TYPE), &set(&[&oid(DATA)])]),
            sequence(&[&oid(MESSAGE_DIGEST), &set(&[&octets(&digest)])]),
            self.attribute.clone().unwrap_or_default(),
        ]
        .concat();
        let message = if self.attributes { set(&[&attributes]) } else { self.content.to_vec() };
        let signature = self.signature.clone().unwrap_or_else(|| self.signer.sign(&message));
        let attributes = if self.attributes { tlv(0xa0, &[&attributes]) } else { vec![] };
        let signer = sequence(&[
            &small(1),
            &sequence(&[&self.signer.name(), &small(1)]),
            &hash,
            &attributes,
            &algorithm(RSA),
            &octets(&signature),
        ]);
        let wrap = if self.ber { open } else { tlv };
        let content = if self.ber {
            let (one, other) = self.content.split_at(self.content.len() / 2);
            open(0x24, &[&octets(one), &octets(other)])
        } else {
            octets(self.content)
        };
        let inside = if self.inside { wrap(0xa0, &[&content]) } else { vec![] };
        let message = wrap(
            0x30,
            &[
                &small(1),
                &set(&[&hash]),
                &wrap(0x30, &[&oid(DATA), &inside]),
                &wrap(0xa0, &[&self.certificates.concat()]),
                &set(&vec![&signer[..]; self.signers]),
            ],
        );
        wrap(0x30, &[&oid(SIGNED_DATA), &wrap(0xa0, &[&message])])
    }
}
