//! Platforms: what their kinds have, and what must hold of it.

use alloc::borrow::ToOwned;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use custody_core::Code;
use custody_core::key::PublicKey;
use custody_core::statement::Label;
use custody_machine::{
    Azure, Certificate, CertifiedKey, Claim, Ec2, Platform, Preset, RegionalCertificate,
    TokenIssuer, TokenKey, Tpm, read_jwks,
};
use toml::Spanned;

use super::tables::{PlatformKind, PlatformTable, RegionalTable, Table, Text};
use super::{Fault, Reader, each_once, fault, not_empty, parsed, refused};

impl Reader {
    pub(super) fn platforms(&mut self, tables: &Table<PlatformTable>) -> BTreeMap<Label, Platform> {
        let mut platforms = BTreeMap::new();
        for (name, table) in tables {
            let made = self.platform(name, table).and_then(|made| Ok((plain_label(name)?, made)));
            platforms.extend(self.keep(made));
        }
        platforms
    }

    fn platform(&self, name: &Text, table: &PlatformTable) -> Result<Platform, Fault> {
        let kind = *table.kind.get_ref();
        only(table, members(kind))?;
        let preset = match kind {
            PlatformKind::Ec2 => return ec2(name, table).map(Platform::Ec2),
            PlatformKind::Azure => return azure(name, table).map(Platform::Azure),
            PlatformKind::Tpm => return self.tpm(name, table).map(Platform::Tpm),
            PlatformKind::Google => Preset::Google,
            PlatformKind::Github => Preset::Github,
            PlatformKind::Gitlab => Preset::Gitlab,
            PlatformKind::Buildkite => Preset::Buildkite,
            PlatformKind::Kubernetes => Preset::Kubernetes,
            PlatformKind::Token => Preset::Token,
        };
        self.token(name, table, preset).map(Platform::Token)
    }

    fn token(
        &self,
        name: &Text,
        table: &PlatformTable,
        preset: Preset,
    ) -> Result<TokenIssuer, Fault> {
        let issuer = table.issuer.as_ref().map(filled).transpose()?;
        let issuer = issuer.or_else(|| preset.issuer().map(str::to_owned)).ok_or_else(|| {
            missing(name, "issuer", "issuer = \"https://…\", as its tokens have it")
        })?;
        let mut keys = Vec::new();
        if let Some(text) = &table.jwks {
            keys = read_jwks(text.get_ref()).map_err(|refusal| refused(text, &refusal))?;
            for known in &keys {
                self.not_a_principal(text, &known.key)?;
            }
        }
        let more = self.keys(table.keys.as_ref(), "RSA, P-256, P-384 or Ed25519", |key| {
            key.dsse_scheme().is_some()
        })?;
        keys.extend(more.into_iter().map(|key| TokenKey { id: None, key }));
        if keys.is_empty() {
            let remedy = "jwks = '{\"keys\":[…]}', the key set that the issuer publishes, or keys";
            return Err(missing(name, "jwks", remedy));
        }
        Ok(TokenIssuer {
            issuer,
            keys,
            audience: table.audience.as_ref().map(filled).transpose()?,
            claims: claims(table.claims.as_ref(), preset)?,
        })
    }

    fn tpm(&self, name: &Text, table: &PlatformTable) -> Result<Tpm, Fault> {
        let keys = self.keys(table.keys.as_ref(), "RSA or P-256", |key| {
            matches!(key, PublicKey::Rsa { .. } | PublicKey::EcdsaP256(_))
        })?;
        let authorities = authorities(table.authorities.as_ref())?;
        if keys.is_empty() && authorities.is_empty() {
            let remedy = "keys = [\"…\"], the attestation keys, or authorities";
            return Err(missing(name, "keys", remedy));
        }
        Ok(Tpm { keys, authorities })
    }

    fn keys(
        &self,
        list: Option<&Spanned<Vec<Text>>>,
        kinds: &str,
        fits: impl Fn(&PublicKey) -> bool,
    ) -> Result<Vec<PublicKey>, Fault> {
        let Some(list) = list else { return Ok(Vec::new()) };
        not_empty(list, "key")?;
        let mut keys: Vec<PublicKey> = Vec::new();
        for text in list.get_ref() {
            let key: PublicKey = parsed(text)?;
            if !fits(&key) {
                let remedy = format!("write a key of {kinds}");
                return Err(fault(text.span(), "a key that signs nothing here", remedy));
            }
            if keys.iter().any(|known| known.id() == key.id()) {
                return Err(fault(text.span(), "this key stands twice", "name it once"));
            }
            self.not_a_principal(text, &key)?;
            keys.push(key);
        }
        Ok(keys)
    }

    /// Whoever signs for a platform speaks of all its machines: that is nobody's own key.
    fn not_a_principal(&self, text: &Text, key: &PublicKey) -> Result<(), Fault> {
        let Some(owner) = self.owners.get(&key.id()) else { return Ok(()) };
        let message = format!("a key of {owner}");
        let found = fault(text.span(), message, "name a key that nobody but the platform has");
        Err(Fault { code: Code::PolicyKeyDuplicate, ..found })
    }
}

/// The members that a kind has besides `kind`.
const fn members(kind: PlatformKind) -> &'static [&'static str] {
    match kind {
        PlatformKind::Ec2 => &["certificates", "allow-rsa-1024"],
        PlatformKind::Azure => &["authorities", "names"],
        PlatformKind::Tpm => &["keys", "authorities"],
        PlatformKind::Google => &["jwks", "keys", "claims"],
        PlatformKind::Github
        | PlatformKind::Gitlab
        | PlatformKind::Buildkite
        | PlatformKind::Kubernetes
        | PlatformKind::Token => &["issuer", "audience", "jwks", "keys", "claims"],
    }
}

fn only(table: &PlatformTable, known: &[&str]) -> Result<(), Fault> {
    fn span<T>(member: Option<&Spanned<T>>) -> Option<Range<usize>> {
        member.map(Spanned::span)
    }
    let given = [
        ("certificates", span(table.certificates.as_ref())),
        ("allow-rsa-1024", span(table.allow_rsa_1024.as_ref())),
        ("authorities", span(table.authorities.as_ref())),
        ("names", span(table.names.as_ref())),
        ("issuer", span(table.issuer.as_ref())),
        ("audience", span(table.audience.as_ref())),
        ("jwks", span(table.jwks.as_ref())),
        ("keys", span(table.keys.as_ref())),
        ("claims", span(table.claims.as_ref())),
    ];
    for (name, span) in given {
        if let Some(span) = span.filter(|_| !known.contains(&name)) {
            let message = format!("{name}, which this kind of platform does not have");
            return Err(fault(span, message, format!("write only {}", known.join(", "))));
        }
    }
    Ok(())
}

fn missing(name: &Text, member: &str, example: &str) -> Fault {
    fault(name.span(), format!("a platform without {member}"), format!("write {example}"))
}

/// Facts are `PLATFORM.fact`: neither part has a dot.
fn plain_label(text: &Text) -> Result<Label, Fault> {
    let label: Label = parsed(text)?;
    if label.as_str().contains('.') {
        return Err(fault(text.span(), "a dot in the name of a fact", "write a name without dots"));
    }
    Ok(label)
}

fn filled(text: &Text) -> Result<String, Fault> {
    if text.get_ref().is_empty() {
        return Err(fault(text.span(), "no text", "write it as the platform does"));
    }
    Ok(text.get_ref().clone())
}

fn ec2(name: &Text, table: &PlatformTable) -> Result<Ec2, Fault> {
    let example = "certificates = [{ regions = [\"eu-west-1\"], certificate = \"…\" }]";
    let list = table.certificates.as_ref();
    let list = list.ok_or_else(|| missing(name, "certificates", example))?;
    not_empty(list, "certificate")?;
    let weak_allowed = table.allow_rsa_1024.as_ref().filter(|allowed| *allowed.get_ref());
    let mut weak = false;
    let mut certificates = Vec::new();
    for RegionalTable { regions, certificate } in list.get_ref() {
        not_empty(regions, "region")?;
        each_once(regions.get_ref())?;
        let region = |text: &Text| parsed::<Label>(text).map(|label| label.as_str().to_owned());
        let regions = regions.get_ref().iter().map(region).collect::<Result<BTreeSet<_>, _>>()?;
        let read: Certificate = parsed(certificate)?;
        if matches!(read.key(), CertifiedKey::Legacy(_)) {
            weak = true;
            if weak_allowed.is_none() {
                let remedy = "pin the certificate for rsa2048, or write allow-rsa-1024 = true";
                let found = fault(certificate.span(), "RSA below 2048 bits", remedy);
                return Err(Fault { code: Code::PolicyKeyWeak, ..found });
            }
        }
        certificates.push(RegionalCertificate { regions, certificate: read });
    }
    match weak_allowed {
        Some(allowed) if !weak => {
            let message = "no certificate has a key below 2048 bits";
            Err(fault(allowed.span(), message, "remove allow-rsa-1024"))
        }
        _ => Ok(Ec2 { certificates }),
    }
}

fn azure(name: &Text, table: &PlatformTable) -> Result<Azure, Fault> {
    let authorities = authorities(table.authorities.as_ref())?;
    if authorities.is_empty() {
        let example = "authorities = [\"…\"], the certificates to which the signer's must lead";
        return Err(missing(name, "authorities", example));
    }
    let names = table.names.as_ref();
    let names = names.ok_or_else(|| missing(name, "names", "names = [\"metadata.azure.com\"]"))?;
    not_empty(names, "name")?;
    each_once(names.get_ref())?;
    for text in names.get_ref() {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let host = text.get_ref();
        if !host.chars().all(allowed) || !host.contains('.') || host.split('.').any(str::is_empty) {
            let remedy = "write a DNS name in lower case, like \"metadata.azure.com\"";
            return Err(fault(text.span(), format!("{host:?} is no name of a host"), remedy));
        }
    }
    let names = names.get_ref().iter().map(|text| text.get_ref().clone()).collect();
    Ok(Azure { authorities, names })
}

fn authorities(list: Option<&Spanned<Vec<Text>>>) -> Result<Vec<Certificate>, Fault> {
    let Some(list) = list else { return Ok(Vec::new()) };
    not_empty(list, "certificate")?;
    let mut authorities = Vec::new();
    for text in list.get_ref() {
        let certificate: Certificate = parsed(text)?;
        if !certificate.is_authority() || matches!(certificate.key(), CertifiedKey::Legacy(_)) {
            let remedy = "write the certificate of an authority, with a key of 2048 bits or more";
            return Err(fault(text.span(), "a certificate that certifies nothing", remedy));
        }
        authorities.push(certificate);
    }
    Ok(authorities)
}

fn claims(list: Option<&Spanned<Vec<Text>>>, preset: Preset) -> Result<Vec<Claim>, Fault> {
    let mut claims = preset.claims();
    let Some(list) = list else { return Ok(claims) };
    not_empty(list, "claim")?;
    for text in list.get_ref() {
        let claim = Claim::named(plain_label(text)?.as_str());
        let known = |known: &Claim| known.fact == claim.fact;
        if ["issuer", "subject"].contains(&claim.fact.as_str()) || claims.iter().any(known) {
            let message = format!("{} is a fact already", claim.fact);
            return Err(fault(text.span(), message, "name every claim once"));
        }
        claims.push(claim);
    }
    Ok(claims)
}
