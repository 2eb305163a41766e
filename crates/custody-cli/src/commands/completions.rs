//! `custody completions`

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Custody;
use crate::error::Error;
use crate::ui::Ui;

#[derive(Args, Debug)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(args: &CompletionsArgs, ui: &Ui) -> Result<(), Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Custody::command(), "custody", &mut script);
    ui.raw(&script)
}
