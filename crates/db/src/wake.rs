//! Who wants to hear that events of a topic were committed: in this process, or anywhere.

use std::sync::{Arc, Weak};

use parking_lot::RwLock;

type Wake = dyn Fn(&str, u64) + Send + Sync;

/// The list of those to wake.
#[derive(Default)]
pub(crate) struct Wakers(Arc<RwLock<List>>);

#[derive(Default)]
struct List {
    next: u64,
    entries: Vec<Entry>,
}

#[derive(Clone)]
struct Entry {
    id: u64,
    topic: Option<String>,
    hears: Hears,
    wake: Arc<Wake>,
}

/// Which commits a waker hears of: who tells other replicas hears its own process's only, or news would circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hears {
    /// Of commits of this process.
    Own,
    /// Of those of other replicas too.
    All,
}

/// Keeps a waker in the list; dropping it takes it out.
#[must_use = "dropping the subscription ends it"]
pub struct Subscription {
    id: u64,
    list: Weak<RwLock<List>>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(list) = self.list.upgrade() {
            list.write().entries.retain(|e| e.id != self.id);
        }
    }
}

impl Wakers {
    pub(crate) fn add(&self, topic: Option<&str>, hears: Hears, wake: Arc<Wake>) -> Subscription {
        let mut list = self.0.write();
        list.next += 1;
        let id = list.next;
        list.entries.push(Entry {
            id,
            topic: topic.map(str::to_owned),
            hears,
            wake,
        });
        Subscription {
            id,
            list: Arc::downgrade(&self.0),
        }
    }

    /// A transaction of this process has published.
    pub(crate) fn committed(&self, topic: &str, seq: u64) {
        self.call(topic, seq, |_| true);
    }

    /// Another replica says that one of its transactions has published.
    pub(crate) fn heard(&self, topic: &str, seq: u64) {
        self.call(topic, seq, |hears| hears == Hears::All);
    }

    /// Messages of other replicas may have been lost: everybody looks for himself.
    pub(crate) fn heard_all(&self) {
        let wakes: Vec<(String, Arc<Wake>)> = self
            .0
            .read()
            .entries
            .iter()
            .filter(|e| e.hears == Hears::All)
            .map(|e| (e.topic.clone().unwrap_or_default(), Arc::clone(&e.wake)))
            .collect();
        for (topic, wake) in wakes {
            wake(&topic, 0);
        }
    }

    fn call(&self, topic: &str, seq: u64, wanted: impl Fn(Hears) -> bool) {
        // Called without the lock, so that a waker may end its own subscription.
        let wakes: Vec<Arc<Wake>> = self
            .0
            .read()
            .entries
            .iter()
            .filter(|e| wanted(e.hears) && e.topic.as_deref().is_none_or(|t| t == topic))
            .map(|e| Arc::clone(&e.wake))
            .collect();
        for wake in wakes {
            wake(topic, seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn only_subscribers_of_the_topic_wake_until_they_leave() {
        let wakers = Wakers::default();
        let heard = Arc::new(AtomicU64::new(0));
        let (a, b) = (Arc::clone(&heard), Arc::clone(&heard));
        let one = wakers.add(
            Some("x"),
            Hears::All,
            Arc::new(move |_: &str, seq| {
                a.fetch_add(seq, Ordering::SeqCst);
            }),
        );
        let all = wakers.add(
            None,
            Hears::Own,
            Arc::new(move |_: &str, seq| {
                b.fetch_add(100 * seq, Ordering::SeqCst);
            }),
        );
        wakers.committed("x", 1);
        wakers.committed("y", 2);
        assert_eq!(heard.load(Ordering::SeqCst), 301);
        wakers.heard("x", 1);
        assert_eq!(heard.load(Ordering::SeqCst), 302);
        drop(one);
        wakers.committed("x", 1);
        assert_eq!(heard.load(Ordering::SeqCst), 402);
        drop(all);
    }
}
