//! Which platforms a worker asks what machine it is on.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use custody_core::Refusal;
use custody_core::statement::Label;
use custody_run::measure::platform::{Kind, Platform, Tpm, check};

use crate::error::Error;

#[derive(Args, Debug)]
pub(crate) struct PlatformArgs {
    /// Ask this platform what machine this is, and keep its word in the manifest: ec2, google, azure,
    /// github, gitlab, buildkite, kubernetes, taskcluster, jenkins or tpm. NAME is what the policy calls
    /// it, if not by its kind
    #[arg(long = "platform", value_name = "[NAME=]KIND", value_parser = parse)]
    platforms: Vec<(Label, String)>,
    /// The token of the pod's service account, instead of asking the API server for one of this run
    #[arg(long, value_name = "FILE")]
    kubernetes_token: Option<PathBuf>,
    /// The attestation key in the TPM: a persistent handle, or the file of a saved context
    #[arg(long, value_name = "KEY")]
    tpm_key: Option<String>,
    /// Where the TPM is, as tpm2-tools write it
    #[arg(long, value_name = "TCTI", default_value = "device:/dev/tpmrm0")]
    tpm_tcti: String,
    /// The PCRs of the SHA-256 bank that it quotes
    #[arg(long, value_name = "N,N-N", default_value = "0-7", value_parser = parse_pcrs)]
    tpm_pcrs: Pcrs,
    /// The certificate of the attestation key, in DER
    #[arg(long, value_name = "FILE")]
    tpm_certificate: Option<PathBuf>,
}

/// Numbers of PCRs, counting up.
#[derive(Clone, Debug)]
struct Pcrs(Vec<u8>);

fn parse(text: &str) -> Result<(Label, String), String> {
    let (name, kind) = text.split_once('=').unwrap_or((text, text));
    if !Kind::NAMES.contains(&kind) {
        return Err(format!("a kind is one of {}", Kind::NAMES.join(", ")));
    }
    // facts are called PLATFORM.NAME
    if name.contains('.') {
        return Err("a platform has no dot in its name".into());
    }
    let label = name.parse().map_err(|refusal: Refusal| refusal.to_string())?;
    Ok((label, kind.to_owned()))
}

fn parse_pcrs(text: &str) -> Result<Pcrs, String> {
    let number = |text: &str| text.parse::<u8>().ok().filter(|number| *number < Tpm::PCRS);
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
    let ranges = ranges.ok_or("write numbers from 0 to 23, like 0-7,11")?;
    let pcrs: BTreeSet<u8> = ranges.into_iter().flatten().collect();
    Ok(Pcrs(pcrs.into_iter().collect()))
}

impl PlatformArgs {
    pub(crate) fn platforms(&self) -> Result<Vec<Platform>, Error> {
        let platforms: Vec<Platform> = self
            .platforms
            .iter()
            .map(|(label, kind)| Ok(Platform { label: label.clone(), kind: self.kind(kind)? }))
            .collect::<Result<_, Error>>()?;
        check(&platforms)?;
        Ok(platforms)
    }

    fn kind(&self, name: &str) -> Result<Kind, Error> {
        Ok(match name {
            "ec2" => Kind::Ec2,
            "google" => Kind::Google,
            "azure" => Kind::Azure,
            "github" => Kind::Github,
            "gitlab" => Kind::Gitlab,
            "buildkite" => Kind::Buildkite,
            "kubernetes" => Kind::Kubernetes(self.kubernetes_token.clone()),
            "taskcluster" => Kind::Taskcluster,
            "jenkins" => Kind::Jenkins,
            _ => Kind::Tpm(self.tpm()?),
        })
    }

    fn tpm(&self) -> Result<Tpm, Error> {
        let missing = || Error::Usage("--platform tpm needs --tpm-key".into());
        Ok(Tpm {
            key: self.tpm_key.clone().ok_or_else(missing)?,
            tcti: self.tpm_tcti.clone(),
            pcrs: self.tpm_pcrs.0.clone(),
            certificate: self.tpm_certificate.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_named_by_kind_unless_they_have_another_name() {
        let read = |text| parse(text).map(|(label, kind)| (label.to_string(), kind));
        assert_eq!(read("ec2"), Ok(("ec2".into(), "ec2".into())));
        assert_eq!(read("farm=ec2"), Ok(("farm".into(), "ec2".into())));
        for bad in ["", "ec3", "ec2=", "=ec2", "a b=ec2", "ec2=farm", "a.b=ec2"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn pcrs_are_numbers_and_ranges() {
        assert_eq!(parse_pcrs("11,0-3,2").unwrap().0, [0, 1, 2, 3, 11]);
        for bad in ["", "24", "3-1", "0,,1", "-", "sha1:0", "x"] {
            assert!(parse_pcrs(bad).is_err(), "{bad}");
        }
    }
}
