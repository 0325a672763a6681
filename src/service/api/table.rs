//! The routes: each once, with all that there is to know of it.

use super::call::{Call, Outcome, Refusal, bare, json, whole, with_type};
use super::{handlers, metrics, replica};
use crate::receive::send::frame;
use crate::report::api::Role;
use crate::report::receiving::Uploaded;
use axum::body::{Body, Bytes};
use axum::http::{Method, Response, StatusCode};
use landfall_image::Error;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a body.
const SMALL: usize = 64 << 10;
/// Of one that brings a definition (16 MiB at most) and variables.
const LARGE: usize = 24 << 20;

/// Bytes without a further type.
const BYTES: &str = "application/octet-stream";

/// One route.
pub(super) struct Route {
    pub method: Method,
    /// With `{part}` for its parts.
    pub path: &'static str,
    /// Who may; anybody where it says nothing.
    pub role: Option<Role>,
    /// It is for another landfall that sends the machine in its path: its certificate counts.
    pub sends: bool,
    /// For people, in one sentence.
    pub says: &'static str,
    /// Parameters of the query: name and what it is.
    pub query: &'static [(&'static str, &'static str)],
    pub takes: Option<Takes>,
    pub gives: Gives,
    /// Its body or its answer is of any length: such a call takes a place of its own, for as long as it likes.
    pub flows: bool,
    pub work: Work,
}

/// Answers a call and its body.
type Answering = dyn Fn(&Call, &Bytes) -> Outcome<Response<Body>> + Send + Sync;

/// Does what is asked; may block. What it answers has the status of [`Gives`].
pub(super) enum Work {
    /// With the body, all of it.
    Whole(Box<Answering>),
    /// With a body of any length, as it comes.
    Flowing(fn(&Call, &mut dyn std::io::Read) -> Outcome<Response<Body>>),
}

/// What a body is.
pub(super) struct Takes {
    /// Bytes.
    pub at_most: usize,
    /// Of a document; without, it is bytes.
    pub schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Takes {
    fn document<B: JsonSchema>() -> Takes {
        Takes { at_most: SMALL, schema: Some(|generator| generator.subschema_for::<B>()) }
    }
}

/// What an answer is, where all is well.
pub(super) struct Gives {
    pub status: StatusCode,
    pub content_type: &'static str,
    /// Of a document.
    pub schema: Option<fn(&mut SchemaGenerator) -> Schema>,
}

impl Gives {
    fn document<A: JsonSchema>() -> Gives {
        Gives {
            status: StatusCode::OK,
            content_type: "application/json",
            schema: Some(|generator| generator.subschema_for::<A>()),
        }
    }
}

/// A route that answers a question.
fn ask<A: Serialize + JsonSchema + 'static>(
    path: &'static str,
    role: Role,
    says: &'static str,
    work: fn(&Call) -> Outcome<A>,
) -> Route {
    Route {
        gives: Gives::document::<A>(),
        work: Work::Whole(Box::new(move |call, _| Ok(json(StatusCode::OK, &work(call)?)?))),
        ..Route::new(Method::GET, path, role, says)
    }
}

/// A route that does something, and answers how it is then. A body that is missing is an empty document.
fn order<B: DeserializeOwned + JsonSchema + 'static, A: Serialize + JsonSchema + 'static>(
    method: Method,
    path: &'static str,
    role: Role,
    says: &'static str,
    work: fn(&Call, B) -> Outcome<A>,
) -> Route {
    Route {
        takes: Some(Takes::document::<B>()),
        gives: Gives::document::<A>(),
        work: Work::Whole(Box::new(move |call, body| Ok(json(StatusCode::OK, &work(call, parsed(body)?)?)?))),
        ..Route::new(method, path, role, says)
    }
}

/// A route that asks by a document, and answers with bytes.
fn look_up<B: DeserializeOwned + JsonSchema + 'static>(
    path: &'static str,
    role: Role,
    says: &'static str,
    work: fn(&Call, B) -> Outcome<Vec<u8>>,
) -> Route {
    Route {
        takes: Some(Takes::document::<B>()),
        gives: Gives { status: StatusCode::OK, content_type: BYTES, schema: None },
        work: Work::Whole(Box::new(move |call, body| {
            Ok(whole(StatusCode::OK, BYTES, work(call, parsed(body)?)?))
        })),
        ..Route::new(Method::POST, path, role, says)
    }
}

/// A route that takes bytes, and answers what became of them.
fn take<A: Serialize + JsonSchema + 'static>(
    path: &'static str,
    role: Role,
    says: &'static str,
    at_most: usize,
    work: fn(&Call, &[u8]) -> Outcome<A>,
) -> Route {
    Route {
        takes: Some(Takes { at_most, schema: None }),
        gives: Gives::document::<A>(),
        work: Work::Whole(Box::new(move |call, body| Ok(json(StatusCode::OK, &work(call, body)?)?))),
        ..Route::new(Method::POST, path, role, says)
    }
}

/// A route that does something without being told more, and answers how it is then.
fn act<A: Serialize + JsonSchema + 'static>(
    method: Method,
    path: &'static str,
    role: Role,
    says: &'static str,
    work: fn(&Call) -> Outcome<A>,
) -> Route {
    Route { method, ..ask(path, role, says, work) }
}

/// A route that takes something away: there is nothing left to answer.
fn remove(path: &'static str, role: Role, says: &'static str, work: fn(&Call) -> Outcome<()>) -> Route {
    Route {
        gives: Gives { status: StatusCode::NO_CONTENT, content_type: "", schema: None },
        work: Work::Whole(Box::new(move |call, _| work(call).map(|()| bare(StatusCode::NO_CONTENT)))),
        ..Route::new(Method::DELETE, path, role, says)
    }
}

/// A route that answers with bytes.
fn bytes(
    path: &'static str,
    role: Role,
    says: &'static str,
    content_type: &'static str,
    work: fn(&Call) -> Outcome<Vec<u8>>,
) -> Route {
    Route {
        gives: Gives { status: StatusCode::OK, content_type, schema: None },
        work: Work::Whole(Box::new(move |call, _| Ok(whole(StatusCode::OK, content_type, work(call)?)))),
        ..Route::new(Method::GET, path, role, says)
    }
}

/// A route that takes bytes, as many as there are, and answers what it has made of them.
fn bytes_in<A: JsonSchema + 'static>(
    path: &'static str,
    role: Role,
    says: &'static str,
    work: fn(&Call, &mut dyn std::io::Read) -> Outcome<Response<Body>>,
) -> Route {
    Route {
        takes: Some(Takes { at_most: usize::MAX, schema: None }),
        gives: Gives { status: StatusCode::CREATED, ..Gives::document::<A>() },
        flows: true,
        work: Work::Flowing(work),
        ..Route::new(Method::POST, path, role, says)
    }
}

/// A route that answers with bytes, as many as there are.
fn bytes_out(path: &'static str, role: Role, says: &'static str, work: fn(&Call) -> Outcome<Body>) -> Route {
    Route {
        gives: Gives { status: StatusCode::OK, content_type: BYTES, schema: None },
        flows: true,
        work: Work::Whole(Box::new(move |call, _| Ok(with_type(StatusCode::OK, BYTES, work(call)?)))),
        ..Route::new(Method::GET, path, role, says)
    }
}

impl Route {
    /// One that takes nothing and gives nothing yet.
    fn new(method: Method, path: &'static str, role: Role, says: &'static str) -> Route {
        Route {
            method,
            path,
            role: Some(role),
            sends: false,
            says,
            query: &[],
            takes: None,
            gives: Gives { status: StatusCode::NO_CONTENT, content_type: "", schema: None },
            flows: false,
            work: Work::Whole(Box::new(|_, _| Ok(bare(StatusCode::NO_CONTENT)))),
        }
    }

    fn with_query(self, query: &'static [(&'static str, &'static str)]) -> Route {
        Route { query, ..self }
    }

    fn of_anybody(self) -> Route {
        Route { role: None, ..self }
    }

    fn with_status(mut self, status: StatusCode) -> Route {
        self.gives.status = status;
        self
    }

    /// For another landfall that sends.
    fn of_senders(self) -> Route {
        Route { sends: true, ..self }
    }

    fn large(mut self) -> Route {
        if let Some(takes) = &mut self.takes {
            takes.at_most = LARGE;
        }
        self
    }

    /// True where it takes more memory than others: few of them at once.
    pub(super) fn is_large(&self) -> bool {
        !self.flows && self.takes.as_ref().is_some_and(|takes| takes.at_most > SMALL)
    }
}

fn parsed<B: DeserializeOwned>(body: &Bytes) -> Outcome<B> {
    let text = body.trim_ascii();
    let wrong = |says: String| {
        Refusal::bad(
            Error::refused(format!("the body is not the document that is wanted: {says}"))
                .hint("GET /openapi.json has its schema"),
        )
    };
    match text.first() {
        None => serde_json::from_slice(b"{}"),
        Some(b'{') => serde_json::from_slice(text),
        // Fields in a row without their names would be taken, too.
        Some(_) => return Err(wrong("it is no JSON object".to_owned())),
    }
    .map_err(|error| wrong(error.to_string()))
}

/// All routes.
pub(super) fn routes() -> Vec<Route> {
    use Role::{Admin, Operate, Read};
    const MACHINE: &str = "/v1/machines/{name}";
    const POINTS: &str = "/v1/machines/{name}/points";
    const POINT: &str = "/v1/machines/{name}/points/{point}";
    const TAG: &str = "/v1/machines/{name}/points/{point}/tag";
    const VERIFY: &str = "/v1/machines/{name}/points/{point}/verify";
    const PROOF: &str = "/v1/machines/{name}/points/{point}/proof";
    const HOLD: &str = "/v1/machines/{name}/points/{point}/hold";
    const REPLICA: &str = "/v1/machines/{name}/replica";
    const SESSION: (&str, &str) = ("session", "The number of the send.");
    const DIFF: &str = "/v1/machines/{name}/points/{point}/disks/{disk}/diff";
    let (put, post, delete) = (Method::PUT, Method::POST, Method::DELETE);
    vec![
        ask("/healthz", Read, "Whether the service works.", handlers::health).of_anybody(),
        bytes("/metrics", Read, "How everything is, for Prometheus.", metrics::CONTENT_TYPE, metrics::page),
        ask("/openapi.json", Read, "This document.", handlers::document),
        ask("/v1/status", Read, "How well everything is protected, and what is wrong.", handlers::status),
        ask(MACHINE, Read, "A machine, and where its disks are sent to.", handlers::machine),
        order(
            put.clone(),
            MACHINE,
            Operate,
            "Protects a machine, or changes what is protected of it; takes no disk away.",
            handlers::protect,
        )
        .large(),
        remove(
            MACHINE,
            Admin,
            "Takes a machine out of the vault, with all of its points.",
            handlers::unprotect,
        )
        .with_query(&[("points", "delete: its points may go; without, nothing is done.")]),
        act(
            delete.clone(),
            "/v1/machines/{name}/disks/{disk}",
            Operate,
            "Takes a disk out of a machine; earlier points keep it.",
            handlers::drop_disk,
        ),
        order(
            put.clone(),
            "/v1/machines/{name}/role",
            Operate,
            "Says that a machine was promoted, so that nothing is taken of its source any longer; or that it is a replica again.",
            handlers::role,
        ),
        act(
            post.clone(),
            "/v1/machines/{name}/ready",
            Operate,
            "Says that all disks of a machine are copied, and sets a point.",
            handlers::ready,
        ),
        ask(POINTS, Read, "The points of a machine, the oldest first.", handlers::points).with_query(&[
            ("since", "Only points of this moment and later."),
            ("until", "Only points of this moment and before."),
        ]),
        order(
            post.clone(),
            POINTS,
            Operate,
            "Sets a point on a machine, and on all of its group.",
            handlers::set_point,
        )
        .with_status(StatusCode::CREATED),
        ask(
            POINT,
            Read,
            "A point, with what a recovery needs: by its number, as latest, as tag:NAME, or by a moment (the newest until then).",
            handlers::point,
        ),
        remove(POINT, Operate, "Gives a point up before its time.", handlers::give_up),
        bytes(
            "/v1/machines/{name}/points/{point}/variables",
            Read,
            "The UEFI variables of a machine at a point.",
            "application/octet-stream",
            handlers::variables,
        ),
        order(
            put.clone(),
            HOLD,
            Operate,
            "Holds a point for a recovered machine, or lets it go.",
            handlers::hold,
        ),
        ask("/v1/holds", Read, "The points that recovered machines need.", handlers::holds),
        order(
            put.clone(),
            TAG,
            Operate,
            "Names a point, by which it is kept; without a name, takes its name back.",
            handlers::tag,
        ),
        order(
            post.clone(),
            VERIFY,
            Operate,
            "Reads a point in the background: whether it is what was written.",
            handlers::verify,
        )
        .with_status(StatusCode::ACCEPTED),
        ask(
            VERIFY,
            Read,
            "How far a point's verification is, or what came of the last.",
            handlers::verification,
        ),
        bytes(
            "/v1/machines/{name}/points/{point}/changes",
            Read,
            "Where a disk may differ between an earlier point and this one: the length of a unit and the disk's size (8 bytes each, little-endian), then a bit for each unit.",
            BYTES,
            replica::changes,
        )
        .with_query(&[("disk", "The disk's name."), ("since", "The number of the earlier point.")]),
        ask(REPLICA, Operate, "What a machine holds of another landfall that sends it.", replica::held).of_senders(),
        order(
            put.clone(),
            REPLICA,
            Operate,
            "Begins a send of a machine, or goes on with one; its points stay as they are until it is committed.",
            replica::begin,
        )
        .of_senders(),
        act(
            delete.clone(),
            REPLICA,
            Operate,
            "Gives up a send that has not come to its end: the disks go back to what they held before.",
            replica::give_up,
        )
        .of_senders(),
        look_up(
            "/v1/machines/{name}/replica/disks/{disk}/digests",
            Operate,
            "BLAKE3 digests of what a disk holds, 32 bytes each; as many as could be had in a while.",
            replica::digests,
        )
        .of_senders(),
        take(
            "/v1/machines/{name}/replica/disks/{disk}/chunks",
            Operate,
            "Takes content of a disk, as a body of frames.",
            frame::BODY_AT_MOST,
            replica::take,
        )
        .with_query(&[SESSION])
        .of_senders(),
        order(
            post.clone(),
            "/v1/machines/{name}/replica/commit",
            Operate,
            "Ends a send: what it brought becomes a point of the machine.",
            replica::commit,
        )
        .large()
        .of_senders(),
        bytes_out(
            DIFF,
            Operate,
            "A disk as it was at a point, as an RBD diff; or its difference to an earlier point.",
            handlers::diff,
        )
        .with_query(&[
            ("since", "The point that it begins at; from nothing, without."),
            ("snapshot", "The name of the snapshot that it leads to; without, that of the RBD snapshot that it is, else landfall-NUMBER."),
            ("since_snapshot", "The name of the snapshot that it begins at; without, likewise."),
            ("format", "Its notation: v1 (for rbd import-diff and merge-diff) or v2; v1 without."),
        ]),
        bytes_in::<Uploaded>(
            "/v1/uploads",
            Operate,
            "Brings an RBD stream to the service, where it lies until it is taken or discarded, an hour at most.",
            handlers::upload,
        )
        .with_query(&[
            ("machine", "The machine that it is for."),
            ("disk", "The disk of it."),
            ("name", "What it is called where it comes from."),
            ("sha256", "Its SHA-256, which is compared before it is taken."),
            ("replace", "true where it takes the place of all that the disk holds."),
            ("apart", "true where other disks of the machine stay as they are, though they are of another moment."),
            ("taken_at", "The moment that it is of."),
        ]),
        remove("/v1/uploads/{id}", Operate, "Takes an upload back.", handlers::discard),
        order(
            post.clone(),
            "/v1/machines/{name}/receive/rbd",
            Operate,
            "Takes uploaded RBD streams into a machine in the background, all of one moment; each is gone afterwards, taken or refused.",
            handlers::take_streams,
        )
        .with_status(StatusCode::ACCEPTED),
        order(
            post.clone(),
            "/v1/machines/{name}/receive/pull",
            Operate,
            "Pulls disks of a machine from NBD exports in the background.",
            handlers::pull,
        )
        .with_status(StatusCode::ACCEPTED),
        order(
            post.clone(),
            "/v1/receive/folder",
            Operate,
            "Looks at a watched folder now, in the background.",
            handlers::scan,
        )
        .with_status(StatusCode::ACCEPTED),
        ask(
            "/v1/receipts/{id}",
            Read,
            "How far something is that is received, or what came of it.",
            handlers::receipt,
        ),
        order(
            post.clone(),
            PROOF,
            Operate,
            "Attaches what a trial boot of a point showed to it; landfall prove does.",
            handlers::attach_proof,
        )
        .with_status(StatusCode::CREATED),
        ask(
            "/v1/machines/{name}/evidence",
            Read,
            "What trial boots of a machine's points showed, each signed and behind the one before it.",
            handlers::evidence,
        ),
        ask("/v1/events", Read, "Alarms that began and ended, the newest first.", handlers::events)
            .with_query(&[("at_most", "So many of them; 100 without, 10000 at most.")]),
        ask("/v1/tokens", Admin, "The tokens, without their secrets.", handlers::tokens),
        ask("/v1/certificates", Admin, "Certificates that were handed out.", handlers::certificates),
        order(
            post.clone(),
            "/v1/certificates",
            Admin,
            "Hands out a certificate to somebody who sends or recovers machines. Its key is shown this once.",
            handlers::make_certificate,
        )
        .with_status(StatusCode::CREATED),
        remove(
            "/v1/certificates/{name}",
            Admin,
            "Takes a certificate back: nobody is let in with it any longer, and who is there over NBD is sent away.",
            handlers::remove_certificate,
        ),
        order(
            post,
            "/v1/tokens",
            Admin,
            "Makes a token. Its secret is shown this once.",
            handlers::make_token,
        )
        .with_status(StatusCode::CREATED),
        remove("/v1/tokens/{name}", Admin, "Takes a token back.", handlers::remove_token),
    ]
}
