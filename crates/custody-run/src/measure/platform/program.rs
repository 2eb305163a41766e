//! Programs that speak to a platform for us.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use custody_core::limits::ATTESTATION_BYTES;

use super::Unanswered;

/// A TPM takes seconds for a signature.
const TIMEOUT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(5);
/// How much of what a program complains about is told.
const SHOWN: usize = 300;

/// Runs a program with this environment and no other, and gives what it prints.
pub(super) fn output(
    words: &[&str],
    environment: &[(&str, String)],
) -> Result<Vec<u8>, Unanswered> {
    let name = words.first().copied().unwrap_or_default();
    let unanswered = |found: String| Unanswered::new(format!("{name} to answer"), found);
    let io = |error: std::io::Error| unanswered(error.to_string());
    // files take any amount while the program is waited for
    let [printed, complaints] = [tempfile::tempfile(), tempfile::tempfile()];
    let (mut printed, mut complaints) = (printed.map_err(io)?, complaints.map_err(io)?);
    let mut child = Command::new(name)
        .args(words.get(1..).unwrap_or_default())
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(printed.try_clone().map_err(io)?)
        .stderr(complaints.try_clone().map_err(io)?)
        .spawn()
        .map_err(io)?;
    let deadline = Instant::now() + TIMEOUT;
    let status = loop {
        match child.try_wait().map_err(io)? {
            Some(status) => break status,
            None if Instant::now() < deadline => std::thread::sleep(PAUSE),
            None => {
                child.kill().and_then(|()| child.wait()).map_err(io)?;
                return Err(unanswered(format!("nothing for {} s", TIMEOUT.as_secs())));
            }
        }
    };
    if !status.success() {
        let said = read(&mut complaints, SHOWN).map_err(io)?;
        let said = String::from_utf8_lossy(&said).trim().replace(char::is_control, " ");
        return Err(unanswered(format!("{status}: {said}")));
    }
    let printed = read(&mut printed, ATTESTATION_BYTES + 1).map_err(io)?;
    if printed.len() > ATTESTATION_BYTES {
        return Err(unanswered(format!("more than {ATTESTATION_BYTES} bytes")));
    }
    Ok(printed)
}

/// From the beginning, up to this many bytes.
pub(super) fn read(file: &mut File, limit: usize) -> std::io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_gets_what_it_is_given_and_nothing_else() {
        let path = ("PATH", "/usr/bin:/bin".to_owned());
        let printed = output(&["env"], &[path.clone(), ("A", "b".to_owned())]).unwrap();
        assert_eq!(String::from_utf8(printed).unwrap().lines().count(), 2);
        let failed = output(&["sh", "-c", "echo no luck >&2; exit 3"], std::slice::from_ref(&path));
        assert_eq!(failed.unwrap_err().found, "exit status: 3: no luck");
        let long = format!("head -c {} /dev/zero", ATTESTATION_BYTES + 1);
        assert!(output(&["sh", "-c", &long], &[path]).unwrap_err().found.starts_with("more than"));
        assert!(output(&["/no/such/program"], &[]).is_err());
    }
}
