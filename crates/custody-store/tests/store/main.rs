//! The store from outside: what it keeps, finds, survives and refuses.
#![expect(clippy::similar_names, reason = "a build task and what was built")]
#![expect(clippy::print_stderr, reason = "what the kills and the damage hit")]

mod artifacts;
mod bundle;
mod child;
mod closure;
mod crash;
mod damage;
mod evidence;
mod perf;
mod processes;
mod runs;
mod trust;
mod world;
