//! What README.md and the guides tell people to type is typed here, and must print what they say.
//!
//! 1. A fenced block that begins with ```` ```console ```` is run. Blocks of other kinds are not.
//! 2. All such blocks of a document are run in order, in one bash and one new directory, which is
//!    `HOME` too. `custody` is on the `PATH`, and nobody answers questions.
//! 3. A line that begins with `$ ` is a command, and lines after it that begin with `> ` belong to it.
//! 4. The other lines are what the command prints, on both outputs together. Blanks at the ends of
//!    lines do not count. A command without such lines prints nothing.
//! 5. `...` alone stands for any lines, also none; within a line it stands for any text.
//! 6. `? N` as the last line is the exit status; without it the status is 0.
//! 7. `<!-- needs: A B -->` names programs without which the document is left out, and said to be.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::fmt::Write as _;
use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use custody_verify::report::Rule;

/// Stands between the outputs of two commands.
const MARK: &str = "----- status of the command above:";

/// One command of a document.
#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    line: usize,
    command: String,
    prints: Vec<String>,
    status: i32,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The commands of a document, by rules 1 and 3 to 6.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut console, mut fenced) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            (console, fenced) = (!fenced && line.trim() == "```console", !fenced);
            continue;
        }
        let line = line.trim_end();
        match (console, line.strip_prefix("$ "), steps.last_mut()) {
            (false, ..) => {}
            (true, Some(command), _) => {
                steps.push(Step {
                    line: number + 1,
                    command: command.to_owned(),
                    ..Step::default()
                });
            }
            (true, None, None) => panic!("line {}: no command stands before it", number + 1),
            (true, None, Some(step)) => {
                let more = line.strip_prefix("> ").filter(|_| step.prints.is_empty());
                let status = line.strip_prefix("? ").and_then(|status| status.parse().ok());
                match (more, status) {
                    (Some(more), _) => step.command = format!("{}\n{more}", step.command),
                    (None, Some(status)) => step.status = status,
                    (None, None) => step.prints.push(line.to_owned()),
                }
            }
        }
    }
    steps
}

/// Rule 5.
fn lines_fit(wanted: &[String], found: &[&str]) -> bool {
    match (wanted.split_first(), found.split_first()) {
        (None, first) => first.is_none(),
        (Some((any, rest)), first) if any == "..." => {
            lines_fit(rest, found) || first.is_some_and(|(_, less)| lines_fit(wanted, less))
        }
        (Some(_), None) => false,
        (Some((line, rest)), Some((first, less))) => {
            line_fits(line, first) && lines_fit(rest, less)
        }
    }
}

fn line_fits(wanted: &str, found: &str) -> bool {
    let Some((start, rest)) = wanted.split_once("...") else { return wanted == found };
    let Some(tail) = found.strip_prefix(start) else { return false };
    let mut ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
    ends.any(|at| tail.get(at..).is_some_and(|tail| line_fits(rest, tail)))
}

/// Runs the commands and gives what each printed, and its status.
fn run(steps: &[Step]) -> Vec<(String, i32)> {
    let home = tempfile::Builder::new().prefix("custody-readme-").tempdir().unwrap();
    // commands of a release run as another user where the test runs as root
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
    let programs = tempfile::tempdir().unwrap();
    symlink(env!("CARGO_BIN_EXE_custody"), programs.path().join("custody")).unwrap();
    let mut script = String::new();
    for step in steps {
        writeln!(script, "{{ {}\n}} 2>&1; printf '\\n{MARK} %d\\n' $?", step.command).unwrap();
    }
    let path = std::env::var("PATH").unwrap();
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(home.path())
        .env_clear()
        .env("HOME", home.path())
        .env("PATH", format!("{}:{path}", programs.path().display()))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut rest = printed.as_str();
    let mut results = Vec::new();
    while let Some((text, after)) = rest.split_once(&format!("\n{MARK} ")) {
        let (status, after) = after.split_once('\n').unwrap();
        results.push((text.to_owned(), status.parse().unwrap()));
        rest = after;
    }
    let stopped = String::from_utf8_lossy(&output.stderr);
    assert_eq!(results.len(), steps.len(), "the shell stopped early: {rest}{stopped}");
    results
}

/// A program that the document needs and this machine has not, by rule 7.
fn lacks(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("<!-- needs: ")?;
    let (needs, _) = rest.split_once(" -->")?;
    needs.split(' ').find(|program| {
        !Command::new("which").arg(program).stdout(Stdio::null()).status().unwrap().success()
    })
}

/// What is wrong with a document, command by command.
fn faults(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    if let Some(program) = lacks(&text) {
        let line = format!("skipped: {}: {program} is not there\n", document.display());
        assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{line}");
        // past the test runner, which keeps the words of tests that pass to itself
        io::stderr().write_all(line.as_bytes()).unwrap();
        return Vec::new();
    }
    let steps = steps(&text);
    let results = run(&steps);
    let fault = |(step, (text, status)): (&Step, &(String, i32))| {
        let found: Vec<&str> = text.lines().map(str::trim_end).collect();
        let fits = *status == step.status && lines_fit(&step.prints, &found);
        let at = format!("{}:{}", document.display(), step.line);
        (!fits).then(|| {
            let wanted = step.prints.join("\n");
            format!(
                "{at}: $ {}\n--- expected, with status {}\n{wanted}\n--- found, with status {status}\n{text}",
                step.command, step.status
            )
        })
    };
    steps.iter().zip(&results).filter_map(fault).collect()
}

#[test]
fn the_tour_of_the_readme_works() {
    let faults = faults(&root().join("README.md"));
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn the_guides_work() {
    let guides = fs::read_dir(root().join("docs/guides")).unwrap();
    let mut guides: Vec<PathBuf> = guides.map(|guide| guide.unwrap().path()).collect();
    guides.sort();
    assert!(!guides.is_empty());
    let faults: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = guides.iter().map(|guide| scope.spawn(|| faults(guide))).collect();
        running.into_iter().flat_map(|guide| guide.join().unwrap()).collect()
    });
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// docs/formats/verification.md numbers the rules and says them in the judge's own words.
#[test]
fn the_rules_are_documented_in_their_order() {
    let text = fs::read_to_string(root().join("docs/formats/verification.md")).unwrap();
    let flowing = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = flowing.as_str();
    for (rule, number) in Rule::ALL.iter().zip(1_u32..) {
        let entry = format!(" {number}. `{}`: {}.", rule.name(), rule.sentence());
        let Some((_, after)) = rest.split_once(&entry) else {
            panic!("not there, or not in order:{entry}")
        };
        rest = after;
    }
    let is_rule = |line: &&str| {
        let numbered = line.split_once(". `");
        numbered.is_some_and(|(number, rest)| {
            number.bytes().all(|byte| byte.is_ascii_digit()) && rest.contains("`: ")
        })
    };
    let rules = text.lines().filter(is_rule).count();
    assert_eq!(rules, Rule::ALL.len(), "a rule that does not exist");
}

#[test]
fn what_a_document_needs_is_looked_for() {
    assert_eq!(lacks("# Title\n\n```console\n$ true\n```\n"), None);
    assert_eq!(lacks("# Title\n\n<!-- needs: sh bash -->\n"), None);
    assert_eq!(lacks("<!-- needs: sh no-such-program -->\n"), Some("no-such-program"));
}

#[test]
fn a_changed_word_is_noticed() {
    let document = "```console\n$ echo one two\none ...\n$ (echo a; echo b; exit 3)\n...\nb\n? 3\n```\n\
                    ```sh\n$ false\n```\n```console\n$ true &&\n> true\n```\n";
    let told = |text: &str| {
        let steps = steps(text);
        let results = run(&steps);
        let fits = |(step, (text, status)): (&Step, &(String, i32))| {
            let found: Vec<&str> = text.lines().collect();
            *status == step.status && lines_fit(&step.prints, &found)
        };
        steps.iter().zip(&results).map(fits).collect::<Vec<_>>()
    };
    assert_eq!(told(document), [true, true, true]);
    assert_eq!(told(&document.replace("one ...", "won ...")), [false, true, true]);
    assert_eq!(told(&document.replace("\nb\n", "\nc\n")), [true, false, true]);
    assert_eq!(told(&document.replace("? 3", "? 4")), [true, false, true]);
    assert_eq!(told(&document.replace("one ...\n", "")), [false, true, true]);
}
