//! The API's server: its sockets, who is let in, and how much of the service a client can take.
//!
//! ```text
//! accept -> places (in all, of an address) -> TLS in time -> hyper: header in time -> who is it? -> body in time, of bounded size
//!                                                                                        -> a place among those that work -> answer
//! ```
//! The part behind hyper is in [`super::answer`]. A connection ends after [`Limits::lifetime`] at the latest; bodies of any length
//! ([`super::flow`]) have as long as they need, as long as they do not stand still.

use super::answer::{Place, router};
use super::caller::{Guest, Origin};
use super::flow::Flowing;
use super::limits::Limits;
use super::line::{Line, Patient};
use crate::doors::{self, Complaints, Gate, SocketFile, Ticket};
use crate::receive::Certificate as Proved;
use crate::server_certificate::{LOOKED_AT, ServerCertificate};
use crate::service::{Service, config};
use axum::Router;
use axum::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use landfall_image::nbd::TlsFiles;
use landfall_image::{Error, Result};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// How long nobody is taken after taking somebody has failed: there may be too many open files.
const BREATH: Duration = Duration::from_millis(100);
/// How often it is looked whether a body is on its way still.
const TICK: Duration = Duration::from_millis(500);

enum Door {
    Local(std::os::unix::net::UnixListener, SocketFile),
    Network(std::net::TcpListener),
}

/// The API with its sockets open.
pub struct Api {
    doors: Vec<Door>,
    shared: Arc<Shared>,
}

/// What all requests share.
pub(super) struct Shared {
    pub service: Arc<Service>,
    pub limits: Limits,
    tls: Option<ServerCertificate>,
    network: Gate,
    local: Gate,
    pub work: Semaphore,
    pub large: Semaphore,
    pub sends: Semaphore,
    pub flows: Arc<Semaphore>,
    pub complaints: Complaints,
}

/// Opens the sockets of the service's configuration; nobody is let in before [`Api::run`].
///
/// # Errors
/// Where a certificate or a socket cannot be had.
pub fn bind(service: &Arc<Service>, limits: Limits) -> Result<Api> {
    let config = service.config();
    // Certificates first: a port is not taken in vain.
    let open = |api: &config::Api| {
        let (certificate, key) = (Some(api.certificate.clone()), Some(api.key.clone()));
        let files = TlsFiles { ca: api.clients_ca.clone(), certificate, key };
        ServerCertificate::open("the API", files, TlsFiles::server_that_asks)
    };
    let tls = config.api.as_ref().map(open).transpose()?;
    let (local, file) = doors::unix(&config.api_socket())?;
    if config.viewer.is_some() {
        // Who comes in is looked at besides.
        let socket = config.api_socket();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o660)).map_err(|e| {
            Error::io("cannot be opened to the group of the service's user", e).in_file(&socket)
        })?;
    }
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
                tokio::time::sleep(LOOKED_AT).await;
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
            (_, Origin::Local { uid }) if !is_own(uid) && shared.service.config().viewer != Some(uid) => {
                Some("it is another user's")
            }
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
    let line = TokioIo::new(Patient::new(line, &shared.limits, flowing.clone()));
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
