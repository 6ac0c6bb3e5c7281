//! What services provide to each other at start: one implementation a contract, found by its type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

/// Contracts by type. Filled and read only while the process is built.
#[derive(Default)]
pub struct Provided(HashMap<TypeId, Box<dyn Any + Send + Sync>>);

impl Provided {
    /// Provides an implementation of a contract, replacing an earlier one.
    pub fn put<T: ?Sized + Send + Sync + 'static>(&mut self, contract: Arc<T>) {
        self.0.insert(TypeId::of::<Arc<T>>(), Box::new(contract));
    }

    /// The implementation, if a service built earlier provided one.
    #[must_use]
    pub fn get<T: ?Sized + Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0
            .get(&TypeId::of::<Arc<T>>())
            .and_then(|any| any.downcast_ref::<Arc<T>>())
            .cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    trait Greets: Send + Sync {
        fn greet(&self) -> &'static str;
    }

    struct English;

    impl Greets for English {
        fn greet(&self) -> &'static str {
            "hello"
        }
    }

    #[test]
    fn contracts_are_found_by_type() {
        let mut provided = Provided::default();
        assert!(provided.get::<dyn Greets>().is_none());
        provided.put::<dyn Greets>(Arc::new(English));
        assert_eq!(
            provided.get::<dyn Greets>().map(|g| g.greet()),
            Some("hello")
        );
    }
}
