//! What a step was given, what it made, and of which release.

use custody_core::Code;
use custody_core::statement::{
    InputOrigin, Manifest, Origin, Request, Resolve, Revision, Task, UsedInput,
};
use custody_world::{World, artifact, at, change, content, honest, label, nonce};

use super::{built, refuse, refuse_shipped, refuse_signed, signed_update};
use crate::case::{About, Group, What};

pub(super) fn inputs(group: &mut Group<'_>) {
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
                manifest.inputs[index].artifact.size += 1;
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
            task.externals[0].uri = "https://tools.example.org/../evil".into();
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

pub(super) fn results(group: &mut Group<'_>) {
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
    let manifest = world.run("build again", "builder", 100_310, made.into());
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

pub(super) fn twins(group: &mut Group<'_>) {
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

pub(super) fn sources(group: &mut Group<'_>) {
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
            request.source.revision = Revision::Git("3".repeat(40));
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

pub(super) fn releases(group: &mut Group<'_>) {
    let cases: [(&str, Code, &str, fn(&mut Request)); 4] = [
        ("product-unknown", Code::PolicyProductUnknown, "pol-product-unknown", |request| {
            request.release.product = label("other");
        }),
        ("instance-other", Code::ChainInstanceMismatch, "chain-cross-instance", |request| {
            request.release.instance = label("staging");
        }),
        ("channel-unknown", Code::ChainReleaseMismatch, "chain-untrusted-tier", |request| {
            request.release.channel = label("try");
        }),
        ("phase-unknown", Code::PolicyStepUnknown, "pol-unknown-step", |request| {
            request.phase = label("other");
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
        .request("new/promote/request", |request| request.builds_on[0].artifacts -= 1)
        .build();
    refuse_signed(
        group,
        "file-not-approved",
        Code::SignoffContentMismatch,
        "chain-cross-release",
        "people were shown fewer files than the older release's manifest has",
        &world,
    );
    let world =
        change().request("new/promote/request", |request| request.builds_on[0].bytes += 1).build();
    refuse_signed(
        group,
        "file-approved-otherwise",
        Code::SignoffContentMismatch,
        "hum-content-changed",
        "people were shown another size than the older release's files have",
        &world,
    );
    let twice = |request: &mut Request| request.builds_on.push(request.builds_on[0].clone());
    let world = change().request("new/promote/request", twice).build();
    refuse_signed(
        group,
        "manifest-named-twice",
        Code::StmtSubjectDuplicate,
        "hum-content-changed",
        "a request names one manifest twice, and so counts its files twice",
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

pub(super) fn required(group: &mut Group<'_>) {
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
