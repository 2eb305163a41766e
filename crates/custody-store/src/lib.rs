//! The only room that writes evidence: envelopes in SQLite, artifacts as files, bundles to carry
//! them away.
//!
//! A [`Store`] is one directory. What one of its functions acknowledged survives a crash of the
//! process or the machine; what it did not acknowledge is there wholly or not at all. What is read
//! was hashed again on the way: damage is [`Code::StoreCorrupt`](custody_core::Code::StoreCorrupt),
//! never another value. Nothing in here is believed: envelopes come in and go out unverified, and
//! the indexes over them only help to find them. Judging is `custody-verify`'s work.

pub mod bundle;
pub mod durable;

mod artifacts;
mod closure;
mod descent;
mod evidence;
mod fault;
mod generation;
mod index;
mod lock;
mod runs;
mod store;
mod trust;

pub use artifacts::Staged;
pub use descent::{Because, Descendant};
pub use evidence::{Added, Filter, not_kept};
pub use index::{Kind, Link, POLICIES, Relation};
pub use runs::{Claim, Run, Share};
pub use store::Store;
pub use trust::{Floor, Trust};
