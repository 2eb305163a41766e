//! The image that a step's command runs in, as the pipeline file says it: a digest, or a product of a
//! step that is among the step's inputs.

use custody_core::name::ArtifactName;
use custody_core::statement::{Image, Input, Request};
use custody_core::{Code, Refusal};
use toml::{Spanned, Value};

use super::file::Reader;
use super::template::Template;
use super::{StepInput, Upstream};

/// What may stand there.
const EXPECTED: &str = "an image with its digest, like registry.example.org/debian@sha256:…, or \
                        { step = \"docker-image\", artifact = \"image.tar\" }";

#[derive(Clone, Debug)]
pub(super) enum StepImage {
    /// By its digest.
    Named(Image),
    /// An archive among the inputs from this step.
    Made { step: String, artifact: Template },
}

impl StepImage {
    pub(super) fn read(
        value: &Spanned<Value>,
        inputs: &[StepInput],
        reader: &Reader<'_>,
    ) -> Result<Self, Refusal> {
        let refuse = |found: &str| Err(reader.refuse(&value.span(), EXPECTED, found));
        match value.get_ref() {
            Value::String(text) => {
                let image = text.parse().map(Self::Named);
                image.map_err(|refusal: Refusal| refusal.within(&reader.place(&value.span())))
            }
            Value::Table(table) => {
                let text = |name| table.get(name).and_then(Value::as_str);
                let (2, Some(step), Some(artifact)) = (table.len(), text("step"), text("artifact"))
                else {
                    return refuse("another table");
                };
                if !inputs.iter().any(|input| input.is_from(step)) {
                    let found = format!("step {step}, of which nothing is among the inputs");
                    return refuse(&found);
                }
                let artifact = Template::parse(artifact, reader.place(&value.span()))?;
                artifact.check::<ArtifactName>()?;
                Ok(Self::Made { step: step.to_owned(), artifact })
            }
            other => refuse(other.type_str()),
        }
    }

    /// The task's, with these inputs: of the step as the file has them, and as they are resolved.
    pub(super) fn resolve(
        &self,
        request: &Request,
        inputs: &[StepInput],
        resolved: &[Input],
    ) -> Result<Image, Refusal> {
        let (step, template) = match self {
            Self::Named(image) => return Ok(image.clone()),
            Self::Made { step, artifact } => (step, artifact),
        };
        let artifact: ArtifactName = template.resolve_to(request)?;
        let mut places = inputs
            .iter()
            .zip(resolved)
            .filter(|(from, input)| {
                from.is_from(step) && input.patterns.iter().any(|it| it.matches(&artifact))
            })
            .map(|(_, input)| format!("{}/{artifact}", input.directory));
        let refuse = |found: String| {
            let expected = format!("one input from step {step} with {artifact}");
            Err(Refusal::new(Code::ArtMissing, template.place(), expected, found))
        };
        match (places.next(), places.next()) {
            (Some(place), None) => Ok(Image::Input(place.parse()?)),
            (Some(one), Some(other)) => refuse(format!("{one} and {other}")),
            (None, _) => refuse("none".to_owned()),
        }
    }
}

impl StepInput {
    fn is_from(&self, step: &str) -> bool {
        let (Upstream::Step(from) | Upstream::Earlier(from)) = &self.from;
        from.as_str() == step
    }
}
