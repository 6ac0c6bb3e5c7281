//! The layer below `tracing`: gathers the fields of spans and events and hands finished lines to the queue.

use std::cell::RefCell;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use portico_base::Clock;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use super::collect::{FieldValue, Fields};
use super::fold::Verdict;
use super::levels::Levels;
use super::line::{Parts, Style};
use super::queue::{Queue, Sample};
use super::scope;
use crate::json::Stamp;
use crate::metrics::{Counter, CounterVec};

thread_local! {
    static STAMP: RefCell<Stamp> = RefCell::default();
}

pub(super) struct LogLayer {
    queue: Arc<Queue>,
    levels: Levels,
    style: Style,
    /// For lines that are kept for people.
    plain: Style,
    clock: Arc<dyn Clock>,
    lines: [Counter; 5],
}

impl LogLayer {
    pub(super) fn new(
        queue: Arc<Queue>,
        levels: Levels,
        style: Style,
        clock: Arc<dyn Clock>,
        lines: &CounterVec,
    ) -> Self {
        let plain = Style {
            text: true,
            colours: false,
            ..style.clone()
        };
        Self {
            queue,
            levels,
            style,
            plain,
            clock,
            lines: ["error", "warn", "info", "debug", "trace"].map(|level| lines.with(&[level])),
        }
    }

    fn count(&self, level: Level) {
        let index = match level {
            Level::ERROR => 0,
            Level::WARN => 1,
            Level::INFO => 2,
            Level::DEBUG => 3,
            Level::TRACE => 4,
        };
        self.lines[index].inc();
    }

    /// Lines that were folded before this one; `None` when this one is folded too.
    fn fold(
        &self,
        metadata: &'static Metadata<'static>,
        event: &Fields,
        at_us: i64,
    ) -> Option<u64> {
        if *metadata.level() > Level::WARN {
            return Some(0);
        }
        let code = event.all.iter().find_map(|(name, value)| match value {
            FieldValue::Text(text) if *name == "code" => Some(text.as_str()),
            _ => None,
        });
        let mut hasher = DefaultHasher::new();
        (metadata.target(), metadata.line(), &event.message, code).hash(&mut hasher);
        let sample = || Sample {
            level: *metadata.level(),
            target: metadata.target(),
            message: event.message.clone(),
            code: code.map(str::to_owned),
        };
        match self.queue.fold(hasher.finish(), at_us, sample) {
            Verdict::Write(folded) => Some(folded),
            Verdict::Fold => None,
        }
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for LogLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.levels.enabled(metadata) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.levels.enabled(metadata)
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(Arc::new(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, cx: Context<'_, S>) {
        let Some(span) = cx.span(id) else { return };
        let mut extensions = span.extensions_mut();
        if let Some(fields) = extensions.get_mut::<Arc<Fields>>() {
            let fields: &mut Fields = Arc::make_mut(fields);
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, cx: Context<'_, S>) {
        let metadata = event.metadata();
        let at_us = self.clock.now().timestamp_micros();
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.count(*metadata.level());
        let Some(folded) = self.fold(metadata, &fields, at_us) else {
            return;
        };
        let spans: Vec<Arc<Fields>> = cx
            .event_scope(event)
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
            .filter_map(|span| span.extensions().get::<Arc<Fields>>().cloned())
            .collect();
        let context = scope::current();
        let parts = Parts {
            at_us,
            level: *metadata.level(),
            target: metadata.target(),
            event: &fields,
            spans: &spans,
            context: context.as_deref(),
            folded,
        };
        if let Some(tail) = context.as_ref().and_then(|c| c.tail.as_ref()) {
            tail.push(&parts.write(&self.plain, &mut Stamp::default()));
        }
        let line = STAMP
            .try_with(|stamp| parts.write(&self.style, &mut stamp.borrow_mut()))
            .unwrap_or_else(|_| parts.write(&self.style, &mut Stamp::default()));
        self.queue.push(line);
    }
}
