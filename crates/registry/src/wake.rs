//! Waiting for a change of one thing among many, without waking those who wait for others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Waiters by topic. Topics without waiters cost nothing. Cheap to clone.
pub(crate) struct Topics<K: Eq + Hash>(Arc<Mutex<HashMap<K, Arc<Notify>>>>);

impl<K: Eq + Hash> Clone for Topics<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + Hash> Default for Topics<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Topics<K> {
    /// Begins to listen. Whoever looks at the state *after* this call and then waits misses nothing.
    pub(crate) fn listen(&self, topic: K) -> Listener<K> {
        let notify = Arc::clone(self.0.lock().entry(topic.clone()).or_default());
        // A future that exists counts as waiting for `notify_waiters`, polled or not.
        let notified = Arc::clone(&notify).notified_owned();
        Listener {
            topics: self.clone(),
            topic,
            notify,
            notified: Some(Box::pin(notified)),
        }
    }

    /// Wakes everybody who listens to the topic.
    pub(crate) fn wake(&self, topic: &K) {
        if let Some(notify) = self.0.lock().get(topic) {
            notify.notify_waiters();
        }
    }

    /// Wakes everybody whose topic fits.
    pub(crate) fn wake_where(&self, fits: impl Fn(&K) -> bool) {
        for (topic, notify) in self.0.lock().iter() {
            if fits(topic) {
                notify.notify_waiters();
            }
        }
    }

    /// Wakes everybody.
    pub(crate) fn wake_all(&self) {
        for notify in self.0.lock().values() {
            notify.notify_waiters();
        }
    }

    /// Topics that somebody listens to.
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// Somebody who listens; leaves when dropped.
pub(crate) struct Listener<K: Eq + Hash + Clone> {
    topics: Topics<K>,
    topic: K,
    notify: Arc<Notify>,
    notified: Option<std::pin::Pin<Box<OwnedNotified>>>,
}

impl<K: Eq + Hash + Clone> Listener<K> {
    /// Waits for the next wake-up since [`Topics::listen`].
    pub(crate) async fn woken(mut self) {
        if let Some(notified) = self.notified.take() {
            notified.await;
        }
    }
}

impl<K: Eq + Hash + Clone> Drop for Listener<K> {
    fn drop(&mut self) {
        self.notified = None;
        let mut map = self.topics.0.lock();
        // The map and this listener hold the last two handles: nobody else waits. Listening takes the
        // same lock, so that nobody can come in between.
        if Arc::strong_count(&self.notify) <= 2 {
            map.remove(&self.topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_topic_wakes_and_nothing_is_left() {
        let topics: Topics<&str> = Topics::default();
        let (a, a2, b) = (topics.listen("a"), topics.listen("a"), topics.listen("b"));
        assert_eq!(topics.len(), 2);
        topics.wake(&"a");
        a.woken().await;
        a2.woken().await;
        assert_eq!(topics.len(), 1);
        let mut waiting = Box::pin(b.woken());
        assert!(
            futures_util::poll!(waiting.as_mut()).is_pending(),
            "the other topic did not wake"
        );
        topics.wake_all();
        waiting.await;
        assert_eq!(topics.len(), 0);
    }
}
