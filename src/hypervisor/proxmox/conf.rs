//! The grammar of qemu-server's configuration files: comments, `key: value`, sections, property strings.
//!
//! Source: the manual page qm.conf(5) of Proxmox VE and the files of its own tests. Deliberately absent: what a key means
//! (read.rs), and files of containers, which share the grammar and are told apart by their `rootfs`.

use landfall_image::{Bytes, Error, Result};
use std::collections::BTreeMap;

/// A .conf is a few KiB, with many snapshots some dozen.
const AT_MOST: Bytes = Bytes::mib(1);

/// A file.
#[derive(Debug, Default)]
pub struct Conf {
    /// The current state.
    pub main: Section,
    /// Changes that wait for the next start.
    pub pending: Section,
    /// Snapshots by name, in the order of the file.
    pub snapshots: Vec<(String, Section)>,
    /// Other sections by name: `special:cloudinit`.
    pub special: Vec<String>,
}

/// One state of a machine.
#[derive(Debug, Default)]
pub struct Section {
    /// Keys in lower case, and values. The last of equal keys counts, as it does for qemu-server.
    pub keys: BTreeMap<String, String>,
    /// What its owner wrote about it.
    pub description: String,
}

/// True for text that looks like the configuration of a virtual machine (not of a container).
pub fn recognise(bytes: &[u8]) -> bool {
    let Ok(conf) = Conf::parse(bytes) else { return false };
    let known = |key: &str| {
        matches!(key, "ostype" | "vmgenid" | "smbios1" | "bios" | "scsihw" | "bootdisk" | "sockets")
            || split(key).is_some_and(|(kind, _)| DISK_KINDS.contains(&kind) || kind == "net")
    };
    !conf.main.keys.contains_key("rootfs") && conf.main.keys.keys().any(|key| known(key))
}

/// Kinds of place for a disk, in the order in which qemu-server goes through them.
pub const DISK_KINDS: [&str; 4] = ["ide", "scsi", "virtio", "sata"];

impl Conf {
    /// Reads a file.
    ///
    /// # Errors
    /// Refused above 1 MiB, corrupt where a line is neither a comment, a section nor `key: value`, or where it is not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Conf> {
        if bytes.len() as u64 > AT_MOST.0 {
            let len = bytes.len();
            return Err(Error::refused(format!("has {len} bytes; a .conf has at most {}", AT_MOST.0)));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::corrupt("is not UTF-8"))?;
        let mut conf = Conf::default();
        let mut ignored = Section::default();
        enum At {
            Main,
            Pending,
            Snapshot,
            Special,
        }
        let mut at = At::Main;
        for (number, line) in text.lines().enumerate() {
            let section = match at {
                At::Main => &mut conf.main,
                At::Pending => &mut conf.pending,
                At::Snapshot => conf.snapshots.last_mut().map_or(&mut ignored, |(_, section)| section),
                At::Special => &mut ignored,
            };
            let line = line.trim_end();
            if line.trim().is_empty() {
            } else if let Some(comment) = line.strip_prefix('#') {
                section.description.push_str(&url_decode(comment));
                section.description.push('\n');
            } else if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                at = match name.strip_prefix("special:") {
                    Some(_) => {
                        conf.special.push(name.to_owned());
                        At::Special
                    }
                    None if name.eq_ignore_ascii_case("pending") => At::Pending,
                    None => {
                        conf.snapshots.push((name.to_owned(), Section::default()));
                        At::Snapshot
                    }
                };
            } else {
                let pair = line.split_once(':').filter(|(key, _)| is_key(key));
                let Some((key, value)) = pair else {
                    return Err(Error::corrupt(format!(
                        "line {} is neither a comment, a section nor a setting: {:?}",
                        number + 1,
                        line.chars().take(60).collect::<String>()
                    )));
                };
                section.keys.insert(key.to_ascii_lowercase(), value.trim().to_owned());
            }
        }
        for section in
            [&mut conf.main, &mut conf.pending].into_iter().chain(conf.snapshots.iter_mut().map(|(_, s)| s))
        {
            // How older versions wrote the description.
            if let Some(text) = section.keys.remove("description") {
                section.description.push_str(&url_decode(&text));
            }
        }
        Ok(conf)
    }
}

fn is_key(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic())
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// `scsi12` as `scsi` and 12.
pub fn split(key: &str) -> Option<(&str, u32)> {
    let at = key.find(|c: char| c.is_ascii_digit())?;
    let (kind, number) = key.split_at(at);
    Some((kind, number.parse().ok()?)).filter(|(kind, _)| !kind.is_empty())
}

/// A property string: `local:100/a.raw,size=4G,ssd=1`. What has no name has the name that is empty.
#[derive(Debug, Default)]
pub struct Properties<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Properties<'a> {
    /// Reads one.
    pub fn parse(text: &'a str) -> Properties<'a> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        Properties(parts.map(|part| part.split_once('=').unwrap_or(("", part))).collect())
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    /// Whether a name is set to what qemu-server takes for true.
    pub fn is(&self, name: &str) -> bool {
        self.get(name).is_some_and(is_true)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0.iter().copied()
    }
}

/// What qemu-server takes for true.
pub fn is_true(value: &str) -> bool {
    ["1", "on", "yes", "true"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// `%xx` resolved; what is no UTF-8 then is shown as such.
pub fn url_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).filter(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        let value = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (byte, value) {
            (b'%', Some(value)) => {
                out.push(value);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `text` with `%xx` for everything but letters, digits and `plain`.
pub fn url_encode(text: &str, plain: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || plain.as_bytes().contains(&byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `32G`, `104858K`, `0.5T`, `4194304`: a size as qemu-server writes it. `None` where it is none, or beyond 64 bits.
pub fn size(text: &str) -> Option<Bytes> {
    let (number, shift) = match text.trim_end().as_bytes().last()? {
        b'K' => (text.strip_suffix('K')?, 10),
        b'M' => (text.strip_suffix('M')?, 20),
        b'G' => (text.strip_suffix('G')?, 30),
        b'T' => (text.strip_suffix('T')?, 40),
        _ => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 9 {
        return None;
    }
    let unit = 1_u128 << shift;
    let scale = 10_u128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let all = whole.parse::<u64>().map(u128::from).ok()?.checked_mul(unit)?;
    let rest = part.parse::<u128>().ok()?.checked_mul(unit)? / scale;
    u64::try_from(all.checked_add(rest)?).ok().map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;

    #[test]
    fn sections_and_comments() {
        let text = "# two%0Alines\n#%C3%A4\nname: a\nscsi0: x,size=1G\n\n[PENDING]\ncores: 4\n\n[special:cloudinit]\n\
                    ipconfig0: ip=dhcp\n\n[before]\n#old\nname: b\nsnaptime: 1\n";
        let conf = Conf::parse(text.as_bytes()).unwrap();
        assert_eq!(conf.main.description, " two\nlines\nä\n");
        assert_eq!(conf.main.keys.len(), 2);
        assert_eq!(conf.pending.keys["cores"], "4");
        assert_eq!(conf.special, ["special:cloudinit"]);
        assert_eq!(conf.snapshots[0].0, "before");
        assert_eq!((conf.snapshots[0].1.description.as_str(), conf.snapshots[0].1.keys.len()), ("old\n", 2));
        assert!(recognise(text.as_bytes()));
        assert!(!recognise(b"arch: amd64\nnet0: name=eth0\nrootfs: local:1\n"), "a container");
        assert!(!recognise(b"listen: 80\n") && !recognise(b"[a]\nkey = value\n") && !recognise(b"\x00\xff"));
    }

    #[test]
    fn what_is_no_line_of_it_is_corrupt() {
        for text in ["name", "a b: c", "[open\nx: y", ": x", "\u{1}: x"] {
            assert_eq!(Conf::parse(text.as_bytes()).unwrap_err().kind(), Kind::Corrupt, "{text:?}");
        }
        assert_eq!(Conf::parse(&vec![b'#'; 1 << 21]).unwrap_err().kind(), Kind::Refused);
        assert!(Conf::parse(&vec![b'#'; 1 << 20]).is_ok());
    }

    #[test]
    fn sizes_and_escapes() {
        assert_eq!(size("104858K"), Some(Bytes(104858 << 10)));
        assert_eq!(size("1.5G"), Some(Bytes(3 << 29)));
        assert_eq!(size("4194304"), Some(Bytes::mib(4)));
        for bad in
            ["", "G", "-1G", "1e9", "1.G", "99999999999999999999T", "16777216T", "1.0000000001G", "1,G"]
        {
            assert_eq!(size(bad), None, "{bad}");
        }
        assert_eq!(url_decode("a%20b%zz%2"), "a b%zz%2");
        assert_eq!(url_encode("a b:ä", ":"), "a%20b:%C3%A4");
    }
}
