//! Volumes encrypted with LUKS or BitLocker.

use super::{Place, Work};
use crate::volume::VolumeId;
use crate::volume::view::View;
use crate::{Finding, Kind, Result, limits};
use landfall_image::bitlk::{self, Outcome};
use landfall_image::luks;
use landfall_image::{Disk, DiskMut, GuestOffset, GuestRange};
use std::sync::Arc;

/// An encrypted volume.
pub(super) struct Locked {
    id: VolumeId,
    disk: usize,
    /// `LUKS2`.
    scheme: String,
    uuid: String,
    view: Arc<View>,
}

/// The option that gives a key.
const GIVE: &str =
    "give its key in a file: --key-file FILE, or --passphrase-file FILE for the first line of one";

impl Locked {
    pub(super) fn new(place: &Place, scheme: &str, uuid: Option<&str>, view: Arc<View>) -> Locked {
        // It becomes part of names.
        let is_uuid = |uuid: &&str| uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        let uuid = uuid.filter(is_uuid).map_or_else(|| place.id.0.replace(['/', ':'], "-"), str::to_owned);
        Locked { id: place.id.clone(), disk: place.disk, scheme: scheme.to_owned(), uuid, view }
    }

    fn says(&self, what: &str) -> String {
        format!("{} is encrypted ({}, {}){what}", self.id.0, self.scheme, self.uuid)
    }
}

/// The volume that an encrypted one becomes when it is open.
pub fn opened_id(container: &VolumeId, scheme: &str) -> VolumeId {
    let suffix = if scheme == BITLOCKER { "bitlocker" } else { "luks" };
    VolumeId(format!("{}:{suffix}", container.0))
}

/// The scheme of volumes of Windows.
pub const BITLOCKER: &str = "BitLocker";

impl Work<'_> {
    /// Opens the encrypted volumes that were not tried yet. True where one was opened.
    pub(super) fn encrypted(&mut self) -> Result<bool> {
        let mut is_new = false;
        for locked in std::mem::take(&mut self.locked) {
            if locked.scheme == BITLOCKER {
                is_new |= self.bitlocker(&locked)?;
                continue;
            }
            if self.keys.is_empty() {
                self.out.findings.push(Finding::new(
                    "luks-locked",
                    locked.says(", and no key was given"),
                    GIVE,
                ));
                continue;
            }
            self.tried += 1;
            if self.tried > limits::LUKS_VOLUMES {
                self.out.findings.push(Finding::new(
                    "luks-not-opened",
                    locked.says(&format!("; keys are tried on {} volumes at most", limits::LUKS_VOLUMES)),
                    "nothing, unless the guest needs it to start; it is copied as it is",
                ));
                continue;
            }
            match self.unlock(&locked)? {
                Ok(Some(disk)) => {
                    is_new = true;
                    let name = format!("luks-{}", locked.uuid);
                    let plain = locked.uuid.replace('-', "");
                    let whole = GuestRange::new(GuestOffset(0), disk.size());
                    let place = Place {
                        id: opened_id(&locked.id, &locked.scheme),
                        disk: locked.disk,
                        entry: None,
                        device_names: vec![
                            format!("/dev/mapper/{name}"),
                            format!("/dev/disk/by-id/dm-name-{name}"),
                            format!("/dev/disk/by-id/dm-uuid-CRYPT-{}-{plain}-{name}", locked.scheme),
                        ],
                        on: vec![locked.id.clone()],
                        may_hold_layers: true,
                        owner: None,
                    };
                    if let Some(reach) = self.reach.get(&locked.id).cloned() {
                        self.reach.insert(place.id.clone(), reach);
                    }
                    self.place(place, View::part(disk, whole)?)?;
                }
                Ok(None) => {
                    self.out.findings.push(Finding::new(
                        "luks-key-wrong",
                        locked.says(", and the key that was given does not open it"),
                        "give the key or passphrase of this volume; with --key-file every byte counts, a line feed at the end too",
                    ));
                }
                Err(error) => self.out.findings.push(Finding::new(
                    "luks-not-opened",
                    locked.says(&format!(", and cannot be opened: {error}")),
                    error
                        .hint_text()
                        .unwrap_or("decrypt it in the source machine, if the guest needs it to start"),
                )),
            }
        }
        Ok(is_new)
    }

    /// Opens a volume of BitLocker: where protection is suspended without a key. One that stays closed is spoken of when it is
    /// known whether the system lies in it.
    fn bitlocker(&mut self, locked: &Locked) -> Result<bool> {
        let keys = std::iter::once(None).chain(self.keys.iter().map(Some));
        let mut wrong = false;
        for key in keys {
            self.tried += usize::from(key.is_some());
            if self.tried > limits::LUKS_VOLUMES {
                self.out.findings.push(Finding::new(
                    "windows-bitlocker-not-opened",
                    format!(
                        "{} is encrypted with BitLocker, and not opened: {} keys are tried on all volumes together at most",
                        locked.id.0,
                        limits::LUKS_VOLUMES
                    ),
                    "give the keys alone that the guest needs to start, or leave out disks that do not belong to it",
                ));
                return Ok(false);
            }
            match bitlk::open_volume(locked.view.clone(), key, &mut self.effort) {
                Ok(Outcome::Opened(disk)) => {
                    let whole = GuestRange::new(GuestOffset(0), disk.size());
                    let place = Place {
                        id: opened_id(&locked.id, &locked.scheme),
                        disk: locked.disk,
                        entry: None,
                        device_names: Vec::new(),
                        on: vec![locked.id.clone()],
                        may_hold_layers: false,
                        owner: None,
                    };
                    if let Some(reach) = self.reach.get(&locked.id).cloned() {
                        self.reach.insert(place.id.clone(), reach);
                    }
                    self.place(place, View::part(disk, whole)?)?;
                    return Ok(true);
                }
                Ok(Outcome::Locked(_)) => {}
                Ok(Outcome::Wrong) => wrong = true,
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
                Err(error) => {
                    self.out.findings.push(Finding::new(
                        "windows-bitlocker-not-opened",
                        format!("{} is encrypted with BitLocker, and cannot be opened: {error}", locked.id.0),
                        error.hint_text().unwrap_or("decrypt it in the source machine (manage-bde -off)"),
                    ));
                    return Ok(false);
                }
            }
        }
        if wrong {
            self.out.findings.push(Finding::new(
                "windows-bitlocker-key-wrong",
                format!("{} is encrypted with BitLocker, and the key that was given does not open it", locked.id.0),
                "give its recovery password, 48 digits with hyphens, as the first line of a file: --passphrase-file FILE",
            ));
        }
        Ok(false)
    }

    /// The volume decrypted by the first key that fits, `None` where none does, or why it cannot be opened.
    fn unlock(&mut self, locked: &Locked) -> Result<Result<Option<Arc<dyn DiskMut>>>> {
        // A slot that cannot be used may not hide one that another key opens.
        let mut unusable = None;
        for key in self.keys {
            match luks::open_volume(locked.view.clone(), key, &mut self.effort) {
                Ok(None) => {}
                Ok(opened) => return Ok(Ok(opened)),
                Err(error) if matches!(error.kind(), Kind::Io | Kind::Interrupted) => return Err(error),
                Err(error) => drop(unusable.get_or_insert(error)),
            }
        }
        Ok(unusable.map_or(Ok(None), Err))
    }

    /// Volumes that lie too deep to be tried.
    pub(super) fn encrypted_at_the_end(&mut self) {
        for locked in std::mem::take(&mut self.locked) {
            if locked.scheme == BITLOCKER {
                continue;
            }
            self.out.findings.push(Finding::new(
                "luks-not-opened",
                locked.says(&format!("; it lies deeper than {} layers of storage", limits::STORAGE_LAYERS)),
                "nothing, unless the guest needs it to start; it is copied as it is",
            ));
        }
    }
}
