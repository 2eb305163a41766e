//! A step that downloads, from the policy to the verdict: recorded first, then pinned.

use std::fs;

use crate::upstream::{Upstream, page, redirect};
use crate::world::{PUBLISH, World, is_root, skipped};

/// What the command of the step does: it fetches, and tries the other ways out.
const FETCH: &str = r#"
import os, socket, sys, urllib.request
base, host = sys.argv[1], sys.argv[2]
os.mkdir("dist")
for name in sys.argv[3:]:
    body = urllib.request.urlopen(base + name).read()
    open("dist/" + name.replace("/", "-"), "wb").write(body)
name, port = host.split(":")
for other in [("127.0.0.1", int(port)), ("192.0.2.1", 443)]:
    try:
        socket.create_connection(other, timeout=5)
    except OSError:
        continue
    sys.exit("there is a way out")
try:
    urllib.request.urlopen(base + "a.bin", data=b"secret")
    sys.exit("something went out")
except urllib.error.HTTPError as error:
    assert error.code == 403, error
"#;

struct Downloading {
    world: World,
    server: Upstream,
}

impl Downloading {
    /// A world whose policy lets the build download, if tests run as root.
    fn new(test: &str, record: bool) -> Option<Self> {
        if !is_root() {
            skipped(test, "only root makes networks");
            return None;
        }
        let (world, server) = (World::with_keys(), Upstream::start());
        server.put("files/a.bin", page(b"some bytes"));
        server.put("files/moved", redirect("a.bin"));
        server.write_authority(&world.path("upstream.pem"));
        let step = "[products.hello.steps.build]\n";
        let record = if record { "record-downloads = true\n" } else { "" };
        let allowed = format!("{step}downloads = [\"{}\"]\n{record}", server.uri("files/"));
        world.found(&world.policy_text().replace(step, &allowed));
        world.write("source/fetch.py", FETCH);
        Some(Self { world, server })
    }

    /// The task of a build with these downloads.
    fn task(&self, downloads: &str, names: &str) -> String {
        let (files, host) = (self.server.uri("files/"), self.server.host());
        let step = format!(
            "[steps.build]\nphase = \"promote\"\nsource = true\noutputs = [\"dist/*\"]\n\
             command = [\"sh\", \"-c\", \"python3 source/fetch.py {files} {host} {names}\"]\n\
             [steps.build.downloads]\nfrom = [\"{files}\"]\n{downloads}\n"
        );
        self.world.pipeline(&[
            &step,
            PUBLISH.split("[[steps.publish.inputs]]\nearlier = \"pack\"").next().unwrap(),
        ]);
        self.world.plan(&self.world.authorized("promote"))["build"].clone()
    }

    fn line(&self, task: &str) -> String {
        format!("{} --download-ca upstream.pem", self.world.run_line(task))
    }

    fn run(&self, task: &str) -> String {
        self.world.done(&self.line(task)).text("manifest")
    }
}

/// The whole of it: a first run records, its manifest becomes pins, and a build with these pins needs no
/// server.
#[test]
fn a_recorded_run_becomes_pins_and_a_pinned_run_needs_no_server() {
    let Some(it) = Downloading::new("downloads", true) else { return };
    let world = &it.world;
    let manifest = it.run(&it.task("record = true", "a.bin moved"));
    assert_eq!(it.server.asked().len(), 3, "two files, one of them moved");
    let pins = world.typed(&format!("show {manifest} --store store --pins")).done().out;
    for part in [
        "downloads = \"https://custody.dev/downloads/v1\"\n",
        &format!("uri = \"{}\"\n", it.server.uri("files/a.bin")),
        &format!("uri = \"{}\"\n", it.server.uri("files/moved")),
        "size = 10\n",
    ] {
        assert!(pins.contains(part), "{part} in {pins}");
    }
    let log = world.typed(&format!("show {manifest} --store store")).done().out;
    assert!(log.contains("\"network\": \"downloads\""), "{log}");
    assert!(log.contains("\"role\": \"download\""), "{log}");

    world.write("source/downloads.toml", &pins);
    it.server.put("files/a.bin", page(b"newer text"));
    let manifest = it.run(&it.task("lock = \"downloads.toml\"", "a.bin moved"));
    assert_eq!(it.server.asked().len(), 3);
    let again = world.typed(&format!("show {manifest} --store store --pins")).done().out;
    assert_eq!(again, pins);
}

/// `dl-pinned-changed` in the whole: another worker, which does not have the bytes yet. What
/// was pinned and is as pinned is published and verified.
#[test]
fn other_bytes_than_pinned_leave_no_manifest() {
    let Some(it) = Downloading::new("other bytes", false) else { return };
    let digest = custody_core::digest::Sha256::of(b"some bytes");
    let pin = format!(
        "[[steps.build.downloads.pinned]]\nuri = \"{}\"\nsha256 = \"{digest}\"\nsize = 10",
        it.server.uri("files/a.bin")
    );
    let task = it.task(&pin, "a.bin");
    it.server.put("files/a.bin", page(b"evil bytes"));
    let said = it.world.custody(&it.line(&task)).refused("ART_DIGEST_MISMATCH");
    assert!(said.out.contains(&it.server.uri("files/a.bin")), "{said:?}");
    // the control: the same task, with the bytes that are pinned
    it.server.put("files/a.bin", page(b"some bytes"));
    it.run(&task);
    let world = &it.world;
    let task = world.shipping();
    world.publish(&task).done();
    let verify = format!(
        "verify www/a.bin --bundle {} --pin {} --product hello",
        world.bundle().display(),
        world.pin()
    );
    world.done(&verify);
}

/// `dl-not-declared`, `dl-unpinned`: what the policy does not allow is not run.
#[test]
fn a_task_that_asks_for_more_than_the_policy_allows_is_not_run() {
    let Some(it) = Downloading::new("more than allowed", false) else { return };
    let task = it.task("record = true", "a.bin");
    it.world.refused(&it.line(&task), "CHAIN_INPUT_UNACCOUNTED");
    it.world.write("source/downloads.toml", "downloads = \"https://custody.dev/downloads/v1\"\n");
    let task = it.task("lock = \"downloads.toml\"", "a.bin");
    // it may run, and gets nothing: the log says what was missing
    let said = it.world.custody(&it.line(&task));
    assert_ne!(said.status, Some(0));
    let log = fs::read_dir(it.world.path("work")).unwrap().flatten().find_map(|entry| {
        let path = entry.path();
        path.extension().is_some_and(|end| end == "log").then(|| fs::read_to_string(path).unwrap())
    });
    let expected = format!("{}: not among the pins of the task", it.server.uri("files/a.bin"));
    assert!(log.as_ref().is_some_and(|log| log.contains(&expected)), "{log:?}");
    assert_eq!(it.server.asked(), [""; 0]);
}
