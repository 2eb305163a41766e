//! Downloads: a proxy of the worker through which a command fetches, and which makes an explained input of
//! every byte that it gives.
//!
//! The command is in a network namespace of its own, and the proxy is all that it reaches there
//! (`gateway`). Only `GET` and `HEAD` below the beginnings that the task names are answered, and with
//! nothing but whole bodies, each in the store and held against its pin before the command sees the end
//! of it (`ledger`). A URI stands for one sequence of bytes: no header of the command goes further, so
//! that no other makes it another one.

mod authority;
pub mod gateway;
mod ledger;
pub mod upstream;
mod wire;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use custody_core::statement::{Downloads, UsedInput};
use custody_core::{Code, Refusal};
use custody_store::Store;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use self::authority::Authority;
use self::gateway::Gateway;
use self::ledger::Ledger;
use self::upstream::Upstream;
use crate::execute::{Confinement, Outcome, Run, execute};
use crate::stage::copy::unavailable;

/// The sum of all bodies of a run, in bytes.
pub const DOWNLOAD_BYTES: u64 = 16 << 30;

/// How many connections are served at a time; others wait.
const CONNECTIONS: usize = 64;

/// How long it takes at most to notice that the command has ended.
const TICK: Duration = Duration::from_millis(50);

/// The proxy of one run.
#[derive(Debug)]
pub struct Proxy<'p> {
    ledger: Ledger<'p>,
    authority: Authority,
}

/// What came of a run's requests.
#[derive(Debug, Default)]
pub struct Fetched {
    /// What was given, each URI once.
    pub inputs: Vec<UsedInput>,
    /// What was not given, and why, one line each.
    pub notes: Vec<String>,
}

impl<'p> Proxy<'p> {
    /// A proxy for these downloads, which gives at most `limit` bytes ([`DOWNLOAD_BYTES`] as a rule).
    pub fn new(
        store: &'p Store,
        downloads: &'p Downloads,
        upstream: &'p Upstream,
        limit: u64,
    ) -> Result<Self, Refusal> {
        let authority = Authority::new()?;
        Ok(Self { ledger: Ledger::new(store, downloads, upstream, limit), authority })
    }

    /// The certificate that clients of this run trust, in PEM.
    pub fn certificate(&self) -> String {
        self.authority.pem()
    }

    /// Answers whoever comes to the listener for as long as `work` takes.
    pub fn during<T>(&self, listener: &TcpListener, work: impl FnOnce() -> T) -> T {
        let (stop, open) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            scope.spawn(|| self.accept(scope, listener, &stop, &open));
            let done = work();
            stop.store(true, Ordering::Relaxed);
            self.ledger.stop();
            done
        })
    }

    /// What was given and what was not; or the refusal for which the run must have no manifest.
    pub fn finish(self) -> Result<Fetched, Refusal> {
        self.ledger.finish()
    }

    fn accept<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        listener: &'scope TcpListener,
        stop: &'scope AtomicBool,
        open: &'scope AtomicUsize,
    ) {
        while !stop.load(Ordering::Relaxed) {
            let full = open.load(Ordering::Relaxed) >= CONNECTIONS;
            if full || !is_ready(listener) {
                thread::sleep(if full { TICK } else { Duration::ZERO });
                continue;
            }
            let Ok((stream, _)) = listener.accept() else { continue };
            open.fetch_add(1, Ordering::Relaxed);
            // where there is no thread left, as a command that starts too many can see to, the client is
            // sent away: `spawn` would panic
            let served = thread::Builder::new().spawn_scoped(scope, move || {
                // whoever goes away in the middle has nothing to be told
                self.connection(&stream, stop).unwrap_or_default();
                open.fetch_sub(1, Ordering::Relaxed);
            });
            if served.is_err() {
                open.fetch_sub(1, Ordering::Relaxed);
                thread::sleep(TICK);
            }
        }
    }

    fn connection(&self, stream: &TcpStream, stop: &AtomicBool) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(TICK))?;
        stream.set_nodelay(true)?;
        let mut plain = wire::Connection::new(wire::Patient::new(stream, stop));
        let Some(host) = plain.serve(None, &self.ledger)? else { return Ok(()) };
        let config = self.authority.config_for(&host).map_err(io::Error::other)?;
        let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
        let tls = rustls::StreamOwned::new(session, wire::Patient::new(stream, stop));
        wire::Connection::new(tls).serve(Some(&host), &self.ledger).map(|_| ())
    }
}

/// Waits a little for somebody to come.
fn is_ready(listener: &TcpListener) -> bool {
    let timeout = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&timeout)).is_ok_and(|count| count > 0)
}

/// The variables that lead clients to the proxy and let them trust it. What the task sets itself stands.
pub fn variables(proxy: SocketAddr, certificate: &Path) -> Vec<(String, String)> {
    const PROXY: [&str; 10] = [
        "ALL_PROXY",
        "CARGO_HTTP_PROXY",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "PIP_PROXY",
        "all_proxy",
        "http_proxy",
        "https_proxy",
        "npm_config_https_proxy",
        "npm_config_proxy",
    ];
    const CERTIFICATE: [&str; 8] = [
        "CARGO_HTTP_CAINFO",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "PIP_CERT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
        "npm_config_cafile",
    ];
    // questions that registries do not have to answer for a build
    const QUIET: [(&str, &str); 3] = [
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
        ("npm_config_audit", "false"),
        ("npm_config_update_notifier", "false"),
    ];
    let proxy = format!("http://{proxy}");
    let certificate = certificate.display().to_string();
    let to = |names: &'static [&'static str], value: String| {
        names.iter().map(move |name| ((*name).to_owned(), value.clone()))
    };
    let quiet = QUIET.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    to(&PROXY, proxy).chain(to(&CERTIFICATE, certificate)).chain(quiet).collect()
}

/// Runs a command as [`execute`] does, in a network in which there is the proxy and nothing else. What
/// the proxy did not give stands at the end of the log.
pub(crate) fn execute_with_downloads(
    run: &Run<'_>,
    downloads: &Downloads,
    machine: &Confinement,
    (store, upstream): (&Store, &Upstream),
    live: &mut (dyn FnMut(&[u8]) + Send),
    cancelled: &AtomicBool,
) -> Result<(Outcome, Vec<UsedInput>), Refusal> {
    let gateway = Gateway::open()?;
    let proxy = Proxy::new(store, downloads, upstream, DOWNLOAD_BYTES)?;
    let certificate = run.directory.home().join(".custody-downloads.pem");
    fs::write(&certificate, proxy.certificate())
        .map_err(|error| unavailable(&certificate, &error))?;
    let mut task = run.task.clone();
    task.variables = variables(gateway.address(), &certificate);
    task.variables.extend(run.task.variables.iter().cloned());
    let run = Run { task: &task, ..*run };
    // it stays in the network that it is started in
    let machine = Confinement { network: false, ..machine.clone() };
    let outcome = proxy.during(gateway.listener(), || {
        gateway.within(|| execute(&run, &machine, &mut *live, cancelled))
    });
    let mut outcome = outcome??;
    let fetched = proxy.finish()?;
    if !fetched.notes.is_empty() {
        append(&mut outcome, &run, &fetched.notes, live)?;
    }
    outcome.confinement.network = true;
    Ok((outcome, fetched.inputs))
}

/// Puts lines of the worker after those of the command.
fn append(
    outcome: &mut Outcome,
    run: &Run<'_>,
    notes: &[String],
    live: &mut dyn FnMut(&[u8]),
) -> Result<(), Refusal> {
    let text = format!("\n[custody: downloads that were not given]\n{}\n", notes.join("\n"));
    live(text.as_bytes());
    let fault = |error: io::Error| unavailable(run.log, &error);
    let mut log = fs::OpenOptions::new().append(true).open(run.log).map_err(fault)?;
    io::Write::write_all(&mut log, text.as_bytes()).map_err(fault)?;
    (outcome.log, outcome.log_size) =
        crate::hash::hash_file(run.log, run.task.sha512).map_err(fault)?;
    Ok(())
}

/// What could not be made for a reason that is not the command's.
fn failed(what: &str, found: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::GateUnavailable, "the proxy for downloads", what, found.to_string())
}
