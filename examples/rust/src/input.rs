//! Reads what callers send; a refusal names every fault.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use portico_sdk::{Fault, Problem};
use serde_json::Value;

use crate::store::NewNote;

/// Longest body in bytes.
pub(crate) const MAX_BODY: usize = 64 * 1024;
const MAX_TITLE: usize = 200;
const MAX_TEXT: usize = 10_000;

/// Which notes to list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) limit: usize,
    pub(crate) cursor: Option<String>,
}

/// Reads a query; `is_mine` knows the ids that may be cursors.
pub(crate) fn page(query: &str, is_mine: impl Fn(&str) -> bool) -> Result<Page, Problem> {
    let mut page = Page {
        limit: 50,
        cursor: None,
    };
    let mut errors = Vec::new();
    // Ids and numbers need no percent encoding, so whatever has one is none of ours.
    for (name, value) in query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match (name, value) {
            ("limit", text) => match text.parse() {
                Ok(limit @ 1..=200) => page.limit = limit,
                _ => errors.push(fault("limit", "range", "must be 1 to 200".to_owned())),
            },
            ("cursor", id) if is_mine(id) => page.cursor = Some(id.to_owned()),
            ("cursor", _) => errors.push(fault(
                "cursor",
                "unknown",
                "is none of your notes".to_owned(),
            )),
            (other, _) => errors.push(fault(other, "unknown", "is not a parameter".to_owned())),
        }
    }
    if errors.is_empty() {
        Ok(page)
    } else {
        Err(invalid("the query has faults").with_errors(errors))
    }
}

/// Reads a note.
pub(crate) async fn note(request: Request) -> Result<NewNote, Problem> {
    let body =
        Bytes::from_request(request, &())
            .await
            .map_err(|refused| match refused.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "notes.too_large",
                    format!("a body has at most {MAX_BODY} bytes"),
                ),
                _ => invalid("the body did not arrive"),
            })?;
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(&body) else {
        return Err(invalid("the body must be a JSON object"));
    };
    let mut errors = Vec::new();
    let title = text(fields.remove("title"), "title", MAX_TITLE, &mut errors);
    let text = text(fields.remove("text"), "text", MAX_TEXT, &mut errors);
    errors.extend(
        fields
            .keys()
            .map(|name| fault(name, "unknown", "is not a field".to_owned())),
    );
    if errors.is_empty() {
        Ok(NewNote { title, text })
    } else {
        Err(invalid("the note has faults").with_errors(errors))
    }
}

fn text(value: Option<Value>, field: &str, most: usize, errors: &mut Vec<Fault>) -> String {
    match value {
        Some(Value::String(text)) if text.chars().count() > most => {
            errors.push(fault(
                field,
                "too_long",
                format!("has at most {most} characters"),
            ));
            text
        }
        Some(Value::String(text)) if !text.trim().is_empty() => text,
        _ => {
            errors.push(fault(field, "required", "must be text".to_owned()));
            String::new()
        }
    }
}

fn fault(field: &str, code: &str, message: String) -> Fault {
    Fault {
        field: field.to_owned(),
        code: code.to_owned(),
        message,
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "notes.invalid", detail)
}
