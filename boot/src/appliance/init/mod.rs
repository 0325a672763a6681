//! The appliance's first second: PID 1 of the initrd loads the drivers of the hardware that is there, finds the root and hands over.
//!
//! ```text
//! mount /proc /sys /dev /run -> drivers by what the devices call themselves -> the disk that the loader was read from
//!   -> root, read-only; what it starts with is read once -> /run/landfall-boot/boot.json: what was found -> the root's own init
//! ```
//! Where there is no root it says so, with every disk that it sees, and goes on looking: disks come late. One that may be the loader's, and
//! cannot be known for it, is taken after a while; another machine's never. A system that is only being tried restarts instead, and the
//! loader takes the old one.
//!
//! Deliberately absent: checking file systems and mounting anything but the root; that is the root's own business, which has the
//! programs for it.

mod disc;
mod drivers;
mod found;
mod whole;
mod word;

pub use disc::DISC;
pub use found::{Boot, Disk, Seen, partition_device};
pub use whole::{LIBRARIES, PROGRAMS};

use super::initrd;
use super::layout::Slot;
use drivers::Drivers;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_move, unmount};
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use uuid::Uuid;

/// Where what was found is written for the system: JSON of [`Boot`].
pub const BOOT_FILE: &str = "/run/landfall-boot/boot.json";

/// The root's own first program.
const NEXT: &str = "/usr/lib/systemd/systemd";

/// Between two looks for the root.
const PAUSE: Duration = Duration::from_millis(20);
/// After this a person is told what is missing, and a trial is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// The loader's disk is waited for this long, from when there is one that may be it.
const FOR_THE_LOADERS: Duration = Duration::from_secs(25);
/// Between two lines to that person.
const AGAIN: Duration = Duration::from_secs(15);

/// True where this process is PID 1 of the appliance's initrd.
pub fn is_first() -> bool {
    std::process::id() == 1 && Path::new(initrd::MARKER).exists()
}

/// Starts the appliance. Does not return: the kernel would stop.
pub fn run() -> ! {
    let failed = match start() {
        Ok(never) => match never {},
        Err(error) => error,
    };
    say(&format!("landfall: the appliance cannot start: {failed}"));
    say("landfall: restarting in 30 seconds");
    std::thread::sleep(PATIENCE);
    restart()
}

fn restart() -> ! {
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Every console that the kernel has shows it.
fn say(line: &str) {
    // The kernel's log reaches all consoles; standard error is the last of them only.
    if fs::write("/dev/kmsg", format!("<2>{line}")).is_err() {
        eprintln!("{line}");
    }
}

enum Never {}

fn start() -> io::Result<Never> {
    for (kind, at, data) in [
        ("proc", "/proc", None),
        ("sysfs", "/sys", None),
        ("devtmpfs", "/dev", None),
        ("tmpfs", "/run", Some(c"mode=0755,size=20%")),
    ] {
        mount(kind, at, kind, MountFlags::NOSUID, data)
            .map_err(|e| io::Error::other(format!("cannot mount {at}: {e}")))?;
    }
    let order = Order::of(&fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let mut drivers = Drivers::read(&fs::read_to_string(initrd::LIST)?);
    let began = Instant::now();
    let mut told = began;
    let (mut perhaps_since, mut known) = (None, found::Known::default());
    let (roots, is_loaders) = loop {
        drivers.load_wanted();
        let seen = found::look(&order);
        let roots = seen.roots(&order, &mut known);
        if !roots.loaders.is_empty() {
            break (roots.loaders, true);
        }
        if roots.perhaps.is_empty() {
            perhaps_since = None;
        } else if perhaps_since.get_or_insert_with(Instant::now).elapsed() > FOR_THE_LOADERS {
            break (roots.perhaps, false);
        }
        if told.elapsed() > if told == began { PATIENCE } else { AGAIN } {
            told = Instant::now();
            for line in seen.explain(&order, &drivers, &mut known) {
                say(&line);
            }
            if order.trial {
                say("landfall: the system that was to be tried has no root: back to the old one");
                restart();
            }
        }
        std::thread::sleep(PAUSE);
    };
    let usual = order.slot.filter(|_| !order.trial);
    // Nobody else's is written to. Of copies it is not known from which the loader came.
    let esps: Vec<_> = roots.iter().filter(|_| is_loaders).filter_map(|boot| boot.esp.clone()).collect();
    let mut boot = match first_whole(roots) {
        Ok(boot) => boot,
        Err(error) => {
            for (slot, esp) in usual.iter().flat_map(|slot| esps.iter().map(move |esp| (*slot, esp))) {
                say(&match word::ask(esp, slot, order.deployment) {
                    Ok(()) => {
                        format!("landfall: slot {} cannot be read: the other one is tried next", slot.name())
                    }
                    Err(error) => format!("landfall: the other slot cannot be asked for: {error}"),
                });
            }
            return Err(error);
        }
    };
    fs::create_dir_all("/run/landfall-boot")?;
    boot.trouble.extend(drivers.trouble());
    machine_id();
    fs::write(BOOT_FILE, serde_json::to_vec_pretty(&boot).map_err(io::Error::other)?)?;
    hand_over()
}

/// Mounts the first of the roots that can be read.
fn first_whole(roots: Vec<Boot>) -> io::Result<Boot> {
    let mut failed = Vec::new();
    for boot in roots {
        let whole = found::mount_root(boot, "/new").and_then(|boot| {
            // A disc has no other system.
            if boot.slot.is_some()
                && let Err(error) = whole::read(Path::new("/new"))
            {
                let _ = unmount("/new", UnmountFlags::DETACH);
                return Err(io::Error::new(error.kind(), format!("{}: {error}", boot.root.display())));
            }
            Ok(boot)
        });
        match whole {
            Ok(boot) => return Ok(Boot { trouble: [boot.trouble, failed].concat(), ..boot }),
            Err(error) => failed.push(error.to_string()),
        }
    }
    Err(io::Error::other(failed.join("; ")))
}

/// The machine's id, the same at every start, so that its logs are found again: of the id that the hypervisor gave it. Where that is none,
/// systemd takes a new one each time.
fn machine_id() {
    let Ok(uuid) = fs::read_to_string("/sys/class/dmi/id/product_uuid") else { return };
    let digits: String = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 32 || digits.bytes().all(|digit| Some(&digit) == digits.as_bytes().first()) {
        return;
    }
    // Not the id itself: programs show it around.
    let id = blake3::derive_key("landfall appliance machine-id", digits.to_ascii_lowercase().as_bytes());
    let text: String = id.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (from, to) = ("/run/machine-id", "/new/etc/machine-id");
    let put = fs::write(from, format!("{text}\n")).and_then(|()| Ok(rustix::mount::mount_bind(from, to)?));
    if let Err(error) = put {
        say(&format!("landfall: the machine's id changes with each start: {error}"));
    }
}

/// What the loader says on the kernel's command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which system; `None` for that of a disc.
    slot: Option<Slot>,
    /// The GUID of the disk's table.
    disk: Option<String>,
    /// What the loader's word on that disk says of itself.
    deployment: Option<Uuid>,
    /// The disc's name.
    disc: Option<String>,
    /// True where the system is being tried.
    trial: bool,
    /// True where the loader could not read the slot that it should have started.
    fallback: bool,
}

impl Order {
    fn of(line: &str) -> Order {
        let value = |name: &str| {
            line.split_ascii_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        Order {
            slot: match value("landfall.slot") {
                Some("cd") => None,
                name => Some(name.and_then(Slot::of).unwrap_or(Slot::A)),
            },
            disk: value("landfall.disk").map(str::to_owned),
            deployment: value("landfall.deployment").and_then(|id| id.parse().ok()),
            disc: value("landfall.disc").map(str::to_owned),
            trial: value("landfall.trial") == Some("yes"),
            fallback: value("landfall.fallback") == Some("yes"),
        }
    }
}

/// Leaves the initrd for the root.
fn hand_over() -> io::Result<Never> {
    for folder in ["dev", "proc", "sys", "run"] {
        mount_move(format!("/{folder}"), format!("/new/{folder}"))
            .map_err(|e| io::Error::other(format!("cannot move /{folder}: {e}")))?;
    }
    // The initrd stays in memory otherwise.
    for folder in ["/landfall", "/usr", "/lib64"] {
        let _ = fs::remove_dir_all(folder);
    }
    let _ = fs::remove_file("/init");
    std::env::set_current_dir("/new")?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    Err(Command::new(NEXT).env_clear().env("TERM", "linux").exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loader_is_understood() {
        let order = |line: &str| Order::of(line);
        assert_eq!(
            order(
                "BOOT_IMAGE=/x landfall.slot=b landfall.disk=5c6f \
                 landfall.deployment=00000000-0000-0000-0000-000000000007 landfall.trial=yes quiet"
            ),
            Order {
                slot: Some(Slot::B),
                disk: Some("5c6f".into()),
                deployment: Some(Uuid::from_u128(7)),
                disc: None,
                trial: true,
                fallback: false
            }
        );
        assert_eq!(
            order("landfall.slot=cd landfall.disc=LANDFALL_7"),
            Order {
                slot: None,
                disk: None,
                deployment: None,
                disc: Some("LANDFALL_7".into()),
                trial: false,
                fallback: false
            }
        );
        assert_eq!(order("quiet").slot, Some(Slot::A));
        // As the loader writes it before the first start has given one.
        assert_eq!(order("landfall.disk=5c6f landfall.deployment= quiet").deployment, None);
    }
}
