//! What people write.

use std::sync::OnceLock;

use custody_core::digest::{Sha256, Sha512};
use custody_core::encoding::{base64, base64_decode, hex, hex_decode};
use custody_core::envelope::{Payload as _, PolicyText, StatementId};
use custody_core::key::KeyId;
use custody_core::name::{ArtifactName, Pattern};
use custody_core::statement::{
    Label, Manifest, Pipeline as PipelineRef, PolicyRef, Request, Statement,
};
use custody_core::time::Time;
use custody_run::destination::Destination;
use custody_run::pipeline::Pipeline;
use custody_verify::{Policy, PolicyChain};
use custody_world::{at, honest, nonce, policy_envelope, release_id, source};

/// A policy is read or refused at a place in its text, whoever signed it.
pub(crate) fn policy(data: &[u8]) {
    let Ok(PolicyText(text)) = PolicyText::parse(data) else { return };
    match Policy::parse(&text) {
        Ok(policy) => {
            let keys = policy.keyring();
            for name in policy.products.keys() {
                policy.product(name).expect("a product of the policy");
            }
            let envelope = policy_envelope(&text, &["alice", "bob"]);
            if let Ok(chain) = PolicyChain::pinned(envelope.id(), &envelope) {
                assert!(keys.get(&custody_world::Key::of("alice").public.id()).is_some());
                assert_eq!(chain.newest().0, envelope.id());
            }
        }
        Err(fault) => {
            assert!(fault.line >= 1 && fault.column >= 1, "{fault}");
            assert!(fault.line <= text.lines().count().max(1) + 1, "{fault}");
        }
    }
}

/// Tasks of a pipeline that is read are statements that are read again.
pub(crate) fn pipeline(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let Ok(pipeline) = Pipeline::parse(text) else { return };
    for phase in pipeline.phases() {
        let mut count = 0_u32;
        let planned = pipeline.plan(
            &request(phase),
            std::slice::from_ref(earlier()),
            StatementId(Sha256::of(b"authorization")),
            "scheduler@hello",
            at(1_000),
            || {
                count += 1;
                nonce(&count.to_string())
            },
        );
        for task in planned.unwrap_or_default() {
            let statement = Statement::from(task);
            let json = statement.to_json();
            assert_eq!(Statement::parse(json.as_bytes()), Ok(statement), "{json}");
        }
    }
}

/// A build before, which made `dist/hello` among others.
fn earlier() -> &'static (StatementId, Manifest) {
    static EARLIER: OnceLock<(StatementId, Manifest)> = OnceLock::new();
    EARLIER.get_or_init(|| {
        let world = honest();
        (world.id("old/build/manifest"), world.get_manifest("old/build/manifest"))
    })
}

fn request(phase: &Label) -> Request {
    Request {
        release: release_id("1.1.0"),
        phase: phase.clone(),
        source: source("new"),
        pipeline: PipelineRef {
            path: "pipeline.toml".parse().expect("a name"),
            sha256: Sha256::of(b"pipeline"),
        },
        policy: PolicyRef { version: 1, id: StatementId(Sha256::of(b"policy")) },
        builds_on: Vec::new(),
        parameters: vec![
            ("level".into(), "{version} $(id) \" \t ../..".into()),
            ("empty".into(), String::new()),
        ],
        created: at(0),
        expires: at(80_000),
        nonce: nonce("request"),
    }
}

/// A line with a pattern and one with a name: both are the same after they were written, and matching
/// says what the definition says.
pub(crate) fn artifact_name(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let (pattern, name) = text.split_once('\n').unwrap_or((text, text));
    let (pattern, name) = (pattern.parse::<Pattern>(), name.parse::<ArtifactName>());
    if let Ok(pattern) = &pattern {
        assert_eq!(pattern.to_string().parse().as_ref(), Ok(pattern));
    }
    let Ok(name) = name else { return };
    assert_eq!(name.to_string().parse().as_ref(), Ok(&name));
    assert!(std::path::Path::new(name.as_str()).components().all(is_normal), "{name}");
    assert!(name.as_str().ends_with(name.file_name()));
    let itself = name.as_str().parse::<Pattern>().expect("a name is a pattern");
    assert!(itself.matches(&name));
    let Ok(pattern) = pattern else { return };
    let segments = |text: &'_ str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
    let expected = path_fits(&segments(pattern.as_str()), &segments(name.as_str()));
    assert_eq!(pattern.matches(&name), expected, "{pattern} {name}");
}

fn is_normal(component: std::path::Component<'_>) -> bool {
    matches!(component, std::path::Component::Normal(_))
}

/// The definition of matching, by a table of all pairs of beginnings.
fn path_fits(pattern: &[String], name: &[String]) -> bool {
    fits(
        pattern,
        name,
        |part| part == "**",
        |part, segment| {
            let (part, segment): (Vec<char>, Vec<char>) =
                (part.chars().collect(), segment.chars().collect());
            fits(&part, &segment, |c| *c == '*', |a, b| a == b)
        },
    )
}

/// Whether all of `text` fits, where a `star` stands for any number of items.
fn fits<T>(
    pattern: &[T],
    text: &[T],
    star: impl Fn(&T) -> bool,
    one: impl Fn(&T, &T) -> bool,
) -> bool {
    let mut table = vec![vec![false; text.len() + 1]; pattern.len() + 1];
    table[0][0] = true;
    for (i, part) in pattern.iter().enumerate() {
        for j in 0..=text.len() {
            table[i + 1][j] = if star(part) {
                table[i][j] || (j > 0 && table[i + 1][j - 1])
            } else {
                j > 0 && table[i][j - 1] && one(part, &text[j - 1])
            };
        }
    }
    table[pattern.len()][text.len()]
}

/// A destination has one text.
pub(crate) fn destination(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    if let Ok(destination) = Destination::parse(text) {
        assert_eq!(destination.to_string(), text);
    }
}

/// A moment has one text, and a second one moment.
pub(crate) fn time(data: &[u8]) {
    if let Some(time) = str::from_utf8(data).ok().and_then(|text| text.parse::<Time>().ok()) {
        assert_eq!(time.to_string().as_bytes(), data);
    }
    let Some(seconds) = data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)) else { return };
    for seconds in [seconds, seconds >> 24, seconds >> 28] {
        if let Some(time) = Time::from_unix(seconds) {
            assert_eq!(time.to_string().parse(), Ok(time));
            assert!(time.plus(seconds) >= time);
            assert_eq!(time.plus(1).since(time), u64::from(time.plus(1) != time));
        }
    }
}

/// Digests, ids and hexadecimal have one text each, and base64 has two alphabets.
pub(crate) fn digest(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let written = [
        text.parse::<Sha256>().ok().map(|digest| digest.to_string()),
        text.parse::<Sha512>().ok().map(|digest| digest.to_string()),
        text.parse::<KeyId>().ok().map(|id| id.to_string()),
        text.parse::<StatementId>().ok().map(|id| id.to_string()),
        hex_decode(text).map(|bytes| hex(&bytes)),
    ];
    for written in written.into_iter().flatten() {
        assert_eq!(written, text);
    }
    // DSSE has readers take both alphabets
    if let Ok(bytes) = base64_decode(text) {
        assert_eq!(base64(&bytes), text.replace('-', "+").replace('_', "/"));
    }
}
