//! The world's policy.

use custody_core::envelope::{Envelope, PolicyText};

use crate::key::{Key, signed};

/// A policy as it stands in version 1; later versions change it by replacing text.
pub fn policy_text() -> String {
    let key = |name: &str| Key::of(name).public.to_openssh();
    let mut text = format!(
        r#"policy = "https://custody.dev/policy/v1"
version = 1
expires = "2030-01-01T00:00:00Z"
instance = "production"
clock-skew = "5m"

[root]
people = ["alice", "bob", "carol"]
threshold = 2

[people.alice]
keys = [{{ key = "{}" }}, {{ key = "{}" }}]
"#,
        key("alice"),
        key("alice-2"),
    );
    for name in ["bob", "carol"] {
        text += &format!("[people.{name}]\nkeys = [{{ key = \"{}\" }}]\n", key(name));
    }
    let machines = [
        "desk",
        "scheduler",
        "builder",
        "packer",
        "signer",
        "publisher",
        "gate",
        "decider",
        "docs",
    ];
    for name in machines {
        text += &format!("[machines.{name}]\nkeys = [{{ key = \"{}\" }}]\n", key(name));
    }
    text += r#"
[roles.releng]
members = ["alice", "bob", "carol"]

[products.hello]
source = "https://git.example.org/hello"
channels = ["release", "beta"]
desk = ["desk"]
propose = ["releng"]
resolve = ["releng"]

[products.hello.phases.promote]
approve = [{ role = "releng", count = 2 }]
proposer-counts = false
sign-off-max-age = "1d"
after = []

[products.hello.phases.ship]
approve = [{ role = "releng", count = 2 }]
proposer-counts = false
sign-off-max-age = "1d"
after = ["promote"]
"#;
    let lesser = "network = false\nirrevocable = false\nreceipts = \"none\"\nmax-age = \"1d\"";
    let steps = [
        ("build", "promote", "builder", true, "[]", "dist/*", "full", ""),
        (
            "partial",
            "promote",
            "packer",
            false,
            "[{ step = \"build\", release = \"same\" }, { step = \"build\", release = \"other\" }]",
            "*.partial",
            "full",
            "externals = [\"https://tools.example.org/\"]\n",
        ),
        (
            "sign",
            "promote",
            "signer",
            false,
            "[{ step = \"build\", release = \"same\" }, { step = \"partial\", release = \"same\" }]",
            "signed/*",
            "full",
            "",
        ),
        ("decide", "promote", "decider", true, "[]", "tasks/*", "direct", ""),
        (
            "extra",
            "promote",
            "docs",
            false,
            "[]",
            "extra.txt",
            "direct",
            "scheduled-by = \"decide\"\n",
        ),
        (
            "smoke",
            "ship",
            "docs",
            false,
            "[{ step = \"sign\", release = \"same\" }]",
            "smoke.txt",
            "direct",
            "",
        ),
        (
            "notes",
            "ship",
            "docs",
            false,
            "[{ step = \"sign\", release = \"same\" }]",
            "notes.txt",
            "full",
            "summaries = [\"gate\"]\n",
        ),
    ];
    for (step, phase, machine, source, inputs, outputs, depth, more) in steps {
        let schedule =
            if more.contains("scheduled-by") { "" } else { "schedule = [\"scheduler\"]\n" };
        text += &format!(
            "\n[products.hello.steps.{step}]\nphase = \"{phase}\"\nperform = [\"{machine}\"]\n{schedule}source = {source}\n\
             inputs = {inputs}\noutputs = [\"{outputs}\"]\nverification = \"{depth}\"\n{lesser}\n{more}"
        );
    }
    text += r#"
[products.hello.steps.publish]
phase = "ship"
perform = ["publisher"]
schedule = ["scheduler"]
source = false
inputs = [{ step = "sign", release = "same" }]
outputs = ["*"]
network = true
verification = "full"
irrevocable = true
destinations = ["s3://releases/hello/"]
max-age = "1d"
receipts = "none"
"#;
    text
}

pub fn policy_envelope(text: &str, by: &[&str]) -> Envelope {
    signed(Envelope::unsigned::<PolicyText>(text.as_bytes()), by)
}

/// The next version of a policy, changed further by `edit`.
pub fn next_version(envelope: &Envelope, edit: impl Fn(String) -> String) -> String {
    let text = String::from_utf8(envelope.unverified_payload().to_vec()).unwrap();
    let version: u64 =
        text.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().parse().unwrap();
    let without: String = text
        .lines()
        .filter(|line| !line.starts_with("previous = "))
        .map(|l| format!("{l}\n"))
        .collect();
    let line = format!("version = {version}\n");
    let next = format!("version = {}\nprevious = \"{}\"\n", version + 1, envelope.id());
    edit(without.replace(&line, &next))
}
