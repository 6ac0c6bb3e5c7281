//! The one normalised path: routing, authorisation and forwarding all use it (GW-12, RFC 3986 §6.2.2).
//!
//! Dot segments are resolved, repeated slashes become one, and encoded unreserved characters are decoded.
//! Every other encoding stays as it was sent: `%2F` never separates segments. What two programs could
//! read in two ways is refused.

use std::borrow::Cow;

/// A path on which everybody agrees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised<'a> {
    text: Cow<'a, str>,
    /// Fewest segments that were left when a `..` took one away; no prefix may be deeper.
    floor: usize,
}

/// Why a path is refused. The text is for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    #[error("the path holds a broken percent encoding")]
    Encoding,
    #[error("the path holds a NUL or a backslash")]
    Byte,
    #[error("the path holds an overlong encoding of a character")]
    Overlong,
    #[error("the path leads above its root")]
    AboveRoot,
    #[error("the path hides dot segments behind an encoding or a parameter")]
    HiddenDots,
}

impl<'a> Normalised<'a> {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text, without a copy when nothing had to be changed.
    #[must_use]
    pub fn into_text(self) -> Cow<'a, str> {
        self.text
    }

    /// True when no `..` led above the first `depth` segments.
    #[must_use]
    pub fn stays_below(&self, depth: usize) -> bool {
        self.floor >= depth
    }
}

/// Normalises a path without its query.
///
/// # Errors
/// Says why the path cannot be read in one way only.
pub fn normalise(path: &[u8]) -> Result<Normalised<'_>, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_plain(path) {
        // Plain means visible ASCII, so that this cannot fail.
        let text = std::str::from_utf8(path).map_err(|_| BadPath::Encoding)?;
        return Ok(Normalised {
            text: Cow::Borrowed(text),
            floor: usize::MAX,
        });
    }
    let decoded = decode_unreserved(path)?;
    resolve(&decoded)
}

/// True when there is nothing to do: no encoding, no dot segment, no empty segment, nothing unusual.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in path {
        let unusual = match byte {
            b'%' | b'\\' | b';' | 0..=b' ' | 0x7f.. => true,
            b'/' | b'.' => previous == b'/',
            _ => false,
        };
        if unusual {
            return false;
        }
        previous = byte;
    }
    true
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Decodes what needs no encoding, encodes what may not stand there, and checks the rest.
fn decode_unreserved(path: &[u8]) -> Result<Vec<u8>, BadPath> {
    let mut out = Vec::with_capacity(path.len());
    let mut decoded = [0_u8; 2];
    let mut at = 0;
    while at < path.len() {
        let byte = path[at];
        let value = match byte {
            b'%' => hex_at(path, at + 1).ok_or(BadPath::Encoding)?,
            other => other,
        };
        if value == 0 || byte == b'\\' {
            return Err(BadPath::Byte);
        }
        if is_overlong(decoded, value) {
            return Err(BadPath::Overlong);
        }
        decoded = [decoded[1], value];
        match byte {
            b'%' if is_unreserved(value) => out.push(value),
            b'%' => out.extend_from_slice(&path[at..at + 3]),
            b'!'..=b'~' => out.push(byte),
            _ => out.extend_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
        at += if byte == b'%' { 3 } else { 1 };
    }
    Ok(out)
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The byte that two hexadecimal digits stand for.
pub(super) fn hex_at(text: &[u8], at: usize) -> Option<u8> {
    let digit = |b: u8| {
        char::from(b)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    Some(digit(*text.get(at)?)? << 4 | digit(*text.get(at + 1)?)?)
}

/// True when `value` completes a UTF-8 form longer than needed: a slash or dot in disguise.
const fn is_overlong(before: [u8; 2], value: u8) -> bool {
    if value & 0xc0 != 0x80 {
        return false;
    }
    matches!(
        (before[1], value),
        (0xc0 | 0xc1, _) | (0xe0, 0x80..=0x9f) | (0xf0, 0x80..=0x8f)
    )
}

/// Resolves dot segments and repeated slashes.
fn resolve(path: &[u8]) -> Result<Normalised<'static>, BadPath> {
    let mut out: Vec<u8> = Vec::with_capacity(path.len());
    let mut starts: Vec<usize> = Vec::new();
    let mut floor = usize::MAX;
    let mut open = true;
    for segment in path[1..].split(|b| *b == b'/') {
        check_segment(segment)?;
        open = match segment {
            b"" | b"." => true,
            b".." => {
                let start = starts.pop().ok_or(BadPath::AboveRoot)?;
                out.truncate(start);
                floor = floor.min(starts.len());
                true
            }
            name => {
                starts.push(out.len());
                out.push(b'/');
                out.extend_from_slice(name);
                false
            }
        };
    }
    if open {
        out.push(b'/');
    }
    let text = String::from_utf8(out).map_err(|_| BadPath::Encoding)?;
    Ok(Normalised {
        text: Cow::Owned(text),
        floor,
    })
}

/// Refuses what some program behind us would read as a dot segment: `..;x`, `..%2F`, `%5C..`.
fn check_segment(segment: &[u8]) -> Result<(), BadPath> {
    if segment == b"." || segment == b".." {
        return Ok(());
    }
    let hides = |part: &[u8]| {
        let name = part.split(|b| *b == b';').next().unwrap_or(part);
        name == b"." || name == b".."
    };
    let mut rest = segment;
    loop {
        let cut = rest
            .windows(3)
            .position(|w| w[0] == b'%' && matches!(hex_at(w, 1), Some(b'/' | b'\\')));
        let part = &rest[..cut.unwrap_or(rest.len())];
        if hides(part) {
            return Err(BadPath::HiddenDots);
        }
        match cut {
            Some(at) => rest = &rest[at + 3..],
            None => return Ok(()),
        }
    }
}

/// A segment as it is compared: decoded, and without `;parameters`, which some services cut off.
#[must_use]
pub fn compared(segment: &str) -> Cow<'_, [u8]> {
    let name = match memchr::memchr(b';', segment.as_bytes()) {
        Some(at) => &segment[..at],
        None => segment,
    };
    if memchr::memchr(b'%', name.as_bytes()).is_none() {
        return Cow::Borrowed(name.as_bytes());
    }
    let bytes = name.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match hex_at(bytes, at + 1) {
            Some(value) if bytes[at] == b'%' => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

/// True when the routed prefix holds what must not stand there: a backslash or invalid UTF-8.
#[must_use]
pub fn is_clean_prefix(prefix: &str) -> bool {
    memchr::memchr(b'%', prefix.as_bytes()).is_none()
        || prefix.split('/').all(|segment| {
            let bytes = compared(segment);
            std::str::from_utf8(&bytes).is_ok() && !bytes.contains(&b'\\')
        })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good(path: &str) -> String {
        normalise(path.as_bytes())
            .unwrap_or_else(|e| panic!("{path}: {e}"))
            .into_text()
            .into_owned()
    }

    #[test]
    fn table() {
        for (path, wanted) in [
            ("/", "/"),
            ("/api/hello/x", "/api/hello/x"),
            ("//api///hello", "/api/hello"),
            ("/a/./b/.", "/a/b/"),
            ("/a/b/../c", "/a/c"),
            ("/a/b/..", "/a/"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/%2f/b%2Fc", "/a/%2f/b%2Fc"),
            ("/%61%7e%2D", "/a~-"),
            ("/caf%c3%A9", "/caf%c3%A9"),
            ("/café", "/caf%C3%A9"),
            ("/a;b=c/d", "/a;b=c/d"),
            ("/...", "/..."),
            ("/a/..b/.c", "/a/..b/.c"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/a b", "/a%20b"),
        ] {
            assert_eq!(good(path), wanted, "{path}");
        }
        for (path, why) in [
            ("", BadPath::NotAbsolute),
            ("*", BadPath::NotAbsolute),
            ("/%", BadPath::Encoding),
            ("/%4", BadPath::Encoding),
            ("/%zz", BadPath::Encoding),
            ("/a%00b", BadPath::Byte),
            ("/a\\b", BadPath::Byte),
            ("/..", BadPath::AboveRoot),
            ("/a/../../b", BadPath::AboveRoot),
            ("/%c0%ae%c0%ae/x", BadPath::Overlong),
            ("/%c0%af", BadPath::Overlong),
            ("/%e0%80%af", BadPath::Overlong),
            ("/%f0%80%80%af", BadPath::Overlong),
            ("/a/..;/b", BadPath::HiddenDots),
            ("/a/..;x=1/b", BadPath::HiddenDots),
            ("/a/.;/b", BadPath::HiddenDots),
            ("/a/..%2f..%2fb", BadPath::HiddenDots),
            ("/a/x%5c..%5cb", BadPath::HiddenDots),
            ("/a/%2e%2e%2fb", BadPath::HiddenDots),
        ] {
            assert_eq!(normalise(path.as_bytes()).err(), Some(why), "{path}");
        }
    }

    #[test]
    fn climbing_above_a_prefix_is_seen_even_when_the_path_comes_back() {
        let path = normalise(b"/api/hello/../hello/x").unwrap();
        assert_eq!(path.as_str(), "/api/hello/x");
        assert!(path.stays_below(1) && !path.stays_below(2));
        assert!(normalise(b"/api/hello/x/..").unwrap().stays_below(2));
        assert!(normalise(b"/api/hello/x").unwrap().stays_below(1000));
    }

    #[test]
    fn segments_are_compared_decoded_and_without_parameters() {
        assert_eq!(&*compared("caf%C3%a9"), "café".as_bytes());
        assert_eq!(&*compared("a%2Fb;x=1"), b"a/b");
        assert_eq!(&*compared("plain"), b"plain");
        assert!(is_clean_prefix("/api/hello") && is_clean_prefix("/caf%C3%A9"));
        assert!(!is_clean_prefix("/a%5Cb") && !is_clean_prefix("/%E9"));
    }

    fn paths() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("/"),
            Just("."),
            Just(".."),
            Just("%2e"),
            Just("%2F"),
            Just("%5c"),
            Just("%00"),
            Just(";"),
            Just("a"),
            Just("%61"),
            Just("%c3%a9"),
            Just("%"),
            Just("é"),
            Just("\\"),
            Just("%25"),
            Just(" "),
            Just("//"),
            Just("/../"),
        ];
        proptest::collection::vec(piece, 0..24).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(path in paths()) {
            if let Ok(once) = normalise(path.as_bytes()) {
                let twice = normalise(once.as_str().as_bytes());
                prop_assert_eq!(twice.map(|t| t.as_str().to_owned()), Ok(once.as_str().to_owned()));
            }
        }

        #[test]
        fn a_good_path_never_leaves_its_root_however_it_is_decoded(path in paths()) {
            if let Ok(good) = normalise(path.as_bytes()) {
                let text = good.as_str();
                prop_assert!(text.starts_with('/') && text.is_ascii() && !text.contains("//"));
                let decoded = compared(text).iter().map(|b| if *b == b'\\' { '/' } else { char::from(*b) }).collect::<String>();
                for segment in decoded.split('/') {
                    prop_assert!(segment != ".." && segment != ".", "{} in {}", segment, text);
                }
            }
        }

        #[test]
        fn encoded_slashes_are_kept(path in paths()) {
            if let Ok(good) = normalise(path.as_bytes())
                && good.floor == usize::MAX
            {
                let count = |s: &str| s.to_ascii_lowercase().matches("%2f").count();
                prop_assert_eq!(count(good.as_str()), count(&path));
            }
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = normalise(&bytes).map(|n| n.as_str().len());
        }
    }
}
