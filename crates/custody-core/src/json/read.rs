//! Reading, with the rules that `serde_json` leaves open.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::Value;
use crate::limits::{DEPTH, MEMBERS, VALUES};
use crate::{Code, Refusal};

/// Reads one document of at most `max_bytes`. Strings may be as long as `max_string`.
pub fn parse(bytes: &[u8], max_bytes: usize, max_string: usize) -> Result<Value<'_>, Refusal> {
    if bytes.len() > max_bytes {
        let (limit, found) =
            (format!("at most {max_bytes} bytes"), format!("{} bytes", bytes.len()));
        return Err(Refusal::new(Code::ParseSizeExceeded, "", limit, found));
    }
    let text = core::str::from_utf8(bytes)
        .map_err(|error| Refusal::new(Code::ParseUnicodeInvalid, "", "UTF-8", error.to_string()))?;
    if text.starts_with('\u{feff}') {
        return Err(Refusal::new(
            Code::ParseUnicodeInvalid,
            "",
            "text without byte order mark",
            "a byte order mark",
        ));
    }
    let state = State { first: RefCell::new(None), values: RefCell::new(0), max_string };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Seed { state: &state, depth: 0 }
        .deserialize(&mut deserializer)
        .map_err(|error| state.first.take().unwrap_or_else(|| syntax(&error)))?;
    deserializer.end().map_err(|error| {
        Refusal::new(Code::ParseTrailingData, "", "the end of the document", error.to_string())
    })?;
    Ok(value)
}

fn syntax(error: &serde_json::Error) -> Refusal {
    let found = error.to_string();
    let code = if ["surrogate", "hex escape", "unicode code point"]
        .iter()
        .any(|word| found.contains(word))
    {
        Code::ParseUnicodeInvalid
    } else if found.contains("number out of range") {
        Code::ParseNumberUnsafe
    } else {
        Code::ParseJsonInvalid
    };
    Refusal::new(code, "", "JSON", found)
}

struct State {
    first: RefCell<Option<Refusal>>,
    values: RefCell<usize>,
    max_string: usize,
}

impl State {
    fn fail<E: serde::de::Error>(
        &self,
        code: Code,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> E {
        self.first.borrow_mut().get_or_insert(Refusal::new(code, "", expected, found));
        E::custom("refused")
    }

    fn check_string<E: serde::de::Error>(&self, text: &str) -> Result<(), E> {
        if text.len() <= self.max_string {
            return Ok(());
        }
        Err(self.fail(
            Code::ParseSizeExceeded,
            format!("strings of at most {} bytes", self.max_string),
            format!("{} bytes", text.len()),
        ))
    }
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    state: &'s State,
    depth: usize,
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth >= DEPTH {
            return Err(self.state.fail(
                Code::ParseDepthExceeded,
                format!("at most {DEPTH} levels"),
                "more",
            ));
        }
        Ok(Self { depth: self.depth.saturating_add(1), ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        let mut values = self.state.values.borrow_mut();
        *values = values.saturating_add(1);
        if *values > VALUES {
            return Err(self.state.fail(
                Code::ParseCountExceeded,
                format!("at most {VALUES} values"),
                "more",
            ));
        }
        drop(values);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value<'de>, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value<'de>, E> {
        Ok(Value::Integer(value))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Value<'de>, E> {
        Err(self.state.fail(
            Code::ParseNumberUnsafe,
            "a whole number from 0 to 2^64 - 1",
            value.to_string(),
        ))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value<'de>, E> {
        Err(self.state.fail(
            Code::ParseNumberUnsafe,
            "a whole number from 0 to 2^64 - 1",
            value.to_string(),
        ))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        self.state.check_string(text)?;
        Ok(Value::String(Cow::Borrowed(text)))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value<'de>, E> {
        self.state.check_string(text)?;
        Ok(Value::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value<'de>, A::Error> {
        let seed = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(seed)? {
            items.push(item);
            if items.len() > MEMBERS {
                return Err(self.state.fail(
                    Code::ParseCountExceeded,
                    format!("at most {MEMBERS} entries"),
                    "more",
                ));
            }
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let seed = self.deeper()?;
        let mut names = Names::default();
        let mut members: Vec<(Cow<'de, str>, Value<'de>)> = Vec::new();
        while let Some(key) = map.next_key_seed(seed)? {
            let Value::String(name) = key else { return Err(A::Error::custom("a name")) };
            if names.has(&name, &members) {
                return Err(self.state.fail(
                    Code::ParseDuplicateKey,
                    "each member once",
                    format!("{name:?} twice"),
                ));
            }
            if members.len() >= MEMBERS {
                return Err(self.state.fail(
                    Code::ParseCountExceeded,
                    format!("at most {MEMBERS} members"),
                    "more",
                ));
            }
            members.push((name, map.next_value_seed(seed)?));
        }
        Ok(Value::Object(members))
    }
}

/// Which names an object has had so far. Most objects are small, and looking is faster than sorting.
#[derive(Default)]
struct Names<'a>(BTreeSet<Cow<'a, str>>);

impl<'a> Names<'a> {
    const FEW: usize = 16;

    fn has(&mut self, name: &str, members: &[(Cow<'a, str>, Value<'a>)]) -> bool {
        if members.len() < Self::FEW {
            return members.iter().any(|(known, _)| known == name);
        }
        let sorted = self.0.len();
        self.0.extend(members.iter().skip(sorted).map(|(known, _)| known.clone()));
        self.0.contains(name)
    }
}
