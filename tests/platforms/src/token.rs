//! Issuers of OIDC tokens.

use custody_core::encoding::base64url;
use custody_core::key::PublicKey;
use custody_core::time::Time;

use crate::Signer;

/// Somebody who signs tokens with RS256.
pub struct Issuer {
    /// The issuer's URL.
    pub url: String,
    signer: Signer,
}

impl Issuer {
    pub fn new(url: &str) -> Self {
        Self::of(url, Signer::authority("issuer of tokens"))
    }

    /// An issuer with this key.
    pub fn of(url: &str, signer: Signer) -> Self {
        Self { url: url.to_owned(), signer }
    }

    /// The id of its key.
    pub fn key_id(&self) -> String {
        self.signer.public_key().id().short()
    }

    pub fn public_key(&self) -> PublicKey {
        self.signer.public_key()
    }

    /// Its keys, as it publishes them.
    pub fn jwks(&self) -> String {
        let PublicKey::Rsa { n, e } = self.signer.public_key() else { panic!("an RSA key") };
        format!(
            r#"{{"keys":[{{"kty":"RSA","alg":"RS256","use":"sig","kid":"{}","n":"{}","e":"{}"}}]}}"#,
            self.key_id(),
            base64url(&n),
            base64url(&e)
        )
    }

    /// A token of these claims, which are JSON.
    pub fn token(&self, claims: &str) -> String {
        let header = format!(r#"{{"alg":"RS256","kid":"{}","typ":"JWT"}}"#, self.key_id());
        self.token_with(&header, claims)
    }

    /// The same with another header.
    pub fn token_with(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64url(header.as_bytes()), base64url(claims.as_bytes()));
        let signature = self.signer.sign(signed.as_bytes());
        format!("{signed}.{}", base64url(&signature))
    }

    /// Claims that all tokens have, and these in addition, which are members of JSON.
    pub fn claims(&self, audience: &str, subject: &str, issued: Time, more: &str) -> String {
        let (from, until) = (issued.unix(), issued.plus(3600).unix());
        format!(
            r#"{{"iss":"{}","aud":"{audience}","sub":"{subject}","iat":{from},"nbf":{from},"exp":{until},{more}}}"#,
            self.url
        )
    }

    /// An identity token of an instance of Google Compute Engine.
    pub fn google(&self, audience: &str, issued: Time) -> String {
        self.token(&self.claims(
            audience,
            "107517467455664443766",
            issued,
            r#""azp":"107517467455664443766","email":"builder@example-project.iam.gserviceaccount.com","email_verified":true,"google":{"compute_engine":{"instance_creation_timestamp":1772323200,"instance_id":"152986662232938449","instance_name":"builder-1","license_id":["1000204"],"project_id":"example-project","project_number":739419398126,"zone":"europe-west1-b"}}"#,
        ))
    }

    /// A token of a job of GitHub Actions.
    pub fn github(&self, audience: &str, issued: Time) -> String {
        self.token(&self.claims(
            audience,
            "repo:example/hello:ref:refs/heads/main",
            issued,
            r#""jti":"6f4e2c1a","repository":"example/hello","repository_id":"74","repository_owner":"example","ref":"refs/heads/main","sha":"0123456789abcdef0123456789abcdef01234567","workflow_ref":"example/hello/.github/workflows/build.yml@refs/heads/main","job_workflow_ref":"example/hello/.github/workflows/build.yml@refs/heads/main","run_id":"1658821493","run_number":"10","run_attempt":"2","runner_environment":"github-hosted","event_name":"push""#,
        ))
    }

    /// A token of a job of GitLab CI.
    pub fn gitlab(&self, audience: &str, issued: Time) -> String {
        self.token(&self.claims(
            audience,
            "project_path:example/hello:ref_type:branch:ref:main",
            issued,
            r#""project_id":"22","project_path":"example/hello","namespace_path":"example","pipeline_id":"574","job_id":"302","ref":"main","ref_type":"branch","ref_protected":"true","runner_id":1,"runner_environment":"self-hosted","sha":"0123456789abcdef0123456789abcdef01234567""#,
        ))
    }

    /// A token of a job of Buildkite.
    pub fn buildkite(&self, audience: &str, issued: Time) -> String {
        self.token(&self.claims(
            audience,
            "organization:example:pipeline:hello:ref:refs/heads/main:commit:0123456789abcdef0123456789abcdef01234567:step:build",
            issued,
            r#""organization_slug":"example","pipeline_slug":"hello","build_number":1,"build_branch":"main","build_commit":"0123456789abcdef0123456789abcdef01234567","step_key":"build","job_id":"0184990a-477b-4fa8-9968-496074483cee","agent_id":"0184990a-4782-42b5-afc1-16715b10b8ff""#,
        ))
    }

    /// A projected service account token of a pod of Kubernetes.
    pub fn kubernetes(&self, audience: &str, issued: Time) -> String {
        let claims = self.claims(
            audience,
            "system:serviceaccount:builds:builder",
            issued,
            r#""kubernetes.io":{"namespace":"builds","node":{"name":"node-1","uid":"646e7c5e"},"pod":{"name":"hello-build-x7k2p","uid":"5fd2a7f0"},"serviceaccount":{"name":"builder","uid":"14ee3fa4"},"warnafter":1772326807}"#,
        );
        // its audience is a list
        let audience = format!(r#""aud":"{audience}""#);
        let list = format!("\"aud\":[{}]", &audience["\"aud\":".len()..]);
        self.token(&claims.replace(&audience, &list))
    }
}
