//! Killed at any moment, the store loses nothing acknowledged and shows nothing half-written.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_store::{Filter, Kind, Relation, Store};

use crate::child::{said, start};

const ROUNDS: u32 = 120;

/// What a child said until it was killed, so long after its start however slow the machine is.
fn killed_after(directory: &Path, round: u32, time: Duration) -> Vec<u8> {
    let mut child = start("work", directory, round);
    let mut stdout = child.stdout.take().unwrap();
    let mut said = vec![0];
    stdout.read_exact(&mut said).unwrap();
    sleep(time);
    child.kill().unwrap();
    stdout.read_to_end(&mut said).unwrap();
    child.wait().unwrap();
    said
}

/// A batch is there wholly or not at all: a request with its approval and its task.
fn check_whole(store: &Store, envelopes: &[Envelope]) {
    for request in envelopes.iter().filter(|envelope| Kind::of(envelope) == Kind::Request) {
        let links = store.links_to(&request.id().0, None).unwrap();
        let relations: Vec<_> = links.iter().map(|link| link.relation).collect();
        assert_eq!(relations, [Relation::SignoffRequest, Relation::TaskAuthorization]);
        let sources: Vec<_> = links.iter().map(|link| link.source).collect();
        assert!(store.get_many(&sources).unwrap().iter().all(Option::is_some));
    }
}

/// The artifacts that are visible, each with the bytes that its name promises.
fn visible(store: &Store, known: &BTreeSet<Sha256>) -> BTreeSet<Sha256> {
    let mut found = BTreeSet::new();
    for shard in fs::read_dir(store.directory().join("artifacts/sha256")).unwrap() {
        for file in fs::read_dir(shard.as_ref().unwrap().path()).unwrap() {
            let (shard, file) = (shard.as_ref().unwrap().file_name(), file.unwrap().file_name());
            let sha256 = format!("{}{}", shard.display(), file.display()).parse().unwrap();
            if !known.contains(&sha256) {
                store.copy_artifact(&sha256, io::sink()).unwrap();
            }
            found.insert(sha256);
        }
    }
    found
}

/// Row `sto-kill-append`.
#[test]
fn nothing_acknowledged_is_lost_and_nothing_half_written_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::create(dir.path()).unwrap());
    let (mut last, mut artifacts, mut version) = (None, BTreeSet::new(), 0);
    let mut acknowledged: Vec<StatementId> = Vec::new();
    let (mut cut, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let time = Duration::from_micros(RandomState::new().hash_one(round) % 60_000);
        let stdout = killed_after(dir.path(), round, time);
        left += fs::read_dir(dir.path().join("tmp")).unwrap().count();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(
            fs::read_dir(dir.path().join("tmp")).unwrap().count(),
            0,
            "what was cut off is cleared"
        );
        let new = store.list(Filter { after: last, ..Filter::default() }).unwrap();
        last = new.last().map(Envelope::id).or(last);
        check_whole(&store, &new);
        artifacts = visible(&store, &artifacts);
        let words = said(&stdout);
        cut += usize::from(words.last().is_some_and(|words| words[0] != "finished"));
        for words in words {
            match words[0].as_str() {
                "added" => acknowledged
                    .extend(words[1..].iter().map(|id| id.parse::<StatementId>().unwrap())),
                "put" => assert!(artifacts.contains(&words[1].parse().unwrap())),
                "raised" => version = words[1].parse().unwrap(),
                "begun" => assert!(store.run(words[1].parse().unwrap()).unwrap().is_some()),
                "finished" => {
                    let (task, manifest) = (words[1].parse().unwrap(), words[2].parse().unwrap());
                    assert_eq!(store.run(task).unwrap().unwrap().manifest, Some(manifest));
                    acknowledged.push(manifest);
                }
                other => panic!("{other}"),
            }
        }
        assert!(store.trust().unwrap().floor.map_or(0, |floor| floor.version) >= version);
    }
    let store = Store::open(dir.path()).unwrap();
    assert!(store.get_many(&acknowledged).unwrap().iter().all(Option::is_some));
    for run in store.runs().unwrap() {
        let finished: Vec<_> = store.links_to(&run.task.0, Some(Relation::ManifestTask)).unwrap();
        assert_eq!(finished.first().map(|link| link.source), run.manifest);
    }
    eprintln!(
        "{ROUNDS} kills, {cut} in the middle of something, {left} files cut off; \
         {} statements and {} artifacts acknowledged or whole",
        acknowledged.len(),
        artifacts.len()
    );
    assert!(cut > 10 && acknowledged.len() > 100, "the kills hit the work");
}

/// Row `sto-kill-append`.
#[test]
fn a_creation_that_was_cut_off_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::create(dir.path()).unwrap());
    let path = dir.path().join("custody.sqlite");
    // killed before the schema was committed: SQLite leaves an empty file, or one without tables
    fs::write(&path, b"").unwrap();
    assert!(Store::open(dir.path()).is_err());
    Store::create(dir.path()).unwrap().pin(crate::world::policy(1).id()).unwrap();
    assert!(Store::open(dir.path()).unwrap().trust().unwrap().pin.is_some());
}

#[test]
fn what_is_left_over_in_any_form_is_cleared_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::create(dir.path()).unwrap());
    let tmp = dir.path().join("tmp");
    fs::create_dir_all(tmp.join("directory/inner")).unwrap();
    fs::write(tmp.join("directory/inner/file"), b"x").unwrap();
    fs::write(dir.path().join("precious"), b"x").unwrap();
    std::os::unix::fs::symlink(dir.path().join("precious"), tmp.join("link")).unwrap();
    std::os::unix::fs::symlink(dir.path(), tmp.join("link-to-directory")).unwrap();
    let first = Store::open(dir.path()).unwrap();
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 0);
    assert!(dir.path().join("precious").exists());
    // while somebody is at work, nothing of theirs is cleared
    let staged = first.stage(&b"theirs"[..], false, None).unwrap();
    drop(Store::open(dir.path()).unwrap());
    first.keep(vec![staged]).unwrap();
}
