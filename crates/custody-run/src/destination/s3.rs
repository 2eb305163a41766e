//! An S3-compatible bucket as destination.
//!
//! Requests are those of the Amazon S3 API Reference (`PutObject`, `GetObject`) with Signature
//! Version 4 in the query. The server is told the SHA-256 that it must see and not to replace
//! anything (`If-None-Match: *`), both under the signature; it needs the rights `s3:GetObject`,
//! `s3:PutObject` and `s3:ListBucket` (without the last Amazon does not say that nothing is there).

use std::io::Read as _;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use custody_core::digest::Digests;
use custody_core::encoding::base64;
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};
use rusty_s3::actions::{GetObject, PutObject};
use rusty_s3::{Credentials, S3Action as _, UrlStyle};
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, SendBody};
use url::{Host, Url};

use super::{Backend, Original, hash};

/// Bytes that one `PutObject` may carry (Amazon S3 User Guide, "Uploading objects").
const PUT_BYTES: u64 = 5 << 30;
/// From this many bytes on the server is asked before they are sent; below that the question costs
/// more than a body sent in vain.
const EXPECT_BYTES: u64 = 1 << 20;
/// How long a signed request is good for: enough for clocks that differ, and little to replay.
const SIGNED_FOR: Duration = Duration::from_mins(15);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest silence of a server; some hash a whole upload before they answer.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(2);
/// Requests are made this many times before the server counts as out of reach, with a pause between
/// them that doubles.
const ATTEMPTS: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// How to reach buckets, and in whose name.
#[derive(Clone, Debug)]
pub struct S3Config {
    credentials: Credentials,
    region: String,
    endpoint: Option<Url>,
}

impl S3Config {
    /// Reads the variables that Amazon's own tools read: `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and if they are set `AWS_SESSION_TOKEN` and
    /// `AWS_ENDPOINT_URL`.
    pub fn from_env() -> Result<Self, Refusal> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// As [`Self::from_env`], with the variables from elsewhere. An endpoint is spoken to over TLS,
    /// for who can answer in its place can also pretend to have kept a file; plain `http` is taken
    /// for this very machine only.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, Refusal> {
        let optional = |name| var(name).filter(|value| !value.is_empty());
        let required = |name| {
            optional(name).ok_or_else(|| {
                let at = format!("environment variable {name}");
                Refusal::new(Code::GateUnavailable, at, "what the bucket asks for", "nothing")
                    .advising(format!("export {name}, then publish the task again"))
            })
        };
        let (key, secret) = (required("AWS_ACCESS_KEY_ID")?, required("AWS_SECRET_ACCESS_KEY")?);
        Ok(Self {
            credentials: match optional("AWS_SESSION_TOKEN") {
                Some(token) => Credentials::new_with_token(key, secret, token),
                None => Credentials::new(key, secret),
            },
            region: required("AWS_REGION")?,
            endpoint: optional("AWS_ENDPOINT_URL").as_deref().map(parse_endpoint).transpose()?,
        })
    }
}

fn parse_endpoint(text: &str) -> Result<Url, Refusal> {
    endpoint(text).map_err(|(expected, found)| {
        let at = "environment variable AWS_ENDPOINT_URL";
        Refusal::new(Code::GateDestinationForbidden, at, expected, found)
    })
}

/// A server that is spoken to over TLS, or on this very machine; otherwise what was expected and found.
pub(crate) fn endpoint(text: &str) -> Result<Url, (&'static str, String)> {
    let refused = |found: String| ("https://host[:port], or http:// for this machine", found);
    let url = Url::parse(text).map_err(|error| refused(error.to_string()))?;
    let secure = is_private(&url);
    let bare = url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    match (secure, bare) {
        (true, true) => Ok(url),
        (false, _) => Err(refused(format!("{}:// to another machine", url.scheme()))),
        (true, false) => Err(refused("user information, a query or a fragment".to_owned())),
    }
}

/// Whether nobody on the way can read or change what is said: over TLS, or within this very machine.
pub(crate) fn is_private(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "https" || url.scheme() == "http" && here
}

#[derive(Debug)]
pub(super) struct Bucket {
    agent: Agent,
    signer: rusty_s3::Bucket,
    credentials: Credentials,
    prefix: String,
}

impl Bucket {
    pub(super) fn open(
        config: S3Config,
        name: &str,
        prefix: Option<&ArtifactName>,
    ) -> Result<Self, Refusal> {
        let unusable = |found: String| {
            Refusal::new(Code::GateUnavailable, format!("s3://{name}"), "a usable endpoint", found)
        };
        let amazon = || Url::parse(&format!("https://s3.{}.amazonaws.com", config.region));
        // dots in a bucket's name do not fit Amazon's certificates
        let style = if config.endpoint.is_some() || name.contains('.') {
            UrlStyle::Path
        } else {
            UrlStyle::VirtualHost
        };
        let endpoint =
            config.endpoint.map_or_else(amazon, Ok).map_err(|error| unusable(error.to_string()))?;
        let agent = agent(&endpoint);
        Ok(Self {
            agent,
            signer: rusty_s3::Bucket::new(endpoint, style, name.to_owned(), config.region)
                .map_err(|error| unusable(error.to_string()))?,
            credentials: config.credentials,
            prefix: prefix.map(|prefix| format!("{prefix}/")).unwrap_or_default(),
        })
    }

    fn key(&self, name: &ArtifactName) -> String {
        format!("{}{name}", self.prefix)
    }

    fn put_object(&self, key: &str, original: &mut Original<'_>) -> Result<bool, Failure> {
        let size = original.size;
        let headers = [
            ("content-length", size.to_string()),
            ("if-none-match", "*".to_owned()),
            ("x-amz-checksum-sha256", base64(original.expected.sha256.as_bytes())),
        ];
        let mut action = PutObject::new(&self.signer, Some(&self.credentials), key);
        for (name, value) in &headers {
            action.headers_mut().insert(*name, value);
        }
        let mut request = self.agent.put(action.sign(SIGNED_FOR).as_str());
        for (name, value) in &headers {
            request = request.header(*name, value);
        }
        if size >= EXPECT_BYTES {
            request = request.header("expect", "100-continue");
        }
        let mut body = original.start().map_err(ureq::Error::Io)?;
        let mut response = request.send(SendBody::from_reader(&mut body))?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::PRECONDITION_FAILED => Ok(false),
            status => Err(Failure::answer(status, &error_code(&mut response))),
        }
    }

    fn get_object(
        &self,
        key: &str,
        sha512: bool,
        limit: u64,
    ) -> Result<Option<(Digests, u64)>, Failure> {
        let action = GetObject::new(&self.signer, Some(&self.credentials), key);
        let url = action.sign(SIGNED_FOR);
        let request = self.agent.get(url.as_str()).header("accept-encoding", "identity");
        let mut response = request.call()?;
        if response.status() == StatusCode::OK {
            let content = response.body_mut().as_reader();
            return Ok(Some(hash(content, sha512, limit).map_err(ureq::Error::Io)?));
        }
        match (response.status(), error_code(&mut response).as_str()) {
            (StatusCode::NOT_FOUND, "NoSuchKey") => Ok(None),
            (status, code) => Err(Failure::answer(status, code)),
        }
    }
}

impl Backend for Bucket {
    fn create(&self, name: &ArtifactName, original: &mut Original<'_>) -> Result<bool, Refusal> {
        if original.size > PUT_BYTES {
            return Err(Refusal::new(
                Code::GateDestinationForbidden,
                "",
                format!("at most {PUT_BYTES} bytes per file in a bucket"),
                format!("{} bytes", original.size),
            ));
        }
        // Trying again is safe: if an attempt got through unnoticed, the next finds the file there
        // and it is read back.
        patiently(|| self.put_object(&self.key(name), original))
    }

    fn read_back(
        &self,
        name: &ArtifactName,
        sha512: bool,
        limit: u64,
    ) -> Result<Option<(Digests, u64)>, Refusal> {
        patiently(|| self.get_object(&self.key(name), sha512, limit))
    }
}

/// A client for this endpoint that follows nobody elsewhere and does not wait forever.
pub(crate) fn agent(endpoint: &Url) -> Agent {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let mut config = Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        // a signature is for one place: where else to go is for people to decide
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_resolve(Some(CONNECT_TIMEOUT))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_per_read(Some(SILENCE_TIMEOUT))
        .timeout_per_write(Some(SILENCE_TIMEOUT))
        .user_agent(concat!("custody/", env!("CARGO_PKG_VERSION")));
    if endpoint.scheme() == "http" {
        // what is meant for this machine stays on it
        config = config.proxy(None);
    }
    config.build().new_agent()
}

/// Why a request came to nothing.
enum Failure {
    /// It may go better the next time.
    Passing(String),
    Final(Refusal),
}

impl Failure {
    fn answer(status: StatusCode, code: &str) -> Self {
        let found = format!("HTTP {} {code}", status.as_u16()).trim_end().to_owned();
        let passing = status.is_server_error()
            || status == StatusCode::TOO_MANY_REQUESTS
            || matches!(code, "ConditionalRequestConflict" | "RequestTimeout");
        if passing {
            Self::Passing(found)
        } else if matches!(code, "BadDigest" | "XAmzContentChecksumMismatch") {
            let expected = "to arrive as it was sent";
            Self::Final(Refusal::new(Code::ArtDigestMismatch, "", expected, found))
        } else {
            Self::Final(unavailable(found))
        }
    }
}

impl From<ureq::Error> for Failure {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Io(error) => match error.downcast() {
                Ok(refusal) => Self::Final(refusal),
                Err(error) => Self::Passing(error.to_string()),
            },
            error => Self::Passing(error.to_string()),
        }
    }
}

fn unavailable(found: String) -> Refusal {
    let advice = "see that the bucket's server can be reached, then publish the task again; if it is in \
                  doubt then, docs/guides/recover-a-publication-in-doubt.md says what to do";
    Refusal::new(Code::GateUnavailable, "", "the server to do what it is asked", found)
        .advising(advice)
}

fn patiently<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Refusal> {
    let mut pauses = (0..ATTEMPTS - 1).map(|count| FIRST_PAUSE * 2_u32.pow(count));
    loop {
        match (attempt(), pauses.next()) {
            (Ok(value), _) => return Ok(value),
            (Err(Failure::Final(refusal)), _) => return Err(refusal),
            (Err(Failure::Passing(found)), None) => {
                return Err(unavailable(format!("{found} ({ATTEMPTS} times)")));
            }
            (Err(Failure::Passing(_)), Some(pause)) => thread::sleep(pause),
        }
    }
}

/// The code in an error document of S3, or nothing. The server's words may end up on a terminal, so
/// only letters and digits of them are taken.
fn error_code(response: &mut Response<Body>) -> String {
    let mut document = Vec::new();
    let read = response.body_mut().as_reader().take(16 * 1024).read_to_end(&mut document);
    let document = String::from_utf8_lossy(&document);
    let code = document.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match (read, code) {
        (Ok(_), Some((code, _))) => {
            code.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
        }
        _ => String::new(),
    }
}
