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

use crate::commands::Custody;
use crate::ui::Ui;

fn main() -> ExitCode {
    let custody = match Custody::try_parse() {
        Ok(custody) => custody,
        Err(error) => return ui::usage(&error),
    };
    let ui = Ui::new(custody.json, custody.quiet);
    // a panic has printed where it happened; whoever called learns that it is our bug
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| custody.run(&ui))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => ui.failed(&error),
        Err(_) => ExitCode::from(error::BUG),
    }
}
