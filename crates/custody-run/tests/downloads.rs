//! Downloads: what a command gets through the worker's proxy, and what nobody gets. The server is real
//! and speaks TLS, and so are the clients.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong in a test fails it")]

mod upstream;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use custody_core::digest::Sha256;
use custody_core::statement::{Downloads, InputOrigin, Pinned, UsedInput};
use custody_core::{Code, Refusal};
use custody_run::downloads::upstream::Upstream as Servers;
use custody_run::downloads::{DOWNLOAD_BYTES, Fetched, Proxy};
use custody_store::Store;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use self::upstream::{Upstream, page, redirect, status};

struct World {
    files: TempDir,
    store: Store,
    servers: Servers,
    upstream: Upstream,
    limit: u64,
}

/// A client of one run.
struct Client {
    proxy: SocketAddr,
    authority: PathBuf,
}

/// What a client was told: the status line, and the body.
type Told = (String, Vec<u8>);

impl World {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let upstream = Upstream::start();
        let authority = files.path().join("upstream.pem");
        upstream.write_authority(&authority);
        let store = Store::create(&files.path().join("store")).unwrap();
        let servers = Servers::new(Some(&authority)).unwrap();
        Self { files, store, servers, upstream, limit: DOWNLOAD_BYTES }
    }

    /// All below the server's `files/`, recorded.
    fn recorded(&self) -> Downloads {
        Downloads { from: vec![self.upstream.uri("files/")], pinned: None }
    }

    fn pinned(&self, pins: &[(&str, &[u8])]) -> Downloads {
        let pin = |(path, content): &(&str, &[u8])| Pinned {
            uri: self.upstream.uri(path),
            digests: Sha256::of(content).into(),
            size: content.len() as u64,
        };
        Downloads { pinned: Some(pins.iter().map(pin).collect()), ..self.recorded() }
    }

    /// What is done through a proxy for these downloads, and what comes of it.
    fn run<T>(
        &self,
        downloads: &Downloads,
        work: impl FnOnce(&Client) -> T,
    ) -> (T, Result<Fetched, Refusal>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::new(&self.store, downloads, &self.servers, self.limit).unwrap();
        let authority = self.files.path().join("run.pem");
        std::fs::write(&authority, proxy.certificate()).unwrap();
        let client = Client { proxy: listener.local_addr().unwrap(), authority };
        let done = proxy.during(&listener, || work(&client));
        (done, proxy.finish())
    }
}

fn told(mut stream: impl io::Read) -> Told {
    let mut all = Vec::new();
    // a body that is cut off ends without a good-bye
    match stream.read_to_end(&mut all) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}"),
    }
    let end = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(all.len());
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let body = all.get(end + 4..).unwrap_or_default().to_vec();
    (head.lines().next().unwrap_or_default().to_owned(), body)
}

impl Client {
    /// Says this to the proxy itself.
    fn say(&self, words: &str) -> Told {
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        stream.write_all(words.as_bytes()).unwrap();
        told(stream)
    }

    fn tunnel(&self, host: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(self.proxy).unwrap();
        write!(stream, "CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() == 1 {
            head.extend_from_slice(&byte);
        }
        let head = String::from_utf8(head).unwrap();
        let line = head.lines().next().unwrap().to_owned();
        if line.contains(" 200 ") { Ok(stream) } else { Err(line) }
    }

    /// Speaks TLS with the host through the proxy, trusting the authority of the run alone.
    fn within(&self, host: &str, words: &str) -> Told {
        let stream = self.tunnel(host).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&self.authority).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = host.split(':').next().unwrap().to_owned().try_into().unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(session, stream);
        stream.write_all(words.as_bytes()).unwrap();
        told(stream)
    }

    fn get(&self, world: &World, path: &str) -> Told {
        let words = format!("GET /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        self.within(&world.upstream.host(), &words)
    }
}

fn uris<'f>(fetched: &'f Fetched) -> Vec<&'f str> {
    let uri = |input: &'f UsedInput| match &input.origin {
        InputOrigin::Download(uri) => uri.as_str(),
        other => panic!("{other:?}"),
    };
    fetched.inputs.iter().map(uri).collect()
}

/// The control for all that follows: what is declared is given, whole, and listed.
#[test]
fn what_is_declared_is_given_recorded_and_kept() {
    let world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    let ((), fetched) = world.run(&world.recorded(), |client| {
        for _ in 0..2 {
            let (line, body) = client.get(&world, "files/a.bin");
            assert_eq!((line.as_str(), body.as_slice()), ("HTTP/1.1 200 OK", &b"some bytes"[..]));
        }
    });
    let fetched = fetched.unwrap();
    assert_eq!(uris(&fetched), [world.upstream.uri("files/a.bin")]);
    assert_eq!(fetched.notes, [""; 0]);
    let artifact = &fetched.inputs[0].artifact;
    assert_eq!(artifact.digests.sha256, Sha256::of(b"some bytes"));
    assert_eq!(artifact.size, 10);
    assert!(world.store.has_artifact(&artifact.digests.sha256));
    // a second request of one run asks nobody
    assert_eq!(world.upstream.asked().len(), 1);
}

/// What is pinned and in the store needs no server, and changes with none.
#[test]
fn what_is_pinned_is_given_from_the_store() {
    let world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    let pinned = world.pinned(&[("files/a.bin", b"some bytes"), ("files/unused", b"")]);
    for _ in 0..2 {
        let (told, fetched) = world.run(&pinned, |client| client.get(&world, "files/a.bin"));
        assert_eq!(told.1, b"some bytes");
        assert_eq!(uris(&fetched.unwrap()), [world.upstream.uri("files/a.bin")]);
        // from now on the server has something else
        world.upstream.put("files/a.bin", page(b"other text"));
    }
    assert_eq!(world.upstream.asked().len(), 1);
}

/// `dl-pinned-changed`: other bytes than pinned, more and fewer of them.
#[test]
fn other_bytes_than_pinned_never_arrive_and_leave_no_manifest() {
    let world = World::new();
    for wrong in [&b"same bytez"[..], b"same bytes and more", b"same"] {
        world.upstream.put("files/a.bin", page(wrong));
        let pinned = world.pinned(&[("files/a.bin", b"same bytes")]);
        let (told, fetched) = world.run(&pinned, |client| {
            let first = client.get(&world, "files/a.bin");
            // asking again does not help
            assert_eq!(client.get(&world, "files/a.bin"), first);
            first
        });
        assert!(told.0.starts_with("HTTP/1.1 502 "), "{}", told.0);
        assert!(!String::from_utf8_lossy(&told.1).contains("same"), "{told:?}");
        let refusal = fetched.unwrap_err();
        assert_eq!(refusal.code, Code::ArtDigestMismatch);
        assert!(refusal.at.contains(&world.upstream.uri("files/a.bin")), "{refusal:?}");
    }
}

/// `dl-outside`: what is not declared, under names that look as if it were.
#[test]
fn nothing_is_given_that_is_not_declared() {
    let world = World::new();
    world.upstream.put("secret", page(b"outside"));
    world.upstream.put("files/%2e%2e/secret", page(b"outside"));
    world.upstream.put("files/..%2fsecret", page(b"outside"));
    let (lines, fetched) = world.run(&world.recorded(), |client| {
        let paths = [
            "secret",
            "files/../secret",
            "files/%2e%2e/secret",
            "files/..%2fsecret",
            "files/%252e%252e/secret",
            "files/..\\secret",
            "FILES/a.bin",
            "files",
        ];
        paths.map(|path| client.get(&world, path).0)
    });
    for line in lines {
        assert!(line.starts_with("HTTP/1.1 403 "), "{line}");
    }
    let fetched = fetched.unwrap();
    assert_eq!(uris(&fetched), [""; 0]);
    assert_eq!(fetched.notes.len(), 8);
    assert_eq!(world.upstream.asked(), [""; 0]);
}

/// `dl-not-pinned`: where there are pins, what has none is not there.
#[test]
fn what_is_declared_and_not_pinned_is_not_given() {
    let world = World::new();
    world.upstream.put("files/b.bin", page(b"other bytes"));
    let pinned = world.pinned(&[("files/a.bin", b"some bytes")]);
    let (told, fetched) = world.run(&pinned, |client| client.get(&world, "files/b.bin"));
    assert!(told.0.starts_with("HTTP/1.1 404 "), "{}", told.0);
    assert_eq!(uris(&fetched.unwrap()), [""; 0]);
    assert_eq!(world.upstream.asked(), [""; 0]);
}

/// `dl-other-host`: tunnels lead to declared hosts only, and what is in one is for that host.
#[test]
fn a_tunnel_to_another_host_is_refused() {
    let world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    let host = world.upstream.host();
    let ((), fetched) = world.run(&world.recorded(), |client| {
        for other in ["localhost:1", "evil.example.org:443", "user@localhost:443", "localhost"] {
            let line = client.tunnel(other).unwrap_err();
            assert!(line.starts_with("HTTP/1.1 403 "), "{other}: {line}");
        }
        // a whole URI inside a tunnel could name another host than the tunnel does
        let words = "GET https://evil.example.org/ HTTP/1.1\r\nConnection: close\r\n\r\n";
        assert!(client.within(&host, words).0.starts_with("HTTP/1.1 400 "));
        // a client that speaks before the tunnel stands
        let early =
            format!("CONNECT {host} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n");
        assert!(client.say(&early).0.starts_with("HTTP/1.1 403 "));
        // what the client calls the host does not matter
        let words =
            "GET /files/a.bin HTTP/1.1\r\nHost: evil.example.org\r\nConnection: close\r\n\r\n";
        assert_eq!(client.within(&host, words).1, b"some bytes");
    });
    assert_eq!(uris(&fetched.unwrap()), [world.upstream.uri("files/a.bin")]);
    assert!(world.upstream.asked().iter().all(|head| head.contains(&format!("{host}\r\n"))));
}

/// `dl-upload`: nothing goes out but the question.
#[test]
fn a_request_that_carries_something_out_is_refused() {
    let world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    let host = world.upstream.host();
    let ((), fetched) = world.run(&world.recorded(), |client| {
        for (request, answer) in [
            ("POST /files/a.bin HTTP/1.1\r\nContent-Length: 6\r\n\r\nsecret", "403"),
            ("POST /files/a.bin HTTP/1.1\r\nConnection: close\r\n\r\n", "405"),
            ("PUT /files/a.bin HTTP/1.1\r\nConnection: close\r\n\r\n", "405"),
            ("GET /files/a.bin HTTP/1.1\r\nContent-Length: 6\r\n\r\nsecret", "403"),
            ("GET /files/a.bin HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret", "403"),
        ] {
            let (line, _) = client.within(&host, request);
            assert!(line.starts_with(&format!("HTTP/1.1 {answer} ")), "{request}: {line}");
        }
    });
    assert_eq!(uris(&fetched.unwrap()), [""; 0]);
    assert_eq!(world.upstream.asked(), [""; 0]);
}

/// No header of the client changes what a URI stands for, and none of its secrets leaves.
#[test]
fn the_server_is_asked_in_the_workers_own_words() {
    let world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    let words = "GET /files/a.bin HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer hunter2\r\nCookie: a=hunter2\r\n\
                 Range: bytes=0-3\r\nIf-None-Match: \"x\"\r\nAccept-Encoding: gzip\r\nAccept: text/special\r\n\
                 Connection: close\r\n\r\n";
    let (told, fetched) =
        world.run(&world.recorded(), |client| client.within(&world.upstream.host(), words));
    assert_eq!(told.1, b"some bytes");
    assert_eq!(fetched.unwrap().inputs[0].artifact.size, 10);
    let asked = world.upstream.asked().concat().to_ascii_lowercase();
    for secret in ["hunter2", "range", "if-none-match", "gzip", "special", "cookie"] {
        assert!(!asked.contains(secret), "{secret} in {asked}");
    }
    assert!(asked.contains("accept-encoding: identity"), "{asked}");
}

/// `dl-redirect-outside`: a redirect is followed to what is declared, and nowhere else.
#[test]
fn a_redirect_leads_to_what_is_declared_or_nowhere() {
    let world = World::new();
    world.upstream.put("files/moved", redirect("there/a.bin"));
    world.upstream.put("files/there/a.bin", page(b"some bytes"));
    world.upstream.put("files/out", redirect(&world.upstream.uri("secret")));
    world.upstream.put("files/far", redirect("https://evil.example.org/"));
    world.upstream.put("files/climb", redirect("../secret"));
    world.upstream.put("files/circle", redirect("circle"));
    world.upstream.put("secret", page(b"outside"));
    let ((), fetched) = world.run(&world.recorded(), |client| {
        assert_eq!(client.get(&world, "files/moved").1, b"some bytes");
        for path in ["files/out", "files/far", "files/climb"] {
            let (line, _) = client.get(&world, path);
            assert!(line.starts_with("HTTP/1.1 403 "), "{path}: {line}");
        }
        assert!(client.get(&world, "files/circle").0.starts_with("HTTP/1.1 502 "));
    });
    // the bytes are those of the URI that was asked for
    assert_eq!(uris(&fetched.unwrap()), [world.upstream.uri("files/moved")]);
    assert!(!world.upstream.asked().iter().any(|head| head.contains("/secret")));
}

/// What a server says beside files are a status and nothing more: no byte of it comes in unexplained.
#[test]
fn of_what_is_no_file_only_the_status_arrives() {
    let world = World::new();
    world.upstream.put("files/busy", status("503 Later"));
    world.upstream.put("files/partial", status("206 Partial"));
    world.upstream.put(
        "files/zipped",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nsorry".to_vec(),
    );
    world
        .upstream
        .put("files/short", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nsorry".to_vec());
    let ((), fetched) = world.run(&world.recorded(), |client| {
        for (path, answer) in [
            ("none", "404"),
            ("busy", "503"),
            ("partial", "502"),
            ("zipped", "502"),
            ("short", "502"),
        ] {
            let (line, body) = client.get(&world, &format!("files/{path}"));
            assert!(line.starts_with(&format!("HTTP/1.1 {answer} ")), "{path}: {line}");
            assert!(!String::from_utf8_lossy(&body).contains("sorry"), "{path}");
        }
        // a server that was busy may be asked again
        world.upstream.put("files/busy", page(b"some bytes"));
        assert_eq!(client.get(&world, "files/busy").1, b"some bytes");
    });
    let fetched = fetched.unwrap();
    assert_eq!(uris(&fetched), [world.upstream.uri("files/busy")]);
    assert_eq!(fetched.notes.len(), 5, "{:?}", fetched.notes);
}

/// `dl-flood`: a body without end ends.
#[test]
fn more_than_the_limit_is_refused() {
    let mut world = World::new();
    world.limit = 100;
    world.upstream.put("files/100", page(&[b'x'; 100]));
    world.upstream.put("files/101", page(&[b'x'; 101]));
    let (told, fetched) = world.run(&world.recorded(), |client| client.get(&world, "files/100"));
    assert_eq!((told.1.len(), fetched.unwrap().inputs.len()), (100, 1));
    let (told, fetched) = world.run(&world.recorded(), |client| client.get(&world, "files/101"));
    assert!(told.0.starts_with("HTTP/1.1 502 "), "{}", told.0);
    assert_eq!(fetched.unwrap_err().code, Code::ParseSizeExceeded);
    world.limit = 150;
    let ((), fetched) = world.run(&world.recorded(), |client| {
        assert!(client.get(&world, "files/100").0.ends_with("200 OK"));
        assert!(!client.get(&world, "files/101").0.ends_with("200 OK"));
    });
    assert_eq!(fetched.unwrap_err().code, Code::ParseSizeExceeded);
}

/// A server that dawdles keeps nobody longer than the command lasts, and clients that stay connected do
/// not either.
#[test]
fn nobody_waits_for_a_slow_server_after_the_end() {
    let world = World::new();
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = format!("http://{}/", slow.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = slow.accept().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").unwrap();
        while stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
    });
    let downloads = Downloads { from: vec![from.clone()], pinned: None };
    let began = Instant::now();
    let (_streams, fetched) = world.run(&downloads, |client| {
        let idle = TcpStream::connect(client.proxy).unwrap();
        let mut asking = TcpStream::connect(client.proxy).unwrap();
        write!(asking, "GET {from}a HTTP/1.1\r\n\r\n").unwrap();
        thread::sleep(Duration::from_millis(500));
        (idle, asking)
    });
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(uris(&fetched.unwrap()), [""; 0]);
}

/// Servers are believed by their certificates.
#[test]
fn a_server_that_nobody_vouches_for_is_not_believed() {
    let mut world = World::new();
    world.upstream.put("files/a.bin", page(b"some bytes"));
    world.servers = Servers::new(None).unwrap();
    let (told, fetched) = world.run(&world.recorded(), |client| client.get(&world, "files/a.bin"));
    assert!(told.0.starts_with("HTTP/1.1 502 "), "{}", told.0);
    assert_eq!(uris(&fetched.unwrap()), [""; 0]);
    let none = world.files.path().join("none.pem");
    std::fs::write(&none, "").unwrap();
    assert_eq!(Servers::new(Some(&none)).unwrap_err().code, Code::ParseFieldType);
    assert!(Servers::new(Some(Path::new("/nowhere"))).is_err());
}

/// What was damaged in the store does not arrive as what it was.
#[test]
fn a_damaged_artifact_is_cut_off_and_leaves_no_manifest() {
    let world = World::new();
    let content = vec![b'x'; 300_000];
    let pinned = world.pinned(&[("files/a.bin", &content)]);
    world.store.put_artifact(content.as_slice(), false, None).unwrap();
    let path = world.store.artifact_path(&Sha256::of(&content));
    let (told, fetched) = world.run(&pinned, |client| client.get(&world, "files/a.bin"));
    assert_eq!((told.1.len(), fetched.is_ok()), (300_000, true));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b'y'; 300_000]).unwrap();
    let (told, fetched) = world.run(&pinned, |client| client.get(&world, "files/a.bin"));
    assert!(told.1.len() < 300_000);
    assert_eq!(fetched.unwrap_err().code, Code::StoreCorrupt);
}

/// Plain HTTP goes the same way.
#[test]
fn what_is_declared_without_tls_is_given_too() {
    let world = World::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let from = format!("http://{}/", server.local_addr().unwrap());
    thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut head = [0; 1000];
        assert!(stream.read(&mut head).unwrap() > 0);
        stream.write_all(&page(b"<!doctype html><p>")).unwrap();
    });
    let downloads = Downloads { from: vec![from.clone()], pinned: None };
    let (told, fetched) = world.run(&downloads, |client| {
        client.say(&format!("GET {from}a HTTP/1.1\r\nConnection: close\r\n\r\n"))
    });
    assert_eq!(told.1, b"<!doctype html><p>");
    assert_eq!(uris(&fetched.unwrap()), [format!("{from}a")]);
}
