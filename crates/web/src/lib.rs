//! HTTP conventions of the house on axum: problems, extractors, routes that declare who may call them, paging.

mod describe;
pub mod extract;
pub mod failures;
pub mod lean;
pub mod page;
pub mod problem;
pub mod routes;
pub mod serve;
pub mod step_up;
mod strict;
pub mod version;

pub use extract::{Ambient, Came, Cx, Json, PluginProtocol, Query};
pub use failures::{Failed, Failures, Reporter};
pub use page::{Cursor, Page, PageQuery};
pub use problem::{ApiResult, Problem};
pub use routes::{Built, RouteInfo, Routes};
pub use step_up::{Challenge, StepUp};
pub use version::{IfMatch, etag};

pub use utoipa_axum::routes;
