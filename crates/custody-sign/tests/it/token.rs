use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;

const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";
const PIN: &str = "1234";
const OFFICER: &str = "87654321";
/// Kinds of keys in the words of `pkcs11-tool`.
const KINDS: [&str; 4] = ["EC:edwards25519", "EC:prime256v1", "EC:secp384r1", "rsa:2048"];

/// SoftHSM with tokens of its own.
struct Tokens {
    folder: PathBuf,
}

/// Does the test in a process of its own: SoftHSM finds its tokens by an environment variable, once.
fn apart(test: &str, body: impl FnOnce(&Tokens)) {
    if let Some(folder) = std::env::var_os("CUSTODY_TEST_TOKENS") {
        return body(&Tokens { folder: folder.into() });
    }
    if !(have("softhsm2-util") && have("pkcs11-tool")) {
        return;
    }
    let folder = TempDir::new().unwrap();
    let tokens = folder.path().join("tokens");
    fs::create_dir(&tokens).unwrap();
    let config = format!("directories.tokendir = {}\n", tokens.display());
    fs::write(folder.path().join("softhsm2.conf"), config).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("token::{test}"), "--nocapture"])
        .env("SOFTHSM2_CONF", folder.path().join("softhsm2.conf"))
        .env("CUSTODY_TEST_TOKENS", folder.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    let passed = output.status.success() && out.contains("1 passed");
    assert!(passed, "{}\n{out}{}", output.status, String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::unused_self, reason = "the tokens are those of this folder")]
impl Tokens {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn init(&self, label: &str) {
        let mut command = Command::new("softhsm2-util");
        command.args(["--init-token", "--free", "--label", label]);
        run(command.args(["--so-pin", OFFICER, "--pin", PIN]));
    }

    fn tool(&self, token: &str, arguments: &[&str]) {
        let mut command = Command::new("pkcs11-tool");
        command.args(["--module", SOFTHSM, "--token-label", token, "--login", "--pin", PIN]);
        run(command.args(arguments));
    }

    fn generate(&self, token: &str, kind: &str, label: &str, id: &str) {
        let arguments = ["--keypairgen", "--key-type", kind, "--label", label, "--id", id];
        self.tool(token, &arguments);
    }

    /// A library that does otherwise than SoftHSM, as the macros say.
    fn liar(&self, name: &str, macros: &[&str]) -> String {
        let library = self.path(&format!("{name}.so"));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(&library);
        command.arg(format!("-DMODULE=\"{SOFTHSM}\""));
        command.args(macros.iter().map(|it| format!("-D{it}")));
        run(command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/liar.c")).arg("-ldl"));
        fs::set_permissions(&library, fs::Permissions::from_mode(0o755)).unwrap();
        library.to_str().unwrap().to_owned()
    }
}

/// Opens a key with this answer to the question for the PIN. Only one is asked.
fn open_as(
    name: &str,
    module: &str,
    more: &str,
    pin: Option<&str>,
) -> Result<Box<dyn Signer>, Refusal> {
    let mut answers = pin.into_iter();
    let mut ask = |what: &str| {
        let Some(answer) = answers.next() else { panic!("{what} was asked for") };
        assert!(what.starts_with("PIN of token "), "{what}");
        Ok(Zeroizing::new(answer.to_owned()))
    };
    let mut access = Access { agent: None, security_key_provider: None, passphrase: &mut ask };
    let uri = format!("pkcs11:{name}?module-path={module}{more}");
    KeySource::parse(&uri).unwrap().open(&mut access)
}

fn open_key(name: &str) -> Result<Box<dyn Signer>, Refusal> {
    open_as(name, SOFTHSM, "", Some(PIN))
}

/// Refused as unavailable; what was found is the caller's to look at.
fn refused(result: Result<Box<dyn Signer>, Refusal>) -> Refusal {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.code, Code::KeyUnavailable, "{refusal}");
    refusal
}

#[test]
fn keys_of_openssl_sign_in_a_token() {
    apart("keys_of_openssl_sign_in_a_token", |tokens| {
        tokens.init("custody");
        let kinds: [(&str, &[&str]); 5] = [
            ("ssh-ed25519", &["-algorithm", "ED25519"]),
            ("ecdsa-sha2-nistp256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
            ("ecdsa-sha2-nistp384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
            ("ssh-rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
            ("ssh-rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"]),
        ];
        for (number, (kind, arguments)) in kinds.iter().enumerate() {
            let (file, id) = (tokens.path(&number.to_string()), format!("0{number}"));
            run(Command::new("openssl").arg("genpkey").args(*arguments).arg("-out").arg(&file));
            let mut import = Command::new("softhsm2-util");
            import.arg("--import").arg(&file).args(["--token", "custody", "--pin", PIN]);
            run(import.args(["--label", kind, "--id", &id]));
            let pem = Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&file).output();
            let theirs: PublicKey = str::from_utf8(&pem.unwrap().stdout).unwrap().parse().unwrap();

            let signer = open_key(&format!("token=custody;id=%{id}")).unwrap();
            assert_eq!(*signer.public_key(), theirs);
            assert_eq!(theirs.ssh_type(), *kind);
            signs_as_machine(&*signer);
            signs_as_person(&*signer);
            // longer than what most tokens take at once
            signer.sign_plain(&vec![b'x'; 1 << 20]).unwrap();
        }
    });
}

#[test]
fn a_key_is_found_by_each_of_its_names_and_by_no_other() {
    apart("a_key_is_found_by_each_of_its_names_and_by_no_other", |tokens| {
        tokens.init("one");
        tokens.generate("one", "EC:prime256v1", "builder", "0a");
        tokens.generate("one", "EC:prime256v1", "packer", "0b");
        tokens.generate("one", "EC:edwards25519", "packer", "0c");
        let builder = open_key("object=builder").unwrap().public_key().clone();
        for name in [
            "id=%0A",
            "id=%0a;object=builder",
            "token=one;object=builder;type=private",
            "token=one;manufacturer=SoftHSM%20project;model=SoftHSM%20v2;id=%0a",
        ] {
            assert_eq!(*open_key(name).unwrap().public_key(), builder, "{name}");
        }
        assert_eq!(open_key("id=%0c").unwrap().public_key().ssh_type(), "ssh-ed25519");

        let all = "object=builder;id=%0A, object=packer;id=%0B, object=packer;id=%0C";
        for (name, found) in [
            ("object=publisher", format!("none; there are {all}")),
            ("object=Builder", format!("none; there are {all}")),
            ("object=packer;id=%0a", format!("none; there are {all}")),
            ("id=", format!("none; there are {all}")),
            ("token=one", format!("3: {all}")),
            ("object=packer", "2: object=packer;id=%0B, object=packer;id=%0C".to_owned()),
        ] {
            let refusal = refused(open_key(name));
            assert_eq!(refusal.expected, "one private key that fits");
            assert_eq!(refusal.found, found, "{name}");
            assert_eq!(refusal.at, format!("pkcs11:{}", name.replace("%0a", "%0A")));
        }

        // a token that does not fit is not logged in to: nobody asks for a PIN
        let no_pin = |name: &str| refused(open_as(name, SOFTHSM, "", None));
        for name in ["token=two", "serial=0", "manufacturer=Other", "model=Other", "token="] {
            let refusal = no_pin(&format!("{name};object=builder"));
            assert_eq!(refusal.expected, "one token that fits");
            assert!(refusal.found.starts_with("none; there are token=one;serial="), "{refusal}");
        }
    });
}

#[test]
fn of_two_tokens_one_must_be_named() {
    apart("of_two_tokens_one_must_be_named", |tokens| {
        tokens.init("one");
        tokens.init("two");
        tokens.generate("two", "EC:prime256v1", "builder", "01");
        let refusal = refused(open_as("object=builder", SOFTHSM, "", None));
        assert_eq!(refusal.expected, "one token that fits");
        assert!(refusal.found.starts_with("2: token=one;serial="), "{refusal}");
        let serial = refusal.found.rsplit_once("token=two;").unwrap().1.to_owned();
        open_key("token=two;object=builder").unwrap();
        open_key(&format!("{serial};object=builder")).unwrap();
        refused(open_as(&format!("token=one;{serial}"), SOFTHSM, "", None));
    });
}

#[test]
fn without_a_token_nobody_is_asked_for_a_pin() {
    apart("without_a_token_nobody_is_asked_for_a_pin", |_| {
        let refusal = refused(open_as("object=builder", SOFTHSM, "", None));
        assert_eq!((&*refusal.expected, &*refusal.found), ("one token that fits", "none"));
    });
}

#[test]
fn a_pin_is_tried_once_and_not_asked_for_twice() {
    apart("a_pin_is_tried_once_and_not_asked_for_twice", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "builder", "01");
        tokens.generate("custody", "EC:prime256v1", "packer", "02");
        let count = tokens.path("count");
        let liar = tokens.liar("count", &[&format!("COUNT=\"{}\"", count.display())]);
        let logins = || fs::read(&count).map_or(0, |bytes| bytes.len());
        let name = "token=custody;object=builder";
        for (number, wrong) in ["0000", "", "12345", &"9".repeat(300)].into_iter().enumerate() {
            let refusal = refused(open_as(name, &liar, "", Some(wrong)));
            assert_eq!(refusal.expected, "the PIN of the token");
            assert_eq!(refusal.at, format!("pkcs11:{name}"));
            assert_eq!(logins(), number + 1);
        }
        let builder = open_as(name, &liar, "", Some(PIN)).unwrap();
        assert_eq!(logins(), 5);
        // the process is logged in as long as one key is open
        let packer = open_as("token=custody;object=packer", &liar, "", None).unwrap();
        assert_eq!(logins(), 5);
        drop(builder);
        signs_as_machine(&*packer);
        drop(packer);
        open_as(name, &liar, "", Some(PIN)).unwrap();
        assert_eq!(logins(), 6);
    });
}

#[test]
fn a_pin_comes_from_a_file_that_nobody_else_reads() {
    apart("a_pin_comes_from_a_file_that_nobody_else_reads", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "builder", "01");
        let file = tokens.path("pin file");
        let more = format!("&pin-source=file:{}", file.display()).replace(' ', "%20");
        let open = || open_as("object=builder", SOFTHSM, &more, None);
        assert!(refused(open()).at.contains("pin file"));
        let write = |text: &str, mode| {
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        };
        for text in ["1234", "1234\n", "1234\r\n", "1234\nmore\n"] {
            write(text, 0o600);
            signs_as_machine(&*open().unwrap());
        }
        for text in ["", "\n1234\n", " 1234", "1234 "] {
            write(text, 0o600);
            assert_eq!(refused(open()).expected, "the PIN of the token", "{text:?}");
        }
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            write(PIN, mode);
            let refusal = open().unwrap_err();
            assert_eq!(refusal.code, Code::WorkerKeyExposed, "{mode:o}");
            assert!(refusal.at.contains("pin file"), "{refusal}");
        }
        write(PIN, 0o600);
        open().unwrap();
    });
}

#[test]
fn locked_pins_last_tries_and_pads_are_heeded() {
    apart("locked_pins_last_tries_and_pads_are_heeded", |tokens| {
        tokens.init("büro\u{1b}[2J");
        tokens.generate("büro\u{1b}[2J", "EC:prime256v1", "builder", "01");
        let name = "object=builder";
        // CKF_USER_PIN_LOCKED: no login is tried; and CKR_PIN_LOCKED
        let locked = tokens.liar("locked", &["FLAGS=0x40000", "LOGIN_GIVES=5"]);
        let locks = tokens.liar("locks", &["LOGIN_GIVES=0xa4"]);
        for (module, pin) in [(locked, None), (locks, Some(PIN))] {
            let refusal = refused(open_as(name, &module, "", pin));
            assert!(refusal.found.contains("locked"), "{refusal}");
        }
        // CKF_USER_PIN_FINAL_TRY
        let last = tokens.liar("last", &["FLAGS=0x20000"]);
        let mut asked = String::new();
        let mut ask = |what: &str| {
            asked = what.to_owned();
            Ok(Zeroizing::new(PIN.to_owned()))
        };
        let mut access = Access { agent: None, security_key_provider: None, passphrase: &mut ask };
        let source = KeySource::parse(&format!("pkcs11:{name}?module-path={last}")).unwrap();
        source.open(&mut access).unwrap();
        assert_eq!(asked, r"PIN of token büro\u{1b}[2J, the last try before it locks");
        // CKF_PROTECTED_AUTHENTICATION_PATH
        let pad = tokens.liar("pad", &["FLAGS=0x100", "PAD=\"1234\""]);
        signs_as_machine(&*open_as(name, &pad, "", None).unwrap());
    });
}

#[test]
fn weak_and_unknown_kinds_are_refused() {
    apart("weak_and_unknown_kinds_are_refused", |tokens| {
        tokens.init("custody");
        let kinds = ["rsa:1024", "EC:secp521r1", "EC:secp256k1", "EC:brainpoolP256r1"];
        for (number, kind) in kinds.into_iter().enumerate() {
            let id = format!("0{number}");
            tokens.generate("custody", kind, "key", &id);
            let refusal = open_key(&format!("id=%{id}")).unwrap_err();
            assert_eq!(refusal.code, Code::PolicyKeyWeak, "{kind}: {refusal}");
            assert!(refusal.at.starts_with("pkcs11:id=%"), "{refusal}");
        }
        tokens.generate("custody", "rsa:2048", "key", "0f");
        open_key("id=%0f").unwrap();
    });
}

#[test]
fn keys_that_cannot_sign_say_why() {
    apart("keys_that_cannot_sign_say_why", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "good", "01");
        tokens.generate("custody", "EC:prime256v1", "alone", "02");
        tokens.generate("custody", "rsa:2048", "alone", "03");
        tokens.tool("custody", &["--delete-object", "--type", "pubkey", "--id", "02"]);
        tokens.tool("custody", &["--delete-object", "--type", "pubkey", "--id", "03"]);
        tokens.tool(
            "custody",
            &[
                "--keypairgen",
                "--key-type",
                "EC:prime256v1",
                "--id",
                "04",
                "--label",
                "always",
                "--always-auth",
            ],
        );
        // another user of the library in this process, who came first
        let module = Pkcs11::new(SOFTHSM).unwrap();
        module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
        let slot = module.get_slots_with_initialized_token().unwrap()[0];
        let session = module.open_rw_session(slot).unwrap();
        session.login(UserType::User, Some(&AuthPin::from(PIN))).unwrap();
        let public = [
            Attribute::Token(true),
            Attribute::Id(vec![5]),
            Attribute::EcParams(b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07".to_vec()),
        ];
        let private = [Attribute::Token(true), Attribute::Id(vec![5]), Attribute::Sign(false)];
        session.generate_key_pair(&Mechanism::EccKeyPairGen, &public, &private).unwrap();
        drop(session);

        let expected = |name: &str| refused(open_key(name)).expected;
        assert!(expected("id=%02").contains("one public key beside the private one"));
        assert_eq!(expected("id=%04"), "a key that signs after one login");
        assert_eq!(expected("id=%05"), "a key that may sign");
        signs_as_machine(&*open_key("id=%03").unwrap());
        signs_as_machine(&*open_key("id=%01").unwrap());
    });
}

#[test]
fn a_token_that_lies_is_not_believed() {
    apart("a_token_that_lies_is_not_believed", |tokens| {
        tokens.init("custody");
        let honest = tokens.liar("honest", &[]);
        let flips = tokens.liar("flips", &["FLIP"]);
        let shortens = tokens.liar("shortens", &["SHORTEN"]);
        for (number, kind) in KINDS.into_iter().enumerate() {
            let id = format!("0{number}");
            tokens.generate("custody", kind, "key", &id);
            let open = |module: &str| open_as(&format!("id=%{id}"), module, "", Some(PIN)).unwrap();
            signs_as_machine(&*open(&honest));
            signs_as_person(&*open(&honest));
            for module in [&flips, &shortens] {
                let signer = open(module);
                let mut envelope = unsigned();
                let refusal = sign_envelope_as_machine(&mut envelope, &*signer).unwrap_err();
                assert_eq!(refusal.code, Code::EnvSignatureInvalid, "{kind}: {refusal}");
                let refusal = sign_envelope_as_person(&mut envelope, &*signer).unwrap_err();
                assert_eq!(refusal.code, Code::EnvSignatureInvalid, "{kind}: {refusal}");
                assert!(envelope.signatures().is_empty());
            }
        }
    });
}

#[test]
fn a_public_key_that_is_not_the_private_ones_signs_nothing() {
    apart("a_public_key_that_is_not_the_private_ones_signs_nothing", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "key", "01");
        tokens.generate("custody", "EC:prime256v1", "other", "02");
        let der = tokens.path("other.der");
        let der = der.to_str().unwrap();
        tokens.tool("custody", &["--read-object", "--type", "pubkey", "--id", "02", "-o", der]);
        tokens.tool("custody", &["--delete-object", "--type", "pubkey", "--id", "01"]);
        tokens.tool("custody", &["--write-object", der, "--type", "pubkey", "--id", "01"]);
        let other = open_key("id=%02").unwrap();
        signs_as_machine(&*other);
        let key = open_as("id=%01", SOFTHSM, "", None).unwrap();
        assert_eq!(key.public_key(), other.public_key());
        for result in [key.sign_plain(MESSAGE), key.sign_ssh(MESSAGE)] {
            assert_eq!(result.unwrap_err().code, Code::EnvSignatureInvalid);
        }
    });
}

#[test]
fn a_token_that_is_gone_is_an_error() {
    apart("a_token_that_is_gone_is_an_error", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "key", "01");
        // CKR_DEVICE_REMOVED
        let removed = tokens.liar("removed", &["SIGN_GIVES=0x32"]);
        let signer = open_as("id=%01", &removed, "", Some(PIN)).unwrap();
        let refusal = signer.sign_plain(MESSAGE).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        assert_eq!(refusal.found, "DeviceRemoved from C_Sign");
        drop(signer);

        let signer = open_key("id=%01").unwrap();
        signs_as_machine(&*signer);
        fs::remove_dir_all(tokens.path("tokens")).unwrap();
        for _ in 0..2 {
            let refusal = signer.sign_plain(MESSAGE).unwrap_err();
            assert_eq!(refusal.code, Code::KeyUnavailable);
            assert_eq!(refusal.expected, "a signature by the token");
        }
    });
}

#[test]
fn threads_share_keys_of_one_token() {
    apart("threads_share_keys_of_one_token", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "a", "01");
        tokens.generate("custody", "rsa:2048", "b", "02");
        let signers = [open_key("id=%01").unwrap(), open_as("id=%02", SOFTHSM, "", None).unwrap()];
        thread::scope(|scope| {
            for number in 0..8_u8 {
                let signer = &signers[usize::from(number % 2)];
                // each signature is checked before it comes back
                scope.spawn(move || {
                    for turn in 0..20_u8 {
                        signer.sign_plain(&[number, turn]).unwrap();
                        signer.sign_ssh(&[number, turn]).unwrap();
                    }
                });
            }
            // sessions come and go beside them
            scope.spawn(|| {
                for _ in 0..20 {
                    drop(open_as("id=%01", SOFTHSM, "", None).unwrap());
                }
            });
        });
    });
}

#[test]
fn a_library_is_loaded_only_from_where_nobody_else_writes() {
    apart("a_library_is_loaded_only_from_where_nobody_else_writes", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "key", "01");
        let load =
            |module: &Path| open_as("id=%01", module.to_str().unwrap(), "", Some(PIN)).map(drop);
        let folder = tokens.path("folder");
        fs::create_dir(&folder).unwrap();
        let (library, link) = (folder.join("library.so"), tokens.path("link.so"));
        fs::copy(SOFTHSM, &library).unwrap();
        std::os::unix::fs::symlink(&library, &link).unwrap();
        let chmod = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        for (of_file, of_folder, good) in [
            (0o666, 0o755, false),
            (0o664, 0o755, false),
            (0o644, 0o777, false),
            (0o644, 0o1777, true),
            (0o644, 0o775, true),
            (0o644, 0o755, true),
        ] {
            chmod(&library, of_file);
            chmod(&folder, of_folder);
            for module in [&library, &link] {
                let loaded = load(module);
                assert_eq!(loaded.is_ok(), good, "{of_file:o} {of_folder:o}: {loaded:?}");
                if let Err(refusal) = loaded {
                    assert_eq!(refusal.code, Code::KeyUnavailable);
                    assert!(refusal.expected.contains("can change"), "{refusal}");
                }
            }
        }
        fs::write(tokens.path("text.so"), "no library").unwrap();
        chmod(&tokens.path("text.so"), 0o644);
        let other = tokens.path("other.so");
        run(Command::new("cc").args(["-shared", "-x", "c", "/dev/null", "-o"]).arg(&other));
        chmod(&other, 0o755);
        let absent = tokens.path("absent.so");
        for module in [tokens.path("text.so"), other, absent, folder] {
            let refusal = load(&module).unwrap_err();
            assert_eq!(refusal.code, Code::KeyUnavailable);
            assert_eq!(refusal.at, module.to_str().unwrap(), "{refusal}");
        }
    });
}

#[test]
fn debug_shows_neither_pin_nor_pointers() {
    apart("debug_shows_neither_pin_nor_pointers", |tokens| {
        tokens.init("custody");
        tokens.generate("custody", "EC:prime256v1", "key", "01");
        let signer = open_key("token=custody;id=%01").unwrap();
        assert_eq!(format!("{signer:?}"), r#"TokenKey { at: "pkcs11:token=custody;id=%01", .. }"#);
    });
}
