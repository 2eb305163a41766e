//! The program between the worker and a command: it takes from itself all that the command is not to
//! have, and then becomes the command or waits for it.
//!
//! Between fork and exec, the language lets us do nothing safely. So the worker starts a program of its
//! own, with this as its main function: `custody confine`, which no person calls. It does its work as a
//! process with one thread and no secrets. In a namespace of processes it takes two: one outside, which
//! the worker waits for, and one inside, which is process 1 there, ends with the command, and takes all
//! others with it.

mod plan;
mod rights;
mod view;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, Stdio};

use close_fds::CloseFdsBuilder;
use nix::sched::{CloneFlags, unshare};
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions};

pub(crate) use self::plan::{Flags, Plan, TRIAL};

/// The word by which a program is asked to be this one.
pub const VERB: &str = "confine";

/// The second word, for the process inside.
const INSIDE: &str = "inside";

/// The status of a confiner that could not do what it was asked for; its report says why.
const FAULT: u8 = 125;

/// What did not work, in words for people.
struct Fault(String);

trait OrFault<T> {
    fn or_fault(self, what: &str) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> OrFault<T> for Result<T, E> {
    fn or_fault(self, what: &str) -> Result<T, Fault> {
        self.map_err(|error| Fault(format!("{what}: {}", error.into())))
    }
}

/// Whether these arguments of a program, without its name, ask for the confiner.
pub fn is_asked_for(mut arguments: impl Iterator<Item = impl AsRef<OsStr>>) -> bool {
    arguments.next().is_some_and(|word| word.as_ref() == VERB)
}

/// Does what the plan on standard input says. `arguments` are those after [`VERB`].
pub fn main(mut arguments: impl Iterator<Item = impl AsRef<OsStr>>) -> ExitCode {
    let inside = arguments.next().is_some_and(|word| word.as_ref() == INSIDE);
    let Ok((report, plan)) = plan() else { return ExitCode::from(FAULT) };
    let done = if inside { enter(&plan, &report) } else { leave(&plan, &report) };
    done.unwrap_or_else(|Fault(text)| {
        report.say(&text);
        ExitCode::from(FAULT)
    })
}

/// The way back to the worker: what stands behind the plan in its file.
struct Report {
    file: File,
    place: u64,
}

impl Report {
    fn say(&self, text: &str) {
        // there is nobody else to tell, and the status says enough
        self.file.write_all_at(text.as_bytes(), self.place).unwrap_or_default();
    }
}

fn plan() -> io::Result<(Report, Plan)> {
    let file = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?);
    let place = file.metadata()?.len();
    let mut bytes = vec![0; usize::try_from(place).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    let plan = Plan::read(&bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok((Report { file, place }, plan))
}

/// Outside: leaves the worker's namespaces and starts the process inside, or goes on as the command
/// where there is no inside.
fn leave(plan: &Plan, report: &Report) -> Result<ExitCode, Fault> {
    die_with_parent()?;
    if rustix::process::getppid().map(Pid::as_raw_pid) != Some(plan.worker) {
        return Err(Fault("the worker is gone".to_owned()));
    }
    // we open nothing that is inherited, but whoever started the worker may have, and libraries for
    // tokens
    CloseFdsBuilder::new().cloexecfrom(3);
    for group in &plan.groups {
        fs::write(group, "0").or_fault("to join a control group")?;
    }
    let flags = plan.flags;
    if flags.filesystem && !flags.processes {
        // the mounts would be everybody's
        return Err(Fault("a view of files without a namespace".to_owned()));
    }
    if flags.session {
        rustix::process::setsid().or_fault("a session of its own")?;
    }
    if flags.processes || flags.network {
        leave_namespaces(flags)?;
    }
    if !flags.processes {
        return enter(plan, report);
    }
    let stdin = report.file.try_clone().or_fault("the plan")?;
    let mut inside = Command::new("/proc/self/exe")
        .arg0("custody")
        .args([VERB, INSIDE])
        .stdin(stdin)
        .spawn()
        .or_fault("a namespace of processes")?;
    let status = inside.wait().or_fault("the end of the namespace")?;
    Ok(exit_code(status.code(), status.signal()))
}

fn leave_namespaces(flags: Flags) -> Result<(), Fault> {
    if !rustix::process::geteuid().is_root() {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        unshare(CloneFlags::CLONE_NEWUSER).or_fault("a namespace of users")?;
        fs::write("/proc/self/setgroups", "deny")
            .and_then(|()| fs::write("/proc/self/uid_map", format!("{uid} {uid} 1")))
            .and_then(|()| fs::write("/proc/self/gid_map", format!("{gid} {gid} 1")))
            .or_fault("a namespace of users")?;
        rights::keep_for_inside().or_fault("rights in a namespace of users")?;
    }
    let mut kinds = CloneFlags::empty();
    if flags.network {
        kinds |= CloneFlags::CLONE_NEWNET;
    }
    if flags.processes {
        kinds |= CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        kinds |= CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    }
    unshare(kinds).or_fault("namespaces")
}

/// Inside: takes the rest away, and becomes the command or waits for it.
fn enter(plan: &Plan, report: &Report) -> Result<ExitCode, Fault> {
    let flags = plan.flags;
    die_with_parent()?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if flags.session && flags.processes {
        // a signal to its whole group does not go to us outside
        rustix::process::setsid().or_fault("a session of its own")?;
    }
    if flags.filesystem {
        view::enter(plan)?;
    } else if flags.processes {
        view::processes_only()?;
    }
    rustix::process::chdir(&plan.directory).or_fault("the working directory")?;
    rights::limit(plan)?;
    if flags.privileges {
        rights::drop_all(plan.user)?;
        // the change of user took it away
        die_with_parent()?;
    }
    if flags.processes {
        // nobody inside looks into process 1
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .or_fault("to be out of reach")?;
    }
    let version = if flags.landlock { rights::fence(plan)? } else { 0 };
    report.say(&version.to_string());
    let Some((program, arguments)) = plan.words.split_first() else {
        // a trial
        return Ok(ExitCode::SUCCESS);
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(plan.variables.iter().map(|(name, value)| (name, value)));
    command.stdin(Stdio::null());
    let failed = |error: io::Error| {
        let text = format!("custody: {}: {error}\n", program.display());
        // its output is the log
        io::Write::write_all(&mut io::stderr(), text.as_bytes()).unwrap_or_default();
        ExitCode::from(if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
    };
    if !flags.processes {
        return Ok(failed(command.exec()));
    }
    match command.spawn() {
        Ok(child) => wait_for(Pid::from_child(&child)),
        Err(error) => Ok(failed(error)),
    }
}

/// As process 1, takes in who ends until it is the command. Then all others are killed.
fn wait_for(command: Pid) -> Result<ExitCode, Fault> {
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((child, status))) if child == command => {
                return Ok(exit_code(status.exit_status(), status.terminating_signal()));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).or_fault("the end of the command"),
        }
    }
}

/// As shells say it.
fn exit_code(status: Option<i32>, signal: Option<i32>) -> ExitCode {
    let code = status.or(signal.map(|signal| 128 + signal)).unwrap_or(i32::from(FAULT));
    ExitCode::from(u8::try_from(code).unwrap_or(FAULT))
}

fn die_with_parent() -> Result<(), Fault> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .or_fault("to end with the worker")
}
