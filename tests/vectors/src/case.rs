//! Cases, and the files that they name.

use std::collections::BTreeMap;

use custody_core::Code;
use custody_core::digest::Sha256;
use custody_core::envelope::{Envelope, StatementId};
use custody_core::json::{Value, text_list};
use custody_core::key::KeyId;
use custody_core::statement::{Attestation, Label};
use custody_core::time::Time;
use custody_machine::Facts;
use custody_verify::{Expectation, Floor, Question, Subject};

use crate::keys::Random;

/// What is put before the verifier.
#[derive(Clone)]
#[expect(clippy::large_enum_variant, reason = "each is made once and written out")]
pub(crate) enum What {
    Envelope(Signed),
    /// The bytes, and whether a writer would write them so.
    Statement(Vec<u8>, bool),
    Policy(String),
    Policies(Rotation),
    /// The bytes, and what stands in them.
    Bundle(Vec<u8>, Vec<StatementId>),
    Chain(Chain),
    Attested(Attested),
}

/// An envelope, and who must have signed it.
#[derive(Clone)]
pub(crate) struct Signed {
    pub(crate) input: Vec<u8>,
    pub(crate) payload_type: &'static str,
    pub(crate) threshold: u64,
    pub(crate) keys: Vec<Who>,
    pub(crate) origins: Vec<&'static str>,
}

/// A principal with keys, each as a policy says it: the key, and whether it must check its user.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) name: &'static str,
    pub(crate) is_person: bool,
    pub(crate) keys: Vec<(String, bool)>,
}

/// What a platform signed, and what it is held against.
#[derive(Clone)]
pub(crate) struct Attested {
    /// The text of a policy that knows the platform.
    pub(crate) policy: String,
    pub(crate) attestation: Attestation,
    pub(crate) purpose: Sha256,
    pub(crate) key: KeyId,
    pub(crate) now: Time,
    /// What it proves, if it does.
    pub(crate) facts: Facts,
    pub(crate) bound: bool,
}

/// Policies, and the version that decides in the end.
#[derive(Clone)]
pub(crate) struct Rotation {
    pub(crate) pin: StatementId,
    pub(crate) policies: Vec<Envelope>,
    pub(crate) floor: Option<Floor>,
    pub(crate) newest: u64,
}

/// A question with everything that the answer depends on.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) pin: StatementId,
    pub(crate) policies: Vec<Envelope>,
    pub(crate) evidence: Vec<Envelope>,
    pub(crate) now: Time,
    pub(crate) question: Question,
    pub(crate) floor: Option<Floor>,
    /// What is in the file that is asked about, for those who must be given a file.
    pub(crate) content: Option<Vec<u8>>,
}

/// All cases and files, by path.
pub(crate) struct Set {
    files: BTreeMap<String, Vec<u8>>,
    pub(crate) random: Random,
}

/// What a case shows, for which rows of the catalogue it stands, and what it shows it with.
pub(crate) struct About<'a>(pub(crate) &'a str, pub(crate) &'a [&'a str]);

impl Set {
    pub(crate) fn new() -> Self {
        Self { files: BTreeMap::new(), random: Random::read() }
    }

    pub(crate) fn finish(self) -> (BTreeMap<String, Vec<u8>>, String) {
        (self.files, self.random.finish())
    }

    pub(crate) fn group(&mut self, name: &'static str) -> Group<'_> {
        Group { set: self, name }
    }

    fn file(&mut self, bytes: &[u8]) -> Value<'static> {
        let digest = Sha256::of(bytes).to_string();
        self.files.insert(format!("files/{digest}"), bytes.to_vec());
        Value::text(digest)
    }

    fn envelopes(&mut self, envelopes: &[Envelope]) -> Value<'static> {
        let mut names: Vec<String> = envelopes
            .iter()
            .map(|envelope| self.file(envelope.to_json().as_bytes()))
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect();
        names.sort_unstable();
        text_list(names)
    }
}

/// The cases of one folder.
pub(crate) struct Group<'s> {
    pub(crate) set: &'s mut Set,
    name: &'static str,
}

impl Group<'_> {
    pub(crate) fn accept(&mut self, name: &str, about: About<'_>, what: &What) {
        let members = self.members(about, None, what);
        let members = members.with("verdict", Some(Value::text("accepted")));
        let members = match what {
            What::Statement(_, canonical) => {
                members.with("canonical", Some(Value::Bool(*canonical)))
            }
            What::Policies(rotation) => {
                members.with("newest", Some(Value::Integer(rotation.newest)))
            }
            What::Bundle(_, statements) => {
                let mut ids: Vec<String> = statements.iter().map(ToString::to_string).collect();
                ids.sort_unstable();
                members.with("statements", Some(text_list(ids)))
            }
            What::Attested(attested) => {
                let facts = attested.facts.iter();
                let facts = named(facts.map(|(name, value)| (name.clone(), Value::text(value))));
                members.with("facts", Some(facts)).with("bound", Some(Value::Bool(attested.bound)))
            }
            What::Envelope(_) | What::Policy(_) | What::Chain(_) => members,
        };
        self.write(name, &members);
    }

    /// A case that is refused with this code, where `control`, of this or the named group, is accepted.
    pub(crate) fn reject(
        &mut self,
        name: &str,
        control: &str,
        code: Code,
        about: About<'_>,
        what: &What,
    ) {
        let control = if control.contains('/') {
            control.to_owned()
        } else {
            format!("{}/{control}", self.name)
        };
        let members = self.members(about, Some(control), what);
        let members = members
            .with("verdict", Some(Value::text("rejected")))
            .with("code", Some(Value::text(code)));
        self.write(name, &members);
    }

    fn write(&mut self, name: &str, case: &Value<'_>) {
        let path = format!("cases/{}/{name}.json", self.name);
        let before = self.set.files.insert(path, (case.to_pretty() + "\n").into_bytes());
        assert!(before.is_none(), "two cases {}/{name}", self.name);
    }

    fn members(
        &mut self,
        About(about, rows): About<'_>,
        control: Option<String>,
        what: &What,
    ) -> Value<'static> {
        let kind = match what {
            What::Envelope(_) => "envelope",
            What::Statement(..) => "statement",
            What::Policy(_) => "policy",
            What::Policies(_) => "policies",
            What::Bundle(..) => "bundle",
            What::Chain(_) => "chain",
            What::Attested(_) => "attestation",
        };
        let members = Value::object([
            ("kind", Value::text(kind)),
            ("about", Value::text(about)),
            ("rows", text_list(rows)),
        ])
        .with("control", control.map(Value::text));
        match what {
            What::Envelope(signed) => members
                .with("input", Some(self.set.file(&signed.input)))
                .with("payloadType", Some(Value::text(signed.payload_type)))
                .with("threshold", Some(Value::Integer(signed.threshold)))
                .with("keys", Some(Value::list(signed.keys.iter().map(who))))
                .with("origins", Some(text_list(&signed.origins))),
            What::Statement(input, _) | What::Bundle(input, _) => {
                members.with("input", Some(self.set.file(input)))
            }
            What::Policy(text) => members.with("input", Some(self.set.file(text.as_bytes()))),
            What::Policies(rotation) => members
                .with("pin", Some(Value::text(rotation.pin)))
                .with("policies", Some(self.set.envelopes(&rotation.policies)))
                .with("floor", rotation.floor.map(floor)),
            What::Chain(chain) => {
                if let Some(content) = &chain.content {
                    self.set.file(content);
                }
                members
                    .with("pin", Some(Value::text(chain.pin)))
                    .with("policies", Some(self.set.envelopes(&chain.policies)))
                    .with("evidence", Some(self.set.envelopes(&chain.evidence)))
                    .with("now", Some(Value::text(chain.now)))
                    .with("question", Some(question(&chain.question)))
                    .with("floor", chain.floor.map(floor))
            }
            What::Attested(attested) => {
                let parts = attested.attestation.parts.iter();
                let part =
                    |(name, bytes): &(Label, Vec<u8>)| (name.to_string(), self.set.file(bytes));
                let parts = named(parts.map(part));
                members
                    .with("policy", Some(self.set.file(attested.policy.as_bytes())))
                    .with("platform", Some(Value::text(&attested.attestation.platform)))
                    .with("parts", Some(parts))
                    .with("purpose", Some(Value::text(attested.purpose)))
                    .with("key", Some(Value::text(attested.key)))
                    .with("now", Some(Value::text(attested.now)))
            }
        }
    }
}

/// An object of members whose names are not known here.
pub(crate) fn named(members: impl Iterator<Item = (String, Value<'static>)>) -> Value<'static> {
    Value::Object(members.map(|(name, value)| (name.into(), value)).collect())
}

fn who(who: &Who) -> Value<'static> {
    let key = |(key, checks_user): &(String, bool)| {
        Value::object([("key", Value::text(key))])
            .with("user-verification", checks_user.then_some(Value::Bool(true)))
    };
    Value::object([
        ("name", Value::text(who.name)),
        ("kind", Value::text(if who.is_person { "person" } else { "machine" })),
        ("keys", Value::list(who.keys.iter().map(key))),
    ])
}

fn floor(floor: Floor) -> Value<'static> {
    Value::object([
        ("version", Value::Integer(floor.version)),
        ("policy", Value::text(floor.policy)),
        ("time", Value::text(floor.time)),
    ])
}

fn question(question: &Question) -> Value<'static> {
    let subject = match &question.subject {
        Subject::Task(id) => Value::object([("task", Value::text(id))]),
        Subject::Artifact { name, digests, size } => {
            let digest = Value::object([("sha256", Value::text(digests.sha256))])
                .with("sha512", digests.sha512.map(Value::text));
            let file = Value::object([
                ("name", Value::text(name)),
                ("size", Value::Integer(*size)),
                ("digest", digest),
            ]);
            Value::object([("file", file)])
        }
        Subject::Documents(_) => unreachable!("no case asks about a whole release"),
    };
    let Expectation { product, version, channel, instance, step, machine: _ } = &question.expect;
    let text = |label: &Option<_>| label.as_ref().map(Value::text);
    let expect = Value::object([])
        .with("product", text(product))
        .with("version", text(version))
        .with("channel", text(channel))
        .with("instance", text(instance))
        .with("step", text(step));
    subject.with("expect", Some(expect))
}
