//! What the command of a step may fetch, and the files that say which bytes that is.

use std::collections::BTreeSet;

use custody_core::digest::Digests;
use custody_core::name::ArtifactName;
use custody_core::statement::{Downloads, Pinned};
use custody_core::{Code, Refusal};
use serde::Deserialize;
use toml::Spanned;

use super::file::{Reader, Text};

/// What stands as `downloads` at the head of a file of pins.
const DOWNLOADS_TYPE: &str = "https://custody.dev/downloads/v1";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DownloadsTable {
    from: Spanned<Vec<Text>>,
    lock: Option<Text>,
    pinned: Option<Vec<PinTable>>,
    record: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PinTable {
    uri: Text,
    sha256: Text,
    sha512: Option<Text>,
    size: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockTable {
    downloads: Text,
    #[serde(default)]
    pinned: Vec<PinTable>,
}

/// The downloads of a step.
#[derive(Clone, Debug)]
pub(super) struct StepDownloads {
    from: Vec<String>,
    which: Which,
    place: String,
}

#[derive(Clone, Debug)]
enum Which {
    Recorded,
    Pinned(Vec<Pinned>),
    /// Those of a file of the same commit.
    Locked(ArtifactName),
}

impl StepDownloads {
    pub(super) fn read(
        reader: &Reader<'_>,
        table: Option<&Spanned<DownloadsTable>>,
        network: bool,
    ) -> Result<Option<Self>, Refusal> {
        let Some(spanned) = table else { return Ok(None) };
        let (span, table) = (spanned.span(), spanned.get_ref());
        if network {
            return Err(reader.refuse(&span, "downloads or network = true", "both"));
        }
        let list = table.from.get_ref();
        if list.is_empty() {
            return Err(reader.refuse(&table.from.span(), "where to fetch from", "nothing"));
        }
        let from = list.iter().map(|text| beginning(reader, text)).collect::<Result<_, _>>()?;
        let which = match (&table.lock, &table.pinned, table.record) {
            (Some(lock), None, None) => Which::Locked(reader.parsed(lock)?),
            (None, Some(pins), None) => Which::Pinned(pinned(reader, pins)?),
            (None, None, Some(true)) => Which::Recorded,
            _ => {
                let expected = "one of lock, pinned and record = true";
                return Err(reader.refuse(&span, expected, "none or several"));
            }
        };
        let place = reader.place(&span);
        let downloads = Self { from, which, place };
        if let Which::Pinned(pinned) = &downloads.which {
            downloads.check(pinned, &downloads.place)?;
        }
        Ok(Some(downloads))
    }

    pub(super) fn lock(&self) -> Option<&ArtifactName> {
        match &self.which {
            Which::Locked(path) => Some(path),
            Which::Recorded | Which::Pinned(_) => None,
        }
    }

    pub(super) fn fill(&mut self, path: &ArtifactName, pinned: &[Pinned]) -> Result<(), Refusal> {
        if self.lock() == Some(path) {
            self.check(pinned, path.as_str())?;
            self.which = Which::Pinned(pinned.to_vec());
        }
        Ok(())
    }

    /// Every pin is of something that may be fetched.
    fn check(&self, pinned: &[Pinned], at: &str) -> Result<(), Refusal> {
        let downloads = self.with(None);
        match pinned.iter().find(|pin| !downloads.covers(&pin.uri)) {
            None => Ok(()),
            Some(pin) => {
                let expected = format!("URIs that are, or are below, {}", self.from.join(", "));
                Err(Refusal::new(Code::ParseFieldType, at, expected, short(&pin.uri)))
            }
        }
    }

    pub(super) fn resolve(&self) -> Result<Downloads, Refusal> {
        match &self.which {
            Which::Recorded => Ok(self.with(None)),
            Which::Pinned(pinned) => Ok(self.with(Some(pinned.clone()))),
            Which::Locked(path) => {
                let expected = format!("the pins of {path}");
                Err(Refusal::new(Code::ParseFieldMissing, &self.place, expected, "none read"))
            }
        }
    }

    fn with(&self, pinned: Option<Vec<Pinned>>) -> Downloads {
        Downloads { from: self.from.clone(), pinned }
    }
}

/// Reads a file of pins, which refusals call `name`.
pub(super) fn read_lock(name: &str, text: &str) -> Result<Vec<Pinned>, Refusal> {
    let reader = Reader { name, text };
    let table: LockTable = reader.table("pins in TOML")?;
    if table.downloads.get_ref() != DOWNLOADS_TYPE {
        let found = table.downloads.get_ref();
        return Err(reader.refuse(&table.downloads.span(), DOWNLOADS_TYPE, found));
    }
    pinned(&reader, &table.pinned)
}

/// Writes a file of pins.
pub fn write_lock<'p>(pins: impl IntoIterator<Item = &'p Pinned>) -> String {
    let mut text = format!("downloads = \"{DOWNLOADS_TYPE}\"\n");
    for Pinned { uri, digests, size } in pins {
        // no character of such a URI means anything inside quotes of TOML but these two
        let uri = uri.replace('\\', "\\\\").replace('"', "\\\"");
        text += &format!("\n[[pinned]]\nuri = \"{uri}\"\nsha256 = \"{}\"\n", digests.sha256);
        if let Some(sha512) = &digests.sha512 {
            text += &format!("sha512 = \"{sha512}\"\n");
        }
        text += &format!("size = {size}\n");
    }
    text
}

/// A whole URI, or one that ends with `/`.
fn beginning(reader: &Reader<'_>, text: &Text) -> Result<String, Refusal> {
    let uri = reader.shown(text)?;
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"));
    let host = rest.and_then(|rest| rest.split_once('/')).map(|(host, _)| host);
    let plain = Downloads { from: vec![uri.clone()], pinned: None }.covers(&uri)
        && !uri.contains(['%', '@', '?', '*']);
    if plain && host.is_some_and(|host| !host.is_empty()) {
        return Ok(uri);
    }
    Err(reader.refuse(&text.span(), "https://HOST/, or a plain path below it", &uri))
}

fn pinned(reader: &Reader<'_>, tables: &[PinTable]) -> Result<Vec<Pinned>, Refusal> {
    let mut seen = BTreeSet::new();
    let pin = |table: &PinTable| {
        let uri = reader.shown(&table.uri)?;
        if !seen.insert(uri.clone()) {
            let refusal = reader.refuse(&table.uri.span(), "each URI once", &uri);
            return Err(Refusal { code: Code::ParseDuplicateKey, ..refusal });
        }
        let digests = Digests {
            sha256: reader.parsed(&table.sha256)?,
            sha512: table.sha512.as_ref().map(|text| reader.parsed(text)).transpose()?,
        };
        Ok(Pinned { uri, digests, size: table.size })
    };
    tables.iter().map(pin).collect()
}

fn short(text: &str) -> String {
    text.escape_debug().take(120).collect()
}
