//! The source: the tree of one git commit, byte for byte.
//!
//! The repository is hostile. Its objects are fetched into a new repository, which computes their
//! ids and checks their form, and from there the files are written. No configuration, hook, filter
//! or attribute of anybody has a say in it.

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path};
use std::process::{Command, Stdio};

use custody_core::statement::Revision;
use custody_core::{Code, Refusal};
use tempfile::TempDir;

use crate::stage::copy::unavailable;
use crate::stage::each;

/// What git is told instead of what the system, the user or a repository would tell it.
const CONFIGURATION: &str = "\
[core]
    hooksPath = /dev/null
    fsmonitor = false
    attributesFile = /dev/null
    symlinks = true
    fileMode = true
    autocrlf = false
    protectHFS = true
    protectNTFS = true
[protocol]
    version = 2
[transfer]
    fsckObjects = true
[safe]
    # another user's repository is only read, and serving it runs nothing from it
    directory = *
[credential]
    helper =
[gc]
    auto = 0
[maintenance]
    auto = false
[http]
    lowSpeedLimit = 1000
    lowSpeedTime = 60
";

/// Attributes that stand above those in the tree: files are written as they are stored.
const ATTRIBUTES: &str = "* -text -eol -ident -filter -working-tree-encoding\n";

/// Variables by which an operator reaches repositories; nothing else of our environment is passed.
const PASSED: [&str; 8] = [
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
];

/// Writes the tree of a git commit into `into`, an empty directory whose parent is writable.
///
/// `from` is an absolute path or a URL with `file`, `https` or `ssh`, all with or without `git+`
/// before it. Files get mode 644 or 755. Submodules are empty directories, and files in LFS are
/// their pointers.
///
/// * [`Code::ChainSourceMismatch`]: there is no such commit, the id is not a whole one, an object is
///   damaged, or a symbolic link leads out of the tree;
/// * [`Code::GateUnavailable`]: the repository is out of reach.
pub fn checkout(from: &str, revision: &Revision, into: &Path) -> Result<(), Refusal> {
    let at = |refusal: Refusal| refusal.within(&format!("source {from}"));
    fetch_and_write(from.strip_prefix("git+").unwrap_or(from), revision, into).map_err(at)?;
    tidy(into).map_err(at)
}

fn fetch_and_write(from: &str, revision: &Revision, into: &Path) -> Result<(), Refusal> {
    let commit = whole_id(revision)?;
    if !["/", "file://", "https://", "ssh://"].iter().any(|start| from.starts_with(start)) {
        let expected = "an absolute path, or a URL with file, https or ssh";
        return Err(Refusal::new(Code::GateUnavailable, "repository", expected, "another"));
    }
    let git = Git::new(into, if commit.len() == 64 { "sha256" } else { "sha1" })?;
    git.run(&[
        "fetch",
        "--quiet",
        "--depth=1",
        "--no-tags",
        "--no-recurse-submodules",
        "--no-write-fetch-head",
        "--",
        from,
        commit,
    ])?;
    // of a tag or tree, the id is not a commit's
    let found = git.run(&["cat-file", "-t", commit])?;
    if found != b"commit\n" {
        return Err(mismatch(commit, "an object of another kind"));
    }
    git.run(&["read-tree", commit])?;
    git.run(&["checkout-index", "--all", "--quiet"])?;
    Ok(())
}

fn whole_id(revision: &Revision) -> Result<&str, Refusal> {
    let Revision::Git(commit) = revision else {
        return Err(mismatch("a git commit", "a revision of another system"));
    };
    let hexadecimal = commit.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if hexadecimal && matches!(commit.len(), 40 | 64) {
        return Ok(commit);
    }
    let shown: String = commit.escape_default().take(80).collect();
    Err(mismatch("a whole commit id in lower case", &shown))
}

fn mismatch(expected: &str, found: &str) -> Refusal {
    Refusal::new(Code::ChainSourceMismatch, "commit", expected, found)
}

/// A new repository of our own, gone when this value is.
struct Git<'a> {
    directory: TempDir,
    into: &'a Path,
}

impl<'a> Git<'a> {
    fn new(into: &'a Path, format: &str) -> Result<Self, Refusal> {
        let beside = into.parent().unwrap_or(into);
        let fault = |error: io::Error| unavailable(beside, &error);
        let directory =
            tempfile::Builder::new().prefix(".git-").tempdir_in(beside).map_err(fault)?;
        fs::write(directory.path().join("config"), CONFIGURATION).map_err(fault)?;
        let git = Self { directory, into };
        git.run(&["init", "--quiet", "--template=", &format!("--object-format={format}")])?;
        let above = git.directory.path().join("repository/info");
        fs::create_dir_all(&above).map_err(fault)?;
        fs::write(above.join("attributes"), ATTRIBUTES).map_err(fault)?;
        Ok(git)
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Refusal> {
        let path = self.directory.path();
        let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let fault = |error: io::Error| unavailable(Path::new("git"), &error);
        // into a file: who reads one of two pipes may wait for ever for the other, and the standard
        // library, which reads both, panics if it cannot
        let complaints = path.join("complaints");
        let mut child = Command::new("git")
            .arg("--no-replace-objects")
            .args(arguments)
            .current_dir(path)
            .env_clear()
            .envs(passed)
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C")
            .env("HOME", path)
            .env("GIT_DIR", path.join("repository"))
            .env("GIT_WORK_TREE", self.into)
            .env("GIT_CONFIG_GLOBAL", path.join("config"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "file:https:ssh")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("SSH_ASKPASS", "false")
            .env(
                "GIT_SSH_COMMAND",
                "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15",
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&complaints).map_err(fault)?)
            .spawn()
            .map_err(fault)?;
        let mut stdout = Vec::new();
        let read = child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout));
        // first the end of the child, which has nothing to write to any more
        let status = child.wait().map_err(fault)?;
        read.map_err(fault)?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = fs::read(&complaints).map_err(fault)?;
        let said = String::from_utf8_lossy(&stderr);
        let shown: String = said.trim().escape_debug().take(400).collect();
        let verb = arguments.first().unwrap_or(&"");
        // the words of git for an object that is not there, or not sound
        if said.contains("not our ref") || said.contains("fsck error") {
            return Err(mismatch("a sound commit that the repository has", &shown));
        }
        let at = format!("git {verb}");
        Err(Refusal::new(Code::GateUnavailable, at, "to read the repository", shown))
    }
}

/// Gives files and directories the same modes whatever the umask, and refuses links that lead out.
fn tidy(root: &Path) -> Result<(), Refusal> {
    let mut leaving = None;
    let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode));
    set(root, 0o755)
        .and_then(|()| {
            each(root, &mut |path, found| {
                if found.is_symlink() {
                    let link = path.strip_prefix(root).unwrap_or(path);
                    if !stays_inside(link, &fs::read_link(path)?) {
                        leaving = Some(link.to_path_buf());
                    }
                    return Ok(());
                }
                let executable = found.is_dir() || found.permissions().mode() & 0o100 != 0;
                set(path, if executable { 0o755 } else { 0o644 })
            })
        })
        .map_err(|error| unavailable(root, &error))?;
    leaving.map_or(Ok(()), |link| {
        let (at, found) = (link.display().to_string(), "a link that leads out of it, or might");
        Err(Refusal::new(Code::ChainSourceMismatch, at, "links that stay in the source", found))
    })
}

/// Whether a link stays in the tree, whatever other links do that stay there by this rule: its `..`
/// stand first, where the directories around it are real ones, and are not too many.
fn stays_inside(link: &Path, target: &Path) -> bool {
    let is_up = |part: &Component<'_>| *part == Component::ParentDir;
    let depth = link.components().count().saturating_sub(1);
    let up = target.components().take_while(is_up).count();
    let mut rest = target.components().skip(up);
    up <= depth && rest.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_stay_inside_by_their_text_alone() {
        for (link, target, inside) in [
            ("a", "b", true),
            ("a", "./b/c", true),
            ("a/b/c", "../../d", true),
            ("a/b/c", "../..", true),
            ("a", ".", true),
            ("a", "..", false),
            ("a/b", "../../c", false),
            ("a", "/etc/passwd", false),
            // d may be a link to the root
            ("a", "d/..", false),
        ] {
            assert_eq!(stays_inside(Path::new(link), Path::new(target)), inside, "{link} {target}");
        }
    }
}
