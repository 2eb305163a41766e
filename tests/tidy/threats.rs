//! The threat model: attacker, goal, check, code and test, each linked to the others.

use std::collections::BTreeSet;

use custody_core::Code;
use custody_verify::report::Rule;

use crate::attacks::{Row, catalogue, rows};
use crate::{FILES, assert_none};

/// Who may be compromised alone, and who else tries something.
const ATTACKERS: [&str; 14] = [
    "storage, network, CDN, queue",
    "a worker",
    "the command of a step",
    "whoever chooses names and sizes",
    "an approver",
    "the desk",
    "the scheduler",
    "whoever sits at a gate",
    "a crash, a race",
    "root people below the threshold",
    "root people, by mistake",
    "a key thief",
    "the server's administrator",
    "the log operator",
];

/// A line of the table.
struct Aim<'t> {
    attacker: &'t str,
    goal: &'t str,
    rules: BTreeSet<&'t str>,
    codes: BTreeSet<&'t str>,
    rows: BTreeSet<&'t str>,
}

fn document(path: &str) -> &'static str {
    &FILES.iter().find(|file| file.path == path).unwrap().text
}

/// What stands between backquotes.
fn quoted(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

fn goals() -> Vec<Aim<'static>> {
    let text = document("docs/threat-model.md");
    let section = text.split("\n## Goals, checks and tests\n").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let lines = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    let goals = lines.map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, attacker, goal, rules, codes, rows, _] = cells[..] else { panic!("{line}") };
        let (rules, codes, rows) = (quoted(rules), quoted(codes), quoted(rows));
        Aim { attacker, goal, rules, codes, rows }
    });
    goals.collect()
}

fn all<'g>(
    goals: &'g [Aim<'_>],
    part: impl Fn(&'g Aim<'_>) -> &'g BTreeSet<&'g str>,
) -> BTreeSet<&'g str> {
    goals.iter().flat_map(part).copied().collect()
}

#[test]
fn every_attacker_has_goals_and_rows() {
    let goals = goals();
    let found: BTreeSet<&str> = goals.iter().map(|goal| goal.attacker).collect();
    assert_eq!(found, ATTACKERS.into_iter().collect(), "attackers");
    let wrong = goals.iter().filter(|goal| goal.rows.is_empty() && goal.rules.is_empty());
    let wrong: Vec<String> = wrong.map(|goal| goal.goal.to_owned()).collect();
    assert_none(&wrong, "goals that nothing stands against");
}

#[test]
fn every_rule_stands_against_somebody() {
    let goals = goals();
    let known: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(all(&goals, |goal| &goal.rules), known, "rules");
}

#[test]
fn every_row_that_can_be_tested_is_somebodys_attack() {
    let (goals, catalogue) = (goals(), catalogue());
    let named = all(&goals, |goal| &goal.rows);
    let known: BTreeSet<&str> = rows(&catalogue).map(|row| row.id.as_str()).collect();
    let unknown: Vec<String> = named.difference(&known).map(ToString::to_string).collect();
    assert_none(&unknown, "rows that tests/attacks.toml does not have");
    let left_out = rows(&catalogue)
        .filter(|row| row.tier < 3 && row.is_tested() && !named.contains(row.id.as_str()));
    let left_out: Vec<String> = left_out.map(|row| row.id.clone()).collect();
    assert_none(&left_out, "rows that the threat model does not name");
}

#[test]
fn codes_are_those_of_the_rows_and_all_that_rules_give() {
    let (goals, catalogue) = (goals(), catalogue());
    let mut wrong = Vec::new();
    for goal in &goals {
        let here = rows(&catalogue).filter(|row: &&Row| goal.rows.contains(row.id.as_str()));
        let codes: BTreeSet<&str> =
            here.flat_map(|row| row.codes.iter().map(String::as_str)).collect();
        let differ = codes.symmetric_difference(&goal.codes);
        wrong.extend(differ.map(|code| format!("{}: {}: {code}", goal.attacker, goal.goal)));
    }
    assert_none(&wrong, "codes that a goal has and its rows have not, or the other way round");
    let given = quoted_codes(document("docs/formats/verification.md"));
    let named = all(&goals, |goal| &goal.codes);
    let left_out: Vec<String> = given.difference(&named).map(ToString::to_string).collect();
    assert_none(&left_out, "codes that rules give and no goal names");
}

fn quoted_codes(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().flat_map(quoted);
    lines.filter(|text| Code::from_name(text).is_some()).collect()
}
