//! The store from outside: what it keeps, finds, survives and refuses.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
#![expect(clippy::similar_names, reason = "a build task and what was built")]
#![expect(clippy::print_stderr, reason = "what the kills and the damage hit")]

mod artifacts;
mod bundle;
mod child;
mod closure;
mod crash;
mod damage;
mod descent;
mod evidence;
mod processes;
mod runs;
mod trust;
mod world;
