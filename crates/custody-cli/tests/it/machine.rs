//! What the platforms of a machine say of it gets into the manifest: services that speak their protocols
//! for real, at the addresses that they have, in a network that the test has for itself.

mod http;
mod jobs;
mod kubernetes;
mod services;
mod tpm;

use std::io::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use self::services::{Imds, METADATA};
use crate::enrol;
use crate::world::{Said, World, is_root, skipped};

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

/// Runs the task with these variables in the worker's environment.
fn with(world: &World, line: &str, variables: &[(&str, &str)]) -> Said {
    let mut command = world.command(&format!("--json {line}"));
    command.envs(variables.iter().copied());
    world.say(command)
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

        let shown =
            world.typed(&format!("show {} --store store", world.list("manifest")[0])).done();
        let line = format!("claimed   {:<28} ami-0abcdef1234567890", "ec2.image-id");
        assert!(shown.out.contains(&line), "{}", shown.out);
        let found =
            world.done("trace --store store --environment ec2.image-id=ami-0abcdef1234567890");
        assert!(found.out.contains("ec2.instance-id i-0123456789abcdef0"), "{}", found.out);

        let asked = server.asked();
        let asked: Vec<String> =
            asked.iter().map(|request| format!("{} {}", request.method, request.path)).collect();
        let documents = ["document", "rsa2048", "signature"]
            .map(|part| format!("GET /latest/dynamic/instance-identity/{part}"));
        assert_eq!(asked[0], "PUT /latest/api/token");
        assert_eq!(asked[1..], documents);
    });
}

/// `wrk-ami-not-allowed`: from the policy's text to the verdict on a file. The refusal names the image that was
/// demanded and the one that was found.
#[test]
fn a_policy_demands_the_image_of_the_machine() {
    in_own_network("a_policy_demands_the_image_of_the_machine", || {
        let images = ["ami-good", "ami-other"].map(|image| Imds::new(image, enrol::amazon()));
        let booted = Arc::new(AtomicUsize::new(0));
        let image = Arc::clone(&booted);
        let _server = Server::start(METADATA, move |request| {
            images[image.load(Ordering::Relaxed)].answer(request)
        });
        let world = World::with_keys();
        world.found(&demanding(&world));
        let task = world.build_task("echo x >> {param.room}/ran; mkdir dist; echo x > dist/x", "");
        let line = |more: &str| format!("{} {more}", world.run_line(&task));
        // before the command begins, in the words of whoever would judge its work
        booted.store(1, Ordering::Relaxed);
        let other = world.refused(&line("--platform ec2"), "WORKER_IMAGE_MISMATCH").json();
        assert_eq!(other["expected"], "ami-good");
        assert_eq!(other["found"], "ami-other, verified");
        world.refused(&line(""), "WORKER_IDENTITY_UNVERIFIED");
        assert!(!world.path("room/ran").exists());
        booted.store(0, Ordering::Relaxed);
        world.done(&line("--platform ec2"));
        assert!(world.path("room/ran").exists());
        world.write("x", "x\n");
        let good = world.typed("verify x --store store --step build").done();
        assert!(good.out.contains("machine, verified: "), "{}", good.out);
        assert!(good.out.contains("ec2.image-id ami-good"), "{}", good.out);
    });
}

/// Builds come from one image of Amazon's, and the builder's key is tied to its instance.
fn demanding(world: &World) -> String {
    let key = world.public("builder");
    let instance = "{ \"ec2.instance-id\" = \"i-0123456789abcdef0\" }";
    let platform = format!(
        "[platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\"], certificate = \"\"\"{}\"\"\" }}]\n",
        enrol::amazon().certificate_pem()
    );
    let demand = "[products.hello.steps.build]\nmachine = [{ fact = \"ec2.image-id\", is = [\"ami-good\"], standing = \"verified\" }]\n";
    let text = world.policy_text();
    text.replace(&format!("\"{key}\" }}"), &format!("\"{key}\", machine = {instance} }}"))
        .replace("[roles.releng]", &format!("{platform}[roles.releng]"))
        .replace("[products.hello.steps.build]\n", demand)
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
