//! Tokens of OIDC, in every algorithm.

use custody_core::digest::Sha256;
use custody_core::encoding::base64url;
use custody_core::time::Time;
use custody_machine::audience;
use custody_platforms::attestation;
use custody_platforms::token::Issuer;
use custody_world::Key;

use super::{MISMATCH, Platforms, UNVERIFIED, issuer, now, plain, refuse, stranger};
use crate::case::{About, Group};
use crate::keys::{Ecdsa, Random};

pub(super) fn tokens(group: &mut Group<'_>, platforms: &Platforms) {
    let audience = audience(&Platforms::binding());
    let case =
        |platform: &str, token: &str| platforms.case(attestation(platform, &[("token", &token)]));
    let google = issuer("https://accounts.google.com");
    let github = issuer("https://token.actions.githubusercontent.com");
    let cluster = issuer("https://cluster.example.org");
    let (gitlab, buildkite) = (issuer("https://gitlab.com"), issuer("https://agent.buildkite.com"));
    let good = github.github(&audience, now());
    for (name, token) in [
        ("google", google.google(&audience, now())),
        ("github", good.clone()),
        ("gitlab", gitlab.gitlab(&audience, now())),
        ("buildkite", buildkite.buildkite(&audience, now())),
        ("kubernetes", cluster.kubernetes(&audience, now())),
    ] {
        let about = format!("a token of {name}");
        group.accept(&format!("token-{name}"), About(&about, &[]), &case(name, &token));
    }
    let about = About("a token of another run", &["wrk-iid-replayed"]);
    let other = custody_machine::audience(&Sha256::of(b"another run"));
    let replayed = case("github", &github.github(&other, now()));
    group.reject("token-replayed", "token-github", MISMATCH, about, &replayed);
    let stranger = Issuer::of(&github.url, stranger());
    let claims =
        github.claims(&audience, "repo:example/hello", now(), r#""repository":"example/hello""#);
    let strange =
        stranger.token_with(&format!(r#"{{"alg":"RS256","kid":"{}"}}"#, github.key_id()), &claims);
    let about = About("by somebody else, under the issuer's id", &["wrk-imds-spoofed"]);
    group.reject("token-strange", "token-github", UNVERIFIED, about, &case("github", &strange));
    let header = |more: &str| format!(r#"{{"alg":"RS256"{more}}}"#);
    let changed = |from: &str, to: &str| github.token(&claims.replacen(from, to, 1));
    let from = now().unix();
    let list = format!("[\"{audience}\",\"builds\"]");
    for (name, code, about, token) in [
        ("token-issuer", UNVERIFIED, "another issuer", gitlab.gitlab(&audience, now())),
        (
            "token-kid",
            UNVERIFIED,
            "another id of the key",
            github.token_with(&header(",\"kid\":\"x\""), &claims),
        ),
        (
            "token-crit",
            UNVERIFIED,
            "something critical",
            github.token_with(&header(",\"crit\":[\"b64\"]"), &claims),
        ),
        (
            "token-none",
            UNVERIFIED,
            "no algorithm",
            github.token_with("{\"alg\":\"none\"}", &claims),
        ),
        (
            "token-hs256",
            UNVERIFIED,
            "an algorithm of shared keys",
            github.token_with("{\"alg\":\"HS256\"}", &claims),
        ),
        (
            "token-over",
            UNVERIFIED,
            "over",
            github.github(&audience, "2026-02-28T23:54:59Z".parse().unwrap()),
        ),
        ("token-not-yet", UNVERIFIED, "not yet", github.github(&audience, now().plus(301))),
        ("token-no-end", UNVERIFIED, "without end", changed("\"exp\"", "\"expires\"")),
        (
            "token-fraction",
            UNVERIFIED,
            "with a time in pieces",
            changed(&format!("\"iat\":{from}"), &format!("\"iat\":{from}.0")),
        ),
        (
            "token-two-audiences",
            MISMATCH,
            "for somebody else too",
            changed(&format!("\"{audience}\""), &list),
        ),
        ("token-no-subject", UNVERIFIED, "without subject", changed("\"sub\"", "\"subject\"")),
        (
            "token-fact-list",
            UNVERIFIED,
            "a fact that is a list",
            changed("\"example/hello\"", "[\"example/hello\"]"),
        ),
        (
            "token-claim-twice",
            UNVERIFIED,
            "a claim twice",
            changed("\"sub\"", "\"sub\":\"x\",\"sub\""),
        ),
        ("token-padded", UNVERIFIED, "with padding", format!("{good}=")),
        ("token-four-parts", UNVERIFIED, "with a fourth part", format!("{good}.e30")),
    ] {
        refuse(group, name, "token-github", code, about, &case("github", &token));
    }
    let untimed = changed("\"iat\"", "\"issued\"");
    let about = "without beginning";
    refuse(
        group,
        "token-no-beginning",
        "token-github",
        UNVERIFIED,
        about,
        &case("github", &untimed),
    );
    let flat = google.claims(&audience, "1", now(), "\"google\":\"x\"");
    let about = About("what should be around claims is no object: they are not there", &[]);
    group.accept("token-flat", about, &case("google", &google.token(&flat)));
    let bare = google.claims(&audience, "1", now(), "\"google\":null");
    let about = About("claims that are not there give no facts", &[]);
    group.accept("token-bare", about, &case("google", &google.token(&bare)));
    let about = About("no id of the key: all are tried", &[]);
    group.accept("token-no-kid", about, &case("github", &github.token_with(&header(""), &claims)));
    let about = About("as late as the skew allows", &[]);
    let last = github.github(&audience, "2026-02-28T23:55:01Z".parse().unwrap());
    group.accept("token-just-before", about, &case("github", &format!(" {last}\n")));
    forms(group, platforms);
    let about = "of one kind, to another";
    refuse(group, "token-other-kind", "token-google", UNVERIFIED, about, &case("google", &good));
}

/// Members that are there and say nothing, times at the end of time, and tokens as long as they may be.
fn forms(group: &mut Group<'_>, platforms: &Platforms) {
    let audience = audience(&Platforms::binding());
    let case = |token: &str| platforms.case(attestation("github", &[("token", &token)]));
    let github = issuer("https://token.actions.githubusercontent.com");
    let claims = github.claims(&audience, "repo:example/hello", now(), r#""event_name":"push""#);
    let (from, until) = (now().unix(), now().plus(3600).unix());
    let changed = |from: &str, to: &str| {
        assert!(claims.contains(from), "{from}");
        github.token(&claims.replacen(from, to, 1))
    };
    let exp = |moment: u64| changed(&format!("\"exp\":{until}"), &format!("\"exp\":{moment}"));
    let nbf = format!("\"nbf\":{from},");
    let last: Time = "9999-12-31T23:59:59Z".parse().unwrap();
    let about = About("without a time before which it does not hold", &[]);
    group.accept("token-no-nbf", about, &case(&changed(&nbf, "")));
    let about = About("until the end of time", &[]);
    group.accept("token-last", about, &case(&exp(last.unix())));
    let kid = r#"{"alg":"RS256","kid":null}"#;
    for (name, control, about, token) in [
        ("token-nbf-null", "token-no-nbf", "null as a time", changed(&nbf, "\"nbf\":null,")),
        (
            "token-kid-null",
            "token-no-kid",
            "null as the id of a key",
            github.token_with(kid, &claims),
        ),
        ("token-after-last", "token-last", "a time that is none", exp(last.unix() + 1)),
        (
            "token-no-audience",
            "token-github",
            "for nobody",
            changed(&format!("\"aud\":\"{audience}\","), ""),
        ),
        (
            "token-form-feed",
            "token-github",
            "a blank that is none",
            format!("{}\u{c}", github.token(&claims)),
        ),
    ] {
        refuse(group, name, control, UNVERIFIED, about, &case(&token));
    }
    let sized = |size: usize| {
        let with = |jti: usize, typ: usize| {
            let header = format!(r#"{{"alg":"RS256","typ":"{}"}}"#, "J".repeat(typ));
            let more = format!(r#""jti":"{}""#, "x".repeat(jti));
            github
                .token_with(&header, &github.claims(&audience, "repo:example/hello", now(), &more))
        };
        let room = size - with(0, 0).len();
        // four letters are three bytes
        let near = (0..4).flat_map(|typ| (0..8).map(move |less| (room / 4 * 3 - less, typ)));
        let tokens = near.map(|(jti, typ)| with(jti, typ));
        tokens.into_iter().find(|token| token.len() == size).unwrap()
    };
    let about = About("as long as a token may be, and blanks around it", &[]);
    group.accept("token-long", about, &case(&format!("\n {}\t\r\n", sized(64 << 10))));
    let about = "longer than a token may be";
    refuse(group, "token-too-long", "token-long", UNVERIFIED, about, &case(&sized((64 << 10) + 1)));

    let claim = "claims = [\"event_name\"]";
    assert!(platforms.policy.contains(claim));
    let policy = platforms.policy.replace(claim, "claims = [\"event_name\", \"exp\", \"jti\"]");
    let token = github.github(&audience, now());
    let case = Platforms::under(&policy, attestation("github", &[("token", &token)]));
    let about = About("a fact that is one of the claims of every token", &[]);
    group.accept("token-claim-exp", about, &case);
}

/// A token of the runner that has keys of all kinds.
fn runner(header: &str, audience: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let claims = issuer("https://runner.example.org").claims(
        audience,
        "runner-7",
        now(),
        r#""pool":"trusted builds","attempt":2,"trusted":true,"other":{"a":1}"#,
    );
    let text = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
    let signature = sign(text.as_bytes());
    format!("{text}.{}", base64url(&signature))
}

pub(super) fn algorithms(group: &mut Group<'_>, platforms: &Platforms) {
    let case = |token: &str| platforms.case(attestation("runner", &[("token", &token)]));
    let (p256, p384) = (Ecdsa::p256("issuer"), Ecdsa::p384("issuer"));
    let es256 = |random: &mut Random, message: &[u8]| plain(&p256.sign(random, message), 32);
    let token =
        runner(r#"{"alg":"EdDSA","kid":"ed"}"#, "builds", |text| Key::of("issuer").raw(text));
    group.accept(
        "token-ed25519",
        About("an issuer with Ed25519, and an audience of its own", &[]),
        &case(&token),
    );
    let random = &mut group.set.random;
    let good = runner(r#"{"alg":"ES256","kid":"es256"}"#, "builds", |text| es256(random, text));
    let wide = runner(r#"{"alg":"ES384"}"#, "builds", |text| plain(&p384.sign(random, text), 48));
    let der = runner(r#"{"alg":"ES256"}"#, "builds", |text| p256.sign(random, text));
    let other = runner(r#"{"alg":"ES384","kid":"es256"}"#, "builds", |text| es256(random, text));
    let audience = runner(r#"{"alg":"ES256"}"#, "others", |text| es256(random, text));
    group.accept("token-es256", About("an issuer with P-256", &[]), &case(&good));
    group.accept("token-es384", About("an issuer with P-384", &[]), &case(&wide));
    for (name, code, about, token) in [
        ("token-der", UNVERIFIED, "a signature in DER", der),
        ("token-other-curve", UNVERIFIED, "the algorithm of another curve", other),
        ("token-audience", MISMATCH, "another audience than the policy's", audience),
    ] {
        refuse(group, name, "token-es256", code, about, &case(&token));
    }
}
