//! The catalogue of attacks, the tests that stand for its rows, and the document that says so.
//!
//! A test names rows between backquotes in the comment above it. A case of the vectors lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use custody_core::Code;
use serde::Deserialize;
use serde_json::Value;

use crate::{FILES, ROOT, assert_none, files_with};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Catalogue {
    not_yet: BTreeMap<String, String>,
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    title: String,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) tier: u8,
    what: String,
    pub(crate) codes: Vec<String>,
    not_yet: Option<String>,
    not_ours: Option<String>,
    note: Option<String>,
}

impl Row {
    pub(crate) const fn is_tested(&self) -> bool {
        self.not_yet.is_none() && self.not_ours.is_none()
    }
}

pub(crate) fn catalogue() -> Catalogue {
    let file = FILES.iter().find(|file| file.path == "tests/attacks.toml").unwrap();
    toml::from_str(&file.text).unwrap()
}

pub(crate) fn rows(catalogue: &Catalogue) -> impl Iterator<Item = &Row> {
    catalogue.section.iter().flat_map(|section| &section.rows)
}

/// What begins the ids of rows.
fn families(catalogue: &Catalogue) -> BTreeSet<&str> {
    rows(catalogue).filter_map(|row| row.id.split_once('-')).map(|(family, _)| family).collect()
}

/// What stands for a row.
#[derive(Default)]
struct Found {
    /// `path: function`
    tests: BTreeSet<String>,
    /// `GROUP/NAME` and the code of a refusal.
    vectors: Vec<(String, Option<String>)>,
}

/// What stands between backquotes in the comment above each test, with the test's place.
fn named_by_tests() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in files_with("rs") {
        let lines: Vec<&str> = file.text.lines().map(str::trim).collect();
        for (at, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[test]") {
            let above = lines[..at]
                .iter()
                .rev()
                .take_while(|line| line.starts_with("///") || line.starts_with("#["));
            let below =
                lines[at..].iter().find_map(|line| line.strip_prefix("fn ")?.split('(').next());
            let path = file.path.replace("/main.rs", ".rs");
            let place = format!("{path}: {}", below.unwrap());
            for line in above.filter(|line| line.starts_with("///")) {
                // every second part stands between backquotes
                let quoted = line.split('`').skip(1).step_by(2);
                found.extend(quoted.map(|text| (text.to_owned(), place.clone())));
            }
        }
    }
    found
}

/// The rows of each case of the vectors, and what the case says of itself.
fn named_by_vectors() -> Vec<(String, String, Option<String>)> {
    let cases = files_with("json").into_iter().filter_map(|file| {
        let name = file.path.strip_prefix("vectors/cases/")?.strip_suffix(".json")?;
        Some((name, serde_json::from_str::<Value>(&file.text).unwrap()))
    });
    let rows = |(name, case): (&str, Value)| {
        let code = case["code"].as_str().map(ToOwned::to_owned);
        let rows = case["rows"].as_array().unwrap().clone();
        let row = move |row: Value| row.as_str().unwrap().to_owned();
        let name = name.to_owned();
        rows.into_iter().map(move |r| (row(r), name.clone(), code.clone())).collect::<Vec<_>>()
    };
    cases.flat_map(rows).collect()
}

fn found(catalogue: &Catalogue) -> BTreeMap<String, Found> {
    let families = families(catalogue);
    let mut found: BTreeMap<String, Found> = BTreeMap::new();
    for (row, place) in named_by_tests() {
        if is_row(&row, &families) {
            found.entry(row).or_default().tests.insert(place);
        }
    }
    for (row, name, code) in named_by_vectors() {
        found.entry(row).or_default().vectors.push((name, code));
    }
    found
}

fn is_row(text: &str, families: &BTreeSet<&str>) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    plain && text.split_once('-').is_some_and(|(family, _)| families.contains(family))
}

#[test]
fn the_catalogue_is_whole() {
    let catalogue = catalogue();
    let ids: BTreeSet<&str> = rows(&catalogue).map(|row| row.id.as_str()).collect();
    assert_eq!((ids.len(), rows(&catalogue).count()), (343, 343), "rows");
    let mut wrong = Vec::new();
    for row in rows(&catalogue) {
        let unknown = row.codes.iter().filter(|code| Code::from_name(code).is_none());
        wrong.extend(unknown.map(|code| format!("{}: no code {code}", row.id)));
        if let Some(reason) =
            row.not_yet.as_ref().filter(|key| !catalogue.not_yet.contains_key(*key))
        {
            wrong.push(format!("{}: no reason {reason}", row.id));
        }
        if !(1..=3).contains(&row.tier) || row.not_yet.is_some() && row.not_ours.is_some() {
            wrong.push(row.id.clone());
        }
    }
    assert_none(&wrong, "rows of tests/attacks.toml that cannot be");
}

#[test]
fn every_row_that_is_said_to_be_tested_is() {
    let catalogue = catalogue();
    let found = found(&catalogue);
    let untested = rows(&catalogue).filter(|row| row.is_tested() && !found.contains_key(&row.id));
    let untested: Vec<String> = untested.map(|row| row.id.clone()).collect();
    assert_none(&untested, "rows without a test or vector");
    let known: BTreeSet<&str> = rows(&catalogue).map(|row| row.id.as_str()).collect();
    let unknown: Vec<String> =
        found.keys().filter(|row| !known.contains(row.as_str())).cloned().collect();
    assert_none(&unknown, "rows that tests or vectors name and tests/attacks.toml does not have");
}

#[test]
fn vectors_are_refused_with_the_codes_of_their_rows() {
    let catalogue = catalogue();
    let codes: BTreeMap<&str, &Vec<String>> =
        rows(&catalogue).map(|row| (row.id.as_str(), &row.codes)).collect();
    let others = named_by_vectors().into_iter().filter_map(|(row, name, code)| {
        let code = code?;
        (!codes.get(row.as_str())?.contains(&code)).then(|| format!("{row}: {code}, in {name}"))
    });
    assert_none(&others.collect::<Vec<_>>(), "codes that rows do not have");
}

/// How many vectors stand in the table; the rest are counted.
const SHOWN: usize = 3;

fn document(catalogue: &Catalogue) -> String {
    let found = found(catalogue);
    let count = |holds: &dyn Fn(&Row) -> bool| rows(catalogue).filter(|row| holds(row)).count();
    let mut text = format!(
        "# Attacks\n\n\
         Each row is something that somebody tries, or that goes wrong, with the codes of the refusal and the tests that try it.\n\
         The [threat model](threat-model.md) says who. Of {} rows {} are tested, {} cannot be yet, and {} are not Custody's.\n\n\
         This file is made from `tests/attacks.toml`, the tests and the [vectors](formats/vectors.md); `cargo test -p custody-tidy`\n\
         fails where it is stale, and says where the new one lies. A test is named by file and function, a vector by its case below\n\
         `vectors/cases/`. Tier 1 must hold before anybody relies on Custody, tier 2 before production, tier 3 later. Where no code\n\
         stands, what is tried must not succeed or must not matter.\n",
        count(&|_| true),
        count(&Row::is_tested),
        count(&|row| row.not_yet.is_some()),
        count(&|row| row.not_ours.is_some()),
    );
    for section in &catalogue.section {
        text += &format!(
            "\n## {}\n\n| row | tier | what | codes | tested by |\n|---|---|---|---|---|\n",
            section.title
        );
        for row in &section.rows {
            let codes: Vec<String> = row.codes.iter().map(|code| format!("`{code}`")).collect();
            let note = row.note.as_ref().map(|note| format!(". *{note}*")).unwrap_or_default();
            text += &format!(
                "| `{}` | {} | {}{note} | {} | {} |\n",
                row.id,
                row.tier,
                row.what,
                codes.join(" "),
                result(catalogue, row, found.get(&row.id))
            );
        }
    }
    text
}

fn result(catalogue: &Catalogue, row: &Row, found: Option<&Found>) -> String {
    let mut parts = Vec::new();
    if let Some(reason) = &row.not_yet {
        parts.push(format!("not yet: {}", catalogue.not_yet[reason]));
    }
    if let Some(reason) = &row.not_ours {
        parts.push(format!("not ours: {reason}"));
    }
    let Some(found) = found else { return parts.join("; ") };
    parts.extend(found.tests.iter().map(|test| {
        let (path, function) = test.split_once(": ").unwrap();
        let short =
            path.trim_start_matches("crates/").trim_end_matches(".rs").replace("/tests/", "/");
        format!("`{short}::{function}`")
    }));
    parts.extend(found.vectors.iter().take(SHOWN).map(|(name, _)| format!("`{name}`")));
    if found.vectors.len() > SHOWN {
        parts.push(format!("and {} more", found.vectors.len() - SHOWN));
    }
    parts.join(", ")
}

#[test]
fn the_document_says_what_is_there() {
    let wanted = document(&catalogue());
    let path = ROOT.join("docs/attacks.md");
    if fs::read_to_string(&path).is_ok_and(|text| text == wanted) {
        return;
    }
    let made = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("attacks.md");
    fs::write(&made, wanted).unwrap();
    panic!("docs/attacks.md is stale: cp {} {}", made.display(), path.display());
}
