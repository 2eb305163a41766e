//! The command `custody` while the system fails it: calls that fail, kills at every call, threads,
//! files and memory that run out, an older store, a clock that jumps. What holds is in `docs/faults.md`.
//!
//! `CUSTODY_FAULTS=all` injects every fault instead of a sample; any other value picks the faults whose
//! name, as a failed test prints it, contains the value.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong in a test fails it")]

mod add;
mod clock;
mod inject;
mod older;
mod order;
mod publish;
mod run_all;
mod starved;
mod together;
mod verify;
#[path = "../it/world.rs"]
#[expect(dead_code, reason = "the other tests of this command need more of it")]
mod world;
