//! Keys in a token: a whole release with them, and how the command says that one cannot be used.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use crate::world::{World, skipped};

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "73556083";

impl World {
    /// A token with a key for each of these names in place of the file. Nothing where the machine has
    /// no SoftHSM.
    fn with_token(test: &str, keys: &[(&str, &str)]) -> Option<Self> {
        for tool in ["softhsm2-util", "pkcs11-tool"] {
            if Command::new(tool).stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                skipped(test, &format!("{tool} is not there"));
                return None;
            }
        }
        let world = Self::with_keys();
        fs::create_dir(world.path("tokens")).unwrap();
        let config = format!("directories.tokendir = {}\n", world.path("tokens").display());
        world.write("softhsm2.conf", config);
        world.write("token-pin", format!("{PIN}\n"));
        fs::set_permissions(world.path("token-pin"), Permissions::from_mode(0o600)).unwrap();
        let init = ["--init-token", "--free", "--label", "custody", "--so-pin", "87654321"];
        world.tool("softhsm2-util", &[&init[..], &["--pin", PIN]].concat());
        for (name, kind) in keys {
            let login = ["--module", SOFTHSM, "--token-label", "custody", "--login", "--pin", PIN];
            let make = ["--keypairgen", "--key-type", kind, "--label", name];
            world.tool("pkcs11-tool", &[&login[..], &make].concat());
            for file in [format!("keys/{name}"), format!("keys/{name}.pub")] {
                fs::remove_file(world.path(&file)).unwrap();
            }
            let uri = world.uri(name, &world.pin_source());
            world.done(&format!("key import --key {uri} --public keys/{name}.pub"));
            world.write(&format!("keys/{name}.uri"), uri);
        }
        Some(world)
    }

    fn tool(&self, tool: &str, arguments: &[&str]) {
        let mut command = Command::new(tool);
        command.args(arguments).env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn pin_source(&self) -> String {
        format!("&pin-source=file:{}", self.path("token-pin").display())
    }

    #[expect(clippy::unused_self, reason = "the token is of this world")]
    fn uri(&self, key: &str, more: &str) -> String {
        format!("pkcs11:token=custody;object={key}?module-path={SOFTHSM}{more}")
    }
}

#[test]
fn a_release_is_made_with_keys_in_a_token() {
    let keys = [
        ("scheduler", "EC:secp384r1"),
        ("builder", "EC:edwards25519"),
        ("packer", "EC:prime256v1"),
        ("bob", "rsa:2048"),
    ];
    let Some(world) = World::with_token("a_release_is_made_with_keys_in_a_token", &keys) else {
        return;
    };
    world.found(&world.policy_text());
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    world.run_all(&authorization).done();
    let task = world.shipping();
    world.publish(&task).done();

    let elsewhere = World::with_keys();
    fs::copy(world.path("www/all.bin"), elsewhere.path("all.bin")).unwrap();
    fs::copy(world.bundle(), elsewhere.path("some.custody.jsonl")).unwrap();
    let pin = world.pin();
    let verified = elsewhere.done(&format!("verify all.bin --pin {pin}")).json();
    assert_eq!(verified["release"], "hello 1.0 (release, production)");
    let tree = elsewhere.typed(&format!("verify all.bin --pin {pin}")).done().out;
    for part in ["step build by machine builder", "signed by scheduler", "bob (releng)"] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
    elsewhere.write("all.bin", "something else");
    elsewhere.custody(&format!("verify all.bin --pin {pin}")).refused("ART_DIGEST_MISMATCH");
}

#[test]
fn a_key_in_a_token_is_shown_like_any_other() {
    let test = "a_key_in_a_token_is_shown_like_any_other";
    let Some(world) = World::with_token(test, &[("builder", "EC:prime256v1")]) else { return };
    let uri = world.key("builder");
    for line in ["key show", "--json key show"] {
        let said = world.typed(&format!("{line} {uri}")).done();
        assert_eq!(said.out, world.typed(&format!("{line} keys/builder.pub")).done().out);
    }
    let asked = world.uri("builder", "");
    world.done(&format!("key show {asked} --passphrase-file token-pin"));
    // nobody is there who could answer
    let said = world.custody(&format!("key show {asked}")).refused("KEY_UNAVAILABLE");
    assert!(said.out.contains("PIN of token custody"), "{said:#?}");
}

#[test]
fn a_pin_is_asked_for_at_the_terminal() {
    let test = "a_pin_is_asked_for_at_the_terminal";
    let Some(world) = World::with_token(test, &[("builder", "EC:prime256v1")]) else { return };
    let asked = world.uri("builder", "");
    for (pin, good) in [(PIN, true), ("00000000", false)] {
        let mut script = Command::new("script");
        script.args(["-qec", &format!("'{}' key show '{asked}'", crate::world::CUSTODY)]);
        script.arg("/dev/null").env("SOFTHSM2_CONF", world.path("softhsm2.conf"));
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut script = script.spawn().unwrap();
        script.stdin.take().unwrap().write_all(format!("{pin}\n").as_bytes()).unwrap();
        let output = script.wait_with_output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(shown.contains("PIN of token custody: "), "{shown}");
        assert_eq!(shown.contains("ecdsa-sha2-nistp256"), good, "{shown}");
        assert_eq!(shown.matches("KEY_UNAVAILABLE").count(), usize::from(!good), "{shown}");
        assert_eq!(output.status.code(), Some(if good { 0 } else { 3 }), "{shown}");
    }
}

#[test]
fn a_token_that_cannot_be_used_changes_nothing() {
    let test = "a_token_that_cannot_be_used_changes_nothing";
    let Some(world) = World::with_token(test, &[("builder", "EC:prime256v1")]) else { return };
    world.found(&world.policy_text());
    let authorization = world.authorized("promote");
    let task = world.plan(&authorization)["build"].clone();
    let source = world.pin_source();
    let run = |key: &str| {
        let machine = world.machines(&[]);
        format!("run {task} --repository source {machine} --key {key}")
    };
    world.write("wrong-pin", "00000000\n");
    fs::set_permissions(world.path("wrong-pin"), Permissions::from_mode(0o600)).unwrap();
    let wrong = format!("&pin-source=file:{}", world.path("wrong-pin").display());
    world.write("open-pin", PIN);
    fs::set_permissions(world.path("open-pin"), Permissions::from_mode(0o644)).unwrap();
    let open = format!("&pin-source=file:{}", world.path("open-pin").display());
    let good = world.uri("builder", &source);
    for (key, code, word) in [
        (world.uri("builder", &wrong), "KEY_UNAVAILABLE", "tried once"),
        (world.uri("builder", &open), "WORKER_KEY_EXPOSED", "chmod 600"),
        (world.uri("builder", ""), "KEY_UNAVAILABLE", "PIN of token custody"),
        (world.uri("packer", &source), "KEY_UNAVAILABLE", "object=builder"),
        (world.uri("builder", &format!("&pin-value={PIN}")), "KEY_UNAVAILABLE", "pin-source"),
        (good.replace("token=custody", "token=other"), "KEY_UNAVAILABLE", "token=custody"),
        (good.replace(SOFTHSM, "/nonexistent.so"), "KEY_UNAVAILABLE", "/nonexistent.so"),
        (good.replace(SOFTHSM, "libsofthsm2.so"), "KEY_UNAVAILABLE", "absolute"),
        (good.replace("?module-path=", "?module-name="), "KEY_UNAVAILABLE", "module-path"),
    ] {
        let said = world.refused(&run(&key), code);
        assert!(said.out.contains(word), "{word}: {said:#?}");
        assert!(!said.out.contains(PIN) && !said.err.contains(PIN), "{said:#?}");
    }
    world.done(&run(&good));
}
