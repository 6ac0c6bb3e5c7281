//! Short messages with a login code or a notice: what each vendor wants signed, what its answers mean, and a chain of them.
//!
//! A [`Provider`] signs a request as a pure function, sends it, and classifies the answer by one table
//! ([`table::TABLES`]). A [`Run`] walks a chain of providers with one code and one budget of time: what
//! left the phone untouched goes on, what is about the number itself stops, and after an answer that
//! never came at most one more is tried. Nothing here knows a database.

mod aliyun;
mod breaker;
mod chain;
mod console;
mod endpoint;
mod hash;
mod message;
mod provider;
pub mod table;
mod tencent;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod twilio;
pub mod vectors;

pub use aliyun::Aliyun;
pub use breaker::{Breakers, ProviderState};
pub use chain::{Alert, Attempt, Ending, Limits, Link, Run};
pub use console::Console;
pub use endpoint::{Endpoint, EndpointError};
pub use message::{Content, Message, News, NoticeTemplates, Region, Signs, Templates};
pub use provider::{Outgoing, Provider, Stamp, Verdict};
pub use table::Class;
pub use tencent::Tencent;
pub use transport::{Reply, Sender};
pub use twilio::Twilio;
