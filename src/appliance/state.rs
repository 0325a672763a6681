//! The state partition: `/var`, with settings, certificates and logs.
//!
//! It is made at the first start, so that the image stays small and the same for everybody. Making it is all or nothing: the file system
//! is made in memory and copied, its first block, in which the superblock lies, last. A partition without one was never completed and holds
//! nothing; one with a superblock is never made anew, whatever else is wrong with it.
//!
//! A system that runs from a disc has no partition of its own for it: see [`super::disc`].
//!
//! Deliberately absent: encryption. Whoever has the virtual disk has the machine.

use super::problems::{self, Problem};
use super::{disc, places, programs};
pub use crate::small_file::{read, write};
use landfall_boot::appliance::init::{BOOT_FILE, Boot};
use landfall_boot::appliance::layout;
use landfall_image::{Error, Result};
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

/// An ext4 superblock lies at byte 1024; its magic at 0x38 in it.
const BLOCK: usize = 4096;
const MAGIC: (usize, [u8; 2]) = (1024 + 0x38, [0x53, 0xef]);
/// The step that tells that the state is in memory.
pub const IN_MEMORY: &str = "1-state-memory";
/// What a copy moves at a time.
const STEP: usize = 1 << 20;

/// What the first second of this start found.
///
/// # Errors
/// `Io` and `Corrupt` where this machine was not started as an appliance.
pub fn boot() -> Result<Boot> {
    let path = Path::new(BOOT_FILE);
    let bytes = fs::read(path).map_err(|e| {
        Error::io("cannot read", e)
            .in_file(path)
            .hint("this is a command of the booted appliance; it does nothing elsewhere")
    })?;
    serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(e.to_string()).in_file(path))
}

/// Mounts the state, made where it never was; where it cannot be had, memory takes its place, and that is told.
///
/// # Errors
/// Where not even memory can be mounted.
pub fn prepare(boot: &Boot) -> Result<()> {
    let mut found = Vec::new();
    found.extend(boot.trouble.iter().map(|says| Problem::new(says.as_str(), "")));
    if boot.fallback {
        found.push(Problem::new(
            "the system that should have started cannot be read; the other one runs",
            "Install an update: it replaces the damaged system.",
        ));
    }
    found.extend(boot.doubles.iter().map(|disk| {
        Problem::new(
            format!(
                "{} holds another landfall system; this one runs from {}",
                disk.display(),
                boot.system.display()
            ),
            "Detach it: the firmware may start that one the next time.",
        )
    }));
    let partition = match (&boot.state, boot.slot) {
        (Some(partition), _) => Ok(partition.clone()),
        (None, None) => disc::place(boot),
        (None, Some(_)) => Err(Error::refused("the system's disk has no partition for them")
            .hint("deploy the appliance anew: the vault is on the data disk and is found again")),
    };
    let mut in_memory = Vec::new();
    let mounted = partition.and_then(|partition| {
        let mounted =
            make(&partition).and_then(|()| mount_state(&partition)).map(|mended| found.extend(mended));
        mounted.inspect_err(|_| {
            let path = partition.to_string_lossy();
            if let Err(error) = write(Path::new(places::DAMAGED_STATE), path.as_bytes(), 0o644) {
                tracing::error!(%error, "cannot note the damaged state");
            }
        })
    });
    if let Err(error) = mounted {
        in_memory.push(Problem::new(
            format!("settings, certificates and logs are in memory and lost with the next start: {error}"),
            error.hint_text().unwrap_or_default(),
        ));
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("tmpfs", places::STATE, "tmpfs", flags, Some(c"mode=0755,size=10%"))
            .map_err(|e| Error::io("cannot mount memory", e.into()).in_file(Path::new(places::STATE)))?;
    }
    folders()?;
    // Of one whose installing lost its power: it is sent anew, and takes the room of settings until then.
    let _ = fs::remove_file(places::UPDATE);
    problems::tell("1-state", &found);
    problems::tell(IN_MEMORY, &in_memory);
    Ok(())
}

/// The folders of the state that everything else counts on.
///
/// # Errors
/// `Io`
pub fn folders() -> Result<()> {
    for (folder, mode) in [
        ("/var/lib", 0o755),
        ("/var/log", 0o755),
        ("/var/cache", 0o755),
        ("/var/tmp", 0o1777),
        ("/var/log/journal", 0o2755),
        (places::KEPT, 0o755),
        (places::VAULT, 0o700),
        (places::RUN, 0o755),
    ] {
        let made = fs::create_dir_all(folder)
            .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)));
        made.map_err(|e| Error::io("cannot make", e).in_file(Path::new(folder)))?;
    }
    for (link, target) in [("/var/run", "/run"), ("/var/lock", "/run/lock")] {
        match std::os::unix::fs::symlink(target, link) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("cannot make", e).in_file(Path::new(link)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the file system where there is none yet.
///
/// # Errors
/// `Corrupt` where something else is there, `Io`.
pub fn make(partition: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot make the state partition", e).in_file(partition);
    let device = File::options().read(true).write(true).open(partition).map_err(failed)?;
    let mut first = [0; BLOCK];
    device.read_exact_at(&mut first, 0).map_err(failed)?;
    if first.get(MAGIC.0..MAGIC.0 + 2) == Some(&MAGIC.1) {
        return Ok(());
    }
    if first.iter().any(|byte| *byte != 0) {
        return Err(Error::corrupt("the state partition holds something that is no ext4 file system")
            .in_file(partition)
            .hint("nothing is done to it; deploy the appliance anew, its vault is on the data disk"));
    }
    let size = std::io::Seek::seek(&mut &device, std::io::SeekFrom::End(0)).map_err(failed)?;
    fs::create_dir_all(places::RUN).map_err(failed)?;
    let scratch = Path::new(places::RUN).join("state.ext4");
    let file = File::create(&scratch).map_err(failed)?;
    file.set_len(size).map_err(failed)?;
    let made = programs::must(
        programs::MKFS_EXT4,
        &[
            "-q",
            "-F",
            "-L",
            layout::STATE_LABEL,
            "-m",
            "1",
            "-E",
            "lazy_itable_init=1,lazy_journal_init=1,nodiscard",
            &scratch.to_string_lossy(),
        ],
    );
    let copied = made.and_then(|_| copy(&scratch, &device, partition));
    let _ = fs::remove_file(&scratch);
    copied
}

/// Copies what is not zero, the first block last.
fn copy(from: &Path, device: &File, partition: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot write the state partition", e).in_file(partition);
    let file = File::open(from).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let mut buffer = vec![0; STEP];
    let mut first = [0; BLOCK];
    let mut at = 0;
    while at < size {
        // Holes of a sparse file are not read.
        let Ok(data) = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at)) else { break };
        at = data / BLOCK as u64 * BLOCK as u64;
        let read = file.read_at(&mut buffer, at).map_err(failed)?;
        for (index, block) in buffer.get(..read).unwrap_or_default().chunks(BLOCK).enumerate() {
            let place = at + (index * BLOCK) as u64;
            if place == 0 {
                first.get_mut(..block.len()).unwrap_or_default().copy_from_slice(block);
            } else if block.iter().any(|byte| *byte != 0) {
                device.write_all_at(block, place).map_err(failed)?;
            }
        }
        if read == 0 {
            break;
        }
        at += read as u64;
    }
    device.sync_all().map_err(failed)?;
    device.write_all_at(&first, 0).map_err(failed)?;
    device.sync_all().map_err(failed)
}

/// Reads a partition from its beginning to its end.
fn can_be_read(partition: &Path) -> Result<()> {
    let failed = |e| Error::io("cannot be read", e).in_file(partition);
    let mut file = File::open(partition).map_err(failed)?;
    std::io::copy(&mut file, &mut std::io::sink()).map_err(failed)?;
    Ok(())
}

/// Mounts the state. What was lost in its repair, where there had to be one.
///
/// # Errors
/// `Io`
pub fn mount_state(partition: &Path) -> Result<Option<Problem>> {
    // The exit codes are those of e2fsck(8): 4 leaves errors behind, 8 and more did not work.
    let check = |how: &str| programs::run(programs::FSCK_EXT4, &[how, &partition.to_string_lossy()]);
    // Replays the journal, and mends what cannot lose anything.
    let (code, text) = check("-p")?;
    let mut mended = None;
    if code >= 4 {
        tracing::error!("e2fsck -p ended with {code}: {}", text.trim_end());
        const LOOK: &str = "Look through the settings (Network, Time, Keys), and whether sources still connect. The disk may be failing: its messages are in the support bundle.";
        // What cannot be read at this moment would be written over: it may be readable at the next start.
        mended = Some(match can_be_read(partition) {
            Err(error) => {
                Problem::new(format!("the disk of settings, certificates and logs is failing: {error}"), LOOK)
            }
            Ok(()) => {
                // Settings that are not whole are better than another authority, whose certificates no source has. A second look mends what the
                // first has uncovered.
                let mut code = 4;
                for _ in 0..2 {
                    if code >= 4 {
                        let (now, text) = check("-y")?;
                        tracing::error!("e2fsck -y ended with {now}: {}", text.trim_end());
                        code = now;
                    }
                }
                let says = match code >= 4 {
                    false => {
                        "the file system of settings, certificates and logs was damaged, and has been repaired"
                    }
                    true => {
                        "the file system of settings, certificates and logs is damaged, and cannot be repaired"
                    }
                };
                Problem::new(says, LOOK)
            }
        });
    }
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    mount(partition, places::STATE, "ext4", flags, None).map_err(|e| {
        Error::io("cannot mount the state partition", e.into())
            .in_file(partition)
            .hint("deploy the appliance anew: the vault is on the data disk and is found again")
    })?;
    Ok(mended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superblock_comes_last_and_the_copy_is_sound() {
        let dir = tempfile::tempdir().unwrap();
        let made = dir.path().join("made");
        File::create(&made).unwrap().set_len(64 << 20).unwrap();
        let mkfs = std::process::Command::new("mkfs.ext4")
            .args(["-q", "-F", "-E", "lazy_itable_init=1"])
            .arg(&made)
            .status();
        if !mkfs.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: the_superblock_comes_last_and_the_copy_is_sound: no mkfs.ext4 here");
            return;
        }
        let target = dir.path().join("partition");
        let device = File::options().read(true).write(true).create_new(true).open(&target).unwrap();
        device.set_len(64 << 20).unwrap();
        copy(&made, &device, &target).unwrap();
        assert!(fs::read(&made).unwrap() == fs::read(&target).unwrap());
        // One that is there is not made anew.
        make(&target).unwrap();
        assert!(fs::read(&made).unwrap() == fs::read(&target).unwrap());
        device.write_all_at(b"other", 0).unwrap();
        device.write_all_at(&[0, 0], 1024 + 0x38).unwrap();
        assert_eq!(make(&target).unwrap_err().kind(), landfall_image::Kind::Corrupt);
    }
}
