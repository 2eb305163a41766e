//! `custody trace`

mod found;
mod roots;

use clap::Args;
use custody_core::json::Value;
use custody_core::statement::Label;
use custody_core::time::Time;
use custody_run::gate;

use self::found::{Found, Row};
use crate::context::StoreArgs;
use crate::error::Error;
use crate::tree::shown;
use crate::ui::{BAD, BOLD, DIM, GOOD, Ui};

/// How many files of one manifest are listed for people.
const LISTED: usize = 20;
/// How many manifests of one step are listed for people.
const ROWS: usize = 20;

#[derive(Args, Debug)]
#[command(after_help = "Several questions are answered together: what any of them finds is found.")]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// Inputs: files, digests of files, or statement ids
    #[arg(required_unless_present_any = ["by", "key", "environment"])]
    what: Vec<String>,
    /// What this machine or person had a part in, with any of its keys
    #[arg(long, value_name = "PRINCIPAL")]
    by: Vec<Label>,
    /// What this key signed, or claims to have: a key id, SHA256:FINGERPRINT or a public key's file
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// What was made where the manifest says so, like hostname=build7
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    environment: Vec<(String, String)>,
    /// Only what was found so from this time on; what may be dated back stays
    #[arg(long, value_name = "TIME")]
    since: Option<Time>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

pub(crate) fn run(args: &TraceArgs, ui: &Ui) -> Result<(), Error> {
    let store = args.store.open()?;
    // after a compromise the policy may have ended: what was made is still to be found
    let policies = gate::policies_looking_back(&store)?;
    let roots = roots::roots(args, &store, &policies)?;
    let statements: Vec<_> = roots.statements.iter().copied().collect();
    let files: Vec<_> = roots.files.iter().copied().collect();
    let descent = store.descent(&statements, &files)?;
    let found = Found::of(&store, &policies, &descent, &roots)?;
    ui.result(&text(&found, roots.searched), || json(&found, roots.searched));
    Ok(())
}

fn text(found: &Found, searched: usize) -> String {
    let mut text = String::new();
    let published = found.published.len();
    if published > 0 {
        text += &format!(
            "{BAD}reached users: {published} {}{BAD:#}\n",
            plural(published, "publication")
        );
        found.published.iter().for_each(|row| text += &row_text(row));
        text.push('\n');
    }
    for ((release, step), rows) in &found.made {
        text +=
            &format!("{BOLD}step {} × {}{BOLD:#}  {}\n", shown(step), rows.len(), shown(release));
        rows.iter().take(ROWS).for_each(|row| text += &row_text(row));
        if rows.len() > ROWS {
            text +=
                &format!("  {DIM}… and {} more (--json has them all){DIM:#}\n", rows.len() - ROWS);
        }
        text.push('\n');
    }
    if !found.open.is_empty() {
        text += &format!(
            "{BOLD}planned and not done × {}{BOLD:#}: must not be run\n",
            found.open.len()
        );
        found.open.iter().take(ROWS).for_each(|row| text += &row_text(row));
        text.push('\n');
    }
    for (kind, rows) in &found.others {
        text += &format!("{BOLD}{kind} × {}{BOLD:#}\n", rows.len());
        rows.iter().take(ROWS).for_each(|row| text += &head_text(row));
        text.push('\n');
    }
    let count = found.rows().count();
    let claims = found.rows().filter(|row| !row.verified).count();
    if count == 0 {
        return format!("{GOOD}nothing{GOOD:#} came from there, among {searched} statements\n");
    }
    text + &format!(
        "{count} of {searched} statements; {claims} of them are only claims, which no key of the policies signed\n"
    )
}

fn plural(count: usize, word: &str) -> String {
    if count == 1 { word.into() } else { format!("{word}s") }
}

fn head_text(row: &Row) -> String {
    let place = row.place.as_ref().map(|place| format!(" → {}", shown(place))).unwrap_or_default();
    let signed = if row.verified {
        format!("verified: {}", shown(&row.signed))
    } else {
        format!("{BAD}only a claim{BAD:#}: {}", shown(&row.signed))
    };
    format!(
        "  {BOLD}{}{BOLD:#}{place}, {}; {signed}\n    {DIM}{} {}{DIM:#}\n",
        shown(&row.title),
        row.time,
        row.id,
        shown(&row.because)
    )
}

fn row_text(row: &Row) -> String {
    let mut text = head_text(row);
    if let Some(machine) = &row.machine {
        text += &format!("    {machine}\n");
    }
    for file in row.files.iter().filter(|file| file.affected).take(LISTED) {
        text += &format!("    {}  {}\n", file.sha256, shown(&file.name));
    }
    let affected = row.files.iter().filter(|file| file.affected).count();
    if affected > LISTED {
        text += &format!("    … and {} more files (--json has them all)\n", affected - LISTED);
    }
    if row.files.len() > affected {
        let beside = row.files.len() - affected;
        text += &format!(
            "    {DIM}{beside} {} beside, with bytes from elsewhere{DIM:#}\n",
            plural(beside, "file")
        );
    }
    text
}

fn json(found: &Found, searched: usize) -> Value<'static> {
    let rows = |rows: &[Row]| Value::list(rows.iter().map(Row::to_json));
    let groups = found.made.iter().map(|((release, step), made)| {
        Value::object([
            ("release", Value::text(release)),
            ("step", Value::text(step)),
            ("manifests", rows(made)),
        ])
    });
    let others: Vec<Row> = found.others.values().flatten().cloned().collect();
    Value::object([
        ("ok", Value::Bool(true)),
        ("published", rows(&found.published)),
        ("made", Value::list(groups)),
        ("open", rows(&found.open)),
        ("others", rows(&others)),
    ])
    .with("statementsSearched", u64::try_from(searched).ok().map(Value::Integer))
}
