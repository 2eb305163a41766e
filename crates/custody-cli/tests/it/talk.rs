//! How the command talks: exit statuses, machines' and people's words, and nothing that a terminal
//! would obey.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use custody_core::envelope::Envelope;

use crate::world::World;

#[test]
fn wrong_usage_is_2() {
    let world = World::fresh();
    let before = world.snapshot();
    let nothing = "0".repeat(64);
    for line in [
        String::new(),
        "frobnicate".into(),
        "verify".into(),
        "verify file --frobnicate".into(),
        "run".into(),
        format!("run {nothing} --store store"),
        format!("run {nothing} --all {nothing} --key keys/builder --store store"),
        "run not-an-id --key keys/builder --store store".into(),
        format!("run {nothing} --key keys/builder --store store --user root"),
        "plan --store store".into(),
        "init --store store".into(),
        "key generate keys/new --kind rsa".into(),
        "policy sign".into(),
        "bundle export --store store --out x".into(),
        "release propose --store store".into(),
        format!("release show {nothing} --store store --as bob"),
        format!("release show {nothing} --store store --out x"),
        format!("release show {nothing} --store store --comment x"),
        format!("release sign-off {nothing} --store store"),
        format!("release sign-off {nothing} --store store --as bob --role releng"),
        format!("release sign-off {nothing} --store store --key keys/bob"),
        format!("release sign-off {nothing} --store store --statement x"),
        format!(
            "release sign-off {nothing} --store store --statement x --signature y --as bob --role releng"
        ),
        format!(
            "release sign-off {nothing} --store store --as bob --role releng --key keys/bob --decision withdraw"
        ),
        format!(
            "release sign-off {nothing} --store store --as ../bob --role releng --key keys/bob"
        ),
        format!("release resolve {nothing} --store store --as bob --reason x --key keys/bob"),
        format!(
            "release resolve {nothing} --store store --as bob --reason x --key keys/bob --resume --supersede {nothing}"
        ),
        "verify x --summary y".into(),
        "verify x --store store --bundle y".into(),
        "completions klingon".into(),
    ] {
        let said = world.typed(&line).ended(2);
        assert!(said.out.is_empty() && !said.err.is_empty(), "{said:#?}");
    }
    assert_eq!(before, world.snapshot());
    assert!(!world.path("keys/new").exists() && !world.path("x").exists());
    for line in ["--help", "--version", "help", "verify --help", "release sign-off --help"] {
        assert!(world.typed(line).ended(0).err.is_empty());
    }
}

#[test]
fn keys_are_made_once_and_for_one_person() {
    let world = World::empty();
    world.done("key generate key");
    let before = fs::read(world.path("key")).unwrap();
    world.custody("key generate key").refused("KEY_UNAVAILABLE");
    assert_eq!(fs::read(world.path("key")).unwrap(), before, "a key is never replaced");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(world.path("key")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let shown = world.done("key show key.pub").json();
    assert_eq!(shown["type"], "ssh-ed25519");
    // a passphrase that protects nothing is refused, a good one is needed
    world.write("empty", "");
    world.write("blank", "\n");
    for passphrase in ["empty", "blank"] {
        let said = world.custody(&format!("key generate other --new-passphrase-file {passphrase}"));
        assert_ne!(
            said.status,
            Some(0),
            "an empty passphrase file made an unprotected key: {said:#?}"
        );
        assert!(!world.path("other").exists());
    }
    world.write("good", "correct horse\n");
    world.write("bad", "wrong horse\n");
    for form in ["pkcs8", "openssh"] {
        world.done(&format!("key generate {form} --format {form} --new-passphrase-file good"));
        let import = |passphrase: &str, out: &str| {
            world.custody(&format!(
                "key import --key {form} --passphrase-file {passphrase} --public {out}"
            ))
        };
        import("bad", "no.pub").refused("KEY_UNAVAILABLE");
        assert!(!world.path("no.pub").exists());
        import("good", &format!("{form}.out")).done();
        let words =
            |name: &str| world.read(name).split_whitespace().take(2).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&format!("{form}.out")), words(&format!("{form}.pub")));
    }
    world.custody("key show nowhere").ended(3);
    world.write("junk", "ssh-ed25519 AAAA");
    world.custody("key show junk").ended(1);
}

#[test]
fn completions_for_shells() {
    let world = World::empty();
    for (shell, word) in
        [("bash", "complete"), ("zsh", "#compdef custody"), ("fish", "complete -c custody")]
    {
        let said = world.typed(&format!("completions {shell}")).ended(0);
        assert!(said.out.contains(word) && said.out.contains("verify"), "{shell}");
    }
}

/// No character that a terminal obeys, but for line breaks.
fn tame(text: &str) {
    let turns = |c: char| ('\u{202a}'..='\u{202e}').contains(&c);
    let wild = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t') || turns(*c));
    assert!(wild.is_none(), "{wild:?} in {text:?}");
}

/// Colours are forced, so that nothing strips what strangers wrote; without our own there are none.
/// Row `json-terminal-escape`.
#[test]
fn strangers_do_not_speak_to_the_terminal() {
    const EVIL: &str = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}31m\u{202e}";
    let world = World::published();
    let forced = |line: &str, more: &[&str]| {
        let mut command = world.command(line);
        command.args(more).env("CLICOLOR_FORCE", "1");
        let said = world.say(command);
        // our own colours are of one form
        let plain = |text: &str| {
            let mut text = text.to_owned();
            for code in ["0", "1", "2", "31", "32", "1;31", "1;32"] {
                text = text.replace(&format!("\u{1b}[{code}m"), "");
            }
            text
        };
        tame(&plain(&said.out));
        tame(&plain(&said.err));
        said
    };
    // a step's log
    let octal = r"\033]0;pwned\007\033[2J\302\23331m\342\200\256\r\n";
    let task = world.build_task(&format!("printf '{octal}'; exit 1"), "");
    assert!(forced(&world.run_line(&task), &[]).err.contains("pwned"));
    // what a person says
    let request = world.propose("promote", "");
    let signoff =
        format!("release sign-off {request} --store store --as bob --role releng --key keys/bob");
    assert_eq!(forced(&signoff, &["--comment", EVIL]).status, Some(1));
    let show = format!("release show {request} --store store --as bob --role releng");
    for sly in ["\u{202e}gpj.exe\u{202c}", "\u{9b}31m", "caf\u{e9}"] {
        forced(&signoff, &["--comment", sly]);
        forced(&show, &["--comment", sly]);
        forced(&show, &["--json", "--comment", sly]);
    }
    for id in world.list("signoff") {
        forced(&format!("show {id} --store store"), &[]);
    }
    // parameters
    let line = "release propose --store store --product hello --version 1.0 --channel release --phase promote --repository source --key keys/alice";
    forced(line, &["--param", &format!("x={EVIL}")]);
    let request = world.list("request").pop().unwrap();
    for verb in ["show", "status"] {
        forced(&format!("release {verb} {request} --store store"), &[]);
    }
    // a policy, an envelope and a bundle of strangers
    world.write("evil.toml", format!("policy = \"x\"\nversion = {EVIL}\n"));
    assert_eq!(forced("policy check evil.toml", &[]).status, Some(1));
    let envelope = Envelope::parse(world.read("policy.dsse.json").as_bytes()).unwrap().to_json();
    let escaped = "\\u001b]0;pwned\\u0007\\u009b\\u202e";
    world.write("evil.json", envelope.replace("application/", &format!("application/{escaped}")));
    forced("show evil.json", &[]);
    world.write(
        "evil.json",
        envelope
            .replace("\"keyid\":\"", &format!("\"keyid\":\"{escaped}"))
            .replace("\"keyid\": \"", &format!("\"keyid\": \"{escaped}")),
    );
    forced("show evil.json", &[]);
    forced(&format!("verify www/all.bin --bundle evil.json --pin {}", world.pin()), &[]);
    world.write("evil.json", EVIL);
    forced("show evil.json", &[]);
    forced("bundle import evil.json --store store", &[]);
    // names of files
    for name in [EVIL.as_bytes(), b"\x1b[31m\xff"] {
        let name = std::ffi::OsStr::from_bytes(name);
        fs::write(world.path("www").join(name), "x").unwrap();
        let said = forced(&format!("verify www --pin {}", world.pin()), &[]);
        assert_ne!(said.status, Some(0), "{said:#?}");
        fs::remove_file(world.path("www").join(name)).unwrap();
    }
    // words of the command line, which a shell may have taken from names of files
    forced("verify", &[&format!("--{EVIL}")]);
    forced("verify", &[&format!("{EVIL}.tar"), "--pin", &world.pin()]);
    forced("show --store store", &[EVIL]);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let world = World::published();
    let verify = |variables: &[(&str, &str)]| {
        let mut command = world.command(&format!("verify www/all.bin --pin {}", world.pin()));
        command.envs(variables.iter().copied());
        world.say(command).done().out.contains('\u{1b}')
    };
    assert!(!verify(&[]), "not a terminal");
    assert!(verify(&[("CLICOLOR_FORCE", "1")]));
    // `script` gives it a terminal
    let on_a_terminal = |variables: &[(&str, &str)]| {
        let line = format!("{} verify www/all.bin --pin {}", crate::world::CUSTODY, world.pin());
        let mut command = std::process::Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &line, "/dev/null"])
            .current_dir(world.path("."));
        command
            .env("HOME", world.path("home"))
            .env("XDG_STATE_HOME", world.path("state"))
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .env_remove("CI");
        command.envs(variables.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).contains("\u{1b}[")
    };
    assert!(on_a_terminal(&[]));
    assert!(!on_a_terminal(&[("NO_COLOR", "1")]));
    assert!(!on_a_terminal(&[("TERM", "dumb")]));
}

/// With `--json` there is one object and nothing else; with `--quiet` results only.
#[test]
fn machines_get_one_object() {
    let world = World::published();
    for line in [
        "policy show --store store".to_owned(),
        "evidence list --store store".into(),
        format!("verify www/all.bin --pin {}", world.pin()),
        "verify www/all.bin".into(),
        format!("show {} --store store", world.pin()),
        "policy check policy.toml".into(),
        "show nowhere".into(),
    ] {
        let said = world.custody(&line);
        said.json();
        assert!(said.err.is_empty(), "{said:#?}");
    }
    let request = world.propose("promote", "");
    let line =
        format!("release sign-off {request} --store store --as bob --role releng --key keys/bob");
    let quiet = world.typed(&format!("--quiet {line}")).done();
    assert!(quiet.err.is_empty(), "{quiet:#?}");
    let loud = world.typed(&line.replace("bob", "carol")).done();
    assert!(loud.err.contains("short code"), "{loud:#?}");
}

/// Whoever is woken at night is told which command comes next, with the id that belongs in it.
#[test]
fn advice_names_the_next_command() {
    let world = World::fresh();
    let advised = |line: &str, status: i32, advice: &str| {
        let said = world.typed(line).ended(status);
        assert!(said.err.contains(&format!("\n  do         {advice}")), "{advice}: {said:#?}");
    };
    let authorization = world.authorized("promote");
    let tasks = world.plan(&authorization);
    let (build, pack) = (&tasks["build"], &tasks["pack"]);
    let plan = format!(
        "plan {authorization} --store store --repository source --creator x --key keys/scheduler"
    );
    advised(&plan, 1, &format!("go on with them: custody run --all {authorization}; "));
    let run = |task: &str| world.run_line(task);
    // not run yet
    advised(&run(pack), 1, &format!("run it first: custody run {build}; "));
    // nobody is there
    let jenkins = format!("{} --platform jenkins", run(build));
    advised(&jenkins, 3, "see that jenkins answers on this machine, then run the task again; ");
    advised(&run(build).replace("--work work", "--work gone"), 3, "make it, or name another one");
    // run already
    let manifest = world.run(build).done().text("manifest");
    advised(&run(build), 1, &format!("look at what it made: custody show {manifest}"));
    advised(&format!("show {} --store store", "0".repeat(64)), 1, "compare the id with ");
    let authorize = format!(
        "release authorize {} --store store --key keys/scheduler",
        world.list("request")[0]
    );
    advised(&authorize, 1, "give --key the key of one of desk");
    // where nothing better is known, the code's own
    let other = run(build).replace("builder", "publisher").replace("packer", "publisher");
    advised(&other, 1, custody_core::Code::WorkerPoolForbidden.remedy());
}
