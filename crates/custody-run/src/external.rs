//! Files from elsewhere that a task pins by digest.

use std::io::Read;
use std::path::Path;

use custody_core::statement::External;
use custody_core::{Code, Refusal};
use custody_store::Store;
use rustix::fs::CWD;
use url::Url;

use crate::destination::agent;
use crate::stage::copy::open_regular;

/// Brings a pinned file into the store, if it is not there yet: from a `file:///` path or by HTTPS.
/// Other bytes than the pinned ones are never kept.
pub(crate) fn fetch(store: &Store, pinned: &External) -> Result<(), Refusal> {
    let artifact = &pinned.artifact;
    if store.has_artifact(&artifact.digests.sha256) {
        return Ok(());
    }
    let at = format!("external {} from {}", artifact.name, pinned.uri);
    let unavailable = |found: String| {
        let advice =
            format!("see that this machine reaches {}, then run the task again", pinned.uri);
        Refusal::new(Code::GateUnavailable, at.clone(), "the file", found).advising(advice)
    };
    let reader: Box<dyn Read> = if let Some(path) = pinned.uri.strip_prefix("file://") {
        Box::new(open_regular(CWD, Path::new(path))?)
    } else if pinned.uri.starts_with("https://") {
        let url = Url::parse(&pinned.uri).map_err(|error| unavailable(error.to_string()))?;
        let response =
            agent(&url).get(&pinned.uri).call().map_err(|error| unavailable(error.to_string()))?;
        if response.status() != 200 {
            return Err(unavailable(response.status().to_string()));
        }
        Box::new(response.into_body().into_reader())
    } else {
        return Err(unavailable("a scheme other than file and https".into()));
    };
    // one byte more than pinned is enough to see that it is another file
    let limited = reader.take(artifact.size.saturating_add(1));
    store
        .put_artifact(limited, false, Some(&artifact.digests))
        .map(|_| ())
        .map_err(|refusal| refusal.within(&at))
}
