//! Others who do the same work. `CUSTODY_BENCH_IN_TOTO` is the Python of an environment that has in-toto,
//! `CUSTODY_BENCH_SETS` a directory with in-toto's form of the same pipelines: `p-N-M` has N steps with M
//! artifacts each, `intoto/root.layout` and its links, and `keys/owner.pub.pem`.

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
    let set = set.join(format!("p-{steps}-{artifacts}"));
    Some(move || {
        let mut command = Command::new(python.with_file_name("in-toto-verify"));
        command.args(["--layout", "intoto/root.layout", "--link-dir", "intoto"]);
        command.args(["--verification-keys", "keys/owner.pub.pem"]).current_dir(&set);
        command
    })
}
