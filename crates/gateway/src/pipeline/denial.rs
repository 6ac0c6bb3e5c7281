//! Tells the audit of known callers whom the door refuses (CT-31).

use std::sync::Arc;

use http::StatusCode;
use portico_base::{Caller, Context};
use portico_web::Failed;

use super::door::Door;
use super::record::Log;
use super::refusal::Refusal;

/// Most bytes of a user agent that are kept.
const AGENT_MAX: usize = 200;

impl Door {
    /// A known caller may not: 403, or 401 when the session is too weak. Whoever is not known fails by a
    /// credential, of which the access log tells.
    pub(super) fn report_denied(&self, refusal: &Refusal, log: &Log) {
        let denied =
            refusal.status == StatusCode::FORBIDDEN || refusal.status == StatusCode::UNAUTHORIZED;
        let (Some(failures), Some(identity)) = (&self.gate.failures, &log.identity) else {
            return;
        };
        if !denied || !identity.principal.is_authenticated() {
            return;
        }
        let agent = log.agent.as_ref().and_then(|agent| agent.to_str().ok());
        let caller = Caller {
            principal: Arc::clone(&identity.principal),
            request_id: log.request_id.to_str().unwrap_or("").into(),
            trace_id: Some(String::from_utf8_lossy(&log.trace.context.trace_id.hex()).into()),
            address: Some(log.client.address),
            agent: agent.map(|a| a[..a.floor_char_boundary(AGENT_MAX)].into()),
            direct_loopback: log.client.direct_loopback,
        };
        failures.note(Failed {
            context: Context {
                caller,
                clock: Arc::clone(&self.gate.clock),
                random: Arc::clone(&self.gate.random),
            },
            denied,
            route: format!("{} {}", log.method, area(log.uri.path())),
            path: log.uri.path().to_owned(),
            code: refusal.code.to_owned(),
        });
    }
}

/// The first two parts of a path (`/api/notes`): few, whatever clients ask for.
fn area(path: &str) -> &str {
    let end = path
        .match_indices('/')
        .nth(2)
        .map_or(path.len(), |(at, _)| at);
    &path[..path.floor_char_boundary(end.min(100))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_is_the_beginning_of_a_path() {
        for (path, wanted) in [
            ("/api/notes/1/2", "/api/notes"),
            ("/api/notes", "/api/notes"),
            ("/", "/"),
            ("/x", "/x"),
        ] {
            assert_eq!(area(path), wanted);
        }
    }
}
