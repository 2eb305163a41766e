//! Kubernetes: a token of the pod's service account, which names the pod (Kubernetes documentation,
//! "Managing Service Accounts", "`TokenRequest` API").
//!
//! A token that the pod has as a file is for the audience that its definition has. One of this run's
//! audience is asked for at the API server, which the cluster's own authority certified.

use std::fs;
use std::path::Path;

use custody_core::digest::Sha256;
use custody_core::json::Value;
use custody_machine::{Preset, audience};

use super::http::Client;
use super::said::{Said, text_at};
use super::{Unanswered, Variables};

/// Where every pod finds who it is.
const HOME: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The name of the API server in every cluster.
const SERVER: &str = "https://kubernetes.default.svc";
/// The shortest time that a token is made for, in seconds.
const LIFETIME: u64 = 600;

/// What pods are told by the downward API, as its documentation names it.
const CLAIMS: &[(&str, &str)] = &[
    ("namespace", "POD_NAMESPACE"),
    ("pod", "POD_NAME"),
    ("pod-uid", "POD_UID"),
    ("service-account", "POD_SERVICE_ACCOUNT"),
    ("node", "NODE_NAME"),
];

pub(super) fn ask(
    variables: Variables<'_>,
    projected: Option<&Path>,
    binding: &Sha256,
) -> Result<Said, Unanswered> {
    let token = match projected {
        Some(path) => text(path)?,
        None => request(binding)?,
    };
    let mut said = Said::by_token(&token, Preset::Kubernetes)?;
    said.claim(variables, CLAIMS);
    Ok(said)
}

fn bytes(path: &Path) -> Result<Vec<u8>, Unanswered> {
    let unanswered =
        |error: std::io::Error| Unanswered::new(path.display().to_string(), error.to_string());
    fs::read(path).map_err(unanswered)
}

fn text(path: &Path) -> Result<String, Unanswered> {
    Ok(String::from_utf8_lossy(&bytes(path)?).trim().to_owned())
}

/// Asks for a token of the pod's own service account, bound to the pod.
fn request(binding: &Sha256) -> Result<String, Unanswered> {
    let home = Path::new(HOME);
    let own = text(&home.join("token"))?;
    let who = Said::by_token(&own, Preset::Kubernetes)?;
    let fact = |name: &str| {
        let found = who.facts.iter().find(|(known, _)| *known == name);
        let expected = format!("a token that names its {name} in {HOME}/token");
        found.map(|(_, value)| value.as_str()).ok_or_else(|| Unanswered::new(expected, "none"))
    };
    let (namespace, account) = (fact("namespace")?, fact("service-account")?);
    let segment = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
    if !segment(namespace) || !segment(account) {
        let found = format!("{namespace} and {account}");
        return Err(Unanswered::new("names of a namespace and a service account", found));
    }
    let pod = Value::object([
        ("apiVersion", Value::text("v1")),
        ("kind", Value::text("Pod")),
        ("name", Value::text(fact("pod")?)),
        ("uid", Value::text(fact("pod-uid")?)),
    ]);
    let body = Value::object([
        ("apiVersion", Value::text("authentication.k8s.io/v1")),
        ("kind", Value::text("TokenRequest")),
        (
            "spec",
            Value::object([
                ("audiences", Value::list([Value::text(audience(binding))])),
                ("expirationSeconds", Value::Integer(LIFETIME)),
                ("boundObjectRef", pod),
            ]),
        ),
    ]);
    let url = format!("{SERVER}/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token");
    let bearer = format!("Bearer {own}");
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let authority = bytes(&home.join("ca.crt"))?;
    let answer = Client::certified_by(&authority)
        .and_then(|client| client.post(&url, &headers, &body.to_line()))
        .map_err(|fault| {
            let expected = "a token of the API server (create on serviceaccounts/token)";
            Unanswered::new(expected, fault.into_found())
        })?;
    text_at(&answer.body, &["status", "token"])
}
