//! Others who do the same work. `CUSTODY_BENCH_IN_TOTO` is a Python that has in-toto, `CUSTODY_BENCH_SETS` a
//! directory with in-toto pipelines p-N-M of N steps with M artifacts each.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Command;

use custody_world::Large;

use crate::clock::{in_turn, note, row};
use crate::command::{peak_memory, succeed};
use crate::release::OnDisk;

pub(crate) fn measure() {
    for (steps, artifacts, rounds) in [(5, 10, 21), (50, 100, 9), (500, 10, 5), (500, 1_000, 3)] {
        let release = OnDisk::new(Large::line(steps, NonZeroUsize::new(artifacts).unwrap()));
        let floor = release.floor();
        let what = format!("verify a line of {steps} steps with {artifacts} artifacts each");
        let times = in_turn(rounds, || succeed(&mut release.verify()), || floor.run());
        row(&what, times, "its signatures and hashes, 2 cores");
        let peak = peak_memory(&release.verify());
        match in_toto(steps, artifacts) {
            None => println!("skipped: in-toto (CUSTODY_BENCH_IN_TOTO, CUSTODY_BENCH_SETS)"),
            Some(command) => {
                let other = || succeed(&mut command());
                let times = in_turn(rounds.min(5), || succeed(&mut release.verify()), other);
                row(&what, times, "in-toto-verify");
                let theirs = peak_memory(&command());
                let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
                let ratio = peak as f64 / theirs as f64;
                note(
                    &format!("{what}: memory"),
                    &mib(peak),
                    &format!("in-toto-verify {}", mib(theirs)),
                    ratio,
                );
            }
        }
    }
}

fn in_toto(steps: usize, artifacts: usize) -> Option<impl Fn() -> Command> {
    let python = PathBuf::from(std::env::var_os("CUSTODY_BENCH_IN_TOTO")?);
    let set = PathBuf::from(std::env::var_os("CUSTODY_BENCH_SETS")?);
    let set = set.join(format!("p-{steps}-{artifacts}")).join("intoto");
    let keys: Vec<PathBuf> = std::fs::read_dir(&set)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with(".pub"))
        .collect();
    Some(move || {
        let mut command = Command::new(python.with_file_name("in-toto-verify"));
        command.args(["--layout", "root.layout", "--verification-keys"]).args(&keys);
        command.current_dir(&set);
        command
    })
}
