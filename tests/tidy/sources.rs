//! What stands in the files, and what may not.

use std::collections::BTreeSet;

use custody_core::Code;

use crate::{FILES, TextFile, assert_none, files_with, lines_where};

/// Longer than this, a file is two files.
const LINES: usize = 700;

fn is_word(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character| !is_word(character))
}

/// `PARSE_JSON_INVALID` as `ParseJsonInvalid`.
fn camel_case(name: &str) -> String {
    let word = |word: &str| format!("{}{}", &word[..1], word[1..].to_ascii_lowercase());
    name.split('_').map(word).collect()
}

#[test]
fn no_source_file_is_too_long() {
    let sources = files_with("rs").into_iter().filter(|file| {
        let mut parts = file.path.split('/');
        parts.next() == Some("crates") && parts.nth(1) == Some("src")
    });
    let lengths = sources.map(|file| (&file.path, file.text.lines().count()));
    let long = lengths.filter(|(_, lines)| *lines > LINES);
    let found: Vec<String> = long.map(|(path, lines)| format!("{path}: {lines} lines")).collect();
    assert_none(&found, "files of more than 700 lines");
}

#[test]
fn every_code_has_one_name_of_its_own() {
    let names: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    assert_eq!(names.len(), Code::ALL.len(), "one name stands for two codes");
    for code in Code::ALL {
        assert_eq!(format!("{code:?}"), camel_case(code.name()));
        assert_eq!(Code::from_name(code.name()), Some(*code));
    }
}

#[test]
fn every_code_that_a_file_mentions_exists() {
    let group = |name: &str| name.split_once('_').map(|(group, _)| group.to_owned());
    let groups: BTreeSet<String> = Code::ALL.iter().filter_map(|code| group(code.name())).collect();
    // names of constants look alike
    let constants: BTreeSet<&str> = files_with("rs")
        .iter()
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.split_once("const ").or_else(|| line.split_once("static ")))
        .filter_map(|(_, rest)| rest.split_once(':').map(|(name, _)| name))
        .collect();
    let looks_like_a_code = |word: &&str| {
        let upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(upper)
            && !word.ends_with('_')
            && group(word).is_some_and(|group| groups.contains(&group))
    };
    let unknown = |line: &str| {
        let mut codes = words(line).filter(looks_like_a_code);
        codes.any(|word| Code::from_name(word).is_none() && !constants.contains(word))
    };
    let files: Vec<&TextFile> = FILES.iter().collect();
    assert_none(&lines_where(&files, unknown), "codes that do not exist");
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() {
    let places = [concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/")];
    let found = lines_where(&FILES.iter().collect::<Vec<_>>(), |line| {
        places.iter().flat_map(|place| line.match_indices(place)).any(|(at, _)| {
            // the rest of a longer path is none of a machine
            !line[..at].ends_with(|before: char| is_word(before) || "}.-~)*".contains(before))
        })
    });
    assert_none(&found, "paths of somebody's machine");
}

#[test]
fn nothing_is_left_for_later() {
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    let files: Vec<&TextFile> = FILES.iter().collect();
    let found = lines_where(&files, |line| words(line).any(|word| marks.contains(&word)));
    assert_none(&found, "marks of unfinished work");

    // an example that must not compile may stand in a comment
    let macros = [concat!("todo", "!"), concat!("unimplemented", "!")];
    let found = lines_where(&files_with("rs"), |line| {
        !line.trim_start().starts_with("//") && macros.iter().any(|name| line.contains(name))
    });
    assert_none(&found, "unfinished code");
}

#[test]
fn no_test_is_ignored() {
    let found = lines_where(&files_with("rs"), |line| line.trim_start().starts_with("#[ignore"));
    assert_none(&found, "tests that are not run");
}
