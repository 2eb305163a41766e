//! What the platforms of a machine say of it gets into the manifest: services that speak their protocols
//! for real, at the addresses that they have, in a network that the test has for itself.

mod http;
mod services;

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use custody_core::digest::Sha256;
use custody_core::key::PublicKey;
use custody_core::statement::{Attestation, Manifest, binding};
use custody_core::{Code, Refusal};
use custody_machine::{
    Azure, Context, Ec2, Platform, Preset, Proof, RegionalCertificate, TokenIssuer, read_jwks,
    verify,
};
use custody_platforms::Signer;
use custody_platforms::token::Issuer;

use self::http::{Answer, Server};
use self::services::{Imds, METADATA, now};
use crate::enrol;
use crate::world::{Said, World, is_root, skipped, until};

/// Says to the test that it is in a network of its own.
const INSIDE: &str = "CUSTODY_TEST_INSIDE";

/// Runs the test's body with an own network, in which the address of metadata services is on the
/// loopback device, and with own mounts. Names of clusters and clouds lead to the loopback device, as
/// whoever can write the hosts file would have it. The test is started again in there.
fn in_own_network(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    if !is_root() {
        return skipped(test, "a network of its own needs root");
    }
    let script = "set -e
        ip link set lo up
        ip addr add 169.254.169.254/32 dev lo
        ip -6 addr add fd00:ec2::254/128 dev lo nodad
        mount -t tmpfs run /run
        echo '127.0.0.1 localhost metadata.google.internal instance-data kubernetes.default.svc' > /run/hosts
        mount --bind /run/hosts /etc/hosts
        exec \"$@\"";
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--", "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("machine::{test}"), "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    std::io::stderr().write_all(&output.stderr).unwrap();
    assert!(output.status.success(), "{}{}", said(&output.stdout), said(&output.stderr));
    assert!(said(&output.stdout).contains("1 passed"), "{}", said(&output.stdout));
}

/// A task whose command tells that it ran.
fn task(world: &World) -> String {
    world.build_task("mkdir dist; echo x > dist/x", "")
}

fn manifest(world: &World, said: &Said) -> Manifest {
    world.content(&said.text("manifest")).as_manifest().unwrap().clone()
}

fn fact<'m>(manifest: &'m Manifest, name: &str) -> Option<&'m str> {
    manifest.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// What the judge makes of the only attestation.
fn proof(world: &World, manifest: &Manifest, platform: &Platform) -> Result<Proof, Refusal> {
    let [attestation]: &[Attestation; 1] = manifest.attestations.as_array().unwrap();
    let key = PublicKey::parse(&world.public("builder")).unwrap();
    let binding = binding(&manifest.task.0, &key.id());
    verify(attestation, platform, &Context { binding, at: manifest.started, skew: 0 })
}

/// Every fact that is proved was claimed with the same value.
fn assert_claimed(manifest: &Manifest, proof: &Proof) {
    for (name, value) in &proof.facts {
        assert_eq!(fact(manifest, name), Some(value.as_str()), "{name}");
    }
}

fn amazon(signer: &Signer) -> Platform {
    let certificate = signer.certificate_pem().parse().unwrap();
    let regions = ["eu-west-1".to_owned()].into();
    Platform::Ec2(Ec2 { certificates: vec![RegionalCertificate { regions, certificate }] })
}

fn issuer(issuer: &Issuer, preset: Preset) -> Platform {
    Platform::Token(TokenIssuer {
        issuer: issuer.url.clone(),
        keys: read_jwks(&issuer.jwks()).unwrap(),
        audience: None,
        claims: preset.claims(),
    })
}

#[test]
fn an_instance_of_ec2_proves_what_it_is() {
    in_own_network("an_instance_of_ec2_proves_what_it_is", || {
        let world = World::fresh();
        let signer = Signer::authority("ec2");
        let imds = Imds::new("ami-0abcdef1234567890", &signer);
        let server = Server::start(METADATA, move |request| imds.answer(request));
        // the command is kept away from the service, which answers everybody on the machine
        let command =
            "mkdir dist; echo x > dist/x; ! bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'";
        let task = world.build_task(command, "");
        let line = format!("{} --platform ec2", world.run_line(&task));
        let manifest = manifest(&world, &world.done(&line));

        assert_eq!(fact(&manifest, "ec2.image-id"), Some("ami-0abcdef1234567890"));
        assert_eq!(fact(&manifest, "ec2.instance-id"), Some("i-0123456789abcdef0"));
        assert!(manifest.environment.is_sorted());
        let proof = proof(&world, &manifest, &amazon(&signer)).unwrap();
        assert_eq!(proof.facts.len(), 8);
        assert_claimed(&manifest, &proof);

        let asked = server.asked();
        let asked: Vec<String> =
            asked.iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        let documents = ["document", "rsa2048", "signature"]
            .map(|part| format!("GET /latest/dynamic/instance-identity/{part}"));
        assert_eq!(asked[0], "PUT /latest/api/token");
        assert_eq!(asked[1..], documents);
    });
}

/// The worker asks the platform itself when it is enrolled.
#[test]
fn an_instance_of_ec2_is_enrolled() {
    in_own_network("an_instance_of_ec2_is_enrolled", || {
        let world = enrol::world_with("12h");
        let service = enrol::Service::of(&world);
        let line = "--platform ec2 --key-out keys/worker";
        service.request(&world, line).refused("GATE_UNAVAILABLE");
        let imds = Imds::new(enrol::IMAGE, enrol::amazon());
        let server = Server::start(METADATA, move |request| imds.answer(request));
        let said = service.request(&world, line).done().json();
        assert_eq!(said["facts"]["ec2.instance-id"], "i-0123456789abcdef0");
        assert_eq!(server.asked().len(), 4);
        assert!(world.path("keys/worker.cert.jsonl").exists());
    });
}

/// On a machine that has no other address, the service is at that of version 6.
#[test]
fn the_other_address_of_ec2_is_asked_where_nobody_is_at_the_first() {
    in_own_network("the_other_address_of_ec2_is_asked_where_nobody_is_at_the_first", || {
        let world = World::fresh();
        let imds = Imds::new("ami-1", &Signer::authority("ec2"));
        let server = Server::start("[fd00:ec2::254]:80", move |request| imds.answer(request));
        let line = format!("{} --platform farm=ec2", world.run_line(&task(&world)));
        let manifest = manifest(&world, &world.done(&line));
        assert_eq!(fact(&manifest, "farm.image-id"), Some("ami-1"));
        assert_eq!(manifest.attestations[0].platform.as_str(), "farm");
        assert_eq!(server.asked().len(), 4);
    });
}

/// `wrk-imds-spoofed`: whoever can set variables, proxies or names of hosts does not become the machine's
/// metadata service, and whoever answers at its very address has no signature.
#[test]
fn nobody_else_answers_for_the_machine() {
    in_own_network("nobody_else_answers_for_the_machine", || {
        let world = World::fresh();
        let (signer, mallory) = (Signer::authority("ec2"), Signer::authority("ec2"));
        let spoof = Imds::new("ami-evil", &mallory);
        let spoof = Server::start("127.0.0.1:0", move |request| spoof.answer(request));
        let elsewhere = Server::start("127.0.0.1:80", |_| Answer::ok("evil"));
        let misled = |line: &str| {
            let mut command = world.command(&format!("--json {line}"));
            let place = format!("http://127.0.0.1:{}", spoof.port);
            for name in [
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                "AWS_METADATA_ENDPOINT",
                "http_proxy",
                "HTTP_PROXY",
                "https_proxy",
                "HTTPS_PROXY",
                "all_proxy",
                "ALL_PROXY",
                "MSI_ENDPOINT",
            ] {
                command.env(name, &place);
            }
            for name in ["GCE_METADATA_HOST", "GCE_METADATA_IP", "GCE_METADATA_ROOT"] {
                command.env(name, format!("127.0.0.1:{}", spoof.port));
            }
            command.env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv6");
            command.env("AWS_EC2_METADATA_DISABLED", "true");
            world.say(command)
        };
        let task = task(&world);
        let line = |kind: &str| format!("{} --platform {kind}", world.run_line(&task));

        // nobody is at the address of the platform
        for kind in ["ec2", "google", "azure"] {
            misled(&line(kind)).refused("GATE_UNAVAILABLE");
        }
        assert!(spoof.asked().is_empty() && elsewhere.asked().is_empty());

        // somebody is, and sends us elsewhere, or does not do what the platform does
        let place = format!("http://127.0.0.1:{}/latest/api/token", spoof.port);
        let forged = Imds::new("ami-evil", &mallory);
        let stage = Arc::new(AtomicUsize::new(0));
        let now = Arc::clone(&stage);
        let server = Server::start(METADATA, move |request| {
            match (now.load(Ordering::Relaxed), request.method.as_str()) {
                (0, _) => Answer::status(307).with("Location", &place),
                (1, _) => Answer::status(403),
                (2, _) => Answer::ok(vec![b'x'; (256 << 10) + 1]),
                (3, "PUT") => Answer::ok("a session\r\nwith more"),
                (4, "GET") => Answer::ok("<html>"),
                _ => forged.answer(request),
            }
        });
        for kind in ["ec2", "google", "azure"] {
            for stages in 0..=4 {
                stage.store(stages, Ordering::Relaxed);
                misled(&line(kind)).refused("GATE_UNAVAILABLE");
            }
        }
        assert!(world.list("manifest").is_empty(), "nothing has run");

        // somebody is, and answers as the platform does: the judge has the last word
        stage.store(5, Ordering::Relaxed);
        let manifest = manifest(&world, &misled(&line("ec2")).done());
        assert_eq!(fact(&manifest, "ec2.image-id"), Some("ami-evil"), "a claim");
        let refusal = proof(&world, &manifest, &amazon(&signer)).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
        proof(&world, &manifest, &amazon(&mallory)).unwrap();
        assert!(spoof.asked().is_empty() && elsewhere.asked().is_empty());
        assert!(server.asked().len() > 15);
    });
}

#[test]
fn an_instance_of_google_proves_what_it_is() {
    in_own_network("an_instance_of_google_proves_what_it_is", || {
        let world = World::fresh();
        let google = Arc::new(Issuer::new("https://accounts.google.com"));
        let platform = issuer(&google, Preset::Google);
        let flavor = Arc::new(AtomicUsize::new(0));
        let flavored = Arc::clone(&flavor);
        Server::start(METADATA, move |request| {
            let answer = services::google(&google, request);
            if flavored.load(Ordering::Relaxed) == 0 { answer.bare() } else { answer }
        });
        let line = format!("{} --platform google", world.run_line(&task(&world)));
        // what answers everything is not Google's server
        world.refused(&line, "GATE_UNAVAILABLE");
        flavor.store(1, Ordering::Relaxed);
        let manifest = manifest(&world, &world.done(&line));
        assert_eq!(fact(&manifest, "google.instance-id"), Some("152986662232938449"));
        assert_eq!(fact(&manifest, "google.zone"), Some("europe-west1-b"));
        let proof = proof(&world, &manifest, &platform).unwrap();
        assert!(proof.bound);
        assert_claimed(&manifest, &proof);
    });
}

#[test]
fn a_machine_of_azure_proves_what_it_is() {
    in_own_network("a_machine_of_azure_proves_what_it_is", || {
        let world = World::fresh();
        let authority = Signer::authority("azure");
        let platform = Platform::Azure(Azure {
            authorities: vec![authority.certificate_pem().parse().unwrap()],
            names: vec!["metadata.azure.com".into()],
        });
        let signer = custody_platforms::azure::signer(&authority);
        Server::start(METADATA, move |request| services::azure(&signer, &[], request));
        let line = format!("{} --platform azure", world.run_line(&task(&world)));
        let manifest = manifest(&world, &world.done(&line));
        let machine = Some("02aab8a4-74ef-476e-8182-f6d2ba4166a6");
        assert_eq!(fact(&manifest, "azure.vm-id"), machine);
        let proof = proof(&world, &manifest, &platform).unwrap();
        assert!(proof.bound);
        assert_claimed(&manifest, &proof);
    });
}

#[test]
fn a_pod_of_kubernetes_proves_what_it_is() {
    in_own_network("a_pod_of_kubernetes_proves_what_it_is", || {
        let world = World::fresh();
        let cluster = Arc::new(Issuer::new("https://kubernetes.default.svc.cluster.local"));
        let platform = issuer(&cluster, Preset::Kubernetes);
        let own = cluster.kubernetes("https://kubernetes.default.svc", now());
        let tls = certified(&world, "kubernetes.default.svc");
        let (token, asked) = (own.clone(), Arc::clone(&cluster));
        let server = Server::start_tls("127.0.0.1:443", Some(tls), move |request| {
            services::kubernetes(&asked, &token, request)
        });
        let line = format!("{} --platform kubernetes", world.run_line(&task(&world)));
        // a machine that is no pod
        world.refused(&line, "GATE_UNAVAILABLE");
        let home = Path::new("/var/run/secrets/kubernetes.io/serviceaccount");
        fs::create_dir_all(home).unwrap();
        fs::write(home.join("token"), &own).unwrap();
        // another authority than the one that certified the server
        let other = Signer::authority("another cluster").certificate_pem();
        fs::write(home.join("ca.crt"), other).unwrap();
        world.refused(&line, "GATE_UNAVAILABLE");
        assert!(server.asked().is_empty(), "no secret is shown to strangers");

        fs::copy(world.path("authority.pem"), home.join("ca.crt")).unwrap();
        let manifest = manifest(&world, &world.done(&line));
        assert_eq!(fact(&manifest, "kubernetes.namespace"), Some("builds"));
        assert_eq!(fact(&manifest, "kubernetes.pod"), Some("hello-build-x7k2p"));
        let proof = proof(&world, &manifest, &platform).unwrap();
        assert_claimed(&manifest, &proof);
        assert_ne!(manifest.attestations[0].part("token"), Some(own.as_bytes()));
    });
}

/// A projected token is taken as it is: its audience is not of this run, and the judge is told so.
#[test]
fn a_projected_token_is_not_bound_to_a_run() {
    let world = World::fresh();
    let cluster = Issuer::new("https://cluster.example.org");
    world.write("token", cluster.kubernetes("custody", now()) + "\n");
    let more = "--platform farm=kubernetes --kubernetes-token token";
    let manifest =
        manifest(&world, &world.done(&format!("{} {more}", world.run_line(&task(&world)))));
    assert_eq!(fact(&manifest, "farm.pod"), Some("hello-build-x7k2p"));
    let Platform::Token(bound) = issuer(&cluster, Preset::Kubernetes) else { unreachable!() };
    let fixed = TokenIssuer { audience: Some("custody".into()), ..bound.clone() };
    assert!(!proof(&world, &manifest, &Platform::Token(fixed)).unwrap().bound);
    let refusal = proof(&world, &manifest, &Platform::Token(bound)).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerIdentityMismatch);
}

/// A server's configuration with a certificate for this name. The authority's is `authority.pem`.
fn certified(world: &World, name: &str) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    let openssl = |line: &str| {
        let mut command = Command::new("openssl");
        command.args(line.split_whitespace()).current_dir(world.path("."));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&format!("req -x509 {new} -subj /CN=cluster -keyout authority.key -out authority.pem"));
    openssl(&format!(
        "req -x509 {new} -subj /CN={name} -addext subjectAltName=DNS:{name} -addext \
         basicConstraints=critical,CA:FALSE -CA authority.pem -CAkey authority.key -keyout server.key -out server.pem"
    ));
    let certificate = CertificateDer::from_pem_file(world.path("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(world.path("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.unwrap())
}

/// Runs the task with these variables in the worker's environment.
fn with(world: &World, line: &str, variables: &[(&str, &str)]) -> Said {
    let mut command = world.command(&format!("--json {line}"));
    command.envs(variables.iter().copied());
    world.say(command)
}

#[test]
fn a_job_of_github_proves_what_it_is() {
    let world = World::fresh();
    let github = Arc::new(Issuer::new("https://token.actions.githubusercontent.com"));
    let platform = issuer(&github, Preset::Github);
    let server = Server::start("127.0.0.1:0", move |request| services::github(&github, request));
    let line = format!("{} --platform github", world.run_line(&task(&world)));
    let place = format!("http://127.0.0.1:{}/id-token?api-version=2.0", server.port);
    let job = |secret| {
        let variables = [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", place.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", secret),
            ("GITHUB_REPOSITORY", "evil/repository"),
            ("RUNNER_NAME", "runner-7"),
        ];
        with(&world, &line, &variables)
    };
    // without the permission to have a token there is no service, and with another job's secret no token
    with(&world, &line, &[("GITHUB_ACTIONS", "true")]).refused("GATE_UNAVAILABLE");
    job("of-another-job").refused("GATE_UNAVAILABLE");
    let manifest = manifest(&world, &job("of-the-job").done());
    assert_eq!(fact(&manifest, "github.repository"), Some("example/hello"));
    assert_eq!(fact(&manifest, "github.runner-name"), Some("runner-7"));
    let proof = proof(&world, &manifest, &platform).unwrap();
    assert!(proof.bound && !proof.facts.contains_key("github.runner-name"));
    assert_claimed(&manifest, &proof);
    let text = world.done(&format!("evidence get {} --store store", world.list("manifest")[0])).out;
    assert!(!text.contains("of-the-job"), "the secret stays where it was");
}

#[test]
fn a_job_of_gitlab_shows_the_token_that_it_has() {
    let world = World::fresh();
    let gitlab = Issuer::new("https://gitlab.com");
    let token = gitlab.gitlab("https://custody.example.org", now());
    let line = format!("{} --platform gitlab", world.run_line(&task(&world)));
    world.refused(&line, "GATE_UNAVAILABLE");
    let variables = [("CUSTODY_ID_TOKEN", &*token), ("CI_RUNNER_DESCRIPTION", "farm 7")];
    let manifest = manifest(&world, &with(&world, &line, &variables).done());
    let Platform::Token(known) = issuer(&gitlab, Preset::Gitlab) else { unreachable!() };
    let audience = Some("https://custody.example.org".into());
    let proof = proof(&world, &manifest, &Platform::Token(TokenIssuer { audience, ..known }));
    assert_claimed(&manifest, &proof.unwrap());
    assert_eq!(fact(&manifest, "gitlab.runner-description"), Some("farm 7"));
}

/// The agent of Buildkite is a program; this one stands for it.
#[test]
fn a_job_of_buildkite_proves_what_it_is() {
    let world = World::fresh();
    let buildkite = Issuer::new("https://agent.buildkite.com");
    let task = task(&world);
    let key = PublicKey::parse(&world.public("builder")).unwrap();
    let audience = custody_machine::audience(&binding(&task.parse().unwrap(), &key.id()));
    world.write("token", buildkite.buildkite(&audience, now()));
    let agent = format!(
        "#!/bin/sh\n[ \"$*\" = 'oidc request-token --audience {audience}' ] && [ \"$BUILDKITE_AGENT_ACCESS_TOKEN\" = secret ] &&\n\
         [ -z \"$AWS_SECRET_ACCESS_KEY\" ] && exec cat {}\necho 'not this job' >&2\nexit 1\n",
        world.path("token").display()
    );
    world.write("bin/buildkite-agent", agent);
    fs::set_permissions(world.path("bin/buildkite-agent"), fs::Permissions::from_mode(0o755))
        .unwrap();
    let line = format!("{} --platform buildkite", world.run_line(&task));
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    let job = |secret| {
        let variables = [
            ("PATH", path.as_str()),
            ("BUILDKITE_JOB_ID", "0184990a-477b-4fa8-9968-496074483cee"),
            ("BUILDKITE_AGENT_ACCESS_TOKEN", secret),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ];
        with(&world, &line, &variables)
    };
    let refused = job("another").refused("GATE_UNAVAILABLE");
    assert!(refused.out.contains("not this job"), "{refused:#?}");
    let manifest = manifest(&world, &job("secret").done());
    let proof = proof(&world, &manifest, &issuer(&buildkite, Preset::Buildkite)).unwrap();
    assert_claimed(&manifest, &proof);
}

/// `wrk-tenant-writes-claims`: what a task's variables and files say of the machine is not taken for the
/// machine's word, also where the machine has nothing but words.
#[test]
fn a_task_says_nothing_of_its_machine() {
    let world = World::fresh();
    let command = "mkdir dist; echo x > dist/x; for name in attestations platform.json environment; do \
                   echo '{{\"taskcluster.task-id\":\"evil\",\"ec2.image-id\":\"ami-evil\"}}' > $name; done; \
                   export RUN_ID=9 BUILD_TAG=evil";
    let variables = "variables = { TASK_ID = \"evil\", RUN_ID = \"evil\", BUILD_TAG = \"evil\", \
                     CUSTODY_ID_TOKEN = \"e30.e30.e30\" }";
    let task = world.build_task(command, variables);
    let line = format!("{} --platform taskcluster --platform jenkins", world.run_line(&task));
    // the task's variables are not the worker's
    world.refused(&line, "GATE_UNAVAILABLE");
    let variables = [
        ("TASK_ID", "fN1SbArXTPSVFNUvaOlinQ"),
        ("RUN_ID", "0"),
        ("TASKCLUSTER_WORKER_GROUP", "us-west-2"),
        ("BUILD_TAG", "jenkins-hello-17"),
        ("JENKINS_URL", "https://ci.example.org/"),
        ("NODE_NAME", "a\u{202e}b"),
    ];
    let manifest = manifest(&world, &with(&world, &line, &variables).done());
    assert!(manifest.attestations.is_empty());
    assert_eq!(fact(&manifest, "taskcluster.task-id"), Some("fN1SbArXTPSVFNUvaOlinQ"));
    assert_eq!(fact(&manifest, "taskcluster.run-id"), Some("0"));
    assert_eq!(fact(&manifest, "jenkins.build-tag"), Some("jenkins-hello-17"));
    assert_eq!(fact(&manifest, "jenkins.node-name"), None);
    assert!(!format!("{:?}", manifest.environment).contains("evil"));
}

#[test]
fn platforms_have_names_of_their_own() {
    let world = World::fresh();
    let line = world.run_line(&task(&world));
    let twice = format!("{line} --platform ec2 --platform ec2");
    world.refused(&twice, "STMT_SUBJECT_DUPLICATE");
    for wrong in ["--platform vax", "--platform =ec2", "--platform tpm", "--tpm-pcrs 24"] {
        world.custody(&format!("{line} {wrong}")).ended(2);
    }
    world.done(&line);
}

/// A TPM in software, as firmware would leave it, with an attestation key.
struct SoftTpm(std::process::Child);

impl SoftTpm {
    const PORT: u16 = 2321;
    const TCTI: &str = "swtpm:host=127.0.0.1,port=2321";

    /// Starts it, makes the key `ak` and writes its public part to `ak.pem`.
    fn start(world: &World) -> Self {
        fs::create_dir(world.path("tpm")).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", world.path("tpm").display()))
            .args(["--server", &format!("type=tcp,port={},bindaddr=127.0.0.1", Self::PORT)])
            .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", Self::PORT + 1)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self(child);
        until("a TPM", || TcpStream::connect(("127.0.0.1", Self::PORT + 1)).is_ok());
        for line in [
            "tpm2_createek -Q -G ecc -c ek.ctx",
            "tpm2_flushcontext -t",
            "tpm2_createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -f pem -u ak.pem",
            "tpm2_flushcontext -t",
            "tpm2_evictcontrol -Q -c ak.ctx 0x81010002",
            "tpm2_flushcontext -t",
            "tpm2_pcrextend 4:sha256=5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        ] {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).current_dir(world.path(".")).env("TPM2TOOLS_TCTI", Self::TCTI);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        tpm
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[test]
fn a_tpm_quotes_what_was_booted() {
    in_own_network("a_tpm_quotes_what_was_booted", || {
        if Command::new("swtpm").arg("--version").output().is_err() {
            return skipped("a_tpm_quotes_what_was_booted", "there is no swtpm");
        }
        let world = World::fresh();
        let line = world.run_line(&task(&world));
        let tpm = |key: &str| {
            let more = format!("--platform tpm --tpm-key {key} --tpm-pcrs 0-4,7,16");
            // nobody else says which TPM is meant
            let other = [("TPM2TOOLS_TCTI", "swtpm:host=127.0.0.1,port=1"), ("TCTI", "none")];
            with(&world, &format!("{line} {more} --tpm-tcti {}", SoftTpm::TCTI), &other)
        };
        tpm("0x81010002").refused("GATE_UNAVAILABLE");
        let _running = SoftTpm::start(&world);
        tpm("0x81010009").refused("GATE_UNAVAILABLE");
        assert!(world.list("manifest").is_empty(), "nothing has run");

        let manifest = manifest(&world, &tpm("0x81010002").done());
        let key = PublicKey::parse(&world.read("ak.pem")).unwrap();
        let id = key.id().to_string();
        let known = Platform::Tpm(custody_machine::Tpm { keys: vec![key], authorities: vec![] });
        let proof = proof(&world, &manifest, &known).unwrap();
        assert_eq!(fact(&manifest, "tpm.key"), Some(&*id));
        for register in [0, 1, 2, 3, 4, 7, 16] {
            let name = format!("tpm.pcr-{register}");
            assert_eq!(fact(&manifest, &name), proof.facts.get(&name).map(String::as_str));
        }
        assert_ne!(proof.facts["tpm.pcr-4"], proof.facts["tpm.pcr-3"]);
        assert!(fact(&manifest, "tpm.pcr-5").is_none());
        // the quote is of this run and of no other
        let [attestation]: &[Attestation; 1] = manifest.attestations.as_array().unwrap();
        let other = Context { binding: Sha256::of(b"another"), at: manifest.started, skew: 0 };
        let refusal = verify(attestation, &known, &other).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityMismatch);
    });
}
