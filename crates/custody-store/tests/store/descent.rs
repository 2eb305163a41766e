//! What came from something: everything that names it, and nothing else.

use std::collections::BTreeSet;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_store::{Because, Relation, Store};

use crate::world::{Release, artifact, foreign, ids};

fn store(release: &Release) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.add(&release.all()).unwrap();
    store.add(&Release::new("other").all()).unwrap();
    store.add(&[foreign("x"), release.summary()]).unwrap();
    (dir, store)
}

fn found(store: &Store, statements: &[StatementId], files: &[Sha256]) -> BTreeSet<StatementId> {
    let found = store.descent(statements, files).unwrap();
    assert!(found.is_sorted_by_key(|descendant| descendant.arrival));
    found.iter().map(|descendant| descendant.envelope.id()).collect()
}

/// Two releases of this world make the same bytes, so the other one's use of them is among it.
#[test]
fn everything_that_names_a_manifest_descends_from_it() {
    let release = Release::new("a");
    let (_dir, store) = store(&release);
    let all = found(&store, &[release.built.id()], &[]);
    let after = [
        &release.built,
        &release.signed,
        &release.resolution,
        &release.ship,
        &release.ship_approval,
        &release.ship_authorization,
        &release.publish,
        &release.announced,
        &release.done,
        &release.published,
        &release.summary(),
    ];
    for envelope in after {
        assert!(all.contains(&envelope.id()));
    }
    let before = [
        &release.policy,
        &release.request,
        &release.approval,
        &release.authorization,
        &release.build,
    ];
    for envelope in before {
        assert!(!all.contains(&envelope.id()));
    }
    let because = store.descent(&[release.built.id()], &[]).unwrap();
    let because = |envelope: &Envelope| {
        let mut found =
            because.iter().filter(|descendant| descendant.envelope.id() == envelope.id());
        found.next().unwrap().because
    };
    assert_eq!(because(&release.built), Because::Asked);
    assert_eq!(
        because(&release.resolution),
        Because::Names(Relation::ResolutionManifest, release.built.id())
    );
}

#[test]
fn a_sign_off_leads_to_all_that_it_allowed() {
    let release = Release::new("a");
    let (_dir, store) = store(&release);
    let all = found(&store, &[release.approval.id()], &[]);
    for envelope in [
        &release.authorization,
        &release.build,
        &release.built,
        &release.signed,
        &release.published,
    ] {
        assert!(all.contains(&envelope.id()));
    }
    assert!(
        !all.contains(&release.request.id()) && !all.contains(&release.refusal.id()),
        "the control"
    );
    // the end of the chain leads nowhere further
    let end = found(&store, &[release.done.id()], &[]);
    assert_eq!(end, BTreeSet::from([release.done.id()]));
}

#[test]
fn a_statement_that_is_lost_still_leads_to_what_names_it() {
    let release = Release::new("a");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let kept: Vec<_> =
        release.all().into_iter().filter(|envelope| envelope.id() != release.built.id()).collect();
    store.add(&kept).unwrap();
    let all = found(&store, &[release.built.id()], &[]);
    assert!(all.contains(&release.signed.id()) && all.contains(&release.published.id()));
    assert!(!all.contains(&release.built.id()));
    assert!(found(&store, &[StatementId(Sha256::of(b"nobody"))], &[]).is_empty());
    assert!(found(&store, &[], &[Sha256::of(b"nothing")]).is_empty());
}

#[test]
fn bytes_lead_to_who_made_and_who_used_them() {
    let release = Release::new("a");
    let (_dir, store) = store(&release);
    let app = artifact("app").digests.sha256;
    let all = found(&store, &[], &[app]);
    for envelope in [&release.built, &release.built_again, &release.signed, &release.published] {
        assert!(all.contains(&envelope.id()));
    }
    assert!(!all.contains(&release.build.id()), "the task that made it was there before");
    // a task is a file where a decision step makes it
    let task = Sha256::of(release.build.unverified_payload());
    let all = store.descent(&[], &[task]).unwrap();
    let first = all.iter().find(|descendant| descendant.envelope.id() == release.build.id());
    assert_eq!(first.unwrap().because, Because::IsFile(task));
    let all: Vec<Envelope> = all.into_iter().map(|descendant| descendant.envelope).collect();
    assert!(ids(&all).contains(&release.built.id()));
}

#[test]
fn a_lost_link_is_damage_and_not_an_answer() {
    let release = Release::new("a");
    let (dir, store) = store(&release);
    drop(store);
    let path = dir.path().join("custody.sqlite");
    let db = rusqlite::Connection::open(&path).unwrap();
    // as damage to pages of one of the two indexes would leave it
    db.execute_batch(
        "DROP INDEX link_walked; CREATE INDEX link_walked ON link (source) WHERE relation < 12;
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = replace(sql, '< 12', '< 100') WHERE name = 'link_walked'",
    )
    .unwrap();
    db.close().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let refusal = store.descent(&[release.built.id()], &[]).err().unwrap();
    assert_eq!(refusal.code, Code::StoreCorrupt, "{refusal}");
    assert_eq!(refusal.at.rsplit(": ").next(), Some("the links between statements"));
}
