//! What a power cut takes: all that was not flushed, names of files too. So nothing gets its name before
//! its bytes are on the disk, nothing is recorded before names are, and nothing is acknowledged that is not.
//!
//! Read from the system calls, under the rules of Pillai et al., "All File Systems Are Not Created Equal"
//! (OSDI 2014): a file is safe after its fsync, a name after that of its directory.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::inject::Workload;
use crate::world::World;

/// What a power cut would take now.
struct Unsafe {
    world: PathBuf,
    /// Files with bytes that are not flushed.
    bytes: BTreeSet<PathBuf>,
    /// Directories with names that are not.
    names: BTreeSet<PathBuf>,
    /// Open files.
    open: BTreeMap<String, PathBuf>,
    named: usize,
    recorded: usize,
}

impl Unsafe {
    /// The paths that are about to be used or acknowledged.
    fn left(&self) -> Vec<&PathBuf> {
        let place = |path: &&PathBuf| {
            ["store/artifacts", "www"].iter().any(|place| path.starts_with(self.world.join(place)))
        };
        self.bytes.iter().chain(&self.names).filter(place).collect()
    }

    fn call(&mut self, call: &str) {
        let Some((name, rest)) = call.split_once('(') else { return };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        if result.starts_with('-') || result.starts_with('?') {
            return;
        }
        // descriptors stand with what they lead to: 11</path>
        let descriptor = |text: &str| {
            let (number, rest) = text.trim_start().split_once('<')?;
            Some((number.to_owned(), PathBuf::from(rest.split_once('>')?.0)))
        };
        let texts: Vec<PathBuf> =
            arguments.split('"').skip(1).step_by(2).map(|text| self.world.join(text)).collect();
        let first = descriptor(arguments);
        match name {
            "open" | "openat" => {
                self.open.extend(descriptor(result));
            }
            "write" | "pwrite64" | "ftruncate" | "copy_file_range" => {
                self.bytes.extend(first.map(|(_, path)| path));
            }
            "fsync" | "fdatasync" => {
                let (_, path) = first.unwrap();
                if path.ends_with("custody.sqlite-wal") {
                    assert!(
                        self.left().is_empty(),
                        "recorded before it is safe: {:?}",
                        self.left()
                    );
                    self.recorded += 1;
                }
                self.bytes.remove(&path);
                self.names.remove(&path);
            }
            "mkdir" | "mkdirat" => self.name(&texts[0]),
            "rename" | "renameat" | "renameat2" => self.gets_name(&texts[0], &texts[1]),
            "linkat" => {
                let unnamed = texts[0].strip_prefix("/proc/self/fd").ok();
                let number = unnamed.map(|number| number.to_string_lossy().into_owned());
                let from =
                    number.map_or_else(|| texts[0].clone(), |number| self.open[&number].clone());
                let (_, directory) = descriptor(arguments.rsplit(", ").nth(2).unwrap()).unwrap();
                let to = texts[1].file_name().unwrap();
                self.gets_name(&from, &directory.join(to));
            }
            "unlink" | "unlinkat" => {
                for path in &texts {
                    self.bytes.remove(path);
                }
            }
            _ => {}
        }
    }

    fn gets_name(&mut self, from: &Path, to: &Path) {
        assert!(!self.bytes.contains(from), "{} gets its name before its bytes", to.display());
        self.name(to);
        self.named += 1;
    }

    fn name(&mut self, path: &Path) {
        self.names.insert(path.parent().unwrap().to_owned());
    }
}

fn check(test: &str, world: World, line: String, least: (usize, usize)) {
    let Some(work) = Workload::new(test, world, line, &[]) else { return };
    let mut disk = Unsafe {
        world: work.world.path("").canonicalize().unwrap(),
        bytes: BTreeSet::new(),
        names: BTreeSet::new(),
        open: BTreeMap::new(),
        named: 0,
        recorded: 0,
    };
    for call in work.calls().lines() {
        disk.call(call);
    }
    assert!(disk.left().is_empty(), "acknowledged before it is safe: {:?}", disk.left());
    let database = disk.bytes.iter().find(|path| path.to_string_lossy().contains("custody.sqlite"));
    assert!(database.is_none_or(|path| path.ends_with("custody.sqlite-shm")), "{database:?}");
    assert!(disk.named >= least.0 && disk.recorded >= least.1, "{} {}", disk.named, disk.recorded);
}

/// Row `sto-lost-unsynced`.
#[test]
fn a_power_cut_takes_no_result_of_a_run() {
    let world = World::fresh();
    let authorization = world.authorized("promote");
    world.plan(&authorization);
    let line = format!("{} --jobs 1", world.run_line(&format!("--all {authorization}")));
    // four artifacts and two logs; begun and ended twice
    check("a_power_cut_takes_no_result_of_a_run", world, line, (6, 4));
}

/// Row `sto-lost-unsynced`.
#[test]
fn a_power_cut_takes_nothing_of_a_publication() {
    let world = World::promoted();
    let task = world.shipping();
    let line = world.publish_line(&task);
    // with the bundle and the sums six files; begun, announced, done, ended
    check("a_power_cut_takes_nothing_of_a_publication", world, line, (6, 4));
}
