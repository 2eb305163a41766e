//! The verbs.

mod bundle;
mod completions;
mod demo;
mod enrol;
mod evidence;
mod explain;
mod graph;
mod init;
mod key;
mod plan;
mod platforms;
mod policy;
mod publish;
mod release;
mod run;
mod show;
mod trace;
mod verify;

use clap::{Parser, Subcommand};

use crate::error::Error;
use crate::ui::Ui;

/// Prove who made what from what, and let nothing else happen
#[derive(Parser, Debug)]
#[command(name = "custody", version, max_term_width = 100)]
pub(crate) struct Custody {
    /// Print one JSON object for machines
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print results only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a whole release on this machine, then attack it
    Demo(demo::DemoArgs),
    /// Make a store that trusts one policy
    Init(init::InitArgs),
    /// Make, import and show keys
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Check, sign, rotate and show policies
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Start a phase of a release: propose, sign off, authorize
    #[command(subcommand)]
    Release(release::ReleaseCommand),
    /// Make and sign all tasks of an authorized phase
    Plan(plan::PlanArgs),
    /// Verify a task, run it, and sign what it made
    Run(run::RunArgs),
    /// Enrol keys that workers make for themselves
    #[command(subcommand)]
    Enrol(enrol::EnrolCommand),
    /// Verify everything, copy to where users get it, and record it
    Publish(publish::PublishArgs),
    /// Walk from a file back to its steps, machines, people and source
    Verify(verify::VerifyArgs),
    /// Draw the chain behind a file, or a whole release
    Graph(graph::GraphArgs),
    /// Find everything that came from an input, a machine, a person, a key or an environment
    Trace(trace::TraceArgs),
    /// Show one statement
    Show(show::ShowArgs),
    /// Add, get and list statements
    #[command(subcommand)]
    Evidence(evidence::EvidenceCommand),
    /// Export, import and verify bundles
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Say what a code means and what to do
    Explain(explain::ExplainArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
}

impl Custody {
    pub(crate) fn run(self, ui: &Ui) -> Result<(), Error> {
        match self.command {
            Command::Demo(args) => demo::run(&args, ui),
            Command::Init(args) => init::run(&args, ui),
            Command::Key(command) => key::run(&command, ui),
            Command::Policy(command) => policy::run(&command, ui),
            Command::Release(command) => release::run(&command, ui),
            Command::Plan(args) => plan::run(&args, ui),
            Command::Run(args) => run::run(&args, ui),
            Command::Enrol(command) => enrol::run(&command, ui),
            Command::Publish(args) => publish::run(&args, ui),
            Command::Verify(args) => verify::run(&args, ui),
            Command::Graph(args) => graph::run(&args, ui),
            Command::Trace(args) => trace::run(&args, ui),
            Command::Show(args) => show::run(&args, ui),
            Command::Evidence(command) => evidence::run(&command, ui),
            Command::Bundle(command) => bundle::run(&command, ui),
            Command::Explain(args) => explain::run(&args, ui),
            Command::Completions(args) => completions::run(&args, ui),
        }
    }
}
