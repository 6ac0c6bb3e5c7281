//! Logs (OB-30 to OB-34): `tracing` events as one line each, masked, through a writer that never blocks.

mod collect;
mod fold;
mod layer;
mod levels;
mod line;
mod panic;
mod queue;
mod scope;
mod tail;

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use portico_base::{Clock, SystemClock};
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;

pub use scope::{LogContext, carried, current, in_scope, in_scope_if};
pub use tail::LogTail;

use self::layer::LogLayer;
use self::levels::Levels;
use self::line::{Identity, Style};
use self::queue::Queue;
use crate::metrics::{CounterFamily, Family, Registry};
use crate::sink::Sink;

static LINES: CounterFamily = CounterFamily::new(
    "portico_log_lines_total",
    "Log lines by level, folded and dropped ones included.",
    &["level"],
    5,
);
static DROPPED: CounterFamily = CounterFamily::new(
    "portico_log_dropped_total",
    "Log lines that were lost because the writer was too slow or failed.",
    &[],
    1,
);
static PANICS: CounterFamily = CounterFamily::new(
    "portico_panics_total",
    "Panics of any thread; each left a last line with its back-trace.",
    &[],
    1,
);

pub(crate) static FAMILIES: [&Family; 3] = [LINES.family(), DROPPED.family(), PANICS.family()];

/// Form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text for people; in colour on a terminal.
    Text,
}

/// How the process logs.
#[derive(Debug)]
pub struct LogOptions {
    /// Form of a line.
    pub format: LogFormat,
    /// Where lines go.
    pub sink: Sink,
    /// `info`, or with targets `info,portico_gateway=debug,hyper=warn`.
    pub levels: String,
    /// Name of this process, in every line.
    pub replica: String,
    /// Lines that may wait for the writer.
    pub buffer: usize,
    /// How often lost lines are reported.
    pub report_drops: Duration,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: LogFormat::default(),
            sink: Sink::Stdout,
            levels: "info".to_owned(),
            replica: String::new(),
            buffer: 8_192,
            report_drops: Duration::from_secs(60),
        }
    }
}

/// What is wrong with the options, or with the place of the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A level or target cannot be read.
    #[error("log levels `{0}`: {1}")]
    Levels(String, String),
    /// The file or the thread cannot be made.
    #[error("the log cannot be opened")]
    Open(#[from] std::io::Error),
    /// There is a subscriber for the process already.
    #[error("the process has a log already")]
    Installed,
}

/// The log of one process. Cheap to clone; [`Logs::close`] writes what is left.
#[derive(Clone)]
pub struct Logs(Arc<Inner>);

struct Inner {
    queue: Arc<Queue>,
    levels: Levels,
    style: Style,
    registry: Registry,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Logs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Logs")
            .field("levels", &self.levels())
            .finish_non_exhaustive()
    }
}

impl Logs {
    /// Opens the sink and starts the thread that writes.
    ///
    /// # Errors
    /// When a level is misspelt, or the file or the thread cannot be made.
    pub fn start(options: LogOptions, registry: &Registry) -> Result<Self, LogError> {
        Self::start_at(options, registry, Arc::new(SystemClock))
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Logs::start`].
    pub fn start_at(
        options: LogOptions,
        registry: &Registry,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, LogError> {
        registry.declare(&[LINES.family(), PANICS.family()]);
        let terminal = matches!(options.sink, Sink::Stdout) && std::io::stdout().is_terminal();
        let text = match options.format {
            LogFormat::Auto => terminal,
            LogFormat::Json => false,
            LogFormat::Text => true,
        };
        let style = Style {
            text,
            colours: text && terminal,
            identity: Identity {
                replica: options.replica,
            },
        };
        let levels = Levels::parse(&options.levels)?;
        let dropped = registry.counter(&DROPPED).with(&[]);
        let queue = Queue::start(queue::Setup {
            sink: options.sink.open(&clock)?,
            capacity: options.buffer.max(16),
            report_drops: options.report_drops,
            dropped,
            style: style.clone(),
            clock: Arc::clone(&clock),
        })?;
        Ok(Self(Arc::new(Inner {
            queue,
            levels,
            style,
            registry: registry.clone(),
            clock,
        })))
    }

    /// A subscriber that writes into this log; for tests, and for [`Logs::install`].
    #[must_use]
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let lines = self.0.registry.counter(&LINES);
        let layer = LogLayer::new(
            Arc::clone(&self.0.queue),
            self.0.levels.clone(),
            self.0.style.clone(),
            Arc::clone(&self.0.clock),
            &lines,
        );
        tracing_subscriber::registry().with(layer)
    }

    /// Makes this the log of the whole process and writes a last line for every panic.
    ///
    /// # Errors
    /// When the process has a subscriber already.
    pub fn install(&self) -> Result<(), LogError> {
        tracing::subscriber::set_global_default(self.subscriber())
            .map_err(|_| LogError::Installed)?;
        self.hook_panics();
        Ok(())
    }

    /// Writes a last line with request id and back-trace for every panic, and counts it.
    pub fn hook_panics(&self) {
        let panics = self.0.registry.counter(&PANICS).with(&[]);
        panic::hook(
            Arc::clone(&self.0.queue),
            self.0.style.clone(),
            Arc::clone(&self.0.clock),
            panics,
        );
    }

    /// Changes the levels, of the root and per target, at once and for all threads.
    ///
    /// # Errors
    /// When a level is misspelt; then nothing changes.
    pub fn set_levels(&self, text: &str) -> Result<(), LogError> {
        self.0.levels.set(text)
    }

    /// The present levels as text.
    #[must_use]
    pub fn levels(&self) -> String {
        self.0.levels.text()
    }

    /// Waits until what was logged before is written, or the time is over; true in the first case.
    pub fn flush(&self, most: Duration) -> bool {
        self.0.queue.flush(most)
    }

    /// Writes what is left, at most for the given time, and ends the thread.
    pub fn close(&self, most: Duration) {
        self.0.queue.close(most);
    }
}
