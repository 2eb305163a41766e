//! What statements are asked: does it cover this URI, is it the same file, the same content.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use custody_core::digest::{Digests, Sha256, Sha512};
use custody_core::envelope::StatementId;
use custody_core::key::KeyId;
use custody_core::statement::{
    Artifact, Decision, Downloads, EarlierManifest, Input, Label, Origin, Pipeline, PolicyRef,
    ReleaseId, Request, Revision, Signoff, Source, UsedImage, gate_uri, short_code, worker_uri,
};
use custody_core::time::Time;

fn id(byte: u8) -> StatementId {
    StatementId(Sha256::from_bytes([byte; 32]))
}

fn label(text: &str) -> Label {
    text.parse().unwrap()
}

/// Forty bits of the id, five for each character: as docs/formats/signoff.md has it.
#[test]
fn a_short_code_has_the_first_forty_bits_of_the_id() {
    let of = |first: [u8; 5]| {
        let mut bytes = [0xff; 32];
        bytes[..5].copy_from_slice(&first);
        short_code(StatementId(Sha256::from_bytes(bytes)))
    };
    assert_eq!(of([0; 5]), "AAAA-AAAA");
    assert_eq!(of([0xff; 5]), "9999-9999");
    // 00000 00001 00010 00011 00100 00101 00110 00111
    assert_eq!(of([0x00, 0x44, 0x32, 0x14, 0xc7]), "ABCD-EFGH");
    // 11000 10111 11111 00000 01000 01001 10001 10010
    assert_eq!(of([0xc5, 0xfe, 0x04, 0x26, 0x32]), "2Z9A-JKTU");
}

#[test]
fn labels_are_short_and_plain() {
    for good in ["a", "9", "a.b_c-d+e@f", &"x".repeat(100)] {
        assert_eq!(good.parse::<Label>().unwrap().as_str(), good);
    }
    for bad in ["", ".a", "-a", "@a", "a b", "a/b", "ä", "a\n", &"x".repeat(101)] {
        assert!(bad.parse::<Label>().is_err(), "{bad}");
    }
}

#[test]
fn an_input_gives_what_its_patterns_select_in_its_directory() {
    let patterns = vec!["dist/*".parse().unwrap(), "notes".parse().unwrap()];
    let input = Input { origin: Origin::Task(id(1)), directory: "new".parse().unwrap(), patterns };
    for (place, gives) in [
        ("new/dist/a", true),
        ("new/notes", true),
        ("new/other", false),
        ("new/dist/x/y", false),
        ("old/dist/a", false),
        ("newer/dist/a", false),
        ("new", false),
        ("dist/a", false),
    ] {
        assert_eq!(input.gives(&place.parse().unwrap()), gives, "{place}");
    }
}

#[test]
fn downloads_cover_what_lies_below_and_nothing_that_climbs() {
    let from = vec!["https://a.example/".into(), "https://b.example/one".into()];
    let downloads = Downloads { from, pinned: None };
    for (uri, covered) in [
        ("https://a.example/", true),
        ("https://a.example/x/y?z=1&w=%20", true),
        ("https://a.example/%2f", true),
        ("https://b.example/one", true),
        ("https://b.example/one/two", false),
        ("https://b.example/", false),
        ("https://a.example", false),
        ("http://a.example/x", false),
        ("https://a.example/../x", false),
        ("https://a.example/x..y", false),
        ("https://a.example/x\\y", false),
        ("https://a.example/x#y", false),
        ("https://a.example/x y", false),
        ("https://a.example/é", false),
        ("https://a.example/%2e", false),
        ("https://a.example/%2E", false),
        ("https://a.example/%25", false),
        ("https://a.example/%5c", false),
        ("https://a.example/%00", false),
        ("https://a.example/%1f", false),
        ("https://a.example/%7f", false),
        ("https://a.example/%2", false),
        ("https://a.example/%zz", false),
        ("https://a.example/%20%", false),
    ] {
        assert_eq!(downloads.covers(uri), covered, "{uri}");
    }
}

#[test]
fn bytes_are_the_same_by_size_and_by_every_digest_that_both_have() {
    let artifact = |name: &str, byte: u8, sha512: Option<u8>, size: u64| Artifact {
        name: name.parse().unwrap(),
        digests: Digests {
            sha256: Sha256::from_bytes([byte; 32]),
            sha512: sha512.map(|byte| Sha512::from_bytes([byte; 64])),
        },
        size,
    };
    let one = artifact("a", 1, Some(2), 3);
    for (other, same) in [
        (artifact("b", 1, Some(2), 3), true),
        (artifact("a", 1, None, 3), true),
        (artifact("a", 1, Some(2), 4), false),
        (artifact("a", 9, Some(2), 3), false),
        (artifact("a", 1, Some(9), 3), false),
    ] {
        assert_eq!(one.same_bytes(&other), same, "{other:?}");
        assert_eq!(other.same_bytes(&one), same, "{other:?}");
    }
}

#[test]
fn an_image_is_that_of_its_id_and_of_its_manifest() {
    let digest = |byte: u8| Sha256::from_bytes([byte; 32]);
    let image = |manifest: Option<u8>| UsedImage {
        name: "debian".into(),
        id: digest(1),
        manifest: manifest.map(digest),
        platform: "linux/amd64".into(),
    };
    assert!(image(None).is(&digest(1)) && image(Some(2)).is(&digest(1)));
    assert!(image(Some(2)).is(&digest(2)));
    assert!(!image(None).is(&digest(2)) && !image(Some(2)).is(&digest(3)));
}

#[test]
fn machines_and_gates_have_their_uris() {
    assert_eq!(worker_uri("builder"), "https://custody.dev/worker/builder");
    let key = "ab".repeat(32).parse::<KeyId>().unwrap();
    assert_eq!(gate_uri(&key), format!("https://custody.dev/gate/{}", "ab".repeat(32)));
}

fn request() -> Request {
    let earlier = |byte: u8, artifacts: u64, bytes: u64| EarlierManifest {
        step: label("build"),
        manifest: id(byte),
        artifacts,
        bytes,
    };
    Request {
        release: ReleaseId {
            product: label("hello"),
            version: label("1.0.0"),
            channel: label("release"),
            instance: label("production"),
        },
        phase: label("ship"),
        source: Source {
            uri: "https://git.example.org/hello".into(),
            revision: Revision::Git("1".repeat(40)),
        },
        pipeline: Pipeline {
            path: "pipeline.toml".parse().unwrap(),
            sha256: Sha256::from_bytes([1; 32]),
        },
        policy: PolicyRef { version: 1, id: id(2) },
        builds_on: vec![earlier(3, 2, 40), earlier(4, 3, 2)],
        parameters: vec![("locale".into(), "en".into())],
        created: Time::from_unix(1).unwrap(),
        expires: Time::from_unix(2).unwrap(),
        nonce: "0".repeat(32),
    }
}

#[test]
fn a_sign_off_says_in_what_it_differs_from_the_request() {
    let request = request();
    assert_eq!(request.content(), (5, 42));
    let created = Time::from_unix(1).unwrap();
    let honest =
        Signoff::of(&request, id(9), Decision::Approve, label("bob"), label("releng"), created);
    assert_eq!(honest.difference(&request, id(9)), None);
    let differs = |edit: fn(&mut Signoff)| {
        let mut signoff = honest.clone();
        edit(&mut signoff);
        signoff.difference(&request, id(9))
    };
    let told = |what, expected: &str, found: &str| Some((what, expected.into(), found.into()));
    let other = |byte: u8| id(byte).to_string();
    assert_eq!(differs(|it| it.request = id(8)), told("request", &other(9), &other(8)));
    assert_eq!(differs(|it| it.phase = label("promote")), told("phase", "ship", "promote"));
    let content = "5 artifacts, 42 bytes";
    let found = "6 artifacts, 42 bytes";
    assert_eq!(differs(|it| it.artifacts = 6), told("content", content, found));
    let found = "5 artifacts, 43 bytes";
    assert_eq!(differs(|it| it.bytes = 43), told("content", content, found));
    let parameters = differs(|it| it.parameters[0].1 = "de".into());
    assert_eq!(parameters, told("parameters", r#"{"locale":"en"}"#, r#"{"locale":"de"}"#));
    assert_eq!(differs(|it| it.release.version = label("1.0.1")).unwrap().0, "release");
    assert_eq!(differs(|it| it.source.uri.push('x')).unwrap().0, "source");
}
