//! What SLSA's two predicates have in common and our own do not: members may be unset in three ways,
//! and others may add members of their own.
//!
//! SLSA says (<https://slsa.dev/spec/v1.1/provenance#parsing-rules>) that unset, `null` and empty mean
//! the same, and that consumers ignore extension fields. They are named `VENDOR_FIELD`, or by a URI in
//! older versions; SLSA's own names have neither underscore nor colon. A name that has neither, and
//! that SLSA does not define, is refused all the same: it is a member misspelt, or one that a reader of
//! another version would understand otherwise than we do.

use super::parts::Descriptor;
use crate::Refusal;
use crate::json::{Object, Value};

/// An object of SLSA, without the members that are `null`.
pub(super) fn object<'a>(outer: &mut Object<'a>, name: &str) -> Result<Object<'a>, Refusal> {
    outer.object(name).map(Object::without_nulls)
}

/// A descriptor, without the members that are `null`.
pub(super) fn descriptor<'a>(value: Value<'a>, at: &str) -> Result<Descriptor<'a>, Refusal> {
    Descriptor::take(&mut value.into_object(at)?.without_nulls(), at)
}

/// Takes members that SLSA defines and Custody has no use for. What they hold is nobody's here.
pub(super) fn ignore<const N: usize>(object: &mut Object<'_>, names: [&str; N]) {
    for name in names {
        drop(object.optional(name));
    }
}

/// Ends an object of SLSA: extension fields are ignored, other members that nobody asked for refused.
pub(super) fn finish(object: Object<'_>) -> Result<(), Refusal> {
    object.without(is_extension).finish()
}

fn is_extension(name: &str) -> bool {
    name.contains(['_', ':'])
}
