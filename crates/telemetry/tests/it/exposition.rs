//! Scrapes in both formats, read by a small strict parser, and by promtool where it is installed.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use portico_base::SeededRandom;
use portico_telemetry::Sink;
use portico_telemetry::access::{AccessLog, AccessOptions};
use portico_telemetry::logs::{LogOptions, Logs};
use portico_telemetry::metrics::{
    BuildInfo, CounterFamily, Family, Format, GaugeFamily, HistogramFamily, Registry, collect_host,
    collect_process, documentation,
};
use portico_telemetry::trace::{TraceId, TraceOptions, Tracer};

static HITS: CounterFamily = CounterFamily::new(
    "portico_test_hits_total",
    "hits with \"quotes\", a back\\slash and\na new line",
    &["service", "what"],
    40_000,
);
static LEVEL: GaugeFamily = GaugeFamily::new("portico_test_level", "a level of the test", &[], 1);
static TIME: HistogramFamily =
    HistogramFamily::seconds("portico_test_seconds", "a time of the test", &["op"], 100);
static SIZE: HistogramFamily =
    HistogramFamily::bytes("portico_test_bytes", "a size of the test", &[], 1);

#[derive(Debug, Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    units: BTreeMap<String, String>,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
    exemplars: usize,
}

impl Parsed {
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.samples.iter().find(|(n, l, _)| {
            n == name
                && l.len() == labels.len()
                && labels
                    .iter()
                    .all(|(k, v)| l.get(*k).is_some_and(|x| x == v))
        });
        found.unwrap_or_else(|| panic!("{name} {labels:?}")).2
    }
}

/// Takes `{a="b",…}` apart; gives the rest behind it.
fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
    let mut out = BTreeMap::new();
    let mut rest = text.strip_prefix('{').unwrap();
    while !rest.starts_with('}') {
        let (name, tail) = rest.split_once("=\"").unwrap();
        assert!(
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'),
            "{name}"
        );
        let mut value = String::new();
        let mut chars = tail.char_indices();
        let end = loop {
            match chars.next().unwrap() {
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    c @ ('"' | '\\') => value.push(c),
                    c => panic!("escape {c}"),
                },
                (i, '"') => break i,
                (_, c) => {
                    assert_ne!(c, '\n');
                    value.push(c);
                }
            }
        };
        assert!(
            out.insert(name.to_owned(), value).is_none(),
            "a label twice"
        );
        rest = &tail[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
    (out, &rest[1..])
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        text => text.parse().unwrap_or_else(|_| panic!("{text}")),
    }
}

fn parse(text: &str, open_metrics: bool) -> Parsed {
    let mut parsed = Parsed::default();
    let mut family = String::new();
    let mut seen = std::collections::BTreeSet::new();
    assert!(text.ends_with('\n'));
    assert_eq!(text.ends_with("# EOF\n"), open_metrics);
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(comment) = line.strip_prefix("# ") {
            let (word, rest) = comment.split_once(' ').unwrap();
            let (name, what) = rest.split_once(' ').unwrap();
            if word == "HELP" {
                name.clone_into(&mut family);
                assert!(seen.insert(family.clone()), "{family} twice");
            }
            assert_eq!(name, family, "comments of one family stand together");
            match word {
                "TYPE" => parsed.kinds.insert(name.to_owned(), what.to_owned()),
                "UNIT" => {
                    assert!(
                        open_metrics && name.ends_with(&format!("_{what}")),
                        "{line}"
                    );
                    parsed.units.insert(name.to_owned(), what.to_owned())
                }
                "HELP" => None,
                word => panic!("{word}"),
            };
            continue;
        }
        let (line, exemplar) = match line.split_once(" # ") {
            Some((line, exemplar)) => (line, Some(exemplar)),
            None => (line, None),
        };
        let end = line.find(['{', ' ']).unwrap();
        let name = &line[..end];
        let (labels, rest) = if line[end..].starts_with('{') {
            labels(&line[end..])
        } else {
            (BTreeMap::new(), &line[end..])
        };
        let value = number(rest.strip_prefix(' ').unwrap());
        check_suffix(&parsed, &family, name, &labels, open_metrics);
        if let Some(exemplar) = exemplar {
            assert!(open_metrics && (name.ends_with("_bucket") || name.ends_with("_total")));
            check_exemplar(exemplar, &labels);
            parsed.exemplars += 1;
        }
        let same = parsed
            .samples
            .iter()
            .rev()
            .take(50)
            .any(|(n, l, _)| n == name && *l == labels);
        assert!(!same, "{line} twice");
        parsed.samples.push((name.to_owned(), labels, value));
    }
    parsed
}

fn check_suffix(
    parsed: &Parsed,
    family: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    open: bool,
) {
    let suffix = name
        .strip_prefix(family)
        .unwrap_or_else(|| panic!("{name} is not of {family}"));
    let kind = parsed.kinds[family].as_str();
    let good = match kind {
        "counter" if open => suffix == "_total",
        "counter" => suffix.is_empty() && name.ends_with("_total"),
        "gauge" => suffix.is_empty(),
        "histogram" => matches!(suffix, "_bucket" | "_sum" | "_count"),
        kind => panic!("{kind}"),
    };
    assert!(good, "{name} of {kind} {family}");
    assert_eq!(suffix == "_bucket", labels.contains_key("le"));
}

fn check_exemplar(text: &str, of: &BTreeMap<String, String>) {
    let (labels, rest) = labels(text);
    assert_eq!(labels["trace_id"].len(), 32);
    let mut numbers = rest.trim().split(' ').map(number);
    let value = numbers.next().unwrap();
    assert!(numbers.next().unwrap() > 1e9, "seconds since the epoch");
    if let Some(le) = of.get("le") {
        assert!(value <= number(le), "an exemplar lies in its bucket");
    }
}

fn filled() -> Registry {
    let registry = Registry::default();
    let hits = registry.counter(&HITS);
    hits.with(&["a\"b\\c\nd", "é"]).add(7);
    hits.with(&["plain", ""]).inc();
    let trace = TraceId::random(&SeededRandom::new(1));
    hits.with(&["plain", ""])
        .inc_traced(trace, 1_763_726_400_123);
    registry.gauge(&LEVEL).with(&[]).set(-2.5);
    let time = registry.histogram(&TIME).with(&["read"]);
    time.observe(Duration::from_micros(500));
    time.observe(Duration::from_micros(501));
    time.observe_traced(Duration::from_millis(700), trace, 1_763_726_400_123);
    time.observe(Duration::from_secs(100));
    registry.histogram(&SIZE).with(&[]).observe_raw(1_000);
    registry
}

#[test]
fn both_formats_are_strictly_legal_and_say_the_same() {
    let registry = filled();
    for open in [false, true] {
        let format = if open {
            Format::OpenMetrics
        } else {
            Format::Prometheus
        };
        let text = registry.render(format);
        let parsed = parse(&text, open);
        let hits = |a, b| parsed.value("portico_test_hits_total", &[("service", a), ("what", b)]);
        assert_eq!((hits("a\"b\\c\nd", "é"), hits("plain", "")), (7.0, 2.0));
        assert_eq!(parsed.value("portico_test_level", &[]), -2.5);
        let bucket =
            |le| parsed.value("portico_test_seconds_bucket", &[("op", "read"), ("le", le)]);
        assert_eq!(
            (bucket("0.0005"), bucket("0.001"), bucket("0.512")),
            (1.0, 2.0, 2.0)
        );
        assert_eq!(
            (bucket("1.024"), bucket("32.768"), bucket("+Inf")),
            (3.0, 3.0, 4.0)
        );
        assert_eq!(
            parsed.value("portico_test_seconds_count", &[("op", "read")]),
            4.0
        );
        let sum = parsed.value("portico_test_seconds_sum", &[("op", "read")]);
        assert!((sum - 100.701_001).abs() < 1e-9, "{sum}");
        assert_eq!(
            parsed.value("portico_test_bytes_bucket", &[("le", "1024.0")]),
            1.0
        );
        assert_eq!(parsed.exemplars, if open { 2 } else { 0 });
        assert_eq!(parsed.units.len(), if open { 2 } else { 0 });
    }
}

#[test]
fn promtool_agrees() {
    let Ok(mut child) = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
    else {
        assert!(
            std::env::var("CI").is_err() || cfg!(not(target_os = "linux")),
            "promtool is not installed"
        );
        eprintln!("SKIPPED: promtool is not installed");
        return;
    };
    let registry = everything();
    let _ = filled();
    let text = registry.render(Format::Prometheus);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A registry with all that this crate itself measures.
fn everything() -> Registry {
    let registry = Registry::default();
    let build = BuildInfo {
        version: "1.0.0",
        commit: "abc",
        rustc: "1.95.0",
    };
    collect_process(&registry, build);
    collect_host(&registry, vec![("data".to_owned(), PathBuf::from("."))]);
    let options = LogOptions {
        sink: Sink::Discard,
        ..LogOptions::default()
    };
    let logs = Logs::start(options, &registry).unwrap();
    drop(logs.subscriber());
    let clock: Arc<dyn portico_base::Clock> = Arc::new(portico_base::SystemClock);
    AccessLog::start(AccessOptions::default(), Sink::Discard, &clock, &registry)
        .unwrap()
        .close(Duration::from_secs(5));
    let random = Arc::new(SeededRandom::new(1));
    let _ = Tracer::new(&TraceOptions::default(), Vec::new(), &registry, random);
    logs.close(Duration::from_secs(5));
    registry
}

#[test]
fn every_family_of_this_crate_is_in_order_and_documented() {
    let families = everything().describe();
    assert!(families.len() > 15);
    let page = documentation(&families);
    for family in &families {
        check_family(family);
        assert!(page.contains(&format!("| `{}` | {} |", family.name, family.kind.as_str())));
    }
    let mut sorted = families.clone();
    sorted.sort_by_key(|f| f.name);
    assert_eq!(families, sorted);
}

fn check_family(family: &Family) {
    assert!(
        family.help.ends_with('.'),
        "{}: help is a sentence",
        family.name
    );
    assert!(family.max_series <= 1_000, "{}", family.name);
    let words: Vec<&str> = family.name.split('_').collect();
    let milli = words
        .iter()
        .any(|w| ["ms", "millis", "kb", "mb", "percent"].contains(w));
    assert!(!milli, "{}: base units only", family.name);
}

#[test]
fn twenty_thousand_series_are_at_most_two_megabytes() {
    let registry = Registry::default();
    let hits = registry.counter(&HITS);
    for i in 0..30_000 {
        hits.with(&[&format!("service-{}", i % 500), &format!("what-{i}")])
            .inc();
    }
    assert!(registry.series() <= 20_000);
    let begin = std::time::Instant::now();
    let text = registry.render(Format::Prometheus);
    eprintln!(
        "20,000 series in {:?} (unoptimised), {} bytes",
        begin.elapsed(),
        text.len()
    );
    assert!(text.len() <= 2_000_000, "{}", text.len());
    let parsed = parse(&text, false);
    let overflow = parsed.value(
        "portico_metrics_overflow_total",
        &[("metric", "portico_test_hits_total")],
    );
    let other = parsed.value(
        "portico_test_hits_total",
        &[("service", "other"), ("what", "other")],
    );
    assert_eq!(overflow, other);
    let total: f64 = parsed
        .samples
        .iter()
        .filter(|s| s.0 == "portico_test_hits_total")
        .map(|s| s.2)
        .sum();
    assert_eq!(total, 30_000.0, "nothing is lost");
}

#[test]
fn the_format_follows_the_accept_header() {
    let open = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5";
    assert_eq!(Format::from_accept(Some(open)), Format::OpenMetrics);
    assert_eq!(Format::from_accept(Some("text/plain")), Format::Prometheus);
    assert_eq!(Format::from_accept(None), Format::Prometheus);
    assert!(Format::OpenMetrics.content_type().contains("version=1.0.0"));
}
