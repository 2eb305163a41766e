//! Base64 and BER in forms that readers take otherwise.

use custody_core::encoding::base64;
use custody_platforms::Cms;
use custody_platforms::der::{oid, sequence, set, tlv};

use super::{Platforms, UNVERIFIED, instance, refuse};
use crate::case::{About, Group};

pub(super) fn encodings(group: &mut Group<'_>, platforms: &Platforms) {
    texts(group, platforms);
    messages(group, platforms);
}

fn texts(group: &mut Group<'_>, platforms: &Platforms) {
    let text = base64(&platforms.amazon.sign(instance().as_bytes()));
    let url_safe = text.replace('+', "-").replace('/', "_");
    let mixed = if text.contains('+') { text.replace('+', "-") } else { String::new() };
    assert!(mixed.contains('-') && mixed.contains('/'), "both alphabets in one");
    let case = |text: &str| platforms.ec2("signature", text.as_bytes());
    let blanks = format!(" {}\t{}\r\n{}\n", &text[..1], &text[1..70], &text[70..]);
    let about = About("base64 for URLs", &[]);
    group.accept("ec2-base64-url", about, &case(&url_safe));
    group.accept("ec2-base64-blanks", About("base64 with blanks", &[]), &case(&blanks));
    let loose = text.replace("A==", "B==").replace("Q==", "R==").replace("g==", "h==");
    let loose = loose.replace("w==", "x==");
    assert_ne!(loose, text);
    for (name, control, about, text) in [
        ("ec2-base64-mixed", "ec2-base64-url", "base64 in two alphabets at once", mixed),
        ("ec2-base64-loose", "ec2-signature", "base64 with a loose bit", loose),
        ("ec2-base64-unpadded", "ec2-signature", "base64 without padding", text.replace('=', "")),
        (
            "ec2-base64-form-feed",
            "ec2-base64-blanks",
            "a blank that is none",
            blanks.replace('\t', "\u{c}"),
        ),
        (
            "ec2-base64-vertical-tab",
            "ec2-base64-blanks",
            "another blank that is none",
            blanks.replace('\t', "\u{b}"),
        ),
    ] {
        refuse(group, name, control, UNVERIFIED, about, &case(&text));
    }
}

fn messages(group: &mut Group<'_>, platforms: &Platforms) {
    let document = instance();
    let cms = Cms::new(document.as_bytes(), &platforms.amazon);
    let der = cms.bytes();
    let (head, rest) = der.split_at(2);
    assert_eq!(head, [0x30, 0x82]);
    // the length of the whole message in so many digits
    let long = |digits: u8| {
        let zeros = vec![0; usize::from(digits) - 2];
        platforms.ec2("rsa2048", &[&[0x30, 0x80 | digits], &zeros[..], rest].concat())
    };
    group.accept("ec2-length-4", About("a length of four digits", &[]), &long(4));
    for (name, digits) in [("ec2-length-5", 5), ("ec2-length-8", 8)] {
        let about = format!("a length of {digits} digits");
        refuse(group, name, "ec2-length-4", UNVERIFIED, &about, &long(digits));
    }
    // 1.2.840.113549.1.9.5, the time of signing
    let time = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x05];
    let values = tlv(0x17, &[b"260301000000Z"]).repeat(17);
    let attribute = Some(sequence(&[&oid(&time), &set(&[&values])]));
    let about = About("another attribute with many values", &[]);
    group.accept("ec2-attribute-values", about, &platforms.cms(&Cms { attribute, ..cms }));
}
