//! One file per kind of document. Each says which rules hold for it.

pub(crate) mod authorization;
pub(crate) mod manifest;
pub(crate) mod subject;
pub(crate) mod task;
pub(crate) mod whole;

use alloc::collections::BTreeMap;
use alloc::rc::Rc;

use custody_core::envelope::StatementId;
use custody_core::statement::{Authorization, EarlierManifest, Request};

use crate::policy::{Phase, Policy, Product};

/// What an authorization stands on: found and readable, and checked in a node of its own.
#[derive(Clone, Debug)]
pub(crate) struct Authority<'c> {
    pub(crate) authorization: &'c Authorization,
    pub(crate) request: &'c Request,
    pub(crate) policy: &'c Policy,
    pub(crate) product: &'c Product,
    pub(crate) phase: &'c Phase,
    /// What the request builds on, by manifest.
    pub(crate) earlier: Rc<BTreeMap<StatementId, &'c EarlierManifest>>,
}

/// What a request builds on, by manifest.
pub(crate) fn earlier(request: &Request) -> Rc<BTreeMap<StatementId, &EarlierManifest>> {
    Rc::new(request.builds_on.iter().map(|entry| (entry.manifest, entry)).collect())
}
