//! The descriptor, as VMware's tools write it.

use super::content_id::Cid;
use crate::create::Adapter;
use crate::error::{Error, Result};
use std::fmt::Write;
use std::path::Path;

/// What a descriptor says of a new disk.
pub(super) struct Text<'a> {
    pub(super) create_type: &'a str,
    pub(super) cid: Cid,
    /// All sectors of the disk.
    pub(super) sectors: u64,
    /// Access, sectors and type of each extent, its file's name, and what stands behind that.
    pub(super) extents: &'a [Line],
    pub(super) thin: bool,
    pub(super) adapter: Adapter,
}

/// One extent.
pub(super) struct Line {
    /// `RW` or `RDONLY`.
    pub(super) access: &'static str,
    pub(super) sectors: u64,
    /// `SPARSE`, `FLAT`, `VMFS`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// The offset in the file, which flat extents have.
    pub(super) offset: Option<u64>,
}

impl Text<'_> {
    /// The text. Of the same length whatever the content id.
    pub(super) fn render(&self) -> String {
        let mut out = String::new();
        let _ = write!(
            out,
            "# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID={:08x}\nparentCID=ffffffff\ncreateType=\"{}\"\n\n\
             # Extent description\n",
            self.cid.short(),
            self.create_type
        );
        for line in self.extents {
            let Line { access, sectors, kind, name, offset } = line;
            let _ = write!(out, "{access} {sectors} {kind} \"{}\"", escape(name));
            let _ = match offset {
                Some(offset) => writeln!(out, " {offset}"),
                None => writeln!(out),
            };
        }
        let [cylinders, heads, sectors] = geometry(self.adapter, self.sectors);
        let adapter = match self.adapter {
            // VMware's words are ide, buslogic, lsilogic and legacyESX: Virtual Disk Format 5.0, "The Disk Database".
            Adapter::LsiLogic | Adapter::PvScsi => "lsilogic",
            Adapter::BusLogic => "buslogic",
            Adapter::Ide => "ide",
        };
        let _ = write!(
            out,
            "\n# The Disk Data Base\n#DDB\n\n\
             ddb.adapterType = \"{adapter}\"\n\
             ddb.encoding = \"UTF-8\"\n\
             ddb.geometry.cylinders = \"{cylinders}\"\n\
             ddb.geometry.heads = \"{heads}\"\n\
             ddb.geometry.sectors = \"{sectors}\"\n\
             ddb.longContentID = \"{}\"\n",
            self.cid.long()
        );
        if self.thin {
            out.push_str("ddb.thinProvisioned = \"1\"\n");
        }
        // 2147483647: the guest looks after its tools itself. Hardware version 4: any product may open the disk.
        out.push_str("ddb.toolsVersion = \"2147483647\"\nddb.virtualHWVersion = \"4\"\n");
        out
    }
}

/// Cylinders, heads and sectors as VMware makes them up.
fn geometry(adapter: Adapter, sectors: u64) -> [u64; 3] {
    const GIB: u64 = (1 << 30) / 512;
    let [heads, per_track, most] = match sectors {
        _ if adapter == Adapter::Ide => [16, 63, 16_383],
        ..GIB => [64, 32, 65_535],
        GIB..=0x3f_ffff => [128, 32, 65_535],
        _ => [255, 63, 65_535],
    };
    [(sectors / (heads * per_track)).clamp(1, most), heads, per_track]
}

/// The name of a file in UTF-8, which descriptors are written in.
pub(super) fn file_name(path: &Path) -> Result<&str> {
    path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::refused("has a name that is not UTF-8, which a descriptor cannot hold")
            .in_file(path)
            .hint("choose another name")
    })
}

/// A quotation mark would end the name; VMware writes `|` and two hexadecimal digits instead.
fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '"' | '|' | '\0'..='\x1f' | '\x7f' => {
                let _ = write!(out, "|{:02X}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn geometries_are_those_of_real_disks() {
        // Disks that ESXi 4 to 6 wrote, and one by VirtualBox.
        let scsi = |sectors| geometry(Adapter::LsiLogic, sectors);
        assert_eq!(scsi(61_440), [30, 64, 32]);
        assert_eq!(scsi(4096), [2, 64, 32]);
        assert_eq!(scsi(16_777_216), [1044, 255, 63]);
        assert_eq!(scsi(33_554_432), [2088, 255, 63]);
        assert_eq!(geometry(Adapter::Ide, 16_777_216), [16_383, 16, 63]);
        assert_eq!(geometry(Adapter::PvScsi, 16_777_216), scsi(16_777_216));
        assert_eq!(scsi(1), [1, 64, 32]);
        assert_eq!(scsi(u64::MAX), [65_535, 255, 63]);
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escape("a\" 0\nRW 1 FLAT |b"), "a|22 0|0ARW 1 FLAT |7Cb");
        assert_eq!(escape("größe (1).vmdk"), "größe (1).vmdk");
    }
}
