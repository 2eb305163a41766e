//! Chains: whoever holds storage, a worker or the scheduler passes something off as this release.

mod content;
mod rules;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{InputOrigin, Manifest, Statement, Task};
use custody_world::{
    Builder, World, artifact, change, content as bytes, honest, label, signed, source,
};

use super::{ask, built, shipped, signed_update};
use crate::case::{About, Group, Set, What};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("chain");
    let about = About("a published file, back to people and sources of two releases", &[]);
    group.accept("honest", about, &shipped(&honest()));
    let about = About("what one step made, back to people and source", &[]);
    group.accept("built", about, &built(&honest()));
    let about =
        About("a file that the signing step made, back to people and sources of two releases", &[]);
    group.accept("signed", about, &signed_update(&honest()));
    missing(&mut group);
    changed(&mut group);
    asked(&mut group);
    signers(&mut group);
    links(&mut group);
    contradictions(&mut group);
    content::inputs(&mut group);
    content::results(&mut group);
    content::twins(&mut group);
    content::sources(&mut group);
    content::releases(&mut group);
    content::required(&mut group);
    rules::times(&mut group);
    rules::policies(&mut group);
    rules::keys(&mut group);
    rules::decisions(&mut group);
}

/// The build is refused.
fn refuse(group: &mut Group<'_>, name: &str, code: Code, row: &str, about: &str, builder: Builder) {
    group.reject(name, "built", code, About(about, &[row]), &built(&builder.build()));
}

/// The published file is refused.
fn refuse_shipped(
    group: &mut Group<'_>,
    name: &str,
    code: Code,
    row: &str,
    about: &str,
    world: &World,
) {
    group.reject(name, "honest", code, About(about, &[row]), &shipped(world));
}

/// The signed file is refused.
fn refuse_signed(
    group: &mut Group<'_>,
    name: &str,
    code: Code,
    row: &str,
    about: &str,
    world: &World,
) {
    group.reject(name, "signed", code, About(about, &[row]), &signed_update(world));
}

fn missing(group: &mut Group<'_>) {
    for (name, document, code, row) in [
        ("no-build-manifest", "new/build/manifest", Code::ChainLinkMissing, "chain-link-missing"),
        ("no-older-manifest", "old/build/manifest", Code::ChainLinkMissing, "chain-link-missing"),
        ("no-task", "new/sign/task", Code::ChainTaskMissing, "chain-no-task"),
        (
            "no-authorization",
            "new/ship/authorization",
            Code::ChainLinkMissing,
            "cmp-valid-provenance-no-authorisation",
        ),
        ("no-request", "new/promote/request", Code::ChainLinkMissing, "chain-link-missing"),
    ] {
        let mut world = honest();
        world.drop(document);
        refuse_shipped(group, name, code, row, "a document of the chain is not there", &world);
    }
    let mut world = honest();
    world.envelopes.clear();
    refuse_shipped(
        group,
        "nothing",
        Code::ChainStepMissing,
        "chain-vacuous-empty",
        "there is no evidence",
        &world,
    );
    let mut world = honest();
    world.envelopes.retain(|name, _| name.contains("signoff") || name.contains("request"));
    let about = "there are statements, and none of the kind that is needed";
    refuse_shipped(
        group,
        "no-manifest",
        Code::ChainStepMissing,
        "chain-any-attestation",
        about,
        &world,
    );
    let mut world = honest();
    world.envelopes.retain(|name, _| name.ends_with("manifest"));
    let about = "genuine provenance of every step, and nobody who authorized any";
    refuse_shipped(
        group,
        "provenance-alone",
        Code::ChainTaskMissing,
        "cmp-valid-provenance-no-authorisation",
        about,
        &world,
    );
    let mut world = honest();
    world.drop("new/publish/manifest");
    refuse_shipped(
        group,
        "not-published",
        Code::ChainStepMissing,
        "gate-bypass-direct",
        "the file was signed and never published",
        &world,
    );
}

fn changed(group: &mut Group<'_>) {
    for (name, document) in [
        ("manifest-changed", "new/sign/manifest"),
        ("task-changed", "new/build/task"),
        ("sign-off-changed", "new/ship/signoff/bob"),
    ] {
        let mut world = honest();
        let envelope = world.envelopes.get_mut(document).unwrap();
        let mut payload = envelope.unverified_payload().to_vec();
        let middle = payload.len() / 2;
        payload[middle] ^= 1;
        let mut other = Envelope::unsigned::<Statement>(payload);
        envelope.signatures().iter().for_each(|signature| other.add_signature(signature.clone()));
        *envelope = other;
        let about = "one bit of a document is changed";
        refuse_shipped(
            group,
            name,
            Code::EnvSignatureInvalid,
            "env-payload-bitflip",
            about,
            &world,
        );
    }
    let mut world = honest();
    let envelope = world.envelopes.get_mut("new/sign/manifest").unwrap();
    let mut signature = envelope.signatures()[0].clone();
    signature.sig[9] ^= 1;
    let mut other = Envelope::unsigned::<Statement>(envelope.unverified_payload());
    other.add_signature(signature);
    *envelope = other;
    refuse_shipped(
        group,
        "signature-changed",
        Code::EnvSignatureInvalid,
        "env-sig-bitflip",
        "one bit of a signature is changed",
        &world,
    );
    let mut world = honest();
    let envelope = world.envelopes.get_mut("new/sign/manifest").unwrap();
    *envelope = signed(envelope.clone(), &["mallory-machine", "docs"]);
    let about = About(
        "a stranger and another machine signed the same manifest too",
        &["env-unknown-key-extra", "env-envelope-malleability"],
    );
    group.accept("more-signatures", about, &shipped(&world));
}

fn asked(group: &mut Group<'_>) {
    let world = honest();
    let with = |edit: fn(&mut custody_verify::Question)| {
        let What::Chain(mut chain) = shipped(&world) else { panic!("a chain") };
        edit(&mut chain.question);
        What::Chain(chain)
    };
    for (name, code, row, edit) in [
        (
            "other-version-asked",
            Code::ChainReleaseMismatch,
            "chain-cross-release",
            (|q| q.expect.version = Some(label("1.0.0"))) as fn(&mut custody_verify::Question),
        ),
        ("other-channel-asked", Code::ChainReleaseMismatch, "chain-cross-release", |q| {
            q.expect.channel = Some(label("beta"));
        }),
        ("other-product-asked", Code::ChainProductMismatch, "chain-cross-product", |q| {
            q.expect.product = Some(label("other"));
        }),
        ("other-instance-asked", Code::ChainInstanceMismatch, "chain-cross-instance", |q| {
            q.expect.instance = Some(label("staging"));
        }),
        ("other-step-asked", Code::ChainStepMismatch, "chain-step-renamed", |q| {
            q.expect.step = Some(label("build"));
        }),
    ] {
        let about = About("the file is asked of another release or step than it is of", &[row]);
        group.reject(name, "honest", code, about, &with(edit));
    }
    let about = About("nothing is said of the release", &[]);
    group.accept(
        "release-not-asked",
        about,
        &with(|q| q.expect = custody_verify::Expectation::default()),
    );
    let mut question = world.ask("hello", &bytes("new", "hello"));
    question.expect.step = None;
    let unshipped = What::Chain(ask(&world, question, &bytes("new", "hello"), &super::BUILT));
    let about = About(
        "what was built and not shipped, without asking for the step",
        &["chain-step-skipped"],
    );
    group.reject("built-not-shipped", "built", Code::ChainStepMissing, about, &unshipped);
    let old = world.ask("hello", &bytes("old", "hello, signed"));
    let mut evidence = ask(
        &world,
        old,
        &bytes("old", "hello, signed"),
        &["old/promote/", "old/build/", "old/sign/", "old/ship/", "old/publish/"],
    );
    let about = About(
        "the file of an older release where the newer was asked for",
        &["gate-version-rollback", "chain-cross-release"],
    );
    group.reject(
        "older-release",
        "older-release-asked",
        Code::ChainReleaseMismatch,
        about,
        &What::Chain(evidence.clone()),
    );
    evidence.question.expect.version = Some(label("1.0.0"));
    let about = About("the file of the older release, asked for", &[]);
    group.accept("older-release-asked", about, &What::Chain(evidence));
}

fn signers(group: &mut Group<'_>) {
    let purpose = Code::PolicyKeyPurpose;
    for (name, document, by, code, row) in [
        (
            "manifest-by-another-step",
            "new/build/manifest",
            "docs",
            purpose,
            "chain-key-of-other-step",
        ),
        ("manifest-by-scheduler", "new/build/manifest", "scheduler", purpose, "pol-key-purpose"),
        ("manifest-by-person", "new/build/manifest", "bob", purpose, "pol-key-purpose"),
        ("manifest-by-desk", "new/build/manifest", "desk", purpose, "pol-key-purpose"),
        (
            "manifest-by-nobody",
            "new/build/manifest",
            "nobody",
            Code::ChainStepMissing,
            "env-embedded-cert-or-jwk",
        ),
        ("task-by-worker", "new/build/task", "builder", purpose, "chain-self-authorised"),
        ("task-by-person", "new/build/task", "bob", purpose, "pol-key-purpose"),
        ("task-by-desk", "new/build/task", "desk", purpose, "pol-key-purpose"),
        (
            "authorization-by-worker",
            "new/promote/authorization",
            "builder",
            purpose,
            "pol-key-purpose",
        ),
        (
            "authorization-by-person",
            "new/promote/authorization",
            "alice",
            purpose,
            "pol-key-purpose",
        ),
        (
            "authorization-by-scheduler",
            "new/promote/authorization",
            "scheduler",
            purpose,
            "pol-key-purpose",
        ),
        ("request-by-worker", "new/promote/request", "builder", purpose, "pol-key-purpose"),
        (
            "request-by-nobody",
            "new/promote/request",
            "mallory",
            Code::EnvKeyUnknown,
            "pol-key-purpose",
        ),
        (
            "sign-off-by-worker",
            "new/promote/signoff/bob",
            "builder",
            Code::SignoffCredentialUnknown,
            "pol-key-purpose",
        ),
        (
            "sign-off-by-desk",
            "new/promote/signoff/bob",
            "desk",
            Code::SignoffCredentialUnknown,
            "pol-key-purpose",
        ),
    ] {
        let about = "a document is signed by somebody who may not";
        refuse(group, name, code, row, about, change().signed_by(document, &[by]));
    }
    let both = change().signed_by("new/build/manifest", &["docs", "builder"]).build();
    let about = About("the right machine and another one signed", &["env-unknown-key-extra"]);
    group.accept("two-machines-signed", about, &built(&both));
}

fn links(group: &mut Group<'_>) {
    let world = honest();
    let old = world.id("old/promote/authorization");
    let moved =
        |document: &str| change().task(document, move |task| task.authorization = old).build();
    refuse_signed(
        group,
        "task-of-older-release",
        Code::ChainReleaseMismatch,
        "chain-self-authorised",
        "the task names the authorization of the older release",
        &moved("new/build/task"),
    );
    refuse_shipped(
        group,
        "publication-of-older-release",
        Code::ChainStepMismatch,
        "chain-mix-and-match",
        "the task of a publication names the authorization of another phase",
        &moved("new/publish/task"),
    );
    let task = world.id("old/build/task");
    let builder =
        change().manifest("new/build/manifest", move |manifest| manifest.task = task).build();
    refuse_signed(
        group,
        "manifest-of-older-task",
        Code::ChainSourceMismatch,
        "chain-mix-and-match",
        "the manifest names the task of the older release",
        &builder,
    );
    for (name, other, document) in [
        ("sign-off-as-task", "new/promote/signoff/bob", "manifest"),
        ("request-as-authorization", "new/promote/request", "task"),
    ] {
        let id = world.id(other);
        let builder = if document == "task" {
            change().task("new/build/task", move |task| task.authorization = id)
        } else {
            change().manifest("new/build/manifest", move |manifest| manifest.task = id)
        };
        let about = "a document of another kind at the place of the one that is named";
        refuse(group, name, Code::StmtPredicateType, "chain-type-confusion", about, builder);
    }
    let unknown = StatementId(Sha256::of(b"nothing"));
    let builder = change().manifest("new/build/manifest", move |manifest| manifest.task = unknown);
    refuse(
        group,
        "task-of-nowhere",
        Code::ChainTaskMissing,
        "chain-no-task",
        "the manifest names a task that nobody has",
        builder,
    );
    let itself = change().manifest("new/sign/manifest", |manifest| {
        // nobody can name what is not made yet; the nearest to a circle is the manifest's own task
        manifest.upstream[0] = manifest.task;
    });
    refuse_signed(
        group,
        "upstream-is-own-task",
        Code::StmtPredicateType,
        "chain-cycle",
        "a manifest names its own task as what it was made from",
        &itself.build(),
    );
    let id = world.id("old/build/manifest");
    let substituted = change().manifest("new/sign/manifest", move |manifest| {
        let new = manifest.upstream[0];
        manifest.upstream[0] = id;
        for input in
            manifest.inputs.iter_mut().filter(|input| input.origin == InputOrigin::Manifest(new))
        {
            let name = input.artifact.name.to_string();
            input.origin = InputOrigin::Manifest(id);
            input.artifact = artifact(&name, &bytes("old", name.trim_start_matches("dist/")));
        }
    });
    refuse_signed(
        group,
        "link-substituted",
        Code::ChainInputUnaccounted,
        "chain-link-substituted",
        "the older release's manifest of the same step is used in place of this one's",
        &substituted.build(),
    );
    for (name, from, to, code) in [
        ("statement-v01", "in-toto.io/Statement/v1", "in-toto.io/Statement/v0.1", Code::StmtType),
        (
            "build-type",
            "https://custody.dev/step/v1",
            "https://actions.github.io/buildtypes/workflow/v1",
            Code::StmtBuildType,
        ),
        (
            "predicate-type",
            "slsa.dev/provenance/v1",
            "example.org/other/v1",
            Code::StmtPredicateType,
        ),
    ] {
        let world = change().json("new/build/manifest", move |json| json.replace(from, to)).build();
        let about = "evidence of another tool at a manifest's place";
        refuse_signed(group, name, code, "cmp-over-credit", about, &world);
    }
}

fn contradictions(group: &mut Group<'_>) {
    let cases: [(&str, Code, &str, fn(&mut Manifest)); 6] = [
        ("step-renamed", Code::ChainStepMismatch, "chain-step-renamed", |manifest| {
            manifest.step = label("sign");
        }),
        ("command-longer", Code::GateCommandMismatch, "chain-parameters-added", |manifest| {
            manifest.command.push("--evil".into());
        }),
        ("creator-other", Code::ChainTaskMismatch, "wrk-client-id", |manifest| {
            manifest.creator = "somebody".into();
        }),
        (
            "destination-added",
            Code::ChainTaskMismatch,
            "chain-predicate-contradiction",
            |manifest| manifest.destination = Some("s3://releases/hello/".into()),
        ),
        ("source-other", Code::ChainSourceMismatch, "chain-source-revision", |manifest| {
            manifest.source = Some(source("old"));
        }),
        ("source-dropped", Code::ChainSourceMismatch, "chain-source-revision", |manifest| {
            manifest.source = None;
        }),
    ];
    for (name, code, row, edit) in cases {
        let about = "the manifest says otherwise than its task";
        refuse(group, name, code, row, about, change().manifest("new/build/manifest", edit));
    }
    let cases: [(&str, Code, &str, fn(&mut Task)); 5] = [
        ("task-with-network", Code::StmtParameterUnexpected, "gate-impact-downgraded", |task| {
            task.network = true;
        }),
        ("task-without-source", Code::ChainSourceMismatch, "chain-source-revision", |task| {
            task.source = None;
        }),
        ("task-of-other-source", Code::ChainSourceMismatch, "chain-source-revision", |task| {
            task.source = Some(source("old"));
        }),
        ("task-with-external", Code::ChainInputUnaccounted, "chain-cache-unrecorded", |task| {
            task.externals.push(custody_core::statement::External {
                artifact: artifact("tool", "a tool"),
                uri: "https://evil.example.org/tool".into(),
            });
        }),
        ("task-of-unknown-step", Code::PolicyStepUnknown, "pol-unknown-step", |task| {
            task.step = label("other");
        }),
    ];
    for (name, code, row, edit) in cases {
        let about = "the task asks for what the policy does not allow";
        refuse(group, name, code, row, about, change().task("new/build/task", edit));
    }
}
