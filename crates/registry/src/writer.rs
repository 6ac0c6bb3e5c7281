//! A unit of work: one transaction, what it changes in memory, and the events that tell of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use portico_base::{Context, Timestamp};
use portico_contract::audit::Record;
use portico_contract::directory::InstanceState;
use portico_db::WriteTx;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::OwnedMutexGuard;

use crate::domain::check::{Check, CheckKey};
use crate::domain::event::{Event, EventKind};
use crate::domain::instance::Instance;
use crate::domain::node::{Node, NodeKey};
use crate::domain::service::Service;
use crate::domain::token::Token;
use crate::error::Result;
use crate::follow;
use crate::hub::Core;
use crate::model::{Mutation, Reservation};
use crate::store;
use crate::store::events::{HistoryRow, StoredEvent};
use crate::views::{InstanceView, Sight};

/// An open unit of work. Dropping it undoes everything.
pub(crate) struct Writer {
    core: Arc<Core>,
    cx: Context,
    guard: OwnedMutexGuard<()>,
    tx: WriteTx,
    now: Timestamp,
    index: u64,
    first_seq: u64,
    mutations: Vec<Mutation>,
    events: Vec<StoredEvent>,
    history: Vec<HistoryRow>,
}

/// Where a commit stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub seq: u64,
}

/// An event of an instance, as watchers read it.
#[derive(Serialize)]
struct Told<'a> {
    seq: u64,
    kind: &'static str,
    at: Timestamp,
    service: &'a str,
    service_id: uuid::Uuid,
    tenant_id: Option<uuid::Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

impl Writer {
    /// Waits for its turn, locks the counters, and brings the model up to what is committed: from here
    /// on nothing that the caller decides from the model can be out of date.
    pub(crate) async fn begin(core: &Arc<Core>, cx: &Context) -> Result<Self> {
        Self::begin_as(core, cx, false).await
    }

    /// The same, on the disk before it is answered: for units that change keys as well.
    pub(crate) async fn begin_durable(core: &Arc<Core>, cx: &Context) -> Result<Self> {
        Self::begin_as(core, cx, true).await
    }

    async fn begin_as(core: &Arc<Core>, cx: &Context, durable: bool) -> Result<Self> {
        let guard = Arc::clone(&core.writer).lock_owned().await;
        let tx = if durable {
            core.db.begin_durable().await?
        } else {
            core.db.begin().await?
        };
        let position = store::events::advance(&tx, 1, 1).await?;
        follow::catch_up(core, &tx, position.seq.saturating_sub(1)).await?;
        tx.set_trace(cx.caller.trace_id.as_deref());
        Ok(Self {
            core: Arc::clone(core),
            cx: cx.clone(),
            guard,
            tx,
            now: cx.now(),
            index: position.index,
            first_seq: position.seq,
            mutations: Vec::new(),
            events: Vec::new(),
            history: Vec::new(),
        })
    }

    /// The moment of the change.
    pub(crate) const fn now(&self) -> Timestamp {
        self.now
    }

    /// The installation's index at which the change is made.
    pub(crate) const fn index(&self) -> u64 {
        self.index
    }

    /// The transaction, for rows that are not in the model.
    pub(crate) const fn tx(&self) -> &WriteTx {
        &self.tx
    }

    /// Writes a service and the versions named.
    pub(crate) async fn put_service(
        &mut self,
        service: &Arc<Service>,
        versions: &[&str],
    ) -> Result<()> {
        store::services::put(&self.tx, service).await?;
        for version in versions {
            if let Some(of) = service.versions.get(*version) {
                let cx = self.cx.clone();
                let mut ids = move || cx.new_id();
                store::services::put_version(&self.tx, service.id, version, of, &mut ids).await?;
            }
        }
        self.mutations
            .push(Mutation::PutService(Arc::clone(service)));
        Ok(())
    }

    /// Switches a built-in service for a tenant; of such a service nothing else has a row.
    pub(crate) async fn put_builtin(
        &mut self,
        service: &Arc<Service>,
        tenant: uuid::Uuid,
        enabled: bool,
    ) -> Result<()> {
        store::services::put_builtin(&self.tx, tenant, &service.name, enabled).await?;
        self.mutations
            .push(Mutation::PutService(Arc::clone(service)));
        Ok(())
    }

    pub(crate) async fn drop_service(&mut self, service: &Service) -> Result<()> {
        store::services::delete(&self.tx, service.id).await?;
        self.mutations.push(Mutation::DropService(service.id));
        Ok(())
    }

    /// Writes an instance whole.
    pub(crate) async fn put_instance(&mut self, mut instance: Instance) -> Result<Arc<Instance>> {
        instance.modify_index = self.index;
        instance.updated_at = self.now;
        store::instances::put(&self.tx, &self.core.sealer, &instance).await?;
        let instance = Arc::new(instance);
        self.mutations
            .push(Mutation::PutInstance(Arc::clone(&instance)));
        Ok(instance)
    }

    /// Writes an instance's state, order and weight.
    pub(crate) async fn put_state(&mut self, mut instance: Instance) -> Result<Arc<Instance>> {
        instance.modify_index = self.index;
        instance.updated_at = self.now;
        store::instances::put_state(&self.tx, &instance).await?;
        let instance = Arc::new(instance);
        self.mutations
            .push(Mutation::PutInstance(Arc::clone(&instance)));
        Ok(instance)
    }

    pub(crate) async fn drop_instance(&mut self, instance: &Instance) -> Result<()> {
        store::instances::delete(&self.tx, instance.id).await?;
        self.mutations.push(Mutation::DropInstance(instance.id));
        Ok(())
    }

    pub(crate) async fn put_node(&mut self, mut node: Node) -> Result<()> {
        node.modify_index = self.index;
        store::checks::put_node(&self.tx, &node).await?;
        self.subject(EventKind::NodeChanged, node_subject(&node.key));
        self.mutations.push(Mutation::PutNode(Arc::new(node)));
        Ok(())
    }

    pub(crate) async fn drop_node(&mut self, key: &NodeKey) -> Result<()> {
        store::checks::delete_node(&self.tx, key).await?;
        self.subject(EventKind::NodeChanged, node_subject(key));
        self.mutations.push(Mutation::DropNode(key.clone()));
        Ok(())
    }

    /// Writes a check; one that belongs to a registration has no row and lives in memory.
    pub(crate) async fn put_check(&mut self, mut check: Check) -> Result<()> {
        check.modify_index = self.index;
        if check.stored {
            store::checks::put_check(&self.tx, &check).await?;
            self.subject(EventKind::CheckChanged, node_subject(&check.key.node));
        }
        self.mutations.push(Mutation::PutCheck(Arc::new(check)));
        Ok(())
    }

    pub(crate) async fn drop_check(&mut self, key: &CheckKey) -> Result<()> {
        store::checks::delete_check(&self.tx, key).await?;
        self.subject(EventKind::CheckChanged, node_subject(&key.node));
        self.mutations.push(Mutation::DropCheck(key.clone()));
        Ok(())
    }

    pub(crate) async fn put_token(&mut self, token: Token) -> Result<()> {
        store::names::put_token(&self.tx, &token).await?;
        self.subject(EventKind::TokenChanged, json!({"token": token.id}));
        self.mutations.push(Mutation::PutToken(Arc::new(token)));
        Ok(())
    }

    /// Remembers when a token was used; other replicas need not hear of it.
    pub(crate) async fn use_token(&mut self, token: &Token) -> Result<()> {
        store::names::use_token(&self.tx, token.id, self.now).await?;
        let used = Token {
            used_at: Some(self.now),
            ..token.clone()
        };
        self.mutations.push(Mutation::PutToken(Arc::new(used)));
        Ok(())
    }

    pub(crate) async fn drop_token(&mut self, id: uuid::Uuid) -> Result<()> {
        store::names::delete_token(&self.tx, id).await?;
        self.subject(EventKind::TokenChanged, json!({"token": id}));
        self.mutations.push(Mutation::DropToken(id));
        Ok(())
    }

    pub(crate) async fn put_reservation(&mut self, reservation: Reservation) -> Result<()> {
        store::names::put_reservation(&self.tx, &reservation).await?;
        self.subject(
            EventKind::ReservationChanged,
            json!({"name": reservation.name}),
        );
        self.mutations
            .push(Mutation::PutReservation(Arc::new(reservation)));
        Ok(())
    }

    pub(crate) async fn drop_reservation(&mut self, name: &str) -> Result<()> {
        store::names::delete_reservation(&self.tx, name).await?;
        self.subject(EventKind::ReservationChanged, json!({"name": name}));
        self.mutations
            .push(Mutation::DropReservation(name.to_owned()));
        Ok(())
    }

    /// Tells of a service.
    pub(crate) fn service_event(&mut self, kind: EventKind, service: &Service) {
        self.tell(kind, service, None, None, None);
    }

    /// Tells of an instance.
    pub(crate) fn instance_event(
        &mut self,
        kind: EventKind,
        service: &Service,
        instance: &Instance,
    ) {
        self.tell(kind, service, Some(instance), None, Some(&instance.reason));
    }

    /// Tells of a change of state, and writes the instance's history.
    pub(crate) fn state_event(
        &mut self,
        service: &Service,
        instance: &Instance,
        from: InstanceState,
    ) {
        self.tell(
            EventKind::InstanceStateChanged,
            service,
            Some(instance),
            Some(from),
            Some(&instance.reason),
        );
        self.remember(
            instance,
            from.as_str(),
            instance.state.as_str(),
            &instance.reason,
        );
    }

    /// Writes one step of an instance's life.
    pub(crate) fn remember(&mut self, instance: &Instance, from: &str, to: &str, reason: &str) {
        self.history.push(HistoryRow {
            id: self.cx.new_id(),
            instance: instance.id,
            at: self.now,
            seq: self.next_seq(),
            from: from.to_owned(),
            to: to.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Records the change in the audit.
    pub(crate) async fn audit(&self, record: Record) -> Result<()> {
        Ok(self.core.audit.record(&self.tx, &self.cx, record).await?)
    }

    fn next_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64
    }

    fn tell(
        &mut self,
        kind: EventKind,
        service: &Service,
        instance: Option<&Instance>,
        from: Option<InstanceState>,
        reason: Option<&str>,
    ) {
        let sight = Sight {
            addresses: true,
            endpoints: false,
        };
        let told = Told {
            seq: self.next_seq(),
            kind: kind.as_str(),
            at: self.now,
            service: &service.name,
            service_id: service.id,
            tenant_id: service.tenant,
            instance: instance.map(|i| InstanceView::new(service, i, i.last_heartbeat, sight)),
            from: from.map(InstanceState::as_str),
            to: from.and(instance).map(|i| i.state.as_str()),
            reason: reason.filter(|r| !r.is_empty()),
        };
        let data = serde_json::to_vec(&told).unwrap_or_default();
        let event = Event {
            seq: told.seq,
            kind,
            tenant: service.tenant,
            service: Some(service.id),
            instance: instance.map(|i| i.id),
            at: self.now,
            data: Bytes::from(data),
            frame: OnceLock::new(),
        };
        self.events.push(StoredEvent {
            event,
            subject: None,
        });
    }

    /// Tells other replicas what to read again.
    fn subject(&mut self, kind: EventKind, subject: Value) {
        let event = Event {
            seq: self.next_seq(),
            kind,
            tenant: None,
            service: None,
            instance: None,
            at: self.now,
            data: Bytes::from_static(b"{}"),
            frame: OnceLock::new(),
        };
        self.events.push(StoredEvent {
            event,
            subject: Some(subject),
        });
    }

    /// Tells other replicas to read an instance again, and nobody else.
    pub(crate) fn quiet_event(&mut self, kind: EventKind, instance: &Instance) {
        self.subject(kind, Value::Null);
        if let Some(last) = self.events.last_mut() {
            last.event.service = Some(instance.service);
            last.event.instance = Some(instance.id);
        }
    }

    /// Commits; memory and everybody who follows it have changed before this returns. A caller that
    /// goes away in the middle does not separate the two.
    pub(crate) async fn commit(self) -> Result<Done> {
        let Self {
            core,
            guard,
            tx,
            index,
            first_seq,
            mutations,
            events,
            history,
            ..
        } = self;
        let more = (events.len() as u64).saturating_sub(1);
        if more > 0 {
            store::events::advance(&tx, 0, more).await?;
        }
        store::events::insert(&tx, &events).await?;
        store::events::insert_history(&tx, &history).await?;
        let seq = first_seq + more;
        for StoredEvent { event, .. } in &events {
            let key = event
                .instance
                .or(event.service)
                .map(|id| id.to_string())
                .unwrap_or_default();
            tx.publish(event.kind.as_str(), &key, &json!({"seq": event.seq}))?;
        }
        let told = events.into_iter().map(|e| Arc::new(e.event)).collect();
        tx.after_commit(Box::new(move || {
            core.apply(mutations, index, seq, told);
            // The next writer begins when memory is up to date.
            drop(guard);
        }));
        tx.commit().await?;
        Ok(Done { seq })
    }
}

/// What names a node in an event.
fn node_subject(key: &NodeKey) -> Value {
    json!({"tenant": key.tenant, "node": &*key.name})
}
