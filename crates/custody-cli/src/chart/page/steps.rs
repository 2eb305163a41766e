//! Every step with what it made, from what, and by whose order.

use std::collections::BTreeMap;

use custody_core::envelope::StatementId;
use custody_core::statement::{Artifact, InputOrigin, Manifest};
use custody_verify::report::Node;

use super::super::layout::columns;
use super::super::markup::Markup;
use super::super::words::{counted, number, size};
use super::super::{Chart, Group, Kind, State, Story};
use super::{check_marks, row};
use crate::tree::fact;

/// A box of more documents than this is folded.
const UNFOLDED: usize = 8;
/// What a report says of a machine besides its facts.
const MACHINE: [&str; 3] = ["ran in", "enrolled by", "not proved"];
/// More files than this are folded.
const FILES: usize = 20;

pub(super) fn steps(page: &mut Markup, story: &Story<'_>, chart: &Chart) {
    page.raw("<h2 id=\"steps\">Steps</h2>\n");
    let (columns, _) = columns(chart);
    for (place, lane) in chart.lanes.iter().enumerate() {
        let groups = chart.groups.iter().enumerate();
        let mut groups: Vec<_> = groups
            .filter(|(_, group)| group.lane == Some(place) && group.kind == Kind::Step)
            .collect();
        groups.sort_by_key(|(i, group)| (columns[*i], &group.title, group.state));
        for (i, group) in groups {
            page.raw("<h3 id=\"group-").text(i).raw("\">").text(&group.title);
            if group.documents.len() > 1 {
                page.raw(" × ").text(number(group.documents.len()));
            }
            page.raw(" <span class=\"quiet\">").text(&lane.title);
            if !lane.release.is_empty() {
                page.raw(" of ").text(&lane.release);
            }
            page.raw("</span></h3>\n");
            documents(page, story, group);
        }
    }
}

fn documents(page: &mut Markup, story: &Story<'_>, group: &Group) {
    match group.state {
        State::Refused => {
            let codes: Vec<String> = group.codes.iter().map(ToString::to_string).collect();
            page.element("<p class=\"no\">✗ ", codes.join(", "), "</p>\n");
        }
        State::Open => {
            page.raw("<p>Not done yet.</p>\n");
        }
        State::Passed | State::Plain => {}
    }
    let folded = group.documents.len() > UNFOLDED;
    if folded {
        let machines: Vec<&str> = group.machines.iter().map(String::as_str).collect();
        let files = counted(group.artifacts, "file", "files");
        page.raw("<details><summary>").text(counted(group.documents.len(), "run", "runs"));
        page.text(format!(" by {}; {files}, {}", machines.join(", "), size(group.bytes)));
        page.raw("</summary>\n");
    }
    for id in &group.documents {
        let Some(node) = story.documents.get(*id) else { continue };
        if let Some(manifest) = story.manifest(*id) {
            run(page, story, (*id, node), manifest, !folded);
        } else {
            page.raw("<p><code>").text(id).raw("</code> ");
            check_marks(page, node);
            page.raw("</p>\n");
        }
    }
    if folded {
        page.raw("</details>\n");
    }
}

/// One run of a step.
fn run(
    page: &mut Markup,
    story: &Story<'_>,
    (id, node): (StatementId, &Node),
    manifest: &Manifest,
    open: bool,
) {
    let said = |word: &str| fact(node, word).unwrap_or("nobody who may");
    page.raw(if open { "<details open>" } else { "<details>" });
    page.raw("<summary>signed by <b>").text(said("performed by")).raw("</b>, ran ");
    page.text(format!("{} to {}", manifest.started, manifest.finished)).raw("</summary>\n<dl>\n");
    row(page, "manifest", &id.to_string());
    if let Some(destination) = &manifest.destination {
        row(page, "published to", destination);
    }
    if !manifest.command.is_empty() {
        row(page, "command", &manifest.command.join(" "));
    }
    if let Some(source) = &manifest.source {
        row(page, "source", &source.to_string());
    }
    row(page, "task", &manifest.task.to_string());
    let task = story.documents.get(manifest.task);
    let by = task.and_then(|task| fact(task, "scheduled by")).unwrap_or("nobody who may");
    row(page, "task created by", &format!("{}, signed by {by}", manifest.creator));
    for (from, count) in inputs(story, manifest) {
        row(page, "used", &format!("{} from {from}", counted(count, "file", "files")));
    }
    for (word, value) in node.facts.iter().filter(|(word, _)| MACHINE.contains(word)) {
        row(page, word, value);
    }
    for fact in &node.machine {
        let value = fact.value.as_deref().unwrap_or("nothing said");
        row(page, &fact.name, &format!("{value} ({})", fact.standing.name()));
    }
    page.raw("</dl>\n");
    artifacts(page, &manifest.artifacts);
    page.raw("<p class=\"quiet\">Checks of the manifest: ");
    check_marks(page, node);
    if let Some(task) = task {
        page.raw("· of its task: ");
        check_marks(page, task);
    }
    page.raw("</p>\n</details>\n");
}

/// Where the files that a run used come from, and how many from there.
fn inputs(story: &Story<'_>, manifest: &Manifest) -> BTreeMap<String, usize> {
    let mut from = BTreeMap::new();
    for input in &manifest.inputs {
        let origin = match &input.origin {
            InputOrigin::External(uri) | InputOrigin::Download(uri) => uri.clone(),
            InputOrigin::Manifest(id) => match story.manifest(*id) {
                Some(manifest) => format!("step {} ({})", manifest.step, id.short()),
                None => format!("manifest {}", id.short()),
            },
        };
        *from.entry(origin).or_default() += 1;
    }
    from
}

/// Files as `sha256sum` lists them, with their sizes.
fn artifacts(page: &mut Markup, artifacts: &[Artifact]) {
    let bytes = artifacts.iter().fold(0, |sum, artifact| u64::saturating_add(sum, artifact.size));
    let files = counted(artifacts.len(), "file", "files");
    page.raw(if artifacts.len() > FILES { "<details>" } else { "<details open>" });
    page.element("<summary>made ", format!("{files}, {}", size(bytes)), "</summary><pre>");
    for artifact in artifacts {
        page.text(artifact.digests.sha256).raw("  ").text(format!("{:>11}", artifact.size));
        page.element("  ", &artifact.name, "\n");
    }
    page.raw("</pre></details>\n");
}
