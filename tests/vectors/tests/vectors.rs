//! The vectors are those that the generator makes, and the library says of each what it says of itself.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use custody_core::Code;
use custody_vectors::{Judged, RANDOM, ROOT, all, judge};

/// Every file below a folder of the vectors, by its path.
fn below(folder: &str) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&path));
        } else {
            found.insert(path, fs::read(entry.path()).unwrap());
        }
    }
    found
}

fn judged() -> BTreeMap<String, Judged> {
    let file = |name: &str| fs::read(Path::new(ROOT).join("files").join(name)).unwrap();
    let name = |path: &str| {
        path.strip_prefix("cases/").and_then(|path| path.strip_suffix(".json")).unwrap().to_owned()
    };
    below("cases").iter().map(|(path, case)| (name(path), judge(case, &file))).collect()
}

#[test]
fn the_generator_makes_what_is_there() {
    let (wanted, random) = all();
    let mut found = below("cases");
    found.extend(below("files"));
    let differ = |path: &&String| wanted.get(*path) != found.get(*path);
    let wrong: Vec<&String> = wanted.keys().chain(found.keys()).filter(differ).collect();
    assert!(wrong.is_empty(), "cargo run -p custody-vectors would change these: {wrong:#?}");
    assert_eq!(fs::read_to_string(RANDOM).unwrap(), random);
}

#[test]
fn the_judge_agrees_on_every_case() {
    let cases = judged();
    let agrees = |case: &Judged| match (&case.expected, &case.found) {
        (Ok(()), Ok(())) => true,
        (Err(code), Err(codes)) => codes.contains(code),
        _ => false,
    };
    let wrong: Vec<_> = cases
        .iter()
        .filter(|(_, case)| !agrees(case))
        .map(|(name, case)| format!("{name}: expected {:?}, found {:?}", case.expected, case.found))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_refusal_has_an_accepted_control_of_its_kind() {
    let cases = judged();
    for (name, case) in &cases {
        match &case.control {
            Some(control) => {
                let control = cases.get(control).unwrap_or_else(|| panic!("{name}: no {control}"));
                assert_eq!(control.expected, Ok::<(), Code>(()), "{name}");
                assert_eq!(control.kind, case.kind, "{name}");
            }
            None => assert_eq!(case.expected, Ok(()), "{name} has no control"),
        }
    }
}
