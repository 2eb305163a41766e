//! The certificate authority of one run. Its key is never written, and only the command of the run is
//! told to trust it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use custody_core::Refusal;
use custody_core::encoding::base64;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::failed;

pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// By host and port.
    configs: Mutex<BTreeMap<String, Arc<ServerConfig>>>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    pub(super) fn new() -> Result<Self, Refusal> {
        let fault = |error: rcgen::Error| failed("a key and a certificate", error);
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Custody downloads of one run");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(fault)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(fault)?;
        Ok(Self { issuer, configs: Mutex::default() })
    }

    pub(super) fn pem(&self) -> String {
        let text = base64(self.issuer.der());
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let body = lines.join("\n");
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    /// How to speak for this host, with or without a port.
    pub(super) fn config_for(&self, host: &str) -> Result<Arc<ServerConfig>, Refusal> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(host) {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.issue(host)?);
        configs.insert(host.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    fn issue(&self, host: &str) -> Result<ServerConfig, Refusal> {
        let fault = |error: rcgen::Error| failed("a certificate for the host", error);
        let url = url::Url::parse(&format!("https://{host}/"));
        let name = url.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let name = name.trim_matches(['[', ']']).to_owned();
        let mut params = CertificateParams::new([name]).map_err(fault)?;
        params.distinguished_name = named("Custody downloads");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(fault)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(fault)?;
        let chain: Vec<CertificateDer<'static>> =
            vec![certificate.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|error| failed("a TLS server", error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
