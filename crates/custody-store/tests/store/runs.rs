use custody_core::Code;
use custody_store::{Run, Share, Store};

use crate::world::{Release, manifest};

#[test]
fn one_task_runs_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, other) = (Store::create(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    let release = Release::new("a");
    let task = release.build.id();
    let claim = store.begin_run(task, "worker 1", Share::Whole).unwrap();
    assert_eq!(claim.interrupted(), None);
    for second in [&store, &other] {
        let refusal = second.begin_run(task, "worker 2", Share::Whole).unwrap_err();
        assert_eq!((refusal.code, refusal.found.as_str()), (Code::StoreLocked, "worker 1"));
    }
    assert!(other.begin_run(release.sign.id(), "worker 2", Share::Whole).is_ok());
    assert_eq!(
        store.finish_run(&claim, &release.signed).unwrap_err().code,
        Code::ChainTaskMismatch
    );
    store.finish_run(&claim, &release.built).unwrap();
    assert!(
        store.contains(release.built.id()).unwrap()
            && !store.contains(release.signed.id()).unwrap()
    );
    assert_eq!(
        store.finish_run(&claim, &release.built_again).unwrap_err().code,
        Code::GateAlreadyExecuted
    );
    for second in [&store, &other] {
        assert_eq!(
            second.begin_run(task, "worker 2", Share::Whole).unwrap_err().code,
            Code::GateAlreadyExecuted
        );
    }
    let done = Run { task, who: "worker 1".into(), manifest: Some(release.built.id()) };
    assert_eq!(other.run(task).unwrap(), Some(done));
    assert_eq!(other.runs().unwrap().len(), 2);
}

#[test]
fn a_run_that_was_given_up_is_taken_over_knowingly() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let release = Release::new("a");
    drop(store.begin_run(release.build.id(), "worker 1", Share::Whole).unwrap());
    let claim = store.begin_run(release.build.id(), "worker 2", Share::Whole).unwrap();
    assert_eq!(claim.interrupted(), Some("worker 1"));
    store.finish_run(&claim, &release.built).unwrap();
}

#[test]
fn of_many_that_want_one_task_one_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    for round in 0..20 {
        let task = crate::world::foreign(&round.to_string()).id();
        let finished = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|i| {
                    let store = &store;
                    scope.spawn(move || {
                        let claim = store.begin_run(task, "thread", Share::Whole).ok()?;
                        store.finish_run(&claim, &manifest(task, "app", &[], &i.to_string())).ok()
                    })
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).count()
        });
        assert_eq!(finished, 1, "round {round}");
        assert_eq!(store.links_to(&task.0, None).unwrap().len(), 1);
    }
}

/// Several machines do one task, each for itself; one and the same does not do it twice at once.
#[test]
fn machines_that_share_a_task_claim_their_parts_apart() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let release = Release::new("a");
    let task = release.build.id();
    let first = store.begin_run(task, "worker 1", Share::Part).unwrap();
    let second = Store::open(dir.path()).unwrap();
    let refusal = second.begin_run(task, "worker 1", Share::Part).unwrap_err();
    assert_eq!((refusal.code, refusal.found.as_str()), (Code::StoreLocked, "worker 1"));
    let other = second.begin_run(task, "worker 2", Share::Part).unwrap();
    store.finish_run(&first, &release.built).unwrap();
    second.finish_run(&other, &release.built_again).unwrap();
    for (who, manifest) in [("worker 1", &release.built), ("worker 2", &release.built_again)] {
        let run = store.run_of(task, who).unwrap().unwrap();
        assert_eq!((run.who.as_str(), run.manifest), (who, Some(manifest.id())));
    }
    assert_eq!(store.runs().unwrap().len(), 2);
    // a person set its result aside, as only the evidence can say: it begins anew
    drop(first);
    let again = store.begin_run(task, "worker 1", Share::Part).unwrap();
    assert_eq!(again.interrupted(), None);
    assert_eq!(store.run_of(task, "worker 1").unwrap().unwrap().manifest, None);
    drop(again);
    let again = store.begin_run(task, "worker 1", Share::Part).unwrap();
    assert_eq!(again.interrupted(), Some("worker 1"));
}
