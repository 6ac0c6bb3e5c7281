//! The vocabulary of the house: ids, clock, randomness, error kinds, principals, secrets, masking.
//!
//! Nothing here performs I/O or needs a runtime; every other crate may depend on it.

pub mod clock;
pub mod context;
pub mod envelope;
pub mod error;
pub mod id;
pub mod mask;
pub mod name;
pub mod principal;
pub mod random;
pub mod secret;
pub mod tx;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use context::{Caller, Context};
pub use error::{ErrorKind, Fault, FieldFault};
pub use principal::{Access, Permission, Principal, PrincipalKind, Refusal, authorise};
pub use random::{Random, SeededRandom, SystemRandom};
pub use secret::Secret;
pub use tx::Tx;
