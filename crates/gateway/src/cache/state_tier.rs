//! The shared tier over the state crate: Redis when the platform has one.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use portico_state::{SharedStore, Shelf, State, StateError};

use super::shared::{SharedTier, TierError, TierFuture, TierUse};

/// How long a replica may hold the right to change a list, and how often another asks for it.
const LOCK: Duration = Duration::from_secs(2);
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(25);

/// One replica trims within this time; the others read what it counted, for as long as that.
const TRIM_EVERY: Duration = Duration::from_secs(50);
const USE: &str = "gwc:use";
const USE_TTL: Duration = Duration::from_secs(300);

/// [`SharedTier`] on [`SharedStore`]; the answers lie on a shelf of their own, whose size is bounded.
pub struct StateTier(SharedStore, Shelf);

impl StateTier {
    /// The tier of a platform with Redis. None without: a second copy in the same process would help nobody.
    pub fn of(state: &State) -> Option<Arc<dyn SharedTier>> {
        state.status().redis.is_some().then(|| {
            let store = state.store().clone();
            let shelf = store.shelf("gwc");
            Arc::new(Self(store, shelf)) as Arc<dyn SharedTier>
        })
    }

    async fn change_list(
        &self,
        name: &str,
        value: &[u8],
        most: usize,
        ttl_ms: u64,
    ) -> Result<(), TierError> {
        // The store has single values only. The list is one of them, changed under a claim that ends by itself.
        let lock = format!("{name}:lock");
        let mut tries = 0;
        while !self.0.claim(&lock, LOCK).await.map_err(away)? {
            tries += 1;
            if tries == TRIES {
                return Err(TierError(
                    "another replica does not let go of the list".to_owned(),
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
        let changed = async {
            let had = self.0.get(name).await.map_err(away)?;
            let mut values = had.as_ref().map(read_list).unwrap_or_default();
            values.push(Bytes::copy_from_slice(value));
            let surplus = values.len().saturating_sub(most);
            let list = write_list(&values[surplus..]);
            self.0
                .put(name, list, Duration::from_millis(ttl_ms))
                .await
                .map_err(away)
        }
        .await;
        self.0.remove(&lock).await.map_err(away)?;
        changed
    }
}

impl SharedTier for StateTier {
    fn get<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Option<Bytes>, TierError>> {
        Box::pin(async move { self.0.get(name).await.map_err(away) })
    }

    fn put<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move {
            self.1
                .put(name, value, Duration::from_millis(ttl_ms))
                .await
                .map_err(away)
        })
    }

    fn remove<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move { self.1.remove(name).await.map_err(away) })
    }

    fn append<'a>(
        &'a self,
        name: &'a str,
        value: Bytes,
        most: usize,
        ttl_ms: u64,
    ) -> TierFuture<'a, Result<(), TierError>> {
        Box::pin(async move { self.change_list(name, &value, most, ttl_ms).await })
    }

    fn list<'a>(&'a self, name: &'a str) -> TierFuture<'a, Result<Vec<Bytes>, TierError>> {
        Box::pin(async move {
            Ok(self
                .0
                .get(name)
                .await
                .map_err(away)?
                .as_ref()
                .map(read_list)
                .unwrap_or_default())
        })
    }

    fn trim(&self, most_bytes: u64) -> TierFuture<'_, Result<TierUse, TierError>> {
        Box::pin(async move {
            if !self.0.claim("gwc:trim", TRIM_EVERY).await.map_err(away)? {
                let counted = self.0.get(USE).await.map_err(away)?;
                return Ok(counted
                    .and_then(|text| serde_json::from_slice(&text).ok())
                    .unwrap_or_default());
            }
            let used = self.1.trim(most_bytes).await.map_err(away)?;
            let used = TierUse {
                entries: used.entries,
                bytes: used.bytes,
                evicted: used.evicted,
            };
            let text = serde_json::to_vec(&used).unwrap_or_default();
            self.0.put(USE, text.into(), USE_TTL).await.map_err(away)?;
            Ok(used)
        })
    }
}

// `map_err` hands the error over.
#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn away(error: StateError) -> TierError {
    TierError(error.to_string())
}

fn write_list(values: &[Bytes]) -> Bytes {
    let mut out = BytesMut::new();
    for value in values {
        out.put_u32_le(u32::try_from(value.len()).unwrap_or(u32::MAX));
        out.put_slice(value);
    }
    out.freeze()
}

/// What can be read of a list; a broken end is left out.
fn read_list(list: &Bytes) -> Vec<Bytes> {
    let mut rest = list.clone();
    let mut values = Vec::new();
    while let Some(head) = rest.get(..4).and_then(|head| head.try_into().ok()) {
        let length = u32::from_le_bytes(head) as usize;
        if rest.len() - 4 < length {
            break;
        }
        let _ = rest.split_to(4);
        values.push(rest.split_to(length));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use portico_state::testing::Backend;
    use proptest::prelude::*;

    #[tokio::test]
    async fn without_redis_there_is_no_tier() {
        assert!(StateTier::of(&Backend::local().replica().await.state).is_none());
    }

    #[tokio::test]
    async fn values_and_lists_on_a_real_redis() {
        let Some(backend) = Backend::redis() else {
            return;
        };
        let (one, two) = (backend.replica().await, backend.replica().await);
        let tier = |state| StateTier::of(state).expect("redis is configured");
        let (one, two) = (tier(&one.state), tier(&two.state));
        one.put("k", Bytes::from_static(b"v"), 60_000)
            .await
            .expect("up");
        assert_eq!(two.get("k").await, Ok(Some(Bytes::from_static(b"v"))));
        two.remove("k").await.expect("up");
        assert_eq!(one.get("k").await, Ok(None));
        let appends = (0..10u8).map(|n| {
            let tier = if n % 2 == 0 {
                Arc::clone(&one)
            } else {
                Arc::clone(&two)
            };
            async move { tier.append("list", Bytes::from(vec![n]), 8, 60_000).await }
        });
        for done in futures_util::future::join_all(appends).await {
            done.expect("nobody's append is lost");
        }
        assert_eq!(
            one.list("list").await.expect("up").len(),
            8,
            "the last eight"
        );
    }

    #[tokio::test]
    async fn one_replica_trims_and_the_other_learns() {
        let Some(backend) = Backend::redis() else {
            return;
        };
        let (one, two) = (backend.replica().await, backend.replica().await);
        let tier = |state| StateTier::of(state).expect("redis is configured");
        let (one, two) = (tier(&one.state), tier(&two.state));
        for n in 0..10 {
            let name = format!("gwc:o:{n}");
            one.put(&name, Bytes::from(vec![0; 1000]), 60_000)
                .await
                .expect("up");
        }
        let used = one.trim(5_000).await.expect("up");
        assert!(used.bytes <= 5_000 && used.evicted > 4, "{used:?}");
        let told = two.trim(1).await.expect("up");
        assert_eq!(
            (told.entries, told.bytes, told.evicted),
            (used.entries, used.bytes, 0),
            "within the minute the other only reads"
        );
    }

    #[tokio::test]
    async fn a_dead_redis_is_an_error_soon() {
        let Some(backend) = Backend::redis() else {
            return;
        };
        let replica = backend.replica().await;
        let tier = StateTier::of(&replica.state).expect("redis is configured");
        backend.server().expect("redis").kill();
        assert!(tier.get("k").await.is_err());
        assert!(tier.append("list", Bytes::new(), 8, 1000).await.is_err());
    }

    proptest! {
        #[test]
        fn lists_survive(values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10), cut in 0usize..50) {
            let values: Vec<Bytes> = values.into_iter().map(Bytes::from).collect();
            let list = write_list(&values);
            prop_assert_eq!(&read_list(&list), &values);
            let cut = list.slice(..cut.min(list.len()));
            prop_assert!(values.starts_with(&read_list(&cut)));
        }
    }
}
