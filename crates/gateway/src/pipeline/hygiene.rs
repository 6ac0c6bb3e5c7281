//! Headers that must not pass: forged identity on the way in, ours on the way out (GW-22, facts §5).

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use smallvec::SmallVec;

use super::client::{Client, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REAL_IP};
use super::refusal::Refusal;
use crate::identify::is_own_cookie;

/// Times that we may have seen a request before it is a loop.
const MOST_PASSES: usize = 3;
const SERVICE_WORKER_ALLOWED: HeaderName = HeaderName::from_static("service-worker-allowed");
const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const PSEUDONYM: &str = "portico";

/// Headers that a client could use to be routed or believed as something else. To CGI-like services an
/// underscore is a dash: what looks like one of these to them is taken away as well, and one that looks like
/// the framing would make them wait for a body that does not come.
fn is_forgery(name: &str, proxied: bool) -> bool {
    let dashed = match name.contains('_') {
        true => Cow::Owned(name.replace('_', "-")),
        false => Cow::Borrowed(name),
    };
    let Some(rest) = dashed.strip_prefix("x-") else {
        return match &*dashed {
            "forwarded" => !proxied,
            "content-length" | "transfer-encoding" => matches!(dashed, Cow::Owned(_)),
            _ => false,
        };
    };
    match rest {
        "original-url"
        | "rewrite-url"
        | "http-method"
        | "http-method-override"
        | "method-override" => true,
        // A proxy that is trusted writes dashes.
        "real-ip" => !proxied || matches!(dashed, Cow::Owned(_)),
        _ if rest.starts_with("forwarded-") => !proxied || matches!(dashed, Cow::Owned(_)),
        _ => rest.starts_with("portico-"),
    }
}

/// Removes what a client must not say.
pub(super) fn clean_request(headers: &mut HeaderMap, proxied: bool) {
    let mut gone: SmallVec<[HeaderName; 8]> = SmallVec::new();
    for name in headers.keys() {
        let text = name.as_str();
        let first = text.as_bytes().first();
        if matches!(first, Some(b'x' | b'f' | b'c' | b't')) && is_forgery(text, proxied) {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Refuses a request that went through us too often, and leaves our mark (RFC 9110 §7.6.3).
///
/// # Errors
/// 508 for a loop.
pub(super) fn mark_via(headers: &mut HeaderMap, http2: bool) -> Result<(), Refusal> {
    let own = HeaderValue::from_static(if http2 { "2 portico" } else { "1.1 portico" });
    if headers.contains_key(header::VIA) {
        let lines = headers
            .get_all(header::VIA)
            .iter()
            .filter_map(|v| v.to_str().ok());
        let passes = lines
            .flat_map(|l| l.split(','))
            .filter(|hop| hop.split_whitespace().nth(1) == Some(PSEUDONYM))
            .count();
        if passes > MOST_PASSES {
            return Err(Refusal::new(
                StatusCode::LOOP_DETECTED,
                "gateway.loop",
                "the request went through this gateway before",
            ));
        }
        headers.append(header::VIA, own);
    } else {
        headers.insert(header::VIA, own);
    }
    Ok(())
}

/// Tells the service about the client. Behind a trusted proxy its list goes on, else ours begins.
pub(super) fn forward_client(
    headers: &mut HeaderMap,
    client: &Client,
    (peer, address): (HeaderValue, HeaderValue),
    host: Option<&HeaderValue>,
) {
    if client.proxied {
        let before = headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|v| v.to_str().ok())
            .collect::<Vec<_>>()
            .join(", ");
        let list = if before.is_empty() {
            peer
        } else {
            HeaderValue::try_from(format!("{before}, {}", client.peer)).unwrap_or(peer)
        };
        headers.insert(X_FORWARDED_FOR, list);
    } else {
        headers.insert(X_FORWARDED_FOR, peer);
    }
    headers.insert(X_REAL_IP, address);
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme()));
    if !(client.proxied && headers.contains_key(X_FORWARDED_HOST))
        && let Some(host) = host
    {
        headers.insert(X_FORWARDED_HOST, host.clone());
    }
}

/// Takes credentials that are ours out of a request.
pub(super) fn take_credentials(headers: &mut HeaderMap, forward: bool) {
    if !forward {
        headers.remove(header::AUTHORIZATION);
        headers.remove(API_KEY);
    }
    if headers
        .get_all(header::COOKIE)
        .iter()
        .any(|v| memchr::memmem::find(v.as_bytes(), b"portico_").is_some())
    {
        let lines = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|v| v.to_str().ok());
        let kept: Vec<&str> = lines
            .flat_map(|line| line.split(';'))
            .map(str::trim)
            .filter(|pair| !is_own_cookie(pair.split('=').next().unwrap_or("").trim()))
            .collect();
        match HeaderValue::try_from(kept.join("; ")) {
            Ok(value) if !value.is_empty() => headers.insert(header::COOKIE, value),
            _ => headers.remove(header::COOKIE),
        };
    }
}

/// Removes from a service's answer what only we may say.
pub(super) fn clean_response(headers: &mut HeaderMap, shares_host: bool) {
    let mut gone: SmallVec<[HeaderName; 4]> = SmallVec::new();
    for name in headers.keys() {
        if name.as_str().starts_with("x-portico-") {
            gone.push(name.clone());
        }
    }
    for name in gone {
        headers.remove(name);
    }
    headers.remove(header::SERVER);
    if shares_host {
        headers.remove(SERVICE_WORKER_ALLOWED);
        headers.remove(CLEAR_SITE_DATA);
    }
    if headers.contains_key(header::SET_COOKIE) {
        let is_own = |v: &HeaderValue| {
            let name = v
                .as_bytes()
                .split(|b| *b == b'=')
                .next()
                .unwrap_or_default()
                .trim_ascii();
            std::str::from_utf8(name).is_ok_and(is_own_cookie)
        };
        if headers.get_all(header::SET_COOKIE).iter().any(is_own) {
            let kept: Vec<HeaderValue> = headers
                .get_all(header::SET_COOKIE)
                .iter()
                .filter(|v| !is_own(v))
                .cloned()
                .collect();
            headers.remove(header::SET_COOKIE);
            for value in kept {
                headers.append(header::SET_COOKIE, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::address_value;
    use super::*;

    fn map(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    #[test]
    fn forged_headers_never_pass() {
        let forged = [
            ("x-portico-user", "root"),
            ("x-portico-anything", "1"),
            ("x_portico_user", "root"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1"),
            ("x-real-ip", "1.1.1.1"),
            ("x-original-url", "/admin"),
            ("x-rewrite-url", "/admin"),
            ("x-http-method-override", "DELETE"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_host", "evil"),
            ("x_real-ip", "1.1.1.1"),
            ("content_length", "5"),
            ("transfer_encoding", "chunked"),
            ("accept", "*/*"),
            ("x-request-id", "a"),
        ];
        let mut strange = map(&forged);
        clean_request(&mut strange, false);
        let mut left: Vec<&str> = strange.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "x-request-id"]);
        let mut proxied = map(&forged);
        clean_request(&mut proxied, true);
        assert!(proxied.contains_key("x-forwarded-for") && proxied.contains_key("forwarded"));
        assert!(!proxied.contains_key("x-portico-user") && !proxied.contains_key("x_portico_user"));
        assert!(!proxied.keys().any(|name| name.as_str().contains('_')));
        let framing = map(&[
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
        ]);
        let mut kept = framing.clone();
        clean_request(&mut kept, false);
        assert_eq!(kept, framing);
    }

    #[test]
    fn loops_are_seen() {
        let mut once = map(&[("via", "1.1 other, 1.1 portico")]);
        assert!(mark_via(&mut once, false).is_ok());
        assert_eq!(once.get_all("via").iter().count(), 2);
        let mut often = map(&[
            ("via", "1.1 portico, 2 portico"),
            ("via", "1.1 portico, 1.1 portico"),
        ]);
        assert_eq!(
            mark_via(&mut often, true).unwrap_err().status,
            StatusCode::LOOP_DETECTED
        );
    }

    #[test]
    fn own_cookies_stay_here() {
        let mut headers = map(&[
            ("cookie", "a=1; portico_at=s; b=2"),
            ("cookie", "__Host-portico_at=r; __Secure-portico_rt=r"),
            ("authorization", "Bearer x"),
        ]);
        take_credentials(&mut headers, true);
        assert_eq!(
            (&headers["cookie"], headers.contains_key("authorization")),
            (&HeaderValue::from_static("a=1; b=2"), true)
        );
        take_credentials(&mut headers, false);
        assert!(!headers.contains_key("authorization"));
        let mut answer = map(&[
            ("set-cookie", "portico_at=evil; Path=/"),
            ("set-cookie", "a=1"),
            ("x-portico-user", "x"),
            ("server", "y"),
            ("clear-site-data", "*"),
        ]);
        clean_response(&mut answer, true);
        assert_eq!(answer.len(), 1);
        assert_eq!(answer["set-cookie"], "a=1");
    }

    #[test]
    fn the_client_is_told_and_a_strangers_word_replaced() {
        let client = Client {
            address: [1, 2, 3, 4].into(),
            peer: [10, 0, 0, 1].into(),
            proxied: true,
            direct_loopback: false,
            https: true,
        };
        let mut headers = map(&[
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-host", "shop.example"),
        ]);
        forward_client(
            &mut headers,
            &client,
            (address_value(client.peer), address_value(client.address)),
            Some(&HeaderValue::from_static("inner")),
        );
        assert_eq!(headers["x-forwarded-for"], "1.2.3.4, 10.0.0.1");
        assert_eq!(
            (&headers["x-forwarded-proto"], &headers["x-forwarded-host"]),
            (
                &HeaderValue::from_static("https"),
                &HeaderValue::from_static("shop.example")
            )
        );
        assert_eq!(headers["x-real-ip"], "1.2.3.4");
    }
}
