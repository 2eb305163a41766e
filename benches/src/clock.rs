//! Two things timed in turn.

use std::time::{Duration, Instant};

/// The medians of `ours` and of `other`, run in turn: whatever else the machine does slows both.
pub(crate) fn in_turn(
    rounds: usize,
    mut ours: impl FnMut(),
    mut other: impl FnMut(),
) -> (Duration, Duration) {
    let mut times = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        times.0.push(time(&mut ours));
        times.1.push(time(&mut other));
    }
    (median(times.0), median(times.1))
}

fn time(work: &mut impl FnMut()) -> Duration {
    let before = Instant::now();
    work();
    before.elapsed()
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// One row of the table.
pub(crate) fn row(work: &str, (ours, other): (Duration, Duration), beside: &str) {
    let ratio = ours.as_secs_f64() / other.as_secs_f64();
    println!("| {work} | {} | {beside} {} | {ratio:.2} |", shown(ours), shown(other));
}

/// A row about one figure.
pub(crate) fn note(work: &str, ours: &str, beside: &str, ratio: f64) {
    println!("| {work} | {ours} | {beside} | {ratio:.2} |");
}

pub(crate) fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.2} s", ms / 1e3)
    }
}
