//! Who is answered, and how. A thread for each connection, a few at once, and nothing else runs.

use super::bundle::Bundle;
use super::machine::{Machine, Part};
use super::protocol::{ASKED_WITHIN, Answer, REQUEST_AT_MOST, Request, TAKEN_WITHIN, UPDATE_AT_MOST};
use super::stream::{ChunkWriter, Chunks, Timed, read_line};
use crate::appliance::kept::Kept;
use crate::appliance::settings::Settings;
use crate::report::failure::Told;
use landfall_image::convert::Cancel;
use landfall_image::{Error, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Connections at once: the console has one, and shows the status meanwhile.
const CONNECTIONS: usize = 8;
/// Between two looks whether it is to end.
const LOOKS: i64 = 1;

/// The listening socket that systemd has handed over.
///
/// # Errors
/// Refused where it is none.
pub fn listener(fd: OwnedFd) -> Result<UnixListener> {
    let is_it = sockopt::socket_domain(&fd).is_ok_and(|family| family == AddressFamily::UNIX)
        && sockopt::socket_type(&fd).is_ok_and(|kind| kind == SocketType::STREAM)
        && sockopt::socket_acceptconn(&fd).unwrap_or(false);
    match is_it {
        true => Ok(UnixListener::from(fd)),
        false => Err(Error::refused("the helper was not handed a listening Unix socket")
            .hint("start it through its socket: systemctl start landfall-helper.socket")),
    }
}

/// The number of a user of this machine, by its name, from the text of `/etc/passwd` (passwd(5)).
///
/// # Errors
/// Refused where there is none.
pub fn user(passwd: &str, name: &str) -> Result<u32> {
    let found = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|own| *own == name)?;
        fields.nth(1)?.parse().ok()
    });
    found.ok_or_else(|| {
        Error::refused(format!("there is no user {name:?}"))
            .hint("make it with systemd-sysusers, or name another")
    })
}

/// Answers requests.
pub struct Server {
    machine: Box<dyn Machine>,
    kept: Kept,
    /// Users that are answered, besides root.
    allowed: Vec<u32>,
    /// Held by whoever changes something, and not by who takes the machine down.
    changing: Mutex<()>,
    connections: AtomicUsize,
}

impl Server {
    /// One that answers root and the users `allowed`.
    pub fn new(machine: Box<dyn Machine>, kept: Kept, allowed: Vec<u32>) -> Server {
        Server { machine, kept, allowed, changing: Mutex::new(()), connections: AtomicUsize::new(0) }
    }

    /// Answers until nobody has asked for `idle`, or `cancel`. systemd starts it again when somebody does.
    ///
    /// # Errors
    /// I/O where the socket fails.
    pub fn run(&self, listener: &UnixListener, idle: Duration, cancel: &Cancel) -> Result<()> {
        let failed = |error| Error::io("the helper's socket fails", error);
        listener.set_nonblocking(true).map_err(failed)?;
        let mut last = Instant::now();
        thread::scope(|scope| {
            loop {
                if self.connections.load(SeqCst) > 0 {
                    last = Instant::now();
                }
                if cancel.is_cancelled() || last.elapsed() >= idle {
                    return Ok(());
                }
                let mut fds = [PollFd::new(listener, PollFlags::IN)];
                let within = Timespec { tv_sec: LOOKS, tv_nsec: 0 };
                match poll(&mut fds, Some(&within)) {
                    Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                    other => other.map_err(|error| failed(error.into()))?,
                };
                let stream = match listener.accept() {
                    Ok((stream, _)) => stream,
                    // It went away again, or there is no descriptor left: the next one is waited for.
                    Err(error) => {
                        tracing::debug!(%error, "a connection could not be taken");
                        thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                };
                last = Instant::now();
                if self.connections.fetch_add(1, SeqCst) >= CONNECTIONS {
                    self.connections.fetch_sub(1, SeqCst);
                    refuse(&stream, &Error::refused("too many ask at once").hint("try again in a moment"));
                    continue;
                }
                let answered = thread::Builder::new().spawn_scoped(scope, || {
                    let stream = stream;
                    self.connection(&stream);
                    self.connections.fetch_sub(1, SeqCst);
                });
                if let Err(error) = answered {
                    self.connections.fetch_sub(1, SeqCst);
                    tracing::warn!(%error, "a connection could not be served");
                }
            }
        })
    }

    fn connection(&self, stream: &UnixStream) {
        let peer = match sockopt::socket_peercred(stream) {
            Ok(peer) => peer.uid.as_raw(),
            Err(error) => return tracing::warn!(%error, "who asks is not known"),
        };
        if peer != 0 && !self.allowed.contains(&peer) {
            tracing::warn!(user = peer, "a user asks who may not");
            return refuse(stream, &Error::refused(format!("user {peer} may not ask the helper")));
        }
        let asked = stream
            .set_nonblocking(false)
            .map_err(|error| Error::io("the connection cannot be read", error))
            .and_then(|()| read_line(&mut Timed::new(stream, ASKED_WITHIN), REQUEST_AT_MOST, false))
            .and_then(|line| Request::parse(&line));
        let request = match asked {
            Ok(request) => request,
            Err(error) => return refuse(stream, &error),
        };
        let name = request.name();
        if request.is_change() {
            tracing::info!(user = peer, request = name, "asked");
        }
        match self.answer(request, stream) {
            Ok(None) => {}
            Ok(Some(answer)) => tell(stream, &answer),
            Err(error) => {
                tracing::warn!(user = peer, request = name, %error, "not done");
                refuse(stream, &error);
            }
        }
    }

    /// What is answered at the end; `None` where all was sent.
    fn answer(&self, request: Request, stream: &UnixStream) -> Result<Option<Answer>> {
        let _changing = match request.is_change() && !request.goes_down() {
            false => None,
            true => Some(self.changing.try_lock().map_err(|_| {
                Error::refused("another change is under way").hint("try again when it is done")
            })?),
        };
        let machine = self.machine.as_ref();
        let mut says = Vec::new();
        match request {
            Request::Status {} => {
                return machine
                    .status(&self.kept.load())
                    .map(|status| Some(Answer::Status(Box::new(status))));
            }
            Request::SupportBundle {} => return self.bundle(stream).map(|()| None),
            Request::SetNetwork { nic, dns, search } => self.set(Part::Network, |typed| {
                (typed.nic, typed.dns, typed.search) = (nic, dns, search);
            })?,
            Request::SetHostname { hostname } => {
                self.set(Part::HostName, |typed| typed.hostname = hostname)?
            }
            Request::SetTime { utc: Some(to), .. } => says = machine.set_clock(to)?,
            Request::SetTime { ntp, .. } => self.set(Part::TimeServers, |typed| typed.ntp = ntp)?,
            Request::SetSshKeys { keys } => self.set(Part::SshKeys, |typed| typed.ssh_keys = keys)?,
            Request::ClaimDisk { disk, serial } => says = machine.claim_disk(&disk, &serial)?,
            Request::GrowDisk {} => says = machine.grow_disk()?,
            Request::Update {} => says = self.update(stream)?,
            Request::ForgetToken {} => machine.forget_token()?,
            Request::Restart {} => machine.restart()?,
            Request::PowerOff {} => machine.power_off()?,
            Request::RestartService {} => machine.restart_service()?,
        }
        Ok(Some(Answer::Done { says }))
    }

    /// Keeps the typed settings with a change, and puts it into effect.
    fn set(&self, part: Part, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let mut typed = self.kept.load().typed;
        change(&mut typed);
        self.kept.keep_typed(&typed)?;
        self.machine.apply(part).map_err(|error| {
            let says = format!("it is kept, but not in effect: {error}");
            let said = Error::new(error.kind(), says);
            said.hint(error.hint_text().unwrap_or("restart the machine: settings are put into effect then"))
        })
    }

    fn update(&self, stream: &UnixStream) -> Result<Vec<String>> {
        // Before half a gigabyte is sent.
        self.machine.can_update()?;
        tell(stream, &Answer::Send);
        let mut chunks = Chunks::new(stream, UPDATE_AT_MOST);
        let says = self.machine.update(&mut chunks)?;
        match chunks.is_ended() {
            true => Ok(says),
            // It was taken, so it was whole by its own reckoning.
            false => Err(Error::refused("the update was taken, but more was sent than it has")
                .hint("look at the versions in the status before the machine is restarted")),
        }
    }

    fn bundle(&self, stream: &UnixStream) -> Result<()> {
        let kept = self.kept.load();
        let status = self.machine.status(&kept)?;
        tell(stream, &Answer::Stream);
        // An error from here on is a stream that is cut off.
        let sent = (|| {
            let mut bundle = Bundle::new(ChunkWriter::new(stream))?;
            bundle.document("status.json", &status)?;
            bundle.add("settings.toml", kept.effective().to_toml()?.as_bytes())?;
            self.machine.support(&mut |name, bytes| bundle.add(name, bytes))?;
            bundle.finish()?.finish().map_err(|error| Error::io("the support bundle cannot be sent", error))
        })();
        if let Err(error) = sent {
            tracing::warn!(%error, "the support bundle was cut off");
        }
        Ok(())
    }
}

/// Sends an answer. Who does not take it does not get it.
fn tell(stream: &UnixStream, answer: &Answer) {
    let sent = serde_json::to_vec(answer).map_err(std::io::Error::from).and_then(|mut line| {
        line.push(b'\n');
        Timed::new(stream, TAKEN_WITHIN).write_all(&line)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "an answer was not taken");
    }
}

fn refuse(stream: &UnixStream, error: &Error) {
    tell(stream, &Answer::Error(Told::from(error)));
}

#[cfg(test)]
mod tests;
