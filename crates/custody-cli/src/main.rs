//! The command `custody`.
//!
//! `commands/` has one file per verb, `context` what they share, `ui` all that is ever printed, and
//! `error` how a command ends.

mod chart;
mod commands;
mod context;
mod error;
mod seen;
mod tree;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;
use custody_core::{Code, Refusal};

use crate::commands::Custody;
use crate::error::Error;
use crate::ui::Ui;

fn main() -> ExitCode {
    let custody = match Custody::try_parse() {
        Ok(custody) => custody,
        Err(error) => return ui::usage(&error),
    };
    let ui = Ui::new(custody.json, custody.quiet);
    if let Err(error) = one_thread_if_there_are_no_more() {
        return ui.failed(&error);
    }
    // a panic has printed where it happened; whoever called learns that it is our bug
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| custody.run(&ui))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => ui.failed(&error),
        Err(_) => ExitCode::from(error::BUG),
    }
}

/// Where no threads can be started, the work is done by this one.
fn one_thread_if_there_are_no_more() -> Result<(), Error> {
    let threads = rayon::ThreadPoolBuilder::new;
    threads()
        .build_global()
        .or_else(|_| threads().num_threads(1).use_current_thread().build_global())
        .map_err(|error| {
            let (at, expected) = ("this machine", "a thread to work with");
            Refusal::new(Code::GateUnavailable, at, expected, error.to_string()).into()
        })
}
