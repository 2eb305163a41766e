//! OIDC tokens of every kind of platform that signs them.
#![expect(clippy::unwrap_used, reason = "a test may fail loudly")]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair,
};
use custody_core::digest::Sha256;
use custody_core::encoding::base64url;
use custody_core::key::PublicKey;
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::{
    Claim, Context, Platform, Preset, Proof, TokenIssuer, TokenKey, audience, read_jwks, verify,
};
use custody_platforms::attestation;
use custody_platforms::token::Issuer;

fn at() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context { binding: Sha256::of(b"a run"), at: at(), skew: 300 }
}

fn bound() -> String {
    audience(&context().binding)
}

fn of(issuer: &Issuer, preset: Preset) -> TokenIssuer {
    TokenIssuer {
        issuer: issuer.url.clone(),
        keys: read_jwks(&issuer.jwks()).unwrap(),
        audience: None,
        claims: preset.claims(),
    }
}

fn proof(token: &str, issuer: &TokenIssuer) -> Result<Proof, Refusal> {
    verify(&attestation("ci", &[("token", &token)]), &Platform::Token(issuer.clone()), &context())
}

#[track_caller]
fn facts(token: &str, issuer: &TokenIssuer, expected: &[&str]) {
    let proof = proof(token, issuer).unwrap();
    assert!(proof.bound);
    let facts: Vec<String> =
        proof.facts.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    assert_eq!(facts, expected);
}

#[test]
fn each_kind_has_its_facts() {
    let google = Issuer::new("https://accounts.google.com");
    facts(
        &google.google(&bound(), at()),
        &of(&google, Preset::Google),
        &[
            "ci.instance-id = 152986662232938449",
            "ci.instance-name = builder-1",
            "ci.issuer = https://accounts.google.com",
            "ci.project-id = example-project",
            "ci.project-number = 739419398126",
            "ci.service-account = builder@example-project.iam.gserviceaccount.com",
            "ci.subject = 107517467455664443766",
            "ci.zone = europe-west1-b",
        ],
    );
    let github = Issuer::new("https://token.actions.githubusercontent.com");
    facts(
        &github.github(&bound(), at()),
        &of(&github, Preset::Github),
        &[
            "ci.issuer = https://token.actions.githubusercontent.com",
            "ci.job-workflow-ref = example/hello/.github/workflows/build.yml@refs/heads/main",
            "ci.ref = refs/heads/main",
            "ci.repository = example/hello",
            "ci.repository-id = 74",
            "ci.run-attempt = 2",
            "ci.run-id = 1658821493",
            "ci.runner-environment = github-hosted",
            "ci.sha = 0123456789abcdef0123456789abcdef01234567",
            "ci.subject = repo:example/hello:ref:refs/heads/main",
            "ci.workflow-ref = example/hello/.github/workflows/build.yml@refs/heads/main",
        ],
    );
    let gitlab = Issuer::new("https://gitlab.example.org");
    facts(
        &gitlab.gitlab(&bound(), at()),
        &of(&gitlab, Preset::Gitlab),
        &[
            "ci.issuer = https://gitlab.example.org",
            "ci.job-id = 302",
            "ci.pipeline-id = 574",
            "ci.project-id = 22",
            "ci.project-path = example/hello",
            "ci.ref = main",
            "ci.runner-environment = self-hosted",
            "ci.runner-id = 1",
            "ci.sha = 0123456789abcdef0123456789abcdef01234567",
            "ci.subject = project_path:example/hello:ref_type:branch:ref:main",
        ],
    );
    let buildkite = Issuer::new("https://agent.buildkite.com");
    facts(
        &buildkite.buildkite(&bound(), at()),
        &of(&buildkite, Preset::Buildkite),
        &[
            "ci.agent-id = 0184990a-4782-42b5-afc1-16715b10b8ff",
            "ci.build-number = 1",
            "ci.commit = 0123456789abcdef0123456789abcdef01234567",
            "ci.issuer = https://agent.buildkite.com",
            "ci.job-id = 0184990a-477b-4fa8-9968-496074483cee",
            "ci.organization = example",
            "ci.pipeline = hello",
            "ci.subject = organization:example:pipeline:hello:ref:refs/heads/main:commit:0123456789abcdef0123456789abcdef01234567:step:build",
        ],
    );
    let kubernetes = Issuer::new("https://kubernetes.default.svc.cluster.local");
    facts(
        &kubernetes.kubernetes(&bound(), at()),
        &of(&kubernetes, Preset::Kubernetes),
        &[
            "ci.issuer = https://kubernetes.default.svc.cluster.local",
            "ci.namespace = builds",
            "ci.node = node-1",
            "ci.pod = hello-build-x7k2p",
            "ci.pod-uid = 5fd2a7f0",
            "ci.service-account = builder",
            "ci.subject = system:serviceaccount:builds:builder",
        ],
    );
}

#[test]
fn kinds_with_one_issuer_name_it() {
    for (preset, issuer) in [
        (Preset::Google, Some("https://accounts.google.com")),
        (Preset::Github, Some("https://token.actions.githubusercontent.com")),
        (Preset::Gitlab, Some("https://gitlab.com")),
        (Preset::Buildkite, Some("https://agent.buildkite.com")),
        (Preset::Kubernetes, None),
        (Preset::Token, None),
    ] {
        assert_eq!(preset.issuer(), issuer, "{preset:?}");
    }
}

#[test]
fn a_token_has_at_most_64_kib() {
    let issuer = Issuer::new("https://ci.example.org");
    let platform = of(&issuer, Preset::Token);
    let token = |header: usize, claims: usize| {
        let header = format!(r#"{{"alg":"RS256","typ":"{}"}}"#, "x".repeat(header));
        let more = format!(r#""x":"{}""#, "x".repeat(claims));
        issuer.token_with(&header, &issuer.claims(&bound(), "job 7", at(), &more))
    };
    // three bytes are four characters
    let of_length = |length: usize| {
        let claims = (length - token(0, 0).len()) * 3 / 4;
        let sizes = (0..3).flat_map(|header| (claims - 4..claims + 4).map(move |c| (header, c)));
        let mut tokens = sizes.map(|(header, claims)| token(header, claims));
        tokens.find(|token| token.len() == length)
    };
    let longest = of_length(64 << 10).unwrap();
    assert!(proof(&longest, &platform).is_ok());
    assert!(proof(&format!(" {longest}\n"), &platform).is_ok());
    let refusal = proof(&of_length((64 << 10) + 1).unwrap(), &platform).unwrap_err();
    assert_eq!(refusal.code, Code::WorkerIdentityUnverified);
    assert_eq!(refusal.found, "a longer one");
}

#[test]
fn other_claims_are_facts_where_the_policy_names_them() {
    let issuer = Issuer::new("https://ci.example.org");
    let names = ["agent_pool", "attempt", "trusted", "absent", "nothing", "exp"];
    let platform =
        TokenIssuer { claims: names.map(Claim::named).into(), ..of(&issuer, Preset::Token) };
    let token = |more: &str| issuer.token(&issuer.claims(&bound(), "job 7", at(), more));
    facts(
        &token(r#""agent_pool":"a","attempt":3,"trusted":true,"nothing":null,"other":"x""#),
        &platform,
        &[
            "ci.agent-pool = a",
            "ci.attempt = 3",
            "ci.exp = 1772330400",
            "ci.issuer = https://ci.example.org",
            "ci.subject = job 7",
            "ci.trusted = true",
        ],
    );
    for more in [r#""attempt":[3]"#, r#""attempt":{}"#, r#""attempt":3.5"#, r#""attempt":-3"#] {
        assert_eq!(code(&token(more), &platform), Code::WorkerIdentityUnverified, "{more}");
    }
}

fn code(token: &str, issuer: &TokenIssuer) -> Code {
    proof(token, issuer).unwrap_err().code
}

#[test]
fn a_token_for_another_run_is_refused() {
    let issuer = Issuer::new("https://ci.example.org");
    let platform = of(&issuer, Preset::Token);
    let token = |aud: &str| {
        let claims = issuer.claims("AUDIENCE", "job 7", at(), r#""x":1"#);
        issuer.token(&claims.replace("\"AUDIENCE\"", aud))
    };
    let ours = format!("\"{}\"", bound());
    assert!(proof(&token(&ours), &platform).is_ok());
    assert!(proof(&token(&format!("[{ours}]")), &platform).is_ok());
    let other = format!("\"{}\"", audience(&Sha256::of(b"another run")));
    for aud in [
        &other,
        "\"https://example.org\"",
        "\"\"",
        "[]",
        "7",
        &format!("[{ours},\"https://example.org\"]"),
        &format!("[[{ours}]]"),
    ] {
        let refusal = proof(&token(aud), &platform).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityMismatch, "{aud}");
        assert_eq!(refusal.at, "ci.token.aud");
    }
    let absent = issuer.claims("", "job 7", at(), "\"x\":1").replace("\"aud\":\"\",", "");
    assert_eq!(code(&issuer.token(&absent), &platform), Code::WorkerIdentityUnverified);

    // where nobody can choose an audience, the word is not bound to the run
    let fixed = TokenIssuer { audience: Some("https://example.org".to_owned()), ..platform };
    assert!(!proof(&token("\"https://example.org\""), &fixed).unwrap().bound);
    assert_eq!(code(&token(&ours), &fixed), Code::WorkerIdentityMismatch);
}

#[test]
fn a_token_holds_for_a_time() {
    let issuer = Issuer::new("https://ci.example.org");
    let platform = of(&issuer, Preset::Token);
    let now = at().unix();
    let verdict = |times: &str| {
        let claims = format!(r#"{{"iss":"{}","aud":"{}","sub":"x",{times}}}"#, issuer.url, bound());
        proof(&issuer.token(&claims), &platform).map_err(|refusal| refusal.code)
    };
    let times = |iat: u64, nbf: u64, exp: u64| format!(r#""iat":{iat},"nbf":{nbf},"exp":{exp}"#);
    for good in [
        times(now, now, now + 1),
        times(now + 300, now, now + 600),
        times(now, now + 300, now + 600),
        times(now - 9000, now - 9000, now - 299),
        format!(r#""iat":{now},"exp":{}"#, now + 1),
    ] {
        assert!(verdict(&good).is_ok(), "{good}");
    }
    for bad in [
        times(now + 301, now, now + 600),
        times(now, now + 301, now + 600),
        times(now - 9000, now - 9000, now - 300),
        times(now, now, u64::MAX),
        format!(r#""iat":{now},"exp":{}.5"#, now + 1),
        format!(r#""iat":{now},"exp":"{}""#, now + 1),
        format!(r#""iat":{now}"#),
        format!(r#""iat":{now},"nbf":null,"exp":{}"#, now + 1),
        format!(r#""exp":{}"#, now + 1),
        format!(r#""iat":{now},"exp":{0},"exp":{0}"#, now + 1),
    ] {
        assert_eq!(verdict(&bad), Err(Code::WorkerIdentityUnverified), "{bad}");
    }
}

#[test]
fn the_algorithm_is_the_keys() {
    let issuer = Issuer::new("https://ci.example.org");
    let platform = of(&issuer, Preset::Token);
    let claims = issuer.claims(&bound(), "job 7", at(), "\"x\":1");
    let id = issuer.key_id();
    let refused = |header: &str| {
        let refusal = proof(&issuer.token_with(header, &claims), &platform).unwrap_err();
        assert_eq!(refusal.code, Code::WorkerIdentityUnverified, "{header}");
        refusal
    };
    for alg in ["none", "None", "", "HS256", "RS512", "PS256", "ES256", "EdDSA", "rs256"] {
        refused(&format!(r#"{{"alg":"{alg}","kid":"{id}"}}"#));
    }
    for header in [
        format!(r#"{{"kid":"{id}"}}"#),
        format!(r#"{{"alg":"RS256","alg":"RS256","kid":"{id}"}}"#),
        format!(r#"{{"alg":"RS256","kid":"{id}","crit":["exp"]}}"#),
        format!(r#"{{"alg":"RS256","kid":"{id}","crit":[]}}"#),
        r#"{"alg":"RS256","kid":"another"}"#.to_owned(),
        r#"{"alg":"RS256","kid":null}"#.to_owned(),
        format!(r#"{{"alg":["RS256"],"kid":"{id}"}}"#),
        String::new(),
    ] {
        refused(&header);
    }
    // what a token brings along is no key
    let forger = Issuer::new("https://ci.example.org");
    let header = format!(r#"{{"alg":"RS256","kid":"{id}","jwk":{}}}"#, "{}");
    let by_forger = forger.token_with(&header, &claims);
    assert_eq!(code(&by_forger, &platform), Code::WorkerIdentityUnverified);
    // the key as a shared secret, no signature, another's, and claims of another
    let token = issuer.token(&claims);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = base64url(claims.replace("job 7", "job 8").as_bytes());
    for bad in [
        format!("{signed}."),
        signed.to_owned(),
        format!("{signed}.{}", base64url(&[0; 256])),
        format!("{header}.{other}.{signature}"),
        format!("{token}.{signature}"),
        format!("{token}="),
        format!("{token}\u{c}"),
        format!("{}.{signature}", signed.replace('.', "..")),
        String::new(),
    ] {
        assert_eq!(code(&bad, &platform), Code::WorkerIdentityUnverified, "{bad}");
    }
    assert!(proof(&token, &platform).is_ok());
    assert!(proof(&format!(" \t{token}\r\n"), &platform).is_ok());
    let without_id = issuer.token_with(r#"{"alg":"RS256"}"#, &claims);
    assert!(proof(&without_id, &platform).is_ok());
    // another issuer by the same key
    let elsewhere = TokenIssuer { issuer: "https://ci.example.org/".to_owned(), ..platform };
    assert_eq!(code(&token, &elsewhere), Code::WorkerIdentityUnverified);
}

#[test]
fn keys_on_curves_sign_too() {
    let random = SystemRandom::new();
    let [p256, p384] =
        [&ECDSA_P256_SHA256_FIXED_SIGNING, &ECDSA_P384_SHA384_FIXED_SIGNING].map(|algorithm| {
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap()
        });
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed25519 = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    let sign_ec = |key: &EcdsaKeyPair, text: &str| {
        key.sign(&random, text.as_bytes()).unwrap().as_ref().to_vec()
    };
    let xy = |point: &[u8], crv: &str, alg: &str| {
        let (x, y) = point[1..].split_at(point.len() / 2);
        format!(
            r#"{{"kty":"EC","crv":"{crv}","alg":"{alg}","kid":"{alg}","x":"{}","y":"{}"}}"#,
            base64url(x),
            base64url(y)
        )
    };
    let set = format!(
        r#"{{"keys":[{},{},{{"kty":"OKP","crv":"Ed25519","kid":"EdDSA","x":"{}"}}]}}"#,
        xy(p256.public_key().as_ref(), "P-256", "ES256"),
        xy(p384.public_key().as_ref(), "P-384", "ES384"),
        base64url(ed25519.public_key().as_ref())
    );
    let keys = read_jwks(&set).unwrap();
    assert!(matches!(keys[1], TokenKey { id: Some(_), key: PublicKey::EcdsaP384(_) }));
    let claims = Issuer::new("https://ci.example.org").claims(&bound(), "x", at(), "\"x\":1");
    let platform = TokenIssuer {
        issuer: "https://ci.example.org".to_owned(),
        keys,
        audience: None,
        claims: vec![],
    };
    let token = |alg: &str, kid: &str, sign: &dyn Fn(&str) -> Vec<u8>| {
        let header = format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        format!("{signed}.{}", base64url(&sign(&signed)))
    };
    let by_p256 = |text: &str| sign_ec(&p256, text);
    let by_p384 = |text: &str| sign_ec(&p384, text);
    let by_ed25519 = |text: &str| ed25519.sign(text.as_bytes()).as_ref().to_vec();
    for (alg, sign) in [
        ("ES256", &by_p256 as &dyn Fn(&str) -> Vec<u8>),
        ("ES384", &by_p384),
        ("EdDSA", &by_ed25519),
    ] {
        assert!(proof(&token(alg, alg, sign), &platform).is_ok(), "{alg}");
        for other in ["ES256", "ES384", "EdDSA"].iter().filter(|other| **other != alg) {
            assert!(proof(&token(other, alg, sign), &platform).is_err(), "{alg} as {other}");
            assert!(
                proof(&token(alg, other, sign), &platform).is_err(),
                "{alg} with {other}'s key"
            );
        }
    }
}

#[test]
fn a_key_set_is_held_to_the_rules_for_keys() {
    let issuer = Issuer::new("https://ci.example.org");
    let set = issuer.jwks();
    assert_eq!(read_jwks(&set).unwrap()[0].key, issuer.public_key());
    assert_eq!(read_jwks(r#"{"keys":[]}"#).unwrap(), []);
    let unlike = |from: &str, to: &str| {
        assert!(set.contains(from), "{from}");
        set.replace(from, to)
    };
    for bad in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        unlike("\"kty\":\"RSA\"", "\"kty\":\"oct\""),
        unlike("\"kty\":\"RSA\"", "\"kty\":\"EC\""),
        unlike("\"use\":\"sig\"", "\"use\":\"enc\""),
        unlike("\"e\":\"AQAB\"", "\"e\":\"Aw\""),
        unlike("\"e\":\"AQAB\"", "\"e\":\"AQAB=\""),
        unlike("\"e\":\"AQAB\"", "\"f\":\"AQAB\""),
        unlike("\"n\":\"", "\"n\":\"\",\"m\":\""),
        format!(r#"{{"keys":[{{"kty":"RSA","n":"{}","e":"AQAB"}}]}}"#, base64url(&[0xc3; 128])),
        r#"{"keys":[{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}]}"#.to_owned(),
        format!(
            r#"{{"keys":[{{"kty":"EC","crv":"P-256","x":"{0}","y":"{0}"}}]}}"#,
            base64url(&[4; 32])
        ),
        format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","x":"{}"}}]}}"#, base64url(&[0; 32])),
        r#"{"keys":[7]}"#.to_owned(),
    ] {
        assert!(read_jwks(&bad).is_err(), "{bad}");
    }
    let one = set.strip_prefix("{\"keys\":[").and_then(|set| set.strip_suffix("]}")).unwrap();
    let many = |count| read_jwks(&format!("{{\"keys\":[{}]}}", vec![one; count].join(",")));
    assert_eq!(many(64).unwrap().len(), 64);
    for count in [65, 66] {
        let refusal = many(count).unwrap_err();
        assert_eq!((refusal.code, refusal.at.as_str()), (Code::PolicyInvalid, "keys"), "{count}");
        assert_eq!(refusal.found, count.to_string());
    }
}
