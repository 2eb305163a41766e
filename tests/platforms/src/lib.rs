//! Documents as platforms sign them, to the byte in the formats of the real ones, by authorities that
//! exist in tests only: EC2's identity documents, Azure's attested data, OIDC tokens, TPM quotes.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_panics_doc,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::return_self_not_must_use,
    clippy::struct_excessive_bools,
    reason = "only tests use it, and a test may fail loudly"
)]

pub mod azure;
pub mod certificate;
pub mod cloud;
mod cms;
pub mod der;
pub mod ec2;
mod signer;
pub mod token;
pub mod tpm;

use custody_core::statement::Attestation;

pub use certificate::Unsigned;
pub use cms::Cms;
pub use signer::{Certified, Signer, pem};

/// An attestation from parts.
pub fn attestation(platform: &str, parts: &[(&str, &dyn AsRef<[u8]>)]) -> Attestation {
    let part =
        |(name, bytes): &(&str, &dyn AsRef<[u8]>)| (name.parse().unwrap(), bytes.as_ref().to_vec());
    let parts = parts.iter().map(part);
    Attestation { platform: platform.parse().unwrap(), parts: parts.collect() }
}

/// Base64 in lines, as metadata services answer.
fn lines(bytes: &[u8]) -> String {
    let text = custody_core::encoding::base64(bytes);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|l| str::from_utf8(l).unwrap()).collect();
    lines.join("\n")
}
