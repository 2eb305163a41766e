//! Runs `custody` and `git` in the demo's directory, and shows what is typed.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use custody_core::envelope::StatementId;
use custody_core::json::{self, Value};
use custody_core::{Code, Refusal};

use super::image;
use crate::error::Error;
use crate::ui::{BOLD, DIM, Ui};

/// The user as whom steps run when the demo is started as root: nobody.
const NOBODY: u32 = 65_534;

pub(super) struct Stage<'u> {
    dir: PathBuf,
    program: PathBuf,
    /// Whether there is an engine for containers in the directory.
    pub(super) container: bool,
    ui: &'u Ui,
}

/// What a command printed with `--json`.
pub(super) struct Answer(String);

impl Answer {
    fn value(&self) -> Result<Value<'_>, Error> {
        Ok(json::parse(self.0.as_bytes(), 1 << 26, 1 << 24)?)
    }

    pub(super) fn text(&self, member: &str) -> Result<String, Error> {
        let value = self.value()?;
        let found = value.get(member).and_then(Value::as_str).map(ToOwned::to_owned);
        found.ok_or_else(|| Error::Usage(format!("no {member} in {}", self.0)))
    }

    pub(super) fn id(&self, member: &str) -> Result<StatementId, Error> {
        Ok(self.text(member)?.parse()?)
    }

    /// All codes of a refusal.
    pub(super) fn codes(&self) -> Result<Vec<String>, Error> {
        let value = self.value()?;
        match value.get("codes") {
            Some(Value::Array(codes)) => {
                Ok(codes.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// In a list of objects, the `wanted` member of the one whose `member` is this text.
    fn find(&self, member: &str, is: &str, wanted: &str) -> Result<StatementId, Error> {
        let value = self.value()?;
        let Value::Array(items) = &value else {
            return Err(Error::Usage(format!("no list: {}", self.0)));
        };
        let text = |item: &Value<'_>, name: &str| {
            item.get(name).and_then(Value::as_str).map(ToOwned::to_owned)
        };
        let found = items
            .iter()
            .find(|item| text(item, member).as_deref() == Some(is))
            .and_then(|item| text(item, wanted));
        Ok(found.ok_or_else(|| Error::Usage(format!("no {is} in {}", self.0)))?.parse()?)
    }
}

impl<'u> Stage<'u> {
    pub(super) fn new(dir: &Path, container: bool, ui: &'u Ui) -> Result<Self, Error> {
        let program = std::env::current_exe().map_err(Error::io("custody".as_ref()))?;
        Ok(Self { dir: dir.to_owned(), program, container, ui })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn destination(&self) -> String {
        format!("file://{}", self.path("www").display())
    }

    /// Whom steps run as, where that can be chosen.
    #[expect(clippy::unused_self, reason = "it is the stage's answer")]
    pub(super) fn user(&self) -> Option<u32> {
        rustix::process::geteuid().is_root().then_some(NOBODY)
    }

    pub(super) fn title(&self, text: &str) {
        self.ui.note(&format!("\n{BOLD}{text}{BOLD:#}"));
    }

    pub(super) fn say(&self, text: &str) {
        self.ui.note(text);
    }

    /// The arguments for one signer.
    #[expect(clippy::unused_self, reason = "keys lie on the stage")]
    pub(super) fn key(&self, name: &str) -> Vec<String> {
        ["--key".into(), format!("keys/{name}"), "--store".into(), "store".into()].into()
    }

    /// The arguments for this computer standing for several machines.
    pub(super) fn machines(&self, names: &[&str]) -> Vec<String> {
        let keys = names.iter().flat_map(|name| ["--key".into(), format!("keys/{name}")]);
        let places = ["--work", "work", "--store", "store"].into_iter().map(Into::into);
        let engine = if self.container { ["--engine", image::ENGINE].as_slice() } else { &[] };
        let engine = engine.iter().map(ToString::to_string);
        keys.chain(places).chain(engine).collect()
    }

    fn spawn(&self, arguments: &[String], more: &[&str]) -> Result<Output, Error> {
        let output = Command::new(&self.program)
            .args(more)
            .args(arguments)
            .current_dir(&self.dir)
            .env("XDG_STATE_HOME", self.path("state"))
            .stdin(Stdio::null())
            .output();
        output.map_err(Error::io(&self.program))
    }

    fn typed(&self, arguments: &[String]) {
        let word =
            |word: &String| if word.contains(' ') { format!("'{word}'") } else { word.clone() };
        let words: Vec<String> = arguments.iter().map(word).collect();
        self.ui.note(&format!("{DIM}$ custody {}{DIM:#}", words.join(" ")));
    }

    /// Runs a command that must succeed.
    pub(super) fn custody(&self, words: &[&str], more: Vec<String>) -> Result<Answer, Error> {
        let arguments: Vec<String> = words.iter().map(ToString::to_string).chain(more).collect();
        self.typed(&arguments);
        self.succeed(&arguments)
    }

    /// The same without showing it.
    pub(super) fn quietly(&self, words: &[&str]) -> Result<Answer, Error> {
        self.succeed(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    fn succeed(&self, arguments: &[String]) -> Result<Answer, Error> {
        let output = self.spawn(arguments, &["--json"])?;
        let answer = Answer(String::from_utf8_lossy(&output.stdout).into_owned());
        if output.status.success() {
            return Ok(answer);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(Error::Usage(format!("custody {}\n{}{said}", arguments.join(" "), answer.0)))
    }

    /// Runs a command that must succeed and shows what it prints.
    pub(super) fn show(&self, words: &[&str]) -> Result<(), Error> {
        self.show_from(words, "")
    }

    /// The same from these words on.
    pub(super) fn show_from(&self, words: &[&str], from: &str) -> Result<(), Error> {
        let arguments: Vec<String> = words.iter().map(ToString::to_string).collect();
        self.typed(&arguments);
        let output = self.spawn(&arguments, &[])?;
        let printed = String::from_utf8_lossy(&output.stdout);
        self.ui.note(printed.get(printed.find(from).unwrap_or_default()..).unwrap_or_default());
        if output.status.success() {
            Ok(())
        } else {
            Err(Error::Usage(String::from_utf8_lossy(&output.stderr).into_owned()))
        }
    }

    /// Runs a command that must be refused with this code, and gives all codes.
    pub(super) fn refused(
        &self,
        what: &str,
        words: &[&str],
        more: Vec<String>,
        code: Code,
    ) -> Result<(), Error> {
        let arguments: Vec<String> = words.iter().map(ToString::to_string).chain(more).collect();
        let output = self.spawn(&arguments, &["--json"])?;
        let answer = Answer(String::from_utf8_lossy(&output.stdout).into_owned());
        let codes = if output.status.success() { Vec::new() } else { answer.codes()? };
        if codes.iter().any(|found| found == code.name()) {
            self.ui.note(&format!(
                "  {}refused{:#}  {:28} {what}",
                crate::ui::GOOD,
                crate::ui::GOOD,
                code.name()
            ));
            return Ok(());
        }
        let found = if codes.is_empty() { "acceptance".into() } else { codes.join(", ") };
        Err(Refusal::new(Code::ChainStepMissing, what, code.name(), found).into())
    }

    /// Runs git in the example's repository, away from the user's own settings.
    pub(super) fn git(&self, arguments: &[&str]) -> Result<String, Error> {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(self.path("source"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "Alice")))
            .envs(
                ["AUTHOR", "COMMITTER"]
                    .map(|who| (format!("GIT_{who}_EMAIL"), "alice@example.org")),
            )
            .output()
            .map_err(Error::io("git".as_ref()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::Usage(format!(
            "git {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        )))
    }

    /// The task of a step among those that `plan` printed.
    #[expect(clippy::unused_self, reason = "reads as what it is")]
    pub(super) fn task_of(&self, planned: &Answer, step: &str) -> Result<StatementId, Error> {
        planned.find("step", step, "id")
    }

    /// The manifest of a step's task.
    pub(super) fn manifest_of(&self, planned: &Answer, step: &str) -> Result<StatementId, Error> {
        let task = self.task_of(planned, step)?;
        let store = custody_store::Store::open(&self.path("store"))?;
        let run = store.run(task)?.and_then(|run| run.manifest);
        run.ok_or_else(|| Error::Usage(format!("step {step} has no manifest")))
    }
}
