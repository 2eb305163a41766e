//! What a step was given: inputs that nothing explains, other bytes, downloads, and what a publication took.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::statement::{Downloads, InputOrigin, Pinned, UsedInput};
use custody_world::{
    artifact, assert_accepted, assert_refused, change, content, findings, honest, label,
};

/// `chain-input-dropped`, `chain-upstream-unused`, and issue 2: an input that nothing explains.
#[test]
fn an_input_that_nothing_explains_is_refused() {
    let evil = || artifact("evil.c", "evil");
    let world = change().manifest("new/sign/manifest", move |manifest| {
        let origin = manifest.inputs[0].origin.clone();
        manifest.inputs.push(UsedInput { artifact: evil(), origin });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", move |manifest| {
        manifest.inputs.push(UsedInput {
            artifact: evil(),
            origin: InputOrigin::External("https://evil.example.org/".into()),
        });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    // what the build did make, and the task does not ask for
    let world = change().manifest("new/partial/manifest", |manifest| {
        let origin = manifest.inputs[0].origin.clone();
        let artifact = artifact("dist/hello", &content("new", "hello"));
        manifest.inputs.push(UsedInput { artifact, origin });
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().json("new/sign/manifest", |json| {
        json.replace("\"role\": \"input\"", "\"role\": \"cache\"")
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        let dropped = manifest.upstream.remove(0);
        manifest.inputs.retain(|input| input.origin != InputOrigin::Manifest(dropped));
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        manifest.upstream.remove(0);
    });
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let unused = honest().id("old/build/manifest");
    let world =
        change().manifest("new/sign/manifest", move |manifest| manifest.upstream.push(unused));
    assert_refused(&world.build().file(), Code::ChainInputUnaccounted);
    let world = change().manifest("new/sign/manifest", |manifest| {
        manifest.inputs.remove(0);
    });
    assert_refused(&world.build().file(), Code::ArtMissing);
    let world = change()
        .manifest("new/sign/manifest", |manifest| manifest.inputs.push(manifest.inputs[0].clone()));
    assert_refused(&world.build().file(), Code::StmtSubjectDuplicate);
}

/// `art-byte-changed` inside the chain, `art-optional-wrong-hash`.
#[test]
fn an_input_that_is_not_what_was_made_or_pinned_is_refused() {
    for index in [0, 2] {
        let world = change().manifest("new/partial/manifest", move |manifest| {
            manifest.inputs[index].artifact.size += 1;
        });
        assert_refused(&world.build().file(), Code::ArtDigestMismatch);
    }
    let world = change().manifest("new/partial/manifest", |manifest| {
        manifest.inputs.retain(|input| matches!(input.origin, InputOrigin::Manifest(_)));
    });
    assert_refused(&world.build().file(), Code::ArtMissing);
    let elsewhere = change().task("new/partial/task", |task| {
        task.externals[0].uri = "https://evil.example.org/bsdiff".into();
    });
    assert_refused(&elsewhere.build().file(), Code::ChainInputUnaccounted);
    let below = |path: &'static str| {
        change().task("new/partial/task", move |task| {
            task.externals[0].uri = format!("https://tools.example.org/{path}");
        })
    };
    assert_accepted(&below("v2/bsdiff").build().file());
    for climbing in ["../evil", "v2/%2e%2e/evil", "@evil.example.org/", "..\\evil", "v2\\evil"] {
        assert_refused(&below(climbing).build().file(), Code::ChainInputUnaccounted);
    }
}

const REGISTRY: &str = "https://registry.example.org/";

/// A world in which the build of the release may download: under this policy, with these pins, and
/// having used these.
fn downloading(
    record: bool,
    pinned: Option<&[(&str, &str)]>,
    used: &'static [(&'static str, &'static str)],
) -> custody_world::World {
    let pin = |(path, text): &(&str, &str)| Pinned {
        uri: format!("{REGISTRY}{path}"),
        digests: Sha256::of(text.as_bytes()).into(),
        size: text.len() as u64,
    };
    let pinned = pinned.map(|pins| pins.iter().map(pin).collect());
    let downloads = Downloads { from: vec![REGISTRY.into()], pinned };
    let record = if record { "record-downloads = true\n" } else { "" };
    let step = "[products.hello.steps.build]\n";
    change()
        .policy(|text| {
            text.replacen(step, &format!("{step}downloads = [\"{REGISTRY}\"]\n{record}"), 1)
        })
        .task("new/build/task", move |task| task.downloads = Some(downloads.clone()))
        .manifest("new/build/manifest", move |manifest| {
            manifest.inputs.extend(used.iter().enumerate().map(|(i, (path, text))| UsedInput {
                artifact: artifact(&format!("{i}.bin"), text),
                origin: InputOrigin::Download(format!("{REGISTRY}{path}")),
            }));
        })
        .build()
}

/// `dl-not-listed`, `dl-second-name`, `dl-pinned-changed`: what a worker says that it fetched.
#[test]
fn a_download_that_the_task_does_not_explain_is_refused() {
    let pins: &[(&str, &str)] = &[("a", "one"), ("b", "two")];
    let (pinned, recorded) = (Some(pins), None);
    // the controls: all pins, some, none, and whatever was found where that is allowed
    assert_accepted(&downloading(false, pinned, &[("a", "one"), ("b", "two")]).file());
    assert_accepted(&downloading(false, pinned, &[("b", "two")]).file());
    assert_accepted(&downloading(false, pinned, &[]).file());
    assert_accepted(&downloading(true, recorded, &[("x%2fy?z=@1", "any")]).file());

    assert_refused(&downloading(false, recorded, &[]).file(), Code::ChainInputUnaccounted);
    let report = downloading(false, pinned, &[("a", "two")]).file();
    assert_refused(&report, Code::ArtDigestMismatch);
    assert!(findings(&report).contains("https://registry.example.org/a"));
    assert_refused(
        &downloading(false, pinned, &[("c", "one")]).file(),
        Code::ChainInputUnaccounted,
    );
    for twice in [&[("a", "one"), ("a", "one")], &[("a", "one"), ("a", "two")]] {
        let report = downloading(true, recorded, twice).file();
        assert_refused(&report, Code::StmtSubjectDuplicate);
    }
    for outside in [
        &[("../evil", "any")],
        &[("%2e%2E/evil", "any")],
        &[("%252e%252e/evil", "any")],
        &[("..%2fevil", "any")],
        &[("a\\b", "any")],
        &[("a b", "any")],
        &[("a%0a", "any")],
        &[("a%", "any")],
        &[("a#b", "any")],
    ] {
        let report = downloading(true, recorded, outside).file();
        assert_refused(&report, Code::ChainInputUnaccounted);
    }
    let nobody = change().manifest("new/build/manifest", |manifest| {
        manifest.inputs.push(UsedInput {
            artifact: artifact("a.bin", "one"),
            origin: InputOrigin::Download(format!("{REGISTRY}a")),
        });
    });
    assert_refused(&nobody.build().file(), Code::ChainInputUnaccounted);
}

/// `dl-not-declared`, `dl-unpinned`: what a scheduler lets a command fetch.
#[test]
fn a_task_may_let_fetch_what_the_policy_allows_and_no_more() {
    let with = |edit: fn(&mut custody_core::statement::Task)| {
        let step = "[products.hello.steps.build]\n";
        change()
            .policy(|text| {
                let more = format!("{step}downloads = [\"{REGISTRY}\"]\nrecord-downloads = true\n");
                text.replacen(step, &more, 1)
            })
            .task("new/build/task", move |task| {
                task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned: None });
                edit(task);
            })
            .build()
            .file()
    };
    assert_accepted(&with(|_| ()));
    let report = with(|task| {
        task.downloads = Some(Downloads { from: vec![format!("{REGISTRY}below/")], pinned: None });
    });
    assert_accepted(&report);
    for edit in [
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://evil.example.org/"),
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://"),
        |task: &mut custody_core::statement::Task| elsewhere(task, "https://registry.example.org"),
        |task: &mut custody_core::statement::Task| {
            elsewhere(task, "https://registry.example.org/../");
        },
    ] {
        assert_refused(&with(edit), Code::ChainInputUnaccounted);
    }
    let report = with(|task| {
        let pin = Pinned {
            uri: "https://evil.example.org/a".into(),
            digests: Sha256::of(b"a").into(),
            size: 1,
        };
        task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned: Some(vec![pin]) });
    });
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report = with(|task| {
        let pin = Pinned { uri: format!("{REGISTRY}a"), digests: Sha256::of(b"a").into(), size: 1 };
        let pinned = Some(vec![pin.clone(), pin]);
        task.downloads = Some(Downloads { from: vec![REGISTRY.into()], pinned });
    });
    assert_refused(&report, Code::StmtSubjectDuplicate);
    assert_refused(&with(|task| task.network = true), Code::StmtParameterUnexpected);
    // without a word of the policy
    let report = change().task("new/build/task", |task| elsewhere(task, REGISTRY)).build().file();
    assert_refused(&report, Code::ChainInputUnaccounted);
}

fn elsewhere(task: &mut custody_core::statement::Task, uri: &str) {
    task.downloads = Some(Downloads { from: vec![uri.into()], pinned: None });
}

/// `art-missing`, `art-extra-unlisted`, `gate-output-unlinked`: what is published is what went in.
#[test]
fn a_publication_of_more_or_less_or_other_bytes_than_went_in_is_refused() {
    let publish = |edit: fn(&mut custody_core::statement::Manifest)| {
        change().manifest("new/publish/manifest", edit).build()
    };
    let report = publish(|manifest| manifest.artifacts.push(artifact("evil.dll", "evil"))).file();
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report =
        publish(|manifest| manifest.artifacts.retain(|artifact| artifact.name.as_str() != "hello"))
            .file();
    assert_refused(&report, Code::ArtMissing);
    let report = publish(|manifest| manifest.artifacts[0] = artifact("hello", "evil")).file();
    assert_refused(&report, Code::ChainInputUnaccounted);
    let report = change()
        .task("new/build/task", |task| task.outputs.push("dist/hello.exe".parse().unwrap()))
        .build()
        .file();
    assert_refused(&report, Code::ArtMissing);
    let report = change().task("new/build/task", |task| task.sha512 = true).build().file();
    assert_refused(&report, Code::StmtDigestMissing);
}

/// `chain-cross-release`: only what the request names crosses, and only where the policy says so.
#[test]
fn an_input_of_another_release_needs_request_and_policy() {
    let same = |text: String| {
        text.replace(
            "{ step = \"build\", release = \"other\" }",
            "{ step = \"sign\", release = \"other\" }",
        )
    };
    assert_refused(&change().policy(same).build().file(), Code::ChainReleaseMismatch);
    let unnamed =
        change().request("new/promote/request", |request| request.builds_on.clear()).build();
    assert_refused(&unnamed.file(), Code::ChainInputUnaccounted);
    let less =
        change().request("new/promote/request", |request| request.builds_on[0].artifacts -= 1);
    assert_refused(&less.build().file(), Code::SignoffContentMismatch);
    let larger = change().request("new/promote/request", |request| request.builds_on[0].bytes += 1);
    assert_refused(&larger.build().file(), Code::SignoffContentMismatch);
    let step = change()
        .request("new/promote/request", |request| request.builds_on[0].step = label("sign"))
        .build();
    assert_refused(&step.file(), Code::ChainStepMismatch);
}

/// `chain-step-skipped`: inputs come from the steps that the policy names.
#[test]
fn an_input_from_a_step_that_is_not_allowed_is_refused() {
    let only_partial = |text: String| {
        text.replace(
            "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\", release = \"same\" }]",
            "inputs = [{ step = \"partial\", release = \"same\" }]",
        )
    };
    assert_refused(&change().policy(only_partial).build().file(), Code::ChainStepMissing);
    let no_after = |text: String| text.replace("after = [\"promote\"]", "after = []");
    assert_refused(&change().policy(no_after).build().file(), Code::ChainReleaseMismatch);
}
