//! A worker's run around a command that does nothing, and around one that makes many files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use custody_core::json::{self, Value};

use crate::clock::{in_turn, row, shown};
use crate::command::{answer, custody, succeed};

const PEOPLE: [&str; 3] = ["alice", "bob", "carol"];
const MACHINES: [&str; 3] = ["desk", "scheduler", "builder"];

fn policy(key: impl Fn(&str) -> String) -> String {
    let mut text = String::from(
        "policy = \"https://custody.dev/policy/v1\"\nversion = 1\nexpires = \"2099-01-01T00:00:00Z\"\n\
         instance = \"production\"\nclock-skew = \"5m\"\n\n[root]\npeople = [\"alice\", \"bob\", \"carol\"]\nthreshold = 2\n",
    );
    for (kind, names) in [("people", PEOPLE), ("machines", MACHINES)] {
        for name in names {
            text += &format!("\n[{kind}.{name}]\nkeys = [{{ key = \"{}\" }}]\n", key(name));
        }
    }
    text += r#"
[roles.releng]
members = ["alice", "bob", "carol"]

[products.hello]
source = "https://git.example.org/hello"
channels = ["release"]
desk = ["desk"]
propose = ["releng"]
resolve = ["releng"]

[products.hello.phases.promote]
approve = [{ role = "releng", count = 2 }]
proposer-counts = false
sign-off-max-age = "1d"
after = []
"#;
    for step in ["nothing", "files"] {
        text += &format!(
            "\n[products.hello.steps.{step}]\nphase = \"promote\"\nperform = [\"builder\"]\nschedule = [\"scheduler\"]\n\
             source = false\ninputs = []\noutputs = [\"out\", \"tree/**\"]\nnetwork = false\nverification = \"full\"\n\
             irrevocable = false\nmax-age = \"1d\"\nreceipts = \"none\"\n"
        );
    }
    text
}

/// The script of the step that makes many files, as its own words.
const FILES: &str = "cp -r /var/tmp/custody-bench-tree tree";
const TREE: &str = "/var/tmp/custody-bench-tree";

fn release(dir: &Path) -> String {
    fs::create_dir(dir.join("keys")).unwrap();
    for name in PEOPLE.iter().chain(&MACHINES) {
        succeed(&mut custody(dir, &format!("key generate keys/{name}")));
    }
    let key = |name: &str| {
        let line = fs::read_to_string(dir.join(format!("keys/{name}.pub"))).unwrap();
        line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    fs::write(dir.join("policy.toml"), policy(key)).unwrap();
    let pipeline = format!(
        "pipeline = \"https://custody.dev/pipeline/v1\"\n\n[steps.nothing]\nphase = \"promote\"\ncommand = [\"touch\", \"out\"]\noutputs = [\"out\"]\ndeadline = \"12h\"\n\n\
         [steps.files]\nphase = \"promote\"\ncommand = [\"sh\", \"-c\", {FILES:?}]\noutputs = [\"tree/**\"]\ndeadline = \"12h\"\n"
    );
    fs::create_dir(dir.join("source")).unwrap();
    fs::write(dir.join("source/pipeline.toml"), pipeline).unwrap();
    let git = |words: &str| {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=x", "-c", "user.email=x@example.org"]);
        succeed(git.args(words.split_whitespace()).current_dir(dir.join("source")));
    };
    git("init -q");
    git("add .");
    git("commit -q -m one");
    for person in ["alice", "bob"] {
        answer(
            dir,
            &format!("policy sign policy.toml --key keys/{person} --out policy.json"),
            "pin",
        );
    }
    let pin = answer(dir, "policy sign policy.toml --key keys/carol --out policy.json", "pin");
    succeed(&mut custody(dir, &format!("init --store store --policy policy.json --pin {pin}")));
    let request = answer(
        dir,
        "release propose --product hello --version 1.0.0 --channel release --phase promote --repository source --key keys/alice --store store",
        "id",
    );
    for person in ["bob", "carol"] {
        let line = format!(
            "release sign-off {request} --as {person} --role releng --key keys/{person} --store store"
        );
        succeed(&mut custody(dir, &line));
    }
    answer(dir, &format!("release authorize {request} --key keys/desk --store store"), "id")
}

/// A new task of the step.
fn task(dir: &Path, authorization: &str, step: &str) -> String {
    let line = format!(
        "--json plan {authorization} --repository source --creator bench --again --key keys/scheduler --store store"
    );
    let output = custody(dir, &line).stdout(std::process::Stdio::piped()).output().unwrap();
    let value = json::parse(&output.stdout, 1 << 26, 1 << 20).unwrap();
    let Value::Array(tasks) = &value else { panic!("{value:?}") };
    let text =
        |task: &Value<'_>, name| task.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let found = tasks.iter().find(|task| text(task, "step").as_deref() == Some(step));
    found.and_then(|task| text(task, "id")).unwrap()
}

fn run(dir: &Path, task: &str, more: &str) {
    let line = format!("run {task} --key keys/builder --work work --store store {more}");
    succeed(&mut custody(dir, &line));
}

pub(crate) fn measure() {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let dir = directory.path();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(dir.join("work")).unwrap();
    let authorization = release(dir);

    let mut tasks: Vec<String> = (0..15).map(|_| task(dir, &authorization, "nothing")).collect();
    let (ours, bare) = in_turn(
        15,
        || run(dir, &tasks.pop().unwrap(), ""),
        || succeed(Command::new("touch").arg("out").current_dir(dir)),
    );
    row("`custody run` around `touch`", (ours, bare), "`touch`");
    println!("| the same, over and above | {} | | |", shown(ours.saturating_sub(bare)));

    for (count, bytes) in [(20_000, 8 << 10), (10_000, 200 << 10)] {
        let tree = Path::new(TREE);
        fs::create_dir(tree).unwrap();
        for n in 0_u32..count {
            let content = n.to_le_bytes().repeat(bytes / size_of_val(&n));
            fs::write(tree.join(n.to_string()), content).unwrap();
        }
        let copy = || {
            let target = dir.join("copy");
            succeed(Command::new("cp").arg("-r").arg(tree).arg(&target));
            fs::remove_dir_all(target).unwrap();
        };
        let mut tasks: Vec<String> = (0..3).map(|_| task(dir, &authorization, "files")).collect();
        let share = format!("--share {TREE}");
        let times = in_turn(3, || run(dir, &tasks.pop().unwrap(), &share), copy);
        let what = format!("`custody run` around a copy of {count} files of {} KiB", bytes >> 10);
        row(&what, times, "the copy, and its removal");
        fs::remove_dir_all(tree).unwrap();
    }
}
