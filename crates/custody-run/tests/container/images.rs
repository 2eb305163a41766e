//! Which image it is: named by its digest, fetched, or an archive that is an input.

use std::fs::{self};
use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::statement::Image;

use super::{
    World, able, add, asked_podman, directory, engines, image, layer, link, podman_done, task,
};

/// `wrk-image-digest`: by its digest an image is found, and no other is taken in its place.
#[test]
fn a_named_image_is_found_by_its_digest_alone() {
    if !able("container digest") {
        return;
    }
    let [mut world, _] = World::both();
    let loaded = world.run(&task("true")).unwrap().0;
    let mut named = task("echo in the image");
    let name = |name: &str, digest: Sha256| Some(Image::Named { name: name.into(), digest });
    // the id, under whatever name
    named.image = name("registry.example.org/any", world.id);
    let (done, place) = world.run(&named).unwrap();
    assert_eq!(place.log, "in the image\n");
    assert_eq!((done.image.id, done.image.name.as_str()), (world.id, "registry.example.org/any"));
    assert_eq!(done.image.manifest, loaded.image.manifest);
    assert!(done.image.manifest.is_some(), "podman reports one");
    // one that is not there, and cannot be fetched: nobody listens on the port
    named.image = name("localhost:1/any", Sha256::of(b"another"));
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
    // in words: which one, why, and how to bring it
    let reference = format!("localhost:1/any@sha256:{}", Sha256::of(b"another"));
    assert_eq!(refusal.expected, format!("image {reference}"));
    assert!(refusal.found.contains("refused") && !refusal.found.contains('{'), "{refusal:?}");
    let storage = world.files.path().join("images/storage");
    let pull = format!("podman --root {} pull {reference}", storage.display());
    assert!(refusal.remedy().contains(&pull), "{}", refusal.remedy());
    // somebody gives the image's name to another: the digest holds
    let (evil, evil_id) = image(&[layer(|tar| add(tar, "etc/evil", 0o644, b"1"))], None);
    let archive = world.files.path().join("evil.tar");
    fs::write(&archive, evil).unwrap();
    podman_done(&world, &["load", "--input", archive.to_str().unwrap()]);
    asked_podman(&world, &["tag", &world.id.to_string(), "registry.example.org/any:latest"]);
    podman_done(&world, &["tag", &evil_id.to_string(), "registry.example.org/any:latest"]);
    named.image = name("registry.example.org/any", world.id);
    named.command[2] = "ls /etc/evil".into();
    let (done, place) = world.run(&named).unwrap();
    assert!(!done.outcome.end.is_success(), "{}", place.log);
    assert_eq!(done.image.id, world.id);
}

/// By its digest an image is found with Docker too.
#[test]
fn docker_finds_a_named_image_by_its_digest_alone() {
    let test = "docker digest";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let mut world = World::new("docker", &image(&[layer(|_| ())], None));
    let mut named = task("echo in the image");
    let name = |name: &str, digest: Sha256| Some(Image::Named { name: name.into(), digest });
    named.image = name("localhost:1/any", world.id);
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "not loaded yet: {refusal:?}");
    world.output(&task("true"));
    let (done, place) = world.run(&named).unwrap();
    assert_eq!(place.log, "in the image\n");
    assert_eq!((done.image.id, done.image.manifest), (world.id, None));
    named.image = name("localhost:1/any", Sha256::of(b"another"));
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable, "{refusal:?}");
}

/// A registry of these documents and nothing else, on this machine. It ends with the test runner.
fn registry(blobs: Vec<(&'static str, Vec<u8>)>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut heads = Vec::new();
            for byte in io::BufReader::new(&mut stream).bytes().map_while(Result::ok) {
                heads.push(byte);
                // TLS is tried first, and begins so
                if heads.ends_with(b"\r\n\r\n") || heads == [0x16] {
                    break;
                }
            }
            let heads = String::from_utf8_lossy(&heads);
            let is_it = |bytes: &[u8]| heads.contains(&format!("/sha256:{} ", Sha256::of(bytes)));
            let blob = blobs.iter().find(|(_, bytes)| is_it(bytes));
            let (kind, bytes) =
                blob.map_or(("text/plain", &b""[..]), |(kind, bytes)| (*kind, bytes));
            let status = if blob.is_some() || heads.contains(" /v2/ ") { 200 } else { 404 };
            let (length, digest) = (bytes.len(), Sha256::of(bytes));
            let answer = format!(
                "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {length}\r\nDocker-Content-Digest: sha256:{digest}\r\n\r\n"
            );
            // whoever hangs up has what it wants
            stream.write_all(answer.as_bytes()).ok();
            if !heads.starts_with("HEAD") {
                stream.write_all(bytes).ok();
            }
        }
    });
    port
}

/// Docker fetches by the digest of a manifest, and one of an index is refused.
#[test]
fn docker_fetches_manifests_and_no_indexes() {
    let test = "docker registry";
    if !able(test) || !engines(test).contains(&"docker") {
        return;
    }
    let layer = layer(|_| ());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        Sha256::of(&layer)
    );
    let described = |kind: &str, bytes: &[u8], more: &str| {
        let (digest, size) = (Sha256::of(bytes), bytes.len());
        format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}{more}}}"#)
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
        described("application/vnd.oci.image.config.v1+json", config.as_bytes(), ""),
        described("application/vnd.oci.image.layer.v1.tar", &layer, "")
    );
    let platform = r#","platform":{"os":"linux","architecture":"amd64"}"#;
    let index_kind = "application/vnd.oci.image.index.v1+json";
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{index_kind}","manifests":[{}]}}"#,
        described(kind, manifest.as_bytes(), platform)
    );
    let [id, of_manifest, of_index] =
        [&config, &manifest, &index].map(|text| Sha256::of(text.as_bytes()));
    let bytes = "application/octet-stream";
    let port = registry(vec![
        (bytes, layer),
        (bytes, config.into_bytes()),
        (kind, manifest.into_bytes()),
        (index_kind, index.into_bytes()),
    ]);
    let mut world = World::new("docker", &image(&[], None));
    let mut named = task("echo in the image");
    let name = format!("localhost:{port}/any");
    for _ in ["fetched", "there already"] {
        named.image = Some(Image::Named { name: name.clone(), digest: of_manifest });
        let (done, place) = world.run(&named).unwrap();
        assert_eq!(place.log, "in the image\n");
        assert_eq!((done.image.id, done.image.manifest), (id, Some(of_manifest)));
        named.image = Some(Image::Named { name: name.clone(), digest: of_index });
        let refusal = world.run(&named).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerImageMismatch, "{refusal:?}");
    }
}

/// A plain runtime keeps no images.
#[test]
fn a_runtime_takes_archives_only() {
    if !able("container runtime") {
        return;
    }
    let [_, mut world] = World::both();
    let mut named = task("true");
    named.image = Some(Image::Named { name: "debian".into(), digest: world.id });
    let refusal = world.run(&named).unwrap_err();
    assert_eq!(refusal.code, Code::GateUnavailable);
    assert!(refusal.expected.contains("archive"), "{refusal:?}");
}

/// Archives that lead outside, contradict themselves or hold several images.
#[test]
fn hostile_archives_are_refused() {
    if !able("container archives") {
        return;
    }
    let refused = |image: &(Vec<u8>, Sha256), why: &str| {
        let mut world = World::new("runc", image);
        let outside = world.files.path().join("outside");
        fs::create_dir(&outside).unwrap();
        let refusal = world.run(&task("true")).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerImageMismatch, "{why}: {refusal:?}");
        assert!(refusal.found.contains(why), "{why}: {refusal:?}");
    };
    let good = layer(|_| ());
    World::new("runc", &image(std::slice::from_ref(&good), None)).output(&task("true"));
    // a link out of the root, and a file behind it
    let through = layer(|tar| link(tar, "out", "/tmp"));
    let behind = layer(|tar| add(tar, "out/custody-was-here", 0o644, b"1"));
    refused(&image(&[through, behind], None), "outside");
    assert!(!Path::new("/tmp/custody-was-here").exists());
    let through = layer(|tar| link(tar, "out", "/tmp"));
    let whiteout = layer(|tar| add(tar, "out/.wh.anything", 0o644, b""));
    refused(&image(&[through, whiteout], None), "outside");
    // another layer than the configuration says
    refused(&image(std::slice::from_ref(&good), Some(vec![Sha256::of(b"another")])), "sha256");
    refused(&image(std::slice::from_ref(&good), Some(vec![])), "0 digests");
    // two images, one name twice, and nothing at all
    let (bytes, id) = image(&[good], None);
    let (one, other) = ("manifest.json", "manifesX.json");
    assert!(one.len() == other.len());
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, one, 0o644, b"[{},{}]");
    refused(&(tar.into_inner().unwrap(), id), "2");
    let mut tar = tar::Builder::new(bytes[..bytes.len() - 1024].to_vec());
    tar.get_mut().clear();
    for _ in 0..2 {
        add(&mut tar, one, 0o644, b"[]");
    }
    refused(&(tar.into_inner().unwrap(), id), "twice");
    refused(&(b"no tar".repeat(200), id), "");
}

/// An OCI layout with a layer that is packed, as `podman save --format oci-archive` writes it; and an
/// index of several images, of which nobody says which is meant.
#[test]
fn oci_layouts_are_read() {
    if !able("container layouts") {
        return;
    }
    let plain = layer(|tar| add(tar, "etc/a", 0o644, b"packed"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    let packed = packed.finish().unwrap();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{}"]}}}}"#,
        Sha256::of(&plain)
    );
    let described = |kind: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"sha256:{}","size":{}}}"#,
            Sha256::of(bytes),
            bytes.len()
        )
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        described("config.v1+json", config.as_bytes()),
        described("layer.v1.tar+gzip", &packed)
    );
    let one = described("manifest.v1+json", manifest.as_bytes());
    let index = |list: &str| format!(r#"{{"schemaVersion":2,"manifests":[{list}]}}"#);
    let inner = index(&format!("{one},{one}"));
    let layout = |index: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        add(&mut tar, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#);
        add(&mut tar, "index.json", 0o644, index.as_bytes());
        for blob in [config.as_bytes(), manifest.as_bytes(), &packed, inner.as_bytes()] {
            add(&mut tar, &format!("blobs/sha256/{}", Sha256::of(blob)), 0o644, blob);
        }
        (tar.into_inner().unwrap(), Sha256::of(config.as_bytes()))
    };
    for engine in ["podman", "runc"] {
        let mut world = World::new(engine, &layout(&index(&one)));
        let (done, place) = world.run(&task("cat /etc/a")).unwrap();
        assert_eq!(place.log, "packed", "{engine}");
        assert_eq!(done.image.id, world.id);
        assert_eq!(done.image.manifest, Some(Sha256::of(manifest.as_bytes())), "{engine}");
        let nested = described("index.v1+json", inner.as_bytes());
        for (bad, why) in
            [(index(&format!("{one},{one}")), "2"), (index(&nested), "an index of several")]
        {
            let refusal = World::new(engine, &layout(&bad)).run(&task("true")).unwrap_err();
            assert_eq!(refusal.code, Code::WorkerImageMismatch, "{engine}: {refusal:?}");
            assert!(refusal.found.contains(why), "{engine}: {refusal:?}");
        }
    }
}

#[test]
fn layers_hide_what_lower_ones_have() {
    if !able("container layers") {
        return;
    }
    let lower = layer(|tar| {
        add(tar, "etc/a", 0o4755, b"lower");
        add(tar, "etc/b", 0o644, b"lower");
        directory(tar, "etc/c/");
        add(tar, "etc/c/d", 0o644, b"lower");
    });
    let mut upper = tar::Builder::new(Vec::new());
    add(&mut upper, "etc/a", 0o4755, b"upper");
    add(&mut upper, "etc/.wh.b", 0o644, b"");
    directory(&mut upper, "etc/c/");
    add(&mut upper, "etc/c/.wh..wh..opq", 0o644, b"");
    add(&mut upper, "etc/c/e", 0o644, b"upper");
    let upper = upper.into_inner().unwrap();
    let both = image(&[lower, upper], None);
    for engine in engines("container layers") {
        let mut world = World::new(engine, &both);
        let log = world.output(&task("cat /etc/a; echo; ls /etc/b 2>/dev/null; ls /etc/c"));
        assert_eq!(log, "upper\ne\n", "{engine}");
    }
}
