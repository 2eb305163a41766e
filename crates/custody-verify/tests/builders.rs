//! Independent builders: one of them lies, two of them are one, or one is missing.

use custody_world as world;

use custody_core::Code;
use custody_core::envelope::StatementId;
use custody_core::statement::{Artifact, Resolve};
use custody_verify::{Expectation, Question, Report, Subject, verify};
use world::{
    Builder, World, artifact, assert_accepted, assert_refused, at, change, findings, label,
};

const TASK: &str = "new/build/task";

/// The world's policy with two builders, of three who may build.
fn policy(text: &str) -> String {
    let mut machines = String::new();
    for name in ["builder-2", "builder-3"] {
        let key = world::Key::of(name).public.to_openssh();
        machines += &format!("[machines.{name}]\nkeys = [{{ key = \"{key}\" }}]\n");
    }
    text.replace("\n[roles.releng]", &format!("{machines}\n[roles.releng]"))
        .replace("perform = [\"builder\"]", "perform = [\"builder\", \"builder-2\", \"builder-3\"]")
        .replace("[products.hello.steps.build]\n", "[products.hello.steps.build]\nbuilders = 2\n")
}

fn two() -> Builder {
    change().policy(|text| policy(&text)).also("build", "builder-2")
}

/// The file of the build itself, of which the builders must agree.
fn built(world: &World) -> Report {
    let mut question = world.ask("hello", &world::content("new", "hello"));
    question.expect.step = Some(label("build"));
    verify(&question, &world.evidence(), &world.chain(), world.now)
}

/// The gate of a step that takes what was built, before it ran.
fn sign_gate(world: &World) -> Report {
    let mut world = world.clone();
    for name in ["new/sign/manifest", "new/publish/manifest"] {
        world.envelopes.remove(name);
    }
    world.gate("new/sign/task")
}

fn build_gate(world: &World, machine: Option<&str>) -> Report {
    let question = Question {
        subject: Subject::Task(world.id(TASK)),
        expect: Expectation { machine: machine.map(label), ..Expectation::default() },
    };
    verify(&question, &world.evidence(), &world.chain(), at(100_900))
}

/// Adds what another machine made of the build.
fn another(
    world: &mut World,
    name: &str,
    machine: &str,
    edit: fn(&mut Vec<Artifact>),
) -> StatementId {
    let mut manifest = world.get_manifest("new/build/manifest");
    manifest.builder = custody_core::statement::worker_uri(machine);
    manifest.invocation = name.into();
    edit(&mut manifest.artifacts);
    world.add(name, manifest, &[machine])
}

fn other_bytes(made: &mut [Artifact]) {
    made[0] = artifact("dist/hello", "hello with something in it");
}

#[test]
fn what_two_machines_made_alike_is_accepted_and_the_last_manifest_names_both() {
    let world = two().build();
    for report in [world.file(), built(&world)] {
        assert_accepted(&report);
        let met: Vec<String> =
            report.nodes().filter_map(|node| node.id).map(|id| world.name_of(id)).collect();
        for name in ["new/build/manifest", "new/build/manifest/builder-2"] {
            assert!(met.iter().any(|known| known == name), "{name} is not in {met:?}");
        }
    }
    let gate = sign_gate(&world);
    assert_accepted(&gate);
    let accepted = gate.accepted().unwrap();
    let (made, agrees) = (accepted.inputs()[0].manifest, accepted.agreeing().collect::<Vec<_>>());
    let both = [world.id("new/build/manifest"), world.id("new/build/manifest/builder-2")];
    assert!(both.contains(&made) && agrees.len() == 1 && agrees[0] != made);
    assert!(both.contains(&agrees[0]));
}

/// `chain-threshold-disagree`: the file is named, and who has which bytes.
#[test]
fn what_two_machines_made_differently_is_refused_and_the_files_are_named() {
    assert_accepted(&two().build().file());
    let world = two()
        .manifest("new/build/manifest/builder-2", |manifest| other_bytes(&mut manifest.artifacts))
        .build();
    for report in [world.file(), built(&world), sign_gate(&world)] {
        assert_refused(&report, Code::ChainThresholdDisagree);
        let text = findings(&report);
        for part in ["dist/hello: sha256 ", "by builder,", "by builder-2"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("dist/hello.mar:"), "that one is the same: {text}");
    }
    let world = two()
        .manifest("new/build/manifest/builder-2", |manifest| {
            manifest.artifacts.push(artifact("dist/more", "more"));
        })
        .build();
    let report = world.file();
    assert_refused(&report, Code::ChainThresholdDisagree);
    assert!(findings(&report).contains("dist/more: sha256"), "{}", findings(&report));
    assert!(findings(&report).contains("none by builder"), "{}", findings(&report));
}

/// What is never compared: log, times, environment.
#[test]
fn machines_agree_on_files_and_on_nothing_else() {
    let world = two()
        .manifest("new/build/manifest/builder-2", |manifest| {
            manifest.log = Some(artifact("log.txt", "another log"));
            manifest.environment = vec![("os".into(), "another".into())];
            manifest.started = at(100_350);
            manifest.finished = at(100_380);
        })
        .build();
    assert_accepted(&world.file());
}

#[test]
fn one_machine_alone_is_not_enough_and_the_refusal_says_who_is_missing() {
    let world = change().policy(|text| policy(&text)).build();
    for report in [world.file(), built(&world), sign_gate(&world)] {
        assert_refused(&report, Code::ChainThresholdDisagree);
        let text = findings(&report);
        assert!(text.contains("2 machines of builder, builder-2, builder-3"), "{text}");
        assert!(text.contains("only builder"), "{text}");
    }
    // the same machine again is no second one
    let mut twice = change().policy(|text| policy(&text)).build();
    another(&mut twice, "again", "builder", |_| {});
    assert_refused(&built(&twice), Code::ChainThresholdDisagree);
    another(&mut twice, "second", "builder-3", |_| {});
    assert_accepted(&built(&twice));
}

/// The manifest of a machine that may not build, or that does not hold by itself, is no second one.
#[test]
fn a_stranger_or_a_bad_manifest_does_not_make_up_the_number() {
    let strange = two().signed_by("new/build/manifest/builder-2", &["docs"]).build();
    assert_refused(&strange.file(), Code::ChainThresholdDisagree);
    let bad = two().manifest("new/build/manifest/builder-2", |m| m.command.push("--evil".into()));
    let report = bad.build();
    assert_refused(&built(&report), Code::ChainThresholdDisagree);
    let text = findings(&built(&report));
    assert!(text.contains("builder-2, whose manifest does not hold"), "{text}");
    // and a third one makes it good
    let mut mended = report;
    another(&mut mended, "third", "builder-3", |_| {});
    assert_accepted(&built(&mended));
    for step in ["partial", "sign", "publish"] {
        mended.drop(&format!("new/{step}/manifest"));
    }
    assert_accepted(&mended.gate("new/partial/task"));
}

/// Whoever takes the second manifest away, or names another one, is told.
#[test]
fn the_last_manifest_commits_to_those_that_agree() {
    let mut world = two().build();
    let second = world.id("new/build/manifest/builder-2");
    world.drop("new/build/manifest/builder-2");
    let report = world.file();
    assert_refused(&report, Code::ChainLinkMissing);
    assert!(findings(&report).contains(&second.to_string()));
    let unnamed = two().manifest("new/sign/manifest", |manifest| manifest.agreeing.clear()).build();
    assert_refused(&unnamed.file(), Code::ChainThresholdDisagree);
    let foreign = two().build().id("old/build/manifest/builder-2");
    let swapped =
        two().manifest("new/sign/manifest", move |manifest| manifest.agreeing = vec![foreign]);
    let report = swapped.build().file();
    assert_refused(&report, Code::ChainThresholdDisagree);
    let more = two().manifest("new/sign/manifest", move |manifest| manifest.agreeing.push(foreign));
    assert_refused(&more.build().file(), Code::ChainInputUnaccounted);
    let twice = two().manifest("new/sign/manifest", |manifest| {
        let id = manifest.agreeing[0];
        manifest.agreeing.push(id);
    });
    assert_refused(&twice.build().file(), Code::ChainInputUnaccounted);
    // where nobody asks for several builders, nothing agrees
    let idle = world::honest().id("new/partial/manifest");
    let idle = change().manifest("new/publish/manifest", move |manifest| {
        manifest.agreeing = vec![idle];
    });
    assert_refused(&idle.build().file(), Code::ChainInputUnaccounted);
}

/// A third result that differs is a finding until a person has looked at it.
#[test]
fn a_third_result_that_differs_spoils_it_until_a_person_decides() {
    let mut world = two().build();
    assert_accepted(&built(&world));
    let third = another(&mut world, "third", "builder-3", |made| other_bytes(made));
    for report in [built(&world), world.file(), sign_gate(&world)] {
        assert_refused(&report, Code::ChainThresholdDisagree);
        assert!(findings(&report).contains("by builder-3"), "{}", findings(&report));
    }
    let good = world.id("new/build/manifest");
    let said = world.resolution(TASK, Resolve::Supersede(good), "bob");
    world.add("resolution", said, &["bob"]);
    assert_accepted(&built(&world));
    assert_accepted(&world.file());
    assert_accepted(&sign_gate(&world));
    // what was set aside explains nothing
    let mut question = world.ask("hello", "hello with something in it");
    question.expect.step = Some(label("build"));
    let report = verify(&question, &world.evidence(), &world.chain(), world.now);
    assert_refused(&report, Code::ChainThresholdDisagree);
    assert!(findings(&report).contains(&third.to_string()));
    // nobody decides who may not, and a person's word does not make up the number
    let mut alone = change().policy(|text| policy(&text)).build();
    let one = alone.id("new/build/manifest");
    let said = alone.resolution(TASK, Resolve::Supersede(one), "bob");
    alone.add("resolution", said, &["bob"]);
    assert_refused(&built(&alone), Code::ChainThresholdDisagree);
}

#[test]
fn each_machine_does_its_part_once_and_nobody_more_than_is_asked_for() {
    let mut world = change().policy(|text| policy(&text)).build();
    assert_refused(&build_gate(&world, Some("builder")), Code::GateAlreadyExecuted);
    assert_accepted(&build_gate(&world, Some("builder-2")));
    assert!(build_gate(&world, Some("builder-2")).accepted().unwrap().is_shared());
    assert_accepted(&build_gate(&world, None));
    another(&mut world, "second", "builder-2", |made| other_bytes(made));
    assert_refused(&build_gate(&world, Some("builder-2")), Code::GateAlreadyExecuted);
    assert_accepted(&build_gate(&world, Some("builder-3")));
    // set aside by a person: that machine may try again
    let good = world.id("new/build/manifest");
    let said = world.resolution(TASK, Resolve::Supersede(good), "bob");
    world.add("resolution", said, &["bob"]);
    assert_accepted(&build_gate(&world, Some("builder-2")));
    another(&mut world, "second try", "builder-2", |_| {});
    for machine in [None, Some("builder"), Some("builder-2"), Some("builder-3")] {
        assert_refused(&build_gate(&world, machine), Code::GateAlreadyExecuted);
    }
    assert_accepted(&built(&world));
}

/// `wrk-two-builders-same-image`: who fears a bad image lets builders differ in it.
#[test]
fn machines_of_the_same_image_are_not_two_where_they_must_differ() {
    let asking = |image: &'static str| {
        change()
            .policy(|text| {
                policy(&text).replace(
                    "builders = 2\n",
                    "builders = 2\nbuilders-differ = [\"container.image-id\"]\n",
                )
            })
            .also("build", "builder-2")
            .manifest("new/build/manifest", |manifest| claim(manifest, "a"))
            .manifest("old/build/manifest", |manifest| claim(manifest, "a"))
            .manifest("new/build/manifest/builder-2", move |manifest| claim(manifest, image))
            .manifest("old/build/manifest/builder-2", |manifest| claim(manifest, "b"))
            .build()
    };
    assert_accepted(&asking("b").file());
    let report = asking("a").file();
    assert_refused(&report, Code::ChainThresholdDisagree);
    let text = findings(&report);
    assert!(text.contains("builder-2 is like builder: container.image-id a"), "{text}");
    assert!(text.contains("differ in container.image-id"), "{text}");
    // unknown is not different
    assert_refused(&asking("").file(), Code::ChainThresholdDisagree);
}

fn claim(manifest: &mut custody_core::statement::Manifest, image: &str) {
    if !image.is_empty() {
        manifest.environment.push(("container.image-id".into(), image.into()));
    }
}

#[test]
fn a_policy_that_asks_for_nonsense_is_refused_at_its_place() {
    let read = |from: &str, to: &str| {
        let text = policy(&world::policy_text());
        assert!(text.contains(from), "{from}");
        custody_verify::Policy::parse(&text.replacen(from, to, 1))
    };
    assert!(read("builders = 2", "builders = 3").is_ok());
    assert!(read("builders = 2", "builders = 1").is_ok());
    assert!(read("irrevocable = true", "irrevocable = true\nbuilders = 1").is_ok());
    for (from, to) in [
        ("builders = 2", "builders = 4"),
        ("builders = 2", "builders = 0"),
        ("builders = 2", "builders = -1"),
        ("builders = 2", "builders = 1\nbuilders-differ = [\"ec2.image-id\"]"),
        ("builders = 2", "builders = 2\nbuilders-differ = [\"AMI\"]"),
        ("builders = 2", "builders = 2\nbuilders-differ = [\"os\", \"os\"]"),
        ("irrevocable = true", "irrevocable = true\nbuilders = 2"),
    ] {
        let fault = read(from, to).unwrap_err();
        assert_eq!(fault.code, Code::PolicyInvalid, "{to}");
        assert!(fault.excerpt.starts_with("builders"), "{to}: {fault:?}");
    }
    let text = policy(&world::policy_text())
        .replace("perform = [\"publisher\"]", "perform = [\"publisher\", \"docs\"]");
    let fault = custody_verify::Policy::parse(
        &text.replace("irrevocable = true", "irrevocable = true\nbuilders = 2"),
    );
    let message = fault.unwrap_err().message;
    assert!(message.contains("cannot be taken back"), "{message}");
}
