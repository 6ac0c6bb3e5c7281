//! What a worker does beside requests, ten times a second at most: it takes over settings and tells its figures.

use std::rc::Rc;

use super::door::Door;
use super::settings::pool_limits;
use crate::figures::Pools;

/// Ticks of a worker between two looks at its pools.
const TICKS: u32 = 10;

impl Door {
    /// Keeps house from now on; to be called once, on the worker.
    pub(crate) fn keep_house(self: &Rc<Self>, pools: &Pools) {
        let (weak, pools) = (Rc::downgrade(self), pools.clone());
        let (mut settings, mut ticks) = (self.gate.settings_version(), 0_u32);
        self.worker.on_tick(Box::new(move || {
            let Some(door) = weak.upgrade() else { return };
            let newest = door.gate.settings_version();
            if newest != settings {
                settings = newest;
                door.upstreams.set_limits(pool_limits(&door.gate.settings));
            }
            // The last tick before a worker sleeps must tell that nothing is left.
            if ticks.is_multiple_of(TICKS) || door.upstreams.connections() == 0 {
                pools.tell(door.worker.index, door.upstreams.sizes());
            }
            ticks = ticks.wrapping_add(1);
        }));
    }
}
