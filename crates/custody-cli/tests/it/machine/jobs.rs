//! Jobs of CI services prove what they are, where the service signs something.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use custody_core::key::PublicKey;
use custody_core::statement::binding;
use custody_machine::{Platform, Preset, TokenIssuer};
use custody_platforms::token::Issuer;

use super::http::Server;
use super::services::{self, now};
use super::{assert_claimed, fact, issuer, manifest, proof, task, with};
use crate::world::World;

#[test]
fn a_job_of_github_proves_what_it_is() {
    let world = World::fresh();
    let github = Arc::new(Issuer::new("https://token.actions.githubusercontent.com"));
    let platform = issuer(&github, Preset::Github);
    let server = Server::start("127.0.0.1:0", move |request| services::github(&github, request));
    let line = format!("{} --platform github", world.run_line(&task(&world)));
    let place = format!("http://127.0.0.1:{}/id-token?api-version=2.0", server.port);
    let job = |secret| {
        let variables = [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", place.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", secret),
            ("GITHUB_REPOSITORY", "evil/repository"),
            ("RUNNER_NAME", "runner-7"),
        ];
        with(&world, &line, &variables)
    };
    // without the permission to have a token there is no service, and with another job's secret no token
    with(&world, &line, &[("GITHUB_ACTIONS", "true")]).refused("GATE_UNAVAILABLE");
    job("of-another-job").refused("GATE_UNAVAILABLE");
    let manifest = manifest(&world, &job("of-the-job").done());
    assert_eq!(fact(&manifest, "github.repository"), Some("example/hello"));
    assert_eq!(fact(&manifest, "github.runner-name"), Some("runner-7"));
    let proof = proof(&world, &manifest, &platform).unwrap();
    assert!(proof.bound && !proof.facts.contains_key("github.runner-name"));
    assert_claimed(&manifest, &proof);
    let text = world.done(&format!("evidence get {} --store store", world.list("manifest")[0])).out;
    assert!(!text.contains("of-the-job"), "the secret stays where it was");
}

#[test]
fn a_job_of_gitlab_shows_the_token_that_it_has() {
    let world = World::fresh();
    let gitlab = Issuer::new("https://gitlab.com");
    let token = gitlab.gitlab("https://custody.example.org", now());
    let line = format!("{} --platform gitlab", world.run_line(&task(&world)));
    world.refused(&line, "GATE_UNAVAILABLE");
    let variables = [("CUSTODY_ID_TOKEN", &*token), ("CI_RUNNER_DESCRIPTION", "farm 7")];
    let manifest = manifest(&world, &with(&world, &line, &variables).done());
    let Platform::Token(known) = issuer(&gitlab, Preset::Gitlab) else { unreachable!() };
    let audience = Some("https://custody.example.org".into());
    let proof = proof(&world, &manifest, &Platform::Token(TokenIssuer { audience, ..known }));
    assert_claimed(&manifest, &proof.unwrap());
    assert_eq!(fact(&manifest, "gitlab.runner-description"), Some("farm 7"));
}

/// The agent of Buildkite is a program; this one stands for it.
#[test]
fn a_job_of_buildkite_proves_what_it_is() {
    let world = World::fresh();
    let buildkite = Issuer::new("https://agent.buildkite.com");
    let task = task(&world);
    let key = PublicKey::parse(&world.public("builder")).unwrap();
    let audience = custody_machine::audience(&binding(&task.parse().unwrap(), &key.id()));
    world.write("token", buildkite.buildkite(&audience, now()));
    let agent = format!(
        "#!/bin/sh\n[ \"$*\" = 'oidc request-token --audience {audience}' ] && [ \"$BUILDKITE_AGENT_ACCESS_TOKEN\" = secret ] &&\n\
         [ -z \"$AWS_SECRET_ACCESS_KEY\" ] && exec cat {}\necho 'not this job' >&2\nexit 1\n",
        world.path("token").display()
    );
    world.write("bin/buildkite-agent", agent);
    fs::set_permissions(world.path("bin/buildkite-agent"), fs::Permissions::from_mode(0o755))
        .unwrap();
    let line = format!("{} --platform buildkite", world.run_line(&task));
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    let job = |secret| {
        let variables = [
            ("PATH", path.as_str()),
            ("BUILDKITE_JOB_ID", "0184990a-477b-4fa8-9968-496074483cee"),
            ("BUILDKITE_AGENT_ACCESS_TOKEN", secret),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ];
        with(&world, &line, &variables)
    };
    let refused = job("another").refused("GATE_UNAVAILABLE");
    assert!(refused.out.contains("not this job"), "{refused:#?}");
    let manifest = manifest(&world, &job("secret").done());
    let proof = proof(&world, &manifest, &issuer(&buildkite, Preset::Buildkite)).unwrap();
    assert_claimed(&manifest, &proof);
}

/// `wrk-tenant-writes-claims`: what a task's variables and files say of the machine is not taken for the
/// machine's word, also where the machine has nothing but words.
#[test]
fn a_task_says_nothing_of_its_machine() {
    let world = World::fresh();
    let command = "mkdir dist; echo x > dist/x; for name in attestations platform.json environment; do \
                   echo '{{\"taskcluster.task-id\":\"evil\",\"ec2.image-id\":\"ami-evil\"}}' > $name; done; \
                   export RUN_ID=9 BUILD_TAG=evil";
    let variables = "variables = { TASK_ID = \"evil\", RUN_ID = \"evil\", BUILD_TAG = \"evil\", \
                     CUSTODY_ID_TOKEN = \"e30.e30.e30\" }";
    let task = world.build_task(command, variables);
    let line = format!("{} --platform taskcluster --platform jenkins", world.run_line(&task));
    // the task's variables are not the worker's
    world.refused(&line, "GATE_UNAVAILABLE");
    let variables = [
        ("TASK_ID", "fN1SbArXTPSVFNUvaOlinQ"),
        ("RUN_ID", "0"),
        ("TASKCLUSTER_WORKER_GROUP", "us-west-2"),
        ("BUILD_TAG", "jenkins-hello-17"),
        ("JENKINS_URL", "https://ci.example.org/"),
        ("NODE_NAME", "a\u{202e}b"),
    ];
    let manifest = manifest(&world, &with(&world, &line, &variables).done());
    assert!(manifest.attestations.is_empty());
    assert_eq!(fact(&manifest, "taskcluster.task-id"), Some("fN1SbArXTPSVFNUvaOlinQ"));
    assert_eq!(fact(&manifest, "taskcluster.run-id"), Some("0"));
    assert_eq!(fact(&manifest, "jenkins.build-tag"), Some("jenkins-hello-17"));
    assert_eq!(fact(&manifest, "jenkins.node-name"), None);
    assert!(!format!("{:?}", manifest.environment).contains("evil"));
}

#[test]
fn platforms_have_names_of_their_own() {
    let world = World::fresh();
    let line = world.run_line(&task(&world));
    let twice = format!("{line} --platform ec2 --platform ec2");
    world.refused(&twice, "STMT_SUBJECT_DUPLICATE");
    for wrong in ["--platform vax", "--platform =ec2", "--platform tpm", "--tpm-pcrs 24"] {
        world.custody(&format!("{line} {wrong}")).ended(2);
    }
    world.done(&line);
}
