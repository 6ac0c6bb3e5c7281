//! Calls between services that no rule allows: audited once a minute for each pair (GW-100).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portico_base::{Caller, Clock, Context, Principal, PrincipalKind, Random, Timestamp};
use portico_contract::audit::{Audit, Outcome, Record};
use portico_db::Db;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::error::Error;
use crate::pipeline::{CallListener, RefusedCall};

/// Refusals that wait to be recorded; further ones are only in the access record and the metrics.
const WAITING: usize = 256;
/// A pair is recorded so often at most.
const EVERY: Duration = Duration::from_mins(1);
/// Pairs that are remembered.
const PAIRS: usize = 4_096;

/// Records refused calls.
pub(crate) struct Calls {
    db: Db,
    audit: Audit,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    recorded: HashMap<Pair, Timestamp>,
}

type Pair = (Uuid, Arc<str>, Arc<str>);

/// A queue from the data threads, which never wait.
pub(crate) fn queue() -> (CallListener, mpsc::Receiver<RefusedCall>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let listener: CallListener = Arc::new(move |call| {
        // When it is full, a pair waits there already.
        let _full = sender.try_send(call);
    });
    (listener, receiver)
}

impl Calls {
    pub(crate) fn new(
        db: Db,
        audit: Audit,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            db,
            audit,
            clock,
            random,
            recorded: HashMap::new(),
        }
    }

    /// Records what comes until told to stop.
    pub(crate) async fn run(
        mut self,
        mut calls: mpsc::Receiver<RefusedCall>,
        stop: CancellationToken,
    ) {
        while let Some(Some(call)) = stop.run_until_cancelled(calls.recv()).await {
            if !self.is_due(&call) {
                continue;
            }
            if let Err(error) = self.record(&call).await {
                tracing::warn!(err = %error, caller = %call.caller, callee = %call.callee, "a refused call could not be audited");
            }
        }
    }

    /// True once a minute for each pair.
    fn is_due(&mut self, call: &RefusedCall) -> bool {
        let now = self.clock.now();
        let since = |at: &Timestamp| (now - *at).to_std().unwrap_or_default();
        let pair = (
            call.tenant,
            Arc::clone(&call.caller),
            Arc::clone(&call.callee),
        );
        if self.recorded.get(&pair).is_some_and(|at| since(at) < EVERY) {
            return false;
        }
        if self.recorded.len() >= PAIRS {
            self.recorded.retain(|_, at| since(at) < EVERY);
        }
        if self.recorded.len() < PAIRS {
            self.recorded.insert(pair, now);
        }
        true
    }

    async fn record(&self, call: &RefusedCall) -> Result<(), Error> {
        let principal = Principal {
            service: Some(Arc::clone(&call.caller)),
            ..Principal::new(
                PrincipalKind::Service,
                format!("svc:{}", call.caller),
                call.tenant,
            )
        };
        let cx = Context {
            caller: Caller {
                address: Some(call.address),
                ..Caller::internal(principal, &call.request_id)
            },
            clock: Arc::clone(&self.clock),
            random: Arc::clone(&self.random),
        };
        let record = Record {
            outcome: Outcome::Denied,
            code: Some("gateway.caller_not_allowed"),
            reason: Some(format!("{} {}", call.method, shortened(&call.path))),
            ..Record::done(
                "gateway.call.refused",
                "service",
                call.callee.to_string(),
                call.tenant,
            )
        };
        let tx = self.db.begin().await?;
        self.audit.record(&tx, &cx, record).await?;
        tx.commit().await?;
        Ok(())
    }
}

/// A path of a stranger, cut to what a record holds.
fn shortened(path: &str) -> &str {
    &path[..path.floor_char_boundary(200)]
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use futures_util::future::BoxFuture;
    use http::Method;
    use parking_lot::Mutex;
    use portico_base::{SeededRandom, Tx, id::TENANT_DEFAULT};
    use portico_contract::audit::{AuditError, AuditSink};
    use portico_db::testing::each_backend;

    use super::*;

    /// Targets of what was committed, and who was refused.
    #[derive(Default, Clone)]
    struct Recorded(Arc<Mutex<Vec<(String, String)>>>);

    impl AuditSink for Recorded {
        fn record<'a>(
            &'a self,
            tx: &'a dyn Tx,
            cx: &'a Context,
            record: Record,
        ) -> BoxFuture<'a, Result<(), AuditError>> {
            let list = Arc::clone(&self.0);
            let who = cx.principal().subject.to_string();
            assert_eq!(record.outcome, Outcome::Denied);
            tx.after_commit(Box::new(move || list.lock().push((who, record.target))));
            Box::pin(std::future::ready(Ok(())))
        }
    }

    fn call(caller: &str, callee: &str) -> RefusedCall {
        RefusedCall {
            caller: caller.into(),
            callee: callee.into(),
            tenant: TENANT_DEFAULT,
            method: Method::GET,
            path: "/x".into(),
            address: [127, 0, 0, 1].into(),
            request_id: "r-1".into(),
        }
    }

    #[tokio::test]
    async fn a_pair_is_recorded_once_a_minute() {
        each_backend(async |t| {
            let audit = Recorded::default();
            let mut calls = Calls::new(
                t.db.clone(),
                Arc::new(audit.clone()),
                Arc::new(t.clock.clone()),
                Arc::new(SeededRandom::new(1)),
            );
            for (caller, callee, wait_s) in [
                ("shop", "music", 0),
                ("shop", "music", 59),
                ("shop", "video", 0),
                ("shop", "music", 1),
            ] {
                t.clock.advance(TimeDelta::seconds(wait_s));
                let call = call(caller, callee);
                if calls.is_due(&call) {
                    calls.record(&call).await.expect("it is written");
                }
            }
            let seen = audit.0.lock().clone();
            let targets: Vec<&str> = seen.iter().map(|(_, target)| target.as_str()).collect();
            assert_eq!(targets, ["music", "video", "music"]);
            assert_eq!(seen[0].0, "svc:shop");
        })
        .await;
    }
}
