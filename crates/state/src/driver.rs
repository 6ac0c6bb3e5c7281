//! What must run for the state to work: connections, messages, leases, heartbeats. One future for the host's spawner.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::{Event, Outbound, Subscription};
use crate::cache::TOPIC;
use crate::limit::{Orders, Shared};
use crate::link::Link;
use crate::state::State;
use crate::store::{FLUSH_EVERY, Heartbeats};

/// Removals that Redis has not heard of are repeated this often.
const CATCH_UP: Duration = Duration::from_millis(250);

/// Drives a [`State`]; run it once, on the runtime that background work uses.
pub struct StateDriver {
    state: State,
    /// Taken when the driver is made, so that no removal is missed before it runs.
    removals: Subscription,
    redis: Option<Redis>,
}

struct Redis {
    link: Arc<Link>,
    outbound: Option<Outbound>,
    shared: Arc<Shared>,
    orders: Orders,
}

impl std::fmt::Debug for StateDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StateDriver").field(&self.state).finish()
    }
}

impl StateDriver {
    pub(crate) fn local(state: State) -> Self {
        Self {
            removals: state.bus().subscribe(TOPIC),
            state,
            redis: None,
        }
    }

    pub(crate) fn redis(
        state: State,
        link: Arc<Link>,
        outbound: Option<Outbound>,
        shared: Arc<Shared>,
        orders: Orders,
    ) -> Self {
        Self {
            redis: Some(Redis {
                link,
                outbound,
                shared,
                orders,
            }),
            ..Self::local(state)
        }
    }

    /// Runs until `stop`, then carries the last heartbeats away and returns.
    pub async fn run(self, stop: CancellationToken) {
        let Self {
            state,
            removals,
            redis,
        } = self;
        let Some(Redis {
            link,
            outbound,
            shared,
            orders,
        }) = redis
        else {
            // In one process removals are done by whoever calls; there is nothing to carry.
            stop.cancelled().await;
            return;
        };
        let bus = state.bus().clone();
        let sending = async {
            match outbound {
                Some(outbound) => bus.send_out(&link, outbound).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = link.keep() => {}
            () = bus.take_in(&link) => {}
            () = sending => {}
            () = shared.serve(orders) => {}
            () = follow_removals(&state, removals) => {}
            () = catch_up(&state, link.changes()) => {}
            () = carry_heartbeats(&state) => {}
        }
        for map in maps(&state) {
            map.flush().await;
        }
    }
}

async fn follow_removals(state: &State, mut removals: Subscription) {
    loop {
        match removals.recv().await {
            Event::Message(message) => {
                let Ok(text) = std::str::from_utf8(&message) else {
                    continue;
                };
                for cache in state.members() {
                    cache.removed_elsewhere(text);
                }
            }
            Event::Lagged => {
                for cache in state.members() {
                    cache.clear();
                }
            }
        }
    }
}

async fn catch_up(state: &State, mut changes: watch::Receiver<bool>) {
    loop {
        let _ = tokio::time::timeout(CATCH_UP, changes.changed()).await;
        if *changes.borrow() {
            for cache in state.members() {
                cache.catch_up().await;
            }
        }
    }
}

async fn carry_heartbeats(state: &State) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        for map in maps(state) {
            map.flush().await;
        }
    }
}

fn maps(state: &State) -> Vec<Heartbeats> {
    state.0.heartbeats.lock().values().cloned().collect()
}
