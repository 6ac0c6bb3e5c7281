//! The use-cases: each checks rights, opens the transaction, writes, audits, tells and commits.

pub(crate) mod applied;
pub(crate) mod change;
pub(crate) mod exchange;
pub(crate) mod history;
pub(crate) mod plan;
pub(crate) mod read;
pub(crate) mod rollback;
pub(crate) mod rotate;
pub(crate) mod scope;
pub(crate) mod watch;
