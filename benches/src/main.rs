//! How fast Custody is: beside what this machine can do at all, measured in turn in the same run, and
//! beside others who do the same work.
//!
//! ```text
//! cargo build --release -p custody-cli -p custody-benches
//! target/release/custody-bench [start] [release] [file] [hash] [run] [in-toto]
//! ```
//!
//! Without a word all of it. Each line is a row of docs/benchmarks.md.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::as_conversions,
    clippy::allow_attributes,
    reason = "a measurement that goes wrong ends loudly"
)]

mod clock;
mod command;
mod file;
mod hash;
mod peer;
mod release;
mod run;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let sections: [(&str, fn()); 6] = [
        ("start", command::start),
        ("release", release::measure),
        ("file", file::measure),
        ("hash", hash::measure),
        ("run", run::measure),
        ("in-toto", peer::measure),
    ];
    for word in &wanted {
        assert!(sections.iter().any(|(name, _)| name == word), "{word} is no section");
    }
    println!("| work | Custody | beside it | ratio |\n|---|---|---|---|");
    for (name, measure) in sections {
        if wanted.is_empty() || wanted.iter().any(|word| word == name) {
            measure();
        }
    }
}
