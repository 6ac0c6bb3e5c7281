//! Byte ranges out of complete stored bodies (RFC 9110 §14).

use http::HeaderMap;
use http::header::RANGE;

/// What a `Range` field asks of a body of known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// No range, one that we do not serve (several ranges, other units) or one that is not well formed: the
    /// whole body is the right answer to all of these.
    Whole,
    /// First byte and the one behind the last.
    Part {
        start: usize,
        end: usize,
    },
    Unsatisfiable,
}

/// Reads the range of a request for a body of `length` bytes.
pub(super) fn wanted(request: &HeaderMap, length: usize) -> Wanted {
    let mut lines = request.get_all(RANGE).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Wanted::Whole;
    };
    read(line.as_bytes(), length).unwrap_or(Wanted::Whole)
}

fn read(field: &[u8], length: usize) -> Option<Wanted> {
    let (unit, set) = field.split_at_checked(6)?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let set = set.trim_ascii();
    let dash = set.iter().position(|b| *b == b'-')?;
    let (first, last) = (&set[..dash], &set[dash + 1..]);
    if first.is_empty() {
        let suffix = number(last)?;
        if suffix == 0 || length == 0 {
            return Some(Wanted::Unsatisfiable);
        }
        return Some(Wanted::Part {
            start: length.saturating_sub(suffix),
            end: length,
        });
    }
    let start = number(first)?;
    let end = if last.is_empty() {
        length
    } else {
        number(last)?.saturating_add(1).min(length)
    };
    if !last.is_empty() && number(last)? < start {
        return None;
    }
    Some(if start >= length {
        Wanted::Unsatisfiable
    } else {
        Wanted::Part { start, end }
    })
}

fn number(text: &[u8]) -> Option<usize> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0usize, |n, d| {
        n.saturating_mul(10).saturating_add(usize::from(d - b'0'))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn of(text: &str, length: usize) -> Wanted {
        let mut map = HeaderMap::new();
        map.insert(RANGE, HeaderValue::from_str(text).expect("value"));
        wanted(&map, length)
    }

    #[test]
    fn forms() {
        for (text, expected) in [
            ("bytes=0-1", Wanted::Part { start: 0, end: 2 }),
            ("Bytes=0-1", Wanted::Part { start: 0, end: 2 }),
            ("bytes=1-", Wanted::Part { start: 1, end: 11 }),
            ("bytes=-1", Wanted::Part { start: 10, end: 11 }),
            ("bytes=-100", Wanted::Part { start: 0, end: 11 }),
            ("bytes=5-100", Wanted::Part { start: 5, end: 11 }),
            ("bytes=10-10", Wanted::Part { start: 10, end: 11 }),
            ("bytes=11-", Wanted::Unsatisfiable),
            ("bytes=99999999999999999999999-", Wanted::Unsatisfiable),
            ("bytes=-0", Wanted::Unsatisfiable),
            ("bytes=5-4", Wanted::Whole),
            ("bytes=0-1,3-4", Wanted::Whole),
            ("bytes=", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
            ("items=0-1", Wanted::Whole),
            ("x", Wanted::Whole),
        ] {
            assert_eq!(of(text, 11), expected, "{text}");
        }
        assert_eq!(of("bytes=0-", 0), Wanted::Unsatisfiable);
        assert_eq!(wanted(&HeaderMap::new(), 5), Wanted::Whole);
    }

    #[test]
    fn two_fields_are_no_range() {
        let mut map = HeaderMap::new();
        map.append(RANGE, HeaderValue::from_static("bytes=0-1"));
        map.append(RANGE, HeaderValue::from_static("bytes=2-3"));
        assert_eq!(wanted(&map, 11), Wanted::Whole);
    }

    proptest! {
        #[test]
        fn a_part_is_always_inside(text in "(bytes=)?[0-9,-]{0,12}", length in 0usize..1000) {
            if let Wanted::Part { start, end } = of(&text, length) {
                prop_assert!(start < end && end <= length);
            }
        }
    }
}
