//! The only place that prints. Results go to standard output, everything else to standard error.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use custody_core::json::Value;
use custody_core::{Code, Refusal};
use custody_verify::Report;
use custody_verify::policy::PolicyFault;
use indicatif::{ProgressBar, ProgressStyle};

use crate::error::{Error, USAGE};
use crate::tree;

pub(crate) const GOOD: Style = AnsiColor::Green.on_default().bold();
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const BOLD: Style = Style::new().bold();

/// How this run of the command talks.
pub(crate) struct Ui {
    json: bool,
    quiet: bool,
    /// Why something that was to go to standard output did not.
    unsaid: OnceLock<io::Error>,
}

/// Ends the command for `clap`: help and version succeed, all else is wrong usage.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // it repeats words of the command line, which a shell may have taken from names of files
        let lines = error.render().to_string();
        complain(&lines.split('\n').map(tree::shown).collect::<Vec<_>>().join("\n"));
        return ExitCode::from(USAGE);
    }
    if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(USAGE) }
}

/// To standard error, where nobody may listen: there is no other place to say that.
fn complain(text: &str) {
    anstream::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// Text for people as it leaves us: of what a terminal obeys, only line breaks and our own styles. What
/// strangers wrote has been through [`tree::shown`] by then; this is for what was overlooked.
fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len());
    let styles = [GOOD, BAD, DIM, BOLD].map(|style| (style.to_string(), format!("{style:#}")));
    let styles: Vec<&str> = styles.iter().flat_map(|(on, off)| [&**on, &**off]).collect();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(style) = styles.iter().find(|style| rest.starts_with(**style)) {
            tame.push_str(style);
            rest = rest.get(style.len()..).unwrap_or_default();
            continue;
        }
        if matches!(first, '\n' | '\t') {
            tame.push(first);
        } else {
            tame.push_str(&tree::shown(first.encode_utf8(&mut [0; 4])));
        }
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
    }
    tame
}

/// The same for machines: such characters stand in texts only, where JSON has escapes for them.
fn json(value: &Value<'_>) -> String {
    let escaped = |c: char| {
        if c == '\n' || !tree::is_obeyed(c) {
            String::from(c)
        } else {
            format!("\\u{:04x}", u32::from(c))
        }
    };
    value.to_pretty().chars().map(escaped).collect()
}

impl Ui {
    pub(crate) const fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, unsaid: OnceLock::new() }
    }

    /// To standard output, at once. What could not be said is remembered, and the command does not
    /// succeed: whoever called would take silence for an answer.
    fn say(&self, text: &str) {
        let end = if text.ends_with('\n') { "" } else { "\n" };
        let mut out = anstream::stdout().lock();
        let said = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
        if let Err(error) = said.and_then(|()| out.flush()) {
            self.unsaid.get_or_init(|| error);
        }
    }

    /// How a command ends that did all that it was asked for.
    pub(crate) fn succeeded(self) -> ExitCode {
        match self.unsaid.into_inner() {
            None => ExitCode::SUCCESS,
            Some(error) => {
                // who closed the pipe has read enough, like head
                let left = error.kind() == io::ErrorKind::BrokenPipe;
                let error = Error::io("standard output".as_ref())(error);
                if !left {
                    complain(&tame(&error_text(&error)));
                }
                ExitCode::from(error.exit())
            }
        }
    }

    /// Whether a machine reads.
    pub(crate) const fn is_json(&self) -> bool {
        self.json
    }

    /// A result: text for people, or the value for machines.
    pub(crate) fn result(&self, text: &str, value: impl FnOnce() -> Value<'static>) {
        if self.json {
            self.say(&json(&value()));
        } else {
            self.say(&tame(text));
        }
    }

    /// Bytes as they are: a statement, a bundle, completions.
    #[expect(clippy::unused_self, reason = "printing is the user interface's")]
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Error> {
        let mut out = io::stdout().lock();
        let said = out.write_all(bytes).and_then(|()| out.flush());
        said.map_err(Error::io("standard output".as_ref()))
    }

    /// What happens along the way. Silent with `--quiet` and `--json`.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            complain(&(tame(text) + "\n"));
        }
    }

    /// A report: the tree, or the JSON.
    pub(crate) fn report(&self, report: &Report) {
        if self.json {
            self.say(&json(&report.to_json()));
        } else if report.accepted().is_some() {
            self.say(&tame(&tree::accepted(report)));
        } else {
            complain(&tame(&tree::rejected(report)));
        }
    }

    /// A progress bar; none where nobody watches.
    pub(crate) fn bar(&self, length: u64, what: &'static str) -> ProgressBar {
        if self.quiet || self.json || !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:24} [{bar:30}] {pos}/{len} {elapsed}");
        let bar = ProgressBar::new(length).with_message(what);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    /// Says why the command failed, and gives the exit status.
    pub(crate) fn failed(&self, error: &Error) -> ExitCode {
        match error {
            Error::Several(_) => {}
            Error::Rejected(report) => self.report(report),
            _ if self.json => self.say(&json(&error_json(error))),
            _ => complain(&tame(&error_text(error))),
        }
        ExitCode::from(error.exit())
    }
}

fn error_text(error: &Error) -> String {
    match error {
        Error::Usage(text) => format!("{BAD}error:{BAD:#} {text}\n"),
        Error::Refused(refusal) => refusal_text(refusal),
        Error::Policy { path, faults } => {
            let faults: Vec<String> = faults.iter().map(|fault| fault_text(path, fault)).collect();
            faults.join("\n")
        }
        Error::CommandFailed { step, end, log } => format!(
            "{BAD}✗ step {step} failed:{BAD:#} {end}\n  It leaves no manifest. What it printed: {}\n",
            log.display()
        ),
        Error::Io { path, source } => format!("{BAD}error:{BAD:#} {}: {source}\n", path.display()),
        Error::Rejected(_) | Error::Several(_) => String::new(),
    }
}

fn fault_text(path: &Path, fault: &PolicyFault) -> String {
    let gutter = fault.line.to_string();
    let margin = " ".repeat(gutter.len());
    format!(
        "{BAD}✗ {}{BAD:#} {}\n{margin}--> {}:{}:{}\n{margin} |\n{gutter} | {}\n{margin} | {}^\n  do         {}\n",
        fault.code,
        fault.message,
        path.display(),
        fault.line,
        fault.column,
        fault.excerpt,
        " ".repeat(fault.column.saturating_sub(1)),
        fault.remedy,
    )
}

/// A refusal as people read it: what, where, expected, found, and what to do.
pub(crate) fn refusal_text(refusal: &Refusal) -> String {
    format!(
        "{BAD}✗ {}{BAD:#} {}\n  where      {}\n  expected   {}\n  found      {}\n  do         {}\n",
        refusal.code,
        refusal.code.meaning(),
        tree::shown(&refusal.at),
        tree::shown(&refusal.expected),
        tree::shown(&refusal.found),
        tree::shown(refusal.remedy())
    )
}

/// A fault of a policy's text, in the object that is given.
fn placed(object: Value<'static>, fault: &PolicyFault) -> Value<'static> {
    object
        .with("line", u64::try_from(fault.line).ok().map(Value::Integer))
        .with("column", u64::try_from(fault.column).ok().map(Value::Integer))
        .with("message", Some(Value::text(&fault.message)))
        .with("remedy", Some(Value::text(&fault.remedy)))
}

fn coded(code: Code) -> Value<'static> {
    Value::object([
        ("ok", Value::Bool(false)),
        ("code", Value::text(code)),
        ("codes", Value::list([Value::text(code)])),
        ("meaning", Value::text(code.meaning())),
    ])
}

/// A refusal for machines.
pub(crate) fn refusal_json(refusal: &Refusal) -> Value<'static> {
    coded(refusal.code)
        .with("at", Some(Value::text(&refusal.at)))
        .with("expected", Some(Value::text(&refusal.expected)))
        .with("found", Some(Value::text(&refusal.found)))
        .with("remedy", Some(Value::text(refusal.remedy())))
}

fn error_json(error: &Error) -> Value<'static> {
    let simple = |kind: &str, message: String| {
        Value::object([
            ("ok", Value::Bool(false)),
            ("error", Value::text(kind)),
            ("message", Value::text(message)),
        ])
    };
    match error {
        Error::Refused(refusal) => refusal_json(refusal),
        Error::Policy { path, faults } => {
            let first = faults.first().map_or(Code::PolicyInvalid, |fault| fault.code);
            let all = faults.iter().map(|fault| placed(Value::object([]), fault));
            let head = coded(first).with("file", Some(Value::text(path.display())));
            let head = faults.first().map_or(head.clone(), |fault| placed(head, fault));
            head.with("faults", Some(Value::list(all)))
        }
        Error::Usage(text) => simple("usage", text.clone()),
        Error::CommandFailed { step, end, log } => {
            simple("command", format!("step {step} failed: {end}"))
                .with("log", Some(Value::text(log.display())))
        }
        Error::Io { path, source } => simple("io", format!("{}: {source}", path.display())),
        Error::Rejected(report) => report.to_json(),
        Error::Several(_) => simple("several", "see the messages before".into()),
    }
}
