//! Puts a case, as it lies in the files, before the library.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use custody_core::digest::Digests;
use custody_core::envelope::{Envelope, Payload, PolicyText, Signer, StatementId};
use custody_core::json::{self, Object, Value};
use custody_core::statement::{Attestation, Label, Statement, binding};
use custody_core::time::Time;
use custody_core::{Code, Refusal};
use custody_machine::Context;
use custody_store::bundle;
use custody_verify::{
    Evidence, Expectation, Floor, Policy, PolicyChain, Question, Subject, verify,
};
use custody_world::Key;

use crate::case::named;

/// What came of a case.
#[derive(Debug)]
pub struct Judged {
    /// What the case's own words are: `kind`, `about`, `rows`, `control`, `verdict`, `code`.
    pub kind: String,
    pub rows: Vec<String>,
    pub control: Option<String>,
    /// Whether it is to be accepted, and with which code it is to be refused.
    pub expected: Result<(), Code>,
    /// What the library said: nothing wrong, or the codes of all that is.
    pub found: Result<(), Vec<Code>>,
}

/// Judges the case in these bytes; `file` gives the bytes of a file by its name.
pub fn judge(case: &[u8], file: &dyn Fn(&str) -> Vec<u8>) -> Judged {
    read(case, file).unwrap_or_else(|refusal| panic!("no case: {refusal}"))
}

fn read(case: &[u8], file: &dyn Fn(&str) -> Vec<u8>) -> Result<Judged, Refusal> {
    let mut case = json::parse(case, 1 << 20, 1 << 20)?.into_object("case")?;
    let kind = case.text("kind")?;
    case.text("about")?;
    let rows = case.each("rows", Value::into_text)?;
    let control = case.optional_text("control")?;
    let accepted = match case.text("verdict")?.as_str() {
        "accepted" => true,
        "rejected" => false,
        other => panic!("verdict {other}"),
    };
    let expected =
        if accepted { Ok(()) } else { Err(Code::from_name(&case.text("code")?).unwrap()) };
    let found = match kind.as_str() {
        "envelope" => envelope(&mut case, file)?.map_err(only),
        "statement" => statement(&file(&case.text("input")?), &mut case).map_err(only),
        "policy" => policy(&file(&case.text("input")?)).map_err(only),
        "policies" => policies(&mut case, file)?.map_err(only),
        "bundle" => bundle(&file(&case.text("input")?), &mut case).map_err(only),
        "chain" => chain(&mut case, file)?,
        "attestation" => attestation(&mut case, file)?.map_err(only),
        other => panic!("kind {other}"),
    };
    case.finish()?;
    Ok(Judged { kind, rows, control, expected, found })
}

fn only(refusal: Refusal) -> Vec<Code> {
    vec![refusal.code]
}

type Files<'f> = &'f dyn Fn(&str) -> Vec<u8>;

fn envelopes(case: &mut Object<'_>, name: &str, file: Files<'_>) -> Result<Vec<Envelope>, Refusal> {
    case.each(name, |value, at| Envelope::parse(&file(&value.into_text(at)?)))
}

fn floor(case: &mut Object<'_>) -> Result<Option<Floor>, Refusal> {
    let Some(value) = case.optional("floor") else { return Ok(None) };
    let mut floor = value.into_object("floor")?;
    let read = Floor {
        version: floor.integer("version")?,
        policy: floor.parsed("policy")?,
        time: floor.parsed("time")?,
    };
    floor.finish()?;
    Ok(Some(read))
}

fn envelope(case: &mut Object<'_>, file: Files<'_>) -> Result<Result<(), Refusal>, Refusal> {
    let input = file(&case.text("input")?);
    let payload_type = case.text("payloadType")?;
    let threshold = case.integer("threshold")?.try_into().ok().and_then(NonZeroU32::new).unwrap();
    let origins = case.each("origins", Value::into_text)?;
    let mut allowed = BTreeSet::new();
    let mut people = String::new();
    let mut machines = String::new();
    for principal in case.list("keys")? {
        let mut principal = principal.into_object("keys")?;
        let name: Label = principal.parsed("name")?;
        let is_person = principal.text("kind")? == "person";
        let keys = principal.each("keys", |value, at| {
            let mut key = value.into_object(at)?;
            let text = key.text("key")?;
            let more = key.optional("user-verification").is_some();
            key.finish()?;
            Ok(format!(
                "{{ key = {text:?}{} }}",
                if more { ", user-verification = true" } else { "" }
            ))
        })?;
        principal.finish()?;
        let (table, list) =
            if is_person { ("people", &mut people) } else { ("machines", &mut machines) };
        list.push_str(&format!("[{table}.{name}]\nkeys = [{}]\n", keys.join(", ")));
        allowed.insert(name);
    }
    let policy = match Policy::parse(&policy_of(&people, &machines, &origins)) {
        Ok(policy) => policy,
        Err(fault) => return Ok(Err(fault.into())),
    };
    let names: Vec<&str> = allowed.iter().map(Label::as_str).collect();
    let entitled =
        |signer: &Signer| policy.entitled(signer, &allowed, Time::EPOCH, &names.join(", "));
    Ok(Envelope::parse(&input).and_then(|envelope| match payload_type.as_str() {
        Statement::TYPE => opened::<Statement>(&envelope, &policy, threshold, entitled),
        PolicyText::TYPE => opened::<PolicyText>(&envelope, &policy, threshold, entitled),
        other => panic!("payload type {other}"),
    }))
}

fn opened<P: Payload>(
    envelope: &Envelope,
    policy: &Policy,
    threshold: NonZeroU32,
    entitled: impl Fn(&Signer) -> Result<String, Refusal>,
) -> Result<(), Refusal> {
    let signed = envelope.open::<P>(&policy.keyring())?;
    signed.by_ref().verify(threshold, entitled).map(|_| ())
}

/// A policy in which these people and machines are all that is left to say. Two more stand in it so
/// that it is whole.
fn policy_of(people: &str, machines: &str, origins: &[String]) -> String {
    let names = |tables: &str| {
        let name = |line: &str| line.split_once('.')?.1.strip_suffix(']').map(|n| format!("{n:?}"));
        let names = tables.lines().filter(|line| line.starts_with('['));
        names.filter_map(name).map(|name| format!(", {name}")).collect::<String>()
    };
    let key = |name: &str| Key::of(name).public.to_openssh();
    let origins =
        if origins.is_empty() { String::new() } else { format!("origins = {origins:?}\n") };
    format!(
        r#"policy = "https://custody.dev/policy/v1"
version = 1
expires = "2030-01-01T00:00:00Z"
instance = "production"
clock-skew = "5m"
{origins}
[root]
people = ["nobody-else"]
threshold = 1
[people.nobody-else]
keys = [{{ key = "{}" }}]
{people}
[machines.nothing-else]
keys = [{{ key = "{}" }}]
{machines}
[roles.all]
members = ["nobody-else"{}]
[products.any]
source = "https://git.example.org/any"
channels = ["release"]
desk = ["nothing-else"{}]
propose = ["all"]
resolve = ["all"]
[products.any.phases.one]
approve = [{{ role = "all", count = 1 }}]
proposer-counts = true
sign-off-max-age = "1d"
after = []
[products.any.steps.one]
phase = "one"
perform = ["nothing-else"]
schedule = ["nothing-else"]
source = true
inputs = []
outputs = ["*"]
network = false
verification = "full"
irrevocable = false
max-age = "1d"
receipts = "none"
"#,
        key("nobody-else"),
        key("nothing-else"),
        names(people),
        names(machines),
    )
}

/// An accepted case says more than that; one that is accepted by mistake is told elsewhere.
fn says(said: Option<Value<'_>>, found: &Value<'_>, member: &str) {
    if let Some(said) = said {
        assert_eq!(said, *found, "{member}");
    }
}

fn statement(input: &[u8], case: &mut Object<'_>) -> Result<(), Refusal> {
    let canonical = case.optional("canonical");
    let statement = Statement::parse(input)?;
    let same = statement.to_json().as_bytes() == input;
    says(canonical, &Value::Bool(same), "canonical");
    Ok(())
}

fn policy(input: &[u8]) -> Result<(), Refusal> {
    Ok(Policy::parse(&PolicyText::parse(input)?.0).map(|_| ())?)
}

fn policies(case: &mut Object<'_>, file: Files<'_>) -> Result<Result<(), Refusal>, Refusal> {
    let pin: StatementId = case.parsed("pin")?;
    let newest = case.optional("newest");
    let all = envelopes(case, "policies", file)?;
    Ok(PolicyChain::establish(pin, &all, floor(case)?).map(|chain| {
        says(newest, &Value::Integer(chain.newest().1.version), "newest");
    }))
}

fn bundle(input: &[u8], case: &mut Object<'_>) -> Result<(), Refusal> {
    let statements = case.optional("statements");
    let read: Evidence = bundle::read(input)?.into_iter().collect();
    let found = Value::list(read.iter().map(|envelope| Value::text(envelope.id())));
    says(statements, &found, "statements");
    Ok(())
}

fn attestation(case: &mut Object<'_>, file: Files<'_>) -> Result<Result<(), Refusal>, Refusal> {
    let policy = PolicyText::parse(&file(&case.text("policy")?))?;
    let policy = Policy::parse(&policy.0).unwrap();
    let name: Label = case.parsed("platform")?;
    let parts = case.map("parts")?;
    let parts = parts.into_iter().map(|(name, bytes)| (name.parse().unwrap(), file(&bytes)));
    let attestation = Attestation { platform: name, parts: parts.collect() };
    let context = Context {
        binding: binding(&case.parsed("purpose")?, &case.parsed("key")?),
        at: case.parsed("now")?,
        skew: policy.clock_skew,
    };
    let (facts, bound) = (case.optional("facts"), case.optional("bound"));
    let Some(platform) = policy.platforms.get(&attestation.platform) else {
        let at = attestation.platform.to_string();
        return Ok(Err(Refusal::new(Code::WorkerIdentityUnverified, at, "a platform", "none")));
    };
    Ok(custody_machine::verify(&attestation, platform, &context).map(|proof| {
        let proven = proof.facts.iter();
        let proven = named(proven.map(|(name, value)| (name.clone(), Value::text(value.clone()))));
        says(facts, &proven, "facts");
        says(bound, &Value::Bool(proof.bound), "bound");
    }))
}

fn chain(case: &mut Object<'_>, file: Files<'_>) -> Result<Result<(), Vec<Code>>, Refusal> {
    let pin: StatementId = case.parsed("pin")?;
    let policies = envelopes(case, "policies", file)?;
    let evidence: Evidence = envelopes(case, "evidence", file)?.into_iter().collect();
    let now: Time = case.parsed("now")?;
    let mut asked = case.object("question")?;
    let subject = match asked.optional("file") {
        Some(value) => {
            let mut file = value.into_object("file")?;
            let mut digest = file.object("digest")?;
            let digests = Digests {
                sha256: digest.parsed("sha256")?,
                sha512: digest.optional_parsed("sha512")?,
            };
            digest.finish()?;
            let subject = Subject::Artifact {
                name: file.text("name")?,
                digests,
                size: file.integer("size")?,
            };
            file.finish()?;
            subject
        }
        None => Subject::Task(asked.parsed("task")?),
    };
    let mut expected = asked.object("expect")?;
    let expect = Expectation {
        product: expected.optional_parsed("product")?,
        version: expected.optional_parsed("version")?,
        channel: expected.optional_parsed("channel")?,
        instance: expected.optional_parsed("instance")?,
        step: expected.optional_parsed("step")?,
        machine: None,
    };
    expected.finish()?;
    asked.finish()?;
    let floor = floor(case)?;
    let question = Question { subject, expect };
    Ok(match PolicyChain::establish(pin, &policies, floor) {
        Err(refusal) => Err(only(refusal)),
        Ok(chain) => {
            let report = verify(&question, &evidence, &chain, now);
            if report.accepted().is_some() { Ok(()) } else { Err(report.codes()) }
        }
    })
}
