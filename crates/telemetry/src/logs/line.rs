//! One line: the fields of OB-30 in their order, as JSON or as text, masked on the way out.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use portico_base::mask::{MASKED, is_secret_name};
use tracing::Level;

use super::collect::{FieldValue, Fields};
use super::scope::LogContext;
use crate::json::{self, Stamp, Text};
use crate::mask;

/// Names that stand in the head of a line, wherever they came from.
pub(super) const HEAD: [&str; 7] = [
    "service",
    "request_id",
    "trace_id",
    "span_id",
    "tenant_id",
    "user_id",
    "code",
];

/// Who writes.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) replica: String,
}

/// How lines look.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) text: bool,
    pub(super) colours: bool,
    pub(super) identity: Identity,
}

/// Everything that goes into a line. `spans` goes from the outermost to the innermost.
pub(super) struct Parts<'a> {
    pub(super) at_us: i64,
    pub(super) level: Level,
    pub(super) target: &'a str,
    pub(super) event: &'a Fields,
    pub(super) spans: &'a [Arc<Fields>],
    pub(super) context: Option<&'a LogContext>,
    /// Lines like this one that were not written.
    pub(super) folded: u64,
}

impl Parts<'_> {
    /// The value of a head field: of the event, else the innermost span, else the request.
    fn head(&self, name: &str) -> Option<Cow<'_, str>> {
        let of = |fields: &Fields| {
            let (_, value) = fields.all.iter().find(|(known, _)| *known == name)?;
            Some(match value {
                FieldValue::Text(text) => text.clone(),
                FieldValue::Int(n) => n.to_string(),
                FieldValue::Uint(n) => n.to_string(),
                FieldValue::Float(n) => n.to_string(),
                FieldValue::Bool(b) => b.to_string(),
            })
        };
        let own = of(self.event).or_else(|| self.spans.iter().rev().find_map(|s| of(s)));
        if let Some(value) = own.filter(|v| !v.is_empty()) {
            return Some(Cow::Owned(value));
        }
        let context = self.context?;
        let shared = |text: &Option<Arc<str>>| text.as_ref().map(|t| Cow::Owned(t.to_string()));
        match name {
            "request_id" => shared(&context.request_id),
            "trace_id" => context.trace_id.map(|id| Cow::Owned(id.to_string())),
            "span_id" => context.span_id.map(|id| Cow::Owned(id.to_string())),
            "tenant_id" => shared(&context.tenant_id),
            "user_id" => shared(&context.user_id),
            "service" => shared(&context.service),
            _ => None,
        }
    }

    fn service(&self) -> Cow<'_, str> {
        self.head("service").unwrap_or_else(|| {
            // `portico_gateway::pool` is a line of the gateway.
            let krate = self.target.split("::").next().unwrap_or_default();
            Cow::Borrowed(krate.strip_prefix("portico_").unwrap_or("portico"))
        })
    }

    /// The error chain, under either of its names.
    fn err(&self) -> Option<&FieldValue> {
        let fields = self.event.all.iter();
        fields
            .filter(|(name, _)| matches!(*name, "err" | "error"))
            .map(|(_, value)| value)
            .next()
    }

    /// The other fields: of the event, then of the spans from the innermost, each name once.
    fn rest(&self) -> Vec<(&'static str, &FieldValue)> {
        let mut out: Vec<(&'static str, &FieldValue)> = Vec::new();
        let spans = self.spans.iter().rev().map(AsRef::as_ref);
        for (i, fields) in std::iter::once(self.event).chain(spans).enumerate() {
            for (name, value) in &fields.all {
                let taken = HEAD.contains(name)
                    || (i == 0 && matches!(*name, "err" | "error"))
                    || out.iter().any(|(known, _)| known == name);
                if !taken {
                    out.push((name, value));
                }
            }
        }
        out
    }

    pub(super) fn write(&self, style: &Style, stamp: &mut Stamp) -> Vec<u8> {
        let mut out = Vec::with_capacity(320);
        if style.text {
            self.write_text(&mut out, style, stamp);
        } else {
            self.write_json(&mut out, style, stamp);
        }
        out
    }

    fn write_json(&self, out: &mut Vec<u8>, style: &Style, stamp: &mut Stamp) {
        out.extend_from_slice(b"{\"ts\":\"");
        stamp.write(out, self.at_us);
        out.extend_from_slice(b"\",\"level\":\"");
        out.extend_from_slice(level_name(self.level).as_bytes());
        out.extend_from_slice(b"\",\"msg\":");
        json::string(out, &mask::text(&self.event.message));
        json::name(out, "target");
        json::string(out, self.target);
        json::name(out, "service");
        json::string(out, &self.service());
        if !style.identity.replica.is_empty() {
            json::name(out, "replica");
            json::string(out, &style.identity.replica);
        }
        for name in &HEAD[1..] {
            if let Some(value) = self.head(name) {
                json::name(out, name);
                json::string(out, &head_value(name, &value));
            }
        }
        if let Some(err) = self.err() {
            json::name(out, "err");
            json_value(out, "err", err);
        }
        for (name, value) in self.rest() {
            json::name(out, rename(name));
            json_value(out, name, value);
        }
        if self.folded > 0 {
            json::name(out, "folded");
            json::number(out, self.folded);
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_text(&self, out: &mut Vec<u8>, style: &Style, stamp: &mut Stamp) {
        let (dim, plain) = if style.colours {
            ("\x1b[2m", "\x1b[0m")
        } else {
            ("", "")
        };
        let colour = match self.level {
            _ if !style.colours => "",
            Level::ERROR => "\x1b[31m",
            Level::WARN => "\x1b[33m",
            Level::INFO => "\x1b[32m",
            _ => "\x1b[34m",
        };
        out.extend_from_slice(dim.as_bytes());
        stamp.write(out, self.at_us);
        let name = level_name(self.level);
        let _ = write!(Text(out), "{plain} {colour}{name:>5}{plain} ");
        let message = printable(&mask::text(&self.event.message));
        let _ = write!(Text(out), "{dim}{}{plain} {message}", self.service());
        for name in &HEAD[1..] {
            if let Some(value) = self.head(name) {
                let value = value_text(&head_value(name, &value));
                let _ = write!(Text(out), " {dim}{name}={plain}{value}");
            }
        }
        let err = self.err().map(|value| ("err", value));
        for (name, value) in err.into_iter().chain(self.rest()) {
            let value = match value {
                _ if is_secret_name(name) => MASKED.to_owned(),
                FieldValue::Text(text) => value_text(&mask::text(text)),
                FieldValue::Int(n) => n.to_string(),
                FieldValue::Uint(n) => n.to_string(),
                FieldValue::Float(n) => n.to_string(),
                FieldValue::Bool(b) => b.to_string(),
            };
            let _ = write!(Text(out), " {dim}{name}={plain}{value}");
        }
        if self.folded > 0 {
            let _ = write!(Text(out), " {dim}folded={plain}{}", self.folded);
        }
        out.push(b'\n');
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn json_value(out: &mut Vec<u8>, name: &str, value: &FieldValue) {
    if is_secret_name(name) {
        return json::string(out, MASKED);
    }
    match value {
        FieldValue::Text(text) => json::string(out, &mask::text(text)),
        FieldValue::Int(n) => {
            let _ = write!(Text(out), "{n}");
        }
        FieldValue::Uint(n) => json::number(out, *n),
        FieldValue::Float(n) => json::float(out, *n),
        FieldValue::Bool(b) => out.extend_from_slice(if *b { b"true" } else { b"false" }),
    }
}

/// A dotted code (`gateway.no_instance`) is shown; anything else called `code` may be a one-time code.
fn head_value<'a>(name: &str, value: &'a str) -> Cow<'a, str> {
    if name == "code" && !mask::is_dotted_code(value) {
        return Cow::Borrowed(MASKED);
    }
    mask::text(value)
}

/// Fields that would look like the head get another name.
fn rename(name: &'static str) -> &'static str {
    match name {
        "ts" => "field_ts",
        "level" => "field_level",
        "msg" => "field_msg",
        "target" => "field_target",
        "replica" => "field_replica",
        "error" | "err" => "span_err",
        "folded" => "field_folded",
        name => name,
    }
}

/// Text without control characters, so that nobody can write lines or colours of his own.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same as the value of a name: in quotes where it would run together with what follows.
fn value_text(text: &str) -> String {
    let text = printable(text);
    if text.is_empty() || text.contains([' ', '"', '=']) {
        format!("\"{}\"", text.replace('"', "\\\""))
    } else {
        text
    }
}
