//! What must hold for the whole source tree, so that nobody has to remember it.
#![cfg(test)]

mod attacks;
mod crates;
mod documents;
mod sources;
mod threats;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// One of those files that are text.
struct TextFile {
    /// From the root of the repository, with `/`.
    path: String,
    text: String,
}

static ROOT: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap());

/// All files that git tracks, or would, from the root of the repository.
static PATHS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let list = output(Command::new("git").args(["ls-files", "-zco", "--exclude-standard"]));
    // what was deleted is listed until it is committed
    let there = list.split_terminator('\0').filter(|path| ROOT.join(path).exists());
    let mut paths: Vec<String> = there.map(ToOwned::to_owned).collect();
    // git lists what is not added yet before all others
    paths.sort_unstable();
    assert!(paths.len() > 50, "git lists only {} files", paths.len());
    paths
});

static FILES: LazyLock<Vec<TextFile>> = LazyLock::new(|| {
    let read = |path: &String| {
        let text = fs::read_to_string(ROOT.join(path)).ok()?;
        Some(TextFile { path: path.clone(), text })
    };
    PATHS.iter().filter_map(read).collect()
});

fn output(command: &mut Command) -> String {
    let output = command.current_dir(&*ROOT).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The lines for which this holds, as `path:line: text`.
fn lines_where(files: &[&TextFile], holds: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = files.iter().flat_map(|file| {
        file.text.lines().enumerate().map(|(number, line)| (&file.path, number + 1, line))
    });
    let found = lines.filter(|(_, _, line)| holds(line));
    found.map(|(path, number, line)| format!("{path}:{number}: {}", line.trim())).collect()
}

fn assert_none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

fn files_with(extension: &str) -> Vec<&'static TextFile> {
    let is_one =
        |file: &&TextFile| Path::new(&file.path).extension().is_some_and(|is| is == extension);
    FILES.iter().filter(is_one).collect()
}
