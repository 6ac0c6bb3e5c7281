//! Targets of written routes: rewritten paths towards services, and answers of the route's own.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;

use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};

use super::authorise;
use super::caller::{Strange, Towards};
use super::door::{Door, Local};
use super::record::Log;
use super::refusal::Refusal;
use super::transform::{Fill, Template};
use super::way::{bad_path, fill, maintenance, missed};
use crate::body::{ReqBody, RespBody};
use crate::objects::doc::{Rewrite, Target};
use crate::route::table::{Miss, Route};
use crate::serve::Stream;

impl Door {
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one request, each needed by some target"
    )]
    pub(super) async fn own_target(
        self: &Rc<Self>,
        local: &Rc<Local>,
        route: &Arc<Route>,
        path: &str,
        host: &str,
        params: &[(&str, &str)],
        request: Request<ReqBody>,
        stream: &Rc<Stream>,
        log: &mut Log,
    ) -> Result<Response<RespBody>, Refusal> {
        let access = route.plan.access.as_ref();
        let needs =
            access.is_some_and(|a| !a.public && (!a.roles.is_empty() || !a.permissions.is_empty()));
        let identity = if needs {
            let to = Towards {
                service: "",
                host,
                strange: Strange::Refuse,
            };
            self.identify(local, &to, &request, log).await?
        } else {
            self.identifier.anonymous()
        };
        if let Some(keys) = &identity.keys {
            stream.set_keys(Rc::clone(keys));
        }
        maintenance(local, &identity)?;
        authorise::principal(
            &identity.principal,
            access,
            None,
            portico_contract::directory::DefaultAccess::Public,
        )?;
        match &route.doc.target {
            Target::Directory(directory) => {
                let below = rewritten_directory(route, path);
                super::files::serve(
                    directory,
                    &self.gate.file_roots,
                    &below,
                    request.method(),
                    request.headers(),
                )
                .await
            }
            Target::Redirect(to) => {
                let other = [
                    ("path", path),
                    ("query", request.uri().query().unwrap_or("")),
                    ("host", host),
                ];
                let with = Fill {
                    other: &other,
                    ..fill(&identity, &log.request_id, params)
                };
                let status =
                    StatusCode::from_u16(to.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
                Ok(redirect(&Template::parse(&to.to).fill(&with), status))
            }
            Target::Fixed(fixed) => Ok(super::files::fixed(fixed)),
            Target::Service(_) | Target::Services(_) => Err(missed(Miss::Nothing)),
        }
    }
}

/// The path that a route's service gets.
pub(crate) fn rewritten<'a>(
    route: &Route,
    path: &'a str,
    captured: &[(&str, &str)],
) -> Cow<'a, str> {
    match &route.doc.rewrite {
        None => path.into(),
        Some(Rewrite::Prefix(to)) => {
            let rest = path
                .strip_prefix(route.doc.path.text().trim_end_matches('/'))
                .unwrap_or(path);
            let joined = format!("{}{rest}", to.trim_end_matches('/'));
            if joined.is_empty() {
                "/".into()
            } else {
                joined.into()
            }
        }
        Some(Rewrite::Path(to)) => {
            let fill = Fill {
                user: "",
                tenant: "",
                request_id: "",
                params: &[],
                other: captured,
            };
            Template::parse(to).fill(&fill).into()
        }
    }
}

/// The path below a directory: without the route's prefix.
fn rewritten_directory<'a>(route: &Route, path: &'a str) -> Cow<'a, str> {
    match &route.doc.rewrite {
        None => path
            .strip_prefix(route.doc.path.text().trim_end_matches('/'))
            .unwrap_or(path)
            .into(),
        Some(_) => rewritten(route, path, &[]),
    }
}

/// A URI of a path that was normalised, and a query as it came.
pub(super) fn uri(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let text = query.map_or_else(|| path.to_owned(), |q| format!("{path}?{q}"));
    PathAndQuery::try_from(text)
        .map(Uri::from)
        .map_err(|_| bad_path("the path cannot be forwarded"))
}

pub(super) fn redirect(to: &str, status: StatusCode) -> Response<RespBody> {
    let mut response = Response::new(RespBody::empty());
    *response.status_mut() = status;
    if let Ok(location) = HeaderValue::from_str(to) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
