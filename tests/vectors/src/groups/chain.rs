//! Chains: whoever holds storage, a worker or the scheduler passes something off as this release.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::statement::{
    InputOrigin, Manifest, Origin, Request, Resolve, Revision, Statement, Task, UsedInput,
};
use custody_verify::Floor;
use custody_world::{
    Builder, Key, World, artifact, at, change, content, honest, label, nonce, policy_envelope,
    policy_text, signed, source,
};

use super::{ask, built, shipped, signed_update};
use crate::case::{About, Chain, Group, Set, What};

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
    inputs(&mut group);
    results(&mut group);
    twins(&mut group);
    sources(&mut group);
    releases(&mut group);
    required(&mut group);
    times(&mut group);
    policies(&mut group);
    keys(&mut group);
    decisions(&mut group);
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
    let mut other = Envelope::unsigned::<Statement>(envelope.unverified_payload().to_vec());
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
            q.expect.channel = Some(label("beta"))
        }),
        ("other-product-asked", Code::ChainProductMismatch, "chain-cross-product", |q| {
            q.expect.product = Some(label("other"))
        }),
        ("other-instance-asked", Code::ChainInstanceMismatch, "chain-cross-instance", |q| {
            q.expect.instance = Some(label("staging"))
        }),
        ("other-step-asked", Code::ChainStepMismatch, "chain-step-renamed", |q| {
            q.expect.step = Some(label("build"))
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
    let mut question = world.ask("hello", &content("new", "hello"));
    question.expect.step = None;
    let unshipped = What::Chain(ask(&world, question, &content("new", "hello"), &super::BUILT));
    let about = About(
        "what was built and not shipped, without asking for the step",
        &["chain-step-skipped"],
    );
    group.reject("built-not-shipped", "built", Code::ChainStepMissing, about, &unshipped);
    let old = world.ask("hello", &content("old", "hello, signed"));
    let mut evidence = ask(
        &world,
        old,
        &content("old", "hello, signed"),
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
            input.artifact = artifact(&name, &content("old", name.trim_start_matches("dist/")));
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
            manifest.step = label("sign")
        }),
        ("command-longer", Code::GateCommandMismatch, "chain-parameters-added", |manifest| {
            manifest.command.push("--evil".into())
        }),
        ("creator-other", Code::ChainTaskMismatch, "wrk-client-id", |manifest| {
            manifest.creator = "somebody".into()
        }),
        (
            "destination-added",
            Code::ChainTaskMismatch,
            "chain-predicate-contradiction",
            |manifest| manifest.destination = Some("s3://releases/hello/".into()),
        ),
        ("source-other", Code::ChainSourceMismatch, "chain-source-revision", |manifest| {
            manifest.source = Some(source("old"))
        }),
        ("source-dropped", Code::ChainSourceMismatch, "chain-source-revision", |manifest| {
            manifest.source = None
        }),
    ];
    for (name, code, row, edit) in cases {
        let about = "the manifest says otherwise than its task";
        refuse(group, name, code, row, about, change().manifest("new/build/manifest", edit));
    }
    let cases: [(&str, Code, &str, fn(&mut Task)); 5] = [
        ("task-with-network", Code::StmtParameterUnexpected, "gate-impact-downgraded", |task| {
            task.network = true
        }),
        ("task-without-source", Code::ChainSourceMismatch, "chain-source-revision", |task| {
            task.source = None
        }),
        ("task-of-other-source", Code::ChainSourceMismatch, "chain-source-revision", |task| {
            task.source = Some(source("old"))
        }),
        ("task-with-external", Code::ChainInputUnaccounted, "chain-cache-unrecorded", |task| {
            task.externals.push(custody_core::statement::External {
                artifact: artifact("tool", "a tool"),
                uri: "https://evil.example.org/tool".into(),
            });
        }),
        ("task-of-unknown-step", Code::PolicyStepUnknown, "pol-unknown-step", |task| {
            task.step = label("other")
        }),
    ];
    for (name, code, row, edit) in cases {
        let about = "the task asks for what the policy does not allow";
        refuse(group, name, code, row, about, change().task("new/build/task", edit));
    }
}

fn inputs(group: &mut Group<'_>) {
    let evil = || artifact("evil.c", "evil");
    let sign = |edit: fn(&mut Manifest)| change().manifest("new/sign/manifest", edit).build();
    let unaccounted = Code::ChainInputUnaccounted;
    let world = change().manifest("new/sign/manifest", move |manifest| {
        let origin = manifest.inputs[0].origin.clone();
        manifest.inputs.push(UsedInput { artifact: evil(), origin });
    });
    refuse_signed(
        group,
        "input-that-nobody-made",
        unaccounted,
        "chain-input-dropped",
        "an input that the named manifest does not list",
        &world.build(),
    );
    let world = change().manifest("new/sign/manifest", move |manifest| {
        manifest.inputs.push(UsedInput {
            artifact: evil(),
            origin: InputOrigin::External("https://evil.example.org/".into()),
        });
    });
    refuse_signed(
        group,
        "input-from-elsewhere",
        unaccounted,
        "chain-input-dropped",
        "an input from a place that the task does not name",
        &world.build(),
    );
    let world = sign(|manifest| {
        let dropped = manifest.upstream.remove(0);
        manifest.inputs.retain(|input| input.origin != InputOrigin::Manifest(dropped));
    });
    refuse_signed(
        group,
        "inputs-dropped",
        unaccounted,
        "chain-input-dropped",
        "a manifest and its files are left out though the task asks for them",
        &world,
    );
    let world = sign(|manifest| {
        manifest.upstream.remove(0);
    });
    refuse_signed(
        group,
        "upstream-dropped",
        unaccounted,
        "chain-input-dropped",
        "files are used of a manifest that is not named",
        &world,
    );
    let unused = honest().id("old/build/manifest");
    let world = change()
        .manifest("new/sign/manifest", move |manifest| manifest.upstream.push(unused))
        .build();
    refuse_signed(
        group,
        "upstream-unused",
        unaccounted,
        "chain-upstream-unused",
        "a manifest is named of which nothing is used",
        &world,
    );
    let world = sign(|manifest| {
        manifest.inputs.remove(0);
    });
    refuse_signed(
        group,
        "input-left-out",
        Code::ArtMissing,
        "art-missing",
        "one file that the task asks for was not used",
        &world,
    );
    let world = sign(|manifest| manifest.inputs.push(manifest.inputs[0].clone()));
    refuse_signed(
        group,
        "input-twice",
        Code::StmtSubjectDuplicate,
        "art-dup-name",
        "one input stands twice",
        &world,
    );
    for (name, index) in [("input-of-other-size", 0), ("external-of-other-size", 2)] {
        let world = change()
            .manifest("new/partial/manifest", move |manifest| {
                manifest.inputs[index].artifact.size += 1
            })
            .build();
        refuse_signed(
            group,
            name,
            Code::ArtDigestMismatch,
            "art-optional-wrong-hash",
            "an input is not what was made or pinned",
            &world,
        );
    }
    let world = change()
        .task("new/partial/task", |task| {
            task.externals[0].uri = "https://tools.example.org/../evil".into()
        })
        .build();
    refuse_signed(
        group,
        "external-climbs",
        unaccounted,
        "pol-wildcards",
        "an external whose address climbs out of what the policy allows",
        &world,
    );
    let widened = change()
        .task("new/partial/task", |task| task.inputs[0].patterns = vec!["dist/*".parse().unwrap()]);
    let widened = widened.manifest("new/partial/manifest", |manifest| {
        manifest.inputs.retain(|input| input.artifact.name.as_str() != "dist/hello");
    });
    refuse_signed(
        group,
        "pattern-widened",
        Code::ArtMissing,
        "art-wildcard-widens",
        "the task asks for more by a pattern than the step used",
        &widened.build(),
    );
}

fn results(group: &mut Group<'_>) {
    let mut world = honest();
    let mut other = world.get_manifest("new/build/manifest");
    other.invocation = "a second run".into();
    let id = world.add("fork", other.clone(), &["builder"]);
    let forked = Code::ChainForked;
    let about = About(
        "one task has two manifests by machines that may perform it",
        &["chain-fork-one-task", "chain-task-reused"],
    );
    group.reject("forked", "built", forked, about, &built(&world));
    let first = world.id("new/build/manifest");
    let resolve = |manifest, person: &str, by: &str| {
        let mut world = world.clone();
        let word = world.resolution("new/build/task", Resolve::Supersede(manifest), person);
        world.add("resolution", word, &[by]);
        world
    };
    let about = About("of two manifests a person chose this one", &["chain-fork-one-task"]);
    group.accept("fork-resolved", about, &built(&resolve(first, "carol", "carol")));
    let about =
        About("the choice is signed by another person than it names", &["chain-fork-one-task"]);
    group.reject(
        "fork-resolved-by-another",
        "fork-resolved",
        forked,
        about,
        &built(&resolve(first, "carol", "bob")),
    );
    let mut both = resolve(first, "carol", "carol");
    let word = both.resolution("new/build/task", Resolve::Supersede(id), "bob");
    both.add("other", word, &["bob"]);
    let about = About("two people chose differently", &["chain-fork-one-task"]);
    group.reject("fork-resolved-twice", "fork-resolved", forked, about, &built(&both));
    let mut by_others = honest();
    by_others.add("extra", other, &["docs"]);
    let about = About(
        "a second manifest by a machine that may not perform the step",
        &["chain-extra-nodes"],
    );
    group.accept("extra-by-another", about, &built(&by_others));
    let mut replayed = honest();
    let mut manifest = replayed.get_manifest("new/build/manifest");
    manifest.started = at(100_400);
    manifest.finished = at(100_450);
    replayed.add("second run", manifest, &["builder"]);
    let about = About("one task was run again elsewhere", &["chain-task-reused"]);
    group.reject("task-run-twice", "built", forked, about, &built(&replayed));
}

/// The build is planned a second time. Signing takes the second result, packing took the first.
fn built_twice(file: &str) -> What {
    let mut world = honest();
    let mut task = world.get_task("new/build/task");
    task.nonce = nonce("again");
    let (first, second) =
        (world.id("new/build/task"), world.add("build again", task, &["scheduler"]));
    let made = [("dist/hello", file), ("dist/hello.mar", "hello.mar")];
    let made = made.map(|(path, file)| artifact(path, &content("new", file)));
    let manifest = world.run("build again", 100_310, made.into());
    let manifest = world.add("built again", manifest, &["builder"]);
    let mut sign = world.get_task("new/sign/task");
    let inputs = sign.inputs.iter_mut().filter(|input| input.origin == Origin::Task(first));
    inputs.for_each(|input| input.origin = Origin::Task(second));
    world.add("new/sign/task", sign, &["scheduler"]);
    let mut signing = world.get_manifest("new/sign/manifest");
    signing.task = world.id("new/sign/task");
    let before = world.id("new/build/manifest");
    for id in signing.upstream.iter_mut().filter(|id| **id == before) {
        *id = manifest;
    }
    for input in
        signing.inputs.iter_mut().filter(|input| input.origin == InputOrigin::Manifest(before))
    {
        input.origin = InputOrigin::Manifest(manifest);
        if input.artifact.name.as_str() == "dist/hello" {
            input.artifact = artifact("dist/hello", &content("new", file));
        }
    }
    world.add("new/sign/manifest", signing, &["signer"]);
    signed_update(&world)
}

fn twins(group: &mut Group<'_>) {
    let rows = &["chain-two-nodes-one-role"];
    let about = About("one job was planned twice, and both results are the same", rows);
    group.accept("planned-twice", about, &built_twice("hello"));
    let about = About("one job was planned twice, and the chain has two results of it", rows);
    group.reject(
        "two-results-of-one-job",
        "planned-twice",
        Code::ChainForked,
        about,
        &built_twice("another hello"),
    );
    let replaced = |world: &mut World| {
        let mut other = world.get_manifest("new/build/manifest");
        other.invocation = "a second run".into();
        world.drop("new/build/manifest");
        world.add("other", other, &["builder"]);
    };
    let mut world = honest();
    replaced(&mut world);
    let about =
        "another genuine manifest of the same task lies at the place of the one that is named";
    refuse_signed(
        group,
        "link-replaced",
        Code::ChainLinkMissing,
        "chain-link-substituted",
        about,
        &world,
    );
}

fn sources(group: &mut Group<'_>) {
    for (name, uri) in [
        ("source-at-sign", "https://git.example.org/hello@evil"),
        ("source-slash", "https://git.example.org/hello/"),
        ("source-dot-git", "https://git.example.org/hello.git"),
        ("source-longer", "https://git.example.org/hello-evil"),
        ("source-upper-case", "https://GIT.example.org/hello"),
        ("source-with-user", "https://x@git.example.org/hello"),
        ("source-with-port", "https://git.example.org:443/hello"),
        ("source-escaped", "https://git.example.org/%68ello"),
        ("source-http", "http://git.example.org/hello"),
        ("source-dots", "https://git.example.org/x/../hello"),
    ] {
        let builder =
            change().request("new/promote/request", move |request| request.source.uri = uri.into());
        let about = "another spelling of the repository, or another repository";
        refuse(group, name, Code::ChainSourceMismatch, "chain-source-uri-tricks", about, builder);
    }
    let world = change()
        .request("new/ship/request", |request| {
            request.source.revision = Revision::Git("3".repeat(40))
        })
        .build();
    refuse_shipped(
        group,
        "later-phase-other-source",
        Code::ChainSourceMismatch,
        "chain-source-revision",
        "the later phase is for another commit than its files were built from",
        &world,
    );
}

fn releases(group: &mut Group<'_>) {
    let cases: [(&str, Code, &str, fn(&mut Request)); 4] = [
        ("product-unknown", Code::PolicyProductUnknown, "pol-product-unknown", |request| {
            request.release.product = label("other")
        }),
        ("instance-other", Code::ChainInstanceMismatch, "chain-cross-instance", |request| {
            request.release.instance = label("staging")
        }),
        ("channel-unknown", Code::ChainReleaseMismatch, "chain-untrusted-tier", |request| {
            request.release.channel = label("try")
        }),
        ("phase-unknown", Code::PolicyStepUnknown, "pol-unknown-step", |request| {
            request.phase = label("other")
        }),
    ];
    for (name, code, row, edit) in cases {
        let about = "the request is for what the policy does not know";
        refuse(group, name, code, row, about, change().request("new/promote/request", edit));
    }
    let staged = change()
        .request("old/promote/request", |request| request.release.instance = label("staging"))
        .build();
    refuse_signed(
        group,
        "older-from-staging",
        Code::ChainInstanceMismatch,
        "chain-cross-instance",
        "the older release's files were made on staging",
        &staged,
    );
    let world =
        change().request("new/promote/request", |request| request.builds_on.clear()).build();
    refuse_signed(
        group,
        "older-not-approved",
        Code::ChainInputUnaccounted,
        "chain-cross-release",
        "files of another release that people did not sign off",
        &world,
    );
    let world = change()
        .request("new/promote/request", |request| request.builds_on[0].artifacts.clear())
        .build();
    refuse_signed(
        group,
        "file-not-approved",
        Code::SignoffContentMismatch,
        "chain-cross-release",
        "a file of another release that people did not sign off",
        &world,
    );
    let world = change()
        .request("new/promote/request", |request| request.builds_on[0].artifacts[0].size += 1)
        .build();
    refuse_signed(
        group,
        "file-approved-otherwise",
        Code::ArtDigestMismatch,
        "hum-content-changed",
        "people signed off another file than the older release has",
        &world,
    );
    let world = change()
        .request("new/promote/request", |request| request.builds_on[0].step = label("sign"))
        .build();
    refuse_signed(
        group,
        "manifest-of-other-step",
        Code::ChainStepMismatch,
        "chain-step-renamed",
        "people signed off a manifest of another step",
        &world,
    );
}

fn required(group: &mut Group<'_>) {
    let only_partial = |text: String| {
        let inputs = "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\", release = \"same\" }]";
        text.replace(inputs, "inputs = [{ step = \"partial\", release = \"same\" }]")
    };
    let world = change().policy(only_partial).build();
    refuse_signed(
        group,
        "input-from-another-step",
        Code::ChainStepMissing,
        "chain-step-skipped",
        "the step takes files from a step that the policy does not name",
        &world,
    );
    let no_after = |text: String| text.replace("after = [\"promote\"]", "after = []");
    let world = change().policy(no_after).build();
    refuse_shipped(
        group,
        "phase-not-after",
        Code::ChainReleaseMismatch,
        "chain-cross-release",
        "the phase takes files of a phase that it does not come after",
        &world,
    );
    let needs_partial = |text: String| {
        text.replacen(
            "{ step = \"partial\", release = \"same\" }",
            "{ step = \"partial\", release = \"same\", required = true }",
            1,
        )
    };
    let skip = |task: &mut Task| task.inputs.retain(|input| input.directory.as_str() != "partial");
    let all = change().policy(needs_partial).build();
    group.accept(
        "required-step-taken",
        About("a step that the policy requires is taken", &["chain-step-skipped"]),
        &signed_update(&all),
    );
    let world = change().policy(needs_partial).task("new/sign/task", skip).build();
    let about = About("a step that the policy requires is left out", &["chain-step-skipped"]);
    group.reject(
        "required-step-skipped",
        "required-step-taken",
        Code::ChainStepMissing,
        about,
        &signed_update(&world),
    );
}

fn times(group: &mut Group<'_>) {
    let manifests: [(&str, Code, &str, fn(&mut Manifest)); 4] = [
        ("started-before-task", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.started = at(99_999)
        }),
        ("finished-before-start", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.finished = at(100_305)
        }),
        ("finished-in-future", Code::ChainTimeOrder, "chain-time-order", |m| {
            m.finished = at(900_000)
        }),
        ("started-after-deadline", Code::ChainStale, "chain-stale-task", |m| {
            (m.started, m.finished) = (at(108_000), at(108_001))
        }),
    ];
    for (name, code, row, edit) in manifests {
        refuse(
            group,
            name,
            code,
            row,
            "the run does not fit its task",
            change().manifest("new/build/manifest", edit),
        );
    }
    let tasks: [(&str, Code, &str, fn(&mut Task)); 3] = [
        ("task-before-authorization", Code::ChainTimeOrder, "chain-time-order", |t| {
            t.created = at(99_000)
        }),
        ("deadline-after-authorization", Code::ChainStale, "chain-stale-task", |t| {
            t.deadline = at(180_001)
        }),
        ("deadline-too-far", Code::ChainStale, "chain-stale-task", |t| {
            t.deadline = at(100_300 + 86_401)
        }),
    ];
    for (name, code, row, edit) in tasks {
        refuse(
            group,
            name,
            code,
            row,
            "the task does not fit its authorization or the policy",
            change().task("new/build/task", edit),
        );
    }
    let authorizations: [(&str, Code, fn(&mut custody_core::statement::Authorization)); 3] = [
        ("authorization-outlives-request", Code::ChainStale, |a| a.expires = at(180_001)),
        ("authorization-before-request", Code::ChainTimeOrder, |a| a.not_before = at(99_000)),
        ("authorization-in-future", Code::ChainTimeOrder, |a| a.not_before = at(400_000)),
    ];
    for (name, code, edit) in authorizations {
        let builder = change().authorization("new/promote/authorization", edit);
        refuse(
            group,
            name,
            code,
            "chain-time-order",
            "the authorization does not fit its request",
            builder,
        );
    }
    let world = change().manifest("new/sign/manifest", |m| m.started = at(100_000)).build();
    refuse_signed(
        group,
        "started-before-inputs",
        Code::ChainTimeOrder,
        "chain-time-order",
        "the step began before its inputs were made",
        &world,
    );
}

fn now(what: What, edit: impl Fn(&mut Chain)) -> What {
    let What::Chain(mut chain) = what else { panic!("a chain") };
    edit(&mut chain);
    What::Chain(chain)
}

fn policies(group: &mut Group<'_>) {
    let world = honest();
    let end = |text: &str| text.parse().unwrap();
    let about = About("the policy holds for one more second", &["pol-expired"]);
    group.accept(
        "policy-last-second",
        about,
        &now(built(&world), |chain| chain.now = end("2029-12-31T23:59:59Z")),
    );
    for (name, time) in [
        ("policy-expired", "2030-01-01T00:00:00Z"),
        ("policy-long-expired", "2030-01-01T00:00:01Z"),
    ] {
        let about = About("the policy has expired", &["pol-expired"]);
        group.reject(
            name,
            "policy-last-second",
            Code::PolicyExpired,
            about,
            &now(built(&world), |chain| chain.now = end(time)),
        );
    }
    let mut renewed = honest();
    renewed.rotate(|text| text.replace("2030-01-01", "2040-01-01"));
    let about = About("the policy had expired and was renewed", &["pol-expired"]);
    group.accept(
        "policy-renewed",
        about,
        &now(built(&renewed), |chain| chain.now = end("2030-01-01T00:00:01Z")),
    );
    let floor = |version, policy, seconds| Floor { version, policy, time: at(seconds) };
    let about = About(
        "the clock is a little behind what was seen before, within the skew",
        &["sto-clock-jump"],
    );
    group.accept(
        "clock-a-little-behind",
        about,
        &now(built(&world), |chain| chain.question.floor = Some(floor(1, world.pin, 300_300))),
    );
    let about = About("the clock is behind what was seen before", &["sto-clock-jump"]);
    group.reject(
        "clock-behind",
        "clock-a-little-behind",
        Code::TimeUntrusted,
        about,
        &now(built(&world), |chain| chain.question.floor = Some(floor(1, world.pin, 300_301))),
    );
    let second = renewed.policies[1].id();
    let about = About("version 2 was seen before, and is there", &["pol-rollback"]);
    group.accept(
        "policy-seen",
        about,
        &now(built(&renewed), |chain| chain.question.floor = Some(floor(2, second, 0))),
    );
    let about = About("version 2 was seen before, and only version 1 is there", &["pol-rollback"]);
    group.reject(
        "policy-rollback",
        "policy-seen",
        Code::PolicyRollback,
        about,
        &now(built(&world), |chain| chain.question.floor = Some(floor(2, second, 0))),
    );
    let other = policy_envelope(&policy_text().replace("5m", "6m"), &["alice", "bob"]);
    let about = About(
        "the bundle brings a policy of its own, and another is pinned",
        &["pol-from-the-chain"],
    );
    group.reject(
        "policy-of-the-bundle",
        "built",
        Code::PolicyUntrusted,
        about,
        &now(built(&world), |chain| chain.pin = other.id()),
    );
    let id = other.id();
    let builder = change().request("new/promote/request", move |request| request.policy.id = id);
    refuse(
        group,
        "policy-never-valid",
        Code::PolicyMismatch,
        "pol-chain-pins-old",
        "the request names a policy that was never valid",
        builder,
    );
    let builder = change().request("new/promote/request", move |request| {
        (request.policy.id, request.policy.version) = (id, 2)
    });
    refuse(
        group,
        "policy-not-there",
        Code::PolicyVersionGap,
        "pol-chain-pins-old",
        "the request names a version of the policy that is not there",
        builder,
    );
    let builder = change().request("new/promote/request", |request| request.policy.version = 2);
    refuse(
        group,
        "policy-version-lie",
        Code::PolicyMismatch,
        "pol-chain-pins-old",
        "the request names the policy with another version than it has",
        builder,
    );
    let mut stricter = honest();
    stricter
        .rotate(|text| text.replace("channels = [\"release\", \"beta\"]", "channels = [\"beta\"]"));
    let about =
        About("a release stays good under a later, stricter policy", &["pol-chain-pins-old"]);
    group.accept("policy-stricter-later", about, &built(&stricter));
}

fn keys(group: &mut Group<'_>) {
    let key = |name: &str| format!("key = \"{}\"", Key::of(name).public.to_openssh());
    let window = |name: &str, from: Option<u64>, until: Option<u64>| {
        let text = |word, time: Option<u64>| {
            time.map(|time| format!(", {word} = \"{}\"", at(time))).unwrap_or_default()
        };
        let more = text("from", from) + &text("until", until);
        let key = key(name);
        change().policy(move |policy| policy.replace(&key, &format!("{key}{more}")))
    };
    // the build finished at 100_360
    let about = About(
        "the builder's key is in its window to the second",
        &["pol-key-expired", "pol-key-not-yet-valid"],
    );
    group.accept(
        "key-in-window",
        about,
        &built(&window("builder", Some(100_360), Some(100_361)).build()),
    );
    for (name, code, row, builder) in [
        (
            "key-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("builder", None, Some(100_360)),
        ),
        (
            "key-not-yet-valid",
            Code::PolicyKeyNotYetValid,
            "pol-key-not-yet-valid",
            window("builder", Some(100_361), None),
        ),
        (
            "desk-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("desk", None, Some(100_200)),
        ),
        (
            "scheduler-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("scheduler", None, Some(100_300)),
        ),
        (
            "person-expired",
            Code::PolicyKeyExpired,
            "pol-key-expired",
            window("carol", None, Some(100_100)),
        ),
    ] {
        let about = About("a key is a second out of its window", &[row]);
        group.reject(name, "key-in-window", code, about, &built(&builder.build()));
    }
    for name in ["builder", "desk", "scheduler", "carol"] {
        let mut world = honest();
        let key = key(name);
        world.rotate(|text| text.replace(&key, &format!("{key}, revoked = true")));
        let row = if name == "carol" { "hum-departed" } else { "pol-key-revoked" };
        let about = About("a later policy revoked a key that signed", &[row]);
        group.reject(
            &format!("revoked-{name}"),
            "built",
            Code::PolicyKeyRevoked,
            about,
            &built(&world),
        );
        if name == "builder" {
            world.rotate(|text| text.replace(", revoked = true", ""));
            let about =
                About("a still later policy has forgotten the revocation", &["pol-key-revoked"]);
            group.reject(
                "revoked-and-forgotten",
                "built",
                Code::PolicyKeyRevoked,
                about,
                &built(&world),
            );
        }
    }
    let mut world = honest();
    let gate = key("gate");
    world.rotate(|text| text.replace(&gate, &format!("{gate}, revoked = true")));
    let about =
        About("a later policy revoked a key that signed nothing here", &["pol-key-revoked"]);
    group.accept("revoked-another", about, &built(&world));
}

/// A task that is the product of a decision step.
fn decided(world: &World) -> What {
    let bytes = content("new", "extra");
    let mut question = world.ask("extra.txt", &bytes);
    question.expect.step = Some(label("extra"));
    What::Chain(ask(
        world,
        question,
        &bytes,
        &["new/promote/", "new/decide/", "new/extra/", "old/decide/task", "old/promote/"],
    ))
}

fn decisions(group: &mut Group<'_>) {
    group.accept("decided", About("a task that a decision step made", &[]), &decided(&honest()));
    let world = change().task("new/extra/task", |task| task.command.push("--evil".into())).build();
    let about =
        About("the task is not the one that the decision step made", &["chain-self-authorised"]);
    group.reject("decided-otherwise", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let mut world = honest();
    world.drop("new/decide/manifest");
    let about = About("the decision is not there", &["chain-no-task"]);
    group.reject("undecided", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let world = change().signed_by("new/decide/manifest", &["builder"]).build();
    let about = About(
        "the decision is signed by a machine that may not decide",
        &["chain-key-of-other-step"],
    );
    group.reject("decided-by-another", "decided", Code::PolicyKeyPurpose, about, &decided(&world));
    let mut world = honest();
    let (task, mut manifest) =
        (world.id("old/decide/task"), world.get_manifest("new/decide/manifest"));
    manifest.task = task;
    world.drop("new/decide/manifest");
    world.add("moved", manifest, &["decider"]);
    let about = About("the decision was made for another release", &["chain-cross-release"]);
    group.reject("decided-elsewhere", "decided", Code::ChainTaskMissing, about, &decided(&world));
    let takes = |text: String| {
        let (head, steps) = text.split_once("[products.hello.steps.decide]").unwrap();
        let inputs = "inputs = [{ step = \"extra\", release = \"same\" }]";
        format!("{head}[products.hello.steps.decide]{}", steps.replacen("inputs = []", inputs, 1))
    };
    let mut world = change().policy(takes).build();
    let about = About("a decision step that may take what it decided", &["chain-cycle"]);
    group.accept("decided-under-another-policy", about, &decided(&world));
    let mut task = world.get_task("new/decide/task");
    task.inputs.push(World::input(Origin::Task(world.id("new/extra/task")), "extra", "*"));
    world.add("new/decide/task", task, &["scheduler"]);
    let made = world.get_manifest("new/decide/manifest").artifacts;
    let manifest = world.run("new/decide/task", 100_460, made);
    world.add("new/decide/manifest", manifest, &["decider"]);
    let about = About("a decision that rests on what it decided", &["chain-cycle"]);
    group.reject(
        "decided-in-a-circle",
        "decided-under-another-policy",
        Code::ChainCycle,
        about,
        &decided(&world),
    );
}
