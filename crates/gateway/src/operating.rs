//! What operators look at and decide, put together: breakers, the map of the house, explanations, figures.

use std::sync::{Arc, OnceLock};

use portico_host::{BuildCx, Worker};
use portico_telemetry::metrics::Registry;
use portico_web::{Built, RouteInfo};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::balance::flow;
use crate::breakers::{self, Breakers};
use crate::explaining::BuiltinRoutes;
use crate::figures::{self, Pools, Sources};
use crate::pipeline::{BreakerEvent, BreakerListener, Door, Gate};
use crate::serve::CertStore;
use crate::surface::DoorControl;
use crate::topology::{Parts, Topology};

/// Built before the gate, bound to it after.
pub(crate) struct Operating {
    pub(crate) breakers: Breakers,
    /// Filled when all routes are known, those of the gateway among them.
    pub(crate) builtins: Arc<OnceLock<BuiltinRoutes>>,
    pub(crate) listener: BreakerListener,
    pub(crate) crew: Crew,
    changes: mpsc::Receiver<BreakerEvent>,
    control: DoorControl,
}

/// What every worker is given on its own thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Crew {
    topology: Topology,
    pools: Pools,
    pub(crate) certificates: Arc<OnceLock<Arc<CertStore>>>,
}

impl Crew {
    /// Welcomes a worker, on its thread and within its runtime, before it serves.
    pub(crate) fn welcome(&self, worker: &crate::serve::Worker, door: &std::rc::Rc<Door>) {
        flow::take_seat(worker.index, worker.count);
        self.topology.busy().enter(worker.index);
        door.keep_house(&self.pools);
    }
}

impl Operating {
    pub(crate) fn new(cx: &BuildCx<'_>, control: &DoorControl) -> Self {
        let pools = Pools::default();
        let shared = cx.state.status().redis.is_some();
        let topology = Topology::new(Parts {
            name: Arc::clone(&cx.node.name),
            id: Uuid::from_u128(u128::from(cx.random.u64()) << 64 | u128::from(cx.random.u64())),
            clock: Arc::clone(cx.clock),
            db: cx.db.clone(),
            bus: shared.then(|| cx.state.bus().clone()),
            control: control.clone(),
            health: Arc::clone(cx.health),
            pools: pools.clone(),
        });
        let (listener, changes) = breakers::queue();
        Self {
            breakers: Breakers {
                db: cx.db.clone(),
                audit: Arc::clone(cx.audit),
                topology: topology.clone(),
            },
            builtins: Arc::default(),
            listener,
            crew: Crew {
                topology,
                pools,
                certificates: Arc::default(),
            },
            changes,
            control: control.clone(),
        }
    }

    /// Enters the routes of all built-in services.
    pub(crate) fn know(&self, cx: &BuildCx<'_>, own: &Built) {
        let mut all: Vec<(&'static str, Arc<[RouteInfo]>)> = { cx.built.iter() }
            .filter_map(|b| Some((b.name, Arc::clone(&b.routes.as_ref()?.table))))
            .collect();
        all.push(("gateway", Arc::clone(&own.table)));
        // Built once; nobody else sets it.
        let _ = self.builtins.set(all.into());
    }

    /// Binds everything to the gate: from now on it is looked at, told of, and figures are exported.
    pub(crate) fn attach(self, cx: &BuildCx<'_>, gate: &Arc<Gate>, workers: &mut Vec<Worker>) {
        let topology = self.breakers.topology.clone();
        topology.bind(gate);
        self.export(&cx.telemetry.metrics, cx, gate);
        let (telling, following) = (self.breakers.clone(), self.breakers);
        let changes = self.changes;
        workers.push(Worker::new("gateway-breakers", move |stop| {
            telling.tell(changes, stop)
        }));
        workers.push(Worker::new("gateway-overrides", move |stop| {
            following.follow(stop)
        }));
        workers.push(Worker::new("gateway-topology", move |stop| {
            topology.run(stop)
        }));
    }

    fn export(&self, registry: &Registry, cx: &BuildCx<'_>, gate: &Arc<Gate>) {
        let sources = Sources {
            control: self.control.clone(),
            pools: self.crew.pools.clone(),
            busy: self.crew.topology.busy().clone(),
            gate: Arc::downgrade(gate),
            certificates: Arc::clone(&self.crew.certificates),
            clock: Arc::clone(cx.clock),
        };
        figures::export(registry, sources);
    }
}
