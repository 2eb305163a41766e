//! One file per kind of document. Each says which rules hold for it.

pub(crate) mod authorization;
pub(crate) mod builders;
pub(crate) mod downloads;
pub(crate) mod environment;
mod image;
pub(crate) mod inputs;
pub(crate) mod manifest;
pub(crate) mod source;
pub(crate) mod subject;
pub(crate) mod summary;
pub(crate) mod task;
pub(crate) mod whole;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::statement::{Authorization, EarlierManifest, Request};

use crate::policy::{Phase, Policy, Product};
use crate::report::Node;

/// What an authorization stands on: found and readable, and checked in a node of its own.
#[derive(Clone, Debug)]
pub(crate) struct Authority<'c> {
    pub(crate) authorization: &'c Authorization,
    pub(crate) request: &'c Request,
    pub(crate) policy: &'c Policy,
    pub(crate) product: &'c Product,
    pub(crate) phase: &'c Phase,
    /// What the request builds on, by manifest.
    pub(crate) earlier: Arc<BTreeMap<StatementId, &'c EarlierManifest>>,
}

/// A manifest or a task that was checked, and what has to be looked at because of it.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) node: Arc<Node>,
    pub(crate) authorization: Option<StatementId>,
    pub(crate) task: Option<StatementId>,
    /// Manifests.
    pub(crate) upstream: Vec<StatementId>,
}

impl Checked {
    /// One that leads nowhere.
    pub(crate) fn dead_end(node: Node) -> Self {
        Self { node: Arc::new(node), authorization: None, task: None, upstream: Vec::new() }
    }
}

/// What to do about a task that has no result yet.
pub(crate) fn to_run(task: StatementId) -> String {
    format!(
        "run it first: custody run {task}; if it ran elsewhere, bring what it made: custody bundle import FILE"
    )
}

/// What a request builds on, by manifest.
pub(crate) fn earlier(request: &Request) -> Arc<BTreeMap<StatementId, &EarlierManifest>> {
    Arc::new(request.builds_on.iter().map(|entry| (entry.manifest, entry)).collect())
}
