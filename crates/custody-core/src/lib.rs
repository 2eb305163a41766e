//! What all rooms of Custody agree on: digests, artifact names, times, public keys, signed
//! envelopes, and the statements inside them.
//!
//! This room is pure: no file, socket, clock, randomness or private key. Bytes come in, and either
//! a typed value or a [`Refusal`] with a stable [`Code`] comes out. What was checked and what was
//! not are different types: an [`Envelope`](envelope::Envelope) keeps its payload to itself, and
//! only signatures by enough known principals turn it into a
//! [`Verified`](envelope::Verified) statement.
#![no_std]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

extern crate alloc;

pub mod code;
pub mod crypto;
pub mod digest;
pub mod encoding;
pub mod envelope;
pub mod json;
pub mod key;
pub mod limits;
pub mod name;
pub mod sshsig;
pub mod statement;
pub mod time;
pub mod vcs;

pub use code::{Code, Refusal};

/// The base under which all of Custody's own type URIs live.
pub const BASE_URI: &str = "https://custody.dev/";
