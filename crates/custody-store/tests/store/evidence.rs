use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Signature};
use custody_core::limits::SIGNATURES;
use custody_store::{Added, Filter, Kind, Link, Relation, Store};

use crate::world::{self, Release, foreign, key, signature};

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    (dir, store)
}

#[test]
fn what_is_added_is_read_back_by_this_and_the_next_process() {
    let (dir, store) = store();
    let all = Release::new("a").all();
    assert_eq!(store.add(&all).unwrap(), Added { new: all.len(), ..Added::default() });
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.list(Filter::default()).unwrap(), all);
    let absent = foreign("absent").id();
    let wanted = [all[3].id(), absent, all[0].id()];
    assert_eq!(
        store.get_many(&wanted).unwrap(),
        [Some(all[3].clone()), None, Some(all[0].clone())]
    );
    assert!(store.contains(all[1].id()).unwrap() && !store.contains(absent).unwrap());
}

#[test]
fn adding_again_changes_nothing() {
    let (_dir, store) = store();
    let all = Release::new("a").all();
    store.add(&all).unwrap();
    let backwards: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(store.add(&backwards).unwrap(), Added { known: all.len(), ..Added::default() });
    assert_eq!(store.list(Filter::default()).unwrap(), all);
}

#[test]
fn signatures_of_one_statement_come_together() {
    let (_dir, store) = store();
    let first = world::policy(1);
    let mut second =
        Envelope::parse(first.to_json().replace(&key(1).id().to_string(), "").as_bytes()).unwrap();
    second.add_signature(signature(2, &first));
    assert_eq!(second.id(), first.id());
    assert_eq!(store.add(std::slice::from_ref(&first)).unwrap().new, 1);
    assert_eq!(
        store.add(std::slice::from_ref(&second)).unwrap(),
        Added { merged: 1, ..Added::default() }
    );
    let merged = store.get(first.id()).unwrap().unwrap();
    assert_eq!(merged.signatures().len(), 3);
    assert_eq!(store.add(&[first, second]).unwrap(), Added { known: 2, ..Added::default() });
    let by_second = store.links_to(&key(2).id().to_string().parse().unwrap(), None).unwrap();
    assert_eq!(by_second, [Link { relation: Relation::Signer, source: merged.id() }]);
}

#[test]
fn what_could_not_be_read_back_is_refused_and_nothing_with_it_is_added() {
    let (_dir, store) = store();
    let good = world::policy(1);
    let unsigned = Envelope::unsigned::<custody_core::envelope::PolicyText>(b"version = 2");
    let refusal = store.add(&[good.clone(), unsigned]).unwrap_err();
    assert_eq!(refusal.code, Code::EnvNoSignature);
    assert!(!store.contains(good.id()).unwrap());

    store.add(std::slice::from_ref(&good)).unwrap();
    let mut crowded = good.clone();
    for i in 0..u8::try_from(SIGNATURES).unwrap() {
        crowded.add_signature(Signature { keyid: None, sig: vec![i] });
    }
    let other = world::policy(2);
    assert_eq!(store.add(&[other.clone(), crowded]).unwrap_err().code, Code::ParseCountExceeded);
    assert_eq!(store.get(good.id()).unwrap().unwrap(), good);
    assert!(!store.contains(other.id()).unwrap());
}

#[test]
fn lists_go_by_kind_and_page() {
    let (_dir, store) = store();
    let release = Release::new("a");
    let strange = foreign("hello");
    store.add(std::slice::from_ref(&strange)).unwrap();
    store.add(&release.all()).unwrap();
    let list = |filter: Filter| store.list(filter).unwrap();
    let tasks = Filter { kind: Some(Kind::Task), ..Filter::default() };
    assert_eq!(list(tasks), [release.build.clone(), release.sign.clone(), release.publish.clone()]);
    let next = Filter { after: Some(release.build.id()), limit: Some(1), ..tasks };
    assert_eq!(list(next), [release.sign]);
    assert_eq!(list(Filter { kind: Some(Kind::Other), ..Filter::default() }), [strange]);
    let nowhere = Filter { after: Some(foreign("absent").id()), ..Filter::default() };
    assert_eq!(store.list(nowhere).unwrap_err().code, Code::ChainLinkMissing);
}

#[test]
fn statements_are_found_by_what_they_name() {
    let (_dir, store) = store();
    let release = Release::new("a");
    store.add(&release.all()).unwrap();
    store.add(&[release.summary()]).unwrap();
    let app = world::artifact("app").digests.sha256;
    assert_eq!(store.manifests_of(&app).unwrap(), [release.built.id(), release.built_again.id()]);
    assert_eq!(store.manifests_of(&Sha256::of(b"other")).unwrap(), []);
    let link = |relation, source: &Envelope| Link { relation, source: source.id() };
    let used = [link(Relation::Input, &release.signed)];
    assert_eq!(store.links_to(&app, Some(Relation::Input)).unwrap(), used);
    assert_eq!(
        store.links_to(&release.build.id().0, None).unwrap(),
        [
            link(Relation::ManifestTask, &release.built),
            link(Relation::ManifestTask, &release.built_again),
            link(Relation::ResolutionTask, &release.resolution),
            link(Relation::TaskTask, &release.sign),
        ]
    );
    let signed_app = world::artifact("app.signed").digests.sha256;
    let verified = store.links_to(&signed_app, Some(Relation::Verified)).unwrap();
    assert_eq!(verified, [link(Relation::Verified, &release.summary())]);
}
