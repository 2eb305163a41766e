//! HTTP/1.1 as clients speak it to a proxy (RFC 9112): what they ask, and the few things that they are
//! told.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

use url::Url;

use super::ledger::{Answer, Ledger};

/// The longest head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// The most headers of a request.
const HEADERS: usize = 100;

/// A stream that waits for as long as the command runs.
#[derive(Debug)]
pub(super) struct Patient<'p> {
    stream: &'p TcpStream,
    stop: &'p AtomicBool,
}

impl<'p> Patient<'p> {
    pub(super) const fn new(stream: &'p TcpStream, stop: &'p AtomicBool) -> Self {
        Self { stream, stop }
    }
}

impl Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match (&mut &*self.stream).read(buffer) {
                Err(error) if is_transient(&error) && !self.stop.load(Ordering::Relaxed) => {}
                result => return result,
            }
        }
    }
}

impl Write for Patient<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&mut &*self.stream).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&mut &*self.stream).flush()
    }
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted)
}

/// What a client wants.
struct Asked {
    method: String,
    target: String,
    has_body: bool,
    last: bool,
}

/// A client, directly or inside TLS.
pub(super) struct Connection<S> {
    stream: S,
    /// What came and was not looked at.
    buffer: Vec<u8>,
}

impl<S: Read + Write> Connection<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Answers until the client goes, or asks for a tunnel: then it gives the host, with its port where
    /// that is not 443. Inside a tunnel, `host` is who the client speaks to.
    pub(super) fn serve(
        &mut self,
        host: Option<&str>,
        ledger: &Ledger<'_>,
    ) -> io::Result<Option<String>> {
        while let Some(asked) = self.head()? {
            let Asked { method, target, has_body, last } = asked;
            let answer = match (method.as_str(), host) {
                _ if has_body => ledger.deny(
                    &format!("{method} {target}"),
                    403,
                    "a request with a body, which would leave the machine",
                ),
                ("CONNECT", None) => match tunnel(&target).filter(|host| ledger.knows_host(host)) {
                    // nobody speaks before the tunnel stands
                    Some(host) if self.buffer.is_empty() => {
                        self.stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
                        return Ok(Some(host));
                    }
                    _ => ledger.deny(
                        &format!("{method} {target}"),
                        403,
                        "a host that the task does not declare",
                    ),
                },
                ("GET" | "HEAD", _) => match normal(host, &target) {
                    Some(uri) => ledger.answer(&uri),
                    None => ledger.deny(&target, 400, "no URI"),
                },
                _ => ledger.deny(&format!("{method} {target}"), 405, "neither GET nor HEAD"),
            };
            // what follows a body that nobody reads is no request
            let last = last || has_body;
            self.tell(&answer, method == "HEAD", last, ledger)?;
            if last {
                break;
            }
        }
        Ok(None)
    }

    /// The head of the next request; none when the client is gone, or is no client.
    fn head(&mut self) -> io::Result<Option<Asked>> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let parsed = request.parse(&self.buffer).map_err(io::Error::other)?;
            if let httparse::Status::Complete(length) = parsed {
                let named = |name: &str, yes: &dyn Fn(&str) -> bool| {
                    let mut all = request.headers.iter();
                    all.any(|header| {
                        header.name.eq_ignore_ascii_case(name)
                            && std::str::from_utf8(header.value)
                                .is_ok_and(|value| yes(value.trim()))
                    })
                };
                let asked = Asked {
                    method: request.method.unwrap_or_default().to_owned(),
                    target: request.path.unwrap_or_default().to_owned(),
                    has_body: named("content-length", &|value| value != "0")
                        || named("transfer-encoding", &|_| true),
                    last: request.version == Some(0)
                        || named("connection", &|value| value.eq_ignore_ascii_case("close")),
                };
                self.buffer.drain(..length);
                return Ok(Some(asked));
            }
            if self.buffer.len() > HEAD_BYTES {
                return Ok(None);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Ok(None),
                count => self.buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            }
        }
    }

    fn tell(
        &mut self,
        answer: &Answer,
        head_only: bool,
        last: bool,
        ledger: &Ledger<'_>,
    ) -> io::Result<()> {
        let connection = if last { "close" } else { "keep-alive" };
        let (status, kind, length) = match answer {
            Answer::Given { size, kind, .. } => ("200 OK".to_owned(), *kind, *size),
            Answer::Denied(status, why) => {
                (format!("{status} custody: {why}"), "text/plain", why.len() as u64 + 10)
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        match answer {
            _ if head_only => {}
            Answer::Given { sha256, size, .. } => ledger.send(sha256, *size, &mut self.stream)?,
            Answer::Denied(_, why) => {
                self.stream.write_all(format!("custody: {why}\n").as_bytes())?;
            }
        }
        self.stream.flush()
    }
}

/// The host of a tunnel, with its port where that is not 443.
fn tunnel(target: &str) -> Option<String> {
    let url = Url::parse(&format!("https://{target}/")).ok()?;
    let (host, plain) = (url.host_str()?, url.username().is_empty() && url.path() == "/");
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    plain.then(|| format!("{host}{port}"))
}

/// What is asked for, in its one form: host in lower case, no default port, dots resolved. What is
/// checked, fetched and recorded is this.
fn normal(host: Option<&str>, target: &str) -> Option<String> {
    let text = match host {
        Some(host) if target.starts_with('/') => format!("https://{host}{target}"),
        Some(_) => return None,
        None => target.to_owned(),
    };
    Url::parse(&text).ok().map(String::from)
}
