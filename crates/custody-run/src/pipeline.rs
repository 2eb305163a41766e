//! The pipeline file: which steps a release has, in the source tree where people review it.
//!
//! It is closed (what is not defined is refused, with line and column), and it decides nothing by
//! itself: tasks are made from it for one request, and the policy judges them.
//!
//! ```toml
//! pipeline = "https://custody.dev/pipeline/v1"
//!
//! [steps.partial]
//! phase = "promote"
//! command = ["sh", "source/scripts/partial.sh", "{version}"]   # or destination, to publish inputs
//! outputs = ["out/*"]
//! variables = { PRODUCT = "{product}", LEVEL = "{param.level}" }
//! source = true                              # these three are false by default
//! network = false
//! sha512 = false
//! deadline = "1d"                            # the default; s, m, h or d
//! image = "registry.example.org/debian@sha256:ba78…15ad"      # the machine itself by default; or
//! # image = { step = "docker-image", artifact = "image.tar" } # an archive among the inputs
//! limits = { memory = "2G", processes = 100, output = "1G" }   # the machine's own by default
//!
//! [[steps.partial.inputs]]
//! step = "build"                             # of the same phase
//! directory = "build"                        # under inputs/; by default the step's name
//! artifacts = ["dist/*.tar"]
//!
//! [[steps.partial.inputs]]
//! earlier = "build"                          # of an earlier phase or another release
//! directory = "previous"
//! artifacts = ["dist/*.tar"]
//!
//! [[steps.partial.externals]]                # at inputs/external/NAME
//! name = "tool.bin"
//! uri = "https://example.org/tool.bin"
//! sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
//! size = 3
//!
//! [steps.partial.downloads]                  # through the worker's proxy, instead of a network
//! from = ["https://index.crates.io/", "https://static.crates.io/"]
//! lock = "downloads.toml"                    # or [[steps.partial.downloads.pinned]], or record = true
//! ```

mod downloads;
mod file;
mod image;
mod limits;
mod template;

use std::collections::{BTreeMap, BTreeSet};

use custody_core::envelope::StatementId;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{
    External, Input, Label, Limits, Manifest, Origin, Request, Statement, Task,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};

use self::downloads::StepDownloads;
use self::image::StepImage;
use self::template::Template;

pub use self::downloads::write_lock;

/// What stands as `pipeline` at the head of the file.
pub const PIPELINE_TYPE: &str = "https://custody.dev/pipeline/v1";

/// A pipeline whose parts fit together.
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// Every step stands after the steps of its phase that it takes inputs from.
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Step {
    name: Label,
    phase: Label,
    /// Empty for a step that publishes, which has a destination.
    command: Vec<Template>,
    destination: Option<Template>,
    variables: BTreeMap<String, Template>,
    network: bool,
    image: Option<StepImage>,
    downloads: Option<StepDownloads>,
    limits: Limits,
    source: bool,
    sha512: bool,
    outputs: Vec<Template>,
    inputs: Vec<StepInput>,
    externals: Vec<External>,
    /// Seconds from planning to the last moment at which the run may start.
    deadline: u64,
}

#[derive(Clone, Debug)]
struct StepInput {
    from: Upstream,
    directory: ArtifactName,
    artifacts: Vec<Template>,
    place: String,
}

#[derive(Clone, Debug)]
enum Upstream {
    /// A step of the same phase.
    Step(Label),
    /// A manifest that the request builds on, by the step that made it.
    Earlier(Label),
}

impl Pipeline {
    /// Reads a pipeline file (TOML). A refusal says where, as `pipeline.toml:LINE:COLUMN`.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        file::read(text)
    }

    /// The files of the same commit that hold the pins of downloads.
    pub fn locks(&self) -> BTreeSet<&ArtifactName> {
        let downloads = self.steps.iter().filter_map(|step| step.downloads.as_ref());
        downloads.filter_map(StepDownloads::lock).collect()
    }

    /// Puts in the pins that one of the [`locks`](Self::locks) has.
    pub fn lock(&mut self, path: &ArtifactName, text: &str) -> Result<(), Refusal> {
        let pinned = downloads::read_lock(path.as_str(), text)?;
        for downloads in self.steps.iter_mut().filter_map(|step| step.downloads.as_mut()) {
            downloads.fill(path, &pinned)?;
        }
        Ok(())
    }

    /// The phases that have steps.
    pub fn phases(&self) -> BTreeSet<&Label> {
        self.steps.iter().map(|step| &step.phase).collect()
    }

    /// Makes the tasks of the request's phase, each after those that it takes inputs from. `now` is
    /// when they are made, and every call of `nonce` gives 32 other hexadecimal digits. No deadline
    /// is later than the request's end.
    ///
    /// `earlier` has the manifests that the request builds on. An input from an earlier step must be
    /// explained by exactly one of them: [`Code::ChainStepMissing`] if there is none, [`Code::ChainForked`] if there are
    /// several, [`Code::ArtMissing`] if one of the patterns selects nothing.
    pub fn plan(
        &self,
        request: &Request,
        earlier: &[(StatementId, Manifest)],
        authorization: StatementId,
        creator: &str,
        now: Time,
        mut nonce: impl FnMut() -> String,
    ) -> Result<Vec<Task>, Refusal> {
        let mut ids: BTreeMap<&Label, StatementId> = BTreeMap::new();
        let mut tasks = Vec::new();
        for step in self.steps.iter().filter(|step| step.phase == request.phase) {
            let inputs =
                all(step.inputs.iter().map(|input| input.resolve(request, earlier, &ids)))?;
            let image = step.image.as_ref();
            let variables = step.variables.iter();
            let task = Task {
                authorization,
                step: step.name.clone(),
                creator: creator.to_owned(),
                command: all(step.command.iter().map(|word| word.resolve(request)))?,
                image: image.map(|it| it.resolve(request, &step.inputs, &inputs)).transpose()?,
                limits: step.limits,
                destination: step.destination.as_ref().map(|to| to.resolve(request)).transpose()?,
                variables: all(
                    variables.map(|(name, value)| Ok((name.clone(), value.resolve(request)?)))
                )?,
                network: step.network,
                downloads: step.downloads.as_ref().map(StepDownloads::resolve).transpose()?,
                inputs,
                source: step.source.then(|| request.source.clone()),
                externals: step.externals.clone(),
                outputs: match &step.destination {
                    // what goes in comes out, each under its own file name
                    Some(_) => vec!["*".parse()?],
                    None => all(step.outputs.iter().map(|pattern| pattern.resolve_to(request)))?,
                },
                sha512: step.sha512,
                created: now,
                deadline: now.plus(step.deadline).min(request.expires),
                nonce: nonce(),
            };
            ids.insert(&step.name, Statement::from(task.clone()).to_envelope().id());
            tasks.push(task);
        }
        if tasks.is_empty() {
            let expected = format!("a step of phase {}", request.phase);
            return Err(Refusal::new(Code::ParseFieldMissing, file::NAME, expected, "none"));
        }
        Ok(tasks)
    }
}

fn all<T>(items: impl Iterator<Item = Result<T, Refusal>>) -> Result<Vec<T>, Refusal> {
    items.collect()
}

impl StepInput {
    fn resolve(
        &self,
        request: &Request,
        earlier: &[(StatementId, Manifest)],
        ids: &BTreeMap<&Label, StatementId>,
    ) -> Result<Input, Refusal> {
        let patterns = all(self.artifacts.iter().map(|pattern| pattern.resolve_to(request)))?;
        let origin = match &self.from {
            Upstream::Step(step) => ids.get(step).copied().map(Origin::Task).ok_or_else(|| {
                Refusal::new(Code::ChainStepMissing, &self.place, format!("step {step}"), "none")
            }),
            Upstream::Earlier(step) => {
                one_earlier(earlier, step, &patterns).map_err(|refusal| refusal.within(&self.place))
            }
        };
        Ok(Input { origin: origin?, directory: self.directory.clone(), patterns })
    }
}

/// The one manifest of the step that has what the patterns select.
fn one_earlier(
    earlier: &[(StatementId, Manifest)],
    step: &Label,
    patterns: &[Pattern],
) -> Result<Origin, Refusal> {
    let selects = |manifest: &Manifest, pattern: &Pattern| {
        manifest.artifacts.iter().any(|artifact| pattern.matches(&artifact.name))
    };
    let mut fitting = earlier.iter().filter(|(_, manifest)| {
        manifest.step == *step && patterns.iter().any(|pattern| selects(manifest, pattern))
    });
    let refuse = |code, found: &str| {
        let expected = format!("one manifest of step {step}, with such artifacts, in the request");
        Err(Refusal::new(code, "", expected, found))
    };
    let Some((id, manifest)) = fitting.next() else {
        return refuse(Code::ChainStepMissing, "none");
    };
    if fitting.next().is_some() {
        return refuse(Code::ChainForked, "several");
    }
    match patterns.iter().find(|pattern| !selects(manifest, pattern)) {
        Some(pattern) => refuse(Code::ArtMissing, &format!("nothing like {pattern}")),
        None => Ok(Origin::Manifest(*id)),
    }
}
