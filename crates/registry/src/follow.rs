//! Following the database: loading at start, catching up with other replicas, healing differences.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use portico_db::sea_orm::ConnectionTrait;
use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::event::{EventKind, SharedEvent};
use crate::domain::instance::Source;
use crate::domain::node::NodeKey;
use crate::domain::service::Service;
use crate::error::Result;
use crate::hub::Core;
use crate::model::Mutation;
use crate::ops;
use crate::store;
use crate::store::events::StoredEvent;

/// Events of one step; further ones are read with the next.
const BATCH: u64 = 500;

/// How often memory is compared with the rows (`registry.resync`).
const COMPARE_EVERY: Duration = Duration::from_secs(30);

/// Reads everything. Without another living replica what was known is restored as `late` (RG-7).
pub(crate) async fn load(core: &Arc<Core>) -> Result<()> {
    let _guard = core.writer.lock().await;
    // The position first: what is committed in between is read twice, not missed.
    let position = store::events::position(core.db.reader()).await?;
    let mutations = everything(core).await?;
    core.apply(mutations, position.index, position.seq, Vec::new());
    core.ring.begin(position.seq);
    if is_alone(core).await {
        core.model.write().restore(core.clock.now());
    }
    core.rebuild();
    Ok(())
}

async fn is_alone(core: &Core) -> bool {
    if core.db.backend() == portico_db::Backend::Sqlite {
        return true;
    }
    match core.db.replicas().list().await {
        Ok(list) => !list
            .iter()
            .any(|r| r.state == portico_db::ReplicaState::Ready && *r.name != *core.replica),
        Err(error) => {
            tracing::warn!(err = %error, "the list of replicas could not be read");
            true
        }
    }
}

async fn everything(core: &Core) -> Result<Vec<Mutation>> {
    let reader = core.db.reader();
    let mut out = Vec::new();
    out.extend(put(
        store::services::read(reader, None).await?,
        Mutation::PutService,
    ));
    out.extend(put(
        store::checks::nodes(reader, None).await?,
        Mutation::PutNode,
    ));
    out.extend(put(
        store::instances::read(reader, &core.sealer, None).await?,
        Mutation::AdoptInstance,
    ));
    out.extend(put(
        store::checks::checks(reader, None).await?,
        Mutation::PutCheck,
    ));
    out.extend(put(
        store::names::tokens(reader, None).await?,
        Mutation::PutToken,
    ));
    out.extend(put(
        store::names::reservations(reader, None).await?,
        Mutation::PutReservation,
    ));
    Ok(out)
}

fn put<T>(rows: Vec<T>, how: fn(Arc<T>) -> Mutation) -> impl Iterator<Item = Mutation> {
    rows.into_iter().map(move |row| how(Arc::new(row)))
}

/// What events name to be read again.
#[derive(Default)]
struct Stale {
    services: BTreeSet<Uuid>,
    instances: BTreeSet<Uuid>,
    nodes: BTreeSet<NodeKey>,
    tokens: BTreeSet<Uuid>,
    names: BTreeSet<String>,
}

#[derive(Deserialize)]
struct NodeSubject {
    tenant: Option<Uuid>,
    node: String,
}

impl Stale {
    fn note(&mut self, stored: &StoredEvent) {
        let event = &stored.event;
        let subject = stored.subject.as_ref();
        match event.kind {
            EventKind::NodeChanged | EventKind::CheckChanged => {
                let node = subject.and_then(|s| NodeSubject::deserialize(s).ok());
                self.nodes
                    .extend(node.map(|n| NodeKey::new(n.tenant, &n.node)));
            }
            EventKind::TokenChanged => {
                let id = subject.and_then(|s| s.get("token")).and_then(Value::as_str);
                self.tokens
                    .extend(id.and_then(|id| Uuid::parse_str(id).ok()));
            }
            EventKind::ReservationChanged => {
                let name = subject.and_then(|s| s.get("name")).and_then(Value::as_str);
                self.names.extend(name.map(str::to_owned));
            }
            EventKind::ServiceRegistered
            | EventKind::ServiceChanged
            | EventKind::ServiceRemoved => {
                self.services.extend(event.service);
            }
            EventKind::InstanceRegistered
            | EventKind::InstanceChanged
            | EventKind::InstanceStateChanged
            | EventKind::InstanceRemoved
            | EventKind::SecretRotated => self.instances.extend(event.instance),
        }
    }

    /// Reads again what was named: what is there is put, what is not is dropped.
    async fn read(self, core: &Core, conn: &impl ConnectionTrait) -> Result<Vec<Mutation>> {
        let mut out = Vec::new();
        let (own, services) = builtin(core, self.services);
        if !own.is_empty() {
            let off = store::services::builtin_off(conn).await?;
            out.extend(own.into_iter().map(|mut service| {
                ops::builtin::switch(&mut service, &off);
                Mutation::PutService(Arc::new(service))
            }));
        }
        let found = store::services::read(conn, Some(&services)).await?;
        let there: HashSet<Uuid> = found.iter().map(|s| s.id).collect();
        let gone_services: Vec<Uuid> = services
            .into_iter()
            .filter(|id| !there.contains(id))
            .collect();
        out.extend(put(found, Mutation::PutService));

        let instances: Vec<Uuid> = self.instances.into_iter().collect();
        let found = store::instances::read(conn, &core.sealer, Some(&instances)).await?;
        let there: HashSet<Uuid> = found.iter().map(|i| i.id).collect();
        out.extend(
            instances
                .iter()
                .filter(|id| !there.contains(id))
                .map(|id| Mutation::DropInstance(*id)),
        );
        out.extend(put(found, Mutation::AdoptInstance));
        out.extend(gone_services.into_iter().map(Mutation::DropService));

        if !self.nodes.is_empty() {
            let keys: Vec<NodeKey> = self.nodes.into_iter().collect();
            let found = store::checks::nodes(conn, Some(&keys)).await?;
            let there: HashSet<NodeKey> = found.iter().map(|n| n.key.clone()).collect();
            let gone: Vec<NodeKey> = keys
                .iter()
                .filter(|k| !there.contains(k))
                .cloned()
                .collect();
            out.extend(put(found, Mutation::PutNode));
            let checks = store::checks::checks(conn, Some(&keys)).await?;
            let kept: HashSet<_> = checks.iter().map(|c| c.key.clone()).collect();
            {
                let model = core.model.read();
                out.extend(
                    gone.into_iter()
                        .filter(|k| model.node(k).is_some())
                        .map(Mutation::DropNode),
                );
                for key in &keys {
                    let lost = model
                        .checks_of_node(key)
                        .filter(|c| c.stored && !kept.contains(&c.key));
                    out.extend(lost.map(|c| Mutation::DropCheck(c.key.clone())));
                }
            }
            out.extend(put(checks, Mutation::PutCheck));
        }
        let tokens: Vec<Uuid> = self.tokens.into_iter().collect();
        let found = store::names::tokens(conn, Some(&tokens)).await?;
        let there: HashSet<Uuid> = found.iter().map(|t| t.id).collect();
        out.extend(
            tokens
                .iter()
                .filter(|id| !there.contains(id))
                .map(|id| Mutation::DropToken(*id)),
        );
        out.extend(put(found, Mutation::PutToken));

        let names: Vec<String> = self.names.into_iter().collect();
        let found = store::names::reservations(conn, Some(&names)).await?;
        let there: HashSet<String> = found.iter().map(|r| r.name.clone()).collect();
        out.extend(
            names
                .iter()
                .filter(|n| !there.contains(*n))
                .map(|n| Mutation::DropReservation(n.clone())),
        );
        out.extend(put(found, Mutation::PutReservation));
        Ok(out)
    }
}

/// Built-in services among those that are named, and the ids of the others.
fn builtin(core: &Core, named: BTreeSet<Uuid>) -> (Vec<Service>, Vec<Uuid>) {
    let model = core.model.read();
    let mut own = Vec::new();
    let mut rows = Vec::new();
    for id in named {
        match model.service(id) {
            Some(entry) if entry.service.builtin => own.push(Service::clone(&entry.service)),
            _ => rows.push(id),
        }
    }
    (own, rows)
}

/// Brings the model up to `upto`, which is committed. The caller holds the writer's lock.
pub(crate) async fn catch_up(
    core: &Arc<Core>,
    conn: &impl ConnectionTrait,
    upto: u64,
) -> Result<()> {
    loop {
        let (since, index) = {
            let model = core.model.read();
            (model.seq, model.index)
        };
        if since >= upto {
            return Ok(());
        }
        let rows = store::events::read(conn, since, BATCH).await?;
        let last = rows.last().map_or(upto, |r| r.event.seq);
        let complete = (rows.len() as u64) < BATCH;
        let mut stale = Stale::default();
        for row in &rows {
            stale.note(row);
        }
        let mutations = stale.read(core, conn).await?;
        let newcomers = newcomers(core, &mutations);
        let position = store::events::position(conn).await?;
        let events: Vec<SharedEvent> = rows.into_iter().map(|r| Arc::new(r.event)).collect();
        // The index of a change is not in its event; the present one is behind it and above the last.
        let seq = if complete {
            last.max(upto.min(position.seq))
        } else {
            last
        };
        core.apply(mutations, position.index.max(index), seq, events);
        let (now, model) = (core.clock.now(), core.model.read());
        for entry in newcomers.iter().filter_map(|id| model.instance(*id)) {
            entry.live.see(now);
        }
    }
}

/// Instances that registered at another replica just now. Its clock may be behind ours: by ours they show
/// themselves at this moment.
fn newcomers(core: &Core, mutations: &[Mutation]) -> Vec<Uuid> {
    let model = core.model.read();
    let adopted = mutations.iter().filter_map(|m| match m {
        Mutation::AdoptInstance(instance) => Some(instance.id),
        _ => None,
    });
    adopted.filter(|id| model.instance(*id).is_none()).collect()
}

/// Follows other replicas: woken by commits, with a poll as safety net; and heals what differs. The poll
/// comes within a second, so that nobody is sent for longer to who left, even when a message was lost.
pub(crate) async fn follow(core: Arc<Core>, stop: CancellationToken) {
    let woken = Arc::new(tokio::sync::Notify::new());
    let wake = Arc::clone(&woken);
    let _subscription = core.db.on_commit(None, move |topic, _| {
        if topic.starts_with("registry.") {
            wake.notify_one();
        }
    });
    // One process alone has nobody to follow; it only compares.
    let alone = core.db.backend() == portico_db::Backend::Sqlite;
    let mut compare_at = tokio::time::Instant::now() + COMPARE_EVERY;
    loop {
        let poll = Duration::from_millis(300 + core.random.below(500));
        let wake = if alone {
            compare_at
        } else {
            tokio::time::Instant::now() + poll
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = woken.notified(), if !alone => {}
            () = tokio::time::sleep_until(wake) => {}
        }
        let due = tokio::time::Instant::now() >= compare_at;
        let done = if due {
            resync(&core).await.map(|_| ())
        } else {
            step(&core).await
        };
        if due {
            compare_at = tokio::time::Instant::now() + COMPARE_EVERY;
        }
        if let Err(error) = done {
            // The last known directory goes on being served; the next poll tries again.
            tracing::debug!(err = %error, "other replicas could not be followed");
        }
    }
}

/// Catches up with what is committed now.
pub(crate) async fn step(core: &Arc<Core>) -> Result<()> {
    let upto = store::events::position(core.db.reader()).await?.seq;
    if upto <= core.model.read().seq {
        return Ok(());
    }
    let _guard = core.writer.lock().await;
    catch_up(core, core.db.reader(), upto).await
}

/// Compares memory with the rows and reads again what differs (`registry.resync`).
pub(crate) async fn resync(core: &Arc<Core>) -> Result<u64> {
    step(core).await?;
    let _guard = core.writer.lock().await;
    let before = store::events::position(core.db.reader()).await?;
    let marks = store::instances::marks(core.db.reader()).await?;
    let after = store::events::position(core.db.reader()).await?;
    if before.seq != after.seq || after.seq != core.model.read().seq {
        // Somebody writes at this moment: the next comparison will do.
        return Ok(0);
    }
    let mut stale = Stale::default();
    let rows: HashSet<Uuid> = marks.iter().map(|(id, _, _)| *id).collect();
    {
        let model = core.model.read();
        for (id, index, _) in &marks {
            if model
                .instance(*id)
                .is_none_or(|e| e.instance.modify_index != *index)
            {
                stale.instances.insert(*id);
            }
        }
        stale.instances.extend(
            model
                .instances()
                .filter(|e| e.instance.source != Source::Builtin && !rows.contains(&e.instance.id))
                .map(|e| e.instance.id),
        );
    }
    let differences = stale.instances.len() as u64;
    if differences > 0 {
        core.metrics.resync.add(differences);
        tracing::warn!(
            differences,
            "memory differed from the database and was healed"
        );
        // A service that is missing would lose its instances: it is read with them.
        let services: Vec<Uuid> = store::services::read(core.db.reader(), None)
            .await?
            .iter()
            .map(|s| s.id)
            .collect();
        stale.services.extend(services);
        let mutations = stale.read(core, core.db.reader()).await?;
        core.apply(mutations, after.index, after.seq, Vec::new());
    }
    Ok(differences)
}
