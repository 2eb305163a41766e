//! One file per kind of document. Each says which rules hold for it.

pub(crate) mod authorization;
pub(crate) mod manifest;
pub(crate) mod task;

use custody_core::statement::{Authorization, Request};

use crate::policy::{Phase, Policy, Product};

/// What an authorization stands on: found and readable, and checked in a node of its own.
#[derive(Clone, Debug)]
pub(crate) struct Authority<'c> {
    pub(crate) authorization: &'c Authorization,
    pub(crate) request: &'c Request,
    pub(crate) policy: &'c Policy,
    pub(crate) product: &'c Product,
    pub(crate) phase: &'c Phase,
}
