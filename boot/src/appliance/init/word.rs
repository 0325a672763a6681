//! The loader's word (see [`layout`]) on a disk, before there is a driver for its file system: by it a disk is known as the one that the
//! loader was read from; and where the root of the slot that starts usually cannot be read, the loader is asked to try the other one,
//! once: whoever stands before the machine has no other way to it.
//!
//! The file is found by how it begins, and written where it lies, as the loader itself does.

use crate::appliance::layout::{self, Choice, ENVIRONMENT_SIZE, Slot, Trial};
use landfall_image::Bytes;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::Uuid;

const SECTOR: usize = 512;
const STEP: usize = 1 << 20;
/// What is read where a step cannot be.
const PIECE: usize = 4096;

/// Asks for it, in the loader's word on the partition `esp`; `slot` is the one that cannot be read, `deployment` whose word it is.
pub(super) fn ask(esp: &Path, slot: Slot, deployment: Option<Uuid>) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(esp)?;
    let mut places = Vec::new();
    each(&file, len(&file)?, |at, word| {
        if word.deployment == deployment {
            places.push(at);
        }
        true
    });
    // What was the word once may lie there still, and says so too; but a word without an identity may be any file's.
    if places.is_empty() || (deployment.is_none() && places.len() > 1) {
        return Err(io::Error::other(format!("the loader's word is there {} times", places.len())));
    }
    let trial = Trial { slot: slot.other(), tried: false, instead: true };
    let choice = Choice { slot, trial: Some(trial), deployment };
    for at in places {
        file.write_all_at(&choice.render(), at)?;
    }
    file.sync_all()
}

/// What the words on a partition say of whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// There is none, or only an image's that never came up.
    Nothing,
    /// The one that was asked for.
    Wanted,
    /// Another one.
    Another,
}

/// Looks for this deployment's word (`None`: an image's) in the first `within` bytes of the partition `esp`.
pub(super) fn said(esp: &Path, wanted: Option<Uuid>, within: Bytes) -> Said {
    let mut said = Said::Nothing;
    let look = |file: File| {
        each(&file, len(&file)?.min(within), |_, word| {
            said = match word.deployment {
                is if is == wanted => Said::Wanted,
                Some(_) => Said::Another,
                None => said,
            };
            said != Said::Wanted
        });
        Ok(())
    };
    // What cannot be read says nothing.
    let _ = File::open(esp).and_then(look);
    said
}

/// Of a partition, no more than our own has: somebody else's may be of any length.
fn len(mut file: &File) -> io::Result<Bytes> {
    Ok(Bytes(file.seek(SeekFrom::End(0))?).min(layout::ESP_SIZE))
}

/// Calls `found` with where each file lies in the first `len` bytes that is the loader's word, and what it says, until that says false. What
/// cannot be read is passed over: the word itself is in two sectors.
fn each(file: &impl FileExt, len: Bytes, mut found: impl FnMut(u64, Choice) -> bool) {
    let end = len.0;
    let mut whole = vec![0; STEP];
    for at in (0..end).step_by(STEP) {
        let len = usize::try_from(end - at).unwrap_or(STEP).min(STEP);
        let Some(step) = whole.get_mut(..len) else { break };
        if file.read_exact_at(step, at).is_err() {
            for (piece, index) in step.chunks_mut(PIECE).zip(0u64..) {
                // What seems to be there is read once more below.
                let _ = file.read_exact_at(piece, at + index * PIECE as u64);
            }
        }
        for (sector, index) in step.chunks(SECTOR).zip(0u64..) {
            // Most sectors end here.
            if !sector.starts_with(b"# GRUB Env") {
                continue;
            }
            let place = at + index * SECTOR as u64;
            let mut environment = vec![0; ENVIRONMENT_SIZE];
            if file.read_exact_at(&mut environment, place).is_ok()
                && let Ok(choice) = Choice::parse(&environment)
                && !found(place, choice)
            {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    /// A medium with a piece that cannot be read.
    struct Bad(Vec<u8>, Range<u64>);
    impl FileExt for Bad {
        fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
            if at < self.1.end && self.1.start < at + buffer.len() as u64 {
                return Err(io::Error::other("medium error"));
            }
            let rest = &self.0[usize::try_from(at).unwrap()..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            unreachable!()
        }
    }

    #[test]
    fn the_word_is_found_beside_what_cannot_be_read() {
        let word = Choice { slot: Slot::B, trial: None, deployment: None };
        let mut bytes = vec![0; 3 << 20];
        let at = STEP + 5 * PIECE;
        bytes[at..at + ENVIRONMENT_SIZE].copy_from_slice(&word.render());
        let len = Bytes(bytes.len() as u64);
        let found = |bad: Range<usize>| {
            let medium = Bad(bytes.clone(), bad.start as u64..bad.end as u64);
            let mut found = Vec::new();
            each(&medium, len, |at, word| {
                found.push((at, word));
                true
            });
            found
        };
        for bad in [0..1, at - 1..at, at + PIECE..at + PIECE + 1, 2 * STEP..3 * STEP] {
            assert_eq!(found(bad), [(at as u64, word)]);
        }
        assert_eq!(found(at..at + 1), []);
    }

    #[test]
    fn the_loaders_word_is_found_where_it_lies_and_changed_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("esp");
        let deployment = Some(Uuid::from_u128(7));
        let usual = Choice { slot: Slot::B, trial: None, deployment };
        let mut bytes = vec![7; 5 << 20];
        // Over the end of a step, beside the same words in a program.
        let at = STEP - SECTOR;
        bytes[at..at + ENVIRONMENT_SIZE].copy_from_slice(&usual.render());
        bytes[100..125].copy_from_slice(b"# GRUB Environment Block\n");
        bytes[2 * STEP..2 * STEP + 25].copy_from_slice(b"# GRUB Environment Block\n");
        std::fs::write(&path, &bytes).unwrap();
        let within = Bytes(u64::MAX);
        let said = |wanted| super::said(&path, wanted, within);
        assert_eq!((said(deployment), said(Some(Uuid::from_u128(8)))), (Said::Wanted, Said::Another));
        assert_eq!(super::said(&path, deployment, Bytes(at as u64)), Said::Nothing);
        assert_eq!(super::said(dir.path(), deployment, within), Said::Nothing);
        assert!(ask(&path, Slot::B, None).is_err() && ask(&path, Slot::B, Some(Uuid::from_u128(8))).is_err());
        assert!(std::fs::read(&path).unwrap() == bytes);
        ask(&path, Slot::B, deployment).unwrap();
        let after = std::fs::read(&path).unwrap();
        let found = Choice::parse(&after[at..at + ENVIRONMENT_SIZE]).unwrap();
        assert_eq!(
            found,
            Choice {
                slot: Slot::B,
                trial: Some(Trial { slot: Slot::A, tried: false, instead: true }),
                deployment
            }
        );
        assert!(
            after[..at] == bytes[..at] && after[at + ENVIRONMENT_SIZE..] == bytes[at + ENVIRONMENT_SIZE..]
        );
        // A word that was the loader's once, before this one and behind it.
        for place in [3 * STEP, 0] {
            let mut stale = bytes.clone();
            let old = Choice { deployment: Some(Uuid::from_u128(8)), ..usual }.render();
            stale[place..place + ENVIRONMENT_SIZE].copy_from_slice(&old);
            std::fs::write(&path, &stale).unwrap();
            assert_eq!(said(deployment), Said::Wanted);
            ask(&path, Slot::B, deployment).unwrap();
            let after = std::fs::read(&path).unwrap();
            assert!(after[place..place + ENVIRONMENT_SIZE] == old && after[at..] != stale[at..]);
        }
        // An image's word is there twice, or not at all: it is left alone.
        let image = Choice { deployment: None, ..usual }.render();
        for content in [[image.clone(), image.clone()].concat(), vec![0; STEP]] {
            std::fs::write(&path, &content).unwrap();
            assert!(ask(&path, Slot::B, None).is_err());
            assert!(std::fs::read(&path).unwrap() == content);
        }
        std::fs::write(&path, image).unwrap();
        assert_eq!((said(deployment), said(None)), (Said::Nothing, Said::Wanted));
    }
}
