//! A point's disks served by this process, where no service does it: as long as it runs, and to this host alone.

use landfall_image::convert::Cancel;
use landfall_image::nbd::{Content, Listener, ServeOptions, Server};
use landfall_image::{Disk, Error, Result};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Disks that are served until this is dropped.
pub struct Serving {
    cancel: Cancel,
    threads: Vec<JoinHandle<Result<()>>>,
    sockets: Vec<PathBuf>,
}

/// A disk and where it is served.
pub struct ToServe {
    /// The socket.
    pub socket: PathBuf,
    /// The export's name.
    pub export: String,
    /// What is on it.
    pub disk: Arc<dyn Disk>,
}

/// How soon a request to stop is heard.
const LOOK_AROUND: Duration = Duration::from_millis(100);
/// After so many of these somebody looks after the machine.
const LOOK_EVERY: u32 = 10;

impl Serving {
    /// Serves disks to whoever may open their sockets; `None` where there is none.
    ///
    /// # Errors
    /// Refused where another process serves one of them already.
    pub(super) fn begin(disks: Vec<ToServe>) -> Result<Option<Serving>> {
        let mut serving = Serving { cancel: Cancel::default(), threads: Vec::new(), sockets: Vec::new() };
        for (index, ToServe { socket, export, disk }) in disks.into_iter().enumerate() {
            let options = ServeOptions { export, ..ServeOptions::default() };
            let listener = listen(&socket)?;
            let server = Server::new(Content::ReadOnly(disk), options)?;
            let cancel = serving.cancel.clone();
            let run = move || server.run(&listener, &cancel).map(drop);
            let thread = std::thread::Builder::new().name(format!("points-{index}")).spawn(run);
            serving.threads.push(thread.map_err(|e| Error::io("cannot start a thread", e))?);
            serving.sockets.push(socket);
        }
        Ok((!serving.threads.is_empty()).then_some(serving))
    }

    /// The sockets.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// Serves until `cancel` is called, or a server fails. `look` is called now and then.
    pub fn wait(mut self, cancel: &Cancel, look: &mut dyn FnMut()) -> Result<()> {
        let mut turns: u32 = 0;
        while !cancel.is_cancelled() && !self.threads.iter().any(JoinHandle::is_finished) {
            std::thread::sleep(LOOK_AROUND);
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(LOOK_EVERY) {
                look();
            }
        }
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.cancel.cancel();
        let mut outcome = Ok(());
        for thread in self.threads.drain(..) {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(Error::corrupt("a server of the recovery point panicked")));
            outcome = outcome.and(ended);
        }
        outcome
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!("{error}");
        }
    }
}

/// True where a process answers on the socket.
pub(super) fn is_served(socket: &Path) -> bool {
    UnixStream::connect(socket).is_ok()
}

/// Listens on a socket, in place of one that a process left which is gone.
fn listen(socket: &Path) -> Result<Listener> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(|e| Error::io("cannot create", e).in_file(folder))?;
    }
    if socket.symlink_metadata().is_ok() {
        match UnixStream::connect(socket) {
            Ok(_) => {
                return Err(Error::refused("another process serves this recovery point already")
                    .in_file(socket)
                    .hint("leave --serve out, or stop that one first"));
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(socket).map_err(|e| Error::io("cannot remove", e).in_file(socket))?;
            }
            Err(e) => return Err(Error::io("cannot tell whether it is in use", e).in_file(socket)),
        }
    }
    Listener::unix(socket)
}

/// Gives the sockets to the user as which QEMU runs. One who may not do so is that user, or has to see to it.
pub(super) fn give(serving: &Serving, owner: (u32, u32)) {
    for socket in serving.sockets() {
        if let Err(error) = std::os::unix::fs::chown(socket, Some(owner.0), Some(owner.1)) {
            tracing::info!("{}: stays with its owner: {error}", socket.display());
        }
    }
}
