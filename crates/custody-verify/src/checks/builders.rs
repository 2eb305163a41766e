//! Independent builders: several machines that do one task, each for itself, and must agree.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use custody_core::envelope::StatementId;
use custody_core::name::ArtifactName;
use custody_core::statement::{Artifact, Label, Manifest, Statement, Task, worker_uri};
use custody_core::{BASE_URI, Code, Refusal};

use super::Authority;
use super::environment::Machine;
use super::manifest::{entitled_results, sound, superseded};
use crate::docket::Case;
use crate::judge::shown;
use crate::policy::{Step, listed};
use crate::walk::Memo;

/// Most results of one task among which builders are looked for.
const MAX_RESULTS: usize = 16;
/// Most files that a refusal names.
const MAX_FILES: usize = 8;

/// A task that several machines do.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'s, 'c> {
    pub(crate) id: StatementId,
    pub(crate) task: &'c Task,
    pub(crate) step: &'c Step,
    pub(crate) authority: &'s Authority<'c>,
}

/// A result of the task, by its statement id.
type Made<'c> = (StatementId, &'c Manifest);

/// A builder whose manifest holds by itself.
struct Builder {
    id: StatementId,
    name: String,
    /// Facts that no two builders share, whatever the platforms are called: a machine may have several
    /// of one name.
    identity: BTreeSet<(String, String)>,
    /// Facts in which they must differ.
    differ: BTreeMap<String, Option<String>>,
}

impl Builder {
    fn of((id, manifest): Made<'_>, machine: &Machine, step: &Step) -> Self {
        let tail = |fact: &str| fact.split_once('.').map_or(fact, |(_, tail)| tail).to_string();
        let identity = machine.identity().map(|(fact, value)| (tail(fact), value.to_string()));
        let differ = step.builders_differ.iter();
        let differ =
            differ.map(|fact| (fact.clone(), machine.know(fact).1.map(ToString::to_string)));
        Self { id, name: named(manifest), identity: identity.collect(), differ: differ.collect() }
    }

    /// Why the two count as one.
    fn same(&self, other: &Self) -> Option<String> {
        if self.name == other.name {
            return Some(format!("{} twice", self.name));
        }
        let known = |fact: &String| other.differ.get(fact).and_then(Option::as_ref);
        let alike = self.differ.iter().find(|(fact, value)| {
            known(fact).zip(value.as_ref()).is_none_or(|(other, value)| value == other)
        });
        let named = self.identity.intersection(&other.identity).next();
        let named = named.map(|(fact, value)| (fact, Some(value)));
        named.or(alike.map(|(fact, value)| (fact, value.as_ref()))).map(|(fact, value)| {
            let value = value.map_or_else(|| "unknown".into(), |value| shown(value));
            format!("{} is like {}: {fact} {value}", other.name, self.name)
        })
    }
}

fn named(manifest: &Manifest) -> String {
    let prefix = format!("{BASE_URI}worker/");
    shown(manifest.builder.strip_prefix(&prefix).unwrap_or(&manifest.builder))
}

impl<'c> Shared<'_, 'c> {
    fn at(&self) -> String {
        format!("task of step {} ({})", self.task.step, self.id.short())
    }

    /// The results by machines that may perform the step, without those that a person set aside by
    /// naming another one.
    fn standing(&self, case: &'c Case<'_>) -> Vec<Made<'c>> {
        let results: Vec<Made<'c>> = entitled_results(case, self.id, self.step, self.authority)
            .into_iter()
            .filter_map(|id| {
                let signed = case.statement(id, "manifest", Statement::as_manifest).ok()?;
                Some((id, *signed.unverified()))
            })
            .collect();
        let chosen = superseded(case, self.id, self.authority);
        match results.iter().find(|(id, _)| Some(*id) == chosen).copied() {
            None => results,
            Some((_, chosen)) => {
                results.into_iter().filter(|(_, result)| result.agrees(chosen)).collect()
            }
        }
    }

    /// The other manifests that agree with this one: with it they are as many machines as the policy asks
    /// for. Nobody who may perform the step made anything else.
    pub(crate) fn agreed(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
        first: StatementId,
    ) -> Result<Vec<StatementId>, Refusal> {
        let refuse = |expected: String, found: String| {
            Err(Refusal::new(Code::ChainThresholdDisagree, self.at(), expected, found))
        };
        let results = self.standing(case);
        let Some(this) = results.iter().find(|(id, _)| *id == first) else {
            return refuse(
                "a manifest that agrees with the one that people chose".into(),
                format!("{first}, which does not"),
            );
        };
        if results.iter().any(|(_, result)| !result.agrees(this.1)) {
            return refuse("the same files from every machine".into(), differences(&results));
        }
        let mut builders = Vec::new();
        let mut unsound = BTreeSet::new();
        let others = results.iter().filter(|(id, _)| *id != first);
        for result in core::iter::once(this).chain(others.take(MAX_RESULTS)) {
            let (holds, machine) = sound(case, memo, result.0, self)?;
            if holds || result.0 == first {
                builders.push(Builder::of(*result, &machine, self.step));
            } else {
                unsound.insert(named(result.1));
            }
        }
        let wanted = usize::try_from(self.step.builders.get()).unwrap_or(usize::MAX);
        let (mut chosen, rest) = builders.split_at_checked(1).unwrap_or((&builders, &[]));
        let mut picked: Vec<&Builder> = chosen.iter().collect();
        if pick(&mut picked, rest, wanted) {
            return Ok(picked.iter().skip(1).map(|builder| builder.id).collect());
        }
        chosen = &builders;
        let mut found: Vec<String> = Vec::from([format!("only {}", named(this.1))]);
        for (i, builder) in chosen.iter().enumerate() {
            let mut before = chosen.iter().take(i);
            found.extend(before.find_map(|before| before.same(builder)));
        }
        found.extend(unsound.iter().map(|name| format!("{name}, whose manifest does not hold")));
        let differ = if self.step.builders_differ.is_empty() {
            String::new()
        } else {
            let facts: Vec<&str> = self.step.builders_differ.iter().map(String::as_str).collect();
            format!(" and differ in {}", facts.join(" and "))
        };
        let expected = format!(
            "{wanted} machines of {} that made the same{differ}",
            listed(&self.step.perform)
        );
        refuse(expected, found.join("; "))
    }

    /// One result with those that agree with it, for a gate to build on.
    pub(crate) fn any_agreed(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
    ) -> Result<(StatementId, Vec<StatementId>), Refusal> {
        let mut fault = None;
        let mut standing: Vec<(bool, StatementId)> = Vec::new();
        for (id, _) in self.standing(case).into_iter().take(MAX_RESULTS) {
            let (holds, _) = sound(case, memo, id, self)?;
            standing.push((!holds, id));
        }
        standing.sort_unstable();
        for (_, id) in standing {
            match self.agreed(case, memo, id) {
                Ok(others) => return Ok((id, others)),
                Err(refusal) => fault = fault.or(Some(refusal)),
            }
        }
        Err(fault.unwrap_or_else(|| {
            let found = "none: the step has not run, or its manifests are not among the evidence";
            Refusal::new(Code::ChainLinkMissing, self.at(), "its manifests", found)
        }))
    }

    /// A machine does its part once, and nobody does more than is asked for. A result that a person set
    /// aside counts for nothing: its machine may try again.
    pub(crate) fn once(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
        machine: Option<&Label>,
    ) -> Result<(), Refusal> {
        let own = machine.map(|machine| worker_uri(machine.as_str()));
        let standing = self.standing(case);
        let mine = standing.iter().find(|(_, result)| Some(&result.builder) == own.as_ref());
        let found = match mine {
            Some((id, _)) => format!("its manifest {id}, by the same machine"),
            None => match self.any_agreed(case, memo) {
                Ok((id, others)) => format!("its manifest {id}, and {} that agree", others.len()),
                Err(_) => return Ok(()),
            },
        };
        let at = format!("task {}", self.id.short());
        Err(Refusal::new(Code::GateAlreadyExecuted, at, "a task that was not begun", found))
    }
}

/// Builders of whom no two are one machine. The lists are short.
fn pick<'b>(chosen: &mut Vec<&'b Builder>, rest: &'b [Builder], wanted: usize) -> bool {
    if chosen.len() >= wanted {
        return true;
    }
    for (i, builder) in rest.iter().enumerate() {
        if chosen.iter().all(|known| known.same(builder).is_none()) {
            chosen.push(builder);
            let after = rest.get(i.saturating_add(1)..).unwrap_or_default();
            if pick(chosen, after, wanted) {
                return true;
            }
            chosen.pop();
        }
    }
    false
}

/// The files that are not the same everywhere, and who has which bytes.
fn differences(results: &[Made<'_>]) -> String {
    let mut files: BTreeMap<&ArtifactName, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let bytes = |artifact: &Artifact| {
        format!("sha256 {} ({} bytes)", artifact.digests.sha256, artifact.size)
    };
    for (_, result) in results {
        for artifact in &result.artifacts {
            let versions = files.entry(&artifact.name).or_default();
            versions.entry(bytes(artifact)).or_default().insert(named(result));
        }
    }
    let everybody: BTreeSet<String> = results.iter().map(|(_, result)| named(result)).collect();
    let mut lines: Vec<String> = Vec::new();
    for (name, versions) in &files {
        let makers: usize = versions.values().map(BTreeSet::len).sum();
        if versions.len() == 1 && makers == everybody.len() {
            continue;
        }
        let mut said: Vec<String> = versions
            .iter()
            .map(|(bytes, who)| {
                let who: Vec<&str> = who.iter().map(String::as_str).collect();
                format!("{bytes} by {}", who.join(" and "))
            })
            .collect();
        let has = |machine: &&String| versions.values().any(|who| who.contains(*machine));
        said.extend(everybody.iter().filter(|it| !has(it)).map(|it| format!("none by {it}")));
        lines.push(format!("{name}: {}", said.join(", ")));
    }
    let count = lines.len();
    lines.truncate(MAX_FILES);
    if count > MAX_FILES {
        lines.push(format!("and {} files more", count.saturating_sub(MAX_FILES)));
    }
    lines.join("; ")
}
