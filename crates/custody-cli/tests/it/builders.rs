//! Two workers do one build, each for itself, and what is not the same twice goes nowhere.

use std::fs;

use crate::world::{Said, World};

/// The build makes what it is told by a file that a worker may or may not have.
const BUILD: &str = "
[steps.build]
phase = \"promote\"
command = [\"sh\", \"-c\", '''mkdir dist; echo same > dist/same; if test -e {param.room}/odd; then echo odd > dist/hello; else echo hello > dist/hello; fi''']
source = true
outputs = [\"dist/*\"]
";

fn world() -> World {
    let world = World::with_keys();
    let machine = |name: &str, key: &str| {
        format!("[machines.{name}]\nkeys = [{{ key = \"{}\" }}]\n", world.public(key))
    };
    let others = machine("second", "mallory") + &machine("third", "mallory-2");
    let text = world
        .policy_text()
        .replacen(
            "perform = [\"builder\"]",
            "builders = 2\nperform = [\"builder\", \"second\", \"third\"]",
            1,
        )
        .replace("[roles.releng]", &format!("{others}\n[roles.releng]"));
    world.found(&text);
    world
}

fn run(world: &World, task: &str, key: &str) -> Said {
    world.custody(&format!("run {task} --repository source {}", world.machines(&[key])))
}

/// `chain-threshold-disagree`: the file is named with who has which bytes; then a person decides, the
/// machine that was wrong tries again, and the release is verified with both manifests.
#[test]
fn a_build_that_is_not_the_same_twice_is_refused_until_it_is() {
    let world = world();
    world.pipeline(&[BUILD, crate::world::PACK, crate::world::PUBLISH]);
    let authorization = world.authorized("promote");
    let tasks = world.plan(&authorization);
    let (build, pack) = (&tasks["build"], &tasks["pack"]);
    let first = run(&world, build, "builder").done().text("manifest");
    // its part is done, and it alone is not enough
    run(&world, build, "builder").refused("GATE_ALREADY_EXECUTED");
    let alone = run(&world, pack, "packer").refused("CHAIN_THRESHOLD_DISAGREE");
    for part in ["2 machines of builder, second, third", "only builder"] {
        assert!(alone.out.contains(part), "{part}: {alone:#?}");
    }
    let all = world.run_all(&authorization).refused("CHAIN_THRESHOLD_DISAGREE");
    assert!(all.out.contains("only builder"), "{all:#?}");
    // another machine makes another file
    world.write("room/odd", "");
    let second = run(&world, build, "mallory").done().text("manifest");
    let differs = run(&world, pack, "packer").refused("CHAIN_THRESHOLD_DISAGREE");
    let choose = format!("custody release resolve {build} --supersede MANIFEST ");
    let who = [format!("{first} by builder"), format!("{second} by second")];
    for part in ["dist/hello: sha256 ", " by builder", " by second", &choose, &who[0], &who[1]] {
        assert!(differs.out.contains(part), "{part}: {differs:#?}");
    }
    assert!(!differs.out.contains("dist/same:"), "{differs:#?}");
    run(&world, build, "mallory").refused("GATE_ALREADY_EXECUTED");
    // a person decides, and the machine that was wrong is told what became of its work
    world.done(&format!(
        "release resolve {build} --store store --supersede {first} --as carol --reason x --key keys/carol"
    ));
    let told = |wrong: &str| {
        let told = run(&world, pack, "packer").refused("CHAIN_THRESHOLD_DISAGREE");
        let advice =
            format!("run it with the key of another machine (second, third): custody run {build}");
        let aside = format!(
            "second made other files in manifest {wrong} than the chosen one: dist/hello: "
        );
        for part in [&advice, &aside, "only builder"] {
            assert!(told.out.contains(part), "{part}: {told:#?}");
        }
    };
    told(&second);
    // and so again, for as long as it is not mended
    let again = run(&world, build, "mallory").done().text("manifest");
    told(&again);
    // mended
    fs::remove_file(world.path("room/odd")).unwrap();
    let again = run(&world, build, "mallory").done().text("manifest");
    assert!(again != first && again != second);
    run(&world, build, "mallory-2").refused("GATE_ALREADY_EXECUTED");
    world.run_all(&authorization).done();
    let publish = world.plan(&world.authorized("ship"))["publish"].clone();
    world.publish(&publish).done();
    let verified = world.done(&format!("verify www/hello --pin {}", world.pin()));
    let json = verified.json();
    let ids: Vec<&str> =
        json["nodes"].as_array().unwrap().iter().filter_map(|node| node["id"].as_str()).collect();
    assert!(ids.contains(&first.as_str()) && ids.contains(&again.as_str()), "{ids:?}");
    assert!(!ids.contains(&second.as_str()), "{ids:?}");
}

/// One computer that stands for two machines does both parts.
#[test]
fn all_tasks_are_run_as_every_machine_at_hand() {
    let world = world();
    world.pipeline(&[BUILD]);
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    let line = |keys: &[&str]| {
        format!("run --all {authorization} --repository source {}", world.machines(keys))
    };
    let alone = world.custody(&line(&["builder"])).refused("CHAIN_THRESHOLD_DISAGREE");
    assert!(alone.out.contains("only builder"), "{alone:#?}");
    world.done(&line(&["builder", "mallory", "mallory-2"]));
    assert_eq!(world.list("manifest").len(), 2, "the third has nothing to do");
    world.done(&line(&["builder", "mallory"]));
}
