//! The chain of a report as people look at it: a drawing and a page. Text goes out, and nothing else.
//!
//! A [`Chart`] has one box for all documents that are alike, so that five tasks and five thousand fit
//! on a screen. Whether a box is good, the report says; what is written on it comes from the same
//! statements that the report judged.

mod layout;
mod markup;
mod page;
mod story;
mod svg;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use custody_core::Code;
use custody_core::envelope::StatementId;
use custody_core::json::Value;
use custody_core::statement::{InputOrigin, Manifest};
use custody_core::time::Time;
use custody_verify::report::{Node, NodeKind, Outcome};

pub(crate) use page::page;
pub(crate) use story::Story;
pub(crate) use svg::file as svg;

use crate::tree::fact;

/// A picture with more boxes than this shows nothing; then less detail is drawn.
const MAX_BOXES: usize = 300;

/// A phase of a release, as one authorization allowed it.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    /// The authorization; none for documents without any that can be read.
    pub(crate) id: Option<StatementId>,
    pub(crate) title: String,
    pub(crate) release: String,
    pub(crate) proposed: String,
    pub(crate) approved: String,
    /// What was found against the authorization, its request and its sign-offs.
    pub(crate) codes: BTreeSet<Code>,
}

/// What a box stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Source,
    External,
    Step,
    Subject,
}

/// How the documents of a box came off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// There is nothing to check about it alone.
    Plain,
    Refused,
    /// A task without a result.
    Open,
    Passed,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Plain => "origin",
            Self::Refused => "refused",
            Self::Open => "open",
            Self::Passed => "passed",
        }
    }
}

/// Documents that are alike.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) kind: Kind,
    /// Its place in [`Chart::lanes`]; the subject has none.
    pub(crate) lane: Option<usize>,
    pub(crate) title: String,
    pub(crate) state: State,
    /// Manifests, and tasks that have none.
    pub(crate) documents: Vec<StatementId>,
    pub(crate) machines: BTreeSet<String>,
    pub(crate) artifacts: usize,
    pub(crate) bytes: u64,
    pub(crate) places: BTreeSet<String>,
    pub(crate) passed: usize,
    pub(crate) codes: BTreeSet<Code>,
}

impl Group {
    const fn new(kind: Kind, lane: Option<usize>, title: String, state: State) -> Self {
        Self {
            kind,
            lane,
            title,
            state,
            documents: Vec::new(),
            machines: BTreeSet::new(),
            artifacts: 0,
            bytes: 0,
            places: BTreeSet::new(),
            passed: 0,
            codes: BTreeSet::new(),
        }
    }
}

/// The drawing before anything has a place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chart {
    pub(crate) lanes: Vec<Lane>,
    pub(crate) groups: Vec<Group>,
    /// From a box to one that rests on it, and how many times.
    pub(crate) edges: BTreeMap<(usize, usize), usize>,
}

/// How much of the chain gets a box of its own.
#[derive(Clone, Copy)]
enum Detail {
    Steps,
    Phases,
    Everything,
}

impl Chart {
    /// The chart of a report, in as much detail as can be looked at.
    pub(crate) fn of(story: &Story<'_>) -> Self {
        let drawn = |detail| {
            Builder { story, detail, chart: Self::default(), places: BTreeMap::new() }.chart()
        };
        let chart = drawn(Detail::Steps);
        if chart.groups.len() <= MAX_BOXES {
            return chart;
        }
        let chart = drawn(Detail::Phases);
        if chart.groups.len() <= MAX_BOXES { chart } else { drawn(Detail::Everything) }
    }
}

impl Chart {
    /// How many boxes there are.
    pub(crate) fn boxes(&self) -> usize {
        self.groups.len()
    }

    /// What is drawn, for machines.
    pub(crate) fn to_json(&self) -> Value<'static> {
        let number = |number: usize| u64::try_from(number).ok().map(Value::Integer);
        let group = |group: &Group| {
            let lane = group.lane.and_then(|lane| self.lanes.get(lane));
            Value::object([("title", Value::text(&group.title))])
                .with("phase", lane.map(|lane| Value::text(&lane.title)))
                .with("release", lane.map(|lane| Value::text(&lane.release)))
                .with("state", Some(Value::text(group.state.word())))
                .with("documents", Some(Value::list(group.documents.iter().map(Value::text))))
                .with("machines", Some(Value::list(group.machines.iter().map(Value::text))))
                .with("artifacts", number(group.artifacts))
                .with("codes", Some(Value::list(group.codes.iter().map(Value::text))))
        };
        let edge = |((from, to), weight): (&(usize, usize), &usize)| {
            Value::object([])
                .with("from", number(*from))
                .with("to", number(*to))
                .with("times", number(*weight))
        };
        Value::object([
            ("boxes", Value::list(self.groups.iter().map(group))),
            ("edges", Value::list(self.edges.iter().map(edge))),
        ])
    }
}

/// By what a box is found again.
type Key = (Option<usize>, Kind, State, String);

struct Builder<'s, 'r> {
    story: &'s Story<'r>,
    detail: Detail,
    chart: Chart,
    places: BTreeMap<Key, usize>,
}

impl Builder<'_, '_> {
    fn chart(mut self) -> Chart {
        let lanes = self.lanes();
        let lane_of = |task: Option<StatementId>| {
            let authorization =
                task.and_then(|id| self.story.task(id)).map(|task| task.authorization);
            lanes.get(&authorization).or_else(|| lanes.get(&None)).copied()
        };
        let mut boxes: BTreeMap<StatementId, usize> = BTreeMap::new();
        let mut done: BTreeSet<StatementId> = BTreeSet::new();
        let manifests: Vec<_> = self.story.nodes(NodeKind::Manifest).collect();
        let placed: Vec<_> = manifests
            .iter()
            .map(|(id, node)| {
                (*id, *node, lane_of(self.story.manifest(*id).map(|manifest| manifest.task)))
            })
            .collect();
        let open: Vec<_> = self
            .story
            .nodes(NodeKind::Task)
            .map(|(id, node)| (id, node, lane_of(Some(id))))
            .collect();
        for (id, node, lane) in placed {
            done.extend(self.story.manifest(id).map(|manifest| manifest.task));
            boxes.insert(id, self.manifest(id, node, lane));
        }
        for (id, node, lane) in open {
            if done.contains(&id) {
                continue;
            }
            boxes.insert(id, self.open_task(id, node, lane));
        }
        self.connect(&boxes);
        self.subject(&boxes);
        self.chart
    }

    /// The phases in the order in which people asked for them.
    fn lanes(&mut self) -> BTreeMap<Option<StatementId>, usize> {
        let whole = matches!(self.detail, Detail::Everything);
        let mut lanes: Vec<(Option<Time>, Lane)> = self
            .story
            .nodes(NodeKind::Authorization)
            .map(|(id, node)| self.lane(id, node))
            .collect();
        lanes.sort_by_key(|(time, lane)| (*time, lane.id));
        let mut stray = Lane {
            id: None,
            title: "without authorization".into(),
            release: String::new(),
            proposed: String::new(),
            approved: String::new(),
            codes: BTreeSet::new(),
        };
        if whole {
            stray.title = format!("{} phases", lanes.len());
            stray.codes = lanes.iter().flat_map(|(_, lane)| lane.codes.clone()).collect();
            self.chart.lanes.push(stray);
            return BTreeMap::from([(None, 0)]);
        }
        self.chart.lanes.extend(lanes.into_iter().map(|(_, lane)| lane));
        let mut places: BTreeMap<_, _> =
            self.chart.lanes.iter().enumerate().map(|(i, lane)| (lane.id, i)).collect();
        places.insert(None, self.chart.lanes.len());
        self.chart.lanes.push(stray);
        places
    }

    fn lane(&self, id: StatementId, node: &Node) -> (Option<Time>, Lane) {
        let said = |word: &str| fact(node, word).unwrap_or_default().to_owned();
        let request = self
            .story
            .authorization(id)
            .and_then(|authorization| self.story.request(authorization.request));
        let lane = Lane {
            id: Some(id),
            title: request
                .map_or_else(|| node.title.clone(), |request| format!("phase {}", request.phase)),
            release: said("release"),
            proposed: said("proposed by"),
            approved: said("approved by"),
            codes: node.findings().map(|(_, refusal)| refusal.code).collect(),
        };
        (request.map(|request| request.created), lane)
    }

    fn group(&mut self, lane: Option<usize>, kind: Kind, state: State, title: String) -> usize {
        let title = match (self.detail, kind) {
            (Detail::Steps, _) | (_, Kind::Subject) => title,
            (_, Kind::Step) => "steps".into(),
            (_, Kind::Source) => "sources".into(),
            (_, Kind::External) => "external files".into(),
        };
        let next = self.chart.groups.len();
        let place = *self.places.entry((lane, kind, state, title.clone())).or_insert(next);
        if place == next {
            self.chart.groups.push(Group::new(kind, lane, title, state));
        }
        place
    }

    /// Adds a document to the box of its like: same phase, same step, same end.
    fn step(
        &mut self,
        id: StatementId,
        nodes: &[&Node],
        lane: Option<usize>,
        step: String,
        open: bool,
    ) -> usize {
        let authority = lane.and_then(|lane| self.chart.lanes.get(lane));
        let found = nodes.iter().flat_map(|node| node.findings()).map(|(_, refusal)| refusal.code);
        let codes: BTreeSet<Code> =
            found.chain(authority.iter().flat_map(|lane| lane.codes.iter().copied())).collect();
        let state = match (codes.is_empty(), open) {
            (false, _) => State::Refused,
            (true, true) => State::Open,
            (true, false) => State::Passed,
        };
        let checks = nodes.iter().flat_map(|node| &node.checks);
        let passed = checks.filter(|check| check.outcome == Outcome::Passed).count();
        let place = self.group(lane, Kind::Step, state, step);
        if let Some(group) = self.chart.groups.get_mut(place) {
            group.documents.push(id);
            group.codes.extend(codes);
            group.passed += passed;
        }
        place
    }

    fn manifest(&mut self, id: StatementId, node: &Node, lane: Option<usize>) -> usize {
        let Some(manifest) = self.story.manifest(id) else {
            return self.step(id, &[node], lane, "manifest that cannot be read".into(), false);
        };
        let manifest = manifest.clone();
        let nodes: Vec<&Node> =
            [node].into_iter().chain(self.story.documents.get(manifest.task)).collect();
        let place = self.step(id, &nodes, lane, manifest.step.to_string(), false);
        if let Some(group) = self.chart.groups.get_mut(place) {
            group.machines.extend(fact(node, "performed by").map(ToOwned::to_owned));
            group.artifacts += manifest.artifacts.len();
            group.bytes += manifest
                .artifacts
                .iter()
                .fold(0, |sum, artifact| u64::saturating_add(sum, artifact.size));
            group.places.extend(manifest.destination.clone());
        }
        self.origins(place, &manifest, lane);
        place
    }

    fn open_task(&mut self, id: StatementId, node: &Node, lane: Option<usize>) -> usize {
        let step = self
            .story
            .task(id)
            .map_or_else(|| "task that cannot be read".into(), |task| task.step.to_string());
        self.step(id, &[node], lane, step, true)
    }

    /// Where a step's inputs come from, besides other steps.
    fn origins(&mut self, place: usize, manifest: &Manifest, lane: Option<usize>) {
        if let Some(source) = &manifest.source {
            let from = self.group(lane, Kind::Source, State::Plain, source.to_string());
            *self.chart.edges.entry((from, place)).or_default() += 1;
        }
        let pinned = manifest
            .inputs
            .iter()
            .filter(|input| !matches!(input.origin, InputOrigin::Manifest(_)));
        let (count, bytes) = pinned.fold((0, 0), |(count, bytes), input| {
            (count + 1, u64::saturating_add(bytes, input.artifact.size))
        });
        if count > 0 {
            let from = self.group(
                lane,
                Kind::External,
                State::Plain,
                format!("external files of {}", manifest.step),
            );
            *self.chart.edges.entry((from, place)).or_default() += 1;
            if let Some(group) = self.chart.groups.get_mut(from) {
                group.artifacts += count;
                group.bytes += bytes;
            }
        }
    }

    fn connect(&mut self, boxes: &BTreeMap<StatementId, usize>) {
        let tasks: BTreeMap<StatementId, usize> = boxes
            .iter()
            .filter_map(|(id, place)| Some((self.story.manifest(*id)?.task, *place)))
            .collect();
        for (id, to) in boxes {
            let used = self.story.manifest(*id).map(|manifest| manifest.upstream.clone());
            for from in used.unwrap_or_else(|| self.story.origins(*id)) {
                let from = boxes.get(&from).or_else(|| tasks.get(&from));
                if let Some(from) = from.filter(|from| *from != to) {
                    *self.chart.edges.entry((*from, *to)).or_default() += 1;
                }
            }
        }
    }

    /// What was asked about stands at the end, where it rests on something.
    fn subject(&mut self, boxes: &BTreeMap<StatementId, usize>) {
        let node = self.story.report.subject();
        let is_file = fact(node, "sha256").is_some();
        if !is_file {
            return;
        }
        let refused = self.story.report.accepted().is_none();
        let state = if refused { State::Refused } else { State::Passed };
        let place = self.group(None, Kind::Subject, state, node.title.clone());
        if let Some(group) = self.chart.groups.get_mut(place) {
            group.codes = node.findings().map(|(_, refusal)| refusal.code).collect();
        }
        for from in node.rests_on.iter().filter_map(|id| boxes.get(id)) {
            *self.chart.edges.entry((*from, place)).or_default() += 1;
        }
    }
}
