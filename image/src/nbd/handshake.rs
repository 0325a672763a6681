//! The server's half of the handshake, without a socket: the client asks for options until it goes over to
//! transmission or leaves. Whoever has the connection reads as many bytes as are wanted next, never more, so that the
//! first byte of TLS or of a request is still on the wire when its time comes.

use super::protocol::*;
use crate::error::{Error, Result};

const KNOWN_CLIENT_FLAGS: u32 = 0b11;
const CLIENT_FIXED_NEWSTYLE: u32 = 1 << 0;
const CLIENT_NO_ZEROES: u32 = 1 << 1;
const FLAGS_LEN: usize = 4;
const OPTION_HEAD_LEN: usize = 16;

/// Bytes of option data that are read. Names are at most 4096 bytes; the rest of an option is a few more.
pub const OPTION_AT_MOST: u32 = 16 << 10;

/// Options that one client may send before it starts: a real one sends about five.
pub const OPTIONS_AT_MOST: usize = 64;

/// The number that the server gives the context `base:allocation`.
pub const ALLOCATION: u32 = 1;

/// What a client is offered under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// In bytes.
    pub size: u64,
    /// The block size that is recommended; 4096 to 65,536 are taken as they are.
    pub preferred: u64,
    /// Whoever writes gets `EPERM`.
    pub read_only: bool,
    /// The export's own name, which the client may have said differently.
    pub name: String,
    /// A text about it.
    pub description: Option<String>,
    /// Many connections see one disk.
    pub many: bool,
}

/// Why a client gets no export under a name. The texts go to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// There is none of that name, or none that this client may know of.
    Unknown,
    /// This client must not have it, or not now.
    Policy(String),
    /// It is there and does not work.
    Failed(String),
    /// The server is about to end.
    Shutdown,
}

/// Where a handshake finds what it offers. Not asked anything before the client encrypts, where it has to.
pub trait Offers {
    /// What is offered under `name`; the empty name is the default export's.
    fn find(&self, name: &str) -> Result<Offer, Denied>;
    /// The names that this client may know, with a text about each.
    fn list(&self) -> Vec<(String, String)>;
}

/// What a client chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Replies come in chunks where there is more to say than yes.
    pub structured: bool,
    /// `BLOCK_STATUS` may be asked for.
    pub allocation: bool,
}

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// No, and it is not on offer.
    None,
    /// Not yet, and nothing else is answered before it is.
    Required,
    /// It is.
    Done,
}

/// What follows a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next message.
    More,
    /// When what is to be sent has been sent: TLS, and then [`Handshake::encrypted`].
    Encrypt,
    /// The end; the client has said so.
    Left,
    /// Requests for this export.
    Transmission(Offer, Chosen),
}

/// One handshake.
#[derive(Debug)]
pub struct Handshake {
    encryption: Encryption,
    /// The client's flags, once they are here.
    flags: Option<u32>,
    /// Number and length of the option whose data come next.
    head: Option<(u32, u32)>,
    options: usize,
    chosen: Chosen,
    /// The export that the metadata context was chosen for.
    asked_for: String,
}

impl Handshake {
    /// One that begins, and what has to be sent first.
    pub fn new(encryption: Encryption) -> (Handshake, [u8; 18]) {
        let mut hello = [0; 18];
        hello[..8].copy_from_slice(&NBDMAGIC.to_be_bytes());
        hello[8..16].copy_from_slice(&IHAVEOPT.to_be_bytes());
        hello[16..].copy_from_slice(&(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
        let handshake = Handshake {
            encryption,
            flags: None,
            head: None,
            options: 0,
            chosen: Chosen::default(),
            asked_for: String::new(),
        };
        (handshake, hello)
    }

    /// How many bytes the next message has: 1 to [`OPTION_AT_MOST`].
    pub fn wants(&self) -> usize {
        match (self.flags, self.head) {
            (None, _) => FLAGS_LEN,
            (_, None) => OPTION_HEAD_LEN,
            (_, Some((_, len))) => usize::try_from(len).unwrap_or(usize::MAX),
        }
    }

    /// True where a client may hang up without a word being lost.
    pub fn is_between_messages(&self) -> bool {
        self.head.is_none()
    }

    /// Takes the next message, which has as many bytes as were wanted, and adds to `out` what has to be sent, also
    /// where the client is not to be talked to any further (an error).
    pub fn take(&mut self, message: &[u8], offers: &dyn Offers, out: &mut Vec<u8>) -> Result<Step> {
        let mut fields = Fields(message);
        let Some(flags) = self.flags else {
            let flags = fields.u32().unwrap_or_default();
            if flags & !KNOWN_CLIENT_FLAGS != 0 || flags & CLIENT_FIXED_NEWSTYLE == 0 {
                return Err(Error::unsupported(format!(
                    "the NBD client's flags are {flags:#x}; fixed newstyle (bit 0) and no zeroes (bit 1) are known"
                )));
            }
            self.flags = Some(flags);
            return Ok(Step::More);
        };
        let (option, data) = match self.head.take() {
            Some((option, _)) => (option, message),
            None => {
                let magic = fields.u64().unwrap_or_default();
                let (option, len) = (fields.u32().unwrap_or_default(), fields.u32().unwrap_or_default());
                self.check_head(magic, option, len, out)?;
                if len > 0 {
                    self.head = Some((option, len));
                    return Ok(Step::More);
                }
                (option, &[][..])
            }
        };
        let pads = flags & CLIENT_NO_ZEROES == 0;
        Talk { state: self, offers, out }.option(option, data, pads)
    }

    fn check_head(&mut self, magic: u64, option: u32, len: u32, out: &mut Vec<u8>) -> Result<()> {
        if magic != IHAVEOPT {
            return Err(Error::corrupt(format!("NBD option magic is {magic:#x}, not {IHAVEOPT:#x}")));
        }
        if self.options == OPTIONS_AT_MOST {
            return Err(Error::refused(format!(
                "the NBD client sent {OPTIONS_AT_MOST} options without starting"
            )));
        }
        self.options += 1;
        if len > OPTION_AT_MOST {
            // What follows cannot be skipped cheaply, and no real client sends it.
            reply(out, option, REP_ERR_TOO_BIG, &[]);
            return Err(Error::refused(format!(
                "NBD option {option} has {len} bytes of data; at most {OPTION_AT_MOST} are read"
            )));
        }
        Ok(())
    }

    /// The connection is encrypted from here on. What was said before counts no more: it could have been anybody.
    pub fn encrypted(&mut self) {
        self.encryption = Encryption::Done;
        self.chosen = Chosen::default();
        self.asked_for.clear();
    }
}

/// One option being answered.
struct Talk<'a> {
    state: &'a mut Handshake,
    offers: &'a dyn Offers,
    out: &'a mut Vec<u8>,
}

impl Talk<'_> {
    fn option(mut self, option: u32, data: &[u8], pads: bool) -> Result<Step> {
        let must_encrypt = self.state.encryption == Encryption::Required;
        match option {
            OPT_EXPORT_NAME => return self.export_name(data, pads),
            OPT_ABORT => {
                self.reply(option, REP_ACK, &[]);
                return Ok(Step::Left);
            }
            OPT_STARTTLS if must_encrypt && data.is_empty() => {
                self.reply(option, REP_ACK, &[]);
                return Ok(Step::Encrypt);
            }
            OPT_STARTTLS if self.state.encryption == Encryption::None && data.is_empty() => {
                self.reply(option, REP_ERR_UNSUP, &[]);
            }
            OPT_STARTTLS => self.reply(option, REP_ERR_INVALID, &[]),
            _ if must_encrypt => self.reply(option, REP_ERR_TLS_REQD, &[]),
            OPT_LIST if data.is_empty() => {
                for (name, description) in self.offers.list() {
                    let mut server = text(&name);
                    server.extend(description.bytes());
                    self.reply(option, REP_SERVER, &server);
                }
                self.reply(option, REP_ACK, &[]);
            }
            OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.state.chosen.structured = true;
                self.reply(option, REP_ACK, &[]);
            }
            OPT_LIST | OPT_STRUCTURED_REPLY => self.reply(option, REP_ERR_INVALID, &[]),
            OPT_LIST_META_CONTEXT | OPT_SET_META_CONTEXT => self.contexts(option, data),
            OPT_INFO | OPT_GO => return Ok(self.info(option, data)),
            _ => self.reply(option, REP_ERR_UNSUP, &[]),
        }
        Ok(Step::More)
    }

    /// This option has no way to say no but to hang up.
    fn export_name(mut self, data: &[u8], pads: bool) -> Result<Step> {
        if self.state.encryption == Encryption::Required {
            return Err(Error::refused("the NBD client does not encrypt"));
        }
        let offer = self.find(data).map_err(|denied| {
            let name = String::from_utf8_lossy(data);
            let name: String = name.chars().take(100).collect();
            Error::refused(match denied {
                Denied::Unknown => format!("the NBD client asked for an export {name:?}, which is not there"),
                Denied::Policy(why) | Denied::Failed(why) => {
                    format!("the NBD client cannot have the export {name:?}: {why}")
                }
                Denied::Shutdown => "the NBD client came as the server was about to end".into(),
            })
        })?;
        let mut export = self.export(&offer);
        if pads {
            export.resize(export.len() + 124, 0);
        }
        self.out.extend(export);
        Ok(self.start(offer))
    }

    fn find(&self, name: &[u8]) -> Result<Offer, Denied> {
        match std::str::from_utf8(name) {
            Ok(name) if name.len() <= NAME_AT_MOST => self.offers.find(name),
            _ => Err(Denied::Unknown),
        }
    }

    /// A context was chosen for one export and counts for no other.
    fn start(&mut self, offer: Offer) -> Step {
        self.state.chosen.allocation &= self.state.asked_for == offer.name;
        Step::Transmission(offer, self.state.chosen)
    }

    fn deny(&mut self, option: u32, denied: &Denied) {
        let (kind, words) = match denied {
            Denied::Unknown => (REP_ERR_UNKNOWN, ""),
            Denied::Policy(words) => (REP_ERR_POLICY, words.as_str()),
            Denied::Failed(words) => (REP_ERR_PLATFORM, words.as_str()),
            Denied::Shutdown => (REP_ERR_SHUTDOWN, ""),
        };
        let words: String = words.chars().take(1000).collect();
        self.reply(option, kind, words.as_bytes());
    }

    fn info(&mut self, option: u32, data: &[u8]) -> Step {
        let Some((name, kinds)) = parse_info(data) else {
            self.reply(option, REP_ERR_INVALID, &[]);
            return Step::More;
        };
        let offer = match self.find(name) {
            Ok(offer) => offer,
            Err(denied) => {
                self.deny(option, &denied);
                return Step::More;
            }
        };
        let mut info = INFO_EXPORT.to_be_bytes().to_vec();
        info.extend(self.export(&offer));
        self.reply(option, REP_INFO, &info);
        self.reply(option, REP_INFO, &block_sizes(&offer));
        // Each is told once, however often it is asked for.
        for kind in [INFO_NAME, INFO_DESCRIPTION] {
            let says = match kind {
                _ if !kinds.contains(&kind) => None,
                INFO_NAME => Some(offer.name.as_str()),
                _ => offer.description.as_deref(),
            };
            if let Some(says) = says {
                let mut info = kind.to_be_bytes().to_vec();
                info.extend(says.bytes());
                self.reply(option, REP_INFO, &info);
            }
        }
        self.reply(option, REP_ACK, &[]);
        if option == OPT_INFO {
            return Step::More;
        }
        self.start(offer)
    }

    fn contexts(&mut self, option: u32, data: &[u8]) {
        let sets = option == OPT_SET_META_CONTEXT;
        if sets {
            self.state.chosen.allocation = false;
        }
        let Some((name, queries)) = parse_contexts(data).filter(|_| self.state.chosen.structured || !sets)
        else {
            return self.reply(option, REP_ERR_INVALID, &[]);
        };
        let offer = match self.find(name) {
            Ok(offer) => offer,
            Err(denied) => return self.deny(option, &denied),
        };
        // A listing may ask for a whole namespace, or for everything.
        let asks = |query: &&[u8]| **query == *BASE_ALLOCATION.as_bytes() || (!sets && **query == *b"base:");
        if queries.iter().any(asks) || (!sets && queries.is_empty()) {
            let mut context = if sets { ALLOCATION } else { 0 }.to_be_bytes().to_vec();
            context.extend(BASE_ALLOCATION.bytes());
            self.reply(option, REP_META_CONTEXT, &context);
            if sets {
                self.state.chosen.allocation = true;
                self.state.asked_for = offer.name;
            }
        }
        self.reply(option, REP_ACK, &[]);
    }

    /// Size and transmission flags.
    fn export(&self, offer: &Offer) -> Vec<u8> {
        let mut flags = HAS_FLAGS | SEND_FLUSH | SEND_CACHE;
        flags |= match offer.read_only {
            true => READ_ONLY,
            false => SEND_FUA | SEND_TRIM | SEND_WRITE_ZEROES | SEND_FAST_ZERO,
        };
        if offer.many {
            flags |= CAN_MULTI_CONN;
        }
        if self.state.chosen.structured {
            flags |= SEND_DF;
        }
        let mut out = offer.size.to_be_bytes().to_vec();
        out.extend(flags.to_be_bytes());
        out
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) {
        reply(self.out, option, kind, data);
    }
}

/// Smallest, preferred and largest request. The smallest is 1: images of odd length exist, and a disk of sectors takes
/// any range.
fn block_sizes(offer: &Offer) -> Vec<u8> {
    let preferred = u32::try_from(offer.preferred.clamp(4096, 65_536)).unwrap_or(4096).next_power_of_two();
    let largest = u32::try_from(REQUEST_AT_MOST.0).unwrap_or(u32::MAX);
    let mut out = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for value in [1, preferred, largest] {
        out.extend(value.to_be_bytes());
    }
    out
}

fn reply(out: &mut Vec<u8>, option: u32, kind: u32, data: &[u8]) {
    out.extend(OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
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
