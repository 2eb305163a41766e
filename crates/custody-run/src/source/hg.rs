//! Mercurial: the files of one changeset, each revision held against its own id.
//!
//! Mercurial pulls into a new repository. Then the changeset, its manifest and each file are read as they
//! are stored and hashed here with their parents; nothing is written that does not have the id by which
//! the text above names it. Mercurial's own checkout, hooks, extensions and filters have no part in it.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command};

use custody_core::encoding::{hex, hex_decode_exact};
use custody_core::vcs::hg_node;
use custody_core::{Code, Refusal};
use tempfile::TempDir;

use super::command::{SSH, Server, clean, run, said};
use super::tree::{LINK_BYTES, Tree, refuse};
use crate::stage::copy::{CHUNK, unavailable};

type Node = [u8; 20];

/// Largest text of one revision that is read.
const TEXT_BYTES: usize = 2 << 30;
/// Largest text of a changeset or manifest.
const LIST_BYTES: usize = 512 << 20;

/// Writes the files of a changeset.
pub(super) fn checkout(
    from: &str,
    changeset: &str,
    beside: &Path,
    tree: &mut Tree<'_>,
) -> Result<(), Refusal> {
    let from = from.strip_prefix("hg+").unwrap_or(from);
    super::check_place(from)?;
    let id = hex_decode_exact(changeset)
        .ok_or_else(|| differs("changeset", changeset, "another form"))?;
    let mut repository = Repository::pull(from, changeset, beside)?;
    let text = repository.revision(&[b"-c"], id, LIST_BYTES)?;
    let manifest = text.get(..40).and_then(|id| std::str::from_utf8(id).ok());
    let manifest = manifest.and_then(hex_decode_exact);
    let manifest =
        manifest.ok_or_else(|| differs("changeset", "a manifest's id", "other bytes"))?;
    let listed = repository.revision(&[b"-m"], manifest, LIST_BYTES)?;
    let files: Vec<File<'_>> = listed
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(File::parse)
        .collect::<Result<_, _>>()?;
    for file in &files {
        let path = Path::new(OsStr::from_bytes(file.name));
        if file.name == b".hgsub" || file.name == b".hgsubstate" {
            let at = path.display().to_string();
            let expected = "a source without subrepositories";
            return Err(Refusal::new(Code::ChainSourceForbidden, at, expected, "some"));
        }
        let text = repository.revision(&[b"--", file.name], file.node, TEXT_BYTES)?;
        let content = content(&text);
        match file.flag {
            Flag::Link if u64::try_from(content.len()).is_ok_and(|size| size <= LINK_BYTES) => {
                tree.link(path, OsStr::from_bytes(content))?;
            }
            Flag::Link => return Err(refuse(path, "a link", "one that is too long")),
            Flag::Plain | Flag::Executable => {
                tree.file(path, file.flag == Flag::Executable, |sink| {
                    sink.write_all(content).map_err(|error| unavailable(path, &error))
                })?;
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flag {
    Plain,
    Executable,
    Link,
}

/// A line of a manifest: `NAME\0ID` and a letter.
struct File<'m> {
    name: &'m [u8],
    node: Node,
    flag: Flag,
}

impl<'m> File<'m> {
    fn parse(line: &'m [u8]) -> Result<Self, Refusal> {
        (|| {
            let (name, rest) = line.split_at_checked(line.iter().position(|byte| *byte == 0)?)?;
            let (node, flag) = rest.get(1..)?.split_at_checked(40)?;
            let flag = match flag {
                b"" => Flag::Plain,
                b"x" => Flag::Executable,
                b"l" => Flag::Link,
                _ => return None,
            };
            Some(Self { name, node: hex_decode_exact(std::str::from_utf8(node).ok()?)?, flag })
        })()
        .ok_or_else(|| differs("manifest", "names, ids and the flags x and l", "another line"))
    }
}

/// The content of a file, without what Mercurial notes before it about copies.
fn content(text: &[u8]) -> &[u8] {
    let Some(noted) = text.strip_prefix(b"\x01\n") else { return text };
    let end = noted.windows(2).position(|two| two == b"\x01\n");
    end.and_then(|end| noted.get(end.saturating_add(2)..)).unwrap_or(text)
}

fn differs(at: &str, expected: &str, found: &str) -> Refusal {
    Refusal::new(Code::ChainSourceMismatch, at, expected, found)
}

/// A new repository of our own, and a process that reads it; gone when this value is.
struct Repository {
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    server: Server,
    directory: TempDir,
}

fn hg(home: &Path) -> Command {
    let mut command = clean("hg", home);
    command
        // no configuration of the system, the user, or a repository, theirs or ours
        .env("HGRCPATH", "")
        .env("HGRCSKIPREPO", "1")
        .env("HGPLAIN", "1")
        .env("HGENCODING", "UTF-8")
        .args(["--noninteractive", "--config", &format!("ui.ssh={SSH}")]);
    command
}

impl Repository {
    fn pull(from: &str, changeset: &str, beside: &Path) -> Result<Self, Refusal> {
        let fault = |error: io::Error| unavailable(beside, &error);
        let directory =
            tempfile::Builder::new().prefix(".hg-").tempdir_in(beside).map_err(fault)?;
        let home = directory.path();
        // the words of hg for a revision that is not there, or not sound
        let absent =
            ["unknown revision", "integrity check failed", "hidden revision", "filtered revision"];
        run(hg(home).args(["init", "--", "repository"]), home, &[], "hg init")?;
        let pull = ["pull", "--quiet", "--cwd", "repository", "--rev", changeset, "--", from];
        run(hg(home).args(pull), home, &absent, "hg pull")?;
        let serve = ["serve", "--cmdserver", "pipe", "--cwd", "repository"];
        let mut server = Server::start(hg(home).args(serve), home)?;
        let pipes = server.0.stdin.take().zip(server.0.stdout.take());
        let (questions, answers) = pipes
            .ok_or_else(|| Refusal::new(Code::GateUnavailable, "hg serve", "its pipes", "none"))?;
        let answers = BufReader::with_capacity(CHUNK, answers);
        let mut repository = Self { questions, answers, server, directory };
        // what it says of itself first
        repository.chunk(&mut Vec::new(), 4_096).map_err(|error| repository.fault(&error))?;
        Ok(repository)
    }

    fn fault(&self, error: &io::Error) -> Refusal {
        let found = format!("{error} {}", said(self.directory.path()));
        let at = format!("hg serve ({})", self.server.0.id());
        Refusal::new(Code::GateUnavailable, at, "an answer", found)
    }

    /// Reads one message of the command server: its channel, and its data into `to`.
    fn chunk(&mut self, to: &mut Vec<u8>, limit: usize) -> io::Result<u8> {
        let mut head = [0; 5];
        self.answers.read_exact(&mut head)?;
        let [channel, a, b, c, d] = head;
        let length = u64::from(u32::from_be_bytes([a, b, c, d]));
        // it asks for input, of which there is none
        if channel.is_ascii_uppercase() {
            return Err(io::Error::other("a question"));
        }
        let read = (&mut self.answers).take(length).read_to_end(to)?;
        if u64::try_from(read).ok() != Some(length) || to.len() > limit {
            return Err(io::Error::other(format!("more than {limit} bytes, or an early end")));
        }
        Ok(channel)
    }

    /// Asks for what a command prints.
    fn ask(
        &mut self,
        command: &[u8],
        arguments: &[&[u8]],
        limit: usize,
    ) -> Result<Vec<u8>, Refusal> {
        let words: Vec<&[u8]> = [command].into_iter().chain(arguments.iter().copied()).collect();
        let words = words.join(&0);
        let length = u32::try_from(words.len()).unwrap_or(u32::MAX).to_be_bytes();
        let asked = [&b"runcommand\n"[..], &length, &words].concat();
        let sent = self.questions.write_all(&asked).and_then(|()| self.questions.flush());
        sent.map_err(|error| self.fault(&error))?;
        let (mut printed, mut complaints) = (Vec::new(), Vec::new());
        loop {
            let mut data = Vec::new();
            let channel = self.chunk(&mut data, limit).map_err(|error| self.fault(&error))?;
            match channel {
                b'o' if printed.len() <= limit => printed.extend_from_slice(&data),
                b'o' => return Err(differs("hg", &format!("at most {limit} bytes"), "more")),
                b'r' if data == [0; 4] => return Ok(printed),
                b'r' => break,
                _ => complaints.extend_from_slice(data.get(..400).unwrap_or(&data)),
            }
        }
        let shown: String =
            String::from_utf8_lossy(&complaints).trim().escape_debug().take(400).collect();
        Err(differs("hg", "sound revisions", &shown))
    }

    /// The stored text of a revision of a changelog (`-c`), manifest (`-m`) or file, which has this id.
    fn revision(&mut self, of: &[&[u8]], id: Node, limit: usize) -> Result<Vec<u8>, Refusal> {
        let name = hex(&id);
        let mut arguments = of.to_vec();
        let index = self.ask(b"debugindex", &[&[&b"--debug"[..]], of].concat(), LIST_BYTES)?;
        arguments.push(name.as_bytes());
        let text = self.ask(b"debugdata", &arguments, limit)?;
        let parents = parents(&index, &name);
        let found = parents.map(|parents| hg_node(&parents, &text));
        if found == Some(id) {
            return Ok(text);
        }
        let of: PathBuf = of.iter().map(|word| OsStr::from_bytes(word)).collect();
        let found = found.map_or_else(|| "none".into(), |found| hex(&found));
        let at: String = of.display().to_string().escape_debug().take(200).collect();
        Err(differs(&at, &format!("the revision {name}"), &found))
    }
}

/// The parents of a revision, by the index as `hg debugindex --debug` prints it: three ids a line.
fn parents(index: &[u8], id: &str) -> Option<[Node; 2]> {
    index.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let mut ids = line.split_ascii_whitespace().filter(|word| word.len() == 40);
        let found = ids.next()?;
        if found != id {
            return None;
        }
        Some([hex_decode_exact(ids.next()?)?, hex_decode_exact(ids.next()?)?])
    })
}
