//! Where everything goes: boxes in columns, columns in phases, from left to right in the order in
//! which things were made. Lines that are longer than one column bend through a free place in each
//! column between. Whole pixels, and no chance: the same chart gives the same places.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chart, Kind};

/// Width of every box, in pixels.
pub(super) const BOX_WIDTH: i64 = 220;
/// Between the columns of one phase.
const COLUMN_GAP: i64 = 60;
/// Between a phase's edge and its boxes.
const PADDING: i64 = 22;
/// Between phases, and around everything.
const MARGIN: i64 = 24;
/// Between boxes of one column.
const BOX_GAP: i64 = 30;
/// Around a line that passes a column.
const BEND_GAP: i64 = 18;
/// How often rows are put in order, forth and back.
const SWEEPS: usize = 16;
/// Crossings of more lines than this between two columns are not counted.
const MAX_COUNTED: usize = 400;
/// With more bends than this, lines go straight.
const MAX_BENDS: usize = 20_000;

/// A rectangle.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rect {
    pub(super) x: i64,
    pub(super) y: i64,
    pub(super) width: i64,
    pub(super) height: i64,
}

/// A line from box to box.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) from: usize,
    pub(super) weight: usize,
    /// In pairs: from the first of each to the second it is curved, from there to the next straight.
    pub(super) points: Vec<(i64, i64)>,
}

/// A chart with places.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub(super) width: i64,
    pub(super) height: i64,
    /// By the chart's boxes.
    pub(super) boxes: Vec<Rect>,
    /// By the chart's lanes; those without boxes have no place.
    pub(super) lanes: Vec<Option<Rect>>,
    pub(super) lines: Vec<Line>,
}

/// A box, or the place where a line passes a column.
#[derive(Clone, Debug)]
struct Item {
    column: usize,
    height: i64,
    gap: i64,
    top: i64,
    before: Vec<usize>,
    after: Vec<usize>,
}

impl Item {
    const fn middle(&self) -> i64 {
        self.top + self.height / 2
    }
}

/// How wide the inside of each lane is.
pub(super) fn widths(chart: &Chart) -> Vec<i64> {
    let (columns, _) = columns(chart);
    let inside = |lane: usize| {
        let groups = chart.groups.iter().zip(&columns);
        let used: BTreeSet<usize> = groups
            .filter(|(group, _)| group.lane == Some(lane))
            .map(|(_, column)| *column)
            .collect();
        count(used.len()) * (BOX_WIDTH + COLUMN_GAP) - COLUMN_GAP
    };
    (0..chart.lanes.len()).map(inside).collect()
}

/// Places boxes of these heights below headers of one height.
pub(super) fn place(chart: &Chart, heights: &[i64], header: i64) -> Layout {
    let (columns, count) = columns(chart);
    let mut items: Vec<Item> = heights
        .iter()
        .zip(&columns)
        .map(|(height, column)| Item {
            column: *column,
            height: *height,
            gap: BOX_GAP,
            top: 0,
            before: Vec::new(),
            after: Vec::new(),
        })
        .collect();
    let routes = routes(chart, &columns, &mut items);
    let mut rows: Vec<Vec<usize>> = vec![Vec::new(); count];
    for (i, item) in items.iter().enumerate() {
        rows[item.column].push(i);
    }
    order(&mut rows, &items);
    settle(&rows, &mut items);
    let top = items.iter().map(|item| item.top).min().unwrap_or_default();
    let first = MARGIN + header + PADDING;
    for item in &mut items {
        item.top += first - top;
    }
    let bottom = items.iter().map(|item| item.top + item.height).max().unwrap_or(first);
    let height = bottom + PADDING + MARGIN;
    draw(chart, &columns, &items, &routes, height)
}

/// The column of each box, and how many there are: phases one after the other, and within a phase each
/// box right of all that it rests on.
pub(super) fn columns(chart: &Chart) -> (Vec<usize>, usize) {
    let lanes = chart.lanes.len() + 1;
    let lane = |group: usize| chart.groups[group].lane.unwrap_or(lanes - 1);
    let between = chart.edges.keys().map(|(from, to)| (lane(*from), lane(*to)));
    let lane_order = sorted(lanes, &between.filter(|(from, to)| from != to).collect());
    let within: BTreeSet<_> =
        chart.edges.keys().copied().filter(|(from, to)| lane(*from) == lane(*to)).collect();
    let mut depth = vec![0; chart.groups.len()];
    for group in sorted(chart.groups.len(), &within) {
        for (_, to) in within.range((group, 0)..=(group, usize::MAX)) {
            depth[*to] = depth[*to].max(depth[group] + 1).min(chart.groups.len());
        }
    }
    for (i, group) in chart.groups.iter().enumerate() {
        let nearest = within.range((i, 0)..=(i, usize::MAX)).map(|(_, to)| depth[*to]).min();
        if matches!(group.kind, Kind::Source | Kind::External) {
            depth[i] = nearest.unwrap_or_default().saturating_sub(1);
        }
    }
    let mut start = 0;
    for wanted in lane_order {
        let of_lane: Vec<usize> =
            (0..chart.groups.len()).filter(|group| lane(*group) == wanted).collect();
        let used: BTreeSet<usize> = of_lane.iter().map(|group| depth[*group]).collect();
        let dense: BTreeMap<usize, usize> = used.into_iter().zip(start..).collect();
        for group in of_lane {
            depth[group] = dense[&depth[group]];
        }
        start += dense.len();
    }
    (depth, start)
}

/// Numbers from 0, each after those that lead to it, the smallest first. Where they go in a circle, the
/// smallest comes first too.
fn sorted(count: usize, edges: &BTreeSet<(usize, usize)>) -> Vec<usize> {
    let mut missing = vec![0_usize; count];
    for (_, to) in edges {
        missing[*to] += 1;
    }
    let mut left: BTreeSet<usize> = (0..count).collect();
    let mut ready: BTreeSet<usize> = left.iter().copied().filter(|i| missing[*i] == 0).collect();
    let mut order = Vec::new();
    while let Some(next) = ready.pop_first().or_else(|| left.first().copied()) {
        left.remove(&next);
        order.push(next);
        for (_, to) in edges.range((next, 0)..=(next, usize::MAX)) {
            missing[*to] = missing[*to].saturating_sub(1);
            if missing[*to] == 0 && left.contains(to) {
                ready.insert(*to);
            }
        }
    }
    order
}

/// The way of each line through items, with an item for each column between.
fn routes(chart: &Chart, columns: &[usize], items: &mut Vec<Item>) -> Vec<Vec<usize>> {
    let between = |(from, to): &(usize, usize)| columns[*from] + 1..columns[*to];
    let bends: usize = chart.edges.keys().map(|edge| between(edge).len()).sum();
    let mut routes = Vec::new();
    for edge in chart.edges.keys() {
        let mut route = vec![edge.0];
        for column in between(edge).filter(|_| bends <= MAX_BENDS) {
            route.push(items.len());
            let (before, after) = (Vec::new(), Vec::new());
            items.push(Item { column, height: 2, gap: BEND_GAP, top: 0, before, after });
        }
        route.push(edge.1);
        if columns[edge.0] < columns[edge.1] {
            for pair in route.windows(2) {
                items[pair[0]].after.push(pair[1]);
                items[pair[1]].before.push(pair[0]);
            }
        }
        routes.push(route);
    }
    routes
}

/// Puts each column in the order of what stands before it, and then of what stands after it, again and
/// again, and keeps the order in which the fewest lines cross.
fn order(rows: &mut Vec<Vec<usize>>, items: &[Item]) {
    let mut best = (crossings(rows, items), rows.clone());
    let mut rank = vec![0_i64; items.len()];
    let number = |rank: &mut Vec<i64>, row: &[usize]| {
        for (i, item) in (0_i64..).zip(row) {
            rank[*item] = i * 1000 + 500 * (1 - count(row.len()));
        }
    };
    for row in rows.iter() {
        number(&mut rank, row);
    }
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 0;
        let columns: Vec<usize> =
            if forth { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for column in columns {
            let key = |item: &usize| {
                let sides = &items[*item];
                let side = if forth { &sides.before } else { &sides.after };
                let ranks: Vec<i64> = side.iter().map(|other| rank[*other]).collect();
                (mean(&ranks).unwrap_or(rank[*item]), rank[*item])
            };
            rows[column].sort_by_key(key);
            number(&mut rank, &rows[column]);
        }
        let crossed = crossings(rows, items);
        if crossed < best.0 {
            best = (crossed, rows.clone());
        }
    }
    *rows = best.1;
}

/// How many pairs of lines cross between the columns; not counted where there are too many lines for
/// anybody to see.
fn crossings(rows: &[Vec<usize>], items: &[Item]) -> usize {
    let mut place = vec![0; items.len()];
    for row in rows {
        row.iter().enumerate().for_each(|(i, item)| place[*item] = i);
    }
    let crossed = |row: &Vec<usize>| {
        let ends = row.iter().flat_map(|item| items[*item].after.iter().map(|to| (*item, *to)));
        let ends: Vec<(usize, usize)> = ends.map(|(from, to)| (place[from], place[to])).collect();
        if ends.len() > MAX_COUNTED {
            return 0;
        }
        let cross = |a: &(usize, usize), b: &(usize, usize)| a.0 < b.0 && a.1 > b.1;
        ends.iter().map(|a| ends.iter().filter(|b| cross(a, b)).count()).sum()
    };
    rows.iter().map(crossed).sum::<usize>()
}

/// Gives each item the height at which its lines are straightest without leaving its order.
fn settle(rows: &[Vec<usize>], items: &mut [Item]) {
    for row in rows {
        let mut next = 0;
        for item in row {
            items[*item].top = next;
            next += items[*item].height + items[*item].gap;
        }
        for item in row {
            items[*item].top -= next / 2;
        }
    }
    for sweep in 0..SWEEPS {
        let forth = sweep % 2 == 1;
        let columns: Vec<usize> =
            if forth { (0..rows.len()).collect() } else { (0..rows.len()).rev().collect() };
        for column in columns {
            let wish = |item: &usize| {
                let item = &items[*item];
                let side = if forth { &item.before } else { &item.after };
                let middles: Vec<i64> = side.iter().map(|other| items[*other].middle()).collect();
                mean(&middles).map_or(item.top, |middle| middle - item.height / 2)
            };
            let wishes: Vec<i64> = rows[column].iter().map(wish).collect();
            apart(&rows[column], &wishes, items);
        }
    }
}

/// The places nearest to the wishes at which nothing overlaps: pooling adjacent violators, which is the
/// best in the sense of least squares.
fn apart(row: &[usize], wishes: &[i64], items: &mut [Item]) {
    let mut offset = 0;
    let mut offsets = Vec::new();
    let mut pools: Vec<Vec<i64>> = Vec::new();
    for (i, (item, wish)) in row.iter().zip(wishes).enumerate() {
        offsets.push(offset);
        pools.push(vec![wish - offset]);
        let gap = row.get(i + 1).map_or(0, |next| items[*item].gap.max(items[*next].gap));
        offset += items[*item].height + gap;
        while let [.., before, last] = pools.as_slice()
            && mean(last) < mean(before)
            && let Some(last) = pools.pop()
            && let Some(before) = pools.last_mut()
        {
            before.extend(last);
        }
    }
    let settled = pools.iter().flat_map(|pool| vec![mean(pool).unwrap_or_default(); pool.len()]);
    for ((item, offset), place) in row.iter().zip(offsets).zip(settled) {
        items[*item].top = place + offset;
    }
}

fn mean(numbers: &[i64]) -> Option<i64> {
    (!numbers.is_empty()).then(|| numbers.iter().sum::<i64>().div_euclid(count(numbers.len())))
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Turns columns into pixels.
fn draw(
    chart: &Chart,
    columns: &[usize],
    items: &[Item],
    routes: &[Vec<usize>],
    height: i64,
) -> Layout {
    let mut of_column: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    for (group, column) in chart.groups.iter().zip(columns) {
        of_column.insert(*column, group.lane);
    }
    let mut layout = Layout { lanes: vec![None; chart.lanes.len()], height, ..Layout::default() };
    let (mut lefts, mut x, mut last) = (Vec::new(), 0, None);
    for lane in of_column.values() {
        let is_new = last != Some(*lane);
        let padding = if lane.is_some() { PADDING } else { 0 };
        x += if is_new { MARGIN + padding } else { COLUMN_GAP };
        lefts.push(x);
        if let Some(place) = lane.and_then(|lane| layout.lanes.get_mut(lane)) {
            let start = place.map_or(x - padding, |rect| rect.x);
            let width = x + BOX_WIDTH + padding - start;
            *place = Some(Rect { x: start, y: MARGIN, width, height: height - 2 * MARGIN });
        }
        x += BOX_WIDTH;
        last = Some(*lane);
        if of_column.values().nth(lefts.len()).is_none_or(|next| next != lane) {
            x += padding;
        }
        // room for lines that come into another phase
        if of_column.values().nth(lefts.len()).is_some_and(|next| next != lane) {
            x += MARGIN;
        }
    }
    layout.width = x + MARGIN;
    layout.boxes = items
        .iter()
        .zip(columns)
        .map(|(item, column)| Rect {
            x: lefts[*column],
            y: item.top,
            width: BOX_WIDTH,
            height: item.height,
        })
        .collect();
    layout.lines = lines(chart, items, routes, &lefts);
    layout
}

fn lines(chart: &Chart, items: &[Item], routes: &[Vec<usize>], lefts: &[i64]) -> Vec<Line> {
    let (mut leaving, mut coming) = (vec![Vec::new(); items.len()], vec![Vec::new(); items.len()]);
    for (i, route) in routes.iter().enumerate() {
        leaving[route[0]].push((items[route[1]].middle(), i));
        coming[route[route.len() - 1]].push((items[route[route.len() - 2]].middle(), i));
    }
    let ports = |mut ends: Vec<Vec<(i64, usize)>>| {
        let mut ports = vec![0; routes.len()];
        for (item, ends) in items.iter().zip(&mut ends) {
            ends.sort_unstable();
            for (place, (_, route)) in (1..).zip(ends.iter()) {
                ports[*route] = item.top + item.height * place / (count(ends.len()) + 1);
            }
        }
        ports
    };
    let (leaving, coming) = (ports(leaving), ports(coming));
    let mut lines = Vec::new();
    for (i, (((from, to), weight), route)) in chart.edges.iter().zip(routes).enumerate() {
        let mut points = vec![(lefts[items[*from].column] + BOX_WIDTH, leaving[i])];
        for bend in &route[1..route.len() - 1] {
            let (x, y) = (lefts[items[*bend].column], items[*bend].middle());
            points.extend([(x, y), (x + BOX_WIDTH, y)]);
        }
        points.push((lefts[items[*to].column], coming[i]));
        lines.push(Line { from: *from, weight: *weight, points });
    }
    lines
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Group, Lane, State};
    use super::*;

    /// A chart of so many steps in two phases, with these edges.
    fn chart(steps: usize, edges: &[(usize, usize)]) -> Chart {
        let lane = Lane {
            id: None,
            title: "phase".into(),
            release: String::new(),
            proposed: String::new(),
            approved: String::new(),
            codes: BTreeSet::new(),
        };
        let group = |i: usize| {
            Group::new(Kind::Step, Some(usize::from(i >= steps / 2)), i.to_string(), State::Passed)
        };
        Chart {
            lanes: vec![lane.clone(), lane],
            groups: (0..steps).map(group).collect(),
            edges: edges.iter().map(|edge| (*edge, 1)).collect(),
        }
    }

    fn placed(chart: &Chart) -> Layout {
        place(chart, &vec![80; chart.groups.len()], 60)
    }

    fn overlap(one: &Rect, other: &Rect) -> bool {
        one.x < other.x + other.width
            && other.x < one.x + one.width
            && one.y < other.y + other.height
            && other.y < one.y + one.height
    }

    fn sound(chart: &Chart) -> Layout {
        let layout = placed(chart);
        for (i, one) in layout.boxes.iter().enumerate() {
            assert!(layout.boxes.iter().skip(i + 1).all(|other| !overlap(one, other)), "{i}");
            let lane = layout.lanes[chart.groups[i].lane.unwrap()].unwrap();
            assert!(lane.x < one.x && one.x + one.width < lane.x + lane.width);
            assert!(lane.y + 60 < one.y && one.y + one.height < lane.y + lane.height);
            assert!(lane.x + lane.width < layout.width && lane.y + lane.height < layout.height);
        }
        assert_eq!(layout.lines.len(), chart.edges.len());
        layout
    }

    #[test]
    fn boxes_never_overlap_and_stay_in_their_phase() {
        let chain: Vec<_> = (0..9).map(|i| (i, i + 1)).collect();
        let star: Vec<_> = (1..40).map(|i| (0, i)).collect();
        let mesh: Vec<_> = (0..12).flat_map(|i| (i + 1..12).map(move |j| (i, j))).collect();
        for (steps, edges) in [(10, chain), (40, star), (12, mesh), (2, Vec::new())] {
            let chart = chart(steps, &edges);
            let layout = sound(&chart);
            // what is made from something stands right of it
            for (from, to) in &edges {
                assert!(layout.boxes[*from].x < layout.boxes[*to].x, "{from} {to}");
            }
            assert_eq!(format!("{layout:?}"), format!("{:?}", placed(&chart)));
        }
    }

    #[test]
    fn circles_and_ways_back_are_drawn_all_the_same() {
        sound(&chart(6, &[(0, 1), (1, 2), (2, 0), (3, 4), (4, 3), (5, 0)]));
    }

    #[test]
    fn lines_do_not_cross_without_need() {
        // two chains side by side, told in an order that would cross
        let chart = chart(8, &[(0, 3), (1, 2), (4, 7), (5, 6)]);
        let layout = sound(&chart);
        let before = |one: usize, other: usize| layout.boxes[one].y < layout.boxes[other].y;
        assert_eq!(before(0, 1), before(3, 2));
        assert_eq!(before(4, 5), before(7, 6));
    }
}
