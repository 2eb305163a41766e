//! What platforms say of machines: as it comes from anybody, and signed by the platform.

use std::sync::LazyLock;

use custody_core::digest::Sha256;
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;
use custody_core::time::Time;
use custody_machine::{
    Azure, Certificate, Context, Ec2, Platform, Preset, RegionalCertificate, TokenIssuer, Tpm,
    audience, nonce, read_jwks, verify,
};
use custody_platforms::token::Issuer;
use custody_platforms::tpm::{self, pcrs};
use custody_platforms::{Cms, Signer, attestation as parts, azure, ec2};

const REGION: &str = "eu-west-1";
const REGISTERS: [(u8, [u8; 32]); 2] = [(0, [1; 32]), (16, [3; 32])];

struct Platforms {
    root: Signer,
    leaf: Signer,
    issuer: Issuer,
    ec2: Platform,
    azure: Platform,
    token: Platform,
    tpm: Platform,
}

static PLATFORMS: LazyLock<Platforms> = LazyLock::new(|| {
    let root = Signer::authority("an authority");
    let certificate: Certificate = root.certificate_pem().parse().expect("a certificate");
    let issuer = Issuer::new("https://issuer.example.org");
    let regional = RegionalCertificate {
        regions: [REGION.to_owned()].into(),
        certificate: certificate.clone(),
    };
    Platforms {
        leaf: azure::signer(&root),
        ec2: Platform::Ec2(Ec2 { certificates: vec![regional] }),
        azure: Platform::Azure(Azure {
            authorities: vec![certificate],
            names: vec!["metadata.azure.com".to_owned()],
        }),
        token: Platform::Token(TokenIssuer {
            issuer: issuer.url.clone(),
            keys: read_jwks(&issuer.jwks()).expect("a key set"),
            audience: None,
            claims: Preset::Kubernetes.claims(),
        }),
        tpm: Platform::Tpm(Tpm { keys: vec![root.public_key()], authorities: vec![] }),
        root,
        issuer,
    }
});

fn context() -> Context {
    let at: Time = "2026-03-01T01:00:00Z".parse().expect("a time");
    Context { binding: Sha256::of(b"a run"), at, skew: 300 }
}

/// Nothing that nobody signed proves anything. What was signed for this run proves nothing of another.
pub(crate) fn attestation(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let on = &*PLATFORMS;
    let (platform, attested) = match kind {
        0 => (&on.ec2, parts("x", &[("document", b"{}"), ("rsa2048", &rest)])),
        1 => (&on.ec2, parts("x", &[("document", b"{}"), ("signature", &rest)])),
        2 => (&on.azure, parts("x", &[("attested", &rest)])),
        3 => (&on.token, parts("x", &[("token", &rest)])),
        4 => (&on.tpm, parts("x", &[("quote", &rest), ("signature", &rest), ("pcrs", &rest)])),
        5 => (
            &on.tpm,
            parts(
                "x",
                &[("quote", &rest), ("certificate", &rest), ("signature", &tpm::signature(rest))],
            ),
        ),
        _ => return signed(*kind, rest),
    };
    assert!(verify(&attested, platform, &context()).is_err());
}

/// The fuzzer's text, signed by whom it takes.
fn signed(kind: u8, text: &[u8]) {
    let on = &*PLATFORMS;
    let (platform, attested) = match kind {
        6 => {
            let message = Cms { ber: true, ..Cms::new(text, &on.root) }.bytes();
            (&on.ec2, parts("x", &[("document", &text), ("rsa2048", &message)]))
        }
        7 => {
            let message = Cms { attributes: false, ..Cms::new(text, &on.leaf) }.bytes();
            (&on.azure, parts("x", &[("attested", &message)]))
        }
        8 => {
            let text = String::from_utf8_lossy(text);
            let (header, claims) = text.split_once('\n').unwrap_or((&text, ""));
            (&on.token, parts("x", &[("token", &on.issuer.token_with(header, claims))]))
        }
        9 => {
            let signature = tpm::signature(&on.root.sign(text));
            let pcrs = pcrs(&REGISTERS);
            (&on.tpm, parts("x", &[("quote", &text), ("signature", &signature), ("pcrs", &pcrs)]))
        }
        10 => {
            let quote = tpm::quote(&on.root, context().binding.as_bytes(), &REGISTERS);
            let tpm::Quote { quote, signature, .. } = quote;
            (&on.tpm, parts("x", &[("quote", &quote), ("signature", &signature), ("pcrs", &text)]))
        }
        _ => return,
    };
    holds_here(&attested, platform);
}

fn holds_here(attested: &Attestation, platform: &Platform) {
    let Ok(proof) = verify(attested, platform, &context()) else { return };
    assert_eq!(proof.bound, platform.binds());
    assert!(proof.facts.keys().all(|name| name.starts_with("x.")));
    let elsewhere = Context { binding: Sha256::of(b"another run"), ..context() };
    assert_eq!(verify(attested, platform, &elsewhere).is_err(), proof.bound);
    let changed = Attestation {
        parts: attested
            .parts
            .iter()
            .map(|(name, bytes)| (name.clone(), [&bytes[..], b"x"].concat()))
            .collect(),
        ..attested.clone()
    };
    assert!(verify(&changed, platform, &context()).is_err());
}

/// Certificates and key sets of a policy. Whatever key is read, the rules for keys hold of it.
pub(crate) fn platform_keys(data: &[u8]) {
    let text = str::from_utf8(data).unwrap_or_default();
    for key in read_jwks(text).unwrap_or_default() {
        assert_eq!(PublicKey::from_spki_der(&key.key.to_spki_der()), Ok(key.key));
    }
    if let Ok(certificate) = text.parse::<Certificate>() {
        assert_eq!(text.parse().as_ref(), Ok(&certificate));
    }
    let _verdict = Certificate::from_der(data);
}

/// What the targets start from.
pub(crate) fn seeds(put: &dyn Fn(&str, &[u8])) {
    let on = &*PLATFORMS;
    let context = context();
    let seed = |kind: u8, bytes: &[u8]| put("attestation", &[&[kind], bytes].concat());
    let document = ec2::document("i-0123456789abcdef0", "ami-0fedcba9876543210", REGION);
    let content = azure::content("a machine", &nonce(&context.binding), context.at);
    let token = on.issuer.kubernetes(&audience(&context.binding), context.at);
    let quote = tpm::quote(&on.root, context.binding.as_bytes(), &REGISTERS);
    seed(0, ec2::rsa2048(&document, &on.root).as_bytes());
    seed(0, &Cms { ber: true, ..Cms::new(document.as_bytes(), &on.root) }.bytes());
    seed(1, ec2::signature(&document, &on.root).as_bytes());
    seed(2, &Cms::new(content.as_bytes(), &on.leaf).bytes());
    seed(3, token.as_bytes());
    seed(4, &quote.signature);
    seed(5, on.leaf.certificate());
    seed(6, document.as_bytes());
    seed(7, content.as_bytes());
    let parts: Vec<Vec<u8>> = token
        .split('.')
        .take(2)
        .map(|part| custody_core::encoding::base64url_decode(part).expect("a token"))
        .collect();
    seed(8, &parts.join(&b'\n'));
    seed(9, &quote.quote);
    seed(10, quote.pcrs.as_bytes());
    for signer in [&on.root, &on.leaf] {
        put("platform-keys", signer.certificate());
        put("platform-keys", signer.certificate_pem().as_bytes());
    }
    put("platform-keys", on.issuer.jwks().as_bytes());
}
