//! What is known of machines, as people read it: each fact beside how well it is known.

use custody_core::statement::Manifest;
use custody_verify::policy::Standing;
use custody_verify::report::Node;

use crate::tree::{fact, shown};

/// How many facts of one standing stand on one line.
const LISTED: usize = 8;

/// Facts of platforms have the platform before a dot; what the worker measured itself has none. What was
/// measured at boot says nothing to people.
fn is_told(name: &str) -> bool {
    name.split_once('.').is_some_and(|(_, fact)| !fact.starts_with("pcr-"))
}

/// What a report knows of the machine of a manifest: the image, a line for each standing, what is proved
/// first, and why something is not.
pub(crate) fn known(node: &Node) -> Vec<String> {
    let of = |standing: Standing| {
        let facts = node.machine.iter().filter(|fact| fact.standing == standing);
        let told = facts.filter(|fact| standing != Standing::Claimed || is_told(&fact.name));
        line(
            standing.name(),
            told.map(|fact| (&*fact.name, fact.value.as_deref().unwrap_or_default())),
        )
    };
    let standings = [Standing::Verified, Standing::Claimed, Standing::Absent].into_iter();
    let image = fact(node, "ran in").map(|image| format!("image {}", shown(image)));
    let unproved = node.facts.iter().filter(|(word, _)| *word == "not proved");
    let unproved = unproved.map(|(_, why)| format!("not proved: {}", shown(why)));
    image.into_iter().chain(standings.filter_map(of)).chain(unproved).collect()
}

/// What a manifest says of its machine by the names of platforms. Nothing of it is verified.
pub(crate) fn claimed(manifest: &Manifest) -> Option<String> {
    let facts = manifest.environment.iter().filter(|(name, _)| is_told(name));
    line(Standing::Claimed.name(), facts.map(|(name, value)| (&**name, &**value)))
}

fn line<'f>(standing: &str, facts: impl Iterator<Item = (&'f str, &'f str)>) -> Option<String> {
    let mut facts: Vec<String> =
        facts.map(|(name, value)| shown(format!("{name} {value}").trim_end())).collect();
    let beyond = facts.len().saturating_sub(LISTED);
    facts.truncate(LISTED);
    if beyond > 0 {
        facts.push(format!("and {beyond} more"));
    }
    (!facts.is_empty()).then(|| format!("machine, {standing}: {}", facts.join(", ")))
}

/// All that a manifest says of where it was made, for whoever looks at it alone.
pub(crate) fn described(manifest: &Manifest) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: &str| {
        text += &format!("claimed   {:<28} {}\n", shown(name), shown(value));
    };
    row("creator", &manifest.creator);
    if let Some(image) = &manifest.image {
        row("image", &format!("{} for {}, image sha256:{}", image.name, image.platform, image.id));
    }
    for (name, value) in &manifest.environment {
        row(name, value);
    }
    for attestation in &manifest.attestations {
        let parts: Vec<&str> = attestation.parts.iter().map(|(name, _)| name.as_str()).collect();
        text += &format!("attested  {:<28} {}\n", attestation.platform, parts.join(", "));
    }
    text
}
