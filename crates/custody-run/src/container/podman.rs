//! Podman as a service of the worker's own.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use custody_core::{Code, Refusal};
use rustix::mount::{UnmountFlags, unmount};

use super::is_there;

/// The service. It ends with this value, and with the worker.
#[derive(Debug)]
pub(super) struct Service {
    child: Child,
    pub(super) socket: PathBuf,
    /// What the service mounts on itself in a storage of its own, and leaves so.
    mounted: Option<PathBuf>,
}

impl Service {
    /// Starts it with a socket in this directory, which nobody else may enter. Images and containers
    /// are where Podman has them, or in `storage`.
    pub(super) fn start(private: &Path, storage: Option<&Path>) -> Result<Self, Refusal> {
        let fault = |error: io::Error| {
            Refusal::new(Code::GateUnavailable, "podman", "its service", error.to_string())
        };
        let socket = private.join("podman.sock");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "podman"]);
        if let Some(storage) = storage {
            for (option, name) in [("--root", "storage"), ("--runroot", "state")] {
                let place = storage.join(name);
                DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(fault)?;
                command.arg(option).arg(place.canonicalize().map_err(fault)?);
            }
        }
        if is_there("runc") {
            command.args(["--runtime", "runc"]);
        }
        command.args(["system", "service", "--time=0"]);
        command.arg(format!("unix://{}", socket.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(fault)?;
        let mounted = storage.map(|storage| storage.join("storage/overlay"));
        let mut service = Self { child, socket, mounted };
        for _ in 0..300 {
            if UnixStream::connect(&service.socket).is_ok() {
                return Ok(service);
            }
            if let Some(status) = service.child.try_wait().map_err(fault)? {
                return Err(fault(io::Error::other(format!("it ended: {status}"))));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(fault(io::Error::other("no socket after 15 seconds")))
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
