//! SLSA's provenance and verification summary, member by member: what a real release wrote has every
//! member that the specifications require, of the right type, and none that they do not know; and what
//! they let others write is read, or refused as the table says (`tests/conformance/slsa.fields`).

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use custody_core::encoding::base64;
use custody_core::envelope::Payload as _;
use custody_core::statement::Statement;
use serde_json::{Map, Value, json};

use super::{FOLDER, evidence};
use crate::world::World;

/// One member, as the specifications have it.
struct Row {
    object: String,
    member: String,
    kind: String,
    is_required: bool,
    /// What our reader does.
    reader: String,
}

struct Table(Vec<Row>);

/// What every descriptor must have one of.
const DESCRIPTORS: [&str; 5] = ["Subject", "Dependency", "Byproduct", "Policy", "InputAttestation"];

/// The type of an object with `annotations` and parameters: whoever defines it.
const FREE: &str = "free";

impl Table {
    fn read() -> Self {
        let text = fs::read_to_string(Path::new(FOLDER).join("slsa.fields")).unwrap();
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let rows = lines.map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [object, member, kind, level, reader] = fields[..] else { panic!("{line}") };
            assert!(["required", "optional"].contains(&level), "{line}");
            Row {
                object: object.into(),
                member: member.into(),
                kind: kind.into(),
                is_required: level == "required",
                reader: reader.into(),
            }
        });
        Self(rows.collect())
    }

    fn members(&self, object: &str) -> impl Iterator<Item = &Row> {
        self.0.iter().filter(move |row| row.object == object)
    }

    /// What is wrong with a value of this type, with its place. `objects` gets the places of all
    /// objects by their types.
    fn faults(
        &self,
        kind: &str,
        value: &Value,
        at: &str,
        objects: &mut Vec<(String, String)>,
    ) -> Vec<String> {
        let fault = |holds: bool| if holds { vec![] } else { vec![format!("{at}: no {kind}")] };
        let all = |values: &Map<String, Value>, is: fn(&Value) -> bool| values.values().all(is);
        if let Some(inner) = kind.strip_prefix('[').and_then(|kind| kind.strip_suffix(']')) {
            let Value::Array(items) = value else { return fault(false) };
            let items = items.iter().enumerate();
            return items
                .flat_map(|(i, item)| self.faults(inner, item, &format!("{at}/{i}"), objects))
                .collect();
        }
        match (kind, value) {
            ("text", Value::String(_)) | (FREE, Value::Object(_)) => vec![],
            ("TypeURI" | "ResourceURI", Value::String(text)) => fault(is_uri(text)),
            ("Timestamp", Value::String(text)) => fault(is_timestamp(text)),
            ("Result", Value::String(text)) => fault(["PASSED", "FAILED"].contains(&text.as_str())),
            // names that begin with SLSA_ are SLSA's own
            ("Level", Value::String(text)) => fault(!text.is_empty() && !text.starts_with("SLSA_")),
            ("Version", Value::String(text)) => {
                fault(text.split_once('.').is_some_and(|(major, minor)| {
                    [major, minor].iter().all(|part| part.parse::<u8>().is_ok())
                }))
            }
            ("DigestSet", Value::Object(digests)) => {
                let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                fault(
                    !digests.is_empty()
                        && digests.iter().all(|(name, digest)| {
                            let text = digest.as_str().unwrap_or_default();
                            let lengths: &[usize] = match name.as_str() {
                                "sha256" => &[64],
                                "sha512" => &[128],
                                "gitCommit" => &[40, 64],
                                _ => &[],
                            };
                            lengths.contains(&text.len()) && text.chars().all(hex)
                        }),
                )
            }
            ("{text}", Value::Object(values)) => fault(all(values, Value::is_string)),
            ("{count}", Value::Object(values)) => fault(all(values, Value::is_u64)),
            (object, Value::Object(members)) if self.members(object).next().is_some() => {
                objects.push((object.to_owned(), at.to_owned()));
                let known = |name: &String| self.members(object).any(|row| row.member == **name);
                let strange = members.keys().filter(|name| !known(name));
                let mut faults: Vec<String> =
                    strange.map(|name| format!("{at}/{name}: unknown")).collect();
                if DESCRIPTORS.contains(&object)
                    && !["uri", "digest", "content"].iter().any(|name| members.contains_key(*name))
                {
                    faults.push(format!("{at}: neither uri nor digest nor content"));
                }
                for row in self.members(object) {
                    let place = format!("{at}/{}", row.member);
                    let kind = match row.kind.as_str() {
                        "Predicate" => predicate_of(value),
                        kind => kind,
                    };
                    match members.get(&row.member) {
                        Some(value) => faults.extend(self.faults(kind, value, &place, objects)),
                        None if row.is_required => faults.push(format!("{place}: missing")),
                        None => {}
                    }
                }
                faults
            }
            _ => fault(false),
        }
    }

    fn check(&self, statement: &Value) -> Vec<String> {
        self.faults("Statement", statement, "", &mut vec![])
    }

    /// The places of all objects that the specifications define, by type.
    fn objects(&self, statement: &Value) -> Vec<(String, String)> {
        let mut objects = vec![];
        let faults = self.faults("Statement", statement, "", &mut objects);
        assert_eq!(faults, Vec::<String>::new());
        objects
    }
}

fn predicate_of(statement: &Value) -> &'static str {
    match statement["predicateType"].as_str() {
        Some("https://slsa.dev/provenance/v1") => "Provenance",
        Some("https://slsa.dev/verification_summary/v1") => "Summary",
        _ => "a predicate of SLSA",
    }
}

/// RFC 3986, with scheme and authority in lower case as in-toto demands.
fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap());
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+.-".contains(c))
        && !authority.chars().any(|c| c.is_ascii_uppercase())
        && !rest.is_empty()
        && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c))
}

/// RFC 3339 in UTC.
fn is_timestamp(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00Z"
}

/// A release's manifests, of which one has inputs, one a source and one a destination, and a summary.
fn statements() -> Vec<Value> {
    let world = World::published();
    let pin = world.pin();
    world.done(&format!("verify www/all.bin --pin {pin} --summary summary.json --key keys/desk"));
    world.done("evidence add summary.json --store store");
    let all = evidence(&world).into_iter().filter_map(|envelope| {
        let said: Value = serde_json::from_slice(envelope.unverified_payload()).ok()?;
        said["predicateType"].as_str()?.starts_with("https://slsa.dev/").then_some(said)
    });
    let all: Vec<Value> = all.collect();
    assert_eq!(all.len(), 4);
    all
}

fn read(statement: &Value) -> Result<Statement, &'static str> {
    Statement::parse(statement.to_string().as_bytes()).map_err(|refusal| refusal.code.name())
}

fn members<'v>(statement: &'v mut Value, place: &str) -> &'v mut Map<String, Value> {
    statement.pointer_mut(place).unwrap().as_object_mut().unwrap()
}

/// A value of this type that Custody does not write.
fn sample(kind: &str) -> Value {
    match kind {
        "text" => json!("a text"),
        "bytes" => json!("aGVsbG8="),
        "ResourceURI" => json!("https://example.org/x"),
        "Version" => json!("1.0"),
        "{text}" => json!({ "component": "1.2.3" }),
        "{count}" => json!({ "SLSA_BUILD_LEVEL_3": 5, "SLSA_BUILD_LEVEL_2": 0 }),
        FREE => json!({ "acme_seen": [true, null, { "deep": "x" }] }),
        "[Dependency]" => json!([{ "uri": "https://example.org/orchestrator" }]),
        other => panic!("no sample of {other}"),
    }
}

#[test]
fn what_custody_writes_is_what_the_specifications_define() {
    let table = Table::read();
    let mut met = BTreeSet::new();
    for statement in statements() {
        assert_eq!(table.check(&statement), Vec::<String>::new(), "{statement:#}");
        for (object, place) in table.objects(&statement) {
            let at = statement.pointer(&place).unwrap().as_object().unwrap();
            met.extend(at.keys().map(|member| (object.clone(), member.clone())));
        }
        let definition = &statement["predicate"]["buildDefinition"];
        if let (Some(external), Some(internal)) = (
            definition["externalParameters"].as_object(),
            definition["internalParameters"].as_object(),
        ) {
            assert!(external.keys().all(|name| !internal.contains_key(name)));
        }
        let names: Vec<&Value> =
            statement["subject"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
        assert_eq!(
            names.iter().map(ToString::to_string).collect::<BTreeSet<_>>().len(),
            names.len()
        );
    }
    // every member that our reader needs or uses was there to be looked at
    let unmet = table.0.iter().filter(|row| {
        row.reader != "ignores" && !met.contains(&(row.object.clone(), row.member.clone()))
    });
    assert_eq!(
        unmet.map(|row| format!("{} {}", row.object, row.member)).collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

/// The control of the check above: whatever is bent is noticed.
#[test]
fn the_table_notices_what_is_bent() {
    let table = Table::read();
    for statement in statements() {
        for (object, place) in table.objects(&statement) {
            let mut other = statement.clone();
            members(&mut other, &place).insert("evil".into(), json!(1));
            assert_eq!(table.check(&other), [format!("{place}/evil: unknown")]);
            for row in table.members(&object) {
                let mut other = statement.clone();
                let Some(value) = members(&mut other, &place).remove(&row.member) else { continue };
                assert_eq!(
                    !table.check(&other).is_empty(),
                    row.is_required
                        || row.member == "digest"
                            && members(&mut other, &place).get("uri").is_none(),
                    "{place} {}",
                    row.member
                );
                for wrong in [Value::Null, json!(1), json!([1]), json!({ "": 1 }), json!("http:")] {
                    if row.kind == "text" && wrong.is_string()
                        || row.kind == FREE && wrong.is_object()
                        || row.kind == "Level"
                    {
                        continue;
                    }
                    members(&mut other, &place).insert(row.member.clone(), wrong.clone());
                    assert!(!table.check(&other).is_empty(), "{place} {}: {wrong}", row.member);
                }
                members(&mut other, &place).insert(row.member.clone(), value);
                assert_eq!(other, statement);
            }
        }
    }
    for bad in [
        "custody.dev/step",
        "HTTPS://custody.dev/",
        "https://Custody.dev/",
        "https:",
        ":x",
        "a b:c",
        "x:a b",
    ] {
        assert!(!is_uri(bad), "{bad}");
    }
}

#[test]
fn what_the_specifications_leave_open_is_read_as_the_table_says() {
    let table = Table::read();
    for statement in statements() {
        let control = read(&statement).unwrap();
        for (object, place) in table.objects(&statement) {
            for row in table.members(&object) {
                let at = format!("{place}/{}", row.member);
                let with = |value: Option<Value>| {
                    let mut other = statement.clone();
                    let members = members(&mut other, &place);
                    members.remove(&row.member);
                    members.extend(value.map(|value| (row.member.clone(), value)));
                    read(&other)
                };
                let absent = with(None);
                match row.reader.as_str() {
                    "ignores" => {
                        assert_eq!(absent.as_ref(), Ok(&control), "{at}");
                        assert_eq!(with(Some(sample(&row.kind))).as_ref(), Ok(&control), "{at}");
                    }
                    "uses" => {
                        let empty = with(Some(json!([])));
                        assert!(absent.is_ok(), "{at}");
                        assert_eq!(absent, empty, "{at}");
                    }
                    "role" => {}
                    code => assert_eq!(absent.as_ref(), Err(&code), "{at}"),
                }
                // SLSA: unset and null are the same
                if at.starts_with("/predicate/") && row.reader != "role" {
                    assert_eq!(with(Some(Value::Null)), absent, "{at}");
                }
            }
        }
    }
}

#[test]
fn extension_fields_are_ignored_and_misspelt_members_refused() {
    let table = Table::read();
    for statement in statements() {
        let control = read(&statement).unwrap();
        let with = |place: &str, name: &str| {
            let mut other = statement.clone();
            members(&mut other, place).insert(name.into(), json!([{ "x": "y" }]));
            read(&other)
        };
        for (object, place) in table.objects(&statement) {
            for extension in ["acme_seen", "https://acme.example.org/seen"] {
                assert_eq!(with(&place, extension).as_ref(), Ok(&control), "{place}");
            }
            // in-toto has its own two layers ignore everything
            let open = object == "Statement" || DESCRIPTORS.contains(&object.as_str());
            let unknown = if open { Ok(&control) } else { Err(&"PARSE_UNKNOWN_FIELD") };
            assert_eq!(with(&place, "evil").as_ref(), unknown, "{place}");
        }
        if statement["predicate"]["buildDefinition"].is_object() {
            let external = "/predicate/buildDefinition/externalParameters";
            for name in ["evil", "acme_seen", "https://acme.example.org/seen"] {
                assert_eq!(with(external, name), Err("STMT_PARAMETER_UNEXPECTED"));
                assert_eq!(
                    with(&format!("{external}/task"), name),
                    Err("STMT_PARAMETER_UNEXPECTED")
                );
            }
            let internal = "/predicate/buildDefinition/internalParameters";
            assert_eq!(with(internal, "evil"), Err("PARSE_UNKNOWN_FIELD"));
            assert_eq!(with(internal, "acme_seen").as_ref(), Ok(&control));
        }
    }
}

/// A summary as other tools write it: without sizes, and without a policy's digest. It is evidence that
/// Custody keeps, and cannot read.
#[test]
fn a_summary_of_another_tool_is_kept_and_proves_nothing() {
    let world = World::published();
    let foreign = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": "all.bin", "digest": { "sha256": "28".repeat(32) } }],
        "predicateType": "https://slsa.dev/verification_summary/v1",
        "predicate": {
            "verifier": { "id": "https://example.org/verifier", "version": { "verifier": "2.3.0" } },
            "resourceUri": "https://example.org/all.bin",
            "policy": { "uri": "https://example.org/policy" },
            "verificationResult": "PASSED",
            "verifiedLevels": ["SLSA_BUILD_LEVEL_3"],
            "dependencyLevels": {},
        },
    });
    assert_eq!(Table::read().check(&foreign), ["/predicate/verifiedLevels/0: no Level"]);
    assert_eq!(read(&foreign), Err("PARSE_FIELD_MISSING"));
    let envelope = json!({
        "payloadType": "application/vnd.in-toto+json",
        "payload": base64(foreign.to_string().as_bytes()),
        "signatures": [{ "sig": base64(&[1; 64]) }],
    });
    world.write("foreign.json", envelope.to_string());
    let added = world.done("evidence add foreign.json --store store").json();
    assert_eq!(added[0]["kind"], "other");
    let shown = world.done(&format!("show {} --store store", added[0]["id"].as_str().unwrap()));
    assert!(shown.text("payload").contains("SLSA_BUILD_LEVEL_3"));
    assert_eq!(world.list("summary"), Vec::<String>::new());
    world.done("verify www/all.bin --store store");
}
