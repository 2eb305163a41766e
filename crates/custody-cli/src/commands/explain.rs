//! `custody explain`

use clap::Args;
use custody_core::Code;
use custody_core::json::Value;

use crate::error::Error;
use crate::tree::shown;
use crate::ui::{BOLD, Ui};

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// A code, as refusals show it; without one all are listed
    code: Option<String>,
}

/// What codes of one family are about.
const FAMILIES: [(&str, &str); 12] = [
    ("PARSE", "documents that cannot be read"),
    ("ENV", "envelopes and their signatures"),
    ("STMT", "statements"),
    ("POLICY", "the policy and its keys"),
    ("TIME", "the clock"),
    ("CHAIN", "how documents fit together"),
    ("WORKER", "machines and their keys"),
    ("KEY", "private keys"),
    ("ART", "files"),
    ("SIGNOFF", "people and their approvals"),
    ("GATE", "the gate before a step"),
    ("STORE", "where evidence is kept"),
];

/// How many names are offered for one that does not exist.
const OFFERED: usize = 3;

pub(crate) fn run(args: &ExplainArgs, ui: &Ui) -> Result<(), Error> {
    let Some(name) = &args.code else {
        ui.result(&catalogue(), || Value::list(Code::ALL.iter().map(|code| page_json(*code))));
        return Ok(());
    };
    let wanted = name.trim().to_ascii_uppercase().replace(['-', ' '], "_");
    let code = Code::from_name(&wanted).ok_or_else(|| {
        let near = nearest(&wanted).join(", ");
        Error::Usage(format!(
            "there is no code {}; the nearest are {near}, and custody explain lists all",
            shown(name)
        ))
    })?;
    ui.result(&page(code), || page_json(code));
    Ok(())
}

fn exit(code: Code) -> &'static str {
    if code.undecided() { "3: nothing could be evaluated" } else { "1: evaluated and rejected" }
}

fn page(code: Code) -> String {
    format!(
        "{BOLD}{code}{BOLD:#}\n  meaning    {}\n  do         {}\n  example    {}\n  exit       {}\n",
        code.meaning(),
        code.remedy(),
        code.example(),
        exit(code),
    )
}

fn page_json(code: Code) -> Value<'static> {
    Value::object([
        ("code", Value::text(code)),
        ("family", Value::text(code.family())),
        ("meaning", Value::text(code.meaning())),
        ("remedy", Value::text(code.remedy())),
        ("example", Value::text(code.example())),
        ("exit", Value::Integer(if code.undecided() { 3 } else { 1 })),
    ])
}

fn catalogue() -> String {
    let family = |(name, about): (&str, &str)| {
        let codes = Code::ALL.iter().filter(|code| code.family() == name);
        let rows: String =
            codes.map(|code| format!("  {:28} {}\n", code.name(), code.meaning())).collect();
        format!("{BOLD}{name}{BOLD:#}  {about}\n{rows}\n")
    };
    FAMILIES.into_iter().map(family).collect::<String>() + "custody explain CODE says more\n"
}

/// The names that are most like a word, the most like first.
fn nearest(word: &str) -> Vec<&'static str> {
    let mut names: Vec<_> = Code::ALL
        .iter()
        .map(|code| {
            let apart = i64::try_from(distance(word, code.name())).unwrap_or(i64::MAX);
            (apart.saturating_sub(shared(word, code.name()).saturating_mul(2)), code)
        })
        .collect();
    names.sort();
    names.into_iter().take(OFFERED).map(|(_, code)| code.name()).collect()
}

/// How many letters the whole words of `word` that stand in `name` have: whoever remembers half a name
/// means that half.
fn shared(word: &str, name: &str) -> i64 {
    let whole = word.split('_').filter(|part| name.split('_').any(|other| other == *part));
    i64::try_from(whole.map(str::len).sum::<usize>()).unwrap_or_default()
}

/// How many letters must be put in, taken out or changed (Levenshtein's distance).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().take(100).enumerate() {
        let mut next = vec![i + 1];
        for (j, (b, costs)) in to.chars().zip(row.windows(2)).enumerate() {
            let change = costs[0] + usize::from(a != b);
            next.push(change.min(costs[1] + 1).min(next[j] + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_a_family_that_is_explained() {
        let listed = catalogue();
        for code in Code::ALL {
            assert!(FAMILIES.iter().any(|(name, _)| *name == code.family()), "{code}");
            assert!(listed.contains(&format!("  {} ", code.name())), "{code}");
        }
    }

    #[test]
    fn what_is_meant_is_near() {
        assert_eq!(distance("KITTEN", "SITTING"), 3);
        assert_eq!(distance("", "ABC"), 3);
        for (typed, meant) in [
            ("art_digest_mismath", "ART_DIGEST_MISMATCH"),
            ("digest_mismatch", "ART_DIGEST_MISMATCH"),
            ("chain_fork", "CHAIN_FORKED"),
            ("already_executed", "GATE_ALREADY_EXECUTED"),
        ] {
            let near = nearest(&typed.to_ascii_uppercase());
            assert!(near.contains(&meant), "{typed}: {near:?}");
        }
    }
}
