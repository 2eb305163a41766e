//! Where the bytes come from: servers, asked in the worker's own words.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use custody_core::{Code, Refusal};
use ureq::Agent;
use ureq::http::header::{CONTENT_ENCODING, LOCATION};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use url::Url;

use crate::stage::copy::unavailable;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence of a server.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the head of an answer takes at most. A server that sends it byte by byte is never silent, and
/// the run would wait for it, even after its command.
const HEAD_TIMEOUT: Duration = Duration::from_mins(1);

/// How servers are reached.
pub struct Upstream {
    agent: Agent,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").finish_non_exhaustive()
    }
}

/// What a server said to one request.
pub(super) enum Said {
    /// Here it is.
    Body(Box<dyn Read>),
    /// It is there instead.
    Elsewhere(String),
    /// Another status.
    Status(u16),
    /// Nothing that can be used.
    Fault(String),
}

impl Upstream {
    /// Servers are believed if the system's roots vouch for them; with a file of certificates (PEM), if
    /// one of those does.
    pub fn new(authorities: Option<&Path>) -> Result<Self, Refusal> {
        Self::waiting(authorities, HEAD_TIMEOUT)
    }

    fn waiting(authorities: Option<&Path>, head: Duration) -> Result<Self, Refusal> {
        let roots = match authorities {
            None => RootCerts::PlatformVerifier,
            Some(path) => roots(path)?,
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(provider)
            .build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // each place is checked before it is gone to
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT_TIMEOUT))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(head))
            .timeout_per_read(Some(SILENCE_TIMEOUT))
            .timeout_per_write(Some(SILENCE_TIMEOUT))
            .accept("*/*")
            .accept_encoding("identity")
            .user_agent(concat!("custody/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self { agent })
    }

    pub(super) fn ask(&self, uri: &str) -> Said {
        let mut request = self.agent.get(uri);
        if !uri.starts_with("https://") {
            // only what is encrypted goes through the proxy that the worker's own environment names
            request = request.config().proxy(None).build();
        }
        let response = match request.call() {
            Ok(response) => response,
            Err(error) => return Said::Fault(error.to_string()),
        };
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        match (response.status().as_u16(), header(LOCATION)) {
            (200, _) => match header(CONTENT_ENCODING) {
                None | Some("identity") => Said::Body(Box::new(response.into_body().into_reader())),
                Some(_) => Said::Fault("a body in an encoding that nobody asked for".into()),
            },
            (301 | 302 | 303 | 307 | 308, Some(location)) => {
                let there = Url::parse(uri).and_then(|uri| uri.join(location));
                there.map_or_else(
                    |_| Said::Fault("a redirect to no URI".into()),
                    |there| Said::Elsewhere(there.into()),
                )
            }
            (status, _) => Said::Status(status),
        }
    }
}

fn roots(path: &Path) -> Result<RootCerts, Refusal> {
    let pem = std::fs::read(path).map_err(|error| unavailable(path, &error))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let at = path.display().to_string();
        return Err(Refusal::new(Code::ParseFieldType, at, "certificates in PEM", "none"));
    }
    Ok(certificates.into())
}

/// A body that ends early when nobody waits for it any more.
pub(super) struct Watched<'w> {
    pub(super) body: Box<dyn Read>,
    pub(super) stop: &'w AtomicBool,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the command has ended"));
        }
        self.body.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_head_that_does_not_end_is_not_waited_for() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let uri = format!("http://{}/a", server.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\nX: ").unwrap();
            // it ends by itself, so that without a limit the test fails and does not hang
            for _ in 0..100 {
                if stream.write_all(b"x").is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let servers = Upstream::waiting(None, Duration::from_millis(500)).unwrap();
        let began = Instant::now();
        assert!(matches!(servers.ask(&uri), Said::Fault(_)));
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
