//! The documents that people read.

use std::path::Path;

use crate::{FILES, PATHS, ROOT, assert_none, files_with};

/// Where the links of a document lead, with the number of the line. What stands in code is none.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    let mut fence = None;
    for (number, line) in text.lines().enumerate() {
        let mark = line.trim_start().get(..3).filter(|mark| ["```", "~~~"].contains(mark));
        if mark.is_some() && (fence.is_none() || fence == mark) {
            fence = if fence.is_none() { mark } else { None };
        } else if fence.is_none() {
            // every second part stands between backquotes
            let prose: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
            let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
            let defined = prose
                .trim_start()
                .strip_prefix('[')
                .and_then(|rest| rest.split_once("]:").map(|(_, target)| target));
            let targets =
                inline.chain(defined).filter_map(|target| target.split_whitespace().next());
            links.extend(
                targets.map(|target| {
                    (number + 1, target.trim_matches(['<', '>']).replace("%20", " "))
                }),
            );
        }
    }
    links
}

/// Whether that file, or something in that folder, is there for whoever clones the repository.
fn is_in_git(there: &Path) -> bool {
    there
        .strip_prefix(&*ROOT)
        .is_ok_and(|path| PATHS.iter().any(|it| Path::new(it).starts_with(path)))
}

#[test]
fn links_are_found() {
    let text = "See [a](b.md#c) and [`d`](../e/ \"title\"), not `[x](y)`.\n\
                ```sh\n[f](g)\n~~~\n```\n[h]: <i%20j>\n[k](https://custody.dev/)";
    let wanted = [(1, "b.md#c"), (1, "../e/"), (6, "i j"), (7, "https://custody.dev/")];
    assert_eq!(links(text), wanted.map(|(line, target)| (line, target.to_owned())));
}

#[test]
fn every_row_of_conformance_names_tests_that_exist() {
    let document = FILES.iter().find(|file| file.path == "docs/conformance.md").unwrap();
    let tests: Vec<&str> = files_with("rs")
        .iter()
        .flat_map(|file| file.text.lines())
        .filter_map(|line| line.trim_start().strip_prefix("fn ")?.split('(').next())
        .collect();
    let rows = document.text.lines().filter(|line| line.starts_with("| "));
    let named = rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next());
    let named: Vec<&str> = named.filter(|last| !["test", "the same"].contains(last)).collect();
    assert!(named.len() > 20);
    let tested = named.iter().flat_map(|last| last.split(", "));
    let missing = tested.map(|name| name.trim_matches('`')).filter(|name| !tests.contains(name));
    let found: Vec<String> = missing.map(ToOwned::to_owned).collect();
    assert_none(&found, "tests of docs/conformance.md that do not exist");
}

#[test]
fn every_relative_link_leads_to_a_file() {
    let mut found = Vec::new();
    for file in files_with("md") {
        let folder = ROOT.join(&file.path).parent().unwrap().to_owned();
        for (line, target) in links(&file.text) {
            let path = target.split('#').next().unwrap();
            if target.contains("://") || target.starts_with("mailto:") || path.is_empty() {
                continue;
            }
            if !folder.join(path).canonicalize().is_ok_and(|there| is_in_git(&there)) {
                found.push(format!("{}:{line}: {target}", file.path));
            }
        }
    }
    assert_none(&found, "links that lead nowhere");
}
