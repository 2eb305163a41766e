use custody_core::Code;
use custody_core::envelope::Envelope;
use custody_store::Store;

use crate::world::{Release, closure, foreign, ids};

#[test]
fn a_publication_leads_to_everything_that_is_needed_to_judge_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let (release, other) = (Release::new("a"), Release::new("b"));
    store.add(&other.all()).unwrap();
    store.add(&release.all()).unwrap();
    store.add(&[foreign("x"), release.summary()]).unwrap();
    let found = closure(&store, &[release.published.id()]);
    assert_eq!(ids(&found), ids(&release.all()));
}

#[test]
fn the_first_phase_does_not_need_the_second() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let release = Release::new("a");
    store.add(&release.all()).unwrap();
    let found = closure(&store, &[release.signed.id()]);
    assert_eq!(ids(&found), ids(&release.first_phase()));
}

#[test]
fn every_link_is_followed_and_what_speaks_against_is_gathered() {
    let release = Release::new("a");
    let without = |absent: &Envelope| {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path()).unwrap();
        let kept: Vec<_> =
            release.all().into_iter().filter(|envelope| envelope.id() != absent.id()).collect();
        store.add(&kept).unwrap();
        let found = ids(&closure(&store, &[release.published.id()]));
        store.add(std::slice::from_ref(absent)).unwrap();
        assert_eq!(ids(&closure(&store, &[release.published.id()])), ids(&release.all()));
        found.len()
    };
    // what is only named by others: everything else is still found
    for leaf in [
        &release.refusal,
        &release.withdrawal,
        &release.built_again,
        &release.announced,
        &release.resolution,
    ] {
        assert_eq!(without(leaf), release.all().len() - 1);
    }
    // the join of both phases: only the second one and the policies are left
    assert_eq!(without(&release.signed), 9);
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let refusal = store.closure(&[foreign("x").id()]).unwrap_err();
    assert_eq!(refusal.code, Code::ChainLinkMissing);
    assert!(refusal.at.contains(&foreign("x").id().to_string()));
    assert_eq!(store.closure(&[]).unwrap(), []);
}
