//! Publishing to directories, to a real S3-compatible server (`tests/servers/s3`), and to servers
//! made here that lie or fail.
#![expect(clippy::unwrap_used, clippy::panic, reason = "what goes wrong in a test fails it")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use custody_core::digest::{Digests, Hasher};
use custody_core::name::ArtifactName;
use custody_core::{Code, Refusal};
use custody_run::destination::{Destination, Place, Put, S3Config};
use tempfile::TempDir;

const CONTENT: &[u8] = b"the released file";
const OTHER: &[u8] = b"quite another one";

fn digests(content: &[u8]) -> Digests {
    let mut hasher = Hasher::new(true);
    hasher.update(content);
    hasher.finish().0
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

fn name(text: &str) -> ArtifactName {
    text.parse().unwrap()
}

/// Puts a file that is what it is said to be.
fn put(place: &Place, at: &str, content: &[u8]) -> Result<Put, Refusal> {
    place.put(&name(at), &mut file(content), &digests(content), content.len() as u64)
}

fn there(place: &Place, at: &str) -> Option<(Digests, u64)> {
    place.read_back(&name(at), true, 1 << 30).unwrap()
}

fn no_s3() -> Result<S3Config, Refusal> {
    panic!("a directory needs no credentials")
}

fn directory(path: &Path) -> Place {
    Destination::parse(&format!("file://{}", path.display())).unwrap().open(no_s3).unwrap()
}

fn bucket(destination: &str, vars: &HashMap<&str, String>) -> Place {
    let config = S3Config::from_vars(|name| vars.get(name).cloned());
    Destination::parse(destination).unwrap().open(|| config).unwrap()
}

fn vars(endpoint: &str) -> HashMap<&'static str, String> {
    HashMap::from([
        ("AWS_ENDPOINT_URL", endpoint.to_owned()),
        ("AWS_ACCESS_KEY_ID", "key".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "secret".to_owned()),
        ("AWS_REGION", "us-east-1".to_owned()),
    ])
}

/// The real server's bucket below a prefix of the test's own, and how to reach it.
fn real_bucket(test: &str) -> Option<(String, HashMap<&'static str, String>)> {
    let var = |name| std::env::var(name).ok();
    let (Some(endpoint), Some(bucket)) = (var("CUSTODY_TEST_S3"), var("CUSTODY_TEST_S3_BUCKET"))
    else {
        assert_ne!(var("CUSTODY_TEST_REQUIRE_ALL").as_deref(), Some("1"), "no CUSTODY_TEST_S3");
        // past the test runner, which keeps the words of tests that pass to itself
        let line = format!("skipped: {test}: no CUSTODY_TEST_S3, see tests/servers/s3\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    };
    let mut vars = vars(&endpoint);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        vars.insert(name, var(name).unwrap());
    }
    let unique = TempDir::with_prefix("run").unwrap();
    let unique = unique.path().file_name().unwrap().to_str().unwrap();
    Some((format!("s3://{bucket}/{test}/{unique}"), vars))
}

/// What must hold at every place, whatever it is.
fn keeps_the_rules(place: &Place) {
    let at = "dist/a +~@=,()[]#/file.tar.xz";
    assert_eq!(there(place, at), None);
    assert_eq!(put(place, at, CONTENT), Ok(Put::Written));
    assert_eq!(there(place, at), Some((digests(CONTENT), CONTENT.len() as u64)));
    assert_eq!(put(place, at, CONTENT), Ok(Put::AlreadyThere));

    for other in [OTHER, b"shorter", b"", b"the released file, and more"] {
        let refusal = put(place, at, other).unwrap_err();
        assert_eq!(refusal.code, Code::GateDestinationConflict, "{refusal}");
        assert_eq!(refusal.at, format!("artifact {at} at {}", place.destination()));
        assert!(refusal.expected.contains(&digests(other).sha256.to_string()), "{refusal}");
    }
    assert_eq!(there(place, at), Some((digests(CONTENT), CONTENT.len() as u64)));

    assert_eq!(put(place, "empty", b""), Ok(Put::Written));
    assert_eq!(put(place, "empty", b""), Ok(Put::AlreadyThere));

    // more than all buffers, and asked for before it is sent
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    assert_eq!(put(place, "large", &large), Ok(Put::Written));
    assert_eq!(there(place, "large"), Some((digests(&large), large.len() as u64)));

    let only_sha512_differs = Digests { sha512: digests(OTHER).sha512, ..digests(CONTENT) };
    for (case, expected, size) in [
        ("other bytes", digests(OTHER), CONTENT.len()),
        ("another SHA-512", only_sha512_differs, CONTENT.len()),
        ("grown", digests(&CONTENT[..5]), 5),
        ("grown from nothing", digests(b""), 0),
        ("cut off", digests(CONTENT), CONTENT.len() + 1),
    ] {
        let put = place.put(&name("wrong"), &mut file(CONTENT), &expected, size as u64);
        assert_eq!(put.unwrap_err().code, Code::GateInputChanged, "{case}");
        assert_eq!(there(place, "wrong"), None, "{case}");
    }
}

/// `gate-destination`.
#[test]
fn destinations_have_one_form() {
    for text in ["file:///srv/www", "s3://bucket", "s3://my.bucket-1/firefox/124.0"] {
        assert_eq!(Destination::parse(text).unwrap().to_string(), text);
    }
    for text in [
        "",
        "/srv",
        "srv",
        "file://",
        "file:///",
        "file://srv/www",
        "file://host/srv",
        "file:/srv",
        "file:///srv/",
        "file:///srv//www",
        "file:///srv/../etc",
        "file:///srv/./www",
        "file:///srv%2f..",
        "file:///srv?x",
        "FILE:///srv",
        "http://bucket/x",
        "s3:bucket",
        "s3://",
        "s3://ab",
        "s3://Bucket",
        "s3://-bucket",
        "s3://bucket.",
        "s3://a..b",
        "s3://bucket/",
        "s3://bucket/x/",
        "s3://bucket//x",
        "s3://bucket/../x",
        "s3://bucket/x?versionId=1",
        "s3://key:secret@bucket/x",
        "s3://bucket:80/x",
        "s3://bucket/x\n",
        "s3://buck\u{e9}t",
    ] {
        let refusal = Destination::parse(text).unwrap_err();
        assert_eq!(refusal.code, Code::GateDestinationForbidden, "{text:?}");
        assert!(!refusal.to_string().contains('\n'));
    }
}

#[test]
fn endpoints_are_secure_and_secrets_not_shown() {
    for endpoint in
        ["https://s3.example.org", "http://127.0.0.1:9", "http://localhost:9", "http://[::1]:9"]
    {
        let mut vars = vars(endpoint);
        vars.insert("AWS_SESSION_TOKEN", "the token".to_owned());
        vars.insert("AWS_SECRET_ACCESS_KEY", "the secret".to_owned());
        let place = bucket("s3://bucket/x", &vars);
        let shown = format!("{place:?}");
        assert!(!shown.contains("the secret") && !shown.contains("the token"), "{shown}");
    }
    for endpoint in [
        "http://s3.example.org",
        "http://localhost.example.org",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "https://key:secret@s3.example.org",
        "https://s3.example.org/?x",
        "s3.example.org",
        "unix:/x",
    ] {
        let vars = vars(endpoint);
        let refusal = S3Config::from_vars(|name| vars.get(name).cloned()).unwrap_err();
        assert_eq!(refusal.code, Code::GateDestinationForbidden, "{endpoint}");
    }
    for missing in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] {
        let mut vars = vars("http://localhost");
        vars.insert(missing, String::new());
        let refusal = S3Config::from_vars(|name| vars.get(name).cloned()).unwrap_err();
        assert_eq!(refusal.code, Code::GateUnavailable);
        assert!(refusal.at.contains(missing), "{refusal}");
    }
}

/// `gate-destination-exists`, `art-mode-bits`.
#[test]
fn a_directory_keeps_the_rules() {
    let root = TempDir::new().unwrap();
    keeps_the_rules(&directory(root.path()));
    let names = |path: &Path| {
        let mut names: Vec<_> =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(root.path()), ["dist", "empty", "large"], "nothing is left behind");
    let mode =
        |path: &str| fs::metadata(root.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("empty"), mode("dist")), (0o644, 0o755));
}

#[test]
fn a_directory_must_exist() {
    let root = TempDir::new().unwrap();
    let text = format!("file://{}/missing", root.path().display());
    let refusal = Destination::parse(&text).unwrap().open(no_s3).unwrap_err();
    assert_eq!((refusal.code, refusal.at), (Code::GateUnavailable, text));
}

#[test]
fn links_and_special_files_are_not_followed() {
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let at = |name: &str| root.path().join(name);
    fs::write(outside.path().join("file"), CONTENT).unwrap();
    symlink(outside.path(), at("directory-link")).unwrap();
    symlink(outside.path().join("file"), at("file-link")).unwrap();
    symlink(outside.path().join("new"), at("dangling-link")).unwrap();
    symlink("file-link", at("relative-link")).unwrap();
    fs::create_dir(at("directory")).unwrap();
    fs::write(at("plain"), CONTENT).unwrap();
    let pipe = std::process::Command::new("mkfifo").arg(at("pipe")).status().unwrap();
    assert!(pipe.success());

    let place = directory(root.path());
    for name in [
        "directory-link/file",
        "directory-link/new",
        "file-link",
        "dangling-link",
        "relative-link",
        "directory",
        "plain/file",
        "pipe",
    ] {
        let refusal = put(&place, name, CONTENT).unwrap_err();
        assert_eq!(refusal.code, Code::GateDestinationConflict, "{name}: {refusal}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "nothing was written outside");
}

/// `gate-symlink-race`: a directory on the way becomes a link out and a directory again, all the time.
#[test]
fn a_directory_that_flips_into_a_link_leads_nowhere_else() {
    const TRIES: usize = 1_000;
    let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let place = directory(root.path());
    let [way, link] = ["way", "link"].map(|name| root.path().join(name));
    fs::create_dir(&way).unwrap();
    symlink(outside.path(), &link).unwrap();
    let flip = || {
        let exchange = rustix::fs::RenameFlags::EXCHANGE;
        rustix::fs::renameat_with(rustix::fs::CWD, &way, rustix::fs::CWD, &link, exchange).unwrap();
    };
    // both, for certain
    assert_eq!(put(&place, "way/first", CONTENT), Ok(Put::Written));
    flip();
    let refusal = put(&place, "way/second", CONTENT).unwrap_err();
    assert_eq!(refusal.code, Code::GateDestinationConflict, "{refusal}");
    let puts: Vec<_> = thread::scope(|scope| {
        let (done, ended) = channel::<()>();
        scope.spawn(move || {
            while ended.try_recv() == Err(TryRecvError::Empty) {
                flip();
            }
        });
        let puts = (0..TRIES).map(|n| put(&place, &format!("way/file-{n}"), CONTENT)).collect();
        drop(done);
        puts
    });
    for put in puts {
        // a link, or nothing that could be read back at the moment
        let codes = [Code::GateDestinationConflict, Code::ArtDigestMismatch, Code::GateUnavailable];
        assert!(put.as_ref().err().is_none_or(|refusal| codes.contains(&refusal.code)), "{put:?}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "nothing was written outside");
}

#[test]
fn of_many_writers_one_wins() {
    let root = TempDir::new().unwrap();
    let place = directory(root.path());
    let contents: Vec<Vec<u8>> = (0..16_u8).map(|n| vec![n; 100_000]).collect();
    let puts: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            contents.iter().map(|content| scope.spawn(|| put(&place, "x/file", content))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let written = fs::read(root.path().join("x/file")).unwrap();
    for (content, put) in contents.iter().zip(puts) {
        match put {
            Ok(put) => assert_eq!((put, content), (Put::Written, &written)),
            Err(refusal) => assert_eq!(refusal.code, Code::GateDestinationConflict),
        }
    }
    assert!(contents.contains(&written));
    assert_eq!(fs::read_dir(root.path().join("x")).unwrap().count(), 1);
}

/// `gate-destination-exists`.
#[test]
fn a_bucket_keeps_the_rules() {
    let Some((destination, vars)) = real_bucket("rules") else { return };
    keeps_the_rules(&bucket(&destination, &vars));
}

#[test]
fn wrong_credentials_are_refused() {
    let Some((destination, vars)) = real_bucket("credentials") else { return };
    for (wrong, code) in [
        ("AWS_SECRET_ACCESS_KEY", "SignatureDoesNotMatch"),
        // where Amazon says InvalidAccessKeyId
        ("AWS_ACCESS_KEY_ID", "NotSignedUp"),
    ] {
        let mut vars = vars.clone();
        vars.insert(wrong, "wrong".to_owned());
        let refusal = put(&bucket(&destination, &vars), "file", CONTENT).unwrap_err();
        assert_eq!(refusal.code, Code::GateUnavailable);
        assert!(refusal.found.contains(code), "{refusal}");
    }
    assert_eq!(there(&bucket(&destination, &vars), "file"), None);
}

#[test]
fn the_server_itself_does_not_overwrite() {
    let Some((destination, vars)) = real_bucket("conditional") else { return };
    assert_eq!(put(&bucket(&destination, &vars), "file", CONTENT), Ok(Put::Written));
    for (content, put_again) in
        [(CONTENT, Ok(Put::AlreadyThere)), (OTHER, Err(Code::GateDestinationConflict))]
    {
        // the first look finds nothing: as if the file came in between
        let server = vars["AWS_ENDPOINT_URL"].strip_prefix("http://").unwrap().parse().unwrap();
        let (endpoint, requests) =
            serve(vec![Answer::Text(NOTHING), Answer::Tunnel(server), Answer::Tunnel(server)]);
        let mut vars = vars.clone();
        vars.insert("AWS_ENDPOINT_URL", endpoint);
        let put = put(&bucket(&destination, &vars), "file", content);
        assert_eq!(put.map_err(|refusal| refusal.code), put_again);
        drop(requests);
    }
    assert_eq!(there(&bucket(&destination, &vars), "file").unwrap().0, digests(CONTENT));
}

#[test]
fn a_server_that_is_gone_leaves_it_undecided() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let place = bucket("s3://bucket/x", &vars(&format!("http://{gone}")));
    let refusal = put(&place, "file", CONTENT).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal}");
    assert_eq!(refusal.at, "artifact file at s3://bucket/x");
}

const NOTHING: &str =
    "404 Not Found\r\ncontent-length: 37\r\n\r\n<Error><Code>NoSuchKey</Code></Error>";
const NO_BUCKET: &str =
    "404 Not Found\r\ncontent-length: 40\r\n\r\n<Error><Code>NoSuchBucket</Code></Error>";
const DONE: &str = "200 OK\r\ncontent-length: 0\r\n\r\n";
const SAME: &str = "200 OK\r\ncontent-length: 17\r\n\r\nthe released file";
const CORRUPTED: &str = "200 OK\r\ncontent-length: 17\r\n\r\nthe released fiLe";
const LONGER: &str = "200 OK\r\ncontent-length: 18\r\n\r\nthe released file!";
const CUT_OFF: &str = "200 OK\r\ncontent-length: 17\r\n\r\nthe rel";
const BUSY: &str = "503 Slow Down\r\ncontent-length: 0\r\n\r\n";
const THERE: &str = "412 Precondition Failed\r\ncontent-length: 0\r\n\r\n";
const BAD_DIGEST: &str =
    "400 Bad Request\r\ncontent-length: 37\r\n\r\n<Error><Code>BadDigest</Code></Error>";
const ELSEWHERE: &str =
    "307 Temporary Redirect\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
const HOSTILE: &str =
    "403 Forbidden\r\ncontent-length: 34\r\n\r\n<Code>Access\x1b[2J<b>Denied\n\n</Code>";

/// Head and body of a request.
type Request = (String, Vec<u8>);

/// What one connection gets.
#[derive(Clone, Copy)]
enum Answer {
    Text(&'static str),
    Tunnel(SocketAddr),
    HangUp,
}

/// A server with one answer per connection; it hands over the requests.
fn serve(answers: Vec<Answer>) -> (String, Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            match answer {
                Answer::Text(text) => {
                    // first of all, so that who has the answer finds the request here too
                    drop(sender.send(receive(&mut stream)));
                    let text = text.replacen("\r\n", "\r\nconnection: close\r\n", 1);
                    // a client that broke off its body waits for no answer
                    drop(write!(stream, "HTTP/1.1 {text}"));
                }
                Answer::Tunnel(server) => tunnel(&stream, server),
                Answer::HangUp => {}
            }
        }
    });
    (endpoint, receiver)
}

fn receive(stream: &mut TcpStream) -> Request {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
    let mut body = Vec::new();
    stream.take(length.parse().unwrap()).read_to_end(&mut body).unwrap();
    (head, body)
}

fn tunnel(client: &TcpStream, server: SocketAddr) {
    let server = TcpStream::connect(server).unwrap();
    let pass = |mut from: TcpStream, mut to: TcpStream| move || io::copy(&mut from, &mut to);
    thread::spawn(pass(client.try_clone().unwrap(), server.try_clone().unwrap()));
    thread::spawn(pass(server, client.try_clone().unwrap()));
}

/// What becomes of a file that is put while a server gives these answers.
fn put_at(answers: &[Answer]) -> (Result<Put, Refusal>, Vec<Request>) {
    let (endpoint, requests) = serve(answers.to_vec());
    let put = put(&bucket("s3://bucket/x", &vars(&endpoint)), "file", CONTENT);
    (put, requests.try_iter().collect())
}

#[test]
fn the_server_is_told_what_to_expect() {
    let (put, requests) = put_at(&[NOTHING, DONE, SAME].map(Answer::Text));
    assert_eq!(put, Ok(Put::Written));
    let (head, body) = &requests[1];
    assert!(head.starts_with("PUT /bucket/x/file?X-Amz-Algorithm=AWS4-HMAC-SHA256&"), "{head}");
    assert!(
        head.contains(
            "SignedHeaders=content-length%3Bhost%3Bif-none-match%3Bx-amz-checksum-sha256"
        ),
        "{head}"
    );
    assert!(head.contains("\r\nif-none-match: *\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-length: 17\r\n"), "{head}");
    let checksum = custody_core::encoding::base64(digests(CONTENT).sha256.as_bytes());
    assert!(head.contains(&format!("\r\nx-amz-checksum-sha256: {checksum}\r\n")), "{head}");
    assert_eq!(body, CONTENT);
    assert!(requests[2].0.contains("\r\naccept-encoding: identity\r\n"), "{}", requests[2].0);
}

/// `gate-readback`, `art-content-encoding`.
#[test]
fn what_comes_back_is_not_believed() {
    for (answers, code, found) in [
        (&[NOTHING, DONE, CORRUPTED][..], Code::ArtDigestMismatch, "of 17 bytes"),
        (&[NOTHING, DONE, LONGER], Code::ArtDigestMismatch, "more than 17 bytes"),
        (&[NOTHING, DONE, NOTHING], Code::ArtDigestMismatch, "nothing"),
        (&[NOTHING, BAD_DIGEST], Code::ArtDigestMismatch, "HTTP 400 BadDigest"),
        (&[NOTHING, THERE, CORRUPTED], Code::GateDestinationConflict, "of 17 bytes"),
        (&[CORRUPTED], Code::GateDestinationConflict, "of 17 bytes"),
        (&[NO_BUCKET], Code::GateUnavailable, "HTTP 404 NoSuchBucket"),
        (&[ELSEWHERE], Code::GateUnavailable, "HTTP 307"),
        (&[HOSTILE], Code::GateUnavailable, "HTTP 403 Access2JbDenied"),
        (
            &[NOTHING, DONE, CUT_OFF, CUT_OFF, CUT_OFF, CUT_OFF, CUT_OFF],
            Code::GateUnavailable,
            "(5 times)",
        ),
        (&[BUSY, BUSY, BUSY, BUSY, BUSY], Code::GateUnavailable, "HTTP 503 (5 times)"),
    ] {
        let answers: Vec<_> = answers.iter().copied().map(Answer::Text).collect();
        let (put, requests) = put_at(&answers);
        let refusal = put.unwrap_err();
        assert_eq!(requests.len(), answers.len(), "{refusal}");
        assert_eq!(refusal.code, code, "{refusal}");
        assert!(refusal.found.contains(found), "{refusal}");
    }
}

#[test]
fn passing_trouble_passes() {
    use Answer::{HangUp, Text};
    let (put, requests) = put_at(&[
        HangUp,
        Text(BUSY),
        Text(NOTHING),
        Text(BUSY),
        Text(DONE),
        Text(CUT_OFF),
        Text(SAME),
    ]);
    assert_eq!(put, Ok(Put::Written));
    assert!(requests.iter().all(|(head, body)| head.starts_with("GET") || body == CONTENT));
    // the answer to the first attempt was lost, but it got through
    let (put, _) = put_at(&[Text(NOTHING), HangUp, Text(THERE), Text(SAME)]);
    assert_eq!(put, Ok(Put::AlreadyThere));
}

#[test]
fn the_last_bytes_are_held_back() {
    let content = vec![7; 500_000];
    let (endpoint, requests) = serve(vec![Answer::Text(NOTHING), Answer::Text(DONE)]);
    let place = bucket("s3://bucket/x", &vars(&endpoint));
    let refusal =
        place.put(&name("file"), &mut file(&content), &digests(OTHER), 500_000).unwrap_err();
    assert_eq!(refusal.code, Code::GateInputChanged, "{refusal}");
    assert!(refusal.found.contains(&digests(&content).sha256.to_string()), "{refusal}");
    let [_, (head, body)] =
        [(); 2].map(|()| requests.recv_timeout(Duration::from_secs(10)).unwrap());
    assert!(head.contains("\r\ncontent-length: 500000\r\n"), "{head}");
    assert!(body.len() < 500_000, "all {} bytes were sent", body.len());
}

#[test]
fn what_one_request_cannot_carry_is_refused() {
    let (endpoint, _requests) = serve(vec![Answer::Text(NOTHING)]);
    let place = bucket("s3://bucket/x", &vars(&endpoint));
    let size = (5 << 30) + 1;
    let refusal =
        place.put(&name("file"), &mut file(CONTENT), &digests(CONTENT), size).unwrap_err();
    assert_eq!(refusal.code, Code::GateDestinationForbidden, "{refusal}");
}
