//! Our session cookies: their names, which of them is a credential, and where (ID-62).

use http::{HeaderMap, header};

use super::Origin;

/// The access token of browsers; and without TLS on this machine, where browsers refuse the prefix.
const ACCESS: &str = "__Host-portico_at";
const ACCESS_LOCAL: &str = "portico_at";
/// The refresh token, sent to its own route alone.
const REFRESH: [&str; 2] = ["__Secure-portico_rt", "portico_rt"];

/// Every cookie of ours, prefixes left off; no service ever sees or sets them.
const OWN_COOKIES: [&str; 4] = ["portico_at", "portico_rt", "portico_dv", "portico_ap"];

/// True for a cookie that belongs to us, with or without a prefix.
pub(crate) fn is_own_cookie(name: &str) -> bool {
    let bare = name
        .strip_prefix("__Host-")
        .or_else(|| name.strip_prefix("__Secure-"))
        .unwrap_or(name);
    OWN_COOKIES.contains(&bare)
}

/// The access token that a browser sends. The name without a prefix is only taken where it is given out:
/// elsewhere a neighbour on the same site could have set it.
pub(super) fn access_token(headers: &HeaderMap, from: Origin) -> Option<&str> {
    if !headers.contains_key(header::COOKIE) {
        return None;
    }
    let local = || {
        (from.direct_loopback && !from.https)
            .then(|| value(headers, ACCESS_LOCAL))
            .flatten()
    };
    value(headers, ACCESS).or_else(local)
}

/// True when the browser sent its refresh token.
pub(crate) fn has_refresh_cookie(headers: &HeaderMap) -> bool {
    REFRESH.iter().any(|name| value(headers, name).is_some())
}

/// The value of a cookie; an empty one is none.
fn value<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, value)| *name == wanted && !value.is_empty())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn the_plain_name_is_taken_on_this_machine_without_tls_alone() {
        let headers = |line: &'static str| {
            HeaderMap::from_iter([(header::COOKIE, HeaderValue::from_static(line))])
        };
        let from = |direct_loopback, https| Origin {
            address: None,
            direct_loopback,
            https,
        };
        let plain = headers("a=1; portico_at=tok; b=2");
        assert_eq!(access_token(&plain, from(true, false)), Some("tok"));
        assert_eq!(access_token(&plain, from(true, true)), None);
        assert_eq!(access_token(&plain, from(false, false)), None);
        let strict = headers("portico_at=x; __Host-portico_at=tok");
        assert_eq!(access_token(&strict, from(false, true)), Some("tok"));
        assert_eq!(
            access_token(&headers("__Host-portico_at="), from(false, true)),
            None
        );
        assert!(has_refresh_cookie(&headers("__Secure-portico_rt=r")));
        assert!(!has_refresh_cookie(&headers("x__Secure-portico_rt=r")));
    }

    #[test]
    fn our_names_are_ours_with_every_prefix() {
        for name in [
            "portico_at",
            "__Host-portico_at",
            "__Secure-portico_rt",
            "portico_dv",
            "__Host-portico_ap",
        ] {
            assert!(is_own_cookie(name), "{name}");
        }
        assert!(!is_own_cookie("portico_theme") && !is_own_cookie("__Host-at"));
    }
}
