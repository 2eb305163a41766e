//! The machine of a step: what is verified of it and what it claims, its image, keys that were enrolled,
//! and several machines that must agree.

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::Envelope;
use custody_core::statement::{
    Attestation, Enrolment, Image, Manifest, Resolve, Statement, UsedImage, binding, possession,
    worker_uri,
};
use custody_platforms::cloud::{self, AMI, Clouds, IMAGE, INSTANCE, OTHER, TIED};
use custody_platforms::{Certified, Signer};
use custody_world::{Builder, Key, World, artifact, at, change, label, policy_text, signed};

use super::attestation::pkcs8;
use super::{BUILT, built, evidence, shipped, signed_update};
use crate::case::{About, Chain, Group, Set, What};

const BUILD: &str = "new/build/manifest";
const SECOND: &str = "new/build/manifest/builder-2";
/// When the new build's worker was enrolled, and when it ran.
const BOOT: u64 = 100_000;
const RUN: u64 = 100_310;

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("machine");
    verified(&mut group);
    claimed(&mut group);
    images(&mut group);
    enrolled(&mut group);
    certificates(&mut group);
    agreeing(&mut group);
    policies(&mut group);
}

fn refuse(group: &mut Group<'_>, name: &str, control: &str, code: Code, about: &str, what: &What) {
    group.reject(name, control, code, About(about, &[]), what);
}

fn clouds() -> Clouds {
    Clouds::fixed(&pkcs8(0))
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

fn demanding(step: &str, key: &str) -> Builder {
    change().policy(|text| policy(&text, step, key))
}

fn attesting(step: &str, key: &str, attested: Attestation) -> What {
    let with =
        demanding(step, key).manifest(BUILD, move |m| m.attestations = vec![attested.clone()]);
    built(&with.build())
}

fn verified(group: &mut Group<'_>) {
    let about = About("the image is proved, by a key that is tied to the instance", &[]);
    group.accept("image-verified", about, &attesting(AMI, TIED, document(INSTANCE, IMAGE)));
    let about = About("a machine of another image", &["wrk-ami-not-allowed"]);
    let other = attesting(AMI, TIED, document(INSTANCE, "ami-0fedcba9876543210"));
    group.reject("image-other", "image-verified", Code::WorkerImageMismatch, about, &other);
    let word = demanding(AMI, TIED)
        .manifest(BUILD, |m| m.environment.push(("ec2.image-id".into(), IMAGE.into())));
    let about = "the worker's word alone";
    let code = Code::WorkerIdentityUnverified;
    refuse(group, "image-claimed", "image-verified", code, about, &built(&word.build()));
    let absent = built(&demanding(AMI, TIED).build());
    refuse(group, "image-absent", "image-verified", code, "nothing", &absent);
    let unbound = attesting(AMI, "", document(INSTANCE, IMAGE));
    let about = "a genuine document that anybody who saw it may have sent";
    refuse(group, "image-unbound", "image-verified", code, about, &unbound);
    let forged = Signer::fixed(&pkcs8(1), &Certified::new("Amazon", true));
    let forged = attesting(AMI, TIED, cloud::document(INSTANCE, IMAGE, &forged));
    let about = About("a document by nobody", &["wrk-iid-unsigned"]);
    group.reject("image-forged", "image-verified", code, about, &forged);
    let replayed = attesting(AMI, TIED, document(OTHER, IMAGE));
    let about = About("the document of another instance", &["wrk-iid-replayed"]);
    let mismatch = Code::WorkerIdentityMismatch;
    group.reject("instance-other", "image-verified", mismatch, about, &replayed);

    let demand =
        "machine = [{ fact = \"google.instance-id\", is = [\"123\"], standing = \"verified\" }]";
    let bound = |instance: &'static str, key: &'static str, claim: Option<&'static str>| {
        let with = demanding(demand, "").manifest(BUILD, move |m| {
            m.attestations = vec![token(m, key, instance)];
            let claim = claim.map(|claim| ("google.instance-id".into(), claim.into()));
            m.environment.extend(claim);
        });
        built(&with.build())
    };
    let about = About("a token of this run", &[]);
    group.accept("token", about, &bound("123", "builder", Some("123")));
    for (name, about, what) in [
        ("token-other", "another instance", bound("124", "builder", None)),
        ("token-of-another-key", "a token for another key", bound("123", "packer", None)),
        ("token-contradicted", "a claim against the proof", bound("123", "builder", Some("124"))),
    ] {
        refuse(group, name, "token", mismatch, about, &what);
    }
    let twice = |other: &'static str| {
        let with = demanding("", "")
            .manifest(BUILD, |m| m.attestations = vec![token(m, "builder", "123")])
            .manifest("old/build/manifest", move |m| {
                m.attestations = vec![token(m, "builder", other)];
            });
        shipped(&with.build())
    };
    group.accept("key-on-one-machine", About("one key, one instance", &[]), &twice("123"));
    let about = About("one key on two instances", &["wrk-key-two-instances"]);
    group.reject("key-on-two-machines", "key-on-one-machine", mismatch, about, &twice("124"));
}

fn claimed(group: &mut Group<'_>) {
    let demand = |fact: &str, value: &str| {
        format!("machine = [{{ fact = \"{fact}\", is = [\"{value}\"], standing = \"claimed\" }}]")
    };
    let says = |demanded: &str, fact: &'static str, value: &'static str| {
        let with = demanding(demanded, "")
            .manifest(BUILD, move |m| m.environment.push((fact.into(), value.into())));
        built(&with.build())
    };
    let isolation = demand("isolation", "sandbox");
    let about = About("a claim where one is enough", &[]);
    group.accept("isolation", about, &says(&isolation, "isolation", "sandbox"));
    let about = About("less isolation than demanded", &["wrk-interactive-docker"]);
    let less = says(&isolation, "isolation", "process");
    group.reject("isolation-less", "isolation", Code::WorkerIsolationMissing, about, &less);
    let absent = built(&demanding(&isolation, "").build());
    let code = Code::WorkerIsolationMissing;
    refuse(group, "isolation-absent", "isolation", code, "no word of it", &absent);
    let other = says(&demand("os", "debian"), "kernel", "6.1");
    let code = Code::WorkerIdentityMismatch;
    refuse(group, "os-other", "isolation", code, "another system", &other);
    let image = says(&demand("taskcluster.image", "a"), "taskcluster.image", "b");
    let code = Code::WorkerImageMismatch;
    refuse(group, "image-named", "isolation", code, "another image by name", &image);
    let about = About("nobody could reach into it", &[]);
    group.accept("interactive-no", about, &says("", "interactive", "no"));
    for (name, value) in [("interactive-yes", "yes"), ("interactive-number", "0")] {
        let about = About("anything but no is yes", &["wrk-interactive-type"]);
        let what = says("", "interactive", value);
        group.reject(name, "interactive-no", Code::WorkerInteractive, about, &what);
    }
    let about = About("a document of a platform that nobody demands", &[]);
    let stranger = Signer::fixed(&pkcs8(1), &Certified::new("Amazon", true));
    let idle = attesting("", "", cloud::document(INSTANCE, IMAGE, &stranger));
    group.accept("document-idle", about, &idle);
    let also = demand("ec2.image-id", IMAGE);
    let with = demanding(&also, "").manifest(BUILD, move |m| {
        m.attestations = vec![cloud::document(INSTANCE, IMAGE, &stranger)];
        m.environment.push(("ec2.image-id".into(), IMAGE.into()));
    });
    let about = "a document that does not fit beside a claim that does";
    let code = Code::WorkerIdentityUnverified;
    refuse(group, "document-beside-claim", "isolation", code, about, &built(&with.build()));
}

fn digest(text: &str) -> Sha256 {
    Sha256::of(text.as_bytes())
}

fn in_image(builder: Builder, asked: &'static str, used: UsedImage) -> Builder {
    builder
        .task("new/build/task", move |task| {
            let name = "registry.example.org/debian".into();
            task.image = Some(Image::Named { name, digest: digest(asked) });
        })
        .manifest(BUILD, move |m| m.image = Some(used.clone()))
}

fn used(name: &str, id: &str) -> UsedImage {
    UsedImage { name: name.into(), id: digest(id), manifest: None, platform: "linux/amd64".into() }
}

fn images(group: &mut Group<'_>) {
    let allowing = || {
        let step = format!("images = [\"sha256:{}\"]", digest("good"));
        change().policy(|text| policy(&text, &step, ""))
    };
    let debian = |id: &str| used("registry.example.org/debian", id);
    let case = |asked: &'static str, used| built(&in_image(allowing(), asked, used).build());
    let about = About("an image that the policy lists, by its id", &[]);
    group.accept("container", about, &case("good", debian("good")));
    let about = About("an image that the policy lists, by its manifest", &[]);
    let by_manifest = UsedImage { manifest: Some(digest("good")), ..debian("its id") };
    group.accept("container-by-manifest", about, &case("good", by_manifest));
    let none = built(&allowing().build());
    let code = Code::WorkerImageMismatch;
    let rows = &["wrk-image-digest"];
    for (name, about, what) in [
        ("container-other", "another image in task and run", case("bad", debian("bad"))),
        ("container-run-other", "another image in the run", case("good", debian("bad"))),
        ("container-none", "no image where one is demanded", none),
        (
            "container-not-allowed",
            "an image where the policy has none",
            built(&in_image(change(), "good", debian("good")).build()),
        ),
        (
            "container-not-used",
            "the task has an image and the run has none",
            built(
                &in_image(allowing(), "good", debian("good"))
                    .manifest(BUILD, |m| m.image = None)
                    .build(),
            ),
        ),
    ] {
        group.reject(name, "container", code, About(about, rows), &what);
    }
    let from = |step: &str, place: &'static str, run: &'static str| {
        let line = format!("[products.hello.steps.partial]\nimages = [{{ step = \"{step}\" }}]\n");
        let with = change()
            .policy(|text| text.replace("[products.hello.steps.partial]\n", &line))
            .task("new/partial/task", move |task| {
                task.image = Some(Image::Input(place.parse().unwrap()));
            })
            .manifest("new/partial/manifest", move |m| m.image = Some(used(run, "it")));
        signed_update(&with.build())
    };
    let place = "new/dist/hello.mar";
    group.accept(
        "archive",
        About("an image that an earlier step made", &[]),
        &from("build", place, place),
    );
    for (name, about, what) in [
        ("archive-of-other-step", "of a step that is not listed", from("sign", place, place)),
        ("archive-external", "from outside", from("build", "external/bsdiff", "external/bsdiff")),
        ("archive-other-place", "another archive", from("build", place, "new/dist/hello")),
    ] {
        refuse(group, name, "archive", code, about, &what);
    }
}

fn enrolment(key: &str, instance: &str) -> Enrolment {
    let public = Key::of(key).public;
    let challenge = digest(&format!("{key} {instance}"));
    let machine = label("builder");
    let message = possession(&challenge, &machine, &public.id());
    let facts = [
        ("ec2.account-id", "123456789012"),
        ("ec2.image-id", IMAGE),
        ("ec2.instance-id", instance),
    ];
    Enrolment {
        possession: Key::of(key).raw(&message),
        key: public,
        machine,
        challenge,
        attestations: vec![document(instance, IMAGE)],
        facts: facts.map(|(name, value)| (name.into(), value.into())).to_vec(),
        from: at(BOOT),
        until: at(BOOT + 12 * 3600),
    }
}

fn certificate(enrolment: Enrolment, by: &[&str]) -> Envelope {
    signed(Statement::Enrolment(enrolment).to_envelope(), by)
}

fn enrolling(text: &str) -> String {
    let key = |name: &str| Key::of(name).public.to_openssh();
    let builder = format!("[machines.builder]\nkeys = [{{ key = \"{}\" }}]\n", key("builder"));
    let enrolled = format!(
        "{builder}enrolled-by = [\"enroller\"]\nmax-certificate = \"12h\"\n\
         enrol = [{{ fact = \"ec2.image-id\", is = [\"{IMAGE}\"] }}, {{ fact = \"ec2.account-id\", is = [\"123456789012\"] }}]\n\
         [machines.enroller]\nkeys = [{{ key = \"{}\" }}]\n",
        key("enroller"),
    );
    policy(&text.replace(&builder, &enrolled), "", "")
}

/// A world whose newer build was signed by this key and names this certificate, and has these.
fn signed_with(key: &str, named: &Envelope, there: &[&Envelope]) -> World {
    let id = named.id();
    let mut world = change()
        .policy(|text| enrolling(&text))
        .signed_by(BUILD, &[key])
        .manifest(BUILD, move |manifest| manifest.enrolment = Some(id))
        .build();
    for envelope in there {
        world.envelopes.insert(format!("enrolment {}", envelope.id()), (*envelope).clone());
    }
    world
}

fn enrolled_as(edit: impl FnOnce(&mut Enrolment), by: &[&str]) -> World {
    let mut enrolment = enrolment("worker", INSTANCE);
    edit(&mut enrolment);
    let envelope = certificate(enrolment, by);
    signed_with("worker", &envelope, &[&envelope])
}

fn enrolled(group: &mut Group<'_>) {
    let enroller: &[&str] = &["enroller"];
    let case = |edit: fn(&mut Enrolment)| built(&enrolled_as(edit, enroller));
    group.accept("enrolled", About("a key that was enrolled", &[]), &case(|_| ()));
    let about = About("what the published update rests on", &[]);
    group.accept("enrolled-shipped", about, &shipped(&enrolled_as(|_| (), enroller)));
    let about = About("as late as the certificate holds", &[]);
    group.accept("enrolled-until", about, &case(|it| it.until = at(RUN + 51)));
    let about = About("as early as the skew allows", &[]);
    group.accept("enrolled-from", about, &case(|it| it.from = at(RUN + 300)));
    for (name, code, about, what) in [
        ("enrolled-expired", Code::PolicyKeyExpired, "over", case(|it| it.until = at(RUN + 50))),
        (
            "enrolled-later",
            Code::PolicyKeyNotYetValid,
            "after the run",
            case(|it| it.from = at(RUN + 301)),
        ),
        (
            "enrolled-too-long",
            Code::PolicyKeyPurpose,
            "for longer than the policy allows",
            case(|it| it.until = at(BOOT + 12 * 3600 + 1)),
        ),
        (
            "enrolled-by-machine",
            Code::PolicyKeyPurpose,
            "by a machine that may not",
            built(&enrolled_as(|_| (), &["scheduler"])),
        ),
        (
            "enrolled-without-proof",
            Code::WorkerIdentityUnverified,
            "without what must be proved",
            case(|it| {
                it.attestations.clear();
                it.facts.clear();
            }),
        ),
        (
            "enrolled-facts-invented",
            Code::WorkerIdentityMismatch,
            "with a fact that is not proved",
            case(|it| it.facts.push(("ec2.owner".into(), "us".into()))),
        ),
        (
            "enrolled-possession",
            Code::WorkerIdentityUnverified,
            "of a key that the worker does not have",
            case(|it| {
                let message = possession(&it.challenge, &it.machine, &it.key.id());
                it.possession = Key::of("mallory").raw(&message);
            }),
        ),
        (
            "enrolled-challenge",
            Code::WorkerIdentityUnverified,
            "for another challenge",
            case(|it| it.challenge = Sha256::of(b"another")),
        ),
        (
            "enrolled-other-machine",
            Code::PolicyKeyPurpose,
            "of a machine that nobody enrols",
            case(|it| it.machine = label("packer")),
        ),
        (
            "enrolled-unknown-platform",
            Code::WorkerIdentityUnverified,
            "with a document of an unknown platform",
            case(|it| it.attestations[0].platform = label("ec3")),
        ),
    ] {
        refuse(group, name, "enrolled", code, about, &what);
    }
    let replayed = case(|it| it.attestations = vec![document(OTHER, IMAGE)]);
    let about = About("with the document of another instance", &["wrk-iid-replayed"]);
    group.reject("enrolled-replayed", "enrolled", Code::WorkerIdentityMismatch, about, &replayed);
    let image = case(|it| {
        it.attestations = vec![document(INSTANCE, "ami-0bad0bad0bad0bad0")];
        it.facts.truncate(1);
    });
    let about = About("of an image that may not be enrolled", &["wrk-ami-not-allowed"]);
    group.reject("enrolled-image", "enrolled", Code::WorkerImageMismatch, about, &image);
    // by a stranger: the whole certificate cannot be read, and the manifest with it
    let stranger = shipped(&enrolled_as(|_| (), &["stranger"]));
    let about = "by a key that the policy does not know";
    refuse(
        group,
        "enrolled-by-stranger",
        "enrolled-shipped",
        Code::EnvKeyUnknown,
        about,
        &stranger,
    );
    let absent = signed_with("worker", &certificate(enrolment("worker", INSTANCE), enroller), &[]);
    let about = "the certificate is not there";
    refuse(
        group,
        "enrolled-absent",
        "enrolled-shipped",
        Code::ChainLinkMissing,
        about,
        &shipped(&absent),
    );
}

fn certificates(group: &mut Group<'_>) {
    let mine = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    let theirs = certificate(enrolment("worker-2", OTHER), &["enroller"]);
    let moved = certificate(enrolment("worker", OTHER), &["enroller"]);
    let mismatch = Code::WorkerIdentityMismatch;
    let about = About("two workers side by side", &[]);
    group.accept("enrolled-two", about, &built(&signed_with("worker", &mine, &[&mine, &theirs])));
    let other = built(&signed_with("worker", &theirs, &[&mine, &theirs]));
    let about = "another worker's certificate";
    refuse(group, "enrolled-borrowed", "enrolled-two", mismatch, about, &other);
    let listed = built(&signed_with("builder", &mine, &[&mine]));
    let about = "a listed key with an enrolled one's certificate";
    refuse(group, "enrolled-by-listed", "enrolled", mismatch, about, &listed);
    let twice = built(&signed_with("worker", &mine, &[&mine, &moved]));
    let about = About("one key was enrolled for two machines", &["wrk-key-two-instances"]);
    group.reject("enrolled-twice", "enrolled", mismatch, about, &twice);
    let mut unnamed =
        change().policy(|text| enrolling(&text)).signed_by(BUILD, &["worker"]).build();
    unnamed.envelopes.insert(format!("enrolment {}", mine.id()), mine.clone());
    let about = "a manifest that names no certificate";
    let code = Code::PolicyKeyPurpose;
    refuse(group, "enrolled-unnamed", "enrolled", code, about, &built(&unnamed));
    for (name, key) in [("enrolled-key-revoked", "worker"), ("enroller-revoked", "enroller")] {
        let mut world = signed_with("worker", &mine, &[&mine]);
        let public = Key::of(key).public.to_openssh();
        let revoked = format!("{{ key = \"{public}\", revoked = true }}");
        let builder = format!("{{ key = \"{}\" }}", Key::of("builder").public.to_openssh());
        let entry = format!("{{ key = \"{public}\" }}");
        world.rotate(move |text| {
            if text.contains(&entry) {
                text.replace(&entry, &revoked)
            } else {
                text.replace(&builder, &format!("{builder}, {revoked}"))
            }
        });
        let about = "a key that was revoked later";
        refuse(group, name, "enrolled", Code::PolicyKeyRevoked, about, &built(&world));
    }
    let mut world = signed_with("worker", &mine, &[&mine]);
    let line = format!("clock-skew = \"5m\"\nrevoked-enrolments = [\"{}\"]\n", mine.id());
    world.rotate(move |text| text.replace("clock-skew = \"5m\"\n", &line));
    let about = "a certificate that was revoked later";
    refuse(group, "enrolment-revoked", "enrolled", Code::PolicyKeyRevoked, about, &built(&world));
    let mut other =
        change().policy(|text| enrolling(&text)).signed_by("new/build/task", &["worker"]).build();
    other.envelopes.insert(format!("enrolment {}", mine.id()), mine.clone());
    let about = "an enrolled key signed a task";
    refuse(group, "enrolled-key-signs-task", "enrolled", code, about, &built(&other));
    // statements as such
    let honest = Statement::Enrolment(enrolment("worker", INSTANCE)).to_json();
    let about = About("a certificate as a writer writes it", &[]);
    group.accept("certificate", about, &What::Statement(honest.clone().into(), true));
    let until = format!("\"until\": \"{}\"", at(BOOT + 12 * 3600));
    let id = format!("\"sha256\": \"{}\"", Key::of("worker").public.id());
    let other = format!("\"sha256\": \"{}\"", Key::of("worker-2").public.id());
    for (name, about, from, to, code) in [
        (
            "certificate-of-other-key",
            "the id of another key",
            id.as_str(),
            other.as_str(),
            Code::ChainDigestMismatch,
        ),
        (
            "certificate-member",
            "a member that is not defined",
            "\"machine\"",
            "\"evil\": 1, \"machine\"",
            Code::ParseUnknownField,
        ),
        (
            "certificate-backwards",
            "an end before its beginning",
            &until,
            &format!("\"until\": \"{}\"", at(BOOT)),
            Code::ChainTimeOrder,
        ),
        (
            "certificate-challenge",
            "a challenge that is none",
            "\"challenge\": \"",
            "\"challenge\": \"0",
            Code::StmtDigestFormat,
        ),
    ] {
        assert!(honest.contains(from), "{from}");
        let text = honest.replacen(from, to, 1);
        refuse(group, name, "certificate", code, about, &What::Statement(text.into(), false));
    }
}

fn several(text: &str, more: &str) -> String {
    let mut machines = String::new();
    for name in ["builder-2", "builder-3"] {
        let key = Key::of(name).public.to_openssh();
        machines += &format!("[machines.{name}]\nkeys = [{{ key = \"{key}\" }}]\n");
    }
    let step = format!("[products.hello.steps.build]\nbuilders = 2\n{more}");
    policy(text, "", "")
        .replace("\n[roles.releng]", &format!("{machines}\n[roles.releng]"))
        .replace("perform = [\"builder\"]", "perform = [\"builder\", \"builder-2\", \"builder-3\"]")
        .replace("[products.hello.steps.build]\n", &step)
}

fn two() -> Builder {
    change().policy(|text| several(&text, "")).also("build", "builder-2")
}

/// Adds what another machine made of the build.
fn another(world: &mut World, name: &str, machine: &str, first: Option<&str>) {
    let mut manifest = world.get_manifest(BUILD);
    manifest.builder = worker_uri(machine);
    manifest.invocation = name.into();
    manifest.artifacts[0] =
        first.map_or_else(|| manifest.artifacts[0].clone(), |text| artifact("dist/hello", text));
    world.add(name, manifest, &[machine]);
}

fn agreeing(group: &mut Group<'_>) {
    let code = Code::ChainThresholdDisagree;
    let about = About("two machines made the same", &[]);
    group.accept("two-agree", about, &built(&two().build()));
    let about = About("two machines made the same, and all that follows", &[]);
    group.accept("two-shipped", about, &shipped(&two().build()));
    let about = About("another log and another environment do not matter", &[]);
    let otherwise = two().manifest(SECOND, |m| {
        m.log = Some(artifact("log.txt", "another log"));
        m.environment = vec![("os".into(), "another".into())];
    });
    group.accept("two-environments", about, &built(&otherwise.build()));
    let differ = two().manifest(SECOND, |m| m.artifacts[0] = artifact("dist/hello", "evil"));
    let about = About("two machines made different files", &["chain-threshold-disagree"]);
    group.reject("two-disagree", "two-agree", code, about, &built(&differ.build()));
    let alone = || change().policy(|text| several(&text, "")).build();
    refuse(group, "one-alone", "two-agree", code, "one machine alone", &built(&alone()));
    let mut twice = alone();
    another(&mut twice, "again", "builder", None);
    let about = About("one machine twice", &["chain-threshold-one-machine"]);
    group.reject("one-twice", "two-agree", code, about, &built(&twice));
    let strange = two().signed_by(SECOND, &["docs"]).build();
    let about = "the second by a machine that may not";
    refuse(group, "second-by-other", "two-agree", code, about, &built(&strange));
    let bad = two().manifest(SECOND, |m| m.command.push("--evil".into())).build();
    let about = "the second does not hold by itself";
    refuse(group, "second-bad", "two-agree", code, about, &built(&bad));
    let mut mended = bad;
    another(&mut mended, "third", "builder-3", None);
    group.accept("third-mends", About("a third one makes up for it", &[]), &built(&mended));
    let mut spoiled = two().build();
    another(&mut spoiled, "third", "builder-3", Some("evil"));
    let about = "a third one that differs";
    refuse(group, "third-differs", "two-agree", code, about, &built(&spoiled));
    let said = spoiled.resolution("new/build/task", Resolve::Supersede(spoiled.id(BUILD)), "bob");
    spoiled.add("resolution", said, &["bob"]);
    let about = About("a third one that differs was set aside by a person", &[]);
    group.accept("third-set-aside", about, &built(&spoiled));

    let unnamed = two().manifest("new/sign/manifest", |m| m.agreeing.clear()).build();
    let about = "what was used is named, and not what agrees with it";
    refuse(group, "agreeing-unnamed", "two-shipped", code, about, &shipped(&unnamed));
    let foreign = two().build().id("old/build/manifest/builder-2");
    let more = two().manifest("new/sign/manifest", move |m| m.agreeing.push(foreign)).build();
    let unaccounted = Code::ChainInputUnaccounted;
    let about = "something that agrees with nothing";
    refuse(group, "agreeing-foreign", "two-shipped", unaccounted, about, &shipped(&more));
    let mut gone = two().build();
    gone.drop(SECOND);
    let about = "the second is gone";
    refuse(group, "second-gone", "two-shipped", Code::ChainLinkMissing, about, &shipped(&gone));

    let apart = |other: &'static str, more: &'static str| {
        let with = change()
            .policy(|text| several(&text, more))
            .also("build", "builder-2")
            .manifest(BUILD, |m| {
                m.attestations = vec![token(m, "builder", "123")];
                m.environment.push(("ec2.image-id".into(), IMAGE.into()));
            })
            .manifest(SECOND, move |m| {
                m.attestations = vec![token(m, "builder-2", other)];
                m.environment.push(("ec2.image-id".into(), format!("{IMAGE}{other}")));
            });
        built(&with.build())
    };
    group.accept("two-instances", About("two instances", &[]), &apart("124", ""));
    let about = About("two machines on one instance", &["chain-threshold-one-machine"]);
    group.reject("two-on-one", "two-instances", code, about, &apart("123", ""));
    let differ = "builders-differ = [\"ec2.image-id\"]\n";
    let about = About("two images where they must differ", &[]);
    group.accept("two-images", about, &apart("124", differ));
    let about = About("a fact unknown where they must differ", &["wrk-two-builders-same-image"]);
    let unknown = apart("124", "builders-differ = [\"ec2.region\"]\n");
    group.reject("two-images-unknown", "two-images", code, about, &unknown);

    let gate = |world: &World| {
        What::Chain(Chain {
            pin: world.pin,
            policies: world.policies.clone(),
            evidence: evidence(world, &BUILT),
            now: at(100_900),
            question: world.gate_question("new/build/task"),
            floor: None,
            content: None,
        })
    };
    group.accept("gate-second", About("one of two is done", &[]), &gate(&alone()));
    let about = "two of two are done";
    refuse(
        group,
        "gate-third",
        "gate-second",
        Code::GateAlreadyExecuted,
        about,
        &gate(&two().build()),
    );
}

/// Demands and tables of machines that nobody could mean.
fn policies(group: &mut Group<'_>) {
    let step = format!("{AMI}\nimages = [\"sha256:{}\"]", digest("good"));
    let line = "[products.hello.steps.build]\n";
    let whole = enrolling(&policy_text()).replace(line, &format!("{line}{step}\n"));
    group.accept("policy", About("a policy with demands", &[]), &What::Policy(whole.clone()));
    let image = format!("sha256:{}", digest("good"));
    let tied = Key::of("builder").public.to_openssh();
    let entry = format!("\"{tied}\" }}");
    let with = |more: &str| format!("\"{tied}\", {more} }}");
    let step_with = |more: &str| format!("{line}{more}\n");
    for (name, about, from, to) in [
        ("policy-image-tag", "an image by its tag", image.as_str(), "debian:12"),
        ("policy-no-images", "no image", &format!("[\"{image}\"]"), "[]"),
        ("policy-standing", "a standing that is none", "\"verified\"", "\"proved\""),
        (
            "policy-platform",
            "a fact of a platform that is not there",
            "fact = \"ec2.image-id\", is = [\"ami-0123456789abcdef0\"], s",
            "fact = \"tpm.pcr-0\", is = [\"ami-0123456789abcdef0\"], s",
        ),
        ("policy-no-value", "a demand without value", "is = [\"123456789012\"]", "is = []"),
        ("policy-fact", "a name that is no fact", "\"ec2.account-id\"", "\"ec2.Account\""),
        ("policy-half-enrolment", "an enrolment without end", "max-certificate = \"12h\"\n", ""),
        (
            "policy-enrolled-by-nobody",
            "enrolled by nobody who has a key",
            "enrolled-by = [\"enroller\"]",
            "enrolled-by = [\"stranger\"]",
        ),
        (
            "policy-tied-to-image",
            "a key tied to what tells nothing",
            &entry,
            &with("machine = { \"ec2.image-id\" = \"ami\" }"),
        ),
        ("policy-builders", "more builders than there are", line, &step_with("builders = 2")),
        ("policy-builders-none", "no builder", line, &step_with("builders = 0")),
        (
            "policy-builders-differ",
            "one builder who differs",
            line,
            &step_with("builders-differ = [\"os\"]"),
        ),
    ] {
        assert!(whole.contains(from), "{from}");
        let what = What::Policy(whole.replacen(from, to, 1));
        refuse(group, name, "policy", Code::PolicyInvalid, about, &what);
    }
}
