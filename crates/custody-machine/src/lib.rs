//! What platforms say of machines: documents that a cloud, a CI service or a TPM signed, held against
//! the certificates and keys that the policy pins for that platform.
//!
//! This room is pure: bytes come in, and facts or a [`Refusal`] come out. It believes nothing but
//! signatures: a document brings neither its own trust anchor nor the choice of one.
#![no_std]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

extern crate alloc;

use alloc::collections::BTreeMap;
use alloc::string::String;

use custody_core::Refusal;
use custody_core::digest::Sha256;
use custody_core::statement::Attestation;
use custody_core::time::Time;

/// What is known of a platform: which kind of documents it signs, and what they are held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {}

/// What a document is verified for.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// What the platform was asked to put into its word, where it takes something of the asker's choice
    /// ([`custody_core::statement::binding`]).
    pub binding: Sha256,
    /// The time that counts, in which documents with a time of their own must hold.
    pub at: Time,
}

/// Facts about a machine by name, like `ec2.image-id`. The name begins with the platform, as the policy
/// names it.
pub type Facts = BTreeMap<String, String>;

/// The facts that the attestation proves of the machine.
pub fn verify(
    attestation: &Attestation,
    platform: &Platform,
    context: &Context,
) -> Result<Facts, Refusal> {
    let _: (&Attestation, &Context) = (attestation, context);
    match *platform {}
}
