//! Optimistic concurrency: `ETag` out, `If-Match` in (RFC 9110 §13.1.1), over the version number of an object.

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderValue, header};
use portico_base::FieldFault;

use crate::problem::Problem;

/// The versions that the caller accepts to overwrite; nothing when the header is absent or `*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<i64>);

impl IfMatch {
    /// Compares with the present version.
    ///
    /// # Errors
    /// 412 when the object was changed in between.
    pub fn check(self, present: i64) -> Result<(), Problem> {
        match self.0 {
            Some(wanted) if wanted != present => Err(Problem::new(412, "system.version_mismatch")
                .with_detail(format!("the present version is {present}"))),
            _ => Ok(()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        if value == "*" {
            return Ok(Self(None));
        }
        value
            .to_str()
            .ok()
            .map(|text| text.trim_matches('"'))
            .and_then(|text| text.parse().ok())
            .map(|version| Self(Some(version)))
            .ok_or_else(|| {
                Problem::invalid(
                    "system.invalid",
                    vec![FieldFault::new(
                        "if-match",
                        "invalid",
                        "must be an ETag of this object",
                    )],
                )
            })
    }
}

/// The entity tag of a version.
#[must_use]
pub fn etag(version: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes are a header value")
}
