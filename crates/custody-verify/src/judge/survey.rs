//! A look at a whole release, done or under way.

use alloc::collections::BTreeSet;
use alloc::format;

use custody_core::envelope::StatementId;

use super::{NO_SUMMARY, Walk};
use crate::report::{Node, NodeKind, Report, Rule};

impl Walk<'_, '_> {
    /// Applies every rule to these manifests and tasks and to all that they rest on. Nothing is
    /// accepted: no file was asked about.
    pub(super) fn survey(mut self, roots: &BTreeSet<StatementId>) -> Report {
        let title = format!("{} documents", roots.len());
        let mut subject = Node::new(NodeKind::Subject, None, title.clone());
        self.basics(&mut subject);
        subject.not_required(Rule::SummaryAccepted, NO_SUMMARY);
        subject.rests_on.extend(roots);
        self.nodes.push(subject);
        for id in roots {
            let opened = self.case.opened.get(id).and_then(|opened| opened.as_ref().ok());
            if opened.is_some_and(|signed| signed.unverified().as_task().is_some()) {
                self.task(*id);
            } else {
                self.queue.push_back(*id);
            }
        }
        self.run();
        self.finish(title, None)
    }
}
