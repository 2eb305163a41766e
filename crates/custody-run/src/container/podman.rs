//! Podman as a service of the worker's own.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use custody_core::digest::Sha256;
use custody_core::{Code, Refusal};
use rustix::mount::{UnmountFlags, unmount};

use super::is_there;

/// What tells Podman to keep images and containers in this directory, which is made if it is not there.
/// What does not outlast a start of the machine goes to a place with a short name: Podman takes 50
/// characters at most.
pub fn options(storage: &Path) -> io::Result<[OsString; 4]> {
    let directory = |place: PathBuf| {
        DirBuilder::new().recursive(true).mode(0o700).create(&place)?;
        place.canonicalize().map(PathBuf::into_os_string)
    };
    let root = directory(storage.join("storage"))?;
    let state = directory(state_of(storage)?)?;
    Ok(["--root".into(), root, "--runroot".into(), state])
}

fn state_of(storage: &Path) -> io::Result<PathBuf> {
    let storage = storage.canonicalize()?;
    let name = Sha256::of(storage.as_os_str().as_encoded_bytes()).short();
    Ok(Path::new("/run/custody/podman").join(name))
}

/// Removes what Podman keeps outside of the directory, whose containers have all ended.
pub fn forget(storage: &Path) -> io::Result<()> {
    let state = state_of(storage)?;
    // Podman mounts it on itself, and may have been ended before it could unmount it
    for mounted in [storage.join("storage/overlay"), state.clone()] {
        unmount(mounted, UnmountFlags::NOFOLLOW).ok();
    }
    fs::remove_dir_all(state)
}

/// Waits for Podman's own processes of a container that was removed: they use its storage, and mount it
/// again, until they find that there is nothing to do.
pub(super) fn wait_for_helpers(id: &str) {
    let names_it = |process: fs::DirEntry| {
        let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(id)
    };
    for _ in 0..100 {
        let mut processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        if !processes.any(names_it) {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The service. It ends with this value, and with the worker.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    pub(super) socket: PathBuf,
    /// What it complains of.
    complaints: PathBuf,
    /// What the service mounts on itself in a storage of its own, and leaves so.
    mounted: Option<PathBuf>,
}

impl Service {
    /// Starts it with a socket in this directory, which nobody else may enter. Images and containers
    /// are where Podman has them, or in `storage`.
    pub(super) fn start(private: &Path, storage: Option<&Path>) -> Result<Self, Refusal> {
        let fault = |error: io::Error| {
            Refusal::new(Code::GateUnavailable, "podman", "its service", error.to_string())
                .advising(
                    "see what podman info says here as the worker's user; then run the task again",
                )
        };
        let (socket, complaints) = (private.join("podman.sock"), private.join("podman.err"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "podman"]);
        if let Some(storage) = storage {
            command.args(options(storage).map_err(fault)?);
        }
        if is_there("runc") {
            command.args(["--runtime", "runc"]);
        }
        command.args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", socket.display()));
        let stderr = File::create(&complaints).map_err(fault)?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().map_err(fault)?;
        let mounted = storage.map(|storage| storage.join("storage/overlay"));
        let mut service = Self { child, socket, complaints, mounted };
        for _ in 0..300 {
            if UnixStream::connect(&service.socket).is_ok() {
                return Ok(service);
            }
            if let Some(end) = service.end() {
                return Err(fault(io::Error::other(end)));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(fault(io::Error::other("no socket after 15 seconds")))
    }

    /// How it ended, if it did, and what it complained of last.
    fn end(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        let said = fs::read(&self.complaints).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let said: String = said.trim().escape_debug().take(300).collect();
        Some(format!("it ended: {status}: {said}"))
    }

    /// The refusal of whoever spoke to it, with why there was no answer if it is gone.
    pub(super) fn explain(&mut self, refusal: Refusal) -> Refusal {
        match self.end() {
            Some(end) => Refusal { found: format!("{}; podman: {end}", refusal.found), ..refusal },
            None => refusal,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // it may have ended by itself
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(mounted) = &self.mounted {
            // another service may be at work there, and then it is that one which does it
            unmount(mounted, UnmountFlags::NOFOLLOW).ok();
        }
    }
}
