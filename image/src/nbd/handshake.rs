//! The fixed newstyle handshake: the client asks for options until it goes over to transmission or leaves.

use super::{Export, OPTION_AT_MOST, OPTIONS_AT_MOST, REQUEST_AT_MOST, lost};
use crate::error::{Error, Result};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
const FLAG_NO_ZEROES: u16 = 1 << 1;
const CLIENT_FLAG_FIXED_NEWSTYLE: u32 = 1 << 0;
const CLIENT_FLAG_NO_ZEROES: u32 = 1 << 1;

const OPT_EXPORT_NAME: u32 = 1;
const OPT_ABORT: u32 = 2;
const OPT_LIST: u32 = 3;
const OPT_INFO: u32 = 6;
const OPT_GO: u32 = 7;

const REP_ACK: u32 = 1;
const REP_SERVER: u32 = 2;
const REP_INFO: u32 = 3;
const REP_ERR_UNSUP: u32 = 0x8000_0001;
const REP_ERR_INVALID: u32 = 0x8000_0003;
const REP_ERR_UNKNOWN: u32 = 0x8000_0006;
const REP_ERR_TOO_BIG: u32 = 0x8000_0009;

const INFO_EXPORT: u16 = 0;
const INFO_BLOCK_SIZE: u16 = 3;

const TRANSMISSION_HAS_FLAGS: u16 = 1 << 0;
const TRANSMISSION_READ_ONLY: u16 = 1 << 1;
const TRANSMISSION_SEND_FLUSH: u16 = 1 << 2;
const TRANSMISSION_SEND_TRIM: u16 = 1 << 5;
const TRANSMISSION_SEND_WRITE_ZEROES: u16 = 1 << 6;

/// True where transmission begins, false where the client left.
pub(super) fn negotiate(
    mut stream: &UnixStream,
    size: u64,
    sector_size: u64,
    export: Export,
) -> Result<bool> {
    let mut hello = Vec::with_capacity(18);
    hello.extend(NBDMAGIC.to_be_bytes());
    hello.extend(IHAVEOPT.to_be_bytes());
    hello.extend((FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES).to_be_bytes());
    stream.write_all(&hello).map_err(lost)?;
    let Some(flags) = read_array::<4>(stream)?.map(u32::from_be_bytes) else { return Ok(false) };
    let known = CLIENT_FLAG_FIXED_NEWSTYLE | CLIENT_FLAG_NO_ZEROES;
    if flags & !known != 0 || flags & CLIENT_FLAG_FIXED_NEWSTYLE == 0 {
        return Err(Error::unsupported(format!(
            "the NBD client's flags are {flags:#x}; fixed newstyle (bit 0) and no zeroes (bit 1) are known"
        )));
    }
    let about = About { size, sector_size, flags: transmission_flags(export) };
    for _ in 0..OPTIONS_AT_MOST {
        let Some(head) = read_array::<16>(stream)? else { return Ok(false) };
        let [magic @ .., _, _, _, _, _, _, _, _] = head;
        let [_, _, _, _, _, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = head;
        let (option, len) = (u32::from_be_bytes([o0, o1, o2, o3]), u32::from_be_bytes([l0, l1, l2, l3]));
        if u64::from_be_bytes(magic) != IHAVEOPT {
            return Err(Error::corrupt(format!(
                "NBD option magic is {:#x}, not {IHAVEOPT:#x}",
                u64::from_be_bytes(magic)
            )));
        }
        if len > OPTION_AT_MOST {
            // What follows cannot be skipped cheaply, and no real client sends it.
            reply(stream, option, REP_ERR_TOO_BIG, &[])?;
            return Err(Error::refused(format!(
                "NBD option {option} has {len} bytes of data; at most {OPTION_AT_MOST} are read"
            )));
        }
        let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        stream.read_exact(&mut data).map_err(lost)?;
        match option {
            OPT_EXPORT_NAME => {
                if !data.is_empty() {
                    // This option has no way to say no but to hang up.
                    return Err(Error::refused(
                        "the NBD client asked for an export name; there is only \"\"",
                    ));
                }
                stream.write_all(&about.export()).map_err(lost)?;
                if flags & CLIENT_FLAG_NO_ZEROES == 0 {
                    stream.write_all(&[0; 124]).map_err(lost)?;
                }
                return Ok(true);
            }
            OPT_ABORT => {
                // The client may be gone already: it need not wait for this.
                let _ = reply(stream, option, REP_ACK, &[]);
                return Ok(false);
            }
            OPT_LIST if data.is_empty() => {
                reply(stream, option, REP_SERVER, &0u32.to_be_bytes())?;
                reply(stream, option, REP_ACK, &[])?;
            }
            OPT_LIST => reply(stream, option, REP_ERR_INVALID, &[])?,
            OPT_INFO | OPT_GO => match parse_info(&data) {
                None => reply(stream, option, REP_ERR_INVALID, &[])?,
                Some(name) if !name.is_empty() => reply(stream, option, REP_ERR_UNKNOWN, &[])?,
                Some(_) => {
                    let mut info = INFO_EXPORT.to_be_bytes().to_vec();
                    info.extend(about.export());
                    reply(stream, option, REP_INFO, &info)?;
                    reply(stream, option, REP_INFO, &about.block_sizes())?;
                    reply(stream, option, REP_ACK, &[])?;
                    if option == OPT_GO {
                        return Ok(true);
                    }
                }
            },
            _ => reply(stream, option, REP_ERR_UNSUP, &[])?,
        }
    }
    Err(Error::refused(format!("the NBD client sent {OPTIONS_AT_MOST} options without starting")))
}

/// What a client is told of the disk.
struct About {
    size: u64,
    sector_size: u64,
    flags: u16,
}

impl About {
    /// Size and transmission flags.
    fn export(&self) -> Vec<u8> {
        let mut out = self.size.to_be_bytes().to_vec();
        out.extend(self.flags.to_be_bytes());
        out
    }

    /// Smallest, preferred and largest request. The smallest is 1: images of odd length exist, and a disk of
    /// sectors takes any range.
    fn block_sizes(&self) -> Vec<u8> {
        let preferred = u32::try_from(self.sector_size.clamp(512, 65_536)).unwrap_or(4096).max(4096);
        let largest = u32::try_from(REQUEST_AT_MOST.0).unwrap_or(u32::MAX);
        let mut out = INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for value in [1, preferred, largest] {
            out.extend(value.to_be_bytes());
        }
        out
    }
}

fn transmission_flags(export: Export) -> u16 {
    let writes = if export.read_only {
        TRANSMISSION_READ_ONLY
    } else {
        TRANSMISSION_SEND_FLUSH | TRANSMISSION_SEND_TRIM | TRANSMISSION_SEND_WRITE_ZEROES
    };
    TRANSMISSION_HAS_FLAGS | writes
}

/// The export name in the data of `INFO` and `GO`: `length:32 name count:16 (type:16)*`.
fn parse_info(data: &[u8]) -> Option<&[u8]> {
    let (len, rest) = data.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*len)).ok()?)?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    (rest.len() == usize::from(u16::from_be_bytes(*count)) * 2).then_some(name)
}

fn reply(mut stream: &UnixStream, option: u32, kind: u32, data: &[u8]) -> Result<()> {
    let mut out = REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(kind.to_be_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend(data);
    stream.write_all(&out).map_err(lost)
}

/// `None` where the client hung up between two messages.
fn read_array<const N: usize>(mut stream: &UnixStream) -> Result<Option<[u8; N]>> {
    let mut out = [0; N];
    match stream.read_exact(&mut out) {
        Ok(()) => Ok(Some(out)),
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Ok(None),
        Err(e) => Err(lost(e)),
    }
}
