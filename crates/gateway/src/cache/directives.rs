//! Parses the fields that steer a cache: `Cache-Control`, `CDN-Cache-Control`, `Age`, `Expires`, `Pragma`, dates.
//!
//! Sources: RFC 9111 §5 (fields and directives), RFC 5861 (stale extensions), RFC 8246 (`immutable`),
//! RFC 9213 (targeted fields, a strict Structured Field of RFC 9651). Whatever cannot be read makes an answer
//! less cacheable, never more.

use http::header::{AGE, CACHE_CONTROL, HeaderMap, HeaderName, PRAGMA};

use super::fields::Dictionary;

/// RFC 9111 §1.2.2: a delta-seconds that does not fit counts as this many.
const DELTA_MAX: u64 = 2_147_483_648;

pub(super) const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");

/// What an answer says about being cached, from whichever field applies to us. Times are seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ResponseDirectives {
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub max_age: Option<u64>,
    pub s_maxage: Option<u64>,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    /// Fields named by `no-cache="…"` or `private="…"`; they are not kept in the stored answer.
    pub withheld: Vec<HeaderName>,
    /// Came from `CDN-Cache-Control`: `Cache-Control` and `Expires` do not count (RFC 9213 §2.2).
    pub targeted: bool,
}

impl ResponseDirectives {
    /// Reads the directives that apply to a shared gateway cache out of an answer's fields.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        if let Some(targeted) = Self::targeted(headers) {
            return targeted;
        }
        let mut found = Self::default();
        for value in headers.get_all(CACHE_CONTROL) {
            each_directive(value.as_bytes(), |name, argument| {
                found.take(name, argument)
            });
        }
        found
    }

    /// Whether the origin allows a copy to be shared although the caller showed a credential (RFC 9111 §3.5).
    pub(super) fn shareable(&self) -> bool {
        self.public || self.must_revalidate || self.s_maxage.is_some()
    }

    /// Whether a stale copy must not be used without asking (RFC 9111 §4.2.4). `s-maxage` has the meaning of
    /// `proxy-revalidate` unless the same answer grants staleness in so many words.
    pub(super) fn forbids_stale(&self) -> bool {
        let granted = self.stale_while_revalidate.is_some() || self.stale_if_error.is_some();
        self.no_cache
            || self.must_revalidate
            || self.proxy_revalidate
            || (self.s_maxage.is_some() && !granted)
    }

    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        match lower(name).as_slice() {
            b"no-store" => self.no_store = true,
            b"no-cache" => match argument.field_names() {
                Some(names) => self.withheld.extend(names),
                None => self.no_cache = true,
            },
            b"private" => match argument.field_names() {
                Some(names) => self.withheld.extend(names),
                None => self.private = true,
            },
            b"public" => self.public = true,
            b"must-revalidate" => self.must_revalidate = true,
            b"proxy-revalidate" => self.proxy_revalidate = true,
            b"must-understand" => self.must_understand = true,
            b"max-age" => smaller(&mut self.max_age, argument.seconds()),
            b"s-maxage" => smaller(&mut self.s_maxage, argument.seconds()),
            b"stale-while-revalidate" => {
                smaller(&mut self.stale_while_revalidate, argument.seconds())
            }
            b"stale-if-error" => smaller(&mut self.stale_if_error, argument.seconds()),
            _ => {}
        }
    }

    /// `None` when the field is absent, empty, not a Structured Field, or has a known member of a wrong type:
    /// all of these make the field as if it were not there.
    fn targeted(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(CDN_CACHE_CONTROL) {
            return None;
        }
        let dictionary = Dictionary::parse(
            headers
                .get_all(CDN_CACHE_CONTROL)
                .iter()
                .map(|v| v.as_bytes()),
        )?;
        if dictionary.is_empty() {
            return None;
        }
        let mut found = Self {
            targeted: true,
            ..Self::default()
        };
        for (key, value) in dictionary.members() {
            let flag = value.as_bool();
            let seconds = value
                .as_integer()
                .map(|n| u64::try_from(n).unwrap_or(0).min(DELTA_MAX));
            match key {
                "no-store" => found.no_store = flag?,
                "no-cache" => found.no_cache = flag.unwrap_or(true),
                "private" => found.private = flag.unwrap_or(true),
                "public" => found.public = flag?,
                "must-revalidate" => found.must_revalidate = flag?,
                "proxy-revalidate" => found.proxy_revalidate = flag?,
                "must-understand" => found.must_understand = flag?,
                "max-age" => found.max_age = Some(seconds?),
                "s-maxage" => found.s_maxage = Some(seconds?),
                "stale-while-revalidate" => found.stale_while_revalidate = Some(seconds?),
                "stale-if-error" => found.stale_if_error = Some(seconds?),
                _ => {}
            }
        }
        Some(found)
    }
}

/// What a caller asks of caches on the way (RFC 9111 §5.2.1). Times are seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RequestDirectives {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u64>,
    pub min_fresh: Option<u64>,
}

impl RequestDirectives {
    /// Reads a request's directives; `Pragma: no-cache` counts only without `Cache-Control` (RFC 9111 §5.4).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        if !headers.contains_key(CACHE_CONTROL) {
            found.no_cache = headers
                .get_all(PRAGMA)
                .iter()
                .any(|v| has_token(v.as_bytes(), b"no-cache"));
            return found;
        }
        for value in headers.get_all(CACHE_CONTROL) {
            each_directive(value.as_bytes(), |name, argument| {
                match lower(name).as_slice() {
                    b"no-cache" => found.no_cache = true,
                    b"no-store" => found.no_store = true,
                    b"only-if-cached" => found.only_if_cached = true,
                    b"max-age" => smaller(&mut found.max_age, argument.seconds()),
                    b"min-fresh" => {
                        found.min_fresh = Some(argument.seconds().max(found.min_fresh.unwrap_or(0)))
                    }
                    _ => {}
                }
            });
        }
        found
    }
}

/// The received age in seconds: the first member of the first line (RFC 9111 §5.1); an unreadable one is ignored.
pub(super) fn age_of(headers: &HeaderMap) -> u64 {
    let Some(value) = headers.get(AGE) else {
        return 0;
    };
    let first = value
        .as_bytes()
        .split(|b| *b == b',')
        .next()
        .unwrap_or_default();
    digits(first.trim_ascii()).unwrap_or(0)
}

/// An HTTP date in Unix milliseconds, in any of the three forms of RFC 9110 §5.6.7, names in any case. The name
/// of the day is not compared with the date: it decides nothing.
pub(super) fn date_ms(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?.trim_ascii();
    let (day, month, year, time) = if let Some((weekday, rest)) = text.split_once(", ") {
        let rest = strip_gmt(rest)?;
        if weekday.len() == 3 {
            // `06 Nov 1994 08:49:37`
            let (day, rest) = (rest.get(..2)?, rest.get(2..)?.strip_prefix(' ')?);
            let (month, rest) = (rest.get(..3)?, rest.get(3..)?.strip_prefix(' ')?);
            let (year, time) = rest.split_once(' ')?;
            (number(day, 2)?, month, number(year, 4)?, time)
        } else {
            // `06-Nov-94 08:49:37`
            let (date, time) = rest.split_once(' ')?;
            let mut parts = date.splitn(3, '-');
            let (day, month, year) = (parts.next()?, parts.next()?, number(parts.next()?, 2)?);
            (
                number(day, 2)?,
                month,
                if year < 70 { 2000 + year } else { 1900 + year },
                time,
            )
        }
    } else {
        // `Sun Nov  6 08:49:37 1994`
        let rest = text.get(3..)?.strip_prefix(' ')?;
        let (month, rest) = (rest.get(..3)?, rest.get(3..)?.strip_prefix(' ')?);
        let (day, rest) = (rest.get(..2)?, rest.get(2..)?.strip_prefix(' ')?);
        let (time, year) = rest.split_once(' ')?;
        let day = day
            .strip_prefix(' ')
            .map_or_else(|| number(day, 2), |d| number(d, 1))?;
        (day, month, number(year, 4)?, time)
    };
    let days = days_since_1970(year, month, day)?;
    let seconds = match time.as_bytes() {
        [_, _, b':', _, _, b':', _, _] => {
            let (h, m, s) = (
                number(&time[..2], 2)?,
                number(&time[3..5], 2)?,
                number(&time[6..], 2)?,
            );
            // RFC 9110 keeps room for a leap second.
            (h < 24 && m < 60 && s <= 60).then_some(h * 3600 + m * 60 + s)?
        }
        _ => return None,
    };
    Some((days * 86_400 + seconds) * 1000)
}

/// Whether a comma-separated list holds a token, without regard to case.
pub(super) fn has_token(list: &[u8], token: &[u8]) -> bool {
    list.split(|b| *b == b',')
        .any(|member| member.trim_ascii().eq_ignore_ascii_case(token))
}

/// The argument of a directive: absent, or its raw bytes after `=`.
#[derive(Clone, Copy)]
struct Argument<'a>(Option<&'a [u8]>);

impl Argument<'_> {
    /// Quoted numbers are read (RFC 9111 §5.2 asks for both forms); anything else is no lifetime at all.
    fn seconds(self) -> u64 {
        let raw = self.0.unwrap_or_default();
        let bare = raw
            .strip_prefix(b"\"")
            .and_then(|r| r.strip_suffix(b"\""))
            .unwrap_or(raw);
        digits(bare).unwrap_or(0)
    }

    /// `None` when the directive has no list of names, or one that cannot be read: then it covers everything.
    fn field_names(self) -> Option<Vec<HeaderName>> {
        let raw = self.0?;
        let bare = raw
            .strip_prefix(b"\"")
            .and_then(|r| r.strip_suffix(b"\""))
            .unwrap_or(raw);
        let mut names = Vec::new();
        for member in bare
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .filter(|m| !m.is_empty())
        {
            names.push(HeaderName::from_bytes(member).ok()?);
        }
        if names.is_empty() || names.len() > 32 {
            None
        } else {
            Some(names)
        }
    }
}

/// Splits at commas outside of quoted strings and hands out name and argument.
fn each_directive(value: &[u8], mut take: impl FnMut(&[u8], Argument<'_>)) {
    for member in split_unquoted(value) {
        let member = member.trim_ascii();
        if member.is_empty() {
            continue;
        }
        match member.iter().position(|b| *b == b'=') {
            None => take(member, Argument(None)),
            // White space around `=` is not in the grammar: the name still counts, its value does not.
            Some(at) => {
                let (name, rest) = (&member[..at], &member[at + 1..]);
                let spaced = name.last().is_some_and(u8::is_ascii_whitespace);
                let argument: &[u8] = if spaced { b"" } else { rest };
                take(name.trim_ascii(), Argument(Some(argument)));
            }
        }
    }
}

/// Members of a comma-separated list, where a comma inside a quoted string does not separate.
pub(super) fn split_unquoted(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    value.split(move |byte| {
        if escaped {
            escaped = false;
            return false;
        }
        match byte {
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' => return !quoted,
            _ => {}
        }
        false
    })
}

fn digits(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0u64, |n, d| {
        n.saturating_mul(10).saturating_add(u64::from(d - b'0'))
    });
    Some(number.min(DELTA_MAX))
}

fn smaller(slot: &mut Option<u64>, value: u64) {
    *slot = Some(slot.map_or(value, |had| had.min(value)));
}

fn lower(name: &[u8]) -> smallvec::SmallVec<[u8; 32]> {
    name.iter().map(u8::to_ascii_lowercase).collect()
}

fn strip_gmt(text: &str) -> Option<&str> {
    let at = text.len().checked_sub(4)?;
    text.get(at..)?
        .eq_ignore_ascii_case(" gmt")
        .then_some(&text[..at])
}

fn number(text: &str, length: usize) -> Option<u64> {
    let fits = text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    if fits { text.parse().ok() } else { None }
}

/// Days from 1970 in the proleptic Gregorian calendar; `None` for a date that is not one, or earlier.
fn days_since_1970(year: u64, month: &str, day: u64) -> Option<u64> {
    const NAMES: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    const LENGTH: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = NAMES
        .iter()
        .position(|name| name.eq_ignore_ascii_case(month))?;
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = LENGTH[month] + u64::from(leap && month == 1);
    if year < 1970 || day == 0 || day > length {
        return None;
    }
    let leaps = |until: u64| until / 4 - until / 100 + until / 400;
    let whole = (year - 1970) * 365 + leaps(year - 1) - leaps(1969);
    Some(whole + BEFORE[month] + u64::from(leap && month > 1) + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn answer(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        map
    }

    #[test]
    fn lifetimes_are_read_as_written_or_not_at_all() {
        let cases: &[(&str, Option<u64>)] = &[
            ("max-age=3600", Some(3600)),
            ("MaX-aGe=3600", Some(3600)),
            ("max-age=\"3600\"", Some(3600)),
            ("max-age='3600'", Some(0)),
            ("max-age=003600", Some(3600)),
            ("max-age=-1", Some(0)),
            ("max-age=3600.0", Some(0)),
            ("max-age=a3600", Some(0)),
            ("max-age=3600a", Some(0)),
            ("max-age", Some(0)),
            ("max-age=", Some(0)),
            ("max-age =3600", Some(0)),
            ("max-age= 3600", Some(0)),
            ("max-age=2147483649", Some(DELTA_MAX)),
            ("max-age=99999999999999999999999999", Some(DELTA_MAX)),
            ("max-age=1, max-age=1800", Some(1)),
            ("max-age=1800, max-age=1", Some(1)),
            ("extension=\"max-age=3600\", max-age=1", Some(1)),
            ("max-age=1, extension=\"max-age=3600\"", Some(1)),
            ("extension=\"a\\\", max-age=9, \", max-age=5", Some(5)),
            ("extension=\"max-age=3600\"", None),
            ("foobar, ,, max-age=7", Some(7)),
            ("", None),
        ];
        for (field, expected) in cases {
            let got = ResponseDirectives::of(&answer(&[("cache-control", field)])).max_age;
            assert_eq!(got, *expected, "{field}");
        }
    }

    #[test]
    fn directives_add_up_over_lines() {
        let both = ResponseDirectives::of(&answer(&[
            ("cache-control", "max-age=3600, PUBLIC"),
            ("cache-control", "s-maxage=1, No-StOrE"),
        ]));
        assert_eq!(
            (both.max_age, both.s_maxage, both.public, both.no_store),
            (Some(3600), Some(1), true, true)
        );
    }

    #[test]
    fn field_names_of_no_cache_are_withheld() {
        let named = ResponseDirectives::of(&answer(&[(
            "cache-control",
            "no-cache=\"a, B\", max-age=5",
        )]));
        assert_eq!(
            named.withheld,
            vec![HeaderName::from_static("a"), HeaderName::from_static("b")]
        );
        assert!(!named.no_cache);
        let broken = ResponseDirectives::of(&answer(&[("cache-control", "no-cache=\"a b\"")]));
        assert!(
            broken.no_cache,
            "a list that cannot be read covers everything"
        );
        assert!(ResponseDirectives::of(&answer(&[("cache-control", "private=\"\"")])).private);
    }

    #[test]
    fn targeted_field_replaces_cache_control_only_when_valid() {
        let cases: &[(&str, bool, Option<u64>)] = &[
            ("max-age=3600", true, Some(3600)),
            ("max-age=2147483648", true, Some(DELTA_MAX)),
            ("max-age=99999999999", true, Some(DELTA_MAX)),
            ("foobar, max-age=3600", true, Some(3600)),
            ("max-age=1, max-age=5", true, Some(5)),
            ("max-age=-3", true, Some(0)),
            ("max-age=3600;x=1", true, Some(3600)),
            ("max-age =100", false, None),
            ("max-age= 100", false, None),
            ("MaX-aGe=3600", false, None),
            ("max-age=\"10000\"", false, None),
            ("max-age=10000, &&&&&", false, None),
            ("max-age=1.5", false, None),
            ("max-age", false, None),
            ("", false, None),
        ];
        for (field, targeted, seconds) in cases {
            let map = answer(&[("cache-control", "no-store"), ("cdn-cache-control", field)]);
            let got = ResponseDirectives::of(&map);
            assert_eq!(
                (got.targeted, got.max_age),
                (*targeted, *seconds),
                "{field}"
            );
            assert_eq!(got.no_store, !targeted, "{field}");
        }
    }

    #[test]
    fn stale_use_is_forbidden_by_each_of_its_directives() {
        for (field, forbidden) in [
            ("max-age=1", false),
            ("max-age=1, must-revalidate", true),
            ("max-age=1, proxy-revalidate", true),
            ("max-age=1, no-cache", true),
            ("s-maxage=1", true),
            ("s-maxage=1, stale-while-revalidate=5", false),
            ("s-maxage=1, must-revalidate, stale-if-error=5", true),
        ] {
            let got = ResponseDirectives::of(&answer(&[("cache-control", field)]));
            assert_eq!(got.forbids_stale(), forbidden, "{field}");
        }
    }

    #[test]
    fn request_directives() {
        let asked = RequestDirectives::of(&answer(&[(
            "cache-control",
            "no-cache, max-age=5, min-fresh=7, only-if-cached",
        )]));
        assert!(asked.no_cache && asked.only_if_cached && !asked.no_store);
        assert_eq!((asked.max_age, asked.min_fresh), (Some(5), Some(7)));
        assert!(RequestDirectives::of(&answer(&[("pragma", "x, No-Cache")])).no_cache);
        assert!(
            !RequestDirectives::of(&answer(&[
                ("pragma", "no-cache"),
                ("cache-control", "max-stale=3")
            ]))
            .no_cache
        );
    }

    #[test]
    fn age_is_the_first_readable_member() {
        for (field, expected) in [
            ("7200", 7200),
            ("abc", 0),
            ("-7200", 0),
            ("7200.0", 0),
            ("0, 7200", 0),
            ("7200, 0", 7200),
            ("7200;foo=bar", 0),
            ("2147483649", DELTA_MAX),
            (" 5 ", 5),
        ] {
            assert_eq!(age_of(&answer(&[("age", field)])), expected, "{field}");
        }
        assert_eq!(age_of(&answer(&[("age", "0"), ("age", "7200")])), 0);
        assert_eq!(age_of(&answer(&[("age", "7200"), ("age", "0")])), 7200);
    }

    #[test]
    fn dates_in_three_forms_and_no_other() {
        let good = [
            ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777_000),
            ("Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777_000),
            ("Sun Nov  6 08:49:37 1994", 784_111_777_000),
            ("Thu Aug  8 02:01:18 2050", 2_543_536_878_000),
            ("Tue, 29 Feb 2000 00:00:00 GMT", 951_782_400_000),
            ("SUN, 06 NOV 1994 08:49:37 gMT", 784_111_777_000),
            ("Tue, 19 Jan 2038 14:14:08 GMT", 2_147_523_248_000),
            ("Sun, 21 Nov 2286 04:46:39 GMT", 10_000_039_599_000),
        ];
        for (text, expected) in good {
            assert_eq!(date_ms(text.as_bytes()), Some(expected), "{text}");
        }
        for text in [
            "0",
            "-1",
            "",
            "foo",
            "Thu, 18 Aug 2050 02:01:18 UTC",
            "Thu, 18 Aug 2050 02:01:18 AEST",
            "Thu, 18 Aug 50 02:01:18 GMT",
            "Thu 18 Aug 2050 02:01:18 GMT",
            "Thu, 18  Aug  2050 02:01:18 GMT",
            "Thu, 18-Aug-2050 02:01:18 GMT",
            "Thu, 18 Aug 2050 02.01.18 GMT",
            "Thu, 18 Aug 2050 2:01:18 GMT",
            "Thu, 31 Feb 2050 02:01:18 GMT",
            "Thu, 29 Feb 2100 02:01:18 GMT",
            "Thu, 18 Aug 2050 24:01:18 GMT",
            "Thu, 18 Aug 2050 02:01:18",
            "Thu, 00 Aug 2050 02:01:18 GMT",
            "Thu, 18 Aüg 2050 02:01:18 GMT",
            "Thu, 18 Aug 1950 02:01:18 GMT",
        ] {
            assert_eq!(date_ms(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_a_formatter(seconds in 0u64..20_000_000_000) {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let text = httpdate::fmt_http_date(at);
            prop_assert_eq!(date_ms(text.as_bytes()), Some(seconds * 1000));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut map = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                for name in ["cache-control", "cdn-cache-control", "age", "pragma", "expires"] {
                    map.append(HeaderName::from_static(name), value.clone());
                }
            }
            let read = ResponseDirectives::of(&map);
            prop_assert!(read.max_age.unwrap_or(0) <= DELTA_MAX);
            let _ = (RequestDirectives::of(&map), age_of(&map), date_ms(&bytes));
        }

        #[test]
        fn adding_a_lifetime_never_lengthens(a in 0u64..5_000_000_000, b in 0u64..5_000_000_000) {
            let one = ResponseDirectives::of(&answer(&[("cache-control", &format!("max-age={a}"))]));
            let two = ResponseDirectives::of(&answer(&[("cache-control", &format!("max-age={a}, max-age={b}"))]));
            prop_assert!(two.max_age <= one.max_age);
        }
    }
}
