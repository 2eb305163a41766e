//! Microsoft Azure, as its metadata service answers at `/metadata/attested/document`.

use custody_core::encoding::base64;
use custody_core::time::Time;

use crate::{Certified, Cms, Signer};

/// id-kp-serverAuth
const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// Somebody whom the authority lets sign attested data of one region.
pub fn signer(authority: &Signer) -> Signer {
    authority.issue(&certified())
}

/// What the certificate of such a signer says.
pub fn certified() -> Certified {
    Certified {
        names: vec!["westeurope.metadata.azure.com".to_owned()],
        purposes: vec![SERVER.to_vec()],
        ..Certified::new("westeurope.metadata.azure.com", false)
    }
}

/// What is signed, good for six hours.
pub fn content(vm: &str, nonce: &str, created: Time) -> String {
    let stamp = |time: Time| {
        let text = time.to_string();
        format!("{}/{}/{} {} -0000", &text[5..7], &text[8..10], &text[2..4], &text[11..19])
    };
    format!(
        r#"{{"licenseType":"","nonce":"{nonce}","plan":{{"name":"","product":"","publisher":""}},"sku":"22_04-lts-gen2","subscriptionId":"8d10da13-8125-4ba9-a717-bf7490507b3d","timeStamp":{{"createdOn":"{}","expiresOn":"{}"}},"vmId":"{vm}"}}"#,
        stamp(created),
        stamp(created.plus(6 * 3600))
    )
}

/// The message in base64: the answer's member `signature`.
pub fn attested(content: &str, signer: &Signer, between: &[&Signer]) -> String {
    let certificates = [signer].iter().chain(between).map(|signer| signer.certificate()).collect();
    let cms = Cms {
        certificates,
        attributes: false,
        hash_is_signature: true,
        ..Cms::new(content.as_bytes(), signer)
    };
    base64(&cms.bytes())
}
