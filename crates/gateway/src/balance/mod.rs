//! Which instance a request goes to, and which are left alone for a while: policies, breakers, retry budgets.
//!
//! Everything here is a function of numbers that are passed in: the time in milliseconds and a [`Dice`].
//! What workers share is atomic; nothing locks.

pub mod backoff;
pub mod breaker;
pub mod budget;
pub mod dice;
pub mod ewma;
pub mod flow;
pub mod load;
pub mod pool;
pub mod ring;
#[cfg(test)]
mod simulation;
pub mod window;

pub use breaker::{Breaker, BreakerSettings, Change, Forced, Phase};
pub use dice::Dice;
pub use flow::Flow;
pub use load::{Attempted, Load};
pub use pool::{Choice, Member, Policy, Pool};
