//! A report beside the statements that it judged.

use std::collections::{BTreeMap, BTreeSet};

use custody_core::envelope::{Envelope, Payload as _, StatementId};
use custody_core::statement::{Authorization, Manifest, Origin, Request, Signoff, Statement, Task};
use custody_verify::report::{Node, NodeKind};
use custody_verify::{Evidence, Report};

use crate::tree::Documents;

/// A report, and what the documents in it say. The judge read the same bytes: what a statement says is
/// as good as the checks of its node.
pub(crate) struct Story<'r> {
    pub(crate) report: &'r Report,
    pub(crate) documents: Documents<'r>,
    evidence: &'r Evidence,
    statements: BTreeMap<StatementId, Statement>,
}

impl<'r> Story<'r> {
    pub(crate) fn of(report: &'r Report, evidence: &'r Evidence) -> Self {
        let named: BTreeSet<StatementId> =
            report.nodes().flat_map(|node| node.id.iter().chain(&node.rests_on)).copied().collect();
        let read = |id: StatementId| {
            let envelope = evidence.get(id)?;
            Some((id, Statement::parse(envelope.unverified_payload()).ok()?))
        };
        let statements = named.into_iter().filter_map(read).collect();
        Self { report, documents: Documents::of(report), evidence, statements }
    }

    pub(super) fn envelope(&self, id: StatementId) -> Option<&'r Envelope> {
        self.evidence.get(id)
    }

    pub(super) fn manifest(&self, id: StatementId) -> Option<&Manifest> {
        self.statements.get(&id)?.as_manifest()
    }

    pub(super) fn task(&self, id: StatementId) -> Option<&Task> {
        self.statements.get(&id)?.as_task()
    }

    pub(super) fn authorization(&self, id: StatementId) -> Option<&Authorization> {
        self.statements.get(&id)?.as_authorization()
    }

    pub(super) fn request(&self, id: StatementId) -> Option<&Request> {
        self.statements.get(&id)?.as_request()
    }

    pub(super) fn signoff(&self, id: StatementId) -> Option<&Signoff> {
        self.statements.get(&id)?.as_signoff()
    }

    /// The documents of a kind, in the order of the report.
    pub(super) fn nodes(
        &self,
        kind: NodeKind,
    ) -> impl Iterator<Item = (StatementId, &'r Node)> + use<'r> {
        let nodes = self.report.nodes();
        nodes.filter(move |node| node.kind == kind).filter_map(|node| Some((node.id?, node)))
    }

    /// What a task takes inputs from: tasks and manifests.
    pub(super) fn origins(&self, task: StatementId) -> Vec<StatementId> {
        let inputs = self.task(task).map(|task| task.inputs.as_slice()).unwrap_or_default();
        let origin = |origin| match origin {
            Origin::Task(id) | Origin::Manifest(id) => id,
        };
        inputs.iter().map(|input| origin(input.origin)).collect()
    }
}
