//! The draft as TOML. Whatever comes from evidence is a quoted string or a cleaned comment.

use std::collections::BTreeSet;

use super::seen::{Phase, Principal, Product, Seen, Step};
use crate::tree::shown;

/// The role that the draft gives to people who proposed; no role of the evidence has this name.
fn proposers(seen: &Seen) -> String {
    let mut name = String::from("proposers");
    while seen.roles.contains_key(&name) {
        name.push('2');
    }
    name
}

const DAY: u64 = 86_400;

pub(super) fn draft(seen: &Seen, statements: usize) -> String {
    let mut text = head(seen, statements);
    for (name, person) in &seen.people {
        text += &principal("people", name, person);
    }
    for (name, machine) in &seen.machines {
        text += &principal("machines", name, machine);
    }
    text += "\n# Who approved in which role, and who proposed. Who is missing? Who should not be here?\n";
    let proposers = Some((proposers(seen), seen.proposers.clone()));
    let proposers = proposers.filter(|(_, people)| !people.is_empty());
    let roles = seen.roles.iter().map(|(name, people)| (name.clone(), people.clone()));
    for (name, people) in roles.chain(proposers) {
        text += &format!("[roles.{}]\nmembers = {}\n", key(&name), list(&people));
    }
    for (name, product) in &seen.products {
        text += &self::product(name, product, &self::proposers(seen));
    }
    text
}

fn head(seen: &Seen, statements: usize) -> String {
    let releases: String =
        seen.releases.iter().take(20).map(|release| format!("#   {}\n", shown(release))).collect();
    let instance = seen.instances.first().map_or("production", String::as_str);
    let others = if seen.instances.len() > 1 {
        let all: Vec<String> = seen.instances.iter().map(|name| shown(name)).collect();
        format!("   # seen: {}; a policy is for one", all.join(", "))
    } else {
        String::new()
    };
    format!(
        "# A DRAFT of a policy, made by custody policy init from {statements} statements of these releases:
{releases}#
# Nothing here is decided, and nothing that it was made from was verified: whoever could write into that
# evidence could write this. It says what was done, not what should be allowed. Before anybody signs it,
# people decide:
#
# 1. every blank FILL-IN: custody policy check names them all;
# 2. whether each key is really whose it seems to be: ask its owner, not the evidence;
# 3. who the root people are, and how many of them must sign the next version;
# 4. how many people approve each phase, in which roles, and whether the proposer may be one of them;
# 5. which steps cannot be taken back (irrevocable = true): signing what users trust, for example;
# 6. which names outputs may have, and where may be published: the next version has other names;
# 7. how old tasks and sign-offs may be, and when keys end (until).
policy = \"https://custody.dev/policy/v1\"
version = 1
expires = \"FILL-IN-end\"
instance = {}{others}
clock-skew = \"5m\"

# The people who make the next version of the policy: two or more of three or more.
[root]
people = [\"FILL-IN-person-of-the-root\"]
threshold = 2

# A name that begins with FILL-IN belongs to a key that nothing in the evidence gives a name.
",
        string(instance)
    )
}

fn principal(kind: &str, name: &str, principal: &Principal) -> String {
    let mut keys: Vec<String> =
        principal.keys.iter().map(|key| format!("{{ key = {} }}", string(key))).collect();
    if keys.is_empty() {
        keys.push("{ key = \"FILL-IN-key\" }".into());
    }
    format!("[{kind}.{}]\nkeys = [{}]\n", key(name), keys.join(", "))
}

fn product(name: &str, product: &Product, proposers: &str) -> String {
    let table = format!("products.{}", key(name));
    let source = product.sources.first().cloned().unwrap_or_default();
    let mut propose: BTreeSet<String> = product.proposing.clone();
    if product.people_propose {
        propose.insert(proposers.into());
    }
    let mut text = format!(
        "\n[{table}]\nsource = {}\n{}channels = {}\ndesk = {}\npropose = {}\n# Who may decide what is in doubt; nothing in the evidence says.\nresolve = [\"FILL-IN-role-that-resolves\"]\n",
        string(&source),
        others("source", &product.sources),
        list(&product.channels),
        named(&product.desk, "FILL-IN-machine-of-the-desk"),
        named(&propose, "FILL-IN-role-that-proposes"),
    );
    let used: BTreeSet<&String> = product.steps.values().map(|step| &step.phase).collect();
    for (name, phase) in product.phases.iter().filter(|(name, _)| used.contains(name)) {
        text += &format!("\n[{table}.phases.{}]\n{}", key(name), self::phase(phase));
    }
    for (name, step) in &product.steps {
        text += &format!(
            "\n# {} of it seen.\n[{table}.steps.{}]\n{}",
            counted(step.runs),
            key(name),
            self::step(step)
        );
    }
    text
}

fn counted(runs: usize) -> String {
    if runs == 1 { "1 run".into() } else { format!("{runs} runs") }
}

fn others(what: &str, all: &BTreeSet<String>) -> String {
    let listed: Vec<String> = all.iter().skip(1).map(|other| shown(other)).collect();
    if listed.is_empty() {
        String::new()
    } else {
        format!("# another {what} was seen: {}\n", listed.join(", "))
    }
}

fn phase(phase: &Phase) -> String {
    let approve: Vec<String> = phase
        .approve
        .iter()
        .map(|(role, count)| format!("{{ role = {}, count = {count} }}", string(role)))
        .collect();
    let approve = if approve.is_empty() {
        "{ role = \"FILL-IN-role-that-approves\", count = 2 }".into()
    } else {
        approve.join(", ")
    };
    format!(
        "approve = [{approve}]   # as many as approved\nproposer-counts = {}\nsign-off-max-age = \"24h\"\nafter = {}\n",
        phase.proposer_approved,
        list(&phase.after)
    )
}

fn step(step: &Step) -> String {
    let inputs: Vec<String> = step
        .inputs
        .iter()
        .map(|(from, other)| {
            let release = if *other { "other" } else { "same" };
            format!("{{ step = {}, release = \"{release}\" }}", string(from))
        })
        .collect();
    let schedule = match &step.scheduled_by {
        Some(by) => format!("scheduled-by = {}\n", string(by)),
        None => format!("schedule = {}\n", named(&step.schedule, "FILL-IN-machine-that-schedules")),
    };
    let externals = if step.externals.is_empty() {
        String::new()
    } else {
        format!("externals = {}\n", list(&step.externals))
    };
    let downloads = if step.downloads.is_empty() {
        String::new()
    } else {
        let record =
            if step.records { "record-downloads = true   # better: pin them\n" } else { "" };
        format!("downloads = {}\n{record}", list(&step.downloads))
    };
    let publishes = !step.destinations.is_empty();
    let destinations = if publishes {
        format!(
            "destinations = {}   # exactly what was seen; with / at the end: all below\n",
            list(&step.destinations)
        )
    } else {
        String::new()
    };
    let irrevocable =
        if publishes { "true" } else { "false   # can it be taken back? Signing cannot" };
    let images = if step.images.is_empty() {
        String::new()
    } else {
        format!("images = {}   # or the step that makes it\n", list(&step.images))
    };
    let demand = |(fact, values): (&String, &BTreeSet<String>)| {
        format!("{{ fact = {}, is = {}, standing = \"claimed\" }}", string(fact), list(values))
    };
    let machine: Vec<String> = step.machine.iter().map(demand).collect();
    let machine = if machine.is_empty() {
        String::new()
    } else {
        format!("# seen, and not demanded: machine = [{}]\n", machine.join(", "))
    };
    format!(
        "phase = {}\nperform = {}\n{schedule}source = {}\ninputs = [{}]\n{externals}{downloads}outputs = {}\nnetwork = {}\nverification = \"full\"\nirrevocable = {irrevocable}\n{destinations}max-age = \"{}d\"\nreceipts = \"none\"\n{images}{machine}",
        string(&step.phase),
        named(&step.perform, "FILL-IN-machine-that-performs"),
        step.source,
        inputs.join(", "),
        list(&step.outputs),
        step.network,
        step.waited / DAY + 1,
    )
}

/// The names, or a blank where there are none.
fn named(names: &BTreeSet<String>, blank: &str) -> String {
    if names.is_empty() { format!("[{}]", string(blank)) } else { list(names) }
}

fn list(items: &BTreeSet<String>) -> String {
    let items: Vec<String> = items.iter().map(|item| string(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A basic string of TOML.
fn string(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() || shown(c.encode_utf8(&mut [0; 4])).len() != c.len_utf8() => {
                quoted += &format!("\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}

/// A key of TOML: bare where it can be.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if !name.is_empty() && name.chars().all(bare) { name.into() } else { string(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_cannot_break_out_of_its_string() {
        let evil = "x\"\n[root]\nthreshold = 1 # \\ \u{202e}";
        let quoted = string(evil);
        assert!(!quoted.contains('\n') && !quoted.contains('\u{202e}'), "{quoted}");
        assert_eq!(quoted.replace("\\\"", "").matches('"').count(), 2, "{quoted}");
        assert_eq!((key("a-b_1"), key("a.b")), ("a-b_1".into(), "\"a.b\"".into()));
    }
}
