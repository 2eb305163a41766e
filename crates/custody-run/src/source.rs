//! The source: the content of one revision, byte for byte.
//!
//! Whoever keeps the source is not believed. What comes from there goes into a repository or file of
//! our own, everything is held against the id by which people approved it, and from what was hashed the
//! files are written. No configuration, hook, filter or attribute of anybody has a say in it.

pub(crate) mod archive;
mod command;
mod git;
mod hg;
mod lfs;
mod tree;

use std::path::Path;

use custody_core::statement::{Revision, Source, Submodule};
use custody_core::vcs::SignedKind;
use custody_core::{Code, Refusal};

use self::tree::Tree;

/// What the source may bring along, and who must have signed it.
pub struct Rules<'r> {
    /// Whether submodules may come from this URI.
    pub submodule: &'r dyn Fn(&str) -> bool,
    /// Whether pointers of git LFS stand for the files that they name.
    pub lfs: bool,
    /// The signature that it must carry, if any.
    pub signature: Option<Demanded<'r>>,
}

/// Refuses a raw object that does not carry the signature, or that there is none.
pub type Check<'r> = &'r dyn Fn(Option<&[u8]>) -> Result<(), Refusal>;

/// A signature that the source must carry.
#[derive(Clone, Copy)]
pub struct Demanded<'r> {
    /// What carries it.
    pub what: SignedKind,
    /// Refuses the raw object, or that there is none.
    pub check: Check<'r>,
}

impl Default for Rules<'_> {
    /// Nothing may come along, and no signature is asked for.
    fn default() -> Self {
        Self { submodule: &|_| false, lfs: false, signature: None }
    }
}

impl std::fmt::Debug for Rules<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rules").field("lfs", &self.lfs).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Demanded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demanded").field("what", &self.what).finish_non_exhaustive()
    }
}

/// What was found while a source was checked out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// The submodules that were checked out into it.
    pub submodules: Vec<Submodule>,
    /// The raw commit or tag object that carries the signature, where one was asked for.
    pub signed: Option<Vec<u8>>,
}

/// Writes a source into `into`, an empty directory whose parent is writable.
///
/// `from` is where it is fetched from: an absolute path or a URL with `file`, `https` or `ssh`, with or
/// without `git+` or `hg+` before it. Files get mode 644 or 755.
///
/// * [`Code::ChainSourceMismatch`]: there is no such revision, the id is not a whole one, something does
///   not have the id by which it is named, or a name or link leads out of the tree;
/// * [`Code::ChainSourceForbidden`]: it brings along a submodule that `rules` do not allow;
/// * [`Code::ChainSourceUnsigned`] and others of signatures: it does not carry the one that is demanded;
/// * [`Code::GateUnavailable`]: the source is out of reach.
pub fn checkout(
    from: &str,
    source: &Source,
    rules: &Rules<'_>,
    into: &Path,
) -> Result<Checked, Refusal> {
    checked(from, source, rules, into).map_err(|refusal| refusal.within(&format!("source {from}")))
}

fn checked(
    from: &str,
    source: &Source,
    rules: &Rules<'_>,
    into: &Path,
) -> Result<Checked, Refusal> {
    let beside = git::around_of(into);
    let mut tree = Tree::new(into)?;
    let id = whole_id(&source.revision)?;
    let checked = match (&source.revision, &rules.signature) {
        (Revision::Git(_), _) => git::checkout(from, &source.uri, id, rules, beside, &mut tree)?,
        (_, Some(demanded)) => {
            (demanded.check)(None)?;
            return Err(git::mismatch("a source in git, which can be signed", "another"));
        }
        (Revision::Mercurial(_), None) => {
            hg::checkout(from, id, beside, &mut tree)?;
            Checked::default()
        }
        (Revision::Archive(_), None) => {
            archive::checkout(from, id, beside, &mut tree)?;
            Checked::default()
        }
    };
    tree.finish()?;
    Ok(checked)
}

fn whole_id(revision: &Revision) -> Result<&str, Refusal> {
    let id = revision.id();
    let hexadecimal = id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let whole = match revision {
        Revision::Git(_) => matches!(id.len(), 40 | 64),
        Revision::Mercurial(_) => id.len() == 40,
        Revision::Archive(_) => id.len() == 64,
    };
    if hexadecimal && whole {
        return Ok(id);
    }
    let shown: String = id.escape_default().take(80).collect();
    Err(git::mismatch("a whole id in lower case", &shown))
}

/// Nothing but these: other schemes can be told to run programs.
fn check_place(from: &str) -> Result<(), Refusal> {
    if ["/", "file:///", "https://", "ssh://"].iter().any(|start| from.starts_with(start)) {
        return Ok(());
    }
    let expected = "an absolute path, or a URL with file, https or ssh";
    Err(Refusal::new(Code::GateUnavailable, "repository", expected, "another"))
}
