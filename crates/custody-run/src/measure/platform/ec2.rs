//! Amazon EC2: the instance identity document and its signatures, by version 2 of the instance metadata
//! service (EC2 User Guide, "Use the Instance Metadata Service to access instance metadata" and "Instance
//! identity documents").
//!
//! The addresses are those of the platform and of nobody else: `AWS_EC2_METADATA_SERVICE_ENDPOINT` and
//! what else redirects Amazon's tools is not read.

use super::Unanswered;
use super::http::{Client, Fault};
use super::said::{Place, Said};

const PLACES: [&str; 2] = ["http://169.254.169.254", "http://[fd00:ec2::254]"];

/// How long the session lasts, in seconds: a few questions.
const SESSION: &str = "60";

/// The document as it was signed; its signature by RSA, made for each region; and a PKCS #7 form with a
/// longer key.
const PARTS: [&str; 3] = ["document", "rsa2048", "signature"];

const FACTS: &[Place] = &[
    ("instance-id", &["instanceId"]),
    ("image-id", &["imageId"]),
    ("instance-type", &["instanceType"]),
    ("region", &["region"]),
    ("account-id", &["accountId"]),
    ("architecture", &["architecture"]),
    ("availability-zone", &["availabilityZone"]),
    ("pending-time", &["pendingTime"]),
];

pub(super) fn ask() -> Result<Said, Unanswered> {
    let client = Client::local();
    let unanswered = |what: &str, fault: Fault| {
        let expected = format!("{what} of the instance metadata service (IMDSv2)");
        Unanswered::new(expected, fault.into_found())
    };
    let [first, second] = PLACES.map(|place| (place, session(&client, place)));
    let (place, token) = match (first, second) {
        ((place, Ok(token)), _) | ((_, Err(Fault::Silent(_))), (place, Ok(token))) => {
            (place, token)
        }
        ((_, Err(fault)), _) => return Err(unanswered("a session", fault)),
    };
    let mut said = Said::default();
    for part in PARTS {
        let url = format!("{place}/latest/dynamic/instance-identity/{part}");
        let answer = client.get(&url, &[("X-aws-ec2-metadata-token", &token)]);
        let answer = answer.map_err(|fault| unanswered(part, fault))?;
        if part == "document" {
            said.read(&answer.body, FACTS)?;
        }
        said.parts.push((part, answer.body));
    }
    Ok(said)
}

fn session(client: &Client, place: &str) -> Result<String, Fault> {
    let url = format!("{place}/latest/api/token");
    let answer = client.put(&url, &[("X-aws-ec2-metadata-token-ttl-seconds", SESSION)])?;
    String::from_utf8(answer.body).map_err(|error| Fault::Answered(error.to_string()))
}
