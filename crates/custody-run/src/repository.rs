//! Reading one's own clone while planning: which commit a name stands for, and a file at a commit.
//!
//! A worker never does this; it takes sources by [`source`](crate::source) alone.

use std::path::Path;
use std::process::{Command, Stdio};

use custody_core::name::ArtifactName;
use custody_core::statement::Revision;
use custody_core::{Code, Refusal};

/// The commit that a name stands for in a local clone.
pub fn resolve(clone: &Path, name: &str) -> Result<Revision, Refusal> {
    let commit = format!("{name}^{{commit}}");
    let bytes =
        git(clone, &["rev-parse", "--verify", "--quiet", "--end-of-options", &commit], name)?;
    Ok(Revision::Git(String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// The bytes of a file at a commit.
pub fn read_file(
    clone: &Path,
    revision: &Revision,
    path: &ArtifactName,
) -> Result<Vec<u8>, Refusal> {
    let blob = format!("{}:{path}", revision.id());
    git(clone, &["cat-file", "blob", &blob], &blob)
}

fn git(clone: &Path, arguments: &[&str], what: &str) -> Result<Vec<u8>, Refusal> {
    let shown: String = what.escape_debug().take(120).collect();
    let at = format!("{} in {}", shown, clone.display());
    let mut command = Command::new("git");
    // GIT_DIR and its like would make it another repository than the one that was named
    for (name, _) in
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("GIT_"))
    {
        command.env_remove(name);
    }
    let output = command
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
        .env("GIT_NO_LAZY_FETCH", "1")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Refusal::new(Code::GateUnavailable, "git", "to be installed", error.to_string())
        })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said: String =
        String::from_utf8_lossy(&output.stderr).trim().escape_debug().take(200).collect();
    Err(Refusal::new(
        Code::ChainSourceMismatch,
        at,
        "a commit of this clone, and a file in it",
        if said.is_empty() { "nothing" } else { &said },
    ))
}
