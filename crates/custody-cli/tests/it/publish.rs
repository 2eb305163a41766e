//! What cannot be taken back: all of it or nothing, once, never over something else, and known to be
//! in doubt when nobody can say whether it happened.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;

use crate::world::{BUILD, CUSTODY, PUBLISH, Said, World, skipped};

/// The publishing task with another destination.
fn shipping_to(world: &World, destination: &str) -> String {
    let line = format!(
        "release propose --store store --product hello --version 1.0 --channel release --phase ship \
         --repository source --key keys/alice --param destination={destination}"
    );
    let authorization = world.authorize(&world.done(&line).id());
    world.plan(&authorization)["publish"].clone()
}

fn resolve(world: &World, task: &str, person: &str) -> Said {
    world.custody(&format!(
        "release resolve {task} --store store --resume --as {person} --reason looked --key keys/{person}"
    ))
}

/// What is published, without what Custody puts beside it.
fn files(world: &World) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = world.files("www");
    files.retain(|name, _| !name.to_string_lossy().starts_with("publish-"));
    files
}

/// A world whose files were published there, and the task.
fn shipped() -> (World, String) {
    let world = World::promoted();
    let task = world.shipping();
    world.publish(&task).done();
    (world, task)
}

/// `gate-destination`.
#[test]
fn only_where_the_policy_says() {
    let world = World::promoted();
    let elsewhere = tempfile::tempdir().unwrap();
    for destination in [
        format!("file://{}", elsewhere.path().display()),
        format!("{}/../../../../..{}", world.destination(), elsewhere.path().display()),
        "s3://somebody-elses-bucket".to_owned(),
        world.path("www").display().to_string(),
    ] {
        let task = shipping_to(&world, &destination);
        world.refused(&world.publish_line(&task), "GATE_DESTINATION_FORBIDDEN");
    }
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    // a directory that is not there: the disk is not mounted
    let missing = shipping_to(&world, &format!("{}/missing", world.destination()));
    world.refused(&world.publish_line(&missing), "GATE_UNAVAILABLE");
    let control = shipping_to(&world, &world.destination());
    world.publish(&control).done();
    assert_eq!(files(&world).len(), 4);
}

/// `gate-destination-exists`.
#[test]
fn nothing_is_ever_overwritten() {
    let world = World::promoted();
    let task = world.shipping();
    world.write("www/second.txt", "somebody else's");
    world.refused(&world.publish_line(&task), "GATE_DESTINATION_CONFLICT");
    assert_eq!(files(&world).len(), 1);
    // a link that leads out of the directory
    fs::remove_file(world.path("www/second.txt")).unwrap();
    world.write("victim", "precious");
    symlink(world.path("victim"), world.path("www/second.txt")).unwrap();
    let said = world.publish(&task);
    assert_ne!(said.status, Some(0), "{said:#?}");
    assert_eq!(world.read("victim"), "precious");
    assert_eq!(files(&world).len(), 1, "{said:#?}");
    fs::remove_file(world.path("www/second.txt")).unwrap();
    // the same content may be there
    world.write("www/second.txt", "second\n");
    world.publish(&task).done();
    assert_eq!(files(&world).len(), 4);
}

/// One file of several is bad: none is published.
/// Row `gate-partial`.
#[test]
fn all_or_nothing() {
    let world = World::promoted();
    let task = world.shipping();
    let hello = world
        .files("store/artifacts")
        .into_iter()
        .find(|(_, bytes)| bytes == b"hello, world\n")
        .unwrap()
        .0;
    let path = world.path("store/artifacts").join(hello);
    for damage in [Some(b"hello, World\n".as_slice()), Some(b"hello, world\n\n".as_slice()), None] {
        fs::remove_file(&path).unwrap();
        if let Some(bytes) = damage {
            fs::write(&path, bytes).unwrap();
        }
        world.refused(&world.publish_line(&task), "GATE_INPUT_CHANGED");
        assert_eq!(files(&world).len(), 0);
        fs::write(&path, b"hello, world\n").unwrap();
    }
    world.publish(&task).done();
    assert_eq!(files(&world).len(), 4);
}

/// Killed after the first file appeared: nobody knows how far it came, and only a person says go on.
/// Row `gate-crash-between`.
#[test]
fn in_doubt_after_a_crash() {
    let world = World::promoted();
    // a file that takes its time
    let large = "mkdir dist && echo first > dist/a && head -c 3000000 /dev/zero > dist/large";
    let steps = BUILD.replace("mkdir dist && cp source/hello.txt dist/ && echo second > dist/second.txt && : > dist/empty", large);
    let publish = PUBLISH.split("[[steps.publish.inputs]]\nearlier = \"pack\"").next().unwrap();
    world.pipeline(&[&steps, publish]);
    let task = {
        let line = "release propose --store store --product hello --version 2.0 --channel release --repository source --key keys/alice";
        let destination = world.destination();
        let request =
            world.done(&format!("{line} --phase promote --param destination={destination}")).id();
        world
            .run_all(&{
                let authorization = world.authorize(&request);
                world.plan(&authorization);
                authorization
            })
            .done();
        let request =
            world.done(&format!("{line} --phase ship --param destination={destination}")).id();
        world.plan(&world.authorize(&request))["publish"].clone()
    };
    // the system kills who writes files of more than a mebibyte: in the middle of the large one
    let line = format!("ulimit -f 2048; exec {CUSTODY} {}", world.publish_line(&task));
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &line]).current_dir(world.path(".")).env("HOME", world.path("home"));
    let ended = command.output().unwrap();
    assert_eq!(ended.status.signal(), Some(rustix::process::Signal::XFSZ.as_raw()), "{ended:?}");
    assert_eq!(world.list("manifest").len(), 3, "nothing says that it is published");
    assert!(files(&world).keys().all(|name| name.to_string_lossy() != "large"), "killed too late");

    let said = world.refused(&world.publish_line(&task), "GATE_ALREADY_EXECUTED");
    assert!(said.out.contains("doubt"), "{said:#?}");
    let intent = world
        .list("intent")
        .into_iter()
        .find(|id| said.out.contains(&format!("resolve {task} --resume --intent {id} ")));
    assert!(intent.is_some(), "{said:#?}");
    // bob may sign off, and may not resolve
    resolve(&world, &task, "bob");
    world.refused(&world.publish_line(&task), "GATE_ALREADY_EXECUTED");
    // carol's word with another's key is refused where it is made
    world
        .custody(&format!(
            "release resolve {task} --store store --resume --as carol --reason x --key keys/bob"
        ))
        .refused("POLICY_KEY_PURPOSE");
    world.refused(&world.publish_line(&task), "GATE_ALREADY_EXECUTED");
    resolve(&world, &task, "carol").done();
    world.publish(&task).done();
    assert_eq!(files(&world).len(), 2);
    assert_eq!(world.list("manifest").len(), 4);
    world.done(&format!("verify www/a --pin {}", world.pin()));
    // her word held for that one doubt
    let before = world.snapshot();
    world.publish(&task).done();
    assert_eq!(before, world.snapshot());
}

/// A resolution lets one attempt go on, not all attempts for ever.
/// Row `gate-crash-between`.
#[test]
fn in_doubt_again_after_a_second_failure() {
    let world = World::promoted();
    let task = world.shipping();
    // nothing can be written, which is found out only after the act was announced
    let make_unwritable =
        |mode| fs::set_permissions(world.path("www"), fs::Permissions::from_mode(mode)).unwrap();
    let immutable = |flag: &str| {
        std::process::Command::new("chattr")
            .arg(flag)
            .arg(world.path("www"))
            .status()
            .is_ok_and(|status| status.success())
    };
    make_unwritable(0o555);
    if rustix::process::geteuid().is_root() && !immutable("+i") {
        make_unwritable(0o755);
        return skipped(
            "in_doubt_again_after_a_second_failure",
            "root writes everywhere, and chattr +i does not work here",
        );
    }
    let failed = world.publish(&task).refused("GATE_UNAVAILABLE");
    assert_eq!(world.list("intent").len(), 1, "{failed:#?}");
    world.refused(&world.publish_line(&task), "GATE_ALREADY_EXECUTED");
    resolve(&world, &task, "carol").done();
    world.publish(&task).refused("GATE_UNAVAILABLE");
    immutable("-i");
    make_unwritable(0o755);
    world.refused(&world.publish_line(&task), "GATE_ALREADY_EXECUTED");
    resolve(&world, &task, "carol").done();
    world.publish(&task).done();
    assert_eq!(files(&world).len(), 4);
}

#[test]
fn publishing_again_only_completes_what_lies_beside() {
    let (world, task) = shipped();
    let manifest = world.list("manifest");
    let before = (world.snapshot(), world.files("www"));
    let again = world.publish(&task).done().text("manifest");
    assert!(manifest.contains(&again));
    assert_eq!(before, (world.snapshot(), world.files("www")));
    for name in
        world.files("www").keys().filter(|name| name.to_string_lossy().starts_with("publish-"))
    {
        fs::remove_file(world.path("www").join(name)).unwrap();
    }
    assert_eq!(world.files("www").len(), 4);
    world.publish(&task).done();
    assert_eq!(before, (world.snapshot(), world.files("www")));
    // what is not Custody's is not replaced, whatever it says
    let bundle = world.bundle();
    fs::write(&bundle, "{}\n").unwrap();
    world.publish(&task).refused("GATE_DESTINATION_CONFLICT");
    assert_eq!(fs::read_to_string(&bundle).unwrap(), "{}\n");
}

/// After the policy went on, a new bundle would have more in it than the one that is there, which is
/// not replaced all the same.
#[test]
fn publishing_again_under_a_newer_policy() {
    let (world, task) = shipped();
    let text = world.policy_text();
    let next = format!("version = 2\nprevious = \"{}\"", world.pin());
    world.sign_policy("policy-2", &text.replace("version = 1", &next), &["bob", "carol"]);
    world.done("policy rotate policy-2.dsse.json --store store");
    world.refused(&world.publish_line(&task), "GATE_DESTINATION_CONFLICT");
    fs::remove_file(world.bundle()).unwrap();
    world.publish(&task).done();
    world.done(&format!("verify www/all.bin --pin {}", world.pin()));
}

/// Nothing is published by a machine whose word nobody would take afterwards.
#[test]
fn a_machine_that_the_policy_does_not_want_publishes_nothing() {
    for (os, code) in [("none", Some("WORKER_IDENTITY_MISMATCH")), (&*os(), None)] {
        let world = World::with_keys();
        let head = "[products.hello.steps.publish]\n";
        let demand = format!(
            "{head}machine = [{{ fact = \"os\", is = [\"{os}\"], standing = \"claimed\" }}]\n"
        );
        world.found(&world.policy_text().replace(head, &demand));
        let authorization = world.authorized("promote");
        world.plan(&authorization);
        world.run_all(&authorization).done();
        let line = world.publish_line(&world.shipping());
        match code {
            Some(code) => {
                world.refused(&line, code);
                assert!(world.list("intent").is_empty());
            }
            None => drop(world.done(&line)),
        }
    }
}

/// What workers measure as the system here.
fn os() -> String {
    let world = World::promoted();
    let manifest = world.content(&world.list("manifest")[0]);
    let facts = &manifest.as_manifest().unwrap().environment;
    facts.iter().find(|(name, _)| name == "os").unwrap().1.clone()
}

/// One authorization is planned once. Planned again on purpose, the second task finds everything there.
#[test]
fn planned_twice_nothing_is_published_that_was_not() {
    let world = World::promoted();
    let authorization = world.authorized("ship");
    let first = world.plan(&authorization)["publish"].clone();
    let line = format!(
        "plan {authorization} --store store --repository source --creator tests/it --key keys/scheduler"
    );
    world.refused(&line, "CHAIN_REPLAYED");
    let again = world.done(&format!("{line} --again")).json();
    let second = again[0]["id"].as_str().unwrap().to_owned();
    world.publish(&first).done();
    let before = files(&world);
    world.publish(&second).done();
    assert_eq!(before, files(&world));
    world.custody(&format!("verify www --pin {}", world.pin())).ended(0);
}

/// The real server of `tests/servers/s3`.
#[test]
fn into_a_bucket() {
    let var = |name: &str| std::env::var(name).ok();
    let (Some(endpoint), Some(bucket)) = (var("CUSTODY_TEST_S3"), var("CUSTODY_TEST_S3_BUCKET"))
    else {
        return skipped("into_a_bucket", "no CUSTODY_TEST_S3, see tests/servers/s3");
    };
    let world = World::promoted();
    let place = world.path("x");
    let unique = place.parent().unwrap().file_name().unwrap().to_string_lossy();
    let destination = format!("s3://{bucket}/{unique}");
    let task = shipping_to(&world, &destination);
    let publish = |task: &str, secret: &str| {
        let mut command = world.command(&format!("--json {}", world.publish_line(task)));
        command.env("AWS_ENDPOINT_URL", &endpoint).env("AWS_REGION", "us-east-1");
        command
            .env("AWS_ACCESS_KEY_ID", var("AWS_ACCESS_KEY_ID").unwrap())
            .env("AWS_SECRET_ACCESS_KEY", secret);
        world.say(command)
    };
    publish(&task, "wrong").refused("GATE_UNAVAILABLE");
    assert_eq!(world.list("intent").len(), 0, "nothing was begun");
    assert_eq!(
        publish(&task, &var("AWS_SECRET_ACCESS_KEY").unwrap()).done().text("destination"),
        destination
    );
    // as the server has them on its disk
    let data = PathBuf::from(var("CUSTODY_TEST_S3_DIR").unwrap())
        .join("data")
        .join(&bucket)
        .join(&*unique);
    let elsewhere = World::empty();
    for entry in fs::read_dir(data).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, elsewhere.path(path.file_name().unwrap().to_str().unwrap())).unwrap();
    }
    assert_eq!(elsewhere.read("all.bin"), "hello, world\nsecond\n");
    let verified = elsewhere.done(&format!("verify all.bin --pin {}", world.pin()));
    assert_eq!(verified.json()["ok"], true);
}
