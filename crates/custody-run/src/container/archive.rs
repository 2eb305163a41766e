//! Image archives: tar files with one image, as `docker save`, `podman save` and `buildah push` write
//! them (docker-archive, or an OCI layout). Everything in them is hostile.
//!
//! What the image is called follows from the bytes alone: its id is the digest of its configuration,
//! and the configuration has the digests of its layers.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::path::{Component, Path, PathBuf};

use custody_core::digest::{Hasher, Sha256};
use custody_core::{Code, Refusal};
use flate2::bufread::GzDecoder;
use serde_json::Value;

/// How much there may be: of files in an archive, of JSON in one of them, of layers, of files in an
/// image and of bytes in them.
const MEMBERS: usize = 10_000;
const JSON: u64 = 4 << 20;
const LAYERS: usize = 1_000;
const FILES: usize = 5_000_000;
const BYTES: u64 = 256 << 30;

/// First byte and length of each file.
type Members = BTreeMap<String, (u64, u64)>;

/// An archive with one image.
#[derive(Debug)]
pub(super) struct Archive {
    file: File,
    /// Where the files are in it: first byte and length.
    members: Members,
    /// The image's id: the digest of its configuration.
    pub(super) id: Sha256,
    /// The digest of its manifest, if it has one.
    pub(super) manifest: Option<Sha256>,
    /// System and processor.
    pub(super) platform: String,
    /// The layers' files, the lowest first, with the digest of what they unpack to.
    layers: Vec<(String, Sha256)>,
}

fn bad(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::WorkerImageMismatch, "image archive", expected, found)
}

fn unreadable(error: &io::Error) -> Refusal {
    bad("a tar file with one image", error.to_string())
}

impl Archive {
    /// Reads what is in it, and which image it is.
    pub(super) fn read(file: File) -> Result<Self, Refusal> {
        let members = members(&file).map_err(|error| unreadable(&error))??;
        let mut archive = Self {
            file,
            members,
            id: Sha256::of(b""),
            manifest: None,
            platform: String::new(),
            layers: Vec::new(),
        };
        let (config, layers) = if archive.members.contains_key("manifest.json") {
            archive.docker()?
        } else {
            archive.oci()?
        };
        archive.id = Sha256::of(&config);
        let config: Value = serde_json::from_slice(&config).unwrap_or_default();
        let text = |name| config.get(name).and_then(Value::as_str);
        let (Some(os), Some(architecture)) = (text("os"), text("architecture")) else {
            return Err(bad("a configuration with os and architecture", "one without"));
        };
        archive.platform = platform(os, architecture, text("variant"));
        let digests = texts(config.pointer("/rootfs/diff_ids"))
            .ok_or_else(|| bad("a configuration with the digests of its layers", "one without"))?;
        if digests.len() != layers.len() || layers.len() > LAYERS {
            let found = format!("{} digests, {} layers", digests.len(), layers.len());
            return Err(bad("a digest for each layer, and at most 1000", found));
        }
        for (layer, digest) in layers.into_iter().zip(digests) {
            archive.layers.push((layer, sha256(&digest)?));
        }
        Ok(archive)
    }

    /// `manifest.json` says where the configuration and the layers are.
    fn docker(&self) -> Result<(Vec<u8>, Vec<String>), Refusal> {
        let list = self.json("manifest.json")?;
        let image = only(&list, "manifest.json")?;
        let config = image.get("Config").and_then(Value::as_str).unwrap_or_default();
        let layers = texts(image.get("Layers"))
            .ok_or_else(|| bad("a manifest.json with layers", "one without"))?;
        Ok((self.small(config)?, layers))
    }

    /// `index.json` names one manifest, which names the blobs.
    fn oci(&mut self) -> Result<(Vec<u8>, Vec<String>), Refusal> {
        let index = self.json("index.json")?;
        let manifests = index.get("manifests").unwrap_or(&Value::Null);
        let digest = digest_of(only(manifests, "index.json")?)?;
        let manifest = self.blob(digest)?;
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        let Some(config) = manifest.get("config") else {
            return Err(bad("a manifest of one image", "an index of several, or another thing"));
        };
        self.manifest = Some(digest);
        let layers = manifest.get("layers").and_then(Value::as_array).map(Vec::as_slice);
        let layers = layers.unwrap_or_default().iter();
        let layers: Result<_, Refusal> =
            layers.map(|layer| Ok(blob_name(digest_of(layer)?))).collect();
        Ok((self.blob(digest_of(config)?)?, layers?))
    }

    fn json(&self, name: &str) -> Result<Value, Refusal> {
        serde_json::from_slice(&self.small(name)?)
            .map_err(|error| bad(&format!("JSON in {name}"), error.to_string()))
    }

    fn blob(&self, digest: Sha256) -> Result<Vec<u8>, Refusal> {
        let bytes = self.small(&blob_name(digest))?;
        let found = Sha256::of(&bytes);
        if found == digest {
            return Ok(bytes);
        }
        Err(bad(&format!("sha256 {digest}"), format!("sha256 {found}")))
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, Refusal> {
        let mut member = self.member(name)?;
        if member.limit() > JSON {
            return Err(bad("a configuration of at most 4 MiB", format!("{}", member.limit())));
        }
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
        Ok(bytes)
    }

    fn member(&self, name: &str) -> Result<io::Take<&File>, Refusal> {
        let shown = || name.escape_debug().take(100).collect::<String>();
        let (start, length) = *self
            .members
            .get(name)
            .ok_or_else(|| bad("a whole image", format!("no {}", shown())))?;
        (&self.file).seek(SeekFrom::Start(start)).map_err(|error| unreadable(&error))?;
        Ok((&self.file).take(length))
    }

    /// The archive's file, from its beginning.
    pub(super) fn whole(&self) -> io::Result<&File> {
        (&self.file).rewind()?;
        Ok(&self.file)
    }

    /// Makes the image's file system in an empty directory. Nothing is written outside of it, and no
    /// program there gives rights to whoever runs it.
    pub(super) fn unpack(&self, root: &Path) -> Result<(), Refusal> {
        let root = root.canonicalize().map_err(|error| unreadable(&error))?;
        let mut left = Left { files: FILES, bytes: BYTES };
        for (name, digest) in &self.layers {
            let mut layer = BufReader::new(self.member(name)?);
            let packed = io::BufRead::fill_buf(&mut layer).map_err(|error| unreadable(&error))?;
            let mut bytes: Box<dyn Read> = if packed.starts_with(&[0x1f, 0x8b]) {
                Box::new(GzDecoder::new(layer))
            } else {
                Box::new(layer)
            };
            let mut hashed = Hashed { from: &mut *bytes, hasher: Hasher::new(false) };
            let mut tar = tar::Archive::new(&mut hashed);
            tar.set_overwrite(true);
            let unpacked = layer_into(&mut tar, &root, &mut left);
            unpacked.map_err(|error| unreadable(&error))?;
            io::copy(&mut hashed, &mut io::sink()).map_err(|error| unreadable(&error))?;
            let found = hashed.hasher.finish().0.sha256;
            if found != *digest {
                let (expected, found) = (format!("layer sha256 {digest}"), found.to_string());
                return Err(bad(&expected, format!("sha256 {found}")));
            }
        }
        Ok(())
    }
}

/// How much may still come.
struct Left {
    files: usize,
    bytes: u64,
}

fn layer_into(tar: &mut tar::Archive<impl Read>, root: &Path, left: &mut Left) -> io::Result<()> {
    let too_much = || io::Error::other("an image without end");
    for entry in tar.entries()? {
        let mut entry = entry?;
        left.files = left.files.checked_sub(1).ok_or_else(too_much)?;
        left.bytes = left.bytes.checked_sub(entry.size()).ok_or_else(too_much)?;
        let path = entry.path()?.into_owned();
        let Some(place) = place(root, &path)? else { continue };
        let name = place.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name == ".wh..wh..opq" {
            for hidden in place.parent().unwrap_or(root).read_dir()? {
                remove(&hidden?.path())?;
            }
        } else if let Some(hidden) = name.strip_prefix(".wh.") {
            if !matches!(hidden, "" | "." | "..") {
                remove(&place.with_file_name(hidden))?;
            }
        } else {
            let is_directory = |found: fs::Metadata| found.is_dir();
            let found = place.symlink_metadata().is_ok_and(is_directory);
            if found != entry.header().entry_type().is_dir() {
                remove(&place)?;
            }
            // it looks after links on the way, and leaves out what would be outside
            entry.unpack_in(root)?;
        }
    }
    Ok(())
}

/// Where a file of a layer goes, if that is inside; no link leads out on the way.
fn place(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    let outside = || io::Error::other(format!("a path that leads outside: {}", path.display()));
    let mut place = root.to_owned();
    for part in path.components() {
        match part {
            Component::Normal(part) => place.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(outside()),
        }
    }
    if place == root {
        return Ok(None);
    }
    let parent = place.parent().unwrap_or(root);
    match parent.canonicalize() {
        Ok(parent) if !parent.starts_with(root) => Err(outside()),
        _ => Ok(Some(place)),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

struct Hashed<'r> {
    from: &'r mut dyn Read,
    hasher: Hasher,
}

impl Read for Hashed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}

/// Where the files of an archive are. A name twice would be one file to us and another to the engine.
fn members(file: &File) -> io::Result<Result<Members, Refusal>> {
    let mut members = BTreeMap::new();
    let mut tar = tar::Archive::new(file);
    for entry in tar.entries_with_seek()? {
        let entry = entry?;
        if members.len() == MEMBERS {
            return Ok(Err(bad("at most 10000 files", "more")));
        }
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?;
        let name = path.to_string_lossy().trim_start_matches("./").to_owned();
        let place = (entry.raw_file_position(), entry.size());
        if members.insert(name.clone(), place).is_some() {
            let shown: String = name.escape_debug().take(100).collect();
            return Ok(Err(bad("each file once", format!("{shown} twice"))));
        }
    }
    Ok(Ok(members))
}

fn only<'v>(list: &'v Value, name: &str) -> Result<&'v Value, Refusal> {
    match list.as_array().map(Vec::as_slice) {
        Some([one]) => Ok(one),
        Some(several) => Err(bad(&format!("one image in {name}"), several.len().to_string())),
        None => Err(bad(&format!("a list of images in {name}"), "another thing")),
    }
}

fn texts(value: Option<&Value>) -> Option<Vec<String>> {
    value?.as_array()?.iter().map(|text| text.as_str().map(ToOwned::to_owned)).collect()
}

fn digest_of(descriptor: &Value) -> Result<Sha256, Refusal> {
    sha256(descriptor.get("digest").and_then(Value::as_str).unwrap_or_default())
}

/// A digest with its algorithm before it.
pub(super) fn sha256(text: &str) -> Result<Sha256, Refusal> {
    let hex = text.strip_prefix("sha256:");
    hex.and_then(|hex| hex.parse().ok())
        .ok_or_else(|| bad("a digest, sha256:…", text.escape_debug().take(100).collect::<String>()))
}

fn blob_name(digest: Sha256) -> String {
    format!("blobs/sha256/{digest}")
}

/// System and processor, as the manifest has them.
pub(super) fn platform(os: &str, architecture: &str, variant: Option<&str>) -> String {
    let parts = [Some(os), Some(architecture), variant.filter(|variant| !variant.is_empty())];
    let parts: Vec<&str> = parts.into_iter().flatten().collect();
    parts.join("/").replace(|c: char| !c.is_ascii_graphic(), "?")
}
