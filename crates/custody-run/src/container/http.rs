//! The few requests that an engine is asked, over its socket.
//!
//! In the words of HTTP/1.0: each has a connection of its own, and an answer ends where the connection
//! ends. So nothing has to be taken apart but a status and the blank line after the heads.

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// The longest heads.
const HEADS: usize = 64 << 10;
/// The longest answer.
const BODY: u64 = 16 << 20;
/// How long an engine may be silent; a pull or an archive of gigabytes takes its time.
const SILENCE: Duration = Duration::from_mins(15);

/// What an engine answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    pub(super) const fn is_good(&self) -> bool {
        self.status >= 200 && self.status < 300
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What the engine says for people: its words, of one document or of the last that has any, for a
    /// pull that goes wrong is told in the middle of many.
    pub(super) fn message(&self) -> String {
        let documents = serde_json::Deserializer::from_slice(&self.body).into_iter::<Value>();
        let text = documents.map_while(Result::ok).filter_map(|it| words(&it)).last();
        let text = text.unwrap_or_else(|| String::from_utf8_lossy(&self.body).into_owned());
        let shown: String = text.trim().escape_debug().take(300).collect();
        if self.is_good() { shown } else { format!("{shown} ({})", self.status) }
    }
}

/// What went wrong, and why, as far as that is not said already.
fn words(document: &Value) -> Option<String> {
    let text = |pointer| document.pointer(pointer).and_then(Value::as_str);
    let said = ["/message", "/Error/Message", "/errorDetail/message", "/error"];
    let said = said.into_iter().find_map(text)?;
    let cause = text("/cause").filter(|cause| !said.contains(cause));
    Some(cause.map_or_else(|| said.to_owned(), |cause| format!("{said}: {cause}")))
}

/// Sends a request and gives the connection, at the beginning of the answer.
pub(super) fn send(
    socket: &Path,
    method: &str,
    path: &str,
    kind: &str,
    (body, length): (&mut dyn Read, u64),
) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: engine\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
    )?;
    io::copy(body, &mut stream)?;
    Ok(stream)
}

/// Sends JSON, or nothing, and waits for the answer.
pub(super) fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    json: Option<&Value>,
) -> io::Result<Answer> {
    let body = json.map(Value::to_string).unwrap_or_default();
    let length = body.len() as u64;
    answer(send(socket, method, path, "application/json", (&mut body.as_bytes(), length))?)
}

/// Sends a file and waits for the answer.
pub(super) fn upload(socket: &Path, path: &str, mut file: &File) -> io::Result<Answer> {
    let length = file.metadata()?.len();
    answer(send(socket, "POST", path, "application/x-tar", (&mut file, length))?)
}

fn answer(mut stream: UnixStream) -> io::Result<Answer> {
    let status = heads(&mut stream)?;
    let mut body = Vec::new();
    stream.take(BODY + 1).read_to_end(&mut body)?;
    if body.len() as u64 > BODY {
        return Err(io::Error::other("an answer without end"));
    }
    Ok(Answer { status, body })
}

/// Reads the status and goes past the heads: byte by byte, for what comes after them may be somebody
/// else's.
pub(super) fn heads(stream: &mut impl Read) -> io::Result<u16> {
    let (mut heads, mut byte) = (Vec::new(), [0]);
    while !heads.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        heads.push(byte[0]);
        if heads.len() > HEADS {
            return Err(io::Error::other("heads without end"));
        }
    }
    let line = heads.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let http = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    let status = words.next().and_then(|word| word.parse().ok()).filter(|_| http);
    status.ok_or_else(|| io::Error::other("an answer that is no HTTP"))
}

/// An answer that is waited for while other things are done.
#[derive(Debug)]
pub(super) struct Pending {
    stream: UnixStream,
    bytes: Vec<u8>,
}

impl Pending {
    pub(super) fn new(socket: &Path, method: &str, path: &str) -> io::Result<Self> {
        let nothing: &mut dyn Read = &mut io::empty();
        let stream = send(socket, method, path, "application/json", (nothing, 0))?;
        stream.set_nonblocking(true)?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// The answer, once it is there.
    pub(super) fn poll(&mut self) -> io::Result<Option<Answer>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => self.bytes.extend_from_slice(&buffer[..length]),
                Err(error) if crate::execute::is_transient(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
            if self.bytes.len() > HEADS {
                return Err(io::Error::other("an answer without end"));
            }
        }
        let mut bytes = self.bytes.as_slice();
        let status = heads(&mut bytes)?;
        Ok(Some(Answer { status, body: bytes.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_a_rest() {
        let mut bytes: &[u8] =
            b"HTTP/1.0 404 Not Found\r\nA: b\r\n\r\n{\"message\":\"no \\u0007\"}";
        assert_eq!(heads(&mut bytes).unwrap(), 404);
        let answer = Answer { status: 404, body: bytes.to_vec() };
        assert!(!answer.is_good());
        assert_eq!(answer.message(), "no \\u{7} (404)");
    }

    #[test]
    fn what_went_wrong_is_told_in_words() {
        let said = |status, body: &str| Answer { status, body: body.into() }.message();
        let podman = r#"{"cause":"no such image","message":"x: no such image","response":404}"#;
        assert_eq!(said(404, podman), "x: no such image (404)");
        let podman = r#"{"cause":"no space left","message":"writing blob","response":500}"#;
        assert_eq!(said(500, podman), "writing blob: no space left (500)");
        let pull = "{\"status\":\"Pulling\"}\n{\"errorDetail\":{\"message\":\"refused\"},\"error\":\"refused\"}\n";
        assert_eq!(said(200, pull), "refused");
        assert_eq!(said(200, r#"{"StatusCode":0,"Error":{"Message":"lost"}}"#), "lost");
        assert_eq!(said(502, "bad gateway\n"), "bad gateway (502)");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        for bad in ["", "HTTP/1.1 200 OK\r\n", "SSH-2.0 200\r\n\r\n", "HTTP/1.1 OK\r\n\r\n"] {
            assert!(heads(&mut bad.as_bytes()).is_err(), "{bad}");
        }
        let endless = [b"HTTP/1.1 200 OK\r\n".as_slice(), &vec![b'x'; HEADS + 4]].concat();
        assert!(heads(&mut endless.as_slice()).is_err());
    }
}
