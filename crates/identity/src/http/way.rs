//! How a request came: its host, whether cookies are safe on it, and the cookies themselves (ID-3, ID-62).

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, header};
use portico_base::{Caller, Secret};
use portico_web::{Came, Problem};

use crate::domain::login::{DeviceWish, Tokens, Transport};
use crate::error::{Result, reason};

/// Where a refresh cookie is sent to, and nowhere else.
const REFRESH_PATH: &str = "/api/identity/token/refresh";
/// Where the cookie that proves a device is sent to.
const DEVICE_PATH: &str = "/api/identity";
/// Browsers keep no cookie longer than 400 days (RFC 6265bis §5.5).
const DEVICE_AGE_S: u32 = 400 * 86_400;

const ACCESS: &str = "portico_at";
const REFRESH: &str = "portico_rt";
const DEVICE: &str = "portico_dv";

/// How a request came.
#[derive(Debug, Clone)]
pub(crate) struct Way {
    host: Option<String>,
    came: Came,
    /// Over loopback without a proxy: there plain HTTP is as safe as TLS.
    loopback: bool,
    /// The page that sent it is one of the same origin.
    same_origin: bool,
    /// A page of another origin sent it.
    foreign: bool,
    refresh: Option<Secret<String>>,
    device: Option<(String, Secret<String>)>,
}

impl<S: Sync> FromRequestParts<S> for Way {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> std::result::Result<Self, Problem> {
        let came = parts.extensions.get::<Came>().copied().unwrap_or_default();
        let caller = parts.extensions.get::<Caller>();
        let loopback = caller.is_some_and(|c| c.direct_loopback);
        Ok(Self::of(parts, came, loopback))
    }
}

impl Way {
    fn of(parts: &Parts, came: Came, loopback: bool) -> Self {
        let headers = &parts.headers;
        let authority = headers
            .get(header::HOST)
            .and_then(|v| v.to_str().ok())
            .or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))
            .map(str::to_ascii_lowercase);
        let scheme = if came.https { "https" } else { "http" };
        let own = authority.as_ref().map(|a| format!("{scheme}://{a}"));
        let origin = headers.get(header::ORIGIN).and_then(|v| v.to_str().ok());
        let same_origin = origin.is_some() && origin.map(str::to_ascii_lowercase) == own;
        let device = cookie(headers, came.https, "__Secure-", DEVICE)
            .and_then(|text| text.rsplit_once('.'))
            .map(|(id, secret)| (id.to_owned(), Secret::from(secret)));
        Self {
            host: authority.as_deref().map(without_port).map(str::to_owned),
            came,
            loopback,
            same_origin,
            foreign: headers.contains_key(header::ORIGIN) && !same_origin,
            refresh: cookie(headers, came.https, "__Secure-", REFRESH).map(Secret::from),
            device,
        }
    }

    /// The host that the client asked, in lower case and without its port.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The transport that a client wishes, where it is possible here.
    pub(crate) fn transport(&self, wish: Transport) -> Result<Transport> {
        if wish == Transport::Cookie {
            if !self.came.https && !self.loopback {
                return Err(reason::HTTPS_REQUIRED.into());
            }
            // A login begun by a foreign page would put a stranger's session into the browser.
            if self.foreign {
                return Err(reason::CSRF.into());
            }
        }
        Ok(wish)
    }

    /// The wish with what the browser's device cookie proves, unless the client says something itself.
    pub(crate) fn device(&self, mut wish: DeviceWish) -> DeviceWish {
        if let (None, None, Some((id, secret))) =
            (&wish.device_id, &wish.device_secret, &self.device)
        {
            wish.device_id = Some(id.clone());
            wish.device_secret = Some(secret.clone());
        }
        wish
    }

    /// The secret of the device's cookie.
    pub(super) fn device_secret(&self) -> Option<&Secret<String>> {
        self.device.as_ref().map(|(_, secret)| secret)
    }

    /// The client's own name for its device, as its cookie has it.
    pub(crate) fn device_id(&self) -> Option<&str> {
        self.device.as_ref().map(|(id, _)| id.as_str())
    }

    /// The refresh token of the cookie. The door has not looked at it, so the page is looked at here.
    pub(super) fn refresh_cookie(&self) -> Result<Option<&Secret<String>>> {
        match &self.refresh {
            Some(_) if !(self.came.csrf && self.same_origin) => Err(reason::CSRF.into()),
            found => Ok(found.as_ref()),
        }
    }

    /// Puts tokens into cookies.
    pub(super) fn set_cookies(&self, headers: &mut HeaderMap, tokens: &Tokens) {
        let access = (tokens.access_token.expose().as_str(), tokens.expires_in);
        self.set(headers, ("__Host-", ACCESS, "/"), access);
        let refresh = (
            tokens.refresh_token.expose().as_str(),
            tokens.refresh_expires_in,
        );
        self.set(headers, ("__Secure-", REFRESH, REFRESH_PATH), refresh);
        if let Some(secret) = &tokens.device_secret {
            let text = format!("{}.{}", tokens.device_id, secret.expose());
            self.set(
                headers,
                ("__Secure-", DEVICE, DEVICE_PATH),
                (&text, DEVICE_AGE_S),
            );
        }
    }

    /// Takes the session's cookies back; the device stays known.
    pub(super) fn clear_cookies(&self, headers: &mut HeaderMap) {
        self.set(headers, ("__Host-", ACCESS, "/"), ("", 0));
        self.set(headers, ("__Secure-", REFRESH, REFRESH_PATH), ("", 0));
    }

    fn set(
        &self,
        headers: &mut HeaderMap,
        (prefix, name, path): (&str, &str, &str),
        (value, age): (&str, u32),
    ) {
        let (prefix, secure) = if self.came.https {
            (prefix, "; Secure")
        } else {
            ("", "")
        };
        let text = format!(
            "{prefix}{name}={value}; Path={path}; Max-Age={age}; HttpOnly{secure}; SameSite=Strict"
        );
        if let Ok(mut value) = HeaderValue::try_from(text) {
            value.set_sensitive(true);
            headers.append(header::SET_COOKIE, value);
        }
    }
}

/// A cookie by its name; over TLS only with the prefix that a plain page cannot set.
pub(super) fn cookie<'a>(
    headers: &'a HeaderMap,
    https: bool,
    prefix: &str,
    name: &str,
) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| {
            let key = if https {
                key.strip_prefix(prefix)
            } else {
                Some(*key)
            };
            key == Some(name)
        })
        .map(|(_, value)| value)
        .filter(|value| !value.is_empty())
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use uuid::Uuid;

    use super::*;

    fn way(https: bool, loopback: bool, headers: &[(&str, &str)]) -> Way {
        let mut request = Request::builder().uri("/x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Way::of(&parts, Came { https, csrf: true }, loopback)
    }

    fn tokens() -> Tokens {
        Tokens {
            access_token: Secret::from("a.b.c"),
            token_type: "Bearer",
            expires_in: 1_800,
            refresh_token: Secret::from("ptr_x"),
            refresh_expires_in: 604_800,
            session_id: Uuid::nil(),
            device_id: "0190a2b3".to_owned(),
            device_secret: Some(Secret::from("s3cret")),
        }
    }

    fn cookies(way: &Way) -> Vec<String> {
        let mut headers = HeaderMap::new();
        way.set_cookies(&mut headers, &tokens());
        let all = headers.get_all(header::SET_COOKIE).iter();
        all.map(|v| v.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn cookies_are_closed_to_scripts_and_other_sites() {
        assert_eq!(
            cookies(&way(true, false, &[])),
            [
                "__Host-portico_at=a.b.c; Path=/; Max-Age=1800; HttpOnly; Secure; SameSite=Strict",
                "__Secure-portico_rt=ptr_x; Path=/api/identity/token/refresh; Max-Age=604800; HttpOnly; Secure; SameSite=Strict",
                "__Secure-portico_dv=0190a2b3.s3cret; Path=/api/identity; Max-Age=34560000; HttpOnly; Secure; SameSite=Strict",
            ]
        );
        let plain = cookies(&way(false, true, &[]));
        assert!(
            plain[0].starts_with("portico_at=a.b.c; Path=/;"),
            "{plain:?}"
        );
        assert!(
            plain
                .iter()
                .all(|c| !c.contains("Secure") && c.contains("HttpOnly"))
        );
    }

    #[test]
    fn cookies_need_https_or_this_machine() {
        let of = |https, loopback| way(https, loopback, &[]).transport(Transport::Cookie);
        assert!(of(true, false).is_ok() && of(false, true).is_ok());
        assert!(of(false, false).unwrap_err().is(reason::HTTPS_REQUIRED));
        let body = way(false, false, &[]).transport(Transport::Body);
        assert_eq!(body.unwrap(), Transport::Body);
        let foreign = [("host", "auth.example"), ("origin", "https://evil.example")];
        let refused = way(true, false, &foreign).transport(Transport::Cookie);
        assert!(refused.unwrap_err().is(reason::CSRF));
    }

    #[test]
    fn a_refresh_cookie_counts_from_an_own_page_only() {
        let of = |origin: &str, cookie: &str| {
            let way = way(
                true,
                false,
                &[
                    ("host", "Auth.Example:8443"),
                    ("origin", origin),
                    ("cookie", cookie),
                ],
            );
            way.refresh_cookie().map(|found| found.cloned())
        };
        let good = "a=1; __Secure-portico_rt=ptr_x";
        let own = "https://auth.example:8443";
        assert_eq!(of(own, good).unwrap(), Some(Secret::from("ptr_x")));
        // A page on plain HTTP can set this name, so it means nothing here.
        assert_eq!(of(own, "portico_rt=ptr_x").unwrap(), None);
        assert!(of("https://auth.example", good).is_err());
        assert!(of("null", good).is_err());
        let mut without = way(true, false, &[("cookie", good), ("host", "h")]);
        assert!(without.refresh_cookie().is_err());
        without.came.csrf = false;
        without.same_origin = true;
        assert!(without.refresh_cookie().is_err());
    }

    #[test]
    fn a_browser_proves_its_device_by_cookie() {
        let way = way(
            true,
            false,
            &[("cookie", "__Secure-portico_dv=my.phone.s3cret")],
        );
        let wish = |json: &str| serde_json::from_str::<DeviceWish>(json).unwrap();
        let filled = way.device(wish(r#"{"platform": "web"}"#));
        assert_eq!(filled.device_id.as_deref(), Some("my.phone"));
        assert_eq!(filled.device_secret, Some(Secret::from("s3cret")));
        let own = way.device(wish(r#"{"platform": "web", "device_id": "another-one"}"#));
        assert_eq!(own.device_id.as_deref(), Some("another-one"));
        assert_eq!(own.device_secret, None);
        assert_eq!((way.host(), way.device_id()), (None, Some("my.phone")));
    }

    #[test]
    fn hosts_come_without_ports() {
        for (authority, host) in [
            ("Auth.Example", "auth.example"),
            ("h:80", "h"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(way(true, false, &[("host", authority)]).host(), Some(host));
        }
    }
}
