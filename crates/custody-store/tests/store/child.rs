//! Other processes: this very test binary, started again with a role.

use std::env;
use std::fmt::Display;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use custody_core::Refusal;
use custody_core::envelope::Envelope;
use custody_core::statement::Decision;
use custody_core::time::Time;
use custody_store::{Filter, Floor, Share, Store};

use crate::world::{Release, manifest, policy, request, signed, signoff, task};

const ROLE: &str = "CUSTODY_STORE_TEST_ROLE";
const DIRECTORY: &str = "CUSTODY_STORE_TEST_DIRECTORY";
const ROUND: &str = "CUSTODY_STORE_TEST_ROUND";

/// This binary in a role, started through a shell line that ends in `exec "$0" "$@"`.
pub(crate) fn command(role: &str, directory: &Path, round: u32, shell: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", shell]).arg(env::current_exe().unwrap()).args([
        "--exact",
        "child::child",
        "--nocapture",
    ]);
    command.env(ROLE, role).env(DIRECTORY, directory).env(ROUND, round.to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn start(role: &str, directory: &Path, round: u32) -> Child {
    command(role, directory, round, r#"exec "$0" "$@""#).spawn().unwrap()
}

/// The words of every whole line that a child said after the word `said`.
pub(crate) fn said(stdout: &[u8]) -> Vec<Vec<String>> {
    let text = String::from_utf8_lossy(stdout);
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().filter_map(|line| line.split_once("said "));
    lines.map(|(_, words)| words.split(' ').map(str::to_owned).collect()).collect()
}

#[expect(clippy::print_stdout, reason = "the parent listens")]
fn say(words: &[&dyn Display]) {
    let words: Vec<_> = words.iter().map(ToString::to_string).collect();
    println!("said {}", words.join(" "));
}

#[test]
fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let directory = PathBuf::from(env::var_os(DIRECTORY).unwrap());
    let round = env::var(ROUND).unwrap();
    match role.as_str() {
        "work" => (0..)
            .try_for_each(|i| work(&Store::open(&directory)?, &format!("{round} {i}"), i))
            .unwrap(),
        "add" => add(&Store::open(&directory).unwrap(), &round),
        "claim" => claim(&Store::open(&directory).unwrap()),
        "fill" => fill(&Store::open(&directory).unwrap(), &directory),
        "fill-new" => fill(&Store::create(&directory).unwrap(), &directory),
        "open" => match Store::open(&directory) {
            Ok(store) => say(&[&"opened", &refused(store.list(Filter::default()))]),
            Err(refusal) => say(&[&"refused", &refusal.code]),
        },
        other => panic!("no role {other}"),
    }
}

/// Everything that writes, each acknowledged when done.
fn work(store: &Store, label: &str, i: u32) -> Result<(), Refusal> {
    let [request, approval, task] = batch(label);
    store.add(&[request.clone(), approval.clone(), task.clone()])?;
    say(&[&"added", &request.id(), &approval.id(), &task.id()]);

    let bytes = label.as_bytes().repeat(1000 * (1 + i as usize % 20));
    say(&[&"put", &store.put_artifact(&bytes[..], false, None)?.0.sha256]);
    if i % 4 == 3 {
        let names = (0..70).map(|n| format!("{label} {n}"));
        let staged = names
            .map(|name| store.stage(name.as_bytes(), false, None))
            .collect::<Result<Vec<_>, _>>()?;
        let digests: Vec<_> = staged.iter().map(|staged| staged.digests().sha256).collect();
        store.keep(staged)?;
        for sha256 in &digests {
            say(&[&"put", sha256]);
        }
    }

    let version = store.trust()?.floor.map_or(1, |floor| floor.version + 1);
    let floor = Floor { version, policy: policy(version).id() };
    store.raise_floor(floor, Time::from_unix(version))?;
    say(&[&"raised", &version]);

    let claim = store.begin_run(task.id(), label, Share::Whole)?;
    say(&[&"begun", &task.id()]);
    let manifest = manifest(task.id(), "app", &[], label);
    store.finish_run(&claim, &manifest)?;
    say(&[&"finished", &task.id(), &manifest.id()]);
    Ok(())
}

/// Three statements that are added at once.
fn batch(label: &str) -> [Envelope; 3] {
    let request = signed(10, request(label, policy(1).id(), &[]));
    let approval = signoff(&request, 11, Decision::Approve, None);
    let task = task("build", request.id(), &[], label);
    [request, approval, task]
}

fn add(store: &Store, round: &str) {
    for i in 0..30 {
        let release = Release::new(&format!("{round} {i}")).all();
        store.add(&release).unwrap();
        for envelope in &release {
            say(&[&"added", &envelope.id()]);
        }
    }
}

/// Holds a task until it is killed or its input ends.
fn claim(store: &Store) {
    let claim = store.begin_run(Release::new("a").build.id(), "child", Share::Whole).unwrap();
    say(&[&"claimed", &claim.task()]);
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

/// Writes until there is no room, reads, and writes again once `ballast` is gone.
fn fill(store: &Store, directory: &Path) {
    let count = |store: &Store| store.list(Filter::default()).unwrap().len();
    let before = count(store);
    let refusal = (0..).find_map(|i| {
        let batch = batch(&format!("fill {i}"));
        let refusal = store.add(&batch).err();
        if refusal.is_none() {
            for envelope in &batch {
                say(&[&"added", &envelope.id()]);
            }
        }
        refusal
    });
    say(&[&"full", &refusal.unwrap().code]);
    let put = store.put_artifact(io::repeat(7).take(8 << 20), false, None);
    say(&[&"full", &put.unwrap_err().code]);
    say(&[
        &"kept",
        &(count(store) - before),
        &std::fs::read_dir(directory.join("tmp")).unwrap().count(),
    ]);
    if std::fs::remove_file(directory.join("ballast")).is_ok() {
        store.add(&batch("room again")).unwrap();
        store.put_artifact(&b"room again"[..], false, None).unwrap();
        say(&[&"recovered"]);
    }
}

fn refused<T>(result: Result<T, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code.to_string(), |_| "read".to_owned())
}
