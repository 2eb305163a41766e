//! People: whoever holds one approver's key, an old sign-off or the desk wants a release that too few
//! people approved.

use custody_world as world;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Signature};
use custody_core::key::PublicKey;
use custody_core::sshsig;
use custody_core::statement::{
    Approver, Authorization, Decision, Revision, Signoff, Statement, short_code,
};
use custody_verify::tally;
use world::{
    Builder, Key, World, assert_accepted, assert_refused, at, change, findings, honest, label,
    signed,
};

const SIGNOFF: &str = "new/ship/signoff/carol";
const DESK: &str = "new/ship/authorization";

fn signoff(edit: impl Fn(&mut Signoff) + 'static) -> Builder {
    change().signoff(SIGNOFF, edit)
}

fn authorization(edit: impl Fn(&mut Authorization) + 'static) -> Builder {
    change().authorization(DESK, edit)
}

fn word(world: &World, decision: Decision, person: &str, created: u64) -> Signoff {
    let request = world.get_request("new/ship/request");
    Signoff::of(
        &request,
        world.id("new/ship/request"),
        decision,
        label(person),
        label("releng"),
        at(created),
    )
}

/// `hum-below-threshold`, and issue 2: one sign-off removed.
#[test]
fn one_sign_off_removed_is_refused() {
    assert_accepted(&honest().file());
    for name in [
        "new/promote/signoff/bob",
        "new/promote/signoff/carol",
        "new/ship/signoff/bob",
        "old/promote/signoff/bob",
    ] {
        let mut world = honest();
        world.drop(name);
        assert_refused(&world.file(), Code::SignoffMissing);
    }
    let one = authorization(|authorization| authorization.approvers.truncate(1)).build();
    assert_refused(&one.file(), Code::SignoffThresholdNotMet);
    let none = authorization(|authorization| authorization.approvers.clear()).build();
    assert_refused(&none.file(), Code::SignoffMissing);
}

/// `hum-same-person-two-keys`, `hum-same-signoff-twice`, and issue 2: the same person's second key in
/// place of another person.
#[test]
fn one_persons_second_key_is_not_another_person() {
    // alice, who is not the proposer here, signs with both of her keys
    let base = || {
        change()
            .signed_by("new/ship/request", &["bob"])
            .signoff("new/ship/signoff/bob", |signoff| signoff.person = label("alice"))
            .signed_by("new/ship/signoff/bob", &["alice"])
    };
    assert_accepted(&base().build().file());
    let in_carols_name = base().signed_by(SIGNOFF, &["alice-2"]).build();
    assert_refused(&in_carols_name.file(), Code::SignoffCredentialUnknown);
    let twice = base()
        .signoff(SIGNOFF, |signoff| signoff.person = label("alice"))
        .signed_by(SIGNOFF, &["alice-2"])
        .build();
    assert_refused(&twice.file(), Code::SignoffPersonDuplicate);
    let same = authorization(|authorization| {
        authorization.approvers[1] = authorization.approvers[0].clone();
    })
    .build();
    assert_refused(&same.file(), Code::SignoffPersonDuplicate);
    let credited = authorization(|authorization| {
        authorization.approvers[1].signoff = authorization.approvers[0].signoff;
    })
    .build();
    assert_refused(&credited.file(), Code::SignoffContentMismatch);
}

/// `env-dup-signature`, `env-dup-signature-other-keyid`: signatures on one sign-off add nobody.
#[test]
fn more_signatures_on_one_sign_off_are_no_more_people() {
    let mut world = authorization(|authorization| authorization.approvers.truncate(1)).build();
    let envelope = world.envelopes["new/ship/signoff/bob"].clone();
    world
        .envelopes
        .insert("new/ship/signoff/bob".into(), signed(envelope, &["carol", "alice", "alice-2"]));
    assert_refused(&world.file(), Code::SignoffThresholdNotMet);
}

/// `hum-content-changed`, `hum-cross-release-replay`, `hum-signs-label-only`, `hum-display-mismatch`.
#[test]
fn a_sign_off_of_anything_else_is_refused() {
    let edits: [fn(&mut Signoff); 7] = [
        |signoff| signoff.release.version = label("1.0.0"),
        |signoff| signoff.release.channel = label("beta"),
        |signoff| signoff.release.instance = label("staging"),
        |signoff| signoff.phase = label("promote"),
        |signoff| signoff.source.revision = Revision::Git("9".repeat(40)),
        |signoff| signoff.artifacts += 1,
        |signoff| signoff.bytes += 1,
    ];
    for edit in edits {
        assert_refused(&signoff(edit).build().file(), Code::SignoffContentMismatch);
    }
    let world = honest();
    for other in ["old/ship/request", "new/promote/request"] {
        let id = world.id(other);
        assert_refused(
            &signoff(move |signoff| signoff.request = id).build().file(),
            Code::SignoffContentMismatch,
        );
    }
    let replayed = world.id("old/ship/signoff/carol");
    let report = authorization(move |authorization| authorization.approvers[1].signoff = replayed)
        .build()
        .file();
    assert_refused(&report, Code::SignoffContentMismatch);
    // one file changes after the sign-offs: they are of another request
    let old = (world.id("new/ship/signoff/bob"), world.id("new/ship/signoff/carol"));
    let mut changed = change()
        .request("new/ship/request", |request| request.builds_on[0].bytes += 1)
        .authorization(DESK, move |authorization| {
            authorization.approvers[0].signoff = old.0;
            authorization.approvers[1].signoff = old.1;
        })
        .build();
    for name in ["new/ship/signoff/bob", SIGNOFF] {
        changed.envelopes.insert(name.into(), world.envelopes[name].clone());
    }
    assert_refused(&changed.file(), Code::SignoffContentMismatch);
    let code = short_code(world.id("new/ship/request"));
    let shown = change().json(SIGNOFF, move |json| {
        assert!(json.contains(&code));
        json.replace(&code, "AAAA-AAAA")
    });
    assert_refused(&shown.build().file(), Code::SignoffContentMismatch);
    let label_only = change().json(SIGNOFF, |json| json.replace("\"artifacts\": 3,", ""));
    assert_refused(&label_only.build().file(), Code::ParseFieldMissing);
}

/// `hum-wrong-role`, `hum-robot-counts`.
#[test]
fn a_person_without_the_role_or_a_machine_does_not_count() {
    let qa = |text: String| {
        text.replace("[roles.releng]", "[roles.qa]\nmembers = [\"alice\"]\n[roles.releng]")
            .replace("resolve = [\"releng\"]", "resolve = [\"releng\", \"qa\"]")
            .replace(
                "[roles.releng]\nmembers = [\"alice\", \"bob\", \"carol\"]",
                "[roles.releng]\nmembers = [\"bob\", \"carol\"]",
            )
            .replace("propose = [\"releng\"]", "propose = [\"releng\", \"qa\"]")
    };
    assert_accepted(&change().policy(qa).build().file());
    let wrong_role =
        change().policy(qa).signoff(SIGNOFF, |signoff| signoff.role = label("qa")).build();
    assert_refused(&wrong_role.file(), Code::SignoffRole);
    let outsider = change()
        .policy(move |text| {
            qa(text).replace(
                "propose = [\"releng\", \"qa\"]",
                "propose = [\"releng\", \"qa\", \"docs\"]",
            )
        })
        .signed_by("new/ship/request", &["docs"])
        .signoff(SIGNOFF, |signoff| signoff.person = label("alice"))
        .signed_by(SIGNOFF, &["alice"])
        .build();
    assert_refused(&outsider.file(), Code::SignoffRole);
    let robot = signoff(|signoff| signoff.person = label("builder"))
        .signed_by(SIGNOFF, &["builder"])
        .build();
    assert_refused(&robot.file(), Code::SignoffRole);
    // three of one role and none of the other
    let both = move |text: String| {
        qa(text).replacen(
            "approve = [{ role = \"releng\", count = 2 }]",
            "approve = [{ role = \"releng\", count = 2 }, { role = \"qa\", count = 1 }]",
            1,
        )
    };
    assert_refused(&change().policy(both).build().file(), Code::SignoffThresholdNotMet);
}

/// `hum-self-approval`.
#[test]
fn the_proposers_own_approval_counts_only_where_the_policy_says_so() {
    let own = || signoff(|signoff| signoff.person = label("alice")).signed_by(SIGNOFF, &["alice"]);
    assert_refused(&own().build().file(), Code::SignoffSelfApproval);
    // also with the other key, and where two proposed
    assert_refused(
        &own().signed_by(SIGNOFF, &["alice-2"]).build().file(),
        Code::SignoffSelfApproval,
    );
    assert_refused(
        &change().signed_by("new/ship/request", &["alice", "bob"]).build().file(),
        Code::SignoffSelfApproval,
    );
    let counts = |text: String| text.replace("proposer-counts = false", "proposer-counts = true");
    assert_accepted(&own().policy(counts).build().file());
}

/// `hum-decision-reject`: a refusal is neither an approval nor nothing.
#[test]
fn a_refusal_blocks_and_is_no_approval() {
    let counted = signoff(|signoff| signoff.decision = Decision::Refuse).build();
    assert_refused(&counted.file(), Code::SignoffThresholdNotMet);
    assert_refused(&counted.file(), Code::SignoffRefused);
    let mut world = honest();
    let refusal = word(&world, Decision::Refuse, "alice", 101_150);
    world.add("refusal", refusal.clone(), &["alice"]);
    assert_refused(&world.file(), Code::SignoffRefused);
    world.add("refusal", refusal.clone(), &["mallory"]);
    assert_accepted(&world.file());
    // in somebody else's name
    world.add("refusal", refusal, &["bob"]);
    assert_accepted(&world.file());
}

/// `hum-withdrawn`, `hum-withdrawal-forged`, `hum-withdrawal-replayed`.
#[test]
fn a_withdrawal_ends_its_authors_own_approval_and_no_other() {
    let mut world = honest();
    let mut withdrawal = word(&world, Decision::Withdraw, "carol", 101_500);
    withdrawal.withdraws = Some(world.id(SIGNOFF));
    world.add("withdrawal", withdrawal.clone(), &["carol"]);
    assert_refused(&world.file(), Code::SignoffWithdrawn);
    world.add("withdrawal", withdrawal.clone(), &["bob"]);
    assert_accepted(&world.file());
    let mut of_bobs = withdrawal.clone();
    of_bobs.withdraws = Some(world.id("new/ship/signoff/bob"));
    world.add("withdrawal", of_bobs, &["carol"]);
    assert_accepted(&world.file());
    // carol approved before, withdrew that, and approved anew: the new approval is what counts
    let earlier = word(&world, Decision::Approve, "carol", 101_050);
    let earlier = world.add("earlier", earlier, &["carol"]);
    withdrawal.withdraws = Some(earlier);
    world.add("withdrawal", withdrawal, &["carol"]);
    assert_accepted(&world.file());
}

/// `hum-stale`.
#[test]
fn an_old_expired_or_misdated_sign_off_is_refused() {
    let short =
        |text: String| text.replace("sign-off-max-age = \"1d\"", "sign-off-max-age = \"100s\"");
    assert_accepted(&change().policy(short).build().file());
    let old =
        change().policy(short).signoff(SIGNOFF, |signoff| signoff.created = at(101_099)).build();
    assert_refused(&old.file(), Code::SignoffStale);
    assert_refused(
        &signoff(|signoff| signoff.expires = at(101_200)).build().file(),
        Code::SignoffStale,
    );
    assert_refused(
        &signoff(|signoff| signoff.created = at(100_699)).build().file(),
        Code::ChainTimeOrder,
    );
    assert_refused(
        &signoff(|signoff| signoff.created = at(101_501)).build().file(),
        Code::ChainTimeOrder,
    );
}

/// `hum-ssh-namespace`, `hum-ssh-embedded-key`, and a plain signature where people sign with SSH.
#[test]
fn a_signature_for_another_purpose_or_by_a_key_nobody_enrolled_is_refused() {
    let with = |make: fn(&Envelope) -> Signature| {
        let mut world = honest();
        let mut envelope =
            Envelope::unsigned::<Statement>(world.envelopes[SIGNOFF].unverified_payload());
        envelope.add_signature(make(&envelope));
        world.envelopes.insert(SIGNOFF.into(), envelope);
        world.file()
    };
    assert_accepted(&with(|envelope| Key::of("carol").ssh(envelope)));
    assert_refused(
        &with(|envelope| Key::of("mallory").ssh(envelope)),
        Code::SignoffCredentialUnknown,
    );
    assert_refused(&with(|envelope| Key::of("carol").plain(envelope)), Code::EnvAlgForbidden);
    let for_git = |envelope: &Envelope| {
        let mut signature = Key::of("carol").ssh(envelope);
        let at =
            signature.sig.windows(19).position(|window| window == b"evidence@custody.de").unwrap();
        signature.sig[at] = b'x';
        signature
    };
    assert_refused(&with(for_git), Code::SignoffNamespace);
    // carol's key in both forms: the fitting one counts, in whatever order they stand
    let mut world = honest();
    let mut both = Envelope::unsigned::<Statement>(world.envelopes[SIGNOFF].unverified_payload());
    for form in [Key::plain, Key::ssh] {
        both.add_signature(form(&Key::of("carol"), &both));
    }
    world.envelopes.insert(SIGNOFF.into(), both);
    assert_accepted(&world.file());
    // a machine that signs as people do
    let mut ssh = honest();
    let mut envelope =
        Envelope::unsigned::<Statement>(ssh.envelopes["new/build/manifest"].unverified_payload());
    envelope.add_signature(Key::of("builder").ssh(&envelope));
    ssh.envelopes.insert("new/build/manifest".into(), envelope);
    assert_refused(&ssh.file(), Code::EnvAlgForbidden);
}

/// `hum-departed`, `hum-threshold-raised`: at the gate the newest policy decides.
#[test]
fn a_later_policy_decides_at_the_gate() {
    let carol = Key::of("carol").public.to_openssh();
    let revoked = move |text: String| {
        text.replace(&format!("key = \"{carol}\""), &format!("key = \"{carol}\", revoked = true"))
    };
    let mut world = honest().unpublished();
    assert_accepted(&world.gate("new/publish/task"));
    world.rotate(revoked.clone());
    assert_refused(&world.gate("new/publish/task"), Code::PolicyKeyRevoked);
    // and a revocation reaches back: what carol alone completed is no longer approved
    let mut published = honest();
    published.rotate(revoked);
    assert_refused(&published.file(), Code::PolicyKeyRevoked);

    let raised = |text: String| {
        text.replace(
            "[people.bob]",
            &format!(
                "[people.dave]\nkeys = [{{ key = \"{}\" }}]\n[people.bob]",
                Key::of("dave").public.to_openssh()
            ),
        )
        .replace(
            "[roles.releng]\nmembers = [\"alice\",",
            "[roles.releng]\nmembers = [\"alice\", \"dave\",",
        )
        .replace("count = 2", "count = 3")
    };
    let mut world = honest().unpublished();
    world.rotate(raised);
    assert_refused(&world.gate("new/publish/task"), Code::SignoffThresholdNotMet);
    // what was published before stays as it was authorized
    let mut published = honest();
    published.rotate(raised);
    assert_accepted(&published.file());
}

/// At the gate of a newer release an older one is judged by the policy that it was made under.
#[test]
fn a_later_policy_decides_of_the_release_that_is_being_made_alone() {
    let shorter = |text: String| text.replace("\nmax-age = \"1d\"", "\nmax-age = \"1h\"");
    let tasks = ["build", "partial", "sign", "publish"].map(|step| format!("new/{step}/task"));
    let in_time = |builder: Builder, task: &String| {
        builder.task(task, |task| task.deadline = task.created.plus(3_000))
    };
    let mut world = tasks.iter().fold(change(), in_time).build().unpublished();
    world.rotate(shorter);
    assert_accepted(&world.gate("new/publish/task"));
    let mut world = honest().unpublished();
    world.rotate(shorter);
    assert_refused(&world.gate("new/publish/task"), Code::ChainStale);
}

/// `hum-webauthn-flags` and `hum-sk-application`, for a security key: OpenSSH leaves the flags to us.
#[test]
fn a_security_key_must_be_touched_and_where_the_policy_says_so_check_its_user() {
    let carol = Key::of("carol");
    let PublicKey::Ed25519(point) = carol.public else { panic!("an Ed25519 key") };
    let key = |application: &str| PublicKey::SkEd25519 { point, application: application.into() };
    let with = |application: &'static str, flags: u8, demands: bool| {
        let more = if demands { ", user-verification = true" } else { "" };
        let enrolled = format!("key = \"{}\"{more}", key("ssh:custody").to_openssh());
        let plain = format!("key = \"{}\"", Key::of("carol").public.to_openssh());
        let mut world = change().policy(|text| text.replace(&plain, &enrolled)).build();
        let names = [
            "old/promote/signoff/carol",
            "old/ship/signoff/carol",
            "new/promote/signoff/carol",
            SIGNOFF,
        ];
        for name in names {
            let flags = if name == SIGNOFF { flags } else { 5 };
            let application = if name == SIGNOFF { application } else { "ssh:custody" };
            let mut envelope =
                Envelope::unsigned::<Statement>(world.envelopes[name].unverified_payload());
            let tail = [flags, 0, 0, 0, 7];
            let mut message = Sha256::of(application.as_bytes()).as_bytes().to_vec();
            message.extend(tail);
            message.extend(Sha256::of(&sshsig::signed_data(envelope.pae())).as_bytes());
            let mut inner = Vec::new();
            sshsig::put_string(&mut inner, b"sk-ssh-ed25519@openssh.com");
            sshsig::put_string(&mut inner, &Key::of("carol").raw(&message));
            inner.extend(tail);
            envelope.add_signature(Signature {
                keyid: None,
                sig: sshsig::from_agent(&key(application), &inner),
            });
            world.envelopes.insert(name.into(), envelope);
        }
        world.file()
    };
    assert_accepted(&with("ssh:custody", 1, false));
    assert_accepted(&with("ssh:custody", 5, true));
    assert_refused(&with("ssh:custody", 0, false), Code::SignoffUpRequired);
    assert_refused(&with("ssh:custody", 4, true), Code::SignoffUpRequired);
    assert_refused(&with("ssh:custody", 1, true), Code::SignoffUvRequired);
    assert_refused(&with("ssh:", 5, false), Code::SignoffRpid);
}

/// The desk counts as the judge does.
#[test]
fn the_desk_counts_each_person_once_and_says_what_is_lacking() {
    let world = honest();
    let request = world.id("new/ship/request");
    let count =
        |world: &World| tally(request, &world.evidence(), &world.chain(), at(101_200)).unwrap();
    let people = |approvers: &[Approver]| {
        approvers.iter().map(|approver| approver.person.to_string()).collect::<Vec<_>>()
    };
    let full = count(&world);
    assert!(full.lacking.is_none() && full.ignored.is_empty(), "{full:?}");
    let mut named = people(&full.approvers);
    named.sort_unstable();
    assert_eq!(named, ["bob", "carol"]);

    let mut one = world.clone();
    one.drop(SIGNOFF);
    assert_eq!(count(&one).lacking.unwrap().code, Code::SignoffThresholdNotMet);
    one.drop("new/ship/signoff/bob");
    assert_eq!(count(&one).lacking.unwrap().code, Code::SignoffMissing);
    let own = word(&world, Decision::Approve, "alice", 101_100);
    one.add("own", own, &["alice"]);
    let own = count(&one);
    assert_eq!(own.ignored[0].1.code, Code::SignoffSelfApproval);
    let mut twice = world.clone();
    let again = word(&world, Decision::Approve, "bob", 101_120);
    twice.add("again", again, &["bob"]);
    let twice = count(&twice);
    assert!(twice.lacking.is_none());
    assert_eq!(twice.ignored[0].1.code, Code::SignoffPersonDuplicate);
    let mut refused = world.clone();
    let refusal = word(&world, Decision::Refuse, "alice", 101_150);
    refused.add("refusal", refusal, &["alice"]);
    assert_eq!(count(&refused).lacking.unwrap().code, Code::SignoffRefused);
    // withdrawn and approved anew: the new approval is counted
    let mut anew = world.clone();
    let mut withdrawal = word(&world, Decision::Withdraw, "carol", 101_130);
    withdrawal.withdraws = Some(world.id(SIGNOFF));
    anew.add("withdrawal", withdrawal, &["carol"]);
    assert!(count(&anew).lacking.is_some());
    // whichever of the two approvals comes first
    for second in 0..8 {
        let again = word(&world, Decision::Approve, "carol", 101_140 + second);
        let again = anew.add("again", again, &["carol"]);
        let counted = count(&anew);
        assert!(counted.lacking.is_none(), "{counted:?}");
        assert!(counted.approvers.iter().any(|approver| approver.signoff == again));
        assert_eq!(counted.ignored[0].1.code, Code::SignoffWithdrawn);
    }
    // late
    let late = tally(request, &world.evidence(), &world.chain(), at(181_000)).unwrap();
    assert_eq!(late.lacking.unwrap().code, Code::ChainStale);
    let mut forged = change().signed_by("new/ship/request", &["mallory"]).build();
    let request = forged.id("new/ship/request");
    assert_eq!(
        tally(request, &forged.evidence(), &forged.chain(), at(101_200)).unwrap_err().code,
        Code::EnvKeyUnknown
    );
    forged.envelopes.clear();
    assert_eq!(
        tally(request, &forged.evidence(), &forged.chain(), at(101_200)).unwrap_err().code,
        Code::ChainLinkMissing
    );
}

/// Findings name the person, for somebody at three in the morning.
#[test]
fn a_refusal_of_a_sign_off_names_the_person() {
    let report = change().signed_by(SIGNOFF, &["bob"]).build().file();
    assert!(findings(&report).contains("carol"), "{}", findings(&report));
}

/// Who may not approve cannot refuse either, or anybody with a key in the policy could stop a release.
#[test]
fn a_refusal_by_somebody_who_may_not_approve_stops_nothing() {
    let key = Key::of("dave").public.to_openssh();
    let people = format!("[people.dave]\nkeys = [{{ key = \"{key}\" }}]\n[people.bob]\n");
    let with_dave = || change().policy(|text| text.replace("[people.bob]\n", &people)).build();
    let refused_by = |person: &str| {
        let mut world = with_dave();
        let (request, id) = (world.get_request("new/ship/request"), world.id("new/ship/request"));
        let (who, role) = (label(person), label("releng"));
        let refusal = Signoff::of(&request, id, Decision::Refuse, who, role, at(101_150));
        world.add("refusal", refusal, &[person]);
        world.file()
    };
    assert_accepted(&refused_by("dave"));
    assert_refused(&refused_by("carol"), Code::SignoffRefused);
}
