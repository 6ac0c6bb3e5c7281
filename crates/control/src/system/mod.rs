//! The state of the installation: what there is, how it does, and a sentence about each.

pub(crate) mod levels;
mod look;
mod words;

pub(crate) use look::look;
pub(crate) use words::{Item, Status};

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use portico_contract::certificates::Certificates;
use portico_host::{BuildCx, Health};
use portico_objects::Objects;
use portico_state::State;

use self::levels::LogLevels;

/// What is looked at besides the database.
pub(crate) struct Sources {
    pub(crate) health: Arc<OnceLock<Health>>,
    pub(crate) state: State,
    pub(crate) objects: Objects,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) data_dir: PathBuf,
    pub(crate) replica: Arc<str>,
    pub(crate) levels: Arc<LogLevels>,
}

impl Sources {
    /// Everything from the host's ground; certificates come when somebody listens with them.
    pub(crate) fn new(cx: &mut BuildCx<'_>) -> Self {
        let certificates: Arc<Certificates> = Arc::default();
        cx.provide::<Certificates>(Arc::clone(&certificates));
        Self {
            health: Arc::clone(cx.health),
            state: cx.state.clone(),
            objects: cx.objects.clone(),
            certificates,
            data_dir: cx.node.data_dir.clone(),
            replica: Arc::clone(&cx.node.name),
            levels: LogLevels::new(cx.telemetry.clone(), Arc::clone(cx.clock)),
        }
    }
}
