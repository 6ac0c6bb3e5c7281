//! Holding a lease while some work runs: renews it, and stops the work before somebody else may begin.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::error::DbError;
use crate::lease::{Lease, LeaseTiming, Leases};

/// What the work gets to know of the lease that it runs under.
#[derive(Debug, Clone)]
pub struct Held {
    /// The lease, for [`crate::WriteTx::fence`].
    pub lease: Lease,
    /// Cancelled when the lease is lost or the process stops; the work should then end by itself soon.
    pub cancel: CancellationToken,
}

impl Leases {
    /// Waits for a lease, runs `work` under it, and gives the lease back when the work has ended.
    ///
    /// When the lease cannot be renewed for [`LeaseTiming::stop`], the work is cancelled, then dropped
    /// before the lease ends; and the wait for the lease begins again. Gives nothing when `stop` was
    /// cancelled first.
    ///
    /// Tokio's clock goes on while a process is paused: it learns of its loss when it continues, before
    /// the work is polled again. What slips through nevertheless is refused by fencing.
    pub async fn hold<T, F, Fut>(
        &self,
        name: &str,
        holder: &str,
        stop: &CancellationToken,
        mut work: F,
    ) -> Option<T>
    where
        F: FnMut(Held) -> Fut,
        Fut: Future<Output = T>,
    {
        let mut mine = None;
        loop {
            let (lease, since) = self.wait(name, holder, stop).await?;
            let moved = lease.fencing > 1 && mine != Some(lease.fencing - 1);
            mine = Some(lease.fencing);
            let cancel = stop.child_token();
            let held = Held {
                lease: lease.clone(),
                cancel: cancel.clone(),
            };
            let mut running = Box::pin(work(held));
            tokio::select! {
                biased;
                () = self.keep(&lease, since, moved) => {
                    tracing::warn!(lease = name, fencing = lease.fencing, "lease lost");
                    cancel.cancel();
                    let done = timeout(self.timing.grace(), &mut running).await;
                    if let Ok(out) = done {
                        return Some(out);
                    }
                }
                () = stop.cancelled() => {
                    cancel.cancel();
                    let done = timeout(self.timing.grace(), &mut running).await.ok();
                    drop(running);
                    self.give_back(&lease).await;
                    return done;
                }
                out = &mut running => {
                    self.give_back(&lease).await;
                    return Some(out);
                }
            }
        }
    }

    /// Tries to take the lease until it works; gives it with the moment before the asking.
    async fn wait(
        &self,
        name: &str,
        holder: &str,
        stop: &CancellationToken,
    ) -> Option<(Lease, Instant)> {
        loop {
            if stop.is_cancelled() {
                return None;
            }
            let since = Instant::now();
            match self.acquire(name, holder).await {
                Ok(Some(lease)) => return Some((lease, since)),
                Ok(None) => {}
                Err(error) => tracing::debug!(lease = name, %error, "lease not asked for"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = sleep(self.timing.renew) => {}
            }
        }
    }

    /// Renews the lease; returns when it is lost, or might be soon.
    async fn keep(&self, lease: &Lease, since: Instant, moved: bool) {
        if moved {
            self.tell_moved(lease).await;
        }
        let mut renewed = since;
        loop {
            sleep_until(renewed + self.timing.renew).await;
            loop {
                let sent = Instant::now();
                let end = renewed + self.timing.stop;
                if sent >= end {
                    return;
                }
                match timeout_at(end, self.renew(lease)).await {
                    Ok(Ok(Some(_))) => {
                        renewed = sent;
                        break;
                    }
                    Ok(Ok(None)) | Err(_) => return,
                    Ok(Err(error)) => {
                        log_failure(lease, &error);
                        sleep(self.timing.renew / 5).await;
                    }
                }
            }
        }
    }

    /// Publishes `system.lease_moved`. It is news, not truth: the lease holds without it.
    async fn tell_moved(&self, lease: &Lease) {
        let told = async {
            let tx = self.db.begin().await?;
            let payload = serde_json::json!({
                "name": lease.name, "holder": lease.holder, "fencing": lease.fencing,
            });
            tx.publish("system.lease_moved", &lease.name, &payload)?;
            tx.commit().await
        };
        match timeout(self.timing.stop / 3, told).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(lease = lease.name, %error, "lease move not told"),
            Err(_) => tracing::debug!(lease = lease.name, "lease move not told in time"),
        }
    }

    async fn give_back(&self, lease: &Lease) {
        if let Err(error) = self.release(lease).await {
            tracing::debug!(lease = lease.name, %error, "lease left to its end");
        }
    }
}

impl LeaseTiming {
    /// How long cancelled work may take to end: less than what is left of the lease.
    fn grace(&self) -> Duration {
        self.ttl.saturating_sub(self.stop) * 2 / 3
    }
}

fn log_failure(lease: &Lease, error: &DbError) {
    tracing::warn!(lease = lease.name, %error, "lease not renewed");
}
