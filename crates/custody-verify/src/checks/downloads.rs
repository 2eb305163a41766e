//! What a command may fetch while it runs, and what it did fetch.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

use custody_core::digest::Digests;
use custody_core::statement::{Downloads, InputOrigin, Manifest, Task};
use custody_core::{Code, Refusal};

use crate::judge::shown;
use crate::policy::Step;

/// The task asks for no more than the policy allows, and contradicts itself nowhere.
pub(crate) fn allowed(task: &Task, step: &Step) -> Result<(), Refusal> {
    let Some(downloads) = &task.downloads else { return Ok(()) };
    let at = format!("downloads of task of step {}", task.step);
    let refuse = |code, expected: String, found: String| {
        Err(Refusal::new(code, at.clone(), expected, found))
    };
    if task.network {
        let expected = "downloads or the network, not both".into();
        return refuse(Code::StmtParameterUnexpected, expected, "both".into());
    }
    if let Some(from) = downloads.from.iter().find(|from| !step.allows_download(from)) {
        let allowed = if step.downloads.is_empty() {
            "none: the policy lists no downloads for this step".into()
        } else {
            step.downloads.join(", ")
        };
        return refuse(Code::ChainInputUnaccounted, allowed, shown(from));
    }
    let Some(pinned) = &downloads.pinned else {
        return if step.record_downloads {
            Ok(())
        } else {
            let expected = "pins: the policy does not let this step record what it finds";
            refuse(Code::ChainInputUnaccounted, expected.into(), "no pins".into())
        };
    };
    if let Some(pin) = pinned.iter().find(|pin| !downloads.covers(&pin.uri)) {
        return refuse(Code::ChainInputUnaccounted, downloads.from.join(", "), shown(&pin.uri));
    }
    let mut seen = BTreeSet::new();
    match pinned.iter().find(|pin| !seen.insert(&pin.uri)) {
        None => Ok(()),
        Some(twice) => {
            let expected = "one pin for each URI".into();
            refuse(Code::StmtSubjectDuplicate, expected, shown(&twice.uri))
        }
    }
}

/// How many of the inputs were fetched. Each is what the task pins, or what it lets be recorded, and one
/// URI has given one file.
pub(crate) fn used(manifest: &Manifest, task: &Task) -> Result<usize, Refusal> {
    let mut pins = task.downloads.as_ref().map(Allowance::of);
    let mut count: usize = 0;
    for input in &manifest.inputs {
        let InputOrigin::Download(uri) = &input.origin else { continue };
        let at = || format!("manifest of step {}, download {}", manifest.step, shown(uri));
        let Some(allowance) = &mut pins else {
            let expected = "no downloads: the task allows none";
            return Err(Refusal::new(Code::ChainInputUnaccounted, at(), expected, "one"));
        };
        let found = (&input.artifact.digests, input.artifact.size);
        allowance.check(uri, found).map_err(|refusal| refusal.within(&at()))?;
        count = count.saturating_add(1);
    }
    Ok(count)
}

/// What is allowed, for one manifest.
struct Allowance<'t> {
    downloads: &'t Downloads,
    pins: Option<BTreeMap<&'t str, (&'t Digests, u64)>>,
    seen: BTreeSet<String>,
}

impl<'t> Allowance<'t> {
    fn of(downloads: &'t Downloads) -> Self {
        let pins = downloads.pinned.as_ref().map(|pinned| {
            pinned.iter().map(|pin| (pin.uri.as_str(), (&pin.digests, pin.size))).collect()
        });
        Self { downloads, pins, seen: BTreeSet::new() }
    }

    fn check(&mut self, uri: &str, found: (&Digests, u64)) -> Result<(), Refusal> {
        let refuse =
            |code, expected: String, found: &str| Err(Refusal::new(code, "", expected, found));
        if !self.downloads.covers(uri) {
            let expected = self.downloads.from.join(", ");
            return refuse(Code::ChainInputUnaccounted, expected, "another place");
        }
        if !self.seen.insert(uri.into()) {
            let expected = "each URI once".into();
            return refuse(Code::StmtSubjectDuplicate, expected, "a second file from there");
        }
        let Some(pins) = &self.pins else { return Ok(()) };
        match pins.get(uri) {
            None => {
                refuse(Code::ChainInputUnaccounted, "what the task pins".into(), "no pin of it")
            }
            Some((digests, size)) if found.1 == *size && digests.agree(found.0) => Ok(()),
            Some(pin) => refuse(Code::ArtDigestMismatch, bytes(*pin), &bytes(found)),
        }
    }
}

fn bytes((digests, size): (&Digests, u64)) -> String {
    format!("sha256 {}, {size} bytes", digests.sha256)
}
