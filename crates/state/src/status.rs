//! How the state is doing, for `/health` and the system page.

use portico_base::Timestamp;

/// The state at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateStatus {
    /// Redis, when one is configured.
    pub redis: Option<RedisStatus>,
    /// True while shared limits are really shared; false when each process takes its share.
    pub limits_shared: bool,
}

/// Redis at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisStatus {
    /// True when commands are answered.
    pub up: bool,
    /// True when messages of other replicas arrive.
    pub bus_up: bool,
    /// True when the way to it leaves this machine without encryption (SC-13).
    pub plain: bool,
    /// Since when `up` is as it is.
    pub since: Timestamp,
    /// The last failure, without credentials.
    pub last_error: Option<String>,
}
