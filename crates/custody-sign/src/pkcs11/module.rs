//! The libraries that speak to tokens.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use custody_core::Refusal;

use super::told;
use crate::unavailable;

/// A library is initialised once in a process, and stays until its end: another part of the process may
/// use it too.
static LOADED: Mutex<BTreeMap<PathBuf, Pkcs11>> = Mutex::new(BTreeMap::new());

/// Loads the library, whose code can then do all that we can. The path is absolute, so that the loader
/// looks nowhere else.
pub(super) fn load(path: &Path) -> Result<Pkcs11, Refusal> {
    let at = path.display().to_string();
    let path = fs::canonicalize(path)
        .map_err(|error| unavailable(&at, "the token's PKCS#11 library", error))?;
    check_private(&path).map_err(|refusal| refusal.within(&at))?;
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(module) = loaded.get(&path) {
        return Ok(module.clone());
    }
    let fault = |error: Error| unavailable(&at, "a PKCS#11 library that loads", told(&error));
    let module = Pkcs11::new(&path).map_err(fault)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(fault(error)),
    }
    loaded.insert(path, module.clone());
    Ok(module)
}

/// That nobody but us and root can put other code there.
fn check_private(path: &Path) -> Result<(), Refusal> {
    const STICKY: u32 = 0o1000;
    let us = rustix::process::geteuid().as_raw();
    for place in path.ancestors() {
        let metadata = fs::metadata(place);
        let metadata = metadata.map_err(|error| unavailable("", "a library to load", error))?;
        let (mode, owner) = (metadata.mode(), metadata.uid());
        // a group of administrators may own directories, as below /usr/local
        let others = if metadata.is_dir() && mode & STICKY != 0 {
            0
        } else if metadata.is_dir() {
            0o002
        } else {
            0o022
        };
        if mode & others != 0 || (owner != us && owner != 0) {
            let expected = format!("a library that only user {us} and root can change");
            let found = format!("{}: owner {owner}, mode {:o}", place.display(), mode & 0o7777);
            return Err(unavailable("", expected, found));
        }
    }
    Ok(())
}
