//! Container images: which one a task wants, and which one a step ran in.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use super::parts::Descriptor;
use crate::digest::Sha256;
use crate::json::Value;
use crate::name::ArtifactName;
use crate::{Code, Refusal};

/// The image that a task's command is to be run in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Image {
    /// One that the engine has or can fetch. Only the digest counts: it is the image's id (of its
    /// configuration) or that of its manifest. The name says where to fetch it, and has no tag.
    Named {
        /// Registry and repository, like `registry.example.org/debian`.
        name: String,
        /// The digest.
        digest: Sha256,
    },
    /// A product of an earlier step: an archive at this place under `inputs/`.
    Input(ArtifactName),
}

impl FromStr for Image {
    type Err = Refusal;

    /// Reads `NAME@sha256:DIGEST`.
    fn from_str(text: &str) -> Result<Self, Refusal> {
        let Some((name, digest)) = text.split_once("@sha256:") else {
            let shown: String = text.escape_default().take(120).collect();
            let expected = "an image with its digest, like registry.example.org/debian@sha256:…";
            return Err(Refusal::new(Code::ParseFieldType, "", expected, shown));
        };
        check_name(name)?;
        Ok(Self::Named { name: name.to_owned(), digest: digest.parse()? })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, digest } => write!(f, "{name}@sha256:{digest}"),
            Self::Input(place) => write!(f, "inputs/{place}"),
        }
    }
}

impl Image {
    pub(super) fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        if value.get("input").is_some() {
            let mut object = value.into_object(at)?;
            let input = object.parsed("input")?;
            object.finish()?;
            return Ok(Self::Input(input));
        }
        let descriptor = Descriptor::read_closed(value, at, &[])?;
        let name = descriptor.name.as_deref().unwrap_or_default().to_owned();
        check_name(&name).map_err(|refusal| refusal.within(&format!("{at}.name")))?;
        if descriptor.uri.is_some() || descriptor.digest.len() > 1 {
            let expected = "a name and its sha256";
            return Err(Refusal::new(Code::ParseUnknownField, at, expected, "more"));
        }
        Ok(Self::Named { name, digest: descriptor.digests(at)?.sha256 })
    }

    pub(super) fn write(&self) -> Value<'static> {
        match self {
            Self::Named { name, digest } => {
                let digest = Vec::from([(Sha256::ALGORITHM.into(), digest.to_string().into())]);
                Descriptor { digest, ..Descriptor::named(name) }.write()
            }
            Self::Input(place) => Value::object([("input", Value::text(place))]),
        }
    }
}

/// Names are data for an engine: a repository, and neither a tag nor a digest, which could say something
/// else than the digest beside it.
fn check_name(name: &str) -> Result<(), Refusal> {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphanumeric())
            && part.ends_with(|c: char| c.is_ascii_alphanumeric())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (host, rest) = name.split_once('/').unwrap_or(("", name));
    let host_is_one = match host.split_once(':') {
        _ if host.is_empty() => !name.starts_with('/'),
        None => is_part(host),
        Some((host, port)) => is_part(host) && port.parse::<u16>().is_ok(),
    };
    if name.len() <= 255 && host_is_one && rest.split('/').all(is_part) {
        return Ok(());
    }
    let shown: String = name.escape_default().take(120).collect();
    let expected = "a repository without tag, like registry.example.org/debian";
    Err(Refusal::new(Code::ParseFieldType, "", expected, shown))
}

/// The image that a step ran in, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedImage {
    /// What the task calls it: its name, or the place of the archive.
    pub name: String,
    /// The image's id: the digest of its configuration.
    pub id: Sha256,
    /// The digest of its manifest, where the engine knows one.
    pub manifest: Option<Sha256>,
    /// System and processor, like `linux/amd64`.
    pub platform: String,
}

impl UsedImage {
    /// Whether it is the image of this digest.
    pub fn is(&self, digest: &Sha256) -> bool {
        self.id == *digest || self.manifest.as_ref() == Some(digest)
    }

    pub(super) fn from_descriptor(descriptor: &Descriptor<'_>, at: &str) -> Result<Self, Refusal> {
        let text = |name| descriptor.annotation(name).and_then(Value::as_str);
        let manifest = text("manifestDigest").map(str::parse).transpose();
        let platform = text("platform").ok_or_else(|| {
            let place = format!("{at}.annotations.platform");
            Refusal::new(Code::ParseFieldMissing, place, "system and processor", "nothing")
        })?;
        Ok(Self {
            name: descriptor.name.as_deref().unwrap_or_default().to_owned(),
            id: descriptor.digests(at)?.sha256,
            manifest: manifest.map_err(|refusal: Refusal| refusal.within(at))?,
            platform: platform.to_owned(),
        })
    }

    pub(super) fn to_descriptor(&self) -> Descriptor<'_> {
        let manifest = self.manifest.map(|digest| ("manifestDigest".into(), Value::text(digest)));
        let platform = ("platform".into(), Value::text(&self.platform));
        Descriptor {
            digest: Vec::from([(Sha256::ALGORITHM.into(), self.id.to_string().into())]),
            annotations: manifest.into_iter().chain([platform]).collect(),
            ..Descriptor::named(&self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_named_by_repositories() {
        for good in [
            "debian",
            "library/debian",
            "registry.example.org/debian",
            "registry.example.org:5000/a/b_c.d-e",
            &format!("r/{}", "x".repeat(253)),
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/",
            "/debian",
            "debian/",
            "a//b",
            "debian:12",
            "registry.example.org/debian:12",
            "registry.example.org/debian@sha256",
            "host:port/debian",
            "host:70000/debian",
            ":5000/debian",
            "-a",
            "a-",
            "a/-b",
            "a/b-",
            "a b",
            "a/b c",
            "-/a",
            &format!("r/{}", "x".repeat(254)),
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
