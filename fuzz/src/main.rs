//! Fuzz targets for every parser of Custody and for the judge as a whole.
//!
//! All targets are in one program, so that there is one to build. `CUSTODY_FUZZ` says which one runs;
//! without it, the seeds of all targets are written to the directory `CUSTODY_FUZZ_SEEDS`. `fuzz/run`
//! does both.
#![no_main]

mod formats;
mod keys;
mod machines;
mod seeds;
mod texts;
mod verify;

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;

/// Runs on the bytes of the fuzzer, and panics if what must hold does not.
type Target = fn(&[u8]);

const TARGETS: &[(&str, Target)] = &[
    ("artifact-name", texts::artifact_name),
    ("attestation", machines::attestation),
    ("bundle", formats::bundle),
    ("chain", verify::chain),
    ("destination", texts::destination),
    ("digest", texts::digest),
    ("envelope", formats::envelope),
    ("floor", formats::floor),
    ("json", formats::json),
    ("key-source", keys::key_source),
    ("pipeline", texts::pipeline),
    ("policy", texts::policy),
    ("platform-keys", machines::platform_keys),
    ("private-key", keys::private_key),
    ("public-key", keys::public_key),
    ("sshsig", keys::sshsig),
    ("statement", formats::statement),
    ("time", texts::time),
    ("verify", verify::world),
];

static CHOSEN: OnceLock<Target> = OnceLock::new();

fn choose() {
    if let Some(folder) = std::env::var_os("CUSTODY_FUZZ_SEEDS") {
        seeds::write(folder.as_ref());
        std::process::exit(0);
    }
    let name = std::env::var("CUSTODY_FUZZ").expect("CUSTODY_FUZZ names a target");
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a known target");
    CHOSEN.get_or_init(|| *target);
}

fuzz_target!(init: choose(), |data: &[u8]| {
    CHOSEN.get().expect("a target was chosen")(data);
});
