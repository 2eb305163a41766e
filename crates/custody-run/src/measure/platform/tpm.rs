//! A TPM 2.0: a quote over what was measured at boot, by an attestation key that lies in the TPM, through
//! `tpm2_quote` of tpm2-tools.

use std::fs::File;
use std::path::{Path, PathBuf};

use custody_core::digest::Sha256;
use custody_core::encoding::hex;
use custody_core::limits::ATTESTATION_BYTES;

use super::Unanswered;
use super::program::{output, read};
use super::said::Said;

/// A TPM, and what to ask it for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tpm {
    /// The attestation key: a persistent handle like `0x81010002`, or the file of a saved context.
    pub key: String,
    /// Where the TPM is (TCTI), if not at `/dev/tpmrm0`.
    pub tcti: Option<String>,
    /// The PCRs, as numbers. They are those of the SHA-256 bank.
    pub pcrs: Vec<u8>,
    /// The log of what was measured.
    pub event_log: Option<PathBuf>,
}

impl Tpm {
    /// The PCRs that firmware and boot loader extend (TCG PC Client Platform Firmware Profile).
    pub const BOOT: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    /// A TPM has as many in each bank.
    pub const PCRS: u8 = 24;

    pub(super) fn ask(&self, binding: &Sha256) -> Result<Said, Unanswered> {
        let room = tempfile::tempdir().map_err(|error| {
            Unanswered::new("a temporary directory", error.to_string())
        })?;
        let at = |name: &str| room.path().join(name);
        let selection = format!("sha256:{}", self.pcrs.iter().map(u8::to_string).collect::<Vec<_>>().join(","));
        let [message, signature, pcrs] = ["quote", "signature", "pcrs"].map(at);
        let binding = hex(binding.as_bytes());
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let files = [&message, &signature, &pcrs].map(|path| shown(path));
        let words = [
            "tpm2_quote",
            "--quiet",
            "--key-context",
            &self.key,
            "--pcr-list",
            &selection,
            "--qualification",
            &binding,
            "--hash-algorithm",
            "sha256",
            "--message",
            &files[0],
            "--signature",
            &files[1],
            "--pcr",
            &files[2],
            // nothing but the values, one after the other
            "--pcrs_format",
            "values",
        ];
        // which TPM is asked is the worker's word alone, and no variable's
        let environment = [
            ("PATH", "/usr/bin:/bin".to_owned()),
            ("TPM2TOOLS_TCTI", self.tcti.clone().unwrap_or_else(|| "device:/dev/tpmrm0".into())),
            // the libraries warn of what the program then does in another way
            ("TSS2_LOG", "all+ERROR".to_owned()),
        ];
        output(&words, &environment)?;
        let mut said = Said::default();
        let files = [("quote", &message), ("signature", &signature), ("pcrs", &pcrs)];
        for (name, path) in files.into_iter().chain(self.event_log.iter().map(|path| ("event-log", path))) {
            said.parts.push((name, part(path)?));
        }
        self.facts(&mut said);
        Ok(said)
    }

    /// The values in their order, as the quote has them if it is genuine.
    fn facts(&self, said: &mut Said) {
        let values = said.parts.iter().find(|(name, _)| *name == "pcrs");
        let values = values.map(|(_, bytes)| bytes.clone()).unwrap_or_default();
        let mut pcrs = self.pcrs.clone();
        pcrs.sort_unstable();
        for (pcr, value) in pcrs.into_iter().zip(values.chunks(32)) {
            if let Some(name) = NAMES.get(usize::from(pcr)) {
                said.note(name, hex(value));
            }
        }
    }
}

const NAMES: [&str; Tpm::PCRS as usize] = [
    "pcr-0", "pcr-1", "pcr-2", "pcr-3", "pcr-4", "pcr-5", "pcr-6", "pcr-7", "pcr-8", "pcr-9",
    "pcr-10", "pcr-11", "pcr-12", "pcr-13", "pcr-14", "pcr-15", "pcr-16", "pcr-17", "pcr-18",
    "pcr-19", "pcr-20", "pcr-21", "pcr-22", "pcr-23",
];

fn part(path: &Path) -> Result<Vec<u8>, Unanswered> {
    let unanswered = |found: String| Unanswered::new(path.display().to_string(), found);
    let bytes = File::open(path).and_then(|mut file| read(&mut file, ATTESTATION_BYTES + 1));
    let bytes = bytes.map_err(|error| unanswered(error.to_string()))?;
    if bytes.len() > ATTESTATION_BYTES {
        return Err(unanswered(format!("more than {ATTESTATION_BYTES} bytes")));
    }
    Ok(bytes)
}
