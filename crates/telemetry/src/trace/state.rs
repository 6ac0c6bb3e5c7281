//! `tracestate` of W3C Trace Context §3.3: carried along unread, bounded, dropped whole when malformed.

use std::sync::Arc;

const MAX_MEMBERS: usize = 32;
const MAX_BYTES: usize = 512;

/// The list members of `tracestate` as one header value; empty most of the time and then free.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TraceState(Option<Arc<str>>);

impl TraceState {
    /// Reads all `tracestate` lines in order. A malformed member, a key given twice, or more than 32
    /// members discard everything; beyond 512 characters members fall off the end.
    #[must_use]
    pub fn parse<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut keys: Vec<&str> = Vec::new();
        let mut out = String::new();
        for line in lines {
            let Ok(line) = std::str::from_utf8(line) else {
                return Self(None);
            };
            for member in line.split(',').map(|m| m.trim_matches([' ', '\t'])) {
                if member.is_empty() {
                    continue;
                }
                let Some((key, value)) = member.split_once('=') else {
                    return Self(None);
                };
                if !is_key(key) || !is_value(value) || keys.contains(&key) {
                    return Self(None);
                }
                keys.push(key);
                if keys.len() > MAX_MEMBERS {
                    return Self(None);
                }
                if out.len() + member.len() < MAX_BYTES {
                    if !out.is_empty() {
                        out.push(',');
                    }
                    out.push_str(member);
                }
            }
        }
        Self((!out.is_empty()).then(|| Arc::from(out)))
    }

    /// The header value; empty when there is none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }

    /// True when there is no member.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

/// `simple-key` or `tenant@system` (§3.3.1.3.1).
fn is_key(key: &str) -> bool {
    let plain = |part: &str, max: usize, digit_first: bool| {
        let first = part.bytes().next();
        let starts =
            first.is_some_and(|b| b.is_ascii_lowercase() || digit_first && b.is_ascii_digit());
        starts
            && part.len() <= max
            && part.bytes().all(|b| {
                b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || matches!(b, b'_' | b'-' | b'*' | b'/')
            })
    };
    match key.split_once('@') {
        Some((tenant, system)) => plain(tenant, 241, true) && plain(system, 14, false),
        None => plain(key, 256, true),
    }
}

/// Up to 256 printable characters without comma and equals sign, not ending in a space (§3.3.1.3.2).
fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value.len() <= 256
        && !value.ends_with(' ')
        && value
            .bytes()
            .all(|b| (0x20..=0x7e).contains(&b) && b != b',' && b != b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(lines: &[&str]) -> String {
        TraceState::parse(lines.iter().map(|l| l.as_bytes()))
            .as_str()
            .to_owned()
    }

    #[test]
    fn table() {
        assert_eq!(
            parse(&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"]),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
        );
        assert_eq!(parse(&["a=1 , b=2", " ,c=3"]), "a=1,b=2,c=3");
        assert_eq!(parse(&["t@sys=x"]), "t@sys=x");
        for bad in [
            "a", "A=1", "a=1,a=2", "a==1", "a=\u{7f}", "@x=1", "a@1x=1", "=1", "a=",
        ] {
            assert_eq!(parse(&[bad]), "", "{bad}");
        }
        let many: Vec<String> = (0..33).map(|i| format!("k{i}=v")).collect();
        assert_eq!(parse(&[&many.join(",")]), "");
        let long = format!("a={},b={},c=1", "x".repeat(256), "y".repeat(256));
        assert_eq!(parse(&[&long]), format!("a={},c=1", "x".repeat(256)));
        assert!(TraceState::default().is_empty());
    }

    proptest! {
        #[test]
        fn what_is_kept_is_legal_and_bounded(line in "[ -~]{0,700}") {
            let state = TraceState::parse(std::iter::once(line.as_bytes()));
            prop_assert!(state.as_str().len() <= MAX_BYTES);
            let again = TraceState::parse(std::iter::once(state.as_str().as_bytes()));
            prop_assert_eq!(again, state);
        }
    }
}
