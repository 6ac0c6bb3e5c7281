//! Telemetry of the process, set up from the configuration.

use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, Random, Secret};
use portico_config::{Config, LogFormat, LogTarget, OtlpProtocol};
use portico_telemetry::access::{AccessLog, AccessOptions};
use portico_telemetry::logs::{LogError, LogOptions, Logs};
use portico_telemetry::metrics::{
    BuildInfo, CounterFamily, Family, GaugeFamily, Registry, SERIES_BUDGET, collect_host,
    collect_process,
};
use portico_telemetry::rolling::RollingOptions;
use portico_telemetry::trace::{
    OtlpConfigError, OtlpExporter, OtlpOptions, SpanExporter, TraceDriver, TraceOptions, Tracer,
};
use portico_telemetry::{Runtimes, Sink};

use crate::error::{StartError, exit};
use crate::process::Composition;
use crate::service::NodeInfo;

static ROLE: GaugeFamily = GaugeFamily::new(
    "portico_process_role",
    "1 for each role of this process.",
    &["role"],
    16,
);
static RELOADS: CounterFamily = CounterFamily::new(
    "portico_config_reloads_total",
    "Reloads of the configuration by result.",
    &["result"],
    2,
);

/// The families that the host itself exports.
pub(crate) fn families() -> [&'static Family; 2] {
    [ROLE.family(), RELOADS.family()]
}

/// Logs, metrics, traces and the access log. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry {
    /// All metrics of the process.
    pub metrics: Registry,
    /// The access log and its ring of recent requests.
    pub access: AccessLog,
    /// Where finished spans go.
    pub tracer: Tracer,
    /// The runtimes that `portico_runtime_*` tells of.
    pub runtimes: Runtimes,
    logs: Option<Logs>,
}

impl Telemetry {
    /// Sets everything up; the driver must be run for spans to leave the process.
    pub(crate) fn start(
        config: &Config,
        composition: &Composition,
        replica: &str,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
        runtimes: &Runtimes,
        own_logs: bool,
    ) -> Result<(Self, TraceDriver), StartError> {
        let metrics = Registry::new(SERIES_BUDGET);
        metrics.declare(&families());
        let build = BuildInfo {
            version: composition.version,
            commit: composition.commit,
            rustc: composition.rustc,
        };
        collect_process(&metrics, build);
        collect_host(
            &metrics,
            vec![("data".to_owned(), config.node.data_dir.clone())],
        );
        let roles = metrics.gauge(&ROLE);
        for role in &config.node.roles {
            roles.with(&[&role.to_string()]).set(1.0);
        }
        let logs = if own_logs {
            Some(logs(config, replica, clock, &metrics)?)
        } else {
            None
        };
        let options = AccessOptions {
            replica: replica.to_owned(),
            ..AccessOptions::default()
        };
        let sink = if own_logs {
            sink(config, "access")
        } else {
            Sink::Discard
        };
        let access = AccessLog::start(options, sink, clock, &metrics)
            .map_err(|error| failed("the access log cannot be opened", error))?;
        let exporters = exporters(config, replica, composition.version).map_err(|error| {
            let text = format!("telemetry.traces.otlp_endpoint: {error}");
            StartError::new(exit::USAGE, text)
        })?;
        let options = TraceOptions {
            ratio: config.telemetry.traces.ratio,
            ..TraceOptions::default()
        };
        let (tracer, driver) = Tracer::new(&options, exporters, &metrics, Arc::clone(random));
        runtimes.export(&metrics);
        Ok((
            Self {
                metrics,
                access,
                tracer,
                runtimes: runtimes.clone(),
                logs,
            },
            driver,
        ))
    }

    /// The exporters of another configuration; nothing when spans go where they went before.
    pub(crate) fn other_exporters(
        &self,
        old: &Config,
        new: &Config,
        node: &NodeInfo,
    ) -> Result<Option<Vec<Arc<dyn SpanExporter>>>, String> {
        let (old, now) = (&old.telemetry.traces, &new.telemetry.traces);
        let target = |t: &portico_config::Traces| {
            let endpoint = t.otlp_endpoint.as_ref().map(|e| e.url().to_string());
            let headers = t.headers.as_ref().map(|h| h.expose().clone());
            (endpoint, t.protocol, headers)
        };
        if target(old) == target(now) {
            return Ok(None);
        }
        let exporters = exporters(new, &node.name, node.version);
        exporters
            .map(Some)
            .map_err(|error| format!("telemetry.traces.otlp_endpoint: {error}"))
    }

    /// Takes over what can change at run time: log levels and the sampling ratio.
    pub(crate) fn reload(&self, config: &Config) {
        if let Some(logs) = &self.logs
            && let Err(error) = logs.set_levels(config.telemetry.log.level.as_str())
        {
            tracing::error!(err = %error, "the log levels were not changed");
        }
        self.tracer
            .sampler()
            .set_ratio(config.telemetry.traces.ratio);
    }

    /// Levels of the log per target, as text; nothing where somebody else has the log.
    #[must_use]
    pub fn log_levels(&self) -> Option<String> {
        self.logs.as_ref().map(Logs::levels)
    }

    /// Changes them at once and for all threads.
    ///
    /// # Errors
    /// When a level is misspelt; then nothing changes.
    pub fn set_log_levels(&self, text: &str) -> Result<(), LogError> {
        match &self.logs {
            Some(logs) => logs.set_levels(text),
            None => Ok(()),
        }
    }

    /// Counts a reload of the configuration.
    pub(crate) fn reloaded(&self, done: bool) {
        let result = if done { "done" } else { "failed" };
        self.metrics.counter(&RELOADS).with(&[result]).inc();
    }

    /// Writes what is buffered, each stream for at most a second.
    pub(crate) fn close(&self) {
        self.access.close(Duration::from_secs(1));
        if let Some(logs) = &self.logs {
            logs.close(Duration::from_secs(1));
        }
    }
}

fn logs(
    config: &Config,
    replica: &str,
    clock: &Arc<dyn Clock>,
    metrics: &Registry,
) -> Result<Logs, StartError> {
    let section = &config.telemetry.log;
    let options = LogOptions {
        format: match section.format {
            LogFormat::Auto => portico_telemetry::logs::LogFormat::Auto,
            LogFormat::Json => portico_telemetry::logs::LogFormat::Json,
            LogFormat::Text => portico_telemetry::logs::LogFormat::Text,
        },
        sink: sink(config, "portico"),
        levels: section.level.as_str().to_owned(),
        replica: replica.to_owned(),
        ..LogOptions::default()
    };
    let logs = Logs::start_at(options, metrics, Arc::clone(clock))
        .map_err(|error| failed("the log cannot be opened", error))?;
    match logs.install() {
        // A second process within one program (a test) logs through the first one's log.
        Ok(()) | Err(LogError::Installed) => Ok(logs),
        Err(error) => Err(failed("the log cannot be installed", error)),
    }
}

fn sink(config: &Config, file: &str) -> Sink {
    let section = &config.telemetry.log;
    match section.target {
        LogTarget::Stdout => Sink::Stdout,
        LogTarget::File => Sink::File(RollingOptions {
            max_bytes: section.max_mb * 1024 * 1024,
            keep_a_day: usize::try_from(section.keep).unwrap_or(usize::MAX),
            keep_days: u64::from(section.keep_days),
            ..RollingOptions::new(&section.dir, file)
        }),
    }
}

/// Where the configuration sends finished spans.
fn exporters(
    config: &Config,
    replica: &str,
    version: &str,
) -> Result<Vec<Arc<dyn SpanExporter>>, OtlpConfigError> {
    let section = &config.telemetry.traces;
    let Some(endpoint) = &section.otlp_endpoint else {
        return Ok(Vec::new());
    };
    let headers = section.headers.as_ref().map_or_else(Vec::new, |text| {
        portico_config::parse_headers(text.expose())
            .unwrap_or_default()
            .into_iter()
            .map(|(name, value)| (name, Secret::from(value)))
            .collect()
    });
    let exporter = OtlpExporter::new(OtlpOptions {
        endpoint: endpoint.url().to_string(),
        protocol: match section.protocol {
            OtlpProtocol::Grpc => portico_telemetry::trace::OtlpProtocol::Grpc,
            OtlpProtocol::Http => portico_telemetry::trace::OtlpProtocol::Http,
        },
        headers,
        replica: replica.to_owned(),
        version: version.to_owned(),
        ..OtlpOptions::default()
    })?;
    Ok(vec![Arc::new(exporter)])
}

fn failed(message: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    let error = error.into();
    StartError::new(exit::FAILED, format!("{message}: {error}")).because(error)
}
