//! What the process does less than it should: a gauge by reason, and news for whoever follows (`system.degraded`).

use std::sync::Arc;
use std::time::Duration;

use portico_db::{Db, DbError};
use portico_telemetry::metrics::{Family, GaugeFamily, GaugeVec, Registry};
use serde_json::json;

use crate::spawn::Spawner;

/// Why a part of the process does less than it should; 1 while it does.
static DEGRADED: GaugeFamily = GaugeFamily::new(
    "portico_degraded",
    "1 while a part of the process does less than it should, by reason.",
    &["reason"],
    16,
);

pub(crate) static FAMILIES: [&Family; 1] = [DEGRADED.family()];

/// Longest try to write the news down; the database itself may be what is missing.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows and tells what is degraded. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Degraded {
    gauge: GaugeVec,
    db: Db,
    spawner: Spawner,
    replica: Arc<str>,
}

impl Degraded {
    pub(crate) fn new(registry: &Registry, db: &Db, spawner: &Spawner, replica: &Arc<str>) -> Self {
        Self {
            gauge: registry.gauge(&DEGRADED),
            db: db.clone(),
            spawner: spawner.clone(),
            replica: Arc::clone(replica),
        }
    }

    /// A reason has come or gone; to be called on changes only.
    pub(crate) fn set(&self, reason: &'static str, on: bool) {
        self.gauge.with(&[reason]).set(f64::from(u8::from(on)));
        self.tell("system.degraded", json!({ "reason": reason, "on": on }));
    }

    /// Publishes an event of the process, without waiting and without a promise.
    pub(crate) fn tell(&self, topic: &'static str, mut payload: serde_json::Value) {
        if let Some(fields) = payload.as_object_mut() {
            fields.insert("replica".to_owned(), json!(&*self.replica));
        }
        let (db, replica) = (self.db.clone(), self.replica.to_string());
        self.spawner.spawn("system-news", async move {
            let told =
                tokio::time::timeout(PATIENCE, publish(&db, topic, &replica, &payload)).await;
            if let Ok(Err(error)) = told {
                tracing::debug!(topic, err = %error, "an event of the process was not published");
            }
        });
    }
}

async fn publish(
    db: &Db,
    topic: &str,
    key: &str,
    payload: &serde_json::Value,
) -> Result<(), DbError> {
    let tx = db.begin().await?;
    tx.publish(topic, key, payload)?;
    tx.commit().await?;
    Ok(())
}
