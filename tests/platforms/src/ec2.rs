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

/// A certificate with a key of 1024 bits, made for this and thrown away, and its `signature` of
/// `document("i-0123456789abcdef0", "ami-0fedcba9876543210", "eu-central-1")`.
pub const LEGACY: (&str, &str) = (
    "-----BEGIN CERTIFICATE-----
MIIB/jCCAWegAwIBAgIUXLVgQQsOSoeJMT93dKHuiloXH+cwDQYJKoZIhvcNAQEL
BQAwETEPMA0GA1UEAwwGQW1hem9uMB4XDTIwMDEwMTAwMDAwMFoXDTQ5MTIyNDAw
MDAwMFowETEPMA0GA1UEAwwGQW1hem9uMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCB
iQKBgQDNPaqb5r/TeUmcz0JIxZKrsULDLE84MeUHDRT8+rFWClG6XBAwsu6rcJoo
YBj6zLaTgMQIfuRWDRo2yOjwV14q1Vz2ClSbm14gXsxvAVKKR7saWksU7MNS+LAc
qZM5prLVlaCYts9iQvr1n3OD829tEd5wysajGUaUrTz1PoILGwIDAQABo1MwUTAd
BgNVHQ4EFgQUBq0GU9pUgKdMPV3RkI4HwKnI0XwwHwYDVR0jBBgwFoAUBq0GU9pU
gKdMPV3RkI4HwKnI0XwwDwYDVR0TAQH/BAUwAwEB/zANBgkqhkiG9w0BAQsFAAOB
gQAFliSSQJAYBKIo5yo5NxzBhFTW/b6HoRF+BfxHX6b4l6jD6pew+jFcH1QBTAfd
KuYim2vzrxDyeymKmmhy/3+ACm6hF84e5+JREn2d5F5NIVzaLQKWjPjFzbC2zglO
fQp6doDeJxBvNDzeWfGm1u8Yoen6nm1vZy2/lFIEBVB3dw==
-----END CERTIFICATE-----",
    "t5O1DvB/5GBCIrXHP7UBBJmmQELAzyRBTN8qr64XAhUnMzGncK8emtXq1C3+bcs/
YfOgbqvrS1UieKPrfYkKkScw3vIDWh7VYvzSE0/ByvwvHRD0hnGZ+gzoDdbYkGZR
ZO6vgpDrzzvn92vOB5IIAriQ+GGxY1D2v33poIxOdkE=",
);
