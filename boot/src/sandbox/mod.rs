//! The patch sandbox: a micro-VM that mounts a guest's file systems, and nothing else.
//!
//! ```text
//! Session --request--> virtio-serial --> agent (PID 1) --> kernel: ext4, XFS, btrfs, vfat --> virtio-scsi disk
//!    |                                                                                            |
//!    +-- Arc<dyn DiskMut> of each volume <--- our NBD server <--- socket pair <--- QEMU <---------+
//! ```
//!
//! File systems are hostile input, and only the Linux kernel writes all of them. So a stock kernel mounts them in a
//! VM that sees the overlay of one guest's volumes and nothing else: no network, no file of the host, and no program
//! of the guest is ever run. QEMU itself is confined ([`Confinement`]). What comes back is hostile input, too.
//!
//! A started machine is saved once; later sandboxes start from that state in a fraction of a second. On any doubt
//! the machine boots plainly instead. Every wait has an end, every process is ended with its session.
//!
//! Cut by phase: `kernel`, `initramfs` (what is started), `cache` (what is kept), `process`, `qmp`, `machine` (QEMU),
//! `protocol`, [`agent`] (inside), `session` (outside). [`Confined`] runs other machines under the same rules.

pub mod agent;
mod cache;
mod confined;
mod initramfs;
mod kernel;
mod machine;
mod process;
mod protocol;
mod qmp;
mod session;

pub use confined::Confined;
pub(crate) use initramfs::Archive;
pub(crate) use kernel::stripped;
pub use machine::DISKS_AT_MOST;
pub use protocol::{MountedAs, Subvolume};
pub use session::{Finished, SandboxTree, Session};

use crate::{Error, Result};
use cache::{Cache, Key};
use kernel::Kernel;
use landfall_image::DiskMut;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// How the machine is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accelerator {
    /// By the processor.
    Kvm,
    /// By emulation.
    Tcg,
}

/// What keeps a QEMU that a hostile file system took over from doing harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Confinement {
    /// `bwrap`, an unprivileged user, and QEMU's own filter; where that cannot be had, nothing is started.
    #[default]
    Required,
    /// QEMU's own filter only.
    Off,
}

/// Where things are and what is wanted. Only the program reads the environment; this crate is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The program that becomes PID 1: a static one that calls [`agent::run`] where [`agent::is_sandbox`] says so.
    pub agent: PathBuf,
    /// `qemu-system-x86_64`, a path or a name in the usual folders.
    pub qemu: PathBuf,
    /// `bwrap`, likewise.
    pub bwrap: PathBuf,
    /// A folder with `boot/vmlinuz-*` and `lib/modules/*` that must be used.
    pub kernel_folder: Option<PathBuf>,
    /// The program's data folder: the newest kernel in its `sandbox/` is used, before the host's own.
    pub data_folder: Option<PathBuf>,
    /// Where the unpacked kernel, the initramfs and the saved state are kept.
    pub cache_folder: PathBuf,
    /// `None`: KVM where it works, which is tried once per boot of the host; else emulation.
    pub accelerator: Option<Accelerator>,
    /// False: always boot, never save.
    pub saved_state: bool,
    /// See [`Confinement`].
    pub confinement: Confinement,
    /// Set it to stop: what waits then returns [`Kind::Interrupted`](crate::Kind::Interrupted) and QEMU is ended.
    pub cancel: Arc<AtomicBool>,
}

/// What to install where a program is missing.
const QEMU: &str = "install QEMU, which runs the sandbox (apt install qemu-system-x86)";
const BWRAP: &str = "install bubblewrap, which confines the sandbox (apt install bubblewrap)";

impl Settings {
    /// What a sandbox needs and what is not on this machine. Nothing is started, so that there may be more.
    pub fn lacks(&self) -> Vec<Error> {
        let bwrap = (self.confinement == Confinement::Required)
            .then(|| process::find_program(&self.bwrap, BWRAP).err());
        let qemu = process::find_program(&self.qemu, QEMU).err();
        [qemu, bwrap.flatten(), find_kernel(self).err()].into_iter().flatten().collect()
    }

    /// The usual settings.
    pub fn new(agent: PathBuf, cache_folder: PathBuf) -> Settings {
        Settings {
            agent,
            qemu: "qemu-system-x86_64".into(),
            bwrap: "bwrap".into(),
            kernel_folder: None,
            data_folder: None,
            cache_folder,
            accelerator: None,
            saved_state: true,
            confinement: Confinement::Required,
            cancel: Arc::default(),
        }
    }
}

/// Starts sandboxes. One serves any number of guests, at the same time or one after another; every guest gets a
/// machine of its own.
pub struct Sandbox {
    settings: Settings,
    qemu: PathBuf,
    kernel: Kernel,
    cache: Cache,
    boot: Mutex<Option<Arc<Boot>>>,
}

/// What a machine is started with.
struct Boot {
    /// The uncompressed kernel.
    kernel: File,
    initramfs: File,
    /// Of both.
    key: Key,
}

impl Sandbox {
    /// Finds QEMU and a kernel; starts nothing yet.
    pub fn new(settings: Settings) -> Result<Sandbox> {
        let qemu = process::find_program(&settings.qemu, QEMU)?;
        let kernel = find_kernel(&settings)?;
        let cache = Cache::open(&settings.cache_folder)?;
        Ok(Sandbox { settings, qemu, kernel, cache, boot: Mutex::new(None) })
    }

    /// What stops it: see [`Settings::cancel`].
    pub fn cancel(&self) -> Arc<AtomicBool> {
        self.settings.cancel.clone()
    }

    /// Starts a machine with these volumes as its disks, [`DISKS_AT_MOST`] of them: a name for each, and what is read and written.
    pub fn start(&self, volumes: Vec<(String, Arc<dyn DiskMut>)>) -> Result<Session> {
        Session::start(self, volumes)
    }

    /// Release of the sandbox's kernel.
    pub fn kernel_release(&self) -> &str {
        &self.kernel.release
    }

    /// Kernel and initramfs, made where the cache does not have them.
    fn boot(&self) -> Result<Arc<Boot>> {
        let mut boot = self.boot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(boot) = &*boot {
            return Ok(Arc::clone(boot));
        }
        let image = kernel::read_image(&self.kernel.image)?;
        let kernel_key = Key::of(&[b"vmlinux 1", &image]);
        let initramfs_key = self.initramfs_key(&kernel_key)?;
        let in_image = |e: Error| e.in_file(&self.kernel.image);
        let made = Arc::new(Boot {
            kernel: self.cache.get("kernel", &kernel_key, || kernel::vmlinux(&image).map_err(in_image))?,
            initramfs: self
                .cache
                .get("initramfs", &initramfs_key, || initramfs::build(&self.kernel, &self.settings.agent))?,
            key: Key::of(&[kernel_key.as_bytes(), initramfs_key.as_bytes()]),
        });
        *boot = Some(Arc::clone(&made));
        Ok(made)
    }

    /// Changes with the agent, the kernel and its modules. The modules are known by the lists that come with them:
    /// reading all would take longer than the sandbox itself.
    fn initramfs_key(&self, kernel: &Key) -> Result<Key> {
        let mut modules = Vec::new();
        for name in ["modules.builtin", "modules.order", "kernel"] {
            modules.extend(fingerprint(&self.kernel.modules.join(name)));
        }
        let mut agent = blake3::Hasher::new();
        let failed = |e| Error::io("cannot read", e).in_file(&self.settings.agent);
        agent.update_reader(File::open(&self.settings.agent).map_err(failed)?).map_err(failed)?;
        Ok(Key::of(&[
            b"initramfs 1",
            kernel.as_bytes(),
            self.kernel.release.as_bytes(),
            &modules,
            agent.finalize().as_bytes(),
            kernel::NEEDED.join(",").as_bytes(),
            kernel::WANTED.join(",").as_bytes(),
            kernel::LATER.join(",").as_bytes(),
        ]))
    }
}

/// Changes when the file is replaced; empty for one that is absent.
fn fingerprint(path: &Path) -> Vec<u8> {
    use std::os::unix::fs::MetadataExt;
    let Ok(meta) = std::fs::metadata(path) else { return Vec::new() };
    format!("{} {} {} {}.{};", meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())
        .into_bytes()
}

fn find_kernel(settings: &Settings) -> Result<Kernel> {
    const HINT: &str = "put a distribution's kernel there (boot/vmlinuz-*, lib/modules/*): on Debian, dpkg-deb -x PACKAGE FOLDER of what \
                        apt-get download linux-image-VERSION-cloud-amd64 brings, or tools/fetch-sandbox-kernel.sh FOLDER of landfall's sources";
    let missing = |folder: &Path| {
        Error::io("there is no kernel for the sandbox", std::io::ErrorKind::NotFound.into())
            .in_file(folder)
            .hint(HINT)
    };
    if let Some(folder) = &settings.kernel_folder {
        return kernel::newest_in(folder)?.ok_or_else(|| missing(folder));
    }
    if let Some(data) = &settings.data_folder
        && let Some(kernel) = kernel::newest_in(&data.join("sandbox"))?
    {
        return Ok(kernel);
    }
    // Not to be allowed to look into the host's own /boot is no reason to fail otherwise.
    let host = kernel::newest_in(Path::new("/")).ok().flatten();
    host.ok_or_else(|| {
        missing(&settings.data_folder.as_ref().map_or("/".into(), |data| data.join("sandbox")))
    })
}
