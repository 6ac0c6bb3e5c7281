//! Tests of settings on both databases.

mod changes;
mod fuzz;
mod model;
mod plugins;
mod replicas;
mod rig;
mod rollbacks;
mod scopes;
mod secrets;
mod trees;
mod watches;
