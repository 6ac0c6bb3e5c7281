//! What every operation of the OpenAPI document says without being told: who may call it, and how it refuses.

use http::Method;
use portico_base::Access;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem, Paths};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr};
use utoipa::{PartialSchema as _, ToSchema as _};

use crate::problem::{FieldProblem, Problem};

/// Name of the one answer that all refusals have.
const PROBLEM: &str = "Problem";
/// What any request can get: bad input, a bad credential (also where none is needed), no right, a limit, and
/// something behind us that is away.
const ALWAYS: [&str; 5] = ["400", "401", "403", "429", "503"];

/// Completes the operations of routes that `access` may call.
pub(crate) fn complete(paths: &mut Paths, access: &Access) {
    for item in paths.paths.values_mut() {
        for operation in operations(item) {
            if *access == Access::Public {
                operation.security = Some(Vec::new());
            }
            refusals(operation);
        }
    }
}

/// Adds what [`complete`] refers to.
pub(crate) fn define(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let mut needed = vec![
        (Problem::name().into_owned(), Problem::schema()),
        (FieldProblem::name().into_owned(), FieldProblem::schema()),
    ];
    Problem::schemas(&mut needed);
    components.schemas.extend(needed);
    let answer = ResponseBuilder::new()
        .description("A refusal (RFC 9457); programs compare `code`.")
        .content(
            "application/problem+json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(Problem::name())))
                .build(),
        )
        .build();
    components
        .responses
        .insert(PROBLEM.to_owned(), RefOr::T(answer));
}

/// Methods of which no operation takes anything from the query.
pub(crate) fn without_query(paths: &Paths) -> Vec<Method> {
    let takes = |operation: &Operation| {
        let all = operation.parameters.iter().flatten();
        all.into_iter()
            .any(|one| matches!(one, RefOr::T(p) if matches!(p.parameter_in, ParameterIn::Query)))
    };
    let mut methods = Vec::new();
    for item in paths.paths.values() {
        let all = [
            (Method::GET, &item.get),
            (Method::PUT, &item.put),
            (Method::POST, &item.post),
            (Method::PATCH, &item.patch),
            (Method::DELETE, &item.delete),
        ];
        let silent = all.into_iter().filter(|(_, of)| {
            let there = of.as_ref();
            there.is_some_and(|operation| !takes(operation))
        });
        methods.extend(silent.map(|(method, _)| method));
    }
    methods
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.patch,
        &mut item.delete,
        &mut item.head,
    ]
    .into_iter()
    .flatten()
}

fn refusals(operation: &mut Operation) {
    let sends = operation.request_body.is_some();
    // What is named in the path, the query or the body may not be there.
    let named = sends || operation.parameters.as_ref().is_some_and(|p| !p.is_empty());
    let told = &mut operation.responses.responses;
    let also = [(named, "404"), (sends, "413")];
    let also = also.iter().filter(|(so, _)| *so).map(|(_, status)| *status);
    for status in ALWAYS.into_iter().chain(also) {
        told.entry(status.to_owned()).or_insert_with(problem);
    }
    for (status, answer) in told.iter_mut() {
        let bare = matches!(answer, RefOr::T(Response { content, .. }) if content.is_empty());
        if bare && (status.starts_with('4') || status.starts_with('5')) {
            *answer = problem();
        }
    }
}

fn problem() -> RefOr<Response> {
    RefOr::Ref(Ref::from_response_name(PROBLEM))
}
