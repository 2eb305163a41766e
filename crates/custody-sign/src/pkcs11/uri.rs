//! Names of keys in tokens: `pkcs11:` URIs (RFC 7512).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use custody_core::Refusal;

use crate::unavailable;

/// A private key in a token, and how to get at it.
///
/// Of RFC 7512 these attributes are known: `token`, `manufacturer`, `serial`, `model`, `object`, `id` and
/// `type=private` before the `?`, `module-path` and `pin-source=file:` after it. Others are refused: a
/// name that is half understood leads to another key. So is `pin-value`, whatever it says: command lines
/// are seen by everybody on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyUri {
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) model: Option<String>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    /// The library that speaks to the token. There is no default one.
    pub(super) module: PathBuf,
    pub(super) pin_file: Option<PathBuf>,
}

impl KeyUri {
    /// Reads what follows `pkcs11:`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let (path, query) = text.split_once('?').unwrap_or((text, ""));
        let (mut path, mut query) = (Attributes::parse(path, ';')?, Attributes::parse(query, '&')?);
        if query.take("pin-value").is_some() || path.take("pin-value").is_some() {
            let expected = "pin-source=file:/PATH, or the PIN typed at the terminal";
            return Err(malformed(expected, "pin-value, which others on the machine can read"));
        }
        match path.text("type")?.as_deref() {
            None | Some("private") => {}
            Some(other) => return Err(malformed("type=private", other.escape_default())),
        }
        let module = query.path("module-path", "")?.ok_or_else(|| {
            malformed("?module-path=/PATH of the token's PKCS#11 library", "no such attribute")
        })?;
        let uri = Self {
            token: path.text("token")?,
            manufacturer: path.text("manufacturer")?,
            serial: path.text("serial")?,
            model: path.text("model")?,
            object: path.text("object")?,
            id: path.take("id"),
            module,
            pin_file: query.path("pin-source", "file:")?,
        };
        path.end()?;
        query.end()?;
        Ok(uri)
    }
}

/// The key without the way to it.
impl fmt::Display for KeyUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &Option<String>| text.as_ref().map(|text| text.clone().into_bytes());
        let attributes = [
            ("token", text(&self.token)),
            ("manufacturer", text(&self.manufacturer)),
            ("serial", text(&self.serial)),
            ("model", text(&self.model)),
            ("object", text(&self.object)),
            ("id", self.id.clone()),
        ];
        let given = attributes.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let parts: Vec<String> = given.map(|(name, value)| attribute(name, &value)).collect();
        write!(f, "pkcs11:{}", parts.join(";"))
    }
}

/// `name=value` as it stands in a URI.
pub(super) fn attribute(name: &str, value: &[u8]) -> String {
    let mut text = format!("{name}=");
    for byte in value {
        match byte {
            // an id is no text, even where its bytes look like some
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' if name != "id" => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

fn malformed(expected: impl Into<String>, found: impl ToString) -> Refusal {
    unavailable("pkcs11: URI", expected, found)
}

/// One of the two parts of a URI. Values are not repeated in refusals: one of them may be a PIN.
struct Attributes<'a>(BTreeMap<&'a str, Vec<u8>>);

impl<'a> Attributes<'a> {
    fn parse(text: &'a str, separator: char) -> Result<Self, Refusal> {
        let mut attributes = BTreeMap::new();
        for part in text.split(separator).filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| malformed("NAME=VALUE", "no ="))?;
            let value = decode(value).ok_or_else(|| {
                let expected = format!("{} with % and two digits for what is special", shown(name));
                malformed(expected, "other characters")
            })?;
            if attributes.insert(name, value).is_some() {
                return Err(malformed(format!("{} once", shown(name)), "twice"));
            }
        }
        Ok(Self(attributes))
    }

    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.0.remove(name)
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, Refusal> {
        let text = self.take(name).map(String::from_utf8).transpose();
        text.map_err(|_| malformed(format!("{name} in UTF-8"), "other bytes"))
    }

    /// An absolute path behind this scheme: what a name means must not depend on where we stand.
    fn path(&mut self, name: &str, scheme: &str) -> Result<Option<PathBuf>, Refusal> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let path = text.strip_prefix(scheme).map(|path| match path.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() => rest,
            _ => path,
        });
        match path.map(Path::new).filter(|path| path.is_absolute()) {
            Some(path) => Ok(Some(path.to_owned())),
            None => Err(malformed(format!("{name}={scheme}/PATH, absolute"), "another")),
        }
    }

    fn end(self) -> Result<(), Refusal> {
        match self.0.first_key_value() {
            None => Ok(()),
            Some((name, _)) => {
                let expected = "token, manufacturer, serial, model, object, id and type, and after the ? \
                                module-path and pin-source";
                Err(malformed(expected, shown(name)))
            }
        }
    }
}

fn shown(name: &str) -> String {
    name.escape_default().take(40).collect()
}

/// Undoes percent-encoding. Blanks and control characters must not stand as themselves.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |rest: &mut std::str::Bytes<'_>| char::from(rest.next()?).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => u8::try_from(digit(&mut rest)? << 4 | digit(&mut rest)?).ok()?,
            0..=b' ' | 0x7f => return None,
            _ => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use custody_core::Code;

    const MODULE: &str = "module-path=/usr/lib/softhsm/libsofthsm2.so";

    fn parse(path: &str, query: &str) -> Result<KeyUri, Refusal> {
        KeyUri::parse(&format!("{path}?{MODULE}{query}"))
    }

    #[test]
    fn attributes_are_decoded() {
        let uri = parse(
            "token=The%20token;manufacturer=M;serial=0123;model=v2;object=b%C3%BCro%3b;id=%01%fF0;type=private",
            "&pin-source=file:/etc/pin%20file",
        )
        .unwrap();
        assert_eq!(uri.token.as_deref(), Some("The token"));
        assert_eq!(uri.object.as_deref(), Some("büro;"));
        assert_eq!(uri.id.as_deref(), Some(&b"\x01\xff0"[..]));
        assert_eq!(uri.pin_file.as_deref(), Some(Path::new("/etc/pin file")));
        assert_eq!(uri.module, Path::new("/usr/lib/softhsm/libsofthsm2.so"));
        let shown = uri.to_string();
        assert_eq!(
            shown,
            "pkcs11:token=The%20token;manufacturer=M;serial=0123;model=v2;object=b%C3%BCro%3B;id=%01%FF%30"
        );
        // what is shown names the same key
        let again =
            parse(shown.strip_prefix("pkcs11:").unwrap(), "&pin-source=file:///etc/pin%20file");
        assert_eq!(again.unwrap(), uri);
        assert_eq!(parse("", "").unwrap().to_string(), "pkcs11:");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        parse("token=a;object=b", "").unwrap();
        for (path, query) in [
            ("token", ""),
            ("token=a;token=b", ""),
            ("token=%4", ""),
            ("token=%+1", ""),
            ("token=%zz", ""),
            ("token=%FF", ""),
            ("token=a b", ""),
            ("token=a\n", ""),
            ("slot-id=1", ""),
            ("library-version=1", ""),
            ("type=public", ""),
            ("token=a&object=b;x-vendor=1", ""),
            ("module-path=/lib/a.so", ""),
            ("token=a", "&module-path=/lib/b.so"),
            ("token=a", "&module-name=softhsm2"),
            ("token=a", "&token=a"),
            ("token=a", "&pin-source=/etc/pin"),
            ("token=a", "&pin-source=file:pin"),
            ("token=a", "&pin-source=file://host/pin"),
            ("token=a", "&pin-source=|cat%20/etc/pin"),
        ] {
            let refusal = parse(path, query).unwrap_err();
            assert_eq!(refusal.code, Code::KeyUnavailable, "{path} {query}");
        }
        for module in ["", "?module-path=", "?module-path=lib.so", "?module-path=./lib.so"] {
            let refusal = KeyUri::parse(&format!("token=a{module}")).unwrap_err();
            assert!(refusal.expected.contains("module-path"), "{refusal}");
        }
    }

    #[test]
    fn a_pin_in_the_uri_is_refused_and_not_repeated() {
        for refusal in [
            parse("token=a", "&pin-value=7355608").unwrap_err(),
            parse("token=a;pin-value=7355608", "").unwrap_err(),
            parse("token=a", "&pin-value=7355608&pin-value=7355608").unwrap_err(),
            parse("token=a", "&pin-vaule=7355608").unwrap_err(),
            parse("token=a", "&pin-value=7355608%").unwrap_err(),
        ] {
            assert_eq!(refusal.code, Code::KeyUnavailable);
            assert!(!format!("{refusal} {refusal:?}").contains("7355608"), "{refusal}");
        }
    }
}
