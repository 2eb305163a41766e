//! People's signatures: SSHSIG, security keys and passkeys.

use custody_world::{Key, signed};

use super::envelope::{case, unsigned, who};
use crate::case::{About, Set};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("people");
    let bob = who("bob", true, &[&Key::of("bob").public]);
    let what = case(signed(unsigned(), &["bob"]).to_json(), 1, &[bob]);
    group.accept("ed25519", About("SSHSIG with Ed25519", &[]), &what);
}
