//! Errors as gRPC statuses and back, without loss: kind, dotted code, field faults, members, waiting time.
//!
//! The details are those of `google.rpc` (AIP-193): `ErrorInfo` with the dotted code as its reason,
//! `BadRequest` with one violation a fault, `RetryInfo`, `RequestInfo`.

use std::collections::HashMap;
use std::time::Duration;

use portico_base::{ErrorKind, Fault, FieldFault};
use serde_json::{Map, Value};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// Whose codes `ErrorInfo.reason` holds.
const DOMAIN: &str = "portico";
/// Metadata of `ErrorInfo`: the HTTP status, where it refines the kind's own.
const STATUS: &str = "http_status";
/// Metadata of `ErrorInfo`: the further members of the problem, as JSON.
const MEMBERS: &str = "members";

/// The gRPC code of a kind.
#[must_use]
pub const fn to_code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::Invalid => Code::InvalidArgument,
        ErrorKind::Unauthenticated => Code::Unauthenticated,
        ErrorKind::Forbidden => Code::PermissionDenied,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::Conflict => Code::FailedPrecondition,
        ErrorKind::TooMany => Code::ResourceExhausted,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The kind of a gRPC code; of one that is not an error there is none.
#[must_use]
pub const fn kind_of(code: Code) -> Option<ErrorKind> {
    Some(match code {
        Code::Ok => return None,
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::Forbidden,
        Code::NotFound | Code::Unimplemented => ErrorKind::NotFound,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::TooMany,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => ErrorKind::Unavailable,
        Code::Internal | Code::Unknown | Code::DataLoss => ErrorKind::Internal,
    })
}

/// The status of a service's error. What is wrong inside of us is not told, but where to look for it.
#[must_use]
pub fn to_status(fault: &dyn Fault, request_id: &str) -> Status {
    let kind = fault.kind();
    let mut info = HashMap::new();
    if fault.status() != kind.status() {
        info.insert(STATUS.to_owned(), fault.status().to_string());
    }
    let members = fault.members();
    if !members.is_empty() {
        info.insert(MEMBERS.to_owned(), Value::Object(members).to_string());
    }
    let mut details = ErrorDetails::with_error_info(fault.code(), DOMAIN, info);
    details.set_request_info(request_id, "");
    if !fault.fields().is_empty() {
        let violations: Vec<FieldViolation> = fault.fields().iter().map(violation).collect();
        details.set_bad_request(violations);
    }
    if let Some(seconds) = fault.retry_after_s() {
        details.set_retry_info(Some(Duration::from_secs(seconds.into())));
    }
    let text = match kind {
        ErrorKind::Internal => format!("internal error, request {request_id}"),
        _ => fault.to_string(),
    };
    Status::with_error_details(to_code(kind), text, details)
}

/// An error that another process answered; it is a [`Fault`] again.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteFault {
    /// What it means for us.
    pub kind: ErrorKind,
    /// The dotted code; empty when the other side has none.
    pub code: String,
    /// The HTTP status.
    pub http_status: u16,
    /// The text.
    pub message: String,
    /// All faults of the input.
    pub fields: Vec<FieldFault>,
    /// Further members.
    pub members: Map<String, Value>,
    /// Seconds after which trying again makes sense.
    pub retry_after_s: Option<u32>,
    /// Under which request the other side did it.
    pub request_id: String,
}

/// The error of a status; of `OK` there is none.
#[must_use]
pub fn from_status(status: &Status) -> Option<RemoteFault> {
    let kind = kind_of(status.code())?;
    let details = status.get_error_details();
    let info = details.error_info().filter(|info| info.domain == DOMAIN);
    let kept = |key: &str| info.and_then(|info| info.metadata.get(key));
    let fields = details.bad_request().map(|bad| {
        bad.field_violations
            .iter()
            .map(|v| FieldFault::new(&*v.field, &v.reason, &*v.description))
            .collect()
    });
    let wait = details.retry_info().and_then(|info| info.retry_delay);
    Some(RemoteFault {
        kind,
        code: info.map(|info| info.reason.clone()).unwrap_or_default(),
        http_status: kept(STATUS)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| kind.status()),
        message: status.message().to_owned(),
        fields: fields.unwrap_or_default(),
        members: kept(MEMBERS)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default(),
        retry_after_s: wait.map(|wait| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX)),
        request_id: details
            .request_info()
            .map(|info| info.request_id.clone())
            .unwrap_or_default(),
    })
}

fn violation(fault: &FieldFault) -> FieldViolation {
    FieldViolation {
        reason: fault.code.clone(),
        ..FieldViolation::new(&*fault.field, &*fault.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the text of it")]
    struct Sample {
        kind: ErrorKind,
        status: u16,
        fields: Vec<FieldFault>,
        members: Map<String, Value>,
        wait: Option<u32>,
    }

    impl Fault for Sample {
        fn kind(&self) -> ErrorKind {
            self.kind
        }
        fn code(&self) -> &'static str {
            "identity.some_reason"
        }
        fn status(&self) -> u16 {
            self.status
        }
        fn fields(&self) -> &[FieldFault] {
            &self.fields
        }
        fn members(&self) -> Map<String, Value> {
            self.members.clone()
        }
        fn retry_after_s(&self) -> Option<u32> {
            self.wait
        }
    }

    const KINDS: [ErrorKind; 8] = [
        ErrorKind::Invalid,
        ErrorKind::Unauthenticated,
        ErrorKind::Forbidden,
        ErrorKind::NotFound,
        ErrorKind::Conflict,
        ErrorKind::TooMany,
        ErrorKind::Unavailable,
        ErrorKind::Internal,
    ];

    #[test]
    fn every_kind_goes_both_ways_with_everything_that_it_carries() {
        let faults = vec![
            FieldFault::new("endpoints[2].path", "too_long", "at most 9 bytes: ä"),
            FieldFault::new("name", "missing", "is needed"),
        ];
        let members: Map<String, Value> =
            serde_json::from_str(r#"{"methods":["totp"],"n":1}"#).unwrap();
        for kind in KINDS {
            for (status, fields, members, wait) in [
                (kind.status(), vec![], Map::new(), None),
                (410, faults.clone(), members.clone(), Some(17)),
            ] {
                let sample = Sample {
                    kind,
                    status,
                    fields: fields.clone(),
                    members: members.clone(),
                    wait,
                };
                let sent = to_status(&sample, "req-7");
                // As it travels: in the trailers, the details as bytes.
                let mut trailers = http::HeaderMap::new();
                sent.add_header(&mut trailers).unwrap();
                let back = Status::from_header_map(&trailers).unwrap();
                assert_eq!(back.code(), to_code(kind));
                let fault = from_status(&back).unwrap();
                assert_eq!(fault.kind, kind);
                assert_eq!(fault.code, "identity.some_reason");
                assert_eq!(fault.http_status, status);
                assert_eq!(fault.fields, fields);
                assert_eq!(fault.members, members);
                assert_eq!(fault.retry_after_s, wait);
                assert_eq!(fault.request_id, "req-7");
                let told = fault.message == "the text of it";
                assert_eq!(told, kind != ErrorKind::Internal);
            }
        }
    }

    #[test]
    fn every_code_of_strangers_has_a_kind_and_kinds_keep_theirs() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            assert_eq!(kind_of(code).is_none(), code == Code::Ok);
        }
        for kind in KINDS {
            assert_eq!(kind_of(to_code(kind)), Some(kind));
        }
        let plain = from_status(&Status::already_exists("taken")).unwrap();
        assert_eq!((plain.kind, &*plain.code), (ErrorKind::Conflict, ""));
        assert!(from_status(&Status::ok("")).is_none());
    }
}
