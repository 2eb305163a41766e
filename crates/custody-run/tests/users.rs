//! Who commands run as.

use std::sync::atomic::AtomicBool;

use custody_run::execute::{Confiner, User};
use custody_run::users::Users;

#[test]
fn a_user_is_taken_once() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let confiner =
        Confiner { program: env!("CARGO_BIN_EXE_custody-confiner").into(), ..Confiner::default() };
    let [one, other] = [64_101, 64_102].map(|uid| User { uid, gid: uid });
    let go_on = AtomicBool::new(false);
    let users = Users::new(&confiner, &[one, other]).unwrap();
    let first = users.take(&go_on).unwrap();
    let second = users.take(&go_on).unwrap();
    assert_ne!(first.confinement().user, second.confinement().user);
    assert!(users.take(&AtomicBool::new(true)).is_err(), "both are taken");
    drop(first);
    assert_eq!(users.take(&go_on).unwrap().confinement().user, Some(one));
}
