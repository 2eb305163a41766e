//! A report as one page for people who never saw Custody: what was asked, the verdict, and everything
//! that it rests on. It needs nothing but itself, runs nothing and asks nobody.

mod steps;

use std::collections::{BTreeMap, BTreeSet};

use custody_core::digest::{Digests, Hasher};
use custody_core::encoding::base64;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::sshsig::SshSignature;
use custody_verify::report::{MachineFact, Node, NodeKind, Outcome, Rule};

use super::markup::Markup;
use super::words::{counted, number};
use super::{Chart, Story, svg};
use crate::tree::fact;

/// How the page looks, on a screen, in the dark and on paper.
const STYLE: &str = "
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;margin:0;color:#1c2833;background:#fff}
main,header{max-width:64rem;margin:0 auto;padding:0 1.5rem}
header{margin-top:1.5rem;padding:1.2rem 1.5rem;border-left:.6rem solid;border-radius:.4rem}
header.good{border-color:#1f8a4c;background:#edf8f1}
header.bad{border-color:#c62828;background:#fdecea}
h1{font-size:1.6rem;line-height:1.25;margin:.1rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.3rem;margin:2.4rem 0 .6rem;border-bottom:1px solid #d5dde5;padding-bottom:.2rem}
h3{font-size:1.05rem;margin:1.6rem 0 .3rem}
.verdict{font-size:1.15rem;font-weight:700;margin:0}
.good .verdict,.ok{color:#17703d}
.bad .verdict,.no{color:#b71c1c}
.no{font-weight:700}
.quiet{color:#5b6873}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:.6rem 0}
dt{color:#5b6873}
dd{margin:0;overflow-wrap:anywhere}
code,pre{font:13px/1.45 ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:#f3f6f9;border-radius:.3rem;padding:.5rem .7rem;margin:.4rem 0}
table{border-collapse:collapse;width:100%;margin:.6rem 0}
th,td{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid #e3e9ee;overflow-wrap:anywhere}
td.n,th.n{text-align:right;white-space:nowrap}
th{font-weight:600;color:#5b6873}
.finding{border:2px solid #c62828;border-radius:.4rem;padding:.3rem 1rem;margin:.8rem 0}
.scroll{overflow-x:auto;margin:.8rem calc(50% - 50vw + 1rem);padding-bottom:.5rem}
.scroll svg{display:block;margin:0 auto}
details{margin:.25rem 0}
details>*:not(summary){margin-left:1.1rem}
summary{cursor:pointer}
a{color:#1a5fb4}
@media (prefers-color-scheme:dark){
body{background:#12181e;color:#d5dde5}
header.good{background:#14291d}
header.bad{background:#331a1b}
h2{border-color:#32404d}
pre{background:#1a222b}
th,td{border-color:#2a3641}
.quiet,dt,th{color:#93a3b3}
.good .verdict,.ok{color:#5fce8c}
.bad .verdict,.no{color:#ff8a84}
.finding{border-color:#ff6b64}
a{color:#8ab8f0}
}
@media print{
@page{size:A4 landscape;margin:12mm}
body{font-size:11px}
main,header{max-width:none;padding-left:.8rem;padding-right:0}
.scroll{overflow:visible;margin:.5rem 0}
.scroll svg{width:100%;height:auto}
h2,h3{break-after:avoid}
tr,.finding{break-inside:avoid}
details::details-content{content-visibility:visible;block-size:auto}
}
";

/// The page.
pub(crate) fn page(story: &Story<'_>) -> String {
    let chart = Chart::of(story);
    let report = story.report;
    let good = report.accepted().is_some();
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-");
    page.text(style_digest()).raw("'; base-uri 'none'; form-action 'none'\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<meta name=\"referrer\" content=\"no-referrer\">\n<title>");
    page.text(if good { "Accepted: " } else { "Refused: " }).text(&report.subject().title);
    page.raw("</title>\n<style>").raw(STYLE).raw(svg::STYLE).raw("</style>\n</head>\n<body>\n");
    verdict(&mut page, story);
    page.raw("<main>\n");
    findings(&mut page, story);
    introduction(&mut page);
    page.raw("<h2 id=\"chain\">The chain</h2>\n<p>From left to right, as it was made. Boxes lead to what is said of them below.</p>\n<div class=\"scroll\">");
    page.append(&svg::drawing(&chart, &report.subject().title, true)).raw("</div>\n");
    phases(&mut page, story);
    steps::steps(&mut page, story, &chart);
    machines(&mut page, story);
    checks(&mut page, story);
    page.raw("</main>\n</body>\n</html>\n");
    page.into_string()
}

/// What the page's one style sheet hashes to: no other is ever applied.
fn style_digest() -> String {
    let mut hasher = Hasher::new(false);
    hasher.update(STYLE.as_bytes());
    hasher.update(svg::STYLE.as_bytes());
    let (Digests { sha256, .. }, _) = hasher.finish();
    base64(sha256.as_bytes())
}

fn row(page: &mut Markup, name: &str, value: &str) {
    page.element("<dt>", name, "</dt>").element("<dd>", value, "</dd>\n");
}

fn verdict(page: &mut Markup, story: &Story<'_>) {
    let report = story.report;
    if let Some(accepted) = report.accepted() {
        page.raw("<header class=\"good\">\n<p class=\"verdict\">✓ Accepted</p>\n");
        page.element("<h1>", &report.subject().title, "</h1>\n");
        page.element("<p>It is of <b>", accepted.release(), "</b>. ");
        page.raw("Every step from the source to this file is explained, and was done by machines and allowed by people that the policy names.</p>\n");
    } else {
        page.raw("<header class=\"bad\">\n<p class=\"verdict\">✗ Refused</p>\n");
        page.element("<h1>", &report.subject().title, "</h1>\n");
        let codes: Vec<String> = report.codes().iter().map(ToString::to_string).collect();
        let why = if codes.is_empty() { "nothing was verified".into() } else { codes.join(", ") };
        page.element("<p><b>", why, "</b>. Do not use it before this is cleared up.</p>\n");
    }
    page.raw("<dl>\n");
    for (name, word) in [("SHA-256", "sha256"), ("size", "size")] {
        if let Some(value) = fact(report.subject(), word) {
            row(page, name, value);
        }
    }
    let passed = all_checks(story).filter(|check| **check == Outcome::Passed).count();
    row(page, "judged for", &report.time.to_string());
    row(page, "policy", &format!("version {}, {}", report.policy.0, report.policy.1));
    row(
        page,
        "checks",
        &format!("{} passed, {} failed", number(passed), number(report.findings().count())),
    );
    row(
        page,
        "statements searched",
        &format!("{} (for refusals, withdrawals and second results too)", number(report.view)),
    );
    page.raw("</dl>\n</header>\n");
}

fn all_checks<'s>(story: &'s Story<'_>) -> impl Iterator<Item = &'s Outcome> {
    story.report.nodes().flat_map(|node| &node.checks).map(|check| &check.outcome)
}

fn findings(page: &mut Markup, story: &Story<'_>) {
    let mut findings: Vec<_> = story.report.findings().collect();
    if findings.is_empty() {
        return;
    }
    findings.sort_by_key(|(_, _, refusal)| refusal.code);
    page.raw("<h2 id=\"refusals\">Why it is refused</h2>\n");
    for (node, rule, refusal) in findings {
        page.element("<div class=\"finding\">\n<h3>", refusal.code, ": ");
        page.text(refusal.code.meaning()).raw("</h3>\n<dl>\n");
        let id = node.id.map(|id| format!(" ({id})")).unwrap_or_default();
        row(page, "document", &format!("{}{id}", node.title));
        row(page, "where", &refusal.at);
        row(page, "rule", &format!("{}: {}", numbered(rule), rule.sentence()));
        row(page, "expected", &refusal.expected);
        row(page, "found", &refusal.found);
        row(page, "what to do", refusal.remedy());
        row(page, "how it can come about", refusal.code.example());
        page.raw("</dl>\n</div>\n");
    }
}

fn numbered(rule: Rule) -> String {
    format!("{} {}", place(rule), rule.name())
}

/// The rule's number in the list of checks.
fn place(rule: Rule) -> usize {
    Rule::ALL.iter().position(|known| *known == rule).map_or(0, |place| place + 1)
}

fn introduction(page: &mut Markup) {
    page.raw(
        "<h2>How to read this page</h2>
<p>A release is made in <b>steps</b>: something is built, signed, published. Before a step starts, a machine needs a signed
<b>task</b>; after it, the machine signs a <b>manifest</b> that lists every file it made and every file it used, by digest.
Tasks belong to a <b>phase</b>. People start a phase: one proposes it in a <b>request</b>, others <b>sign off</b> that very
request with their own keys, and the release desk then issues an <b>authorization</b>. A signed <b>policy</b> says which
people and machines may do which of these things.</p>
<p>Documents name each other by digest, so the last one commits to all before it. Custody walked from the file in question
back through all of them and applied every rule at the end of this page to each. A verdict is good only if no check failed.
This page shows what was found. It is no proof by itself: whoever has the file, the evidence and the identity of the
policy can run <code>custody verify</code> and gets the same answer.</p>
<p class=\"quiet\">Times are those that the signers wrote down, and what is claimed of a machine is that machine's
own word. What is verified of it, its platform signed.</p>
",
    );
}

/// One section for each phase: people, source, and the checks of its authorization.
fn phases(page: &mut Markup, story: &Story<'_>) {
    page.raw("<h2 id=\"people\">People and source</h2>\n");
    let mut nodes: Vec<(StatementId, &Node)> = story.nodes(NodeKind::Authorization).collect();
    let created = |id| Some(story.request(story.authorization(id)?.request)?.created);
    nodes.sort_by_key(|(id, _)| (created(*id), *id));
    if nodes.is_empty() {
        page.raw("<p>No authorization was found.</p>\n");
    }
    for (id, node) in nodes {
        let authorization = story.authorization(id);
        let request = authorization.and_then(|it| story.request(it.request));
        page.raw("<h3>");
        match request {
            Some(request) => page.text(format!("{}, phase {}", request.release, request.phase)),
            None => page.text(&node.title),
        };
        page.raw("</h3>\n<dl>\n");
        if let Some(request) = request {
            row(page, "source", &request.source.to_string());
            row(
                page,
                "pipeline",
                &format!("{}, SHA-256 {}", request.pipeline.path, request.pipeline.sha256),
            );
            for (name, value) in &request.parameters {
                row(page, "parameter", &format!("{name} = {value}"));
            }
        }
        row(page, "authorization", &id.to_string());
        page.raw("</dl>\n<table>\n<tr><th>person</th><th>role</th><th>did</th><th>when</th><th>key</th><th>comment</th></tr>\n");
        if let (Some(request), Some(authorization)) = (request, authorization) {
            let proposer = fact(node, "proposed by").unwrap_or("nobody who may");
            person(
                page,
                story,
                [proposer, "proposer", "proposed", &request.created.to_string(), ""],
                authorization.request,
            );
        }
        let mut approvers: Vec<_> = authorization.iter().flat_map(|it| &it.approvers).collect();
        approvers.sort_by_key(|approver| (&approver.person, approver.signoff));
        for approver in approvers {
            let said = story.signoff(approver.signoff);
            let (did, when) = said.map_or(("no sign-off found", String::new()), |said| {
                (said.decision.word(), said.created.to_string())
            });
            let comment = said.map(|said| said.comment.as_str()).unwrap_or_default();
            person(
                page,
                story,
                [approver.person.as_str(), approver.role.as_str(), did, &when, comment],
                approver.signoff,
            );
        }
        page.raw("</table>\n<p>Checks: ");
        check_marks(page, node);
        page.raw("</p>\n");
    }
}

fn person(
    page: &mut Markup,
    story: &Story<'_>,
    [name, role, did, when, comment]: [&str; 5],
    id: StatementId,
) {
    page.element("<tr><td><b>", name, "</b></td>").element("<td>", role, "</td>");
    page.element("<td>", did, "</td>").element("<td>", when, "</td><td><code>");
    let signatures = story.envelope(id).map(Envelope::signatures).unwrap_or_default();
    for signature in signatures {
        match SshSignature::parse(&signature.sig) {
            Ok(ssh) => page.text(format!(
                "{} {} ",
                ssh.claimed_key().ssh_type(),
                ssh.claimed_key().id().short()
            )),
            Err(_) => page
                .text(
                    signature
                        .keyid
                        .as_deref()
                        .unwrap_or("no key id")
                        .chars()
                        .take(12)
                        .collect::<String>(),
                )
                .raw(" "),
        };
    }
    page.raw("</code></td>").element("<td>", comment, "</td></tr>\n");
}

/// The checks of one document, by the numbers of their rules; what failed, in words.
fn check_marks(page: &mut Markup, node: &Node) {
    for check in &node.checks {
        let number = place(check.rule);
        match &check.outcome {
            Outcome::Passed => page.element("✓", number, " "),
            Outcome::NotRequired(_) => page.element("–", number, " "),
            Outcome::Failed(refusal) => {
                page.raw("<span class=\"no\">✗").text(number).raw(" ").text(refusal.code);
                page.element(": expected ", &refusal.expected, ", ").element(
                    "found ",
                    &refusal.found,
                    "</span> ",
                )
            }
        };
    }
}

/// Who signed what, and where they say that they were.
fn machines(page: &mut Markup, story: &Story<'_>) {
    let mut did: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut environments: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (id, node) in story.nodes(NodeKind::Manifest) {
        let Some(manifest) = story.manifest(id) else { continue };
        let name = fact(node, "performed by").unwrap_or("signed by nobody who may").to_owned();
        *did.entry(name.clone())
            .or_default()
            .entry(format!("performed {}", manifest.step))
            .or_default() += 1;
        let fact = |fact: &MachineFact| {
            let value = fact.value.as_deref().unwrap_or_default();
            format!("{}: {value} ({})", fact.name, fact.standing.name())
        };
        let environment: Vec<String> = node.machine.iter().map(fact).collect();
        environments.entry(name).or_default().insert(environment.join("\n"));
    }
    for (_, node) in story.nodes(NodeKind::Task) {
        if let Some(name) = fact(node, "scheduled by") {
            *did.entry(name.to_owned()).or_default().entry("signed tasks".into()).or_default() += 1;
        }
    }
    page.raw("<h2 id=\"machines\">Machines</h2>\n<table>\n<tr><th>machine</th><th>did</th><th>what is known of it</th></tr>\n");
    for (name, acts) in did {
        page.element("<tr><td><b>", &name, "</b></td><td>");
        for (act, times) in acts {
            page.element("", act, " × ").text(number(times)).raw("<br>");
        }
        page.raw("</td><td>");
        let said = environments.get(&name).into_iter().flatten().filter(|text| !text.is_empty());
        for text in said {
            let first = text
                .lines()
                .find(|line| line.starts_with("hostname"))
                .or_else(|| text.lines().next());
            page.element("<details><summary>", first.unwrap_or_default(), "</summary><pre>");
            for line in text.lines() {
                page.element("", line, "\n");
            }
            page.raw("</pre></details>");
        }
        page.raw("</td></tr>\n");
    }
    page.raw("</table>\n");
}

/// All rules with their outcomes, and why some were not asked for.
fn checks(page: &mut Markup, story: &Story<'_>) {
    page.raw("<h2 id=\"checks\">All checks</h2>\n<p>By these numbers the steps above show what was checked of each document: ✓ passed, ✗ failed, – not asked for by this policy.</p>\n");
    page.raw("<table>\n<tr><th class=\"n\">no.</th><th>rule</th><th class=\"n\">passed</th><th class=\"n\">failed</th><th class=\"n\">not asked for</th></tr>\n");
    for rule in Rule::ALL {
        let outcomes = || {
            let checks = story.report.nodes().flat_map(|node| &node.checks);
            checks.filter(|check| check.rule == *rule).map(|check| &check.outcome)
        };
        let counts: [usize; 3] =
            outcomes().fold([0; 3], |[passed, failed, not], outcome| match outcome {
                Outcome::Passed => [passed + 1, failed, not],
                Outcome::Failed(_) => [passed, failed + 1, not],
                Outcome::NotRequired(_) => [passed, failed, not + 1],
            });
        page.element("<tr><td class=\"n\">", place(*rule), "</td><td>");
        page.element("<code>", rule.name(), "</code><br>").text(rule.sentence());
        let reasons: BTreeSet<&str> = outcomes()
            .filter_map(|outcome| match outcome {
                Outcome::NotRequired(why) => Some(*why),
                Outcome::Passed | Outcome::Failed(_) => None,
            })
            .collect();
        for why in reasons {
            page.element("<br><span class=\"quiet\">not asked for: ", why, "</span>");
        }
        page.raw("</td>");
        for (count, class) in counts.into_iter().zip(["ok", "no", "quiet"]) {
            page.raw("<td class=\"n\"><span class=\"").raw(if count > 0 { class } else { "quiet" });
            page.element("\">", number(count), "</span></td>");
        }
        page.raw("</tr>\n");
    }
    page.raw("</table>\n");
    page.raw("<p>Of what was asked about: ");
    check_marks(page, story.report.subject());
    page.raw("</p>\n");
    let documents = counted(story.report.nodes().skip(1).count(), "document", "documents");
    page.element("<p class=\"quiet\">", documents, " were judged.</p>\n");
}
