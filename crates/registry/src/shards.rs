//! Which replica watches over which instances: sixteen shards, each held under a lease (RG-21).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use portico_db::{DbError, LeaseTiming, ReplicaState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::hub::Core;

const COUNT: u16 = 16;
/// Two signs of life of a replica were missed.
const SILENT: chrono::Duration = chrono::Duration::seconds(10);

/// The shards that this process holds, as bits.
pub(crate) struct Shards {
    held: AtomicU16,
    /// One process alone: it holds everything, without leases.
    single: bool,
    timing: LeaseTiming,
}

impl Shards {
    pub(crate) const fn new(single: bool, timing: LeaseTiming) -> Self {
        Self {
            held: AtomicU16::new(if single { u16::MAX } else { 0 }),
            single,
            timing,
        }
    }

    /// True when this process watches over the instance.
    pub(crate) fn owns(&self, id: Uuid) -> bool {
        self.held.load(Ordering::Acquire) & (1 << shard_of(id)) != 0
    }

    /// The same for things without an instance: spread by their text (FNV-1a, the same in every process).
    pub(crate) fn owns_text(&self, text: &str) -> bool {
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        self.held.load(Ordering::Acquire) & (1 << (hash % u64::from(COUNT))) != 0
    }

    pub(crate) fn count(&self) -> u32 {
        self.held.load(Ordering::Acquire).count_ones()
    }

    /// A test's process that watches over everything, on whatever database.
    #[cfg(test)]
    pub(crate) fn hold_all(&self) {
        self.held.store(u16::MAX, Ordering::Release);
    }

    /// A test's process that has to ask for its leases.
    #[cfg(test)]
    pub(crate) fn let_go(&self) {
        self.held.store(0, Ordering::Release);
    }

    fn set(&self, shard: u16, held: bool) {
        if held {
            self.held.fetch_or(1 << shard, Ordering::AcqRel);
        } else {
            self.held.fetch_and(!(1 << shard), Ordering::AcqRel);
        }
    }
}

/// The last bits of a UUIDv7 are random.
fn shard_of(id: Uuid) -> u16 {
    u16::from(id.as_bytes()[15] & 0x0f)
}

/// Holds this replica's share of the shards until `stop`. A shard belongs to the replica at its place in
/// the sorted list of those alive; the lease decides when two lists differ for a moment.
pub(crate) async fn keep(core: Arc<Core>, stop: CancellationToken) {
    if core.shards.single {
        stop.cancelled().await;
        return;
    }
    let (tell, alive) = watch::channel(Vec::new());
    let each =
        (0..COUNT).map(|shard| keep_one(Arc::clone(&core), shard, alive.clone(), stop.clone()));
    tokio::join!(
        look(&core, &tell, &stop),
        futures_util::future::join_all(each)
    );
}

/// Names of the replicas that showed themselves lately: sooner given up than the list of replicas does,
/// because their leases end sooner too.
async fn alive_now(core: &Core) -> Result<Vec<String>, DbError> {
    let now = core.db.time().await?;
    let list = core.db.replicas().list().await?;
    Ok(list
        .into_iter()
        .filter(|r| r.state == ReplicaState::Ready && now - r.heartbeat_at < SILENT)
        .map(|r| r.name)
        .collect())
}

/// Reads the list of replicas again and again.
async fn look(core: &Core, tell: &watch::Sender<Vec<String>>, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match alive_now(core).await {
            Ok(mut names) => {
                if !names.iter().any(|name| **name == *core.replica) {
                    names.push(core.replica.to_string());
                }
                names.sort();
                tell.send_if_modified(|known| {
                    let differs = *known != names;
                    if differs {
                        known.clone_from(&names);
                    }
                    differs
                });
            }
            Err(error) => tracing::debug!(err = %error, "the list of replicas could not be read"),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(core.shards.timing.renew) => {}
        }
    }
}

async fn keep_one(
    core: Arc<Core>,
    shard: u16,
    mut alive: watch::Receiver<Vec<String>>,
    stop: CancellationToken,
) {
    let leases = core.db.leases().with_timing(core.shards.timing);
    let name = format!("registry.shard.{shard}");
    let mine = |alive: &Vec<String>| place(alive, shard).is_some_and(|r| *r == *core.replica);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            // The sender lives as long as this task does.
            _ = alive.wait_for(mine) => {}
        }
        let end = stop.child_token();
        let mut moved = alive.clone();
        let holding = leases.hold(&name, &core.replica, &end, |held| {
            let core = Arc::clone(&core);
            async move {
                core.take_shard(shard, true);
                held.cancel.cancelled().await;
                core.take_shard(shard, false);
            }
        });
        let until_moved = async {
            tokio::select! {
                () = end.cancelled() => {}
                _ = moved.wait_for(|alive| !mine(alive)) => end.cancel(),
            }
        };
        // `hold` comes back when its lease was lost too; then the race for it begins again.
        tokio::join!(until_moved, async {
            holding.await;
            end.cancel();
        });
        // Whatever ended it, nothing is watched over without the lease.
        core.take_shard(shard, false);
        if stop.is_cancelled() {
            return;
        }
    }
}

/// The replica to which a shard belongs.
fn place(alive: &[String], shard: u16) -> Option<&String> {
    alive.get(usize::from(shard) % alive.len().max(1))
}

impl Core {
    fn take_shard(&self, shard: u16, held: bool) {
        let before = self.shards.count();
        self.shards.set(shard, held);
        if self.shards.count() == before {
            return;
        }
        // Everything in it is looked at once; what is not ours any more falls off the schedules.
        let ids: Vec<Uuid> = self
            .model
            .read()
            .instances()
            .map(|e| e.instance.id)
            .filter(|id| shard_of(*id) == shard)
            .collect();
        self.agenda.touch(ids);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_divided_among_those_alive() {
        let alive = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
        let counts = alive.each_ref().map(|name| {
            (0..COUNT)
                .filter(|s| place(&alive, *s) == Some(name))
                .count()
        });
        assert_eq!(counts, [6, 5, 5]);
        assert_eq!(place(&[], 3), None);
    }

    #[test]
    fn a_single_process_owns_everything() {
        let alone = Shards::new(true, LeaseTiming::default());
        let shared = Shards::new(false, LeaseTiming::default());
        for n in 0..64_u128 {
            assert!(alone.owns(Uuid::from_u128(n)));
            assert!(!shared.owns(Uuid::from_u128(n)));
        }
        shared.set(3, true);
        assert!(shared.owns(Uuid::from_u128(3)) && !shared.owns(Uuid::from_u128(4)));
        shared.set(3, false);
        assert_eq!(shared.count(), 0);
    }
}
