//! A machine with a TPM proves what it booted.

use std::fs;
use std::net::TcpStream;
use std::process::{Command, Stdio};

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;
use custody_machine::{Context, Platform, verify};

use super::{fact, in_own_network, manifest, proof, task, with};
use crate::world::{World, skipped, until};

/// A TPM in software, as firmware would leave it, with an attestation key.
struct SoftTpm(std::process::Child);

impl SoftTpm {
    const PORT: u16 = 2321;
    const TCTI: &str = "swtpm:host=127.0.0.1,port=2321";

    /// Starts it, makes the key `ak` and writes its public part to `ak.pem`.
    fn start(world: &World) -> Self {
        fs::create_dir(world.path("tpm")).unwrap();
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", world.path("tpm").display()))
            .args(["--server", &format!("type=tcp,port={},bindaddr=127.0.0.1", Self::PORT)])
            .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", Self::PORT + 1)])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self(child);
        until("a TPM", || TcpStream::connect(("127.0.0.1", Self::PORT + 1)).is_ok());
        for line in [
            "tpm2_createek -Q -G ecc -c ek.ctx",
            "tpm2_flushcontext -t",
            "tpm2_createak -Q -C ek.ctx -c ak.ctx -G ecc -g sha256 -s ecdsa -f pem -u ak.pem",
            "tpm2_flushcontext -t",
            "tpm2_evictcontrol -Q -c ak.ctx 0x81010002",
            "tpm2_flushcontext -t",
            "tpm2_pcrextend 4:sha256=5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
        ] {
            let mut words = line.split(' ');
            let mut command = Command::new(words.next().unwrap());
            command.args(words).current_dir(world.path(".")).env("TPM2TOOLS_TCTI", Self::TCTI);
            let output = command.output().unwrap();
            assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        }
        tpm
    }
}

impl Drop for SoftTpm {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

#[test]
fn a_tpm_quotes_what_was_booted() {
    in_own_network("tpm::a_tpm_quotes_what_was_booted", || {
        if Command::new("swtpm").arg("--version").output().is_err() {
            return skipped("a_tpm_quotes_what_was_booted", "there is no swtpm");
        }
        let world = World::fresh();
        let line = world.run_line(&task(&world));
        let tpm = |key: &str| {
            let more = format!("--platform tpm --tpm-key {key} --tpm-pcrs 0-4,7,16");
            // nobody else says which TPM is meant
            let other = [("TPM2TOOLS_TCTI", "swtpm:host=127.0.0.1,port=1"), ("TCTI", "none")];
            with(&world, &format!("{line} {more} --tpm-tcti {}", SoftTpm::TCTI), &other)
        };
        tpm("0x81010002").refused("GATE_UNAVAILABLE");
        let _running = SoftTpm::start(&world);
        tpm("0x81010009").refused("GATE_UNAVAILABLE");
        assert!(world.list("manifest").is_empty(), "nothing has run");

        let manifest = manifest(&world, &tpm("0x81010002").done());
        let key = PublicKey::parse(&world.read("ak.pem")).unwrap();
        let id = key.id().to_string();
        let known = Platform::Tpm(custody_machine::Tpm { keys: vec![key], authorities: vec![] });
        let proof = proof(&world, &manifest, &known).unwrap();
        assert_eq!(fact(&manifest, "tpm.key"), Some(&*id));
        for register in [0, 1, 2, 3, 4, 7, 16] {
            let name = format!("tpm.pcr-{register}");
            assert_eq!(fact(&manifest, &name), proof.facts.get(&name).map(String::as_str));
        }
        assert_ne!(proof.facts["tpm.pcr-4"], proof.facts["tpm.pcr-3"]);
        assert!(fact(&manifest, "tpm.pcr-5").is_none());
        // the quote is of this run and of no other
        let [attestation]: &[Attestation; 1] = manifest.attestations.as_array().unwrap();
        let other = Context { binding: Sha256::of(b"another"), at: manifest.started, skew: 0 };
        let refusal = verify(attestation, &known, &other).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityMismatch);
    });
}
