//! Trace context in HTTP headers: `traceparent` of W3C Trace Context, Level 1 (with the rules for later versions).

use std::fmt;

use portico_base::Random;

use super::state::TraceState;

/// 16 bytes that name a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// 8 bytes that name a span within a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

macro_rules! id {
    ($name:ident, $len:literal) => {
        impl $name {
            /// From bytes; `None` when they are all zero.
            #[must_use]
            pub fn from_bytes(bytes: [u8; $len]) -> Option<Self> {
                (bytes != [0; $len]).then_some(Self(bytes))
            }

            /// From lower-case hexadecimal digits of the exact length.
            #[must_use]
            pub fn parse(hex: &[u8]) -> Option<Self> {
                if hex.len() != $len * 2 {
                    return None;
                }
                let mut bytes = [0; $len];
                for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
                    *byte = digit(pair[0])? << 4 | digit(pair[1])?;
                }
                Self::from_bytes(bytes)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// A new random id.
            #[must_use]
            pub fn random(random: &dyn Random) -> Self {
                let mut bytes = [0; $len];
                random.fill(&mut bytes);
                // One id in 2⁶⁴ would be all zero; the last bit keeps it legal.
                if bytes == [0; $len] {
                    bytes[$len - 1] = 1;
                }
                Self(bytes)
            }

            /// The hexadecimal digits, without allocating.
            #[must_use]
            pub fn hex(&self) -> [u8; $len * 2] {
                let mut out = [0; $len * 2];
                for (pair, byte) in out.chunks_exact_mut(2).zip(self.0) {
                    pair[0] = DIGITS[usize::from(byte >> 4)];
                    pair[1] = DIGITS[usize::from(byte & 15)];
                }
                out
            }
        }

        impl From<$name> for [u8; $len] {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(TraceId, 16);
id!(SpanId, 8);

const DIGITS: &[u8; 16] = b"0123456789abcdef";
const SAMPLED: u8 = 1;

/// Where in which trace we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span that is open: the caller's when parsed, ours when injected.
    pub span_id: SpanId,
    /// True when the spans of this trace are kept.
    pub sampled: bool,
    /// What vendors along the way carry.
    pub state: TraceState,
}

impl TraceContext {
    /// A new trace with its first span.
    #[must_use]
    pub fn root(random: &dyn Random, sampled: bool) -> Self {
        Self {
            trace_id: TraceId::random(random),
            span_id: SpanId::random(random),
            sampled,
            state: TraceState::default(),
        }
    }

    /// The same trace with a new span below this one.
    #[must_use]
    pub fn child(&self, random: &dyn Random) -> Self {
        Self {
            span_id: SpanId::random(random),
            ..self.clone()
        }
    }

    /// Reads one `traceparent` value (W3C Trace Context §3.2); `tracestate` is read apart, and only when
    /// this succeeds (§3.3.1.3). Versions above 00 may carry more behind another dash.
    #[must_use]
    pub fn parse(traceparent: &[u8]) -> Option<Self> {
        let value = traceparent.trim_ascii();
        if value.len() < 55 || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
            return None;
        }
        let version = digit(value[0])? << 4 | digit(value[1])?;
        match (version, value.len()) {
            (0xff, _) => return None,
            (0, 55) => {}
            (0, _) => return None,
            (_, 55) => {}
            _ if value[55] == b'-' => {}
            _ => return None,
        }
        let flags = digit(value[53])? << 4 | digit(value[54])?;
        Some(Self {
            trace_id: TraceId::parse(&value[3..35])?,
            span_id: SpanId::parse(&value[36..52])?,
            sampled: flags & SAMPLED != 0,
            state: TraceState::default(),
        })
    }

    /// Reads both headers: exactly one `traceparent`, any number of `tracestate` lines.
    #[must_use]
    pub fn extract<'a>(
        mut traceparent: impl Iterator<Item = &'a [u8]>,
        tracestate: impl Iterator<Item = &'a [u8]>,
    ) -> Option<Self> {
        let parent = Self::parse(traceparent.next()?)?;
        if traceparent.next().is_some() {
            return None;
        }
        Some(Self {
            state: TraceState::parse(tracestate),
            ..parent
        })
    }

    /// The `traceparent` value for whoever is called next; version 00.
    #[must_use]
    pub fn traceparent(&self) -> [u8; 55] {
        let mut out = *b"00-00000000000000000000000000000000-0000000000000000-00";
        out[3..35].copy_from_slice(&self.trace_id.hex());
        out[36..52].copy_from_slice(&self.span_id.hex());
        out[54] = if self.sampled { b'1' } else { b'0' };
        out
    }

    /// Writes `traceparent` and, when there is something in it, `tracestate`; replaces what was there.
    pub fn inject(&self, headers: &mut http::HeaderMap) {
        if let Ok(value) = http::HeaderValue::from_bytes(&self.traceparent()) {
            headers.insert("traceparent", value);
        }
        match http::HeaderValue::from_str(self.state.as_str()) {
            Ok(value) if !self.state.is_empty() => headers.insert("tracestate", value),
            _ => headers.remove("tracestate"),
        };
    }
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_base::SeededRandom;
    use proptest::prelude::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn examples_of_the_recommendation() {
        let context = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(
            context.trace_id.to_string(),
            "4bf92f3577b34da6a3ce929d0e0e4736"
        );
        assert_eq!(context.span_id.to_string(), "00f067aa0ba902b7");
        assert!(context.sampled);
        assert_eq!(context.traceparent(), GOOD.as_bytes());
        let unsampled = GOOD.replace("-01", "-00");
        assert!(!TraceContext::parse(unsampled.as_bytes()).unwrap().sampled);
        let later = format!("cc-{}-what-the-future-will-be", &GOOD[3..]);
        assert!(TraceContext::parse(later.as_bytes()).is_some());
        for bad in [
            "",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.x",
        ] {
            assert_eq!(TraceContext::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn two_parents_are_none() {
        let twice = [GOOD.as_bytes(), GOOD.as_bytes()];
        assert_eq!(
            TraceContext::extract(twice.into_iter(), std::iter::empty()),
            None
        );
        let state = ["a=1".as_bytes(), b"b=2".as_slice()];
        let context = TraceContext::extract(twice.into_iter().take(1), state.into_iter()).unwrap();
        let mut headers = http::HeaderMap::new();
        headers.insert("tracestate", http::HeaderValue::from_static("evil=1"));
        context.inject(&mut headers);
        assert_eq!(headers["traceparent"], GOOD);
        assert_eq!(headers["tracestate"], "a=1,b=2");
        TraceContext::root(&SeededRandom::new(1), false).inject(&mut headers);
        assert!(!headers.contains_key("tracestate"));
    }

    proptest! {
        #[test]
        fn round_trip(seed: u64, sampled: bool) {
            let context = TraceContext::root(&SeededRandom::new(seed), sampled);
            prop_assert_eq!(TraceContext::parse(&context.traceparent()), Some(context.clone()));
            let child = context.child(&SeededRandom::new(seed ^ 1));
            prop_assert_eq!(child.trace_id, context.trace_id);
            prop_assert_ne!(child.span_id, context.span_id);
        }

        #[test]
        fn nothing_panics_and_what_is_read_is_written_back(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(context) = TraceContext::parse(&bytes) {
                prop_assert!(TraceContext::parse(&context.traceparent()).is_some());
            }
        }

        #[test]
        fn near_misses_never_panic(at in 0_usize..55, byte: u8) {
            let mut bytes = GOOD.as_bytes().to_vec();
            bytes[at] = byte;
            if let Some(context) = TraceContext::parse(&bytes) {
                prop_assert!(context.trace_id.as_bytes() != &[0; 16]);
            }
        }
    }
}
