//! DER, and BER with open lengths, from the inside out.

pub fn length(length: usize) -> Vec<u8> {
    match length {
        0..0x80 => vec![u8::try_from(length).unwrap()],
        0x80..0x100 => vec![0x81, u8::try_from(length).unwrap()],
        _ => [&[0x82][..], &u16::try_from(length).unwrap().to_be_bytes()].concat(),
    }
}

pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag][..], &length(content.len()), &content].concat()
}

/// The same without saying its length, as Amazon signs.
pub fn open(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    [&[tag, 0x80][..], &parts.concat(), &[0, 0]].concat()
}

pub fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x30, parts)
}

pub fn set(parts: &[&[u8]]) -> Vec<u8> {
    tlv(0x31, parts)
}

pub fn oid(content: &[u8]) -> Vec<u8> {
    tlv(6, &[content])
}

pub fn small(number: u8) -> Vec<u8> {
    tlv(2, &[&[number]])
}

pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content])
}

pub fn octets(content: &[u8]) -> Vec<u8> {
    tlv(4, &[content])
}

/// An algorithm whose parameters are NULL.
pub fn algorithm(content: &[u8]) -> Vec<u8> {
    sequence(&[&oid(content), &[5, 0]])
}

pub const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
pub const RSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b];
