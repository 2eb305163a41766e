//! Faults in system calls, by strace: which calls a command makes, and the command again with one of
//! them failing, or killed at it.
//!
//! strace counts calls by name and thread (strace(1), "Syscall filtering"). So that every call can be hit,
//! the command is left without threads: the first attempt to start one fails as on a system that has
//! none, and then it works alone. Its children are not traced.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use crate::world::{CUSTODY, World, skipped};

/// Whatever touches files, directories and descriptors.
const CALLS: &str = "trace=%file,%desc,clone,clone3";

const ALONE: [&str; 4] =
    ["-e", "inject=clone3:error=ENOSYS:when=1", "-e", "inject=clone:error=ENOSYS:when=1"];

/// Without `CUSTODY_FAULTS`, about so many faults of a workload are injected: every so manieth, from the
/// offset on.
const SAMPLE: usize = 50;
const OFFSET: usize = 7;

/// One fault in one run of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The system call.
    name: String,
    /// Which call of this name, from 1.
    number: usize,
    /// What happens there, in strace's words.
    what: &'static str,
    /// Whether the program has begun by then, or is still being loaded.
    begun: bool,
    /// The call as strace shows it.
    call: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{} {}: {}", self.name, self.number, self.what, self.call)
    }
}

impl Fault {
    /// Whether a command may end so. What fails before the program begins, or leaves it no memory, is not
    /// its to tell.
    fn may_end(&self, status: i32) -> bool {
        match status {
            0 | 1 | 3 | 137 => true,
            127 | 139 => !self.begun,
            134 => !self.begun || self.name == "mmap",
            _ => false,
        }
    }
}

/// How a command ended that a fault was injected into.
#[derive(Debug)]
pub(crate) struct Ended {
    /// As a shell has it: 137 for a kill.
    pub(crate) status: i32,
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    out: String,
    #[expect(dead_code, reason = "for whoever reads why a test failed")]
    err: String,
}

/// A world, what is done in it, and what is put back before it is done again.
pub(crate) struct Workload {
    pub(crate) world: World,
    line: String,
    changed: &'static [&'static str],
    /// How it ends without a fault.
    status: i32,
}

impl Workload {
    /// `line` is to be run in the world, and changes these files and directories of it. None where strace
    /// cannot do its work.
    pub(crate) fn new(
        test: &str,
        world: World,
        line: String,
        changed: &'static [&'static str],
    ) -> Option<Self> {
        let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).output();
        if !traced.as_ref().is_ok_and(|output| output.status.success()) {
            skipped(test, &format!("strace does not work here: {traced:?}"));
            return None;
        }
        fs::create_dir(world.path("before")).unwrap();
        for name in changed {
            copy(world.path(name), world.path("before"));
        }
        Some(Self { world, line, changed, status: 0 })
    }

    /// The same for a command that says no.
    pub(crate) fn rejected(
        test: &str,
        world: World,
        line: String,
        changed: &'static [&'static str],
    ) -> Option<Self> {
        Some(Self { status: 1, ..Self::new(test, world, line, changed)? })
    }

    /// Everything as it was before.
    fn restore(&self) {
        for name in self.changed {
            let path = self.world.path(name);
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            }
            copy(self.world.path("before").join(name), self.world.path("."));
        }
    }

    /// The command under strace, which writes what it sees into the file `calls`.
    fn trace(&self, injection: &[String]) -> Ended {
        let mut command = Command::new("timeout");
        // nothing here takes long; who hangs is killed, and 124 is no way to end
        command
            .args(["100", "strace", "-q", "-y", "-o", "calls", "-s", "200", "-e", CALLS])
            .args(ALONE);
        command.args(injection.iter().flat_map(|expression| ["-e", expression]));
        command.args([CUSTODY, "--json"]).args(self.line.split_whitespace());
        let plain = self.world.command("");
        command.current_dir(self.world.path(".")).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended {
            status: output
                .status
                .code()
                .or(output.status.signal().map(|signal| 128 + signal))
                .unwrap(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The calls of the command without a fault.
    pub(crate) fn calls(&self) -> String {
        let ended = self.trace(&[]);
        assert_eq!(ended.status, self.status, "without a fault: {ended:#?}");
        let calls = self.world.read("calls");
        assert!(calls.contains("clone"), "the command runs without threads");
        calls
    }

    /// Every fault that can be injected: each call fails with EIO, each that may write with ENOSPC, and
    /// the command is killed at each.
    fn faults(&self) -> Vec<Fault> {
        self.restore();
        let log = self.calls();
        let mut count = BTreeMap::<&str, usize>::new();
        let (mut faults, mut begun) = (Vec::new(), false);
        for call in log.lines() {
            let Some((name, _)) = call.split_once('(') else { continue };
            begun |= name.starts_with("clone");
            if name.starts_with("clone") || name == "execve" {
                continue;
            }
            let number = count.entry(name).or_default();
            *number += 1;
            let mut add = |what| {
                let (name, call) = (name.to_owned(), call.to_owned());
                faults.push(Fault { name, number: *number, what, begun, call });
            };
            add("signal=KILL");
            // close(2) lets go of the descriptor even where it fails, which strace cannot imitate
            if name != "close" {
                add("error=EIO");
            }
            if writes(name, call) {
                add("error=ENOSPC");
            }
        }
        faults
    }

    /// Injects faults, one at a time, each into a world as it was before, and has `check` look at what
    /// became of it. Says how many there were.
    pub(crate) fn each(&self, check: impl Fn(&Fault, &Ended) -> Outcome) {
        let faults = self.faults();
        let total = faults.len();
        let asked = std::env::var("CUSTODY_FAULTS").ok();
        let step = total.div_ceil(SAMPLE);
        let chosen = |(at, fault): &(usize, Fault)| match asked.as_deref() {
            None => at % step == OFFSET % step,
            Some("all") => true,
            Some(part) => fault.to_string().contains(part),
        };
        let mut outcomes = BTreeMap::<Outcome, usize>::new();
        let mut wrong = 0;
        for (_, fault) in faults.into_iter().enumerate().filter(chosen) {
            self.restore();
            let injected = format!("inject={}:{}:when={}", fault.name, fault.what, fault.number);
            let ended = self.trace(&[injected]);
            let looked = std::panic::AssertUnwindSafe(|| {
                assert!(fault.may_end(ended.status), "not an end that is documented");
                check(&fault, &ended)
            });
            if let Ok(outcome) = std::panic::catch_unwind(looked) {
                *outcomes.entry(outcome).or_default() += 1;
            } else {
                wrong += 1;
                say(&format!("every {step} from {OFFSET}, fault: {fault}\n{ended:#?}\n"));
            }
        }
        say(&format!("faults: {}: of {total}: {outcomes:?}\n", self.verb()));
        assert_eq!(wrong, 0, "faults after which something did not hold");
    }

    fn verb(&self) -> &str {
        self.line.split_whitespace().next().unwrap_or_default()
    }

    /// The command once more, without a fault.
    pub(crate) fn again(&self) -> crate::world::Said {
        self.world.custody(&self.line)
    }
}

/// What a fault led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// The command did not notice, and all is done.
    Done,
    /// It was killed, or refused, and the same command goes on from there.
    Recovered,
    /// What was begun cannot be taken back: a person says how it goes on.
    InDoubt,
}

fn writes(name: &str, call: &str) -> bool {
    let always = [
        "write",
        "pwrite64",
        "writev",
        "pwritev",
        "fsync",
        "fdatasync",
        "syncfs",
        "ftruncate",
        "fallocate",
        "mkdir",
        "mkdirat",
        "link",
        "linkat",
        "rename",
        "renameat",
        "renameat2",
        "copy_file_range",
        "sendfile",
        "symlink",
        "symlinkat",
    ];
    always.contains(&name) || call.contains("O_CREAT") || call.contains("O_TMPFILE")
}

fn copy(from: PathBuf, to: PathBuf) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Past the test runner, which keeps the words of tests that pass to itself.
fn say(text: &str) {
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
