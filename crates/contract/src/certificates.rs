//! The certificates that a process listens with, for whoever watches over their ends.

use std::sync::{Arc, PoisonError, RwLock};

/// A certificate in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Its first name.
    pub name: String,
    /// End of its validity in Unix seconds.
    pub ends_s: i64,
}

type Read = Arc<dyn Fn() -> Vec<Certificate> + Send + Sync>;

/// Provided empty by whoever shows certificates, and filled by whoever listens with them.
#[derive(Default)]
pub struct Certificates(RwLock<Vec<Read>>);

impl Certificates {
    /// Adds those of a listener.
    pub fn add(&self, read: impl Fn() -> Vec<Certificate> + Send + Sync + 'static) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::new(read));
    }

    /// The certificates in use now, by name.
    #[must_use]
    pub fn read(&self) -> Vec<Certificate> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut found: Vec<Certificate> = all.iter().flat_map(|read| read()).collect();
        found.sort_by(|a, b| (&a.name, a.ends_s).cmp(&(&b.name, b.ends_s)));
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_of_all_listeners_are_read_once_each() {
        let all = Certificates::default();
        let one = |name: &str, ends_s| Certificate {
            name: name.to_owned(),
            ends_s,
        };
        all.add(move || vec![one("b", 2), one("a", 1)]);
        all.add(move || vec![one("b", 2)]);
        assert_eq!(all.read(), [one("a", 1), one("b", 2)]);
    }
}
