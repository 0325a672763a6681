//! The two systems on the disk, and putting a new one into the slot that does not run.
//!
//! An update is one file, made by `landfall appliance build` and signed by whoever built the appliance:
//!
//! ```text
//! "LANDFALL-UPDATE1" | length of the manifest u32 LE | manifest (JSON) | signature 64 (Ed25519, RFC 8032)
//!   root | boot volume, in the lengths and with the SHA-256 that the manifest says
//! ```
//! The signature is over everything before it, and is looked at before anything else is believed; then the digests, before anything is
//! written. Then, in the slot that does not run: the boot volume's descriptors are erased, the root is written and read back, and the boot
//! volume, its descriptors last. So a boot volume that can be read belongs to a whole system, whatever starts it. The loader's word comes
//! after that, in one sector: power may be lost at any moment, until then the old system starts, and after it the new one is tried once
//! (see [`landfall_boot::appliance::layout`]).
//!
//! Deliberately absent: updates of shim and GRUB, which no slot holds: a new image has them; and fetching anything from a network.

use super::places;
use landfall_boot::appliance::init::Boot;
use landfall_boot::appliance::layout::{self, Choice, Slot, Trial};
use landfall_image::{Bytes, Error, FileOffset, Result};
use ring::signature::{ED25519, UnparsedPublicKey};
use rustix::fs::{Advice, FlockOperation, fadvise, flock};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// How an update begins.
pub const MAGIC: &[u8; 16] = b"LANDFALL-UPDATE1";
/// A manifest has some hundred bytes.
pub const MANIFEST_AT_MOST: usize = 64 << 10;
/// A signature's length.
pub const SIGNATURE: usize = 64;
const STEP: usize = 1 << 20;

/// What an update holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Manifest {
    /// Version of the program in it.
    pub version: String,
    /// The moment of its packages: `20261130T000000Z`. An update with an older one is refused.
    pub snapshot: String,
    /// The kernel's release.
    pub release: String,
    /// The compressed root.
    pub root: Part,
    /// The boot volume, with the kernel and what it starts from.
    pub boot: Part,
}

/// A part of an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Part {
    /// Its length.
    pub size: Bytes,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

fn wrong(says: &str) -> Error {
    Error::corrupt(format!("the update {says}"))
        .hint("fetch it again; its length and digest are beside it where it was built")
}

/// Reads and checks what an update says of itself; `key` is the public key that updates are signed with.
///
/// # Errors
/// `Corrupt`, and `Refused` where the signature is not by that key.
pub fn manifest(update: &mut dyn Read, key: Option<&[u8]>) -> Result<Manifest> {
    let key = key.ok_or_else(|| {
        Error::refused("this appliance was built without a key for updates: it takes none").hint(
            "deploy a new image, and attach the data disk to it; build images with --update-key to update them later",
        )
    })?;
    let failed = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => wrong("is cut off"),
        _ => Error::io("cannot read the update", e),
    };
    let mut head = vec![0; MAGIC.len() + 4];
    update.read_exact(&mut head).map_err(failed)?;
    if !head.starts_with(MAGIC) {
        return Err(wrong("does not begin as one"));
    }
    let len = head.get(MAGIC.len()..).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
    let len = usize::try_from(len)
        .ok()
        .filter(|len| (1..=MANIFEST_AT_MOST).contains(len))
        .ok_or_else(|| wrong("has a manifest of an odd length"))?;
    let mut text = vec![0; len];
    update.read_exact(&mut text).map_err(failed)?;
    let mut signature = [0; SIGNATURE];
    update.read_exact(&mut signature).map_err(failed)?;
    head.extend_from_slice(&text);
    UnparsedPublicKey::new(&ED25519, key).verify(&head, &signature).map_err(|_| {
        Error::refused("the update is not signed with the key that this appliance trusts")
            .hint("take the update that was built with the same --update-key as this appliance's image")
    })?;
    serde_json::from_slice(&text).map_err(|e| wrong(&format!("has a manifest that is none: {e}")))
}

/// Refuses an update that is older than what runs, and one that does not fit.
///
/// # Errors
/// `Refused`
pub fn check(manifest: &Manifest, running: &str) -> Result<()> {
    if manifest.snapshot.as_str() < running {
        return Err(Error::refused(format!(
            "the update is of {}, and what runs is of {running}: it would bring old faults back",
            manifest.snapshot
        ))
        .hint("to go back, deploy the older image anew and attach the data disk to it: settings are made anew, and sources need new certificates"));
    }
    for (what, part, at_most) in
        [("root", &manifest.root, layout::ROOT_SIZE), ("boot volume", &manifest.boot, layout::BOOT_SIZE)]
    {
        if part.size > at_most || part.size.0 == 0 {
            return Err(Error::refused(format!(
                "the update's {what} has {}; there is room for {at_most}",
                part.size
            )));
        }
    }
    Ok(())
}

/// Copies a part of the update, and checks it.
fn copy(update: &mut dyn Read, part: &Part, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; STEP];
    let mut left = part.size.0;
    while left > 0 {
        let len = usize::try_from(left.min(STEP as u64)).unwrap_or(STEP);
        let Some(step) = buffer.get_mut(..len) else { break };
        update.read_exact(step).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => wrong("is cut off"),
            _ => Error::io("cannot read the update", e),
        })?;
        hash.update(&*step);
        each(step)?;
        left -= len as u64;
    }
    same(&hash.finalize(), part)
}

/// Refuses an update that is not what its manifest says: the system that it would be written over may be the one that is needed next.
fn verify(update: &mut (impl Read + Seek), manifest: &Manifest) -> Result<()> {
    let failed = |e| Error::io("cannot read the update", e);
    let at = update.stream_position().map_err(failed)?;
    copy(update, &manifest.root, |_| Ok(()))?;
    copy(update, &manifest.boot, |_| Ok(()))?;
    update.seek(SeekFrom::Start(at)).map_err(failed)?;
    Ok(())
}

fn same(digest: &[u8], part: &Part) -> Result<()> {
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    match digest == part.sha256 {
        true => Ok(()),
        false => Err(wrong(&format!(
            "is damaged: the SHA-256 of a part is {digest}, and should be {}",
            part.sha256
        ))),
    }
}

/// The ESP, mounted for as long as the loader's word is read or written.
pub struct Esp {
    at: PathBuf,
    /// Held as long: who writes and who reads come one after the other.
    _one_at_a_time: File,
}

/// What it is mounted for. For writing, the kernel marks the file system as in use until it is unmounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
}

fn is_disc() -> Error {
    Error::refused("this system runs from a disc, which has no slots")
        .hint("build a disk image to have updates")
}

impl Esp {
    fn mount(boot: &Boot, purpose: For) -> Result<Esp> {
        let device = partition(boot, boot.esp.as_ref(), layout::ESP_NAME)?;
        let at = PathBuf::from(places::ESP);
        let failed =
            |e: std::io::Error| Error::io("cannot mount the partition of the loaders", e).in_file(device);
        fs::create_dir_all(&at).map_err(failed)?;
        let lock = File::create(at.with_extension("lock")).map_err(failed)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        let mut flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOEXEC;
        if purpose == For::Reading {
            flags |= MountFlags::RDONLY;
        }
        mount(device, &at, "vfat", flags, Some(c"umask=0077,iocharset=ascii,errors=remount-ro"))
            .map_err(|e| failed(e.into()))?;
        Ok(Esp { at, _one_at_a_time: lock })
    }

    fn environment(&self) -> PathBuf {
        self.at.join(layout::ENVIRONMENT)
    }

    /// The loader's word.
    fn choice(&self) -> Result<Choice> {
        let path = self.environment();
        let bytes = fs::read(&path).map_err(|e| Error::io("cannot read", e).in_file(&path))?;
        Choice::parse(&bytes).map_err(|e| e.in_file(&path))
    }

    /// Changes the loader's word, in its place: the loader finds it by where it lies. Whose word it is stays, and is said from now on.
    fn choose(&self, slot: Slot, trial: Option<Trial>) -> Result<()> {
        let deployment = self.choice().ok().and_then(|choice| choice.deployment);
        let choice = Choice { slot, trial, deployment: deployment.or_else(|| Some(Uuid::new_v4())) };
        let path = self.environment();
        let failed = |e| Error::io("cannot write", e).in_file(&path);
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        file.write_all_at(&choice.render(), 0).and_then(|()| file.sync_all()).map_err(failed)
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.at, UnmountFlags::empty()) {
            tracing::error!(%error, "cannot unmount {}", self.at.display());
        }
    }
}

fn read_back(path: &Path, part: &Part) -> Result<()> {
    let failed = |e| Error::io("cannot read back", e).in_file(path);
    let file = File::open(path).map_err(failed)?;
    // What was written is in memory still: that is not what is asked for.
    fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| failed(e.into()))?;
    copy(&mut file.take(part.size.0), part, |_| Ok(())).map_err(|error| {
        Error::io("what was written does not read back", std::io::Error::other(error.to_string()))
            .in_file(path)
            .hint("the appliance's own disk is failing: deploy it anew on another one")
    })
}

/// A partition of the system's disk; `name` is that of the one that may be missing.
fn partition<'a>(boot: &Boot, device: Option<&'a PathBuf>, name: &str) -> Result<&'a Path> {
    boot.slot.ok_or_else(is_disc)?;
    device.map(PathBuf::as_path).ok_or_else(|| {
        Error::refused(format!("the system's disk {} has no partition {name}", boot.system.display()))
            .hint("deploy the appliance anew, and attach the data disk to it")
    })
}

/// The descriptors of a boot volume, in bytes of it: from its sector 16 on (ECMA-119, 6.7.1). Without them no loader finds anything on it, and what
/// a loader needs of them (the mark and the root's place, ECMA-119, 8.4) is in one sector of a disk, which is written whole or not at all.
const DESCRIPTORS: Range<usize> = (32 << 10)..(36 << 10);

/// Puts a system onto a slot's partitions. At no moment is there a boot volume that can be read, and not its whole system, as long as the
/// disk keeps what was written; where the boot volume does not read back, it is taken away again.
fn replace(
    root: &Path,
    volume: &Path,
    manifest: &Manifest,
    update: &mut dyn Read,
    read_back: &dyn Fn(&Path, &Part) -> Result<()>,
) -> Result<()> {
    let open = |path: &Path| {
        let opened = File::options().write(true).open(path);
        opened.map_err(|e| Error::io("cannot write the new system", e).in_file(path))
    };
    let (root_file, volume_file) = (open(root)?, open(volume)?);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |e| Error::io("cannot write the new system", e).in_file(&path)
    };
    let describe = |bytes: &[u8]| {
        volume_file
            .write_all_at(bytes, DESCRIPTORS.start as u64)
            .and_then(|()| volume_file.sync_all())
            .map_err(failed(volume))
    };
    let erased = [0; DESCRIPTORS.end - DESCRIPTORS.start];
    describe(&erased)?;

    let mut at = 0;
    copy(update, &manifest.root, |bytes| {
        root_file.write_all_at(bytes, at).map_err(failed(root))?;
        at += bytes.len() as u64;
        Ok(())
    })?;
    root_file.sync_all().map_err(failed(root))?;
    read_back(root, &manifest.root)?;

    let (mut at, mut descriptors) = (0, Vec::new());
    copy(update, &manifest.boot, |bytes| {
        let until = |end: usize| end.saturating_sub(at).min(bytes.len());
        let (before, rest) = bytes.split_at(until(DESCRIPTORS.start));
        let (held, after) = rest.split_at(until(DESCRIPTORS.end) - before.len());
        descriptors.extend_from_slice(held);
        volume_file
            .write_all_at(before, at as u64)
            .and_then(|()| volume_file.write_all_at(after, (at + before.len() + held.len()) as u64))
            .map_err(failed(volume))?;
        at += bytes.len();
        Ok(())
    })?;
    volume_file.sync_all().map_err(failed(volume))?;
    describe(&descriptors)?;
    read_back(volume, &manifest.boot).inspect_err(|_| {
        let _ = describe(&erased);
    })
}

/// Puts an update into the slot that does not run, to be tried at the next start.
///
/// # Errors
/// `Refused` and `Corrupt` before anything is written; `Io`.
pub fn install(
    boot: &Boot,
    update: &mut (impl Read + Seek),
    key: Option<&[u8]>,
    running: &str,
) -> Result<Manifest> {
    let manifest = manifest(update, key)?;
    check(&manifest, running)?;
    verify(update, &manifest)?;
    let slot = boot.slot.ok_or_else(is_disc)?;
    let other = slot.other();
    let root = partition(boot, boot.other_root.as_ref(), other.root_name())?;
    let volume = partition(boot, boot.other_boot.as_ref(), other.boot_name())?;
    // From here on the other slot is not what it was: it must not be tried.
    Esp::mount(boot, For::Writing)?.choose(slot, None)?;
    let _ = fs::remove_file(places::NEXT);
    replace(root, volume, &manifest, update, &read_back)?;
    let trial = Some(Trial { slot: other, tried: false, instead: false });
    Esp::mount(boot, For::Writing)?.choose(slot, trial)?;
    Ok(manifest)
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// There was none.
    Nothing,
    /// The new system is up: it is the one that starts from now on.
    Up,
    /// The new system did not come up, and this is the old one.
    Back(Slot),
    /// This system could not be read at the start before, and the other slot was no help.
    Again,
    /// There is a new system, and it was not tried: the loader could not note that it would.
    NotTried(Slot),
}

/// Tells the loader that this system has come up.
///
/// # Errors
/// `Io`
pub fn confirm(boot: &Boot) -> Result<Came> {
    let (Some(slot), true) = (boot.slot, boot.esp.is_some()) else { return Ok(Came::Nothing) };
    let settle = || Esp::mount(boot, For::Writing)?.choose(slot, None);
    let read = Esp::mount(boot, For::Reading)?.choice();
    let choice = match read {
        Ok(choice) => choice,
        Err(error) => {
            // Whatever it said: what runs is what starts.
            tracing::error!(%error, "the loader's word is damaged and is written anew");
            settle()?;
            return Ok(Came::Nothing);
        }
    };
    let came = became(&choice, slot);
    match came {
        // One that was not tried stays chosen, for the next start.
        Came::Nothing | Came::NotTried(_) if choice.deployment.is_some() => {}
        Came::Nothing | Came::NotTried(_) => {
            Esp::mount(boot, For::Writing)?.choose(choice.slot, choice.trial)?;
        }
        _ => settle()?,
    }
    Ok(came)
}

/// What the loader's word says of the start of the system in `slot`.
fn became(choice: &Choice, slot: Slot) -> Came {
    match choice.trial {
        Some(trial) if trial.slot == slot => Came::Up,
        Some(trial) if trial.tried && trial.instead => Came::Again,
        Some(trial) if trial.tried => Came::Back(trial.slot),
        // Installed before this start: those that come later are not confirmed here.
        Some(trial) => Came::NotTried(trial.slot),
        None => Came::Nothing,
    }
}

/// Bytes of the update's head: everything before the signature.
///
/// # Errors
/// `Corrupt` for a manifest that is too long.
pub fn head(manifest: &Manifest) -> Result<Vec<u8>> {
    let text = serde_json::to_vec(manifest).map_err(|e| Error::corrupt(e.to_string()))?;
    let len = u32::try_from(text.len()).ok().filter(|_| text.len() <= MANIFEST_AT_MOST);
    let len = len.ok_or_else(|| Error::refused("the update's manifest is too long").at(FileOffset(0)))?;
    let mut head = MAGIC.to_vec();
    head.extend(len.to_le_bytes());
    head.extend(text);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_image::Kind;
    use ring::rand::SystemRandom;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    fn manifest_of(root: &[u8]) -> Manifest {
        let part = |bytes: &[u8]| Part {
            size: Bytes(bytes.len() as u64),
            sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        Manifest {
            version: "1".into(),
            snapshot: "20261130T000000Z".into(),
            release: "6.12".into(),
            boot: part(b"kernel"),
            root: part(root),
        }
    }

    #[test]
    fn only_what_is_signed_is_believed() {
        let pair = || {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
        };
        let (ours, other) = (pair(), pair());
        let wanted = manifest_of(b"root");
        let signed = |pair: &Ed25519KeyPair| {
            let mut bytes = head(&wanted).unwrap();
            let signature = pair.sign(&bytes);
            bytes.extend(signature.as_ref());
            bytes
        };
        let key = Some(ours.public_key().as_ref());
        let good = signed(&ours);
        assert_eq!(manifest(&mut &good[..], key).unwrap(), wanted);
        assert_eq!(manifest(&mut &signed(&other)[..], key).unwrap_err().kind(), Kind::Refused);
        assert_eq!(manifest(&mut &good[..], None).unwrap_err().kind(), Kind::Refused);
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(manifest(&mut &bad[..], key).is_err(), "a bit of byte {at}");
            assert!(manifest(&mut &good[..at], key).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_part_is_what_the_manifest_says() {
        let part = manifest_of(b"root").root;
        let mut out = Vec::new();
        copy(&mut &b"root and more"[..], &part, |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        })
        .unwrap();
        assert_eq!(out, b"root");
        for bad in [&b"roo"[..], b"rooT"] {
            assert_eq!(copy(&mut &bad[..], &part, |_| Ok(())).unwrap_err().kind(), Kind::Corrupt);
        }
    }

    /// By what the loader and PID 1 leave on the ESP, as it is read from there.
    #[test]
    fn what_became_of_an_update_is_read_from_the_loaders_word() {
        let word = |slot, trial: Option<(Slot, bool, bool)>| {
            let trial = trial.map(|(slot, tried, instead)| Trial { slot, tried, instead });
            Choice::parse(&Choice { slot, trial, deployment: None }.render()).unwrap()
        };
        let (a, b) = (Slot::A, Slot::B);
        assert_eq!(became(&word(a, None), a), Came::Nothing);
        // The loader has noted that it tries B, and B runs; or A does.
        assert_eq!(became(&word(a, Some((b, true, false))), b), Came::Up);
        assert_eq!(became(&word(a, Some((b, true, false))), a), Came::Back(b));
        // It could not note it, and started A, not to try B again and again.
        assert_eq!(became(&word(a, Some((b, false, false))), a), Came::NotTried(b));
        // A could not be read, and PID 1 has put B in its place: that runs, or is no help.
        assert_eq!(became(&word(a, Some((b, true, true))), b), Came::Up);
        assert_eq!(became(&word(a, Some((b, true, true))), a), Came::Again);
    }

    #[test]
    fn an_older_or_larger_one_is_refused() {
        let one = manifest_of(b"root");
        check(&one, "20261130T000000Z").unwrap();
        assert_eq!(check(&one, "20261201T000000Z").unwrap_err().kind(), Kind::Refused);
        for size in [0, layout::ROOT_SIZE.0 + 1] {
            let root = Part { size: Bytes(size), ..one.root.clone() };
            let refused = check(&Manifest { root, ..one.clone() }, "").unwrap_err();
            assert!(refused.kind() == Kind::Refused && refused.to_string().contains("root"), "{refused}");
        }
        for size in [0, layout::BOOT_SIZE.0 + 1] {
            let boot = Part { size: Bytes(size), ..one.boot.clone() };
            let refused = check(&Manifest { boot, ..one.clone() }, "").unwrap_err();
            assert!(
                refused.kind() == Kind::Refused && refused.to_string().contains("boot volume"),
                "{refused}"
            );
        }
    }

    /// Reads up to a place, and then the medium fails.
    struct Fails<'a>(&'a [u8]);
    impl Read for Fails<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.is_empty() {
                true => Err(std::io::Error::other("gone")),
                false => self.0.read(buffer),
            }
        }
    }

    #[test]
    fn a_boot_volume_that_can_be_read_belongs_to_a_whole_system() {
        let bytes = |seed: u8, len: usize| -> Vec<u8> {
            (0..len).map(|at| (at % 251).to_le_bytes()[0] ^ seed).collect()
        };
        let dir = tempfile::tempdir().unwrap();
        let (root, volume) = (dir.path().join("root"), dir.path().join("volume"));
        for volume_len in [DESCRIPTORS.end, DESCRIPTORS.end + 1, STEP + DESCRIPTORS.end + 17] {
            let (new_root, new_volume) = (bytes(1, 2 * STEP + 5), bytes(2, volume_len));
            let part = |bytes: &[u8]| Part {
                size: Bytes(bytes.len() as u64),
                sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            };
            let manifest =
                Manifest { root: part(&new_root), boot: part(&new_volume), ..manifest_of(b"root") };
            let update = [new_root.clone(), new_volume.clone()].concat();
            let old = || {
                fs::write(&root, bytes(3, 4 * STEP)).unwrap();
                fs::write(&volume, bytes(4, 3 * STEP)).unwrap();
            };
            let begins = || fs::read(&volume).unwrap()[DESCRIPTORS].iter().any(|byte| *byte != 0);
            let replace = |update: &mut dyn Read| replace(&root, &volume, &manifest, update, &read_back);
            for cut in [0, 1, STEP, 2 * STEP + 5, 2 * STEP + 6, update.len() - 1] {
                old();
                assert!(begins());
                let error = replace(&mut Fails(&update[..cut])).unwrap_err();
                assert_eq!(error.kind(), Kind::Io);
                assert!(!begins(), "cut at {cut}");
                let mut damaged = update.clone();
                damaged[cut] ^= 1;
                old();
                let error = replace(&mut &damaged[..]).unwrap_err();
                assert_eq!(error.kind(), Kind::Corrupt);
                assert!(!begins(), "damaged at {cut}");
            }
            // Before anything is written.
            let sent = [&b"head"[..], &update[..]].concat();
            let read = |update: &[u8]| {
                let mut update = std::io::Cursor::new(update);
                update.set_position(4);
                super::verify(&mut update, &manifest).map(|()| update.position())
            };
            assert_eq!(read(&sent).unwrap(), 4);
            assert_eq!(read(&sent[..sent.len() - 1]).unwrap_err().kind(), Kind::Corrupt);
            let end = sent.len() - 1;
            assert_eq!(read(&[&sent[..end], &[!sent[end]]].concat()).unwrap_err().kind(), Kind::Corrupt);
            old();
            replace(&mut &update[..]).unwrap();
            assert!(fs::read(&root).unwrap().starts_with(&new_root));
            assert!(fs::read(&volume).unwrap().starts_with(&new_volume));

            // A disk that does not keep what is written.
            for bad in [&root, &volume] {
                old();
                let read_back = |path: &Path, part: &Part| match path == bad {
                    true => Err(Error::refused("reads otherwise")),
                    false => super::read_back(path, part),
                };
                super::replace(&root, &volume, &manifest, &mut &update[..], &read_back).unwrap_err();
                assert!(!begins(), "{} does not read back", bad.display());
            }
        }
    }
}
