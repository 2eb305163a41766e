//! PEM (RFC 7468) around secrets: every copy is wiped.

use custody_core::Refusal;
use custody_core::encoding::{base64, base64_decode};
use zeroize::Zeroizing;

use crate::unavailable;

/// The label and the bytes of the one block that the text consists of.
pub(crate) fn decode(text: &str) -> Result<(&str, Zeroizing<Vec<u8>>), Refusal> {
    let broken = || unavailable("", "one PEM block with a private key", "other text");
    let (label, rest) = label(text).ok_or_else(broken)?;
    let end = format!("-----END {label}-----");
    let body = rest.trim_end().strip_suffix(&end).ok_or_else(broken)?;
    let mut joined = Zeroizing::new(String::with_capacity(body.len()));
    joined.extend(body.split_ascii_whitespace());
    Ok((label, Zeroizing::new(base64_decode(&joined)?)))
}

/// The label of the first block, and what follows its line.
pub(crate) fn label(text: &str) -> Option<(&str, &str)> {
    text.trim_start().strip_prefix("-----BEGIN ")?.split_once("-----")
}

/// The block, with as many characters a line as its readers are used to.
pub(crate) fn encode(label: &str, bytes: &[u8], width: usize) -> Zeroizing<String> {
    let body = Zeroizing::new(base64(bytes));
    let mut text = Zeroizing::new(String::with_capacity(body.len() * 2 + 2 * label.len() + 64));
    text.extend(["-----BEGIN ", label, "-----"]);
    for (i, c) in body.chars().enumerate() {
        if i.is_multiple_of(width) {
            text.push('\n');
        }
        text.push(c);
    }
    text.extend(["\n-----END ", label, "-----\n"]);
    text
}
