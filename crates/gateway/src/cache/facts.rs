//! What a request's fields mean to the cache, read in one pass: most requests have none of them, and asking the
//! map for each would cost more than the whole look-up.

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, IF_MATCH,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, PRAGMA, RANGE, TRANSFER_ENCODING,
    UPGRADE,
};

use super::policy::{Credentials, Refusal};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Which fields a request has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// `Cache-Control` or `Pragma`.
    pub directives: bool,
    /// Something that takes the request around the cache, whatever is stored.
    pub around: Option<Refusal>,
    /// The caller has a copy and asks whether it is still good.
    pub conditional: bool,
    pub range: bool,
    pub cookie: bool,
    /// `Authorization` or an API key.
    pub authorization: bool,
}

impl Facts {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for (name, value) in headers {
            match *name {
                CACHE_CONTROL | PRAGMA => found.directives = true,
                IF_MATCH | IF_UNMODIFIED_SINCE => found.around = Some(Refusal::Precondition),
                TRANSFER_ENCODING => found.around = Some(Refusal::Body),
                CONTENT_LENGTH if value.as_bytes() != b"0" => found.around = Some(Refusal::Body),
                UPGRADE => found.around = Some(Refusal::Upgrade),
                IF_NONE_MATCH | IF_MODIFIED_SINCE => found.conditional = true,
                RANGE => found.range = true,
                COOKIE => found.cookie = true,
                AUTHORIZATION => found.authorization = true,
                _ => found.authorization |= *name == API_KEY,
            }
        }
        found
    }

    /// What the caller showed of himself; `identified` is whether the gateway knows who it is.
    pub(super) fn credentials(self, identified: bool) -> Credentials {
        Credentials {
            identified: identified || self.authorization,
            cookie: self.cookie,
            foreign: self.authorization && !identified,
        }
    }

    /// The answer goes out as it is stored.
    pub(super) fn plain(self) -> bool {
        !self.conditional && !self.range
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn each_field_has_its_meaning() {
        let of = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
            Facts::of(&headers)
        };
        assert_eq!(of("accept"), Facts::default());
        assert!(of("cache-control").directives && of("pragma").directives);
        assert_eq!(of("if-match").around, Some(Refusal::Precondition));
        assert_eq!(
            of("if-unmodified-since").around,
            Some(Refusal::Precondition)
        );
        assert_eq!(of("transfer-encoding").around, Some(Refusal::Body));
        assert_eq!(of("content-length").around, Some(Refusal::Body));
        assert_eq!(of("upgrade").around, Some(Refusal::Upgrade));
        assert!(of("if-none-match").conditional && of("if-modified-since").conditional);
        assert!(of("range").range && of("cookie").cookie && !of("range").plain());
        assert!(of("authorization").authorization && of("x-api-key").authorization);
    }

    #[test]
    fn a_credential_is_foreign_only_when_the_gateway_does_not_know_it() {
        let shown = Facts {
            authorization: true,
            ..Facts::default()
        };
        assert!(shown.credentials(false).foreign && !shown.credentials(true).foreign);
        assert_eq!(shown.credentials(true).class(), 2);
        assert_eq!(Facts::default().credentials(true).class(), 2);
        assert_eq!(Facts::default().credentials(false).class(), 0);
    }
}
