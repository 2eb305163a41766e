//! `custody key generate | import | show`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use custody_core::json::Value;
use custody_core::key::PublicKey;
use custody_sign::{Format, KeySource, Kind, generate};

use crate::context::{KeyArgs, PassphraseArgs, open_key, read, write_new};
use crate::error::Error;
use crate::ui::Ui;

#[derive(Subcommand, Debug)]
pub(crate) enum KeyCommand {
    /// Make a new key
    Generate(GenerateArgs),
    /// Check that a private key can be used, and write its public half for a policy
    Import(ImportArgs),
    /// Show a public key in all its forms
    Show(ShowArgs),
}

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// The file to write; the public half goes to FILE.pub
    file: PathBuf,
    /// The kind of key
    #[arg(long, value_enum, default_value_t = KindArg::Ed25519)]
    kind: KindArg,
    /// The form of the file
    #[arg(long, value_enum, default_value_t = FormatArg::Pkcs8)]
    format: FormatArg,
    /// File whose first line encrypts the key
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// A word that tells whose key it is
    #[arg(long, default_value = "")]
    comment: String,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KindArg {
    Ed25519,
    EcdsaP256,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    Pkcs8,
    Openssh,
}

#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// Where to write the public half, as a line of OpenSSH
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// A file with a public key: PEM, an OpenSSH line, or base64 of SPKI; or a key in an agent or a
    /// token, as --key takes it elsewhere
    key: String,
    #[command(flatten)]
    passphrase: PassphraseArgs,
}

pub(crate) fn run(command: &KeyCommand, ui: &Ui) -> Result<(), Error> {
    match command {
        KeyCommand::Generate(args) => {
            let kind = match args.kind {
                KindArg::Ed25519 => Kind::Ed25519,
                KindArg::EcdsaP256 => Kind::EcdsaP256,
            };
            let format = match args.format {
                FormatArg::Pkcs8 => Format::Pkcs8,
                FormatArg::Openssh => Format::OpenSsh,
            };
            let passphrase =
                args.new_passphrase_file.as_deref().map(std::fs::read_to_string).transpose();
            let passphrase = passphrase
                .map_err(Error::io(args.new_passphrase_file.as_deref().unwrap_or(&args.file)))?;
            let passphrase = passphrase.map(zeroize::Zeroizing::new);
            let line = passphrase.as_ref().map(|text| text.lines().next().unwrap_or_default());
            if line == Some("") {
                let fault = "the passphrase file begins with an empty line, which protects nothing";
                return Err(Error::Usage(fault.into()));
            }
            let key = generate(kind)?;
            key.write(&args.file, format, line, &args.comment)?;
            show(key.public_key(), ui);
        }
        KeyCommand::Import(args) => {
            let signer = args.key.open()?;
            let key = signer.public_key();
            write_new(&args.public, format!("{}\n", key.to_openssh()).as_bytes())?;
            show(key, ui);
        }
        KeyCommand::Show(args) => {
            let KeySource::File(path) = KeySource::parse(&args.key)? else {
                show(open_key(&args.key, &args.passphrase)?.public_key(), ui);
                return Ok(());
            };
            let text = String::from_utf8_lossy(&read(&path)?).into_owned();
            show(&PublicKey::parse(&text).map_err(|refusal| refusal.within(&args.key))?, ui);
        }
    }
    Ok(())
}

fn show(key: &PublicKey, ui: &Ui) {
    let text = format!("id       {}\nopenssh  {}\n{}", key.id(), key.to_openssh(), key.to_pem());
    ui.result(&text, || {
        Value::object([
            ("id", Value::text(key.id())),
            ("type", Value::text(key.ssh_type())),
            ("openssh", Value::text(key.to_openssh())),
            ("pem", Value::text(key.to_pem())),
        ])
    });
}
