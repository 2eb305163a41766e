//! Files hashed: one that is large, many that are small.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use custody_run::hash::hash_file;
use rayon::prelude::*;

use crate::clock::{in_turn, row};

const LARGE: usize = 4 << 30;
const SMALL: usize = 8 << 10;

pub(crate) fn measure() {
    let directory = tempfile::tempdir_in(".").unwrap();
    let large = directory.path().join("large");
    let block: Vec<u8> =
        (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut file = File::create(&large).unwrap();
    for _ in 0..LARGE / block.len() {
        file.write_all(&block).unwrap();
    }
    drop(file);
    let in_memory = || {
        let mut context = Context::new(&SHA256);
        for _ in 0..LARGE / block.len() {
            context.update(&block);
        }
        std::hint::black_box(context.finish());
    };
    hash(&large);
    let times = in_turn(3, || hash(&large), in_memory);
    row("hash a file of 4 GiB", times, "SHA-256 of as much memory, one core");
    fs::remove_file(large).unwrap();

    let files: Vec<_> = (0..20_000).map(|n| directory.path().join(format!("{n}"))).collect();
    for path in &files {
        fs::write(path, &block[..SMALL]).unwrap();
    }
    let ours = || {
        files.par_iter().for_each(|path| hash(path));
    };
    let bare = || {
        files.par_iter().for_each_init(
            || vec![0; SMALL],
            |buffer, path| {
                File::open(path).unwrap().read_exact(buffer).unwrap();
                std::hint::black_box(aws_lc_rs::digest::digest(&SHA256, buffer));
            },
        );
    };
    row("hash 20,000 files of 8 KiB", in_turn(9, ours, bare), "open, read, SHA-256, rayon");
}

fn hash(path: &Path) {
    std::hint::black_box(hash_file(path, false).unwrap());
}
