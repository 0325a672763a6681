//! One request: who asks, what is taken of the service for it, and the answer.
//!
//! Whoever is not let in is told so before the body is read.

use super::call::{Call, Refusal};
use super::caller::{Caller, Guest, let_in, let_send};
use super::flow::{self, Flowing};
use super::server::Shared;
use super::table::{Route, Work, routes};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use axum::routing::{MethodFilter, on};
use landfall_image::{Error, Kind};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Where a request comes from, and what flows there.
#[derive(Clone)]
pub(super) struct Place(pub Guest, pub Flowing);

/// The router of all routes.
pub(super) fn router(shared: &Arc<Shared>) -> Router {
    let mut router = Router::new();
    let mut methods: HashMap<&'static str, Vec<Method>> = HashMap::new();
    for route in routes() {
        let Ok(filter) = MethodFilter::try_from(route.method.clone()) else { continue };
        methods.entry(route.path).or_default().push(route.method.clone());
        let (path, route, shared) = (route.path, Arc::new(route), Arc::clone(shared));
        let handler = move |request: Request| answer(Arc::clone(&shared), Arc::clone(&route), request);
        router = router.route(path, on(filter, handler));
    }
    router = router.fallback(async |request: Request| {
        let error = Error::refused(format!("there is nothing at {:?}", request.uri().path()))
            .hint("GET /openapi.json tells what there is");
        Refusal { status: StatusCode::NOT_FOUND, error }.answer()
    });
    let methods = Arc::new(methods);
    router.method_not_allowed_fallback(
        async move |matched: Option<axum::extract::MatchedPath>, method: Method| {
            let there = matched.and_then(|path| methods.get(path.as_str()).cloned()).unwrap_or_default();
            let there: Vec<&str> = there.iter().map(Method::as_str).collect();
            let error = Error::refused(format!("{method} is not possible here"))
                .hint(format!("possible: {}", there.join(", ")));
            Refusal { status: StatusCode::METHOD_NOT_ALLOWED, error }.answer_allowing(&there.join(", "))
        },
    )
}

/// Answers one request.
async fn answer(shared: Arc<Shared>, route: Arc<Route>, request: Request) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let from = parts.extensions.get::<Place>().cloned();
    let origin = from.as_ref().map(|from| from.0.origin);
    let path = parts.uri.path().to_owned();
    let done = match from {
        Some(from) => work(&shared, &route, &mut parts, body, from).await,
        None => Err(Refusal::bad(Error::refused("nobody knows where this comes from"))),
    };
    let (response, caller) = match done {
        Ok((response, caller)) => (response, caller.to_string()),
        Err(refusal) => {
            let (status, error) = (refusal.status.as_u16(), refusal.error.to_string());
            let origin = origin.map(|origin| origin.to_string()).unwrap_or_default();
            match refusal.status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => shared.complaints.say(|more| {
                    tracing::warn!(peer = origin, path, error, more, "a call of the API is refused")
                }),
                _ => {
                    tracing::info!(peer = origin, method = %route.method, path, status, error, "a call of the API is not done")
                }
            }
            return refusal.answer();
        }
    };
    // What a send consists of is too much for the log.
    if route.method != Method::GET && !(route.sends && route.method == Method::POST) {
        tracing::info!(%caller, method = %route.method, path, "a call of the API is done");
    }
    response
}

async fn work(
    shared: &Arc<Shared>,
    route: &Arc<Route>,
    parts: &mut Parts,
    body: Body,
    Place(guest, flowing): Place,
) -> std::result::Result<(Response<Body>, Caller), Refusal> {
    let Path(path) =
        Path::<HashMap<String, String>>::from_request_parts(parts, &()).await.map_err(unreadable)?;
    let Query(query) =
        Query::<HashMap<String, String>>::from_request_parts(parts, &()).await.map_err(unreadable)?;
    let known = |name: &String| route.query.iter().any(|(known, _)| known == name);
    if let Some(unknown) = query.keys().find(|name| !known(name)) {
        let error = Error::refused(format!("the parameter {unknown:?} is not known here"))
            .hint("GET /openapi.json tells which are");
        return Err(Refusal::bad(error));
    }
    let service = Arc::clone(&shared.service);
    let Some(needs) = route.role else {
        // Answered on the spot, however busy the rest is.
        let call = Call { service, path, query, by: Caller::Anybody.to_string(), flow: Mutex::default() };
        return Ok((done(route, &call, &Bytes::new())?, Caller::Anybody));
    };
    let wait = shared.limits.wait;
    // Before the body is read: a stranger's takes no memory.
    let (asked, headers) = (Arc::clone(&service), parts.headers.clone());
    let machine = path.get("name").cloned().unwrap_or_default();
    let sends = route.sends;
    let caller = {
        let _place = place(&shared.work, wait).await?;
        blocking(move || match sends {
            true => let_send(&asked, &guest, &headers, &machine),
            false => let_in(asked.catalog(), guest.origin, &headers, needs),
        })
        .await?
    };
    let _large = match (route.is_large(), sends) {
        (true, true) => Some(place(&shared.sends, wait).await?),
        (true, false) => Some(place(&shared.large, wait).await?),
        (false, _) => None,
    };
    let flow = match route.flows {
        true => {
            let place = tokio::time::timeout(wait, Arc::clone(&shared.flows).acquire_owned()).await;
            Some(flowing.begin(place.ok().and_then(std::result::Result::ok).ok_or_else(too_much)?))
        }
        false => None,
    };
    let call = Call { service, path, query, by: caller.to_string(), flow: Mutex::new(flow) };
    let route = Arc::clone(route);
    if let Work::Flowing(work) = route.work {
        let (mut reader, bring) = flow::incoming(body, shared.limits.silence);
        let working = blocking(move || work(&call, &mut reader));
        tokio::pin!(working, bring);
        let response = tokio::select! {
            done = &mut working => done,
            () = &mut bring => working.await,
        };
        return Ok((with_status(&route, response?), caller));
    }
    let body = read(shared, &route, body).await?;
    let _place = match route.flows {
        true => None,
        false => Some(place(&shared.work, wait).await?),
    };
    let response = blocking(move || done(&route, &call, &body)).await?;
    Ok((response, caller))
}

fn done(route: &Route, call: &Call, body: &Bytes) -> std::result::Result<Response<Body>, Refusal> {
    match &route.work {
        Work::Whole(work) => Ok(with_status(route, work(call, body)?)),
        Work::Flowing(work) => Ok(with_status(route, work(call, &mut body.as_ref())?)),
    }
}

fn with_status(route: &Route, mut response: Response<Body>) -> Response<Body> {
    *response.status_mut() = route.gives.status;
    response
}

/// A place among those that work, in time.
async fn place(places: &Semaphore, wait: Duration) -> std::result::Result<SemaphorePermit<'_>, Refusal> {
    match tokio::time::timeout(wait, places.acquire()).await {
        Ok(Ok(place)) => Ok(place),
        _ => Err(too_much()),
    }
}

fn too_much() -> Refusal {
    Refusal {
        status: StatusCode::SERVICE_UNAVAILABLE,
        error: Error::new(Kind::Interrupted, "too much is asked of the service at this moment")
            .hint("ask again in a moment"),
    }
}

fn unreadable(rejection: impl std::fmt::Display) -> Refusal {
    Refusal::bad(Error::refused(format!("the address cannot be read: {rejection}")))
}

/// Work that may wait for files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, Refusal> + Send + 'static,
) -> std::result::Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a defect of landfall ended a call of the API");
        Err(Refusal {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            error: Error::new(Kind::Io, "a defect of landfall ended this call")
                .hint("the service's log has more"),
        })
    })
}

async fn read(shared: &Shared, route: &Route, body: Body) -> std::result::Result<Bytes, Refusal> {
    // A body that nobody wants may be there; a short one is read past.
    let at_most = route.takes.as_ref().map_or(1024, |takes| takes.at_most);
    let whole = tokio::time::timeout(shared.limits.body, axum::body::to_bytes(body, at_most)).await;
    match whole {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => {
            let is_long = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("length limit"));
            let (status, says) = match is_long {
                true => (StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {at_most} bytes")),
                false => (StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}")),
            };
            Err(Refusal { status, error: Error::refused(says) })
        }
        Err(_) => Err(Refusal {
            status: StatusCode::REQUEST_TIMEOUT,
            error: Error::refused("the body took too long to come"),
        }),
    }
}
