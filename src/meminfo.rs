//! Linux' `/proc/meminfo` (proc(5)).

use landfall_image::Bytes;

/// A line of it, `MemAvailable: 1024 kB`; `None` where there is none.
pub fn value(meminfo: &str, key: &str) -> Option<Bytes> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(Bytes(kib.saturating_mul(1024)))
}

/// What programs can still have of this host's memory without anything being swapped out; `None` where the kernel does not tell.
pub fn available() -> Option<Bytes> {
    value(&std::fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}
