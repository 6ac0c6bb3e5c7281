//! Security headers of our own answers and of pages (GW-23).

use http::{HeaderMap, HeaderName, HeaderValue, header};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const SANDBOX: HeaderValue =
    HeaderValue::from_static("sandbox allow-scripts allow-forms allow-popups allow-downloads");

/// How strict an answer must be.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strictness {
    /// Ours replace the service's own.
    pub(super) force: bool,
    /// Pages of the same origin may frame it.
    pub(super) same_origin_frames: bool,
    /// A stranger's page on a host that also serves the console.
    pub(super) sandbox: bool,
}

/// Adds what a page must have; other answers are left alone but for event streams.
pub(super) fn apply(headers: &mut HeaderMap, how: Strictness) {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    if kind.starts_with(b"text/event-stream") {
        headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
        return;
    }
    let html = kind.starts_with(b"text/html") || kind.starts_with(b"application/xhtml");
    let active = html || kind.starts_with(b"image/svg") || is_xml(kind);
    if active && how.sandbox {
        // Together with whatever policy the service has: the browser takes the intersection.
        headers.append(header::CONTENT_SECURITY_POLICY, SANDBOX);
    }
    if html {
        page(headers, how);
    }
}

fn is_xml(kind: &[u8]) -> bool {
    let essence = kind
        .split(|b| *b == b';')
        .next()
        .unwrap_or_default()
        .trim_ascii();
    matches!(essence, b"text/xml" | b"application/xml") || essence.ends_with(b"+xml")
}

/// The headers of pages and of our own answers.
pub(super) fn page(headers: &mut HeaderMap, how: Strictness) {
    let frames = if how.same_origin_frames {
        "SAMEORIGIN"
    } else {
        "DENY"
    };
    let list = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, frames),
        (header::REFERRER_POLICY, "strict-origin-when-cross-origin"),
        (
            PERMISSIONS_POLICY,
            "camera=(), geolocation=(), microphone=()",
        ),
    ];
    for (name, value) in list {
        if how.force || !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &'static str, how: Strictness) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(
            header::X_FRAME_OPTIONS,
            HeaderValue::from_static("ALLOWALL"),
        );
        apply(&mut headers, how);
        headers
    }

    #[test]
    fn pages_are_protected_and_a_services_word_wins_unless_forced() {
        let page = of("text/html; charset=utf-8", Strictness::default());
        assert_eq!(
            (&page["x-content-type-options"], &page["x-frame-options"]),
            (
                &HeaderValue::from_static("nosniff"),
                &HeaderValue::from_static("ALLOWALL")
            )
        );
        let forced = of(
            "text/html",
            Strictness {
                force: true,
                same_origin_frames: true,
                sandbox: false,
            },
        );
        assert_eq!(forced["x-frame-options"], "SAMEORIGIN");
        assert_eq!(of("application/json", Strictness::default()).len(), 2);
    }

    #[test]
    fn strangers_pages_on_the_consoles_host_are_sandboxed() {
        let how = Strictness {
            sandbox: true,
            ..Strictness::default()
        };
        for kind in [
            "text/html",
            "image/svg+xml",
            "application/xml",
            "text/xml; charset=x",
            "application/atom+xml",
        ] {
            assert!(
                of(kind, how)["content-security-policy"]
                    .to_str()
                    .unwrap()
                    .starts_with("sandbox"),
                "{kind}"
            );
        }
        assert!(!of("application/json", how).contains_key("content-security-policy"));
        assert_eq!(of("text/event-stream", how)["x-accel-buffering"], "no");
    }
}
