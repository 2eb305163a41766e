//! OpenSSL as the other side: it reads the messages of our test authorities, and its own are read here.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use custody_core::digest::Sha256;
use custody_machine::{Context, Ec2, Platform, RegionalCertificate, verify};
use custody_platforms::ec2::{document, rsa2048};
use custody_platforms::{Signer, attestation};

/// Says past the test runner that this test was left out, which it may not be where all are required.
fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Folder {
    fn new(name: &str) -> Option<Self> {
        if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
            skipped(name, "openssl is not there");
            return None;
        }
        let folder = format!("custody-openssl-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        Some(Self(folder))
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.join(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap()
    }

    fn openssl(&self, words: &str) {
        let output =
            Command::new("openssl").args(words.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

const REGION: &str = "eu-central-1";

fn text() -> String {
    document("i-0123456789abcdef0", "ami-0fedcba9876543210", REGION)
}

/// So the tests' messages are in the format that others read too.
#[test]
fn openssl_reads_messages_of_the_tests() {
    let Some(folder) = Folder::new("reads") else { return };
    let signer = Signer::authority("Amazon");
    let message = rsa2048(&text(), &signer);
    folder.write("message", format!("-----BEGIN PKCS7-----\n{message}\n-----END PKCS7-----\n"));
    folder.write("certificate", signer.certificate_pem());
    folder.openssl(
        "cms -verify -binary -inform PEM -in message -certfile certificate -CAfile certificate \
         -nointern -purpose any -out content",
    );
    assert_eq!(folder.read("content"), text().as_bytes());
}

#[test]
fn messages_of_openssl_are_read() {
    let Some(folder) = Folder::new("writes") else { return };
    folder.openssl(
        "req -x509 -newkey rsa:2048 -nodes -keyout key -out certificate -subj /CN=Amazon -days 30 -sha256",
    );
    folder.write("document", text());
    let certificate = String::from_utf8(folder.read("certificate")).unwrap();
    let certificate = certificate.parse().unwrap();
    let regions = [REGION.to_owned()].into();
    let platform =
        Platform::Ec2(Ec2 { certificates: vec![RegionalCertificate { regions, certificate }] });
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let at = custody_core::time::Time::from_unix(now.as_secs()).unwrap();
    let context = Context { binding: Sha256::of(b"a run"), at, skew: 300 };
    for options in
        ["-nodetach", "-nodetach -noattr", "-nodetach -stream -indef", "-nodetach -nocerts", ""]
    {
        let options = if options.is_empty() { String::new() } else { format!(" {options}") };
        folder.openssl(&format!(
            "cms -sign -binary -md sha256 -in document -signer certificate -inkey key -outform DER -out message{options}"
        ));
        let message = folder.read("message");
        let parts = attestation("ec2", &[("document", &text()), ("rsa2048", &message)]);
        assert!(verify(&parts, &platform, &context).is_ok(), "{options}");
        for at in (0..message.len()).step_by(7) {
            let mut changed = message.clone();
            changed[at] ^= 0x10;
            let parts = attestation("ec2", &[("document", &text()), ("rsa2048", &changed)]);
            // whatever it is now, it ends in a verdict
            let _verdict = verify(&parts, &platform, &context);
        }
    }
    folder.openssl("dgst -sha256 -sign key -out signature document");
    let signature = custody_core::encoding::base64(&folder.read("signature"));
    let parts = attestation("ec2", &[("document", &text()), ("signature", &signature)]);
    assert!(verify(&parts, &platform, &context).is_ok());
}
