//! The file that was asked about.

use alloc::format;
use alloc::string::{String, ToString};

use custody_core::envelope::StatementId;
use custody_core::statement::Artifact;
use custody_core::{Code, Refusal};

use crate::docket::Case;
use crate::judge::shown;
use crate::walk::File;

/// The artifact that the file is, if the manifest lists it by name, size and every digest.
pub(crate) fn explained<'m>(
    case: &'m Case<'_>,
    manifest: Option<StatementId>,
    file: &File<'_>,
) -> Result<&'m Artifact, Refusal> {
    let File { name, digests, size } = *file;
    let at = format!("file {}", shown(name));
    let named =
        |artifact: &&Artifact| artifact.name.as_str() == name || artifact.name.file_name() == name;
    let Some(id) = manifest else {
        // what was published under the name is what the file's holder expects
        let known = case.manifests().filter_map(|(id, manifest)| {
            Some((id, manifest, manifest.artifacts.iter().find(named)?))
        });
        let known = known.max_by_key(|(id, manifest, _)| (manifest.destination.is_some(), *id));
        return Err(match known {
            Some((id, manifest, artifact)) => {
                let by = format!(
                    "sha256 {}, as step {} made it (manifest {})",
                    artifact.digests.sha256,
                    manifest.step,
                    id.short()
                );
                Refusal::new(Code::ArtDigestMismatch, at, by, format!("sha256 {}", digests.sha256))
            }
            None => Refusal::new(
                Code::ChainStepMissing,
                at,
                "a manifest that lists it",
                "none among the evidence",
            ),
        });
    };
    let same_digest = || {
        let makers = case.makers(digests.sha256);
        makers.filter(|(signed, ..)| signed.id() == id).map(|(_, _, artifact)| artifact)
    };
    let artifact = same_digest().find(named).ok_or_else(|| {
        let known =
            same_digest().next().map_or_else(String::new, |artifact| artifact.name.to_string());
        Refusal::new(Code::ArtUnlisted, at.clone(), format!("the name {known}"), shown(name))
    })?;
    if artifact.size != size {
        return Err(Refusal::new(
            Code::ArtSizeMismatch,
            at,
            format!("{} bytes", artifact.size),
            format!("{size} bytes"),
        ));
    }
    if !artifact.digests.agree(digests) {
        return Err(Refusal::new(
            Code::ArtDigestMismatch,
            at,
            format!("{:?}", artifact.digests),
            format!("{digests:?}"),
        ));
    }
    Ok(artifact)
}
