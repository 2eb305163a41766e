//! The machine of a step: another image than the policy has, another instance, somebody else's documents,
//! less isolation, or a worker who says so and proves nothing.

use std::rc::Rc;
use std::sync::OnceLock;

use custody_core::digest::Sha256;
use custody_core::statement::{Attestation, Image, Manifest, UsedImage, binding};
use custody_core::{Code, Refusal};
use custody_platforms::attestation;
use custody_platforms::cloud::{AMI, Clouds, IMAGE, INSTANCE, OTHER, TIED};
use custody_platforms::token::Issuer;
use custody_verify::Report;
use custody_verify::policy::Standing;
use custody_verify::report::{Outcome, Rule};
use custody_world as world;
use world::{Builder, Key, World, assert_accepted, assert_refused, change, findings, label};

const BUILD: &str = "new/build/manifest";
fn clouds() -> &'static Clouds {
    static CLOUDS: OnceLock<Clouds> = OnceLock::new();
    CLOUDS.get_or_init(Clouds::own)
}

fn document(instance: &str, image: &str) -> Attestation {
    clouds().document(instance, image)
}

/// A token of this run by this key.
fn token(manifest: &Manifest, key: &str, instance: &str) -> Attestation {
    let binding = binding(&manifest.task.0, &Key::of(key).public.id());
    clouds().token(&binding, manifest.started, instance)
}

fn policy(text: &str, step: &str, key: &str) -> String {
    clouds().policy(text, &Key::of("builder").public, step, key)
}

fn demanding(step: &'static str, key: &'static str) -> Builder {
    change().policy(move |text| policy(&text, step, key))
}

/// The build and what people have of it, without the older release whose machine says nothing.
fn built(world: &World) -> Report {
    let mut question = world.ask("hello", &world::content("new", "hello"));
    question.expect.step = Some(label("build"));
    custody_verify::verify(&question, &world.evidence(), &world.chain(), world.now)
}

#[track_caller]
fn refused(builder: Builder, code: Code, parts: &[&str]) {
    let report = built(&builder.build());
    assert_refused(&report, code);
    let text = findings(&report);
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

fn claims(manifest: &mut Manifest, fact: &str, value: &str) {
    manifest.environment.push((fact.into(), value.into()));
}

fn standing(report: &Report, fact: &str) -> Option<Standing> {
    let node = report.nodes().find(|node| node.title == "manifest of step build")?;
    node.machine.iter().find(|known| known.name == fact).map(|known| known.standing)
}

/// `wrk-ami-not-allowed`: by another image's document, and by the worker's word alone.
#[test]
fn a_machine_image_that_is_not_allowed_or_not_proved_is_refused() {
    let with = |instance: &'static str, image: &'static str| {
        demanding(AMI, TIED)
            .manifest(BUILD, move |m| m.attestations = vec![document(instance, image)])
    };
    let report = built(&with(INSTANCE, IMAGE).build());
    assert_accepted(&report);
    assert_eq!(standing(&report, "ec2.image-id"), Some(Standing::Verified));
    let other = "ami-0fedcba9876543210";
    refused(
        with(INSTANCE, other),
        Code::WorkerImageMismatch,
        &["worker/builder", "ec2.image-id", IMAGE, &format!("{other}, verified")],
    );
    let word = demanding(AMI, "").manifest(BUILD, |m| claims(m, "ec2.image-id", IMAGE));
    refused(word, Code::WorkerIdentityUnverified, &[&format!("{IMAGE}, claimed")]);
    refused(demanding(AMI, ""), Code::WorkerIdentityUnverified, &["found absent"]);
}

/// `wrk-iid-replayed`, `wrk-iid-unsigned`: a document is of one machine for its whole life, and everybody
/// who saw it has it.
#[test]
fn a_document_counts_only_with_the_key_of_its_machine() {
    let with = |key: &'static str, instance: &'static str| {
        demanding(AMI, key)
            .manifest(BUILD, move |m| m.attestations = vec![document(instance, IMAGE)])
    };
    assert_accepted(&built(&with(TIED, INSTANCE).build()));
    refused(
        with("", INSTANCE),
        Code::WorkerIdentityUnverified,
        &["anybody who saw them", INSTANCE],
    );
    refused(with(TIED, OTHER), Code::WorkerIdentityMismatch, &[OTHER, INSTANCE]);
    let forged = demanding(AMI, TIED).manifest(BUILD, |m| {
        let mut document = document(INSTANCE, IMAGE);
        *document.parts[1].1.last_mut().unwrap() ^= 4;
        m.attestations = vec![document];
    });
    refused(forged, Code::WorkerIdentityUnverified, &[]);
    // a tied key without any proof signs nothing, whatever the step demands
    let tied = demanding("", TIED);
    refused(tied, Code::WorkerIdentityUnverified, &["ec2.instance-id", INSTANCE]);
}

/// What nobody demands is in the report all the same, and a document that proves nothing with the reason.
#[test]
fn the_report_says_what_is_proved_and_what_is_claimed_where_nothing_is_demanded() {
    let world = demanding("", "").manifest(BUILD, |m| {
        m.attestations = vec![token(m, "builder", "123"), document(INSTANCE, IMAGE)];
        claims(m, "ec2.image-id", IMAGE);
    });
    let report = built(&world.build());
    assert_accepted(&report);
    assert_eq!(standing(&report, "google.instance-id"), Some(Standing::Verified));
    assert_eq!(standing(&report, "ec2.image-id"), Some(Standing::Claimed));
    let node = report.nodes().find(|node| node.title == "manifest of step build").unwrap();
    assert!(node.facts.iter().any(|(word, why)| *word == "not proved" && why.starts_with("ec2: ")));
    let json = report.to_json().to_line();
    for part in [
        r#"{"fact":"google.instance-id","standing":"verified","value":"123"}"#,
        r#"{"fact":"os","standing":"claimed","value":"linux"}"#,
    ] {
        assert!(json.replace(' ', "").contains(part), "{part}: {json}");
    }
}

/// A worker's word that differs from the proof is a lie or a fault, whoever asks.
#[test]
fn a_claim_against_the_proof_is_refused() {
    let with = |claim: &'static str| {
        demanding("", "").manifest(BUILD, move |m| {
            m.attestations = vec![token(m, "builder", "123")];
            claims(m, "google.instance-id", claim);
        })
    };
    assert_accepted(&built(&with("123").build()));
    refused(
        with("124"),
        Code::WorkerIdentityMismatch,
        &["123, as proved", "124, as the worker says"],
    );
}

/// `wrk-key-two-instances`: a copy of the key on another machine.
#[test]
fn one_key_on_two_machines_is_refused() {
    let with = |other: &'static str| {
        demanding("", "")
            .manifest(BUILD, |m| m.attestations = vec![token(m, "builder", "123")])
            .manifest("old/build/manifest", move |m| {
                m.attestations = vec![token(m, "builder", other)];
            })
    };
    assert_accepted(&built(&with("123").build()));
    refused(with("124"), Code::WorkerIdentityMismatch, &["123 here, and 124 in manifest"]);
}

/// A service account's key is the same in every pod, and pods come and go.
#[test]
fn one_key_in_many_pods_is_one_machine() {
    let issuer = Rc::new(Issuer::new("https://cluster.example.org"));
    let platform = format!(
        "[platforms.kubernetes]\nkind = \"kubernetes\"\nissuer = \"https://cluster.example.org\"\njwks = '{}'\n\n[roles.releng]",
        issuer.jwks()
    );
    let in_pod = |uid: &'static str| {
        let issuer = issuer.clone();
        move |manifest: &mut Manifest| {
            let binding = binding(&manifest.task.0, &Key::of("builder").public.id());
            let more = format!(
                r#""kubernetes.io":{{"namespace":"builds","pod":{{"name":"x","uid":"{uid}"}}}}"#
            );
            let subject = "system:serviceaccount:builds:builder";
            let audience = format!("custody:{binding}");
            let token = issuer.token(&issuer.claims(&audience, subject, manifest.started, &more));
            manifest.attestations = vec![attestation("kubernetes", &[("token", &token)])];
        }
    };
    let world = change()
        .policy(move |text| text.replace("[roles.releng]", &platform))
        .manifest(BUILD, in_pod("5fd2a7f0"))
        .manifest("old/build/manifest", in_pod("14ee3fa4"));
    let report = built(&world.build());
    assert_accepted(&report);
    assert_eq!(standing(&report, "kubernetes.pod-uid"), Some(Standing::Verified));
}

/// What a key is tied to on one platform says nothing of another one's documents: they prove nothing,
/// and are no contradiction.
#[test]
fn documents_of_a_platform_to_which_the_key_is_not_tied_prove_nothing() {
    let tied = ", machine = { \"google.instance-id\" = \"123\" }";
    let with = |step: &'static str| {
        demanding(step, tied).manifest(BUILD, |m| {
            m.attestations = vec![token(m, "builder", "123"), document(INSTANCE, IMAGE)];
        })
    };
    let report = built(&with("").build());
    assert_accepted(&report);
    assert_eq!(standing(&report, "ec2.image-id"), None);
    refused(with(AMI), Code::WorkerIdentityUnverified, &["anybody who saw them"]);
}

/// What must only be claimed may be claimed, whatever else was sent along.
#[test]
fn a_claim_that_is_enough_is_enough_beside_a_document_that_proves_nothing() {
    let claimed: &'static str = "machine = [{ fact = \"ec2.image-id\", is = [\"ami-0123456789abcdef0\"], standing = \"claimed\" }]";
    let with = |claim: &'static str| {
        demanding(claimed, "").manifest(BUILD, move |m| {
            m.attestations = vec![document(INSTANCE, IMAGE)];
            claims(m, "ec2.image-id", claim);
        })
    };
    assert_accepted(&built(&with(IMAGE).build()));
    refused(with("ami-0fedcba9876543210"), Code::WorkerImageMismatch, &["ami-0fedcba9876543210"]);
}

/// Each kind of fact has its code: what somebody does next depends on it.
#[test]
fn a_fact_that_is_not_as_demanded_has_the_code_of_its_kind() {
    for (fact, code) in [
        ("os", Code::WorkerIdentityMismatch),
        ("architecture", Code::WorkerIdentityMismatch),
        ("hostname", Code::WorkerIdentityMismatch),
        ("isolation", Code::WorkerIsolationMissing),
        ("network", Code::WorkerIsolationMissing),
        ("interactive", Code::WorkerInteractive),
    ] {
        let step =
            format!("machine = [{{ fact = \"{fact}\", is = [\"good\"], standing = \"claimed\" }}]");
        let builder = change().policy(move |text| policy(&text, &step, ""));
        let other = builder.manifest(BUILD, |m| m.environment = vec![("x".into(), "y".into())]);
        refused(other, code, &[fact, "found absent"]);
    }
}

/// The report says whether anything was demanded of the machine at all.
#[test]
fn a_check_of_the_machine_stands_where_something_is_demanded() {
    let passed = |step: &'static str, key: &'static str| {
        let world = demanding(step, key)
            .manifest(BUILD, |m| m.attestations = vec![document(INSTANCE, IMAGE)]);
        let report = built(&world.build());
        assert_accepted(&report);
        let node = report.nodes().find(|node| node.title == "manifest of step build").unwrap();
        let check = node.checks.iter().find(|check| check.rule == Rule::ManifestEnvironment);
        check.unwrap().outcome == Outcome::Passed
    };
    assert!(passed(AMI, TIED));
    assert!(passed("", TIED));
    assert!(!passed("", ""));
}

/// `chain-threshold-one-machine`: two keys of two names on one instance.
#[test]
fn two_builders_on_one_machine_are_one() {
    let with = |other: &'static str| {
        let second = Key::of("builder-2").public.to_openssh();
        change()
            .policy(move |text| {
                policy(&text, "builders = 2", "")
                    .replace("[platforms.ec2]", &format!("[machines.builder-2]\nkeys = [{{ key = \"{second}\" }}]\n[platforms.ec2]"))
                    .replace("perform = [\"builder\"]", "perform = [\"builder\", \"builder-2\"]")
            })
            .also("build", "builder-2")
            .manifest(BUILD, |m| m.attestations = vec![token(m, "builder", "123")])
            .manifest("new/build/manifest/builder-2", move |m| {
                m.attestations = vec![token(m, "builder-2", other)];
            })
    };
    assert_accepted(&built(&with("124").build()));
    refused(with("123"), Code::ChainThresholdDisagree, &["is like", "instance-id 123"]);
}

/// Two builders on one instance, of whom one brings along another platform's word of a machine elsewhere.
#[test]
fn one_more_machine_that_is_proved_makes_no_second_builder() {
    let with = |second_tied: &'static str, attested: &'static str| {
        let second = Key::of("builder-2").public.to_openssh();
        change()
            .policy(move |text| {
                policy(&text, "builders = 2", TIED)
                    .replace("[platforms.ec2]", &format!("[machines.builder-2]\nkeys = [{{ key = \"{second}\"{second_tied} }}]\n[platforms.ec2]"))
                    .replace("perform = [\"builder\"]", "perform = [\"builder\", \"builder-2\"]")
            })
            .also("build", "builder-2")
            .manifest(BUILD, |m| m.attestations = vec![document(INSTANCE, IMAGE)])
            .manifest("new/build/manifest/builder-2", move |m| {
                m.attestations = vec![document(attested, IMAGE), token(m, "builder-2", "999")];
            })
    };
    let elsewhere = ", machine = { \"ec2.instance-id\" = \"i-0ffffffffffffffff\" }";
    assert_accepted(&built(&with(elsewhere, OTHER).build()));
    refused(with(TIED, INSTANCE), Code::ChainThresholdDisagree, &["is like", INSTANCE]);
}

/// A tied key that was taken along, and beside it the signature of another machine that may build.
#[test]
fn the_key_of_the_machine_that_the_manifest_names_speaks_for_it() {
    let id = |name: &str| Key::of(name).public.id();
    let names = (2..99).map(|number| format!("builder-{number}"));
    let second = names.into_iter().find(|name| id(name) < id("builder")).unwrap();
    let key = Key::of(&second).public.to_openssh();
    let builder = change()
        .policy(|text| {
            policy(&text, "", TIED)
                .replace(
                    "[platforms.ec2]",
                    &format!(
                        "[machines.{second}]\nkeys = [{{ key = \"{key}\" }}]\n[platforms.ec2]"
                    ),
                )
                .replace(
                    "perform = [\"builder\"]",
                    &format!("perform = [\"builder\", \"{second}\"]"),
                )
        })
        .signed_by(BUILD, &["builder", &second]);
    refused(builder, Code::WorkerIdentityUnverified, &["ec2.instance-id", INSTANCE]);
}

/// `wrk-interactive-docker`, by what a sandbox would have kept away: a lesser wall than the policy wants, by the worker's own word.
#[test]
fn less_isolation_than_demanded_is_refused() {
    const SANDBOX: &str = "machine = [{ fact = \"isolation\", is = [\"sandbox\", \"container\"], standing = \"claimed\" }]";
    let with = |value: &'static str| {
        demanding(SANDBOX, "").manifest(BUILD, move |m| claims(m, "isolation", value))
    };
    assert_accepted(&built(&with("sandbox").build()));
    assert_accepted(&built(&with("container").build()));
    refused(
        with("process"),
        Code::WorkerIsolationMissing,
        &["container or sandbox", "process, claimed"],
    );
    refused(demanding(SANDBOX, ""), Code::WorkerIsolationMissing, &["found absent"]);
}

/// `wrk-interactive-docker`, `wrk-interactive-type`: anything but no is yes.
#[test]
fn a_machine_that_somebody_sat_at_is_refused() {
    const ASKED: &str =
        "machine = [{ fact = \"interactive\", is = [\"no\"], standing = \"claimed\" }]";
    let with =
        |value: &'static str| change().manifest(BUILD, move |m| claims(m, "interactive", value));
    assert_accepted(&built(&with("no").build()));
    for value in ["yes", "", "No", "0", "false", "unknown"] {
        refused(with(value), Code::WorkerInteractive, &["interactive"]);
    }
    refused(demanding(ASKED, ""), Code::WorkerInteractive, &["found absent"]);
}

fn digest(text: &str) -> Sha256 {
    Sha256::of(text.as_bytes())
}

fn in_image(builder: Builder, asked: &'static str, used: &'static str) -> Builder {
    builder
        .task("new/build/task", move |task| {
            let name = "registry.example.org/debian".into();
            task.image = Some(Image::Named { name, digest: digest(asked) });
        })
        .manifest(BUILD, move |m| {
            let name = "registry.example.org/debian".into();
            let platform = "linux/amd64".into();
            m.image = Some(UsedImage { name, id: digest(used), manifest: None, platform });
        })
}

/// The policy lets the build run in the image `good`.
fn good_image() -> Builder {
    let step = format!("images = [\"sha256:{}\"]", digest("good"));
    change().policy(move |text| policy(&text, &step, ""))
}

/// `wrk-image-digest`: another image in the task, in the run, none, or one where none is allowed.
#[test]
fn a_container_image_that_is_not_allowed_is_refused() {
    assert_accepted(&built(&in_image(good_image(), "good", "good").build()));
    let list = format!("sha256:{}", digest("good"));
    let bad = digest("bad").to_string();
    refused(in_image(good_image(), "bad", "bad"), Code::WorkerImageMismatch, &[&list, &bad]);
    refused(in_image(good_image(), "good", "bad"), Code::WorkerImageMismatch, &[&bad]);
    refused(good_image(), Code::WorkerImageMismatch, &[&list, "no image"]);
    refused(
        in_image(change(), "good", "good"),
        Code::WorkerImageMismatch,
        &["gives this step none"],
    );
}

/// `wrk-image-unbuilt`: an image from a step, without the manifest of that step.
#[test]
fn an_image_that_is_a_product_needs_its_manifest() {
    let from = |step: &'static str| {
        let line = format!("[products.hello.steps.partial]\nimages = [{{ step = \"{step}\" }}]\n");
        change()
            .policy(move |text| text.replace("[products.hello.steps.partial]\n", &line))
            .task("new/partial/task", |task| {
                task.image = Some(Image::Input("new/dist/hello.mar".parse().unwrap()));
            })
            .manifest("new/partial/manifest", |m| {
                let (name, platform) = ("new/dist/hello.mar".into(), "linux/amd64".into());
                m.image = Some(UsedImage { name, id: digest("it"), manifest: None, platform });
            })
    };
    assert_accepted(&from("build").build().file());
    let other = from("sign").build().file();
    assert_refused(&other, Code::WorkerImageMismatch);
    assert!(findings(&other).contains("a product of step sign"), "{}", findings(&other));
    let mut unbuilt = from("build").build();
    unbuilt.drop("new/build/manifest");
    assert_refused(&unbuilt.file(), Code::ChainLinkMissing);
    let outside = from("build").task("new/partial/task", |task| {
        task.image = Some(Image::Input("external/bsdiff".parse().unwrap()));
    });
    assert_refused(&outside.build().file(), Code::WorkerImageMismatch);
    // nor one that lies where a file of the step could
    let beside = from("build")
        .task("new/partial/task", |task| {
            task.inputs[0].directory = "external".parse().unwrap();
            task.inputs[0].patterns = vec!["dist/*.mar".parse().unwrap()];
            task.externals[0].artifact.name = "dist/other.mar".parse().unwrap();
            task.image = Some(Image::Input("external/dist/other.mar".parse().unwrap()));
        })
        .manifest("new/partial/manifest", |m| {
            m.image.as_mut().unwrap().name = "external/dist/other.mar".into();
            let name = &"bsdiff".parse().unwrap();
            let external = m.inputs.iter_mut().find(|input| input.artifact.name == *name);
            if let Some(external) = external {
                external.artifact.name = "dist/other.mar".parse().unwrap();
            }
        });
    assert_refused(&beside.build().file(), Code::WorkerImageMismatch);
}

/// `wrk-image-unbuilt`: the task's inputs could give the archive, and the step that ran had none.
#[test]
fn an_image_that_no_input_brought_is_refused() {
    let of = |file: &'static str| {
        let line = "[products.hello.steps.partial]\nimages = [{ step = \"build\" }]\n";
        change()
            .policy(move |text| text.replace("[products.hello.steps.partial]\n", line))
            .task("new/partial/task", move |task| {
                task.image = Some(Image::Input(file.parse().unwrap()));
                task.inputs[0].patterns = vec!["dist/*.mar".parse().unwrap()];
            })
            .manifest("new/partial/manifest", move |m| {
                let (name, platform) = (file.into(), "linux/amd64".into());
                m.image = Some(UsedImage { name, id: digest("it"), manifest: None, platform });
            })
            .build()
            .file()
    };
    assert_accepted(&of("new/dist/hello.mar"));
    let ghost = of("new/dist/ghost.mar");
    assert_refused(&ghost, Code::WorkerImageMismatch);
    let told = findings(&ghost);
    assert!(told.contains("inputs/new/dist/ghost.mar, among the inputs that were used"), "{told}");
}

/// `pol-image-by-tag`, and demands that nobody could mean.
#[test]
fn demands_that_cannot_be_held_are_refused_in_the_policy() {
    let read = |step: &str, key: &str| {
        let text = policy(&world::policy_text(), step, key);
        custody_verify::Policy::parse(&text).map_err(Refusal::from)
    };
    assert!(read(AMI, TIED).is_ok());
    let digest = digest("good");
    for step in [
        "images = [\"debian:12\"]".to_string(),
        "images = [\"debian@sha256:00\"]".into(),
        format!("images = [\"debian:12@sha256:{digest}\"]"),
        "images = []".into(),
        "images = [{ step = \"nowhere\" }]".into(),
        "images = [{ step = \"build\", tag = \"12\" }]".into(),
        "images = [12]".into(),
        format!("images = [\"sha256:{digest}\", \"sha256:{digest}\"]"),
        AMI.replace("ec2.", "azure."),
        AMI.replace("ec2.", ""),
        AMI.replace("\"ami-0123456789abcdef0\"", ""),
        AMI.replace("verified", "proved"),
        AMI.replace("image-id", "IMAGE"),
        AMI.replace("[{", "[{ fact = \"ec2.image-id\", is = [\"x\"], standing = \"claimed\" }, {"),
    ] {
        let refusal = read(&step, "").unwrap_err();
        assert_eq!(refusal.code, Code::PolicyInvalid, "{step}");
        assert!(refusal.at.starts_with("policy, line "), "{refusal}");
    }
    for key in [
        ", machine = { \"ec2.region\" = \"eu-west-1\" }",
        ", machine = { \"azure.vm-id\" = \"1\" }",
        ", machine = { hostname = \"a\" }",
    ] {
        assert_eq!(read("", key).unwrap_err().code, Code::PolicyInvalid, "{key}");
    }
}
