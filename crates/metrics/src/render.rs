//! Rendering a scrape: Prometheus text 0.0.4, OpenMetrics 1.0, and the families as a page of the documentation.

use std::fmt::Write as _;

use crate::cell::{Exemplar, HistogramCore};
use crate::family::{Family, Kind};
use crate::registry::{Collected, Entry, Registry, Samples};

/// An exposition format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0, with exemplars.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for; Prometheus text when it names none of ours.
    #[must_use]
    pub fn from_accept(accept: Option<&str>) -> Self {
        match accept {
            Some(text) if text.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Prometheus,
        }
    }

    /// The `Content-Type` of the answer.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Registry {
    /// One scrape as text. Families without a series are left out.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        let mut collected = self.collected();
        let mut out = String::with_capacity(64 * 1024 + self.series() * 96);
        for entry in self.entries() {
            let extra = collected.by_family.remove(entry.family().name);
            write_entry(&mut out, format, &entry, extra);
        }
        let rest: Samples = collected;
        for (_, extra) in rest.by_family {
            write_entry(
                &mut out,
                format,
                &Entry::Declared(extra.family),
                Some(extra),
            );
        }
        if format == Format::OpenMetrics {
            out.push_str("# EOF\n");
        }
        out
    }
}

/// All families as the Markdown of `docs/metrics.md`, sorted by name.
#[must_use]
pub fn documentation(families: &[&'static Family]) -> String {
    let mut sorted: Vec<&&Family> = families.iter().collect();
    sorted.sort_by_key(|family| family.name);
    sorted.dedup_by_key(|family| family.name);
    let mut out = String::from(
        "# Metrics\n\nGenerated from the declarations in the code. `GET /metrics` of the admin \
         listener speaks the Prometheus text format 0.0.4 and OpenMetrics 1.0.\n\n\
         | Name | Type | Labels | Most series | Meaning |\n|---|---|---|---|---|\n",
    );
    for family in sorted {
        let labels = match family.labels {
            [] => "–".to_owned(),
            labels => format!("`{}`", labels.join("`, `")),
        };
        let _ = writeln!(
            out,
            "| `{}` | {} | {labels} | {} | {} |",
            family.name,
            family.kind.as_str(),
            family.max_series,
            family.help.replace('|', "\\|"),
        );
    }
    out
}

fn write_entry(out: &mut String, format: Format, entry: &Entry, extra: Option<Collected>) {
    let family = entry.family();
    let mark = out.len();
    write_header(out, format, family);
    let body = out.len();
    match entry {
        Entry::Declared(_) => {}
        Entry::Counter(labelled) => {
            for (key, series) in labelled.series.lock().iter() {
                write_name(out, family.name, "", key, None);
                let mut digits = itoa::Buffer::new();
                out.push_str(digits.format(series.handle.value()));
                if format == Format::OpenMetrics {
                    write_exemplar(out, series.handle.0.exemplar());
                }
                out.push('\n');
            }
        }
        Entry::Gauge(labelled) => {
            for (key, series) in labelled.series.lock().iter() {
                write_name(out, family.name, "", key, None);
                write_float(out, series.handle.value());
                out.push('\n');
            }
        }
        Entry::Histogram(labelled) => {
            for (key, series) in labelled.series.lock().iter() {
                write_histogram(out, format, family, key, &series.handle.0);
            }
        }
    }
    for (key, value) in extra.into_iter().flat_map(|c| c.series) {
        write_name(out, family.name, "", &key, None);
        write_float(out, value);
        out.push('\n');
    }
    if out.len() == body {
        out.truncate(mark);
    }
}

fn write_header(out: &mut String, format: Format, family: &Family) {
    let name = match (format, family.kind) {
        (Format::OpenMetrics, Kind::Counter) => {
            family.name.strip_suffix("_total").unwrap_or(family.name)
        }
        _ => family.name,
    };
    let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
    let help = match format {
        Format::OpenMetrics => help.replace('"', "\\\""),
        Format::Prometheus => help,
    };
    let _ = writeln!(out, "# HELP {name} {help}");
    let _ = writeln!(out, "# TYPE {name} {}", family.kind.as_str());
    if format == Format::OpenMetrics
        && let Some(unit) = family.unit()
    {
        let _ = writeln!(out, "# UNIT {name} {unit}");
    }
}

fn write_histogram(
    out: &mut String,
    format: Format,
    family: &Family,
    key: &str,
    core: &HistogramCore,
) {
    let snapshot = core.snapshot();
    let exemplars = match format {
        Format::OpenMetrics => core.exemplars(),
        Format::Prometheus => Vec::new(),
    };
    let mut seen = 0;
    let mut digits = itoa::Buffer::new();
    for (i, count) in snapshot.counts.iter().enumerate() {
        seen += count;
        let bound = if i < core.buckets.len() {
            core.buckets.bound(i)
        } else {
            f64::INFINITY
        };
        write_name(out, family.name, "_bucket", key, Some(bound));
        out.push_str(digits.format(seen));
        write_exemplar(out, exemplars.get(i).copied().flatten());
        out.push('\n');
    }
    write_name(out, family.name, "_sum", key, None);
    write_float(out, core.buckets.expose(snapshot.sum));
    out.push('\n');
    write_name(out, family.name, "_count", key, None);
    out.push_str(digits.format(seen));
    out.push('\n');
}

fn write_name(out: &mut String, name: &str, suffix: &str, key: &str, le: Option<f64>) {
    out.push_str(name);
    out.push_str(suffix);
    if !key.is_empty() || le.is_some() {
        out.push('{');
        out.push_str(key);
        if let Some(bound) = le {
            if !key.is_empty() {
                out.push(',');
            }
            out.push_str("le=\"");
            write_bound(out, bound);
            out.push('"');
        }
        out.push('}');
    }
    out.push(' ');
}

/// Bounds keep a decimal point, so that both formats have the same label values.
fn write_bound(out: &mut String, bound: f64) {
    if bound.is_infinite() {
        out.push_str("+Inf");
    } else {
        let _ = write!(out, "{bound:?}");
    }
}

fn write_float(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        let _ = write!(out, "{value}");
    }
}

fn write_exemplar(out: &mut String, exemplar: Option<Exemplar>) {
    if let Some(e) = exemplar {
        out.push_str(" # {trace_id=\"");
        for byte in e.trace_id {
            let _ = write!(out, "{byte:02x}");
        }
        out.push_str("\"} ");
        write_float(out, e.value);
        let _ = write!(out, " {}.{:03}", e.at_ms / 1000, e.at_ms % 1000);
    }
}
