//! The numbers of the protocol, and the heads of its messages. Section names are those of the NBD project's
//! `doc/proto.md`, which says what each number means; the names are its names.
#![allow(missing_docs)] // they would say the names again

use crate::error::{Error, Result};
use crate::units::Bytes;

// "Newstyle negotiation"
pub const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
pub const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
/// Where a newstyle server says `IHAVEOPT`, an oldstyle one says this.
pub const OLDSTYLE_MAGIC: u64 = 0x0000_4202_8186_1253;
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;

pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

// "Option types"
pub const OPT_EXPORT_NAME: u32 = 1;
pub const OPT_ABORT: u32 = 2;
pub const OPT_LIST: u32 = 3;
pub const OPT_STARTTLS: u32 = 5;
pub const OPT_INFO: u32 = 6;
pub const OPT_GO: u32 = 7;
pub const OPT_STRUCTURED_REPLY: u32 = 8;
pub const OPT_LIST_META_CONTEXT: u32 = 9;
pub const OPT_SET_META_CONTEXT: u32 = 10;

// "Option reply types"
pub const REP_ACK: u32 = 1;
pub const REP_SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const REP_META_CONTEXT: u32 = 4;
/// Set in every reply that is an error.
pub const REP_ERROR: u32 = 1 << 31;
pub const REP_ERR_UNSUP: u32 = REP_ERROR | 1;
pub const REP_ERR_POLICY: u32 = REP_ERROR | 2;
pub const REP_ERR_INVALID: u32 = REP_ERROR | 3;
pub const REP_ERR_PLATFORM: u32 = REP_ERROR | 4;
pub const REP_ERR_TLS_REQD: u32 = REP_ERROR | 5;
pub const REP_ERR_UNKNOWN: u32 = REP_ERROR | 6;
pub const REP_ERR_SHUTDOWN: u32 = REP_ERROR | 7;
pub const REP_ERR_BLOCK_SIZE_REQD: u32 = REP_ERROR | 8;
pub const REP_ERR_TOO_BIG: u32 = REP_ERROR | 9;

pub const INFO_EXPORT: u16 = 0;
pub const INFO_NAME: u16 = 1;
pub const INFO_DESCRIPTION: u16 = 2;
pub const INFO_BLOCK_SIZE: u16 = 3;

/// The one metadata context that is used here ("Metadata querying").
pub const BASE_ALLOCATION: &str = "base:allocation";
/// Its flags: no storage is taken; reads as zeros.
pub const STATE_HOLE: u32 = 1 << 0;
pub const STATE_ZERO: u32 = 1 << 1;

// "Transmission flags"
pub const HAS_FLAGS: u16 = 1 << 0;
pub const READ_ONLY: u16 = 1 << 1;
pub const SEND_FLUSH: u16 = 1 << 2;
pub const SEND_FUA: u16 = 1 << 3;
pub const SEND_TRIM: u16 = 1 << 5;
pub const SEND_WRITE_ZEROES: u16 = 1 << 6;
pub const SEND_DF: u16 = 1 << 7;
pub const CAN_MULTI_CONN: u16 = 1 << 8;
pub const SEND_CACHE: u16 = 1 << 10;
pub const SEND_FAST_ZERO: u16 = 1 << 11;

// "Request types"
pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
pub const CMD_DISC: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const CMD_TRIM: u16 = 4;
pub const CMD_CACHE: u16 = 5;
pub const CMD_WRITE_ZEROES: u16 = 6;
pub const CMD_BLOCK_STATUS: u16 = 7;

// "Command flags"
/// The answer comes when the data are on permanent storage.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// `WRITE_ZEROES` may leave a hole unless this is set; either way zeros are read.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// The answer to a read comes in one piece.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// One extent is enough.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Fail rather than write zeros slowly.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub const CHUNK_MAGIC: u32 = 0x668e_33ef;

// "Structured reply types"
pub const CHUNK_DONE: u16 = 1 << 0;
pub const CHUNK_NONE: u16 = 0;
pub const CHUNK_OFFSET_DATA: u16 = 1;
pub const CHUNK_OFFSET_HOLE: u16 = 2;
pub const CHUNK_BLOCK_STATUS: u16 = 5;
/// Set in every type that is an error.
pub const CHUNK_IS_ERROR: u16 = 1 << 15;
pub const CHUNK_ERROR: u16 = CHUNK_IS_ERROR | 1;

// "Error values", the same as Linux's.
pub const EPERM: u32 = 1;
pub const EIO: u32 = 5;
pub const EINVAL: u32 = 22;
pub const ENOSPC: u32 = 28;
pub const EOVERFLOW: u32 = 75;
pub const ENOTSUP: u32 = 95;
pub const ESHUTDOWN: u32 = 108;

/// Longest name of an export, in bytes ("Values": strings).
pub const NAME_AT_MOST: usize = 4096;

/// Largest request that is answered: what the protocol document tells a client to rely on without asking.
pub const REQUEST_AT_MOST: Bytes = Bytes::mib(32);

/// Takes integers off the front of a message; `None` where it is too short.
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
    pub fn u16(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }
    pub fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_be_bytes)
    }
    pub fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_be_bytes)
    }
    /// A text with its length (32 bits) in front.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.u32()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(text)
    }
}

/// One request without its data ("Request message").
///
/// ```text
/// 0 magic:32   4 flags:16   6 type:16   8 cookie:64   16 offset:64   24 length:32
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub len: u32,
}

impl Request {
    pub const LEN: usize = 28;

    pub fn parse(head: &[u8; Self::LEN]) -> Result<Request> {
        let mut fields = Fields(head);
        let magic = fields.u32().unwrap_or_default();
        if magic != REQUEST_MAGIC {
            return Err(Error::corrupt(format!("NBD request magic is {magic:#x}, not {REQUEST_MAGIC:#x}")));
        }
        Ok(Request {
            flags: fields.u16().unwrap_or_default(),
            command: fields.u16().unwrap_or_default(),
            cookie: fields.u64().unwrap_or_default(),
            offset: fields.u64().unwrap_or_default(),
            len: fields.u32().unwrap_or_default(),
        })
    }

    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        out[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        out[4..6].copy_from_slice(&self.flags.to_be_bytes());
        out[6..8].copy_from_slice(&self.command.to_be_bytes());
        out[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        out[16..24].copy_from_slice(&self.offset.to_be_bytes());
        out[24..].copy_from_slice(&self.len.to_be_bytes());
        out
    }
}

/// The head of one option that a client sends, or of a server's reply to it.
pub fn option_head(option: u32, len: usize) -> Vec<u8> {
    let mut out = IHAVEOPT.to_be_bytes().to_vec();
    out.extend(option.to_be_bytes());
    out.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out
}
