//! What several statements are made of.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::digest::{Digests, Sha256, Sha512};
use crate::encoding::hex_decode;
use crate::envelope::StatementId;
use crate::json::{Object, Value};
use crate::name::ArtifactName;
use crate::{Code, Refusal};

/// A short name: of a product, version, channel, instance, phase, step, person, machine or role.
/// 1 to 100 of letters, digits and `. _ - + @`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

impl Label {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Label {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@".contains(c);
        let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if starts_well && text.len() <= 100 && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.escape_default().take(60).collect();
        Err(Refusal::new(
            Code::ParseFieldType,
            "",
            "a short name of letters, digits and . _ - + @",
            format!("{shown:?}"),
        ))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which release this is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReleaseId {
    /// The product.
    pub product: Label,
    /// Its version.
    pub version: Label,
    /// The channel that its users follow.
    pub channel: Label,
    /// Production or staging, or however the policy calls its instance.
    pub instance: Label,
}

impl ReleaseId {
    pub(crate) fn read(object: &mut Object<'_>) -> Result<Self, Refusal> {
        Ok(Self {
            product: object.parsed("product")?,
            version: object.parsed("version")?,
            channel: object.parsed("channel")?,
            instance: object.parsed("instance")?,
        })
    }

    pub(crate) fn write(&self) -> Value<'static> {
        Value::object([
            ("product", Value::text(&self.product)),
            ("version", Value::text(&self.version)),
            ("channel", Value::text(&self.channel)),
            ("instance", Value::text(&self.instance)),
        ])
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({}, {})", self.product, self.version, self.channel, self.instance)
    }
}

/// A revision of a source tree: always the id of its content, never a branch or tag.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revision {
    /// A git commit: 40 hexadecimal digits, or 64 in a SHA-256 repository.
    Git(String),
    /// A Mercurial changeset: 40 hexadecimal digits.
    Mercurial(String),
}

impl Revision {
    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Git(_) => "gitCommit",
            Self::Mercurial(_) => "hgChangeset",
        }
    }

    /// The hexadecimal id.
    pub fn id(&self) -> &str {
        match self {
            Self::Git(id) | Self::Mercurial(id) => id,
        }
    }
}

/// Where the source is, and which of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// The repository. Compared byte for byte with the policy's.
    pub uri: String,
    /// The revision.
    pub revision: Revision,
}

impl Source {
    pub(crate) fn from_descriptor(descriptor: Descriptor, at: &str) -> Result<Self, Refusal> {
        let digest = |algorithm| {
            descriptor
                .digest
                .iter()
                .find(|(name, _)| name == algorithm)
                .map(|(_, value)| value.clone())
        };
        let revision = match (digest("gitCommit"), digest("hgChangeset")) {
            (Some(id), None) => Revision::Git(id),
            (None, Some(id)) => Revision::Mercurial(id),
            _ => {
                return Err(Refusal::new(
                    Code::StmtDigestMissing,
                    at,
                    "one of gitCommit and hgChangeset",
                    "neither or both",
                ));
            }
        };
        let bytes = hex_decode(revision.id()).map(|bytes| bytes.len());
        if bytes != Some(20) && !(bytes == Some(32) && matches!(revision, Revision::Git(_))) {
            return Err(Refusal::new(
                Code::StmtDigestFormat,
                at,
                "a whole revision id in lower case",
                revision.id(),
            ));
        }
        let uri = descriptor.uri.ok_or_else(|| {
            Refusal::new(Code::ParseFieldMissing, format!("{at}.uri"), "this member", "nothing")
        })?;
        Ok(Self { uri, revision })
    }

    pub(crate) fn to_descriptor(&self) -> Descriptor {
        Descriptor {
            uri: Some(self.uri.clone()),
            digest: Vec::from([(
                self.revision.algorithm().to_owned(),
                self.revision.id().to_owned(),
            )]),
            ..Descriptor::named("source")
        }
    }

    pub(crate) fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        Self::from_descriptor(Descriptor::read_closed(value, at, &[])?, at)
    }

    pub(crate) fn write(&self) -> Value<'static> {
        self.to_descriptor().write()
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} @ {}", self.uri, self.revision.id())
    }
}

/// A file that we make, use or ship.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Artifact {
    /// Its name.
    pub name: ArtifactName,
    /// Its digests.
    pub digests: Digests,
    /// Its size in bytes.
    pub size: u64,
}

impl Artifact {
    pub(crate) fn from_descriptor(descriptor: &Descriptor, at: &str) -> Result<Self, Refusal> {
        let name = descriptor
            .name
            .as_deref()
            .unwrap_or_default()
            .parse()
            .map_err(|refusal: Refusal| refusal.within(at))?;
        let size = descriptor.annotation("size").cloned();
        let size = size.ok_or_else(|| {
            Refusal::new(
                Code::ParseFieldMissing,
                format!("{at}.annotations.size"),
                "the size in bytes",
                "nothing",
            )
        })?;
        Ok(Self {
            name,
            digests: descriptor.digests(at)?,
            size: size.into_integer(&format!("{at}.annotations.size"))?,
        })
    }

    pub(crate) fn to_descriptor(&self) -> Descriptor {
        let sha512 =
            self.digests.sha512.map(|digest| (Sha512::ALGORITHM.to_owned(), digest.to_string()));
        let sha256 = (Sha256::ALGORITHM.to_owned(), self.digests.sha256.to_string());
        Descriptor {
            digest: [sha256].into_iter().chain(sha512).collect(),
            annotations: Vec::from([("size".to_owned(), Value::Integer(self.size))]),
            ..Descriptor::named(self.name.as_str())
        }
    }

    pub(crate) fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        Self::from_descriptor(&Descriptor::read_closed(value, at, &["size"])?, at)
    }

    pub(crate) fn write(&self) -> Value<'static> {
        self.to_descriptor().write()
    }

    /// Whether the bytes are the same, by every digest that both sides have and by size.
    pub fn same_bytes(&self, other: &Self) -> bool {
        self.size == other.size && self.digests.agree(&other.digests)
    }
}

/// Refuses a name that stands twice, or that is one file with another on some systems.
pub(crate) fn check_names<'n>(
    names: impl Iterator<Item = &'n ArtifactName>,
    at: &str,
) -> Result<(), Refusal> {
    let (mut seen, mut folded) = (BTreeSet::new(), BTreeSet::new());
    for name in names {
        if !seen.insert(name) {
            return Err(Refusal::new(
                Code::StmtSubjectDuplicate,
                at,
                "each name once",
                name.as_str(),
            ));
        }
        if !folded.insert(name.folded()) {
            return Err(Refusal::new(
                Code::ArtNameCollision,
                at,
                "names that differ by more than case",
                name.as_str(),
            ));
        }
    }
    let directory = |name: &&String| {
        name.match_indices('/')
            .any(|(end, _)| name.get(..end).is_some_and(|parent| folded.contains(parent)))
    };
    match folded.iter().find(directory) {
        Some(name) => Err(Refusal::new(
            Code::ArtNameCollision,
            at,
            "no name that is a directory of another",
            name.as_str(),
        )),
        None => Ok(()),
    }
}

/// An in-toto `ResourceDescriptor` as far as Custody reads it.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Descriptor {
    pub(crate) name: Option<String>,
    pub(crate) uri: Option<String>,
    pub(crate) digest: Vec<(String, String)>,
    pub(crate) annotations: Vec<(String, Value<'static>)>,
}

impl Descriptor {
    pub(crate) fn named(name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..Self::default() }
    }

    /// A reference to another statement.
    pub(crate) fn statement(name: &str, id: StatementId) -> Self {
        Self {
            digest: Vec::from([(Sha256::ALGORITHM.to_owned(), id.to_string())]),
            ..Self::named(name)
        }
    }

    /// A statement has one id; a second digest of it could not be checked.
    pub(crate) fn statement_id(&self, at: &str) -> Result<StatementId, Refusal> {
        match self.digests(at)? {
            Digests { sha256, sha512: None } => Ok(StatementId(sha256)),
            Digests { .. } => Err(Refusal::new(
                Code::StmtDigestAlg,
                format!("{at}.digest"),
                "sha256 alone",
                "sha512 beside it",
            )),
        }
    }

    /// Reads a descriptor that in-toto or SLSA define: members that nobody knows are ignored.
    pub(crate) fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        Self::take(&mut value.into_object(at)?, at)
    }

    /// Reads a descriptor inside a predicate of our own, which has these annotations at most.
    pub(crate) fn read_closed(
        value: Value<'_>,
        at: &str,
        annotations: &[&str],
    ) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let descriptor = Self::take(&mut object, at)?;
        object.finish()?;
        let unknown = |(name, _): &&(String, Value<'_>)| !annotations.contains(&name.as_str());
        match descriptor.annotations.iter().find(unknown) {
            None => Ok(descriptor),
            Some((name, _)) => {
                let at = format!("{at}.annotations.{}", name.escape_default());
                Err(Refusal::new(
                    Code::ParseUnknownField,
                    at,
                    "only members that are defined",
                    format!("{name:?}"),
                ))
            }
        }
    }

    fn take(object: &mut Object<'_>, at: &str) -> Result<Self, Refusal> {
        let digest = object.map("digest")?;
        let annotations = match object.optional("annotations") {
            None => Vec::new(),
            Some(value) => value.into_object(format!("{at}.annotations"))?.rest(),
        };
        let annotations = annotations
            .into_iter()
            .map(|(name, value)| {
                // other values are nothing that Custody reads, but their names count
                let value = match value {
                    Value::Integer(number) => Value::Integer(number),
                    Value::String(text) => Value::String(Cow::Owned(text.into_owned())),
                    _ => Value::Null,
                };
                (name.into_owned(), value)
            })
            .collect();
        Ok(Self {
            name: object.optional_text("name")?,
            uri: object.optional_text("uri")?,
            digest,
            annotations,
        })
    }

    pub(crate) fn write(&self) -> Value<'static> {
        let pairs = |pairs: &[(String, Value<'static>)]| {
            Value::Object(
                pairs
                    .iter()
                    .map(|(name, value)| (Cow::Owned(name.clone()), value.clone()))
                    .collect(),
            )
        };
        let digest: Vec<_> =
            self.digest.iter().map(|(name, value)| (name.clone(), Value::text(value))).collect();
        let annotations = (!self.annotations.is_empty()).then(|| pairs(&self.annotations));
        Value::object([])
            .with("name", self.name.as_ref().map(Value::text))
            .with("uri", self.uri.as_ref().map(Value::text))
            .with("digest", Some(pairs(&digest)))
            .with("annotations", annotations)
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&Value<'static>> {
        self.annotations.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The digests by which bytes are recognised: sha256 must be there, sha512 may be.
    pub(crate) fn digests(&self, at: &str) -> Result<Digests, Refusal> {
        let find = |name: &str| {
            self.digest.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
        };
        let place = |refusal: Refusal| refusal.within(&format!("{at}.digest"));
        let Some(sha256) = find(Sha256::ALGORITHM) else {
            let weak = self
                .digest
                .iter()
                .find(|(name, _)| matches!(name.as_str(), "md5" | "sha1" | "sha224"));
            let (code, found) = match weak {
                Some((name, _)) => (Code::StmtDigestAlg, name.clone()),
                None => (Code::StmtDigestMissing, "none".to_owned()),
            };
            return Err(Refusal::new(code, format!("{at}.digest"), "sha256", found));
        };
        Ok(Digests {
            sha256: sha256.parse().map_err(place)?,
            sha512: find(Sha512::ALGORITHM).map(str::parse).transpose().map_err(place)?,
        })
    }
}

/// The only subject, which must be a statement called `name`.
pub(crate) fn only_statement(subjects: &[Descriptor], name: &str) -> Result<StatementId, Refusal> {
    match subjects {
        [one] if one.name.as_deref() == Some(name) => one.statement_id("subject[0]"),
        _ => Err(Refusal::new(
            Code::ParseFieldType,
            "subject",
            format!("one subject named {name:?}"),
            "other subjects",
        )),
    }
}
