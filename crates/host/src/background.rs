//! Work of the process itself: replica heartbeat, health checks, wake-ups between replicas, disk watch.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use portico_config::Config;
use portico_db::{Backend, Db, NewReplica, ReplicaState, Replicas};
use portico_state::Limiter;
use portico_telemetry::metrics::{Family, Gauge, GaugeFamily, Registry};
use uuid::Uuid;

use crate::admin::Pulse;
use crate::build::Ground;
use crate::degraded::Degraded;
use crate::error::{StartError, exit};
use crate::health::Health;
use crate::numbers::ReplicaNumbers;
use crate::service::NodeInfo;
use crate::spawn::Spawner;

static READY: GaugeFamily = GaugeFamily::new(
    "portico_replicas_ready",
    "Replicas that are ready, as this process last saw them; limits are divided among them while nobody counts for all.",
    &[],
    1,
);

pub(crate) static FAMILIES: [&Family; 1] = [READY.family()];

/// This process among the replicas (OP-3).
#[derive(Clone)]
pub(crate) struct Membership {
    replicas: Replicas,
    id: Uuid,
    numbers: ReplicaNumbers,
}

impl Membership {
    pub(crate) async fn ready(&self) {
        self.tell(ReplicaState::Ready).await;
    }

    pub(crate) async fn draining(&self) {
        self.tell(ReplicaState::Draining).await;
    }

    pub(crate) async fn leave(&self) {
        let leaving = self.replicas.leave(self.id);
        // A database that is gone will sweep the row when it is back.
        let _ = tokio::time::timeout(Duration::from_secs(1), leaving).await;
    }

    async fn tell(&self, state: ReplicaState) {
        let numbers = self.numbers.read();
        let beat = self.replicas.heartbeat(self.id, state, &numbers);
        match tokio::time::timeout(Duration::from_secs(4), beat).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(err = %error, "the replica's heartbeat was not written")
            }
            Err(_) => tracing::warn!("the replica's heartbeat took too long"),
        }
    }
}

/// Enters the replicas and keeps the heartbeat going.
pub(crate) async fn join(
    ground: &Ground,
    node: &NodeInfo,
    roles: &[String],
    metrics: &Registry,
    health: &Health,
    spawner: &Spawner,
) -> Result<Membership, StartError> {
    let id = portico_base::id::new_id(&*ground.clock, &*ground.random);
    let new = NewReplica {
        id,
        name: node.name.to_string(),
        version: node.version.to_owned(),
        roles: roles.to_vec(),
        zone: node.zone.to_string(),
        internal_url: None,
    };
    room_for_another(&ground.db).await?;
    let membership = Membership {
        replicas: ground.db.replicas(),
        id,
        numbers: ground.numbers.clone(),
    };
    membership.replicas.register(&new).await.map_err(|error| {
        StartError::new(exit::DEPENDENCY, "the replica could not be entered").because(error)
    })?;
    let (beating, health, stop) = (
        membership.clone(),
        health.clone(),
        spawner.stopping().clone(),
    );
    let limiter = ground.state.limiter().clone();
    let count = metrics.gauge(&READY).with(&[]);
    spawner.spawn("replica-heartbeat", async move {
        let mut ticks = tokio::time::interval(portico_db::HEARTBEAT);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let state = match (health.started(), health.draining()) {
                (_, true) => ReplicaState::Draining,
                (true, false) => ReplicaState::Ready,
                (false, false) => ReplicaState::Starting,
            };
            let numbers = beating.numbers.read();
            let beat = beating.replicas.heartbeat(beating.id, state, &numbers);
            match beat.await {
                Ok(true) => share_limits(&beating.replicas, &limiter, &count).await,
                // The row was swept while we were away (a paused process): enter again.
                Ok(false) => {
                    if let Err(error) = beating.replicas.register(&new).await {
                        tracing::warn!(err = %error, "the replica could not be entered again");
                    }
                }
                Err(error) => {
                    tracing::debug!(err = %error, "the replica's heartbeat was not written")
                }
            }
        }
    });
    Ok(membership)
}

/// Tells the limiter among how many processes the limits are divided while nobody counts for all.
async fn share_limits(replicas: &Replicas, limiter: &Limiter, count: &Gauge) {
    let Ok(all) = replicas.list().await else {
        return;
    };
    let ready = all.iter().filter(|r| r.state == ReplicaState::Ready);
    let ready = u32::try_from(ready.count()).unwrap_or(u32::MAX);
    limiter.set_replicas(ready);
    count.set(f64::from(ready));
}

/// Looks, before this process joins, whether the server has connections for all (SC-5); and in single
/// mode ends the leases of a process that was killed, which nobody else can hold.
async fn room_for_another(db: &Db) -> Result<(), StartError> {
    if db.backend() == Backend::Sqlite {
        let ended = async {
            db.leases().end_all().await?;
            portico_jobs::end_all_job_leases(db).await
        };
        return ended.await.map_err(|error| {
            StartError::new(
                exit::DEPENDENCY,
                "the leases of the last process could not be ended",
            )
            .because(error)
        });
    }
    if let Err(error) = db.check_server_connections(1).await {
        let text = format!("database.max_connections: {error}");
        return Err(StartError::new(exit::USAGE, text).because(error));
    }
    // A replica that has just been killed still counts here, so that its successor is not refused.
    let others = db.replicas().list().await.unwrap_or_default();
    let alive = others
        .iter()
        .filter(|r| r.state != ReplicaState::Lost)
        .count();
    let all = u32::try_from(alive + 1).unwrap_or(u32::MAX);
    if let Err(error) = db.check_server_connections(all).await {
        tracing::warn!(err = %error, "the server may run out of connections");
    }
    Ok(())
}

/// Starts what every process does besides its services.
pub(crate) fn start(
    ground: &Ground,
    spawner: &Spawner,
    health: &Health,
    pulse: &Pulse,
    config: &Config,
    degraded: &Degraded,
) {
    look_after_health(spawner, health, pulse, degraded);
    wake_other_replicas(ground, spawner);
    if config.redis.url.is_none() && ground.db.backend() == Backend::Postgres {
        tracing::warn!("without Redis at most two replicas should run, and rate limits are local");
        let (db, stop) = (ground.db.clone(), spawner.stopping().clone());
        spawner.spawn("database-wakes", async move { db.relay_wakes(&stop).await });
    }
}

fn look_after_health(spawner: &Spawner, health: &Health, pulse: &Pulse, degraded: &Degraded) {
    let (health, degraded, beat) = (health.clone(), degraded.clone(), pulse.clone());
    let stop = spawner.stopping().clone();
    spawner.spawn("runtime-pulse", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            beat.beat();
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
        }
    });
    let stop = spawner.stopping().clone();
    spawner.spawn("health-checks", async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(5));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            for (check, failing) in health.look().await {
                degraded.set(check, failing);
            }
        }
    });
}

/// Outbox topic → bus message, so that the followers of other replicas look at once. A lost message
/// costs them one poll interval.
fn wake_other_replicas(ground: &Ground, spawner: &Spawner) {
    const TOPIC: &str = "outbox";
    let bus = ground.state.bus();
    // Wake-ups that came from the bus are not sent back to it, or two replicas would wake each other for ever.
    let foreign: Arc<Mutex<Option<u64>>> = Arc::default();
    let (publish, came_in) = (bus.clone(), Arc::clone(&foreign));
    let subscription = ground.db.on_commit(None, move |topic, seq| {
        if *came_in.lock() != Some(seq) {
            publish.publish(TOPIC, format!("{topic} {seq}"));
        }
    });
    let mut wakes = bus.subscribe(TOPIC);
    let (db, stop) = (ground.db.clone(), spawner.stopping().clone());
    spawner.spawn("outbox-wakes", async move {
        let _subscription = subscription;
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = wakes.recv() => event,
            };
            match event {
                portico_state::Event::Message(payload) => {
                    let text = String::from_utf8_lossy(&payload);
                    if let Some((topic, seq)) = text.split_once(' ') {
                        let seq = seq.parse().unwrap_or(0);
                        *foreign.lock() = Some(seq);
                        db.wake(topic, seq);
                        *foreign.lock() = None;
                    }
                }
                // What was missed is found by the followers' own polling.
                portico_state::Event::Lagged => {}
            }
        }
    });
}
