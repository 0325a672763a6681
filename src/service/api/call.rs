//! One call: what it says, and what it is answered.

use super::flow::Flow;
use crate::moment::Moment;
use crate::name::Name;
use crate::ops::Failure;
use crate::report::failure::Failed;
use crate::report::protection::Point;
use crate::service::Service;
use axum::body::Body;
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::{Response, StatusCode};
use landfall_image::{Error, Kind};
use std::collections::HashMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use uuid::Uuid;

/// What a call says besides its body.
pub(super) struct Call {
    pub service: Arc<Service>,
    /// Parts of the path.
    pub path: HashMap<String, String>,
    pub query: HashMap<String, String>,
    /// Who calls, for people.
    pub by: String,
    /// Its place among those whose bodies are of any length.
    pub flow: Mutex<Option<Flow>>,
}

/// Why a call is not answered as was asked.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: StatusCode,
    pub error: Error,
}

/// What a call comes to.
pub(super) type Outcome<A> = Result<A, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Refusal {
        let status = match error.kind() {
            Kind::Refused => StatusCode::CONFLICT,
            Kind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Interrupted => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Corrupt | Kind::Io => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal { status, error }
    }
}

impl Refusal {
    /// What is asked for is not there, where `error` is a refusal.
    pub(super) fn missing(error: Error) -> Refusal {
        match error.kind() {
            Kind::Refused => Refusal { status: StatusCode::NOT_FOUND, error },
            _ => error.into(),
        }
    }

    /// The call itself is wrong.
    pub(super) fn bad(error: Error) -> Refusal {
        Refusal { status: StatusCode::BAD_REQUEST, error }
    }

    pub(super) fn answer(self) -> Response<Body> {
        let status = self.status;
        let failed = Failed::from(&Failure::Error(self.error));
        let mut response = json(status, &failed).unwrap_or_else(|_| bare(status));
        let headers = response.headers_mut();
        match status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"landfall\""));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert("retry-after", HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }

    /// With the methods that there are.
    pub(super) fn answer_allowing(self, methods: &str) -> Response<Body> {
        let mut response = self.answer();
        if let Ok(methods) = HeaderValue::from_str(methods) {
            response.headers_mut().insert(ALLOW, methods);
        }
        response
    }
}

/// A document as an answer.
///
/// # Errors
/// Where it cannot be written down.
pub(super) fn json(status: StatusCode, document: &impl serde::Serialize) -> Result<Response<Body>, Error> {
    let text = serde_json::to_vec(document)
        .map_err(|error| Error::corrupt(format!("an answer cannot be written down: {error}")))?;
    Ok(whole(status, "application/json", text))
}

/// Bytes as an answer.
pub(super) fn whole(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    with_type(status, content_type, Body::from(bytes))
}

/// A body as an answer.
pub(super) fn with_type(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-content-type-options"), "nosniff"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

pub(super) fn bare(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

impl Call {
    fn part(&self, name: &str) -> Outcome<&str> {
        let part = self.path.get(name).map(String::as_str);
        part.ok_or_else(|| Refusal::bad(Error::refused(format!("the path says no {name}"))))
    }

    /// The machine's name in the path, whether or not there is one.
    pub(super) fn new_machine(&self) -> Outcome<Name> {
        self.part("name")?.parse().map_err(Refusal::bad)
    }

    /// A machine that is there.
    pub(super) fn machine(&self) -> Outcome<Name> {
        // What cannot be a name is none.
        let name: Name = self.part("name")?.parse().map_err(Refusal::missing)?;
        self.service.machine(&name).map_err(Refusal::missing)?;
        Ok(name)
    }

    pub(super) fn disk(&self) -> Outcome<Name> {
        self.part("disk")?.parse().map_err(Refusal::missing)
    }

    /// The name of a token or a certificate: another than a machine's.
    pub(super) fn plain_name(&self) -> Outcome<&str> {
        self.part("name")
    }

    /// A machine, and a point of it.
    pub(super) fn point(&self) -> Outcome<(Name, Point)> {
        let name = self.machine()?;
        let which = self.part("point")?.parse().map_err(Refusal::bad)?;
        let point = self.service.point(&name, &which).map_err(Refusal::missing)?;
        Ok((name, point))
    }

    /// The number of an upload or a receipt.
    pub(super) fn id(&self) -> Outcome<Uuid> {
        let text = self.part("id")?;
        text.parse()
            .map_err(|_| Refusal::missing(Error::refused(format!("{text:?} is no number of this kind"))))
    }

    /// A machine's name in the query, or a disk's.
    pub(super) fn named(&self, name: &str) -> Outcome<Name> {
        let text = self.query.get(name);
        let missing = || Refusal::bad(Error::refused(format!("the parameter {name} is missing")));
        text.ok_or_else(missing)?.parse().map_err(Refusal::bad)
    }

    /// The point's number, where the path says one.
    pub(super) fn number(&self) -> Option<u64> {
        self.path.get("point")?.parse().ok()
    }

    /// A parameter of the query.
    pub(super) fn query<T: FromStr>(&self, name: &str) -> Outcome<Option<T>> {
        let Some(text) = self.query.get(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Refusal::bad(
                Error::refused(format!("{text:?} can be no {name}"))
                    .hint("GET /openapi.json tells what can be"),
            )
        })
    }

    pub(super) fn moment(&self, name: &str) -> Outcome<Option<Moment>> {
        let text = self.query.get(name);
        text.map(|text| text.parse().map_err(Refusal::bad)).transpose()
    }
}
