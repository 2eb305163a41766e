use super::*;
use custody_sign::{Format, Kind, generate};
use std::os::unix::fs::MetadataExt as _;

#[test]
fn generated_keys_are_read_by_us_by_openssl_and_by_ssh_keygen() {
    let (_folder, path) = folder();
    for kind in [Kind::Ed25519, Kind::EcdsaP256] {
        for format in [Format::Pkcs8, Format::OpenSsh] {
            for passphrase in [None, Some(PASSPHRASE)] {
                let new = generate(kind).unwrap();
                let file = path(&format!("{kind:?}{format:?}{}", passphrase.is_some()));
                new.write(&file, format, passphrase, "release machine").unwrap();
                assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
                let line = fs::read_to_string(file.with_extension("pub")).unwrap();
                assert_eq!(line, format!("{} release machine\n", new.public_key().to_openssh()));

                let signer = match passphrase {
                    None => open(&file).unwrap(),
                    Some(passphrase) => open_with(&file, passphrase).unwrap(),
                };
                assert_eq!(signer.public_key(), new.public_key());
                signs_as_machine(&*signer);
                signs_as_person(&*signer);
                if passphrase.is_some() {
                    let refusal = open_with(&file, "wrong horse").unwrap_err();
                    assert_eq!(refusal.code, Code::KeyUnavailable);
                }
                assert_eq!(*new.public_key(), read_by_tool(&file, format));
            }
        }
    }
}

fn read_by_tool(file: &Path, format: Format) -> PublicKey {
    let mut command = match format {
        Format::Pkcs8 => {
            let mut openssl = Command::new("openssl");
            openssl.args(["pkey", "-pubout", "-passin", "pass:correct horse", "-in"]).arg(file);
            openssl
        }
        Format::OpenSsh => {
            let mut ssh_keygen = Command::new("ssh-keygen");
            ssh_keygen.args(["-y", "-P", PASSPHRASE, "-f"]).arg(file);
            ssh_keygen
        }
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    str::from_utf8(&output.stdout).unwrap().parse().unwrap()
}

#[test]
fn an_existing_file_is_never_touched() {
    let (folder, path) = folder();
    let new = generate(Kind::default()).unwrap();
    let write = |name: &str| new.write(&path(name), Format::default(), None, "");
    for name in ["taken", "half.pub"] {
        fs::write(path(name), "precious").unwrap();
    }
    for name in ["taken", "half"] {
        let refusal = write(name).unwrap_err();
        assert_eq!(refusal.code, Code::KeyUnavailable);
        assert!(refusal.expected.contains("never replaced"), "{refusal}");
    }
    for name in ["taken", "half.pub"] {
        assert_eq!(fs::read_to_string(path(name)).unwrap(), "precious");
    }
    let mut left: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["half.pub", "taken"]);
    write("free").unwrap();
}

#[test]
fn a_comment_cannot_add_a_line() {
    let (_folder, path) = folder();
    let new = generate(Kind::default()).unwrap();
    let refusal =
        new.write(&path("key"), Format::OpenSsh, None, "a\nssh-ed25519 AAAA").unwrap_err();
    assert_eq!(refusal.code, Code::KeyUnavailable);
    assert!(!path("key").exists() && !path("key.pub").exists());
}

#[test]
fn debug_shows_no_secret() {
    let (_folder, path) = folder();
    let new = generate(Kind::Ed25519).unwrap();
    let public = format!("{:?}", new.public_key());
    assert_eq!(format!("{new:?}"), format!("NewKey {{ public: {public}, .. }}"));
    new.write(&path("key"), Format::Pkcs8, None, "").unwrap();
    let pem = fs::read_to_string(path("key")).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = custody_core::encoding::base64_decode(&body).unwrap();
    let seed = der.last_chunk::<32>().unwrap();
    let shown = format!("{:?}", open(&path("key")).unwrap());
    assert!(
        !shown.contains(&format!("{seed:?}"))
            && !shown.contains(&custody_core::encoding::hex(seed)),
        "{shown}"
    );
}
