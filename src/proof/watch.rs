//! From what a booting machine writes to what is known about it.

use serde::Serialize;
use std::time::Duration;

/// What the guest said of itself, from inside, through the probe's serial line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Inside {
    /// The multi-user target is reached.
    pub multi_user: bool,
    /// The running kernel.
    pub kernel: Option<String>,
    /// Device and type of the root file system.
    pub root: Option<String>,
    /// Its network interfaces, without loopback.
    pub interfaces: Vec<Interface>,
    /// Units that failed.
    pub failed_units: Vec<String>,
    /// All was said.
    pub complete: bool,
}

/// A network interface as the guest has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[schemars(rename = "RunningInterface")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// Kernel driver.
    pub driver: String,
    /// Addresses with prefix length.
    pub addresses: Vec<String>,
}

/// The word before every line of the probe.
pub const MARK: &str = "LANDFALL";

/// Interfaces and units kept: a guest can write what it likes.
const AT_MOST: usize = 256;

/// Lines longer than this are cut: no honest console line is.
const LINE_AT_MOST: usize = 4096;

impl Inside {
    /// Takes one line of the probe's.
    pub fn line(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        if words.next() != Some(MARK) {
            return;
        }
        let key = words.next().unwrap_or("");
        let rest: Vec<String> = words.map(printable).collect();
        match (key, rest.as_slice()) {
            ("multi-user", _) => self.multi_user = true,
            ("kernel", [kernel, ..]) => self.kernel = Some(kernel.clone()),
            ("root", [..]) if !rest.is_empty() => self.root = Some(rest.join(" ")),
            ("net", [name, mac, driver, ..]) if self.interfaces.len() < AT_MOST => {
                self.interfaces.push(Interface {
                    name: name.clone(),
                    mac: mac.to_ascii_lowercase(),
                    driver: driver.clone(),
                    addresses: Vec::new(),
                })
            }
            ("address", [name, address, ..]) => {
                if let Some(interface) = self.interfaces.iter_mut().find(|interface| interface.name == *name)
                    && interface.addresses.len() < AT_MOST
                {
                    interface.addresses.push(address.clone());
                }
            }
            ("failed", [unit, ..]) if self.failed_units.len() < AT_MOST => {
                self.failed_units.push(unit.clone())
            }
            ("end", _) => self.complete = true,
            _ => {}
        }
    }
}

fn printable(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// What the serial console shows of a boot that went wrong: a piece of a line, and what it means.
const STOPPED: &[(&str, &str)] = &[
    ("Gave up waiting for root", "the initramfs gave up waiting for the root file system's device"),
    ("ALERT!  ", "the initramfs does not find the root file system's device"),
    ("Warning: dracut-initqueue timeout", "dracut does not find the root file system's device"),
    ("Entering emergency mode", "the guest went into emergency mode"),
    ("You are in emergency mode", "the guest went into emergency mode"),
    ("Kernel panic - not syncing", "the kernel panicked"),
    ("VFS: Unable to mount root fs", "the kernel does not find the root file system"),
    ("grub rescue>", "GRUB does not find its files"),
    ("No bootable device", "the firmware finds nothing to boot"),
    ("Boot failed: not a bootable disk", "the firmware finds nothing to boot"),
    ("BdsDxe: No bootable option or device was found", "the firmware finds nothing to boot"),
    ("UEFI Interactive Shell", "the firmware finds nothing to boot and started its shell"),
    (">>Start PXE over IPv4", "the firmware finds nothing to boot and tries the network"),
];

/// The serial console, line by line.
#[derive(Default)]
pub struct Console {
    line: String,
    /// Time of the login prompt.
    pub login: Option<Duration>,
    /// What went wrong, and the line that shows it.
    pub stopped: Option<(String, String)>,
}

impl Console {
    /// Takes bytes as they come, `now` after power-on.
    pub fn take(&mut self, bytes: &[u8], now: Duration) {
        for &byte in bytes {
            match byte {
                b'\n' | b'\r' => {
                    self.look(now);
                    self.line.clear();
                }
                _ if self.line.len() < LINE_AT_MOST => self.line.push(char::from(byte)),
                _ => {}
            }
        }
        // A prompt waits at the end of its line.
        self.look(now);
    }

    fn look(&mut self, now: Duration) {
        let line = without_escapes(&self.line);
        if self.login.is_none() && line.trim_end().ends_with(" login:") {
            self.login = Some(now);
        }
        if self.stopped.is_none()
            && let Some((_, meaning)) = STOPPED.iter().find(|(piece, _)| line.contains(piece))
        {
            self.stopped = Some(((*meaning).to_owned(), line.trim().chars().take(200).collect()));
        }
    }
}

/// `line` without terminal control sequences: ESC [ … letter.
fn without_escapes(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next() == Some('[') {
                chars.by_ref().find(|c| c.is_ascii_alphabetic());
            }
        } else if !c.is_control() {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_prompt_is_seen_though_its_line_does_not_end() {
        let mut console = Console::default();
        console.take(b"\x1b[0mDebian GNU/Linux 12 web01 ttyS0\r\n\r\nweb01 lo", Duration::from_secs(1));
        assert_eq!(console.login, None);
        console.take(b"gin: ", Duration::from_secs(2));
        assert_eq!(console.login, Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_stop_is_named() {
        let mut console = Console::default();
        console.take(
            b"Begin: ...\nGave up waiting for root file system device.  Common problems:\n",
            Duration::ZERO,
        );
        let (meaning, line) = console.stopped.unwrap();
        assert!(meaning.contains("root file system"));
        assert!(line.starts_with("Gave up"));
    }

    #[test]
    fn the_guest_speaks() {
        let mut inside = Inside::default();
        for line in [
            "LANDFALL multi-user",
            "LANDFALL kernel 6.1.0-43-amd64",
            "LANDFALL root /dev/vda1 ext4",
            "LANDFALL net ens192 00:50:56:20:30:40 virtio_net",
            "LANDFALL address ens192 10.20.30.40/24",
            "LANDFALL address nosuch 10.20.30.40/24",
            "noise",
            "LANDFALL failed x.service",
            "LANDFALL end",
        ] {
            inside.line(line);
        }
        assert!(inside.multi_user && inside.complete);
        assert_eq!(inside.interfaces[0].addresses, ["10.20.30.40/24"]);
        assert_eq!(inside.root.as_deref(), Some("/dev/vda1 ext4"));
        assert_eq!(inside.failed_units, ["x.service"]);
    }
}
