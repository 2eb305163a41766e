//! `custody enrol serve | request`

mod counter;
mod http;
mod request;
mod serve;

use clap::Subcommand;

use crate::error::Error;
use crate::ui::Ui;

#[derive(Subcommand, Debug)]
pub(crate) enum EnrolCommand {
    /// Give certificates to workers that prove their machine
    Serve(serve::ServeArgs),
    /// Make a key and have it enrolled for this machine
    Request(request::RequestArgs),
}

pub(crate) fn run(command: &EnrolCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        EnrolCommand::Serve(args) => serve::run(args, ui),
        EnrolCommand::Request(args) => request::run(args, ui),
    }
}
