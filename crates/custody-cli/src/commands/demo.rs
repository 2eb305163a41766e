//! `custody demo`: a real release of a small program, and ten attacks on it.
//!
//! Everything is done by the commands that a team would type, run as processes of their own in the
//! demo's directory. The example's files are those of `examples/hello/`.

mod attacks;
mod example;
mod image;
mod stage;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use custody_core::digest::Sha256;
use custody_core::envelope::StatementId;

use self::stage::Stage;
use crate::context::now;
use crate::error::Error;
use crate::ui::{BOLD, DIM, GOOD, Ui};

/// What an auditor gets of the release.
const PAGE: &str = "release.html";

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Work in this new directory and keep it; by default a temporary one is used and removed
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Build in a container whose image is made on the spot, and attack that too: needs root, podman
    /// and runc
    #[arg(long)]
    container: bool,
}

pub(crate) fn run(args: &DemoArgs, ui: &Ui) -> Result<(), Error> {
    let started = Instant::now();
    if args.container {
        image::check_machine()?;
    }
    let (dir, temporary) = directory(args.dir.as_deref())?;
    let stage = Stage::new(&dir, args.container, ui)?;
    let released = release(&stage)?;
    stage.title("Attacks");
    let refused = attacks::run(&stage, &released)?;
    if args.container {
        image::forget(&stage)?;
    }
    let seconds = started.elapsed().as_secs_f32();
    let kept = if temporary.is_some() {
        format!("{DIM}custody demo --dir DIR keeps everything for you to look at{DIM:#}")
    } else {
        format!("everything is in {0}\nfor your browser: {0}/{PAGE}", dir.display())
    };
    ui.result(
        &format!("\n{GOOD}✓{GOOD:#} {BOLD}one release made and verified, {refused} attacks refused{BOLD:#} in {seconds:.1} s\n{kept}"),
        || {
            custody_core::json::Value::object([
                ("ok", custody_core::json::Value::Bool(true)),
                ("pin", custody_core::json::Value::text(released.pin)),
                ("attacksRefused", custody_core::json::Value::text(refused)),
            ])
        },
    );
    Ok(())
}

/// The demo's directory, readable for the user as whom commands run.
fn directory(wanted: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Error> {
    let (path, temporary) = if let Some(path) = wanted {
        std::fs::create_dir(path).map_err(Error::io(path))?;
        (path.canonicalize().map_err(Error::io(path))?, None)
    } else {
        let temporary = tempfile::Builder::new().prefix("custody-demo-").tempdir();
        let temporary = temporary.map_err(Error::io(&std::env::temp_dir()))?;
        (temporary.path().to_owned(), Some(temporary))
    };
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).map_err(Error::io(&path))?;
    Ok((path, temporary))
}

/// What the release left, for the attacks.
struct Released {
    pin: StatementId,
    /// The publication of 1.1.0.
    publication: StatementId,
    /// The authorization of 1.0.0.
    older: StatementId,
    /// The image in which it was built.
    image: Option<Sha256>,
}

fn release(stage: &Stage<'_>) -> Result<Released, Error> {
    stage.title("Source, keys and policy");
    stage.say("A small C program under git, in two versions; three people, five machines.");
    let image = example::image(stage)?;
    let [older_commit, commit] = example::repository(stage, image.as_ref())?;
    let pin = example::policy(stage, image.as_ref())?;

    stage.title("hello 1.0.0, the previous release");
    let (older, tasks) = phase(
        stage,
        &Phase {
            version: "1.0.0",
            name: "promote",
            commit: &older_commit,
            proposer: "alice",
            approvers: ["bob", "carol"],
            builds_on: None,
        },
    )?;
    run_all(stage, older)?;
    let complete = stage.manifest_of(&tasks, "build")?;

    stage.title("hello 1.1.0: promote");
    stage
        .say("Build, partial update from 1.0.0, signature. Alice proposes, Bob and Carol approve.");
    let (authorization, tasks) = phase(
        stage,
        &Phase {
            version: "1.1.0",
            name: "promote",
            commit: &commit,
            proposer: "alice",
            approvers: ["bob", "carol"],
            builds_on: Some(complete),
        },
    )?;
    run_all(stage, authorization)?;
    if image.is_some() {
        stage.title("Where hello 1.1.0 was built");
        let built = stage.manifest_of(&tasks, "build")?.to_string();
        stage.show_from(&["show", &built, "--store", "store"], "the machine, as it says")?;
    }

    stage.title("hello 1.1.0: ship");
    stage.say("What Bob proposes and Alice and Carol approve names every file by digest.");
    let (_, tasks) = phase(
        stage,
        &Phase {
            version: "1.1.0",
            name: "ship",
            commit: &commit,
            proposer: "bob",
            approvers: ["alice", "carol"],
            builds_on: None,
        },
    )?;
    let task = stage.task_of(&tasks, "publish")?;
    let published =
        stage.custody(&["publish", &task.to_string()], stage.machines(&["publisher"]))?;
    let publication = published.id("manifest")?;

    stage.title("Anybody verifies, offline, with the bundle beside the file and the pin");
    let file = "www/hello-1.1.0.complete.tar";
    stage.show(&["verify", file, "--pin", &pin.to_string(), "--html", PAGE])?;
    Ok(Released { pin, publication, older, image })
}

fn run_all(stage: &Stage<'_>, authorization: StatementId) -> Result<(), Error> {
    let authorization = authorization.to_string();
    let words = ["run", "--all", &authorization, "--repository", "source", "--lend"];
    let words = [words.as_slice(), &[example::SIGNING_KEY]].concat();
    stage.custody(&words, stage.machines(&["builder", "signer"])).map(|_| ())
}

struct Phase<'p> {
    version: &'p str,
    name: &'p str,
    commit: &'p str,
    proposer: &'p str,
    approvers: [&'p str; 2],
    builds_on: Option<StatementId>,
}

/// Propose, sign off twice, authorize, plan. Gives the authorization and the planned tasks.
fn phase(stage: &Stage<'_>, phase: &Phase<'_>) -> Result<(StatementId, stage::Answer), Error> {
    let destination = format!("destination={}", stage.destination());
    let signing_key = format!("signing-key={}", stage.path(example::SIGNING_KEY).display());
    let builds_on = phase.builds_on.map(|id| id.to_string());
    let mut propose = vec![
        "release",
        "propose",
        "--product",
        "hello",
        "--version",
        phase.version,
        "--channel",
        "release",
        "--phase",
        phase.name,
        "--repository",
        "source",
        "--commit",
        phase.commit,
        "--param",
        &destination,
        "--param",
        &signing_key,
    ];
    if let Some(id) = &builds_on {
        propose.extend(["--builds-on", id]);
    }
    let request = stage.custody(&propose, stage.key(phase.proposer))?.id("id")?.to_string();
    for person in phase.approvers {
        let signoff = [
            "release",
            "sign-off",
            &request,
            "--as",
            person,
            "--role",
            "releng",
            "--comment",
            "looks right",
        ];
        stage.custody(&signoff, stage.key(person))?;
    }
    let authorization =
        stage.custody(&["release", "authorize", &request], stage.key("desk"))?.id("id")?;
    let plan =
        ["plan", &authorization.to_string(), "--repository", "source", "--creator", "demo/releng"];
    let tasks = stage.custody(&plan, stage.key("scheduler"))?;
    Ok((authorization, tasks))
}

/// When the demo's policy ends.
fn policy_expires() -> Result<String, Error> {
    Ok(now()?.plus(365 * 86_400).to_string())
}
