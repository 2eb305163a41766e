//! The vectors of `docs/formats/vectors.md`: cases with their verdicts, made from the honest world of
//! `tests/world` and changed in one thing each.

#![allow(
    missing_docs,
    missing_debug_implementations,
    clippy::missing_panics_doc,
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::indexing_slicing,
    clippy::similar_names,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "only tests and the generator use it, and they may fail loudly"
)]

use std::collections::BTreeMap;

mod case;
mod groups;
mod judge;
mod keys;

pub use judge::{Judged, judge};

/// Where the vectors lie.
pub const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vectors");

/// Signatures that come out otherwise each time they are made, kept so that vectors stay the same.
pub const RANDOM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/random.txt");

/// Every file of the vectors by its path under [`ROOT`], and what [`RANDOM`] must hold.
pub fn all() -> (BTreeMap<String, Vec<u8>>, String) {
    let mut set = case::Set::new();
    groups::add(&mut set);
    set.finish()
}
