use super::*;
use custody_core::encoding::{base64, base64_decode};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

fn openssl(arguments: &[&str], to: &Path) {
    // genrsa wants its number last.
    let (verb, rest) = arguments.split_first().unwrap();
    run(Command::new("openssl").arg(verb).arg("-out").arg(to).args(rest));
    protect(to, 0o600);
}

fn protect(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

const OPENSSL_KINDS: [(&str, &[&str]); 4] = [
    ("ssh-ed25519", &["genpkey", "-algorithm", "ED25519"]),
    (
        "ecdsa-sha2-nistp256",
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    ),
    (
        "ecdsa-sha2-nistp384",
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    ),
    ("ssh-rsa", &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
];

#[test]
fn keys_of_openssl_sign_plain_and_encrypted() {
    if !have("openssl") {
        return;
    }
    let (_folder, path) = folder();
    for (kind, arguments) in OPENSSL_KINDS {
        let plain = path(kind);
        openssl(arguments, &plain);
        let signer = open(&plain).unwrap();
        assert_eq!(signer.public_key().ssh_type(), kind);
        let pem = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&plain).output();
        let theirs: PublicKey = str::from_utf8(&pem.unwrap().stdout).unwrap().parse().unwrap();
        assert_eq!(*signer.public_key(), theirs);
        signs_as_machine(&*signer);
        signs_as_person(&*signer);

        for kdf in [&[][..], &["-scrypt"], &["-v2prf", "hmacWithSHA512"]] {
            let sealed = path(&format!("{kind} encrypted"));
            let topk8 = [
                "pkcs8",
                "-topk8",
                "-in",
                plain.to_str().unwrap(),
                "-passout",
                "pass:correct horse",
            ];
            openssl(&[&topk8, kdf].concat(), &sealed);
            let signer = open_with(&sealed, PASSPHRASE).unwrap();
            assert_eq!(*signer.public_key(), theirs);
            signs_as_machine(&*signer);
            let refusal = open_with(&sealed, "wrong horse").unwrap_err();
            assert_eq!(refusal.code, Code::KeyUnavailable);
            assert!(refusal.expected.contains("passphrase"), "{refusal}");
        }
    }
}

#[test]
fn keys_of_openssl_that_no_policy_lists_are_refused() {
    if !have("openssl") {
        return;
    }
    let (_folder, path) = folder();
    let weak: [&[&str]; 3] = [
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"],
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &["genpkey", "-algorithm", "ED448"],
    ];
    for arguments in weak {
        openssl(arguments, &path("weak"));
        assert_eq!(open(&path("weak")).unwrap_err().code, Code::KeyUnavailable, "{arguments:?}");
    }
    let exponent = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_pubexp:3"];
    openssl(&exponent, &path("weak"));
    assert_eq!(open(&path("weak")).unwrap_err().code, Code::PolicyKeyWeak);
}

#[test]
fn old_forms_are_refused_with_the_way_out_which_works() {
    if !have("openssl") {
        return;
    }
    let (_folder, path) = folder();
    let curve = ["ecparam", "-name", "prime256v1", "-genkey"];
    let old: [&[&str]; 3] =
        [&curve, &[&curve[..], &["-noout"]].concat(), &["genrsa", "-traditional", "2048"]];
    for arguments in old {
        openssl(arguments, &path("old"));
        let refusal = open(&path("old")).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        assert!(refusal.expected.contains("openssl pkcs8 -topk8"), "{refusal}");
        openssl(
            &["pkcs8", "-topk8", "-nocrypt", "-in", path("old").to_str().unwrap()],
            &path("new"),
        );
        signs_as_machine(&*open(&path("new")).unwrap());
    }
}

#[test]
fn keys_of_ssh_keygen_sign_plain_and_encrypted() {
    let (_folder, path) = folder();
    let kinds: [&[&str]; 4] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "rsa", "-b", "2048"],
    ];
    for kind in kinds {
        let plain = path(&kind.concat());
        let key = ssh_keygen(&[kind, &["-N", ""]].concat(), &plain);
        let signer = open(&plain).unwrap();
        assert_eq!(*signer.public_key(), key);
        signs_as_machine(&*signer);
        signs_as_person(&*signer);
        accepts_ssh_keygen(&plain, None);

        let sealed = path(&format!("{}sealed", kind.concat()));
        let key = ssh_keygen(&[kind, &["-N", PASSPHRASE]].concat(), &sealed);
        let signer = open_with(&sealed, PASSPHRASE).unwrap();
        assert_eq!(*signer.public_key(), key);
        signs_as_machine(&*signer);
        let refusal = open_with(&sealed, "wrong horse").unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        assert!(refusal.expected.contains("passphrase"), "{refusal}");
    }
}

#[test]
fn other_ciphers_and_kinds_of_ssh_keygen_are_refused_by_name() {
    let (_folder, path) = folder();
    let options = ["-t", "ed25519", "-N", PASSPHRASE, "-Z", "aes256-gcm@openssh.com"];
    ssh_keygen(&options, &path("gcm"));
    let refusal = open_with(&path("gcm"), PASSPHRASE).unwrap_err();
    assert_eq!(refusal.code, Code::KeyUnavailable);
    assert_eq!(refusal.found, "aes256-gcm@openssh.com");

    run(Command::new("ssh-keygen")
        .args(["-q", "-t", "ecdsa", "-b", "521", "-N", ""])
        .arg("-f")
        .arg(path("521")));
    let refusal = open(&path("521")).unwrap_err();
    assert_eq!(refusal.code, Code::PolicyKeyWeak);
    assert!(refusal.found.contains("ecdsa-sha2-nistp521"), "{refusal}");
}

#[test]
fn a_file_whose_halves_do_not_belong_together_is_refused() {
    let (_folder, path) = folder();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let read = |name: &str| {
            ssh_keygen(&["-t", kind, "-N", ""], &path(name));
            let text = fs::read_to_string(path(name)).unwrap();
            let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
            (base64_decode(&body).unwrap(), public_of(&path(name)).to_ssh_blob())
        };
        let (file, key) = read(&format!("{kind} a"));
        let (_, other) = read(&format!("{kind} b"));
        let at = file.windows(key.len()).position(|window| window == key).unwrap();
        let mut mixed = file;
        mixed.splice(at..at + key.len(), other);
        let label = "OPENSSH PRIVATE KEY-----";
        let body = base64(&mixed);
        fs::write(path("mixed"), format!("-----BEGIN {label}\n{body}\n-----END {label}\n"))
            .unwrap();
        protect(&path("mixed"), 0o600);
        let refusal = open(&path("mixed")).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable, "{kind}: {refusal}");
        assert!(open(&path(&format!("{kind} a"))).is_ok());
    }
}

/// `wrk-key-readable`.
#[test]
fn an_exposed_key_file_is_refused() {
    let (_folder, path) = folder();
    let file = path("key");
    ssh_keygen(&["-t", "ed25519", "-N", ""], &file);
    symlink(&file, path("link")).unwrap();
    for (mode, exposed) in [
        (0o600, false),
        (0o400, false),
        (0o700, false),
        (0o640, true),
        (0o620, true),
        (0o604, true),
        (0o602, true),
        (0o644, true),
        (0o666, true),
    ] {
        protect(&file, mode);
        for way in [&file, &path("link")] {
            let opened = open(way);
            assert_eq!(opened.is_err(), exposed, "{mode:o}");
            if let Err(refusal) = opened {
                assert_eq!(refusal.code, Code::WorkerKeyExposed);
                assert!(refusal.to_string().contains("chmod 600"), "{refusal}");
                assert!(refusal.at.contains(way.to_str().unwrap()), "{refusal}");
            }
        }
    }
}

/// `wrk-key-readable`.
#[test]
fn a_key_file_of_somebody_else_is_refused() {
    let (_folder, path) = folder();
    let file = path("key");
    ssh_keygen(&["-t", "ed25519", "-N", ""], &file);
    open(&file).unwrap();
    if let Err(error) = chown(&file, Some(65_534), None) {
        writeln!(std::io::stderr(), "skipped: files cannot be given away here: {error}").unwrap();
        return;
    }
    let refusal = open(&file).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerKeyExposed);
    assert!(refusal.found.contains("65534"), "{refusal}");
}

#[test]
fn what_is_no_key_file_is_refused() {
    let (_folder, path) = folder();
    assert_eq!(open(&path("absent")).unwrap_err().code, Code::KeyUnavailable);
    fs::create_dir(path("folder")).unwrap();
    protect(&path("folder"), 0o700);
    run(Command::new("mkfifo").args(["-m", "600"]).arg(path("pipe")));
    for name in ["folder", "pipe"] {
        let refusal = open(&path(name)).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        assert_eq!(refusal.expected, "a plain file");
    }
    let texts: [&[u8]; 6] = [
        b"",
        b"\xff\xfe",
        b"ssh-ed25519 AAAA",
        b"-----BEGIN PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    ];
    for text in texts {
        fs::write(path("text"), text).unwrap();
        protect(&path("text"), 0o600);
        assert_eq!(open(&path("text")).unwrap_err().code, Code::KeyUnavailable);
    }
}

/// An encrypted PKCS#8 file whose key is derived like this.
fn sealed_with(kdf: &[u8]) -> String {
    let sequence = |parts: &[&[u8]]| {
        let body = parts.concat();
        [&[0x30, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
    };
    let pbes2 = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0d";
    let cipher = [&b"\x30\x1d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2a\x04\x10"[..], &[7; 16]];
    let parameters = sequence(&[kdf, &cipher.concat()]);
    let algorithm = sequence(&[pbes2, &parameters]);
    let body = base64(&sequence(&[&algorithm, b"\x04\x10", &[9; 16]]));
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n")
}

/// A file says what its passphrase costs, and the library panics where scrypt's N is 0.
#[test]
fn a_file_that_asks_for_days_of_work_is_refused() {
    let (_folder, path) = folder();
    let scrypt = |n: &[u8], r: u8, p: u8| {
        let salt = b"\x04\x04salt";
        let n = [&[0x02, u8::try_from(n.len()).unwrap()], n].concat();
        let costs = [&salt[..], &n, &[0x02, 1, r, 0x02, 1, p]].concat();
        let costs = [&[0x30, u8::try_from(costs.len()).unwrap()], costs.as_slice()].concat();
        let id = b"\x06\x09\x2b\x06\x01\x04\x01\xda\x47\x04\x0b";
        let length = u8::try_from(id.len() + costs.len()).unwrap();
        [&[0x30, length], &id[..], &costs].concat()
    };
    let pbkdf2 = |count: &[u8]| {
        let count = [&[0x02, u8::try_from(count.len()).unwrap()], count].concat();
        let costs = [&b"\x04\x04salt"[..], &count].concat();
        let costs = [&[0x30, u8::try_from(costs.len()).unwrap()], costs.as_slice()].concat();
        let id = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x05\x0c";
        let length = u8::try_from(id.len() + costs.len()).unwrap();
        [&[0x30, length], &id[..], &costs].concat()
    };
    let refused = |kdf: Vec<u8>| {
        fs::write(path("sealed"), sealed_with(&kdf)).unwrap();
        protect(&path("sealed"), 0o600);
        let refusal = open_with(&path("sealed"), PASSPHRASE).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        refusal.expected
    };
    // costs that are fine: then the passphrase is what does not fit
    for kdf in [scrypt(&[16], 8, 1), pbkdf2(&[0x08, 0x00])] {
        let expected = refused(kdf);
        assert!(expected.contains("passphrase"), "{expected}");
    }
    let most = [0x40, 0, 0, 0];
    for kdf in [
        scrypt(&[0], 8, 1),
        scrypt(&[1], 8, 1),
        scrypt(&[17], 8, 1),
        scrypt(&[16], 0, 1),
        scrypt(&[16], 8, 0),
        scrypt(&most, 8, 1),
        scrypt(&[0x40, 0], 127, 127),
        scrypt(&[0x40, 0, 0, 0, 0, 0, 0, 0], 8, 1),
    ] {
        let expected = refused(kdf);
        assert!(expected.contains("scrypt"), "{expected}");
    }
    let expected = refused(pbkdf2(&[0x05, 0xf5, 0xe1, 0x00]));
    assert!(expected.contains("iterations"), "{expected}");
}

/// The same in the other form, whose work is counted in rounds.
#[test]
fn an_openssh_file_that_asks_for_days_of_work_is_refused() {
    let (_folder, path) = folder();
    ssh_keygen(&["-t", "ed25519", "-N", PASSPHRASE], &path("key"));
    open_with(&path("key"), PASSPHRASE).unwrap();
    let text = fs::read_to_string(path("key")).unwrap();
    let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut bytes = base64_decode(&body).unwrap();
    // bcrypt, its options' length, the salt of 16 bytes and its length
    let kdf = bytes.windows(6).position(|window| window == b"bcrypt").unwrap();
    let rounds = kdf + 6 + 4 + 4 + 16;
    bytes[rounds..rounds + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    let text = format!(
        "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
        base64(&bytes)
    );
    fs::write(path("key"), text).unwrap();
    let refusal = open_with(&path("key"), PASSPHRASE).unwrap_err();
    assert_eq!(refusal.code, Code::KeyUnavailable);
    assert!(refusal.expected.contains("rounds"), "{refusal}");
}
