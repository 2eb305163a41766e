//! Strict JSON: one document, no member twice at any depth, whole numbers only, within limits.
//!
//! `serde_json` reads the text; this module adds the rules that it leaves open and the typed access
//! that our closed documents need. Writing keeps the order of members, so that people read
//! statements in the order in which they were meant.

mod read;

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::str::FromStr;

use serde::ser::{Serialize, SerializeMap, Serializer};

pub use read::parse;

use crate::limits::STRING_BYTES;
use crate::{Code, Refusal};

/// A JSON value. Numbers are whole; members keep their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number from 0 to 2^64 - 1.
    Integer(u64),
    /// Text.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Self>),
    /// An object, without any member twice.
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl Serialize for Value<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Integer(value) => serializer.serialize_u64(*value),
            Self::String(text) => serializer.serialize_str(text),
            Self::Array(items) => serializer.collect_seq(items),
            Self::Object(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, value)?;
                }
                map.end()
            }
        }
    }
}

impl<'a> Value<'a> {
    /// The document on one line.
    pub fn to_line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The document indented by two blanks, as people read it, ending without a line feed.
    pub fn to_pretty(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    /// An object from its members, in this order.
    pub fn object<const N: usize>(members: [(&'static str, Self); N]) -> Self {
        Self::Object(
            members.into_iter().map(|(name, value)| (Cow::Borrowed(name), value)).collect(),
        )
    }

    /// A list.
    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::Array(items.into_iter().collect())
    }

    /// Text from anything that can be shown.
    #[expect(clippy::needless_pass_by_value, reason = "values and references alike")]
    pub fn text(value: impl ToString) -> Self {
        Self::String(Cow::Owned(value.to_string()))
    }

    /// This object with one more member at its end; anything else stays as it is.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Option<Self>) -> Self {
        if let (Self::Object(members), Some(value)) = (&mut self, value) {
            members.push((Cow::Borrowed(name), value));
        }
        self
    }

    /// The text, where this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The member of this name, where this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(key, _)| key == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Integer(_) => "a number",
            Self::String(_) => "text",
            Self::Array(_) => "a list",
            Self::Object(_) => "an object",
        }
    }

    fn mismatch(&self, at: &str, expected: &str) -> Refusal {
        Refusal::new(Code::ParseFieldType, at, expected, self.kind())
    }

    /// The text at this place of a document; refuses control characters.
    pub fn into_text(self, at: &str) -> Result<String, Refusal> {
        self.into_shown(at).map(Cow::into_owned)
    }

    /// The same without a copy of what stands in the document as it is.
    pub(crate) fn into_shown(self, at: &str) -> Result<Cow<'a, str>, Refusal> {
        let Self::String(text) = self else { return Err(self.mismatch(at, "text")) };
        if text.len() > STRING_BYTES {
            return Err(Refusal::new(
                Code::ParseSizeExceeded,
                at,
                format!("at most {STRING_BYTES} bytes"),
                format!("{} bytes", text.len()),
            ));
        }
        let printable = |byte: u8| matches!(byte, b' '..=b'~');
        if text.bytes().all(printable) {
            return Ok(text);
        }
        match text.chars().find(|c| is_hidden(*c)) {
            Some(c) => Err(Refusal::new(
                Code::ParseUnicodeInvalid,
                at,
                "text without control characters",
                c.escape_unicode().to_string(),
            )),
            None => Ok(text),
        }
    }

    /// The list at this place of a document.
    pub fn into_list(self, at: &str) -> Result<Vec<Self>, Refusal> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.mismatch(at, "a list")),
        }
    }

    /// The truth value at this place of a document.
    pub fn into_bool(self, at: &str) -> Result<bool, Refusal> {
        match self {
            Self::Bool(value) => Ok(value),
            other => Err(other.mismatch(at, "true or false")),
        }
    }

    /// The number at this place of a document.
    pub fn into_integer(self, at: &str) -> Result<u64, Refusal> {
        match self {
            Self::Integer(value) => Ok(value),
            other => Err(other.mismatch(at, "a whole number")),
        }
    }

    /// The object at this place of a document, to be taken apart member by member.
    pub fn into_object(self, at: impl Into<String>) -> Result<Object<'a>, Refusal> {
        let at = at.into();
        match self {
            Self::Object(members) => Ok(Object { at, members }),
            other => Err(other.mismatch(&at, "an object")),
        }
    }
}

/// An object being taken apart. [`finish`](Self::finish) refuses whatever nobody asked for.
#[derive(Debug)]
pub struct Object<'a> {
    at: String,
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// The place of a member, for messages.
    pub fn place(&self, name: &str) -> String {
        if self.at.is_empty() { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    /// Takes a member that may be absent. `null` is not absence.
    pub fn optional(&mut self, name: &str) -> Option<Value<'a>> {
        let index = self.members.iter().position(|(key, _)| key == name)?;
        Some(self.members.remove(index).1)
    }

    /// Takes a member that must be there.
    pub fn required(&mut self, name: &str) -> Result<Value<'a>, Refusal> {
        self.optional(name).ok_or_else(|| {
            Refusal::new(Code::ParseFieldMissing, self.place(name), "this member", "nothing")
        })
    }

    /// Takes required text.
    pub fn text(&mut self, name: &str) -> Result<String, Refusal> {
        self.shown(name).map(Cow::into_owned)
    }

    fn shown(&mut self, name: &str) -> Result<Cow<'a, str>, Refusal> {
        self.required(name)?.into_shown(name).map_err(|refusal| refusal.inside(&self.at))
    }

    /// Takes text that may be absent.
    pub fn optional_text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        Ok(self.optional_shown(name)?.map(Cow::into_owned))
    }

    pub(crate) fn optional_shown(&mut self, name: &str) -> Result<Option<Cow<'a, str>>, Refusal> {
        let text = self.optional(name).map(|value| value.into_shown(name)).transpose();
        text.map_err(|refusal| refusal.inside(&self.at))
    }

    /// Takes required text and reads it as a `T`.
    pub fn parsed<T: FromStr<Err = Refusal>>(&mut self, name: &str) -> Result<T, Refusal> {
        let text = self.shown(name)?;
        text.parse().map_err(|refusal: Refusal| refusal.within(&self.place(name)))
    }

    /// Takes text that may be absent and reads it as a `T`.
    pub fn optional_parsed<T: FromStr<Err = Refusal>>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let text = self.optional_shown(name)?;
        let parse = |text: Cow<'_, str>| {
            text.parse().map_err(|refusal: Refusal| refusal.within(&self.place(name)))
        };
        text.map(parse).transpose()
    }

    /// Takes a required list.
    pub fn list(&mut self, name: &str) -> Result<Vec<Value<'a>>, Refusal> {
        self.required(name)?.into_list(name).map_err(|refusal| refusal.inside(&self.at))
    }

    /// Takes a required list and reads each entry. The reader names places inside the entry.
    pub fn each<T>(
        &mut self,
        name: &str,
        read: impl FnMut(Value<'a>, &str) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let items = self.list(name)?;
        self.entries(name, items, read)
    }

    /// The same for a list that may be absent, which is an empty one.
    pub(crate) fn optional_each<T>(
        &mut self,
        name: &str,
        read: impl FnMut(Value<'a>, &str) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let items = self.optional(name).map(|value| value.into_list(name)).transpose();
        let items = items.map_err(|refusal| refusal.inside(&self.at))?;
        self.entries(name, items.unwrap_or_default(), read)
    }

    fn entries<T>(
        &self,
        name: &str,
        items: Vec<Value<'a>>,
        mut read: impl FnMut(Value<'a>, &str) -> Result<T, Refusal>,
    ) -> Result<Vec<T>, Refusal> {
        let place = |i: usize| format!("{}[{i}]", self.place(name));
        let entries = items.into_iter().enumerate();
        entries
            .map(|(i, item)| read(item, "").map_err(|refusal| refusal.inside(&place(i))))
            .collect()
    }

    /// Takes a required object whose values are text.
    pub fn map(&mut self, name: &str) -> Result<Vec<(String, String)>, Refusal> {
        let owned =
            |(key, value): (Cow<'_, str>, Cow<'_, str>)| (key.into_owned(), value.into_owned());
        Ok(self.shown_map(name)?.into_iter().map(owned).collect())
    }

    /// The same without copies.
    #[expect(clippy::type_complexity, reason = "names and values")]
    pub(crate) fn shown_map(
        &mut self,
        name: &str,
    ) -> Result<Vec<(Cow<'a, str>, Cow<'a, str>)>, Refusal> {
        let value = self.required(name)?;
        let Value::Object(members) = value else {
            return Err(value.mismatch(&self.place(name), "an object"));
        };
        let read = |(key, value): (Cow<'a, str>, Value<'a>)| {
            let place = |refusal: Refusal| refusal.inside(&format!("{}.{key}", self.place(name)));
            let value = value.into_shown("").map_err(place)?;
            let shown = Value::String(key.clone()).into_shown("").map_err(place)?;
            Ok((shown, value))
        };
        members.into_iter().map(read).collect()
    }

    /// Takes a required object.
    pub fn object(&mut self, name: &str) -> Result<Self, Refusal> {
        self.required(name)?.into_object(self.place(name))
    }

    /// Takes a required truth value.
    pub fn boolean(&mut self, name: &str) -> Result<bool, Refusal> {
        self.required(name)?.into_bool(name).map_err(|refusal| refusal.inside(&self.at))
    }

    /// Takes a required number.
    pub fn integer(&mut self, name: &str) -> Result<u64, Refusal> {
        self.required(name)?.into_integer(name).map_err(|refusal| refusal.inside(&self.at))
    }

    /// The object without the members that are `null`, for formats in which that is absence.
    #[must_use]
    pub fn without_nulls(mut self) -> Self {
        self.members.retain(|(_, value)| *value != Value::Null);
        self
    }

    /// The object without the members of such names.
    #[must_use]
    pub fn without(mut self, named: impl Fn(&str) -> bool) -> Self {
        self.members.retain(|(name, _)| !named(name));
        self
    }

    /// What is left of the object.
    pub fn rest(self) -> Vec<(Cow<'a, str>, Value<'a>)> {
        self.members
    }

    /// Ends a closed object: a member that nobody asked for is refused.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.members.first() {
            None => Ok(()),
            Some((name, _)) => {
                let at = self.place(name);
                Err(Refusal::new(
                    Code::ParseUnknownField,
                    at,
                    "only members that are defined",
                    format!("{name:?}"),
                ))
            }
        }
    }
}

/// Whether nobody can see the character, or it changes how others look: controls other than line feed
/// and tab, marks of the direction of writing, and characters without width. No text that people sign
/// has one.
pub fn is_hidden(c: char) -> bool {
    (c.is_control() && !matches!(c, '\n' | '\t'))
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

/// An object of text values, in this order.
pub fn text_map<'m>(entries: impl IntoIterator<Item = (&'m String, &'m String)>) -> Value<'static> {
    let member = |(name, value): (&String, &String)| (Cow::Owned(name.clone()), Value::text(value));
    Value::Object(entries.into_iter().map(member).collect())
}

/// A list of texts.
pub fn text_list<T: ToString>(items: impl IntoIterator<Item = T>) -> Value<'static> {
    let mut list = vec![];
    list.extend(items.into_iter().map(Value::text));
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{MEMBERS, VALUES};
    use proptest::prelude::*;

    fn code(text: &[u8]) -> Code {
        parse(text, 1 << 20, 1 << 16).unwrap_err().code
    }

    #[test]
    fn a_refusal_says_where() {
        let text = br#"{"a":{"b":{"n":"x","t":1,"l":[1],"o":2},"z":0}}"#;
        let mut outer = parse(text, 99, 9).unwrap().into_object("doc").unwrap();
        let mut middle = outer.object("a").unwrap();
        let mut inner = middle.object("b").unwrap();
        let at = |refusal: Refusal| refusal.at;
        assert_eq!(at(inner.integer("n").unwrap_err()), "doc.a.b.n");
        assert_eq!(at(inner.boolean("t").unwrap_err()), "doc.a.b.t");
        assert_eq!(at(inner.each("l", Value::into_text).unwrap_err()), "doc.a.b.l[0]");
        assert_eq!(at(inner.object("o").unwrap_err()), "doc.a.b.o");
        assert_eq!(at(inner.text("none").unwrap_err()), "doc.a.b.none");
        assert_eq!(at(middle.finish().unwrap_err()), "doc.a.z");
        assert_eq!(outer.place("a"), "doc.a");
    }

    #[test]
    fn what_stands_there_instead_is_told() {
        let cases: [(&[u8], &str); 6] = [
            (b"null", "null"),
            (b"true", "a truth value"),
            (b"7", "a number"),
            (b"\"x\"", "text"),
            (b"[]", "a list"),
            (b"{}", "an object"),
        ];
        for (text, kind) in cases {
            let value = || parse(text, 9, 9).unwrap();
            let all = [
                value().into_text("").err(),
                value().into_list("").err(),
                value().into_bool("").err(),
                value().into_integer("").err(),
                value().into_object("").err(),
            ];
            let found: Vec<_> = all.iter().flatten().collect();
            assert_eq!(found.len(), if kind == "null" { 5 } else { 4 }, "{kind}");
            for refusal in found {
                assert_eq!((refusal.code, refusal.found.as_str()), (Code::ParseFieldType, kind));
            }
        }
    }

    /// `json-encoding`, `json-deep-nesting`.
    #[test]
    fn faults_have_their_codes() {
        let blank = " ".repeat((1 << 20) + 1);
        let deep = "[".repeat(100_000);
        let long = format!("\"{}\"", "x".repeat(70_000));
        let flood = format!("[{}0]", "0,".repeat(MEMBERS));
        let cases: [(&[u8], Code); 22] = [
            (b"", Code::ParseJsonInvalid),
            (b"{", Code::ParseJsonInvalid),
            (b"{'a':1}", Code::ParseJsonInvalid),
            (b"{\"a\":1,\"a\":2}", Code::ParseDuplicateKey),
            (b"{\"x\":[{\"a\":1,\"\\u0061\":2}]}", Code::ParseDuplicateKey),
            (b"{}{}", Code::ParseTrailingData),
            (b"{} // x", Code::ParseTrailingData),
            (b"{}\0", Code::ParseTrailingData),
            (b"\xef\xbb\xbf{}", Code::ParseUnicodeInvalid),
            (b"\xff\xfe{\0}\0", Code::ParseUnicodeInvalid),
            (b"\"\xc0\xaf\"", Code::ParseUnicodeInvalid),
            (b"\"\\ud800\"", Code::ParseUnicodeInvalid),
            (b"1.0", Code::ParseNumberUnsafe),
            (b"1e3", Code::ParseNumberUnsafe),
            (b"-0", Code::ParseNumberUnsafe),
            (b"-1", Code::ParseNumberUnsafe),
            (b"18446744073709551616", Code::ParseNumberUnsafe),
            (b"1E400", Code::ParseNumberUnsafe),
            (deep.as_bytes(), Code::ParseDepthExceeded),
            (long.as_bytes(), Code::ParseSizeExceeded),
            (flood.as_bytes(), Code::ParseCountExceeded),
            (blank.as_bytes(), Code::ParseSizeExceeded),
        ];
        for (text, expected) in cases {
            let shown = String::from_utf8_lossy(&text[..text.len().min(60)]);
            assert_eq!(code(text), expected, "{shown}");
        }
    }

    /// The last value that is allowed is, and the next one is not.
    #[test]
    fn values_are_counted() {
        let lists = 40;
        let of = |values: usize| {
            let zeros = values - 1 - lists;
            let full = format!("[{}0],", "0,".repeat(MEMBERS - 1));
            let rest = zeros - MEMBERS * (lists - 1);
            format!("[{}[{}0]]", full.repeat(lists - 1), "0,".repeat(rest - 1))
        };
        let parsed = |text: String| {
            parse(text.as_bytes(), 1 << 24, 9).map(drop).map_err(|refusal| refusal.code)
        };
        assert!(parsed(of(VALUES)).is_ok());
        assert_eq!(parsed(of(VALUES + 1)).unwrap_err(), Code::ParseCountExceeded);
    }

    /// `json-number-forms`.
    #[test]
    fn large_numbers_stay_exact() {
        assert_eq!(parse(b"18446744073709551615", 99, 99).unwrap(), Value::Integer(u64::MAX));
        assert_eq!(
            parse(b"9007199254740993", 99, 99).unwrap(),
            Value::Integer(9_007_199_254_740_993)
        );
    }

    #[test]
    fn wrong_types_are_refused() {
        let read = |text: &'static str| parse(text.as_bytes(), 99, 99).unwrap().into_object("x");
        assert_eq!(read("[1]").unwrap_err().code, Code::ParseFieldType);
        assert_eq!(read("null").unwrap_err().code, Code::ParseFieldType);
        assert_eq!(read("{\"a\":null}").unwrap().list("a").unwrap_err().code, Code::ParseFieldType);
        assert_eq!(read("{\"a\":{}}").unwrap().list("a").unwrap_err().code, Code::ParseFieldType);
        assert_eq!(
            read("{\"a\":\"2\"}").unwrap().integer("a").unwrap_err().code,
            Code::ParseFieldType
        );
        assert_eq!(
            read("{\"a\":\"false\"}").unwrap().boolean("a").unwrap_err().code,
            Code::ParseFieldType
        );
        assert_eq!(read("{}").unwrap().text("a").unwrap_err().code, Code::ParseFieldMissing);
        assert_eq!(read("{\"A\":1}").unwrap().finish().unwrap_err().code, Code::ParseUnknownField);
        for hidden in [
            "{\"a\":\"\\u0000\"}",
            "{\"a\":\"\\u001b[31m\"}",
            "{\"a\":\"\\u2028\"}",
            "{\"a\":\"\\u202e\"}",
            "{\"a\":\"\\u061c\"}",
            "{\"a\":\"\\u2060\"}",
            "{\"a\":\"\\udb40\\udc41\"}",
        ] {
            assert_eq!(
                read(hidden).unwrap().text("a").unwrap_err().code,
                Code::ParseUnicodeInvalid,
                "{hidden}"
            );
        }
    }

    fn any_value() -> impl Strategy<Value = Value<'static>> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::Integer),
            any::<String>().prop_map(Value::text),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                prop::collection::btree_map(any::<String>(), inner, 0..6).prop_map(|map| {
                    Value::Object(map.into_iter().map(|(k, v)| (Cow::Owned(k), v)).collect())
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(value in any_value()) {
            for text in [value.to_line(), value.to_pretty()] {
                prop_assert_eq!(&parse(text.as_bytes(), 1 << 24, 1 << 24).unwrap(), &value);
            }
        }

        #[test]
        fn any_bytes_end_in_a_verdict(bytes: Vec<u8>) {
            let _verdict = parse(&bytes, 1 << 20, 1 << 16);
        }
    }
}
