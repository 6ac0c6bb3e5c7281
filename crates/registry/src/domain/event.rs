//! Events of the registry: what followers and watchers are told.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut as _, Bytes, BytesMut};
use portico_base::Timestamp;
use uuid::Uuid;

/// Kinds of events. The first four are told to watchers; all of them to other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum EventKind {
    ServiceRegistered,
    ServiceChanged,
    ServiceRemoved,
    InstanceRegistered,
    InstanceChanged,
    InstanceStateChanged,
    InstanceRemoved,
    NodeChanged,
    CheckChanged,
    TokenChanged,
    ReservationChanged,
    SecretRotated,
}

impl EventKind {
    /// Name in the outbox, in watches and in metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceRegistered => "registry.service.registered",
            Self::ServiceChanged => "registry.service.changed",
            Self::ServiceRemoved => "registry.service.removed",
            Self::InstanceRegistered => "registry.instance.registered",
            Self::InstanceChanged => "registry.instance.changed",
            Self::InstanceStateChanged => "registry.instance.state_changed",
            Self::InstanceRemoved => "registry.instance.removed",
            Self::NodeChanged => "registry.node.changed",
            Self::CheckChanged => "registry.check.changed",
            Self::TokenChanged => "registry.token.changed",
            Self::ReservationChanged => "registry.reservation.changed",
            Self::SecretRotated => "registry.secret.rotated",
        }
    }

    /// All kinds, for reading them back.
    pub(crate) const ALL: [Self; 12] = [
        Self::ServiceRegistered,
        Self::ServiceChanged,
        Self::ServiceRemoved,
        Self::InstanceRegistered,
        Self::InstanceChanged,
        Self::InstanceStateChanged,
        Self::InstanceRemoved,
        Self::NodeChanged,
        Self::CheckChanged,
        Self::TokenChanged,
        Self::ReservationChanged,
        Self::SecretRotated,
    ];

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.as_str() == text)
    }

    /// Told to watchers of the directory; the rest only keeps replicas together.
    pub(crate) const fn is_public(self) -> bool {
        !matches!(
            self,
            Self::NodeChanged
                | Self::CheckChanged
                | Self::TokenChanged
                | Self::ReservationChanged
                | Self::SecretRotated
        )
    }
}

/// A change with its place in the sequence, written once for all watchers.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub seq: u64,
    pub kind: EventKind,
    /// Tenant of the service; absent: global.
    pub tenant: Option<Uuid>,
    pub service: Option<Uuid>,
    pub instance: Option<Uuid>,
    pub at: Timestamp,
    /// The change as JSON text, complete with `seq`, `kind` and `at`.
    pub data: Bytes,
    /// The same as a server-sent event, made by the first watcher for all.
    pub frame: OnceLock<Bytes>,
}

impl Event {
    /// The change as one server-sent event; all watchers share its bytes (RG-32).
    pub(crate) fn frame(&self) -> Bytes {
        let make = || {
            let mut out = BytesMut::with_capacity(self.data.len() + 80);
            out.put_slice(
                format!("id: {}\nevent: {}\ndata: ", self.seq, self.kind.as_str()).as_bytes(),
            );
            out.put_slice(&self.data);
            out.put_slice(b"\n\n");
            out.freeze()
        };
        self.frame.get_or_init(make).clone()
    }
}

/// Shared handle of an event.
pub(crate) type SharedEvent = Arc<Event>;
