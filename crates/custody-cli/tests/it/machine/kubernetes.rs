//! A pod proves which it is.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use custody_core::Code;
use custody_machine::{Platform, Preset, TokenIssuer};
use custody_platforms::Signer;
use custody_platforms::token::Issuer;

use super::http::Server;
use super::services::{self, now};
use super::{assert_claimed, fact, in_own_network, issuer, manifest, proof, task};
use crate::world::World;

#[test]
fn a_pod_of_kubernetes_proves_what_it_is() {
    in_own_network("kubernetes::a_pod_of_kubernetes_proves_what_it_is", || {
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
