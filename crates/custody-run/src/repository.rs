//! Reading one's own clone while planning: which revision a name stands for, a file at a revision, and
//! what carries a person's signature for it. The clone is one of git, one of Mercurial, or an archive.
//!
//! A worker never does this; it takes sources by [`source`](crate::source) alone.

use std::path::Path;
use std::process::{Command, Stdio};

use custody_core::digest::Sha256;
use custody_core::name::ArtifactName;
use custody_core::statement::{Request, Revision};
use custody_core::vcs::SignedKind;
use custody_core::{Code, Refusal};

use crate::pipeline::Pipeline;
use crate::source::archive;

/// What stands for whatever is newest, in each of them.
const NEWEST: &str = "HEAD";

/// The revision that a name stands for in a local clone. An archive has no names; `HEAD` is the archive
/// itself.
pub fn resolve(clone: &Path, name: &str) -> Result<Revision, Refusal> {
    if clone.is_file() {
        let found = archive::digest(clone)?.to_string();
        if name == NEWEST || name == found {
            return Ok(Revision::Archive(found));
        }
        return Err(no_revision(name, clone, &format!("an archive with sha256 {found}")));
    }
    if is_mercurial(clone) {
        let name = if name == NEWEST { "." } else { name };
        let found = hg(clone, &["log", "--limit=2", "--template={node}\\n", "--rev", name], name)?;
        let found = String::from_utf8_lossy(&found);
        let mut lines = found.lines();
        return match (lines.next(), lines.next()) {
            (Some(id), None) => Ok(Revision::Mercurial(id.to_owned())),
            _ => Err(no_revision(name, clone, "none or several")),
        };
    }
    let commit = format!("{name}^{{commit}}");
    let bytes =
        git(clone, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit], name)?;
    Ok(Revision::Git(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// The bytes of a file at a revision.
pub fn read_file(
    clone: &Path,
    revision: &Revision,
    path: &ArtifactName,
) -> Result<Vec<u8>, Refusal> {
    let file = format!("{}:{path}", revision.id());
    match revision {
        Revision::Git(_) => git(clone, &["cat-file", "blob", &file], &file),
        Revision::Mercurial(id) => {
            let path = format!("path:{path}");
            hg(clone, &["cat", "--rev", id, "--", &path], &file)
        }
        Revision::Archive(id) => archive::read_file(clone, id, path),
    }
}

/// The raw objects of a clone that can carry a signature for the revision: the commit, or the annotated
/// tags that name it.
pub fn signed_objects(
    clone: &Path,
    revision: &Revision,
    what: SignedKind,
) -> Result<Vec<Vec<u8>>, Refusal> {
    let Revision::Git(id) = revision else { return Ok(Vec::new()) };
    if what == SignedKind::Commit {
        return Ok(vec![git(clone, &["cat-file", "commit", id], id)?]);
    }
    let points_at = format!("--points-at={id}");
    let format = "--format=%(objecttype) %(objectname)";
    let tags = git(clone, &["for-each-ref", &points_at, format, "refs/tags/"], id)?;
    let tags = String::from_utf8_lossy(&tags);
    let annotated = tags.lines().filter_map(|line| line.strip_prefix("tag "));
    annotated.map(|tag| git(clone, &["cat-file", "tag", tag], tag)).collect()
}

/// The pipeline of a request: the one whose digest it has, and no other.
pub fn pipeline(clone: &Path, request: &Request) -> Result<Pipeline, Refusal> {
    let (revision, path) = (&request.source.revision, &request.pipeline.path);
    let bytes = read_file(clone, revision, path)?;
    let found = Sha256::of(&bytes);
    if found != request.pipeline.sha256 {
        let at = format!("{path} at {}", request.source);
        let expected = format!("sha256 {}", request.pipeline.sha256);
        return Err(Refusal::new(
            Code::ChainSourceMismatch,
            at,
            expected,
            format!("sha256 {found}"),
        ));
    }
    let mut pipeline = Pipeline::parse(&text(path, bytes)?)?;
    // their content is covered by the revision
    let locks: Vec<ArtifactName> = pipeline.locks().into_iter().cloned().collect();
    for path in locks {
        let bytes = read_file(clone, revision, &path)?;
        pipeline.lock(&path, &text(&path, bytes)?)?;
    }
    Ok(pipeline)
}

fn text(path: &ArtifactName, bytes: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(bytes)
        .map_err(|_| Refusal::new(Code::ParseUnicodeInvalid, path.as_str(), "UTF-8", "other bytes"))
}

fn is_mercurial(clone: &Path) -> bool {
    clone.join(".hg").is_dir() && !clone.join(".git").exists()
}

fn git(clone: &Path, arguments: &[&str], what: &str) -> Result<Vec<u8>, Refusal> {
    let mut command = Command::new("git");
    // GIT_DIR and its like would make it another repository than the one that was named
    without(&mut command, "GIT_");
    command
        .args([
            "--no-replace-objects",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "core.hooksPath=/dev/null",
            "-C",
        ])
        .arg(clone)
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_LAZY_FETCH", "1");
    output(&mut command, clone, what)
}

fn hg(clone: &Path, arguments: &[&str], what: &str) -> Result<Vec<u8>, Refusal> {
    let mut command = Command::new("hg");
    without(&mut command, "HG");
    command
        .arg("--cwd")
        .arg(clone)
        .args(["--noninteractive", "--repository", "."])
        .args(arguments)
        // no extension, alias or hook of anybody
        .env("HGRCPATH", "")
        .env("HGRCSKIPREPO", "1")
        .env("HGPLAIN", "1");
    output(&mut command, clone, what)
}

fn without(command: &mut Command, start: &str) {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with(start)) {
        command.env_remove(name);
    }
}

fn output(command: &mut Command, clone: &Path, what: &str) -> Result<Vec<u8>, Refusal> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        let advice = format!("install {program}, then give the same command again");
        Refusal::new(Code::GateUnavailable, program, "to be installed", error.to_string())
            .advising(advice)
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: String =
        String::from_utf8_lossy(&output.stderr).trim().escape_debug().take(200).collect();
    Err(no_revision(what, clone, if said.is_empty() { "nothing" } else { &said }))
}

fn no_revision(what: &str, clone: &Path, found: &str) -> Refusal {
    let shown: String = what.escape_debug().take(120).collect();
    let at = format!("{} in {}", shown, clone.display());
    let expected = "a revision of this clone, and a file in it";
    Refusal::new(Code::ChainSourceMismatch, at, expected, found)
}
