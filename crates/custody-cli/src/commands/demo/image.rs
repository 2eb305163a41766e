//! A container image for the demo's build, made on the spot: the compiler of this machine, and nothing
//! that the build does not need. It goes into a storage in the demo's directory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use custody_core::digest::Sha256;
use custody_core::{Code, Refusal};
use custody_run::container::podman;

use super::stage::Stage;
use crate::error::Error;

/// The storage, as `--engine` has it.
pub(super) const ENGINE: &str = "podman:engine";

/// What the build calls. `as` and `ld` the compiler calls.
const PROGRAMS: [&str; 10] = ["as", "cat", "cc", "cp", "ld", "mkdir", "mktemp", "rm", "sh", "tar"];

/// What the compiler is made of, as it says itself where that is.
const PARTS: [&str; 3] = ["cc1", "collect2", "liblto_plugin.so"];
const FILES: [&str; 12] = [
    "Scrt1.o",
    "crti.o",
    "crtn.o",
    "crtbeginS.o",
    "crtendS.o",
    "libc.so",
    "libc.so.6",
    "libc_nonshared.a",
    "libgcc.a",
    "libgcc_s.so",
    "libgcc_s.so.1",
    "liblto_plugin.so",
];

/// Refuses to begin where no container can be run.
pub(super) fn check_machine() -> Result<(), Error> {
    let refuse = |expected: &str, found: &str| {
        Err(Refusal::new(Code::GateUnavailable, "demo --container", expected, found).into())
    };
    if !rustix::process::geteuid().is_root() {
        return refuse("to be started as root, who can make containers", "another user");
    }
    match ["podman", "runc", "cc", "ldd", "tar"].into_iter().find(|name| program(name).is_none()) {
        Some("podman" | "runc") => {
            refuse("podman and runc: apt-get install podman runc", "that one is not there")
        }
        Some(name) => refuse("a C compiler, ldd and tar, for the image", &format!("no {name}")),
        None => Ok(()),
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|place| place.join(name)).find(|file| file.is_file())
}

/// Makes the image and gives its id.
pub(super) fn make(stage: &Stage<'_>) -> Result<Sha256, Error> {
    let place = stage.path("image");
    let root = place.join("root");
    for directory in ["dev", "proc", "sys", "tmp", "build", "usr/bin"] {
        create(&root.join(directory))?;
    }
    for file in files(stage)? {
        let to = root.join(file.strip_prefix("/").unwrap_or(&file));
        if let Some(parent) = to.parent() {
            create(parent)?;
        }
        fs::copy(&file, &to).map_err(Error::io(&file))?;
    }
    tar(&root, &place.join("layer.tar"), &["."])?;
    fs::remove_dir_all(&root).map_err(Error::io(&root))?;
    let id = describe(&place)?;
    tar(&place, &place.join("image.tar"), &["layer.tar", "config.json", "manifest.json"])?;
    load(stage, &place.join("image.tar"))?;
    fs::remove_dir_all(&place).map_err(Error::io(&place))?;
    Ok(id)
}

fn create(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::io(directory))
}

/// All files of the image, each under every name by which something asks for it.
fn files(stage: &Stage<'_>) -> Result<BTreeSet<PathBuf>, Error> {
    let mut files: BTreeSet<PathBuf> = PROGRAMS.iter().filter_map(|name| program(name)).collect();
    for (question, names) in [("prog", PARTS.as_slice()), ("file", FILES.as_slice())] {
        for name in names {
            let said = said(stage, "cc", &[&format!("-print-{question}-name={name}")])?;
            let path = PathBuf::from(said.trim());
            files.extend(path.canonicalize().ok().filter(|_| path.is_absolute()));
            files.extend(simple(&path).filter(|path| path.is_file()));
        }
    }
    for source in ["source/src/hello.c", "source/tools/delta.c"] {
        // as the build calls it, for headers ask what they are read for
        let headers = said(stage, "cc", &["-M", "-std=c11", "-O2", "-DVERSION=\"\"", source])?;
        let names = headers.split_whitespace().map(PathBuf::from);
        files.extend(names.filter(|path| path.is_absolute()).filter_map(|path| simple(&path)));
    }
    let mut libraries = BTreeSet::new();
    for file in &files {
        // what is no program says so, and needs none
        let said = Command::new("ldd").arg(file).output().map_err(Error::io("ldd".as_ref()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let words = said.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.extend(words.map(|word| PathBuf::from(word.trim_end_matches(':'))));
    }
    files.extend(libraries.into_iter().filter(|path| path.is_file()));
    Ok(files)
}

/// An absolute path without steps up.
fn simple(path: &Path) -> Option<PathBuf> {
    let mut whole = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                whole.pop();
            }
            other => whole.push(other),
        }
    }
    whole.is_absolute().then_some(whole)
}

fn said(stage: &Stage<'_>, program: &str, words: &[&str]) -> Result<String, Error> {
    let output = Command::new(program).args(words).current_dir(stage.path(".")).output();
    let output = output.map_err(Error::io(program.as_ref()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Usage(format!("{program} {}: {said}", words.join(" "))))
}

fn tar(directory: &Path, to: &Path, names: &[&str]) -> Result<(), Error> {
    let words = ["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0"];
    let output = Command::new("tar")
        .args(words)
        .args(["--numeric-owner", "--format=ustar", "--mode=u=rwX,go=rX", "--file"])
        .arg(to)
        .arg("--directory")
        .arg(directory)
        .args(names)
        .output()
        .map_err(Error::io("tar".as_ref()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Usage(format!("tar: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Writes what says what the image is. The digest of the first of the two is the image's id.
fn describe(place: &Path) -> Result<Sha256, Error> {
    let layer = place.join("layer.tar");
    let layer = Sha256::of(&fs::read(&layer).map_err(Error::io(&layer))?);
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = format!(
        r#"{{"architecture":"{architecture}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{layer}"]}}}}"#
    );
    let manifest = r#"[{"Config":"config.json","RepoTags":null,"Layers":["layer.tar"]}]"#;
    for (name, text) in [("config.json", config.as_str()), ("manifest.json", manifest)] {
        let path = place.join(name);
        fs::write(&path, text).map_err(Error::io(&path))?;
    }
    Ok(Sha256::of(config.as_bytes()))
}

/// Removes what the engine left outside of the demo's directory.
pub(super) fn forget(stage: &Stage<'_>) -> Result<(), Error> {
    let storage = stage.path("engine");
    podman::forget(&storage).map_err(Error::io(&storage))
}

/// Brings the image into the engine's storage.
fn load(stage: &Stage<'_>, archive: &Path) -> Result<(), Error> {
    let storage = stage.path("engine");
    let output = Command::new("podman")
        .args(podman::options(&storage).map_err(Error::io(&storage))?)
        .args(["load", "--quiet", "--input"])
        .arg(archive)
        .output()
        .map_err(Error::io("podman".as_ref()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Usage(format!("podman load: {}", String::from_utf8_lossy(&output.stderr))))
}
