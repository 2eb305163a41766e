//! The confiner alone, for the tests of this library. `custody` has it inside.

use std::process::ExitCode;

fn main() -> ExitCode {
    custody_run::confiner::main(std::env::args_os().skip(2))
}
