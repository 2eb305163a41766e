//! OIDC tokens: JSON Web Tokens (RFC 7519) that a platform signs.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use custody_core::Refusal;
use custody_core::crypto::{Scheme, signature_fits};
use custody_core::encoding::base64url_decode;
use custody_core::json::{self, Object, Value};
use custody_core::key::PublicKey;
use custody_core::statement::Attestation;
use custody_core::time::Time;

use crate::jwks::TokenKey;
use crate::{BLANKS, Context, Proven, audience, mismatch, only, required, unreadable, unverified};

/// Who signs tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIssuer {
    /// The issuer, compared byte for byte.
    pub issuer: String,
    /// Its keys.
    pub keys: Vec<TokenKey>,
    /// The audience of its tokens, where the platform does not let anybody choose one. Such tokens are not
    /// bound to a run.
    pub audience: Option<String>,
    /// Which claims are facts. The issuer and the subject are in any case.
    pub claims: Vec<Claim>,
}

/// A claim that is a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name of the fact.
    pub fact: String,
    /// The members of the token that lead to the claim, from the outside in.
    pub path: Vec<String>,
}

impl Claim {
    /// A claim of the token itself, whose fact has hyphens where the claim has underscores.
    pub fn named(claim: &str) -> Self {
        Self { fact: claim.replace('_', "-"), path: Vec::from([claim.to_owned()]) }
    }
}

/// A platform that is known to sign tokens: what its issuer is called, and which claims are facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// An instance of Google Compute Engine, by its identity token in the full format.
    Google,
    /// A job of GitHub Actions.
    Github,
    /// A job of GitLab CI.
    Gitlab,
    /// A job of Buildkite.
    Buildkite,
    /// A pod of Kubernetes, by a projected service account token.
    Kubernetes,
    /// Any other.
    Token,
}

impl Preset {
    /// The issuer, where there is only one, or one that most people use.
    pub const fn issuer(self) -> Option<&'static str> {
        match self {
            Self::Google => Some("https://accounts.google.com"),
            Self::Github => Some("https://token.actions.githubusercontent.com"),
            Self::Gitlab => Some("https://gitlab.com"),
            Self::Buildkite => Some("https://agent.buildkite.com"),
            Self::Kubernetes | Self::Token => None,
        }
    }

    /// The claims that are facts.
    pub fn claims(self) -> Vec<Claim> {
        let table: &[(&str, &str)] = match self {
            Self::Google => &[
                ("instance-id", "google/compute_engine/instance_id"),
                ("instance-name", "google/compute_engine/instance_name"),
                ("project-id", "google/compute_engine/project_id"),
                ("project-number", "google/compute_engine/project_number"),
                ("zone", "google/compute_engine/zone"),
                ("service-account", "email"),
            ],
            Self::Github => &[
                ("repository", "repository"),
                ("repository-id", "repository_id"),
                ("ref", "ref"),
                ("sha", "sha"),
                ("workflow-ref", "workflow_ref"),
                ("job-workflow-ref", "job_workflow_ref"),
                ("run-id", "run_id"),
                ("run-attempt", "run_attempt"),
                ("runner-environment", "runner_environment"),
            ],
            Self::Gitlab => &[
                ("project-path", "project_path"),
                ("project-id", "project_id"),
                ("ref", "ref"),
                ("sha", "sha"),
                ("pipeline-id", "pipeline_id"),
                ("job-id", "job_id"),
                ("runner-id", "runner_id"),
                ("runner-environment", "runner_environment"),
            ],
            Self::Buildkite => &[
                ("organization", "organization_slug"),
                ("pipeline", "pipeline_slug"),
                ("build-number", "build_number"),
                ("commit", "build_commit"),
                ("job-id", "job_id"),
                ("agent-id", "agent_id"),
            ],
            Self::Kubernetes => &[
                ("namespace", "kubernetes.io/namespace"),
                ("pod", "kubernetes.io/pod/name"),
                ("pod-uid", "kubernetes.io/pod/uid"),
                ("service-account", "kubernetes.io/serviceaccount/name"),
                ("node", "kubernetes.io/node/name"),
            ],
            Self::Token => &[],
        };
        let claim = |(fact, path): &(&str, &str)| Claim {
            fact: (*fact).to_owned(),
            path: path.split('/').map(str::to_owned).collect(),
        };
        table.iter().map(claim).collect()
    }
}

const PART: &str = "token";
/// Largest token, in bytes.
const TOKEN_BYTES: usize = 64 << 10;

impl TokenIssuer {
    pub(crate) fn verify(
        &self,
        attestation: &Attestation,
        context: &Context,
    ) -> Result<Proven, Refusal> {
        only(attestation, &[PART])?;
        let token = required(attestation, PART)?;
        let shape = |found: &str| unverified(PART, "a signed JSON Web Token", found);
        let token = core::str::from_utf8(token).map_err(|_| shape("other bytes"))?;
        let token = token.trim_matches(BLANKS);
        if token.len() > TOKEN_BYTES {
            return Err(shape("a longer one"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or_else(|| shape("other text"))?;
        let (header, claims) = signed.split_once('.').ok_or_else(|| shape("other text"))?;
        let bytes = |text: &str| base64url_decode(text).map_err(unreadable(PART));
        let signature = bytes(signature)?;
        self.check_signature(&bytes(header)?, signed, &signature)?;
        let claims = bytes(claims)?;
        self.facts(&claims, context).map_err(|refusal| refusal.inside(PART))
    }

    fn check_signature(
        &self,
        header: &[u8],
        signed: &str,
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let fault = unreadable("token.header");
        let mut header = members(header).map_err(&fault)?;
        let algorithm = header.text("alg").map_err(&fault)?;
        let id = header.optional_text("kid").map_err(&fault)?;
        if header.optional("crit").is_some() {
            let expected = "a header without crit";
            return Err(unverified("token.header", expected, "something that must be understood"));
        }
        let scheme = scheme(&algorithm).ok_or_else(|| {
            unverified("token.header.alg", "RS256, ES256, ES384 or EdDSA", algorithm.clone())
        })?;
        let is_meant = |key: &&TokenKey| match (&key.id, &id) {
            (Some(known), Some(named)) => known == named,
            _ => true,
        };
        let mut meant = self.keys.iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            let expected = "a key that the policy pins";
            return Err(unverified("token.header.kid", expected, id.unwrap_or_default()));
        }
        let fits = |known: &TokenKey| {
            scheme_of(&known.key) == Some(scheme)
                && signature_fits(&known.key, scheme, signed.as_bytes(), signature)
        };
        if meant.any(fits) {
            return Ok(());
        }
        let expected = "a signature by a key that the policy pins";
        Err(unverified(PART, expected, format!("another {algorithm} signature")))
    }

    fn facts(&self, claims: &[u8], context: &Context) -> Result<Proven, Refusal> {
        let fault = unreadable("");
        let all = json::parse(claims, TOKEN_BYTES, TOKEN_BYTES).map_err(&fault)?;
        let mut claims = all.clone().into_object("").map_err(&fault)?;
        let issuer = claims.text("iss").map_err(&fault)?;
        if issuer != self.issuer {
            return Err(unverified("iss", self.issuer.clone(), issuer));
        }
        let mut moment = |name: &str| {
            let seconds = claims.optional(name).map(|value| value.into_integer(name));
            let seconds = seconds.transpose().map_err(&fault)?;
            let time = |seconds| {
                let found = format!("{seconds}");
                Time::from_unix(seconds).ok_or_else(|| unverified(name, "a time", found))
            };
            seconds.map(time).transpose()
        };
        let (made, from, until) = (moment("iat")?, moment("nbf")?, moment("exp")?);
        let (Some(made), Some(until)) = (made, until) else {
            return Err(unverified("", "iat and exp", "not both"));
        };
        let from = from.map_or(made, |from| from.max(made));
        if context.at.plus(context.skew) < from || context.at >= until.plus(context.skew) {
            let expected = format!("a token that holds on {}", context.at);
            return Err(unverified("exp", expected, format!("{from} to {until}")));
        }
        self.check_audience(&claims.required("aud").map_err(&fault)?, context)?;
        let subject = claims.text("sub").map_err(&fault)?;
        let mut proven =
            Proven::from([("issuer".to_owned(), issuer), ("subject".to_owned(), subject)]);
        for Claim { fact, path } in &self.claims {
            let value = path.iter().try_fold(&all, |value, name| value.get(name));
            let text = match value {
                None | Some(Value::Null) => continue,
                Some(Value::Integer(number)) => number.to_string(),
                Some(Value::Bool(truth)) => truth.to_string(),
                Some(value) => value.clone().into_text(&path.join(".")).map_err(&fault)?,
            };
            proven.push((fact.clone(), text));
        }
        Ok(proven)
    }

    /// The audience is the one text, or a list of it alone: a token for others too was in other hands.
    fn check_audience(&self, found: &Value<'_>, context: &Context) -> Result<(), Refusal> {
        let expected = self.audience.clone().unwrap_or_else(|| audience(&context.binding));
        let is_meant = match found {
            Value::Array(list) => matches!(&**list, [one] if one.as_str() == Some(&expected)),
            one => one.as_str() == Some(&expected),
        };
        if is_meant { Ok(()) } else { Err(mismatch("aud", expected, found.to_line())) }
    }
}

fn members(bytes: &[u8]) -> Result<Object<'_>, Refusal> {
    json::parse(bytes, TOKEN_BYTES, TOKEN_BYTES)?.into_object("")
}

/// Algorithms of RFC 7518 and RFC 8037. `none` and those with shared secrets are not among them.
fn scheme(algorithm: &str) -> Option<Scheme> {
    match algorithm {
        "RS256" => Some(Scheme::RsaPkcs1Sha256),
        "ES256" => Some(Scheme::EcdsaP256Fixed),
        "ES384" => Some(Scheme::EcdsaP384Fixed),
        "EdDSA" | "Ed25519" => Some(Scheme::Ed25519),
        _ => None,
    }
}

/// The one scheme of a key: a token does not choose it.
const fn scheme_of(key: &PublicKey) -> Option<Scheme> {
    match key {
        PublicKey::Rsa { .. } => Some(Scheme::RsaPkcs1Sha256),
        PublicKey::EcdsaP256(_) => Some(Scheme::EcdsaP256Fixed),
        PublicKey::EcdsaP384(_) => Some(Scheme::EcdsaP384Fixed),
        PublicKey::Ed25519(_) => Some(Scheme::Ed25519),
        PublicKey::SkEd25519 { .. } | PublicKey::SkEcdsaP256 { .. } => None,
    }
}
