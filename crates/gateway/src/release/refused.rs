//! Why a verb does not fit what goes on with a release; all of them are conflicts (409).

use crate::objects::doc::{Phase, Previous};

/// A verb that does not fit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the release has no candidate")]
    NoCandidate,
    #[error("`{verb}` does not fit: the release is {}", .phase.as_str())]
    Phase { verb: &'static str, phase: Phase },
    #[error("the candidate is at the last step; `promote` makes it the stable version")]
    LastStep,
    #[error("the candidate was stopped; `step` begins its trial anew")]
    Aborted,
    #[error("no instance of version {0} can answer")]
    NotReady(String),
    #[error("there is no version before to return to")]
    NoPrevious,
    #[error(
        "version {} was kept ready until {}; name it as `stable`, or roll back `to` a version of the document",
        .0.version, .0.until.format("%Y-%m-%dT%H:%M:%SZ")
    )]
    WindowOver(Previous),
    #[error("somebody else changed the release at the same moment; look at it again")]
    Changed,
}

impl Refused {
    /// The stable code.
    pub(crate) const fn code(&self) -> &'static str {
        match self {
            Self::NoCandidate => "gateway.release_no_candidate",
            Self::Phase { .. } => "gateway.release_phase",
            Self::LastStep => "gateway.release_last_step",
            Self::Aborted => "gateway.release_aborted",
            Self::NotReady(_) => "gateway.version_not_ready",
            Self::NoPrevious => "gateway.release_no_previous",
            Self::WindowOver(_) => "gateway.rollback_window_over",
            Self::Changed => "gateway.release_changed",
        }
    }
}
