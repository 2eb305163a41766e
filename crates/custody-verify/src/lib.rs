//! The judge: evidence, policy and time go in, a [`Report`] comes out.
//!
//! [`verify()`] is a pure, total and deterministic function with a budget. This room has
//! no file, socket, clock, randomness or key, runs nothing, and knows no switch that skips a check.
//! It walks from an artifact or a task back to the source and the people, and holds every document
//! on the way against the policy. The verdict is computed from the checks in the report.
#![no_std]
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::as_conversions)
)]

extern crate alloc;

mod checks;
pub mod docket;
pub mod enrolled;
pub mod evidence;
pub mod judge;
pub mod policy;
pub mod report;
pub mod trust;
mod walk;

pub use checks::authorization::Tally;
pub use docket::{Docket, InTurn, Spread};
pub use enrolled::Certificate;
pub use evidence::Evidence;
pub use judge::{Expectation, Judge, Question, Subject, tally, verify};
pub use policy::Policy;
pub use report::{Accepted, Report};
pub use trust::{Floor, PolicyChain};
