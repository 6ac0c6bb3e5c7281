//! The last line of a panic: what, where, in which request, and the way there (OB-34).

use std::backtrace::Backtrace;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::time::Duration;

use portico_base::Clock;
use tracing::Level;

use super::collect::{FieldValue, Fields};
use super::fold::Verdict;
use super::line::{Parts, Style};
use super::queue::{Queue, Sample};
use super::scope;
use crate::json::Stamp;
use crate::metrics::Counter;

/// A panic that ends the process would take its own line with it, so the hook waits for the writer;
/// not for long, because most panics end one request only.
const PATIENCE: Duration = Duration::from_millis(100);

pub(super) fn hook(queue: Arc<Queue>, style: Style, clock: Arc<dyn Clock>, panics: Counter) {
    std::panic::set_hook(Box::new(move |info| {
        panics.inc();
        let at_us = clock.now().timestamp_micros();
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        location.hash(&mut hasher);
        let sample = || Sample {
            level: Level::ERROR,
            target: "panic",
            message: "panic".to_owned(),
            code: None,
        };
        // A back-trace takes milliseconds: a panic that can be provoked must not become a weapon.
        let Verdict::Write(folded) = queue.fold(hasher.finish(), at_us, sample) else {
            return;
        };
        let mut event = Fields {
            message: "panic".to_owned(),
            ..Fields::default()
        };
        let mut put = |name, text: String| event.all.push((name, FieldValue::Text(text)));
        put("err", text_of(info));
        put("location", location);
        let thread = std::thread::current();
        put("thread", thread.name().unwrap_or("unnamed").to_owned());
        put("backtrace", Backtrace::force_capture().to_string());
        let context = scope::current();
        let parts = Parts {
            at_us,
            level: Level::ERROR,
            target: "panic",
            event: &event,
            spans: &[],
            context: context.as_deref(),
            folded,
        };
        queue.push(parts.write(&style, &mut Stamp::default()));
        queue.flush(PATIENCE);
    }));
}

fn text_of(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}
