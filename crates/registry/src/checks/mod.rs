//! Active health checks (RG-20…RG-22): a jittered schedule, bounded in number and rate, and the probes.

mod grpc;
mod http;
mod net;
mod schedule;

use std::sync::Arc;
use std::time::Duration;

use crate::domain::check::{CheckSpec, Probe, Status};
use crate::domain::instance::Definition;
use crate::hub::Core;

pub(crate) use net::Net;
pub(crate) use schedule::run;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub status: Status,
    pub output: String,
}

impl Finding {
    fn critical(output: impl Into<String>) -> Self {
        Self {
            status: Status::Critical,
            output: output.into(),
        }
    }

    fn passing(output: impl Into<String>) -> Self {
        Self {
            status: Status::Passing,
            output: output.into(),
        }
    }
}

/// Looks once; never takes longer than the check's time-out.
pub(crate) async fn look(core: &Core, of: Option<&Definition>, spec: &CheckSpec) -> Finding {
    let limit = spec.timeout().max(Duration::from_millis(10));
    match tokio::time::timeout(limit, probe(core, of, spec)).await {
        Ok(finding) => finding,
        Err(_) => Finding::critical(format!("no answer within {} ms", limit.as_millis())),
    }
}

async fn probe(core: &Core, of: Option<&Definition>, spec: &CheckSpec) -> Finding {
    let net = &core.net;
    match &spec.probe {
        Probe::Http { target, .. } => match net::url_target(target, of, spec.foreign) {
            Ok((target, path)) => http::look(net, &target, &path, &spec.probe).await,
            Err(finding) => finding,
        },
        Probe::Tcp { target } => match net::plain_target(target.as_deref(), of, spec.foreign) {
            Ok(target) => match target.connect(net).await {
                Ok(_) => Finding::passing(format!("TCP connect {target}: Success")),
                Err(error) => Finding::critical(error),
            },
            Err(finding) => finding,
        },
        Probe::Grpc {
            target,
            service,
            tls,
        } => match net::plain_target(target.as_deref(), of, spec.foreign) {
            Ok(target) => grpc::look(net, &target.with_tls(*tls), service).await,
            Err(finding) => finding,
        },
        Probe::Ttl { .. } | Probe::Alias { .. } | Probe::Stated => {
            Finding::critical("this kind of check is not looked at")
        }
    }
}

/// The probe of an instance that has no check of its own: can it be connected to?
pub(crate) fn implicit(core: &Core) -> Arc<CheckSpec> {
    let defaults = core.tunables.get().defaults;
    Arc::new(CheckSpec {
        probe: Probe::Tcp { target: None },
        // A suspect is looked at more often than the others: it is out of service meanwhile.
        interval_ms: defaults.check_interval_ms.min(2_000),
        timeout_ms: defaults.check_timeout_ms,
        fall: defaults.fall,
        rise: defaults.rise,
        deregister_after_ms: 0,
        foreign: false,
    })
}

/// Fetching from an instance under the same rules as checks.
pub(crate) mod fetch {
    pub(crate) use super::http::send;
    pub(crate) use super::net::Target;
    use crate::domain::instance::Definition;

    /// Target and path of a URL that must be on the instance's own host.
    ///
    /// # Errors
    /// A sentence.
    pub(crate) fn target(url: &str, of: &Definition) -> Result<(Target, String), String> {
        super::net::url_target(url, Some(of), false).map_err(|finding| finding.output)
    }
}
