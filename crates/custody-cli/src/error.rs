//! How a command ends when it does not end well.

use std::path::{Path, PathBuf};

use custody_core::Refusal;
use custody_run::run::Stop;
use custody_verify::Report;
use custody_verify::policy::PolicyFault;

/// Evaluated and rejected.
pub(crate) const REJECTED: u8 = 1;
/// Wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Could not evaluate.
pub(crate) const UNDECIDED: u8 = 3;

/// Our bug.
pub(crate) const BUG: u8 = 70;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Error {
    /// The command line does not make sense.
    Usage(String),
    /// A rule did not hold.
    Refused(Refusal),
    /// A whole report says no.
    Rejected(Box<Report>),
    /// A policy's text is at fault, at these places.
    Policy { path: PathBuf, faults: Vec<PolicyFault> },
    /// A task's command failed.
    CommandFailed { step: String, end: String, log: PathBuf },
    /// The system did not play along.
    Io { path: PathBuf, source: std::io::Error },
    /// Several things went wrong, and each has been printed.
    Several(u8),
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.into(), source }
    }

    pub(crate) fn exit(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::Refused(refusal) if refusal.code.undecided() => UNDECIDED,
            Self::Refused(_)
            | Self::Rejected(_)
            | Self::Policy { .. }
            | Self::CommandFailed { .. } => REJECTED,
            Self::Io { .. } => UNDECIDED,
            Self::Several(exit) => *exit,
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Rejected(report) => Self::Rejected(report),
            Stop::Refused(refusal) => Self::Refused(refusal),
            Stop::Failed { step, end, log } => {
                Self::CommandFailed { step: step.to_string(), end: end.to_string(), log }
            }
        }
    }
}
