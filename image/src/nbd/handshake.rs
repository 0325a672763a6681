//! The server's half of the handshake: the client asks for options until it goes over to transmission or leaves.

use super::protocol::*;
use super::stream::Stream;
use crate::error::{Error, Result};
use rustls::ServerConfig;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

const KNOWN_CLIENT_FLAGS: u32 = 0b11;
const CLIENT_FIXED_NEWSTYLE: u32 = 1 << 0;
const CLIENT_NO_ZEROES: u32 = 1 << 1;

/// Bytes of option data that are read. Names are at most 4096 bytes; the rest of an option is a few more.
const OPTION_AT_MOST: u32 = 16 << 10;

/// Options that one client may send before it starts: a real one sends about five.
const OPTIONS_AT_MOST: usize = 64;

/// The number that this server gives the context `base:allocation`.
pub(super) const ALLOCATION: u32 = 1;

/// What a client is offered.
pub(super) struct Offer<'a> {
    pub size: u64,
    pub sector_size: u64,
    pub read_only: bool,
    pub name: &'a str,
    pub description: Option<&'a str>,
    /// Encryption, which a client then has to use.
    pub tls: Option<&'a Arc<ServerConfig>>,
    /// Many connections see one disk.
    pub many: bool,
}

/// What a client chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    pub structured: bool,
    pub allocation: bool,
}

/// An error of the socket.
pub(super) fn lost(error: io::Error) -> Error {
    Error::io("the NBD connection failed", error)
}

/// The stream and what was agreed on, where transmission begins; `None` where the client left.
pub(super) fn negotiate(stream: Stream, offer: &Offer) -> Result<Option<(Stream, Chosen)>> {
    let mut hello = Vec::with_capacity(18);
    hello.extend(NBDMAGIC.to_be_bytes());
    hello.extend(IHAVEOPT.to_be_bytes());
    hello.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    (&stream).write_all(&hello).map_err(lost)?;
    let Some(flags) = read_array::<4>(&stream)?.map(u32::from_be_bytes) else { return Ok(None) };
    if flags & !KNOWN_CLIENT_FLAGS != 0 || flags & CLIENT_FIXED_NEWSTYLE == 0 {
        return Err(Error::unsupported(format!(
            "the NBD client's flags are {flags:#x}; fixed newstyle (bit 0) and no zeroes (bit 1) are known"
        )));
    }
    let mut talk = Talk { stream, offer, chosen: Chosen::default(), asked_for: Vec::new() };
    for _ in 0..OPTIONS_AT_MOST {
        let Some(head) = read_array::<16>(&talk.stream)? else { return Ok(None) };
        let mut fields = Fields(&head);
        let magic = fields.u64().unwrap_or_default();
        let (option, len) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
        if magic != IHAVEOPT {
            return Err(Error::corrupt(format!("NBD option magic is {magic:#x}, not {IHAVEOPT:#x}")));
        }
        if len > OPTION_AT_MOST {
            // What follows cannot be skipped cheaply, and no real client sends it.
            talk.reply(option, REP_ERR_TOO_BIG, &[])?;
            return Err(Error::refused(format!(
                "NBD option {option} has {len} bytes of data; at most {OPTION_AT_MOST} are read"
            )));
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        (&talk.stream).read_exact(&mut data).map_err(lost)?;
        if option == OPT_STARTTLS && data.is_empty() {
            talk = talk.encrypt()?;
            continue;
        }
        match talk.option(option, &data, flags & CLIENT_NO_ZEROES == 0)? {
            Next::Again => {}
            Next::Left => return Ok(None),
            Next::Transmission => return Ok(Some((talk.stream, talk.chosen))),
        }
    }
    Err(Error::refused(format!("the NBD client sent {OPTIONS_AT_MOST} options without starting")))
}

enum Next {
    Again,
    Left,
    Transmission,
}

struct Talk<'a> {
    stream: Stream,
    offer: &'a Offer<'a>,
    chosen: Chosen,
    /// The export that the metadata context was chosen for.
    asked_for: Vec<u8>,
}

impl Talk<'_> {
    /// Everything said before counts no more: it could have been anybody.
    fn encrypt(self) -> Result<Self> {
        let (Some(tls), false) = (self.offer.tls, self.stream.is_encrypted()) else {
            let why = if self.stream.is_encrypted() { REP_ERR_INVALID } else { REP_ERR_UNSUP };
            self.reply(OPT_STARTTLS, why, &[])?;
            return Ok(self);
        };
        self.reply(OPT_STARTTLS, REP_ACK, &[])?;
        let stream = self.stream.into_tls_server(tls.clone())?;
        Ok(Talk { stream, chosen: Chosen::default(), asked_for: Vec::new(), ..self })
    }

    fn option(&mut self, option: u32, data: &[u8], pads: bool) -> Result<Next> {
        let must_encrypt = self.offer.tls.is_some() && !self.stream.is_encrypted();
        match option {
            OPT_EXPORT_NAME => {
                // This option has no way to say no but to hang up.
                if must_encrypt {
                    return Err(Error::refused("the NBD client does not encrypt"));
                }
                if !self.is_ours(data) {
                    let says = format!("the NBD client asked for another export than {:?}", self.offer.name);
                    return Err(Error::refused(says));
                }
                let mut export = self.export();
                if pads {
                    export.resize(export.len() + 124, 0);
                }
                (&self.stream).write_all(&export).map_err(lost)?;
                self.settle(data);
                return Ok(Next::Transmission);
            }
            OPT_ABORT => {
                // The client may be gone already: it need not wait for this.
                let _ = self.reply(option, REP_ACK, &[]);
                return Ok(Next::Left);
            }
            _ if must_encrypt => self.reply(option, REP_ERR_TLS_REQD, &[])?,
            OPT_LIST if data.is_empty() => {
                let mut server = text(self.offer.name);
                server.extend(self.offer.description.unwrap_or_default().bytes());
                self.reply(option, REP_SERVER, &server)?;
                self.reply(option, REP_ACK, &[])?;
            }
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.chosen.structured = true;
                self.reply(option, REP_ACK, &[])?;
            }
            OPT_LIST | OPT_STRUCTURED_REPLY => self.reply(option, REP_ERR_INVALID, &[])?,
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.contexts(option, data)?,
            OPT_INFO | OPT_GO => return self.info(option, data),
            _ => self.reply(option, REP_ERR_UNSUP, &[])?,
        }
        Ok(Next::Again)
    }

    /// The empty name is the default export.
    fn is_ours(&self, name: &[u8]) -> bool {
        name.is_empty() || name == self.offer.name.as_bytes()
    }

    /// A context was chosen for one export and counts for no other.
    fn settle(&mut self, name: &[u8]) {
        self.chosen.allocation &= self.asked_for == name;
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Result<Next> {
        let Some((name, kinds)) = parse_info(data) else {
            self.reply(option, REP_ERR_INVALID, &[])?;
            return Ok(Next::Again);
        };
        if !self.is_ours(name) {
            self.reply(option, REP_ERR_UNKNOWN, &[])?;
            return Ok(Next::Again);
        }
        let mut info = INFO_EXPORT.to_be_bytes().to_vec();
        info.extend(self.export());
        self.reply(option, REP_INFO, &info)?;
        self.reply(option, REP_INFO, &self.block_sizes())?;
        for kind in kinds {
            let says = match kind {
                INFO_NAME => Some(self.offer.name),
                INFO_DESCRIPTION => self.offer.description,
                _ => None,
            };
            if let Some(says) = says {
                let mut info = kind.to_be_bytes().to_vec();
                info.extend(says.bytes());
                self.reply(option, REP_INFO, &info)?;
            }
        }
        self.reply(option, REP_ACK, &[])?;
        if option == OPT_INFO {
            return Ok(Next::Again);
        }
        self.settle(name);
        Ok(Next::Transmission)
    }

    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let sets = option == OPT_SET_META_CONTEXT;
        if sets {
            self.chosen.allocation = false;
        }
        let Some((name, queries)) = parse_contexts(data).filter(|_| self.chosen.structured || !sets) else {
            return self.reply(option, REP_ERR_INVALID, &[]);
        };
        if !self.is_ours(name) {
            return self.reply(option, REP_ERR_UNKNOWN, &[]);
        }
        // A listing may ask for a whole namespace, or for everything.
        let asks = |query: &&[u8]| **query == *BASE_ALLOCATION.as_bytes() || (!sets && **query == *b"base:");
        if queries.iter().any(asks) || (!sets && queries.is_empty()) {
            let mut context = if sets { ALLOCATION } else { 0 }.to_be_bytes().to_vec();
            context.extend(BASE_ALLOCATION.bytes());
            self.reply(option, REP_META_CONTEXT, &context)?;
            if sets {
                self.chosen.allocation = true;
                self.asked_for = name.to_vec();
            }
        }
        self.reply(option, REP_ACK, &[])
    }

    /// Size and transmission flags.
    fn export(&self) -> Vec<u8> {
        let offer = self.offer;
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_CACHE;
        flags |= match offer.read_only {
            true => READ_ONLY,
            false => SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO,
        };
        if offer.many {
            flags |= CAN_MULTI_CONN;
        }
        if self.chosen.structured {
            flags |= SEND_DF;
        }
        let mut out = offer.size.to_be_bytes().to_vec();
        out.extend(flags.to_be_bytes());
        out
    }

    /// Smallest, preferred and largest request. The smallest is 1: images of odd length exist, and a disk of
    /// sectors takes any range.
    fn block_sizes(&self) -> Vec<u8> {
        let preferred = u32::try_from(self.offer.sector_size.clamp(512, 65_536)).unwrap_or(4096).max(4096);
        let largest = u32::try_from(REQUEST_AT_MOST.0).unwrap_or(u32::MAX);
        let mut out = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for value in [1, preferred, largest] {
            out.extend(value.to_be_bytes());
        }
        out
    }

    fn reply(&self, option: u32, kind: u32, data: &[u8]) -> Result<()> {
        let mut out = OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        out.extend(option.to_be_bytes());
        out.extend(kind.to_be_bytes());
        out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend(data);
        (&self.stream).write_all(&out).map_err(lost)
    }
}

/// A text with its length.
fn text(text: &str) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).unwrap_or_default().to_be_bytes().to_vec();
    out.extend(text.bytes());
    out
}

/// The export name and the wanted kinds in the data of `INFO` and `GO`: `length:32 name count:16 (type:16)*`.
fn parse_info(data: &[u8]) -> Option<(&[u8], Vec<u16>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = usize::from(fields.u16()?);
    if fields.0.len() != count * 2 {
        return None;
    }
    Some((name, std::iter::from_fn(|| fields.u16()).collect()))
}

/// The export name and the queries in the data of the options on metadata contexts.
fn parse_contexts(data: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let mut fields = Fields(data);
    let name = fields.text()?;
    let count = fields.u32()?;
    let queries: Option<Vec<_>> = (0..count).map(|_| fields.text()).collect();
    queries.filter(|_| fields.0.is_empty()).map(|queries| (name, queries))
}

/// `None` where the client hung up between two messages.
fn read_array<const N: usize>(mut stream: &Stream) -> Result<Option<[u8; N]>> {
    let mut out = [0; N];
    match stream.read_exact(&mut out) {
        Ok(()) => Ok(Some(out)),
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(None),
        Err(e) => Err(lost(e)),
    }
}
