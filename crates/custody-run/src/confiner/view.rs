//! The files that a command sees: a root of its own, with the system to read and its working directory
//! to write.
//!
//! What is not named here is not there: homes, the store, keys, sockets of services and engines.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive,
    mount_change, mount_remount, unmount,
};
use rustix::process::{chdir, pivot_root};

use super::plan::{Plan, TRIAL};
use super::{Fault, OrFault as _};

/// The directories of the system, where they exist: programs, libraries, and how they are set up. Of Nix
/// the store alone: beside it is the socket of a service that fetches and builds for everybody.
pub(super) const SYSTEM: &[&str] =
    &["bin", "etc", "lib", "lib32", "lib64", "libx32", "nix/store", "opt", "sbin", "usr"];

/// The devices, none of which leads to anybody.
pub(super) const DEVICES: &[&str] = &["full", "null", "random", "urandom", "zero"];

/// New and empty directories of the command's own, in memory.
pub(super) const WRITABLE: &[&str] = &["/tmp", "/var/tmp", "/dev/shm"];

/// Directories that programs expect, and that stay empty.
const EMPTY: &[&str] = &["home", "root", "run", "var"];

/// Links that programs expect.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "dev/fd"),
    ("/proc/self/fd/0", "dev/stdin"),
    ("/proc/self/fd/1", "dev/stdout"),
    ("/proc/self/fd/2", "dev/stderr"),
    ("../run", "var/run"),
];

/// Parts of /proc by which who is root, without any capability, could still change the machine.
const CONTROLS: &[&str] = &["acpi", "bus", "fs", "irq", "sys", "sysrq-trigger"];

const PLAIN: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Makes the view and enters it. What was seen before is gone.
pub(super) fn enter(plan: &Plan) -> Result<(), Fault> {
    private()?;
    if plan.directory == Path::new(TRIAL) {
        let made = ["home", "inputs"].map(|name| plan.directory.join(name));
        empty(Path::new("/tmp"), "mode=755")
            .and_then(|()| made.iter().try_for_each(|path| directory(path)))
            .or_fault("a directory to try it in")?;
    }
    // a directory that is ours and empty; the view shows what is under it
    let root = plan.directory.join("home");
    empty(&root, "mode=755").or_fault("a root directory")?;
    let within = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
    system(&root).or_fault("the system's directories")?;
    EMPTY.iter().try_for_each(|name| directory(&root.join(name))).or_fault("empty directories")?;
    devices(&root).or_fault("devices")?;
    LINKS.iter().try_for_each(|(to, name)| symlink(to, root.join(name))).or_fault("links")?;
    processes(&root.join("proc")).or_fault("/proc")?;
    for path in &plan.hidden {
        hide(&within(path)).or_fault("to hide what the command must not see")?;
    }
    for path in WRITABLE {
        let path = within(Path::new(path));
        directory(&path)
            .and_then(|()| empty(&path, "mode=1777"))
            .or_fault("a directory for temporary files")?;
    }
    for path in &plan.lent {
        lend(path, &within(path)).or_fault("what the command may read")?;
    }
    for path in [&plan.directory].into_iter().chain(&plan.shared) {
        let place = within(path);
        directory(&place)
            .and_then(|()| Ok(mount_bind(path, &place)?))
            .or_fault("the working directory")?;
    }
    // what was lent and shared may have brought it back
    let given =
        |path: &&PathBuf| plan.lent.iter().chain(&plan.shared).any(|dir| path.starts_with(dir));
    for path in plan.hidden.iter().filter(given) {
        hide(&within(path)).or_fault("to hide what the command must not see")?;
    }
    let inputs = within(&plan.directory).join("inputs");
    mount_bind(&inputs, &inputs).or_fault("inputs")?;
    seal(&inputs).and_then(|()| seal(&root)).or_fault("that inputs and system are only read")?;
    change_root(&root).or_fault("to enter the root directory")
}

/// Without a view of its own: only that the processes it sees are its own.
pub(super) fn processes_only() -> Result<(), Fault> {
    private()?;
    processes(Path::new("/proc")).or_fault("/proc")
}

/// What is mounted here is mounted nowhere else.
fn private() -> Result<(), Fault> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .or_fault("mounts of its own")
}

fn directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

fn empty(at: &Path, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(mount("custody", at, "tmpfs", PLAIN, options.as_c_str())?)
}

fn system(root: &Path) -> io::Result<()> {
    for name in SYSTEM {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        match from.symlink_metadata() {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&from)?, to)?,
            Ok(found) if found.is_dir() => {
                directory(&to)?;
                mount_bind_recursive(&from, &to)?;
            }
            _ => {}
        }
    }
    // beneath it there may be other mounts
    mounts(root)?.iter().try_for_each(|place| seal(place))
}

fn devices(root: &Path) -> io::Result<()> {
    directory(&root.join("dev"))?;
    for name in DEVICES {
        let place = root.join("dev").join(name);
        File::create(&place)?;
        mount_bind(Path::new("/dev").join(name), &place)?;
    }
    Ok(())
}

fn processes(at: &Path) -> io::Result<()> {
    directory(at)?;
    mount("proc", at, "proc", PLAIN | MountFlags::NOEXEC, None)?;
    for name in CONTROLS {
        let path = at.join(name);
        if path.exists() {
            mount_bind(&path, &path)?;
            seal(&path)?;
        }
    }
    Ok(())
}

/// Puts nothing in its place, if the view has it.
fn hide(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => empty(path, "mode=755"),
        Ok(found) if found.is_symlink() => Ok(()),
        Ok(_) => Ok(mount_bind("/dev/null", path)?),
        Err(_) => Ok(()),
    }
}

fn lend(from: &Path, to: &Path) -> io::Result<()> {
    if from.is_dir() {
        directory(to)?;
    } else {
        directory(to.parent().unwrap_or(to))?;
        // there may be one, among the directories of the system
        if !to.exists() {
            File::create(to)?;
        }
    }
    mount_bind(from, to)?;
    seal(to)
}

/// What is mounted there can only be read from now on. Other properties are not ours to take away.
fn seal(place: &Path) -> io::Result<()> {
    let found = rustix::fs::statvfs(place)?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY | PLAIN;
    if found.contains(StatVfsMountFlags::NOEXEC) {
        flags |= MountFlags::NOEXEC;
    }
    Ok(mount_remount(place, flags, "")?)
}

/// What is mounted beneath a directory; not on itself.
fn mounts(root: &Path) -> io::Result<Vec<PathBuf>> {
    let listed = fs::read("/proc/self/mountinfo")?;
    let place = |line: &[u8]| Some(unescaped(line.split(|&byte| byte == b' ').nth(4)?));
    let places = listed.split(|&byte| byte == b'\n').filter_map(place);
    Ok(places.filter(|place| place != root && place.starts_with(root)).collect())
}

/// The kernel writes blanks, tabs, line ends and backslashes as three octal digits.
fn unescaped(mut field: &[u8]) -> PathBuf {
    let mut bytes = Vec::new();
    while let Some((&first, rest)) = field.split_first() {
        let code = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) if first == b'\\' => {
                bytes.push(code);
                field = rest.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                field = rest;
            }
        }
    }
    std::ffi::OsStr::from_bytes(&bytes).into()
}

fn change_root(root: &Path) -> io::Result<()> {
    chdir(root)?;
    // the old root lies over the new one, and is taken off
    pivot_root(".", ".")?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_mounts_are_read_as_the_kernel_writes_them() {
        for (field, path) in [("/a", "/a"), ("/a\\040b\\134", "/a b\\"), ("/a\\04", "/a\\04")] {
            assert_eq!(unescaped(field.as_bytes()), Path::new(path));
        }
        assert!(mounts(Path::new("/")).unwrap().iter().any(|place| place == "/proc"));
    }
}
