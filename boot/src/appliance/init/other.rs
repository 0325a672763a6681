//! Where the root of the slot that starts usually cannot be read, the loader is asked to try the other one, once: whoever stands before the
//! machine has no other way to it.
//!
//! By the same word a disk is known as the one that the loader was read from.
//!
//! Nothing here mounts the partition of the loaders: there is no driver for it yet. Its file is found by how it begins, and written where it
//! lies, as the loader itself does.

use crate::appliance::layout::{self, Choice, ENVIRONMENT_SIZE, Slot, Trial};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::Uuid;

const SECTOR: usize = 512;
const STEP: usize = 1 << 20;

/// Asks for it, in the loader's word on the partition `esp`; `slot` is the one that cannot be read.
pub(super) fn ask(esp: &Path, slot: Slot) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(esp)?;
    let (at, deployment) = match find(&file, usize::MAX)?[..] {
        [(at, ref word)] => (at, word.deployment),
        ref all => return Err(io::Error::other(format!("the loader's word is there {} times", all.len()))),
    };
    let trial = Trial { slot: slot.other(), tried: false, instead: true };
    let choice = Choice { slot, trial: Some(trial), deployment };
    file.write_all_at(&choice.render(), at)?;
    file.sync_all()
}

/// Whose word lies on the partition `esp`; `None` where there is none, or no more than an image's.
pub(super) fn deployment(esp: &Path) -> Option<Uuid> {
    let found = find(&File::open(esp).ok()?, 1).ok()?;
    found.first()?.1.deployment
}

/// Where files lie that are the loader's word, in bytes, and what they say: so many of them at most.
fn find(file: &File, at_most: usize) -> io::Result<Vec<(u64, Choice)>> {
    let mut found = Vec::new();
    let (mut at, mut whole, mut reader) = (0, vec![0; STEP], file);
    // Somebody else's partition may be of any length.
    while at < layout::ESP_SIZE.0 && found.len() < at_most {
        let mut len = 0;
        while len < STEP {
            match reader.read(whole.get_mut(len..).unwrap_or_default())? {
                0 => break,
                read => len += read,
            }
        }
        for (index, sector) in whole.get(..len).unwrap_or_default().chunks(SECTOR).enumerate() {
            // Most sectors end here.
            if !sector.starts_with(b"# GRUB Env") {
                continue;
            }
            let place = at + (index * SECTOR) as u64;
            let mut environment = vec![0; ENVIRONMENT_SIZE];
            if file.read_exact_at(&mut environment, place).is_ok()
                && let Ok(choice) = Choice::parse(&environment)
            {
                found.push((place, choice));
            }
        }
        at += len as u64;
        if len < STEP {
            break;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(super::deployment(&path), deployment);
        ask(&path, Slot::B).unwrap();
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
        // Twice, or not at all: it is left alone.
        for content in [[&bytes[..], &usual.render()].concat(), vec![0; STEP]] {
            std::fs::write(&path, &content).unwrap();
            assert!(ask(&path, Slot::B).is_err());
            assert!(std::fs::read(&path).unwrap() == content);
        }
    }
}
