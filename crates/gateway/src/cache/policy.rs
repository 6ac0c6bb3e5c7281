//! Decides whether an answer may be stored and for how long it may be used: RFC 9111 §3 and §4.2, RFC 5861.
//!
//! Pure functions of the request's facts, the answer's fields, the rule and the time.

use http::StatusCode;
use http::header::{CONTENT_TYPE, DATE, ETAG, EXPIRES, HeaderMap, LAST_MODIFIED, SET_COOKIE, VARY};

use super::directives::{ResponseDirectives, age_of, date_ms};
use super::rule::{Mode, RulePolicy, Scope};

/// A route's lifetime for "not found" and its like is cut to this, so that a new resource shows soon.
const NEGATIVE_MS: u64 = 10_000;
/// Heuristic lifetimes never exceed a day (RFC 9111 §4.2.2).
const HEURISTIC_MAX_MS: u64 = 86_400_000;

/// Why an answer is not stored, or a request not answered from the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    Off,
    Method,
    /// A GET with content: the content is not in the key.
    Body,
    Upgrade,
    Precondition,
    RangeMiss,
    HeadMiss,
    RequestNoStore,
    Credentials,
    Cookie,
    NoStore,
    Private,
    SetCookie,
    VaryStar,
    VaryUnkeyed,
    Partial,
    NotModified,
    Interim,
    ServerError,
    Unknown,
    NoLifetime,
    ContentType,
    TooLarge,
    BadLength,
    KeyTooLong,
    Trailers,
    Tags,
}

impl Refusal {
    /// Name for metrics, logs and `Cache-Status` details.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Method => "method",
            Self::Body => "body",
            Self::Upgrade => "upgrade",
            Self::Precondition => "precondition",
            Self::RangeMiss => "range_miss",
            Self::HeadMiss => "head_miss",
            Self::RequestNoStore => "request_no_store",
            Self::Credentials => "credentials",
            Self::Cookie => "cookie",
            Self::NoStore => "no_store",
            Self::Private => "private",
            Self::SetCookie => "set_cookie",
            Self::VaryStar => "vary_star",
            Self::VaryUnkeyed => "vary_unkeyed",
            Self::Partial => "partial",
            Self::NotModified => "not_modified",
            Self::Interim => "interim",
            Self::ServerError => "server_error",
            Self::Unknown => "unknown_status",
            Self::NoLifetime => "no_lifetime",
            Self::ContentType => "content_type",
            Self::TooLarge => "too_large",
            Self::BadLength => "bad_length",
            Self::KeyTooLong => "key_too_long",
            Self::Trailers => "trailers",
            Self::Tags => "tags",
        }
    }

    /// Whether the next requests of this key will most likely end the same, so that queueing them for one
    /// leader would only slow them down ("hit for miss").
    pub fn repeats(self) -> bool {
        !matches!(
            self,
            Self::RequestNoStore
                | Self::NotModified
                | Self::Interim
                | Self::ServerError
                | Self::BadLength
                | Self::Method
        )
    }
}

/// What a caller showed that could make its answer personal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    /// A principal was identified, or a credential that only the service understands came along.
    pub identified: bool,
    pub cookie: bool,
    /// The credential is one that the key does not contain even when a route is cached per user.
    pub foreign: bool,
}

impl Credentials {
    /// Requests of different classes never wait for each other's answer.
    pub(super) fn class(self) -> u8 {
        if self.identified {
            2
        } else {
            u8::from(self.cookie)
        }
    }

    /// Whether a copy with these terms may go to this caller.
    pub(super) fn may_use(self, scope: Scope, terms: &Terms) -> Result<(), Refusal> {
        let keyed = match scope {
            Scope::Shared => true,
            Scope::User => !self.foreign,
            Scope::Auto => false,
        };
        if keyed {
            return Ok(());
        }
        if self.identified && !terms.shareable {
            return Err(Refusal::Credentials);
        }
        if self.cookie && !terms.declared {
            return Err(Refusal::Cookie);
        }
        Ok(())
    }
}

/// The terms on which an answer was stored. Times are milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When the answer's age was zero, as Unix milliseconds.
    pub born_ms: u64,
    pub fresh_ms: u64,
    pub stale_while_revalidate_ms: u64,
    pub stale_if_error_ms: u64,
    /// Every use needs the origin's consent (`no-cache`).
    pub always_validate: bool,
    pub shareable: bool,
    /// The lifetime is the origin's own word, not the route's.
    pub declared: bool,
}

/// When a request left and its answer's head arrived, both Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exchange {
    pub asked_ms: u64,
    pub answered_ms: u64,
}

/// Whether and on which terms an answer to a GET may be stored (RFC 9111 §3).
pub(super) fn judge(
    caller: Credentials,
    exchange: Exchange,
    status: StatusCode,
    headers: &HeaderMap,
    rule: &RulePolicy,
) -> Result<(Terms, ResponseDirectives), Refusal> {
    let directives = ResponseDirectives::of(headers);
    let understood = understands(status);
    if directives.must_understand && !understood {
        return Err(Refusal::Unknown);
    }
    // RFC 9111 §5.2.2.3: `must-understand` beside `no-store` lifts the latter for those who understand the status.
    if directives.no_store && !directives.must_understand {
        return Err(Refusal::NoStore);
    }
    if directives.private {
        return Err(Refusal::Private);
    }
    acceptable(status, headers, rule)?;
    let (terms, sourced) = terms(exchange, status, headers, &directives, rule);
    caller.may_use(rule.scope, &terms)?;
    let validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
    let granted =
        directives.stale_while_revalidate.is_some() || directives.stale_if_error.is_some();
    let age = exchange.answered_ms.saturating_sub(terms.born_ms);
    let useful = terms.fresh_ms > age && !terms.always_validate;
    if sourced && (useful || validator || granted) {
        return Ok((terms, directives));
    }
    Err(if status.is_server_error() {
        Refusal::ServerError
    } else {
        Refusal::NoLifetime
    })
}

/// Age at `now`, RFC 9111 §4.2.3.
pub(super) fn age_ms(terms: &Terms, now_ms: u64) -> u64 {
    now_ms.saturating_sub(terms.born_ms)
}

fn acceptable(status: StatusCode, headers: &HeaderMap, rule: &RulePolicy) -> Result<(), Refusal> {
    match status.as_u16() {
        100..=199 => return Err(Refusal::Interim),
        206 | 416 => return Err(Refusal::Partial),
        304 => return Err(Refusal::NotModified),
        _ => {}
    }
    if headers.contains_key(SET_COOKIE) && !rule.store_set_cookie {
        return Err(Refusal::SetCookie);
    }
    if headers.get_all(VARY).iter().any(|v| {
        v.as_bytes()
            .split(|b| *b == b',')
            .any(|m| m.trim_ascii() == b"*")
    }) {
        return Err(Refusal::VaryStar);
    }
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    if !rule.takes_content_type(content_type) {
        return Err(Refusal::ContentType);
    }
    Ok(())
}

/// The terms, and whether anything gives the answer a lifetime, be it zero.
fn terms(
    exchange: Exchange,
    status: StatusCode,
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    rule: &RulePolicy,
) -> (Terms, bool) {
    let date = headers.get(DATE).and_then(|v| date_ms(v.as_bytes()));
    let declared_ms = declared_lifetime(headers, directives, date.unwrap_or(exchange.answered_ms));
    let declared = declared_ms.is_some() || directives.no_cache;
    let mut fresh_ms = declared_ms
        .or_else(|| route_lifetime(status, rule))
        .or_else(|| {
            let allowed = rule.heuristic && (guessable(status) || directives.public);
            if allowed {
                heuristic_lifetime(headers, date.unwrap_or(exchange.answered_ms))
            } else {
                None
            }
        });
    if let (Some(fresh), Some(max)) = (fresh_ms, rule.max_ttl_s) {
        fresh_ms = Some(fresh.min(max.saturating_mul(1000)));
    }
    // RFC 9111 §4.2.3: the age that the answer already has when it arrives.
    let apparent = exchange
        .answered_ms
        .saturating_sub(date.unwrap_or(exchange.answered_ms));
    let delay = exchange.answered_ms.saturating_sub(exchange.asked_ms);
    let corrected = age_of(headers).saturating_mul(1000).saturating_add(delay);
    let mut found = Terms {
        born_ms: exchange.answered_ms.saturating_sub(apparent.max(corrected)),
        fresh_ms: fresh_ms.unwrap_or(0),
        always_validate: directives.no_cache,
        shareable: directives.shareable(),
        declared,
        ..Terms::default()
    };
    if !directives.forbids_stale() {
        let or = |own: Option<u64>, rule: u64| own.unwrap_or(rule).saturating_mul(1000);
        found.stale_while_revalidate_ms = or(
            directives.stale_while_revalidate,
            rule.stale_while_revalidate_s,
        );
        found.stale_if_error_ms = or(directives.stale_if_error, rule.stale_if_error_s);
    }
    (found, declared || fresh_ms.is_some())
}

/// `CDN-Cache-Control` > `s-maxage` > `max-age` > `Expires − Date`.
fn declared_lifetime(
    headers: &HeaderMap,
    directives: &ResponseDirectives,
    date_or_arrival: u64,
) -> Option<u64> {
    if let Some(seconds) = directives.s_maxage.or(directives.max_age) {
        return Some(seconds.saturating_mul(1000));
    }
    if directives.targeted {
        return None;
    }
    let mut shortest: Option<u64> = None;
    for value in headers.get_all(EXPIRES) {
        let lifetime = date_ms(value.as_bytes()).map_or(0, |at| at.saturating_sub(date_or_arrival));
        shortest = Some(shortest.map_or(lifetime, |had| had.min(lifetime)));
    }
    shortest
}

fn route_lifetime(status: StatusCode, rule: &RulePolicy) -> Option<u64> {
    if rule.mode != Mode::On {
        return None;
    }
    let full = rule.ttl_s?.saturating_mul(1000);
    match status.as_u16() {
        200 | 203 | 204 | 300 | 301 | 308 => Some(full),
        404 | 405 | 410 | 414 | 501 => Some(full.min(NEGATIVE_MS)),
        _ => None,
    }
}

fn heuristic_lifetime(headers: &HeaderMap, date: u64) -> Option<u64> {
    let modified = date_ms(headers.get(LAST_MODIFIED)?.as_bytes())?;
    Some((date.saturating_sub(modified) / 10).min(HEURISTIC_MAX_MS))
}

/// Heuristically cacheable, RFC 9110 §15.1.
fn guessable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// Status codes whose caching rules we know (RFC 9110 §15).
fn understands(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 429 | 431 | 451 | 500..=505 | 511
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000_000;
    const AT: Exchange = Exchange {
        asked_ms: NOW,
        answered_ms: NOW,
    };

    fn fields(lines: &[(&str, String)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).expect("name"),
                HeaderValue::from_str(value).expect("value"),
            );
        }
        map
    }

    fn date(offset_s: i64) -> String {
        let ms = NOW.checked_add_signed(offset_s * 1000).expect("in range");
        httpdate::fmt_http_date(std::time::UNIX_EPOCH + std::time::Duration::from_millis(ms))
    }

    fn stored(lines: &[(&str, String)]) -> Result<Terms, Refusal> {
        judged(200, lines, &RulePolicy::default(), Credentials::default())
    }

    fn judged(
        status: u16,
        lines: &[(&str, String)],
        rule: &RulePolicy,
        caller: Credentials,
    ) -> Result<Terms, Refusal> {
        let status = StatusCode::from_u16(status).expect("status");
        judge(caller, AT, status, &fields(lines), rule).map(|(terms, _)| terms)
    }

    /// How long the answer stays fresh after it has arrived, or why it is not stored.
    fn left(lines: &[(&str, String)]) -> Result<u64, Refusal> {
        stored(lines).map(|t| t.fresh_ms.saturating_sub(age_ms(&t, NOW)) / 1000)
    }

    fn cc(text: &str) -> (&'static str, String) {
        ("cache-control", text.to_owned())
    }

    #[test]
    fn precedence_of_lifetimes() {
        assert_eq!(
            left(&[
                cc("max-age=3600"),
                ("expires", date(-7200)),
                ("date", date(0))
            ]),
            Ok(3600)
        );
        assert_eq!(
            left(&[cc("max-age=3600"), ("expires", "0".to_owned())]),
            Ok(3600)
        );
        assert_eq!(left(&[cc("max-age=1, s-maxage=3600")]), Ok(3600));
        assert_eq!(left(&[cc("max-age=3600, s-maxage=1")]), Ok(1));
        assert_eq!(left(&[("expires", date(50)), ("date", date(0))]), Ok(50));
        assert_eq!(
            left(&[("expires", date(10)), ("date", "foo".to_owned())]),
            Ok(10)
        );
        assert_eq!(
            left(&[("expires", date(300)), ("date", date(400))]),
            Err(Refusal::NoLifetime)
        );
        assert_eq!(
            left(&[("expires", "0".to_owned())]),
            Err(Refusal::NoLifetime)
        );
        assert_eq!(
            left(&[("expires", date(90)), ("expires", date(40))]),
            Ok(40)
        );
        assert_eq!(
            left(&[
                cc("no-store"),
                ("cdn-cache-control", "max-age=60".to_owned())
            ]),
            Ok(60)
        );
        assert_eq!(
            left(&[
                cc("max-age=60"),
                ("cdn-cache-control", "no-store".to_owned())
            ]),
            Err(Refusal::NoStore)
        );
        assert_eq!(
            left(&[
                cc("max-age=60"),
                ("cdn-cache-control", "private".to_owned())
            ]),
            Err(Refusal::Private)
        );
        assert_eq!(
            left(&[
                ("expires", date(60)),
                ("cdn-cache-control", "foo".to_owned())
            ]),
            Err(Refusal::NoLifetime),
            "a valid targeted field hides Expires"
        );
    }

    #[test]
    fn age_on_arrival_counts() {
        assert_eq!(
            left(&[cc("max-age=3600"), ("age", "1800".to_owned())]),
            Ok(1800)
        );
        assert_eq!(
            left(&[cc("max-age=3600"), ("age", "7200".to_owned())]),
            Err(Refusal::NoLifetime)
        );
        assert_eq!(
            left(&[cc("max-age=3600"), ("date", date(-600))]),
            Ok(3000),
            "apparent age"
        );
        assert_eq!(
            left(&[cc("max-age=3600"), ("date", date(600))]),
            Ok(3600),
            "a fast clock is no credit"
        );
        let slow = judge(
            Credentials::default(),
            Exchange {
                asked_ms: NOW - 5000,
                answered_ms: NOW,
            },
            StatusCode::OK,
            &fields(&[cc("max-age=60"), ("age", "10".to_owned())]),
            &RulePolicy::default(),
        );
        assert_eq!(
            slow.map(|(t, _)| age_ms(&t, NOW)),
            Ok(15_000),
            "response delay"
        );
        assert_eq!(
            left(&[
                ("date", date(-10)),
                ("expires", date(10)),
                ("age", "25".to_owned())
            ]),
            Err(Refusal::NoLifetime)
        );
        assert_eq!(
            left(&[
                ("date", date(10)),
                ("expires", date(20)),
                ("age", "15".to_owned())
            ]),
            Err(Refusal::NoLifetime)
        );
    }

    #[test]
    fn nothing_without_a_declared_lifetime_or_a_route_lifetime() {
        assert_eq!(stored(&[]), Err(Refusal::NoLifetime));
        assert_eq!(
            stored(&[("etag", "\"x\"".to_owned())]),
            Err(Refusal::NoLifetime)
        );
        assert_eq!(stored(&[cc("public")]), Err(Refusal::NoLifetime));
        let route = RulePolicy {
            mode: Mode::On,
            ttl_s: Some(60),
            ..RulePolicy::default()
        };
        let fresh =
            |status| judged(status, &[], &route, Credentials::default()).map(|t| t.fresh_ms);
        assert_eq!(fresh(200), Ok(60_000));
        assert_eq!(fresh(404), Ok(10_000));
        assert_eq!(fresh(302), Err(Refusal::NoLifetime));
        assert_eq!(fresh(503), Err(Refusal::ServerError));
        let lazy = RulePolicy {
            ttl_s: Some(60),
            ..RulePolicy::default()
        };
        assert!(
            judged(200, &[], &lazy, Credentials::default()).is_err(),
            "only when the route is on"
        );
    }

    #[test]
    fn no_cache_is_kept_for_validation() {
        let tagged = stored(&[cc("no-cache"), ("etag", "\"x\"".to_owned())]).expect("stored");
        assert!(tagged.always_validate);
        assert_eq!(
            (tagged.stale_if_error_ms, tagged.stale_while_revalidate_ms),
            (0, 0)
        );
        assert_eq!(
            stored(&[cc("no-cache, max-age=10")]),
            Err(Refusal::NoLifetime),
            "useless without validator"
        );
    }

    #[test]
    fn stale_windows() {
        let windows = |text: &str| {
            stored(&[cc(text), ("etag", "\"x\"".to_owned())]).map(|t| {
                (
                    t.stale_while_revalidate_ms / 1000,
                    t.stale_if_error_ms / 1000,
                )
            })
        };
        assert_eq!(windows("max-age=1"), Ok((0, 86_400)));
        assert_eq!(
            windows("max-age=1, stale-while-revalidate=4, stale-if-error=60"),
            Ok((4, 60))
        );
        assert_eq!(windows("max-age=1, stale-if-error=0"), Ok((0, 0)));
        for strict in [
            "must-revalidate",
            "proxy-revalidate",
            "s-maxage=1",
            "no-cache",
        ] {
            assert_eq!(
                windows(&format!("max-age=1, {strict}")),
                Ok((0, 0)),
                "{strict}"
            );
        }
        assert_eq!(
            windows("must-revalidate, max-age=1, stale-while-revalidate=9"),
            Ok((0, 0))
        );
    }

    #[test]
    fn what_is_never_stored() {
        let age = cc("max-age=60");
        for (status, line, reason) in [
            (200, cc("no-store"), Refusal::NoStore),
            (200, cc("private"), Refusal::Private),
            (200, ("set-cookie", "a=b".to_owned()), Refusal::SetCookie),
            (200, ("vary", "*".to_owned()), Refusal::VaryStar),
            (200, ("vary", "Foo, *".to_owned()), Refusal::VaryStar),
            (200, ("vary", ", *".to_owned()), Refusal::VaryStar),
            (206, ("x", "y".to_owned()), Refusal::Partial),
            (304, ("x", "y".to_owned()), Refusal::NotModified),
            (103, ("x", "y".to_owned()), Refusal::Interim),
            (599, cc("must-understand"), Refusal::Unknown),
        ] {
            let got = judged(
                status,
                &[age.clone(), line.clone()],
                &RulePolicy::default(),
                Credentials::default(),
            );
            assert_eq!(got, Err(reason), "{status} {line:?}");
        }
        let cookies = RulePolicy {
            store_set_cookie: true,
            ..RulePolicy::default()
        };
        let line = [age, ("set-cookie", "a=b".to_owned())];
        assert!(judged(200, &line, &cookies, Credentials::default()).is_ok());
        let both = judged(
            200,
            &[cc("no-store, must-understand, max-age=5")],
            &cookies,
            Credentials::default(),
        );
        assert!(
            both.is_ok(),
            "must-understand lifts no-store for known status codes"
        );
    }

    #[test]
    fn any_final_status_with_a_declared_lifetime() {
        for status in [
            200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504,
            599,
        ] {
            let got = judged(
                status,
                &[cc("max-age=60")],
                &RulePolicy::default(),
                Credentials::default(),
            );
            assert!(got.is_ok(), "{status}");
        }
    }

    #[test]
    fn heuristics_are_off_unless_asked_for() {
        let lines = [("last-modified", date(-1000)), ("date", date(0))];
        assert!(judged(200, &lines, &RulePolicy::default(), Credentials::default()).is_err());
        let rule = RulePolicy {
            heuristic: true,
            ..RulePolicy::default()
        };
        let of = |status, lines: &[(&str, String)]| {
            judged(status, lines, &rule, Credentials::default()).map(|t| t.fresh_ms / 1000)
        };
        assert_eq!(of(200, &lines), Ok(100));
        let old = [("last-modified", date(-100 * 86_400)), ("date", date(0))];
        assert_eq!(of(200, &old), Ok(86_400));
        for status in [201, 202, 403, 502, 503, 504, 599] {
            let got = judged(status, &lines, &rule, Credentials::default());
            assert!(got.map_or(true, |t| t.fresh_ms == 0), "{status}");
        }
        let public = [lines[0].clone(), lines[1].clone(), cc("public")];
        assert_eq!(of(599, &public), Ok(100));
    }

    #[test]
    fn credentials_need_the_origins_word() {
        let known = Credentials {
            identified: true,
            ..Credentials::default()
        };
        let foreign = Credentials {
            foreign: true,
            ..known
        };
        let auto = RulePolicy::default();
        let user = RulePolicy {
            scope: Scope::User,
            ..RulePolicy::default()
        };
        let shared = RulePolicy {
            scope: Scope::Shared,
            ..RulePolicy::default()
        };
        let plain = [cc("max-age=60")];
        assert_eq!(judged(200, &plain, &auto, known), Err(Refusal::Credentials));
        assert!(judged(200, &plain, &user, known).is_ok());
        assert_eq!(
            judged(200, &plain, &user, foreign),
            Err(Refusal::Credentials)
        );
        assert!(judged(200, &plain, &shared, foreign).is_ok());
        for word in [
            "public, max-age=60",
            "s-maxage=60",
            "max-age=60, must-revalidate",
        ] {
            assert!(judged(200, &[cc(word)], &auto, known).is_ok(), "{word}");
        }
        assert_eq!(
            judged(200, &[cc("private, max-age=60")], &user, known),
            Err(Refusal::Private)
        );
    }

    #[test]
    fn a_cookie_needs_a_declared_lifetime() {
        let cookie = Credentials {
            cookie: true,
            ..Credentials::default()
        };
        let route = RulePolicy {
            mode: Mode::On,
            ttl_s: Some(60),
            ..RulePolicy::default()
        };
        assert_eq!(judged(200, &[], &route, cookie), Err(Refusal::Cookie));
        assert!(judged(200, &[cc("max-age=5")], &route, cookie).is_ok());
        let shared = RulePolicy {
            scope: Scope::Shared,
            ..route
        };
        assert!(judged(200, &[], &shared, cookie).is_ok());
    }

    #[test]
    fn content_type_decides_not_the_path() {
        let rule = RulePolicy {
            content_types: vec!["text/css".to_owned()],
            ..RulePolicy::default()
        };
        let page = [cc("max-age=60"), ("content-type", "text/html".to_owned())];
        assert_eq!(
            judged(200, &page, &rule, Credentials::default()),
            Err(Refusal::ContentType)
        );
    }

    #[test]
    fn a_rule_bounds_the_origins_lifetime() {
        let rule = RulePolicy {
            max_ttl_s: Some(30),
            ..RulePolicy::default()
        };
        let got = judged(
            200,
            &[cc("max-age=9999999999")],
            &rule,
            Credentials::default(),
        );
        assert_eq!(got.map(|t| t.fresh_ms), Ok(30_000));
    }

    proptest! {
        /// Time only ever makes an answer staler, whatever its fields say.
        #[test]
        fn freshness_is_monotone(max_age in 0u64..4_000_000_000, age in 0u64..4_000_000_000, step in 0u64..10_000_000_000) {
            let lines = [cc(&format!("max-age={max_age}")), ("age", age.to_string()), ("etag", "\"x\"".to_owned())];
            let terms = stored(&lines).expect("has a validator");
            let left = |now| terms.fresh_ms.saturating_sub(age_ms(&terms, now));
            prop_assert!(left(NOW + step) <= left(NOW));
            prop_assert!(left(NOW) <= terms.fresh_ms);
        }
    }
}
