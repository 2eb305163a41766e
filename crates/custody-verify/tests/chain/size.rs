//! Chains of many documents and files.

use custody_core::envelope::StatementId;
use custody_core::statement::{InputOrigin, Origin, UsedInput};
use custody_verify::verify;
use custody_world::{artifact, assert_accepted, change, label};

/// `res-deep-chain`, in a size that is allowed: time grows with the chain and no stack is used up.
#[test]
fn a_chain_of_twenty_thousand_manifests_in_a_line_ends() {
    let time = |count: u64| {
        let looping = |text: String| {
            text.replace(
                "inputs = [{ step = \"build\", release = \"same\" }, { step = \"partial\"",
                "inputs = [{ step = \"sign\", release = \"same\" }, { step = \"partial\"",
            )
        };
        let mut before: Option<(StatementId, custody_core::statement::Artifact)> = None;
        let mut world = change().policy(looping).build();
        let authorization = world.id("new/promote/authorization");
        let chain = world.chain();
        let mut evidence = world.evidence();
        for n in 0..count {
            let mut task = world.task_of("new", "sign", authorization, 100_300);
            task.nonce = custody_world::nonce(&n.to_string());
            if let Some((id, _)) = &before {
                task.inputs.push(custody_world::World::input(
                    Origin::Task(*id),
                    "signed",
                    "signed/*",
                ));
            }
            world.add("line/task", task, &["scheduler"]);
            let mut manifest = world.run(
                "line/task",
                "signer",
                100_400,
                vec![artifact("signed/x", &n.to_string())],
            );
            if let Some((_, last)) = &before {
                let id = world.id("line/manifest");
                manifest.upstream = vec![id];
                manifest.inputs =
                    vec![UsedInput { artifact: last.clone(), origin: InputOrigin::Manifest(id) }];
            }
            before = Some((world.id("line/task"), manifest.artifacts[0].clone()));
            world.add("line/manifest", manifest, &["signer"]);
            evidence.insert(world.envelopes["line/task"].clone());
            evidence.insert(world.envelopes["line/manifest"].clone());
        }
        let mut question = world.ask("x", &(count - 1).to_string());
        question.expect.step = Some(label("sign"));
        let begun = std::time::Instant::now();
        let report = verify(&question, &evidence, &chain, world.now);
        let took = begun.elapsed();
        assert_accepted(&report);
        assert!(report.nodes().count() as u64 > 2 * count);
        took
    };
    let (short, long) = (time(2_500), time(20_000));
    println!("2,500 manifests in a line: {short:?}; 20,000: {long:?}");
}

/// A release of many files is verified; it prints how long that takes.
#[test]
fn a_publication_of_many_files_is_verified() {
    let time = |count: usize| {
        let many = move |prefix: &'static str, file: &'static str| {
            move |manifest: &mut custody_core::statement::Manifest| {
                manifest.artifacts.extend(
                    (0..count).map(|n| artifact(&format!("{prefix}f{n}"), &format!("{file} {n}"))),
                );
            }
        };
        let world = change()
            .manifest("new/sign/manifest", many("signed/", "f"))
            .manifest("new/publish/manifest", many("", "f"))
            .build();
        let evidence = world.evidence();
        let begun = std::time::Instant::now();
        assert_accepted(&world.file_from(&evidence));
        let file = begun.elapsed();
        let unpublished = world.unpublished();
        let begun = std::time::Instant::now();
        assert_accepted(&unpublished.gate("new/publish/task"));
        (file, begun.elapsed())
    };
    let (few, many) = (time(1_500), time(12_000));
    println!("1,500 files: {few:?}; 12,000: {many:?}");
}
