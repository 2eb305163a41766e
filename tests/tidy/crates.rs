//! Which crates there are and who may use whom.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::{FILES, TextFile, assert_none, lines_where, output};

/// Who may use whom, in tests too. Arrows run one way; whoever adds a crate or an arrow says so here
/// and in ARCHITECTURE.md.
const ARROWS: &[(&str, &[&str])] = &[
    ("custody-core", &[]),
    ("custody-machine", &["custody-core", "custody-platforms"]),
    ("custody-verify", &["custody-core", "custody-machine", "custody-platforms", "custody-world"]),
    ("custody-store", &["custody-core"]),
    ("custody-sign", &["custody-core"]),
    (
        "custody-run",
        &[
            "custody-core",
            "custody-machine",
            "custody-sign",
            "custody-store",
            "custody-verify",
            "custody-world",
        ],
    ),
    (
        "custody-cli",
        &[
            "custody-core",
            "custody-machine",
            "custody-platforms",
            "custody-run",
            "custody-sign",
            "custody-store",
            "custody-verify",
        ],
    ),
    ("custody-tidy", &["custody-core", "custody-verify"]),
    (
        "custody-vectors",
        &[
            "custody-core",
            "custody-machine",
            "custody-platforms",
            "custody-store",
            "custody-verify",
            "custody-world",
        ],
    ),
    (
        "custody-benches",
        &["custody-core", "custody-run", "custody-store", "custody-verify", "custody-world"],
    ),
    ("custody-platforms", &["custody-core"]),
    ("custody-world", &["custody-core", "custody-verify"]),
];

/// These see no file, socket, clock or randomness.
const PURE: &[&str] = &["custody-core", "custody-machine", "custody-verify"];

/// More packages than this in the lock file want a reason and a new number.
const LOCKED_PACKAGES: usize = 270;

fn sources_of(name: &str) -> Vec<&'static TextFile> {
    let folder = format!("crates/{name}/src/");
    FILES.iter().filter(|file| file.path.starts_with(&folder)).collect()
}

fn text<'v>(value: &'v Value, member: &str) -> &'v str {
    value[member].as_str().unwrap()
}

#[test]
fn arrows_between_crates_run_one_way() {
    let arguments = ["metadata", "--no-deps", "--locked", "--offline", "--format-version", "1"];
    let metadata: Value =
        serde_json::from_str(&output(Command::new(env!("CARGO")).args(arguments))).unwrap();
    let packages = metadata["packages"].as_array().unwrap();

    let ours: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(ours, known, "the crates of the workspace, and those that ARROWS knows");

    let mut wrong = Vec::new();
    for package in packages {
        let name = text(package, "name");
        let (_, may) = ARROWS.iter().find(|(known, _)| *known == name).unwrap();
        let dependencies = package["dependencies"].as_array().unwrap();
        let uses = dependencies.iter().map(|dependency| text(dependency, "name"));
        let wrongly = uses.filter(|used| ours.contains(used) && !may.contains(used));
        wrong.extend(wrongly.map(|used| format!("{name} uses {used}")));
    }
    assert_none(&wrong, "arrows that the house does not have");
}

#[test]
fn pure_crates_do_without_std() {
    for name in PURE {
        let sources = sources_of(name);
        let root = sources.iter().find(|file| file.path.ends_with("/src/lib.rs")).unwrap();
        assert!(root.text.lines().any(|line| line == "#![no_std]"), "{name} is not no_std");
        let found = lines_where(&sources, |line| {
            let path = line.match_indices("std::").any(|(at, _)| {
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
            });
            path || line.contains("extern crate std")
        });
        assert_none(&found, "pure crates know no std");
    }
}

#[test]
fn the_lock_file_stays_small() {
    let lock = FILES.iter().find(|file| file.path == "Cargo.lock").unwrap();
    let packages = lock.text.lines().filter(|line| *line == "[[package]]").count();
    assert!(packages < LOCKED_PACKAGES, "{packages} packages");
}
