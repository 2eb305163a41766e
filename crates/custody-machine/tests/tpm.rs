//! Quotes of TPMs: made without one, and by `swtpm` through `tpm2-tools`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use custody_core::digest::Sha256;
use custody_core::statement::Attestation;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::{Context, Platform, Proof, Tpm, verify};
use custody_platforms::tpm::{Quote, attest, pcrs, quote, signature};
use custody_platforms::{Certified, Signer, attestation};

fn at() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context { binding: Sha256::of(b"a run"), at: at(), skew: 300 }
}

const REGISTERS: [(u8, [u8; 32]); 3] = [(0, [1; 32]), (7, [2; 32]), (16, [3; 32])];

fn pinned(signer: &Signer) -> Platform {
    Platform::Tpm(Tpm { keys: vec![signer.public_key()], authorities: vec![] })
}

fn parts(Quote { quote, signature, pcrs }: &Quote) -> Attestation {
    attestation("tpm", &[("quote", quote), ("signature", signature), ("pcrs", pcrs)])
}

fn proof(quote: &Quote, platform: &Platform) -> Result<Proof, Refusal> {
    verify(&parts(quote), platform, &context())
}

#[test]
fn a_quote_has_facts_and_is_bound() {
    let signer = Signer::authority("a TPM");
    let quote = quote(&signer, context().binding.as_bytes(), &REGISTERS);
    let proof = proof(&quote, &pinned(&signer)).unwrap();
    assert!(proof.bound);
    let fact = |name: &str| proof.facts.get(name).map(String::as_str);
    assert_eq!(fact("tpm.key"), Some(&*signer.public_key().id().to_string()));
    assert_eq!(fact("tpm.firmware"), Some("2019102300163636"));
    assert_eq!(fact("tpm.reset-count"), Some("3"));
    assert_eq!(fact("tpm.restart-count"), Some("1"));
    assert_eq!(fact("tpm.pcr-0"), Some(&*"01".repeat(32)));
    assert_eq!(fact("tpm.pcr-16"), Some(&*"03".repeat(32)));
    assert_eq!(proof.facts.len(), 7);
}

#[test]
fn another_quote_is_refused() {
    let signer = Signer::authority("a TPM");
    let platform = pinned(&signer);
    let binding = context().binding;
    let honest = || quote(&signer, binding.as_bytes(), &REGISTERS);
    let code = |quote: &Quote| proof(quote, &platform).unwrap_err().code;

    // of another run, by another key, of nothing
    let other = Sha256::of(b"another run");
    let replayed = quote(&signer, other.as_bytes(), &REGISTERS);
    assert_eq!(code(&replayed), Code::WorkerIdentityMismatch);
    assert_eq!(code(&quote(&signer, &[], &REGISTERS)), Code::WorkerIdentityMismatch);
    let unverified = Code::WorkerIdentityUnverified;
    let stranger = Signer::authority("a TPM");
    assert_eq!(code(&quote(&stranger, binding.as_bytes(), &REGISTERS)), unverified);
    assert_eq!(code(&Quote { signature: vec![], ..honest() }), unverified);
    assert_eq!(code(&Quote { signature: signature(&[0; 256]), ..honest() }), unverified);

    // registers that were not quoted
    for registers in [
        &REGISTERS[..2],
        &[(0, [1; 32]), (7, [9; 32]), (16, [3; 32])],
        &[(0, [1; 32]), (8, [2; 32]), (16, [3; 32])],
        &[(7, [2; 32]), (0, [1; 32]), (16, [3; 32])],
        &[(0, [1; 32]), (0, [1; 32]), (7, [2; 32]), (16, [3; 32])],
    ] {
        assert_eq!(code(&Quote { pcrs: pcrs(registers), ..honest() }), unverified);
    }
    let good = pcrs(&REGISTERS);
    for bad in [
        String::new(),
        good.replace("sha256", "sha1"),
        good.replace("}}", "},\"sha1\":{}}"),
        good.replace("\"7\"", "\"07\""),
        good.replace("\"16\"", "\"24\""),
        good.replace("02", "0"),
        good.replace("03", "0C"),
    ] {
        assert_eq!(code(&Quote { pcrs: bad, ..honest() }), unverified);
    }

    // what the key signed and no TPM made, or not as a quote
    let signed_anyway = |bytes: Vec<u8>| Quote {
        signature: signature(&signer.sign(&bytes)),
        quote: bytes,
        pcrs: pcrs(&REGISTERS),
    };
    let attested = attest(binding.as_bytes(), &REGISTERS);
    assert!(proof(&signed_anyway(attested.clone()), &platform).is_ok());
    let unlike = |at: usize, byte: u8| {
        let mut changed = attested.clone();
        assert_ne!(changed[at], byte);
        changed[at] = byte;
        changed
    };
    let selection = attested.len() - 34 - 10;
    assert_eq!(attested[selection..selection + 7], [0, 0, 0, 1, 0, 0x0b, 3]);
    for bad in [
        unlike(0, 0xfe),
        // a certification, another algorithm, two banks, another size
        unlike(5, 0x17),
        unlike(selection + 5, 4),
        unlike(selection + 3, 2),
        unlike(selection + 6, 4),
        // one register more
        unlike(selection + 8, 0x03),
        [&attested[..], &[0]].concat(),
        attested[..attested.len() - 1].to_vec(),
        vec![],
    ] {
        assert_eq!(code(&signed_anyway(bad)), unverified);
    }
    for cut in 0..attested.len() {
        assert!(proof(&signed_anyway(attested[..cut].to_vec()), &platform).is_err());
    }
    assert!(proof(&honest(), &platform).is_ok());
}

#[test]
fn an_authority_may_certify_the_key() {
    const ATTESTATION_KEY: [u8; 5] = [0x67, 0x81, 0x05, 0x08, 0x03];
    let (authority, signer) = (Signer::authority("makers of TPMs"), Signer::authority("a TPM"));
    let platform = Platform::Tpm(Tpm {
        keys: vec![],
        authorities: vec![authority.certificate_pem().parse().unwrap()],
    });
    let Quote { quote, signature, pcrs } = quote(&signer, context().binding.as_bytes(), &REGISTERS);
    let with = |certificate: &[u8]| {
        let parts: [(&str, &dyn AsRef<[u8]>); 4] = [
            ("quote", &quote),
            ("signature", &signature),
            ("pcrs", &pcrs),
            ("certificate", &certificate),
        ];
        verify(&attestation("tpm", &parts), &platform, &context()).map_err(|refusal| refusal.code)
    };
    let key =
        Certified { purposes: vec![ATTESTATION_KEY.to_vec()], ..Certified::new("a TPM", false) };
    let proof = with(&authority.certify(&key, &signer.public_key())).unwrap();
    assert_eq!(proof.facts["tpm.key"], signer.public_key().id().to_string());
    let forger = Signer::authority("makers of TPMs");
    let server = vec![vec![0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01]];
    let over = "2026-03-01T00:00:00Z".parse().unwrap();
    for bad in [
        forger.certify(&key, &signer.public_key()),
        authority.certify(&key, &forger.public_key()),
        authority.certify(&Certified { purposes: server, ..key.clone() }, &signer.public_key()),
        authority.certify(&Certified { not_after: over, ..key.clone() }, &signer.public_key()),
        authority.certify(&Certified { authority: true, ..key.clone() }, &signer.public_key()),
        signer.certificate().to_vec(),
        vec![],
    ] {
        assert_eq!(with(&bad), Err(Code::WorkerIdentityUnverified));
    }
}

/// Says past the test runner that this test was left out, which it may not be where all are required.
fn skipped(test: &str, why: &str) {
    assert_ne!(std::env::var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Ok("1"), "{test}: {why}");
    std::io::stderr().write_all(format!("skipped: {test}: {why}\n").as_bytes()).unwrap();
}

/// A TPM in software, which ends with its directory.
struct Swtpm {
    process: Child,
    folder: PathBuf,
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let ended = self.process.kill().and_then(|()| self.process.wait());
        ended.and_then(|_| std::fs::remove_dir_all(&self.folder)).unwrap();
    }
}

impl Swtpm {
    fn start() -> Option<Self> {
        for program in ["swtpm", "tpm2_quote"] {
            let there = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            if there.is_err() {
                skipped("quotes of swtpm", &format!("{program} is not there"));
                return None;
            }
        }
        let folder = std::env::temp_dir().join(format!("custody-swtpm-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .args(["--tpmstate", "dir=.", "--server", "type=unixio,path=tpm"])
            .args(["--ctrl", "type=unixio,path=tpm.ctrl"])
            .current_dir(&folder)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let tpm = Self { process, folder };
        for _ in 0..200 {
            if tpm.path("tpm.ctrl").exists() {
                return Some(tpm);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("swtpm did not start");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn run(&self, words: &str) {
        let mut words = words.split(' ');
        let output = Command::new(words.next().unwrap())
            .args(words)
            .env("TPM2TOOLS_TCTI", "swtpm:path=tpm")
            .current_dir(&self.folder)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if Path::new(&self.path("ak.ctx")).exists() {
            let flush = Command::new("tpm2_flushcontext")
                .arg("-t")
                .env("TPM2TOOLS_TCTI", "swtpm:path=tpm")
                .current_dir(&self.folder)
                .status();
            assert!(flush.unwrap().success());
        }
    }
}

#[test]
fn quotes_of_a_tpm_in_software_are_verified() {
    let Some(tpm) = Swtpm::start() else { return };
    let binding = context().binding;
    let measured = Sha256::of(b"what was started").to_string();
    tpm.run(&format!("tpm2_pcrextend 16:sha256={measured}"));
    for (kind, scheme) in [("rsa", "rsassa"), ("ecc", "ecdsa")] {
        tpm.run(&format!("tpm2_createek -Q -c ek.ctx -G {kind}"));
        tpm.run(&format!(
            "tpm2_createak -Q -C ek.ctx -c ak.ctx -G {kind} -g sha256 -s {scheme} -u ak.pem -f pem"
        ));
        tpm.run(&format!(
            "tpm2_quote -Q -c ak.ctx -l sha256:0,7,16 -q {binding} -m quote -s signature -o pcrs -F values -g sha256"
        ));
        let values = tpm.read("pcrs");
        let registers: Vec<(u8, [u8; 32])> =
            [0, 7, 16].into_iter().zip(values.as_chunks().0.iter().copied()).collect();
        let pem = String::from_utf8(tpm.read("ak.pem")).unwrap();
        let platform = Platform::Tpm(Tpm { keys: vec![pem.parse().unwrap()], authorities: vec![] });
        let quote = Quote {
            quote: tpm.read("quote"),
            signature: tpm.read("signature"),
            pcrs: pcrs(&registers),
        };
        let facts = proof(&quote, &platform).unwrap().facts;
        let extended = [[0; 32], *Sha256::of(b"what was started").as_bytes()].concat();
        assert_eq!(facts["tpm.pcr-16"], Sha256::of(&extended).to_string());
        assert_eq!(facts["tpm.pcr-0"], "00".repeat(32));

        let elsewhere = Context { binding: Sha256::of(b"another run"), ..context() };
        let refusal = verify(&parts(&quote), &platform, &elsewhere).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityMismatch);
        let mut forged = registers;
        forged[2].1 = [7; 32];
        let refusal = proof(&Quote { pcrs: pcrs(&forged), ..quote }, &platform).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
        std::fs::remove_file(tpm.path("ak.ctx")).unwrap();
    }
}
