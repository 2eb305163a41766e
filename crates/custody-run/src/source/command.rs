//! Running git and hg so that no configuration, hook or variable of anybody has a say.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use custody_core::{Code, Refusal};

use crate::stage::copy::unavailable;

/// Variables by which an operator reaches repositories; nothing else of our environment is passed.
const PASSED: [&str; 8] = [
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "https_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
];

/// How both reach a repository by SSH: never asking anybody, and not for ever.
pub(super) const SSH: &str = "ssh -oBatchMode=yes -oConnectTimeout=30 -oServerAliveInterval=15";

/// A command with an environment of its own, in `home`.
pub(super) fn clean(program: &str, home: &Path) -> Command {
    let passed = PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let mut command = Command::new(program);
    command
        .current_dir(home)
        .env_clear()
        .envs(passed)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .env("HOME", home)
        .stdin(Stdio::null());
    command
}

/// Where what a command complains about goes. Into a file: who reads one of two pipes may wait for ever
/// for the other, and the standard library, which reads both, panics if it cannot.
fn complaints(home: &Path, program: &str) -> Result<File, Refusal> {
    let path = home.join("complaints");
    File::create(&path).map_err(|error| unavailable(Path::new(program), &error))
}

/// What a command said last, cleaned and cut.
pub(super) fn said(home: &Path) -> String {
    let stderr = fs::read(home.join("complaints")).unwrap_or_default();
    String::from_utf8_lossy(&stderr).trim().escape_debug().take(400).collect()
}

/// Runs a command to its end and gives what it printed. `absent` are words by which it says that what
/// was asked for is not there, or not sound.
pub(super) fn run(
    command: &mut Command,
    home: &Path,
    absent: &[&str],
    what: &str,
) -> Result<Vec<u8>, Refusal> {
    let program = command.get_program().to_string_lossy().into_owned();
    let fault = |error: io::Error| unavailable(Path::new(&program), &error);
    let complaints = complaints(home, &program)?;
    let mut child = command.stdout(Stdio::piped()).stderr(complaints).spawn().map_err(fault)?;
    let mut stdout = Vec::new();
    let read = child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read_to_end(&mut stdout));
    // first the end of the child, which has nothing to write to any more
    let status = child.wait().map_err(fault)?;
    read.map_err(fault)?;
    if status.success() {
        return Ok(stdout);
    }
    let shown = said(home);
    if absent.iter().any(|words| shown.contains(words)) {
        let expected = "a sound revision that the repository has";
        return Err(Refusal::new(Code::ChainSourceMismatch, what, expected, shown));
    }
    let advice = "see that this machine reaches the repository, or name a clone that it has with \
                  --repository DIR; then run the task again";
    Err(Refusal::new(Code::GateUnavailable, what, "to read the repository", shown).advising(advice))
}

/// A command that answers for as long as it is asked, and ends with this value.
pub(super) struct Server(pub(super) Child);

impl Server {
    pub(super) fn start(command: &mut Command, home: &Path) -> Result<Self, Refusal> {
        let program = command.get_program().to_string_lossy().into_owned();
        let complaints = complaints(home, &program)?;
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .map(Self)
            .map_err(|error| unavailable(Path::new(&program), &error))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // it only reads, so nothing is lost; and it may have ended already
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
