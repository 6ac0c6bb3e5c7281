//! A panic leaves a last line; in a program of its own, because the hook is the process's.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may unwrap")]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use portico_telemetry::Sink;
use portico_telemetry::logs::{LogContext, LogFormat, LogOptions, Logs, in_scope};
use portico_telemetry::metrics::{Format, Registry};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_last_line_has_request_reason_place_and_way() {
    let (kept, registry) = (Kept::default(), Registry::default());
    let options = LogOptions {
        format: LogFormat::Json,
        sink: Sink::Writer(Box::new(kept.clone())),
        ..LogOptions::default()
    };
    let logs = Logs::start(options, &registry).unwrap();
    logs.install().unwrap();
    assert!(logs.install().is_err(), "once a process");
    let context = Arc::new(LogContext {
        request_id: Some(Arc::from("req-7")),
        ..LogContext::default()
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for _ in 0..30 {
        let work = in_scope(Arc::clone(&context), async {
            panic!("cannot reach redis://me:hunter2@host");
        });
        let outcome: Result<(), _> =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(work)));
        assert!(outcome.is_err());
    }
    drop(std::panic::take_hook());
    let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    assert_eq!(line["request_id"], "req-7");
    assert_eq!(line["msg"], "panic");
    assert_eq!(line["err"], "cannot reach redis://me:«masked»@host");
    assert!(
        line["location"]
            .as_str()
            .unwrap()
            .contains("tests/panic.rs:")
    );
    assert!(line["backtrace"].as_str().unwrap().contains("panic"));
    assert!(text.lines().count() <= 21, "folded: back-traces are dear");
    assert!(
        registry
            .render(Format::Prometheus)
            .contains("portico_panics_total 30\n")
    );
}
