//! Removal of cached values by the outbox event of the change (SC-14): never by hope, on every replica.

use std::time::Duration;

use portico_db::{Db, DbError, News, OutboxRow};
use portico_state::Cache;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::service::Worker;

/// Without a wake-up the outbox is looked at so often.
const POLL: Duration = Duration::from_millis(500);
/// After the database was away.
const PAUSE: Duration = Duration::from_secs(1);

/// A worker that forgets a cached value for each event of `topics` that `of` finds one in. It follows
/// from `head`, which must be taken before the first value is loaded.
pub fn evict_by_events<T>(
    name: &'static str,
    db: &Db,
    head: u64,
    topics: &[&str],
    cache: Cache<T>,
    of: impl Fn(&OutboxRow) -> Option<(Uuid, String)> + Send + Sync + 'static,
) -> Worker
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    let mut follower = db.follow(topics, head, POLL);
    Worker::new(name, move |stop| async move {
        loop {
            let news = tokio::select! {
                () = stop.cancelled() => return,
                news = follower.next() => news,
            };
            if let Err(error) = act(news, &cache, &of).await {
                tracing::debug!(worker = name, err = %error, "the outbox could not be read");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
        }
    })
}

async fn act<T>(
    news: Result<News, DbError>,
    cache: &Cache<T>,
    of: &(impl Fn(&OutboxRow) -> Option<(Uuid, String)> + Sync),
) -> Result<(), DbError>
where
    T: Serialize + DeserializeOwned + Send + Sync + 'static,
{
    match news? {
        News::Events(rows) => {
            for (tenant, id) in rows.iter().filter_map(of) {
                cache.remove(tenant, &id).await;
            }
        }
        News::Reset => cache.clear(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use portico_base::{SeededRandom, id};
    use portico_db::testing::each_backend;
    use portico_state::{CacheKind, Deps, Levels, State};
    use portico_telemetry::metrics::Registry;
    use serde_json::json;
    use tokio_util::sync::CancellationToken;

    use super::*;

    static WORDS: CacheKind = CacheKind {
        service: "test",
        kind: "word",
        form: 1,
        ttl: Duration::from_secs(3_600),
        negative: Duration::from_secs(5),
        max_entries: 100,
        levels: Levels::Process,
    };

    #[tokio::test]
    async fn an_event_of_another_replica_removes_the_value() {
        each_backend(async |t| {
            let deps = Deps {
                clock: Arc::new(t.clock.clone()),
                random: Arc::new(SeededRandom::new(1)),
                registry: Registry::default(),
            };
            let (state, _driver) = State::local(&deps);
            let cache: Cache<String> = state.cache(&WORDS);
            let head = t.db.outbox().head().await.unwrap();
            let tenant = id::TENANT_DEFAULT;
            for word in ["a", "b"] {
                let load = || async { Ok::<_, String>(Some("old".to_owned())) };
                cache.get_or_load(tenant, word, load).await.unwrap();
            }
            let worker = evict_by_events(
                "test",
                &t.db,
                head,
                &["test.word.changed"],
                cache.clone(),
                |row| Some((id::TENANT_DEFAULT, row.payload["word"].as_str()?.to_owned())),
            );
            let stop = CancellationToken::new();
            let running = tokio::spawn((worker.run)(stop.clone()));
            // Another process: its commit wakes nobody here.
            let other = t.another().await;
            let tx = other.begin().await.unwrap();
            tx.publish("test.word.changed", "a", &json!({ "word": "a" }))
                .unwrap();
            tx.publish("test.word.changed", "?", &json!({ "strange": true }))
                .unwrap();
            tx.commit().await.unwrap();
            while cache.peek(tenant, "a").is_some() {
                tokio::task::yield_now().await;
            }
            assert!(
                cache.peek(tenant, "b").is_some(),
                "nothing else is forgotten"
            );
            stop.cancel();
            running.await.unwrap();
            other.close().await;
        })
        .await;
    }
}
