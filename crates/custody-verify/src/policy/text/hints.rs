//! Help for people who write a policy: what is still to be filled in, what to write instead of what
//! stands there, and what is allowed but unwise.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ops::Range;

use custody_core::statement::Label;
use custody_core::time::Time;

use super::tables::{PolicyTable, ProductTable, StepTable, Text};
use super::{Fault, Reader, fault, locate, parsed, table};
use crate::policy::demand::{Standing, platform_of};
use crate::policy::{Hint, Policy, Product, Review, Step};

/// How words begin that a template or a draft leaves for people to replace.
const PLACEHOLDERS: [(&str, &str); 9] = [
    ("FILL-IN-key", "a public key: the line in its .pub file, like \"ssh-ed25519 AAAA…\""),
    ("FILL-IN-machine", "the machine's name, here and wherever it stands"),
    ("FILL-IN-person", "the person's name, here and wherever it stands"),
    ("FILL-IN-role", "the name of a role that is defined below [roles]"),
    ("FILL-IN-end", "when the policy ends, like \"2027-11-22T18:06:00Z\""),
    ("FILL-IN", "what the comment beside it asks for"),
    ("KEY-OF-", "that person's or machine's public key: the line in its .pub file"),
    ("POLICY-EXPIRES", "when the policy ends, like \"2027-11-22T18:06:00Z\""),
    ("PUBLISH-TO", "where to publish, like \"s3://bucket/path/\" or \"file:///srv/www/\""),
];

/// Members, each as it is written.
const MEMBERS: [(&str, &str); 51] = [
    ("policy", "policy = \"https://custody.dev/policy/v1\""),
    ("version", "version = 1"),
    ("previous", "previous = \"the statement id of the version before\""),
    ("expires", "expires = \"2027-11-22T18:06:00Z\""),
    ("instance", "instance = \"production\""),
    ("clock-skew", "clock-skew = \"5m\""),
    ("origins", "origins = [\"https://desk.example.org\"]"),
    ("root", "a table [root] with people and threshold"),
    ("people", "people = [\"alice\", \"bob\"] in [root], and a table [people.NAME] for each"),
    ("machines", "a table [machines.NAME] for each machine"),
    ("roles", "a table [roles.NAME] with members"),
    ("products", "a table [products.NAME]"),
    ("threshold", "threshold = 2"),
    ("keys", "keys = [{ key = \"ssh-ed25519 AAAA…\" }]"),
    ("key", "key = \"ssh-ed25519 AAAA…\""),
    ("enrolled-by", "enrolled-by = [\"enroller\"], a list of machines"),
    ("enrol", "enrol = [{ fact = \"ec2.image-id\", is = [\"ami-…\"] }]"),
    ("max-certificate", "max-certificate = \"12h\""),
    ("revoked-enrolments", "revoked-enrolments = [\"the statement id of an enrolment\"]"),
    ("members", "members = [\"alice\", \"bob\"]"),
    ("what", "what = \"commit\", or \"tag\""),
    ("channels", "channels = [\"release\"]"),
    ("desk", "desk = [\"desk\"], a list of machines"),
    ("propose", "propose = [\"releng\"], a list of roles and machines"),
    ("resolve", "resolve = [\"releng\"], a list of roles"),
    ("phases", "a table [products.NAME.phases.NAME]"),
    ("steps", "a table [products.NAME.steps.NAME]"),
    ("approve", "approve = [{ role = \"releng\", count = 2 }]"),
    ("count", "count = 2"),
    ("proposer-counts", "proposer-counts = false"),
    ("sign-off-max-age", "sign-off-max-age = \"24h\""),
    ("after", "after = [], or the earlier phases"),
    ("outputs", "outputs = [\"dist/*\"]"),
    ("verification", "verification = \"full\""),
    ("max-age", "max-age = \"24h\""),
    ("receipts", "receipts = \"none\""),
    ("images", "images = [\"sha256:…\"], or images = [{ step = \"docker-image\" }]"),
    (
        "machine",
        "machine = [{ fact = \"ec2.image-id\", is = [\"ami-…\"], standing = \"verified\" }], or beside a key machine = { \"ec2.instance-id\" = \"i-…\" }",
    ),
    ("builders", "builders = 2"),
    ("builders-differ", "builders-differ = [\"ec2.image-id\"]"),
    ("fact", "fact = \"ec2.image-id\""),
    ("is", "is = [\"ami-…\"]"),
    ("standing", "standing = \"verified\" or standing = \"claimed\""),
    ("platforms", "a table [platforms.NAME] for each platform"),
    ("kind", "kind = \"ec2\""),
    ("regions", "regions = [\"eu-west-1\"]"),
    ("certificate", "certificate = \"\"\"-----BEGIN CERTIFICATE-----…\"\"\""),
    ("allow-rsa-1024", "allow-rsa-1024 = true, or nothing"),
    ("authorities", "authorities = [\"\"\"-----BEGIN CERTIFICATE-----…\"\"\"]"),
    ("jwks", "jwks = '{\"keys\":[…]}'"),
    ("claims", "claims = [\"environment\"]"),
];

/// A policy that ends sooner than this, in days, is about to end.
const SOON: u64 = 30;
const DAY: u64 = 86_400;

/// Everything that a person who writes this policy should know.
pub(in crate::policy) fn review(text: &str, now: Time) -> Review {
    let faults = |mut faults: Vec<Fault>| {
        faults.sort_by_key(|fault| fault.span.start);
        faults.into_iter().map(|fault| locate(text, fault)).collect()
    };
    let blanks = placeholders(text);
    if !blanks.is_empty() {
        return Review { faults: faults(blanks), ..Review::default() };
    }
    let table = match table(text) {
        Ok(table) => table,
        Err(fault) => return Review { faults: faults(Vec::from([fault])), ..Review::default() },
    };
    match Reader::default().policy(&table) {
        Err(found) => Review { faults: faults(found), ..Review::default() },
        Ok(policy) => {
            let mut found = warnings(&table, &policy, now);
            found.sort_by_key(|fault| fault.span.start);
            let hint = |fault| {
                let place = locate(text, fault);
                Hint {
                    line: place.line,
                    column: place.column,
                    message: place.message,
                    remedy: place.remedy,
                }
            };
            Review {
                warnings: found.into_iter().map(hint).collect(),
                policy: Some(policy),
                faults: Vec::new(),
            }
        }
    }
}

/// Words that wait for somebody to replace them: strings, and names of tables.
fn placeholders(text: &str) -> Vec<Fault> {
    let mut found = Vec::new();
    for span in words(text) {
        let word = text.get(span.clone()).unwrap_or_default();
        if let Some((_, what)) = PLACEHOLDERS.iter().find(|(start, _)| word.starts_with(start)) {
            found.push(fault(
                span,
                format!("the blank {word} is not filled in"),
                format!("write {what}"),
            ));
        }
    }
    found
}

/// Where strings and bare words stand, comments apart.
fn words(text: &str) -> Vec<Range<usize>> {
    let (mut words, mut start, mut quote, mut comment) = (Vec::new(), None, None, false);
    let is_bare = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    for (at, c) in text.char_indices() {
        if comment || (quote.is_none() && c == '#') {
            comment = c != '\n';
        }
        let ends = match quote {
            Some(quote) => c == quote || c == '\n',
            None => comment || !is_bare(c),
        };
        if ends {
            words.extend(start.take().map(|start| start..at));
            let opens = quote.is_none() && !comment && matches!(c, '"' | '\'');
            quote = opens.then_some(c);
            start = opens.then_some(at.saturating_add(1));
        } else if start.is_none() {
            start = Some(at);
        }
    }
    words.extend(start.map(|start| start..text.len()));
    words
}

/// What to write where the TOML itself does not fit: from the reader's message and the place.
pub(super) fn remedy(message: &str, text: &str, at: usize) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let write = |member: &str| {
        let known = MEMBERS.iter().find(|(name, _)| *name == member);
        known.map(|(_, example)| format!("write {example}"))
    };
    let (first, rest) =
        (quoted.first().copied().unwrap_or_default(), quoted.get(1..).unwrap_or_default());
    if message.starts_with("missing field") {
        return write(first)
            .unwrap_or_else(|| format!("write {first} here too: docs/formats/policy.md says how"));
    }
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        return match rest.iter().find(|other| are_like(first, other)) {
            Some(meant) => format!("did you mean {meant}?"),
            None if rest.is_empty() => "remove it".into(),
            None => format!("write one of {}", rest.join(", ")),
        };
    }
    if message.starts_with("invalid type") {
        let line = text.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
        let member = line.rsplit(['{', ',']).next().unwrap_or_default().split('=').next();
        return write(member.unwrap_or_default().trim()).unwrap_or_else(|| {
            "write the kind of value that docs/formats/policy.md shows for this member".into()
        });
    }
    if message.starts_with("duplicate key") {
        return "write each member and each table once".into();
    }
    "mend the TOML: name = \"text\", name = 2, name = true or name = [\"a\", \"b\"]; tables begin with [name]".into()
}

/// Whether one word is the other with a letter or two put in, left out or changed.
fn are_like(one: &str, other: &str) -> bool {
    let same = |mut a: core::str::Chars<'_>, mut b: core::str::Chars<'_>, back: bool| {
        let mut next = || if back { (a.next_back(), b.next_back()) } else { (a.next(), b.next()) };
        let mut count = 0_usize;
        while let (Some(x), Some(y)) = next() {
            if x != y {
                break;
            }
            count = count.saturating_add(1);
        }
        count
    };
    let kept = same(one.chars(), other.chars(), false).saturating_add(same(
        one.chars(),
        other.chars(),
        true,
    ));
    kept.saturating_add(2) >= one.chars().count().max(other.chars().count())
}

/// What is allowed and unwise.
fn warnings(table: &PolicyTable, policy: &Policy, now: Time) -> Vec<Fault> {
    let mut found = Vec::new();
    let end = table.expires.span();
    let left = policy.expires.since(now) / DAY;
    if policy.expires <= now {
        found.push(fault(end, "the policy has ended already", "let it end later"));
    } else if left < SOON {
        let message = format!("the policy ends in {left} days: then nothing is accepted any more");
        found.push(fault(end, message, "let it end later, or have the next version ready"));
    } else if left > 366_u64.saturating_mul(3) {
        let message = "the policy ends in more than three years";
        found.push(fault(
            end,
            message,
            "let it end sooner, so that keys and people are looked at again",
        ));
    }
    let threshold = policy.root.threshold.get();
    let members = policy.root.members.len();
    if threshold == 1 {
        let message = "one person alone can make the next policy, and so can a thief of one key";
        found.push(fault(table.root.threshold.span(), message, "ask for two people or more"));
    } else if usize::try_from(threshold).is_ok_and(|threshold| threshold == members) {
        let message = format!(
            "all {members} root people must sign: when one key is lost there is no next policy"
        );
        found.push(fault(
            table.root.threshold.span(),
            message,
            "name one person more than must sign",
        ));
    }
    let endless = |name: &Text| {
        let label = parsed::<Label>(name).ok()?;
        let keys = &policy.principals.get(&label)?.keys;
        keys.iter().any(|key| key.until.is_none() && !key.revoked).then(|| label.to_string())
    };
    let machines: Vec<String> = table.machines.keys().filter_map(endless).collect();
    if let (Some(first), false) = (table.machines.keys().next(), machines.is_empty()) {
        let message = format!("keys of machines without an end: {}", machines.join(", "));
        found.push(fault(
            first.span(),
            message,
            "give them `until`, so that a forgotten machine ends by itself",
        ));
    }
    for (name, product) in &table.products {
        if let Some(read) = parsed::<Label>(name).ok().and_then(|label| policy.products.get(&label))
        {
            of_product(product, read, policy, &mut found);
        }
    }
    found
}

/// Facts that a worker finds out itself, for every step or for one in a container
/// (docs/formats/build-type.md, rule 3). Those of platforms have the platform's name before a dot.
const MEASURED: [&str; 18] = [
    "architecture",
    "capabilities",
    "container.engine",
    "container.image-id",
    "container.platform",
    "filesystem",
    "hostname",
    "interactive",
    "isolation",
    "kernel",
    "landlock",
    "limits",
    "machine",
    "network",
    "os",
    "privileges",
    "processes",
    "user",
];

/// A demand that no machine can ever meet, and that is noticed only when a step was done in vain.
fn unheard_of(step: &StepTable, found: &mut Vec<Fault>) {
    let demanded = step.machine.iter().map(|demand| &demand.fact);
    for fact in demanded.chain(&step.builders_differ) {
        let name = fact.get_ref().as_str();
        let measured = !name.contains('.') || name.starts_with("container.");
        if measured && name != "worker" && !MEASURED.contains(&name) {
            let message = format!("no worker says {name:?} of its machine");
            let remedy = format!("write one of {}, or a platform's fact", MEASURED.join(", "));
            found.push(fault(fact.span(), message, remedy));
        }
    }
}

fn of_product(table: &ProductTable, product: &Product, policy: &Policy, found: &mut Vec<Fault>) {
    for (name, phase) in &table.phases {
        let Some((label, read)) =
            parsed::<Label>(name).ok().and_then(|label| product.phases.get_key_value(&label))
        else {
            continue;
        };
        let needed =
            read.approve.iter().fold(0_u32, |sum, (_, count)| sum.saturating_add(count.get()));
        let lasting: Vec<&str> = product
            .steps
            .iter()
            .filter(|(_, step)| step.irrevocable && step.phase == *label)
            .map(|(name, _)| name.as_str())
            .collect();
        if needed == 1 && !lasting.is_empty() {
            let message =
                format!("one approval starts what cannot be taken back: {}", lasting.join(", "));
            found.push(fault(phase.approve.span(), message, "ask for two people or more"));
        }
        if read.proposer_counts {
            let message = "whoever proposes may approve the same";
            found.push(fault(
                phase.proposer_counts.span(),
                message,
                "write proposer-counts = false",
            ));
        }
        for (role, count) in &read.approve {
            let able = policy.roles.get(role).map_or(0, alloc::collections::BTreeSet::len);
            if able > 1 && usize::try_from(count.get()).is_ok_and(|count| count == able) {
                let message = format!(
                    "all {able} members of {role} must approve: when one is away nothing is released"
                );
                found.push(fault(
                    phase.approve.span(),
                    message,
                    "name more members, or ask for fewer",
                ));
            }
        }
    }
    for (name, step) in &table.steps {
        let Some(read) = parsed::<Label>(name).ok().and_then(|label| product.steps.get(&label))
        else {
            continue;
        };
        untied(step, read, policy, found);
        unheard_of(step, found);
        if let Some(both) = read.perform.intersection(&read.schedule).next() {
            let message = format!(
                "{both} makes the tasks of {} and performs them: its key alone makes a result",
                name.get_ref()
            );
            found.push(fault(step.perform.span(), message, "let another machine sign its tasks"));
        }
        if let Some(record) = step.record_downloads.as_ref().filter(|record| *record.get_ref()) {
            let message = format!(
                "{} takes whatever it finds: its downloads are recorded and not pinned",
                name.get_ref()
            );
            found.push(fault(
                record.span(),
                message,
                "pin what it fetched, then remove record-downloads",
            ));
        }
        if let Some(both) = read.perform.intersection(&product.desk).next() {
            let message = format!("{both} issues authorizations and performs {}", name.get_ref());
            found.push(fault(
                step.perform.span(),
                message,
                "let another machine be the release desk",
            ));
        }
    }
}

/// Documents that are the same for the whole life of a machine prove nothing without a key that lives
/// there: every manifest would be refused.
fn untied(table: &StepTable, step: &Step, policy: &Policy, found: &mut Vec<Fault>) {
    for (demand, entry) in step.machine.iter().zip(&table.machine) {
        let platform = platform_of(&demand.fact).filter(|_| demand.standing == Standing::Verified);
        let Some(name) = platform
            .filter(|name| policy.platforms.get(name).is_some_and(|platform| !platform.binds()))
        else {
            continue;
        };
        let own = |fact: &String| platform_of(fact).as_ref() == Some(&name);
        let is_untied = |machine: &&Label| {
            let keys = policy.principals.get(*machine).map(|principal| principal.keys.as_slice());
            let mut keys = keys.unwrap_or_default().iter().filter(|key| !key.revoked);
            keys.any(|key| !key.machine.keys().any(own))
        };
        if let Some(machine) = step.perform.iter().find(is_untied) {
            let message = format!(
                "{name} signs no challenge, and a key of {machine} is not tied to its machine: nothing proves {}",
                demand.fact
            );
            let remedy = format!(
                "write machine = {{ \"{name}.instance-id\" = \"…\" }} beside the key, or enrol it"
            );
            found.push(fault(entry.fact.span(), message, remedy));
        }
    }
}
