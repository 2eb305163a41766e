//! The text of a policy: what nobody could mean, and keys that nobody should have.

use custody_core::Code;
use custody_core::encoding::base64;
use custody_core::key::PublicKey;
use custody_world::{Key, policy_text};

use crate::case::{About, Group, Set, What};
use crate::keys::{Ecdsa, Rsa, sk_ed25519};

/// A small policy that is whole.
pub(super) fn small() -> String {
    let key = |name: &str| Key::of(name).public.to_openssh();
    format!(
        r#"policy = "https://custody.dev/policy/v1"
version = 1
expires = "2030-01-01T00:00:00Z"
instance = "production"
clock-skew = "5m"

[root]
people = ["alice", "bob", "carol"]
threshold = 2

[people.alice]
keys = [{{ key = "{}" }}]
[people.bob]
keys = [{{ key = "{}" }}]
[people.carol]
keys = [{{ key = "{}" }}]
[machines.desk]
keys = [{{ key = "{}" }}]
[machines.builder]
keys = [{{ key = "{}" }}]

[roles.releng]
members = ["alice", "bob", "carol"]

[products.hello]
source = "https://git.example.org/hello"
channels = ["release"]
desk = ["desk"]
propose = ["releng"]
resolve = ["releng"]

[products.hello.phases.promote]
approve = [{{ role = "releng", count = 2 }}]
proposer-counts = false
sign-off-max-age = "1d"
after = []

[products.hello.steps.build]
phase = "promote"
perform = ["builder"]
schedule = ["desk"]
source = true
inputs = []
outputs = ["dist/*"]
network = false
verification = "full"
irrevocable = false
max-age = "1d"
receipts = "none"

[products.hello.steps.publish]
phase = "promote"
perform = ["builder"]
schedule = ["desk"]
source = false
inputs = [{{ step = "build", release = "same" }}]
outputs = ["*"]
network = true
verification = "full"
irrevocable = true
destinations = ["s3://releases/hello/"]
max-age = "1d"
receipts = "none"
"#,
        key("alice"),
        key("bob"),
        key("carol"),
        key("desk"),
        key("builder"),
    )
}

fn changed(from: &str, to: &str) -> What {
    let text = small();
    assert!(text.contains(from), "{from}");
    What::Policy(text.replacen(from, to, 1))
}

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("policy");
    group.accept("small", About("a small policy", &[]), &What::Policy(small()));
    group.accept(
        "honest",
        About("the policy of the other cases", &[]),
        &What::Policy(policy_text()),
    );
    numbers(&mut group);
    members(&mut group);
    contradictions(&mut group);
    places(&mut group);
    texts(&mut group);
    keys(&mut group);
    windows(&mut group);
}

fn refuse(group: &mut Group<'_>, name: &str, row: &str, about: &str, from: &str, to: &str) {
    let rows: &[&str] = if row.is_empty() { &[] } else { &[row] };
    group.reject(name, "small", Code::PolicyInvalid, About(about, rows), &changed(from, to));
}

fn numbers(group: &mut Group<'_>) {
    let nonsense = [
        ("threshold-0", "threshold = 2", "threshold = 0"),
        ("threshold-negative", "threshold = 2", "threshold = -1"),
        ("threshold-above-people", "threshold = 2", "threshold = 4"),
        ("count-0", "count = 2", "count = 0"),
        ("count-above-people", "count = 2", "count = 4"),
    ];
    for (name, from, to) in nonsense {
        refuse(group, name, "pol-threshold-nonsense", "a quorum that cannot be meant", from, to);
    }
    let types = [
        ("threshold-text", "threshold = 2", "threshold = \"2\""),
        ("threshold-float", "threshold = 2", "threshold = 2.0"),
        ("threshold-true", "threshold = 2", "threshold = true"),
        ("version-text", "version = 1", "version = \"1\""),
        ("irrevocable-text", "irrevocable = true", "irrevocable = \"true\""),
    ];
    for (name, from, to) in types {
        refuse(group, name, "json-type-juggling", "a value of another type", from, to);
    }
    for (name, to) in [
        ("version-0", "version = 0"),
        ("version-2-without-previous", "version = 2"),
        ("version-2-64", "version = 18446744073709551616"),
    ] {
        refuse(group, name, "pol-fast-forward", "a version that cannot be", "version = 1", to);
    }
    let durations = [
        ("skew-unitless", "\"5\""),
        ("skew-zeroless", "\"m\""),
        ("skew-huge", "\"99999999999999999999d\""),
        ("skew-weeks", "\"1w\""),
    ];
    for (name, to) in durations {
        refuse(group, name, "json-time-forms", "a duration in another form", "\"5m\"", to);
    }
    let expiry = "\"2030-01-01T00:00:00Z\"";
    for (name, to) in [
        ("expires-date", "\"2030-01-01\""),
        ("expires-february-30", "\"2030-02-30T00:00:00Z\""),
        ("expires-toml-date", "2030-01-01T00:00:00Z"),
    ] {
        refuse(
            group,
            name,
            "json-time-forms",
            "a time in another form, or no such moment",
            expiry,
            to,
        );
    }
}

fn members(group: &mut Group<'_>) {
    for (name, line) in [
        ("no-version", "version = 1\n"),
        ("no-expires", "expires = \"2030-01-01T00:00:00Z\"\n"),
        ("no-threshold", "threshold = 2\n"),
        ("no-clock-skew", "clock-skew = \"5m\"\n"),
        ("no-approve", "approve = [{ role = \"releng\", count = 2 }]\n"),
        ("no-sign-off-max-age", "sign-off-max-age = \"1d\"\n"),
        ("no-perform", "perform = [\"builder\"]\n"),
        ("no-max-age", "max-age = \"1d\"\n"),
        ("no-inputs", "inputs = []\n"),
        ("no-schedule", "schedule = [\"desk\"]\n"),
        ("no-receipts", "receipts = \"none\"\n"),
    ] {
        refuse(
            group,
            name,
            "pol-field-missing",
            "a member is absent; that never means no limit",
            line,
            "",
        );
    }
    for (name, from) in [
        ("unknown-in-head", "[root]"),
        ("unknown-in-root", "[people.alice]"),
        ("unknown-in-step", "[products.hello.steps.publish]"),
    ] {
        let to = format!("evil = 1\n{from}");
        refuse(group, name, "json-unknown-member-own", "a member that is not defined", from, &to);
    }
    refuse(
        group,
        "unknown-in-approve",
        "json-unknown-member-own",
        "a member that is not defined",
        "count = 2 }",
        "count = 2, evil = 1 }",
    );
    let twice = "clock-skew = \"5m\"\nclock-skew = \"1d\"";
    refuse(
        group,
        "member-twice",
        "json-dup-key-statement",
        "one member stands twice",
        "clock-skew = \"5m\"",
        twice,
    );
    for (name, from, to) in [
        ("people-empty", "people = [\"alice\", \"bob\", \"carol\"]", "people = []"),
        ("perform-empty", "perform = [\"builder\"]", "perform = []"),
        ("approve-empty", "approve = [{ role = \"releng\", count = 2 }]", "approve = []"),
        ("channels-empty", "channels = [\"release\"]", "channels = []"),
        ("outputs-empty", "outputs = [\"dist/*\"]", "outputs = []"),
    ] {
        refuse(group, name, "chain-vacuous-empty", "an empty list where one is needed", from, to);
    }
    let text = small();
    let (head, _) = text.split_once("[products.hello.steps.build]").unwrap();
    let about = About("a product without steps", &["chain-vacuous-empty"]);
    group.reject("no-steps", "small", Code::PolicyInvalid, about, &What::Policy(head.into()));
}

fn contradictions(group: &mut Group<'_>) {
    for (name, from, to) in [
        ("root-unknown", "people = [\"alice\",", "people = [\"mallory\","),
        ("root-twice", "people = [\"alice\", \"bob\",", "people = [\"alice\", \"alice\","),
        ("root-machine", "people = [\"alice\",", "people = [\"desk\","),
        ("member-machine", "members = [\"alice\",", "members = [\"builder\","),
        ("desk-person", "desk = [\"desk\"]", "desk = [\"alice\"]"),
        ("perform-unknown", "perform = [\"builder\"]", "perform = [\"nobody\"]"),
        ("perform-twice", "perform = [\"builder\"]", "perform = [\"builder\", \"builder\"]"),
        ("role-unknown", "role = \"releng\"", "role = \"qa\""),
        ("phase-unknown", "phase = \"promote\"", "phase = \"other\""),
        ("phase-after-itself", "after = []", "after = [\"promote\"]"),
        ("input-unknown", "step = \"build\"", "step = \"other\""),
        ("input-of-any-release", "release = \"same\"", "release = \"any\""),
        (
            "direct-and-irrevocable",
            "verification = \"full\"\nirrevocable = true",
            "verification = \"direct\"\nirrevocable = true",
        ),
        ("publishing-and-revocable", "irrevocable = true", "irrevocable = false"),
        (
            "summaries-and-irrevocable",
            "irrevocable = true",
            "irrevocable = true\nsummaries = [\"desk\"]",
        ),
        (
            "scheduled-twice",
            "schedule = [\"desk\"]",
            "schedule = [\"desk\"]\nscheduled-by = \"publish\"",
        ),
        ("receipts-required", "receipts = \"none\"", "receipts = \"required\""),
        ("another-format", "policy/v1", "policy/v2"),
        ("role-idle", "[roles.releng]", "[roles.idle]\nmembers = [\"alice\"]\n[roles.releng]"),
    ] {
        refuse(group, name, "pol-conflicting-rules", "rules that nobody could mean", from, to);
    }
    let idle = format!(
        "[machines.idle]\nkeys = [{{ key = \"{}\" }}]\n[roles.releng]",
        Key::of("idle").public.to_openssh()
    );
    refuse(
        group,
        "machine-idle",
        "pol-conflicting-rules",
        "a machine that no rule names",
        "[roles.releng]",
        &idle,
    );
}

fn places(group: &mut Group<'_>) {
    for (name, row, from, to) in [
        ("output-climbs", "art-name-traversal", "\"dist/*\"", "\"../*\""),
        ("destination-host-only", "pol-wildcards", "s3://releases/hello/", "s3://"),
        ("destination-star", "pol-wildcards", "s3://releases/hello/", "s3://releases/*"),
        ("destination-climbs", "gate-destination", "s3://releases/hello/", "s3://releases/../x/"),
        ("channel-star", "pol-wildcards", "channels = [\"release\"]", "channels = [\"*\"]"),
        ("perform-star", "pol-wildcards", "perform = [\"builder\"]", "perform = [\"build*\"]"),
    ] {
        refuse(group, name, row, "a place or name that is none, or too wide", from, to);
    }
    let origins = |origin: &str| format!("origins = [\"{origin}\"]\n\n[root]");
    for (name, origin) in [
        ("origin", "https://desk.example.org"),
        ("origin-port", "https://desk.example.org:8443"),
        ("origin-localhost", "http://localhost:8080"),
    ] {
        let about = About("an origin on which passkeys may sign", &[]);
        group.accept(name, about, &changed("\n[root]", &origins(origin)));
    }
    for (name, origin) in [
        ("origin-http", "http://desk.example.org"),
        ("origin-slash", "https://desk.example.org/"),
        ("origin-star", "https://*.example.org"),
        ("origin-like-localhost", "http://localhost.evil.example.org"),
        ("origin-with-user", "http://localhost@evil.example.org"),
    ] {
        refuse(
            group,
            name,
            "hum-webauthn-origin",
            "what is no origin that may be trusted",
            "\n[root]",
            &origins(origin),
        );
    }
}

fn texts(group: &mut Group<'_>) {
    let whole = small();
    let about =
        About("lines that end with CR LF, and a comment in other letters", &["json-encoding"]);
    let text = whole.replacen("[root]", "# zwei Köpfe, 二\n[root]", 1).replace('\n', "\r\n");
    group.accept("text-crlf", about, &What::Policy(text));
    for (name, row, text) in [
        ("text-bom", "json-encoding", format!("\u{feff}{whole}")),
        ("text-nul", "json-nul-and-controls", format!("{whole}\0")),
        (
            "text-right-to-left",
            "json-bidi-homoglyph",
            whole.replacen("hello\"", "hello\u{202e}\"", 1),
        ),
        (
            "text-right-to-left-in-comment",
            "json-bidi-homoglyph",
            whole.replacen("[root]", "# two \u{202e}ecno\n[root]", 1),
        ),
        ("text-cut", "pol-tampered", whole[..whole.len() - 20].into()),
        ("text-json", "json-yaml-alias-bomb", "{\"version\": 1}".into()),
        ("text-empty", "chain-vacuous-empty", String::new()),
    ] {
        let about = About("what is not the text of a policy", &[row]);
        group.reject(name, "small", Code::PolicyInvalid, about, &What::Policy(text));
    }
}

/// Carol's key is another text.
fn carols(text: &str) -> What {
    changed(&format!("\"{}\"", Key::of("carol").public.to_openssh()), text)
}

fn keys(group: &mut Group<'_>) {
    let (bob, carol) = (Key::of("bob").public, Key::of("carol").public);
    let quoted = |key: &PublicKey| format!("\"{}\"", key.to_openssh());
    for (name, text) in [
        ("key-commented", format!("\"{} carol@desk\"", carol.to_openssh())),
        ("key-pem", format!("\"\"\"\n{}\"\"\"", carol.to_pem())),
        ("key-der", format!("\"{}\"", base64(&carol.to_spki_der()))),
        ("key-p256", quoted(&Ecdsa::p256("carol").public)),
        ("key-p384", quoted(&Ecdsa::p384("carol").public)),
        ("key-rsa", quoted(&Rsa::new().public)),
        ("key-sk", quoted(&sk_ed25519("carol", "ssh:custody"))),
    ] {
        group.accept(name, About("a key in one of its forms", &[]), &carols(&text));
    }
    for (name, row, text) in [
        ("key-twice", "hum-key-shared-by-two", quoted(&bob)),
        (
            "key-twice-commented",
            "env-one-key-extra-fields",
            format!("\"{} other\"", bob.to_openssh()),
        ),
        ("key-twice-pem", "env-one-key-two-keyids", format!("\"\"\"\n{}\"\"\"", bob.to_pem())),
        ("key-twice-der", "env-one-key-two-keyids", format!("\"{}\"", base64(&bob.to_spki_der()))),
        ("key-twice-sk", "env-one-key-two-keyids", quoted(&sk_ed25519("bob", "ssh:custody"))),
        ("key-of-a-machine", "env-cross-protocol-key", quoted(&Key::of("builder").public)),
    ] {
        let about =
            About("one key stands twice, in whatever form", &[row, "pol-duplicate-root-key"]);
        group.reject(name, "small", Code::PolicyKeyDuplicate, about, &carols(&text));
    }
    let alice = format!("keys = [{{ key = {} }}]", quoted(&Key::of("alice").public));
    let twice = alice.replace(
        "}]",
        &format!(
            "}}, {{ key = {}, user-verification = false }}]",
            quoted(&Key::of("alice").public)
        ),
    );
    let about = About(
        "one person has the same key twice, once with more members",
        &["env-one-key-extra-fields"],
    );
    group.reject(
        "key-twice-of-one",
        "small",
        Code::PolicyKeyDuplicate,
        about,
        &changed(&alice, &twice),
    );
    let mut identity = [0; 32];
    identity[0] = 1;
    for (name, row, key) in [
        ("key-identity", "env-small-order-key", PublicKey::Ed25519(identity)),
        ("key-of-order-4", "env-small-order-key", PublicKey::Ed25519([0; 32])),
        (
            "key-sk-identity",
            "env-small-order-key",
            PublicKey::SkEd25519 { point: identity, application: "ssh:".into() },
        ),
        ("key-off-the-curve", "env-ec-point-invalid", PublicKey::EcdsaP256([4; 65])),
        ("key-rsa-1024", "env-weak-rsa", PublicKey::Rsa { n: vec![0xc3; 128], e: vec![1, 0, 1] }),
        ("key-rsa-exponent-1", "env-weak-rsa", PublicKey::Rsa { n: vec![0xc3; 256], e: vec![1] }),
    ] {
        let about = About("a key that anybody could sign for", &[row]);
        group.reject(name, "small", Code::PolicyKeyWeak, about, &carols(&quoted(&key)));
    }
    let about = About("a kind of key that is too weak", &["env-weak-rsa"]);
    group.reject(
        "key-dss",
        "small",
        Code::PolicyKeyWeak,
        about,
        &carols("\"ssh-dss AAAAB3NzaC1kc3MAAAAA\""),
    );
    let about = About("what is no key", &["env-ec-point-invalid"]);
    group.reject("key-cut", "small", Code::PolicyInvalid, about, &carols("\"ssh-ed25519 AAAA\""));
}

fn windows(group: &mut Group<'_>) {
    let key = |name: &str| format!("{{ key = \"{}\"", Key::of(name).public.to_openssh());
    let with = |name: &str, more: &str| changed(&key(name), &format!("{}, {more}", key(name)));
    let revoked = |names: &[&str]| {
        let revoke = |text: String, name: &&str| {
            text.replace(&key(name), &format!("{}, revoked = true", key(name)))
        };
        What::Policy(names.iter().fold(small(), revoke))
    };
    let about = About("one of three root people has lost the key; two are left", &["pol-lockout"]);
    group.accept("revoked-one", about, &revoked(&["bob"]));
    let about =
        About("two of three root people have lost their keys; one is left", &["pol-lockout"]);
    group.reject(
        "revoked-two",
        "revoked-one",
        Code::PolicyInvalid,
        about,
        &revoked(&["bob", "carol"]),
    );
    let about = About("a key with a window", &[]);
    group.accept(
        "window",
        about,
        &with("desk", "from = \"2026-01-01T00:00:00Z\", until = \"2027-01-01T00:00:00Z\""),
    );
    let about = About("a key whose window is empty", &["pol-key-expired"]);
    group.reject(
        "window-empty",
        "window",
        Code::PolicyInvalid,
        about,
        &with("desk", "from = \"2027-01-01T00:00:00Z\", until = \"2027-01-01T00:00:00Z\""),
    );
    let about = About("a plain key that is to check its user", &["hum-webauthn-flags"]);
    group.reject(
        "plain-key-checks-user",
        "small",
        Code::PolicyInvalid,
        about,
        &with("bob", "user-verification = true"),
    );
}
