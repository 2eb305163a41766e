//! The command `custody` from outside: real processes, real files, and what must never happen.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong in a test fails it")]

mod attacks;
mod builders;
mod chain;
mod conformance;
mod container;
mod downloads;
mod draft;
mod enrol;
mod gates;
mod machine;
mod openssh;
mod path;
mod pictures;
mod policy;
mod publish;
mod run_all;
mod talk;
mod token;
mod trace;
#[path = "../../../custody-run/tests/upstream/mod.rs"]
mod upstream;
mod vectors;
mod verify;
mod world;
