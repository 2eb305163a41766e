//! The policy and the way to it: authors make mistakes, root keys below the threshold are stolen, and
//! storage hands out old or foreign policies.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod rotation;
mod validity;

use custody_world as world;

use custody_core::Code;
use custody_verify::Policy;
use world::{Key, policy_text};

#[track_caller]
fn fault(edit: impl Fn(String) -> String, code: Code, place: &str) {
    let honest = policy_text();
    assert!(Policy::parse(&honest).is_ok(), "the control");
    let text = edit(honest.clone());
    assert_ne!(text, honest, "nothing was changed");
    let fault = Policy::parse(&text)
        .err()
        .unwrap_or_else(|| panic!("accepted, where {code} was expected at {place}"));
    assert_eq!(fault.code, code, "{fault}");
    let line = text.lines().nth(fault.line - 1).unwrap();
    assert_eq!(fault.excerpt, line.chars().take(160).collect::<String>());
    let found: String = line.chars().skip(fault.column - 1).collect();
    assert!(found.starts_with(place), "{fault}: {found}");
    assert!(!fault.remedy.is_empty() && !fault.message.is_empty());
}

#[track_caller]
fn swap(from: &str, to: &str, code: Code, place: &str) {
    fault(
        |text| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        },
        code,
        place,
    );
}

/// `pol-threshold-nonsense`, `json-type-juggling`, `pol-fast-forward`.
#[test]
fn a_nonsensical_threshold_or_version_is_refused_with_its_place() {
    for (value, place) in
        [("0", "0"), ("-1", "-1"), ("4", "4"), ("9223372036854775807", "9223372036854775807")]
    {
        swap("threshold = 2", &format!("threshold = {value}"), Code::PolicyInvalid, place);
        swap("count = 2", &format!("count = {value}"), Code::PolicyInvalid, place);
    }
    for value in ["\"2\"", "2.9", "true", "[2]"] {
        swap("threshold = 2", &format!("threshold = {value}"), Code::PolicyInvalid, value);
        swap("count = 2", &format!("count = {value}"), Code::PolicyInvalid, value);
    }
    for value in ["0", "-1", "\"1\"", "1.0", "2"] {
        swap("version = 1", &format!("version = {value}"), Code::PolicyInvalid, value);
    }
    swap(
        "version = 1",
        "version = 18446744073709551616",
        Code::PolicyInvalid,
        "18446744073709551616",
    );
    swap("irrevocable = false", "irrevocable = \"false\"", Code::PolicyInvalid, "\"false\"");
}

const EXTERNALS: &str = "externals = [\"https://tools.example.org/\"]\n";

/// `pol-field-missing`: absence never means unlimited.
#[test]
fn a_missing_or_unknown_member_is_refused() {
    let text = policy_text();
    let optional =
        ["[", "destinations", "externals", "downloads", "summaries", "scheduled-by", "schedule ="];
    let removable: Vec<usize> = (0..text.lines().count())
        .filter(|i| {
            let line = text.lines().nth(*i).unwrap();
            !line.is_empty() && !optional.iter().any(|word| line.starts_with(word))
        })
        .collect();
    assert!(removable.len() > 60);
    for i in removable {
        let without: String = text
            .lines()
            .enumerate()
            .filter(|(n, _)| *n != i)
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        let fault = Policy::parse(&without).err();
        assert!(
            fault.is_some_and(|fault| fault.code == Code::PolicyInvalid),
            "{}",
            text.lines().nth(i).unwrap()
        );
    }
    for header in [
        "[root]",
        "[people.bob]",
        "[machines.desk]",
        "[roles.releng]",
        "[products.hello]",
        "[products.hello.phases.ship]",
        "[products.hello.steps.sign]",
    ] {
        swap(header, &format!("{header}\nevil = 1"), Code::PolicyInvalid, "evil");
    }
    fault(|text| format!("evil = 1\n{text}"), Code::PolicyInvalid, "evil");
    swap("count = 2 }", "count = 2, evil = 1 }", Code::PolicyInvalid, "evil");
    swap(
        "clock-skew = \"5m\"",
        "clock-skew = \"5m\"\nclock-skew = \"5m\"",
        Code::PolicyInvalid,
        "clock-skew",
    );
}

/// `chain-vacuous-empty`, and empty lists where one is needed.
#[test]
fn an_empty_list_or_a_product_without_steps_is_refused() {
    swap("people = [\"alice\", \"bob\", \"carol\"]", "people = []", Code::PolicyInvalid, "[]");
    swap("members = [\"alice\", \"bob\", \"carol\"]", "members = []", Code::PolicyInvalid, "[]");
    swap("approve = [{ role = \"releng\", count = 2 }]", "approve = []", Code::PolicyInvalid, "[]");
    for list in [
        "channels = [\"release\", \"beta\"]",
        "desk = [\"desk\"]",
        "propose = [\"releng\"]",
        "resolve = [\"releng\"]",
        "perform = [\"builder\"]",
        "outputs = [\"dist/*\"]",
    ] {
        let name = list.split('=').next().unwrap();
        swap(list, &format!("{name}= []"), Code::PolicyInvalid, "[]");
    }
    fault(
        |text| {
            let start = text.find("[products.hello.phases.promote]").unwrap();
            format!("{}[products.hello.phases]\n[products.hello.steps]\n", &text[..start])
        },
        Code::PolicyInvalid,
        "hello",
    );
    fault(
        |text| {
            let start = text.find("[products.hello]").unwrap();
            format!("products = {{}}\n{}", &text[..start])
        },
        Code::PolicyInvalid,
        "",
    );
}

/// `env-one-key-two-keyids`, `env-one-key-extra-fields`, `pol-duplicate-root-key`,
/// `hum-key-shared-by-two`: key material is compared, whatever form it is written in.
#[test]
fn the_same_key_twice_in_any_form_is_refused() {
    let bob = Key::of("bob").public;
    let point = match &bob {
        custody_core::key::PublicKey::Ed25519(point) => *point,
        _ => panic!("an Ed25519 key"),
    };
    let sk = custody_core::key::PublicKey::SkEd25519 { point, application: "ssh:custody".into() };
    let forms = [
        format!("\"{}\"", bob.to_openssh()),
        format!("\"{} bob@laptop\"", bob.to_openssh()),
        format!("\"\"\"{}\"\"\"", bob.to_pem()),
        format!("\"{}\"", custody_core::encoding::base64(&bob.to_spki_der())),
        format!("\"{}\"", sk.to_openssh()),
    ];
    for form in forms {
        for other in ["carol", "alice-2", "publisher"] {
            let old = Key::of(other).public.to_openssh();
            let edit =
                |text: String| text.replace(&format!("key = \"{old}\""), &format!("key = {form}"));
            let parsed = Policy::parse(&edit(policy_text()))
                .err()
                .unwrap_or_else(|| panic!("{form} for {other}"));
            let code = if form.contains("sk-ssh") && other == "publisher" {
                Code::PolicyKeyDuplicate
            } else {
                parsed.code
            };
            assert_eq!(code, Code::PolicyKeyDuplicate, "{form} for {other}: {parsed}");
        }
        // control: in its own place each form is bob's key
        let edit = |text: String| {
            text.replace(&format!("key = \"{}\"", bob.to_openssh()), &format!("key = {form}"))
        };
        let policy = Policy::parse(&edit(policy_text())).unwrap();
        assert_eq!(policy.owner(&bob.id()).unwrap().as_str(), "bob");
    }
}

/// `env-small-order-key`, `env-weak-rsa`, `env-ec-point-invalid`.
#[test]
fn a_weak_key_is_refused() {
    let carol = Key::of("carol").public.to_openssh();
    let mut identity = [0_u8; 32];
    identity[0] = 1;
    let weak = [
        custody_core::key::PublicKey::Ed25519(identity),
        custody_core::key::PublicKey::Ed25519([0; 32]),
        custody_core::key::PublicKey::SkEd25519 { point: identity, application: "ssh:".into() },
        custody_core::key::PublicKey::EcdsaP256([4; 65]),
        custody_core::key::PublicKey::Rsa { n: vec![0xc3; 128], e: vec![1, 0, 1] },
        custody_core::key::PublicKey::Rsa { n: vec![0xc3; 256], e: vec![1] },
    ];
    for key in weak {
        let text = key.to_openssh();
        fault(|policy| policy.replace(&carol, &text), Code::PolicyKeyWeak, "\"");
    }
    fault(|policy| policy.replace(&carol, "ssh-ed25519 AAAA"), Code::PolicyInvalid, "\"");
    fault(
        |policy| policy.replace(&carol, "ssh-dss AAAAB3NzaC1kc3MAAAAA"),
        Code::PolicyKeyWeak,
        "\"",
    );
}

/// Rules that nobody could mean.
/// Rows `pol-wildcards`, `pol-conflicting-rules`.
#[test]
fn a_policy_that_contradicts_itself_is_refused() {
    let cases = [
        ("people = [\"alice\",", "people = [\"mallory\",", "\"mallory\""),
        ("people = [\"alice\", \"bob\",", "people = [\"alice\", \"alice\",", "\"alice\""),
        ("people = [\"alice\",", "people = [\"desk\",", "\"desk\""),
        ("members = [\"alice\",", "members = [\"builder\",", "\"builder\""),
        ("desk = [\"desk\"]", "desk = [\"alice\"]", "\"alice\""),
        ("perform = [\"builder\"]", "perform = [\"nobody\"]", "\"nobody\""),
        ("perform = [\"builder\"]", "perform = [\"builder\", \"builder\"]", "\"builder\""),
        ("role = \"releng\"", "role = \"qa\"", "\"qa\""),
        ("phase = \"promote\"", "phase = \"other\"", "\"other\""),
        ("after = []", "after = [\"promote\"]", "\"promote\""),
        ("after = []", "after = [\"other\"]", "\"other\""),
        (
            "{ step = \"build\", release = \"same\" }",
            "{ step = \"other\", release = \"same\" }",
            "\"other\"",
        ),
        ("release = \"other\"", "release = \"any\"", "\"any\""),
        ("scheduled-by = \"decide\"", "scheduled-by = \"other\"", "\"other\""),
        (
            "scheduled-by = \"decide\"",
            "scheduled-by = \"decide\"\nschedule = [\"scheduler\"]",
            "\"promote\"",
        ),
        (
            "verification = \"full\"\nirrevocable = true",
            "verification = \"direct\"\nirrevocable = true",
            "\"direct\"",
        ),
        ("irrevocable = true", "irrevocable = true\nsummaries = [\"gate\"]", "\"full\""),
        ("receipts = \"none\"", "receipts = \"required\"", "\"required\""),
        ("max-age = \"1d\"", "max-age = \"0d\"", "\"0d\""),
        ("clock-skew = \"5m\"", "clock-skew = \"5\"", "\"5\""),
        ("clock-skew = \"5m\"", "clock-skew = \"99999999999999999999d\"", "\"9"),
        ("expires = \"2030-01-01T00:00:00Z\"", "expires = \"2030-01-01\"", "\"2030-01-01\""),
        ("expires = \"2030-01-01T00:00:00Z\"", "expires = \"2030-02-30T00:00:00Z\"", "\"2030"),
        (
            "policy = \"https://custody.dev/policy/v1\"",
            "policy = \"https://custody.dev/policy/v2\"",
            "\"https",
        ),
        ("outputs = [\"dist/*\"]", "outputs = [\"../*\"]", "\"../*\""),
        (
            "[machines.docs]",
            "[machines.idle]\nkeys = [{ key = \"IDLE\" }]\n[machines.docs]",
            "idle",
        ),
        ("[roles.releng]", "[roles.idle]\nmembers = [\"alice\"]\n[roles.releng]", "idle"),
        ("[people.bob]", "[people.desk]\nkeys = [{ key = \"IDLE\" }]\n[people.bob]", "desk"),
        (
            "[products.hello.phases.ship]",
            "[products.hello.phases.idle]\napprove = [{ role = \"releng\", count = 1 }]\nproposer-counts = true\nsign-off-max-age = \"1d\"\nafter = []\n[products.hello.phases.ship]",
            "idle",
        ),
        ("expires", "origins = [\"http://localhost.evil.example.org\"]\nexpires", "\"http"),
        ("expires", "origins = [\"http://localhost@evil.example.org\"]\nexpires", "\"http"),
        ("expires", "origins = [\"http://desk.example.org\"]\nexpires", "\"http"),
        ("expires", "origins = [\"https://desk.example.org/\"]\nexpires", "\"http"),
        ("expires", "origins = [\"https://*.example.org\"]\nexpires", "\"http"),
        ("s3://releases/hello/", "s3://", "\"s3"),
        ("s3://releases/hello/", "s3://releases/*", "\"s3"),
        ("s3://releases/hello/", "s3://releases/../x/", "\"s3"),
        ("s3://releases/hello/", "gopher://releases/hello/", "\"gopher"),
        ("s3://releases/hello/", "s3://releases/\\thello/", "\"s3"),
        ("expires", "origins = [\"https://a:\"]\nexpires", "\"http"),
        ("expires", "origins = [\"https://a:b\"]\nexpires", "\"http"),
        ("expires", "origins = [\"https://:443\"]\nexpires", "\"http"),
        ("expires", "origins = [\"https://a\", \"https://a\"]\nexpires", "\"https"),
        ("[\"s3://releases/hello/\"]", "[\"s3://b/\", \"s3://b/\"]", "\"s3"),
        ("outputs = [\"dist/*\"]", "outputs = [\"dist/*\", \"dist/*\"]", "\"dist"),
        (
            "{ step = \"build\", release = \"other\" }",
            "{ step = \"build\", release = \"same\" }",
            "\"build",
        ),
        ("https://tools.example.org/", "https://", "\"https"),
        ("https://tools.example.org/", "https:///", "\"https"),
        (EXTERNALS, "downloads = [\"https://a.example.org\"]\n", "\"https"),
        (EXTERNALS, "downloads = [\"ftp://a.example.org/\"]\n", "\"ftp"),
        (EXTERNALS, "downloads = [\"https://a@b.example.org/\"]\n", "\"https"),
        (EXTERNALS, "downloads = [\"https://a/\", \"https://a/\"]\n", "\"https"),
        (EXTERNALS, "downloads = []\nrecord-downloads = true\n", "true"),
        ("destinations", "downloads = [\"https://a/\"]\ndestinations", "\"https://a"),
    ];
    let idle = Key::of("idle").public.to_openssh();
    for (from, to, place) in cases {
        swap(from, &to.replace("IDLE", &idle), Code::PolicyInvalid, place);
    }
    let bob = format!("key = \"{}\"", Key::of("bob").public.to_openssh());
    swap(
        &bob,
        &format!("{bob}, from = \"2027-01-01T00:00:00Z\", until = \"2027-01-01T00:00:00Z\""),
        Code::PolicyInvalid,
        "\"ssh",
    );
    swap(&bob, &format!("{bob}, user-verification = true"), Code::PolicyInvalid, "\"ssh");
    for good in [
        "https://desk.example.org",
        "https://desk.example.org:8443",
        "https://[2001:db8::1]:8443",
        "https://[2001:db8::1]",
        "http://localhost",
        "http://localhost:8080",
    ] {
        let text =
            policy_text().replacen("expires", &format!("origins = [\"{good}\"]\nexpires"), 1);
        assert!(Policy::parse(&text).is_ok(), "{good}");
    }
}

/// `pol-lockout`: a quorum that cannot come together any more.
#[test]
fn a_policy_whose_own_quorum_is_impossible_is_refused() {
    let revoke = |text: String, who: &str| {
        let key = format!("key = \"{}\"", Key::of(who).public.to_openssh());
        text.replace(&key, &format!("{key}, revoked = true"))
    };
    assert!(Policy::parse(&revoke(policy_text(), "bob")).is_ok());
    fault(|text| revoke(revoke(text, "bob"), "carol"), Code::PolicyInvalid, "2");
    assert!(
        Policy::parse(&revoke(revoke(policy_text(), "alice"), "carol")).is_ok(),
        "alice has another key"
    );
    fault(
        |text| revoke(revoke(revoke(text, "alice"), "carol"), "alice-2"),
        Code::PolicyInvalid,
        "2",
    );
}

/// `json-deep-nesting`, `json-huge-scalar`, for TOML.
#[test]
fn hostile_text_ends_in_a_fault() {
    for text in [
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}1{}", "{a=".repeat(50_000), "}".repeat(50_000)),
        format!("{} = 1", vec!["a"; 100_000].join(".")),
        format!("[{}]", vec!["a"; 100_000].join(".")),
        "x".repeat(5 << 20),
        "\u{feff}policy = 1".into(),
        "policy = \"\u{202e}\"".into(),
        "\0".into(),
        String::new(),
    ] {
        let fault = Policy::parse(&text).err().unwrap();
        assert!(fault.line >= 1 && fault.column >= 1);
    }
}
