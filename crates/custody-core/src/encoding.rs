//! Hexadecimal and base64 in their canonical forms.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};

use crate::{Code, Refusal};

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// What each byte is worth as a digit; 16 and more is none. Digests are read by the hundred thousand.
#[expect(clippy::indexing_slicing, reason = "of a constant, which the compiler looks at")]
const WORTH: [u8; 256] = {
    let mut worth = [16; 256];
    // '0' and 'a'
    let (mut digit, mut byte) = (0, 48);
    while digit < 16 {
        worth[byte] = digit;
        digit += 1;
        byte = if digit == 10 { 97 } else { byte + 1 };
    }
    worth
};

fn pair([high, low]: [u8; 2]) -> Option<u8> {
    let worth = |c: u8| WORTH.get(usize::from(c)).copied().unwrap_or(16);
    let (high, low) = (worth(high), worth(low));
    (high | low < 16).then_some(high << 4 | low)
}

/// Bytes from lower-case hexadecimal; nothing else is read.
pub fn hex_decode(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().copied().map(pair).collect();
    if rest.is_empty() { bytes } else { None }
}

/// Exactly `N` bytes from lower-case hexadecimal.
pub fn hex_decode_exact<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, digits) in bytes.iter_mut().zip(pairs) {
        *byte = pair(*digits)?;
    }
    Some(bytes)
}

/// Standard base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// Unpadded URL-safe base64, as WebAuthn writes challenges.
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads base64 with padding in the standard or the URL-safe alphabet, as DSSE demands; one text
/// has one meaning, so blanks, missing padding and loose bits are refused.
pub fn base64_decode(text: &str) -> Result<Vec<u8>, Refusal> {
    base64_decode_after(Vec::new(), text)
}

/// How many bytes the text stands for, if it can be read at all.
pub(crate) fn base64_length(text: &str) -> usize {
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4).saturating_mul(3).saturating_sub(padding)
}

/// The same, with what is read at the end of `bytes`.
pub(crate) fn base64_decode_after(mut bytes: Vec<u8>, text: &str) -> Result<Vec<u8>, Refusal> {
    let start = bytes.len();
    // the engine asks for room for the padding too
    bytes.reserve_exact(base64_length(text).saturating_add(3));
    let url_safe = || text.bytes().any(|byte| matches!(byte, b'-' | b'_'));
    // nearly all of it is in the standard alphabet: nobody looks for the other one first
    let mut decoded = STANDARD.decode_vec(text, &mut bytes);
    if decoded.is_err() && url_safe() {
        bytes.truncate(start);
        decoded = URL_SAFE.decode_vec(text, &mut bytes);
    }
    decoded.map(|()| bytes).map_err(|error| {
        Refusal::new(
            Code::ParseBase64Invalid,
            "",
            "canonical base64 with padding",
            alloc::format!("{error}"),
        )
    })
}

/// Reads unpadded URL-safe base64, as tokens have it; here too one text has one meaning.
pub fn base64url_decode(text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|error| {
        let found = alloc::format!("{error}");
        Refusal::new(Code::ParseBase64Invalid, "", "canonical base64url without padding", found)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn encodings_are_read_back(bytes: Vec<u8>) {
            prop_assert_eq!(hex_decode(&hex(&bytes)).unwrap(), bytes.clone());
            let exact = hex_decode_exact::<32>(&hex(&bytes)).map(Vec::from);
            prop_assert_eq!(exact, (bytes.len() == 32).then(|| bytes.clone()));
            prop_assert_eq!(base64_decode(&base64(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(base64url_decode(&base64url(&bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn loose_base64_is_refused() {
        assert_eq!(base64_decode("-_-_").unwrap(), [0xfb, 0xff, 0xbf]);
        for bad in ["QQ", "QR==", "QQ==\n", " QQ==", "Q Q=", "+_+_"] {
            assert_eq!(base64_decode(bad).unwrap_err().code, Code::ParseBase64Invalid, "{bad}");
        }
        assert_eq!(base64url_decode("-_8").unwrap(), [0xfb, 0xff]);
        for bad in ["-_8=", "+/8", "-_9", "-", "-_ 8", "-_8\n"] {
            assert_eq!(base64url_decode(bad).unwrap_err().code, Code::ParseBase64Invalid, "{bad}");
        }
    }
}
