//! What a command may do: its user, capabilities and limits, and the fence of Landlock around files.

use std::io;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, LandlockStatus, Ruleset, RulesetAttr as _, RulesetCreated,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::plan::Plan;
use super::view::{DEVICES, SYSTEM, WRITABLE};
use super::{Fault, OrFault as _};
use crate::execute::User;

/// Descriptors: what programs count on, and how far they may go.
const DESCRIPTORS: (u64, u64) = (1024, 65_536);

/// What the process inside needs in a namespace of users, and would lose when it is started.
pub(super) fn keep_for_inside() -> io::Result<()> {
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::SETPCAP;
    let sets = CapabilitySets { inheritable: needed, ..rustix::thread::capabilities(None)? };
    rustix::thread::set_capabilities(None, sets)?;
    for capability in needed.iter() {
        rustix::thread::configure_capability_in_ambient_set(capability, true)?;
    }
    Ok(())
}

/// Gives up the user and all capabilities, for this process and all that it starts.
pub(super) fn drop_all(user: Option<User>) -> Result<(), Fault> {
    rustix::thread::set_no_new_privs(true).or_fault("that programs give no rights")?;
    rustix::thread::clear_ambient_capability_set().or_fault("to drop capabilities")?;
    if rustix::thread::capabilities(None)
        .or_fault("capabilities")?
        .effective
        .contains(CapabilitySet::SETPCAP)
    {
        // up to the first that this kernel does not know
        for bit in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << bit);
            if rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
                break;
            }
        }
    }
    if let Some(User { uid, gid }) = user {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[])
            .and_then(|()| rustix::thread::set_thread_res_gid(gid, gid, gid))
            .and_then(|()| rustix::thread::set_thread_res_uid(uid, uid, uid))
            .or_fault("to become another user")?;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    rustix::thread::set_capabilities(None, none).or_fault("to drop capabilities")
}

/// A core dump of so many bytes is none: it is too small for a file, and where the kernel hands cores to a
/// program of the machine, which no limit stops, not even 0, this one number does (core(5), in the
/// kernel's `fs/coredump.c`).
const NO_CORE: u64 = 1;

/// Limits that hold for each process. Nothing writes its memory into a file when it fails.
pub(super) fn limit(plan: &Plan) -> Result<(), Fault> {
    let set = |resource, soft: u64, hard: u64| {
        let most = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX).min(hard);
        let limit = Rlimit { current: Some(soft.min(most)), maximum: Some(most) };
        rustix::process::setrlimit(resource, limit).or_fault("limits")
    };
    set(Resource::Core, NO_CORE, NO_CORE)?;
    set(Resource::Nofile, DESCRIPTORS.0, DESCRIPTORS.1)?;
    plan.memory.map_or(Ok(()), |memory| set(Resource::As, memory, memory))?;
    plan.count.map_or(Ok(()), |count| set(Resource::Nproc, count, count))
}

/// Leaves only the files that the view has, even where there is no view of its own, and no process
/// outside that could be reached by a socket without a name or by a signal. Gives the version of
/// Landlock.
pub(super) fn fence(plan: &Plan) -> Result<i32, Fault> {
    const KNOWN: ABI = ABI::V6;
    let (read, all) = (AccessFs::from_read(KNOWN), AccessFs::from_all(KNOWN));
    let on_device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let viewed = plan.flags.filesystem;
    // a view has nothing that may not be read
    let readable: &[&str] = if viewed { &["/"] } else { SYSTEM };
    let readable = readable.iter().map(|name| Path::new("/").join(name)).chain(["/proc".into()]);
    let readable = readable.chain(plan.lent.iter().cloned());
    let devices = DEVICES.iter().map(|name| Path::new("/dev").join(name));
    let own = [&plan.directory].into_iter().chain(&plan.shared).map(PathBuf::as_path);
    let own = own.chain(WRITABLE.iter().filter(|_| viewed).map(Path::new));
    let status = Ruleset::default()
        .handle_access(all)
        .and_then(|rules| rules.scope(Scope::from_all(KNOWN)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(readable, read)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(devices, on_device)))
        .and_then(|rules| rules.add_rules(path_beneath_rules(own, all)))
        .and_then(RulesetCreated::restrict_self)
        .map_err(io::Error::other)
        .or_fault("Landlock")?;
    match status.landlock {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Ok(kernel_abi.unwrap_or(effective_abi as i32))
        }
        _ => Err(Fault("Landlock: the kernel has it not".to_owned())),
    }
}
