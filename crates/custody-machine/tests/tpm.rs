//! Quotes of TPMs: made without one, and by `swtpm` through `tpm2-tools`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use custody_core::digest::Sha256;
use custody_core::encoding::hex;
use custody_core::key::PublicKey;
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
fn a_refusal_shows_what_was_quoted_instead() {
    let signer = Signer::authority("a TPM");
    let refusal = |quote: &Quote| proof(quote, &pinned(&signer)).unwrap_err();
    let binding = context().binding;
    // no more than the first 32 bytes
    let other: Vec<u8> = (0..50).collect();
    for (extra, found) in [(&other[..0], String::new()), (&other[..5], hex(&other[..5]))]
        .into_iter()
        .chain([(&other[..32], hex(&other[..32])), (&other, hex(&other[..32]))])
    {
        let refusal = refusal(&quote(&signer, extra, &REGISTERS));
        assert_eq!(refusal.at, "tpm.quote.extraData");
        assert_eq!((refusal.expected, refusal.found), (binding.to_string(), found));
    }
    let values = |registers: &[(u8, [u8; 32])]| {
        let values: Vec<u8> = registers.iter().flat_map(|(_, value)| *value).collect();
        Sha256::of(&values).to_string()
    };
    let others = [(0, [1; 32]), (7, [9; 32]), (16, [3; 32])];
    let honest = quote(&signer, binding.as_bytes(), &REGISTERS);
    let refusal = refusal(&Quote { pcrs: pcrs(&others), ..honest });
    assert_eq!((refusal.expected, refusal.found), (values(&REGISTERS), values(&others)));
}

/// A TPM may have a selection of any size, and there are 24 registers.
#[test]
fn only_registers_that_exist_are_quoted() {
    let signer = Signer::authority("a TPM");
    let verdict = |registers: &[(u8, [u8; 32])], bits: &[u8]| {
        let honest = attest(context().binding.as_bytes(), registers);
        let (head, rest) = honest.split_at(honest.len() - 34 - 4);
        let size = [u8::try_from(bits.len()).unwrap()];
        let quote = [head, &size, bits, &rest[4..]].concat();
        let signature = signature(&signer.sign(&quote));
        let quote = Quote { quote, signature, pcrs: pcrs(registers) };
        proof(&quote, &pinned(&signer)).map_err(|refusal| refusal.code)
    };
    let (low, high) = ([(0, [1; 32]), (7, [2; 32])], [(0, [1; 32]), (23, [4; 32])]);
    for (registers, bits) in [
        (&low[..], &[0x81][..]),
        (&low, &[0x81, 0]),
        (&low, &[0x81, 0, 0]),
        (&low, &[0x81, 0, 0, 0]),
        (&high, &[1, 0, 0x80]),
        (&high, &[1, 0, 0x80, 0, 0]),
        (&[], &[]),
        (&[], &[0, 0, 0]),
    ] {
        assert!(verdict(registers, bits).is_ok(), "{bits:?}");
    }
    for (registers, bits) in [
        (&low[..], &[0x81, 0, 0, 1][..]),
        (&low, &[0x81, 0, 0, 0, 0x80]),
        (&low, &[0x81, 1]),
        (&low, &[0x80]),
        (&low, &[]),
        (&high, &[1, 0]),
        (&[], &[0, 0, 0, 1]),
    ] {
        assert_eq!(verdict(registers, bits), Err(Code::WorkerIdentityUnverified), "{bits:?}");
    }
}

#[test]
fn quotes_are_signed_in_three_ways() {
    let (random, signer) = (SystemRandom::new(), Signer::authority("a TPM"));
    let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
    let p256 = EcdsaKeyPair::from_pkcs8(curve, pkcs8.as_ref()).unwrap();
    let quote = attest(context().binding.as_bytes(), &REGISTERS);
    let point = PublicKey::EcdsaP256(p256.public_key().as_ref().try_into().unwrap());
    let platform =
        Platform::Tpm(Tpm { keys: vec![signer.public_key(), point], authorities: vec![] });
    let verdict = |algorithm: u8, hash: u8, numbers: &[&[u8]], more: &[u8]| {
        let sized = |number: &&[u8]| {
            [&u16::try_from(number.len()).unwrap().to_be_bytes()[..], *number].concat()
        };
        let numbers: Vec<u8> = numbers.iter().flat_map(sized).collect();
        let signature = [&[0, algorithm, 0, hash][..], &numbers, more].concat();
        let quote = Quote { quote: quote.clone(), signature, pcrs: pcrs(&REGISTERS) };
        proof(&quote, &platform).map_err(|refusal| refusal.code)
    };
    let (plain, pss) = (signer.sign(&quote), signer.sign_pss(&quote));
    // a signature whose first number is short, which a TPM writes shortly
    let both = loop {
        let both = p256.sign(&random, &quote).unwrap().as_ref().to_vec();
        if both[0] == 0 && both[1] != 0 && both[32] != 0 {
            break both;
        }
    };
    let (r, s) = both.split_at(32);
    for (algorithm, numbers) in
        [(0x14, &[&plain[..]][..]), (0x16, &[&pss]), (0x18, &[r, s]), (0x18, &[&r[1..], s])]
    {
        assert!(verdict(algorithm, 0x0b, numbers, &[]).is_ok(), "{algorithm:#x}");
        // SHA-384, and more than the signature
        let other = verdict(algorithm, 0x0c, numbers, &[]);
        assert_eq!(other, Err(Code::WorkerIdentityUnverified), "{algorithm:#x}");
        let longer = verdict(algorithm, 0x0b, numbers, &[0]);
        assert_eq!(longer, Err(Code::WorkerIdentityUnverified), "{algorithm:#x}");
    }
    let padded = [&[0], r].concat();
    for (algorithm, numbers) in [
        // each in the form of another
        (0x14, &[&pss[..]][..]),
        (0x16, &[&plain]),
        (0x14, &[&both]),
        (0x18, &[&plain]),
        (0x18, &[&plain, &plain]),
        // ECDAA, and nothing
        (0x1a, &[r, s]),
        (0x10, &[]),
        // one number, the other first, one that is longer than it can be, and none
        (0x18, &[r]),
        (0x18, &[s, r]),
        (0x18, &[&padded, s]),
        (0x18, &[r, &[]]),
        (0x18, &[&[], &[]]),
        (0x14, &[&[]]),
        (0x14, &[]),
    ] {
        let verdict = verdict(algorithm, 0x0b, numbers, &[]);
        assert_eq!(verdict, Err(Code::WorkerIdentityUnverified), "{algorithm:#x}: {numbers:?}");
    }
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
    for (kind, scheme) in [("rsa", "rsassa"), ("rsa", "rsapss"), ("ecc", "ecdsa")] {
        tpm.run(&format!("tpm2_createek -Q -c ek.ctx -G {kind}"));
        tpm.run(&format!(
            "tpm2_createak -Q -C ek.ctx -c ak.ctx -G {kind} -g sha256 -s {scheme} -u ak.pem -f pem"
        ));
        tpm.run(&format!(
            "tpm2_quote -Q -c ak.ctx -l sha256:0,7,16 -q {binding} -m quote -s signature -o pcrs -F values -g sha256 --scheme {scheme}"
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
