//! As much of ASN.1 as certificates and CMS need: elements of DER, and DER from BER.

use alloc::vec::Vec;

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const SEQUENCE: u8 = 0x30;
pub(crate) const SET: u8 = 0x31;

/// An explicit or constructed member `[number]`.
pub(crate) const fn context(number: u8) -> u8 {
    0xa0 | (number & 0x1f)
}

/// One element of DER.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// The element with its tag and length.
    pub(crate) whole: &'a [u8],
}

/// Elements one after another.
#[derive(Clone, Copy)]
pub(crate) struct Elements<'a>(pub(crate) &'a [u8]);

impl<'a> Elements<'a> {
    /// The next element, if it is in DER.
    pub(crate) fn next(&mut self) -> Option<Element<'a>> {
        let (tag, length, header) = header(self.0)?;
        let length = length?;
        let end = header.checked_add(length)?;
        let (whole, rest) = self.0.split_at_checked(end)?;
        let mut minimal = Vec::new();
        put_header(&mut minimal, tag, length);
        if !whole.starts_with(&minimal) {
            return None;
        }
        self.0 = rest;
        Some(Element { tag, content: whole.get(header..)?, whole })
    }

    /// The next element, which must have this tag.
    pub(crate) fn take(&mut self, tag: u8) -> Option<Element<'a>> {
        self.next().filter(|element| element.tag == tag)
    }

    /// The same, looking into it.
    pub(crate) fn enter(&mut self, tag: u8) -> Option<Self> {
        self.take(tag).map(|element| Self(element.content))
    }

    /// The next element, if it is there and has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Option<Element<'a>> {
        if self.0.first() == Some(&tag) { self.next() } else { None }
    }

    pub(crate) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    /// All elements to the end, of which there may be so many.
    pub(crate) fn all(mut self, most: usize) -> Option<Vec<Element<'a>>> {
        let mut all = Vec::new();
        while !self.0.is_empty() {
            all.push(self.next().filter(|_| all.len() < most)?);
        }
        Some(all)
    }
}

/// The one element that the bytes are.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<Elements<'_>> {
    let mut elements = Elements(bytes);
    let inside = elements.enter(tag)?;
    elements.end()?;
    Some(inside)
}

/// Tag, length (none if it is not said) and length of the header itself.
fn header(bytes: &[u8]) -> Option<(u8, Option<usize>, usize)> {
    let (&tag, &first) = (bytes.first()?, bytes.get(1)?);
    // tags of more than one byte are not in what we read
    if tag & 0x1f == 0x1f {
        return None;
    }
    match first {
        0x80 => Some((tag, None, 2)),
        0..0x80 => Some((tag, Some(usize::from(first)), 2)),
        _ => {
            let end = usize::from(first & 0x7f).checked_add(2)?;
            let digits = bytes.get(2..end).filter(|digits| digits.len() <= 4)?;
            let length = digits
                .iter()
                .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
            Some((tag, Some(length?), end))
        }
    }
}

fn put_header(out: &mut Vec<u8>, tag: u8, length: usize) {
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let digits = bytes.get(zeros..).unwrap_or_default();
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0x7f));
            out.extend_from_slice(digits);
        }
    }
}

pub(crate) fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_header(&mut out, tag, content.len());
    out.extend_from_slice(content);
    out
}

const DEEPEST: usize = 24;
const CONSTRUCTED: u8 = 0x20;

/// The same in DER, where all lengths are said and no octet string is in pieces. Amazon signs in BER.
/// Nothing else is changed: what was signed in DER stays what it was.
pub(crate) fn to_der(ber: &[u8]) -> Option<Vec<u8>> {
    let mut rest = ber;
    let der = convert(&mut rest, DEEPEST)?;
    rest.is_empty().then_some(der)
}

fn convert(rest: &mut &[u8], deepest: usize) -> Option<Vec<u8>> {
    let deepest = deepest.checked_sub(1)?;
    let (tag, length, header) = header(rest)?;
    let (_, after) = rest.split_at_checked(header)?;
    *rest = after;
    let constructed = tag & CONSTRUCTED != 0;
    let in_pieces = tag == OCTET_STRING | CONSTRUCTED;
    let mut content = Vec::new();
    let mut inside = |rest: &mut &[u8]| {
        let child = convert(rest, deepest)?;
        if in_pieces {
            content.extend_from_slice(Elements(&child).take(OCTET_STRING)?.content);
        } else {
            content.extend_from_slice(&child);
        }
        Some(())
    };
    match length {
        None if constructed => loop {
            if let Some(after) = rest.strip_prefix(&[0, 0]) {
                *rest = after;
                break;
            }
            inside(rest)?;
        },
        None => return None,
        Some(length) => {
            let (mut within, after) = rest.split_at_checked(length)?;
            *rest = after;
            if constructed {
                while !within.is_empty() {
                    inside(&mut within)?;
                }
            } else {
                content.extend_from_slice(within);
            }
        }
    }
    Some(element(if in_pieces { OCTET_STRING } else { tag }, &content))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::string::String;
    use alloc::vec;
    use custody_core::encoding::{hex, hex_decode};

    /// DER in which the content of one element, by the name that a test gives it, is changed.
    pub(crate) struct Changed<'a>(pub(crate) &'a str, pub(crate) &'a dyn Fn(&mut Vec<u8>));

    impl Changed<'_> {
        pub(crate) fn element(&self, name: &str, tag: u8, parts: &[&[u8]]) -> Vec<u8> {
            let mut content = parts.concat();
            if name == self.0 {
                (self.1)(&mut content);
            }
            element(tag, &content)
        }
    }

    fn converted(ber: &str) -> Option<String> {
        to_der(&hex_decode(ber).unwrap()).map(|der| hex(&der))
    }

    #[test]
    fn pieces_and_open_lengths_become_der() {
        let der = "300a020101a0050403616263";
        for ber in [
            der,
            "3080020101a080248004016104026263000000000000",
            "30810b02810101a0050403616263",
            "3080020101a00b24090401612404040262630000",
        ] {
            assert_eq!(converted(ber).as_deref(), Some(der), "{ber}");
        }
        // a length has at most four digits
        assert_eq!(converted("308400000003020101").as_deref(), Some("3003020101"));
        assert_eq!(converted("30850000000003020101"), None);
        // cut, without an end, more after the end, a piece that is none
        for bad in ["3003020101ff", "30800201", "3080020101", "24800201010000", "1f0101"] {
            assert_eq!(converted(bad), None, "{bad}");
        }
        // what has no elements in it has a length
        for bad in ["0480", "04800000", "04800401610000", "02800000"] {
            assert_eq!(converted(bad), None, "{bad}");
        }
        let nested = |levels| (0..levels).fold(Vec::new(), |inside, _| element(SEQUENCE, &inside));
        assert_eq!(to_der(&nested(24)), Some(nested(24)));
        assert_eq!(to_der(&nested(25)), None);
        let deep = "3080".repeat(60_000);
        assert_eq!(converted(&deep), None);
    }

    #[test]
    fn only_der_has_elements() {
        let first = |der: &str| Elements(&hex_decode(der).unwrap()).next().map(|e| e.tag);
        assert_eq!(first("020101"), Some(INTEGER));
        for bad in ["", "02", "0201", "02810101", "0282000101", "3080", "0284ffffffff"] {
            assert_eq!(first(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_length_is_said_in_as_few_bytes_as_it_needs() {
        for (length, header, longer) in [
            (0, "0400", "048100"),
            (0x7f, "047f", "04817f"),
            (0x80, "048180", "04820080"),
            (0xff, "0481ff", "048200ff"),
            (0x100, "04820100", "0483000100"),
            (0xffff, "0482ffff", "048300ffff"),
            (0x1_0000, "0483010000", "048400010000"),
        ] {
            let content = vec![7; length];
            let with = |header: &str| [hex_decode(header).unwrap(), content.clone()].concat();
            let der = with(header);
            assert_eq!(element(OCTET_STRING, &content), der, "{header}");
            let read = Elements(&der).next().unwrap();
            assert_eq!((read.content, read.whole), (&*content, &*der), "{header}");
            assert!(Elements(&with(longer)).next().is_none(), "{longer}");
            assert_eq!(to_der(&with(longer)), Some(der), "{longer}");
        }
    }

    #[test]
    fn nothing_follows_the_one_element_and_no_list_is_longer_than_it_may_be() {
        let nulls = |count| [5, 0].repeat(count);
        let inside = |bytes: &[u8]| only(bytes, SEQUENCE).map(|inside| inside.0.len());
        assert_eq!(inside(&element(SEQUENCE, &nulls(2))), Some(4));
        assert_eq!(inside(&[element(SEQUENCE, &nulls(2)), nulls(1)].concat()), None);
        assert_eq!(inside(&element(SET, &nulls(2))), None);
        for (count, most, good) in [(0, 0, true), (1, 0, false), (3, 3, true), (4, 3, false)] {
            let all = Elements(&nulls(count)).all(most).map(|all| all.len());
            assert_eq!(all, good.then_some(count), "{count} of {most}");
        }
    }
}
