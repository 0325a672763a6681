//! What host and agent say to each other over the virtio-serial port.
//!
//! ```text
//! message: length:u32-le  postcard(Request | Reply)                      at most MESSAGE_AT_MOST
//! stream:  (length:u32-le  bytes)*  0:u32-le                             pieces of at most PIECE
//! ```
//!
//! The host asks, the agent answers, one request at a time. Content of files never lies in a message: it follows as
//! a stream, so that neither side holds more than a piece of it. Both sides treat what arrives as hostile: the guest's
//! file systems may have taken the kernel over that the agent runs on.

use crate::tree::{Entry, Meta};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, ErrorKind, Read, Write};

/// Changes with every change of the types below.
pub(crate) const VERSION: u32 = 4;

/// Largest message. Paths are at most 4096 bytes; requests with many paths are cut by the host.
pub(crate) const MESSAGE_AT_MOST: usize = 256 << 10;

/// Largest piece of a stream. The port moves 32 KiB at a time; more only costs memory.
pub(crate) const PIECE: usize = 128 << 10;

/// Names of one folder, in bytes of their listing. A folder of 100,000 names has about 2 MiB.
pub(crate) const LISTING_AT_MOST: usize = 16 << 20;

/// Name of the port inside the VM.
pub(crate) const PORT_NAME: &str = "landfall";

/// A file that exists in the sandbox's initramfs and nowhere else: there alone a process with number 1 is the agent.
pub(crate) const MARKER: &str = "/.landfall-sandbox";

/// Where the initramfs holds the modules, and the files that list them in the order of loading: those of every boot,
/// and those that are loaded for a saved state or when a file system asks for them.
pub(crate) const MODULES: &str = "/modules";
pub(crate) const MODULES_AT_BOOT: &str = "/modules/at-boot";
pub(crate) const MODULES_LATER: &str = "/modules/later";

/// From the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First of all, and the first after a restore.
    Begin { version: u32, nonce: u64, unix_seconds: i64, nanos: u32, seed: [u8; 32] },
    /// Loads the modules that are not loaded at boot, so that a saved state has them.
    LoadAll,
    /// [`Reply::Mounted`].
    Mount(Mount),
    /// Unmounts what [`Request::Mount`] mounted there.
    Unmount { root: String, at: String },
    /// [`Reply::Meta`] or [`Reply::Absent`].
    Metadata { root: String, path: String, follow: bool },
    /// For each path [`Reply::Content`], a stream and [`Reply::Done`]; or [`Reply::Absent`].
    Read { root: String, paths: Vec<String>, at_most: u64 },
    /// The first `len` bytes of a file, [`PIECE`] at most: [`Reply::Content`], a stream and [`Reply::Done`]; or [`Reply::Absent`].
    Head { root: String, path: String, len: u32 },
    /// [`Reply::Content`] and a stream that holds a postcard `Vec<Entry>`, then [`Reply::Done`].
    List { root: String, path: String },
    /// [`Reply::Link`] or [`Reply::Absent`].
    ReadLink { root: String, path: String },
    /// [`Reply::Space`].
    FreeSpace { root: String, path: String },
    /// Followed by a stream of `size` bytes; answered after it. This and the next two: [`Reply::Changed`].
    Put { root: String, path: String, mode: u32, size: u64 },
    /// See [`Change::Symlink`](crate::apply::Change::Symlink).
    Symlink { root: String, path: String, target: String },
    /// See [`Change::Remove`](crate::apply::Change::Remove).
    Remove { root: String, path: String },
    /// See [`Change::Label`](crate::apply::Change::Label).
    Label { root: String, path: String, context: String },
    /// Everything written so far is on the disks, or an error says why not.
    Sync,
    /// Unmounts everything.
    Finish,
}

/// What is to be mounted: the disk at SCSI target `target`, which must have this serial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mount {
    pub(crate) target: u16,
    pub(crate) serial: String,
    pub(crate) fs: String,
    pub(crate) root: String,
    pub(crate) at: String,
    pub(crate) read_only: bool,
    /// The journal of an NTFS that is mounted to be read is replayed before, which writes to it.
    pub(crate) replay: bool,
    /// Of btrfs; without it the default subvolume.
    pub(crate) subvolume: Option<Subvolume>,
}

/// A subvolume of btrfs, as mount options name it. There are no other mount options: the agent chooses them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Subvolume {
    /// From the top level, which is `/`: `/@`.
    Path(String),
    /// Its number; the top level's is 5.
    Id(u64),
}

/// What was mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedAs {
    /// Of btrfs: the subvolume from the top level, `/@`.
    pub subvolume: Option<String>,
    /// Of btrfs: its number.
    pub subvolume_id: Option<u64>,
    /// It was to be written to, and cannot be: a read-only subvolume.
    pub is_locked: bool,
}

/// From the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Sent once, unasked, when the agent is ready for requests.
    Ready { version: u32, kernel: String, trouble: Vec<String> },
    /// To [`Request::Begin`].
    Begun { version: u32, nonce: u64 },
    /// To [`Request::Mount`].
    Mounted(MountedAs),
    /// It is done; `was_immutable` where a file or folder was marked as not to be changed, and is marked so again.
    Changed { was_immutable: bool },
    /// It is done; the end of what was asked for.
    Done,
    /// There is no such path.
    Absent,
    /// Facts.
    Meta(Meta),
    /// A link's target.
    Link(String),
    /// Free bytes.
    Space(u64),
    /// A stream follows, then another reply: `Done`, or `Failed` where the stream was cut short.
    Content,
    /// It went wrong.
    Failed(Failure),
}

/// Why something went wrong in there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// What was being done, or the whole story.
    pub(crate) says: String,
    /// What the kernel logged meanwhile, the last lines.
    pub(crate) kernel: Vec<String>,
}

/// What sort of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The kernel's error number.
    Errno(i32),
    /// The content contradicts what it should be.
    Corrupt,
    /// The sandbox cannot do this.
    Unsupported,
    /// A bound, or a rule.
    Refused,
}

impl Failure {
    pub(crate) fn new(cause: Cause, says: impl Into<String>) -> Failure {
        Failure { cause, says: says.into(), kernel: Vec::new() }
    }
    pub(crate) fn errno(doing: impl Into<String>, error: &io::Error) -> Failure {
        match error.raw_os_error() {
            Some(number) => Failure::new(Cause::Errno(number), doing),
            None => Failure::new(Cause::Refused, format!("{}: {error}", doing.into())),
        }
    }
}

/// A folder's names, as they travel.
pub(crate) type Listing = Vec<Entry>;

fn broken(says: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, says)
}

/// Writes one message.
pub(crate) fn send<T: Serialize>(to: &mut impl Write, message: &T) -> io::Result<()> {
    let out = postcard::to_extend(message, vec![0; 4]).map_err(|e| broken(e.to_string()))?;
    let len = out.len().saturating_sub(4);
    if len > MESSAGE_AT_MOST {
        return Err(broken(format!("a message of {len} bytes; at most {MESSAGE_AT_MOST} are sent")));
    }
    let mut out = out;
    for (place, byte) in out.iter_mut().zip(u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()) {
        *place = byte;
    }
    to.write_all(&out)
}

/// Reads one message.
pub(crate) fn receive<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<T> {
    let len = read_len(from)?;
    if len > MESSAGE_AT_MOST {
        return Err(broken(format!("a message of {len} bytes; at most {MESSAGE_AT_MOST} are taken")));
    }
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes)?;
    match postcard::take_from_bytes(&bytes) {
        Ok((message, [])) => Ok(message),
        Ok((_, rest)) => Err(broken(format!("a message with {} bytes too many", rest.len()))),
        Err(error) => Err(broken(format!("a message that is none: {error}"))),
    }
}

/// Writes one piece of a stream, or its end where `piece` is empty.
pub(crate) fn send_piece(to: &mut impl Write, piece: &[u8]) -> io::Result<()> {
    let len = u32::try_from(piece.len()).ok().filter(|_| piece.len() <= PIECE);
    let len = len.ok_or_else(|| broken(format!("a piece of {} bytes", piece.len())))?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(piece)
}

/// Reads one piece into `buffer`, which is cleared first. False at the end of the stream.
pub(crate) fn receive_piece(from: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<bool> {
    let len = read_len(from)?;
    if len > PIECE {
        return Err(broken(format!("a piece of {len} bytes; at most {PIECE} are taken")));
    }
    buffer.resize(len, 0);
    from.read_exact(buffer)?;
    Ok(len > 0)
}

fn read_len(from: &mut impl Read) -> io::Result<usize> {
    let mut len = [0; 4];
    from.read_exact(&mut len)?;
    Ok(usize::try_from(u32::from_le_bytes(len)).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_travel_and_their_bounds_hold() {
        let request = Request::Put { root: "r".into(), path: "/etc/fstab".into(), mode: 0o644, size: 7 };
        let mut wire = Vec::new();
        send(&mut wire, &request).unwrap();
        assert_eq!(receive::<Request>(&mut &wire[..]).unwrap(), request);
        assert!(receive::<Request>(&mut &wire[..wire.len() - 1]).is_err(), "cut off");
        // One byte too many inside of the frame.
        let mut long = wire.clone();
        long[0] += 1;
        long.push(0);
        assert!(receive::<Request>(&mut &long[..]).is_err());
        // A frame beyond the bound is refused by its length alone.
        let huge = u32::try_from(MESSAGE_AT_MOST + 1).unwrap().to_le_bytes();
        assert_eq!(receive::<Request>(&mut &huge[..]).unwrap_err().kind(), ErrorKind::InvalidData);
        let paths = vec!["x".repeat(MESSAGE_AT_MOST)];
        assert!(send(&mut Vec::new(), &Request::Read { root: String::new(), paths, at_most: 0 }).is_err());
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error() {
        for first in 0..=255u8 {
            for len in [1u8, 2, 9, 30] {
                let mut wire = vec![len, 0, 0, 0, first];
                wire.resize(4 + usize::from(len), 0xff);
                let _ = receive::<Reply>(&mut &wire[..]);
                let _ = receive::<Request>(&mut &wire[..]);
            }
        }
    }

    #[test]
    fn pieces_travel_and_their_bounds_hold() {
        let mut wire = Vec::new();
        send_piece(&mut wire, b"abc").unwrap();
        send_piece(&mut wire, b"").unwrap();
        let (mut from, mut buffer) = (&wire[..], Vec::new());
        assert!(receive_piece(&mut from, &mut buffer).unwrap());
        assert_eq!(buffer, b"abc");
        assert!(!receive_piece(&mut from, &mut buffer).unwrap());
        assert!(send_piece(&mut Vec::new(), &vec![0; PIECE + 1]).is_err());
        let huge = u32::try_from(PIECE + 1).unwrap().to_le_bytes();
        assert!(receive_piece(&mut &huge[..], &mut buffer).is_err());
    }
}
