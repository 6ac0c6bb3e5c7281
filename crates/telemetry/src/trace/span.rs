//! A finished span: what the data plane hands over for a kept request, and nothing for the others.

use std::borrow::Cow;
use std::sync::Arc;

use smallvec::SmallVec;

use super::context::{SpanId, TraceId};
use super::state::TraceState;
use crate::mask;

/// Most attributes of a span; further ones are left out and counted.
const MAX_ATTRIBUTES: usize = 64;
/// Longest text of an attribute or a reason, in bytes.
const MAX_TEXT: usize = 1_024;
/// Longest name of a span, in bytes.
const MAX_NAME: usize = 200;

/// Which side of a call a span describes (OpenTelemetry `SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpanKind {
    /// Work within the process.
    #[default]
    Internal,
    /// A request that was answered.
    Server,
    /// A request that was sent.
    Client,
    /// A message that was put down for later.
    Producer,
    /// A message that was taken up.
    Consumer,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SpanStatus {
    /// Nothing to say.
    #[default]
    Unset,
    /// Good, and somebody made sure.
    Ok,
    /// Failed, with the reason.
    Error(Cow<'static, str>),
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(Cow<'static, str>),
    /// Text that is shared with others.
    Shared(Arc<str>),
    /// A whole number.
    Int(i64),
    /// A fraction.
    Float(f64),
    /// Yes or no.
    Bool(bool),
}

macro_rules! value_from {
    ($($from:ty => $variant:ident($convert:expr)),+ $(,)?) => {
        $(impl From<$from> for Value {
            fn from(value: $from) -> Self {
                Self::$variant($convert(value))
            }
        })+
    };
}

value_from! {
    &'static str => Text(Cow::Borrowed),
    String => Text(Cow::Owned),
    Arc<str> => Shared(std::convert::identity),
    i64 => Int(std::convert::identity),
    u64 => Int(|n| i64::try_from(n).unwrap_or(i64::MAX)),
    u16 => Int(i64::from),
    u32 => Int(i64::from),
    f64 => Float(std::convert::identity),
    bool => Bool(std::convert::identity),
}

/// A named value; names follow the OpenTelemetry semantic conventions.
pub type Attribute = (&'static str, Value);

/// Another span that this one follows from (a job its enqueuer).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// Itself.
    pub span_id: SpanId,
}

/// A finished span.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// The span above it.
    pub parent: Option<SpanId>,
    /// What vendors along the way carry.
    pub state: TraceState,
    /// `GET /api/{service}`, `SELECT`, `music.scan`: few different names.
    pub name: Cow<'static, str>,
    /// Side of the call.
    pub kind: SpanKind,
    /// Who made the span (`gateway`, `registry`, `db`).
    pub scope: &'static str,
    /// Begin as Unix nanoseconds.
    pub start_ns: u64,
    /// End as Unix nanoseconds.
    pub end_ns: u64,
    /// How it ended.
    pub status: SpanStatus,
    /// What is worth knowing.
    pub attributes: SmallVec<[Attribute; 8]>,
    /// Attributes that did not fit.
    pub dropped_attributes: u32,
    /// Spans that this one follows from.
    pub links: SmallVec<[Link; 1]>,
}

impl Span {
    /// A span without parent, attributes and links, that has not taken any time yet.
    #[must_use]
    pub fn new(
        trace_id: TraceId,
        span_id: SpanId,
        scope: &'static str,
        name: impl Into<Cow<'static, str>>,
        start_ns: u64,
    ) -> Self {
        Self {
            trace_id,
            span_id,
            parent: None,
            state: TraceState::default(),
            name: shortened(name.into(), MAX_NAME),
            kind: SpanKind::default(),
            scope,
            start_ns,
            end_ns: start_ns,
            status: SpanStatus::default(),
            attributes: SmallVec::new(),
            dropped_attributes: 0,
            links: SmallVec::new(),
        }
    }

    /// Adds an attribute; beyond 64 it only counts. Text that is not from our code is masked as in a log
    /// (OB-31) and cut at 1 KiB.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if self.attributes.len() < MAX_ATTRIBUTES {
            let value = match value.into() {
                Value::Text(text) => Value::Text(presentable(text)),
                Value::Shared(text) => match mask::text(&text) {
                    Cow::Borrowed(same) if same.len() <= MAX_TEXT => Value::Shared(text),
                    masked => Value::Text(shortened(Cow::Owned(masked.into_owned()), MAX_TEXT)),
                },
                other => other,
            };
            self.attributes.push((name, value));
        } else {
            self.dropped_attributes += 1;
        }
    }

    /// Says that it failed, and why; masked and cut as attributes are.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        self.status = SpanStatus::Error(presentable(why.into()));
    }
}

/// Text as it may leave the process. What is borrowed for ever stands in our code, and hides nothing.
fn presentable(text: Cow<'static, str>) -> Cow<'static, str> {
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(text),
        Cow::Owned(text) => match mask::text(&text) {
            Cow::Borrowed(_) => Cow::Owned(text),
            Cow::Owned(masked) => Cow::Owned(masked),
        },
    };
    shortened(text, MAX_TEXT)
}

fn shortened(text: Cow<'static, str>, most: usize) -> Cow<'static, str> {
    if text.len() <= most {
        return text;
    }
    Cow::Owned(format!("{}…", &text[..text.floor_char_boundary(most)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::SeededRandom;

    #[test]
    fn texts_are_masked_and_cut() {
        let random = SeededRandom::new(1);
        let (trace, id) = (TraceId::random(&random), SpanId::random(&random));
        let mut span = Span::new(trace, id, "test", "n".repeat(5_000), 5);
        assert!(span.name.len() <= MAX_NAME + 3);
        span.set("url.path", "/x?password=hunter2&n=1".to_owned());
        span.set("shared", Arc::<str>::from("call 13812345678"));
        span.set("long", "ü".repeat(2_000));
        span.set("id", "01890a5d-ac96-774b-bcce-b302099a8057".to_owned());
        span.fail("token=ptk_0123456789 refused".to_owned());
        let shown = format!("{span:?}");
        for secret in ["hunter2", "13812345678", "ptk_0123456789"] {
            assert!(!shown.contains(secret), "{shown}");
        }
        assert!(shown.contains("01890a5d-ac96-774b-bcce-b302099a8057"));
        let Value::Text(long) = &span.attributes[2].1 else {
            panic!("text stays text")
        };
        assert!(long.len() <= MAX_TEXT + 3 && long.ends_with('…'));
    }

    #[test]
    fn attributes_are_bounded() {
        let random = SeededRandom::new(1);
        let mut span = Span::new(
            TraceId::random(&random),
            SpanId::random(&random),
            "test",
            "x",
            5,
        );
        for i in 0..70_u32 {
            span.set("n", i);
        }
        assert_eq!(span.attributes.len(), MAX_ATTRIBUTES);
        assert_eq!(span.dropped_attributes, 6);
    }
}
