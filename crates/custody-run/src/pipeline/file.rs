//! The TOML of a pipeline: its shape, and the rules that hold between its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::str::FromStr;

use custody_core::digest::Digests;
use custody_core::json::Value;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{Artifact, External, Label, Limits};
use custody_core::{Code, Refusal};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;

use super::downloads::{DownloadsTable, StepDownloads};
use super::image::StepImage;
use super::limits::LimitsTable;
use super::template::Template;
use super::{PIPELINE_TYPE, Pipeline, Step, StepInput, Upstream};
use crate::execute::may_be_set;

/// How refusals call the file.
pub(super) const NAME: &str = "pipeline.toml";

/// The directory under `inputs/` that externals have.
const EXTERNALS: &str = "external";

/// A day.
const DEADLINE: u64 = 86_400;

pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTable {
    pipeline: Text,
    steps: BTreeMap<Text, StepTable>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepTable {
    phase: Text,
    #[serde(default)]
    command: Vec<Text>,
    destination: Option<Text>,
    #[serde(default)]
    variables: BTreeMap<Text, Text>,
    #[serde(default)]
    network: bool,
    image: Option<Spanned<toml::Value>>,
    limits: Option<LimitsTable>,
    downloads: Option<Spanned<DownloadsTable>>,
    #[serde(default)]
    source: bool,
    #[serde(default)]
    sha512: bool,
    #[serde(default)]
    outputs: Vec<Text>,
    #[serde(default)]
    inputs: Vec<Spanned<InputTable>>,
    #[serde(default)]
    externals: Vec<Spanned<ExternalTable>>,
    deadline: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputTable {
    step: Option<Text>,
    earlier: Option<Text>,
    directory: Option<Text>,
    artifacts: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExternalTable {
    name: Text,
    uri: Text,
    sha256: Text,
    sha512: Option<Text>,
    size: u64,
}

pub(super) fn read(text: &str) -> Result<Pipeline, Refusal> {
    let reader = Reader { name: NAME, text };
    let table: FileTable = reader.table("a pipeline in TOML")?;
    if table.pipeline.get_ref() != PIPELINE_TYPE {
        return Err(reader.refuse(&table.pipeline.span(), PIPELINE_TYPE, table.pipeline.get_ref()));
    }
    let mut steps = Vec::new();
    for (name, table) in &table.steps {
        let place = reader.place(&name.span());
        steps.push((reader.step(name, table)?, place));
    }
    check_origins(&steps)?;
    Ok(Pipeline { steps: in_order(steps)? })
}

/// A TOML file, and how refusals call it.
pub(super) struct Reader<'a> {
    pub(super) name: &'a str,
    pub(super) text: &'a str,
}

impl Reader<'_> {
    /// The shape, before any rule.
    pub(super) fn table<T: DeserializeOwned>(&self, kind: &str) -> Result<T, Refusal> {
        toml::from_str(self.text).map_err(|error| self.shape(&error, kind))
    }

    pub(super) fn place(&self, span: &Range<usize>) -> String {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.name)
    }

    pub(super) fn refuse(&self, span: &Range<usize>, expected: &str, found: &str) -> Refusal {
        let found: String = found.escape_debug().take(120).collect();
        Refusal::new(Code::ParseFieldType, self.place(span), expected, found)
    }

    /// The refusal for what the TOML reader found wrong.
    fn shape(&self, error: &toml::de::Error, kind: &str) -> Refusal {
        let message = error.message();
        let code = match message {
            _ if message.starts_with("unknown field") => Code::ParseUnknownField,
            _ if message.starts_with("missing field") => Code::ParseFieldMissing,
            _ if message.starts_with("duplicate key") => Code::ParseDuplicateKey,
            _ => Code::ParseFieldType,
        };
        let (found, expected) = message.split_once(", expected ").unwrap_or((message, kind));
        let refusal = self.refuse(&error.span().unwrap_or_default(), expected, found);
        Refusal { code, ..refusal }
    }

    pub(super) fn parsed<T: FromStr<Err = Refusal>>(&self, text: &Text) -> Result<T, Refusal> {
        let place = |refusal: Refusal| refusal.within(&self.place(&text.span()));
        text.get_ref().parse().map_err(place)
    }

    fn template(&self, text: &Text) -> Result<Template, Refusal> {
        Template::parse(&self.shown(text)?, self.place(&text.span()))
    }

    /// Text as statements may hold it: what nobody sees in the file must not be in a task either, which
    /// nobody would read again.
    pub(super) fn shown(&self, text: &Text) -> Result<String, Refusal> {
        Value::text(text.get_ref()).into_text(&self.place(&text.span()))
    }

    fn patterns(&self, list: &[Text]) -> Result<Vec<Template>, Refusal> {
        let checked = |text| {
            let template = self.template(text)?;
            template.check::<Pattern>()?;
            Ok(template)
        };
        list.iter().map(checked).collect()
    }

    fn step(&self, name: &Text, table: &StepTable) -> Result<Step, Refusal> {
        self.check_kind(name, table)?;
        let inputs = self.inputs(&table.inputs)?;
        let image = table.image.as_ref();
        Ok(Step {
            name: self.parsed(name)?,
            phase: self.parsed(&table.phase)?,
            command: table
                .command
                .iter()
                .map(|text| self.template(text))
                .collect::<Result<_, _>>()?,
            destination: table.destination.as_ref().map(|text| self.template(text)).transpose()?,
            variables: table
                .variables
                .iter()
                .map(|(name, value)| self.variable(name, value))
                .collect::<Result<_, _>>()?,
            network: table.network,
            image: image.map(|image| StepImage::read(image, &inputs, self)).transpose()?,
            downloads: StepDownloads::read(self, table.downloads.as_ref(), table.network)?,
            limits: table
                .limits
                .as_ref()
                .map_or(Ok(Limits::default()), |limits| limits.read(self))?,
            source: table.source,
            sha512: table.sha512,
            outputs: self.patterns(&table.outputs)?,
            inputs,
            externals: self.externals(&table.externals)?,
            deadline: table.deadline.as_ref().map_or(Ok(DEADLINE), |text| self.duration(text))?,
        })
    }

    /// A step either runs a command, which makes something, or publishes what it is given.
    fn check_kind(&self, name: &Text, table: &StepTable) -> Result<(), Refusal> {
        let runs = !table.command.is_empty();
        let refuse = |expected, found| Err(self.refuse(&name.span(), expected, found));
        match (runs, &table.destination) {
            (true, Some(_)) => refuse("a command or a destination", "both"),
            (false, None) => refuse("a command or a destination", "neither"),
            (true, None) if table.outputs.is_empty() => refuse("outputs", "none"),
            (false, Some(_)) if table.inputs.is_empty() => refuse("inputs to publish", "none"),
            (false, Some(_))
                if table.source
                    || table.network
                    || table.image.is_some()
                    || table.limits.is_some()
                    || table.downloads.is_some()
                    || !table.outputs.is_empty()
                    || !table.variables.is_empty()
                    || !table.externals.is_empty() =>
            {
                refuse("a destination beside inputs only", "what belongs to a command")
            }
            _ => Ok(()),
        }
    }

    fn variable(&self, name: &Text, value: &Text) -> Result<(String, Template), Refusal> {
        if !may_be_set(name.get_ref()) {
            let expected = "a name of letters, digits and _ other than HOME and TMPDIR";
            return Err(self.refuse(&name.span(), expected, name.get_ref()));
        }
        Ok((name.get_ref().clone(), self.template(value)?))
    }

    fn inputs(&self, tables: &[Spanned<InputTable>]) -> Result<Vec<StepInput>, Refusal> {
        let mut directories = BTreeSet::from([EXTERNALS.to_owned()]);
        let mut inputs = Vec::new();
        for spanned in tables {
            let (table, place) = (spanned.get_ref(), self.place(&spanned.span()));
            let (from, step) = match (&table.step, &table.earlier) {
                (Some(step), None) => (Upstream::Step(self.parsed(step)?), step),
                (None, Some(step)) => (Upstream::Earlier(self.parsed(step)?), step),
                _ => {
                    let found = "neither or both";
                    return Err(self.refuse(&spanned.span(), "one of step and earlier", found));
                }
            };
            let directory: ArtifactName = self.parsed(table.directory.as_ref().unwrap_or(step))?;
            if !directories.insert(directory.folded()) {
                let expected = "a directory of its own for each input, other than external";
                let found = directory.as_str();
                return Err(Refusal::new(Code::ArtNameCollision, place, expected, found));
            }
            if table.artifacts.is_empty() {
                return Err(self.refuse(&spanned.span(), "artifacts", "none"));
            }
            let artifacts = self.patterns(&table.artifacts)?;
            inputs.push(StepInput { from, directory, artifacts, place });
        }
        Ok(inputs)
    }

    fn externals(&self, tables: &[Spanned<ExternalTable>]) -> Result<Vec<External>, Refusal> {
        let mut names = BTreeSet::new();
        let mut externals = Vec::new();
        for spanned in tables {
            let table = spanned.get_ref();
            let name: ArtifactName = self.parsed(&table.name)?;
            if !names.insert(name.folded()) {
                let (at, found) = (self.place(&spanned.span()), name.as_str());
                return Err(Refusal::new(Code::ArtNameCollision, at, "a name of its own", found));
            }
            let digests = Digests {
                sha256: self.parsed(&table.sha256)?,
                sha512: table.sha512.as_ref().map(|text| self.parsed(text)).transpose()?,
            };
            let artifact = Artifact { name, digests, size: table.size };
            externals.push(External { artifact, uri: self.shown(&table.uri)? });
        }
        Ok(externals)
    }

    fn duration(&self, text: &Text) -> Result<u64, Refusal> {
        let seconds = |unit| match unit {
            's' => Some(1),
            'm' => Some(60),
            'h' => Some(3_600),
            'd' => Some(86_400),
            _ => None,
        };
        let parsed = || {
            let (number, unit) =
                text.get_ref().split_at_checked(text.get_ref().len().checked_sub(1)?)?;
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let number: u64 = number.parse().ok().filter(|&number| digits && number > 0)?;
            number.checked_mul(seconds(unit.chars().next()?)?)
        };
        parsed().ok_or_else(|| {
            self.refuse(&text.span(), "a time like 90s, 30m, 2h or 7d", text.get_ref())
        })
    }
}

/// Inputs of the same phase must come from its steps.
fn check_origins(steps: &[(Step, String)]) -> Result<(), Refusal> {
    let phases: BTreeMap<&Label, &Label> =
        steps.iter().map(|(step, _)| (&step.name, &step.phase)).collect();
    for (step, _) in steps {
        for input in &step.inputs {
            let Upstream::Step(from) = &input.from else { continue };
            if phases.get(from) != Some(&&step.phase) {
                let expected = format!(
                    "a step of phase {} (or earlier = {from:?})",
                    step.phase.as_str(),
                    from = from.as_str()
                );
                let (at, found) = (input.place.clone(), from.as_str());
                return Err(Refusal::new(Code::ParseFieldType, at, expected, found));
            }
        }
    }
    Ok(())
}

/// The steps so that each stands after those that it takes inputs from, otherwise by name.
fn in_order(mut waiting: Vec<(Step, String)>) -> Result<Vec<Step>, Refusal> {
    let mut ordered: Vec<Step> = Vec::new();
    let mut placed = BTreeSet::new();
    while !waiting.is_empty() {
        let is_ready = |(step, _): &(Step, String)| {
            step.inputs.iter().all(|input| match &input.from {
                Upstream::Step(from) => placed.contains(from),
                Upstream::Earlier(_) => true,
            })
        };
        let (ready, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_ready);
        if ready.is_empty() {
            let names: Vec<&str> = rest.iter().map(|(step, _)| step.name.as_str()).collect();
            let place = rest.first().map(|(_, place)| place.as_str()).unwrap_or_default();
            let found = format!("a circle in or before {}", names.join(", "));
            return Err(Refusal::new(Code::ChainCycle, place, "steps that end somewhere", found));
        }
        placed.extend(ready.iter().map(|(step, _)| step.name.clone()));
        ordered.extend(ready.into_iter().map(|(step, _)| step));
        waiting = rest;
    }
    Ok(ordered)
}
