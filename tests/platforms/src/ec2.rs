//! Amazon EC2, as its metadata service answers below `/latest/dynamic/instance-identity/`.

use crate::{Cms, Signer, lines};

/// `document` of an instance.
pub fn document(instance: &str, image: &str, region: &str) -> String {
    format!(
        r#"{{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "{region}a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "{image}",
  "instanceId" : "{instance}",
  "instanceType" : "c7i.4xlarge",
  "kernelId" : null,
  "pendingTime" : "2026-03-01T00:00:00Z",
  "privateIp" : "10.0.0.7",
  "ramdiskId" : null,
  "region" : "{region}",
  "version" : "2017-09-30"
}}"#
    )
}

/// `rsa2048` of the document: BER in base64.
pub fn rsa2048(document: &str, signer: &Signer) -> String {
    lines(&Cms { ber: true, ..Cms::new(document.as_bytes(), signer) }.bytes())
}

/// `signature` of the document.
pub fn signature(document: &str, signer: &Signer) -> String {
    lines(&signer.sign(document.as_bytes()))
}
