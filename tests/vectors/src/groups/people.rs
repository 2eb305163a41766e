//! What people sign: SSHSIG, security keys and passkeys.

use custody_core::Code;
use custody_core::encoding::base64url;
use custody_core::envelope::Signature;
use custody_core::key::PublicKey;
use custody_core::sshsig::put_string;
use custody_core::statement::{Decision, Revision, Signoff};
use custody_world::{Builder, Key, World, at, change, honest, label, signed};

use super::envelope::{case, unsigned, who, with};
use super::shipped;
use crate::case::{About, Group, Set, Signed, What, Who};
use crate::keys::{Ecdsa, OURS, Page, Rsa, Sk, Ssh, Touch, inner, sk_ed25519, touch_ed25519};

pub(super) fn add(set: &mut Set) {
    let mut group = set.group("people");
    plain_keys(&mut group);
    forms(&mut group);
    security_keys(&mut group);
    passkeys(&mut group);
    passkey_flags(&mut group);
    sign_offs(&mut group);
    contents(&mut group);
    objections(&mut group);
}

fn by(key: &PublicKey, blob: Vec<u8>) -> What {
    let json = with(&[Signature { keyid: None, sig: blob }]).to_json();
    case(json, 1, &[who("carol", true, &[key])])
}

fn plain_keys(group: &mut Group<'_>) {
    let message = unsigned().pae().to_vec();
    let bob = who("bob", true, &[&Key::of("bob").public]);
    let what = case(signed(unsigned(), &["bob"]).to_json(), 1, &[bob]);
    group.accept("ed25519", About("SSHSIG with Ed25519", &[]), &what);
    let ecdsa = [("p256", Ecdsa::p256("carol")), ("p384", Ecdsa::p384("carol"))];
    for (name, key) in ecdsa {
        let sig = key.sign_ssh(&mut group.set.random, &OURS.data(&message));
        let blob = OURS.blob(&key.public, &inner(key.public.ssh_type(), &sig, &[]));
        group.accept(name, About("SSHSIG with ECDSA", &[]), &by(&key.public, blob));
    }
    let rsa = Rsa::new();
    for (name, sha512) in [("rsa-sha2-512", true), ("rsa-sha2-256", false)] {
        let sig = rsa.pkcs1(sha512, &OURS.data(&message));
        let blob = OURS.blob(&rsa.public, &inner(name, &sig, &[]));
        group.accept(name, About("SSHSIG with RSA", &[]), &by(&rsa.public, blob));
    }
    let sig = rsa.pkcs1(true, &OURS.data(&message));
    let blob = OURS.blob(&rsa.public, &inner("ssh-rsa", &sig, &[]));
    let about = About("SSHSIG with RSA under the name of the form with SHA-1", &["env-weak-rsa"]);
    group.reject("ssh-rsa", "rsa-sha2-512", Code::EnvAlgForbidden, about, &by(&rsa.public, blob));
}

fn forms(group: &mut Group<'_>) {
    let message = unsigned().pae().to_vec();
    let (carol, mallory) = (Key::of("carol"), Key::of("mallory"));
    let signed_as = |ssh: Ssh<'_>| {
        ssh.blob(&carol.public, &inner("ssh-ed25519", &carol.raw(&ssh.data(&message)), &[]))
    };
    let sha256 = signed_as(Ssh { hash: "sha256", ..OURS });
    let about = About("SSHSIG over SHA-256 of the message", &[]);
    group.accept("hash-sha256", about, &by(&carol.public, sha256));
    for (name, namespace) in
        [("namespace-git", "git"), ("namespace-file", "file"), ("namespace-empty", "")]
    {
        let blob = signed_as(Ssh { namespace, ..OURS });
        let about = About("SSHSIG made for another program", &["hum-ssh-namespace"]);
        group.reject(name, "ed25519", Code::SignoffNamespace, about, &by(&carol.public, blob));
    }
    let blob =
        OURS.blob(&mallory.public, &inner("ssh-ed25519", &mallory.raw(&OURS.data(&message)), &[]));
    let about =
        About("SSHSIG fits the key inside it, which is nobody's", &["hum-ssh-embedded-key"]);
    group.reject("embedded-key", "ed25519", Code::EnvKeyUnknown, about, &by(&carol.public, blob));
    let good = signed_as(OURS);
    let changed = |at: usize, byte: u8| {
        let mut blob = good.clone();
        blob[at] = byte;
        blob
    };
    let longer = [&good[..], &[0]].concat();
    let mut reserved = b"SSHSIG\0\0\0\x01".to_vec();
    for part in [&carol.public.to_ssh_blob()[..], b"evidence@custody.dev", b"x", b"sha512"] {
        put_string(&mut reserved, part);
    }
    let raw = carol.raw(&OURS.data(&message));
    put_string(&mut reserved, &inner("ssh-ed25519", &raw, &[]));
    let tail = OURS.blob(&carol.public, &inner("ssh-ed25519", &raw, &[1, 0, 0, 0, 0]));
    let sha1 = signed_as(Ssh { hash: "sha1", ..OURS });
    for (name, blob, about) in [
        ("version-2", changed(9, 2), "SSHSIG of version 2"),
        ("trailing-byte", longer, "a byte after the SSHSIG"),
        ("reserved", reserved, "something in the reserved field"),
        ("plain-with-flags", tail, "flags and counter after a plain key's signature"),
        ("hash-sha1", sha1, "SSHSIG that names a weak hash"),
    ] {
        let about = About(about, &[]);
        group.reject(name, "ed25519", Code::ParseFieldType, about, &by(&carol.public, blob));
    }
    let mut certificate = Vec::new();
    put_string(&mut certificate, b"ssh-ed25519-cert-v01@openssh.com");
    certificate.extend(&carol.public.to_ssh_blob()[15..]);
    let mut certified = b"SSHSIG\0\0\0\x01".to_vec();
    for part in [&certificate[..], b"evidence@custody.dev", b"", b"sha512"] {
        put_string(&mut certified, part);
    }
    put_string(&mut certified, &inner("ssh-ed25519", &raw, &[]));
    let about = About("SSHSIG with a certificate in place of the key", &["hum-ssh-certificate"]);
    let what = by(&carol.public, certified);
    group.reject("certificate", "ed25519", Code::PolicyKeyWeak, about, &what);
    let plain = carol.plain(&unsigned()).sig;
    let about = About("a person signed as machines do", &["env-alg-from-message"]);
    let json =
        with(&[Signature { keyid: Some(carol.public.id().to_string()), sig: plain }]).to_json();
    let what = case(json, 1, &[who("carol", true, &[&carol.public])]);
    group.reject("plain", "ed25519", Code::EnvAlgForbidden, about, &what);
}

/// A key that must check its user.
fn demanding(key: &PublicKey, blob: Vec<u8>) -> What {
    let What::Envelope(case) = by(key, blob) else { panic!("an envelope") };
    let who = Who { name: "carol", is_person: true, keys: vec![(key.to_openssh(), true)] };
    What::Envelope(Signed { keys: vec![who], ..case })
}

fn security_keys(group: &mut Group<'_>) {
    let message = unsigned().pae().to_vec();
    let (sk, application) = (Sk::of("carol"), "ssh:custody");
    let enrolled = sk.public(application);
    let flags = &["hum-webauthn-flags"];
    let mut touched =
        |flags: u8| sk.touch(&mut group.set.random, &Touch { application, flags }, &message);
    let blobs = [touched(1), touched(0), touched(4), touched(5)];
    group.accept(
        "sk-ecdsa",
        About("a security key with ECDSA, touched", &[]),
        &by(&enrolled, blobs[0].clone()),
    );
    let about = About("nobody touched the security key", flags);
    group.reject(
        "sk-untouched",
        "sk-ecdsa",
        Code::SignoffUpRequired,
        about,
        &by(&enrolled, blobs[1].clone()),
    );
    let about = About("a security key that checked its user, untouched", flags);
    group.reject(
        "sk-checked-untouched",
        "sk-ecdsa",
        Code::SignoffUpRequired,
        about,
        &by(&enrolled, blobs[2].clone()),
    );
    let about = About("the security key checked its user, as it must", &[]);
    group.accept("sk-checked", about, &demanding(&enrolled, blobs[3].clone()));
    let about = About("the security key must check its user and did not", flags);
    group.reject(
        "sk-unchecked",
        "sk-checked",
        Code::SignoffUvRequired,
        about,
        &demanding(&enrolled, blobs[0].clone()),
    );
    let mut raised = blobs[1].clone();
    let at = raised.len() - 5;
    raised[at] = 1;
    let about = About("the flag of a touch was set afterwards", flags);
    group.reject(
        "sk-flag-raised",
        "sk-ecdsa",
        Code::EnvSignatureInvalid,
        about,
        &by(&enrolled, raised),
    );
    let mut longer = inner("sk-ssh-ed25519@openssh.com", &[7; 64], &[1, 0, 0, 0, 7, 0]);
    longer = OURS.blob(&sk_ed25519("carol", application), &longer);
    let ed = sk_ed25519("carol", application);
    let touch = Touch { application, flags: 1 };
    let about = About("a security key with Ed25519, touched", &[]);
    group.accept("sk-ed25519", about, &by(&ed, touch_ed25519("carol", &touch, &message)));
    let about = About("a byte after the counter", &[]);
    group.reject("sk-longer", "sk-ed25519", Code::ParseFieldType, about, &by(&ed, longer));
    let elsewhere = Touch { application: "ssh:", flags: 1 };
    let about =
        About("a security key that was enrolled for another application", &["hum-sk-application"]);
    let what = by(&ed, touch_ed25519("carol", &elsewhere, &message));
    group.reject("sk-application", "sk-ed25519", Code::SignoffRpid, about, &what);
    let carol = Key::of("carol");
    let plain = OURS.blob(&ed, &inner("ssh-ed25519", &carol.raw(&OURS.data(&message)), &[]));
    let about = About("the key of a security key, used without one", &["hum-webauthn-flags"]);
    group.reject(
        "sk-without-hardware",
        "sk-ed25519",
        Code::EnvAlgForbidden,
        about,
        &by(&ed, plain),
    );
}

const ORIGIN: &str = "https://desk.example.org";
const SITE: &str = "desk.example.org";

fn client_data(kind: &str, challenge: &str, origin: &str, more: &str) -> String {
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{more}}}"#)
}

struct Passkey {
    sk: Sk,
    challenge: String,
}

impl Passkey {
    fn new() -> Self {
        Self { sk: Sk::of("carol-passkey"), challenge: base64url(&OURS.data(unsigned().pae())) }
    }

    fn enrolled(&self, blob: Vec<u8>) -> What {
        let What::Envelope(case) = by(&self.sk.public(SITE), blob) else { panic!("an envelope") };
        What::Envelope(Signed { origins: vec![ORIGIN], ..case })
    }

    /// On a page of the origin, with these client data.
    fn on(&self, group: &mut Group<'_>, origin: &str, client_data: String) -> What {
        let page = Page { origin, client_data, extensions: b"" };
        let touch = Touch { application: SITE, flags: 1 };
        self.enrolled(self.sk.assert(&mut group.set.random, &touch, &page))
    }
}

fn passkeys(group: &mut Group<'_>) {
    let passkey = Passkey::new();
    let ours = passkey.challenge.as_str();
    let get = "webauthn.get";
    let good = client_data(get, ours, ORIGIN, "");
    let what = passkey.on(group, ORIGIN, good.clone());
    group.accept("passkey", About("a passkey on the page of the desk", &[]), &what);
    let more = r#","crossOrigin":false,"other_keys_can_be_added_here":"do not compare""#;
    let what = passkey.on(group, ORIGIN, client_data(get, ours, ORIGIN, more));
    let about = About("client data with members that say nothing", &[]);
    group.accept("passkey-more-members", about, &what);
    let nonce = base64url(b"a nonce of the server");
    let other = base64url(&OURS.data(b"another request"));
    let twice = format!(r#","challenge":"{ours}""#);
    let framed = |more| client_data(get, ours, ORIGIN, more);
    let challenge = |challenge: &str| client_data(get, challenge, ORIGIN, "");
    let (created, typeless) = (
        client_data("webauthn.create", ours, ORIGIN, ""),
        format!(r#"{{"challenge":"{ours}","origin":"{ORIGIN}"}}"#),
    );
    let tricks = "hum-webauthn-clientdata-tricks";
    let cases = [
        ("passkey-created", created, Code::SignoffType, "hum-webauthn-type"),
        ("passkey-typeless", typeless, Code::ParseFieldMissing, "hum-webauthn-type"),
        (
            "passkey-other-challenge",
            challenge(&other),
            Code::SignoffChallengeMismatch,
            "hum-webauthn-challenge",
        ),
        (
            "passkey-nonce",
            challenge(&nonce),
            Code::SignoffChallengeMismatch,
            "hum-webauthn-challenge",
        ),
        (
            "passkey-challenge-empty",
            challenge(""),
            Code::SignoffChallengeMismatch,
            "hum-webauthn-challenge",
        ),
        (
            "passkey-challenge-padded",
            challenge(&format!("{ours}=")),
            Code::SignoffChallengeMismatch,
            tricks,
        ),
        (
            "passkey-challenge-twice",
            client_data(get, &other, ORIGIN, &twice),
            Code::ParseDuplicateKey,
            tricks,
        ),
        ("passkey-bom", format!("\u{feff}{good}"), Code::ParseUnicodeInvalid, tricks),
        ("passkey-trailing", format!("{good}x"), Code::ParseTrailingData, tricks),
        (
            "passkey-crossed",
            framed(r#","crossOrigin":true"#),
            Code::SignoffOrigin,
            "hum-webauthn-type",
        ),
        (
            "passkey-framed",
            framed(r#","topOrigin":"https://a.example""#),
            Code::SignoffOrigin,
            "hum-webauthn-type",
        ),
    ];
    for (name, data, code, row) in cases {
        let what = passkey.on(group, ORIGIN, data);
        let about = About("a passkey whose client data are not what was asked", &[row]);
        group.reject(name, "passkey", code, about, &what);
    }
    let origins = [
        ("origin-http", "http://desk.example.org"),
        ("origin-port", "https://desk.example.org:8443"),
        ("origin-subdomain", "https://a.desk.example.org"),
        ("origin-other", "https://evil.example.org"),
        ("origin-slash", "https://desk.example.org/"),
    ];
    for (name, origin) in origins {
        let what = passkey.on(group, origin, client_data(get, ours, origin, ""));
        let about =
            About("a passkey on another page than the policy names", &["hum-webauthn-origin"]);
        group.reject(name, "passkey", Code::SignoffOrigin, about, &what);
    }
    let what = passkey.on(group, ORIGIN, client_data(get, ours, "https://evil.example.org", ""));
    let about = About("client data name another page than the signature", &["hum-webauthn-origin"]);
    group.reject("origin-contradicts", "passkey", Code::SignoffOrigin, about, &what);
    let bob = Sk::of("bob-passkey");
    let page = Page { origin: ORIGIN, client_data: good.clone(), extensions: b"" };
    let touch = Touch { application: SITE, flags: 1 };
    let blob = bob.assert(&mut group.set.random, &touch, &page);
    let about = About(
        "a passkey that the policy does not list",
        &["hum-webauthn-credential-swap", "hum-enrol-then-sign"],
    );
    group.reject(
        "passkey-unknown",
        "passkey",
        Code::EnvKeyUnknown,
        about,
        &passkey.enrolled(blob.clone()),
    );
    // bob's signature under the name of carol's passkey
    let (hers, his) = (passkey.sk.public(SITE).to_ssh_blob(), bob.public(SITE).to_ssh_blob());
    let at = blob.windows(his.len()).position(|window| window == his).unwrap();
    let mut swapped = blob;
    swapped.splice(at..at + his.len(), hers);
    let about =
        About("one passkey's signature under another's name", &["hum-webauthn-credential-swap"]);
    group.reject(
        "passkey-swapped",
        "passkey",
        Code::EnvSignatureInvalid,
        about,
        &passkey.enrolled(swapped),
    );
    let page = Page { origin: ORIGIN, client_data: good, extensions: b"" };
    let elsewhere = Touch { application: "evil.example.org", flags: 1 };
    let blob = passkey.sk.assert(&mut group.set.random, &elsewhere, &page);
    let about = About("a passkey that was made for another site", &["hum-webauthn-rpid"]);
    group.reject("passkey-site", "passkey", Code::SignoffRpid, about, &passkey.enrolled(blob));
    // the site in the blob is put right, the hash that was signed stays
    let page =
        Page { origin: ORIGIN, client_data: client_data(get, ours, ORIGIN, ""), extensions: b"" };
    let elsewhere = Touch { application: "evil.example.org", flags: 1 };
    let blob = passkey.sk.assert(&mut group.set.random, &elsewhere, &page);
    let wrong = passkey.sk.public("evil.example.org").to_ssh_blob();
    let right = passkey.sk.public(SITE).to_ssh_blob();
    let from = blob.windows(wrong.len()).position(|window| window == wrong).unwrap();
    let mut relabelled = blob[..from - 4].to_vec();
    put_string(&mut relabelled, &right);
    relabelled.extend(&blob[from + wrong.len()..]);
    let about =
        About("a passkey signed for another site and says it was this one", &["hum-webauthn-rpid"]);
    group.reject(
        "passkey-site-hidden",
        "passkey",
        Code::EnvSignatureInvalid,
        about,
        &passkey.enrolled(relabelled),
    );
}

fn passkey_flags(group: &mut Group<'_>) {
    let passkey = Passkey::new();
    let data = client_data("webauthn.get", &passkey.challenge, ORIGIN, "");
    let mut asserted = |flags: u8, extensions: &[u8]| {
        let page = Page { origin: ORIGIN, client_data: data.clone(), extensions };
        let touch = Touch { application: SITE, flags };
        passkey.enrolled(passkey.sk.assert(&mut group.set.random, &touch, &page))
    };
    let extensions = b"\xa1\x63abc\xf5";
    let backed_up = asserted(0x1d, b"");
    let extended = asserted(0x81, extensions);
    let rows = &["hum-webauthn-flags"];
    let refused = [
        ("passkey-untouched", asserted(0, b""), Code::SignoffUpRequired),
        ("passkey-attested", asserted(0x41, b""), Code::ParseFieldType),
        ("passkey-extensions-absent", asserted(0x81, b""), Code::ParseFieldType),
        ("passkey-extensions-hidden", asserted(1, extensions), Code::ParseFieldType),
    ];
    group.accept(
        "passkey-backed-up",
        About("a passkey that was checked and is backed up", rows),
        &backed_up,
    );
    group.accept(
        "passkey-extensions",
        About("a passkey with extensions, as its flags say", rows),
        &extended,
    );
    for (name, what, code) in refused {
        let about = About("a passkey whose flags are not as they must be", rows);
        group.reject(name, "passkey", code, about, &what);
    }
}

const SIGNOFF: &str = "new/ship/signoff/carol";
const DESK: &str = "new/ship/authorization";

fn refuse(group: &mut Group<'_>, name: &str, code: Code, row: &str, about: &str, world: &World) {
    group.reject(name, "chain/honest", code, About(about, &[row]), &shipped(world));
}

fn signoff(edit: impl Fn(&mut Signoff) + 'static) -> Builder {
    change().signoff(SIGNOFF, edit)
}

fn sign_offs(group: &mut Group<'_>) {
    let mut world = honest();
    world.drop("new/ship/signoff/bob");
    refuse(
        group,
        "sign-off-missing",
        Code::SignoffMissing,
        "hum-below-threshold",
        "a sign-off that the authorization names is not there",
        &world,
    );
    let world = change().authorization(DESK, |desk| desk.approvers.truncate(1)).build();
    refuse(
        group,
        "one-approver",
        Code::SignoffThresholdNotMet,
        "hum-below-threshold",
        "one of two people approved",
        &world,
    );
    let world = change().authorization(DESK, |desk| desk.approvers.clear()).build();
    refuse(
        group,
        "no-approver",
        Code::SignoffMissing,
        "hum-below-threshold",
        "nobody approved",
        &world,
    );
    let world =
        change().authorization(DESK, |desk| desk.approvers[1] = desk.approvers[0].clone()).build();
    refuse(
        group,
        "one-approver-twice",
        Code::SignoffPersonDuplicate,
        "hum-same-signoff-twice",
        "one sign-off is counted twice",
        &world,
    );
    let by_alice = || {
        change()
            .signed_by("new/ship/request", &["bob"])
            .signoff("new/ship/signoff/bob", |signoff| signoff.person = label("alice"))
            .signed_by("new/ship/signoff/bob", &["alice"])
    };
    group.accept(
        "other-people",
        About("bob proposed, alice and carol approved", &[]),
        &shipped(&by_alice().build()),
    );
    let world = by_alice()
        .signoff(SIGNOFF, |signoff| signoff.person = label("alice"))
        .signed_by(SIGNOFF, &["alice-2"])
        .build();
    let about = About("alice approved twice, with two keys", &["hum-same-person-two-keys"]);
    group.reject(
        "two-keys-of-one-person",
        "other-people",
        Code::SignoffPersonDuplicate,
        about,
        &shipped(&world),
    );
    let world = by_alice().signed_by(SIGNOFF, &["alice-2"]).build();
    let about =
        About("alice signed carol's sign-off with her second key", &["hum-same-person-two-keys"]);
    group.reject(
        "in-anothers-name",
        "other-people",
        Code::SignoffCredentialUnknown,
        about,
        &shipped(&world),
    );
    let world =
        signoff(|signoff| signoff.person = label("alice")).signed_by(SIGNOFF, &["alice"]).build();
    refuse(
        group,
        "proposer-approves",
        Code::SignoffSelfApproval,
        "hum-self-approval",
        "alice proposed and approved",
        &world,
    );
    let world = signoff(|signoff| signoff.person = label("builder"))
        .signed_by(SIGNOFF, &["builder"])
        .build();
    refuse(
        group,
        "machine-approves",
        Code::SignoffRole,
        "hum-robot-counts",
        "a machine approved",
        &world,
    );
    let world = signoff(|signoff| signoff.role = label("qa")).build();
    refuse(
        group,
        "another-role",
        Code::SignoffRole,
        "hum-wrong-role",
        "carol approved in a role that she does not hold",
        &world,
    );
    let world = signoff(|signoff| signoff.decision = Decision::Refuse).build();
    refuse(
        group,
        "refusal-counted",
        Code::SignoffThresholdNotMet,
        "hum-decision-reject",
        "a refusal is counted as an approval",
        &world,
    );
    let world = signoff(|signoff| signoff.expires = at(101_200)).build();
    refuse(
        group,
        "sign-off-expired",
        Code::SignoffStale,
        "hum-stale",
        "the sign-off had expired when the authorization began",
        &world,
    );
    let world = signoff(|signoff| signoff.created = at(100_699)).build();
    refuse(
        group,
        "sign-off-before-request",
        Code::ChainTimeOrder,
        "hum-stale",
        "the sign-off is older than what it is for",
        &world,
    );
    let world = signoff(|_| ()).signed_by(SIGNOFF, &["mallory"]).build();
    refuse(
        group,
        "nobodys-key",
        Code::SignoffCredentialUnknown,
        "hum-enrol-then-sign",
        "a key signed that no policy enrolled",
        &world,
    );
    let short =
        |text: String| text.replace("sign-off-max-age = \"1d\"", "sign-off-max-age = \"100s\"");
    let world = change().policy(short).build();
    group.accept(
        "sign-off-fresh",
        About("sign-offs just young enough", &["hum-stale"]),
        &shipped(&world),
    );
    let world =
        change().policy(short).signoff(SIGNOFF, |signoff| signoff.created = at(101_099)).build();
    let about = About("a sign-off a second too old", &["hum-stale"]);
    group.reject("sign-off-old", "sign-off-fresh", Code::SignoffStale, about, &shipped(&world));
}

fn contents(group: &mut Group<'_>) {
    let edits: [(&str, fn(&mut Signoff)); 7] = [
        ("another-version", |signoff| signoff.release.version = label("1.0.0")),
        ("another-channel", |signoff| signoff.release.channel = label("beta")),
        ("another-instance", |signoff| signoff.release.instance = label("staging")),
        ("another-phase", |signoff| signoff.phase = label("promote")),
        ("another-source", |signoff| signoff.source.revision = Revision::Git("9".repeat(40))),
        ("another-count", |signoff| signoff.artifacts += 1),
        ("other-bytes", |signoff| signoff.bytes += 1),
    ];
    for (name, edit) in edits {
        let about = "what the person read is not what the request says";
        refuse(
            group,
            name,
            Code::SignoffContentMismatch,
            "hum-display-mismatch",
            about,
            &signoff(edit).build(),
        );
    }
    let other = honest().id("new/promote/request");
    let world = signoff(move |signoff| signoff.request = other).build();
    refuse(
        group,
        "another-request",
        Code::SignoffContentMismatch,
        "hum-content-changed",
        "the sign-off is for another request",
        &world,
    );
    let other = honest().id("old/promote/signoff/carol");
    let world = change().authorization(DESK, move |desk| desk.approvers[1].signoff = other).build();
    refuse(
        group,
        "replayed",
        Code::SignoffContentMismatch,
        "hum-cross-release-replay",
        "a sign-off of the older release is offered for the newer",
        &world,
    );
    let world = change().json(SIGNOFF, |json| json.replace("\"artifacts\": 3,", "")).build();
    refuse(
        group,
        "label-only",
        Code::ParseFieldMissing,
        "hum-signs-label-only",
        "a sign-off that does not count what ships",
        &world,
    );
    let world = change().json(SIGNOFF, |json| {
        let at = json.find("\"shortCode\": \"").unwrap() + 14;
        format!("{}AAAA-AAAA{}", &json[..at], &json[at + 9..])
    });
    refuse(
        group,
        "short-code",
        Code::SignoffContentMismatch,
        "hum-display-mismatch",
        "the short code that was read is another's",
        &world.build(),
    );
}

fn word(world: &World, decision: Decision, person: &str, created: u64) -> Signoff {
    let (request, id) = (world.get_request("new/ship/request"), world.id("new/ship/request"));
    Signoff::of(&request, id, decision, label(person), label("releng"), at(created))
}

fn objections(group: &mut Group<'_>) {
    let world = honest();
    let with = |said: Signoff, by: &str| {
        let mut world = world.clone();
        world.add("objection", said, &[by]);
        world
    };
    let refusal = word(&world, Decision::Refuse, "alice", 101_150);
    refuse(
        group,
        "refused",
        Code::SignoffRefused,
        "hum-decision-reject",
        "alice refused",
        &with(refusal.clone(), "alice"),
    );
    let about = About("bob refused in alice's name", &["hum-withdrawal-forged"]);
    group.accept("refusal-forged", about, &shipped(&with(refusal, "bob")));
    let mut withdrawal = word(&world, Decision::Withdraw, "carol", 101_500);
    withdrawal.withdraws = Some(world.id(SIGNOFF));
    refuse(
        group,
        "withdrawn",
        Code::SignoffWithdrawn,
        "hum-withdrawn",
        "carol took her approval back",
        &with(withdrawal.clone(), "carol"),
    );
    let about = About("bob took carol's approval back", &["hum-withdrawal-forged"]);
    group.accept("withdrawal-forged", about, &shipped(&with(withdrawal.clone(), "bob")));
    let mut of_bobs = withdrawal.clone();
    of_bobs.withdraws = Some(world.id("new/ship/signoff/bob"));
    let about = About("carol took bob's approval back", &["hum-withdrawal-forged"]);
    group.accept("withdrawal-of-anothers", about, &shipped(&with(of_bobs, "carol")));
    let mut anew = world.clone();
    let earlier = word(&world, Decision::Approve, "carol", 101_050);
    withdrawal.withdraws = Some(anew.add("earlier", earlier, &["carol"]));
    anew.add("objection", withdrawal, &["carol"]);
    let about = About(
        "carol took an earlier approval back and approved anew",
        &["hum-withdrawal-replayed"],
    );
    group.accept("approved-anew", about, &shipped(&anew));
}
