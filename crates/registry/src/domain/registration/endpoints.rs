//! The endpoints of a registration (GW-16).

use portico_base::Permission;
use portico_contract::directory::{CacheHint, RateLimit};
use serde_json::Value;

use crate::domain::endpoint::EndpointView;
use crate::domain::fields::{Faults, Reader};

/// Most endpoints of a version (RG-9).
const MOST: usize = 500;

/// Reads `endpoints`.
pub(super) fn read(r: &mut Reader<'_>, faults: &mut Faults) -> Vec<EndpointView> {
    let mut out: Vec<EndpointView> = Vec::new();
    for (i, item) in r.list("endpoints", MOST, faults).iter().enumerate() {
        let path = format!("endpoints[{i}]");
        let Some(endpoint) = Reader::new(&path, item, faults).map(|r| one(r, faults)) else {
            continue;
        };
        if out
            .iter()
            .any(|e| e.path == endpoint.path && e.method == endpoint.method)
        {
            faults.add(
                path,
                "duplicate",
                "the same method and path are declared twice",
            );
        } else {
            out.push(endpoint);
        }
    }
    out
}

fn one(mut r: Reader<'_>, faults: &mut Faults) -> EndpointView {
    let endpoint = EndpointView {
        version: None,
        method: method(&mut r, faults),
        path: path(&mut r, faults),
        description: r
            .text("description", 1024, faults)
            .unwrap_or_default()
            .to_owned(),
        is_public: r.flag("is_public", faults),
        required_roles: r.texts("required_roles", 32, 64, faults),
        required_permissions: permissions(&mut r, faults),
        rate_limit: rate_limit(&mut r, faults),
        timeout_ms: r
            .integer("timeout_ms", 1, 86_400_000, faults)
            .and_then(|n| u32::try_from(n).ok()),
        cache: cache(&mut r, faults),
        idempotency_key: r.flag("idempotency_key", faults),
    };
    if endpoint.is_public
        && !(endpoint.required_roles.is_empty() && endpoint.required_permissions.is_empty())
    {
        // Both are kept: the gateway asks for the roles, because the stricter word must hold.
        tracing::debug!(path = %endpoint.path, "an endpoint is public and asks for roles");
    }
    r.finish(faults);
    endpoint
}

fn method(r: &mut Reader<'_>, faults: &mut Faults) -> Option<String> {
    let text = r.text("method", 20, faults)?.to_ascii_uppercase();
    if matches!(text.as_str(), "" | "*" | "ANY") {
        return None;
    }
    if !text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        faults.add(
            r.path("method"),
            "form",
            "must be an HTTP method, or `*` for all",
        );
    }
    Some(text)
}

fn path(r: &mut Reader<'_>, faults: &mut Faults) -> String {
    if r.value("path").is_none() {
        faults.add(r.path("path"), "required", "is needed");
        return String::new();
    }
    let text = r.text("path", 512, faults).unwrap_or("/");
    if let Err(message) = check_path(text) {
        faults.add(r.path("path"), "form", message);
    }
    text.to_owned()
}

fn check_path(text: &str) -> Result<(), &'static str> {
    let Some(rest) = text.strip_prefix('/') else {
        return Err("must begin with `/`");
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let last = segments.len() - 1;
    for (i, segment) in segments.iter().enumerate() {
        match *segment {
            "." | ".." => return Err("must not contain `.` or `..`"),
            "" if i != last => return Err("must not contain `//`"),
            "*" if i == last => {}
            s if s.starts_with('{') => {
                let name = s
                    .strip_prefix('{')
                    .and_then(|s| s.strip_suffix('}'))
                    .unwrap_or("");
                let rest = name.strip_prefix('*').unwrap_or(name);
                let good = !rest.is_empty()
                    && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                    && (rest.len() == name.len() || i == last);
                if !good {
                    return Err(
                        "a parameter must be a whole segment `{name}`, or `{*name}` at the end",
                    );
                }
            }
            s if s
                .bytes()
                .any(|b| !b.is_ascii_graphic() || b"?#\\{}*<>\"`|^".contains(&b)) =>
            {
                return Err(
                    "must be visible ASCII without `?`, `#`, `\\`, and `*` or braces inside a segment",
                );
            }
            _ => {}
        }
    }
    Ok(())
}

fn permissions(r: &mut Reader<'_>, faults: &mut Faults) -> Vec<String> {
    let texts = r.texts("required_permissions", 32, 122, faults);
    for (i, text) in texts.iter().enumerate() {
        if Permission::parse(text).is_err() || text.contains('*') {
            let path = format!("{}[{i}]", r.path("required_permissions"));
            faults.add(path, "form", "must be of the form service:resource:action");
        }
    }
    texts
}

/// `{"per_s": 5, "burst": 10}`, or just the number per second.
fn rate_limit(r: &mut Reader<'_>, faults: &mut Faults) -> Option<RateLimit> {
    let value = r.value("rate_limit")?;
    let limit = match value {
        Value::Number(n) => n.as_f64().map(|per_s| RateLimit { per_s, burst: None }),
        _ => serde_json::from_value(value.clone()).ok(),
    };
    match limit {
        Some(limit)
            if limit.per_s > 0.0
                && limit.per_s <= 1e6
                && limit.burst.is_none_or(|b| (1..=1_000_000).contains(&b)) =>
        {
            Some(limit)
        }
        _ => {
            faults.add(
                r.path("rate_limit"),
                "form",
                "must be a number per second above 0, or {\"per_s\": number, \"burst\": whole number}",
            );
            None
        }
    }
}

fn cache(r: &mut Reader<'_>, faults: &mut Faults) -> Option<CacheHint> {
    let value = r.value("cache")?;
    let hint = match value {
        Value::Number(n) => n
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .map(|ttl_s| CacheHint {
                ttl_s,
                per_user: false,
                stale_while_revalidate_s: 0,
            }),
        _ => serde_json::from_value(value.clone()).ok(),
    };
    if hint.is_none() {
        faults.add(
            r.path("cache"),
            "form",
            "must be seconds, or {\"ttl_s\": seconds, \"per_user\": bool, \"stale_while_revalidate_s\": seconds}",
        );
    }
    hint
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        for good in [
            "/",
            "/a",
            "/a/",
            "/a/{id}",
            "/a/{id}/b",
            "/a/*",
            "/a/{*rest}",
            "/a.b-c~d",
        ] {
            assert!(check_path(good).is_ok(), "{good}");
        }
        for bad in [
            "", "a", "//", "/a//b", "/../a", "/a/.", "/{}", "/{a", "/x{a}", "/*/a", "/{*a}/b",
            "/a?b", "/a b", "/ä",
        ] {
            assert!(check_path(bad).is_err(), "{bad}");
        }
    }
}
