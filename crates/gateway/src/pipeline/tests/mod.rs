//! The pipeline over real sockets: what reaches a service, what reaches the client, and what happens when things break.

mod access;
mod entering;
mod flow;
mod resilience;
mod rig;
mod watching;
