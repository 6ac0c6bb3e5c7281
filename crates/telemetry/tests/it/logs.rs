//! Log lines: their fields, masking, folding, lost lines, levels, and both forms.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{ManualClock, SeededRandom, clock};
use portico_telemetry::Sink;
use portico_telemetry::logs::{LogContext, LogFormat, LogOptions, Logs, in_scope};
use portico_telemetry::metrics::{Format, Registry};
use portico_telemetry::trace::{SpanId, TraceId};
use tracing::subscriber::with_default;

use crate::sink::{Gate, Kept};

const PATIENCE: Duration = Duration::from_secs(10);

fn logs(kept: &Kept, levels: &str, format: LogFormat) -> (Logs, ManualClock) {
    let options = LogOptions {
        format,
        sink: Sink::Writer(Box::new(kept.clone())),
        levels: levels.to_owned(),
        replica: "host-abcd".to_owned(),
        ..LogOptions::default()
    };
    let clock = ManualClock::at(clock::from_unix_us(1_763_726_400_123_456));
    let logs = Logs::start_at(options, &Registry::default(), Arc::new(clock.clone())).unwrap();
    (logs, clock)
}

/// Logs with a fresh log and gives its lines.
fn lines(body: impl FnOnce()) -> Vec<serde_json::Value> {
    let kept = Kept::default();
    let (logs, _) = logs(&kept, "trace", LogFormat::Json);
    with_default(logs.subscriber(), body);
    assert!(logs.flush(PATIENCE));
    kept.lines()
}

#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] std::io::Error);

#[test]
fn a_line_has_the_fields_of_the_contract_in_their_order() {
    let random = SeededRandom::new(1);
    let context = Arc::new(LogContext {
        request_id: Some(Arc::from("req-1")),
        trace_id: Some(TraceId::random(&random)),
        span_id: Some(SpanId::random(&random)),
        tenant_id: Some(Arc::from("tenant-1")),
        user_id: Some(Arc::from("user-1")),
        service: None,
        tracer: None,
        tail: None,
    });
    let kept = Kept::default();
    let (logs, _) = logs(&kept, "info", LogFormat::Json);
    let error = Outer(std::io::Error::other("inner \"cause\""));
    with_default(logs.subscriber(), || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(in_scope(context.clone(), async {
            tracing::warn!(
                target: "portico_gateway::pool",
                err = &error as &dyn std::error::Error,
                code = "gateway.no_instance",
                attempts = 3,
                ratio = 0.5,
                ok = false,
                ts = "mine",
                "no instance"
            );
        }));
    });
    assert!(logs.flush(PATIENCE));
    let expected = format!(
        "{{\"ts\":\"2025-11-21T12:00:00.123456Z\",\"level\":\"warn\",\"msg\":\"no instance\",\
         \"target\":\"portico_gateway::pool\",\"service\":\"gateway\",\"replica\":\"host-abcd\",\
         \"request_id\":\"req-1\",\"trace_id\":\"{}\",\"span_id\":\"{}\",\"tenant_id\":\"tenant-1\",\
         \"user_id\":\"user-1\",\"code\":\"gateway.no_instance\",\"err\":\"outer: inner \\\"cause\\\"\",\
         \"attempts\":3,\"ratio\":0.5,\"ok\":false,\"field_ts\":\"mine\"}}\n",
        context.trace_id.unwrap(),
        context.span_id.unwrap()
    );
    assert_eq!(kept.text(), expected);
}

#[test]
fn spans_give_their_fields_the_innermost_first() {
    let lines = lines(|| {
        let outer = tracing::info_span!(
            "request",
            request_id = "a",
            user_id = tracing::field::Empty,
            n = 1
        );
        let _outer = outer.enter();
        outer.record("user_id", "u1");
        let inner = tracing::info_span!("op", request_id = "b", n = 2, service = "music");
        let _inner = inner.enter();
        tracing::info!(n = 3, "hello");
    });
    let line = &lines[0];
    assert_eq!(line["request_id"], "b");
    assert_eq!(line["user_id"], "u1");
    assert_eq!(line["service"], "music");
    assert_eq!(line["n"], 3);
}

#[test]
fn secrets_do_not_pass_whatever_they_are_called() {
    let token = format!("ptk_{}", "Ab3".repeat(15));
    let lines = lines(|| {
        tracing::info!(
            password = "hunter2",
            otp = 482_913,
            code = "482913",
            "x.client_secret" = true,
            phone = "13812345678",
            body = r#"{"a":{"api_token":"s3cr3t"}}"#,
            url = "https://u:s3cr3t@h/p?token=s3cr3t&a=1",
            header = %format!("Bearer {token}"),
            mail = "bob@example.com",
            "sent to 13812345678",
        );
        let span = tracing::info_span!("s", ticket = "s3cr3t");
        let _span = span.enter();
        tracing::info!("in span");
    });
    let text = format!("{lines:?}");
    for secret in [
        "hunter2",
        "482913",
        "s3cr3t",
        "13812345678",
        "bob@",
        token.as_str(),
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    assert_eq!(lines[0]["msg"], "sent to 138****5678");
    assert_eq!(lines[0]["code"], "«masked»");
    assert_eq!(lines[0]["x.client_secret"], "«masked»");
    assert_eq!(lines[0]["mail"], "b***@example.com");
    assert_eq!(lines[1]["ticket"], "«masked»");
}

#[test]
fn text_lines_cannot_be_forged() {
    let kept = Kept::default();
    let (logs, _) = logs(&kept, "info", LogFormat::Text);
    with_default(logs.subscriber(), || {
        tracing::error!(
            name = "x\n2025 ERROR forged \u{1b}[31m",
            n = 5,
            "went wrong"
        );
    });
    assert!(logs.flush(PATIENCE));
    let text = kept.text();
    assert_eq!(text.lines().count(), 1);
    assert!(
        !text.contains('\u{1b}'),
        "no colours in a file, and none smuggled in"
    );
    assert!(
        text.starts_with("2025-11-21T12:00:00.123456Z error portico went wrong "),
        "{text}"
    );
    assert!(
        text.contains(" n=5") && text.contains("name=\"x\\n2025 ERROR"),
        "{text}"
    );
}

#[test]
fn levels_change_while_running() {
    let kept = Kept::default();
    let (logs, _) = logs(&kept, "info,portico_db=debug", LogFormat::Json);
    let log = |n: u32| {
        tracing::debug!(target: "portico_db::pool", n, "db");
        tracing::debug!(target: "portico_web", n, "web");
        tracing::info!(target: "portico_web", n, "web");
    };
    with_default(logs.subscriber(), || {
        log(1);
        logs.set_levels("warn,portico_web=debug").unwrap();
        log(2);
        assert!(logs.set_levels("loud").is_err());
        log(3);
    });
    assert!(logs.flush(PATIENCE));
    let seen: Vec<(String, u64)> = kept
        .lines()
        .iter()
        .map(|l| {
            (
                l["target"].as_str().unwrap().to_owned(),
                l["n"].as_u64().unwrap(),
            )
        })
        .collect();
    let line = |target: &str, n| (target.to_owned(), n);
    let web = "portico_web";
    assert_eq!(
        seen,
        [
            line("portico_db::pool", 1),
            line(web, 1),
            line(web, 2),
            line(web, 2),
            line(web, 3),
            line(web, 3)
        ]
    );
    assert_eq!(logs.levels(), "warn,portico_web=debug");
}

#[test]
fn the_same_error_is_folded_and_the_next_second_tells_how_often() {
    let kept = Kept::default();
    let (logs, clock) = logs(&kept, "info", LogFormat::Json);
    let fail = |n: usize| {
        for _ in 0..n {
            tracing::error!(code = "db.away", "database is away");
        }
    };
    with_default(logs.subscriber(), || {
        fail(40);
        tracing::error!("another error");
        for _ in 0..40 {
            tracing::info!("no error is ever folded that is none");
        }
        clock.advance(chrono::Duration::seconds(1));
        fail(1);
    });
    assert!(logs.flush(PATIENCE));
    let lines = kept.lines();
    let errors: Vec<_> = lines.iter().filter(|l| l["code"] == "db.away").collect();
    assert_eq!(errors.len(), 11);
    assert_eq!(errors[10]["folded"], 30);
    assert_eq!(lines.len(), 11 + 1 + 40);
}

#[test]
fn a_writer_that_stands_still_costs_lines_and_no_time() {
    let gate = Gate::default();
    let registry = Registry::default();
    let options = LogOptions {
        format: LogFormat::Json,
        sink: Sink::Writer(Box::new(gate.clone())),
        buffer: 100,
        report_drops: Duration::from_millis(1),
        ..LogOptions::default()
    };
    let logs = Logs::start(options, &registry).unwrap();
    with_default(logs.subscriber(), || {
        for n in 0..1_000 {
            tracing::info!(n, "line");
        }
    });
    assert!(
        !logs.flush(Duration::from_millis(10)),
        "the writer stands still"
    );
    let text = registry.render(Format::Prometheus);
    assert!(text.contains("portico_log_dropped_total 900\n"), "{text}");
    assert!(text.contains("portico_log_lines_total{level=\"info\"} 1000\n"));
    gate.open();
    assert!(logs.flush(PATIENCE));
    // The thread reports what was lost at its next tick, a second later at most.
    let begin = std::time::Instant::now();
    let report = loop {
        assert!(begin.elapsed() < PATIENCE, "{}", gate.kept.text());
        let lines = gate.kept.lines();
        if let Some(line) = lines.into_iter().find(|l| l["lost"] == 900) {
            break line;
        }
        std::thread::yield_now();
    };
    assert_eq!(report["level"], "warn");
    assert_eq!(gate.kept.lines().len(), 101);
    logs.close(PATIENCE);
    with_default(logs.subscriber(), || tracing::info!("after the end"));
    assert!(
        registry
            .render(Format::Prometheus)
            .contains("portico_log_dropped_total 901\n")
    );
}

#[test]
fn a_misspelt_level_or_a_place_that_cannot_be_is_an_error() {
    let start = |levels: &str, sink| {
        let options = LogOptions {
            levels: levels.to_owned(),
            sink,
            ..LogOptions::default()
        };
        Logs::start(options, &Registry::default())
    };
    let error = start("infoo", Sink::Discard).unwrap_err().to_string();
    assert!(
        error.contains("`infoo` is none of off, error, warn"),
        "{error}"
    );
    let place = portico_telemetry::rolling::RollingOptions::new("/dev/null/x", "portico");
    assert!(start("info", Sink::File(place)).is_err());
}
