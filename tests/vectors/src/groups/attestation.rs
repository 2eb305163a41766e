//! What platforms sign of machines, of each kind, and what nobody signed so.

mod certificates;
mod encodings;
mod quotes;
mod tokens;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::encoding::{base64_decode, base64url};
use custody_core::key::PublicKey;
use custody_core::statement::{Attestation, binding};
use custody_core::time::Time;
use custody_machine::{Context, nonce};
use custody_platforms::ec2::LEGACY;
use custody_platforms::token::Issuer;
use custody_platforms::{Certified, Cms, Signer, attestation, azure, ec2};
use custody_verify::Policy;
use custody_world::Key;

use super::policy::small;
use crate::case::{About, Attested, Group, Set, What};
use crate::keys::{Ecdsa, Rsa};

const UNVERIFIED: Code = Code::WorkerIdentityUnverified;
const MISMATCH: Code = Code::WorkerIdentityMismatch;
const REGISTERS: [(u8, [u8; 32]); 3] = [(0, [1; 32]), (7, [2; 32]), (16, [3; 32])];

/// The keys of those who sign for platforms, made for this. The same one signs for several.
pub(super) fn pkcs8(index: usize) -> Vec<u8> {
    base64_decode(include_str!("../../rsa-platforms.txt").lines().nth(index).unwrap()).unwrap()
}

/// Amazon in one region.
pub(super) fn amazon() -> Signer {
    Signer::fixed(&pkcs8(0), &Certified::new("Amazon", true))
}

fn stranger() -> Signer {
    Signer::fixed(&pkcs8(1), &Certified::new("Amazon", true))
}

fn now() -> Time {
    "2026-03-01T01:00:00Z".parse().unwrap()
}

fn instance() -> String {
    ec2::document("i-0123456789abcdef0", "ami-0fedcba9876543210", "eu-central-1")
}

/// Everybody who signs something here.
struct Platforms {
    amazon: Signer,
    stranger: Signer,
    root: Signer,
    between: Signer,
    azure: Signer,
    tpm: Ecdsa,
    policy: String,
    parsed: Policy,
}

fn issuer(url: &str) -> Issuer {
    Issuer::of(url, Signer::fixed(&pkcs8(0), &Certified::new("issuer of tokens", true)))
}

fn ecdsa_jwk(name: &str, ecdsa: &Ecdsa) -> String {
    let (curve, point) = match &ecdsa.public {
        PublicKey::EcdsaP256(point) => ("P-256", &point[..]),
        PublicKey::EcdsaP384(point) => ("P-384", &point[..]),
        _ => panic!("an ECDSA key"),
    };
    let (x, y) = point[1..].split_at(point.len() / 2);
    format!(
        r#"{{"kty":"EC","crv":"{curve}","kid":"{name}","x":"{}","y":"{}"}}"#,
        base64url(x),
        base64url(y)
    )
}

impl Platforms {
    fn new() -> Self {
        let root = Signer::fixed(&pkcs8(2), &Certified::new("root", true));
        let between = root.issue_fixed(
            &pkcs8(3),
            &Certified { path_length: Some(0), ..Certified::new("between", true) },
        );
        let azure = between.issue_fixed(&pkcs8(4), &azure::certified());
        let (amazon, tpm) = (amazon(), Ecdsa::p256("tpm"));
        let PublicKey::Ed25519(point) = Key::of("issuer").public else { panic!("an Ed25519 key") };
        let jwks = format!(
            r#"{{"keys":[{},{},{{"kty":"OKP","crv":"Ed25519","kid":"ed","x":"{}"}}]}}"#,
            ecdsa_jwk("es256", &Ecdsa::p256("issuer")),
            ecdsa_jwk("es384", &Ecdsa::p384("issuer")),
            base64url(&point)
        );
        let github = issuer("https://token.actions.githubusercontent.com");
        let rsa = github.public_key().to_openssh();
        let mut policy = small();
        policy += &format!(
            r#"
[platforms.ec2]
kind = "ec2"
certificates = [
    {{ regions = ["eu-central-1", "eu-west-1"], certificate = """{}""" }},
    {{ regions = ["us-east-1"], certificate = """{}""" }},
]
[platforms.legacy]
kind = "ec2"
allow-rsa-1024 = true
certificates = [{{ regions = ["eu-central-1"], certificate = """{}""" }}]
[platforms.azure]
kind = "azure"
authorities = ["""{}"""]
names = ["metadata.azure.com"]
[platforms.google]
kind = "google"
jwks = '{}'
[platforms.github]
kind = "github"
jwks = '{}'
claims = ["event_name"]
[platforms.gitlab]
kind = "gitlab"
keys = ["{rsa}"]
[platforms.buildkite]
kind = "buildkite"
keys = ["{rsa}"]
[platforms.kubernetes]
kind = "kubernetes"
issuer = "https://cluster.example.org"
keys = ["{rsa}"]
[platforms.runner]
kind = "token"
issuer = "https://runner.example.org"
audience = "builds"
jwks = '{jwks}'
claims = ["pool", "attempt", "trusted"]
[platforms.tpm]
kind = "tpm"
keys = ["{}", "{}", "{}"]
authorities = ["""{}"""]
"#,
            amazon.certificate_pem(),
            Signer::fixed(&pkcs8(3), &Certified::new("Amazon", true)).certificate_pem(),
            LEGACY.0,
            root.certificate_pem(),
            github.jwks(),
            github.jwks(),
            tpm.public.to_openssh(),
            Rsa::new().public.to_openssh(),
            rsa,
            root.certificate_pem(),
        );
        let parsed = Policy::parse(&policy).unwrap();
        Self { amazon, stranger: stranger(), root, between, azure, tpm, policy, parsed }
    }

    /// The purpose and the key of the run.
    fn run() -> (Sha256, custody_core::key::KeyId) {
        (Sha256::of(b"a run"), Key::of("builder").public.id())
    }

    fn binding() -> Sha256 {
        let (purpose, key) = Self::run();
        binding(&purpose, &key)
    }

    fn at(&self, attestation: Attestation, now: Time) -> What {
        judged(&self.policy, &self.parsed, attestation, now)
    }

    /// Under another policy.
    fn under(policy: &str, attestation: Attestation) -> What {
        judged(policy, &Policy::parse(policy).unwrap(), attestation, now())
    }

    fn case(&self, attestation: Attestation) -> What {
        self.at(attestation, now())
    }

    fn ec2(&self, part: &str, bytes: &[u8]) -> What {
        self.case(attestation("ec2", &[("document", &instance()), (part, &bytes)]))
    }

    fn cms(&self, cms: &Cms<'_>) -> What {
        self.ec2("rsa2048", &cms.bytes())
    }
}

fn judged(policy: &str, parsed: &Policy, attestation: Attestation, now: Time) -> What {
    let (purpose, key) = Platforms::run();
    let context = Context { binding: Platforms::binding(), at: now, skew: parsed.clock_skew };
    let platform = parsed.platforms.get(&attestation.platform);
    let proof =
        platform.and_then(|known| custody_machine::verify(&attestation, known, &context).ok());
    let (facts, bound) = proof.map(|proof| (proof.facts, proof.bound)).unwrap_or_default();
    let policy = policy.to_owned();
    What::Attested(Attested { policy, attestation, purpose, key, now, facts, bound })
}

fn refuse(group: &mut Group<'_>, name: &str, control: &str, code: Code, about: &str, what: &What) {
    group.reject(name, control, code, About(about, &[]), what);
}

pub(super) fn add(set: &mut Set) {
    let platforms = Platforms::new();
    let mut group = set.group("attestation");
    ec2_documents(&mut group, &platforms);
    ec2_messages(&mut group, &platforms);
    attested_data(&mut group, &platforms);
    tokens::tokens(&mut group, &platforms);
    tokens::algorithms(&mut group, &platforms);
    quotes::quotes(&mut group, &platforms);
    certificates::certificates(&mut group, &platforms);
    encodings::encodings(&mut group, &platforms);
    tables(&mut group, &platforms);
}

fn ec2_documents(group: &mut Group<'_>, platforms: &Platforms) {
    let Platforms { amazon, stranger, .. } = platforms;
    let document = instance();
    let signature = ec2::signature(&document, amazon);
    let about = About("EC2's document with the short signature", &[]);
    group.accept("ec2-signature", about, &platforms.ec2("signature", signature.as_bytes()));
    let about = About("a key of 1024 bits where the policy allows it", &[]);
    let legacy = attestation("legacy", &[("document", &document), ("signature", &LEGACY.1)]);
    group.accept("ec2-legacy", about, &platforms.case(legacy));
    let about = About("one of two signatures counts, the other is nobody's", &[]);
    let mixed = attestation(
        "ec2",
        &[
            ("document", &document),
            ("rsa2048", &ec2::rsa2048(&document, stranger)),
            ("signature", &signature),
        ],
    );
    group.accept("ec2-one-of-two", about, &platforms.case(mixed));

    let rows = &["wrk-iid-unsigned"];
    let about = About("a document that nobody signed", rows);
    let unsigned = platforms.case(attestation("ec2", &[("document", &document)]));
    group.reject("ec2-unsigned", "ec2-signature", UNVERIFIED, about, &unsigned);
    let about = About("signed by somebody who calls himself Amazon", &["wrk-iid-wrong-cert"]);
    let forged = platforms.ec2("signature", ec2::signature(&document, stranger).as_bytes());
    group.reject("ec2-forged", "ec2-signature", UNVERIFIED, about, &forged);
    for (name, about, from, to) in [
        ("ec2-image-changed", "another image in a signed document", "ami-0", "ami-1"),
        ("ec2-blank", "one more blank in a signed document", " : ", "  : "),
    ] {
        let changed = document.replacen(from, to, 1);
        let changed = attestation("ec2", &[("document", &changed), ("signature", &signature)]);
        refuse(group, name, "ec2-signature", UNVERIFIED, about, &platforms.case(changed));
    }
    for (name, code, about, changed) in [
        (
            "ec2-region",
            UNVERIFIED,
            "a region for which the key does not stand",
            document.replace("eu-central-1", "us-east-1"),
        ),
        ("ec2-no-instance", UNVERIFIED, "no instance", document.replace("instanceId", "instance")),
        (
            "ec2-member-twice",
            UNVERIFIED,
            "one member twice",
            document.replacen("\"imageId\"", "\"imageId\" : \"ami-1\", \"imageId\"", 1),
        ),
        (
            "ec2-number",
            UNVERIFIED,
            "a number that is none of ours",
            document.replacen(": null", ": 1.5", 1),
        ),
        (
            "ec2-pending",
            UNVERIFIED,
            "a time in another form",
            document.replacen("2026-03-01T00:00:00Z", "yesterday", 1),
        ),
        (
            "ec2-image-number",
            UNVERIFIED,
            "an image that is a number",
            document.replacen("\"ami-0fedcba9876543210\"", "7", 1),
        ),
        (
            "ec2-later",
            MISMATCH,
            "a machine that was started after the run",
            document.replacen("2026-03-01T00", "2026-03-01T03", 1),
        ),
    ] {
        let signature = ec2::signature(&changed, amazon);
        let case = attestation("ec2", &[("document", &changed), ("signature", &signature)]);
        refuse(group, name, "ec2-signature", code, about, &platforms.case(case));
    }
    let other = attestation(
        "ec2",
        &[("document", &document), ("signature", &signature), ("pkcs7", &signature)],
    );
    refuse(
        group,
        "ec2-other-part",
        "ec2-signature",
        UNVERIFIED,
        "a part that its kind does not have",
        &platforms.case(other),
    );
    let unknown = attestation("gcp", &[("document", &document), ("signature", &signature)]);
    let about = "a platform that the policy does not have";
    refuse(group, "unknown-platform", "ec2-signature", UNVERIFIED, about, &platforms.case(unknown));
    let case = attestation("ec2", &[("document", &document), ("signature", &signature)]);
    let late = platforms.at(case, "2050-06-01T00:00:00Z".parse().unwrap());
    let about = "a certificate that holds no more";
    refuse(group, "ec2-certificate-over", "ec2-signature", UNVERIFIED, about, &late);
}

fn ec2_messages(group: &mut Group<'_>, platforms: &Platforms) {
    let Platforms { amazon, stranger, .. } = platforms;
    let document = instance();
    let cms = Cms::new(document.as_bytes(), amazon);
    let ber = ec2::rsa2048(&document, amazon);
    let about = About("EC2's document with the message as Amazon makes it", &[]);
    group.accept("ec2-rsa2048", about, &platforms.ec2("rsa2048", ber.as_bytes()));
    for (name, about, cms) in [
        ("ec2-der", "the message in DER", cms.clone()),
        (
            "ec2-content-beside",
            "the document beside the message",
            Cms { inside: false, ..cms.clone() },
        ),
        (
            "ec2-no-attributes",
            "without signed attributes",
            Cms { attributes: false, ..cms.clone() },
        ),
        (
            "ec2-no-certificates",
            "without certificates",
            Cms { certificates: vec![], ..cms.clone() },
        ),
        (
            "ec2-hash-as-signature",
            "the hash written as the algorithm of the signature",
            Cms { hash_is_signature: true, ..cms.clone() },
        ),
    ] {
        group.accept(name, About(about, &[]), &platforms.cms(&cms));
    }
    let about = About("by a certificate that came along", &["wrk-iid-wrong-cert"]);
    let forged = platforms.cms(&Cms::new(document.as_bytes(), stranger));
    group.reject("ec2-own-certificate", "ec2-rsa2048", UNVERIFIED, about, &forged);
    for (name, about, cms) in [
        ("ec2-digest", "of another digest", Cms { digest: Some([7; 32]), ..cms.clone() }),
        ("ec2-two-signers", "with two signers", Cms { signers: 2, ..cms.clone() }),
        ("ec2-no-signer", "with no signer", Cms { signers: 0, ..cms.clone() }),
        (
            "ec2-signature-empty",
            "with a signature that is empty",
            Cms { signature: Some(vec![]), ..cms.clone() },
        ),
        ("ec2-other-content", "of another document", Cms { content: b"{}", ..cms.clone() }),
        (
            "ec2-nine-certificates",
            "with nine certificates",
            Cms { certificates: vec![amazon.certificate(); 9], ..cms.clone() },
        ),
    ] {
        refuse(group, name, "ec2-rsa2048", UNVERIFIED, about, &platforms.cms(&cms));
    }
    let about = "a message with something after it";
    let more = platforms.ec2("rsa2048", &[&cms.bytes()[..], &[0]].concat());
    refuse(group, "ec2-message-longer", "ec2-rsa2048", UNVERIFIED, about, &more);
    let short = attestation("legacy", &[("document", &document), ("rsa2048", &cms.bytes())]);
    let about = "a message by a key that the policy does not pin for it";
    refuse(group, "ec2-legacy-message", "ec2-legacy", UNVERIFIED, about, &platforms.case(short));
}

fn attested_data(group: &mut Group<'_>, platforms: &Platforms) {
    let Platforms { azure: signer, between, root, stranger, .. } = platforms;
    let nonce = nonce(&Platforms::binding());
    let vm = "02aab8a4-74ef-476e-8182-f6d2ba4166a6";
    let content = azure::content(vm, &nonce, now());
    let case = |attested: String| platforms.case(attestation("azure", &[("attested", &attested)]));
    let good = azure::attested(&content, signer, &[between]);
    group.accept("azure", About("attested data of Azure", &[]), &case(good.clone()));
    let about = About("the authority came along too", &[]);
    group.accept(
        "azure-root-too",
        about,
        &case(azure::attested(&content, signer, &[between, root])),
    );
    for (name, code, about, content) in [
        ("azure-nonce", MISMATCH, "another nonce", azure::content(vm, "0000000001", now())),
        ("azure-no-vm", UNVERIFIED, "no machine", content.replace("vmId", "vm")),
        (
            "azure-over",
            UNVERIFIED,
            "over",
            azure::content(vm, &nonce, "2026-02-01T00:00:00Z".parse().unwrap()),
        ),
        ("azure-not-yet", UNVERIFIED, "not yet", azure::content(vm, &nonce, now().plus(3600))),
    ] {
        let case = case(azure::attested(&content, signer, &[between]));
        refuse(group, name, "azure", code, about, &case);
    }
    let no_chain = case(azure::attested(&content, signer, &[]));
    let about = "the certificate between is not there";
    refuse(group, "azure-no-chain", "azure", UNVERIFIED, about, &no_chain);
    let self_signed = Signer::fixed(&pkcs8(1), &azure::certified());
    let about = About("by somebody of the right name", &["wrk-imds-spoofed"]);
    let spoofed = case(azure::attested(&content, &self_signed, &[between]));
    group.reject("azure-spoofed", "azure", UNVERIFIED, about, &spoofed);
    let honest = azure::certified();
    let other_name =
        |name: &str| Certified { names: vec![name.to_owned()], ..Certified::new(name, false) };
    for (name, about, certified) in [
        ("azure-name", "another name", other_name("metadata.azure.com.example.org")),
        ("azure-name-tail", "a name that ends alike", other_name("evilmetadata.azure.com")),
        ("azure-authority", "an authority", Certified { authority: true, ..honest.clone() }),
        ("azure-usage", "a key for other uses", Certified { usage: 0x20, ..honest.clone() }),
        (
            "azure-purpose",
            "a key for other purposes",
            Certified { purposes: vec![vec![0x2b, 6, 1, 5, 5, 7, 3, 2]], ..honest.clone() },
        ),
        (
            "azure-critical",
            "what nobody knows is critical",
            Certified { more: Some((0x24, true)), ..honest.clone() },
        ),
        (
            "azure-constraints",
            "constraints on names",
            Certified { more: Some((0x1e, false)), ..honest.clone() },
        ),
        (
            "azure-certificate-over",
            "a certificate that is over",
            Certified { not_after: "2026-02-28T00:00:00Z".parse().unwrap(), ..honest },
        ),
    ] {
        let signer = between.issue_fixed(&pkcs8(4), &certified);
        let case = case(azure::attested(&content, &signer, &[between]));
        refuse(group, name, "azure", UNVERIFIED, about, &case);
    }
    let common = Certified { names: vec![], ..azure::certified() };
    let common = between.issue_fixed(&pkcs8(4), &common);
    let about = About("a common name where there are no others", &[]);
    group.accept("azure-common-name", about, &case(azure::attested(&content, &common, &[between])));
    // what is below an authority that may have none below it
    let below = between.issue_fixed(&pkcs8(1), &Certified::new("below", true));
    let deep = below.issue_fixed(&pkcs8(4), &azure::certified());
    let deep = case(azure::attested(&content, &deep, &[&below, between]));
    refuse(group, "azure-path-length", "azure", UNVERIFIED, "a path that is too long", &deep);
    let nobody = Signer::fixed(&pkcs8(3), &Certified::new("between", true));
    let case = case(azure::attested(
        &content,
        &nobody.issue_fixed(&pkcs8(4), &azure::certified()),
        &[&nobody, stranger],
    ));
    let about = "leads to an authority that nobody pins";
    refuse(group, "azure-other-root", "azure", UNVERIFIED, about, &case);
}

/// Tables of platforms that nobody could mean.
fn tables(group: &mut Group<'_>, platforms: &Platforms) {
    let whole = &platforms.policy;
    group.accept(
        "policy",
        About("a policy with a platform of each kind", &[]),
        &What::Policy(whole.clone()),
    );
    let desk = Key::of("desk").public.to_openssh();
    let rsa = issuer("").public_key().to_openssh();
    let keys = format!("kind = \"gitlab\"\nkeys = [\"{rsa}\"]");
    let taken = format!("kind = \"gitlab\"\nkeys = [\"{desk}\"]");
    let invalid = Code::PolicyInvalid;
    for (name, code, about, from, to) in [
        ("policy-kind", invalid, "a kind that is none", "kind = \"gitlab\"", "kind = \"jenkins\""),
        ("policy-dot", invalid, "a name with a dot", "[platforms.ec2]", "[platforms.\"ec2.x\"]"),
        (
            "policy-weak",
            Code::PolicyKeyWeak,
            "a weak key that is not allowed",
            "allow-rsa-1024 = true\n",
            "",
        ),
        (
            "policy-no-regions",
            invalid,
            "a certificate for no region",
            "regions = [\"us-east-1\"]",
            "regions = []",
        ),
        (
            "policy-no-names",
            invalid,
            "anybody's certificate",
            "names = [\"metadata.azure.com\"]",
            "names = []",
        ),
        (
            "policy-big-name",
            invalid,
            "a name in capitals",
            "\"metadata.azure.com\"",
            "\"Metadata.azure.com\"",
        ),
        (
            "policy-google-issuer",
            invalid,
            "an issuer where there is one",
            "kind = \"google\"",
            "kind = \"google\"\nissuer = \"https://accounts.google.com\"",
        ),
        (
            "policy-no-issuer",
            invalid,
            "no issuer",
            "issuer = \"https://cluster.example.org\"\n",
            "",
        ),
        ("policy-no-keys", invalid, "no keys", &keys, "kind = \"gitlab\""),
        (
            "policy-claim-twice",
            invalid,
            "a claim that is a fact already",
            "\"event_name\"",
            "\"run_id\"",
        ),
        (
            "policy-member",
            invalid,
            "a member of another kind",
            "kind = \"gitlab\"",
            "kind = \"gitlab\"\nnames = [\"a\"]",
        ),
        (
            "policy-jwks-kind",
            Code::PolicyInvalid,
            "a key of the issuer that is none",
            "\"kty\":\"OKP\"",
            "\"kty\":\"oct\"",
        ),
        (
            "policy-jwks-use",
            Code::PolicyInvalid,
            "a key of the issuer that is not for signatures",
            "\"use\":\"sig\"",
            "\"use\":\"enc\"",
        ),
        (
            "policy-certificate-loose",
            invalid,
            "a certificate with a loose bit in its base64",
            "VB3dw==",
            "VB3dx==",
        ),
        (
            "policy-certificate-url",
            invalid,
            "a certificate in base64 for URLs",
            "y2/lFIEB",
            "y2_lFIEB",
        ),
        (
            "policy-certificate-blank",
            invalid,
            "a certificate with a blank of another kind",
            "VB3dw==",
            "VB3d\u{a0}w==",
        ),
        ("policy-key-taken", Code::PolicyKeyDuplicate, "a machine's key", &keys, &taken),
    ] {
        assert!(whole.contains(from), "{from}");
        refuse(group, name, "policy", code, about, &What::Policy(whole.replacen(from, to, 1)));
    }
}

/// The two numbers of a signature in DER, each in so many bytes.
fn plain(der: &[u8], size: usize) -> Vec<u8> {
    let (r, rest) = der[4..].split_at(der[3].into());
    let number = |bytes: &[u8]| {
        let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
        [&vec![0; size - bytes.len()][..], bytes].concat()
    };
    [number(r), number(&rest[2..])].concat()
}
