//! Git LFS: the file that a pointer in the tree names by SHA-256 and size.
//!
//! The commit pins both, so where the bytes come from decides nothing. No attribute is asked: a file
//! is a pointer if it is one, byte for byte.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use custody_core::digest::{Hasher, Sha256};
use custody_core::json::{self, Value};
use custody_core::{Code, Refusal};
use rustix::fs::CWD;
use url::Url;

use super::tree::Sink;
use crate::destination::agent;
use crate::stage::copy::{CHUNK, open_regular, unavailable};

/// Longest pointer.
pub(super) const POINTER_BYTES: u64 = 1_024;
/// Largest answer of a server to the question where a file is.
const ANSWER_BYTES: u64 = 1 << 20;
const JSON: &str = "application/vnd.git-lfs+json";

/// What stands in the tree for a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    oid: Sha256,
    size: u64,
}

impl Pointer {
    /// The pointer, if this is one in its one form. Anything else is a file like others.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(content).ok()?;
        let rest = text.strip_prefix("version https://git-lfs.github.com/spec/v1\noid sha256:")?;
        let (oid, size) = rest.strip_suffix('\n')?.split_once("\nsize ")?;
        let pointer = Self { oid: oid.parse().ok()?, size: size.parse().ok()? };
        (size == pointer.size.to_string()).then_some(pointer)
    }

    fn at(&self) -> String {
        format!("LFS object {}", self.oid)
    }

    fn unavailable(&self, found: impl Into<String>) -> Refusal {
        Refusal::new(Code::GateUnavailable, self.at(), "the file that the pointer names", found)
    }

    /// Writes the file, from the repository beside which it is kept or the server of the repository.
    pub(super) fn bring(&self, from: &str, to: &mut Sink<'_>) -> Result<(), Refusal> {
        let from = from.strip_prefix("git+").unwrap_or(from);
        let mut reader = self.open(from)?;
        let mut hasher = Hasher::new(false);
        let mut buffer = vec![0; CHUNK];
        // one byte more than there should be shows that it is another file
        let mut limited = (&mut reader).take(self.size.saturating_add(1));
        loop {
            let count = limited.read(&mut buffer);
            let bytes = match count {
                Ok(0) => break,
                Ok(count) => buffer.get(..count).unwrap_or_default(),
                Err(error) => return Err(self.unavailable(error.to_string())),
            };
            hasher.update(bytes);
            to.write_all(bytes).map_err(|error| unavailable(Path::new("source"), &error))?;
        }
        let (digests, size) = hasher.finish();
        if digests.sha256 == self.oid && size == self.size {
            return Ok(());
        }
        let (expected, found) = (
            format!("sha256 {}, {} bytes", self.oid, self.size),
            format!("sha256 {}, {size} bytes or more", digests.sha256),
        );
        Err(Refusal::new(Code::ChainSourceMismatch, self.at(), expected, found))
    }

    fn open(&self, from: &str) -> Result<Box<dyn Read>, Refusal> {
        if from.starts_with("https://") {
            return self.download(from);
        }
        let Some(root) =
            from.strip_prefix("file://").or_else(|| from.strip_prefix('/').map(|_| from))
        else {
            let found = "a repository by SSH: name a clone on this machine that has the files";
            return Err(self.unavailable(found));
        };
        let oid = self.oid.to_string();
        let (first, rest) = oid.split_at(2);
        let second = rest.get(..2).unwrap_or_default();
        let name = |inner: &str| -> PathBuf {
            [root, inner, "lfs/objects", first, second, &oid].iter().collect()
        };
        let path = [name(".git"), name("")].into_iter().find(|path| path.exists());
        let path = path.ok_or_else(|| self.unavailable("nothing in lfs/objects"))?;
        Ok(Box::new(open_regular(CWD, &path)?))
    }

    /// The batch API: <https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md>.
    fn download(&self, from: &str) -> Result<Box<dyn Read>, Refusal> {
        let base = from.trim_end_matches('/');
        let suffix =
            if Path::new(base).extension().is_some_and(|end| end == "git") { "" } else { ".git" };
        let endpoint = format!("{base}{suffix}/info/lfs/objects/batch");
        let object =
            Value::object([("oid", Value::text(self.oid)), ("size", Value::Integer(self.size))]);
        let question = Value::object([
            ("operation", Value::text("download")),
            ("transfers", Value::list([Value::text("basic")])),
            ("objects", Value::list([object])),
        ]);
        let fault = |error: ureq::Error| self.unavailable(error.to_string());
        let url =
            |text: &str| Url::parse(text).map_err(|error| self.unavailable(error.to_string()));
        let mut answer = agent(&url(&endpoint)?)
            .post(&endpoint)
            .header("Accept", JSON)
            .header("Content-Type", JSON)
            .send(question.to_line())
            .map_err(fault)?;
        if answer.status() != 200 {
            return Err(self.unavailable(format!("HTTP {} from {endpoint}", answer.status())));
        }
        let body =
            answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_vec().map_err(fault)?;
        let (href, headers) = action(&body).map_err(|refusal| refusal.within(&self.at()))?;
        if !href.starts_with("https://") {
            return Err(self.unavailable("a place that is not https"));
        }
        let mut request = agent(&url(&href)?).get(&href);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let response = request.call().map_err(fault)?;
        if response.status() != 200 {
            return Err(self.unavailable(format!("HTTP {}", response.status())));
        }
        Ok(Box::new(response.into_body().into_reader()))
    }
}

/// Where the answer says that the one object is, and with which headers it is asked for.
fn action(body: &[u8]) -> Result<(String, Vec<(String, String)>), Refusal> {
    let limit = usize::try_from(ANSWER_BYTES).unwrap_or(usize::MAX);
    let mut answer = json::parse(body, limit, limit)?.into_object("answer")?;
    let objects = answer.required("objects")?.into_list("objects")?;
    let first = objects.into_iter().next().unwrap_or(Value::Null);
    let mut actions = first.into_object("objects[0]")?.object("actions")?;
    let mut download = actions.object("download")?;
    let headers = match download.optional("header") {
        None => Vec::new(),
        Some(headers) => headers.into_object("header")?.rest(),
    };
    let headers = headers
        .into_iter()
        .map(|(name, value)| Ok((name.into_owned(), value.into_text("header")?)));
    Ok((download.text("href")?, headers.collect::<Result<_, Refusal>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_has_one_form() {
        let oid = "ab".repeat(32);
        let good =
            format!("version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize 12\n");
        assert_eq!(Pointer::parse(good.as_bytes()).unwrap().size, 12);
        for bad in [
            good.trim_end().to_owned(),
            good.replace("size 12", "size 012"),
            good.replace("size 12", "size +12"),
            good.replace("ab\n", "AB\n"),
            good.replace("/v1", "/v2"),
            good.replace("\noid", "\next-0-x sha256:00\noid"),
            format!("{good}\n"),
        ] {
            assert_eq!(Pointer::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_server_says_where_the_object_is() {
        let body = r#"{"transfer":"basic","objects":[{"oid":"x","size":1,"authenticated":true,
            "actions":{"download":{"href":"https://x.example/y","header":{"A":"b"},"expires_in":1}}}]}"#;
        let found = action(body.as_bytes()).unwrap();
        assert_eq!(found, ("https://x.example/y".into(), vec![("A".into(), "b".into())]));
        let absent = r#"{"objects":[{"oid":"x","size":1,"error":{"code":404,"message":"none"}}]}"#;
        assert!(action(absent.as_bytes()).is_err());
        assert!(action(b"{}").is_err());
    }
}
