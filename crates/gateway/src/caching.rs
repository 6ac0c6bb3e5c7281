//! The cache as a part of the house: its bounds out of the settings, its sweep, what a new replica loads, and the
//! addresses that are warm before anybody asks (GW-70, GW-73).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Uri};
use portico_base::{Clock, Principal, PrincipalKind, id};
use portico_contract::settings::Settings;
use portico_host::{BuildCx, Worker};
use portico_jobs::{JobError, JobSet, Periodic};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::cache::{Cache, StateTier, WarmList, WarmReport, WarmTarget, warm_up};
use crate::pipeline::Gate;
use crate::pipeline::errand::{Errand, Errands, OwnListener};
use crate::pipeline::settings::{CACHE_WARMUP, cache_config};

const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// What is in the list stays warm without clients: what ends in between is fetched again.
const WARM_EVERY: Duration = Duration::from_secs(300);
/// A new replica begins cold rather than late.
const LOAD_WITHIN: Duration = Duration::from_secs(2);
/// Services that are not there yet are looked for so often, so many times.
const AGAIN: Duration = Duration::from_secs(2);
const TRIES: usize = 150;
/// Purges come in bursts.
const SETTLE: Duration = Duration::from_millis(500);

/// The cache with the settings' bounds, which it follows from now on, and a shared tier where there is one. What is
/// used most on the other replicas is in memory when this returns.
pub(crate) async fn build(cx: &BuildCx<'_>, workers: &mut Vec<Worker>) -> Cache {
    let config = cache_config(cx.settings);
    let cache = match StateTier::of(cx.state) {
        Some(tier) => {
            let (cache, writer) = Cache::with_shared(config, tier);
            workers.push(Worker::new(
                "gateway-cache-writer",
                move |stop: CancellationToken| async move {
                    stop.run_until_cancelled(writer.run()).await;
                },
            ));
            let state = cx.state.clone();
            let load = async {
                state.connected().await;
                load(&cache, &**cx.clock).await;
            };
            if tokio::time::timeout(LOAD_WITHIN, load).await.is_err() {
                tracing::info!("the cache starts cold: the shared tier does not answer in time");
            }
            cache
        }
        None => Cache::new(config),
    };
    cache.report_to(&cx.telemetry.metrics);
    let (tuned, values) = (cache.clone(), cx.settings.clone());
    cx.settings.subscribe(Arc::new(move |changed| {
        if changed.iter().any(|key| key.starts_with("gateway.cache.")) {
            tuned.tune(&cache_config(&values));
        }
    }));
    cache
}

/// Orders first: what was purged must not come back as hot.
async fn load(cache: &Cache, clock: &dyn Clock) {
    if let Err(error) = cache.follow_purges().await {
        tracing::info!(err = %error, "the shared list of purges could not be read");
        return;
    }
    match cache.load_hot(unix_ms(clock)).await {
        Ok(count) if count > 0 => {
            tracing::info!(count, "the cache starts with the hottest answers")
        }
        Ok(_) => {}
        Err(error) => tracing::info!(err = %error, "the hottest answers could not be loaded"),
    }
}

/// The jobs: the sweep always, the warm-up where there are workers to run it.
pub(crate) fn jobs(cache: &Cache, clock: &Arc<dyn Clock>, warmth: Option<&Arc<Warmth>>) -> JobSet {
    let (cache, clock) = (cache.clone(), Arc::clone(clock));
    let sweep = Periodic::new("gateway.cache_sweep", SWEEP_EVERY, move |_| {
        sweep(cache.clone(), Arc::clone(&clock))
    });
    let jobs = JobSet::new().with(sweep.jitter(Duration::from_secs(5)));
    let Some(warmth) = warmth else { return jobs };
    let warmth = Arc::clone(warmth);
    let warm = Periodic::new("gateway.cache_warm", WARM_EVERY, move |_| {
        let warmth = Arc::clone(&warmth);
        async move {
            let list = warmth.list();
            warmth.run(&list).await;
            Ok(())
        }
    });
    jobs.with(warm.jitter(Duration::from_secs(30)))
}

/// Removes what nobody can use any more, keeps the tiers within their bounds, and tells what is hot here.
async fn sweep(cache: Cache, clock: Arc<dyn Clock>) -> Result<(), JobError> {
    // Orders that no message brought.
    let followed = cache.follow_purges().await;
    cache.sweep(unix_ms(&*clock));
    cache.publish_hot().await?;
    cache.sweep_shared().await?;
    followed?;
    Ok(())
}

/// Keeps the addresses of `gateway.cache.warmup` in the cache, by requests of our own.
pub(crate) struct Warmth {
    settings: Settings,
    gate: Arc<Gate>,
    errands: Errands,
    /// Our first name, as far as the configuration knows one.
    host: Option<String>,
    /// One run at a time.
    running: tokio::sync::Mutex<()>,
}

impl Warmth {
    pub(crate) fn new(cx: &BuildCx<'_>, gate: &Arc<Gate>, errands: Errands) -> Arc<Self> {
        let server = &cx.config.server;
        let host = server.domain.iter().chain(&server.hosts).next();
        Arc::new(Self {
            settings: cx.settings.clone(),
            gate: Arc::clone(gate),
            errands,
            host: host.map(|host| host.as_str().to_owned()),
            running: tokio::sync::Mutex::default(),
        })
    }

    /// The worker of [`Warmth::follow`].
    pub(crate) fn worker(self: Arc<Self>, purged: &Arc<Notify>) -> Worker {
        let purged = Arc::clone(purged);
        Worker::new("gateway-cache-warm", move |stop| self.follow(purged, stop))
    }

    /// Warms at the start, as services become ready, and again after purges and when the list changes.
    async fn follow(self: Arc<Self>, purged: Arc<Notify>, stop: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let told = Arc::clone(&changed);
        self.settings.subscribe(Arc::new(move |keys| {
            if keys.iter().any(|key| key == CACHE_WARMUP.declaration.key) {
                told.notify_one();
            }
        }));
        let work = async {
            loop {
                let mut list = self.list();
                for _ in 0..TRIES {
                    if list.targets().is_empty() {
                        break;
                    }
                    let report = self.run(&list).await;
                    list = list.filtered(|target| report.not_ready.contains(target));
                    tokio::select! {
                        () = tokio::time::sleep(AGAIN) => {}
                        () = changed.notified() => list = self.list(),
                    }
                }
                tokio::select! {
                    () = changed.notified() => {}
                    () = purged.notified() => tokio::time::sleep(SETTLE).await,
                }
            }
        };
        stop.run_until_cancelled(work).await;
    }

    /// The list of the settings; a bad one is told and counts as empty.
    fn list(&self) -> WarmList {
        match WarmList::new(self.settings.system(&CACHE_WARMUP)) {
            Ok(list) => list,
            Err(faults) => {
                for fault in faults {
                    tracing::warn!(
                        entry = fault.index,
                        fault = fault.message,
                        "gateway.cache.warmup is not right"
                    );
                }
                WarmList::default()
            }
        }
    }

    async fn run(&self, list: &WarmList) -> WarmReport {
        let _alone = self.running.lock().await;
        let listener = self.errands.listener();
        let of = |target: &WarmTarget| errand(target, listener, self.host.as_deref());
        let report = warm_up(
            list,
            |target| {
                let ready = listener.is_some()
                    && of(&target).is_none_or(|errand| self.gate.is_ready_for(&errand));
                std::future::ready(ready)
            },
            |target| async move {
                match of(&target) {
                    Some(errand) => self.errands.run(errand).await,
                    None => Err("not an address of ours".to_owned()),
                }
            },
        )
        .await;
        for (url, reason) in &report.failed {
            tracing::info!(url, reason, "an address could not be warmed");
        }
        if report.fetched > 0 {
            tracing::debug!(count = report.fetched, "addresses are warm");
        }
        report
    }
}

/// The request for an address of the list: nobody's, or that of a service without any right in the named tenant, so
/// that only what everybody there may see can come of it.
fn errand(
    target: &WarmTarget,
    listener: Option<OwnListener>,
    first_host: Option<&str>,
) -> Option<Errand> {
    let listener = listener?;
    let (https, host, path) = match target.url.split_once("://") {
        Some((scheme, rest)) => {
            let at = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, path) = rest.split_at(at);
            (scheme == "https", host.to_owned(), path)
        }
        None => (
            listener.https,
            first_host.map_or_else(|| own_host(listener), str::to_owned),
            &*target.url,
        ),
    };
    let path = path.split('#').next().unwrap_or("");
    let uri: Uri = if path.starts_with('/') {
        path.parse().ok()?
    } else {
        format!("/{path}").parse().ok()?
    };
    let tenant = match &target.tenant {
        Some(text) => Some(Uuid::parse_str(text).ok()?),
        None => None,
    };
    let principal = tenant
        .filter(|tenant| *tenant != id::TENANT_DEFAULT)
        .map(|tenant| {
            Arc::new(Principal::new(
                PrincipalKind::Service,
                "portico-warm-up",
                tenant,
            ))
        });
    Some(Errand {
        uri,
        host: HeaderValue::try_from(host).ok()?,
        https,
        principal,
    })
}

fn own_host(listener: OwnListener) -> String {
    match (listener.https, listener.port) {
        (true, 443) | (false, 80) => "localhost".to_owned(),
        (_, port) => format!("localhost:{port}"),
    }
}

fn unix_ms(clock: &dyn Clock) -> u64 {
    u64::try_from(clock.unix_ms()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(url: &str, tenant: Option<Uuid>, host: Option<&str>) -> Option<Errand> {
        let target = WarmTarget {
            url: url.to_owned(),
            tenant: tenant.map(|t| t.to_string()),
        };
        let listener = OwnListener {
            https: false,
            port: 8080,
        };
        errand(&target, Some(listener), host)
    }

    #[test]
    fn an_address_is_asked_for_as_clients_do() {
        for (url, host, expected) in [
            ("/api/a?b", None, (false, "localhost:8080", "/api/a?b")),
            (
                "/api/a",
                Some("example.org"),
                (false, "example.org", "/api/a"),
            ),
            ("https://h:8443/x#y", None, (true, "h:8443", "/x")),
            ("http://h?x=1", None, (false, "h", "/?x=1")),
            ("http://h", None, (false, "h", "/")),
        ] {
            let errand = made(url, None, host).expect(url);
            let host = errand.host.to_str().expect("text");
            assert_eq!(
                (errand.https, host, errand.uri.to_string().as_str()),
                expected,
                "{url}"
            );
        }
        assert!(made("/a b", None, None).is_none());
    }

    #[test]
    fn a_tenants_copy_is_fetched_by_a_service_without_rights() {
        let acme = Uuid::from_u128(7);
        let principal = made("/a", Some(acme), None).and_then(|e| e.principal);
        let principal = principal.expect("a name");
        assert_eq!(
            (principal.tenant, principal.kind),
            (acme, PrincipalKind::Service)
        );
        assert!(principal.permissions.is_empty() && principal.roles.is_empty());
        let default = made("/a", Some(id::TENANT_DEFAULT), None).expect("an errand");
        assert!(
            default.principal.is_none(),
            "strangers' copies are the default tenant's"
        );
    }
}
