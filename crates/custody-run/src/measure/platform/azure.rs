//! Azure: the attested document of the virtual machine (Azure documentation, "Azure Instance Metadata
//! Service", "Attested data").

use custody_core::digest::Sha256;
use custody_machine::nonce;

use super::Unanswered;
use super::http::Client;
use super::said::{Place, Said, text_at};

const PLACE: &str = "http://169.254.169.254/metadata";

/// What the same service says without a signature. The signed document has some of it again.
const FACTS: &[Place] = &[
    ("vm-id", &["vmId"]),
    ("subscription-id", &["subscriptionId"]),
    ("sku", &["sku"]),
    ("license-type", &["licenseType"]),
    ("plan-name", &["plan", "name"]),
    ("plan-product", &["plan", "product"]),
    ("plan-publisher", &["plan", "publisher"]),
];

pub(super) fn ask(binding: &Sha256) -> Result<Said, Unanswered> {
    let client = Client::local();
    let ask = |what: &str, path: &str| {
        let answer = client.get(&format!("{PLACE}/{path}"), &[("Metadata", "true")]);
        answer.map(|answer| answer.body).map_err(|fault| {
            let expected = format!("{what} of Azure's instance metadata service");
            Unanswered::new(expected, fault.into_found())
        })
    };
    let nonce = nonce(binding);
    let path = format!("attested/document?api-version=2020-09-01&nonce={nonce}");
    let attested = text_at(&ask("the attested document", &path)?, &["signature"])?;
    let mut said = Said { parts: vec![("attested", attested.into_bytes())], ..Said::default() };
    said.read(&ask("the description", "instance/compute?api-version=2021-02-01")?, FACTS)?;
    Ok(said)
}
