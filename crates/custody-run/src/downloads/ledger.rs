//! What may be given, and what was: the rules of one run.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custody_core::digest::{Digests, Sha256};
use custody_core::name::ArtifactName;
use custody_core::statement::{Artifact, Downloads, InputOrigin, Pinned, UsedInput};
use custody_core::{Code, Refusal};
use custody_store::{Staged, Store};
use url::Url;

use super::Fetched;
use super::upstream::{Said, Upstream, Watched};

/// A server may send on so many times.
const REDIRECTS: usize = 10;
/// So many requests may come to something.
const MOST: usize = 50_000;
/// So many that did not are told.
const NOTES: usize = 1_000;

/// The answer to a request.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// This artifact of the store.
    Given { sha256: Sha256, size: u64, kind: &'static str },
    /// Nothing, and why.
    Denied(u16, &'static str),
}

type Slot = Arc<Mutex<Option<Answer>>>;

#[derive(Debug)]
pub(super) struct Ledger<'l> {
    store: &'l Store,
    downloads: &'l Downloads,
    pins: Option<BTreeMap<&'l str, &'l Pinned>>,
    upstream: &'l Upstream,
    limit: u64,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One for each URI, held by whoever fetches it.
    slots: BTreeMap<String, Slot>,
    given: BTreeMap<String, (Digests, u64)>,
    bytes: u64,
    notes: Vec<String>,
    /// For this the run has no manifest.
    fault: Option<Refusal>,
}

impl<'l> Ledger<'l> {
    pub(super) fn new(
        store: &'l Store,
        downloads: &'l Downloads,
        upstream: &'l Upstream,
        limit: u64,
    ) -> Self {
        let pins = downloads
            .pinned
            .as_ref()
            .map(|pinned| pinned.iter().map(|pin| (pin.uri.as_str(), pin)).collect());
        let (stop, state) = (AtomicBool::new(false), Mutex::default());
        Self { store, downloads, pins, upstream, limit, stop, state }
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says in the log that something was not given.
    pub(super) fn note(&self, what: &str, why: &str) {
        let mut state = self.state();
        if state.notes.len() < NOTES {
            let what: String = what.escape_debug().take(400).collect();
            state.notes.push(format!("{what}: {why}"));
        }
    }

    /// Whether anything may be fetched from a host (with its port, where that is not 443) by TLS.
    pub(super) fn knows_host(&self, host: &str) -> bool {
        let start = format!("https://{host}/");
        self.downloads.from.iter().any(|from| from.starts_with(&start))
    }

    /// The answer for a URI in normal form. Of several at a time for the same, one fetches.
    pub(super) fn answer(&self, uri: &str) -> Answer {
        if !self.downloads.covers(uri) {
            return self.deny(uri, 403, "not among the downloads that the task declares");
        }
        let pin = match &self.pins {
            None => None,
            Some(pins) => match pins.get(uri) {
                Some(pin) => Some(*pin),
                None => return self.deny(uri, 404, "not among the pins of the task"),
            },
        };
        let slot = Arc::clone(self.state().slots.entry(uri.to_owned()).or_default());
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = &*slot {
            return answer.clone();
        }
        let answer = self.find(uri, pin).unwrap_or_else(|refusal| {
            self.note(uri, &format!("{}, found {}", refusal.code, refusal.found));
            self.state().fault.get_or_insert(refusal.within(&format!("download {uri}")));
            Answer::Denied(502, "refused by the worker, whose log says why")
        });
        // a server that fails may be asked again
        if !matches!(answer, Answer::Denied(429 | 500..=599, _)) || self.state().fault.is_some() {
            *slot = Some(answer.clone());
        }
        answer
    }

    pub(super) fn deny(&self, what: &str, status: u16, why: &'static str) -> Answer {
        self.note(what, why);
        Answer::Denied(status, why)
    }

    fn find(&self, uri: &str, pin: Option<&Pinned>) -> Result<Answer, Refusal> {
        // what is pinned and here needs nobody
        if let Some(pin) = pin.filter(|pin| self.store.has_artifact(&pin.digests.sha256)) {
            return self.give(uri, pin.digests, pin.size);
        }
        let mut place = uri.to_owned();
        for _ in 0..=REDIRECTS {
            match self.upstream.ask(&place) {
                Said::Body(body) => return self.take(uri, body, pin),
                Said::Elsewhere(there) if self.downloads.covers(&there) => place = there,
                Said::Elsewhere(there) => {
                    let what = format!("{uri} -> {there}");
                    return Ok(self.deny(
                        &what,
                        403,
                        "a redirect to what the task does not declare",
                    ));
                }
                Said::Status(status) => {
                    self.note(uri, &format!("the server answers {status}"));
                    let status = if (400..600).contains(&status) { status } else { 502 };
                    return Ok(Answer::Denied(status, "as the server says"));
                }
                Said::Fault(fault) => {
                    self.note(uri, &fault);
                    return Ok(Answer::Denied(502, "the server cannot be used"));
                }
            }
        }
        Ok(self.deny(uri, 502, "too many redirects"))
    }

    fn take(
        &self,
        uri: &str,
        body: Box<dyn std::io::Read>,
        pin: Option<&Pinned>,
    ) -> Result<Answer, Refusal> {
        let left = self.limit.saturating_sub(self.state().bytes);
        let most = pin.map_or(left, |pin| pin.size.min(left));
        // one byte more is enough to see that it is too much
        let reader = Watched { body, stop: &self.stop }.take(most.saturating_add(1));
        let sha512 = pin.is_some_and(|pin| pin.digests.sha512.is_some());
        let staged = match self.store.stage(reader, sha512, None) {
            Ok(staged) => staged,
            Err(refusal) => {
                self.note(uri, &refusal.found);
                return Ok(Answer::Denied(502, "the body broke off"));
            }
        };
        let (digests, size) = (*staged.digests(), staged.size());
        match pin {
            Some(pin) => check(pin, &staged)?,
            None if size > left => {
                let (expected, found) = (format!("{} bytes for all downloads", self.limit), "more");
                return Err(Refusal::new(Code::ParseSizeExceeded, "", expected, found));
            }
            None => {}
        }
        self.store.keep(vec![staged])?;
        self.give(uri, digests, size)
    }

    /// Records what the command is about to get.
    fn give(&self, uri: &str, digests: Digests, size: u64) -> Result<Answer, Refusal> {
        let mut state = self.state();
        let bytes = state.bytes.saturating_add(size);
        if bytes > self.limit || state.given.len() >= MOST {
            let expected = format!("{} bytes and {MOST} files for all downloads", self.limit);
            return Err(Refusal::new(Code::ParseSizeExceeded, "", expected, "more"));
        }
        state.bytes = bytes;
        state.given.insert(uri.to_owned(), (digests, size));
        drop(state);
        let mut start = Vec::new();
        let file = self.store.open_artifact(&digests.sha256)?;
        file.take(64).read_to_end(&mut start).unwrap_or_default();
        Ok(Answer::Given { sha256: digests.sha256, size, kind: kind(&start) })
    }

    /// Sends an artifact on. The end is held back until all of it was hashed.
    pub(super) fn send(
        &self,
        sha256: &Sha256,
        size: u64,
        to: &mut dyn std::io::Write,
    ) -> std::io::Result<()> {
        let mut held = HeldBack { to, held: Vec::new() };
        match self.store.copy_artifact(sha256, &mut held) {
            Ok(found) if found == size => {
                held.to.write_all(&held.held)?;
                held.to.flush()
            }
            Ok(found) => {
                let (expected, found) = (format!("{size} bytes"), format!("{found} bytes"));
                let at = format!("artifact {sha256}");
                let refusal = Refusal::new(Code::ArtSizeMismatch, at, expected, found);
                self.state().fault.get_or_insert(refusal.clone());
                Err(std::io::Error::other(refusal))
            }
            Err(refusal) => {
                // a client that goes away says nothing about the artifact
                if matches!(refusal.code, Code::StoreCorrupt | Code::ArtMissing) {
                    self.state().fault.get_or_insert(refusal.clone());
                }
                Err(std::io::Error::other(refusal))
            }
        }
    }

    pub(super) fn finish(self) -> Result<Fetched, Refusal> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = state.fault {
            return Err(fault);
        }
        let inputs = state
            .given
            .into_iter()
            .map(|(uri, (digests, size))| {
                let artifact = Artifact { name: name(&uri)?, digests, size };
                Ok(UsedInput { artifact, origin: InputOrigin::Download(uri) })
            })
            .collect::<Result<_, Refusal>>()?;
        Ok(Fetched { inputs, notes: state.notes })
    }
}

fn check(pin: &Pinned, staged: &Staged) -> Result<(), Refusal> {
    if staged.size() == pin.size && pin.digests.agree(staged.digests()) {
        return Ok(());
    }
    let found = if staged.size() > pin.size {
        format!("more than {} bytes", pin.size)
    } else {
        format!("sha256 {}, {} bytes", staged.digests().sha256, staged.size())
    };
    let expected = format!("sha256 {}, {} bytes, as pinned", pin.digests.sha256, pin.size);
    Err(Refusal::new(Code::ArtDigestMismatch, "", expected, found))
}

/// What a client is told that the bytes are. It follows from the bytes alone, so that it is the same
/// whether they were fetched or were here.
fn kind(start: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        "text/html; charset=utf-8"
    } else if text.starts_with(['{', '[']) {
        "application/json"
    } else {
        "application/octet-stream"
    }
}

/// How the manifest calls what was fetched: by host and path where that is a name, otherwise by a digest
/// of the URI, which stands beside it and is what counts.
fn name(uri: &str) -> Result<ArtifactName, Refusal> {
    let readable = Url::parse(uri).ok().and_then(|uri| {
        format!("{}{}{}", uri.host_str()?, uri.path(), uri.query().unwrap_or_default()).parse().ok()
    });
    readable.map_or_else(|| Sha256::of(uri.as_bytes()).to_string().parse(), Ok)
}

/// Keeps the last bytes that were written until somebody lets them go.
struct HeldBack<'h> {
    to: &'h mut dyn std::io::Write,
    held: Vec<u8>,
}

impl std::io::Write for HeldBack<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.to.write_all(&self.held)?;
        self.held.clear();
        self.held.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
