//! The command `custody` as others start it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_core::json::{self, Value};

use crate::clock::{in_turn, row};

fn binary() -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name("custody");
    assert!(path.exists(), "build custody-cli with the same profile first");
    path
}

/// A command in a directory, with a home of its own there.
pub(crate) fn custody(directory: &Path, line: &str) -> Command {
    let mut command = Command::new(binary());
    command.args(line.split_whitespace()).current_dir(directory).stdin(Stdio::null());
    command.env("HOME", directory).env_remove("XDG_STATE_HOME").stdout(Stdio::null());
    command
}

pub(crate) fn succeed(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// What the command answers with `--json`, as this member.
pub(crate) fn answer(directory: &Path, line: &str, member: &str) -> String {
    let output = custody(directory, &format!("--json {line}")).stdout(Stdio::piped()).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {said}");
    let value = json::parse(&output.stdout, 1 << 26, 1 << 20).unwrap();
    let found = match value.get(member) {
        Some(Value::Array(items)) => items.first().and_then(Value::as_str).map(ToOwned::to_owned),
        other => other.and_then(Value::as_str).map(ToOwned::to_owned),
    };
    found.unwrap_or_else(|| panic!("{line}: no {member} in {value:?}"))
}

/// The most memory that the command had at once, in bytes. GNU time tells.
pub(crate) fn peak_memory(command: &Command) -> u64 {
    let mut timed = Command::new("/usr/bin/time");
    timed.args(["-f", "%M"]).arg(command.get_program()).args(command.get_args());
    timed.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => timed.env(name, value),
            None => timed.env_remove(name),
        };
    }
    let output = timed.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let kib: u64 = said.lines().last().unwrap().trim().parse().unwrap();
    kib * 1024
}

/// How long it takes to start, beside a program that does nothing.
pub(crate) fn start() {
    let here = std::env::temp_dir();
    let nothing = || succeed(&mut Command::new("true"));
    let times = in_turn(51, || succeed(&mut custody(&here, "--version")), nothing);
    row("start: `custody --version`", times, "`true`");
}
