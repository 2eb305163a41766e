//! The policy and the way to it: authors make mistakes, root keys below the threshold are stolen, and
//! storage hands out old or foreign policies.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use custody_world as world;

use custody_core::Code;
use custody_core::envelope::{Envelope, PolicyText, StatementId};
use custody_core::time::Time;
use custody_verify::{Floor, Policy, PolicyChain};
use world::{
    Key, World, assert_accepted, assert_refused, at, change, honest, next_version, policy_envelope,
    policy_text,
};

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

/// Version 1 and two more, each rightly signed.
struct Three {
    first: Envelope,
    second: Envelope,
    third: Envelope,
}

fn three() -> Three {
    let first = policy_envelope(&policy_text(), &["alice", "bob"]);
    let second = policy_envelope(&next_version(&first, |text| text), &["alice", "bob"]);
    let third = policy_envelope(&next_version(&second, |text| text), &["bob", "carol"]);
    Three { first, second, third }
}

fn establish(
    pin: StatementId,
    envelopes: &[&Envelope],
    floor: Option<Floor>,
) -> Result<PolicyChain, Code> {
    PolicyChain::establish(pin, envelopes.iter().copied(), floor).map_err(|refusal| refusal.code)
}

fn version(chain: &Result<PolicyChain, Code>) -> u64 {
    chain.as_ref().unwrap().newest().1.version
}

fn rotate(chain: &PolicyChain, envelope: &Envelope) -> Code {
    chain.clone().rotate(envelope).unwrap_err().code
}

/// The control, `pol-version-gap`, and evidence that anybody adds.
#[test]
fn policies_rotate_one_by_one_in_whatever_order_they_come() {
    let Three { first, second, third } = three();
    let pin = first.id();
    assert_eq!(version(&establish(pin, &[&first], None)), 1);
    assert_eq!(version(&establish(pin, &[&third, &second, &first], None)), 3);
    assert_eq!(version(&establish(pin, &[&first, &third, &second, &third], None)), 3);
    assert_eq!(version(&establish(second.id(), &[&first, &third, &second], None)), 3);
    // signatures that came in two files are those of one document
    let text = std::str::from_utf8(second.unverified_payload()).unwrap();
    let (one, other) = (policy_envelope(text, &["alice"]), policy_envelope(text, &["carol"]));
    assert_eq!(version(&establish(pin, &[&first, &one], None)), 1);
    assert_eq!(version(&establish(pin, &[&first, &one, &other], None)), 2);
    // a gap: version 3 is left aside, and a floor tells
    assert_eq!(version(&establish(pin, &[&first, &third], None)), 1);
    let chain = establish(pin, &[&first], None).unwrap();
    assert_eq!(rotate(&chain, &third), Code::PolicyVersionGap);
    let mut chain = chain;
    chain.rotate(&second).unwrap();
    chain.rotate(&second).unwrap();
    chain.rotate(&first).unwrap();
    chain.rotate(&third).unwrap();
    assert_eq!(chain.newest().1.version, 3);
    assert_eq!(
        chain.iter().map(|(id, _)| id).collect::<Vec<_>>(),
        [first.id(), second.id(), third.id()]
    );
    assert!(chain.get(second.id()).is_some());
    let junk = policy_envelope("not TOML at all [", &["mallory"]);
    let unsigned = Envelope::unsigned::<PolicyText>(next_version(&third, |text| text).into_bytes());
    assert_eq!(version(&establish(pin, &[&junk, &unsigned, &first, &second, &third], None)), 3);
}

/// `pol-from-the-chain`: there is no trust on first use.
#[test]
fn a_policy_that_is_not_pinned_is_refused() {
    let Three { first, second, .. } = three();
    assert_eq!(
        establish(
            StatementId(custody_core::digest::Sha256::of(b"other")),
            &[&first, &second],
            None
        )
        .unwrap_err(),
        Code::PolicyUntrusted
    );
    assert_eq!(establish(first.id(), &[&second], None).unwrap_err(), Code::PolicyUntrusted);
    assert_eq!(establish(first.id(), &[], None).unwrap_err(), Code::PolicyUntrusted);
    assert_eq!(PolicyChain::pinned(first.id(), &second).unwrap_err().code, Code::PolicyUntrusted);
}

/// `pol-below-threshold`, `env-dup-signature`, `env-one-key-two-keyids`, `pol-tampered`, `pol-key-purpose`.
#[test]
fn a_policy_without_enough_root_people_is_refused() {
    let text = policy_text();
    let pinned = |envelope: &Envelope| {
        PolicyChain::pinned(envelope.id(), envelope).map(|_| ()).map_err(|refusal| refusal.code)
    };
    assert_eq!(pinned(&policy_envelope(&text, &["alice", "bob"])), Ok(()));
    assert_eq!(
        pinned(&policy_envelope(&text, &["mallory", "builder", "alice-2", "carol"])),
        Ok(())
    );
    assert_eq!(pinned(&policy_envelope(&text, &["alice"])), Err(Code::PolicySignatureThreshold));
    assert_eq!(
        pinned(&policy_envelope(&text, &["alice", "alice-2"])),
        Err(Code::PolicySignatureThreshold)
    );
    assert_eq!(
        pinned(&policy_envelope(&text, &["alice", "builder"])),
        Err(Code::PolicySignatureThreshold)
    );
    assert_eq!(pinned(&policy_envelope(&text, &["builder", "desk"])), Err(Code::PolicyKeyPurpose));
    assert_eq!(pinned(&policy_envelope(&text, &["mallory"])), Err(Code::PolicySignatureThreshold));
    assert_eq!(pinned(&policy_envelope(&text, &[])), Err(Code::EnvNoSignature));
    // one signature again under other key ids
    let mut twice = policy_envelope(&text, &["alice"]);
    for hint in ["bob", "carol"] {
        let mut copy = twice.signatures()[0].clone();
        copy.keyid = Some(Key::of(hint).public.id().to_string());
        twice.add_signature(copy);
    }
    assert_eq!(pinned(&twice), Err(Code::PolicySignatureThreshold));
    let signed = policy_envelope(&text, &["alice", "bob"]);
    let mut edited =
        Envelope::unsigned::<PolicyText>(text.replace("count = 2", "count = 1").into_bytes());
    signed.signatures().iter().for_each(|signature| edited.add_signature(signature.clone()));
    assert_eq!(pinned(&edited), Err(Code::EnvSignatureInvalid));
    let mut plain = Envelope::unsigned::<PolicyText>(text.into_bytes());
    for person in ["alice", "bob"] {
        plain.add_signature(Key::of(person).plain(&plain));
    }
    assert_eq!(pinned(&plain), Err(Code::EnvAlgForbidden));
}

/// `pol-rotation-new-only`: the new root by itself, and the old one by itself.
/// Row `pol-rejected-then-cached`.
#[test]
fn a_rotation_needs_the_old_root_and_the_new_one() {
    let first = policy_envelope(&policy_text(), &["alice", "bob"]);
    let chain = PolicyChain::pinned(first.id(), &first).unwrap();
    let dave = Key::of("dave").public.to_openssh();
    let mallory = Key::of("mallory").public.to_openssh();
    let text = next_version(&first, |text| {
        text.replace("[root]\npeople = [\"alice\", \"bob\", \"carol\"]", "[root]\npeople = [\"dave\", \"mallory\"]")
            .replace("[people.bob]", &format!("[people.dave]\nkeys = [{{ key = \"{dave}\" }}]\n[people.mallory]\nkeys = [{{ key = \"{mallory}\" }}]\n[people.bob]"))
    });
    let by = |people: &[&str]| policy_envelope(&text, people);
    assert_eq!(rotate(&chain, &by(&["dave", "mallory"])), Code::PolicySignatureThreshold);
    assert_eq!(rotate(&chain, &by(&["dave", "mallory", "alice"])), Code::PolicySignatureThreshold);
    assert!(matches!(
        rotate(&chain, &by(&["alice", "bob"])),
        Code::PolicySignatureThreshold | Code::PolicyKeyPurpose
    ));
    assert_eq!(rotate(&chain, &by(&["alice", "bob", "dave"])), Code::PolicySignatureThreshold);
    let good = by(&["alice", "bob", "dave", "mallory"]);
    assert!(chain.clone().rotate(&good).is_ok());
    // a refusal leaves the chain as it was (`pol-rejected-then-cached`)
    let mut kept = chain;
    let _refused = kept.rotate(&by(&["dave", "mallory"]));
    assert_eq!(kept.newest().0, first.id());
    assert!(kept.rotate(&good).is_ok());
}

/// `pol-hash-link-broken`, another instance.
#[test]
fn a_version_that_follows_another_one_is_refused() {
    let Three { first, second, .. } = three();
    let chain = PolicyChain::pinned(first.id(), &first).unwrap();
    let edited = |from: String, to: String| {
        policy_envelope(&next_version(&first, |text| text.replace(&from, &to)), &["alice", "bob"])
    };
    let other =
        edited(format!("previous = \"{}\"", first.id()), format!("previous = \"{}\"", second.id()));
    assert_eq!(rotate(&chain, &other), Code::PolicyVersionGap);
    assert_eq!(
        rotate(&chain, &edited("version = 2".into(), "version = 3".into())),
        Code::PolicyVersionGap
    );
    assert_eq!(
        rotate(&chain, &edited("version = 2".into(), "version = 9223372036854775807".into())),
        Code::PolicyVersionGap
    );
    assert_eq!(
        rotate(&chain, &edited("\"production\"".into(), "\"staging\"".into())),
        Code::ChainInstanceMismatch
    );
    assert!(chain.clone().rotate(&second).is_ok());
}

/// `pol-rollback`, `pol-floor-erased`, and issue 2: an older policy.
#[test]
fn an_older_policy_than_one_seen_before_is_refused() {
    let Three { first, second, third } = three();
    let pin = first.id();
    let floor =
        |version, policy: &Envelope| Some(Floor { version, policy: policy.id(), time: at(0) });
    assert_eq!(version(&establish(pin, &[&first, &second, &third], floor(3, &third))), 3);
    assert_eq!(version(&establish(pin, &[&first, &second, &third], floor(2, &second))), 3);
    assert_eq!(
        establish(pin, &[&first, &second], floor(3, &third)).unwrap_err(),
        Code::PolicyRollback
    );
    assert_eq!(establish(pin, &[&first], floor(2, &second)).unwrap_err(), Code::PolicyRollback);
    assert_eq!(
        establish(pin, &[&first, &third], floor(2, &second)).unwrap_err(),
        Code::PolicyRollback
    );
    let mut chain = establish(pin, &[&first, &second], None).unwrap();
    assert_eq!(
        chain
            .clone()
            .rotate(&policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]))
            .unwrap_err()
            .code,
        Code::PolicyRollback
    );
    assert!(chain.rotate(&third).is_ok());
}

/// Two truths under one version.
#[test]
fn two_policies_of_one_version_are_refused() {
    let Three { first, second, third } = three();
    let pin = first.id();
    let twin = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "carol"],
    );
    assert_eq!(
        establish(pin, &[&first, &second, &twin], None).unwrap_err(),
        Code::PolicyEquivocation
    );
    let chain = establish(pin, &[&first, &second], None).unwrap();
    assert_eq!(rotate(&chain, &twin), Code::PolicyEquivocation);
    // seen before: the other of the two
    let floor = Some(Floor { version: 2, policy: twin.id(), time: at(0) });
    assert_eq!(establish(pin, &[&first, &second], floor).unwrap_err(), Code::PolicyEquivocation);
    assert_eq!(
        establish(pin, &[&first, &second, &third], floor).unwrap_err(),
        Code::PolicyEquivocation
    );
    // one that the root did not sign is nothing
    let forged = policy_envelope(
        &next_version(&first, |text| text.replace("5m", "6m")),
        &["alice", "mallory"],
    );
    assert_eq!(version(&establish(pin, &[&first, &second, &forged], None)), 2);
}

fn with_key(name: &str, more: &'static str) -> impl Fn(String) -> String {
    let key = format!("key = \"{}\"", Key::of(name).public.to_openssh());
    move |text| text.replace(&key, &format!("{key}, {more}"))
}

fn window(name: &str, from: Option<u64>, until: Option<u64>) -> World {
    let text = |word: &str, time: Option<u64>| {
        time.map(|time| format!(", {word} = \"{}\"", at(time))).unwrap_or_default()
    };
    let more = text("from", from) + &text("until", until);
    let key = format!("key = \"{}\"", Key::of(name).public.to_openssh());
    change().policy(|policy| policy.replace(&key, &format!("{key}{more}"))).build()
}

/// `pol-key-expired`, `pol-key-not-yet-valid`, to the second.
#[test]
fn a_key_outside_its_window_is_refused() {
    let finished = 100_300 + 200 + 50;
    assert_accepted(&window("signer", Some(0), Some(finished + 1)).file());
    assert_refused(&window("signer", None, Some(finished)).file(), Code::PolicyKeyExpired);
    // the older release's signer was in time; this one's was not
    assert_accepted(&window("signer", Some(finished), None).file());
    assert_refused(&window("signer", Some(finished + 1), None).file(), Code::PolicyKeyNotYetValid);
    assert_refused(&window("desk", None, Some(100_200)).file(), Code::PolicyKeyExpired);
    assert_refused(&window("scheduler", None, Some(100_300)).file(), Code::PolicyKeyExpired);
    assert_refused(&window("publisher", Some(101_451), None).file(), Code::PolicyKeyNotYetValid);
}

/// `pol-key-revoked`, and that it stays so.
#[test]
fn a_revoked_key_never_counts_again() {
    for name in ["builder", "signer", "publisher", "packer", "desk", "scheduler", "carol"] {
        let mut world = honest();
        assert_accepted(&world.file());
        world.rotate(with_key(name, "revoked = true"));
        assert_refused(&world.file(), Code::PolicyKeyRevoked);
        // a later version that has forgotten it
        let forgotten = next_version(world.policies.last().unwrap(), |text| {
            text.replace(", revoked = true", "")
        });
        world.policies.push(policy_envelope(&forgotten, &["alice", "bob"]));
        assert_eq!(world.chain().newest().1.version, 3);
        assert_refused(&world.file(), Code::PolicyKeyRevoked);
    }
    // what the key never signed is not concerned
    let mut world = honest();
    world.rotate(with_key("gate", "revoked = true"));
    assert_accepted(&world.file());
}

/// A worker that is gone altogether can stay in the policy as revoked.
#[test]
fn a_retired_machine_stays_revoked_without_a_rule_that_names_it() {
    let mut world = honest();
    let docs = Key::of("docs").public.to_openssh();
    world.rotate(|text| {
        text.replace("perform = [\"docs\"]", "perform = [\"decider\"]")
            .replace(&format!("key = \"{docs}\""), &format!("key = \"{docs}\", revoked = true"))
    });
    assert_eq!(world.chain().newest().1.version, 2);
    assert_accepted(&world.file());
    assert_refused(&world.extra_file(), Code::PolicyKeyRevoked);
}

/// `pol-expired`: from the very second, and also for what was released long before.
#[test]
fn an_expired_policy_judges_nothing() {
    let mut world = honest();
    let end: Time = "2030-01-01T00:00:00Z".parse().unwrap();
    for (moment, good) in [(end.unix() - 1, true), (end.unix(), false), (end.unix() + 1, false)] {
        world.now = Time::from_unix(moment).unwrap();
        if good {
            assert_accepted(&world.file());
        } else {
            assert_refused(&world.file(), Code::PolicyExpired);
        }
    }
    // a renewed policy makes the old release verifiable again
    world.rotate(|text| text.replace("2030-01-01", "2040-01-01"));
    assert_accepted(&world.file());
}

/// `pol-chain-pins-old`, `POLICY_MISMATCH`, `POLICY_VERSION_GAP`.
#[test]
fn a_release_under_a_policy_that_was_never_valid_is_refused() {
    let other = policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]).id();
    let named =
        change().request("new/ship/request", move |request| request.policy.id = other).build();
    assert_refused(&named.file(), Code::PolicyMismatch);
    let future = change()
        .request("new/ship/request", move |request| {
            (request.policy.id, request.policy.version) = (other, 2);
        })
        .build();
    assert_refused(&future.file(), Code::PolicyVersionGap);
    let lying = change().request("new/ship/request", |request| request.policy.version = 2).build();
    assert_refused(&lying.file(), Code::PolicyMismatch);
    // an old release stays verifiable under a much stricter new policy
    let mut world = honest();
    world
        .rotate(|text| text.replace("channels = [\"release\", \"beta\"]", "channels = [\"beta\"]"));
    assert_accepted(&world.file());
    // but nothing new starts under the old one
    assert_refused(
        &world.clone().unpublished().gate("new/publish/task"),
        Code::ChainReleaseMismatch,
    );
}
