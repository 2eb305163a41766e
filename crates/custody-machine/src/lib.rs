//! What platforms say of machines: documents that a cloud, a CI service or a TPM signed, held against
//! the certificates and keys that the policy pins for that platform.
//!
//! This room is pure: bytes come in, and facts or a [`Refusal`] come out. It believes nothing but
//! signatures: a document brings neither its own trust anchor nor the choice of one. What each kind of
//! platform signs, and what is checked in which order, is in `docs/formats/attestations.md`.
#![no_std]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

extern crate alloc;

mod asn1;
mod azure;
mod certificate;
mod cms;
mod ec2;
mod jwks;
mod token;
mod tpm;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use custody_core::digest::Sha256;
use custody_core::encoding::{base64_decode, hex};
use custody_core::statement::Attestation;
use custody_core::time::Time;
use custody_core::{Code, Refusal};

pub use azure::Azure;
pub use certificate::{Certificate, CertifiedKey};
pub use ec2::{Ec2, RegionalCertificate};
pub use jwks::{TokenKey, read_jwks};
pub use token::{Claim, Preset, TokenIssuer};
pub use tpm::Tpm;

/// What is known of a platform: which kind of documents it signs, and what they are held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Platform {
    /// Amazon EC2: the instance identity document.
    Ec2(Ec2),
    /// Microsoft Azure: attested data.
    Azure(Azure),
    /// Whoever signs OIDC tokens: Google, GitHub, GitLab, Buildkite, Kubernetes and others.
    Token(TokenIssuer),
    /// A TPM 2.0: a quote of its PCRs.
    Tpm(Tpm),
}

impl Platform {
    /// Whether what the platform signs is of one run and one key ([`Proof::bound`]).
    pub const fn binds(&self) -> bool {
        match self {
            Self::Ec2(_) => false,
            Self::Azure(_) | Self::Tpm(_) => true,
            Self::Token(issuer) => issuer.audience.is_none(),
        }
    }
}

/// What a document is verified for.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// What the platform was asked to put into its word, where it takes something of the asker's choice
    /// ([`custody_core::statement::binding`]).
    pub binding: Sha256,
    /// The time that counts, in which documents with a time of their own must hold.
    pub at: Time,
    /// How far clocks may differ, in seconds.
    pub skew: u64,
}

/// Facts about a machine by name, like `ec2.image-id`. The name begins with the platform, as the policy
/// names it.
pub type Facts = BTreeMap<String, String>;

/// What an attestation proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The facts.
    pub facts: Facts,
    /// Whether the platform signed [`Context::binding`]. Where it did not, the documents are genuine and
    /// prove a machine, and not that this run was there: somebody else may have sent them again.
    pub bound: bool,
}

/// The facts that the attestation proves of the machine.
pub fn verify(
    attestation: &Attestation,
    platform: &Platform,
    context: &Context,
) -> Result<Proof, Refusal> {
    let proven = match platform {
        Platform::Ec2(ec2) => ec2.verify(attestation, context),
        Platform::Azure(azure) => azure.verify(attestation, context),
        Platform::Token(issuer) => issuer.verify(attestation, context),
        Platform::Tpm(tpm) => tpm.verify(attestation, context),
    };
    let name = attestation.platform.as_str();
    let proven = proven.map_err(|refusal| refusal.inside(name))?;
    let facts = proven.into_iter().map(|(fact, value)| (format!("{name}.{fact}"), value)).collect();
    Ok(Proof { facts, bound: platform.binds() })
}

/// The audience of tokens that are bound to a run.
pub fn audience(binding: &Sha256) -> String {
    format!("custody:{binding}")
}

/// The nonce of Azure's attested data, which has ten decimal digits: the first eight bytes of the binding
/// as a number, most significant first, modulo 10^10.
pub fn nonce(binding: &Sha256) -> String {
    let number = binding.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    format!("{:010}", number % 10_000_000_000)
}

/// Facts before the platform's name is put before theirs.
type Proven = Vec<(String, String)>;

fn unverified(at: &str, expected: impl Into<String>, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::WorkerIdentityUnverified, at, expected, found)
}

fn mismatch(at: &str, expected: impl Into<String>, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::WorkerIdentityMismatch, at, expected, found)
}

/// Whatever was wrong in a part: it proves nothing.
fn unreadable(at: &str) -> impl Fn(Refusal) -> Refusal {
    move |refusal| Refusal { code: Code::WorkerIdentityUnverified, ..refusal.inside(at) }
}

/// A part that must be there.
fn required<'a>(attestation: &'a Attestation, name: &str) -> Result<&'a [u8], Refusal> {
    attestation.part(name).ok_or_else(|| unverified(name, "this part", "nothing"))
}

/// Refuses parts that nobody would look at.
fn only(attestation: &Attestation, known: &[&str]) -> Result<(), Refusal> {
    match attestation.parts.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some((name, _)) => {
            Err(unverified(name.as_str(), format!("only {}", known.join(", ")), "another part"))
        }
    }
}

/// What may stand around and in texts of platforms without a meaning.
const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// DER or BER as it is, or in base64 with blanks wherever. The first byte tells them apart: base64 of what
/// begins with `0` begins with `M`.
fn binary(part: &[u8], at: &str) -> Result<Vec<u8>, Refusal> {
    if part.first() == Some(&0x30) {
        return Ok(part.to_vec());
    }
    base64_text(part, at)
}

fn base64_text(part: &[u8], at: &str) -> Result<Vec<u8>, Refusal> {
    let text = core::str::from_utf8(part).map_err(|_| unverified(at, "base64", "other bytes"))?;
    let text: String = text.split(BLANKS).collect();
    base64_decode(&text).map_err(unreadable(at))
}

/// Shows bytes of a document in a refusal.
fn shown(bytes: &[u8]) -> String {
    hex(bytes.get(..32).unwrap_or(bytes))
}
