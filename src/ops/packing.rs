//! A converted machine in one archive: the descriptor first, then its disks as they are written, the manifest last.

use super::Context;
use crate::hypervisor::{Artifact, Package, Placement, Rendered, Target, xen};
use crate::machine::Machine;
use landfall_image::create::{CreateOptions, FileOptions};
use landfall_image::ova::OvaWriter;
use landfall_image::xva::XvaWriter;
use landfall_image::{Bytes, Error, Result};
use std::path::{Path, PathBuf};

/// An archive under way. Dropped before it is finished it leaves nothing.
pub struct Packing {
    writer: Writer,
    /// Name of its file.
    file: String,
}

enum Writer {
    Ova(OvaWriter),
    Xva(XvaWriter),
}

impl Packing {
    /// Begins the archive of `machine` in `folder`: an OVA with room for a descriptor that names lengths, an XVA with its
    /// definition, which names none.
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
        let files = FileOptions { replace: true, resume: false, sync: true };
        if target.package == Package::Xva {
            let file = xen::write::file_name(&machine.name);
            let writer = XvaWriter::create(&folder.join(&file), &descriptor.text, files)?;
            return Ok(Packing { writer: Writer::Xva(writer), file });
        }
        let file = format!("{}.ova", descriptor.name.trim_end_matches(".ovf"));
        let room = Bytes(descriptor.text.len() as u64);
        let writer = OvaWriter::create(&folder.join(&file), &descriptor.name, "", room, files)?;
        Ok(Packing { writer: Writer::Ova(writer), file })
    }

    /// True for the part of a definition that goes into the archive.
    pub fn is_inside(artifact: &Artifact) -> bool {
        artifact.name.ends_with(".ovf") || artifact.name == "ova.xml"
    }

    /// Where the disk `name` is written; `options` are changed so that its sink writes there.
    pub fn disk(&mut self, name: &str, options: &mut CreateOptions) -> Result<PathBuf> {
        match &mut self.writer {
            Writer::Ova(writer) => writer.disk(name, options),
            Writer::Xva(writer) => writer.disk(name, options),
        }
    }

    /// The sink of the disk is finished: the length of its file.
    pub fn disk_done(&mut self) -> Result<Bytes> {
        match &mut self.writer {
            Writer::Ova(writer) => writer.disk_done(),
            Writer::Xva(writer) => writer.disk_done(),
        }
    }

    /// What the disk `name` is called from outside of the archive.
    pub fn path_of(&self, name: &str) -> String {
        format!("{}/{name}", self.file)
    }

    /// Completes the archive, an OVA with the final descriptor; returns its name.
    pub fn finish(self, context: &Context<'_>, rendered: Rendered) -> Result<String> {
        match self.writer {
            Writer::Ova(mut writer) => {
                writer.set_descriptor(&descriptor(rendered)?.text)?;
                writer.finish(&context.cancel)?;
            }
            Writer::Xva(writer) => drop(writer.finish()?),
        }
        Ok(self.file)
    }
}

fn descriptor(rendered: Rendered) -> Result<Artifact> {
    let found = rendered.artifacts.into_iter().find(Packing::is_inside);
    found.ok_or_else(|| Error::corrupt("the target's definition has no descriptor to pack"))
}

/// Where a disk of a converted machine lies: a file beside `report`, or a member of an archive beside it.
pub fn resolve(context: &Context<'_>, report: &Path, file: &str) -> Result<PathBuf> {
    let inside = [".ova", ".xva"].iter().find_map(|ending| {
        let (archive, member) = file.split_once(&format!("{ending}/"))?;
        Some((format!("{archive}{ending}"), member))
    });
    match inside {
        Some((archive, member)) => Ok(context.gate.resolve(report, &archive)?.join(plain(member)?)),
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
