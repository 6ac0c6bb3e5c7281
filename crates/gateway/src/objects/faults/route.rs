//! What can be wrong with a route.

use http::HeaderName;
use portico_base::FieldFault;

use super::{Faults, MAX_FIXED_BODY, MAX_TIME_MS, ROOTS, braces, placeholders, policy};
use crate::objects::doc::{
    DirectoryTarget, FieldMatch, FixedTarget, PathMatch, RedirectTarget, Rewrite, RouteDoc, Target,
    Validate,
};
use crate::route::pattern::Pattern;
use crate::route::{condition, path};

impl Validate for RouteDoc {
    fn faults(&self) -> Vec<FieldFault> {
        let mut f = Faults::default();
        f.check(
            self.description.len() <= 1000,
            "description",
            "too_long",
            "must be at most 1000 bytes",
        );
        f.hosts("hosts", &self.hosts);
        let names = route_path(&mut f, &self.path, self.hosts.is_empty());
        f.methods("methods", &self.methods);
        conditions(&mut f, "headers", &self.headers, true);
        conditions(&mut f, "query", &self.query, false);
        target(&mut f, &self.target, &names);
        rewrite(&mut f, self, &names);
        let times = [
            ("timeouts.connect_ms", self.timeouts.connect_ms),
            ("timeouts.first_byte_ms", self.timeouts.first_byte_ms),
            ("timeouts.between_bytes_ms", self.timeouts.between_bytes_ms),
            ("timeouts.total_ms", self.timeouts.total_ms),
        ];
        for (field, time) in times {
            let good = time.is_none_or(|ms| (1..=MAX_TIME_MS).contains(&ms));
            f.check(good, field, "out_of_range", "must be from 1 ms to 1 hour");
        }
        let idle = self
            .timeouts
            .idle_stream_s
            .is_none_or(|s| (1..=86_400).contains(&s));
        f.check(
            idle,
            "timeouts.idle_stream_s",
            "out_of_range",
            "must be from 1 s to 1 day",
        );
        let attempts = self.retries.attempts.is_none_or(|n| (1..=3).contains(&n));
        f.check(
            attempts,
            "retries.attempts",
            "out_of_range",
            "must be from 1 to 3",
        );
        f.statuses(
            "retries.statuses",
            self.retries.statuses.as_deref().unwrap_or(&[]),
            500,
        );
        f.statuses("failure_statuses", &self.failure_statuses, 500);
        if let Some(access) = &self.access {
            let narrowed = !access.roles.is_empty() || !access.permissions.is_empty();
            f.check(
                !(access.public && narrowed),
                "access.public",
                "conflict",
                "cannot be set with roles or permissions",
            );
            f.list("access.allow", &access.allow);
            f.list("access.deny", &access.deny);
        }
        if let Some(rule) = &self.cache {
            policy(&mut f, "cache", rule);
        }
        f.0
    }
}

fn route_path(f: &mut Faults, path: &PathMatch, any_host: bool) -> Vec<String> {
    let (field, text) = match path {
        PathMatch::Exact(p) => ("path.exact", p),
        PathMatch::Prefix(p) => ("path.prefix", p),
        PathMatch::Pattern(p) => ("path.pattern", p),
    };
    let names = match path {
        PathMatch::Pattern(p) => match Pattern::parse(p) {
            Ok(pattern) => pattern.names().map(str::to_owned).collect(),
            Err(why) => {
                f.add(field, "invalid", why);
                Vec::new()
            }
        },
        PathMatch::Exact(p) | PathMatch::Prefix(p) => {
            let good = path::normalise(p.as_bytes()).is_ok_and(|n| n.as_str() == p);
            f.check(
                good,
                field,
                "invalid",
                "must be a normalised path that begins with `/`",
            );
            Vec::new()
        }
    };
    let first = text.trim_start_matches('/').split('/').next().unwrap_or("");
    if any_host && (ROOTS.contains(&first) || first == "swagger") {
        f.add(
            field,
            "reserved",
            format!("`/{first}` belongs to the platform on hosts of its own"),
        );
    }
    names
}

fn conditions(f: &mut Faults, field: &str, list: &[FieldMatch], header: bool) {
    f.list(field, list);
    for (i, one) in list.iter().enumerate() {
        let at = format!("{field}[{i}]");
        if header {
            let good = HeaderName::from_bytes(one.name.as_bytes()).is_ok();
            f.check(
                good,
                format!("{at}.name"),
                "invalid",
                "is not a header name",
            );
        } else {
            f.check(
                !one.name.is_empty(),
                format!("{at}.name"),
                "required",
                "must not be empty",
            );
        }
        let said = usize::from(one.is.is_some())
            + usize::from(one.regex.is_some())
            + usize::from(one.present.is_some());
        f.check(
            said == 1,
            at.clone(),
            "one_of",
            "needs exactly one of `is`, `regex`, `present`",
        );
        if let Some(Err(why)) = one.regex.as_deref().map(condition::regex) {
            f.add(format!("{at}.regex"), "invalid", why);
        }
    }
}

fn target(f: &mut Faults, target: &Target, names: &[String]) {
    match target {
        Target::Service(one) => f.service("target.service.name".into(), &one.name),
        Target::Services(several) => {
            let good = (1..=10).contains(&several.len());
            f.check(
                good,
                "target.services",
                "out_of_range",
                "must name 1 to 10 services",
            );
            for (i, one) in several.iter().enumerate() {
                f.service(format!("target.services[{i}].name"), &one.name);
                f.check(
                    one.weight <= 1000,
                    format!("target.services[{i}].weight"),
                    "out_of_range",
                    "must be 0 to 1000",
                );
            }
            let some = several.iter().any(|one| one.weight > 0);
            f.check(
                some,
                "target.services",
                "no_weight",
                "one of the weights must be above 0",
            );
        }
        Target::Directory(directory) => directory_target(f, directory),
        Target::Redirect(redirect) => redirect_target(f, redirect, names),
        Target::Fixed(fixed) => fixed_target(f, fixed),
    }
}

fn directory_target(f: &mut Faults, directory: &DirectoryTarget) {
    let good = directory.path.starts_with('/');
    f.check(
        good,
        "target.directory.path",
        "invalid",
        "must be an absolute path",
    );
    let files = directory.index.iter().chain(&directory.fallback);
    for file in files {
        let good = !file.is_empty() && !file.split('/').any(|s| s == ".." || s.is_empty());
        f.check(
            good,
            "target.directory",
            "invalid",
            "index and fallback files must be relative paths",
        );
    }
}

fn redirect_target(f: &mut Faults, redirect: &RedirectTarget, names: &[String]) {
    let good = matches!(redirect.status, 301 | 302 | 303 | 307 | 308);
    f.check(
        good,
        "target.redirect.status",
        "invalid",
        "must be 301, 302, 303, 307 or 308",
    );
    let good = redirect.to.starts_with('/')
        || redirect.to.starts_with("http://")
        || redirect.to.starts_with("https://");
    f.check(
        good,
        "target.redirect.to",
        "invalid",
        "must be a path or an http(s) address",
    );
    f.header_value("target.redirect.to".into(), &redirect.to);
    placeholders(
        f,
        "target.redirect.to",
        &redirect.to,
        names,
        &["path", "query", "host"],
    );
}

fn fixed_target(f: &mut Faults, fixed: &FixedTarget) {
    let good = (200..=599).contains(&fixed.status);
    f.check(
        good,
        "target.fixed.status",
        "out_of_range",
        "must be from 200 to 599",
    );
    f.check(
        fixed.body.len() <= MAX_FIXED_BODY,
        "target.fixed.body",
        "too_long",
        "must be at most 64 KiB",
    );
    for (name, value) in &fixed.headers {
        f.header_name(format!("target.fixed.headers.{name}"), name);
        f.header_value(format!("target.fixed.headers.{name}"), value);
    }
    f.header_value(
        "target.fixed.content_type".into(),
        fixed.content_type.as_deref().unwrap_or(""),
    );
}

fn rewrite(f: &mut Faults, route: &RouteDoc, names: &[String]) {
    match &route.rewrite {
        Some(Rewrite::Prefix(to)) => {
            let good = path::normalise(to.as_bytes()).is_ok_and(|n| n.as_str() == to);
            f.check(
                good,
                "rewrite.prefix",
                "invalid",
                "must be a normalised path that begins with `/`",
            );
            let good = matches!(route.path, PathMatch::Prefix(_));
            f.check(
                good,
                "rewrite.prefix",
                "conflict",
                "needs a route with a prefix",
            );
        }
        Some(Rewrite::Path(to)) => {
            f.check(
                to.starts_with('/'),
                "rewrite.path",
                "invalid",
                "must begin with `/`",
            );
            for name in braces(to) {
                let good = names.iter().any(|n| n == name);
                f.check(
                    good,
                    "rewrite.path",
                    "unknown_name",
                    "names a parameter that the pattern does not have",
                );
            }
        }
        None => {}
    }
}
