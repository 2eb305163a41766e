//! The pipeline file, and the tasks that are made from it.
#![expect(clippy::unwrap_used, reason = "what goes wrong in a test fails it")]

use custody_core::digest::{Digests, Sha256};
use custody_core::envelope::{Payload as _, StatementId};
use custody_core::statement::{
    Artifact, Image, Limits, Manifest, Origin, Pipeline as PipelineRef, PolicyRef, ReleaseId,
    Request, Revision, Source, Statement, Task,
};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_run::pipeline::Pipeline;
use custody_world::honest;

const HELLO: &str = r#"pipeline = "https://custody.dev/pipeline/v1"

[steps.sign]
phase = "promote"
command = ["sh", "source/scripts/sign.sh", "{version}"]
source = true
outputs = ["signed/*"]
inputs = [{ step = "build", artifacts = ["dist/*"] }, { step = "partial", artifacts = ["out/*"] }]

[steps.build]
phase = "promote"
command = ["sh", "source/scripts/build.sh", "{product} {version}; {{x}}", "{param.flags}"]
source = true
outputs = ["dist/hello-{version}.tar", "dist/delta"]
variables = { VERSION = "{version}", WHERE = "{channel}/{instance}/{phase}/{commit}" }
network = true
sha512 = true
deadline = "2h"

[steps.partial]
phase = "promote"
command = ["dist/delta"]
outputs = ["out/**"]

[[steps.partial.inputs]]
step = "build"
artifacts = ["dist/*.tar"]

[[steps.partial.inputs]]
earlier = "build"
directory = "previous"
artifacts = ["dist/*.tar"]

[[steps.partial.externals]]
name = "tool.bin"
uri = "https://example.org/tool.bin"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
size = 3

[steps.publish]
phase = "ship"
destination = "{param.destination}/{version}"
inputs = [{ earlier = "sign", artifacts = ["signed/*"] }]
"#;

fn id(text: &str) -> StatementId {
    StatementId(Sha256::of(text.as_bytes()))
}

fn time(seconds: u64) -> Time {
    Time::from_unix(seconds).unwrap()
}

/// A manifest of an earlier phase, by its id.
fn earlier(step: &str, id_of: &str, names: &[&str]) -> (StatementId, Manifest) {
    let artifact = |name: &&str| Artifact {
        name: name.parse().unwrap(),
        digests: Digests::from(Sha256::of(b"")),
        size: 0,
    };
    let made = Manifest {
        step: step.parse().unwrap(),
        artifacts: names.iter().map(artifact).collect(),
        ..honest().get_manifest("old/build/manifest")
    };
    (id(id_of), made)
}

fn old_build() -> (StatementId, Manifest) {
    earlier("build", "old build", &["dist/hello-1.0.tar", "dist/delta"])
}

fn request(phase: &str) -> Request {
    Request {
        release: ReleaseId {
            product: "hello".parse().unwrap(),
            version: "1.1".parse().unwrap(),
            channel: "beta".parse().unwrap(),
            instance: "staging".parse().unwrap(),
        },
        phase: phase.parse().unwrap(),
        source: Source {
            uri: "file:///hello".to_owned(),
            revision: Revision::Git("ab".repeat(20)),
        },
        pipeline: PipelineRef { path: "pipeline.toml".parse().unwrap(), sha256: Sha256::of(b"") },
        policy: PolicyRef { version: 1, id: id("policy") },
        builds_on: Vec::new(),
        parameters: vec![
            ("flags".to_owned(), "-O2 {version} $(id)".to_owned()),
            ("destination".to_owned(), "file:///releases".to_owned()),
        ],
        created: time(1_000_000),
        expires: time(1_010_000),
        nonce: "0".repeat(32),
    }
}

fn plan(text: &str, request: &Request) -> Result<Vec<Task>, Refusal> {
    plan_after(text, request, [old_build()])
}

fn plan_after(
    text: &str,
    request: &Request,
    earlier: impl IntoIterator<Item = (StatementId, Manifest)>,
) -> Result<Vec<Task>, Refusal> {
    let mut count = 0;
    let earlier: Vec<_> = earlier.into_iter().collect();
    let nonce = || {
        count += 1;
        format!("{count:032x}")
    };
    Pipeline::parse(text)?.plan(
        request,
        &earlier,
        id("authorization"),
        "ci",
        time(1_001_000),
        nonce,
    )
}

fn task_id(task: &Task) -> StatementId {
    Statement::from(task.clone()).to_envelope().id()
}

#[test]
fn tasks_are_planned_after_those_that_they_need() {
    let tasks = plan(HELLO, &request("promote")).unwrap();
    let steps: Vec<_> = tasks.iter().map(|task| task.step.as_str()).collect();
    assert_eq!(steps, ["build", "partial", "sign"]);
    let [build, partial, sign] = tasks.as_slice() else { unreachable!() };
    let origins = |task: &Task| task.inputs.iter().map(|input| input.origin).collect::<Vec<_>>();
    assert_eq!(origins(build), []);
    let old = Origin::Manifest(id("old build"));
    assert_eq!(origins(partial), [Origin::Task(task_id(build)), old]);
    assert_eq!(origins(sign), [Origin::Task(task_id(build)), Origin::Task(task_id(partial))]);
    let directories: Vec<_> = partial.inputs.iter().map(|input| input.directory.as_str()).collect();
    assert_eq!(directories, ["build", "previous"]);
    assert_eq!(partial.inputs[0].patterns[0].as_str(), "dist/*.tar");
    assert_eq!(partial.externals[0].artifact.size, 3);
    assert_eq!(partial.externals[0].uri, "https://example.org/tool.bin");
    assert!(tasks.iter().all(|task| task.authorization == id("authorization")));
    assert_ne!(build.nonce, sign.nonce);
}

#[test]
fn a_task_says_what_the_file_says() {
    let tasks = plan(HELLO, &request("promote")).unwrap();
    let [build, partial, _] = tasks.as_slice() else { unreachable!() };
    assert_eq!(
        build.command,
        ["sh", "source/scripts/build.sh", "hello 1.1; {x}", "-O2 {version} $(id)"]
    );
    let commit = "ab".repeat(20);
    assert_eq!(
        build.variables,
        [
            ("VERSION".to_owned(), "1.1".to_owned()),
            ("WHERE".to_owned(), format!("beta/staging/promote/{commit}")),
        ]
    );
    let outputs: Vec<_> = build.outputs.iter().map(ToString::to_string).collect();
    assert_eq!(outputs, ["dist/hello-1.1.tar", "dist/delta"]);
    assert_eq!((build.network, build.sha512), (true, true));
    assert_eq!((partial.network, partial.sha512), (false, false));
    assert_eq!(build.source, Some(request("promote").source));
    assert_eq!(partial.source, None);
    assert_eq!(build.creator, "ci");
    assert_eq!(build.created, time(1_001_000));
    assert_eq!(build.deadline, time(1_001_000 + 7200));
    assert_eq!(partial.deadline, time(1_010_000), "the request's end");
    // what is planned is what core reads back
    for task in &tasks {
        let json = Statement::from(task.clone()).to_json();
        assert_eq!(Statement::parse(json.as_bytes()).unwrap(), Statement::from(task.clone()));
    }
}

#[test]
fn another_phase_has_other_tasks() {
    let mut request = request("ship");
    let signed = earlier("sign", "new sign", &["signed/hello"]);
    let tasks = plan_after(HELLO, &request, [old_build(), signed]).unwrap();
    assert_eq!(tasks.len(), 1);
    assert_eq!(tasks[0].destination.as_deref(), Some("file:///releases/1.1"));
    assert!(tasks[0].command.is_empty());
    assert_eq!(tasks[0].inputs[0].origin, Origin::Manifest(id("new sign")));
    request.phase = "party".parse().unwrap();
    assert_eq!(plan(HELLO, &request).unwrap_err().code, Code::ParseFieldMissing);
    let phases = Pipeline::parse(HELLO).unwrap();
    let phases: Vec<_> = phases.phases().iter().map(|phase| phase.as_str().to_owned()).collect();
    assert_eq!(phases, ["promote", "ship"]);
}

#[test]
fn an_earlier_manifest_must_be_one() {
    let code = |earlier: Vec<(StatementId, Manifest)>| {
        plan_after(HELLO, &request("promote"), earlier)
            .map_err(|refusal| (refusal.code, refusal.at))
    };
    let place = || "pipeline.toml:29:1".to_owned();
    let old = || earlier("build", "old", &["dist/a.tar"]);
    assert!(code(vec![old()]).is_ok());
    // another manifest of that step without such artifacts is no hindrance, nor one of another step
    let others = [earlier("build", "x", &["dist/b.zip"]), earlier("sign", "y", &["dist/a.tar"])];
    assert!(code([vec![old()], others.to_vec()].concat()).is_ok());
    assert_eq!(code(others.to_vec()).unwrap_err(), (Code::ChainStepMissing, place()));
    let two = vec![old(), earlier("build", "other", &["dist/b.tar"])];
    assert_eq!(code(two).unwrap_err(), (Code::ChainForked, place()));
    let more = HELLO.replace(
        "directory = \"previous\"\nartifacts = [\"dist/*.tar\"]",
        "directory = \"previous\"\nartifacts = [\"dist/*.tar\", \"dist/*.sig\"]",
    );
    let refusal = plan(&more, &request("promote")).unwrap_err();
    assert_eq!((refusal.code, refusal.at), (Code::ArtMissing, place()));
}

#[test]
fn a_missing_parameter_is_told_where_it_is_used() {
    let mut request = request("promote");
    request.parameters.clear();
    let refusal = plan(HELLO, &request).unwrap_err();
    assert_eq!(refusal.code, Code::ParseFieldMissing);
    assert_eq!(refusal.at, "pipeline.toml:12:75");
    assert!(refusal.expected.contains("{param.flags}"), "{refusal}");
}

#[test]
fn a_value_cannot_make_a_name_unsafe() {
    let text = HELLO.replace("dist/hello-{version}.tar", "dist/{param.flags}");
    assert!(Pipeline::parse(&text).is_ok());
    let refusal = plan(&text, &request("promote")).unwrap_err();
    assert_eq!(refusal.code, Code::ArtNameInvalid);
    assert!(refusal.at.starts_with("pipeline.toml:14:12: "), "{refusal}");
}

/// `chain-cycle`.
#[test]
fn circles_are_refused() {
    let text = HELLO.replace(
        "[[steps.partial.inputs]]\nearlier",
        "[[steps.partial.inputs]]\nstep = \"sign\"\nartifacts = [\"x\"]\n[[steps.partial.inputs]]\nearlier",
    );
    let refusal = Pipeline::parse(&text).unwrap_err();
    assert_eq!((refusal.code, refusal.at.as_str()), (Code::ChainCycle, "pipeline.toml:20:8"));
    assert!(refusal.found.contains("partial, sign"), "{refusal}");
    let own = HELLO.replace("earlier = \"build\"", "step = \"partial\"");
    assert_eq!(Pipeline::parse(&own).unwrap_err().code, Code::ChainCycle);
}

#[test]
fn long_chains_are_planned_in_order() {
    let step = |i: u32| {
        let inputs = format!("inputs = [{{ step = \"s{}\", artifacts = [\"o\"] }}]\n", i + 1);
        let inputs = if i < 299 { inputs } else { String::new() };
        format!("[steps.s{i}]\nphase = \"promote\"\ncommand = [\"c\"]\noutputs = [\"o\"]\n{inputs}")
    };
    let head = "pipeline = \"https://custody.dev/pipeline/v1\"\n".to_owned();
    let text = (0..300).map(step).fold(head, |text, step| text + &step);
    let tasks = plan(&text, &request("promote")).unwrap();
    assert_eq!(tasks.len(), 300);
    assert_eq!((tasks[0].step.as_str(), tasks[299].step.as_str()), ("s299", "s0"));
}

#[test]
fn limits_are_put_into_the_task() {
    let limits = "limits = { memory = \"2G\", processes = 100, output = \"512K\" }";
    let tasks = plan(&HELLO.replace("network = true", limits), &request("promote")).unwrap();
    let of = |step: &str| tasks.iter().find(|task| task.step.as_str() == step).unwrap().limits;
    let expected = Limits { memory: Some(2 << 30), processes: Some(100), output: Some(512 << 10) };
    assert_eq!(of("build"), expected);
    assert_eq!(of("sign"), Limits::default());
}

const DIGEST: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[test]
fn an_image_is_a_digest_or_a_product_among_the_inputs() {
    let of = |image: &str| {
        let text = HELLO.replace("command = [\"dist/delta\"]", &format!("image = {image}\n$0"));
        let text = text.replace("$0", "command = [\"dist/delta\"]");
        let tasks = plan(&text, &request("promote"))?;
        assert!(tasks.iter().all(|task| task.image.is_none() || task.step.as_str() == "partial"));
        let partial = tasks.into_iter().find(|task| task.step.as_str() == "partial").unwrap();
        Ok::<_, Refusal>(partial.image.unwrap().to_string())
    };
    let named = format!("registry.example.org/debian@sha256:{DIGEST}");
    assert_eq!(of(&format!("\"{named}\"")).unwrap(), named);
    let made = |artifact| of(&format!("{{ step = \"build\", artifact = \"{artifact}\" }}"));
    // the earlier build has one too, and nobody guesses which is meant
    let refusal = made("dist/image.tar").unwrap_err();
    assert_eq!((refusal.code, refusal.at.as_str()), (Code::ArtMissing, "pipeline.toml:22:9"));
    assert_eq!(refusal.found, "build/dist/image.tar and previous/dist/image.tar");
    assert_eq!(made("dist/image.zip").unwrap_err().found, "none");
    assert_eq!(made("../image.tar").unwrap_err().code, Code::ArtNameInvalid);
    let sign = HELLO.replacen(
        "source = true\n",
        "source = true\nimage = { step = \"build\", artifact = \"dist/{version}.tar\" }\n",
        1,
    );
    let tasks = plan(&sign, &request("promote")).unwrap();
    let place = "build/dist/1.1.tar".parse().unwrap();
    assert_eq!(tasks[2].image, Some(Image::Input(place)));
}

/// `pol-image-by-tag`: whoever moves a tag changes what a build runs in.
#[test]
fn an_image_without_its_digest_is_refused() {
    for image in [
        "\"debian\"".to_owned(),
        "\"debian:12\"".to_owned(),
        "\"registry.example.org/debian:12\"".to_owned(),
        format!("\"debian:12@sha256:{DIGEST}\""),
        format!("\"sha256:{DIGEST}\""),
        format!("\"debian@sha512:{DIGEST}\""),
        "\"debian@sha256:ba78\"".to_owned(),
        "{ step = \"sign\", artifact = \"dist/a\" }".to_owned(),
        "{ step = \"build\" }".to_owned(),
        "{ step = \"build\", artifact = 1 }".to_owned(),
        "{ step = \"build\", artifact = \"dist/a\", tag = \"12\" }".to_owned(),
        "true".to_owned(),
    ] {
        let text = HELLO.replace("network = true", &format!("image = {image}"));
        let refusal = Pipeline::parse(&text).unwrap_err();
        assert!(refusal.at.starts_with("pipeline.toml:16:9"), "{image}: {refusal}");
    }
    let good = HELLO.replace("network = true", &format!("image = \"debian@sha256:{DIGEST}\""));
    assert!(Pipeline::parse(&good).is_ok());
}

#[test]
fn faults_are_told_with_line_and_column() {
    assert!(Pipeline::parse(HELLO).is_ok());
    for (old, new, code, at) in [
        ("pipeline/v1", "pipeline/v2", Code::ParseFieldType, "1:12"),
        ("network = true", "netwrk = true", Code::ParseUnknownField, "16:1"),
        ("network = true", "network = \"yes\"", Code::ParseFieldType, "16:11"),
        ("network = true", "source = true", Code::ParseDuplicateKey, "16:1"),
        ("network = true", "network = ", Code::ParseFieldType, "16:11"),
        ("network = true", "container = {}", Code::ParseUnknownField, "16:1"),
        ("network = true", "limits = { memory = \"2\" }", Code::ParseFieldType, "16:21"),
        ("network = true", "limits = { output = \"0G\" }", Code::ParseFieldType, "16:21"),
        ("network = true", "limits = { processes = 0 }", Code::ParseFieldType, "16:24"),
        ("network = true", "limits = { cpu = 1 }", Code::ParseUnknownField, "16:12"),
        ("destination = \"{", "image = true\ndestination = \"{", Code::ParseFieldType, "40:8"),
        ("destination = \"{", "limits = {}\ndestination = \"{", Code::ParseFieldType, "40:8"),
        ("deadline = \"2h\"", "deadline = \"2 hours\"", Code::ParseFieldType, "18:12"),
        ("deadline = \"2h\"", "deadline = \"0h\"", Code::ParseFieldType, "18:12"),
        (
            "deadline = \"2h\"",
            "deadline = \"99999999999999999999d\"",
            Code::ParseFieldType,
            "18:12",
        ),
        ("deadline = \"2h\"", "deadline = \"h\u{e9}\"", Code::ParseFieldType, "18:12"),
        ("phase = \"ship\"", "", Code::ParseFieldMissing, "40:1"),
        ("phase = \"ship\"", "phase = \"a b\"", Code::ParseFieldType, "41:9"),
        ("[steps.publish]", "[steps.\"a/b\"]", Code::ParseFieldType, "40:8"),
        ("[\"dist/delta\"]", "[]", Code::ParseFieldType, "20:8"),
        ("outputs = [\"out/**\"]", "", Code::ParseFieldType, "20:8"),
        ("\"sh\"", "\"s\u{feff}h\"", Code::ParseUnicodeInvalid, "5:12"),
        ("https://example.org", "https://\u{200b}example.org", Code::ParseUnicodeInvalid, "36:7"),
        ("[\"out/**\"]", "[\"out/**\", \"../x\"]", Code::ArtNameInvalid, "23:22"),
        ("[\"out/**\"]", "[\"out/{oops}\"]", Code::ParseFieldType, "23:12"),
        ("[\"out/**\"]", "[\"out/{version\"]", Code::ParseFieldType, "23:12"),
        ("[\"out/**\"]", "[\"out/{param.}\"]", Code::ParseFieldType, "23:12"),
        ("{{x}}", "{x}}", Code::ParseFieldType, "12:45"),
        ("VERSION =", "\"A-B\" =", Code::ParseFieldType, "15:15"),
        ("VERSION =", "HOME =", Code::ParseFieldType, "15:15"),
        ("step = \"partial\"", "step = \"publish\"", Code::ParseFieldType, "8:55"),
        ("step = \"partial\"", "step = \"absent\"", Code::ParseFieldType, "8:55"),
        ("step = \"partial\"", "artefacts = \"x\"", Code::ParseUnknownField, "8:57"),
        ("earlier = \"build\"", "", Code::ParseFieldType, "29:1"),
        (
            "earlier = \"build\"",
            "earlier = \"build\"\nstep = \"build\"",
            Code::ParseFieldType,
            "29:1",
        ),
        ("directory = \"previous\"", "", Code::ArtNameCollision, "29:1"),
        ("directory = \"previous\"", "directory = \"External\"", Code::ArtNameCollision, "29:1"),
        ("directory = \"previous\"", "directory = \"../x\"", Code::ArtNameInvalid, "31:13"),
        ("[\"signed/*\"] }]", "[] }]", Code::ParseFieldType, "43:11"),
        ("name = \"tool.bin\"", "name = \"/tool\"", Code::ArtNameInvalid, "35:8"),
        ("sha256 = \"ba7816", "sha256 = \"BA7816", Code::StmtDigestFormat, "37:10"),
        ("size = 3", "size = -3", Code::ParseFieldType, "38:8"),
        ("size = 3", "size = 3\nmode = 7", Code::ParseUnknownField, "39:1"),
        ("destination = \"{", "outputs = [\"x\"]\ndestination = \"{", Code::ParseFieldType, "40:8"),
        ("destination = \"{", "command = [\"x\"]\ndestination = \"{", Code::ParseFieldType, "40:8"),
    ] {
        assert!(HELLO.contains(old), "{old}");
        let refusal = Pipeline::parse(&HELLO.replacen(old, new, 1)).unwrap_err();
        let place = refusal.at.split(": ").next().unwrap_or_default();
        assert_eq!(
            (refusal.code, place),
            (code, format!("pipeline.toml:{at}").as_str()),
            "{new}: {refusal}"
        );
    }
    for hostile in ["", "\0", "[[[[", "steps = 1", &"[".repeat(100_000), &"a.".repeat(100_000)] {
        assert!(Pipeline::parse(hostile).is_err());
    }
}

const LOCK: &str = r#"downloads = "https://custody.dev/downloads/v1"

[[pinned]]
uri = "https://registry.example.org/a/b%2fc?d=e"
sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
size = 3
"#;

/// A pipeline whose build downloads like this.
fn downloading(downloads: &str) -> Result<Pipeline, Refusal> {
    let pipeline = HELLO.replacen("network = true\n", "", 1);
    let table = format!("[steps.build.downloads]\n{downloads}\n\n[steps.partial]");
    Pipeline::parse(&pipeline.replacen("[steps.partial]", &table, 1))
}

const FROM: &str = "from = [\"https://registry.example.org/\"]\n";

#[test]
fn downloads_are_recorded_pinned_or_locked() {
    let downloads = |pipeline: &Pipeline| {
        let request = request("promote");
        let (earlier, nonce) = ([old_build()], || "0".repeat(32));
        let tasks = pipeline.plan(&request, &earlier, id("authorization"), "c", time(0), nonce)?;
        Ok(tasks.into_iter().find(|task| task.step.as_str() == "build").unwrap().downloads.unwrap())
    };
    let recorded = downloading(&format!("{FROM}record = true")).unwrap();
    let recorded = downloads(&recorded).unwrap();
    assert_eq!((recorded.from.len(), recorded.pinned), (1, None));
    let pins = LOCK
        .split_once("\n\n")
        .unwrap()
        .1
        .replace("[[pinned]]", "[[steps.build.downloads.pinned]]");
    let pinned = downloads(&downloading(&format!("{FROM}{pins}")).unwrap()).unwrap();
    let pins = pinned.pinned.clone().unwrap();
    assert_eq!(
        (pins[0].uri.as_str(), pins[0].size),
        ("https://registry.example.org/a/b%2fc?d=e", 3)
    );
    // the same from a file of the commit, which must be read first
    let mut locked = downloading(&format!("{FROM}lock = \"pins/downloads.toml\"")).unwrap();
    let path = "pins/downloads.toml".parse().unwrap();
    assert_eq!(locked.locks().into_iter().collect::<Vec<_>>(), [&path]);
    let refused: Result<_, Refusal> = downloads(&locked);
    assert_eq!(refused.unwrap_err().code, Code::ParseFieldMissing);
    locked.lock(&path, LOCK).unwrap();
    assert_eq!(downloads(&locked).unwrap(), pinned);
    // what is written is read again
    let mut again = downloading(&format!("{FROM}lock = \"pins/downloads.toml\"")).unwrap();
    again.lock(&path, &custody_run::pipeline::write_lock(&pins)).unwrap();
    assert_eq!(downloads(&again).unwrap(), pinned);
}

#[test]
fn downloads_that_contradict_themselves_are_refused() {
    assert!(downloading(&format!("{FROM}record = true")).is_ok());
    for (downloads, code) in [
        (FROM.to_owned(), Code::ParseFieldType),
        (format!("{FROM}record = false"), Code::ParseFieldType),
        (format!("{FROM}record = true\nlock = \"a\""), Code::ParseFieldType),
        (format!("{FROM}lock = \"../a\""), Code::ArtNameInvalid),
        ("from = []\nrecord = true".to_owned(), Code::ParseFieldType),
        ("from = [\"https://a\"]\nrecord = true".to_owned(), Code::ParseFieldType),
        ("from = [\"https://\"]\nrecord = true".to_owned(), Code::ParseFieldType),
        ("from = [\"file:///a/\"]\nrecord = true".to_owned(), Code::ParseFieldType),
        ("from = [\"https://a@b/\"]\nrecord = true".to_owned(), Code::ParseFieldType),
        ("from = [\"https://a/../\"]\nrecord = true".to_owned(), Code::ParseFieldType),
        (format!("{FROM}record = true\nevil = 1"), Code::ParseUnknownField),
    ] {
        assert_eq!(downloading(&downloads).unwrap_err().code, code, "{downloads}");
    }
    let both = HELLO.replacen(
        "[steps.partial]",
        &format!("[steps.build.downloads]\n{FROM}record = true\n[steps.partial]"),
        1,
    );
    assert_eq!(Pipeline::parse(&both).unwrap_err().expected, "downloads or network = true");
    let lock = |text: &str| {
        let mut pipeline = downloading(&format!("{FROM}lock = \"a\"")).unwrap();
        pipeline.lock(&"a".parse().unwrap(), text).unwrap_err()
    };
    let twice = format!("{LOCK}{}", LOCK.split_once("\n\n").unwrap().1);
    assert_eq!(lock(&twice).code, Code::ParseDuplicateKey);
    assert_eq!(lock(&LOCK.replace("registry", "evil")).code, Code::ParseFieldType);
    assert_eq!(lock(&LOCK.replace("a/b", "a/../b")).code, Code::ParseFieldType);
    assert_eq!(lock(&LOCK.replace("downloads/v1", "downloads/v2")).code, Code::ParseFieldType);
    assert!(lock(&LOCK.replace("size = 3", "size = \"3\"")).at.starts_with("a:6:"));
    assert_eq!(lock("").code, Code::ParseFieldMissing);
}
