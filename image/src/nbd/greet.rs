//! The client's half of the handshake: from an open socket to an export whose size and habits are known.

use super::protocol::*;
use super::stream::{Socket, Stream};
use super::uri::{Address, Uri};
use crate::error::{Error, Result};
use crate::limits;
use crate::units::Bytes;
use rustls::ClientConfig;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes in one reply to an option: names and descriptions have at most 4096 each.
const REPLY_AT_MOST: u32 = 64 << 10;
/// Replies to one option. Only a listing of exports has more than a handful.
const REPLIES_AT_MOST: usize = 4096;
/// Exports that an error lists.
const EXPORTS_NAMED: usize = 16;

/// What a server says of its export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct About {
    pub size: Bytes,
    pub flags: u16,
    /// Requests start and end on multiples of this, a power of two.
    pub least: u32,
    /// What the server likes best.
    pub preferred: u32,
    /// Longest data of one request.
    pub most: u32,
    /// Replies come in chunks.
    pub structured: bool,
    /// The number of the context `base:allocation`, where the server has it.
    pub allocation: Option<u32>,
    /// The other contexts that were asked for and that the server has, with their numbers.
    pub contexts: Vec<(String, u32)>,
    /// The server's text about the export.
    pub description: Option<String>,
}

impl About {
    pub(super) fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// Why an option came to nothing, with the server's own words.
struct Denied {
    code: u32,
    words: String,
}

/// Text from the other side, fit to be printed.
pub(super) fn printable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(256).collect()
}

/// An error of the socket while something was being done.
pub(super) fn lost(uri: &Uri, doing: &str, error: io::Error) -> Error {
    let ended = error.kind() == ErrorKind::UnexpectedEof;
    let error = if ended { io::Error::new(ErrorKind::ConnectionReset, "the server hung up") } else { error };
    Error::io(doing, error).in_file(uri.as_path())
}

/// Connects and goes over to transmission. All of it has to be done within `timeout`, the connecting apart.
pub(super) fn greet(
    uri: &Uri,
    tls: Option<&Arc<ClientConfig>>,
    timeout: Duration,
    contexts: &[String],
) -> Result<(Stream, About)> {
    let socket = Socket::connect(uri.address(), timeout).map_err(|e| {
        let error = Error::io("cannot connect to the NBD server", e).in_file(uri.as_path());
        match uri.address() {
            Address::Tcp(host, port) => error.hint(format!(
                "check that a server listens on {host} port {port} and no firewall is between"
            )),
            Address::Unix(path) => {
                error.hint(format!("check that a server listens on the socket {}", path.display()))
            }
        }
    })?;
    socket.set_timeout(Some(timeout)).map_err(|e| lost(uri, "cannot set a time limit", e))?;
    let stream = Stream::plain(socket);
    stream.set_deadline(Some(Instant::now() + timeout));
    let mut greeting = Greeting { uri, stream, no_zeroes: false };
    greeting.hello()?;
    if uri.tls() {
        let config = tls.ok_or_else(|| greeting.refused("needs TLS, which is not set up"))?;
        greeting = greeting.encrypt(config)?;
    }
    let about = greeting.export(contexts)?;
    greeting.stream.set_deadline(None);
    Ok((greeting.stream, about))
}

struct Greeting<'a> {
    uri: &'a Uri,
    stream: Stream,
    no_zeroes: bool,
}

impl Greeting<'_> {
    fn corrupt(&self, says: impl Into<String>) -> Error {
        Error::corrupt(says).in_file(self.uri.as_path())
    }
    fn refused(&self, says: impl Into<String>) -> Error {
        Error::refused(says).in_file(self.uri.as_path())
    }

    fn send(&self, data: &[u8]) -> Result<()> {
        (&self.stream).write_all(data).map_err(|e| lost(self.uri, "cannot speak to the NBD server", e))
    }

    fn receive<const N: usize>(&self) -> Result<[u8; N]> {
        let mut out = [0; N];
        (&self.stream)
            .read_exact(&mut out)
            .map_err(|e| lost(self.uri, "no greeting from the NBD server", e))?;
        Ok(out)
    }

    /// Magic and flags of both sides.
    fn hello(&mut self) -> Result<()> {
        let magic = u64::from_be_bytes(self.receive()?);
        if magic != NBDMAGIC {
            return Err(self.corrupt(format!("is no NBD server: it begins with {magic:#018x}, not NBDMAGIC")));
        }
        let style = u64::from_be_bytes(self.receive()?);
        if style == OLDSTYLE_MAGIC {
            return Err(Error::unsupported("the NBD server speaks the oldstyle handshake, given up in 2015")
                .in_file(self.uri.as_path())
                .hint("serve the disk with qemu-nbd, nbdkit, or nbd-server 3.10 or later"));
        }
        if style != IHAVEOPT {
            return Err(self.corrupt(format!("the NBD server goes on with {style:#018x}, not IHAVEOPT")));
        }
        let flags = u16::from_be_bytes(self.receive()?);
        if flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(Error::unsupported(format!(
                "the NBD server's handshake flags are {flags:#x}: it lacks fixed newstyle (bit 0)"
            ))
            .in_file(self.uri.as_path())
            .hint("serve the disk with qemu-nbd, nbdkit, or nbd-server 3.10 or later"));
        }
        self.no_zeroes = flags & FLAG_NO_ZEROES != 0;
        let ours = flags & (FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES);
        self.send(&u32::from(ours).to_be_bytes())
    }

    /// Sends an option and hands every reply before the last to `each`.
    fn ask(
        &self,
        option: u32,
        data: &[u8],
        mut each: impl FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<Result<(), Denied>> {
        let mut message = option_head(option, data.len());
        message.extend(data);
        self.send(&message)?;
        for _ in 0..REPLIES_AT_MOST {
            let head = self.receive::<20>()?;
            let mut fields = Fields(&head);
            let (magic, to) = (fields.u64().unwrap_or_default(), fields.u32().unwrap_or_default());
            let (kind, len) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
            if magic != OPTION_REPLY_MAGIC || to != option {
                return Err(self.corrupt(format!(
                    "the NBD server answers option {option} with magic {magic:#x} for option {to}"
                )));
            }
            if len > REPLY_AT_MOST {
                return Err(self.corrupt(format!(
                    "the NBD server's answer to option {option} has {len} bytes; at most {REPLY_AT_MOST} are read"
                )));
            }
            let mut reply = vec![0; usize::try_from(len).unwrap_or_default()];
            (&self.stream)
                .read_exact(&mut reply)
                .map_err(|e| lost(self.uri, "no greeting from the NBD server", e))?;
            match kind {
                REP_ACK => return Ok(Ok(())),
                kind if kind & REP_ERROR != 0 => {
                    return Ok(Err(Denied { code: kind, words: printable(&reply) }));
                }
                kind => each(kind, &reply)?,
            }
        }
        Err(self.corrupt(format!("the NBD server answers option {option} more than {REPLIES_AT_MOST} times")))
    }

    fn encrypt(self, config: &Arc<ClientConfig>) -> Result<Self> {
        if let Err(denied) = self.ask(OPT_STARTTLS, &[], |_, _| Ok(()))? {
            let error = self.denied(&denied, "refuses TLS");
            return Err(error.hint("set TLS up on the server, or say nbd:// if everybody may listen"));
        }
        let host = self.uri.tls_hostname();
        let stream =
            self.stream.into_tls_client(config.clone(), host).map_err(|e| e.in_file(self.uri.as_path()))?;
        Ok(Greeting { stream, ..self })
    }

    fn export(&self, contexts: &[String]) -> Result<About> {
        let structured = self.agreed(OPT_STRUCTURED_REPLY, &[], |_, _| Ok(()))?;
        let mut numbers: Vec<(String, u32)> = Vec::new();
        if structured {
            let names: Vec<&str> =
                [BASE_ALLOCATION].into_iter().chain(contexts.iter().map(String::as_str)).collect();
            let mut query = self.name();
            query.extend(u32::try_from(names.len()).unwrap_or_default().to_be_bytes());
            for name in &names {
                query.extend(u32::try_from(name.len()).unwrap_or_default().to_be_bytes());
                query.extend(name.as_bytes());
            }
            let agreed = self.agreed(OPT_SET_META_CONTEXT, &query, |kind, reply| {
                let mut fields = Fields(reply);
                if kind != REP_META_CONTEXT {
                    return Ok(());
                }
                let (number, said) = (fields.u32(), fields.0);
                let name = names.iter().find(|name| name.as_bytes() == said);
                if let (Some(number), Some(name)) = (number, name) {
                    if numbers.iter().any(|(other, of_it)| other == name || *of_it == number) {
                        return Err(self.corrupt(format!(
                            "the NBD server gives the number {number} or the context {name} twice"
                        )));
                    }
                    numbers.push(((*name).to_owned(), number));
                }
                Ok(())
            })?;
            numbers.retain(|_| agreed);
        }
        let place = numbers.iter().position(|(name, _)| name == BASE_ALLOCATION);
        let allocation = place.map(|place| numbers.remove(place).1);
        let mut about = About {
            size: Bytes(0),
            flags: 0,
            least: 0,
            preferred: 4096,
            most: u32::try_from(REQUEST_AT_MOST.0).unwrap_or(u32::MAX),
            structured,
            allocation,
            contexts: numbers,
            description: None,
        };
        let mut known = false;
        let mut wants = self.name();
        wants.extend(2u16.to_be_bytes());
        wants.extend(INFO_BLOCK_SIZE.to_be_bytes());
        wants.extend(INFO_DESCRIPTION.to_be_bytes());
        let short = || self.corrupt("the NBD server's information about its export is cut off");
        let went = self.ask(OPT_GO, &wants, |kind, reply| {
            let mut fields = Fields(reply);
            if kind != REP_INFO {
                return Ok(());
            }
            match fields.u16().ok_or_else(short)? {
                INFO_EXPORT => {
                    about.size = Bytes(fields.u64().ok_or_else(short)?);
                    about.flags = fields.u16().ok_or_else(short)?;
                    known = true;
                }
                INFO_BLOCK_SIZE => {
                    about.least = fields.u32().ok_or_else(short)?;
                    about.preferred = fields.u32().ok_or_else(short)?;
                    about.most = fields.u32().ok_or_else(short)?;
                    self.check_block_sizes(&about)?;
                }
                INFO_DESCRIPTION => about.description = Some(printable(fields.0)),
                _ => {}
            }
            Ok(())
        })?;
        match went {
            Ok(()) if !known => {
                return Err(self.corrupt("the NBD server does not say how large its export is"));
            }
            Ok(()) => {}
            Err(denied) if denied.code == REP_ERR_UNSUP => {
                // A server from before 2017. This option has no answer but the export, or the end.
                let mut message = option_head(OPT_EXPORT_NAME, self.uri.export().len());
                message.extend(self.uri.export().as_bytes());
                self.send(&message)?;
                let reply = self.receive::<10>()?;
                let mut fields = Fields(&reply);
                about.size = Bytes(fields.u64().ok_or_else(short)?);
                about.flags = fields.u16().ok_or_else(short)?;
                if !self.no_zeroes {
                    self.receive::<124>()?;
                }
            }
            Err(denied) => return Err(self.no_export(&denied)),
        }
        self.check(&mut about)?;
        Ok(about)
    }

    /// The export's name with its length.
    fn name(&self) -> Vec<u8> {
        let name = self.uri.export().as_bytes();
        let mut out = u32::try_from(name.len()).unwrap_or_default().to_be_bytes().to_vec();
        out.extend(name);
        out
    }

    /// An option that a server may do without.
    fn agreed(&self, option: u32, data: &[u8], each: impl FnMut(u32, &[u8]) -> Result<()>) -> Result<bool> {
        match self.ask(option, data, each)? {
            Ok(()) => Ok(true),
            Err(denied) if denied.code == REP_ERR_TLS_REQD => Err(self.no_export(&denied)),
            Err(_) => Ok(false),
        }
    }

    fn check_block_sizes(&self, about: &About) -> Result<()> {
        let About { least, preferred, most, .. } = *about;
        let good = least.is_power_of_two()
            && least <= 65_536
            && preferred.is_power_of_two()
            && preferred >= least
            && (most == u32::MAX || most.is_multiple_of(least))
            && most >= preferred.min(4096)
            && most >= least;
        if good {
            return Ok(());
        }
        Err(self.corrupt(format!(
            "the NBD server's block sizes contradict the protocol: smallest {least}, preferred {preferred}, largest {most}"
        )))
    }

    fn check(&self, about: &mut About) -> Result<()> {
        if about.flags & HAS_FLAGS == 0 {
            return Err(self.corrupt(format!("the NBD server's transmission flags are {:#x}", about.flags)));
        }
        if about.size > limits::DISK_SIZE {
            return Err(self.refused(format!(
                "says it is a disk of {} bytes; the limit is {}",
                about.size.0,
                limits::DISK_SIZE
            )));
        }
        if about.least == 0 {
            // What the protocol document tells a client to assume; images of odd length exist.
            about.least = if about.size.0.is_multiple_of(512) { 512 } else { 1 };
        }
        if !about.size.0.is_multiple_of(u64::from(about.least)) {
            return Err(Error::unsupported(format!(
                "has {} bytes, of which the last cannot be asked for in units of {}",
                about.size.0, about.least
            ))
            .in_file(self.uri.as_path()));
        }
        let most = u32::try_from(REQUEST_AT_MOST.0).unwrap_or(u32::MAX);
        about.most = about.most.min(most);
        Ok(())
    }

    fn denied(&self, denied: &Denied, what: &str) -> Error {
        let code = denied.code & !REP_ERROR;
        let words = if denied.words.is_empty() { String::new() } else { format!(": {}", denied.words) };
        self.refused(format!("the NBD server {what} (error {code}){words}"))
    }

    /// The export was asked for in vain.
    fn no_export(&self, denied: &Denied) -> Error {
        match denied.code {
            REP_ERR_TLS_REQD => self.denied(denied, "wants TLS").hint(
                "say nbds:// (nbds+unix:// for a socket) and give the authority's certificate with --tls-ca",
            ),
            REP_ERR_UNKNOWN => {
                let error = self.denied(denied, &format!("has no export named {:?}", self.uri.export()));
                let mut names = Vec::new();
                let listed = self.ask(OPT_LIST, &[], |kind, reply| {
                    if kind == REP_SERVER
                        && names.len() < EXPORTS_NAMED
                        && let Some(name) = Fields(reply).text()
                    {
                        names.push(format!("{:?}", printable(name)));
                    }
                    Ok(())
                });
                match listed {
                    Ok(Ok(())) if !names.is_empty() => error.hint(format!("it has {}", names.join(", "))),
                    _ => error.hint("ask whoever runs the server for the name of the export"),
                }
            }
            REP_ERR_POLICY => self.denied(denied, "does not allow this client to use the export"),
            REP_ERR_SHUTDOWN => self.denied(denied, "is shutting down"),
            REP_ERR_BLOCK_SIZE_REQD => self.denied(denied, "wants block sizes that it does not name"),
            REP_ERR_PLATFORM => self.denied(denied, "cannot do this where it runs"),
            _ => self.denied(denied, "does not give the export out"),
        }
    }
}
