//! The services that platforms have for machines, as their documentation describes them: what they demand
//! of a question and what they answer.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use custody_core::time::Time;
use custody_platforms::token::Issuer;
use custody_platforms::{Signer, azure, ec2};

use super::http::{Answer, Request};

/// The address of all three clouds.
pub(super) const METADATA: &str = "169.254.169.254:80";

pub(super) fn now() -> Time {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Time::from_unix(elapsed.as_secs()).unwrap()
}

/// Amazon's instance metadata service where version 1 is switched off.
pub(super) struct Imds {
    sessions: Mutex<Vec<(String, Instant)>>,
    document: String,
    rsa2048: String,
    signature: String,
}

impl Imds {
    pub(super) fn new(image: &str, signer: &Signer) -> Self {
        let document = ec2::document("i-0123456789abcdef0", image, "eu-west-1");
        Self {
            sessions: Mutex::default(),
            rsa2048: ec2::rsa2048(&document, signer),
            signature: ec2::signature(&document, signer),
            document,
        }
    }

    pub(super) fn answer(&self, request: &Request) -> Answer {
        let mut sessions = self.sessions.lock().unwrap();
        match (request.method.as_str(), request.path.as_str()) {
            // a question that came through a proxy
            ("PUT", _) if request.header("x-forwarded-for").is_some() => Answer::status(403),
            ("PUT", "/latest/api/token") => {
                let name = "x-aws-ec2-metadata-token-ttl-seconds";
                let seconds = request.header(name).and_then(|text| text.parse::<u64>().ok());
                let Some(seconds) = seconds.filter(|seconds| (1..=21_600).contains(seconds)) else {
                    return Answer::status(400);
                };
                let token = format!("session-{}-{}==", std::process::id(), sessions.len());
                sessions.push((token.clone(), Instant::now() + Duration::from_secs(seconds)));
                Answer::ok(token).with("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", &seconds.to_string())
            }
            ("GET", path) => {
                let token = request.header("x-aws-ec2-metadata-token");
                let known = |(known, until): &(String, Instant)| {
                    Some(known.as_str()) == token && Instant::now() < *until
                };
                if !sessions.iter().any(known) {
                    return Answer::status(401);
                }
                match path.strip_prefix("/latest/dynamic/instance-identity/") {
                    Some("document") => Answer::ok(self.document.clone()),
                    Some("rsa2048") => Answer::ok(self.rsa2048.clone()),
                    Some("signature") => Answer::ok(self.signature.clone()),
                    _ => Answer::status(404),
                }
            }
            _ => Answer::status(405),
        }
    }
}

/// Google's metadata server.
pub(super) fn google(issuer: &Issuer, request: &Request) -> Answer {
    let host = request.header("host").unwrap_or_default();
    let ours = ["metadata.google.internal", "metadata", "169.254.169.254"].contains(&host);
    let flavor = request.header("metadata-flavor") == Some("Google");
    if request.method != "GET" {
        return Answer::status(405);
    }
    if !ours || !flavor || request.header("x-forwarded-for").is_some() {
        return Answer::status(403);
    }
    let path = "/computeMetadata/v1/instance/service-accounts/default/identity";
    match (request.path == path, request.query("audience"), request.query("format")) {
        (true, Some(audience), Some("full")) => {
            Answer::ok(issuer.google(audience, now())).with("Metadata-Flavor", "Google")
        }
        _ => Answer::status(404),
    }
}

/// Azure's instance metadata service.
pub(super) fn azure(signer: &Signer, between: &[&Signer], request: &Request) -> Answer {
    let meant = request.header("metadata") == Some("true");
    if request.method != "GET" || !meant || request.header("x-forwarded-for").is_some() {
        return Answer::status(400);
    }
    let version = request.query("api-version");
    match (request.path.as_str(), version, request.query("nonce")) {
        ("/metadata/attested/document", Some("2020-09-01"), Some(nonce)) => {
            let content = azure::content("02aab8a4-74ef-476e-8182-f6d2ba4166a6", nonce, now());
            let attested = azure::attested(&content, signer, between);
            Answer::ok(format!(r#"{{"encoding":"pkcs7","signature":"{attested}"}}"#))
        }
        ("/metadata/instance/compute", Some("2021-02-01"), _) => Answer::ok(
            r#"{"azEnvironment":"AzurePublicCloud","location":"westeurope","licenseType":"","plan":{"name":"","product":"","publisher":""},"sku":"22_04-lts-gen2","subscriptionId":"8d10da13-8125-4ba9-a717-bf7490507b3d","vmId":"02aab8a4-74ef-476e-8182-f6d2ba4166a6"}"#,
        ),
        _ => Answer::status(400),
    }
}

/// The token service of GitHub Actions.
pub(super) fn github(issuer: &Issuer, request: &Request) -> Answer {
    if request.header("authorization") != Some("Bearer of-the-job") {
        return Answer::status(401);
    }
    match (request.method.as_str(), request.query("api-version"), request.query("audience")) {
        ("GET", Some("2.0"), Some(audience)) => {
            let token = issuer.github(audience, now());
            Answer::ok(format!(r#"{{"count":{},"value":"{token}"}}"#, token.len()))
        }
        _ => Answer::status(400),
    }
}

/// The API server of a Kubernetes cluster, for a pod that has this token.
pub(super) fn kubernetes(issuer: &Issuer, own: &str, request: &Request) -> Answer {
    if request.header("authorization") != Some(&format!("Bearer {own}")) {
        return Answer::status(401);
    }
    let path = "/api/v1/namespaces/builds/serviceaccounts/builder/token";
    if request.method != "POST" || request.path != path {
        return Answer::status(403);
    }
    let body: serde_json::Value = serde_json::from_str(&request.body).unwrap_or_default();
    let spec = &body["spec"];
    let pod = &spec["boundObjectRef"];
    let audience = spec["audiences"][0].as_str();
    let meant = body["kind"] == "TokenRequest"
        && body["apiVersion"] == "authentication.k8s.io/v1"
        && spec["expirationSeconds"].as_u64().is_some_and(|seconds| seconds >= 600)
        && (&pod["kind"], &pod["name"], &pod["uid"])
            == (&"Pod".into(), &"hello-build-x7k2p".into(), &"5fd2a7f0".into());
    match audience.filter(|_| meant) {
        Some(audience) => {
            let token = issuer.kubernetes(audience, now());
            let answer = serde_json::json!({
                "kind": "TokenRequest",
                "apiVersion": "authentication.k8s.io/v1",
                "spec": spec,
                "status": { "token": token, "expirationTimestamp": now().plus(600).to_string() },
            });
            Answer::created(answer.to_string())
        }
        None => Answer::status(422),
    }
}
