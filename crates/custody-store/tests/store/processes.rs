//! Several processes on one store, and a store that cannot be written.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use custody_core::Code;
use custody_core::envelope::StatementId;
use custody_store::{Filter, Share, Store};

use crate::child::{command, said, start};
use crate::world::{Release, policy};

/// Row `sto-two-writers`.
#[test]
fn processes_add_to_one_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let children: Vec<_> = (0..3).map(|round| start("add", dir.path(), round)).collect();
    let mut acknowledged: Vec<StatementId> = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        acknowledged.extend(
            said(&output.stdout).iter().map(|words| words[1].parse::<StatementId>().unwrap()),
        );
    }
    assert!(store.get_many(&acknowledged).unwrap().iter().all(Option::is_some));
    acknowledged.sort_unstable();
    acknowledged.dedup();
    assert_eq!(store.list(Filter::default()).unwrap().len(), acknowledged.len());
    assert_eq!(acknowledged.len(), 3 * 30 * 18 + 2, "the policies are shared");
    // the slowest does not set back what the fastest counted
    let generation = fs::read_to_string(dir.path().join("generation")).unwrap();
    assert_eq!(generation.trim().parse(), Ok(3 * 30));
}

/// Row `sto-two-writers`.
#[test]
fn a_writer_that_waits_too_long_says_so_and_readers_need_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    store.add(&[policy(1)]).unwrap();
    let other = rusqlite::Connection::open(dir.path().join("custody.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(store.add(&[policy(2)]).unwrap_err().code, Code::StoreLocked);
    assert!(store.contains(policy(1).id()).unwrap());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.add(&[policy(2)]).unwrap().new, 1);
}

#[test]
fn the_task_of_a_killed_process_is_taken_over_and_that_of_a_living_one_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::create(dir.path()).unwrap();
    let task = Release::new("a").build.id();
    let mut child = start("claim", dir.path(), 0);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("said claimed")));
    let refusal = store.begin_run(task, "parent", Share::Whole).unwrap_err();
    assert_eq!((refusal.code, refusal.found.as_str()), (Code::StoreLocked, "child"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(store.begin_run(task, "parent", Share::Whole).unwrap().interrupted(), Some("child"));
}

/// Row `sto-disk-full`.
#[test]
fn without_room_nothing_is_lost_and_reading_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let release = Release::new("a");
    Store::create(dir.path()).unwrap().add(&release.all()).unwrap();
    // the signal is ignored, so that writes beyond the limit fail instead
    let shell = r#"trap "" XFSZ; ulimit -f 600; exec "$0" "$@""#;
    let output = command("fill", dir.path(), 0, shell).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let store = Store::open(dir.path()).unwrap();
    check_filled(&said(&output.stdout));
    for words in said(&output.stdout).iter().filter(|words| words[0] == "added") {
        assert!(store.contains(words[1].parse().unwrap()).unwrap());
    }
    store.add(&Release::new("b").all()).unwrap();
    assert_eq!(store.closure(&[release.published.id()]).unwrap().len(), release.all().len());
}

/// Row `sto-disk-full`.
#[test]
fn on_a_full_file_system_too_and_it_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let mount = r#"mount -t tmpfs -o size=3m none "$CUSTODY_STORE_TEST_DIRECTORY""#;
    let inner = format!(
        r#"{mount} && head -c 1000000 /dev/zero > "$CUSTODY_STORE_TEST_DIRECTORY/ballast" && exec "$0" "$@""#
    );
    let shell = format!(
        r#"unshare -rm sh -c '{mount}' || exit 77; exec unshare -rm sh -c '{inner}' "$0" "$@""#
    );
    let output = command("fill-new", dir.path(), 0, &shell).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) {
        writeln!(std::io::stderr(), "not tried, this machine lets nobody mount: {errors}").unwrap();
        return;
    }
    assert!(output.status.success(), "{errors}");
    check_filled(&said(&output.stdout));
    assert!(said(&output.stdout).contains(&vec!["recovered".to_owned()]));
}

fn check_filled(words: &[Vec<String>]) {
    let added = words.iter().filter(|words| words[0] == "added").count();
    let full: Vec<_> =
        words.iter().filter(|words| words[0] == "full").map(|words| words[1].as_str()).collect();
    assert_eq!(full, ["STORE_FULL"; 2]);
    assert!(added > 10);
    let kept: Vec<_> = words.iter().filter(|words| words[0] == "kept").collect();
    assert_eq!(kept, [&["kept".to_owned(), added.to_string(), "0".to_owned()]]);
}

/// Row `sto-read-only`.
#[test]
fn a_store_that_may_not_be_written_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    Store::create(dir.path()).unwrap().add(&[policy(1)]).unwrap();
    let open = || {
        let mut command = command("open", dir.path(), 0, r#"exec "$0" "$@""#);
        // root may write everywhere; whoever is not root keeps who they are
        if fs::metadata("/proc/self")
            .is_ok_and(|owner| std::os::unix::fs::MetadataExt::uid(&owner) == 0)
        {
            command.uid(65534).gid(65534);
        }
        let output = command.output().unwrap();
        said(&output.stdout).first().unwrap_or_else(|| panic!("{output:?}")).join(" ")
    };
    let mode = |file: u32, directory: u32| {
        for name in ["custody.sqlite", "tmp", "runs", "artifacts", "artifacts/sha256", "."] {
            let path = dir.path().join(name);
            let mode = if path.is_dir() { directory } else { file };
            fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        }
    };
    mode(0o666, 0o777);
    assert_eq!(open(), "opened read");
    mode(0o444, 0o555);
    assert_eq!(open(), "refused STORE_FULL");
    mode(0o666, 0o555);
    assert_eq!(open(), "refused STORE_FULL");
    mode(0o666, 0o777);
    assert_eq!(open(), "opened read");
}
