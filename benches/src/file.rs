//! One file of a release, from an indexed store.

use std::num::NonZeroUsize;

use custody_store::Store;
use custody_world::Large;

use crate::clock::{in_turn, row};
use crate::command::{custody, succeed};

pub(crate) fn measure() {
    for tasks in [60, 600, 6_000] {
        let large = Large::of(tasks, NonZeroUsize::new(8).unwrap());
        let directory = tempfile::tempdir().unwrap();
        let store = Store::create(&directory.path().join("store")).unwrap();
        store.add(std::slice::from_ref(&large.policy)).unwrap();
        store.pin(large.policy.id()).unwrap();
        store.add(&large.envelopes).unwrap();
        drop(store);
        let name = &large.files[0].name;
        std::fs::write(directory.path().join(name.as_str()), Large::first_content()).unwrap();
        let line = format!("verify {name} --store store");
        let verify = || succeed(&mut custody(directory.path(), &line));
        let start = || succeed(&mut custody(directory.path(), "--version"));
        let times = in_turn(21, verify, start);
        row(
            &format!("verify one file of a release of {tasks} tasks, from a store"),
            times,
            "`custody --version`",
        );
    }
}
