//! As much of HTTP/1.1 (RFC 9112) as two small questions need: one request for each connection, a body of
//! a length that is said before, and an end to everything.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Connections that are served at once; more are turned away.
const AT_ONCE: usize = 64;
/// How long a whole request and its answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes before the body.
const HEAD_BYTES: usize = 8 << 10;
const HEADERS: usize = 64;
/// How often it is asked whether to stop.
const PULSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What somebody asks.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// What they are told.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    pub(super) body: String,
}

/// Answers until somebody sets `stop`. Whoever is being served then gets their answer.
pub(super) fn serve(
    listener: &TcpListener,
    limit: usize,
    stop: &AtomicBool,
    handle: &(dyn Fn(Result<Request, Fault>) -> Answer + Sync),
) -> io::Result<()> {
    let serving = AtomicUsize::new(0);
    listener.set_nonblocking(true)?;
    std::thread::scope(|scope| {
        while !stop.load(Ordering::Relaxed) {
            let mut ready = [PollFd::new(listener, PollFlags::IN)];
            match poll(&mut ready, Some(&PULSE)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            // who hung up in the meantime, or of whom the system has too many, is nobody's fault
            let Ok((stream, _)) = listener.accept() else { continue };
            if serving.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
                serving.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let helper = std::thread::Builder::new();
            let serving = &serving;
            let spawned = helper.spawn_scoped(scope, move || {
                // whoever does not read their answer to the end has lost interest
                converse(stream, limit, handle).unwrap_or_default();
                serving.fetch_sub(1, Ordering::Relaxed);
            });
            if spawned.is_err() {
                serving.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Ok(())
    })
}

/// Why a request is not even looked at, by status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is no HTTP that is spoken here.
    Malformed,
    /// It has no length, or one in pieces.
    NoLength,
    /// It is larger than anything that is wanted.
    TooLarge,
}

impl Fault {
    pub(super) const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::NoLength => 411,
            Self::TooLarge => 413,
        }
    }
}

fn converse(
    mut stream: TcpStream,
    limit: usize,
    handle: &(dyn Fn(Result<Request, Fault>) -> Answer + Sync),
) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    let end = Instant::now() + PATIENCE;
    let request = read(&mut stream, limit, end)?;
    let answer = handle(request);
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        answer.status,
        reason(answer.status),
        answer.media_type,
        answer.body.len()
    );
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    stream.write_all(answer.body.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)
}

const fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        411 => "Length Required",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        _ => "Service Unavailable",
    }
}

/// Whoever sends byte after byte does not get more time for it.
fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: Instant) -> io::Result<usize> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    stream.set_read_timeout(Some(left))?;
    let mut chunk = [0; 16 << 10];
    let count = stream.read(&mut chunk)?;
    buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    Ok(count)
}

/// What stands before the body.
struct Head {
    method: String,
    path: String,
    length: Option<usize>,
    /// Whether the client waits to hear that its body is wanted.
    waits: bool,
    /// Where the body begins.
    bytes: usize,
}

fn read(stream: &mut TcpStream, limit: usize, end: Instant) -> io::Result<Result<Request, Fault>> {
    let mut buffer = Vec::new();
    let head = loop {
        match head(&buffer) {
            Ok(Some(head)) if head.bytes <= HEAD_BYTES => break head,
            Ok(None) if buffer.len() <= HEAD_BYTES => {}
            Ok(_) => return Ok(Err(Fault::TooLarge)),
            Err(fault) => return Ok(Err(fault)),
        }
        if more(stream, &mut buffer, end)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let length = match head.length {
        Some(length) if length > limit => return Ok(Err(Fault::TooLarge)),
        Some(length) => length,
        None if head.method == "POST" => return Ok(Err(Fault::NoLength)),
        None => 0,
    };
    if head.waits {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let mut body = buffer.split_off(head.bytes);
    while body.len() < length {
        if more(stream, &mut body, end)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    body.truncate(length);
    Ok(Ok(Request { method: head.method, path: head.path, body }))
}

fn head(buffer: &[u8]) -> Result<Option<Head>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(bytes) = request.parse(buffer).map_err(|_| Fault::Malformed)?
    else {
        return Ok(None);
    };
    let named = |name: &str| {
        let mut all =
            request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        (all.next().map(|header| header.value), all.next().is_some())
    };
    if named("transfer-encoding").0.is_some() {
        return Err(Fault::NoLength);
    }
    let length = match named("content-length") {
        (None, _) => None,
        // two lengths are two readings of one request
        (Some(_), true) => return Err(Fault::Malformed),
        (Some(value), false) => Some(decimal(value).ok_or(Fault::Malformed)?),
    };
    Ok(Some(Head {
        method: request.method.unwrap_or_default().to_owned(),
        path: request.path.unwrap_or_default().to_owned(),
        length,
        waits: named("expect").0.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
        bytes,
    }))
}

fn decimal(value: &[u8]) -> Option<usize> {
    let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_length_and_no_other() {
        let length = |headers: &str| {
            let text = format!("POST /v1/enrol HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
            head(text.as_bytes()).map(|head| head.unwrap().length)
        };
        assert_eq!(length("Content-Length: 12\r\n"), Ok(Some(12)));
        assert_eq!(length(""), Ok(None));
        for (headers, fault) in [
            ("content-length: 12\r\ncontent-length: 12\r\n", Fault::Malformed),
            ("content-length: +12\r\n", Fault::Malformed),
            ("content-length: 0x12\r\n", Fault::Malformed),
            ("content-length: 99999999999999999999999\r\n", Fault::Malformed),
            ("content-length: 12\r\ntransfer-encoding: chunked\r\n", Fault::NoLength),
            ("content-length : 12\r\n", Fault::Malformed),
            ("\u{1}: 12\r\n", Fault::Malformed),
        ] {
            assert_eq!(length(headers), Err(fault), "{headers:?}");
        }
        assert!(head(b"POST / HTTP/1.1\r\nhost: ").unwrap().is_none());
        assert_eq!(head(b"\x16\x03\x01\x02\x00").err(), Some(Fault::Malformed));
    }
}
