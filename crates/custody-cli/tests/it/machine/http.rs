//! A server that speaks as much of HTTP/1.1 as metadata services are asked in.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{TcpListener, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// One request, headers by their names in lower case.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    query: Vec<(String, String)>,
    headers: Vec<(String, String)>,
    pub(super) body: String,
}

impl Request {
    fn read(stream: &mut impl Read) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
            Some(line.trim_end().to_owned())
        };
        let first = line()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        let mut headers = Vec::new();
        while let Some((name, value)) = line()?.split_once(':') {
            headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name.to_owned(), value.replace("%3A", ":"))
        };
        let query = query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect();
        let mut request =
            Self { method, path: path.to_owned(), query, headers, body: String::new() };
        let length = request.header("content-length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body).ok()?;
        request.body = String::from_utf8(body).ok()?;
        Some(request)
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub(super) fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, headers: vec![], body: body.into() }
    }

    pub(super) fn status(status: u16) -> Self {
        Self { status, headers: vec![], body: b"no\n".to_vec() }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Without its headers.
    pub(super) fn bare(mut self) -> Self {
        self.headers.clear();
        self
    }

    pub(super) fn created(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 201, ..Self::ok(body) }
    }

    fn write(&self, stream: &mut impl Write) -> std::io::Result<()> {
        let mut head = format!("HTTP/1.1 {} Said\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        head += &format!("Content-Length: {}\r\nConnection: close\r\n\r\n", self.body.len());
        stream.write_all(head.as_bytes())?;
        stream.write_all(&self.body)?;
        stream.flush()
    }
}

/// A server and what it was asked.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Every request so far; none that could not be read.
    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn start(
        address: impl ToSocketAddrs,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start_tls(address, None, answer)
    }

    /// The same behind TLS.
    pub(super) fn start_tls(
        address: impl ToSocketAddrs,
        tls: Option<Arc<rustls::ServerConfig>>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                match &tls {
                    None => reply(&mut stream, &asked, &answer),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                        let mut stream = rustls::StreamOwned::new(session, stream);
                        reply(&mut stream, &asked, &answer);
                        stream.conn.send_close_notify();
                        stream.flush().ok();
                    }
                }
            }
        });
        server
    }
}

fn reply(
    stream: &mut (impl Read + Write),
    asked: &Mutex<Vec<Request>>,
    answer: &impl Fn(&Request) -> Answer,
) {
    let Some(request) = Request::read(stream) else { return };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    // who does not wait for the answer is not our affair
    answer(&request).write(stream).ok();
}
