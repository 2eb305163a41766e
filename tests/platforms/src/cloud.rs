//! What clouds say of the machine of the build, and a policy that takes their word.

use custody_core::digest::Sha256;
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;
use custody_core::time::Time;

use crate::token::Issuer;
use crate::{Certified, Signer, attestation, ec2};

pub const INSTANCE: &str = "i-0a1b2c3d4e5f60718";
pub const OTHER: &str = "i-0ffffffffffffffff";
pub const IMAGE: &str = "ami-0123456789abcdef0";

/// A step that asks for the image, proved.
pub const AMI: &str = "machine = [{ fact = \"ec2.image-id\", is = [\"ami-0123456789abcdef0\"], standing = \"verified\" }]";
/// A key of the instance alone.
pub const TIED: &str = ", machine = { \"ec2.instance-id\" = \"i-0a1b2c3d4e5f60718\" }";

/// Amazon in one region, and Google.
pub struct Clouds {
    pub amazon: Signer,
    google: Issuer,
}

/// The identity document of an EC2 instance, signed by anybody.
pub fn document(instance: &str, image: &str, by: &Signer) -> Attestation {
    let document = ec2::document(instance, image, "eu-west-1");
    let signature = ec2::signature(&document, by);
    attestation("ec2", &[("document", &document), ("signature", &signature)])
}

impl Clouds {
    /// With keys of their own.
    pub fn own() -> Self {
        let amazon = Signer::own(&Certified::new("Amazon of tests", false));
        Self { amazon, google: Issuer::new("https://accounts.google.com") }
    }

    /// With a key that both sign with.
    pub fn fixed(pkcs8: &[u8]) -> Self {
        let issuer = Signer::fixed(pkcs8, &Certified::new("issuer of tokens", true));
        Self {
            amazon: Signer::fixed(pkcs8, &Certified::new("Amazon", true)),
            google: Issuer::of("https://accounts.google.com", issuer),
        }
    }

    /// The document of an EC2 instance.
    pub fn document(&self, instance: &str, image: &str) -> Attestation {
        document(instance, image, &self.amazon)
    }

    /// The token of a machine of Google's, bound to a run and a key.
    pub fn token(&self, binding: &Sha256, at: Time, instance: &str) -> Attestation {
        let more = format!(r#""google":{{"compute_engine":{{"instance_id":"{instance}"}}}}"#);
        let claims = self.google.claims(&format!("custody:{binding}"), "1", at, &more);
        attestation("google", &[("token", &self.google.token(&claims))])
    }

    /// The policy with both, and with these members in the step `build` and beside the builder's key.
    pub fn policy(&self, text: &str, builder: &PublicKey, step: &str, key: &str) -> String {
        let platforms = format!(
            "[platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\"], certificate = \"\"\"{}\"\"\" }}]\n\
             [platforms.google]\nkind = \"google\"\njwks = '''{}'''\n",
            self.amazon.certificate_pem(),
            self.google.jwks()
        );
        let builder = builder.to_openssh();
        text.replace("\n[roles.releng]", &format!("\n{platforms}\n[roles.releng]"))
            .replace(&format!("\"{builder}\" }}"), &format!("\"{builder}\"{key} }}"))
            .replace(
                "[products.hello.steps.build]\n",
                &format!("[products.hello.steps.build]\n{step}\n"),
            )
    }
}
