//! Google Compute Engine: an identity token of the instance (Compute Engine documentation, "Verify the
//! identity of a VM").

use custody_core::digest::Sha256;
use custody_machine::{Preset, audience};

use super::Unanswered;
use super::http::Client;
use super::said::Said;

/// The address of `metadata.google.internal`, which is not asked for: names can be answered by others.
const PLACE: &str = "http://169.254.169.254/computeMetadata/v1/instance/service-accounts/default";

pub(super) fn ask(binding: &Sha256) -> Result<Said, Unanswered> {
    let expected = "an identity token of Google's metadata server";
    let url = format!("{PLACE}/identity?audience={}&format=full", audience(binding));
    let answer = Client::local().get(&url, &[("Metadata-Flavor", "Google")]);
    let answer = answer.map_err(|fault| Unanswered::new(expected, fault.into_found()))?;
    if answer.headers.get("metadata-flavor").is_none_or(|flavor| flavor != "Google") {
        return Err(Unanswered::new(expected, "an answer without Metadata-Flavor: Google"));
    }
    Said::by_token(&String::from_utf8_lossy(&answer.body), Preset::Google)
}
