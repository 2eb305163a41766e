//! Places in a policy: where files come from and go to, and where people sign.

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;

use super::tables::Text;
use super::{Fault, fault};

/// The beginning of a URI, without anything that could mean another place than it seems to.
pub(super) fn place(uri: &Text) -> Result<String, Fault> {
    let text = uri.get_ref();
    // a scheme alone would allow every host
    let names_a_place = text.split_once("://").is_some_and(|(scheme, rest)| {
        !scheme.is_empty() && !rest.is_empty() && (scheme == "file" || !rest.starts_with('/'))
    });
    let clean = names_a_place
        && !text.contains("..")
        && !text.contains(['%', '@', '\\', '*', '?'])
        && !text.contains(char::is_whitespace);
    if clean {
        Ok(text.clone())
    } else {
        Err(fault(
            uri.span(),
            "no plain URI",
            "write scheme, host and path; end it with / to allow all below",
        ))
    }
}

/// Where a step may publish: as far as this version of Custody can.
pub(super) fn destination(uri: &Text) -> Result<String, Fault> {
    let text = place(uri)?;
    if text.starts_with("file:///") || text.starts_with("s3://") {
        return Ok(text);
    }
    Err(fault(uri.span(), "no place to publish to", "write file:///… or s3://BUCKET/…"))
}

/// Where a command may fetch: a host and a path, by HTTP.
pub(super) fn download(uri: &Text) -> Result<String, Fault> {
    let text = place(uri)?;
    let host_and_path = |rest: &str| rest.contains('/');
    let by_http = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if by_http.is_some_and(host_and_path) {
        return Ok(text);
    }
    Err(fault(uri.span(), "no place to fetch from", "write https://HOST/, or a path below it"))
}

/// A web origin, as browsers write them.
pub(super) fn origin(text: &Text) -> Result<String, Fault> {
    let value = text.get_ref();
    let port = |rest: &str| {
        rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok())
    };
    let local = value.strip_prefix("http://localhost").is_some_and(port);
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    let secure = value.strip_prefix("https://").is_some_and(|authority| {
        // a colon is in the host only between brackets
        let end = authority.rfind(']').map_or(0, |bracket| bracket.saturating_add(1));
        let colon = authority.get(end..).and_then(|rest| rest.find(':'));
        let at = colon.map_or(authority.len(), |colon| end.saturating_add(colon));
        let (host, rest) = authority.split_at_checked(at).unwrap_or((authority, ""));
        !host.is_empty() && host.chars().all(allowed) && port(rest)
    });
    if local || secure {
        return Ok(value.to_owned());
    }
    let remedy = "write an origin as browsers do, like \"https://desk.example.org\"";
    Err(fault(text.span(), format!("{value:?} is no web origin"), remedy))
}
