//! The appliance's system disk: which partitions there are, how each is known, and what the loader and the system tell each other.
//!
//! ```text
//! 1  BIOS boot   1 MiB     GRUB's core
//! 2  ESP         64 MiB    EFI/BOOT: shim, GRUB    landfall/grub.cfg, grubenv
//! 3  boot A      64 MiB    ISO 9660: vmlinuz, initrd
//! 4  boot B      64 MiB    the other slot: empty until the first update
//! 5  root A      768 MiB   read-only, compressed
//! 6  root B      768 MiB   the other slot
//! 7  state       1024 MiB  ext4, at /var: settings, certificates, logs; made at the first start
//! ```
//! Why ISO 9660: GRUB reads a file of it in one piece, and one on FAT cluster by cluster, for which firmware that waits 10 ms with each read
//! of an IDE disk (EDK II) takes ten seconds; and an update writes it as it is, and makes no file system of a loader's grow or shrink.
//!
//! The vault is not here: it is on a disk of its own, whose one partition has the type [`VAULT`].
//!
//! A **disc** has one system and nothing that can be written to: its kernel and initrd are in [`DISC_FOLDER`], its root is the file
//! [`DISC_ROOT`], and its volume is called by a name of its own ([`disc_volume`]), by which the loader, and the kernel's command line, name
//! it. What it keeps lies on the data disk, which has two partitions then: STATE, then VAULT.
//!
//! **The loader's word.** `grubenv` (1,024 bytes, GRUB's format) holds `slot` (`a` or `b`: what is started), `trial` (a slot to be
//! tried), `tries` (`1`: not tried yet) and `deployment` (made at the first start: all else is the same in two machines of one image; the
//! kernel's command line has it, so that PID 1 takes the disk that the loader was read from). GRUB sets `tries` to `0` before it starts a trial; a system that has come up moves `slot` there and
//! takes `trial` away. One that does not come up leaves `tries` at `0`, so that the next start takes the old slot.

use crate::{Error, Result};
use landfall_image::{Bytes, GuestOffset, GuestRange};
use uuid::{Uuid, uuid};

/// A partition with GRUB's core, of GRUB's own type.
pub const BIOS_BOOT: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
/// An EFI system partition (UEFI specification, table 5.7).
pub const ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
/// What the loader starts of a slot: its kernel and initrd.
pub const BOOT: Uuid = uuid!("661a2419-185a-431c-a4a4-d0b22ca3c8c8");
/// A root slot of the appliance.
pub const ROOT: Uuid = uuid!("4c0e0f0e-391b-4429-81a4-7d5df45b7974");
/// The appliance's state.
pub const STATE: Uuid = uuid!("7e647553-819b-4079-906b-085b09e607c6");
/// A data disk's partition: the vault.
pub const VAULT: Uuid = uuid!("7b486eff-4a3e-42f2-8c47-962f151233e6");

/// The file system's label of the state partition.
pub const STATE_LABEL: &str = "landfall-state";
/// The file system's label of a vault. XFS takes twelve letters.
pub const VAULT_LABEL: &str = "landfall";

/// The first partition's start, and the unit of all.
pub const ALIGNMENT: Bytes = Bytes::mib(1);
/// Room of GRUB's core.
pub const BIOS_BOOT_SIZE: Bytes = Bytes::mib(1);
/// Room of the loaders.
pub const ESP_SIZE: Bytes = Bytes::mib(64);
/// Room of a kernel and an initrd.
pub const BOOT_SIZE: Bytes = Bytes::mib(64);
/// Room of a root.
pub const ROOT_SIZE: Bytes = Bytes::mib(768);
/// Room of the state, of which logs take most.
pub const STATE_SIZE: Bytes = Bytes::mib(1024);

/// A partition of the system disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its name in the table; each has another.
    pub name: &'static str,
    /// Its type.
    pub kind: Uuid,
    /// Its room.
    pub size: Bytes,
}

/// The name of the loaders' partition.
pub const ESP_NAME: &str = "EFI system";
/// The name of GRUB's.
pub const BIOS_BOOT_NAME: &str = "BIOS boot";

/// The partitions in the table's order, without a gap.
pub const PARTITIONS: [Partition; 7] = [
    Partition { name: BIOS_BOOT_NAME, kind: BIOS_BOOT, size: BIOS_BOOT_SIZE },
    Partition { name: ESP_NAME, kind: ESP, size: ESP_SIZE },
    Partition { name: Slot::A.boot_name(), kind: BOOT, size: BOOT_SIZE },
    Partition { name: Slot::B.boot_name(), kind: BOOT, size: BOOT_SIZE },
    Partition { name: Slot::A.root_name(), kind: ROOT, size: ROOT_SIZE },
    Partition { name: Slot::B.root_name(), kind: ROOT, size: ROOT_SIZE },
    Partition { name: STATE_LABEL, kind: STATE, size: STATE_SIZE },
];

/// The partitions, each with its number in the table and where it lies.
pub fn partitions() -> impl Iterator<Item = (u32, Partition, GuestRange)> {
    let mut at = ALIGNMENT.0;
    (1..).zip(PARTITIONS).map(move |(number, partition)| {
        let range = GuestRange::between(GuestOffset(at), GuestOffset(at + partition.size.0));
        at += partition.size.0;
        (number, partition, range)
    })
}

/// GRUB's name of a partition of the disk: `gpt2`.
fn grub_name(name: &str) -> String {
    let found = partitions().find(|(_, partition, _)| partition.name == name);
    format!("gpt{}", found.map_or(0, |(number, _, _)| number))
}

/// What GRUB's core for BIOS has as its prefix: its folder on the ESP.
pub fn grub_prefix() -> String {
    format!("(,{})/grub", grub_name(ESP_NAME))
}

/// All of the system disk: the table's copy has the last MiB.
pub fn image_size() -> Bytes {
    Bytes(PARTITIONS.iter().fold(2 * ALIGNMENT.0, |sum, partition| sum + partition.size.0))
}

/// One of the two systems on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The one that the image came with.
    A,
    /// The other.
    B,
}

impl Slot {
    /// Both.
    pub const ALL: [Slot; 2] = [Slot::A, Slot::B];

    /// `a` or `b`.
    pub fn name(self) -> &'static str {
        match self {
            Slot::A => "a",
            Slot::B => "b",
        }
    }

    /// By its name.
    pub fn of(name: &str) -> Option<Slot> {
        Slot::ALL.into_iter().find(|slot| slot.name() == name)
    }

    /// The other one.
    #[must_use]
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// The name of its root's partition in the table.
    pub const fn root_name(self) -> &'static str {
        match self {
            Slot::A => "landfall-root-a",
            Slot::B => "landfall-root-b",
        }
    }

    /// The name of its kernel's partition in the table.
    pub const fn boot_name(self) -> &'static str {
        match self {
            Slot::A => "landfall-boot-a",
            Slot::B => "landfall-boot-b",
        }
    }
}

/// Where the loader's word lies on the ESP.
pub const ENVIRONMENT: &str = "landfall/grubenv";

/// An image has it in so much of the ESP, behind the file system's tables and the loaders: who has no driver for that finds it soon.
pub const ENVIRONMENT_WITHIN: Bytes = Bytes::mib(8);

/// Length of that file.
pub const ENVIRONMENT_SIZE: usize = 1024;

const ENVIRONMENT_HEAD: &str = "# GRUB Environment Block\n";

/// What the loader and the system tell each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What is started.
    pub slot: Slot,
    /// A slot that is to be tried, and whether it has been.
    pub trial: Option<Trial>,
    /// Which machine of the image's it is; `None` until it has come up once.
    pub deployment: Option<Uuid>,
}

/// A slot that has not come up yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// Which.
    pub slot: Slot,
    /// True once the loader has started it.
    pub tried: bool,
    /// True where it is no update: the other slot's system cannot be read.
    pub instead: bool,
}

impl Choice {
    /// The file that says so. What matters is in its first sector, which a disk writes whole or not at all.
    pub fn render(&self) -> Vec<u8> {
        let mut text = format!("{ENVIRONMENT_HEAD}slot={}\n", self.slot.name());
        if let Some(trial) = self.trial {
            text.push_str(&format!("trial={}\ntries={}\n", trial.slot.name(), u8::from(!trial.tried)));
            if trial.instead {
                text.push_str("instead=yes\n");
            }
        }
        if let Some(deployment) = self.deployment {
            text.push_str(&format!("deployment={deployment}\n"));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(ENVIRONMENT_SIZE, b'#');
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// `Corrupt` where it is no environment of GRUB's, or names no slot.
    pub fn parse(bytes: &[u8]) -> Result<Choice> {
        let wrong = |says: &str| Error::corrupt(format!("the loader's environment {says}"));
        let text =
            bytes.strip_prefix(ENVIRONMENT_HEAD.as_bytes()).ok_or_else(|| wrong("does not begin as one"))?;
        let text = String::from_utf8_lossy(text);
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let slot = value("slot").and_then(Slot::of).ok_or_else(|| wrong("names no slot"))?;
        let trial = match value("trial").filter(|name| !name.is_empty()) {
            None => None,
            Some(name) => Some(Trial {
                slot: Slot::of(name).ok_or_else(|| wrong("names an unknown slot to try"))?,
                tried: value("tries") != Some("1"),
                instead: value("instead") == Some("yes"),
            }),
        };
        let deployment = value("deployment").and_then(|id| id.parse().ok());
        Ok(Choice { slot, trial, deployment })
    }
}

/// Where the kernel and the initrd lie on a disc.
pub const DISC_FOLDER: &str = "landfall/cd";
/// The root on a disc.
pub const DISC_ROOT: &str = "landfall/root.squashfs";
/// How the name of a disc's volume begins.
pub const DISC_NAME: &str = "LANDFALL_";

/// The name of the disc with this identity, in what a volume's name may be made of.
pub fn disc_volume(identity: Uuid) -> String {
    let digits = identity.simple().to_string().to_ascii_uppercase();
    format!("{DISC_NAME}{}", digits.get(..16).unwrap_or(&digits))
}

/// What leads a loader, wherever it was started from, to the configuration on a disc.
pub fn grub_disc_start(volume: &str) -> String {
    format!("search --no-floppy --set=root --label {volume}\nconfigfile ($root)/landfall/grub.cfg\n")
}

/// What the loader starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium<'a> {
    /// The system disk, with the GUID of its table: what it is known by until it has come up once.
    Disk(Uuid),
    /// The disc whose volume has this name.
    Disc(&'a str),
}

/// The loader's configuration, the same for BIOS and UEFI.
pub fn grub_configuration(medium: Medium<'_>) -> String {
    // `gpt`: the kernel takes a table's second copy where a lost power has torn the first. Errors only: a console that is used by people is not written over by the kernel. The last console is that of PID 1's messages.
    const KERNEL: &str = "console=ttyS0,115200 console=tty0 quiet loglevel=3 panic=10 rd.systemd.show_status=no systemd.show_status=no \
        systemd.gpt_auto=no systemd.ssh_auto=no cryptomgr.notests gpt";
    let start = |folder: &str, slot: &str, more: &str| {
        format!(
            "if linux {folder}/vmlinuz landfall.slot={slot}{more} {KERNEL}; then\n  if initrd {folder}/initrd; then boot; fi\nfi\n"
        )
    };
    let disk = match medium {
        Medium::Disk(disk) => disk,
        Medium::Disc(volume) => {
            return format!(
                "set timeout=0\n{}echo \"landfall: the disc cannot be read\"\nsleep 30\nreboot\n",
                start(&format!("/{DISC_FOLDER}"), "cd", &format!(" landfall.disc={volume}"))
            );
        }
    };
    let known = format!(" landfall.disk={disk} landfall.deployment=$deployment");
    // GRUB's `test` knows no empty comparison that all versions agree on: a letter stands before.
    format!(
        r#"set slot=a
set instead=no
load_env -f /landfall/grubenv slot trial tries instead deployment
regexp --set=1:disk '^(.*),' "$root"
if [ "x$slot" = "xb" ]; then
  set other=a
  set usual="($disk,{b})"
  set second="($disk,{a})"
else
  set slot=a
  set other=b
  set usual="($disk,{a})"
  set second="($disk,{b})"
fi
set trying=no
if [ "x$trial" = "x$other" ]; then
  if [ "x$tries" = "x1" ]; then
    set tries=0
    if save_env -f /landfall/grubenv tries; then set trying=yes; fi
  fi
fi
if [ "x$trying" = "xyes" ]; then
{trial}fi
{usual}echo "landfall: slot $slot cannot be read; starting the other one"
{fallback}echo "landfall: neither slot can be read on the disk of ($root)"
sleep 30
reboot
"#,
        a = grub_name(Slot::A.boot_name()),
        b = grub_name(Slot::B.boot_name()),
        trial = start("$second", "$other", &format!("{known} landfall.trial=yes landfall.fallback=$instead")),
        usual = start("$usual", "$slot", &known),
        fallback = start("$second", "$other", &format!("{known} landfall.fallback=yes")),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_and_the_system_read_each_other() {
        for choice in [
            Choice { slot: Slot::A, trial: None, deployment: None },
            Choice {
                slot: Slot::B,
                trial: Some(Trial { slot: Slot::A, tried: false, instead: true }),
                deployment: Some(Uuid::from_u128(7)),
            },
            Choice {
                slot: Slot::A,
                trial: Some(Trial { slot: Slot::B, tried: true, instead: false }),
                deployment: None,
            },
        ] {
            let bytes = choice.render();
            assert_eq!((bytes.len(), Choice::parse(&bytes).unwrap()), (ENVIRONMENT_SIZE, choice));
        }
        // As grub-editenv reads and writes it.
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("grubenv");
        std::fs::write(
            &file,
            Choice {
                slot: Slot::A,
                trial: Some(Trial { slot: Slot::B, tried: false, instead: false }),
                deployment: Some(Uuid::from_u128(7)),
            }
            .render(),
        )
        .unwrap();
        let edit = |args: &[&str]| std::process::Command::new("grub-editenv").arg(&file).args(args).output();
        let Ok(list) = edit(&["list"]) else {
            eprintln!("SKIPPED: the_loader_and_the_system_read_each_other: no grub-editenv here");
            return;
        };
        assert_eq!(
            String::from_utf8_lossy(&list.stdout),
            "slot=a\ntrial=b\ntries=1\ndeployment=00000000-0000-0000-0000-000000000007\n"
        );
        edit(&["set", "tries=0"]).unwrap();
        let choice = Choice::parse(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(choice.trial, Some(Trial { slot: Slot::B, tried: true, instead: false }));
        assert_eq!(choice.deployment, Some(Uuid::from_u128(7)));
        for bad in
            [&b""[..], b"slot=a\n", b"# GRUB Environment Block\n###", b"# GRUB Environment Block\nslot=c\n"]
        {
            assert_eq!(Choice::parse(bad).unwrap_err().kind(), crate::Kind::Corrupt);
        }
    }

    #[test]
    fn grub_takes_the_configuration() {
        let volume = disc_volume(Uuid::from_u128(7 << 64));
        assert_eq!(volume, "LANDFALL_0000000000000007");
        for text in [
            grub_configuration(Medium::Disk(Uuid::from_u128(9))),
            grub_configuration(Medium::Disc(&volume)),
            grub_disc_start(&volume),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("grub.cfg");
            std::fs::write(&file, text).unwrap();
            let Ok(out) = std::process::Command::new("grub-script-check").arg(&file).output() else {
                eprintln!("SKIPPED: grub_takes_the_configuration: no grub-script-check here");
                return;
            };
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        }
    }
}
