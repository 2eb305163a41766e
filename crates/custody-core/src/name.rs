//! Artifact names and the patterns that select them.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::limits::NAME_BYTES;
use crate::{Code, Refusal};

/// A relative path that is safe on every target system: segments of letters, digits, blanks and
/// `. _ - + ~ @ = , ( ) [ ] #`, separated by `/`. No segment is empty, `.` or `..`, begins with `-` or
/// a blank, ends with a dot or a blank, or is a device name of Windows.
///
/// A value of this type may be joined to a directory and given to a program as one argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArtifactName(String);

const DEVICES: [&str; 4] = ["con", "prn", "aux", "nul"];

fn is_device(segment: &str) -> bool {
    let stem = segment.split('.').next().unwrap_or(segment).trim_end();
    let numbered = match stem.as_bytes() {
        [letters @ .., b'0'..=b'9'] => {
            ["com", "lpt"].iter().any(|device| letters.eq_ignore_ascii_case(device.as_bytes()))
        }
        _ => false,
    };
    numbered || DEVICES.iter().any(|device| stem.eq_ignore_ascii_case(device))
}

fn segment_fault(segment: &str, extra: &str) -> Option<&'static str> {
    let allowed = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b" ._-+~@=,()[]#".contains(&byte)
            || extra.as_bytes().contains(&byte)
    };
    match segment {
        "" => Some("an empty segment"),
        "." | ".." => Some("a segment that is a dot or two"),
        _ if !segment.bytes().all(allowed) => Some("a character that is not allowed"),
        _ if segment.starts_with(['-', ' ']) => Some("a segment that begins with - or a blank"),
        _ if segment.ends_with(['.', ' ']) => Some("a segment that ends with a dot or a blank"),
        _ if is_device(segment) => Some("a device name of Windows"),
        _ => None,
    }
}

fn check(text: &str, extra: &str) -> Result<(), Refusal> {
    let fault = if text.len() > NAME_BYTES {
        Some("more than 1024 bytes")
    } else {
        text.split('/').find_map(|segment| segment_fault(segment, extra))
    };
    fault.map_or(Ok(()), |fault| {
        let shown: String = text.escape_default().take(120).collect();
        Err(Refusal::new(
            Code::ArtNameInvalid,
            format!("name {shown}"),
            "a safe relative path",
            fault,
        ))
    })
}

impl ArtifactName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which it would collide with others on systems that ignore case.
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// The last segment.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl FromStr for ArtifactName {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        check(text, "")?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Selects artifact names: `*` stands for any characters within a segment, a segment `**` for any
/// number of segments, all else for itself. Matching takes time proportional to pattern times name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

impl Pattern {
    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole name fits.
    pub fn matches(&self, name: &ArtifactName) -> bool {
        let names: Vec<&str> = name.0.split('/').collect();
        // reached[i]: the segments of the pattern so far can stand for the first i of the name
        let mut reached = vec![false; names.len().saturating_add(1)];
        if let Some(start) = reached.first_mut() {
            *start = true;
        }
        for segment in self.0.split('/') {
            let mut before = false;
            let mut carried = false;
            for (i, slot) in reached.iter_mut().enumerate() {
                let was = *slot;
                *slot = if segment == "**" {
                    carried |= was;
                    carried
                } else {
                    before
                        && i.checked_sub(1)
                            .and_then(|i| names.get(i))
                            .is_some_and(|name| segment_matches(segment, name))
                };
                before = was;
            }
        }
        reached.last().copied().unwrap_or(false)
    }
}

fn segment_matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

impl FromStr for Pattern {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        check(text, "*")?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_names_pass() {
        for name in [
            "a",
            "dist/app-1.0.tar.xz",
            "Firefox Setup 124.0.exe",
            "a/b/c.~1~",
            ".hidden",
            "a(1)[x]#2@y=z,+",
        ] {
            assert!(name.parse::<ArtifactName>().is_ok(), "{name}");
        }
    }

    /// `art-name-traversal`, `art-name-windows`, `art-name-option-or-shell`.
    #[test]
    fn unsafe_names_are_refused() {
        for name in [
            "",
            ".",
            "..",
            "../x",
            "/etc/x",
            "a/../../x",
            "..\\x",
            "C:x",
            "\\\\h\\s",
            "a/",
            "a//b",
            "a/..",
            "./a",
            "--delete",
            "x/-o",
            "$(touch p)",
            ";x",
            "%2e%2e",
            "a\0b",
            "a\nb",
            "\u{1b}[31m",
            "CON",
            "nul.txt",
            "nul .txt",
            "x/com1",
            "a:b",
            "a.",
            "a ",
            " a",
            "\u{202e}gpj.exe",
            "e\u{301}",
            "a*b",
        ] {
            assert_eq!(
                name.parse::<ArtifactName>().unwrap_err().code,
                Code::ArtNameInvalid,
                "{name:?}"
            );
        }
        let long = "a/../".repeat(200_000);
        assert_eq!(long.parse::<ArtifactName>().unwrap_err().code, Code::ArtNameInvalid);
    }

    #[test]
    fn what_was_read_is_what_stands_there() {
        let name: ArtifactName = "dist/x/a.tar".parse().unwrap();
        assert_eq!((name.as_str(), name.file_name()), ("dist/x/a.tar", "a.tar"));
        assert_eq!("a.tar".parse::<ArtifactName>().unwrap().file_name(), "a.tar");
        assert_eq!("dist/*".parse::<Pattern>().unwrap().as_str(), "dist/*");
        for device in ["aux", "Prn.x.y", "dir/LPT9.log", "com0"] {
            assert!(device.parse::<ArtifactName>().is_err(), "{device}");
        }
        for other in ["com", "com10", "lpt", "xcom1", "conn", "comx"] {
            assert!(other.parse::<ArtifactName>().is_ok(), "{other}");
        }
    }

    #[test]
    fn patterns_match_whole_names() {
        let cases = [
            ("dist/*", "dist/a.tar", true),
            ("dist/*", "dist/x/a.tar", false),
            ("dist/**", "dist/x/a.tar", true),
            ("**/a.tar", "a.tar", true),
            ("**/a.tar", "x/y/a.tar", true),
            ("fire*", "firebird", true),
            ("fire", "firebird", false),
            ("*.tar", "a.tar.gz", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "acb", false),
            ("*a*", "a", true),
            ("**", "x/y", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/y/c", false),
            ("ab*ba", "aba", false),
        ];
        for (pattern, name, fits) in cases {
            let (p, n): (Pattern, ArtifactName) = (pattern.parse().unwrap(), name.parse().unwrap());
            assert_eq!(p.matches(&n), fits, "{pattern} {name}");
        }
    }

    /// `res-pattern-blowup`.
    #[test]
    fn hostile_patterns_end() {
        let pattern: Pattern = "*a".repeat(100).parse().unwrap();
        let name: ArtifactName = format!("{}b", "a".repeat(1000)).parse().unwrap();
        assert!(!pattern.matches(&name));
    }
}
