//! Git: the tree of one commit, each object held against its own id before a byte of it counts.
//!
//! Git fetches into a new repository, computes ids and refuses what was made to collide under SHA-1.
//! Then everything is read back and hashed here: the commit, its trees, and each file while it is
//! written. Git's own checkout, its index, filters and attributes have no part in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Read as _, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};

use custody_core::encoding::hex;
use custody_core::limits::SIGNED_SOURCE_BYTES;
use custody_core::name::ArtifactName;
use custody_core::statement::Submodule;
use custody_core::vcs::{GitHash, ObjectHasher, SignedKind};
use custody_core::{Code, Refusal};
use tempfile::TempDir;

use super::command::{SSH, Server, clean, run, said};
use super::lfs;
use super::tree::{LINK_BYTES, Tree, refuse};
use super::{Check, Checked, Rules};
use crate::stage::copy::{CHUNK, unavailable};

/// What git is told instead of what the system, the user or a repository would tell it.
const CONFIGURATION: &str = "\
[core]
    hooksPath = /dev/null
    fsmonitor = false
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

/// Largest tree object, commit and file of submodules that is read.
const OBJECT_BYTES: u64 = 64 << 20;
/// Largest commit or tag whose signature is kept.
const SIGNED_BYTES: u64 = SIGNED_SOURCE_BYTES as u64;
/// Submodules within submodules.
const NESTED: usize = 8;
/// Submodules in all.
const SUBMODULES: usize = 256;
/// Tags that point at the commit and are looked at.
const TAGS: usize = 64;

/// Where the tree of one commit comes from and goes to.
struct Place<'p> {
    /// Where it is fetched from.
    from: &'p str,
    /// The repository's name, by which relative URLs of submodules are understood.
    uri: &'p str,
    /// The directory in the source: the root's is empty.
    prefix: PathBuf,
    nested: usize,
}

/// Writes the tree of a commit with its submodules.
pub(super) fn checkout(
    from: &str,
    uri: &str,
    commit: &str,
    rules: &Rules<'_>,
    beside: &Path,
    tree: &mut Tree<'_>,
) -> Result<Checked, Refusal> {
    let mut checked = Checked::default();
    let git = Git::fetch(from, commit, beside)?;
    let mut objects = Objects::open(&git)?;
    let by_itself =
        matches!(&rules.signature, Some(demanded) if demanded.what == SignedKind::Commit);
    // a commit that goes into the manifest is small
    let raw =
        objects.small(commit, "commit", if by_itself { SIGNED_BYTES } else { OBJECT_BYTES })?;
    if let Some(demanded) = &rules.signature {
        let signed = match demanded.what {
            SignedKind::Commit => (demanded.check)(Some(&raw)).map(|()| raw.clone())?,
            SignedKind::Tag => git.signed_tag(from, commit, demanded.check)?,
        };
        checked.signed = Some(signed);
    }
    let place = Place { from, uri, prefix: PathBuf::new(), nested: 0 };
    write(&git, &mut objects, &raw, &place, rules, tree, &mut checked.submodules)?;
    Ok(checked)
}

/// Writes the files of a commit, and then its submodules.
fn write(
    git: &Git,
    objects: &mut Objects,
    commit: &[u8],
    place: &Place<'_>,
    rules: &Rules<'_>,
    tree: &mut Tree<'_>,
    submodules: &mut Vec<Submodule>,
) -> Result<(), Refusal> {
    let mut found = Found::default();
    let mut waiting = vec![(tree_of(commit, objects.hash)?, place.prefix.clone())];
    while let Some((id, directory)) = waiting.pop() {
        let listed = objects.small(&id, "tree", OBJECT_BYTES)?;
        for entry in entries(&listed, objects.hash, &directory)? {
            let path = directory.join(OsStr::from_bytes(entry.name));
            match entry.mode {
                b"40000" => {
                    tree.directory(&path)?;
                    waiting.push((entry.id, path));
                }
                b"100644" | b"100664" | b"100755" => {
                    let executable = entry.mode == b"100755";
                    if directory == place.prefix && entry.name == b".gitmodules" {
                        found.modules = Some(entry.id.clone());
                    }
                    file(objects, &entry.id, &path, executable, place, rules, tree)?;
                }
                b"120000" => {
                    let target = objects.small(&entry.id, "blob", LINK_BYTES)?;
                    tree.link(&path, OsStr::from_bytes(&target))?;
                }
                b"160000" => {
                    tree.directory(&path)?;
                    found.links.push((path, entry.id));
                }
                mode => {
                    let mode = String::from_utf8_lossy(mode).escape_debug().to_string();
                    return Err(refuse(&path, "a file, directory, link or submodule", mode));
                }
            }
        }
    }
    if found.links.is_empty() {
        return Ok(());
    }
    let urls = match &found.modules {
        Some(id) => git.urls(&objects.small(id, "blob", 1 << 20)?)?,
        None => BTreeMap::new(),
    };
    for (path, commit) in found.links {
        let below = path.strip_prefix(&place.prefix).unwrap_or(&path);
        let url = urls
            .get(below)
            .ok_or_else(|| refuse(&path, "the URL of the submodule in .gitmodules", "none"))?;
        submodule(&path, &commit, &resolved(place.uri, url)?, place, rules, tree, submodules)?;
    }
    Ok(())
}

/// What a tree has besides files.
#[derive(Default)]
struct Found {
    /// The blob of `.gitmodules`.
    modules: Option<String>,
    /// Paths of submodules, and their commits.
    links: Vec<(PathBuf, String)>,
}

fn file(
    objects: &mut Objects,
    id: &str,
    path: &Path,
    executable: bool,
    place: &Place<'_>,
    rules: &Rules<'_>,
    tree: &mut Tree<'_>,
) -> Result<(), Refusal> {
    objects.ask(id, "blob")?;
    if rules.lfs && objects.size <= lfs::POINTER_BYTES {
        let mut content = Vec::new();
        objects.copy(&mut content)?;
        let pointer = lfs::Pointer::parse(&content);
        return tree.file(path, executable, |sink| match &pointer {
            Some(pointer) => pointer.bring(place.from, sink),
            None => sink.write_all(&content).map_err(|error| unavailable(path, &error)),
        });
    }
    tree.file(path, executable, |sink| objects.copy(sink))
}

fn submodule(
    path: &Path,
    commit: &str,
    uri: &str,
    around: &Place<'_>,
    rules: &Rules<'_>,
    tree: &mut Tree<'_>,
    submodules: &mut Vec<Submodule>,
) -> Result<(), Refusal> {
    let at = format!("submodule {}", path.display());
    let within = |refusal: Refusal| refusal.within(&at);
    if !(rules.submodule)(uri) {
        let found: String = uri.escape_debug().take(200).collect();
        let expected = "a submodule from a URI that the policy names";
        return Err(Refusal::new(Code::ChainSourceForbidden, at, expected, found));
    }
    let nested = around.nested.saturating_add(1);
    if nested > NESTED || submodules.len() >= SUBMODULES {
        let expected = format!("at most {SUBMODULES} submodules, {NESTED} within each other");
        return Err(refuse(path, &expected, "more"));
    }
    let name: ArtifactName = path.to_string_lossy().parse().map_err(within)?;
    submodules.push(Submodule { path: name, uri: uri.into(), commit: commit.into() });
    let place = Place { from: uri, uri, prefix: path.into(), nested };
    (|| {
        let git = Git::fetch(uri, commit, around_of(tree.root()))?;
        let mut objects = Objects::open(&git)?;
        let raw = objects.small(commit, "commit", OBJECT_BYTES)?;
        write(&git, &mut objects, &raw, &place, rules, tree, submodules)
    })()
    .map_err(within)
}

/// The directory that a source tree is in, where repositories are kept while they are read.
pub(super) fn around_of(root: &Path) -> &Path {
    root.parent().unwrap_or(root)
}

/// The URL of a submodule: its own, or one relative to the repository around it.
fn resolved(around: &str, url: &str) -> Result<String, Refusal> {
    let relative = url.starts_with("./") || url.starts_with("../");
    if !relative {
        return Ok(url.into());
    }
    let mut base = around.trim_end_matches('/');
    let mut rest = url;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            rest = after;
            // not beyond the host
            let floor = base.find("://").map_or(0, |at| at.saturating_add(3));
            let end = base.rfind('/').filter(|end| *end >= floor && *end > 0);
            base = end.and_then(|end| base.get(..end)).ok_or_else(|| {
                refuse(Path::new(url), "a URL that leads to a repository", around)
            })?;
        } else {
            return Ok(format!("{base}/{rest}"));
        }
    }
}

/// The tree that a commit names in its first line.
fn tree_of(commit: &[u8], hash: GitHash) -> Result<String, Refusal> {
    let id = commit.strip_prefix(b"tree ").and_then(|rest| rest.get(..hash.id_bytes() * 2));
    let id = id.and_then(|id| std::str::from_utf8(id).ok());
    id.map(ToOwned::to_owned).ok_or_else(|| mismatch("a commit with a tree", "another object"))
}

struct Entry<'t> {
    mode: &'t [u8],
    name: &'t [u8],
    id: String,
}

/// The entries of a tree object: `MODE NAME\0ID`, without anything between them.
fn entries<'t>(
    mut tree: &'t [u8],
    hash: GitHash,
    directory: &Path,
) -> Result<Vec<Entry<'t>>, Refusal> {
    let mut found = Vec::new();
    while !tree.is_empty() {
        let entry = (|| {
            let (head, rest) = tree.split_at_checked(tree.iter().position(|byte| *byte == 0)?)?;
            let (mode, name) =
                head.split_at_checked(head.iter().position(|byte| *byte == b' ')?)?;
            let (id, rest) = rest.get(1..)?.split_at_checked(hash.id_bytes())?;
            tree = rest;
            Some(Entry { mode, name: name.get(1..)?, id: hex(id) })
        })();
        found.push(entry.ok_or_else(|| refuse(directory, "a tree of git", "other bytes"))?);
    }
    Ok(found)
}

pub(super) fn mismatch(expected: &str, found: &str) -> Refusal {
    Refusal::new(Code::ChainSourceMismatch, "commit", expected, found)
}

/// A new repository of our own, gone when this value is.
struct Git {
    directory: TempDir,
    hash: GitHash,
}

impl Git {
    /// A new repository that has the commit, all that it needs, and nothing before it.
    fn fetch(from: &str, commit: &str, beside: &Path) -> Result<Self, Refusal> {
        let from = from.strip_prefix("git+").unwrap_or(from);
        super::check_place(from)?;
        let git = Self::new(beside, GitHash::of_id(commit))?;
        git.bring(from, &[commit])?;
        Ok(git)
    }

    fn new(beside: &Path, hash: GitHash) -> Result<Self, Refusal> {
        let fault = |error: io::Error| unavailable(beside, &error);
        let directory =
            tempfile::Builder::new().prefix(".git-").tempdir_in(beside).map_err(fault)?;
        fs::write(directory.path().join("config"), CONFIGURATION).map_err(fault)?;
        let git = Self { directory, hash };
        let format = match hash {
            GitHash::Sha1 => "sha1",
            GitHash::Sha256 => "sha256",
        };
        let format = format!("--object-format={format}");
        git.run(&["init", "--quiet", "--bare", "--template=", &format])?;
        Ok(git)
    }

    fn bring(&self, from: &str, ids: &[&str]) -> Result<(), Refusal> {
        let mut arguments = vec![
            "fetch",
            "--quiet",
            "--depth=1",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--",
            from,
        ];
        arguments.extend(ids);
        self.run(&arguments).map(|_| ())
    }

    fn command(&self) -> Command {
        let path = self.directory.path();
        let mut command = clean("git", path);
        command
            .arg("--no-replace-objects")
            .env("GIT_DIR", path.join("repository"))
            .env("GIT_CONFIG_GLOBAL", path.join("config"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_ALLOW_PROTOCOL", "file:https:ssh")
            .env("GIT_NO_LAZY_FETCH", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "false")
            .env("SSH_ASKPASS", "false")
            .env("GIT_SSH_COMMAND", SSH);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Vec<u8>, Refusal> {
        let verb = arguments.first().unwrap_or(&"");
        // the words of git for an object that is not there, or not sound
        let absent = ["not our ref", "fsck error"];
        let what = format!("git {verb}");
        run(self.command().args(arguments), self.directory.path(), &absent, &what)
    }

    /// Paths and URLs of submodules, as git itself reads the file.
    fn urls(&self, modules: &[u8]) -> Result<BTreeMap<PathBuf, String>, Refusal> {
        let path = self.directory.path().join("modules");
        fs::write(&path, modules).map_err(|error| unavailable(&path, &error))?;
        let file = path.to_string_lossy();
        let printed =
            self.run(&["config", "--null", "--no-includes", "--list", "--file", &file])?;
        let mut named: BTreeMap<&[u8], (Option<PathBuf>, Option<String>)> = BTreeMap::new();
        for line in printed.split(|byte| *byte == 0) {
            let Some(end) = line.iter().position(|byte| *byte == b'\n') else { continue };
            let (key, value) = line.split_at(end);
            let value = value.get(1..).unwrap_or_default();
            let Some(rest) = key.strip_prefix(b"submodule.") else { continue };
            if let Some(name) = rest.strip_suffix(b".path") {
                named.entry(name).or_default().0 = Some(OsStr::from_bytes(value).into());
            } else if let Some(name) = rest.strip_suffix(b".url") {
                let url = String::from_utf8_lossy(value).into_owned();
                named.entry(name).or_default().1 = Some(url);
            }
        }
        Ok(named.into_values().filter_map(|(path, url)| Some((path?, url?))).collect())
    }

    /// The first annotated tag at the commit that `check` takes. What it is called decides nothing.
    fn signed_tag(&self, from: &str, commit: &str, check: Check<'_>) -> Result<Vec<u8>, Refusal> {
        let from = from.strip_prefix("git+").unwrap_or(from);
        let listed = self.run(&["ls-remote", "--quiet", "--tags", "--", from])?;
        let listed = String::from_utf8_lossy(&listed);
        let peeled: Vec<&str> = listed
            .lines()
            .filter_map(|line| line.strip_prefix(commit)?.trim_start().strip_suffix("^{}"))
            .collect();
        let tags = listed.lines().filter_map(|line| {
            let (id, name) = line.split_once('\t')?;
            let whole = id.len() == commit.len() && id.bytes().all(|b| b.is_ascii_hexdigit());
            (whole && peeled.contains(&name)).then_some(id)
        });
        let mut fault = None;
        for id in tags.take(TAGS) {
            self.bring(from, &[id])?;
            let raw = Objects::open(self)?.small(id, "tag", SIGNED_BYTES)?;
            match check(Some(&raw)) {
                Ok(()) => return Ok(raw),
                Err(refusal) => fault = Some(refusal),
            }
        }
        match fault.map_or_else(|| check(None), Err) {
            Ok(()) => Err(mismatch("a tag", "none")),
            Err(refusal) => Err(refusal),
        }
    }
}

/// Reads objects and believes none of them: each is hashed, and has the id that was asked for or is
/// refused.
struct Objects {
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    hash: GitHash,
    server: Server,
    home: PathBuf,
    /// Of the object that was asked for last.
    id: String,
    kind: &'static str,
    size: u64,
}

impl Objects {
    fn open(git: &Git) -> Result<Self, Refusal> {
        let home = git.directory.path();
        let mut server = Server::start(git.command().args(["cat-file", "--batch"]), home)?;
        let pipes = server.0.stdin.take().zip(server.0.stdout.take());
        let (questions, answers) = pipes.ok_or_else(|| {
            Refusal::new(Code::GateUnavailable, "git cat-file", "its pipes", "none")
        })?;
        Ok(Self {
            questions,
            answers: BufReader::with_capacity(CHUNK, answers),
            hash: git.hash,
            server,
            home: home.into(),
            id: String::new(),
            kind: "",
            size: 0,
        })
    }

    fn fault(&self, error: &io::Error) -> Refusal {
        let found = format!("{error} {}", said(&self.home));
        let at = format!("git cat-file ({})", self.server.0.id());
        Refusal::new(Code::GateUnavailable, at, format!("object {}", self.id), found)
    }

    /// Asks for an object, whose content then has to be read.
    fn ask(&mut self, id: &str, kind: &'static str) -> Result<(), Refusal> {
        id.clone_into(&mut self.id);
        self.kind = kind;
        let asked = writeln!(self.questions, "{id}").and_then(|()| self.questions.flush());
        let mut line = Vec::new();
        let head = asked.and_then(|()| (&mut self.answers).take(256).read_until(b'\n', &mut line));
        head.map_err(|error| self.fault(&error))?;
        let line = String::from_utf8_lossy(&line);
        let mut words = line.split_ascii_whitespace();
        let answer = (words.next(), words.next(), words.next().map(str::parse));
        match answer {
            (Some(_), Some(found), Some(Ok(size))) if found == kind => self.size = size,
            (_, found, _) => {
                let found = found.unwrap_or("nothing").escape_debug().to_string();
                return Err(self.differs(&found));
            }
        }
        Ok(())
    }

    fn differs(&self, found: &str) -> Refusal {
        let at = format!("object {}", self.id);
        Refusal::new(Code::ChainSourceMismatch, at, format!("the {} of this id", self.kind), found)
    }

    /// The content of an object that is small.
    fn small(&mut self, id: &str, kind: &'static str, limit: u64) -> Result<Vec<u8>, Refusal> {
        self.ask(id, kind)?;
        if self.size > limit {
            let found = format!("{} bytes, of which {limit} are read", self.size);
            return Err(self.differs(&found));
        }
        let mut content = Vec::new();
        self.copy(&mut content)?;
        Ok(content)
    }

    /// Writes the content of the object that was asked for, and hashes what it writes.
    fn copy(&mut self, to: &mut dyn Write) -> Result<(), Refusal> {
        let mut hasher = ObjectHasher::new(self.hash, self.kind, self.size);
        let mut left = self.size;
        while left > 0 {
            let chunk = self.answers.fill_buf();
            let taken = chunk.and_then(|chunk| {
                let most = usize::try_from(left).unwrap_or(usize::MAX);
                let bytes = chunk.get(..most).unwrap_or(chunk);
                hasher.update(bytes);
                to.write_all(bytes).map(|()| bytes.len())
            });
            let taken = taken.map_err(|error| self.fault(&error))?;
            if taken == 0 {
                // git gives up on an object that it finds damaged while it reads it
                return Err(self.differs(&format!("a damaged one: {}", said(&self.home))));
            }
            self.answers.consume(taken);
            left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
        }
        let mut end = [0];
        self.answers.read_exact(&mut end).map_err(|error| self.fault(&error))?;
        let found = hasher.finish();
        if found == self.id {
            return Ok(());
        }
        Err(self.differs(&format!("content whose id is {found}")))
    }
}

#[cfg(test)]
mod tests;
