//! A world in a temporary directory: people, machines, a policy, a store, a repository, and the
//! command that all of them use.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use custody_core::envelope::{Envelope, Payload as _};
use custody_core::statement::Statement;
use custody_sign::{Access, KeySource, sign_envelope_as_machine, sign_envelope_as_person};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const CUSTODY: &str = env!("CARGO_BIN_EXE_custody");

/// The user as whom commands run when the tests are run by root: nobody.
const NOBODY: u32 = 65_534;

/// The steps of a release, as `pipeline.toml` has them.
pub(crate) const BUILD: &str = r#"
[steps.build]
phase = "promote"
command = ["sh", "-c", '''mkdir dist && cp source/hello.txt dist/ && echo second > dist/second.txt && : > dist/empty''']
source = true
outputs = ["dist/*"]
deadline = "12h"
"#;
pub(crate) const PACK: &str = r#"
[steps.pack]
phase = "promote"
command = ["sh", "-c", '''mkdir dist && cat inputs/build/dist/* > dist/all.bin''']
outputs = ["dist/*.bin"]
deadline = "12h"
[[steps.pack.inputs]]
step = "build"
artifacts = ["dist/*"]
"#;
pub(crate) const PUBLISH: &str = r#"
[steps.publish]
phase = "ship"
destination = "{param.destination}"
deadline = "12h"
[[steps.publish.inputs]]
earlier = "build"
artifacts = ["dist/*"]
[[steps.publish.inputs]]
earlier = "pack"
artifacts = ["dist/*"]
"#;

pub(crate) const KEYS: [&str; 11] = [
    "alice",
    "bob",
    "bob-home",
    "carol",
    "desk",
    "scheduler",
    "builder",
    "packer",
    "publisher",
    "mallory",
    "mallory-2",
];

/// The policy of a world. `{destinations}` and `{expires}` are filled in, and the keys.
const POLICY: &str = r#"policy = "https://custody.dev/policy/v1"
version = 1
expires = "{expires}"
instance = "production"
clock-skew = "5m"

[root]
people = ["alice", "bob", "carol"]
threshold = 2

[people.alice]
keys = [{ key = "KEY-OF-alice" }]
[people.bob]
keys = [{ key = "KEY-OF-bob" }, { key = "KEY-OF-bob-home" }]
[people.carol]
keys = [{ key = "KEY-OF-carol" }]

[machines.desk]
keys = [{ key = "KEY-OF-desk" }]
[machines.scheduler]
keys = [{ key = "KEY-OF-scheduler" }]
[machines.builder]
keys = [{ key = "KEY-OF-builder" }]
[machines.packer]
keys = [{ key = "KEY-OF-packer" }]
[machines.publisher]
keys = [{ key = "KEY-OF-publisher" }]

[roles.releng]
members = ["alice", "bob", "carol"]
[roles.lead]
members = ["carol"]

[products.hello]
source = "https://git.example.org/hello"
channels = ["release"]
desk = ["desk"]
propose = ["releng"]
resolve = ["lead"]

[products.hello.phases.promote]
approve = [{ role = "releng", count = 2 }]
proposer-counts = false
sign-off-max-age = "24h"
after = []

[products.hello.phases.ship]
approve = [{ role = "releng", count = 2 }]
proposer-counts = false
sign-off-max-age = "24h"
after = ["promote"]

[products.hello.steps.build]
phase = "promote"
perform = ["builder"]
schedule = ["scheduler"]
source = true
inputs = []
outputs = ["dist/*"]
network = false
verification = "full"
irrevocable = false
max-age = "24h"
receipts = "none"

[products.hello.steps.check]
phase = "promote"
perform = ["builder"]
schedule = ["scheduler"]
source = false
inputs = [{ step = "build", release = "same" }]
outputs = ["dist/*"]
network = false
verification = "direct"
irrevocable = false
max-age = "24h"
receipts = "none"

[products.hello.steps.pack]
phase = "promote"
perform = ["packer"]
schedule = ["scheduler"]
source = false
inputs = [{ step = "build", release = "same" }, { step = "check", release = "same" }]
outputs = ["dist/*"]
network = false
verification = "full"
irrevocable = false
max-age = "24h"
receipts = "none"

[products.hello.steps.publish]
phase = "ship"
perform = ["publisher"]
schedule = ["scheduler"]
source = false
inputs = [{ step = "build", release = "same" }, { step = "pack", release = "same" }]
outputs = ["*"]
network = false
verification = "full"
irrevocable = true
destinations = [{destinations}]
max-age = "24h"
receipts = "none"
"#;

/// What a run of the command said.
#[derive(Debug)]
pub(crate) struct Said {
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    line: String,
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    fn of(line: String, output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            line,
            status: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// A text member of the JSON.
    pub(crate) fn text(&self, member: &str) -> String {
        self.json()[member].as_str().unwrap_or_else(|| panic!("no {member}: {self:#?}")).to_owned()
    }

    pub(crate) fn id(&self) -> String {
        self.text("id")
    }

    pub(crate) fn done(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }

    pub(crate) fn codes(&self) -> Vec<String> {
        let json = self.json();
        let codes = json["codes"].as_array().cloned().unwrap_or_default();
        codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect()
    }

    /// Refused with this code, in the way that every refusal has: the exit status that fits, one JSON
    /// object on standard output that says no, and no panic.
    pub(crate) fn refused(self, code: &str) -> Self {
        let undecided = ["STORE_", "GATE_UNAVAILABLE", "KEY_UNAVAILABLE"]
            .iter()
            .any(|start| code.starts_with(start));
        assert_eq!(self.status, Some(if undecided { 3 } else { 1 }), "wanted {code}: {self:#?}");
        let json = self.json();
        assert_eq!(json["ok"], Value::Bool(false), "{self:#?}");
        let codes = self.codes();
        assert_eq!(json["code"].as_str(), codes.first().map(String::as_str), "{self:#?}");
        assert!(
            codes.iter().any(|found| found == code),
            "wanted {code}, found {codes:?}: {self:#?}"
        );
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }

    /// Ended with this status; what it says is the caller's to look at.
    pub(crate) fn ended(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:#?}");
        assert!(!self.err.contains("panicked"), "{self:#?}");
        self
    }
}

/// What must not change when something is refused: every statement of the store, what the store
/// trusts, and every published byte.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    statements: String,
    policies: String,
    published: BTreeMap<PathBuf, Vec<u8>>,
}

pub(crate) struct World {
    dir: PathBuf,
    _temporary: Option<TempDir>,
}

/// Where worlds are made: below the target directory, readable for the user as whom steps run.
fn ground() -> &'static Path {
    static GROUND: OnceLock<PathBuf> = OnceLock::new();
    GROUND.get_or_init(|| {
        let ground = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&ground).unwrap();
        // templates of test processes that are gone
        for entry in fs::read_dir(&ground).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_prefix("template-").and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                fs::remove_dir_all(entry.path()).ok();
            }
        }
        ground
    })
}

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

/// A template is made once per test process; tests work on copies of it.
fn template(name: &str, at: &'static OnceLock<PathBuf>, make: impl FnOnce(&World)) -> World {
    let from = at.get_or_init(|| {
        let dir = ground().join(format!("template-{}-{name}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        let world = World { dir: dir.clone(), _temporary: None };
        make(&world);
        dir
    });
    let world = World::empty();
    copy(from, &world.dir);
    world
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Everything that a test may leave out only where `CUSTODY_TEST_REQUIRE_ALL` does not stand.
pub(crate) fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    // past the test runner, which keeps the words of tests that pass to itself
    std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

impl World {
    /// Nothing but the directory.
    pub(crate) fn empty() -> Self {
        let temporary = tempfile::Builder::new().prefix("world-").tempdir_in(ground()).unwrap();
        fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// Keys for everybody and places to work.
    pub(crate) fn with_keys() -> Self {
        static AT: OnceLock<PathBuf> = OnceLock::new();
        template("keys", &AT, |world| {
            for place in ["home", "state", "keys", "work", "www", "source"] {
                fs::create_dir(world.path(place)).unwrap();
            }
            // where steps can leave traces that Custody knows nothing of
            world.open_directory("room");
            for name in KEYS {
                // people's keys as ssh-keygen has them too, of both kinds that Custody makes
                let form = match name {
                    "carol" => "--kind ecdsa-p256 --format openssh",
                    "alice" | "bob" | "bob-home" | "mallory" | "mallory-2" => "--format openssh",
                    _ => "",
                };
                world.done(&format!("key generate keys/{name} {form} --comment {name}"));
            }
            world.git("init --quiet --initial-branch=main");
            world.write("source/hello.txt", "hello, world\n");
            world.pipeline(&[BUILD, PACK, PUBLISH]);
        })
    }

    /// The policy signed by two, and a store that pins it.
    pub(crate) fn fresh() -> Self {
        static AT: OnceLock<PathBuf> = OnceLock::new();
        template("fresh", &AT, |world| {
            copy(&Self::with_keys().dir, &world.dir);
            world.found(&world.policy_text());
        })
    }

    /// The phase promote is done.
    pub(crate) fn promoted() -> Self {
        static AT: OnceLock<PathBuf> = OnceLock::new();
        template("promoted", &AT, |world| {
            copy(&Self::fresh().dir, &world.dir);
            let authorization = world.authorized("promote");
            world.plan(&authorization);
            world.run_all(&authorization).done();
        })
    }

    /// Everything is done: the files are in `www`.
    pub(crate) fn published() -> Self {
        static AT: OnceLock<PathBuf> = OnceLock::new();
        template("published", &AT, |world| {
            copy(&Self::promoted().dir, &world.dir);
            let task = world.shipping();
            world.publish(&task).done();
        })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A directory that steps may write to.
    pub(crate) fn open_directory(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
        path
    }

    /// The command with the words of this line, in the world's directory, with nothing of the caller's
    /// environment.
    pub(crate) fn command(&self, line: &str) -> Command {
        let mut command = Command::new(CUSTODY);
        command.args(line.split_whitespace()).current_dir(&self.dir).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("XDG_STATE_HOME", self.path("state"));
        command.env("SOFTHSM2_CONF", self.path("softhsm2.conf"));
        command
    }

    #[expect(clippy::unused_self, reason = "it happens in this world")]
    pub(crate) fn say(&self, mut command: Command) -> Said {
        let output = command.output().unwrap();
        Said::of(format!("{command:?}"), &output)
    }

    /// With `--json`.
    pub(crate) fn custody(&self, line: &str) -> Said {
        self.say(self.command(&format!("--json {line}")))
    }

    /// As a person types it.
    pub(crate) fn typed(&self, line: &str) -> Said {
        self.say(self.command(line))
    }

    pub(crate) fn done(&self, line: &str) -> Said {
        self.custody(line).done()
    }

    /// Must be refused with this code and change nothing.
    pub(crate) fn refused(&self, line: &str, code: &str) -> Said {
        let before = self.snapshot();
        let said = self.custody(line).refused(code);
        assert_eq!(before, self.snapshot(), "{said:#?}");
        said
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let said = |line: &str| self.done(line).out;
        Snapshot {
            statements: said("evidence list --store store"),
            policies: said("policy show --store store"),
            published: self.files("www"),
        }
    }

    /// All files below a directory.
    pub(crate) fn files(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut found, mut ahead) = (BTreeMap::new(), vec![self.path(name)]);
        while let Some(directory) = ahead.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    ahead.push(entry.path());
                } else {
                    let bytes = fs::read(entry.path()).unwrap_or_default();
                    found.insert(
                        entry.path().strip_prefix(self.path(name)).unwrap().to_owned(),
                        bytes,
                    );
                }
            }
        }
        found
    }

    pub(crate) fn git(&self, line: &str) -> String {
        let mut command = Command::new("git");
        command.args(line.split_whitespace()).current_dir(self.path("source"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Alice")
                .env(format!("GIT_{who}_EMAIL"), "alice@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Commits a pipeline of these steps.
    pub(crate) fn pipeline(&self, steps: &[&str]) {
        let text = format!("pipeline = \"https://custody.dev/pipeline/v1\"\n{}", steps.concat());
        self.write("source/pipeline.toml", text);
        self.git("add .");
        self.git("commit --quiet --message steps");
    }

    pub(crate) fn destination(&self) -> String {
        format!("file://{}", self.path("www").display())
    }

    /// The policy with everybody's keys, good for a year.
    pub(crate) fn policy_text(&self) -> String {
        self.policy_until("2099-01-01T00:00:00Z")
    }

    pub(crate) fn policy_until(&self, expires: &str) -> String {
        // every world below the ground may publish to itself
        let mut destinations = format!("\"file://{}/\"", ground().display());
        if let Ok(bucket) = std::env::var("CUSTODY_TEST_S3_BUCKET") {
            destinations += &format!(", \"s3://{bucket}/\"");
        }
        let mut text =
            POLICY.replace("{expires}", expires).replace("{destinations}", &destinations);
        for name in KEYS {
            text = text.replace(&format!("KEY-OF-{name}\""), &format!("{}\"", self.public(name)));
        }
        text
    }

    /// A key as `--key` takes it: its file, or where it is if that is not in a file.
    pub(crate) fn key(&self, name: &str) -> String {
        fs::read_to_string(self.path(&format!("keys/{name}.uri")))
            .unwrap_or_else(|_| format!("keys/{name}"))
    }

    /// A public key as one line.
    pub(crate) fn public(&self, name: &str) -> String {
        self.read(&format!("keys/{name}.pub")).trim().to_owned()
    }

    /// Signs a policy's text, and gives its pin.
    pub(crate) fn sign_policy(&self, name: &str, text: &str, people: &[&str]) -> String {
        self.write(&format!("{name}.toml"), text);
        let mut pin = String::new();
        for person in people {
            let key = self.key(person);
            let line = format!("policy sign {name}.toml --out {name}.dsse.json --key {key}");
            pin = self.done(&line).text("pin");
        }
        pin
    }

    /// Signs the first policy and makes the store.
    pub(crate) fn found(&self, text: &str) -> String {
        let pin = self.sign_policy("policy", text, &["alice", "bob"]);
        self.done(&format!("init --store store --policy policy.dsse.json --pin {pin}"));
        self.write("pin", &pin);
        pin
    }

    pub(crate) fn pin(&self) -> String {
        self.read("pin")
    }

    /// Proposes a phase of hello 1.0 and gives the request.
    pub(crate) fn propose(&self, phase: &str, more: &str) -> String {
        let line = format!(
            "release propose --store store --product hello --version 1.0 --channel release --phase {phase} \
             --repository source --key {} --param destination={} --param room={} {more}",
            self.key("alice"),
            self.destination(),
            self.path("room").display()
        );
        self.done(&line).id()
    }

    pub(crate) fn sign_off(&self, request: &str, person: &str) -> String {
        let line = format!(
            "release sign-off {request} --store store --as {person} --role releng --key {}",
            self.key(person)
        );
        self.done(&line).id()
    }

    /// Has bob and carol approve, and gives the authorization.
    pub(crate) fn authorize(&self, request: &str) -> String {
        self.sign_off(request, "bob");
        self.sign_off(request, "carol");
        let key = self.key("desk");
        self.done(&format!("release authorize {request} --store store --key {key}")).id()
    }

    pub(crate) fn authorized(&self, phase: &str) -> String {
        self.authorized_with(phase, "")
    }

    pub(crate) fn authorized_with(&self, phase: &str, more: &str) -> String {
        self.authorize(&self.propose(phase, more))
    }

    /// Plans, and gives the tasks by step.
    pub(crate) fn plan(&self, authorization: &str) -> BTreeMap<String, String> {
        let said = self.done(&format!(
            "plan {authorization} --store store --repository source --creator tests/it --key {}",
            self.key("scheduler")
        ));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        said.json()
            .as_array()
            .unwrap()
            .iter()
            .map(|row| (text(&row["step"]), text(&row["id"])))
            .collect()
    }

    /// One step, promoted alone: its command as the task of a step `build`.
    pub(crate) fn build_task(&self, command: &str, more: &str) -> String {
        let step = format!(
            "\n[steps.build]\nphase = \"promote\"\ncommand = [\"sh\", \"-c\", '''{command}''']\nsource = true\noutputs = [\"dist/*\"]\n{more}"
        );
        self.pipeline(&[&step]);
        self.plan(&self.authorized("promote"))["build"].clone()
    }

    /// The arguments for machines whose keys are at hand.
    pub(crate) fn machines(&self, keys: &[&str]) -> String {
        let keys: String = keys.iter().map(|key| format!("--key {} ", self.key(key))).collect();
        let user = if is_root() { format!("--user {NOBODY}:{NOBODY}") } else { String::new() };
        // where steps leave their traces
        format!("--store store --work work --share room {keys} {user}")
    }

    pub(crate) fn run_line(&self, task: &str) -> String {
        format!("run {task} --repository source {}", self.machines(&["builder", "packer"]))
    }

    pub(crate) fn run(&self, task: &str) -> Said {
        self.custody(&self.run_line(task))
    }

    pub(crate) fn run_all(&self, authorization: &str) -> Said {
        self.run(&format!("--all {authorization}"))
    }

    /// The publishing task of the phase ship.
    pub(crate) fn shipping(&self) -> String {
        self.plan(&self.authorized("ship"))["publish"].clone()
    }

    pub(crate) fn publish_line(&self, task: &str) -> String {
        format!("publish {task} {}", self.machines(&["publisher"]))
    }

    pub(crate) fn publish(&self, task: &str) -> Said {
        self.custody(&self.publish_line(task))
    }

    /// All statements of a kind.
    pub(crate) fn list(&self, kind: &str) -> Vec<String> {
        let said = self.done(&format!("evidence list --store store --kind {kind}"));
        said.json()
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The bundle that publishing put beside the files.
    pub(crate) fn bundle(&self) -> PathBuf {
        let mut names = self.files("www").into_keys();
        let bundle = names.find(|name| name.to_string_lossy().ends_with(".custody.jsonl"));
        self.path("www").join(bundle.unwrap())
    }

    /// A statement with a good signature of this machine or person: what an attacker with its key can make.
    pub(crate) fn forged(&self, statement: impl Into<Statement>, key: &str) -> Envelope {
        let mut envelope = statement.into().to_envelope();
        let mut ask = |_: &str| -> Result<zeroize::Zeroizing<String>, custody_core::Refusal> {
            panic!("no passphrase")
        };
        let mut access = Access { agent: None, security_key_provider: None, passphrase: &mut ask };
        let path = self.path(&format!("keys/{key}")).display().to_string();
        let signer = KeySource::parse(&path).unwrap().open(&mut access).unwrap();
        if ["alice", "bob", "carol"].contains(&key) {
            sign_envelope_as_person(&mut envelope, &*signer).unwrap();
        } else {
            sign_envelope_as_machine(&mut envelope, &*signer).unwrap();
        }
        envelope
    }

    /// Adds what was forged, with `custody evidence add`.
    pub(crate) fn add(&self, envelope: &Envelope) -> String {
        self.write("forged.json", envelope.to_json());
        self.done("evidence add forged.json --store store");
        envelope.id().to_string()
    }

    /// What a statement of the store says.
    pub(crate) fn content(&self, id: &str) -> Statement {
        let json = self.done(&format!("evidence get {id} --store store")).out;
        Statement::parse(Envelope::parse(json.as_bytes()).unwrap().unverified_payload()).unwrap()
    }

    pub(crate) fn spawn(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
