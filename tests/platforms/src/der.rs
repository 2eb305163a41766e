//! DER, and BER with open lengths, from the inside out.

pub(crate) fn length(length: usize) -> Vec<u8> {
    match length {
        0..0x80 => vec![u8::try_from(length).unwrap()],
        0x80..0x100 => vec![0x81, u8::try_from(length).unwrap()],
        _ => [&[0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    }
}

pub(crate) fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag][..], &length(content.len()), &content].concat()
}

/// The same without saying its length, as Amazon signs.
pub(crate) fn open(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

pub(crate) fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub(crate) fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

pub(crate) fn oid(content: &[u8]) -> Vec<u8> {
    tlv(6, &[content])
}

pub(crate) fn small(number: u8) -> Vec<u8> {
    tlv(2, &[&[number]])
}

pub(crate) fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content])
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(4, &[content])
}

/// An algorithm whose parameters are NULL.
pub(crate) fn algorithm(content: &[u8]) -> Vec<u8> {
    sequence(&[&oid(content), &[5, 0]])
}

pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub(crate) const RSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
