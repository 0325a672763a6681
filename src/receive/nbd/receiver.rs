//! The receiver as a whole: lets clients in, counts them, and ends in good order.

use super::config::{Config, Limits};
use super::connection::{self, Common};
use super::greet::Host;
use super::listen::{self, Door};
use super::memory::Memories;
use super::stats::{Export, Ledger, Stats};
use super::stream::Stream;
use crate::doors::{self, Complaints, Gate, Ticket};
use crate::receive::{Ended, ExportName, Exports, Peer, Place};
use crate::server_certificate::{LOOKED_AT, ServerCertificate};
use landfall_image::{Error, Result};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinSet, block_in_place};

/// How long nobody is taken after taking somebody has failed: there may be too many open files.
const BREATH: Duration = Duration::from_millis(100);

/// A server that has its sockets open.
pub struct Receiver {
    doors: Vec<Door>,
    shared: Arc<Shared>,
}

/// What a receiver has done so far, also while it runs.
#[derive(Clone)]
pub struct Monitor(Arc<Shared>);

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Monitor")
    }
}

impl Monitor {
    /// The sums at this moment.
    pub fn read(&self) -> Stats {
        self.0.ledger.read()
    }
}

struct Shared {
    exports: Arc<dyn Exports>,
    limits: Limits,
    memories: Memories,
    ledger: Ledger,
    gate: Gate,
    slots: Arc<Semaphore>,
    stopping: AtomicBool,
    complaints: Complaints,
}

impl Receiver {
    /// Checks the configuration, reads the certificates and opens the sockets; nobody is let in before
    /// [`Receiver::run`].
    ///
    /// # Errors
    /// Those of [`Config::check`], and where a certificate or a socket cannot be had.
    pub fn bind(config: &Config, exports: Arc<dyn Exports>) -> Result<Receiver> {
        config.check()?;
        let doors = config.listen.iter().map(listen::open).collect::<Result<Vec<_>>>()?;
        let limits = config.limits.clone();
        let shared = Shared {
            exports,
            memories: Memories::new(&limits),
            ledger: Ledger::default(),
            gate: Gate::new(limits.greeting, limits.greeting_per_address),
            slots: Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS))),
            stopping: AtomicBool::new(false),
            complaints: Complaints::default(),
            limits,
        };
        Ok(Receiver { doors, shared: Arc::new(shared) })
    }

    /// The addresses of its TCP sockets, in the order of the configuration.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.doors.iter().filter_map(Door::address).collect()
    }

    /// For metrics.
    pub fn monitor(&self) -> Monitor {
        Monitor(self.shared.clone())
    }

    /// Serves until `stop` is done. Then nobody is let in any longer; requests that are here as a whole are applied
    /// and answered, and the connections closed; those that are not done after [`Limits::shutdown`] are cut off.
    ///
    /// Needs a runtime with several threads.
    ///
    /// # Errors
    /// Where the sockets cannot be used with this runtime.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<Stats> {
        let (tell, told) = watch::channel(false);
        let mut doors = JoinSet::new();
        for door in self.doors {
            let (socket, tls, file) = match door {
                Door::Unix(listener, file) => {
                    (UnixListener::from_std(listener).map(Socket::Unix), None, Some(file))
                }
                Door::Tcp(listener, tls) => (TcpListener::from_std(listener).map(Socket::Tcp), tls, None),
            };
            let socket = socket.map_err(|e| Error::io("a socket cannot be waited on", e))?;
            let (shared, told) = (self.shared.clone(), told.clone());
            doors.spawn(async move {
                attend(shared, socket, tls, told).await;
                drop(file);
            });
        }
        stop.await;
        self.shared.stopping.store(true, Relaxed);
        let _ = tell.send(true);
        while doors.join_next().await.is_some() {}
        Ok(self.shared.ledger.read())
    }
}

enum Socket {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Socket {
    async fn accept(&self) -> io::Result<(Stream, Place)> {
        match self {
            Socket::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let who = stream.peer_cred()?;
                let place = Place::Local { pid: who.pid(), uid: who.uid() };
                Ok((Stream::Unix(stream), place))
            }
            Socket::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                doors::prepare(&socket)?;
                Ok((Stream::Tcp(socket), Place::Network(address)))
            }
        }
    }
}

/// Takes who comes to one door, until the stop and until they have gone.
async fn attend(
    shared: Arc<Shared>,
    socket: Socket,
    tls: Option<Arc<ServerCertificate>>,
    mut stop: watch::Receiver<bool>,
) {
    let mut guests = JoinSet::new();
    let mut looks = tokio::time::interval(LOOKED_AT);
    loop {
        let taken = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            _ = looks.tick(), if tls.is_some() => {
                tls.iter().for_each(|tls| block_in_place(|| tls.look()));
                continue;
            }
            Some(done) = guests.join_next(), if !guests.is_empty() => {
                report(done);
                continue;
            }
            taken = socket.accept() => taken,
        };
        let (stream, place) = match taken {
            Ok(taken) => taken,
            // One that left in the queue, or too many open files for a while.
            Err(error) => {
                shared
                    .complaints
                    .say(|more| tracing::warn!(%error, more, "an NBD client could not be let in"));
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        shared.ledger.accepted.fetch_add(1, Relaxed);
        match places(&shared, place) {
            Ok(slot) => {
                guests.spawn(serve(shared.clone(), stream, place, tls.clone(), slot, stop.clone()));
            }
            Err(why) => {
                shared.ledger.turned_away.fetch_add(1, Relaxed);
                let peer = Peer { place, certificate: None };
                shared
                    .complaints
                    .say(|more| tracing::warn!(%peer, reason = why, more, "an NBD client is turned away"));
            }
        }
    }
    drop(socket);
    let all_gone = async { while guests.join_next().await.map(report).is_some() {} };
    if tokio::time::timeout(shared.limits.shutdown, all_gone).await.is_err() {
        guests.shutdown().await;
    }
}

/// A task that did not end as it should.
fn report(done: std::result::Result<(), tokio::task::JoinError>) {
    if let Err(error) = done
        && error.is_panic()
    {
        tracing::error!(%error, "a defect of landfall ended an NBD connection");
    }
}

fn places(
    shared: &Shared,
    place: Place,
) -> std::result::Result<(OwnedSemaphorePermit, Ticket), &'static str> {
    let slot = shared.slots.clone().try_acquire_owned().map_err(|_| "too many connections")?;
    let from = match place {
        Place::Network(address) => Some(address.ip()),
        Place::Local { .. } => None,
    };
    Ok((slot, shared.gate.enter(from)?))
}

/// Greets one client, and serves it.
async fn serve(
    shared: Arc<Shared>,
    stream: Stream,
    place: Place,
    tls: Option<Arc<ServerCertificate>>,
    (slot, ticket): (OwnedSemaphorePermit, Ticket),
    mut stop: watch::Receiver<bool>,
) {
    // Given back in this order: who is not counted takes no place.
    let _counted = (slot, Counted::new(&shared.ledger.connections));
    let host = Host {
        exports: &*shared.exports,
        limits: &shared.limits,
        tls: tls.as_deref(),
        stopping: &shared.stopping,
    };
    let greeted = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => return,
        greeted = host.greet(stream, place) => greeted,
    };
    drop(ticket);
    let guest = match greeted {
        Ok(Some(guest)) => guest,
        Ok(None) => return,
        Err((peer, error)) => {
            shared.ledger.not_let_in.fetch_add(1, Relaxed);
            shared.complaints.say(|more| tracing::warn!(%peer, %error, more, "an NBD client is not let in"));
            return;
        }
    };
    let export = shared.ledger.export(&guest.name);
    let (name, peer) = (guest.name.clone(), guest.peer.clone());
    let common = Common {
        limits: &shared.limits,
        memories: &shared.memories,
        counters: [&shared.ledger.total, &export.counters],
        flushed: &|| shared.exports.flushed(&name, &peer),
    };
    let mut presence = Presence {
        exports: &*shared.exports,
        export: &export,
        name: name.clone(),
        peer: peer.clone(),
        // Should it be cut off.
        ended: Ended::Lost("was cut off".into()),
    };
    block_in_place(|| presence.begin());
    let sent_away = shared.exports.sent_away(&peer);
    presence.ended = tokio::select! {
        ended = connection::run(guest, &common, stop) => ended,
        () = async { sent_away.unwrap_or_else(|| Box::pin(std::future::pending())).await } =>
            Ended::Lost("it may not be here any longer: its certificate was taken back".into()),
    };
    if matches!(presence.ended, Ended::Lost(_)) {
        shared.ledger.broken_off.fetch_add(1, Relaxed);
    }
    block_in_place(|| drop(presence));
}

/// A client that uses an export; tells when it is there no more, whatever the reason.
struct Presence<'a> {
    exports: &'a dyn Exports,
    export: &'a Export,
    name: ExportName,
    peer: Peer,
    ended: Ended,
}

impl Presence<'_> {
    fn begin(&self) {
        self.export.count(1, |connections| {
            tracing::info!(peer = %self.peer, export = %self.name, connections, "an NBD client is there");
            self.exports.connected(&self.name, &self.peer, connections);
        });
    }
}

impl Drop for Presence<'_> {
    fn drop(&mut self) {
        self.export.count(-1, |connections| {
            let Presence { name, peer, ended, .. } = self;
            match ended {
                Ended::Lost(reason) => {
                    tracing::warn!(%peer, export = %name, connections, reason, "an NBD connection is broken off");
                }
                _ => tracing::info!(%peer, export = %name, connections, reason = %ended, "an NBD client has gone"),
            }
            self.exports.closed(name, peer, connections, ended);
        });
    }
}

/// One more, until it is dropped.
struct Counted<'a>(&'a AtomicU64);

impl<'a> Counted<'a> {
    fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Relaxed);
        Counted(counter)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
