//! The image that a step ran in: the task's, and one that the policy allows.

use alloc::format;
use alloc::string::{String, ToString};

use custody_core::statement::{Image, InputOrigin, Manifest, Origin, Statement, Task, UsedImage};
use custody_core::{Code, Refusal};

use crate::docket::Case;
use crate::judge::shown;
use crate::policy::demand::either;
use crate::policy::{AllowedImage, Step};

/// The image in a sentence.
pub(super) fn used_image(image: &UsedImage) -> String {
    let manifest =
        image.manifest.map_or_else(String::new, |digest| format!(", manifest sha256:{digest}"));
    let (name, platform) = (shown(&image.name), shown(&image.platform));
    format!("{name} for {platform}, image sha256:{}{manifest}", image.id)
}

/// The image is the task's: by digest, or as an archive among the inputs that were used. It is one of the
/// policy's too.
pub(super) fn check(
    case: &Case<'_>,
    manifest: &Manifest,
    task: &Task,
    step: &Step,
) -> Result<(), Refusal> {
    let same = match (&task.image, &manifest.image) {
        (None, None) => true,
        (Some(Image::Named { digest, .. }), Some(used)) => used.is(digest),
        (Some(Image::Input(place)), Some(used)) => used.name == place.as_str(),
        _ => false,
    };
    let allowed = match (&step.images, &manifest.image) {
        (None, None) => true,
        (Some(images), Some(used)) => images.iter().any(|image| match image {
            AllowedImage::Digest(digest) => used.is(digest),
            // which step the archive is of, the task's own rules say
            AllowedImage::Step(_) => matches!(task.image, Some(Image::Input(_))),
        }),
        _ => false,
    };
    let at = format!("manifest of step {}, image", manifest.step);
    let refuse = |expected: String, found: String| {
        Err(Refusal::new(Code::WorkerImageMismatch, at, expected, found))
    };
    let found = || manifest.image.as_ref().map_or_else(|| "no image".into(), used_image);
    if !same {
        let asked = task.image.as_ref().map_or_else(|| "no image".into(), ToString::to_string);
        return refuse(asked, found());
    }
    if !allowed {
        let listed = step.images.as_ref();
        let listed = listed.map_or_else(|| "no image".into(), |images| either(images.iter()));
        return refuse(listed, found());
    }
    match &task.image {
        Some(image @ Image::Input(_)) if !is_used(case, manifest, task, image) => {
            let expected = format!("{image}, among the inputs that were used");
            refuse(expected, "no such input".into())
        }
        _ => Ok(()),
    }
}

/// Whether the archive is a file that the step used, from where the task takes its image.
fn is_used(case: &Case<'_>, manifest: &Manifest, task: &Task, image: &Image) -> bool {
    let Image::Input(place) = image else { return false };
    task.inputs.iter().filter(|input| input.gives(place)).any(|input| {
        manifest.inputs.iter().any(|used| {
            let InputOrigin::Manifest(id) = &used.origin else { return false };
            let is_its = || match input.origin {
                Origin::Manifest(origin) => *id == origin,
                Origin::Task(origin) => case
                    .statement(*id, "manifest", Statement::as_manifest)
                    .is_ok_and(|made| made.unverified().task == origin),
            };
            format!("{}/{}", input.directory, used.artifact.name) == place.as_str() && is_its()
        })
    })
}
