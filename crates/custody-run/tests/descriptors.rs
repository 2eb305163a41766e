//! Open files of the worker do not reach a command. Alone here: it is about the whole process.

use std::fs::{self, File};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;
use custody_core::statement::{Limits, Task};
use custody_core::time::Time;
use custody_run::execute::{Confinement, Confiner, LOG_BYTES, Run, execute};
use custody_run::stage::RunDirectory;
use rustix::io::{FdFlags, fcntl_setfd};

#[test]
fn what_the_worker_inherited_is_closed() {
    let files = tempfile::tempdir().unwrap();
    let secret = files.path().join("secret");
    fs::write(&secret, "secret").unwrap();
    // more than the digits that a shell could close
    let open: Vec<File> = (0..20).map(|_| File::open(&secret).unwrap()).collect();
    for file in &open {
        fcntl_setfd(file, FdFlags::empty()).unwrap();
    }
    let list = ["-c", "ls -l /proc/self/fd"];
    let plain = Command::new("sh").args(list).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&plain.stdout).matches("/secret").count(), 20);

    let task = Task {
        authorization: StatementId(Sha256::of(b"")),
        step: "build".parse().unwrap(),
        creator: String::new(),
        command: ["sh"].iter().chain(&list).map(|&word| word.to_owned()).collect(),
        image: None,
        limits: Limits::default(),
        destination: None,
        variables: Vec::new(),
        network: true,
        downloads: None,
        inputs: Vec::new(),
        source: None,
        externals: Vec::new(),
        outputs: Vec::new(),
        sha512: false,
        created: Time::from_unix(0).unwrap(),
        deadline: Time::from_unix(0).unwrap(),
        nonce: String::new(),
    };
    let confiner =
        Confiner { program: env!("CARGO_BIN_EXE_custody-confiner").into(), ..Confiner::default() };
    let full = Confinement::probe(&confiner, None).unwrap();
    let bare = Confinement { confiner, ..Confinement::default() };
    for (i, machine) in [full, bare].iter().enumerate() {
        let directory = RunDirectory::create(&files.path().join(i.to_string())).unwrap();
        let log = files.path().join(format!("{i}.log"));
        let run = Run {
            task: &task,
            directory: &directory,
            log: &log,
            log_limit: LOG_BYTES,
            timeout: None,
            source_date_epoch: None,
            admit: None,
        };
        assert!(
            execute(&run, machine, &mut |_| (), &AtomicBool::new(false)).unwrap().end.is_success()
        );
        let seen = fs::read_to_string(&log).unwrap();
        let descriptors: Vec<_> = seen.lines().filter(|line| line.contains("->")).collect();
        // the three of every process, and the directory that ls lists
        assert_eq!(descriptors.len(), 4, "{seen}");
        assert!(!seen.contains("/secret"), "{seen}");
    }
}
