//! A release with everything that can be in one, signed by one key for each who signs.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, Payload, PolicyText, Signature, StatementId};
use custody_core::key::PublicKey;
use custody_core::statement::{
    Approver, Artifact, Authorization, Decision, EarlierManifest, Input, InputOrigin, Intent,
    Limits, Manifest, Origin, Pipeline, PolicyRef, ReleaseId, Request, Resolution, Resolve,
    Revision, Signoff, Source, Stage, Statement, Summary, Task, UsedInput, VerificationResult,
};
use custody_core::time::Time;
use custody_store::{Kind, Store};

/// What a key claims to have signed.
pub(crate) fn signature(seed: u8, envelope: &Envelope) -> Signature {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    Signature {
        keyid: Some(key(seed).id().to_string()),
        sig: pair.sign(envelope.pae()).as_ref().to_vec(),
    }
}

pub(crate) fn key(seed: u8) -> PublicKey {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
    PublicKey::Ed25519(pair.public_key().as_ref().try_into().unwrap())
}

pub(crate) fn signed(seed: u8, statement: impl Into<Statement>) -> Envelope {
    let mut envelope = statement.into().to_envelope();
    let signature = signature(seed, &envelope);
    envelope.add_signature(signature);
    envelope
}

pub(crate) fn policy(version: u64) -> Envelope {
    let text = format!("# a policy\nversion = {version}\n\n[root]\nversion = 99\n");
    let mut envelope = Envelope::unsigned::<PolicyText>(text.into_bytes());
    let signature = signature(1, &envelope);
    envelope.add_signature(signature);
    envelope
}

/// An envelope of a payload type that nobody here knows.
pub(crate) fn foreign(text: &str) -> Envelope {
    let payload = custody_core::encoding::base64(text.as_bytes());
    let json = format!(
        r#"{{"payloadType":"text/plain","payload":"{payload}","signatures":[{{"sig":"AAAA"}}]}}"#
    );
    Envelope::parse(json.as_bytes()).unwrap()
}

fn at(seconds: u64) -> Time {
    Time::from_unix(1_795_000_000).unwrap().plus(seconds)
}

pub(crate) fn artifact(name: &str) -> Artifact {
    Artifact { name: name.parse().unwrap(), digests: Sha256::of(name.as_bytes()).into(), size: 1 }
}

fn source() -> Source {
    Source { uri: "https://example.org/hello".into(), revision: Revision::Git("ab".repeat(20)) }
}

fn nonce(label: &str) -> String {
    Sha256::of(label.as_bytes()).to_string()[..32].to_owned()
}

pub(crate) fn request(label: &str, policy: StatementId, builds_on: &[StatementId]) -> Request {
    let earlier = |manifest: &StatementId| EarlierManifest {
        step: "build".parse().unwrap(),
        manifest: *manifest,
        artifacts: 1,
        bytes: 5,
    };
    Request {
        release: ReleaseId {
            product: "hello".parse().unwrap(),
            version: "1.0".parse().unwrap(),
            channel: "release".parse().unwrap(),
            instance: "production".parse().unwrap(),
        },
        phase: "promote".parse().unwrap(),
        source: source(),
        pipeline: Pipeline {
            path: "pipeline.toml".parse().unwrap(),
            sha256: Sha256::of(b"pipeline"),
        },
        policy: PolicyRef { version: 1, id: policy },
        builds_on: builds_on.iter().map(earlier).collect(),
        parameters: Vec::new(),
        created: at(0),
        expires: at(1000),
        nonce: nonce(label),
    }
}

pub(crate) fn signoff(
    request: &Envelope,
    seed: u8,
    decision: Decision,
    withdraws: Option<StatementId>,
) -> Envelope {
    let person = format!("person-{seed}").parse().unwrap();
    let parsed = Statement::parse(request.unverified_payload()).unwrap();
    let request_statement = parsed.as_request().unwrap();
    let signoff = Signoff::of(
        request_statement,
        request.id(),
        decision,
        person,
        "release-manager".parse().unwrap(),
        at(10),
    );
    signed(seed, Signoff { withdraws, ..signoff })
}

fn authorization(request: StatementId, signoffs: &[StatementId]) -> Envelope {
    let approver = |signoff: &StatementId| Approver {
        person: "alice".parse().unwrap(),
        role: "release-manager".parse().unwrap(),
        signoff: *signoff,
    };
    let approvers = signoffs.iter().map(approver).collect();
    signed(20, Authorization { request, approvers, not_before: at(20), expires: at(900) })
}

pub(crate) fn task(
    step: &str,
    authorization: StatementId,
    origins: &[Origin],
    nonce_of: &str,
) -> Envelope {
    let input = |origin: &Origin| Input {
        origin: *origin,
        directory: "build".parse().unwrap(),
        patterns: vec!["**".parse().unwrap()],
    };
    let task = Task {
        authorization,
        step: step.parse().unwrap(),
        creator: "cli/plan".into(),
        command: vec!["make".into()],
        image: None,
        limits: Limits::default(),
        destination: None,
        variables: Vec::new(),
        network: false,
        downloads: None,
        inputs: origins.iter().map(input).collect(),
        source: None,
        externals: Vec::new(),
        outputs: vec!["**".parse().unwrap()],
        sha512: false,
        created: at(30),
        deadline: at(800),
        nonce: nonce(nonce_of),
    };
    signed(21, task)
}

pub(crate) fn manifest(
    task: StatementId,
    made: &str,
    used: &[(&str, StatementId)],
    run: &str,
) -> Envelope {
    let input = |(name, manifest): &(&str, StatementId)| UsedInput {
        artifact: artifact(name),
        origin: InputOrigin::Manifest(*manifest),
    };
    let manifest = Manifest {
        artifacts: vec![artifact(made)],
        task,
        step: "build".parse().unwrap(),
        command: vec!["make".into()],
        destination: None,
        creator: "cli/plan".into(),
        environment: Vec::new(),
        attestations: Vec::new(),
        enrolment: None,
        agreeing: Vec::new(),
        signed_source: None,
        submodules: Vec::new(),
        image: None,
        source: None,
        upstream: used.iter().map(|(_, id)| *id).collect(),
        inputs: used.iter().map(input).collect(),
        builder: "https://example.org/worker".into(),
        invocation: run.into(),
        started: at(40),
        finished: at(50),
        log: None,
    };
    signed(22, manifest)
}

fn intent(task: StatementId, stage: Stage) -> Envelope {
    let destination = "file:///srv/hello".into();
    signed(
        23,
        Intent {
            task,
            stage,
            destination,
            artifacts: vec![artifact("app.signed")],
            created: at(60),
        },
    )
}

/// Two phases of a release; the second rests on the first.
pub(crate) struct Release {
    pub(crate) policy: Envelope,
    pub(crate) newer_policy: Envelope,
    pub(crate) request: Envelope,
    pub(crate) approval: Envelope,
    pub(crate) refusal: Envelope,
    pub(crate) withdrawal: Envelope,
    pub(crate) authorization: Envelope,
    pub(crate) build: Envelope,
    pub(crate) sign: Envelope,
    pub(crate) built: Envelope,
    pub(crate) built_again: Envelope,
    pub(crate) signed: Envelope,
    pub(crate) ship: Envelope,
    pub(crate) ship_approval: Envelope,
    pub(crate) ship_authorization: Envelope,
    pub(crate) publish: Envelope,
    pub(crate) announced: Envelope,
    pub(crate) done: Envelope,
    pub(crate) resolution: Envelope,
    pub(crate) published: Envelope,
}

impl Release {
    pub(crate) fn new(label: &str) -> Self {
        let policy = policy(1);
        let request = signed(10, request(label, policy.id(), &[]));
        let approval = signoff(&request, 11, Decision::Approve, None);
        let refusal = signoff(&request, 12, Decision::Refuse, None);
        let withdrawal = signoff(&request, 11, Decision::Withdraw, Some(approval.id()));
        let authorization = authorization(request.id(), &[approval.id()]);
        let build = task("build", authorization.id(), &[], &format!("{label} build"));
        let sign =
            task("sign", authorization.id(), &[Origin::Task(build.id())], &format!("{label} sign"));
        let built = manifest(build.id(), "app", &[], "1");
        let built_again = manifest(build.id(), "app", &[], "2");
        let signed_app = manifest(sign.id(), "app.signed", &[("app", built.id())], "1");
        let earlier = [("app.signed", signed_app.id())];
        let ship = self::request(&format!("{label} ship"), policy.id(), &[signed_app.id()]);
        let ship = signed(10, ship);
        let ship_approval = signoff(&ship, 11, Decision::Approve, None);
        let ship_authorization = self::authorization(ship.id(), &[ship_approval.id()]);
        let origins = [Origin::Manifest(signed_app.id())];
        let publish =
            task("publish", ship_authorization.id(), &origins, &format!("{label} publish"));
        let resolution = Resolution {
            task: build.id(),
            resolve: Resolve::Supersede(built.id()),
            person: "alice".parse().unwrap(),
            reason: "the second run was a test".into(),
            created: at(70),
        };
        Self {
            newer_policy: self::policy(2),
            announced: intent(publish.id(), Stage::Announced),
            done: intent(publish.id(), Stage::Done),
            resolution: signed(11, resolution),
            published: manifest(publish.id(), "app.signed", &earlier, "1"),
            signed: signed_app,
            policy,
            request,
            approval,
            refusal,
            withdrawal,
            authorization,
            build,
            sign,
            built,
            built_again,
            ship,
            ship_approval,
            ship_authorization,
            publish,
        }
    }

    /// Everything, in an order in which it could arrive.
    pub(crate) fn all(&self) -> Vec<Envelope> {
        let mut all = self.first_phase();
        all.extend(
            [
                &self.ship,
                &self.ship_approval,
                &self.ship_authorization,
                &self.publish,
                &self.announced,
                &self.done,
                &self.published,
            ]
            .map(Clone::clone),
        );
        all
    }

    pub(crate) fn first_phase(&self) -> Vec<Envelope> {
        [
            &self.policy,
            &self.newer_policy,
            &self.request,
            &self.approval,
            &self.refusal,
            &self.withdrawal,
            &self.authorization,
            &self.build,
            &self.sign,
            &self.built,
            &self.built_again,
            &self.resolution,
            &self.signed,
        ]
        .map(Clone::clone)
        .to_vec()
    }

    /// A gate's word on the published file.
    pub(crate) fn summary(&self) -> Envelope {
        let summary = Summary {
            artifacts: vec![artifact("app.signed")],
            verifier: "https://example.org/gate".into(),
            verified: at(80),
            resource_uri: "custody:hello/1.0/release/production".into(),
            policy_uri: "policy.toml".into(),
            policy: self.policy.id(),
            inputs: vec![self.signed.id()],
            result: VerificationResult::Passed,
            levels: vec!["CUSTODY".into()],
        };
        signed(24, summary)
    }
}

/// What some statements rest on; that each is of the kind that it says itself.
pub(crate) fn closure(store: &Store, roots: &[StatementId]) -> Vec<Envelope> {
    let found = store.closure(roots).unwrap();
    for (kind, envelope) in &found {
        assert_eq!(*kind, Kind::of(envelope));
    }
    found.into_iter().map(|(_, envelope)| envelope).collect()
}

/// The ids of envelopes, sorted.
pub(crate) fn ids<'e>(envelopes: impl IntoIterator<Item = &'e Envelope>) -> Vec<StatementId> {
    let mut ids: Vec<_> = envelopes.into_iter().map(Envelope::id).collect();
    ids.sort_unstable();
    ids
}
