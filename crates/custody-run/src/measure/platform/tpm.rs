//! A TPM 2.0: a quote over what was measured at boot, by an attestation key that lies in the TPM, through
//! `tpm2_quote` of tpm2-tools.

use std::fs::File;
use std::path::{Path, PathBuf};

use custody_core::Refusal;
use custody_core::digest::Sha256;
use custody_core::encoding::hex;
use custody_core::json::Value;
use custody_core::key::PublicKey;
use custody_core::limits::ATTESTATION_BYTES;

use super::Unanswered;
use super::program::{output, read};
use super::said::Said;

/// A TPM, and what to ask it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    /// The attestation key: a persistent handle like `0x81010002`, or the file of a saved context.
    pub key: String,
    /// Where the TPM is, as tpm2-tools write it (TCTI).
    pub tcti: String,
    /// The PCRs by number, counting up. They are those of the SHA-256 bank.
    pub pcrs: Vec<u8>,
    /// The certificate of the attestation key (DER), where an authority made one.
    pub certificate: Option<PathBuf>,
}

impl Tpm {
    /// How many PCRs there are.
    pub const PCRS: u8 = 24;

    pub(super) fn ask(&self, binding: &Sha256) -> Result<Said, Unanswered> {
        let room = tempfile::tempdir()
            .map_err(|error| Unanswered::new("a temporary directory", error.to_string()))?;
        let at = |name: &str| room.path().join(name);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let pcrs: Vec<String> = self.pcrs.iter().map(u8::to_string).collect();
        let selection = format!("sha256:{}", pcrs.join(","));
        self.call(&[
            "tpm2_quote",
            "--quiet",
            "--key-context",
            &self.key,
            "--pcr-list",
            &selection,
            "--qualification",
            &hex(binding.as_bytes()),
            "--hash-algorithm",
            "sha256",
            "--message",
            &text(&at("quote")),
            "--signature",
            &text(&at("signature")),
            "--pcr",
            &text(&at("pcrs")),
            // nothing but the values, one after the other
            "--pcrs_format",
            "values",
        ])?;
        let mut said = Said::default();
        said.parts.push(("quote", part(&at("quote"))?));
        said.parts.push(("signature", part(&at("signature"))?));
        let values = part(&at("pcrs"))?;
        let values = || pcrs.iter().zip(values.chunks(32).map(hex));
        let bank = values().map(|(pcr, value)| (pcr.clone().into(), Value::text(value)));
        let banks = Value::object([("sha256", Value::Object(bank.collect()))]);
        said.parts.push(("pcrs", banks.to_line().into_bytes()));
        if let Some(path) = &self.certificate {
            said.parts.push(("certificate", part(path)?));
        }
        said.note("key", self.fingerprint(&at("public"))?);
        for (pcr, value) in values() {
            said.note(&format!("pcr-{pcr}"), value);
        }
        Ok(said)
    }

    fn fingerprint(&self, public: &Path) -> Result<String, Unanswered> {
        let path = public.to_string_lossy();
        let words =
            ["--quiet", "--object-context", &self.key, "--format", "pem", "--output", &path];
        self.call(&[&["tpm2_readpublic"], &words[..]].concat())?;
        let pem = String::from_utf8_lossy(&part(public)?).into_owned();
        let key = PublicKey::parse(&pem);
        let unknown = |refusal: Refusal| Unanswered::new(refusal.expected, refusal.found);
        Ok(key.map_err(unknown)?.id().to_string())
    }

    /// Which TPM is asked is the worker's word alone, and no variable's.
    fn call(&self, words: &[&str]) -> Result<(), Unanswered> {
        let environment = [
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("TPM2TOOLS_TCTI", self.tcti.clone()),
            // the libraries warn of what the program then does in another way
            ("TSS2_LOG", "all+ERROR".to_owned()),
        ];
        output(words, &environment).map(|_| ())
    }
}

fn part(path: &Path) -> Result<Vec<u8>, Unanswered> {
    let unanswered = |found: String| Unanswered::new(path.display().to_string(), found);
    let bytes = File::open(path).and_then(|mut file| read(&mut file, ATTESTATION_BYTES + 1));
    let bytes = bytes.map_err(|error| unanswered(error.to_string()))?;
    if bytes.len() > ATTESTATION_BYTES {
        return Err(unanswered(format!("more than {ATTESTATION_BYTES} bytes")));
    }
    Ok(bytes)
}
