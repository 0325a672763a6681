//! A converted machine in one archive: the descriptor first, then its disks as they are written, the manifest last.

use super::Context;
use crate::hypervisor::{Artifact, Placement, Rendered, Target};
use crate::machine::Machine;
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::ova::OvaWriter;
use landfall_image::{Bytes, Error, Result};
use std::path::{Path, PathBuf};

/// An archive under way. Dropped before it is finished it leaves nothing.
pub struct Packing {
    writer: OvaWriter,
    /// Name of its file.
    file: String,
}

impl Packing {
    /// Begins the archive of `machine` in `folder`, with room for a descriptor that names lengths.
    pub fn begin(
        folder: &Path,
        target: &Target,
        machine: &Machine,
        placement: &Placement,
    ) -> Result<Packing> {
        let mut longest = placement.clone();
        for disk in &mut longest.disks {
            disk.stored = Some(Bytes(u64::MAX));
        }
        let descriptor = descriptor((target.render)(machine, &longest)?)?;
        let file = format!("{}.ova", descriptor.name.trim_end_matches(".ovf"));
        let files = FileOptions { replace: true, resume: false, sync: true };
        let room = Bytes(descriptor.text.len() as u64);
        let writer = OvaWriter::create(&folder.join(&file), &descriptor.name, "", room, files)?;
        Ok(Packing { writer, file })
    }

    /// Where the disk `name` is written; `options` are changed so that its sink writes there.
    pub fn disk(&mut self, name: &str, options: &mut CreateOptions) -> Result<PathBuf> {
        self.writer.disk(name, options)
    }

    /// The sink of the disk is finished: the length of its file.
    pub fn disk_done(&mut self) -> Result<Bytes> {
        self.writer.disk_done()
    }

    /// What the disk `name` is called from outside of the archive.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.file)
    }

    /// Completes the archive with the final descriptor; returns its name.
    pub fn finish(mut self, context: &Context<'_>, rendered: Rendered) -> Result<String> {
        self.writer.set_descriptor(&descriptor(rendered)?.text)?;
        self.writer.finish(&context.cancel)?;
        Ok(self.file)
    }
}

fn descriptor(rendered: Rendered) -> Result<Artifact> {
    let found = rendered.artifacts.into_iter().find(|artifact| artifact.name.ends_with(".ovf"));
    found.ok_or_else(|| Error::corrupt("the target's definition has no descriptor to pack"))
}

/// Where a disk of a converted machine lies: a file beside `report`, or a member of an archive beside it.
pub fn resolve(context: &Context<'_>, report: &Path, file: &str) -> Result<PathBuf> {
    match file.split_once(".ova/") {
        Some((archive, member)) => {
            Ok(context.gate.resolve(report, &format!("{archive}.ova"))?.join(plain(member)?))
        }
        None => context.gate.resolve(report, file),
    }
}

/// A member's name that does not lead out of its archive.
fn plain(member: &str) -> Result<&str> {
    let leads_out =
        member.is_empty() || member.starts_with('/') || member.split('/').any(|part| part == "..");
    if leads_out { Err(Error::refused(format!("{member:?} is no name of a member"))) } else { Ok(member) }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn members_stay_in_their_archive() {
        assert!(plain("disk0.vmdk").is_ok() && plain("a/b").is_ok());
        for bad in ["", "/etc/passwd", "../x", "a/../../x", ".."] {
            assert!(plain(bad).is_err(), "{bad}");
        }
    }
}
