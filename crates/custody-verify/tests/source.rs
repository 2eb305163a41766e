//! What a policy demands of the source: whose signature it carries, and what it brings along.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use custody_core::statement::{Revision, Submodule};
use custody_core::{Code, sshsig};
use custody_verify::Report;
use custody_verify::policy::Policy;
use custody_verify::report::Rule;
use custody_world::git::{
    commit_with, id_of, signature, signed_commit, signed_tag, unsigned_commit,
};
use custody_world::{
    Builder, Key, World, assert_accepted, assert_refused, change, honest, policy_text,
};

const PEOPLE: &str = "source-signatures = { people = [\"keepers\"], what = \"WHAT\" }\n";
const PRODUCT: &str = "[products.hello]\n";

/// A world whose releases are built from this commit, with what the manifests say of it.
fn world_of(commit: &str, raw: Option<&str>, what: &str) -> Builder {
    let mut builder = change().policy(|text| {
        let demanded = format!("{PRODUCT}{}", PEOPLE.replace("WHAT", what));
        let roles = "[roles.keepers]\nmembers = [\"bob\", \"carol\"]\n\n";
        text.replace(PRODUCT, &demanded).replace(PRODUCT, &format!("{roles}{PRODUCT}"))
    });
    for release in ["old", "new"] {
        for phase in ["promote", "ship"] {
            let revision = Revision::Git(commit.to_owned());
            builder = builder.request(&format!("{release}/{phase}/request"), move |request| {
                request.source.revision = revision.clone();
            });
        }
        for step in ["build", "decide"] {
            let revision = Revision::Git(commit.to_owned());
            let raw = raw.map(|raw| raw.as_bytes().to_vec());
            builder = builder
                .task(&format!("{release}/{step}/task"), move |task| {
                    task.source.as_mut().unwrap().revision = revision.clone();
                })
                .manifest(&format!("{release}/{step}/manifest"), move |manifest| {
                    manifest.signed_source.clone_from(&raw);
                });
        }
    }
    builder
}

fn by_commit(commit: &str) -> World {
    world_of(&id_of(commit), Some(commit), "commit").build()
}

/// `chain-source-unsigned`, `chain-source-signed-by-stranger`
#[test]
fn a_commit_carries_the_signature_of_one_of_the_people() {
    for name in ["bob", "carol"] {
        let world = by_commit(&signed_commit(name));
        assert_accepted(&world.file());
        let report = world.file();
        let facts: Vec<_> = report.nodes().flat_map(|node| &node.facts).collect();
        assert!(facts.contains(&&("source signed by", name.to_owned())), "{facts:?}");
    }
    let unsigned = unsigned_commit();
    assert_refused(&by_commit(&unsigned).file(), Code::ChainSourceUnsigned);
    let nothing = world_of(&id_of(&signed_commit("bob")), None, "commit").build();
    assert_refused(&nothing.file(), Code::ChainSourceUnsigned);
    // a stranger, somebody of whom the policy does not speak here, and a machine
    assert_refused(&by_commit(&signed_commit("mallory")).file(), Code::EnvKeyUnknown);
    assert_refused(&by_commit(&signed_commit("alice")).file(), Code::PolicyKeyPurpose);
    assert_refused(&by_commit(&signed_commit("builder")).file(), Code::PolicyKeyPurpose);
}

/// `chain-source-signature-moved`
#[test]
fn a_signature_for_something_else_does_not_count() {
    let good = signed_commit("bob");
    assert_accepted(&by_commit(&good).file());
    // of another commit: in the approved one, and in place of the approved one
    assert_refused(
        &by_commit(&good.replace("\nhello", "\nevil")).file(),
        Code::EnvSignatureInvalid,
    );
    let other = good.replace("\nhello", "\nother");
    let swapped = world_of(&id_of(&other), Some(&good), "commit").build();
    assert_refused(&swapped.file(), Code::ChainSourceMismatch);
    // for Custody, by PGP, twice
    let payload = unsigned_commit();
    let ours = commit_with(&signature("bob", sshsig::NAMESPACE, &payload));
    assert_refused(&by_commit(&ours).file(), Code::ChainSourceUnsigned);
    let pgp = commit_with("-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----");
    let report = by_commit(&pgp).file();
    assert_refused(&report, Code::ChainSourceUnsigned);
    let told = report.findings().any(|(_, _, refusal)| refusal.found.contains("gpg.format=ssh"));
    assert!(told, "{}", custody_world::findings(&report));
    let twice = good.replacen("\ngpgsig ", "\ngpgsig x\ngpgsig ", 1);
    assert_refused(&by_commit(&twice).file(), Code::ChainSourceUnsigned);
    let hidden = good.replacen("\ngpgsig ", "\ngpgsig-sha256 x\ngpgsig ", 1);
    assert_refused(&by_commit(&hidden).file(), Code::ChainSourceUnsigned);
    // a tag where a commit is wanted
    let commit = id_of(&good);
    let tag = signed_tag("bob", &commit);
    assert_refused(
        &world_of(&commit, Some(&tag), "commit").build().file(),
        Code::ChainSourceMismatch,
    );
}

#[test]
fn a_tag_carries_the_signature_for_the_commit_that_it_names() {
    let commit = id_of("anything");
    let by_tag = |tag: &str| world_of(&commit, Some(tag), "tag").build().file();
    let good = signed_tag("carol", &commit);
    assert_accepted(&by_tag(&good));
    assert_refused(&by_tag(&signed_tag("mallory", &commit)), Code::EnvKeyUnknown);
    assert_refused(&by_tag(&signed_tag("carol", &"3".repeat(40))), Code::ChainSourceMismatch);
    assert_refused(&by_tag(&good.replace("v1\n", "v2\n")), Code::EnvSignatureInvalid);
    assert_refused(&by_tag(&good.replace("type commit", "type tree")), Code::ChainSourceMismatch);
    assert_refused(&by_tag(&format!("{good}more\n")), Code::ChainSourceUnsigned);
    let (unsigned, _) = good.split_once("-----BEGIN").unwrap();
    assert_refused(&by_tag(unsigned), Code::ChainSourceUnsigned);
    let twice = format!("{unsigned}{}", signature("bob", "git", unsigned).repeat(2));
    assert_refused(&by_tag(&twice), Code::ChainSourceUnsigned);
    let own = signed_commit("bob");
    let refused = world_of(&id_of(&own), Some(&own), "tag").build().file();
    assert_refused(&refused, Code::ChainSourceMismatch);
}

#[test]
fn a_source_that_is_not_in_git_cannot_be_signed() {
    let mut builder = world_of(&id_of(""), None, "commit");
    for name in ["old/promote", "old/ship", "new/promote", "new/ship"] {
        builder = builder.request(&format!("{name}/request"), |request| {
            request.source.revision = Revision::Archive("ab".repeat(32));
        });
    }
    for name in ["old/build", "old/decide", "new/build", "new/decide"] {
        builder = builder.task(&format!("{name}/task"), |task| {
            task.source.as_mut().unwrap().revision = Revision::Archive("ab".repeat(32));
        });
    }
    assert_refused(&builder.clone().build().file(), Code::ChainSourceUnsigned);
    // where nobody asks for a signature, an archive or a changeset will do
    assert_accepted(&builder.policy(|_| policy_text()).build().file());
}

/// The code of the rule about the source.
fn of_source(report: &Report) -> Vec<Code> {
    let findings = report.findings().filter(|(_, rule, _)| *rule == Rule::ManifestSource);
    findings.map(|(_, _, refusal)| refusal.code).collect()
}

#[test]
fn keys_of_sources_are_judged_like_others() {
    let edited = |text: &str, edit: &str| {
        let key = format!("key = \"{}\"", Key::of("carol").public.to_openssh());
        assert!(text.contains(&key));
        text.replace(&key, &format!("{key}, {edit}"))
    };
    let commit = signed_commit("carol");
    let mut world = by_commit(&commit);
    assert_accepted(&world.file());
    world.rotate(|text| edited(&text, "revoked = true"));
    assert!(of_source(&world.file()).contains(&Code::PolicyKeyRevoked));
    for (edit, code) in [
        ("until = \"1999-01-01T00:00:00Z\"", Code::PolicyKeyExpired),
        ("from = \"2029-01-01T00:00:00Z\"", Code::PolicyKeyNotYetValid),
    ] {
        let world = world_of(&id_of(&commit), Some(&commit), "commit");
        let world = world.policy(|text| edited(&text, edit)).build();
        assert!(of_source(&world.file()).contains(&code), "{edit}");
    }
}

fn submodule(uri: &str) -> Submodule {
    Submodule { path: "third_party/lib".parse().unwrap(), uri: uri.into(), commit: "3".repeat(40) }
}

/// `chain-source-submodule`
#[test]
fn submodules_come_from_where_the_policy_says() {
    let allowed = "submodules = [\"https://git.example.org/libs/\", \"https://x.example/y\"]\n";
    let with = |allowed: &str, uri: &'static str| {
        let allowed = allowed.to_owned();
        change()
            .policy(move |text| text.replace(PRODUCT, &format!("{PRODUCT}{allowed}")))
            .manifest("new/build/manifest", move |manifest| {
                manifest.submodules.push(submodule(uri));
            })
            .build()
            .file()
    };
    for uri in ["https://git.example.org/libs/z.git", "https://x.example/y"] {
        assert_accepted(&with(allowed, uri));
        assert_refused(&with("", uri), Code::ChainSourceForbidden);
    }
    for uri in [
        "https://git.example.org/libs/../evil",
        "https://git.example.org/libs",
        "https://x.example/y/z",
        "https://x.example/y.git",
        "https://git.example.org/libs/%2e%2e/evil",
        "",
    ] {
        assert_refused(&with(allowed, uri), Code::ChainSourceForbidden);
    }
    // a step without a source has no submodule
    let without = change()
        .policy(move |text| text.replace(PRODUCT, &format!("{PRODUCT}{allowed}")))
        .manifest("new/partial/manifest", |manifest| {
            manifest.submodules.push(submodule("https://x.example/y"));
        });
    assert_refused(&without.build().file(), Code::ChainInputUnaccounted);
    let twice = change()
        .policy(move |text| text.replace(PRODUCT, &format!("{PRODUCT}{allowed}")))
        .manifest("new/build/manifest", |manifest| {
            manifest.submodules = vec![submodule("https://x.example/y"); 2];
        });
    assert!(twice.build().file().accepted().is_none());
    assert_accepted(&honest().file());
}

#[test]
fn a_policy_says_whose_signature_and_from_where() {
    let with =
        |line: &str| Policy::parse(&policy_text().replace(PRODUCT, &format!("{PRODUCT}{line}")));
    let product = |line: &str| with(line).unwrap().products.into_values().next().unwrap();
    let plain = product("");
    assert!(!plain.lfs && plain.submodules.is_empty() && plain.source_signatures.is_none());
    assert!(product("lfs = true\n").lfs);
    let line = "source-signatures = { people = [\"releng\"], what = \"tag\" }\n";
    let people = product(line).source_signatures.unwrap().people;
    assert_eq!(people.len(), 3);
    for bad in [
        "source-signatures = {}\n",
        "source-signatures = { people = [\"releng\"] }\n",
        "source-signatures = { people = [], what = \"commit\" }\n",
        "source-signatures = { people = [\"builder\"], what = \"commit\" }\n",
        "source-signatures = { people = [\"nobody\"], what = \"commit\" }\n",
        "source-signatures = { people = [\"releng\"], what = \"branch\" }\n",
        "source-signatures = { people = [\"releng\"], what = \"tag\", count = 2 }\n",
        "submodules = [\"https://\"]\n",
        "submodules = [\"https://a.example/\", \"https://a.example/\"]\n",
        "submodules = [\"https://a.example/../b\"]\n",
        "lfs = \"yes\"\n",
    ] {
        assert_eq!(with(bad).unwrap_err().code, Code::PolicyInvalid, "{bad}");
    }
}
