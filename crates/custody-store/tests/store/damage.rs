//! Damage is found or does no harm; it never reads as another value.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use custody_core::envelope::Envelope;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_store::{Filter, Floor, Kind, Link, Relation, Run, Share, Store, Trust};

use crate::world::{Release, closure, ids, policy};

const ROUNDS: u32 = 250;

/// What may speak against a statement must not be missing from what names it. Other links only help
/// to find, and what they hide is a refusal later.
const AGAINST: [Relation; 4] = [
    Relation::SignoffRequest,
    Relation::ManifestTask,
    Relation::IntentTask,
    Relation::ResolutionTask,
];

/// Everything that can be read.
struct Reading {
    trust: Result<Trust, Refusal>,
    runs: Result<Vec<Run>, Refusal>,
    get: Vec<Result<Option<Envelope>, Refusal>>,
    list: Result<Vec<Envelope>, Refusal>,
    closure: Result<Vec<(Kind, Envelope)>, Refusal>,
    links: Vec<Result<Vec<Link>, Refusal>>,
}

fn read(store: &Store, release: &Release) -> Reading {
    let all = ids(&release.all());
    Reading {
        trust: store.trust(),
        runs: store.runs(),
        get: all.iter().map(|id| store.get(*id)).collect(),
        list: store.list(Filter::default()),
        closure: store.closure(&[release.published.id()]),
        links: all.iter().map(|id| store.links_to(&id.0, None)).collect(),
    }
}

fn filled(dir: &Path, release: &Release) {
    let store = Store::create(dir).unwrap();
    store.pin(policy(1).id()).unwrap();
    store.raise_floor(Floor { version: 2, policy: policy(2).id() }, Time::from_unix(9)).unwrap();
    let claim = store.begin_run(release.build.id(), "worker", Share::Whole).unwrap();
    store.add(&release.all()).unwrap();
    // enough for inner pages in every tree
    for i in 0..8 {
        store.add(&Release::new(&format!("other {i}")).all()).unwrap();
    }
    store.finish_run(&claim, &release.built).unwrap();
}

fn against(links: &[Link]) -> Vec<Link> {
    links.iter().filter(|link| AGAINST.contains(&link.relation)).copied().collect()
}

/// What was read, if it is as it should be; nothing, if it was refused as damage.
#[track_caller]
fn honest_or_corrupt<T>(
    found: Result<T, Refusal>,
    honest: impl FnOnce(&T) -> bool,
    bit: usize,
) -> Option<T> {
    match found {
        Ok(value) => {
            assert!(honest(&value), "bit {bit} reads as another value");
            Some(value)
        }
        Err(refusal) => {
            assert_eq!(refusal.code, Code::StoreCorrupt, "bit {bit}: {refusal}");
            None
        }
    }
}

/// Row `sto-bit-flip`.
#[test]
fn a_changed_bit_in_the_database_never_reads_as_another_value() {
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("a");
    filled(dir.path(), &release);
    let path = dir.path().join("custody.sqlite");
    let bytes = fs::read(&path).unwrap();
    assert!(!dir.path().join("custody.sqlite-wal").exists());
    let honest = read(&Store::open(dir.path()).unwrap(), &release);
    let mut refused = 0;
    for round in 0..ROUNDS {
        let bit = usize::try_from(RandomState::new().hash_one(round)).unwrap() % (bytes.len() * 8);
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        let Some(store) = honest_or_corrupt(Store::open(dir.path()), |_| true, bit) else {
            refused += 1;
            continue;
        };
        let found = read(&store, &release);
        honest_or_corrupt(found.trust, |trust| Ok(trust) == honest.trust.as_ref(), bit);
        honest_or_corrupt(found.runs, |runs| Ok(runs) == honest.runs.as_ref(), bit);
        honest_or_corrupt(found.list, |list| Ok(list) == honest.list.as_ref(), bit);
        for (found, honest) in found.get.into_iter().zip(&honest.get) {
            honest_or_corrupt(found, |envelope| Ok(envelope) == honest.as_ref(), bit);
        }
        for (found, honest) in found.links.into_iter().zip(&honest.links) {
            let honest = against(honest.as_ref().unwrap());
            honest_or_corrupt(found, |links| against(links) == honest, bit);
        }
        let closure =
            honest_or_corrupt(found.closure, |closure| Ok(closure) == honest.closure.as_ref(), bit);
        refused += u32::from(closure.is_none());
    }
    eprintln!(
        "{ROUNDS} changed bits in {} bytes: {refused} chains refused, the others whole",
        bytes.len()
    );
    assert!(refused > 0, "the bits hit something");
}

/// Row `sto-torn-write`.
#[test]
fn a_shortened_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("a");
    filled(dir.path(), &release);
    let path = dir.path().join("custody.sqlite");
    let bytes = fs::read(&path).unwrap();
    let lengths =
        (0..bytes.len()).step_by(8192).chain([1, 99, 100, 511, 4095, 4097, bytes.len() - 4096]);
    for length in lengths {
        fs::write(&path, &bytes[..length]).unwrap();
        let read =
            Store::open(dir.path()).and_then(|store| store.closure(&[release.published.id()]));
        assert_eq!(read.map(|_| ()).unwrap_err().code, Code::StoreCorrupt, "{length} bytes");
    }
    fs::write(&path, &bytes).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(ids(&closure(&store, &[release.published.id()])), ids(&release.all()));
}

/// Row `sto-missing-tile`.
#[test]
fn other_files_and_other_versions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Store::open(dir.path()).unwrap_err().code, Code::StoreCorrupt);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "opening makes nothing");
    drop(Store::create(dir.path()).unwrap());
    let path = dir.path().join("custody.sqlite");
    let set = |name: &str, value: i64| {
        rusqlite::Connection::open(&path).unwrap().pragma_update(None, name, value).unwrap();
    };
    for (name, right, wrong) in [
        ("user_version", 3, 4),
        ("user_version", 3, 2),
        ("user_version", 3, 0),
        ("application_id", 0x4355_5354, 0x4355_5355),
    ] {
        set(name, wrong);
        for opened in [Store::open(dir.path()), Store::create(dir.path())] {
            assert_eq!(opened.unwrap_err().code, Code::StoreCorrupt, "{name} {wrong}");
        }
        set(name, right);
        Store::open(dir.path()).unwrap();
    }
    fs::write(&path, "not a database, but long enough to be mistaken for one\n".repeat(100))
        .unwrap();
    assert_eq!(Store::open(dir.path()).unwrap_err().code, Code::StoreCorrupt);
}

/// Transactions that were acknowledged and stand only in SQLite's log: without the generation beside the
/// database, a torn log would read as if they had never been.
/// Rows `sto-torn-write` and `sto-bit-flip`.
#[test]
fn a_torn_or_changed_log_loses_nothing_unnoticed() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let release = Release::new("a");
    filled(dir.path(), &release);
    let store = Store::open(dir.path()).unwrap();
    for i in 0..4 {
        store.add(&Release::new(&format!("in the log {i}")).all()).unwrap();
    }
    let honest = ids(&store.list(Filter::default()).unwrap());
    let file = |name: &str| fs::read(dir.path().join(name)).unwrap();
    let [database, log, generation] =
        ["custody.sqlite", "custody.sqlite-wal", "generation"].map(file);
    assert!(log.len() > 40_000, "the store is open, and its log is there");
    drop(Store::create(other.path()).unwrap());
    let check = |log: &[u8]| {
        fs::write(other.path().join("custody.sqlite"), &database).unwrap();
        fs::remove_file(other.path().join("custody.sqlite-shm")).ok();
        fs::write(other.path().join("custody.sqlite-wal"), log).unwrap();
        fs::write(other.path().join("generation"), &generation).unwrap();
        let found = Store::open(other.path()).and_then(|store| store.list(Filter::default()));
        match found {
            Ok(found) => assert_eq!(ids(&found), honest, "{} bytes", log.len()),
            Err(refusal) => {
                let codes = [Code::StoreRollback, Code::StoreCorrupt];
                assert!(codes.contains(&refusal.code), "{} bytes: {refusal}", log.len());
            }
        }
        Store::open(other.path()).is_ok()
    };
    assert!(check(&log));
    // frames have a header of 24 bytes and a page, after 32 bytes of the whole (SQLite, "WAL format")
    let frames = (32..log.len()).step_by(24 + 4096);
    for length in frames.flat_map(|end| [end - 1, end, end + 1]).chain([0, 1, log.len() - 1]) {
        assert!(!check(&log[..length]), "{length} of {} bytes", log.len());
    }
    for round in 0..60 {
        let bit = usize::try_from(RandomState::new().hash_one(round)).unwrap() % (log.len() * 8);
        let mut damaged = log.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        check(&damaged);
    }
}
