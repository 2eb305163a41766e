use custody_core::Code;
use custody_core::time::Time;
use custody_store::{Floor, Store, Trust};

use crate::world::{foreign, policy};

#[test]
fn the_pin_is_set_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    assert_eq!(store.trust().unwrap(), Trust::default());
    store.pin(policy(1).id()).unwrap();
    store.pin(policy(1).id()).unwrap();
    assert_eq!(store.pin(policy(2).id()).unwrap_err().code, Code::PolicyUntrusted);
    drop(store);
    let store = Store::create(dir.path()).unwrap();
    assert_eq!(store.trust().unwrap().pin, Some(policy(1).id()));
}

#[test]
fn the_floor_only_rises() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.pin(policy(1).id()).unwrap();
    let time = |seconds| Time::from_unix(seconds).unwrap();
    let floor = |version| Floor { version, policy: policy(version).id() };
    let raise = |floor, seconds| store.raise_floor(floor, Some(time(seconds)));
    let trust = |version, seconds| Trust {
        pin: Some(policy(1).id()),
        floor: Some(floor(version)),
        time: Some(time(seconds)),
    };
    assert_eq!(raise(floor(2), 50).unwrap(), trust(2, 50));
    assert_eq!(raise(floor(1), 40).unwrap(), trust(2, 50));
    assert_eq!(raise(floor(1), 60).unwrap(), trust(2, 60));
    assert_eq!(raise(floor(3), 10).unwrap(), trust(3, 60));
    let two_truths = Floor { version: 3, policy: foreign("x").id() };
    assert_eq!(raise(two_truths, 99).unwrap_err().code, Code::PolicyEquivocation);
    let absurd = Floor { version: u64::MAX, policy: foreign("x").id() };
    assert_eq!(raise(absurd, 99).unwrap_err().code, Code::PolicyInvalid);
    assert_eq!(store.trust().unwrap(), trust(3, 60));
}
