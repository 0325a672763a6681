//! What the kernel logged since a moment: the reason behind an `EINVAL` of a mount.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// Lines that are passed on.
const LINES: usize = 8;
/// Bytes of one line that are passed on.
const LINE_LEN: usize = 300;
/// Records looked at: a hostile file system can make the kernel log without end.
const RECORDS: usize = 2000;

/// A place in the kernel's log.
pub(super) struct Mark(Option<File>);

impl Mark {
    /// The end of the log.
    pub(super) fn now() -> Mark {
        let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
        let mut file = OpenOptions::new().read(true).custom_flags(nonblock).open("/dev/kmsg").ok();
        if let Some(file) = &mut file {
            let _ = file.seek(SeekFrom::End(0));
        }
        Mark(file)
    }

    /// The last lines logged since.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let Some(mut file) = self.0.as_ref() else { return lines };
        // One read is one record: "priority,sequence,time,flags;message\n key=value\n".
        let mut record = [0; 8192];
        for _ in 0..RECORDS {
            let len = match file.read(&mut record) {
                Ok(0) => break,
                Ok(len) => len,
                // Overwritten before it was read: the next read goes on behind the gap.
                Err(e) if e.raw_os_error() == Some(32) || e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let text = String::from_utf8_lossy(record.get(..len).unwrap_or_default());
            let Some((_, message)) = text.split_once(';') else { continue };
            let line: String = message
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .take(LINE_LEN)
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            if lines.len() == LINES {
                lines.remove(0);
            }
            lines.push(line);
        }
        lines
    }
}
