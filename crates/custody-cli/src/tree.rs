//! Reports as people read them: the chain as a tree, refusals as a form with the same lines always.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use custody_core::envelope::StatementId;
use custody_verify::Report;
use custody_verify::report::{Node, NodeKind, Outcome};

use crate::machine;
use crate::ui::{BAD, BOLD, DIM, GOOD};

/// How many documents of one kind are drawn below one other before they are counted only.
const DRAWN: usize = 6;
/// How many findings are spelled out.
const FINDINGS: usize = 5;

/// Whether a terminal obeys the character, or hides or turns others for it.
pub(crate) fn is_obeyed(c: char) -> bool {
    let hidden =
        matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}');
    c.is_control() || hidden || matches!(c, '\u{61c}' | '\u{feff}')
}

/// Text of strangers, fit for one line of a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) { clean.extend(c.escape_unicode()) } else { clean.push(c) }
    }
    clean
}

/// What a document says of itself under this word.
pub(crate) fn fact<'n>(node: &'n Node, word: &str) -> Option<&'n str> {
    node.facts.iter().find(|(known, _)| *known == word).map(|(_, value)| value.as_str())
}

/// The documents of a report, to walk from each to those that it rests on.
pub(crate) struct Documents<'r>(BTreeMap<StatementId, &'r Node>);

impl<'r> Documents<'r> {
    pub(crate) fn of(report: &'r Report) -> Self {
        Self(report.nodes().filter_map(|node| Some((node.id?, node))).collect())
    }

    pub(crate) fn get(&self, id: StatementId) -> Option<&'r Node> {
        self.0.get(&id).copied()
    }

    /// What a document rests on, as far as the report has nodes for it: what allowed it first, then by
    /// name.
    pub(crate) fn below(&self, node: &Node) -> Vec<&'r Node> {
        let mut below: Vec<&Node> = node.rests_on.iter().filter_map(|id| self.get(*id)).collect();
        below.sort_by_key(|child| (child.kind == NodeKind::Manifest, &child.title, child.id));
        below.dedup_by_key(|child| child.id);
        below
    }
}

struct Drawing<'r> {
    documents: Documents<'r>,
    drawn: BTreeSet<StatementId>,
    text: String,
}

/// The tree of an accepted chain.
pub(crate) fn accepted(report: &Report) -> String {
    let documents = Documents::of(report);
    let mut drawing = Drawing { documents, drawn: BTreeSet::new(), text: String::new() };
    let release =
        report.accepted().map(|accepted| accepted.release().to_string()).unwrap_or_default();
    let _infallible = writeln!(
        drawing.text,
        "{GOOD}✓ {}{GOOD:#} is of {BOLD}{}{BOLD:#}\n",
        shown(&report.subject().title),
        shown(&release)
    );
    let subject = report.subject();
    let digest =
        fact(subject, "sha256").map(|digest| format!("  sha256 {digest}")).unwrap_or_default();
    let _infallible = writeln!(drawing.text, "{}{DIM}{digest}{DIM:#}", shown(&subject.title));
    drawing.children(subject, "");
    drawing.text + &summary(report)
}

fn summary(report: &Report) -> String {
    let all = || report.nodes().flat_map(|node| &node.checks);
    let passed = all().filter(|check| check.outcome == Outcome::Passed).count();
    let reasons: BTreeSet<&str> = all()
        .filter_map(|check| match check.outcome {
            Outcome::NotRequired(why) => Some(why),
            Outcome::Passed | Outcome::Failed(_) => None,
        })
        .collect();
    let mut text = format!(
        "\n{passed} checks passed at {} under policy {} ({}).\nNothing spoke against it among {} statements.\n",
        report.time,
        report.policy.0,
        report.policy.1.short(),
        report.view
    );
    for why in reasons {
        let _infallible = writeln!(text, "{DIM}Not asked for: {why}.{DIM:#}");
    }
    text
}

impl Drawing<'_> {
    /// What a document rests on, grouped so that 500 alike do not hide the one that differs.
    fn children(&mut self, node: &Node, indent: &str) {
        let mut lines: Vec<(String, Option<&Node>)> = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for child in self.documents.below(node) {
            let count = counts.entry(child.title.as_str()).or_default();
            *count += 1;
            if *count <= DRAWN {
                lines.push((headline(child), Some(child)));
            }
        }
        for (title, count) in counts.into_iter().filter(|(_, count)| *count > DRAWN) {
            lines.push((format!("{DIM}… and {} more: {title}{DIM:#}", count - DRAWN), None));
        }
        if node.kind == NodeKind::Authorization
            && let Some(source) = fact(node, "source")
        {
            lines.push((format!("source {BOLD}{}{BOLD:#}", shown(source)), None));
        }
        lines.extend(machine::known(node).into_iter().map(|line| (line, None)));
        let last = lines.len().saturating_sub(1);
        for (i, (line, child)) in lines.into_iter().enumerate() {
            let (branch, deeper) =
                if i == last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let again = child.and_then(|child| child.id).is_some_and(|id| !self.drawn.insert(id));
            let mark = if again { format!(" {DIM}(see above){DIM:#}") } else { String::new() };
            let _infallible = writeln!(self.text, "{indent}{branch}{line}{mark}");
            if let Some(child) = child.filter(|_| !again) {
                self.children(child, &format!("{indent}{deeper}"));
            }
        }
    }
}

/// One line that says what a document is and who stands behind it.
fn headline(node: &Node) -> String {
    let id = node.id.map(|id| id.short()).unwrap_or_default();
    let said = |word: &str| fact(node, word).map(shown).unwrap_or_default();
    let text = match node.kind {
        NodeKind::Manifest => {
            let step = node.title.strip_prefix("manifest of step ").unwrap_or(&node.title);
            let place = fact(node, "published to")
                .map(|place| format!(" → {}", shown(place)))
                .unwrap_or_default();
            format!(
                "step {BOLD}{step}{BOLD:#} by machine {BOLD}{}{BOLD:#}{place}, {}; made {}",
                said("performed by"),
                said("ran"),
                said("made")
            )
        }
        NodeKind::Task => {
            format!("task created by {}, signed by {}", said("created by"), said("scheduled by"))
        }
        NodeKind::Authorization => {
            let phase = node.title.strip_prefix("authorization of ").unwrap_or(&node.title);
            format!(
                "{phase} approved by {BOLD}{}{BOLD:#}; proposed by {}; {}",
                said("approved by"),
                said("proposed by"),
                said("release")
            )
        }
        NodeKind::Subject => node.title.clone(),
    };
    format!("{text} {DIM}{id}{DIM:#}")
}

/// A rejected report: each finding as a form with the same lines.
pub(crate) fn rejected(report: &Report) -> String {
    let count = report.findings().count();
    let codes = report.codes();
    let primary = codes.first().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(
        "{BAD}✗ refused: {}{BAD:#} {BOLD}{primary}{BOLD:#}\n",
        shown(&report.subject().title)
    );
    let mut findings: Vec<_> = report.findings().collect();
    findings.sort_by_key(|(_, _, refusal)| refusal.code);
    for (node, rule, refusal) in findings.into_iter().take(FINDINGS) {
        let id = node.id.map(|id| format!(" ({})", id.short())).unwrap_or_default();
        let _infallible = write!(
            text,
            "\n  {BOLD}{}{BOLD:#} {}\n  document   {}{id}\n  where      {}\n  rule       {}: {}\n  expected   {}\n  found      {}\n  do         {}\n",
            refusal.code,
            refusal.code.meaning(),
            shown(&node.title),
            shown(&refusal.at),
            rule.name(),
            rule.sentence(),
            shown(&refusal.expected),
            shown(&refusal.found),
            shown(refusal.remedy()),
        );
    }
    if count > FINDINGS {
        let _infallible =
            writeln!(text, "\n  … and {} more findings (--json has them all)", count - FINDINGS);
    }
    if count == 0 {
        text.push_str("\n  nothing was verified, and nothing verified is not success\n");
    }
    let _infallible = writeln!(
        text,
        "\n{DIM}judged at {} under policy {} ({}){DIM:#}",
        report.time,
        report.policy.0,
        report.policy.1.short()
    );
    text
}

/// What a command printed, line by line and without anything that a terminal would obey.
pub(crate) fn shown_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(shown).collect::<Vec<_>>().join("\n")
}
