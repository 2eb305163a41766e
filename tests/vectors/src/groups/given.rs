//! What a step is given beside its inputs: downloads through the worker's proxy, submodules, and a source that
//! somebody signed.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::sshsig;
use custody_core::statement::{
    Attestation, Downloads, Image, InputOrigin, Pinned, Revision, Submodule, Task, UsedImage,
    UsedInput,
};
use custody_world::git::{
    commit_with, id_of, signature, signed_commit, signed_tag, unsigned_commit,
};
use custody_world::{Builder, artifact, change};

use super::built;
use super::json::{Swap, swap};
use crate::case::{About, Group, Set, What};

const REGISTRY: &str = "https://registry.example.org/";
const STEP: &str = "[products.hello.steps.build]\n";
const PRODUCT: &str = "[products.hello]\n";
const BUILD: &str = "new/build/manifest";

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("given");
    downloads(&mut group);
    declared(&mut group);
    sources(&mut group);
    submodules(&mut group);
    members(&mut group);
}

fn refuse(group: &mut Group<'_>, name: &str, control: &str, code: Code, about: &str, what: &What) {
    group.reject(name, control, code, About(about, &[]), what);
}

fn pin(path: &str, text: &str) -> Pinned {
    Pinned {
        uri: format!("{REGISTRY}{path}"),
        digests: Sha256::of(text.as_bytes()).into(),
        size: text.len() as u64,
    }
}

fn downloading(
    record: bool,
    edit: impl Fn(&mut Task) + 'static,
    used: &'static [(&str, &str)],
) -> What {
    let record = if record { "record-downloads = true\n" } else { "" };
    let allowed = format!("{STEP}downloads = [\"{REGISTRY}\"]\n{record}");
    let with = change()
        .policy(|text| text.replacen(STEP, &allowed, 1))
        .task("new/build/task", move |task| {
            let pinned = Some(vec![pin("a", "one"), pin("b", "two")]);
            task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned });
            edit(task);
        })
        .manifest(BUILD, move |manifest| {
            manifest.inputs.extend(used.iter().enumerate().map(|(i, (path, text))| UsedInput {
                artifact: artifact(&format!("{i}.bin"), text),
                origin: InputOrigin::Download(format!("{REGISTRY}{path}")),
            }));
        });
    built(&with.build())
}

fn unpinned(task: &mut Task) {
    task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned: None });
}

fn downloads(group: &mut Group<'_>) {
    let pinned = |used| downloading(false, |_| (), used);
    let recorded = |used| downloading(true, unpinned, used);
    let about = About("what was pinned was fetched", &[]);
    group.accept("pinned", about, &pinned(&[("a", "one"), ("b", "two")]));
    group.accept("pinned-some", About("some of what was pinned", &[]), &pinned(&[("b", "two")]));
    let about = About("whatever was found, where the policy lets it be", &[]);
    group.accept("recorded", about, &recorded(&[("x%2fy?z=@1", "any")]));
    let unaccounted = Code::ChainInputUnaccounted;
    for (name, control, code, about, what) in [
        ("other-bytes", "pinned", Code::ArtDigestMismatch, "other bytes", pinned(&[("a", "two")])),
        ("other-uri", "pinned", unaccounted, "what was not pinned", pinned(&[("c", "one")])),
        (
            "twice",
            "pinned",
            Code::StmtSubjectDuplicate,
            "a URI twice",
            pinned(&[("a", "one"), ("a", "one")]),
        ),
        ("climbing", "recorded", unaccounted, "a place above", recorded(&[("../a", "any")])),
        (
            "escaped",
            "recorded",
            unaccounted,
            "an escape that hides a dot",
            recorded(&[("%2e%2E/a", "any")]),
        ),
        (
            "escaped-percent",
            "recorded",
            unaccounted,
            "an escape that hides an escape",
            recorded(&[("%252e", "any")]),
        ),
        ("half-escape", "recorded", unaccounted, "half an escape", recorded(&[("a%2", "any")])),
        ("fragment", "recorded", unaccounted, "a fragment", recorded(&[("a#b", "any")])),
    ] {
        refuse(group, name, control, code, about, &what);
    }
    let world = change().manifest(BUILD, |manifest| {
        let origin = InputOrigin::Download(format!("{REGISTRY}a"));
        manifest.inputs.push(UsedInput { artifact: artifact("a", "one"), origin });
    });
    let about = "a download of a task that has none";
    refuse(group, "undeclared", "pinned", unaccounted, about, &built(&world.build()));
}

fn declared(group: &mut Group<'_>) {
    let unaccounted = Code::ChainInputUnaccounted;
    let task = |edit: fn(&mut Task)| downloading(false, edit, &[]);
    for (name, code, about, what) in [
        ("unpinned", unaccounted, "no pins where the policy wants some", task(unpinned)),
        (
            "elsewhere",
            unaccounted,
            "from a host that the policy does not list",
            task(|task| {
                let from = vec!["https://evil.example.org/".into()];
                task.downloads = Some(Downloads { from, pinned: Some(vec![]) });
            }),
        ),
        (
            "pin-outside",
            unaccounted,
            "a pin that is not below",
            task(|task| {
                let from = vec![format!("{REGISTRY}below/")];
                task.downloads = Some(Downloads { from, pinned: Some(vec![pin("a", "one")]) });
            }),
        ),
        (
            "pin-twice",
            Code::StmtSubjectDuplicate,
            "a URI pinned twice",
            task(|task| {
                let pinned = Some(vec![pin("a", "one"), pin("a", "one")]);
                task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned });
            }),
        ),
        (
            "network-too",
            Code::StmtParameterUnexpected,
            "a network beside it",
            task(|task| task.network = true),
        ),
    ] {
        refuse(group, name, "pinned", code, about, &what);
    }
    let without = change().task("new/build/task", |task| {
        let from = vec![REGISTRY.into()];
        task.downloads = Some(Downloads { from, pinned: Some(vec![]) });
    });
    let about = "downloads of a step that may not have any";
    refuse(group, "not-allowed", "pinned", unaccounted, about, &built(&without.build()));
}

/// The newer release is built from this commit, and its build's manifest has this signed object.
fn from_commit(commit: &str, raw: Option<&str>, what: &str) -> What {
    let demanded = format!(
        "[roles.keepers]\nmembers = [\"bob\", \"carol\"]\n\n{PRODUCT}source-signatures = {{ people = [\"keepers\"], what = \"{what}\" }}\n"
    );
    let revision = Revision::Git(commit.to_owned());
    let (one, two) = (revision.clone(), revision);
    let raw = raw.map(|raw| raw.as_bytes().to_vec());
    let with = change()
        .policy(|text| text.replace(PRODUCT, &demanded))
        .request("new/promote/request", move |request| request.source.revision = one.clone())
        .task("new/build/task", move |task| {
            task.source.as_mut().unwrap().revision = two.clone();
        })
        .manifest(BUILD, move |manifest| manifest.signed_source.clone_from(&raw));
    built(&with.build())
}

fn sources(group: &mut Group<'_>) {
    let by = |commit: &str| from_commit(&id_of(commit), Some(commit), "commit");
    let good = signed_commit("bob");
    group.accept("commit-signed", About("a commit that one of the people signed", &[]), &by(&good));
    let unsigned = Code::ChainSourceUnsigned;
    let ours = signature("bob", sshsig::NAMESPACE, &unsigned_commit());
    let pgp = commit_with("-----BEGIN PGP SIGNATURE-----\n\nwsB=\n-----END PGP SIGNATURE-----\n");
    let twice = good.replacen("\n\n", "\ngpgsig x\n\n", 1);
    for (name, code, about, what) in [
        ("commit-unsigned", unsigned, "a commit that nobody signed", by(&unsigned_commit())),
        (
            "commit-nothing",
            unsigned,
            "no signed object",
            from_commit(&id_of(&good), None, "commit"),
        ),
        ("commit-pgp", unsigned, "a signature of another kind", by(&pgp)),
        ("commit-twice", unsigned, "two signatures", by(&twice)),
        ("commit-namespace", unsigned, "for something else", by(&commit_with(&ours))),
        ("commit-stranger", Code::EnvKeyUnknown, "by a stranger", by(&signed_commit("mallory"))),
        (
            "commit-by-other",
            Code::PolicyKeyPurpose,
            "by somebody else",
            by(&signed_commit("alice")),
        ),
        (
            "commit-changed",
            Code::EnvSignatureInvalid,
            "of another message",
            by(&good.replace("\n\nhello", "\n\nevil")),
        ),
        (
            "commit-of-another",
            Code::ChainSourceMismatch,
            "the signed object of another commit",
            from_commit(&"3".repeat(40), Some(&good), "commit"),
        ),
    ] {
        refuse(group, name, "commit-signed", code, about, &what);
    }
    let commit = "4".repeat(40);
    let tag = |raw: &str| from_commit(&commit, Some(raw), "tag");
    let good = signed_tag("carol", &commit);
    group.accept("tag-signed", About("a tag that one of the people signed", &[]), &tag(&good));
    let of_another = signed_tag("carol", &"5".repeat(40));
    for (name, code, about, what) in [
        ("tag-of-another", Code::ChainSourceMismatch, "a tag of another commit", tag(&of_another)),
        (
            "tag-changed",
            Code::EnvSignatureInvalid,
            "a tag that was changed",
            tag(&good.replace("v1", "v2")),
        ),
        (
            "tag-stranger",
            Code::EnvKeyUnknown,
            "by a stranger",
            tag(&signed_tag("mallory", &commit)),
        ),
    ] {
        refuse(group, name, "tag-signed", code, about, &what);
    }
}

fn with_submodule(uri: &'static str, allowed: bool) -> Builder {
    let allow = "submodules = [\"https://git.example.org/lib/\"]\n";
    let product = format!("{PRODUCT}{}", if allowed { allow } else { "" });
    change().policy(|text| text.replace(PRODUCT, &product)).manifest(BUILD, move |manifest| {
        manifest.submodules.push(Submodule {
            path: "lib/one".parse().unwrap(),
            uri: uri.into(),
            commit: "6".repeat(40),
        });
    })
}

fn submodules(group: &mut Group<'_>) {
    let case = |uri, allowed| built(&with_submodule(uri, allowed).build());
    let good = "https://git.example.org/lib/one";
    group.accept("submodule", About("a submodule that the policy allows", &[]), &case(good, true));
    let code = Code::ChainSourceForbidden;
    for (name, about, what) in [
        ("submodule-not-allowed", "a submodule where the policy has none", case(good, false)),
        ("submodule-elsewhere", "from elsewhere", case("https://evil.example.org/lib/one", true)),
        ("submodule-climbs", "from above", case("https://git.example.org/lib/../evil", true)),
    ] {
        refuse(group, name, "submodule", code, about, &what);
    }
}

/// Members of the statements, one place changed.
fn members(group: &mut Group<'_>) {
    let world = with_submodule("https://git.example.org/lib/one", true)
        .task("new/build/task", |task| {
            let pinned = Some(vec![pin("a", "one")]);
            task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned });
            task.limits.memory = Some(1 << 30);
            task.limits.output = Some(1 << 20);
        })
        .build();
    let json = world.statements["new/build/task"].to_json();
    let about = About("a task with limits and downloads as a writer writes it", &[]);
    group.accept("task", about, &What::Statement(json.clone().into(), true));
    for (name, about, from, to, code) in [
        (
            "limit-unknown",
            "a limit that is none",
            "\"memory\"",
            "\"time\"",
            Code::ParseUnknownField,
        ),
        ("limit-text", "a limit in words", "1073741824", "\"1G\"", Code::ParseFieldType),
        ("pin-without-size", "a pin without size", "\"size\": 3", "", Code::ParseFieldMissing),
        (
            "pin-with-name",
            "a pin with a name",
            "\"uri\": \"https://registry",
            "\"name\": \"a\", \"uri\": \"https://registry",
            Code::ParseUnknownField,
        ),
        (
            "downloads-member",
            "a member that is not defined",
            "\"from\"",
            "\"evil\": 1, \"from\"",
            Code::ParseUnknownField,
        ),
    ] {
        swap(group, "task", &json, &Swap { name, row: "", about, from, to, code });
    }
    attested(group);
    let json = world.statements[BUILD].to_json();
    let about = About("a manifest with a submodule as a writer writes it", &[]);
    group.accept("manifest", about, &What::Statement(json.clone().into(), true));
    for (name, about, from, to, code) in [
        ("submodule-path", "a path that climbs", "\"lib/one\"", "\"../one\"", Code::ArtNameInvalid),
        (
            "submodule-weak",
            "a revision that is none",
            "\"gitCommit\": \"6666",
            "\"hgChangeset\": \"6666",
            Code::StmtDigestMissing,
        ),
    ] {
        swap(group, "manifest", &json, &Swap { name, row: "", about, from, to, code });
    }
}

/// Images and attestations in statements.
fn attested(group: &mut Group<'_>) {
    let world = change()
        .task("new/build/task", |task| {
            let name = "registry.example.org:5000/debian".into();
            task.image = Some(Image::Named { name, digest: Sha256::of(b"image") });
        })
        .manifest(BUILD, |manifest| {
            let one = |name: &str| Attestation {
                platform: name.parse().unwrap(),
                parts: vec![("document".parse().unwrap(), b"{}".to_vec())],
            };
            manifest.attestations = vec![one("ec2"), one("google")];
            manifest.image = Some(UsedImage {
                name: "registry.example.org:5000/debian".into(),
                id: Sha256::of(b"image"),
                manifest: Some(Sha256::of(b"manifest")),
                platform: "linux/amd64".into(),
            });
        })
        .build();
    let json = world.statements["new/build/task"].to_json();
    let about = About("a task with an image as a writer writes it", &[]);
    group.accept("task-image", about, &What::Statement(json.clone().into(), true));
    let name = "\"name\": \"registry.example.org:5000/debian\"";
    for (name, about, from, to, code) in [
        ("image-tag", "an image with a tag", "5000/debian", "5000/debian:12", Code::ParseFieldType),
        (
            "image-member",
            "a member that is not defined",
            name,
            "\"evil\": 1, \"name\": \"a\"",
            Code::ParseUnknownField,
        ),
        (
            "image-without-name",
            "an image without name",
            name,
            "\"uri\": \"a\"",
            Code::ParseFieldType,
        ),
    ] {
        swap(group, "task-image", &json, &Swap { name, row: "", about, from, to, code });
    }
    let json = world.statements[BUILD].to_json();
    let about = About("a manifest with attestations and image as a writer writes it", &[]);
    group.accept("manifest-attested", about, &What::Statement(json.clone().into(), true));
    let role = "\"role\": \"source\"";
    for (name, about, from, to, code) in [
        (
            "attestation-twice",
            "two of a platform",
            "\"google\"",
            "\"ec2\"",
            Code::StmtSubjectDuplicate,
        ),
        (
            "attestation-member",
            "a member that is not defined",
            "\"platform\": \"ec2\"",
            "\"platform\": \"ec2\", \"evil\": 1",
            Code::ParseUnknownField,
        ),
        (
            "attestation-base64",
            "a part that is no base64",
            "\"e30=\"",
            "\"e30\"",
            Code::ParseBase64Invalid,
        ),
        (
            "image-platform",
            "an image without platform",
            "\"platform\": \"linux/amd64\"",
            "\"os\": \"linux\"",
            Code::ParseFieldMissing,
        ),
        (
            "role-unknown",
            "a role that is not defined",
            role,
            "\"role\": \"sources\"",
            Code::ChainInputUnaccounted,
        ),
    ] {
        swap(group, "manifest-attested", &json, &Swap { name, row: "", about, from, to, code });
    }
}
