//! The API's server: its sockets, who is let in, and how much of the service a client can take.
//!
//! ```text
//! accept -> places (in all, of an address) -> TLS in time -> hyper: header in time -> who is it? -> body in time, of bounded size
//!                                                                                        -> a place among those that work -> answer
//! ```
//! Whoever is not let in is told so before the body is read. A connection ends after [`Limits::lifetime`] at the latest; bodies of any length
//! ([`flow`]) have as long as they need, as long as they do not stand still.

use super::call::{Call, Refusal};
use super::caller::{Caller, Guest, Origin, let_in, let_send};
use super::flow::{self, Flowing};
use super::table::{Route, Work, routes};
use crate::doors::{self, Complaints, Gate, SocketFile, Ticket};
use crate::receive::Certificate as Proved;
use crate::service::Service;
use crate::service::config;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{Method, Response, StatusCode};
use axum::routing::{MethodFilter, on};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use landfall_image::nbd::TlsFiles;
use landfall_image::{Error, Kind, Result};
use rustls::ServerConfig;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;

/// How long nobody is taken after taking somebody has failed: there may be too many open files.
const BREATH: Duration = Duration::from_millis(100);
/// How often it is looked whether a body is on its way still.
const TICK: Duration = Duration::from_millis(500);
/// How often it is looked whether certificates have changed.
const LOOK: Duration = Duration::from_secs(10);

/// What clients may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once over the network.
    pub connections: usize,
    /// Of these, from one address (one /64 of IPv6).
    pub per_address: usize,
    /// Connections at once over the local socket: strangers cannot keep those on this machine out.
    pub local: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a request's header, and between two requests.
    pub header: Duration,
    /// For a request's body.
    pub body: Duration,
    /// Without a byte of an answer being taken.
    pub stall: Duration,
    /// Of a connection, but for bodies of any length that are on their way then.
    pub lifetime: Duration,
    /// Requests that are worked on at once.
    pub work: usize,
    /// Requests at once with a large body.
    pub large: usize,
    /// Requests at once that bring what another landfall sends: 16 MiB each.
    pub sends: usize,
    /// Requests at once whose bodies or answers are of any length.
    pub flows: usize,
    /// Without a byte of a body of any length: what makes it may read much before there is something to send.
    pub silence: Duration,
    /// That a request waits for others.
    pub wait: Duration,
    /// After this much of a stop, those that are still busy are cut off.
    pub shutdown: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 512,
            per_address: 64,
            local: 256,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(15),
            body: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            lifetime: Duration::from_secs(600),
            work: 16,
            large: 2,
            sends: 8,
            flows: 32,
            silence: Duration::from_secs(1800),
            wait: Duration::from_secs(30),
            shutdown: Duration::from_secs(10),
        }
    }
}

enum Door {
    Local(std::os::unix::net::UnixListener, SocketFile),
    Network(std::net::TcpListener),
}

/// The API with its sockets open.
pub struct Api {
    doors: Vec<Door>,
    shared: Arc<Shared>,
}

struct Shared {
    service: Arc<Service>,
    limits: Limits,
    tls: Option<Certificate>,
    network: Gate,
    local: Gate,
    work: Semaphore,
    large: Semaphore,
    sends: Semaphore,
    flows: Arc<Semaphore>,
    complaints: Complaints,
}

/// Opens the sockets of the service's configuration; nobody is let in before [`Api::run`].
///
/// # Errors
/// Where a certificate or a socket cannot be had.
pub fn bind(service: &Arc<Service>, limits: Limits) -> Result<Api> {
    let config = service.config();
    // Certificates first: a port is not taken in vain.
    let tls = config.api.as_ref().map(Certificate::open).transpose()?;
    let (local, file) = doors::unix(&config.api_socket())?;
    let mut all = vec![Door::Local(local, file)];
    for address in config.api.iter().flat_map(|api| &api.listen) {
        all.push(Door::Network(doors::tcp(*address)?));
    }
    let shared = Shared {
        service: Arc::clone(service),
        tls,
        network: Gate::new(limits.connections, limits.per_address),
        local: Gate::new(limits.local, limits.local),
        work: Semaphore::new(limits.work.clamp(1, Semaphore::MAX_PERMITS)),
        large: Semaphore::new(limits.large.clamp(1, Semaphore::MAX_PERMITS)),
        sends: Semaphore::new(limits.sends.clamp(1, Semaphore::MAX_PERMITS)),
        flows: Arc::new(Semaphore::new(limits.flows.clamp(1, Semaphore::MAX_PERMITS))),
        complaints: Complaints::default(),
        limits,
    };
    Ok(Api { doors: all, shared: Arc::new(shared) })
}

/// The server's certificate, which may be replaced while it runs.
struct Certificate {
    files: TlsFiles,
    current: RwLock<(Stamp, Arc<ServerConfig>)>,
}

/// Of the files: inode, change, size.
type Stamp = [Option<(u64, i64, i64, u64)>; 3];

impl Certificate {
    fn open(api: &config::Api) -> Result<Certificate> {
        let (certificate, key) = (Some(api.certificate.clone()), Some(api.key.clone()));
        let files = TlsFiles { ca: api.clients_ca.clone(), certificate, key };
        let stamp = Certificate::stamp(&files);
        let tls = files.server_that_asks()?;
        Ok(Certificate { files, current: RwLock::new((stamp, tls)) })
    }

    fn stamp(files: &TlsFiles) -> Stamp {
        let of = |path: &Option<PathBuf>| {
            let there = std::fs::metadata(path.as_ref()?).ok()?;
            Some((there.ino(), there.mtime(), there.mtime_nsec(), there.len()))
        };
        [of(&files.certificate), of(&files.key), of(&files.ca)]
    }

    fn acceptor(&self) -> TlsAcceptor {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.1).into()
    }

    /// Takes new files; keeps what it has where they are no use (yet: one may be written after the other).
    fn look(&self) {
        let stamp = Certificate::stamp(&self.files);
        if self.current.read().unwrap_or_else(PoisonError::into_inner).0 == stamp {
            return;
        }
        match self.files.server_that_asks() {
            Ok(tls) => {
                tracing::info!("the API has a new certificate");
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = (stamp, tls);
            }
            Err(error) => {
                tracing::error!(%error, "the API's new certificate cannot be used; it keeps the one it has")
            }
        }
    }
}

impl Api {
    /// The addresses of its TCP sockets, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let of = |door: &Door| match door {
            Door::Local(..) => None,
            Door::Network(listener) => listener.local_addr().ok(),
        };
        self.doors.iter().filter_map(of).collect()
    }

    /// Answers until `stop` is done. Then nobody is let in any longer; requests that are worked on are answered, and connections closed;
    /// those that are not done after [`Limits::shutdown`] are cut off.
    ///
    /// # Errors
    /// Where the sockets cannot be used with this runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let (tell, told) = watch::channel(false);
        let mut doors = JoinSet::new();
        let router = router(&self.shared);
        for door in self.doors {
            let failed = |e| Error::io("a socket cannot be waited on", e);
            let (socket, file) = match door {
                Door::Local(listener, file) => {
                    (Socket::Local(UnixListener::from_std(listener).map_err(failed)?), Some(file))
                }
                Door::Network(listener) => {
                    (Socket::Network(TcpListener::from_std(listener).map_err(failed)?), None)
                }
            };
            let (shared, router, told) = (Arc::clone(&self.shared), router.clone(), told.clone());
            doors.spawn(async move {
                attend(&shared, socket, router, told).await;
                drop(file);
            });
        }
        let shared = Arc::clone(&self.shared);
        let looking = tokio::spawn(async move {
            while let Some(tls) = &shared.tls {
                tokio::time::sleep(LOOK).await;
                tls.look();
            }
        });
        stop.await;
        looking.abort();
        let _ = tell.send(true);
        while doors.join_next().await.is_some() {}
        Ok(())
    }
}

enum Socket {
    Local(UnixListener),
    Network(TcpListener),
}

/// What HTTP is spoken over.
trait Line: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Line for T {}

enum Taken {
    Local(tokio::net::UnixStream, u32),
    Network(tokio::net::TcpStream, SocketAddr),
}

impl Socket {
    async fn accept(&self) -> io::Result<Taken> {
        match self {
            Socket::Local(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred()?.uid();
                Ok(Taken::Local(stream, uid))
            }
            Socket::Network(listener) => {
                let (stream, address) = listener.accept().await?;
                doors::prepare(&stream)?;
                Ok(Taken::Network(stream, address))
            }
        }
    }
}

/// Takes who comes to one door, until the stop and until they have gone.
async fn attend(shared: &Arc<Shared>, socket: Socket, router: Router, mut stop: watch::Receiver<bool>) {
    let mut guests = JoinSet::new();
    loop {
        let taken = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = guests.join_next(), if !guests.is_empty() => continue,
            taken = socket.accept() => taken,
        };
        let taken = match taken {
            Ok(taken) => taken,
            // One that left in the queue, or too many open files for a while.
            Err(error) => {
                shared
                    .complaints
                    .say(|more| tracing::warn!(%error, more, "a client of the API could not be let in"));
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let (origin, place) = match &taken {
            Taken::Local(_, uid) => (Origin::Local { uid: *uid }, shared.local.enter(None)),
            Taken::Network(_, address) => {
                (Origin::Network(*address), shared.network.enter(Some(address.ip())))
            }
        };
        let refused = match (&place, origin) {
            (Err(why), _) => Some(*why),
            (_, Origin::Local { uid }) if !is_own(uid) => Some("it is another user's"),
            _ => None,
        };
        let Ok(ticket) = place else {
            turn_away(shared, origin, refused.unwrap_or_default());
            continue;
        };
        if let Some(why) = refused {
            turn_away(shared, origin, why);
            continue;
        }
        guests.spawn(serve(Arc::clone(shared), taken, origin, ticket, router.clone(), stop.clone()));
    }
    drop(socket);
    let all_gone = async { while guests.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.limits.shutdown, all_gone).await.is_err() {
        guests.shutdown().await;
    }
}

/// This user, or root: who could read the vault's files anyway.
pub(super) fn is_own(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

fn turn_away(shared: &Shared, origin: Origin, why: &str) {
    shared
        .complaints
        .say(|more| tracing::warn!(peer = %origin, reason = why, more, "a client of the API is turned away"));
}

/// Serves one connection.
async fn serve(
    shared: Arc<Shared>,
    taken: Taken,
    origin: Origin,
    ticket: Ticket,
    router: Router,
    mut stop: watch::Receiver<bool>,
) {
    let _ticket = ticket;
    let mut certificate = None;
    let line: Box<dyn Line> = match (taken, &shared.tls) {
        (Taken::Local(stream, _), _) => Box::new(stream),
        // There is no door to the network without.
        (Taken::Network(..), None) => return,
        (Taken::Network(stream, _), Some(tls)) => {
            let accept = tokio::time::timeout(shared.limits.handshake, tls.acceptor().accept(stream));
            let accepted = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                accepted = accept => accepted,
            };
            match accepted {
                Ok(Ok(stream)) => {
                    let proved = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    certificate = proved.map(|der| Arc::new(Proved::of(der)));
                    Box::new(stream)
                }
                Ok(Err(error)) => return turn_away(&shared, origin, &format!("TLS: {error}")),
                Err(_) => return turn_away(&shared, origin, "TLS took too long"),
            }
        }
    };
    let flowing = Flowing::default();
    let Limits { stall, silence, .. } = shared.limits;
    let line = TokioIo::new(Patient { line, stall, silence, flowing: flowing.clone(), until: None });
    let inner = TowerToHyperService::new(router);
    let guest = Guest { origin, certificate };
    let of_this = flowing.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Place(guest.clone(), of_this.clone()));
        hyper::service::Service::call(&inner, request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header)
        .max_buf_size(64 << 10)
        .serve_connection(line, service);
    tokio::pin!(connection);
    let end = tokio::time::sleep(shared.limits.lifetime);
    let mut told = stop.clone();
    let stopped = async { drop(told.wait_for(|stop| *stop).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped => finish(connection, shared.limits.shutdown).await,
        () = end => {
            connection.as_mut().finish();
            let flown = async {
                while flowing.is_any() {
                    tokio::time::sleep(TICK).await;
                }
            };
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = async { drop(stop.wait_for(|stop| *stop).await) } => finish(connection, shared.limits.shutdown).await,
                () = flown => finish(connection, shared.limits.stall).await,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(peer = %origin, %error, "a connection of the API ended");
    }
}

/// Lets a connection answer what it is asked at this moment, and no more.
async fn finish<C>(mut connection: Pin<&mut C>, patience: Duration) -> std::result::Result<(), hyper::Error>
where
    C: Future<Output = std::result::Result<(), hyper::Error>> + Finishing,
{
    connection.as_mut().finish();
    tokio::time::timeout(patience, connection).await.unwrap_or(Ok(()))
}

/// A connection that can be told that it will not be asked again.
trait Finishing {
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Finishing for http1::Connection<I, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Where a request comes from, and what flows there.
#[derive(Clone)]
struct Place(Guest, Flowing);

/// The router of all routes.
fn router(shared: &Arc<Shared>) -> Router {
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

/// A line whose other side has to take what it is sent, in time.
struct Patient {
    line: Box<dyn Line>,
    stall: Duration,
    /// The same while a body of any length is on its way: whoever takes it may wait for somebody else.
    silence: Duration,
    flowing: Flowing,
    /// Until when it has to take something, while it does not.
    until: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn waited<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.until = None;
            return polled;
        }
        let stall = if self.flowing.is_any() { self.silence } else { self.stall };
        let until =
            self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + stall)));
        match until.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the client does not take its answer",
            ))),
        }
    }
}

impl AsyncRead for Patient {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().line).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_write(cx, buf);
        this.waited(cx, polled)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_flush(cx);
        this.waited(cx, polled)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.line).poll_shutdown(cx);
        this.waited(cx, polled)
    }
}
