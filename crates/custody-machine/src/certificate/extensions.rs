//! The extensions of a certificate (RFC 5280, 4.2), as far as they are read.

use alloc::string::String;
use alloc::vec::Vec;

use crate::asn1::{
    self, BIT_STRING, BOOLEAN, Element, Elements, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING,
    SEQUENCE,
};

const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
const EXTENDED_KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x25];
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// What we do not check, critical or not: names that an authority may certify.
const NAME_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x1e];

/// Most extensions, purposes and alternative names.
const ELEMENTS: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// How many authorities may be below, if it is one at all.
    pub(super) authority: Option<usize>,
    pub(super) usage: Option<u8>,
    pub(super) purposes: Option<Vec<Vec<u8>>>,
    pub(super) names: Vec<String>,
}

impl Extensions {
    /// Reads them all. The common names count where there is no list of names.
    pub(super) fn read(all: Option<Elements<'_>>, common_names: &[&[u8]]) -> Option<Self> {
        let mut read = Self::default();
        let mut seen = Vec::new();
        for element in all.map_or(Some(Vec::new()), |all| all.all(ELEMENTS))? {
            let mut extension = Elements(Some(element).filter(|e| e.tag == SEQUENCE)?.content);
            let name = extension.take(OBJECT_IDENTIFIER)?.content;
            let critical = flag(&mut extension)?;
            let value = extension.take(OCTET_STRING)?.content;
            extension.end()?;
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match name {
                BASIC_CONSTRAINTS => {
                    let (is_authority, most_below) = constraints(value)?;
                    read.authority = is_authority.then_some(most_below);
                }
                KEY_USAGE => read.usage = Some(usage(value)?),
                EXTENDED_KEY_USAGE => {
                    let purposes = asn1::only(value, SEQUENCE)?.all(ELEMENTS)?;
                    let purpose = |element: &Element<'_>| {
                        (element.tag == OBJECT_IDENTIFIER).then(|| element.content.to_vec())
                    };
                    read.purposes = Some(purposes.iter().map(purpose).collect::<Option<_>>()?);
                }
                ALTERNATIVE_NAME => {
                    let names = asn1::only(value, SEQUENCE)?.all(ELEMENTS)?;
                    // dNSName [2]
                    let dns = names.iter().filter(|name| name.tag == 0x82);
                    read.names = dns.filter_map(|name| host(name.content)).collect();
                }
                NAME_CONSTRAINTS => return None,
                _ if critical => return None,
                _ => {}
            }
        }
        if let ([name], false) = (common_names, seen.contains(&ALTERNATIVE_NAME)) {
            read.names.extend(host(name));
        }
        Some(read)
    }
}

/// Whether it is an authority, and how many may be below.
fn constraints(value: &[u8]) -> Option<(bool, usize)> {
    let mut constraints = asn1::only(value, SEQUENCE)?;
    let is_authority = flag(&mut constraints)?;
    let most = match constraints.optional(INTEGER) {
        None => usize::MAX,
        Some(number) => unsigned(number.content)?,
    };
    constraints.end()?;
    Some((is_authority, most))
}

/// A flag whose default is false. Then it should not be written (X.690, 11.5), but makers of TPMs do.
fn flag(elements: &mut Elements<'_>) -> Option<bool> {
    match elements.optional(BOOLEAN).map(|flag| flag.content) {
        None | Some([0]) => Some(false),
        Some([0xff]) => Some(true),
        Some(_) => None,
    }
}

/// A number from 0 in as few bytes as it needs (X.690, 8.3.2). What is too large to be counted is more than any
/// chain has.
fn unsigned(number: &[u8]) -> Option<usize> {
    match number {
        [] | [0x80..=0xff, ..] | [0, 0..=0x7f, ..] => None,
        digits => Some(digits.iter().fold(0, |sum: usize, digit| {
            sum.saturating_mul(256).saturating_add(usize::from(*digit))
        })),
    }
}

/// The first byte of a key usage. Bits that are not used are 0 (X.690, 11.2.1), and one of the others is not
/// (RFC 5280, 4.2.1.3).
fn usage(value: &[u8]) -> Option<u8> {
    let [unused @ 0..8, bits @ ..] = asn1::only(value, BIT_STRING)?.0 else { return None };
    let (first, last) = (bits.first()?, bits.last()?);
    let is_clean = last.trailing_zeros() >= u32::from(*unused);
    (is_clean && bits.iter().any(|byte| *byte != 0)).then_some(*first)
}

/// A name of a host in lower case. What has other characters is none.
fn host(name: &[u8]) -> Option<String> {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._*".contains(byte);
    let name = Some(name).filter(|name| name.iter().all(fits))?;
    core::str::from_utf8(name).ok().map(str::to_ascii_lowercase)
}
