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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_in_kib_and_known_by_their_whole_name() {
        let text = "MemTotal:       24600000 kB\nMemAvailableX:  7 kB\nMemAvailable:    1024 kB\nHugePages_Total: x\n";
        assert_eq!(value(text, "MemAvailable"), Some(Bytes::mib(1)));
        assert_eq!(value(text, "MemTotal"), Some(Bytes(24_600_000 << 10)));
        for absent in ["Mem", "HugePages_Total", "SwapFree", ""] {
            assert_eq!(value(text, absent), None, "{absent}");
        }
        assert!(available().is_some_and(|available| available > Bytes::mib(1)));
    }
}
