//! Writing a source tree out of content that somebody hostile may have chosen.
//!
//! Directories are made by us and files are new, so nothing is written over or through anything else.
//! Links come last, when no file is written any more.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use custody_core::{Code, Refusal};

use crate::stage::copy::unavailable;

/// Most files, directories and links in one source.
const ENTRIES: usize = 2_000_000;
/// Most bytes of all files of one source.
const BYTES: u64 = 64 << 30;
/// Most directories above one file.
const DEPTH: usize = 256;
/// Longest target of a link, in bytes.
pub(super) const LINK_BYTES: u64 = 4_096;

/// The tree under way.
pub(super) struct Tree<'t> {
    root: &'t Path,
    directories: HashSet<PathBuf>,
    links: Vec<(PathBuf, OsString)>,
    entries: usize,
    bytes: u64,
}

/// A file of the tree under way. What is too much for the tree is not written.
pub(super) struct Sink<'s> {
    file: File,
    bytes: &'s mut u64,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        *self.bytes = self.bytes.saturating_add(u64::try_from(written).unwrap_or(u64::MAX));
        if *self.bytes > BYTES {
            return Err(io::Error::other(format!("more than {BYTES} bytes in one source")));
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

pub(super) fn refuse(at: &Path, expected: &str, found: impl Into<String>) -> Refusal {
    let at: String = at.to_string_lossy().escape_debug().take(200).collect();
    Refusal::new(Code::ChainSourceMismatch, at, expected, found)
}

impl<'t> Tree<'t> {
    /// A tree in an empty directory.
    pub(super) fn new(root: &'t Path) -> Result<Self, Refusal> {
        open_to_all(root)?;
        let directories = HashSet::from([PathBuf::new()]);
        Ok(Self { root, directories, links: Vec::new(), entries: 0, bytes: 0 })
    }

    /// The directory that it is in.
    pub(super) const fn root(&self) -> &'t Path {
        self.root
    }

    fn enter(&mut self, path: &Path) -> Result<(), Refusal> {
        self.entries = self.entries.saturating_add(1);
        if self.entries > ENTRIES || path.components().count() > DEPTH {
            let expected = format!("at most {ENTRIES} files and directories, {DEPTH} deep at most");
            return Err(refuse(path, &expected, "more"));
        }
        Ok(())
    }

    /// Makes a directory, and those around it, unless it is one already.
    pub(super) fn directory(&mut self, path: &Path) -> Result<(), Refusal> {
        if self.directories.contains(path) {
            return Ok(());
        }
        self.enter(path)?;
        let name = path.file_name().unwrap_or_default();
        if !is_safe(name) {
            return Err(refuse(path, "names that are safe", "a name that is not"));
        }
        self.directory(path.parent().unwrap_or(Path::new("")))?;
        let place = self.root.join(path);
        fs::create_dir(&place).map_err(|error| taken(path, &error))?;
        open_to_all(&place)?;
        self.directories.insert(path.to_path_buf());
        Ok(())
    }

    /// A new file, which `write` fills.
    pub(super) fn file<T>(
        &mut self,
        path: &Path,
        executable: bool,
        write: impl FnOnce(&mut Sink<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.place(path)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.root.join(path))
            .map_err(|error| taken(path, &error))?;
        let mut sink = Sink { file, bytes: &mut self.bytes };
        let done = write(&mut sink)?;
        let mode = Permissions::from_mode(if executable { 0o755 } else { 0o644 });
        sink.file.set_permissions(mode).map_err(|error| unavailable(path, &error))?;
        Ok(done)
    }

    /// A link, once all files are there.
    pub(super) fn link(&mut self, path: &Path, target: &OsStr) -> Result<(), Refusal> {
        self.place(path)?;
        if target.is_empty() || !stays_inside(path, Path::new(target)) {
            let found = "a link that leads out of it, or might";
            return Err(refuse(path, "links that stay in the source", found));
        }
        self.links.push((path.to_path_buf(), target.to_os_string()));
        Ok(())
    }

    fn place(&mut self, path: &Path) -> Result<(), Refusal> {
        self.enter(path)?;
        if !is_safe(path.file_name().unwrap_or_default()) {
            return Err(refuse(path, "names that are safe", "a name that is not"));
        }
        self.directory(path.parent().unwrap_or(Path::new("")))
    }

    /// Makes the links.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        for (path, target) in &self.links {
            symlink(target, self.root.join(path)).map_err(|error| taken(path, &error))?;
        }
        Ok(())
    }
}

/// Others may read what a command made by another user needs.
fn open_to_all(directory: &Path) -> Result<(), Refusal> {
    fs::set_permissions(directory, Permissions::from_mode(0o755))
        .map_err(|error| unavailable(directory, &error))
}

/// Of two names that this file system takes for one, the second is refused.
fn taken(path: &Path, error: &io::Error) -> Refusal {
    match error.kind() {
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            refuse(path, "each name once", "a name that is there already")
        }
        io::ErrorKind::InvalidFilename => refuse(path, "names that are safe", error.to_string()),
        _ => unavailable(path, error),
    }
}

/// Whether a part of a path names one thing below its directory, and not what a tool for version
/// control would take for its own.
fn is_safe(name: &OsStr) -> bool {
    let bytes = name.as_bytes();
    let plain = !bytes.is_empty() && bytes != b"." && bytes != b"..";
    plain && !bytes.iter().any(|byte| matches!(byte, b'/' | 0)) && !is_of_a_tool(name)
}

/// `.git` and `.hg`, in any case, with what some file systems leave out, and by their short names.
fn is_of_a_tool(name: &OsStr) -> bool {
    let invisible = |c: &char| !matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}');
    let text: String = name.to_string_lossy().chars().filter(invisible).collect();
    let text = text.to_ascii_lowercase();
    let head = text.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    let git_by_number = head.strip_prefix("git~").is_some_and(|rest| rest == "1");
    matches!(head, ".git" | ".hg") || git_by_number
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

    #[test]
    fn names_of_tools_are_recognised_however_they_are_written() {
        for name in
            [".git", ".GIT", ".git.", ".git ", ".g\u{200c}it", "git~1", "GIT~1", ".hg", ".git::x"]
        {
            assert!(!is_safe(OsStr::new(name)), "{name:?}");
        }
        for name in ["", ".", "..", "a/b"] {
            assert!(!is_safe(OsStr::new(name)), "{name:?}");
        }
        for name in [".gitignore", ".github", "git", ".hgignore", "a.git", "...", "git~12"] {
            assert!(is_safe(OsStr::new(name)), "{name:?}");
        }
    }

    #[test]
    fn nothing_is_written_over_or_through_anything() {
        let files = tempfile::tempdir().unwrap();
        let root = files.path().join("source");
        let outside = files.path().join("outside");
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        let fill = |sink: &mut Sink<'_>| {
            sink.write_all(b"x").map_err(|error| unavailable(Path::new("x"), &error))
        };
        let mut tree = Tree::new(&root).unwrap();
        tree.file(Path::new("a/b"), false, fill).unwrap();
        for path in ["a/b", "a", "a/b/c", "a/../c", "../c", "/c"] {
            let refusal = tree.file(Path::new(path), false, fill).unwrap_err();
            assert_eq!(refusal.code, Code::ChainSourceMismatch, "{path}");
        }
        // a link and, through it, a file: whatever comes first, the link is too late
        tree.link(Path::new("d"), OsStr::new("a")).unwrap();
        tree.file(Path::new("d/e"), false, fill).unwrap();
        assert_eq!(tree.finish().unwrap_err().code, Code::ChainSourceMismatch);
        assert!(!root.join("a/e").exists());
        // what somebody else put there is in the way
        symlink(&outside, root.join("w")).unwrap();
        let mut tree = Tree::new(&root).unwrap();
        let refusal = tree.file(Path::new("w/e"), false, fill).unwrap_err();
        assert_eq!(refusal.code, Code::ChainSourceMismatch);
        assert!(!outside.join("e").exists());
    }
}
