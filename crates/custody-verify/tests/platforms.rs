//! Platforms in the policy: what their word is held against stands there, and nowhere else.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::statement::Label;
use custody_core::time::Time;
use custody_machine::{Context, Platform, audience, nonce};
use custody_platforms::ec2::LEGACY;
use custody_platforms::token::Issuer;
use custody_platforms::{Certified, Signer, attestation, azure, ec2};
use custody_verify::Policy;
use custody_world::{Key, policy_text};

fn with(tables: &str) -> Option<Policy> {
    Policy::parse(&format!("{}\n{tables}", policy_text())).ok()
}

fn platform(policy: &Policy, name: &str) -> Platform {
    policy.platforms[&name.parse::<Label>().unwrap()].clone()
}

#[track_caller]
fn refused(tables: &str, code: Code, place: &str) {
    let text = format!("{}\n{tables}", policy_text());
    let Err(fault) = Policy::parse(&text) else {
        panic!("accepted, where {code} was expected at {place}")
    };
    assert_eq!(fault.code, code, "{fault}");
    let line = text.lines().nth(fault.line - 1).unwrap();
    let found: String = line.chars().skip(fault.column - 1).collect();
    assert!(found.starts_with(place), "{fault}: {found}");
    assert!(!fault.remedy.is_empty() && !fault.message.is_empty());
}

fn at() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn context() -> Context {
    Context { binding: Sha256::of(b"a run"), at: at(), skew: 300 }
}

/// A platform as it is written proves what it should, and is bound where it can be.
#[test]
fn platforms_of_the_policy_prove_facts() {
    let amazon = Signer::authority("Amazon");
    let authority = Signer::authority("an authority");
    let issuers = ["google", "github", "gitlab", "buildkite", "kubernetes"].map(|kind| {
        let url = match kind {
            "google" => "https://accounts.google.com",
            "github" => "https://token.actions.githubusercontent.com",
            "buildkite" => "https://agent.buildkite.com",
            _ => "https://issuer.example.org",
        };
        (kind, Issuer::new(url))
    });
    let mut tables = format!(
        "[platforms.ec2]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"eu-west-1\", \"eu-central-1\"], certificate = \"\"\"\n{}\"\"\" }}]\n\
         [platforms.clouds]\nkind = \"azure\"\nauthorities = [\"\"\"{}\"\"\"]\nnames = [\"metadata.azure.com\"]\n\
         [platforms.tpm]\nkind = \"tpm\"\nkeys = [\"\"\"{}\"\"\"]\n\
         [platforms.fixed]\nkind = \"token\"\nissuer = \"https://ci\"\naudience = \"x\"\nkeys = [\"{}\"]\nclaims = [\"agent_pool\"]\n",
        amazon.certificate_pem(),
        authority.certificate_pem(),
        amazon.public_key().to_pem(),
        Key::of("an issuer").public.to_openssh(),
    );
    for (kind, issuer) in &issuers {
        tables += &format!("[platforms.{kind}]\nkind = \"{kind}\"\njwks = '{}'\n", issuer.jwks());
        if ["gitlab", "kubernetes"].contains(kind) {
            tables += &format!("issuer = \"{}\"\n", issuer.url);
        }
    }
    let policy = with(&tables).unwrap();
    assert_eq!(policy.platforms.len(), 9);
    let verify = |name: &str, part: &[(&str, &dyn AsRef<[u8]>)]| {
        let proof =
            custody_machine::verify(&attestation(name, part), &platform(&policy, name), &context());
        let proof = proof.unwrap_or_else(|refusal| panic!("{refusal}"));
        assert_eq!(proof.bound, platform(&policy, name).binds());
        proof
    };
    let document = ec2::document("i-0123456789abcdef0", "ami-0fedcba9876543210", "eu-west-1");
    let message = ec2::rsa2048(&document, &amazon);
    let proof = verify("ec2", &[("document", &document), ("rsa2048", &message)]);
    assert_eq!(proof.facts["ec2.image-id"], "ami-0fedcba9876543210");
    assert!(!proof.bound);
    let content = azure::content("a machine", &nonce(&context().binding), at());
    let message = azure::attested(&content, &azure::signer(&authority), &[]);
    let proof = verify("clouds", &[("attested", &message)]);
    assert_eq!(proof.facts["clouds.vm-id"], "a machine");
    for (kind, issuer) in &issuers {
        let aud = audience(&context().binding);
        let token = match *kind {
            "google" => issuer.google(&aud, at()),
            "github" => issuer.github(&aud, at()),
            "gitlab" => issuer.gitlab(&aud, at()),
            "buildkite" => issuer.buildkite(&aud, at()),
            _ => issuer.kubernetes(&aud, at()),
        };
        let proof = verify(kind, &[("token", &token)]);
        assert_eq!(proof.facts[&format!("{kind}.issuer")], issuer.url);
        assert!(proof.bound);
    }
    let Platform::Token(fixed) = platform(&policy, "fixed") else { panic!("tokens") };
    assert_eq!((fixed.audience.as_deref(), &*fixed.claims[0].fact), (Some("x"), "agent-pool"));
    assert!(!platform(&policy, "fixed").binds());
}

#[test]
fn what_a_kind_does_not_have_is_refused_with_its_place() {
    let (invalid, key) = (Code::PolicyInvalid, Key::of("an issuer").public.to_openssh());
    let ec2 = |more: &str| format!("[platforms.x]\nkind = \"ec2\"\n{more}");
    let token = |more: &str| format!("[platforms.x]\nkind = \"token\"\n{more}");
    refused("[platforms.x]\nkind = \"cloud\"", invalid, "\"cloud\"");
    refused("[platforms.x]", invalid, "[platforms.x]");
    refused(&ec2("evil = 1"), invalid, "evil");
    refused(&ec2(""), invalid, "x");
    refused(&ec2("certificates = []"), invalid, "[]");
    refused(&ec2("keys = [\"a\"]"), invalid, "[\"a\"]");
    refused(&ec2("certificates = [{ certificate = \"a\" }]"), invalid, "{ cert");
    for (certificate, place) in [("a", "\"a\""), ("-----BEGIN CERTIFICATE-----", "\"---")] {
        let entry =
            format!("certificates = [{{ regions = [\"a\"], certificate = \"{certificate}\" }}]");
        refused(&ec2(&entry), invalid, place);
    }
    let pem = Signer::authority("Amazon").certificate_pem();
    let entry = |regions: &str, pem: &str| {
        ec2(&format!("certificates = [{{ regions = {regions}, certificate = '''{pem}''' }}]"))
    };
    assert!(with(&entry("[\"a\"]", &pem)).is_some());
    refused(&entry("[]", &pem), invalid, "[]");
    refused(&entry("[\"a\", \"a\"]", &pem), invalid, "\"a\"]");
    refused(&entry("[\"a b\"]", &pem), invalid, "\"a b\"");
    refused(&entry("[\"a\"]", &format!("{pem}{pem}")), invalid, "'''");
    refused(&entry("[\"a\"]", &pem.replacen("MII", "MIJ", 1)), invalid, "'''");
    refused(&entry("[\"a\"]", &pem).replace(".x]", ".\"a.b\"]"), invalid, "\"a.b\"");

    let keys = format!("keys = [\"{key}\"]");
    let issuer = "issuer = \"https://ci\"";
    assert!(with(&token(&format!("{issuer}\n{keys}"))).is_some());
    refused(&token(&keys), invalid, "x");
    refused(&token(issuer), invalid, "x");
    refused(&token(&format!("issuer = \"\"\n{keys}")), invalid, "\"\"");
    refused(&token(&format!("{issuer}\nkeys = []")), invalid, "[]");
    refused(&token(&format!("{issuer}\nkeys = [\"{key}\", \"{key}\"]")), invalid, "\"ssh-");
    refused(&token(&format!("{issuer}\njwks = '{{}}'")), invalid, "'{}'");
    refused(&token(&format!("{issuer}\njwks = '{{\"keys\":[]}}'")), invalid, "x");
    for claim in ["issuer", "subject", "a.b", "a b", ""] {
        let table = token(&format!("{issuer}\n{keys}\nclaims = [\"{claim}\"]"));
        refused(&table, invalid, &format!("\"{claim}\""));
    }
    refused(&token(&format!("{issuer}\n{keys}\nclaims = [\"a_b\", \"a-b\"]")), invalid, "\"a-b\"");
    let google = format!("[platforms.x]\nkind = \"google\"\n{keys}\n");
    assert!(with(&google).is_some());
    refused(&format!("{google}audience = \"x\""), invalid, "\"x\"");
    refused(&format!("{google}{issuer}"), invalid, "\"https");
    refused(&format!("{google}claims = [\"zone\"]"), invalid, "\"zone\"");
    refused(&format!("[platforms.x]\nkind = \"tpm\"\n{keys}"), invalid, "\"ssh-");
    refused("[platforms.x]\nkind = \"tpm\"", invalid, "x");

    let azure = |pem: &str, name: &str| {
        format!(
            "[platforms.x]\nkind = \"azure\"\nauthorities = ['''{pem}''']\nnames = [\"{name}\"]"
        )
    };
    assert!(with(&azure(&pem, "metadata.azure.com")).is_some());
    for name in ["", ".", "com", "*.azure.com", "Azure.com", ".azure.com", "azure.com."] {
        refused(&azure(&pem, name), invalid, &format!("\"{name}\""));
    }
    let leaf = Signer::own(&Certified::new("x", false)).certificate_pem();
    refused(&azure(&leaf, "metadata.azure.com"), invalid, "'''");
    refused("[platforms.x]\nkind = \"azure\"\nnames = [\"a.b\"]", invalid, "x");
}

/// Short keys count only where the policy says so, and only for EC2.
#[test]
fn weak_keys_are_refused_or_allowed_by_name() {
    let weak = Code::PolicyKeyWeak;
    let ec2 = |pem: &str, more: &str| {
        format!(
            "[platforms.x]\nkind = \"ec2\"\ncertificates = [{{ regions = [\"a\"], certificate = '''{pem}''' }}]\n{more}"
        )
    };
    refused(&ec2(LEGACY.0, ""), weak, "'''");
    refused(&ec2(LEGACY.0, "allow-rsa-1024 = false"), weak, "'''");
    assert!(with(&ec2(LEGACY.0, "allow-rsa-1024 = true")).is_some());
    let strong = Signer::authority("Amazon").certificate_pem();
    refused(&ec2(&strong, "allow-rsa-1024 = true"), Code::PolicyInvalid, "true");
    let azure = format!(
        "[platforms.x]\nkind = \"azure\"\nauthorities = ['''{}''']\nnames = [\"a.b\"]",
        LEGACY.0
    );
    refused(&azure, Code::PolicyInvalid, "'''");
    let n = custody_core::encoding::base64url(&[0xc3; 128]);
    let jwks = format!("jwks = '{{\"keys\":[{{\"kty\":\"RSA\",\"n\":\"{n}\",\"e\":\"AQAB\"}}]}}'");
    refused(&format!("[platforms.x]\nkind = \"google\"\n{jwks}"), weak, "'{");
    // the key of a principal is nobody else's
    let builder = Key::of("builder").public.to_openssh();
    let table = format!("[platforms.x]\nkind = \"google\"\nkeys = [\"{builder}\"]");
    refused(&table, Code::PolicyKeyDuplicate, "\"ssh-");
}
