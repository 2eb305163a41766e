//! What a command prints, for whoever watches it: by whole lines, wherever a read ended.

use std::time::{Duration, Instant};

/// How long the beginning of a line waits for its end: a prompt or a bar of progress has none.
const PATIENCE: Duration = Duration::from_secs(1);

/// How long a line may be before it is passed on in parts.
const LONGEST: usize = 64 << 10;

/// Passes lines on, and the last one with this value, whether it ended or not.
pub(crate) struct Lines<'l> {
    live: &'l mut dyn FnMut(&[u8]),
    begun: Vec<u8>,
    since: Instant,
}

impl<'l> Lines<'l> {
    pub(crate) fn new(live: &'l mut dyn FnMut(&[u8])) -> Self {
        Self { live, begun: Vec::new(), since: Instant::now() }
    }

    /// Takes what was printed.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        if self.begun.is_empty() {
            self.since = Instant::now();
        }
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |place| place + 1);
        let (ended, begun) = bytes.split_at(end);
        self.begun.extend_from_slice(ended);
        if !ended.is_empty() {
            self.pass();
            self.since = Instant::now();
        }
        self.begun.extend_from_slice(begun);
        if self.begun.len() > LONGEST {
            self.pass();
        }
    }

    /// Nothing is printed now: a beginning that waited long enough goes on.
    pub(crate) fn idle(&mut self) {
        if self.since.elapsed() >= PATIENCE {
            self.pass();
        }
    }

    fn pass(&mut self) {
        // gone before it is passed on, or whoever fails over it would be given it again at the end
        let begun = std::mem::take(&mut self.begun);
        if !begun.is_empty() {
            (self.live)(&begun);
        }
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_wherever_reads_end() {
        let mut seen = Vec::new();
        let mut live = |bytes: &[u8]| seen.push(String::from_utf8(bytes.to_vec()).unwrap());
        let mut lines = Lines::new(&mut live);
        for read in ["on", "e\ntwo\nth", "r", "ee\n", "gr", "\u{fc}n\n\n"] {
            lines.take(read.as_bytes());
            lines.idle();
        }
        let long = "x".repeat(LONGEST);
        for read in ["y", &long, "z\n", "end"] {
            lines.take(read.as_bytes());
        }
        drop(lines);
        let whole = ["one\ntwo\n", "three\n", "gr\u{fc}n\n\n"];
        assert_eq!(seen[..3], whole);
        assert_eq!(seen[3..], [format!("y{long}"), "z\n".into(), "end".into()]);
    }
}
