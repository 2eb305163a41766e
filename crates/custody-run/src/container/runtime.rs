//! A plain OCI runtime, `runc` or `crun`, where there is no engine: the worker unpacks the image and
//! writes the bundle (<https://github.com/opencontainers/runtime-spec>) itself.

use std::fs::{self, DirBuilder};
use std::io::{self, PipeReader};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use custody_core::statement::UsedImage;
use custody_core::{Code, Refusal};
use serde_json::{Value, json};

use super::archive::Archive;
use super::{Container, HOSTNAME, WORK, started_with};
use crate::execute::is_transient;

/// Where runtimes keep what they know of containers: a directory of root's that is empty after a start
/// of the machine.
const STATE: &str = "/run/custody/containers";

/// A runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    program: String,
    /// Name and version.
    pub(super) engine: String,
}

fn fault(expected: &str, found: impl Into<String>) -> Refusal {
    Refusal::new(Code::GateUnavailable, "container runtime", expected, found)
}

impl Runtime {
    pub(super) fn open(program: &str) -> Result<Self, Refusal> {
        let mut runtime = Self { program: program.into(), engine: String::new() };
        let said = runtime.ask(&["--version"])?;
        // "runc version 1.1.5" and more
        let line = said.lines().next().unwrap_or_default();
        runtime.engine = line.replace(" version ", " ");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(STATE)
            .map_err(|error| fault("its directory", format!("{STATE}: {error}")))?;
        Ok(runtime)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--root", STATE]).stdin(Stdio::null());
        command
    }

    fn ask(&self, words: &[&str]) -> Result<String, Refusal> {
        let output = self.command().args(words).output();
        let output = output.map_err(|error| fault(&self.program, error.to_string()))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said: String = said.trim().escape_debug().take(300).collect();
        Err(fault(&words.join(" "), said))
    }

    pub(super) fn archived(name: &str, archive: &Archive) -> UsedImage {
        UsedImage {
            name: name.into(),
            id: archive.id,
            manifest: archive.manifest,
            platform: archive.platform.clone(),
        }
    }

    /// Removes containers whose bundle is gone: a worker that was killed left them.
    pub(super) fn clear_away(&self) -> Result<(), Refusal> {
        let list: Value =
            serde_json::from_str(&self.ask(&["list", "--format", "json"])?).unwrap_or_default();
        for container in list.as_array().into_iter().flatten() {
            let text = |name| container.get(name).and_then(Value::as_str);
            if let (Some(bundle), Some(id)) = (text("bundle"), text("id"))
                && !Path::new(bundle).exists()
            {
                self.ask(&["delete", "--force", id])?;
            }
        }
        Ok(())
    }

    /// Unpacks the image, makes the container and starts it. Whatever goes wrong, none is left.
    pub(super) fn start(
        &self,
        container: &Container<'_>,
        archive: &Archive,
        private: &Path,
    ) -> Result<Run<'_>, Refusal> {
        let bundle = private.join("bundle");
        let root = bundle.join("rootfs");
        let io_fault = |error: io::Error| fault("a bundle", error.to_string());
        fs::create_dir(&bundle).and_then(|()| fs::create_dir(&root)).map_err(io_fault)?;
        archive.unpack(&root)?;
        let config = config(container).to_string();
        fs::write(bundle.join("config.json"), config).map_err(io_fault)?;
        // the room's own name, which no other has
        let id = private.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let (output, writer) = io::pipe().map_err(io_fault)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(|error| io_fault(error.into()))?;
        let complaints = private.join("runtime.err");
        let mut command = self.command();
        command.arg("--log").arg(&complaints).args(["--log-format", "json"]);
        command.args(["run", "--bundle"]).arg(&bundle).arg(&id);
        command.stdout(writer.try_clone().map_err(io_fault)?).stderr(writer);
        let child = command.spawn().map_err(io_fault)?;
        // with it our ends of the pipe, or the log would never end
        drop(command);
        Ok(Run {
            runtime: self,
            id,
            bundle,
            child,
            output,
            buffer: vec![0; 64 << 10],
            complaints,
            killed: false,
            removed: false,
        })
    }
}

/// A container. It is gone with this value.
#[derive(Debug)]
pub(super) struct Run<'a> {
    runtime: &'a Runtime,
    id: String,
    bundle: PathBuf,
    child: Child,
    output: PipeReader,
    buffer: Vec<u8>,
    /// Where the runtime says what it could not do, beside the command's own words.
    complaints: PathBuf,
    killed: bool,
    removed: bool,
}

impl Run<'_> {
    /// Why there was no command, if that is the runtime's fault. A program that the image does not have
    /// is the task's.
    fn complaint(&self) -> Option<String> {
        let text = fs::read_to_string(&self.complaints).ok()?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let errors =
            lines.filter(|line| line.get("level").and_then(Value::as_str) == Some("error"));
        let said =
            errors.filter_map(|line| Some(line.get("msg")?.as_str()?.to_owned())).next_back()?;
        let is_the_program = said.contains("exec: \"") || said.contains("executable file");
        (!is_the_program).then(|| said.escape_debug().take(300).collect())
    }
}

impl super::Running for Run<'_> {
    fn output(&self) -> Option<BorrowedFd<'_>> {
        Some(self.output.as_fd())
    }

    fn read(&mut self, keep: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Option<usize>> {
        match io::Read::read(&mut self.output, &mut self.buffer) {
            Ok(length) => keep(&self.buffer[..length]).map(|()| Some(length)),
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        let failed = !self.killed && status.is_some_and(|status| !status.success());
        match failed.then(|| self.complaint()).flatten() {
            Some(complaint) => Err(io::Error::other(complaint)),
            None => Ok(status),
        }
    }

    fn kill(&mut self) {
        self.killed = true;
        // gone already, or not there yet, is as good: it is tried until it ends
        self.runtime.ask(&["kill", &self.id, "KILL"]).ok();
    }

    fn remove(&mut self) -> Result<(), Refusal> {
        self.removed = true;
        let deleted = self.runtime.ask(&["delete", "--force", &self.id]);
        // it takes itself away when the command ends
        let gone = !Path::new(STATE).join(&self.id).exists();
        self.child.kill().ok();
        self.child.wait().ok();
        if !gone {
            deleted?;
        }
        fs::remove_dir_all(&self.bundle).map_err(|error| fault("no bundle", error.to_string()))
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        if !self.removed {
            // there is nobody to tell, and the run has failed already
            super::Running::remove(self).ok();
        }
    }
}

/// What no command needs and what kernels had faults in: new user namespaces, in which a process has
/// all rights, among them. Everything else is harmless without rights.
const REFUSED: [&str; 30] = [
    "acct",
    "add_key",
    "bpf",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_by_handle_at",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "request_key",
    "setns",
    "umount2",
    "unshare",
    "userfaultfd",
];

/// `CLONE_NEWUSER`.
const NEW_USER: u64 = 0x1000_0000;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The bundle's configuration.
fn config(container: &Container<'_>) -> Value {
    let environment = container.variables.iter().map(|(name, value)| format!("{name}={value}"));
    let limits = started_with();
    let limits = limits.map(|(name, limit)| {
        json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "soft": limit, "hard": limit })
    });
    let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
    let system = [
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
    ];
    let own = container.mounts().map(|(from, to, writable)| {
        let access = if writable { "rw" } else { "ro" };
        json!({
            "destination": to, "type": "bind", "source": from,
            "options": ["rbind", "rprivate", "nosuid", "nodev", access],
        })
    });
    let mut namespaces = vec!["pid", "ipc", "uts", "mount"];
    if !container.network {
        namespaces.push("network");
    }
    let namespaces = namespaces.into_iter().map(|kind| json!({ "type": kind }));
    let mut resources = json!({
        "pids": { "limit": container.processes() },
        "devices": [{ "allow": false, "access": "rwm" }],
    });
    if let Some(memory) = container.limits.memory {
        resources["memory"] = json!({ "limit": memory, "swap": memory });
    }
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": { "uid": container.user.uid, "gid": container.user.gid, "umask": 0o022 },
            "args": container.words,
            "env": environment.collect::<Vec<_>>(),
            "cwd": WORK,
            "capabilities": {
                "bounding": [], "effective": [], "inheritable": [], "permitted": [], "ambient": [],
            },
            "rlimits": limits,
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": HOSTNAME,
        "mounts": system.into_iter().chain(own).collect::<Vec<_>>(),
        "linux": {
            "namespaces": namespaces.collect::<Vec<_>>(),
            "resources": resources,
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    { "names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM },
                    { "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": [
                        { "index": 0, "value": NEW_USER, "valueTwo": NEW_USER, "op": "SCMP_CMP_MASKED_EQ" },
                    ] },
                    // its flags cannot be seen; programs then use clone
                    { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS },
                ],
            },
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
                "/sys/dev/block", "/sys/firmware",
            ],
            "readonlyPaths": [
                "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
            ],
        },
    })
}
