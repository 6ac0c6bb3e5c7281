//! The one credential of a request: `Authorization: Bearer`, else `X-Api-Key`, else our cookie (ID-131, ID-62).

use http::{HeaderMap, HeaderName, header};
use percent_encoding::percent_decode_str;

use super::{Denied, Origin, cookie};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// How our opaque tokens begin: they are told apart from what other programs put into queries.
const PREFIXES: [&str; 5] = ["ptk_", "prt_", "pis_", "pop_", "ptr_"];
/// The part after the prefix of a credential has at least so many characters.
const LEAST: usize = 16;

/// What a request brought.
pub(super) enum Presented<'h> {
    Nothing,
    Token(&'h str),
    Cookie(&'h str),
}

/// Finds the credential. A header goes before the cookie that a browser adds by itself.
pub(super) fn presented(headers: &HeaderMap, from: Origin) -> Result<Presented<'_>, Denied> {
    if let Some(token) = bearer(headers)? {
        return Ok(Presented::Token(token));
    }
    let mut keys = headers.get_all(API_KEY).iter();
    if let Some(key) = keys.next() {
        if keys.next().is_some() {
            return Err(Denied("several"));
        }
        return key
            .to_str()
            .map(Presented::Token)
            .map_err(|_| Denied("malformed"));
    }
    Ok(cookie::access_token(headers, from).map_or(Presented::Nothing, Presented::Cookie))
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    let Some(line) = lines.next() else {
        return Ok(None);
    };
    if lines.next().is_some() {
        return Err(Denied("several"));
    }
    let line = line.to_str().map_err(|_| Denied("malformed"))?;
    let (scheme, token) = line.split_once(' ').unwrap_or((line, ""));
    // Other schemes are between the client and its service.
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    match token.trim() {
        "" => Err(Denied("malformed")),
        token => Ok(Some(token)),
    }
}

/// True when a parameter of a query is one of our tokens: queries end up in logs, histories and referrers.
pub(crate) fn has_key_in_query(query: &str) -> bool {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .any(|(_, value)| is_credential(&percent_decode_str(value).decode_utf8_lossy()))
}

/// True for what looks like one of our opaque tokens.
fn is_credential(text: &str) -> bool {
    let rest = PREFIXES.iter().find_map(|p| text.strip_prefix(p));
    rest.is_some_and(|rest| {
        rest.len() >= LEAST
            && rest
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_tokens_are_seen_in_queries() {
        for (query, seen) in [
            ("key=ptk_0123456789abcdef", true),
            ("a=1&token=ptk%5F0123456789abcdefgh", true),
            ("x=prt_0123456789abcdef", true),
            ("q=ptk_", false),
            ("q=ptk_short", false),
            ("q=what+is+ptk_0123456789abcdef", false),
            ("ptk_0123456789abcdef", false),
            ("", false),
        ] {
            assert_eq!(has_key_in_query(query), seen, "{query}");
        }
    }
}
