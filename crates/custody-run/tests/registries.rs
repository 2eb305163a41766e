//! Cargo, npm and pip through the proxy, in a network where there is nothing else: first recorded, from the
//! public registries, then pinned, with no registry to be had.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong in a test fails it")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use custody_core::statement::{Downloads, InputOrigin, Pinned};
use custody_core::{Code, Refusal};
use custody_run::downloads::gateway::Gateway;
use custody_run::downloads::upstream::Upstream;
use custody_run::downloads::{DOWNLOAD_BYTES, Fetched, Proxy, variables};
use custody_store::Store;
use tempfile::TempDir;

/// Says past the test runner that this test was left out, which it may not be where all are required.
fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

fn gateway(test: &str) -> Option<Gateway> {
    if rustix::process::geteuid().is_root() {
        return Some(Gateway::open().unwrap());
    }
    assert_eq!(Gateway::open().unwrap_err().code, Code::WorkerIsolationMissing);
    skipped(test, "only root makes networks");
    None
}

/// `dl-direct`: whoever is inside reaches the proxy, and neither the machine nor the world.
#[test]
fn in_the_network_of_a_command_there_is_the_proxy_and_nothing_else() {
    let Some(gateway) = gateway("a network of its own") else { return };
    let host = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = host.local_addr().unwrap();
    let door = gateway.address();
    let short = Duration::from_secs(5);
    let reach = move |address: &str| {
        TcpStream::connect_timeout(&address.parse().unwrap(), short).map(|_| ())
    };
    // the control: outside, the same is there
    reach(&address.to_string()).unwrap();
    let inside = move || {
        reach(&door.to_string()).unwrap();
        let others = [address.to_string(), "192.0.2.1:443".into(), "[2001:db8::1]:443".into()];
        others.map(|other| reach(&other).is_ok())
    };
    assert_eq!(gateway.within(inside).unwrap(), [false; 3]);
    // a program that is started inside is inside
    let script = format!(
        "exec 3<>/dev/tcp/{} && ! (exec 4<>/dev/tcp/127.0.0.1/{})",
        door.to_string().replace(':', "/"),
        address.port()
    );
    let status = gateway.within(|| Command::new("bash").args(["-c", &script]).status().unwrap());
    assert!(status.unwrap().success());
    // and we are not
    reach(&address.to_string()).unwrap();
    assert!(reach(&door.to_string()).is_err());
}

struct Client {
    files: TempDir,
    store: Store,
    from: Vec<String>,
    certificate: PathBuf,
}

impl Client {
    /// A client of these registries, and of those that its own configuration names in their place.
    fn new(registries: &[&str], configuration: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut from: BTreeSet<String> = registries.iter().map(|&uri| uri.to_owned()).collect();
        for start in ["https://", "http://"] {
            for rest in configuration.split(start).skip(1) {
                let end = |c: char| !c.is_ascii_alphanumeric() && !".-:".contains(c);
                from.insert(format!("{start}{}/", rest.split(end).next().unwrap()));
            }
        }
        let store = Store::create(&files.path().join("store")).unwrap();
        let certificate = files.path().join("run.pem");
        Self { files, store, from: from.into_iter().collect(), certificate }
    }

    fn run(
        &self,
        gateway: &Gateway,
        upstream: &Upstream,
        pinned: Option<Vec<Pinned>>,
        make: impl Fn(&Path) -> Command,
    ) -> (Output, Result<Fetched, Refusal>) {
        let name = if pinned.is_some() { "pinned" } else { "recorded" };
        let directory = self.files.path().join(name);
        fs::create_dir(&directory).unwrap();
        let downloads = Downloads { from: self.from.clone(), pinned };
        let proxy = Proxy::new(&self.store, &downloads, upstream, DOWNLOAD_BYTES).unwrap();
        fs::write(&self.certificate, proxy.certificate()).unwrap();
        let mut command = make(&directory);
        command.current_dir(&directory).env_clear().env("HOME", &directory);
        command.env("PATH", std::env::var_os("PATH").unwrap());
        command.envs(variables(gateway.address(), &self.certificate));
        // where the toolchain and the interpreter are is no matter of the network
        for name in ["RUSTUP_HOME", "RUSTUP_TOOLCHAIN", "PYENV_ROOT", "PYENV_VERSION"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        let output = proxy
            .during(gateway.listener(), || gateway.within(|| command.output().unwrap()).unwrap());
        (output, proxy.finish())
    }

    /// Runs the client twice, and gives the URIs that it was given.
    fn twice(&self, test: &str, make: impl Fn(&Path) -> Command) {
        let Some(gateway) = gateway(test) else { return };
        let (said, fetched) = self.run(&gateway, &Upstream::new(None).unwrap(), None, &make);
        let fetched = fetched.unwrap();
        let unreachable = fetched.inputs.is_empty() && !fetched.notes.is_empty();
        if unreachable && fetched.notes.iter().all(|note| !note.contains("declare")) {
            return skipped(test, &format!("no registry: {:?}", fetched.notes));
        }
        assert!(said.status.success(), "{said:?}\n{:?}", fetched.notes);
        assert!(!fetched.inputs.is_empty());
        let pins = fetched.inputs.iter().map(|input| {
            let InputOrigin::Download(uri) = input.origin.clone() else { panic!("{input:?}") };
            Pinned { uri, digests: input.artifact.digests, size: input.artifact.size }
        });
        // whoever trusts an authority that signed nothing reaches nobody
        let nobody = Upstream::new(Some(&self.certificate)).unwrap();
        let (said, again) = self.run(&gateway, &nobody, Some(pins.collect()), &make);
        let again = again.unwrap();
        assert!(said.status.success(), "{said:?}\n{:?}", again.notes);
        assert_eq!(again.inputs, fetched.inputs);
        // with nothing pinned it gets nothing, so it was the proxy that gave
        fs::remove_dir_all(self.files.path().join("pinned")).unwrap();
        let (said, none) = self.run(&gateway, &nobody, Some(Vec::new()), &make);
        assert!(!said.status.success(), "{said:?}");
        assert_eq!(none.unwrap().inputs, []);
    }
}

fn output_of(command: &mut Command) -> String {
    let output = command.output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

fn home(path: &str) -> String {
    let home = std::env::var_os("HOME").unwrap_or_default();
    fs::read_to_string(Path::new(&home).join(path)).unwrap_or_default()
}

#[test]
fn cargo_fetches_through_the_proxy() {
    let configuration = home(".cargo/config.toml");
    let client =
        Client::new(&["https://index.crates.io/", "https://static.crates.io/"], &configuration);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    client.twice("cargo fetch", |directory| {
        let manifest = "[package]\nname = \"x\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[lib]\npath = \"x.rs\"\n\
                        [dependencies]\ncfg-if = \"=1.0.0\"\n";
        fs::write(directory.join("Cargo.toml"), manifest).unwrap();
        fs::write(directory.join("x.rs"), "").unwrap();
        fs::create_dir(directory.join(".cargo")).unwrap();
        fs::write(directory.join(".cargo/config.toml"), &configuration).unwrap();
        let mut command = Command::new(&cargo);
        command.arg("fetch");
        command
    });
}

#[test]
fn pip_downloads_through_the_proxy() {
    let python = std::env::var_os("CUSTODY_TEST_PYTHON").unwrap_or_else(|| "python3".into());
    let pip = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "pip"]).args(arguments);
        command
    };
    if output_of(&mut pip(&["--version"])).is_empty() {
        return skipped("pip download", "no pip");
    }
    let index = output_of(&mut pip(&["config", "get", "global.index-url"]))
        + &std::env::var("PIP_INDEX_URL").unwrap_or_default();
    let client = Client::new(&["https://pypi.org/", "https://files.pythonhosted.org/"], &index);
    client.twice("pip download", |_| {
        let mut arguments = vec!["download", "--no-deps", "--no-cache-dir", "six==1.16.0"];
        if !index.trim().is_empty() {
            arguments.extend(["--index-url", index.trim()]);
        }
        pip(&arguments)
    });
}

#[test]
fn npm_packs_through_the_proxy() {
    let registry = output_of(Command::new("npm").args(["config", "get", "registry"]));
    if registry.is_empty() {
        return skipped("npm pack", "no npm");
    }
    let client = Client::new(&["https://registry.npmjs.org/"], &registry);
    client.twice("npm pack", |_| {
        let mut command = Command::new("npm");
        command.args(["pack", "is-number@7.0.0", "--registry", registry.trim()]);
        command
    });
}

/// What a client is told of a kind of bytes is the same whether they came or were here.
#[test]
fn a_tool_that_asks_for_html_gets_html() {
    let Some(gateway) = gateway("kinds of bytes") else { return };
    let client = Client::new(&["https://example.org/"], "");
    let html = b"\n<!DOCTYPE html><a href=x>x</a>";
    let (digests, size) = client.store.put_artifact(&html[..], false, None).unwrap();
    let uri = "http://example.org/simple/".to_owned();
    let downloads = Downloads {
        from: vec!["http://example.org/".into()],
        pinned: Some(vec![Pinned { uri, digests, size }]),
    };
    let upstream = Upstream::new(None).unwrap();
    let proxy = Proxy::new(&client.store, &downloads, &upstream, DOWNLOAD_BYTES).unwrap();
    let door = gateway.address();
    let told = proxy.during(gateway.listener(), || {
        gateway.within(move || {
            let mut stream = TcpStream::connect(door).unwrap();
            let words = "GET http://EXAMPLE.org:80/simple/ HTTP/1.0\r\n\r\n";
            stream.write_all(words.as_bytes()).unwrap();
            let mut told = String::new();
            stream.read_to_string(&mut told).unwrap();
            told
        })
    });
    let told = told.unwrap();
    assert!(told.contains("Content-Type: text/html; charset=utf-8\r\n"), "{told}");
    assert!(told.ends_with("<a href=x>x</a>"), "{told}");
}
