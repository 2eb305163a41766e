//! A worker makes its key at boot and is enrolled over the wire, with documents as EC2 signs them; what it
//! makes is verified offline. And everybody who would like to be enrolled as somebody else.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use custody_core::digest::Sha256;
use custody_core::envelope::Envelope;
use custody_core::key::PublicKey;
use custody_core::statement::{Attestation, Enrolment, Statement};
use custody_core::time::Time;
use custody_platforms::{Certified, Signer, attestation, ec2};
use serde_json::Value;

use crate::world::{Said, World, until};

const INSTANCE: &str = "i-0a1b2c3d4e5f60718";
const OTHER: &str = "i-0ffffffffffffffff";
pub(crate) const IMAGE: &str = "ami-0123456789abcdef0";
const BUILD: &str = "mkdir dist && cp source/hello.txt dist/";

pub(crate) fn amazon() -> &'static Signer {
    static AMAZON: OnceLock<Signer> = OnceLock::new();
    AMAZON.get_or_init(|| Signer::own(&Certified::new("Amazon of tests", false)))
}

fn document(instance: &str, image: &str, signer: &Signer) -> Attestation {
    let document = ec2::document(instance, image, "eu-west-1");
    let signature = ec2::rsa2048(&document, signer);
    attestation("ec2", &[("document", &document), ("rsa2048", &signature)])
}

/// The builder has no key in the policy.
fn policy(world: &World, longest: &str, demand: &str) -> String {
    let listed =
        format!("[machines.builder]\nkeys = [{{ key = \"{}\" }}]\n", world.public("builder"));
    let text = world.policy_text();
    assert!(text.contains(&listed));
    let enrolled = format!(
        "[machines.builder]\nenrolled-by = [\"enroller\"]\nmax-certificate = \"{longest}\"\n\
         enrol = [{demand}]\n\
         [machines.enroller]\nkeys = [{{ key = \"{}\" }}]\n\
         [platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\"], certificate = \"\"\"{}\"\"\" }}]\n",
        world.public("enroller"),
        amazon().certificate_pem()
    );
    text.replace(&listed, &enrolled)
}

fn demand() -> String {
    format!("{{ fact = \"ec2.image-id\", is = [\"{IMAGE}\"] }}")
}

/// A world with documents of two instances, and a policy by which they may be enrolled.
pub(crate) fn world_with(longest: &str) -> World {
    let world = World::with_keys();
    world.done("key generate keys/enroller");
    world.found(&policy(&world, longest, &demand()));
    for (name, instance) in [("ec2", INSTANCE), ("other", OTHER)] {
        world.write(&format!("{name}.json"), document(instance, IMAGE, amazon()).to_json());
    }
    world
}

/// A service that enrols, until it is dropped.
pub(crate) struct Service {
    child: Child,
    address: String,
}

impl Service {
    pub(crate) fn of(world: &World) -> Self {
        let line = "--json enrol serve --store store --key keys/enroller --listen 127.0.0.1:0";
        let mut command = world.command(line);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !said.trim_end().ends_with('}') {
            said += &lines.next().unwrap().unwrap();
        }
        let json: Value = serde_json::from_str(&said).unwrap();
        Self { child, address: json["listen"].as_str().unwrap().to_owned() }
    }

    pub(crate) fn request(&self, world: &World, what: &str) -> Said {
        let line = format!("enrol request --url http://{} --machine builder {what}", self.address);
        world.custody(&line)
    }

    /// Sends bytes, and gives status and body of the answer.
    fn raw(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap_or_default();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        (head.split(' ').nth(1).map_or(0, |status| status.parse().unwrap()), body.to_owned())
    }

    fn post(&self, path: &str, body: &str) -> (u16, String) {
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        self.raw(&[head.as_bytes(), body.as_bytes()].concat())
    }

    /// The code with which a request is refused.
    fn code(&self, body: &str) -> String {
        let (status, answer) = self.post("/v1/enrol", body);
        assert_eq!(status, 403, "{answer}");
        let json: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(json["ok"], Value::Bool(false));
        json["code"].as_str().unwrap().to_owned()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let ended = Command::new("kill").args(["-TERM", &pid]).status().unwrap().success();
        // one that panicked already has failed its test
        if ended && !thread::panicking() {
            assert!(self.child.wait().unwrap().success());
        }
    }
}

fn run_line(world: &World, task: &str, key: &str) -> String {
    format!("run {task} --repository source {}", world.machines(&[key]))
}

/// Verifies a file elsewhere, with a bundle and the pin only.
fn offline(world: &World, manifest: &str, name: &str) -> Said {
    world.done(&format!("bundle export {manifest} --store store --out {name}.jsonl"));
    let elsewhere = World::empty();
    fs::copy(world.path(&format!("{name}.jsonl")), elsewhere.path("b.custody.jsonl")).unwrap();
    fs::copy(world.path("source/hello.txt"), elsewhere.path("hello.txt")).unwrap();
    elsewhere
        .custody(&format!("verify hello.txt --step build --product hello --pin {}", world.pin()))
}

/// From boot to a file that anybody verifies.
#[test]
fn a_worker_is_enrolled_and_what_it_makes_is_verified_offline() {
    let world = world_with("12h");
    let service = Service::of(&world);
    let enrolled = service.request(&world, "--attestation ec2.json --key-out keys/worker").done();
    let json = enrolled.json();
    assert_eq!(json["facts"]["ec2.instance-id"], INSTANCE);
    assert_eq!(json["machine"], "builder");
    let found = fs::metadata(world.path("keys/worker")).unwrap();
    assert_eq!(found.permissions().mode() & 0o777, 0o600);
    assert_eq!(world.list("enrolment"), [enrolled.id()]);

    let task = world.build_task(BUILD, "");
    let manifest = world.custody(&run_line(&world, &task, "worker")).done().text("manifest");
    match world.content(&manifest) {
        Statement::Manifest(made) => {
            assert_eq!(made.enrolment.unwrap().to_string(), enrolled.id());
        }
        other => panic!("a {}", other.kind()),
    }
    let verified = offline(&world, &manifest, "good").done();
    assert!(verified.out.contains("\"enrolled by\""), "{verified:#?}");
    assert!(verified.out.contains(&enrolled.id()), "{verified:#?}");

    // by name or by key: a trace finds what enrolled keys made
    let key = json["key"].as_str().unwrap();
    for what in ["--by builder".to_owned(), format!("--key {key}"), enrolled.id()] {
        let found = world.done(&format!("trace {what} --store store"));
        assert!(found.out.contains(&manifest), "{what}: {found:#?}");
    }

    // revoked: the same evidence with the next policy
    let next = world.build_task(&format!("{BUILD} && true"), "");
    revoke(&world, &enrolled.id());
    offline(&world, &manifest, "revoked").refused("POLICY_KEY_REVOKED");
    world.refused(&run_line(&world, &next, "worker"), "POLICY_KEY_REVOKED");
}

fn revoke(world: &World, id: &str) {
    let text = policy(world, "12h", &demand());
    let next =
        format!("version = 2\nprevious = \"{}\"\nrevoked-enrolments = [\"{id}\"]", world.pin());
    let text = text.replace("version = 1", &next);
    world.sign_policy("next", &text, &["alice", "bob"]);
    world.done("policy rotate next.dsse.json --store store");
}

/// `wrk-iid-replayed`, `wrk-iid-unsigned`, `wrk-iid-wrong-cert`, `wrk-ami-not-allowed`: with documents that
/// are not this machine's. What was refused leaves nothing, neither in the store nor beside it.
#[test]
fn somebody_elses_documents_enrol_nobody() {
    let world = world_with("12h");
    let service = Service::of(&world);
    let refused = |what: &str, code: &str| {
        let said = service.request(&world, &format!("{what} --key-out keys/new")).refused(code);
        assert!(!world.path("keys/new").exists() && !world.path("keys/new.pub").exists());
        said
    };
    let other = Signer::own(&Certified::new("Amazon of tests", false));
    world.write("forged.json", document(INSTANCE, IMAGE, &other).to_json());
    world.write("image.json", document(INSTANCE, "ami-0bad0bad0bad0bad0", amazon()).to_json());
    let unsigned = ec2::document(INSTANCE, IMAGE, "eu-west-1");
    world.write("unsigned.json", attestation("ec2", &[("document", &unsigned)]).to_json());
    refused("--attestation forged.json", "WORKER_IDENTITY_UNVERIFIED");
    refused("--attestation unsigned.json", "WORKER_IDENTITY_UNVERIFIED");
    refused("", "WORKER_IDENTITY_UNVERIFIED");
    let said = refused("--attestation image.json", "WORKER_IMAGE_MISMATCH");
    assert!(said.out.contains("ami-0bad0bad0bad0bad0") && said.out.contains(IMAGE), "{said:#?}");
    assert_eq!(world.list("enrolment"), [""; 0]);

    // the first key has the machine; a thief of its document comes too late
    service.request(&world, "--attestation ec2.json --key-out keys/worker").done();
    let said = refused("--attestation ec2.json", "WORKER_IDENTITY_MISMATCH");
    assert!(said.out.contains(INSTANCE), "{said:#?}");
    // the key itself is renewed, and another machine is another matter
    let first = world.read("keys/worker.cert.jsonl");
    service.request(&world, "--attestation ec2.json --key keys/worker").done();
    assert_ne!(first, world.read("keys/worker.cert.jsonl"));
    service.request(&world, "--attestation other.json --key-out keys/worker-2").done();
    // nor is a certified key carried to another machine (`wrk-key-two-instances`)
    let moved = service.request(&world, "--attestation other.json --key keys/worker");
    moved.refused("WORKER_IDENTITY_MISMATCH");
    // once the certificate is revoked, the machine is free again
    let ids = world.list("enrolment");
    assert_eq!(ids.len(), 3);
    let text = policy(&world, "12h", &demand());
    let listed = ids.iter().map(|id| format!("\"{id}\"")).collect::<Vec<_>>().join(", ");
    let next =
        format!("version = 2\nprevious = \"{}\"\nrevoked-enrolments = [{listed}]", world.pin());
    world.sign_policy("next", &text.replace("version = 1", &next), &["alice", "bob"]);
    world.done("policy rotate next.dsse.json --store store");
    service.request(&world, "--attestation ec2.json --key-out keys/new").done();
}

/// A challenge is for one request, and nobody makes it up.
#[test]
fn a_challenge_is_used_once() {
    let world = world_with("12h");
    let service = Service::of(&world);
    let request = |challenge: &str, key: &str| {
        let attested = document(INSTANCE, IMAGE, amazon()).to_json();
        let public = PublicKey::parse(&world.public(key)).unwrap();
        let challenge: Sha256 = challenge.parse().unwrap();
        let machine = "builder".parse().unwrap();
        let message = custody_core::statement::possession(&challenge, &machine, &public.id());
        let signed = sign(&world, key, &message);
        format!(
            r#"{{"machine":"builder","key":"{}","challenge":"{challenge}","possession":"{signed}","attestations":[{attested}]}}"#,
            public.to_openssh()
        )
    };
    let fresh = || {
        let (status, answer) = service.post("/v1/challenge", "");
        assert_eq!(status, 200, "{answer}");
        let json: Value = serde_json::from_str(&answer).unwrap();
        json["challenge"].as_str().unwrap().to_owned()
    };
    let challenge = fresh();
    assert_ne!(challenge, fresh());
    // by a failed attempt too
    let body = request(&challenge, "builder");
    let wrong = body.replace("\"machine\":\"builder\"", "\"machine\":\"packer\"");
    assert_eq!(service.code(&wrong), "POLICY_KEY_PURPOSE");
    assert_eq!(service.code(&body), "CHAIN_REPLAYED");
    // and whoever mistyped a name is told the right ones
    let line =
        format!("enrol request --url http://{} --machine worke --key-out keys/x", service.address);
    let said = world.custody(&line).refused("POLICY_KEY_PURPOSE").json();
    assert!(said["expected"].as_str().unwrap().ends_with("lets be enrolled: builder"), "{said}");
    assert!(said["remedy"].as_str().unwrap().starts_with("write --machine as"), "{said}");
    let body = request(&fresh(), "builder");
    let (status, answer) = service.post("/v1/enrol", &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(service.code(&body), "CHAIN_REPLAYED");
    assert_eq!(service.code(&request(&Sha256::of(b"x").to_string(), "builder")), "CHAIN_REPLAYED");
    // a key that somebody does not have
    let stolen = request(&fresh(), "builder");
    let key = format!(
        "\"key\":\"{}\"",
        PublicKey::parse(&world.public("mallory-2")).unwrap().to_openssh()
    );
    let start = stolen.find("\"key\":").unwrap();
    let end = start + stolen[start..].find(",\"challenge\"").unwrap();
    let stolen = format!("{}{key}{}", &stolen[..start], &stolen[end..]);
    assert_eq!(service.code(&stolen), "WORKER_IDENTITY_UNVERIFIED");
    assert_eq!(service.code("{}"), "PARSE_FIELD_MISSING");
    let more =
        request(&fresh(), "builder").replacen('{', "{\"until\":\"2099-01-01T00:00:00Z\",", 1);
    assert_eq!(service.code(&more), "PARSE_UNKNOWN_FIELD");
}

fn sign(world: &World, key: &str, message: &[u8]) -> String {
    let mut ask = |_: &str| -> Result<zeroize::Zeroizing<String>, custody_core::Refusal> {
        panic!("no passphrase")
    };
    let mut access =
        custody_sign::Access { agent: None, security_key_provider: None, passphrase: &mut ask };
    let path = world.path(&format!("keys/{key}")).display().to_string();
    let signer = custody_sign::KeySource::parse(&path).unwrap().open(&mut access).unwrap();
    custody_core::encoding::base64(&signer.sign_plain(message).unwrap())
}

/// Certificates that the service would not give: by a machine that may not enrol, for longer than the
/// policy says, for a moment that is over. Each is what a thief of a key could sign.
#[test]
fn a_run_needs_a_certificate_that_holds() {
    let world = world_with("12h");
    let service = Service::of(&world);
    service.request(&world, "--attestation ec2.json --key-out keys/worker").done();
    drop(service);
    let line = world.read("keys/worker.cert.jsonl");
    let good = match envelope(&line) {
        Statement::Enrolment(enrolment) => enrolment,
        other => panic!("a {}", other.kind()),
    };
    let task = world.build_task(BUILD, "");
    let place = |enrolment: Enrolment, by: &str| {
        let forged = world.forged(enrolment, by);
        world.write("keys/worker.cert.jsonl", forged.to_json() + "\n");
    };
    let refused = |enrolment: Enrolment, by: &str, code: &str| {
        place(enrolment, by);
        world.refused(&run_line(&world, &task, "worker"), code);
    };
    let hour = 3_600;
    let (from, until) = (good.from.unix(), good.until.unix());
    let window = |from: u64, until: u64| {
        let time = |seconds| Time::from_unix(seconds).unwrap();
        Enrolment { from: time(from), until: time(until), ..good.clone() }
    };
    // other statements than the one that the service signed and the store has
    refused(window(from, until - 1), "scheduler", "POLICY_KEY_PURPOSE");
    refused(window(from, until - 2), "mallory", "ENV_KEY_UNKNOWN");
    refused(window(from, until - 3), "worker", "POLICY_KEY_PURPOSE");
    refused(window(from, until + 1), "enroller", "POLICY_KEY_PURPOSE");
    refused(window(from - 13 * hour, from - hour), "enroller", "POLICY_KEY_EXPIRED");
    refused(window(from + hour, until), "enroller", "POLICY_KEY_NOT_YET_VALID");
    let mut packer = good.clone();
    packer.machine = "packer".parse().unwrap();
    refused(packer, "enroller", "POLICY_KEY_PURPOSE");
    fs::remove_file(world.path("keys/worker.cert.jsonl")).unwrap();
    world.refused(&run_line(&world, &task, "worker"), "ENV_KEY_UNKNOWN");
    world.write("keys/worker.cert.jsonl", line);
    world.done(&run_line(&world, &task, "worker"));
}

fn envelope(line: &str) -> Statement {
    use custody_core::envelope::Payload as _;
    Statement::parse(Envelope::parse(line.trim().as_bytes()).unwrap().unverified_payload()).unwrap()
}

/// A certificate that ends while the command runs leaves no manifest, and the task can be run again.
#[test]
fn a_certificate_may_end_during_a_run() {
    let world = world_with("4s");
    let service = Service::of(&world);
    service.request(&world, "--attestation ec2.json --key-out keys/worker").done();
    let task = world.build_task(&format!("sleep 6 && {BUILD}"), "");
    service.request(&world, "--attestation ec2.json --key keys/worker").done();
    let before = world.list("manifest");
    world.custody(&run_line(&world, &task, "worker")).refused("POLICY_KEY_EXPIRED");
    assert_eq!(before, world.list("manifest"));
}

/// What speaks no HTTP, too much of it, or of something else.
#[test]
fn the_service_stands_strangers() {
    let world = world_with("12h");
    let service = Service::of(&world);
    let status = |bytes: &[u8]| service.raw(bytes).0;
    assert_eq!(status(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"), 404);
    assert_eq!(status(b"GET /v1/enrol HTTP/1.1\r\nhost: a\r\n\r\n"), 405);
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400);
    assert_eq!(status(b"POST /v1/enrol HTTP/1.1\r\nhost: a\r\n\r\n"), 411);
    assert_eq!(
        status(b"POST /v1/enrol HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        411
    );
    assert_eq!(status(b"POST /v1/enrol HTTP/1.1\r\ncontent-length: 4194305\r\n\r\n"), 413);
    assert_eq!(
        status(b"POST /v1/enrol HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        400
    );
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(9_000));
    assert_eq!(status(long.as_bytes()), 413);
    let nested = "[".repeat(10_000);
    assert_eq!(service.code(&nested), "PARSE_DEPTH_EXCEEDED");
    // whoever says nothing, or hangs up, takes nobody's place
    let silent: Vec<TcpStream> =
        (0..32).map(|_| TcpStream::connect(&service.address).unwrap()).collect();
    service.request(&world, "--attestation ec2.json --key-out keys/worker").done();
    drop(silent);
    // so many at once are too many
    let turned_away = || service.post("/v1/challenge", "").0 == 429;
    until("the service has had enough", turned_away);
    until("it takes requests again", || service.post("/v1/challenge", "").0 == 200);
}

/// The service enrols nobody with a key that may not, and speaks to nobody in the clear but here.
#[test]
fn who_serves_and_where() {
    let world = world_with("12h");
    world.refused(
        "enrol serve --store store --key keys/scheduler --listen 127.0.0.1:0",
        "POLICY_KEY_PURPOSE",
    );
    let line = "enrol request --url http://enrol.example.org --machine builder --key-out keys/new";
    world.refused(line, "GATE_UNAVAILABLE");
    world.custody("enrol request --url http://127.0.0.1:9 --machine builder").ended(2);
    assert!(!world.path("keys/new").exists());
}
