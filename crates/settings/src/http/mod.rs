//! The API below `/api/settings`, one file a resource.

mod applied;
mod changes;
mod exchange;
mod history;
mod keys;
mod rollback;
mod values;
mod watch;

use std::sync::Arc;

use axum::extract::Extension;
use axum::extract::FromRequestParts;
use http::request::Parts;
use portico_base::{Context, Refusal};
use portico_web::{Ambient, Built, Problem, Routes};
use utoipa::openapi::OpenApi;

use crate::error::Error;
use crate::hub::Core;

/// Largest body: a hundred values of 64 KiB.
const BODY_LIMIT: usize = 8 * 1024 * 1024;

/// What the handlers share.
pub(crate) type Api = Arc<Core>;

/// All routes.
pub(crate) fn routes(api: Api) -> Built {
    all().build(api, BODY_LIMIT)
}

/// The OpenAPI document of all routes.
pub(crate) fn openapi() -> OpenApi {
    all().openapi()
}

fn all() -> Routes<Api> {
    let all = values::add(Routes::new());
    let all = changes::add(all);
    let all = rollback::add(all);
    let all = history::add(all);
    let all = watch::add(all);
    let all = applied::add(all);
    let all = exchange::add(all);
    keys::add(all)
}

/// Who answers a use-case's wish for a stronger session: which settings are changed decides, not the route.
struct Doorman(Option<Ambient>);

impl<S: Send + Sync> FromRequestParts<S> for Doorman {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let ambient = Extension::<Ambient>::from_request_parts(parts, state).await;
        Ok(Self(ambient.ok().map(|Extension(ambient)| ambient)))
    }
}

impl Doorman {
    /// An error as a problem, with the ways to a stronger session where that is what is missing.
    async fn tell(self, cx: &Context, error: Error) -> Problem {
        let weak = matches!(error, Error::Access(Refusal::StepUp));
        let problem = Problem::from(error);
        let step_up = self.0.and_then(|ambient| ambient.step_up);
        let (true, Some(step_up)) = (weak, step_up) else {
            return problem;
        };
        let Some(challenge) = step_up.challenge(cx.principal()).await else {
            return problem;
        };
        problem
            .with_member("methods", challenge.methods.into())
            .with_member("ticket", challenge.ticket.expose().as_str().into())
    }
}
