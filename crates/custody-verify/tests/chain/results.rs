//! Several results of one task, and what others add.

use custody_core::Code;
use custody_core::envelope::Envelope;
use custody_core::statement::{Manifest, Origin, Resolve, Statement};
use custody_verify::report::Rule;
use custody_verify::verify;
use custody_world::{
    World, artifact, assert_accepted, assert_refused, change, content, findings, honest, label,
    signed,
};

/// `chain-fork-one-task`, `chain-task-reused`, and issue 2: two manifests for one task.
#[test]
fn two_manifests_for_one_task_are_refused_until_a_person_decides() {
    for step in ["build", "sign", "publish"] {
        let mut world = honest();
        assert_accepted(&world.file());
        let machine = if step == "build" {
            "builder"
        } else if step == "sign" {
            "signer"
        } else {
            "publisher"
        };
        let mut other = world.get_manifest(&format!("new/{step}/manifest"));
        other.invocation = "a second run".into();
        let id = world.add("fork", other, &[machine]);
        let first = world.id(&format!("new/{step}/manifest"));
        let report = world.file();
        assert_refused(&report, Code::ChainForked);
        assert!(
            findings(&report).contains(&id.to_string())
                && findings(&report).contains(&first.to_string())
        );

        let task = format!("new/{step}/task");
        let mut resolved = world.clone();
        let word = resolved.resolution(&task, Resolve::Supersede(first), "carol");
        resolved.add("resolution", word.clone(), &["carol"]);
        assert_accepted(&resolved.file());
        resolved.drop("resolution");
        let mut forged = resolved.clone();
        forged.add("resolution", word, &["bob"]);
        assert_refused(&forged.file(), Code::ChainForked);
        let for_the_other = resolved.resolution(&task, Resolve::Supersede(id), "carol");
        resolved.add("other", for_the_other, &["carol"]);
        if step == "publish" {
            // then the file comes from the other publication
            assert_accepted(&resolved.file());
        } else {
            assert_refused(&resolved.file(), Code::ChainForked);
        }
    }
}

/// `chain-two-nodes-one-role`: the arms of a diamond reach two results of one job, which was planned
/// twice.
#[test]
fn two_results_of_one_job_in_one_chain_are_refused() {
    let with_second_build = |edit: fn(&mut custody_core::statement::Task), file: &'static str| {
        // the scheduler plans the build again, and signing takes the second result, packing the first
        let mut world = honest();
        let mut task = world.get_task("new/build/task");
        task.nonce = custody_world::nonce("again");
        edit(&mut task);
        world.add("again/build/task", task, &["scheduler"]);
        let made = vec![
            artifact("dist/hello", &content("new", file)),
            artifact("dist/hello.mar", &content("new", "hello.mar")),
        ];
        let manifest = world.run("again/build/task", "builder", 100_310, made);
        let second = world.add("again/build/manifest", manifest, &["builder"]);
        let (task, first) = (world.id("again/build/task"), world.id("new/build/task"));
        let mut sign = world.get_task("new/sign/task");
        sign.inputs
            .iter_mut()
            .filter(|input| input.origin == Origin::Task(first))
            .for_each(|input| input.origin = Origin::Task(task));
        world.add("new/sign/task", sign, &["scheduler"]);
        let manifest = world.get_manifest("new/sign/manifest");
        let manifest = world.run("new/sign/task", "signer", 100_500, manifest.artifacts);
        assert!(manifest.upstream.contains(&second));
        world.add("new/sign/manifest", manifest, &["signer"]);
        let mut question = world.ask("hello.partial", &content("new", "partial, signed"));
        question.expect.step = Some(label("sign"));
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    let same = |_: &mut custody_core::statement::Task| ();
    let other = |task: &mut custody_core::statement::Task| {
        task.variables.push(("TARGET".into(), "b".into()));
    };
    let report = with_second_build(same, "another hello");
    assert_refused(&report, Code::ChainForked);
    assert!(report.findings().all(|(_, rule, _)| rule == Rule::ManifestSingle));
    // the same result twice is one; another job may have another
    assert_accepted(&with_second_build(same, "hello"));
    assert_accepted(&with_second_build(other, "another hello"));
}

/// `chain-cycle`: through a decision, what was decided could be what led to it.
#[test]
fn a_decision_that_rests_on_what_it_decided_is_refused() {
    let takes = |text: String| {
        let (head, steps) = text.split_once("[products.hello.steps.decide]").unwrap();
        let inputs = "inputs = [{ step = \"extra\", release = \"same\" }]";
        format!("{head}[products.hello.steps.decide]{}", steps.replacen("inputs = []", inputs, 1))
    };
    let mut world = change().policy(takes).build();
    assert_accepted(&world.extra_file());
    let extra = world.id("new/extra/task");
    let mut task = world.get_task("new/decide/task");
    task.inputs.push(World::input(Origin::Task(extra), "extra", "*"));
    world.add("new/decide/task", task, &["scheduler"]);
    let decided = world.get_manifest("new/decide/manifest").artifacts;
    let manifest = world.run("new/decide/task", "decider", 100_460, decided);
    assert_eq!(manifest.upstream, [world.id("new/extra/manifest")]);
    world.add("new/decide/manifest", manifest, &["decider"]);
    assert_refused(&world.extra_file(), Code::ChainCycle);
}

/// `chain-extra-nodes`: a second manifest by somebody who may not perform the step is no result.
#[test]
fn what_others_add_takes_nothing_away() {
    let mut world = honest();
    for n in 0..50 {
        let mut other = world.get_manifest("new/publish/manifest");
        other.invocation = format!("run {n}");
        world.add(&format!("extra {n}"), other, &["docs"]);
        let mut decision = world.get_manifest("new/decide/manifest");
        decision.invocation = format!("run {n}");
        world.add(&format!("decision {n}"), decision, &["docs"]);
        let mut old = world.get_manifest("new/sign/manifest");
        old.invocation = format!("run {n}");
        world.add(&format!("sign {n}"), old, &["docs"]);
        let doubtful = world.resolution(
            "new/sign/task",
            Resolve::Supersede(world.id(&format!("sign {n}"))),
            "carol",
        );
        world.add(&format!("resolution {n}"), doubtful, &["docs"]);
    }
    let unsigned = Envelope::unsigned::<Statement>(b"not even JSON");
    world.envelopes.insert("unsigned".into(), unsigned.clone());
    world.envelopes.insert("damaged".into(), {
        let mut damaged = unsigned;
        damaged.add_signature(world.envelopes["new/sign/manifest"].signatures()[0].clone());
        damaged
    });
    assert_accepted(&world.file());
    assert_accepted(&world.extra_file());
    world.drop("new/publish/manifest");
    world.envelopes.retain(|name, _| !name.starts_with("extra "));
    assert_accepted(&world.gate("new/publish/task"));
}

/// Adds manifests like this one, signed by `by`, of which 40 come before it in order of their ids: more
/// than are tried.
fn flood(world: &mut World, like: &str, by: &str, edit: impl Fn(&mut Manifest)) {
    let first = world.id(like);
    let before = (0..).filter(|n| {
        let name = format!("flood {n}");
        let mut other = world.get_manifest(like);
        other.invocation.clone_from(&name);
        edit(&mut other);
        let is_before = world.add(&name, other, &[by]) < first;
        if !is_before {
            world.drop(&name);
        }
        is_before
    });
    assert_eq!(before.take(40).count(), 40);
}

/// `chain-extra-nodes`: there may be any number of them.
#[test]
fn a_flood_does_not_hide_the_result() {
    // by somebody who may not perform the step
    let mut world = honest();
    flood(&mut world, "new/publish/manifest", "docs", |_| ());
    assert_accepted(&world.file());
    // by a key that could, and was revoked
    let built = |world: &World| {
        let mut question = world.ask("hello", &content("new", "hello"));
        question.expect.step = Some(label("build"));
        verify(&question, &world.evidence(), &world.chain(), world.now)
    };
    let docs = custody_world::Key::of("docs").public.to_openssh();
    let mut world = change()
        .policy(|text| text.replace("perform = [\"builder\"]", "perform = [\"builder\", \"docs\"]"))
        .build();
    flood(&mut world, "new/build/manifest", "docs", |_| ());
    assert_refused(&built(&world), Code::ChainForked);
    world.rotate(move |text| {
        text.replace(&format!("key = \"{docs}\""), &format!("key = \"{docs}\", revoked = true"))
    });
    assert_accepted(&built(&world));
    // by a machine that performs another step than the one that was asked for
    let mut world = honest();
    let extra = world.get_manifest("new/extra/manifest");
    flood(&mut world, "new/build/manifest", "docs", |other| {
        let artifacts = std::mem::take(&mut other.artifacts);
        *other = Manifest { artifacts, invocation: other.invocation.clone(), ..extra.clone() };
    });
    assert_accepted(&built(&world));
}

/// `chain-fork-one-task` by a thief: what a revoked key signed is no result either.
#[test]
fn a_revoked_key_neither_forks_nor_spoils_what_others_sign() {
    let two_builders =
        |text: String| text.replace("perform = [\"builder\"]", "perform = [\"builder\", \"docs\"]");
    let mut world = change().policy(two_builders).build();
    let mut other = world.get_manifest("new/build/manifest");
    other.invocation = "the thief's run".into();
    world.add("fork", other, &["docs"]);
    let stolen = world.envelopes["new/sign/manifest"].clone();
    world.envelopes.insert("new/sign/manifest".into(), signed(stolen, &["docs"]));
    assert_refused(&world.file(), Code::ChainForked);
    let docs = custody_world::Key::of("docs").public.to_openssh();
    world.rotate(move |text| {
        text.replace(&format!("key = \"{docs}\""), &format!("key = \"{docs}\", revoked = true"))
    });
    assert_accepted(&world.file());
}
