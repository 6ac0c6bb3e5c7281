//! The access log: lines, memory, sampling, and a writer that stands still.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, SeededRandom, SystemClock};
use portico_telemetry::Sink;
use portico_telemetry::access::{AccessLog, AccessMode, AccessOptions, AccessRecord};
use portico_telemetry::metrics::{Format, Registry};
use portico_telemetry::trace::TraceId;

use crate::sink::{Gate, Kept};

const PATIENCE: Duration = Duration::from_secs(10);

fn start(options: AccessOptions, kept: &Kept, registry: &Registry) -> AccessLog {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let sink = Sink::Writer(Box::new(kept.clone()));
    AccessLog::start(options, sink, &clock, registry).unwrap()
}

fn record(path: &str, at_us: i64, status: u16) -> AccessRecord<'_> {
    AccessRecord {
        at_us,
        request_id: "0190-abc",
        client: Some([203, 0, 113, 9].into()),
        method: "GET",
        host: "api.example.com",
        path,
        query: "page=2&token=hunter2",
        protocol: "http/1.1",
        route: "hello",
        service: "hello",
        version: "1.2.0",
        instance: "10.0.0.5:8000",
        status,
        bytes_in: 12,
        bytes_out: 3_456,
        duration: Duration::from_micros(1_234),
        upstream: Some(Duration::from_micros(1_000)),
        attempts: 1,
        cache: "MISS",
        principal: "user",
        principal_id: "u-1",
        tenant_id: "t-1",
        user_agent: "curl/8 \"quoted\"",
        trace_id: Some(TraceId::random(&SeededRandom::new(1))),
        ..AccessRecord::default()
    }
}

#[test]
fn a_line_is_json_and_says_all_but_secrets() {
    let (kept, registry) = (Kept::default(), Registry::default());
    let options = AccessOptions {
        mode: AccessMode::All,
        replica: "r1".to_owned(),
        ..AccessOptions::default()
    };
    let log = start(options, &kept, &registry);
    let mut writer = log.writer();
    writer.record(&record(
        "/users/bob@example.com/13812345678",
        1_763_726_400_123_456,
        200,
    ));
    assert!(log.flush(PATIENCE));
    let line = &kept.lines()[0];
    let trace = TraceId::random(&SeededRandom::new(1)).to_string();
    let expected = serde_json::json!({
        "ts": "2025-11-21T12:00:00.123456Z", "kind": "access", "replica": "r1",
        "request_id": "0190-abc", "client": "203.0.113.9", "method": "GET",
        "host": "api.example.com", "path": "/users/b***@example.com/138****5678",
        "protocol": "http/1.1", "route": "hello", "service": "hello", "version": "1.2.0",
        "instance": "10.0.0.5:8000", "status": 200, "bytes_in": 12, "bytes_out": 3456,
        "duration_us": 1234, "upstream_us": 1000, "attempts": 1, "cache": "MISS",
        "principal": "user", "principal_id": "u-1", "tenant_id": "t-1",
        "user_agent": "curl/8 \"quoted\"", "trace_id": trace,
    });
    assert_eq!(line, &expected);
    let entries = log.recent(10, |e| e.status == 200);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].duration_us, 1_234);
    assert_eq!(entries[0].path, "/users/b***@example.com/138****5678");
}

#[test]
fn addresses_and_queries_follow_the_options() {
    let (kept, registry) = (Kept::default(), Registry::default());
    let options = AccessOptions {
        mode: AccessMode::All,
        mask_address: true,
        with_query: true,
        ..AccessOptions::default()
    };
    let log = start(options, &kept, &registry);
    let mut writer = log.writer();
    let agent = "x".repeat(500);
    let mut long = record("/", 1, 200);
    long.user_agent = &agent;
    long.client = Some("2001:db8:1:2:3::4".parse().unwrap());
    writer.record(&long);
    writer.record(&record("/\n\u{0}", 2, 200));
    drop(writer);
    assert!(log.flush(PATIENCE));
    let lines = kept.lines();
    assert_eq!(lines[0]["client"], "2001:db8:1::");
    assert_eq!(lines[0]["user_agent"].as_str().unwrap().len(), 200);
    assert_eq!(lines[0]["query"], "page=2&token=«masked»");
    assert_eq!(lines[1]["client"], "203.0.113.0");
    assert_eq!(lines[1]["path"], "/\n\u{0}");
}

#[test]
fn nothing_is_lost_or_torn_with_four_writers_and_memory_keeps_the_last_ten_thousand() {
    let (kept, registry) = (Kept::default(), Registry::default());
    let options = AccessOptions {
        mode: AccessMode::All,
        ..AccessOptions::default()
    };
    let log = start(options, &kept, &registry);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let mut writer = log.writer();
            scope.spawn(move || {
                for n in 0..5_000_i64 {
                    let path = format!("/w{worker}/{n}");
                    writer.record(&record(&path, n * 10, 200));
                }
            });
        }
    });
    assert!(log.flush(PATIENCE));
    let lines = kept.lines();
    assert_eq!(lines.len(), 20_000);
    for worker in 0..4 {
        let prefix = format!("/w{worker}/");
        let own: Vec<i64> = lines
            .iter()
            .filter_map(|l| {
                l["path"]
                    .as_str()
                    .unwrap()
                    .strip_prefix(&prefix)?
                    .parse()
                    .ok()
            })
            .collect();
        assert_eq!(own, (0..5_000).collect::<Vec<_>>(), "in order");
    }
    let entries = log.recent(20_000, |_| true);
    assert!(
        (10_000..10_600).contains(&entries.len()),
        "{}",
        entries.len()
    );
    assert!(entries.is_sorted_by(|a, b| a.ts >= b.ts), "newest first");
    assert_eq!(log.recent(3, |e| e.path.starts_with("/w1/")).len(), 3);
    assert!(
        registry
            .render(Format::Prometheus)
            .contains("portico_access_log_lines_total{result=\"written\"} 20000\n")
    );
}

#[test]
fn modes_decide_what_is_written_and_memory_goes_on() {
    let (kept, registry) = (Kept::default(), Registry::default());
    let log = start(AccessOptions::default(), &kept, &registry);
    let mut writer = log.writer();
    for n in 0..3_000 {
        writer.record(&record("/sampled", n, 200));
    }
    log.set_mode(AccessMode::Errors);
    for (n, status) in [200, 404, 500, 503].into_iter().enumerate() {
        writer.record(&record("/errors", 1_000_000 + n as i64, status));
    }
    log.set_mode(AccessMode::Off);
    writer.record(&record("/off", 2_000_000, 500));
    assert!(log.flush(PATIENCE));
    let lines = kept.lines();
    let of = |path: &str| lines.iter().filter(|l| l["path"] == path).count();
    assert!(
        (1_700..2_000).contains(&of("/sampled")),
        "{}",
        of("/sampled")
    );
    assert_eq!((of("/errors"), of("/off")), (2, 0));
    let stands_for: u64 = lines
        .iter()
        .filter(|l| l["path"] == "/sampled")
        .map(|l| l["sampled"].as_u64().unwrap_or(1))
        .sum();
    assert!((2_900..3_100).contains(&stands_for), "{stands_for}");
    assert_eq!(log.recent(10, |e| e.path == "/errors").len(), 4);
    assert_eq!(log.recent(10, |e| e.path == "/off").len(), 1);
}

#[test]
fn a_writer_that_stands_still_costs_lines_and_no_time() {
    let (gate, registry) = (Gate::default(), Registry::default());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = AccessOptions {
        mode: AccessMode::All,
        ..AccessOptions::default()
    };
    let log = AccessLog::start(
        options,
        Sink::Writer(Box::new(gate.clone())),
        &clock,
        &registry,
    )
    .unwrap();
    let mut writer = log.writer();
    // 256 waiting buffers of 64 KiB are 16 MiB; with 32 KiB a line they are reached soon.
    let path = "/x".repeat(1_000);
    let dropped = |registry: &Registry| -> u64 {
        let text = registry.render(Format::Prometheus);
        let line = text
            .lines()
            .find(|l| l.contains("{result=\"dropped\"}"))
            .unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let mut sent = 0;
    while dropped(&registry) == 0 {
        for _ in 0..500 {
            writer.record(&record(&path, sent, 200));
            sent += 1;
        }
        assert!(sent < 50_000, "the buffer is bounded");
    }
    gate.open();
    drop(writer);
    assert!(log.flush(PATIENCE));
    let written = u64::try_from(gate.kept.lines().len()).unwrap();
    assert_eq!(written + dropped(&registry), u64::try_from(sent).unwrap());
    log.close(PATIENCE);
}
