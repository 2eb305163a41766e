//! One platform's answer: its documents, and what they say in the words that policies use.

use custody_core::encoding::base64url_decode;
use custody_core::json::{Value, is_hidden, parse};
use custody_core::limits::{ATTESTATION_BYTES, STRING_BYTES};
use custody_machine::{Claim, Preset};

use super::{Unanswered, Variables};

/// The longest value of a fact that is written down.
const FACT_BYTES: usize = 1024;

/// What a platform said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// The documents by name.
    pub(super) parts: Vec<(&'static str, Vec<u8>)>,
    /// What they say, and what is said without proof.
    pub(super) facts: Vec<(String, String)>,
}

/// A fact and where it stands in a document, from the outside in.
pub(super) type Place = (&'static str, &'static [&'static str]);

impl Said {
    /// An identity token (RFC 7519), with issuer and subject besides the claims that are facts.
    pub(super) fn by_token(token: &str, preset: Preset) -> Result<Self, Unanswered> {
        let token = token.trim();
        let payload =
            payload(token).ok_or_else(|| Unanswered::new("an identity token", "something else"))?;
        let claims = json(&payload)?;
        let own = [("issuer", "iss"), ("subject", "sub")];
        let own = own.map(|(fact, claim)| Claim { fact: fact.into(), path: vec![claim.into()] });
        let mut said = Self { parts: vec![("token", token.into())], ..Self::default() };
        for Claim { fact, path } in own.into_iter().chain(preset.claims()) {
            if let Some(text) = lookup(&claims, path.iter().map(String::as_str)) {
                said.note(&fact, text);
            }
        }
        Ok(said)
    }

    /// Takes down what a JSON document says at these places.
    pub(super) fn read(&mut self, document: &[u8], places: &[Place]) -> Result<(), Unanswered> {
        let value = json(document)?;
        for (name, path) in places {
            if let Some(text) = lookup(&value, path.iter().copied()) {
                self.note(name, text);
            }
        }
        Ok(())
    }

    /// Takes down what variables say where no document did.
    pub(super) fn claim(&mut self, variables: Variables<'_>, names: &[(&str, &str)]) {
        for (name, variable) in names {
            if let Some(value) = variables(variable) {
                self.note(name, value);
            }
        }
    }

    /// Takes down a fact, unless it is known already or nothing that a manifest can have.
    pub(super) fn note(&mut self, name: &str, value: String) {
        let known = self.facts.iter().any(|(known, _)| known == name);
        let hidden = |c: char| c.is_control() || is_hidden(c);
        if !known && !value.is_empty() && value.len() <= FACT_BYTES && !value.contains(hidden) {
            self.facts.push((name.to_owned(), value));
        }
    }
}

fn json(document: &[u8]) -> Result<Value<'_>, Unanswered> {
    parse(document, ATTESTATION_BYTES, STRING_BYTES)
        .map_err(|refusal| Unanswered::new("a JSON document", refusal.to_string()))
}

fn lookup<'p>(value: &Value<'_>, path: impl IntoIterator<Item = &'p str>) -> Option<String> {
    match path.into_iter().try_fold(value, |value, member| value.get(member))? {
        Value::String(text) => Some(text.to_string()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The text at this place of a document, which must be there.
pub(super) fn text_at(document: &[u8], path: &[&str]) -> Result<String, Unanswered> {
    let missing = || Unanswered::new(format!("a member {}", path.join(".")), "none");
    lookup(&json(document)?, path.iter().copied()).ok_or_else(missing)
}

/// The middle of a token, in which its claims are. Nothing of it is verified.
fn payload(token: &str) -> Option<Vec<u8>> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = base64url_decode(payload).ok()?;
    parts.next().is_none().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use custody_core::encoding::base64url;

    use super::*;

    fn token(claims: &str) -> String {
        format!("{}.{}.c2ln", base64url(b"{}"), base64url(claims.as_bytes()))
    }

    #[test]
    fn claims_of_a_token_are_read_by_their_places() {
        let claims = r#"{"iss":"https://cluster","sub":"me","exp":7,"kubernetes.io":{"namespace":"ci","pod":{"name":"p","uid":"u"},"node":[1]}}"#;
        let said = Said::by_token(&format!("{}\n", token(claims)), Preset::Kubernetes).unwrap();
        let facts: Vec<_> = said.facts.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected = [
            ("issuer", "https://cluster"),
            ("subject", "me"),
            ("namespace", "ci"),
            ("pod", "p"),
            ("pod-uid", "u"),
        ];
        assert_eq!(facts, expected);
        assert_eq!(said.parts, [("token", token(claims).into_bytes())]);
        for bad in ["", "a.b", "a.!.c", "a.e30.c.d", &token("no json")] {
            assert!(Said::by_token(bad, Preset::Token).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_document_is_read_by_its_places() {
        let document = br#"{"n":7,"yes":true,"deep":{"x.y":{"z":"found"}},"list":[1],"none":null}"#;
        let places: &[Place] = &[
            ("number", &["n"]),
            ("truth", &["yes"]),
            ("deep", &["deep", "x.y", "z"]),
            ("list", &["list"]),
            ("none", &["none"]),
            ("gone", &["deep", "a"]),
        ];
        let mut said = Said::default();
        said.read(document, places).unwrap();
        let facts: Vec<_> = said.facts.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(facts, [("number", "7"), ("truth", "true"), ("deep", "found")]);
        assert!(said.read(b"<html>", places).is_err());
    }

    /// What is in a document wins over what is in the environment, and what no manifest can have is left
    /// out.
    #[test]
    fn a_fact_is_taken_down_once() {
        let mut said = Said::default();
        said.note("name", "first".into());
        let long = "x".repeat(FACT_BYTES + 1);
        let variables = |name: &str| match name {
            "HIDDEN" => Some("a\u{202e}b".to_owned()),
            "LINES" => Some("a\nb".to_owned()),
            "LONG" => Some(long.clone()),
            "GONE" => None,
            other => Some(other.to_lowercase()),
        };
        let names = [
            ("name", "SECOND"),
            ("hidden", "HIDDEN"),
            ("lines", "LINES"),
            ("long", "LONG"),
            ("gone", "GONE"),
            ("other", "OTHER"),
        ];
        said.claim(&variables, &names);
        assert_eq!(
            said.facts,
            [("name", "first"), ("other", "OTHER")]
                .map(|(name, value)| (name.to_owned(), value.to_lowercase()))
        );
    }
}
