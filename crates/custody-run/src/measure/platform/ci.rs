//! CI services: the identity tokens that they sign for a job, and what they set in its environment.
//!
//! Their variables can be set by whoever defines the job, so they are claims. Whoever answers in the
//! place of a token service gets no further: the judge verifies the token.

use custody_core::digest::Sha256;
use custody_machine::{Preset, audience};
use url::Url;

use super::http::{Client, Fault};
use super::program::output;
use super::said::{Said, text_at};
use super::{Unanswered, Variables};

fn required(variables: Variables<'_>, name: &str, hint: &str) -> Result<String, Unanswered> {
    let expected = || Unanswered::new(format!("{name} in the environment{hint}"), "nothing");
    variables(name).ok_or_else(expected)
}

/// What the token does not say.
const GITHUB_CLAIMS: &[(&str, &str)] = &[
    ("actor", "GITHUB_ACTOR"),
    ("job", "GITHUB_JOB"),
    ("runner-arch", "RUNNER_ARCH"),
    ("runner-image", "ImageOS"),
    ("runner-image-version", "ImageVersion"),
    ("runner-name", "RUNNER_NAME"),
    ("runner-os", "RUNNER_OS"),
];

/// GitHub Actions documentation, "`OpenID` Connect reference", "Methods for requesting the OIDC token".
pub(super) fn github(variables: Variables<'_>, binding: &Sha256) -> Result<Said, Unanswered> {
    let hint = ", which the job has with the permission id-token: write";
    let url = required(variables, "ACTIONS_ID_TOKEN_REQUEST_URL", hint)?;
    let secret = required(variables, "ACTIONS_ID_TOKEN_REQUEST_TOKEN", hint)?;
    let unanswered =
        |fault: Fault| Unanswered::new("an identity token of GitHub Actions", fault.into_found());
    let mut url =
        Url::parse(&url).map_err(|error| unanswered(Fault::Answered(error.to_string())))?;
    url.query_pairs_mut().append_pair("audience", &audience(binding));
    let bearer = format!("Bearer {secret}");
    let headers = [("Authorization", &*bearer), ("Accept", "application/json")];
    let answer = Client::of(&url).and_then(|client| client.get(url.as_str(), &headers));
    let token = text_at(&answer.map_err(unanswered)?.body, &["value"])?;
    let mut said = Said::by_token(&token, Preset::Github)?;
    said.claim(variables, GITHUB_CLAIMS);
    Ok(said)
}

const GITLAB_CLAIMS: &[(&str, &str)] = &[
    ("job-image", "CI_JOB_IMAGE"),
    ("job-name", "CI_JOB_NAME"),
    ("job-url", "CI_JOB_URL"),
    ("pipeline-source", "CI_PIPELINE_SOURCE"),
    ("runner-description", "CI_RUNNER_DESCRIPTION"),
    ("runner-version", "CI_RUNNER_VERSION"),
];

/// GitLab documentation, "`OpenID` Connect (OIDC) authentication using ID tokens". A job is given the token
/// with the audience that its definition has, and cannot ask for another.
pub(super) fn gitlab(variables: Variables<'_>) -> Result<Said, Unanswered> {
    let hint = ", which the job has by id_tokens";
    let mut said = Said::by_token(&required(variables, "CUSTODY_ID_TOKEN", hint)?, Preset::Gitlab)?;
    said.claim(variables, GITLAB_CLAIMS);
    Ok(said)
}

const BUILDKITE_CLAIMS: &[(&str, &str)] = &[
    ("agent-name", "BUILDKITE_AGENT_NAME"),
    ("build-url", "BUILDKITE_BUILD_URL"),
    ("queue", "BUILDKITE_AGENT_META_DATA_QUEUE"),
];
/// What the agent's program needs to be the job's.
const BUILDKITE_ACCESS: &[&str] = &[
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "BUILDKITE_AGENT_ENDPOINT",
    "BUILDKITE_JOB_ID",
    "BUILDKITE_NO_HTTP2",
    "HOME",
    "PATH",
];

/// Buildkite documentation, "buildkite-agent oidc".
pub(super) fn buildkite(variables: Variables<'_>, binding: &Sha256) -> Result<Said, Unanswered> {
    required(variables, "BUILDKITE_JOB_ID", "")?;
    let access = BUILDKITE_ACCESS.iter().filter_map(|name| Some((*name, variables(name)?)));
    let audience = audience(binding);
    let words = ["buildkite-agent", "oidc", "request-token", "--audience", &audience];
    let token = output(&words, &access.collect::<Vec<_>>())?;
    let mut said = Said::by_token(&String::from_utf8_lossy(&token), Preset::Buildkite)?;
    said.claim(variables, BUILDKITE_CLAIMS);
    Ok(said)
}

/// What generic-worker and docker-worker set for a task.
const TASKCLUSTER: &[(&str, &str)] = &[
    ("task-id", "TASK_ID"),
    ("run-id", "RUN_ID"),
    ("root-url", "TASKCLUSTER_ROOT_URL"),
    ("task-group-id", "TASK_GROUP_ID"),
    ("worker-pool", "TASKCLUSTER_WORKER_POOL"),
    ("worker-type", "TASKCLUSTER_WORKER_TYPE"),
    ("worker-group", "TASKCLUSTER_WORKER_GROUP"),
    ("worker-id", "TASKCLUSTER_WORKER_ID"),
    ("worker-location", "TASKCLUSTER_WORKER_LOCATION"),
    ("instance-type", "TASKCLUSTER_INSTANCE_TYPE"),
];

pub(super) fn taskcluster(variables: Variables<'_>) -> Result<Said, Unanswered> {
    required(variables, "TASK_ID", "")?;
    required(variables, "RUN_ID", "")?;
    let mut said = Said::default();
    said.claim(variables, TASKCLUSTER);
    Ok(said)
}

const JENKINS: &[(&str, &str)] = &[
    ("build-tag", "BUILD_TAG"),
    ("build-number", "BUILD_NUMBER"),
    ("build-url", "BUILD_URL"),
    ("job-name", "JOB_NAME"),
    ("node-name", "NODE_NAME"),
    ("node-labels", "NODE_LABELS"),
    ("executor-number", "EXECUTOR_NUMBER"),
    ("url", "JENKINS_URL"),
];

pub(super) fn jenkins(variables: Variables<'_>) -> Result<Said, Unanswered> {
    required(variables, "BUILD_TAG", "")?;
    required(variables, "JENKINS_URL", "")?;
    let mut said = Said::default();
    said.claim(variables, JENKINS);
    Ok(said)
}

#[cfg(test)]
mod tests {
    use custody_core::encoding::base64url;

    use super::*;

    fn from<'v>(all: &'v [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'v {
        |name| all.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn who_is_not_a_job_of_the_service_is_told_what_is_missing() {
        let none = from(&[]);
        let binding = Sha256::of(b"binding");
        let missing = [
            (github(&none, &binding), "ACTIONS_ID_TOKEN_REQUEST_URL"),
            (gitlab(&none), "CUSTODY_ID_TOKEN"),
            (buildkite(&none, &binding), "BUILDKITE_JOB_ID"),
            (taskcluster(&none), "TASK_ID"),
            (jenkins(&none), "BUILD_TAG"),
        ];
        for (said, name) in missing {
            assert!(said.unwrap_err().expected.starts_with(name));
        }
    }

    #[test]
    fn a_token_service_on_another_machine_is_spoken_to_over_tls() {
        let variables = from(&[
            ("ACTIONS_ID_TOKEN_REQUEST_URL", "http://192.0.2.1/token?api-version=2.0"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret"),
        ]);
        let fault = github(&variables, &Sha256::of(b"binding")).unwrap_err();
        assert_eq!(fault.found, "http:// to another machine");
    }

    #[test]
    fn a_token_of_gitlab_wins_over_the_environment() {
        let claims = r#"{"iss":"https://gitlab.com","sub":"project_path:a/b","project_path":"a/b","job_id":"17"}"#;
        let token = format!("e30.{}.c2ln", base64url(claims.as_bytes()));
        let all = [("CUSTODY_ID_TOKEN", &*token), ("CI_JOB_IMAGE", "rust:1"), ("CI_JOB_ID", "18")];
        let said = gitlab(&from(&all)).unwrap();
        let expected = [
            ("issuer", "https://gitlab.com"),
            ("subject", "project_path:a/b"),
            ("project-path", "a/b"),
            ("job-id", "17"),
            ("job-image", "rust:1"),
        ];
        assert_eq!(said.facts, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(said.parts.len(), 1);
    }

    #[test]
    fn taskcluster_and_jenkins_sign_nothing() {
        let said = taskcluster(&from(&[("TASK_ID", "abc"), ("RUN_ID", "0")])).unwrap();
        let expected = [("task-id", "abc"), ("run-id", "0")];
        assert_eq!(said.facts, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(said.parts.is_empty());
        let all =
            [("BUILD_TAG", "jenkins-x-1"), ("JENKINS_URL", "https://ci/"), ("NODE_NAME", "n")];
        let said = jenkins(&from(&all)).unwrap();
        assert!(said.parts.is_empty());
        assert_eq!(said.facts.len(), 3);
    }
}
