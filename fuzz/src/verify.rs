//! The judge: worlds that the fuzzer changes, and bundles that it writes.

use std::collections::BTreeSet;

use custody_core::digest::Digests;
use custody_core::envelope::{Envelope, Payload as _, PolicyText, StatementId};
use custody_core::statement::{Decision, Resolve, Signoff, Stage, Statement};
use custody_core::time::Time;
use custody_store::bundle;
use custody_verify::report::Rule;
use custody_verify::{
    Docket, Evidence, Expectation, Floor, InTurn, Judge, PolicyChain, Question, Report, Subject,
    verify,
};
use custody_world::{Builder, World, at, change, label, signed};

/// Who owns a key in the world's policy, and one who does not.
const SIGNERS: [&str; 14] = [
    "alice",
    "alice-2",
    "bob",
    "carol",
    "desk",
    "scheduler",
    "builder",
    "packer",
    "signer",
    "publisher",
    "gate",
    "decider",
    "docs",
    "mallory",
];

/// Most changes that are made to one world.
const CHANGES: usize = 8;

/// Bytes of the fuzzer as choices. Where there are none left, all choices are the first.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }

    fn below(&mut self, count: usize) -> usize {
        let choice = if count <= 256 { usize::from(self.byte()) } else { self.number() };
        choice % count
    }

    fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[self.below(items.len())]
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}

/// The honest world with changes before and after signing, judged.
pub(crate) fn world(data: &[u8]) {
    thread_local!(static HONEST: World = change().build());
    let honest = HONEST.with(World::clone);
    let mut choices = Choices(data);
    let names: Vec<&str> = honest.envelopes.keys().map(String::as_str).collect();
    let mut builder = change();
    let before_signing = choices.below(4);
    for _ in 0..before_signing {
        builder = change_before_signing(builder, &names, &mut choices);
    }
    let mut world = if before_signing == 0 { honest.clone() } else { builder.build() };
    for _ in 0..CHANGES {
        if choices.is_over() {
            break;
        }
        change_after_signing(&mut world, &mut choices);
    }
    // a policy that no root stands behind is nothing to judge by
    let chain = PolicyChain::establish(world.pin, &world.policies, world.floor);
    let Ok(chain) = chain else { return };
    let mut questions = vec![
        world.ask("hello.partial", &custody_world::content("new", "partial, signed")),
        world.ask("hello", &custody_world::content("new", "hello, signed")),
    ];
    for task in ["new/publish/task", "new/notes/task", "new/extra/task"] {
        if world.envelopes.contains_key(task) {
            questions.push(world.gate_question(task));
        }
    }
    let mut extra = world.ask("extra.txt", &custody_world::content("new", "extra"));
    extra.expect.step = Some(label("extra"));
    questions.push(extra);
    let envelopes: Vec<Envelope> = world.envelopes.values().cloned().collect();
    check(&envelopes, &chain, world.now, &questions, &mut choices);
}

/// One statement is other than it should be, and what rests on it rests on that.
fn change_before_signing(builder: Builder, names: &[&str], choices: &mut Choices<'_>) -> Builder {
    let name = *choices.of(names);
    match choices.below(8) {
        0 => {
            let by: Vec<&str> = (0..=choices.below(3)).map(|_| *choices.of(&SIGNERS)).collect();
            builder.signed_by(name, &by)
        }
        1 => {
            let (from, to) = (choices.number(), choices.number());
            builder.policy(move |text| move_line(&text, from, to))
        }
        2 => {
            let (at, with) = (choices.number(), choices.byte());
            builder.policy(move |text| put(&text, at, with))
        }
        3 => {
            let (at, with) = (choices.number(), choices.byte());
            builder.json(name, move |text| put(&text, at, with))
        }
        4 => {
            let (from, to) = (choices.number(), choices.number());
            builder.json(name, move |text| move_line(&text, from, to))
        }
        _ => {
            // one value takes the place of another: ids, digests, names and times change hands
            let (from, to) = (choices.number(), choices.number());
            builder.json(name, move |text| swap_strings(&text, from, to))
        }
    }
}

/// The text with another character at this place.
fn put(text: &str, at: usize, with: u8) -> String {
    let at = at % text.len().max(1);
    let with = char::from(with & 0x7f);
    text.char_indices().map(|(i, c)| if i == at { with } else { c }).collect()
}

/// The text with a line once more at another place, or without it if both places are one.
fn move_line(text: &str, from: usize, to: usize) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let (from, to) = (from % lines.len(), to % lines.len());
    if from == to {
        lines.remove(from);
    } else {
        lines[to] = lines[from];
    }
    lines.join("\n") + "\n"
}

/// The text with one of its quoted strings in the place of another.
fn swap_strings(text: &str, from: usize, to: usize) -> String {
    let quotes: Vec<usize> = text.match_indices('"').map(|(i, _)| i).collect();
    let strings: Vec<(usize, usize)> =
        quotes.as_chunks::<2>().0.iter().map(|[start, end]| (*start, *end)).collect();
    if strings.is_empty() {
        return text.to_owned();
    }
    let (a, b) = (strings[from % strings.len()], strings[to % strings.len()]);
    format!("{}{}{}", &text[..a.0], &text[b.0..b.1], &text[a.1..])
}

/// Evidence goes away, is changed by those who have no key, or is added by those who have.
fn change_after_signing(world: &mut World, choices: &mut Choices<'_>) {
    let names: Vec<String> = world.envelopes.keys().cloned().collect();
    if names.is_empty() {
        return;
    }
    let name = choices.of(&names).as_str();
    let added = format!("added/{}", world.envelopes.len());
    let statement = |world: &World, name: &str| {
        Statement::parse(world.envelopes[name].unverified_payload()).ok()
    };
    match choices.below(10) {
        0 => world.drop(name),
        1 => {
            // what one said under what another signed
            let other = choices.of(&names);
            let signatures = world.envelopes[other].signatures().to_vec();
            let mut envelope = bare(&world.envelopes[name]);
            signatures.into_iter().for_each(|signature| envelope.add_signature(signature));
            world.envelopes.insert(name.into(), envelope);
        }
        2 => {
            let by = *choices.of(&SIGNERS);
            let envelope = signed(world.envelopes[name].clone(), &[by]);
            world.envelopes.insert(name.into(), envelope);
        }
        3 => {
            let (at, with) = (choices.number(), choices.byte());
            let mut payload = world.envelopes[name].unverified_payload().to_vec();
            let at = at % payload.len().max(1);
            payload[at] ^= with;
            let mut envelope = Envelope::unsigned::<Statement>(payload);
            for signature in world.envelopes[name].signatures() {
                envelope.add_signature(signature.clone());
            }
            world.envelopes.insert(name.into(), envelope);
        }
        4 => {
            // a second result
            let Some(Statement::Manifest(mut manifest)) = statement(world, name) else { return };
            manifest.invocation.push('2');
            let by = *choices.of(&SIGNERS);
            world.add(&added, manifest, &[by]);
        }
        5 => {
            let Some(Statement::Signoff(signoff)) = statement(world, name) else { return };
            let withdraws = Some(world.id(name));
            let decisions = [
                Signoff { decision: Decision::Withdraw, withdraws, ..signoff.clone() },
                Signoff { decision: Decision::Refuse, ..signoff.clone() },
                Signoff { person: label("alice"), ..signoff },
            ];
            let by = *choices.of(&SIGNERS);
            world.add(&added, choices.of(&decisions).clone(), &[by]);
        }
        6 => {
            let Some(Statement::Task(_)) = statement(world, name) else { return };
            let stage = *choices.of(&[Stage::Announced, Stage::Done]);
            let intent = world.intent(name, stage, 101_000 + choices.number() as u64);
            let by = *choices.of(&SIGNERS);
            world.add(&added, intent, &[by]);
        }
        7 => {
            let Some(Statement::Task(_)) = statement(world, name) else { return };
            let other = world.id(choices.of(&names).as_str());
            let resolve = *choices.of(&[Resolve::Resume(other), Resolve::Supersede(other)]);
            let person = *choices.of(&["alice", "bob", "carol", "desk"]);
            let resolution = world.resolution(name, resolve, person);
            let by = *choices.of(&SIGNERS);
            world.add(&added, resolution, &[by]);
        }
        8 => {
            let (from, to) = (choices.number(), choices.number());
            // the world counts on from a policy that says its version
            if claimed_version(world).is_some_and(|version| version < 100) {
                world.rotate(move |text| move_line(&text, from, to));
            }
        }
        _ => {
            world.now = at(u64::from(choices.byte()) << 11);
            if choices.byte() & 1 == 1 {
                let time = at(u64::from(choices.byte()) << 11);
                world.floor = Some(Floor { version: 1, policy: world.pin, time });
            }
        }
    }
}

/// The version on the first line of the newest policy that gives one.
fn claimed_version(world: &World) -> Option<u64> {
    let text = str::from_utf8(world.policies.last()?.unverified_payload()).ok()?;
    text.lines().find_map(|line| line.strip_prefix("version = "))?.parse().ok()
}

/// The envelope without its signatures.
fn bare(envelope: &Envelope) -> Envelope {
    Envelope::unsigned::<Statement>(envelope.unverified_payload())
}

/// A bundle whose first policy is the pin: every file and every task in it is asked about.
pub(crate) fn chain(data: &[u8]) {
    let Ok(envelopes) = bundle::read(data) else { return };
    let policies: Vec<Envelope> = envelopes
        .iter()
        .filter(|envelope| envelope.payload_type() == PolicyText::TYPE)
        .cloned()
        .collect();
    let Some(pin) = policies.first().map(Envelope::id) else { return };
    let Ok(chain) = PolicyChain::establish(pin, &policies, None) else { return };
    let mut questions = Vec::new();
    for envelope in &envelopes {
        match Statement::parse(envelope.unverified_payload()) {
            Ok(Statement::Manifest(manifest)) => {
                questions.extend(manifest.artifacts.iter().take(2).map(|artifact| Question {
                    subject: Subject::Artifact {
                        name: artifact.name.to_string(),
                        digests: artifact.digests,
                        size: artifact.size,
                    },
                    expect: Expectation::default(),
                }));
            }
            Ok(Statement::Task(_)) => questions.push(Question {
                subject: Subject::Task(envelope.id()),
                expect: Expectation::default(),
            }),
            _ => {}
        }
    }
    // the newest stand last, and a few say enough
    let few = questions.split_off(questions.len().saturating_sub(12));
    let sum =
        data.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    check(&envelopes, &chain, at(101_800), &few, &mut Choices(&sum.to_le_bytes()));
}

/// What must hold for any evidence, any policies and any question.
fn check(
    envelopes: &[Envelope],
    chain: &PolicyChain,
    now: Time,
    questions: &[Question],
    choices: &mut Choices<'_>,
) {
    let evidence: Evidence = envelopes.iter().cloned().collect();
    let reports = answers(&evidence, chain, now, questions);
    let known: BTreeSet<StatementId> = evidence.iter().map(Envelope::id).collect();
    for (question, report) in questions.iter().zip(&reports) {
        check_report(question, report, &known, chain);
    }
    if let Some(i) = (!questions.is_empty()).then(|| choices.below(questions.len())) {
        let shuffled = shuffled(envelopes, choices);
        let alone = verify(&questions[i], &shuffled, chain, now);
        assert_eq!(
            alone.to_json().to_line(),
            reports[i].to_json().to_line(),
            "neither the order of evidence nor earlier questions decide anything"
        );
    }
    for _ in 0..2 {
        if known.is_empty() {
            break;
        }
        let removed = *known.iter().nth(choices.below(known.len())).expect("an envelope");
        if takes_something_back(&evidence, removed) {
            continue;
        }
        let mut less = evidence.clone();
        less.remove(removed);
        for (before, after) in reports.iter().zip(answers(&less, chain, now, questions)) {
            // that a task was done is negative evidence, and so is all by which a result counts
            let done = before.findings().all(|(_, rule, _)| rule == Rule::GateOnce);
            assert!(
                before.accepted().is_some() || after.accepted().is_none() || done,
                "{} is accepted without {removed} only; before:{}",
                after.subject().title,
                custody_world::findings(before)
            );
        }
    }
}

fn answers(
    evidence: &Evidence,
    chain: &PolicyChain,
    now: Time,
    questions: &[Question],
) -> Vec<Report> {
    let docket = Docket::open(evidence, chain, now, &InTurn);
    let mut judge = Judge::new(&docket);
    questions.iter().map(|question| judge.verify(question)).collect()
}

/// The verdict is that of the checks, the report is no longer than the evidence, and names nothing
/// that is not there.
fn check_report(
    question: &Question,
    report: &Report,
    known: &BTreeSet<StatementId>,
    chain: &PolicyChain,
) {
    let accepted = report.accepted();
    assert_eq!(accepted.is_some(), report.codes().is_empty());
    let ids: Vec<StatementId> = report.nodes().filter_map(|node| node.id).collect();
    let distinct: BTreeSet<&StatementId> = ids.iter().collect();
    assert!(report.nodes().count() <= 2 * known.len() + 16, "a report has an end");
    assert!(ids.len() <= distinct.len() + 1, "a document is looked at once");
    let Some(accepted) = accepted else { return };
    let rests_on = report.nodes().flat_map(|node| node.rests_on.iter());
    for id in ids.iter().chain(rests_on) {
        assert!(known.contains(id) || chain.get(*id).is_some(), "{id} is not among the evidence");
    }
    let wanted = &question.expect;
    let release = accepted.release();
    assert!(wanted.product.as_ref().is_none_or(|product| *product == release.product));
    assert!(wanted.version.as_ref().is_none_or(|version| *version == release.version));
    match &question.subject {
        Subject::Task(id) => assert_eq!(accepted.task().map(|(task, _)| task), Some(*id)),
        Subject::Documents(_) => panic!("documents are looked at, and never accepted"),
        Subject::Artifact { digests, size, .. } => {
            let same = |known: &Digests| known.agree(digests);
            let listed = accepted.artifacts().iter();
            assert!(listed.filter(|it| it.size == *size).any(|it| same(&it.digests)));
        }
    }
}

/// Whether the statement speaks against another: withdrawals, refusals, announcements, and results,
/// of which a second one is a fork and one at a gate says that the task was run. A certificate makes the
/// results of its key known, and a second one speaks against the key.
fn takes_something_back(evidence: &Evidence, id: StatementId) -> bool {
    let Some(envelope) = evidence.get(id) else { return false };
    match Statement::parse(envelope.unverified_payload()) {
        Ok(Statement::Signoff(signoff)) => signoff.decision != Decision::Approve,
        Ok(Statement::Manifest(_) | Statement::Intent(_) | Statement::Enrolment(_)) => true,
        _ => false,
    }
}

/// The envelopes in another order, each signature in an envelope of its own.
fn shuffled(envelopes: &[Envelope], choices: &mut Choices<'_>) -> Evidence {
    let mut evidence = Evidence::default();
    let turn = choices.below(envelopes.len().max(1));
    let (first, last) = envelopes.split_at(turn.min(envelopes.len()));
    for envelope in last.iter().rev().chain(first) {
        if envelope.payload_type() != Statement::TYPE || envelope.signatures().is_empty() {
            evidence.insert(envelope.clone());
            continue;
        }
        for signature in envelope.signatures().iter().rev() {
            let mut one = bare(envelope);
            one.add_signature(signature.clone());
            evidence.insert(one);
        }
    }
    evidence
}
