//! Writes `vectors/`. Running it again changes nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use custody_vectors::{RANDOM, ROOT, all};

fn main() -> io::Result<()> {
    let (files, random) = all();
    let wanted: BTreeSet<_> = files.keys().map(|path| Path::new(ROOT).join(path)).collect();
    for folder in ["cases", "files"] {
        remove_others(&Path::new(ROOT).join(folder), &wanted)?;
    }
    for (path, bytes) in &files {
        let path = Path::new(ROOT).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    fs::write(RANDOM, random)
}

fn remove_others(folder: &Path, wanted: &BTreeSet<std::path::PathBuf>) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
