//! A network namespace with a loopback device and one listener, which a command can be started in.
//!
//! Whoever is in it reaches the listener and nothing else: there is no other device, no name server and
//! no way out. The worker holds the listener from outside.

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::thread;

use custody_core::{Code, Refusal};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the programs of the system are.
const PATH: &str = "/usr/bin:/bin";

/// The network of one command.
#[derive(Debug)]
pub struct Gateway {
    namespace: OwnedFd,
    listener: TcpListener,
    address: SocketAddr,
}

impl Gateway {
    /// Makes a new network. It takes root, and a kernel with namespaces:
    /// [`Code::WorkerIsolationMissing`] otherwise.
    pub fn open() -> Result<Self, Refusal> {
        let missing = |error: io::Error| {
            let expected = "a network namespace for the command's downloads (root, and unshare)";
            let found = error.to_string();
            Refusal::new(Code::WorkerIsolationMissing, "worker", expected, found)
        };
        let namespace = new_namespace().map_err(missing)?;
        let listener = in_namespace(&namespace, || {
            loopback_up()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        });
        let listener = listener.and_then(|listener| listener).map_err(missing)?;
        let address = listener.local_addr().map_err(missing)?;
        Ok(Self { namespace, listener, address })
    }

    /// Who answers in it.
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Where that is, seen from inside.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does something in a thread that is in this network; what it starts is in it too.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Refusal> {
        in_namespace(&self.namespace, work).map_err(|error| {
            let expected = "to enter the network namespace that was made";
            Refusal::new(Code::WorkerIsolationMissing, "worker", expected, error.to_string())
        })
    }
}

/// The thread ends with the work, so that nobody is left in the wrong network.
fn in_namespace<T: Send>(namespace: &OwnedFd, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A namespace lives as long as somebody is in it or holds it: the program that makes it ends as soon
/// as we do.
fn new_namespace() -> io::Result<OwnedFd> {
    let mut child = Command::new("unshare")
        .args(["--net", "--", "/bin/sh", "-c", "echo && read -r end"])
        .env_clear()
        .env("PATH", PATH)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let ready = child.stdout.take().map(|mut stdout| stdout.read(&mut [0]));
    let namespace = match ready {
        Some(Ok(1)) => std::fs::File::open(format!("/proc/{}/ns/net", child.id())),
        _ => Err(io::Error::other("unshare --net does not work")),
    };
    drop(child.stdin.take());
    child.wait()?;
    namespace.map(OwnedFd::from)
}

/// Sets the loopback device up (rtnetlink(7)). In a new namespace it is the first.
fn loopback_up() -> io::Result<()> {
    const LENGTH: u32 = 32;
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_AND_ACKNOWLEDGE: u16 = 1 | 4;
    const FIRST: u32 = 1;
    const UP: u32 = 1;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACKNOWLEDGE.to_ne_bytes());
    // sequence, sender, and of the device: family, type
    message.extend([0; 12]);
    message.extend(FIRST.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // the protocol is the first of them, NETLINK_ROUTE
        None,
    )?;
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 64];
    let (length, _) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty())?;
    // after the head, the negative number of an error, or 0
    let error = answer.get(16..20).filter(|_| length >= 20);
    match error.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::Error::other("no answer of rtnetlink")),
    }
}
