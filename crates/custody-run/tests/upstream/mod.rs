//! An HTTPS server on loopback, with an authority of its own, that says what a test wants it to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// What the server says to a path: all of it, head and body.
pub(crate) type Pages = BTreeMap<String, Vec<u8>>;

pub(crate) struct Upstream {
    port: u16,
    authority: Vec<u8>,
    pages: Arc<Mutex<Pages>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// A page of these bytes.
pub(crate) fn page(body: &[u8]) -> Vec<u8> {
    let mut page =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
            .into_bytes();
    page.extend_from_slice(body);
    page
}

pub(crate) fn redirect(to: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .into_bytes()
}

pub(crate) fn status(line: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\nContent-Length: 5\r\nConnection: close\r\n\r\nsorry").into_bytes()
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["localhost".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self {
            port: listener.local_addr().unwrap().port(),
            authority: issuer.der().to_vec(),
            pages: Arc::default(),
            asked: Arc::default(),
        };
        let (pages, asked) = (Arc::clone(&upstream.pages), Arc::clone(&upstream.asked));
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (pages, asked) = (Arc::clone(&pages), Arc::clone(&asked));
                let session = ServerConnection::new(Arc::clone(&config)).unwrap();
                thread::spawn(move || answer(StreamOwned::new(session, stream), &pages, &asked));
            }
        });
        upstream
    }

    /// A URI below this server.
    pub(crate) fn uri(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    pub(crate) fn put(&self, path: &str, page: Vec<u8>) {
        self.pages.lock().unwrap().insert(format!("/{path}"), page);
    }

    /// The heads of all requests so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Writes the certificate of the authority.
    pub(crate) fn write_authority(&self, path: &Path) {
        let text = custody_core::encoding::base64(&self.authority);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        );
        std::fs::write(path, pem).unwrap();
    }
}

fn answer(
    mut stream: StreamOwned<ServerConnection, std::net::TcpStream>,
    pages: &Mutex<Pages>,
    asked: &Mutex<Vec<String>>,
) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.extend_from_slice(&byte),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    asked.lock().unwrap().push(head);
    let page = pages.lock().unwrap().get(&path).cloned();
    let page = page.unwrap_or_else(|| status("404 Not Found"));
    // whoever has enough goes away
    if stream.write_all(&page).is_ok() && stream.flush().is_ok() {
        stream.conn.send_close_notify();
        stream.flush().unwrap_or_default();
    }
}
