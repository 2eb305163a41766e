//! Finding and ending the processes of a run. They may end by themselves at any moment, so that one
//! is gone is never an error.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

/// Whether a child has ended. Its number stays taken until it is waited for.
pub(super) fn has_ended(child: &Child) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    match waitid(WaitId::Pid(Pid::from_child(child)), options) {
        Ok(found) => Ok(found.is_some()),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The children of a child.
pub(super) fn children(child: &Child) -> Vec<Pid> {
    let id = child.id();
    let listed = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// Kills a process.
pub(super) fn kill(process: Pid) {
    // gone already is as good
    kill_process(process, Signal::KILL).ok();
}

/// Kills a child that is not yet waited for, and its group.
pub(super) fn kill_group(child: &Child) {
    let leader = Pid::from_child(child);
    kill_process_group(leader, Signal::KILL).ok();
    // it may not have made the group yet
    kill(leader);
}

/// Kills every process that was given `home` as its home directory, until there is none. This finds
/// those that left the group, though not one that hides its environment on purpose.
pub(super) fn kill_strays(home: &Path) -> io::Result<()> {
    let mark = [b"HOME=", home.as_os_str().as_bytes()].concat();
    for _ in 0..1000 {
        let strays = with_variable(&mark)?;
        if strays.is_empty() {
            return Ok(());
        }
        strays.into_iter().for_each(kill);
        thread::sleep(Duration::from_millis(1));
    }
    Err(io::Error::other("processes of the command do not end"))
}

fn with_variable(mark: &[u8]) -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        // that of another user's process cannot be read, and it is none of ours
        let environment = |id| fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        if let Some(id) = id
            && environment(id).split(|&byte| byte == 0).any(|variable| variable == mark)
        {
            found.push(id);
        }
    }
    Ok(found)
}
