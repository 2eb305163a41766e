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
use super::manifest::{chosen, sound, superseded, to_choose};
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

/// The results of a task, by what people said of them.
struct Split<'c> {
    standing: Vec<Made<'c>>,
    /// The one that a person named.
    chosen: Option<Made<'c>>,
    /// Those with other files.
    aside: Vec<Made<'c>>,
}

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
    fn standing(&self, case: &'c Case<'_>, memo: &mut Memo<'c>) -> Vec<Made<'c>> {
        self.split(case, memo).standing
    }

    fn split(&self, case: &'c Case<'_>, memo: &mut Memo<'c>) -> Split<'c> {
        let results = memo.results(case, self.id, self.step, self.authority);
        let made = |id: &StatementId| {
            let signed = case.statement(*id, "manifest", Statement::as_manifest).ok()?;
            Some((*id, *signed.unverified()))
        };
        let results: Vec<Made<'c>> = results.iter().filter_map(made).collect();
        let chosen = superseded(case, self.id, self.authority);
        let chosen = results.iter().find(|(id, _)| Some(*id) == chosen).copied();
        let (standing, aside) = results
            .into_iter()
            .partition(|(_, result)| chosen.is_none_or(|(_, chosen)| result.agrees(chosen)));
        Split { standing, chosen, aside }
    }

    /// What to do where too few machines made the same.
    fn who_is_left(&self, standing: &[Made<'c>]) -> String {
        let has_done = |machine: &&Label| {
            standing.iter().any(|(_, result)| result.builder == worker_uri(machine.as_str()))
        };
        let left = self.step.perform.iter().filter(|machine| !has_done(machine));
        format!(
            "run it with the key of another machine ({}): custody run {}",
            listed(left),
            self.id
        )
    }

    /// Why what people said of machines that differ does not settle it, if they said anything.
    fn unsettled(&self, case: &Case<'_>) -> String {
        let named = chosen(case, self.id, self.authority);
        let why = match named.len() {
            0 => return String::new(),
            1 => "which no machine made that may perform the step",
            _ => "of which only one can hold",
        };
        let named: Vec<String> = named.iter().map(ToString::to_string).collect();
        format!("; people chose {}, {why}", named.join(" and "))
    }

    /// The other manifests that agree with this one: with it they are as many machines as the policy asks
    /// for. Nobody who may perform the step made anything else.
    pub(crate) fn agreed(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
        first: StatementId,
    ) -> Result<Vec<StatementId>, Refusal> {
        let refuse = |expected: String, found: String, advice: String| {
            let refusal = Refusal::new(Code::ChainThresholdDisagree, self.at(), expected, found);
            Err(refusal.advising(advice))
        };
        let Split { standing: results, chosen: by_people, aside } = self.split(case, memo);
        let Some(this) = results.iter().find(|(id, _)| *id == first) else {
            let Some(chosen) = by_people else {
                let expected = format!("a manifest by a machine of {}", listed(&self.step.perform));
                return refuse(expected, first.to_string(), super::to_run(self.id));
            };
            let other = aside.iter().find(|(id, _)| *id == first);
            let found = other.map_or_else(|| first.to_string(), |other| set_aside(other, &chosen));
            let expected = format!("the files of manifest {}, which people chose", chosen.0);
            return refuse(expected, found, format!("take those: custody show {}", chosen.0));
        };
        if results.iter().any(|(_, result)| !result.agrees(this.1)) {
            let found = format!("{}{}", differences(&results), self.unsettled(case));
            let some = results.iter().take(MAX_FILES);
            let some: Vec<String> =
                some.map(|(id, made)| format!("{id} by {}", named(made))).collect();
            let advice = format!(
                "{}, with MANIFEST {}; the other machines then run it again",
                to_choose(self.id, self.authority),
                some.join(" or ")
            );
            return refuse("the same files from every machine".into(), found, advice);
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
        let (own, rest) = builders.split_at_checked(1).unwrap_or((&builders, &[]));
        let mut picked: Vec<&Builder> = own.iter().collect();
        if pick(&mut picked, rest, wanted) {
            return Ok(picked.iter().skip(1).map(|builder| builder.id).collect());
        }
        let mut found: Vec<String> = Vec::from([format!("only {}", named(this.1))]);
        for (i, builder) in builders.iter().enumerate() {
            let mut before = builders.iter().take(i);
            found.extend(before.find_map(|before| before.same(builder)));
        }
        found.extend(unsound.iter().map(|name| format!("{name}, whose manifest does not hold")));
        let asides = by_people.iter().flat_map(|it| aside.iter().map(|made| set_aside(made, it)));
        found.extend(asides.take(MAX_FILES));
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
        refuse(expected, found.join("; "), self.who_is_left(&results))
    }

    /// One result with those that agree with it, for a gate to build on.
    pub(crate) fn any_agreed(
        &self,
        case: &'c Case<'_>,
        memo: &mut Memo<'c>,
    ) -> Result<(StatementId, Vec<StatementId>), Refusal> {
        let mut fault = None;
        let mut standing: Vec<(bool, StatementId)> = Vec::new();
        for (id, _) in self.standing(case, memo).into_iter().take(MAX_RESULTS) {
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
            let refusal = Refusal::new(Code::ChainLinkMissing, self.at(), "its manifests", found);
            refusal.advising(super::to_run(self.id))
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
        let standing = self.standing(case, memo);
        let mine = standing.iter().find(|(_, result)| Some(&result.builder) == own.as_ref());
        let (found, advice) = match (mine, self.any_agreed(case, memo)) {
            (mine, Ok((id, others))) => {
                let id = mine.map_or(id, |(id, _)| *id);
                let found = format!("its manifest {id}, and {} that agree", others.len());
                (found, format!("look at what it made: custody show {id}"))
            }
            (Some((id, _)), Err(_)) => {
                (format!("its manifest {id}, by the same machine"), self.who_is_left(&standing))
            }
            (None, Err(_)) => return Ok(()),
        };
        let at = format!("task {}", self.id.short());
        let refusal =
            Refusal::new(Code::GateAlreadyExecuted, at, "a task that was not begun", found);
        Err(refusal.advising(advice))
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

/// Why a result counts for nothing any more.
fn set_aside(other: &Made<'_>, chosen: &Made<'_>) -> String {
    let (id, files) = (other.0, differences(&[*chosen, *other]));
    format!("{} made other files in manifest {id} than the chosen one: {files}", named(other.1))
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
