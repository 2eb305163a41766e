//! What holds of a chain as a whole, once each of its documents has been looked at. Linear in nodes
//! and links.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::statement::{Manifest, Statement, Task};
use custody_core::{Code, Refusal};

use crate::docket::Case;
use crate::report::{Node, NodeKind, Outcome, Rule};

pub(crate) fn check(case: &Case<'_>, nodes: &mut [Arc<Node>]) {
    twins(case, nodes);
    circles(nodes);
}

/// Turns a check that passed when its document was looked at alone into a finding.
fn fail(node: &mut Arc<Node>, rule: Rule, refusal: Refusal) {
    let check = Arc::make_mut(node).checks.iter_mut().find(|check| check.rule == rule);
    if let Some(check) = check.filter(|check| check.outcome == Outcome::Passed) {
        check.outcome = Outcome::Failed(refusal);
    }
}

/// One job has one result in a chain, also where it was planned twice: two tasks that ask for the same
/// under one authorization are two results for one place, unless the results are the same.
fn twins(case: &Case<'_>, nodes: &mut [Arc<Node>]) {
    let mut results: BTreeMap<_, (StatementId, &Manifest)> = BTreeMap::new();
    for node in nodes.iter_mut().filter(|node| node.kind == NodeKind::Manifest) {
        let Some(id) = node.id else { continue };
        let Ok(manifest) = case.statement(id, "manifest", Statement::as_manifest) else { continue };
        let manifest = *manifest.unverified();
        let Ok(task) = case.statement(manifest.task, "task", Statement::as_task) else { continue };
        let job = job(task.unverified());
        let (first, other) = *results.entry(job).or_insert((id, manifest));
        // two manifests of one task are found where the task is looked at
        if other.task != manifest.task && other.artifacts != manifest.artifacts {
            let at = format!("step {}, which was planned twice", manifest.step);
            let found = format!("{first} and {id}");
            fail(
                node,
                Rule::ManifestSingle,
                Refusal::new(Code::ChainForked, at, "one result", found),
            );
        }
    }
}

/// What a task asks for, whoever made it and when.
fn job(task: &Task) -> impl Ord {
    let Task { creator: _, nonce: _, created: _, deadline: _, .. } = task;
    let from = (&task.authorization, &task.inputs, &task.source, &task.externals, &task.downloads);
    let how = (&task.step, &task.command, &task.variables, task.network);
    (from, how, (&task.destination, &task.outputs, task.sha512))
}

/// Links between statements are digests and cannot lead in a circle. A decided task does not name the
/// decision that made it, so through decisions one can: what was decided would be what led to the
/// decision. What rests on nothing else is taken away until only circles, and what rests on them, are
/// left.
fn circles(nodes: &mut [Arc<Node>]) {
    let places: BTreeMap<StatementId, usize> =
        nodes.iter().enumerate().filter_map(|(i, node)| Some((node.id?, i))).collect();
    let mut above: Vec<Vec<usize>> = nodes.iter().map(|_| Vec::new()).collect();
    let mut open: Vec<usize> = Vec::new();
    for (i, node) in nodes.iter().enumerate() {
        let below = node.rests_on.iter().filter_map(|id| places.get(id));
        open.push(below.clone().count());
        below.for_each(|below| above.get_mut(*below).into_iter().for_each(|above| above.push(i)));
    }
    let mut free: Vec<usize> =
        open.iter().enumerate().filter(|(_, open)| **open == 0).map(|(i, _)| i).collect();
    while let Some(i) = free.pop() {
        for above in above.get(i).into_iter().flatten() {
            if let Some(open) = open.get_mut(*above) {
                *open = open.saturating_sub(1);
                if *open == 0 {
                    free.push(*above);
                }
            }
        }
    }
    let left = nodes.iter_mut().zip(open).filter(|(_, open)| *open > 0).map(|(node, _)| node);
    for node in left.filter(|node| node.kind == NodeKind::Task) {
        let found = "a decision that rests on what it decided";
        let at = node.title.clone();
        let refusal =
            Refusal::new(Code::ChainCycle, at, "a task decided before it was done", found);
        fail(node, Rule::TaskSignature, refusal);
    }
}
