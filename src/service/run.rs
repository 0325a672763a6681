//! The service from its start to its end.
//!
//! ```text
//! open vault and catalog -> open sockets -> threads and receivers … until told to stop -> last points -> close
//! ```
//! Nothing is taken before all is there: what stands in the way is said at the start.

use super::api::{self, Api};
use super::config::Config;
use super::exports::{Points, Receiving};
use super::{Service, rounds};
use crate::receive::nbd::{Config as Receive, Listen, Receiver};
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether somebody wants it to end.
const TICK: Duration = Duration::from_millis(50);
/// Beside clients: segments, bases, the catalog, sockets.
const FILES_AT_LEAST: u64 = 16 << 10;

/// What an ordinary user needs, to give a socket to a group.
pub(crate) const POINTS_GROUP: &str = "the service's user has to be a member of that group: usermod -aG GROUP landfall, or for systemd SupplementaryGroups=GROUP (systemctl edit landfall)";

/// A service with its sockets open.
pub struct Bound {
    service: Arc<Service>,
    receiver: Receiver,
    points: Receiver,
    api: Api,
    /// Where the one who started it wants to hear of it.
    notify: Option<PathBuf>,
}

impl Bound {
    /// Opens everything.
    ///
    /// # Errors
    /// As [`Service::open`]; where a socket cannot be had.
    pub fn open(config: Config, notify: Option<PathBuf>) -> Result<Bound> {
        raise_open_files();
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(&config.sockets);
        made.map_err(|error| {
            let error = Error::io("cannot make the folder for sockets", error).in_file(&config.sockets);
            error.hint("the service's user has to write where it is to be (systemd: RuntimeDirectory=landfall), or name another one: sockets = …")
        })?;
        let mut receive = config.receive.clone();
        receive.listen.push(Listen::Unix(config.receive_socket()));
        let reading = Receive { listen: vec![Listen::Unix(config.points_socket())], ..Receive::default() };
        let service = Service::open(config)?;
        let receiver = Receiver::bind(&receive, Arc::new(Receiving(Arc::clone(&service))))?;
        let points = Receiver::bind(&reading, Arc::new(Points(Arc::clone(&service))))?;
        if let Some(group) = service.config().points_group {
            share(&service.config().points_socket(), group)?;
        }
        let api = api::bind(&service, api::Limits::default())?;
        service.count_with(receiver.monitor());
        Ok(Bound { service, receiver, points, api, notify })
    }

    /// The service.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// The addresses at which NBD clients come in.
    pub fn addresses(&self) -> Vec<std::net::SocketAddr> {
        self.receiver.addresses()
    }

    /// The addresses at which the API is, besides the local socket.
    pub fn api_addresses(&self) -> Vec<std::net::SocketAddr> {
        self.api.addresses()
    }

    /// Works until somebody wants it to end, and ends in good order: what was acknowledged is in a point.
    ///
    /// # Errors
    /// Where the threads or sockets cannot be used, or the vault cannot be closed.
    pub fn run(self, cancel: &Cancel) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("cannot start threads", error))?;
        let service = Arc::clone(&self.service);
        let told = async |cancel: &Cancel| {
            while !cancel.is_cancelled() {
                tokio::time::sleep(TICK).await;
            }
        };
        std::thread::scope(|scope| -> Result<()> {
            for (name, work) in rounds::WORK {
                let service = &*service;
                let started = std::thread::Builder::new().name(name.into()).spawn_scoped(scope, move || {
                    rounds::again_and_again(service, name, work);
                });
                if let Err(error) = started {
                    service.stop();
                    return Err(Error::io("cannot start a thread", error));
                }
            }
            notify(self.notify.as_deref(), "READY=1");
            let ended = runtime.block_on(async {
                let (received, read, asked) = tokio::join!(
                    self.receiver.run(told(cancel)),
                    self.points.run(told(cancel)),
                    self.api.run(told(cancel))
                );
                received.and(read).and(asked)
            });
            notify(self.notify.as_deref(), "STOPPING=1");
            service.stop();
            ended
        })?;
        self.service.last_points();
        self.service.vault().close()
    }
}

/// The service of a vault on which no other works, for one who asks from this process: it answers over the socket of the API, and verifies
/// points. Nothing is received, and by the clock no point is set or given up.
pub struct Alone {
    service: Arc<Service>,
    api: Api,
}

impl Alone {
    /// Opens the vault and the socket.
    ///
    /// # Errors
    /// As [`Service::open`]; where the socket cannot be had.
    pub fn open(config: Config) -> Result<Alone> {
        let service = Service::open(config)?;
        let api = api::bind(&service, api::Limits::default())?;
        Ok(Alone { service, api })
    }

    /// Answers as long as `ask` takes, and ends in good order; what `ask` comes to.
    ///
    /// # Errors
    /// Where threads cannot be had, or the vault cannot be closed.
    pub fn answer<T>(self, ask: impl FnOnce() -> T) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| Error::io("cannot start threads", error))?;
        let Alone { service, api } = self;
        let (told, working) = (Cancel::default(), Arc::clone(&service));
        let done = std::thread::scope(|scope| -> Result<T> {
            let (service, told) = (&*working, &told);
            // However `ask` ends.
            let end = End { service, told };
            let failed = |error| Error::io("cannot start a thread", error);
            let verify = move || rounds::again_and_again(service, "verify", Service::verify_points);
            std::thread::Builder::new().name("verify".into()).spawn_scoped(scope, verify).map_err(failed)?;
            let until = async || {
                while !told.is_cancelled() {
                    tokio::time::sleep(TICK).await;
                }
            };
            let answer = move || runtime.block_on(api.run(until()));
            let answering = std::thread::Builder::new().name("api".into()).spawn_scoped(scope, answer);
            let answering = answering.map_err(failed)?;
            let done = ask();
            drop(end);
            // One that ended by a defect has been told of.
            answering.join().unwrap_or(Ok(()))?;
            Ok(done)
        })?;
        service.vault().close()?;
        Ok(done)
    }
}

/// Tells the threads of an [`Alone`] to end.
struct End<'a> {
    service: &'a Service,
    told: &'a Cancel,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.told.cancel();
        self.service.stop();
    }
}

/// As many files as the system allows: the clients of 1,500 disks are more than is usual.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if setrlimit(Resource::Nofile, limit).is_err() {
        limit = getrlimit(Resource::Nofile);
    }
    if let Some(files) = getrlimit(Resource::Nofile).current.filter(|files| *files < FILES_AT_LEAST) {
        tracing::warn!(files, maximum = ?limit.maximum, "few files may be open at once: allow more (LimitNOFILE)");
    }
}

/// Lets a group of this machine in: hypervisors run as users of their own.
fn share(socket: &Path, group: u32) -> Result<()> {
    let failed = |error: std::io::Error| {
        let error = Error::io("cannot be shared with the group of points_group", error).in_file(socket);
        error.hint(POINTS_GROUP)
    };
    std::os::unix::fs::chown(socket, None, Some(group)).map_err(failed)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660)).map_err(failed)
}

/// Tells systemd (sd_notify(3)): a datagram to the socket that it has named.
fn notify(socket: Option<&Path>, says: &str) {
    let Some(socket) = socket else { return };
    let told = UnixDatagram::unbound().and_then(|from| {
        match socket.to_str().and_then(|name| name.strip_prefix('@')) {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                from.send_to_addr(says.as_bytes(), &address)
            }
            None => from.send_to(says.as_bytes(), socket),
        }
    });
    if let Err(error) = told {
        tracing::warn!(%error, socket = %socket.display(), "whoever started the service cannot be told");
    }
}
