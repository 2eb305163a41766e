//! Enrolled keys: a worker makes its key at boot, and a certificate says whose it is. Whoever has the key,
//! another certificate or somebody else's documents wants the manifest to count.

use std::sync::OnceLock;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Signed, StatementId};
use custody_core::statement::{
    Attestation, Enrolment, Intent, Stage, Statement, binding, possession,
};
use custody_platforms::cloud::{self, Clouds, IMAGE, INSTANCE, OTHER};
use custody_platforms::token::Issuer;
use custody_platforms::{Certified, Signer, attestation};
use custody_verify::enrolled::replayable;
use custody_verify::{Docket, InTurn, Policy, Report};
use custody_world as world;
use world::{
    Builder, Key, World, assert_accepted, assert_refused, at, change, findings, label, signed,
};

const BUILD: &str = "new/build/manifest";
/// When the new build runs, and when the worker was enrolled for it.
const RUN: u64 = 100_310;
const BOOT: u64 = 100_000;
const HOURS: u64 = 3_600;

fn clouds() -> &'static Clouds {
    static CLOUDS: OnceLock<Clouds> = OnceLock::new();
    CLOUDS.get_or_init(Clouds::own)
}

fn document(instance: &str, image: &str) -> Attestation {
    clouds().document(instance, image)
}

fn facts(instance: &str, image: &str) -> Vec<(String, String)> {
    let facts = [
        ("ec2.account-id", "123456789012"),
        ("ec2.image-id", image),
        ("ec2.instance-id", instance),
    ];
    facts.map(|(name, value)| (name.into(), value.into())).to_vec()
}

/// A certificate of this key, as an honest service makes it.
fn enrolment(key: &str, instance: &str) -> Enrolment {
    let public = Key::of(key).public;
    let challenge = Sha256::of(format!("{key} {instance}").as_bytes());
    let machine = label("builder");
    let message = possession(&challenge, &machine, &public.id());
    Enrolment {
        possession: Key::of(key).raw(&message),
        key: public,
        machine,
        challenge,
        attestations: vec![document(instance, IMAGE)],
        facts: facts(instance, IMAGE),
        from: at(BOOT),
        until: at(BOOT + 12 * HOURS),
    }
}

fn certificate(enrolment: Enrolment, by: &[&str]) -> Envelope {
    signed(Statement::Enrolment(enrolment).to_envelope(), by)
}

/// The builder's keys are enrolled, and it has one of old that the policy lists.
#[expect(clippy::needless_pass_by_value, reason = "as the builder's edits are")]
fn policy(text: String) -> String {
    let key = |name: &str| Key::of(name).public.to_openssh();
    let builder = format!("[machines.builder]\nkeys = [{{ key = \"{}\" }}]\n", key("builder"));
    assert!(text.contains(&builder));
    let enrolled = format!(
        "{builder}enrolled-by = [\"enroller\"]\nmax-certificate = \"12h\"\n\
         enrol = [{{ fact = \"ec2.image-id\", is = [\"{IMAGE}\"] }}, {{ fact = \"ec2.account-id\", is = [\"123456789012\"] }}]\n\
         [machines.enroller]\nkeys = [{{ key = \"{}\" }}]\n\
         [platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\"], certificate = \"\"\"{}\"\"\" }}]\n",
        key("enroller"),
        clouds().amazon.certificate_pem()
    );
    text.replace(&builder, &enrolled)
}

/// A world whose newer build was signed by `worker` and names this certificate.
fn built(by_certificate: StatementId) -> Builder {
    change()
        .policy(policy)
        .signed_by(BUILD, &["worker"])
        .manifest(BUILD, move |manifest| manifest.enrolment = Some(by_certificate))
}

fn with(builder: Builder, certificates: &[Envelope]) -> World {
    let mut world = builder.build();
    for envelope in certificates {
        world.envelopes.insert(format!("enrolment {}", envelope.id()), envelope.clone());
    }
    world
}

fn world_of(enrolment: Enrolment, by: &[&str]) -> World {
    let envelope = certificate(enrolment, by);
    with(built(envelope.id()), &[envelope])
}

fn honest() -> World {
    world_of(enrolment("worker", INSTANCE), &["enroller"])
}

fn changed(edit: impl FnOnce(&mut Enrolment)) -> World {
    let mut enrolment = enrolment("worker", INSTANCE);
    edit(&mut enrolment);
    world_of(enrolment, &["enroller"])
}

fn fact<'r>(report: &'r Report, word: &str) -> Option<&'r str> {
    let node =
        report.nodes().find(|node| node.id.is_some() && node.title.ends_with("step build"))?;
    node.facts.iter().find(|(known, _)| *known == word).map(|(_, value)| value.as_str())
}

#[test]
fn a_certified_key_signs_for_its_machine() {
    let world = honest();
    let report = world.file();
    assert_accepted(&report);
    let by = fact(&report, "enrolled by").unwrap();
    assert!(by.starts_with("enroller, "), "{by}");
    let certificate = certificate(enrolment("worker", INSTANCE), &["enroller"]).id();
    assert!(report.nodes().any(|node| node.rests_on.contains(&certificate)));
    // the key of old still works
    assert_accepted(&change().policy(policy).build().file());
}

#[test]
fn a_gate_takes_what_a_certified_key_made() {
    let mut world = honest();
    world.drop("new/sign/manifest");
    assert_accepted(&world.gate("new/sign/task"));
}

/// What cannot be there is not asked for: a key without its certificate is a stranger's, and the report
/// says which document to bring.
#[test]
fn an_absent_certificate_is_missed() {
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    assert_refused(&with(built(envelope.id()), &[]).file(), Code::ChainLinkMissing);
    let unnamed = change().policy(policy).signed_by(BUILD, &["worker"]);
    assert_refused(&with(unnamed.clone(), &[]).file(), Code::EnvKeyUnknown);
    // nor does a certificate count that the manifest does not name
    assert_refused(&with(unnamed, &[envelope]).file(), Code::PolicyKeyPurpose);
}

#[test]
fn only_the_enroller_certifies() {
    let mallory = world_of(enrolment("worker", INSTANCE), &["scheduler"]);
    assert_refused(&mallory.file(), Code::PolicyKeyPurpose);
    let stranger = world_of(enrolment("worker", INSTANCE), &["stranger"]);
    assert_refused(&stranger.file(), Code::EnvKeyUnknown);
    let itself = world_of(enrolment("worker", INSTANCE), &["worker"]);
    assert_refused(&itself.file(), Code::EnvKeyUnknown);
    // one good signature is enough
    let both = world_of(enrolment("worker", INSTANCE), &["scheduler", "enroller"]);
    assert_accepted(&both.file());
}

#[test]
fn a_certificate_holds_for_its_time() {
    assert_accepted(&changed(|it| it.until = at(RUN + 51)).file());
    assert_refused(&changed(|it| it.until = at(RUN + 50)).file(), Code::PolicyKeyExpired);
    // clocks may differ by five minutes
    assert_accepted(&changed(|it| it.from = at(RUN + 300)).file());
    assert_refused(&changed(|it| it.from = at(RUN + 301)).file(), Code::PolicyKeyNotYetValid);
}

#[test]
fn a_certificate_is_short_lived() {
    let lasting = |seconds: u64| changed(move |it| it.until = at(BOOT + seconds)).file();
    assert_accepted(&lasting(12 * HOURS));
    assert_refused(&lasting(12 * HOURS + 1), Code::PolicyKeyPurpose);
}

#[test]
fn a_certificate_can_be_revoked() {
    let mut world = honest();
    let id = certificate(enrolment("worker", INSTANCE), &["enroller"]).id();
    let line = "clock-skew = \"5m\"\n";
    let revoke = |id: StatementId| {
        move |text: String| text.replace(line, &format!("{line}revoked-enrolments = [\"{id}\"]\n"))
    };
    let mut other = world.clone();
    other.rotate(revoke(StatementId(Sha256::of(b"another"))));
    assert_accepted(&other.file());
    world.rotate(revoke(id));
    assert_refused(&world.file(), Code::PolicyKeyRevoked);
    // and stays so when a later policy does not mention it
    world.rotate(move |text| text.replace(&format!("revoked-enrolments = [\"{id}\"]\n"), ""));
    assert_refused(&world.file(), Code::PolicyKeyRevoked);
}

#[test]
fn keys_of_both_sides_can_be_revoked() {
    let revoked = |name: &str| {
        let key = Key::of(name).public.to_openssh();
        format!("{{ key = \"{key}\", revoked = true }}")
    };
    let mut world = honest();
    let builder = format!("{{ key = \"{}\" }}", Key::of("builder").public.to_openssh());
    let entry = format!("{builder}, {}", revoked("worker"));
    world.rotate(move |text| text.replace(&builder, &entry));
    assert_refused(&world.file(), Code::PolicyKeyRevoked);

    let mut world = honest();
    let enroller = format!("{{ key = \"{}\" }}", Key::of("enroller").public.to_openssh());
    let entry = revoked("enroller");
    world.rotate(move |text| text.replace(&enroller, &entry));
    assert_refused(&world.file(), Code::PolicyKeyRevoked);
}

/// `wrk-iid-unsigned`: the service's word is not enough: what it relied on is verified again.
#[test]
fn proof_is_verified_again() {
    assert_refused(&changed(|it| it.attestations.clear()).file(), Code::WorkerIdentityMismatch);
    let without = |it: &mut Enrolment| {
        it.attestations.clear();
        it.facts.clear();
    };
    assert_refused(&changed(without).file(), Code::WorkerIdentityUnverified);
    let forged = |it: &mut Enrolment| {
        let other = Signer::own(&Certified::new("Amazon of tests", false));
        it.attestations = vec![cloud::document(INSTANCE, IMAGE, &other)];
    };
    assert_refused(&changed(forged).file(), Code::WorkerIdentityUnverified);
    let unknown = |it: &mut Enrolment| it.attestations[0].platform = label("ec3");
    assert_refused(&changed(unknown).file(), Code::WorkerIdentityUnverified);
}

/// `wrk-iid-replayed`: with somebody else's document: what the certificate says is what the document says.
#[test]
fn a_certificate_says_what_is_proved() {
    let document_of_another = |it: &mut Enrolment| it.attestations = vec![document(OTHER, IMAGE)];
    assert_refused(&changed(document_of_another).file(), Code::WorkerIdentityMismatch);
    let invented = |it: &mut Enrolment| it.facts.push(("ec2.owner".into(), "us".into()));
    assert_refused(&changed(invented).file(), Code::WorkerIdentityMismatch);
    let fewer = |it: &mut Enrolment| it.facts.truncate(1);
    assert_accepted(&changed(fewer).file());
}

/// `wrk-ami-not-allowed`: the machine image is not one that may be enrolled.
#[test]
fn enrolment_demands_facts() {
    let image = |it: &mut Enrolment| {
        it.attestations = vec![document(INSTANCE, "ami-0bad0bad0bad0bad0")];
        it.facts = facts(INSTANCE, "ami-0bad0bad0bad0bad0");
    };
    let report = changed(image).file();
    assert_refused(&report, Code::WorkerImageMismatch);
    assert!(findings(&report).contains("ami-0bad0bad0bad0bad0"), "{}", findings(&report));
}

/// `wrk-iid-replayed`: where the platform signs the challenge, its word is of this key and this enrolment.
#[test]
fn a_token_is_of_one_challenge_and_one_key() {
    let issuer = Issuer::new("https://token.actions.githubusercontent.com");
    let platform = format!("[platforms.github]\nkind = \"github\"\njwks = '{}'\n", issuer.jwks());
    let file = |challenge: Sha256, key: &str| {
        let binding = binding(&challenge, &Key::of(key).public.id());
        let token = issuer.github(&format!("custody:{binding}"), at(BOOT));
        let mut enrolment = enrolment("worker", INSTANCE);
        enrolment.attestations.push(attestation("github", &[("token", &token)]));
        let envelope = certificate(enrolment, &["enroller"]);
        let platform = platform.clone();
        let known = built(envelope.id()).policy(move |text| {
            text.replace("[platforms.ec2]", &format!("{platform}[platforms.ec2]"))
        });
        with(known, &[envelope]).file()
    };
    let challenge = enrolment("worker", INSTANCE).challenge;
    let report = file(challenge, "worker");
    assert_accepted(&report);
    assert_refused(&file(challenge, "worker-2"), Code::WorkerIdentityMismatch);
    assert_refused(&file(Sha256::of(b"before"), "worker"), Code::WorkerIdentityMismatch);
}

/// `wrk-iid-replayed`: a word without the challenge that names no machine, which anybody who saw it sends.
#[test]
fn a_token_of_a_fixed_audience_that_names_no_machine_enrols_nobody() {
    let issuer = Issuer::new("https://gitlab.com");
    let file = |line: &str, audience: &str| {
        let platform =
            format!("[platforms.gitlab]\nkind = \"gitlab\"\n{line}jwks = '{}'\n", issuer.jwks());
        let mut enrolment = enrolment("worker", INSTANCE);
        let token = issuer.gitlab(audience, at(BOOT));
        enrolment.attestations = vec![attestation("gitlab", &[("token", &token)])];
        enrolment.facts.clear();
        let envelope = certificate(enrolment, &["enroller"]);
        let known = built(envelope.id()).policy(move |text| {
            let (image, account) = (
                format!("{{ fact = \"ec2.image-id\", is = [\"{IMAGE}\"] }}, "),
                "fact = \"ec2.account-id\", is = [\"123456789012\"]",
            );
            text.replace("[platforms.ec2]", &format!("{platform}[platforms.ec2]"))
                .replace(&image, "")
                .replace(account, "fact = \"gitlab.issuer\", is = [\"https://gitlab.com\"]")
        });
        with(known, &[envelope]).file()
    };
    let challenge = enrolment("worker", INSTANCE).challenge;
    let binding = binding(&challenge, &Key::of("worker").public.id());
    assert_accepted(&file("", &format!("custody:{binding}")));
    let replayed = file("audience = \"https://custody.example\"\n", "https://custody.example");
    assert_refused(&replayed, Code::WorkerIdentityUnverified);
    assert!(findings(&replayed).contains("anybody who saw it"), "{}", findings(&replayed));
}

/// `wrk-iid-replayed`: what a service lets one key have at a time is what anybody who saw it could send.
#[test]
fn what_can_be_sent_again_names_a_machine_and_has_no_challenge_in_it() {
    let issuer = Issuer::new("https://token.actions.githubusercontent.com");
    let platform = format!("[platforms.github]\nkind = \"github\"\njwks = '{}'\n", issuer.jwks());
    let both = change()
        .policy(policy)
        .policy(move |text| text.replace("[platforms.ec2]", &format!("{platform}[platforms.ec2]")));
    let world = both.build();
    let chain = world.chain();
    let (_, policy) = chain.newest();
    let mut enrolment = enrolment("worker", INSTANCE);
    for name in ["github.key", "github.repository", "githubber.key", "ec2.key"] {
        enrolment.facts.push((name.into(), "x".into()));
    }
    let found = replayable(&enrolment, policy);
    let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(found, [("ec2.instance-id", INSTANCE), ("ec2.key", "x"), ("githubber.key", "x")]);
}

/// The same at its last second and one beyond; the clocks may differ by five minutes.
#[test]
fn a_certificate_is_current_from_its_beginning_to_its_end() {
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    let world = with(built(envelope.id()), std::slice::from_ref(&envelope));
    let (evidence, chain) = (world.evidence(), world.chain());
    let current = |now: u64| {
        let docket = Docket::open(&evidence, &chain, at(now), &InTurn);
        let dropped = Docket::open_and_drop(world.evidence(), &chain, at(now), &InTurn);
        let ids = |docket: &Docket<'_>| docket.statements().map(Signed::id).collect::<Vec<_>>();
        assert_eq!(ids(&dropped), ids(&docket), "the build is opened by the certificate alone");
        assert!(ids(&docket).contains(&world.id(BUILD)));
        docket.certificate(envelope.id()).map(drop).map_err(|refusal| refusal.code)
    };
    assert_eq!(current(BOOT - 301), Err(Code::PolicyKeyNotYetValid));
    assert_eq!(current(BOOT - 300), Ok(()));
    assert_eq!(current(BOOT + 12 * HOURS - 1), Ok(()));
    assert_eq!(current(BOOT + 12 * HOURS), Err(Code::PolicyKeyExpired));
}

#[test]
fn a_key_is_enrolled_by_who_has_it() {
    let stolen = |it: &mut Enrolment| {
        let message = possession(&it.challenge, &it.machine, &it.key.id());
        it.possession = Key::of("mallory").raw(&message);
    };
    assert_refused(&changed(stolen).file(), Code::WorkerIdentityUnverified);
    // a signature for another machine or challenge
    let other = |it: &mut Enrolment| it.challenge = Sha256::of(b"another");
    assert_refused(&changed(other).file(), Code::WorkerIdentityUnverified);
}

#[test]
fn a_certificate_is_for_one_machine_and_one_key() {
    let packer = |it: &mut Enrolment| it.machine = label("packer");
    assert_refused(&changed(packer).file(), Code::PolicyKeyPurpose);
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    let other = certificate(enrolment("worker-2", OTHER), &["enroller"]);
    // another worker's certificate
    let theirs = with(built(other.id()), &[envelope.clone(), other.clone()]);
    assert_refused(&theirs.file(), Code::WorkerIdentityMismatch);
    // a listed key does not borrow one either
    let listed = built(envelope.id()).signed_by(BUILD, &["builder"]);
    assert_refused(
        &with(listed, std::slice::from_ref(&envelope)).file(),
        Code::WorkerIdentityMismatch,
    );
    // two workers side by side
    assert_accepted(&with(built(envelope.id()), &[envelope, other]).file());
}

/// `wrk-key-two-instances`: one key was enrolled for two machines.
#[test]
fn a_key_in_two_places_was_taken_along() {
    let here = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    let there = certificate(enrolment("worker", OTHER), &["enroller"]);
    let twice = with(built(here.id()), &[here.clone(), there.clone()]);
    let report = twice.file();
    assert_refused(&report, Code::WorkerIdentityMismatch);
    assert!(findings(&report).contains(OTHER), "{}", findings(&report));
    // renewed: the same machine has a later certificate of the same key
    let mut later = enrolment("worker", INSTANCE);
    (later.from, later.until) = (at(BOOT + 6 * HOURS), at(BOOT + 18 * HOURS));
    let renewed = certificate(later, &["enroller"]);
    assert_accepted(&with(built(here.id()), &[here.clone(), renewed]).file());
    // what somebody certifies who may not does not spoil it
    let gossip = certificate(enrolment("worker", OTHER), &["scheduler"]);
    assert_accepted(&with(built(here.id()), &[here.clone(), gossip]).file());
    // nor what a revoked enroller left behind
    let enroller = format!("{{ key = \"{}\" }}", Key::of("enroller").public.to_openssh());
    let two = format!("{enroller}, {{ key = \"{}\" }}", Key::of("enroller-2").public.to_openssh());
    let second = certificate(enrolment("worker", OTHER), &["enroller-2"]);
    let builder = built(here.id()).policy(move |text| text.replace(&enroller, &two));
    let mut world = with(builder, &[here, second]);
    assert_refused(&world.file(), Code::WorkerIdentityMismatch);
    let entry = format!("{{ key = \"{}\" }}", Key::of("enroller-2").public.to_openssh());
    let revoked = entry.replace(" }", ", revoked = true }");
    world.rotate(move |text| text.replace(&entry, &revoked));
    assert_accepted(&world.file());
}

/// A key that the policy lists, for a person or a machine, is nobody's to enrol.
#[test]
fn a_listed_key_is_not_enrolled() {
    let envelope = certificate(enrolment("packer", INSTANCE), &["enroller"]);
    let builder = built(envelope.id()).signed_by(BUILD, &["packer"]);
    let world = with(builder, std::slice::from_ref(&envelope));
    assert_refused(&world.file(), Code::WorkerIdentityMismatch);
    // and what it signs for itself is as good as before
    let mine = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    assert_accepted(&with(built(mine.id()), &[mine, envelope]).file());
}

/// Enrolled keys sign manifests and intents. Nothing else of theirs counts.
#[test]
fn an_enrolled_key_signs_what_workers_sign() {
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    for name in ["new/build/task", "new/ship/authorization"] {
        let builder = built(envelope.id()).signed_by(name, &["worker"]);
        assert_refused(
            &with(builder, std::slice::from_ref(&envelope)).file(),
            Code::PolicyKeyPurpose,
        );
    }
}

/// Who else signed the manifest does not hide the enrolled key, whether the policy lists them or not.
#[test]
fn an_enrolled_key_counts_beside_others() {
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    for others in [&["worker"][..], &["docs", "worker"], &["worker", "docs", "stranger"]] {
        let builder = built(envelope.id()).signed_by(BUILD, others);
        assert_accepted(&with(builder, std::slice::from_ref(&envelope)).file());
    }
    let without = built(envelope.id()).signed_by(BUILD, &["docs", "stranger"]);
    assert_refused(&with(without, &[envelope]).file(), Code::WorkerIdentityMismatch);
}

/// An act that an enrolled publisher announced is in doubt like any other.
#[test]
fn an_intent_by_an_enrolled_key_is_remembered() {
    let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
    let publishes = |text: String| {
        text.replace("perform = [\"publisher\"]", "perform = [\"publisher\", \"builder\"]")
    };
    let builder = built(envelope.id()).policy(publishes);
    let mut world = with(builder, &[envelope]).unpublished();
    assert_accepted(&world.gate("new/publish/task"));
    let intent: Intent = world.intent("new/publish/task", Stage::Announced, 101_400);
    world.add("new/publish/intent", intent, &["worker"]);
    assert_refused(&world.gate("new/publish/task"), Code::GateAlreadyExecuted);
}

/// An enrolled worker that signs two results forks the task.
#[test]
fn a_second_result_by_an_enrolled_key_is_a_fork() {
    let mut world = honest();
    assert_accepted(&world.file());
    let mut second = world.get_manifest(BUILD);
    second.invocation = "again".into();
    world.add("second", second, &["worker"]);
    assert_refused(&world.file(), Code::ChainForked);
}

/// What was proved at enrolment is verified for the step's own demands too.
#[test]
fn a_step_may_demand_what_was_proved_at_enrolment() {
    let demand = |instance: &'static str| {
        move |text: String| {
            let from = "perform = [\"builder\"]\n";
            let to = format!(
                "{from}machine = [{{ fact = \"ec2.instance-id\", is = [\"{instance}\"], standing = \"verified\" }}]\n"
            );
            text.replace(from, &to)
        }
    };
    let file = |instance| {
        let envelope = certificate(enrolment("worker", INSTANCE), &["enroller"]);
        let mut older = enrolment("worker-2", INSTANCE);
        (older.from, older.until) = (at(0), at(HOURS));
        let older = certificate(older, &["enroller"]);
        let id = older.id();
        let builder = built(envelope.id())
            .policy(demand(instance))
            .signed_by("old/build/manifest", &["worker-2"])
            .manifest("old/build/manifest", move |manifest| manifest.enrolment = Some(id));
        with(builder, &[envelope, older]).file()
    };
    assert_accepted(&file(INSTANCE));
    assert_refused(&file(OTHER), Code::WorkerIdentityMismatch);
}

/// The judge's word on a certificate alone, for whoever is about to use it.
#[test]
fn a_certificate_is_judged_by_itself() {
    let judge = |enrolment: Enrolment, now: u64| {
        let envelope = certificate(enrolment, &["enroller"]);
        let world = change().policy(policy).build();
        let evidence = [envelope.clone()].into_iter().collect();
        let chain = world.chain();
        Docket::open(&evidence, &chain, at(now), &InTurn).certificate(envelope.id())
    };
    let code = |now| judge(enrolment("worker", INSTANCE), now).map_err(|refusal| refusal.code);
    let certificate = code(BOOT).unwrap();
    assert_eq!(certificate.machine, label("builder"));
    assert_eq!(certificate.facts["ec2.instance-id"], INSTANCE);
    assert_eq!(code(BOOT - 301).unwrap_err(), Code::PolicyKeyNotYetValid);
    assert_eq!(code(BOOT + 12 * HOURS).unwrap_err(), Code::PolicyKeyExpired);
    let expired = judge(enrolment("worker", INSTANCE), 200_000_000).unwrap_err();
    assert_eq!(expired.code, Code::PolicyExpired);
}

/// Half an enrolment, an enroller without keys and demands of what nothing proves are faults of the text.
#[test]
fn the_policy_is_closed() {
    let text = policy(world::policy_text());
    let parse = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Policy::parse(&text.replace(from, to)).map(|_| ()).map_err(|fault| fault.message)
    };
    // not any 12h: the keys have one now and then
    assert_eq!(parse("\"12h\"", "\"1h\""), Ok(()));
    let refused = |from: &str, to: &str, wanted: &str| {
        let message = parse(from, to).unwrap_err();
        assert!(message.contains(wanted), "{message}");
    };
    refused("max-certificate = \"12h\"\n", "", "half of an enrolment");
    refused("enrolled-by = [\"enroller\"]\n", "", "half of an enrolment");
    refused("enrolled-by = [\"enroller\"]", "enrolled-by = []", "no machine");
    refused("enrolled-by = [\"enroller\"]", "enrolled-by = [\"alice\"]", "no machine alice");
    refused("max-certificate = \"12h\"", "max-certificate = \"12\"", "no duration");
    refused("fact = \"ec2.account-id\"", "fact = \"gce.project-id\"", "no platform gce");
    refused("fact = \"ec2.account-id\"", "fact = \"ec2.image-id\"", "stands twice");
    refused("is = [\"123456789012\"]", "is = []", "no value");
    refused("is = [\"123456789012\"]", "is = [\"1\"], standing = \"claimed\"", "unknown field");
    refused("[people.bob]\n", "[people.bob]\nmax-certificate = \"1h\"\n", "bob is a person");
    let key = Key::of("enroller").public.to_openssh();
    let enroller = format!("[machines.enroller]\nkeys = [{{ key = \"{key}\" }}]\n");
    refused(&enroller, "[machines.enroller]\n", "no keys");
    let builder = Key::of("builder").public.to_openssh();
    let listed = format!("[machines.builder]\nkeys = [{{ key = \"{builder}\" }}]\n");
    assert_eq!(parse(&listed, "[machines.builder]\n"), Ok(()));
    let itself =
        text.replace(&listed, "[machines.builder]\n").replace("[\"enroller\"]", "[\"builder\"]");
    let fault = Policy::parse(&itself).unwrap_err();
    assert!(fault.message.contains("builder has no key of its own"), "{}", fault.message);
    assert!(fault.excerpt.starts_with("enrolled-by"), "{}", fault.excerpt);
    let line = "clock-skew = \"5m\"\n";
    let id = "0".repeat(64);
    assert_eq!(parse(line, &format!("{line}revoked-enrolments = [\"{id}\"]\n")), Ok(()));
    refused(line, &format!("{line}revoked-enrolments = [\"{id}\", \"{id}\"]\n"), "stands twice");
    refused(line, &format!("{line}revoked-enrolments = [\"00\"]\n"), "");
}
