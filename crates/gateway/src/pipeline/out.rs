//! The headers of an answer on its way to the client: ours added, a service's forbidden ones removed.

use http::{HeaderName, HeaderValue, Response, header};

use super::client::X_REQUEST_ID;
use super::door::Door;
use super::record::Log;
use super::secure::{self, Strictness};
use super::way::fill;
use super::{hygiene, secure::page};
use crate::body::RespBody;
use crate::limit;
use crate::route::host::HostKind;
use crate::route::plan;

const PROBLEM: &[u8] = b"application/problem+json";
const VIA: HeaderName = header::VIA;

impl Door {
    /// The last step before the answer leaves.
    pub(super) fn finish_headers(
        &self,
        response: &mut Response<RespBody>,
        log: &mut Log,
        origin: Option<&HeaderValue>,
    ) {
        let own = !log.code.is_empty();
        let builtin = !log.foreign;
        let plan = log.plan.as_ref();
        let path = log.path();
        let transform = plan.and_then(|p| plan::first(&p.transforms, &log.method, path));
        if !own && !builtin {
            // A stranger's page there must not be the console's origin.
            let shares_host = matches!(log.kind, Some(HostKind::Whole | HostKind::Admin));
            hygiene::clean_response(response.headers_mut(), shares_host);
            let how = Strictness {
                force: transform.is_some_and(|t| t.force_security_headers),
                same_origin_frames: transform.is_some_and(|t| t.frame_same_origin),
                sandbox: shares_host,
            };
            secure::apply(response.headers_mut(), how);
        } else {
            let kind = response
                .headers()
                .get(header::CONTENT_TYPE)
                .map_or(&b""[..], HeaderValue::as_bytes);
            if kind == PROBLEM || kind.starts_with(b"text/html") {
                page(response.headers_mut(), Strictness::default());
            }
        }
        if let (Some(transform), Some(identity), false) = (transform, &log.identity, own) {
            *response.status_mut() = transform.status(response.status());
            transform.response(
                response.headers_mut(),
                &fill(identity, &log.request_id, &[]),
            );
        }
        if let Some(cors) = plan.and_then(|p| plan::first(&p.cors, &log.method, path)) {
            cors.apply(origin, response.headers_mut());
        }
        let headers = response.headers_mut();
        if let Some(tightest) = log.tightest.as_ref().filter(|_| !own) {
            limit::headers::write(headers, tightest);
        }
        if !own && !builtin {
            headers.append(VIA, HeaderValue::from_static("1.1 portico"));
        }
        headers.insert(X_REQUEST_ID, log.request_id.clone());
    }
}
