//! What a person's own verifications have seen, by pin: the newest policy and the latest time. It
//! keeps an older policy from being served later.

use std::fs;
use std::path::PathBuf;

use custody_core::envelope::StatementId;
use custody_core::{Code, Refusal};
use custody_store::durable::replace_file;
use custody_verify::Floor;

use crate::error::Error;

/// The record of one pin: `$XDG_STATE_HOME/custody/PIN.json`, by default under `~/.local/state`.
pub(crate) struct Seen {
    path: PathBuf,
}

impl Seen {
    pub(crate) fn of(pin: StatementId) -> Result<Self, Error> {
        let state =
            std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = state.or_else(home).ok_or_else(|| {
            Error::Usage("HOME is not set: nowhere to remember what was seen".into())
        })?;
        Ok(Self { path: state.join("custody").join(format!("{pin}.json")) })
    }

    /// What was seen; nothing the first time. A record that cannot be read is never taken for none.
    pub(crate) fn floor(&self) -> Result<Option<Floor>, Error> {
        let bytes = match fs::read(&self.path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io(&self.path))?,
        };
        let at = self.path.display().to_string();
        Floor::parse(&bytes).map(Some).map_err(|refusal: Refusal| {
            Refusal { code: Code::StoreCorrupt, ..refusal }.within(&at).into()
        })
    }

    pub(crate) fn raise(&self, floor: Floor) -> Result<(), Error> {
        let before = self.floor()?;
        let time = before.map_or(floor.time, |before| before.time.max(floor.time));
        let highest = before.filter(|before| before.version > floor.version).unwrap_or(floor);
        let kept = Floor { time, ..highest };
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        replace_file(&self.path, kept.to_json().as_bytes(), 0o600).map_err(Error::io(&self.path))
    }
}
