//! Text with placeholders, for which a request gives the values.

use std::str::FromStr;

use custody_core::statement::Request;
use custody_core::{Code, Refusal};

/// Text in which `{product}`, `{version}`, `{channel}`, `{instance}`, `{phase}`, `{commit}` and
/// `{param.NAME}` stand for values of the request; `{{` and `}}` stand for braces. A value is put in
/// as it is: it never becomes two arguments or another placeholder.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
    place: String,
}

#[derive(Clone, Debug)]
enum Part {
    Text(String),
    Value(String),
}

impl Template {
    /// Reads a template that stands at `place`.
    pub(super) fn parse(text: &str, place: String) -> Result<Self, Refusal> {
        match parts(text) {
            Ok(parts) => Ok(Self { parts, place }),
            Err(found) => {
                let known = "{product}, {version}, {channel}, {instance}, {phase}, {commit} or \
                             {param.NAME}; {{ and }} for braces";
                Err(Refusal::new(Code::ParseFieldType, place, known, found))
            }
        }
    }

    /// Where it stands.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// Whether this can become a `T` for some request.
    pub(super) fn check<T: FromStr<Err = Refusal>>(&self) -> Result<(), Refusal> {
        // a letter can stand wherever any value can
        self.to(|_| Some("x")).map(|_: T| ())
    }

    /// The text for this request.
    pub(super) fn resolve(&self, request: &Request) -> Result<String, Refusal> {
        self.fill(|name| value(request, name))
    }

    /// The same, as something that has a form.
    pub(super) fn resolve_to<T: FromStr<Err = Refusal>>(
        &self,
        request: &Request,
    ) -> Result<T, Refusal> {
        self.to(|name| value(request, name))
    }

    fn to<'a, T: FromStr<Err = Refusal>>(
        &'a self,
        value: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<T, Refusal> {
        self.fill(value)?.parse().map_err(|refusal: Refusal| refusal.within(&self.place))
    }

    fn fill<'a>(&'a self, value: impl Fn(&str) -> Option<&'a str>) -> Result<String, Refusal> {
        let fill = |part: &'a Part| match part {
            Part::Text(text) => Ok(text.as_str()),
            Part::Value(name) => value(name).ok_or_else(|| {
                let expected = format!("a value for {{{name}}} in the request");
                Refusal::new(Code::ParseFieldMissing, &self.place, expected, "none")
            }),
        };
        self.parts.iter().map(fill).collect()
    }
}

const PARAMETER: &str = "param.";

fn value<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let parameter = |name: &str| {
        let found = request.parameters.iter().find(|(parameter, _)| parameter == name);
        found.map(|(_, value)| value.as_str())
    };
    match name {
        "product" => Some(request.release.product.as_str()),
        "version" => Some(request.release.version.as_str()),
        "channel" => Some(request.release.channel.as_str()),
        "instance" => Some(request.release.instance.as_str()),
        "phase" => Some(request.phase.as_str()),
        "commit" => Some(request.source.revision.id()),
        _ => parameter(name.strip_prefix(PARAMETER)?),
    }
}

fn is_known(name: &str) -> bool {
    ["product", "version", "channel", "instance", "phase", "commit"].contains(&name)
        || name.strip_prefix(PARAMETER).is_some_and(|name| !name.is_empty())
}

fn parts(text: &str) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        parts.push(Part::Text(before.to_owned()));
        if from.starts_with("{{") || from.starts_with("}}") {
            let (brace, after) = from.split_at(1);
            parts.push(Part::Text(brace.to_owned()));
            rest = after.split_at(1).1;
            continue;
        }
        let inner = from.strip_prefix('{').and_then(|from| from.split_once('}'));
        let (name, after) = inner.ok_or("a single brace")?;
        if !is_known(name) {
            return Err(format!("{{{}}}", name.escape_default()));
        }
        parts.push(Part::Value(name.to_owned()));
        rest = after;
    }
    parts.push(Part::Text(rest.to_owned()));
    Ok(parts)
}
