//! How a guest's file systems are read: straight from the disk where that is certain, else by the sandbox's kernel.

use super::subvolumes::by_path;
use crate::guest::Mount;
use crate::sandbox::{DISKS_AT_MOST, Finished, Sandbox, Session};
use crate::tree::GuestTree;
use crate::tree::ext4::{Ext4Tree, may_be_readable_elsewhere};
use crate::tree::fat::FatTree;
use crate::tree::mounted::Mounted;
use crate::volume::{Content, Scan, VolumeId};
use crate::{Error, Kind, Result};
use landfall_image::DiskMut;
use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};

/// Kernel names of the file systems that a root or boot volume may have and that the sandbox mounts.
pub(super) const MOUNTABLE: &[&str] = &["ext2", "ext3", "ext4", "xfs", "btrfs", "vfat", "ntfs"];

/// Name of the guest's root in the sandbox.
pub(super) const GUEST: &str = "guest";

/// A file system that is read straight from the disk.
type Direct = Arc<dyn GuestTree>;

type Starting<'scope> = ScopedJoinHandle<'scope, Result<Session>>;

/// Both readers of one machine.
pub(super) struct Readers<'scope> {
    scan: &'scope Scan,
    sandbox: Option<&'scope Sandbox>,
    direct: RefCell<BTreeMap<VolumeId, Option<Direct>>>,
    starting: RefCell<Option<Starting<'scope>>>,
    /// With all file systems, or with those that only it can look at where one sandbox does not take all.
    session: OnceCell<Session>,
    /// With those of the guest, then.
    guest: OnceCell<Session>,
}

/// Volumes for the sandbox: of all that it could mount those that are `wanted`.
fn volumes_for_sandbox(scan: &Scan, wanted: impl Fn(&VolumeId) -> bool) -> Vec<(String, Arc<dyn DiskMut>)> {
    scan.volumes
        .iter()
        .filter(|volume| {
            matches!(&volume.content, Content::FileSystem { name } if MOUNTABLE.contains(&name.as_str()))
        })
        .filter(|volume| wanted(&volume.id))
        .filter_map(|volume| Some((volume.id.0.clone(), scan.view(&volume.id)? as Arc<dyn DiskMut>)))
        .collect()
}

impl<'scope> Readers<'scope> {
    pub(super) fn new(scan: &'scope Scan, sandbox: Option<&'scope Sandbox>) -> Self {
        Readers {
            scan,
            sandbox,
            direct: RefCell::default(),
            starting: RefCell::default(),
            session: OnceCell::new(),
            guest: OnceCell::new(),
        }
    }

    /// True where one sandbox takes all file systems.
    fn takes_all(&self) -> bool {
        volumes_for_sandbox(self.scan, |_| true).len() <= DISKS_AT_MOST
    }

    /// Starts the sandbox beside what comes next.
    pub(super) fn start_early<'env>(&self, scope: &'scope Scope<'scope, 'env>) {
        if let Some(sandbox) = self.sandbox.filter(|_| self.takes_all()) {
            let volumes = volumes_for_sandbox(self.scan, |_| true);
            *self.starting.borrow_mut() = Some(scope.spawn(move || sandbox.start(volumes)));
        }
    }

    /// True where a sandbox can be had.
    pub(super) fn has_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// The sandbox that looks at file systems, started now if it was not. Where there are too many for it, it has those that
    /// were not read straight from the disk, as far as there is room.
    pub(super) fn session(&self) -> Result<&Session> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let started = match self.starting.borrow_mut().take() {
            Some(starting) => starting
                .join()
                .unwrap_or_else(|_| Err(Error::refused("the start of the sandbox was cut short")))?,
            None => {
                let sandbox = self.sandbox.ok_or_else(|| Error::refused("no sandbox is available"))?;
                let takes_all = self.takes_all();
                let mut volumes = volumes_for_sandbox(self.scan, |id| takes_all || !self.is_direct(id));
                volumes.truncate(DISKS_AT_MOST);
                sandbox.start(volumes)?
            }
        };
        Ok(self.session.get_or_init(|| started))
    }

    /// The sandbox that has the guest's file systems.
    pub(super) fn guest_session(&self) -> Result<&Session> {
        self.guest.get().map_or_else(|| self.session(), Ok)
    }

    /// As [`guest_session`](Self::guest_session), to mount these.
    fn session_for(&self, mounts: &[Mount]) -> Result<&Session> {
        if self.takes_all() || self.guest.get().is_some() {
            return self.guest_session();
        }
        let sandbox = self.sandbox.ok_or_else(|| Error::refused("no sandbox is available"))?;
        let is_wanted = |id: &VolumeId| mounts.iter().any(|mount| mount.volume == *id);
        let started = sandbox.start(volumes_for_sandbox(self.scan, is_wanted))?;
        Ok(self.guest.get_or_init(|| started))
    }

    /// Unmounts everything that the sandbox has mounted, and ends it. `None` where none was used.
    ///
    /// # Errors
    /// What was written cannot be relied upon then.
    pub(super) fn finish(self) -> Result<Option<Finished>> {
        let looked = self.session.into_inner().map(Session::finish).transpose()?;
        let guest = self.guest.into_inner().map(Session::finish).transpose()?;
        Ok(guest.or(looked))
    }

    /// A volume's files straight from the disk; `None` where that is left to the kernel.
    pub(super) fn direct(&self, id: &VolumeId) -> Result<Option<Direct>> {
        if let Some(known) = self.direct.borrow().get(id) {
            return Ok(known.clone());
        }
        let opened = match self.open_direct(id) {
            Ok(opened) => opened,
            Err(error) if may_be_readable_elsewhere(&error) => {
                tracing::info!(volume = id.0, %error, "left to the sandbox");
                None
            }
            Err(error) => return Err(error),
        };
        self.direct.borrow_mut().insert(id.clone(), opened.clone());
        Ok(opened)
    }

    fn open_direct(&self, id: &VolumeId) -> Result<Option<Direct>> {
        let (Some(volume), Some(view)) = (self.scan.volume(id), self.scan.view(id)) else { return Ok(None) };
        let Content::FileSystem { name } = &volume.content else { return Ok(None) };
        Ok(match name.as_str() {
            "ext2" | "ext3" | "ext4" => Some(Arc::new(Ext4Tree::open(view)?)),
            "vfat" => Some(Arc::new(FatTree::open(view)?)),
            _ => None,
        })
    }

    /// Never reads this volume straight from the disk again.
    pub(super) fn give_up_direct(&self, id: &VolumeId) {
        self.direct.borrow_mut().insert(id.clone(), None);
    }

    /// True where a volume was opened straight from the disk.
    pub(super) fn is_direct(&self, id: &VolumeId) -> bool {
        self.direct.borrow().get(id).is_some_and(Option::is_some)
    }

    /// All of `mounts` straight from the disk; `None` where one of them is left to the kernel.
    pub(super) fn direct_all(&self, mounts: &[Mount]) -> Result<Option<Mounted<'static>>, NotMounted> {
        let mut tree: Option<Mounted<'static>> = None;
        for mount in mounts {
            let volume = self.direct(&mount.volume).map_err(NotMounted::Failed)?;
            let Some(volume) = volume else { return Ok(None) };
            match &mut tree {
                None => tree = Some(Mounted::new(volume)),
                Some(tree) => match tree.mount(&mount.at, volume) {
                    Ok(()) => {}
                    Err(error) if may_be_readable_elsewhere(&error) => return Ok(None),
                    Err(error) if error.kind() == Kind::Refused => {
                        return Err(NotMounted::Unreadable(Box::new(mount.clone()), error));
                    }
                    Err(error) => return Err(NotMounted::Failed(error)),
                },
            }
        }
        Ok(tree)
    }

    /// Mounts all of `mounts` in the sandbox.
    pub(super) fn mount_all(&self, mounts: &[Mount], read_only: bool) -> Result<&Session, NotMounted> {
        let session = self.session_for(mounts).map_err(NotMounted::Failed)?;
        for mount in mounts {
            let (id, kind) = (&mount.volume.0, &mount.file_system);
            let subvolume = mount.subvolume.as_deref().map(by_path);
            let mounted = session.mount_subvolume(id, kind, GUEST, &mount.at, read_only, subvolume.as_ref());
            let mounted = mounted.map_err(|error| match error.kind() {
                Kind::Io | Kind::Interrupted => NotMounted::Failed(error),
                _ => NotMounted::Unreadable(Box::new(mount.clone()), error),
            })?;
            if mounted.is_locked {
                return Err(NotMounted::Locked(Box::new(mount.clone())));
            }
        }
        Ok(session)
    }
}

/// Why a guest's file systems are not mounted.
pub(super) enum NotMounted {
    /// The sandbox itself, or the host.
    Failed(Error),
    /// The kernel does not take this one.
    Unreadable(Box<Mount>, Error),
    /// It is to be written to, and is a read-only subvolume.
    Locked(Box<Mount>),
}
