//! Section about what the process tells of itself: logs, metrics, traces.

use std::path::PathBuf;

use portico_base::Secret;

use crate::key::{choice, section};
use crate::types::checked_text;
use crate::urls::HttpUrl;

section! {
    /// Logs, metrics and traces.
    pub struct Telemetry {
        groups { log: Log, metrics: Metrics, traces: Traces, local_traces: LocalTraces }
    }
}

choice! {
    /// How a log line looks.
    pub enum LogFormat {
        /// Text on a terminal, else JSON.
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// Text for people, with colours on a terminal.
        Text = "text",
    }
}

choice! {
    /// Where log lines go.
    pub enum LogTarget {
        /// Standard output.
        Stdout = "stdout",
        /// Rotated files in `telemetry.log.dir`.
        File = "file",
    }
}

checked_text! {
    /// A log level, and levels of single targets as `tracing-subscriber` reads them:
    /// `info,portico_gateway=debug`.
    pub struct LogFilter {
        "log levels",
        "off, error, warn, info, debug or trace, and for single targets TARGET=LEVEL, with commas between",
        { "type": "string", "minLength": 1 },
        |written| {
            let target = |b: u8| b.is_ascii_alphanumeric() || b"_:-.".contains(&b);
            let good = written.split(',').map(str::trim).all(|directive| {
                let (name, level) = directive.split_once('=').unwrap_or(("all", directive));
                let known = ["off", "error", "warn", "info", "debug", "trace"].contains(&level);
                known && !name.is_empty() && name.bytes().all(target)
            });
            if good { Ok(written.to_owned()) } else { Err("is not a list of levels") }
        }
    }
}

section! {
    /// The log.
    pub struct Log {
        keys {
            /// Least level that is written, and levels of single targets.
            level: LogFilter = "info"; reload(),
            /// Form of a line; auto is text on a terminal, else JSON.
            format: LogFormat = "auto",
            /// Where lines go.
            target: LogTarget = "stdout",
            /// Directory of log files.
            dir: PathBuf = "<data>/logs",
            /// Size in MiB at which a log file is rotated; it is rotated each day as well.
            max_mb: u64 = 100; range(1, 100_000),
            /// Rotated files that are kept.
            keep: u32 = 10; range(0, 10_000),
            /// Days that rotated files are kept.
            keep_days: u32 = 30; range(0, 36_500),
        }
    }
}

section! {
    /// Prometheus metrics on the admin listener.
    pub struct Metrics {
        keys {
            /// Answer /metrics.
            enabled: bool = true,
            /// Bearer token that a scraper must send; needed when the admin listener is not on
            /// loopback. At least 16 characters.
            token: Option<Secret<String>> = "",
            /// Also export the names of the older fleet dashboards.
            mission_names: bool = false; later("fleet"),
        }
    }
}

choice! {
    /// How traces are sent.
    pub enum OtlpProtocol {
        /// OTLP over gRPC.
        Grpc = "grpc",
        /// OTLP as protobuf over HTTP.
        Http = "http",
    }
}

section! {
    /// Traces sent to an OpenTelemetry collector.
    pub struct Traces {
        keys {
            /// Address of the collector, such as http://127.0.0.1:4317; none sends nothing.
            otlp_endpoint: Option<HttpUrl> = ""; reload(),
            /// How traces are sent.
            protocol: OtlpProtocol = "grpc"; reload(),
            /// Share of requests that are traced, from 0 to 1, when no trusted caller decided.
            ratio: f64 = 0.01; range(0, 1); reload(),
            /// Headers for the collector, `name=value`, one a line or with commas between.
            headers: Option<Secret<String>> = ""; reload(),
        }
    }
}

section! {
    /// The last traces, kept in memory for the console.
    pub struct LocalTraces {
        keys {
            /// Traces that are kept; 0 keeps none.
            max: u32 = 10_000; range(0, 1_000_000); later("the console (OB-20)"),
            /// Memory in MiB that they may use.
            max_mb: u64 = 64; range(1, 65_536); later("the console (OB-20)"),
        }
    }
}
