//! The command `custody`.
//!
//! `commands/` has one file per verb, `context` what they share, `ui` all that is ever printed, and
//! `error` how a command ends.

mod chart;
mod commands;
mod context;
mod error;
mod machine;
mod seen;
mod tree;
mod ui;

use std::process::ExitCode;

use clap::Parser as _;
use custody_core::{Code, Refusal};
use custody_run::confiner;

use crate::commands::Custody;
use crate::error::Error;
use crate::ui::Ui;

fn main() -> ExitCode {
    // before anything else: what this program is then has one thread, and little time
    if confiner::is_asked_for(std::env::args_os().skip(1)) {
        return confiner::main(std::env::args_os().skip(2));
    }
    let custody = match Custody::try_parse() {
        Ok(custody) => custody,
        Err(error) => return ui::usage(&error),
    };
    let ui = Ui::new(custody.json, custody.quiet);
    // a panic has printed where it happened; whoever called learns that it is our bug
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gather_threads().and_then(|()| custody.run(&ui))
    })) {
        Ok(Ok(())) => ui.succeeded(),
        Ok(Err(error)) => ui.failed(&error),
        Err(_) => ExitCode::from(error::BUG),
    }
}

/// The threads that hash and check signatures. Where the system starts none, this one does their work;
/// where it starts too few, rayon would panic at the first file.
fn gather_threads() -> Result<(), Error> {
    let threads = rayon::ThreadPoolBuilder::new();
    let alone = std::thread::Builder::new().spawn(|| ()).is_err();
    let threads = if alone { threads.num_threads(1).use_current_thread() } else { threads };
    threads.build_global().map_err(|error| {
        let expected = "threads to work with, one for each processor";
        Refusal::new(Code::GateUnavailable, "this machine", expected, error.to_string()).into()
    })
}
