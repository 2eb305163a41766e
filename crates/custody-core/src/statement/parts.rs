//! What several statements are made of.

use alloc::borrow::{Cow, ToOwned};
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
    /// An archive, by the SHA-256 of its bytes: 64 hexadecimal digits.
    Archive(String),
}

impl Revision {
    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Git(_) => "gitCommit",
            Self::Mercurial(_) => "hgChangeset",
            Self::Archive(_) => Sha256::ALGORITHM,
        }
    }

    /// The hexadecimal id.
    pub fn id(&self) -> &str {
        match self {
            Self::Git(id) | Self::Mercurial(id) | Self::Archive(id) => id,
        }
    }

    /// The one revision that a descriptor names.
    fn of(descriptor: &Descriptor<'_>, at: &str) -> Result<Self, Refusal> {
        let digest = |algorithm: &str, make: fn(String) -> Self| {
            let mut named = descriptor.digest.iter().filter(move |(name, _)| name == algorithm);
            named.next().map(|(_, value)| make(value.clone().into_owned()))
        };
        let found = [
            digest("gitCommit", Self::Git),
            digest("hgChangeset", Self::Mercurial),
            digest(Sha256::ALGORITHM, Self::Archive),
        ];
        let mut found = found.into_iter().flatten();
        let (Some(revision), None) = (found.next(), found.next()) else {
            return Err(Refusal::new(
                Code::StmtDigestMissing,
                at,
                "one of gitCommit, hgChangeset and sha256",
                "none or several",
            ));
        };
        let bytes = hex_decode(revision.id()).map(|bytes| bytes.len());
        let whole = match &revision {
            Self::Git(_) => matches!(bytes, Some(20 | 32)),
            Self::Mercurial(_) => bytes == Some(20),
            Self::Archive(_) => bytes == Some(32),
        };
        if whole {
            return Ok(revision);
        }
        Err(Refusal::new(
            Code::StmtDigestFormat,
            at,
            "a whole revision id in lower case",
            revision.id(),
        ))
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
    pub(crate) fn from_descriptor(descriptor: Descriptor<'_>, at: &str) -> Result<Self, Refusal> {
        if descriptor.name.as_deref() != Some("source") {
            let found = format!("{:?}", descriptor.name);
            return Err(Refusal::new(
                Code::ParseFieldType,
                format!("{at}.name"),
                "the name source",
                found,
            ));
        }
        let revision = Revision::of(&descriptor, at)?;
        let uri = descriptor.uri.ok_or_else(|| {
            Refusal::new(Code::ParseFieldMissing, format!("{at}.uri"), "this member", "nothing")
        })?;
        Ok(Self { uri: uri.into_owned(), revision })
    }

    pub(crate) fn to_descriptor(&self) -> Descriptor<'_> {
        Descriptor {
            uri: Some(self.uri.as_str().into()),
            digest: Vec::from([(self.revision.algorithm().into(), self.revision.id().into())]),
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

/// A git submodule of the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Submodule {
    /// Where it is in the source.
    pub path: ArtifactName,
    /// Its repository.
    pub uri: String,
    /// The commit that the tree around it names.
    pub commit: String,
}

impl Submodule {
    pub(crate) fn from_descriptor(descriptor: &Descriptor<'_>, at: &str) -> Result<Self, Refusal> {
        let Revision::Git(commit) = Revision::of(descriptor, at)? else {
            let expected = "gitCommit";
            return Err(Refusal::new(Code::StmtDigestMissing, at, expected, "another revision"));
        };
        let path = descriptor.name.as_deref().unwrap_or_default().parse();
        let uri = descriptor.uri.clone().ok_or_else(|| {
            Refusal::new(Code::ParseFieldMissing, format!("{at}.uri"), "this member", "nothing")
        })?;
        let path = path.map_err(|refusal: Refusal| refusal.within(at))?;
        Ok(Self { path, uri: uri.into_owned(), commit })
    }

    pub(crate) fn to_descriptor(&self) -> Descriptor<'_> {
        Descriptor {
            uri: Some(self.uri.as_str().into()),
            digest: Vec::from([("gitCommit".into(), self.commit.as_str().into())]),
            ..Descriptor::named(self.path.as_str())
        }
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
    pub(crate) fn from_descriptor(descriptor: &Descriptor<'_>, at: &str) -> Result<Self, Refusal> {
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
            size: size.into_integer("annotations.size").map_err(|refusal| refusal.inside(at))?,
        })
    }

    pub(crate) fn to_descriptor(&self) -> Descriptor<'_> {
        let name = Some(self.name.as_str().into());
        Descriptor { name, ..Descriptor::bytes(&self.digests, self.size) }
    }

    pub(crate) fn read(value: Value<'_>, at: &str) -> Result<Self, Refusal> {
        let descriptor = Descriptor::read_closed(value, at, &["size"])?;
        if descriptor.uri.is_some() {
            let (at, expected) = (format!("{at}.uri"), "only members that are defined");
            return Err(Refusal::new(Code::ParseUnknownField, at, expected, "\"uri\""));
        }
        Self::from_descriptor(&descriptor, at)
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
    let mut folded: Vec<(String, &ArtifactName)> =
        names.map(|name| (name.folded(), name)).collect();
    folded.sort_unstable();
    for (one, other) in folded.iter().zip(folded.iter().skip(1)) {
        if one.0 == other.0 {
            let (code, expected) = if one.1 == other.1 {
                (Code::StmtSubjectDuplicate, "each name once")
            } else {
                (Code::ArtNameCollision, "names that differ by more than case")
            };
            return Err(Refusal::new(code, at, expected, other.1.as_str()));
        }
    }
    let is_file = |parent: &str| folded.binary_search_by(|(name, _)| (**name).cmp(parent)).is_ok();
    let inside = |(name, _): &&(String, &ArtifactName)| {
        name.match_indices('/').any(|(end, _)| name.get(..end).is_some_and(is_file))
    };
    match folded.iter().find(inside) {
        Some((name, _)) => Err(Refusal::new(
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
pub(crate) struct Descriptor<'a> {
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) uri: Option<Cow<'a, str>>,
    pub(crate) digest: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    pub(crate) annotations: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Descriptor<'a> {
    pub(crate) fn named(name: &'a str) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Bytes without a name.
    pub(crate) fn bytes(digests: &Digests, size: u64) -> Self {
        let sha512 =
            digests.sha512.map(|digest| (Sha512::ALGORITHM.into(), digest.to_string().into()));
        let sha256 = (Sha256::ALGORITHM.into(), digests.sha256.to_string().into());
        Self {
            digest: [sha256].into_iter().chain(sha512).collect(),
            annotations: Vec::from([("size".into(), Value::Integer(size))]),
            ..Self::default()
        }
    }

    /// A reference to another statement.
    pub(crate) fn statement(name: &'a str, id: StatementId) -> Self {
        Self {
            digest: Vec::from([(Sha256::ALGORITHM.into(), id.to_string().into())]),
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
    pub(crate) fn read(value: Value<'a>, at: &str) -> Result<Self, Refusal> {
        Self::take(&mut value.into_object(at)?, at)
    }

    /// Reads a descriptor inside a predicate of our own, which has these annotations at most.
    pub(crate) fn read_closed(
        value: Value<'a>,
        at: &str,
        annotations: &[&str],
    ) -> Result<Self, Refusal> {
        let mut object = value.into_object(at)?;
        let descriptor = Self::take(&mut object, at)?;
        object.finish()?;
        let unknown = |(name, _): &&(Cow<'_, str>, Value<'_>)| !annotations.contains(&&**name);
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

    /// Takes what Custody reads of a descriptor; what else is there is the caller's to judge.
    pub(super) fn take(object: &mut Object<'a>, at: &str) -> Result<Self, Refusal> {
        let digest = object.shown_map("digest")?;
        let annotations = match object.optional("annotations") {
            None => Vec::new(),
            Some(value) => {
                let annotations = value.into_object("annotations");
                annotations.map_err(|refusal| refusal.inside(at))?.rest()
            }
        };
        Ok(Self {
            name: object.optional_shown("name")?,
            uri: object.optional_shown("uri")?,
            digest,
            annotations,
        })
    }

    pub(crate) fn write(&self) -> Value<'static> {
        let name = |name: &str| Cow::Owned(name.to_owned());
        let digest = self.digest.iter().map(|(key, value)| (name(key), Value::text(value)));
        let annotations = self.annotations.iter().map(|(key, value)| {
            let value = match value {
                Value::Integer(number) => Value::Integer(*number),
                other => Value::text(other.as_str().unwrap_or_default()),
            };
            (name(key), value)
        });
        let annotations =
            (!self.annotations.is_empty()).then(|| Value::Object(annotations.collect()));
        Value::object([])
            .with("name", self.name.as_ref().map(Value::text))
            .with("uri", self.uri.as_ref().map(Value::text))
            .with("digest", Some(Value::Object(digest.collect())))
            .with("annotations", annotations)
    }

    pub(crate) fn annotation(&self, name: &str) -> Option<&Value<'a>> {
        self.annotations.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The digests by which bytes are recognised: sha256 must be there, sha512 may be.
    pub(crate) fn digests(&self, at: &str) -> Result<Digests, Refusal> {
        let find =
            |name: &str| self.digest.iter().find(|(key, _)| key == name).map(|(_, value)| &**value);
        let place = |refusal: Refusal| refusal.within(&format!("{at}.digest"));
        let Some(sha256) = find(Sha256::ALGORITHM) else {
            let weak =
                self.digest.iter().find(|(name, _)| matches!(&**name, "md5" | "sha1" | "sha224"));
            let (code, found) = match weak {
                Some((name, _)) => (Code::StmtDigestAlg, name.clone().into_owned()),
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
pub(crate) fn only_statement(
    subjects: &[Descriptor<'_>],
    name: &str,
) -> Result<StatementId, Refusal> {
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
