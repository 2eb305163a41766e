//! The files of `examples/hello/`, brought along in the program, and what is made of them.

use std::fs;
use std::path::Path;

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;

use super::image;
use super::stage::Stage;
use crate::error::Error;

/// `include!` of a file of the example, beside its path in the repository.
macro_rules! files {
    ($folder:literal: $($path:literal),+) => {
        &[$(($path, include_str!(concat!("../../../../../examples/hello/", $folder, "/", $path)))),+]
    };
}

const SOURCE: &[(&str, &str)] = files!("source":
    "CHANGES", "VERSION", "pipeline.toml", "scripts/build.sh", "scripts/partial.sh", "scripts/sign.sh",
    "src/greetings.h", "src/hello.c", "tools/delta.c", "tools/suffixes.h");
const NEXT: &[(&str, &str)] =
    files!("next": "CHANGES", "VERSION", "pipeline.toml", "src/greetings.h");
const POLICY: &str = include_str!("../../../../../examples/hello/policy.toml");

/// Everybody who has a key. The first three are people, and Bob has two.
const KEYS: [&str; 9] =
    ["alice", "bob", "bob-home", "carol", "desk", "scheduler", "builder", "signer", "publisher"];

/// The image for the build, where it is to run in one: its compiler needs the headers of the source only.
pub(super) fn image(stage: &Stage<'_>) -> Result<Option<Sha256>, Error> {
    if !stage.container {
        return Ok(None);
    }
    stage.say("An image for the build, from this machine's compiler.");
    for (path, text) in SOURCE.iter().chain(NEXT) {
        write(&stage.path("source").join(path), text)?;
    }
    let made = image::make(stage)?;
    fs::remove_dir_all(stage.path("source")).map_err(Error::io(&stage.path("source")))?;
    Ok(Some(made))
}

/// The repository with its two commits, oldest first.
pub(super) fn repository(stage: &Stage<'_>, image: Option<&Sha256>) -> Result<[String; 2], Error> {
    let git = |arguments: &[&str]| stage.git(arguments);
    fs::create_dir(stage.path("source")).map_err(Error::io(&stage.path("source")))?;
    git(&["init", "--quiet", "--initial-branch=main"])?;
    let mut commits = Vec::new();
    for (files, message) in
        [(SOURCE, "hello 1.0.0"), (NEXT, "hello 1.1.0: Dutch and Finnish, partial updates")]
    {
        for (path, text) in files {
            let text = match image {
                Some(image) if *path == "pipeline.toml" => &in_build(
                    text,
                    &format!("image = \"registry.example.org/hello-build@sha256:{image}\"\n"),
                ),
                _ => *text,
            };
            write(&stage.path("source").join(path), text)?;
        }
        git(&["add", "."])?;
        git(&["commit", "--quiet", "--message", message])?;
        commits.push(git(&["rev-parse", "HEAD"])?.trim().to_owned());
    }
    let count = commits.len();
    commits.try_into().map_err(|_| Error::Usage(format!("{count} commits instead of two")))
}

/// A file with these lines more in its table of the build.
fn in_build(text: &str, lines: &str) -> String {
    let head = "steps.build]\n";
    text.replacen(head, &format!("{head}{lines}"), 1)
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
    }
    fs::write(path, text).map_err(Error::io(path))
}

/// Keys for everybody, the policy signed by two of the three root people, and a store that pins it.
pub(super) fn policy(stage: &Stage<'_>, image: Option<&Sha256>) -> Result<StatementId, Error> {
    for place in ["keys", "product", "www", "work"] {
        fs::create_dir(stage.path(place)).map_err(Error::io(&stage.path(place)))?;
    }
    let mut text = POLICY.to_owned();
    for name in KEYS {
        let file = format!("keys/{name}");
        let made = stage.quietly(&["key", "generate", &file, "--comment", name])?;
        text = text.replace(
            &format!("\"KEY-OF-{name}\""),
            &format!("\"{} {name}\"", made.text("openssh")?),
        );
    }
    text = text
        .replace("POLICY-EXPIRES", &super::policy_expires()?)
        .replace("PUBLISH-TO", &stage.destination());
    if let Some(image) = image {
        let demands = format!(
            "images = [\"sha256:{image}\"]\n\
             machine = [{{ fact = \"isolation\", is = [\"container\"], standing = \"claimed\" }}]\n"
        );
        text = in_build(&text, &demands);
    }
    write(&stage.path("policy.toml"), &text)?;
    signing_key(stage)?;
    stage.custody(&["policy", "check", "policy.toml"], Vec::new())?;
    let mut pin = None;
    for person in ["alice", "bob"] {
        let mut sign = vec!["policy", "sign", "policy.toml", "--out", "policy.dsse.json"];
        let key = format!("keys/{person}");
        sign.extend(["--key", &key]);
        pin = Some(stage.custody(&sign, Vec::new())?.id("pin")?);
    }
    let pin = pin.ok_or_else(|| Error::Usage("nobody signed the policy".into()))?;
    stage.custody(
        &["init", "--policy", "policy.dsse.json", "--pin", &pin.to_string()],
        vec!["--store".into(), "store".into()],
    )?;
    Ok(pin)
}

/// Where it lies.
pub(super) const SIGNING_KEY: &str = "product/signing-key";

/// The product's own key, with which the signing step signs for users. It belongs to that step alone
/// and is none of Custody's keys.
fn signing_key(stage: &Stage<'_>) -> Result<(), Error> {
    stage.quietly(&[
        "key",
        "generate",
        SIGNING_KEY,
        "--format",
        "openssh",
        "--comment",
        "hello",
    ])?;
    let path = stage.path(SIGNING_KEY);
    match stage.user() {
        Some(id) => std::os::unix::fs::chown(&path, Some(id), Some(id)).map_err(Error::io(&path)),
        None => Ok(()),
    }
}
