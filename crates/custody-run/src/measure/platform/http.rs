//! Asks metadata services and token services over HTTP: one question, one short answer, no redirects.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use custody_core::limits::ATTESTATION_BYTES;
use ureq::http::{HeaderMap, Request, Response, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};
use url::Url;

use crate::destination::is_private;

/// A metadata service is on the machine or one hop away.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nobody is there.
    Silent(String),
    /// Somebody is, and does not do what it is asked.
    Answered(String),
}

impl Fault {
    pub(super) fn into_found(self) -> String {
        match self {
            Self::Silent(found) | Self::Answered(found) => found,
        }
    }
}

/// A good answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

/// Headers, by name.
pub(super) type Headers<'h> = &'h [(&'static str, &'h str)];

/// A client that goes nowhere but where it is sent.
#[derive(Debug)]
pub(super) struct Client(Agent);

impl Client {
    /// For metadata services, whose addresses are part of the platform: no proxy, whatever the
    /// environment says, and nothing is looked up by name.
    pub(super) fn local() -> Self {
        Self(config(RootCerts::PlatformVerifier).proxy(None).build().new_agent())
    }

    /// For services that the platform's authority certified, and no other authority.
    pub(super) fn certified_by(authority: &[u8]) -> Result<Self, Fault> {
        let certificate = |item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
            Ok(_) => None,
            Err(error) => Some(Err(Fault::Answered(ureq::Error::to_string(&error)))),
        };
        let roots: Vec<Certificate<'_>> =
            parse_pem(authority).filter_map(certificate).collect::<Result<_, _>>()?;
        let roots = RootCerts::new_with_certs(&roots);
        Ok(Self(config(roots).proxy(None).https_only(true).build().new_agent()))
    }

    /// For a service whose address the platform hands out: over TLS, or on this very machine.
    pub(super) fn of(url: &Url) -> Result<Self, Fault> {
        if !is_private(url) {
            let found = format!("{}:// to another machine", url.scheme());
            return Err(Fault::Answered(found));
        }
        if url.scheme() == "http" {
            return Ok(Self::local());
        }
        Ok(Self(config(RootCerts::PlatformVerifier).https_only(true).build().new_agent()))
    }

    pub(super) fn get(&self, url: &str, headers: Headers<'_>) -> Result<Answer, Fault> {
        self.ask("GET", url, headers, None)
    }

    pub(super) fn put(&self, url: &str, headers: Headers<'_>) -> Result<Answer, Fault> {
        self.ask("PUT", url, headers, Some(""))
    }

    pub(super) fn post(
        &self,
        url: &str,
        headers: Headers<'_>,
        body: &str,
    ) -> Result<Answer, Fault> {
        self.ask("POST", url, headers, Some(body))
    }

    fn ask(
        &self,
        method: &str,
        url: &str,
        headers: Headers<'_>,
        body: Option<&str>,
    ) -> Result<Answer, Fault> {
        let silent = |error: ureq::Error| Fault::Silent(error.to_string());
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let unusable = |error: ureq::http::Error| Fault::Answered(error.to_string());
        let response = match body {
            Some(body) => self.0.run(request.body(body.to_owned()).map_err(unusable)?),
            None => self.0.run(request.body(()).map_err(unusable)?),
        };
        read(response.map_err(silent)?)
    }
}

fn read(mut response: Response<Body>) -> Result<Answer, Fault> {
    let status = response.status();
    if !matches!(status, StatusCode::OK | StatusCode::CREATED) {
        return Err(Fault::Answered(format!("HTTP {}", status.as_u16())));
    }
    let mut body = Vec::new();
    let limit = ATTESTATION_BYTES as u64;
    let reader = response.body_mut().as_reader();
    reader
        .take(limit + 1)
        .read_to_end(&mut body)
        .map_err(|error| Fault::Answered(error.to_string()))?;
    if body.len() > ATTESTATION_BYTES {
        return Err(Fault::Answered(format!("more than {limit} bytes")));
    }
    Ok(Answer { headers: response.headers().clone(), body })
}

fn config(roots: RootCerts) -> ureq::config::ConfigBuilder<ureq::typestate::AgentScope> {
    let tls = TlsConfig::builder()
        .root_certs(roots)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_global(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("custody/", env!("CARGO_PKG_VERSION")))
}
