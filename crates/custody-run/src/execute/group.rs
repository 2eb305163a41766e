//! A control group for the processes of one run, where the system lets us make one.
//!
//! Both versions of the interface, at their usual places: `/sys/fs/cgroup/CONTROLLER` (1) and
//! `/sys/fs/cgroup` (2).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use custody_core::statement::Limits;

/// The group. It is gone with this value.
#[derive(Debug, Default)]
pub(super) struct Group {
    directories: Vec<PathBuf>,
    /// Where it is counted who was killed for memory.
    killed: Option<PathBuf>,
}

impl Group {
    /// Makes the group. None where nothing is limited, or this machine cannot: then no limit holds for
    /// all processes together. `helpers` are processes of ours in it.
    pub(super) fn create(limits: &Limits, name: &str, helpers: u64) -> Option<Self> {
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let mut group = Self::default();
        if let Some(memory) = limits.memory {
            let (directory, first) = group.add(&own, "memory", name)?;
            let (limit, swap, nothing, killed) = if first {
                (
                    "memory.limit_in_bytes",
                    "memory.memsw.limit_in_bytes",
                    memory,
                    "memory.oom_control",
                )
            } else {
                ("memory.max", "memory.swap.max", 0, "memory.events")
            };
            fs::write(directory.join(limit), memory.to_string()).ok()?;
            // not every system swaps
            fs::write(directory.join(swap), nothing.to_string()).unwrap_or_default();
            group.killed = Some(directory.join(killed));
        }
        if let Some(processes) = limits.processes {
            let (directory, _) = group.add(&own, "pids", name)?;
            fs::write(directory.join("pids.max"), processes.saturating_add(helpers).to_string())
                .ok()?;
        }
        (!group.directories.is_empty()).then_some(group)
    }

    /// Makes a directory for this controller beneath our own group, and says whether it is of the first
    /// version.
    fn add(&mut self, own: &str, controller: &str, name: &str) -> Option<(PathBuf, bool)> {
        let parts = |line: &'_ str| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.to_owned(), path.trim_start_matches('/').to_owned()))
        };
        let lines: Vec<_> = own.lines().filter_map(parts).collect();
        let named = |controllers: &str| controllers.split(',').any(|name| name == controller);
        let first = lines.iter().find(|(controllers, _)| named(controllers));
        let (place, (_, path)) = if let Some(line) = first {
            (Path::new("/sys/fs/cgroup").join(controller), line)
        } else {
            let second = lines.iter().find(|(controllers, _)| controllers.is_empty())?;
            (PathBuf::from("/sys/fs/cgroup"), second)
        };
        let directory = place.join(path).join(name);
        if !self.directories.contains(&directory) {
            fs::create_dir(&directory).ok()?;
            self.directories.push(directory.clone());
        }
        Some((directory, first.is_some()))
    }

    /// The files by which a process joins.
    pub(super) fn doors(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// Whether a process was killed because the limit on memory was reached.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let counted = self.killed.as_ref().and_then(|path| fs::read_to_string(path).ok());
        let count = |line: &str| line.strip_prefix("oom_kill ")?.trim().parse::<u64>().ok();
        counted.is_some_and(|text| text.lines().find_map(count).is_some_and(|count| count > 0))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for directory in &self.directories {
            // who has just ended may still count
            for _ in 0..1000 {
                match fs::remove_dir(directory) {
                    Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                        thread::sleep(Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}
